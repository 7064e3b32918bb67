"""Solids that the scenes are built from, each as entries of a scene."""

from typing import Any

import numpy as np

from .rendering import place, transform


def box(name: str, centre: Any, size: Any, bsdf: dict, turn: float = 0.0) -> dict:
    """A box.

    Args:
        name: Name in the scene.
        centre: Its centre in x and y, and the height of its lower side.
        size: Its extent in x, y, z.
        bsdf: Its surface.
        turn: Angle about the vertical in degrees.
    """
    x, y, low = centre
    to_world = place(x, y, low + size[2] / 2, [side / 2 for side in size], turn)
    return {name: {"type": "cube", "to_world": to_world, "bsdf": bsdf}}


def ball(name: str, centre: Any, radius: Any, bsdf: dict, turn: float = 0.0) -> dict:
    """A sphere, or an ellipsoid if there are three radii."""
    if np.ndim(radius) == 0:
        shape = {"type": "sphere", "center": [float(c) for c in centre], "radius": float(radius), "bsdf": bsdf}
    else:
        shape = {"type": "sphere", "to_world": place(*centre, radius, turn), "bsdf": bsdf}
    return {name: shape}


def tube(name: str, low: Any, high: Any, radius: float, bsdf: dict, *, closed: bool = False) -> dict:
    """A cylinder between two points, with discs at its ends if it is closed."""
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    parts = {
        name: {
            "type": "cylinder", "radius": float(radius), "p0": low.tolist(), "p1": high.tolist(), "bsdf": bsdf,
        }
    }  # fmt: skip
    if closed:
        axis = (high - low) / np.linalg.norm(high - low)
        up = [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0]
        for end, point, way in (("low", low, -axis), ("high", high, axis)):
            to_world = transform().look_at(point.tolist(), (point + way).tolist(), up).scale(float(radius))
            parts[f"{name}_{end}"] = {"type": "disk", "to_world": to_world, "bsdf": bsdf}
    return parts


def panel(name: str, to_world: Any, bsdf: dict) -> dict:
    """A square from −1 to 1, moved into place."""
    return {name: {"type": "rectangle", "to_world": to_world, "bsdf": bsdf}}


def upright(x: float, y: float, z: float, width: float, height: float, turn: float = 0.0) -> Any:
    """Where a panel stands upright: its centre, its extent, and its angle about the vertical in degrees.

    Without a turn it faces −y, and a texture on it is neither mirrored nor upside down.
    """
    return place(x, y, z, turn=turn).rotate([1, 0, 0], 90).scale([width / 2, height / 2, 1])
