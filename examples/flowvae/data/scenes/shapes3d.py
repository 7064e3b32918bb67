"""A stand-in for Shapes3D: a cube, cylinder, sphere or pill in a coloured room, from a camera that goes round it."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..cache import Cache
from .factors import check_sizes, grid_labels
from .rendering import (
    blotches,
    camera,
    from_srgb,
    hue,
    lit_by_lamps,
    lit_by_sky,
    matte,
    place,
    render,
    texture,
    to_bytes,
    transform,
)  # fmt: skip

SIZES = (8, 8, 8, 8, 4, 8)
FILE = "3dshapes.h5"
# Room and camera as measured in pictures of the original; the lengths are those of a sphere's diameter.
_HALF_ROOM, _WALL, _DISTANCE, _EYE, _FOV = 4.3, 2.3, 3.24, 0.83, 45.0
_SUN, _SUN_DIRECTION, _SKY = 0.88, (0.38, 0.54, -0.75), 0.38
# Red, green and blue for floor, walls and object.
_CODES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
_SKY_COLOUR = from_srgb((0.60, 0.885, 0.98))


def make_shapes3d(folder: Path, sizes: tuple[int, ...] = SIZES, image_size: int = 64, samples: int = 256) -> Cache:
    """Write `3dshapes.h5` with the official keys: 131,072 images on a grid of 8 × 8 × 8 × 8 × 4 × 8 values.

    Light falls directly from a sun and a sky, and does not go from one surface to another. Then an image is the sum of
    the light on floor, walls and object, each times its colour. One rendering per scale, shape and orientation, with
    the floor in the red, the walls in the green and the object in the blue channel, gives these three and with them the
    images of all colours, equal to rendering each.

    Args:
        folder: Folder for the file.
        sizes: Number of values of floor, wall and object hue, scale, shape and orientation.
        image_size: Height and width.
        samples: Rays per pixel.
    """
    sizes = check_sizes("Shapes3D's stand-in", sizes, (None, None, None, None, 4, None))
    recipe = {
        "stand_in": "shapes3d", "sizes": list(sizes), "image_size": image_size, "samples": samples, "version": 1,
    }  # fmt: skip
    cache = Cache(folder, recipe)
    values = factor_values(sizes)
    views = {
        f"parts/{i:02}-{j}-{k:02}.npy": _view_maker(values[3][i], int(values[4][j]), values[5][k], image_size, samples)
        for i, j, k in product(*map(range, sizes[3:]))
    }

    def assemble(path: Path) -> None:
        files = cache.ensure_all(views, "rendering Shapes3D's stand-in")
        light = np.stack([np.load(file) for file in files])
        labels = grid_labels(values)
        with h5py.File(path, "w", libver="latest") as file:
            file["labels"] = labels
            shape = (image_size, image_size, 3)
            images = file.create_dataset(
                "images", (len(labels), *shape), "u1", chunks=(1, *shape), compression="gzip", compression_opts=1
            )
            for start in range(0, len(labels), len(light)):
                images[start : start + len(light)] = to_bytes(coloured(light, *labels[start, :3]))

    cache.ensure(FILE, assemble)
    cache.ensure_all(views, "rendering Shapes3D's stand-in")
    return cache


def factor_values(sizes: tuple[int, ...]) -> list[np.ndarray]:
    """Values of every factor in the official ranges; hues go round the circle, orientation is in degrees."""
    hues = [np.arange(size) / size for size in sizes[:3]]
    return [*hues, np.linspace(0.75, 1.25, sizes[3]), np.arange(float(sizes[4])), np.linspace(-30, 30, sizes[5])]


def coloured(light: np.ndarray, floor_hue: float, wall_hue: float, object_hue: float) -> np.ndarray:
    """Linear RGB `[*, H, W, 3]` of a room from the light on its surfaces.

    Args:
        light: Light on floor, walls and object, and coverage, `[*, H, W, 4]`.
        floor_hue: Hue of the floor in [0, 1).
        wall_hue: Hue of the walls.
        object_hue: Hue of the object.
    """
    colours = np.stack([hue(floor_hue), hue(wall_hue), hue(object_hue), -_SKY_COLOUR])
    return light @ colours + _SKY_COLOUR


def light_on_surfaces(
    scale: float, shape: int, orientation: float, image_size: int, samples: int, colours: Any = _CODES
) -> np.ndarray:
    """Sun and sky on floor, walls and object in the three channels, and coverage, `[H, W, 4]`.

    Args:
        scale: Size of the object.
        shape: 0 cube, 1 cylinder, 2 sphere, 3 pill.
        orientation: Where the camera stands, in degrees.
        image_size: Height and width.
        samples: Rays per pixel.
        colours: Other linear RGB colours of floor, walls and object: then the three channels are those of an image.
    """
    angle = np.deg2rad(orientation)
    origin = (_DISTANCE * np.sin(angle), -_DISTANCE * np.cos(angle), _EYE)
    scene = {
        "camera": camera(origin, (0, 0, _EYE), _FOV, (image_size, image_size), samples),
        **_room(np.asarray(colours[0]), np.asarray(colours[1])),
        **_solid(shape, scale, matte(colours[2])),
    }
    sun = {"type": "directional", "direction": list(_SUN_DIRECTION), "irradiance": _SUN * np.pi}
    from_sun = render({**scene, **lit_by_lamps({"sun": sun})})
    from_sky = render({**scene, **lit_by_sky(_SKY)})
    return np.concatenate([from_sun[..., :3] + from_sky[..., :3], from_sky[..., 3:]], -1)


def _view_maker(scale: float, shape: int, orientation: float, size: int, samples: int) -> Callable[[Path], None]:
    return lambda path: np.save(path, light_on_surfaces(scale, shape, orientation, size, samples))


def _room(floor: Any, wall: Any) -> dict:
    random = np.random.RandomState(0)
    on_floor = matte(texture(blotches(random, 128, 0.05, 12)[..., None] * floor, (3, 3)))
    on_wall = matte(texture(blotches(random, 128, 0.09, 8)[..., None] * wall, (4, 1)))
    half, middle = _HALF_ROOM, _WALL / 2
    room = {"floor": {"type": "rectangle", "to_world": transform().scale(half), "bsdf": on_floor}}
    for name, x, y, turn in (("back", 0, half, 0), ("left", -half, 0, 90), ("right", half, 0, -90)):
        to_world = place(x, y, middle, turn=turn).rotate([1, 0, 0], 90).scale([half, middle, 1])
        room[name] = {"type": "rectangle", "to_world": to_world, "bsdf": on_wall}
    return room


def _solid(shape: int, scale: float, bsdf: dict) -> dict:
    if shape == 0:
        edge = 0.84 * scale
        return {"cube": {"type": "cube", "to_world": place(0, 0, edge / 2, edge / 2), "bsdf": bsdf}}
    if shape == 1:
        radius, height = 0.41 * scale, 0.86 * scale
        top = {"type": "disk", "to_world": place(0, 0, height, radius), "bsdf": bsdf}
        return {**_tube(radius, 0, height, bsdf), "top": top}
    if shape == 2:
        return {"ball": _ball(0.5 * scale, 0.5 * scale, bsdf)}
    radius, height = 0.365 * scale, 1.5 * scale
    ends = {"low": _ball(radius, radius, bsdf), "high": _ball(height - radius, radius, bsdf)}
    return {**_tube(radius, radius, height - radius, bsdf), **ends}


def _tube(radius: float, low: float, high: float, bsdf: dict) -> dict:
    return {"tube": {"type": "cylinder", "radius": radius, "p0": [0, 0, low], "p1": [0, 0, high], "bsdf": bsdf}}


def _ball(height: float, radius: float, bsdf: dict) -> dict:
    return {"type": "sphere", "center": [0, 0, height], "radius": radius, "bsdf": bsdf}
