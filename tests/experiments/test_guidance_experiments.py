"""Guided samplers in experiments: exact laws pass, wrong laws and conventions fail."""

import numpy as np
import pytest

CASES = (("classifier_free_guidance", 5, 3), ("negative_guidance", 2, 2))


@pytest.mark.parametrize(("name", "exact", "controls"), CASES)
def test_exact_laws_pass_and_controls_fail(name, exact, controls, runs, check_run):
    report, folder = runs(name)
    check_run(report, folder, name, exact=exact, controls=controls)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "exact", "controls"), CASES)
def test_quick_presets(name, exact, controls, execute, check_run, tmp_path):
    report = execute(name, tmp_path, preset="quick")
    check_run(report, tmp_path, name, exact=exact, controls=controls)


@pytest.mark.parametrize("sampler", ["sde", "ode"])
def test_marginals_along_the_way(sampler, runs):
    _, folder = runs("classifier_free_guidance")
    samples = 6000
    with np.load(folder / "curves.npz") as curves:
        shift, spread = curves[f"{sampler}_along"]
        exact_shift, exact_spread = curves[f"{sampler}_along_exact"]
        assert shift.shape[1] > 20
    # two runs with common noise differ by less than independent ones
    assert np.all(np.abs(shift - exact_shift) < 4 * np.sqrt(2 * exact_spread / samples))
    # nearly Gaussian: the variance is known to sqrt(2 / n) of itself
    assert np.all(np.abs(spread / exact_spread - 1) < 4 * np.sqrt(2 / samples))
    assert np.max(np.abs(shift[-1])) > 0.5


def test_a_constant_weight_leaves_the_data_and_a_dynamic_one_does_not(runs):
    report, _ = runs("negative_guidance")
    for case, entry in report.summary.items():
        normal = entry["exact posterior"]["distance"]["value"]
        ratio = {row: entry[row]["distance"]["value"] / normal for row in ("NP 0.25", "NP 1")}
        assert 1.7 < ratio["NP 0.25"] < 4.2, case
        assert 6 < ratio["NP 1"] < 27, case
        for row in ("DNG", "DNG, normalised"):
            quantities = entry[row]
            assert quantities["distance"]["value"] < 1.1 * normal
            assert quantities["forbidden"]["value"] < 0.1 * entry["none"]["forbidden"]["value"]
            assert quantities["balance"]["value"] < 0.1


def test_the_bridge_variance_ruins_only_coarse_chains(runs):
    report, folder = runs("negative_guidance")
    with np.load(folder / "curves.npz") as curves:
        for case in report.summary:
            fine = curves[f"DNG_tracking_{case}"].mean(0)
            coarse = curves[f"coarse_dynamic_tracking_{case}"].mean(0)
            assert fine[:-1].max() < 0.05
            assert coarse[-1] > 0.2
