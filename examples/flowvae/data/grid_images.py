"""Access to images of a full grid of factor values, whatever file they are in."""

from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from .files import DataError


class GridImages(ABC):
    """Images of every combination of factor values, the last factor fastest; read when they are needed.

    Attributes:
        names: Names of all factors.
        sizes: Number of values of each.
        image_size: Height and width in pixels.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    image_size: int

    @abstractmethod
    def read(self, index: np.ndarray) -> np.ndarray:
        """Images of the given numbers `[N]`, as bytes `[N, H, W, C]` with one or three channels."""


def grid_sizes(labels: np.ndarray, names: tuple[str, ...], path: Path) -> tuple[int, ...]:
    """Number of values of every factor of a full grid.

    Args:
        labels: Factor values of every image, `[N, F]`.
        names: Names of the factors.
        path: The file that they come from, for errors.

    Raises:
        DataError: If there are other factors, if a combination of values is missing or double, or if the images are in
            another order than with the last factor fastest.
    """
    if labels.ndim != 2 or labels.shape[1] != len(names) or not len(labels):
        raise DataError(
            f"{path}: expected labels of shape (N, {len(names)}) for {', '.join(names)}, got {labels.shape}."
        )
    values = [np.unique(labels[:, k]) for k in range(len(names))]
    sizes = tuple(len(v) for v in values)
    if np.prod(sizes) != len(labels):
        raise DataError(
            f"{path}: expected one image for each of {' × '.join(map(str, sizes))} = {np.prod(sizes)} combinations of "
            f"factor values, got {len(labels)}. Images are missing or double; get the file again."
        )
    index = np.arange(len(labels))
    for k, name in enumerate(names):
        expected = values[k][index // int(np.prod(sizes[k + 1 :])) % sizes[k]]
        wrong = np.flatnonzero(labels[:, k] != expected)
        if len(wrong):
            raise DataError(
                f"{path}: expected a grid with the last factor fastest, got {name} = {labels[wrong[0], k]} instead of "
                f"{expected[wrong[0]]} for image {wrong[0]}. The rows are in another order, or damaged."
            )
    return sizes
