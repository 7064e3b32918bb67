import pytest
import torch
from reference import LinearField, close, gradient, jacobian, randomize, trace
from torch import nn

from torchflowfield import (
    AutogradPotential,
    FlowBank,
    FlowField,
    HelmholtzFlowField,
    ModuleField,
    ODEStepper,
    PotentialFlowField,
)
from torchflowfield.interface import Jet


class Timed(nn.Module):
    """A plain module v(t, z), with a context as its third argument."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, t, z, context=None):
        velocity = self.linear(z).tanh() * (1 + torch.as_tensor(t)[..., None])
        return velocity if context is None else velocity + context


class Well(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, t, z, context=None):
        inner = self.linear(z) if context is None else self.linear(z + context)
        return inner.tanh().sum(-1) * (1 + t)


@pytest.fixture
def fields():
    return [randomize(HelmholtzFlowField(3, 4)), Timed(), AutogradPotential(Well()), LinearField(torch.randn(3, 3))]


def test_a_module_field_has_every_quantity_by_autograd():
    module = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 3))

    class Timed(nn.Module):
        def __init__(self):
            super().__init__()
            self.module = module

        def forward(self, t, z, context=None):
            velocity = self.module(z) * torch.as_tensor(t).reshape(-1, 1)
            return velocity if context is None else velocity + context

    field, t, z, x = ModuleField(Timed()), torch.rand(4), torch.randn(4, 3), torch.randn(4, 3)
    expected = jacobian(lambda y: field(t, y), z)
    close(field.jacobian(t, z), expected)
    close(field.jvp(t, z, x), (expected @ x[..., None]).squeeze(-1))
    close(field.divergence(t, z), trace(expected))
    close(field.log_det(t, z, 0.5), torch.linalg.slogdet(torch.eye(3) + 0.5 * expected).logabsdet)
    jet = field.jet(t, z)
    close(jet.laplacian, trace(expected))
    close(jet.velocity, field(t, z))
    for absent in (jet.potential, jet.time_derivative, jet.gradient):
        assert (absent == 0).all()
    context = torch.randn(4, 3)
    close(field(t, z, context), field(t, z) + context)
    close(field.jacobian(t, z, context), expected)


@pytest.mark.parametrize("t", [0.7, torch.linspace(0, 1, 5)])
def test_a_bank_of_ones_own_fields_mixes_them(fields, t):
    bank, z, g = FlowBank(fields), torch.randn(5, 3), torch.randn(5, 4)
    each = torch.stack([f(torch.as_tensor(t), z) for f in fields], 1)
    mixture = bank.bind(g)
    close(bank(t, z, g), (g[..., None] * each).sum(1))
    expected = jacobian(lambda y: bank(t, y, g), z)
    x = torch.randn(5, 3)
    close(mixture.jacobian(t, z), expected)
    close(mixture.jvp(t, z, x), (expected @ x[..., None]).squeeze(-1))
    close(mixture.divergence(t, z), trace(expected))
    close(mixture.log_det(t, z, 0.2), torch.linalg.slogdet(torch.eye(3) + 0.2 * expected).logabsdet)


def test_each_field_is_reached_by_its_number(fields):
    bank, z = FlowBank(fields), torch.randn(5, 3)
    for k, field in enumerate(fields):
        expected = field(torch.tensor(0.3), z)
        close(bank(0.3, z, k), expected)
        close(bank[k](0.3, z), expected)
        close(bank(0.3, z, torch.eye(4)[k]), expected)


def test_the_jet_has_a_field_axis_and_potentials_where_there_are_any(fields):
    bank, z = FlowBank(fields), torch.randn(2, 5, 3)
    jet = bank.jet(0.3, z)
    assert jet.velocity.shape == (2, 5, 4, 3)
    assert jet.potential.shape == (2, 5, 4)
    assert (jet.gradient[..., [1, 3], :] == 0).all()
    close(jet.gradient[..., 2, :], gradient(lambda y: bank.jet(0.3, y).potential[..., 2], z))
    close(jet.laplacian[..., 1], bank[1].divergence(0.3, z))
    close(jet.velocity.sum(-2), bank(0.3, z, torch.ones(4)))


def test_a_context_reaches_every_field():
    fields = [HelmholtzFlowField(3, 4, context_dim=3), Timed(), AutogradPotential(Well())]
    bank, z, context = FlowBank(fields), torch.randn(5, 3), torch.randn(5, 3)
    each = torch.stack([f(torch.tensor(0.3), z, context) for f in fields], 1)
    close(bank(0.3, z, torch.ones(3), context), each.sum(1))
    close(bank.jet(0.3, z, context).velocity, each)
    close(bank[1].jacobian(0.3, z, context), bank[1].jacobian(0.3, z))


def test_a_generator_of_fields_will_do():
    bank = FlowBank(LinearField(torch.eye(2)) for _ in range(3))
    assert (len(bank), bank.num_controls, bank.dim) == (3, 3, None)


def test_the_parameters_of_ones_own_fields_train_through_a_rollout(fields):
    bank = FlowBank(fields)
    path = ODEStepper(bank, "rk4")(torch.randn(5, 3), torch.rand(5, 4), steps=2)
    (path.z[-1].square().sum() + path.log_det.sum()).backward()
    for name, parameter in bank.named_parameters():
        if "context" not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
def test_a_rollout_of_wrapped_fields_is_that_of_the_stacked_ones(method):
    stacked = randomize(FlowBank(1, 3, width=4, kind="potential"), 0.4)
    own = PotentialFlowField(3, 4)
    own.ridge.load_state_dict(stacked.stack.state_dict())
    z, g = torch.randn(5, 3), torch.randn(4, 5, 1)
    one, other = (ODEStepper(b, method, substeps=2)(z, g, steps=4) for b in (stacked, FlowBank([own])))
    for name in ("t", "z", "log_det", "active", "time_derivative", "gradient_norm2", "initial_norm2", "kinetic"):
        close(getattr(one, name), getattr(other, name))


def test_an_empty_list_is_an_error():
    with pytest.raises(ValueError, match="at least one field, got an empty list"):
        FlowBank([])


@pytest.mark.parametrize(
    "option", [{"dim": 3}, {"width": 64}, {"kind": "potential"}, {"control": "double"}, {"context_dim": 2}]
)
def test_a_list_with_another_argument_is_an_error(option):
    with pytest.raises(ValueError, match="a list of fields brings its own sizes"):
        FlowBank([LinearField(torch.eye(2))], **option)


def test_an_integer_latent_vector_is_an_error(without_hook):
    with pytest.raises(TypeError, match="FlowBank: expected a floating-point tensor z, got torch.int64"):
        FlowBank([LinearField(torch.eye(2))])(0.0, torch.ones(5, 2, dtype=torch.long), 0)


@pytest.mark.parametrize("missing", [(), (0,)])
def test_a_module_that_returns_no_velocities_is_refused(missing):
    class Forgotten(nn.Module):
        def forward(self, t, z):
            u = z.square().sum(-1, keepdim=True)
            return u.squeeze(-1) if missing else u

    bank = FlowBank([Forgotten()])
    for call in (
        lambda: bank(0.0, torch.randn(5, 4), 0),
        lambda: ODEStepper(bank, density=None)(torch.randn(5, 4), 0, 2, record=False),
        lambda: ODEStepper(bank)(torch.randn(5, 4), 0, 2),
    ):
        with pytest.raises(ValueError, match="AutogradPotential"):
            call()


class Shift(FlowField):
    """The same velocity everywhere, as one vector for all samples: it should be one for each."""

    def forward(self, t, z, context=None):
        return torch.ones(3)


class Bowl(FlowField):
    """A potential where a velocity is wanted."""

    def forward(self, t, z, context=None):
        return z.square().sum(-1)


@pytest.mark.parametrize("field", [Shift(), Bowl()])
@pytest.mark.parametrize("density", ["trace", None])
@pytest.mark.parametrize("record", [True, False])
def test_a_field_that_returns_no_velocities_is_refused(field, density, record):
    bank = FlowBank([field])
    named = rf"expected {type(field).__name__} to return velocities of shape \(3, 3\), as z, got \(3,\)"
    with pytest.raises(ValueError, match=named):
        ODEStepper(bank, density=density)(torch.zeros(3, 3), 0, steps=1, record=record)
    with pytest.raises(ValueError, match=named):
        bank(0.0, torch.zeros(3, 3), 0)


@pytest.mark.parametrize("density", ["trace", "exact"])
def test_codes_may_share_memory(density):
    bank, z = FlowBank([Timed(), AutogradPotential(Well())]), torch.randn(5, 3).expand(4, 5, 3)
    stepper = ODEStepper(bank, density=density)
    for weights in (0, 1, torch.ones(2)):
        close(stepper(z, weights, steps=2), stepper(z.contiguous(), weights, steps=2))


@pytest.mark.parametrize(("method", "density", "expected"), [("euler", "trace", 2), ("euler", None, 0),
                                                             ("euler", "exact", 0), ("dopri5", None, 0)])  # fmt: skip
def test_a_laplacian_is_computed_only_where_it_is_wanted(method, density, expected, monkeypatch):
    field, counted = AutogradPotential(Well()), []
    divergence = field.divergence
    monkeypatch.setattr(field, "divergence", lambda *args: counted.append(1) or divergence(*args))
    tight = {"rtol": 1e-12, "atol": 1e-13}
    path = ODEStepper(FlowBank([field]), method, density=density, **tight)(torch.randn(5, 3), 0, steps=2)
    assert len(counted) == expected
    with_density = ODEStepper(FlowBank([field]), method, **tight)(path.z[0], 0, steps=2)
    for name in ("time_derivative", "gradient_norm2", "initial_norm2", "kinetic"):
        close(getattr(path, name), getattr(with_density, name))
    counted.clear()
    later = ODEStepper(FlowBank([field]), method, density=density, **tight)(path.z[0], 0, steps=2, start=1.0)
    assert len(counted) == expected
    close(later.initial_norm2, with_density.initial_norm2)


class Doubled(AutogradPotential):
    """Twice a potential, in all its quantities."""

    def forward(self, t, z, context=None):
        return 2 * super().forward(t, z, context)

    def divergence(self, t, z, context=None):
        return 2 * super().divergence(t, z, context)

    def jet(self, t, z, context=None):
        jet = super().jet(t, z, context)
        return Jet(*(2 * x for x in (*jet[:3], 0.5 * jet.laplacian, jet.gradient)))


@pytest.mark.parametrize("density", ["trace", None, "exact"])
def test_a_jet_of_ones_own_is_the_one_that_counts(density):
    bank, z = FlowBank([Doubled(Well())]), torch.randn(5, 3)
    recorded, plain = (ODEStepper(bank, density=density)(z, 0, steps=2, record=r) for r in (True, False))
    close(recorded.z, plain.z)
    close(recorded.initial_norm2[..., 0], bank.stack.fields[0].jet(0.0, z).gradient.square().sum(-1))


class Counted(ModuleField):
    def divergence(self, t, z, context=None):
        self.count = getattr(self, "count", 0) + 1
        return super().divergence(t, z, context)


@pytest.mark.parametrize(("density", "counted"), [("trace", 3), (None, 0)])
def test_a_divergence_is_computed_only_where_it_is_wanted(density, counted):
    class Shrinking(nn.Module):
        def forward(self, t, z):
            return -0.5 * z

    field = Counted(Shrinking())
    path = ODEStepper(FlowBank([field]), density=density)(torch.randn(5, 4), 0, steps=3)
    assert getattr(field, "count", 0) == counted
    assert (path.gradient_norm2 == 0).all()
    assert path.kinetic.min() > 0


def test_a_velocity_with_dropout_has_paths_without_density():
    class Dropped(nn.Module):
        def forward(self, t, z):
            return nn.functional.dropout(z, 0.5)

    z, one = torch.ones(64, 4), torch.tensor([1.0, 0.0])
    for fields, weights in (([Dropped()], 0), ([Dropped(), PotentialFlowField(4)], one)):
        path = ODEStepper(FlowBank(fields), density=None)(z, weights, steps=1)
        assert {float(x) for x in path.z[-1].unique()} == {1.0, 3.0}
        assert (path.gradient_norm2[..., 0] == 0).all()


@pytest.mark.parametrize(("kind", "expected"), [("rotational", False), ("helmholtz", True)])
def test_a_field_of_a_bank_has_a_potential_if_its_bank_does(kind, expected):
    rotations = FlowBank(2, 4, kind=kind)
    assert FlowBank([*rotations, PotentialFlowField(4)]).stack.potentials == (expected, expected, True)
    assert rotations.bind(torch.ones(2)).has_potential == expected


def test_the_rotation_of_a_field_alone_has_no_potential():
    double = FlowBank(2, 4, control="double")
    assert [double.bind(k).has_potential for k in range(4)] == [True, True, False, False]
    path = ODEStepper(FlowBank([double.bind(3)]))(torch.randn(5, 4), 0, steps=2)
    assert (path.active == 0).all()


def test_steps_of_a_network_as_a_potential_cannot_be_recomputed():
    with pytest.raises(ValueError, match="checkpoint=True cannot recompute an AutogradPotential"):
        ODEStepper(FlowBank([AutogradPotential(Well())]), checkpoint=True)
