"""Training times of random features: closed moments, gradient flow, verdicts."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import training_times as module

NAME = "training_times"
T = 0.3


def problem(seed=4, n=5, d=3, p=7):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), rng.normal(size=(p, d)), rng


@pytest.mark.parametrize("population", [False, True])
def test_moments_are_those_of_sampled_noise(population):
    x, w, rng = problem()
    draws = 400_000
    z = rng.normal(size=(draws, 3))
    clean = rng.normal(size=(draws, 3)) if population else x[rng.integers(5, size=draws)]
    noised = np.exp(-T) * clean + np.sqrt(-np.expm1(-2 * T)) * z
    s = np.sin(noised @ w.T / np.sqrt(3))
    second, first = module.moments(None if population else x, w, T)
    # products of sines are below 1 and sines times normals have variance below 1
    assert np.max(np.abs(s.T @ s / draws - second)) < 5 / np.sqrt(draws)
    assert np.max(np.abs(s.T @ z / draws - first)) < 5 / np.sqrt(draws)


def test_losses_are_those_of_integrated_gradient_descent():
    x, w, _ = problem()
    p, d = w.shape
    noise = -np.expm1(-2 * T)
    second, first = module.moments(x, w, T)
    second_all, first_all = module.moments(None, w, T)
    weights, step, time = np.zeros((d, p)), 1e-4, 3.0
    for _ in range(round(time / step)):
        slope = 2 * noise / p * weights @ second + 2 * np.sqrt(noise / p) * first.T
        weights -= step * d * slope
    train, test, values = module.losses(x, w, T, np.array([time]))

    def loss(second, first):
        quadratic = noise / p * np.trace(weights @ second @ weights.T)
        return 1 + (quadratic + 2 * np.sqrt(noise / p) * np.trace(weights @ first)) / d

    assert train[0] == pytest.approx(loss(second, first), abs=2e-4)  # first order in the step
    assert test[0] == pytest.approx(loss(second_all, first_all), abs=2e-4)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(second), atol=1e-12)


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=1, controls=2)
    grows, falls = report.summary["slope_memorise"], report.summary["slope_generalise"]
    assert grows["value"] > 4 * grows["error"]
    assert falls["value"] < -4 * falls["error"]


def test_sizes_without_a_slope_are_refused():
    with pytest.raises(ValueError, match="replicas is 1"):
        module.sizes(replace(module.Config(), replicas=1))
    with pytest.raises(ValueError, match="more features than points"):
        module.sizes(replace(module.Config(), psi_p=16.0))


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
