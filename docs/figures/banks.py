"""Two fields of a bank one after the other, in both orders, and at once: do they commute?

python docs/figures/banks.py
"""

import math

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from style import GREEN, ORANGE, blue, ink, save
from torch import nn

from torchflowfield import FlowBank, ODEStepper
from torchflowfield.metrics import commutator_norms


class Turn(nn.Module):
    """Fifteen degrees per frame about the origin."""

    def forward(self, t, z):
        """Velocity."""
        return math.radians(15) * torch.stack((-z[..., 1], z[..., 0]), -1)


class Grow(nn.Module):
    """Ten per cent per frame."""

    def forward(self, t, z):
        """Velocity."""
        return 0.1 * z


class Shift(nn.Module):
    """A quarter of a unit per frame to the right."""

    def forward(self, t, z):
        """Velocity."""
        return torch.tensor([0.25, 0.0]).expand_as(z)


def panel(ax: Axes, title: str, fields: list[nn.Module]) -> None:
    """The three paths of a bank of two fields."""
    bank = FlowBank(fields)
    stepper = ODEStepper(bank, method="rk4", density=None)
    z0 = torch.tensor([1.0, 0.2])
    first, second = torch.eye(2)
    schedules = {
        "0 then 1": torch.stack([first] * 4 + [second] * 4),
        "1 then 0": torch.stack([second] * 4 + [first] * 4),
        "both at once, half speed": torch.full((8, 2), 0.5),
    }
    for (label, schedule), color, marker in zip(schedules.items(), (blue(), ORANGE, GREEN), "os^", strict=True):
        with torch.no_grad():
            z = stepper(z0, schedule, steps=8, record=False).z
        ax.plot(*z.T, f"{marker}-", color=color, markersize=4, label=label)
    ax.plot(*z0, "o", color=ink(), markersize=7)
    norm = float(commutator_norms(bank, 0.0, torch.randn(256, 2))[0, 1])
    ax.set_title(f"{title}\ncommutator {norm:.2f}")
    ax.set(aspect="equal", xlabel="first latent axis", ylabel="second")


def draw(figure: Figure) -> None:
    """A pair that commutes, and one that does not."""
    torch.manual_seed(0)
    left, right = figure.subplots(1, 2)
    panel(left, "0 turns, 1 grows", [Turn(), Grow()])
    panel(right, "0 turns, 1 shifts", [Turn(), Shift()])
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3)


if __name__ == "__main__":
    save("banks", draw, height=4.0)
