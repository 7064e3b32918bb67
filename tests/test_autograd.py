import copy
import math

import pytest
import torch
from hypothesis import given
from reference import close, field_cases, randomize
from torch import nn

from torchflowfield import AutogradPotential, PotentialFlowField


class RidgeNetwork(nn.Module):
    """The potential of a closed-form field, as a network."""

    def __init__(self, field):
        super().__init__()
        self.field = field

    def forward(self, t, z, context=None):
        return self.field.jet(t, z, context).potential


class Quadratic(nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, z):
        return 0.5 * ((z @ self.matrix) * z).sum(-1)


def symmetric(dim):
    matrix = torch.randn(dim, dim)
    return matrix + matrix.mT


@given(field_cases(["potential"]))
def test_the_two_routes_to_a_ridge_potential_agree(case):
    closed, network = case.field, AutogradPotential(RidgeNetwork(case.field))
    t, z, context, x = case.t, case.z, case.context, torch.randn_like(case.z)
    for actual, expected in zip(network.jet(t, z, context), closed.jet(t, z, context), strict=True):
        close(actual, expected)
    close(network(t, z, context), closed(t, z, context))
    close(network.jvp(t, z, x, context), closed.jvp(t, z, x, context))
    close(network.jacobian(t, z, context), closed.jacobian(t, z, context))
    close(network.divergence(t, z, context), closed.divergence(t, z, context))
    if closed.log_det(t, z, 0.3, context).min() > -5:
        close(network.log_det(t, z, 0.3, context), closed.log_det(t, z, 0.3, context))


def test_both_routes_give_the_same_gradients():
    field, z = randomize(PotentialFlowField(3, 4)), torch.randn(5, 3)
    gradients = []
    for route in (field, AutogradPotential(RidgeNetwork(field))):
        jet = route.jet(0.7, z)
        loss = (jet.velocity.square().sum(-1) + jet.laplacian.square() + jet.time_derivative.square()).sum()
        gradients.append(torch.autograd.grad(loss, tuple(field.parameters())))
    for a, b in zip(*gradients, strict=True):
        close(a, b)


def test_the_laplacian_beyond_exact_dim_is_unbiased():
    matrix, probes = symmetric(8), 4000
    field = AutogradPotential(Quadratic(matrix), exact_dim=7, probes=probes)
    estimate = field.divergence(0.0, torch.randn(8))
    off_diagonal = matrix - torch.diag(matrix.diagonal())
    error = math.sqrt(2 * off_diagonal.square().sum().item() / probes)
    assert 0 < (estimate - matrix.trace()).abs() < 4 * error


def test_one_probe_is_noisy_and_different_for_every_sample():
    field = AutogradPotential(Quadratic(symmetric(8)), exact_dim=0)
    assert field.divergence(0.0, torch.randn(100, 8)).std() > 0


def test_a_diagonal_hessian_is_estimated_without_noise():
    matrix = torch.diag(torch.randn(8))
    field = AutogradPotential(Quadratic(matrix), exact_dim=0)
    close(field.divergence(0.0, torch.randn(5, 8)), matrix.trace().expand(5))


def test_up_to_exact_dim_the_laplacian_is_exact():
    matrix = symmetric(8)
    close(AutogradPotential(Quadratic(matrix), exact_dim=8).divergence(0.0, torch.randn(8)), matrix.trace())


def test_a_generator_makes_estimates_reproducible():
    network, z = Quadratic(symmetric(8)), torch.randn(5, 8)

    def estimates(seed):
        generator = torch.Generator().manual_seed(seed)
        field = AutogradPotential(network, exact_dim=0, generator=generator)
        return torch.stack([field.divergence(0.0, z), field.divergence(0.0, z)])

    close(estimates(1), estimates(1), rtol=0, atol=0)
    assert not torch.equal(estimates(1), estimates(2))
    assert not torch.equal(*estimates(1))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("t", [0.5, torch.tensor(0.5), torch.full((4,), 0.5)])
def test_derivatives_need_no_graph(mode, t):
    field, z = AutogradPotential(RidgeNetwork(randomize(PotentialFlowField(3, 5)))), torch.randn(4, 3)
    expected = field.jet(t, z)
    with mode():
        for actual, value in zip(field.jet(t, z), expected, strict=True):
            assert not actual.requires_grad
            close(actual, value.detach())


def test_a_copy_has_its_own_network_and_the_same_settings():
    generator = torch.Generator()
    field = AutogradPotential(Quadratic(symmetric(3)), exact_dim=2, probes=5, generator=generator).eval()
    copied = copy.deepcopy(field)
    with torch.no_grad():
        copied.network.matrix.zero_()
    assert field.network.matrix.abs().min() > 0
    assert (copied.exact_dim, copied.probes, copied.generator, copied.training) == (2, 5, generator, False)


def test_vmap_agrees_with_the_batch():
    field = AutogradPotential(RidgeNetwork(randomize(PotentialFlowField(3, 5))))
    t, z = torch.rand(4), torch.randn(4, 3)
    for actual, expected in zip(torch.func.vmap(field.jet)(t, z), field.jet(t, z), strict=True):
        close(actual, expected)


@pytest.mark.parametrize("quantity", ["forward", "divergence"])
def test_no_parameter_of_the_network_is_dead(quantity):
    field = AutogradPotential(Quadratic(symmetric(3)))
    getattr(field, quantity)(0.0, torch.randn(3)).sum().backward()
    assert field.network.matrix.grad.diagonal().abs().min() > 0


def test_a_network_with_a_trailing_axis_is_an_error():
    class Trailing(nn.Module):
        def forward(self, t, z):
            return z[:, :1]

    message = r"one potential per sample, shape \(5,\), got \(5, 1\). A final squeeze\(-1\) is often missing"
    with pytest.raises(ValueError, match=message):
        AutogradPotential(Trailing())(0.0, torch.randn(5, 3))


def test_no_probe_is_an_error():
    with pytest.raises(ValueError, match="probes to be a whole number of at least 1, got 0"):
        AutogradPotential(nn.Identity(), probes=0)


def test_times_of_another_batch_are_an_error(without_hook):
    with pytest.raises(ValueError, match="AutogradPotential: expected t to be a number or one time per sample"):
        AutogradPotential(Quadratic(symmetric(3)))(torch.zeros(4), torch.randn(5, 3))


def test_a_copy_keeps_parameters_buffers_and_modes_of_a_subclass():
    class Scaled(AutogradPotential):
        def __init__(self, network):
            super().__init__(network, generator=torch.Generator().manual_seed(0))
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.register_buffer("count", torch.ones(3))

        def _potential(self, t, z, context):
            return self.scale * super()._potential(t, z, context)

    field = Scaled(nn.Sequential(nn.BatchNorm1d(2)))
    field.network[0].eval()
    copied = copy.deepcopy(field)
    assert copied.scale is not field.scale
    assert copied.count.tolist() == [1, 1, 1]
    assert copied.generator is field.generator
    assert copied.training
    assert not copied.network[0].training
