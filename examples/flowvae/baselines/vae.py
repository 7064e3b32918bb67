"""The VAE, and what all autoencoders of single frames here have in common."""

import torch
from torch import Tensor
from torch.distributions import Normal

from ..base import Rollout, SequenceVAE, code_kl, log_normal
from ..data.sequences import Batch
from ..networks import bernoulli_log_prob
from .traversal import LatentTraversal


class PairVAE(SequenceVAE):
    """Trains on two successive frames of every sequence, predicts by `LatentTraversal`; subclasses bring a penalty.

    Two frames are encoded and decoded per sequence, as many as the flows decode.

    Args:
        latent: Size of the latent vector.
        size: `"quick"` or `"paper"` networks.
        fields: Number of factors of the data, for the traversals.
        lr: Peak learning rate, after a short warm-up.
        hold: Share of the training after which the learning rate begins its cosine decay.
        bfloat16: Run encoder and decoder in bfloat16, where the device multiplies it.
        image_size: Height and width of a frame: 28, 64 or 128.
    """

    def __init__(
        self,
        latent: int = 32,
        size: str = "quick",
        fields: int = 3,
        lr: float = 2e-3,
        hold: float = 0.0,
        bfloat16: bool = False,
        image_size: int = 28,
    ) -> None:
        super().__init__(latent, size, image_size, lr, hold, bfloat16)
        self.save_hyperparameters()
        self.traversal = LatentTraversal(fields, latent)

    def penalty(self, mean: Tensor, std: Tensor, z: Tensor) -> dict[str, Tensor]:
        """What is added to the reconstruction of two successive frames, per frame, by name.

        Args:
            mean: Posterior means `[2, B, D]`.
            std: Posterior standard deviations.
            z: Codes drawn from it.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define penalty.")

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Negative evidence bound of a frame, with the subclass's penalty."""
        frames, weights = batch["frames"], batch["weights"]
        count, steps = weights.shape[:2]
        each, step = torch.arange(count, device=frames.device), torch.randint(steps, (count,), device=frames.device)
        pair = torch.stack((frames[each, step], frames[each, step + 1]))
        mean, std = self.encode(pair)
        z = Normal(mean, std, validate_args=False).rsample()
        self.traversal.update(*mean.detach(), weights[each, step])
        terms = {"reconstruction": -bernoulli_log_prob(self.decode(z), pair).mean(), **self.penalty(mean, std, z)}
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        loss = sum(terms.values())
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def rollout(self, frames: Tensor, batch: Batch | None, *, sample: bool = False) -> Rollout:
        """Move the code of frame 0 in a straight line, along the displacement of the transformation."""
        mean, std = self.encode(frames[0])
        z0 = torch.normal(mean, std) if sample else mean
        z = self.traversal.roll(z0, self._weights(batch))
        # A shift preserves the volume: the density of the moved codes is that of the first ones.
        return Rollout(z, log_normal(z) - log_normal(z0, mean, std) if sample else None)

    def alternatives(self, frames: Tensor, batch: Batch | None) -> dict[str, Tensor]:
        """The traversal of one dimension, and a fitted affine map per factor."""
        z0, weights = self.encode(frames[0])[0], self._weights(batch)
        return {mode: self.traversal.roll(z0, weights, mode) for mode in ("axis", "affine")}

    def _weights(self, batch: Batch | None) -> Tensor:
        if batch is None:
            raise ValueError(f"{type(self).__name__}: a traversal follows the batch's coefficients; got no batch.")
        return batch["weights"].transpose(0, 1)


class VAE(PairVAE):
    """The evidence bound of single frames. Arguments are those of `PairVAE`.

    Reference:
        Kingma and Welling, Auto-Encoding Variational Bayes, ICLR 2014.
    """

    beta = 1.0

    def penalty(self, mean: Tensor, std: Tensor, z: Tensor) -> dict[str, Tensor]:
        """The divergence, weighted by `beta`."""
        return {"code_kl": self.beta * code_kl(mean, std).mean()}
