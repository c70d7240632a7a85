"""A hierarchy of Gaussian classes: each level of the class has a speciation time of its own.

Centres are sums over levels of independent signs times orthogonal vectors m_k, |m_k|^2 =
strength d^gamma_k. States x_t are drawn in full dimension, two clones of a state end in classes
drawn independently from the exact posterior, and the frequency with which they agree in sign k is
laid over the exact phi_k(t). The times of the levels part with the dimension like gamma_k/2 log d.
Whole U-turns of data, noised to t and run back by exact transitions, tell which level is the
highest that changes, and how much of the noise within a class survives. A tree whose branches
split in directions of their own is measured beside, because its levels do not factorise. For
clusters and samples that are memorised at two times see the experiment two_level.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Sclocchi, Favero, Wyart 2024
(2402.16991).
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
from diffjax.noise import normal
from diffjax.observables import crossing
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.hierarchical_mixture_figure import draw
from experiments.hierarchical_mixture_theory import TREE, norms
from experiments.hierarchical_mixture_theory import predict as predict
from experiments.session import Curves, Report, Session
from experiments.speciation import against_frequencies
from experiments.style import number

LEVEL = 0.7752002454  # phi at kappa = 1, the static time
ROWS = 2_000_000  # entries of states that are drawn at a time
STEPS = 4  # exact transitions of a U-turn


@dataclass(frozen=True)
class Config:
    """The hierarchy, its dimensions and the sample sizes."""

    dims: tuple[int, ...] = option(
        (64, 512, 4096, 16384), "dimensions, multiples of 2^levels", nargs="+", type=int
    )
    exponents: tuple[float, ...] = option(
        (1.0, 0.6, 0.25), "gamma_k of the levels from the top", nargs="+", type=float
    )
    strength: float = option(1.5, "|m_k|^2 = strength d^gamma_k")
    variance: float = option(0.5, "variance per coordinate within a class")
    temperature: float = option(0.8, "temperature of the process")
    times: int = option(18, "branching times, evenly from 0.15 to 1.2 beyond the first level")
    states: int = option(10_000, "states per time and dimension, one pair of clones each")
    turns: int = option(20_000, "U-turns per time, in the smallest dimension")
    tree_states: int = option(40_000, "states per time of the tree with branches of their own")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (64, 512), "times": 8, "states": 3000, "turns": 3000, "tree_states": 10_000,
    },
    "quick": {"dims": (64, 512, 4096), "states": 6000, "turns": 10_000},
    "paper": {},
}  # fmt: skip


def branching_times(config: Config, dim: int) -> np.ndarray:
    """Times from well below the last level to well above the first, ``(T,)``."""
    top = 0.5 * np.log(norms(config, dim).max() ** 2 / config.temperature)
    return np.linspace(0.15, top + 1.2, config.times)


def sign_table(levels: int) -> np.ndarray:
    """Signs of the levels of every class, ``(2^L, L)``."""
    return np.asarray(list(product((1, -1), repeat=levels)))


def directions(dim: int, levels: int) -> np.ndarray:
    """Orthonormal vectors without a zero entry (Walsh functions), ``(L, dim)``."""
    if dim % 2**levels:
        raise ValueError(f"dims must be multiples of {2**levels} for {levels} levels, got {dim}")
    bits = (np.arange(dim)[None] >> np.arange(levels)[:, None]) & 1
    return (1 - 2 * bits) / np.sqrt(dim)


def mixture(config: Config, dim: int) -> diffjax.Diffusion:
    """The hierarchy in ``dim`` dimensions under the process of the configuration."""
    levels = len(config.exponents)
    means = sign_table(levels) * norms(config, dim) @ directions(dim, levels)
    return _diffusion(config, means)


def tree(config: Config) -> diffjax.Diffusion:
    """Two branches, each split in a direction of its own: centres ``s m_0 + s' m_s``."""
    axes = directions(TREE["dim"], 3)
    means = [
        sign * TREE["root"] * axes[0] + lower * TREE["branches"][branch] * axes[1 + branch]
        for branch, sign in enumerate((1, -1))
        for lower in (1, -1)
    ]
    return _diffusion(config, np.asarray(means))


