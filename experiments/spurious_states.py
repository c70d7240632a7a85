"""Patterns on a circle: energy wells, their merging, and what samples of a network are.

The noised patterns have an energy whose wells are the attractors of the exact score: two for two
patterns, fewer than patterns where neighbours have merged, a ring for a thousand. Its mean over
random patterns is known at every size, and so is the radius of the ring for many patterns. Samples
are then judged memorised, spurious (repeated, but no pattern) or generalised. Those of the exact
score must be memorised at every number of patterns, which controls the detection; those of a small
trained network need not be.

Source: Pham, Raya, Negri, Zaki, Ambrogioni, Krotov 2025 (2505.21777); Ambrogioni 2024 (2309.17290).
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
from diffjax.observables import attractors, memorisation
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.spurious_states_figure import draw
from experiments.style import number

KINDS = ("memorised", "spurious", "generalised")
REACH = 1.4  # half the side of a landscape
LONGEST, NOISE = 4.0, (0.25, 0.75)  # of the exact trajectories; levels at which they stop


@dataclass(frozen=True)
class Config:
    """Landscapes, attractors, and samples of the exact score and of networks."""

    noise: float = option(0.05, "variance v of the landscapes")
    landscapes: tuple[int, ...] = option(
        (2, 9, 1000), "numbers of patterns of the landscapes", nargs="+", type=int
    )
    grid: int = option(81, "states along a side of a landscape")
    few: tuple[int, ...] = option((9, 30), "patterns of the attractor counts", nargs="+", type=int)
    levels: int = option(16, "noise variances of the attractor counts")
    sets: int = option(60, "independent sets of patterns for means over sets")
    many: int = option(1000, "patterns of the ring")
    sizes: tuple[int, ...] = option(
        (2, 4, 8, 16, 32, 64, 128), "numbers of patterns, increasing", nargs="+", type=int
    )
    samples: int = option(200, "samples of each network")
    trajectories: int = option(2000, "exact trajectories at each size")
    quantile: float = option(0.1, "quantile of held-out distances that sets the thresholds")
    seeds: int = option(3, "networks at each size, trained side by side")
    width: int = option(128, "width of the MLP")
    depth: int = option(4, "layers of the MLP")
    steps: int = option(4000, "training steps; 0 trains no network")
    chain: int = option(200, "steps of the sampler")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "grid": 21, "levels": 5, "sets": 40, "sizes": (9, 30), "trajectories": 1500, "steps": 0,
        "many": 100, "few": (9,), "landscapes": (9,),
    },
    "quick": {"sizes": (2, 8, 32, 128), "width": 64, "depth": 3, "steps": 3000, "seeds": 2,
              "sets": 200},
    "paper": {"sizes": (2, 4, 8, 16, 32, 64, 128, 256, 512), "samples": 1000, "steps": 500_000,
              "chain": 1000, "trajectories": 20_000, "sets": 400},
}  # fmt: skip


def circle(angles: np.ndarray) -> np.ndarray:
    """Points of the unit circle, ``(..., 2)``."""
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def patterns(count: int) -> np.ndarray:
    """The first ``count`` random patterns of the published stream, nested."""
    return circle(np.random.RandomState(9).uniform(0, 2 * np.pi, count))


def diffusion(points: np.ndarray) -> diffjax.Diffusion:
    """Exact score of patterns, in the coordinates of the clean data."""
    return diffjax.Diffusion(diffjax.point_cloud(points), diffjax.variance_exploding())


def ou_time(v: Any) -> Any:
    """OU time at a noise variance."""
    return 0.5 * np.log1p(v)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Landscapes, attractor counts, means over sets, the ring, samples."""
    sizes = np.asarray(config.sizes)
    if len(sizes) < 2 or np.any(np.diff(sizes) <= 0):
        raise ValueError(f"sizes must be two or more that increase, got {config.sizes}")
    measured = session.part("landscapes", partial(_landscapes, config))
    measured |= session.part("counts", partial(_counts, config))
    key_sets, key_exact = jax.random.split(jax.random.key(config.seed))
    measured |= session.part("sets", partial(_sets, key_sets, config))
    measured |= session.part("exact", partial(_exact, key_exact, config))
    if config.steps:
        from experiments.spurious_networks import at_size  # flax is an optional extra

        rows = []
        for n in config.sizes:
            bar = session.progress(f"n = {n}, {config.seeds} networks")
            part = partial(at_size, config, patterns(n), thresholds(config), bar)
            rows.append(session.part(f"n{n}", part))
        measured |= {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return measured


def levels(config: Config) -> np.ndarray:
    """Noise variances of the attractor counts and of the ring, ``(L,)``."""
    return np.geomspace(1e-3, 0.6, config.levels)


def held_out(config: Config, count: int) -> np.ndarray:
    """Points of the circle that no network and no threshold's training set holds."""
    angles = np.random.default_rng(config.seed + 1).uniform(0, 2 * np.pi, count)
    return circle(angles)


def thresholds(config: Config) -> memorisation.Thresholds:
    """Calibrated on held-out points at the largest size."""
    fresh = held_out(config, max(2000, config.samples))
    largest = patterns(config.sizes[-1])
    return memorisation.calibrate(fresh, largest, size=config.samples, quantile=config.quantile)


def _landscapes(config: Config) -> Curves:
    """Energies on a grid ``(k, G, G)``, above their minima; attractors of few patterns."""
    side = np.linspace(-REACH, REACH, config.grid)
    states = np.stack(np.meshgrid(side, side), axis=-1)
    t, found = ou_time(config.noise), {}
    fields = []
    for count in config.landscapes:
        model = diffusion(patterns(count))
        field = np.asarray(attractors.energy(model, states.reshape(-1, 2), t))
        fields.append(field.reshape(config.grid, config.grid) - field.min())
        if count < 100:
            kept = attractors.distinct(attractors.attractors(model, t))
            found[f"wells_{count}"] = np.asarray(kept.points)
    return {"side": side, "landscapes": np.stack(fields), **found}


def _counts(config: Config) -> Curves:
    """Stable attractors ``(few, L)`` and their largest distance to a pattern."""
    counts, distances = [], []
    for count in config.few:
        model = diffusion(patterns(count))
        kept = [attractors.distinct(attractors.attractors(model, ou_time(v)))
                for v in levels(config)]  # fmt: skip
        counts.append([len(k.points) for k in kept])
        distances.append([float(k.distance.max()) for k in kept])
    return {"counts": np.asarray(counts), "distances": np.asarray(distances)}


def _sets(key: jax.Array, config: Config) -> Curves:
    """Over independent sets: mean weights ``exp(-E/2v)/K`` at some radii, and radii of the ring."""
    key_weight, key_ring, key_radius = jax.random.split(key, 3)
    v = jnp.asarray(levels(config)[levels(config) > 0.02])
    radii = jax.random.uniform(key_radius, v.shape, v.dtype, 0.0, 1.3)
    few = config.few[0]
    weights = _mean_weights(jax.random.split(key_weight, len(v)), v, radii, few, config.sets)
    ring = _ring(jax.random.split(key_ring, 8), v, config.many)
    return {
        "ring_noise": v, "radii": radii, "weights": weights, "ring": jnp.mean(ring, axis=0),
        "ring_error": jnp.std(ring, axis=0, ddof=1) / np.sqrt(len(ring)),
    }  # fmt: skip


def _cloud(key: jax.Array, count: int) -> jax.Array:
    angles = jax.random.uniform(key, (count,), jnp.float64, 0, 2 * np.pi)
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)], axis=-1)


