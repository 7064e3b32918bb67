import math

import pytest
import torch
from reference import close, randomize
from torch import nn
from torch.distributions import (
    Bernoulli,
    ContinuousBernoulli,
    Dirichlet,
    Gamma,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
    constraints,
)

from torchflowfield.posteriors import Annealing, FlowSelector, SpikeSlabPosterior
from torchflowfield.priors import SpikeSlabPrior

SAMPLES = 20_000


def certain(K, logit=0.0, **options):
    """A posterior whose spikes have the same log-odds whatever the features."""
    posterior = SpikeSlabPosterior(4, K, **options)
    nn.init.zeros_(posterior.spike_head.weight)
    nn.init.constant_(posterior.spike_head.bias, logit)
    return posterior


class TestSpikes:
    @pytest.mark.parametrize("hard", [False, True])
    @pytest.mark.parametrize(("K", "expected"), [(64, 0.5), (2, 2 / 3), (1, 1.0)])
    def test_a_logit_of_zero_is_on_half_of_the_time_before_conditioning(self, K, expected, hard):
        spikes = certain(K, hard=hard)(torch.randn(1, SAMPLES, 4), temperature=0.7).spikes
        error = math.sqrt(expected * (1 - expected) / (SAMPLES))
        assert ((spikes > 0.5).double().mean((0, 1)) - expected).abs().max() <= 5 * error

    @pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
    def test_the_relaxation_has_logistic_noise(self, temperature):
        logit = 0.4
        soft = certain(64, logit)(torch.randn(1, 2_000, 4), temperature).spikes
        uniform = (temperature * soft.logit() - logit).sigmoid().flatten()
        quantiles = torch.linspace(0.1, 0.9, 9)
        close(uniform.quantile(quantiles), quantiles, rtol=0, atol=0.01)

    def test_hard_and_relaxed_spikes_agree_on_what_is_on(self):
        posterior, features = SpikeSlabPosterior(4, 5), torch.randn(3, 50, 4)
        results = []
        for hard in (False, True):
            torch.manual_seed(1)
            posterior.hard = hard
            results.append(posterior(features, use_slab=False).spikes)
        close(results[0].round(), results[1])

    def test_hard_spikes_are_zero_or_one_with_the_gradient_of_the_relaxation(self):
        posterior = randomize(SpikeSlabPosterior(4, 3, hard=True))
        features, gradients = torch.randn(2, 50, 4), []
        for hard in (True, False):
            torch.manual_seed(1)
            posterior.hard = hard
            spikes = posterior(features, use_slab=False).spikes
            if hard:
                assert ((spikes == 0) | (spikes == 1)).all()
            gradients.append(torch.autograd.grad(spikes.sum(), posterior.spike_head.weight)[0])
        close(*gradients)
        assert gradients[0].abs().min() > 0

    @pytest.mark.parametrize("training", [True, False])
    @pytest.mark.parametrize("logit", [-60.0, -3.0, 0.0])
    @pytest.mark.parametrize("K", [1, 3, 64])
    def test_one_spike_at_least_is_on(self, K, logit, training):
        posterior = certain(K, logit, hard=True).train(training)
        assert (posterior(torch.randn(2, 100, 4)).spikes.sum(-1) >= 1).all()

    @pytest.mark.parametrize("training", [True, False])
    def test_a_disabled_spike_stays_off_where_all_others_are_as_good_as_off(self, training):
        posterior = certain(3, -1e3, hard=True).train(training)
        posterior.disable(0)
        spikes = posterior(torch.randn(4, 200, 4), use_slab=False).spikes
        assert (spikes[..., 0] == 0).all()
        assert (spikes.sum(-1) >= 1).all()

    @pytest.mark.parametrize("training", [True, False])
    def test_a_call_may_ask_for_a_draw_or_for_the_likeliest_spikes(self, training):
        posterior, features = randomize(SpikeSlabPosterior(4, 3, hard=True)).train(training), torch.randn(2, 500, 4)
        likeliest = posterior.eval()(features, use_slab=False).spikes
        posterior.train(training)
        close(posterior(features, use_slab=False, sample=False).spikes, likeliest)
        assert (posterior(features, use_slab=False, sample=True).spikes != likeliest).any()

    def test_evaluation_is_deterministic_and_takes_the_likeliest_spikes(self):
        posterior = SpikeSlabPosterior(3, 3).eval()
        with torch.no_grad():
            posterior.spike_head.weight.copy_(torch.eye(3))
            posterior.spike_head.bias.zero_()
        features = torch.tensor([[[1.0, -1.0, 2.0], [-3.0, -1.0, -2.0]]])
        first, second = posterior(features), posterior(features)
        close(first.spikes, torch.tensor([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]]))
        close(first.weights, second.weights, rtol=0, atol=0)
        close(first.slabs, first.slab.mean)

    def test_training_is_not_deterministic(self):
        posterior, features = SpikeSlabPosterior(4, 3), torch.randn(2, 50, 4)
        assert not torch.equal(posterior(features).spikes, posterior(features).spikes)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("logit", [-60.0, 60.0, -1e6, 1e6])
    @pytest.mark.parametrize("K", [1, 2, 64])
    @pytest.mark.parametrize("hard", [False, True])
    def test_extreme_logits_give_finite_values_and_gradients(self, K, logit, dtype, hard):
        posterior, prior = certain(K, logit, hard=hard).to(dtype), SpikeSlabPrior(K).to(dtype)
        sample = posterior(torch.randn(3, 5, 4, dtype=dtype), temperature=0.3)
        total = prior.kl(sample).total.sum() + sample.weights.sum()
        assert total.isfinite()
        total.backward()
        assert all(parameter.grad.isfinite().all() for parameter in posterior.parameters())

    def test_the_divergence_reaches_every_parameter(self):
        posterior, prior = SpikeSlabPosterior(4, 3), SpikeSlabPrior(3)
        prior.kl(posterior(torch.randn(3, 5, 4))).total.sum().backward()
        assert all((parameter.grad != 0).all() for parameter in posterior.parameters())

    def test_the_divergence_of_hard_spikes_reaches_the_step_before(self):
        posterior, prior = SpikeSlabPosterior(4, 3, hard=True), SpikeSlabPrior(3)
        features = torch.randn(2, 5, 4, requires_grad=True)
        prior.kl(posterior(features, use_slab=False)).spike[1].sum().backward()
        assert features.grad[0].abs().max() > 0


