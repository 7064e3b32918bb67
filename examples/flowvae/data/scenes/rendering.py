"""What the scenes share: rendering by Mitsuba, materials, and the way from light to bytes."""

import colorsys
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

UP = (0.0, 0.0, 1.0)


class MissingRendererError(ImportError):
    """Mitsuba is not installed."""


def mitsuba() -> ModuleType:
    """Mitsuba in its scalar variant on one thread.

    Raises:
        MissingRendererError: If it is not installed.
    """
    try:
        import drjit
        import mitsuba as mi
    except ImportError as error:
        raise MissingRendererError(
            f"rendered stand-ins: expected the package mitsuba, got {error}. Install the extra: "
            'pip install ".[render]" in a checkout.'
        ) from error
    # Threads do not inherit the variant.
    if mi.variant() != "scalar_rgb":
        mi.set_variant("scalar_rgb")
        mi.set_log_level(mi.LogLevel.Error)
        drjit.set_thread_count(1)
    return mi


def transform() -> Any:
    """The identity, to which `translate`, `rotate`, `scale` are applied from left to right."""
    return mitsuba().ScalarTransform4f()


def place(x: float, y: float, z: float, scale: Any = 1.0, turn: float = 0.0) -> Any:
    """Scale, turn about the vertical by an angle in degrees, then move."""
    factors = np.broadcast_to(np.asarray(scale, dtype=float), 3).tolist()
    return transform().translate([float(x), float(y), float(z)]).rotate(list(UP), float(turn)).scale(factors)


def matte(colour: Any) -> dict:
    """A surface that scatters light evenly, on both sides.

    Args:
        colour: Linear RGB, or the texture `[H, W, 3]` that `texture` gives.
    """
    reflectance = colour if isinstance(colour, dict) else {"type": "rgb", "value": [float(c) for c in colour]}
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": reflectance}}


def texture(pixels: np.ndarray, repeat: tuple[float, float] = (1.0, 1.0), *, smooth: bool = True) -> dict:
    """A texture of linear RGB values.

    Args:
        pixels: `[H, W, 3]`.
        repeat: How often it is laid side by side in both directions.
        smooth: Interpolate between its pixels.
    """
    mi = mitsuba()
    return {
        "type": "bitmap",
        "bitmap": mi.Bitmap(np.ascontiguousarray(pixels, dtype=np.float32)),
        "raw": True,
        "filter_type": "bilinear" if smooth else "nearest",
        "to_uv": transform().scale([repeat[0], repeat[1], 1]),
    }


def camera(origin: Any, target: Any, fov: float, size: tuple[int, int], samples: int, *, fov_axis: str = "y") -> dict:
    """A pinhole camera.

    Args:
        origin: Where it is.
        target: What it looks at.
        fov: Angle of view in degrees.
        size: Width and height in pixels.
        samples: Rays per pixel.
        fov_axis: The axis that the angle is measured along.
    """
    return {
        "type": "perspective",
        "fov": fov,
        "fov_axis": fov_axis,
        "near_clip": 0.01,
        "to_world": transform().look_at([float(v) for v in origin], [float(v) for v in target], list(UP)),
        "film": {
            "type": "hdrfilm",
            "width": size[0],
            "height": size[1],
            "pixel_format": "rgba",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "multijitter", "sample_count": samples},
    }


def lit_by_lamps(lamps: dict[str, dict], *, hide: bool = True) -> dict:
    """Lamps, and the integrator for their direct light; with a single point or distant lamp it is free of noise.

    Args:
        lamps: The lamps.
        hide: Whether surfaces that shine are unseen; not so with `with_ambient`.
    """
    return {
        "integrator": {"type": "direct", "emitter_samples": 1, "bsdf_samples": 0, "hide_emitters": hide},
        **lamps,
    }


