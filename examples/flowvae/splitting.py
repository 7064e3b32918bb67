"""One flow that does two things becomes two flows."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from .base import Codes
from .model import UnsupervisedFlowVAE

# Log-odds of a spike that is on, at the start.
_SURE = 4.0


@torch.no_grad()
def split(model: UnsupervisedFlowVAE, control: int, other: int, batches: Iterable[Tensor]) -> None:
    """Give one side of what a flow does to a control that is off.

    A flow that stands for two transformations moves codes by a mean of both. What it leaves unexplained of how they
    moved then has a main axis, with one transformation to either side. Both controls begin with the field as it is, and
    with spikes that tell the sides as well as a linear map of the posterior's features can.

    Args:
        model: A model with single control, in `eval` mode.
        control: The flow.
        other: The control that is off.
        batches: Frames `[T+1, B, C, H, W]` to learn the sides from.
    """
    features, on, left = [], [], []
    for frames in batches:
        spikes = model.infer(frames).spikes
        _, rest, precision = model.motion(Codes(*model.encode(frames)), spikes)
        features.append(F.pad(model.pair_features(frames), (0, 1), value=1.0).flatten(0, 1))
        on.append(spikes[..., control].flatten() > 0.5)
        left.append((rest * precision.sqrt()).flatten(0, 1))
    x, active, rest = (torch.cat(parts) for parts in (features, on, left))
    if active.sum() < 2:
        return
    axis = torch.linalg.svd(rest[active] - rest[active].mean(0), full_matrices=False).Vh[0]
    side = (rest - rest[active].mean(0)) @ axis > 0
    wanted = _SURE * (2.0 * torch.stack((active & side, active & ~side), -1) - 1)
    # A ridge regression, with a thousandth of the features' own scale.
    gram = x.mT @ x
    head = torch.linalg.solve(gram + 1e-3 * gram.diagonal().mean() * torch.eye(len(gram)).to(gram), x.mT @ wanted)
    rows, spike_head = [control, other], model.posterior.spike_head
    spike_head.weight[rows], spike_head.bias[rows] = head[:-1].mT, head[-1]
    model.posterior.enabled[other] = True
    prior = model.prior
    for tensor in (prior.on_logit, prior.switch_on_logit, prior.switch_off_logit, *model.flows.stack.parameters()):
        tensor[other] = tensor[control]
