import copy

import pytest
import torch
from reference import KINDS, close, randomize, ridge_stack


@pytest.mark.parametrize("batch", [(), (5,), (2, 5)])
@pytest.mark.parametrize("context_dim", [0, 2])
@pytest.mark.parametrize("frequencies", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_of_times_holds_the_fields_of_every_time(kind, frequencies, context_dim, batch):
    fields = randomize(ridge_stack(kind=kind, frequencies=frequencies, context_dim=context_dim))
    context = torch.randn(*batch, context_dim) if context_dim else None
    times, z = torch.arange(6.0), torch.randn(*batch, 3)
    grid = fields.on_grid(times, context, len(batch)).unbind(6)
    for n, t in enumerate(times):
        for actual, expected in zip(grid[n].jet(z), fields.at(t, context).jet(z), strict=True):
            close(actual, expected)


@pytest.mark.parametrize(("kind", "parts"), [("potential", 1), ("rotational", 1), ("helmholtz", 2)])
def test_a_field_has_one_part_for_its_gradient_and_one_for_its_rotation(kind, parts):
    fields = ridge_stack(kind=kind)
    snapshot = fields.at(torch.tensor(0.0))
    assert [part is not None for part in (snapshot.amplitude, snapshot.rotation)].count(True) == parts
    assert fields.at(torch.tensor(0.0)).parts(torch.randn(5, 3)).shape == (5, 2, parts, 3)


def test_rotations_are_sent_across_the_weights_and_gradients_along_them():
    snapshot = randomize(ridge_stack()).at(torch.tensor(1.0))
    close(snapshot.folded().outputs, snapshot.amplitude[..., None] * snapshot.weight + snapshot.rotation)
    close((snapshot.rotation * snapshot.weight).sum(-1), torch.zeros(2, 4), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dim", [4, 64, 256])
def test_a_step_of_adam_changes_rotations_by_as_large_a_share_as_gradients(dim):
    fields = ridge_stack(dim=dim, width=400)
    optimizer = torch.optim.Adam([fields.amplitude, fields.cross], lr=1e-4)
    before = fields.at(torch.tensor(0.0))
    sum((p * torch.randn_like(p)).sum() for p in (fields.amplitude, fields.cross)).backward()
    optimizer.step()
    after = fields.at(torch.tensor(0.0))
    # ρ has been projected, from D axes to the D - 1 across w.
    assert before.rotation.norm(dim=-1).square().mean().sqrt().item() == pytest.approx(
        0.1 * 400**-0.5 * (1 - 1 / dim) ** 0.5, rel=0.05
    )
    gradients, rotations = (
        (new - old).norm() / old.norm()
        for old, new in ((before.amplitude, after.amplitude), (before.rotation, after.rotation))
    )
    assert (rotations / gradients).item() == pytest.approx(1, abs=0.1)


def test_state_dicts_with_unscaled_rotations_are_scaled_when_loaded():
    fields = randomize(ridge_stack(dim=9))
    state = fields.state_dict()
    assert state._metadata[""]["version"] == 2
    old = copy.copy(state)
    old._metadata = {"": {"version": 1}}
    old["cross"] = state["cross"] / 3
    for start in (ridge_stack(dim=9), ridge_stack(dim=None)):
        start.load_state_dict(old)
        close(start.cross, fields.cross)
    close(old["cross"], state["cross"] / 3)
    again = ridge_stack(dim=9)
    again.load_state_dict(dict(state))  # As safetensors keep it, without versions.
    close(again.cross, fields.cross)


@pytest.mark.parametrize("activation", ["logcosh", "softplus"])
def test_convex_amplitudes_are_positive_at_all_times(activation):
    fields = randomize(ridge_stack(kind="potential", convex=True, activation=activation), scale=3.0)
    assert (fields.at(torch.linspace(0, 20, 50)).amplitude > 0).all()


@pytest.mark.parametrize("convex", [False, True])
def test_a_new_field_moves_points_only_a_little(convex):
    fields = ridge_stack(dim=16, width=128, kind="potential" if convex else "helmholtz", convex=convex)
    velocity = fields.at(torch.tensor(1.0)).velocity(torch.randn(64, 16), None)
    assert 0 < velocity.norm(dim=-1).mean() < 1


def test_a_lazy_stack_takes_its_size_from_materialize_and_keeps_it():
    fields = ridge_stack(dim=None)
    assert fields.dim is None
    fields.materialize(5)
    fields.materialize(7)
    assert fields.dim == 5
    assert fields.weight.shape == fields.cross.shape == (2, 4, 5)


def test_a_lazy_stack_loads_the_size_of_a_state_dict():
    source, target = ridge_stack(dim=5), ridge_stack(dim=None)
    target.load_state_dict(source.state_dict())
    assert target.dim == 5
    z, t = torch.randn(4, 5), torch.tensor(2.0)
    close(target.at(t).velocity(z, None), source.at(t).velocity(z, None), rtol=0, atol=0)


def test_a_lazy_stack_has_a_state_dict_and_a_copy():
    fields = ridge_stack(dim=None)
    assert set(fields.state_dict()) == set(ridge_stack(dim=3).state_dict())
    copied = copy.deepcopy(fields)
    copied.materialize(4)
    assert copied.dim == 4
    assert fields.dim is None


def test_a_lazy_stack_materializes_in_the_dtype_it_was_moved_to():
    fields = ridge_stack(dim=None).to(torch.float32)
    fields.materialize(3)
    assert fields.weight.dtype == torch.float32


@pytest.mark.unhooked
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": 0}, "expected K to be a whole number of at least 1, got 0"),
        ({"dim": 0}, "expected dim to be a whole number of at least 1, got 0"),
        ({"width": 0}, "expected width to be a whole number of at least 1, got 0"),
        ({"kind": "curly"}, "expected kind to be one of 'potential', 'rotational', 'helmholtz', got 'curly'"),
        ({"activation": "relu"}, "expected activation to be one of 'logcosh', 'cos', 'softplus', got 'relu'"),
        ({"frequencies": -1}, "expected frequencies to be a whole number of at least 0, got -1"),
        ({"context_dim": -1}, "expected context_dim to be a whole number of at least 0, got -1"),
        ({"convex": True}, "convex=True needs kind='potential'.*got kind='helmholtz'"),
        ({"convex": True, "kind": "potential", "activation": "cos"}, "a convex activation.*got.*activation='cos'"),
        ({"dim": 1}, "a rotation needs at least two axes, got dim=1"),
        ({"period": 0.0}, "positive period"),
    ],
)
def test_bad_sizes_and_choices_are_errors(options, message, request):
    if "curly" in message:
        request.getfixturevalue("without_hook")
    with pytest.raises(ValueError, match=message):
        ridge_stack(**options)


@pytest.mark.parametrize("name", ["fields", "dim", "width", "frequencies", "context_dim"])
@pytest.mark.parametrize("value", [2.5, "2", True])
def test_a_size_that_is_no_whole_number_is_an_error(name, value, without_hook):
    shown = {"fields": "K"}.get(name, name)
    with pytest.raises(ValueError, match=f"expected {shown} to be a whole number of at least [01], got {value!r}"):
        ridge_stack(**{name: value})


def test_a_lazy_rotation_refuses_a_line():
    with pytest.raises(ValueError, match="a rotation needs at least two axes, got dim=1"):
        ridge_stack(dim=None).materialize(1)


def test_context_is_required_exactly_where_the_stack_was_built_for_one():
    t = torch.tensor(0.0)
    with pytest.raises(ValueError, match=r"expected a context of shape \(\*, 2\), got none. Pass context="):
        ridge_stack(context_dim=2).at(t)
    with pytest.raises(ValueError, match="got a context but was built without one. Build it with context_dim="):
        ridge_stack().at(t, torch.randn(4, 2))
    with pytest.raises(ValueError, match=r"expected a context of shape \(\*, 2\), got \(4, 3\)"):
        ridge_stack(context_dim=2).at(t, torch.randn(4, 3))
