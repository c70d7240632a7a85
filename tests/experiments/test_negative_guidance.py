"""Negative guidance of mixtures: exact laws pass, wrong conventions fail."""

import numpy as np
import pytest

NAME = "negative_guidance"


def test_exact_laws_pass_and_controls_fail(runs, check_run):
    check_run(*runs(NAME), NAME, exact=2, controls=2)


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, exact=2, controls=2)


def test_a_constant_weight_leaves_the_data_and_a_dynamic_one_does_not(runs):
    report, _ = runs(NAME)
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
    report, folder = runs(NAME)
    with np.load(folder / "curves.npz") as curves:
        for case in report.summary:
            fine = curves[f"DNG_tracking_{case}"].mean(0)
            coarse = curves[f"coarse_dynamic_tracking_{case}"].mean(0)
            assert fine[:-1].max() < 0.05
            assert coarse[-1] > 0.2
