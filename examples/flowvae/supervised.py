"""A VAE whose latent code is moved by a bank of flows, told which: supervised."""

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Normal

from torchflowfield import DiffusionPrior, DynamicOTLoss, FlowBank, FlowPath, Forcing, ODEStepper, PathKL

from .base import Codes, Rollout, SequenceVAE, code_kl, log_normal, ramp, training_progress
from .data.sequences import Batch
from .networks import bernoulli_log_prob


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
        if decoded == 1 or decoded < 0:
            raise ValueError(f"FlowVAE: expected decoded frames of 0, for all, or of at least 2, got {decoded}.")
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
        return 0.1 + 0.9 * ramp(training_progress(self), self.hparams.code_warmup)

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
