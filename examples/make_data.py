"""Make a stand-in for a data set: made once, in the official file format, with smaller grids than the original's.

python examples/make_data.py dsprites --output data/dsprites

What is there is checked and kept; what is missing, unfinished or damaged is made again.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli

MAKERS: dict[str, str] = {}
"""Where the function `(folder: Path) -> Cache` of every stand-in is."""


def make_data(name: str, output: Path | None = None) -> Path:
    """Make, complete or repair a stand-in.

    Args:
        name: Which one; a wrong name lists them.
        output: Folder for the files; `data/NAME` without one.
    """
    output = Path("data") / name if output is None else output
    cache = stand_in(name)(output)
    damaged = cache.verify()
    if damaged:
        raise RuntimeError(f"{output}: expected whole files, got damage in {damaged[:5]}. Run the command again.")
    print(f"{output}: complete")
    return output


def stand_in(name: str) -> Callable[[Path], Any]:
    """The function that makes a stand-in in a folder and returns its cache."""
    if name not in MAKERS:
        raise ValueError(f"make_data: expected one of {', '.join(MAKERS)}, got {name!r}.")
    module, function = MAKERS[name].split(":")
    return getattr(import_module(module), function)


if __name__ == "__main__":
    auto_cli(make_data)
