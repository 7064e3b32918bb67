"""Pictures of the demo and of the experiments: what has not been run is run, then all are copied to the site.

    make demo
    python docs/figures/pictures.py --data.root data/mnist

The experiments train for some three hours on two cores, with one seed; interrupted, they go on where they stopped.
Pictures of MNIST, `data/mouse.mp4` and `data/drive.mp4` stay as they are where these are absent.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ROOT = Path(__file__).parents[2]
_ASSETS = _ROOT / "docs" / "assets"
_DEMO = {"demo.png": "truth_rotation.png", "demo.gif": "switched_rotation_hue.gif"}
# Flows that are shown, by the factor that they move.
_FACTORS = {
    "mnist": ("scale", "rotation", "hue"),
    "shapes3d": ("floor_hue", "wall_hue", "object_hue", "scale", "orientation"),
    "falcor3d": ("camera_x", "camera_y", "camera_z"),
    "isaac3d": ("robot_x", "camera_height", "lighting_intensity", "object_color", "wall_color"),
}
_MNIST = "mnist"


class Drawn(NamedTuple):
    """What an experiment of `examples/reproduce.py` draws that the site shows.

    Attributes:
        experiment: Its name.
        names: Its pictures.
        root: Its data below `data/`; None for stand-ins, which are made where they are missing.
        arguments: Further arguments of the command.
        seed: That of the model.
    """

    experiment: str
    names: list[str]
    root: str | None = None
    arguments: tuple[str, ...] = ()
    seed: int = 0


def _flows(name: str, kept: Iterable[int] = range(3), seed: int = 0) -> list[str]:
    """Pictures of the flows of footage that the training kept."""
    return [*(f"{name}_flow{k}_seed{seed}.gif" for k in kept), f"{name}_usage_seed{seed}.png"]


def _recovered(data: str) -> list[str]:
    return [f"{data}_unsupervised_{factor}.gif" for factor in _FACTORS[data]]


EXPERIMENTS = [
    Drawn("mnist_unsupervised", _recovered("mnist"), _MNIST),
    Drawn("shapes3d_unsupervised", _recovered("shapes3d"), seed=1),
    Drawn("falcor3d_unsupervised", _recovered("falcor3d")),
    Drawn("isaac3d_unsupervised", _recovered("isaac3d"), seed=1),
    Drawn(
        "latent_evolution",
        [f"latent_evolution_{data}.png" for data in ("mnist", "shapes3d", "falcor3d", "isaac3d")],
        _MNIST,
    ),
    Drawn("coefficients_over_time", ["coefficients_over_time_0.png"], _MNIST),
    Drawn(
        "switching",
        [
            "switching_rotation_then_hue.gif",
            "switching_rotation_then_hue.png",
            "switching_floor_hue_then_orientation.gif",
        ],
        _MNIST,
    ),
    Drawn(
        "superposing",
        [
            "superposing_rotation_and_hue.gif",
            "superposing_scale_and_rotation_and_hue.png",
            "superposing_floor_hue_and_object_hue_and_scale_and_orientation.png",
        ],
        _MNIST,
    ),
    Drawn(
        "unseen_data",
        [
            "unseen_data_scikit_learn_s_digits_rotation.png",
            "unseen_data_stand_in_for_dSprites_rotation.gif",
            "unseen_data_stand_in_for_dSprites_rotation.png",
        ],
        _MNIST,
    ),
    Drawn("potential_surface", ["potential_surface.png"], _MNIST),
    Drawn(
        "calms21",
        _flows("calms21_mouse", [0, 2, 3, 5], seed=1),
        "mouse.mp4",
        (
            "--data.stride=5",
            "--data.crop=padded",
            "--data.background=remove",
            "--data.egocentric=2",
        ),
        seed=1,
    ),
    Drawn("calms21", _flows("calms21", range(6))),
    Drawn("cityscapes", _flows("cityscapes", [1, 2])),
    Drawn(
        "cityscapes",
        _flows("cityscapes_drive", [2]),
        "drive.mp4",
        ("--data.stride=2", "--data.crop=[0.2, 0.45, 0.8, 0.98]"),
    ),
]


def shown() -> set[Path]:
    """Every picture that this script copies to the site."""
    drawn = [name for experiment in EXPERIMENTS for name in experiment.names]
    return {_ASSETS / name for name in _DEMO} | {_ASSETS / "results" / name for name in drawn}


def copy(name: str, drawn: Path, folder: Path) -> None:
    """Copy a picture.

    Raises:
        SystemExit: If it has not been drawn.
    """
    if not drawn.exists():
        raise SystemExit(f"pictures: expected {drawn}, found none. Draw it by make demo, or run this again.")
    shutil.copyfile(drawn, folder / name)


def main() -> None:
    """Run what is missing and copy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data.root", dest="root", type=Path, help="folder of MNIST's t10k files, data/mnist without one")
    add("--runs", type=Path, default=_ROOT / "runs" / "reproduce", help="folder of the experiments' models")
    options = parser.parse_args()
    for name, drawn in _DEMO.items():
        copy(name, _ROOT / "runs" / "demo" / "pictures" / drawn, _ASSETS)
    if options.root is not None and not options.root.is_dir():
        raise SystemExit(f"pictures: expected a folder with MNIST's t10k files, found none at {options.root}.")
    output = _ROOT / "runs" / "pictures"
    for experiment, names, source, arguments, seed in EXPERIMENTS:
        root = None if source is None else _ROOT / "data" / source
        root = options.root or root if source == _MNIST else root
        if root is not None and not root.exists():
            print(f"Pictures of {experiment} stay as they are: nothing at {root}.")
            continue
        command = ["examples/reproduce.py", experiment, "--seeds", str(seed), "--jobs", "2", "--output", output]
        command += ["--runs", options.runs.resolve(), *arguments]
        command += [] if root is None else ["--data.root", root.absolute()]
        if subprocess.run([sys.executable, *command], cwd=_ROOT).returncode:
            raise SystemExit(f"pictures: {experiment} failed, see above. Run this again to go on.")
        for name in names:
            copy(name, output / "pictures" / name, _ASSETS / "results")


if __name__ == "__main__":
    main()
