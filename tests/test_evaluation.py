import math
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.distributions import Normal

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))

from flowvae.base import Rollout, log_normal  # noqa: E402
from flowvae.compositions import composition_errors, digit_frames, predict, superpose, switch  # noqa: E402
from flowvae.data.sequences import DigitsData  # noqa: E402
from flowvae.data.split import GridSplit  # noqa: E402
from flowvae.data.transforms import render  # noqa: E402
from flowvae.disentanglement import dci, disentanglement, labelled_frames, mutual_information_gap  # noqa: E402
from flowvae.evaluation import Evaluation  # noqa: E402
from flowvae.footage import camera_motion, correlation, in_words, measure, position  # noqa: E402
from flowvae.likelihood import gaussian_ceiling, gaussian_log_prob, log_likelihood  # noqa: E402
from flowvae.model import FlowVAE, UnsupervisedFlowVAE  # noqa: E402
from flowvae.video_results import next_frame_errors  # noqa: E402


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


class LinearGaussian:
    """x = z + noise with z ~ N(0, 1) in every pixel, whose likelihood is known: N(0, 2)."""

    def __init__(self, mean, std):
        self.mean, self.std = mean, std

    def rollout(self, frames, batch, *, sample=False):
        mean = self.mean * frames.flatten(2)
        z = mean + self.std * torch.randn_like(mean)
        return Rollout(z, log_normal(z) - log_normal(z, mean, torch.full_like(z, self.std)))

    def decode(self, z):
        # The evaluator takes logits: those of z, where z is within (0, 1).
        return torch.logit(z.unflatten(-1, (1, 1, 2)).double().clamp(1e-12, 1 - 1e-12)).float()


def test_no_gaussian_likelihood_is_above_the_ceiling():
    assert gaussian_ceiling(2352) == pytest.approx(-2161.34, abs=0.01)
    assert gaussian_ceiling(12288) == pytest.approx(-11291.92, abs=0.01)
    frames = torch.rand(3, 4, 3, 28, 28)
    assert (gaussian_log_prob(torch.logit(frames), frames) <= gaussian_ceiling(2352) + 1e-2).all()
    assert torch.allclose(gaussian_log_prob(torch.zeros_like(frames), frames).double(),
                          Normal(0.5, 1.0).log_prob(frames.double()).flatten(-3).sum(-1), atol=1e-2)  # fmt: skip


def test_a_model_with_codes_of_its_own_stays_below_the_ceiling_and_a_wrong_sign_does_not():
    torch.manual_seed(0)
    model, batch = FlowVAE(latent=8, width=8).eval(), None
    frames = torch.rand(4, 5, 3, 28, 28)
    batch = {"frames": frames.transpose(0, 1), "weights": torch.eye(3)[[0, 1, 2, 0, 1]][:, None].expand(-1, 3, -1)}
    with torch.no_grad():
        estimate = log_likelihood(model, frames, batch, samples=64)["log_p_gaussian"]
        rolled = model.rollout(frames, batch, sample=True)
    assert (estimate < gaussian_ceiling(2352)).all()
    kl = -rolled.log_ratio[1:].mean()
    assert kl > 0
    reconstruction = gaussian_log_prob(model.decode(rolled.z[1:]), frames[1:]).mean()
    assert estimate.mean() < reconstruction + kl