class TestSlabs:
    def test_weights_are_spikes_times_slabs(self):
        sample = SpikeSlabPosterior(4, 3)(torch.randn(2, 5, 4))
        close(sample.weights, sample.spikes * sample.slabs)

    def test_double_control_has_two_spikes_and_one_slab_per_field(self):
        posterior = SpikeSlabPosterior(4, 3, control="double")
        sample = posterior(torch.randn(2, 5, 4))
        assert posterior.num_controls == 6
        assert sample.weights.shape == sample.spikes.shape == sample.logits.shape == (2, 5, 6)
        assert sample.slabs.shape == (2, 5, 3)
        close(sample.weights[..., :3], sample.spikes[..., :3] * sample.slabs)
        close(sample.weights[..., 3:], sample.spikes[..., 3:] * sample.slabs)
        assert SpikeSlabPrior(3, control="double").kl(sample).total.shape == (5,)

    @pytest.mark.parametrize("options", [{"slab": None}, {}])
    def test_spikes_alone_are_the_first_stage(self, options):
        sample = SpikeSlabPosterior(4, 3, **options)(torch.randn(2, 5, 4), use_slab=False)
        close(sample.weights, sample.spikes)
        assert sample.slabs is sample.slab is None

    def test_slabs_may_have_features_of_their_own(self):
        posterior = SpikeSlabPosterior(4, 3, slab_features=7).eval()
        spikes, others = posterior(torch.randn(2, 5, 4), use_slab=False), torch.randn(2, 5, 7)
        sample = posterior.with_slabs(spikes, others)
        assert torch.equal(sample.spikes, spikes.spikes)
        assert torch.equal(sample.weights, spikes.spikes * sample.slabs)
        assert torch.equal(sample.slabs, posterior._slab(posterior.slab_head(others).view(2, 5, 3, 2)).mean)

    def test_features_of_slabs_of_another_size_are_an_error(self):
        with pytest.raises(ValueError, match=r"expected features of shape \(\*, 7\), got \(2, 4\)"):
            SpikeSlabPosterior(4, 3, slab_features=7)(torch.randn(2, 4))

    def test_a_posterior_of_spikes_alone_has_no_slabs_to_give(self):
        posterior = SpikeSlabPosterior(4, 3, slab=None)
        with pytest.raises(ValueError, match="this posterior has spikes alone"):
            posterior.with_slabs(posterior(torch.randn(2, 4)), torch.randn(2, 4))

    def test_the_first_slabs_are_about_one_with_the_given_scale(self):
        slab = SpikeSlabPosterior(4, 3, slab_scale=0.25)(torch.zeros(2, 5, 4)).slab
        close(slab.loc, torch.ones(2, 5, 3))
        close(slab.scale, torch.full((2, 5, 3), 0.25))

    def test_the_location_stays_in_its_interval(self):
        posterior = randomize(SpikeSlabPosterior(4, 3, slab_range=(0.5, 1.5)), scale=5.0)
        loc = posterior(torch.randn(2, 50, 4)).slab.loc
        assert loc.min() >= 0.5
        assert loc.max() <= 1.5
        assert loc.max() - loc.min() > 0.9

    @pytest.mark.parametrize("family", [Laplace, Normal, LogNormal, Gamma])
    def test_any_reparameterised_family_will_do(self, family):
        posterior = SpikeSlabPosterior(4, 3, slab=family)
        sample = posterior(torch.randn(2, 5, 4))
        assert isinstance(sample.slab, family)
        sample.weights.sum().backward()
        assert (posterior.slab_head.weight.grad != 0).any()

    def test_the_head_follows_the_module(self):
        posterior = SpikeSlabPosterior(4, 3).float()
        assert posterior(torch.randn(2, 5, 4).float()).weights.dtype == torch.float32

    def test_a_state_dict_survives_saving_and_loading(self, tmp_path):
        one, other = randomize(SpikeSlabPosterior(4, 3)).eval(), SpikeSlabPosterior(4, 3).eval()
        torch.save(one.state_dict(), tmp_path / "posterior.pt")
        other.load_state_dict(torch.load(tmp_path / "posterior.pt", weights_only=True))
        features = torch.randn(2, 5, 4)
        close(one(features).weights, other(features).weights, rtol=0, atol=0)


