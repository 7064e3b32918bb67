"""A cloud of samples, its tracked density, and how exactly a path comes back.

python docs/figures/paths_and_density.py
"""

import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from style import COLORS, ORANGE, blue, save
from torch.distributions import Normal

from torchflowfield import FlowBank, ODEStepper


def make_bank() -> FlowBank:
    """A random bank with larger steps than the default start, so that there is something to see."""
    torch.manual_seed(3)
    bank = FlowBank(K=1, dim=2, width=32, kind="potential").requires_grad_(False)
    bank.stack.amplitude.mul_(3)
    return bank


def draw(figure: Figure) -> None:
    """Frame 0, frame 5, and the error of the way back."""
    torch.manual_seed(0)
    bank, steps = make_bank(), 5
    z0 = torch.randn(1500, 2)
    path = ODEStepper(bank, density="exact")(z0, weights=0, steps=steps)
    log_q = path.log_prob(Normal(0.0, 1.0).log_prob(z0).sum(-1))
    *clouds, back = figure.subplots(1, 3, width_ratios=(1, 1, 0.95))
    # Both ends stand out from a white and from a dark page.
    colors = LinearSegmentedColormap.from_list("density", [blue(), COLORS[4]])
    low, high = float(log_q.min().clamp(min=-8)), float(log_q.max())
    for ax, frame in zip(clouds, (0, steps), strict=True):
        dots = ax.scatter(
            *path.z[frame].T, c=log_q[frame], s=4, cmap=colors, vmin=low, vmax=high, edgecolors="none", rasterized=True
        )
        ax.set_title(f"frame {frame}")
        ax.set(aspect="equal", xlim=(-4, 4), ylim=(-4, 4), xticks=[], yticks=[])
    figure.colorbar(dots, ax=clouds, label="tracked log-density", shrink=0.8)

    double, z0 = bank.double(), z0.double()
    counts = range(1, 8)
    errors = []
    for count in (0, *counts):
        stepper = ODEStepper(double, density=None, inverse_iterations=count)
        end = stepper(z0, weights=0, steps=steps, record=False).z[-1]
        start = stepper(end, weights=0, steps=steps, reverse=True, record=False).z[-1]
        errors.append(float((start - z0).norm(dim=-1).max()))
    bank.float()
    back.axhline(errors[0], color=ORANGE, linestyle="--")
    back.text(7, errors[0] / 10, "backwards in time (0)", ha="right", va="top", color=ORANGE)
    back.semilogy(counts, errors[1:], "o-", color=blue(), markersize=3)
    back.text(3, errors[2], "Newton's inverse", va="top", color=blue())
    back.set(xlabel="inverse_iterations", xticks=counts, title="error of the way back")


if __name__ == "__main__":
    save("paths-and-density", draw, height=2.9)
