"""The interface of all vector fields in latent space."""

from abc import abstractmethod
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import check_velocity

Time = float | int | Float[Tensor, "*#batch"]


class Selection(NamedTuple):
    """One field of several, whole (`part=None`) or one of its parts: what an int weight stands for."""

    field: int
    part: int | None


class Jet(NamedTuple):
    r"""All first-order facts about a field at $(t, z)$, from one pass.

    Attributes:
        potential: $u$, zero for a field without one.
        velocity: $v$, the displacement per frame.
        time_derivative: $\partial u / \partial t$.
        laplacian: $\nabla \cdot v$, which is $\Delta u$: rotational parts add nothing.
        gradient: $\nabla u$, the curl-free part of the velocity.
    """

    potential: Tensor
    velocity: Tensor
    time_derivative: Tensor
    laplacian: Tensor
    gradient: Tensor


class Evaluation(NamedTuple):
    """A mixture at one time: `velocity [*, D]`, `divergence [*]` if wanted; the rest of each field, `[K, *]`."""

    velocity: Tensor
    divergence: Tensor | None
    time_derivative: Tensor
    gradient_norm2: Tensor


class FlowField(nn.Module):
    r"""A vector field $v(t, z)$ on latent space: the interface of all fields.

    Time comes first, as in `torchdiffeq.odeint`, and is measured in frames. A subclass defines `forward`;
    every other quantity then follows by `torch.func`. The fields of this package override them in closed form.

    `z` is `[*, D]` with any batch shape, none included. `t` is a number, a scalar tensor or one time per sample.
    """

    @property
    def has_potential(self) -> bool:
        """Whether it is a gradient, at least in part, as a field is whose class says what its jet is."""
        return type(self).jet is not FlowField.jet

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
        # Forward mode writes to its input, which may not share memory between samples.
        return torch.func.jvp(self._velocity(t, context), (z.contiguous(),), (x,))[1]

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
        r"""$\log|\det(I + \text{step}\, J)|$: the volume change of the Euler map $z + \text{step}\, v(t, z)$.

        Raises:
            ValueError: For a step per sample.
        """
        return log_det_euler(self.jacobian(t, z, context), step)

    def jet(self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None) -> Jet:
        """Velocity and divergence, with a potential of zero; potential fields override this."""
        velocity = check_velocity(self, self._velocity(t, context)(z), z)
        zero = torch.zeros_like(velocity[..., 0])
        return Jet(zero, velocity, zero, self.divergence(t, z, context), torch.zeros_like(velocity))

    def _jet(self, t: Time, z: Tensor, context: Tensor | None, divergence: bool) -> Jet:
        """The jet, in which a Laplacian that is dear may be zero where no divergence is wanted."""
        return self.jet(t, z) if context is None else self.jet(t, z, context)


def log_det_euler(jacobian: Tensor, step: float) -> Tensor:
    r"""$\log |\det(I + \text{step} \, J)|$, in float32 at least: autocast hands over Jacobians of lower precision."""
    if jacobian.dtype in (torch.bfloat16, torch.float16):
        jacobian = jacobian.float()
    if isinstance(step, Tensor) and step.numel() != 1 and step.shape[-2:] != (1, 1):
        raise ValueError(f"log_det: expected one step for all samples, got a tensor of shape {tuple(step.shape)}.")
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return torch.linalg.slogdet(identity + step * jacobian).logabsdet
