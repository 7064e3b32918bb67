import copy
import pickle

import pytest
import torch
import torchdiffeq
from hypothesis import given
from hypothesis import strategies as st
from reference import KINDS, LinearField, close, compiled_graphs, jacobian, randomize, rollouts, small_bank

from torchflowfield import DynamicOTLoss, FlowBank, HelmholtzFlowField, ODEStepper, PotentialFlowField, layout

METHODS = ["euler", "midpoint", "rk4"]


def per_step(weights, n, z):
    """The weights that act in step n, in a form that a bank takes."""
    if isinstance(weights, int) or weights.ndim <= z.ndim:
        return weights
    return weights[n]


@given(rollouts())
def test_an_euler_path_is_a_loop_over_the_bank(case):
    bank, z, weights, steps, context = case
    path = ODEStepper(bank)(z, weights, steps, context=context)
    log_det = torch.zeros(z.shape[:-1])
    for n in range(steps):
        bound = bank.bind(per_step(weights, n, z))
        close(path.z[n], z)
        close(path.log_det[n], log_det)
        close(path.kinetic[n], 0.5 * bound(n, z, context).square().sum(-1))
        log_det = log_det + bound.divergence(n, z, context)
        z = z + bound(n, z, context)
    close(path.z[-1], z)
    close(path.log_det[-1], log_det)


@given(rollouts(), st.sampled_from(METHODS), st.integers(1, 3), st.sampled_from(["trace", None]))
def test_forward_and_reverse_return_to_the_start(case, method, substeps, density):
    bank, z, weights, steps, context = case
    stepper = ODEStepper(bank, method, substeps=substeps, density=density, inverse_iterations=60)
    with torch.no_grad():
        bank.stack.weight.mul_(0.5)
        scale = 1.0 if isinstance(weights, int) else 0.3
    weights = weights if isinstance(weights, int) else scale * weights
    there = stepper(z, weights, steps, context=context, start=0.25)
    back = stepper(there.z[-1], weights, steps, context=context, start=0.25, reverse=True)
    close(back.z, there.z.flip(0), rtol=1e-8, atol=1e-8)
    close(back.t, there.t.flip(0))
    close(back.weights, there.weights.flip(0))
    close(back.active, there.active.flip(0))
    if density:
        close(back.log_det[-1], -there.log_det[-1], rtol=1e-8, atol=1e-8)
    else:
        assert there.log_det is None


def test_the_default_number_of_iterations_inverts_a_new_bank():
    stepper, z = ODEStepper(FlowBank(3, 8)), torch.randn(16, 8)
    there = stepper(z, 0, steps=8)
    close(stepper(there.z[-1], 0, steps=8, reverse=True).z[-1], z, rtol=0, atol=1e-6)


def test_a_rotation_too_quick_for_a_fixed_point_iteration_is_undone():
    bank = FlowBank(1, 4, kind="rotational", frequencies=0)
    with torch.no_grad():
        # Nearly linear, so that the quick rotation does not fold space.
        for parameter, factor in ((bank.stack.weight, 0.1), (bank.stack.bias, 0.1), (bank.stack.cross, 400)):
            parameter.mul_(factor)
    z = torch.randn(32, 4)
    assert torch.linalg.matrix_norm(bank[0].jacobian(0.0, z), 2).max() > 1.2
    stepper = ODEStepper(bank, inverse_iterations=20)
    there = stepper(z, 0, steps=3)
    close(stepper(there.z[-1], 0, steps=3, reverse=True).z[-1], z, rtol=0, atol=1e-9)


def test_reverse_with_the_exact_density_undoes_it():
    stepper = ODEStepper(small_bank(scale=0.3), density="exact", inverse_iterations=200)
    z, g = torch.randn(5, 3), 0.5 * torch.randn(3, 5, 2)
    there = stepper(z, g, steps=3)
    back = stepper(there.z[-1], g, steps=3, reverse=True)
    close(back.z[-1], z)
    close(back.log_det[-1], -there.log_det[-1])


@pytest.mark.parametrize("method", METHODS)
def test_reverse_without_iterations_is_torchdiffeq_backwards(method):
    bank, z, g = small_bank(), torch.randn(5, 3), torch.randn(5, 2)
    path = ODEStepper(bank, method, inverse_iterations=0)(z, g, steps=4, reverse=True)
    name = "rk4" if method == "rk4" else method
    options = {"method": name}
    if method == "rk4":
        fixed = [z]
        for n in (4, 3, 2, 1):
            fixed.append(_rk4(bank.bind(g), float(n), fixed[-1], -1.0))
        close(path.z, torch.stack(fixed))
    else:
        close(path.z, torchdiffeq.odeint(bank.bind(g), z, torch.arange(4.0, -1.0, -1.0), **options))


