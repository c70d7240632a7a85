"""The optimised guidance schedule: verdicts, gradient through the sampler, theory of the flow."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from experiments import optimal_guidance as module

NAME = "optimal_guidance"
CONFIG = module.Config(dtype="float64", steps=40, knots=4, batch=64)


def test_test_preset(runs, check_run):
    report, folder = runs(NAME)
    check_run(report, folder, NAME, exact=3, controls=1)
    rules = report.summary["rules"]
    constant = next(rules[name] for name in rules if name.startswith("constant"))
    error = np.hypot(rules["optimised"]["objective_error"], constant["objective_error"])
    assert constant["objective"] - rules["optimised"]["objective"] > 4 * error
    # a weight that sees the state does better than one that sees the time only
    for name in ("dynamic", "exact, flow", "exact, SDE"):
        assert rules[name]["forbidden"] < 0.5 * rules["optimised"]["forbidden"]


def test_gradient_through_the_sampler_is_that_of_finite_differences():
    values, key = jnp.asarray([0.4, 0.2, -0.1, 0.3]), jax.random.key(3)
    objective = jax.jit(lambda v: module._objective(v, key, CONFIG))
    gradient = jax.grad(objective)(values)
    step = 1e-5
    for k, unit in enumerate(np.eye(4)):
        numeric = (objective(values + step * unit) - objective(values - step * unit)) / (2 * step)
        assert float(gradient[k]) == pytest.approx(float(numeric), rel=1e-5, abs=1e-9)


def test_without_guidance_the_flow_ends_with_the_weights_of_the_classes():
    found = module.flow_fractions(np.zeros(4), module.knots_of(CONFIG))
    edges = [-np.inf, *module.boundaries(), np.inf]
    want = sum(
        w * np.diff(norm.cdf(edges, m, s))
        for w, m, s in zip(module.WEIGHTS, module.CENTRES, module.SPREADS)
    )
    # the start N(0, 1) at t = 4 is off by e^-t |mean| = 0.002
    np.testing.assert_allclose(found, want, atol=3e-3)


def test_too_few_weights_are_refused():
    with pytest.raises(ValueError, match="constants is 2"):
        module.constants_of(replace(CONFIG, constants=2))


@pytest.mark.slow
def test_quick_preset(tmp_path, execute):
    report = execute(NAME, tmp_path, "quick")
    for comparison in report.comparisons:
        assert comparison.passed is not False, comparison.line()
