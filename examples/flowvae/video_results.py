"""Flows learned from video: traversals, usage, what each does, and next-frame errors."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from torchflowfield.viz import COLORS

from .base import SequenceVAE
from .data.base import Part
from .footage import correlation, in_words, measure
from .pictures import save_pictures
from .records import Further, add_further
from .tables import FROM_MODELS, append_lines, append_table, take_sections

_NEXT = "next frame: "
_BELOW = (
    "",
    "Mean absolute error per pixel and channel of test snippets; frames are in [0, 1]. The prediction of ours infers "
    "its coefficients from the true next frame: it tells what the flows can express, not what they foresee. Copying "
    "and the VAE, which goes on in a straight line through its last two codes, do not see that frame; at the first "
    "step of a snippet, which has one code before it, the VAE's prediction is the decoded copy.",
)
_MEASURED = {
    "rests": ("speed", "turning", "growth", "spread", "change"),
    "moves": ("pan", "growth", "turning", "change"),
}


@torch.no_grad()
def next_frame_errors(model: SequenceVAE, frames: Tensor) -> dict[str, Tensor]:
    """Mean absolute error per pixel of every step of `[T+1, B, 3, H, W]`, `[T, B]`, by prediction.

    Copying the last frame and the decoder's own copy of it are alike for all models. A model with flows moves the last
    frame's code one step, with coefficients inferred from that very step; a model without continues the straight line
    through the last two codes. `re-encoding` looks at the frame itself.
    """
    codes = model.encode(frames)[0]
    truth = frames[1:]
    if hasattr(model, "infer"):
        weights = model.infer(frames).weights
        steps = [model.roll(codes[t], weights[t], 1).z[-1] for t in range(len(weights))]
    else:
        steps = [codes[0], *(2 * codes[t] - codes[t - 1] for t in range(1, len(codes) - 1))]
    predictions = {
        "copying the last frame": frames[:-1],
        "decoded copy": model.decode(codes[:-1]).sigmoid(),
        "prediction": model.decode(torch.stack(steps)).sigmoid(),
        "re-encoding": model.decode(codes[1:]).sigmoid(),
    }
    return {name: (frame - truth).abs().flatten(2).mean(-1) for name, frame in predictions.items()}


def finish_video(path: Path, opened: Sequence[tuple[Any, SequenceVAE, Any]]) -> list[Path]:
    """Write the tables below the experiment's Markdown, and the pictures.

    Args:
        path: The experiment's file without suffix.
        opened: Every finished run with its model and its data module.
    """
    figures: list[Further] = []
    sections, written = take_sections(path), []
    for run, model, data in opened:
        batches = [batch["frames"].transpose(0, 1) for batch in data.test_dataloader()[-1]]
        parts = [next_frame_errors(model, frames) for frames in batches]
        for name in parts[0]:
            value = torch.cat([part[name].flatten() for part in parts]).mean().item()
            figures.append(Further(run, run.row.name, _NEXT + name, value))
        if hasattr(model, "infer"):
            section, usage, pictures = describe_flows(path, model, data, run.seed)
            sections[section[0]] = section
            figures += [Further(run, run.row.name, name, value) for name, value in usage.items()]
            written += pictures
    found = add_further(path.with_suffix(".csv"), figures)
    errors = {
        row: {name.removeprefix(_NEXT): numbers for name, numbers in values.items() if name.startswith(_NEXT)}
        for row, values in found.items()
    }
    append_table(path, "Next-frame error", errors, digits=4, below=_BELOW)
    for heading in sorted(sections):
        append_lines(path, sections[heading])
    return written


@torch.no_grad()
def describe_flows(path: Path, model: Any, data: Any, seed: int) -> tuple[list[str], dict[str, float], list[Path]]:
    """Usage of every flow, its correlation with what is measured from the frames, its traversal and that in words.

    A flow that the training gave up has a line that says so, and no picture.

    Returns:
        The lines of the table, its figures by name, and the pictures.
    """
    batches = [batch["frames"].transpose(0, 1) for batch in data.test_dataloader()[-1]]
    frames = torch.cat(batches, 1)
    black = torch.zeros_like(frames[0, 0])
    removed = data.background == "remove"
    some = frames.flatten(0, 1)[:: max(1, frames.shape[0] * frames.shape[1] // 300)]
    background = black if removed else some.median(0).values
    draw = model.infer(frames)
    shown = _MEASURED[data.camera]
    measured = measure(frames, background, data.camera)
    lines = [f"{FROM_MODELS}{seed}", ""]
    lines += [f"| flow | usage | {' | '.join(f'g and {name}' for name in shown)} | its traversal |"]
    lines += ["|---" * (len(shown) + 3) + "|"]
    folder = path.parent / "pictures"
    spread = torch.linspace(0, frames.shape[1] - 1, 6).long()
    z0 = model.encode(frames[0, spread])[0]
    everyone = model.encode(frames[0])[0]
    written, figures = [], {}
    enabled = model.posterior.enabled.tolist()
    for k in range(len(enabled)):
        if not enabled[k]:
            figures[f"flow {k}: usage"] = 0.0
            lines.append(f"| {k} | 0.00 | {' | '.join('–' for _ in shown)} | given up |")
            continue
        rolled = model.decode(model.roll(everyone, k, data.steps).z).sigmoid()
        still = model.decode(everyone).sigmoid()
        # The decoder blurs: a background that was left is that of its own pictures, not of the frames.
        words = in_words(measure(rolled, black if removed else still.median(0).values, data.camera))
        follows = {name: correlation(draw.weights[..., k], measured[name]) for name in shown}
        used = (draw.spikes[..., k] > 0.5).double().mean().item()
        figures |= {f"flow {k}: usage": used, **{f"flow {k}: g and {name}": value for name, value in follows.items()}}
        cells = [f"{value:+.2f}" for value in follows.values()]
        lines.append(f"| {k} | {used:.2f} | {' | '.join(cells)} | {words} |")
        picture = folder / f"{path.name}_flow{k}_seed{seed}"
        movie = model.decode(model.roll(z0, k, data.steps).z).sigmoid()
        written += save_pictures(picture, _brightened(movie) if removed else movie, fps=4.0)
    lines += [
        "",
        "Correlations over all steps of the test snippets. In words: means over the snippets of the traversal.",
        "The camera rests: speed, turning, growth and spread are those of what stands out from the background."
        if data.camera == "rests"
        else "The camera moves: pan, growth and turning are those of the whole picture, moved as one.",
    ]
    if data.egocentric:
        lines.append(
            "An animal heads to the right at first, and so does the line from the brighter of two to the dimmer: to "
            "move right is to go ahead, to turn clockwise is to turn right. What leaves the picture is not measured."
        )
    kept = [k for k in range(len(enabled)) if enabled[k]]
    weights = {
        part: torch.cat([model.infer(batch["frames"].transpose(0, 1)).weights for batch in loader], 1)
        for part, loader in data.filmed_order().items()
    }
    return lines, figures, [*written, draw_usage(folder / f"{path.name}_usage_seed{seed}.png", weights, kept)]


def _brightened(movie: Tensor) -> Tensor:
    """Frames in which little is left, with the brightest of the first ones in white."""
    return (movie / movie[0].amax()).clamp(max=1)


def draw_usage(path: Path, weights: Mapping[Part, Tensor], flows: list[int]) -> Path:
    """Coefficients of some flows over the snippets of every part, `[T, N, K]` each, averaged over a snippet's steps."""
    figure = Figure(figsize=(8, 1.1 * len(flows) + 0.9), layout="constrained")
    panels = figure.subplots(len(flows), 1, sharex=True, squeeze=False)[:, 0]
    means = torch.cat([part.mean(0) for part in weights.values()]).cpu()
    edges = [n - 0.5 for n in range(len(means) + 1)]
    ends = list(itertools.accumulate(part.shape[1] for part in weights.values()))
    for k, panel in zip(flows, panels, strict=True):
        panel.stairs(means[:, k], edges, fill=True, color=COLORS[k % 8])
        for end in ends[:-1]:
            panel.axvline(end - 0.5, color="black", linewidth=0.8)
        panel.set_ylabel(f"flow {k}")
        panel.set_xlim(edges[0], edges[-1])
        panel.set_ylim(0, None)
    top = panels[0].get_xaxis_transform()
    for name, first, end in zip(weights, [0, *ends[:-1]], ends, strict=True):
        panels[0].text((first + end - 1) / 2, 1.05, name, transform=top, ha="center")
    panels[-1].set_xlabel("snippet, in the order of the footage of every part")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