def _rk4(field, t, z, h):
    a = field(t, z)
    b = field(t + h / 2, z + h / 2 * a)
    c = field(t + h / 2, z + h / 2 * b)
    return z + h / 6 * (a + 2 * b + 2 * c + field(t + h, z + h * c))


@pytest.mark.parametrize(("method", "accuracy"), [("euler", 0.05), ("midpoint", 1e-3), ("rk4", 1e-7)])
def test_a_linear_field_moves_by_the_matrix_exponential(method, accuracy):
    matrix, z = 0.5 * torch.randn(3, 3), torch.randn(5, 3)
    path = ODEStepper(FlowBank([LinearField(matrix)]), method, substeps=32)(z, 0, steps=2)
    for n in range(3):
        close(path.z[n], z @ torch.linalg.matrix_exp(n * matrix).mT, rtol=0, atol=accuracy)
        close(path.log_det[n], (n * matrix.trace()).expand(5))


@pytest.mark.parametrize("substeps", [1, 3])
def test_the_exact_density_of_a_linear_field_is_its_determinant(substeps):
    matrix, z = 0.5 * torch.randn(3, 3), torch.randn(5, 3)
    path = ODEStepper(FlowBank([LinearField(matrix)]), density="exact", substeps=substeps)(z, 0, steps=2)
    step = torch.eye(3) + matrix / substeps
    power = torch.linalg.matrix_power(step, 2 * substeps)
    close(path.z[-1], z @ power.mT)
    close(path.log_det[-1], torch.linalg.slogdet(power).logabsdet.expand(5))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("substeps", [1, 2])
def test_the_exact_density_is_slogdet_of_the_jacobian_of_the_whole_path(kind, substeps):
    bank, z, g = small_bank(kind=kind), torch.randn(5, 3), torch.randn(3, 5, 2)
    stepper = ODEStepper(bank, density="exact", substeps=substeps)
    whole = jacobian(lambda y: stepper(y, g, steps=3).z[-1], z)
    close(stepper(z, g, steps=3).log_det[-1], torch.linalg.slogdet(whole).logabsdet)


def test_the_two_densities_meet_as_steps_get_small():
    bank, z = small_bank(), torch.randn(5, 3)
    exact, by_trace = (
        ODEStepper(bank, density=d, substeps=64)(z, torch.ones(2), steps=1).log_det[-1] for d in ("exact", "trace")
    )
    assert 0 < (exact - by_trace).abs().max() < 0.02


@pytest.mark.parametrize("method", [*METHODS, "dopri5"])
def test_a_rotational_bank_leaves_the_density_alone(method):
    bank = small_bank(kind="rotational", scale=1.0)
    path = ODEStepper(bank, method)(torch.randn(5, 3), torch.randn(2), steps=3)
    assert (path.log_det == 0).all()
    assert (path.z[-1] - path.z[0]).abs().min() > 0


