"""Full grids of factor values."""

from collections.abc import Sequence

import numpy as np


def grid_labels(values: Sequence[np.ndarray]) -> np.ndarray:
    """Every combination of factor values, the last factor fastest: `[N, F]` in float64.

    Args:
        values: The values of every factor.
    """
    return np.stack(np.meshgrid(*values, indexing="ij"), -1).reshape(-1, len(values)).astype(np.float64)


def check_sizes(title: str, sizes: Sequence[int], most: Sequence[int | None]) -> tuple[int, ...]:
    """The number of values of every factor, checked.

    Args:
        title: What the data are, for the error.
        sizes: Number of values of every factor.
        most: The largest number of each; `None` where any will do.

    Raises:
        ValueError: If there are too few or too many.
    """
    good = len(sizes) == len(most) and all(
        size >= 1 and (limit is None or size <= limit) for size, limit in zip(sizes, most, strict=True)
    )
    if not good:
        raise ValueError(f"{title}: expected {len(most)} sizes of at least 1 and at most {most}, got {tuple(sizes)}.")
    return tuple(int(size) for size in sizes)
