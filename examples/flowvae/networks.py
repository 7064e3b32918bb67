"""Encoders, decoders and what looks at frames to tell the transformation, in a quick and a published size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_encoder(
    size: str, latent: int, *, image_size: int = 28, width: int = 64, hidden: int = 512, channels: int = 3
) -> nn.Module:
    """Frames `[*, C, S, S]` to mean and log-variance `[*, 2 latent]`.

    The published layers have two stages of stride 2 for 28 and 64 pixels, four of constant width for 128.

    Raises:
        ValueError: For another size of image or of network.
    """
    _check(size, image_size)
    if size == "paper":
        stages = [latent, 2 * latent] if image_size < 128 else [latent] * 4
        layers: list[nn.Module] = []
        for before, after in zip([channels, *stages], stages, strict=False):
            layers += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
        return nn.Sequential(
            *layers,
            nn.Conv2d(stages[-1], 3 * latent, image_size >> len(stages)),
            nn.ReLU(),
            nn.Conv2d(3 * latent, 2 * latent, 1),
            nn.ReLU(),
            nn.Conv2d(2 * latent, 2 * latent, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * latent, 2 * latent),
        )
    network = nn.Sequential(*_patches(channels, width, hidden, image_size), nn.Linear(hidden, 2 * latent))
    scale_weights(network)
    # A small first variance, so that the decoder sees a signal from the start.
    with torch.no_grad():
        network[-1].weight[latent:] *= 0.3
        network[-1].bias[latent:] = -2.0
    return network


def make_decoder(
    size: str, latent: int, *, image_size: int = 28, width: int = 64, hidden: int = 512, channels: int = 3
) -> nn.Module:
    """Latent vectors `[N, latent]` to the logits of frames `[N, C, S, S]`.

    Raises:
        ValueError: For another size of image or of network than `make_encoder` has.
    """
    _check(size, image_size)
    if size == "paper":
        stages = [2 * latent, latent] if image_size < 128 else [latent] * 4
        layers: list[nn.Module] = []
        for before, after in zip(stages, [*stages[1:], channels], strict=True):
            layers += [nn.ReLU(), nn.ConvTranspose2d(before, after, 4, 2, 1)]
        return nn.Sequential(
            nn.Linear(latent, 2 * latent),
            nn.ReLU(),
            nn.Unflatten(-1, (2 * latent, 1, 1)),
            nn.Conv2d(2 * latent, 2 * latent, 1),
            nn.ReLU(),
            nn.Conv2d(2 * latent, 3 * latent, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(3 * latent, stages[0], image_size >> len(stages)),
            *layers,
        )
    patch = image_size // 7 if image_size == 28 else image_size // 16
    side = image_size // patch
    # Beyond 28 pixels the dense layer makes a map of half the side, or it would hold most of the weights.
    start = side if image_size == 28 else side // 2
    network = nn.Sequential(
        nn.Linear(latent, hidden),
        nn.SiLU(),
        nn.Linear(hidden, start * start * width // 2),
        nn.SiLU(),
        nn.Unflatten(-1, (width // 2, start, start)),
        *([] if start == side else [nn.Upsample(scale_factor=2, mode="nearest")]),
        nn.Conv2d(width // 2, width, 3, 1, 1),
        nn.SiLU(),
        nn.Conv2d(width, patch * patch * channels, 1),
        nn.PixelShuffle(patch),
    )
    scale_weights(network)
    # Most pixels of a digit are background: start there.
    with torch.no_grad():
        network[-2].weight *= 0.3
        network[-2].bias.fill_(-2.5 if image_size == 28 else 0.0)
    # Its convolutions are faster so on a CPU: a step on scenes takes a twentieth less.
    return network.to(memory_format=torch.channels_last)


def _check(size: str, image_size: int) -> None:
    if size not in ("quick", "paper") or image_size not in (28, 64, 128):
        raise ValueError(
            f"networks: expected size 'quick' or 'paper' and images of 28, 64 or 128 pixels, got {size!r}, "
            f"{image_size}. Resize the frames."
        )


def _patches(channels: int, width: int, features: int, image_size: int) -> list[nn.Module]:
    """Patches to features: cheaper on a CPU than strided convolutions one after another."""
    patch = 4 if image_size == 28 else image_size // 16
    stride = 1 if image_size == 28 else 2
    return [
        nn.Conv2d(channels, width, patch, patch),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, stride, 1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear((7 if image_size == 28 else 8) ** 2 * width, features),
        nn.SiLU(),
    ]


def make_pair_network(features: int, *, image_size: int = 28, width: int = 24, channels: int = 3) -> nn.Module:
    """Two successive frames `[N, 2 C, S, S]` to features of what happened between them.

    Scenes fill the frame and hardly change: their change is shown apart, and signals are kept at unit size.
    """
    if image_size == 28:
        layers = [nn.Conv2d(2 * channels, width, 4, 2, 1), nn.SiLU(), nn.Conv2d(width, 2 * width, 4, 2, 1), nn.SiLU()]
        side = 7
    else:
        patch = image_size // 16
        layers = [_Change(channels), nn.Conv2d(2 * channels, width, patch, patch), nn.SiLU()]
        layers += [nn.Conv2d(width, 2 * width, 4, 2, 1), nn.SiLU()]
        side = 8
    last = [nn.Linear(side**2 * 2 * width, features), nn.SiLU()]
    if image_size > 28:
        last = [nn.LayerNorm(side**2 * 2 * width), *last, nn.LayerNorm(features)]
    network = nn.Sequential(*layers, nn.Flatten(), *last)
    scale_weights(network)
    return network


class _Change(nn.Module):
    """Frames in [0, 3], side by side, to the first one, centred, and twice how each differs from the one before."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, frames: Tensor) -> Tensor:
        before, after = frames[:, : -self.channels], frames[:, self.channels :]
        return torch.cat((frames[:, : self.channels] - 1.5, 2 * (after - before)), 1)


