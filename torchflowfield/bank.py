"""A bank of fields that are switched, scaled, added and bound to an ODE solver."""

import operator
from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from torchflowfield._checks import as_time, check_choice, check_context, check_latent, check_weights
from torchflowfield.custom import FieldStack
from torchflowfield.fields import Snapshot, SnapshotField
from torchflowfield.interface import Jet, Selection, Time
from torchflowfield.layout import is_transformed
from torchflowfield.stack import Kind, RidgeStack

Weights = int | Float[Tensor, "*schedule controls"]
_DEFAULTS = (None, 128, "helmholtz", "single", "logcosh", False, 4, 32.0, 0)


class FlowBank(nn.Module):
    r"""$K$ vector fields and their mixtures $v(t, z) = \sum_k g_k v_k(t, z)$.

    All fields together cost two batched matrix products. `weights` are the coefficients $g$: an int for one field
    alone (only that one is computed), `[K]`, or `[*, K]` with the batch shape of `z`; `bind` and `ODEStepper` also
    take a schedule `[T, *, K]`. With `control="double"` there are $2K$ coefficients: the first $K$ drive the
    gradients, the others the rotations.

    Args:
        K: Number of fields, or a list of your own: `FlowField`s or modules called as `module(t, z)`.
        dim: Size of the latent vector; None takes it from the first `z`, as `nn.LazyLinear` does.
        width: Ridge units of one field.
        kind: `"potential"` ($\nabla u$), `"rotational"` (divergence-free) or `"helmholtz"` (the sum of both).
        control: `"single"`: one coefficient a field. `"double"`: one for each of its two parts.
        activation: `"logcosh"`, `"cos"` or `"softplus"`.
        convex: Keep every potential convex (`kind="potential"` only).
        frequencies: Harmonics of time; 0 makes the fields autonomous.
        period: Longest period of those harmonics, in frames.
        context_dim: Size of an optional context vector.

    Raises:
        ValueError: For sizes below one, unknown choices, or choices that exclude each other.
        TypeError: For a `K` that is neither a number nor a list of fields.

    Reference:
        Song et al., Flow Factorized Representation Learning, NeurIPS 2023; arXiv 2410.05564 for the mixtures.

    Example:
        >>> bank, z = FlowBank(K=3), torch.randn(8, 16)
        >>> bank(0.0, z, weights=1).shape
        torch.Size([8, 16])
        >>> bank(0.0, z, weights=torch.tensor([1.0, 0.0, 0.5])).shape
        torch.Size([8, 16])
    """

    def __init__(
        self,
        K: int | Iterable[nn.Module] = 3,
        dim: int | None = None,
        *,
        width: int = 128,
        kind: Kind = "helmholtz",
        control: Literal["single", "double"] = "single",
        activation: str = "logcosh",
        convex: bool = False,
        frequencies: int = 4,
        period: float = 32.0,
        context_dim: int = 0,
    ) -> None:
        super().__init__()
        check_choice("FlowBank", "control", control, ("single", "double"))
        self.control = control
        self.stack: RidgeStack | FieldStack
        if isinstance(K, Integral) and not isinstance(K, bool):
            K = int(K)
            if control == "double" and kind != "helmholtz":
                raise ValueError(f"FlowBank: control='double' needs kind='helmholtz' with its two parts, got {kind!r}.")
            self.K = K
            self.stack = RidgeStack(
                K, dim, width, kind=kind, activation=activation, convex=convex, frequencies=frequencies, period=period,
                context_dim=context_dim, owner="FlowBank",
            )  # fmt: skip
        else:
            alone = isinstance(K, nn.Sequential | Tensor | str) or not isinstance(K, Iterable)
            fields: list[Any] = [K] if alone else list(K)  # type: ignore[arg-type]
            wrong = [x for x in fields if x is K or isinstance(x, FlowBank | type) or not callable(x)]
            if wrong:
                got = f"{'' if wrong[0] is K else 'one with '}{type(wrong[0]).__name__}"
                raise TypeError(f"FlowBank: expected a number of fields or a list of modules, got {got}.")
            given = (dim, width, kind, control, activation, convex, frequencies, period, context_dim)
            if given != _DEFAULTS:
                raise ValueError("FlowBank: a list of fields brings its own sizes; pass no other argument with it.")
            self.stack = FieldStack(fields)
            self.K = len(self.stack.fields)

    @property
    def dim(self) -> int | None:
        """Size of the latent vector; None while it is not known."""
        return self.stack.dim

    @property
    def num_controls(self) -> int:
        """Number of coefficients: K, or 2K with double control."""
        return self.K * (2 if self.control == "double" else 1)

    def extra_repr(self) -> str:
        """Sizes, as `print` shows them."""
        return f"K={self.K}, dim={self.dim}, control={self.control!r}"

    def forward(
        self,
        t: Time,
        z: Float[Tensor, "*batch dim"],
        weights: Weights,
        context: Float[Tensor, "*#batch context"] | None = None,
    ) -> Float[Tensor, "*batch dim"]:
        """Velocity of the mixture at time `t`, in latent units per frame.

        Raises:
            ValueError: For a `z` of the wrong size, or weights of the wrong shape, device or with NaN.
            TypeError: For a `z` that is not floating-point, or integer weights other than one int.
        """
        snapshot, controls = self.snapshot(t, z, weights, context)
        return snapshot.velocity(z, controls)

    def jet(self, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None) -> Jet:
        """Jets of all fields at once: a field axis follows the batch shape, `[*, K]` and `[*, K, D]`."""
        self.check_latent(z, context)
        return self.stack.at(as_time("FlowBank", t, z), context).jet(z)

    def bind(self, weights: Weights) -> "BoundField":
        """The mixture with these weights as a field of `(t, z)`: it goes straight into `torchdiffeq.odeint`.

        A schedule `[T, *, K]` is held constant over each frame: entry n acts from frame n to n + 1. Pass a solver of
        fixed steps `options={"perturb": True}`, so that it takes either side of a jump. For a gradient of the weights
        tell `odeint_adjoint` of them: `adjoint_params=(*field.parameters(), weights)`.
        """
        return BoundField(self, self.select(weights) if isinstance(weights, int) else weights)

    def __getitem__(self, k: int) -> "BoundField":
        if not 0 <= operator.index(k) < self.K:
            raise IndexError(f"FlowBank: expected a field from 0 to {self.K - 1}, got {k}.")
        return BoundField(self, Selection(operator.index(k), None))

    def __len__(self) -> int:
        return self.K

    def __iter__(self) -> "Iterator[BoundField]":
        return (self[k] for k in range(self.K))

    def commutator(
        self, i: int, j: int, t: Time, z: Float[Tensor, "*batch dim"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch dim"]:
        r"""Lie bracket $[v_i, v_j] = J_j v_i - J_i v_j$: zero where the two transformations commute."""
        first, second = self[i], self[j]
        into_second = second.jvp(t, z, first(t, z, context), context)
        return into_second - first.jvp(t, z, second(t, z, context), context)

    def check_latent(self, z: Tensor, context: Tensor | None = None) -> None:
        """Take the latent size from the first `z`, then raise for any `z`, or context beside it, that does not fit."""
        if isinstance(self.stack, RidgeStack):
            lazy = self.dim is None and isinstance(z, Tensor) and z.ndim > 0
            check_latent("FlowBank", z, z.shape[-1] if lazy else self.dim, self.stack.bias)
            check_context("FlowBank", context, self.stack.context_dim, z)
            if lazy and is_transformed():
                raise ValueError(
                    "FlowBank: the first call makes the parameters, which torch.func cannot follow. Build the bank "
                    f"with dim={z.shape[-1]}, or call it once outside."
                )
            self.stack.materialize(z.shape[-1])
        elif not (isinstance(z, Tensor) and z.is_floating_point()):
            raise TypeError(f"FlowBank: expected a floating-point tensor z, got {getattr(z, 'dtype', type(z))}.")

    def snapshot(
        self, t: Time, z: Tensor, weights: "Weights | Selection", context: Tensor | None
    ) -> tuple[Snapshot, Tensor | None]:
        """Checked arguments as the fields at time `t` and their controls `[*, K, P]`, None for one field alone."""
        self.check_latent(z, context)
        time = as_time("FlowBank", t, z)
        if isinstance(weights, int):
            weights = self.select(weights)
        if isinstance(weights, Selection):
            return self.stack.at(time, context, weights), None
        controls = self.controls(weights, z, ("K", "*batch K"))
        return self.stack.at(time, context), controls

    def controls(self, weights: Tensor, z: Tensor, forms: tuple[str, ...], steps: int | None = None) -> Tensor:
        """Checked weights as coefficients `[..., K, P]`, P = 2 with double control; `forms` are the shapes allowed."""
        allowed = {"K": (), "*batch K": z.shape[:-1], "T *batch K": (steps, *z.shape[:-1])}
        shapes = [(*allowed[form], self.num_controls) for form in forms]
        check_weights("FlowBank", weights, z, shapes, steps)
        weights = weights.to(z.dtype)
        if self.control == "double":
            return weights.unflatten(-1, (2, self.K)).transpose(-1, -2)
        return weights[..., None]

    def select(self, control: int) -> Selection:
        """The field, or with double control the part of a field, that an int weight stands for."""
        if isinstance(control, bool) or not 0 <= control < self.num_controls:
            raise ValueError(
                f"FlowBank: expected an int weight to be a control from 0 to {self.num_controls - 1}, got {control}."
            )
        if self.control == "double":
            return Selection(control % self.K, control // self.K)
        return Selection(control, None)


class BoundField(SnapshotField):
    """A bank with fixed weights, as a field of `(t, z)`; it shares the bank's parameters."""

    @property
    def has_potential(self) -> bool:
        """Whether it is a gradient, at least in part."""
        potentials = self.bank.stack.potentials
        if isinstance(self.weights, Selection):
            return potentials[self.weights.field] and self.weights.part != 1
        return any(potentials)

    def __init__(self, bank: FlowBank, weights: Tensor | Selection) -> None:
        super().__init__()
        self.bank = bank
        if isinstance(weights, Tensor) and not isinstance(weights, nn.Parameter):
            self.register_buffer("weights", weights, persistent=False)  # they move with the bank
        else:
            self.weights: Tensor | Selection = weights

    def _at(self, t: Time, z: Tensor, context: Tensor | None) -> tuple[Snapshot, Tensor | None]:
        weights = self.weights
        if isinstance(weights, Tensor) and weights.ndim == z.ndim + 1:
            frame = torch.as_tensor(t, device=z.device).floor().long().clamp(0, weights.shape[0] - 1)
            if frame.ndim:
                raise ValueError("FlowBank: a bound schedule needs one time for the whole batch, got one per sample.")
            weights = weights.index_select(0, frame[None]).squeeze(0)
        return self.bank.snapshot(t, z, weights, context)

    def jet(self, t: Time, z: Tensor, context: Tensor | None = None) -> Jet:
        """Jet of the mixture: the potential is that of the mixed gradients."""
        snapshot, controls = self._at(t, z, context)
        jet = snapshot.jet(z)
        gradients = torch.ones_like(jet.potential) if controls is None else controls[..., 0]
        double = controls is not None and controls.shape[-1] > 1
        velocity = snapshot.velocity(z, controls) if double else (gradients[..., None] * jet.velocity).sum(-2)

        def mix(x: Tensor) -> Tensor:
            return (gradients * x).sum(-1)

        gradient = (gradients[..., None] * jet.gradient).sum(-2)
        return Jet(mix(jet.potential), velocity, mix(jet.time_derivative), mix(jet.laplacian), gradient)
