"""What is measured: each section returns rows that `report` prints."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
import torchdiffeq
from contenders import Case, check_agreement, difference, profile_slope, signs
from timing import Clock, matmul_precision
from torch import Tensor, nn

from torchflowfield import (
    DynamicOTLoss,
    FlowBank,
    ODEStepper,
    SpikeSlabPosterior,
    SpikeSlabPrior,
)

SIZES = [(128, 324, 3), (128, 64, 3), (128, 226, 5), (512, 32, 8), (4096, 16, 3), (1, 16, 3)]
# Beside them, sizes that fill a GPU.
LARGE_SIZES = [(8192, 324, 3), (65536, 64, 3), (262144, 16, 3)]
# Sizes from which on products dominate: what grows starts here, what does not stays here, and D is H.
SCALING = {"cpu": {"B": 256, "K": 4, "H": 256, "T": 4}, "cuda": {"B": 4096, "K": 4, "H": 1024, "T": 4}}
GRAPHS = "reduce-overhead"


def compiled(function: Callable, **options: Any) -> Callable:
    """`torch.compile` without the graphs of other sizes."""
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, **options)


def train(clock: Clock, size: tuple[int, int, int], slow: bool) -> dict:
    """One mixed-field step forward and backward with Hamilton–Jacobi residual and divergence."""
    case = Case(size, clock.device)
    begin = time.perf_counter()
    ours = compiled(case.ours)
    case.step(ours)()
    seconds = time.perf_counter() - begin
    # What PyTorch takes for entering compiled code and giving z and the parameters a gradient.
    empty = torch.compile(lambda z, g: sum(x.sum() for x in case.leaves), fullgraph=True)
    contenders = {
        "six products": case.products(False),
        "six products, φ and φ′": case.products(True),
        "an empty compiled step": case.step(empty),
        "torchflowfield, eager": case.step(case.ours),
        "torchflowfield, compiled": case.step(ours),
    }
    if clock.device == "cuda":
        contenders |= _on_gpu(case, ours)
    else:
        # A function of its own: the compiler keeps one graph for each.
        wrapped = torch.compile(lambda z, g: case.ours(z, g), fullgraph=True, options={"cpp_wrapper": True})
        contenders["torchflowfield, compiled, C++ wrapper"] = case.step(wrapped)
    contenders["nested autograd, one probe"] = case.step(case.nested(False))
    work = case.B * case.D * case.D * case.K
    if work < 1 << 26:
        contenders["torch.func, one probe"] = case.step(case.functional(False))
    if slow:
        contenders["nested autograd, exact"] = case.step(case.nested(True))
        if work <= 1 << 22:
            contenders["torch.func, exact"] = case.step(case.functional(True))
    differences = {
        "difference_to_nested": check_agreement(case, case.ours, case.nested(True)) if slow else None,
        "difference_of_compiled": check_agreement(case, ours, case.ours),
    }
    rows = clock.compare(contenders, "six products", leaves=case.leaves)
    arithmetic = 6 * 2 * work
    traffic = 4 * 6 * case.K * (2 * case.B * case.D + case.D * case.D)
    return {
        "rows": rows,
        "compile_s": seconds,
        "gflop": arithmetic / 1e9,
        "flop_per_byte": arithmetic / traffic,
        **differences,
    }


def _on_gpu(case: Case, ours: Callable) -> dict[str, Callable[[], None]]:
    """A step by CUDA graphs; where products dominate, also with products in lower precision."""

    def graphs(loss: Callable) -> Callable[[], None]:
        return case.step(torch.compile(loss, fullgraph=True, mode=GRAPHS))

    def rounded(z: Tensor, g: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16):
            return case.ours(z, g)

    tf32 = graphs(lambda z, g: case.ours(z, g))

    def in_tf32() -> None:
        with matmul_precision("high"):
            tf32()

    steps = {
        "torchflowfield, CUDA graphs": graphs(case.ours),
        "torchflowfield, eager, one CUDA graph": _captured(case, case.ours),
        "torchflowfield, compiled, one CUDA graph": _captured(case, ours),
    }
    if case.D > 128:
        steps["torchflowfield, CUDA graphs, TF32"] = in_tf32
        steps["torchflowfield, CUDA graphs, bfloat16"] = graphs(rounded)
    return steps


def _captured(case: Case, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
    """The whole step, backward pass and all, as one CUDA graph."""
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            case.step(loss)()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        case.step(loss)()
    return graph.replay


def unsupervised(clock: Clock, size: tuple[int, int, int], slow: bool, steps: int = 2) -> dict:
    """Helmholtz fields on a spike-and-slab schedule with its divergence from the prior, forward and backward."""
    case = Case(size, clock.device, "helmholtz")
    posterior = SpikeSlabPosterior(64, case.K, slab=torch.distributions.Laplace).to(clock.device)
    prior = SpikeSlabPrior(case.K, slab=torch.distributions.Laplace(1.0, 0.1)).to(clock.device)
    features = torch.randn(steps, case.B, 64, device=clock.device)
    transport = DynamicOTLoss()
    case.leaves += posterior.parameters()

    def objective(roll: Callable) -> Callable[[Tensor, Tensor], Tensor]:
        def loss(z: Tensor, g: Tensor) -> Tensor:
            torch.manual_seed(0)
            draw = posterior(features, 0.5)
            kl = prior.kl(draw)
            return roll(z, draw.weights) + (kl.spike + kl.slab).sum(0).mean()

        return loss

    def ours(z: Tensor, weights: Tensor) -> Tensor:
        path = case.stepper(z, weights, steps=steps)
        return path.z[-1].square().mean() + transport(path).total + path.log_det[-1].mean()

    def nested(exact: bool) -> Callable[[Tensor, Tensor], Tensor]:
        def roll(z: Tensor, weights: Tensor) -> Tensor:
            stack, log_det, residual = case.bank.stack, 0.0, 0.0
            for n in range(steps):
                t = z.new_full((len(z),), float(n)).requires_grad_()
                velocity, trace = 0.0, 0.0
                for k in range(case.K):
                    u = case._potential(k, t, z).sum()
                    rate, gradient = torch.autograd.grad(u, (t, z), create_graph=True)
                    unit = nn.functional.normalize(stack.weight[k], dim=-1)
                    across = stack.cross[k] * case.D**-0.5
                    across = across - (across * unit).sum(-1, keepdim=True) * unit
                    shift = stack.bias[k] + stack.time(t) @ stack.bias_time[k].T
                    field = gradient + torch.tanh(z @ stack.weight[k].T + shift) @ across
                    g = weights[n, :, k]
                    if exact:
                        rows = [
                            torch.autograd.grad(field[:, d].sum(), z, create_graph=True)[0][:, d] for d in range(case.D)
                        ]
                        trace = trace + g * sum(rows)
                    else:
                        probe = signs(z)
                        product = torch.autograd.grad(field, z, probe, create_graph=True)[0]
                        trace = trace + g * (product * probe).sum(-1)
                    velocity = velocity + g[:, None] * field
                    residual = residual + (rate + 0.5 * gradient.square().sum(-1)).square().mean()
                z, log_det = z + velocity, log_det + trace
            return z.square().mean() + residual / (case.K * steps) + log_det.mean()

        return roll

    # On a GPU a compiled rollout is a CUDA graph.
    name, mode = ("CUDA graphs", GRAPHS) if clock.device == "cuda" else ("compiled rollout", None)
    eager, fused, exact = map(objective, (ours, compiled(ours, mode=mode), nested(True)))
    contenders = {
        "torchflowfield, eager": case.step(eager),
        f"torchflowfield, {name}": case.step(fused),
        "nested autograd, one probe": case.step(objective(nested(False))),
    }
    if slow:
        contenders["nested autograd, exact traces"] = case.step(exact)
    differences = {
        "difference_to_nested": check_agreement(case, eager, exact),
        "difference_of_compiled": check_agreement(case, fused, eager),
    }
    return {
        "rows": clock.compare(contenders, "torchflowfield, eager", leaves=case.leaves),
        "steps": steps,
    } | differences


def rollout(clock: Clock, size: tuple[int, int, int], slow: bool, steps: int = 16) -> dict:
    """16 steps without gradient, mixed Helmholtz fields, velocity alone."""
    case = Case(size, clock.device, "helmholtz")
    z0, field, times = case.z.detach(), case.bank.bind(case.g), torch.arange(steps + 1.0, device=clock.device)
    eager = {m: ODEStepper(case.bank, m, density=None) for m in ("euler", "rk4")}

    def naive(t: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            total = 0.0
            for k in range(case.K):
                u = case._potential(k, t.expand(len(z)), z).sum()
                total = total + case.g[:, k : k + 1] * torch.autograd.grad(u, z)[0]
        return total.detach()

    def ours(stepper: ODEStepper) -> Callable[[], object]:
        return _frozen(lambda: stepper(z0, case.g, steps=steps, record=False).z)

    def solve(method: str, **options: Any) -> Callable[[], object]:
        return _frozen(lambda: torchdiffeq.odeint(field, z0, times, method=method, **options))

    weight = case.bank.stack.weight.detach().flatten(0, 1)

    def floor(z: Tensor, slope: Callable[[Tensor], Tensor] = profile_slope) -> Tensor:
        # What no solver of these fields can avoid: from z to the units and back, as often as Euler steps. Each starts
        # where the last one ended, lest the compiler computes one for all.
        for _ in range(steps):
            z = slope(z @ weight.T) @ weight
        return z

    def fast(method: str) -> dict[str, Callable[[], object]]:
        ways: dict[str, Any] = {"compiled": True}
        if clock.device == "cuda":
            ways = ways | {"CUDA graphs": GRAPHS} if method == "euler" else {"CUDA graphs": GRAPHS}
        elif method == "euler":
            ways["compiled, C++ wrapper"] = {"cpp_wrapper": True}
        steppers = {way: ODEStepper(case.bank, method, density=None, compile=how) for way, how in ways.items()}
        return {f"torchflowfield {method}, {way}": ours(stepper) for way, stepper in steppers.items()}

    way, mode = ("CUDA graphs", GRAPHS) if clock.device == "cuda" else ("compiled", None)
    fused_floor = compiled(floor, mode=mode)
    contenders = {
        "products alone": _frozen(lambda: floor(z0, lambda a: a)),
        "products and φ′ alone": _frozen(lambda: floor(z0)),
        f"products and φ′ alone, {way}": _frozen(lambda: fused_floor(z0)),
        "torchflowfield euler, eager": ours(eager["euler"]),
        **fast("euler"),
        "torchdiffeq euler": solve("euler"),
        "torchflowfield rk4, eager": ours(eager["rk4"]),
        **fast("rk4"),
        "torchdiffeq rk4 (3/8 rule)": solve("rk4"),
        "torchdiffeq dopri5": solve("dopri5", rtol=1e-5, atol=1e-6),
        "torchdiffeq euler, gradients alone by autograd": _frozen(
            lambda: torchdiffeq.odeint(naive, z0, times, method="euler")
        ),
    }
    notes = []
    for name, add in (("torchode", _torchode), ("torchdyn", _torchdyn)):
        try:
            contenders[f"{name} {'dopri5' if name == 'torchode' else 'euler'}"] = _frozen(add(field, z0, times))
        except ImportError:
            notes.append(f"{name} is not installed")
    one, other = contenders["torchflowfield euler, eager"](), contenders["torchdiffeq euler"]()
    fused = contenders["torchflowfield euler, compiled"]()
    differences = {
        "difference_to_torchdiffeq": difference(one, other),
        "difference_of_compiled": difference(fused, one),
    }
    return {"rows": clock.compare(contenders, "torchflowfield euler, eager"), "notes": notes} | differences


def _frozen(call: Callable[[], object]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return call()

    return run


def _torchode(field: nn.Module, z: Tensor, times: Tensor) -> Callable[[], object]:
    import torchode

    def batched(t: Tensor, y: Tensor) -> Tensor:
        return field(t, y)

    term = torchode.ODETerm(batched)
    solver = torchode.AutoDiffAdjoint(
        torchode.Dopri5(term=term), torchode.IntegralController(atol=1e-6, rtol=1e-5, term=term)
    )
    problem = torchode.InitialValueProblem(y0=z, t_eval=times.expand(len(z), -1))
    return lambda: solver.solve(problem).ys


def _torchdyn(field: nn.Module, z: Tensor, times: Tensor) -> Callable[[], object]:
    from torchdyn.numerics import odeint

    return lambda: odeint(lambda t, y: field(t, y), z, times, solver="euler")


def density(clock: Clock, size: tuple[int, int, int], slow: bool, steps: int = 4) -> dict:
    """Log-density along a path of 4 frames, mixed Helmholtz fields, without gradient of the parameters."""
    case = Case(size, clock.device, "helmholtz")
    z, field, times = case.z.detach(), case.bank.bind(case.g), torch.arange(steps + 1.0, device=clock.device)
    torch._dynamo.reset()
    name, how = ("CUDA graphs", GRAPHS) if clock.device == "cuda" else ("compiled", True)
    steppers = {
        "torchflowfield rk4, trace, eager": ODEStepper(case.bank, "rk4"),
        f"torchflowfield rk4, trace, {name}": ODEStepper(case.bank, "rk4", compile=how),
        "torchflowfield dopri5, trace": ODEStepper(case.bank, "dopri5"),
    }
    if case.D <= 64:
        steppers["torchflowfield euler, exact determinant"] = ODEStepper(case.bank, density="exact")

    def ours(stepper: ODEStepper) -> Callable[[], object]:
        return _frozen(lambda: stepper(z, case.g, steps=steps, record=False).log_det)

    def augmented(t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return field(t, state[0]), field.divergence(t, state[0])

    contenders = {name: ours(stepper) for name, stepper in steppers.items()}
    contenders["torchdiffeq rk4, our divergence in the state"] = _frozen(
        lambda: torchdiffeq.odeint(augmented, (z, z.new_zeros(case.B)), times, method="rk4")
    )
    notes = []
    try:
        contenders["zuko, Hutchinson trace, adaptive"] = _frozen(_zuko(field, z, steps, exact=False))
        if slow or case.D <= 64:
            contenders["zuko, exact trace, adaptive"] = _frozen(_zuko(field, z, steps, exact=True))
    except ImportError:
        notes.append("zuko is not installed")
    return {"rows": clock.compare(contenders, "torchflowfield rk4, trace, eager"), "steps": steps, "notes": notes}


def _zuko(field: nn.Module, z: Tensor, steps: int, *, exact: bool) -> Callable[[], object]:
    from zuko.transforms import FreeFormJacobianTransform

    transform = FreeFormJacobianTransform(field, t1=float(steps), exact=exact)
    return lambda: transform.call_and_ladj(z)


def determinant(clock: Clock, size: tuple[int, int, int], slow: bool) -> dict:
    """Exact log-determinant of one potential field's Euler map; `size` is (B, D, H)."""
    batch, dim, width = size
    torch.manual_seed(0)
    bank = FlowBank(1, dim, width=width, kind="potential").to(clock.device)
    z, field = torch.randn(batch, dim, device=clock.device), bank[0]
    at_start = bank.stack.at(z.new_zeros(()))
    weight, shift, amplitude = (x[0].detach() for x in (at_start.weight, at_start.shift, at_start.amplitude))

    def velocity(y: Tensor) -> Tensor:
        return (amplitude * torch.tanh(weight @ y + shift)) @ weight

    identity = torch.eye(dim, device=clock.device)

    def dense() -> object:
        with torch.no_grad():
            jacobians = torch.func.vmap(torch.func.jacrev(velocity))(z)
            return torch.linalg.slogdet(identity + jacobians).logabsdet

    def ours() -> object:
        with torch.no_grad():
            return field.log_det(0.0, z)

    def decomposition() -> object:
        return torch.linalg.slogdet(matrices)

    scaled = torch.randn(batch, dim, width, device=clock.device)

    def jacobians() -> object:
        return scaled @ weight

    with torch.no_grad():
        matrices = identity + field.jacobian(0.0, z)
    contenders = {
        "torchflowfield": ours,
        "vmap(jacrev) and slogdet": dense,
        "product of the Jacobians alone": jacobians,
        "slogdet alone, of D × D": decomposition,
    }
    found = difference(ours(), dense())
    return {"rows": clock.compare(contenders, "torchflowfield"), "difference_to_dense": found}


