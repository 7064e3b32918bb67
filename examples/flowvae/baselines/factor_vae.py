"""The FactorVAE: a discriminator measures how dependent the dimensions of the code are."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ..base import code_kl, parameter_groups
from .vae import PairVAE


class Discriminator(nn.Module):
    """Tells codes `[N, D]` from codes whose dimensions were permuted over the batch: two logits, `[N, 2]`.

    Args:
        latent: Size of the code.
        width: Hidden units of a layer.
        layers: Hidden layers.
    """

    def __init__(self, latent: int, width: int, layers: int) -> None:
        super().__init__()
        sizes = [latent, *[width] * layers]
        hidden = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.LeakyReLU(0.2))]
        self.network = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, z: Tensor) -> Tensor:
        """Logits of being a code as it came, and of being permuted."""
        return self.network(z)

    def total_correlation(self, z: Tensor) -> Tensor:
        r"""$\log q(z) - \log \prod_d q(z_d)$ by the density ratio, `[N]`; the discriminator itself gets no gradient."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        logits = functional_call(self, frozen, (z,))
        return logits[:, 0] - logits[:, 1]

    def loss(self, joint: Tensor, others: Tensor) -> Tensor:
        """Cross-entropy of telling codes `joint` from the permuted codes of `others`; the codes get no gradient."""
        logits = self(torch.cat((joint.detach(), permute_dims(others.detach()))))
        target = torch.cat((joint.new_zeros(len(joint)), others.new_ones(len(others)))).long()
        return F.cross_entropy(logits, target)


def permute_dims(z: Tensor) -> Tensor:
    """Every dimension of `[N, D]` in an order of its own: independent dimensions with the same marginals."""
    return z.gather(0, torch.rand_like(z).argsort(0))


class FactorVAE(PairVAE):
    r"""$\log p(x|z) - KL(q(z|x) \| N(0, I)) - \gamma\, KL(q(z) \| \prod_d q(z_d))$.

    The discriminator learns in the same step, from one frame's codes and the permuted codes of the other frame.

    Args:
        gamma: Weight of the total correlation.
        width: Units of a layer of the discriminator; the published ones have 1,000.
        layers: Its hidden layers; published: 6.
        discriminator_lr: Its peak learning rate.
        **shared: Arguments of `PairVAE`.

    Reference:
        Kim and Mnih, Disentangling by Factorising, ICML 2018.
    """

    def __init__(
        self, gamma: float = 10.0, width: int = 256, layers: int = 4, discriminator_lr: float = 5e-4, **shared
    ) -> None:
        super().__init__(**shared)
        self.save_hyperparameters()
        self.gamma, self.discriminator_lr = gamma, discriminator_lr
        self.discriminator = Discriminator(self.hparams.latent, width, layers)

    def penalty(self, mean: Tensor, std: Tensor, z: Tensor) -> dict[str, Tensor]:
        """Divergence, total correlation, and what the discriminator learns from."""
        return {
            "code_kl": code_kl(mean, std).mean(),
            "total_correlation": self.gamma * self.discriminator.total_correlation(z.flatten(0, 1)).mean(),
            "discriminator": self.discriminator.loss(*z),
        }

    def _parameter_groups(self) -> list[dict]:
        return parameter_groups(self, (list(self.discriminator.parameters()), self.discriminator_lr))
