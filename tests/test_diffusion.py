import math

import numpy as np
import pytest
import torch
from reference import close, randomize
from scipy.linalg import expm
from torch.distributions import Normal

from torchflowfield import DiffusionPrior, FlowBank, FlowPath, ODEStepper


def path_through(z, weights):
    return FlowPath(torch.arange(float(len(z))), z, None, weights)


def test_the_prior_solves_the_heat_equation():
    diffusion, steps, x = 0.3, 3, np.linspace(-12, 12, 601)
    spacing = x[1] - x[0]
    laplacian = (np.eye(601, k=1) - 2 * np.eye(601) + np.eye(601, k=-1)) / spacing**2
    propagator = expm(diffusion * laplacian)
    density = [np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)]
    for _ in range(steps):
        density.append(propagator @ density[-1])
    z = torch.from_numpy(x)[:, None].expand(steps + 1, -1, 1)
    log_prob = DiffusionPrior(1, diffusion=diffusion)(path_through(z, torch.ones(steps, 601, 1)))
    close(log_prob.exp(), torch.from_numpy(np.stack(density)), rtol=0, atol=1e-4)


def test_the_density_is_a_gaussian_in_every_dimension():
    z, variance = torch.randn(3, 5, 4), 1 + 2 * 0.5 * torch.arange(3.0)
    expected = Normal(0.0, variance.sqrt()[:, None, None]).log_prob(z).sum(-1)
    close(DiffusionPrior(1, diffusion=0.5)(path_through(z, torch.ones(2, 5, 1))), expected)


def test_the_variance_grows_by_the_absolute_weights_of_each_step():
    prior = DiffusionPrior(2)
    with torch.no_grad():
        prior.raw.copy_(torch.tensor([0.2, 0.7]).expm1().log())
    weights = torch.tensor([[[1.0, 0.0]], [[-2.0, 1.0]]])
    close(prior.variance(weights), torch.tensor([[1.0], [1.4], [3.6]]))


@pytest.mark.parametrize("diffusion", [1e-4, 0.01, 1.0, 50.0])
def test_the_prior_starts_at_the_given_coefficient(diffusion):
    close(DiffusionPrior(3, diffusion=diffusion).diffusion, torch.full((3,), diffusion))


def test_the_coefficient_is_positive_whatever_is_learned():
    prior = randomize(DiffusionPrior(20), scale=50.0)
    assert (prior.diffusion > 0).all()


def test_the_coefficient_is_learned_saved_and_moved():
    prior = DiffusionPrior(2, diffusion=0.3)
    prior(path_through(torch.randn(3, 5, 4), torch.ones(2, 5, 2))).sum().backward()
    assert (prior.raw.grad != 0).all()
    other = DiffusionPrior(2)
    other.load_state_dict(prior.state_dict())
    close(other.diffusion, torch.full((2,), 0.3))
    assert prior.float().diffusion.dtype == torch.float32
    assert prior.to("meta").diffusion.device.type == "meta"


def test_the_coefficient_can_be_held_fixed():
    prior = DiffusionPrior(2, learnable=False)
    assert not prior.diffusion.requires_grad
    assert len(prior.state_dict()) == 1


def test_the_prior_takes_the_path_of_a_stepper():
    path = ODEStepper(FlowBank(3, 4))(torch.randn(5, 4), 1, steps=6)
    assert DiffusionPrior(3)(path).shape == (7, 5)


@pytest.mark.parametrize("diffusion", [0.0, -1.0, math.nan])
def test_a_coefficient_that_is_not_positive_is_an_error(diffusion):
    with pytest.raises(ValueError, match=f"expected diffusion > 0, got {diffusion}"):
        DiffusionPrior(2, diffusion=diffusion)


def test_no_coefficient_is_an_error():
    with pytest.raises(ValueError, match="expected K to be a whole number of at least 1, got 0"):
        DiffusionPrior(0)


def test_another_number_of_coefficients_is_refused():
    path = ODEStepper(FlowBank(2, 4), density="trace")(torch.randn(5, 4), torch.ones(2), 3)
    with pytest.raises(ValueError, match="expected 1 coefficients"):
        DiffusionPrior(1)(path)