@partial(jax.jit, static_argnames=("count", "sets"))
def _mean_weights(
    keys: jax.Array, v: jax.Array, radii: jax.Array, count: int, sets: int
) -> jax.Array:
    """Mean over fresh sets of ``exp(-E/2v)/K``, by the log density of the library, ``(L,)``."""

    def at(step: tuple[jax.Array, ...]) -> jax.Array:
        key, v, radius = step

        def one(key: jax.Array) -> jax.Array:
            data = diffjax.point_cloud(_cloud(key, count))
            y = jnp.stack([radius, jnp.zeros_like(radius)])
            model = diffjax.Diffusion(data, diffjax.variance_exploding())
            energy = attractors.energy(model, y, 0.5 * jnp.log1p(v))
            return jnp.exp(-energy / (2 * v)) / count

        return jnp.mean(jax.lax.map(one, jax.random.split(key, sets)))

    return jax.lax.map(at, (keys, v, radii))


@partial(jax.jit, static_argnames="count")
def _ring(keys: jax.Array, v: jax.Array, count: int) -> jax.Array:
    """Mean radius that 24 starts reach in 400 updates, ``(sets, L)``."""
    angle = jnp.linspace(0, 2 * np.pi, 24, endpoint=False, dtype=v.dtype)
    starts = 0.7 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def one(key: jax.Array) -> jax.Array:
        model = diffjax.Diffusion(
            diffjax.point_cloud(_cloud(key, count)), diffjax.variance_exploding()
        )

        def at(v: jax.Array) -> jax.Array:
            y = attractors.iterate(model, starts, 0.5 * jnp.log1p(v), 400)
            return jnp.mean(jnp.linalg.norm(y, axis=-1))

        return jax.lax.map(at, v)

    return jax.lax.map(one, keys)


