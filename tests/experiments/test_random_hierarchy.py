"""U-turns on random hierarchies: the test preset, and the published beliefs and crossings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import random_hierarchy as experiment
from experiments.random_hierarchy_report import PUBLISHED
from experiments.random_hierarchy_theory import CHANNELS

EXACT, CONTROLS = 6, 2


def test_run(runs, check_run):
    report, folder = runs("random_hierarchy")
    check_run(report, folder, "random_hierarchy", exact=EXACT, controls=CONTROLS)
    summary, curves = report.summary, report.curves
    assert summary["chain"]["valid_strings"] == 1
    # at the last time of Euler-Maruyama a wrong symbol would cost 1 / 2t = 500 nats
    assert summary["chain"]["valid_strings_euler_maruyama"] == 1
    assert curves["chain_valid"][0] < 0.1
    assert curves["chain_classes"].sum() == curves["sde_classes"].sum() == 1000
    for channel in ("masking", "corruption", "gaussian"):
        entry = summary[channel]
        error = np.hypot(entry["crossing_error"], entry["transition_error"])
        assert 0 < error < np.inf
        # the class fades from the least to the largest noise, the leaves less so
        for depth in (2, 4):
            kept = curves[f"survives_{channel}_L{depth}"]
            assert kept[0, 0] > kept[-1, 0]
            assert kept[0, -1] - kept[-1, -1] < kept[0, 0] - kept[-1, 0]


@pytest.mark.slow
def test_quick(execute, check_run, tmp_path):
    report = execute("random_hierarchy", tmp_path, preset="quick")
    check_run(report, tmp_path, "random_hierarchy", exact=EXACT, controls=CONTROLS)
    for channel, crossing in PUBLISHED.items():
        entry = report.summary[channel]
        # two digits are published, of other grammars; shallower trees cross a little earlier
        spread = 4 * np.sqrt(2) * entry["crossing_error"]
        assert abs(entry["crossing"] - crossing) < spread + 0.005
        error = np.hypot(entry["crossing_error"], entry["transition_error"])
        assert abs(entry["crossing"] - entry["transition"]) < 4 * error


# (channel, depth, noise, value) for 32 symbols, 8 synonyms, pairs; published errors .01 to .02
VALUES = [
    *(("masking", depth, 0.2, value) for depth, value in ((3, 0.637), (5, 0.672), (7, 0.818))),
    *(("masking", depth, 0.3, value) for depth, value in ((3, 0.446), (5, 0.389), (7, 0.335))),
    *(("corruption", depth, 0.11, value) for depth, value in ((3, 0.695), (5, 0.724), (7, 0.783))),
    *(("gaussian", depth, 0.06, value) for depth, value in ((3, 0.694), (5, 0.776), (7, 0.849))),
    ("masking", 9, 0.2, 0.910), ("masking", 9, 0.3, 0.263), ("corruption", 9, 0.11, 0.856),
    ("gaussian", 9, 0.06, 0.924), ("process", 6, 0.5, 0.968), ("process", 6, 0.7, 0.597),
    ("process", 6, 0.78, 0.060), ("masking", 6, 0.2, 0.748),
]  # fmt: skip


@pytest.fixture(scope="module")
def rules():
    return jnp.asarray(experiment._grammars(experiment.Config(grammars=24)))


@pytest.mark.slow
@pytest.mark.parametrize(("channel", "depth", "noise", "value"), VALUES)
def test_published_beliefs(rules, channel, depth, noise, value):
    keys = jax.random.split(jax.random.key(1), len(rules))
    which = CHANNELS.index(channel)
    kept, belief, _ = experiment._turn(keys, rules, which, jnp.asarray(noise), depth, 48)
    each = np.asarray(belief)[..., 0].mean(1)
    error = each.std(ddof=1) / np.sqrt(len(each))
    assert abs(each.mean() - value) < 4 * np.hypot(error, 0.015)
    if (channel, depth) == ("masking", 6):
        unchanged, leaves = np.asarray(kept).mean((0, 1))[[0, -1]]
        assert abs(unchanged - 0.757) < 4 * np.hypot(error, 0.015)
        assert abs(leaves - 0.92) < 0.02
