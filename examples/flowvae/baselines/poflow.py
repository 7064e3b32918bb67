"""PoFlow: potentials that obey a wave equation move the codes."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import jvp
from torch.nn import functional as F

from torchflowfield import FlowPath

from ..supervised import FlowVAE


class PoFlow(FlowVAE):
    r"""Supervised potential flows whose potentials are waves: $\partial_t^2 u_k = c_k^2 \Delta u_k$, $c_k$ learned.

    Beside the reconstruction of the moved frames the loss is the squared residual of the wave equation, the initial
    condition $\|\nabla u_k(z_0, 0)\|^2$, and minus the size of the decoder's derivative along the flow, so that a flow
    changes the picture. All else is as in `FlowVAE`, the path's divergence from a diffusion included, which
    `path_kl=None` leaves out.

    Args:
        kind: The flows are gradients.
        forcing: A wave equation has no forcing.
        change_weight: Weight of the decoder's derivative.
        change_samples: Sequences on which it is taken; it costs three times a decoding.
        compile: What looks through the decoder is not compiled.
        **shared: Arguments of `FlowVAE`; `ot_weight` is that of the wave equation's residual.

    Reference:
        Song et al., Latent Traversals in Generative Models as Potential Flows, ICML 2023.
    """

    def __init__(
        self,
        kind: Literal["potential"] = "potential",
        forcing: Literal[False] = False,
        change_weight: float = 1.0,
        change_samples: int = 16,
        compile: Literal[False] = False,
        **shared,
    ) -> None:
        super().__init__(kind=kind, forcing=forcing, compile=compile, **shared)
        self.save_hyperparameters()
        self.change_weight, self.change_samples = change_weight, change_samples
        self.raw_speed = nn.Parameter(torch.zeros(self.flows.K))

    @property
    def speed(self) -> Tensor:
        """Speed of the waves, `[K]`, positive."""
        return F.softplus(self.raw_speed)

    def wave_residual(self, t: Tensor, z: Tensor) -> Tensor:
        r"""$\partial_t^2 u_k - c_k^2 \Delta u_k$ of codes `[*, D]` at times `[*]`, `[*, K]`."""
        t = t.clone()  # forward mode writes into it
        second = jvp(lambda time: self.flows.jet(time, z).time_derivative, (t,), (torch.ones_like(t),))[1]
        return second - self.speed.square() * self.flows.jet(t, z).laplacian

    def change(self, z: Tensor, velocity: Tensor) -> Tensor:
        """Squared size of the decoder's derivative along velocities `[B, D]`, summed over the pixels, `[B]`."""
        with torch.autocast(z.device.type, enabled=False):
            moved = jvp(lambda codes: self.decoder(codes).sigmoid(), (z,), (velocity,))[1]
        return moved.square().flatten(1).sum(1)

    def transport(self, path: FlowPath) -> Tensor:
        """The waves' residual, their initial condition, and how much the flow changes the picture."""
        # One step of the path, drawn anew for every batch: an unbiased estimate at a fraction of the cost.
        step = int(torch.randint(len(path.weights), ()))
        z, count, active = path.z[step], self.change_samples, (path.weights != 0).to(path.z)
        residual = self.wave_residual(path.t[step].expand(z.shape[:-1]), z)
        waves = (residual.square() * active[step]).sum(-1).mean()
        initial = (path.initial_norm2 * active[0]).sum(-1).mean()
        velocity = path.z[step + 1] - z
        change = self.change(z[:count], velocity[:count]).mean()
        weights = self.hparams
        return weights.ot_weight * waves + weights.initial_weight * initial - self.change_weight * change
