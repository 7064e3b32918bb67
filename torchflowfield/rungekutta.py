"""Explicit Runge–Kutta steps with the log-density, forwards and inverted."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from torchflowfield.fields import Snapshot
from torchflowfield.interface import Evaluation


class Tableau(NamedTuple):
    """A method in which every stage starts from the slope of the stage before.

    Attributes:
        nodes: Time of every stage, as a fraction of the step.
        weights: Share of every stage's slope in the step.
        resolution: Points of the time grid per step that the nodes fall on.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    resolution: int


TABLEAUS = {
    "euler": Tableau((0.0,), (1.0,), 1),
    "midpoint": Tableau((0.0, 0.5), (0.0, 1.0), 2),
    "rk4": Tableau((0.0, 0.5, 0.5, 1.0), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 2),
}


class GridStep(NamedTuple):
    """One step on a time grid.

    Attributes:
        tableau: The method.
        grid: The fields at each point of the grid.
        point: Grid point where the step starts.
        size: Step in frames, negative backwards in time.
        controls: The mixture, None for one field alone.
        density: `"trace"`, `"exact"` or None.
    """

    tableau: Tableau
    grid: Sequence[Snapshot]
    point: int
    size: float
    controls: Tensor | None
    density: str | None

    def advance(self, z: Tensor, first: Evaluation | None = None) -> tuple[Tensor, Tensor | None]:
        """The next `z` and the step's log-determinant, if wanted; `first` is the first stage, if already known."""
        slopes: list[tuple[Tensor, float]] = []
        traces: list[tuple[Tensor, float]] = []
        slope: Tensor | None = None
        for node, weight in zip(self.tableau.nodes, self.tableau.weights, strict=True):
            fields = self._at(node)
            y = z if slope is None else _add(z, slope, self.size * node)
            if first is not None and not node:
                slope = first.velocity
                if first.divergence is not None:
                    traces.append((first.divergence, self.size * weight))
            elif self.density == "trace" and weight:
                slope, trace = fields.velocity_and_divergence(y, self.controls)
                traces.append((trace, self.size * weight))
            else:
                slope = fields.velocity(y, self.controls)
            slopes.append((slope, self.size * weight))
        moved = _plus(z, slopes)
        if self.density == "exact":
            return moved, self.grid[self.point].log_det(z, self.controls, self.size)
        return moved, _plus(None, traces) if self.density == "trace" else None

    def linearize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        r"""The next `z` and the Jacobian of the step, `[*, D, D]`, in float32 at least.

        Stage i starts at $y_i = z + h c_i k_{i-1}$, so that $\partial k_i / \partial z = J(y_i) (I + h c_i \, \partial
        k_{i-1} / \partial z)$: the chain rule through the stages, with every $J$ in closed form.
        """
        dtype = torch.promote_types(z.dtype, torch.float32)
        moved, jacobian = z, torch.eye(z.shape[-1], dtype=dtype, device=z.device)
        slope: Tensor | None = None
        rate = jacobian
        for node, weight in zip(self.tableau.nodes, self.tableau.weights, strict=True):
            fields = self._at(node)
            y = z if slope is None else _add(z, slope, self.size * node)
            own = fields.jacobian(y, self.controls).to(dtype)
            rate = own if slope is None else _add(own, own @ rate, self.size * node)
            slope = fields.velocity(y, self.controls)
            if weight:
                moved = _add(moved, slope, self.size * weight)
                jacobian = _add(jacobian, rate, self.size * weight)
        return moved, jacobian

    def invert(self, z: Tensor, guess: Tensor, iterations: int) -> tuple[Tensor, Tensor | None]:
        """The `x` that this step takes to `z`, by Newton's method from `guess`, and its log-determinant.

        Where the step folds space, or the iterations do not suffice, it is the best `x` found.
        """
        bare = GridStep(self.tableau, self.grid, self.point, self.size, self.controls, density=None)
        with torch.no_grad():
            x = bare._search(z.detach(), guess.detach(), iterations).detach()
        if torch.is_grad_enabled() or forward_ad._current_level >= 0:
            x = bare._attach(z, x)
        return x, None if self.density is None else self.advance(x)[1]

    def _search(self, z: Tensor, guess: Tensor, iterations: int) -> Tensor:
        """Damped Newton's method: a sample whose residual would grow stays where it is and halves its step."""
        x, trial, step = z, guess, guess - z
        error = torch.full_like(z[..., :1], torch.inf)
        for _ in range(iterations):
            moved, jacobian = self.linearize(trial)
            residual = z - moved
            trial_error = torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
            closer = trial_error < error
            x, error = torch.where(closer, trial, x), torch.where(closer, trial_error, error)
            step = torch.where(closer, _solve(jacobian, residual), step / 2)
            trial = x + step
        trial_error = torch.linalg.vector_norm(z - self.advance(trial)[0], dim=-1, keepdim=True)
        return torch.where(trial_error < error, trial, x)

    def _attach(self, z: Tensor, x: Tensor) -> Tensor:
        """The solution `x` with its derivatives by `z` and all parameters, the first two of which are exact."""
        with torch.no_grad():
            jacobian = self.linearize(x)[1].detach()
        # Corrections of zero: by the implicit function theorem the first one carries the gradient of `x`, the second
        # one, at an `x` that has a gradient, that of the gradient. At a singular point there is neither.
        for _ in range(2):
            residual = z - self.advance(x)[0]
            x = x + _solve(jacobian, residual - residual.detach()).nan_to_num()
        return x

    def _at(self, node: float) -> Snapshot:
        offset = round(self.tableau.resolution * node)
        return self.grid[self.point + (offset if self.size > 0 else -offset)]


