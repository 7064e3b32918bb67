"""The parameters of a stack of ridge fields."""

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parameter import UninitializedParameter

from torchflowfield._checks import check_choice, check_context, check_whole
from torchflowfield.activations import ACTIVATIONS
from torchflowfield.interface import Selection
from torchflowfield.ridge import RidgeSnapshot
from torchflowfield.time import FourierTime

Kind = Literal["potential", "rotational", "helmholtz"]


class RidgeStack(nn.Module):
    r"""Parameters of $K$ stacked ridge fields; `at` evaluates everything that does not depend on the latent vector.

    Args:
        fields: Number $K$ of fields.
        dim: Size $D$ of the latent vector, or None to take it from the first one seen.
        width: Ridge units $H$ of one field.
        kind: `"potential"`, `"rotational"` or `"helmholtz"` (both parts on the same units).
        activation: `"logcosh"`, `"cos"` or `"softplus"`.
        convex: Keep every $c_j \ge 0$.
        frequencies: Harmonics of time; 0 makes the fields autonomous.
        period: Longest period in frames.
        context_dim: Size of the context vector, 0 for none.
        owner: Class that errors name: the one that the user built.

    Rotations have the parameter `cross`, which is $\sqrt D \rho$ before $\rho$ is taken across $w$: numbers of the size
    of the amplitudes, as Adam changes all alike and rotations would otherwise learn far faster.
    """

    _version = 2  # Of a state dict. In the first `cross` was ρ itself.

    def __init__(
        self,
        fields: int,
        dim: int | None,
        width: int,
        *,
        kind: Kind,
        activation: str,
        convex: bool,
        frequencies: int,
        period: float,
        context_dim: int,
        owner: str = "RidgeStack",
    ) -> None:
        super().__init__()
        self.owner = owner
        check_choice(owner, "kind", kind, ("potential", "rotational", "helmholtz"))
        check_choice(owner, "activation", activation, ACTIVATIONS)
        check_whole(owner, K=fields, dim=1 if dim is None else dim, width=width)
        check_whole(owner, 0, frequencies=frequencies, context_dim=context_dim)
        if convex and (kind != "potential" or not ACTIVATIONS[activation].convex):
            raise ValueError(
                f"{owner}: convex=True needs kind='potential' and a convex activation ('logcosh' or 'softplus'), "
                f"got kind={kind!r} and activation={activation!r}."
            )
        self.kind, self.activation, self.convex, self.context_dim = kind, activation, convex, context_dim
        self.time = FourierTime(frequencies, period=period) if frequencies else None
        features = self.time.features if self.time is not None else 0

        def parameter(*shape: int, std: float, mean: float = 0.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape) * std + mean)

        self.weight: Tensor = UninitializedParameter()
        self.cross: Tensor | None = UninitializedParameter() if kind != "potential" else None
        self.bias = parameter(fields, width, std=0.5)
        self.bias_time = parameter(fields, width, features, std=0.1) if features else None
        self.context_weight = parameter(fields, width, context_dim, std=context_dim**-0.5) if context_dim else None
        self.amplitude = self.amplitude_time = None
        if kind != "rotational":
            # A small start: the flow begins near the identity. softplus(-5) is about 0.007.
            std, mean = (0.1, -5.0) if convex else (0.1 * width**-0.5, 0.0)
            self.amplitude = parameter(fields, width, std=std, mean=mean)
            self.amplitude_time = parameter(fields, width, features, std=0.1 * std) if features else None
        if dim is not None:
            self.materialize(dim)

    def extra_repr(self) -> str:
        """What tells one architecture from another, as `print` shows it."""
        frequencies = 0 if self.time is None else len(self.time.omega)
        shown = f"width={self.bias.shape[1]}, kind={self.kind!r}, activation={self.activation!r}"
        convex = ", convex=True" if self.convex else ""
        context = f", context_dim={self.context_dim}" if self.context_dim else ""
        return f"{shown}{convex}, frequencies={frequencies}{context}"

    @property
    def dim(self) -> int | None:
        """Size of the latent vector, None while it is not known."""
        return None if isinstance(self.weight, UninitializedParameter) else self.weight.shape[-1]

    @property
    def potentials(self) -> tuple[bool, ...]:
        """Which fields have a potential."""
        return (self.kind != "rotational",) * len(self.bias)

    def materialize(self, dim: int) -> None:
        """Create the parameters that depend on the latent size, once it is known."""
        if not isinstance(self.weight, UninitializedParameter):
            return
        if self.kind != "potential" and dim < 2:
            raise ValueError(f"{self.owner}: a rotation needs at least two axes, got dim={dim}.")
        fields, width = self.bias.shape
        # Made under `inference_mode`, as by a validation before the training, it could not be trained.
        with torch.inference_mode(False), torch.no_grad():
            for parameter, std in ((self.weight, dim**-0.5), (self.cross, 0.1 * width**-0.5)):
                if isinstance(parameter, UninitializedParameter):
                    parameter.materialize((fields, width, dim), device=self.bias.device, dtype=self.bias.dtype)
                    parameter.normal_(std=std)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        # A parameter of unknown size cannot be detached.
        super()._save_to_state_dict(destination, prefix, keep_vars or self.dim is None)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, local_metadata: dict[str, Any], *args: Any
    ) -> None:
        stored, cross = (state_dict.get(prefix + name) for name in ("weight", "cross"))
        if stored is not None and not isinstance(stored, UninitializedParameter):
            self.materialize(stored.shape[-1])
            if cross is not None and local_metadata.get("version", self._version) < 2:
                state_dict[prefix + "cross"] = cross * cross.shape[-1] ** 0.5
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def course(self, context: Tensor | None = None, selection: Selection | None = None) -> "RidgeCourse":
        """The fields over time, or the selected one alone; a context `[*, C]` gives each sample its own shift."""
        check_context(self.owner, context, self.context_dim)
        field, part = (None, None) if selection is None else selection

        def pick(x: Any, wanted: bool = True) -> Any:
            return None if x is None or not wanted else x if field is None else x[field : field + 1]

        weight, cross, bias = pick(self.weight), pick(self.cross, part != 0), pick(self.bias)
        norm2 = weight.square().sum(-1)
        rotation = of_context = None
        if cross is not None:
            unit = F.normalize(weight, dim=-1)
            across = cross * cross.shape[-1] ** -0.5
            rotation = across - (across * unit).sum(-1, keepdim=True) * unit
        if context is not None:
            of_context = torch.einsum("...c,khc->...kh", context, pick(self.context_weight))
        amplitude, amplitude_time = pick(self.amplitude, part != 1), pick(self.amplitude_time, part != 1)
        still = RidgeSnapshot(self.activation, weight, norm2, rotation, bias, amplitude, None, None)
        return RidgeCourse(still, of_context, self.time, pick(self.bias_time), amplitude_time, self.convex)

    def at(self, t: Tensor, context: Tensor | None = None, selection: Selection | None = None) -> RidgeSnapshot:
        """The fields at the times `t [*]`, or the selected one alone."""
        return self.course(context, selection).at(t)

    def on_grid(
        self, times: Tensor, context: Tensor | None, batch_ndim: int, selection: Selection | None = None
    ) -> RidgeSnapshot:
        """The same at all points of a time grid `[N]`, to be picked from `RidgeSnapshot.unbind`."""
        return self.course(context, selection).at(times, batch_ndim)


