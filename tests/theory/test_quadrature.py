"""Quadrature rules against adaptive integration and scipy's distributions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import ndtr

from theory import quadrature


def gaussian_average(f, kappa):
    """Adaptive integration with the layer at z = -kappa as a breakpoint."""
    ends = sorted({-12.0, max(-kappa - 2, -12.0), max(-kappa, -12.0), max(2 - kappa, -12.0), 12.0})

    def weighted(z):
        return f(z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)

    pieces = [
        quad(weighted, a, b, epsabs=1e-15, epsrel=1e-13, limit=200)[0]
        for a, b in itertools.pairwise(ends)
    ]
    return sum(pieces)


@pytest.mark.parametrize("kappa", [0.0, 0.1, 0.5, 1.0, 2.0, 3.0, 4.0, 4.5, 5.0, 7.0, 12.0, 25.0])
def test_logistic_averages_at_every_sharpness(kappa):
    def squared(z):
        return np.tanh(kappa**2 + kappa * z) ** 2

    value = quadrature.gaussian_expectation(lambda z: jnp.tanh(kappa**2 + kappa * z) ** 2)
    # the worst case of the trapezoid rule is kappa = 4.5, at 2e-12
    np.testing.assert_allclose(value, gaussian_average(squared, kappa), rtol=0, atol=1e-11)


def test_gaussian_moments_and_batches():
    powers = jnp.arange(0.0, 9.0, 2.0)
    moments = quadrature.gaussian_expectation(lambda z: z ** powers[:, None])
    np.testing.assert_allclose(moments, [1, 1, 3, 15, 105], rtol=1e-12)
    assert quadrature.gaussian_expectation(jnp.cos, dtype=jnp.float32).dtype == jnp.float32


def test_interval_integrals():
    upper = jnp.array([1.0, 2.0])
    value = quadrature.integrate(jnp.exp, 0.0 * upper, upper, nodes=16)
    np.testing.assert_allclose(value, np.expm1(upper), rtol=1e-14)


@pytest.mark.parametrize("dim", [1.0, 2.0, 2.5, 16.0, 300.0, 4000.0])
def test_chi_square_averages(dim):
    q, weights = quadrature.chi_square_nodes(dim)
    np.testing.assert_allclose(q @ weights, dim, rtol=1e-12)
    np.testing.assert_allclose(q**2 @ weights, dim * (dim + 2), rtol=1e-12)
    np.testing.assert_allclose(jnp.exp(-q / dim) @ weights, (1 + 2 / dim) ** (-dim / 2), rtol=1e-11)


@pytest.mark.parametrize("dim", [1.0, 3.0, 64.0, 1000.0])
@pytest.mark.parametrize("shift", [0.0, 0.3, 20.0, 3000.0])
def test_noncentral_chi_square_averages(dim, shift):
    q, weights = quadrature.noncentral_chi_square_nodes(dim, shift, nodes=128)
    np.testing.assert_allclose(q @ weights, dim + shift, rtol=1e-9)
    exact = np.exp(-shift / 10 / 1.2) * 1.2 ** (-dim / 2)
    if exact > 1e-6:
        np.testing.assert_allclose(jnp.exp(-q / 10) @ weights, exact, rtol=1e-8)


@pytest.mark.parametrize("dim", [1.0, 2.0, 2.5, 16.0, 64.0, 1000.0])
def test_noncentral_distribution_function(dim):
    shifts = np.array([0.1, 1.0, 10.0, 300.0, 5000.0])[:, None]
    levels = np.array([1e-8, 1e-3, 0.1, 0.5, 0.9, 0.9999])
    y = stats.ncx2.ppf(levels, dim, shifts)
    value = quadrature.noncentral_chi_square_log_cdf(y, dim, shifts)
    np.testing.assert_allclose(value, stats.ncx2.logcdf(y, dim, shifts), rtol=2e-10, atol=2e-10)


def test_deep_tails_in_one_dimension():
    """d = 1 has a closed form by error functions, far beyond what series reach."""
    y, shift = 4.0, np.array([100.0, 900.0])
    root = np.sqrt(shift)
    exact = stats.norm.logcdf(2 - root) + np.log1p(
        -np.exp(stats.norm.logcdf(-2 - root) - stats.norm.logcdf(2 - root))
    )
    value = quadrature.noncentral_chi_square_log_cdf(y, 1.0, shift)
    np.testing.assert_allclose(value, exact, rtol=1e-11)
    assert value[1] < -390


def test_both_tails_add_up():
    lower, upper = jax.vmap(quadrature.noncentral_chi_square_log_tails, (0, None, None))(
        jnp.linspace(1.0, 90.0, 40), jnp.asarray(7.5), jnp.asarray(12.0)
    )
    np.testing.assert_allclose(jnp.exp(lower) + jnp.exp(upper), 1, rtol=1e-12)
    exact = stats.ncx2.logsf(90.0, 7.5, 12.0)
    np.testing.assert_allclose(upper[-1], exact, rtol=1e-8)


def test_central_case_is_the_normal_one():
    y = np.array([0.01, 1.0, 9.0])
    value = jnp.exp(quadrature.noncentral_chi_square_log_cdf(y, 1.0, 0.0))
    np.testing.assert_allclose(value, 2 * ndtr(np.sqrt(y)) - 1, rtol=1e-9)
