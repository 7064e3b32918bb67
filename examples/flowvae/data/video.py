"""Snippets of video files and frame folders."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import av
import numpy as np
import torch
from torch import Tensor

from .base import Batch, Part, SequenceData, Sequences
from .files import DataError
from .frames import FRAMES, Crop, as_frames, pack, read_image, shrink

Flips = Literal["none", "horizontal", "both"]
_AXES: dict[Flips, list[int]] = {"none": [], "horizontal": [-1], "both": [-1, -2]}
_VIDEOS, _IMAGES = {".mp4", ".avi", ".mov", ".mkv"}, {".png", ".jpg", ".jpeg"}


class Segment(NamedTuple):
    """Frames from `first` up to but without `stop` of the clip of that number."""

    clip: int
    first: int
    stop: int


class ClipSequences(Sequences):
    """Snippets of clips: random ones, or spread evenly over all that there are.

    Args:
        clips: Frames of every clip, bytes `[N, H, W, 3]`.
        segments: Where snippets may lie; none reaches from one into another.
        stride: Frames of the clip per step.
        spread: Take snippets at even distances instead of random ones.
        flips: Axes along which random snippets are mirrored, every one with probability one half.
        steps: Frames after the first.
        length: Number of sequences.
        seed: Sequences with another seed differ.
    """

    def __init__(
        self, clips: list[np.ndarray], segments: list[Segment], stride: int, *, spread: bool, flips: Flips, steps: int,
        length: int, seed: int,
    ) -> None:  # fmt: skip
        starts = [
            torch.stack((torch.full((count,), s.clip), torch.arange(s.first, s.first + count)), -1)
            for s in segments
            if (count := s.stop - s.first - stride * steps) > 0
        ]
        self.starts = torch.cat(starts) if starts else torch.empty(0, 2, dtype=torch.long)
        super().__init__(steps=steps, length=min(length, len(self.starts)) if spread else length, seed=seed)
        self.clips, self.stride, self.spread = clips, stride, spread
        self.axes = [] if spread else _AXES[flips]

    def draw(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Snippets, whose factors nobody knows."""
        count = len(indices)
        chosen = torch.randint(len(self.starts), (count,), generator=generator)
        if self.spread:
            chosen = indices * len(self.starts) // self.length
        starts = self.starts[chosen]
        offsets = np.arange(self.steps + 1) * self.stride
        frames = np.concatenate([self.clips[clip][first + offsets] for clip, first in starts.tolist()])
        frames = as_frames(frames, frames.shape[1]).unflatten(0, (count, self.steps + 1))
        for axis in self.axes:
            mirrored = torch.rand(count, generator=generator) < 0.5
            frames[mirrored] = frames[mirrored].flip(axis)
        return Batch(
            frames=frames, weights=torch.zeros(count, self.steps, 0), factor=torch.full((count,), -1), start=starts
        )


