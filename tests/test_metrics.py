import math

import pytest
import torch

from torchflowfield import FlowBank, ModuleField
from torchflowfield.metrics import (
    commutator_norms,
    equivariance_error,
    importance_weighted_log_likelihood,
    transformation_recovery,
    usage,
)


class Linear(torch.nn.Module):
    def __init__(self, matrix):
        super().__init__()
        self.matrix = matrix

    def forward(self, t, z):
        return z @ self.matrix.mT


def test_the_error_sums_frames_and_pixels_and_leaves_frame_0_out():
    true, predicted = torch.rand(4, 2, 3, 5), torch.rand(4, 2, 3, 5)
    expected = sum((predicted[t] - true[t]).abs().sum((1, 2)) for t in (1, 2, 3))
    assert torch.allclose(equivariance_error(predicted, true), expected)
    sizes = sum(true[t].abs().sum((1, 2)) for t in (1, 2, 3))
    assert torch.allclose(equivariance_error(predicted, true, relative=True), expected / sizes)


def test_frames_of_another_shape_or_without_a_step_are_errors(without_hook):
    with pytest.raises(ValueError, match="expected frames of one shape"):
        equivariance_error(torch.rand(3, 2, 4), torch.rand(3, 2, 5))
    with pytest.raises(ValueError, match="at least one frame after the first"):
        equivariance_error(torch.rand(1, 2, 4), torch.rand(1, 2, 4))


def test_the_importance_weighted_bound_is_exact_for_the_true_posterior_and_tightens():
    # x | z ~ N(z, 1), z ~ N(0, 1), so x ~ N(0, 2) and z | x ~ N(x / 2, 1 / 2).
    normal = torch.distributions.Normal
    x = torch.tensor([0.3, -1.2])
    exact = normal(0.0, math.sqrt(2)).log_prob(x)

    def bound(posterior, samples):
        z = posterior.sample((samples,))
        joint = normal(0.0, 1.0).log_prob(z) + normal(z, 1.0).log_prob(x)
        return importance_weighted_log_likelihood(joint, posterior.log_prob(z))

    assert torch.allclose(bound(normal(x / 2, math.sqrt(0.5)), 1), exact, atol=1e-10)
    wide = normal(x / 2, torch.ones(2))
    few = torch.stack([bound(wide, 1) for _ in range(4000)]).mean(0)
    many = torch.stack([bound(wide, 50) for _ in range(400)]).mean(0)
    assert (few < many).all()
    assert (many < exact + 0.01).all()
    assert torch.allclose(many, exact, atol=0.02)


def test_bounds_of_different_shapes_are_an_error(without_hook):
    with pytest.raises(ValueError, match="expected one shape"):
        importance_weighted_log_likelihood(torch.zeros(2, 3), torch.zeros(3, 3))


def test_a_unit_gaussian_decoder_has_the_ceiling_of_its_dimension():
    assert -2352 / 2 * math.log(2 * math.pi) == pytest.approx(-2161.34, abs=0.01)
    x = torch.rand(5, 2352)
    log_joint = torch.distributions.Normal(x, 1.0).log_prob(x).sum(-1)[None]
    assert (importance_weighted_log_likelihood(log_joint, torch.zeros(1, 5)) <= -2161.33).all()


def test_permuted_controls_are_recovered_with_their_speeds():
    true = (torch.rand(200, 4, 3) < 0.4).double()
    speeds = torch.rand(200, 4, 3) + 0.5
    order = torch.tensor([2, 0, 1])
    spikes = torch.cat((true[..., order], torch.zeros(200, 4, 1)), -1)
    slabs = torch.cat((2 * speeds[..., order], torch.ones(200, 4, 1)), -1)
    found = transformation_recovery(spikes, true, slabs, speeds)
    assert found.matching.tolist() == [1, 2, 0]
    assert torch.allclose(found.f1, torch.ones(3))
    assert torch.allclose(found.slab_correlation, torch.ones(3))
    assert found.confusion.shape == (4, 3)


