"""A draw of the spike-and-slab prior, and how often its fields are on.

python docs/figures/spike_and_slab.py
"""

import torch
from matplotlib.figure import Figure
from style import GREEN, ORANGE, blue, save

from torchflowfield import SpikeSlabPrior


def draw(figure: Figure) -> None:
    """Coefficients of one sequence; exact and sampled marginals of two chains."""
    torch.manual_seed(4)
    left, right = figure.subfigures(1, 2, width_ratios=(1.1, 1))
    draw_ = SpikeSlabPrior(K=3).sample((), steps=16)
    panels = left.subplots(3, 1, sharex=True, sharey=True)
    for k, (ax, color) in enumerate(zip(panels, (blue(), ORANGE, GREEN), strict=True)):
        ax.stairs(draw_.weights[:, k], range(17), color=color, fill=True, alpha=0.35)
        ax.stairs(draw_.weights[:, k], range(17), color=color)
        ax.set(ylim=(0, 1.5), ylabel=f"flow {k}")
    panels[0].set_title("one draw of the coefficients g = y ∘ s")
    panels[-1].set(xlabel="step", xticks=range(0, 17, 4))

    ax = right.subplots()
    chains = {
        "keep = 0.9": (SpikeSlabPrior(K=3), blue(), "o"),
        "switch_on = 0.05, switch_off = 0.3": (SpikeSlabPrior(K=3, switch_on=0.05, switch_off=0.3), ORANGE, "s"),
    }
    for label, (prior, color, marker) in chains.items():
        with torch.no_grad():
            ax.plot(prior.marginals(16)[:, 0], color=color, label=label)
            ax.plot(prior.sample((20_000,), steps=16).spikes.mean((1, 2)), marker, color=color, markersize=4)
    ax.set(ylim=(0, 0.7), xlabel="step", xticks=range(0, 16, 5), title="probability that a field is on")
    ax.legend(loc="upper right", fontsize=8)


if __name__ == "__main__":
    save("spike-and-slab", draw, height=3.4)
