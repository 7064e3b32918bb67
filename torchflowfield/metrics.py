"""How good the flows are: equivariance, recovery of the transformations, likelihood, commutators."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from torchflowfield._checks import check_finite
from torchflowfield.bank import FlowBank
from torchflowfield.interface import Time


def equivariance_error(
    predicted: Float[Tensor, "frames batch *image"],
    true: Float[Tensor, "frames batch *image"],
    *,
    relative: bool = False,
) -> Float[Tensor, " batch"]:
    r"""$\sum_{t=1}^T \|\hat x_t - x_t\|_1$ of every sample, frame 0 left out; in units of the data.

    With frames rolled by a flow and decoded this is the equivariance error; with `decode(encode(x))` of every frame it
    is the re-encoding error of the same model, and the ratio of the two says how far the flow is from looking at the
    answer. That floor is fair only where training starts sequences at any pose, so that the encoder knows them all.

    Args:
        predicted: Frames of the model, frame 0 first.
        true: True frames.
        relative: Divide by $\sum_{t=1}^T \|x_t\|_1$, to compare data sets and sizes; not finite where all is black.

    Raises:
        ValueError: If the shapes differ, or there is no frame after the first.
        TypeError: For frames of integers.

    Example:
        >>> true = torch.ones(3, 1, 2)
        >>> equivariance_error(true + 0.5, true), equivariance_error(true + 0.5, true, relative=True)
        (tensor([2.]), tensor([0.5000]))
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"equivariance_error: expected frames of one shape, got {tuple(predicted.shape)} and {tuple(true.shape)}."
        )
    if not (predicted.is_floating_point() and true.is_floating_point()):
        raise TypeError(
            f"equivariance_error: expected floating-point frames, got {predicted.dtype} and {true.dtype}. "
            f"Convert with .float() / 255."
        )
    if len(true) < 2:
        raise ValueError("equivariance_error: expected at least one frame after the first, got none.")
    error = _per_sample(predicted[1:] - true[1:])
    return error / _per_sample(true[1:]) if relative else error


def _per_sample(frames: Tensor) -> Tensor:
    # In float16 a sum over pixels would soon be infinite.
    wide = torch.promote_types(frames.dtype, torch.float32)
    return frames.abs().transpose(0, 1).flatten(1).sum(1, dtype=wide)


def importance_weighted_log_likelihood(
    log_joint: Float[Tensor, "samples *batch"], log_posterior: Float[Tensor, "samples *batch"]
) -> Float[Tensor, "*batch"]:
    r"""$\log \frac{1}{S} \sum_s p(x, z_s) / q(z_s)$, a lower bound of $\log p(x)$ that tightens with S.

    Args:
        log_joint: $\log p(x, z_s)$ of every posterior sample.
        log_posterior: $\log q(z_s)$ of the same samples; for samples moved by a flow, `FlowPath.log_prob`.

    Raises:
        ValueError: If the shapes differ.

    Reference:
        Burda et al., Importance Weighted Autoencoders, ICLR 2016.
    """
    if log_joint.shape != log_posterior.shape:
        raise ValueError(
            f"importance_weighted_log_likelihood: expected one shape, got {tuple(log_joint.shape)} and "
            f"{tuple(log_posterior.shape)}."
        )
    return torch.logsumexp(log_joint - log_posterior, 0) - math.log(len(log_joint))


class Recovery(NamedTuple):
    """What inferred coefficients recover of the true ones.

    Attributes:
        matching: The control matched to each true factor, `[F]`; -1 where there are fewer controls than factors.
        f1: F1 of its spikes against the factor's switches, `[F]`; 0 without a control.
        slab_correlation: Correlation of its slabs with the true speeds while both are on, `[F]`; NaN if unknown.
        confusion: F1 of every control for every factor, `[controls, F]`.
    """

    matching: Tensor
    f1: Tensor
    slab_correlation: Tensor
    confusion: Tensor


