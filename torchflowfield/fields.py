"""Vector fields in latent space: gradients, rotations and their sum, in closed form."""

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from torchflowfield._checks import as_time, check_latent
from torchflowfield.custom import FieldSnapshot
from torchflowfield.custom import ModuleField as ModuleField  # a public name of this module too
from torchflowfield.interface import FlowField, Jet, Time
from torchflowfield.ridge import RidgeSnapshot
from torchflowfield.stack import Kind, RidgeStack

Snapshot = RidgeSnapshot | FieldSnapshot


class SnapshotField(FlowField):
    """A field that is first evaluated in time, which gives a snapshot, and then in space."""

    @abstractmethod
    def _at(self, t: Time, z: Tensor, context: Tensor | None) -> tuple[Snapshot, Tensor | None]:
        """The snapshot at time `t`, and the controls `[*, K, P]`, None for one field alone."""

    def forward(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Velocity at time `t`, in latent units per frame."""
        snapshot, controls = self._at(t, z, context)
        return snapshot.velocity(z, controls)

    def divergence(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Divergence of the velocity; in closed form, no product beyond the first."""
        snapshot, controls = self._at(t, z, context)
        return snapshot.divergence(z, controls)

    def jvp(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        x: Float[Tensor, "*batch dim"],
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch dim"]:
        """Jacobian at `z` applied to the vectors `x`; in closed form, by two products.

        Raises:
            ValueError: If `x` has another shape than `z`.
        """
        if x.shape != z.shape:
            raise ValueError(
                f"{type(self).__name__}: expected vectors x of shape {tuple(z.shape)}, as z, got {tuple(x.shape)}."
            )
        snapshot, controls = self._at(t, z, context)
        return snapshot.jvp(z, x, controls)

    def jacobian(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Float[Tensor, "*batch dim dim"]:
        r"""Jacobian $J_{de} = \partial v_d / \partial z_e$."""
        snapshot, controls = self._at(t, z, context)
        return snapshot.jacobian(z, controls)

    def log_det(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        step: float = 1.0,
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch"]:
        r"""$\log|\det(I + \text{step}\, J)|$; in closed form, through a `width`×`width` matrix if that is smaller."""
        snapshot, controls = self._at(t, z, context)
        return snapshot.log_det(z, controls, step)


class _RidgeField(SnapshotField):
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

    @property
    def has_potential(self) -> bool:
        """Whether it is a gradient, at least in part."""
        return self.ridge.potentials[0]

    def extra_repr(self) -> str:
        """Sizes, as `print` shows them."""
        return f"dim={self.dim}, width={self.ridge.weight.shape[1]}, activation={self.ridge.activation!r}"

    def _at(self, t: Time, z: Tensor, context: Tensor | None) -> tuple[RidgeSnapshot, None]:
        check_latent(type(self).__name__, z, self.dim, self.ridge.weight)
        return self.ridge.at(as_time(type(self).__name__, t, z), context), None

    def jet(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Float[Tensor, "*#batch context"] | None = None
    ) -> Jet:
        """Potential, velocity, time derivative, Laplacian and gradient in one pass."""
        jet = self._at(t, z, context)[0].jet(z)
        return Jet(
            jet.potential.squeeze(-1),
            jet.velocity.squeeze(-2),
            jet.time_derivative.squeeze(-1),
            jet.laplacian.squeeze(-1),
            jet.gradient.squeeze(-2),
        )


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
        gradient, rotation = self._at(t, z, context)[0].parts(z).squeeze(-3).unbind(-2)
        return HelmholtzParts(gradient, rotation)
