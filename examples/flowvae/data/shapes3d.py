"""Shapes3D's HDF5 file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .files import DataError, Source, check_md5, is_stand_in, reading, require
from .grid import FactorGridData
from .grid_images import GridImages, grid_sizes

SOURCE = Source("Shapes3D", "Apache-2.0", "https://github.com/google-deepmind/3d-shapes", stand_in="shapes3d")
MD5 = "099a2078d58cec4daad0702c55d06868"
NAMES = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
OFFICIAL = (10, 10, 10, 8, 4, 15)
# Images that may be in memory at once where they are decoded.
_AT_ONCE = 20_000


class Shapes3DImages(GridImages):
    """Images of a `3dshapes.h5`, read one by one; every process opens the file for itself.

    The images of the official file are too many to be kept decoded, unless many would be read to get one.

    Args:
        path: The file.

    Raises:
        DataError: If the file is missing, damaged, or has other contents.
    """

    names = NAMES

    def __init__(self, path: Path) -> None:
        self.path = require(path, SOURCE)
        self._opened: tuple[int, h5py.File] | None = None
        with self._file() as file:
            self._check(file)
            chunks = file["images"].chunks
        # Images that are read together; in a file without chunks any number.
        self._together = 1 if chunks is None else chunks[0]
        stat = path.stat()
        recipe = {"file": str(path.resolve()), "state": [stat.st_size, stat.st_mtime_ns]}
        self.keep(self._decoded, recipe, "decoding Shapes3D", self.image_size, always=self._together > 16)

    def _read(self, index: np.ndarray) -> np.ndarray:
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), h5py.File(self.path, "r"))
        unique, place = np.unique(index, return_inverse=True)
        with reading(self.path, "a whole HDF5 file", SOURCE):
            images = self._opened[1]["images"]
            found = np.empty((len(unique), *images.shape[1:]), np.uint8)
            for row, number in enumerate(unique):
                images.read_direct(found, np.s_[number], np.s_[row])
        return found[place]

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        with self._file() as file:
            images, at_once = file["images"], max(256, min(self._together, _AT_ONCE))
            for first in range(0, len(images), at_once):
                yield from images[first : first + at_once]

    @contextmanager
    def _file(self) -> Iterator[h5py.File]:
        with reading(self.path, "a whole HDF5 file", SOURCE), h5py.File(self.path, "r") as file:
            yield file

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_opened": None}

    def _check(self, file: h5py.File) -> None:
        if not {"images", "labels"} <= set(file):
            raise DataError(f"{self.path}: expected the keys images and labels, got {sorted(file)}. {SOURCE.remedy()}")
        images, labels = file["images"], file["labels"]
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] != 3 or images.shape[1] != images.shape[2]:
            raise DataError(
                f"{self.path}: expected images of shape (N, H, H, 3) in uint8, got {images.shape} in {images.dtype}."
            )
        if len(images) != len(labels):
            raise DataError(f"{self.path}: expected as many labels as images, got {len(labels)} and {len(images)}.")
        self.sizes = grid_sizes(labels[:], NAMES, self.path)
        self.image_size = images.shape[1]
        # Damage inside compressed data shows only when it is read; a stand-in's checksum covers the rest.
        for number in np.linspace(0, len(images) - 1, 32, dtype=int):
            images[number]


class Shapes3DData(FactorGridData):
    """Sequences of Shapes3D: a solid on a floor before a wall (Burgess and Kim, 2018; Apache-2.0).

    `root` holds `3dshapes.h5` from https://github.com/google-deepmind/3d-shapes, MD5 099a2078d58cec4daad0702c55d06868:
    480,000 images of 64×64 pixels. The three hues go round the colour circle; scale and orientation end. The shape
    never moves. A file of the official size is compared with the checksum unless it has been repacked. Where one image
    cannot be read without many others, all are decoded once, to 5.9 GB on the disk.
    """

    source, official = SOURCE, OFFICIAL
    factors = ("floor_hue", "wall_hue", "object_hue", "scale", "orientation")
    base = ("floor_hue", "wall_hue", "shape")
    periodic = ("floor_hue", "wall_hue", "object_hue")

    def open(self, root: Path) -> Shapes3DImages:
        """Check `3dshapes.h5`."""
        path = root / "3dshapes.h5" if root.suffix != ".h5" else root
        images = Shapes3DImages(path)
        with h5py.File(path, "r") as file:
            repacked = file["images"].chunks is not None and file["images"].chunks[0] == 1
        if images.sizes == OFFICIAL and not repacked and not is_stand_in(root):
            check_md5(path, MD5, SOURCE)
        return images