def make_sequence_network(
    frames: int, features: int, *, image_size: int = 28, width: int = 32, channels: int = 3
) -> nn.Module:
    """All frames of a sequence side by side `[N, frames · C, S, S]` to features of its transformation.

    Of scenes it sees the changes, as `make_pair_network` does.
    """
    layers = _patches(frames * channels, width, features, image_size)
    if image_size > 28:
        *convolutions, linear, activation = layers
        size = linear.in_features
        layers = [_Change(channels), *convolutions, nn.LayerNorm(size), linear, activation, nn.LayerNorm(features)]
    network = nn.Sequential(*layers)
    scale_weights(network)
    return network


def shuffle_views(frames: Tensor, *, mirror: bool = True, turn: bool = True) -> Tensor:
    """Turn and recolour sequences `[T+1, B, 3, H, W]`, all frames of one alike, each group of them differently.

    What kind of motion a sequence shows does not change under these, whatever the content. With `mirror` the views are
    mirrored and the order of the colours reversed too, which keeps the kind of motion but not its direction; without
    `turn` they stay upright.
    """
    shuffled = torch.empty_like(frames)
    for group, place in zip(frames.chunk(8, dim=1), shuffled.chunk(8, dim=1), strict=True):
        colours = torch.randperm(3) if mirror else (torch.arange(3) + torch.randint(3, ())) % 3
        group = torch.rot90(group, int(torch.randint(4, ())), (-2, -1)) if turn else group
        group = group.flip(-1) if mirror and torch.rand(()) < 0.5 else group
        for channel, colour in enumerate(colours.tolist()):
            place[:, :, channel] = group[:, :, colour]
    return shuffled


def pair_features(network: nn.Module, frames: Tensor) -> Tensor:
    """Features `[T, B, features]` of every two successive frames of `[T+1, B, C, H, W]`."""
    pairs = torch.cat((frames[:-1], frames[1:]), 2)
    return network(pairs.flatten(0, 1)).unflatten(0, pairs.shape[:2])


def scale_weights(network: nn.Sequential, gain: float = 1.6) -> None:
    """Keep the size of the signal from layer to layer; torch's default shrinks it, and training stalls at first."""
    layers = [layer for layer in network if isinstance(layer, nn.Linear | nn.Conv2d)]
    for layer in layers:
        fan_in = layer.weight[0].numel()
        nn.init.normal_(layer.weight, std=(1.0 if layer is layers[-1] else gain) * fan_in**-0.5)
        nn.init.zeros_(layer.bias)


def bernoulli_log_prob(logits: Tensor, frames: Tensor) -> Tensor:
    """Log-likelihood of frames in [0, 1] under pixelwise Bernoulli logits, summed over the pixels of each."""
    loss = F.binary_cross_entropy_with_logits(logits, frames, reduction="none")
    return -loss.flatten(-3).sum(-1)