def _diffusion(config: Config, means: np.ndarray) -> diffjax.Diffusion:
    weights = np.full(len(means), 1 / len(means), config.dtype)
    variance = jnp.asarray(config.variance, config.dtype)
    data = diffjax.gaussian_mixture(weights, means.astype(config.dtype), variance)
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck(config.temperature))


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Clones at all dimensions, U-turns in the smallest one, clones of the branching tree."""
    key = jax.random.key(config.seed)
    measured: dict[str, Any] = {}
    table = sign_table(len(config.exponents))
    for index, dim in enumerate(config.dims):
        times = branching_times(config, dim)
        work = partial(
            _clones, jax.random.fold_in(key, index), mixture(config, dim), table, times,
            config.states, session.progress(f"d = {dim}"),
        )  # fmt: skip
        measured |= {f"{k}_d{dim}": v for k, v in session.part(f"clones_d{dim}", work).items()}
    turns = partial(_u_turns, jax.random.fold_in(key, 100), config, session.progress("U-turns"))
    measured |= session.part("u_turns", turns)
    branching = partial(_tree, jax.random.fold_in(key, 101), config, session.progress("tree"))
    return measured | session.part("tree", branching)


def _clones(
    key: jax.Array, diffusion: diffjax.Diffusion, table: np.ndarray, times: np.ndarray,
    states: int, progress: Any,
) -> Curves:  # fmt: skip
    """Number of pairs of clones that agree in each level, ``(T, L)``, and in all, ``(T,)``."""
    rows = min(states, max(1, ROWS // diffusion.dim))
    blocks = -(-states // rows)
    levels, whole = [], []
    for i, t in enumerate(times):
        pairs = [
            np.asarray(_drawn_classes(jax.random.fold_in(key, i * blocks + j), diffusion, t, rows))
            for j in range(blocks)
        ]
        first, second = np.concatenate(pairs)[:states].T
        same = table[first] == table[second]
        levels.append(same.sum(0))
        whole.append(np.sum(first == second))
        if progress is not None:
            progress(i + 1, len(times))
    return {"times": times, "agree": np.asarray(levels), "agree_whole": np.asarray(whole)}


@partial(jax.jit, static_argnames="rows")
def _drawn_classes(
    key: jax.Array, diffusion: diffjax.Diffusion, t: jax.Array, rows: int
) -> jax.Array:
    """Classes of two clones of ``rows`` fresh states, ``(rows, 2)``."""
    key_x, key_class = jax.random.split(key)
    log_p = diffusion.class_log_posterior(diffusion.sample(key_x, t, rows), t)
    return jax.random.categorical(key_class, log_p[:, None], axis=-1, shape=(rows, 2))


def _u_turns(key: jax.Array, config: Config, progress: Any) -> Curves:
    """What U-turns keep: signs, their combinations, and the coordinates within a class."""
    dim, levels = config.dims[0], len(config.exponents)
    diffusion, table = mixture(config, dim), sign_table(levels)
    axes = jnp.asarray(directions(dim, levels), config.dtype)
    times = branching_times(config, dim)
    kept, overlaps = [], []
    for i, t in enumerate(times):
        classes, overlap = _one_turn(
            jax.random.fold_in(key, i), diffusion, axes, jnp.asarray(t, config.dtype), config.turns
        )
        first, second = np.asarray(classes)
        kept.append(table[first] == table[second])
        values = np.asarray(overlap, np.float64) / config.variance
        overlaps.append((values.mean(), values.std(ddof=1) / np.sqrt(len(values))))
        if progress is not None:
            progress(i + 1, len(times))
    same = np.asarray(kept)  # (T, B, L)
    # highest level that changed; the number of levels where none did
    highest = np.argmin(np.concatenate([same, np.zeros_like(same[..., :1])], -1), axis=-1)
    counts = np.stack([(highest == k).sum(-1) for k in range(levels + 1)], -1)
    pairs = [(k, j) for k in range(levels) for j in range(k)]
    change = 1 - 2.0 * same
    joint = [np.mean(change[..., k] * change[..., j], axis=1) for k, j in pairs]
    means = [change[..., k].mean(1) * change[..., j].mean(1) for k, j in pairs]
    return {
        "turn_times": times, "turn_kept": same.sum(1), "turn_highest": counts,
        "turn_correlation": np.stack(joint, -1) - np.stack(means, -1),
        "turn_overlap": np.asarray(overlaps)[:, 0],
        "turn_overlap_error": np.asarray(overlaps)[:, 1],
    }  # fmt: skip


@partial(jax.jit, static_argnames="turns")
def _one_turn(
    key: jax.Array, diffusion: diffjax.Diffusion, axes: jax.Array, t: jax.Array, turns: int
) -> tuple[jax.Array, jax.Array]:
    """Classes before and after, ``(2, turns)``, and the overlap per coordinate off the centres."""
    key_class, key_data, key_turn, key_end = jax.random.split(key, 4)
    data = diffusion.data
    first = jax.random.randint(key_class, (turns,), 0, data.means.shape[0])
    spread = jnp.sqrt(data.variances[0])
    start = data.means[first] + spread * normal(key_data, (turns, data.dim), t.dtype)
    grid = t * jnp.linspace(1, 0, STEPS + 1, dtype=t.dtype)
    end, _ = diffjax.u_turns(key_turn, diffusion, start, grid, method="exact")
    log_p = data.class_log_posterior(end, jnp.ones((), t.dtype), jnp.zeros((), t.dtype))
    second = jax.random.categorical(key_end, log_p)
    inner = jnp.sum(start * end, -1) - jnp.sum((start @ axes.T) * (end @ axes.T), -1)
    return jnp.stack([first, second]), inner / (data.dim - axes.shape[0])


def _tree(key: jax.Array, config: Config, progress: Any) -> Curves:
    """Pairs of clones of the tree that agree in the branch, and in the class."""
    diffusion = tree(config)
    times = np.linspace(0.1, 2.2, config.times)
    table = np.asarray([[0], [0], [1], [1]])
    found = _clones(key, diffusion, table, times, config.tree_states, progress)
    return {
        "tree_times": times, "tree_branch": found["agree"][:, 0], "tree_leaf": found["agree_whole"],
    }  # fmt: skip


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Levels of clones, U-turns and the tree against exact curves, and wrong theories."""
    value = _gather(config, measured, "agree") / config.states
    exact = _gather(config, predicted, "phi")
    against = partial(against_frequencies, total=config.states)
    found = [against("clone agreement of every level, all dimensions", value, exact)]
    for wrong, label in (
        ("common", "one threshold for all levels"),
        ("half_time", "time of exp(-t/2)"),
        ("no_variance", "variance within a class forgotten"),
        ("other_level", "norm of the wrong level"),
    ):
        curve = _gather(config, predicted, wrong)
        found.append(against(f"levels, {label}", value, exact, wrong=curve, control=True))
    return found + _turn_comparisons(config, measured, predicted) + _tree_comparisons(
        config, measured, predicted
    )  # fmt: skip


