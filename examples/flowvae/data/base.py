"""What all data sets of sequences have in common: the batches, the loaders, and what is known about them."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Literal, NotRequired, TypedDict

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from torchflowfield import SpikeSlabPrior

from .files import Source, check_stand_in

Part = Literal["train", "val", "test"]
_EVALUATED = 128


class Batch(TypedDict):
    """Sequences of one batch.

    `frames [B, T+1, 3, H, W]` in [0, 1]; the true coefficients `weights [B, T, K]` of the K factors, with K = 0 for
    data without known ones; the `factor [B]` that moves, −1 where none is known or several may; and, of clips, the
    `start [B, 2]`: number of the clip and of its frame.
    """

    frames: Tensor
    weights: Tensor
    factor: Tensor
    start: NotRequired[Tensor]


class Sequences(Dataset, ABC):
    """A fixed number of sequences; the same seed and batch size give the same sequences, with any number of workers.

    Args:
        steps: Frames after the first.
        length: Number of sequences.
        seed: Sequences with another seed differ.
    """

    def __init__(self, *, steps: int, length: int, seed: int) -> None:
        self.steps, self.length, self.seed = steps, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Batch:
        batch = self.__getitems__([index])
        return Batch(**{key: value[0] for key, value in batch.items()})  # type: ignore[typeddict-item]

    def __getitems__(self, indices: list[int]) -> Batch:
        """A whole batch at once, which is how the loader asks: making it together is several times faster."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + indices[0])
        return self.draw(torch.as_tensor(indices), generator)

    @abstractmethod
    def draw(self, indices: Tensor, generator: torch.Generator) -> Batch:
        """The sequences of the given numbers; all randomness comes from `generator`."""


def draw_schedule(prior: SpikeSlabPrior, count: int, steps: int, generator: torch.Generator):
    """Spikes and slabs `[steps, count, K]` of a prior.

    It draws from the global generator, which is left as it was found.
    """
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which a GPU's generator would heed too.
        torch.default_generator.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        return prior.sample((count,), steps)


class SequenceData(LightningDataModule, ABC):
    """Sequences split into training, validation and test, none of which shares a frame with another.

    A subclass names the arguments that it adds or whose default it changes, and hands on the rest by keyword: no other
    name passes, and the command line shows the arguments of both.

    Args:
        root: Where the official files are; without one, a stand-in that is made when it is first needed.
        steps: Frames after the first.
        batch_size: Training sequences per batch; validation and test take 128 at a time.
        epoch: Training sequences per epoch; every epoch has new ones.
        workers: Loader processes.
        seed: Seed of the training sequences. Validation and test sequences are the same for every seed and batch size.
    """

    factors: tuple[str, ...] = ()
    """What moves, in the order of the coefficients; empty where nobody knows."""

    source: ClassVar[Source | None] = None
    """Where the official files come from, and what stands in for them; None for data without a stand-in."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        steps: int = 5,
        batch_size: int = 128,
        epoch: int = 25_600,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ValueError(f"{type(self).__name__}: expected one step or more, got {steps}. Set --data.steps.")
        self.root = None if root is None else Path(root)
        self.steps, self.batch_size, self.epoch, self.workers, self.seed = steps, batch_size, epoch, workers, seed

    @property
    @abstractmethod
    def name(self) -> str:
        """What the data are, for captions; says so where they stand in for others."""

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Height and width of a frame."""

    @abstractmethod
    def setup(self, stage: str | None = None) -> None:
        """Read and check the files; a second call does nothing."""

    @abstractmethod
    def sequences(self, part: Part, *, seed: int, factor: int | None = None) -> Sequences:
        """Sequences of a part of the data, of the training motion or, for evaluation, with one factor that moves."""

    def prepare_data(self) -> None:
        """Make the stand-in if no files are given."""
        if self.root is None and self.source is not None:
            from .standins import make

            make(self.source.stand_in)

    def train_dataloader(self) -> DataLoader:
        """New sequences every epoch (with `reload_dataloaders_every_n_epochs=1`)."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return self._loader("train", seed=1 + self.seed * 1000 + epoch)

    def val_dataloader(self) -> DataLoader:
        """Sequences of the training motion from the validation part."""
        return self._loader("val", seed=-1)

    def test_dataloader(self) -> list[DataLoader]:
        """Sequences of the test part: one loader per factor, and one of the training motion."""
        alone = [self._loader("test", seed=-2 - k, factor=k) for k in range(len(self.factors))]
        return [*alone, self._loader("test", seed=min(-9, -2 - len(self.factors)))]

    def _folder(self) -> Path:
        from .standins import default_folder

        return default_folder(self.source.stand_in) if self.root is None else self.root

    def _checked_folder(self) -> Path:
        self.prepare_data()
        check_stand_in(self._folder(), self.source)
        return self._folder()

    def _loader(self, part: Part, *, seed: int, factor: int | None = None) -> DataLoader:
        self.setup()
        data = self.sequences(part, seed=seed, factor=factor)
        # A batch is drawn as a whole: all models see the same test sequences only in batches of the same size.
        return self._load(data, self.batch_size if part == "train" else _EVALUATED)

    def _load(self, data: Sequences, size: int = _EVALUATED) -> DataLoader:
        return DataLoader(data, size, num_workers=self.workers, collate_fn=_as_is)


def _as_is(batch: Batch) -> Batch:
    return batch
