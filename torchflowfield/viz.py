"""Pictures of flows: traversals, GIFs, phase portraits, coefficients over time (extra: `viz`)."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from torchflowfield._checks import check_whole
from torchflowfield.interface import FlowField, Time

# Okabe and Ito's palette, told apart by the colour-blind.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#555555")


def _wide(x: Tensor) -> Tensor:
    """A tensor as NumPy and Matplotlib take it: in float32 at least, without a gradient, on the CPU."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32)).cpu()


def _pixels(frames: Tensor, zoom: int) -> np.ndarray:
    check_whole("viz", zoom=zoom)
    if frames.ndim != 5 or frames.shape[2] not in (1, 3) or not frames.numel():
        raise ValueError(
            f"viz: expected frames of shape (frames, batch, 1 or 3, height, width), got {tuple(frames.shape)}."
        )
    if not frames.is_floating_point():
        raise TypeError(
            f"viz: expected floating-point frames in [0, 1], got {frames.dtype}. Convert with .float() / 255."
        )
    image = (frames.detach().float().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
    image = image.expand(-1, -1, 3, -1, -1).permute(0, 1, 3, 4, 2)
    return image.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3).numpy()


def traversal_grid(
    frames: Float[Tensor, "frames batch channels height width"], path: str | PathLike | None = None, *, zoom: int = 2
) -> np.ndarray:
    """One row per sample, one column per frame, as a PNG.

    Args:
        frames: Decoded frames in [0, 1].
        path: Where to save the picture; None saves nothing.
        zoom: Pixels per pixel.

    Returns:
        The picture, `[height, width, 3]`, uint8.

    Raises:
        ValueError: If `frames` are no images, or `zoom` makes none of them.
        TypeError: If they are not floating-point.
    """
    cells = np.pad(_pixels(frames, zoom), ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    columns, rows, height, width, _ = cells.shape
    grid = cells.transpose(1, 2, 0, 3, 4).reshape(rows * height, columns * width, 3)
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(Path(path), grid)
    return grid


def save_gif(
    frames: Float[Tensor, "frames batch channels height width"],
    path: str | PathLike,
    *,
    fps: float = 8.0,
    zoom: int = 3,
    bounce: bool = True,
) -> None:
    """An endless GIF with the samples side by side.

    Args:
        frames: Decoded frames in [0, 1].
        path: Where to save it.
        fps: Frames per second.
        zoom: Pixels per pixel.
        bounce: Play forwards then backwards, so that the loop has no jump.

    Raises:
        ValueError: If `frames` are no images, or `zoom` or `fps` makes none of them.
        TypeError: If they are not floating-point.
    """
    if not fps > 0:
        raise ValueError(f"viz: expected fps above 0, got {fps}.")
    cells = np.pad(_pixels(frames, zoom), ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
    count, samples, height, width, _ = cells.shape
    strips = cells.transpose(0, 2, 1, 3, 4).reshape(count, height, samples * width, 3)
    if bounce:
        strips = np.concatenate((strips, strips[-2:0:-1]))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(Path(path), strips, duration=1000 / fps, loop=0)


def phase_portrait(
    field: FlowField,
    center: Float[Tensor, " dim"],
    axes: Float[Tensor, "2 dim"],
    *,
    t: Time = 0.0,
    extent: float = 3.0,
    resolution: int = 24,
    context: Float[Tensor, " context"] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Streamlines of a field on a two-dimensional slice of latent space, over its potential or its speed.

    Args:
        field: The field; its jet says whether it has a potential.
        center: Latent vector at the middle of the slice.
        axes: Two orthonormal directions that span it.
        t: Time in frames.
        extent: Half the side of the slice, in latent units.
        resolution: Points per side.
        context: One vector for all points, for a field that takes a context.
        ax: Where to draw; a new figure if None.

    Raises:
        TypeError: For anything but a field, such as a bank.
    """
    if not isinstance(field, FlowField):
        raise TypeError(f"viz: expected a FlowField, got {type(field).__name__}. Of a FlowBank pass one: bank[k].")
    ax = Figure(figsize=(5, 5), layout="constrained").subplots() if ax is None else ax
    side = torch.linspace(-extent, extent, resolution, dtype=center.dtype, device=center.device)
    y, x = torch.meshgrid(side, side, indexing="ij")
    with torch.no_grad():
        plane = center + x[..., None] * axes[0] + y[..., None] * axes[1]
        jet = field._jet(t, plane, context, divergence=False)
    has_potential = bool(jet.gradient.any())
    background = jet.potential if has_potential else jet.velocity.norm(dim=-1)
    u, v = (_wide(jet.velocity @ axis).numpy() for axis in axes)
    points = np.linspace(-extent, extent, resolution)
    mesh = ax.contourf(points, points, _wide(background).numpy(), levels=16, cmap="cividis")
    ax.figure.colorbar(mesh, ax=ax, label="potential" if has_potential else "speed", shrink=0.8)
    ax.streamplot(points, points, u, v, color="white", linewidth=0.8, density=1.1, arrowsize=0.9)
    ax.set(aspect="equal", xlabel="first axis of the slice", ylabel="second axis")
    return ax


def coefficients_over_time(
    inferred: Float[Tensor, "steps controls"],
    true: Float[Tensor, "steps factors"] | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Inferred coefficients of one sequence as steps over time, the true ones dashed in the same panel.

    Args:
        inferred: Coefficients, in the order of the factors (`Recovery.matching`) where `true` is given.
        true: True coefficients.
        labels: Name of every panel.
    """
    controls = inferred.shape[-1]
    inferred, true = _wide(inferred), None if true is None else _wide(true)
    figure = Figure(figsize=(6, 1.2 * controls + 0.5), layout="constrained")
    panels = figure.subplots(controls, 1, sharex=True, squeeze=False)[:, 0]
    edges = np.arange(len(inferred) + 1)
    shown = inferred if true is None else torch.cat((inferred.flatten(), true.to(inferred).flatten()))
    low, high = min(-0.15, 1.1 * shown.min().item()), max(1.4, 1.1 * shown.max().item())
    for k, panel in enumerate(panels):
        panel.stairs(inferred[:, k].numpy(), edges, color=COLORS[k % 8], linewidth=2.5, label="inferred")
        if true is not None and k < true.shape[-1]:
            panel.stairs(true[:, k].numpy(), edges, color="#333333", linestyle="--", label="true")
        panel.set(ylim=(low, high))
        panel.set_ylabel(labels[k] if labels is not None and k < len(labels) else f"flow {k}")
    panels[0].legend(loc="upper right", ncols=2, frameon=False)
    panels[-1].set_xlabel("frame")
    return figure


def usage_heatmap(
    table: Float[Tensor, "controls factors"], *, factors: Sequence[str] | None = None, label: str = "F1"
) -> Figure:
    """A table of controls against factors, such as `Recovery.confusion`, with its values written in.

    Args:
        table: Values from 0 to 1.
        factors: Names of the columns.
        label: What a value is.
    """
    values = _wide(table).numpy()
    figure = Figure(figsize=(1.1 * values.shape[1] + 2, 0.5 * values.shape[0] + 1.5), layout="constrained")
    ax = figure.subplots()
    mesh = ax.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    figure.colorbar(mesh, ax=ax, label=label)
    ax.set_xticks(range(values.shape[1]), factors if factors is not None else map(str, range(values.shape[1])))
    ax.set_yticks(range(values.shape[0]), [f"flow {k}" for k in range(values.shape[0])])
    for (row, column), value in np.ndenumerate(values):
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.55 else "white")
    return figure
