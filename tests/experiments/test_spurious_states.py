"""Patterns on a circle: exact overlays, controls, attractor counts, the control of detection."""

import numpy as np
import pytest

from experiments import spurious_states as experiment
from experiments.session import Session


def test_overlays_and_controls(runs, check_run):
    report, folder = runs("spurious_states")
    check_run(report, folder, "spurious_states", exact=2, controls=2)
    counts = report.curves["counts"][0]
    assert counts[0] == 7  # of nine patterns at v = .001, as published
    assert counts[-1] == 1  # above the variance of the circle
    # chi-square of two components at 20: exp(-10)
    assert (report.curves["memorised_exact"] > 0.998).all()
    assert (report.curves["distances"] < 1).all()


def test_sizes_must_increase(tmp_path):
    session = Session(tmp_path, "x", resume=False, quiet=True, keep=False)
    with pytest.raises(ValueError, match="that increase"):
        experiment.simulate(experiment.Config(sizes=(9, 9)), session)


def test_chance_to_lie_near_a_pattern():
    rng, points = np.random.default_rng(0), experiment.circle(np.array([0.0, np.pi]))
    p = experiment._within(rng, points, 0.01, 0.15)
    assert abs(p - (1 - np.exp(-0.0225 / 0.02))) < 4 * np.sqrt(0.25 / 100_000)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute("spurious_states", tmp_path, preset="quick")
    check_run(report, tmp_path, "spurious_states", exact=2, controls=2)
    parts = [report.curves[kind] for kind in experiment.KINDS]
    np.testing.assert_allclose(np.sum(parts, axis=0), 1, rtol=1e-12)
    # networks copy two patterns, and hardly any of many
    assert report.curves["memorised"][0] > report.curves["memorised"][-1]
