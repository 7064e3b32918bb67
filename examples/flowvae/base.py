"""What every model here shares: encoder, decoder, optimiser, and one way to be asked for a prediction."""

import functools
import math
import platform
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Normal

from torchflowfield.metrics import equivariance_error

from .data.sequences import Batch
from .evaluation import Evaluation
from .networks import make_decoder, make_encoder


class Codes(NamedTuple):
    """Mean and standard deviation of codes, `[*, latent]`."""

    mean: Tensor
    std: Tensor


class Rollout(NamedTuple):
    r"""Codes `z [T+1, B, D]` of all frames, predicted from the first ones.

    `log_ratio [T+1, B]` is $\log p_t(z_t) - \log q_t(z_t)$ of codes that were drawn, else None.
    """

    z: Tensor
    log_ratio: Tensor | None = None


class SequenceVAE(LightningModule):
    """An encoder and a decoder of frames, and a rule that moves codes through time, which subclasses bring.

    Args:
        latent: Size of the latent vector.
        size: `"quick"` or `"paper"` networks.
        image_size: Height and width of a frame: 28, 64 or 128.
        lr: Peak learning rate, after a short warm-up.
        hold: Share of the training after which the learning rate begins its cosine decay.
        bfloat16: Run encoder and decoder in bfloat16 on devices that multiply it; others keep float32.
        codes: Size of what the encoder describes, if it is not `latent`.
    """

    needs_labels = False
    """Whether training reads which transformation a sequence shows."""

    def __init__(
        self,
        latent: int,
        size: str,
        image_size: int,
        lr: float,
        hold: float,
        bfloat16: bool,
        codes: int | None = None,
    ) -> None:
        super().__init__()
        self.encoder = make_encoder(size, codes or latent, image_size=image_size)
        self.decoder = make_decoder(size, latent, image_size=image_size)
        self.lr, self.hold, self.half_precision, self.pixels = lr, hold, bfloat16, image_size

    def encode(self, frames: Tensor) -> Codes:
        """Codes `[*, latent]` of frames `[*, C, H, W]`."""
        if frames.shape[-3:] != (3, self.pixels, self.pixels):
            raise ValueError(
                f"{type(self).__name__}: expected frames of 3×{self.pixels}×{self.pixels}, got "
                f"{'×'.join(map(str, frames.shape[-3:]))}. Set image_size of model and data alike."
            )
        flat = frames.flatten(0, -4)
        with self._precision(flat):
            mean, log_variance = self.encoder(self._pixels(flat)).float().chunk(2, -1)
        std = (0.5 * log_variance.clamp(-10, 4)).exp()
        return Codes(*(x.unflatten(0, frames.shape[:-3]) for x in (mean, std)))

    def decode(self, z: Tensor) -> Tensor:
        """Logits `[*, C, H, W]` of the frames of codes `[*, latent]`."""
        with self._precision(z):
            return self.decoder(z.flatten(0, -2)).float().unflatten(0, z.shape[:-1])

    def reconstruct(self, frames: Tensor) -> Tensor:
        """Logits of frames `[T+1, B, C, H, W]`, each decoded from its own code."""
        return self.decode(self.encode(frames)[0])

    def rollout(self, frames: Tensor, batch: Batch | None, *, sample: bool = False) -> Rollout:
        """Predict the codes of all frames `[T+1, B, C, H, W]` as the model's paper does.

        Args:
            frames: True frames, of which the model may look at no more than its paper lets it.
            batch: What the data say about the sequences.
            sample: Draw the code of the first frame; otherwise take its mean.
        """
        raise NotImplementedError(f"{type(self).__name__} has to define rollout.")

    def alternatives(self, frames: Tensor, batch: Batch | None) -> dict[str, Tensor]:
        """Other predictions of the same model by name, codes `[T+1, B, D]`."""
        return {}

    def validation_step(self, batch: Batch, index: int) -> None:
        """Relative equivariance error."""
        frames = batch["frames"].transpose(0, 1)
        predicted = self.decode(self.rollout(frames, batch).z).sigmoid()
        error = equivariance_error(predicted, frames, relative=True).mean()
        self.log("val/relative_error", error, prog_bar=True, batch_size=frames.shape[1], sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the class, so that `load_model` finds it again."""
        checkpoint["model_class"] = type(self).__name__

    def on_test_start(self) -> None:
        """Collect what `test_step` sees."""
        self.evaluation = Evaluation(self, self.trainer.datamodule)

    def test_step(self, batch: Batch, index: int, dataloader_idx: int = 0) -> None:
        """Feed the evaluation, whose table is printed at the end."""
        self.evaluation.update(batch, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Print the table and log its figures."""
        self.evaluation.report()

    def configure_optimizers(self) -> dict:
        """Adam, with the learning rate of every step from `learning_rate`."""
        optimizer = torch.optim.Adam(self._parameter_groups(), lr=self.lr, betas=(0.9, 0.99), fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.learning_rate((step + 1) / steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def learning_rate(self, progress: float) -> float:
        """Share of the peak rate at a `progress` of the training from 0 to 1: a short warm-up, then a cosine decay."""
        decay = ramp(progress - self.hold, 1 - self.hold) if progress > self.hold else 0.0
        return min(1.0, progress / 0.05) * (0.5 + 0.5 * math.cos(math.pi * decay))

    def _parameter_groups(self) -> list[dict]:
        return [{"params": list(self.parameters())}]

    def _pixels(self, frames: Tensor) -> Tensor:
        """Frames as networks read them: brought to unit size, in bfloat16 where the networks run in it.

        Rounded here and not by autocast, so that what is made of them on the way moves half the memory.
        """
        return 3 * (frames.bfloat16() if self._is_half(frames.device) else frames)

    def _precision(self, x: Tensor):
        # Otherwise as the trainer's own precision says.
        return torch.autocast(x.device.type, torch.bfloat16) if self._is_half(x.device) else nullcontext()

    def _is_half(self, device: torch.device) -> bool:
        return self.half_precision and multiplies_bfloat16(device)


@functools.cache
def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether it has products in bfloat16; a CPU that makes do without takes four to twelve times as long over them."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    # On x86 oneDNN accepts the type from plain AVX-512 on, and emulates it.
    native = platform.machine() not in ("x86_64", "AMD64") or torch.cpu._is_avx512_bf16_supported()
    return native and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def parameter_groups(model: nn.Module, *own: tuple[list[nn.Parameter], float]) -> list[dict]:
    """Groups for an optimizer: the parameters that have a learning rate of their own, after all others."""
    known = {id(p) for parameters, _ in own for p in parameters}
    others = [p for p in model.parameters() if id(p) not in known]
    return [{"params": others}, *({"params": parameters, "lr": lr} for parameters, lr in own)]


def training_progress(model: LightningModule) -> float:
    """How much of the training is done, from 0 to 1; 1 for a model that is not being trained."""
    trainer = model._trainer
    if trainer is None or trainer.state.fn != "fit":
        return 1.0
    return min(1.0, model.global_step / int(trainer.estimated_stepping_batches))


def ramp(progress: float, share: float) -> float:
    """How far something is that rises from 0 to 1 within a share of the training; at once within none of it."""
    return min(1.0, progress / share) if share else 1.0


def code_kl(mean: Tensor, std: Tensor) -> Tensor:
    r"""$KL(N(\text{mean}, \text{std}^2) \| N(0, I))$ of codes `[*, D]`, `[*]`."""
    return (0.5 * (mean.square() + std.square() - 1) - std.log()).sum(-1)


def log_normal(z: Tensor, mean: Tensor | float = 0.0, std: Tensor | float = 1.0) -> Tensor:
    """Log-density `[*]` of `z [*, D]` under independent normal distributions."""
    return Normal(mean, std, validate_args=False).log_prob(z).sum(-1)
