"""A stand-in for Falcor3D: a living room under a lamp that moves, from a camera that moves."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..cache import Cache
from .factors import check_sizes
from .living_room import living_room
from .png_grids import make_png_grid
from .rendering import camera, lit_by_lamps, lit_by_sky, load, render, to_bytes

SIZES = (5, 3, 3, 3, 3, 3, 3)
# Ranges in metres; the labels go from 0 to 1 over each.
_LAMP = ((-1.9, 1.9), (-1.6, 1.2), (0.9, 2.6))
_CAMERA = ((-0.55, 0.55), (-3.9, -2.9), (1.05, 1.65))
_BRIGHTNESS, _WARM, _SKY = (3.0, 24.0), np.array([1.0, 0.90, 0.76]), 0.42


def make_falcor3d(
    folder: Path, sizes: tuple[int, ...] = SIZES, image_size: int = 128, samples: int = 16, sky_samples: int = 256
) -> Cache:
    """Write the official layout `Falcor3D_down128`: 3,645 images on a grid of 5 × 3 × 3 × 3 × 3 × 3 × 3 values.

    The lamp's direct light, with highlights and shadows, is rendered for every place of lamp and camera, and scaled by
    the intensity; the even light of a sky is rendered once per camera. Labels go from 0 to 1.

    Args:
        folder: Folder for the files.
        sizes: Number of values of light intensity, light x, y, z, camera x, y, z.
        image_size: Height and width.
        samples: Rays per pixel for the lamp's light.
        sky_samples: Rays per pixel for the sky's light.
    """
    sizes = check_sizes("Falcor3D's stand-in", sizes, (None,) * 7)
    recipe = {
        "stand_in": "falcor3d", "sizes": list(sizes), "image_size": image_size,
        "samples": [samples, sky_samples], "version": 1,
    }  # fmt: skip
    values = [np.linspace(0, 1, size) if size > 1 else np.zeros(1) for size in sizes]

    def views(key: tuple[int, ...]) -> Callable[[tuple[int, ...]], np.ndarray]:
        spot = [_between(_CAMERA[k], values[4 + k][key[k]]) for k in range(3)]
        lamp = [_between(_LAMP[k], values[1 + k][key[3 + k]]) for k in range(3)]
        from_sky = light_of_sky(*spot, image_size, sky_samples)
        from_lamp = light_of_lamp(lamp, spot, image_size, samples)
        return lambda rest: to_bytes(from_sky + _between(_BRIGHTNESS, values[0][rest[0]]) * from_lamp)

    return make_png_grid(
        Cache(folder, recipe), "Falcor3D_down128", "train-rec.labels", values, (4, 5, 6, 1, 2, 3), views,
        "rendering Falcor3D's stand-in",
    )  # fmt: skip


@lru_cache(maxsize=2)
def light_of_sky(x: float, y: float, z: float, image_size: int, samples: int) -> np.ndarray:
    """Linear RGB of the room without a lamp, `[H, W, 3]`, from a camera at x, y, z."""
    return render({**living_room(), **_camera((x, y, z), image_size, samples), **lit_by_sky(_SKY)})[..., :3]


def light_of_lamp(lamp: list[float], spot: list[float], image_size: int, samples: int) -> np.ndarray:
    """Linear RGB of the room by the lamp alone, `[H, W, 3]`, at intensity 1.

    Args:
        lamp: Where the lamp is.
        spot: Where the camera is.
        image_size: Height and width.
        samples: Rays per pixel.
    """
    return render(_room_with_lamp(*spot, image_size, samples), lamp=lamp)[..., :3]


@lru_cache(maxsize=2)
def _room_with_lamp(x: float, y: float, z: float, image_size: int, samples: int) -> Any:
    # Building the scene takes twice as long as rendering it.
    light = {"type": "point", "position": [0.0, 0.0, 2.0], "intensity": {"type": "rgb", "value": _WARM.tolist()}}
    return load({**living_room(), **_camera((x, y, z), image_size, samples), **lit_by_lamps({"lamp": light})})


def _camera(spot: tuple[float, ...] | list[float], image_size: int, samples: int) -> dict:
    x, y, z = spot
    return {"camera": camera(spot, (x, y + 1, z - 0.12), 46, (image_size, image_size), samples)}


def _between(span: tuple[float, float], share: float) -> float:
    return float(span[0] + share * (span[1] - span[0]))
