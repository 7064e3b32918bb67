"""Vector fields in latent space: the interface, and three kinds in closed form."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import as_time, check_latent
from torchflowfield.ridge import Jet, RidgeSnapshot, log_det_euler
from torchflowfield.stack import Kind, RidgeStack

Time = float | int | Float[Tensor, "*#batch"]


class FlowField(nn.Module):
    r"""A vector field $v(t, z)$ on latent space: the interface of all fields.

    Time comes first, as in `torchdiffeq.odeint`, and is measured in frames. A subclass defines `forward`;
    every other quantity then follows by `torch.func`. The fields of this package override them in closed form.

    `z` is `[*, D]` with any batch shape, none included. `t` is a number, a scalar tensor or one time per sample.
    """

    @abstractmethod
    def forward(self, t: Time, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity `[*, D]` at time `t`, in latent units per frame."""

    def _velocity(self, t: Time, context: Tensor | None):  # type: ignore[no-untyped-def]
        return lambda z: self(t, z) if context is None else self(t, z, context)

    def jvp(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        x: Float[Tensor, "*batch dim"],
        context: Tensor | None = None,
    ) -> Float[Tensor, "*batch dim"]:
        """Jacobian at `z` applied to the vectors `x`."""
        return torch.func.jvp(self._velocity(t, context), (z,), (x,))[1]

    def jacobian(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch dim dim"]:
        r"""Jacobian $J_{de} = \partial v_d / \partial z_e$."""
        basis = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        columns = torch.func.vmap(lambda e: self.jvp(t, z, e.expand_as(z), context))
        return columns(basis).movedim(0, -1)

    def divergence(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Trace of the Jacobian."""
        return self.jacobian(t, z, context).diagonal(dim1=-2, dim2=-1).sum(-1)

    def log_det(
        self, t: Time, z: Float[Tensor, "*batch dim"], step: float = 1.0, context: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        r"""$\log|\det(I + \text{step}\, J)|$: the volume change of the Euler map $z + \text{step}\, v(t, z)$."""
        return log_det_euler(self.jacobian(t, z, context), step)

    def jet(self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None) -> Jet:
        """Velocity and divergence, with a potential of zero; potential fields override this."""
        velocity = self._velocity(t, context)(z)
        zero = torch.zeros_like(velocity[..., 0])
        return Jet(zero, velocity, zero, self.divergence(t, z, context), torch.zeros_like(velocity))


class ModuleField(FlowField):
    """Any module `v(t, z) -> [*, D]` as a field.

    Args:
        module: Called as `module(t, z)`; it may take a third argument, the context.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, t: Time, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity of the wrapped module."""
        return self.module(t, z) if context is None else self.module(t, z, context)


class _RidgeField(FlowField):
    kind: Kind

    def __init__(
        self,
        dim: int,
        width: int = 128,
        *,
        activation: str = "logcosh",
        convex: bool = False,
        frequencies: int = 4,
        period: float = 32.0,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        self.ridge = RidgeStack(
            1,
            dim,
            width,
            kind=self.kind,
            activation=activation,
            convex=convex,
            frequencies=frequencies,
            period=period,
            context_dim=context_dim,
            owner=type(self).__name__,
        )

    @property
    def dim(self) -> int:
        """Size of the latent vector."""
        return self.ridge.weight.shape[-1]

    def extra_repr(self) -> str:
        """Sizes, as `print` shows them."""
        return f"dim={self.dim}, width={self.ridge.weight.shape[1]}, activation={self.ridge.activation!r}"

    def _at(self, t: Time, z: Tensor, context: Tensor | None) -> RidgeSnapshot:
        check_latent(type(self).__name__, z, self.dim, self.ridge.weight)
        return self.ridge.at(as_time(type(self).__name__, t, z), context)

    def forward(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Velocity at time `t`, in latent units per frame."""
        return self._at(t, z, context).velocity(z, None)

    def jet(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Jet:
        """Potential, velocity, time derivative, Laplacian and gradient in one pass."""
        jet = self._at(t, z, context).jet(z)
        return Jet(
            jet.potential.squeeze(-1),
            jet.velocity.squeeze(-2),
            jet.time_derivative.squeeze(-1),
            jet.laplacian.squeeze(-1),
            jet.gradient.squeeze(-2),
        )

    def divergence(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Divergence of the velocity; no product beyond the first."""
        return self._at(t, z, context).divergence(z, None)

    def jvp(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        x: Float[Tensor, "*batch dim"],
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch dim"]:
        """Jacobian at `z` applied to the vectors `x`, by two products."""
        return self._at(t, z, context).jvp(z, x, None)

    def jacobian(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch dim dim"]:
        r"""Jacobian $J_{de} = \partial v_d / \partial z_e$."""
        return self._at(t, z, context).jacobian(z, None)

    def log_det(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        step: float = 1.0,
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        r"""$\log|\det(I + \text{step}\, J)|$, through a `width`×`width` matrix where that is the smaller one."""
        return self._at(t, z, context).log_det(z, None, step)


class PotentialFlowField(_RidgeField):
    r"""Gradient flow $v = \nabla_z u(t, z)$ of a ridge potential $u = \sum_j c_j(t)\, \phi(w_j \cdot z + b_j(t))$.

    Time is in frames; the velocity is a displacement per frame. Its Jacobian is the Hessian of $u$, hence symmetric.
    With `convex=True` every $c_j \ge 0$ and $\phi$ is convex, so $z \mapsto z + h \nabla u$ is the gradient of a
    strongly convex function for every $h > 0$: invertible, and by Brenier's theorem the optimal transport map
    between any distribution and its image.

    Args:
        dim: Size of the latent vector.
        width: Number of ridge units; the cost of a step is linear in it.
        activation: Profile $\phi$: `"logcosh"` (slope tanh), `"cos"` (slope sin) or `"softplus"` (slope sigmoid).
        convex: Keep the potential convex in `z`.
        frequencies: Harmonics of time in $b_j$ and $c_j$; 0 makes the field autonomous.
        period: Longest period of those harmonics, in frames.
        context_dim: Size of an optional context vector that shifts the pre-activations.

    Raises:
        ValueError: For sizes below one, an unknown activation, or `convex=True` with `"cos"`.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023.

    Example:
        >>> field = PotentialFlowField(dim=2)
        >>> field(0.5, torch.randn(8, 2)).shape
        torch.Size([8, 2])
    """

    kind: Kind = "potential"


class RotationalFlowField(_RidgeField):
    r"""Divergence-free flow $r(t, z) = \sum_j \phi'(w_j \cdot z + b_j(t))\, \rho_j$ with every $\rho_j \perp w_j$.

    Each unit moves points along its own wave fronts, so that $\nabla \cdot r = \sum_j \phi'' (w_j \cdot \rho_j) = 0$
    for every value of the parameters, and the flow preserves volume. $\rho_j$ is projected when it is used.

    Args:
        dim: Size of the latent vector, at least 2.
        width: Number of ridge units.
        activation: `"logcosh"`, `"cos"` or `"softplus"`.
        frequencies: Harmonics of time in $b_j$; 0 makes the field autonomous.
        period: Longest period of those harmonics, in frames.
        context_dim: Size of an optional context vector.

    Raises:
        ValueError: For `dim` below 2, other sizes below one, or an unknown activation.

    Reference:
        The rotational part of Song et al., Unsupervised Representation Learning from Sparse Transformation
        Analysis, arXiv 2410.05564, with zero divergence by construction in place of a penalty.

    Example:
        >>> field = RotationalFlowField(dim=3)
        >>> bool((field.divergence(0.0, torch.randn(8, 3)) == 0).all())
        True
    """

    kind: Kind = "rotational"

    def __init__(
        self,
        dim: int,
        width: int = 128,
        *,
        activation: str = "logcosh",
        frequencies: int = 4,
        period: float = 32.0,
        context_dim: int = 0,
    ) -> None:
        super().__init__(
            dim, width, activation=activation, frequencies=frequencies, period=period, context_dim=context_dim
        )


class HelmholtzParts(NamedTuple):
    """The two parts of a field: `gradient` is curl-free, `rotation` divergence-free; both `[*, D]`."""

    gradient: Tensor
    rotation: Tensor


class HelmholtzFlowField(RotationalFlowField):
    r"""Flow $v = \nabla u + r$: one two-layer network whose output weights lie along and across the input weights.

    Arguments and errors are those of `RotationalFlowField`.

    Reference:
        Song et al., Unsupervised Representation Learning from Sparse Transformation Analysis, arXiv 2410.05564.

    Example:
        >>> field, z = HelmholtzFlowField(dim=3), torch.randn(8, 3)
        >>> parts = field.helmholtz(0.0, z)
        >>> torch.allclose(parts.gradient + parts.rotation, field(0.0, z), atol=1e-6)
        True
    """

    kind: Kind = "helmholtz"

    def helmholtz(self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None) -> HelmholtzParts:
        """The curl-free and the divergence-free part of the velocity."""
        gradient, rotation = self._at(t, z, context).parts(z).squeeze(-3).unbind(-2)
        return HelmholtzParts(gradient, rotation)