def stop_noise(config: Config) -> np.ndarray:
    """Variances at which the exact trajectories stop, one for every size."""
    level = np.linspace(*NOISE, len(config.sizes))
    return thresholds(config).memorised_below ** 2 / (-2 * np.log1p(-level))


def _exact(key: jax.Array, config: Config) -> Curves:
    """Fractions of samples of the exact score: stopped early, and run to the end."""
    limits, rows = thresholds(config), []
    early = stop_noise(config)
    late = limits.memorised_below**2 / 20
    for i, (n, v) in enumerate(zip(config.sizes, early)):
        points = patterns(n)
        model, found = diffusion(points), []
        for j, end in enumerate((v, late)):
            key_own, key_start, key_path = jax.random.split(jax.random.fold_in(key, 2 * i + j), 3)
            times = np.asarray([LONGEST, 1.0, 0.1, ou_time(end)])
            own = jax.random.randint(key_own, (config.trajectories,), 0, n)
            start = diffjax.processes.perturb(key_start, model.process, points[own], times[0])
            x, _ = diffjax.backward(
                key_path, model, start, times, method="exact", span_reduction=False
            )
            near = memorisation.nearest_distances(x, points, count=1).distances[:, 0]
            found.append(float(np.mean(near <= limits.memorised_below)))
        rows.append(found)
    null = memorisation.null_curve(
        held_out(config, 2000), patterns(config.sizes[-1]), np.asarray(config.sizes),
        limits.memorised_below,
    )  # fmt: skip
    stopped, memorised = np.asarray(rows).T
    return {
        "stopped": stopped, "memorised_exact": memorised, "null": null.mean,
        "null_error": null.error,
    }  # fmt: skip


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Means over sets and their spreads, radii, memorised fractions of stopped trajectories."""
    memory = theory.associative_memory
    v, radii = measured["ring_noise"], measured["radii"]
    B = 1 / (2 * v)

    def weight(B: np.ndarray) -> np.ndarray:
        return np.exp(-B * np.asarray(memory.circle_energy(radii, B)))

    mean = weight(B)
    spread = np.sqrt((weight(2 * B) - mean**2) / (config.few[0] * config.sets))
    fine = np.geomspace(v[0], 0.7, 200)
    ring = np.asarray(memory.circle_radius(np.concatenate([B, 1 / (2 * fine)])))
    rng, limits = np.random.default_rng(config.seed + 2), thresholds(config)
    stopped = {}
    for name, factor in (("stopped", 1), ("twice", 2)):
        stopped[name] = np.asarray([
            _within(rng, patterns(n), factor * noise, limits.memorised_below)
            for n, noise in zip(config.sizes, stop_noise(config))
        ])  # fmt: skip
    return {
        "weight": mean, "weight_error": spread, "weight_wrong": weight(2 * B),
        "ring": ring[: len(v)], "fine": fine, "ring_fine": ring[len(v) :], **stopped,
    }  # fmt: skip


def _within(rng: Any, points: np.ndarray, noise: float, below: float) -> float:
    """Chance that a pattern with noise lies within ``below`` of some pattern, by many draws."""
    index = rng.integers(0, len(points), 100_000)
    x = points[index] + np.sqrt(noise) * rng.normal(size=(len(index), 2))
    near = np.zeros(len(index), bool)
    for point in points:  # a few hundred
        near |= ((x - point) ** 2).sum(-1) <= below**2
    return float(near.mean())


def fractions(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Means over networks and errors, ``(sizes, 3)``: between seeds, or binomial if larger."""
    labels = measured["labels"]  # (sizes, seeds, M)
    found = np.stack([(labels == kind).mean(-1) for kind in range(3)], -1)
    mean, seeds = found.mean(1), found.shape[1]
    binomial = np.sqrt(mean * (1 - mean) / (seeds * labels.shape[-1]))
    return mean, np.maximum(found.std(1, ddof=1) / np.sqrt(seeds), binomial)


