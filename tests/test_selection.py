import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning import Trainer, seed_everything

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

from flowvae.data.sequences import DigitsData
from flowvae.model import UnsupervisedFlowVAE
from flowvae.selection import BackwardSelection
from flowvae.trials import Snapshot, exchange


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    seed_everything(0)


@pytest.fixture(autouse=True)
def untied(monkeypatch):
    """Flows of models that have learned nothing are together by chance."""
    monkeypatch.setattr("flowvae.selection.tied", lambda steps, controls, tried: None)


def train(selection, control="single", fields=3, steps=40):
    model = UnsupervisedFlowVAE(latent=4, fields=fields, width=8, control=control, path_kl=None, forcing=False)
    return fit(model, selection, steps)


def fit(model, selection, steps, keep=None, ckpt_path=None):
    data = DigitsData(motion="spikes", steps=2, batch_size=4, epoch=80)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=[selection], enable_model_summary=False, **quiet)
    trainer.fit(model, data, ckpt_path=ckpt_path)
    if keep is not None:
        trainer.save_checkpoint(keep)
    return model


class Scripted(BackwardSelection):
    """Selection whose bound is a function of the controls that are on."""

    def __init__(self, bound, usage, **others):
        super().__init__(begin=0.0, heal=2, learn=3, end=0.9, **others)
        self.bound, self.usage = bound, usage
        self.tried = []

    def _bound(self, trainer, model):
        on = tuple(k for k, enabled in enumerate(model.posterior.enabled.tolist()) if enabled)
        self.tried.append((trainer.global_step, on))
        return self.bound(on), self.usage


def test_the_least_used_flow_goes_first_and_what_the_bound_needs_stays():
    selection = Scripted(lambda on: 100.0 + 50.0 * (0 not in on) + 1.0 * (2 not in on), [0.5, 0.1, 0.3], tolerance=0.02)
    model = train(selection)
    assert model.posterior.enabled.tolist() == [True, False, False]
    assert [on for _, on in selection.tried[1:3]] == [(0, 2), (0,)]
    assert [step for step, _ in selection.tried[:3]] == [0, 2, 4]


class Watched(Scripted):
    """That keeps what it has gone back to, and the weights and moments that were then there."""

    def __init__(self, bound, usage, **others):
        super().__init__(bound, usage, **others)
        self.seen = []

    def _restore(self, trainer, model, earlier):
        super()._restore(trainer, model, earlier)
        moments = trainer.optimizers[0].state_dict()["state"]
        self.seen.append((earlier, copy.deepcopy(model.state_dict()), copy.deepcopy(moments)))


def test_a_flow_that_is_needed_comes_back_with_its_weights():
    selection = Watched(lambda on: 100.0 if len(on) == 3 else 200.0, [0.5, 0.1, 0.3])
    model = UnsupervisedFlowVAE(latent=4, fields=3, width=8, path_kl=None, forcing=False)
    began = copy.deepcopy(model.state_dict())
    fit(model, selection, 40)
    assert model.posterior.enabled.all()
    assert sorted(selection.needed) == [0, 1, 2]
    assert len(selection.seen) == 3
    for _, weights, moments in selection.seen:
        torch.testing.assert_close(weights, began, rtol=0, atol=0)
        assert not moments


def test_an_optimizer_goes_back_with_the_rates_of_the_present():
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    earlier = Snapshot(1.0, [], copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()))
    optimizer.param_groups[0]["lr"] = 0.01
    BackwardSelection()._restore(SimpleNamespace(optimizers=[optimizer]), model, earlier)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_with_double_control_a_transformation_gets_the_better_kind():
    # Controls 0 and 1 are gradients, 2 and 3 rotations: the data need one of each field, the second as a rotation.
    def bound(on):
        covered = (0 in on or 2 in on) and (1 in on or 3 in on)
        return 100.0 + 100.0 * (not covered) + 10.0 * (1 in on and 3 not in on) + 10.0 * (2 in on and 0 not in on)

    selection = Scripted(bound, [0.4, 0.4, 0.1, 0.0], tolerance=0.2)
    model = train(selection, "double", fields=2, steps=60)
    assert model.posterior.enabled.tolist() == [True, False, False, True]
    assert sorted(selection.settled) == [0, 3]


def test_where_its_field_has_the_other_kind_at_work_another_field_steps_in():
    # Two transformations have fallen to the two parts of field 0, and both need a rotation.
    def bound(on):
        return 100.0 + 100.0 * (len(on) < 2) + 10.0 * (0 in on or 1 in on)

    model = train(Scripted(bound, [0.5, 0.1, 0.4, 0.0], tolerance=0.2), "double", fields=2, steps=60)
    assert model.posterior.enabled.tolist() == [False, False, True, True]


