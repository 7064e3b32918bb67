"""Drawings of what a model has learned beside its frames: potentials as surfaces, coefficients over time."""

from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from torchflowfield.viz import COLORS, coefficients_over_time

from .supervised import FlowVAE
from .unsupervised import UnsupervisedFlowVAE


@torch.no_grad()
def draw_potentials(path: Path, model: FlowVAE, data: Any, *, resolution: int = 40) -> Path:
    """Every flow's potential at the first step, over the plane in which it moves test codes most, with paths upon it.

    The surface is a slice, through the mean code, of a function of many variables; paths are projected onto it.
    """
    figure = Figure(figsize=(4.2 * len(data.factors), 4.6))
    for k, factor in enumerate(data.factors):
        batch = next(iter(data.test_dataloader()[k]))
        frames = batch["frames"].transpose(0, 1)
        codes = model.encode(frames[0])[0]
        paths = model.roll(codes, k, len(frames) - 1).z
        center, axes = codes.mean(0), torch.pca_lowrank((paths - codes).flatten(0, 1), 2, center=False, niter=4)[2].T
        reach = ((paths - center) @ axes.T).abs().amax().item()
        side = torch.linspace(-reach, reach, resolution)
        y, x = torch.meshgrid(side, side, indexing="ij")
        field = model.flows[k]
        surface = field.jet(1.0, center + x[..., None] * axes[0] + y[..., None] * axes[1]).potential
        axis = figure.add_subplot(1, len(data.factors), k + 1, projection="3d")
        axis.plot_surface(x, y, surface, cmap="cividis", alpha=0.75, linewidth=0)
        for sample in range(8):
            plane = (paths[:, sample] - center) @ axes.T
            height = field.jet(1.0, center + plane @ axes).potential
            axis.plot(plane[:, 0], plane[:, 1], height, color=COLORS[1], linewidth=1.6, zorder=10)
        axis.set_title(f"{factor.replace('_', ' ')}: u(1, z)")
        axis.set_xlabel("first axis of motion", fontsize=8)
        axis.set_ylabel("second", fontsize=8)
        axis.tick_params(labelsize=7)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, bbox_inches="tight")
    return path


@torch.no_grad()
def draw_coefficients(
    path: Path, model: UnsupervisedFlowVAE, data: Any, matching: list[int], *, samples: int = 3
) -> list[Path]:
    """Inferred coefficients of test sequences beside the true ones, each control in the panel of its factor."""
    batch = next(iter(data.test_dataloader()[-1]))
    frames, true = batch["frames"].transpose(0, 1), batch["weights"].transpose(0, 1)
    weights = model.infer(frames).weights[..., matching]
    written = []
    path.parent.mkdir(parents=True, exist_ok=True)
    for sample in range(samples):
        figure = coefficients_over_time(
            weights[:, sample], true[:, sample], labels=[f.replace("_", " ") for f in data.factors]
        )
        written.append(path.with_name(f"{path.name}_{sample}.png"))
        figure.savefig(written[-1], dpi=110)
    return written
