"""Make a stand-in for a data set: made once, in the official file format, with smaller grids than the original's.

python examples/make_data.py dsprites --output data/dsprites

What is there is checked and kept; what is missing, unfinished or damaged is made again.
"""

from pathlib import Path

from flowvae.data.standins import default_folder, make
from jsonargparse import auto_cli


def make_data(name: str, output: Path | None = None) -> Path:
    """Make, complete or repair a stand-in.

    Args:
        name: Which one; a wrong name lists them.
        output: Folder for the files; without one, where the loaders look for stand-ins.
    """
    output = default_folder(name) if output is None else output
    damaged = make(name, output).verify()
    if damaged:
        raise RuntimeError(
            f"{output}: expected whole files of this version alone, got others: {', '.join(damaged[:5])}. Delete the "
            f"folder and run this again."
        )
    print(f"{output}: complete")
    return output


if __name__ == "__main__":
    auto_cli(make_data)
