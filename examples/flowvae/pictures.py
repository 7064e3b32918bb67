"""Pictures of a trained model's flows: each alone, switched, superposed and reversed."""

from pathlib import Path

import torch
from torch import Tensor

from torchflowfield import FlowPath
from torchflowfield.viz import save_gif, traversal_grid

from .data.digits import Split
from .data.sequences import DigitSequences
from .data.transforms import FACTORS
from .supervised import FlowVAE


def save_pictures(path: Path, frames: Tensor, truth: Tensor | None = None, *, fps: float = 8.0) -> list[Path]:
    """A grid and a GIF of frames `[T+1, N, 3, H, W]` at the size for a page, the true ones below them if given."""
    grid = frames if truth is None else torch.stack((frames, truth), 2).flatten(1, 2)
    zoom = max(1, 90 // grid.shape[-1])  # a page has room for six frames of 64 pixels, or of 28 enlarged
    traversal_grid(grid, path.with_suffix(".png"), zoom=min(2, zoom))
    save_gif(grid, path.with_suffix(".gif"), fps=fps, zoom=zoom)
    return [path.with_suffix(".png"), path.with_suffix(".gif")]


def draw_flows(
    model: FlowVAE, split: Split, folder: Path, *, steps: int = 5, samples: int = 6, names: list[str] | None = None
) -> list[Path]:
    """Save PNG grids and GIFs of every flow and of compositions of them, from test digits.

    Args:
        model: A trained model.
        split: Digits; the pictures start from test digits.
        folder: Where to save them.
        steps: Frames after the first.
        samples: Digits in a picture.
        names: Name of every flow.

    Returns:
        The files, in the order of the story that they tell.

    Raises:
        ValueError: If the model was trained on frames of another size, or has not one flow for each name.
    """
    names = names or [f"flow{k}" for k in range(model.flows.K)]
    expected, got = (len(names), split.test.shape[-1]), (model.flows.K, model.hparams.image_size)
    if got != expected:
        flows = "{0} flows of frames of {1}×{1} pixels"
        raise ValueError(
            f"draw_flows: expected {flows.format(*expected)} for {split.name}, got {flows.format(*got)}. Take a model "
            f"trained with --data flowvae.data.sequences.DigitsData; reproduce.py latent_evolution draws others."
        )
    model.eval()
    true = [_true_frames(split, factor, steps, samples).to(model.device) for factor in range(len(FACTORS))]
    files: list[Path] = []

    def save(name: str, frames: Tensor, *, bounce: bool = True) -> None:
        picture, movie = folder / f"{name}.png", folder / f"{name}.gif"
        traversal_grid(frames, picture)
        save_gif(frames, movie, bounce=bounce)
        files.extend((picture, movie))

    with torch.no_grad():
        for k, name in enumerate(names):
            start = true[k % len(FACTORS)]
            frames = _decode(model, model.roll(model.encode(start[0])[0], k, steps))
            save(f"traversal_{name}", frames)
            if name in FACTORS:
                truth_below = torch.stack((frames, start), 2).flatten(1, 2)
                traversal_grid(truth_below, folder / f"truth_{name}.png")
                files.append(folder / f"truth_{name}.png")

        first, second = (names.index(n) if n in names else i for i, n in enumerate(("rotation", "hue")))
        z0 = model.encode(true[first % len(FACTORS)][0])[0]
        turned = model.roll(z0, first, steps)
        recoloured = model.roll(turned.z[-1], second, steps)
        switched = torch.cat((_decode(model, turned), _decode(model, recoloured)[1:]))
        save(f"switched_{names[first]}_{names[second]}", switched)

        start = true[0]
        everything = torch.ones(model.flows.num_controls, device=model.device)
        save("superposed", _decode(model, model.roll(model.encode(start[0])[0], everything, steps)))

        last = true[first % len(FACTORS)][-1]
        backwards = model.roll(model.encode(last)[0], first, steps, reverse=True)
        save(f"reversed_{names[first]}", _decode(model, backwards))
    return files


def _true_frames(split: Split, factor: int, steps: int, samples: int) -> Tensor:
    """True sequences `[T+1, B, C, H, W]` of one factor, from test digits."""
    data = DigitSequences(split.test, "single", steps=steps, length=len(split.test), seed=-20 - factor, factor=factor)
    spread = list(range(0, len(split.test), max(1, len(split.test) // samples)))[:samples]
    return data.__getitems__(spread)["frames"].transpose(0, 1)


def _decode(model: FlowVAE, path: FlowPath) -> Tensor:
    return model.decode(path.z).sigmoid()
