"""Small frames of large files, decoded once and kept where all processes can share them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from .cache import Cache
from .files import DataError

FRAMES = Path("data/frames")
"""Where decoded frames are kept."""

PACKED_BYTES = 2 << 30
"""Images of a grid of up to this size are decoded once and kept."""

Crop = Literal["square", "whole", "padded"] | tuple[float, float, float, float]
"""The largest square in the middle; all, stretched to a square or with bars; or left, top, right, bottom as shares."""


def crop_box(crop: Crop, width: int, height: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a crop in pixels.

    Raises:
        ValueError: If the crop is empty or leaves the frame.
    """
    if crop == "whole":
        return 0.0, 0.0, float(width), float(height)
    if crop == "square":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side
    left, top, right, bottom = crop
    if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
        raise ValueError(f"crop: expected left < right and top < bottom from 0 to 1, got {crop}. Set --data.crop.")
    return left * width, top * height, right * width, bottom * height


def shrink(image: Image.Image, crop: Crop, size: int) -> np.ndarray:
    """A crop of an image as bytes `[size, size, 3]`, filtered so that nothing aliases."""
    image = as_rgb(image)
    if crop == "padded":
        return np.asarray(ImageOps.pad(image, (size, size), Image.Resampling.BILINEAR))
    box = crop_box(crop, *image.size)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=box, reducing_gap=3))


def as_rgb(image: Image.Image) -> Image.Image:
    """An image with three channels of eight bits; sixteen, which Pillow would clip, are scaled."""
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def read_image(path: Path, crop: Crop, size: int, *, expected: tuple[int, int] | None = None) -> np.ndarray:
    """`shrink` of an image file.

    Raises:
        DataError: If the file is damaged, or not of the width and height that are expected.
    """
    with open_image(path) as image:
        if expected is not None and image.size != expected:
            raise DataError(
                f"{path}: expected {expected[0]}×{expected[1]} pixels, as the first frame has, got "
                f"{image.size[0]}×{image.size[1]}. Get the file again."
            )
        return shrink(image, crop, size)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """An image file, read inside.

    Raises:
        DataError: If the file turns out to be damaged.
    """
    try:
        with Image.open(path) as image:
            yield image
    except (OSError, SyntaxError) as error:  # the latter for a PNG with a broken chunk
        raise DataError(f"{path}: expected a whole image file ({error}). Get it again.") from error


class PackedFrames:
    """Frames of a clip, bytes `[N, H, W, 3]`, mapped into memory when they are read.

    A process keeps few files open, however many clips there are, and another process gets no copy of the frames.

    Args:
        path: The file, as `pack` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.inode = path.resolve(), path.stat().st_ino
        self.shape: tuple[int, ...] = np.load(path, mmap_mode="r").shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, numbers: Any) -> np.ndarray:
        return _mapped(self.path, self.inode)[numbers]


@lru_cache(maxsize=64)
def _mapped(path: Path, inode: int) -> np.ndarray:
    if path.stat().st_ino != inode:
        raise DataError(f"{path}: expected the frames that were there at first, found others. Begin again.")
    return np.load(path, mmap_mode="r")


def pack(
    folder: Path, recipe: dict, clips: dict[str, Callable[[], Iterable[np.ndarray]]], title: str, *, jobs: int = 1
) -> list[PackedFrames]:
    """Frames of clips, `[N, size, size, 3]` bytes each, decoded if that has not been done yet.

    Args:
        folder: Where the files are kept, below a folder of their own.
        recipe: What the frames depend on.
        clips: Name of the file, ending in `.npy`, and source of the frames of every clip.
        title: What the progress bar shows.
        jobs: Threads that decode.
    """
    cache = Cache(folder / Cache(folder, recipe).fingerprint, recipe)

    def maker(frames: Callable[[], Iterable[np.ndarray]]) -> Callable[[Path], None]:
        return lambda path: _save(path, frames())

    paths = cache.ensure_all({name: maker(frames) for name, frames in clips.items()}, title, jobs=jobs)
    return [PackedFrames(path) for path in paths]


def _save(path: Path, frames: Iterable[np.ndarray]) -> None:
    """What `np.save` writes of all frames together, but with one frame in memory at a time."""
    count = 0
    with path.open("wb") as stream:
        for frame in frames:
            if not count:
                header = {"descr": np.lib.format.dtype_to_descr(frame.dtype), "fortran_order": False}
                np.lib.format.write_array_header_1_0(stream, {**header, "shape": (0, *frame.shape)})
                first = frame
            if (frame.shape, frame.dtype) != (first.shape, first.dtype):
                raise DataError(
                    f"{path.name}: expected frames of shape {first.shape} in {first.dtype}, as the first one, got "
                    f"{frame.shape} in {frame.dtype} as number {count}. Get the files again."
                )
            stream.write(np.ascontiguousarray(frame).data)
            count += 1
        if not count:
            raise DataError(f"{path.name}: expected frames, found none. The footage is empty; get it again.")
        # NumPy pads the header, so that the first axis may grow in place.
        stream.seek(0)
        np.lib.format.write_array_header_1_0(stream, {**header, "shape": (count, *first.shape)})


def as_frames(images: np.ndarray, size: int) -> Tensor:
    """Bytes `[N, H, W, C]` as frames `[N, 3, size, size]` in [0, 1], each pixel the mean of what it covers."""
    # Rearranged as bytes, which are a quarter as many as floats.
    frames = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).contiguous().float().div_(255)
    if frames.shape[-1] != size:
        if frames.shape[-1] % size == 0:
            frames = F.adaptive_avg_pool2d(frames, size)
        else:
            frames = F.interpolate(frames, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
    return frames.expand(-1, 3, -1, -1).contiguous()
