import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from flowvae.parting import part, tied, two_means
from flowvae.splitting import Steps, observe
from told import COUNT, FRAMES, Told

TAKEN = 0.7
"""Share of what flow 0 does that the field of flow 1 takes away."""


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)


class Tied(Told):
    """Flow 0 is on in every step of flow 1 beside its own."""

    def __init__(self):
        super().__init__(fields=2, features=6, width=16, frequencies=0)
        # Which of two transformations is to be seen, in each of two steps.
        self.seen = torch.rand(2, COUNT, 2) < 0.5
        moves = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        noise = 0.02 * torch.randn(2, COUNT, 4)
        self.means = torch.cat((torch.randn(1, COUNT, 4), self.seen.float() @ moves + noise)).cumsum(0)
        # Fields that move as they should, but for what the second takes away.
        wanted = moves.clone()
        wanted[1] -= TAKEN * moves[0]
        together = (self.seen[..., 0] & self.seen[..., 1])[..., None]
        self.features = torch.cat((self.seen, together, torch.rand(2, COUNT, 3)), -1).float()
        self.spikes = torch.stack((self.seen.any(-1), self.seen[..., 1]), -1).float()
        optimizer = torch.optim.Adam(self.flows.parameters(), lr=0.02)
        z = self.means[:-1].flatten(0, 1)
        for _ in range(400):
            loss = sum((self.flows.bind(k)(1.0, z) - wanted[k]).square().mean() for k in range(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        assert loss < 1e-3


def test_a_flow_that_is_on_with_another_learns_to_be_on_by_itself():
    model = Tied()
    steps = observe(model, FRAMES)
    assert tied(steps, [0, 1]) == (0, 1)
    untouched = model.posterior.spike_head.weight[1].clone()
    part(model, steps, 0, 1)
    on = model.posterior(model.features).logits[..., 0] > 0
    assert torch.equal(on, model.seen[..., 0])
    assert torch.equal(model.posterior.spike_head.weight[1], untouched)


def test_the_others_field_takes_over_what_it_had_taken_away():
    model = Tied()
    z = model.means[:-1].flatten(0, 1)
    kept = model.flows.bind(0)(1.0, z)
    part(model, observe(model, FRAMES), 0, 1)
    torch.testing.assert_close(model.flows.bind(0)(1.0, z), kept)
    both = model.seen[..., 1].flatten()
    error = model.flows.bind(1)(1.0, z)[both] - torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert error.square().mean().sqrt() < 0.1
    assert all(p.grad is None for p in model.flows.parameters())


def test_flows_that_come_by_themselves_or_always_together_are_not_tied():
    one, two = torch.rand(2, 1000) < 0.5
    none = torch.zeros(1000, 0)

    def pair(*on, tried=()):
        return tied(Steps(none, torch.stack(on, -1), none, none, none, none), range(len(on)), tried)

    assert pair(one, two) is None
    assert pair(one, one) is None
    assert pair(one, torch.zeros_like(one)) is None
    # In three steps of a thousand both are on by chance.
    rare = torch.zeros_like(one)
    rare[one.nonzero()[:3, 0]] = True
    assert pair(one, rare) is None
    assert pair(rare, one) is None
    assert pair(one | two, two) == (0, 1)
    assert pair(one | two, two, tried=[(0, 1)]) is None
    assert pair(two, one | two, tried=[(0, 1)]) == (1, 0)


def test_of_several_tied_flows_those_that_are_together_most_come_first():
    one, two, three = torch.rand(3, 4000) < 0.5
    mostly = one | (two & (torch.rand(4000) < 0.95))
    none = torch.zeros(4000, 0)
    steps = Steps(none, torch.stack((mostly, two, one | three, three), -1), none, none, none, none)
    assert tied(steps, range(4)) == (2, 3)
    assert tied(steps, range(4), [(2, 3)]) == (0, 1)
    assert tied(steps, [1, 2, 3], [(2, 3)]) is None


@pytest.mark.parametrize("joint", [0, 1])
def test_flows_that_are_hardly_ever_together_stay_as_they_are(joint):
    model = Tied()
    model.spikes[..., 1] = 1 - model.spikes[..., 0]
    model.spikes[0, :joint] = 1
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    part(model, observe(model, FRAMES), 0, 1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_two_means_are_those_of_the_best_halves():
    values = torch.cat((0.7 + 0.2 * torch.randn(60), 1.7 + 0.2 * torch.randn(20)))[torch.randperm(80)]

    def within(cut):
        return sum((half - half.mean()).square().sum() for half in values.sort().values.split((cut, 80 - cut)))

    best = min(range(1, 80), key=within)
    low, high = (half.mean() for half in values.sort().values.split((best, 80 - best)))
    torch.testing.assert_close(two_means(values), (low, high))
    assert two_means(torch.tensor([3.0, 1.0])) == (1.0, 3.0)