class Frame(NamedTuple):
    """The substeps between two frames, forwards or inverted.

    Attributes:
        tableau: The method.
        grid: The fields at each point of the grid.
        point: Grid point of the frame that is left.
        sign: 1 forwards in time, -1 backwards.
        substeps: Number of steps.
        controls: The mixture, None for one field alone.
        density: `"trace"`, `"exact"` or None.
    """

    tableau: Tableau
    grid: Sequence[Snapshot]
    point: int
    sign: int
    substeps: int
    controls: Tensor | None
    density: str | None

    def advance(self, z: Tensor, record: bool, inverse: int) -> tuple[Tensor, Tensor | None, Evaluation | None]:
        """The next frame, the log-determinant on the way, and the evaluation at the start if `record`.

        With `inverse > 0` each step is undone by that many iterations of Newton's method, from the step backwards.
        """
        wanted = self.density == "trace" and not inverse
        first = self.grid[self.point].evaluate(z, self.controls, wanted) if record else None
        total: Tensor | None = None
        for s in range(self.substeps):
            here, size = self.point + self.sign * s * self.tableau.resolution, 1 / self.substeps
            step = self._step(here, self.sign * size, None if inverse else self.density)
            known = first if s == 0 else None
            if inverse:
                guess, _ = step.advance(z, known)
                forward = self._step(here - self.tableau.resolution, size, self.density)
                z, change = forward.invert(z, guess, inverse)
                change = None if change is None else -change
            else:
                z, change = step.advance(z, known)
            total = change if total is None or change is None else total + change
        return z, total, first

    def _step(self, point: int, size: float, density: str | None) -> GridStep:
        return GridStep(self.tableau, self.grid, point, size, self.controls, density)


def _solve(matrix: Tensor, x: Tensor) -> Tensor:
    """`matrix` inverted times `x`, not finite where it is singular: an error would wait for a GPU."""
    return torch.linalg.solve_ex(matrix, x.to(matrix.dtype))[0].to(x.dtype)


def _add(x: Tensor, y: Tensor, factor: float) -> Tensor:
    # Of a product with `alpha`, the compiler of PyTorch 2.13 makes an `addmm` without it: wrong numbers, and no error.
    return x + factor * y if torch.compiler.is_compiling() else torch.add(x, y, alpha=factor)


def _plus(start: Tensor | None, terms: list[tuple[Tensor, float]]) -> Tensor:
    """`start`, or zero if None, plus the sum of tensors times factors."""
    total = start
    for term, factor in terms:
        if factor and total is not None:
            total = _add(total, term, factor)
        elif factor:
            total = term if factor == 1 else factor * term
    return torch.zeros_like(terms[0][0]) if total is None else total
