"""Correlated changes of the leaves of a random hierarchy, largest where the class is lost.

Strings of a random grammar are noised and drawn back from their exact posterior. A leaf is
unchanged (+1) or changed (-1). The connected two-point function C_ij of these signs, over data,
noise and draws of one grammar, is measured against the distance in the tree; the susceptibility
chi = sum_ij C_ij / sum_i C_ii, the number of leaves that change together, peaks where the class
starts to change, and the correlations reach furthest there. Averages and errors are taken over
grammars. On short strings the correlations are known by listing all strings, and the mean change
of every level equals the belief in the truth (Nishimori). Without the subtraction of the means,
or with the leaves dealt out among the data, there is no peak.

Source: Sclocchi, Favero, Levi, Wyart 2024 (2410.13770); Sclocchi, Favero, Wyart 2024 (2402.16991).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.change_correlations
from diffjax import processes
from diffjax.data import leaf_channels, random_hierarchy
from diffjax.data.random_hierarchy import RandomHierarchy
from diffjax.observables import correlations, crossing, mean_and_error
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.hierarchy_correlations_figure import draw
from experiments.session import Curves, Report, Session
from experiments.style import number

NOISE = {"masking": (0.04, 0.6), "uniform": (0.03, 0.4), "gaussian": (0.03, 0.16)}
"""First and last noise: probabilities of masking and of resampling, OU time."""

RARE = 30  # fewest expected pairs of changes for which a susceptibility is nearly normal
SHORT = {"symbols": 4, "synonyms": 2, "depth": 3}
SHORT_NOISE = np.array([0.2, 0.35, 0.5, 0.65, 0.8])


@dataclass(frozen=True)
class Config:
    """Grammar, channel and sample sizes."""

    symbols: int = option(32, "symbols v of every level, and classes")
    synonyms: int = option(8, "rules m of every symbol")
    branching: int = option(2, "children s of every node")
    depths: tuple[int, ...] = option((3, 5, 7), "depths L", nargs="+", type=int)
    channel: str = option("masking", "noise of the leaves", choices=tuple(NOISE))
    noises: int = option(15, "noise levels, evenly in the range of the channel")
    grammars: int = option(8, "grammars; errors are between them")
    states: int = option(4000, "U-turns for every grammar and noise")
    short_states: int = option(40_000, "U-turns of the short strings")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "symbols": 12, "synonyms": 4, "depths": (2, 4), "noises": 7, "grammars": 4, "states": 800,
        "short_states": 8000,
    },
    "quick": {"depths": (2, 4, 6), "noises": 11, "grammars": 6, "states": 1500,
              "short_states": 20_000},
    "paper": {},
}  # fmt: skip


def noises(config: Config) -> np.ndarray:
    """The noise levels, ``(T,)``."""
    return np.linspace(*NOISE[config.channel], config.noises)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Observables of every depth, grammar and noise, and those of the short strings."""
    if config.grammars < 2:
        raise ValueError(f"grammars is {config.grammars}; errors between grammars need at least 2")
    key = jax.random.key(config.seed)
    measured: dict[str, Any] = {"noise": noises(config)}
    for depth in config.depths:
        sizes = (config.symbols, config.synonyms, config.branching, depth)
        work = partial(
            _curves, jax.random.fold_in(key, depth), sizes, config.channel, measured["noise"],
            config.states, config, session.progress(f"L = {depth}"),
        )  # fmt: skip
        measured |= {f"{k}_L{depth}": v for k, v in session.part(f"L{depth}", work).items()}
    short = partial(
        _curves, jax.random.fold_in(key, 1000), (SHORT["symbols"], SHORT["synonyms"], 2,
        SHORT["depth"]), "masking", SHORT_NOISE, config.short_states, config,
        session.progress("short strings"),
    )  # fmt: skip
    return measured | {f"{k}_short": v for k, v in session.part("short", short).items()}


