"""Entropy production of paths: exact theorems, transfer-operator values, controls that fail."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from diffjax import Diffusion, gaussian_mixture, ornstein_uhlenbeck, point_cloud, rectified_flow
from diffjax.diffusion import score_at, score_model
from diffjax.observables import thermodynamics
from theory import thermodynamics as theory

KEY = jax.random.key(11)


def balanced(mean, variance, temperature=1.0):
    data = gaussian_mixture(np.ones(2), np.array([[mean], [-mean]]), variance)
    return Diffusion(data, ornstein_uhlenbeck(temperature))


def scaled(factor, model, x, t):
    return factor * score_at(model, x, t)


def wrong(model, factor=1.05):
    """The score with a relative error, so that the drift is wrong by the same part of 2 T F."""
    return score_model(Partial(scaled, factor, model), model.process)


def distance(found, value=1.0):
    return float((found.mean - value) / found.error)


@pytest.mark.parametrize(
    ("law", "steps", "t_final", "value"),
    [
        pytest.param((1.0, 1.0), 100, 1.0, 1.0007005065, marks=pytest.mark.slow),
        ((1.0, 0.4), 40, 2.0, 1.0039647682),
    ],
)
def test_midpoint_has_its_value_at_a_finite_step(law, steps, t_final, value):
    """Transfer-operator values of the exponential average."""
    times = jnp.linspace(t_final, 0, steps + 1)
    paths = thermodynamics.path_entropy_production(KEY, balanced(*law), times, 40_000)
    found = thermodynamics.integral_theorem(paths.midpoint)
    assert abs(distance(found, value)) < 4
    assert 1_000 < found.effective_samples < 40_000


TIMES = jnp.linspace(0.8, 0, 9)  # dt = .1
PATHS = 40_000
UNEQUAL = Diffusion(
    gaussian_mixture(np.array([0.3, 0.7]), np.array([[1.1, 0.2], [-0.6, 0.5]]), [0.8, 1.1]),
    ornstein_uhlenbeck(0.7),
)


@pytest.mark.parametrize("drift", [None, wrong(UNEQUAL, 1.3)], ids=["exact score", "wrong score"])
def test_kernel_and_noising_are_exact_at_a_large_step(drift):
    """For any drift, at T != 1; the midpoint is not exact."""
    paths = thermodynamics.path_entropy_production(KEY, UNEQUAL, TIMES, PATHS, drift=drift)
    for name in ("kernel", "noising"):
        found = thermodynamics.integral_theorem(getattr(paths, name))
        assert thermodynamics.AT_FINITE_STEP[name] == "exact"
        assert abs(distance(found)) < 4
        assert found.error < 0.02


def test_controls_fail():
    """A simulated score with a 5% error at large steps, and a start from another law.

    For an exact score the noising average sees both to O(dt) only, so that the start is shown by
    the kernel ratio; the drift has a small effect on either, and the noising ratio less noise.
    """
    means = np.outer([0.3, -0.3], np.ones(8))
    model = Diffusion(gaussian_mixture(np.array([0.3, 0.7]), means, 0.7), ornstein_uhlenbeck())
    run = partial(
        thermodynamics.path_entropy_production,
        KEY, model, jnp.linspace(0.4, 0, 9), PATHS, drift=wrong(model, 1.0),
    )  # fmt: skip
    right, drift = run(simulated=wrong(model, 1.0)), run(simulated=wrong(model))
    start = run(simulated=wrong(model, 1.0), start=jax.random.normal(KEY, (PATHS, 8)))
    for name in ("kernel", "noising"):
        assert abs(distance(thermodynamics.integral_theorem(getattr(right, name)))) < 4
    assert abs(distance(thermodynamics.integral_theorem(drift.noising))) > 5
    assert abs(distance(thermodynamics.integral_theorem(start.kernel))) > 5


def test_noising_mean_tests_the_score():
    """At each level a wrong score adds T dt E|e|^2; here e = F."""
    times, n = jnp.linspace(0.6, 0.58, 3), 40_000
    exact = thermodynamics.score_test(KEY, UNEQUAL, times, n)
    off = thermodynamics.score_test(KEY, UNEQUAL, times, n, drift=wrong(UNEQUAL, 2.0))
    assert np.all(np.asarray(exact.mean) > -4 * np.asarray(exact.error))
    fisher = thermodynamics.rates(KEY, UNEQUAL, times[:-1], n).fisher.mean
    added = 0.7 * 0.01 * np.asarray(fisher)
    # end points differ by 2 T dt e, which moves the log ratio by sqrt(2 T dt) e . z; and the
    # curvature of log p, relative T dt |F'| < .02
    error = np.sqrt(2 * added / n)
    assert np.all(np.abs(np.asarray(off.mean - exact.mean) - added) < 4 * error + 0.02 * added)
    assert np.all(added > 12 * error)


def test_gap_is_the_squared_error_and_the_gap_of_the_exact_formula():
    """At a coarse step, where the second part matters, and for a score that is nearly exact."""
    times, n = jnp.linspace(0.8, 0.4, 3), 40_000
    drift, gap = wrong(UNEQUAL, 1.3), partial(thermodynamics.score_gap, KEY, UNEQUAL, times, n)
    whole = gap(drift=drift)
    # the exact formula on pairs that the wrong score made, with noise of its own
    rest = thermodynamics.score_gap(
        jax.random.key(12), UNEQUAL, times, n, drift=UNEQUAL, simulated=drift
    )
    fisher = thermodynamics.rates(jax.random.key(13), UNEQUAL, times[:-1], n).fisher
    first = 0.7 * 0.2 * 0.09 * np.asarray(fisher.mean)
    error = np.hypot(np.hypot(whole.error, rest.error), 0.7 * 0.2 * 0.09 * fisher.error)
    off = (np.asarray(whole.mean) - first - np.asarray(rest.mean)) / error
    assert np.all(np.abs(off) < 4)
    assert np.all(np.abs(np.asarray(rest.mean)) > 8 * error)
    # the same noise: the mean is the difference of two tests of the score
    tests = [thermodynamics.score_test(KEY, UNEQUAL, times, n, drift=d) for d in (drift, UNEQUAL)]
    np.testing.assert_allclose(whole.mean, tests[0].mean - tests[1].mean, rtol=1e-9)


def test_noising_mean_vanishes_and_production_is_that_of_the_theory():
    model = balanced(1.0, 1.0)
    paths = thermodynamics.path_entropy_production(KEY, model, jnp.linspace(1, 0, 101), 40_000)
    value = theory.generative_production(1.0, 1.0, 1.0)
    mean = float(jnp.mean(paths.midpoint))
    # 8.5% low at dt = .05, so 1.7% at dt = .01
    error = float(jnp.std(paths.midpoint)) / 200
    assert abs(mean - 0.983 * value) < 4 * error
    assert abs(float(jnp.mean(paths.noising))) < 0.1 * value


def test_forward_theorem():
    found = thermodynamics.forward_entropy_production(KEY, UNEQUAL, 0.5, 100_000)
    assert found.finite_variance is True
    assert abs(distance(thermodynamics.integral_theorem(found.total))) < 4


def test_forward_mean_is_that_of_the_theory():
    total = thermodynamics.forward_entropy_production(KEY, balanced(1.2, 0.7), 0.5, 100_000).total
    error = float(jnp.std(total)) / np.sqrt(total.size)
    assert abs(float(jnp.mean(total)) - theory.total_production(0.5, 1.2, 0.7)) < 4 * error


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_forward_euler_has_its_closed_form(factor):
    """Euler steps of the end-point formula; a drift with a 5% error has another value."""
    model, n = balanced(4.0, 1.0), 100_000
    # starts from the normal law with their weight, which makes the terms bounded
    key_start, key_end = jax.random.split(KEY)
    start = jax.random.normal(key_start, (n, 1))
    left = 1 - 0.1 * factor
    variance = 0.2 * (1 - left**20) / (1 - left**2)
    end = left**10 * start + np.sqrt(variance) * jax.random.normal(key_end, (n, 1))
    total = thermodynamics.end_point_production(model, start, end, 0.0, 1.0)
    normal = -0.5 * (start[:, 0] ** 2 + np.log(2 * np.pi))
    values = jnp.exp(model.log_density(start, 0.0) - normal - total)
    off = (jnp.mean(values) - 1.0513293815) / (jnp.std(values) / np.sqrt(n))
    assert (abs(off) < 4) == (factor == 1.0)


def test_infinite_variance_is_flagged():
    with pytest.warns(RuntimeWarning, match="infinite variance"):
        found = thermodynamics.forward_entropy_production(KEY, balanced(1.0, 0.1), 1.0, 10)
    assert found.finite_variance is False
    widths = jnp.array([0.49, 0.51, 1.5])
    finite = thermodynamics.has_finite_variance(widths, 20.0)
    assert finite.tolist() == [False, True, True]
    assert thermodynamics.has_finite_variance(0.7 * widths, 20.0, 0.7).tolist() == finite.tolist()


def test_atomic_data_are_refused():
    cloud = Diffusion(point_cloud(np.array([[0.3], [1.2]])), ornstein_uhlenbeck())
    with pytest.raises(ValueError, match="atomic data"):
        thermodynamics.forward_entropy_production(KEY, cloud, 1.0, 10)
    with pytest.raises(ValueError, match="atomic data"):
        thermodynamics.path_entropy_production(KEY, cloud, jnp.linspace(1, 0, 5), 10)
    found = thermodynamics.forward_entropy_production(KEY, cloud, 1.0, 10, t_start=0.5)
    assert found.finite_variance is None
    assert np.isfinite(found.total).all()


def test_bad_input():
    flow = Diffusion(UNEQUAL.data, rectified_flow())
    with pytest.raises(ValueError, match="RectifiedFlow"):
        thermodynamics.rates(KEY, flow, 0.5, 10)
    with pytest.raises(ValueError, match="variance must be positive"):
        thermodynamics.has_finite_variance(-1.0, 1.0)
    with pytest.raises(ValueError, match=r"production has shape \(3, 2\)"):
        thermodynamics.integral_theorem(jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="t_start < t_final"):
        thermodynamics.forward_entropy_production(KEY, UNEQUAL, 0.5, 10, t_start=0.6)
    with pytest.raises(ValueError, match="times must be finite"):
        thermodynamics.path_entropy_production(KEY, UNEQUAL, np.array([np.inf, 1.0, 0.1]), 10)
    with pytest.raises(ValueError, match="start has shape"):
        thermodynamics.path_entropy_production(KEY, UNEQUAL, TIMES, 10, start=np.ones((3, 2)))


def test_rates():
    times = jnp.array([0.0, 0.2, 1.0])
    found = thermodynamics.rates(KEY, balanced(1.0, 0.4), times, 100_000)
    exact = theory.mixture_rates(times, 1.0, 0.4)
    for name in ("production", "flow", "reverse_flow", "fisher"):
        off = (getattr(found, name).mean - getattr(exact, name)) / getattr(found, name).error
        assert np.all(np.abs(np.asarray(off)) < 4), name
