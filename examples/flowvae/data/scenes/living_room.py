"""The furniture of Falcor3D's stand-in."""

import numpy as np

from .rendering import blotches, from_srgb, matte, place, texture, transform
from .solids import ball, box, panel, tube, upright
from .textures import picture, planks, stripes


def painted(*colour: float) -> dict:
    """A matte surface of a display colour."""
    return matte(from_srgb(colour))


def glossy(*colour: float) -> dict:
    """A surface of a display colour with highlights."""
    diffuse = {"type": "rgb", "value": from_srgb(colour).tolist()}
    return {"type": "twosided", "bsdf": {"type": "roughplastic", "diffuse_reflectance": diffuse, "alpha": 0.18}}


def living_room() -> dict:
    """A room of five metres by six, open to the front and above, with x to the right, y into the picture, z up."""
    random = np.random.RandomState(3)
    return {**_shell(random), **_sofa(), **_table(), **_corner_left(), **_shelf(random), **_chair()}


def _shell(random: np.random.RandomState) -> dict:
    plaster = matte(texture(blotches(random, 64, 0.05, 6)[..., None] * from_srgb((0.88, 0.82, 0.70)), (2, 1)))
    side = painted(0.55, 0.66, 0.66)
    rug = stripes([(0.62, 0.20, 0.18), (0.85, 0.75, 0.55), (0.20, 0.25, 0.40), (0.85, 0.75, 0.55), (0.62, 0.20, 0.18)])
    white = painted(0.9, 0.9, 0.88)
    return {
        **panel("floor", transform().scale([2.5, 3.2, 1]), matte(texture(planks((0.72, 0.50, 0.32), random)))),
        **panel("rug", place(-0.1, 0.1, 0.006, [1.35, 0.95, 1]), matte(texture(rug))),
        **panel("back", upright(0, 2.5, 2, 5, 4), plaster),
        **panel("left", upright(-2.5, 0, 2, 6, 4, 90), side),
        **panel("right", upright(2.5, 0, 2, 6, 4, -90), side),
        **box("skirting", (0, 2.485, 0), (5, 0.03, 0.12), white),
        **box("frame", (-0.55, 2.47, 1.45), (1.25, 0.05, 0.85), painted(0.30, 0.20, 0.12)),
        **panel("canvas", upright(-0.55, 2.44, 1.875, 1.1, 0.7), matte(texture(picture(random)))),
        **box("window", (-2.47, 0.9, 0.95), (0.06, 1.3, 1.3), white),
        **panel("pane", upright(-2.43, 0.9, 1.6, 1.15, 1.15, 90), painted(0.62, 0.80, 0.95)),
        **box("bar", (-2.42, 0.9, 1.0), (0.03, 0.05, 1.2), white),
    }


def _sofa() -> dict:
    cloth, dark = painted(0.25, 0.42, 0.52), painted(0.20, 0.35, 0.45)
    return {
        **box("seat", (-0.55, 1.85, 0.12), (2.0, 0.85, 0.30), cloth),
        **box("seat_left", (-1.03, 1.80, 0.42), (0.94, 0.72, 0.12), cloth),
        **box("seat_right", (-0.07, 1.80, 0.42), (0.94, 0.72, 0.12), cloth),
        **box("rest", (-0.55, 2.25, 0.12), (2.0, 0.22, 0.78), dark),
        **box("arm_left", (-1.63, 1.87, 0.05), (0.2, 0.9, 0.58), dark),
        **box("arm_right", (0.53, 1.87, 0.05), (0.2, 0.9, 0.58), dark),
        **ball("cushion_left", (-1.25, 2.0, 0.70), (0.23, 0.10, 0.19), painted(0.90, 0.65, 0.20), 12),
        **ball("cushion_right", (0.18, 2.0, 0.70), (0.23, 0.10, 0.19), painted(0.80, 0.32, 0.25), -15),
    }


