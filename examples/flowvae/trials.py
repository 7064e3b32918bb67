"""What `selection.py` tries with a flow, and how a trial is kept until it ends."""

from typing import Any, NamedTuple

import torch

from .unsupervised import UnsupervisedFlowVAE


class Attempt(NamedTuple):
    """What is to be tried with a control: `"off"`, or, with another control, `"exchange"`, `"part"` or `"split"`."""

    how: str
    control: int
    other: int | None = None


class Snapshot(NamedTuple):
    """A model and its optimizer at some step, with the bound and the usage of the controls there."""

    bound: float
    usage: list[float]
    model: dict[str, Any]
    optimizer: dict[str, Any]


class Trial(NamedTuple):
    """An attempt under way.

    `before` is where it began. All but `"off"` come after as many steps without the attempt, which end in `plain`, and
    have to be better than that.
    """

    how: str
    control: int
    other: int | None
    before: Snapshot
    plain: Snapshot | None = None

    @property
    def rival(self) -> Snapshot:
        """What the attempt is compared with, and what to go back to."""
        return self.plain or self.before

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint, which holds no classes."""
        return {**self._asdict(), "before": self.before._asdict(), "plain": self.plain and self.plain._asdict()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any]) -> "Trial":
        """What `to_dict` gave."""
        plain = saved["plain"] and Snapshot(**saved["plain"])
        return cls(**{**saved, "before": Snapshot(**saved["before"]), "plain": plain})


@torch.no_grad()
def exchange(model: UnsupervisedFlowVAE, control: int, other: int) -> None:
    """Let two controls change places: each gets the spike of the other, with its prior."""
    posterior, prior = model.posterior, model.prior
    spikes = [posterior.spike_head.weight, posterior.spike_head.bias, posterior.enabled]
    for rows in [*spikes, *prior.parameters()]:
        rows[[control, other]] = rows[[other, control]]
