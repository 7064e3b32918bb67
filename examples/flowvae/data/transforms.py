"""Scale, rotation and hue of a grey image: every frame is rendered once, from the still image."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

FACTORS = ("scale", "rotation", "hue")
# One step of a factor at unit speed: growth, degrees, degrees.
SCALE_STEP, ROTATION_STEP, HUE_STEP = 0.1, 20.0, 20.0
# The scales that poses stay in, so that the encoder meets every one as a first frame.
SCALES = (0.8, 1.6)


def render(images: Tensor, poses: Tensor) -> Tensor:
    """Frames of still images at given poses.

    Args:
        images: Grey images `[N, 1, H, W]`.
        poses: Logarithm of the scale, rotation and hue, both in radians: `[N, F, 3]`.

    Returns:
        Frames `[N, F, 3, H, W]` in [0, 1].
    """
    count, frames = poses.shape[:2]
    scale, angle, hue = poses.flatten(0, 1).unbind(-1)
    cos, sin, zero = angle.cos() / scale.exp(), angle.sin() / scale.exp(), torch.zeros_like(angle)
    inverse = torch.stack((cos, sin, zero, -sin, cos, zero), -1).view(-1, 2, 3)
    size = (count * frames, 1, *images.shape[-2:])
    grid = F.affine_grid(inverse, size, align_corners=False)
    grey = F.grid_sample(images.repeat_interleave(frames, 0), grid, align_corners=False)
    return (grey * hue_to_rgb(hue)[..., None, None]).clamp(0, 1).unflatten(0, (count, frames))


def hue_to_rgb(hue: Tensor) -> Tensor:
    """Fully saturated colour `[*, 3]` of a hue in radians; 0 is red."""
    sextant = 3 / math.pi * hue[..., None] + hue.new_tensor([0.0, 4.0, 2.0])
    return ((sextant.remainder(6) - 3).abs() - 1).clamp(0, 1)


def single_factor_poses(factor: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Sequences in which one factor moves and the others rest, from random poses (FFRL).

    Frame t has 1 + 0.1 t times the first scale, 10° t more rotation, or 20° t more hue.

    Args:
        factor: Index into `FACTORS` per sequence, `[N]`.
        steps: Frames after the first.
        generator: Source of the first poses.

    Returns:
        Poses `[N, steps + 1, 3]`.
    """
    t = torch.arange(steps + 1.0)
    growth = torch.log1p(SCALE_STEP * t)
    moves = torch.stack((growth, math.radians(ROTATION_STEP / 2) * t, math.radians(HUE_STEP) * t))
    return _from_random_start(moves.T * torch.eye(3)[factor][:, None], generator)


def scheduled_poses(weights: Tensor, generator: torch.Generator) -> Tensor:
    """Sequences in which several factors move at once, at their own speeds, from random poses (STA).

    A step multiplies the scale by 1 + 0.1 g and adds 20° g of rotation and of hue; steps accumulate.

    Args:
        weights: Coefficient g of every factor and step, `[N, steps, 3]`.
        generator: Source of the first poses.

    Returns:
        Poses `[N, steps + 1, 3]`.
    """
    scale, rotation, hue = weights.unbind(-1)
    steps = torch.stack(
        (torch.log1p(SCALE_STEP * scale), math.radians(ROTATION_STEP) * rotation, math.radians(HUE_STEP) * hue), -1
    )
    return _from_random_start(F.pad(steps, (0, 0, 1, 0)).cumsum(1), generator)


def _from_random_start(moves: Tensor, generator: torch.Generator) -> Tensor:
    low, high = (math.log(scale) for scale in SCALES)
    draw = torch.rand(len(moves), 1, 3, generator=generator)
    room = (high - low - moves[:, :, :1].amax(1, keepdim=True)).clamp(min=0)
    start = torch.cat((low + room * draw[..., :1], 2 * math.pi * draw[..., 1:]), -1)
    return start + moves
