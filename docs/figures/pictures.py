"""Pictures of the demo and of the experiments: what has not been run is run, then all are copied to the site.

    make demo
    python docs/figures/pictures.py --data.root data/mnist

The experiments train for an hour and a half on two cores, with one seed; interrupted, they go on where they stopped.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ASSETS = _ROOT / "docs" / "assets"
_DEMO = {"demo.png": "truth_rotation.png", "demo.gif": "switched_rotation_hue.gif"}
# What an experiment of `examples/reproduce.py` draws that the site shows.
EXPERIMENTS = {
    "mnist_unsupervised": [f"mnist_unsupervised_{factor}.gif" for factor in ("scale", "rotation", "hue")],
    "shapes3d_unsupervised": [
        f"shapes3d_unsupervised_{factor}.gif"
        for factor in ("floor_hue", "wall_hue", "object_hue", "scale", "orientation")
    ],
    "coefficients_over_time": ["coefficients_over_time_0.png"],
    "switching": ["switching_rotation_then_hue.gif", "switching_rotation_then_hue.png"],
    "superposing": ["superposing_rotation_and_hue.gif", "superposing_scale_and_rotation_and_hue.png"],
    "unseen_data": ["unseen_scikit_learn_s_digits_rotation.png", "unseen_stand_in_for_dSprites_rotation.png"],
    "potential_surface": ["potential_surface.png"],
}


def shown() -> set[Path]:
    """Every picture that this script copies to the site."""
    drawn = [name for names in EXPERIMENTS.values() for name in names]
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
    root = options.root or _ROOT / "data" / "mnist"
    if not root.is_dir():
        message = f"Pictures of {', '.join(EXPERIMENTS)} stay as they are: no folder {root} with MNIST's t10k files."
        if options.root is not None:
            raise SystemExit(message)
        print(message)
        return
    output = _ROOT / "runs" / "pictures"
    for experiment, names in EXPERIMENTS.items():
        command = ["examples/reproduce.py", experiment, "--seeds", "0", "--jobs", "2", "--output", output]
        command += ["--runs", options.runs.resolve()]
        # Scenes are a stand-in's, which is rendered where it is missing.
        command += [] if experiment.startswith("shapes3d") else ["--data.root", root.resolve()]
        if subprocess.run([sys.executable, *command], cwd=_ROOT).returncode:
            raise SystemExit(f"pictures: {experiment} failed, see above. Run this again to go on.")
        for name in names:
            copy(name, output / "pictures" / name, _ASSETS / "results")


if __name__ == "__main__":
    main()
