"""Access to images of a full grid of factor values, whatever file they are in."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .files import DataError
from .frames import FRAMES, PACKED_BYTES, PackedFrames, pack


class GridImages(ABC):
    """Images of every combination of factor values, the last factor fastest; read when they are needed.

    To decode an image takes longer than to train on it. Few of them, or those that cannot be read one by one, are
    therefore decoded once, see `keep`.

    Attributes:
        names: Names of all factors.
        sizes: Number of values of each.
        image_size: Height and width in pixels.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    image_size: int
    _kept: PackedFrames | None = None

    def read(self, index: np.ndarray) -> np.ndarray:
        """Images of the given numbers `[N]`, as bytes `[N, H, W, C]` with one or three channels."""
        return self._read(index) if self._kept is None else self._kept[index]

    @abstractmethod
    def _read(self, index: np.ndarray) -> np.ndarray:
        """What `read` gives, from the original files."""

    def keep(
        self,
        decoded: Callable[[int], Iterable[np.ndarray]],
        recipe: dict[str, Any],
        title: str,
        size: int,
        *,
        always: bool = False,
    ) -> None:
        """Decode all images once, if they are small enough, into a file that all processes map into memory.

        Args:
            decoded: Gives all images, as bytes `[size, size, 3]`, of the size that it is called with.
            recipe: What they depend on, beside the size.
            title: What the progress bar shows.
            size: Height and width that is asked for; it becomes `image_size` if they are kept.
            always: Keep them however many they are.
        """
        if always or int(np.prod(self.sizes)) * 3 * size**2 <= PACKED_BYTES:
            recipe = {**recipe, "size": size, "version": 1}
            self._kept = pack(FRAMES, recipe, {"images.npy": lambda: decoded(size)}, title)[0]
            self.image_size = size


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