def test_the_estimate_is_the_known_likelihood_of_a_linear_gaussian_model():
    torch.manual_seed(0)
    frames = 0.5 + 0.02 * torch.randn(2, 3, 1, 1, 2)

    class Narrow(LinearGaussian):
        def rollout(self, frames, batch, *, sample=False):
            # z ~ N(0.5, 0.05²) in every pixel, so that the decoded mean is a probability; the proposal is the prior's
            # posterior given x.
            precision = 1 / 0.05**2 + 1
            mean = (0.5 / 0.05**2 + frames.flatten(2)) / precision
            std = torch.full_like(mean, precision**-0.5)
            z = torch.normal(mean, std)
            return Rollout(
                z, log_normal(z, torch.full_like(z, 0.5), torch.full_like(z, 0.05)) - log_normal(z, mean, std)
            )

    estimate = log_likelihood(Narrow(0, 0), frames, None, samples=4)["log_p_gaussian"]
    exact = Normal(0.5, math.sqrt(1 + 0.05**2)).log_prob(frames[1:]).flatten(-3).sum(-1).mean(0)
    # With the exact posterior as the proposal every sample gives the likelihood itself; a wrong sign would be far off.
    assert torch.allclose(estimate, exact, atol=1e-4)


def test_a_rollout_without_density_is_an_error():
    class Silent(LinearGaussian):
        def rollout(self, frames, batch, *, sample=False):
            return Rollout(frames.flatten(2))

    with pytest.raises(ValueError, match="expected Silent.rollout.*got None"):
        log_likelihood(Silent(0, 0), torch.rand(2, 1, 1, 1, 2), None)


def test_scores_of_codes_that_are_the_factors_are_one_and_of_noise_near_zero():
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 8, (1000, 3))
    assert mutual_information_gap(factors, factors) == pytest.approx(1, abs=0.03)
    scores = dci(factors + 0.1 * generator.random((1000, 3)), factors)
    assert min(scores.values()) > 0.95
    noise = generator.integers(0, 20, (1000, 3))
    assert mutual_information_gap(noise, factors) < 0.05
    assert dci(noise, factors)["dci_informativeness"] < 0.3


def test_two_dimensions_that_hold_the_same_have_no_gap_and_mixed_codes_are_not_disentangled():
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 8, (1000, 2))
    doubled = np.concatenate((factors, factors), 1)
    assert mutual_information_gap(doubled, factors) == pytest.approx(0, abs=1e-9)
    values = torch.as_tensor(generator.random((1000, 2)), dtype=torch.float32)
    angle = math.pi / 4
    mixing = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    straight, mixed = disentanglement(values, values), disentanglement(values @ mixing, values)
    assert straight["dci_disentanglement"] > 0.9
    assert mixed["dci_disentanglement"] < 0.5 * straight["dci_disentanglement"]


def test_one_dimension_alone_has_no_gap():
    with pytest.raises(ValueError, match="at least two dimensions, got 1"):
        mutual_information_gap(np.zeros((4, 1)), np.zeros((4, 1)))


def test_labelled_frames_show_the_values_that_they_are_labelled_with():
    data = DigitsData()
    data.setup()
    frames, values = labelled_frames(data, 50)
    assert frames.shape == (50, 3, 28, 28)
    red = torch.isin((values[:, 2] * 6).floor(), torch.tensor([0.0, 5.0]))
    peak = frames.amax((-2, -1))
    assert (peak[red].argmax(1) == 0).all()


def test_no_image_is_in_both_parts_of_the_labelled_frames(monkeypatch):
    data = DigitsData()
    data.setup()
    digits = []
    monkeypatch.setattr(
        "flowvae.disentanglement.render", lambda images, poses: digits.extend(images) or images[:, None]
    )
    labelled_frames(data, 400)
    first, rest = ({digit.numpy().tobytes() for digit in part} for part in (digits[:300], digits[300:]))
    assert len(first | rest) == len(data.split.test)
    assert len(first & rest) <= 1  # the digit at the border


def test_labelled_frames_of_a_grid_are_different_images():
    sizes = (4, 3, 5)
    split = GridSplit(sizes, base=[0], moving=[1, 2], periodic=[], title="grid")
    images = SimpleNamespace(sizes=sizes, read=lambda index: np.tile(index[:, None, None, None], (1, 8, 8, 3)))
    data = SimpleNamespace(factors=("a", "b"), setup=lambda: None, split=split, images=images, image_size=8)
    frames, values = labelled_frames(data, 200)
    assert len(frames) == len(values) == 15  # one of four settings is for the test
    assert len(frames[:, 0, 0, 0].unique()) == 15


