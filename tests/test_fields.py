import copy

import numpy as np
import ot
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import FIELDS, close, field_cases, gradient, hessian, jacobian, randomize, trace
from torch import nn

from torchflowfield import HelmholtzFlowField, PotentialFlowField, RotationalFlowField

KINDS = list(FIELDS)


@given(field_cases(["potential"]))
def test_the_velocity_of_a_potential_field_is_the_gradient_of_its_potential(case):
    def potential(z):
        return case.field.jet(case.t, z, case.context).potential

    jet = case.field.jet(case.t, case.z, case.context)
    close(jet.velocity, gradient(potential, case.z))
    close(jet.gradient, jet.velocity)
    close(jet.laplacian, trace(hessian(potential, case.z)))


@given(field_cases(["helmholtz"]))
def test_a_helmholtz_field_is_a_gradient_plus_a_rotation(case):
    jet = case.field.jet(case.t, case.z, case.context)
    parts = case.field.helmholtz(case.t, case.z, case.context)
    close(parts.gradient, gradient(lambda z: case.field.jet(case.t, z, case.context).potential, case.z))
    close(parts.gradient, jet.gradient)
    close(parts.gradient + parts.rotation, jet.velocity)
    rotation = jacobian(lambda z: case.field.helmholtz(case.t, z, case.context).rotation, case.z)
    close(trace(rotation), torch.zeros(case.z.shape[:-1]))


@given(field_cases(["potential", "helmholtz"]))
def test_the_time_derivative_is_that_of_the_potential(case):
    times = case.times().requires_grad_()
    potential = case.field.jet(times, case.z, case.context).potential
    expected = torch.autograd.grad(potential.sum(), times, allow_unused=True, materialize_grads=True)[0]
    close(case.field.jet(case.t, case.z, case.context).time_derivative, expected)


@given(field_cases())
def test_jacobian_divergence_and_jvp_are_those_of_the_velocity(case):
    expected = jacobian(lambda z: case.field(case.t, z, case.context), case.z)
    x = torch.randn_like(case.z)
    close(case.field.jacobian(case.t, case.z, case.context), expected)
    close(case.field.jvp(case.t, case.z, x, case.context), (expected @ x[..., None]).squeeze(-1))
    close(case.field.divergence(case.t, case.z, case.context), trace(expected))
    close(case.field.jet(case.t, case.z, case.context).laplacian, trace(expected))
    close(case.field.jet(case.t, case.z, case.context).velocity, case.field(case.t, case.z, case.context))


@pytest.mark.parametrize("narrow", [True, False], ids=["width below dim", "width from dim on"])
@given(field_cases(), st.sampled_from([1.0, -0.7, 0.25]))
def test_log_det_is_slogdet_of_the_euler_map(narrow, case, step):
    assume((case.field.ridge.weight.shape[1] < case.field.dim) == narrow)
    euler = jacobian(lambda z: z + step * case.field(case.t, z, case.context), case.z)
    sign, expected = torch.linalg.slogdet(euler)
    assume(bool((expected > -5).all()))
    close(case.field.log_det(case.t, case.z, step, case.context), expected)


def test_log_det_ignores_the_orientation():
    bowl = PotentialFlowField(1, 1, frequencies=0)
    with torch.no_grad():
        bowl.ridge.weight.fill_(1), bowl.ridge.bias.fill_(0), bowl.ridge.amplitude.fill_(-4)
    close(bowl.log_det(0.0, torch.zeros(1)), torch.tensor(3.0).log())


@given(field_cases(["potential"]))
def test_the_jacobian_of_a_potential_field_is_symmetric(case):
    matrix = jacobian(lambda z: case.field(case.t, z, case.context), case.z)
    close(matrix, matrix.mT)


@given(field_cases(["rotational"]), st.sampled_from([0.0, 1e-3, 1.0, 1e3]))
def test_the_divergence_of_a_rotational_field_is_zero_for_any_parameters(case, scale):
    with torch.no_grad():
        for parameter in case.field.parameters():
            parameter.mul_(scale)
    assert (case.field.divergence(case.t, case.z, case.context) == 0).all()
    assert (case.field.jet(case.t, case.z, case.context).laplacian == 0).all()
    matrix = jacobian(lambda z: case.field(case.t, z, case.context), case.z)
    ridge = case.field.ridge
    size = (ridge.weight.norm(dim=-1) * ridge.cross.norm(dim=-1)).sum() * case.z.shape[-1] ** -0.5
    assert (trace(matrix).abs() <= 1e-12 * max(1.0, size.item())).all()


@pytest.mark.parametrize("zeroed", ["weight", "cross"])
def test_a_rotational_field_with_zero_weights_has_finite_gradients_and_no_divergence(zeroed):
    field, z = randomize(RotationalFlowField(3, 4)), torch.randn(5, 3)
    with torch.no_grad():
        getattr(field.ridge, zeroed).zero_()
    assert trace(jacobian(lambda y: field(0.5, y), z)).abs().max() < 1e-12
    field(0.5, z).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in field.parameters())


