"""Stored patterns: retrieved from a clean cue, or recovered from a noised one.

The empirical score is the force of an associative memory with exponential interactions. Its
retrieval threshold alpha_1 is measured by iterating the memory from its own patterns, for three
laws of patterns and several sizes. For diffusion the question is another one: whether a pattern
that was noised to time t returns. Along the exact reverse process it does so with the mean
posterior weight of the own pattern, whatever the size; a deterministic sampler (DDIM) has another
rate. At equal noise the clean pattern is still an attractor when the noised one no longer returns:
the collapse time t_C is below the onset of traps t_o.

Source: Lucibello, Mezard 2024 (2304.14964); Biroli, Bonnaire, de Bortoli, Mezard 2024
(2402.18491); Pham et al. 2025 (2505.21777).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.associative_memory
import theory.collapse
from diffjax.noise import normal
from diffjax.observables import attractors, recovery
from diffjax.observables.estimates import crossing
from diffjax.observables.memorisation import nearest_distances
from experiments.associative_memory_figure import draw
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import number

FAMILIES = theory.associative_memory.PATTERNS
STEPS, OVERLAP = 50, 0.9  # of a retrieval


@dataclass(frozen=True)
class Config:
    """A memory at several sizes, and one set of diffused patterns."""

    lam: float = option(0.8, "inverse temperature of the memory")
    sizes: tuple[int, ...] = option((10, 14, 18), "numbers N of units", nargs="+", type=int)
    loads: int = option(9, "loads alpha, from 0.35 to 1.15 times the threshold")
    sets: int = option(40, "sets of patterns for each load")
    cues: int = option(8, "patterns of each set that are retrieved")
    dim: int = option(20, "dimension of the diffused patterns")
    patterns: int = option(150, "number of diffused patterns")
    times: int = option(10, "turning times, from 0.4 t_C to 1.8 t_o")
    trials: int = option(20, "U-turns of each pattern at each time")
    draws: int = option(400, "draws of each posterior")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "sizes": (8, 12), "loads": 3, "sets": 30, "cues": 4, "dim": 12, "patterns": 20,
        "times": 5, "draws": 200,
    },
    "quick": {"sizes": (8, 12, 16), "loads": 8},
    "paper": {"sizes": (10, 14, 18, 22), "loads": 13, "sets": 100, "patterns": 400,
              "dim": 24, "times": 16, "trials": 100},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Retrieval, sums over the other patterns, posterior draws, U-turns."""
    key = jax.random.key(config.seed)
    measured: dict[str, Any] = {}
    for i, size in enumerate(config.sizes):
        bar = session.progress(f"retrieval, N = {size}")
        work = partial(_retrieval, jax.random.fold_in(key, i), size, config, bar)
        measured |= {f"{k}_n{size}": v for k, v in session.part(f"n{size}", work).items()}
    key = jax.random.fold_in(key, 1000)
    return measured | session.part("diffusion", partial(_diffusion, key, config))


def loads(config: Config) -> np.ndarray:
    """Loads ``log P / N`` asked for, ``(L,)``; the same for all families and sizes."""
    threshold = float(theory.associative_memory.retrieval_threshold(config.lam, "binary"))
    return np.linspace(0.35, 1.15, config.loads) * threshold


def counts(config: Config, size: int) -> np.ndarray:
    """Numbers of patterns, ``(L,)``."""
    return np.maximum(np.rint(np.exp(loads(config) * size)), config.cues + 1).astype(int)


