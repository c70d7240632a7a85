"""Theory of the experiment ``random_hierarchy``: populations given the grammars, and the map."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from theory import hierarchy
from theory import hierarchy_population as population

CHANNELS = ("masking", "corruption", "gaussian", "process")
REAL = CHANNELS[:3]
BRANCHING = 2
BISECTIONS = 9
WIDER = 2.5  # bracket of the transition in widths of the range of noises


def _leaves(which: jax.Array, key: jax.Array, noise: jax.Array, v: int, size: int) -> jax.Array:
    """Population of the leaves of channel ``which``, so that all channels share a program."""
    kinds = (population.masked_leaves, population.corrupted_leaves, population.gaussian_leaves)
    return jax.lax.switch(
        which, [partial(kind, symbols=v, size=size) for kind in kinds], key, noise
    )


def predict(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Beliefs by level ``(pools, noises, grammars, L + 1)``, leaves first, and thresholds."""
    predicted: dict[str, Any] = {}
    rules = jnp.asarray(measured["rules"])
    sizes = (config.symbols, config.synonyms, BRANCHING)
    for i, channel in enumerate(REAL):
        key = jax.random.fold_in(jax.random.key(config.seed + 1), i)
        grid = measured[f"noise_{channel}_L{config.depths[0]}"]
        leaves = Partial(_leaves, jnp.asarray(i))
        predicted[f"beliefs_{channel}"] = np.asarray(
            _beliefs(key, rules, jnp.asarray(grid), leaves, config.members, config.pools)
        )
        found = population.transition(
            jax.random.fold_in(key, 1), leaves, _bracket(grid), config.deep, *sizes,
            grammars=config.deep_grammars, size=config.deep_members, bisections=BISECTIONS,
        )  # fmt: skip
        predicted[f"transition_{channel}"] = np.array([found.mean, found.error], np.float64)
        predicted[f"transitions_{channel}"] = np.asarray(found.noise)
    predicted["chain"] = _chain(config, rules, predicted)
    noise = measured[f"noise_process_L{config.depths[-2]}"]
    predicted["map_process"] = np.asarray(
        hierarchy.iterated_belief(noise, config.depths[-2], *sizes)[:, -1]
    )
    for depth in config.depths:
        grid = measured[f"noise_masking_L{depth}"]
        predicted[f"map_masking_L{depth}"] = np.asarray(
            hierarchy.iterated_belief(grid, depth, *sizes)[:, -1]
        )
    threshold = hierarchy.threshold(*sizes)
    predicted["map_threshold"] = np.array([threshold.belief, threshold.noise])
    return predicted


def _bracket(grid: np.ndarray) -> tuple[float, float]:
    """A range around the noises that leaves room for the spread between grammars."""
    middle, half = 0.5 * (grid[0] + grid[-1]), 0.5 * WIDER * (grid[-1] - grid[0])
    return max(middle - half, 0.1 * grid[0]), middle + half


def _chain(config: Any, rules: jax.Array, predicted: dict[str, Any]) -> np.ndarray:
    """Belief at the root of the backward SDE's grammar, mean and error over pools."""
    found = predicted["beliefs_gaussian"][:, :, 0, config.chain_depth]
    return np.stack([found.mean(0), found.std(0, ddof=1) / np.sqrt(len(found))])


@partial(jax.jit, static_argnames=("members", "pools"))
def _beliefs(
    key: jax.Array, rules: jax.Array, grid: jax.Array, leaves: Partial, members: int, pools: int
) -> jax.Array:
    grammars, _, symbols = rules.shape[:3]
    index = jnp.indices((pools, len(grid), grammars)).reshape(3, -1)

    def one(item: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, (_, i, g) = item
        key_leaves, key_climb = jax.random.split(key)
        messages = leaves(key_leaves, grid[i], symbols, members)
        return population.belief_by_level(key_climb, rules[g], messages)

    found = jax.lax.map(one, (jax.random.split(key, index.shape[1]), tuple(index)))
    return found.reshape(pools, len(grid), grammars, -1)
