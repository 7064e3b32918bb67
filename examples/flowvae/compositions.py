"""Sequences in which several transformations act, true and predicted, although training saw one at a time."""

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchflowfield.metrics import equivariance_error

from .data.frames import as_frames
from .data.transforms import HUE_STEP, ROTATION_STEP, SCALE_STEP, SCALES, render
from .supervised import FlowVAE


def switch(first: int, second: int, steps: tuple[int, int], factors: int) -> Tensor:
    """Schedule `[T, K]` of one factor and then another."""
    return torch.cat([torch.eye(factors)[k].expand(n, -1) for k, n in zip((first, second), steps, strict=True)])


def superpose(chosen: list[int], steps: int, factors: int) -> Tensor:
    """Schedule `[T, K]` of several factors at once."""
    return torch.eye(factors)[chosen].sum(0).expand(steps, -1)


def digit_frames(images: Tensor, schedule: Tensor, generator: torch.Generator) -> Tensor:
    """True frames `[T+1, N, 3, H, W]` of still digits `[N, 1, H, W]` under one schedule `[T, 3]`, from random poses.

    Every frame is rendered from the still image, with each factor as far as its own steps have brought it.
    """
    taken = torch.cat((torch.zeros(1, 3), schedule.cumsum(0)))
    rates = torch.tensor([1.0, math.radians(ROTATION_STEP / 2), math.radians(HUE_STEP)])
    moves = taken * rates
    moves[:, 0] = torch.log1p(SCALE_STEP * taken[:, 0])
    low, high = (math.log(scale) for scale in SCALES)
    draw = torch.rand(len(images), 3, generator=generator)
    room = max(0.0, high - low - float(moves[:, 0].max()))
    start = torch.stack((low + room * draw[:, 0], 2 * math.pi * draw[:, 1], 2 * math.pi * draw[:, 2]), -1)
    return render(images, start[:, None] + moves).transpose(0, 1)


def true_frames(data: Any, schedule: Tensor, count: int, seed: int = 0) -> Tensor:
    """True test frames `[T+1, count, 3, H, W]` under a schedule `[T, K]`, of digits or of a grid of factor values.

    Raises:
        TypeError: For data whose frames cannot be composed.
    """
    data.setup()
    generator = torch.Generator().manual_seed(seed)
    if not hasattr(data.split, "starts"):
        if not hasattr(data.split, "test"):
            raise TypeError(f"true_frames: expected digits or a grid of factors, got {type(data).__name__}.")
        images = data.split.test
        spread = torch.linspace(0, len(images) - 1, count).long()
        return digit_frames(images[spread], schedule, generator)
    strides = torch.tensor([data.strides.get(name, 1) for name in data.factors])
    moves = torch.zeros(count, len(schedule) + 1, len(data.images.sizes), dtype=torch.long)
    moves[:, 1:, data.split.moving] = (schedule.long() * strides).cumsum(0)
    starts = data.split.starts(moves, "test", generator)
    kept = (starts >= 0).all(-1)
    values = data.split.visited(starts[kept], moves[kept])
    index = np.ravel_multi_index(tuple(values.flatten(0, 1).numpy().T), data.images.sizes)
    frames = as_frames(data.images.read(index), data.image_size)
    return frames.unflatten(0, values.shape[:2]).transpose(0, 1)


@torch.no_grad()
def predict(model: FlowVAE, first: Tensor, schedule: Tensor) -> Tensor:
    """Frames `[T+1, N, 3, H, W]` that the flows make of frames `[N, 3, H, W]` under a schedule `[T, K]`.

    Every flow has seen the times of its own steps only, so its clock starts when the schedule changes.
    """
    z, codes = model.encode(first)[0], []
    codes.append(z)
    changes = [0, *(t for t in range(1, len(schedule)) if not torch.equal(schedule[t], schedule[t - 1])), len(schedule)]
    for begin, end in itertools.pairwise(changes):
        part = model.roll(codes[-1], schedule[begin].to(z), end - begin).z
        codes.extend(part[1:])
    return model.decode(torch.stack(codes)).sigmoid()


@torch.no_grad()
def composition_errors(model: FlowVAE, frames: Tensor, schedule: Tensor) -> dict[str, float]:
    """Relative errors of true frames `[T+1, N, 3, H, W]`: of the flows, of frame 0 kept, of encoding every frame."""
    predictions = {
        "flow": predict(model, frames[0], schedule),
        "frame 0": model.decode(model.encode(frames[0])[0]).sigmoid().expand_as(frames),
        "re-encoding": model.decode(model.encode(frames)[0]).sigmoid(),
    }
    return {name: equivariance_error(p, frames, relative=True).mean().item() for name, p in predictions.items()}
