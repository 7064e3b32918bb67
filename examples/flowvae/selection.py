"""Trials of flows in training: a bank gives up flows that the data can do without, and mends those that went wrong."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import Tensor

from .base import training_progress
from .networks import bernoulli_log_prob
from .parting import part, tied
from .splitting import Steps, likeliest, observe, split
from .trials import Attempt, Snapshot, Trial, exchange
from .unsupervised import UnsupervisedFlowVAE

# Two transformations that come and go by themselves coincide now and then. The halves of one, told apart by what is in
# the picture, hardly ever do.
_TOGETHER = 0.15


class BackwardSelection(Callback):
    """Tries flows off, of the other kind, by themselves and in two, and keeps what the bound is better for.

    What decides is the negative evidence bound of validation sequences, without noise. With `remove` the least used
    flow is switched off, the others take over, and it stays off unless the bound got worse. With learnable switching
    rates an unused flow is cheap to keep off, but they do not merge two flows that have divided a transformation
    between them by content: on the way there the bound is worse. Taking one away does. Every flow is tried once; the
    trials come early, while the others can still learn to take over.

    With double control a transformation may have fallen to the wrong kind of flow: a gradient cannot go round in a
    circle. So every control that is needed then changes kind on trial, as far as `end` allows: the other part of its
    field gets its spike, or that of another field where it is taken, and keeps it if the bound is then better than
    after as many steps without the change. Those come first, so that training goes on where they win; the others begin
    where they began, a little later in the schedule. Then those that have not changed kind are tried again.

    With single control one flow may be on whenever another is, as the other's field undoes a part of what it does. It
    then learns on trial to be on by itself, see `part`, and stays so if the bound is then better than after as many
    steps without. A pair is tried once. When nothing is left to try, flows are looked at again every `learn` steps.

    With single control, too, one flow may have come to stand for two transformations. With `split`, the flow that
    leaves most unexplained is split in two on trial, as long as there are controls that are off. It stays split if the
    bound is then better than after as many steps without, and the two are at times at work together, as two
    transformations are; halves that exclude each other divide one by what is in the picture. The first that does not
    stay split ends this.

    Args:
        begin: Share of the training before the first trial.
        end: Share of the training after which no trial begins.
        heal: Steps of a trial.
        tolerance: Largest relative loss of the bound at which a flow stays off.
        learn: Steps of a trial of the other kind, which has its motion still to learn, of a flow by itself, or of one
            in two; and as many without.
        sequences: Validation sequences that decide, in whole batches.
        remove: Try flows off; `heal` and `tolerance` serve that.
        split: Try flows in two.
    """

    def __init__(
        self,
        begin: float = 0.12,
        end: float = 0.6,
        heal: int = 100,
        tolerance: float = 0.03,
        learn: int = 300,
        sequences: int = 512,
        remove: bool = True,
        split: bool = False,
    ) -> None:
        self.begin, self.end, self.heal, self.learn = begin, end, heal, learn
        self.tolerance, self.sequences = tolerance, sequences
        self.remove, self.split = remove, split
        self.needed: list[int] = []
        self.settled: list[int] = []
        self.parted: list[tuple[int, int]] = []
        self.trial: Trial | None = None
        self.next_step = 0

    def state_dict(self) -> dict[str, Any]:
        """Where the selection stands, for a checkpoint."""
        trial = None if self.trial is None else self.trial.to_dict()
        known = {"needed": self.needed, "settled": self.settled, "parted": self.parted}
        return {**known, "trial": trial, "next_step": self.next_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.needed, self.settled, self.next_step = (state_dict[n] for n in ("needed", "settled", "next_step"))
        self.parted = [tuple(pair) for pair in state_dict.get("parted", [])]
        self.trial = None if state_dict["trial"] is None else Trial.from_dict(state_dict["trial"])

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: UnsupervisedFlowVAE, batch: Any, batch_idx: int
    ) -> None:
        """End a trial that has lasted long enough, and begin the next."""
        begin = round(self.begin * int(trainer.estimated_stepping_batches))
        if trainer.global_step < max(begin, self.next_step):
            return
        model, optimizer = pl_module, trainer.optimizers[0]
        now = Snapshot(*self._bound(trainer, model), *(copy.deepcopy(each.state_dict()) for each in (model, optimizer)))
        trial = self.trial
        if trial is not None and trial.how != "off" and trial.plain is None:
            self.trial = trial._replace(plain=now)
            self._restore(trainer, model, trial.before)
            if trial.how == "exchange":
                exchange(model, trial.control, trial.other)
            else:
                change = part if trial.how == "part" else split
                change(model, self._observe(trainer, model), trial.control, trial.other)
            self.next_step = trainer.global_step + self.learn
            return
        if trial is not None:
            now = self._judge(trainer, model, now)
        ended = training_progress(model) >= self.end
        chosen = None if ended else self._choose(trainer, model, now.usage)
        if chosen is None:
            # Flows that are not tied yet may be so later.
            again = not ended and model.flows.control == "single"
            self.next_step = trainer.global_step + self.learn if again else int(trainer.estimated_stepping_batches)
            return
        self.trial = Trial(*chosen, now)
        if chosen.how == "off":
            model.posterior.disable(chosen.control)
            model.prior.disable(chosen.control)
        self.next_step = trainer.global_step + (self.heal if chosen.how == "off" else self.learn)

    def _choose(self, trainer: Trainer, model: UnsupervisedFlowVAE, usage: list[float]) -> Attempt | None:
        """What to try next; None if everything has been tried."""
        on = [k for k, enabled in enumerate(model.posterior.enabled.tolist()) if enabled]
        untried = [k for k in on if k not in self.needed] if self.remove and len(on) > 1 else []
        if untried:
            return Attempt("off", min(untried, key=lambda k: usage[k]))
        if model.flows.control == "double":
            fields, controls = model.flows.K, model.flows.num_controls
            for k in on:
                # The other kind's controls, that of the same field first.
                others = [(k // fields * fields + fields + (k + i) % fields) % controls for i in range(fields)]
                free = [other for other in others if other not in on]
                if k not in self.settled and free:
                    return Attempt("exchange", k, free[0])
            return None
        steps = self._observe(trainer, model)
        if (pair := tied(steps, on, self.parted)) is not None:
            return Attempt("part", *pair)
        free = [k for k in range(model.flows.num_controls) if k not in on]
        # Once the likeliest one has turned out to be one, so are the others.
        if not self.split or self.settled or not free:
            return None
        return Attempt("split", likeliest(steps, on), free[0])

    def _judge(self, trainer: Trainer, model: UnsupervisedFlowVAE, now: Snapshot) -> Snapshot:
        """End a trial that has led to `now`: stay there, or go back."""
        trial, self.trial = self.trial, None
        figures = f"negative bound {trial.before.bound:.1f} before, {now.bound:.1f} after the trial"
        if trial.plain is not None:
            figures += f", {trial.plain.bound:.1f} after as many steps without"
        if trial.how == "off":
            good = now.bound <= trial.rival.bound * (1 + self.tolerance)
            trainer.print(f"flow {trial.control} {'stays off' if good else 'is needed'}: {figures}")
            self.needed += [] if good else [trial.control]
        elif trial.how == "part":
            good = now.bound < trial.rival.bound
            trainer.print(f"flow {trial.control} is on {'without' if good else 'with'} {trial.other}: {figures}")
            self.parted.append((trial.control, trial.other))
        elif trial.how == "split":
            together = self._together(trainer, model, trial.control, trial.other)
            good = now.bound < trial.rival.bound and together > _TOGETHER
            figures += f", at work together {together:.2f} times as often as by chance"
            trainer.print(f"flow {trial.control} {f'and {trial.other} are two' if good else 'is one'}: {figures}")
            self.settled += [] if good else [trial.control]
            self.needed += [trial.other] if good else []
        else:
            good = now.bound < trial.rival.bound
            kept = trial.other if good else trial.control
            trainer.print(f"flow {trial.control} or {trial.other}, {kept} is the better kind: {figures}")
            self.settled.append(kept)
            # Beside a flow of the better kind others may no longer be needed.
            self.needed = list(self.settled) if good else self.needed
        if good:
            return now
        self._restore(trainer, model, trial.rival)
        return trial.rival

    def _restore(self, trainer: Trainer, model: UnsupervisedFlowVAE, earlier: Snapshot) -> None:
        """Go back to an earlier step, with the learning rates of the present one."""
        model.load_state_dict(earlier.model)
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        # A copy, as the optimizer would go on in the tensors that it is given.
        trainer.optimizers[0].load_state_dict(copy.deepcopy(earlier.optimizer))
        for group, rate in zip(trainer.optimizers[0].param_groups, rates, strict=True):
            group["lr"] = rate

    @torch.no_grad()
    def _bound(self, trainer: Trainer, model: UnsupervisedFlowVAE) -> tuple[float, list[float]]:
        """Negative evidence bound per sequence, without noise, and the usage of every control."""
        was_training = model.training
        model.eval()
        total, usage, seen = 0.0, torch.zeros(model.flows.num_controls), 0
        for frames in self._frames(trainer, model):
            mean, std = model.encode(frames[0])
            draw = model.infer(frames)
            path = model.roll(mean, draw.weights, len(frames) - 1)
            kl = (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(-1) + model.prior.kl(draw).total
            total += (kl - bernoulli_log_prob(model.decode(path.z), frames).sum(0)).sum().item()
            usage += (draw.spikes > 0.5).float().mean(0).sum(0).cpu()
            seen += frames.shape[1]
        model.train(was_training)
        return total / seen, (usage / seen).tolist()

    def _observe(self, trainer: Trainer, model: UnsupervisedFlowVAE) -> Steps:
        model.eval()
        steps = observe(model, self._frames(trainer, model))
        model.train()
        return steps

    def _together(self, trainer: Trainer, model: UnsupervisedFlowVAE, one: int, other: int) -> float:
        """How often two flows are at work in the same step, as a multiple of what chance would have."""
        on = self._observe(trainer, model).on[:, [one, other]].float()
        return (on.prod(-1).mean() / on.mean(0).prod().clamp(min=1e-6)).item()

    def _frames(self, trainer: Trainer, model: UnsupervisedFlowVAE) -> Iterator[Tensor]:
        """The validation sequences that decide, `[T+1, B, C, H, W]`."""
        seen = 0
        for batch in trainer.datamodule.val_dataloader():
            yield batch["frames"].transpose(0, 1).to(model.device)
            seen += len(batch["frames"])
            if seen >= self.sequences:
                return