@pytest.mark.parametrize("method", [*METHODS, "dopri5"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_path_that_is_not_recorded_is_the_same_path(method, reverse):
    bank, z, g = small_bank(), torch.randn(5, 3), torch.randn(3, 5, 2)
    stepper = ODEStepper(bank, method)
    full, bare = (stepper(z, g, steps=3, reverse=reverse, record=record) for record in (True, False))
    close(bare.z, full.z)
    close(bare.log_det, full.log_det)
    assert bare.active is bare.time_derivative is bare.gradient_norm2 is bare.initial_norm2 is bare.kinetic is None


@pytest.mark.parametrize("method", [*METHODS, "dopri5"])
@pytest.mark.parametrize("record", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_no_steps_give_the_start_alone(method, record, reverse):
    z = torch.randn(5, 3)
    path = ODEStepper(small_bank(), method)(z, torch.ones(2), steps=0, record=record, reverse=reverse)
    close(path.z, z[None], rtol=0, atol=0)
    assert (path.log_det == 0).all()
    assert path.t.tolist() == [0.0]


@pytest.mark.parametrize("method", METHODS)
def test_the_three_forms_of_weights_agree(method):
    stepper, z, g = ODEStepper(small_bank(), method, substeps=2), torch.randn(5, 3), torch.tensor([0.0, 1.0])
    paths = [stepper(z, w, steps=3) for w in (g, g.expand(5, 2), g.expand(3, 5, 2))]
    one = stepper(z, 1, steps=3)
    for path in paths:
        close(path.z, one.z)
        close(path.log_det, one.log_det)
        close(path.weights, one.weights)
        close(path.gradient_norm2[..., 1:], one.gradient_norm2)


@pytest.mark.parametrize("method", METHODS)
def test_start_shifts_the_clock(method):
    stepper, z = ODEStepper(small_bank(), method, substeps=2), torch.randn(5, 3)
    whole = stepper(z, 0, steps=4)
    half = stepper(whole.z[2], 0, steps=2, start=2.0)
    close(half.z, whole.z[2:])
    close(half.t, whole.t[2:])
    close(half.time_derivative, whole.time_derivative[2:])


@pytest.mark.parametrize("inverse_iterations", [0, 10])
def test_gradients_flow_through_a_reversed_path(inverse_iterations):
    bank, z = small_bank(), torch.randn(5, 3, requires_grad=True)
    g = torch.randn(3, 5, 2, requires_grad=True)
    path = ODEStepper(bank, inverse_iterations=inverse_iterations)(z, g, steps=3, reverse=True)
    (path.z[-1].square().sum() + path.log_det[-1].sum()).backward()
    for tensor in (z, g, *bank.parameters()):
        assert (tensor.grad != 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_gradient_of_a_rollout_is_right(method):
    bank = small_bank(1, 2, context_dim=1, frequencies=1)
    stepper, context = ODEStepper(bank, method), torch.randn(2, 1, requires_grad=True)
    z, g = torch.randn(2, 2, requires_grad=True), torch.randn(2, 2, 1, requires_grad=True)

    def rollout(z, g, context):
        path = stepper(z, g, steps=2, context=context)
        return path.z[-1], path.log_det[-1], path.time_derivative, path.gradient_norm2, path.kinetic

    assert torch.autograd.gradcheck(rollout, (z, g, context), fast_mode=True)


@pytest.mark.parametrize("control", ["single", "double"])
def test_no_parameter_is_dead_after_a_generic_loss_on_a_path(control):
    bank = FlowBank(2, 3, width=4, control=control)
    path = ODEStepper(bank)(torch.randn(7, 3), torch.rand(7, bank.num_controls), steps=3)
    (path.z.square().sum() + path.log_det.sum() + DynamicOTLoss()(path).total).backward()
    for name, parameter in bank.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_vmap_over_a_stepper_agrees_with_the_batch():
    stepper, z, g = ODEStepper(small_bank(), "rk4"), torch.randn(5, 3), torch.randn(5, 2)
    mapped = torch.func.vmap(lambda y, w: stepper(y, w, steps=3).z[-1])(z, g)
    close(mapped, stepper(z, g, steps=3).z[-1])


def test_paths_need_no_graph():
    stepper, z = ODEStepper(small_bank(), "rk4", density="trace"), torch.randn(5, 3)
    expected = stepper(z, 0, steps=3).z
    with torch.inference_mode():
        close(stepper(z, 0, steps=3).z, expected.detach())


@pytest.mark.parametrize("density", ["trace", "exact"])
def test_bfloat16_autocast_runs_trains_and_is_close(density):
    bank, z, g = small_bank(width=16).float(), torch.randn(32, 3).float(), torch.rand(32, 2).float()
    stepper = ODEStepper(bank, density=density)
    exact = stepper(z, g, steps=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        path = stepper(z, g, steps=3)
        loss = path.z.square().mean() + path.log_det.mean() + DynamicOTLoss()(path).total
    loss.backward()
    assert path.z.dtype == path.log_det.dtype == torch.float32
    close(path.z, exact.z, rtol=0.05, atol=0.1)
    close(path.log_det, exact.log_det, rtol=0.05, atol=0.1)
    assert all(parameter.grad.isfinite().all() for parameter in bank.parameters())


@pytest.mark.parametrize("method", [*METHODS, "dopri5"])
def test_float32_stays_float32(method):
    bank, z, g = small_bank(), torch.randn(5, 3), torch.rand(3, 5, 2)
    exact = ODEStepper(bank, method)(z, g, steps=3)
    single = ODEStepper(copy.deepcopy(bank).float(), method)(z.float(), g.float(), steps=3)
    for name, value in single._asdict().items():
        if isinstance(value, torch.Tensor) and name != "active":
            assert value.dtype == torch.float32, name
            close(value.double(), getattr(exact, name), rtol=1e-3, atol=1e-3)


def test_a_state_dict_survives_saving_and_loading(tmp_path):
    one, other, z = ODEStepper(small_bank()), ODEStepper(FlowBank(2, width=4)), torch.randn(5, 3)
    torch.save(one.state_dict(), tmp_path / "stepper.pt")
    other.load_state_dict(torch.load(tmp_path / "stepper.pt", weights_only=True))
    close(other(z, 0, steps=3).z, one(z, 0, steps=3).z, rtol=0, atol=0)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))])
def test_a_stepper_can_be_copied_and_pickled(duplicate):
    stepper, z = ODEStepper(small_bank(), "midpoint", substeps=2), torch.randn(5, 3)
    close(duplicate(stepper)(z, 0, steps=3).z, stepper(z, 0, steps=3).z, rtol=0, atol=0)


def test_the_bank_is_a_submodule_and_its_parameters_count_once():
    model = torch.nn.Module()
    model.flows = FlowBank(2, 3)
    model.stepper = ODEStepper(model.flows)
    assert len(list(model.parameters())) == len(list(model.flows.parameters()))


def test_a_stepper_shows_its_settings():
    assert "method='rk4', substeps=2, density=None" in repr(ODEStepper(FlowBank(2), "rk4", substeps=2, density=None))


class TestErrors:
    @pytest.mark.parametrize("steps", [-1, -7])
    def test_negative_steps(self, steps):
        with pytest.raises(ValueError, match=f"expected steps ≥ 0, got {steps}. To go backwards pass reverse=True"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), 0, steps=steps)

    @pytest.mark.parametrize("steps", [2.0, "2"])
    def test_steps_that_are_no_int(self, steps, without_hook):
        with pytest.raises(TypeError, match="expected steps to be an int, got"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), 0, steps=steps)

    def test_steps_that_are_a_bool(self):
        with pytest.raises(TypeError, match="expected steps to be an int, got True"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), 0, steps=True)

    @pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 2), (3, 5, 2), (4, 5, 3), (4, 1, 2), (1, 5, 2)])
    def test_weights_of_the_wrong_shape(self, shape):
        message = r"expected weights of shape \(2,\) or \(5, 2\) or \(4, 5, 2\) for 2 controls"
        with pytest.raises(ValueError, match=message):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), torch.randn(shape), steps=4)

    def test_weights_with_nan(self):
        g = torch.ones(4, 5, 2)
        g[3, 4, 1] = torch.nan
        with pytest.raises(ValueError, match="expected finite weights"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), g, steps=4)

    def test_weights_on_another_device(self):
        with pytest.raises(ValueError, match="expected weights on cpu, got meta"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), torch.ones(2, device="meta"), steps=4)

    @pytest.mark.parametrize("weights", [2, -1, True])
    def test_a_field_that_is_not_there(self, weights):
        with pytest.raises(ValueError, match="a control from 0 to 1"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), weights, steps=4)

    def test_integer_weights(self, without_hook):
        with pytest.raises(TypeError, match="one int or a floating-point tensor, got torch.int64"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), torch.tensor([1, 0]), steps=4)

    def test_a_latent_vector_that_does_not_fit(self):
        stepper = ODEStepper(FlowBank(2, 3))
        with pytest.raises(ValueError, match=r"expected z of shape \(\*, 3\), got \(5, 4\)"):
            stepper(torch.randn(5, 4), 0, steps=1)
        with pytest.raises(TypeError, match="expected z of dtype"):
            stepper(torch.randn(5, 3).float(), 0, steps=1)

    def test_an_integer_latent_vector(self, without_hook):
        with pytest.raises(TypeError, match="floating-point tensor z, got torch.int64"):
            ODEStepper(FlowBank(2, 3))(torch.ones(5, 3, dtype=torch.long), 0, steps=1)

    def test_a_context_that_does_not_fit(self):
        with pytest.raises(ValueError, match="got a context but was built without one"):
            ODEStepper(FlowBank(2, 3))(torch.randn(5, 3), 0, steps=1, context=torch.randn(5, 2))
        with pytest.raises(ValueError, match=r"expected a context of shape \(\*, 2\), got none"):
            ODEStepper(FlowBank(2, 3, context_dim=2))(torch.randn(5, 3), 0, steps=1)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"method": "leapfrog"},
                "expected method to be one of 'euler', 'midpoint', 'rk4', 'dopri5'.*got 'leapfrog'",
            ),
            ({"density": "both"}, "expected density to be one of 'trace', 'exact', None, got 'both'"),
            ({"substeps": 0}, "expected substeps to be a whole number of at least 1, got 0"),
            ({"inverse_iterations": -1}, "expected inverse_iterations to be a whole number of at least 0, got -1"),
            ({"method": "rk4", "density": "exact"}, "density='exact' is the Euler map's; use.*with 'rk4'"),
            (
                {"method": "dopri5", "compile": True},
                "compile, substeps, checkpoint need euler, midpoint, rk4, got.*'dopri5'",
            ),
            ({"method": "dopri5", "substeps": 2}, "compile, substeps, checkpoint need"),
            ({"method": "dopri5", "checkpoint": True}, "compile, substeps, checkpoint need"),
            ({"method": "rk4", "adjoint": True}, "adjoint is for dopri5"),
        ],
    )
    def test_settings_that_make_no_sense(self, options, message):
        with pytest.raises(ValueError, match=message):
            ODEStepper(FlowBank(2, 3), **options)