def test_the_evaluation_gives_every_model_the_same_figures():
    from flowvae.baselines import VAE

    data = DigitsData(steps=2)
    data.setup()
    keys = []
    for model in (FlowVAE(latent=8, width=8), VAE(latent=8)):
        evaluation = Evaluation(model.eval(), data)
        for loader, found in enumerate(data.test_dataloader()):
            batch = {name: value[:8] for name, value in next(iter(found)).items()}
            evaluation.update(batch, loader)
        results = evaluation.results()
        keys.append(set(results["hue"]))
        assert results["scale"]["ratio"] == pytest.approx(results["scale"]["flow"] / results["scale"]["reencoded"])
        assert set(results["disentanglement"]) == {
            "mig",
            "dci_disentanglement",
            "dci_completeness",
            "dci_informativeness",
        }
    assert keys[0] <= keys[1]
    assert keys[1] - keys[0] == {"axis", "axis_relative", "affine", "affine_relative"}


def test_the_true_frames_of_one_factor_are_those_of_its_poses():
    image = torch.rand(1, 1, 28, 28)
    frames = digit_frames(image, superpose([1], 3, 3), torch.Generator().manual_seed(0))
    start = frames[0]
    assert frames.shape == (4, 1, 3, 28, 28)
    assert not torch.allclose(frames[1], start)
    # Hue and scale rest: the brightest channel and the mass stay about the same.
    assert torch.equal(frames.amax((-2, -1)).argmax(-1), start.amax((-2, -1)).argmax(-1).expand(4, 1))


def test_a_switched_schedule_changes_half_way_and_a_superposed_one_has_all():
    assert torch.equal(switch(0, 2, (2, 1), 3), torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]))
    assert torch.equal(superpose([0, 1], 2, 3), torch.tensor([[1.0, 1, 0], [1, 1, 0]]))


def test_a_switched_prediction_is_one_roll_after_the_other():
    torch.manual_seed(0)
    model = FlowVAE(latent=8, width=8).eval()
    first = torch.rand(2, 3, 28, 28)
    frames = predict(model, first, switch(0, 2, (2, 2), 3))
    with torch.no_grad():
        half = model.roll(model.encode(first)[0], 0, 2).z[-1]
        expected = model.decode(model.roll(half, 2, 2).z[-1]).sigmoid()
    assert frames.shape == (5, 2, 3, 28, 28)
    assert torch.allclose(frames[-1], expected, atol=1e-5)


def test_keeping_frame_0_is_exact_where_nothing_moves():
    model = FlowVAE(latent=8, width=8).eval()
    frames = render(torch.rand(2, 1, 28, 28), torch.zeros(2, 3, 3)).transpose(0, 1)
    errors = composition_errors(model, frames, superpose([0], 2, 3))
    assert errors["frame 0"] == pytest.approx(errors["re-encoding"], rel=1e-5)


