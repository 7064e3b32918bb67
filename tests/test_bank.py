import copy

import numpy as np
import pytest
import torch
import torchdiffeq
from hypothesis import given
from hypothesis import strategies as st
from reference import BATCHES, close, draw_time, field_of_bank, jacobian, randomize, trace
from torch import nn

from torchflowfield import FlowBank, ODEStepper, PotentialFlowField

KINDS = ["potential", "rotational", "helmholtz"]


@st.composite
def bank_cases(draw):
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kind, batch = draw(st.sampled_from(KINDS)), draw(st.sampled_from(BATCHES))
    dim, context_dim = draw(st.integers(2, 4)), draw(st.sampled_from([0, 2]))
    options = {
        "activation": draw(st.sampled_from(["logcosh", "cos", "softplus"])),
        "frequencies": draw(st.sampled_from([0, 2])),
        "context_dim": context_dim,
    }
    bank = FlowBank(draw(st.integers(1, 4)), dim, width=draw(st.integers(1, 5)), kind=kind, **options)
    context = torch.randn(*batch, context_dim) if context_dim else None
    randomize(bank)
    fields = [field_of_bank(bank, k, **options) for k in range(len(bank))]
    return bank, fields, draw_time(draw, batch), torch.randn(*batch, dim), context


@given(bank_cases())
def test_a_bank_is_its_fields_one_by_one(case):
    bank, fields, t, z, context = case
    jets = [field.jet(t, z, context) for field in fields]
    for name, stacked in bank.jet(t, z, context)._asdict().items():
        close(stacked, torch.stack([getattr(jet, name) for jet in jets], z.ndim - 1))
    x = torch.randn_like(z)
    for k, (alone, field) in enumerate(zip(bank, fields, strict=True)):
        close(bank(t, z, k, context), field(t, z, context))
        close(alone(t, z, context), field(t, z, context))
        close(alone.divergence(t, z, context), field.divergence(t, z, context))
        close(alone.jvp(t, z, x, context), field.jvp(t, z, x, context))
        close(alone.jacobian(t, z, context), field.jacobian(t, z, context))
        close(alone.log_det(t, z, 0.3, context), field.log_det(t, z, 0.3, context))
        for actual, expected in zip(alone.jet(t, z, context), jets[k], strict=True):
            close(actual, expected)


@given(bank_cases(), st.booleans())
def test_a_mixture_is_the_weighted_sum_of_its_fields(case, per_sample):
    bank, fields, t, z, context = case
    g = torch.randn(*(z.shape[:-1] if per_sample else ()), len(bank))

    def sum_of(values, trailing):
        stacked = torch.stack(values, z.ndim - 1)
        return (g[(..., *[None] * trailing)] * stacked).sum(-1 - trailing)

    mixture, x = bank.bind(g), torch.randn_like(z)
    jets = [field.jet(t, z, context) for field in fields]
    close(bank(t, z, g, context), sum_of([jet.velocity for jet in jets], 1))
    close(mixture(t, z, context), bank(t, z, g, context))
    close(mixture.divergence(t, z, context), sum_of([jet.laplacian for jet in jets], 0))
    close(mixture.jvp(t, z, x, context), sum_of([f.jvp(t, z, x, context) for f in fields], 1))
    close(mixture.jacobian(t, z, context), sum_of([f.jacobian(t, z, context) for f in fields], 2))
    jet = mixture.jet(t, z, context)
    for name, trailing in (
        ("potential", 0),
        ("velocity", 1),
        ("time_derivative", 0),
        ("laplacian", 0),
        ("gradient", 1),
    ):
        close(getattr(jet, name), sum_of([getattr(j, name) for j in jets], trailing))


