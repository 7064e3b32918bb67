"""Prior of sparse coefficients: a Markov chain of spikes, with independent slabs."""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, kl_divergence
from torch.nn import functional as F

from torchflowfield import spikes as law
from torchflowfield._checks import check_choice, check_probability, check_steps, check_whole, validates
from torchflowfield.diffusion import DiffusionPrior as DiffusionPrior  # a public name of this module too


class SpikeSlab(NamedTuple):
    r"""Coefficients $g = y \circ s$ over time, and what they were drawn from.

    Attributes:
        weights: $g$, `[T, *, num_controls]`: a schedule for a bank.
        spikes: $y$ in [0, 1], `[T, *, num_controls]`.
        slabs: $s$, `[T, *, K]`; None for spikes alone. Double control shares a slab between a field's two spikes.
        logits: Log-odds of the spikes before the condition that one is on; None for a sample of the prior.
        slab: Distribution of the slabs; None for a sample of the prior or spikes alone.
    """

    weights: Tensor
    spikes: Tensor
    slabs: Tensor | None = None
    logits: Tensor | None = None
    slab: Distribution | None = None


class SpikeSlabKL(NamedTuple):
    """Divergence of the spikes and of the slabs at every step, `[T, *]`, and the `total` over steps, `[*]`."""

    spike: Tensor
    slab: Tensor
    total: Tensor


