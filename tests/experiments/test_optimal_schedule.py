"""Optimal time grids: verdicts, gradient through the sampler, laws of few steps."""

import itertools
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import optimal_schedule as module
from experiments import optimal_schedule_theory as theory_part

NAME = "optimal_schedule"
CONFIG = module.Config(steps=4, batch=256)


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=3, controls=3)
    rows, least = report.summary["schedules"], report.summary["least"]
    for key, best in (
        ("divergence", "constant sampler speed"), ("distance", "constant transport speed")
    ):  # fmt: skip
        others = [rows[name][key] for name in module.BASELINES if name != best]
        error = rows[best][f"{key}_error"]
        assert min(others) > rows[best][key] + 3 * error
    trained = rows["trained on divergence"]
    # the optimum is flat: the exact divergence of the trained grid is the least one
    assert least * (1 - 1e-6) <= trained["divergence_theory"] < 1.01 * least
    trained, reverse = rows["trained on transport"], rows["trained, reversed"]
    assert trained["distance_theory"] < 0.6 * rows["uniform log snr"]["distance_theory"]
    assert reverse["distance_theory"] > 2 * trained["distance_theory"]
    # gradient descent on the action and equal lengths agree up to the discretisation
    assert report.summary["action"] <= report.summary["action_equal"]
    assert report.summary["action_distance"] < 0.6 / 16  # a fraction of a piece


def test_gradient_through_the_sampler_is_that_of_finite_differences():
    target = module._target(jax.random.key(1), CONFIG)
    key, logits = jax.random.key(3), jnp.asarray([0.4, 0.2, -0.1, 0.3])

    def loss(values):
        return module._transport_loss(key, module.grid_of(values, CONFIG), target, CONFIG)

    gradient = jax.jit(jax.grad(loss))(logits)
    value, step = jax.jit(loss), 1e-6
    for k, unit in enumerate(np.eye(4)):
        numeric = (value(logits + step * unit) - value(logits - step * unit)) / (2 * step)
        assert float(gradient[k]) == pytest.approx(float(numeric), rel=1e-4, abs=1e-7)


def test_grids_decrease_between_the_ends_and_invert():
    grid = np.asarray(module.grid_of(jnp.asarray([1.0, -2.0, 0.3, 0.0]), CONFIG))
    assert grid[0] == CONFIG.t_max
    assert grid[-1] == CONFIG.t_min
    assert np.all(np.diff(grid) < 0)
    again = module.grid_of(jnp.asarray(module.logits_of(grid)), CONFIG)
    np.testing.assert_allclose(again, grid, rtol=1e-12)


def test_sampled_law_of_a_gaussian_is_a_recursion_of_variances():
    """Without centres every step is linear: variance to (c_a k + c_x)^2 variance + V."""
    config = replace(CONFIG, mean=0.0, variance=0.4, t_min=0.05)
    grid = np.array([3.0, 1.1, 0.5, 0.2, 0.05])
    variance = 1 + (0.4 - 1) * math.exp(-6)
    for t, s in itertools.pairwise(grid):
        noise_t, noise_s = -np.expm1(-2 * t), -np.expm1(-2 * s)
        gain = math.exp(-t) * 0.4 / (noise_t + 0.4 * math.exp(-2 * t))
        across = -np.expm1(-2 * (t - s))
        c_a = math.exp(-s) * across / noise_t
        c_x = math.exp(-(t - s)) * noise_s / noise_t
        variance = (c_a * gain + c_x) ** 2 * variance + noise_s * across / noise_t
    second, spread, distance = theory_part.sampled_law(config, grid)
    assert second == pytest.approx(variance, rel=1e-8)
    assert spread == pytest.approx(2 * variance**2, rel=1e-7)
    wanted = math.sqrt(1 + (0.4 - 1) * math.exp(-0.1))
    assert distance == pytest.approx((math.sqrt(variance) - wanted) ** 2, rel=2e-3)


def test_too_few_fits_are_refused():
    with pytest.raises(ValueError, match="fits is 1"):
        module.simulate(replace(CONFIG, fits=1), None)


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
    rows = report.summary["schedules"]
    trained, other = rows["trained on transport"], rows["constant transport speed"]
    error = math.hypot(trained["distance_error"], other["distance_error"])
    assert other["distance"] - trained["distance"] > 3 * error
    assert rows["trained on divergence"]["divergence_theory"] < 1.001 * report.summary["least"]
