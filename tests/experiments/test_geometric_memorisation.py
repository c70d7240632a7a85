"""Geometric memorisation: the runs, and the published numbers at published sizes."""

import jax
import numpy as np
import pytest

import diffjax
from diffjax.observables import geometry
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
@pytest.mark.parametrize(("n", "switch", "sets"), [(500, 0.190, 8), (20_000, 0.193, 2)])
def test_published_switch_by_probes(n, switch, sets):
    """The probe spectrum at the centre of data of unit norm, on a grid of v."""
    v = np.linspace(0.15, 0.25, 21)
    deviation = np.sqrt(experiment.spectrum((2, 5), 30))
    total = np.zeros((21, 30))
    for i in range(sets):
        y = np.random.default_rng(i).normal(size=(n, 30)) * deviation
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        diffusion = diffjax.Diffusion(diffjax.point_cloud(y), diffjax.variance_exploding())
        for j, t in enumerate(0.5 * np.log1p(v)):
            for k in range(2):
                key = jax.random.fold_in(jax.random.key(100 * i + j), k)
                found = geometry.probe_spectrum(key, diffusion, np.zeros(30), t, symmetrised=False)
                total[j] += np.asarray(found)
    gap = total[:, :-1] - total[:, 1:]
    found = v[np.flatnonzero(gap[:, 24] > gap[:, 27])[-1]]
    assert found == pytest.approx(switch, rel=0.05)


@pytest.mark.slow
def test_planted_weight_of_isotropic_data():
    """d = 100, N = 1000: half weight at v = 7.5; full model 6.75, Gaussian energies 8.51."""
    rng, v = np.random.default_rng(3), np.array([6.75, 7.5, 8.25])
    found = np.zeros(3)
    for _ in range(8):
        y = rng.normal(size=(1000, 100)).astype(np.float32)
        noise = rng.normal(size=(1000, 100)).astype(np.float32)
        diffusion = diffjax.Diffusion(diffjax.point_cloud(y), diffjax.variance_exploding())
        for j, t in enumerate(0.5 * np.log1p(v)):
            x = y + np.sqrt(v[j], dtype=np.float32) * noise
            found[j] += np.exp(np.diag(np.asarray(diffusion.index_log_weights(x, t)))).mean() / 8
    # falling, with 1/2 within 10 per cent of 7.5
    assert found[0] > 0.5 > found[2]


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute("geometric_memorisation", tmp_path, preset="quick")
    check_run(report, tmp_path, "geometric_memorisation", exact=1, controls=2)
