import numpy as np
import pytest
import torch
from reference import close

from torchflowfield.activations import ACTIVATIONS
from torchflowfield.ridge import log_det_euler

ARGUMENTS = np.concatenate([np.linspace(-60, 60, 2001), [-1e4, -710.0, -1e-9, 0.0, 1e-9, 710.0, 1e4]])


def _softplus(a):
    return np.maximum(a, 0) + np.log1p(np.exp(-np.abs(a)))


def _sigmoid(a):
    return np.where(a < 0, np.exp(-np.abs(a)), 1) / (1 + np.exp(-np.abs(a)))


def _sech2(a):
    return 4 * np.exp(-2 * np.abs(a)) / (1 + np.exp(-2 * np.abs(a))) ** 2


EXACT = {
    "logcosh": (lambda a: np.abs(a) + np.log1p(np.exp(-2 * np.abs(a))) - np.log(np.longdouble(2)), np.tanh, _sech2),
    "cos": (lambda a: -np.cos(a), np.sin, np.cos),
    "softplus": (_softplus, _sigmoid, lambda a: _sigmoid(a) * _sigmoid(-a)),
}


def derivatives(name):
    activation = ACTIVATIONS[name]
    return activation.value, activation.first, activation.second


@pytest.mark.parametrize("order", range(3), ids=["value", "first", "second"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_exact_in_float64(name, order):
    expected = EXACT[name][order](ARGUMENTS.astype(np.longdouble)).astype(np.float64)
    actual = derivatives(name)[order](torch.from_numpy(ARGUMENTS))
    close(actual, torch.from_numpy(expected), rtol=2e-15, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_derivative_is_that_of_the_function_before(name):
    a = torch.linspace(-30, 30, 301, requires_grad=True)
    value, first, second = derivatives(name)
    close(torch.autograd.grad(value(a).sum(), a)[0], first(a), rtol=1e-14, atol=1e-14)
    close(torch.autograd.grad(first(a).sum(), a)[0], second(a), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives_are_finite_for_large_arguments(name, dtype):
    for function in derivatives(name):
        a = torch.tensor([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4], dtype=dtype, requires_grad=True)
        values = function(a)
        for _ in range(3):
            assert values.dtype == dtype
            assert values.isfinite().all()
            values = torch.autograd.grad(values.sum(), a, create_graph=True, allow_unused=True)[0]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_activations_said_to_be_convex_are_convex(name):
    second = ACTIVATIONS[name].second(torch.linspace(-8, 8, 161))
    assert bool((second >= 0).all()) == ACTIVATIONS[name].convex


def test_slopes_are_bounded_by_one():
    a = torch.linspace(-1e4, 1e4, 999)
    for activation in ACTIVATIONS.values():
        assert activation.first(a).abs().max() <= 1


@pytest.mark.parametrize("step", [1.0, -0.5, 0.0])
def test_the_euler_volume_is_that_of_slogdet(step):
    matrix = torch.randn(3, 4, 4)
    close(log_det_euler(matrix, step), torch.linalg.slogdet(torch.eye(4) + step * matrix).logabsdet)


def test_the_euler_volume_of_a_bfloat16_jacobian_is_in_float32():
    matrix = torch.randn(3, 4, 4, dtype=torch.bfloat16)
    close(log_det_euler(matrix, 1.0), log_det_euler(matrix.float(), 1.0))