def _retrieval(key: jax.Array, size: int, config: Config, bar: Any) -> Curves:
    """Retrieved fractions ``(families, L)``, and mean terms of the sums over the other patterns."""
    found = []
    for i, count in enumerate(counts(config, size)):
        lam = jnp.asarray(config.lam, jnp.float32)
        keys = jax.random.split(jax.random.fold_in(key, i), (len(FAMILIES), config.sets))
        rows = [
            _retrieve(k, lam, family, (int(count), size), config.cues)
            for family, k in enumerate(keys)
        ]
        found.append(np.asarray(rows, np.float64))  # (families, 2, sets)
        if bar is not None:
            bar(i + 1, config.loads)
    values = np.moveaxis(np.asarray(found), 0, 2)  # (families, 2, L, sets)
    mean, error = values.mean(-1), values.std(-1, ddof=1) / np.sqrt(config.sets)
    return {
        "retrieved": mean[:, 0], "retrieved_error": error[:, 0],
        "others": mean[:, 1], "others_error": error[:, 1],
    }  # fmt: skip


@partial(jax.jit, static_argnames=("shape", "cues"))
def _retrieve(
    keys: jax.Array, lam: jax.Array, family: int, shape: tuple[int, int], cues: int
) -> jax.Array:
    """For each set the retrieved fraction of the cues, and ``Z_{2..P} / (P - 1)`` of the first."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        xi = _patterns(key, family, shape)
        cue = xi[:cues]

        def body(state: tuple) -> tuple:
            y, _, step = state
            logits = lam * jnp.matmul(y, xi.T, precision="highest")
            new = jnp.matmul(jax.nn.softmax(logits), xi, precision="highest")
            return new, jnp.max(jnp.abs(new - y)), step + 1

        # further steps change nothing once the state stands still
        start = (cue, jnp.inf, 0)
        y, _, _ = jax.lax.while_loop(lambda s: (s[1] > 1e-5) & (s[2] < STEPS), body, start)
        lengths = jnp.linalg.norm(y, axis=-1) * jnp.linalg.norm(cue, axis=-1)
        overlap = jnp.sum(y * cue, axis=-1) / lengths
        field = lam * jnp.matmul(xi[1:], cue[0], precision="highest")
        return jnp.mean(overlap > OVERLAP, dtype=y.dtype), jnp.mean(jnp.exp(field))

    return jnp.stack(jax.lax.map(one, keys))


def _patterns(key: jax.Array, family: int | jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Patterns of the family of that number in `FAMILIES`."""
    xi = normal(key, shape, jnp.float32)
    lengths = jnp.linalg.norm(xi, axis=-1, keepdims=True) / np.float32(np.sqrt(shape[1]))
    return jax.lax.select_n(jnp.asarray(family), xi, xi / lengths, jnp.sign(xi))


def time_scales(config: Config) -> tuple[float, float]:
    """``(t_C, t_o)`` of the diffused patterns, in the limit of large dimension."""
    log_n = np.log(config.patterns)
    return (
        float(theory.collapse.gaussian_collapse_time(log_n, config.dim, 1.0)),
        float(theory.collapse.trap_onset_time(log_n / config.dim, 1.0)),
    )


def _diffusion(key: jax.Array, config: Config) -> Curves:
    """One set of Gaussian patterns: U-turns, weights, attraction of clean points, draws."""
    collapse, onset = time_scales(config)
    times = np.geomspace(0.4 * collapse, 1.8 * onset, config.times)
    key_points, key_turns, key_ddim, key_weight, key_draw = jax.random.split(key, 5)
    points = jax.random.normal(key_points, (config.patterns, config.dim), jnp.float64)
    model = diffjax.Diffusion(diffjax.point_cloud(points), diffjax.ornstein_uhlenbeck())
    gaps = nearest_distances(points, points, count=1, exclude_own=True).distances
    within = 0.1 * float(jnp.min(gaps))
    common = {"within": within, "trials": config.trials}
    exact = recovery.recovery(key_turns, model, points, times, method="exact", steps=4, **common)
    ddim = recovery.recovery(key_ddim, model, points, times, method="ddim", **common)
    weight = recovery.own_weight(key_weight, model, times, 4 * config.trials)
    ends = jax.lax.map(lambda t: attractors.iterate(model, points, t, STEPS), jnp.asarray(times))
    own = jax.lax.map(lambda t: _clean_weight(model, points, t), jnp.asarray(times))
    return {
        "times": times, "turns": exact.mean, "ddim": ddim.mean,
        "weight": weight.mean, "weight_error": weight.error, "clean": own,
        "stays": jnp.mean(_overlap(ends, points) > OVERLAP, axis=1),
        **_posterior_draws(key_draw, model, onset, config.draws),
    }  # fmt: skip


