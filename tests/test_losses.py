import math

import pytest
import torch
from reference import LinearField, close, randomize
from torch import nn

from torchflowfield import (
    AutogradPotential,
    DiffusionPrior,
    DynamicOTLoss,
    FlowBank,
    Forcing,
    ODEStepper,
    PathKL,
    PotentialFlowField,
    RotationalFlowField,
)


class Spreading(nn.Module):
    """u = |z - m|^2 / (2 (t + c)), which solves the free Hamilton–Jacobi equation."""

    def __init__(self, center, delay):
        super().__init__()
        self.center, self.delay = nn.Parameter(center), delay

    def forward(self, t, z):
        return (z - self.center).square().sum(-1) / (2 * (t + self.delay))


def spreading_bank(delays=(1.5,), dim=3):
    return FlowBank([AutogradPotential(Spreading(torch.randn(dim), delay)) for delay in delays])


def random_path(weights, steps=3, *, kind="helmholtz", batch=5, fields=3, **options):
    bank = randomize(FlowBank(fields, 4, width=6, kind=kind), 0.5)
    return ODEStepper(bank)(torch.randn(batch, 4), weights, steps=steps, **options)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_the_known_solution_has_no_residual(method):
    path = ODEStepper(spreading_bank((1.5, 4.0)), method)(torch.randn(5, 3), torch.tensor([0.5, 1.0]), steps=4)
    close(DynamicOTLoss().residual(path), torch.zeros(4, 5, 2), rtol=0, atol=1e-12)
    terms = DynamicOTLoss()(path)
    assert terms.residual < 1e-20
    assert path.gradient_norm2.min() > 0


def test_the_particles_of_the_known_solution_move_in_straight_lines():
    bank, z = spreading_bank((1.5,)), torch.randn(5, 3)
    path = ODEStepper(bank)(z, 0, steps=4)
    center = bank.stack.fields[0].network.center
    for n in range(5):
        close(path.z[n], center + (z - center) * (1.5 + n) / 1.5)


def test_the_negative_of_the_known_solution_has_a_residual():
    class Negative(Spreading):
        def forward(self, t, z):
            return -super().forward(t, z)

    bank = FlowBank([AutogradPotential(Negative(torch.randn(3), 3.0))])
    assert DynamicOTLoss()(ODEStepper(bank)(torch.randn(5, 3), 0, steps=2)).residual > 1e-3


def test_the_residual_is_per_step_sample_and_field():
    path = random_path(torch.ones(3))
    residual = DynamicOTLoss().residual(path)
    assert residual.shape == (3, 5, 3)
    close(residual, path.time_derivative + 0.5 * path.gradient_norm2)
    close(DynamicOTLoss()(path).residual, residual.square().mean())


def test_the_residual_of_a_sample_does_not_depend_on_its_batch():
    bank, z = randomize(FlowBank(2, 4, width=6), 0.5), torch.randn(5, 4)
    together = DynamicOTLoss().residual(ODEStepper(bank)(z, torch.ones(2), steps=2))
    alone = DynamicOTLoss().residual(ODEStepper(bank)(z[3:4], torch.ones(2), steps=2))
    close(together[:, 3:4], alone)


def test_the_loss_does_not_vanish_where_residuals_cancel_over_the_batch():
    path = random_path(0)
    rate = -0.5 * path.gradient_norm2
    rate[:, 0], rate[:, 1] = rate[:, 0] + 1, rate[:, 1] - 1
    assert DynamicOTLoss()(path._replace(time_derivative=rate)).residual.item() == pytest.approx(2 / 5)


def test_the_active_fields_are_those_with_a_weight():
    g = torch.zeros(3, 5, 3)
    g[0, :, 0], g[1, 2, 1] = 1.0, -0.5
    path = random_path(g)
    squares = DynamicOTLoss().residual(path).square()
    terms = DynamicOTLoss()(path)
    close(terms.residual, torch.cat((squares[0, :, 0], squares[1, 2, 1:2])).mean())
    close(terms.initial, torch.cat((path.initial_norm2[:, 0], path.initial_norm2[2, 1:2])).mean())
    every = DynamicOTLoss(fields="all")(path)
    close(every.residual, squares.mean())
    close(every.initial, path.initial_norm2.mean())


def test_a_path_with_no_active_field_costs_nothing():
    terms = DynamicOTLoss(initial_weight=1.0, kinetic_weight=1.0)(random_path(torch.zeros(3)))
    assert terms.total == 0


