"""The shortest complete loop: a VAE finds out by itself that digits are scaled, turned and recoloured, and when.

python examples/minimal_spike_slab.py
"""

from pathlib import Path

import torch
from flowvae import networks as nets
from flowvae.data.digits import load_digits
from flowvae.data.sequences import DigitSequences
from flowvae.data.transforms import FACTORS
from jsonargparse import auto_cli
from torch import Tensor, nn

from torchflowfield import Annealing, FlowBank, ODEStepper, SpikeSlabPosterior, SpikeSlabPrior
from torchflowfield.metrics import transformation_recovery
from torchflowfield.viz import traversal_grid

LATENT, STEPS, BATCH = 24, 5, 64


class SpikeSlabVAE(nn.Module):
    """Code of frame 0, spikes of every step, three flows that they switch, and a decoder of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nets.make_encoder("quick", LATENT, width=32), nets.make_decoder("quick", LATENT)
        self.pairs = nets.make_pair_network(128, width=16)
        self.posterior = SpikeSlabPosterior(128, K=3, slab=None)
        self.prior = SpikeSlabPrior(K=3, on=0.1, keep=0.9, slab=None)
        self.stepper = ODEStepper(FlowBank(K=3, dim=LATENT, width=96, frequencies=0), density=None)

    def forward(self, frames: Tensor, temperature: float, progress: float) -> Tensor:
        """Negative evidence bound of sequences `[T+1, B, 3, 28, 28]`."""
        mean, log_variance = self.encoder(3 * frames[0]).chunk(2, -1)
        z0 = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
        seen = nets.shuffle_views(frames, mirror=False)  # so that no flow can specialise on content
        spikes = self.posterior(nets.pair_features(self.pairs, 3 * seen), temperature)
        path = self.stepper(z0, spikes.weights, STEPS, record=False)
        logits = self.decoder(path.z.flatten(0, 1)).unflatten(0, path.z.shape[:2])
        code_kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        kl = min(1.0, 0.1 + 4.5 * progress) * code_kl + min(1.0, 2.5 * progress) * self.prior.kl(spikes).total
        return (kl - nets.bernoulli_log_prob(logits, frames).sum(0)).mean()


def main(steps: int = 1200, output: Path = Path("runs/minimal"), seed: int = 0) -> None:
    """Train, print the recovered transformations and save one picture of the flows in the folder `output`."""
    torch.manual_seed(seed)
    digits, model = load_digits(None), SpikeSlabVAE()
    train = DigitSequences(digits.train, "spikes", steps=STEPS, length=steps * BATCH, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, betas=(0.9, 0.99), fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps, pct_start=0.05)
    temperature = Annealing(1.0, 0.3, steps=round(0.8 * steps))
    for step in range(steps):
        frames = train.__getitems__(list(range(step * BATCH, (step + 1) * BATCH)))["frames"].transpose(0, 1)
        optimizer.zero_grad()
        (loss := model(frames, temperature(step), step / steps)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 300.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step:5d}: negative evidence bound {loss.item():.1f}", flush=True)
    model.eval()
    test = DigitSequences(digits.test, "spikes", steps=STEPS, length=180, seed=-1).__getitems__(list(range(180)))
    with torch.no_grad():
        frames = test["frames"].transpose(0, 1)
        spikes = model.posterior(nets.pair_features(model.pairs, 3 * frames)).spikes
        found = transformation_recovery(spikes, test["weights"].transpose(0, 1))
        print(f"On test digits, {digits.name}; each flow on its own in {output / 'flows.png'}:")
        for factor, flow, f1 in zip(FACTORS, found.matching, found.f1, strict=True):
            print(f"  {factor:8s} is flow {int(flow)}, F1 {float(f1):.3f}")
        z0 = model.encoder(3 * frames[0, :1])[:, :LATENT]
        rows = [model.decoder(model.stepper(z0, int(flow), 8).z.flatten(0, 1)).sigmoid() for flow in found.matching]
        traversal_grid(torch.stack(rows, 1), output / "flows.png")


if __name__ == "__main__":
    auto_cli(main)
