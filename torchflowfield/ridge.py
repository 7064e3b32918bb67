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
    """A ridge profile with its first two derivatives, each stable for large arguments."""

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    second: Callable[[Tensor], Tensor]
    convex: bool


def _softplus(a: Tensor) -> Tensor:
    # The default threshold of 20 would cost 2e-9, far more than the precision of float64.
    return F.softplus(a, threshold=40.0)


ACTIVATIONS: dict[str, Activation] = {
    "logcosh": Activation(
        lambda a: _softplus(2 * a) - a - math.log(2), torch.tanh, lambda a: 1 - torch.tanh(a).square(), True
    ),
    "cos": Activation(lambda a: -torch.cos(a), torch.sin, torch.cos, False),
    "softplus": Activation(_softplus, torch.sigmoid, lambda a: torch.sigmoid(a) * torch.sigmoid(-a), True),
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
    r"""$K$ stacked fields at fixed times, in $P$ parts each (the gradient, the rotation, or both).

    Attributes:
        activation: Name of the profile.
        potential: Whether the first part is a gradient.
        weight: $w$, `[K, H, D]`.
        norm2: $\|w\|^2$, `[K, H]`.
        directions: Where a part sends its slope: $w$ or $\rho \perp w$, `[K, P, H, D]`.
        shift: $b(t)$ with the context added, `[*, K, H]`; `shift_rate`: $\dot b$.
        scale: $c(t)$ for the gradient, ones for the rotation, `[*, K, P, H]`; `scale_rate`: $\dot c$, `[*, K, H]`.
    """

    activation: str
    potential: bool
    weight: Tensor
    norm2: Tensor
    directions: Tensor
    shift: Tensor
    shift_rate: Tensor
    scale: Tensor
    scale_rate: Tensor

    def at(self, index: int) -> "RidgeSnapshot":
        """The snapshot at one of several times."""
        return self._replace(
            shift=self.shift[index],
            shift_rate=self.shift_rate[index],
            scale=self.scale[index],
            scale_rate=self.scale_rate[index],
        )

    def select(self, field: int, part: int | None) -> "RidgeSnapshot":
        """Field number `field` alone, whole or one of its parts."""
        fields, parts = slice(field, field + 1), slice(None) if part is None else slice(part, part + 1)
        return self._replace(
            potential=self.potential and part != 1,
            weight=self.weight[fields],
            norm2=self.norm2[fields],
            directions=self.directions[fields, parts],
            shift=self.shift[..., fields, :],
            shift_rate=self.shift_rate[..., fields, :],
            scale=self.scale[..., fields, parts, :],
            scale_rate=self.scale_rate[..., fields, :],
        )

    def _preactivation(self, z: Tensor) -> Tensor:
        return F.linear(z, self.weight.flatten(0, 1)).unflatten(-1, self.weight.shape[:2]) + self.shift

    def _mixed(self, slope: Tensor, controls: Tensor | None) -> Tensor:
        scaled = self.scale * slope[..., None, :]
        if controls is not None:
            scaled = scaled * controls[..., None]
        return torch.einsum("...kph,kphd->...d", scaled, self.directions)

    def _laplacians(self, slope_rate: Tensor) -> Tensor:
        if not self.potential:
            return slope_rate.new_zeros(slope_rate.shape[:-1])
        return (self.scale[..., 0, :] * self.norm2 * slope_rate).sum(-1)

    def _mixed_laplacian(self, slope_rate: Tensor, controls: Tensor | None) -> Tensor:
        laplacians = self._laplacians(slope_rate)
        return (laplacians if controls is None else controls[..., 0] * laplacians).sum(-1)

    def velocity(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Velocity `[*, D]` of the mixture with controls `[*, K, P]` (all ones if none)."""
        return self._mixed(ACTIVATIONS[self.activation].first(self._preactivation(z)), controls)

    def evaluate(self, z: Tensor, controls: Tensor | None) -> Evaluation:
        """Velocity and divergence of the mixture with what the losses need of each field."""
        jet, parts = self._jet_and_parts(z)
        velocity = parts.sum((-3, -2)) if controls is None else (controls[..., None] * parts).sum((-3, -2))
        laplacian = jet.laplacian if controls is None else controls[..., 0] * jet.laplacian
        return Evaluation(velocity, laplacian.sum(-1), jet.time_derivative, jet.gradient.square().sum(-1))

    def velocity_and_divergence(self, z: Tensor, controls: Tensor | None) -> tuple[Tensor, Tensor]:
        """Velocity `[*, D]` and divergence `[*]` of the mixture."""
        a = self._preactivation(z)
        phi = ACTIVATIONS[self.activation]
        return self._mixed(phi.first(a), controls), self._mixed_laplacian(phi.second(a), controls)

    def divergence(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Divergence `[*]` of the mixture, without its velocity."""
        return self._mixed_laplacian(ACTIVATIONS[self.activation].second(self._preactivation(z)), controls)

    def parts(self, z: Tensor) -> Tensor:
        """Velocity `[*, K, P, D]` of every part of every field."""
        slope = ACTIVATIONS[self.activation].first(self._preactivation(z))
        return torch.einsum("...kph,kphd->...kpd", self.scale * slope[..., None, :], self.directions)

    def jet(self, z: Tensor) -> Jet:
        """The jet of every field, with a field axis `[*, K, ...]`."""
        return self._jet_and_parts(z)[0]

    def _jet_and_parts(self, z: Tensor) -> tuple[Jet, Tensor]:
        phi = ACTIVATIONS[self.activation]
        a = self._preactivation(z)
        slope = phi.first(a)
        parts = torch.einsum("...kph,kphd->...kpd", self.scale * slope[..., None, :], self.directions)
        laplacian = self._laplacians(phi.second(a))
        velocity = parts.sum(-2)
        if not self.potential:
            return Jet(laplacian, velocity, laplacian, laplacian, torch.zeros_like(velocity)), parts
        c, value = self.scale[..., 0, :], phi.value(a)
        potential = (c * value).sum(-1)
        time_derivative = (self.scale_rate * value + c * slope * self.shift_rate).sum(-1)
        return Jet(potential, velocity, time_derivative, laplacian, parts[..., 0, :]), parts

    def jvp(self, z: Tensor, x: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian of the mixture applied to the vectors `x [*, D]`."""
        along = F.linear(x, self.weight.flatten(0, 1)).unflatten(-1, self.weight.shape[:2])
        return self._mixed(ACTIVATIONS[self.activation].second(self._preactivation(z)) * along, controls)

    def jacobian(self, z: Tensor, controls: Tensor | None) -> Tensor:
        """Jacobian `[*, D, D]` of the mixture."""
        scaled = self.scale * ACTIVATIONS[self.activation].second(self._preactivation(z))[..., None, :]
        if controls is not None:
            scaled = scaled * controls[..., None]
        outputs = torch.einsum("...kph,kphd->...dkh", scaled, self.directions)
        return outputs.flatten(-2) @ self.weight.flatten(0, 1)

    def log_det(self, z: Tensor, controls: Tensor | None, step: float) -> Tensor:
        r"""$\log |\det(I + \text{step} \, J)|$, by the determinant lemma where units are fewer than axes."""
        units, dim = self.weight.shape[0] * self.weight.shape[1], self.weight.shape[2]
        if units >= dim:
            matrix = self.jacobian(z, controls)
        else:
            scale = self.scale if controls is None else self.scale * controls[..., None]
            gram = torch.einsum("ie,kphe->ikph", self.weight.flatten(0, 1), self.directions)
            slope_rate = ACTIVATIONS[self.activation].second(self._preactivation(z)).flatten(-2)
            matrix = torch.einsum("...kph,ikph->...ikh", scale, gram).flatten(-2) * slope_rate[..., None]
        return log_det_euler(matrix, step)


def log_det_euler(jacobian: Tensor, step: float) -> Tensor:
    r"""$\log |\det(I + \text{step} \, J)|$, in float32 at least: autocast hands over Jacobians of lower precision."""
    if jacobian.dtype in (torch.bfloat16, torch.float16):
        jacobian = jacobian.float()
    identity = torch.eye(jacobian.shape[-1], dtype=jacobian.dtype, device=jacobian.device)
    return torch.linalg.slogdet(identity + step * jacobian).logabsdet
