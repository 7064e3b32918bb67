"""A VAE with flows that infers which are at work, and how fast, from frame to frame: unsupervised."""

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Laplace

from torchflowfield import Annealing, SpikeSlab, SpikeSlabPosterior, SpikeSlabPrior

from .base import Codes, parameter_groups, ramp, training_progress
from .data.sequences import Batch
from .networks import make_pair_network, pair_features, shuffle_views
from .supervised import FlowVAE


class UnsupervisedFlowVAE(FlowVAE):
    r"""Unsupervised: which flows are at work, and how fast, is inferred from every two successive frames (STA).

    Args:
        features: Size of the features of a pair of frames.
        slab: Infer speeds too; otherwise every speed is 1.
        slab_from: Share of the training after which the slabs join the spikes. Until then spikes learn to tell speeds
            too, as far as they can: a flow helps another out where that is faster than usual.
        settle_from: Share of the training after which the spikes, where there are slabs, stay as they are: a wavering
            one is taken for a low speed. The learning rate then rises again to a half.
        consistency: Weight of the part of the codes' motion that the flows leave unexplained, see `explain`. It keeps
            a flow from doing one thing to some images and another to others.
        consistency_from: Share of the training after which it counts. From the start it would keep a new model from
            learning to reconstruct.
        on: Prior probability of a first spike.
        keep: Prior probability that a spike keeps its value.
        learn_rates: Learn the prior's rates of every control, so that surplus flows die out.
        temperature: Temperature of the relaxation at the start and at the end.
        anneal: Share of the training in which the temperature falls.
        spike_weight: Weight of the spikes' divergence.
        spike_warmup: Share of the training in which this weight rises from 0.
        rates_lr: Learning rate of the prior's rates.
        posterior_lr: Learning rate of the posterior of spikes and slabs, as a share of that of the rest. One that
            learns as fast decides before there are flows to choose from, for good, and by content.
        shuffle: How the posterior sees sequences in training, so that it cannot divide a transformation between flows
            by content: `"views"`, turned and with their colours exchanged; `"colors"`, the latter alone, for scenes
            with an up and a down; `"none"`, as they are.
        **shared: Arguments of `FlowVAE`.
    """

    needs_labels = False

    def __init__(
        self,
        features: int = 128,
        slab: bool = False,
        slab_from: float = 0.1,
        settle_from: float = 0.4,
        consistency: float = 0.0,
        consistency_from: float = 0.1,
        on: float = 0.1,
        keep: float = 0.9,
        learn_rates: bool = False,
        temperature: tuple[float, float] = (1.0, 0.3),
        anneal: float = 0.8,
        spike_weight: float = 1.0,
        spike_warmup: float = 0.4,
        rates_lr: float = 1e-2,
        posterior_lr: float = 1.0,
        shuffle: Literal["views", "colors", "none"] = "views",
        **shared,
    ) -> None:
        super().__init__(**shared)
        self.save_hyperparameters()
        if slab and settle_from < slab_from:
            raise ValueError(
                f"UnsupervisedFlowVAE: expected settle_from of at least slab_from, {slab_from}, got {settle_from}."
            )
        self.pair_network = make_pair_network(features, width=16, image_size=self.hparams.image_size)
        self.posterior = SpikeSlabPosterior(
            features,
            self.flows.K,
            control=self.flows.control,
            slab=Laplace if slab else None,
            slab_scale=0.03,
            slab_features=2 * self.flows.K,
        )
        self.prior = SpikeSlabPrior(
            self.flows.K,
            on,
            keep,
            control=self.flows.control,
            slab=Laplace(1.0, 0.1) if slab else None,
            learnable=learn_rates,
        )
        if slab:
            # How large the codes' errors are in units of their variances; known once the spikes have settled.
            self.register_buffer("noise", torch.ones(()))
            # A slab begins as the speed that explains how the code moved; the slope of its squashing at 1 is a half.
            head = self.posterior.slab_head.weight.data.view(self.flows.K, 2, -1)
            head.zero_()[:, 0, : self.flows.K] = 2 * torch.eye(self.flows.K)
        nn.init.normal_(self.posterior.spike_head.weight, std=0.05)
        nn.init.zeros_(self.posterior.spike_head.bias)

    def look(self, frames: Tensor) -> tuple[Codes, Codes | None]:
        """Codes of frame 0, and of every frame where how they move is explained.

        How they move teaches the encoder by a share of the sequences, which will do. The codes of the others have no
        gradient there, and are left out where there are no speeds to infer.
        """
        speeds = self._has_speeds()
        if not self._needs_codes():
            return super().look(frames)
        count = frames.shape[1]
        some = self._share(count)
        codes = self.encode(torch.cat((frames[0], frames[1:, :some].flatten(0, 1))))
        first, later = (Codes(*(x[part] for x in codes)) for part in (slice(count), slice(count, None)))
        later = Codes(*(x.unflatten(0, (-1, some)) for x in later))
        path = Codes(*(torch.cat((x[None, :some], y)) for x, y in zip(first, later, strict=True)))
        if speeds and some < count:
            with torch.no_grad():
                later = self.encode(frames[1:, some:])
            others = (torch.cat((x[None, some:].detach(), y)) for x, y in zip(first, later, strict=True))
            path = Codes(*(torch.cat(pair, 1) for pair in zip(path, others, strict=True)))
        return first, path

    def coefficients(self, frames: Tensor, batch: Batch | None, codes: Codes | None = None) -> tuple[Tensor, Tensor]:
        """Spikes and slabs of every step."""
        if codes is None and self._needs_codes():
            codes = self.look(frames)[1]
        draw, unexplained = self._infer(frames, codes)
        kl = self.prior.kl(draw)
        weight = self.hparams.spike_weight * ramp(training_progress(self), self.hparams.spike_warmup)
        cost = (weight * kl.spike + kl.slab).sum(0).mean()
        if self._is_consistent():
            some = slice(self._share(frames.shape[1]))
            if unexplained is None:
                unexplained = self.explain(Codes(*(x[:, some] for x in codes)), draw.spikes[:, some])[1]
            cost = cost + self.hparams.consistency * unexplained[:, some].sum(0).mean()
        return draw.weights, cost

    def infer(self, frames: Tensor) -> SpikeSlab:
        """The posterior's draw for frames `[T+1, B, C, H, W]`, deterministic in `eval` mode."""
        return self._infer(frames, self.look(frames)[1] if self._has_speeds() else None)[0]

    def _needs_codes(self) -> bool:
        return self._has_speeds() or self._is_consistent()

    def _has_speeds(self) -> bool:
        return self.hparams.slab and training_progress(self) >= self.hparams.slab_from

    def _is_consistent(self) -> bool:
        """Whether the motion that is left unexplained counts."""
        consistent = self.training and self.hparams.consistency > 0
        return consistent and training_progress(self) >= self.hparams.consistency_from

    def _share(self, count: int) -> int:
        return math.ceil(count / 4) if self.training else count

    def _infer(self, frames: Tensor, codes: Codes | None) -> tuple[SpikeSlab, Tensor | None]:
        """The draw, and what its speeds leave unexplained if it has slabs."""
        progress = training_progress(self)
        settled = self.hparams.slab and progress >= self.hparams.settle_from
        shuffle = self.training and self.hparams.shuffle != "none" and not settled
        seen = shuffle_views(frames, mirror=False, turn=self.hparams.shuffle == "views") if shuffle else frames
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settled):
            features = self.pair_features(seen)
            temperature = Annealing(*self.hparams.temperature, steps=1)(ramp(progress, self.hparams.anneal))
            draw = self.posterior(features, temperature, use_slab=False, sample=False if settled else None)
        if not self._has_speeds():
            return draw, None
        speeds, unexplained = self.explain(codes, draw.spikes)
        on = draw.spikes.unflatten(-1, (-1, self.flows.K)).amax(-2)
        return self.posterior.with_slabs(draw, torch.cat((speeds, on), -1)), unexplained

    def explain(self, codes: Codes, spikes: Tensor) -> tuple[Tensor, Tensor]:
        r"""The speeds that explain how codes `[T+1, B, D]` of successive frames moved.

        In $\mu_t - \mu_{t-1} = \sum_k (1 + \delta_k) y_k v_k(\mu_{t-1}) + \epsilon$ the errors have the variances of
        both codes times `noise`, and $\delta$ has that of the slabs. Codes are more exact than their variances say, and
        speeds would be taken for errors; so once the spikes have settled `noise` follows the errors that are seen.

        Returns:
            The posterior mean of $\delta$, `[T, B, K]`, and what that leaves unexplained, `[T, B]`: half the squares of
            the errors, in units of the codes' variances, and of $\delta$, in units of its own. Without the latter a
            flow might move one image less at unit speed than another, and $\delta$ would make up for it. The codes'
            variances take part in the gradient: else small codes would be cheap, and all would shrink.
        """
        moves, surplus, precision = self.motion(codes, spikes)
        if self.prior.slab is None:
            return torch.zeros_like(moves[..., 0, :]), 0.5 * (precision * surplus.square()).sum(-1)
        trusted = precision / self.noise.clone()
        gram = torch.einsum("tbdk,tbd,tbdl->tbkl", moves, trusted, moves)
        gram = gram + torch.eye(self.flows.K, device=gram.device) / self.prior.slab.variance
        speeds = torch.linalg.solve(gram, torch.einsum("tbdk,tbd,tbd->tbk", moves, trusted, surplus))
        left = surplus - (moves * speeds[..., None, :]).sum(-1)
        surprise = 0.5 * ((precision * left.square()).sum(-1) + speeds.square().sum(-1) / self.prior.slab.variance)
        if self.training and training_progress(self) >= self.hparams.settle_from:
            self.noise.lerp_((precision * left.square()).mean().detach(), 0.01)
        return speeds, surprise

    def motion(self, codes: Codes, spikes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How every field moves codes at unit speed, `[T, B, D, K]`; the rest of how they moved, and its precision."""
        mean, std = codes
        on, before = (spikes > 0.5).to(mean), mean[:-1]
        time = torch.arange(1.0, len(mean), device=before.device)[:, None].expand(before.shape[:-1])
        moves = [on[..., k : k + 1] * self.flows.bind(k)(time, before) for k in range(self.flows.num_controls)]
        moves = torch.stack(moves, -1).unflatten(-1, (-1, self.flows.K)).sum(-2)
        return moves, mean[1:] - before - moves.sum(-1), 1 / (std[:-1].square() + std[1:].square())

    def pair_features(self, frames: Tensor) -> Tensor:
        """Features `[T, B, features]` of every two successive frames, from which the spikes are inferred."""
        with self._precision(frames):
            return pair_features(self.pair_network, self._pixels(frames)).float()

    def learning_rate(self, progress: float) -> float:
        """With slabs, one decay for each stage."""
        if not self.hparams.slab:
            return super().learning_rate(progress)
        start = self.hparams.settle_from
        if progress < start or start >= 1:
            return super().learning_rate(progress / start)
        return super().learning_rate((progress - start) / (1 - start)) / 2

    def _parameter_groups(self) -> list[dict]:
        rates = list(self.prior.parameters())
        choosing = [*self.pair_network.parameters(), *self.posterior.parameters()]
        return parameter_groups(self, (choosing, self.lr * self.hparams.posterior_lr), (rates, self.hparams.rates_lr))
