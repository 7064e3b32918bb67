"""Heat flow as the prior path of the latent vector."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from torchflowfield._checks import check_whole
from torchflowfield.path import FlowPath


class DiffusionPrior(nn.Module):
    r"""Minimally informative prior path: every transformation diffuses $\mathcal N(0, I)$.

    $\partial_t p = D_k \Delta p$ gives $p_t = \mathcal N(0, (1 + 2 D_k t) I)$ exactly; with coefficients $g$ the
    variance grows by $2 \sum_k |g_k| D_k$ per frame. The first frame of the path is the one at
    $\mathcal N(0, I)$, so this is meant for paths forward in time.

    Args:
        K: Number of coefficients (`bank.num_controls`).
        diffusion: First value of every $D_k$, in squared latent units per frame.
        learnable: Learn the $D_k$, kept positive by a softplus.

    Raises:
        ValueError: For `K` below one or a diffusion that is not positive.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023.

    Example:
        >>> prior = DiffusionPrior(K=1, diffusion=0.5)
        >>> prior.variance(torch.ones(2, 1)).round(decimals=4).tolist()
        [1.0, 2.0, 3.0]
    """

    def __init__(self, K: int, *, diffusion: float = 0.01, learnable: bool = True) -> None:
        super().__init__()
        check_whole("DiffusionPrior", K=K)
        if not diffusion > 0:
            raise ValueError(f"DiffusionPrior: expected diffusion > 0, got {diffusion}.")
        raw = torch.full((K,), diffusion + math.log(-math.expm1(-diffusion)))
        self.raw = nn.Parameter(raw, requires_grad=learnable)

    @property
    def diffusion(self) -> Float[Tensor, " controls"]:
        """The coefficients $D_k$."""
        return F.softplus(self.raw)

    def variance(self, weights: Float[Tensor, "steps *batch controls"]) -> Float[Tensor, "frames *batch"]:
        """Variance of the prior at every frame of a path with these weights.

        Raises:
            ValueError: For another number of coefficients than K.
        """
        if weights.shape[-1] != len(self.raw):
            raise ValueError(
                f"DiffusionPrior: expected {len(self.raw)} coefficients, got weights of shape {tuple(weights.shape)}. "
                f"Build it with K=bank.num_controls."
            )
        growth = 2 * (weights.abs() * self.diffusion).sum(-1)
        return torch.cat((growth.new_ones(1, *growth.shape[1:]), 1 + growth.cumsum(0)))

    def forward(self, path: FlowPath) -> Float[Tensor, "frames *batch"]:
        r"""$\log p_t(z_t)$ at every frame of the path."""
        variance = self.variance(path.weights)
        dim = path.z.shape[-1]
        return -0.5 * (path.z.square().sum(-1) / variance + dim * (2 * math.pi * variance).log())
