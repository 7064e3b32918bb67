"""How the dimensions of a code share out the factors of the data: MIG and DCI."""

import math
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import mutual_info_score
from torch import Tensor

from .data.frames import as_frames
from .data.transforms import SCALES, render


def labelled_frames(data: Any, count: int) -> tuple[Tensor, Tensor] | None:
    """Up to `count` frames `[N, 3, H, W]` with every factor at random, and the factors' values `[N, K]` in [0, 1).

    Test digits in random poses, those of one digit in a row, or different test images of a grid of factors; None for
    data without known factors. What `dci` learns from and what it tests are thus different images.
    """
    if not getattr(data, "factors", ()):
        return None
    data.setup()
    generator = torch.Generator().manual_seed(0)
    if hasattr(data.split, "starts"):
        moves = torch.zeros(count, 1, len(data.images.sizes), dtype=torch.long)
        values = data.split.starts(moves, "test", generator).unique(dim=0)
        values = values[torch.randperm(len(values), generator=generator)]
        index = np.ravel_multi_index(tuple(values.numpy().T), data.images.sizes)
        moving = data.split.moving
        shares = values[:, moving] / torch.tensor([data.images.sizes[k] for k in moving])
        return as_frames(data.images.read(index), data.image_size), shares
    images = data.split.test
    values = torch.rand(count, 3, generator=generator)
    low, high = (math.log(scale) for scale in SCALES)
    turn = 2 * math.pi
    poses = torch.stack((low + (high - low) * values[:, 0], turn * values[:, 1], turn * values[:, 2]), -1)
    chosen = torch.randperm(len(images), generator=generator)[torch.arange(count) * len(images) // count]
    return render(images[chosen], poses[:, None])[:, 0], values


def disentanglement(codes: Tensor, values: Tensor, *, bins: int = 20, levels: int = 8) -> dict[str, float]:
    """MIG and the three parts of DCI.

    Args:
        codes: Codes `[N, D]`.
        values: Factors `[N, K]`.
        bins: Bins of every dimension of the code, for its mutual information.
        levels: Levels that a factor is divided into, of equal counts.
    """
    factors = _binned(values, levels)
    mig = mutual_information_gap(_binned(codes, bins), factors)
    return {"mig": mig, **dci(codes.double().cpu().numpy(), factors)}


def mutual_information_gap(codes: np.ndarray, factors: np.ndarray) -> float:
    r"""$\frac{1}{K} \sum_k (I(z_{(1)}; v_k) - I(z_{(2)}; v_k)) / H(v_k)$ of binned codes `[N, D]` and factors `[N, K]`.

    One where every factor has a dimension to itself that holds all about it, zero where two dimensions hold the same.

    Raises:
        ValueError: For fewer than two dimensions.

    Reference:
        Chen et al., Isolating Sources of Disentanglement in Variational Autoencoders, NeurIPS 2018.
    """
    if codes.shape[1] < 2:
        raise ValueError(f"mutual_information_gap: expected at least two dimensions, got {codes.shape[1]}.")
    gaps = []
    for factor in factors.T:
        information = sorted(mutual_info_score(dimension, factor) for dimension in codes.T)
        gaps.append((information[-1] - information[-2]) / mutual_info_score(factor, factor))
    return float(np.mean(gaps))


def dci(codes: np.ndarray, factors: np.ndarray, *, trees: int = 10) -> dict[str, float]:
    """Disentanglement, completeness and informativeness by gradient-boosted trees.

    The trees predict the level of every factor from the codes; how much each dimension helped is its importance.
    Three quarters of the samples train the trees, the rest measure the informativeness: the share that they get right.

    Args:
        codes: Codes `[N, D]`.
        factors: Levels `[N, K]`.
        trees: Boosting rounds.

    Reference:
        Eastwood and Williams, A Framework for the Quantitative Evaluation of Disentangled Representations, ICLR 2018.
    """
    train = len(codes) * 3 // 4
    importance, right = [], []
    for factor in factors.T:
        forest = GradientBoostingClassifier(n_estimators=trees, max_depth=3, subsample=0.5, random_state=0)
        forest.fit(codes[:train], factor[:train])
        importance.append(forest.feature_importances_)
        right.append(forest.score(codes[train:], factor[train:]))
    matrix = np.stack(importance, 1) + 1e-12  # dimensions × factors
    by_dimension, by_factor = matrix / matrix.sum(1, keepdims=True), matrix / matrix.sum(0)
    share = matrix.sum(1) / matrix.sum()
    return {
        "dci_disentanglement": float((share * (1 - _entropy(by_dimension, 1))).sum()),
        "dci_completeness": float((1 - _entropy(by_factor, 0)).mean()),
        "dci_informativeness": float(np.mean(right)),
    }


def _entropy(probabilities: np.ndarray, axis: int) -> np.ndarray:
    return -(probabilities * np.log(probabilities)).sum(axis) / math.log(probabilities.shape[axis])


def _binned(values: Tensor, bins: int) -> np.ndarray:
    """Every column in at most `bins` classes of equal counts; equal values stay in one class."""
    classes = []
    for column in values.T.double().contiguous():
        edges = column.quantile(torch.arange(1, bins, dtype=column.dtype, device=column.device) / bins)
        classes.append(torch.bucketize(column, edges.unique(), right=True))
    return torch.stack(classes, 1).cpu().numpy()
