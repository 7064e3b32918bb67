"""What speed rests on: few graphs, few products, little memory, and the same numbers every time."""

import pytest
import torch
from reference import close, compiled_graphs, randomize
from torch.utils._python_dispatch import TorchDispatchMode

from torchflowfield import DynamicOTLoss, FlowBank, ODEStepper

PRODUCTS = {"aten.mm", "aten.addmm", "aten.bmm", "aten.baddbmm"}


class CountProducts(TorchDispatchMode):
    """Counts products of two matrices, not those with a vector, whose arithmetic grows with the batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.count = batch, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).rsplit(".", 1)[0] in PRODUCTS:
            shapes = [x.shape[-2:] for x in args[-2:]]
            sizes = {size for shape in shapes for size in shape}
            self.count += self.batch in sizes and 1 not in sizes
        return function(*args, **(kwargs or {}))


def saved_bytes(function):
    """Result of `function` and the size of what autograd keeps for its backward pass, parameters aside."""
    kept = {}

    def pack(x):
        if not isinstance(x, torch.nn.Parameter):
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        result = function()
    return result, sum(kept.values())


def train(stepper, z, g, steps):
    """Path and loss, and its gradients with respect to z and every parameter."""
    z = z.detach().requires_grad_()
    path = stepper(z, g, steps=steps)
    loss = path.z.square().mean() + path.log_det.square().mean() + DynamicOTLoss(initial_weight=1.0)(path).total
    return [path.z.detach().clone(), loss, *torch.autograd.grad(loss, [z, *stepper.bank.parameters()])]


@pytest.mark.parametrize(("kind", "products"), [("potential", 2), ("rotational", 2), ("helmholtz", 2)])
def test_a_velocity_with_its_divergence_is_two_products(kind, products):
    bank, z = FlowBank(3, 5, width=4, kind=kind), torch.randn(17, 5)
    with CountProducts(17) as counted:
        ODEStepper(bank)(z, torch.rand(3), steps=6, record=False)
    assert counted.count == 6 * products


@pytest.mark.parametrize(("kind", "products"), [("potential", 2), ("rotational", 2), ("helmholtz", 3)])
def test_what_the_losses_need_costs_no_further_evaluation(kind, products):
    bank, z = FlowBank(3, 5, width=4, kind=kind), torch.randn(17, 5)
    with CountProducts(17) as counted:
        ODEStepper(bank)(z, torch.rand(3), steps=6)
    assert counted.count == 6 * products


def test_a_training_step_is_six_products():
    bank, z = FlowBank(3, 5, width=4, kind="potential"), torch.randn(17, 5, requires_grad=True)
    with CountProducts(17) as counted:
        path = ODEStepper(bank)(z, torch.rand(17, 3), steps=1)
        (path.z[-1].square().mean() + path.log_det[-1].mean() + DynamicOTLoss()(path).total).backward()
    assert counted.count == 6


@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_checkpoints_save_memory_and_change_nothing(method):
    bank = randomize(FlowBank(2, 3, width=32), 0.3)
    z, g = torch.randn(16, 3), torch.rand(16, 2)
    plain, light = (ODEStepper(bank, method, checkpoint=c) for c in (False, True))
    for one, other in zip(train(plain, z, g, 4), train(light, z, g, 4), strict=True):
        assert torch.equal(one, other)
    full, sparse = (saved_bytes(lambda s=s: s(z, g, steps=8, record=False))[1] for s in (plain, light))
    assert sparse < full / 4


def test_checkpoints_do_nothing_without_gradients():
    bank, z = FlowBank(2, 3), torch.randn(5, 3)
    with torch.no_grad():
        one, other = (ODEStepper(bank, checkpoint=c)(z, 0, steps=3).z for c in (False, True))
    assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_gives_the_same_bits_every_time(dtype):
    def once():
        torch.manual_seed(3)
        bank = FlowBank(3, 16, width=32).to(dtype)
        return train(ODEStepper(bank), torch.randn(64, 16, dtype=dtype), torch.rand(64, 3, dtype=dtype), 3)

    for one, other in zip(once(), once(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
class TestGraphs:
    def test_schedules_starts_and_batches_share_a_graph(self, tracing_alone):
        stepper = ODEStepper(FlowBank(2, 3, width=4), compile=True)
        for batch in (5, 7, 11, 64):
            stepper(torch.randn(batch, 3), torch.rand(4, batch, 2), 4, start=torch.rand(()).item() + 1)
        assert compiled_graphs() <= 2

    def test_checkpoints_compile_whole(self, tracing_alone):
        bank = randomize(FlowBank(2, 3, width=4), 0.3)
        z, g = torch.randn(5, 3), torch.rand(5, 2)
        compiled, eager = (ODEStepper(bank, checkpoint=True, compile=c) for c in (True, False))
        for actual, expected in zip(train(compiled, z, g, 2), train(eager, z, g, 2), strict=True):
            close(actual, expected)
        assert compiled_graphs() == 1

    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
    def test_compiled_training_agrees_with_eager(self, dtype, tolerance):
        bank = FlowBank(3, 16, width=32).to(dtype)
        z, g = torch.randn(64, 16, dtype=dtype), torch.rand(64, 3, dtype=dtype)
        compiled, eager = (ODEStepper(bank, compile=c) for c in (True, False))
        for actual, expected in zip(train(compiled, z, g, 2), train(eager, z, g, 2), strict=True):
            assert (actual - expected).norm() <= tolerance * expected.norm()
