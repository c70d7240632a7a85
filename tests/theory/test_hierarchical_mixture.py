"""Hierarchical mixtures against limits, sampling and the theory of independent levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import clone_agreement, many_classes, speciation
from theory import hierarchical_mixture as hierarchy

TIMES = np.array([0.3, 0.9])
BRANCHES = np.array([3.0, 1.5])
SPREAD = (0.5, 0.8)  # variance, temperature


@pytest.fixture(scope="module")
def exact():
    return hierarchy.branching_clone_agreement(TIMES, 2.0, BRANCHES, *SPREAD)


def test_branching_tree_against_sampled_posteriors(exact):
    rng = np.random.default_rng(5)
    samples = 400_000
    for i, t in enumerate(TIMES):
        gamma = -0.8 * np.expm1(-2 * t) + 0.5 * np.exp(-2 * t)
        centres = np.array([[2, 3, 0], [2, -3, 0], [-2, 0, 1.5], [-2, 0, -1.5]]) * np.exp(-t)
        own = rng.integers(0, 4, samples)
        x = centres[own] + np.sqrt(gamma) * rng.standard_normal((samples, 3))
        logs = -((x[:, None] - centres) ** 2).sum(-1) / (2 * gamma)
        p = np.exp(logs - logs.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        branch = p[:, :2].sum(-1)
        for values, expected in (
            (branch**2 + (1 - branch) ** 2, exact.branch[i]),
            ((p**2).sum(-1), exact.leaf[i]),
        ):
            error = values.std() / np.sqrt(samples)
            assert abs(values.mean() - expected) < 4 * error


def test_branching_tree_without_lower_splits_has_two_classes():
    found = hierarchy.branching_clone_agreement(TIMES, 2.0, np.zeros(2), *SPREAD)
    expected = clone_agreement.mixture_clone_agreement(TIMES, 2.0, 0.5, 0.5, 0.8)
    np.testing.assert_allclose(found.branch, expected, atol=1e-9)
    np.testing.assert_allclose(found.leaf, expected / 2, atol=1e-9)


def test_distant_branches_split_like_two_classes_each():
    """The root known for sure: the class is that of a branch, averaged over the two."""
    found = hierarchy.branching_clone_agreement(TIMES, 1e4, BRANCHES, *SPREAD)
    apart = clone_agreement.mixture_clone_agreement(TIMES[:, None], BRANCHES, 0.5, 0.5, 0.8)
    np.testing.assert_allclose(found.branch, 1, atol=1e-12)
    np.testing.assert_allclose(found.leaf, apart.mean(1), atol=1e-9)


def test_lower_splits_of_their_own_tell_of_the_branch(exact):
    apart = many_classes.hierarchy_clone_agreement(TIMES, [2.0], *SPREAD)[:, 0]
    assert np.all(exact.branch > apart + 0.01)
    assert np.all(exact.leaf < exact.branch)
    # the order of the branches does not matter
    turned = hierarchy.branching_clone_agreement(TIMES, 2.0, BRANCHES[::-1], *SPREAD)
    np.testing.assert_allclose(turned.leaf, exact.leaf, rtol=1e-13)


def test_highest_change_is_a_distribution_and_counts_from_the_top():
    phi = np.array([[0.9, 0.7, 0.6], [1.0, 0.5, 0.5]])
    found = np.asarray(hierarchy.highest_change(phi))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-14)
    np.testing.assert_allclose(found[0], [0.1, 0.9 * 0.3, 0.9 * 0.7 * 0.4, 0.9 * 0.7 * 0.6])
    np.testing.assert_allclose(found[1], [0, 0.5, 0.25, 0.25])


def test_overlap_of_a_gaussian_direction():
    rng = np.random.default_rng(2)
    t, variance, temperature, samples = 0.6, 0.4, 0.7, 400_000
    a = np.sqrt(variance) * rng.standard_normal(samples)
    noise = -temperature * np.expm1(-2 * t)
    x = np.exp(-t) * a + np.sqrt(noise) * rng.standard_normal(samples)
    gain = np.exp(-t) * variance / (noise + np.exp(-2 * t) * variance)
    again = gain * x + np.sqrt(variance * (1 - gain * np.exp(-t))) * rng.standard_normal(samples)
    values = a * again / variance
    expected = hierarchy.uturn_overlap(t, variance, temperature)
    assert abs(values.mean() - expected) < 4 * values.std() / np.sqrt(samples)
    assert hierarchy.uturn_overlap(0.0, variance) == 1
    assert hierarchy.uturn_overlap(t, 0.0) == 0


@pytest.mark.parametrize("level", [0.2, 0.5, 0.9])
def test_overlap_time_inverts_the_overlap(level):
    eigenvalues = np.array([0.05, 1.0, 30.0])
    times = hierarchy.overlap_time(eigenvalues, level, 0.7)
    found = hierarchy.uturn_overlap(times, eigenvalues, 0.7)
    np.testing.assert_allclose(found, level, rtol=1e-12)
    half = hierarchy.overlap_time(eigenvalues, 0.5, 0.7)
    np.testing.assert_allclose(half, speciation.static_time(eigenvalues, 0.7), rtol=1e-12)


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (hierarchy.highest_change, (np.array([0.9, 0.6]),)),
        (hierarchy.uturn_overlap, (0.7, 0.4, 0.6)),
        (hierarchy.overlap_time, (0.7, 0.4, 0.6)),
        (lambda *a: jnp.stack(hierarchy.branching_clone_agreement(*a)), (0.7, 2.0, BRANCHES, 0.4)),
    ],
)
def test_functions_differentiate_under_jit_and_vmap(function, arguments):
    values = tuple(jnp.asarray(a, float) for a in arguments)

    def total(step):
        return jnp.sum(jnp.cos(function(*(v * (1 + step) for v in values))))

    both = jax.jit(jax.vmap(jax.value_and_grad(total)))
    steps = 1e-5 * np.array([-1.0, 0.0, 1.0])
    value, slope = both(jnp.asarray(steps))
    np.testing.assert_allclose(value[1], total(0.0), rtol=1e-12)
    # central difference: error of order step squared, 1e-10
    np.testing.assert_allclose((value[2] - value[0]) / 2e-5, slope[1], rtol=1e-6, atol=1e-9)


def test_single_precision_stays_single(strict, exact):
    single = [np.asarray(v, np.float32) for v in (TIMES, 2.0, BRANCHES, *SPREAD)]
    found = hierarchy.branching_clone_agreement(*single)
    changed = hierarchy.highest_change(found.branch[:, None])
    overlap = hierarchy.uturn_overlap(single[0], single[3], single[4])
    time = hierarchy.overlap_time(single[3], np.float32(0.3), single[4])
    assert {v.dtype for v in (*found, changed, overlap, time)} == {np.dtype("float32")}
    np.testing.assert_allclose(found.branch, exact.branch, atol=1e-6)
    np.testing.assert_allclose(found.leaf, exact.leaf, atol=1e-6)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="branch_norms must be >= 0"):
        hierarchy.branching_clone_agreement(0.5, 1.0, np.array([1.0, -1.0]), 0.5)
    with pytest.raises(ValueError, match=r"branch_norms has shape \(3,\)"):
        hierarchy.branching_clone_agreement(0.5, 1.0, np.ones(3), 0.5)
    with pytest.raises(ValueError, match=r"agreement must be in \[0, 1\]"):
        hierarchy.highest_change(np.array([1.2]))
    with pytest.raises(ValueError, match="level must be between 0 and 1"):
        hierarchy.overlap_time(1.0, 1.0)
