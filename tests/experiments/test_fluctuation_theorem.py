"""Fluctuation theorems of the test preset, their reference values, and what is refused."""

import numpy as np
import pytest

from experiments import fluctuation_theorem

NAME = "fluctuation_theorem"
COUNTS = {"exact": 11, "controls": 6}


def test_theorems_hold_and_controls_fail(runs, check_run):
    check_run(*runs(NAME), NAME, **COUNTS)


def test_reference_values(runs):
    """Euler steps of .1 to t = .5, and the detailed theorem at k = .2, for mean = variance = 1."""
    report, folder = runs(NAME)
    found = report.summary["d = 1, t = 0.5: forward, Euler"]
    assert found["theory"] == pytest.approx(1.0063253900, abs=6e-11)
    assert abs(found["value"] - found["theory"]) < 4 * found["error"]
    low, high = found["interval_95"]
    assert high - low == pytest.approx(2 * 1.96 * found["error"])
    with np.load(folder / "curves.npz") as curves:
        assert curves["k"][1] == pytest.approx(0.2)
        for name in ("forward", "reversed"):
            value, error, effective = curves[f"detailed_d1_{name}"][:, 1]
            assert abs(value - 0.9793976288) < 4 * error
            assert 100 < effective < 2**15 / 9


def test_controls_are_strong_in_many_dimensions_only(runs):
    """(c) has no power against a wrong score in d = 1, and enough in d = 64."""
    summary = runs(NAME)[0].summary
    label = "d = {}, control: simulated score too large, noising"
    power = [abs(summary[label.format(d)]["expected_distance_from_one"]) for d in (1, 64)]
    assert power[0] < 3
    assert power[1] > 15


def test_infinite_variance_is_said(runs):
    found = runs(NAME)[0].summary["infinite_variance"]
    low, middle, high = found["5-50-95%"]
    assert low < middle < 1 < high
    assert found["effective_share"] < 0.3


def test_times_and_laws_that_do_not_fit_are_refused():
    make = fluctuation_theorem.Config
    for config, message in (
        (make(times=(0.25, 0.5)), "multiples of dt"),
        (make(times=(0.5, 2.0)), "up to 1"),
        (make(detailed_time=0.4), "detailed_time is 0.4"),
        (make(variances=(1.0,)), "1 variances for 2 dims"),
        (make(paths=1000), "multiple of batch"),
    ):
        with pytest.raises(ValueError, match=message):
            fluctuation_theorem.checked(config)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, **COUNTS)
    summary = report.summary
    label = "d = 1, control: simulated score too large, kernel"
    assert abs(summary[label]["expected_distance_from_one"]) > 5
