"""Data sets made here, in the official file formats, for those who do not have the official files."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..cache import Cache, is_foreign
from ..files import DataError

MAKERS = {
    "dsprites": "flowvae.data.standins.dsprites:make_dsprites",
    "calms21": "flowvae.data.standins.calms21:make_calms21",
    "shapes3d": "flowvae.data.scenes.shapes3d:make_shapes3d",
    "falcor3d": "flowvae.data.scenes.falcor3d:make_falcor3d",
    "isaac3d": "flowvae.data.scenes.isaac3d:make_isaac3d",
    "cityscapes": "flowvae.data.scenes.cityscapes:make_cityscapes",
}
"""Where the function `(folder: Path) -> Cache` of every stand-in is."""


def default_folder(name: str) -> Path:
    """Where a stand-in is kept if no other folder is given."""
    return Path("data") / "stand-ins" / name


def maker(name: str) -> Callable[[Path], Cache]:
    """The function that makes a stand-in in a folder.

    Raises:
        ValueError: If there is none of that name.
    """
    if name not in MAKERS:
        raise ValueError(f"stand-ins: expected one of {', '.join(sorted(MAKERS))}, got {name!r}.")
    module, function = MAKERS[name].split(":")
    return getattr(import_module(module), function)


def make(name: str, folder: Path | None = None) -> Cache:
    """Make a stand-in, or what is missing or damaged of it.

    Args:
        name: One of `MAKERS`.
        folder: Folder for the files; `default_folder` without one.

    Raises:
        DataError: If the folder has files in it that were not made here.
    """
    folder = default_folder(name) if folder is None else folder
    made = maker(name)
    if is_foreign(folder):
        raise DataError(
            f"{folder}: expected an empty folder, or one with a stand-in, found other files. They are kept: give a "
            f"loader their folder as --data.root, or make_data.py another one as --output."
        )
    return made(folder)
