import itertools
import math

import pytest
import torch
from reference import assert_frequencies, close, conditioned, randomize, states_of
from torch.distributions import (
    Dirichlet,
    Exponential,
    Gamma,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    Normal,
    TransformedDistribution,
)
from torch.distributions.transforms import AbsTransform

from torchflowfield import FlowBank, ODEStepper, SpikeSlabPosterior
from torchflowfield.priors import SpikeSlab, SpikeSlabPrior
from torchflowfield.spikes import sample_not_all_zero


def on_after(prior, previous):
    rates = prior.rates()
    return torch.where(previous == 1, 1 - rates["switch_off"], rates["switch_on"])


def chain_prior(K=3, **options):
    return SpikeSlabPrior(K, 0.2, switch_on=0.3, switch_off=0.15, **options)


def posterior_of(logits, spikes, slab=None):
    return SpikeSlab(spikes, spikes, None, logits, slab)


def spike_kl_by_enumeration(prior, logits, spikes):
    total = []
    for n in range(len(logits)):
        p = prior.rates()["on"] if n == 0 else on_after(prior, spikes[n - 1])
        q, p = conditioned(logits[n].sigmoid()), conditioned(p)
        total.append((q * (q / p).log()).sum())
    return torch.stack(total)


class TestSpikes:
    def test_the_marginals_are_those_of_the_papers(self):
        marginals = SpikeSlabPrior(3, on=0.1, keep=0.9).marginals(8)
        expected = torch.tensor([0.369, 0.425, 0.465, 0.495, 0.517, 0.533, 0.545, 0.554])
        close(marginals, expected[:, None].expand(8, 3), rtol=0, atol=6e-4)
        assert marginals.mean().item() == pytest.approx(0.488, abs=6e-4)

    @pytest.mark.parametrize("K", [1, 2, 4])
    def test_the_marginals_are_those_of_all_chains(self, K):
        prior = randomize(chain_prior(K))
        states = states_of(K)
        row = conditioned(prior.rates()["on"])
        expected = [row @ states]
        transition = torch.stack([conditioned(on_after(prior, state)) for state in states])
        for _ in range(3):
            row = row @ transition
            expected.append(row @ states)
        close(prior.marginals(4), torch.stack(expected))

    def test_twelve_fields_can_be_enumerated_and_no_more(self):
        marginals = SpikeSlabPrior(12).marginals(2)
        assert marginals.shape == (2, 12)
        with pytest.raises(ValueError, match="enumeration is for K ≤ 12, got 13 spikes. Average samples instead"):
            SpikeSlabPrior(13).marginals(2)

    @pytest.mark.parametrize("K", [1, 2, 3])
    def test_the_probabilities_of_all_chains_sum_to_one(self, K):
        prior = randomize(chain_prior(K))
        chains = torch.stack([torch.stack(c) for c in itertools.product(states_of(K), repeat=2)], 1)
        close(prior.log_prob(chains).exp().sum(), torch.tensor(1.0))

    def test_log_prob_is_the_product_of_conditioned_transitions(self):
        prior = randomize(chain_prior(2))
        spikes = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
        states = states_of(2)
        expected, p = 0.0, prior.rates()["on"]
        for row in spikes:
            expected = expected + conditioned(p)[(states == row).all(-1)].log().squeeze()
            p = on_after(prior, row)
        close(prior.log_prob(spikes), expected)

    def test_log_prob_adds_the_slabs(self):
        prior, spikes = chain_prior(), states_of(3)[None].expand(4, -1, -1)
        slabs = torch.rand(4, 7, 3) * 2
        expected = Laplace(1.0, prior.slab.scale).log_prob(slabs).sum((0, -1))
        close(prior.log_prob(spikes, slabs) - prior.log_prob(spikes), expected)

    @pytest.mark.parametrize("K", [1, 2, 4])
    def test_kl_equals_enumeration(self, K):
        prior, logits = randomize(chain_prior(K)), 2 * torch.randn(4, K)
        spikes = states_of(K)[torch.randint(2**K - 1, (4,))]
        kl = prior.kl(posterior_of(logits, spikes))
        close(kl.spike, spike_kl_by_enumeration(prior, logits, spikes))
        close(kl.total, kl.spike.sum(0))
        assert (kl.slab == 0).all()

    def test_kl_equals_the_average_log_ratio_of_samples(self):
        prior, steps, samples = chain_prior(), 3, 20_000
        logits = torch.randn(steps, 1, 3).expand(steps, samples, 3)
        spikes = sample_not_all_zero(logits)
        log_q = torch.where(spikes == 1, logits, -logits)
        log_q = torch.nn.functional.logsigmoid(log_q).sum((0, -1))
        log_q = log_q - (1 - (-logits).sigmoid().prod(-1)).log().sum(0)
        ratio = log_q - prior.log_prob(spikes)
        kl = prior.kl(posterior_of(logits, spikes)).total
        error = (ratio - kl).std() / math.sqrt(samples)
        assert (ratio.mean() - kl.mean()).abs() < 5 * error
        assert kl.mean() > 10 * error

    def test_kl_of_the_prior_from_itself_is_zero(self):
        prior = randomize(chain_prior())
        spikes = states_of(3)[torch.randint(7, (4,))]
        p = torch.stack([prior.rates()["on"], *(on_after(prior, row) for row in spikes[:-1])])
        close(prior.kl(posterior_of(p.logit(), spikes)).spike, torch.zeros(4), rtol=0, atol=1e-12)

    def test_the_gradient_of_kl_is_right_in_logits_spikes_and_rates(self):
        prior = chain_prior(learnable=True)
        logits, spikes = torch.randn(3, 2, 3, requires_grad=True), torch.rand(3, 2, 3, requires_grad=True)

        def total(logits, spikes, *rates):
            state = dict(zip(["on_logit", "switch_on_logit", "switch_off_logit"], rates, strict=True))
            module = torch.nn.Module()
            module.prior = prior
            module.forward = lambda: prior.kl(posterior_of(logits, spikes)).total
            return torch.func.functional_call(module, {f"prior.{n}": v for n, v in state.items()}, ())

        rates = [randomize(torch.nn.Linear(3, 1)).weight[0].detach().requires_grad_() for _ in range(3)]
        assert torch.autograd.gradcheck(total, (logits, spikes, *rates))

    def test_kl_reaches_logits_previous_spikes_and_learnable_rates(self):
        prior = chain_prior(learnable=True)
        logits, spikes = torch.randn(3, 2, 3, requires_grad=True), torch.rand(3, 2, 3, requires_grad=True)
        prior.kl(posterior_of(logits, spikes)).total.sum().backward()
        assert (logits.grad != 0).all()
        assert (spikes.grad[:-1] != 0).all()
        assert (spikes.grad[-1] == 0).all()
        assert all((parameter.grad != 0).all() for parameter in prior.parameters())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("logit", [-60.0, 0.0, 60.0, None])
    @pytest.mark.parametrize("K", [1, 2, 64])
    def test_extreme_logits_give_finite_values_and_gradients(self, K, logit, dtype):
        prior = SpikeSlabPrior(K, learnable=True).to(dtype)
        logits = torch.full((3, 5, K), 60.0 if logit is None else logit, dtype=dtype)
        if logit is None:
            logits = logits * torch.randn(3, 5, K).sign().to(dtype)
        logits.requires_grad_()
        spikes = sample_not_all_zero(logits.detach()).requires_grad_()
        assert (spikes.sum(-1) >= 1).all()
        kl = prior.kl(posterior_of(logits, spikes))
        assert kl.total.dtype == dtype
        assert kl.total.isfinite().all()
        assert (kl.spike > -1e-4).all()
        kl.total.sum().backward()
        for tensor in (logits, spikes, *prior.parameters()):
            assert tensor.grad.isfinite().all()

    def test_kl_of_extreme_logits_is_the_limit(self):
        prior = SpikeSlabPrior(3, on=0.2)
        uniform, certain = torch.full((1, 3), 1 / 3), conditioned(torch.full((3,), 0.2))
        single = certain[states_of(3).sum(-1) == 1]
        expected = torch.stack([(uniform[0] * (uniform[0] / single).log()).sum(), -certain[-1].log()])
        logits = torch.tensor([-60.0, 60.0])[None, :, None].expand(1, 2, 3)
        close(prior.kl(posterior_of(logits, torch.ones(1, 2, 3))).spike[0], expected)

    def test_sampled_chains_have_their_exact_frequencies(self):
        prior = chain_prior()
        spikes = prior.sample((40_000,), steps=3).spikes
        states = states_of(3)
        assert_frequencies(spikes[0], conditioned(prior.rates()["on"]))
        for state in states[[0, 3, 6]]:
            followers = spikes[2][(spikes[1] == state).all(-1)]
            assert len(followers) > 500
            assert_frequencies(followers, conditioned(on_after(prior, state)))

    def test_sampled_chains_have_the_marginals(self):
        prior = SpikeSlabPrior(4)
        frequencies = prior.sample((20_000,), steps=5).spikes.mean(1)
        close(frequencies, prior.marginals(5), rtol=0, atol=0.02)

    def test_rates_default_to_a_symmetric_chain(self):
        rates = SpikeSlabPrior(2, 0.3, 0.7).rates()
        close(torch.stack([rates["on"], rates["switch_on"], rates["switch_off"]]), torch.full((3, 2), 0.3))


