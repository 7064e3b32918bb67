import pytest
import torch
from reference import close, randomize, ridge_stack

from torchflowfield.interface import Selection


def test_selecting_a_part_drops_the_others():
    fields, z, t = randomize(ridge_stack()), torch.randn(5, 3), torch.tensor(1.0)
    parts = fields.at(t).parts(z)
    whole, gradient, rotation = (fields.at(t, selection=Selection(1, part)) for part in (None, 0, 1))
    assert len(whole.weight) == len(gradient.weight) == len(rotation.weight) == 1
    close(whole.velocity(z, None), parts[:, 1].sum(1))
    close(gradient.velocity(z, None), parts[:, 1, 0])
    close(rotation.velocity(z, None), parts[:, 1, 1])
    assert rotation.amplitude is None
    assert (rotation.divergence(z, None) == 0).all()


@pytest.mark.parametrize("kind", ["potential", "rotational", "helmholtz"])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_mixtures_are_the_same_with_and_without_gradients(kind, batch):
    fields, z = randomize(ridge_stack(kind=kind, context_dim=2)), torch.randn(*batch, 3)
    parts = 2 if kind == "helmholtz" else 1
    every = fields.at(torch.tensor(0.4), torch.randn(2)), fields.at(torch.rand(batch), torch.randn(*batch, 2))
    for snapshot in (*every, every[0].folded()):
        for controls in (None, torch.randn(2, 1), *(torch.randn(*batch, 2, p) for p in {1, parts})):

            def mixed(snapshot=snapshot, controls=controls):
                both = snapshot.velocity_and_divergence(z, controls)
                return snapshot.velocity(z, controls), snapshot.divergence(z, controls), *both

            wanted = mixed()
            with torch.no_grad():
                for one, other in zip(mixed(), wanted, strict=True):
                    close(one, other)


def test_evaluate_gives_what_the_separate_methods_give():
    snapshot, z = randomize(ridge_stack()).at(torch.tensor(0.4)), torch.randn(5, 3)
    controls = torch.randn(5, 2, 2)
    for mixture in (None, controls):
        evaluation, jet = snapshot.evaluate(z, mixture), snapshot.jet(z)
        close(evaluation.velocity, snapshot.velocity(z, mixture))
        close(evaluation.divergence, snapshot.divergence(z, mixture))
        velocity, divergence = snapshot.velocity_and_divergence(z, mixture)
        close(velocity, evaluation.velocity)
        close(divergence, evaluation.divergence)
        close(evaluation.time_derivative.movedim(0, -1), jet.time_derivative)
        close(evaluation.gradient_norm2.movedim(0, -1), jet.gradient.square().sum(-1))
