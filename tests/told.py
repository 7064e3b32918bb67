"""A model that is told what it would have to learn, for tests of what is done with learned models."""

import torch
from flowvae.base import Codes
from flowvae.model import UnsupervisedFlowVAE
from torch import Tensor

COUNT = 400
"""Sequences that the models below know of, of two steps each."""
FRAMES = [torch.zeros(3, COUNT, 1, 1, 1)]


class Told(UnsupervisedFlowVAE):
    """A model whose codes, features and spikes are known, whatever the frames.

    Subclasses set `means [3, N, latent]`, `features [2, N, features]` and `spikes [2, N, fields]`.
    """

    means: Tensor
    features: Tensor
    spikes: Tensor

    def __init__(self, **sizes):
        super().__init__(latent=4, path_kl=None, forcing=False, **sizes)
        self.eval()

    def encode(self, frames):
        return Codes(self.means, torch.full_like(self.means, 0.1))

    def infer(self, frames):
        return self.posterior(self.features)._replace(spikes=self.spikes, weights=self.spikes)

    def pair_features(self, frames):
        return self.features