def _clean_weight(model: Any, points: jax.Array, t: jax.Array) -> jax.Array:
    """Posterior weight of the own pattern without noise in the cue, ``(n,)``."""
    return jnp.exp(jnp.diagonal(model.index_log_weights(model.process.scale(t) * points, t)))


def _overlap(y: jax.Array, points: jax.Array) -> jax.Array:
    lengths = jnp.linalg.norm(y, axis=-1) * jnp.linalg.norm(points, axis=-1)
    return jnp.sum(y * points, axis=-1) / lengths


def _posterior_draws(key: jax.Array, model: Any, onset: float, draws: int) -> Curves:
    """Means of posterior draws along a random direction, at states noisier than the onset."""
    key_index, key_noise, key_axis, key_draw = jax.random.split(key, 4)
    t = onset * jnp.linspace(1.0, 2.0, 40)
    shape = (len(t), model.dim)
    clean = model.data.sample(key_index, len(t))
    x = diffjax.processes.perturb(key_noise, model.process, clean, t)
    axis = jax.random.normal(key_axis, shape, x.dtype)
    axis /= jnp.linalg.norm(axis, axis=-1, keepdims=True)
    keys = jax.random.split(key_draw, draws)
    drawn = jax.lax.map(lambda key: model.sample_posterior(key, x, t), keys)
    return {
        "state_times": np.asarray(t), "states": np.asarray(x), "axes": np.asarray(axis),
        "score": np.asarray(model.score(x, t)), "points": np.asarray(model.data.points),
        "drawn": np.asarray(jnp.sum(drawn * axis, axis=-1).mean(0)),
    }  # fmt: skip


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Thresholds, capacities, steps of the memory, means and spreads that are known exactly."""
    memory = theory.associative_memory
    lam = np.geomspace(0.1, 8, 60)
    t, x, points = (measured[name] for name in ("state_times", "states", "points"))
    y, v = np.exp(t)[:, None] * x, np.expm1(2 * t)
    gradient = np.asarray(memory.distance_energy_gradient(y, points, 0.5 / v))
    along = points @ measured["axes"].T  # (n, S)
    logits = -np.sum((y[:, None] - points) ** 2, axis=-1).T / (2 * v)
    weights = np.exp(logits - logits.max(0))
    weights /= weights.sum(0)
    spread = np.sum(weights * along**2, 0) - np.sum(weights * along, 0) ** 2
    predicted = {
        "threshold": np.asarray(
            [float(memory.retrieval_threshold(config.lam, f)) for f in FAMILIES]
        ),
        "lam": lam, "score": -np.exp(t)[:, None] * gradient / (2 * v[:, None]),
        "step": np.sum((y - 0.5 * gradient) * measured["axes"], -1),
        "long_step": np.sum((y - gradient) * measured["axes"], -1),
        "step_error": np.sqrt(spread / config.draws),
    }  # fmt: skip
    for family in FAMILIES:
        predicted[f"attraction_{family}"] = np.asarray(memory.attraction_capacity(lam, family))
        predicted[f"collapse_{family}"] = np.asarray(memory.collapse_capacity(lam, family))
    return predicted


def sums_of_others(config: Config, measured: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """Normalised sums of signs from the threshold on: value, known error, share of the own term.

    ``E exp(lam xi_1 . xi) = cosh(lam)^N`` at every size, and the second moment is
    ``cosh(2 lam)^N``.
    """
    threshold = float(theory.associative_memory.retrieval_threshold(config.lam, "binary"))
    loud = loads(config) >= 0.999 * threshold  # many terms: nearly Gaussian sums
    rows = []
    for size in config.sizes:
        count = counts(config, size)[loud]
        mean = np.cosh(config.lam) ** size
        variance = ((np.cosh(2 * config.lam) ** size / mean**2) - 1) / (count - 1)
        value = measured[f"others_n{size}"][FAMILIES.index("binary")][loud] / mean
        own = np.exp(config.lam * size) / ((count - 1) * mean)
        rows.append((value, np.sqrt(variance / config.sets), own))
    return tuple(np.concatenate(column) for column in zip(*rows))


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Three exact overlays, each with the mistake that it excludes."""
    value, error, own = sums_of_others(config, measured)
    p, weight_error = measured["weight"], measured["weight_error"]
    n, trials = p.shape[1], config.trials
    spread = np.hypot(
        np.sqrt(np.sum(p * (1 - p), 1) / trials) / n, np.sqrt(np.sum(weight_error**2, 1)) / n
    )
    turns, ddim, exact = (measured[name].mean(1) for name in ("turns", "ddim", "weight"))
    step = measured["drawn"], predicted["step_error"]
    return [
        compare("sum over the other patterns, signs", value, error, np.ones_like(value)),
        compare("the pattern itself not excluded", value + own, error, np.ones_like(value),
                control=True),
        compare("posterior draws, half a gradient step", *step, predicted["step"]),
        compare("a whole gradient step (factor 2)", *step, predicted["long_step"], control=True),
        compare("exact U-turns, mean own weight", turns, spread, exact),
        compare("DDIM taken for exact U-turns", ddim, spread, exact, control=True),
        compare("load at half retrieval, 1/N -> 0", *extrapolated(config, measured),
                predicted["threshold"], exact=False),
    ]  # fmt: skip


