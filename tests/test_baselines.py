import math
import sys
from pathlib import Path

import pytest
import torch
from torch.distributions import Laplace, Normal

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.base import code_kl  # noqa: E402
from flowvae.baselines import VAE, BetaVAE, FactorVAE, PoFlow, SlowVAE, TopographicVAE  # noqa: E402
from flowvae.baselines.factor_vae import Discriminator, permute_dims  # noqa: E402
from flowvae.baselines.slow_vae import laplace_kl  # noqa: E402
from flowvae.baselines.traversal import LatentTraversal  # noqa: E402

ALL = (VAE, BetaVAE, FactorVAE, SlowVAE, TopographicVAE, PoFlow)


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


def batch_of(count=6, steps=4, factors=3):
    factor = torch.arange(count) % factors
    weights = torch.eye(factors)[factor][:, None].expand(-1, steps, -1)
    return {"frames": torch.rand(count, steps + 1, 3, 28, 28), "weights": weights, "factor": factor}


def loss_of(model, batch, seed=0):
    model.log = model.log_dict = lambda *arguments, **options: None
    torch.manual_seed(seed)
    return model.training_step(batch, 0)


def small(cls, **options):
    torch.manual_seed(3)
    if cls is PoFlow:
        options = {"width": 8, "change_samples": 2, **options}
    if cls is not TopographicVAE:
        options = {"latent": 8, **options}
    return cls(**options)


@pytest.mark.parametrize("cls", ALL)
def test_every_parameter_of_a_baseline_receives_a_gradient(cls):
    model, batch = small(cls), batch_of()
    loss_of(model, batch).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("cls", ALL)
def test_a_baseline_predicts_every_frame_and_knows_the_density_of_its_prediction(cls):
    model, batch = small(cls).eval(), batch_of()
    loss_of(model.train(), batch)
    frames = batch["frames"].transpose(0, 1)
    rolled = model.eval().rollout(frames, batch)
    assert rolled.z.shape[:2] == (5, 6)
    assert rolled.log_ratio is None
    drawn = model.rollout(frames, batch, sample=True)
    assert drawn.log_ratio.shape == (5, 6)
    assert model.decode(drawn.z).shape == frames.shape
    assert model.reconstruct(frames).shape == frames.shape


def test_a_beta_of_one_is_the_vae():
    batch = batch_of()
    plain, same, other = (
        loss_of(small(cls, **o), batch) for cls, o in ((VAE, {}), (BetaVAE, {"beta": 1.0}), (BetaVAE, {"beta": 4.0}))
    )
    assert plain == same
    assert other > plain


def test_the_divergence_of_a_code_is_that_of_torch():
    mean, std = torch.randn(5, 3), torch.rand(5, 3) + 0.1
    expected = torch.distributions.kl_divergence(Normal(mean, std), Normal(0.0, 1.0)).sum(-1)
    assert torch.allclose(code_kl(mean, std), expected)


def test_the_discriminator_separates_a_known_dependency_and_finds_none_where_there_is_none():
    torch.manual_seed(0)
    discriminator = Discriminator(2, 32, 2)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=3e-3)

    def draw(dependent):
        shared = torch.randn(512, 1)
        return torch.cat(
            (shared, 0.9 * shared + math.sqrt(1 - 0.81) * torch.randn(512, 1) if dependent else torch.randn(512, 1)), 1
        )

    for _ in range(300):
        optimizer.zero_grad()
        discriminator.loss(draw(True), draw(True)).backward()
        optimizer.step()
    estimated = discriminator.total_correlation(draw(True)).mean().item()
    exact = -0.5 * math.log(1 - 0.81)
    assert 0.6 * exact < estimated < 1.3 * exact
    assert discriminator.total_correlation(draw(False)).mean() < 0


def test_permuted_codes_keep_their_marginals_and_lose_their_order():
    z = torch.randn(100, 4)
    permuted = permute_dims(z)
    assert torch.equal(permuted.sort(0).values, z.sort(0).values)
    assert not torch.equal(permuted, z)


def test_the_total_correlation_teaches_the_codes_but_not_the_discriminator():
    discriminator, z = Discriminator(3, 8, 1), torch.randn(4, 3, requires_grad=True)
    discriminator.total_correlation(z).sum().backward()
    assert z.grad.abs().sum() > 0
    assert all(p.grad is None for p in discriminator.parameters())
    z.grad = None
    discriminator.loss(z, z).backward()
    assert z.grad is None
    assert all(p.grad is not None for p in discriminator.parameters())


def test_the_slow_prior_is_the_laplace_of_the_paper():
    torch.manual_seed(0)
    mean, std, before, before_std = torch.randn(1, 2), torch.rand(1, 2) + 0.2, torch.randn(1, 2), torch.rand(1, 2) + 0.2
    z = mean + std * torch.randn(400_000, 2)
    earlier = before + before_std * torch.randn(400_000, 2)
    sampled = (Normal(mean, std).log_prob(z) - Laplace(earlier, 1 / 6).log_prob(z)).sum(-1).mean()
    assert torch.allclose(laplace_kl(mean, std, before, before_std, 6.0)[0], sampled, atol=0.03)


def test_the_slow_vae_pulls_the_codes_of_one_sequence_together():
    model = small(SlowVAE)
    mean = torch.tensor([[[0.0] * 8], [[1.0] * 8]], requires_grad=True)
    std = torch.full((2, 1, 8), 0.3)
    model.penalty(mean, std, mean)["slow_kl"].backward()
    assert (mean.grad[1] > 0).all()
    assert torch.allclose(mean.grad[0], -mean.grad[1])


