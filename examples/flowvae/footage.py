"""What can be measured from the frames of a video, without labels: how far, how fast and which way things move."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Camera = Literal["rests", "moves"]
_AT_ONCE = 512


# Pixels that are averaged into one, from coarse to fine, and rounds of estimation at each.
_LEVELS, _ROUNDS = (4, 2, 1), 4
# Keeps the estimate at rest where a picture has no edges.
_RIDGE = 1e-3


def camera_motion(before: Tensor, after: Tensor) -> Tensor:
    """How frames `[N, 3, H, W]` have to move to become the next ones, if all that is seen moves as one picture.

    Moves to the right and down in pixels, logarithm of the growth about the centre, and clockwise turn about it in
    radians, `[N, 4]`. Least squares of the differences, linearised again and again, on ever finer pictures.

    Reference:
        Lucas and Kanade, An iterative image registration technique, IJCAI 1981.
    """
    first, second = (frames.mean(1, keepdim=True) for frames in (before, after))
    motion = first.new_zeros(len(first), 4)
    for pixels in _LEVELS:
        if first.shape[-1] // pixels < 8:
            continue
        small, next_small = (F.avg_pool2d(grey, pixels) for grey in (first, second))
        # Edges of a pixel's width would end the estimate one pixel off.
        small, next_small = (F.avg_pool2d(grey, 3, 1, 1, count_include_pad=False) for grey in (small, next_small))
        for _ in range(_ROUNDS):
            motion = motion + _correction(small, next_small, motion)
    size = motion.new_tensor([first.shape[-1] / 2, first.shape[-2] / 2, 1, 1])
    return size * motion


def _correction(before: Tensor, after: Tensor, motion: Tensor) -> Tensor:
    """One step of Gauss and Newton on pictures `[N, 1, H, W]`, with lengths in halves of the picture's."""
    height, width = before.shape[-2:]
    y = torch.linspace(1 / height - 1, 1 - 1 / height, height).to(before)[:, None].expand(height, width)
    x = torch.linspace(1 / width - 1, 1 - 1 / width, width).to(before).expand(height, width)
    one, none = torch.ones_like(x), torch.zeros_like(x)
    basis = torch.stack((torch.stack((one, none, x, -y)), torch.stack((none, one, y, x))), -1)
    shown = torch.stack((x, y), -1) + torch.einsum("nk,khwd->nhwd", motion, basis)
    inside = (shown.abs() < 1).all(-1)
    moved = F.grid_sample(after, shown, padding_mode="border", align_corners=False)[:, 0]
    slopes = [
        slope * count / 2 for slope, count in zip(torch.gradient(moved, dim=(2, 1)), (width, height), strict=True)
    ]
    design = torch.einsum("nhwd,khwd->nhwk", torch.stack(slopes, -1), basis) * inside[..., None]
    gram = torch.einsum("nhwk,nhwl->nkl", design, design) + _RIDGE * height * width * torch.eye(4).to(before)
    return torch.linalg.solve(gram, torch.einsum("nhwk,nhw->nk", design, before[:, 0] - moved))


def foreground(frames: Tensor, background: Tensor) -> Tensor:
    """How much every pixel of `[*, 3, H, W]` differs from a still background `[3, H, W]`, less noise, `[*, H, W]`."""
    difference = (frames - background).abs().mean(-3)
    return (difference - 0.1).clamp(min=0)


def position(mass: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where a foreground `[*, H, W]` lies.

    Returns:
        Centre `[*, 2]` (right, down; pixels), size `[*]`, long axis `[*]` (radians), and root mean square distance from
        the centre `[*]` (pixels).
    """
    height, width = mass.shape[-2:]
    total = mass.sum((-2, -1)).clamp(min=1e-6)
    x = torch.arange(width, dtype=mass.dtype, device=mass.device)
    y = torch.arange(height, dtype=mass.dtype, device=mass.device)[:, None]
    cx, cy = (mass * x).sum((-2, -1)) / total, (mass * y).sum((-2, -1)) / total
    dx, dy = x - cx[..., None, None], y - cy[..., None, None]
    xx, yy, xy = ((mass * m).sum((-2, -1)) / total for m in (dx * dx, dy * dy, dx * dy))
    return torch.stack((cx, cy), -1), total, 0.5 * torch.atan2(2 * xy, xx - yy), (xx + yy).sqrt()


def measure(frames: Tensor, background: Tensor, camera: Camera = "rests") -> dict[str, Tensor]:
    """Per step of sequences `[T+1, B, 3, H, W]`, figures `[T, B]` by name.

    `change`: mean absolute difference of the frames. Of a camera that moves, how the whole picture moves: `pan`, to the
    right in pixels; `growth`, logarithm of how much larger it became; `turning`, clockwise in radians. Of one that
    rests, how what differs from the background moves: `speed`, of its centre in pixels, with the parts `right` and
    `down`; `turning`, of its long axis; `growth`; `spread`, logarithm of how much further apart it became.
    """
    change = (frames[1:] - frames[:-1]).abs().flatten(2).mean(-1)
    if camera == "moves":
        pairs = (frames[:-1].flatten(0, 1).split(_AT_ONCE), frames[1:].flatten(0, 1).split(_AT_ONCE))
        motion = torch.cat([camera_motion(*pair) for pair in zip(*pairs, strict=True)])
        pan, _, growth, turning = motion.unflatten(0, change.shape).unbind(-1)
        return {"pan": pan, "growth": growth, "turning": turning, "change": change}
    centre, size, axis, spread = position(foreground(frames, background))
    moved = centre.diff(dim=0)
    turn = axis.diff(dim=0)
    # An axis has no head: half a turn is no turn.
    turn = (turn + torch.pi / 2).remainder(torch.pi) - torch.pi / 2
    return {
        "speed": moved.norm(dim=-1),
        "right": moved[..., 0],
        "down": moved[..., 1],
        "turning": turn,
        "growth": size.log().diff(dim=0),
        "spread": spread.clamp(min=1e-3).log().diff(dim=0),
        "change": change,
    }


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson correlation of two tensors of one shape; 0 where one of them is constant."""
    a, b = (x.flatten().double() - x.double().mean() for x in (a, b))
    scale = a.norm() * b.norm()
    return (a @ b / scale).item() if scale > 0 else 0.0


def in_words(measured: dict[str, Tensor]) -> str:
    """What a traversal does to the frames, from means over its steps; `measured` is that of the traversal."""
    mean = {name: values.mean().item() for name, values in measured.items()}
    words = []
    for name, low, high, enough in (
        ("pan", "pans left", "pans right", 0.15),
        ("right", "moves left", "moves right", 0.1),
        ("down", "moves up", "moves down", 0.1),
        ("turning", "turns anticlockwise", "turns clockwise", 0.02),
        ("growth", "shrinks or recedes", "grows or approaches", 0.005 if "pan" in mean else 0.02),
        ("spread", "draws together", "spreads out", 0.02),
    ):
        if abs(mean.get(name, 0.0)) >= enough:
            words.append(f"{high if mean[name] > 0 else low} ({mean[name]:+.3g} a step)")
    return ", ".join(words) or f"changes the picture by {mean['change']:.4f} a step, in no single direction"
