"""Changes of masked strings: independent sites, repeated symbols, another enumeration."""

from itertools import product

import jax
import numpy as np
import pytest

from theory import change_correlations as changes

EPSILON = np.array([0.3, 0.65])


def test_independent_sites():
    strings = np.array(list(product(range(3), repeat=4)))
    found = changes.masked_change_moments(strings, EPSILON)
    kept = 1 - EPSILON * 2 / 3
    np.testing.assert_allclose(found.mean, np.repeat(2 * kept - 1, 4).reshape(2, 4), rtol=1e-12)
    variance = 4 * kept * (1 - kept)
    np.testing.assert_allclose(
        found.covariance, variance[:, None, None] * np.eye(4), rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(changes.change_susceptibility(found.covariance), 1, rtol=1e-12)
    expected = np.stack([variance, 0 * variance, 0 * variance], -1)
    np.testing.assert_allclose(
        changes.covariance_by_height(found.covariance, 2), expected, atol=1e-14
    )


def test_one_symbol_repeated_changes_as_a_whole():
    strings = np.repeat(np.arange(5)[:, None], 4, axis=1)
    found = changes.masked_change_moments(strings, EPSILON)
    np.testing.assert_allclose(found.mean[:, 0], 1 - 2 * EPSILON**4 * 0.8, rtol=1e-12)
    np.testing.assert_allclose(changes.change_susceptibility(found.covariance), 4, rtol=1e-12)


def test_another_enumeration_of_random_strings():
    """Sums over data, masked sets and answers, one by one."""
    rng = np.random.default_rng(7)
    strings = np.unique(rng.integers(0, 3, (12, 4)), axis=0)
    epsilon, first, second = 0.4, np.zeros(4), np.zeros((4, 4))
    for a in strings:
        for mask in product([False, True], repeat=4):
            mask = np.asarray(mask)
            weight = np.prod(np.where(mask, epsilon, 1 - epsilon)) / len(strings)
            answers = [b for b in strings if np.all((a == b) | mask)]
            for b in answers:
                sign = np.where(a == b, 1, -1)
                first += weight / len(answers) * sign
                second += weight / len(answers) * np.outer(sign, sign)
    found = changes.masked_change_moments(strings, epsilon)
    np.testing.assert_allclose(found.mean, first, rtol=1e-12)
    np.testing.assert_allclose(found.covariance, second - np.outer(first, first), atol=1e-13)


def test_ends_and_derivatives():
    strings = np.array([[0, 0, 1, 2], [0, 1, 1, 0], [2, 0, 0, 1], [2, 2, 1, 1]])
    found = changes.masked_change_moments(strings, np.array([0.0, 1.0]))
    np.testing.assert_allclose(found.mean[0], 1)
    assert np.isnan(changes.change_susceptibility(found.covariance)[0])
    # everything masked: datum and draw are independent
    same = np.mean(strings[:, None] == strings, axis=(0, 1))
    np.testing.assert_allclose(found.mean[1], 2 * same - 1, rtol=1e-12)

    def chi(epsilon):
        moments = changes.masked_change_moments(strings, epsilon)
        return changes.change_susceptibility(moments.covariance)

    value, slope = jax.jit(jax.vmap(jax.value_and_grad(chi)))(EPSILON)
    np.testing.assert_allclose(value, chi(EPSILON), rtol=1e-12)
    step = 1e-5
    # central difference: error of order step squared
    difference = (chi(EPSILON + step) - chi(EPSILON - step)) / (2 * step)
    np.testing.assert_allclose(slope, difference, rtol=1e-7)


def test_single_precision_stays_single(strict):
    strings = np.array([[0, 0, 1, 2], [0, 1, 1, 0], [2, 0, 0, 1], [2, 2, 1, 1]])
    exact = changes.masked_change_moments(strings, EPSILON)
    found = changes.masked_change_moments(strings, EPSILON.astype(np.float32))
    heights = changes.covariance_by_height(found.covariance, 2)
    assert {v.dtype for v in (*found, heights)} == {np.dtype("float32")}
    np.testing.assert_allclose(found.covariance, exact.covariance, atol=1e-6)


def test_integers_are_averaged_as_numbers():
    found = changes.covariance_by_height([[2, 1], [1, 3]], 2)
    np.testing.assert_allclose(found, [2.5, 1.0])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\]"):
        changes.masked_change_moments(np.zeros((2, 3), int), 1.2)
    with pytest.raises(ValueError, match=r"\(0, 3\), expected \(N, n\)"):
        changes.masked_change_moments(np.zeros((0, 3), int), 0.2)
    with pytest.raises(ValueError, match="branching must be >= 2"):
        changes.covariance_by_height(np.eye(3), 1)
    with pytest.raises(ValueError, match=r"\(2, 3\), expected \(..., n, n\)"):
        changes.change_susceptibility(np.ones((2, 3)))
    with pytest.raises(ValueError, match="n <= 12 sites"):
        changes.masked_change_moments(np.zeros((2, 13), int), 0.2)
    with pytest.raises(ValueError, match="3 leaves, no power of branching=2"):
        changes.covariance_by_height(np.eye(3), 2)
