"""A potential from any network, with derivatives by `torch.func`."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import as_time, check_whole
from torchflowfield.interface import FlowField, Jet, Time


class AutogradPotential(FlowField):
    r"""Gradient flow $v = \nabla_z u(t, z)$ of your own network.

    The Laplacian is exact up to `exact_dim` latent axes: one Hessian-vector product per axis. Beyond, it is
    Hutchinson's estimate $\frac{1}{n} \sum_i \epsilon_i^\top H \epsilon_i$ with random signs, unbiased but noisy.

    The network must treat samples independently (no batch normalisation in training mode), draw no random numbers
    (no dropout in training mode) and be twice differentiable: a ReLU network has no Laplacian. A field in closed form
    is several times faster.

    Args:
        network: Called as `network(t, z)` with `t` of shape `[B]` and `z` of shape `[B, D]`; returns `[B]`.
        exact_dim: Largest latent size for which the Laplacian is exact.
        probes: Random probes of one estimate beyond `exact_dim`.
        generator: Source of the probes, for reproducible estimates.

    Raises:
        ValueError: If the network does not return one number per sample.

    Reference:
        Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.

    Example:
        >>> class Bowl(nn.Module):
        ...     def forward(self, t, z):
        ...         return 0.5 * z.square().sum(-1)
        >>> AutogradPotential(Bowl()).jet(0.0, torch.ones(4, 3)).laplacian
        tensor([3., 3., 3., 3.])
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        exact_dim: int = 64,
        probes: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_whole("AutogradPotential", probes=probes)
        self.network, self.exact_dim, self.probes, self.generator = network, exact_dim, probes, generator

    def __deepcopy__(self, memo: dict[int, object]) -> "AutogradPotential":
        # A torch.Generator cannot be copied; the copy shares it.
        memo[id(self.generator)] = self.generator
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    def _potential(self, t: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        flat_z, flat_t = z.reshape(-1, z.shape[-1]), t.expand(z.shape[:-1]).reshape(-1)
        extra = () if context is None else (context.expand(*z.shape[:-1], -1).reshape(len(flat_z), context.shape[-1]),)
        u = self.network(flat_t, flat_z, *extra)
        if u.shape != flat_t.shape:
            raise ValueError(
                f"AutogradPotential: expected the network to return one potential per sample, shape "
                f"{tuple(flat_t.shape)}, got {tuple(u.shape)}. A final squeeze(-1) is often missing."
            )
        return u.reshape(z.shape[:-1])

    def _gradient(self, t: Tensor, z: Tensor, context: Tensor | None) -> Tensor:
        return torch.func.grad(lambda y: self._potential(t, y, context).sum())(z)

    def forward(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch dim"]:
        """Velocity at time `t`, in latent units per frame."""
        return self._gradient(as_time(type(self).__name__, t, z), z, context)

    def divergence(
        self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Laplacian of the potential, exact up to `exact_dim` axes and estimated beyond."""
        if z.shape[-1] <= self.exact_dim:
            probes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
            probes = probes.view(-1, *[1] * (z.ndim - 1), z.shape[-1]).expand(-1, *z.shape)
            scale = 1.0
        else:
            shape = (self.probes, *z.shape)
            device = z.device if self.generator is None else self.generator.device
            signs = torch.randint(0, 2, shape, generator=self.generator, device=device)
            probes, scale = (2 * signs - 1).to(z), 1 / self.probes
        products = torch.func.vmap(lambda e: (e * self.jvp(t, z, e, context)).sum(-1))
        return scale * products(probes).sum(0)

    def jet(self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None) -> Jet:
        """Potential, velocity, time derivative, Laplacian and gradient."""
        return self._derivatives(t, z, context, True)

    def _jet(self, t: Time, z: Tensor, context: Tensor | None, divergence: bool) -> Jet:
        if divergence or type(self).jet is not AutogradPotential.jet:
            return super()._jet(t, z, context, divergence)
        return self._derivatives(t, z, context, False)

    def _derivatives(self, t: Time, z: Tensor, context: Tensor | None, divergence: bool) -> Jet:
        # Forward mode writes to its input, which may not share memory between samples.
        time = as_time(type(self).__name__, t, z).expand(z.shape[:-1]).contiguous()
        potential, time_derivative = torch.func.jvp(  # type: ignore[misc]
            lambda s: self._potential(s, z, context), (time,), (torch.ones_like(time),)
        )
        velocity = self._gradient(time, z, context)
        laplacian = self.divergence(t, z, context) if divergence else torch.zeros_like(potential)
        return Jet(potential, velocity, time_derivative, laplacian, velocity)
