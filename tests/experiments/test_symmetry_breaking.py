"""Bifurcations, counts and moments of the test preset."""

import numpy as np
import pytest


def test_run(runs, check_run):
    report, folder = runs("symmetry_breaking")
    check_run(report, folder, "symmetry_breaking", exact=2, controls=2)
    summary = report.summary
    # Newton's tolerance, near the critical time divided by the distance from it
    for name in ("deltas", "circle"):
        assert max(summary[name].values()) < 1e-8
    assert summary["goldstone_rate"] < 1e-8
    assert summary["stable_points"] == {"500": 1, "430": 6, "300": 10}
    for name in ("sde", "ode", "log_density"):
        found = summary[f"critical_{name}"]
        # linear interpolation on a grid of 1e-4
        assert abs(found["measured"] - found["theory"]) < 1e-6
    assert round(summary["index_of_formula"]) == 466
    assert abs(summary["index_of_rate_at_mean"] - 440) < 1
    assert 460 <= summary["index_of_fold"] <= 462
    # the notebook's sign: variance .335 at s = .5
    curves = report.curves
    gap = curves["second"][1, 0] - 0.335
    assert abs(gap) < 4 * curves["second_error"][1, 0] + 0.005
    assert np.all(np.abs(curves["second"][0] - 1) < 4 * curves["second_error"][0])


@pytest.mark.slow
def test_quick(execute, check_run, tmp_path):
    report = execute("symmetry_breaking", tmp_path, preset="quick")
    check_run(report, tmp_path, "symmetry_breaking", exact=2, controls=2)
