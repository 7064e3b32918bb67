"""The memory layouts of the ridge algebra.

Samples come last, `[K, H, N]` with the batch flattened to N samples: sums over units and factors of units then run
along contiguous memory, both ways. Where no gradient is wanted mixtures have their units last, `[N, K, H]`, with which
the products are faster.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

# PyTorch 2.6 cannot tell an export from other compilations; what an export needs is right for them too.
is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)

# Below so many numbers a node of the graph that is written in Python costs more than strided gradients do.
_SMALL = 10_000


Layout = Callable[[Tensor, torch.Size], Tensor]


def columns(x: Tensor, batch: torch.Size) -> Tensor:
    """Factors of the units, `[K, H]` or one set per sample `[*, K, H]`, as `[K, H, 1 or N]`."""
    return x[..., None] if x.ndim == 2 else x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:]).permute(1, 2, 0)


def units_last(x: Tensor, batch: torch.Size) -> Tensor:
    """Factors of the units, `[K, H]` or one set per sample `[*, K, H]`, as `[1 or N, K, H]`."""
    return x[None] if x.ndim == 2 else x.expand(*batch, *x.shape[-2:]).reshape(-1, *x.shape[-2:])


def layout() -> Layout:
    """The layout for mixtures: `columns`, or `units_last` where no gradient is wanted."""
    return columns if torch.is_grad_enabled() else units_last


def over_units(factors: Tensor, values: Tensor, batch: torch.Size) -> Tensor:
    """Sum over the units of `values [K, H, N]` with the factors `[K, H]` or `[*, K, H]`; `[K, N]`."""
    # As a product it reads and writes less, both ways; compiled code fuses it with what made the values.
    if factors.ndim == 2 and not torch.compiler.is_compiling() and not autocasts(values):
        return torch.bmm(factors.unsqueeze(1), values).squeeze(1)
    return (columns(factors, batch) * values).sum(1)


def autocasts(x: Tensor) -> bool:
    """Whether products on the device of `x` are made in the precision of autocast."""
    return x.device.type != "meta" and torch.is_autocast_enabled(x.device.type)


def is_transformed() -> bool:
    """Whether `torch.func` or forward mode is at work: there an `autograd.Function` may lose tangents, silently."""
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def rows(x: Tensor, batch: torch.Size) -> Tensor:
    """`[..., N]` as `[*, ...]`."""
    plain = torch.compiler.is_compiling() or x.numel() < _SMALL or is_transformed()
    first = x.movedim(-1, 0) if plain else _SamplesFirst.apply(x)
    return first.reshape(*batch, *x.shape[:-1])


def split(controls: Tensor | None, batch: torch.Size, lay: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Controls `[*, K, P]` of the gradients and of the rotations as factors of the units, laid out by `lay`."""
    if controls is None:
        return None, None
    gradient = lay(controls[..., :1], batch).contiguous()
    return gradient, gradient if controls.shape[-1] == 1 else lay(controls[..., 1:], batch).contiguous()


def total(terms: list[Tensor]) -> Tensor:
    """Sum of the terms of a gradient, a rotation or both."""
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def transposed_product(weight: Tensor, units: Tensor) -> Tensor:
    """`weight.mT @ units`, `[K, H, D]` and `[K, H, N]` to `[K, D, N]`; a large weight has its gradient in its order."""
    plain = weight.numel() < _SMALL or not torch.is_grad_enabled() or autocasts(units)
    # A strict export would lose the gradients of a node that is written in Python, silently.
    if plain or is_transformed() or is_exporting():
        return weight.mT @ units
    return _TransposedProduct.apply(weight, units)


class _TransposedProduct(torch.autograd.Function):
    """Gives the gradient of the weight as it lies in memory: else autograd transposes it, and copies it once more."""

    @staticmethod
    def forward(weight: Tensor, units: Tensor) -> Tensor:
        return weight.mT @ units

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        weight, units = ctx.saved_tensors
        by_weight, by_units = ctx.needs_input_grad
        return units @ grad.mT if by_weight else None, weight @ grad if by_units else None


class _SamplesFirst(torch.autograd.Function):
    """Moves the axis of the samples to the front, in new memory both ways: strided gradients are slow."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.movedim(-1, 0).contiguous()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.movedim(0, -1).contiguous()
