"""Rates, integrals and finite steps of entropy production, and what is refused."""

import numpy as np
import pytest

from experiments import entropy_production, entropy_production_theory

NAME = "entropy_production"
COUNTS = {"exact": 12, "controls": 4}


def test_exact_values_pass_and_controls_fail(runs, check_run):
    check_run(*runs(NAME), NAME, **COUNTS)


def test_reference_values(runs):
    """Zero and minimum of the generative flow at mean 1 and variance .4; bias at dt = .05."""
    summary = runs(NAME)[0].summary
    for name, exact in (("zero", 0.2444680966), ("minimum", 0.4931107696)):
        found = summary[f"phi* {name}, time"]
        assert found["exact"] == pytest.approx(exact, abs=1e-9)
        # a cubic through the exact curve is off by less than the error of the simulation
        assert abs(found["theory"] - exact) < 0.004
        assert abs(found["value"] - found["theory"]) < 4 * found["error"]
    depth = summary["phi* minimum, value"]
    assert abs(depth["theory"] + 0.0911517771) < 0.002
    for name, low in (("midpoint", 0.085), ("kernel", 0.096)):
        theory = summary[f"d = 1, dt = 0.05: mean, {name}"]["theory"]
        assert 1 - theory / 0.1589479106 == pytest.approx(low, abs=3e-3)


def test_error_of_the_denoiser_is_that_of_spins_and_noise():
    """Reference at mean 1, variance .4, t = .5, and a Gaussian across."""
    found = entropy_production_theory.error_of_denoiser(np.array([0.5]), 1, 1.0, 0.4)
    assert found[0] == pytest.approx(0.7615237913, abs=1e-9)
    snr = 1 / np.expm1(1.0)
    across = entropy_production_theory.error_of_denoiser(np.array([0.5]), 3, 1.0, 0.4)
    assert across[0] - found[0] == pytest.approx(2 * 0.4 / (1 + 0.4 * snr), abs=1e-9)


def test_exponential_averages_are_one_where_means_are_biased(runs):
    _, folder = runs(NAME)
    with np.load(folder / "curves.npz") as curves:
        steps = curves["steps"]
        value, error = curves["averages_d1"][:, 1, np.argmax(steps)]
        mean, mean_error = curves["means_d1"][:, 1, np.argmax(steps)]
    assert abs(value - 1) < 4 * error
    assert 0.1589479106 - mean > 8 * mean_error


def test_sizes_that_do_not_fit_are_refused():
    make = entropy_production.Config
    for config, message in (
        (make(paths=1000), "multiple of batch"),
        (make(dims=(4, 16)), "expected 1 among them"),
        (make(path_variances=(1.0,)), "path_variances"),
        (make(steps=(2, 20)), "steps of t_final"),
    ):
        with pytest.raises(ValueError, match=message):
            entropy_production.checked(config)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, **COUNTS)
    # bias halves with the step, to the next order
    with np.load(tmp_path / "curves.npz") as curves:
        low = 0.1589479106 - curves["means_theory_d1"][:2]
    assert np.all(np.abs(low[:, :-1] / low[:, 1:] - 2) < 0.2)