def lit_by_sky(radiance: float = 1.0) -> dict:
    """Even light from everywhere; what a surface does not see of the sky darkens it."""
    return {
        "integrator": {"type": "direct", "emitter_samples": 0, "bsdf_samples": 1, "hide_emitters": True},
        "sky": {"type": "constant", "radiance": radiance},
    }


def with_ambient(parts: dict, ambient: np.ndarray) -> dict:
    """Matte solids under an even light that comes from everywhere and is not shaded, without noise.

    They shine by themselves as they would in that light, and lamps are not looked for among them.

    Args:
        parts: Solids with surfaces from `matte`.
        ambient: Linear RGB of the light.
    """
    mi = mitsuba()
    lit = {}
    for name, part in parts.items():
        reflectance = part["bsdf"]["bsdf"]["reflectance"]
        if reflectance["type"] == "rgb":
            radiance = {"type": "rgb", "value": (np.array(reflectance["value"]) * ambient).tolist()}
        else:
            pixels = np.array(reflectance["bitmap"]) * ambient
            radiance = {**reflectance, "bitmap": mi.Bitmap(pixels.astype(np.float32))}
        lit[name] = {**part, "shine": {"type": "area", "radiance": radiance, "sampling_weight": 0.0}}
    return lit


def load_parts(parts: dict) -> dict[str, Any]:
    """Solids that are ready to be put into scenes."""
    mi = mitsuba()
    return {name: mi.load_dict(part) for name, part in parts.items()}


def load(parts: dict) -> Any:
    """A scene that is ready to be rendered."""
    return mitsuba().load_dict({"type": "scene", **parts})


def render(scene: Any, seed: int = 0, **moved: Any) -> np.ndarray:
    """Linear RGB and coverage of every pixel, `[H, W, 4]`; where nothing is seen, all four are 0.

    Args:
        scene: The parts of a scene, or what `load` made of them.
        seed: Seed of the rays.
        **moved: New positions of lamps of a loaded scene, by their names.
    """
    mi = mitsuba()
    scene = load(scene) if isinstance(scene, dict) else scene
    if moved:
        parameters = mi.traverse(scene)
        for name, position in moved.items():
            parameters[f"{name}.position"] = [float(x) for x in position]
        parameters.update()
    return np.array(mi.render(scene, seed=seed), dtype=np.float32)


def from_srgb(colour: Any) -> np.ndarray:
    """Linear light of display values in [0, 1]."""
    value = np.asarray(colour, dtype=np.float64)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)


def hue(value: float, saturation: float = 1.0, brightness: float = 1.0) -> np.ndarray:
    """Linear RGB of a hue; 0 and 1 are red."""
    return from_srgb(colorsys.hsv_to_rgb(value % 1.0, saturation, brightness))


_LEVELS = 1 << 16


@lru_cache(maxsize=1)
def _bytes_of_light() -> np.ndarray:
    linear = np.arange(_LEVELS) / (_LEVELS - 1)
    display = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * display).astype(np.uint8)


def to_bytes(linear: np.ndarray) -> np.ndarray:
    """Bytes as a display takes them (sRGB); light beyond 1 is cut off."""
    index = np.clip(linear, 0, 1) * np.float32(_LEVELS - 1) + np.float32(0.5)
    return _bytes_of_light()[index.astype(np.uint16)]


def blotches(random: np.random.RandomState, size: int, strength: float, cells: int) -> np.ndarray:
    """A faint smooth pattern around 1 that repeats without a seam, `[size, size]`.

    Args:
        random: Source of randomness.
        size: Pixels along an edge.
        strength: Largest deviation from 1.
        cells: Number of waves along an edge at most.
    """
    frequencies = np.fft.fftfreq(size, 1 / size)
    low = np.hypot(frequencies[:, None], frequencies[None]) <= cells
    pattern = np.fft.ifft2(np.fft.fft2(random.randn(size, size)) * low).real
    return 1 + strength * pattern / np.abs(pattern).max()
