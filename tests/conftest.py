"""Switches of the test run: two host devices, x64, and strict types where kernels are tested."""

import os

os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("JAX_PLATFORMS", "cpu") if not os.environ.get("DIFFJAX_TEST_PLATFORM") else None
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)
hypothesis.settings.register_profile(
    "diffjax", deadline=None, derandomize=True, max_examples=20, print_blob=True
)
hypothesis.settings.load_profile("diffjax")


@pytest.fixture
def strict():
    """No silent dtype promotion inside the test: float32 that meets float64 is an error."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture
def key():
    """A fixed typed key; tests fold in a number of their own where they need several."""
    return jax.random.key(20240215)