def transformation_recovery(
    spikes: Float[Tensor, "*steps controls"],
    true_spikes: Float[Tensor, "*steps factors"],
    slabs: Float[Tensor, "*steps slabs"] | None = None,
    true_speeds: Float[Tensor, "*steps factors"] | None = None,
) -> Recovery:
    """Match controls to factors one to one, by the best total F1, and score them.

    Args:
        spikes: Inferred spikes; on where above one half.
        true_spikes: True switches, 0 or 1.
        slabs: Inferred slab of every control; under double control one per field, which two controls share.
        true_speeds: True speed of every factor.

    Raises:
        ValueError: If the numbers of steps differ, that of slabs fits neither controls nor fields, or that of speeds
            does not fit the factors; or for spikes or slabs that are not finite.

    Reference:
        Song et al., Unsupervised Representation Learning from Sparse Transformation Analysis, arXiv 2410.05564.
    """
    from scipy.optimize import linear_sum_assignment

    if spikes.shape[:-1] != true_spikes.shape[:-1]:
        raise ValueError(
            f"transformation_recovery: expected the same steps, got {tuple(spikes.shape)} and "
            f"{tuple(true_spikes.shape)}."
        )
    if slabs is not None and slabs.shape[-1] * 2 == spikes.shape[-1]:
        slabs = torch.cat((slabs, slabs), -1)
    if slabs is not None and slabs.shape != spikes.shape:
        raise ValueError(
            f"transformation_recovery: expected a slab for every control or field of {tuple(spikes.shape)}, got "
            f"{tuple(slabs.shape)}."
        )
    if true_speeds is not None and true_speeds.shape != true_spikes.shape:
        raise ValueError(
            f"transformation_recovery: expected a speed for every factor of {tuple(true_spikes.shape)}, got "
            f"{tuple(true_speeds.shape)}."
        )
    check_finite("transformation_recovery", "spikes", spikes)
    if slabs is not None:
        check_finite("transformation_recovery", "slabs", slabs)
    inferred = (spikes > 0.5).flatten(0, -2).double()
    true = (true_spikes > 0.5).flatten(0, -2).double()
    both = inferred.mT @ true
    confusion = 2 * both / (inferred.sum(0)[:, None] + true.sum(0)).clamp(min=1)
    factors, controls = linear_sum_assignment(confusion.mT.cpu().numpy(), maximize=True)
    matching = torch.full((true.shape[-1],), -1)
    matching[factors] = torch.as_tensor(controls)
    f1 = torch.zeros(true.shape[-1], dtype=confusion.dtype)
    f1[factors] = confusion.cpu()[controls, factors]
    correlation = torch.full_like(f1, torch.nan)
    if slabs is not None and true_speeds is not None:
        speeds, guesses = true_speeds.flatten(0, -2), slabs.detach().flatten(0, -2)
        for factor, control in zip(factors, controls, strict=True):
            on = (inferred[:, control] * true[:, factor]).bool()
            if on.sum() > 1:
                pair = torch.stack((guesses[on, control], speeds[on, factor]))
                correlation[factor] = torch.corrcoef(pair.double())[0, 1]
    return Recovery(matching, f1, correlation, confusion.cpu())


def usage(spikes: Float[Tensor, "*steps controls"]) -> Float[Tensor, " controls"]:
    """Share of steps in which each control is on (above one half)."""
    return (spikes > 0.5).flatten(0, -2).double().mean(0)


def commutator_norms(
    bank: FlowBank, t: Time, z: Float[Tensor, "batch dim"], context: Tensor | None = None
) -> Float[Tensor, "fields fields"]:
    r"""How little the fields of a bank commute: mean of $\|[v_i, v_j]\| / (\|J_j v_i\| + \|J_i v_j\|)$, from 0 to 1.

    Zero where applying i then j equals j then i; one where the two orders differ as much as they can.

    Args:
        bank: The fields.
        t: Time in frames.
        z: Latent vectors at which to look.
        context: A vector per sample for a bank with `context_dim`.
    """
    norms = z.new_zeros(bank.K, bank.K)
    for i in range(bank.K):
        for j in range(i):
            along_i = bank[j].jvp(t, z, bank[i](t, z, context), context)
            along_j = bank[i].jvp(t, z, bank[j](t, z, context), context)
            scale = (along_i.norm(dim=-1) + along_j.norm(dim=-1)).clamp(min=torch.finfo(z.dtype).tiny)
            norms[i, j] = norms[j, i] = ((along_i - along_j).norm(dim=-1) / scale).mean()
    return norms
