"""The mean-field map of the Random Hierarchy Model against published and independent numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from theory.hierarchy import (
    belief_map,
    iterated_belief,
    leaf_belief,
    slope_at_certainty,
    slope_at_chance,
    threshold,
)

GRAMMARS = [(32, 8, 2), (16, 4, 2), (10, 5, 3), (7, 4, 4)]
V, M, S = (np.array(column, float) for column in zip(*GRAMMARS))


def brute_force(p, v, m, s):
    """The map as a sum over all tuples of expected weights."""
    spread = np.full(v, (1 - p) / (v - 1))
    spread[0] = p
    weight = spread
    for _ in range(s - 1):
        weight = np.multiply.outer(weight, spread)
    true, rest = weight.ravel()[0], weight.sum() - weight.ravel()[0]
    mean = rest / (v**s - 1)  # of a random tuple that is not the true one
    return (true + (m - 1) * mean) / (true + (m * v - 1) * mean)


@pytest.mark.parametrize("grammar", GRAMMARS)
def test_map_is_the_ratio_of_mean_weights(grammar):
    for p in (0.05, 0.4, 0.93):
        np.testing.assert_allclose(belief_map(p, *grammar), brute_force(p, *grammar), rtol=1e-12)


def test_fixed_points_and_slopes():
    np.testing.assert_allclose(belief_map(1.0, V, M, S), 1, rtol=1e-15)
    np.testing.assert_allclose(belief_map(1 / V, V, M, S), 1 / V, rtol=1e-13)
    slope = jax.vmap(jax.grad(belief_map))
    np.testing.assert_allclose(slope(np.ones(4), V, M, S), slope_at_certainty(V, M, S), rtol=1e-12)
    np.testing.assert_allclose(slope(1 / V, V, M, S), slope_at_chance(V, M, S), rtol=1e-11)
    np.testing.assert_allclose(slope_at_certainty(32, [8, 32], 2), [16 / 33, 64 / 33], rtol=1e-14)
    assert round(float(slope_at_certainty(32, 8, 2)), 10) == 0.4848484848


def test_published_thresholds():
    found = threshold(V, M, S)
    np.testing.assert_allclose(found.belief[:2], [7 / 24, 0.25], rtol=1e-14)
    np.testing.assert_allclose(found.noise[:2], [0.7311827957, 0.8], atol=5e-11)
    np.testing.assert_allclose(found.belief[2], 0.1805604632, atol=5e-11)
    np.testing.assert_allclose(found.noise[2], 0.9104883742, atol=5e-11)
    np.testing.assert_allclose(leaf_belief(found.noise, V), found.belief, rtol=1e-13)
    for p, grammar in zip(found.belief, GRAMMARS):
        other = brentq(lambda q, g: brute_force(q, *g) - q, 1.1 / grammar[0], 0.9, (grammar,))
        np.testing.assert_allclose(p, other, rtol=1e-10)


def test_no_threshold():
    # one rule per symbol; a hint grows; all tuples are rules
    assert np.all(np.isnan(threshold([5, 10, 32], [1, 2, 32], [2, 3, 2])))
    assert slope_at_chance(10, 2, 3) > 1
    assert slope_at_certainty(32, 32, 2) > 1
    # p = 1 is reached from little evidence, and left from little doubt
    assert iterated_belief(0.99, 200, 10, 2, 3)[-1] > 1 - 1e-9
    np.testing.assert_allclose(iterated_belief(0.01, 200, 32, 32, 2)[-1], 1 / 32, rtol=1e-9)


def test_iteration():
    p = iterated_belief(0.5, 6, 32, 8, 2)
    assert p.shape == (7,)
    np.testing.assert_allclose(p[np.array([1, 6])], [0.6035073840, 0.9670406059], atol=5e-11)
    several = iterated_belief(np.array([0.5, 0.7, 0.78]), 6, 32, 8, 2)[:, -1]
    np.testing.assert_allclose(several, [0.967, 0.566, 0.056], atol=5e-4)
    # either side of the threshold
    noise = float(threshold(32, 8, 2).noise)
    far = iterated_belief(np.array([noise - 1e-3, noise + 1e-3]), 300, 32, 8, 2)[:, -1]
    np.testing.assert_allclose(far, [1, 1 / 32], atol=1e-6)


@given(st.floats(3, 60), st.floats(2, 6), st.floats(0, 1))
def test_threshold_is_an_unstable_fixed_point(v, s, part):
    m = (v ** (s - 1)) ** part
    first, second = slope_at_certainty(v, m, s), slope_at_chance(v, m, s)
    assert first * second < 1 + 1e-12
    found = threshold(v, m, s)
    if max(first, second) >= 1:
        assert np.isnan(found.belief)
        return
    if max(first, second) > 0.999:  # the roots merge there
        return
    assert 1 / v < found.belief < 1
    np.testing.assert_allclose(belief_map(found.belief, v, m, s), found.belief, rtol=1e-9)
    assert jax.grad(belief_map)(jnp.asarray(found.belief), v, m, s) > 1


def test_contract(strict):
    for function in (lambda *g: threshold(*g).belief, lambda *g: belief_map(0.3, *g)):
        for given_numbers in ((10.0, 5.0, 3.0), (16.0, 4.0, 2.0)):
            step = 1e-5
            for i in range(2):
                up, down = (
                    [x + sign * step * (j == i) for j, x in enumerate(given_numbers)]
                    for sign in (1, -1)
                )
                slope = jax.grad(function, i)(*given_numbers)
                numeric = (function(*up) - function(*down)) / (2 * step)
                np.testing.assert_allclose(slope, numeric, rtol=1e-6)
    v, m, s = (jnp.asarray(x, jnp.float32) for x in (V, M, S))
    single = jax.jit(threshold)(v, m, s)
    assert single.belief.dtype == jnp.float32
    np.testing.assert_allclose(single.belief, threshold(V, M, S).belief, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(threshold)(V, M, S).noise, threshold(V, M, S).noise)
    # no derivative is NaN where there is no threshold
    assert np.isfinite(jax.grad(lambda m: jnp.nan_to_num(threshold(32.0, m, 2.0).belief))(32.0))


def test_more_tuples_than_single_precision_holds():
    grammar = (100, 50, 20)  # v^s = 1e40
    single = [jnp.float32(n) for n in grammar]
    found, exact = threshold(*single), threshold(*grammar)
    np.testing.assert_allclose(found.belief, exact.belief, rtol=1e-4)
    np.testing.assert_allclose(belief_map(exact.belief, *grammar), exact.belief, rtol=1e-12)
    np.testing.assert_allclose(belief_map(jnp.float32(0.01), *single), 0.01, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: belief_map(1.2, 8, 2, 2), "p must be in"),
        (lambda: threshold(8, 9, 2), r"synonyms must be at most v\^\(s-1\)"),
        (lambda: threshold(8, 0.5, 2), "synonyms must be >= 1"),
        (lambda: threshold(1, 1, 2), "symbols must be above 1"),
        (lambda: threshold(8, 2, 1), "branching must be above 1"),
        (lambda: iterated_belief(-0.1, 2, 8, 2, 2), "noise must be in"),
        (lambda: iterated_belief(0.1, -2, 8, 2, 2), "levels must be >= 0"),
        (lambda: iterated_belief(0.1, 2.5, 8, 2, 2), "levels=2.5"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
