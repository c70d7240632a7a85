"""K7: belief propagation on a deep hierarchy, all levels up and down, over its matrix products."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

import diffjax
from benchmarks.timing import interleave, ready, summarise
from diffjax.data.leaf_channels import corrupt_uniformly, uniform_evidence
from diffjax.data.random_hierarchy import RandomHierarchy, propagate, sample_trees

SHAPE = (32, 8, 2, 9, 256)  # symbols, synonyms, branching, depth, strings
SMALL = (6, 3, 2, 3, 8)
FLOOR = "floor: matrix products of the tables"


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """Messages and marginals of every level of a batch of corrupted strings."""
    v, m, s, depth, batch = SMALL if small else SHAPE
    grammar = diffjax.random_hierarchy(jax.random.key(0), v, v, m, s, depth, jnp.float32)
    leaves = sample_trees(jax.random.key(1), grammar, batch)[-1]
    seen = corrupt_uniformly(jax.random.key(2), leaves, v, 0.15)
    evidence = uniform_evidence(seen, v, jnp.float32(0.15))
    candidates = {
        FLOOR: ready(_products, grammar, evidence),
        "diffjax, propagate": ready(propagate, grammar, evidence),
    }
    if peers:
        candidates["JAX, gather and scatter"] = ready(_gather, grammar, evidence)
        candidates["numpy, gather"] = lambda: _numpy(grammar, np.asarray(evidence))
    exact = _numpy(grammar, np.asarray(evidence, np.float64))
    found = propagate(grammar, evidence).marginals
    error = max(float(np.abs(np.asarray(p) - q).max()) for p, q in zip(found, exact))
    title = f"(v, m, s, L, B) = ({v}, {m}, {s}, {depth}, {batch}), float32"
    accuracy = {"diffjax, propagate": error}
    return [summarise(title, interleave(candidates, rounds), FLOOR, accuracy)]


@jax.jit
def _products(grammar: RandomHierarchy, evidence: jax.Array) -> jax.Array:
    """Three products of every level with a table of its rules, and a sum of the results.

    One to go up, one to go down, and one back into symbols: what messages need at the least
    where a level's rule weights are too many to be kept.
    """
    total, below = jnp.zeros(()), evidence
    for rules in reversed(grammar.rules):
        size, m, s = rules.shape
        table = jax.nn.one_hot(rules.reshape(-1, s), grammar.symbols).reshape(size * m, -1)
        grouped = below.reshape(-1, table.shape[1])
        weights = grouped @ table.T
        back = (weights + total) @ table
        again = (grouped + back) @ table.T
        total = total + jnp.sum(again[:, 0])
        below = weights.reshape(-1, size, m)[..., 0].reshape(*evidence.shape[:1], -1, size)
    return total


@jax.jit
def _gather(grammar: RandomHierarchy, evidence: jax.Array) -> tuple[jax.Array, ...]:
    """The same recursion with indices in place of matrix products."""
    up, kept = [evidence], []
    for rules in reversed(grammar.rules):
        grouped = up[-1].reshape(evidence.shape[0], -1, rules.shape[-1], up[-1].shape[-1])
        weights = sum(grouped[..., i, :][..., rules[..., i]] for i in range(rules.shape[-1]))
        message = jax.nn.logsumexp(weights, axis=-1)
        kept.append(jax.nn.softmax(weights, axis=-1))
        up.append(message - jnp.max(message, axis=-1, keepdims=True))
    found = [jax.nn.softmax(up[-1], axis=-1)]
    for rules, share in zip(grammar.rules, reversed(kept)):
        joint = (found[-1][..., None] * share).reshape(*share.shape[:2], -1)
        flat = rules.reshape(-1, rules.shape[-1])
        zeros = jnp.zeros((*joint.shape[:2], grammar.symbols))
        sides = [zeros.at[..., flat[:, i]].add(joint) for i in range(flat.shape[-1])]
        found.append(jnp.stack(sides, axis=2).reshape(evidence.shape[0], -1, grammar.symbols))
    return tuple(found)


def _numpy(grammar: RandomHierarchy, evidence: np.ndarray) -> list[np.ndarray]:
    """Marginals of every level in the dtype of the evidence."""
    tables = [np.asarray(rules) for rules in grammar.rules]
    up, kept = evidence, []
    for rules in reversed(tables):
        grouped = up.reshape(len(evidence), -1, rules.shape[-1], up.shape[-1])
        weights = sum(grouped[..., i, :][..., rules[..., i]] for i in range(rules.shape[-1]))
        message = logsumexp(weights, axis=-1)
        kept.append(np.exp(weights - message[..., None]))
        up = message - message.max(-1, keepdims=True)
    found = [np.exp(up - logsumexp(up, axis=-1, keepdims=True))]
    for rules, share in zip(tables, reversed(kept)):
        joint = (found[-1][..., None] * share).reshape(*share.shape[:2], -1)
        flat = rules.reshape(-1, rules.shape[-1])
        shape = (len(evidence), joint.shape[1] * flat.shape[1], grammar.symbols)
        level = np.zeros((*joint.shape[:2], *flat.shape[1:], grammar.symbols), evidence.dtype)
        for i in range(flat.shape[1]):
            for b in range(grammar.symbols):
                level[:, :, i, b] = joint[..., flat[:, i] == b].sum(-1)
        found.append(level.reshape(shape))
    return found
