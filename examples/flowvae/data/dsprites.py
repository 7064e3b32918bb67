"""dSprites' npz file."""

import os
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .files import DataError, Source, reading, require
from .frames import FRAMES
from .grid import FactorGridData
from .grid_images import GridImages, grid_sizes

SOURCE = Source("dSprites", "Apache-2.0", "https://github.com/google-deepmind/dsprites-dataset", stand_in="dsprites")
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
NAMES = ("color", "shape", "scale", "orientation", "pos_x", "pos_y")
OFFICIAL = (1, 3, 6, 40, 32, 32)
_IN_MEMORY = 256 << 20


class DSpritesImages(GridImages):
    """Images of a dSprites file.

    An npz is compressed as a whole and cannot be read in part: a small one is held in memory; a large one is unpacked
    once, piece by piece, into a file that is mapped into memory and shared by all processes.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, damaged, or has other contents.
    """

    names = NAMES

    def __init__(self, path: Path) -> None:
        self.path = require(path, SOURCE)
        with reading(path, "a whole npz file", SOURCE), zipfile.ZipFile(path) as archive, np.load(path) as content:
            keys = set(content.files)
            if not {"imgs", "latents_classes"} <= keys:
                raise DataError(
                    f"{path}: expected the keys imgs and latents_classes, got {sorted(keys)}. {SOURCE.remedy()}"
                )
            self.sizes = grid_sizes(content["latents_classes"], NAMES, path)
            shape = self._check_shape(archive)
            self._images = content["imgs"] if np.prod(shape) <= _IN_MEMORY else self._unpacked(archive, shape)
        self.image_size = shape[1]
        # The official images are 0 and 1, the stand-in's have grey edges from 0 to 255.
        self._white = 255 if int(self._images[: 1 << 12].max()) <= 1 else 1

    def _read(self, index: np.ndarray) -> np.ndarray:
        """Images of the given numbers, as bytes `[N, H, W, 1]`."""
        return self._images[index][..., None] * np.uint8(self._white)

    def _check_shape(self, archive: zipfile.ZipFile) -> tuple[int, ...]:
        with archive.open("imgs.npy") as member:
            shape, dtype = _header(member)
        if len(shape) != 3 or shape[1] != shape[2] or dtype != np.uint8 or shape[0] != np.prod(self.sizes):
            raise DataError(
                f"{self.path}: expected {np.prod(self.sizes)} images of shape (H, H) in uint8, one for each row of "
                f"labels, got {shape} in {dtype}. {SOURCE.remedy()}"
            )
        return shape

    def _unpacked(self, archive: zipfile.ZipFile, shape: tuple[int, ...]) -> np.ndarray:
        stat = self.path.stat()
        target = FRAMES / f"dsprites-{stat.st_size}-{stat.st_mtime_ns}.npy"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(f".{os.getpid()}.npy")
            images = np.lib.format.open_memmap(unfinished, mode="w+", dtype=np.uint8, shape=shape)
            with archive.open("imgs.npy") as member:
                _header(member)
                for first in range(0, shape[0], 4096):
                    block = images[first : first + 4096]
                    block[:] = np.frombuffer(member.read(block.size), np.uint8).reshape(block.shape)
                # The archive's own checksum is compared when the end is reached.
                if member.read():
                    raise DataError(f"{self.path}: expected {shape[0]} images, got more. {SOURCE.remedy()}")
            images.flush()
            unfinished.replace(target)
        return np.load(target, mmap_mode="r")


def _header(member) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(member)
    return shape, dtype


class DSpritesData(FactorGridData):
    """Sequences of dSprites: a square, an ellipse or a heart, white on black (Matthey et al., 2017; Apache-2.0).

    `root` holds `dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz` from https://github.com/google-deepmind/dsprites-dataset:
    737,280 images of 64×64 pixels. Its authors publish no checksum. Scale, orientation and position move. The
    orientation's first and last values are the same angle, 0 and 2π, so it does not go on after the last.
    """

    source, official = SOURCE, OFFICIAL
    factors = ("scale", "orientation", "pos_x", "pos_y")
    base = ("shape", "pos_x", "pos_y")

    def open(self, root: Path) -> DSpritesImages:
        """Check the npz file."""
        return DSpritesImages(root if root.suffix == ".npz" else root / FILE)


def still_sprites(root: Path | None = None, size: int = 28, margin: int = 4) -> Tensor:
    """The shapes of dSprites at all orientations, centred and as large as a digit is: images `[N, 1, size, size]`.

    For models that were trained on digits and never saw such shapes.

    Args:
        root: Folder with the official file; the stand-in without one.
        size: Height and width.
        margin: Pixels that stay free on every side at the largest extent.
    """
    data = DSpritesData(root, steps=1)
    data.setup()
    sizes = data.images.sizes
    index = np.ravel_multi_index(
        np.ix_([0], range(sizes[1]), [sizes[2] - 1], range(sizes[3]), [sizes[4] // 2], [sizes[5] // 2]), sizes
    )
    images = torch.from_numpy(data.images.read(index.ravel())).permute(0, 3, 1, 2).float() / 255
    rows, columns = images.amax((0, 1, 3)).nonzero(), images.amax((0, 1, 2)).nonzero()
    images = images[..., int(rows.min()) : int(rows.max()) + 1, int(columns.min()) : int(columns.max()) + 1]
    inner = size - 2 * margin
    images = F.interpolate(images, (inner, inner), mode="bilinear", antialias=True)
    return F.pad(images, (margin,) * 4).clamp(0, 1)
