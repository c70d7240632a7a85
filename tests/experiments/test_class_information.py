"""The experiment on class information: verdicts, control, tree, and the network's part."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import class_images, class_information, class_mixtures, command_line
from experiments.session import Session


def test_run(runs, check_run):
    report, folder = runs("class_information")
    check_run(report, folder, "class_information", exact=5, controls=2)
    results = json.loads((folder / "summary.json").read_text())["results"]
    peaks = results["peak_times"]["C"]
    # 0.07306 per t; s = 0.17237 and sigma = 0.8073 on the other clocks
    np.testing.assert_allclose(peaks["per_t"], 0.07306, atol=1e-5)
    index = peaks["per_s"]
    np.testing.assert_allclose(4.975 * 0.17237**2 + 0.05 * 0.17237, index, rtol=1e-3)
    np.testing.assert_allclose(np.sqrt(np.expm1(2 * peaks["per_log_sigma"])), 0.8073, atol=6e-5)
    rms = results["posterior_rms"]["C"]
    assert rms["matched"] < 0.03
    assert rms["wrong_50"] > 0.2
    times = [pair["time"] for pair in results["pairs"]]
    assert len(times) == 3
    assert times == sorted(times, reverse=True)
    assert "clock" in report.finding


def test_decision_times_and_tree():
    """Two near classes and one apart, whose pair entropies are known curves of log t."""
    times = np.geomspace(0.1, 10, 41)
    centres = np.array([[np.nan, 0.5, 2.0], [0.5, np.nan, 2.0], [2.0, 2.0, np.nan]])
    share = 1 / (1 + (centres / times[:, None, None]) ** 2)
    weights = np.array([0.5, 0.3, 0.2])
    q = weights[:, None] / (weights[:, None] + weights)
    full = -q * np.log(q) - (1 - q) * np.log(1 - q)
    measured = {
        "class_weights": weights, "image_times": times, "pair_entropy": share * full,
        "pair_entropy_error": np.full_like(share, 1e-3),
    }  # fmt: skip
    found, errors = class_images.decision_times(measured)
    off = ~np.eye(3, dtype=bool)
    np.testing.assert_allclose(found[off], centres[off], rtol=2e-3)
    assert np.all(errors[off] > 0)
    tree = class_images.tree(found)
    np.testing.assert_allclose(tree[:, 2], [0.5, 2.0], rtol=2e-3)
    assert set(tree[0, :2]) == {0, 1}
    with pytest.raises(FloatingPointError, match="outside of the range"):
        class_images.tree(np.where(off, np.nan, 0))


def test_flags(tmp_path):
    flags = ["--preset", "test", "--mixtures", "A", "D", "--classes", "3", "5"]
    config, _ = command_line.parse("class_information", class_information, flags)
    assert config.mixtures == ("A", "D")
    assert config.classes == ("3", "5")
    unknown = Session(tmp_path, "x", resume=False, quiet=True, keep=False)
    with pytest.raises(ValueError, match="choose some of A, B, C, D"):
        class_information.simulate(replace(config, mixtures=("E",)), unknown)


def test_grid_is_that_of_ddpm():
    grid = class_mixtures.ddpm_grid(50)
    np.testing.assert_allclose(grid[[0, -1]], [5.05886, 5.0e-5], rtol=1e-4)
    assert np.all(np.diff(grid) < 0)
    places = class_mixtures.tracked_places(250, 6)
    assert len(places) == 6


@pytest.mark.slow
def test_quick_preset_trains_a_network(execute, check_run, tmp_path):
    report = execute("class_information", tmp_path, preset="quick")
    check_run(report, tmp_path, "class_information", exact=5, controls=2)
    with np.load(tmp_path / "curves.npz") as curves:
        exact, network = curves["image_tracked_entropy"], curves["network_entropy"]
        # nothing known at the start, all of it at the end; between them not far from the points
        for entropy in (exact, network):
            assert abs(entropy[0] - np.log(10)) < 0.01
            assert entropy[-1] < 0.1
        assert np.abs(exact - network).max() < 0.5
