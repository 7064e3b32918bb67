"""Sequences of transformed digits as a data set and a Lightning data module."""

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Laplace

from torchflowfield import SpikeSlabPrior

from .base import Batch, Part, SequenceData, Sequences, draw_schedule
from .digits import Split, load_digits
from .transforms import FACTORS, render, scheduled_poses, single_factor_poses

__all__ = ["Batch", "DigitSequences", "DigitsData", "Motion", "SequenceData"]

Motion = Literal["single", "spikes", "speeds"]


class DigitSequences(Sequences):
    """Endless sequences of a set of still digits; the same seed and batch size give the same sequences.

    Args:
        images: Still digits `[N, 1, H, W]`.
        motion: `"single"`: one factor moves (FFRL). `"spikes"`: a sparse schedule switches factors on and off at unit
            speed; `"speeds"`: with speeds drawn from a Laplace distribution (STA).
        steps: Frames after the first.
        length: Number of sequences.
        seed: Sequences with another seed differ.
        factor: Move this factor alone, at unit speed, for evaluation.
    """

    def __init__(
        self, images: Tensor, motion: Motion, *, steps: int, length: int, seed: int, factor: int | None = None
    ) -> None:
        super().__init__(steps=steps, length=length, seed=seed)
        self.images, self.motion, self.factor = images, motion, factor
        self.prior = SpikeSlabPrior(len(FACTORS), on=0.1, keep=0.9, slab=Laplace(1.0, 0.1))

    def draw(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """Sequences of random digits, or of one digit after the other where one factor is asked for."""
        count = len(indices)
        images = self.images[torch.randint(len(self.images), (count,), generator=generator)]
        if self.factor is not None:
            images = self.images[indices % len(self.images)]
        factor = torch.randint(len(FACTORS), (count,), generator=generator)
        if self.factor is not None:
            factor = torch.full((count,), self.factor)
        weights = torch.eye(len(FACTORS))[factor][:, None].expand(-1, self.steps, -1)
        if self.motion == "single":
            poses = single_factor_poses(factor, self.steps, generator)
        else:
            if self.factor is None:
                weights, factor = self._schedule(count, generator), torch.full((count,), -1)
            poses = scheduled_poses(weights, generator)
        return Batch(frames=render(images, poses), weights=weights, factor=factor)

    def _schedule(self, count: int, generator: torch.Generator) -> Tensor:
        draw = draw_schedule(self.prior, count, self.steps, generator)
        weights = draw.spikes if self.motion == "spikes" else draw.spikes * draw.slabs.abs().clamp(1e-3, 2)
        return weights.transpose(0, 1)


class DigitsData(SequenceData):
    """Sequences of digits that are scaled, rotated and recoloured; training, validation and test digits differ.

    Args:
        root: Folder with MNIST's IDX files, plain or gzipped; without one, scikit-learn's embedded digits.
        motion: `"single"`, `"spikes"` or `"speeds"`, see `DigitSequences`.
        others: As for `SequenceData`.
    """

    factors = FACTORS

    def __init__(self, root: Path | None = None, *, motion: Motion = "single", **others: Any) -> None:
        super().__init__(root, **others)
        self.motion = motion
        self.split: Split | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read and check the digits."""
        self.split = self.split or load_digits(self.root)

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        self.setup()
        return self.split.name

    @property
    def image_size(self) -> int:
        """Height and width of a frame."""
        self.setup()
        return self.split.test.shape[-1]

    def sequences(self, part: Part, *, seed: int, factor: int | None = None) -> DigitSequences:
        """One sequence per validation or test digit; of training digits, an epoch's."""
        self.setup()
        images = getattr(self.split, part)
        length = self.epoch if part == "train" else len(images)
        return DigitSequences(images, self.motion, steps=self.steps, length=length, seed=seed, factor=factor)
