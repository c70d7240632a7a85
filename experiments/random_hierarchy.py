"""U-turns on a random grammar: the class is lost at a sharp noise, the symbols below it smoothly.

Strings of Random Hierarchy Models are noised by masking, by uniform corruption or by Gaussian
noise on their one-hot vectors, and one sample is drawn from the exact posterior given by belief
propagation. Measured is the probability that the class and the latent symbols of every level
survive. By Nishimori's identity it equals the mean posterior belief in the truth, whatever the
channel. Hierarchies of different depth lose their class at curves that cross; the theory's
population dynamics, given the same grammars, must reproduce the curves, and on deep random
hierarchies it gives the transition. The mean-field map of the simplified epsilon process has its
threshold elsewhere, and fails for a real channel.

The package's backward SDE is run on the same data: its samples must obey the grammar and show all
classes alike, and its U-turns must keep the class as often as theory says.

Sources: Cagnetta et al. 2023 (2307.02129); Sclocchi, Favero, Wyart 2024 (2402.16991).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import noise
from diffjax.data import leaf_channels as channels
from diffjax.data.random_hierarchy import (
    RandomHierarchy,
    belief_in,
    parse,
    propagate,
    sample_posterior_trees,
    sample_trees,
)
from experiments import random_hierarchy_theory as solved
from experiments.command_line import option
from experiments.random_hierarchy_report import report
from experiments.session import Curves, Session

__all__ = ["PRESETS", "Config", "predict", "report", "simulate"]


@dataclass(frozen=True)
class Config:
    """Grammars, channels and their noises."""

    symbols: int = option(32, "symbols of every level, and classes")
    synonyms: int = option(8, "rules of every symbol")
    depths: tuple[int, ...] = option((3, 5, 7, 9), "depths of binary trees", nargs="+", type=int)
    masking: tuple[float, ...] = option((0.2, 0.34), "range of masking", nargs=2, type=float)
    corruption: tuple[float, ...] = option((0.1, 0.2), "range of corruption", nargs=2, type=float)
    gaussian: tuple[float, ...] = option((0.056, 0.08), "range of OU times", nargs=2, type=float)
    process: tuple[float, ...] = option(
        (0.45, 0.9), "range of the epsilon process", nargs=2, type=float
    )
    noises: int = option(8, "noises of every channel")
    grammars: int = option(48, "random grammars, the same for all depths and noises")
    strings: int = option(64, "strings of each grammar, depth and noise")
    members: int = option(48, "population of the theory for each symbol")
    pools: int = option(3, "independent populations of the theory for each grammar")
    deep: int = option(14, "depth at which the theory locates the transition")
    deep_grammars: int = option(64, "random grammars of that depth")
    deep_members: int = option(400, "their population for each symbol")
    chain_depth: int = option(3, "depth of the grammar of the backward SDE")
    chains: int = option(4000, "backward trajectories")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "symbols": 10, "synonyms": 3, "depths": (2, 4), "masking": (0.42, 0.72),
        "corruption": (0.24, 0.48), "gaussian": (0.11, 0.22), "noises": 4, "grammars": 8,
        "strings": 64, "deep": 8, "deep_grammars": 8, "deep_members": 48,
        "chain_depth": 2, "chains": 1000,
    },
    "quick": {"noises": 5, "grammars": 12, "strings": 40, "pools": 2, "deep_grammars": 24,
              "deep": 10, "deep_members": 96, "chains": 1500},
    "paper": {},
}  # fmt: skip

BRANCHING = 2
CHAIN_TIMES = (3.0, 1.5, 0.8, 0.4, 0.2, 0.14, 0.1, 0.075, 0.055, 0.04, 0.025, 0.01, 0.0)
SDE_STEPS = 250  # of Euler-Maruyama, even in log t down to the last positive time


def noise_grid(config: Config, channel: str) -> np.ndarray:
    """Noises of a channel, evenly spaced; more for the step of the epsilon process."""
    low, high = getattr(config, channel)
    return np.linspace(low, high, config.noises * (2 if channel == "process" else 1))


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """U-turns of every channel and depth, and the backward SDE."""
    if config.grammars < 2:
        raise ValueError(f"grammars is {config.grammars}; errors between grammars need at least 2")
    rules = _grammars(config)
    measured: dict[str, Any] = {"rules": rules}
    for index, channel in enumerate(solved.CHANNELS):
        depths = config.depths if channel != "process" else config.depths[-2:-1]
        for depth in depths:
            name = f"{channel}_L{depth}"
            key = jax.random.fold_in(jax.random.key(config.seed), 100 * index + depth)
            work = partial(_turns, key, config, rules, channel, depth, session.progress(name))
            measured |= {f"{k}_{name}": v for k, v in session.part(name, work).items()}
    measured |= session.part("chains", partial(_chains, config, rules))
    return measured


def _grammars(config: Config) -> np.ndarray:
    """Rules of all grammars at the largest depth, ``(grammars, L, v, m, s)``, root first."""
    keys = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 7), config.grammars)
    v, depth = config.symbols, config.depths[-1]
    found = jax.vmap(
        lambda key: diffjax.random_hierarchy(key, v, v, config.synonyms, BRANCHING, depth)
    )(keys)
    return np.stack([np.asarray(rules) for rules in found.rules], axis=1)


def grammar_of(rules: jax.Array, depth: int) -> RandomHierarchy:
    """The lowest ``depth`` levels of rules ``(L, v, m, s)``, itself a random hierarchy."""
    v = rules.shape[1]
    levels = tuple(rules[len(rules) - depth + i] for i in range(depth))
    return RandomHierarchy(levels, jnp.full(v, -np.log(v), jnp.float32), v)


def _turns(
    key: jax.Array, config: Config, rules: np.ndarray, channel: str, depth: int, progress: Any
) -> Curves:
    """Class and levels at every noise, averaged over the nodes of a level.

    ``survives``, ``belief`` and ``below`` (belief by what is seen below the node only) are
    ``(noises, grammars, strings, depth + 1)``, from the root down.
    """
    grid, which = noise_grid(config, channel), solved.CHANNELS.index(channel)
    found = []
    for i, level in enumerate(grid):
        keys = jax.random.split(jax.random.fold_in(key, i), len(rules))
        found.append(_turn(keys, jnp.asarray(rules), which, level, depth, config.strings))
        if progress is not None:
            progress(i + 1, len(grid))
    names = ("survives", "belief", "below")
    arrays = {name: np.stack([np.asarray(f[k]) for f in found]) for k, name in enumerate(names)}
    return {"noise": grid, **arrays}


@partial(jax.jit, static_argnames=("depth", "strings"))
def _turn(
    keys: jax.Array, rules: jax.Array, which: int, level: jax.Array, depth: int, strings: int
) -> tuple[jax.Array, ...]:
    def one(item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        key, table = item
        grammar = grammar_of(table, depth)
        key_tree, key_noise, key_back = jax.random.split(key, 3)
        tree = sample_trees(key_tree, grammar, strings)
        evidence = _evidence(key_noise, tree[-1], grammar.symbols, which, level)
        beliefs = propagate(grammar, evidence)
        again = sample_posterior_trees(key_back, grammar, evidence)
        kept = [(a == b).astype(jnp.float32) for a, b in zip(again, tree)]
        alone = tuple(jax.nn.softmax(message, axis=-1) for message in beliefs.up)
        return tuple(
            jnp.stack([jnp.mean(level, axis=-1) for level in levels], axis=-1)
            for levels in (kept, belief_in(beliefs.marginals, tree), belief_in(alone, tree))
        )

    return jax.lax.map(one, (keys, rules))


def _evidence(key: jax.Array, leaves: jax.Array, v: int, which: int, level: jax.Array) -> jax.Array:
    """Evidence of noised strings, by the channel's number in `solved.CHANNELS`."""
    level = level.astype(jnp.float32)

    def masking(key: jax.Array) -> jax.Array:
        seen = channels.corrupt_by_masking(key, leaves, level)
        return channels.masking_evidence(seen, v, jnp.float32)

    def corruption(key: jax.Array) -> jax.Array:
        seen = channels.corrupt_uniformly(key, leaves, v, level)
        return channels.uniform_evidence(seen, v, level)

    def gaussian(key: jax.Array) -> jax.Array:
        process = diffjax.ornstein_uhlenbeck()
        scale, std = process.scale(level), process.std(level)
        a = channels.one_hot_event(leaves, v, jnp.float32)
        x = scale * a + std * noise.normal(key, a.shape, a.dtype)
        return channels.gaussian_evidence(x, v, scale, std)

    def process(key: jax.Array) -> jax.Array:
        return channels.epsilon_process_evidence(leaves, v, level)

    return jax.lax.switch(which, (masking, corruption, gaussian, process), key)


