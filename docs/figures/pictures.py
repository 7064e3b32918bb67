"""Pictures that the demo and the experiments drew, copied to where the site shows them.

python examples/demo.py
python examples/reproduce.py NAME   # each with the command on its page of the results
python docs/figures/pictures.py
"""

import shutil
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_ASSETS = _ROOT / "docs" / "assets"
_DEMO = {"demo.png": "truth_rotation.png", "demo.gif": "switched_rotation_hue.gif"}


def sources() -> dict[Path, Path]:
    """Every copied picture of the site, and the file that it is a copy of."""
    copies = {_ASSETS / shown: _ROOT / "runs" / "demo" / "pictures" / drawn for shown, drawn in _DEMO.items()}
    shown = sorted((_ASSETS / "results").iterdir())
    return copies | {picture: _ROOT / "docs" / "results" / "pictures" / picture.name for picture in shown}


if __name__ == "__main__":
    for picture, drawn in sources().items():
        if drawn.exists():
            shutil.copyfile(drawn, picture)
        else:
            print(f"{picture.name} stays as it is: {drawn.relative_to(_ROOT)} has not been drawn here")
