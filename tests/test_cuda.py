"""What only a GPU can show: the numbers of the CPU, no waiting for the device, and CUDA graphs for any length."""

import contextlib
import copy

import pytest
import torch
from reference import KINDS, close, randomize
from test_performance import train
from torch.profiler import ProfilerActivity, profile

from torchflowfield import (
    DiffusionPrior,
    DynamicOTLoss,
    FlowBank,
    FlowSelector,
    ODEStepper,
    PathKL,
    SpikeSlabPosterior,
    SpikeSlabPrior,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
ON_BOTH = {"rtol": 1e-9, "atol": 1e-9}


def case(kind="helmholtz", batch=6, dim=5, K=3, **options):
    bank = randomize(FlowBank(K, dim, width=8, kind=kind), 0.3).cuda()
    return ODEStepper(bank, **options), torch.randn(batch, dim).cuda(), torch.rand(batch, K).cuda()


def trains_as_the_cpu_does(stepper, z, g, steps=2):
    there = ODEStepper(copy.deepcopy(stepper.bank).cpu(), stepper.method)
    for actual, expected in zip(train(stepper, z, g, steps), train(there, z.cpu(), g.cpu(), steps), strict=True):
        close(actual.cpu(), expected, **ON_BOTH)


@contextlib.contextmanager
def no_waiting():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def launches(call):
    """How often the host starts something on the device in one call."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        call()
        torch.cuda.synchronize()
    return sum("LaunchKernel" in event.name or "GraphLaunch" in event.name for event in recorded.events())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["euler", "rk4"])
def test_training_gives_the_numbers_of_the_cpu(kind, method):
    trains_as_the_cpu_does(*case(kind, method=method), 3)


@pytest.mark.parametrize("options", [{"density": "exact"}, {"method": "dopri5"}, {"checkpoint": True}])
@pytest.mark.parametrize("reverse", [False, True])
def test_every_density_and_direction_gives_the_numbers_of_the_cpu(options, reverse):
    here, z, g = case(**options)
    there = copy.deepcopy(here).cpu()
    one, other = (s(x, w, 3, reverse=reverse) for s, x, w in ((here, z, g), (there, z.cpu(), g.cpu())))
    close(one.z.cpu(), other.z, **ON_BOTH)
    close(one.log_det.cpu(), other.log_det, **ON_BOTH)


def test_inferred_coefficients_have_the_divergence_of_the_cpu():
    posterior, prior = SpikeSlabPosterior(7, K=3).cuda().eval(), SpikeSlabPrior(3, learnable=True).cuda()
    features = torch.randn(4, 6, 7).cuda()
    there = [copy.deepcopy(module).cpu() for module in (posterior, prior)]
    close(prior.kl(posterior(features)).total.cpu(), there[1].kl(there[0](features.cpu())).total, **ON_BOTH)
    drawn = prior.sample((6,), steps=4)
    assert prior.log_prob(drawn.spikes, drawn.slabs).is_cuda


def test_a_bank_of_unknown_size_is_made_where_it_lies():
    bank = FlowBank(K=2).cuda()
    assert ODEStepper(bank)(torch.randn(3, 4).cuda(), 0, steps=2).z.is_cuda
    assert all(p.is_cuda for p in bank.parameters())


def test_a_supervised_step_never_waits_for_the_device():
    stepper, z, g = case()
    loss, kl = DynamicOTLoss(initial_weight=1.0, kinetic_weight=1.0), PathKL(DiffusionPrior(3).cuda())
    with no_waiting():
        for weights in (1, g, g.expand(3, *g.shape)):
            path = stepper(z, weights, steps=3)
            log_prob = -0.5 * z.square().sum(-1)
            (path.z.square().mean() + loss(path).total + kl(path, log_prob).total).backward()
        with torch.no_grad():
            stepper(z, 0, steps=3, record=False)


@pytest.mark.parametrize("dim", [5, 30])
def test_exact_densities_never_wait_for_the_device(dim):
    """By determinants of D × D, and by the lemma where units are fewer than axes."""
    stepper, z, g = case(dim=dim, density="exact")
    z.requires_grad_()
    with no_waiting():
        for weights in (1, g):
            path = stepper(z, weights, steps=3)
            (path.z.square().mean() + path.log_det.mean()).backward()


def test_an_unsupervised_step_never_waits_for_the_device():
    stepper, z, _ = case()
    posterior, prior = SpikeSlabPosterior(7, K=3).cuda(), SpikeSlabPrior(3, learnable=True).cuda()
    selector, features = FlowSelector(7, K=3).cuda(), torch.randn(4, 6, 7).cuda()
    with no_waiting():
        draw, choice = posterior(features, 0.5), selector(features[0])
        paths = [stepper(z, inferred.weights, steps=4).z for inferred in (draw, choice)]
        kl = prior.kl(draw).total.mean() + selector.kl(choice).mean()
        (torch.stack(paths).square().mean() + kl).backward()


def test_a_training_step_can_be_captured_whole():
    """Nothing in it waits for the device, so that it is one CUDA graph, backward pass and all."""
    stepper, z, g = case()
    leaves, loss = [z.requires_grad_(), *stepper.bank.parameters()], DynamicOTLoss(initial_weight=1.0)

    def step():
        for leaf in leaves:
            leaf.grad = None
        path = stepper(z, g, steps=2)
        (path.z.square().mean() + path.log_det.mean() + loss(path).total).backward()

    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    with torch.no_grad():
        z.normal_()
    graph.replay()
    found = [leaf.grad.clone() for leaf in leaves]
    step()
    for actual, leaf in zip(found, leaves, strict=True):
        close(actual, leaf.grad, **ON_BOTH)


def test_weights_that_are_not_finite_show_in_the_path():
    """A check of them would wait for the device."""
    stepper, z, g = case()
    assert stepper(z, g * float("nan"), steps=1).z[-1].isnan().all()


@pytest.mark.parametrize("kind", KINDS)
def test_autocast_stays_close(kind):
    stepper, z, g = case(kind, batch=64, dim=16)
    stepper, z, g = stepper.float(), z.float(), g.float()
    exact = stepper(z, g, steps=4)
    with torch.autocast("cuda", torch.bfloat16):
        rounded = stepper(z, g, steps=4)
    assert (rounded.z - exact.z).norm() < 2e-2 * exact.z.norm()
    assert (rounded.log_det - exact.log_det).norm() <= 5e-2 * exact.log_det.norm()


@pytest.mark.skipif(torch.cuda.is_available() and torch.cuda.get_device_capability() < (8, 0), reason="needs TF32")
def test_tf32_stays_close():
    stepper, z, g = case(batch=64, dim=16)
    stepper, z, g = stepper.float(), z.float(), g.float()
    exact = stepper(z, g, steps=4)
    torch.set_float32_matmul_precision("high")
    try:
        rounded = stepper(z, g, steps=4)
    finally:
        torch.set_float32_matmul_precision("highest")
    assert 0 < (rounded.z - exact.z).norm() < 5e-3 * exact.z.norm()


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
class TestCompiled:
    def test_a_compiled_step_trains_as_the_cpu_does(self):
        trains_as_the_cpu_does(*case(compile=True))

    def test_cuda_graphs_train_as_the_cpu_does(self):
        graphs, z, g = case(compile="reduce-overhead")
        for turn in range(4):
            trains_as_the_cpu_does(graphs, z + turn, g)

    def test_paths_of_cuda_graphs_outlive_later_calls(self):
        """Of any length: 6 is composed of two pieces."""
        eager, z, g = case()
        graphs = ODEStepper(eager.bank, compile="reduce-overhead")
        with torch.no_grad():
            for _ in range(3):
                kept = [
                    (graphs(z + i, g, n, record=False), eager(z + i, g, n, record=False)) for i, n in enumerate((3, 6))
                ]
                kept.append((graphs(z, 1, 3, record=False), eager(z, 1, 3, record=False)))
                kept.append((graphs(z, g, 3, reverse=True), eager(z, g, 3, reverse=True)))
                for actual, expected in kept:
                    close(actual.z, expected.z, **ON_BOTH)
                    close(actual.log_det, expected.log_det, **ON_BOTH)

    def test_two_rollouts_of_one_loss_share_a_backward_pass(self):
        eager, z, g = case()
        graphs = ODEStepper(eager.bank, compile="reduce-overhead")
        for _ in range(4):
            found = []
            for stepper in (graphs, eager):
                loss = stepper(z, g, 3).z.square().mean() + stepper(z + 1, g, 6).z.square().mean()
                found.append(torch.autograd.grad(loss, eager.bank.stack.weight)[0])
            close(*found, **ON_BOTH)

    def test_cuda_graphs_take_few_launches_and_compiled_steps_fewer_than_eager_ones(self):
        eager, z, g = case()
        steppers = [eager, *(ODEStepper(eager.bank, compile=how) for how in (True, "reduce-overhead"))]
        with torch.no_grad():
            calls = [lambda s=s: s(z, g, 16, record=False) for s in steppers]
            for call in calls[1:]:
                for _ in range(3):
                    call()
            one, fused, graph = map(launches, calls)
        assert graph < fused < one
        assert graph < 20
