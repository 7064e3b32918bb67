"""A split of a full grid of factor values into training, validation and test that no sequence crosses."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from .base import Part
from .files import DataError

_PARTS: dict[Part, int] = {"train": 0, "val": 1, "test": 2}
_SHARE = 0.1


class GridSplit:
    r"""Which part of the data a frame belongs to, and where sequences of a part can start.

    The rule: a frame's *base* is its values of the base factors: all that never move, and two to four of those that
    do. Every base belongs to one part, and with it every frame that has it. Held out are *crosses*: a random base and
    all that moving a single base factor makes of it. Crosses of validation and test are drawn, disjoint, until each has
    a tenth of the bases; the rest is for training. The split depends on the sizes of the grid alone.

    A sequence belongs to a part only if all its frames do, so no two parts have a frame in common, let alone a start.
    Factors that are not base factors move freely in every part. Of the base factors at most one moves in a validation
    or test sequence, as crosses have no room for more; in training any number does.

    A split by the values of the factors that rest in a sequence would not do: a frame could start a training sequence
    of one factor and a test sequence of another.

    Args:
        sizes: Number of values of every factor.
        base: Base factors, as indices.
        moving: Factors that move, as indices.
        periodic: Factors that go on with the first value after the last one, as indices.
        title: What the data are, for errors.

    Raises:
        DataError: If the grid is too small to hold out anything.
    """

    def __init__(
        self, sizes: tuple[int, ...], *, base: list[int], moving: list[int], periodic: list[int], title: str
    ) -> None:
        self.sizes, self.base, self.moving, self.periodic, self.title = sizes, base, moving, periodic, title
        self._free = [k for k in range(len(sizes)) if k not in base]
        self._base_sizes = torch.tensor([sizes[k] for k in base])
        self._cells = torch.cartesian_prod(*(torch.arange(sizes[k]) for k in base)).view(-1, len(base))
        self._table = self._hold_out()

    def part_of(self, values: Tensor) -> Tensor:
        """Part of frames with the given values of all factors `[*, F]`: 0 training, 1 validation, 2 test."""
        return self._table[_flat(values[..., self.base], self._base_sizes)]

    def starts(self, moves: Tensor, part: Part, generator: torch.Generator) -> Tensor:
        """Random first frames from which sequences stay on the grid and in their part.

        Args:
            moves: How far every factor has moved since the first frame, `[N, T+1, F]`, never negative.
            part: Part of the data.
            generator: Source of randomness; how much is drawn does not depend on the outcome.

        Returns:
            Values of all factors in the first frame, `[N, F]`; −1 where there is no such frame.
        """
        count = len(moves)
        draw = torch.rand(count, len(self.sizes) + 1, generator=generator)
        room = torch.tensor(self.sizes) - moves.amax(1)
        room[:, self.periodic] = torch.tensor(self.sizes)[self.periodic]
        # In float32 a product of a draw close to 1 can round up to the size itself.
        starts = torch.minimum((draw[:, :-1] * room).long(), room - 1)
        for n in range(count):
            valid = self._valid_cells(tuple(moves[n][:, self.base].flatten().tolist()), part)
            if len(valid) and bool((room[n, self._free] > 0).all()):
                chosen = min(int(draw[n, -1] * len(valid)), len(valid) - 1)
                starts[n, self.base] = self._cells[valid[chosen]]
            else:
                starts[n] = -1
        return starts

    def visited(self, starts: Tensor, moves: Tensor) -> Tensor:
        """Values of all factors in every frame, `[N, T+1, F]`, wrapped where a factor is periodic."""
        values = starts[:, None] + moves
        values[..., self.periodic] %= torch.tensor(self.sizes)[self.periodic]
        return values

    def _valid_cells(self, moves: tuple[int, ...], part: Part) -> Tensor:
        return _valid_cells(self, moves, part)

    def _hold_out(self) -> Tensor:
        table = torch.zeros(len(self._cells), dtype=torch.uint8)
        axes = [k for k, factor in enumerate(self.base) if factor in self.moving]
        order = torch.randperm(len(self._cells), generator=torch.Generator().manual_seed(0))
        held = {_PARTS["test"]: 0, _PARTS["val"]: 0}
        for centre in order:
            part = min(held, key=held.get)
            if held[part] >= _SHARE * len(table):
                break
            differs = self._cells != self._cells[centre]
            cross = (differs.sum(-1) == 0) | ((differs.sum(-1) == 1) & differs[:, axes].any(-1))
            if bool(((table[cross] == 0) | (table[cross] == part)).all()) and bool(table[centre] == 0):
                table[cross] = part
                held[part] = int((table == part).sum())
        if min(held.values()) == 0 or not bool((table == 0).any()):
            grid = " × ".join(str(int(size)) for size in self._base_sizes)
            raise DataError(
                f"{self.title}: expected base factors with enough values to hold some out, got a grid of {grid}. "
                f"Use a grid with more values."
            )
        return table


@lru_cache(maxsize=8192)
def _valid_cells(split: GridSplit, moves: tuple[int, ...], part: Part) -> Tensor:
    """Indices of the bases from which the given moves of the base factors `[(T+1) · F]` stay in a part."""
    path = torch.tensor(moves).view(-1, len(split.base)).unique(dim=0)
    values = split._cells[:, None] + path
    wraps = torch.tensor([k in split.periodic for k in split.base])
    inside = (wraps | (values < split._base_sizes)).all(-1)
    values = torch.where(wraps, values % split._base_sizes, values.minimum(split._base_sizes - 1))
    return (inside & (split._table[_flat(values, split._base_sizes)] == _PARTS[part])).all(-1).nonzero().flatten()


def _flat(values: Tensor, sizes: Tensor) -> Tensor:
    strides = [math.prod(sizes[k + 1 :].tolist()) for k in range(len(sizes))]
    return (values * torch.tensor(strides)).sum(-1)
