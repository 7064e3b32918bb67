"""MNIST's IDX files, plain or gzipped."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from .files import DataError, Source, require

SOURCE = Source("MNIST", "CC BY-SA 3.0", "https://ossci-datasets.s3.amazonaws.com/mnist")
OFFICIAL = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "t10k": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}
"""Images of every digit."""
MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
"""Of the official files. Files with other checksums are read too, as long as they are whole: some are packed anew."""

_IMAGES, _LABELS = 2051, 2049


def read_idx(path: Path) -> Tensor:
    """The images `[N, rows, columns]` or labels `[N]` of an IDX file, uint8.

    Raises:
        DataError: If the file is missing, empty, truncated, too long, or no IDX file of unsigned bytes.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as stream:
            content = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected a readable IDX file ({error}). {SOURCE.remedy()}") from error
    magic = int.from_bytes(content[:4], "big")
    if len(content) < 8 or magic not in (_IMAGES, _LABELS):
        raise DataError(
            f"{path}: expected an IDX file that starts with {_IMAGES} (images) or {_LABELS} (labels), got {magic}. "
            f"It may be another format, or still compressed under a name without .gz."
        )
    axes = magic & 0xFF
    shape = [int.from_bytes(content[4 + 4 * axis : 8 + 4 * axis], "big") for axis in range(axes)]
    start = 4 + 4 * axes
    if not math.prod(shape):
        raise DataError(f"{path}: expected images or labels, got none, shape {tuple(shape)}. {SOURCE.remedy()}")
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{path}: its header promises {math.prod(shape)} bytes for shape {tuple(shape)}, got "
            f"{len(content) - start}. The file is truncated or damaged. {SOURCE.remedy()}"
        )
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(shape)


def read_mnist(root: Path, part: str) -> tuple[Tensor, Tensor]:
    """Images in [0, 1], `[N, 1, 28, 28]`, and labels `[N]` of the part `"train"` or `"t10k"`.

    Raises:
        DataError: If the folder or a file is missing or damaged, or images and labels do not belong together.
    """
    images = read_idx(_find(root, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(root, f"{part}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.shape[1:] != (28, 28):
        raise DataError(f"{root}: expected {part} images of shape (N, 28, 28), got {tuple(images.shape)}.")
    if labels.ndim != 1 or len(labels) != len(images) or int(labels.max()) > 9:
        raise DataError(
            f"{root}: expected {len(images)} labels from 0 to 9 for the {part} images, got shape {tuple(labels.shape)} "
            f"with a maximum of {int(labels.max())}. The files may be swapped."
        )
    return images[:, None].float() / 255, labels.long()


def _find(root: Path, name: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder with MNIST's IDX files, and found none. {SOURCE.remedy()}")
    for path in (root / name, root / f"{name}.gz"):
        if path.exists():
            return path
    return require(root / f"{name}.gz", SOURCE)
