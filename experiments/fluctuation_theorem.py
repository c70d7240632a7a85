"""Fluctuation theorems along forward and generative paths, exact and at finite steps.

Two Gaussians in d dimensions at temperature 1. Forward paths with exact steps have
<exp(-S)> = 1 for the total entropy production S of their end points, and with Euler steps the value
of a closed form. The detailed theorem relates them to the same process from the noised law,
<exp(-k S)> = <exp(-(1 - k) S')>', so that P(S) = exp(S) P'(-S): both are measured, the latter as
histograms. Generative Euler paths have three functionals: (a) with the heat at the midpoint, whose
average is 1 + O(dt) by the transfer operator; (b) against the reversed kernels and (c) against the
noising chain, with averages of exactly 1 at any step.

Averages of exponentials test the bookkeeping and not the score: they are one for every drift. The
controls therefore simulate something else than the formula holds: a forward drift or a score that
is 5% too large, a start in pure noise. Their power is known beforehand from the transfer operator.
In one dimension a wrong score moves (b) by 1% and (c) by O(dt) only; (c) sees it in 64 dimensions.
A score that is wrong in both leaves the averages at one and moves the mean of (c), which consists
of the squared error of the score and of a part of O(dt) that also depends on the score: at dt = 0.1
a score that is 5% too large can lower it, so that it must be compared with its own known value.

Forward, at dt = 0.1, a drift that is 5% too large makes up for the step, whose stationary variance
is 1/(1 - dt/2): the average is close to one, and only the closed form tells it from Euler steps.

Coordinates are independent, so that theory in d dimensions is a product (a sum, for means) of
one-dimensional values.

Source: Yu, Huang 2025 (2405.11932); Murashita, Funo, Ueda 2014 (1401.4494).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import diffjax
from diffjax.diffusion import score_at, score_model
from diffjax.noise import normal
from diffjax.observables import thermodynamics
from diffjax.observables.estimates import Moments, merge_moments, moments
from experiments.command_line import option
from experiments.fluctuation_theorem_theory import KS, STARTS, comparisons, predict
from experiments.session import Curves, Report, Session
from experiments.style import number

FIELDS = ("midpoint", "kernel", "noising")
BINS = 24
RARE = (1.0, 0.1, 1.0)  # mean, variance, t_f of a start without a finite variance
RARE_SETS = (200, 10_000)  # sets of so many paths

__all__ = ["PRESETS", "Config", "predict", "report", "simulate"]


@dataclass(frozen=True)
class Config:
    """Laws of the data, times, and sizes of the simulation."""

    dims: tuple[int, ...] = option((1, 64), "dimensions", nargs="+", type=int)
    mean: float = option(1.0, "distance of a centre from the origin, at least 1")
    variances: tuple[float, ...] = option(
        (1.0, 0.8), "variance of each Gaussian, one for every dimension", nargs="+", type=float
    )
    times: tuple[float, ...] = option(
        (0.2, 0.5, 1.0), "OU times of the end of a path, multiples of dt, at most 1", nargs="+",
        type=float,
    )  # fmt: skip
    detailed_time: float = option(0.5, "OU time of the detailed theorem, one of times")
    dt: float = option(0.1, "Euler step")
    excess: float = option(0.05, "relative error of the drift and of the score in the controls")
    paths: int = option(2**20, "paths of every average, in batches")
    batch: int = option(2**15, "paths at once")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"times": (0.2, 0.5), "paths": 2**15},
    "quick": {},
    "paper": {"times": (0.1, 0.2, 0.3, 0.5, 0.7, 1.0), "paths": 2**24},
}  # fmt: skip


def checked(config: Config) -> None:
    """Refuse times off the grid of steps, and laws without power."""
    steps = np.asarray(config.times) / config.dt
    if np.any(np.abs(steps - np.round(steps)) > 1e-6) or max(config.times) > 1:
        raise ValueError(f"times must be multiples of dt = {config.dt:g} up to 1: {config.times}")
    if config.detailed_time not in config.times:
        raise ValueError(f"detailed_time is {config.detailed_time:g}, not one of {config.times}")
    if len(config.variances) != len(config.dims):
        raise ValueError(f"{len(config.variances)} variances for {len(config.dims)} dims")
    if config.paths % config.batch or config.batch < 100 * len(KS):
        raise ValueError(f"paths is {config.paths}, expected a multiple of batch {config.batch}")


def model_of(dim: int, mean: float, variance: float, dtype: str) -> diffjax.Diffusion:
    """Two balanced Gaussians with centres along all axes."""
    centre = np.full(dim, mean / np.sqrt(dim), dtype)
    data = diffjax.gaussian_mixture(
        [0.5, 0.5], np.stack([centre, -centre]), np.asarray(variance, dtype)
    )
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())


def scaled(factor: jax.Array, model: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    """The score with a relative error."""
    return factor.astype(x.dtype) * score_at(model, x, t)


def with_factor(model: Any, factor: float) -> Any:
    """A score model; one program for all factors."""
    return score_model(Partial(scaled, jnp.asarray(factor), model), model.process)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Forward, reversed and generative paths of every dimension, and rare events."""
    checked(config)
    measured: dict[str, Any] = {}
    plans: dict[str, Callable] = {
        "forward": _forward, "detailed": _detailed, "generative": _generative
    }  # fmt: skip
    for i, (dim, variance) in enumerate(zip(config.dims, config.variances)):
        model = model_of(dim, config.mean, variance, config.dtype)
        for j, (name, work) in enumerate(plans.items()):
            key = jax.random.fold_in(jax.random.key(config.seed), 10 * i + j)
            label = f"{name}-d{dim}"
            found = session.part(label, partial(work, key, model, config, session.progress(label)))
            measured |= {f"{name}_d{dim}_{k}": v for k, v in found.items()}
    key = jax.random.fold_in(jax.random.key(config.seed), 999)
    return measured | session.part("rare", lambda: _rare(key, config))