def gradients_of(stepper, z, g, steps):
    path = stepper(z, g, steps=steps)
    loss = path.z.square().mean() + path.log_det.square().mean()
    loss = loss + DynamicOTLoss(initial_weight=1.0, kinetic_weight=1.0)(path).total
    parameters = list(stepper.bank.parameters())
    return path, torch.autograd.grad(loss, [*parameters, z, g])


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
class TestCompile:
    @pytest.mark.parametrize("how", [True, {"cpp_wrapper": True}])
    def test_a_compiled_training_step_equals_the_eager_one(self, how):
        bank = small_bank()
        z, g = torch.randn(5, 3, requires_grad=True), torch.randn(2, 5, 2, requires_grad=True)
        eager, compiled = ODEStepper(bank), ODEStepper(bank, compile=how)
        expected, gradients = gradients_of(eager, z, g, 2)
        path, compiled_gradients = gradients_of(compiled, z, g, 2)
        for name, value in expected._asdict().items():
            if value is not None:
                close(getattr(path, name), value)
        for actual, gradient in zip(compiled_gradients, gradients, strict=True):
            close(actual, gradient)
        for duplicate in (copy.deepcopy(compiled), pickle.loads(pickle.dumps(compiled))):
            assert duplicate._compiled is None

    @pytest.mark.parametrize(
        ("method", "density", "kind"), [("rk4", "trace", "helmholtz"), ("euler", "exact", "potential")]
    )
    @pytest.mark.parametrize("reverse", [False, True])
    def test_every_method_is_one_graph(self, tracing_alone, method, density, kind, reverse):
        bank, z = small_bank(kind=kind), torch.randn(5, 3)
        eager, compiled = (ODEStepper(bank, method, density=density, compile=c) for c in (False, True))
        expected = eager(z, torch.ones(2), steps=2, reverse=reverse)
        path = compiled(z, torch.ones(2), steps=2, reverse=reverse)
        close(path.z, expected.z)
        close(path.log_det, expected.log_det)
        assert compiled_graphs() == 1

    def test_other_values_of_the_weights_compile_nothing_new(self, tracing_alone):
        stepper, z = ODEStepper(small_bank(), compile=True), torch.randn(5, 3)
        for form in ((2,), (5, 2), (3, 5, 2)):
            for _ in range(3):
                stepper(z, torch.randn(form), steps=3, start=torch.rand(()).item())
        assert compiled_graphs() <= 3

    def test_all_fields_of_a_large_bank_can_be_chosen_by_number(self, tracing_alone):
        bank, z = small_bank(12), torch.randn(5, 3)
        stepper, eager = ODEStepper(bank, compile=True), ODEStepper(bank)
        for k in range(12):
            close(stepper(z, k, steps=1).z, eager(z, k, steps=1).z)

    def test_a_second_batch_size_makes_the_batch_dynamic(self, tracing_alone):
        bank = small_bank()
        stepper, eager = ODEStepper(bank, compile=True), ODEStepper(bank)
        for batch in (5, 6, 7, 11, 13):
            z, g = torch.randn(batch, 3), torch.randn(batch, 2)
            close(stepper(z, g, steps=2).z, eager(z, g, steps=2).z)
        assert compiled_graphs() <= 2

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_a_field_compiles_whole(self, tracing_alone, dynamic):
        field = randomize(HelmholtzFlowField(3, 4))
        jet = torch.compile(field.jet, fullgraph=True, dynamic=dynamic)
        for batch in (5, 8):
            z = torch.randn(batch, 3, requires_grad=True)
            for actual, expected in zip(jet(torch.tensor(0.3), z), field.jet(0.3, z), strict=True):
                close(actual, expected)
        assert compiled_graphs() <= (1 if dynamic else 2)

    def test_a_model_that_contains_a_stepper_compiles_whole(self, tracing_alone):
        bank, z = small_bank(), torch.randn(5, 3)
        stepper, loss = ODEStepper(bank, compile=True), DynamicOTLoss()

        def objective(z, g):
            path = stepper(z, g, steps=2)
            return path.z.square().mean() + loss(path).total

        close(torch.compile(objective, fullgraph=True)(z, torch.ones(2)), objective(z, torch.ones(2)))


