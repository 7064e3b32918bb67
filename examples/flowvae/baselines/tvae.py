"""The topographic VAE: capsules whose units roll by one place per frame."""

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from ..base import Rollout, SequenceVAE, code_kl, log_normal
from ..data.sequences import Batch
from ..networks import bernoulli_log_prob


class TopographicVAE(SequenceVAE):
    r"""Topographic product of Student-t variables, coherent over time under a roll of the capsules.

    $$t_l = \frac{z_l - \mu}{\sqrt{W \sum_{\delta=-L}^{L} \text{Roll}_{-\delta}(u_{l+\delta}^2)}},
    \qquad \hat x_{l+n} = \text{decode}(\text{Roll}_n(t_l))$$

    One encoder describes both z and u, with a last layer of twice the size. The window has L = 13/36 of a capsule, as
    published. Published sequences are cycles, so that a window is always whole; where ours ends, it has the frames that
    there are. W averages, over them and over neighbours on the circle of a capsule, where the paper sums, and t is
    divided by the first size of z − μ: constant factors that keep the decoder's input at unit size. A prediction thus
    looks at frames 0 to L, and at no label.

    Args:
        capsules: Number of capsules; `capsules * capsule_dim` takes the place of the latent size.
        capsule_dim: Units of a capsule.
        window: L; None for 13/36 of a capsule's units.
        neighbours: Units of a capsule that share their variance, K of the paper: an odd number.
        mu: First value of μ, which is learned. The larger, the more of t is u, which rolls, and not z, which does not.
        frames: Successive frames decoded per sequence in training.
        size: `"quick"` or `"paper"` networks.
        lr: Peak learning rate, after a short warm-up.
        hold: Share of the training after which the learning rate begins its cosine decay.
        bfloat16: Run encoder and decoder in bfloat16, where the device multiplies it.
        image_size: Height and width of a frame: 28, 64 or 128.

    Raises:
        ValueError: For an even number of neighbours, or more of them than a capsule has units.

    Reference:
        Keller and Welling, Topographic VAEs learn Equivariant Capsules, NeurIPS 2021.
    """

    def __init__(
        self,
        capsules: int = 6,
        capsule_dim: int = 6,
        window: int | None = None,
        neighbours: int = 3,
        mu: float = 1.0,
        frames: int = 2,
        size: str = "quick",
        lr: float = 2e-3,
        hold: float = 0.0,
        bfloat16: bool = False,
        image_size: int = 28,
    ) -> None:
        if neighbours % 2 == 0 or not 1 <= neighbours <= capsule_dim:
            raise ValueError(
                f"TopographicVAE: expected an odd number of neighbours up to {capsule_dim}, got {neighbours}."
            )
        latent = capsules * capsule_dim
        super().__init__(latent, size, image_size, lr, hold, bfloat16, codes=2 * latent)
        self.save_hyperparameters()
        self.shape = (capsules, capsule_dim)
        self.window = max(1, round(capsule_dim * 13 / 36)) if window is None else window
        self.neighbours, self.frames = neighbours, frames
        self.scale = (1 + mu**2) ** -0.5
        self.mu = nn.Parameter(torch.full((latent,), mu))

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Logits of every frame from its own window."""
        mean, std = self.encode(frames)
        return self.decode(torch.stack([self.capsules(mean, frame, std=std) for frame in range(len(frames))]))

    def roll(self, t: Tensor, steps: int) -> Tensor:
        """Capsules `[*, D]` after `steps` frames, each unit so many places on."""
        return t.unflatten(-1, self.shape).roll(steps, -1).flatten(-2)

    def capsules(self, codes: Tensor, frame: int, *, std: Tensor | None = None) -> Tensor:
        """Student-t variables `[B, D]` of one frame, from samples of z and u of all frames, `[T+1, B, 2 D]`.

        For means instead of samples give their standard deviations too: of what is drawn, u² has the mean μ² + σ², and
        with μ² alone a unit that knows nothing, N(0, 1), would count as one without any variance.
        """
        z = codes[frame].chunk(2, -1)[0]
        second = codes.square() if std is None else codes.square() + std.square()
        seen = range(max(0, frame - self.window), min(len(codes), frame + self.window + 1))
        squares = [self.roll(second[other].chunk(2, -1)[1], frame - other) for other in seen]
        variance = torch.stack(squares).mean(0)
        half = self.neighbours // 2
        units = variance.unflatten(-1, self.shape)
        variance = torch.stack([units.roll(place, -1) for place in range(-half, half + 1)]).mean(0).flatten(-2)
        return self.scale * (z - self.mu) * (variance + 1e-6).rsqrt()

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """Negative evidence bound of a few successive frames of every sequence, the same ones for the whole batch."""
        frames = batch["frames"].transpose(0, 1)
        count = min(self.frames, len(frames))
        first = int(torch.randint(len(frames) - count + 1, ()))
        chosen = range(first, first + count)
        low = max(0, first - self.window)
        needed = frames[low : first + count + self.window]
        mean, std = self.encode(needed)
        codes = Normal(mean, std, validate_args=False).rsample()
        decoded = self.decode(torch.stack([self.capsules(codes, frame - low) for frame in chosen]))
        terms = {
            "reconstruction": -bernoulli_log_prob(decoded, frames[first : first + count]).mean(),
            "code_kl": code_kl(mean, std).mean(),
        }
        self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        loss = sum(terms.values())
        self.log("loss", loss.detach(), prog_bar=True)
        return loss

    def rollout(self, frames: Tensor, batch: Batch | None, *, sample: bool = False) -> Rollout:
        """Roll the capsules of frame 0, which are inferred from frames 0 to L."""
        mean, std = self.encode(frames[: self.window + 1])
        codes = torch.normal(mean, std) if sample else mean
        first = self.capsules(codes, 0, std=None if sample else std)
        rolled = torch.stack([self.roll(first, step) for step in range(len(frames))])
        if not sample:
            return Rollout(rolled)
        # z belongs to frame 0 alone; u of every frame of the window belongs to the capsules.
        used = [codes[0], *(code.chunk(2, -1)[1] for code in codes[1:])]
        means = [mean[0], *(m.chunk(2, -1)[1] for m in mean[1:])]
        stds = [std[0], *(s.chunk(2, -1)[1] for s in std[1:])]
        drawn, mean, std = (torch.cat(parts, -1) for parts in (used, means, stds))
        ratio = log_normal(drawn) - log_normal(drawn, mean, std)
        return Rollout(rolled, ratio.expand(len(frames), -1))
