"""What can be measured from the frames of a video, without labels: how far, how fast and which way things move."""

import torch
from torch import Tensor


def horizontal_shift(before: Tensor, after: Tensor) -> Tensor:
    """Shift to the right, in pixels, by which frames `[N, 3, H, W]` match the next ones best, `[N]`.

    The peak of the phase correlation of the mean over colours, refined by a parabola.
    """
    first, second = before.mean(1), after.mean(1)
    window = torch.hann_window(first.shape[-2], periodic=False).to(first)[:, None]
    window = window * torch.hann_window(first.shape[-1], periodic=False).to(first)
    a = torch.fft.rfft2((first - first.mean((-2, -1), keepdim=True)) * window)
    b = torch.fft.rfft2((second - second.mean((-2, -1), keepdim=True)) * window)
    cross = b * a.conj()
    correlation = torch.fft.irfft2(cross / (cross.abs() + 1e-6), s=first.shape[-2:])
    # Sum over small vertical shifts: what moves sideways may bob a little.
    rows = torch.cat((correlation[:, :2], correlation[:, -1:]), 1).sum(1)
    width = rows.shape[-1]
    peak = rows.argmax(-1)
    at = torch.arange(len(rows), device=rows.device)
    left, mid, right = rows[at, (peak - 1) % width], rows[at, peak], rows[at, (peak + 1) % width]
    offset = 0.5 * (left - right) / (left - 2 * mid + right).clamp(max=-1e-6)
    shift = peak + offset.clamp(-0.5, 0.5)
    return torch.where(shift > width / 2, shift - width, shift)


def foreground(frames: Tensor, background: Tensor) -> Tensor:
    """How much every pixel of `[*, 3, H, W]` differs from a still background `[3, H, W]`, less noise, `[*, H, W]`."""
    difference = (frames - background).abs().mean(-3)
    return (difference - 0.1).clamp(min=0)


def position(mass: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centre `[*, 2]` (right, down; pixels), size `[*]` and long axis `[*]` (radians) of a foreground `[*, H, W]`."""
    height, width = mass.shape[-2:]
    total = mass.sum((-2, -1)).clamp(min=1e-6)
    x = torch.arange(width, dtype=mass.dtype, device=mass.device)
    y = torch.arange(height, dtype=mass.dtype, device=mass.device)[:, None]
    cx, cy = (mass * x).sum((-2, -1)) / total, (mass * y).sum((-2, -1)) / total
    dx, dy = x - cx[..., None, None], y - cy[..., None, None]
    xx, yy, xy = ((mass * m).sum((-2, -1)) / total for m in (dx * dx, dy * dy, dx * dy))
    return torch.stack((cx, cy), -1), total, 0.5 * torch.atan2(2 * xy, xx - yy)


def measure(frames: Tensor, background: Tensor) -> dict[str, Tensor]:
    """Per step of sequences `[T+1, B, 3, H, W]`, figures `[T, B]` by name.

    `change`: mean absolute difference of the frames. `pan`: shift of the whole picture to the right, in pixels.
    `speed`: how far the foreground's centre moved, in pixels; `right` and `down`: its two parts. `turning`: turn of the
    foreground's long axis, in radians. `growth`: logarithm of how much larger the foreground became.
    """
    centre, size, axis = position(foreground(frames, background))
    moved = centre.diff(dim=0)
    turn = axis.diff(dim=0)
    # An axis has no head: half a turn is no turn.
    turn = (turn + torch.pi / 2).remainder(torch.pi) - torch.pi / 2
    pairs = (frames[:-1].flatten(0, 1), frames[1:].flatten(0, 1))
    return {
        "change": (frames[1:] - frames[:-1]).abs().flatten(2).mean(-1),
        "pan": horizontal_shift(*pairs).unflatten(0, moved.shape[:2]),
        "speed": moved.norm(dim=-1),
        "right": moved[..., 0],
        "down": moved[..., 1],
        "turning": turn,
        "growth": size.log().diff(dim=0),
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
        ("growth", "shrinks or recedes", "grows or approaches", 0.02),
    ):
        if abs(mean[name]) >= enough:
            words.append(f"{high if mean[name] > 0 else low} ({mean[name]:+.2f} a step)")
    return ", ".join(words) or f"changes the picture by {mean['change']:.4f} a step, in no single direction"