def test_a_factor_without_a_control_is_not_found():
    true = torch.rand(100, 3) < torch.tensor([0.2, 0.5, 0.8])
    speeds = torch.rand(100, 3)
    kept = [2, 0]
    found = transformation_recovery(true[:, kept].double(), true.double(), speeds[:, kept], speeds)
    assert found.matching.tolist() == [1, -1, 0]
    assert found.f1.tolist() == [1.0, 0.0, 1.0]
    assert found.slab_correlation.isnan().tolist() == [False, True, False]
    assert found.confusion.shape == (2, 3)


def test_f1_is_that_of_its_definition():
    spikes = torch.tensor([[1.0], [1.0], [0.0], [1.0]])
    true = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    assert transformation_recovery(spikes, true).f1.item() == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_recovery_names_what_does_not_fit(without_hook):
    with pytest.raises(ValueError, match="the same steps"):
        transformation_recovery(torch.zeros(3, 2), torch.zeros(4, 2))


def test_usage_is_the_share_of_steps():
    assert usage(torch.tensor([[1.0, 0.2], [0.0, 0.9], [0.7, 0.0], [0.1, 0.0]])).tolist() == [0.5, 0.25]


def test_commuting_fields_have_norm_zero_and_opposite_orders_one():
    diagonal = [torch.diag(torch.tensor(d)) for d in ([1.0, 2.0], [3.0, -1.0])]
    bank = FlowBank([ModuleField(Linear(m)) for m in diagonal])
    z = torch.randn(20, 2)
    assert commutator_norms(bank, 0.0, z).abs().max() < 1e-12
    # These two anticommute: AB = -BA.
    pauli = [torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, -1.0]])]
    norms = commutator_norms(FlowBank([ModuleField(Linear(m)) for m in pauli]), 0.0, z)
    assert torch.allclose(norms, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def test_frames_of_integers_are_refused(without_hook):
    frames = torch.zeros(3, 1, 2, dtype=torch.uint8)
    with pytest.raises(TypeError, match="floating-point"):
        equivariance_error(frames, frames + 1)


def test_under_double_control_two_controls_share_a_slab():
    spikes = torch.eye(4)[torch.arange(12) % 4]
    speeds = torch.rand(12, 2) + 0.5
    true = torch.cat((spikes[:, 2:3], spikes[:, 1:2]), -1)
    recovery = transformation_recovery(spikes, true, speeds, true * speeds)
    learned = speeds.clone().requires_grad_()
    assert not transformation_recovery(spikes, true, learned, true * speeds).slab_correlation.requires_grad
    assert recovery.matching.tolist() == [2, 1]
    assert torch.allclose(recovery.slab_correlation, torch.ones(2))
    with pytest.raises(ValueError, match="slab for every control or field"):
        transformation_recovery(spikes, true, torch.rand(12, 3), true)


def test_commutators_take_a_context():
    bank, z, context = FlowBank(2, 4, context_dim=3), torch.randn(8, 4), torch.randn(8, 3)
    norms = commutator_norms(bank, 0.5, z, context)
    assert norms[0, 1] > 0
    assert (norms - commutator_norms(bank, 0.5, z, -context)).abs().max() > 1e-6


def test_the_error_of_large_frames_in_half_precision_is_finite():
    true = torch.ones(5, 1, 3, 128, 128, dtype=torch.float16)
    assert equivariance_error(true / 2, true).tolist() == [98_304.0]
    assert equivariance_error(true / 2, true, relative=True).tolist() == [0.5]


def test_speeds_that_do_not_fit_and_spikes_that_are_not_finite_are_refused(without_hook):
    spikes = (torch.rand(8, 16, 3) > 0.5).double()
    for speeds in (spikes.transpose(0, 1), torch.cat((spikes, spikes[..., :1]), -1), spikes[..., :2]):
        with pytest.raises(ValueError, match=r"expected a speed for every factor of \(8, 16, 3\)"):
            transformation_recovery(spikes, spikes, spikes, speeds)
    lost = spikes.clone()
    lost[0] = torch.nan
    with pytest.raises(ValueError, match="expected finite spikes"):
        transformation_recovery(lost, spikes)
    with pytest.raises(ValueError, match="expected finite slabs"):
        transformation_recovery(spikes, spikes, lost, spikes)
