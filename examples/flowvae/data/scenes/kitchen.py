"""The kitchen and the robot of Isaac3D's stand-in."""

from typing import Any

import numpy as np

from .rendering import from_srgb, matte, texture
from .solids import ball, box, panel, tube, upright
from .textures import planks, tiles

BLACK = (0.0, 0.0, 0.0)
# The worktop's height, where the arm is mounted, and the lengths of its links, in metres.
_TOP, _SHOULDER = 0.9, np.array([0.0, 0.48, 1.27])
_UPPER, _FORE, _HAND = 0.52, 0.50, 0.16


def kitchen(wall: dict, rest: bool) -> dict:
    """A worktop before a wall with cupboards, x to the right, y into the picture, z up.

    Args:
        wall: Surface of the wall.
        rest: Whether everything but the wall has its colours; else it is black and only hides and shades.
    """
    random = np.random.RandomState(5)

    def paint(*colour: float) -> dict:
        return matte(from_srgb(colour) if rest else BLACK)

    wood = matte(texture(planks((0.70, 0.52, 0.34), random, rows=6), (1, 1))) if rest else paint(0)
    tile = np.repeat(tiles(16, 4, 0.80, random)[..., None], 3, -1) * from_srgb((0.86, 0.86, 0.82))
    splash = matte(texture(tile)) if rest else paint(0)
    parts = {
        **panel("wall", upright(0, 1.0, 1.6, 5, 3.2), wall),
        **panel("wall_left", upright(-2.3, -0.5, 1.6, 3, 3.2, 90), wall),
        **panel("wall_right", upright(2.3, -0.5, 1.6, 3, 3.2, -90), wall),
        **panel("splash", upright(0, 0.985, 1.13, 4.6, 0.46), splash),
        **box("worktop", (0, 0.35, _TOP - 0.05), (4.6, 1.3, 0.05), wood),
        **box("base", (0, 0.42, 0), (4.6, 1.1, _TOP - 0.05), paint(0.80, 0.82, 0.80)),
    }
    for k, x in enumerate((-1.65, -0.95, 0.95, 1.65)):
        parts |= box(f"cupboard{k}", (x, 0.83, 1.62), (0.68, 0.34, 0.62), paint(0.80, 0.84, 0.86))
        parts |= box(
            f"handle{k}", (x + (0.25 if x < 0 else -0.25), 0.645, 1.68), (0.02, 0.03, 0.14), paint(0.3, 0.3, 0.3)
        )
    return parts | _utensils(paint)


def _utensils(paint: Any) -> dict:
    red, steel, jar, bread = (
        paint(0.75, 0.18, 0.15),
        paint(0.60, 0.62, 0.65),
        paint(0.85, 0.80, 0.65),
        paint(0.78, 0.55, 0.3),
    )
    return {
        **tube("pot", (-0.68, 0.70, _TOP), (-0.68, 0.70, _TOP + 0.17), 0.13, red, closed=True),
        **ball("knob", (-0.68, 0.70, _TOP + 0.19), 0.03, steel),
        **tube("jar", (0.58, 0.78, _TOP), (0.58, 0.78, _TOP + 0.24), 0.075, jar, closed=True),
        **tube("jar_low", (0.76, 0.78, _TOP), (0.76, 0.78, _TOP + 0.17), 0.075, paint(0.35, 0.50, 0.40), closed=True),
        **box("toaster", (0.74, 0.42, _TOP), (0.24, 0.15, 0.15), steel, 20),
        **ball("loaf", (-0.72, 0.36, _TOP + 0.06), (0.15, 0.09, 0.07), bread, 25),
    }


def arm(reach: np.ndarray, rest: bool) -> dict:
    """A robot arm that stands on the worktop, its hand pointing down.

    Args:
        reach: Where the tip of the hand is.
        rest: As for `kitchen`.
    """
    white = matte(from_srgb((0.90, 0.90, 0.90)) if rest else BLACK)
    joint = matte(from_srgb((0.20, 0.22, 0.26)) if rest else BLACK)
    wrist = np.asarray(reach, dtype=float) + np.array([0, 0, _HAND])
    elbow = _elbow(wrist)
    foot = np.array([*_SHOULDER[:2], _TOP])
    parts = {
        **tube("foot", foot, foot + np.array([0, 0, 0.06]), 0.15, joint, closed=True),
        **tube("column", foot, _SHOULDER, 0.085, white),
        **ball("shoulder", _SHOULDER, 0.105, joint),
        **tube("upper", _SHOULDER, elbow, 0.065, white),
        **ball("elbow", elbow, 0.08, joint),
        **tube("fore", elbow, wrist, 0.052, white),
        **ball("wrist", wrist, 0.062, joint),
        **tube("hand", wrist, wrist - np.array([0, 0, 0.08]), 0.04, white),
        **box("palm", (wrist[0], wrist[1], wrist[2] - 0.10), (0.16, 0.06, 0.03), joint),
    }
    for side in (-1, 1):
        parts |= box(
            f"finger{side + 1}", (wrist[0] + side * 0.07, wrist[1], wrist[2] - _HAND - 0.02), (0.018, 0.04, 0.10), joint
        )
    return parts


def held(shape: int, size: float, reach: np.ndarray, bsdf: dict) -> dict:
    """What the hand holds: 0 a cube, 1 a ball, 2 a cylinder; `size` is its extent in metres."""
    x, y, z = reach
    half = size / 2
    if shape == 0:
        return box("held", (x, y, z - half), (size, size, size), bsdf)
    if shape == 1:
        return ball("held", (x, y, z), half * 1.1, bsdf)
    return tube("held", (x, y, z - half), (x, y, z + half), half * 0.95, bsdf, closed=True)


def _elbow(wrist: np.ndarray) -> np.ndarray:
    """Where the elbow is, above the line from shoulder to wrist."""
    way = wrist - _SHOULDER
    distance = min(float(np.linalg.norm(way)), _UPPER + _FORE - 1e-6)
    along = way / np.linalg.norm(way)
    up = np.array([0.0, 0.0, 1.0])
    across = up - along * (up @ along)
    across /= np.linalg.norm(across)
    cos = (_UPPER**2 + distance**2 - _FORE**2) / (2 * _UPPER * distance)
    return _SHOULDER + _UPPER * (cos * along + np.sqrt(max(0.0, 1 - cos**2)) * across)