def _curves(
    key: jax.Array, sizes: tuple[int, int, int, int], channel: str, levels: np.ndarray,
    states: int, config: Config, progress: Any,
) -> Curves:  # fmt: skip
    """Every observable with leading axes ``(grammars, T)``; rules of the grammars."""
    found: list[dict[str, np.ndarray]] = []
    rules = []
    for g in range(config.grammars):
        grammar_key, turn_key = jax.random.split(jax.random.fold_in(key, g))
        symbols, *rest = sizes
        grammar = random_hierarchy.random_hierarchy(
            grammar_key, symbols, symbols, *rest, dtype=config.dtype
        )
        rules.append(np.stack([np.asarray(table) for table in grammar.rules]))
        for i, noise in enumerate(levels):
            row = _observe(
                jax.random.fold_in(turn_key, i), grammar, jnp.asarray(noise, config.dtype),
                states, channel,
            )  # fmt: skip
            found.append({name: np.asarray(value, np.float64) for name, value in row.items()})
            if progress is not None:
                progress(len(found), config.grammars * len(levels))
    shape = (config.grammars, len(levels))
    curves = {name: np.stack([row[name] for row in found]) for name in found[0]}
    curves = {name: v.reshape(*shape, *v.shape[1:]) for name, v in curves.items()}
    return curves | {"rules": np.stack(rules)}


@partial(jax.jit, static_argnames=("states", "channel"))
def _observe(
    key: jax.Array, grammar: RandomHierarchy, noise: jax.Array, states: int, channel: str
) -> dict[str, jax.Array]:
    """U-turns of fresh strings: what is kept, what is believed, and the correlations."""
    key_data, key_noise, key_draw, key_deal = jax.random.split(key, 4)
    tree = random_hierarchy.sample_trees(key_data, grammar, states)
    evidence = _evidence(key_noise, tree[-1], grammar.symbols, noise, channel)
    drawn = random_hierarchy.sample_posterior_trees(key_draw, grammar, evidence)
    beliefs = random_hierarchy.propagate(grammar, evidence).marginals
    belief = random_hierarchy.belief_in(beliefs, tree)
    kept = [jnp.mean(a == b, axis=1, dtype=noise.dtype) for a, b in zip(tree, drawn)]
    trusted = [jnp.mean(p, axis=1) for p in belief]
    gap = mean_and_error(jnp.stack(kept, 1) - jnp.stack(trusted, 1))
    changes = jnp.where(tree[-1] == drawn[-1], 1, -1).astype(noise.dtype)
    found = correlations.tree_correlation(changes, grammar.branching)
    # every leaf keeps its frequency of changes, and none knows of the others
    dealt = jax.random.permutation(key_deal, changes, axis=0, independent=True)
    alone = correlations.susceptibility(dealt).mean
    # of independent leaves: exact error, and the expected number of pairs of changes
    variances, share = jnp.var(changes, axis=0), jnp.mean(changes < 0, axis=0, dtype=noise.dtype)
    concentrated = jnp.sum(variances**2) / jnp.maximum(jnp.sum(variances) ** 2, 1e-30)
    pairs = 0.5 * states * (jnp.sum(share) ** 2 - jnp.sum(share**2))
    total = jnp.square(jnp.sum(changes, axis=1)) / changes.shape[1]
    mean, error = mean_and_error(jnp.mean(changes, axis=1))
    return {
        "kept": jnp.mean(jnp.stack(kept, 1), 0), "belief": jnp.mean(jnp.stack(trusted, 1), 0),
        "gap_error": gap.error, "change": mean, "change_error": error,
        "covariance": found.by_height.mean, "covariance_error": found.by_height.error,
        "chi": found.susceptibility.mean, "chi_error": found.susceptibility.error,
        "length": found.length.mean, "dealt": alone, "disconnected": jnp.mean(total),
        "dealt_error": jnp.sqrt(2 * (1 - concentrated) / states), "dealt_pairs": pairs,
    }  # fmt: skip


def _evidence(
    key: jax.Array, leaves: jax.Array, symbols: int, noise: jax.Array, channel: str
) -> jax.Array:
    """Evidence of the noised leaves, ``(B, n, v)``."""
    if channel == "masking":
        seen = leaf_channels.corrupt_by_masking(key, leaves, noise)
        return leaf_channels.masking_evidence(seen, symbols, noise.dtype)
    if channel == "uniform":
        seen = leaf_channels.corrupt_uniformly(key, leaves, symbols, noise)
        return leaf_channels.uniform_evidence(seen, symbols, noise, noise.dtype)
    process = diffjax.ornstein_uhlenbeck()
    event = leaf_channels.one_hot_event(leaves, symbols, noise.dtype)
    x = processes.perturb(key, process, event, noise)
    return leaf_channels.gaussian_evidence(x, symbols, process.scale(noise), process.std(noise))


