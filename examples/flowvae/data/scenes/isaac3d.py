"""A stand-in for Isaac3D: a robot arm that holds an object in a kitchen."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cache import Cache
from .factors import check_sizes
from .kitchen import BLACK, arm, held, kitchen
from .png_grids import make_png_grid
from .rendering import camera, from_srgb, hue, lit_by_lamps, lit_by_sky, load, matte, render, to_bytes

SIZES = (2, 3, 3, 3, 3, 3, 3, 3, 3)
# Ranges in metres; the labels go from 0 to 1 over each.
_REACH, _DEPTH, _HEIGHT, _EXTENT, _LAMP = (-0.50, 0.50), (-0.26, 0.18), (1.15, 1.95), (0.13, 0.27), (-1.6, 0.35)
_BRIGHTNESS, _SKY, _WARM = (1.5, 8.0), 0.42, np.array([1.0, 0.95, 0.86], np.float32)
_WALLS = [from_srgb(c) for c in ((0.90, 0.80, 0.55), (0.55, 0.72, 0.62), (0.60, 0.68, 0.85), (0.85, 0.60, 0.58))]
_OBJECTS = [hue(h, 0.85, 0.9) for h in (0.0, 0.33, 0.62, 0.14)]


class Light(NamedTuple):
    """Light of one source, `[H, W, 3]`: on what has fixed colours, on a white wall, on a white object."""

    rest: np.ndarray
    wall: np.ndarray
    held: np.ndarray

    def coloured(self, wall: np.ndarray, held: np.ndarray) -> np.ndarray:
        """Linear RGB `[H, W, 3]` with the wall and the object in the given colours."""
        return self.rest + self.wall * wall + self.held * held


class Pose(NamedTuple):
    """Everything but light and colours: shape, position of the hand, height of the camera, extent of the object."""

    shape: int
    x: float
    y: float
    height: float
    extent: float


def make_isaac3d(
    folder: Path, sizes: tuple[int, ...] = SIZES, image_size: int = 128, samples: int = 16, sky_samples: int = 64
) -> Cache:
    """Write the official layout `Isaac3D_down128`: 13,122 images, two shapes and three values of each other factor.

    Light falls directly from a lamp and a sky, so intensity and colours only scale parts of a picture: these parts are
    rendered once per pose and place of the lamp, and added. Labels go from 0 to 1; shapes and colours are numbered.

    Args:
        folder: Folder for the files.
        sizes: Number of values of object shape, robot x, y, camera height, object scale, light intensity, light y,
            object colour, wall colour.
        image_size: Height and width.
        samples: Rays per pixel for the lamp's light.
        sky_samples: Rays per pixel for the sky's light.
    """
    sizes = check_sizes("Isaac3D's stand-in", sizes, (3, None, None, None, None, None, None, 4, 4))
    recipe = {
        "stand_in": "isaac3d", "sizes": list(sizes), "image_size": image_size,
        "samples": [samples, sky_samples], "version": 2,
    }  # fmt: skip
    numbered = (0, 7, 8)
    values = [
        np.arange(float(size)) if k in numbered else np.linspace(0, 1, size) if size > 1 else np.zeros(1)
        for k, size in enumerate(sizes)
    ]

    def views(key: tuple[int, ...]) -> Callable[[tuple[int, ...]], np.ndarray]:
        spans = (_REACH, _DEPTH, _HEIGHT, _EXTENT)
        pose = Pose(key[0], *(_between(span, values[1 + k][key[1 + k]]) for k, span in enumerate(spans)))
        sky = light_of_sky(pose, image_size, sky_samples)
        lamp = light_of_lamp(pose, _between(_LAMP, values[6][key[5]]), image_size, samples)

        def draw(rest: tuple[int, ...]) -> np.ndarray:
            colours = _WALLS[rest[2]], _OBJECTS[rest[1]]
            brightness = _between(_BRIGHTNESS, values[5][rest[0]])
            return to_bytes(sky.coloured(*colours) + brightness * lamp.coloured(*colours))

        return draw

    return make_png_grid(
        Cache(folder, recipe), "Isaac3D_down128", "labels.npy", values, (0, 1, 2, 3, 4, 6), views,
        "rendering Isaac3D's stand-in",
    )  # fmt: skip


@lru_cache(maxsize=2)
def light_of_sky(pose: Pose, image_size: int, samples: int) -> Light:
    """The even light of a sky."""
    return _light(
        *(render(loaded) for loaded in _scenes(pose, image_size, samples, lamp=False)), np.ones(3, np.float32)
    )


def light_of_lamp(pose: Pose, y: float, image_size: int, samples: int) -> Light:
    """The light of a lamp of intensity 1, nearer to the wall the larger y is."""
    scenes = _scenes(pose, image_size, samples, lamp=True)
    return _light(*(render(loaded, lamp=(-0.55, y, 2.75)) for loaded in scenes), _WARM)


def scene(pose: Pose, image_size: int, samples: int, rest: bool, wall: Any, colour: Any, *, lamp: bool) -> dict:
    """The kitchen with the arm, under the lamp alone or the sky alone.

    Args:
        pose: What is where.
        image_size: Height and width.
        samples: Rays per pixel.
        rest: Whether everything but wall and object has its colours, else it is black.
        wall: Linear RGB of the wall.
        colour: Linear RGB of the object.
        lamp: Whether the lamp shines, else the sky.
    """
    light = {"type": "point", "position": [0.0, 0.0, 2.7], "intensity": {"type": "rgb", "value": _WARM.tolist()}}
    reach = np.array([pose.x, pose.y, 1.12])
    return {
        "camera": camera((0, -2.35, pose.height), (0, 0.3, 1.40), 33, (image_size, image_size), samples),
        **(lit_by_lamps({"lamp": light}) if lamp else lit_by_sky(_SKY)),
        **kitchen(matte(wall), rest),
        **arm(reach, rest),
        **held(pose.shape, pose.extent, reach, matte(colour)),
    }


@lru_cache(maxsize=4)
def _scenes(pose: Pose, image_size: int, samples: int, *, lamp: bool) -> tuple[Any, Any]:
    return (
        load(scene(pose, image_size, samples, True, BLACK, BLACK, lamp=lamp)),
        load(scene(pose, image_size, samples, False, (1, 0, 0), (0, 1, 0), lamp=lamp)),
    )


def _light(rest: np.ndarray, coded: np.ndarray, tint: np.ndarray) -> Light:
    # The wall is in the red and the object in the green channel, so each has only that part of the lamp's colour.
    return Light(rest[..., :3], coded[..., :1] * (tint / tint[0]), coded[..., 1:2] * (tint / tint[1]))


def _between(span: tuple[float, float], share: float) -> float:
    return float(span[0] + share * (span[1] - span[0]))
