"""Random energies: reference values, brute-force minima, order statistics, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from theory import cumulants, finite_random_energy, rem

DIGITS_8 = {"rtol": 0, "atol": 6e-9}
# the same functions, written with numpy
LAWS = {
    "gaussian": (cumulants.gaussian(0.7), lambda x: 0.35 * x**2),
    "noncentral_chi_square": (
        cumulants.noncentral_chi_square(1.3, 0.6),
        lambda x: -0.5 * np.log1p(1.3 * x) - 0.3 * x / (1 + 1.3 * x),
    ),
    "binary": (cumulants.binary(), lambda x: np.log(np.cosh(x))),
    "spherical": (
        cumulants.spherical(),
        lambda x: (
            (np.sqrt(1 + 4 * x**2) - 1) / 2
            + 0.5 * np.log(1 - ((np.sqrt(1 + 4 * x**2) - 1) / (2 * x)) ** 2)
        ),
    ),
}


def brute_force(beta, alpha, law):
    """The least value over the index and where it is; the end of the interval counts."""

    def bound(m):
        return (alpha + law(m * beta)) / m

    inside = minimize_scalar(bound, bounds=(1e-4, 1), method="bounded", options={"xatol": 1e-12})
    return min((inside.fun, inside.x), (bound(1.0), 1.0))


def test_reference_gaussian_energies():
    beta, expected = np.array([1.0, 2.0]), [1.19314718, 2.35482005]
    np.testing.assert_allclose(
        rem.free_energy(beta, np.log(2), cumulants.gaussian(1.0)), expected, **DIGITS_8
    )
    np.testing.assert_allclose(rem.gaussian_free_energy(beta, np.log(2), 1.0), expected, **DIGITS_8)
    state = rem.random_energy_state(2.0, np.log(2), lambda x: x**2 / 2)
    critical = np.sqrt(2 * np.log(2))
    np.testing.assert_allclose(state, [2 * critical, critical / 2, -critical], rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_free_energy_is_the_minimum_over_the_index(name):
    law, plain = LAWS[name]
    alpha, beta = 0.3, np.array([0.4, 3.0, 7.5])
    state = rem.random_energy_state(beta, alpha, law)
    best = [brute_force(b, alpha, plain) for b in beta]
    np.testing.assert_allclose(state.free_energy, [b[0] for b in best], rtol=1e-9)
    np.testing.assert_allclose(state.order, [b[1] for b in best], atol=1e-5)
    assert state.order[0] == 1
    assert (state.order[1:] < 1).all()
    np.testing.assert_array_equal(state.order, rem.order_parameter(beta, alpha, law))
    # condensed: the sum is its lowest terms
    np.testing.assert_allclose(state.free_energy[1:], -(beta * state.energy)[1:], rtol=1e-11)
    lowest = rem.lowest_energy(alpha, law)
    np.testing.assert_allclose(state.energy[1:], lowest, rtol=1e-11)
    np.testing.assert_allclose(rem.rate_function(lowest, law), alpha, rtol=1e-10)
    critical = rem.condensation(alpha, law)
    np.testing.assert_allclose(rem.entropy(critical, alpha, law), 0, atol=1e-13)
    assert rem.entropy(0.5 * critical, alpha, law) > 0 > rem.entropy(2 * critical, alpha, law)


@pytest.mark.parametrize("name", LAWS)
def test_rate_function_is_the_legendre_transform(name):
    law, plain = LAWS[name]
    mean = -float(jax.grad(law)(0.0))
    low = mean - 0.4
    ends = (1e-3, 60)
    best = minimize_scalar(
        lambda x: plain(x) + x * low, bounds=ends, method="bounded", options={"xatol": 1e-11}
    )
    np.testing.assert_allclose(rem.rate_function(low, law), -best.fun, rtol=1e-8)
    np.testing.assert_allclose(rem.rate_function(mean, law), 0, atol=1e-14)
    # above the mean the tilt is negative, down to the end of the domain
    high = mean + 0.4
    ends = (-1 / 1.3 + 1e-9, -1e-3) if name == "noncentral_chi_square" else (-60, -1e-3)
    best = minimize_scalar(
        lambda x: plain(x) + x * high, bounds=ends, method="bounded", options={"xatol": 1e-11}
    )
    np.testing.assert_allclose(rem.rate_function(high, law), -best.fun, rtol=1e-8)
    # its slope is minus the tilt
    slope = jax.grad(rem.rate_function)(low, law)
    step = 1e-5
    around = rem.rate_function(np.array([low + step, low - step]), law)
    np.testing.assert_allclose(slope, (around[0] - around[1]) / (2 * step), rtol=1e-6)


def test_energies_that_do_not_occur():
    np.testing.assert_array_equal(
        rem.rate_function(np.array([1.2, -1.2]), cumulants.binary()), np.inf
    )
    law = cumulants.noncentral_chi_square(1.3, 0.6)
    assert np.isinf(rem.rate_function(-0.1, law))
    # close to the end of the range, where the tilt is large
    np.testing.assert_allclose(
        rem.rate_function(-1 + 1e-9, cumulants.binary()), np.log(2), atol=2e-8
    )


def test_nothing_condenses_above_the_number_of_configurations():
    law = cumulants.binary()
    alphas = np.array([0.5, np.log(2) - 1e-8, np.log(2) + 1e-8, 3.0])
    critical = rem.condensation(alphas, law)
    np.testing.assert_array_equal(np.isinf(critical), [False, False, True, True])
    # close to log 2 the entropy left is (1 + 2 lambda) exp(-2 lambda)
    near = critical[1]
    np.testing.assert_allclose((1 + 2 * near) * np.exp(-2 * near), 1e-8, rtol=1e-6)
    beta = np.array([0.5, 40.0])
    state = rem.random_energy_state(beta, 0.8, law)
    np.testing.assert_array_equal(state.order, 1)
    np.testing.assert_allclose(state.free_energy, 0.8 + np.log(np.cosh(beta)), rtol=1e-14)
    assert np.isnan(rem.lowest_energy(0.8, law))
    assert np.isnan(rem.finite_size_lowest_energy(20.0, 0.8, law).mean)
    slopes = jax.grad(rem.free_energy, (0, 1))(1.5, 0.8, law)
    np.testing.assert_allclose(slopes, [np.tanh(1.5), 1], rtol=1e-14)
    assert jax.grad(rem.order_parameter)(1.5, 0.8, law) == 0


def test_energies_with_an_exponential_tail():
    """g = -log(1 - lambda) diverges at lambda = 1, just beyond the condensation."""
    alpha = 6.0
    critical = rem.condensation(alpha, lambda x: -jnp.log1p(-x))
    np.testing.assert_allclose(-np.log1p(-critical) - critical / (1 - critical), -alpha, rtol=1e-11)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scale_of_the_energies(scale):
    """Energies in other units: the inverse temperature follows."""
    law = cumulants.gaussian(0.7 * scale**2)
    critical = np.sqrt(2 * 0.3 / 0.7) / scale
    np.testing.assert_allclose(rem.condensation(0.3, law), critical, rtol=1e-13)
    np.testing.assert_allclose(
        rem.free_energy(3 * critical, 0.3, law),
        rem.gaussian_free_energy(3 * critical * scale, 0.3, 0.7),
        rtol=1e-13,
    )


def test_closed_form_of_gaussian_energies():
    beta, alpha = np.linspace(0.1, 4, 9)[:, None], np.array([0.2, 0.5, 1.4])
    value = rem.free_energy(beta, alpha, cumulants.gaussian(0.7))
    np.testing.assert_allclose(value, rem.gaussian_free_energy(beta, alpha, 0.7), rtol=1e-13)


def test_derivatives_on_both_sides_of_condensation():
    def value(beta, alpha, ratio, distance):
        law = cumulants.noncentral_chi_square(ratio, distance)
        return rem.free_energy(beta, alpha, law)

    def plain(beta, alpha, ratio, distance):
        return brute_force(
            beta,
            alpha,
            lambda x: -0.5 * np.log1p(ratio * x) - 0.5 * distance * x / (1 + ratio * x),
        )[0]

    gradient = jax.jit(jax.grad(value, (0, 1, 2, 3)))
    for beta in (0.4, 3.0):
        point, step = np.array([beta, 0.3, 1.3, 0.6]), 1e-5
        moves = step * np.eye(4)
        expected = [(plain(*(point + m)) - plain(*(point - m))) / (2 * step) for m in moves]
        np.testing.assert_allclose(gradient(*point), expected, rtol=2e-6)
    # a plain function that closes over the parameter, made inside of the computation
    by_closure = jax.jit(jax.grad(lambda v: rem.free_energy(3.0, 0.3, lambda x: v * x**2 / 2)))(0.7)
    np.testing.assert_allclose(by_closure, 3 * np.sqrt(0.6 / 0.7) / 2, rtol=1e-12)
    # second derivatives see the condensed order move
    bend = jax.grad(jax.grad(lambda v: rem.free_energy(3.0, 0.3, cumulants.gaussian(v))))(0.7)
    np.testing.assert_allclose(bend, -3 * np.sqrt(0.6) / 4 * 0.7**-1.5, rtol=1e-11)


def test_batches_of_laws():
    variances = jnp.array([0.3, 0.7, 1.9])
    value = jax.vmap(lambda v: rem.free_energy(2.0, 0.5, cumulants.gaussian(v)))(variances)
    np.testing.assert_allclose(value, rem.gaussian_free_energy(2.0, 0.5, variances), rtol=1e-13)


def test_free_energy_is_smooth_at_condensation():
    law, alpha = LAWS["spherical"][0], 0.4
    critical = float(rem.condensation(alpha, law))
    beta = critical * np.array([1 - 1e-6, 1 + 1e-6])
    slopes = jax.vmap(jax.grad(rem.free_energy), (0, None, None))(beta, alpha, law)
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-5)


def test_planted_energy_wins_or_loses():
    law, alpha, beta = cumulants.gaussian(0.7), 0.3, np.array([0.5, 2.0])
    rest = rem.free_energy(beta, alpha, law)
    lowest = rem.lowest_energy(alpha, law)
    planted = rem.planted_free_energy(beta, alpha, law, 1.5 * lowest)
    np.testing.assert_allclose(planted, np.maximum(rest, -1.5 * beta * lowest), rtol=1e-14)
    assert planted[1] > rest[1]
    # a planted energy that is found among the others anyway changes nothing
    np.testing.assert_array_equal(rem.planted_free_energy(beta, alpha, law, 0.5 * lowest), rest)


def order_statistics(count, log_survival, lower, upper):
    """Mean and deviation of the least of ``count`` variables, by integrating its law."""

    def survival(x):
        return np.exp(count * log_survival(x))

    # E X = upper - int F, E X^2 = upper^2 - 2 int x F
    first = quad(lambda x: 1 - survival(x), lower, upper, epsabs=1e-12, limit=400)[0]
    second = quad(lambda x: 2 * x * (1 - survival(x)), lower, upper, epsabs=1e-12, limit=400)[0]
    mean = upper - first
    return mean, np.sqrt(upper**2 - second - mean**2)


@pytest.mark.parametrize("law", ["gaussian", "chi_square"])
def test_lowest_energy_against_order_statistics(law):
    """Corrections beyond the formula fall like (log N / N)^2; the bare limit is far off."""
    alpha, sizes = 0.3, np.array([20.0, 40.0, 80.0])
    exact = []
    for size in sizes:
        scale = np.sqrt(0.7 * size)
        law_of_one, lower, upper = {
            "gaussian": (stats.norm(scale=scale), -14 * scale, 0.0),
            # half a chi-square variable of N degrees of freedom
            "chi_square": (stats.chi2(size, scale=0.5), 0.0, 0.5 * size),
        }[law]
        found = order_statistics(np.exp(alpha * size), law_of_one.logsf, lower, upper)
        exact.append(np.array(found) / size)
    mean, deviation = np.array(exact).T
    g = {
        "gaussian": cumulants.gaussian(0.7),
        "chi_square": cumulants.noncentral_chi_square(1.0, 0.0),
    }[law]
    theory = rem.finite_size_lowest_energy(sizes, alpha, g)
    order = (np.log(sizes) / sizes) ** 2
    scaled = (mean - theory.mean) / order
    assert (np.abs(scaled) < 1).all()
    np.testing.assert_allclose(scaled[2], scaled[1], rtol=0.35)
    bare = np.abs(mean - rem.lowest_energy(alpha, g))
    assert (np.abs(mean - theory.mean) < 0.35 * bare).all()
    assert abs(mean[2] - theory.mean[2]) < 0.12 * bare[2]
    # the deviation has relative corrections of order log N / N
    assert (np.abs(deviation / theory.deviation - 1) < 1.5 * np.log(sizes) / sizes).all()


def test_finite_size_free_energy_against_exact_averages():
    alpha, variance, beta = 0.4, 0.7, 2.2
    sizes = np.array([15.0, 30.0, 60.0])  # up to exp(24) energies
    exact = finite_random_energy.gaussian_partition_averages(
        beta * np.sqrt(sizes * variance), alpha * sizes
    )
    value = rem.finite_size_free_energy(beta, sizes, alpha, cumulants.gaussian(variance))
    error = (exact.log_partition / sizes - value) * (sizes / np.log(sizes)) ** 2
    assert (np.abs(error) < 1).all()
    bare = exact.log_partition / sizes - rem.gaussian_free_energy(beta, alpha, variance)
    assert (np.abs(exact.log_partition / sizes - value) < 0.35 * np.abs(bare)).all()
    assert np.isnan(rem.finite_size_free_energy(0.5, 30.0, alpha, cumulants.gaussian(variance)))


def test_a_million_energies():
    rng = np.random.default_rng(11)
    count, alpha, variance = 10**6, 0.5, 0.7
    size = np.log(count) / alpha
    lowest = np.min(rng.normal(size=(40, count)), axis=1) * np.sqrt(variance / size)
    theory = rem.finite_size_lowest_energy(size, alpha, cumulants.gaussian(variance))
    # next order (log N / N)^2 = 0.015, above the statistical error
    assert abs(lowest.mean() - theory.mean) < 0.015
    assert abs(lowest.mean() - rem.lowest_energy(alpha, cumulants.gaussian(variance))) > 0.04
    np.testing.assert_allclose(lowest.std(), theory.deviation, rtol=4 / np.sqrt(80))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: rem.free_energy(0.0, 0.5, g), "beta must be positive"),
        (lambda g: rem.free_energy(-1.0, 0.5, g), "beta=-1.0"),
        (lambda g: rem.free_energy(1.0, np.array([0.5, 0.0]), g), "alpha=0.0"),
        (lambda g: rem.condensation(-0.5, g), "alpha=-0.5"),
        (lambda g: rem.lowest_energy(0.0, g), "alpha must be positive"),
        (lambda g: rem.finite_size_lowest_energy(0.0, 0.5, g), "size must be positive"),
        (lambda g: rem.entropy(np.inf, 0.5, g), "lam must be finite"),
        (lambda g: rem.rate_function(np.nan, g), "energy=nan"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(cumulants.gaussian(0.7))


def test_bad_traced_numbers_give_nan():
    value = jax.jit(lambda a: rem.free_energy(2.0, a, cumulants.gaussian(0.7)))
    assert np.isnan(value(np.nan))
    assert np.isnan(value(-0.5))


def test_single_precision(strict):
    law = cumulants.gaussian(0.7)
    value = rem.free_energy(jnp.float32(3.0), jnp.float32(0.3), law)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, rem.gaussian_free_energy(3.0, 0.3, 0.7), rtol=1e-6)
