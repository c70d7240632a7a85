"""Switches of the test run: two host devices, x64, and strict types where kernels are tested.

XLA reads its flags once, so they are set before jax is imported. The platform is the CPU unless
``DIFFJAX_TEST_PLATFORM`` names another.
"""

import gc
import os

_FLAGS = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{_FLAGS} --xla_force_host_platform_device_count=2"
os.environ["JAX_PLATFORMS"] = os.environ.get("DIFFJAX_TEST_PLATFORM", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_enable_x64", True)
hypothesis.settings.register_profile(
    "diffjax", deadline=None, derandomize=True, max_examples=20, print_blob=True
)
hypothesis.settings.load_profile("diffjax")


@pytest.fixture(scope="module", autouse=True)
def _programs_are_dropped():
    """Compiled programs of a module go with it: each holds memory maps, and Linux allows 65,530
    per process, beyond which the next compilation ends in a segmentation fault."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def strict():
    """No silent dtype promotion inside the test: float32 that meets float64 is an error."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def key():
    """A fixed typed key; tests fold in a number of their own where they need several."""
    return jax.random.key(20240215)