def blob(x, y, size=64, sigma=3.0):
    grid = torch.arange(size, dtype=torch.float32)
    return torch.exp(-((grid - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * sigma**2)).expand(3, -1, -1)


def test_a_moving_blob_is_measured_and_named():
    frames = torch.stack([torch.stack([blob(20 + 2 * t, 40 - t), blob(30 + 2 * t, 30 - t)]) for t in range(5)])
    found = measure(frames, torch.zeros(3, 64, 64))
    assert torch.allclose(found["right"], torch.full((4, 2), 2.0), atol=0.1)
    assert torch.allclose(found["down"], torch.full((4, 2), -1.0), atol=0.1)
    assert torch.allclose(found["speed"], torch.full((4, 2), math.sqrt(5)), atol=0.1)
    words = in_words(found)
    assert "moves right" in words
    assert "moves up" in words
    assert found["spread"].abs().max() < 0.01
    assert "together" not in words
    assert "out" not in words


def test_two_blobs_that_approach_each_other_draw_together():
    apart = torch.stack([torch.maximum(blob(12 + 2 * t, 30), blob(52 - 2 * t, 30)) for t in range(5)])[:, None]
    for frames, said in ((apart, "draws together"), (apart.flip(0), "spreads out")):
        found = measure(frames, torch.zeros(3, 64, 64))
        way = 1 if said == "spreads out" else -1
        assert torch.allclose(way * found["spread"].sum(), torch.tensor(20 / 12).log(), atol=0.05)
        assert in_words(found).split(" (")[0] == said


@pytest.mark.parametrize(
    "motion", [(3, 0, 0, 0), (-4, 1, 0, 0), (0, 0, 0.06, 0), (0, 0, -0.04, 0), (0, 0, 0, 0.08), (1.5, -1, 0.03, -0.05)]
)
def test_the_motion_of_a_camera_is_found_from_its_picture(motion):
    torch.manual_seed(0)
    right, down, growth, turn = motion
    picture = torch.nn.functional.avg_pool2d(torch.rand(4, 3, 140, 140), 7, 1, padding=3)
    cos, sin = math.exp(-growth) * math.cos(turn), math.exp(-growth) * math.sin(turn)
    # Where each pixel of the next frame was before.
    inverse = torch.tensor([[cos, sin, 0.0], [-sin, cos, 0.0]])
    inverse[:, 2] = -inverse[:, :2] @ torch.tensor([right / 70, down / 70])
    grid = torch.nn.functional.affine_grid(inverse.expand(4, -1, -1), picture.shape, align_corners=False)
    moved = torch.nn.functional.grid_sample(picture, grid, align_corners=False)
    before, after = (frames[..., 38:102, 38:102] for frames in (picture, moved))
    found = camera_motion(before, after)
    assert torch.allclose(found[:, :2], torch.tensor([right, down]).float(), atol=0.1)
    assert torch.allclose(found[:, 2:], torch.tensor([growth, turn]).float(), atol=0.004)
    words = in_words(measure(torch.stack((before, after)), before[0], "moves"))
    assert ("approaches" in words) == (growth > 0)
    assert ("recedes" in words) == (growth < 0)
    assert ("pans right" in words) == (right > 0)


def test_a_picture_without_edges_does_not_move():
    assert camera_motion(torch.full((2, 3, 64, 64), 0.3), torch.full((2, 3, 64, 64), 0.5)).abs().max() < 1e-3


def test_the_axis_of_a_bar_turns_with_it():
    bar = torch.zeros(64, 64)
    bar[30:34, 10:54] = 1
    assert position(bar)[2] == pytest.approx(0, abs=0.01)
    assert abs(float(position(bar.T)[2])) == pytest.approx(math.pi / 2, abs=0.01)
    assert torch.allclose(position(bar)[0], torch.tensor([31.5, 31.5]))
    assert position(bar)[3] == pytest.approx(math.sqrt((44**2 - 1 + 4**2 - 1) / 12), rel=1e-4)


def test_a_constant_correlates_with_nothing():
    assert correlation(torch.ones(5), torch.rand(5)) == 0
    assert correlation(torch.arange(5.0), 3 - torch.arange(5.0)) == pytest.approx(-1)


def test_next_frame_errors_are_zero_for_copies_of_a_still_video():
    torch.manual_seed(0)
    model = UnsupervisedFlowVAE(latent=8, width=8).eval()
    frames = torch.rand(1, 2, 3, 28, 28).expand(4, -1, -1, -1, -1)
    errors = next_frame_errors(model, frames)
    assert errors["copying the last frame"].abs().max() == 0
    assert torch.allclose(errors["decoded copy"], errors["re-encoding"])
    assert errors["prediction"].shape == (3, 2)
