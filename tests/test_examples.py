import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from reference import compiled_graphs

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.insert(0, str(EXAMPLES))


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


def run_training(config, folder, *arguments):
    import train

    common = ["--trainer.default_root_dir", str(folder), "--trainer.enable_progress_bar", "false"]
    common += ["--trainer.enable_model_summary", "false", "--data.batch_size", "8", "--data.epoch", "32"]
    return train.main(["fit", "--config", str(EXAMPLES / "configs" / config), *common, *arguments])


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    ["digits/supervised", "mnist/weak", "mnist/unsupervised_single", "mnist/unsupervised_slab"],
)
def test_every_degree_of_supervision_trains_tests_and_draws(config, tmp_path):
    from flowvae.model import load_model
    from flowvae.pictures import draw_flows

    cli = run_training(f"{config}.yaml", tmp_path, "--trainer.max_steps", "3")
    cli.trainer.save_checkpoint(tmp_path / "model.ckpt")
    cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    assert list(tmp_path.rglob("test.json"))
    model = load_model(tmp_path / "model.ckpt")
    assert type(model) is type(cli.model)
    files = draw_flows(model, cli.datamodule.split, tmp_path / "pictures", steps=2, samples=2)
    assert files
    assert all(file.stat().st_size > 0 for file in files)


@pytest.mark.slow
def test_a_training_that_is_told_to_stop_does_not_pass_for_a_finished_one(tmp_path, monkeypatch):
    from flowvae.model import FlowVAE

    learn = FlowVAE.training_step

    def stopped(self, batch, index):
        os.kill(os.getpid(), signal.SIGTERM)
        return learn(self, batch, index)

    monkeypatch.setattr(FlowVAE, "training_step", stopped)
    with pytest.raises(SystemExit) as stop:
        run_training("digits/supervised.yaml", tmp_path, "--trainer.max_steps", "3")
    assert stop.value.code == 128 + signal.SIGTERM


@pytest.mark.slow
def test_the_second_stage_trains_slabs_and_leaves_the_spikes(tmp_path):
    cli = run_training("mnist/unsupervised_slab.yaml", tmp_path, "--trainer.max_steps", "2",
                       "--model.slab_from", "0.0", "--model.settle_from", "0.0", "--model.consistency_from", "0.0")  # fmt: skip
    model, batch = cli.model.train(), next(iter(cli.datamodule.train_dataloader()))
    weights, cost = model.coefficients(batch["frames"].transpose(0, 1), batch)
    (weights.sum() + cost).backward()
    learns = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not any(name.startswith(("pair_network", "posterior.spike_head")) for name in learns)
    assert {"posterior.slab_head.weight", "encoder.0.weight"} <= learns


