import collections
import math

import pytest
import torch
from reference import LinearField, close, jacobian, randomize, small_bank

from torchflowfield import FlowBank, ODEStepper
from torchflowfield.interface import Selection
from torchflowfield.ridge import RidgeSnapshot
from torchflowfield.rungekutta import TABLEAUS, GridStep

ORDERS = {"euler": 1, "midpoint": 2, "rk4": 4}


@pytest.mark.parametrize("method", TABLEAUS)
def test_a_tableau_is_consistent(method):
    tableau = TABLEAUS[method]
    assert math.isclose(sum(tableau.weights), 1)
    assert all((node * tableau.resolution).is_integer() for node in tableau.nodes)
    if ORDERS[method] > 1:
        assert math.isclose(sum(w * c for w, c in zip(tableau.weights, tableau.nodes, strict=True)), 0.5)


@pytest.mark.parametrize("what", ["z", "log_det"])
@pytest.mark.parametrize("method", ORDERS)
def test_each_method_converges_with_its_order(method, what):
    bank, z = randomize(FlowBank(2, 3, width=6, period=16.0), 0.4), torch.randn(8, 3)
    g = torch.tensor([1.0, -0.5])

    def end(name, substeps):
        return getattr(ODEStepper(bank, name, substeps=substeps)(z, g, steps=1), what)[-1]

    exact = end("rk4", 48)
    coarse, fine = ((end(method, n) - exact).norm() for n in (6, 12))
    assert torch.log2(coarse / fine).item() == pytest.approx(ORDERS[method], abs=0.3)


@pytest.mark.parametrize("method", ORDERS)
def test_a_step_backwards_visits_the_times_before_it(method):
    class Clock(torch.nn.Module):
        def forward(self, t, z):
            return (t**3).expand_as(z)

    path = ODEStepper(FlowBank([Clock()]), method, inverse_iterations=0)(torch.zeros(1), 0, steps=2, reverse=True)
    expected = {"euler": -9.0, "midpoint": -(1.5**3 + 0.5**3), "rk4": -4.0}
    close(path.z[-1], torch.tensor([expected[method]]))


@pytest.mark.parametrize("density", ["trace", None])
@pytest.mark.parametrize("method", ORDERS)
def test_a_step_is_inverted_with_its_density(method, density):
    bank, z = randomize(FlowBank(2, 3, width=4), 0.3), torch.randn(5, 3)
    grid = bank.stack.on_grid(torch.arange(3.0) / 2, None, 1).unbind(3)
    step = GridStep(TABLEAUS[method], grid, 0, 1.0, torch.ones(5, 2, 2), density)
    moved, change = step.advance(z)
    back, again = step.invert(moved, moved, iterations=60)
    close(back, z)
    if density:
        close(again, change)


def test_a_known_first_stage_changes_nothing():
    bank, z = randomize(FlowBank(2, 3, width=4)), torch.randn(5, 3)
    grid, controls = bank.stack.on_grid(torch.arange(3.0) / 2, None, 1).unbind(3), torch.randn(5, 2, 2)
    for method in TABLEAUS:
        for density in ("trace", None):
            step = GridStep(TABLEAUS[method], grid, 0, 1.0, controls, density)
            moved, change = step.advance(z)
            again, same = step.advance(z, grid[0].evaluate(z, controls))
            close(again, moved)
            if density:
                close(same, change)


def test_the_exact_density_is_that_of_the_euler_map():
    matrix = 0.5 * torch.randn(3, 3)
    grid = FlowBank([LinearField(matrix)]).stack.on_grid(torch.arange(2.0), None, 1).unbind(2)
    z = torch.randn(5, 3)
    moved, change = GridStep(TABLEAUS["euler"], grid, 0, 0.5, None, "exact").advance(z)
    close(moved, z + 0.5 * z @ matrix.mT)
    close(change, torch.linalg.slogdet(torch.eye(3) + 0.5 * matrix).logabsdet.expand(5))


def step_of(bank, method, *, size=1.0, controls=None, density=None):
    selection = Selection(0, None) if controls is None else None
    grid = bank.stack.on_grid(torch.arange(3.0) / 2, None, 1, selection).unbind(3)
    return GridStep(TABLEAUS[method], grid, 0 if size > 0 else 2, size, controls, density)


