"""Two flows between the same points: only one solves the Hamilton–Jacobi equation.

python docs/figures/optimal_transport.py
"""

import math

import torch
from matplotlib.figure import Figure
from style import ORANGE, blue, save
from torch import nn

from torchflowfield import AutogradPotential, DynamicOTLoss, FlowBank, ODEStepper

STEPS, SPAN = 40, 20.0


class Optimal(nn.Module):
    r"""$u = z^2 / (2 (t + c))$: solves $\partial_t u + \frac{1}{2} |\nabla u|^2 = 0$."""

    def forward(self, t, z):
        """Potential."""
        return z.square().sum(-1) / (2 * (t + SPAN))


class Steady(nn.Module):
    r"""$u = \frac{k}{2} z^2$ with the k that ends at the same points."""

    def forward(self, t, z):
        """Potential."""
        return 0.5 * math.log1p(STEPS / SPAN) / STEPS * z.square().sum(-1)


def draw(figure: Figure) -> None:
    """Paths, and the residual along them."""
    paths, residuals = figure.subplots(1, 2)
    z0 = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
    looks = (("optimal", Optimal(), blue(), "-"), ("steady potential", Steady(), ORANGE, "--"))
    least = None
    for name, network, color, line in looks:
        stepper = ODEStepper(FlowBank([AutogradPotential(network)]), method="rk4", density=None)
        path = stepper(z0, weights=0, steps=STEPS)
        energy = float(DynamicOTLoss()(path).kinetic)
        least = least or energy
        lines = paths.plot(path.t, path.z[..., 0], line, color=color)
        lines[0].set_label(f"{name}, energy {energy / least:.2f}")
        residual = DynamicOTLoss().residual(path)[..., 0].mean(1)
        residuals.plot(path.t[:-1], residual, line, color=color)
    paths.set(xlabel="time in frames", ylabel="z", title="paths")
    residuals.set(xlabel="time in frames", title="residual ∂u/∂t + ½‖∇u‖²")
    figure.legend(*paths.get_legend_handles_labels(), loc="outside lower center", ncols=2)


if __name__ == "__main__":
    save("optimal-transport", draw, height=3.4)
