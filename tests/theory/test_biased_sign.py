"""A biased sign behind noise: against adaptive integration, its inverse, and both ends."""

import itertools

import jax
import numpy as np
import pytest
from scipy.integrate import quad

from theory import biased_sign, channel

BIASES = np.array([0.0, 0.3, 1.29, 3.0])
RATIOS = np.array([1e-2, 0.7, 8.0, 40.0])


def integral(ratio, bias, known):
    """Average of ``known(own weight, other weight, field)`` over sign and noise."""
    total = 0.0
    for sign in (1, -1):
        weight, other = (1 / (1 + np.exp(-2 * s * sign * bias)) for s in (1, -1))

        def integrand(z, weight=weight, other=other):
            density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return density * known(weight, other, ratio + np.sqrt(ratio) * z)

        turns = np.clip([(c * bias - ratio) / np.sqrt(ratio) for c in (-1, 0, 1)], -11.9, 11.9)
        ends = np.unique([-12, *turns, 12])
        for a, b in itertools.pairwise(ends):
            total += weight * quad(integrand, a, b, epsabs=1e-15, limit=300)[0]
    return total


@pytest.fixture(scope="module")
def grid():
    return np.meshgrid(RATIOS, BIASES)


def test_information_against_integration(grid):
    def lost(weight, other, field):
        return -np.logaddexp(np.log(weight), np.log(other) - 2 * field)

    expected = np.vectorize(lambda s, h: integral(s, h, lost))(*grid)
    np.testing.assert_allclose(biased_sign.sign_information(*grid), expected, rtol=0, atol=1e-13)


def test_error_against_integration(grid):
    def variance(weight, other, field):
        own = 1 / (1 + other / weight * np.exp(-2 * field))
        return 4 * own * (1 - own)

    expected = np.vectorize(lambda s, h: integral(s, h, variance))(*grid)
    np.testing.assert_allclose(biased_sign.sign_mmse(*grid), expected, rtol=0, atol=1e-13)


def test_fair_sign():
    np.testing.assert_allclose(
        biased_sign.sign_information(RATIOS), channel.binary_information(RATIOS), atol=1e-15
    )
    np.testing.assert_allclose(
        biased_sign.sign_mmse(RATIOS), channel.binary_mmse(RATIOS), atol=1e-15
    )


def test_both_ends():
    ends = np.array([0.0, np.inf])
    entropy = biased_sign.sign_entropy(1.2)
    weight = 1 / (1 + np.exp(-2.4))
    direct = -weight * np.log(weight) - (1 - weight) * np.log1p(-weight)
    np.testing.assert_allclose(entropy, direct, rtol=1e-14)
    np.testing.assert_allclose(biased_sign.sign_information(ends, 1.2), [0, entropy], atol=1e-15)
    variance = 1 - np.tanh(1.2) ** 2
    np.testing.assert_allclose(biased_sign.sign_mmse(ends, 1.2), [variance, 0], atol=1e-15)
    slopes = jax.vmap(jax.grad(biased_sign.sign_information), (0, None))(ends, 1.2)
    np.testing.assert_allclose(slopes, [0.5 * variance, 0], atol=1e-15)
    small = biased_sign.sign_information(1e-10, 1.2)
    np.testing.assert_allclose(small, 0.5e-10 * variance, rtol=1e-9)


def test_inverse():
    """The ratio found has the information asked for, from tiny levels to the entropy itself."""
    entropy = np.asarray(biased_sign.sign_entropy(BIASES))[:, None]
    fractions = np.r_[1e-9, 1e-4, np.linspace(0.05, 0.95, 7), 1 - 1e-6, 1 - 1e-12]
    level = fractions * entropy
    ratio = biased_sign.snr_of_sign_information(level, BIASES[:, None])
    assert np.isfinite(ratio).all()
    found = biased_sign.sign_information(ratio, BIASES[:, None])
    np.testing.assert_allclose(found / entropy, level / entropy, rtol=0, atol=1e-14)
    np.testing.assert_allclose(found[:, 0], level[:, 0], rtol=1e-9)
    above = biased_sign.snr_of_sign_information([1.0, 1.001] * entropy, BIASES[:, None])
    np.testing.assert_array_equal(above, np.inf)


def test_inverse_beyond_its_range_has_no_slope():
    slopes = jax.grad(biased_sign.snr_of_sign_information, (0, 1))(0.7, 0.3)
    np.testing.assert_array_equal(slopes, 0)


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        (biased_sign.sign_information, -0.1, "ratio must be >= 0"),
        (biased_sign.sign_mmse, np.nan, "ratio=nan"),
        (biased_sign.snr_of_sign_information, 0.0, "level must be positive"),
    ],
)
def test_bad_numbers_are_refused(function, value, message):
    with pytest.raises(ValueError, match=message):
        function(value)
