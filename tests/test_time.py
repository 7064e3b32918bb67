import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import close

from torchflowfield import FourierTime


@given(st.integers(1, 6), st.floats(1.0, 100.0), st.sampled_from([(), (3,), (2, 3)]))
def test_the_derivative_is_that_of_autograd(frequencies, period, shape):
    time = FourierTime(frequencies, period=period)
    t = torch.randn(shape) * 10
    _, derivative = torch.func.jvp(time, (t,), (torch.ones_like(t),))
    close(time.derivative(t), derivative)


def test_features_are_harmonics_of_the_period():
    features = FourierTime(2, period=8.0)(torch.tensor(1.0))
    half = 0.5**0.5
    close(features, torch.tensor([half, 1.0, half, 0.0]))


def test_features_repeat_after_one_period():
    time, t = FourierTime(3, period=7.5), torch.randn(5)
    close(time(t + 7.5), time(t))


def test_the_number_of_features_is_the_size_of_the_last_axis():
    time = FourierTime(5)
    assert time(torch.zeros(2, 3)).shape == (2, 3, time.features)


def test_the_frequencies_move_with_the_module():
    time = FourierTime(2).to(torch.float32)
    assert time(torch.zeros(3, dtype=torch.float32)).dtype == torch.float32
    assert "omega" in time.state_dict()


def test_no_frequency_is_an_error():
    with pytest.raises(ValueError, match="frequencies to be a whole number of at least 1, got 0"):
        FourierTime(0)


@pytest.mark.parametrize("period", [0.0, -1.0, float("nan")])
def test_a_period_that_is_not_positive_is_an_error(period):
    with pytest.raises(ValueError, match="positive period in frames"):
        FourierTime(2, period=period)
