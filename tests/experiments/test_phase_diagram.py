"""The phase diagram: verdicts, counts of stable points, order of the boundaries."""

import numpy as np
import pytest

NAME = "phase_diagram"


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=3, controls=3)
    wrong = report.summary["mismatches"]
    assert wrong["wells"] == 0
    assert wrong["modes"] == 0
    assert wrong["critical_u_existence"] == 0
    assert wrong["critical_p_existence"] == 0
    # interpolation of a smooth rate: h^2/8 of its second over its first derivative
    assert max(wrong["critical_u"], wrong["critical_p"]) < 2e-3
    zero, error, exact = report.summary["flow_zero"]
    assert abs(zero - exact) < 4 * error + 2e-3  # linear interpolation between times
    with np.load(folder / "curves.npz") as curves:
        # all of the phases are met: none, one and two wells, the second ones with both modes
        assert set(np.unique(curves["wells"])) == {0, 1, 2}
        assert set(np.unique(curves["modes"][curves["wells"] == 2])) == {1, 2}
    moment, error, exact = report.summary["second_moment"]
    assert abs(moment - exact) < 4 * error + 0.03  # Euler steps of 0.005


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
    assert report.summary["mismatches"]["wells"] == 0
    assert report.summary["mismatches"]["modes"] == 0