def scaling(clock: Clock, axis: str, values: list[int]) -> dict:
    """Training rollouts while one of B, K, H, T grows; the exponent is fitted by least squares in the logarithms."""
    calls, transport = {}, DynamicOTLoss()
    usual = SCALING[clock.device]
    for value in values:
        at, dim = usual | {axis: value}, usual["H"]
        bank = FlowBank(at["K"], dim, width=at["H"], kind="potential").to(clock.device)
        z = torch.randn(at["B"], dim, device=clock.device, requires_grad=True)
        g, leaves = torch.rand(at["B"], at["K"], device=clock.device), [z, *bank.parameters()]
        stepper = ODEStepper(bank)

        def run(stepper=stepper, leaves=leaves, z=z, g=g, steps=at["T"]) -> None:
            path = stepper(z, g, steps=steps)
            torch.autograd.grad(path.z[-1].square().mean() + transport(path).total, leaves)

        calls[str(value)] = run
    rows = clock.compare(calls, str(values[0]), memory=False)
    x, y = [math.log(v) for v in values], [math.log(rows[str(v)]["ms"][0]) for v in values]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum((a - mean_x) ** 2 for a in x)
    return {"rows": rows, "exponent": slope}


def memory(clock: Clock, steps: int) -> dict:
    """Peak memory and time of a training rollout of `steps` frames: plain, checkpointed, adjoint."""
    torch.manual_seed(0)
    bank = FlowBank(3, 64, width=128).to(clock.device)
    z = torch.randn(256, 64, device=clock.device, requires_grad=True)
    g = torch.rand(256, 3, device=clock.device)
    steppers = {
        "euler": ODEStepper(bank),
        "euler, checkpoint": ODEStepper(bank, checkpoint=True),
        "dopri5": ODEStepper(bank, "dopri5"),
        "dopri5, adjoint": ODEStepper(bank, "dopri5", adjoint=True),
    }
    leaves = [z, *bank.parameters()]

    def run(stepper: ODEStepper) -> Callable[[], object]:
        def step() -> object:
            path = stepper(z, g, steps=steps, record=False)
            loss = path.z[-1].square().mean() + path.log_det[-1].mean()
            return torch.autograd.grad(loss, leaves, allow_unused=True)

        return step

    return {"rows": clock.compare({name: run(s) for name, s in steppers.items()}, "euler")}