def half_loads(config: Config, measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Loads at which half of the cues is retrieved, and errors, ``(families, sizes)``."""
    floor = 1 / (config.sets * config.cues)
    found = np.full((2, len(FAMILIES), len(config.sizes)), np.nan)
    for j, size in enumerate(config.sizes):
        alpha = np.log(counts(config, size)) / size
        for i in range(len(FAMILIES)):
            value, error = (measured[f"{k}_n{size}"][i] for k in ("retrieved", "retrieved_error"))
            found[:, i, j] = crossing(alpha, value, np.hypot(error, floor), 0.5)
    return found[0], found[1]


def extrapolated(config: Config, measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Straight lines through the half loads against 1/N, at 1/N = 0, ``(families,)``."""
    value, error = half_loads(config, measured)
    design = np.stack([np.ones(len(config.sizes)), 1 / np.asarray(config.sizes)], -1)
    rows = []
    for y, e in zip(value, error):
        used = np.isfinite(y) & (e > 0)
        if used.sum() < 2:
            rows.append((np.nan, np.nan))
            continue
        covariance = np.linalg.inv((design[used] / e[used, None] ** 2).T @ design[used])
        rows.append(
            ((covariance @ (design[used].T @ (y[used] / e[used] ** 2)))[0], covariance[0, 0] ** 0.5)
        )
    return tuple(np.asarray(rows).T)


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Thresholds beside half loads, times beside t_C and t_o, one sentence."""
    found = comparisons(config, measured, predicted)
    value, error = half_loads(config, measured)
    limit, limit_error = extrapolated(config, measured)
    collapse, onset = time_scales(config)
    summary: dict[str, Any] = {"t_C": collapse, "t_o": onset, "families": {}}
    rows = []
    for i, family in enumerate(FAMILIES):
        texts = [f"N = {n}: {number(a, e)}" for n, a, e in zip(config.sizes, value[i], error[i])]
        rows.append(
            (f"{family}, half retrieved at alpha", f"{', '.join(texts)}; 1/N -> 0: "
             f"{number(limit[i], limit_error[i])}; theory {predicted['threshold'][i]:.4f}")
        )  # fmt: skip
        summary["families"][family] = {
            "half_loads": value[i], "errors": error[i], "extrapolated": limit[i],
            "extrapolated_error": limit_error[i], "threshold": predicted["threshold"][i],
        }  # fmt: skip
    rounding = np.max(np.abs(measured["score"] - predicted["score"])) / np.max(
        np.abs(measured["score"])
    )
    times = measured["times"]
    crossings = {
        name: crossing(times, curve, np.full(len(times), 1e-3), 0.5)[0]
        for name, curve in (
            ("own weight", measured["weight"].mean(1)), ("DDIM", measured["ddim"].mean(1)),
            ("clean cue, own weight", measured["clean"].mean(1)),
            ("clean cue, retrieved", measured["stays"]),
        )
    }  # fmt: skip
    rows += [
        ("score against the energy's gradient", f"largest relative difference {rounding:.1e}"),
        *((f"{name}, 1/2 at t", number(t)) for name, t in crossings.items()),
        ("large dimension", f"t_C = {collapse:.4f}, t_o = {onset:.4f}"),
    ]
    summary |= {"relative_rounding": rounding, "half_times": crossings}
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, predicted, limit, limit_error, crossings),
        table=rows, summary=summary, curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(
            config, measured, predicted, loads(config), value, error, (collapse, onset)
        ),
    )  # fmt: skip


def _finding(
    config: Config, found: list[Comparison], predicted: dict[str, Any], limit: np.ndarray,
    error: np.ndarray, times: dict[str, float],
) -> str:  # fmt: skip
    i = FAMILIES.index("binary")
    return (
        f"Half of the stored signs is retrieved up to a load that drifts with the size, to "
        f"{number(limit[i], error[i])} by a straight line in 1/N (statistical error) beside the "
        f"limit {predicted['threshold'][i]:.4f} at lambda = {config.lam:g}; of {config.patterns} "
        f"Gaussian patterns in d = {config.dim}, noised and run back exactly, half return up to "
        f"t = {number(times['own weight'])}, as the mean own weight says (reduced chi-square "
        f"{found[4].chi_square:.2f} over {found[4].points} times), while without noise in the cue "
        f"that weight is one half at t = {number(times['clean cue, own weight'])}."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}
    names = ", ".join(FAMILIES)
    for size in config.sizes:
        alpha = np.log(counts(config, size)) / size
        for key, values, text in (
            ("alpha", alpha, "loads log P / N (L,)"),
            ("retrieved", measured[f"retrieved_n{size}"], f"retrieved fraction ({names}; L)"),
            ("error", measured[f"retrieved_error_n{size}"], "its standard error between sets"),
        ):
            curves[f"{key}_n{size}"], axes[f"{key}_n{size}"] = values, f"N = {size}: {text}"
    for key, values, text in (
        ("times", measured["times"], "OU times (T,)"),
        ("turns", measured["turns"].mean(1), "patterns that return exactly (T,)"),
        ("ddim", measured["ddim"].mean(1), "patterns that return by DDIM (T,)"),
        ("weight", measured["weight"].mean(1), "mean posterior weight of the own pattern (T,)"),
        ("clean", measured["clean"].mean(1), "mean own weight of a clean cue (T,)"),
        ("stays", measured["stays"], "clean patterns that are retrieved (T,)"),
        ("lam", predicted["lam"], "signal-to-noise ratios of the capacities (60,)"),
        *((f"{kind}_{f}", predicted[f"{kind}_{f}"], f"{kind} capacity of {f} patterns (60,)")
          for kind in ("attraction", "collapse") for f in FAMILIES),
    ):  # fmt: skip
        curves[key], axes[key] = np.asarray(values), text
    return curves, axes