def test_a_rotational_field_has_no_potential():
    jet = randomize(RotationalFlowField(3, 4)).jet(0.5, torch.randn(5, 3))
    for value in (jet.potential, jet.time_derivative, jet.gradient):
        assert (value == 0).all()
    assert (jet.velocity != 0).all()


@pytest.mark.parametrize("activation", ["logcosh", "softplus"])
def test_a_convex_potential_has_a_positive_hessian(activation):
    field = randomize(PotentialFlowField(4, 8, convex=True, activation=activation), scale=3.0)
    for t in (0.0, 3.0, torch.randn(32) * 10):
        eigenvalues = torch.linalg.eigvalsh(field.jacobian(t, torch.randn(32, 4)))
        assert eigenvalues.min() >= -1e-12


def test_the_step_of_a_convex_potential_is_injective_whatever_its_size():
    field, z = randomize(PotentialFlowField(3, 8, convex=True), scale=3.0), torch.randn(64, 3)
    moved = z + 5.0 * field(1.0, z)
    apart = (z[:, None] - z).square().sum(-1)
    assert (((moved[:, None] - moved) * (z[:, None] - z)).sum(-1) >= apart - 1e-9).all()


@pytest.mark.parametrize("convex", [True, False])
def test_only_the_step_of_a_convex_potential_is_the_optimal_transport_of_its_samples(convex):
    field, z = PotentialFlowField(2, 16, convex=convex, activation="softplus"), torch.randn(96, 2)
    randomize(field)
    moved = (z + 3.0 * field(1.0, z)).detach()
    weight = np.full(len(z), 1 / len(z))
    optimal = ot.emd2(weight, weight, ot.dist(z.numpy(), moved.numpy()))
    paired = (moved - z).square().sum(-1).mean().item()
    assert (paired == pytest.approx(optimal, rel=1e-9)) == convex
    assert paired >= optimal * (1 - 1e-9)


def _of_parameters(field, quantity):
    names = [name for name, _ in field.named_parameters()]

    def call(t, z, x, context, *parameters):
        class Quantity(nn.Module):
            def __init__(self):
                super().__init__()
                self.field = field

            def forward(self):
                if quantity == "jvp":
                    return self.field.jvp(t, z, x, context)
                if quantity == "log_det":
                    return self.field.log_det(t, z, 0.3, context)
                if quantity == "jet":
                    return tuple(y for y in self.field.jet(t, z, context) if y.requires_grad)
                return getattr(self.field, quantity)(t, z, context)

        state = {f"field.{n}": p for n, p in zip(names, parameters, strict=True)}
        return torch.func.functional_call(Quantity(), state, ())

    return call


