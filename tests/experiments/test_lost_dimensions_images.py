"""Lost dimensions of images: the runs, and what is read off their curves."""

import numpy as np
import pytest

from experiments import lost_dimensions_images as experiment


def test_small_run(runs, check_run):
    report, folder = runs("lost_dimensions_images")
    check_run(report, folder, "lost_dimensions_images", exact=1, controls=1)
    few, control = (report.curves[f"dimension_fresh_{name}"] for name in ("60", "control"))
    assert few.min() == 0  # everything lost at small noise
    assert np.all(few <= control)
    assert control.max() > 8
    assert np.isfinite(report.summary["half_lost_time"]["60"])


def test_sets_are_disjoint_and_too_many_images_are_refused():
    _, parts = experiment.load(experiment.Config(sizes=(10, 20), control=30, states=5))
    rows = np.concatenate([parts["20"], parts["control"], parts["states"]])
    assert len(np.unique(rows, axis=0)) == 55
    np.testing.assert_array_equal(parts["10"], parts["20"][:10])
    with pytest.raises(ValueError, match="lower --control"):
        experiment.load(experiment.Config(control=5000))


def test_time_of_loss():
    times, control = np.array([0.1, 0.2, 0.4]), np.array([10, 8, 1])
    assert experiment.lost_time(times, np.array([0, 4, 0]), control) == 0.2
    assert np.isnan(experiment.lost_time(times, np.array([9, 8, 1]), control))


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute("lost_dimensions_images", tmp_path, preset="quick")
    check_run(report, tmp_path, "lost_dimensions_images", exact=1, controls=1)
