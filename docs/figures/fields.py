"""The same target, a spiral, fitted by a field of each kind: a gradient cannot turn, a rotation cannot grow.

python docs/figures/fields.py
"""

import math

import torch
from matplotlib.figure import Figure
from style import ORANGE, blue, ink, save

from torchflowfield import FlowField, HelmholtzFlowField, PotentialFlowField, RotationalFlowField

KINDS = {
    "potential ∇u": PotentialFlowField,
    "rotational r": RotationalFlowField,
    "Helmholtz ∇u + r": HelmholtzFlowField,
}


def spiral(z: torch.Tensor) -> torch.Tensor:
    """Twenty degrees and ten per cent of growth per frame."""
    return math.radians(20) * torch.stack((-z[..., 1], z[..., 0]), -1) + 0.1 * z


def fit(field: FlowField, steps: int = 400) -> FlowField:
    """Least squares on random points of the disc."""
    optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
    for _ in range(steps):
        z = _disc(512)
        loss = (field(0.0, z) - spiral(z)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return field.requires_grad_(False)


def circulation(field: FlowField, radius: float = 1.0, points: int = 720) -> float:
    r"""$\oint v \cdot dz$ along a circle."""
    angle = torch.arange(points) * (2 * math.pi / points)
    z = radius * torch.stack((angle.cos(), angle.sin()), -1)
    tangent = torch.stack((-angle.sin(), angle.cos()), -1)
    return float((field(0.0, z) * tangent).sum(-1).mean() * 2 * math.pi * radius)


def _disc(count: int) -> torch.Tensor:
    z = torch.randn(count, 2)
    return 1.5 * z / z.norm(dim=-1, keepdim=True) * torch.rand(count, 1).sqrt()


def draw(figure: Figure, fitted: dict[str, FlowField]) -> None:
    """One panel per kind."""
    side = torch.linspace(-1.35, 1.35, 22)
    y, x = torch.meshgrid(side, side, indexing="ij")
    circle = torch.linspace(0, 2 * math.pi, 200)
    for ax, (name, field) in zip(figure.subplots(1, 3), fitted.items(), strict=True):
        u, v = field(0.0, torch.stack((x, y), -1)).unbind(-1)
        ax.streamplot(side.numpy(), side.numpy(), u.numpy(), v.numpy(), color=blue(), linewidth=1.1, density=0.8)
        ax.plot(circle.cos(), circle.sin(), color=ORANGE)
        ax.set_title(f"{name}\ncirculation {abs(circulation(field)):.2f}")
        ax.set(aspect="equal", xticks=[], yticks=[], xlim=(-1.4, 1.4), ylim=(-1.4, 1.4))
        ax.plot(0, 0, "o", color=ink(), markersize=3)
        ax.spines[:].set_visible(False)


if __name__ == "__main__":
    torch.manual_seed(0)
    fields = {name: fit(kind(2, width=64, frequencies=0)) for name, kind in KINDS.items()}
    save("fields", lambda figure: draw(figure, fields), height=3.2)
