"""Falcor3D and Isaac3D: folders of numbered PNG files with an array of labels."""

import hashlib
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from .cache import Cache
from .files import DataError, Source, reading, require
from .frames import FRAMES, as_rgb, open_image
from .grid import FactorGridData
from .grid_images import GridImages, grid_sizes

_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
# A note is made when so many files have been read, so that a check that was stopped goes on from there.
_NOTED = 4096


class FolderImages(GridImages):
    """Images `NNNNNN.png` of a folder, in the order of the rows of the labels.

    Every file is read whole before training starts, with the checksums that it brings: few images are decoded, many
    are looked into, once.

    Args:
        folder: Folder with the images.
        labels: File with the factor values, `[N, F]`, as `numpy.load` reads it.
        names: Names of the factors.
        source: Where the data come from, for errors.
        size: Size at which few images are kept; their own without one.

    Raises:
        DataError: If a file is missing, damaged, of another size than the first, or too many.
    """

    def __init__(
        self, folder: Path, labels: Path, names: tuple[str, ...], source: Source, size: int | None = None
    ) -> None:
        self.folder, self.names, self.source = require(folder, source), names, source
        self.sizes = grid_sizes(_load_labels(require(labels, source), source), names, labels)
        count = int(np.prod(self.sizes))
        self.paths = self._named(count)
        recipe = {"folder": str(folder.resolve())}
        with open_image(self.paths[0]) as image:
            self._pixels = image.size
        if self._pixels[0] != self._pixels[1]:
            raise DataError(f"{folder}: expected square images, got {self._pixels[0]}×{self._pixels[1]} pixels.")
        self.image_size = self._pixels[0]
        parts = {first: self.paths[first : first + _NOTED] for first in range(0, count, _NOTED)}
        states = {first: _state(paths) for first, paths in parts.items()}
        state = {"state": [_state([labels]), *states.values()]}
        self.keep(self._decoded, recipe | state, f"reading {source.title}", size or self.image_size)
        if self._kept is None:
            notes = {f"whole-{n:06}-{states[n]}.txt": self._checker(paths) for n, paths in parts.items()}
            checked = Cache(FRAMES / Cache(FRAMES, recipe).fingerprint, recipe)
            checked.ensure_all(notes, f"looking into {count:,} files", jobs=4)

    def _read(self, index: np.ndarray) -> np.ndarray:
        return np.stack([self._decode(self.paths[number], self.image_size) for number in index])

    def _decoded(self, size: int) -> Iterator[np.ndarray]:
        return (self._decode(path, size) for path in self.paths)

    def _decode(self, path: Path, size: int) -> np.ndarray:
        with reading(path, "a whole PNG file", self.source), Image.open(io.BytesIO(self._whole(path))) as image:
            image = as_rgb(image)
        return np.asarray(image if image.size == (size, size) else image.resize((size, size), Image.Resampling.BOX))

    def _named(self, count: int) -> list[Path]:
        found = {path.name for path in self.folder.glob("*.png")}
        paths = [self.folder / f"{number:06}.png" for number in range(count)]
        missing = [path.name for path in paths if path.name not in found]
        if missing or len(found) != count:
            raise DataError(
                f"{self.folder}: expected {count} files from 000000.png on, as many as rows of labels, got "
                f"{len(found)}; missing: {', '.join(missing[:3]) or 'none'}. {self.source.remedy()}"
            )
        return paths

    def _checker(self, paths: list[Path]) -> Callable[[Path], None]:
        def check(note: Path) -> None:
            for path in paths:
                self._whole(path)
            note.write_text(f"{len(paths)} whole files of {self._pixels[0]} pixels\n")

        return check

    def _whole(self, path: Path) -> bytes:
        """Content of a file that is whole and of the size of the first."""
        content = path.read_bytes()
        if not _is_whole_png(content):
            raise DataError(f"{path}: expected a whole PNG file, got a damaged one. {self.source.remedy()}")
        size = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
        if size != self._pixels:
            raise DataError(
                f"{path}: expected {self._pixels[0]}×{self._pixels[1]} pixels, as in {self.paths[0].name}, got "
                f"{size[0]}×{size[1]}. {self.source.remedy()}"
            )
        return content


def _is_whole_png(content: bytes) -> bool:
    """Whether a file's chunks have the checksums that they state, and it ends with the last of them."""
    kind, start = b"", 8
    while content.startswith(_START) and start < len(content):
        kind, stop = content[start + 4 : start + 8], start + 8 + int.from_bytes(content[start : start + 4], "big")
        if zlib.crc32(content[start + 4 : stop]) != int.from_bytes(content[stop : stop + 4], "big"):
            return False
        start = stop + 4
    return kind == b"IEND" and start == len(content)


def _state(paths: list[Path]) -> str:
    """A hash of the sizes and times of files, another one when any of them changes."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{stat.st_size} {stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _load_labels(path: Path, source: Source) -> np.ndarray:
    with reading(path, "an array that numpy.load reads", source):
        labels = np.load(path)
    if not isinstance(labels, np.ndarray):
        raise DataError(f"{path}: expected one array, got an archive of several. {source.remedy()}")
    return labels


class _FolderData(FactorGridData):
    folder: ClassVar[str]
    labels: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    def open(self, root: Path) -> FolderImages:
        """Check the images and the labels."""
        inside = root / self.folder
        folder = root if not inside.is_dir() and (root / "images").is_dir() else inside
        return FolderImages(folder / "images", folder / self.labels, self.names, self.source, self._size)


class Falcor3DData(_FolderData):
    """Sequences of Falcor3D: a living room under changing light and viewpoint (Nie et al., 2020; CC BY 4.0).

    `root` holds `Falcor3D_down128/` with `images/NNNNNN.png` and `train-rec.labels`: 233,280 images of 128×128 pixels,
    from https://github.com/NVlabs/High-res-disentanglement-datasets; no checksum but those in the files is known. All
    seven factors move, and all end. What is held out are settings of the lamp: a decoder has no way to know a viewpoint
    that it never saw.
    """

    source = Source(
        "Falcor3D", "CC BY 4.0", "https://github.com/NVlabs/High-res-disentanglement-datasets", stand_in="falcor3d"
    )
    folder, labels = "Falcor3D_down128", "train-rec.labels"
    names = factors = (
        "lighting_intensity", "lighting_x", "lighting_y", "lighting_z", "camera_x", "camera_y", "camera_z",
    )  # fmt: skip
    base = ("lighting_intensity", "lighting_x", "lighting_y", "lighting_z")
    official = (5, 6, 6, 6, 6, 6, 6)


class Isaac3DData(_FolderData):
    """Sequences of Isaac3D: a robot arm holds an object in a kitchen (Nie et al., 2020; CC BY 4.0).

    `root` holds `Isaac3D_down128/` with `images/NNNNNN.png` and `labels.npy`: 737,280 images of 128×128 pixels, from
    https://github.com/NVlabs/High-res-disentanglement-datasets; no checksum but those in the files is known. All
    factors move but the object's shape, and all end.
    """

    source = Source(
        "Isaac3D", "CC BY 4.0", "https://github.com/NVlabs/High-res-disentanglement-datasets", stand_in="isaac3d"
    )
    folder, labels = "Isaac3D_down128", "labels.npy"
    names = (
        "object_shape", "robot_x", "robot_y", "camera_height", "object_scale",
        "lighting_intensity", "lighting_y", "object_color", "wall_color",
    )  # fmt: skip
    factors = names[1:]
    base = ("object_shape", "lighting_y", "object_color", "wall_color")
    official = (3, 8, 5, 4, 4, 4, 6, 4, 4)
