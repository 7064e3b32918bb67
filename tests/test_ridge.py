import torch
from reference import close, randomize, ridge_stack


def test_selecting_a_part_drops_the_others():
    fields, z = randomize(ridge_stack()), torch.randn(5, 3)
    snapshot = fields.at(torch.tensor(1.0))
    parts = snapshot.parts(z)
    close(snapshot.select(1, None).velocity(z, None), parts[:, 1].sum(1))
    close(snapshot.select(1, 0).velocity(z, None), parts[:, 1, 0])
    rotation = snapshot.select(1, 1)
    close(rotation.velocity(z, None), parts[:, 1, 1])
    assert rotation.amplitude is None
    assert (rotation.divergence(z, None) == 0).all()


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
