"""What the papers compare with, under the same encoder, decoder, optimiser, data and number of decoded frames."""

from .beta_vae import BetaVAE
from .factor_vae import FactorVAE
from .poflow import PoFlow
from .slow_vae import SlowVAE
from .tvae import TopographicVAE
from .vae import VAE

__all__ = ["VAE", "BetaVAE", "FactorVAE", "PoFlow", "SlowVAE", "TopographicVAE"]