def _batches(key: jax.Array, config: Config, work: Callable, progress: Any = None) -> Any:
    """``work(key)`` of every batch, stacked; nothing else is kept."""
    found, count = [], config.paths // config.batch
    for i in range(count):
        found.append(jax.tree.map(np.asarray, work(jax.random.fold_in(key, i))))
        if progress is not None:
            progress(i + 1, count)
    return jax.tree.map(lambda *leaves: np.stack(leaves), *found)


@jax.jit
def _weights(production: jax.Array) -> Moments:
    """Moments of ``exp(-production)``."""
    return moments(jnp.exp(-production.astype(float)))


@jax.jit
def _values(production: jax.Array) -> Moments:
    return moments(production.astype(float))


def _summary(parts: Moments) -> np.ndarray:
    """Mean, standard error, effective number of samples; leading axis of ``parts``: batches."""
    mean, error = merge_moments(Moments(*(jnp.asarray(p) for p in parts)))
    count = np.sum(np.asarray(parts.number), axis=0)
    spread = np.asarray(error) ** 2 * (count - 1)
    return np.stack([mean, error, count * mean**2 / (mean**2 + spread)])


_noise = jax.jit(normal, static_argnums=(1, 2))


@partial(jax.jit, static_argnames="steps")
def _euler_end(
    key: jax.Array, x: jax.Array, rate: jax.Array, dt: jax.Array, steps: int
) -> jax.Array:
    """End of forward Euler steps of ``dx = -rate x dt + sqrt 2 dB``."""

    def step(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
        noise = normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        left = (1 - rate * dt).astype(x.dtype)
        return left * x + jnp.sqrt(2 * dt).astype(x.dtype) * noise, None

    return jax.lax.scan(step, x, jnp.arange(steps))[0]


def _forward(key: jax.Array, model: Any, config: Config, progress: Any) -> Curves:
    """``(times, 3, 3)``: exact steps, Euler steps, Euler steps of another drift; see `_summary`."""
    rows = []
    for i, t in enumerate(config.times):

        def work(key: jax.Array, t: float = t) -> list[Moments]:
            key_exact, key = jax.random.split(key)
            exact = thermodynamics.forward_entropy_production(key_exact, model, t, config.batch)
            if not exact.finite_variance:
                raise ValueError(
                    f"exp(-production) has no finite variance at t = {t:g}; take wider Gaussians"
                )
            found = [_weights(exact.total)]
            for rate in (1.0, 1 + config.excess):
                key_start, key_end, key = jax.random.split(key, 3)
                x = model.sample(key_start, 0.0, config.batch)
                steps = round(t / config.dt)
                end = _euler_end(key_end, x, jnp.asarray(rate), jnp.asarray(config.dt), steps)
                total = thermodynamics.end_point_production(model, x, end, 0.0, t)
                found.append(_weights(total))
            return found

        found = _batches(jax.random.fold_in(key, i), config, work)
        rows.append(np.stack([_summary(part) for part in found]))
        if progress is not None:
            progress(i + 1, len(config.times))
    return {"averages": np.stack(rows)}


def _reversed(key: jax.Array, model: Any, t: float, n: int) -> jax.Array:
    """Production of the same process from the noised law: minus that of the exchanged ends."""
    key_start, key_end = jax.random.split(key)
    x = model.sample(key_start, t, n)
    end, _ = diffjax.forward(key_end, model.process, x, [0.0, t])
    return -thermodynamics.end_point_production(model, end, x, 0.0, t)


def _detailed(key: jax.Array, model: Any, config: Config, progress: Any) -> Curves:
    """Generating functions on independent shares of the paths, and histograms of all of them."""
    t, n = config.detailed_time, config.batch
    key_pilot, key = jax.random.split(key)
    pilot = thermodynamics.forward_entropy_production(key_pilot, model, t, n).total
    low, high = np.quantile(np.asarray(pilot, float), [0.0005, 0.9995])
    edges = np.linspace(low, high, BINS + 1)
    inner = jnp.asarray(edges[1:-1])  # the outer bins reach to infinity

    def work(key: jax.Array) -> Any:
        one, two = jax.random.split(key)
        ahead = thermodynamics.forward_entropy_production(one, model, t, n).total
        back = _reversed(two, model, t, n)
        return _shares(ahead, back, inner)

    found = _batches(key, config, work, progress)
    ahead, back = (_summary(part) for part in found[:2])
    counts, reversed_counts, weighted, squared = (part.sum(axis=0) for part in found[2:])
    return {
        "forward": ahead, "reversed": back, "edges": edges, "counts": counts,
        "reversed_counts": reversed_counts, "weighted": weighted, "squared": squared,
    }  # fmt: skip


@jax.jit
def _shares(ahead: jax.Array, back: jax.Array, inner: jax.Array) -> Any:
    """Moments for every k on its share of the paths, counts, and weighted counts."""
    k = jnp.asarray(KS)[:, None]
    used = ahead.size // len(KS) * len(KS)
    one, two = (v.astype(float)[:used].reshape(len(KS), -1) for v in (ahead, back))
    first = jax.vmap(moments)(jnp.exp(-k * one))
    second = jax.vmap(moments)(jnp.exp(-(1 - k) * two))
    weight = jnp.exp(-back.astype(float))
    bins = [jnp.searchsorted(inner, value) for value in (ahead, -back)]

    def count(index: jax.Array, weights: Any = 1.0) -> jax.Array:
        return jnp.zeros(inner.size + 1).at[index].add(weights)

    return (
        first, second, count(bins[0]), count(bins[1]), count(bins[1], weight),
        count(bins[1], weight**2),
    )  # fmt: skip


def _generative(key: jax.Array, model: Any, config: Config, progress: Any) -> Curves:
    """``averages (times, 3, 3)`` of (a, b, c), the same of three controls, and means of (c)."""
    right, wrong = with_factor(model, 1.0), with_factor(model, 1 + config.excess)
    last = len(config.times) - 1
    # drift of the formula, simulated drift, start in pure noise
    plans = [(right, right, False, i) for i in range(last + 1)]
    plans += [(right, right, True, last), (right, wrong, False, last), (wrong, wrong, False, last)]
    averages, means = [], []
    for i, (drift, simulated, noise, at) in enumerate(plans):
        t = config.times[at]
        grid = np.linspace(t, 0, round(t / config.dt) + 1)

        def work(key: jax.Array, drift=drift, simulated=simulated, noise=noise, grid=grid) -> Any:
            key_start, key = jax.random.split(key)
            start = _noise(key_start, (config.batch, model.dim), config.dtype) if noise else None
            found = thermodynamics.path_entropy_production(
                key, model, grid, config.batch, drift=drift, simulated=simulated, start=start
            )
            weights = [_weights(v) for v in found]
            return weights, _values(found.noising)

        weights, values = _batches(jax.random.fold_in(key, i), config, work)
        averages.append(np.stack([_summary(part) for part in weights]))
        means.append(_summary(values)[:2])
        if progress is not None:
            progress(i + 1, len(plans))
    count = last + 1
    return {
        "averages": np.stack(averages[:count]), "controls": np.stack(averages[count:]),
        "noising": np.stack(means),
    }  # fmt: skip


def _rare(key: jax.Array, config: Config) -> Curves:
    """Averages of sets of paths from a narrow start, whose variance is infinite and flagged."""
    mean, variance, t = RARE
    model, (sets, size) = model_of(1, mean, variance, config.dtype), RARE_SETS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what is asked for here
        found = thermodynamics.forward_entropy_production(key, model, t, sets * size)
    if found.finite_variance is not False:
        raise FloatingPointError("an infinite variance was not recognised")
    weights = jnp.exp(-found.total.astype(float)).reshape(sets, size)
    effective = jnp.sum(weights, axis=1) ** 2 / jnp.sum(weights**2, axis=1)
    return {
        "rare_means": np.asarray(jnp.mean(weights, axis=1)),
        "rare_effective_share": np.asarray(effective) / size,
    }


def interval(value: float, error: float) -> list[float]:
    """The central 95% interval."""
    return [value - 1.96 * error, value + 1.96 * error]


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Averages with intervals and effective sizes, controls with their power, one sentence."""
    from experiments.fluctuation_theorem_figure import draw

    found = comparisons(config, measured, predicted)
    rows, summary = _rows(config, measured, predicted)
    means, share = measured["rare_means"], measured["rare_effective_share"]
    low, middle, high = np.quantile(means, [0.05, 0.5, 0.95])
    rows.append(
        ("infinite variance (sigma^2 = .1), sets of 1e4 paths",
         f"5-50-95% of their averages {low:.3f}, {middle:.3f}, {high:.3f}; "
         f"effective share {np.median(share):.2g}")
    )  # fmt: skip
    summary["infinite_variance"] = {"mean, variance, t": RARE, "5-50-95%": [low, middle, high],
                                    "effective_share": float(np.median(share))}  # fmt: skip
    axes = {
        "times": "OU times of the end of a path (T,)",
        "k": "exponents of the detailed theorem (K,)",
    }
    curves: Curves = {"times": np.asarray(config.times), "k": KS}
    kinds = {
        "forward_d{}_averages": "mean, error, effective paths of exp(-S): exact, Euler, wrong "
        "drift (T, 3, 3)",
        "generative_d{}_averages": "the same of (a), (b), (c) (T, 3, 3)",
        "generative_d{}_controls": "the same of the controls in summary.json (3, 3, 3)",
        "detailed_d{}_forward": "mean, error, effective paths of exp(-k S), forward (3, K)",
        "detailed_d{}_reversed": "the same of exp(-(1 - k) S'), reversed (3, K)",
        "detailed_d{}_edges": "edges of the bins of S in nats, the outer ones reach to infinity",
        "detailed_d{}_counts": "forward paths in each bin of S",
        "detailed_d{}_reversed_counts": "reversed paths in each bin of -S'",
    }
    for dim in config.dims:
        for name, text in kinds.items():
            curves[name.format(dim)] = measured[name.format(dim)]
            axes[name.format(dim)] = text
    return Report(
        finding=_finding(config, measured, predicted), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _rows(config: Config, measured: Any, predicted: Any) -> tuple[list, dict[str, Any]]:
    rows: list[tuple[str, str]] = []
    summary: dict[str, Any] = {"paths": config.paths}

    def entry(label: str, cell: np.ndarray, theory: float) -> None:
        value, error, effective = (float(v) for v in cell)
        summary[label] = {
            "value": value, "error": error, "interval_95": interval(value, error),
            "effective_paths": effective, "theory": float(theory),
        }  # fmt: skip
        text = f"{number(value, error)}, theory {theory:.5f}; {effective:.3g} effective paths"
        rows.append((label, text))

    for dim in config.dims:
        ahead, generated = measured[f"forward_d{dim}_averages"], predicted[f"generative_d{dim}"]
        for i, t in enumerate(config.times):
            euler = predicted[f"euler_d{dim}"][i]
            entry(f"d = {dim}, t = {t:g}: forward, exact steps", ahead[i, 0], 1.0)
            entry(f"d = {dim}, t = {t:g}: forward, Euler", ahead[i, 1], euler)
            for j, field in enumerate(FIELDS):
                cell = measured[f"generative_d{dim}_averages"][i, j]
                entry(f"d = {dim}, t = {t:g}: generative, {field}", cell, generated[i, j])
        for i, name in enumerate(STARTS):
            for j, field in enumerate(FIELDS[1:], 1):
                cell = measured[f"generative_d{dim}_controls"][i, j]
                theory = predicted[f"controls_d{dim}"][i, j]
                label = f"d = {dim}, control: {name}, {field}"
                entry(label, cell, theory)
                power = (theory - 1) / cell[1]
                summary[label]["expected_distance_from_one"] = float(power)
                rows[-1] = (label, f"{rows[-1][1]} ({power:+.1f} s.e. from 1 expected)")
    return rows, summary


def _finding(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> str:
    dim = config.dims[-1]
    a, b, c = measured[f"generative_d{dim}_averages"][-1]
    one = measured[f"forward_d{dim}_averages"][-1, 0]
    control = measured[f"generative_d{dim}_controls"]
    base = measured[f"generative_d{dim}_noising"]
    return (
        f"Over {config.paths:,} paths in d = {dim} to t = {config.times[-1]:g}, exp(-S) averages "
        f"to {number(*one[:2])} forward, and with Euler steps of {config.dt:g} of the generative "
        f"process to {number(*b[:2])} and {number(*c[:2])} against reversed kernels and the "
        f"noising chain, where the midpoint rule gives {number(*a[:2])} "
        f"({predicted[f'generative_d{dim}'][-1, 0]:.4f} by the transfer operator); a start in pure "
        f"noise gives {number(*control[0, 1, :2])}, and a score that is "
        f"{100 * config.excess:g}% too large leaves {number(*control[2, 2, :2])} but moves the "
        f"mean against the noising chain from {number(*base[len(config.times) - 1])} to "
        f"{number(*base[-1])} nats."
    )