class TestSlabs:
    def test_samples_are_spikes_times_slabs(self):
        sample = SpikeSlabPrior(3).sample((20_000,), steps=2)
        close(sample.weights, sample.spikes * sample.slabs)
        assert sample.weights.shape == sample.slabs.shape == (2, 20_000, 3)
        assert sample.slabs.mean().item() == pytest.approx(1, abs=0.005)
        assert (sample.slabs - 1).abs().mean().item() == pytest.approx(0.1, rel=0.03)
        assert sample.logits is None

    def test_double_control_has_two_spikes_per_field_and_one_slab_that_they_share(self):
        prior = SpikeSlabPrior(2, control="double").double()
        sample = prior.sample((7,), steps=3)
        assert sample.spikes.shape == (3, 7, 4)
        assert sample.slabs.shape == (3, 7, 2)
        assert torch.equal(sample.weights, sample.spikes * torch.cat((sample.slabs, sample.slabs), -1))
        assert prior.log_prob(sample.spikes, sample.slabs).shape == (7,)
        assert prior.marginals(3).shape == (3, 4)

    def test_without_a_slab_the_weights_are_the_spikes(self):
        sample = SpikeSlabPrior(3, slab=None).sample((5,), steps=2)
        close(sample.weights, sample.spikes)
        assert sample.slabs is None
        assert ((sample.spikes == 0) | (sample.spikes == 1)).all()

    def test_a_sample_drives_a_bank(self):
        sample = SpikeSlabPrior(3).sample((5,), steps=4)
        assert ODEStepper(FlowBank(3, 2))(torch.randn(5, 2), sample.weights.double(), steps=4).z.shape == (5, 5, 2)

    def test_the_slab_is_in_the_state_and_moves_with_it(self, tmp_path):
        prior = randomize(SpikeSlabPrior(3, learnable=True, slab=Laplace(torch.tensor(0.5), torch.tensor(0.2))))
        torch.save(prior.state_dict(), tmp_path / "prior.pt")
        other = SpikeSlabPrior(3)
        other.load_state_dict(torch.load(tmp_path / "prior.pt", weights_only=True))
        close(other.slab.loc.double(), torch.tensor(0.5), rtol=0, atol=1e-7)
        close(other.rates()["on"], prior.rates()["on"])
        assert prior.float().slab.scale.dtype == torch.float32
        assert prior.to("meta").slab_loc.device.type == "meta"

    @pytest.mark.parametrize("family", [Normal, Laplace])
    def test_the_divergence_of_the_slabs_is_that_of_integration(self, family):
        prior = SpikeSlabPrior(2, slab=Laplace(torch.tensor(1.0), torch.tensor(0.3)))
        slab = family(torch.tensor([[[0.7, 1.2]]]), torch.tensor([[[0.2, 0.4]]]))
        x = torch.linspace(-8, 10, 200_001)[:, None]
        log_q = family(slab.loc[0, 0], slab.scale[0, 0]).log_prob(x)
        density = log_q.exp() * (log_q - Laplace(1.0, 0.3).log_prob(x))
        expected = torch.trapezoid(density, x, dim=0).sum()
        kl = prior.kl(posterior_of(torch.zeros(1, 1, 2), torch.ones(1, 1, 2), slab))
        close(kl.slab[0, 0], expected, rtol=1e-6, atol=1e-6)
        close(kl.total, (kl.spike + kl.slab).sum(0))

    @pytest.mark.parametrize(
        "slab", [Normal(1.0, 0.1), Gamma(2.0, 2.0), Exponential(1.0), HalfNormal(0.7), LogNormal(0.1, 0.4)]
    )
    def test_any_family_keeps_its_arguments(self, slab):
        prior, x = SpikeSlabPrior(2, slab=slab), torch.rand(5)
        assert type(prior.slab) is type(slab)
        # The test's own was made in float32.
        close(prior.slab.log_prob(x), slab.log_prob(x), rtol=1e-6, atol=1e-6, check_dtype=False)
        assert prior.sample((3,), steps=2).slabs.shape == (2, 3, 2)

    def test_the_usual_slab_is_where_and_as_the_spikes_are(self):
        prior = SpikeSlabPrior(2)
        assert prior.slab_loc.dtype == prior.on_logit.dtype == torch.float64
        with torch.device("meta"):
            assert SpikeSlabPrior(2).slab_loc.is_meta


