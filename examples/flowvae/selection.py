"""Choosing K: a bank with too many flows gives up those that the data can do without."""

import copy
from typing import Any, NamedTuple

import torch
from lightning import Callback, Trainer

from .model import UnsupervisedFlowVAE, training_progress
from .networks import bernoulli_log_prob


class Trial(NamedTuple):
    """A flow that is off on trial, and how to go back."""

    control: int
    bound: float
    model: dict[str, Any]
    optimizer: dict[str, Any]


class BackwardSelection(Callback):
    """Switches the least used flow off, lets the others take over, and keeps it off unless the bound got worse.

    Learnable switching rates make an unused flow cheap to keep off, but they do not merge two flows that have divided a
    transformation between them by content: on the way there the bound is worse. Taking one away does. What decides is
    the negative evidence bound of validation sequences, without noise. Every flow is tried once; the trials come early,
    while the others can still learn to take over.

    Args:
        begin: Share of the training before the first trial.
        end: Share of the training after which no trial begins.
        heal: Steps of a trial.
        tolerance: Largest relative loss of the bound at which a flow stays off.
        sequences: Validation sequences that decide, in whole batches.
    """

    def __init__(
        self,
        begin: float = 0.12,
        end: float = 0.6,
        heal: int = 100,
        tolerance: float = 0.03,
        sequences: int = 512,
    ) -> None:
        self.begin, self.end, self.heal = begin, end, heal
        self.tolerance, self.sequences = tolerance, sequences
        self.needed: list[int] = []
        self.trial: Trial | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where the selection stands, for a checkpoint."""
        return {"needed": self.needed, "trial": None if self.trial is None else self.trial._asdict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.needed = state_dict["needed"]
        self.trial = None if state_dict["trial"] is None else Trial(**state_dict["trial"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: UnsupervisedFlowVAE, batch: Any, batch_idx: int
    ) -> None:
        """End a trial that has lasted long enough, and begin the next."""
        total = int(trainer.estimated_stepping_batches)
        since = trainer.global_step - round(self.begin * total)
        if since < 0 or since % self.heal:
            return
        model, optimizer = pl_module, trainer.optimizers[0]
        bound, usage = self._bound(trainer, model)
        if self.trial is not None:
            bound, usage = self._judge(trainer, model, bound, usage)
        candidates = [k for k in range(len(usage)) if bool(model.posterior.enabled[k]) and k not in self.needed]
        late = training_progress(model) >= self.end
        if late or not candidates or int(model.posterior.enabled.sum()) == 1:
            return
        control = min(candidates, key=lambda k: usage[k])
        self.trial = Trial(control, bound, copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()))
        model.posterior.disable(control)
        model.prior.disable(control)

    def _judge(
        self, trainer: Trainer, model: UnsupervisedFlowVAE, bound: float, usage: list[float]
    ) -> tuple[float, list[float]]:
        trial, self.trial = self.trial, None
        kept_off = bound <= trial.bound * (1 + self.tolerance)
        word = "stays off" if kept_off else "is needed"
        trainer.print(f"flow {trial.control} {word}: negative bound {trial.bound:.1f} with it, {bound:.1f} without")
        if kept_off:
            return bound, usage
        self.needed.append(trial.control)
        model.load_state_dict(trial.model)
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        trainer.optimizers[0].load_state_dict(trial.optimizer)
        for group, rate in zip(trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = rate
        return self._bound(trainer, model)

    @torch.no_grad()
    def _bound(self, trainer: Trainer, model: UnsupervisedFlowVAE) -> tuple[float, list[float]]:
        """Negative evidence bound per sequence, without noise, and the usage of every control."""
        was_training = model.training
        model.eval()
        total, usage, seen = 0.0, torch.zeros(model.flows.num_controls), 0
        for batch in trainer.datamodule.val_dataloader():
            frames = batch["frames"].transpose(0, 1).to(model.device)
            mean, std = model.encode(frames[0])
            draw = model.infer(frames)
            path = model.roll(mean, draw.weights, len(frames) - 1)
            kl = (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(-1) + model.prior.kl(draw).total
            total += (kl - bernoulli_log_prob(model.decode(path.z), frames).sum(0)).sum().item()
            usage += (draw.spikes > 0.5).float().mean(0).sum(0).cpu()
            seen += frames.shape[1]
            if seen >= self.sequences:
                break
        model.train(was_training)
        return total / seen, (usage / seen).tolist()
