"""Explicit Runge–Kutta steps with the log-density, forwards and inverted."""

from typing import NamedTuple

from torch import Tensor

from torchflowfield.bank import Snapshot
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
        grid: The fields at all points of the grid.
        point: Grid point where the step starts.
        size: Step in frames, negative backwards in time.
        controls: The mixture, None for one field alone.
        density: `"trace"`, `"exact"` or None.
    """

    tableau: Tableau
    grid: Snapshot
    point: int
    size: float
    controls: Tensor | None
    density: str | None

    def __call__(self, z: Tensor, first: Evaluation | None = None) -> tuple[Tensor, Tensor | float]:
        """The next `z` and the step's log-determinant; `first` is the first stage, if it is known already."""
        stages = list(zip(self.tableau.nodes, self.tableau.weights, strict=True))
        change: Tensor | float = 0.0
        divergence: Tensor | float = 0.0
        slope: Tensor | float = 0.0
        trace: Tensor | float = 0.0
        for node, weight in stages:
            offset = round(self.tableau.resolution * node)
            fields = self.grid.at(self.point + (offset if self.size > 0 else -offset))
            y = z + self.size * node * slope if node else z
            if first is not None and not node:
                slope, trace = first.velocity, first.divergence
            elif self.density == "trace" and weight:
                slope, trace = fields.velocity_and_divergence(y, self.controls)
            else:
                slope, trace = fields.velocity(y, self.controls), 0.0
            change = change + weight * slope if weight else change
            divergence = divergence + weight * trace if weight else divergence
        moved = z + self.size * change
        if self.density == "exact":
            return moved, self.grid.at(self.point).log_det(z, self.controls, self.size)
        return moved, self.size * divergence

    def invert(self, z: Tensor, guess: Tensor, iterations: int) -> tuple[Tensor, Tensor | float]:
        """The `x` that this step takes to `z`, by fixed-point iteration from `guess`, and its log-determinant."""
        x = guess
        bare = self._replace(density=None)
        for _ in range(iterations):
            x = x + (z - bare(x)[0])
        return x, 0.0 if self.density is None else self(x)[1]
