"""Adaptive solvers of torchdiffeq, with the log-density in the state."""

from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

from torchflowfield.interface import FlowField

ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


class AugmentedDynamics(nn.Module):
    r"""Joint dynamics of $(z, \log|\det|)$: $\dot z = v(t, z)$ and $\dot \ell = \nabla \cdot v(t, z)$."""

    def __init__(self, field: FlowField, context: Tensor | None, density: bool) -> None:
        super().__init__()
        self.field, self.context, self.density = field, context, density

    def forward(self, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Time derivative of the state."""
        z = state[0]
        velocity = self.field(t, z) if self.context is None else self.field(t, z, self.context)
        if not self.density:
            return (velocity,)
        extra = () if self.context is None else (self.context,)
        return velocity, self.field.divergence(t, z, *extra)


def integrate(
    field: FlowField,
    z: Tensor,
    span: tuple[Tensor, Tensor],
    *,
    method: str,
    density: bool,
    context: Tensor | None,
    inputs: tuple[Tensor, ...],
    adjoint: bool,
    rtol: float,
    atol: float,
) -> tuple[Tensor, Tensor | None]:
    """Move `z` over a span of time; returns the new `z` and the log-determinant, if wanted.

    `inputs` are tensors other than parameters whose gradients the adjoint must carry: weights and context.
    """
    dynamics = AugmentedDynamics(field, context, density)
    state = (z, z.new_zeros(z.shape[:-1])) if density else (z,)
    # A step has to end at each end of the span (the adjoint goes back): past it, torchdiffeq interpolates by a quartic,
    # whose error no tolerance controls and which in the long steps of dopri8 exceeds that of the method.
    landing = {"step_t": torch.stack(span).detach()}
    options: dict[str, Any] = {"method": method, "rtol": rtol, "atol": atol, "options": landing}
    solve = torchdiffeq.odeint
    if adjoint:
        solve = torchdiffeq.odeint_adjoint
        wanted = (*dynamics.parameters(), *inputs)
        options["adjoint_params"] = tuple(p for p in wanted if p.requires_grad)
    solution = solve(dynamics, state, torch.stack(span), **options)
    return solution[0][-1], solution[1][-1] if density else None