class Rollout(torch.nn.Module):
    def __init__(self, stepper):
        super().__init__()
        self.stepper = stepper

    def forward(self, z, g):
        path = self.stepper(z, g, steps=2)
        return path.z, path.log_det


@pytest.mark.compile
@pytest.mark.parametrize("strict", [False, True])
def test_fields_banks_and_rollouts_can_be_exported(strict):
    bank, z, t = small_bank(), torch.randn(5, 3), torch.tensor(0.3)
    modules = [
        (HelmholtzFlowField(3, 4), (t, z)),
        (bank, (t, z, torch.randn(5, 2))),
        (Rollout(ODEStepper(bank, "rk4")), (z, torch.randn(2, 5, 2))),
    ]
    for module, inputs in modules:
        exported = torch.export.export(module, inputs, strict=strict).module()
        for actual, expected in zip(exported(*inputs), module(*inputs), strict=True):
            close(actual, expected)


@pytest.mark.compile
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_batch_may_be_as_large_as_the_bank(strict):
    module, batch = Rollout(ODEStepper(FlowBank(3, 4))), torch.export.Dim("batch", min=1, max=64)
    given = torch.randn(8, 4), torch.rand(8, 3)
    exported = torch.export.export(module, given, dynamic_shapes=({0: batch}, {0: batch}), strict=strict).module()
    for size in (1, 2, 3, 5):
        inputs = torch.randn(size, 4), torch.rand(size, 3)
        for actual, expected in zip(exported(*inputs), module(*inputs), strict=True):
            close(actual, expected)


