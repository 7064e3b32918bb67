"""The same mathematics in several ways: this package, nested autograd, torch.func, and bare matrix products."""

from collections.abc import Callable

import torch
from torch import Tensor

from torchflowfield import DynamicOTLoss, FlowBank, ODEStepper
from torchflowfield.activations import ACTIVATIONS

profile_slope = ACTIVATIONS["logcosh"].first


class Case:
    """A bank of one size with a batch, and the loss of one recorded training step.

    The loss is the same for every contender: mean ‖z₁‖², the Hamilton–Jacobi residual of every field, the divergence.
    """

    def __init__(self, size: tuple[int, int, int], device: str, kind: str = "potential") -> None:
        torch.manual_seed(0)
        self.B, self.D, self.K = size
        self.bank = FlowBank(self.K, self.D, width=self.D, kind=kind).to(device)
        # In training z comes from an encoder, which needs its gradient.
        self.z = torch.randn(self.B, self.D, device=device, requires_grad=True)
        self.g = torch.rand(self.B, self.K, device=device)
        self.stepper, self.transport = ODEStepper(self.bank), DynamicOTLoss()
        self.leaves = [self.z, *self.bank.parameters()]

    def ours(self, z: Tensor, g: Tensor) -> Tensor:
        """By this package."""
        path = self.stepper(z, g, steps=1)
        return path.z[-1].square().mean() + self.transport(path).total + path.log_det[-1].mean()

    def step(self, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], None]:
        """A training step without its optimizer: the loss and its gradients."""

        def run() -> None:
            for leaf in self.leaves:
                leaf.grad = None
            loss(self.z, self.g).backward()

        return run

    def gradients(self, loss: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """The loss and its gradients with respect to z and every parameter; probes are the same every time."""
        torch.manual_seed(0)
        value = loss(self.z, self.g)
        return [value.detach(), *torch.autograd.grad(value, self.leaves)]

    def _loss(self, z: Tensor, g: Tensor, rate: Tensor, gradient: Tensor, laplacian: Tensor) -> Tensor:
        moved = z + (g[..., None] * gradient).sum(1)
        residual = rate + 0.5 * gradient.square().sum(-1)
        return moved.square().mean() + residual.square().mean() + (g * laplacian).sum(-1).mean()

    def _potential(self, k: int | Tensor, t: Tensor, z: Tensor) -> Tensor:
        """Potential of field `k` as a user would write it, for a batch or for one sample."""
        stack = self.bank.stack
        features = stack.time(t)
        shift = stack.bias[k] + features @ stack.bias_time[k].T
        amplitude = stack.amplitude[k] + features @ stack.amplitude_time[k].T
        a = z @ stack.weight[k].T + shift
        return (amplitude * torch.log(torch.cosh(a))).sum(-1)

    def nested(self, exact: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """Nested `autograd.grad` in a loop over fields, with the exact Laplacian or one Hutchinson probe."""

        def loss(z: Tensor, g: Tensor) -> Tensor:
            t, probe = z.new_zeros(len(z)).requires_grad_(), signs(z)
            rates, gradients, laplacians = [], [], []
            for k in range(self.K):
                u = self._potential(k, t, z).sum()
                rate, gradient = torch.autograd.grad(u, (t, z), create_graph=True)
                if exact:
                    rows = (
                        torch.autograd.grad(gradient[:, d].sum(), z, create_graph=True)[0][:, d] for d in range(self.D)
                    )
                    laplacian = sum(rows)
                else:
                    product = torch.autograd.grad(gradient, z, probe, create_graph=True)[0]
                    laplacian = (product * probe).sum(-1)
                rates.append(rate)
                gradients.append(gradient)
                laplacians.append(laplacian)
            return self._loss(z, g, torch.stack(rates, 1), torch.stack(gradients, 1), torch.stack(laplacians, 1))

        return loss

    def functional(self, exact: bool) -> Callable[[Tensor, Tensor], Tensor]:
        """`torch.func` under `vmap` over fields and samples."""

        def facts(k: Tensor, z: Tensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            def slope(y: Tensor) -> Tensor:
                return torch.func.grad(lambda x: self._potential(k, x.new_zeros(()), x))(y)

            rate = torch.func.grad(lambda t: self._potential(k, t, z))(z.new_zeros(()))
            if exact:
                return rate, slope(z), torch.func.jacfwd(slope)(z).trace()
            gradient, product = torch.func.jvp(slope, (z,), (probe,))
            return rate, gradient, product @ probe

        def loss(z: Tensor, g: Tensor) -> Tensor:
            each = torch.func.vmap(torch.func.vmap(facts, (0, None, None)), (None, 0, 0))
            return self._loss(z, g, *each(torch.arange(self.K, device=z.device), z, signs(z)))

        return loss

    def products(self, activation: bool) -> Callable[[], None]:
        """Two products forwards and four backwards, batched over K; with one evaluation of φ and φ' on request."""
        z, weight = self.z.detach().expand(self.K, self.B, self.D), self.bank.stack.weight.detach()
        units = torch.randn(self.K, self.B, self.D, device=z.device)

        def run() -> None:
            a = torch.bmm(z, weight.mT)
            if activation:
                a.abs() - torch.log1p(profile_slope(a).abs())
            torch.bmm(units, weight)
            torch.bmm(units, weight.mT)
            torch.bmm(units.mT, units)
            torch.bmm(units.mT, z)
            torch.bmm(units, weight)

        return run


def signs(z: Tensor) -> Tensor:
    """Random signs, the probe of one Hutchinson estimate."""
    return torch.randint_like(z, 2) * 2 - 1


def difference(one: Tensor, other: Tensor) -> float:
    """Distance of two results relative to the second; contenders must be the same mathematics."""
    relative = ((one - other).norm() / other.norm()).item()
    # Log-determinants close to 0 keep three digits in float32.
    if not relative < 1e-2:
        raise ArithmeticError(f"benchmark: expected contenders to agree, got a relative difference of {relative:.1e}.")
    return relative


def check_agreement(case: Case, loss: Callable[[Tensor, Tensor], Tensor], other: Callable) -> float:
    """Largest relative difference of two losses, or of their gradients with respect to z or any parameter."""
    return max(map(difference, case.gradients(loss), case.gradients(other)))
