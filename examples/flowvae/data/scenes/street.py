"""The street of Cityscapes' stand-in: road, houses, trees and cars, different for every seed."""

from typing import Any

import numpy as np

from .cars import Car, car
from .rendering import from_srgb, matte, place, texture, transform
from .solids import ball, box, panel, tube

_ROAD, _KERB, _HOUSES, _CROSSING = 6.2, 2.6, 8.8, 13.0
_FRONTS = (
    (0.78, 0.70, 0.58),
    (0.66, 0.42, 0.34),
    (0.72, 0.72, 0.70),
    (0.80, 0.62, 0.45),
    (0.55, 0.58, 0.62),
    (0.83, 0.80, 0.72),
)
_PAINTS = (
    (0.75, 0.10, 0.10),
    (0.10, 0.20, 0.55),
    (0.85, 0.85, 0.85),
    (0.22, 0.22, 0.24),
    (0.50, 0.52, 0.55),
    (0.15, 0.40, 0.30),
)


def paint_of_car(random: np.random.RandomState) -> tuple[float, float, float]:
    """Display colour of a car."""
    return _PAINTS[random.randint(len(_PAINTS))]


def street(random: np.random.RandomState, crossing: float) -> dict:
    """What stands still, with x to the right, y along the street, z up.

    Args:
        random: Source of randomness.
        crossing: Where another street crosses, in metres along this one.
    """
    parts = panel("ground", transform().scale([160, 160, 1]), matte(from_srgb((0.36, 0.36, 0.38))))
    parts |= _markings(crossing)
    parts |= _blocks(crossing)
    parts |= _houses(random, crossing)
    parts |= _trees(random, crossing)
    return parts | _parked(random, crossing)


def _markings(crossing: float) -> dict:
    white = matte(from_srgb((0.85, 0.85, 0.83)))
    parts = {}
    for k, y in enumerate(np.arange(-10, 100, 5.0)):
        if abs(y - crossing) > _CROSSING / 2 + 4.5:
            parts |= panel(f"dash{k}", place(0, y, 0.012, [0.08, 1.4, 1]), white)
    for side in (-1, 1):
        for name, low, high in (("near", -15, crossing - 10), ("far", crossing + 10, 110)):
            to_world = place(side * (_ROAD - 2.15), (low + high) / 2, 0.012, [0.05, (high - low) / 2, 1])
            parts |= panel(f"lane{side + 1}{name}", to_world, white)
    for k in range(12):
        stripe = place(k - 5.5, crossing - 8.2, 0.013, [0.25, 1.1, 1])
        parts |= panel(f"zebra{k}", stripe, white)
    return parts


def _blocks(crossing: float) -> dict:
    stone = matte(from_srgb((0.60, 0.58, 0.56)))
    parts = {}
    half = _CROSSING / 2
    for side in (-1, 1):
        for name, low, high in (("near", -25, crossing - half), ("far", crossing + half, 125)):
            centre = (side * (_ROAD + 50), (low + high) / 2, 0)
            parts |= box(f"block{side + 1}{name}", centre, (100, high - low, 0.14), stone)
    return parts


def _houses(random: np.random.RandomState, crossing: float) -> dict:
    parts: dict = {}
    near, far = crossing - _CROSSING / 2 - _KERB, crossing + _CROSSING / 2 + _KERB
    # Whole houses end at the corners, so rows start there.
    for side in (-1, 1):
        for row, start, way, stop in (("near", near, -1, -14), ("far", far, 1, 105)):
            y = start
            while way * (stop - y) > 0:
                width, height, depth = random.uniform(8, 14), random.uniform(7, 15), 12.0
                centre = (side * (_HOUSES + depth / 2), y + way * width / 2, 0)
                parts |= _house(f"house{side + 1}{row}{len(parts)}", centre, (depth, width, height), random)
                y += way * width
        for row, edge, way in (("near", near, -1), ("far", far, 1)):
            for k in range(4):
                width, height = 12.0, random.uniform(7, 15)
                centre = (side * (_HOUSES + 12 + width * (k + 0.5)), edge + way * 6, 0)
                parts |= _house(f"side{side + 1}{row}{k}", centre, (width, 12, height), random)
        parts |= _house(f"end{side + 1}", (side * 75, crossing, 0), (8, 40, 16), random)
    return parts | _house("end", (0, 118, 0), (60, 10, 18), random)


def _house(name: str, centre: tuple, size: tuple, random: np.random.RandomState) -> dict:
    colour = np.array(_FRONTS[random.randint(len(_FRONTS))]) * random.uniform(0.85, 1.05)
    columns, rows = max(2, round(max(size[:2]) / 3.2)), max(2, round(size[2] / 3.2))
    front = matte(texture(facade(columns, rows, np.clip(colour, 0, 1), random), smooth=False))
    return box(name, centre, size, front)


def facade(columns: int, rows: int, colour: Any, random: np.random.RandomState) -> np.ndarray:
    """A front with windows, linear RGB `[H, W, 3]`; the first row is the lowest.

    Args:
        columns: Windows from side to side.
        rows: Storeys.
        colour: Display colour of the wall.
        random: Source of randomness.
    """
    cell = 20
    image = np.empty((rows * cell, columns * cell, 3), np.float32)
    image[:] = from_srgb(colour)
    frame, shop = from_srgb(np.minimum(1, np.asarray(colour) * 1.15)), from_srgb((0.20, 0.22, 0.25))
    for row in range(rows):
        for column in range(columns):
            y, x = row * cell, column * cell
            glass = from_srgb(np.array([0.24, 0.30, 0.38]) * random.uniform(0.7, 1.3))
            if row == 0:
                image[y : y + 14, x + 2 : x + 18] = shop if random.rand() < 0.6 else glass
            else:
                image[y + 4 : y + 17, x + 5 : x + 15] = frame
                image[y + 5 : y + 16, x + 6 : x + 14] = glass
        image[row * cell + cell - 1] *= 0.7
    return image


def _trees(random: np.random.RandomState, crossing: float) -> dict:
    parts = {}
    bark = matte(from_srgb((0.30, 0.22, 0.16)))
    for k, y in enumerate(np.arange(-4, 90, 9.0)):
        for side in (-1, 1):
            if random.rand() < 0.45 or abs(y - crossing) < _CROSSING / 2 + 1:
                continue
            x, high = side * (_ROAD + 0.9), random.uniform(2.6, 3.4)
            leaf = matte(from_srgb(np.array([0.25, 0.42, 0.18]) * random.uniform(0.8, 1.15)))
            parts |= tube(f"trunk{side + 1}{k}", (x, y, 0), (x, y, high), 0.13, bark)
            parts |= ball(f"crown{side + 1}{k}", (x, y, high + 0.6), (1.25, 1.25, 1.5), leaf)
            parts |= ball(f"top{side + 1}{k}", (x + 0.4, y + 0.3, high + 1.5), (0.9, 0.9, 0.9), leaf)
    return parts


def _parked(random: np.random.RandomState, crossing: float) -> dict:
    parts = {}
    for k, y in enumerate(np.arange(2, 70, 6.5)):
        for side in (-1, 1):
            if random.rand() < 0.5 or abs(y - crossing) < _CROSSING / 2 + 5:
                continue
            parked = Car(side * (_ROAD - 1.05), y + random.uniform(-0.5, 0.5), side < 0, paint_of_car(random))
            parts |= car(f"parked{side + 1}{k}", parked)
    return parts