class TestDisabledControls:
    @pytest.mark.parametrize("training", [True, False])
    def test_a_disabled_spike_is_never_on_and_costs_next_to_nothing(self, training):
        posterior, prior = SpikeSlabPosterior(4, 3, hard=True).train(training), SpikeSlabPrior(3)
        posterior.disable(1)
        prior.disable(1)
        sample = posterior(torch.randn(3, 500, 4))
        assert (sample.spikes[..., 1] == 0).all()
        assert (sample.spikes.sum(-1) >= 1).all()
        pair = sample._replace(logits=sample.logits[..., ::2], spikes=sample.spikes[..., ::2], slab=None)
        close(prior.kl(sample).spike, SpikeSlabPrior(2).kl(pair).spike, rtol=1e-3, atol=1e-3)

    def test_what_is_disabled_is_saved(self):
        posterior, other = SpikeSlabPosterior(4, 3), SpikeSlabPosterior(4, 3)
        posterior.disable(2)
        other.load_state_dict(posterior.state_dict())
        assert (other(torch.randn(3, 500, 4)).spikes[..., 2] < 0.5).all()

    def test_a_sample_of_the_prior_avoids_a_disabled_spike(self):
        prior = SpikeSlabPrior(3)
        prior.disable(0)
        assert prior.sample((500,), steps=4).spikes[..., 0].mean() < 0.01
        assert prior.marginals(4)[:, 0].max() < 1e-3

    def test_an_unknown_control_and_the_last_one_are_errors(self):
        posterior = SpikeSlabPosterior(4, 2)
        with pytest.raises(ValueError, match="expected one of several enabled controls below 2, got 2"):
            posterior.disable(2)
        posterior.disable(0)
        with pytest.raises(ValueError, match="expected one of several enabled controls below 2, got 1"):
            posterior.disable(1)
        with pytest.raises(ValueError, match="expected a control from 0 to 1, got -1"):
            SpikeSlabPrior(2).disable(-1)