class RidgeCourse(NamedTuple):
    r"""$K$ stacked fields over time: what depends on neither time nor latent vector is computed already.

    Attributes:
        still: The fields without what time and context add to $b$ and $c$.
        of_context: What the context adds to $b$, `[*, K, H]`.
        time: Features of time, None for autonomous fields.
        bias_time: Their weights in $b$, `[K, H, F]`.
        amplitude_time: Their weights in $c$, `[K, H, F]`; None for fields without a gradient.
        convex: Whether $c$ is kept positive.
    """

    still: RidgeSnapshot
    of_context: Tensor | None
    time: FourierTime | None
    bias_time: Tensor | None
    amplitude_time: Tensor | None
    convex: bool

    def at(self, t: Tensor, batch_ndim: int | None = None) -> RidgeSnapshot:
        """The fields at the times `t [*]`; with `batch_ndim`, at the points of a grid `[N]` before the batch's axes."""
        shift, amplitude = self.still.shift, self.still.amplitude
        shift_rate: Tensor | None = None
        amplitude_rate: Tensor | None = None
        if self.time is not None and self.bias_time is not None:
            features, rates = self.time.with_derivative(t)
            shift, shift_rate = _affine(features, rates, shift, self.bias_time)
            if amplitude is not None and self.amplitude_time is not None:
                amplitude, amplitude_rate = _affine(features, rates, amplitude, self.amplitude_time)
        if self.convex and amplitude is not None:
            if amplitude_rate is not None:
                amplitude_rate = torch.sigmoid(amplitude) * amplitude_rate
            amplitude = F.softplus(amplitude)
        if self.of_context is not None:
            if batch_ndim is not None and self.time is not None:
                shift = shift.view(-1, *[1] * batch_ndim, *shift.shape[-2:])
            shift = shift + self.of_context
        return self.still.replaced(
            shift=shift, amplitude=amplitude, shift_rate=shift_rate, amplitude_rate=amplitude_rate
        )


def _affine(features: Tensor, rates: Tensor, still: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """`still` plus `moving [K, H, F]` times the features `[*, F]`, and its rate in time; both `[*, K, H]`."""
    value, rate = F.linear(torch.stack((features, rates)), moving.flatten(0, 1)).unbind()
    return still + value.unflatten(-1, still.shape), rate.unflatten(-1, still.shape)
