"""Contact sheets of the stand-ins: one row per factor, everything else at rest, or one per motion.

python docs/figures/standins.py

What has not been made is made first, about half an hour for all six on one core.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import h5py
import numpy as np
from PIL import Image

_ROOT = Path(__file__).parents[2]
_ASSETS = _ROOT / "docs" / "assets" / "standins"
_GAP = 2


def sizes_of(labels: np.ndarray) -> tuple[int, ...]:
    """Number of values of every factor of a full grid."""
    return tuple(len(np.unique(column)) for column in labels.T)


def rows_of_factors(sizes: tuple[int, ...], rest: tuple[int, ...]) -> list[list[int]]:
    """Numbers of the images in which one factor after another goes through its values.

    Args:
        sizes: Number of values of every factor.
        rest: Value of the factors at rest, as indices.
    """
    rows = []
    for k, size in enumerate(sizes):
        places = [(*rest[:k], value, *rest[k + 1 :]) for value in range(size)]
        rows.append([int(np.ravel_multi_index(place, sizes)) for place in places])
    return rows


def sheet(rows: list[list[np.ndarray]], columns: int) -> np.ndarray:
    """Images side by side, rows below each other, white where there is none."""
    height, width = rows[0][0].shape[:2]
    page = np.full((len(rows) * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, np.uint8)
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            page[i * (height + _GAP) :, j * (width + _GAP) :][:height, :width] = image
    return page


def beside(pages: list[np.ndarray]) -> np.ndarray:
    """Pages of the same height next to each other."""
    gap = np.full((pages[0].shape[0], 10, 3), 255, np.uint8)
    parts = [part for page in pages for part in (page, gap)][:-1]
    return np.concatenate(parts, 1)


def factor_sheet(
    read: Callable[[int], np.ndarray], labels: np.ndarray, rest: tuple[int, ...]
) -> list[list[np.ndarray]]:
    """The images of `rows_of_factors`."""
    return [[read(number) for number in row] for row in rows_of_factors(sizes_of(labels), rest)]


def save(name: str, page: np.ndarray) -> None:
    """Write a page as WebP."""
    _ASSETS.mkdir(parents=True, exist_ok=True)
    Image.fromarray(page).save(_ASSETS / f"{name}.webp", quality=88, method=6)


def shapes3d(root: Path) -> None:
    """Eight values of the hues, scale and orientation, four shapes."""
    with h5py.File(root / "3dshapes.h5") as file:
        rows = factor_sheet(lambda number: file["images"][number], file["labels"][:], (0, 4, 2, 5, 3, 6))
    save("shapes3d", sheet(rows, 8))


def folder_sheet(folder: Path, labels: str, rest: tuple[int, ...]) -> list[list[np.ndarray]]:
    """The images of a folder of numbered PNG files."""

    def read(number: int) -> np.ndarray:
        return np.asarray(Image.open(folder / "images" / f"{number:06}.png").convert("RGB"))

    return factor_sheet(read, np.load(folder / labels), rest)


def falcor3d(root: Path) -> None:
    """Five intensities, then light and camera along x, y, z."""
    rows = folder_sheet(root / "Falcor3D_down128", "train-rec.labels", (3, 2, 1, 1, 1, 1, 1))
    lamp, eye = sheet(rows[1:4], 3), sheet(rows[4:], 3)
    top = sheet(rows[:1], 5)
    bottom = beside([lamp, eye])
    page = np.full((top.shape[0] + 10 + bottom.shape[0], bottom.shape[1], 3), 255, np.uint8)
    page[: top.shape[0], : top.shape[1]] = top
    page[-bottom.shape[0] :] = bottom
    save("falcor3d", page)


def isaac3d(root: Path) -> None:
    """Two shapes, then three values of every other factor, in two columns of rows."""
    rows = folder_sheet(root / "Isaac3D_down128", "labels.npy", (0, 0, 1, 1, 1, 1, 1, 0, 0))
    save("isaac3d", beside([sheet(rows[:5], 3), sheet([*rows[5:], []], 3)]))


def cityscapes(root: Path) -> None:
    """Four frames of one snippet of every motion, and of two more streets."""
    rows = []
    for part, city, number in (
        ("train", "eastport", 0), ("train", "millbrook", 1), ("train", "eastport", 2), ("train", "stonefield", 3),
        ("val", "lakeside", 4), ("test", "northgate", 6),
    ):  # fmt: skip
        folder = root / "leftImg8bit_sequence" / part / city
        names = [f"{city}_{number:06}_{frame:06}_leftImg8bit.png" for frame in (0, 10, 20, 29)]
        rows.append([np.asarray(Image.open(folder / name)) for name in names])
    save("cityscapes", sheet(rows, 4))


def dsprites(root: Path) -> None:
    """Three shapes, then eight values of every other factor that has so many."""
    with np.load(next(root.glob("*.npz"))) as content:
        images, labels = content["imgs"], content["latents_classes"]
    sizes = sizes_of(labels)
    rows = factor_sheet(
        lambda number: np.repeat(images[number][..., None], 3, -1), labels, tuple(n // 2 for n in sizes)
    )
    spread = [np.linspace(0, len(row), min(8, len(row)), endpoint=False).astype(int) for row in rows]
    save("dsprites", sheet([[row[k] for k in places] for row, places in zip(rows, spread, strict=True)][1:], 8))


def calms21(root: Path) -> None:
    """Five frames, a quarter of a second apart, of the first time that the mice approach, circle and follow."""
    poses = json.loads((root / "calms21_task1_train.json").read_text())
    told = next(iter(poses.values()))["task1/train/mouse001_task1_annotator1"]["annotations"]
    with av.open(root / "task1_videos_mp4" / "train" / "mouse001_task1_annotator1.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    rows = []
    for behaviour in (0, 1, 2):
        first = next(k for k in range(len(told)) if told[k : k + 29] == [behaviour] * 29)
        rows.append([frames[first + 7 * k] for k in range(5)])
    save("calms21", sheet(rows, 5))


if __name__ == "__main__":
    for draw in (shapes3d, falcor3d, isaac3d, cityscapes, dsprites, calms21):
        folder = _ROOT / "data" / "stand-ins" / draw.__name__
        command = ["examples/make_data.py", draw.__name__, "--output", str(folder)]
        subprocess.run([sys.executable, *command], cwd=_ROOT, check=True)
        draw(folder)
