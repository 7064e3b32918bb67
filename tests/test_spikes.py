import pytest
import torch
from reference import assert_frequencies, close, conditioned, states_of

from torchflowfield.spikes import (
    coefficients,
    kl_not_all_zero,
    log_not_all_zero,
    log_prob_not_all_zero,
    most_probable,
    relaxed,
    sample_not_all_zero,
)


def logarithms(logits):
    return torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)


def test_bits_conditioned_on_not_being_all_zero_have_their_exact_frequencies():
    logits, samples = torch.tensor([-2.0, 0.5, -0.7]), 40_000
    assert_frequencies(sample_not_all_zero(logits.expand(samples, 3)), conditioned(logits.sigmoid()))


@pytest.mark.parametrize("K", [1, 2, 5])
def test_the_probabilities_are_those_of_the_conditioned_bits(K):
    logits = 2 * torch.randn(K)
    log_prob = log_prob_not_all_zero(states_of(K), *(x.expand(2**K - 1, K) for x in logarithms(logits)))
    close(log_prob.exp(), conditioned(logits.sigmoid()))


def test_the_condition_has_the_probability_that_all_bits_off_leaves():
    logits = torch.tensor([[-2.0, 0.5], [-60.0, -60.0]])
    close(log_not_all_zero(logarithms(logits)[1])[0], (1 - (-logits[0]).sigmoid().prod()).log())
    close(log_not_all_zero(logarithms(logits)[1])[1], torch.tensor(2.0).log() - 60.0)


@pytest.mark.parametrize("K", [1, 2, 5])
def test_the_divergence_is_that_of_enumeration(K):
    logits, others = 2 * torch.randn(K), 2 * torch.randn(K)
    q, p = conditioned(logits.sigmoid()), conditioned(others.sigmoid())
    close(kl_not_all_zero(logits, *logarithms(others)), (q * (q / p).log()).sum())


@pytest.mark.parametrize("K", [1, 2, 5])
def test_no_bits_are_likelier_than_the_most_probable(K):
    logits = 2 * torch.randn(50, K)
    for row, bits in zip(logits, most_probable(logits), strict=True):
        close(bits, states_of(K)[conditioned(row.sigmoid()).argmax()])


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_relaxed_bits_lie_on_the_side_of_their_bits_and_carry_a_gradient(temperature):
    logits = torch.randn(200, 3, requires_grad=True)
    bits = sample_not_all_zero(logits.detach())
    soft = relaxed(bits, logits, temperature)
    assert torch.equal((soft > 0.5).to(bits), bits)
    close(torch.autograd.grad(soft.sum(), logits)[0], soft * (1 - soft) / temperature)


def test_two_spikes_of_a_field_share_its_slab():
    spikes, slabs = torch.tensor([[1.0, 0.0, 1.0, 1.0]]), torch.tensor([[0.5, 2.0]])
    assert coefficients(spikes, slabs).tolist() == [[0.5, 0.0, 0.5, 2.0]]
    assert coefficients(spikes[:, :2], slabs).tolist() == [[0.5, 0.0]]


def test_a_uniform_number_of_zero_switches_nothing_on(monkeypatch):
    monkeypatch.setattr(torch, "rand_like", torch.zeros_like)
    bits = sample_not_all_zero(torch.tensor([[-80.0, 1.0, -80.0], [1.0, -80.0, -80.0]]))
    assert bits.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_half_precision_draws_rare_spikes_as_often_as_they_are():
    logits = torch.tensor([-8.0, 8.0], dtype=torch.bfloat16).expand(400_000, 2)
    bits = sample_not_all_zero(logits)
    assert bits.dtype == torch.bfloat16
    expected = torch.sigmoid(torch.tensor(-8.0)).item()
    assert bits[:, 0].float().mean().item() == pytest.approx(expected, rel=0.35)