class SpikeSlabPrior(nn.Module):
    r"""Sparse coefficients: spikes form a Markov chain, slabs are independent over time.

    A spike $y_t \in \{0, 1\}^K$ is never all zero. The first is Bernoulli(`on`) per field; then a field that is off
    goes on with probability `switch_on`, one that is on goes off with `switch_off`; each draw is conditioned on
    $y_t \ne 0$. The papers' symmetric chain has `switch_on = switch_off = 1 - keep`, and keeps every field on half of
    the time or more in the long run (0.58 for K = 3, 0.51 for 6). Separate rates, learned with `learnable=True`
    (empirical Bayes), let surplus fields die out.

    Args:
        K: Number of fields (`bank.K`).
        on: Probability of a first spike.
        keep: Probability that a spike keeps its value, where the rates are not given.
        control: `"double"` has two spikes per field, one for each part, and one slab that they share.
        switch_on: Probability of going on.
        switch_off: Probability of going off.
        slab: Distribution of the slabs; None for spikes alone.
        learnable: Learn the three probabilities of every field.

    Raises:
        ValueError: For `K` below one or probabilities outside (0, 1).
        TypeError: For a slab that its arguments alone do not describe, such as a transformed distribution.

    Reference:
        Song et al., Unsupervised Representation Learning from Sparse Transformation Analysis, arXiv 2410.05564.

    Example:
        >>> prior = SpikeSlabPrior(K=3)
        >>> [round(float(p), 3) for p in prior.marginals(steps=3)[:, 0]]
        [0.369, 0.425, 0.465]
        >>> prior.sample((16,), steps=8).weights.shape
        torch.Size([8, 16, 3])
    """

    def __init__(
        self,
        K: int,
        on: float = 0.1,
        keep: float = 0.9,
        *,
        control: Literal["single", "double"] = "single",
        switch_on: float | None = None,
        switch_off: float | None = None,
        slab: Distribution | None = Laplace(1.0, 0.1),  # noqa: B008
        learnable: bool = False,
    ) -> None:
        super().__init__()
        check_whole("SpikeSlabPrior", K=K)
        check_choice("SpikeSlabPrior", "control", control, ("single", "double"))
        check_probability("SpikeSlabPrior", "keep", keep)
        rates = {
            "on": on,
            "switch_on": 1 - keep if switch_on is None else switch_on,
            "switch_off": 1 - keep if switch_off is None else switch_off,
        }
        self.K, self.control = K, control

        def logit(name: str) -> nn.Parameter:
            check_probability("SpikeSlabPrior", name, rates[name])
            value = math.log(rates[name]) - math.log1p(-rates[name])
            return nn.Parameter(torch.full((self.num_controls,), value), requires_grad=learnable)

        self.on_logit, self.switch_on_logit, self.switch_off_logit = map(logit, rates)
        self._slab_type = None if slab is None else type(slab)
        # Some families keep an argument as a property; those derived from others (logits of probs) are lazy ones.
        self._slab_arguments = [
            name
            for name in (() if slab is None else slab.arg_constraints)
            if name in slab.__dict__ or type(getattr(type(slab), name, None)) is property
        ]
        for name in self._slab_arguments:
            # Like the other parameters: the usual slab was made on the device and in the dtype of the import.
            self.register_buffer(f"slab_{name}", getattr(slab, name).detach().to(self.on_logit, copy=True))
        if slab is not None and (not self._slab_arguments or slab.event_shape):
            raise TypeError(
                f"SpikeSlabPrior: expected a distribution of one number with tensors for arguments, such as Laplace, "
                f"got {type(slab).__name__}. Give a family of your own `arg_constraints`."
            )

    @property
    def num_controls(self) -> int:
        """Number of spikes: K, or 2K with double control."""
        return self.K * (2 if self.control == "double" else 1)

    @property
    def slab(self) -> Distribution | None:
        """Distribution of one slab, on the device of this module."""
        if self._slab_type is None:
            return None
        arguments = {name: getattr(self, f"slab_{name}") for name in self._slab_arguments}
        return self._slab_type(**arguments, validate_args=validates(self.on_logit))

    def rates(self) -> dict[str, Float[Tensor, " controls"]]:
        """The probabilities `on`, `switch_on` and `switch_off` of every spike."""
        logits = {"on": self.on_logit, "switch_on": self.switch_on_logit, "switch_off": self.switch_off_logit}
        return {name: logit.sigmoid() for name, logit in logits.items()}

    @torch.no_grad()
    def disable(self, control: int) -> None:
        """Make a spike all but impossible: the counterpart of `SpikeSlabPosterior.disable`.

        Raises:
            ValueError: For an unknown control.
        """
        if not 0 <= control < self.num_controls:
            raise ValueError(f"SpikeSlabPrior: expected a control from 0 to {self.num_controls - 1}, got {control}.")
        for logit in (self.on_logit, self.switch_on_logit):
            logit[control] = -12.0

    @torch.no_grad()
    def sample(self, shape: tuple[int, ...], steps: int) -> SpikeSlab:
        """Draw one chain per element of `shape`.

        Raises:
            ValueError: For fewer than one step.
        """
        check_steps("SpikeSlabPrior", steps)
        chain: list[Tensor] = []
        for _ in range(steps):
            logits = torch.logit(self._next(chain[-1])[0]) if chain else self.on_logit.expand(*shape, -1)
            chain.append(law.sample_not_all_zero(logits))
        spikes = torch.stack(chain)
        if self.slab is None:
            return SpikeSlab(spikes, spikes)
        slabs = self.slab.expand((*spikes.shape[:-1], self.K)).sample()
        return SpikeSlab(law.coefficients(spikes, slabs), spikes, slabs)

    def log_prob(
        self, spikes: Float[Tensor, "steps *batch controls"], slabs: Float[Tensor, "steps *batch fields"] | None = None
    ) -> Float[Tensor, "*batch"]:
        """Log-probability of whole chains of hard spikes, and of the slabs where they are given.

        Raises:
            ValueError: For wrong shapes, values other than 0 and 1, or a step with no spike on.
        """
        law.check_spikes("SpikeSlabPrior", spikes, self.num_controls)
        law.check_hard("SpikeSlabPrior", spikes)
        total = law.log_prob_not_all_zero(spikes, *self._conditional(spikes)).sum(0)
        if slabs is None:
            return total
        if self.slab is None:
            raise ValueError("SpikeSlabPrior: got slabs, but this prior has spikes alone.")
        if slabs.shape != (expected := (*spikes.shape[:-1], self.K)):
            raise ValueError(f"SpikeSlabPrior: expected slabs of shape {expected}, got {tuple(slabs.shape)}.")
        return total + self.slab.log_prob(slabs).sum((0, -1))

    def marginals(self, steps: int) -> Float[Tensor, "steps controls"]:
        """Probability that each spike is on at each step, exact over all $2^K - 1$ states.

        Raises:
            ValueError: For more than 12 spikes, or fewer than one step.
        """
        check_steps("SpikeSlabPrior", steps)
        count = self.num_controls
        if count > 12:
            raise ValueError(f"SpikeSlabPrior: enumeration is for K ≤ 12, got {count} spikes. Average samples instead.")
        bits = torch.arange(count, device=self.on_logit.device)
        states = ((torch.arange(1, 2**count, device=bits.device)[:, None] >> bits) & 1).to(self.on_logit)
        first = self.log_prob(states[None]).exp()
        p, q = self._next(states)
        log_joint = states @ p.log().mT + (1 - states) @ q.log().mT - law.log_not_all_zero(q.log())
        transition = log_joint.exp().mT
        rows = [first]
        for _ in range(steps - 1):
            rows.append(rows[-1] @ transition)
        return torch.stack(rows) @ states

    def kl(self, posterior: SpikeSlab) -> SpikeSlabKL:
        r"""Divergence of a posterior from this prior, exact given the previous spikes.

        With $P_0 = \prod (1 - p_k)$, $Q_0 = \prod (1 - \pi_k)$ and $m_k = \pi_k / (1 - Q_0)$ the spikes cost
        $\sum_k [m_k \log(\pi_k / p_k) + (1 - m_k) \log((1 - \pi_k) / (1 - p_k))] - \log(1 - Q_0) + \log(1 - P_0)$.

        Raises:
            ValueError: For a posterior without logits, or of another number of fields or another control.
            TypeError: For a slab family whose divergence from the prior's is not registered with torch.
        """
        if posterior.logits is None:
            raise ValueError(
                "SpikeSlabPrior: expected the sample of a posterior, which has logits; got one of a prior."
            )
        law.check_spikes("SpikeSlabPrior", posterior.spikes, self.num_controls)
        law.check_posterior("SpikeSlabPrior", posterior.spikes, posterior.logits, posterior.slab, self.K)
        spike = law.kl_not_all_zero(posterior.logits, *self._conditional(posterior.spikes))
        slab = torch.zeros_like(spike)
        if posterior.slab is not None:
            if self.slab is None:
                raise ValueError("SpikeSlabPrior: the posterior has slabs, but this prior has spikes alone.")
            try:
                slab = kl_divergence(posterior.slab, self.slab.expand(posterior.slab.batch_shape)).sum(-1)
            except NotImplementedError:
                raise TypeError(
                    f"SpikeSlabPrior: torch knows no divergence of {type(posterior.slab).__name__} from "
                    f"{type(self.slab).__name__}. Register one with torch.distributions.kl.register_kl."
                ) from None
        return SpikeSlabKL(spike, slab, (spike + slab).sum(0))

    def _next(self, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of being on and off after `previous`; linear in a relaxed spike."""
        on, off = self.switch_on_logit.sigmoid(), self.switch_off_logit.sigmoid()
        p = on + (1 - off - on) * previous
        return p, (1 - on) * (1 - previous) + off * previous

    def _conditional(self, spikes: Tensor) -> tuple[Tensor, Tensor]:
        p, q = self._next(spikes[:-1])
        first = self.on_logit.expand_as(spikes[:1])
        return torch.cat((F.logsigmoid(first), p.log())), torch.cat((F.logsigmoid(-first), q.log()))
