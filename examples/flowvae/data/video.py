"""Snippets of video files and frame folders."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .base import Batch, Part, SequenceData, Sequences
from .clips import find_clips, packed_name, read_clip
from .egocentric import egocentric
from .files import DataError, title_of
from .frames import FRAMES, Crop, PackedFrames, as_frames, pack

Flips = Literal["none", "horizontal", "both"]
_AXES: dict[Flips, list[int]] = {"none": [], "horizontal": [-1], "both": [-1, -2]}


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
        backgrounds: Picture that is taken away from every clip's frames, `[H, W, 3]`; without them nothing is.
        cut: Show snippets in coordinates of what moves, see `egocentric`, as pictures of this size; 0 does not.
    """

    def __init__(
        self, clips: Sequence[np.ndarray | PackedFrames], segments: list[Segment], stride: int, *, spread: bool,
        flips: Flips, steps: int,
        length: int, seed: int, backgrounds: list[np.ndarray] | None = None, cut: int = 0,
    ) -> None:  # fmt: skip
        starts = [
            torch.stack((torch.full((count,), s.clip), torch.arange(s.first, s.first + count)), -1)
            for s in segments
            if (count := s.stop - s.first - stride * steps) > 0
        ]
        self.starts = torch.cat(starts) if starts else torch.empty(0, 2, dtype=torch.long)
        super().__init__(steps=steps, length=min(length, len(self.starts)) if spread else length, seed=seed)
        self.clips, self.stride, self.spread, self.backgrounds = clips, stride, spread, backgrounds
        self.axes = [] if spread else _AXES[flips]
        self.cut = cut

    def draw(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Snippets, whose factors nobody knows."""
        count = len(indices)
        chosen = torch.randint(len(self.starts), (count,), generator=generator)
        if self.spread:
            chosen = indices * len(self.starts) // self.length
        starts = self.starts[chosen]
        numbers = starts[:, 1:] + self.stride * torch.arange(self.steps + 1)
        if self.cut:
            numbers = torch.cat((self._around(chosen, generator)[:, 1:], numbers), -1)
        snippets = zip(starts[:, 0].tolist(), numbers.numpy(), strict=True)
        frames = np.concatenate([self._snippet(clip, shown) for clip, shown in snippets])
        frames = as_frames(frames, frames.shape[1]).unflatten(0, numbers.shape)
        for axis in self.axes:
            mirrored = torch.rand(count, generator=generator) < 0.5
            frames[mirrored] = frames[mirrored].flip(axis)
        if self.cut:
            frames = egocentric(frames[:, 1:], frames[:, 0], self.cut)
        return Batch(
            frames=frames, weights=torch.zeros(count, self.steps, 0), factor=torch.full((count,), -1), start=starts
        )

    def _around(self, chosen: Tensor, generator: torch.Generator) -> Tensor:
        """Clip and frame that snippets are seen from: their start, of random ones any up to a snippet's length away.

        A model that encodes first frames alone then meets the places and headings that later frames show.
        """
        if self.spread:
            return self.starts[chosen]
        away = self.stride * torch.randint(-self.steps, self.steps + 1, chosen.shape, generator=generator)
        around = self.starts[(chosen + away).clamp(0, len(self.starts) - 1)]
        # Starts of one segment are consecutive; snippets near its ends are more often seen from their own.
        same = (around - self.starts[chosen] == torch.stack((0 * away, away), -1)).all(-1, keepdim=True)
        return torch.where(same, around, self.starts[chosen])

    def _snippet(self, clip: int, numbers: np.ndarray) -> np.ndarray:
        frames = self.clips[clip][numbers]
        if self.backgrounds is None:
            return frames
        background = self.backgrounds[clip]
        return np.maximum(frames, background) - np.minimum(frames, background)


class VideoData(SequenceData):
    """Snippets of any footage, each clip split by time: the first 80 % for training, then validation, then test.

    Between the parts `gap` frames are left out, so that no frame of one is the immediate neighbour of another's.
    Settings that show the motion at 64×64 pixels: for a mouse in an open field from above at 30 frames a second,
    `crop="padded"`, `stride=5`, `flips="both"`, `background="remove"` and `egocentric=2`; for a motorway drive at 25
    frames a second, `crop=(0.2, 0.45, 0.8, 0.98)` (the road), `stride=2` and `flips="horizontal"`.

    Args:
        root: A video file, a folder of frames in the order of their names, or a folder of several of either.
        image_size: Height and width of the frames.
        crop: `"square"`: the largest square in the middle. `"whole"`: everything, stretched to a square. `"padded"`:
            everything, made a square by black bars. Or the left, top, right and bottom edges as shares of width and
            height.
        stride: Frames per step, counted after `every`.
        every: Keep only every n-th frame of the footage, for very long clips.
        flips: Mirror training snippets at random along these axes: `"none"`, `"horizontal"` or `"both"`. Little footage
            is learnt by heart, unless every motion comes in every direction.
        background: `"keep"`, or `"remove"` for a camera at rest: frames then show how much they differ from the median
            of their clip's training part, or of the whole clip if it has none. What moves is left, on black.
        egocentric: Show every snippet in coordinates of what moves: in the middle of its first frame, of training
            snippets of any frame about that time, and there heading to the right, this many times larger than without;
            0 shows what was filmed. For animals from above, of which little footage shows few places and headings, and
            whose motion is then one ahead or a turn, wherever they are. Take a `crop` that stretches nothing; one axis
            of `flips` does as well as both.
        camera: Whether it `"rests"` or `"moves"`, which says what can be measured in the frames.
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
        background: Literal["keep", "remove"] = "keep",
        egocentric: float = 0.0,
        camera: Literal["rests", "moves"] = "rests",
        gap: int | None = None,
        evaluation: int = 512,
        title: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(root, **others)
        least = {"image_size": (image_size, 1), "stride": (stride, 1), "every": (every, 1), "gap": (gap or 0, 0)}
        for name, (value, lowest) in least.items():
            if value < lowest:
                raise ValueError(f"{type(self).__name__}: expected {name} of at least {lowest}, got {value}.")
        if flips not in _AXES:
            raise ValueError(f"{type(self).__name__}: expected flips {', '.join(_AXES)}, got {flips!r}.")
        self.crop, self.stride, self.every, self.evaluation = crop, stride, every, evaluation
        if background not in ("keep", "remove"):
            raise ValueError(f"{type(self).__name__}: expected background keep or remove, got {background!r}.")
        if background == "remove" and camera == "moves":
            raise ValueError(f"{type(self).__name__}: expected background='keep', as the camera moves, got 'remove'.")
        if egocentric and camera == "moves":
            raise ValueError(f"{type(self).__name__}: expected egocentric=0, as the camera moves, got {egocentric}.")
        if egocentric and (egocentric < 1 or background != "remove"):
            raise ValueError(
                f"{type(self).__name__}: expected egocentric of 0, or of at least 1 with background='remove', got "
                f"egocentric={egocentric} and background={background!r}."
            )
        self.flips, self.background, self.camera, self.egocentric = flips, background, camera, egocentric
        self.backgrounds: list[np.ndarray] | None = None
        self.title, self._size = title, image_size
        self.gap = stride * self.steps if gap is None else gap
        self.clips: list[PackedFrames] | None = None
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
        if self.background == "remove":
            trained = {segment.clip: segment for segment in self.parts["train"]}
            self.backgrounds = [_median(clip, trained.get(number)) for number, clip in enumerate(clips)]
        self.clips = clips

    def find_clips(self) -> list[Path]:
        """Paths of the video files or frame folders."""
        if self.root is None:
            raise DataError("VideoData: expected a video file or a folder, got none. Give one as --data.root.")
        return find_clips(self.root)

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
        return self.describe(self.title or (title_of(self.root) if self.root is not None else "video"))

    def describe(self, name: str) -> str:
        """A name with what was done to the frames."""
        done = ["background removed"] * (self.background == "remove") + ["egocentric"] * bool(self.egocentric)
        return ", ".join([name, *done])

    @property
    def image_size(self) -> int:
        """Height and width of a frame."""
        return self._size

    def sequences(self, part: Part, *, seed: int, factor: int | None = None) -> ClipSequences:
        """Random snippets for training, evenly spread ones otherwise."""
        self.setup()
        if factor is not None:
            raise ValueError(f"{type(self).__name__}: expected no factor, as none is known, got {factor}.")
        random = part == "train"
        return self._clip_sequences(part, self.epoch if random else self.evaluation, seed, spread=not random)

    def filmed_order(self, total: int = 512) -> dict[Part, DataLoader]:
        """Snippets of every part in the order in which it was filmed, at even distances, about `total` in all.

        Loaders by part. They show the frames as they are, of training, too.
        """
        self.setup()
        frames = {part: sum(s.stop - s.first for s in segments) for part, segments in self.parts.items()}
        lengths = {part: max(1, round(total * count / sum(frames.values()))) for part, count in frames.items()}
        return {part: self._load(self._clip_sequences(part, n, 0, spread=True)) for part, n in lengths.items()}

    def _clip_sequences(self, part: Part, length: int, seed: int, *, spread: bool) -> ClipSequences:
        return ClipSequences(
            self.clips,
            self.parts[part],
            self.stride,
            spread=spread,
            flips=self.flips,
            steps=self.steps,
            length=length,
            seed=seed,
            backgrounds=self.backgrounds,
            cut=self._size if self.egocentric else 0,
        )

    def _decoded(self, paths: list[Path]) -> list[PackedFrames]:
        recipe = {"crop": self.crop, "size": self._filmed, "every": self.every, "version": 2}
        clips = {packed_name(path): self._reader(path) for path in paths}
        return pack(FRAMES, recipe, clips, f"decoding {len(paths)} clips", jobs=2)

    def _reader(self, path: Path) -> Callable[[], Iterator[np.ndarray]]:
        return lambda: read_clip(path, self.crop, self._filmed, self.every)

    @property
    def _filmed(self) -> int:
        """Height and width of the frames as they are kept."""
        return round(self._size * (self.egocentric or 1))


def _median(clip: PackedFrames, trained: Segment | None) -> np.ndarray:
    """Median of up to 300 frames of the part for training, or of the whole clip if it has none."""
    numbers = np.arange(len(clip)) if trained is None else np.arange(trained.first, trained.stop)
    if not len(numbers):
        numbers = np.arange(len(clip))
    some = np.linspace(0, len(numbers) - 1, min(300, len(numbers))).astype(int)
    return np.median(clip[numbers[some]], 0).astype(np.uint8)
