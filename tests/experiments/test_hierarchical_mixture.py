"""Levels of a hierarchical mixture: each decides at its own time."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import hierarchical_mixture


def test_levels_follow_their_theory(runs, check_run):
    report, folder = runs("hierarchical_mixture")
    check_run(report, folder, "hierarchical_mixture", exact=5, controls=6)
    summary = report.summary
    for dim in hierarchical_mixture.PRESETS["test"]["dims"]:
        entry = summary[f"d{dim}"]
        assert np.all(np.abs(entry["crossing"] - entry["exact"]) < 4 * entry["crossing_error"])
        assert np.all(np.diff(entry["crossing"]) < -4 * entry["crossing_error"][:-1])
    slopes = summary["slopes"]
    expected = 0.5 * np.asarray(hierarchical_mixture.Config().exponents)
    assert np.all(np.abs(slopes["value"] - slopes["exact"]) < 4 * slopes["error"])
    assert np.all(np.abs(slopes["exact"] - expected) < 0.01)


def test_directions_are_orthonormal_and_dimensions_fit():
    axes = hierarchical_mixture.directions(24, 3)
    np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-12)
    with pytest.raises(ValueError, match="multiples of 8 for 3 levels, got 12"):
        hierarchical_mixture.directions(12, 3)


def test_centres_have_the_norms_of_their_levels():
    config = replace(hierarchical_mixture.Config(), dtype="float64")
    means = np.asarray(hierarchical_mixture.mixture(config, 64).data.means)
    table = hierarchical_mixture.sign_table(3)
    levels = table.T @ means / len(means)  # (L, d)
    expected = np.diag(1.5 * 64.0 ** np.array([1.0, 0.6, 0.25]))
    np.testing.assert_allclose(levels @ levels.T, expected, atol=1e-10)


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute("hierarchical_mixture", tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
