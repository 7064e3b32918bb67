import pytest
import torch
from reference import close

from torchflowfield.activations import ACTIVATIONS, activate


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
