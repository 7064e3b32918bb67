"""A path through latent space, with its density and what the losses need."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class FlowPath(NamedTuple):
    r"""A path through latent space at `T + 1` frames, with what the losses need of every step.

    `F` is the number of fields recorded: K, or 1 where an int weight selected one field.

    Attributes:
        t: Times of the frames, `[T+1]`.
        z: Latent vectors, `[T+1, *, D]`.
        log_det: $\log|\det \partial z_t / \partial z_0|$, `[T+1, *]`; None with `density=None`.
        weights: The coefficients of every step, `[T, *, num_controls]`.
        field: The field that an int weight selected, else None.
        active: 1 for the gradients that a step used, 0 for the others, `[T, *, F]`.
        time_derivative: $\partial u_k / \partial t$ at the start of every step, `[T, *, F]`.
        gradient_norm2: $\|\nabla u_k\|^2$ there, `[T, *, F]`.
        initial_norm2: $\|\nabla u_k(0, z_0)\|^2$, `[*, F]`.
        kinetic: $\frac{1}{2} \|v\|^2$ of the mixture at the start of every step, `[T, *]`. Its sum over the steps is
            the left-endpoint rule for the energy of the path: of first order, whatever the method. A trapezoid would
            need the velocity at the end of every step, one more evaluation each, as weights may jump between steps.

    The last five are None for a path made with `record=False`.
    """

    t: Tensor
    z: Tensor
    log_det: Tensor | None
    weights: Tensor
    field: int | None = None
    active: Tensor | None = None
    time_derivative: Tensor | None = None
    gradient_norm2: Tensor | None = None
    initial_norm2: Tensor | None = None
    kinetic: Tensor | None = None

    def log_prob(self, log_prob0: Float[Tensor, "*batch"]) -> Float[Tensor, "frames *batch"]:
        r"""$\log q_t(z_t) = \log q_0(z_0) - \log|\det \partial z_t / \partial z_0|$ at every frame.

        Raises:
            ValueError: If the path carries no density, or `log_prob0` is not one number per sample.
        """
        if self.log_det is None:
            raise ValueError(
                "FlowPath: this path carries no density. Make it by ODEStepper(density='trace' or 'exact')."
            )
        if log_prob0.shape != self.z.shape[1:-1]:
            raise ValueError(
                f"FlowPath: expected the log-density of every first code, shape {tuple(self.z.shape[1:-1])}, got "
                f"{tuple(log_prob0.shape)}. Sum over the latent axes, or expand."
            )
        return log_prob0 - self.log_det


def join_paths(paths: list[FlowPath], reverse: bool) -> FlowPath:
    """One path from pieces, each of which starts where the one before ends; `reverse` if they lead back in time."""
    first, last = paths[0], paths[-1]
    if len(paths) == 1:
        return first

    def frames(name: str) -> Tensor:
        # The frame that two pieces share is kept once.
        return torch.cat([getattr(p, name) if p is first else getattr(p, name)[1:] for p in paths])

    def steps(name: str) -> Tensor | None:
        return None if getattr(first, name) is None else torch.cat([getattr(p, name) for p in paths])

    log_dets: list[Tensor] = []
    for path in paths:
        if path.log_det is not None:
            log_dets.append(log_dets[-1][-1] + path.log_det[1:] if log_dets else path.log_det)
    return first._replace(
        t=frames("t"),
        z=frames("z"),
        log_det=torch.cat(log_dets) if log_dets else None,
        weights=torch.cat([p.weights for p in paths]),
        active=steps("active"),
        time_derivative=steps("time_derivative"),
        gradient_norm2=steps("gradient_norm2"),
        kinetic=steps("kinetic"),
        initial_norm2=(last if reverse else first).initial_norm2,
    )
