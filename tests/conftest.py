"""What all tests share: the backends, the hypothesis profile, the skip of GPU tests where there is no GPU."""

import os

import fake_cupy
import pytest
from hypothesis import HealthCheck, settings

from tinytransformer.backend import BackendError, use_backend

collect_ignore_glob = ["make_*.py"]  # scripts that make fixtures, with libraries the tests do without

fake_cupy.install()
settings.register_profile(
    "tests",
    deadline=None,  # the machine is shared: time says nothing
    derandomize="CI" in os.environ,
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("tests")


def pytest_collection_modifyitems(items):
    """Skip tests marked ``gpu`` for the reason that the backend itself gives."""
    on_gpu = [item for item in items if item.get_closest_marker("gpu")]
    try:
        if on_gpu:
            with use_backend("cupy"):
                pass
    except BackendError as error:
        for item in on_gpu:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(params=["numpy", "fake", pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request):
    """Name of a backend on which new arrays are born during the test; the test runs once on each."""
    with use_backend(request.param):
        yield request.param
