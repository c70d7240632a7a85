"""Cumulant functions: their definition as averages, shape, sign, and use in compiled code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize_scalar

from theory import cumulants, rem

LAWS = {
    "gaussian": cumulants.gaussian(0.7),
    "noncentral_chi_square": cumulants.noncentral_chi_square(1.3, 0.6),
    "binary": cumulants.binary(),
    "spherical": cumulants.spherical(),
}


def average(f):
    """Expectation of f over a standard normal, by adaptive integration."""
    return quad(lambda z: f(z) * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), -14, 14, epsabs=1e-14)[0]


@pytest.mark.parametrize("tilt", [-0.4, 0.3, 2.5])
def test_functions_are_logarithms_of_averages(tilt):
    """One coordinate suffices where the energy is a sum over them."""
    expected = {
        "gaussian": np.log(average(lambda z: np.exp(-tilt * np.sqrt(0.7) * z))),
        "noncentral_chi_square": np.log(
            average(lambda z: np.exp(-tilt * (np.sqrt(1.3) * z + np.sqrt(0.6)) ** 2 / 2))
        ),
        "binary": np.log(np.mean(np.exp([tilt, -tilt]))),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(LAWS[name](tilt), value, rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("tilt", [0.5, 3.0])
def test_sphere(tilt):
    """The largest term of the average over the overlap, and the average itself at finite N."""
    best = minimize_scalar(
        lambda q: -(tilt * q + 0.5 * np.log1p(-(q**2))), bounds=(0, 1), method="bounded"
    )
    np.testing.assert_allclose(LAWS["spherical"](tilt), -best.fun, rtol=1e-9)

    def log_average(size, pull):
        """Up to a constant of the size."""
        q = (np.sqrt(1 + 4 * pull**2) - 1) / (2 * pull) if pull else 0.0
        top = pull * q + 0.5 * np.log1p(-(q**2))

        def weight(q):
            exponent = size * (pull * q + 0.5 * np.log1p(-(q**2)) - top)
            return np.exp(exponent) / (1 - q**2) ** 1.5

        width = 12 / np.sqrt(size)
        ends = max(q - width, -1 + 1e-9), min(q + width, 1 - 1e-9)
        return top + np.log(quad(weight, *ends)[0]) / size

    def finite(size):
        return log_average(size, tilt) - log_average(size, 0.0)

    errors = [finite(size) - float(LAWS["spherical"](tilt)) for size in (1000, 4000)]
    np.testing.assert_allclose(errors[0] / errors[1], 4, rtol=0.02)
    assert abs(errors[1]) < 1e-3


@pytest.mark.parametrize("name", LAWS)
def test_convex_and_zero_at_zero(name):
    law = LAWS[name]
    np.testing.assert_allclose(law(0.0), 0, atol=1e-15)
    tilts = np.linspace(0.0, 30.0, 61)
    curvature = jax.vmap(jax.grad(jax.grad(law)))(tilts)
    # rounding: cosh^-2(30) = 1e-26
    assert (curvature > -1e-12).all()
    assert curvature[0] > 0.1
    # low energies have large tilts
    assert (np.diff(-jax.vmap(jax.grad(law))(tilts)) < 1e-14).all()


def test_large_tilts_neither_overflow_nor_cancel():
    np.testing.assert_allclose(cumulants.binary()(1e6), 1e6 - np.log(2), rtol=1e-15)
    value = cumulants.spherical()(1e6) - 1e6
    np.testing.assert_allclose(value, -0.5 - 0.5 * np.log(1e6), atol=1e-6)


def test_tabulated_is_the_empirical_average():
    rng = np.random.default_rng(3)
    size, count, variance = 12.0, 800_000, 0.7
    samples = rng.normal(size=count) * np.sqrt(variance / size)
    law = cumulants.tabulated(samples, size)
    np.testing.assert_allclose(law(0.0), 0, atol=1e-15)
    for tilt in (0.2, 0.5):
        exact = variance * tilt**2 / 2
        relative = np.expm1(size * variance * tilt**2) / count  # variance of the average
        assert abs(law(tilt) - exact) < 4 * np.sqrt(relative) / size
    direct = np.log(np.mean(np.exp(-0.5 * size * samples))) / size
    np.testing.assert_allclose(law(0.5), direct, rtol=1e-12)
    # on average over tables, lower than the truth by the bias that is stated
    few, tilt = samples.reshape(-1, 50), 0.35
    tables = jax.vmap(lambda s: cumulants.tabulated(s, size)(tilt))(few)
    bias = -np.expm1(size * variance * tilt**2) / (2 * few.shape[1] * size)
    error = tables.std() / np.sqrt(tables.size)
    assert abs(tables.mean() - variance * tilt**2 / 2 - bias) < 4 * error
    assert abs(tables.mean() - variance * tilt**2 / 2) > 4 * error


def test_tabulated_knows_no_more_than_its_samples():
    rng = np.random.default_rng(4)
    size, count = 12.0, 200_000
    law = cumulants.tabulated(rng.normal(size=count) / np.sqrt(size), size)
    ceiling = np.log(count) / size
    assert np.isinf(rem.condensation(ceiling * 1.01, law))
    # far below the ceiling the table sees what the law has, up to a relative noise of 0.01
    np.testing.assert_allclose(rem.condensation(0.1, law), np.sqrt(0.2), rtol=0.04)


def test_numbers_pass_through_transformations():
    @jax.jit
    def slope(law):
        return jax.grad(law)(0.5)

    np.testing.assert_allclose(slope(cumulants.gaussian(0.7)), 0.35)
    many = jax.vmap(cumulants.gaussian)(jnp.array([0.3, 0.7]))
    np.testing.assert_allclose(jax.vmap(slope)(many), [0.15, 0.35])
    by_law = jax.grad(lambda law: law(0.5))(cumulants.gaussian(0.7))
    np.testing.assert_allclose(jax.tree.leaves(by_law), [0.125])


def test_single_precision_stays_single(strict):
    for law in (*LAWS.values(), cumulants.tabulated(jnp.ones(3, jnp.float32), 4)):
        settled, tilt = cumulants.settle(law, jnp.float32(0.4))
        assert settled(tilt).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cumulants.gaussian(0.0), "variance must be positive"),
        (lambda: cumulants.noncentral_chi_square(-1.0, 1.0), "ratio=-1.0"),
        (lambda: cumulants.noncentral_chi_square(1.0, -1.0), "distance=-1.0"),
        (lambda: cumulants.tabulated(np.ones((2, 2)), 3.0), "expected \\(K,\\)"),
        (lambda: cumulants.tabulated([1.0, np.nan], 3.0), "samples=nan"),
        (lambda: cumulants.tabulated([1.0, 2.0], 0.0), "size must be positive"),
    ],
)
def test_bad_numbers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_number_is_no_cumulant_function():
    with pytest.raises(TypeError, match="must be a function"):
        rem.free_energy(1.0, 0.5, 0.7)