def test_what_helped_a_flow_of_the_wrong_kind_goes_once_it_has_changed():
    def bound(on):
        return 100.0 if 2 in on and 0 not in on else 150.0 if {0, 1} <= set(on) else 400.0

    model = train(Scripted(bound, [0.4, 0.3, 0.1, 0.0], tolerance=0.2), "double", fields=2, steps=60)
    assert model.posterior.enabled.tolist() == [False, False, True, False]


@pytest.mark.parametrize(("together", "enabled"), [(0.9, [True, True, True, False]), (0.1, [True, True, False, False])])
def test_a_flow_that_does_two_things_stays_split_and_one_that_does_one_does_not(monkeypatch, together, enabled):
    # Flow 0 stands for two transformations until a third control takes one over.
    def bound(on):
        return 100.0 + 100.0 * (not {0, 1} <= set(on)) - 10.0 * (2 in on or 3 in on)

    selection = Scripted(bound, [0.6, 0.3, 0.0, 0.0], tolerance=0.02, split=True)
    selection._together = lambda trainer, model, one, other: together
    monkeypatch.setattr("flowvae.selection.likeliest", lambda steps, controls: min(controls))
    selection.needed = [0, 1]
    model = UnsupervisedFlowVAE(latent=4, fields=4, width=8, path_kl=None, forcing=False)
    for off in (2, 3):
        model.posterior.disable(off)
    fit(model, selection, 60)
    assert model.posterior.enabled.tolist() == enabled
    assert selection.settled == [0]


def test_flows_that_come_and_go_by_themselves_coincide_as_often_as_chance_has_it():
    selection = BackwardSelection()
    one, two = torch.rand(2, 4000) < 0.4
    selection._observe = lambda trainer, model: SimpleNamespace(on=torch.stack((one, two, one & ~two), -1))
    assert selection._together(None, None, 0, 1) == pytest.approx(1, abs=0.1)
    assert selection._together(None, None, 1, 2) == 0


def test_exchanged_controls_have_each_others_spikes():
    model = UnsupervisedFlowVAE(latent=4, fields=2, width=8, control="double", path_kl=None, learn_rates=True).eval()
    model.posterior.disable(2)
    features = torch.randn(5, 6, 128)
    before = model.posterior(features).logits
    exchange(model, 0, 2)
    torch.testing.assert_close(model.posterior(features).logits, before[..., [2, 1, 0, 3]])
    assert model.posterior.enabled.tolist() == [False, True, True, True]


class Falling(Scripted):
    """Whose bound falls with every step too."""

    def _bound(self, trainer, model):
        bound, usage = super()._bound(trainer, model)
        return bound - 10.0 * trainer.global_step, usage


def one_field(control="double", fields=1):
    model = UnsupervisedFlowVAE(latent=4, fields=fields, width=8, control=control, path_kl=None, forcing=False)
    model.posterior.disable(1)
    return model


def test_another_kind_has_to_beat_as_many_steps_without_it():
    # At the same step the rotation, control 1, is worse than the gradient.
    def trained(change):
        selection = Falling(lambda on: 1000.0 + change * (0 not in on), [0.4, 0.0])
        return fit(one_field(), selection, 20).posterior.enabled.tolist(), selection.tried

    # Three steps without the change, then three with it, from where the others began: those end at a later step.
    kept, tried = trained(31.0)
    assert kept == [True, False]
    assert tried == [(0, (0,)), (3, (0,)), (6, (1,))]
    assert trained(29.0)[0] == [False, True]


@pytest.mark.parametrize(("change", "enabled"), [(31.0, [True, False]), (29.0, [True, True])])
def test_a_flow_in_two_has_to_beat_as_many_steps_with_one(change, enabled):
    selection = Falling(lambda on: 1000.0 + change * (len(on) == 2), [0.4, 0.0], split=True)
    selection._together = lambda trainer, model, one, other: 1.0
    selection.needed = [0]
    assert fit(one_field("single", fields=2), selection, 8).posterior.enabled.tolist() == enabled


