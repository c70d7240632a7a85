"""A trained score against the noising chain: the gap falls with training, a wrong one is seen."""

from itertools import pairwise

import numpy as np
import pytest

from experiments import learned_irreversibility

NAME = "learned_irreversibility"
COUNTS = {"exact": 3, "controls": 3}


def test_exact_values_pass_and_controls_fail(runs, check_run):
    check_run(*runs(NAME), NAME, **COUNTS)


def falls(entries):
    """Whether each gap is below the one before it by 4 of their errors."""
    return all(
        a["gap"] - b["gap"] > 4 * np.hypot(a["error"], b["error"]) for a, b in pairwise(entries)
    )


def test_gap_falls_with_training(runs):
    report, _ = runs(NAME)
    entries = report.summary["networks"]
    assert falls(entries)
    for entry in entries:
        error = np.hypot(entry["error"], entry["expected_error"])
        assert abs(entry["gap"] - entry["expected"]) < 4 * error
        assert entry["z"] > 4


def test_known_scores(runs):
    """The exact score has the entropy of its finite steps, the other one is told from it."""
    summary = runs(NAME)[0].summary
    for name in ("exact", "too_large"):
        found = summary[name]
        assert abs(found["value"] - found["theory"]) < 4 * found["error"]
    assert summary["too_large"]["z"] > 5
    assert summary["exact"]["theory"] > 0


def test_levels_and_looks_that_do_not_fit_are_refused():
    make = learned_irreversibility.Config
    for config, message in (
        (make(t_min=1e-4), "t_min"),
        (make(t_max=9.0), "t_max"),
        (make(looks=(100,)), "looks must be two or more"),
        (make(looks=(100, 50)), "looks must be two or more"),
        (make(levels=25), "levels is 25, not a multiple of 8"),
    ):
        with pytest.raises(ValueError, match=message):
            learned_irreversibility.checked(config)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, **COUNTS)
    assert falls(report.summary["networks"])
    assert report.summary["too_large"]["z"] > 15