def test_the_initial_condition_takes_in_every_field_that_is_used():
    bank = randomize(FlowBank(3, 4, width=6), 0.5)
    path = ODEStepper(bank)(torch.randn(5, 4), torch.tensor([1.0, 0.0, 0.5]), steps=2)
    DynamicOTLoss()(path).initial.backward()
    used = bank.stack.amplitude.grad.abs().sum(1) > 0
    assert used.tolist() == [True, False, True]
    gradient = bank.jet(0.0, path.z[0]).gradient
    close(DynamicOTLoss()(path).initial, gradient[:, [0, 2]].square().sum(-1).mean())


def test_the_initial_condition_is_at_time_zero_whatever_the_start():
    bank, z = randomize(FlowBank(1, 4, width=6), 0.5), torch.randn(5, 4)
    path = ODEStepper(bank)(z, 0, steps=2, start=3.0)
    close(path.initial_norm2[:, 0], bank.jet(0.0, z).gradient[:, 0].square().sum(-1))


def test_the_kinetic_energy_is_that_of_the_mixture_summed_over_axes():
    bank, z, g = randomize(FlowBank(2, 4, width=6), 0.5), torch.randn(5, 4), torch.tensor([1.0, -2.0])
    path = ODEStepper(bank)(z, g, steps=3)
    energy = torch.stack([0.5 * bank(float(n), path.z[n], g).square().sum(-1) for n in range(3)])
    close(path.kinetic, energy)
    close(DynamicOTLoss()(path).kinetic, energy.mean())


def test_the_total_is_the_weighted_sum_of_its_parts():
    path = random_path(torch.ones(3))
    terms = DynamicOTLoss(residual_weight=0.5, initial_weight=2.0, kinetic_weight=3.0)(path)
    close(terms.total, 0.5 * terms.residual + 2 * terms.initial + 3 * terms.kinetic)
    assert min(terms.residual, terms.initial, terms.kinetic) > 0
    assert DynamicOTLoss(residual_weight=0.0)(path).total == 0


@pytest.mark.parametrize("kind", ["potential", "helmholtz"])
def test_the_loss_trains_the_potential_and_reaches_z(kind):
    bank, z = randomize(FlowBank(2, 4, width=6, kind=kind), 0.5), torch.randn(5, 4, requires_grad=True)
    path = ODEStepper(bank)(z, torch.ones(2), steps=3)
    DynamicOTLoss(initial_weight=1.0, kinetic_weight=1.0)(path).total.backward()
    for name, parameter in bank.named_parameters():
        assert (parameter.grad != 0).all(), name
    assert (z.grad != 0).all()


def test_rotations_are_of_no_concern_to_the_residual():
    path = random_path(torch.ones(3), kind="rotational")
    terms = DynamicOTLoss()(path)
    assert (terms.residual, terms.initial) == (0, 0)
    assert terms.kinetic > 0


def test_the_forcing_is_never_positive_and_has_one_value_per_field():
    forcing = randomize(Forcing(4, 3))
    f = forcing(torch.rand(6, 1), torch.randn(6, 5, 4))
    assert f.shape == (6, 5, 3)
    assert (f <= 0).all()
    assert f.min() < 0


def test_the_forcing_depends_on_time_and_place():
    forcing, z = randomize(Forcing(4, 3)), torch.randn(5, 4)
    assert not torch.equal(forcing(torch.tensor(0.0), z), forcing(torch.tensor(1.0), z))
    assert not torch.equal(forcing(torch.tensor(0.0), z), forcing(torch.tensor(0.0), z + 1))


@pytest.mark.parametrize("weights", [1, torch.ones(3)])
def test_the_forcing_is_subtracted_from_the_residual(weights):
    path, forcing = random_path(weights), randomize(Forcing(4, 3))
    expected = torch.stack([forcing(path.t[n], path.z[n]) for n in range(3)])
    if isinstance(weights, int):
        expected = expected[..., weights : weights + 1]
    close(DynamicOTLoss(forcing=forcing).residual(path), DynamicOTLoss().residual(path) - expected)


def test_the_forcing_is_trained_by_the_loss():
    loss = DynamicOTLoss(forcing=Forcing(4, 3))
    loss(random_path(torch.ones(3))).total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in loss.parameters())


@pytest.mark.parametrize("batch", [(), (2, 5)])
def test_the_loss_takes_any_batch_shape(batch):
    bank = randomize(FlowBank(2, 4, width=6), 0.5)
    path = ODEStepper(bank)(torch.randn(*batch, 4), torch.ones(2), steps=3)
    loss = DynamicOTLoss(forcing=Forcing(4, 2))
    assert loss.residual(path).shape == (3, *batch, 2)
    assert loss(path).total.shape == ()