class TestErrors:
    def test_no_field(self):
        with pytest.raises(ValueError, match="SpikeSlabPrior: expected K to be a whole number of at least 1, got 0"):
            SpikeSlabPrior(0)

    @pytest.mark.parametrize("name", ["on", "keep", "switch_on", "switch_off"])
    @pytest.mark.parametrize("value", [0.0, 1.0, -0.1, math.nan])
    def test_a_probability_that_is_none(self, name, value):
        message = f"expected {name} to be a probability strictly between 0 and 1, got {value}"
        with pytest.raises(ValueError, match=message):
            SpikeSlabPrior(2, **{name: value})

    def test_no_steps(self):
        with pytest.raises(ValueError, match="expected at least one step, got 0"):
            SpikeSlabPrior(2).sample((3,), steps=0)

    def test_relaxed_spikes(self):
        with pytest.raises(ValueError, match="expected spikes of 0 and 1. Round relaxed ones first"):
            SpikeSlabPrior(2).log_prob(torch.full((3, 2), 0.5))

    def test_a_step_without_spikes(self):
        with pytest.raises(ValueError, match="got a step with no spike on, which has probability zero"):
            SpikeSlabPrior(2).log_prob(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))

    def test_another_number_of_fields(self):
        message = r"expected spikes of shape \(T, \*, 2\), got \(4, 3\). Pass control='double'"
        with pytest.raises(ValueError, match=message):
            SpikeSlabPrior(2).log_prob(torch.ones(4, 3))
        with pytest.raises(ValueError, match=message):
            SpikeSlabPrior(2).kl(posterior_of(torch.zeros(4, 3), torch.ones(4, 3)))

    def test_slabs_that_the_prior_does_not_have(self):
        prior, ones = SpikeSlabPrior(2, slab=None), torch.ones(4, 2)
        with pytest.raises(ValueError, match="got slabs, but this prior has spikes alone"):
            prior.log_prob(ones, ones)
        with pytest.raises(ValueError, match="the posterior has slabs, but this prior has spikes alone"):
            prior.kl(posterior_of(0 * ones, ones, Laplace(ones, ones)))

    def test_a_sample_of_a_prior_where_a_posterior_belongs(self):
        prior = SpikeSlabPrior(2)
        with pytest.raises(
            ValueError, match="expected the sample of a posterior, which has logits; got one of a prior"
        ):
            prior.kl(prior.sample((3,), steps=2))

    def test_a_pair_of_families_without_a_divergence(self):
        ones = torch.ones(4, 2)
        message = (
            "torch knows no divergence of Gamma from Laplace. Register one with torch.distributions.kl.register_kl"
        )
        with pytest.raises(TypeError, match=message):
            SpikeSlabPrior(2).kl(posterior_of(0 * ones, ones, Gamma(ones, ones)))


