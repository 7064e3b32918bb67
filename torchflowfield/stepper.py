"""Integration of a bank: frames of a path, its density, and what the losses need, computed once."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from torchflowfield._checks import as_time, check_choice, check_length, check_tolerances, check_whole
from torchflowfield.adaptive import ADAPTIVE_METHODS, AdaptiveSolver
from torchflowfield.autograd import AutogradPotential
from torchflowfield.bank import FlowBank, Weights
from torchflowfield.compiled import CompiledRollout
from torchflowfield.interface import Evaluation, Selection
from torchflowfield.path import FlowPath
from torchflowfield.rungekutta import TABLEAUS, Frame


class ODEStepper(nn.Module):
    r"""Moves latent vectors along a bank, one frame after another.

    `euler`, `midpoint` and `rk4` are loops of this package: all T steps are one graph under `compile=True`. The other
    methods go to torchdiffeq, with the log-density in the state. The papers' map is `euler`.

    Args:
        bank: The fields. It becomes a submodule; register it elsewhere too if you like, parameters count once.
        method: `"euler"`, `"midpoint"`, `"rk4"`, or one of torchdiffeq's adaptive methods (`"dopri5"`, …).
        substeps: Steps per frame of the fixed-step methods.
        density: `"trace"` integrates the divergence (continuous time); `"exact"` sums the log-determinants of the
            Euler map (`euler` only); None tracks no density.
        compile: Compile the whole rollout with `fullgraph=True`; a string is a mode of `torch.compile`, a dict its
            options: `"reduce-overhead"` adds CUDA graphs, `{"cpp_wrapper": True}` spares small steps on a CPU some
            Python. The number of steps of the first call gets one graph; any other number is composed of pieces of 32,
            16, 8, 4, 2 and 1 steps, so that few graphs serve all lengths.
        checkpoint: Keep only the frames for the backward pass and compute each step again there: less memory, more
            time. Not for an `AutogradPotential`.
        inverse_iterations: Iterations of Newton's method by which `reverse=True` undoes each forward step. Without an
            error the way back is wrong where a step folds space (take more substeps) or these do not suffice (steep
            fields take 10 to 30). 0 integrates backwards in time instead, as torchdiffeq does.
        adjoint: Differentiate an adaptive method by torchdiffeq's adjoint, in constant memory.
        rtol: Relative tolerance of the adaptive methods.
        atol: Absolute tolerance of the adaptive methods.

    Raises:
        ValueError: For an unknown method, density or tolerance, no substep, or an option of another method.
        TypeError: For a `bank` that is none.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023 (the Euler map); Chen et al., Neural
        Ordinary Differential Equations, NeurIPS 2018 (the density by trace, the adjoint).

    Example:
        >>> stepper = ODEStepper(FlowBank(K=3, dim=16))
        >>> stepper(torch.randn(8, 16), weights=0, steps=5).z.shape
        torch.Size([6, 8, 16])
    """

    def __init__(
        self,
        bank: FlowBank,
        method: str = "euler",
        *,
        substeps: int = 1,
        density: str | None = "trace",
        compile: bool | str | dict[str, Any] = False,
        checkpoint: bool = False,
        inverse_iterations: int = 5,
        adjoint: bool = False,
        rtol: float = 1e-5,
        atol: float = 1e-6,
    ) -> None:
        super().__init__()
        if not isinstance(bank, FlowBank):
            raise TypeError(f"ODEStepper: expected a FlowBank, got {type(bank).__name__}. Wrap it: FlowBank([field]).")
        check_choice("ODEStepper", "method", method, (*TABLEAUS, *ADAPTIVE_METHODS))
        check_choice("ODEStepper", "density", density, ("trace", "exact", None))
        check_whole("ODEStepper", substeps=substeps)
        check_whole("ODEStepper", 0, inverse_iterations=inverse_iterations)
        if density == "exact" and method != "euler":
            raise ValueError(f"ODEStepper: density='exact' is the Euler map's; use density='trace' with {method!r}.")
        if method in ADAPTIVE_METHODS and (compile is not False or substeps > 1 or checkpoint):
            raise ValueError(f"ODEStepper: compile, substeps, checkpoint need {', '.join(TABLEAUS)}, got {method!r}.")
        if checkpoint and any(isinstance(module, AutogradPotential) for module in bank.modules()):
            raise ValueError(
                "ODEStepper: checkpoint=True cannot recompute an AutogradPotential, as torch.func does not allow it."
            )
        if method in ADAPTIVE_METHODS:
            check_tolerances("ODEStepper", rtol, atol)
        if adjoint and method not in ADAPTIVE_METHODS:
            raise ValueError(f"ODEStepper: adjoint is for {', '.join(ADAPTIVE_METHODS)}, got method={method!r}.")
        self.bank, self.method, self.substeps, self.density = bank, method, substeps, density
        self.compile_rollout, self.checkpoint, self.inverse_iterations = compile, checkpoint, inverse_iterations
        self.adjoint, self.rtol, self.atol = adjoint, rtol, atol
        self._compiled: CompiledRollout | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function cannot be copied or pickled; it is made anew when next needed.
        return {**super().__getstate__(), "_compiled": None}

    def extra_repr(self) -> str:
        """Settings, as `print` shows them."""
        return f"method={self.method!r}, substeps={self.substeps}, density={self.density!r}"

    def forward(
        self,
        z0: Float[Tensor, "*batch dim"],
        weights: Weights,
        steps: int,
        *,
        reverse: bool = False,
        start: float = 0.0,
        context: Float[Tensor, "*#batch context"] | None = None,
        record: bool = True,
    ) -> FlowPath:
        """Roll `z0` through `steps` frames.

        Args:
            z0: Latent vectors at the first frame of the path.
            weights: An int, `[K]`, `[*, K]`, or a schedule `[T, *, K]` whose entry n acts between frames n and n + 1.
            steps: Number of frames T after the first.
            reverse: Go backwards: `z0` is taken as frame T and the path ends at frame 0.
            start: Time of frame 0, in frames: to go on from frame n of another path, or back to it, pass n, unless
                the fields do not depend on time (`frequencies=0`).
            context: A vector per sample for a bank with `context_dim`.
            record: Keep what the losses need; False is faster for pictures and evaluation.

        Raises:
            ValueError: For a negative number of steps, any z, weights or context that does not fit the bank, or NaN.
            TypeError: For a `z0` that is not floating-point, or integer weights other than one int.
        """
        check_length("ODEStepper", steps)
        self.bank.check_latent(z0, context)
        selection = self.bank.select(weights) if isinstance(weights, int) else None
        if isinstance(weights, int):
            given = torch.zeros(self.bank.num_controls, dtype=z0.dtype, device=z0.device)
            given[weights].fill_(1)  # an assignment would wait for a GPU
        else:
            given = weights
        controls = self.bank.controls(given, z0, ("K", "*batch K", "T *batch K"), steps)
        given = given.expand(steps, *z0.shape[:-1], self.bank.num_controls)
        controls = controls.expand(steps, *z0.shape[:-1], *controls.shape[-2:])
        # At time 0 the first step's gradients are those of the initial condition.
        at_zero = isinstance(start, (int, float)) and start == 0 and steps > 0 and not reverse
        options = (context, selection, reverse, record, at_zero)
        if isinstance(start, Tensor) and start.ndim:
            raise ValueError(f"ODEStepper: expected one start for the whole batch, got {tuple(start.shape)}.")
        start_time = as_time("ODEStepper", start, z0)
        if self.compile_rollout is False or torch.compiler.is_compiling():
            return self._rollout(z0, given, controls, start_time, *options)
        if self._compiled is None:
            self._compiled = CompiledRollout(self._rollout, self.compile_rollout)
        return self._compiled(z0, given, controls, start_time, options)

    def _rollout(
        self,
        z: Tensor,
        weights: Tensor,
        controls: Tensor,
        start: Tensor,
        context: Tensor | None,
        selection: Selection | None,
        reverse: bool,
        record: bool,
        at_zero: bool,
    ) -> FlowPath:
        steps, adaptive = weights.shape[0], self.method in ADAPTIVE_METHODS
        tableau = TABLEAUS["euler" if adaptive else self.method]
        substeps = 1 if adaptive else self.substeps
        points = tableau.resolution * substeps
        # Everything that depends on time alone is computed once, for the whole grid.
        wide = torch.promote_types(z.dtype, torch.float32)
        times = start.to(wide) + torch.arange(steps * points + 1, dtype=wide, device=z.device) / points
        # Forwards, no stage of the last step need reach its end.
        last = len(times) - 1 if not (reverse or adaptive) and max(tableau.nodes) < 1 else len(times)
        grid = self.bank.stack.on_grid(times[: max(1, last)].to(z.dtype), context, z.ndim - 1, selection)
        if not record or reverse or substeps * len(tableau.nodes) > 1:
            grid = grid.folded()
        instants = grid.unbind(max(1, last))
        controls = controls.movedim((-2, -1), (1, 2))
        if selection is None and record:
            # In memory as `[T, K, P, *]`, as the ridge algebra and the losses read them, along the samples.
            controls = controls.contiguous()
        mixtures = controls.movedim((1, 2), (-2, -1)).unbind(0) if selection is None else [None] * steps
        frames, log_dets = [z], [z.new_zeros(z.shape[:-1])]
        records: list[Evaluation] = []
        solver = self._solver(selection, context) if adaptive else None
        for n in reversed(range(steps)) if reverse else range(steps):
            index, sign = (points * (n + 1), -1) if reverse else (points * n, 1)
            if solver is not None:
                first = instants[index].evaluate(z, mixtures[n], divergence=False) if record else None
                z, change = solver.advance(z, (times[index], times[index + sign]), mixtures[n])
            else:
                frame = Frame(tableau, instants, index, sign, substeps, mixtures[n], self.density)
                inverse = self.inverse_iterations if reverse else 0
                if self.checkpoint and torch.is_grad_enabled():
                    z, change, first = checkpoint(frame.advance, z, record, inverse, use_reentrant=False)
                else:
                    z, change, first = frame.advance(z, record, inverse)
            if first is not None:
                records.append(first)
            frames.append(z)
            log_dets.append(log_dets[-1] if change is None else log_dets[-1] + change)

        recorded: dict[str, Tensor] = {}
        if record:
            # Ones and zeros, as compiled code is slow at reading booleans.
            active = (controls.flip(0) if reverse else controls)[:, :, 0].detach().sign().abs()
            if not all(self.bank.stack.potentials):
                known = zip(active.unbind(1), self.bank.stack.potentials, strict=True)
                active = torch.stack([x * has for x, has in known], 1)
            if selection is not None:
                active = active[:, selection.field : selection.field + 1]
            recorded = {
                "active": active.movedim(1, -1),
                "time_derivative": _stack([r.time_derivative for r in records], active, z).movedim(1, -1),
                "gradient_norm2": _stack([r.gradient_norm2 for r in records], active, z).movedim(1, -1),
                "initial_norm2": records[0].gradient_norm2.movedim(0, -1)
                if at_zero
                else self.bank.stack.at(torch.zeros_like(start), context, selection).gradient_norm2(
                    frames[-1 if reverse else 0]
                ),
                "kinetic": 0.5 * _stack([r.velocity for r in records], z.expand(steps, *z.shape), z).square().sum(-1),
            }
        # In one go: PyTorch 2.11 compiles no function that returns what `_replace` made.
        return FlowPath(
            t=(times[::points].flip(0) if reverse else times[::points]).to(z.dtype),
            z=torch.stack(frames),
            log_det=torch.stack(log_dets) if self.density is not None else None,
            weights=weights.flip(0) if reverse else weights,
            field=None if selection is None else selection.field,
            **recorded,
        )

    def _solver(self, selection: Selection | None, context: Tensor | None) -> AdaptiveSolver:
        return AdaptiveSolver(
            self.bank.stack,
            selection,
            context,
            method=self.method,
            density=self.density is not None,
            adjoint=self.adjoint and torch.is_grad_enabled(),
            rtol=self.rtol,
            atol=self.atol,
        )


def _stack(values: list[Tensor], like: Tensor, z: Tensor) -> Tensor:
    """Stack over time; a path of no steps gives an empty tensor."""
    return torch.stack(values) if values else z.new_zeros(like.shape)