def test_capsules_of_means_stand_for_those_of_samples():
    model = small(TopographicVAE)
    codes, std = torch.zeros(5, 1, 2 * model.hparams.capsules * model.hparams.capsule_dim), torch.tensor(1.0)
    drawn = torch.normal(codes.expand(-1, 4000, -1), std)
    drawn[..., : codes.shape[-1] // 2] = 0
    t = model.capsules(codes, 2, std=std.expand_as(codes))[0]
    # What is drawn has heavy tails: its median lies near, and without the spread of u all would be a thousand times it.
    torch.testing.assert_close(model.capsules(drawn, 2).median(0)[0], t, rtol=0.2, atol=0.0)


def test_a_roll_of_the_capsules_is_exact_and_goes_round():
    model = small(TopographicVAE)
    t = torch.randn(4, 36)
    once = model.roll(t, 1).view(4, 6, 6)
    assert torch.equal(once[..., 1:], t.view(4, 6, 6)[..., :-1])
    assert torch.equal(once[..., 0], t.view(4, 6, 6)[..., -1])
    assert torch.equal(model.roll(t, 6), t)
    assert torch.equal(model.roll(model.roll(t, 2), -2), t)


def test_the_variance_of_rolling_inputs_rolls_with_them():
    model = small(TopographicVAE, mu=0.0)
    u, z = torch.randn(1, 2, 36), torch.randn(1, 36).expand(2, 36)
    # Frames whose u rolls by one place per frame, as the model expects of a sequence.
    codes = torch.stack([torch.cat((model.roll(z, n), model.roll(u[0], n)), -1) for n in range(7)])
    t = [model.capsules(codes, frame) for frame in (2, 3, 4)]
    assert torch.allclose(t[1], model.roll(t[0], 1), atol=1e-5)
    assert torch.allclose(t[2], model.roll(t[0], 2), atol=1e-5)


def test_the_wave_residual_vanishes_on_a_plane_wave():
    model = small(PoFlow, fields=2).double()
    speed, k = model.speed.detach(), torch.randn(8).double()

    class Jet:
        def __init__(self, t, z):
            phase = (z @ k)[..., None] - speed * k.norm() * t[..., None]
            self.time_derivative = -speed * k.norm() * phase.cos()
            self.laplacian = -k.square().sum() * phase.sin()

    model.flows.jet = Jet
    t, z = torch.rand(5).double(), torch.randn(5, 8).double()
    assert model.wave_residual(t, z).abs().max() < 1e-10
    with torch.no_grad():
        model.raw_speed += 1
    assert model.wave_residual(t, z).abs().max() > 1e-3


def test_the_wave_residual_has_the_second_time_derivative_of_the_potential():
    model = small(PoFlow).double()
    t, z, h = torch.rand(5).double() + 1, torch.randn(5, 8).double(), 1e-4
    rate = [model.flows.jet(t + s * h, z).time_derivative for s in (-1, 1)]
    expected = (rate[1] - rate[0]) / (2 * h) - model.speed.square() * model.flows.jet(t, z).laplacian
    assert torch.allclose(model.wave_residual(t, z), expected, atol=1e-6)


def test_the_change_of_the_picture_is_the_decoders_derivative():
    model = small(PoFlow)
    z, v, h = torch.randn(3, 8), torch.randn(3, 8), 1e-2
    expected = (
        ((model.decode(z + h * v).sigmoid() - model.decode(z - h * v).sigmoid()) / (2 * h)).square().sum((1, 2, 3))
    )
    assert torch.allclose(model.change(z, v), expected, rtol=1e-2)


def test_traversals_recover_known_motions():
    torch.manual_seed(0)
    traversal = LatentTraversal(2, 3)
    shift, matrix = torch.tensor([0.5, -1.0, 0.1]), 0.1 * torch.randn(3, 3)
    for _ in range(100):
        z = torch.randn(64, 3)
        which = torch.randint(2, (64,))
        after = torch.where(which[:, None] == 0, z + shift, z + z @ matrix.T)
        traversal.update(z, after, torch.eye(2)[which])
    z0, first, second = (
        torch.randn(5, 3),
        torch.eye(2)[[0] * 5].expand(4, -1, -1),
        torch.eye(2)[[1] * 5].expand(4, -1, -1),
    )
    assert torch.allclose(traversal.roll(z0, first)[-1], z0 + 4 * shift, atol=0.05)
    affine = traversal.roll(z0, second, "affine")
    assert torch.allclose(affine[-1], z0 @ torch.linalg.matrix_power(torch.eye(3) + matrix.T, 4), atol=0.05)
    moved = traversal.roll(z0, first, "axis")[-1] - z0
    assert (moved[:, 1] < -3.8).all()
    assert moved[:, [0, 2]].abs().max() == 0


def test_a_traversal_of_other_factors_and_a_missing_batch_are_errors():
    with pytest.raises(ValueError, match="expected coefficients of 2 factors, got 3"):
        LatentTraversal(2, 3).roll(torch.zeros(1, 3), torch.zeros(4, 1, 3))
    with pytest.raises(ValueError, match="VAE: a traversal follows the batch's coefficients"):
        small(VAE).rollout(torch.rand(5, 1, 3, 28, 28), None)


def test_more_neighbours_than_units_are_an_error():
    with pytest.raises(ValueError, match="odd number of neighbours up to 4, got 6"):
        TopographicVAE(capsule_dim=4, neighbours=6)
