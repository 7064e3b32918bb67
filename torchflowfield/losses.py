"""What a path is trained on besides the data: dynamic optimal transport and the path's divergence from a prior."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import check_choice, check_path, check_whole
from torchflowfield.path import FlowPath

_NOT_RECORDED = "DynamicOTLoss: expected a recorded path. Call the stepper with record=True."


class Forcing(nn.Module):
    r"""Learned forcing $f_k(t, z) = -\text{MLP}_k(t, z)^2 \le 0$ of the Hamilton–Jacobi equation, one output per field.

    Args:
        dim: Size of the latent vector.
        K: Number of fields.
        width: Hidden units.

    Raises:
        ValueError: For sizes that are no whole numbers of at least one.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023.
    """

    def __init__(self, dim: int, K: int, *, width: int = 64) -> None:
        super().__init__()
        check_whole("Forcing", dim=dim, K=K, width=width)
        self.network = nn.Sequential(nn.Linear(dim + 1, width), nn.Tanh(), nn.Linear(width, K))

    def forward(self, t: Float[Tensor, "*#batch"], z: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch fields"]:
        """Forcing of every field."""
        time = t.expand(z.shape[:-1])[..., None].to(z.dtype)
        return -self.network(torch.cat((z, time), -1)).square()


class OTTerms(NamedTuple):
    """Parts of `DynamicOTLoss`, unweighted, and their weighted `total`; all scalars."""

    residual: Tensor
    initial: Tensor
    kinetic: Tensor
    total: Tensor


class DynamicOTLoss(nn.Module):
    r"""Makes a potential flow an optimal transport: its potential has to solve a Hamilton–Jacobi equation.

    $$\frac{\partial u_k}{\partial t} + \frac{1}{2} \|\nabla u_k\|^2 = f_k, \qquad \nabla u_k(0, z_0) = 0$$

    The residual is squared per sample and per field, at the start of every step, and averaged over the fields that the
    step used. Rotational parts are not concerned.

    Args:
        forcing: Module `f(t, z) -> [*, K]`, for instance `Forcing`; None stands for $f = 0$.
        residual_weight: Weight of the mean squared residual.
        initial_weight: Weight of $\|\nabla u_k(0, z_0)\|^2$. It asks for a flow that starts from rest: leave it at 0
            when frames are one step apart and the first must move; with a `start` of 1 in the stepper it can be kept.
        kinetic_weight: Weight of the kinetic energy $\frac{1}{2} \|v\|^2$ of the mixture.
        fields: `"active"` averages over the fields with a nonzero weight, which relaxed spikes always have: build the
            posterior with `hard=True` for fewer. `"all"` averages over all fields, those without a potential included.

    Raises:
        ValueError: For a negative weight or an unknown choice of fields.

    Reference:
        Benamou and Brenier, A computational fluid mechanics solution to the Monge–Kantorovich mass transfer problem,
        2000; with forcing: Song et al., Flow Factorized Representation Learning, NeurIPS 2023.

    Example:
        >>> from torchflowfield import FlowBank, ODEStepper
        >>> path = ODEStepper(FlowBank(K=3, dim=4))(torch.randn(8, 4), weights=0, steps=5)
        >>> DynamicOTLoss()(path).total.shape
        torch.Size([])
    """

    def __init__(
        self,
        *,
        forcing: nn.Module | None = None,
        residual_weight: float = 1.0,
        initial_weight: float = 0.0,
        kinetic_weight: float = 0.0,
        fields: str = "active",
    ) -> None:
        super().__init__()
        check_choice("DynamicOTLoss", "fields", fields, ("active", "all"))
        if min(residual_weight, initial_weight, kinetic_weight) < 0:
            raise ValueError(
                f"DynamicOTLoss: expected weights ≥ 0, got {residual_weight}, {initial_weight}, {kinetic_weight}."
            )
        self.forcing, self.fields = forcing, fields
        self.residual_weight, self.initial_weight, self.kinetic_weight = residual_weight, initial_weight, kinetic_weight

    def forward(self, path: FlowPath) -> OTTerms:
        """Parts and total for a recorded path.

        Raises:
            ValueError: If the path was made with `record=False` or has no steps, or the forcing does not fit it.
            TypeError: For anything but a path, such as its codes alone.
        """
        residual = self.residual(path)
        if path.active is None or path.initial_norm2 is None or path.kinetic is None:
            raise ValueError(_NOT_RECORDED)
        active = torch.ones_like(path.active) if self.fields == "all" else path.active
        terms = (
            _mean_where(residual.square(), active),
            _mean_where(path.initial_norm2, active.amax(0)),
            path.kinetic.mean(),
        )
        weights = (self.residual_weight, self.initial_weight, self.kinetic_weight)
        total = sum(w * term for w, term in zip(weights, terms, strict=True) if w)
        return OTTerms(*terms, total if isinstance(total, Tensor) else torch.zeros_like(terms[0]))

    def residual(self, path: FlowPath) -> Float[Tensor, "steps *batch fields"]:
        r"""$\partial u / \partial t + \frac{1}{2}\|\nabla u\|^2 - f$ per step, sample and field."""
        check_path("DynamicOTLoss", path)
        if path.time_derivative is None or path.gradient_norm2 is None:
            raise ValueError(_NOT_RECORDED)
        if len(path.z) < 2:
            raise ValueError("DynamicOTLoss: expected a path of at least one step, got none.")
        residual = path.time_derivative + 0.5 * path.gradient_norm2
        if self.forcing is None:
            return residual
        z = path.z[:-1]
        f = self.forcing(path.t[:-1].view(-1, *[1] * (z.ndim - 2)), z)
        # Double control has two weights per field; a path of one field alone does not say which control it is.
        controls = path.weights.shape[-1]
        counts = (residual.shape[-1],) if path.field is None else (controls, controls // 2)
        if f.shape[:-1] != z.shape[:-1] or f.shape[-1] not in counts or (path.field or 0) >= f.shape[-1]:
            raise ValueError(
                f"DynamicOTLoss: expected the forcing to return one number per field, shape "
                f"{(*z.shape[:-1], counts[0])}, got {tuple(f.shape)}. Build it for the K of the bank."
            )
        return residual - (f if path.field is None else f[..., path.field : path.field + 1])


class PathKLTerms(NamedTuple):
    r"""`per_frame [T+1, *]`: $\log q_t(z_t) - \log p_t(z_t)$ of every sample; `total`: the scalar to minimise."""

    per_frame: Tensor
    total: Tensor


class PathKL(nn.Module):
    r"""One-sample estimate of how far the path of the posterior is from the path of the prior.

    Both log-densities are tracked per sample: $\log q_t(z_t)$ by the change of variables along the path,
    $\log p_t(z_t)$ by the prior.

    Args:
        prior: Called with the path, returns $\log p_t(z_t)$ of every frame, `[T+1, *]`: for instance `DiffusionPrior`.
        mode: `"marginal"` sums $\log q_t - \log p_t$ over frames 1…T, a bound for every frame by itself.
            `"transition"` takes what the path adds to the divergence of frame 0, $(\log q_T - \log p_T) -
            (\log q_0 - \log p_0)$: with KL(q₀‖p₀) beside it, the prior is paid for once.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023, with log-densities in the order of the
        evidence bound.
    """

    def __init__(self, prior: nn.Module, *, mode: str = "marginal") -> None:
        super().__init__()
        check_choice("PathKL", "mode", mode, ("marginal", "transition"))
        self.prior, self.mode = prior, mode

    def forward(self, path: FlowPath, log_prob0: Float[Tensor, "*batch"]) -> PathKLTerms:
        """Estimate for a path whose first frame has posterior log-density `log_prob0`.

        Raises:
            ValueError: If the path carries no density, or the prior returns anything but one number per frame and
                sample.
            TypeError: For anything but a path, such as its codes alone.
        """
        check_path("PathKL", path)
        log_q, log_p = path.log_prob(log_prob0), self.prior(path)
        if log_p.shape != log_q.shape:
            raise ValueError(
                f"PathKL: expected {type(self.prior).__name__} to return one log-density per frame and sample, shape "
                f"{tuple(log_q.shape)}, got {tuple(log_p.shape)}. Sum over the latent axes alone."
            )
        per_frame = log_q - log_p
        total = per_frame[1:].sum(0) if self.mode == "marginal" else per_frame[-1] - per_frame[0]
        return PathKLTerms(per_frame, total.mean())


def _mean_where(values: Tensor, active: Tensor) -> Tensor:
    # In float16 no more than 65,504 could be counted.
    wide = torch.promote_types(values.dtype, torch.float32)
    mean = (values * active).sum(dtype=wide) / active.sum(dtype=wide).clamp(min=1)
    return mean.to(values.dtype)
