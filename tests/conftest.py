import pytest
import torch
from built_site import address, browser, page  # noqa: F401, for the tests of the site
from hypothesis import HealthCheck, settings

settings.register_profile(
    "torchflowfield",
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("torchflowfield")


def pytest_collection_modifyitems(items):
    for item in items:
        if "without_hook" in item.fixturenames:
            item.add_marker("unhooked")


@pytest.fixture(autouse=True)
def float64_and_a_fixed_seed():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(before)


@pytest.fixture
def without_hook(request):
    """For errors that the jaxtyping hook, where it is on, raises in its own words."""
    if request.config.getoption("--jaxtyping-packages", default=None):
        pytest.skip("the jaxtyping hook reports this mistake before the package does")


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.fixture
def tracing_alone(monkeypatch):
    """Traces forwards and backwards as always, and leaves out the machine code, which takes long."""
    compile_ = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda function, **options: compile_(function, backend="aot_eager", **options)
    )
