r"""Importance-weighted log-likelihood of predicted frames, $\log p(x_t)$ for $t \ge 1$, alike for every model.

Where a transformation acts it is that given the transformation, be it known or inferred: what a choice of one of K
costs, $\log K$ under a uniform prior, is left out, as a model with labels does not choose.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from torchflowfield.metrics import importance_weighted_log_likelihood

from .data.sequences import Batch
from .networks import bernoulli_log_prob

if TYPE_CHECKING:
    from .base import SequenceVAE


def gaussian_log_prob(logits: Tensor, frames: Tensor) -> Tensor:
    r"""Log-density of frames under a normal distribution of unit variance around the decoded ones, `[*]`."""
    error = (logits.sigmoid() - frames).flatten(-3)
    return -0.5 * error.square().sum(-1) + gaussian_ceiling(error.shape[-1])


def gaussian_ceiling(size: int) -> float:
    r"""$-\frac{d}{2} \log 2\pi$: no model with a unit-variance normal decoder is above it on d numbers."""
    return -0.5 * size * math.log(2 * math.pi)


def log_likelihood(
    model: "SequenceVAE", frames: Tensor, batch: Batch | None, *, samples: int = 16
) -> dict[str, Tensor]:
    r"""Bound on $\log p(x_t)$, averaged over frames 1 to T, per sequence `[B]` and by decoder.

    $p(x_t) = \int p(x_t | z_t) p_t(z_t) dz_t$ with the model's prior of frame t, and the model's prediction of $z_t$ as
    the proposal: $\log \frac{1}{S} \sum_s p(x_t | z_t^s)\, p_t(z_t^s) / q_t(z_t^s)$. The better the prediction, the
    tighter the bound.

    Args:
        model: A trained model, in `eval` mode.
        frames: True frames `[T+1, B, C, H, W]`.
        batch: What the data say about the sequences.
        samples: Draws S of the first code.

    Returns:
        `"log_p_gaussian"` with a normal decoder of unit variance, `"log_p_bernoulli"` with the decoder of the training,
        whose grey levels are probabilities.
    """
    weights: dict[str, list[Tensor]] = {"log_p_gaussian": [], "log_p_bernoulli": []}
    ratios = []
    for _ in range(samples):
        rollout = model.rollout(frames, batch, sample=True)
        if rollout.log_ratio is None:
            raise ValueError(
                f"log_likelihood: expected {type(model).__name__}.rollout(sample=True) to give log_ratio, got None."
            )
        logits = model.decode(rollout.z[1:])
        weights["log_p_gaussian"].append(gaussian_log_prob(logits, frames[1:]))
        weights["log_p_bernoulli"].append(bernoulli_log_prob(logits, frames[1:]))
        ratios.append(rollout.log_ratio[1:])
    # log p(x|z) + log p(z) against log q(z): their difference is all that the estimate needs.
    against = -torch.stack(ratios)
    return {
        name: importance_weighted_log_likelihood(torch.stack(parts), against).mean(0) for name, parts in weights.items()
    }