@given(bank_cases(), st.sampled_from([0.2, -0.2]))
def test_log_det_of_a_mixture_is_slogdet_of_its_euler_map(case, step):
    bank, _, t, z, context = case
    g = torch.randn(*z.shape[:-1], len(bank))
    euler = jacobian(lambda y: y + step * bank(t, y, g, context), z)
    expected = torch.linalg.slogdet(euler).logabsdet
    if expected.min() > -5:
        close(bank.bind(g).log_det(t, z, step, context), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_an_int_weight_is_the_one_hot(kind):
    bank, z = randomize(FlowBank(3, 4, width=5, kind=kind)), torch.randn(6, 4)
    for k in range(3):
        close(bank(0.4, z, k), bank(0.4, z, torch.eye(3)[k]))
        close(bank(0.4, z, k), bank(0.4, z, torch.eye(3)[k].expand(6, 3)))


def double_bank():
    return randomize(FlowBank(2, 3, width=4, control="double")), torch.randn(5, 3)


def test_with_double_control_the_first_weights_drive_gradients_and_the_others_rotations():
    bank, z = double_bank()
    g = torch.randn(5, 4)
    parts = torch.stack([torch.stack(field_of_bank(bank, k).helmholtz(0.3, z)) for k in range(2)])
    gradients, rotations = parts[:, 0].transpose(0, 1), parts[:, 1].transpose(0, 1)
    expected = (g[:, :2, None] * gradients).sum(1) + (g[:, 2:, None] * rotations).sum(1)
    close(bank(0.3, z, g), expected)
    matrix = jacobian(lambda y: bank(0.3, y, g), z)
    close(bank.bind(g).jacobian(0.3, z), matrix)
    close(bank.bind(g).divergence(0.3, z), trace(matrix))
    close(bank.bind(g).jet(0.3, z).gradient, (g[:, :2, None] * gradients).sum(1))
    close(bank.bind(g).log_det(0.3, z, 0.1), torch.linalg.slogdet(torch.eye(3) + 0.1 * matrix).logabsdet)


def test_with_double_control_an_int_weight_is_the_one_hot_too():
    bank, z = double_bank()
    assert bank.num_controls == 4
    for k in range(4):
        one_hot = bank.bind(torch.eye(4)[k])
        for actual, expected in zip(bank.bind(k).jet(0.3, z), one_hot.jet(0.3, z), strict=True):
            close(actual, expected)
        close(bank.bind(k).log_det(0.3, z), one_hot.log_det(0.3, z))
    assert (bank.bind(2).divergence(0.3, z) == 0).all()


def test_equal_double_weights_are_single_control():
    bank, z = double_bank()
    single = FlowBank(2, 3, width=4)
    single.load_state_dict(bank.state_dict())
    g = torch.randn(5, 2)
    close(bank(0.3, z, torch.cat((g, g), -1)), single(0.3, z, g))


def test_a_bank_counts_and_lists_its_fields():
    bank = FlowBank(3, 4)
    assert len(bank) == len(list(bank)) == bank.num_controls == 3
    assert (bank.dim, bank.K) == (4, 3)
    assert "K=3, dim=4, control='single'" in repr(bank)


@pytest.mark.parametrize("k", [3, -1])
def test_a_field_beyond_the_last_is_an_index_error(k):
    with pytest.raises(IndexError, match=f"expected a field from 0 to 2, got {k}"):
        FlowBank(3, 4)[k]


@pytest.mark.parametrize("weights", [1, torch.tensor([0.5, -1.0]), torch.randn(6, 2)])
@pytest.mark.parametrize("method", ["euler", "midpoint"])
def test_a_bound_bank_goes_into_odeint_and_equals_the_stepper(weights, method):
    bank, z = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(6, 3)
    path = ODEStepper(bank, method)(z, weights, steps=4)
    solution = torchdiffeq.odeint(bank.bind(weights), z, torch.arange(5.0), method=method)
    close(path.z, solution, rtol=1e-14, atol=1e-14)


def test_a_bound_schedule_is_held_over_each_frame_and_beyond_its_ends():
    bank, z, g = randomize(FlowBank(2, 3, width=4), 0.5), torch.randn(6, 3), torch.randn(4, 6, 2)
    path = ODEStepper(bank)(z, g, steps=4)
    solution = torchdiffeq.odeint(bank.bind(g), z, torch.arange(5.0), method="euler")
    close(path.z, solution, rtol=1e-14, atol=1e-14)
    for t, n in ((-1.0, 0), (0.9, 0), (1.0, 1), (3.99, 3), (9.0, 3)):
        close(bank.bind(g)(t, z), bank(t, z, g[n]))


def test_a_bound_schedule_needs_one_time():
    bound = FlowBank(2, 3).bind(torch.randn(4, 6, 2))
    with pytest.raises(ValueError, match="a bound schedule needs one time for the whole batch"):
        bound(torch.zeros(6), torch.randn(6, 3))


def test_a_bound_bank_shares_the_parameters():
    bank, z = FlowBank(2, 3), torch.randn(6, 3)
    bound = bank.bind(0)
    randomize(bank)
    close(bound(0.0, z), bank(0.0, z, 0))
    assert {id(p) for p in bound.parameters()} == {id(p) for p in bank.parameters()}


@given(bank_cases())
def test_the_commutator_is_the_lie_bracket(case):
    bank, fields, t, z, context = case
    i, j = 0, len(bank) - 1
    a, b = (fields[k](t, z, context)[..., None] for k in (i, j))
    of_a, of_b = (jacobian(lambda y, k=k: fields[k](t, y, context), z) for k in (i, j))
    close(bank.commutator(i, j, t, z, context), (of_b @ a - of_a @ b).squeeze(-1))
    close(bank.commutator(j, i, t, z, context), -bank.commutator(i, j, t, z, context))


def test_a_rotation_commutes_with_a_scaling_and_not_with_a_shift():
    class Linear(torch.nn.Module):
        def __init__(self, matrix, shift):
            super().__init__()
            self.matrix, self.shift = torch.tensor(matrix), torch.tensor(shift)

        def forward(self, t, z):
            return z @ self.matrix.mT + self.shift

    turn, grow = Linear([[0.0, -1.0], [1.0, 0.0]], [0.0, 0.0]), Linear([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0])
    shift = Linear([[0.0, 0.0], [0.0, 0.0]], [1.0, 0.0])
    bank, z = FlowBank([turn, grow, shift]), torch.randn(5, 2)
    close(bank.commutator(0, 1, 0.0, z), torch.zeros(5, 2))
    close(bank.commutator(2, 0, 0.0, z), torch.tensor([0.0, 1.0]).expand(5, 2))


@pytest.mark.parametrize(("kind", "control"), [*((kind, "single") for kind in KINDS), ("helmholtz", "double")])
def test_no_parameter_of_a_bank_is_dead(kind, control):
    bank = FlowBank(3, 4, width=5, kind=kind, control=control, context_dim=2)
    velocity = bank(torch.rand(7), torch.randn(7, 4), torch.randn(7, bank.num_controls), torch.randn(7, 2))
    (velocity * torch.randn(7, 4)).sum().backward()
    for name, parameter in bank.named_parameters():
        assert (parameter.grad != 0).all(), name


def test_an_int_weight_sends_no_gradient_to_the_other_fields():
    bank = FlowBank(3, 4, width=5)
    bank(0.3, torch.randn(7, 4), 1).square().sum().backward()
    used = bank.stack.weight.grad.abs().sum((1, 2)) > 0
    assert used.tolist() == [False, True, False]


def test_weights_receive_their_gradient():
    bank, z = randomize(FlowBank(2, 3, width=4)), torch.randn(5, 3)
    g = torch.randn(5, 2, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: bank(0.3, z, w), g)


@pytest.mark.parametrize("weights", [torch.randn(2), torch.randn(5, 2)])
def test_vmap_over_a_bank_agrees_with_the_batch(weights):
    bank, z = randomize(FlowBank(2, 3, width=4)), torch.randn(5, 3)
    dims = (0, 0 if weights.ndim == 2 else None)
    mapped = torch.func.vmap(lambda y, w: bank(0.3, y, w), in_dims=dims)(z, weights.double())
    close(mapped, bank(0.3, z, weights.double()))


def test_float32_weights_are_taken_to_the_dtype_of_z():
    bank, z, g = FlowBank(2, 3), torch.randn(5, 3), torch.tensor([0.5, 2.0], dtype=torch.float32)
    close(bank(0.3, z, g), bank(0.3, z, g.double()))


class TestLazyBank:
    @pytest.mark.parametrize("first", ["forward", "jet", "bind", "stepper", "index"])
    def test_the_first_call_sets_the_size(self, first):
        bank, z = FlowBank(2), torch.randn(5, 3)
        assert bank.dim is None
        calls = {
            "forward": lambda: bank(0.0, z, 0),
            "jet": lambda: bank.jet(0.0, z),
            "bind": lambda: bank.bind(torch.ones(2)).divergence(0.0, z),
            "stepper": lambda: ODEStepper(bank)(z, 0, steps=1),
            "index": lambda: bank[1].log_det(0.0, z),
        }
        calls[first]()
        assert bank.dim == 3
        with pytest.raises(ValueError, match=r"expected z of shape \(\*, 3\), got \(5, 4\)"):
            bank(0.0, torch.randn(5, 4), 0)

    def test_a_refused_first_call_does_not_set_the_size(self, without_hook):
        bank = FlowBank(2)
        with pytest.raises(TypeError, match="floating-point"):
            bank(0.0, torch.ones(7, dtype=torch.long), 0)
        assert bank(0.0, torch.randn(5, 3), 0).shape == (5, 3)

    def test_a_state_dict_sets_the_size(self):
        source, lazy, z = FlowBank(2, 3), FlowBank(2), torch.randn(5, 3)
        lazy.load_state_dict(source.state_dict())
        assert lazy.dim == 3
        close(lazy(0.5, z, 1), source(0.5, z, 1), rtol=0, atol=0)

    def test_a_checkpoint_sets_the_size_of_a_bank_within_a_model(self, tmp_path):
        source, lazy = (torch.nn.ModuleDict({"flows": FlowBank(2, dim)}) for dim in (3, None))
        torch.save(source.state_dict(), tmp_path / "model.pt")
        lazy.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        assert lazy["flows"].dim == 3

    def test_an_optimizer_made_before_the_first_call_trains_every_parameter(self):
        bank = FlowBank(2, width=4)
        optimizer = torch.optim.Adam(bank.parameters(), lr=0.1)
        z = torch.randn(5, 3)
        bank(0.5, z, torch.ones(2))
        before = copy.deepcopy(bank.state_dict())
        bank(0.5, z, torch.ones(2)).square().sum().backward()
        optimizer.step()
        for name, parameter in bank.named_parameters():
            assert (parameter != before[name]).all(), name

    def test_a_copy_is_lazy_by_itself(self):
        bank = FlowBank(2)
        copied = copy.deepcopy(bank)
        copied(0.0, torch.randn(5, 3), 0)
        assert (bank.dim, copied.dim) == (None, 3)

    def test_the_new_parameters_have_the_dtype_of_the_others(self):
        bank = FlowBank(2).float()
        assert bank(0.0, torch.randn(5, 3, dtype=torch.float32), 0).dtype == torch.float32
        assert all(p.dtype == torch.float32 for p in bank.parameters())

    def test_its_size_is_set_once_for_all_its_parameters(self):
        lazy, eager = FlowBank(2, width=4), FlowBank(2, 3, width=4)
        lazy(0.0, torch.randn(5, 3), 0)
        assert {n: p.shape for n, p in lazy.named_parameters()} == {n: p.shape for n, p in eager.named_parameters()}


class TestErrors:
    @pytest.mark.unhooked
    @pytest.mark.parametrize("shape", [(4,), (5, 4), (5, 2), (6, 3), (1, 3), (5, 1, 3), (7, 5, 3), ()])
    def test_weights_that_would_have_to_be_broadcast(self, shape, request):
        if shape == ():
            request.getfixturevalue("without_hook")
        remedy = "Give one weight for each of the 3 controls" if shape[-1:] != (3,) else "Nothing is broadcast; use w"
        remedy = "A schedule goes into ODEStepper or bank.bind" if shape == (7, 5, 3) else remedy
        message = (
            rf"expected weights of shape \(3,\) or \(5, 3\) for 3 controls and z of shape \(5, 4\), got .*{remedy}"
        )
        with pytest.raises(ValueError, match=message):
            FlowBank(3, 4)(0.0, torch.randn(5, 4), torch.randn(shape))

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_weights_that_are_not_finite(self, value):
        with pytest.raises(ValueError, match="expected finite weights, got NaN or infinity"):
            FlowBank(2, 4)(0.0, torch.randn(5, 4), torch.tensor([1.0, value]))

    def test_weights_of_integers(self, without_hook):
        message = r"one int or a floating-point tensor, got torch.int64. .*one_hot\(k, 2\).float\(\)"
        with pytest.raises(TypeError, match=message):
            FlowBank(2, 4)(0.0, torch.randn(5, 4), torch.tensor([1, 0]))

    def test_weights_in_a_list(self, without_hook):
        with pytest.raises(TypeError, match="one int or a floating-point tensor, got list"):
            FlowBank(2, 4)(0.0, torch.randn(5, 4), [1.0, 0.0])

    def test_weights_on_another_device(self):
        with pytest.raises(ValueError, match=r"expected weights on cpu, got meta. Use weights.to\(z\)"):
            FlowBank(2, 4)(0.0, torch.randn(5, 4), torch.ones(2, device="meta"))

    @pytest.mark.parametrize("k", [2, -1, True])
    def test_an_int_weight_beyond_the_last_field(self, k):
        bank = FlowBank(2, 4)
        for call in (lambda: bank(0.0, torch.randn(5, 4), k), lambda: bank.bind(k)):
            with pytest.raises(ValueError, match=f"a control from 0 to 1, got {k}"):
                call()

    def test_a_latent_vector_that_does_not_fit(self):
        bank = FlowBank(2, 4)
        with pytest.raises(ValueError, match=r"FlowBank: expected z of shape \(\*, 4\), got \(5, 3\)"):
            bank(0.0, torch.randn(5, 3), 0)
        with pytest.raises(TypeError, match="expected z of dtype torch.float64"):
            bank(0.0, torch.randn(5, 4, dtype=torch.float32), 0)
        with pytest.raises(ValueError, match="expected z on cpu"):
            bank(0.0, torch.randn(5, 4, device="meta"), 0)

    def test_times_of_another_batch(self, without_hook):
        with pytest.raises(ValueError, match="FlowBank: expected t to be a number or one time per sample"):
            FlowBank(2, 4)(torch.zeros(3), torch.randn(5, 4), 0)

    def test_an_unknown_control(self, without_hook):
        with pytest.raises(ValueError, match="expected control to be one of 'single', 'double', got 'triple'"):
            FlowBank(2, 4, control="triple")

    @pytest.mark.parametrize("kind", ["potential", "rotational"])
    def test_double_control_of_one_part(self, kind):
        with pytest.raises(
            ValueError, match=f"control='double' needs kind='helmholtz' with its two parts, got '{kind}'"
        ):
            FlowBank(2, 4, kind=kind, control="double")

    def test_sizes_below_one(self):
        with pytest.raises(ValueError, match="expected K to be a whole number of at least 1, got 0"):
            FlowBank(0, 4)

    def test_a_context_where_there_is_none(self):
        with pytest.raises(ValueError, match="got a context but was built without one"):
            FlowBank(2, 4)(0.0, torch.randn(5, 4), 0, torch.randn(5, 2))


def test_a_bank_on_the_meta_device_gives_shapes():
    bank = FlowBank(2, 4).to("meta")
    z = torch.randn(5, 4, device="meta")
    assert bank(0.0, z, torch.ones(2, device="meta")).shape == (5, 4)


@pytest.mark.parametrize("fields", [3.0, True, "3", ["potential"], PotentialFlowField(4), [FlowBank(2, 4)]])
def test_what_is_neither_a_number_nor_a_list_of_fields_is_refused(fields, without_hook):
    with pytest.raises(TypeError, match="number of fields or a list of modules"):
        FlowBank(fields)


def test_the_number_of_fields_may_be_numpys(without_hook):
    assert FlowBank(np.int64(3), 4).num_controls == 3


def test_a_bound_field_moves_with_its_weights():
    field = FlowBank(2, 4).bind(torch.ones(2)).to("meta")
    assert field(0.0, torch.ones(3, 4, device="meta")).shape == (3, 4)
    assert "weights" not in field.state_dict()


@pytest.mark.parametrize(
    ("context", "error"),
    [
        (torch.ones(3, 2), ValueError),
        (torch.ones(2, 5, 2), ValueError),
        (torch.ones(()), ValueError),
        (torch.ones(5, 3), ValueError),
        (torch.ones(5, 2, dtype=torch.float32), ValueError),
        (torch.ones(5, 2, dtype=torch.long), TypeError),
        ([1.0, 2.0], TypeError),
    ],
)
def test_a_context_that_does_not_fit_is_refused(context, error, without_hook):
    bank, z = FlowBank(2, 4, context_dim=2), torch.randn(5, 4)
    for call in (
        lambda: bank(0.0, z, 0, context),
        lambda: bank.jet(0.0, z, context),
        lambda: ODEStepper(bank)(z, 0, 2, context=context),
    ):
        with pytest.raises(error, match="context"):
            call()


class TestFirstCall:
    @pytest.mark.parametrize("kind", ["potential", "helmholtz"])
    def test_torch_func_cannot_be_the_first_to_call(self, kind):
        bank, z = FlowBank(2, kind=kind), torch.randn(3, 4)
        calls = (torch.func.grad(lambda z: bank(0.0, z, 0).sum()), torch.func.vmap(lambda z: bank(0.0, z, 0)))
        for call in calls:
            with pytest.raises(ValueError, match="which torch.func cannot follow. Build the bank with dim=4"):
                call(z)
            assert bank.dim is None
        bank(0.0, z, 0)
        close(calls[1](z), bank(0.0, z, 0))

    def test_one_that_is_refused_leaves_the_size_open(self, without_hook):
        bank = FlowBank(2, context_dim=3)
        with pytest.raises(ValueError, match="expected a context"):
            bank(0.0, torch.randn(8, 7), 0)
        with pytest.raises(TypeError, match="expected z of dtype"):
            bank(0.0, torch.randn(8, 7).float(), 0, torch.randn(3))
        assert bank.dim is None


@pytest.mark.parametrize("batch", [(8,), (2, 5)])
def test_a_schedule_without_a_batch_is_told_how_to_get_one(batch):
    stepper, z, weights = ODEStepper(FlowBank(3, 4)), torch.randn(*batch, 4), torch.eye(3)[[0, 0, 2]]
    with pytest.raises(ValueError, match="For one schedule for the whole batch use ") as error:
        stepper(z, weights, steps=3)
    remedy = eval(str(error.value).split(" use ")[-1].rstrip("."), {"weights": weights})
    assert stepper(z, remedy, steps=3).weights.shape == (3, *batch, 3)


def test_a_schedule_of_other_steps_is_told_how_many():
    with pytest.raises(ValueError, match=r"got \(4, 8, 3\). Give one entry for each step, or pass steps=4"):
        ODEStepper(FlowBank(3, 4))(torch.randn(8, 4), torch.randn(4, 8, 3), steps=3)


@pytest.mark.unhooked
@pytest.mark.parametrize(
    ("given", "named"),
    [
        (nn.Sequential(nn.Linear(3, 3), nn.Tanh()), "got Sequential"),
        ([nn.Linear], "got one with type"),
        ([1, 2], "got one with int"),
        ("fields", "got str"),
        (torch.tensor(2), "got Tensor"),
        (PotentialFlowField(3), "got PotentialFlowField"),
    ],
)
def test_what_is_no_list_of_fields_is_named(given, named, without_hook):
    with pytest.raises(TypeError, match=f"expected a number of fields or a list of modules, {named}"):
        FlowBank(given)


@pytest.mark.parametrize("weights", [1, torch.tensor([0.3, -1.0, 2.0, 0.5]), torch.randn(5, 4)])
def test_the_jet_of_a_mixture_has_its_velocity(weights):
    z = torch.randn(5, 3)
    for bank in (randomize(FlowBank(2, 3, control="double")), randomize(FlowBank(4, 3))):
        bound = bank.bind(weights)
        close(bound.jet(0.5, z).velocity, bound(0.5, z))


def test_weights_that_are_no_schedule_are_told_of_none():
    with pytest.raises(ValueError, match=r"expected weights of shape \(3,\) or \(8, 3\) .* use weights.expand"):
        FlowBank(3, 4)(0.0, torch.randn(8, 4), torch.randn(5, 3))


def test_a_bank_shows_what_tells_its_architecture():
    shown = repr(FlowBank(2, 4, width=8, kind="potential", activation="softplus", convex=True, context_dim=1))
    assert "width=8, kind='potential', activation='softplus', convex=True, frequencies=4, context_dim=1" in shown
