"""The SlowVAE: the codes of successive frames differ little, and in few dimensions."""

import math

import torch
from torch import Tensor

from ..base import code_kl
from .vae import PairVAE


class SlowVAE(PairVAE):
    r"""The second frame's prior is a Laplace distribution around the code of the first.

    $$\log p(x_t, x_{t+1} | z) - \beta\, KL(q(z_t) \| N(0, I))
    - \gamma\, KL(q(z_{t+1}) \| \text{Laplace}(z_t, 1/\lambda))$$

    Args:
        beta: Weight of the first frame's divergence.
        gamma: Weight of the second frame's.
        rate: Rate λ of the Laplace distribution.
        **shared: Arguments of `PairVAE`.

    Reference:
        Klindt et al., Towards Nonlinear Disentanglement in Natural Data with Temporal Sparse Coding, ICLR 2021.
    """

    def __init__(self, beta: float = 1.0, gamma: float = 10.0, rate: float = 6.0, **shared) -> None:
        super().__init__(**shared)
        self.save_hyperparameters()
        self.beta, self.gamma, self.rate = beta, gamma, rate

    def penalty(self, mean: Tensor, std: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Both divergences, halved as the reconstruction is a mean over the two frames."""
        slow = laplace_kl(mean[1], std[1], mean[0], std[0], self.rate)
        return {
            "code_kl": 0.5 * self.beta * code_kl(mean[0], std[0]).mean(),
            "slow_kl": 0.5 * self.gamma * slow.mean(),
        }


def laplace_kl(mean: Tensor, std: Tensor, before: Tensor, before_std: Tensor, rate: float) -> Tensor:
    r"""$KL(N(\text{mean}, \text{std}^2) \| \text{Laplace}(z_t, 1/\text{rate}))$, `[*]`, in closed form.

    The expectation is over $z_t$ as well: the difference of the two codes is normal, and the mean of its absolute
    value is that of a folded normal distribution.
    """
    shift, spread = mean - before, (std.square() + before_std.square()).sqrt()
    ratio = shift / spread
    distance = spread * math.sqrt(2 / math.pi) * (-0.5 * ratio.square()).exp() + shift * torch.erf(ratio / math.sqrt(2))
    entropy = 0.5 * math.log(2 * math.pi * math.e) + std.log()
    return (rate * distance - math.log(rate / 2) - entropy).sum(-1)