def _gather(config: Config, source: dict[str, Any], key: str) -> np.ndarray:
    return np.concatenate([np.ravel(source[f"{key}_d{dim}"]) for dim in config.dims])


def _turn_comparisons(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> list[Comparison]:
    phi = predicted[f"phi_d{config.dims[0]}"]
    turned = partial(against_frequencies, total=config.turns)
    kept = measured["turn_kept"] / config.turns
    width = 4 * phi * (1 - phi)  # variance of a change variable +-1
    pairs = [(k, j) for k in range(phi.shape[1]) for j in range(k)]
    error = np.stack([np.sqrt(width[:, k] * width[:, j] / config.turns) for k, j in pairs], -1)
    # correlations of rare changes are not normal
    normal_enough = np.stack([width[:, k] * width[:, j] for k, j in pairs], -1) * config.turns > 100
    correlation = np.where(normal_enough, measured["turn_correlation"], np.nan)
    value, spread = measured["turn_overlap"], measured["turn_overlap_error"]
    return [
        turned("U-turns that keep each level", kept, phi),
        compare("correlation of the changes of two levels", correlation, error, 0 * error),
        compare("overlap within the classes", value, spread, predicted["overlap"]),
        compare("overlap within the classes, with the agreement of the last level", value, spread,
                2 * phi[:, -1] - 1, control=True),
    ]  # fmt: skip


def _tree_comparisons(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> list[Comparison]:
    """Branches, and classes among the pairs that share the branch: independent frequencies."""
    total = np.full(len(measured["tree_times"]), config.tree_states)
    totals = np.concatenate([total, measured["tree_branch"]])
    value = np.concatenate([measured["tree_branch"] / total,
                            measured["tree_leaf"] / measured["tree_branch"]])  # fmt: skip
    branch, apart = predicted["tree_branch"], predicted["tree_apart"]
    exact = np.concatenate([branch, predicted["tree_leaf"] / branch])
    wrong = np.concatenate([apart, predicted["tree_apart_leaf"] / apart])
    label = "tree with splits of its own in each branch"
    return [
        against_frequencies(label, value, exact, totals),
        against_frequencies(f"{label}, levels multiplied", value, exact, totals, wrong=wrong,
                            control=True),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Crossing times of every level and dimension, their growth with log d, one sentence."""
    found = comparisons(config, measured, predicted)
    rows: list[tuple[str, str]] = []
    summary: dict[str, Any] = {}
    for dim in config.dims:
        entry = _crossings(config, measured, predicted, dim)
        summary[f"d{dim}"] = entry
        for k, gamma in enumerate(config.exponents):
            time = number(entry["crossing"][k], entry["crossing_error"][k])
            text = (
                f"t = {time} at phi_k = {LEVEL:.4f}, exact {number(entry['exact'][k])}; "
                f"static {number(entry['static'][k])}, spectral {number(entry['spectral'][k])}"
            )
            rows.append((f"d = {dim}, level {k + 1} (gamma = {gamma:g})", text))
    slopes = _slopes(config, summary)
    summary["slopes"] = slopes
    for k, gamma in enumerate(config.exponents):
        value = number(slopes["value"][k], slopes["error"][k])
        text = f"{value}, exact {slopes['exact'][k]:.3f}, large d {gamma / 2:.3f}"
        rows.append((f"d t_{k + 1} / d log d", text))
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted, summary),
    )  # fmt: skip


def _crossings(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any], dim: int
) -> dict[str, np.ndarray]:
    """Measured crossings of every level, and the exact curve read off in the same way."""
    times, phi = measured[f"times_d{dim}"], predicted[f"phi_d{dim}"]
    value = measured[f"agree_d{dim}"] / config.states
    error = np.sqrt(phi * (1 - phi) / config.states)
    found = [crossing(times, v, e, LEVEL) for v, e in zip(value.T, error.T)]
    exact = [crossing(times, p, 0 * p, LEVEL)[0] for p in phi.T]
    return {
        "crossing": np.asarray(found)[:, 0], "crossing_error": np.asarray(found)[:, 1],
        "exact": np.asarray(exact), "static": predicted[f"static_times_d{dim}"],
        "spectral": predicted[f"spectral_times_d{dim}"],
    }  # fmt: skip


def _slopes(config: Config, summary: dict[str, Any]) -> dict[str, np.ndarray]:
    """Growth of each level's time with log d between the smallest and the largest dimension."""
    first, last = (summary[f"d{dim}"] for dim in (config.dims[0], config.dims[-1]))
    width = np.log(config.dims[-1] / config.dims[0])
    if width == 0:
        nothing = np.full(len(config.exponents), np.nan)
        return {"value": nothing, "error": nothing, "exact": nothing}
    return {
        "value": (last["crossing"] - first["crossing"]) / width,
        "error": np.hypot(last["crossing_error"], first["crossing_error"]) / width,
        "exact": (last["static"] - first["static"]) / width,
    }


def _finding(config: Config, found: list[Comparison], summary: dict[str, Any]) -> str:
    largest = summary[f"d{config.dims[-1]}"]
    times = ", ".join(number(t, e) for t, e in zip(largest["crossing"], largest["crossing_error"]))
    tree_found = found[-2]
    return (
        f"At d = {config.dims[-1]} clones decide the levels of their class one after the other, "
        f"from the top at t = {times}, each by its own exact phi_k(t) (reduced chi-square "
        f"{found[0].chi_square:.2f} over {found[0].points} points); U-turns change the lowest "
        f"levels first and the changes of two levels are uncorrelated (reduced chi-square "
        f"{found[6].chi_square:.2f}), whereas in a tree with splits of its own in each branch the "
        f"levels are coupled as predicted ({tree_found.chi_square:.2f})."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    pairs = f"of {config.states} pairs"
    per_dim = (
        ("times", measured, "OU branching times (T,)"),
        ("agree", measured, f"clones that agree in each level, {pairs} (T, L)"),
        ("agree_whole", measured, f"clones that agree in all levels, {pairs} (T,)"),
        ("fine_times", predicted, "OU times of the theory curves"),
        ("phi_fine", predicted, "exact agreement of each level on fine_times"),
    )
    single = (
        ("turn_times", measured, "OU turning times (T,)"),
        ("turn_kept", measured, f"U-turns that keep each level, of {config.turns} (T, L)"),
        ("turn_highest", measured, "U-turns by the highest changed level, last: none (T, L + 1)"),
        ("turn_correlation", measured, "connected correlation of changes +-1 of two levels"),
        ("turn_overlap", measured, "overlap within the classes over the variance (T,)"),
        ("turn_overlap_error", measured, "its standard error (T,)"),
        ("highest_fine", predicted, "exact probability of the highest change, smallest d"),
        ("overlap_fine", predicted, "exact overlap within the classes, smallest d"),
        ("tree_times", measured, "OU branching times of the tree (T,)"),
        ("tree_branch", measured, f"clones in one branch, of {config.tree_states} (T,)"),
        ("tree_leaf", measured, f"clones in one class, of {config.tree_states} (T,)"),
        ("tree_fine_times", predicted, "OU times of the curves of the tree"),
        ("tree_branch_fine", predicted, "exact agreement in the branch"),
        ("tree_leaf_fine", predicted, "exact agreement in the class"),
        ("tree_apart_fine", predicted, "agreement in the branch if the levels were independent"),
    )
    listed = [(f"{key}_d{dim}", source, f"d = {dim}: {text}")
              for dim in config.dims for key, source, text in per_dim]  # fmt: skip
    listed += single
    return (
        {key: np.asarray(source[key]) for key, source, _ in listed},
        {key: text for key, _, text in listed},
    )