class VideoData(SequenceData):
    """Snippets of any footage, each clip split by time: the first 80 % for training, then validation, then test.

    Between the parts `gap` frames are left out, so that no frame of one is the immediate neighbour of another's.
    Settings that show the motion at 64×64 pixels: for a mouse in an open field from above at 30 frames a second,
    `crop="whole"`, `stride=5` and `flips="both"`; for a motorway drive at 25 frames a second,
    `crop=(0.2, 0.45, 0.8, 0.98)` (the road), `stride=2` and `flips="horizontal"`.

    Args:
        root: A video file, a folder of frames in the order of their names, or a folder of several of either.
        image_size: Height and width of the frames.
        crop: `"square"`: the largest square in the middle. `"whole"`: everything, stretched to a square. Or the left,
            top, right and bottom edges as shares of width and height.
        stride: Frames per step, counted after `every`.
        every: Keep only every n-th frame of the footage, for very long clips.
        flips: Mirror training snippets at random along these axes: `"none"`, `"horizontal"` or `"both"`. Little footage
            is learnt by heart, unless every motion comes in every direction.
        gap: Frames that are left out between two parts; as many as a snippet spans without a number.
        evaluation: Most sequences of a validation or test loader.
        title: What the data are, for captions; the file's name without one.
        others: As for `SequenceData`.
    """

    def __init__(
        self,
        root: Path | None = None,
        *,
        image_size: int = 64,
        crop: Crop = "square",
        stride: int = 2,
        every: int = 1,
        flips: Flips = "none",
        gap: int | None = None,
        evaluation: int = 512,
        title: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(root, **others)
        for name, value in {"image_size": image_size, "stride": stride, "every": every}.items():
            if value < 1:
                raise ValueError(f"{type(self).__name__}: expected {name} of at least 1, got {value}.")
        if flips not in _AXES:
            raise ValueError(f"{type(self).__name__}: expected flips {', '.join(_AXES)}, got {flips!r}.")
        self.crop, self.stride, self.every, self.evaluation = crop, stride, every, evaluation
        self.flips = flips
        self.title, self._size = title, image_size
        self.gap = stride * self.steps if gap is None else gap
        self.clips: list[np.ndarray] | None = None
        self.parts: dict[Part, list[Segment]] = {}

    def setup(self, stage: str | None = None) -> None:
        """Find the clips, decode them if that has not been done yet, and split them."""
        if self.clips is not None:
            return
        paths = self.find_clips()
        clips = self._decoded(paths)
        self.parts = self.split_clips(paths, [len(clip) for clip in clips])
        for part, segments in self.parts.items():
            if not any(s.stop - s.first > self.stride * self.steps for s in segments):
                longest = max((s.stop - s.first for s in segments), default=0)
                raise DataError(
                    f"{self.root}: expected {self.stride * self.steps + 1} or more frames in a row for {part}, got "
                    f"{longest}. Lower --data.stride, --data.steps or --data.gap, or use longer footage."
                )
        self.clips = clips

    def find_clips(self) -> list[Path]:
        """Paths of the video files or frame folders."""
        if self.root is None:
            raise DataError("VideoData: expected a video file or a folder, got none. Give one as --data.root.")
        return find_clips(Path(self.root))

    def split_clips(self, paths: list[Path], lengths: list[int]) -> dict[Part, list[Segment]]:
        """The frames of every part."""
        parts: dict[Part, list[Segment]] = {"train": [], "val": [], "test": []}
        for clip, frames in enumerate(lengths):
            used = max(0, frames - 2 * self.gap)
            train, val = used * 8 // 10, used // 10
            parts["train"].append(Segment(clip, 0, train))
            parts["val"].append(Segment(clip, train + self.gap, train + self.gap + val))
            parts["test"].append(Segment(clip, train + val + 2 * self.gap, frames))
        return parts

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        return self.title or (Path(self.root).stem if self.root is not None else "video")

    @property
    def image_size(self) -> int:
        """Height and width of a frame."""
        return self._size

    def sequences(self, part: Part, *, seed: int, factor: int | None = None) -> ClipSequences:
        """Random snippets for training, evenly spread ones otherwise."""
        self.setup()
        if factor is not None:
            raise ValueError(f"{type(self).__name__}: expected no factor, as none is known, got {factor}.")
        length = self.epoch if part == "train" else self.evaluation
        return ClipSequences(
            self.clips,
            self.parts[part],
            self.stride,
            spread=part != "train",
            flips=self.flips,
            steps=self.steps,
            length=length,
            seed=seed,
        )

    def _decoded(self, paths: list[Path]) -> list[np.ndarray]:
        recipe = {"crop": self.crop, "size": self._size, "every": self.every, "version": 1}
        clips = {_packed_name(path): self._reader(path) for path in paths}
        return pack(FRAMES, recipe, clips, f"decoding {len(paths)} clips", jobs=2)

    def _reader(self, path: Path) -> Callable[[], Iterator[np.ndarray]]:
        return lambda: read_clip(path, self.crop, self._size, self.every)


def find_clips(root: Path) -> list[Path]:
    """Video files and frame folders at or below a path, in the order of their names.

    Raises:
        DataError: If there are none.
    """
    if root.is_file() and root.suffix.lower() in _VIDEOS:
        return [root]
    if root.is_dir():
        files = sorted(path for path in root.rglob("*") if path.is_file())
        videos = [path for path in files if path.suffix.lower() in _VIDEOS]
        folders = sorted({path.parent for path in files if path.suffix.lower() in _IMAGES})
        if videos or folders:
            return videos or folders
    raise DataError(
        f"{root}: expected a video file ({', '.join(sorted(_VIDEOS))}) or a folder with videos or frames, found none. "
        f"Check --data.root."
    )


def read_clip(path: Path, crop: Crop, size: int, every: int = 1) -> Iterator[np.ndarray]:
    """Small frames `[size, size, 3]` of a video file or a frame folder.

    Raises:
        DataError: If the file is damaged or ends early.
    """
    if path.is_dir():
        images = sorted(p for p in path.iterdir() if p.suffix.lower() in _IMAGES)
        yield from (read_image(image, crop, size) for image in images[::every])
        return
    decoded = 0
    try:
        with av.open(path) as container:
            if not container.streams.video:
                raise DataError(f"{path}: expected a video, got a file without pictures.")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            promised = stream.frames
            for decoded, frame in enumerate(container.decode(stream), 1):
                if (decoded - 1) % every == 0:
                    yield shrink(frame.to_image(), crop, size)
    except (av.FFmpegError, OSError) as error:
        raise DataError(
            f"{path}: expected a whole video file ({error}), read {decoded} frames. Get it again."
        ) from error
    if decoded == 0 or decoded < promised:
        raise DataError(f"{path}: expected {promised} frames, as its header says, got {decoded}. Get the file again.")


def _packed_name(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    state = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    return f"{path.stem}-{hashlib.sha256(repr((str(path.resolve()), state)).encode()).hexdigest()[:12]}.npy"