def test_slabs_of_another_shape_are_refused(without_hook):
    prior = SpikeSlabPrior(3)
    with pytest.raises(ValueError, match="expected slabs of shape"):
        prior.log_prob(torch.ones(2, 5, 3), torch.ones(5, 3))


@pytest.mark.parametrize(
    "slab",
    [
        Dirichlet(torch.ones(3)),
        Independent(Normal(torch.zeros(3), torch.ones(3)), 1),
        TransformedDistribution(Laplace(1.0, 0.1), [AbsTransform()]),
    ],
)
def test_a_slab_that_its_arguments_do_not_describe_is_refused(slab):
    with pytest.raises(TypeError, match="distribution of one number"):
        SpikeSlabPrior(3, slab=slab)


@pytest.mark.parametrize("steps", [0, -2])
def test_marginals_need_a_step(steps):
    with pytest.raises(ValueError, match="at least one step"):
        SpikeSlabPrior(3).marginals(steps)


def test_the_symmetric_chain_is_on_for_half_of_the_time_or_more():
    for K, share in ((1, 1.0), (2, 0.676), (3, 0.580), (6, 0.510)):
        assert SpikeSlabPrior(K).marginals(400)[-1].mean().item() == pytest.approx(share, abs=1e-3)


def test_a_posterior_of_another_control_or_of_other_logits_is_refused():
    features = torch.randn(3, 5, 8)
    four = SpikeSlabPosterior(8, 4)(features)
    with pytest.raises(ValueError, match=r"expected slabs of shape \(T, \*, 2\), got \(3, 5, 4\). Prior and posterior"):
        SpikeSlabPrior(2, control="double").kl(four)
    with pytest.raises(ValueError, match=r"expected slabs of shape \(T, \*, 4\), got \(3, 5, 2\)"):
        SpikeSlabPrior(4).kl(SpikeSlabPosterior(8, 2, control="double")(features))
    with pytest.raises(ValueError, match=r"expected logits like the spikes, \(3, 5, 4\), got \(1, 5, 4\)"):
        SpikeSlabPrior(4).kl(four._replace(logits=four.logits[:1]))
