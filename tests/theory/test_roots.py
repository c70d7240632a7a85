"""The root finder: accuracy, derivatives of every kind, and what it says when there is no root."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from theory.roots import find_root

PROBLEMS = {
    "cubic": (lambda x: x**3 - 2 * x - 5, 2.0, 3.0),
    "flat": (lambda x: (x - 1.0) ** 9, 0.0, 1.7),
    "cosine": (lambda x: jnp.cos(x) - x, 0.0, 1.0),
    "steep": (lambda x: jnp.tanh(50 * (x - 0.3)), -1.0, 2.0),
    "infinite end": (lambda x: jnp.log(x) + 2.0, 0.0, 1.0),
    "decreasing": (lambda x: jnp.exp(-x) - 0.2, 0.0, 9.0),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_with_brentq(name):
    f, lower, upper = PROBLEMS[name]
    root = find_root(f, lower, upper)
    assert bool(root.converged)
    if name == "flat":  # the ninth power is rounded to zero over a width of eps^(1/9)
        np.testing.assert_allclose(root.value, 1.0, rtol=0.05)
        return
    compiled = jax.jit(f)
    expected = brentq(lambda x: float(compiled(x)), max(lower, 1e-12), upper, xtol=1e-15)
    np.testing.assert_allclose(root.value, expected, rtol=1e-13)
    np.testing.assert_allclose(root.residual, f(root.value), atol=1e-13)
    assert int(root.iterations) <= 60


def test_no_change_of_sign_is_reported():
    root = find_root(lambda x: x**2 + 1, -1.0, 2.0)
    assert not bool(root.converged)
    assert np.isnan(root.value)
    assert int(root.iterations) == 0


def test_too_few_iterations_are_reported():
    root = find_root(jnp.cos, 0.0, 3.0, max_iterations=2)
    assert not bool(root.converged)
    assert np.isnan(root.value)
    assert int(root.iterations) == 2


def test_nan_inside_is_reported():
    root = find_root(lambda x: jnp.where(x == 1, 1.0, jnp.where(x == 0, -1.0, jnp.nan)), 0.0, 1.0)
    assert not bool(root.converged)


@pytest.mark.parametrize(("lower", "upper"), [(0.0, 1.0), (-1.0, 0.0), (1.0, -2.0)])
def test_root_at_an_end_or_in_a_reversed_bracket(lower, upper):
    root = find_root(lambda x: jnp.expm1(x), lower, upper)
    assert bool(root.converged)
    np.testing.assert_allclose(root.value, 0.0, atol=1e-15)


def power_root(a, p):
    """a^(1/p), with both in the closure of the function."""
    return find_root(lambda x: p * x - jnp.log(a), -9.0, 9.0).value


def test_derivatives_of_first_and_second_order():
    a, p = 3.0, 2.5
    exact = (1 / (a * p), -np.log(a) / p**2)
    np.testing.assert_allclose(jax.grad(power_root, (0, 1))(a, p), exact, rtol=1e-12)
    forward = jax.jvp(power_root, (a, p), (1.0, 2.0))[1]
    np.testing.assert_allclose(forward, exact[0] + 2 * exact[1], rtol=1e-12)
    second = jax.hessian(lambda a: power_root(a, p))(a)
    np.testing.assert_allclose(second, -1 / (p * a**2), rtol=1e-12)


def test_ends_of_the_bracket_carry_no_derivative():
    assert jax.grad(lambda e: find_root(jnp.sin, -1.0 + e, 1.0).value)(0.0) == 0


def test_batch_equals_loop_and_isolates_failures():
    levels = jnp.array([0.2, 0.7, 3.0, 0.9])

    def solve(level):
        return find_root(lambda x: jnp.tanh(x) - level, 0.0, 5.0)

    batch = jax.jit(jax.vmap(solve))(levels)
    np.testing.assert_array_equal(batch.converged, [True, True, False, True])
    alone = jax.jit(solve)
    for i in (0, 1, 3):
        assert batch.value[i] == alone(levels[i]).value
    slopes = jax.vmap(jax.grad(lambda level: solve(level).value))(levels[:2])
    np.testing.assert_allclose(slopes, 1 / (1 - levels[:2] ** 2), rtol=1e-12)

    def mean_of_found(scale):
        value = jax.vmap(solve)(scale * levels).value
        return jnp.sum(jnp.where(jnp.isnan(value), 0, value))

    assert np.isfinite(jax.grad(mean_of_found)(1.0))


def test_tolerance_and_dtype():
    rough = find_root(jnp.cos, 0.0, 3.0, tolerance=1e-2)
    assert abs(float(rough.value) - np.pi / 2) < 1e-2
    single = find_root(jnp.cos, jnp.float32(0), jnp.float32(3))
    assert single.value.dtype == jnp.float32
    np.testing.assert_allclose(single.value, np.pi / 2, rtol=5e-7)


def test_thousands_at_once_take_few_evaluations():
    """The batch waits for its slowest member, so that one must be quick too."""
    levels = jnp.linspace(0.01, 0.95, 4096)
    z, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()

    def solve(level):
        def excess(x):
            return jnp.tanh(jnp.exp(2 * x) + jnp.exp(x) * z) @ weights - level

        return find_root(excess, np.log(1e-3), np.log(5.0))

    roots = jax.jit(jax.vmap(solve))(levels)
    assert bool(roots.converged.all())
    assert int(roots.iterations.max()) <= 15
