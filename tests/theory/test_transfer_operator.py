"""Finite-step averages of entropy production against nested quadrature and reference values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp

from theory import thermodynamics
from theory.transfer_operator import exponential_averages, mean_productions, pair_entropy

TIMES_STEPS = ((1.0, 10), (1.0, 20), (1.0, 40))


@pytest.mark.parametrize(
    ("mean", "variance", "steps", "t_final", "value"),
    [(1.0, 1.0, 100, 1.0, 1.0007005065), (1.0, 0.4, 40, 2.0, 1.0039647682)],
)
def test_reference_values(mean, variance, steps, t_final, value):
    found = exponential_averages(steps, t_final, mean, variance)
    np.testing.assert_allclose(found.midpoint, value, rtol=0, atol=6e-11)
    np.testing.assert_allclose([found.kernel, found.noising], 1, rtol=1e-11)


def test_kernel_and_noising_are_one_for_every_drift():
    wrong = np.array([0.7, 1.3])
    found = exponential_averages(10, 1.0, 1.2, 0.6, simulated=wrong, assumed=wrong)
    np.testing.assert_allclose(found.kernel, 1, rtol=1e-11)
    np.testing.assert_allclose(found.noising, 1, rtol=1e-11)
    assert np.all(np.abs(found.midpoint - 1) > 1e-3)


# Two steps by brute force: a rule over the start and Gauss-Hermite rules over the two noises ------

LAW = (0.4, 1.3, 0.6)  # t_f, mean, variance
CONTROL = {"simulated": 0.9, "assumed": 1.2, "start": (0.5, 0.8)}


def log_mixture(x, mean, variance):
    exponents = [-((x - c) ** 2) / (2 * variance) for c in (mean, -mean)]
    return logsumexp(exponents, axis=0) - 0.5 * np.log(8 * np.pi * variance)


def score(x, t):
    """By differences of the log density."""
    _, mean, variance = LAW
    noised = mean * np.exp(-t), 1 + (variance - 1) * np.exp(-2 * t)
    step = 1e-5
    return (log_mixture(x + step, *noised) - log_mixture(x - step, *noised)) / (2 * step)


def two_steps():
    """Path functionals and their probabilities, from the definition."""
    t_final, mean, variance = LAW
    h = t_final / 2
    z, weight = np.polynomial.hermite_e.hermegauss(40)
    weight = weight / weight.sum()
    x = np.linspace(-9, 9, 301)[:, None, None]
    p = np.exp(log_mixture(x, *CONTROL["start"])) * (x[1] - x[0])
    noised = mean * np.exp(-t_final), 1 + (variance - 1) * np.exp(-2 * t_final)
    total = np.zeros((3, 1, 1, 1)) + log_mixture(x, *noised)

    def normal(y, centre):
        return -((y - centre) ** 2) / (4 * h)

    for k, noise in enumerate((z[:, None], z[None, :])):
        t = t_final - k * h

        def assumed(point, t=t):
            return point + 2 * CONTROL["assumed"] * score(point, t)

        y = x + h * (x + 2 * CONTROL["simulated"] * score(x, t)) + np.sqrt(2 * h) * noise
        ahead = normal(y, x + h * assumed(x))
        back, noising = normal(x, y + h * assumed(y)), normal(x, (1 - h) * y)
        middle = (y - x) * assumed(0.5 * (x + y))
        total = total + np.stack([middle, ahead - back, ahead - noising])
        x = y
    return total - log_mixture(x, mean, variance), p * weight[:, None] * weight


def test_two_steps_by_brute_force():
    """With a wrong drift, another drift in the functional and another start."""
    totals, p = two_steps()
    assert p.sum() == pytest.approx(1, abs=1e-10)
    found = mean_productions(2, *LAW, **CONTROL)
    # the differences of the density are good to 1e-10, 40 nodes to 1e-9
    np.testing.assert_allclose(found, np.sum(p * totals, axis=(1, 2, 3)), rtol=0, atol=1e-8)
    found = exponential_averages(2, *LAW, **CONTROL)
    np.testing.assert_allclose(found, np.sum(p * np.exp(-totals), axis=(1, 2, 3)), rtol=1e-6)
    assert np.all(np.abs(np.asarray(found) - 1) > 1e-3)


def test_means_are_of_first_order_in_the_step():
    """Midpoint and kernel below the continuum, noising above zero, all with slope one."""
    exact = float(thermodynamics.generative_production(1.0, 1.0, 1.0))
    found = np.array([mean_productions(n, t, 1.0, 1.0) for t, n in TIMES_STEPS])
    bias = np.array([exact, exact, 0]) - found
    assert np.all(bias[:, :2] > 0)
    assert np.all(bias[:, 2] < 0)
    order = np.log2(bias[:-1] / bias[1:])
    # the next order is of relative size h, so that the distance from one halves with h
    assert np.all(np.abs(order[-1] - 1) < 0.06)
    assert np.all(np.abs(order[1] - 1) < 0.65 * np.abs(order[0] - 1))
    # the next order is gone after one extrapolation to h = 0
    limit = 2 * found[2] - found[1]
    assert np.all(np.abs(limit - [exact, exact, 0]) < 0.01 * exact)


def test_midpoint_average_is_one_to_first_order():
    found = np.array([exponential_averages(n, t, 1.0, 1.0).midpoint for t, n in TIMES_STEPS[1:]])
    order = np.log2((found[:-1] - 1) / (found[1:] - 1))
    assert np.all(np.abs(order - 1) < 0.02)


def test_bias_at_the_step_of_the_reference():
    """8.5% and 9.6% at dt = .05 were measured by simulation, with errors of .3%."""
    exact = thermodynamics.generative_production(1.0, 1.0, 1.0)
    found = np.array(mean_productions(20, 1.0, 1.0, 1.0)[:2])
    np.testing.assert_allclose(1 - found / exact, [0.085, 0.096], atol=3e-3)


def test_wrong_score_adds_its_squared_error():
    """A factor 1 + e of the score adds e^2 int I_F dt."""
    e, steps, law = 0.1, 40, (0.8, 0.6)
    factor = np.array([1 - e, 1.0, 1 + e])
    low, right, high = mean_productions(steps, 1.0, *law, simulated=factor, assumed=factor).noising
    t, weights = np.polynomial.legendre.leggauss(20)
    fisher = thermodynamics.mixture_rates(0.5 * (1 + t), *law).fisher
    # both signs together leave relative terms of order e^2 and dt = .025
    added = 0.5 * (low + high) - right
    np.testing.assert_allclose(added, e**2 * 0.5 * fisher @ weights, rtol=0.05)


@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_one_step_is_a_chain_that_ends_on_the_law_of_its_end(factor):
    t, s, mean, variance = np.array([0.9, 0.15]), np.array([0.7, 0.05]), 1.4, 0.5
    found = pair_entropy(t, s, mean, variance, factor=factor)
    ends = mean * np.exp(-s), 1 + (variance - 1) * np.exp(-2 * s)
    chain = mean_productions(1, t - s, *ends, simulated=factor, assumed=factor).noising
    np.testing.assert_allclose(found, chain, rtol=1e-9)
    assert np.all(found > 0)


def test_one_step_sees_the_squared_error_of_the_score_at_small_steps():
    """Added by a factor 1.1: h (.1)^2 I_F, once the part of order h^2 is gone."""
    law = 1.4, 0.5
    t, h = 0.4, 1e-5
    added = pair_entropy(t, t - h, *law, factor=1.1) - pair_entropy(t, t - h, *law)
    fisher = thermodynamics.mixture_rates(t, *law).fisher
    np.testing.assert_allclose(added / h, 0.01 * fisher, rtol=1e-2)
    # the linear part at a coarse step: a score that is too large looks better than the exact one
    assert pair_entropy(1.0, 0.7, *law, factor=1.05) < pair_entropy(1.0, 0.7, *law)


@given(
    t=st.floats(0.05, 2.0), share=st.floats(0.01, 1.0), mean=st.floats(0.0, 3.0),
    variance=st.floats(0.1, 2.0), factor=st.floats(0.5, 2.0),
)  # fmt: skip
def test_one_step_is_a_relative_entropy(t, share, mean, variance, factor):
    """Never negative, and least near the exact score where the step is small."""
    assert pair_entropy(t, t * (1 - share), mean, variance, factor=factor) > -1e-12


@given(
    mean=st.floats(0.0, 2.0), variance=st.floats(0.3, 2.0), factor=st.floats(0.9, 1.5),
    t=st.floats(0.4, 1.5),
)  # fmt: skip
def test_integral_theorems_hold_for_every_law_and_drift(mean, variance, factor, t):
    found = exponential_averages(4, t, mean, variance, simulated=factor, assumed=factor, nodes=181)
    np.testing.assert_allclose([found.kernel, found.noising], 1, rtol=1e-9)


def test_one_step_in_batches_and_derivatives():
    def call(v):
        return pair_entropy(*v[:4], factor=v[4])

    vector = np.array([0.6, 0.45, 1.1, 0.7, 1.2])
    step = 1e-5 * vector
    moves = np.concatenate([vector + np.diag(step), vector - np.diag(step)])
    values = np.asarray(jax.jit(jax.vmap(call))(moves))
    slopes = (values[:5] - values[5:]) / (2 * step)
    np.testing.assert_allclose(jax.jit(jax.grad(call))(vector), slopes, rtol=0, atol=1e-6)


def test_one_step_refuses_steps_forward():
    with pytest.raises(ValueError, match="t - t_next must be positive"):
        pair_entropy(0.3, 0.4, 1.0, 1.0)
    with pytest.raises(ValueError, match="variance must be positive"):
        pair_entropy(0.3, 0.2, 1.0, 0.0)


def test_wrong_start_shows_in_the_kernel_and_hardly_in_the_noising():
    found = exponential_averages(10, 1.0, 1.0, 1.0, start=(0.0, 1.0))
    assert found.kernel < 0.97
    assert abs(found.noising - 1) < 0.1 * abs(found.kernel - 1)


def test_nodes_do_not_matter_where_they_suffice():
    coarse, fine = (exponential_averages(10, 1.0, 1.0, 1.0, nodes=n) for n in (101, 181))
    np.testing.assert_allclose(coarse, fine, rtol=1e-11)
    assert np.isnan(exponential_averages(10, 1.0, 1.0, 1.0, nodes=41)).all()
    assert np.isnan(mean_productions(10, 1.0, 1.0, 1e-3, nodes=101)).all()


def test_chains_that_leave_the_grid_give_nan():
    """Half of the score has no drift left: the walk spreads beyond any fixed range."""
    wrong = {"simulated": 0.4, "assumed": 0.4, "nodes": 181}
    found = exponential_averages(4, 1.5, 0.0, 1.0, **wrong)
    assert np.isnan(found.midpoint)
    assert np.isnan(found.kernel)
    assert found.noising == pytest.approx(1, abs=1e-10)  # its reversed chain holds together
    assert np.isnan(mean_productions(4, 1.5, 0.0, 1.0, **wrong)).all()


@pytest.mark.slow  # long compilations
@pytest.mark.parametrize("function", [exponential_averages, mean_productions])
def test_batches_and_derivatives(function):
    def call(vector):
        t, mean, variance, simulated, assumed, *start = vector
        found = function(
            4, t, mean, variance, simulated=simulated, assumed=assumed, start=start, nodes=81
        )
        return jnp.stack(found)

    vector = np.array([0.6, 1.1, 0.7, 0.9, 1.2, 0.4, 0.9])
    step = 1e-5 * vector
    moves = np.concatenate([np.zeros((1, 7)), np.diag(step), -np.diag(step)])
    both = jax.jit(lambda v, batch: (jax.vmap(call)(batch), jax.jacrev(call)(v)))
    batch, jacobian = map(np.asarray, both(vector, vector + moves))
    np.testing.assert_allclose(batch[0], call(vector), rtol=1e-11)
    slopes = (batch[1:8] - batch[8:]) / (2 * step[:, None])
    np.testing.assert_allclose(jacobian.T, slopes, rtol=0, atol=1e-6 * (1 + np.abs(slopes).max()))


def test_single_precision_stays_single(strict):
    single = [jnp.asarray(v, jnp.float32) for v in (0.6, 1.1, 0.7)]
    for function in (exponential_averages, mean_productions):
        for leaf in jax.eval_shape(lambda *v, f=function: f(4, *v, nodes=81), *single):
            assert leaf.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "changes", "message"),
    [
        ((0, 1.0, 1.0, 1.0), {}, "steps=0"),
        ((5, 0.0, 1.0, 1.0), {}, "t_final must be positive"),
        ((5, 1.0, 1.0, 0.0), {}, "variance must be positive"),
        ((5, 1.0, 1.0, 1.0), {"nodes": 1}, "nodes=1"),
        ((5, 1.0, 1.0, 1.0), {"start": (0.0, -1.0)}, "variance of start"),
    ],
)
def test_bad_numbers_are_refused(arguments, changes, message):
    for function in (exponential_averages, mean_productions):
        with pytest.raises(ValueError, match=message):
            function(*arguments, **changes)
