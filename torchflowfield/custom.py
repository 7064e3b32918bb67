"""A user's own fields: a module as a field, and many stacked behind the interface of the closed-form ones."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from torchflowfield._checks import check_velocity
from torchflowfield.interface import Evaluation, FlowField, Jet, Selection, Time, log_det_euler


class ModuleField(FlowField):
    """Any module `v(t, z) -> [*, D]` as a field.

    Its divergence and Jacobian follow by `torch.func`: samples must not depend on each other (no batch normalisation in
    training mode), and no random numbers be drawn (no dropout), unless a stepper has `density=None` and goes forwards.
    In a stepper the time is a scalar tensor.

    Args:
        module: Called as `module(t, z)`; it may take a third argument, the context.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, t: Time, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Velocity of the wrapped module.

        Raises:
            ValueError: If the module returns anything but one velocity per sample.
        """
        velocity = self.module(t, z) if context is None else self.module(t, z, context)
        return check_velocity(self.module, velocity, z)


class FieldStack(nn.Module):
    """A user's own fields behind the interface of `RidgeStack`: one call per field."""

    dim = None

    def __init__(self, fields: Iterable[nn.Module]) -> None:
        super().__init__()
        self.fields = nn.ModuleList(f if isinstance(f, FlowField) else ModuleField(f) for f in fields)
        if not self.fields:
            raise ValueError("FlowBank: expected at least one field, got an empty list.")

    @property
    def potentials(self) -> tuple[bool, ...]:
        """Which fields have a potential."""
        return tuple(field.has_potential for field in self.fields)  # type: ignore[misc]

    def at(self, t: Tensor, context: Tensor | None = None, selection: Selection | None = None) -> "FieldSnapshot":
        """The fields at the times `t`, or the selected one alone."""
        fields = tuple(self.fields)
        return FieldSnapshot(fields if selection is None else (fields[selection.field],), t, context)

    def on_grid(
        self, times: Tensor, context: Tensor | None, batch_ndim: int, selection: Selection | None = None
    ) -> "FieldSnapshot":
        """The same at all points of a time grid `[N]`, to be picked from `FieldSnapshot.unbind`."""
        return self.at(times, context, selection)


class FieldSnapshot(NamedTuple):
    """A user's own fields at fixed times; the methods are those of `RidgeSnapshot`."""

    fields: tuple[Any, ...]
    t: Tensor
    context: Tensor | None

    def unbind(self, count: int) -> "list[FieldSnapshot]":
        """The snapshots at each of the `count` times of a grid."""
        return [self._replace(t=t) for t in self.t.unbind(0)]

    def folded(self) -> "FieldSnapshot":
        """Nothing can be prepared for a user's own fields."""
        return self

    def _stack(self, call: Callable[[Any], Tensor], batch_ndim: int) -> Tensor:
        return torch.stack([call(field) for field in self.fields], batch_ndim)

    def _extra(self) -> tuple[Tensor, ...]:
        return () if self.context is None else (self.context,)

    def velocity(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Velocity of the mixture."""
        return _mix(self._stack(lambda f: self._velocity(f, z), z.ndim - 1), controls, 1)

    def _velocity(self, field: Any, z: Tensor) -> Tensor:
        return check_velocity(field, field(self.t, z, *self._extra()), z)

    def _jet(self, field: Any, z: Tensor, divergence: bool) -> Jet:
        jet = field._jet(self.t, z, self.context, divergence)
        check_velocity(field, jet.velocity, z)
        return jet

    def divergence(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Divergence of the mixture."""
        return _mix(self._stack(lambda f: f.divergence(self.t, z, *self._extra()), z.ndim - 1), controls, 0)

    def velocity_and_divergence(self, z: Tensor, controls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity and divergence of the mixture."""
        return self.velocity(z, controls), self.divergence(z, controls)

    def jet(self, z: Tensor) -> Jet:
        """Jets with a field axis after the batch shape."""
        jets = [self._jet(field, z, True) for field in self.fields]
        return Jet(*(torch.stack(parts, z.ndim - 1) for parts in zip(*jets, strict=True)))

    def evaluate(self, z: Tensor, controls: Tensor | None, divergence: bool = True) -> Evaluation:
        """Velocity, divergence if wanted, and what the losses need."""
        zero = z.new_zeros(z.shape[:-1])

        def jet(field: Any) -> Jet:
            if divergence or field.has_potential:
                return self._jet(field, z, divergence)
            return Jet(zero, self._velocity(field, z), zero, zero, torch.zeros_like(z))

        jets = [jet(field) for field in self.fields]
        stacked = Jet(*(torch.stack(parts, z.ndim - 1) for parts in zip(*jets, strict=True)))
        return Evaluation(
            _mix(stacked.velocity, controls, 1),
            _mix(stacked.laplacian, controls, 0) if divergence else None,
            stacked.time_derivative.movedim(-1, 0),
            stacked.gradient.square().sum(-1).movedim(-1, 0),
        )

    def gradient_norm2(self, z: Tensor) -> Tensor:
        r"""$\|\nabla u_k\|^2$ of every field, zero for fields without a potential."""

        def norm2(field: Any) -> Tensor:
            if not field.has_potential:
                return z.new_zeros(z.shape[:-1])
            return self._jet(field, z, False).gradient.square().sum(-1)

        return self._stack(norm2, z.ndim - 1)

    def jvp(self, z: Tensor, x: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian of the mixture applied to `x`."""
        return _mix(self._stack(lambda f: f.jvp(self.t, z, x, *self._extra()), z.ndim - 1), controls, 1)

    def jacobian(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian of the mixture."""
        return _mix(self._stack(lambda f: f.jacobian(self.t, z, *self._extra()), z.ndim - 1), controls, 2)

    def log_det(self, z: Tensor, controls: Tensor | None, step: float) -> Tensor:
        """Log-determinant of the mixture's Euler map."""
        return log_det_euler(self.jacobian(z, controls), step)


def _mix(stacked: Tensor, controls: Tensor | None, trailing: int) -> Tensor:
    """Sum over the field axis, which `trailing` axes follow, weighted by `controls [*, K, 1]`."""
    if controls is not None:
        stacked = stacked * controls[(..., 0, *[None] * trailing)]
    return stacked.sum(-1 - trailing)
