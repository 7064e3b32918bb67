"""Folders of numbered PNG files with labels: one for each combination of factor values."""

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..cache import Cache
from .factors import grid_labels

Views = Callable[[tuple[int, ...]], Callable[[tuple[int, ...]], np.ndarray]]


def make_png_grid(
    cache: Cache,
    folder: str,
    labels: str,
    values: Sequence[np.ndarray],
    rendered: Sequence[int],
    views: Views,
    title: str,
) -> Cache:
    """Write `NNNNNN.png` for every combination of factor values, the last factor fastest, and the labels.

    Images that differ only in factors that need no new rendering are made one after another.

    Args:
        cache: Keeps the files.
        folder: Name of the folder, which gets `images/` and the labels.
        labels: Name of the file with the labels.
        values: Values of every factor.
        rendered: Factors that need a new rendering, as indices, slowest first.
        views: Renders for the indices of the rendered factors; the result gives bytes `[H, W, 3]` for the others'.
        title: What the progress bar shows.
    """
    sizes = [len(v) for v in values]
    others = [k for k in range(len(sizes)) if k not in rendered]
    numbers = np.arange(int(np.prod(sizes))).reshape(sizes).transpose(*rendered, *others)
    latest: dict[tuple[int, ...], Callable[[tuple[int, ...]], np.ndarray]] = {}

    def write(path: Path, place: tuple[int, ...]) -> None:
        key, rest = place[: len(rendered)], place[len(rendered) :]
        if key not in latest:
            view = views(key)
            latest.clear()
            latest[key] = view
        path.write_bytes(png_bytes(latest[key](rest)))

    makers = {
        f"{folder}/images/{number:06}.png": (lambda path, place=place: write(path, place))
        for place, number in np.ndenumerate(numbers)
    }
    cache.ensure(f"{folder}/{labels}", lambda path: _save_labels(path, grid_labels(values)))
    cache.ensure_all(makers, title)
    return cache


def png_bytes(image: np.ndarray) -> bytes:
    """An image of bytes `[H, W, 3]` as a PNG file."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "png", compress_level=4)
    return stream.getvalue()


def _save_labels(path: Path, labels: np.ndarray) -> None:
    # A path would get the suffix .npy, which Falcor3D's labels do not have.
    with path.open("wb") as stream:
        np.save(stream, labels)
