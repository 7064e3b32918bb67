"""Explicit Runge–Kutta steps with the log-density, forwards and inverted."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from torchflowfield.fields import Snapshot
from torchflowfield.ridge import Evaluation


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
            offset = round(self.tableau.resolution * node)
            fields = self.grid[self.point + (offset if self.size > 0 else -offset)]
            y = z if slope is None else torch.add(z, slope, alpha=self.size * node)
            if first is not None and not node:
                slope = first.velocity
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

    def invert(self, z: Tensor, guess: Tensor, iterations: int) -> tuple[Tensor, Tensor | None]:
        """The `x` that this step takes to `z`, by Newton's method from `guess`, and its log-determinant.

        The Jacobian is that of the Euler step: exact for it, a good approximation for the other methods.
        """
        x = guess
        fields = self.grid[self.point]
        bare = GridStep(self.tableau, self.grid, self.point, self.size, self.controls, density=None)
        dtype = torch.promote_types(z.dtype, torch.float32)
        identity = torch.eye(z.shape[-1], dtype=dtype, device=z.device)
        for _ in range(iterations):
            # At the solution the correction vanishes, and with it the gradient of the matrix.
            jacobian = identity + self.size * fields.jacobian(x, self.controls).detach().to(dtype)
            x = x + torch.linalg.solve(jacobian, (z - bare.advance(x)[0]).to(dtype)).to(z.dtype)
        return x, None if self.density is None else self.advance(x)[1]


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

        With `inverse > 0` each step is undone by that many iterations of Newton's method.
        """
        first = self.grid[self.point].evaluate(z, self.controls) if record else None
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


def _plus(start: Tensor | None, terms: list[tuple[Tensor, float]]) -> Tensor:
    """`start`, or zero if None, plus the sum of tensors times factors."""
    total = start
    for term, factor in terms:
        if factor and total is not None:
            total = torch.add(total, term, alpha=factor)
        elif factor:
            total = term if factor == 1 else factor * term
    return torch.zeros_like(terms[0][0]) if total is None else total