def all_strings(rules: np.ndarray) -> np.ndarray:
    """All strings of a grammar ``(L, v, m, s)`` with as many classes as symbols, ``(N, s^L)``."""
    strings = np.arange(rules.shape[1])[:, None]
    for table in rules:
        width = strings.shape[1]
        choices = np.asarray(list(product(range(table.shape[1]), repeat=width)))
        grown = table[strings[:, None], choices]  # (K, m^width, width, s)
        strings = grown.reshape(-1, width * table.shape[2])
    return strings


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact moments of the short strings of every grammar, by listing all strings."""
    moments = theory.change_correlations
    fine = np.linspace(0.05, 0.95, 60)
    grid = np.concatenate([SHORT_NOISE, fine])
    rows = []
    for rules in measured["rules_short"]:
        found = moments.masked_change_moments(all_strings(rules), grid)
        rows.append((
            found.mean.mean(-1), moments.change_susceptibility(found.covariance),
            moments.covariance_by_height(found.covariance, 2),
        ))  # fmt: skip
    size = len(SHORT_NOISE)
    change, chi, covariance = (np.stack([np.asarray(r[i]) for r in rows]) for i in range(3))
    return {
        "change": change[:, :size], "chi": chi[:, :size], "covariance": covariance[:, :size],
        "chi_fine": chi[:, size:], "short_fine": fine, "short_noise": SHORT_NOISE,
    }  # fmt: skip


def over_grammars(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error between grammars, the first axis."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def peak(noise: np.ndarray, curves: np.ndarray) -> dict[str, float]:
    """Place and height of the maximum of the mean of ``(grammars, T)``, with jackknife errors.

    By the parabola through the largest value and its neighbours; NaN at an end of the range.
    """

    def place(curve: np.ndarray) -> np.ndarray:
        i = int(np.argmax(curve))
        if i in (0, len(curve) - 1):
            return np.array([np.nan, np.nan])
        left, top, right = curve[i - 1 : i + 2]
        shift = 0.5 * (left - right) / (left - 2 * top + right)
        return np.array([noise[i] + shift * (noise[1] - noise[0]),
                         top - 0.25 * (left - right) * shift])  # fmt: skip

    curves = np.nan_to_num(curves, nan=1.0)  # no leaf has changed, and none together with others
    n = len(curves)
    each = np.stack([place(np.delete(curves, g, 0).mean(0)) for g in range(n)])
    value = place(curves.mean(0))
    error = np.sqrt((n - 1) / n * np.sum((each - each.mean(0)) ** 2, axis=0))
    return {"noise": value[0], "noise_error": error[0], "chi": value[1], "chi_error": error[1]}


def comparisons(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> list[Comparison]:
    """Short strings against enumeration; kept levels against beliefs; two wrong correlations."""
    short = {k: np.ravel(measured[f"{k}_short"]) for k in (
        "change", "change_error", "chi", "chi_error", "disconnected"
    )}  # fmt: skip
    top, top_error = (measured[f"{k}_short"][..., -1] for k in ("covariance", "covariance_error"))
    chi = np.ravel(predicted["chi"])
    found = [
        compare("short strings, mean change, enumeration", short["change"], short["change_error"],
                np.ravel(predicted["change"])),
        compare("short strings, susceptibility, enumeration", short["chi"], short["chi_error"],
                chi),
        compare("short strings, correlation across the root, enumeration", np.ravel(top),
                np.ravel(top_error), np.ravel(predicted["covariance"][..., -1])),
        compare("short strings, means not subtracted", short["disconnected"], short["chi_error"],
                chi, control=True),
    ]  # fmt: skip
    for level, name in ((0, "class"), (-1, "leaves")):
        kept, belief, error = (
            np.concatenate([np.ravel(measured[f"{k}_L{depth}"][..., level])
                            for depth in config.depths])
            for k in ("kept", "belief", "gap_error")
        )  # fmt: skip
        found.append(compare(f"{name} kept, belief in the truth", kept, error, belief))
    dealt, dealt_error, pairs, chi, chi_error = (
        np.concatenate([np.ravel(measured[f"{k}_L{depth}"]) for depth in config.depths])
        for k in ("dealt", "dealt_error", "dealt_pairs", "chi", "chi_error")
    )
    one = np.ones_like(dealt)
    dealt = np.where(pairs >= RARE, dealt, np.nan)
    found += [
        compare("leaves dealt out among the data, no correlation", dealt, dealt_error, one),
        compare("susceptibility, leaves independent", chi, chi_error, one, control=True),
    ]
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Peak of the susceptibility beside the loss of the class, for every depth."""
    found, noise = comparisons(config, measured, predicted), measured["noise"]
    floor = 1 / config.symbols
    rows, summary = [], {}
    for depth in config.depths:
        kept, error = over_grammars(measured[f"kept_L{depth}"][..., 0])
        half = crossing(noise, kept, error, 0.5 * (1 + floor))
        entry: dict[str, Any] = peak(noise, measured[f"chi_L{depth}"])
        entry["disconnected_peak"] = peak(noise, measured[f"disconnected_L{depth}"])["noise"]
        entry["length_peak"] = peak(noise, measured[f"length_L{depth}"])
        entry |= {"class_half": half[0], "class_half_error": half[1],
                  "leaves": config.branching**depth}  # fmt: skip
        summary[f"L{depth}"] = entry
        text = (
            f"peak {number(entry['chi'], entry['chi_error'])} at noise "
            f"{number(entry['noise'], entry['noise_error'])}; class half lost at {number(*half)}; "
            f"longest correlations {number(entry['length_peak']['chi'])} leaves at "
            f"{number(entry['length_peak']['noise'], entry['length_peak']['noise_error'])}"
        )
        rows.append((f"L = {depth}, {entry['leaves']} leaves", text))
    crossings = class_crossings(config, measured)
    summary["class_crossings"] = crossings
    for (first, second), (value, error) in crossings.items():
        label = f"class curves of L = {first} and {second} cross"
        rows.append((label, f"noise {number(value, error)}"))
    summary["class_crossings"] = {f"{a}-{b}": v for (a, b), v in crossings.items()}
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted, summary),
    )  # fmt: skip


