"""The Random Hierarchy Model against enumeration of all its strings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import chi2

from diffjax import Diffusion, backward, ornstein_uhlenbeck, random_hierarchy, u_turns
from diffjax.data import leaf_channels as channels
from diffjax.data.base import Classified, Posterior
from diffjax.data.random_hierarchy import (
    belief_in,
    messages_from_above,
    parse,
    propagate,
    sample_posterior_trees,
    sample_trees,
)
from diffjax.observables.speciation import clone_agreement

# classes, symbols, synonyms, branching, depth; classes != symbols in both
GRAMMARS = {"pairs": (3, 4, 2, 2, 2), "triples": (2, 3, 2, 3, 2)}
T, TEMPERATURE = 0.3, 0.7
OU = ornstein_uhlenbeck(TEMPERATURE)
SCALE, STD = np.exp(-T), np.sqrt(-TEMPERATURE * np.expm1(-2 * T))
N = 20_000


@pytest.fixture(scope="module", params=GRAMMARS)
def grammar(request):
    return random_hierarchy(jax.random.key(7), *GRAMMARS[request.param])


def all_trees(grammar):
    """Every tree, one row each: list of levels ``(trees, s^l)``; all equally likely."""
    rules = [np.asarray(r) for r in grammar.rules]
    trees = [[(c,)] for c in range(grammar.classes)]
    for table in rules:
        trees = [
            [*tree, tuple(b for rule in choice for b in rule)]
            for tree in trees
            for choice in itertools.product(*(table[a] for a in tree[-1]))
        ]
    return [np.array(level) for level in zip(*trees)]


def enumerated(grammar, evidence):
    """Posterior of every tree, log normaliser, and marginals of every level."""
    levels = all_trees(grammar)
    trees = len(levels[0])
    leaf = np.arange(grammar.leaves)
    joint = np.asarray(evidence, np.float64)[:, leaf, levels[-1]].sum(-1) - np.log(trees)
    log_sum = logsumexp(joint, axis=1)
    weight = np.exp(joint - log_sum[:, None])
    sizes = [grammar.classes] + [grammar.symbols] * grammar.depth
    marginals = [weight @ np.eye(v)[level].reshape(trees, -1) for v, level in zip(sizes, levels)]
    shaped = [p.reshape(len(p), -1, v) for p, v in zip(marginals, sizes)]
    return levels, weight, log_sum, shaped


def observed(grammar, channel, epsilon=0.4, n=5):
    """Evidence of noised strings of the grammar."""
    key = jax.random.key(3)
    leaves = sample_trees(key, grammar, n)[-1]
    v = grammar.symbols
    if channel == "masking":
        return channels.masking_evidence(channels.corrupt_by_masking(key, leaves, epsilon), v)
    if channel == "uniform":
        seen = channels.corrupt_uniformly(key, leaves, v, epsilon)
        return channels.uniform_evidence(seen, v, epsilon)
    if channel == "epsilon process":
        return channels.epsilon_process_evidence(leaves, v, epsilon)
    if channel == "contradiction":  # far from every string, by different amounts
        return 300 * jax.random.normal(key, (n, grammar.leaves, v))
    return channels.gaussian_evidence(noised(grammar, n), v, SCALE, STD)


def noised(grammar, n=5):
    a = grammar.sample(jax.random.key(4), n)
    return SCALE * a + STD * jax.random.normal(jax.random.key(5), a.shape)


CHANNELS = ["masking", "uniform", "epsilon process", "gaussian", "contradiction"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_beliefs_equal_enumeration(grammar, channel):
    evidence = observed(grammar, channel)
    _, _, log_sum, marginals = enumerated(grammar, evidence)
    beliefs = propagate(grammar, evidence)
    np.testing.assert_allclose(beliefs.log_evidence, log_sum, rtol=1e-12, atol=1e-12)
    for level, want in enumerate(marginals):
        np.testing.assert_allclose(beliefs.marginals[level], want, atol=1e-12)
    if channel == "contradiction":  # messages from above are floored where they underflow
        return
    above = messages_from_above(grammar, beliefs.up)
    for up, down, want in zip(beliefs.up, above, marginals):
        np.testing.assert_allclose(jax.nn.softmax(up + down, axis=-1), want, atol=1e-12)


def test_the_contradiction_is_one(grammar):
    # No string has the likeliest symbol at every leaf, so that floors near zero would show.
    best = np.argmax(observed(grammar, "contradiction"), axis=-1)
    assert np.all(parse(grammar, best)[0] < 0)


@jax.jit
def answers(data, x, u):
    return {
        "denoise": data.denoise(x, SCALE, STD),
        "log_normaliser": data.log_normaliser(x, SCALE, STD),
        "covariance": data.covariance_product(x, SCALE, STD, u),
        "classes": data.class_log_posterior(x, SCALE, STD),
        "class_denoise": data.class_denoise(x, SCALE, STD),
    }


def test_events_equal_enumeration(grammar):
    assert isinstance(grammar, Posterior)
    assert isinstance(grammar, Classified)
    x = noised(grammar)
    assert x.shape == (5, grammar.dim)
    u = jax.random.normal(jax.random.key(6), x.shape)
    levels, weight, log_sum, marginals = enumerated(grammar, observed(grammar, "gaussian"))
    a = np.eye(grammar.symbols)[levels[-1]].reshape(len(weight[0]), -1)
    mean = weight @ a
    quadratic = (np.square(x).sum(-1) + SCALE**2 * grammar.leaves) / (2 * STD**2)
    density = log_sum - quadratic - 0.5 * grammar.dim * np.log(2 * np.pi * STD**2)
    spread = a[None] - mean[:, None]
    covariance = np.einsum("bt,bti,btj,bj->bi", weight, spread, spread, u, optimize=True)
    found = answers(grammar, x, u)
    np.testing.assert_allclose(found["denoise"], mean, atol=1e-12)
    np.testing.assert_allclose(found["log_normaliser"], density, rtol=1e-12)
    np.testing.assert_allclose(found["covariance"], covariance, atol=1e-12)
    np.testing.assert_allclose(np.exp(found["classes"]), marginals[0][:, 0], atol=1e-12)
    of_class = levels[0][:, 0] == np.arange(grammar.classes)[:, None]
    by_class = weight[:, None] * of_class
    want = by_class @ a / by_class.sum(-1, keepdims=True)
    np.testing.assert_allclose(found["class_denoise"], want, atol=1e-12)
    one = grammar.condition(1)
    np.testing.assert_allclose(answers(one, x, u)["denoise"], want[:, 1], atol=1e-12)
    np.testing.assert_array_equal(parse(grammar, leaves_of(one.sample(jax.random.key(0), 5)))[0], 1)
    with pytest.raises(ValueError, match="class 3 does not exist"):
        grammar.condition(3)


def leaves_of(a):
    return channels.string_of_event(a, 4 if a.shape[-1] == 16 else 3)


def assert_law(index, p):
    """Chi-square of counts against probabilities; cells below 10 expected are merged."""
    count, mean = np.bincount(index, minlength=len(p)), len(index) * np.asarray(p)
    big = mean >= 10
    count = np.append(count[big], count[~big].sum())
    mean = np.append(mean[big], mean[~big].sum())
    kept = mean > 1
    statistic = (((count - mean) ** 2) / np.where(kept, mean, 1))[kept].sum()
    assert chi2.sf(statistic, kept.sum() - 1) > 1e-4


def number_of(levels, tree):
    """Row of each sampled tree among all of them."""
    rows = {tuple(row): i for i, row in enumerate(np.concatenate(levels, axis=1).tolist())}
    flat = np.concatenate([np.asarray(level) for level in tree], axis=-1)
    return np.array([rows[tuple(row)] for row in flat.tolist()])


@pytest.mark.parametrize("channel", ["uniform", "gaussian"])
def test_law_of_posterior_trees(grammar, channel):
    evidence = observed(grammar, channel)[:1]
    levels, weight, _, _ = enumerated(grammar, evidence)
    many = jnp.broadcast_to(evidence, (N, *evidence.shape[1:]))
    tree = sample_posterior_trees(jax.random.key(8), grammar, many)
    assert [level.shape for level in tree] == [(N, grammar.branching**i) for i in range(3)]
    assert_law(number_of(levels, tree), weight[0])
    with pytest.raises(AssertionError):
        assert_law(number_of(levels, tree), np.roll(weight[0], 1))


def test_law_of_trees_and_their_parse(grammar):
    levels = all_trees(grammar)
    n, s, m = grammar.leaves, grammar.branching, grammar.synonyms
    assert len(levels[0]) == grammar.classes * m ** ((n - 1) // (s - 1))
    assert len(np.unique(levels[-1], axis=0)) == len(levels[0])  # one parse for each string
    tree = sample_trees(jax.random.key(9), grammar, N)
    assert_law(number_of(levels, tree), np.full(len(levels[0]), 1 / len(levels[0])))
    for found, want in zip(parse(grammar, tree[-1]), tree):
        np.testing.assert_array_equal(found, want)
    everything = np.array(list(itertools.product(range(grammar.symbols), repeat=s)))
    pairs = {tuple(r) for r in np.asarray(grammar.rules[-1]).reshape(-1, s).tolist()}
    alien = next(r for r in everything.tolist() if tuple(r) not in pairs)
    broken = levels[-1][0].copy()
    broken[:s] = alien
    found = parse(grammar, broken)
    assert [int(level[0]) for level in found[:2]] == [-1, -1]
    np.testing.assert_array_equal(found[1][1:], levels[1][0][1:])


@pytest.mark.slow  # the experiment random_hierarchy runs shorter chains in every test run
def test_posterior_events_and_backward_chain():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    levels = all_trees(grammar)
    model = Diffusion(grammar, OU)
    a, info = backward(
        jax.random.key(1), model, model.sample(jax.random.key(0), 1.5, 4000), [1.5, 0.4, 0.1, 0.0]
    )
    assert info.method == "exact"
    tree = parse(grammar, leaves_of(a))
    assert_law(number_of(levels, tree), np.full(len(levels[0]), 1 / len(levels[0])))
    turned, _ = u_turns(jax.random.key(2), model, a, [T, 0.2, 0.1, 0.0])
    agree = clone_agreement(jax.random.key(5), model, [T], 4000)
    error = np.sqrt(agree.error[0] ** 2 + 0.25 / 4000)
    # Nishimori: a U-turn ends in the class it came from as often as two clones agree
    same = parse(grammar, leaves_of(turned))[0][:, 0] == tree[0][:, 0]
    assert abs(np.mean(same) - agree.mean[0]) < 4 * error


def test_nishimori_at_every_level():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    epsilon = 0.35
    tree = sample_trees(jax.random.key(0), grammar, N)
    seen = channels.corrupt_by_masking(jax.random.key(1), tree[-1], epsilon)
    evidence = channels.masking_evidence(seen, 4)
    belief = belief_in(propagate(grammar, evidence).marginals, tree)
    again = sample_posterior_trees(jax.random.key(2), grammar, evidence)
    for level in range(3):
        # nodes of one tree are correlated: one number for each tree
        gap = np.mean(np.asarray(again[level] == tree[level]) - np.asarray(belief[level]), axis=-1)
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(N)
    assert abs(np.mean(seen == channels.MASKED) - epsilon) < 4 * np.sqrt(epsilon / (4 * N))


# Grammars -----------------------------------------------------------------------------------------


@given(
    st.integers(0, 2**31 - 1),
    st.sampled_from([(3, 4, 2, 2, 2), (2, 5, 20, 3, 1)]),
)
def test_rules_are_distinct_tuples(seed, sizes):
    classes, v, m, s, depth = sizes
    grammar = random_hierarchy(jax.random.key(seed), *sizes)
    shapes = [(classes if level == 0 else v, m, s) for level in range(depth)]
    assert [rules.shape for rules in grammar.rules] == shapes
    for rules in grammar.rules:
        rows = np.asarray(rules).reshape(-1, s)
        assert rows.dtype == np.int32
        assert rows.min() >= 0
        assert rows.max() < v
        assert len(np.unique(rows, axis=0)) == len(rows)


def test_huge_sets_of_tuples_are_not_listed():
    grammar = random_hierarchy(jax.random.key(0), 7, 64, 64, 8, 2)  # 2^48 tuples
    for rules in grammar.rules:
        rows = np.asarray(rules).reshape(-1, 8)
        assert len(np.unique(rows, axis=0)) == len(rows)
    assert np.bincount(np.asarray(grammar.rules[1]).ravel(), minlength=64).min() > 300


@pytest.mark.parametrize(
    "sizes",
    [(2, 3, 1, 2, 1), (1, 3, 4, 2, 1)],  # 2 of 9 tuples, redrawn; 4 of 9, permuted
)
def test_ordered_choices_are_equally_likely(sizes):
    grammars = jax.vmap(lambda key: random_hierarchy(key, *sizes))(
        jax.random.split(jax.random.key(1), 40_000)
    )
    rows = np.asarray(grammars.rules[0]).reshape(40_000, -1, 2) @ [3, 1]
    number = rows.shape[1]
    choices = list(itertools.permutations(range(9), number))
    code = {c: i for i, c in enumerate(choices)}
    index = np.array([code[tuple(r)] for r in rows.tolist()])  # also: no repeats
    assert_law(index, np.full(len(choices), 1 / len(choices)))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 4, 5, 2, 2), r"4 symbols with synonyms=5 rules each need 20 .* 4\^2 = 16; take fewer"),
        ((17, 4, 1, 2, 2), r"17 symbols with synonyms=1"),
        ((3, 4, 0, 2, 2), r"synonyms must be an integer >= 1"),
        ((3, 1, 1, 2, 2), r"symbols and branching must be at least 2, but are 1 and 2"),
        ((3, 4, 1, 1, 2), r"symbols and branching must be at least 2, but are 4 and 1"),
        ((3, 4, 1, 2, 1.5), r"depth must be an integer >= 1, but is 1.5"),
    ],
)
def test_impossible_grammars_are_named(sizes, message):
    with pytest.raises(ValueError, match=message):
        random_hierarchy(jax.random.key(0), *sizes)


def test_wrong_inputs_are_named():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    with pytest.raises(ValueError, match=r"evidence has shape \(4, 3\), expected \(\.\.\., 4, 4\)"):
        propagate(grammar, jnp.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"string has shape \(3,\), expected \(\.\.\., 4\)"):
        parse(grammar, jnp.zeros(3, int))
    with pytest.raises(ValueError, match=r"epsilon must be a probability in \[0, 1\], but is 1.2"):
        channels.corrupt_uniformly(jax.random.key(0), jnp.zeros(4, int), 4, 1.2)
    for observed in ([0, 4], [-2, 1]):
        with pytest.raises(ValueError, match=r"symbols must lie in -1\.\.3"):
            channels.masking_evidence(jnp.array(observed), 4)
    with pytest.raises(ValueError, match=r"symbols must lie in 0\.\.3, but go from -1 to 1"):
        channels.uniform_evidence(jnp.array([-1, 1]), 4, 0.3)


def test_a_class_is_an_integer():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    with pytest.raises(ValueError, match=r"class 1\.5 does not exist"):
        grammar.condition(1.5)


def test_unsigned_symbols_can_be_masked():
    leaves = jnp.array([0, 3, 1, 2], jnp.uint8)
    masked = channels.corrupt_by_masking(jax.random.key(0), leaves, 1.0)
    assert masked.tolist() == [channels.MASKED] * 4
    assert channels.masking_evidence(masked, 4).tolist() == np.zeros((4, 4)).tolist()
    narrow = channels.masking_evidence(jnp.array([0, 3], jnp.int8), 300)
    assert np.isfinite(narrow).sum(axis=-1).tolist() == [1, 1]


# Numbers ------------------------------------------------------------------------------------------


def test_float32_without_noise_and_with_contradictions(strict):
    grammar = random_hierarchy(jax.random.key(2), 8, 8, 4, 2, 3, dtype=jnp.float32)
    tree = sample_trees(jax.random.key(0), grammar, 20)
    a = channels.one_hot_event(tree[-1], 8, jnp.float32)
    model = Diffusion(grammar, OU)
    for t in (1e-8, 1e-3, 30.0, np.inf):
        mean = model.denoise(a, t)
        assert mean.dtype == jnp.float32
        assert np.all(np.isfinite(mean))
        assert np.isfinite(model.log_density(a, t)).all() or t == 1e-8
        if t < 1:
            np.testing.assert_allclose(mean, a, atol=1e-6)
    # a string of another grammar, which contradicts this one everywhere
    alien = channels.uniform_evidence(7 - tree[-1], 8, jnp.float32(0))
    assert np.all(parse(grammar, 7 - tree[-1])[0] < 0)
    beliefs = propagate(grammar, alien)
    for p in beliefs.marginals:
        assert p.dtype == jnp.float32
        assert np.all(np.isfinite(p))
        np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)


def test_float32_agrees_with_float64():
    grammar = random_hierarchy(jax.random.key(2), 8, 8, 4, 2, 3)
    x = 0.9 * grammar.sample(jax.random.key(0), 20)
    x = x + 0.3 * jax.random.normal(jax.random.key(1), x.shape)
    wide = channels.gaussian_evidence(x, 8, 0.9, 0.3)
    narrow = propagate(grammar, wide.astype(jnp.float32))
    for found, want in zip(narrow.marginals, propagate(grammar, wide).marginals):
        np.testing.assert_allclose(found, want, atol=2e-5)


def test_gradients_are_finite_and_right():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    model = Diffusion(grammar, OU)
    x = noised(grammar)
    gradient = jax.grad(lambda x: jnp.sum(model.log_density(x, T)))(x)
    np.testing.assert_allclose(gradient, model.score(x, T), atol=1e-10)
    sharp = channels.masking_evidence(jnp.array([[0, -1, 1, -1]]), 4)  # -inf in the evidence
    for evidence in (sharp, 300 * sharp.at[:].set(jnp.eye(4))[None, 0]):
        slope = jax.grad(lambda e: jnp.sum(propagate(grammar, e).marginals[1][..., 0]))(evidence)
        assert np.all(np.isfinite(slope))


def test_noise_does_not_depend_on_the_batch():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    x = noised(grammar, 10)
    key = jax.random.key(0)
    many = grammar.sample_posterior(key, x, SCALE, STD)
    few = grammar.sample_posterior(key, x[:5], SCALE, STD)
    np.testing.assert_array_equal(many[:5], few)
    np.testing.assert_array_equal(
        sample_trees(key, grammar, 10)[-1][:5], sample_trees(key, grammar, 5)[-1]
    )


def test_times_broadcast_against_the_batch():
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    x = noised(grammar)[:2]
    model = Diffusion(grammar, OU)
    both = model.denoise(x, jnp.array([0.2, 0.9]))
    late = jnp.array([0.9, 0.9])
    np.testing.assert_allclose(both[1], model.denoise(x, late)[1], atol=1e-14)
    density = model.log_density(x, jnp.array([0.2, 0.9]))
    np.testing.assert_allclose(density[1], model.log_density(x, late)[1], rtol=1e-13)
    epsilon = jnp.array([0.1, 0.6])
    both = channels.uniform_evidence(jnp.zeros((2, 4), int), 4, epsilon)
    np.testing.assert_allclose(both[1], channels.uniform_evidence(jnp.zeros(4, int), 4, 0.6))


def test_symbols_may_be_renamed():
    # A permutation of the leaf alphabet permutes the evidence and changes no class posterior.
    grammar = random_hierarchy(jax.random.key(7), *GRAMMARS["pairs"])
    order = jnp.array([2, 0, 3, 1])  # symbol a is called order[a]
    renamed = type(grammar)(
        (grammar.rules[0], order[grammar.rules[1]]), grammar.log_weights, grammar.symbols
    )
    evidence = observed(grammar, "gaussian")
    moved = jnp.zeros_like(evidence).at[..., order].set(evidence)
    here, there = propagate(grammar, evidence), propagate(renamed, moved)
    np.testing.assert_allclose(there.marginals[0], here.marginals[0], atol=1e-13)
    np.testing.assert_allclose(there.marginals[2][..., order], here.marginals[2], atol=1e-13)