def _chains(config: Config, rules: np.ndarray) -> Curves:
    """Backward SDE from noise, and U-turns by it, on the first grammar."""
    grammar = grammar_of(jnp.asarray(rules[0]), config.chain_depth)
    model = diffjax.Diffusion(grammar, diffjax.ornstein_uhlenbeck())
    key = jax.random.fold_in(jax.random.key(config.seed), 11)
    start = model.sample(jax.random.fold_in(key, 0), CHAIN_TIMES[0], config.chains)

    def valid(x: jax.Array, _: Any = None) -> jax.Array:
        return jnp.mean(parse(grammar, channels.string_of_event(x, grammar.symbols))[0] >= 0)

    def run(index: int, times: Any, **options: Any) -> tuple[jax.Array, Any]:
        return diffjax.backward(jax.random.fold_in(key, index), model, start, times, **options)

    end, info = run(1, CHAIN_TIMES, method="exact", observe=valid)
    found: Curves = {
        "chain_valid": np.concatenate([[valid(start)], info.observed]),
        "chain_classes": _class_counts(grammar, end),
    }
    grid = np.geomspace(CHAIN_TIMES[0], 1e-3, SDE_STEPS + 1)
    end, _ = run(2, grid, method="euler_maruyama")
    found["sde_valid"] = np.asarray(valid(end))
    found["sde_classes"] = _class_counts(grammar, end)
    kept = []
    turn = np.append(np.geomspace(1, 0.05, len(CHAIN_TIMES) - 1), 0.0)
    for i, t in enumerate(noise_grid(config, "gaussian")):
        key_data, key_turn = jax.random.split(jax.random.fold_in(key, 100 + i))
        a = grammar.sample(key_data, config.chains)
        # with the observation and the number of steps of the chain, whose program it shares
        back, _ = diffjax.u_turns(key_turn, model, a, t * turn, method="exact", observe=valid)
        kept.append(np.mean(_class(grammar, a) == _class(grammar, back)))
    return found | {"chain_kept": np.array(kept)}


def _class(grammar: RandomHierarchy, x: jax.Array) -> np.ndarray:
    """Class of events by their parse, -1 where they do not obey the grammar."""
    return np.asarray(parse(grammar, channels.string_of_event(x, grammar.symbols))[0][:, 0])


def _class_counts(grammar: RandomHierarchy, x: jax.Array) -> np.ndarray:
    """Number of valid events of each class."""
    return np.bincount(_class(grammar, x) + 1, minlength=grammar.classes + 1)[1:]


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Beliefs of the same grammars, transitions of deep ones, and the mean-field map."""
    return solved.predict(config, measured)
