"""Drawing two mice in a cage from above, grey as in an infrared video."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from .behaviour import HEIGHT, WIDTH, Track

# Discs along the body: distance from the centre along the axis, across it, radius; in pixels.
_DISCS = [(16, 0, 1.4), (13, 0, 2.8), (9.5, 0, 4.2), (5, 0, 5.0), (0, 0, 6.6), (-5, 0, 7.6), (-9, 0, 6.4)]
_EARS = [(7.5, -4.6, 2.3), (7.5, 4.6, 2.3)]
_TONES = {"resident": (30, 62), "intruder": (176, 226)}
_PATCH = 104


def draw_frames(track: Track) -> Iterator[np.ndarray]:
    """Frames `[136, 240]` in bytes: a black resident and a white intruder with shadows on bedding."""
    floor = _cage()
    for position, heading, tail in zip(track.position, track.heading, track.tail, strict=True):
        frame = floor.copy()
        for mouse in range(2):
            _draw_shadow(frame, position[mouse], heading[mouse])
        # Tails lie on the floor, below both bodies.
        for mouse, tones in enumerate(_TONES.values()):
            _draw_tail(frame, position[mouse], tail[mouse], tones)
        for mouse, tones in enumerate(_TONES.values()):
            _draw_body(frame, position[mouse], heading[mouse], tones)
        yield np.rint(frame.clip(0, 255)).astype(np.uint8)


def _cage() -> np.ndarray:
    random = np.random.RandomState(0)
    noise = sum(_smooth(random.randn(HEIGHT, WIDTH), radius) * weight for radius, weight in ((1, 9), (3, 22), (12, 60)))
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = 1 - 0.25 * (((x / WIDTH - 0.5) * 2) ** 2 + ((y / HEIGHT - 0.5) * 2) ** 2) / 2
    floor = (122 + noise) * light
    edge = np.minimum(np.minimum(x, WIDTH - 1 - x), np.minimum(y, HEIGHT - 1 - y))
    wall = np.clip((9 - edge) / 1.5, 0, 1)
    rim = np.clip(1 - np.abs(edge - 4) / 2, 0, 1)
    # Bedding lies in the walls' shade.
    floor *= 1 - 0.35 * np.exp(-np.maximum(edge - 9, 0) / 6)
    return floor * (1 - wall) + wall * (58 + 70 * rim)


def _smooth(image: np.ndarray, radius: int) -> np.ndarray:
    kernel = np.ones(2 * radius + 1) / (2 * radius + 1)
    for axis in (0, 1, 0, 1):
        image = np.apply_along_axis(lambda line: np.convolve(line, kernel, mode="same"), axis, image)
    return image


def _patch(position: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """The part of the frame around an animal, and its pixels' offsets from the animal's centre."""
    left, top = (np.floor(position).astype(int) - _PATCH // 2).tolist()
    rows = slice(max(0, top), min(HEIGHT, top + _PATCH))
    columns = slice(max(0, left), min(WIDTH, left + _PATCH))
    x = np.arange(columns.start, columns.stop) + 0.5 - position[0]
    y = (np.arange(rows.start, rows.stop) + 0.5 - position[1])[:, None]
    return (rows, columns), x, y


def _place(disc: tuple[float, float, float], heading: np.ndarray) -> tuple[float, float]:
    along, across, _ = disc
    angle = heading[0] if along > 0 else heading[1]
    return np.cos(angle) * along - np.sin(angle) * across, np.sin(angle) * along + np.cos(angle) * across


def _depth(x: np.ndarray, y: np.ndarray, heading: np.ndarray, discs: list) -> np.ndarray:
    """How far inside the body a pixel lies: the smooth maximum over discs, positive inside."""
    sharpness = 1.2
    total = np.zeros(np.broadcast_shapes(x.shape, y.shape))
    for disc in discs:
        u, v = _place(disc, heading)
        total += np.exp(sharpness * np.clip(disc[2] - np.hypot(x - u, y - v), -20, 20))
    return np.log(total) / sharpness


def _draw_shadow(frame: np.ndarray, position: np.ndarray, heading: np.ndarray) -> None:
    part, x, y = _patch(position)
    frame[part] *= 1 - 0.4 / (1 + np.exp(-(_depth(x - 3, y - 4, heading, _DISCS) + 0.5) / 1.4))


def _draw_tail(frame: np.ndarray, position: np.ndarray, tail: np.ndarray, tones: tuple[int, int]) -> None:
    part, x, y = _patch(position)
    view = frame[part]
    dark, light = tones
    joints = tail - position
    nearest = np.full(view.shape, np.inf)
    for k, (start, stop) in enumerate(pairwise(joints)):
        dx, dy = stop - start
        along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
        thickness = 1.3 - 0.6 * (k + along) / len(joints)
        nearest = np.minimum(nearest, np.hypot(x - start[0] - along * dx, y - start[1] - along * dy) - thickness)
    _blend(view, np.clip(0.5 - nearest, 0, 1), dark + 0.5 * (light - dark))


def _draw_body(frame: np.ndarray, position: np.ndarray, heading: np.ndarray, tones: tuple[int, int]) -> None:
    part, x, y = _patch(position)
    view = frame[part]
    dark, light = tones
    for ear in _EARS:
        u, v = _place(ear, heading)
        _blend(view, np.clip(0.5 + ear[2] - np.hypot(x - u, y - v), 0, 1), dark + 0.35 * (light - dark))
    depth = _depth(x, y, heading, _DISCS)
    # A round back, lit from above left.
    height = np.sqrt(np.clip(depth, 0, None) / 8)
    slope_y, slope_x = np.gradient(height)
    tone = dark + (light - dark) * np.clip(0.25 + 0.6 * height + 1.2 * (slope_x + slope_y), 0, 1.15)
    _blend(view, np.clip(0.5 + depth, 0, 1), tone)


def _blend(view: np.ndarray, cover: np.ndarray, tone: np.ndarray | float) -> None:
    view *= 1 - cover
    view += cover * tone