def test_the_residual_of_a_reversed_path_is_taken_where_its_steps_start():
    bank, z = randomize(FlowBank(2, 4, width=6), 0.5), torch.randn(5, 4)
    path = ODEStepper(bank)(z, torch.ones(2), steps=3, reverse=True)
    jet = bank.jet(2.0, path.z[1])
    close(DynamicOTLoss().residual(path)[1], jet.time_derivative + 0.5 * jet.gradient.square().sum(-1))


def test_a_path_that_was_not_recorded_is_an_error():
    with pytest.raises(ValueError, match="expected a recorded path. Call the stepper with record=True"):
        DynamicOTLoss()(random_path(0, record=False))


def test_a_path_of_no_steps_is_an_error():
    with pytest.raises(ValueError, match="expected a path of at least one step, got none"):
        DynamicOTLoss()(random_path(0, steps=0))


def test_an_unknown_choice_of_fields_is_an_error():
    with pytest.raises(ValueError, match="expected fields to be one of 'active', 'all', got 'some'"):
        DynamicOTLoss(fields="some")


@pytest.mark.parametrize("name", ["residual_weight", "initial_weight", "kinetic_weight"])
def test_a_negative_weight_is_an_error(name):
    with pytest.raises(ValueError, match=r"expected weights ≥ 0, got .*-1"):
        DynamicOTLoss(**{name: -1.0})


def gaussian_log_prob(z, variance):
    dim = z.shape[-1]
    return -0.5 * (z.square().sum(-1) / variance + dim * math.log(2 * math.pi * variance))


class HeatFlow(nn.Module):
    """The potential flow v = -D grad log p of the heat equation from N(0, I)."""

    def __init__(self, diffusion):
        super().__init__()
        self.diffusion = diffusion

    def forward(self, t, z):
        return self.diffusion * z / (1 + 2 * self.diffusion * t)


@pytest.mark.parametrize("mode", ["marginal", "transition"])
def test_the_divergence_is_zero_where_the_posterior_follows_the_prior(mode):
    diffusion, z = 0.3, torch.randn(64, 4)
    path = ODEStepper(FlowBank([HeatFlow(diffusion)]), "rk4", substeps=16)(z, 0, steps=5)
    loss = PathKL(DiffusionPrior(1, diffusion=diffusion), mode=mode)
    terms = loss(path, gaussian_log_prob(z, 1.0))
    close(terms.per_frame, torch.zeros(6, 64), rtol=0, atol=1e-7)
    close(terms.total, torch.tensor(0.0), rtol=0, atol=1e-6)


def gaussian_case(samples=10_000):
    """N(0, 0.25 I) carried by v = a z, against the prior N(0, 1 + 2 D t); the true divergence of every frame."""
    dim, rate, diffusion, steps = 3, 0.2, 0.1, 4
    z = 0.5 * torch.randn(samples, dim)
    path = ODEStepper(FlowBank([LinearField(rate * torch.eye(dim))]), "rk4", substeps=4)(z, 0, steps=steps)
    t = torch.arange(steps + 1.0)
    ratio = 0.25 * torch.exp(2 * rate * t) / (1 + 2 * diffusion * t)
    true = 0.5 * dim * (ratio - 1 - ratio.log())
    return path, gaussian_log_prob(z, 0.25), DiffusionPrior(1, diffusion=diffusion), true


def test_the_divergence_of_gaussians_is_the_closed_form_with_its_sign():
    path, log_prob0, prior, true = gaussian_case()
    terms = PathKL(prior)(path, log_prob0)
    error = terms.per_frame.std(1) / math.sqrt(terms.per_frame.shape[1])
    assert true.min() > 0.05
    assert ((terms.per_frame.mean(1) - true).abs() < 5 * error).all()
    close(terms.total, terms.per_frame[1:].sum(0).mean())


def test_the_transition_mode_pays_for_what_the_path_adds():
    path, log_prob0, prior, _ = gaussian_case(100)
    terms = PathKL(prior, mode="transition")(path, log_prob0)
    close(terms.total, (terms.per_frame[-1] - terms.per_frame[0]).mean())


def test_the_divergence_trains_the_field_and_the_prior():
    bank = randomize(FlowBank(1, 4, width=6), 0.5)
    path = ODEStepper(bank)(torch.randn(8, 4), 0, steps=3)
    loss = PathKL(DiffusionPrior(1))
    loss(path, gaussian_log_prob(path.z[0], 1.0)).total.backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in (*bank.parameters(), *loss.parameters()))


