"""Correlations of changes against matrices, constructed signs and repeated draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax.observables import correlations


def signs(key, rows, flips):
    """Products of independent signs of the ancestors on a binary tree of three levels."""
    total = np.ones((rows, 8))
    for height, p in enumerate(flips):
        drawn = jax.random.bernoulli(jax.random.fold_in(key, height), p, (rows, 8 >> height))
        total *= np.repeat(np.where(drawn, -1, 1), 2**height, axis=1)
    return total


def test_estimates_equal_those_of_the_covariance_matrix(key):
    changes = signs(key, 50, (0.2, 0.3, 0.1, 0.4))
    found = correlations.tree_correlation(changes, 2)
    covariance = np.cov(changes.T, bias=True)
    chi = covariance.sum() / np.trace(covariance)
    np.testing.assert_allclose(found.susceptibility.mean, chi, rtol=1e-12)
    np.testing.assert_allclose(correlations.susceptibility(changes).mean, chi, rtol=1e-12)
    index = np.arange(8)
    height = sum((index[:, None] >> k) != (index >> k) for k in range(3))
    shells = [np.cov(changes.T)[height == k].mean() for k in range(4)]
    np.testing.assert_allclose(found.by_height.mean, shells, atol=1e-12)
    length = np.sum(covariance * 2.0**height) / covariance.sum()
    np.testing.assert_allclose(found.length.mean, length, rtol=1e-10)


def test_signs_that_are_known(key):
    """Leaves of a common sign s_k at height k: the covariance is a product of variances."""
    rows, flips = 100_000, (0.2, 0.3, 0.1, 0.4)
    found = correlations.tree_correlation(signs(key, rows, flips), 2)
    # E of a product of signs is the product of 1 - 2p; a shared sign drops out of the pair
    means = 1 - 2 * np.array(flips)
    expected = [
        np.prod(means[:k] ** 2) * (1 - np.prod(means[k:] ** 2)) for k in range(4)
    ]  # fmt: skip
    distance = (np.asarray(found.by_height.mean) - expected) / np.asarray(found.by_height.error)
    assert np.all(np.abs(distance) < 4)
    chi = np.sum(8 * np.array([1, 1, 2, 4]) * expected) / (8 * expected[0])
    assert abs(found.susceptibility.mean - chi) < 4 * found.susceptibility.error


def test_errors_are_those_of_repetitions(key):
    def one(key):
        total = jnp.ones((400, 8))
        for height, p in enumerate((0.2, 0.3, 0.1, 0.4)):
            drawn = jax.random.bernoulli(jax.random.fold_in(key, height), p, (400, 8 >> height))
            total = total * jnp.repeat(jnp.where(drawn, -1, 1), 2**height, axis=1)
        return correlations.tree_correlation(total, 2)

    found = jax.jit(jax.vmap(one))(jax.random.split(key, 400))
    for estimate in (found.susceptibility, found.length, found.by_height):
        ratio = np.std(estimate.mean, axis=0) / np.mean(estimate.error, axis=0)
        # 400 repetitions: the spread is known to 3.5%
        np.testing.assert_allclose(ratio, 1, atol=0.14)


def test_limits(key):
    alone = 2.0 * jax.random.bernoulli(key, 0.3, (50_000, 9)) - 1
    found = correlations.tree_correlation(alone, 3)
    assert abs(found.susceptibility.mean - 1) < 4 * found.susceptibility.error
    together = jnp.repeat(alone[:, :1], 9, axis=1)
    found = correlations.tree_correlation(together, 3)
    assert found.susceptibility.mean == pytest.approx(9, rel=1e-12)
    assert found.length.mean == pytest.approx((1 + 2 * 3 + 6 * 9) / 9, rel=1e-12)
    nothing = correlations.tree_correlation(jnp.ones((10, 9)), 3)
    assert np.isnan(nothing.susceptibility.mean)
    assert np.isnan(nothing.length.mean)
    assert np.all(nothing.by_height.mean == 0)


@given(st.integers(0, 1000), st.floats(-3, 3), st.floats(0.2, 4))
def test_susceptibility_ignores_units_and_offsets(seed, offset, unit):
    changes = np.random.default_rng(seed).choice([-1.0, 1.0], (20, 4))
    first = correlations.susceptibility(changes)
    second = correlations.susceptibility(offset + unit * changes)
    np.testing.assert_allclose(first.mean, second.mean, rtol=1e-9)
    np.testing.assert_allclose(first.error, second.error, rtol=1e-9)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"changes has shape \(4,\)"):
        correlations.susceptibility(np.ones(4))
    with pytest.raises(ValueError, match="6 leaves, which is no power of branching=2"):
        correlations.tree_correlation(np.ones((3, 6)), 2)


def test_half_precision_is_summed_in_single(key):
    changes = signs(key, 4000, (0.2, 0.3, 0.1, 0.4))
    exact = correlations.tree_correlation(changes, 2).susceptibility.mean
    found = correlations.tree_correlation(jnp.asarray(changes, jnp.bfloat16), 2)
    assert found.susceptibility.mean.dtype == jnp.float32
    np.testing.assert_allclose(found.susceptibility.mean, exact, rtol=1e-5)
