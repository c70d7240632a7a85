"""Classifier-free guidance of Gaussians: exact laws pass, wrong laws and conventions fail."""

import numpy as np
import pytest

NAME = "classifier_free_guidance"


def test_exact_laws_pass_and_controls_fail(runs, check_run):
    check_run(*runs(NAME), NAME, exact=5, controls=3)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, exact=5, controls=3)


@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_marginals_along_the_way(sampler, runs):
    _, folder = runs(NAME)
    samples = 6000
    with np.load(folder / "curves.npz") as curves:
        shift, spread = curves[f"{sampler}_along"]
        exact_shift, exact_spread = curves[f"{sampler}_along_exact"]
        assert shift.shape[1] > 20
    # two runs with common noise differ by less than independent ones
    assert np.all(np.abs(shift - exact_shift) < 4 * np.sqrt(2 * exact_spread / samples))
    # nearly Gaussian: the variance is known to sqrt(2 / n) of itself
    assert np.all(np.abs(spread / exact_spread - 1) < 4 * np.sqrt(2 / samples))
    assert np.max(np.abs(shift[-1])) > 0.5
