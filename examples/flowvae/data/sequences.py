"""Sequences of transformed digits as a data set and a Lightning data module."""

from pathlib import Path
from typing import Literal, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.distributions import Laplace
from torch.utils.data import DataLoader, Dataset

from torchflowfield import SpikeSlabPrior

from .digits import Split, load_digits
from .transforms import FACTORS, render, scheduled_poses, single_factor_poses

Motion = Literal["single", "spikes", "speeds"]


class Batch(TypedDict):
    """Sequences of one batch: `frames [B, T+1, 3, H, W]`; true coefficients `weights [B, T, 3]`; what moved."""

    frames: Tensor
    weights: Tensor
    factor: Tensor


class DigitSequences(Dataset):
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
        self.images, self.motion, self.steps, self.length = images, motion, steps, length
        self.seed, self.factor = seed, factor
        self.prior = SpikeSlabPrior(len(FACTORS), on=0.1, keep=0.9, slab=Laplace(1.0, 0.1))

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(**{key: value[0] for key, value in batch.items()})  # type: ignore[typeddict-item]

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once, which is how the loader asks: rendering it together is several times faster."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + indices[0])
        count = len(indices)
        images = self.images[torch.randint(len(self.images), (count,), generator=generator)]
        if self.factor is not None:
            images = self.images[torch.as_tensor(indices) % len(self.images)]
        factor = torch.randint(len(FACTORS), (count,), generator=generator)
        if self.factor is not None:
            factor = torch.full((count,), self.factor)
        weights = torch.eye(len(FACTORS))[factor][:, None].expand(-1, self.steps, -1)
        if self.motion == "single":
            poses = single_factor_poses(factor, self.steps, generator)
        else:
            if self.factor is None:
                weights = self._schedule(count, generator)
            poses = scheduled_poses(weights, generator)
        return Batch(frames=render(images, poses), weights=weights, factor=factor)

    def _schedule(self, count: int, generator: torch.Generator) -> Tensor:
        # The prior draws from the global generator, which is left as it was found.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            draw = self.prior.sample((count,), self.steps)
        weights = draw.spikes if self.motion == "spikes" else draw.spikes * draw.slabs.abs().clamp(1e-3, 2)
        return weights.transpose(0, 1)


class DigitsData(LightningDataModule):
    """Sequences of digits that are scaled, rotated and recoloured.

    Args:
        root: Folder with MNIST's IDX files, plain or gzipped; without one, scikit-learn's embedded digits.
        motion: `"single"`, `"spikes"` or `"speeds"`, see `DigitSequences`.
        steps: Frames after the first.
        batch_size: Sequences per batch.
        epoch: Training sequences per epoch; every epoch has new ones.
        workers: Loader processes.
        seed: Seed of the training sequences. Validation and test sequences are always the same.
    """

    def __init__(
        self,
        root: Path | None = None,
        motion: Motion = "single",
        steps: int = 5,
        batch_size: int = 128,
        epoch: int = 25_600,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.root, self.motion, self.steps = root, motion, steps
        self.batch_size, self.epoch, self.workers, self.seed = batch_size, epoch, workers, seed
        self.split: Split | None = None

    def setup(self, stage: str | None = None) -> None:
        """Read and check the digits."""
        self.split = self.split or load_digits(self.root)

    @property
    def name(self) -> str:
        """What the data are, for captions."""
        self.setup()
        return self.split.name

    def train_dataloader(self) -> DataLoader:
        """New sequences every epoch (with `reload_dataloaders_every_n_epochs=1`)."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        seed = 1 + self.seed * 1000 + epoch
        return self._loader(
            DigitSequences(self.split.train, self.motion, steps=self.steps, length=self.epoch, seed=seed)
        )

    def val_dataloader(self) -> DataLoader:
        """One sequence per validation digit."""
        images = self.split.val
        return self._loader(DigitSequences(images, self.motion, steps=self.steps, length=len(images), seed=-1))

    def test_dataloader(self) -> list[DataLoader]:
        """Sequences of the test digits: one loader per factor, and one of the training motion."""
        images = self.split.test
        shared = {"steps": self.steps, "length": len(images)}
        loaders = [
            self._loader(DigitSequences(images, self.motion, seed=-2 - k, factor=k, **shared))
            for k in range(len(FACTORS))
        ]
        return [*loaders, self._loader(DigitSequences(images, self.motion, seed=-9, **shared))]

    def _loader(self, data: DigitSequences) -> DataLoader:
        return DataLoader(
            data,
            self.batch_size,
            num_workers=self.workers,
            persistent_workers=False,
            collate_fn=_as_is,
        )


def _as_is(batch: Batch) -> Batch:
    return batch
