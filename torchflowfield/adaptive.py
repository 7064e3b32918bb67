"""Adaptive solvers of torchdiffeq, with the log-density in the state."""

from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from torchflowfield._checks import check_finite
from torchflowfield.autograd import AutogradPotential
from torchflowfield.custom import FieldStack
from torchflowfield.fields import Snapshot
from torchflowfield.interface import Selection
from torchflowfield.stack import RidgeStack

ADAPTIVE_METHODS = ("dopri5", "dopri8", "bosh3", "fehlberg2", "adaptive_heun")


class AugmentedDynamics:
    r"""Joint dynamics of $(z, \log|\det|)$: $\dot z = v(t, z)$ and $\dot \ell = \nabla \cdot v(t, z)$.

    Args:
        at: The fields at a time.
        controls: The mixture, None for one field alone.
        dtype: That in which the fields are evaluated; the state and its error may have a wider one.
    """

    def __init__(self, at: Callable[[Tensor], Snapshot], controls: Tensor | None, dtype: torch.dtype) -> None:
        self.at, self.controls, self.dtype = at, controls, dtype
        self.step: Tensor | None = None

    def __call__(self, t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Time derivative of the state."""
        z, wide = state[0].to(self.dtype), state[0].dtype
        # Its rounding is no error that steps could make small. In here, as the adjoint comes back in a backward pass.
        with torch.autocast(z.device.type, enabled=False):
            fields = self.at(t.to(self.dtype))
            if len(state) == 1:
                return (fields.velocity(z, self.controls).to(wide),)
            velocity, divergence = fields.velocity_and_divergence(z, self.controls)
            return velocity.to(wide), divergence.to(wide)

    def callback_step(self, t: Tensor, state: tuple[Tensor, ...], step: Tensor) -> None:
        """Called by torchdiffeq before each step, with its size before it is cut to land on a frame."""
        self.step = step.detach()


class AdaptiveSolver:
    """Takes latent vectors from frame to frame; the first step in a frame has the size of the last one before.

    Args:
        stack: The fields.
        selection: The one that acts alone, None for a mixture.
        context: A vector per sample, if the fields take one.
        method: One of `ADAPTIVE_METHODS`.
        density: Whether to integrate the divergence too.
        adjoint: Whether to differentiate by the adjoint, which keeps nothing but the frames.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
    """

    def __init__(
        self,
        stack: RidgeStack | FieldStack,
        selection: Selection | None,
        context: Tensor | None,
        *,
        method: str,
        density: bool,
        adjoint: bool,
        rtol: float,
        atol: float,
    ) -> None:
        self._density, self._adjoint = density, adjoint
        fields = list(stack.fields) if isinstance(stack, FieldStack) else []
        acting = fields if selection is None else fields[selection.field : selection.field + 1]
        self._potentials = [field for field in acting if isinstance(field, AutogradPotential)]
        self._settings = {"method": method, "rtol": rtol, "atol": atol}
        self._step: Tensor | None = None
        parameters = [x for module in acting or [stack] for x in module.parameters() if x.is_floating_point()]
        # Under autocast codes may have another precision than the fields.
        self._dtype = (
            parameters[0].dtype if parameters and torch.is_autocast_enabled(parameters[0].device.type) else None
        )
        if context is not None and self._dtype is not None:
            context = context.to(self._dtype)
        self._inputs = (*stack.parameters(), *stack.buffers(), context)
        self._at: Callable[[Tensor], Snapshot]
        if isinstance(stack, RidgeStack) and not adjoint:
            with torch.autocast(stack.bias.device.type, enabled=False):
                self._at = stack.course(context, selection).at
        else:
            self._at = lambda t: stack.at(t, context, selection)

    def advance(self, z: Tensor, span: tuple[Tensor, Tensor], controls: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Move `z` over a span of time; returns the new `z` and the log-determinant, if wanted."""
        if not z.numel():  # torchdiffeq finds no step for it
            return z, z.new_zeros(z.shape[:-1]) if self._density else None
        if self._density and any(z.shape[-1] > potential.exact_dim for potential in self._potentials):
            raise ValueError(
                f"ODEStepper: an adaptive method cannot control the error of a divergence that is estimated anew "
                f"each time. Build the AutogradPotential with exact_dim={z.shape[-1]}, or the stepper with "
                f"density=None or a method of fixed steps."
            )
        # With NaN no step would be small enough.
        check_finite("ODEStepper", "z", z)
        # A half precision would round away the errors by which torchdiffeq chooses its steps, and the steps.
        wide, dtype = torch.promote_types(z.dtype, torch.float32), self._dtype or z.dtype
        controls = controls if controls is None else controls.to(dtype)
        dynamics, times = AugmentedDynamics(self._at, controls, dtype), torch.stack(span)
        state = (z.to(wide), z.new_zeros(z.shape[:-1], dtype=wide)) if self._density else (z.to(wide),)
        # A step has to end at each end of the span (the adjoint goes back): past it, torchdiffeq interpolates by a
        # quartic, whose error no tolerance controls and which in the long steps of dopri8 exceeds that of the method.
        options: dict[str, Any] = {"options": {"step_t": times.detach(), "first_step": self._step}}
        solve = torchdiffeq.odeint
        if self._adjoint:
            solve = torchdiffeq.odeint_adjoint
            options["adjoint_params"] = tuple(x for x in (*self._inputs, controls) if x is not None and x.requires_grad)
        solution = solve(dynamics, state, times, **self._settings, **options)
        self._step = dynamics.step
        return solution[0][-1].to(z.dtype), solution[1][-1].to(z.dtype) if self._density else None
