import weakref

import pytest
import torch
import torchdiffeq
from reference import LinearField, close, randomize, small_bank
from test_performance import CountProducts
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from torchflowfield import AutogradPotential, FlowBank, ODEStepper, PotentialFlowField
from torchflowfield.adaptive import ADAPTIVE_METHODS, AugmentedDynamics

TIGHT = {"rtol": 1e-7, "atol": 1e-8}
FORMS = {"int": None, "K": (), "BK": (5,), "TBK": (3, 5)}


def weights_of(form):
    """Weights of two fields, five samples and three steps."""
    return 1 if form == "int" else 0.5 * torch.randn(*FORMS[form], 2)


@pytest.fixture
def evaluations(monkeypatch):
    """Times at which the dynamics were evaluated."""
    times, call = [], AugmentedDynamics.__call__

    def count(self, t, state):
        times.append(t.item())
        return call(self, t, state)

    monkeypatch.setattr(AugmentedDynamics, "__call__", count)
    return times


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


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(
    "options", [{"context_dim": 2}, {"frequencies": 0}, {"kind": "potential", "activation": "cos"}]
)
def test_a_path_is_what_torchdiffeq_makes_of_the_bound_bank(form, reverse, options):
    bank, z, weights = small_bank(**options), torch.randn(5, 3), weights_of(form)
    context = torch.randn(5, 2) if "context_dim" in options else None
    path = ODEStepper(bank, "dopri5", **TIGHT)(z, weights, steps=3, context=context, reverse=reverse, start=0.5)
    extra = () if context is None else (context,)
    state = (z, z.new_zeros(5))
    for n in range(3):
        acting = 2 - n if reverse else n
        field = bank.bind(weights[acting] if form == "TBK" else weights)
        span = torch.tensor([acting + 1.5, acting + 0.5] if reverse else [acting + 0.5, acting + 1.5])
        solution = torchdiffeq.odeint(
            lambda t, y, f=field: (f(t, y[0], *extra), f.divergence(t, y[0], *extra)),
            state,
            span,
            rtol=1e-10,
            atol=1e-11,
        )
        state = tuple(x[-1] for x in solution)
        close(path.t[n + 1], span[1])
        close(path.z[n + 1], state[0], rtol=1e-6, atol=1e-6)
        close(path.log_det[n + 1], state[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("density", ["trace", None])
@pytest.mark.parametrize("form", FORMS)
def test_an_evaluation_is_two_products_with_its_divergence_or_without(form, density, evaluations):
    bank, z = FlowBank(2, 3, width=4), torch.randn(5, 3)
    with CountProducts(5) as counted:
        ODEStepper(bank, "dopri5", density=density)(z, weights_of(form), steps=3, record=False)
    assert counted.count == 2 * len(evaluations) > 0


@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("schedule", [False, True])
def test_a_frame_begins_with_the_step_size_of_the_one_before(schedule, reverse, adjoint, evaluations):
    bank, z = FlowBank(2, 3, width=4), torch.randn(5, 3)
    g, counts = torch.rand(6, 5, 2), []
    for steps in (5, 6):
        path = ODEStepper(bank, "dopri5", adjoint=adjoint)(
            z, g[:steps] if schedule else g[0], steps=steps, reverse=reverse, record=False
        )
        forwards = len(evaluations)
        (1e-3 * path.z.square().mean()).backward()
        counts.append((forwards, len(evaluations) - forwards))
        evaluations.clear()
    # One step of dopri5, or two: six evaluations each, after the one at its start. Seeking a first step would be one
    # more evaluation, and steps that are too short.
    more, more_backwards = (counts[1][i] - counts[0][i] for i in (0, 1))
    assert more == 7
    assert more_backwards in ((7, 13) if adjoint else (0,))


@pytest.mark.parametrize("adjoint", [False, True])
def test_what_does_not_depend_on_time_is_computed_once_a_path(adjoint):
    class CountNorms(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += "vector_norm" in str(function)
            return function(*args, **(kwargs or {}))

    stepper, z, counts = ODEStepper(FlowBank(2, 3, width=4), "dopri5", adjoint=adjoint), torch.randn(5, 3), []
    for steps in (1, 5):
        # With gradients the adjoint computes it each time, and keeps nothing.
        with CountNorms() as counted, torch.set_grad_enabled(not adjoint):
            stepper(z, torch.rand(steps, 5, 2), steps=steps, record=False)
        counts.append(counted.count)
    assert counts[0] == counts[1] > 0


def test_the_adjoint_keeps_nothing_but_the_frames():
    class Saved:
        def __init__(self, x):
            self.x = x

    def pack(x):
        alive.add(saved := Saved(x))
        return saved

    bank, z, alive = FlowBank(2, 16, width=64), torch.randn(5, 16), weakref.WeakSet()
    stepper, own = ODEStepper(bank, "dopri5", adjoint=True), {p.data_ptr() for p in bank.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.x):
        path = stepper(z, torch.rand(5, 2), steps=4, record=False)
    kept = {s.x.untyped_storage().data_ptr(): s.x.untyped_storage().nbytes() for s in alive}
    # Each of the four steps keeps its two ends and their times; the hooks themselves keep the norm of each unit.
    allowed = 4 * 2 * (5 * (16 + 1) + 1) + 2 * 64
    assert path.z.requires_grad
    assert 0 < sum(size for where, size in kept.items() if where not in own) <= allowed * z.itemsize


@pytest.mark.parametrize("method", ADAPTIVE_METHODS)
def test_every_adaptive_method_finds_the_matrix_exponential(method):
    matrix, z = 0.5 * torch.randn(3, 3), torch.randn(5, 3)
    path = ODEStepper(FlowBank([LinearField(matrix)]), method, rtol=1e-6, atol=1e-7)(z, 0, steps=2)
    # The tolerance is one of a step. The errors of fehlberg2's some fifty steps add up to 6e-5; the others stay below
    # 2e-6, dopri8 below 1e-10.
    accuracy = {"fehlberg2": 2e-4, "dopri8": 1e-9}.get(method, 1e-5)
    close(path.z[-1], z @ torch.linalg.matrix_exp(2 * matrix).mT, rtol=0, atol=accuracy)
    close(path.log_det[-1], (2 * matrix.trace()).expand(5), rtol=0, atol=1e-12)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("schedule", [False, True])
def test_gradients_by_autograd_and_by_the_adjoint_are_those_of_many_small_steps(schedule, reverse):
    bank = small_bank(context_dim=2)
    # A parameter, as a learned context is: the adjoint may count it once only.
    z, context = torch.randn(5, 3, requires_grad=True), torch.nn.Parameter(torch.randn(5, 2))
    g = torch.randn(*((3, 5) if schedule else ()), 2, requires_grad=True)
    inputs = (z, g, context, *bank.parameters())
    steppers = [
        ODEStepper(bank, "rk4", substeps=32, inverse_iterations=0),
        *(ODEStepper(bank, "dopri5", adjoint=adjoint, **TIGHT) for adjoint in (False, True)),
    ]
    gradients = []
    for stepper in steppers:
        path = stepper(z, g, steps=3, context=context, record=False, start=0.3, reverse=reverse)
        gradients.append(torch.autograd.grad(path.z[1:].square().sum() + path.log_det[-1].sin().sum(), inputs))
    for fixed, direct, adjoint in zip(*gradients, strict=True):
        assert fixed.abs().max() > 0
        close(direct, fixed, rtol=1e-4, atol=1e-4)
        close(adjoint, fixed, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("reverse", [False, True])
def test_perturbed_steps_of_torchdiffeq_keep_to_one_entry_of_a_bound_schedule(reverse):
    bank, z = randomize(FlowBank(2, 3, width=4, frequencies=0), 0.4), torch.randn(5, 3)
    weights = torch.randn(3, 5, 2)
    path = ODEStepper(bank, "rk4", substeps=8, inverse_iterations=0)(z, weights, steps=3, reverse=reverse)
    times = torch.arange(4.0).flip(0) if reverse else torch.arange(4.0)
    field = bank.bind(weights)
    jumps = torchdiffeq.odeint(field, z, times, method="rk4", options={"step_size": 1 / 8, "perturb": True})
    close(jumps, path.z, rtol=1e-5, atol=1e-5)
    wrong = torchdiffeq.odeint(field, z, times, method="rk4", options={"step_size": 1 / 8})
    assert (wrong - path.z).abs().max() > 1e-3


def test_a_bound_bank_goes_through_the_adjoint_of_torchdiffeq():
    bank, z = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(5, 3)
    solution = torchdiffeq.odeint_adjoint(bank.bind(torch.tensor([1.0, 0.5])), z, torch.arange(3.0))
    solution[-1].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in bank.parameters())


@pytest.mark.parametrize("density", ["trace", None])
def test_an_empty_batch_has_an_empty_path(density):
    path = ODEStepper(FlowBank(2, 4), "dopri5", density=density)(torch.randn(0, 4), 0, steps=2)
    assert path.z.shape == (3, 0, 4)
    assert (path.log_det is None) == (density is None)


class Quartic(torch.nn.Module):
    """u = -Σ z⁴, whose Laplacian no probe gives exactly."""

    def forward(self, t, z):
        return -z.square().square().sum(-1)


def test_a_divergence_of_random_probes_is_no_state_for_an_adaptive_method():
    z = 0.1 * torch.randn(2, 5)
    estimated, exact = (FlowBank([AutogradPotential(Quartic(), exact_dim=n)]) for n in (4, 5))
    with pytest.raises(ValueError, match="estimated anew each time.*exact_dim=5"):
        ODEStepper(estimated, "dopri5")(z, 0, steps=1)
    free = ODEStepper(estimated, "dopri5", density=None)(z, 0, steps=1, record=False)
    close(free.z, ODEStepper(exact, "dopri5")(z, 0, steps=1).z, rtol=1e-4, atol=1e-5)


def test_exact_divergences_beside_or_around_a_potential_of_random_probes_are_taken():
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.potential = AutogradPotential(Quartic(), exact_dim=2)

        def forward(self, t, z):
            return 0.5 * self.potential(t, z)

    z, estimated = 0.1 * torch.randn(2, 3), AutogradPotential(Quartic(), exact_dim=2)
    path = ODEStepper(FlowBank([Half()]), "dopri5", **TIGHT)(z, 0, steps=1)
    exact = ODEStepper(FlowBank([AutogradPotential(Quartic())]), "dopri5", **TIGHT)
    close(path.log_det, exact(z, torch.tensor([0.5]), steps=1).log_det, rtol=1e-5, atol=1e-6)
    beside = FlowBank([estimated, PotentialFlowField(3, width=4)])
    assert ODEStepper(beside, "dopri5")(z, 1, steps=1, record=False).log_det.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
@pytest.mark.parametrize("adjoint", [False, True])
def test_a_half_precision_code_is_moved_with_errors_of_its_own_precision(dtype, method, adjoint):
    bank, z, weights = randomize(FlowBank(3, 8, width=16), 0.2).float(), torch.randn(50, 8).float(), torch.randn(50, 3)
    weights = weights.float()
    expected = ODEStepper(bank, method)(z, weights, steps=3)
    with torch.autocast("cpu", dtype):
        path = ODEStepper(bank, method, adjoint=adjoint)(z.to(dtype), weights, steps=3)
    assert path.z.dtype == path.log_det.dtype == dtype
    loose = 0.1 if dtype == torch.bfloat16 else 0.01
    assert (path.z.float() - expected.z).abs().max() < loose
    assert (path.log_det.float() - expected.log_det).abs().max() < loose
    (path.z.float().square().mean() + path.log_det.float().mean()).backward()
    assert all(p.grad.isfinite().all() for p in bank.parameters())


def test_the_adjoint_reaches_weights_that_a_bank_is_bound_with():
    weights, inner, z = torch.ones(2, requires_grad=True), randomize(FlowBank(2, 3, width=4), 0.4), torch.randn(5, 3)
    bank = FlowBank([inner.bind(weights)])
    plain, adjoint = (
        torch.autograd.grad(ODEStepper(bank, "dopri5", adjoint=a, **TIGHT)(z, 0, steps=2).z[-1].sum(), weights)[0]
        for a in (False, True)
    )
    assert plain.abs().min() > 1e-3
    close(adjoint, plain, rtol=1e-4, atol=1e-5)


def test_a_code_that_is_not_finite_is_named():
    z = torch.randn(5, 3)
    z[2, 1] = torch.nan
    with pytest.raises(ValueError, match="ODEStepper: expected finite z, got NaN or infinity"):
        ODEStepper(small_bank(), "dopri5")(z, 0, steps=3)


@pytest.mark.parametrize("tolerances", [{"rtol": 0.0, "atol": 0.0}, {"atol": -1.0}, {"rtol": float("nan")}])
def test_tolerances_that_no_step_can_keep_are_refused(tolerances):
    with pytest.raises(ValueError, match="expected rtol and atol ≥ 0, one of them above"):
        ODEStepper(small_bank(), "dopri5", **tolerances)
    path = ODEStepper(small_bank(), "dopri5", rtol=0.0, atol=1e-6)(torch.randn(5, 3), 0, steps=1)
    assert path.z.isfinite().all()


def test_an_adaptive_path_is_the_same_under_autocast():
    bank, z = randomize(FlowBank(3, 8, width=16, context_dim=2), 0.2).float(), torch.randn(50, 8).float()
    weights, context = torch.randn(50, 3).float(), torch.randn(50, 2).float()
    expected = ODEStepper(bank, "dopri5")(z, weights, steps=3, context=context)
    with torch.autocast("cpu", torch.bfloat16):
        path = ODEStepper(bank, "dopri5")(z, weights, steps=3, context=context)
    assert torch.equal(path.z, expected.z)
    assert torch.equal(path.log_det, expected.log_det)


@pytest.mark.parametrize("inside", [False, True])
def test_the_adjoint_of_half_precision_codes_and_contexts_is_that_of_float32(inside):
    bank, z = randomize(FlowBank(3, 8, width=16, context_dim=2), 0.2).float(), torch.randn(50, 8).bfloat16()
    weights, context = torch.randn(50, 3).bfloat16(), torch.randn(50, 2).bfloat16()

    def gradients(context, autocast):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            path = ODEStepper(bank, "dopri5", adjoint=True)(z.to(context.dtype), weights, steps=2, context=context)
            loss = path.z.float().square().mean()
            if inside:
                return torch.autograd.grad(loss, list(bank.parameters()))
        return torch.autograd.grad(loss, list(bank.parameters()))

    for actual, expected in zip(gradients(context, True), gradients(context.float(), False), strict=True):
        assert (actual - expected).norm() <= 0.01 * expected.norm() + 1e-6


class HalfBuffer(nn.Module):
    """A field without parameters that computes in the type of its buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("matrix", 0.1 * torch.eye(3, dtype=torch.bfloat16))

    def forward(self, t, z):
        return z @ self.matrix


def test_fields_see_codes_of_the_type_that_they_are_made_for():
    z = torch.randn(5, 3).bfloat16()
    path = ODEStepper(FlowBank([HalfBuffer()]), "dopri5")(z, 0, steps=1)
    close(path.z[-1].double(), z.double() * torch.e**0.1, rtol=0.02, atol=0.01)
    mixed = FlowBank([PotentialFlowField(3).float(), HalfBuffer()])
    close(ODEStepper(mixed, "dopri5")(z, 1, steps=1).z, path.z)
    bank = randomize(FlowBank(2, 3, width=4)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert ODEStepper(bank, "dopri5")(z.float(), 0, steps=1).z.isfinite().all()


@pytest.mark.parametrize(("dtype", "start"), [(torch.bfloat16, 127.5), (torch.float16, 1023.5)])
def test_frames_last_as_long_in_half_precision(dtype, start):
    bank = FlowBank([Drift()])
    path = ODEStepper(bank, "dopri5")(torch.zeros(1, 3, dtype=dtype), 0, steps=2, start=start)
    close(path.z[:, 0, 0].double(), torch.tensor([0.0, 1.0, 2.0]), rtol=1e-3, atol=1e-3)


class Drift(nn.Module):
    """One latent unit per frame."""

    def forward(self, t, z):
        return torch.ones_like(z)