def test_a_path_without_density_is_an_error():
    path = ODEStepper(FlowBank(1, 4), density=None)(torch.randn(8, 4), 0, steps=3)
    with pytest.raises(ValueError, match="this path carries no density. Make it by ODEStepper"):
        PathKL(DiffusionPrior(1))(path, torch.zeros(8))


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="expected mode to be one of 'marginal', 'transition', got 'sum'"):
        PathKL(DiffusionPrior(1), mode="sum")


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("weights", [1, torch.tensor([1.0, 0.5])])
def test_a_forcing_for_another_number_of_fields_is_refused(outputs, weights):
    path = ODEStepper(FlowBank(2, 4))(torch.randn(5, 4), weights, 3)
    with pytest.raises(ValueError, match=r"one number per field, shape \(3, 5, 2\)"):
        DynamicOTLoss(forcing=Forcing(4, outputs))(path)


def test_a_forcing_without_an_axis_for_the_fields_is_refused():
    class Scalar(nn.Module):
        def forward(self, t, z):
            return -z.square().sum(-1)

    path = ODEStepper(FlowBank(3, 4))(torch.randn(3, 4), torch.ones(3), 2)
    with pytest.raises(ValueError, match="one number per field"):
        DynamicOTLoss(forcing=Scalar())(path)


@pytest.mark.parametrize("control", [1, 3])
def test_under_double_control_a_forcing_has_an_output_per_field(control):
    path = ODEStepper(FlowBank(2, 4, control="double"))(torch.randn(5, 4), control, 3)
    forcing = Forcing(4, 2)
    residual = path.time_derivative + 0.5 * path.gradient_norm2
    given = forcing(path.t[:-1, None], path.z[:-1])
    close(DynamicOTLoss(forcing=forcing).residual(path), residual - given[..., 1:2])


def test_fields_without_a_potential_do_not_count():
    class Still(nn.Module):
        def forward(self, t, z):
            return 0 * z

    field, z = PotentialFlowField(4), torch.randn(5, 4)
    alone = DynamicOTLoss()(ODEStepper(FlowBank([field]))(z, torch.ones(1), 3))
    beside = DynamicOTLoss()(ODEStepper(FlowBank([Still(), field]))(z, torch.ones(2), 3))
    close(beside.residual, alone.residual)
    for bank in (FlowBank(2, 4, kind="rotational"), FlowBank([Still(), RotationalFlowField(4)])):
        path = ODEStepper(bank)(z, torch.ones(2), 3)
        assert not path.active.any()
        assert DynamicOTLoss(forcing=Forcing(4, 2))(path).residual == 0


def test_in_half_precision_many_samples_are_counted_too():
    path = ODEStepper(FlowBank(2, 4), density=None)(torch.randn(20_000, 4), torch.ones(2), steps=4)
    half = path._replace(**{name: x.half() for name, x in path._asdict().items() if isinstance(x, torch.Tensor)})
    close(DynamicOTLoss()(half).residual.double(), DynamicOTLoss()(path).residual, rtol=0.05, atol=0)


@pytest.mark.parametrize("axes", [(0, -1), (), None])
def test_a_prior_that_sums_over_other_axes_is_an_error(axes):
    class Prior(nn.Module):
        def forward(self, path):
            return path.z.sum() if axes is None else path.z.sum(axes) if axes else path.z

    path = ODEStepper(FlowBank(2, 4))(torch.randn(5, 4), 0, steps=3)
    with pytest.raises(ValueError, match=r"PathKL: expected Prior to return one log-density per frame and sample"):
        PathKL(Prior())(path, torch.zeros(5))


@pytest.mark.parametrize("loss", [DynamicOTLoss(), lambda z: PathKL(DiffusionPrior(2))(z, torch.zeros(5))])
def test_codes_in_place_of_a_path_are_refused(loss, without_hook):
    with pytest.raises(TypeError, match="expected the path that an ODEStepper returns, got Tensor"):
        loss(torch.randn(3, 5, 4))


@pytest.mark.parametrize("size", ["dim", "K", "width"])
def test_a_forcing_of_no_size_is_refused(size, without_hook):
    for value in (0, 2.5):
        with pytest.raises(
            ValueError, match=f"Forcing: expected {size} to be a whole number of at least 1, got {value}"
        ):
            Forcing(**{"dim": 4, "K": 3, size: value})
