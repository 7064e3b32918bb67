"""A VAE whose latent code is moved by a bank of flows, with three degrees of supervision."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal

from torchflowfield import (
    Annealing,
    DiffusionPrior,
    DynamicOTLoss,
    FlowBank,
    FlowPath,
    FlowSelector,
    Forcing,
    ODEStepper,
    PathKL,
    SpikeSlab,
    SpikeSlabPosterior,
    SpikeSlabPrior,
)

from .base import Codes, Rollout, SequenceVAE, code_kl, log_normal, parameter_groups, training_progress
from .data.sequences import Batch
from .networks import (
    bernoulli_log_prob,
    make_pair_network,
    make_sequence_network,
    pair_features,
    shuffle_views,
)


class FlowVAE(SequenceVAE):
    r"""Supervised: the batch says which transformation is at work (FFRL).

    $\log p(x_0 | z_0) - KL(q(z_0) \| p(z_0)) + \sum_t \log p(x_t | z_t)$, the path's divergence from a diffusion, and
    the optimality of the transport.

    Args:
        latent: Size of the latent vector.
        size: `"quick"` or `"paper"` networks.
        fields: Number of flows K.
        width: Ridge units of one flow.
        kind: `"potential"`, `"rotational"` or `"helmholtz"`.
        control: `"single"` or `"double"`.
        frequencies: Harmonics of time in the flows; 0 makes them autonomous.
        path_kl: `"transition"` or `"marginal"`, see `torchflowfield.PathKL`; None leaves the path free.
        ot_weight: Weight of the Hamilton–Jacobi residual.
        initial_weight: Weight of the flows' first velocity, see `torchflowfield.DynamicOTLoss`.
        forcing: Learn a forcing f ≤ 0; otherwise f = 0.
        decoded: Frames decoded per sequence in training: frame 0 and random others, reweighted; 0 decodes all.
        code_warmup: Share of the training in which the weight of the code's divergence rises from 0.1 to 1.
        lr: Peak learning rate, after a short warm-up.
        hold: Share of the training after which the learning rate begins its cosine decay.
        bfloat16: Run encoder and decoder in bfloat16, where the device multiplies it.
        compile: Compile what a training step does outside its networks.
        image_size: Height and width of a frame: 28, 64 or 128.
    """

    needs_labels = True

    def __init__(
        self,
        latent: int = 32,
        size: Literal["quick", "paper"] = "quick",
        fields: int = 3,
        width: int = 96,
        kind: Literal["potential", "rotational", "helmholtz"] = "helmholtz",
        control: Literal["single", "double"] = "single",
        frequencies: int = 3,
        path_kl: Literal["transition", "marginal"] | None = "transition",
        ot_weight: float = 1.0,
        initial_weight: float = 1.0,
        forcing: bool = True,
        decoded: int = 2,
        code_warmup: float = 0.0,
        lr: float = 2e-3,
        hold: float = 0.0,
        bfloat16: bool = False,
        compile: bool = False,
        image_size: int = 28,
    ) -> None:
        super().__init__(latent, size, image_size, lr, hold, bfloat16)
        self.save_hyperparameters()
        self.flows = FlowBank(fields, latent, width=width, kind=kind, control=control, frequencies=frequencies)
        self.stepper = ODEStepper(self.flows)
        self.ot = DynamicOTLoss(
            forcing=Forcing(latent, fields, width=32) if forcing else None,
            residual_weight=ot_weight,
            initial_weight=initial_weight,
        )
        diffusion = DiffusionPrior(self.flows.num_controls)
        self.path_kl = PathKL(diffusion, mode=path_kl) if path_kl is not None else None

    def look(self, frames: Tensor) -> tuple[Codes, Codes | None]:
        """Codes `[B, D]` of frame 0 and, where `coefficients` needs them, `[T+1, *, D]` of all frames."""
        return self.encode(frames[0]), None

    def coefficients(self, frames: Tensor, batch: Batch | None, codes: Codes | None = None) -> tuple[Tensor, Tensor]:
        """Coefficients of the flows for frames `[T+1, B, C, H, W]`, and their divergence from the prior, a scalar.

        Args:
            frames: What happens.
            batch: What the data say about it.
            codes: Codes of all frames, of the whole batch or as `look` has them; made where they are needed and absent.
        """
        if batch is None:
            raise ValueError("FlowVAE: a supervised model reads the transformation from the batch; got none.")
        weights = batch["weights"].transpose(0, 1)
        if weights.shape[-1] != self.flows.num_controls:
            raise ValueError(
                f"FlowVAE: the data have {weights.shape[-1]} factors, the bank {self.flows.num_controls} controls."
            )
        return weights, frames.new_zeros(())

    def roll(
        self, z0: Tensor, weights: Tensor | int, steps: int, *, reverse: bool = False, record: bool = False
    ) -> FlowPath:
        """Move codes along the flows. Frame t is reached by the field at time t, so the clock starts at 1."""
        return self.stepper(z0, weights, steps, reverse=reverse, start=1.0, record=record)

    def rollout(self, frames: Tensor, batch: Batch | None, *, sample: bool = False) -> Rollout:
        """Move the code of frame 0 along the flows, with the coefficients that the model is given or infers."""
        (mean, std), codes = self.look(frames)
        weights, _ = self.coefficients(frames, batch, codes)
        if not sample:
            return Rollout(self.roll(mean, weights, len(frames) - 1).z)
        z0 = torch.normal(mean, std)
        # The Euler map's own density, so that the importance weights are exact.
        path = ODEStepper(self.flows, density="exact")(z0, weights, len(frames) - 1, start=1.0, record=False)
        log_prior = self.path_kl.prior(path) if self.path_kl is not None else log_normal(path.z)
        return Rollout(path.z, log_prior - path.log_prob(log_normal(z0, mean, std)))

    def transport(self, path: FlowPath) -> Tensor:
        """What the flows' paths are asked to be, a scalar to minimise."""
        return self.ot(path).total

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Negative evidence bound plus the transport's residual, per sequence."""
        frames = batch["frames"].transpose(0, 1)
        (mean, std), codes = self.look(frames)
        z0 = Normal(mean, std).rsample()
        weights, coefficient_kl = self.coefficients(frames, batch, codes)
        z, terms = self._moving(z0, mean, std, weights)
        terms["code_kl"] = self._code_weight() * terms["code_kl"]
        terms |= {"reconstruction": self._reconstruction(z, frames), "coefficient_kl": coefficient_kl}
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        loss = sum(terms.values())
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function cannot be copied or pickled; it is made anew when next needed.
        return {name: x for name, x in super().__getstate__().items() if name not in ("_moving", "_log_prob")}

    @functools.cached_property
    def _moving(self) -> Callable[..., tuple[Tensor, dict[str, Tensor]]]:
        return torch.compile(self._move, fullgraph=True) if self.hparams.compile else self._move

    @functools.cached_property
    def _log_prob(self) -> Callable[[Tensor, Tensor], Tensor]:
        return torch.compile(bernoulli_log_prob, fullgraph=True) if self.hparams.compile else bernoulli_log_prob

    def _move(self, z0: Tensor, mean: Tensor, std: Tensor, weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Codes of all frames, and the terms of the loss that look at codes alone."""
        path = self.roll(z0, weights, len(weights), record=True)
        terms = {"code_kl": code_kl(mean, std).mean(), "transport": self.transport(path)}
        if self.path_kl is not None:
            terms["path_kl"] = self.path_kl(path, log_normal(z0, mean, std)).total
        return path.z, terms

    def _code_weight(self) -> float:
        warmup = self.hparams.code_warmup
        return min(1.0, 0.1 + 0.9 * training_progress(self) / warmup) if warmup else 1.0

    def _reconstruction(self, z: Tensor, frames: Tensor) -> Tensor:
        """Negative log-likelihood of all frames, estimated from frame 0 and a random few of the others."""
        count, batch = frames.shape[:2]
        others = self.hparams.decoded - 1
        if others < 0 or others >= count - 1:
            return -self._log_prob(self.decode(z), frames).sum(0).mean()
        # A different choice for every sequence; each of the T frames is as likely as the others.
        chosen = 1 + torch.rand(count - 1, batch, device=z.device).argsort(0)[:others]
        chosen = torch.cat((chosen.new_zeros(1, batch), chosen))
        each = torch.arange(batch, device=z.device).expand_as(chosen)
        losses = -self._log_prob(self.decode(z[chosen, each]), frames[chosen, each])
        return (losses[0] + (count - 1) / others * losses[1:].sum(0)).mean()


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
        progress = training_progress(self)
        views = self.hparams.shuffle == "views"
        seen = shuffle_views(frames, mirror=views, turn=views) if self.training else frames
        with self._precision(frames):
            features = self.sequence_network(self._pixels(seen).transpose(0, 1).flatten(1, 2)).float()
        choice = self.selector(features, anneal(*self.hparams.temperature, progress / self.hparams.anneal))
        weights = choice.weights.expand(len(frames) - 1, -1, -1)
        weight = 1 + (self.hparams.choice_weight - 1) * max(0.0, 1 - progress / 0.3)
        return weights, weight * self.selector.kl(choice).mean()

    def _parameter_groups(self) -> list[dict]:
        choosing = [*self.sequence_network.parameters(), *self.selector.parameters()]
        return parameter_groups(self, (choosing, self.lr * self.hparams.selector_lr))


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
        weight = self.hparams.spike_weight * min(1.0, training_progress(self) / self.hparams.spike_warmup)
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
            temperature = anneal(*self.hparams.temperature, progress / self.hparams.anneal)
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
        if progress < start:
            return super().learning_rate(progress / start)
        return super().learning_rate((progress - start) / (1 - start)) / 2

    def _parameter_groups(self) -> list[dict]:
        rates = list(self.prior.parameters())
        choosing = [*self.pair_network.parameters(), *self.posterior.parameters()]
        return parameter_groups(self, (choosing, self.lr * self.hparams.posterior_lr), (rates, self.hparams.rates_lr))


def anneal(start: float, end: float, progress: float) -> float:
    """Temperature that falls exponentially from `start` to `end` while `progress` goes from 0 to 1."""
    return Annealing(start, end, steps=1)(progress)


def load_model(checkpoint: Path) -> SequenceVAE:
    """The model of a checkpoint, whatever its class, in `eval` mode on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is no checkpoint of these models.
    """
    # The baselines build upon this file.
    from . import baselines

    if not checkpoint.is_file():
        raise FileNotFoundError(f"{checkpoint}: expected a checkpoint, found no such file. Train one with train.py.")
    content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    others = [getattr(baselines, name) for name in baselines.__all__]
    classes = {cls.__name__: cls for cls in (FlowVAE, WeakFlowVAE, UnsupervisedFlowVAE, *others)}
    if content.get("model_class") not in classes:
        raise ValueError(
            f"{checkpoint}: expected a checkpoint of {', '.join(classes)}, got {content.get('model_class')}."
        )
    return classes[content["model_class"]].load_from_checkpoint(checkpoint, map_location="cpu").eval()
