"""One look for every figure of the site: colours told apart by the colour-blind, one file for each of its two modes."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from torchflowfield.viz import COLORS

FOLDER = Path(__file__).parent.parent / "assets" / "figures"
BLUE, ORANGE, GREEN, PINK = COLORS[:4]
# Ink, faint ink, and a blue that stands out, on the page's white and on its slate.
MODES = {"light": ("#222222", "#9a9a9a", BLUE), "dark": ("#e4e4e4", "#757b86", COLORS[5])}


def save(name: str, draw: Callable[[Figure], None], *, width: float = 8.0, height: float = 3.0) -> None:
    """Draw a figure in the inks of the light and of the dark mode; the same code gives the same bytes.

    Args:
        name: Name of the files.
        draw: Fills an empty figure.
        width: Inches.
        height: Inches.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for mode, (ink, faint, blue) in MODES.items():
        settings = {
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.prop_cycle": matplotlib.cycler(color=[blue, ORANGE, GREEN, PINK]),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": faint,
            "grid.color": faint,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
            "svg.hashsalt": "torchflowfield",
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), ink),
        }
        with matplotlib.rc_context(settings):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure)
            path = FOLDER / f"{name}-{mode}.svg"
            figure.savefig(path, transparent=True, metadata={"Date": None})


def blue() -> str:
    """The first colour of the mode that is being drawn."""
    return matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0]


def ink() -> str:
    """The colour of text in the mode that is being drawn."""
    return matplotlib.rcParams["text.color"]