class TestFlowSelector:
    def test_a_choice_is_one_hot_with_a_gradient(self):
        selector, features = randomize(FlowSelector(4, 3)), torch.randn(50, 4)
        weights = selector(features, temperature=0.7).weights
        close(weights.sum(-1), torch.ones(50))
        assert ((weights.round() == 0) | (weights.round() == 1)).all()
        (weights * torch.randn(50, 3)).sum().backward()
        assert all((parameter.grad != 0).all() for parameter in selector.parameters())

    def test_choices_have_their_probabilities(self):
        selector = FlowSelector(4, 3)
        features = torch.randn(4).expand(SAMPLES, 4)
        choice = selector(features)
        close(choice.weights.mean(0), choice.logits[0].softmax(-1), rtol=0, atol=0.02)

    def test_evaluation_takes_the_likeliest_field(self):
        selector, features = randomize(FlowSelector(4, 3)).eval(), torch.randn(50, 4)
        choice = selector(features)
        close(choice.weights, torch.eye(3)[choice.logits.argmax(-1)], rtol=0, atol=0)
        close(choice.weights, selector(features).weights, rtol=0, atol=0)

    @pytest.mark.parametrize("prior", [None, torch.tensor([0.2, 0.3, 0.5])])
    def test_kl_is_that_of_the_categorical(self, prior):
        selector = randomize(FlowSelector(4, 3))
        choice = selector(torch.randn(2, 5, 4))
        p = torch.full((3,), 1 / 3) if prior is None else prior.double()
        expected = torch.distributions.kl_divergence(
            torch.distributions.Categorical(logits=choice.logits),
            torch.distributions.Categorical(probs=p.expand(2, 5, 3)),
        )
        kl = selector.kl(choice, None if prior is None else p)
        close(kl, expected, rtol=1e-6, atol=1e-6)
        kl.sum().backward()
        assert selector.head.weight.grad.abs().max() > 0

    @pytest.mark.parametrize("prior", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, 0.5]])
    def test_a_prior_that_is_none_is_an_error(self, prior):
        selector = FlowSelector(4, 3)
        choice = selector(torch.randn(5, 4))
        with pytest.raises(ValueError, match="expected 3 positive probabilities that sum to one, got"):
            selector.kl(choice, torch.tensor(prior))

    def test_bad_sizes_are_errors(self):
        with pytest.raises(ValueError, match="FlowSelector: expected K to be a whole number of at least 1, got 0"):
            FlowSelector(4, 0)
        with pytest.raises(ValueError, match=r"FlowSelector: expected features of shape \(\*, 4\), got \(5, 3\)"):
            FlowSelector(4, 3)(torch.randn(5, 3))


class TestAnnealing:
    def test_it_decays_exponentially_to_its_end(self):
        temperature = Annealing(1.0, 0.25, steps=100)
        assert temperature(0) == 1.0
        assert temperature(50) == pytest.approx(0.5)
        assert temperature(100) == pytest.approx(0.25)
        assert temperature(10**6) == 0.25

    def test_it_has_no_hidden_counter(self):
        temperature = Annealing(steps=10)
        assert temperature(5) == temperature(5)

    @pytest.mark.parametrize(("start", "end", "steps"), [(0.2, 0.5, 10), (1.0, 0.0, 10), (1.0, 0.5, 0)])
    def test_what_does_not_decay_is_an_error(self, start, end, steps):
        with pytest.raises(ValueError, match="expected start ≥ end > 0 and steps ≥ 1, got"):
            Annealing(start, end, steps=steps)


