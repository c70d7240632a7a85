r"""The Random Hierarchy Model: strings that a random grammar generates, with an exact posterior.

A class out of ``classes`` (level 0) is replaced by a tuple of s symbols out of v (level 1), each
of these by a tuple of symbols (level 2), and so on until ``n = s^L`` leaves at level L. Every
symbol of a level has m rules (synonyms) with equal chances. The rules of a level are distinct
tuples, drawn without replacement from the ``v^s``, so that no tuple has two parents and a string
has one parse: the number of strings is ``classes m^{(s^L - 1)/(s - 1)}``, all equally likely
within a class.

As a data distribution the event is the string in one-hot vectors, ``d = n v``, leaf by leaf.
Through the channel ``x = scale a + std z`` the leaves leave the evidence

    log P(x | c) = scale x_c / std^2 + constant                                            (1)

and everything follows from one upward and one downward pass of `diffjax.belief_propagation`: the
denoiser is the leaves' marginals, the class posterior the root's, and the covariance is their
derivative by the evidence,

    Cov[a | x] u = d E[a | evidence + eta u] / d eta  at eta = 0.                          (2)

Strings seen through other channels (masking, corruption) enter by the evidence of
`diffjax.data.leaf_channels`.

References:
    Cagnetta, Petrini, Tomasini, Favero, Wyart 2023 (2307.02129), the model; Sclocchi, Favero,
    Wyart 2024 (2402.16991), diffusion on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike, DTypeLike

from diffjax import belief_propagation, checks, records
from diffjax.data.leaf_channels import gaussian_evidence, one_hot_event


class Beliefs(NamedTuple):
    """What the evidence says about every node of every level."""

    up: tuple[Array, ...]
    """``up[l]``: ``log P(observed below | symbol)``, ``(..., s^l, V_l)``, largest entry 0."""
    marginals: tuple[Array, ...]
    """``marginals[l]``: ``P(symbol | all that is observed)``, ``(..., s^l, V_l)``."""
    log_evidence: Array
    """``log P(observed)`` in nats, ``(...)``, where the evidence is ``log P(observed | c)``."""


@records.register
@dataclass(frozen=True)
class RandomHierarchy:
    """Record made by `random_hierarchy`; implements `Posterior` and `Classified`."""

    rules: tuple[Array, ...]  # (V_l, m, s) for l = 0..L-1, V_0 = classes, else symbols
    log_weights: Array  # (classes,) log prior of the class
    symbols: int = field(metadata={"static": True})

    @property
    def classes(self) -> int:
        """Number of classes, the symbols of the root."""
        return self.rules[0].shape[-3]

    @property
    def synonyms(self) -> int:
        """Number of rules m of every symbol."""
        return self.rules[0].shape[-2]

    @property
    def branching(self) -> int:
        """Number of children s of every node."""
        return self.rules[0].shape[-1]

    @property
    def depth(self) -> int:
        """Number of levels L of rules."""
        return len(self.rules)

    @property
    def leaves(self) -> int:
        """Length ``s^L`` of a string."""
        return self.branching**self.depth

    @property
    def dim(self) -> int:
        """Dimension ``d = s^L v`` of an event."""
        return self.leaves * self.symbols

    @property
    def class_weights(self) -> Array:
        """Prior weight of every class, ``(classes,)``."""
        return jnp.exp(self.log_weights)

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean strings as one-hot events, ``(n, d)``."""
        return one_hot_event(_sample(self, key, n)[-1], self.symbols, self.log_weights.dtype)

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, ``(...)``.

        Each leaf's likelihood is taken relative to that of its likeliest symbol, so that the
        squared distances that all symbols share do not cancel.
        """
        evidence = gaussian_evidence(x, self.symbols, scale, std)
        top = jnp.max(evidence, axis=-1, keepdims=True)
        nearest = jax.nn.one_hot(jnp.argmax(evidence, axis=-1), self.symbols, dtype=evidence.dtype)
        scale_, std_ = (jnp.asarray(v, evidence.dtype)[..., None] for v in (scale, std))
        gap = (x - scale_ * nearest.reshape(*evidence.shape[:-2], -1)) / std_
        base = -0.5 * jnp.sum(jnp.square(gap) + jnp.log(2 * jnp.pi * jnp.square(std_)), axis=-1)
        up = belief_propagation.upward(self.rules, evidence - top)
        found = base + up.log_scale + logsumexp(_root_logits(self, up), axis=-1)
        return found.astype(x.dtype)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``: the marginals of the leaves."""
        return _leaf_means(self, gaussian_evidence(x, self.symbols, scale, std)).astype(x.dtype)

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)`` per state: the class, then rules downwards."""
        tree = _sample_given(self, key, gaussian_evidence(x, self.symbols, scale, std))
        return one_hot_event(tree[-1], self.symbols, x.dtype)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u`` by (2): one derivative along ``u`` of both passes."""
        evidence = gaussian_evidence(x, self.symbols, scale, std)
        along = jnp.broadcast_to(u, (*evidence.shape[:-2], self.dim)).astype(evidence.dtype)
        means = partial(_leaf_means, self)
        return jax.jvp(means, (evidence,), (along.reshape(evidence.shape),))[1].astype(x.dtype)

    def class_log_posterior(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(c | x)``, ``(..., classes)``."""
        evidence = gaussian_evidence(x, self.symbols, scale, std)
        logits = _root_logits(self, belief_propagation.upward(self.rules, evidence))
        return jax.nn.log_softmax(logits, axis=-1).astype(x.dtype)

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``E[a | x, c]`` per class, ``(..., classes, d)``: one upward pass, K downward."""
        evidence = gaussian_evidence(x, self.symbols, scale, std)
        up = belief_propagation.upward(self.rules, evidence)

        def one_class(root: Array) -> Array:
            root = jnp.broadcast_to(root, (*evidence.shape[:-2], self.classes))
            found = belief_propagation.marginals(self.rules, up.messages, root)[-1]
            return found.reshape(*evidence.shape[:-2], self.dim).astype(x.dtype)

        means = jax.lax.map(one_class, jnp.eye(self.classes, dtype=evidence.dtype))
        return jnp.moveaxis(means, 0, -2)

    def condition(self, c: int) -> RandomHierarchy:
        """The strings of class ``c`` alone: the other classes get weight 0."""
        if c not in range(self.classes):
            raise ValueError(f"class {c} does not exist; classes are 0..{self.classes - 1}")
        kept = jnp.where(jnp.arange(self.classes) == c, 0.0, -jnp.inf)
        return replace(self, log_weights=kept.astype(self.log_weights.dtype))


def random_hierarchy(
    key: Array,
    classes: int,
    symbols: int,
    synonyms: int,
    branching: int,
    depth: int,
    dtype: DTypeLike | None = None,
) -> RandomHierarchy:
    """Draw a grammar of the Random Hierarchy Model; classes are equally likely.

    The rules of level l are ``V_l synonyms`` distinct tuples in random order, uniform over all
    such choices. Under ``jax.vmap`` over keys a batch of grammars is drawn, over which the
    functions of this module map in turn.

    Args:
        key: typed PRNG key; level l uses ``fold_in(key, l)``.
        classes: number of classes, the symbols of the root.
        symbols: number of symbols v of every other level.
        synonyms: number of rules m of every symbol.
        branching: number of children s of every node, 2 or more.
        depth: number of levels L of rules; strings have ``branching**depth`` leaves.
        dtype: of clean samples and weights; the default float if None.

    Returns:
        A frozen record with ``rules[l]`` of shape ``(V_l, m, s)``, int32.

    Raises:
        ValueError: if a number is no positive integer, if fewer than two symbols or children are
            asked for, or if a level needs more distinct tuples than there are.

    References:
        Cagnetta, Petrini, Tomasini, Favero, Wyart 2023 (2307.02129).
    """
    classes, symbols = checks.count(classes, "classes"), checks.count(symbols, "symbols")
    synonyms, depth = checks.count(synonyms, "synonyms"), checks.count(depth, "depth")
    branching = checks.count(branching, "branching")
    if symbols < 2 or branching < 2:
        raise ValueError(
            f"symbols and branching must be at least 2, but are {symbols} and {branching}"
        )
    sizes = [classes] + [symbols] * (depth - 1)
    for size in set(sizes):
        if size * synonyms > symbols**branching:
            raise ValueError(
                f"{size} symbols with synonyms={synonyms} rules each need {size * synonyms} "
                f"distinct tuples, but there are only {symbols}^{branching} = "
                f"{symbols**branching}; take fewer synonyms or more symbols"
            )
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    rules = tuple(
        _distinct_tuples(
            jax.random.fold_in(key, level), size * synonyms, symbols, branching
        ).reshape(size, synonyms, branching)
        for level, size in enumerate(sizes)
    )
    return RandomHierarchy(rules, jnp.full(classes, -np.log(classes), dtype), symbols)


def sample_trees(key: Array, grammar: RandomHierarchy, n: int) -> tuple[Array, ...]:
    """``n`` strings with all their latent symbols.

    Returns:
        ``depth + 1`` integer arrays: ``tree[l]`` is ``(n, s^l)``, ``tree[0][:, 0]`` the class and
        ``tree[-1]`` the string.
    """
    return _sample(grammar, key, n)


def propagate(grammar: RandomHierarchy, evidence: Array) -> Beliefs:
    """Upward and downward pass: messages and marginals of every level.

    Args:
        grammar: made by `random_hierarchy`.
        evidence: ``log P(observed | symbol)`` of every leaf up to a constant for each leaf,
            ``(..., s^L, v)``, from `diffjax.data.leaf_channels`.

    Raises:
        ValueError: if the evidence has another shape.
    """
    return _propagate(grammar, _evidence(grammar, evidence))


def messages_from_above(grammar: RandomHierarchy, up: tuple[Array, ...]) -> tuple[Array, ...]:
    """What all that is observed elsewhere says about each node, ``(..., s^l, V_l)`` per level.

    Log domain, largest entry 0; ``marginals ~ exp(up + from above)``. At the root it is the
    prior of the class.

    Args:
        grammar: made by `random_hierarchy`.
        up: the upward messages of `propagate`.
    """
    return _downward(grammar, up)


def sample_posterior_trees(
    key: Array, grammar: RandomHierarchy, evidence: Array
) -> tuple[Array, ...]:
    """One tree per observation, ``tree[l] (..., s^l)``, from its posterior given the evidence.

    Args:
        key: typed PRNG key.
        grammar: made by `random_hierarchy`.
        evidence: as in `propagate`.

    Raises:
        ValueError: if the evidence has another shape than ``(..., s^L, v)``.
    """
    return _sample_given(grammar, key, _evidence(grammar, evidence))


def parse(grammar: RandomHierarchy, string: Array) -> tuple[Array, ...]:
    """The latent symbols of strings ``(..., s^L)``: ``tree[l] (..., s^l)``.

    A node whose children are no rule's tuple, and all nodes above it, are -1; a string obeys the
    grammar where ``tree[0] >= 0``.

    Raises:
        ValueError: if the strings have another length.
    """
    checks.event_size(string, grammar.leaves, "string")
    return _parse(grammar, jnp.asarray(string))


def belief_in(marginals: tuple[Array, ...], tree: tuple[Array, ...]) -> tuple[Array, ...]:
    """Probability that `propagate` gives to the symbols of a tree: ``(..., s^l)`` per level.

    Averaged over data it is the probability that a posterior sample agrees with the truth
    there (Nishimori's identity).
    """
    return tuple(
        jnp.take_along_axis(p, symbol[..., None], axis=-1)[..., 0]
        for p, symbol in zip(marginals, tree)
    )


def _evidence(grammar: RandomHierarchy, evidence: Array) -> Array:
    """Checked evidence in float32 or better."""
    evidence = jnp.asarray(evidence)
    if evidence.shape[-2:] != (grammar.leaves, grammar.symbols):
        raise ValueError(
            f"evidence has shape {evidence.shape}, expected (..., {grammar.leaves}, "
            f"{grammar.symbols}): one row of log-likelihoods for each leaf"
        )
    return evidence.astype(jnp.promote_types(evidence.dtype, jnp.float32))


def _root_logits(grammar: RandomHierarchy, up: belief_propagation.Upward) -> Array:
    top = up.messages[0][..., 0, :]
    return top + grammar.log_weights.astype(top.dtype)


@partial(jax.jit, static_argnames="n")
def _sample(grammar: RandomHierarchy, key: Array, n: int) -> tuple[Array, ...]:
    key_class, key_rules = jax.random.split(key)
    weights = jnp.broadcast_to(grammar.log_weights, (n, grammar.classes))
    root = belief_propagation.draw(key_class, weights)
    return belief_propagation.sample_tree(key_rules, grammar.rules, root)


@jax.jit
def _sample_given(grammar: RandomHierarchy, key: Array, evidence: Array) -> tuple[Array, ...]:
    key_class, key_rules = jax.random.split(key)
    up = belief_propagation.upward(grammar.rules, evidence)
    root = belief_propagation.draw(key_class, _root_logits(grammar, up))
    return belief_propagation.sample_tree(key_rules, grammar.rules, root, up.messages)


@jax.jit
def _propagate(grammar: RandomHierarchy, evidence: Array) -> Beliefs:
    up = belief_propagation.upward(grammar.rules, evidence)
    logits = _root_logits(grammar, up)
    root = jax.nn.softmax(logits, axis=-1)
    found = belief_propagation.marginals(grammar.rules, up.messages, root)
    return Beliefs(up.messages, found, up.log_scale + logsumexp(logits, axis=-1))


@jax.jit
def _downward(grammar: RandomHierarchy, up: tuple[Array, ...]) -> tuple[Array, ...]:
    return belief_propagation.downward(grammar.rules, up, grammar.log_weights)


def _leaf_means(grammar: RandomHierarchy, evidence: Array) -> Array:
    """Marginals of the leaves as an event, ``(..., d)``."""
    found = _propagate(grammar, evidence).marginals[-1]
    return found.reshape(*evidence.shape[:-2], grammar.dim)


@jax.jit
def _parse(grammar: RandomHierarchy, string: Array) -> tuple[Array, ...]:
    tree = [string]
    for table in reversed(grammar.rules):
        size, synonyms, branching = table.shape
        seen = jax.nn.one_hot(tree[-1], grammar.symbols, dtype=jnp.float32)
        agree = belief_propagation.rule_log_weights(table, seen)  # children that agree
        whole = agree.reshape(*agree.shape[:-2], size * synonyms) > branching - 0.5
        parent = jnp.argmax(whole, axis=-1) // synonyms
        tree.append(jnp.where(jnp.any(whole, axis=-1), parent, -1))
    return tuple(reversed(tree))


@partial(jax.jit, static_argnames=("number", "symbols", "length"))
def _distinct_tuples(key: Array, number: int, symbols: int, length: int) -> Array:
    """``number`` distinct tuples ``(number, length)``, all ordered choices equally likely.

    Where a good part of all tuples is needed they are permuted. Where they are too many to be
    listed, tuples are drawn independently, and those equal to an earlier one drawn again until
    none is. This looks at nothing but equality, so that exchanging any two of the possible tuples
    exchanges two outcomes of equal probability: every choice of distinct tuples is equally
    likely, as if each were drawn among those that remain.
    """
    possible = symbols**length
    if 4 * number >= possible:
        index = jax.random.permutation(key, possible)[:number]
        digits = [index // symbols**i % symbols for i in reversed(range(length))]
        return jnp.stack(digits, axis=-1).astype(jnp.int32)

    def fresh(round_: Array | int) -> Array:
        round_key = jax.random.fold_in(key, round_)
        return jax.random.randint(round_key, (number, length), 0, symbols, jnp.int32)

    def again(state: tuple[Array, Array]) -> tuple[Array, Array]:
        tuples, round_ = state
        drawn = jnp.where(_repeats(tuples)[:, None], fresh(round_), tuples)
        return drawn, round_ + 1

    start = (fresh(0), jnp.asarray(1, jnp.int32))
    return jax.lax.while_loop(lambda s: jnp.any(_repeats(s[0])), again, start)[0]


def _repeats(tuples: Array) -> Array:
    """Which rows ``(k, s)`` equal an earlier row."""
    order = jnp.lexsort(tuples.T)  # stable: the earliest of equal rows comes first
    ordered = tuples[order]
    same = jnp.all(ordered[1:] == ordered[:-1], axis=-1)
    return jnp.zeros(tuples.shape[0], bool).at[order[1:]].set(same)
