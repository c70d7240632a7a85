r"""Belief propagation on trees that are drawn from a grammar, exact and in the log domain.

A grammar has symbols on levels 0 (the root) to L (the leaves). Symbol ``a`` of level l has m
rules, each a tuple of s symbols of level l + 1, chosen with probability 1/m; ``rules[l]`` is
``(V_l, m, s)``. A tree has ``s^l`` nodes on level l, and the children of node k are the nodes
``s k, ..., s k + s - 1``. Given ``e(c) = log P(observed | c)`` at every leaf, the probability of
all that is observed below a node whose symbol is ``a`` is, leaf to root,

    U_l(a) = log (1/m) sum_{r in R_a} exp S(r),    S(r) = sum_i U_{l+1,i}(r_i),   U_L = e.  (1)

``S`` is one matrix product for a whole level: the messages of the s children side by side,
``(s V_{l+1})``, times the one-hot table of the rules ``(s V_{l+1}, V_l m)``. Each message is
shifted by its maximum, the shifts add up to the probability of the observations. Given its
parent, a rule has the posterior

    q(r | a) = exp S(r) / sum_{r' in R_a} exp S(r'),                                       (2)

so that the marginals of all levels, and samples of the whole tree, follow from the root down:

    p_{l+1,i}(b) = sum_a p_l(a) sum_{r in R_a: r_i = b} q(r | a).                           (3)

(3) contains only positive numbers below one, and (1) only differences of logarithms: nothing
underflows, and evidence that contradicts itself is resolved by how much, in nats, each way out
costs. Only evidence below `FLOOR` is raised to it, which makes ``log 0`` a finite number. The
messages that come from above a node,

    D_{l+1,i}(b) = log sum_a e^{D_l(a)} sum_{r in R_a: r_i = b} exp sum_{j != i} U_{l+1,j}(r_j), (4)

are not needed for (3), to which ``p ~ exp(U + D)`` is equal; `downward` gives them for what asks
for a node's surroundings without its own evidence.

References:
    Mezard, Montanari 2009, Information, Physics, and Computation, chapter 14; Sclocchi, Favero,
    Wyart 2024 (2402.16991), for grammars and diffusion.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

Rules = tuple[Array, ...]

FLOOR = -1e6
"""Least log-evidence relative to the largest of its leaf, in nats; stands for ``log 0``."""


class Upward(NamedTuple):
    """Messages (1) of every level, and the logarithm that was taken out of them."""

    messages: tuple[Array, ...]
    """``messages[l]`` is ``(..., s^l, V_l)``, log domain, largest entry 0."""
    log_scale: Array
    """``log P(observed | root = a) = messages[0][..., 0, a] + log_scale``; ``(...)``."""


def upward(rules: Rules, evidence: Array) -> Upward:
    """Messages from the leaves to the root, eq. (1).

    Args:
        rules: one integer array ``(V_l, m, s)`` for each level above the leaves.
        evidence: ``log P(observed | symbol)`` of every leaf, ``(..., s^L, V_L)``, in float32 or
            better; ``-inf`` is allowed.
    """
    message, log_scale = _shifted(evidence)
    messages = [message]
    for table in reversed(rules):
        weights = rule_log_weights(table, message)
        message, shift = _shifted(logsumexp(weights, axis=-1) - math.log(table.shape[1]))
        messages.append(message)
        log_scale = log_scale + shift
    return Upward(tuple(reversed(messages)), log_scale)


def marginals(rules: Rules, messages: tuple[Array, ...], root: Array) -> tuple[Array, ...]:
    """Posterior of every node of every level, eq. (3).

    Args:
        rules: as in `upward`.
        messages: the messages of `upward`.
        root: posterior of the root's symbol, ``(..., V_0)``.

    Returns:
        ``L + 1`` arrays ``(..., s^l, V_l)``, each summing to 1 over its last axis.
    """
    found = [root[..., None, :]]
    for table, below in zip(rules, messages[1:]):
        share = jax.nn.softmax(rule_log_weights(table, below), axis=-1)
        joint = found[-1][..., None] * share
        found.append(_to_children(table, joint, below))
    return tuple(found)


def downward(rules: Rules, messages: tuple[Array, ...], log_prior: Array) -> tuple[Array, ...]:
    """Messages from above every node, eq. (4), in the log domain with largest entry 0.

    A symbol that no rule can produce here, or only with less than the smallest number of the
    dtype relative to the likeliest, gets the logarithm of that number.

    Args:
        rules: as in `upward`.
        messages: the messages of `upward`.
        log_prior: prior of the root's symbol, ``(V_0,)``.
    """
    top = messages[0]
    message = jnp.broadcast_to(log_prior.astype(top.dtype), top.shape)
    found = [_shifted(message)[0]]
    for table, below in zip(rules, messages[1:]):
        branching, level = table.shape[-1], []
        for i in range(branching):
            others = rule_log_weights(table, below, without=i)
            joint = found[-1][..., None] + others
            joint = joint - jnp.max(joint, axis=(-2, -1), keepdims=True)
            into = jnp.matmul(
                _flat(jnp.exp(joint)), _one_hot(table, below, only=i).T, precision="highest"
            )
            block = into.reshape(*into.shape[:-1], branching, -1)[..., i, :]
            level.append(jnp.log(jnp.maximum(block, jnp.finfo(block.dtype).tiny)))
        stacked = jnp.stack(level, axis=-2).reshape(below.shape)
        found.append(_shifted(stacked)[0])
    return tuple(found)


def sample_tree(
    key: Array, rules: Rules, root: Array, messages: tuple[Array, ...] | None = None
) -> tuple[Array, ...]:
    """One tree below each root: rules by (2), or with equal chances without messages.

    Args:
        key: typed PRNG key; level l uses ``fold_in(key, l)``.
        rules: as in `upward`.
        root: integer symbols of the root, ``(...)``.
        messages: the messages of `upward` for posterior samples.

    Returns:
        ``L + 1`` integer arrays ``(..., s^l)``.
    """
    tree = [root[..., None]]
    for level, table in enumerate(rules):
        parent = tree[-1]
        options = table[parent]  # (..., s^l, m, s)
        u_key = jax.random.fold_in(key, level)
        if messages is None:
            choice = jax.random.randint(u_key, parent.shape, 0, table.shape[1])
        else:
            choice = draw(u_key, _option_log_weights(options, messages[level + 1]))
        chosen = jnp.take_along_axis(options, choice[..., None, None], axis=-2)[..., 0, :]
        tree.append(chosen.reshape(*parent.shape[:-1], -1))
    return tuple(tree)


def draw(key: Array, log_weights: Array) -> Array:
    """One index for each row of ``(..., n)``, by inversion with one uniform for each row."""
    cumulative = jnp.cumsum(jax.nn.softmax(log_weights, axis=-1), axis=-1)
    u = jax.random.uniform(key, log_weights.shape[:-1], log_weights.dtype)
    # the total is 1 up to rounding; scaling by it keeps the last index possible and no more
    return jnp.sum(cumulative[..., :-1] <= u[..., None] * cumulative[..., -1:], axis=-1)


def rule_log_weights(table: Array, below: Array, without: int | None = None) -> Array:
    """``S(r)`` of every rule of every node of a level, ``(..., n, V, m)``.

    Args:
        table: ``(V, m, s)``.
        below: messages of the children, ``(..., n s, v)``.
        without: a child that is left out of the sum.
    """
    symbols, synonyms, branching = table.shape
    grouped = below.reshape(*below.shape[:-2], -1, branching * below.shape[-1])
    one_hot = _one_hot(table, below, without=without)
    total = jnp.matmul(grouped, one_hot, precision="highest")
    return total.reshape(*total.shape[:-1], symbols, synonyms)


def _to_children(table: Array, joint: Array, below: Array) -> Array:
    """Sums of rule probabilities ``(..., n, V, m)`` by the symbol of each child."""
    into = jnp.matmul(_flat(joint), _one_hot(table, below).T, precision="highest")
    found = into.reshape(below.shape)
    return found / jnp.sum(found, axis=-1, keepdims=True)  # rounding must not grow with the level


def _one_hot(
    table: Array, below: Array, *, without: int | None = None, only: int | None = None
) -> Array:
    """The rules as a table of zeros and ones, ``(s v, V m)``."""
    branching, v = table.shape[-1], below.shape[-1]
    rows = jax.nn.one_hot(table.reshape(-1, branching), v, dtype=below.dtype)
    position = jnp.arange(branching)[:, None]
    if without is not None:
        rows = jnp.where(position == without, 0, rows)
    if only is not None:
        rows = jnp.where(position == only, rows, 0)
    return rows.reshape(-1, branching * v).T


def _option_log_weights(options: Array, below: Array) -> Array:
    """``S(r)`` of the m rules that each node's symbol has, ``(..., n, m)``."""
    branching = options.shape[-1]
    grouped = below.reshape(*below.shape[:-2], -1, branching, below.shape[-1])
    picked = jnp.take_along_axis(grouped, jnp.swapaxes(options, -1, -2), axis=-1)
    return jnp.sum(picked, axis=-2)


def _flat(joint: Array) -> Array:
    return joint.reshape(*joint.shape[:-2], -1)


def _shifted(message: Array) -> tuple[Array, Array]:
    """A message with largest entry 0, floored, and the sum of what was taken out."""
    top = jnp.max(message, axis=-1, keepdims=True)
    return jnp.maximum(message - top, FLOOR), jnp.sum(top, axis=(-2, -1))
