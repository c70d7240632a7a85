"""Geometric memorisation: the runs, and the published numbers at published sizes."""

import jax
import numpy as np
import pytest

from experiments import geometric_memorisation as experiment


def test_small_run(runs, check_run):
    report, folder = runs("geometric_memorisation")
    check_run(report, folder, "geometric_memorisation", exact=1, controls=2)
    for family, steepest in (("first", -0.3), ("second", -0.2)):
        found = report.summary[family]
        # falls with N, above the model for training points and lower for fresh ones
        assert found["train_exponent"] < steepest
        assert np.all(found["train_over_full_rem"] > 1)
        assert np.all(found["fresh_half"] < found["train_half"])
    # weak first for ten strong directions; a tie for two, within its error
    (strong, e1), (weak, e2) = report.summary["second"]["median_retained_half"]
    assert weak - strong > 2 * np.hypot(e1, e2)
    assert "no sign of memorisation" in report.finding


def test_switch_of_the_population_itself():
    # |1 - c_1/v| = |1 - c_2/v| at v = (c_1 + c_2)/2
    c = np.r_[[0.35] * 2, [0.06] * 5, [1e-4] * 23]
    assert experiment.gap_switch(c, (2, 5)) == pytest.approx(0.205, rel=2e-3)
    v = np.array([0.1, 0.2, 0.4])
    assert experiment.half(v, np.array([0.9, 0.75, 0.25])) == pytest.approx(0.2 * 2**0.5)
    assert np.isnan(experiment.half(v, np.array([0.9, 0.8, 0.7])))


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="shown is 7"):
        experiment.families(experiment.Config(shown=7))
    with pytest.raises(ValueError, match="sets is 1"):
        experiment.families(experiment.Config(sets=1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "n", "train", "fresh"),
    [((2, 5), 1000, 0.0398, 0.0272), ((10, 5), 10_000, 0.264, 0.152), ((5, 5), 100, 0.348, None)],
)
def test_published_condensation(dims, n, train, fresh):
    config = experiment.Config(grid=40, sets=10, states=300)
    curves = experiment._condensation(jax.random.key(4), dims, n, config, None)
    for k, want in enumerate((train, fresh)):
        if want is not None:
            value, _ = experiment.halves(curves["v"], curves["participation"][:, k])
            assert value == pytest.approx(want, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dims", "strong", "weak"), [((2, 5), 0.0145, 0.0143), ((10, 5), 0.12, 0.25)]
)
def test_published_order_of_loss_at_fresh_points(dims, strong, weak):
    config = experiment.Config(grid=40, sets=10, states=300)
    curves = experiment._condensation(jax.random.key(5), dims, 1000, config, None)
    found = experiment.median_halves(curves["v"], curves["retained"])[:, 0]
    np.testing.assert_allclose(found, [strong, weak], rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "switch"), [(1000, 0.213), (20_000, 0.207)])
def test_published_switch_at_the_centre(n, switch):
    config = experiment.Config(sets=8)
    found = experiment._centre(jax.random.key(6), n, config)["switch"].mean()
    assert found == pytest.approx(switch, rel=0.05)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute("geometric_memorisation", tmp_path, preset="quick")
    check_run(report, tmp_path, "geometric_memorisation", exact=1, controls=2)
