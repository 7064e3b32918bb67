"""A flow that is on whenever another is learns to be on by itself.

Where flow j is on whenever flow k is, the field of k has learned what its own transformation does less a part a of what
j does. Both together then do 1 - a of j's too much in steps where k's transformation comes alone, and a too little
where j's comes too; least squares make a the share of the former among k's steps. Above a half j had better be on in
both, and learning ends there. But what k leaves to be explained is a times what j does in the one kind of step and
1 + a times in the other, which tells them apart.
"""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from .splitting import Steps, teach
from .unsupervised import UnsupervisedFlowVAE

# Share of one flow's steps in which the other is on too, and of all steps below which that may be by chance.
_ALWAYS, _RARELY = 0.9, 0.02
# Adam's steps and rate for a field that takes over another's part, which come to a relative error below a hundredth.
_TAKING, _RATE = 300, 3e-3


def tied(steps: Steps, controls: Sequence[int], tried: Collection[tuple[int, int]] = ()) -> tuple[int, int] | None:
    """A control that is on whenever another is, but not the other way round, and that other; None without such a pair.

    Of several it is the pair that is together most, without those that were `tried`. Flows that are hardly ever on
    count for nothing.
    """
    on = steps.on.float()
    together = on.mT @ on / len(on)
    share = together / on.mean(0).clamp(min=_RARELY)
    pairs = [
        (share[one, other].item(), one, other)
        for one in controls
        for other in controls
        if (one, other) not in tried
        and together[one, other] > _RARELY
        and share[one, other] > _ALWAYS >= share[other, one]
    ]
    return max(pairs)[1:] if pairs else None


def two_means(values: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the two halves into which values `[N]`, two or more, fall best: with the least squares within them."""
    values = values.sort().values
    count = torch.arange(1, len(values)).to(values)
    total = values.cumsum(0)
    low, high = total[:-1] / count, (total[-1] - total[:-1]) / (len(values) - count)
    best = (count * (len(values) - count) * (high - low).square()).argmax()
    return low[best], high[best]


@torch.no_grad()
def part(model: UnsupervisedFlowVAE, steps: Steps, control: int, other: int) -> None:
    """Let a control that is on whenever another is be on where its own transformation is to be seen.

    Its spikes learn, by a linear map of the posterior's features, where what is left for it to explain is more than the
    other's field has taken away, and that field takes the part over. Controls that are together in fewer than two
    steps stay as they are.

    Args:
        model: A model with single control.
        steps: What it does, from `observe`.
        control: The control that is on too often.
        other: The control with which it is on.
    """
    both = steps.on[:, control] & steps.on[:, other]
    if both.sum() < 2:
        return
    own = model.flows.bind(control)(steps.time, steps.before) * steps.sharpness
    # What the other leaves to the control, in multiples of what that does.
    multiples = ((steps.rest + own) * own).sum(-1) / own.square().sum(-1).clamp(min=1e-6)
    low, high = two_means(multiples[both])
    seen = multiples > (low + high) / 2
    wanted = steps.on[:, control] & (~steps.on[:, other] | seen)
    teach(model, steps, [control], wanted[:, None])
    _take_over(model, steps.time[both], steps.before[both], control, other, low)


def _take_over(model: UnsupervisedFlowVAE, time: Tensor, z: Tensor, control: int, other: int, share: Tensor) -> None:
    """Let the field of `other` do what it did and a share of what the field of `control` does, at given codes."""
    wanted = model.flows.bind(other)(time, z) + share * model.flows.bind(control)(time, z)
    optimizer = torch.optim.Adam(model.flows.stack.parameters(), lr=_RATE)
    for _ in range(_TAKING):
        with torch.enable_grad():
            error = (model.flows.bind(other)(time, z) - wanted).square().mean() / wanted.square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    optimizer.zero_grad()
