import pytest
import torch
from reference import close

from torchflowfield.layout import columns, rows, split


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_rows_undo_columns(batch):
    batch, x = torch.Size(batch), torch.randn(*batch, 5, 2)
    assert columns(x, batch).shape == (5, 2, batch.numel())
    close(rows(columns(x, batch), batch), x)


def test_factors_of_all_samples_are_one_column():
    x = torch.randn(5, 2)
    close(columns(x, torch.Size((2, 3))), x[..., None])


@pytest.mark.parametrize("parts", [1, 2])
def test_controls_split_into_those_of_gradients_and_of_rotations(parts):
    controls = torch.randn(2, 3, 5, parts)
    gradient, rotation = split(controls)
    assert gradient.shape == rotation.shape == (5, 1, 6)
    close(gradient[:, 0].T.reshape(2, 3, 5), controls[..., 0])
    close(rotation[:, 0].T.reshape(2, 3, 5), controls[..., -1])
    assert split(None) == (None, None)


def test_rows_can_be_differentiated_in_every_way():
    x = torch.randn(5, 2, 6, requires_grad=True)

    def samples_first(x):
        return rows(x, torch.Size((6,)))

    assert torch.autograd.gradcheck(samples_first, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(samples_first, x)
    close(torch.func.vmap(samples_first)(x.detach()[None]), samples_first(x.detach())[None])
