"""Finite size: the probability that the own point is the nearest, and the softplus average."""

import itertools

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from theory import collapse, finite_size, memorisation_rem


@pytest.mark.parametrize(
    ("dim", "n", "variance", "expected", "error"),
    [
        (16, 200, 1.0, [0.875, 0.691, 0.513], 0.002),
        (64, 1000, 0.25, [0.9072, 0.6769, 0.4496], 0.002),
        (256, 5000, 1.0, [0.9957, 0.6677, 0.1759], 0.002),
    ],
)
def test_reference_probabilities(dim, n, variance, expected, error):
    t = collapse.gaussian_collapse_time(np.log(n), dim, variance) * np.array([0.7, 1.0, 1.3])
    value = finite_size.nearest_is_own_probability(t, np.log(n), dim, variance)
    np.testing.assert_allclose(value, expected, rtol=0, atol=error)
    # the Gaussian approximation gives one half at the collapse time and is far from it
    normal = finite_size.gaussian_approximation_of_own(t, np.log(n), dim, variance)
    np.testing.assert_allclose(normal[1], 0.5, atol=1e-12)
    assert value[1] - normal[1] > 0.15
    # forgetting half of the points is visible
    wrong = finite_size.nearest_is_own_probability(t, np.log(n / 2), dim, variance)
    assert (np.abs(wrong - value) > 2 * error)[1:].all()


@pytest.mark.parametrize("dim", [2, 6])
def test_against_direct_simulation(dim):
    """Fresh training sets, the nearest point searched for; also T != 1 and variance != 1."""
    rng = np.random.default_rng(8)
    n, variance, temperature, trials = 25, 0.5, 0.7, 40_000
    t = collapse.gaussian_collapse_time(np.log(n), dim, variance, temperature)
    points = np.sqrt(variance) * np.exp(-t) * rng.normal(size=(trials, n, dim))
    noise = np.sqrt(-temperature * np.expm1(-2 * t)) * rng.normal(size=(trials, 1, dim))
    distances = ((points[:, :1] + noise - points) ** 2).sum(-1)
    hits = (distances.argmin(1) == 0).mean()
    value = finite_size.nearest_is_own_probability(t, np.log(n), dim, variance, temperature)
    assert abs(hits - value) < 4 * np.sqrt(value * (1 - value) / trials)


def test_against_scipy_distributions():
    """The three-scalar form with scipy's distribution function, averaged over 200,000 draws."""
    rng = np.random.default_rng(9)
    dim, log_n, variance, t, draws = 32, np.log(700.0), 0.4, 0.35, 200_000
    noise, signal = -np.expm1(-2 * t), variance * np.exp(-2 * t)
    z = np.sqrt(rng.chisquare(dim, draws))
    along, across = rng.normal(size=draws), rng.chisquare(dim - 1, draws)
    x = (np.sqrt(signal) * along + np.sqrt(noise) * z) ** 2 + signal * across
    p = stats.ncx2.cdf(noise * z**2 / signal, dim, x / signal)
    sample = np.exp(np.expm1(log_n) * np.log1p(-p))
    value = finite_size.nearest_is_own_probability(t, log_n, dim, variance)
    assert abs(sample.mean() - value) < 4 * sample.std() / np.sqrt(draws) < 5e-3


def test_one_other_point_in_one_dimension():
    """n = 2, d = 1 on a Gauss-Legendre grid of both normal variables."""
    t, variance = 0.4, 0.5
    noise, signal = np.sqrt(-np.expm1(-2 * t)), np.sqrt(variance * np.exp(-2 * t))
    x, weights = np.polynomial.legendre.leggauss(200)
    z, v = 4.5 * (x[:, None] + 1), 9 * x  # the integrand has a kink at z = 0
    state = signal * v + noise * z
    nearer = stats.norm.cdf((state + noise * z) / signal) - stats.norm.cdf(
        (state - noise * z) / signal
    )
    both = weights[:, None] * weights * stats.norm.pdf(z) * stats.norm.pdf(v)
    expected = 2 * 4.5 * 9 * np.sum(both * (1 - nearer))
    value = finite_size.nearest_is_own_probability(t, np.log(2), 1, variance)
    np.testing.assert_allclose(value, expected, rtol=1e-10)


def test_limits_in_time_and_size():
    value = finite_size.nearest_is_own_probability(np.array([0.0, np.inf]), np.log(20), 8, 0.4)
    np.testing.assert_allclose(value, [1, 1 / 20], rtol=1e-12)
    late = finite_size.nearest_is_own_probability(6.0, np.log(20), 8, 0.4)
    assert 1 / 20 < late < 1.02 / 20
    # e^100 points in 1000 dimensions: tails far below the smallest double of a series in 1 - p
    t = collapse.gaussian_collapse_time(100.0, 1000, 0.5) * np.array([0.8, 1.0, 1.3])
    value = finite_size.nearest_is_own_probability(t, 100.0, 1000, 0.5)
    assert value[0] > 0.99
    assert 0.5 < value[1] < 0.7
    assert value[2] < 0.01


@pytest.mark.parametrize("variance", [0.0, 0.5, 15.9, 16.1, 900.0])
@pytest.mark.parametrize("mean", [-60.0, -3.0, 0.4, 25.0])
def test_softplus_average(mean, variance):
    if variance == 0:
        expected = np.logaddexp(0, mean)
    else:
        width = np.sqrt(variance)
        ends = np.unique(np.clip([-40.0, -5.0, 0.0, 5.0, 40.0], mean - 11 * width,
                                 mean + 11 * width))  # fmt: skip
        ends = np.unique(np.r_[mean - 11 * width, ends, mean, mean + 11 * width])

        def weighted(value):
            return np.logaddexp(0, value) * stats.norm.pdf(value, mean, width)

        pieces = [quad(weighted, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(ends)]
        expected = sum(pieces)
    value = finite_size.expected_softplus(mean, variance)
    np.testing.assert_allclose(value, expected, rtol=1e-10, atol=1e-13)


def test_empirical_excess_entropy_far_from_collapse():
    """It joins the excess entropy above, is positive below, and never smaller than either."""
    log_n, dim, variance = np.log(5000.0), 256, 1.0
    t = collapse.gaussian_collapse_time(log_n, dim, variance) * np.array([0.6, 1.0, 2.0])
    finite = finite_size.gaussian_empirical_excess_entropy(t, log_n, dim, variance)
    exact = collapse.gaussian_excess_entropy(t, log_n, dim, variance)
    assert (finite > np.maximum(exact, 0)).all()
    np.testing.assert_allclose(finite[2], exact[2], rtol=1e-3)
    large = memorisation_rem.leave_one_out_excess_entropy(t, log_n / dim, variance)
    assert large[0] < 0 < finite[0]
