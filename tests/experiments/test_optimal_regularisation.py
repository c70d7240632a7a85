"""The optimised smoothing: verdicts, gain over a constant width, no copies."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import optimal_regularisation as module

NAME = "optimal_regularisation"


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=2, controls=2)
    found = report.summary
    gain = found["gain_of_level_dependence"]
    assert gain["value"] > 4 * gain["error"]
    width = found["best_constant_width"]
    # three sets of 64 points: the optimum of a set scatters by 2%, the minimum is flat
    assert abs(width["value"] / width["exact"] - 1) < 0.1
    copies = found["copies"]
    assert copies["none"]["value"] > 0.9
    error = np.hypot(copies["by level"]["error"], copies["truth"]["error"])
    assert copies["by level"]["value"] < copies["truth"]["value"] + 4 * error
    # a smoothing fitted to its own points shrinks where the points are resolved
    curves = report.curves
    assert np.all(curves["overfit_log_variances"][:, 0] < curves["log_variances"][:, 0] - 2)


def test_too_few_widths_or_sets_are_refused():
    with pytest.raises(ValueError, match="widths is 4"):
        module.widths_of(replace(module.Config(), widths=4))
    with pytest.raises(ValueError, match="repeats 1"):
        module.widths_of(replace(module.Config(), repeats=1))


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
