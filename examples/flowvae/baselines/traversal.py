"""Prediction for autoencoders that know no time: how the mean code moves per step, fitted for every factor."""

import torch
from torch import Tensor, nn


class LatentTraversal(nn.Module):
    r"""Least-squares motion of codes under known coefficients: $z_{t+1} = z_t + \sum_k g_k \Delta_k$.

    The papers of the VAE, the β-VAE, the FactorVAE and the SlowVAE traverse latent space in straight lines and do not
    say how to predict the next frame of a given transformation. This is our choice for all four: the displacement
    $\Delta_k$ is fitted on the training pairs of frames, with their true coefficients. Two variants beside it bound the
    choice from both sides: `axis` moves the one dimension that $\Delta_k$ moves most, as the disentanglement papers'
    pictures do, and `affine` fits a whole matrix per factor, $\Delta_k = A_k z_t + b_k$, which they do not have.

    The sums of the fit are kept as running averages over the training batches, so that they belong to the checkpoint.

    Args:
        factors: Number of factors K.
        latent: Size of the code.
        memory: Share of the sums that one batch leaves of the past.
    """

    def __init__(self, factors: int, latent: int, memory: float = 0.98) -> None:
        super().__init__()
        self.factors, self.latent, self.memory = factors, latent, memory
        size = factors * (latent + 1)
        self.gram: Tensor
        self.cross: Tensor
        self.register_buffer("gram", torch.zeros(size, size))
        self.register_buffer("cross", torch.zeros(size, latent))

    @torch.no_grad()
    def update(self, before: Tensor, after: Tensor, weights: Tensor) -> None:
        """Add a batch of successive codes `[B, D]` and the coefficients `[B, K]` of the step between them."""
        features = self._features(before, weights)
        self.gram.mul_(self.memory).addmm_(features.T, features, alpha=1 / len(before))
        self.cross.mul_(self.memory).addmm_(features.T, after - before, alpha=1 / len(before))

    def roll(self, z0: Tensor, weights: Tensor, mode: str = "shift") -> Tensor:
        """Codes `[T+1, B, D]` from `z0 [B, D]` under coefficients `[T, B, K]`.

        Args:
            z0: Codes of the first frames.
            weights: Coefficients of every step.
            mode: `"shift"`, `"axis"` or `"affine"`.
        """
        if weights.shape[-1] != self.factors:
            raise ValueError(
                f"LatentTraversal: expected coefficients of {self.factors} factors, got {weights.shape[-1]}. "
                f"Pass the model the data's number of factors."
            )
        if mode == "affine":
            motion = self._solve(slice(None))
        else:
            motion = self._solve(slice(self.latent, None, self.latent + 1))
            if mode == "axis":
                motion = motion * (motion.abs() == motion.abs().amax(-1, keepdim=True))
        codes = [z0]
        for step in weights:
            features = self._features(codes[-1], step) if mode == "affine" else step
            codes.append(codes[-1] + features @ motion)
        return torch.stack(codes)

    def _features(self, z: Tensor, weights: Tensor) -> Tensor:
        """Every coefficient times the code and one, `[B, K (D + 1)]`."""
        extended = torch.cat((z, torch.ones_like(z[:, :1])), 1)
        return (weights[:, :, None] * extended[:, None]).flatten(1)

    def _solve(self, which: slice) -> Tensor:
        gram = self.gram[which, which].double()
        ridge = 1e-4 * gram.diagonal().mean() + 1e-12
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        return torch.linalg.solve(gram + ridge * identity, self.cross[which].double()).to(self.cross.dtype)