@pytest.mark.parametrize(("change", "taught"), [(31.0, False), (29.0, True)])
def test_a_flow_by_itself_has_to_beat_as_many_steps_with_another(monkeypatch, change, taught):
    looked = []

    def tied(steps, controls, tried):
        looked.append(list(tried))
        # Not at once, but at the second look.
        return (0, 1) if len(looked) > 1 and (0, 1) not in tried else None

    def part(model, steps, control, other):
        assert (control, other) == (0, 1)
        model.posterior.spike_head.bias.data[0] = 7.0

    monkeypatch.setattr("flowvae.selection.tied", tied)
    monkeypatch.setattr("flowvae.selection.part", part)
    model = UnsupervisedFlowVAE(latent=4, fields=2, width=8, path_kl=None, forcing=False)
    selection = Falling(lambda on: 1000.0 + change * (model.posterior.spike_head.bias[0] > 6), [0.4, 0.4], remove=False)
    fit(model, selection, 20)
    # The second look after three steps; then three steps as it is, and three with the change; later only looks.
    assert [step for step, _ in selection.tried[:4]] == [0, 3, 6, 9]
    assert (model.posterior.spike_head.bias[0] > 6) == taught
    assert selection.parted == [(0, 1)]
    assert looked[2:] == [[(0, 1)]] * len(looked[2:])
    assert len(looked) > 3


def test_where_nothing_is_tried_off_all_flows_stay():
    selection = Scripted(lambda on: 100.0 * len(on), [0.5, 0.1, 0.0], remove=False)
    assert train(selection).posterior.enabled.all()
    assert selection.needed == []


def test_a_trial_goes_back_to_the_weights_and_moments_of_its_rival():
    selection = Watched(lambda on: 100.0 + 100.0 * (0 not in on), [0.4, 0.0])
    fit(one_field(), selection, 20)
    (before, *began), (plain, *ended) = selection.seen
    for earlier, (weights, moments) in ((before, began), (plain, ended)):
        torch.testing.assert_close(weights, dict(earlier.model), rtol=0, atol=0)
        torch.testing.assert_close(moments, earlier.optimizer["state"], rtol=0, atol=0)
    # Training went on from there, and left what it was given as it was.
    assert {state["step"].item() for state in plain.optimizer["state"].values()} == {3}


@pytest.mark.parametrize("stop", [2, 5], ids=["in the steps without", "in those with the change"])
@pytest.mark.parametrize(("change", "enabled"), [(31.0, [True, False]), (29.0, [False, True])])
def test_a_trial_goes_on_from_a_checkpoint(tmp_path, stop, change, enabled):
    def selection():
        return Falling(lambda on: 1000.0 + change * (0 not in on), [0.4, 0.0])

    first = selection()
    fit(one_field(), first, stop, keep=tmp_path / "stopped.ckpt")
    assert first.trial is not None
    second = selection()
    model = fit(one_field(), second, 20, ckpt_path=tmp_path / "stopped.ckpt")
    assert model.posterior.enabled.tolist() == enabled
    assert first.tried + second.tried == [(0, (0,)), (3, (0,)), (6, (1,))]


@pytest.mark.parametrize("stop", [2, 5], ids=["in the steps without", "in those with the change"])
def test_a_real_parting_goes_on_from_a_checkpoint(tmp_path, monkeypatch, stop):
    def tied(steps, controls, tried):
        return None if (0, 1) in tried else (0, 1)

    def selection():
        return BackwardSelection(begin=0.0, learn=3, end=0.9, sequences=8, remove=False)

    def flows():
        model = UnsupervisedFlowVAE(latent=4, fields=2, width=8, path_kl=None, forcing=False)
        # Always on, so that there is something to part.
        model.posterior.spike_head.bias.data[:] = 3.0
        return model

    monkeypatch.setattr("flowvae.selection.tied", tied)
    first, second, third = selection(), selection(), selection()
    fit(flows(), first, stop, keep=tmp_path / "stopped.ckpt")
    assert first.trial.how == "part"
    assert (first.trial.plain is None) == (stop == 2)
    model = fit(flows(), second, 20, ckpt_path=tmp_path / "stopped.ckpt")
    assert second.parted == [(0, 1)]
    assert all(p.isfinite().all() for p in model.parameters())
    third.load_state_dict(second.state_dict())
    assert third.parted == [(0, 1)]


def test_a_selection_of_before_flows_were_parted_goes_on():
    selection = BackwardSelection()
    selection.load_state_dict({"needed": [1], "settled": [], "trial": None, "next_step": 7})
    assert (selection.needed, selection.parted, selection.next_step) == ([1], [], 7)


def test_real_bounds_leave_a_model_that_still_works():
    model = train(BackwardSelection(begin=0.0, heal=2, learn=2, tolerance=1.0, sequences=8), "double", fields=2).eval()
    assert int(model.posterior.enabled.sum()) == 1
    frames = torch.rand(3, 2, 3, 28, 28)
    assert torch.isfinite(model.decode(model.roll(model.encode(frames[0])[0], model.infer(frames).weights, 2).z)).all()
