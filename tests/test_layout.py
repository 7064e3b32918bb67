import pytest
import torch
from reference import close

from torchflowfield import FlowBank, layout
from torchflowfield.layout import columns, rows, split, transposed_product, units_last


@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_rows_undo_columns(batch):
    batch, x = torch.Size(batch), torch.randn(*batch, 5, 2)
    assert columns(x, batch).shape == (5, 2, batch.numel())
    close(rows(columns(x, batch), batch), x)


def test_factors_of_all_samples_are_one_column():
    x = torch.randn(5, 2)
    close(columns(x, torch.Size((2, 3))), x[..., None])


def test_with_units_last_samples_come_first():
    x = torch.randn(2, 3, 5, 2)
    close(units_last(x, torch.Size((2, 3))), x.flatten(0, 1))
    close(units_last(x[0, 0], torch.Size((2, 3))), x[:1, 0])


@pytest.mark.parametrize("parts", [1, 2])
def test_controls_split_into_those_of_gradients_and_of_rotations(parts):
    controls, batch = torch.randn(2, 3, 5, parts), torch.Size((2, 3))
    for lay, shape, samples_first in ((columns, (5, 1, 6), (2, 0, 1)), (units_last, (6, 5, 1), (0, 1, 2))):
        gradient, rotation = split(controls, batch, lay)
        assert gradient.shape == rotation.shape == shape
        close(gradient.permute(samples_first).reshape(2, 3, 5), controls[..., 0])
        close(rotation.permute(samples_first).reshape(2, 3, 5), controls[..., -1])
        assert split(None, batch, lay) == (None, None)


@pytest.mark.parametrize("small", [0, layout._SMALL])
def test_rows_can_be_differentiated_in_every_way(small, monkeypatch):
    monkeypatch.setattr(layout, "_SMALL", small)
    x = torch.randn(5, 2, 6, requires_grad=True)

    def samples_first(x):
        return rows(x, torch.Size((6,)))

    assert torch.autograd.gradcheck(samples_first, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(samples_first, x)
    close(torch.func.vmap(samples_first)(x.detach()[None]), samples_first(x.detach())[None])


@pytest.mark.parametrize("small", [0, layout._SMALL])
def test_products_can_be_differentiated_in_every_way(small, monkeypatch):
    monkeypatch.setattr(layout, "_SMALL", small)
    weight, units = torch.randn(2, 4, 3, requires_grad=True), torch.randn(2, 4, 5, requires_grad=True)
    close(transposed_product(weight, units), torch.einsum("khd,khn->kdn", weight, units))
    assert torch.autograd.gradcheck(transposed_product, (weight, units), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(transposed_product, (weight, units))
    for frozen in weight, units:
        frozen.requires_grad_(False)
        assert torch.autograd.gradcheck(transposed_product, (weight, units))
        frozen.requires_grad_(True)


def test_the_gradient_of_weights_lies_in_memory_as_they_do():
    weight, units = torch.randn(2, 80, 70, requires_grad=True), torch.randn(2, 80, 5)
    (gradient,) = torch.autograd.grad(transposed_product(weight, units).sum(), weight)
    assert gradient.stride() == weight.stride()


@pytest.mark.parametrize(("shape", "node"), [((4, 5, 6), False), ((4, 50, 60), True)])
def test_only_large_rows_have_a_node_of_their_own(shape, node):
    x = torch.randn(shape, requires_grad=True)
    y = rows(x, x.shape[-1:])
    assert ("SamplesFirst" in y.grad_fn.next_functions[0][0].name()) is node
    y.sum().backward()
    close(x.grad, torch.ones_like(x))


def test_nested_forward_mode_keeps_its_tangents_at_any_size():
    bank = FlowBank(2, 3, width=8).double()
    z = torch.randn(layout._SMALL // 2, 3, dtype=torch.float64)

    def second(y):
        def along(f):
            return lambda x: torch.func.jvp(f, (x,), (torch.ones_like(x),))[1]

        return along(along(lambda x: bank.jet(0.3, x).potential))(y)

    close(second(z)[:4], second(z[:4]))
    assert second(z).abs().min() > 0