def _table() -> dict:
    wood = painted(0.50, 0.30, 0.17)
    parts = box("top", (-0.15, 0.25, 0.40), (1.25, 0.70, 0.05), wood)
    for k, (x, y) in enumerate(((-0.7, -0.03), (0.4, -0.03), (-0.7, 0.53), (0.4, 0.53))):
        parts |= box(f"leg{k}", (x, y, 0), (0.06, 0.06, 0.40), wood)
    fruit = glossy(0.95, 0.50, 0.10)
    return parts | {
        **ball("vase", (-0.50, 0.32, 0.59), 0.14, glossy(0.15, 0.40, 0.65)),
        **tube("neck", (-0.50, 0.32, 0.70), (-0.50, 0.32, 0.86), 0.055, glossy(0.15, 0.40, 0.65)),
        **box("book_low", (0.02, 0.22, 0.45), (0.34, 0.24, 0.045), painted(0.65, 0.15, 0.15), 18),
        **box("book_high", (0.03, 0.23, 0.495), (0.28, 0.20, 0.04), painted(0.92, 0.88, 0.78), -8),
        **ball("orange", (0.28, 0.35, 0.51), 0.06, fruit),
        **ball("orange_two", (0.37, 0.24, 0.51), 0.06, fruit),
        **ball("apple", (0.26, 0.12, 0.505), 0.055, glossy(0.75, 0.12, 0.10)),
    }


def _corner_left() -> dict:
    clay, leaf = glossy(0.70, 0.36, 0.24), painted(0.20, 0.45, 0.20)
    parts = tube("pot", (-2.05, 1.95, 0), (-2.05, 1.95, 0.38), 0.2, clay, closed=True)
    parts |= tube("stem", (-2.05, 1.95, 0.35), (-2.05, 1.95, 0.85), 0.03, painted(0.35, 0.25, 0.15))
    spots = ((0, 0, 1.05, 0.26), (0.17, -0.1, 0.9, 0.2), (-0.17, -0.05, 0.95, 0.2), (0.05, 0.1, 1.3, 0.2))
    for k, (x, y, z, radius) in enumerate(spots):
        parts |= ball(f"leaves{k}", (-2.05 + x, 1.95 + y, z), (radius, radius, radius * 0.8), leaf)
    return parts


def _shelf(random: np.random.RandomState) -> dict:
    wood = painted(0.42, 0.26, 0.15)
    parts = box("side_left", (1.15, 2.3, 0), (0.05, 0.35, 1.9), wood)
    parts |= box("side_right", (2.25, 2.3, 0), (0.05, 0.35, 1.9), wood)
    parts |= box("behind", (1.7, 2.46, 0), (1.1, 0.03, 1.9), painted(0.35, 0.21, 0.12))
    colours = [(0.70, 0.20, 0.18), (0.20, 0.35, 0.60), (0.85, 0.70, 0.35), (0.25, 0.45, 0.30), (0.80, 0.78, 0.72)]
    for row, low in enumerate((0.05, 0.52, 0.99, 1.46, 1.86)):
        parts |= box(f"board{row}", (1.7, 2.3, low), (1.1, 0.35, 0.04), wood)
        x = 1.22
        while row < 4 and x < 2.05:
            width, height = random.uniform(0.06, 0.13), random.uniform(0.24, 0.36)
            book = painted(*colours[random.randint(len(colours))])
            parts |= box(
                f"book{row}_{x:.3f}".replace(".", "_"), (x + width / 2, 2.28, low + 0.04), (width, 0.24, height), book
            )
            x += width + 0.01
    return parts


def _chair() -> dict:
    cloth, shade, metal = painted(0.72, 0.55, 0.30), painted(0.93, 0.87, 0.75), glossy(0.25, 0.25, 0.27)
    return {
        **box("chair", (1.55, 0.95, 0.12), (0.72, 0.72, 0.32), cloth, -35),
        **box("chair_rest", (1.79, 1.12, 0.12), (0.16, 0.72, 0.85), cloth, -35),
        **tube("pole", (0.88, 2.15, 0), (0.88, 2.15, 1.45), 0.02, metal),
        **tube("foot", (0.88, 2.15, 0), (0.88, 2.15, 0.03), 0.15, metal, closed=True),
        **tube("shade", (0.88, 2.15, 1.40), (0.88, 2.15, 1.72), 0.17, shade, closed=True),
    }