@pytest.mark.compile
@pytest.mark.parametrize("strict", [False, True])
def test_exported_rollouts_of_large_banks_keep_their_gradients(strict, monkeypatch):
    monkeypatch.setattr(layout, "_SMALL", 0)
    module, inputs = Rollout(ODEStepper(small_bank())), (torch.randn(5, 3), torch.randn(2, 5, 2))
    exported = torch.export.export(module, inputs, strict=strict).module()
    for name, parameter in module.named_parameters():
        expected = torch.autograd.grad(module(*inputs)[0].square().sum(), parameter)[0]
        actual = torch.autograd.grad(exported(*inputs)[0].square().sum(), exported.get_parameter(name))[0]
        close(actual, expected)


def test_a_field_by_itself_is_refused(without_hook):
    with pytest.raises(TypeError, match=r"FlowBank\(\[field\]\)"):
        ODEStepper(PotentialFlowField(4))


@pytest.mark.parametrize("name", ["substeps", "inverse_iterations"])
def test_half_a_step_is_refused(without_hook, name):
    with pytest.raises(ValueError, match=f"expected {name} to be a whole number of at least ., got 1.5"):
        ODEStepper(FlowBank(2, 4), **{name: 1.5})


def test_a_start_per_sample_is_refused(without_hook):
    with pytest.raises(ValueError, match="one start for the whole batch"):
        ODEStepper(FlowBank(2, 4))(torch.randn(6, 4), 0, 5, start=torch.arange(6.0))


@pytest.mark.parametrize("weights", [0, torch.ones(3)])
def test_an_empty_batch_rolls(weights):
    path = ODEStepper(FlowBank(3, 4))(torch.randn(0, 4), weights, 2)
    assert path.z.shape == (3, 0, 4)
    assert path.gradient_norm2.shape == path.active.shape == (2, 0, 1 if isinstance(weights, int) else 3)


def test_a_size_that_inference_saw_first_can_be_trained():
    bank = FlowBank(2)
    with torch.inference_mode():
        bank(0.0, torch.randn(3, 4), 0)
    bank(0.0, torch.randn(3, 4), 0).sum().backward()
    assert bank.stack.weight.grad is not None
