import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from flowvae.base import Codes
from flowvae.splitting import likeliest, observe, split
from told import COUNT, FRAMES, Told


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)


class Blended(Told):
    """Flow 0 stands for moves along two axes, flow 2 for nothing."""

    def __init__(self):
        super().__init__(fields=3, features=5, width=8, learn_rates=True)
        # What happens in each of two steps: nothing, a move along axis 1, or one along axis 3.
        self.kind = torch.randint(3, (2, COUNT))
        axes = torch.tensor([[0.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
        self.means = torch.cat((torch.randn(1, COUNT, 4), axes[self.kind] + 0.02 * torch.randn(2, COUNT, 4))).cumsum(0)
        self.features = torch.cat((torch.nn.functional.one_hot(self.kind, 3), torch.randn(2, COUNT, 2)), -1).float()
        self.spikes = torch.stack((self.kind > 0, self.kind < 0, self.kind < 0), -1).float()
        self.posterior.disable(2)
        self.prior.disable(2)


def test_observed_steps_know_where_and_when_they_begin():
    model = Blended()
    std = torch.linspace(0.1, 0.4, 4)
    model.encode = lambda frames: Codes(model.means, std.expand_as(model.means))
    steps = observe(model, FRAMES)
    torch.testing.assert_close(steps.before, model.means[:-1].flatten(0, 1))
    assert torch.equal(steps.time.unflatten(0, (2, -1)), torch.tensor([[1.0], [2.0]]).expand(2, COUNT))
    torch.testing.assert_close(steps.sharpness, (1 / (std * 2**0.5)).expand_as(steps.before))
    off = ~steps.on.any(-1)
    moved = (model.means[1:] - model.means[:-1]).flatten(0, 1)
    torch.testing.assert_close(steps.rest[off], (moved * steps.sharpness)[off])


def test_each_half_gets_the_moves_to_one_side():
    model = Blended()
    split(model, observe(model, FRAMES), 0, 2)
    spikes = model.posterior(model.features).logits > 0
    one, other = spikes[..., 0], spikes[..., 2]
    assert not (one & other).any()
    assert torch.equal(one | other, model.kind > 0)
    assert {int(model.kind[one].unique()), int(model.kind[other].unique())} == {1, 2}


def test_both_halves_begin_as_the_whole():
    model = Blended()
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
    model = Blended()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split(model, observe(model, FRAMES), 1, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_likeliest_is_the_one_that_leaves_most_along_an_axis():
    model = Blended()
    steps = observe(model, FRAMES)
    assert likeliest(steps, [0, 1, 2]) == 0
    axis, variance = steps.main_axis(0)
    # Moves along axes 1 and 3, a half each, differ along their difference; codes have standard deviations of 0.1.
    torch.testing.assert_close(axis.abs(), torch.tensor([0, 0.5, 0, 0.5]).sqrt(), atol=0.05, rtol=0)
    assert variance == pytest.approx(0.5 / (2 * 0.1**2), rel=0.1)
    assert steps.main_axis(1)[1] == 0