def spurious_distance(measured: dict[str, Any]) -> np.ndarray:
    """Median distance of spurious samples to the nearest pattern, ``(sizes,)``; NaN without any.

    Far below the gaps between patterns these are blurred copies, not states of their own.
    """
    found = []
    for labels, distance in zip(measured["labels"], measured["train_distance"]):
        far = distance[labels == memorisation.SPURIOUS]
        found.append(np.median(far) if far.size else np.nan)
    return np.asarray(found)


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Two exact overlays with their controls; the ring and the networks are reported."""
    weight = measured["weights"] / predicted["weight"]
    error, one = predicted["weight_error"] / predicted["weight"], np.ones_like(weight)
    p = predicted["stopped"]
    spread = np.sqrt(p * (1 - p) * (1 / config.trajectories + 1e-5))
    found = [
        compare("mean weight over random circles", weight, error, one),
        compare("mean weight, B = 1/v", weight, error,
                predicted["weight_wrong"] / predicted["weight"], control=True),
        compare("memorised, stopped exact trajectories", measured["stopped"], spread, p),
        compare("memorised, twice the noise", measured["stopped"], spread, predicted["twice"],
                control=True),
        compare(f"radius of the ring, {config.many} patterns", measured["ring"],
                measured["ring_error"], predicted["ring"], exact=False),
    ]  # fmt: skip
    if config.steps:
        mean, between = fractions(measured)
        found.append(
            compare("memorised by networks, null curve", mean[:, 0],
                    np.hypot(between[:, 0], measured["null_error"]), measured["null"],
                    exact=False, floor=1 / config.samples)
        )  # fmt: skip
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Wells against noise, fractions against the number of patterns, one sentence."""
    found, limits = comparisons(config, measured, predicted), thresholds(config)
    rows = [
        (f"K = {k}, wells at v = {v:.3g}", f"{c} stable, at most {d:.4f} from a pattern")
        for k, counts, far in zip(config.few, measured["counts"], measured["distances"])
        for v, c, d in list(zip(levels(config), counts, far))[:: max(1, config.levels // 4)]
    ]
    rows.append(("thresholds", f"delta_m = {limits.memorised_below:.3g}, "
                 f"delta_s = {limits.spurious_below:.3g}"))  # fmt: skip
    for i, n in enumerate(config.sizes):
        text = (
            f"exact score memorised {measured['memorised_exact'][i]:.4f}, null "
            f"{number(measured['null'][i], measured['null_error'][i])}"
        )
        if config.steps:
            mean, error = fractions(measured)
            values = (f"{k} {number(mean[i, j], error[i, j])}" for j, k in enumerate(KINDS))
            text += (
                f"; networks {', '.join(values)}; by gap ratio {measured['copies'][i].mean():.3f}; "
                f"spurious ones at {number(spurious_distance(measured)[i])} from a pattern (median)"
            )
        rows.append((f"n = {n}", text))
    summary: dict[str, Any] = {
        "noise": levels(config), "counts": measured["counts"], "thresholds": limits._asdict(),
        "sizes": config.sizes, "null": measured["null"],
        "memorised_by_exact_score": measured["memorised_exact"],
    }  # fmt: skip
    if config.steps:
        mean, error = fractions(measured)
        summary |= {k: {"mean": mean[:, j], "error": error[:, j]} for j, k in enumerate(KINDS)}
        summary["memorised_by_gap_ratio"] = measured["copies"].mean(1)
        summary["median_distance_of_spurious"] = spurious_distance(measured)
        summary["memorised_swept"] = {
            f"{f:g}": np.mean(measured["train_distance"] <= f * limits.memorised_below, (1, 2))
            for f in (0.5, 1, 2)
        }
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, measured, found), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted, levels(config),
                            fractions(measured) if config.steps else None),
    )  # fmt: skip


