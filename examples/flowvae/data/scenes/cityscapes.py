"""A stand-in for Cityscapes' sequences: short drives behind another car and round corners."""

import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..cache import Cache
from .cars import Car, car
from .png_grids import png_bytes
from .rendering import camera, from_srgb, lit_by_lamps, load_parts, render, to_bytes, with_ambient
from .street import paint_of_car, street

MOTIONS = ("approach", "recede", "turn_left", "turn_right")
CITIES = {
    "train": {"eastport": 12, "millbrook": 12, "stonefield": 12},
    "val": {"lakeside": 12},
    "test": {"northgate": 12},
}
FRAMES = 30
# Where a turn begins, in metres along the street.
_CORNER = 6.0
_AMBIENT = np.array([0.30, 0.34, 0.41])


class Drive(NamedTuple):
    """Where the camera is in every frame, `[T, 2]`, which way it looks in radians to the left, and the car ahead."""

    position: np.ndarray
    heading: np.ndarray
    ahead: np.ndarray


def make_cityscapes(
    folder: Path,
    cities: dict[str, dict[str, int]] | None = None,
    frames: int = FRAMES,
    image_size: tuple[int, int] = (256, 128),
    samples: int = 9,
) -> Cache:
    """Write `leftImg8bit_sequence/{train,val,test}/CITY/CITY_SSSSSS_FFFFFF_leftImg8bit.png`: 60 snippets of 30 frames.

    Snippets of a city come closer to a car, fall back from it, turn left and turn right in turn; every one has a street
    of its own.

    Args:
        folder: Folder for the files.
        cities: Snippets of every city of every part.
        frames: Frames of a snippet.
        image_size: Width and height.
        samples: Rays per pixel.
    """
    cities = CITIES if cities is None else cities
    recipe = {
        "stand_in": "cityscapes", "cities": cities, "frames": frames, "image_size": list(image_size),
        "samples": samples, "version": 1,
    }  # fmt: skip
    cache = Cache(folder, recipe)
    makers = {
        f"leftImg8bit_sequence/{part}/{city}/{city}_{number:06}_{frame:06}_leftImg8bit.png": _frame_maker(
            city, number, frame, frames, image_size, samples
        )
        for part, group in cities.items()
        for city, count in group.items()
        for number in range(count)
        for frame in range(frames)
    }
    cache.ensure_all(makers, "rendering Cityscapes' stand-in")
    return cache


def drive(motion: str, frames: int, random: np.random.RandomState) -> Drive:
    """How the camera and the car ahead of it move.

    Args:
        motion: One of `MOTIONS`.
        frames: Number of frames.
        random: Source of randomness.
    """
    share = np.linspace(0, 1, frames)
    lane = 2.1 + random.uniform(-0.2, 0.2)
    if motion in ("approach", "recede"):
        near, far = random.uniform(6.0, 7.5), random.uniform(19, 25)
        gap = far + (near - far) * share if motion == "approach" else near + (far - near) * share
        y = random.uniform(9, 14) * share
        return Drive(np.stack([np.full(frames, lane), y], -1), np.zeros(frames), y + gap)
    side, radius = (1, 9.0) if motion == "turn_left" else (-1, 6.0)
    angle = np.deg2rad(random.uniform(65, 75))
    straight = random.uniform(3, 5)
    bend = np.clip((share * (straight + radius * angle) - straight) / (radius * angle), 0, 1)
    heading = side * angle * bend**2 * (3 - 2 * bend)
    step = (straight + radius * angle) / frames
    way = np.stack([-np.sin(heading), np.cos(heading)], -1) * step
    start = np.array([lane, _CORNER - straight])
    return Drive(start + np.cumsum(way, 0) - way[0], heading, np.full(frames, random.uniform(34, 42)))


def draw_frame(
    city: str, number: int, frame: int, frames: int, image_size: tuple[int, int], samples: int
) -> np.ndarray:
    """A frame of a snippet, bytes `[H, W, 3]`."""
    snippet = _snippet(city, number, frames)
    x, y = snippet.drive.position[frame]
    heading = snippet.drive.heading[frame]
    target = (x - np.sin(heading), y + np.cos(heading), 1.38)
    ahead = Car(2.1, snippet.drive.ahead[frame], False, snippet.paint)
    scene = {
        "camera": camera((x, y, 1.42), target, 62, image_size, samples, fov_axis="x"),
        **lit_by_lamps({"sun": snippet.sun}, hide=False),
        **snippet.street,
        **with_ambient(car("ahead", ahead), _AMBIENT),
    }
    light = render(scene)
    height = np.linspace(1, 0, image_size[1])[:, None, None]
    sky = from_srgb((0.80, 0.86, 0.92)) + height * (from_srgb(snippet.sky) - from_srgb((0.80, 0.86, 0.92)))
    return to_bytes(light[..., :3] + (1 - light[..., 3:]) * sky)


class _Snippet(NamedTuple):
    drive: Drive
    street: dict[str, Any]
    sun: dict
    sky: tuple[float, float, float]
    paint: tuple[float, float, float]


@lru_cache(maxsize=2)
def _snippet(city: str, number: int, frames: int) -> _Snippet:
    random = np.random.RandomState(zlib.crc32(f"{city}/{number}".encode()))
    motion = MOTIONS[number % len(MOTIONS)]
    way = drive(motion, frames, random)
    crossing = _CORNER + 7.5 if motion.startswith("turn") else random.uniform(48, 62)
    azimuth, warmth = random.uniform(-1.1, 1.1), random.uniform(0.80, 0.95)
    direction = [float(np.sin(azimuth)), float(np.cos(azimuth)), -random.uniform(0.9, 1.4)]
    sun = {
        "type": "directional",
        "direction": direction,
        "irradiance": {"type": "rgb", "value": (2.9 * np.array([1, 0.96 * warmth / 0.9, warmth])).tolist()},
    }
    sky = [(0.35, 0.55, 0.85), (0.50, 0.65, 0.82), (0.62, 0.70, 0.80)][random.randint(3)]
    still = load_parts(with_ambient(street(random, crossing), _AMBIENT))
    return _Snippet(way, still, sun, sky, paint_of_car(random))


def _frame_maker(
    city: str, number: int, frame: int, frames: int, size: tuple[int, int], samples: int
) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(png_bytes(draw_frame(city, number, frame, frames, size, samples))) and None
