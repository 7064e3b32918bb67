"""Which transformation is at work, how fast, and when: inferred from features of the frames."""

import math
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace, transform_to
from torch.nn import functional as F

from torchflowfield._checks import (
    check_choice,
    check_family,
    check_features,
    check_finite,
    check_temperature,
    check_whole,
    holds,
    validates,
)
from torchflowfield.priors import SpikeSlab
from torchflowfield.spikes import at_least_float32, coefficients, most_probable, relaxed, sample_not_all_zero


class Annealing:
    r"""A value that decays exponentially, $\max(\text{start}\, e^{-\text{rate} \cdot \text{step}}, \text{end})$.

    Args:
        start: Value at step 0.
        end: Smallest value.
        steps: Number of steps in which it goes from `start` to `end`.

    Raises:
        ValueError: Unless `start ≥ end > 0` and `steps ≥ 1`.

    Example:
        >>> temperature = Annealing(1.0, 0.25, steps=100)
        >>> temperature(0), temperature(50), temperature(1000)
        (1.0, 0.5, 0.25)
    """

    def __init__(self, start: float = 1.0, end: float = 0.3, *, steps: int) -> None:
        if not start >= end > 0 or steps < 1:
            raise ValueError(f"Annealing: expected start ≥ end > 0 and steps ≥ 1, got {start}, {end}, {steps}.")
        self.start, self.end, self.rate = start, end, math.log(start / end) / steps

    def __call__(self, step: int | float) -> float:
        """The value at `step`."""
        return max(self.start * math.exp(-self.rate * step), self.end)


class FlowChoice(NamedTuple):
    """One field per sample: `weights [*, K]`, one-hot, with the gradient of the relaxation; and its `logits`."""

    weights: Tensor
    logits: Tensor


class FlowSelector(nn.Module):
    r"""Weak supervision: one unknown field for a whole sequence, by straight-through Gumbel-softmax.

    In `eval` mode the choice is the most probable field.

    Args:
        in_features: Size of the features of a sequence.
        K: Number of fields.

    Raises:
        ValueError: For `K` below one, features of another size, or a temperature that is not positive.

    Reference:
        Jang et al., Categorical Reparameterization with Gumbel-Softmax, ICLR 2017; Song et al., Flow Factorized
        Representation Learning, NeurIPS 2023.

    Example:
        >>> selector = FlowSelector(32, K=3)
        >>> selector(torch.randn(8, 32), temperature=0.5).weights.sum(-1).tolist() == [1.0] * 8
        True
    """

    def __init__(self, in_features: int, K: int) -> None:
        super().__init__()
        check_whole("FlowSelector", in_features=in_features, K=K)
        self.K = K
        self.head = nn.Linear(in_features, K)

    def forward(self, features: Float[Tensor, "*batch features"], temperature: float = 1.0) -> FlowChoice:
        """Choose a field for every sample."""
        check_features("FlowSelector", features, self.head.in_features)
        check_temperature("FlowSelector", temperature)
        logits = self.head(features)
        check_finite("FlowSelector", "logits", logits)
        if not self.training:
            hard = F.one_hot(logits.argmax(-1), self.K).to(logits.dtype)
            return FlowChoice(hard, logits)
        return FlowChoice(F.gumbel_softmax(logits, tau=temperature, hard=True), logits)

    def kl(self, choice: FlowChoice, prior: Float[Tensor, " fields"] | None = None) -> Float[Tensor, "*batch"]:
        """Divergence from the probabilities `prior`, uniform if none.

        Raises:
            ValueError: If `prior` is not K positive numbers that sum to one.
        """
        log_q = F.log_softmax(choice.logits, -1)
        if prior is None:
            return (log_q.exp() * log_q).sum(-1) + math.log(self.K)
        if prior.shape != (self.K,) or not holds((prior > 0).all() & ((prior.sum() - 1).abs() < 1e-4)):
            raise ValueError(f"FlowSelector: expected {self.K} positive probabilities that sum to one, got {prior}.")
        return (log_q.exp() * (log_q - prior.log())).sum(-1)


