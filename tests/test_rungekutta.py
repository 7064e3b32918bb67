import math

import pytest
import torch
from reference import LinearField, close, randomize

from torchflowfield import FlowBank, ODEStepper
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
