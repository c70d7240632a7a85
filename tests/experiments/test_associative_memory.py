"""Retrieval and recovery of patterns: exact overlays, controls, order of the times."""

import numpy as np
import pytest

from experiments import associative_memory as experiment


def test_overlays_and_controls(runs, check_run):
    report, folder = runs("associative_memory")
    check_run(report, folder, "associative_memory", exact=3, controls=3)
    assert report.summary["relative_rounding"] < 1e-12
    times = report.summary["half_times"]
    assert times["own weight"] < times["clean cue, own weight"]
    assert report.summary["t_C"] < report.summary["t_o"]
    # more patterns, fewer retrieved
    for size in (8, 12):
        retrieved = report.curves[f"retrieved_n{size}"]
        assert (retrieved[:, 0] > retrieved[:, -1] + 0.3).all()


def test_half_loads_and_their_limit():
    config = experiment.Config(sizes=(8, 16), loads=3, sets=50)
    measured = {}
    for size in config.sizes:
        alpha = np.log(experiment.counts(config, size)) / size
        middle = 0.5 - 1 / size  # a straight curve through one half
        measured[f"retrieved_n{size}"] = np.tile(0.5 + middle - alpha, (3, 1))
        measured[f"retrieved_error_n{size}"] = np.full((3, 3), 0.02)
    value, error = experiment.half_loads(config, measured)
    np.testing.assert_allclose(value, np.tile([0.375, 0.4375], (3, 1)), rtol=1e-12)
    limit, spread = experiment.extrapolated(config, measured)
    np.testing.assert_allclose(limit, 0.5, rtol=1e-12)
    np.testing.assert_allclose(spread, np.hypot(2 * error[:, 1], error[:, 0]), rtol=1e-9)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute("associative_memory", tmp_path, preset="quick")
    check_run(report, tmp_path, "associative_memory", exact=3, controls=3)
    # the load at half retrieval grows with the size, towards the limit
    for entry in report.summary["families"].values():
        assert entry["half_loads"][0] < entry["half_loads"][-1] < entry["threshold"]
