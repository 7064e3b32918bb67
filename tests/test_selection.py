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
from flowvae.selection import BackwardSelection, Snapshot, Trial, exchange


@pytest.fixture(autouse=True)
def float32():
    torch.set_default_dtype(torch.float32)
    seed_everything(0)


def train(selection, control="single", fields=3, steps=40):
    model = UnsupervisedFlowVAE(latent=4, fields=fields, width=8, control=control, path_kl=None, forcing=False)
    return fit(model, selection, steps)


def fit(model, selection, steps):
    data = DigitsData(motion="spikes", steps=2, batch_size=4, epoch=4 * steps)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(accelerator="cpu", max_steps=steps, callbacks=[selection], enable_model_summary=False, **quiet)
    trainer.fit(model, data)
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
    assert [on for _, on in selection.tried[1:]] == [(0, 2), (0,)]
    assert [step for step, _ in selection.tried] == [0, 2, 4]


def test_a_flow_that_is_needed_comes_back_with_its_weights():
    selection = Scripted(lambda on: 100.0 if len(on) == 3 else 200.0, [0.5, 0.1, 0.3])
    model = train(selection)
    assert model.posterior.enabled.all()
    assert sorted(selection.needed) == [0, 1, 2]
    assert torch.isfinite(torch.cat([p.flatten() for p in model.parameters()])).all()


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


def test_another_kind_has_to_beat_as_many_steps_without_it():
    # The bound falls with every step; at the same step the rotation, control 1, is worse than the gradient.
    class Falling(Scripted):
        def _bound(self, trainer, model):
            bound, usage = super()._bound(trainer, model)
            return bound - 10.0 * trainer.global_step, usage

    def trained(change):
        selection = Falling(lambda on: 1000.0 + change * (0 not in on), [0.4, 0.0])
        model = UnsupervisedFlowVAE(latent=4, fields=1, width=8, control="double", path_kl=None, forcing=False)
        model.posterior.disable(1)
        return fit(model, selection, 20).posterior.enabled.tolist(), selection.tried

    # Three steps without the change, then three with it, from where the others began: those end at a later step.
    kept, tried = trained(31.0)
    assert kept == [True, False]
    assert tried == [(0, (0,)), (3, (0,)), (6, (1,))]
    assert trained(29.0)[0] == [False, True]


def test_a_trial_goes_back_to_the_weights_and_moments_of_its_rival():
    class Watched(Scripted):
        def _restore(self, trainer, model, earlier):
            super()._restore(trainer, model, earlier)
            moments = trainer.optimizers[0].state_dict()["state"]
            self.seen.append((earlier, copy.deepcopy(model.state_dict()), copy.deepcopy(moments)))

    selection = Watched(lambda on: 100.0 + 100.0 * (0 not in on), [0.4, 0.0])
    selection.seen = []
    model = UnsupervisedFlowVAE(latent=4, fields=1, width=8, control="double", path_kl=None, forcing=False)
    model.posterior.disable(1)
    fit(model, selection, 20)
    (before, *began), (plain, *ended) = selection.seen
    for earlier, (weights, moments) in ((before, began), (plain, ended)):
        torch.testing.assert_close(weights, dict(earlier.model), rtol=0, atol=0)
        torch.testing.assert_close(moments, earlier.optimizer["state"], rtol=0, atol=0)
    # Training went on from there, and left what it was given as it was.
    assert all(state["step"] == 3 for state in plain.optimizer["state"].values())


def test_selection_goes_on_from_a_checkpoint(tmp_path):
    first = BackwardSelection()
    first.needed, first.settled, first.next_step = [1, 2], [2], 700
    before, plain = (Snapshot(bound, [0.4, 0.1], {"w": torch.ones(2)}, {"state": {}}) for bound in (9.0, 8.0))
    for trial in (None, Trial("off", 1, None, before), Trial("exchange", 1, 0, before, plain)):
        first.trial = trial
        torch.save(first.state_dict(), tmp_path / "state.pt")
        second = BackwardSelection()
        second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert (second.needed, second.settled, second.next_step) == (first.needed, first.settled, 700)
        assert str(second.trial) == str(trial)


def test_real_bounds_leave_a_model_that_still_works():
    model = train(BackwardSelection(begin=0.0, heal=2, learn=2, tolerance=1.0, sequences=8), "double", fields=2).eval()
    assert int(model.posterior.enabled.sum()) == 1
    frames = torch.rand(3, 2, 3, 28, 28)
    assert torch.isfinite(model.decode(model.roll(model.encode(frames[0])[0], model.infer(frames).weights, 2).z)).all()
