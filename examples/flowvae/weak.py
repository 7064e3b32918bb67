"""A VAE with flows that learns which of them moves each sequence: weakly supervised."""

from typing import Literal

from torch import Tensor

from torchflowfield import Annealing, FlowSelector

from .base import Codes, parameter_groups, ramp, training_progress
from .data.sequences import Batch
from .networks import make_sequence_network, shuffle_views
from .supervised import FlowVAE


class WeakFlowVAE(FlowVAE):
    r"""Weakly supervised: one unknown transformation per sequence, chosen by looking at it (FFRL).

    Left alone, the selector soon settles on dividing sequences by their content, with every flow doing one thing here
    and another there. Two things prevent it, both in training only: it sees sequences turned, mirrored and with their
    colours permuted, and its divergence from the uniform prior weighs more at first.

    Args:
        steps: Frames after the first.
        features: Size of the features that the selector reads.
        temperature: Temperature of the Gumbel-softmax at the start and at the end.
        anneal: Share of the training in which the temperature falls.
        choice_weight: First weight of the choice's divergence; it falls to 1 in the first three tenths of the training.
        selector_lr: Learning rate of the selector, as a share of that of the rest. One that learns as fast decides for
            good before there are flows to choose from, where the whole scene is in view.
        shuffle: How the selector sees sequences in training: `"views"`, turned, mirrored and with their colours
            exchanged; `"colors"`, the latter alone, for scenes with an up and a down.
        **shared: Arguments of `FlowVAE`.
    """

    needs_labels = False

    def __init__(
        self,
        steps: int = 5,
        features: int = 64,
        temperature: tuple[float, float] = (1.0, 0.3),
        anneal: float = 0.5,
        choice_weight: float = 30.0,
        selector_lr: float = 1.0,
        shuffle: Literal["views", "colors"] = "views",
        **shared,
    ) -> None:
        super().__init__(**shared)
        self.save_hyperparameters()
        self.sequence_network = make_sequence_network(steps + 1, features, image_size=self.hparams.image_size)
        self.selector = FlowSelector(features, self.flows.num_controls)

    def coefficients(self, frames: Tensor, batch: Batch | None, codes: Codes | None = None) -> tuple[Tensor, Tensor]:
        """The chosen flow, constant over the sequence."""
        if len(frames) != self.hparams.steps + 1:
            raise ValueError(
                f"WeakFlowVAE: expected sequences of {self.hparams.steps + 1} frames, as the selector was built for "
                f"steps={self.hparams.steps}, got {len(frames)}. Set --model.init_args.steps and --data.steps alike."
            )
        progress = training_progress(self)
        views = self.hparams.shuffle == "views"
        seen = shuffle_views(frames, mirror=views, turn=views) if self.training else frames
        with self._precision(frames):
            features = self.sequence_network(self._pixels(seen).transpose(0, 1).flatten(1, 2)).float()
        temperature = Annealing(*self.hparams.temperature, steps=1)(ramp(progress, self.hparams.anneal))
        choice = self.selector(features, temperature)
        weights = choice.weights.expand(len(frames) - 1, -1, -1)
        weight = 1 + (self.hparams.choice_weight - 1) * max(0.0, 1 - progress / 0.3)
        return weights, weight * self.selector.kl(choice).mean()

    def _parameter_groups(self) -> list[dict]:
        choosing = [*self.sequence_network.parameters(), *self.selector.parameters()]
        return parameter_groups(self, (choosing, self.lr * self.hparams.selector_lr))
