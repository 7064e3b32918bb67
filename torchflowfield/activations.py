r"""Ridge profiles $\phi$ with their derivatives.

Value, slope and rate come from one pass over $a$, and so does their gradient: outside compiled code, where nothing
fuses them, the passes over memory are what a small field costs.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from torchflowfield.layout import is_exporting, is_transformed


class Activation(NamedTuple):
    r"""A ridge profile and its derivatives, stable for large arguments.

    Attributes:
        value: $\phi(a)$.
        first: $\phi'(a)$, the slope.
        rate: $\phi''$ from $a$ and the slope.
        pull: The gradient by $a$, from those by slope and rate and these two: the first times $\phi''$ and the second
            times $\phi'''$.
        convex: Whether $\phi'' \ge 0$.
    """

    value: Callable[[Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    rate: Callable[[Tensor, Tensor], Tensor]
    pull: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    convex: bool

    def second(self, a: Tensor) -> Tensor:
        r"""$\phi''(a)$ where the slope is not wanted for itself."""
        return self.rate(a, self.first(a))


def _softplus(a: Tensor) -> Tensor:
    # The default threshold of 20 would cost 2e-9, far more than the precision of float64.
    return F.softplus(a, threshold=40.0)


def _tanh(a: Tensor) -> Tensor:
    # PyTorch's tanh takes three to four times as long as its sigmoid on a CPU. The error is of the order of that of a
    # sum of numbers of size 1, as `a` is one; half precisions would lose small slopes.
    if a.is_cpu and a.dtype.itemsize >= 4 and not is_exporting():
        return torch.rsub((-2 * a).sigmoid_(), 1, alpha=2)
    return torch.tanh(a)


def _one_minus_square(slope: Tensor) -> Tensor:
    return torch.addcmul(slope.new_ones(()), slope, slope, value=-1)


ACTIVATIONS: dict[str, Activation] = {
    "logcosh": Activation(
        lambda a: torch.add(-math.log(2) - a, F.softplus(a, 2.0, 40.0), alpha=2),
        _tanh,
        lambda a, slope: _one_minus_square(slope),
        lambda by_slope, by_rate, slope, rate: torch.addcmul(by_slope, by_rate, slope, value=-2) * rate,
        True,
    ),
    "cos": Activation(
        lambda a: -torch.cos(a),
        torch.sin,
        lambda a, slope: torch.cos(a),
        lambda by_slope, by_rate, slope, rate: torch.addcmul(by_slope * rate, by_rate, slope, value=-1),
        False,
    ),
    "softplus": Activation(
        _softplus,
        torch.sigmoid,
        lambda a, slope: torch.addcmul(slope, slope, slope, value=-1),
        lambda by_slope, by_rate, slope, rate: torch.addcmul(by_slope + by_rate, by_rate, slope, value=-2) * rate,
        True,
    ),
}


def activate(name: str, a: Tensor, *, value: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    r"""$\phi'(a)$, $\phi''(a)$ and, if `value`, $\phi(a)$ of the profile `name`."""
    if is_transformed():
        phi = ACTIVATIONS[name]
        slope = phi.first(a)
        return slope, phi.rate(a, slope), phi.value(a) if value else None
    make: Callable[..., tuple[Any, ...]] = _Facts.apply if torch.is_grad_enabled() and not is_exporting() else _facts
    facts = make(name, a, value)
    return facts if value else (*facts, None)


def _facts(name: str, a: Tensor, value: bool) -> tuple[Tensor, ...]:
    phi = ACTIVATIONS[name]
    slope = phi.first(a)
    rate = phi.rate(a, slope)
    if not value:
        return slope, rate
    # log cosh a = |a| - log(1 + |tanh a|) shares the tanh. Differentiated twice at a = 0 it fails: `_Facts` is not, but
    # an exported graph may be.
    if name == "logcosh" and not is_exporting():
        return slope, rate, a.abs().sub_(_log1p(slope.abs()))
    return slope, rate, phi.value(a)


def _log1p(u: Tensor) -> Tensor:
    r"""$\log(1 + u)$ for $0 \le u \le 1$."""
    if not torch.compiler.is_compiling() or u.dtype.itemsize > 4:
        return torch.log1p(u)
    # 2 artanh(u / (2 + u)), whose series to the 13th power leaves 1e-8: fused, it is faster than a logarithm on a CPU.
    # Added in pairs, its terms need not wait for one another.
    s = u / (2 + u)
    s2 = s * s
    s4 = s2 * s2
    early, late = (1 + s2 * (1 / 3)) + s4 * (1 / 5 + s2 * (1 / 7)), (1 / 9 + s2 * (1 / 11)) + s4 * (1 / 13)
    return 2 * s * (early + s4 * s4 * late)


class _Facts(torch.autograd.Function):
    """Slope, rate and value as one node of the graph; its derivative, of any order, is again of this form."""

    @staticmethod
    def forward(name: str, a: Tensor, value: bool) -> tuple[Tensor, ...]:
        return _facts(name, a, value)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.name, ctx.facts = inputs[0], len(output)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output[:2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, Tensor | None, None]:
        slope, rate = ctx.saved_tensors
        by_slope, by_rate, by_value = grads if len(grads) == 3 else (*grads, None)
        if by_rate is None:
            total = None if by_slope is None else by_slope * rate
        else:
            by_slope = torch.zeros_like(by_rate) if by_slope is None else by_slope
            total = ACTIVATIONS[ctx.name].pull(by_slope, by_rate, slope, rate)
        if by_value is not None:
            total = by_value * slope if total is None else torch.addcmul(total, by_value, slope)
        return None, total, None
