import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from flowvae.base import Codes
from flowvae.model import UnsupervisedFlowVAE
from flowvae.splitting import likeliest, observe, split

# The model below knows what is in them.
FRAMES = [torch.zeros(3, 400, 1, 1, 1)]


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)


class Told(UnsupervisedFlowVAE):
    """A model whose codes, spikes and features are known: flow 0 stands for moves along two axes, flow 2 for nothing."""

    def __init__(self, count=400):
        super().__init__(latent=4, fields=3, features=5, width=8, path_kl=None, forcing=False, learn_rates=True)
        self.eval()
        # What happens in each of two steps: nothing, a move along axis 1, or one along axis 3.
        self.kind = torch.randint(3, (2, count))
        axes = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        self.means = torch.cat((torch.randn(1, count, 4), axes[self.kind] + 0.02 * torch.randn(2, count, 4))).cumsum(0)
        self.seen = torch.cat((torch.nn.functional.one_hot(self.kind, 3).float(), torch.randn(2, count, 2)), -1)
        self.posterior.disable(2)
        self.prior.disable(2)

    def encode(self, frames):
        return Codes(self.means, torch.full_like(self.means, 0.1))

    def infer(self, frames):
        draw = self.posterior(self.seen)
        spikes = torch.stack((self.kind > 0, self.kind < 0, self.kind < 0), -1).float()
        return draw._replace(spikes=spikes, weights=spikes)

    def pair_features(self, frames):
        return self.seen


def test_observed_steps_know_where_and_when_they_begin():
    model = Told()
    std = torch.linspace(0.1, 0.4, 4)
    model.encode = lambda frames: Codes(model.means, std.expand_as(model.means))
    steps = observe(model, FRAMES)
    torch.testing.assert_close(steps.before, model.means[:-1].flatten(0, 1))
    assert torch.equal(steps.time.unflatten(0, (2, -1)), torch.tensor([[1.0], [2.0]]).expand(2, 400))
    torch.testing.assert_close(steps.sharpness, (1 / (std * 2**0.5)).expand_as(steps.before))
    off = ~steps.on.any(-1)
    moved = (model.means[1:] - model.means[:-1]).flatten(0, 1)
    torch.testing.assert_close(steps.rest[off], (moved * steps.sharpness)[off])


def test_each_half_gets_the_moves_to_one_side():
    model = Told()
    split(model, observe(model, FRAMES), 0, 2)
    spikes = model.posterior(model.seen).logits > 0
    one, other = spikes[..., 0], spikes[..., 2]
    assert not (one & other).any()
    assert torch.equal(one | other, model.kind > 0)
    assert {int(model.kind[one].unique()), int(model.kind[other].unique())} == {1, 2}


def test_both_halves_begin_as_the_whole():
    model = Told()
    rates = [tensor[0].clone() for tensor in model.prior.rates().values()]
    whole, kept = model.flows.bind(0)(0.0, model.means[0]), model.flows.bind(1)(0.0, model.means[0])
    middle = model.posterior.spike_head.weight[1].clone()
    split(model, observe(model, FRAMES), 0, 2)
    for k in (0, 2):
        torch.testing.assert_close(model.flows.bind(k)(0.0, model.means[0]), whole)
        torch.testing.assert_close([tensor[k] for tensor in model.prior.rates().values()], rates)
    torch.testing.assert_close(model.flows.bind(1)(0.0, model.means[0]), kept)
    assert torch.equal(model.posterior.spike_head.weight[1], middle)
    assert model.posterior.enabled.all()


def test_a_flow_that_is_never_on_stays_as_it_is():
    model = Told()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split(model, observe(model, FRAMES), 1, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_likeliest_is_the_one_that_leaves_most_along_an_axis():
    model = Told()
    steps = observe(model, FRAMES)
    assert likeliest(steps, [0, 1, 2]) == 0
    axis, variance = steps.main_axis(0)
    # Moves along axes 1 and 3, a half each, differ along their difference; codes have standard deviations of 0.1.
    torch.testing.assert_close(axis.abs(), torch.tensor([0, 0.5, 0, 0.5]).sqrt(), atol=0.05, rtol=0)
    assert variance == pytest.approx(0.5 / (2 * 0.1**2), rel=0.1)
    assert steps.main_axis(1)[1] == 0
