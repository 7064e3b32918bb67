import pytest
import torch
import torchdiffeq
from reference import LinearField, close, randomize

from torchflowfield import AutogradPotential, FlowBank, ODEStepper
from torchflowfield.adaptive import ADAPTIVE_METHODS

TIGHT = {"rtol": 1e-7, "atol": 1e-8}


@pytest.mark.parametrize("kind", ["potential", "rotational", "helmholtz"])
@pytest.mark.parametrize("reverse", [False, True])
def test_dopri5_agrees_with_many_small_steps(kind, reverse):
    bank, z = randomize(FlowBank(2, 3, width=4, kind=kind), 0.4), torch.randn(5, 3)
    g = 0.5 * torch.randn(3, 5, 2)
    adaptive = ODEStepper(bank, "dopri5", **TIGHT)(z, g, steps=3, reverse=reverse)
    fixed = ODEStepper(bank, "rk4", substeps=16, inverse_iterations=0)(z, g, steps=3, reverse=reverse)
    close(adaptive.z, fixed.z, rtol=1e-5, atol=1e-4)
    close(adaptive.log_det, fixed.log_det, rtol=1e-5, atol=1e-4)
    for name in ("t", "weights", "active"):
        close(getattr(adaptive, name), getattr(fixed, name))


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_every_adaptive_method_finds_the_matrix_exponential(method):
    matrix, z = 0.5 * torch.randn(3, 3), torch.randn(5, 3)
    path = ODEStepper(FlowBank([LinearField(matrix)]), method, rtol=1e-6, atol=1e-7)(z, 0, steps=2)
    # The tolerance is one of a step. The errors of fehlberg2's some fifty steps add up to 6e-5; the others stay below
    # 2e-6, dopri8 below 1e-10.
    accuracy = {"fehlberg2": 2e-4, "dopri8": 1e-9}.get(method, 1e-5)
    close(path.z[-1], z @ torch.linalg.matrix_exp(2 * matrix).mT, rtol=0, atol=accuracy)
    close(path.log_det[-1], (2 * matrix.trace()).expand(5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", [False, True])
def test_the_adjoint_gives_the_direct_gradients(schedule):
    bank = randomize(FlowBank(2, 3, width=4, context_dim=2), 0.5)
    z, context = torch.randn(5, 3, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    g = torch.randn(*((2, 5) if schedule else ()), 2, requires_grad=True)
    inputs = (z, g, context, *bank.parameters())
    gradients = []
    for adjoint in (False, True):
        stepper = ODEStepper(bank, "dopri5", adjoint=adjoint, **TIGHT)
        path = stepper(z, g, steps=2, context=context, record=False)
        gradients.append(torch.autograd.grad(path.z[1:].square().sum() + path.log_det[-1].sin().sum(), inputs))
    for direct, adjoint in zip(*gradients, strict=True):
        assert direct.abs().max() > 0
        close(adjoint, direct, rtol=1e-4, atol=1e-4)


def test_the_adjoint_works_for_one_field_and_without_density():
    bank, z = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(5, 3)
    gradients = []
    for adjoint in (False, True):
        path = ODEStepper(bank, "dopri5", density=None, adjoint=adjoint, **TIGHT)(z, 1, steps=1, record=False)
        assert path.log_det is None
        gradients.append(torch.autograd.grad(path.z.square().sum(), bank.stack.weight)[0])
    close(*gradients, rtol=1e-4, atol=1e-4)


def test_the_tolerance_is_passed_on():
    bank, z = randomize(FlowBank(1, 3, width=8)), torch.randn(5, 3)
    exact = ODEStepper(bank, "dopri5", rtol=1e-9, atol=1e-10)(z, 0, steps=2).z[-1]
    errors = [(ODEStepper(bank, "dopri5", rtol=r, atol=r)(z, 0, steps=2).z[-1] - exact).norm() for r in (1e-2, 1e-6)]
    assert errors[0] > 100 * errors[1]


def test_an_adaptive_path_records_what_the_losses_need():
    bank, z = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(5, 3)
    path = ODEStepper(bank, "dopri5")(z, torch.ones(2), steps=2)
    jet = bank.jet(1.0, path.z[1])
    close(path.time_derivative[1], jet.time_derivative)
    close(path.gradient_norm2[1], jet.gradient.square().sum(-1))


def test_a_potential_by_autograd_goes_through_the_adjoint():
    class Well(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 4)

        def forward(self, t, z):
            return self.linear(z).tanh().sum(-1)

    bank, z = FlowBank([AutogradPotential(Well())]), torch.randn(5, 3)
    path = ODEStepper(bank, "dopri5", adjoint=True)(z, 0, steps=1, record=False)
    path.z.square().sum().backward()
    assert bank.stack.fields[0].network.linear.weight.grad.abs().min() > 0


def test_a_bound_bank_goes_through_the_adjoint_of_torchdiffeq():
    bank, z = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(5, 3)
    solution = torchdiffeq.odeint_adjoint(bank.bind(torch.tensor([1.0, 0.5])), z, torch.arange(3.0))
    solution[-1].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in bank.parameters())