def test_speeds_explain_how_codes_moved():
    from flowvae.model import UnsupervisedFlowVAE

    torch.manual_seed(0)
    model = UnsupervisedFlowVAE(latent=16, width=8, slab=True)
    spikes, speeds = torch.tensor([[[1.0, 0.0, 1.0]]]), torch.tensor([0.9, 1.0, 1.2])
    before = torch.randn(1, 1, 16)
    after = before + model.flows(torch.ones(1, 1), before, spikes * speeds)
    for noise in (1e-5, 1.0):
        std = torch.full((2, 1, 16), noise)
        found, surprise = model.explain((torch.cat((before, after)), std), spikes)
        cost = 0.5 * found.square().sum() / model.prior.slab.variance
        if noise < 1e-3:
            torch.testing.assert_close(found[0, 0], spikes[0, 0] * (speeds - 1), atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(surprise.item(), cost.item(), atol=0.05, rtol=0.05)
        else:
            assert (found.abs() < 0.5 * (speeds - 1).abs() + 1e-6).all()


def test_speeds_trust_codes_as_far_as_they_have_proved_exact():
    from flowvae.model import UnsupervisedFlowVAE

    torch.manual_seed(0)
    model = UnsupervisedFlowVAE(latent=16, width=8, slab=True)
    spikes, before = torch.tensor([[1.0, 0.0, 1.0]]).expand(1, 64, 3), torch.randn(1, 64, 16)
    speeds = 1 + 0.1 * torch.randn(64, 3)
    after = before + model.flows(torch.ones(1, 64), before, spikes * speeds) + 0.003 * torch.randn(1, 64, 16)
    std = torch.full((2, 64, 16), 0.1)
    codes = torch.cat((before, after)), std
    shrunk = model.eval().explain(codes, spikes)[0]
    model.train()
    for _ in range(1000):
        model.explain(codes, spikes)
    # The variance of the difference is 2 (0.1)², that of the errors (0.003)².
    assert 0.5 * 0.00045 < model.noise < 1.1 * 0.00045
    found, truth = model.eval().explain(codes, spikes)[0], spikes * (speeds - 1)
    assert (found - truth).square().sum() < 0.5 * (shrunk - truth).square().sum()


def test_small_codes_do_not_make_motion_cheap():
    from flowvae.model import UnsupervisedFlowVAE

    model = UnsupervisedFlowVAE(latent=4, width=4)
    size = torch.tensor(1.0, requires_grad=True)
    mean, std = torch.randn(3, 5, 4), torch.rand(3, 5, 4) + 0.1
    cost = model.explain((size * mean, size * std), torch.zeros(2, 5, 3))[1].sum()
    (slope,) = torch.autograd.grad(cost, size)
    assert abs(slope) < 1e-3 * cost


@pytest.mark.parametrize("slab", [False, True])
def test_how_codes_move_teaches_by_a_share_of_the_sequences(slab):
    from flowvae.model import UnsupervisedFlowVAE

    torch.manual_seed(0)
    model = UnsupervisedFlowVAE(latent=4, width=4, slab=slab, consistency=1.0).train()
    frames = torch.rand(3, 8, 3, 28, 28, requires_grad=True)
    first, path = model.look(frames)
    whole = model.encode(frames)
    for part, all_at_once in zip((*first, *path), (whole.mean[0], whole.std[0], *whole), strict=True):
        torch.testing.assert_close(part, all_at_once[..., : part.shape[-2], :])
    assert path.mean.shape == (3, 8 if slab else 2, 4)
    for part in path:
        (by_frame,) = torch.autograd.grad(part.sum(), frames, retain_graph=True)
        assert by_frame[:, :2].abs().amax((-3, -2, -1)).min() > 0
        assert (by_frame[:, 2:] == 0).all()
    (by_frame,) = torch.autograd.grad(first.mean.sum(), frames)
    assert by_frame[0].abs().amax((-3, -2, -1)).min() > 0


def test_motion_counts_for_a_share_of_the_sequences_in_training():
    from flowvae.base import Codes
    from flowvae.model import UnsupervisedFlowVAE

    model = UnsupervisedFlowVAE(latent=4, width=4, consistency=1.0).train()
    frames = torch.rand(3, 8, 3, 28, 28)
    codes = model.encode(frames)

    def cost(moved: int) -> torch.Tensor:
        torch.manual_seed(0)
        mean = codes.mean.clone()
        mean[1:, moved] += 1
        return model.coefficients(frames, None, Codes(mean, codes.std))[1]

    assert cost(7) == cost(2) != cost(0)


@pytest.mark.parametrize(("slab", "consistency", "inferred", "trained"), [
    (False, 0.0, 0, 8), (False, 1.0, 0, 12), (True, 0.0, 24, 24), (True, 1.0, 24, 24),
])  # fmt: skip
def test_no_frame_is_encoded_twice_or_in_vain(slab, consistency, inferred, trained):
    from flowvae.model import UnsupervisedFlowVAE

    model = UnsupervisedFlowVAE(latent=4, width=4, slab=slab, consistency=consistency)
    model.log = model.log_dict = lambda *args, **kwargs: None
    seen = []
    model.encoder.register_forward_hook(lambda encoder, given, _: seen.append(len(given[0])))
    frames = torch.rand(8, 3, 3, 28, 28)
    model.eval().infer(frames.transpose(0, 1))
    assert sum(seen) == inferred
    seen.clear()
    model.rollout(frames.transpose(0, 1), None)
    assert sum(seen) == (24 if slab else 8)
    seen.clear()
    model.train().training_step({"frames": frames, "weights": torch.zeros(8, 2, 3)}, 0)
    assert sum(seen) == trained


def test_the_posterior_may_learn_more_slowly():
    from flowvae.model import UnsupervisedFlowVAE

    model = UnsupervisedFlowVAE(latent=4, width=4, lr=1e-3, posterior_lr=0.1, learn_rates=True, rates_lr=0.5)
    rates = {id(p): group.get("lr", model.lr) for group in model._parameter_groups() for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    for name, p in model.named_parameters():
        slow = name.startswith(("pair_network", "posterior"))
        assert rates[id(p)] == pytest.approx(0.5 if name.startswith("prior") else 1e-4 if slow else 1e-3)


def test_the_selector_may_learn_more_slowly():
    from flowvae.model import WeakFlowVAE

    model = WeakFlowVAE(latent=4, width=4, lr=1e-3, selector_lr=0.1)
    rates = {id(p): group.get("lr", model.lr) for group in model._parameter_groups() for p in group["params"]}
    for name, p in model.named_parameters():
        slow = name.startswith(("sequence_network", "selector"))
        assert rates[id(p)] == pytest.approx(1e-4 if slow else 1e-3)


def test_of_scenes_a_selector_sees_the_changes():
    from flowvae.networks import _Change, make_sequence_network

    assert isinstance(make_sequence_network(3, 4, image_size=64)[0], _Change)
    frames = torch.rand(2, 9, 4, 4)
    first, second, third = frames.split(3, 1)
    shown = _Change(3)(frames).split(3, 1)
    for part, expected in zip(shown, (first - 1.5, 2 * (second - first), 2 * (third - second)), strict=True):
        assert torch.allclose(part, expected)


def test_scenes_change_colors_and_stay_upright():
    from flowvae.networks import make_pair_network, shuffle_views

    torch.manual_seed(0)
    frames = torch.rand(2, 64, 3, 8, 8)
    views = shuffle_views(frames, mirror=False, turn=False)
    turns = [frames.roll(k, 2) for k in range(3)]
    same = torch.stack([(views == turn).flatten(2).all(-1).all(0) for turn in turns])
    assert same.any(0).all()
    assert same.any(1).all()
    # What a pair's features are does not grow with the scene's contrast.
    network, scene = make_pair_network(16, image_size=64), torch.rand(4, 6, 64, 64)
    assert network(100 * scene).abs().max() < 16**0.5


def test_the_learning_rate_decays_once_in_every_stage():
    from flowvae.model import UnsupervisedFlowVAE

    one, two = (UnsupervisedFlowVAE(latent=4, width=4, slab=slab, settle_from=0.6) for slab in (False, True))
    assert two.learning_rate(0.03) == pytest.approx(one.learning_rate(0.05))
    assert one.learning_rate(0.05) > 0.99
    assert one.learning_rate(1.0) == pytest.approx(0, abs=1e-12)
    assert two.learning_rate(1.0) == pytest.approx(0, abs=1e-12)
    assert two.learning_rate(0.6 - 1e-9) == pytest.approx(0, abs=1e-6)
    assert two.learning_rate(0.62) == pytest.approx(one.learning_rate(0.05) / 2)


def test_shares_of_none_and_of_all_of_a_training_are_possible():
    from flowvae.model import UnsupervisedFlowVAE, WeakFlowVAE

    edges = {"spike_warmup": 0.0, "anneal": 0.0, "code_warmup": 0.0, "hold": 1.0}
    model = UnsupervisedFlowVAE(latent=4, width=4, slab=True, settle_from=1.0, **edges)
    assert model.learning_rate(1.0) == 1.0
    _, cost = model.coefficients(torch.rand(3, 2, 3, 28, 28), None)
    assert cost.isfinite()
    weak = WeakFlowVAE(latent=4, width=4, steps=2, anneal=0.0)
    assert weak.coefficients(torch.rand(3, 2, 3, 28, 28), None)[0].shape == (2, 2, 3)


def test_settings_and_frames_that_do_not_fit_are_told():
    from flowvae.model import FlowVAE, WeakFlowVAE

    with pytest.raises(ValueError, match="expected decoded frames of 0, for all, or of at least 2, got 1"):
        FlowVAE(latent=4, width=4, decoded=1)
    with pytest.raises(ValueError, match="expected frames of 3×28×28, got 3×32×32"):
        FlowVAE(latent=4, width=4).encode(torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="expected sequences of 6 frames.*steps=5, got 4"):
        WeakFlowVAE(latent=4, width=4).coefficients(torch.rand(4, 2, 3, 28, 28), None)


@pytest.mark.slow
def test_a_test_without_a_training_is_refused(tmp_path):
    import train

    config = str(EXAMPLES / "configs/digits/supervised.yaml")
    # Weights of a training further below are not those that Lightning would take.
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "last.ckpt").touch()
    with pytest.raises(SystemExit, match=r"last.ckpt, in .*found none. Train first"):
        train.main(["test", "--config", config, "--ckpt_path", "last", "--trainer.default_root_dir", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.parametrize(
    "config", ["supervised_paper", "weak_paper", "unsupervised_single_paper", "unsupervised_double_paper"]
)
def test_the_published_networks_train(config, tmp_path):
    small = ["--model.init_args.latent", "8", "--model.init_args.width", "8"]
    cli = run_training(f"mnist/{config}.yaml", tmp_path, "--trainer.max_steps", "2", *small)
    assert cli.trainer.global_step == 2
    assert all(p.isfinite().all() for p in cli.model.parameters())


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoint(tmp_path):
    cli = run_training("digits/supervised.yaml", tmp_path, "--trainer.max_steps", "2")
    cli.trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = run_training(
        "digits/supervised.yaml", tmp_path, "--trainer.max_steps", "4", "--ckpt_path", str(tmp_path / "model.ckpt")
    )
    assert again.trainer.global_step == 4


@pytest.mark.slow
def test_a_training_that_goes_on_sees_what_one_without_a_stop_would_have_seen(tmp_path, monkeypatch):
    from flowvae.model import FlowVAE

    seen, learn = [], FlowVAE.training_step

    def recorded(self, batch, index):
        seen.append(batch["frames"].sum().item())
        return learn(self, batch, index)

    monkeypatch.setattr(FlowVAE, "training_step", recorded)
    common = ["--data.epoch", "48", "--data.batch_size", "16"]
    between = ["--checkpoint.every_n_epochs", "1", "--checkpoint.save_on_train_epoch_end", "true"]
    run_training("digits/supervised.yaml", tmp_path / "whole", *common, "--trainer.max_steps", "7")
    whole, seen[:] = list(seen), []
    first = run_training("digits/supervised.yaml", tmp_path, *common, *between, "--trainer.max_steps", "3")
    assert first.trainer.checkpoint_callback.last_model_path == str(tmp_path / "last.ckpt")
    last = ["--ckpt_path", str(tmp_path / "last.ckpt")]
    run_training("digits/supervised.yaml", tmp_path, *common, *between, "--trainer.max_steps", "7", *last)
    assert len(set(whole)) == 7
    assert seen == whole


@pytest.mark.slow
def test_a_surplus_flow_is_switched_off_and_stays_off(tmp_path):
    cli = run_training("mnist/unsupervised_choose.yaml", tmp_path, "--trainer.max_steps", "12",
                       "--trainer.callbacks.begin", "0.1", "--trainer.callbacks.heal", "2",
                       "--trainer.callbacks.tolerance", "10", "--trainer.callbacks.sequences", "16")  # fmt: skip
    enabled = cli.model.posterior.enabled
    assert 1 <= int(enabled.sum()) < 8
    frames = torch.rand(4, 5, 3, 28, 28)
    assert (cli.model.eval().infer(frames).spikes[..., ~enabled] == 0).all()


def test_a_file_that_is_no_checkpoint_of_ours_is_an_error(tmp_path):
    from flowvae.model import load_model

    with pytest.raises(FileNotFoundError, match="expected a checkpoint"):
        load_model(tmp_path / "none.ckpt")
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="expected a checkpoint of FlowVAE"):
        load_model(tmp_path / "other.ckpt")


@pytest.mark.parametrize("fast", [True, False])
def test_bfloat16_is_for_devices_that_multiply_it(fast, monkeypatch):
    from flowvae import base
    from flowvae.model import FlowVAE

    monkeypatch.setattr(base, "multiplies_bfloat16", lambda device: fast)
    for wanted in (True, False):
        with FlowVAE(latent=4, bfloat16=wanted)._precision(torch.zeros(1)):
            assert torch.is_autocast_enabled("cpu") == (wanted and fast)
        with torch.autocast("cpu", torch.bfloat16), FlowVAE(latent=4, bfloat16=wanted)._precision(torch.zeros(1)):
            assert torch.is_autocast_enabled("cpu")


def test_bfloat16_that_a_cpu_emulates_is_not_used(monkeypatch):
    from flowvae.base import multiplies_bfloat16

    supported = multiplies_bfloat16.__wrapped__
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not supported(torch.device("cpu"))
    assert not supported(torch.device("meta"))


def test_a_copy_of_a_model_that_ran_compiled_code_moves_by_its_own_flows(monkeypatch):
    import copy
    import pickle

    from flowvae.model import FlowVAE

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    model = FlowVAE(latent=4, compile=True)
    assert model._moving.__self__ is model
    model._log_prob  # noqa: B018
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other._moving.__self__ is other


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["FlowVAE", "WeakFlowVAE", "UnsupervisedFlowVAE"])
def test_a_compiled_training_step_equals_the_eager_one(name, tracing_alone):
    from flowvae import model as models

    frames = torch.rand(4, 6, 3, 28, 28)
    weights = torch.nn.functional.one_hot(torch.arange(20) % 3, 3).float().unflatten(0, (4, 5))
    steps = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = getattr(models, name)(latent=8, width=16, compile=compiled).train()
        model.log = model.log_dict = lambda *args, **kwargs: None
        loss = model.training_step({"frames": frames, "weights": weights}, 0)
        loss.backward()
        steps.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
    assert len(steps[0]) == len(steps[1])
    for eager, fused in zip(*steps, strict=True):
        assert (fused - eager).norm() <= 1e-5 * eager.norm()
    assert compiled_graphs() == 2
