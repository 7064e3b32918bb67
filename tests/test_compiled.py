import pytest
import torch
from reference import close, compiled_graphs, randomize

from torchflowfield import FlowBank, ODEStepper
from torchflowfield.compiled import pieces


@pytest.mark.parametrize("steps", range(70))
def test_pieces_sum_to_the_steps_and_come_from_a_short_list(steps):
    assert sum(pieces(steps)) == steps
    assert set(pieces(steps)) <= {0, 1, 2, 4, 8, 16, 32}


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("reverse", [False, True])
def test_many_lengths_share_few_graphs_and_give_the_eager_path(tracing_alone, reverse):
    bank = randomize(FlowBank(2, 3, width=4), 0.3)
    stepper, eager, z = ODEStepper(bank, compile=True), ODEStepper(bank), torch.randn(5, 3)
    for steps in (5, 3, 6, 7, 5, 3):
        g = torch.rand(steps, 5, 2)
        path, expected = (s(z, g, steps, reverse=reverse, start=1.0) for s in (stepper, eager))
        for name, value in expected._asdict().items():
            if value is not None:
                close(getattr(path, name), value)
    # The first length, pieces of 4, 2 and 1 steps, and one for pieces that start where another ended.
    known = compiled_graphs()
    assert known <= 5
    for steps in (7, 3, 5, 6):
        stepper(torch.randn(5, 3), torch.rand(steps, 5, 2), steps, reverse=reverse, start=2.5)
    assert compiled_graphs() == known


@pytest.mark.compile
@pytest.mark.usefixtures("fresh_compiler")
def test_no_options_are_options_too(tracing_alone):
    ODEStepper(FlowBank(2, 3, width=4), compile={})(torch.randn(5, 3), torch.rand(2), 2)
    assert compiled_graphs() == 1
