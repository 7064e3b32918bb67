"""Patterns for surfaces, as linear RGB `[H, W, 3]`."""

import numpy as np

from .rendering import blotches, from_srgb


def planks(colour: tuple, random: np.random.RandomState, rows: int = 12, size: int = 192) -> np.ndarray:
    """A wooden floor: boards of differing brightness with dark gaps and grain along them."""
    board = size // rows
    image = np.ones((size, size))
    for row in range(rows):
        band = slice(row * board, (row + 1) * board)
        start = random.randint(size)
        tones = 1 + 0.3 * (random.rand(3) - 0.5)
        ends = np.sort((start + np.array([0, size // 3, 2 * size // 3])) % size)
        image[band] *= tones[np.searchsorted(ends, np.arange(size), side="right") % 3]
        image[band, ends] *= 0.55
        image[row * board] *= 0.55
    grain = np.repeat(blotches(random, size, 0.12, 40)[:, ::8], 8, axis=1)
    return (image * grain)[..., None] * from_srgb(colour)


def tiles(columns: int, rows: int, joint: float, random: np.random.RandomState, size: int = 256) -> np.ndarray:
    """Tiles of slightly differing brightness with joints between them, `[H, W]` around 1."""
    tones = 1 + 0.08 * (random.rand(rows, columns) - 0.5)
    image = np.kron(tones, np.ones((size // rows, size // columns)))
    image[:: size // rows] = image[:, :: size // columns] = joint
    return image


def stripes(colours: list[tuple], size: int = 128) -> np.ndarray:
    """Bands of colour across, each as wide as the others."""
    index = np.arange(size) * len(colours) // size
    return np.broadcast_to(from_srgb(colours)[index][None], (size, size, 3)).copy()


def picture(random: np.random.RandomState, size: int = 96) -> np.ndarray:
    """A painting of hills under an evening sky; as in every texture, the first row is the lowest."""
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    image = (1 - y[..., None]) * from_srgb((0.95, 0.65, 0.40)) + y[..., None] * from_srgb((0.25, 0.35, 0.60))
    for level, colour in ((0.5, (0.35, 0.40, 0.50)), (0.38, (0.25, 0.42, 0.35)), (0.2, (0.16, 0.28, 0.16))):
        a, b = random.rand(2)
        hill = level + 0.08 * np.sin(6 * (x + a)) + 0.05 * np.sin(13 * (x + b))
        image[y < hill] = from_srgb(colour)
    image[np.hypot(x - 0.68, y - 0.72) < 0.09] = from_srgb((1.0, 0.9, 0.6))
    return image
