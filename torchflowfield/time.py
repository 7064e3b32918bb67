"""Features of time with an exact derivative."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import check_whole


class FourierTime(nn.Module):
    r"""Harmonics of time, $f(t) = (\sin \omega_i t, \cos \omega_i t)_i$ with $\omega_i = 2\pi i / P$.

    A parameter that is affine in these features has an exact time derivative, so nothing that
    depends on time needs autograd. There is no constant feature: an affine map has its own bias.

    Args:
        frequencies: Number of harmonics; the features have twice that size.
        period: Longest period $P$, in frames. Give at least twice the length of a sequence.

    Raises:
        ValueError: If `frequencies` is less than one or `period` is not positive.

    Example:
        >>> FourierTime(frequencies=4)(torch.tensor(0.5)).shape
        torch.Size([8])
    """

    def __init__(self, frequencies: int = 4, *, period: float = 32.0) -> None:
        super().__init__()
        check_whole("FourierTime", frequencies=frequencies)
        if not period > 0:
            raise ValueError(f"FourierTime: expected a positive period in frames, got {period}.")
        omega = 2 * math.pi / period * torch.arange(1, frequencies + 1)
        self.omega: Tensor
        self.register_buffer("omega", omega)

    @property
    def features(self) -> int:
        """Size of the feature vector."""
        return 2 * self.omega.numel()

    def forward(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time features"]:
        """Features of the times `t`, in frames."""
        phase = t[..., None] * self.omega
        return torch.cat((phase.sin(), phase.cos()), dim=-1)

    def derivative(self, t: Float[Tensor, "*time"]) -> Float[Tensor, "*time features"]:
        """Derivative of every feature with respect to time, per frame."""
        return self.with_derivative(t)[1]

    def with_derivative(
        self, t: Float[Tensor, "*time"]
    ) -> tuple[Float[Tensor, "*time features"], Float[Tensor, "*time features"]]:
        """Features and their derivatives, which share the sines and cosines."""
        phase = t[..., None] * self.omega
        sin, cos = phase.sin(), phase.cos()
        return torch.cat((sin, cos), dim=-1), torch.cat((self.omega * cos, -self.omega * sin), dim=-1)