def _finding(config: Config, measured: dict[str, Any], found: list[Comparison]) -> str:
    counts, v = measured["counts"][0], levels(config)
    text = (
        f"Of {config.few[0]} random patterns on a circle the exact score keeps {counts[0]} wells "
        f"at v = {v[0]:.3g} and {counts[-1]} at v = {v[-1]:.2g}; many patterns leave a ring whose "
        f"radius differs from I1/I0 by at most {found[4].discrepancy:.2g}; run to the end, "
        f"{100 * measured['memorised_exact'].min():.1f}% of its samples or more are patterns at "
        f"every size"
    )
    if not config.steps:
        return text + "."
    mean, error = fractions(measured)
    ends = [f"{number(100 * mean[i, 0], 100 * error[i, 0])}%" for i in (0, -1)]
    best = int(np.argmax(mean[:, 1]))
    return (
        f"{text}, those of networks {ends[0]} at n = {config.sizes[0]} and {ends[1]} at "
        f"n = {config.sizes[-1]}; most repeated samples beyond the threshold, "
        f"{number(100 * mean[best, 1], 100 * error[best, 1])}%, are at n = {config.sizes[best]}, "
        f"at a median distance of {number(spurious_distance(measured)[best])} from a pattern."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    texts = {
        "side": "coordinates of a landscape (G,)",
        "landscapes": "energy above its minimum for each number of patterns (k, G, G)",
        "counts": "stable attractors by number of patterns and noise (few, L)",
        "distances": "largest distance of an attractor to a pattern (few, L)",
        "ring_noise": "noise variances of the ring (R,)",
        "ring": "radius of the ring (R,)",
        "ring_error": "its standard error between sets of patterns",
        "stopped": "memorised fraction of stopped exact trajectories (sizes,)",
        "memorised_exact": "memorised fraction of exact trajectories run to the end (sizes,)",
        "null": "memorised fraction of held-out points (sizes,)",
        "null_error": "its standard error",
    }
    curves: Curves = {name: np.asarray(measured[name]) for name in texts}
    axes = dict(texts)
    curves["noise"], axes["noise"] = levels(config), "noise variances of the counts (L,)"
    curves["fine"], axes["fine"] = predicted["fine"], "noise variances of the theory of the ring"
    curves["ring_fine"], axes["ring_fine"] = predicted["ring_fine"], "radius of the ring, theory"
    if config.steps:
        mean, error = fractions(measured)
        for j, kind in enumerate(KINDS):
            curves[kind], axes[kind] = mean[:, j], f"{kind} fraction of network samples (sizes,)"
            curves[f"{kind}_error"], axes[f"{kind}_error"] = error[:, j], "its standard error"
    return curves, axes
