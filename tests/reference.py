"""Independent references for the tests: autograd, linear fields, and random cases."""

import itertools
import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from torchflowfield import FlowBank, FlowField, HelmholtzFlowField, PotentialFlowField, RotationalFlowField
from torchflowfield.stack import RidgeStack

FIELDS = {"potential": PotentialFlowField, "rotational": RotationalFlowField, "helmholtz": HelmholtzFlowField}
KINDS = list(FIELDS)
BATCHES = [(), (1,), (4,), (2, 3)]
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def close(actual, expected, **tolerance):
    torch.testing.assert_close(actual, expected, **(TOLERANCE | tolerance))


def gradient(function, z: Tensor) -> Tensor:
    """Gradient of `[*, D] -> [*]`, sample by sample."""
    z = z.detach().requires_grad_()
    return torch.autograd.grad(function(z).sum(), z)[0]


def jacobian(function, z: Tensor) -> Tensor:
    """Jacobian of `[*, D] -> [*, D]`, sample by sample."""
    summed = torch.autograd.functional.jacobian(lambda y: function(y).reshape(-1, y.shape[-1]).sum(0), z)
    return summed.movedim(0, -2)


def hessian(function, z: Tensor) -> Tensor:
    """Hessian of `[*, D] -> [*]`, sample by sample."""

    def slope(y):
        return torch.autograd.grad(function(y).sum(), y, create_graph=True)[0]

    return jacobian(slope, z.detach().requires_grad_())


def trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal(dim1=-2, dim2=-1).sum(-1)


def randomize(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """Parameters far from the small initial ones, so that no term is hidden by its size."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
    return module


def draw_time(draw, batch):
    return draw(
        st.sampled_from(
            [0.7, 2, torch.tensor(1.3), torch.linspace(-1.0, 3.0, 6)[: max(1, _size(batch))].reshape(batch)]
        )
    )


def _size(batch):
    return torch.Size(batch).numel()


@dataclass
class Case:
    field: FlowField
    t: float | Tensor
    z: Tensor
    context: Tensor | None

    def times(self) -> Tensor:
        return torch.as_tensor(self.t, dtype=self.z.dtype).expand(self.z.shape[:-1]).clone()


@st.composite
def field_cases(draw, kinds=tuple(FIELDS)):
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(kinds))
    batch = draw(st.sampled_from(BATCHES))
    dim, context_dim = draw(st.integers(2, 5)), draw(st.sampled_from([0, 2]))
    field = FIELDS[kind](
        dim,
        draw(st.integers(1, 8)),
        activation=draw(st.sampled_from(["logcosh", "cos", "softplus"])),
        frequencies=draw(st.sampled_from([0, 1, 3])),
        period=draw(st.floats(4.0, 40.0)),
        context_dim=context_dim,
    )
    context = torch.randn(*batch, context_dim) if context_dim else None
    return Case(randomize(field), draw_time(draw, batch), torch.randn(*batch, dim), context)


class LinearField(FlowField):
    """v = A z, whose flow is a matrix exponential."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, t, z, context=None):
        return z @ self.matrix.mT


def ridge_stack(fields=2, dim=3, width=4, **changes):
    """Parameters of `fields` Helmholtz fields that move with time, or as changed."""
    options = {
        "kind": "helmholtz",
        "activation": "logcosh",
        "convex": False,
        "frequencies": 2,
        "period": 10.0,
        "context_dim": 0,
    }
    return RidgeStack(fields, dim, width, **(options | changes))


def field_of_bank(bank: FlowBank, k: int, **options) -> FlowField:
    """Field number k of a bank, as a separate module with copied parameters."""
    width = bank.stack.bias.shape[-1]
    field = FIELDS[bank.stack.kind](bank.dim, width, **options)
    state = {n: v if n == "time.omega" else v[k : k + 1] for n, v in bank.stack.state_dict().items()}
    field.ridge.load_state_dict(state)
    return field


def compiled_graphs() -> int:
    """How many graphs were compiled since the compiler was reset."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def small_bank(fields=2, dim=3, scale=0.4, width=4, **options):
    return randomize(FlowBank(fields, dim, width=width, **options), scale)


@st.composite
def rollouts(draw):
    torch.manual_seed(draw(st.integers(0, 2**31)))
    kind = draw(st.sampled_from(KINDS))
    control = draw(st.sampled_from(["single", "double"])) if kind == "helmholtz" else "single"
    frequencies, context_dim = draw(st.sampled_from([0, 2])), draw(st.sampled_from([0, 2]))
    bank = small_bank(
        draw(st.integers(1, 3)), kind=kind, control=control, frequencies=frequencies, context_dim=context_dim
    )
    batch, steps = draw(st.sampled_from([(), (4,), (2, 3)])), draw(st.integers(0, 4))
    form = draw(st.sampled_from(["int", "K", "BK", "TBK"]))
    shapes = {"K": (), "BK": batch, "TBK": (steps, *batch)}
    if form == "int":
        weights = draw(st.integers(0, bank.num_controls - 1))
    else:
        weights = torch.randn(*shapes[form], bank.num_controls)
    context = torch.randn(*batch, context_dim) if context_dim else None
    return bank, torch.randn(*batch, 3), weights, steps, context


def states_of(K):
    return torch.tensor([bits for bits in itertools.product([0.0, 1.0], repeat=K) if any(bits)])


def conditioned(p):
    """Probabilities of all states that are not all zero, bits being on with probabilities p."""
    states = states_of(len(p))
    weight = (p * states + (1 - p) * (1 - states)).prod(-1)
    return weight / weight.sum()


def assert_frequencies(samples, expected):
    states = states_of(samples.shape[-1])
    counts = (samples[:, None] == states).all(-1).sum(0).double()
    assert counts.sum() == len(samples)
    chi2 = ((counts - len(samples) * expected).square() / (len(samples) * expected)).sum()
    degrees = len(states) - 1
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees)