class TestErrors:
    def test_bad_sizes(self):
        with pytest.raises(
            ValueError, match="SpikeSlabPosterior: expected K to be a whole number of at least 1, got 0"
        ):
            SpikeSlabPosterior(4, 0)
        with pytest.raises(
            ValueError, match=r"SpikeSlabPosterior: expected features of shape \(\*, 4\), got \(2, 5, 3\)"
        ):
            SpikeSlabPosterior(4, 3)(torch.randn(2, 5, 3))

    def test_an_unknown_control(self, without_hook):
        with pytest.raises(ValueError, match="expected control to be one of 'single', 'double', got 'triple'"):
            SpikeSlabPosterior(4, 3, control="triple")

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
    def test_a_temperature_that_is_not_positive(self, temperature):
        with pytest.raises(ValueError, match=f"expected a positive temperature, got {temperature}"):
            SpikeSlabPosterior(4, 3)(torch.randn(2, 5, 4), temperature)

    def test_slabs_that_cannot_be_reparameterised(self):
        with pytest.raises(TypeError, match="slabs need reparameterised samples, which Bernoulli lacks"):
            SpikeSlabPosterior(4, 3, slab=Bernoulli)

    @pytest.mark.parametrize("family", [Uniform, ContinuousBernoulli, Dirichlet, MultivariateNormal])
    def test_slabs_that_are_no_single_numbers_with_arguments_of_their_own(self, family):
        with pytest.raises(TypeError, match=f"which {family.__name__} lacks"):
            SpikeSlabPosterior(4, 3, slab=family)

    @pytest.mark.unhooked
    def test_slabs_that_are_a_distribution_instead_of_a_family(self, without_hook):
        with pytest.raises(
            TypeError, match=r"expected a family of torch.distributions as slab, such as Laplace, got L"
        ):
            SpikeSlabPosterior(4, 3, slab=Laplace(1.0, 0.1))

    @pytest.mark.parametrize(
        "options", [{"slab_range": (2.0, 0.0)}, {"slab_range": (0.0, math.inf)}, {"slab_scale": 0.0}]
    )
    def test_slabs_in_no_range_or_of_no_scale(self, options):
        with pytest.raises(ValueError, match="expected a finite slab_range and slab_scale > 0"):
            SpikeSlabPosterior(4, 3, **options)

    def test_a_family_can_be_made_without_data(self):
        with torch.device("meta"):
            assert SpikeSlabPosterior(4, 3).slab_head.weight.is_meta
        assert SpikeSlabPosterior(4, 3, slab_range=(1.0, 1.0))(torch.randn(2, 5, 4)).slab.mean.eq(1).all()
        SpikeSlabPosterior(4, 3, slab=None, slab_scale=0.0)

    def test_a_family_may_have_an_argument_that_is_not_inferred(self):
        class Named(Laplace):
            arg_constraints = Laplace.arg_constraints | {"name": constraints.dependent}

            def __init__(self, loc, scale, name="", validate_args=None):
                super().__init__(loc, scale, validate_args)

        posterior = SpikeSlabPosterior(4, 3, slab=Named)
        assert posterior.slab_head.out_features == 2 * 3
        assert posterior(torch.randn(2, 5, 4)).slabs.shape == (2, 5, 3)

    def test_slab_features_of_no_size(self):
        with pytest.raises(ValueError, match="expected slab_features to be a whole number of at least 1, got 0"):
            SpikeSlabPosterior(4, 3, slab_features=0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("family", [Laplace, Gamma])
    def test_slabs_are_drawn_in_float32_under_autocast(self, dtype, family):
        posterior = SpikeSlabPosterior(4, 3, slab=family).float()
        with torch.autocast("cpu", dtype):
            draw = posterior(torch.randn(50, 40, 4, dtype=torch.float32))
        assert draw.slabs.dtype == draw.slab.mean.dtype == torch.float32
        # Numbers of half precision would repeat each other.
        assert len(draw.slabs.unique()) > 0.9 * draw.slabs.numel()


def test_a_selector_needs_a_positive_temperature():
    with pytest.raises(ValueError, match="FlowSelector: expected a positive temperature, got 0"):
        FlowSelector(4, 2)(torch.randn(3, 4), temperature=0.0)


def test_under_autocast_a_disabled_spike_stays_off():
    posterior = SpikeSlabPosterior(8, 3, hard=True).float()
    posterior.disable(0)
    with torch.autocast("cpu", torch.bfloat16):
        draw = posterior(torch.randn(50, 400, 8, dtype=torch.float32), use_slab=False)
    assert draw.spikes.dtype == torch.float32
    assert not draw.spikes[..., 0].any()


@pytest.mark.parametrize(
    "prior", [torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.6, 0.1]), torch.tensor([0.0, 0.5, 0.5])]
)
def test_a_prior_that_is_no_distribution_is_refused(prior):
    selector = FlowSelector(4, 3)
    with pytest.raises(ValueError, match="sum to one"):
        selector.kl(selector(torch.randn(2, 4)), prior)


@pytest.mark.parametrize("reader", [FlowSelector, SpikeSlabPosterior])
@pytest.mark.parametrize("training", [False, True])
def test_features_that_are_no_numbers_choose_nothing(reader, training):
    with pytest.raises(ValueError, match="expected finite logits, got NaN or infinity"):
        reader(16, 3).train(training)(torch.full((2, 1, 16), torch.nan))