class SpikeSlabPosterior(nn.Module):
    r"""Sparse coefficients inferred from features of two successive frames, $q(y_t, s_t \mid x_{t-1}, x_t)$.

    Spikes are independent bits conditioned on one being on, drawn exactly; the gradient is that of the binary concrete
    relaxation $\sigma((\ell + \epsilon) / \tau)$ with logistic noise. In `eval` mode a spike is on where its
    probability exceeds one half, the most probable one where none does, and slabs are means.

    Args:
        in_features: Size of the features of a pair of frames.
        K: Number of fields.
        control: `"double"` infers two spikes per field, one for each part, and one slab that they share.
        slab: Family of the slabs, any of `torch.distributions` with a mean and reparameterised samples; None for
            spikes alone.
        slab_range: Interval that an argument named `loc` is kept in.
        slab_scale: First value of an argument named `scale`.
        slab_features: Size of the features of the slabs, where they have some of their own: see `with_slabs`.
        hard: Use spikes of 0 and 1 in the forward pass (straight-through); otherwise their relaxation.

    Raises:
        ValueError: For sizes, a control, a range or a scale that make no sense, or features of another size.
        TypeError: For a slab that is no family of single numbers with reparameterised samples and free arguments.

    Reference:
        Maddison et al., The Concrete Distribution, ICLR 2017; Song et al., Unsupervised Representation Learning from
        Sparse Transformation Analysis, arXiv 2410.05564.

    Example:
        >>> posterior = SpikeSlabPosterior(32, K=3)
        >>> posterior(torch.randn(5, 8, 32), temperature=0.5).weights.shape
        torch.Size([5, 8, 3])
    """

    def __init__(
        self,
        in_features: int,
        K: int,
        *,
        control: Literal["single", "double"] = "single",
        slab: type[Distribution] | None = Laplace,
        slab_range: tuple[float, float] = (0.0, 2.0),
        slab_scale: float = 0.1,
        slab_features: int | None = None,
        hard: bool = False,
    ) -> None:
        super().__init__()
        check_choice("SpikeSlabPosterior", "control", control, ("single", "double"))
        check_whole("SpikeSlabPosterior", in_features=in_features, K=K)
        size = in_features if slab_features is None else slab_features
        check_whole("SpikeSlabPosterior", slab_features=size)
        self.slab_constraints = {} if slab is None else check_family("SpikeSlabPosterior", slab)
        if slab is not None and not (slab_scale > 0 and -math.inf < slab_range[0] <= slab_range[1] < math.inf):
            raise ValueError(
                f"SpikeSlabPosterior: expected a finite slab_range and slab_scale > 0, got {slab_range}, {slab_scale}."
            )
        self.K, self.control, self.hard, self.slab_family, self.slab_range = K, control, hard, slab, slab_range
        self.spike_head = nn.Linear(in_features, self.num_controls)
        self.enabled: Tensor
        self.register_buffer("enabled", torch.ones(self.num_controls, dtype=torch.bool))
        self.slab_head = nn.Linear(size, K * len(self.slab_constraints)) if slab is not None else None
        if self.slab_head is not None:
            first = [math.log(slab_scale) if name == "scale" else 0.0 for name in self.slab_constraints]
            with torch.no_grad():
                self.slab_head.bias.copy_(torch.tensor(first).repeat(K))

    @property
    def num_controls(self) -> int:
        """Number of spikes: K, or 2K with double control."""
        return self.K * (2 if self.control == "double" else 1)

    def forward(
        self,
        features: Float[Tensor, "*steps features"],
        temperature: float = 1.0,
        *,
        use_slab: bool = True,
        sample: bool | None = None,
    ) -> SpikeSlab:
        r"""Infer the coefficients of every step.

        Args:
            features: Features of each pair of frames, `[T, *, features]`.
            temperature: Temperature $\tau$ of the relaxation.
            use_slab: False keeps every slab at 1: the first stage of training.
            sample: Draw the spikes, or take the most probable ones; None draws in training mode alone.
        """
        check_features("SpikeSlabPosterior", features, self.spike_head.in_features)
        check_temperature("SpikeSlabPosterior", temperature)
        # Saturated without ties, so that a disabled spike is never the likeliest where all others are off.
        logits = (40 * (at_least_float32(self.spike_head(features)) / 40).tanh()).masked_fill(~self.enabled, -80.0)
        check_finite("SpikeSlabPosterior", "logits", logits)
        drawn = self.training if sample is None else sample
        spikes = self._sample_spikes(logits, temperature) if drawn else most_probable(logits)
        draw = SpikeSlab(spikes, spikes, None, logits)
        return self.with_slabs(draw, features) if use_slab and self.slab_head is not None else draw

    def with_slabs(self, draw: SpikeSlab, features: Float[Tensor, "*steps features"]) -> SpikeSlab:
        """Give the spikes of a draw slabs from features `[T, *, slab_features]`, which may depend on them.

        Raises:
            ValueError: For a posterior of spikes alone, or features of another size.
        """
        if self.slab_head is None or self.slab_family is None:
            raise ValueError("SpikeSlabPosterior: this posterior has spikes alone. Pass slab=Laplace, for instance.")
        check_features("SpikeSlabPosterior", features, self.slab_head.in_features)
        slab = self._slab(at_least_float32(self.slab_head(features)).unflatten(-1, (self.K, -1)))
        slabs = slab.rsample() if self.training else slab.mean
        return SpikeSlab(coefficients(draw.spikes, slabs), draw.spikes, slabs, draw.logits, slab)

    @torch.no_grad()
    def disable(self, control: int) -> None:
        """Keep a spike off for good, for a flow that the data can do without.

        Raises:
            ValueError: For an unknown control, or the last one that is left.
        """
        if not 0 <= control < self.num_controls or int(self.enabled.sum()) - int(self.enabled[control]) < 1:
            raise ValueError(
                f"SpikeSlabPosterior: expected one of several enabled controls below {self.num_controls}, "
                f"got {control}."
            )
        self.enabled[control] = False

    def _slab(self, raw: Tensor) -> Distribution:
        low, high = self.slab_range
        values: dict[str, Any] = {}
        for i, (name, constraint) in enumerate(self.slab_constraints.items()):
            if name == "loc":
                values[name] = low + (high - low) * raw[..., i].sigmoid()
            else:
                values[name] = transform_to(constraint)(raw[..., i])
        return self.slab_family(**values, validate_args=validates(raw))  # type: ignore[misc]

    def _sample_spikes(self, logits: Tensor, temperature: float) -> Tensor:
        hard = sample_not_all_zero(logits.detach())
        soft = relaxed(hard, logits, temperature)
        return hard + (soft - soft.detach()) if self.hard else soft
