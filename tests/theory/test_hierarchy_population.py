"""Population dynamics of hierarchies against enumeration of all strings and all masks."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory.hierarchy_population import (
    belief_by_level,
    corrupted_leaves,
    gaussian_leaves,
    masked_leaves,
    random_rules,
    transition,
)

V, M, S, LEVELS = 4, 2, 2, 2
SIZE, POOLS = 250, 60


@pytest.fixture(scope="module")
def rules():
    return np.asarray(random_rules(jax.random.key(5), LEVELS, V, M, S))


def strings(rules):
    """Strings of every class, ``(V, count, leaves)``."""
    trees = [[(c,)] for c in range(V)]
    for table in rules:
        trees = [
            [
                tuple(b for rule in choice for b in rule)
                for symbols in level
                for choice in itertools.product(*(table[a] for a in symbols))
            ]
            for level in trees
        ]
    return np.array(trees)


def class_belief(strings, evidence):
    """Mean over observations of the posterior of the true class, by the sum over all strings.

    ``evidence`` is ``(observations, leaves, V)``, made for the string that it belongs to.
    """
    leaf = np.arange(strings.shape[-1])
    likelihood = np.prod(evidence[:, leaf, strings], axis=-1).sum(-1)  # (observations, V)
    return likelihood / likelihood.sum(-1, keepdims=True)


def exact(rules, noise, channel):
    """Mean belief in the true class over all strings and all that can be seen of them."""
    every, total = strings(rules), 0.0
    leaves = every.shape[-1]
    for c, own in enumerate(every):
        for string in own:
            true = np.eye(V)[string]
            if channel == "masking":
                hidden = np.array(list(itertools.product([0, 1], repeat=leaves)))
                chance = np.prod(np.where(hidden, noise, 1 - noise), axis=1)
                evidence = np.where(hidden[..., None], 1 / V, true)
            else:
                seen = np.array(list(itertools.product(range(V), repeat=leaves)))
                evidence = (1 - noise) * np.eye(V)[seen] + noise / V
                chance = np.prod(evidence[:, np.arange(leaves), string], axis=1)
            total += chance @ class_belief(every, evidence)[:, c]
    return total / every.shape[0] / every.shape[1]


@partial(jax.jit, static_argnums=1)
def _pools(rules, leaves, noise):
    def one(key):
        key_leaves, key_climb = jax.random.split(key)
        return belief_by_level(key_climb, rules, leaves(key_leaves, noise, V, SIZE))

    return jax.vmap(one)(jax.random.split(jax.random.key(1), POOLS))


def pools(rules, leaves, noise):
    return np.asarray(_pools(jnp.asarray(rules), leaves, noise))


@pytest.mark.parametrize(
    ("channel", "leaves"), [("masking", masked_leaves), ("uniform", corrupted_leaves)]
)
def test_against_enumeration(rules, channel, leaves):
    noise = 0.4
    found = pools(rules, leaves, noise)
    assert found.shape == (POOLS, LEVELS + 1)
    mean, error = found.mean(0), found.std(0, ddof=1) / np.sqrt(POOLS)
    assert abs(mean[-1] - exact(rules, noise, channel)) < 4 * error[-1]
    # one level of rules alone: the lowest one
    assert abs(mean[1] - exact(rules[-1:], noise, channel)) < 4 * error[1]
    if channel == "masking":
        assert abs(mean[0] - (1 - noise + noise / V)) < 4 * error[0]
    # the rules of the two levels are not exchangeable
    assert abs(exact(rules[:1], noise, channel) - exact(rules[-1:], noise, channel)) > 8 * error[1]


def test_gaussian_leaves_have_the_law_of_the_channel():
    t = 0.3
    found = np.asarray(gaussian_leaves(jax.random.key(2), t, V, 200_000 // V))
    rng = np.random.default_rng(0)
    delta = -np.expm1(-2 * t)
    x = np.exp(-t) * np.eye(V)[0] + np.sqrt(delta) * rng.normal(size=(200_000, V))
    logits = x * np.exp(-t) / delta
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    for power in (1, 2):
        own = np.concatenate([found[c, :, c] for c in range(V)]) ** power
        gap = own.mean() - np.mean(p[:, 0] ** power)
        assert abs(gap) < 4 * np.hypot(own.std(), np.std(p[:, 0] ** power)) / np.sqrt(200_000)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)


def test_ends(rules):
    for leaves in (masked_leaves, corrupted_leaves):
        np.testing.assert_allclose(pools(rules, leaves, 0.0), 1, rtol=1e-12)
        np.testing.assert_allclose(pools(rules, leaves, 1.0)[:, -1], 1 / V, rtol=1e-12)


def test_rules_are_distinct():
    rules = np.asarray(random_rules(jax.random.key(0), 3, 5, 4, 3))
    assert rules.shape == (3, 5, 4, 3)
    for table in rules:
        assert len(np.unique(table.reshape(-1, 3), axis=0)) == 20
    assert set(np.unique(rules)) == set(range(5))


def test_transition_separates_the_beliefs():
    sizes = (12, 8, 2, 2)
    found = transition(
        jax.random.key(0), masked_leaves, (0.1, 0.9), *sizes, grammars=6, bisections=7
    )
    assert found.noise.shape == (6,)
    assert 0.1 < found.mean < 0.9
    assert found.error < 0.1
    # without a transition in the bracket there is no number
    missed = transition(
        jax.random.key(0), masked_leaves, (0.01, 0.02), *sizes, grammars=6, bisections=7
    )
    assert np.all(np.isnan(missed.noise))
    assert np.isnan(missed.mean)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leaves", "bracket", "crossing", "spread"),
    [
        (masked_leaves, (0.1, 0.6), 0.27, 0.01),
        (corrupted_leaves, (0.02, 0.4), 0.16, 0.02),
        (gaussian_leaves, (0.02, 0.2), 0.07, 0.005),
    ],
)
def test_published_crossings(leaves, bracket, crossing, spread):
    # crossings of L = 3 to 9 of few grammars are known to one or two digits
    found = transition(jax.random.key(0), leaves, bracket, 16, 32, 8, 2, grammars=48)
    assert abs(found.mean - crossing) < 4 * found.error + spread


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: masked_leaves(jax.random.key(0), 1.2, 4, 3), "noise must be in"),
        (lambda: gaussian_leaves(jax.random.key(0), 0.0, 4, 3), "t must be positive"),
        (lambda: random_rules(jax.random.key(0), 2, 4, 5, 2), "synonyms must be at most"),
        (
            lambda: belief_by_level(jax.random.key(0), jnp.zeros((2, 4, 2, 2), int), jnp.ones(4)),
            "must be",
        ),
        (
            lambda: transition(
                jax.random.key(0), masked_leaves, (0.1, 0.9), 3, 4, 2, 2, grammars=1
            ),
            "grammars must be at least 2",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
