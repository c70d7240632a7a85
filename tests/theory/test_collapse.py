"""Collapse times and excess entropies: reference values, other ways to them, limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from theory import collapse

DIGITS_8 = {"rtol": 0, "atol": 6e-9}
DIGITS_4 = {"rtol": 0, "atol": 6e-5}
LARGE = (np.log(20000), 256, 16.0, 1.0)  # n = 20000, d = 256, centres of ones, unit variance


def test_reference_isotropic():
    dim, n, variance = np.array([16, 64, 32, 256]), [1000, 1000, 1000, 20000], [1, 0.25, 2, 1]
    times = collapse.gaussian_collapse_time(np.log(n), dim, np.array(variance))
    np.testing.assert_allclose(times, [0.27382823, 0.35588936, 0.77422868, 1.29878969], **DIGITS_8)
    variance, temperature = np.array([1, 0.4, 1]), np.array([1, 1, 0.5])
    times = collapse.gaussian_collapse_time(0.25, 1, variance, temperature)
    np.testing.assert_allclose(times, [0.46637606, 0.24016186, 0.70341456], **DIGITS_8)


def test_reference_spectrum():
    time = collapse.spectrum_collapse_time(np.log(1000), 1 / np.arange(1.0, 65.0))
    np.testing.assert_allclose(time, 0.10971140, **DIGITS_8)


def test_reference_two_levels():
    apart = collapse.two_level_collapse_times([0.05, 0.3], [0.5, 0.5])
    np.testing.assert_allclose(apart, [0.82951064, 0.23755298], **DIGITS_8)
    merged = collapse.two_level_collapse_times([0.3, 0.05], [0.5, 0.5])
    np.testing.assert_allclose(merged, [0.34317050, 0.34317050], **DIGITS_8)


def test_reference_trap_onset():
    times = collapse.trap_onset_time(np.array([0.05, 0.25, 0.1]), np.array([1, 1, 0.25]))
    np.testing.assert_allclose(times, [1.50420792, 0.72674858, 0.59925645], **DIGITS_8)
    below = collapse.gaussian_collapse_time(np.array([0.05, 0.25, 0.1]), 1, [1, 1, 0.25])
    assert (times > below).all()


def test_reference_mixture_curves():
    """Exact f, and the published simulation of f^e at n = 20000, d = 256."""
    t = np.array([2.904, 2.12, 1.336])
    alpha = LARGE[0] / LARGE[1]
    exact = collapse.mixture_excess_entropy(t, *LARGE) / alpha
    np.testing.assert_allclose(exact, [0.9328, 0.7497, 0.0044], **DIGITS_4)
    finite = collapse.mixture_empirical_excess_entropy(t, *LARGE) / alpha
    np.testing.assert_allclose(finite, [0.9328, 0.7501, 0.1865], **DIGITS_4)
    published, error = np.array([0.9326, 0.7498]), 0.0023
    assert (np.abs(published - exact[:2]) < 4 * error).all()
    # without the information about the class the curve is off by many standard errors
    wrong = collapse.gaussian_excess_entropy(t, LARGE[0], LARGE[1], 1.0) / alpha
    assert np.abs(published - wrong[:2]).max() > 20 * error
    # near the collapse time the finite-size form is an upper estimate, and much the nearer one
    assert exact[2] < 0.1597 < finite[2] < 0.1597 + 0.03


def test_reference_mixture_of_other_variance():
    t = collapse.gaussian_collapse_time(np.log(1000), 64, 0.25) * np.array([0.6, 1.0, 1.5])
    value = collapse.mixture_excess_entropy(t, np.log(1000), 64, 4.0, 0.25)
    np.testing.assert_allclose(value, [-0.0952754, -0.0108208, 0.0357002], rtol=0, atol=6e-8)


def test_gradient_by_the_standard_deviation_has_its_closed_form():
    log_n, dim, temperature = np.log(1000.0), 32.0, 0.7

    def time(sigma):
        return collapse.gaussian_collapse_time(log_n, dim, sigma**2, temperature)

    for sigma in (0.1, 0.63, 1.0, 4.0):
        odds = 1 / np.expm1(2 * log_n / dim) / temperature
        exact = sigma * odds / (1 + sigma**2 * odds)
        assert abs(jax.grad(time)(sigma) - exact) < 1e-9

    def by_root(sigma):
        return collapse.spectrum_collapse_time(log_n, jnp.full(32, sigma**2), temperature)

    odds = 1 / np.expm1(2 * log_n / dim) / temperature
    assert abs(jax.grad(by_root)(0.63) - 0.63 * odds / (1 + 0.63**2 * odds)) < 1e-9


@pytest.mark.parametrize("size", ["spectrum", "low rank", "spread", "huge n"])
def test_spectrum_against_brute_force(size):
    eigenvalues = {
        "spectrum": np.array([3.0, 0.4, 0.01]),
        "low rank": np.array([2.0, 0.0, 0.5, 0.0, 0.0]),
        "spread": np.logspace(-12, 6, 50),
        "huge n": np.array([3.0, 0.4, 0.01]),
    }[size]
    log_n, temperature = (400.0 if size == "huge n" else 4.0), 0.6

    def excess(x):  # x = log expm1(2t)
        logs = np.log(eigenvalues[eigenvalues > 0] / temperature)
        return 0.5 * np.sum(np.logaddexp(0, logs - x)) - log_n

    x = brentq(excess, -900, 60, xtol=1e-13)
    time = collapse.spectrum_collapse_time(log_n, eigenvalues, temperature)
    np.testing.assert_allclose(time, 0.5 * np.log1p(np.exp(x)), rtol=1e-11)
    entropy = collapse.spectrum_excess_entropy(time, log_n, eigenvalues, temperature)
    np.testing.assert_allclose(entropy, 0.0, atol=1e-10)


def test_spectrum_limits():
    isotropic = collapse.gaussian_collapse_time(4.0, 7, 0.4)
    equal = collapse.spectrum_collapse_time(4.0, np.full(7, 0.4))
    padded = collapse.spectrum_collapse_time(4.0, np.r_[np.full(7, 0.4), np.zeros(20)])
    rank = collapse.low_rank_collapse_time(4.0, 7, 0.4)
    np.testing.assert_allclose([equal, padded, rank], isotropic, rtol=1e-12)
    assert collapse.spectrum_collapse_time(4.0, np.zeros(3)) == 0
    slope = jax.grad(collapse.spectrum_collapse_time, 1)(4.0, jnp.array([2.0, 0.0, 0.5]))
    assert np.isfinite(slope).all()
    batch = collapse.spectrum_collapse_time(np.array([2.0, 4.0]), np.full((2, 7), 0.4))
    np.testing.assert_allclose(batch[1], isotropic, rtol=1e-12)


def test_isotropic_limits():
    assert collapse.gaussian_collapse_time(4.0, 7, 0.0) == 0
    few, many = 1e-8, 2000.0
    np.testing.assert_allclose(
        collapse.gaussian_collapse_time(few, 1, 1.0), -0.5 * np.log(2 * few), rtol=1e-8
    )
    tiny = collapse.gaussian_collapse_time(many, 8, 1.0)
    assert 0 < tiny < 1e-200
    assert np.isfinite(jax.grad(collapse.gaussian_collapse_time)(many, 8.0, 1.0))


def test_mixture_time_is_the_root_of_the_exact_curve():
    arguments = (np.log(50.0), 8.0, 2.0, 0.4, 0.6)
    time = collapse.mixture_collapse_time(*arguments)
    root = brentq(lambda t: float(collapse.mixture_excess_entropy(t, *arguments)), 0.01, 3)
    np.testing.assert_allclose(time, root, rtol=1e-10)


def test_mixture_time_lies_between_its_limits():
    log_n, dim, variance = np.log(50.0), 8.0, 0.4
    together = collapse.mixture_collapse_time(log_n, dim, 0.0, variance)
    distant = collapse.mixture_collapse_time(log_n, dim, 100.0, variance)
    single = collapse.gaussian_collapse_time(log_n, dim, variance)
    halved = collapse.separated_mixture_collapse_time(log_n, dim, variance)
    np.testing.assert_allclose(together, single, rtol=1e-12)
    np.testing.assert_allclose(distant, halved, rtol=1e-12)
    # forgetting n/2 is not a small mistake
    assert distant > 1.15 * single
    assert np.isnan(collapse.separated_mixture_collapse_time(np.log(2.0), dim, variance))


def test_mixture_entropy_by_integrating_the_density():
    """f = alpha + 1/2 + log(2 pi Delta)/2 - s in one dimension, with s by adaptive integration."""
    t, log_n, mean_norm, variance, temperature = 0.5, 3.0, 1.5, 0.4, 0.6
    noise = -temperature * np.expm1(-2 * t)
    spread, center = noise + variance * np.exp(-2 * t), mean_norm * np.exp(-t)

    def density(x):
        both = np.exp(-((x - center) ** 2) / (2 * spread)) + np.exp(
            -((x + center) ** 2) / (2 * spread)
        )
        return both / (2 * np.sqrt(2 * np.pi * spread))

    entropy = quad(lambda x: -density(x) * np.log(density(x)), -9, 9, epsabs=1e-13, limit=200)[0]
    expected = log_n + 0.5 + 0.5 * np.log(2 * np.pi * noise) - entropy
    value = collapse.mixture_excess_entropy(t, log_n, 1, mean_norm, variance, temperature)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_entropy_at_the_ends_of_time():
    value = collapse.mixture_excess_entropy(np.array([0.0, np.inf]), 3.0, 8, 2.0, 0.4)
    np.testing.assert_allclose(value, [-np.inf, 3 / 8], rtol=1e-14)
    atoms = collapse.mixture_excess_entropy(0.0, 3.0, 8, 2.0, 0.0)
    np.testing.assert_allclose(atoms, (3 - np.log(2)) / 8, rtol=1e-12)
    value = collapse.spectrum_excess_entropy(np.inf, 3.0, np.array([1.0, 0.0]))
    np.testing.assert_allclose(value, 1.5, rtol=1e-14)


def test_collapse_before_speciation():
    """With the isotropic time: t_C < t_S iff n^(2/d) - 1 > variance / (M^2 - 1)."""
    log_n, dim, mean_norm = 4.0, 8.0, np.linspace(1.05, 4, 30)
    collapsed = collapse.gaussian_collapse_time(log_n, dim, 0.4) < np.log(mean_norm)
    np.testing.assert_array_equal(collapsed, np.expm1(2 * log_n / dim) > 0.4 / (mean_norm**2 - 1))


def test_two_levels_against_roots():
    alphas, variances, temperature = np.array([0.04, 0.25]), np.array([0.7, 0.3]), 0.6

    def informations(t):
        noise, signal = -temperature * np.expm1(-2 * t), np.exp(-2 * t) * variances
        return (
            0.5 * np.log1p(signal[0] / (noise + signal[1])),
            0.5 * np.log1p(signal[1] / noise),
        )

    first = brentq(lambda t: informations(t)[0] - alphas[0], 1e-6, 9)
    second = brentq(lambda t: informations(t)[1] - alphas[1], 1e-6, 9)
    times = collapse.two_level_collapse_times(alphas, variances, temperature)
    np.testing.assert_allclose(times, [first, second], rtol=1e-10)
    swapped = collapse.two_level_collapse_times(alphas[::-1], variances, temperature)
    single = brentq(lambda t: sum(informations(t)) - alphas.sum(), 1e-6, 9)
    np.testing.assert_allclose(swapped, [single, single], rtol=1e-10)


def test_spins():
    alpha = np.array([0.01, 0.3, 0.69, np.log(2), 2.0])
    times = collapse.spin_collapse_time(alpha, 0.6)
    assert (times[:3] > 0).all()
    np.testing.assert_array_equal(times[3:], 0)
    snr = 1 / (0.6 * np.expm1(2 * times[:3]))

    def information(s):
        def missing(z):
            density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
            return density * np.logaddexp(0, -2 * (s + np.sqrt(s) * z))

        return np.log(2) - quad(missing, -12, 12, epsabs=1e-13, limit=300)[0]

    np.testing.assert_allclose([information(s) for s in snr], alpha[:3], rtol=1e-9)
