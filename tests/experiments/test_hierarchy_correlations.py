"""Correlated changes of random hierarchies: a peak at the loss of the class."""

import numpy as np
import pytest

from experiments import hierarchy_correlations


def test_susceptibility_peaks_where_the_class_is_lost(runs, check_run):
    report, folder = runs("hierarchy_correlations")
    check_run(report, folder, "hierarchy_correlations", exact=6, controls=2)
    shallow, deep = (report.summary[f"L{depth}"] for depth in (2, 4))
    # more leaves change together in the deeper tree, at the noise where its class is lost
    largest = report.curves["chi_L2"].mean(0).max()
    assert deep["chi"] - largest > 4 * deep["chi_error"]
    assert abs(deep["noise"] - deep["class_half"]) < 0.12
    assert shallow["leaves"] == 4
    # without the subtraction of the means there is no peak inside of the range
    assert np.isnan(deep["disconnected_peak"])
    assert np.all(np.diff(report.curves["disconnected_L4"].mean(0)) < 0)


def test_strings_of_a_grammar_are_listed():
    # two classes, two rules each, pairs
    rules = np.array([[[[0, 1], [1, 1]], [[0, 0], [1, 0]]]])
    found = hierarchy_correlations.all_strings(rules)
    assert found.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]
    deeper = hierarchy_correlations.all_strings(np.concatenate([rules, rules]))
    assert deeper.shape == (16, 4)
    assert len(np.unique(deeper, axis=0)) == 16


def test_peak_of_a_parabola():
    noise = np.linspace(0, 1, 11)
    heights = np.array([1.9, 2.0, 2.1])
    curves = heights[:, None] - 3 * (noise - 0.43) ** 2
    found = hierarchy_correlations.peak(noise, curves)
    assert found["noise"] == pytest.approx(0.43, abs=1e-12)
    assert found["chi"] == pytest.approx(2.0, abs=1e-12)
    assert found["noise_error"] == pytest.approx(0, abs=1e-12)
    assert found["chi_error"] == pytest.approx(heights.std(ddof=1) / np.sqrt(3), rel=1e-9)
    assert np.isnan(hierarchy_correlations.peak(noise, noise + 0 * curves)["noise"])


def test_one_grammar_has_no_error():
    config = hierarchy_correlations.Config(grammars=1)
    with pytest.raises(ValueError, match="grammars is 1"):
        hierarchy_correlations.simulate(config, None)


@pytest.mark.slow
@pytest.mark.parametrize("channel", ["masking", "uniform", "gaussian"])
def test_quick_preset(tmp_path, execute, channel):
    report = execute("hierarchy_correlations", tmp_path, "quick", channel=channel)
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
    deep = report.summary["L6"]
    assert deep["chi"] > report.summary["L4"]["chi"] + 3 * deep["chi_error"]
    if channel == "masking":
        # masking .2 of v = 32, m = 8, L = 6: class kept .757, leaves .92; errors of .02 between
        # grammars there and here, and a chord of 0.01
        curves = report.curves
        kept = curves["kept_L6"].mean(0)
        assert np.interp(0.2, curves["noise"], kept[:, 0]) == pytest.approx(0.757, abs=0.06)
        assert np.interp(0.2, curves["noise"], kept[:, -1]) == pytest.approx(0.92, abs=0.02)