def strong_bank(z, slope):
    """A bank whose Jacobian of field 0 has, at one of the points `z`, a singular value of `slope`, and none above it."""
    bank = FlowBank(2, 4, width=16, frequencies=0)
    with torch.no_grad():
        bank.stack.weight.mul_(2)
        factor = slope / torch.linalg.matrix_norm(bank[0].jacobian(0.0, z), 2).max()
        bank.stack.amplitude.mul_(factor)
        bank.stack.cross.mul_(factor)
    return bank


def steep_convex_bank(added):
    bank = FlowBank(2, 4, width=32, kind="potential", convex=True, frequencies=0)
    with torch.no_grad():
        bank.stack.amplitude.add_(added)
    return bank


@pytest.mark.parametrize("size", [0.7, -0.7])
@pytest.mark.parametrize("method", ORDERS)
def test_the_jacobian_of_a_step_is_that_of_autograd(method, size):
    step = step_of(small_bank(scale=1.0), method, size=size, controls=torch.randn(5, 2, 1))
    z = torch.randn(5, 3)
    moved, found = step.linearize(z)
    close(moved, step.advance(z)[0])
    close(found, jacobian(lambda y: step.advance(y)[0], z))


@pytest.mark.parametrize(("method", "slope"), [("midpoint", 0.9), ("midpoint", 1.3), ("rk4", 1.0), ("rk4", 1.5)])
def test_the_default_iterations_undo_a_strong_step_that_does_not_fold(method, slope):
    z = torch.randn(256, 4)
    bank = strong_bank(z, slope)
    assert 0 < torch.linalg.det(step_of(bank, method).linearize(z)[1]).min() < 0.7
    stepper = ODEStepper(bank, method)
    close(stepper(stepper(z, 0, steps=2).z[-1], 0, steps=2, reverse=True).z[-1], z)


@pytest.mark.parametrize("method", ["midpoint", "rk4"])
def test_a_contraction_is_undone(method):
    z = torch.randn(8, 3)
    stepper = ODEStepper(FlowBank([LinearField(-0.95 * torch.eye(3))]), method)
    close(stepper(stepper(z, 0, steps=1).z[-1], 0, steps=1, reverse=True).z[-1], z)


@pytest.mark.parametrize(("added", "iterations"), [(5, 12), (10, 25)])
def test_steps_of_a_convex_potential_are_undone_however_large(added, iterations):
    stepper, z = ODEStepper(steep_convex_bank(added), inverse_iterations=iterations), torch.randn(256, 4)
    close(stepper(stepper(z, 0, steps=1).z[-1], 0, steps=1, reverse=True).z[-1], z)


@pytest.mark.parametrize(("method", "slope"), [("euler", 1.6), ("midpoint", 2.3), ("rk4", 4.0)])
def test_no_iteration_leads_away_from_the_solution(method, slope):
    """Not even where steps fold space, and a full step of Newton's method may lead anywhere."""
    z = torch.randn(256, 4)
    step = step_of(strong_bank(z, slope), method)
    assert torch.linalg.det(step.linearize(z)[1]).min() < 0
    moved, errors = step.advance(z)[0], []
    for iterations in range(12):
        found = step.invert(moved, moved, iterations)[0]
        errors.append((step.advance(found)[0] - moved).norm(dim=-1))
    errors = torch.stack(errors)
    assert (errors[1:] <= errors[:-1] * (1 + 1e-12) + 1e-14).all()
    assert (errors[-1] < 1e-8).float().mean() > 0.5


def test_one_sample_in_trouble_does_not_hold_up_another():
    stepper, z = ODEStepper(steep_convex_bank(5), inverse_iterations=12), torch.randn(32, 4)
    end = stepper(z, 0, steps=1).z[-1]
    alone = torch.stack([stepper(x, 0, steps=1, reverse=True).z[-1] for x in end])
    close(stepper(end, 0, steps=1, reverse=True).z[-1], alone)


def test_a_point_where_the_jacobian_is_singular_is_no_error():
    class Cube(torch.nn.Module):
        def forward(self, t, z):
            return z**3 - z

    stepper, z = ODEStepper(FlowBank([Cube()]), inverse_iterations=20), torch.tensor([[0.0], [0.5], [-2.0]])
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            close(stepper(z, 0, steps=1, reverse=True).z[-1], z.sign() * z.abs() ** (1 / 3))


