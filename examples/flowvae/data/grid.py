"""Data sets whose images are a full grid of factor values, and sequences that walk on the grid."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from torchflowfield import SpikeSlabPrior

from .base import Batch, Part, SequenceData, Sequences, draw_schedule
from .files import DataError, is_stand_in
from .frames import as_frames
from .grid_images import GridImages
from .split import GridSplit

_TRIES = 1000


class GridSequences(Sequences):
    """Sequences that walk on a grid of factor values within one part of it.

    Args:
        images: The images.
        split: Which part of the grid a frame belongs to.
        strides: Grid values per step of every moving factor, in the order of `split.moving`.
        motion: `"single"`: one factor moves, the others rest at values that are drawn first (FFRL). `"spikes"`: a
            sparse schedule switches factors on and off, several at once (STA); schedules without room on the grid are
            drawn again.
        part: Part of the data.
        image_size: Frames are brought to this size.
        steps: Frames after the first.
        length: Number of sequences.
        seed: Sequences with another seed differ.
        factor: Move this factor alone, for evaluation.
    """

    def __init__(
        self,
        images: GridImages,
        split: GridSplit,
        strides: list[int],
        motion: Literal["single", "spikes"],
        part: Part,
        *,
        image_size: int,
        steps: int,
        length: int,
        seed: int,
        factor: int | None = None,
    ) -> None:
        super().__init__(steps=steps, length=length, seed=seed)
        self.images, self.split, self.strides, self.motion, self.part = images, split, strides, motion, part
        self.image_size, self.factor = image_size, factor
        self.prior = SpikeSlabPrior(len(strides), on=0.1, keep=0.9, slab=None)

    def draw(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Sequences of random bases."""
        count, moving = len(indices), len(self.strides)
        factor = torch.randint(moving, (count,), generator=generator)
        if self.factor is not None:
            factor = torch.full((count,), self.factor)
        weights = torch.eye(moving)[factor][:, None].repeat(1, self.steps, 1)
        starts = torch.full((count, len(self.images.sizes)), -1)
        for _ in range(_TRIES):
            pending = (starts < 0).any(-1)
            if not pending.any():
                break
            if self.motion == "spikes" and self.factor is None:
                draw = draw_schedule(self.prior, int(pending.sum()), self.steps, generator)
                weights[pending] = draw.spikes.transpose(0, 1).to(weights.dtype)
            starts[pending] = self.split.starts(self._moves(weights[pending]), self.part, generator)
        else:
            raise DataError(
                f"{self.split.title}: expected room for {self.steps} steps, found none. Lower --data.steps."
            )
        if self.motion == "spikes" and self.factor is None:
            factor = torch.full((count,), -1)
        values = self.split.visited(starts, self._moves(weights))
        index = np.ravel_multi_index(tuple(values.flatten(0, 1).numpy().T), self.images.sizes)
        frames = as_frames(self.images.read(index), self.image_size)
        return Batch(frames=frames.unflatten(0, values.shape[:2]), weights=weights, factor=factor)

    def _moves(self, weights: Tensor) -> Tensor:
        moves = torch.zeros(len(weights), self.steps + 1, len(self.images.sizes), dtype=torch.long)
        moves[:, 1:, self.split.moving] = (weights.long() * torch.tensor(self.strides)).cumsum(1)
        return moves


class FactorGridData(SequenceData):
    """Sequences of a data set whose images are a full grid of factor values, split as `GridSplit` says.

    Args:
        root: Folder with the official files; without one, a stand-in that is made when it is first needed.
        motion: `"single"` or `"spikes"`, see `GridSequences`.
        image_size: Bring frames to this size; their own without one.
        evaluation: Sequences of every validation and test loader.
        others: As for `SequenceData`.
    """

    base: ClassVar[tuple[str, ...]]
    periodic: ClassVar[tuple[str, ...]] = ()
    strides: ClassVar[dict[str, int]] = {}
    official: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        root: Path | None = None,
        *,
        motion: Literal["single", "spikes"] = "single",
        image_size: int | None = None,
        evaluation: int = 512,
        **others: Any,
    ) -> None:
        super().__init__(root, **others)
        self.motion, self.evaluation, self._size = motion, evaluation, image_size
        self.images: GridImages | None = None
        self.split: GridSplit | None = None

    @abstractmethod
    def open(self, root: Path) -> GridImages:
        """Check the files and give access to the images."""

    def setup(self, stage: str | None = None) -> None:
        """Check the files and split the grid."""
        if self.images is not None:
            return
        root = self._checked_folder()
        images = self.open(root)
        strides = [self.strides.get(name, 1) for name in self.factors]
        index = {name: k for k, name in enumerate(images.names)}
        for name, stride in zip(self.factors, strides, strict=True):
            values = images.sizes[index[name]]
            if name not in self.periodic and self.steps * stride >= values:
                raise DataError(
                    f"{self.source.title}: expected at most {(values - 1) // stride} steps for the {values} values of "
                    f"{name}, got {self.steps}. Lower --data.steps."
                )
        self.split = GridSplit(
            images.sizes,
            base=[index[name] for name in self.base],
            moving=[index[name] for name in self.factors],
            periodic=[index[name] for name in self.periodic],
            title=self.source.title,
        )
        self._check_room(strides, images.sizes)
        self.images = images

    def _check_room(self, strides: list[int], sizes: tuple[int, ...]) -> None:
        for k, name in enumerate(self.factors):
            moves = torch.zeros(1, self.steps + 1, len(sizes), dtype=torch.long)
            moves[0, :, self.split.moving[k]] = strides[k] * torch.arange(self.steps + 1)
            for part in ("train", "val", "test"):
                if bool((self.split.starts(moves, part, torch.Generator()) < 0).any()):
                    raise DataError(
                        f"{self.source.title}: expected room for {self.steps} steps of {name} in the {part} part, "
                        f"none. Lower --data.steps or use a larger grid."
                    )

    @property
    def name(self) -> str:
        """What the data are, for captions: the official ones, a stand-in, or another grid in the same format."""
        self.setup()
        title, count = self.source.title, int(np.prod(self.images.sizes))
        if is_stand_in(self._folder()):
            return f"stand-in for {title} ({count:,} images)"
        return title if self.images.sizes == self.official else f"{count:,} images in {title}'s format"

    @property
    def image_size(self) -> int:
        """Height and width of a frame."""
        self.setup()
        return self._size or self.images.image_size

    def sequences(self, part: Part, *, seed: int, factor: int | None = None) -> GridSequences:
        """Sequences that stay in a part of the grid."""
        self.setup()
        strides = [self.strides.get(name, 1) for name in self.factors]
        length = self.epoch if part == "train" else self.evaluation
        return GridSequences(
            self.images, self.split, strides, self.motion, part, image_size=self.image_size,
            steps=self.steps, length=length, seed=seed, factor=factor,
        )  # fmt: skip
