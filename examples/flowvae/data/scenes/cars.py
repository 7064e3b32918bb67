"""Cars as a few solids."""

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .rendering import from_srgb, matte, place
from .solids import box, tube

# Side views as (y, z) in metres, anticlockwise with the front towards +y.
_BODY = ((-2.1, 0.30), (2.1, 0.30), (2.15, 0.62), (1.95, 0.78), (0.95, 0.92), (-1.75, 0.96), (-2.12, 0.85))
_GLASS = ((-1.70, 0.94), (0.98, 0.90), (0.28, 1.40), (-1.15, 1.42))
_ROOF = ((-1.17, 1.40), (0.30, 1.38), (0.20, 1.45), (-1.05, 1.47))


class Car(NamedTuple):
    """Where a car is, whether it comes towards the viewer, and its display colour."""

    x: float
    y: float
    oncoming: bool
    paint: tuple[float, float, float]


def car(name: str, of: Car) -> dict:
    """A car: body, windows, roof, wheels and lights."""
    turn = 180.0 if of.oncoming else 0.0
    back = 1 if of.oncoming else -1
    paint, dark = matte(from_srgb(of.paint)), matte(from_srgb((0.06, 0.06, 0.07)))
    red, white = matte(from_srgb((0.85, 0.08, 0.06))), matte(from_srgb((0.92, 0.92, 0.88)))
    parts = {}
    for part, profile, width, surface in (
        ("body", _BODY, 1.76, paint),
        ("glass", _GLASS, 1.50, matte(from_srgb((0.13, 0.16, 0.20)))),
        ("roof", _ROOF, 1.46, paint),
    ):
        to_world = place(of.x, of.y, 0, turn=turn)
        file = str(_prism(profile, width))
        parts[f"{name}_{part}"] = {
            "type": "ply", "filename": file, "face_normals": True, "to_world": to_world, "bsdf": surface,
        }  # fmt: skip
    for side in (-1, 1):
        for end in (-1, 1):
            x, y = of.x + side * 0.80, of.y + end * 1.32
            wheel = f"{name}_wheel{side + 1}{end + 1}"
            parts |= tube(wheel, (x - 0.1, y, 0.31), (x + 0.1, y, 0.31), 0.31, dark, closed=True)
        x = of.x + side * 0.68
        parts |= box(f"{name}_rear{side + 1}", (x, of.y + back * 2.11, 0.66), (0.30, 0.05, 0.15), red)
        parts |= box(f"{name}_front{side + 1}", (x, of.y - back * 2.10, 0.60), (0.32, 0.06, 0.12), white)
    parts |= box(f"{name}_plate", (of.x, of.y + back * 2.12, 0.55), (0.5, 0.05, 0.11), white)
    return parts | box(f"{name}_bumper", (of.x, of.y + back * 2.06, 0.28), (1.70, 0.16, 0.16), dark)


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="car-shapes-")


@lru_cache(maxsize=16)
def _prism(profile: tuple[tuple[float, float], ...], width: float) -> Path:
    """A file with the mesh of a side view that is drawn out across."""
    count, half = len(profile), width / 2
    points = [(x, *point) for x in (-half, half) for point in profile]
    faces = [(k, (k + 1) % count, count + (k + 1) % count, count + k) for k in range(count)]
    quads = [face[::-1] for face in faces]
    triangles = [(a, b, c) for a, b, c, _ in quads] + [(a, c, d) for a, _, c, d in quads]
    triangles += [(0, k + 1, k) for k in range(1, count - 1)]
    triangles += [(count, count + k, count + k + 1) for k in range(1, count - 1)]
    header = (
        f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty float x\nproperty float y\nproperty float z\n"
        f"element face {len(triangles)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    lines = [" ".join(f"{c:.4f}" for c in point) for point in np.array(points)]
    lines += ["3 " + " ".join(map(str, triangle)) for triangle in triangles]
    path = Path(_folder().name) / f"{abs(hash((profile, width))):x}.ply"
    path.write_text(header + "\n".join(lines) + "\n")
    return path
