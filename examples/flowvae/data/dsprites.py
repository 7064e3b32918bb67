"""dSprites' npz file."""

import math
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .files import DataError, Source, reading, require
from .frames import FRAMES, pack
from .grid import FactorGridData
from .grid_images import GridImages, grid_sizes

SOURCE = Source("dSprites", "Apache-2.0", "https://github.com/google-deepmind/dsprites-dataset", stand_in="dsprites")
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
NAMES = ("color", "shape", "scale", "orientation", "pos_x", "pos_y")
OFFICIAL = (1, 3, 6, 40, 32, 32)
_IN_MEMORY, _BLOCK = 256 << 20, 1 << 12


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
        self.image_size = shape[1]
        if np.prod(shape) <= _IN_MEMORY:
            self._images = np.stack(list(self._unpacked()))
        else:
            stat = path.stat()
            recipe = {"file": str(path.resolve()), "state": [stat.st_size, stat.st_mtime_ns], "version": 1}
            self._kept = pack(FRAMES, recipe, {"images.npy": self._unpacked}, "unpacking dSprites")[0]

    def _read(self, index: np.ndarray) -> np.ndarray:
        return self._images[index]

    def _check_shape(self, archive: zipfile.ZipFile) -> tuple[int, ...]:
        with archive.open("imgs.npy") as member:
            shape, dtype = _header(member)
        if len(shape) != 3 or shape[1] != shape[2] or dtype != np.uint8 or shape[0] != np.prod(self.sizes):
            raise DataError(
                f"{self.path}: expected {np.prod(self.sizes)} images of shape (H, H) in uint8, one for each row of "
                f"labels, got {shape} in {dtype}. {SOURCE.remedy()}"
            )
        return shape

    def _unpacked(self) -> Iterator[np.ndarray]:
        """All images, as bytes `[H, W, 1]`."""
        with (
            reading(self.path, "a whole npz file", SOURCE),
            zipfile.ZipFile(self.path) as archive,
            archive.open("imgs.npy") as member,
        ):
            (count, *size), _ = _header(member)
            white = 0
            for first in range(0, count, _BLOCK):
                shape = (min(_BLOCK, count - first), *size, 1)
                block = np.frombuffer(member.read(math.prod(shape)), np.uint8).reshape(shape)
                # The official images are 0 and 1, the stand-in's have grey edges from 0 to 255.
                white = white or (255 if block.max() <= 1 else 1)
                yield from block * np.uint8(white)
            # The archive's own checksum is compared when the end is reached.
            if member.read():
                raise DataError(f"{self.path}: expected {count} images, got more. {SOURCE.remedy()}")


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
