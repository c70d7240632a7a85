"""Exact scores remove a class of images exactly, wrong targets fail, rules do what they are for."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import negative_guidance_images as experiment

NAME = "negative_guidance_images"


def test_exact_scores_pass_and_controls_fail(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=2, controls=2)
    # the forbidden class is the third of four; nothing of it is left by the true posterior
    assert report.curves["exact_2"][0, 2] == 0
    assert np.all(report.curves["exact_2"][0, [0, 1, 3]] > 0)


def test_rules_lower_the_forbidden_fraction(runs):
    report, _ = runs(NAME)
    assert report.summary["classifier_accuracy"] > 0.9
    rules = {(r["rule"], r["weight"]): r for r in report.summary["rules"]}
    unguided = rules["prompt", 0.0]["forbidden"]["value"]
    for rule in (("prompt", 2.0), ("dynamic", 1.0), ("normalised", 1.0)):
        assert rules[rule]["forbidden"]["value"] < 0.9 * unguided, rule
    # a constant weight leaves the data, a tracked one does not
    distance = {rule: entry["distance"]["value"] for rule, entry in rules.items()}
    assert distance["prompt", 2.0] > 1.15 * distance["prompt", 0.0]
    for rule in ("dynamic", "normalised"):
        assert abs(distance[rule, 1.0] / distance["prompt", 0.0] - 1) < 0.1


@pytest.mark.slow
def test_quick_preset(execute, check_run, tmp_path):
    report = execute(NAME, tmp_path, preset="quick")
    check_run(report, tmp_path, NAME, exact=2, controls=2)


def test_shares_in_turn():
    # 1/2 of all, then 1/4 of the half that is left in the first and all of nothing after it
    found = experiment.in_turn(np.array([0.125, 0.5, 0.375]), 1)
    np.testing.assert_allclose(found, [0.5, 0.25], rtol=1e-14)
    rng = np.random.default_rng(0)
    p = np.array([0.3, 0.2, 0.4, 0.1])
    drawn = np.stack([experiment.in_turn(c, 2) for c in rng.multinomial(200, p, size=4000)])
    correlation = np.corrcoef(drawn.T)[~np.eye(3, dtype=bool)]
    assert np.all(np.abs(correlation) < 4 / np.sqrt(4000))


def test_unknown_class_is_refused():
    config = experiment.Config(**experiment.PRESETS["test"])
    with pytest.raises(ValueError, match="remove names 5"):
        experiment.load(replace(config, remove=("5",)))
