"""Exact averages at finite size: enumeration, sampling, closed moments, trees."""

import jax
import numpy as np
import pytest
from scipy import special
from scipy.integrate import dblquad

from theory import finite_random_energy as finite


def sampled(logs):
    """Mean and error of log Z, Y2 and Y2^2 over the rows."""
    top = logs.max(1, keepdims=True)
    weights = np.exp(logs - top)
    total = weights.sum(1)
    participation = (weights**2).sum(1) / total**2
    values = np.stack([top[:, 0] + np.log(total), participation, participation**2])
    return values.mean(1), values.std(1) / np.sqrt(len(logs))


@pytest.mark.parametrize(("count", "deviation"), [(7, 0.4), (50, 2.0), (1000, 5.0)])
def test_gaussian_averages_against_samples(count, deviation):
    rng = np.random.default_rng(count)
    mean, error = sampled(deviation * rng.normal(size=(4000, count)))
    exact = finite.gaussian_partition_averages(deviation, np.log(count))
    assert (np.abs(mean - np.array(exact)) < 4 * error).all()


def test_two_energies_by_double_integration():
    deviation = 1.7

    def average(f):
        def weighted(x, y):
            return f(deviation * (x - y), deviation * (x + y) / 2) * np.exp(-(x**2 + y**2) / 2)

        return dblquad(weighted, -9, 9, -9, 9, epsabs=1e-9)[0] / (2 * np.pi)

    exact = finite.gaussian_partition_averages(deviation, np.log(2.0))
    log_partition = average(lambda gap, mean: mean + np.log(2 * np.cosh(gap / 2)))
    participation = average(lambda gap, mean: 1 - 0.5 / np.cosh(gap / 2) ** 2)
    squared = average(lambda gap, mean: (1 - 0.5 / np.cosh(gap / 2) ** 2) ** 2)
    np.testing.assert_allclose(exact, [log_partition, participation, squared], rtol=1e-8)


def test_one_energy():
    exact = finite.gaussian_partition_averages(2.3, 0.0)
    np.testing.assert_allclose(exact, [0, 1, 1], atol=1e-11)


def test_two_values_by_enumeration():
    """Binomial sums over energies that take two values."""
    count, values, odds = 12, np.array([-0.3, 1.4]), np.array([0.7, 0.3])
    k = np.arange(count + 1)
    ways = special.comb(count, k)
    law = ways * odds[1] ** k * odds[0] ** (count - k)
    total = k * np.exp(values[1]) + (count - k) * np.exp(values[0])
    squares = k * np.exp(2 * values[1]) + (count - k) * np.exp(2 * values[0])
    expected = [
        np.sum(law * np.log(total)),
        np.sum(law * squares / total**2),
        np.sum(law * squares**2 / total**4),
    ]
    exact = finite.partition_averages(values, odds, np.log(count))
    np.testing.assert_allclose(exact, expected, rtol=1e-11)


def test_trees_of_one_level_and_of_two():
    deviation, log_count = 3.0, np.log(200.0)
    one = finite.tree_log_partition(np.array([deviation]), np.array([log_count]))
    flat = finite.gaussian_partition_averages(deviation, log_count).log_partition
    np.testing.assert_allclose(one, flat, rtol=1e-12)
    # a root of one child adds an energy of mean zero to all leaves
    path = finite.tree_log_partition(np.array([1.5, deviation]), np.array([0.0, log_count]))
    np.testing.assert_allclose(path, flat, rtol=1e-11)
    rng = np.random.default_rng(5)
    logs = 3 * rng.normal(size=(3000, 30, 1)) + 2 * rng.normal(size=(3000, 30, 20))
    mean, error = sampled(logs.reshape(3000, -1))
    exact = finite.tree_log_partition(np.array([3.0, 2.0]), np.log([30.0, 20.0]))
    assert abs(mean[0] - exact) < 4 * error[0]
    swapped = finite.tree_log_partition(np.array([2.0, 3.0]), np.log([30.0, 20.0]))
    assert abs(mean[0] - swapped) > 10 * error[0]


def test_out_of_reach_is_nan():
    assert np.isnan(finite.gaussian_partition_averages(40.0, 5.0).log_partition)
    assert np.isnan(finite.gaussian_partition_averages(5.0, 60.0).participation)
    assert np.isnan(finite.tree_log_partition(np.array([1e-3, 2.0]), np.ones(2)))
    assert np.isnan(finite.tree_log_partition(np.array([80.0, 2.0]), np.ones(2)))


def test_derivative_of_log_partition_gives_the_participation():
    """By parts, d E log Z / d sigma = sigma (1 - E Y2)."""
    slope = jax.jit(jax.grad(lambda s: finite.gaussian_partition_averages(s, 4.0).log_partition))
    for deviation in (0.7, 3.0):
        exact = finite.gaussian_partition_averages(deviation, 4.0)
        np.testing.assert_allclose(
            slope(deviation), deviation * (1 - exact.participation), rtol=1e-10
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: finite.gaussian_partition_averages(0.0, 1.0), "deviation must be positive"),
        (lambda: finite.gaussian_partition_averages(1.0, -1.0), "log_count=-1.0"),
        (lambda: finite.partition_averages(np.ones(3), np.ones(2), 1.0), "one probability per"),
        (lambda: finite.tree_log_partition(np.zeros(2), np.ones(2)), "deviations must be positive"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