@pytest.mark.parametrize("quantity", ["forward", "jet", "jvp", "jacobian", "log_det"])
@pytest.mark.parametrize("kind", KINDS)
def test_first_derivatives_in_everything_are_right(kind, quantity):
    field = randomize(FIELDS[kind](3, 2, frequencies=1, context_dim=1))
    inputs = (torch.rand(2), torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 1), *field.parameters())
    inputs = [x.detach().requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(_of_parameters(field, quantity), inputs, fast_mode=True)


@pytest.mark.parametrize("activation", ["logcosh", "cos", "softplus"])
@pytest.mark.parametrize("quantity", ["forward", "jet"])
def test_second_derivatives_in_everything_are_right(activation, quantity):
    field = randomize(HelmholtzFlowField(3, 2, activation=activation, frequencies=1, context_dim=1))
    inputs = (torch.rand(2), torch.randn(2, 3), torch.randn(2, 3), torch.randn(2, 1), *field.parameters())
    inputs = [x.detach().requires_grad_() for x in inputs]
    assert torch.autograd.gradgradcheck(_of_parameters(field, quantity), inputs, fast_mode=True)


@pytest.mark.parametrize(("kind", "options"), [*((kind, {}) for kind in KINDS), ("potential", {"convex": True})])
@pytest.mark.parametrize("frequencies", [0, 3])
def test_no_parameter_is_dead(kind, options, frequencies):
    field = FIELDS[kind](3, 5, frequencies=frequencies, context_dim=2, **options)
    velocity = field(torch.rand(7), torch.randn(7, 3), torch.randn(7, 2))
    (velocity * torch.randn(7, 3)).sum().backward()
    for name, parameter in field.named_parameters():
        assert (parameter.grad != 0).all(), name


@pytest.mark.parametrize("kind", KINDS)
def test_scalar_times_and_equal_times_per_sample_agree(kind):
    field, z = randomize(FIELDS[kind](3, 4)), torch.randn(2, 5, 3)
    for t in (2, torch.tensor(2.0), torch.full((2, 5), 2.0)):
        close(field(t, z), field(2.0, z))


@pytest.mark.parametrize("kind", KINDS)
def test_autonomous_fields_do_not_change(kind):
    field, z = randomize(FIELDS[kind](3, 4, frequencies=0)), torch.randn(5, 3)
    close(field(0.0, z), field(7.0, z), rtol=0, atol=0)
    assert (field.jet(7.0, z).time_derivative == 0).all()
    assert not torch.equal(randomize(FIELDS[kind](3, 4))(0.0, z), field(7.0, z))


@pytest.mark.parametrize("kind", KINDS)
def test_fields_work_in_float32_as_in_float64(kind):
    field, z = randomize(FIELDS[kind](4, 8)), torch.randn(6, 4)
    exact = field.jet(1.5, z)
    single = copy.deepcopy(field).float().jet(1.5, z.float())
    for coarse, fine in zip(single, exact, strict=True):
        assert coarse.dtype == torch.float32
        close(coarse.double(), fine, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_work_under_vmap_and_inference_mode(kind):
    field, t, z = randomize(FIELDS[kind](3, 4)), torch.rand(5), torch.randn(5, 3)
    for actual, expected in zip(torch.func.vmap(field.jet)(t, z), field.jet(t, z), strict=True):
        close(actual, expected)
    with torch.inference_mode():
        close(field.jet(t, z).laplacian, field.jet(t, z.clone()).laplacian)


def test_nested_forward_mode_gives_the_laplacian():
    field, t, z = randomize(PotentialFlowField(3, 4)), torch.tensor(0.3), torch.randn(3)

    def potential(z):
        return field.jet(t, z).potential

    close(torch.func.jacfwd(torch.func.jacfwd(potential))(z).trace(), field.jet(t, z).laplacian)


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
def test_derivatives_under_vmap_compile(tracing_alone):
    field, t, z = randomize(PotentialFlowField(3, 4)), torch.tensor(0.3), torch.randn(5, 3)

    def potential(z):
        return field.jet(t, z).potential

    gradient = torch.func.vmap(torch.func.grad(potential))
    close(torch.compile(gradient, fullgraph=True)(z), field.jet(t, z).velocity)


def test_fields_show_their_sizes():
    assert "dim=3, width=4, activation='cos'" in repr(PotentialFlowField(3, 4, activation="cos"))


def test_fields_survive_a_round_trip_of_their_state(tmp_path):
    field, z = randomize(HelmholtzFlowField(3, 4)), torch.randn(5, 3)
    torch.save(field.state_dict(), tmp_path / "field.pt")
    other = HelmholtzFlowField(3, 4)
    other.load_state_dict(torch.load(tmp_path / "field.pt", weights_only=True))
    close(other(1.0, z), field(1.0, z), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
class TestErrors:
    def test_a_latent_vector_of_another_size(self, kind):
        with pytest.raises(ValueError, match=r"FlowField: expected z of shape \(\*, 3\), got \(5, 4\).*dim=4"):
            FIELDS[kind](3, 4)(0.0, torch.randn(5, 4))

    def test_a_latent_number(self, kind, without_hook):
        with pytest.raises(ValueError, match=r"expected z of shape \(\*, 3\), got \(\)"):
            FIELDS[kind](3, 4)(0.0, torch.tensor(1.0))

    def test_an_integer_latent_vector(self, kind, without_hook):
        with pytest.raises(TypeError, match=r"expected a floating-point tensor z, got torch.int64.*z.float\(\)"):
            FIELDS[kind](3, 4)(0.0, torch.ones(5, 3, dtype=torch.long))

    def test_a_list_of_numbers(self, kind, without_hook):
        with pytest.raises(TypeError, match="expected a floating-point tensor z, got list"):
            FIELDS[kind](3, 4)(0.0, [1.0, 2.0, 3.0])

    def test_a_latent_vector_of_another_dtype(self, kind):
        with pytest.raises(TypeError, match=r"expected z of dtype torch.float64, as the parameters, got torch.float32"):
            FIELDS[kind](3, 4)(0.0, torch.randn(5, 3, dtype=torch.float32))

    def test_a_latent_vector_on_another_device(self, kind):
        with pytest.raises(ValueError, match="expected z on cpu, where the parameters are, got meta"):
            FIELDS[kind](3, 4)(0.0, torch.randn(5, 3, device="meta"))

    def test_times_of_another_batch(self, kind, without_hook):
        message = r"expected t to be a number or one time per sample of shape \(5,\), got \(4,\)"
        with pytest.raises(ValueError, match=message):
            FIELDS[kind](3, 4)(torch.zeros(4), torch.randn(5, 3))

    def test_a_missing_context(self, kind):
        with pytest.raises(ValueError, match="expected a context"):
            FIELDS[kind](3, 4, context_dim=2)(0.0, torch.randn(5, 3))


def test_rotations_need_two_axes():
    for field in (RotationalFlowField, HelmholtzFlowField):
        with pytest.raises(ValueError, match="at least two axes"):
            field(1)
