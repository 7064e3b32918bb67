"""A stand-in for dSprites: a square, an ellipse and a heart with smooth edges."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..cache import Cache
from ..dsprites import FILE, NAMES

SIZES = (1, 3, 6, 20, 8, 8)
_IMAGE, _PATCH, _SAMPLES = 64, 34, 6
_RADII = {"square": 8.5, "ellipse": 11.0, "heart": 9.0}


def make_dsprites(folder: Path, sizes: tuple[int, ...] = SIZES) -> Cache:
    """Write the npz file with the official keys: 23,040 images on a grid of 1 × 3 × 6 × 20 × 8 × 8 values.

    Unlike the original's, edges are grey where a shape covers a pixel in part; images reach from 0 to 255, not to 1.

    Args:
        folder: Folder for the file.
        sizes: Number of values of every factor.
    """
    recipe = {"stand_in": "dsprites", "sizes": list(sizes), "version": 1}
    cache = Cache(folder, recipe)
    rows = {
        f"parts/{shape}-{scale}.npz": _row_maker(shape, scale, sizes) for shape in range(3) for scale in range(sizes[2])
    }

    def assemble(path: Path) -> None:
        parts = []
        for file in cache.ensure_all(rows, "drawing dSprites"):
            with np.load(file) as content:
                parts.append(content["imgs"])
        classes = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij"), -1).reshape(-1, len(sizes))
        values = latent_values(sizes)
        metadata = {"title": "stand-in for dSprites", "latents_names": NAMES, "latents_sizes": np.array(sizes)}
        np.savez_compressed(
            path,
            imgs=np.concatenate(parts),
            latents_classes=classes,
            latents_values=np.stack([v[classes[:, k]] for k, v in enumerate(values)], -1),
            metadata=np.array(metadata, dtype=object),
        )

    cache.ensure(FILE, assemble)
    cache.ensure_all(rows, "drawing dSprites")
    return cache


def latent_values(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Values of every factor; as in the original, the last orientation is the first one again."""
    return [
        np.ones(sizes[0]),
        np.arange(1.0, sizes[1] + 1),
        np.linspace(0.5, 1, sizes[2]),
        np.linspace(0, 2 * np.pi, sizes[3]),
        np.linspace(0, 1, sizes[4]),
        np.linspace(0, 1, sizes[5]),
    ]


def draw_sprite(shape: str, scale: float, angle: float, x: float, y: float) -> np.ndarray:
    """One image, bytes `[64, 64]`: every pixel is the share of it that the shape covers.

    Args:
        shape: `"square"`, `"ellipse"` or `"heart"`.
        scale: Size relative to the largest.
        angle: Rotation in radians.
        x: Position from left to right, from 0 to 1.
        y: Position from top to bottom, from 0 to 1.
    """
    centre = np.array([16 + 32 * x, 16 + 32 * y])
    corner = np.floor(centre).astype(int) - _PATCH // 2
    fine = (np.arange(_PATCH * _SAMPLES, dtype=np.float32) + 0.5) / _SAMPLES
    across, down = fine + np.float32(corner[0] - centre[0]), (fine + np.float32(corner[1] - centre[1]))[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    radius = np.float32(scale * _RADII[shape])
    u, v = (cos * across + sin * down) / radius, (cos * down - sin * across) / radius
    inside = _INSIDE[shape](u, v).reshape(_PATCH, _SAMPLES, _PATCH, _SAMPLES).mean((1, 3))
    image = np.zeros((_IMAGE, _IMAGE), np.uint8)
    # The patch of a shape in a corner reaches over the edge, where it is empty.
    top, left = max(0, corner[1]), max(0, corner[0])
    part = inside[top - corner[1] : _IMAGE - corner[1], left - corner[0] : _IMAGE - corner[0]]
    image[top : top + part.shape[0], left : left + part.shape[1]] = np.rint(255 * part)
    return image


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u, v = 1.2 * u, 0.2 - 1.2 * v
    return (u * u + v * v - 1) ** 3 < u * u * v**3


_INSIDE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "square": lambda u, v: np.maximum(np.abs(u), np.abs(v)) < 1,
    "ellipse": lambda u, v: u * u + (v / 0.6) ** 2 < 1,
    "heart": _heart,
}


def _row_maker(shape: int, scale: int, sizes: tuple[int, ...]) -> Callable[[Path], None]:
    _, _, scales, angles, xs, ys = latent_values(sizes)
    name = list(_INSIDE)[shape]

    def make(path: Path) -> None:
        images = [draw_sprite(name, scales[scale], angle, x, y) for angle in angles for x in xs for y in ys]
        np.savez_compressed(path, imgs=np.stack(images))

    return make
