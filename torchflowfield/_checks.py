"""Checks of what a user passes in. They raise before any work is done, and are skipped while tracing."""

import math
from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, transform_to
from torch.distributions.constraints import dependent

from torchflowfield.path import FlowPath


def check_latent(owner: str, z: Tensor, dim: int | None, like: Tensor) -> None:
    """Raise unless `z` is a floating `[*, dim]` tensor with the dtype and device of the parameter `like`."""
    if not isinstance(z, Tensor) or not z.is_floating_point():
        got = z.dtype if isinstance(z, Tensor) else type(z).__name__
        raise TypeError(
            f"{owner}: expected a floating-point tensor z, got {got}. Convert it with "
            f"{'z.float()' if isinstance(z, Tensor) else 'torch.as_tensor(z)'}."
        )
    if z.ndim == 0 or z.shape[-1] != dim:
        raise ValueError(
            f"{owner}: expected z of shape (*, {dim}), got {tuple(z.shape)}. "
            f"Pass latent vectors of size {dim}, or build the field with dim={z.shape[-1] if z.ndim else 1}."
        )
    if z.device != like.device:
        raise ValueError(
            f"{owner}: expected z on {like.device}, where the parameters are, got {z.device}. "
            f"Move one of them with .to(...)."
        )
    if z.dtype != like.dtype and not torch.is_autocast_enabled(z.device.type):
        raise TypeError(
            f"{owner}: expected z of dtype {like.dtype}, as the parameters, got {z.dtype}. "
            f"Convert z with .to({like.dtype}) or the module with .to({z.dtype})."
        )


def as_time(owner: str, t: float | int | Tensor, z: Tensor) -> Tensor:
    """The time `t` as a tensor of the dtype and device of `z`: a scalar, or one time per sample."""
    # Filled in where `z` is: a copy from the host would wait for the device.
    time = t.to(z) if isinstance(t, Tensor) else torch.full((), t, dtype=z.dtype, device=z.device)
    if time.ndim and time.shape != z.shape[:-1]:
        raise ValueError(
            f"{owner}: expected t to be a number or one time per sample of shape {tuple(z.shape[:-1])}, "
            f"got {tuple(time.shape)}."
        )
    return time


def check_velocity(field: object, velocity: Tensor, z: Tensor) -> Tensor:
    """The `velocity` of a field or module, unless it is anything but one vector per sample."""
    if velocity.shape != z.shape:
        raise ValueError(
            f"FlowBank: expected {type(field).__name__} to return velocities of shape {tuple(z.shape)}, as z, got "
            f"{tuple(velocity.shape)}. A potential goes into AutogradPotential."
        )
    return velocity


def check_context(owner: str, context: Tensor | None, context_dim: int, z: Tensor | None = None) -> None:
    """Raise unless a context is given exactly where the field was built for one, with a size that fits it and `z`."""
    if context is None and context_dim:
        raise ValueError(f"{owner}: expected a context of shape (*, {context_dim}), got none. Pass context=…")
    if context is not None and not context_dim:
        raise ValueError(f"{owner}: got a context but was built without one. Build it with context_dim=…")
    if context is None:
        return
    if not isinstance(context, Tensor) or not context.is_floating_point():
        got = context.dtype if isinstance(context, Tensor) else type(context).__name__
        raise TypeError(f"{owner}: expected a floating-point tensor as context, got {got}. Convert it with .to(z).")
    if context.ndim == 0 or context.shape[-1] != context_dim:
        raise ValueError(f"{owner}: expected a context of shape (*, {context_dim}), got {tuple(context.shape)}.")
    if z is None:
        return
    batch, own = z.shape[:-1], context.shape[:-1]
    if len(own) > len(batch) or any(a not in (1, b) for a, b in zip(own[::-1], batch[::-1], strict=False)):
        raise ValueError(
            f"{owner}: expected a context for z of shape {tuple(z.shape)}, one vector per sample or one for all, got "
            f"{tuple(context.shape)}."
        )
    if context.device != z.device or (context.dtype != z.dtype and not torch.is_autocast_enabled(z.device.type)):
        raise ValueError(
            f"{owner}: expected a context like z, {z.dtype} on {z.device}, got {context.dtype} on {context.device}. "
            f"Use context.to(z)."
        )


def holds(fact: Tensor) -> bool:
    """Whether a fact about the entries of a tensor holds; assumed where `check_finite` would not look."""
    if torch.compiler.is_compiling() or fact.device.type != "cpu":
        return True
    try:
        return bool(fact)
    except RuntimeError:
        return True


def check_finite(owner: str, name: str, value: Tensor) -> None:
    """Raise if `value` holds NaN or infinity.

    Skipped where its entries cannot be read (compile, export, vmap), and on a GPU, which the host would wait for.
    """
    if torch.compiler.is_compiling() or value.device.type != "cpu":
        return
    try:
        # The sum alone tells, faster, unless it overflows.
        finite = math.isfinite(value.detach().sum().item()) or bool(value.isfinite().all())
    except RuntimeError:
        return
    if not finite:
        raise ValueError(f"{owner}: expected finite {name}, got NaN or infinity. Check what produced them.")


def validates(value: Tensor) -> bool | None:
    """`validate_args` for distributions with arguments like `value`: False on a GPU, which the host would wait for."""
    return None if value.device.type == "cpu" else False


def check_choice(owner: str, name: str, value: object, choices: Iterable[object]) -> None:
    """Raise unless `value` is one of `choices`."""
    options = tuple(choices)
    if value not in options:
        raise ValueError(f"{owner}: expected {name} to be one of {', '.join(map(repr, options))}, got {value!r}.")