def test_a_good_step_is_undone_at_the_price_of_a_jacobian_and_a_velocity_an_iteration(monkeypatch):
    counts = collections.Counter()
    for name in ("velocity", "jacobian"):
        call = getattr(RidgeSnapshot, name)
        monkeypatch.setattr(RidgeSnapshot, name, lambda *a, n=name, f=call: (counts.update([n]), f(*a))[1])
    stepper, z = ODEStepper(FlowBank(2, 4), density=None, inverse_iterations=6), torch.randn(5, 4)
    with torch.no_grad():
        stepper(z, 0, steps=1, reverse=True)
    assert counts == {"jacobian": 6, "velocity": 7}
    counts.clear()
    stepper(z, 0, steps=1, reverse=True)
    assert counts == {"jacobian": 7, "velocity": 10}


class TestGradients:
    def reversed_path(self, method, **options):
        stepper = ODEStepper(small_bank(context_dim=1, frequencies=1, **options), method)
        given = torch.randn(2, 3), torch.randn(2, 2, 2), torch.randn(2, 1)

        def roll(z, weights, context, *parameters):
            path = stepper(z, weights, steps=2, context=context, reverse=True)
            return path.z[-1], path.log_det[-1]

        return roll, given, stepper

    @pytest.mark.parametrize("method", ORDERS)
    def test_derivatives_of_a_reversed_path_are_right(self, method):
        roll, given, stepper = self.reversed_path(method)
        inputs = [x.requires_grad_() for x in (*given, *stepper.bank.parameters())]
        assert torch.autograd.gradcheck(roll, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(roll, inputs, fast_mode=True)

    @pytest.mark.parametrize("method", ORDERS)
    def test_the_jacobian_of_the_way_back_inverts_that_of_the_way_there(self, method):
        roll, (z, weights, context), stepper = self.reversed_path(method)
        start = roll(z, weights, context)[0].detach()
        back = jacobian(lambda y: roll(y, weights, context)[0], z)
        there = jacobian(lambda y: stepper(y, weights, steps=2, context=context).z[-1], start)
        close(back @ there, torch.eye(3).expand(2, 3, 3))

    @pytest.mark.parametrize("method", ORDERS)
    def test_forward_mode_agrees_with_reverse_mode_with_and_without_a_graph(self, method):
        roll, (z, weights, context), _ = self.reversed_path(method)
        expected = torch.func.jacrev(lambda y: roll(y, weights, context)[0])(z)
        for enabled in (True, False):
            with torch.set_grad_enabled(enabled):
                close(torch.func.jacfwd(lambda y: roll(y, weights, context)[0])(z), expected)

    @pytest.mark.parametrize("method", ORDERS)
    def test_a_graph_changes_no_value(self, method):
        roll, given, _ = self.reversed_path(method)
        with torch.no_grad():
            expected = roll(*given)
        for actual, value in zip(roll(*given), expected, strict=True):
            close(actual.detach(), value, rtol=1e-12, atol=1e-13)

    def test_vmap_over_a_reversed_path_agrees_with_the_batch(self):
        roll, (z, weights, context), _ = self.reversed_path("midpoint")
        mapped = torch.func.vmap(roll, in_dims=(0, 1, 0))(z, weights, context)
        for actual, expected in zip(mapped, roll(z, weights, context), strict=True):
            close(actual, expected)


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
class TestCompile:
    def test_the_machine_code_of_a_step_knows_its_size(self):
        """PyTorch 2.13 compiles `torch.add(z, product, alpha=size)` as if `alpha` were 1."""
        step, z = step_of(small_bank(), "midpoint", size=0.5), torch.randn(5, 3)
        for call in (lambda y: step.advance(y)[0], step.linearize):
            close(torch.compile(call, fullgraph=True)(z), call(z))

    @pytest.mark.parametrize("method", ORDERS)
    def test_a_damped_inversion_is_one_graph_with_its_gradient(self, tracing_alone, method):
        stepper, z = ODEStepper(steep_convex_bank(5), method, inverse_iterations=8), torch.randn(8, 4)
        end = stepper(z, 0, steps=1).z[-1].detach().requires_grad_()

        def back(y):
            return stepper(y, 0, steps=1, reverse=True).z[-1]

        compiled = torch.compile(back, fullgraph=True)
        close(compiled(end), back(end))
        first, second = (torch.autograd.grad(call(end).square().sum(), end)[0] for call in (compiled, back))
        close(first, second)
