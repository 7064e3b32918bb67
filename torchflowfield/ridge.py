r"""The ridge algebra shared by all closed-form fields.

A ridge unit is a plane wave $\phi(a_j)$ with $a_j = w_j \cdot z + b_j(t) + e_j \cdot \text{context}$. A field sends its
slope $\phi'(a_j)$ along $w_j$ (curl-free) or across it (divergence-free), so that every derivative is known:
$K$ stacked fields cost two batched matrix products, and nothing here calls autograd.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Activation(NamedTuple):
    r"""A ridge profile $\phi(a)$, its slope $\phi'(a)$, and $\phi''$ from both; stable for large arguments."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    rate: Callable[[Tensor, Tensor], Tensor]
    convex: bool

    def second(self, a: Tensor) -> Tensor:
        r"""$\phi''(a)$ where the slope is not wanted for itself."""
        return self.rate(a, self.first(a))


def _softplus(a: Tensor) -> Tensor:
    # The default threshold of 20 would cost 2e-9, far more than the precision of float64.
    return F.softplus(a, threshold=40.0)


ACTIVATIONS: dict[str, Activation] = {
    "logcosh": Activation(
        lambda a: torch.add(-math.log(2) - a, F.softplus(a, 2.0, 40.0), alpha=2),
        torch.tanh,
        lambda a, slope: torch.addcmul(slope.new_ones(()), slope, slope, value=-1),
        True,
    ),
    "cos": Activation(lambda a: -torch.cos(a), torch.sin, lambda a, slope: torch.cos(a), False),
    "softplus": Activation(
        _softplus, torch.sigmoid, lambda a, slope: torch.addcmul(slope, slope, slope, value=-1), True
    ),
}


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
    """A mixture of fields at one time: `velocity [*, D]`, its `divergence [*]`, and per field what losses need."""

    velocity: Tensor
    divergence: Tensor
    time_derivative: Tensor
    gradient_norm2: Tensor


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

    @property
    def potential(self) -> bool:
        """Whether the fields have a gradient."""
        return self.amplitude is not None

    def unbind(self, count: int) -> "list[RidgeSnapshot]":
        """The snapshots at each of the `count` times of a grid; autonomous fields are the same at all of them."""
        if self.shift_rate is None:
            return [self] * count
        timed = [[None] * count if x is None else x.unbind(0) for x in self[4:8]]
        return [self._replace(**dict(zip(self._fields[4:8], x, strict=True))) for x in zip(*timed, strict=True)]

    def select(self, field: int, part: int | None) -> "RidgeSnapshot":
        """Field number `field` alone, whole or one of its parts."""
        one, rows = slice(field, field + 1), (..., slice(field, field + 1), slice(None))
        gradient, rotation = (
            part != 1 and self.potential,
            (part != 0 or not self.potential) and self.rotation is not None,
        )
        return self._replace(
            weight=self.weight[one],
            norm2=self.norm2[one],
            rotation=self.rotation[one] if rotation else None,
            shift=self.shift[rows],
            amplitude=self.amplitude[rows] if gradient else None,
            shift_rate=None if self.shift_rate is None else self.shift_rate[rows],
            amplitude_rate=self.amplitude_rate[rows] if gradient and self.amplitude_rate is not None else None,
            outputs=None,
        )

    def folded(self) -> "RidgeSnapshot":
        """The same with both parts of the output layer in one, so that many velocities cost one product each."""
        if self.amplitude is None or self.amplitude.ndim > 2:
            return self
        along = self.amplitude[..., None] * self.weight
        return self._replace(outputs=along if self.rotation is None else along + self.rotation)

    def _terms(self, controls: Tensor | None) -> list[tuple[Tensor | None, Tensor]]:
        """Factors `[*, K, H]` of the slopes (None for one) and the directions they go to, summed over the list."""
        gradient, rotation = (None, None) if controls is None else (controls[..., :1], controls[..., -1:])
        shared = controls is None or controls.shape[-1] == 1
        if self.amplitude is None:
            return [(rotation, _present(self.rotation))]
        if shared and self.outputs is not None:
            return [(gradient, self.outputs)]
        if shared and self.rotation is not None and self.amplitude.ndim == 2:
            return [(gradient, _present(self.folded().outputs))]
        factor = self.amplitude if gradient is None else gradient * self.amplitude
        terms: list[tuple[Tensor | None, Tensor]] = [(factor, self.weight)]
        if self.rotation is not None:
            terms.append((rotation, self.rotation))
        return terms

    def _preactivation(self, z: Tensor) -> Tensor:
        weight = self.weight.flatten(0, 1)
        # Autocast would round the shift to its own precision.
        autocast = z.device.type != "meta" and torch.is_autocast_enabled(z.device.type)
        if self.shift.ndim == 2 and not autocast:
            return F.linear(z, weight, self.shift.flatten()).unflatten(-1, self.weight.shape[:2])
        return F.linear(z, weight).unflatten(-1, self.weight.shape[:2]) + self.shift

    def _mixed(self, slope: Tensor, controls: Tensor | None) -> Tensor:
        total: Tensor | None = None
        for factor, directions in self._terms(controls):
            scaled = slope if factor is None else factor * slope
            mixed = scaled.flatten(-2) @ directions.flatten(0, 1)
            total = mixed if total is None else total + mixed
        return _present(total)

    def _laplacians(self, slope_rate: Tensor) -> Tensor:
        if self.amplitude is None:
            return slope_rate.new_zeros(slope_rate.shape[:-1])
        return (self.amplitude * self.norm2 * slope_rate).sum(-1)

    def _mixed_laplacian(self, slope_rate: Tensor, controls: Tensor | None) -> Tensor:
        laplacians = self._laplacians(slope_rate)
        return (laplacians if controls is None else controls[..., 0] * laplacians).sum(-1)

    def _time_derivative(self, a: Tensor, slope: Tensor) -> Tensor:
        if self.amplitude is None or self.amplitude_rate is None or self.shift_rate is None:
            return slope.new_zeros(slope.shape[:-1])
        value = ACTIVATIONS[self.activation].value(a)
        return (self.amplitude_rate * value + self.amplitude * self.shift_rate * slope).sum(-1)

    def _gradients(self, slope: Tensor) -> Tensor:
        if self.amplitude is None:
            return torch.zeros_like(slope[..., :1]).expand(*slope.shape[:-1], self.weight.shape[-1])
        return _each(self.amplitude * slope, self.weight)

    def velocity(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Velocity `[*, D]` of the mixture with controls `[*, K, P]`, P = 1 or one for each part (None: all ones)."""
        return self._mixed(ACTIVATIONS[self.activation].first(self._preactivation(z)), controls)

    def evaluate(self, z: Tensor, controls: Tensor | None) -> Evaluation:
        """Velocity and divergence of the mixture with what the losses need of each field."""
        phi, a = ACTIVATIONS[self.activation], self._preactivation(z)
        slope = phi.first(a)
        if self.amplitude is None:
            none = slope.new_zeros(slope.shape[:-1])
            return Evaluation(self._mixed(slope, controls), none.sum(-1), none, none)
        gradients = self._gradients(slope)
        velocity = (gradients if controls is None else controls[..., :1] * gradients).sum(-2)
        if self.rotation is not None:
            turned = slope if controls is None else controls[..., -1:] * slope
            velocity = velocity + turned.flatten(-2) @ self.rotation.flatten(0, 1)
        divergence = self._mixed_laplacian(phi.rate(a, slope), controls)
        return Evaluation(velocity, divergence, self._time_derivative(a, slope), gradients.square().sum(-1))

    def gradient_norm2(self, z: Tensor) -> Tensor:
        r"""$\|\nabla u_k\|^2$ of every field, `[*, K]`."""
        return self._gradients(ACTIVATIONS[self.activation].first(self._preactivation(z))).square().sum(-1)

    def velocity_and_divergence(self, z: Tensor, controls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity `[*, D]` and divergence `[*]` of the mixture."""
        phi, a = ACTIVATIONS[self.activation], self._preactivation(z)
        slope = phi.first(a)
        if self.amplitude is None:
            return self._mixed(slope, controls), slope.new_zeros(slope.shape[:-2])
        return self._mixed(slope, controls), self._mixed_laplacian(phi.rate(a, slope), controls)

    def divergence(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Divergence `[*]` of the mixture, without its velocity."""
        return self._mixed_laplacian(self._slope_rate(z), controls)

    def _slope_rate(self, z: Tensor) -> Tensor:
        return ACTIVATIONS[self.activation].second(self._preactivation(z))

    def parts(self, z: Tensor) -> Tensor:
        """Velocity `[*, K, P, D]` of every part of every field."""
        slope = ACTIVATIONS[self.activation].first(self._preactivation(z))
        parts = [] if self.amplitude is None else [self._gradients(slope)]
        if self.rotation is not None:
            parts.append(_each(slope, self.rotation))
        return torch.stack(parts, -2)

    def jet(self, z: Tensor) -> Jet:
        """The jet of every field, with a field axis `[*, K, ...]`."""
        phi, a = ACTIVATIONS[self.activation], self._preactivation(z)
        slope = phi.first(a)
        gradient = self._gradients(slope)
        velocity = gradient if self.rotation is None else gradient + _each(slope, self.rotation)
        if self.amplitude is None:
            none = slope.new_zeros(slope.shape[:-1])
            return Jet(none, velocity, none, none, gradient)
        potential = (self.amplitude * phi.value(a)).sum(-1)
        laplacian = self._laplacians(phi.rate(a, slope))
        return Jet(potential, velocity, self._time_derivative(a, slope), laplacian, gradient)

    def jvp(self, z: Tensor, x: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian of the mixture applied to the vectors `x [*, D]`."""
        along = F.linear(x, self.weight.flatten(0, 1)).unflatten(-1, self.weight.shape[:2])
        return self._mixed(self._slope_rate(z) * along, controls)

    def jacobian(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian `[*, D, D]` of the mixture."""
        slope_rate, weight = self._slope_rate(z), self.weight.flatten(0, 1)
        total: Tensor | None = None
        for factor, directions in self._terms(controls):
            scaled = slope_rate if factor is None else factor * slope_rate
            outputs = scaled.flatten(-2)[..., None, :] * directions.flatten(0, 1).mT
            total = outputs if total is None else total + outputs
        return _present(total) @ weight

    def log_det(self, z: Tensor, controls: Tensor | None, step: float) -> Tensor:
        r"""$\log |\det(I + \text{step} \, J)|$, by the determinant lemma where units are fewer than axes."""
        units, dim = self.weight.shape[0] * self.weight.shape[1], self.weight.shape[2]
        if units >= dim:
            return log_det_euler(self.jacobian(z, controls), step)
        slope_rate, weight = self._slope_rate(z), self.weight.flatten(0, 1)
        total: Tensor | None = None
        for factor, directions in self._terms(controls):
            scaled = slope_rate if factor is None else factor * slope_rate
            matrix = scaled.flatten(-2)[..., None, :] * (weight @ directions.flatten(0, 1).mT)
            total = matrix if total is None else total + matrix
        return log_det_euler(_present(total), step)


def _present(x: Tensor | None) -> Tensor:
    """Narrows a type: a field has a gradient, a rotation or both, so one of the two is always there."""
    if x is None:
        raise ValueError("RidgeSnapshot: expected a gradient or a rotation, got neither.")
    return x


def _each(scaled: Tensor, directions: Tensor) -> Tensor:
    """The product `[*, K, D]` of every field by itself, as one batched product over the K fields."""
    fields, units, dim = directions.shape
    product = torch.bmm(scaled.reshape(-1, fields, units).transpose(0, 1), directions)
    return product.transpose(0, 1).reshape(*scaled.shape[:-1], dim)


def log_det_euler(jacobian: Tensor, step: float) -> Tensor:
    r"""$\log |\det(I + \text{step} \, J)|$, in float32 at least: autocast hands over Jacobians of lower precision."""
    if jacobian.dtype in (torch.bfloat16, torch.float16):
        jacobian = jacobian.float()
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return torch.linalg.slogdet(identity + step * jacobian).logabsdet