def check_family(owner: str, family: object) -> dict[str, Any]:
    """Constraints of a family's arguments; raise unless it is one of single numbers, inferred argument by argument."""
    if not (isinstance(family, type) and issubclass(family, Distribution)):
        raise TypeError(f"{owner}: expected a family of torch.distributions as slab, such as Laplace, got {family!r}.")
    if not family.has_rsample:
        raise TypeError(f"{owner}: slabs need reparameterised samples, which {family.__name__} lacks.")
    known: dict[str, Any] = family.arg_constraints if isinstance(family.arg_constraints, dict) else {}
    known = {name: constraint for name, constraint in known.items() if constraint is not dependent}
    try:
        one = family(**{name: transform_to(c)(torch.zeros(1)) for name, c in known.items()}, validate_args=False)
    except (NotImplementedError, RuntimeError, TypeError, ValueError):
        one = None
    if one is None or one.event_shape:
        raise TypeError(
            f"{owner}: slabs need to be single numbers with arguments free of each other, which {family.__name__} "
            f"lacks."
        )
    return known


def check_features(owner: str, features: Tensor, size: int) -> None:
    """Raise unless the last axis of `features` has the given size."""
    if features.shape[-1] != size:
        raise ValueError(f"{owner}: expected features of shape (*, {size}), got {tuple(features.shape)}.")


def check_temperature(owner: str, temperature: float) -> None:
    """Raise unless the temperature of a relaxation is positive."""
    if not temperature > 0:
        raise ValueError(f"{owner}: expected a positive temperature, got {temperature}.")


def check_probability(owner: str, name: str, value: float) -> None:
    """Raise unless `value` lies strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{owner}: expected {name} to be a probability strictly between 0 and 1, got {value}.")


def check_tolerances(owner: str, rtol: object, atol: object) -> None:
    """Raise for tolerances that no step can keep; torchdiffeq takes others than numbers too."""
    numbers = isinstance(rtol, int | float) and isinstance(atol, int | float)
    if numbers and not (rtol >= 0 and atol >= 0 and rtol + atol > 0):  # type: ignore[operator]
        raise ValueError(f"{owner}: expected rtol and atol ≥ 0, one of them above, got {rtol} and {atol}.")


def check_length(owner: str, steps: object) -> None:
    """Raise unless it is a number of steps of a path."""
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise TypeError(f"{owner}: expected steps to be an int, got {steps!r}.")
    if steps < 0:
        raise ValueError(f"{owner}: expected steps ≥ 0, got {steps}. To go backwards pass reverse=True.")


def check_steps(owner: str, steps: int) -> None:
    """Raise unless there is a step."""
    if steps < 1:
        raise ValueError(f"{owner}: expected at least one step, got {steps}.")


def check_whole(owner: str, least: int = 1, /, **numbers: object) -> None:
    """Raise unless all `numbers`, each given by its name, are whole and not below `least`."""
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"{owner}: expected {name} to be a whole number of at least {least}, got {value!r}.")


def check_path(owner: str, path: object) -> None:
    """Raise unless it is what an `ODEStepper` returns."""
    if not isinstance(path, FlowPath):
        raise TypeError(f"{owner}: expected the path that an ODEStepper returns, got {type(path).__name__}.")


def check_weights(
    owner: str, weights: Tensor, z: Tensor, shapes: list[tuple[int | None, ...]], steps: int | None
) -> None:
    """Raise unless the weights of a bank are finite, in one of the `shapes`, and on the device of `z`."""
    controls = shapes[0][-1]
    if not isinstance(weights, Tensor) or not weights.is_floating_point():
        got = weights.dtype if isinstance(weights, Tensor) else type(weights).__name__
        raise TypeError(
            f"{owner}: expected weights to be one int or a floating-point tensor, got {got}. For one field pass "
            f"int(k), for one per sample torch.nn.functional.one_hot(k, {controls}).float(), for a mixture "
            f"torch.tensor([...])."
        )
    # Number of axes first: an export with a dynamic batch would take their comparison for a rule about its size.
    if not any(weights.ndim == len(shape) and tuple(weights.shape) == shape for shape in shapes):
        remedy = "Nothing is broadcast; use weights.expand(...)."
        if weights.shape[-1:] != (controls,):
            remedy = f"Give one weight for each of the {controls} controls."
        elif steps is None and weights.ndim == z.ndim + 1 and weights.shape[1:-1] == z.shape[:-1]:
            remedy = "A schedule goes into ODEStepper or bank.bind."
        elif weights.ndim == z.ndim + 1 and weights.shape[1:-1] == z.shape[:-1]:
            remedy = f"Give one entry for each step, or pass steps={weights.shape[0]}."
        elif tuple(weights.shape) == (steps, controls):
            batch = z.shape[:-1]
            missing, whole = ", ".join([":", *["None"] * len(batch)]), ", ".join(map(str, (steps, *batch, controls)))
            remedy = f"For one schedule for the whole batch use weights[{missing}].expand({whole})."
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        raise ValueError(
            f"{owner}: expected weights of shape {expected} for {controls} controls and z of shape "
            f"{tuple(z.shape)}, got {tuple(weights.shape)}. {remedy}"
        )
    if weights.device != z.device:
        raise ValueError(f"{owner}: expected weights on {z.device}, got {weights.device}. Use weights.to(z).")
    check_finite(owner, "weights", weights)
