"""What is made of an experiment's checkpoints beside its table of errors."""

from collections.abc import Callable, Sequence
from pathlib import Path

from .runs import Run

Finisher = Callable[[Path, Sequence[Run], str], list[Path]]
FINISHERS: dict[str, Finisher] = {}
