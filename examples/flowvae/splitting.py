"""One flow that does two things becomes two flows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Codes
from .unsupervised import UnsupervisedFlowVAE

# Log-odds of a spike that is on, at the start.
_SURE = 4.0


class Steps(NamedTuple):
    """Steps of sequences, one per row.

    Attributes:
        features: The posterior's features and a one.
        on: Which controls were on.
        rest: Motion of the codes that was left unexplained, in units of its standard deviations.
        time: Time at the end of the step, from 1 on.
        before: Codes at its start, their means.
        sharpness: One over the standard deviations of the motion.
    """

    features: Tensor
    on: Tensor
    rest: Tensor
    time: Tensor
    before: Tensor
    sharpness: Tensor

    def main_axis(self, control: int) -> tuple[Tensor, Tensor]:
        """Main axis of what a flow leaves unexplained where it is on, and its variance along that axis; 0 if never."""
        rest = self.rest[self.on[:, control]]
        if len(rest) < 2:
            return torch.zeros_like(self.rest[0]), self.rest.new_zeros(())
        singular = torch.linalg.svd(rest - rest.mean(0), full_matrices=False)
        return singular.Vh[0], singular.S[0].square() / len(rest)


@torch.no_grad()
def observe(model: UnsupervisedFlowVAE, batches: Iterable[Tensor]) -> Steps:
    """The steps of frames `[T+1, B, C, H, W]`, for a model in `eval` mode."""
    seen = []
    for frames in batches:
        spikes = model.infer(frames).spikes
        codes = Codes(*model.encode(frames))
        _, rest, precision = model.motion(codes, spikes)
        features = F.pad(model.pair_features(frames), (0, 1), value=1.0)
        time = torch.arange(1.0, len(frames), device=rest.device)[:, None].expand(rest.shape[:-1])
        sharp = precision.sqrt()
        parts = (features, spikes > 0.5, rest * sharp, time, codes.mean[:-1], sharp)
        seen.append([x.flatten(0, 1) for x in parts])
    return Steps(*map(torch.cat, zip(*seen, strict=True)))


def likeliest(steps: Steps, controls: Sequence[int]) -> int:
    """The flow that may well stand for two: the one that leaves most unexplained along one axis."""
    return max(controls, key=lambda k: steps.main_axis(k)[1].item())


@torch.no_grad()
def split(model: UnsupervisedFlowVAE, steps: Steps, control: int, other: int) -> None:
    """Give one side of what a flow does to a control that is off.

    A flow that stands for two transformations moves codes by a mean of both. What it leaves unexplained of how they
    moved then has a main axis, with one transformation to either side. Both controls begin with the field as it is, and
    with spikes that tell the sides as well as a linear map of the posterior's features can. A flow that is never on
    stays as it is.

    Args:
        model: A model with single control.
        steps: What it does, from `observe`.
        control: The flow.
        other: The control that is off.
    """
    active = steps.on[:, control]
    if not active.any():
        return
    axis, _ = steps.main_axis(control)
    side = (steps.rest - steps.rest[active].mean(0)) @ axis > 0
    teach(model, steps, [control, other], torch.stack((active & side, active & ~side), -1))
    model.posterior.enabled[other] = True
    for tensor in (*model.prior.parameters(), *model.flows.stack.parameters()):
        tensor[other] = tensor[control]


@torch.no_grad()
def teach(model: UnsupervisedFlowVAE, steps: Steps, controls: list[int], wanted: Tensor) -> None:
    """Set the spikes of controls to what is wanted, `[N, len(controls)]`, as well as a linear map of features can."""
    # A ridge regression, with a thousandth of the features' own scale.
    gram = steps.features.mT @ steps.features
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram)
    head = torch.linalg.solve(gram + ridge, steps.features.mT @ (_SURE * (2.0 * wanted - 1)))
    spike_head = model.posterior.spike_head
    spike_head.weight[controls], spike_head.bias[controls] = head[:-1].mT, head[-1]
