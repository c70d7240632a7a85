"""Overlaps and Franz-Parisi potentials: verdicts, the published one-dimensional caveat, scaling."""

import numpy as np
import pytest

from experiments.comparison import histogram_hazards

NAME = "franz_parisi"


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=9, controls=4)
    minima = report.summary["second_minimum_times"]
    assert minima["q"] == pytest.approx(0.2118, abs=6e-5)
    assert minima["sqrt_q"] == pytest.approx(0.1799, abs=6e-5)


def test_hazards_are_uncorrelated_frequencies():
    """A fair die: the chance of a face among those not below it, with its binomial error."""
    rng = np.random.default_rng(0)
    edges = np.arange(7) + 0.5
    q = rng.integers(1, 7, 60_000).astype(float)
    value, error, expected = histogram_hazards(q, edges, np.linspace(0, 1, 7))
    np.testing.assert_allclose(expected[:5], 1 / np.arange(6, 1, -1))
    assert np.isnan(expected[5])  # the last one is certain
    assert np.all(np.abs(value - expected)[:5] < 4 * error[:5])


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
    times = [v[0] for v in report.summary["own_weight_half"].values()]
    limit = report.summary["collapse_time"]
    assert np.all(np.diff(times) < 0)  # towards the limit from above
    assert times[-1] > limit
