import itertools

import numpy as np
import pytest
import torch
from reference import close

from torchflowfield.activations import ACTIVATIONS, _log1p, activate

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


@pytest.fixture(params=ACTIVATIONS)
def facts(request):
    return lambda a: activate(request.param, a, value=True)


def test_one_pass_gives_what_the_separate_functions_give(facts, request):
    a = torch.linspace(-30, 30, 301, requires_grad=True)
    phi = ACTIVATIONS[request.node.callspec.params["facts"]]
    for actual, expected in zip(facts(a), (phi.first(a), phi.second(a), phi.value(a)), strict=True):
        close(actual, expected, rtol=1e-14, atol=1e-14)


def test_without_a_value_none_is_computed():
    slope, rate, value = activate("cos", torch.randn(3, requires_grad=True), value=False)
    assert value is None
    assert slope.requires_grad
    assert rate.requires_grad


@pytest.mark.parametrize("value", [False, True])
def test_first_and_second_gradients_are_right(facts, value):
    count = 3 if value else 2
    a = torch.tensor([-2.0, -0.3, 0.0, 1e-8, 0.7, 3.0], requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: facts(a)[:count], a)
    assert torch.autograd.gradgradcheck(lambda a: facts(a)[:count], a)


def test_the_potential_can_be_differentiated_twice_where_its_argument_is_zero(facts):
    a = torch.zeros(1, requires_grad=True)
    slope, rate, value = facts(a)
    first = torch.autograd.grad(value.sum(), a, create_graph=True)[0]
    close(first, slope)
    close(torch.autograd.grad(first.sum(), a)[0], rate)


def test_forward_mode_and_vmap_agree_with_reverse_mode(facts):
    a = torch.randn(4, 3, requires_grad=True)
    forward = torch.func.vmap(torch.func.jacfwd(facts))(a)
    reverse = torch.func.vmap(torch.func.jacrev(facts))(a)
    for one, other in zip(forward, reverse, strict=True):
        close(one, other)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("forwards", itertools.product((False, True), repeat=3))
def test_derivatives_of_derivatives_agree_in_every_order_of_modes(name, forwards):
    def third_derivative(function):
        for forward in forwards:
            function = torch.func.jacfwd(function) if forward else torch.func.jacrev(function)
        return function(torch.tensor(0.7))

    phi = ACTIVATIONS[name]
    close(third_derivative(lambda a: activate(name, a, value=True)[0]), third_derivative(phi.first))
    close(third_derivative(lambda a: activate(name, a, value=True)[2]), third_derivative(phi.value))


def test_forward_mode_is_right_without_a_transform(facts):
    a = torch.tensor([-2.0, 0.0, 0.7], requires_grad=True)
    assert torch.autograd.gradcheck(facts, a, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(facts, a, check_fwd_over_rev=True)


def test_gradients_that_nobody_asks_for_cost_nothing(facts):
    a = torch.randn(5, requires_grad=True)
    slope, rate, _ = facts(a)
    close(torch.autograd.grad(slope.sum(), a)[0], rate)


def test_logcosh_is_stable_and_precise_in_float32():
    a = torch.tensor([-1e4, -50.0, -1e-3, 0.0, 1e-3, 50.0, 1e4], dtype=torch.float32)
    slope, rate, value = activate("logcosh", a.requires_grad_(), value=True)
    _, exact_rate, exact = activate("logcosh", a.detach().double(), value=True)
    close(value.double(), exact, rtol=1e-6, atol=1e-6)
    close(rate.double(), exact_rate, rtol=1e-6, atol=1e-6)
    gradient = torch.autograd.grad((slope + rate + value).sum(), a)[0]
    assert gradient.isfinite().all()


def test_the_logarithm_of_compiled_code_is_as_exact_as_its_precision(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for dtype, tolerance in ((torch.float32, 2e-7), (torch.float64, 1e-15)):
        u = torch.linspace(0, 1, 1001, dtype=dtype)
        assert (_log1p(u).double() - torch.log1p(u.double())).abs().max() <= tolerance