def mnist(clock: Clock, preset: str, bfloat16: bool = True) -> dict:
    """Share of a training step of an MNIST preset that is spent outside networks and optimizer, on random frames."""
    import sys
    from pathlib import Path

    import yaml

    examples = Path(__file__).parent.parent
    sys.path.insert(0, str(examples))
    from flowvae import model as models

    settings = yaml.safe_load((examples / "configs" / "mnist" / f"{preset}.yaml").read_text())
    torch.manual_seed(0)
    name = settings["model"]["class_path"].rsplit(".", 1)[1]
    given = settings["model"]["init_args"] | {"bfloat16": bfloat16}
    batch, steps = settings["data"]["batch_size"], settings["data"]["steps"]
    frames = torch.rand(batch, steps + 1, 3, 28, 28, device=clock.device)
    weights = nn.functional.one_hot(torch.randint(3, (batch, steps), device=clock.device), 3).float()

    def prepare(**changes) -> tuple:
        model = getattr(models, name)(**given, **changes).to(clock.device).train()
        model.log = model.log_dict = lambda *args, **kwargs: None
        return model, torch.optim.Adam(model.parameters(), fused=True)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model.training_step({"frames": frames, "weights": weights}, 0).backward()
        optimizer.step()

    model, optimizer = prepare()
    # Whatever a step shows to its networks, they see again by themselves.
    seen: list[tuple[nn.Module, torch.Tensor]] = []
    parts = [getattr(model, part) for part in ("encoder", "decoder", "pair_network") if hasattr(model, part)]
    watching = [part.register_forward_hook(lambda part, given, _: seen.append((part, given[0]))) for part in parts]
    step(model, optimizer)
    for watch in watching:
        watch.remove()
    inputs = [(part, x.detach().clone().requires_grad_(x.requires_grad)) for part, x in seen]

    def networks() -> None:
        optimizer.zero_grad()
        with model._precision(frames):
            outputs = [part(x).float() for part, x in inputs]
        sum(x.square().sum() for x in outputs).backward()
        optimizer.step()

    compiled = prepare(compile=True)
    contenders = {
        "training step": lambda: step(model, optimizer),
        "the same, compiled outside its networks": lambda: step(*compiled),
        "encoder, decoder, pair network and optimizer": networks,
    }
    leaves = [*model.parameters(), *compiled[0].parameters()]
    rows = clock.compare(contenders, "training step", leaves=leaves)
    alone = rows["encoder, decoder, pair network and optimizer"]["ratio"][0]
    return {
        "rows": rows,
        "share_outside": 1 - alone,
        "share_outside_compiled": 1 - alone / rows["the same, compiled outside its networks"]["ratio"][0],
    }
