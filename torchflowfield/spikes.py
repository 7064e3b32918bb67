r"""Spikes: independent bits, conditioned on at least one being on.

Their law is given by the log-odds of the bits, or by the logarithms of the probabilities $p_k$ and $1 - p_k$ of each
being on and off, all before the condition.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

from torchflowfield._checks import holds


def sample_not_all_zero(logits: Float[Tensor, "*batch fields"]) -> Float[Tensor, "*batch fields"]:
    """Independent bits with these log-odds, conditioned on at least one being on: exact, with no rejection.

    The first bit that is on has a known distribution; those before it are off, those after it are free.
    """
    dtype, logits = logits.dtype, at_least_float32(logits)
    not_empty_through = -torch.expm1(F.logsigmoid(-logits).cumsum(-1))
    threshold = _uniform(logits[..., :1]) * not_empty_through[..., -1:]
    first = (not_empty_through <= threshold).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    index = torch.arange(logits.shape[-1], device=logits.device)
    free = (_uniform(logits) < logits.sigmoid()) & (index > first)
    return ((index == first) | free).to(dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """`x`, half precisions as float32: uniform numbers of theirs are too coarse for rare spikes."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _uniform(like: Tensor) -> Tensor:
    """Uniform numbers above zero: a zero would switch on what is all but impossible."""
    return torch.rand_like(like).clamp(min=torch.finfo(like.dtype).eps / 4)


def most_probable(logits: Float[Tensor, "*batch fields"]) -> Float[Tensor, "*batch fields"]:
    """The likeliest bits that are not all zero."""
    best = F.one_hot(logits.argmax(-1), logits.shape[-1]).bool()
    return ((logits > 0) | best).to(logits.dtype)


def relaxed(
    bits: Float[Tensor, "*batch fields"], logits: Float[Tensor, "*batch fields"], temperature: float
) -> Float[Tensor, "*batch fields"]:
    r"""The binary concrete relaxation $\sigma((\ell + \epsilon) / \tau)$ of drawn bits, with logistic noise."""
    with torch.no_grad():
        # Logistic noise given which side of the threshold -logits it falls on.
        v = torch.rand_like(logits).clamp(1e-7, 1 - 1e-7)
        above = F.softplus(logits) - v.log() + torch.log1p(-v * logits.sigmoid())
        below = -F.softplus(-logits) + v.log() - torch.log1p(-v * (-logits).sigmoid())
        noise = torch.where(bits == 1, above, below) - logits
    return ((logits + noise) / temperature).sigmoid()


def coefficients(
    spikes: Float[Tensor, "*batch controls"], slabs: Float[Tensor, "*batch fields"]
) -> Float[Tensor, "*batch controls"]:
    r"""$g = y \circ s$; with two spikes per field, both share its slab."""
    return spikes * (slabs if slabs.shape == spikes.shape else slabs.tile(2))


def check_spikes(owner: str, spikes: Tensor, count: int) -> None:
    """Raise unless the spikes are `[T, *, count]`."""
    if spikes.ndim < 2 or spikes.shape[-1] != count:
        raise ValueError(
            f"{owner}: expected spikes of shape (T, *, {count}), got {tuple(spikes.shape)}. "
            f"Pass control='double' for two spikes per field."
        )


def check_posterior(owner: str, spikes: Tensor, logits: Tensor, slab: Distribution | None, K: int) -> None:
    """Raise unless log-odds and slabs belong to the spikes: one of the former each, one of the latter per field."""
    if logits.shape != spikes.shape:
        raise ValueError(f"{owner}: expected logits like the spikes, {tuple(spikes.shape)}, got {tuple(logits.shape)}.")
    if slab is not None and slab.batch_shape[-1:] != (K,):
        raise ValueError(
            f"{owner}: expected slabs of shape (T, *, {K}), got {tuple(slab.batch_shape)}. "
            f"Prior and posterior need the same K and the same control."
        )


def check_hard(owner: str, spikes: Float[Tensor, "*batch fields"]) -> None:
    """Raise unless the spikes are 0 or 1, and not all 0."""
    if not holds(((spikes == 0) | (spikes == 1)).all()):
        raise ValueError(f"{owner}: expected spikes of 0 and 1. Round relaxed ones first.")
    if not holds((spikes != 0).any(-1).all()):
        raise ValueError(f"{owner}: got a step with no spike on, which has probability zero.")


def log_not_all_zero(log_off: Float[Tensor, "*batch fields"]) -> Float[Tensor, "*batch"]:
    r"""$\log(1 - \prod_k (1 - p_k))$, the log-probability of the condition."""
    return torch.log(-torch.expm1(log_off.sum(-1)))


def log_prob_not_all_zero(
    bits: Float[Tensor, "*batch fields"],
    log_on: Float[Tensor, "*batch fields"],
    log_off: Float[Tensor, "*batch fields"],
) -> Float[Tensor, "*batch"]:
    """Log-probability of bits of 0 and 1 that are not all zero."""
    return torch.where(bits == 1, log_on, log_off).sum(-1) - log_not_all_zero(log_off)


def kl_not_all_zero(
    logits: Float[Tensor, "*batch fields"],
    log_on: Float[Tensor, "*batch fields"],
    log_off: Float[Tensor, "*batch fields"],
) -> Float[Tensor, "*batch"]:
    """Divergence of the spikes with these log-odds from those with these probabilities."""
    logits = logits.clamp(-80, 80)
    log_pi, log_not_pi = F.logsigmoid(logits), F.logsigmoid(-logits)
    log_not_empty = log_not_all_zero(log_not_pi)
    m = (log_pi - log_not_empty[..., None]).exp()
    kl = (m * (log_pi - log_on) + (1 - m) * (log_not_pi - log_off)).sum(-1)
    return kl - log_not_empty + log_not_all_zero(log_off)
