"""Normals are those of JAX, whichever way they are made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax.noise import _short_way, normal

KEY = jax.random.key(2**40 + 17)  # both words of the key differ from zero


@pytest.mark.parametrize("shape", [(), (0,), (7,), (33, 5), (3, 4, 129)])
def test_bits_of_jax(shape):
    assert _short_way(KEY, 1, jnp.dtype("float32")) == (jax.default_backend() == "cpu")
    got, want = normal(KEY, shape, jnp.float32), jax.random.normal(KEY, shape, jnp.float32)
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(
        jax.jit(normal, static_argnums=(1, 2))(KEY, shape, "float32"), want
    )


def test_rows_of_a_batch_of_keys():
    keys = jax.random.split(KEY, 3)
    got = jax.vmap(lambda key: normal(key, (11,), jnp.float32))(keys)
    np.testing.assert_array_equal(got, [jax.random.normal(k, (11,), jnp.float32) for k in keys])


@pytest.mark.parametrize(
    ("key", "dtype"),
    [
        (KEY, "float64"),
        (KEY, "bfloat16"),
        (jax.random.PRNGKey(5), "float32"),
        (jax.random.key(5, impl="rbg"), "float32"),
    ],
)
def test_other_keys_and_dtypes_fall_back(key, dtype):
    assert not _short_way(key, 1, jnp.dtype(dtype))
    got, want = normal(key, (9,), dtype), jax.random.normal(key, (9,), dtype)
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want)


def test_a_generator_that_is_not_partitionable_falls_back():
    with jax.threefry_partitionable(False):
        assert not _short_way(KEY, 1, jnp.dtype("float32"))
        got, want = normal(KEY, (9,), jnp.float32), jax.random.normal(KEY, (9,), jnp.float32)
    np.testing.assert_array_equal(got, want)
