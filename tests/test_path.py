"""What a path records, its density, and its pieces."""

import math

import pytest
import torch
from hypothesis import given
from reference import LinearField, close, rollouts, small_bank

from torchflowfield import FlowBank, FlowPath, ODEStepper
from torchflowfield.path import join_paths


def schedule_of(weights, bank, z, steps):
    if isinstance(weights, int):
        weights = torch.eye(bank.num_controls)[weights]
    return weights.expand(steps, *z.shape[:-1], bank.num_controls)


@given(rollouts())
def test_what_a_path_records_is_the_jet_of_the_bank(case):
    bank, z, weights, steps, context = case
    path = ODEStepper(bank, "midpoint")(z, weights, steps, context=context, start=0.5)
    field = None if not isinstance(weights, int) else weights % bank.K
    chosen = slice(None) if field is None else slice(field, field + 1)
    assert path.field == field
    rotation_alone = isinstance(weights, int) and weights >= bank.K
    for n in range(steps):
        jet = bank.jet(0.5 + n, path.z[n], context)
        scale = 0 if rotation_alone else 1
        close(path.time_derivative[n], scale * jet.time_derivative[..., chosen])
        close(path.gradient_norm2[n], scale * jet.gradient.square().sum(-1)[..., chosen])
    origin = bank.jet(0.0, path.z[0], context).gradient.square().sum(-1)[..., chosen]
    close(path.initial_norm2, 0 * origin if rotation_alone else origin)
    g = schedule_of(weights, bank, z, steps)
    close(path.weights, g)
    known = torch.tensor(bank.stack.potentials)
    close(path.active, ((g[..., : bank.K] != 0) & known).to(z)[..., chosen])


@given(rollouts())
def test_a_path_has_the_shapes_it_documents(case):
    bank, z, weights, steps, context = case
    path = ODEStepper(bank)(z, weights, steps, context=context)
    batch, fields = z.shape[:-1], 1 if isinstance(weights, int) else bank.K
    assert isinstance(path, FlowPath)
    close(path.t, torch.arange(steps + 1.0))
    assert path.z.shape == (steps + 1, *batch, 3)
    assert path.log_det.shape == (steps + 1, *batch)
    assert path.weights.shape == (steps, *batch, bank.num_controls)
    assert path.active.dtype == z.dtype
    assert path.active.shape == path.time_derivative.shape == path.gradient_norm2.shape == (steps, *batch, fields)
    assert path.initial_norm2.shape == (*batch, fields)
    assert path.kinetic.shape == (steps, *batch)


def test_the_log_density_falls_where_the_volume_grows():
    path = ODEStepper(FlowBank([LinearField(torch.eye(2))]), "rk4")(torch.randn(5, 2), 0, steps=2)
    log_prob0 = torch.randn(5)
    close(path.log_prob(log_prob0), log_prob0 - 2 * torch.arange(3.0)[:, None])


def test_a_path_without_a_density_says_how_to_get_one():
    path = ODEStepper(small_bank(), density=None)(torch.randn(5, 3), 0, steps=1)
    with pytest.raises(ValueError, match=r"FlowPath: this path carries no density.*density='trace' or 'exact'"):
        path.log_prob(torch.zeros(5))


@pytest.mark.parametrize("density", ["trace", "exact"])
def test_the_density_of_a_moved_normal_distribution_is_normal(density):
    # z goes to (I + A)² z where the map is Euler's, and to exp(2A) z in continuous time.
    matrix, z = 0.3 * torch.randn(3, 3), torch.randn(5, 3)
    options = {"method": "rk4", "substeps": 32} if density == "trace" else {}
    path = ODEStepper(FlowBank([LinearField(matrix)]), density=density, **options)(z, 0, steps=2)
    step = torch.linalg.matrix_exp(matrix) if density == "trace" else torch.eye(3) + matrix
    whole = step @ step
    start = torch.distributions.MultivariateNormal(torch.zeros(3), torch.eye(3))
    end = torch.distributions.MultivariateNormal(torch.zeros(3), whole @ whole.mT)
    close(path.log_prob(start.log_prob(z))[-1], end.log_prob(path.z[-1]), rtol=1e-6, atol=1e-6)


def grown(rate, steps):
    """A path of v = rate · z from a vector of length 1, whose energy at frame t is ½ rate² exp(2 rate t)."""
    stepper = ODEStepper(FlowBank([LinearField(rate * torch.eye(2))]), "rk4", substeps=32)
    return stepper(torch.tensor([[0.6, 0.8]]), 0, steps=steps)


def test_the_kinetic_energy_is_that_at_the_start_of_every_step():
    frames = torch.arange(4.0)[:, None]
    close(grown(0.5, 4).kinetic, 0.125 * frames.exp(), rtol=1e-7, atol=0)


def test_the_sum_of_the_kinetic_energy_is_a_left_endpoint_rule():
    # Per unit of time: a path of n steps over the same way has a rate of 1/n, and energies n² times as large.
    energies = [n * grown(1 / n, n).kinetic.sum().item() for n in (8, 16)]
    missing = [(math.exp(2) - 1) / 4 - energy for energy in energies]
    assert 0 < missing[1] < missing[0]
    assert missing[0] / missing[1] == pytest.approx(2, abs=0.1)


def test_a_reversed_path_takes_its_energy_where_each_step_back_begins():
    stepper, z = ODEStepper(small_bank(), inverse_iterations=60), torch.randn(5, 3)
    path = stepper(z, 0, steps=3, reverse=True)
    for n, t in enumerate((3.0, 2.0, 1.0)):
        close(path.kinetic[n], 0.5 * stepper.bank(t, path.z[n], 0).square().sum(-1))


@pytest.mark.parametrize("options", [{}, {"density": None}, {"density": "exact"}])
@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("reverse", [False, True])
def test_pieces_join_to_the_whole_path(options, record, reverse):
    stepper, z, g = ODEStepper(small_bank(), **options), torch.randn(5, 3), 0.5 * torch.randn(6, 5, 2)
    whole = stepper(z, g, steps=6, reverse=reverse, record=record)
    paths, now = [], z
    for acting in [slice(3, 6), slice(1, 3), slice(0, 1)] if reverse else [slice(0, 3), slice(3, 5), slice(5, 6)]:
        steps = acting.stop - acting.start
        path = stepper(now, g[acting], steps, start=float(acting.start), reverse=reverse, record=record)
        paths, now = [*paths, path], path.z[-1]
    joined = join_paths(paths, reverse)
    for name, value in whole._asdict().items():
        if isinstance(value, torch.Tensor):
            close(getattr(joined, name), value)
        else:
            assert getattr(joined, name) == value, name


def test_a_single_piece_is_the_path_itself():
    path = ODEStepper(small_bank())(torch.randn(5, 3), 1, steps=2)
    assert join_paths([path], reverse=False) is path


@pytest.mark.parametrize("shape", [(), (4, 4), (5,)])
def test_a_first_density_that_is_not_one_per_sample_is_refused(shape):
    path = ODEStepper(FlowBank(2, 4))(torch.randn(4, 4), 0, 3)
    with pytest.raises(ValueError, match=r"shape \(4,\)"):
        path.log_prob(torch.zeros(shape))