def class_crossings(
    config: Config, measured: dict[str, Any]
) -> dict[tuple[int, int], tuple[float, float]]:
    """Noise at which the kept class of two depths is equally likely: where deep trees lose it."""
    found = {}
    for first, second in zip(config.depths, config.depths[1:]):
        means, errors = zip(*(over_grammars(measured[f"kept_L{depth}"][..., 0])
                              for depth in (first, second)))  # fmt: skip
        difference, error = means[1] - means[0], np.hypot(*errors)
        found[(first, second)] = crossing(measured["noise"], difference, error, 0.0)
    return found


def _finding(config: Config, found: list[Comparison], summary: dict[str, Any]) -> str:
    entries = [summary[f"L{depth}"] for depth in config.depths]
    heights = ", ".join(number(e["chi"], e["chi_error"]) for e in entries)
    places = ", ".join(number(e["noise"], e["noise_error"]) for e in entries)
    halves = ", ".join(number(e["class_half"], e["class_half_error"]) for e in entries)
    return (
        f"In random hierarchies of depth {', '.join(map(str, config.depths))} the number of leaves "
        f"that change together peaks at {heights} where the noise ({config.channel}) is {places}, "
        f"as the class is half lost at {halves}; on short strings it is that of the enumeration "
        f"(reduced chi-square {found[1].chi_square:.2f} over {found[1].points} points), and leaves "
        f"dealt out among the data show no correlation ({found[6].chi_square:.2f})."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    unit = "OU time" if config.channel == "gaussian" else "probability"
    texts = {
        "kept": "fraction of unchanged symbols of every level (grammars, T, L + 1)",
        "belief": "mean belief in the truth, same shape",
        "covariance": "connected covariance by height of the ancestor (grammars, T, L + 1)",
        "chi": "susceptibility (grammars, T)",
        "chi_error": "its error over U-turns",
        "length": "correlation length in leaves (grammars, T)",
        "dealt": "susceptibility of leaves dealt out among the data (grammars, T)",
        "disconnected": "susceptibility without subtraction of the means (grammars, T)",
    }
    curves: Curves = {"noise": measured["noise"]}
    axes = {"noise": f"noise of the channel {config.channel}, {unit} (T,)"}
    for depth in config.depths:
        for key, text in texts.items():
            curves[f"{key}_L{depth}"] = measured[f"{key}_L{depth}"]
            axes[f"{key}_L{depth}"] = f"L = {depth}: {text}"
    for key in ("chi", "chi_error", "covariance", "disconnected"):
        curves[f"{key}_short"] = measured[f"{key}_short"]
        axes[f"{key}_short"] = f"short strings at masking {SHORT_NOISE.tolist()}: {key}"
    for key in ("chi", "covariance"):
        curves[f"{key}_exact"] = predicted[key]
        axes[f"{key}_exact"] = f"short strings by enumeration: {key}"
    # no leaf may have changed at the lowest noise
    return {key: np.nan_to_num(value, nan=1.0) for key, value in curves.items()}, axes
