r"""The ridge algebra shared by all closed-form fields.

A ridge unit is a plane wave $\phi(a_j)$ with $a_j = w_j \cdot z + b_j(t) + e_j \cdot \text{context}$. A field sends its
slope $\phi'(a_j)$ along $w_j$ (curl-free) or across it (divergence-free), so that every derivative is known:
$K$ stacked fields cost two batched matrix products, and nothing here calls autograd.
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from torchflowfield.activations import ACTIVATIONS, activate
from torchflowfield.interface import Evaluation, Jet, log_det_euler
from torchflowfield.layout import (
    Layout,
    autocasts,
    columns,
    layout,
    over_units,
    rows,
    split,
    total,
    transposed_product,
    units_last,
)


class RidgeSnapshot(NamedTuple):
    r"""$K$ stacked fields at a fixed time, or at one time per sample.

    Attributes:
        activation: Name of the profile.
        weight: $w$, `[K, H, D]`.
        norm2: $\|w\|^2$, `[K, H]`.
        rotation: $\rho \perp w$, where a rotation sends its slope, `[K, H, D]`; None for fields without one.
        shift: $b(t)$ with the context added, `[*, K, H]`.
        amplitude: $c(t)$ of the gradient, `[*, K, H]`; None for fields without one.
        shift_rate: $\dot b$, `[*, K, H]`; None for autonomous fields.
        amplitude_rate: $\dot c$, `[*, K, H]`; None for autonomous fields and for fields without a gradient.
        outputs: $c w + \rho$, `[K, H, D]`, if it was made by `folded`.
    """

    activation: str
    weight: Tensor
    norm2: Tensor
    rotation: Tensor | None
    shift: Tensor
    amplitude: Tensor | None
    shift_rate: Tensor | None
    amplitude_rate: Tensor | None
    outputs: Tensor | None = None

    def unbind(self, count: int) -> "list[RidgeSnapshot]":
        """The snapshots at each of the `count` times of a grid; autonomous fields are the same at all of them."""
        if self.shift_rate is None:
            return [self] * count
        timed = [(name, getattr(self, name)) for name in ("shift", "amplitude", "shift_rate", "amplitude_rate")]
        apart = [(name, [None] * count if x is None else x.unbind(0)) for name, x in timed]
        return [self.replaced(**{name: x[n] for name, x in apart}) for n in range(count)]

    def replaced(self, **changes: Any) -> "RidgeSnapshot":
        """A copy with other values; `_replace` is more than the compiler of PyTorch 2.6 can follow."""
        values: list[Any] = [changes[name] if name in changes else getattr(self, name) for name in _FIELDS]
        return RidgeSnapshot(*values)

    def folded(self) -> "RidgeSnapshot":
        """The same with both parts of the output layer in one, so that many velocities cost one product each."""
        if self.amplitude is None or self.amplitude.ndim > 2:
            return self
        along = self.amplitude[..., None] * self.weight
        return self.replaced(outputs=along if self.rotation is None else along + self.rotation)

    def _terms(self, controls: Tensor | None, batch: torch.Size, lay: Layout) -> list[tuple[Tensor | None, Tensor]]:
        """Factors of the slopes (None for one), laid out as these, and the directions they go to, to be summed."""
        gradient, rotation = split(controls, batch, lay)
        shared = controls is None or controls.shape[-1] == 1
        if self.amplitude is None:
            return [(rotation, cast(Tensor, self.rotation))]
        if shared and self.outputs is not None:
            return [(gradient, self.outputs)]
        if shared and self.rotation is not None and self.amplitude.ndim == 2:
            return [(gradient, cast(Tensor, self.folded().outputs))]
        amplitude = lay(self.amplitude, batch)
        terms: list[tuple[Tensor | None, Tensor]] = [
            (amplitude if gradient is None else gradient * amplitude, self.weight)
        ]
        if self.rotation is not None:
            terms.append((rotation, self.rotation))
        return terms

    def _preactivation(self, z: Tensor, lay: Layout = columns) -> Tensor:
        weight, samples, fields = self.weight.flatten(0, 1), z.reshape(-1, z.shape[-1]), self.weight.shape[:2]
        # Autocast would round the shift to its own precision.
        adds, shift = self.shift.ndim == 2 and not autocasts(z), self.shift.flatten()
        if lay is units_last:
            units = torch.addmm(shift, samples, weight.T) if adds else samples @ weight.T
            units = units.unflatten(1, fields)
        else:
            units = torch.addmm(shift[:, None], weight, samples.T) if adds else weight @ samples.T
            units = units.unflatten(0, fields)
        return units if adds else units + lay(self.shift, z.shape[:-1])

    def _mixed(self, slope: Tensor, controls: Tensor | None, batch: torch.Size, lay: Layout = columns) -> Tensor:
        mixed = []
        for factor, directions in self._terms(controls, batch, lay):
            units = slope if factor is None else factor * slope
            units = units.flatten(1) if lay is units_last else units.flatten(0, 1).T
            mixed.append(units @ directions.flatten(0, 1))
        return total(mixed).reshape(*batch, self.weight.shape[-1])

    def _laplacians(self, slope_rate: Tensor, batch: torch.Size) -> Tensor:
        if self.amplitude is None:
            return slope_rate.new_zeros(slope_rate[:, 0].shape)
        return over_units(self.amplitude * self.norm2, slope_rate, batch)

    def _mixed_laplacian(self, slope_rate: Tensor, gradient: Tensor | None, batch: torch.Size, lay: Layout) -> Tensor:
        if self.amplitude is None:
            return slope_rate.new_zeros(batch)
        if lay is columns:
            laplacians = self._laplacians(slope_rate, batch)
            return (laplacians if gradient is None else gradient[:, 0] * laplacians).sum(0).reshape(batch)
        rate, factors = slope_rate if gradient is None else gradient * slope_rate, self.amplitude * self.norm2
        if factors.ndim == 2 and not torch.compiler.is_compiling() and not autocasts(rate):
            return (rate.flatten(1) @ factors.flatten()).reshape(batch)
        return (units_last(factors, batch) * rate).flatten(1).sum(1).reshape(batch)

    def _time_derivative(self, value: Tensor | None, slope: Tensor, batch: torch.Size) -> Tensor:
        if self.amplitude is None or self.amplitude_rate is None or self.shift_rate is None or value is None:
            return slope.new_zeros(slope[:, 0].shape)
        of_shift = over_units(self.amplitude * self.shift_rate, slope, batch)
        return over_units(self.amplitude_rate, value, batch) + of_shift

    def _gradients(self, slope: Tensor, batch: torch.Size) -> Tensor:
        if self.amplitude is None:
            return slope.new_zeros(len(slope), self.weight.shape[-1], slope.shape[-1])
        # Many samples of small fields: scale the weights, of which there are fewer. Compiled code does so always: the
        # comparison would tie a graph to batches on one side of it, and where samples are fewer it costs nothing.
        many = torch.compiler.is_compiling() or slope.shape[-1] > self.weight.shape[-1]
        if self.amplitude.ndim == 2 and many:
            return transposed_product(self.amplitude[..., None] * self.weight, slope)
        return transposed_product(self.weight, columns(self.amplitude, batch) * slope)

    def velocity(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Velocity `[*, D]` of the mixture with controls `[*, K, P]`, P = 1 or one for each part (None: all ones)."""
        lay = layout()
        slope = ACTIVATIONS[self.activation].first(self._preactivation(z, lay))
        return self._mixed(slope, controls, z.shape[:-1], lay)

    def evaluate(self, z: Tensor, controls: Tensor | None, divergence: bool = True) -> Evaluation:
        """Velocity of the mixture, its divergence if wanted, and what the losses need of each field."""
        batch, timed = z.shape[:-1], self.amplitude_rate is not None
        slope, slope_rate, value = activate(self.activation, self._preactivation(z), value=timed)
        if self.amplitude is None:
            none = slope.new_zeros(len(slope), *batch)
            return Evaluation(self._mixed(slope, controls, batch), none.sum(0), none, none)
        gradients = self._gradients(slope, batch)
        gradient, turn = split(controls, batch, columns)
        velocity = rows((gradients if gradient is None else gradient * gradients).sum(0), batch)
        if self.rotation is not None:
            turned = slope if turn is None else turn * slope
            turned = turned.flatten(0, 1).T @ self.rotation.flatten(0, 1)
            velocity = velocity + turned.reshape(z.shape)
        return Evaluation(
            velocity,
            # Before the velocity it would break up what PyTorch 2.13 fuses, and a compiled step take twice the time.
            self._mixed_laplacian(slope_rate, gradient, batch, columns) if divergence else None,
            self._time_derivative(value, slope, batch).reshape(len(gradients), *batch),
            torch.linalg.vecdot(gradients, gradients, dim=1).reshape(len(gradients), *batch),
        )

    def gradient_norm2(self, z: Tensor) -> Tensor:
        r"""$\|\nabla u_k\|^2$ of every field, `[*, K]`."""
        if self.amplitude is None:
            return z.new_zeros(*z.shape[:-1], len(self.weight))
        slope = ACTIVATIONS[self.activation].first(self._preactivation(z))
        gradients = self._gradients(slope, z.shape[:-1])
        return rows(torch.linalg.vecdot(gradients, gradients, dim=1), z.shape[:-1])

    def velocity_and_divergence(self, z: Tensor, controls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity `[*, D]` and divergence `[*]` of the mixture."""
        batch = z.shape[:-1]
        if self.amplitude is None:
            velocity = self.velocity(z, controls)
            return velocity, velocity.new_zeros(batch)
        lay = layout()
        slope, slope_rate, _ = activate(self.activation, self._preactivation(z, lay), value=False)
        gradient, _ = split(controls, batch, lay)
        return self._mixed(slope, controls, batch, lay), self._mixed_laplacian(slope_rate, gradient, batch, lay)

    def divergence(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Divergence `[*]` of the mixture, without its velocity."""
        batch, lay = z.shape[:-1], layout()
        gradient, _ = split(controls, batch, lay)
        return self._mixed_laplacian(self._slope_rate(z, lay), gradient, batch, lay)

    def _slope_rate(self, z: Tensor, lay: Layout = columns) -> Tensor:
        return ACTIVATIONS[self.activation].second(self._preactivation(z, lay))

    def parts(self, z: Tensor) -> Tensor:
        """Velocity `[*, K, P, D]` of every part of every field."""
        slope = ACTIVATIONS[self.activation].first(self._preactivation(z))
        parts = [] if self.amplitude is None else [self._gradients(slope, z.shape[:-1])]
        if self.rotation is not None:
            parts.append(transposed_product(self.rotation, slope))
        return rows(torch.stack(parts, 1), z.shape[:-1])

    def jet(self, z: Tensor) -> Jet:
        """The jet of every field, with a field axis `[*, K, ...]`."""
        batch = z.shape[:-1]
        slope, slope_rate, value = activate(self.activation, self._preactivation(z), value=self.amplitude is not None)
        gradient = self._gradients(slope, batch)
        velocity = gradient if self.rotation is None else gradient + transposed_product(self.rotation, slope)
        laplacian = self._laplacians(slope_rate, batch)
        potential = laplacian
        if self.amplitude is not None and value is not None:
            potential = over_units(self.amplitude, value, batch)
        facts = (potential, velocity, self._time_derivative(value, slope, batch), laplacian, gradient)
        return Jet(*(rows(fact, batch) for fact in facts))

    def jvp(self, z: Tensor, x: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian of the mixture applied to the vectors `x [*, D]`."""
        along = (self.weight.flatten(0, 1) @ x.reshape(-1, x.shape[-1]).T).unflatten(0, self.weight.shape[:2])
        return self._mixed(self._slope_rate(z) * along, controls, z.shape[:-1])

    def jacobian(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian `[*, D, D]` of the mixture."""
        outputs = total([factor * directions.T.contiguous() for factor, directions in self._factors(z, controls)])
        return (outputs @ self.weight.flatten(0, 1)).reshape(*z.shape, z.shape[-1])

    def log_det(self, z: Tensor, controls: Tensor | None, step: float) -> Tensor:
        r"""$\log |\det(I + \text{step} \, J)|$, by the determinant lemma where units are fewer than axes."""
        weight = self.weight.flatten(0, 1)
        if weight.shape[0] >= weight.shape[1]:
            return log_det_euler(self.jacobian(z, controls), step)
        matrix = total([factor * (weight @ directions.mT) for factor, directions in self._factors(z, controls)])
        return log_det_euler(matrix, step).reshape(z.shape[:-1])

    def _factors(self, z: Tensor, controls: Tensor | None) -> list[tuple[Tensor, Tensor]]:
        """Slope rates `[N, 1, K H]` with all their factors, and the directions `[K H, D]` they go to."""
        slope_rate = self._slope_rate(z, units_last)
        return [
            ((slope_rate if factor is None else factor * slope_rate).flatten(1)[:, None], directions.flatten(0, 1))
            for factor, directions in self._terms(controls, z.shape[:-1], units_last)
        ]


_FIELDS = RidgeSnapshot._fields
