import pytest
import torch
from reference import LinearField, close

from torchflowfield import FlowBank, FlowField, PotentialFlowField
from torchflowfield.interface import log_det_euler


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_a_field_of_ones_own_needs_only_a_forward(batch):
    matrix = torch.randn(3, 3)
    field, z = LinearField(matrix), torch.randn(*batch, 3)
    assert isinstance(field, FlowField)
    close(field.jacobian(0.0, z), matrix.expand(*batch, 3, 3))
    close(field.divergence(0.0, z), matrix.trace().expand(batch))


@pytest.mark.parametrize("step", [1.0, -0.5, 0.0])
def test_the_euler_volume_is_that_of_slogdet(step):
    matrix = torch.randn(3, 4, 4)
    close(log_det_euler(matrix, step), torch.linalg.slogdet(torch.eye(4) + step * matrix).logabsdet)


@pytest.mark.unhooked
@pytest.mark.parametrize(
    "make",
    [lambda: PotentialFlowField(4), lambda: LinearField(torch.eye(4)), lambda: FlowBank(2, 4).bind(torch.ones(2))],
)
def test_a_step_for_every_sample_is_refused(make, without_hook):
    field = make()
    with pytest.raises(ValueError, match=r"expected one step for all samples, got a tensor of shape \(4,\)"):
        field.log_det(0.0, torch.randn(4, 4), torch.rand(4))
    z, steps = torch.randn(4, 4), torch.tensor([0.1, 0.5, 1.0, 2.0])
    each = torch.stack([field.log_det(0.0, z, step)[n] for n, step in enumerate(steps)])
    close(field.log_det(0.0, z, steps[:, None, None]), each)


def test_the_euler_volume_of_a_bfloat16_jacobian_is_in_float32():
    matrix = torch.randn(3, 4, 4, dtype=torch.bfloat16)
    close(log_det_euler(matrix, 1.0), log_det_euler(matrix.float(), 1.0))
