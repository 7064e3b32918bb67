import pytest
import torch

iio = pytest.importorskip("imageio.v3")
pytest.importorskip("matplotlib")

from torchflowfield import FlowBank, PotentialFlowField, RotationalFlowField  # noqa: E402
from torchflowfield.viz import (  # noqa: E402
    coefficients_over_time,
    phase_portrait,
    save_gif,
    traversal_grid,
    usage_heatmap,
)


def test_a_grid_has_a_row_per_sample_and_a_column_per_frame(tmp_path):
    frames = torch.rand(4, 3, 3, 5, 6)
    grid = traversal_grid(frames, tmp_path / "new" / "grid.png", zoom=2)
    assert grid.shape == (3 * (10 + 2), 4 * (12 + 2), 3)
    expected = (frames[2, 1] * 255).round().to(torch.uint8).permute(1, 2, 0)
    cell = grid[12:22, 28:40][::2, ::2]
    assert torch.equal(torch.as_tensor(cell.copy()), expected)
    assert (iio.imread(tmp_path / "new" / "grid.png") == grid).all()


def test_grey_frames_are_drawn_in_grey():
    grid = traversal_grid(torch.rand(2, 1, 1, 4, 4), zoom=1)
    assert (grid[..., 0] == grid[..., 1]).all()


def test_a_gif_bounces_and_loops_for_ever(tmp_path):
    frames = torch.linspace(0, 1, 4)[:, None, None, None, None].expand(4, 2, 3, 8, 8)
    save_gif(frames, tmp_path / "a.gif", zoom=1)
    movie = iio.imread(tmp_path / "a.gif")
    assert movie.shape[0] == 6
    assert iio.immeta(tmp_path / "a.gif")["loop"] == 0
    save_gif(frames, tmp_path / "b.gif", zoom=1, bounce=False)
    assert iio.imread(tmp_path / "b.gif").shape[0] == 4


def test_what_is_no_image_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="expected frames of shape"):
        traversal_grid(torch.rand(2, 1, 2, 4, 4))


@pytest.mark.parametrize(("field", "label"), [(PotentialFlowField, "potential"), (RotationalFlowField, "speed")])
def test_a_phase_portrait_shows_the_potential_or_the_speed(field, label):
    ax = phase_portrait(field(4, 8), torch.zeros(4), torch.eye(4)[:2], resolution=8)
    assert ax.figure.axes[1].get_ylabel() == label


def test_coefficients_and_usage_are_drawn_with_their_names(tmp_path):
    figure = coefficients_over_time(torch.rand(6, 2), torch.rand(6, 2), labels=["turn", "grow"])
    assert [ax.get_ylabel() for ax in figure.axes] == ["turn", "grow"]
    heatmap = usage_heatmap(torch.rand(3, 2), factors=["turn", "grow"])
    assert [tick.get_text() for tick in heatmap.axes[0].get_xticklabels()] == ["turn", "grow"]
    heatmap.savefig(tmp_path / "h.png")


def test_pictures_take_tensors_with_gradients_and_coefficients_of_any_size():
    axes = torch.eye(3)[:2].requires_grad_()
    phase_portrait(PotentialFlowField(3), torch.zeros(3), axes)
    figure = coefficients_over_time(torch.tensor([[-1.5], [3.0]]), torch.ones(2, 1, requires_grad=True))
    low, high = figure.axes[0].get_ylim()
    assert low < -1.5
    assert high > 3


def test_pictures_of_half_precision_and_of_bytes(without_hook):
    field = PotentialFlowField(4, width=8).bfloat16()
    axes = torch.eye(4, dtype=torch.bfloat16)[:2]
    assert phase_portrait(field, torch.zeros(4, dtype=torch.bfloat16), axes, resolution=8).collections
    coefficients_over_time(torch.rand(5, 2, dtype=torch.bfloat16), torch.rand(5, 2))
    with pytest.raises(TypeError, match="expected floating-point frames.*got torch.uint8"):
        traversal_grid(torch.zeros(2, 1, 3, 4, 4, dtype=torch.uint8))


def test_pictures_of_no_frames_or_of_no_size_are_errors(tmp_path):
    frames, path = torch.rand(2, 1, 3, 4, 4), tmp_path / "a.gif"
    for wrong in ({"zoom": 0}, {"fps": 0.0}):
        with pytest.raises(ValueError, match="expected (zoom to be a whole number of at least 1|fps above 0), got 0"):
            save_gif(frames, path, **wrong)
    with pytest.raises(ValueError, match="expected frames of shape"):
        save_gif(frames[:0], path)
    with pytest.raises(ValueError, match="expected zoom to be a whole number"):
        traversal_grid(frames, zoom=0)
    assert not path.exists()


def test_a_phase_portrait_takes_a_context_and_no_bank(without_hook):
    field, axes = PotentialFlowField(4, context_dim=2), torch.eye(4)[:2]
    assert phase_portrait(field, torch.zeros(4), axes, context=torch.ones(2)).collections
    with pytest.raises(TypeError, match=r"expected a FlowField, got FlowBank. Of a FlowBank pass one: bank\[k\]"):
        phase_portrait(FlowBank(2, 4), torch.zeros(4), axes)
