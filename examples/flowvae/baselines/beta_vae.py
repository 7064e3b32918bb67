"""β-VAE: a VAE whose codes are pressed towards independence."""

from .vae import VAE


class BetaVAE(VAE):
    r"""$\log p(x|z) - \beta\, KL(q(z|x) \| N(0, I))$.

    Args:
        beta: Weight of the divergence; 1 is the VAE.
        **shared: Arguments of `VAE`.

    Reference:
        Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, ICLR 2017.
    """

    def __init__(self, beta: float = 4.0, **shared) -> None:
        super().__init__(**shared)
        self.save_hyperparameters()
        self.beta = beta
