"""Smoothing of the empirical score that prevents collapse at the least loss of likelihood.

The empirical score of n points collapses onto them. Blurred by a Gaussian kernel it does not, at
the price of a density that is too wide. Three regularisers are compared on N(0, I_d) data: none,
the best constant kernel variance, and a variance that depends on the noise level, found by Adam
through the likelihood bound of the whole chain on held-out points. Each is judged on fresh points
(divergence of the data from the chain) and by the copies among the samples of its backward chain.
For a constant variance the bound is an equality and the divergence has an exact theory at every
d and n, with which the measured values are compared.

Source: Biroli, Mezard 2024 (2408.05807), kernels; the level-dependent smoothing is an open question
of Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffjax
from diffjax import Diffusion, schedules
from diffjax.data.smoothed import smoothed, smoothed_by_level
from diffjax.observables.likelihood import point_losses
from diffjax.observables.memorisation import gap_ratio
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, GREEN, ORANGE, RED, line, number, points
from theory import kernel_density

T_MIN, T_MAX = 1e-3, 4.0  # ends of the chain in OU time
METHODS = ("none", "constant", "by level", "truth")


@dataclass(frozen=True)
class Config:
    """Size of the data, kernels, and effort of the optimisation."""

    dim: int = option(8, "dimension of the data")
    n: int = option(256, "points that the score is made of")
    widths: int = option(9, "constant kernel widths, even in their logarithm")
    narrowest: float = option(0.35, "narrowest width, a standard deviation")
    widest: float = option(1.0, "widest width")
    sets: int = option(64, "independent point sets per width")
    held_out: int = option(128, "fresh points at which a set is judged")
    levels: int = option(32, "noise levels of the likelihood of one point")
    knots: int = option(9, "knots of the kernel variance against log snr")
    steps: int = option(300, "steps of Adam")
    repeats: int = option(12, "point sets for which a smoothing is optimised")
    fit: int = option(1024, "held-out points that the optimisation sees")
    samples: int = option(1000, "backward trajectories per set and regulariser")
    chain: int = option(60, "steps of a backward trajectory")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "widths": 5, "sets": 24, "n": 64, "dim": 6, "levels": 16, "knots": 5, "steps": 80,
        "repeats": 3, "fit": 256, "samples": 300, "chain": 40,
    },
    "quick": {},
    "paper": {"sets": 256, "held_out": 256, "repeats": 32, "steps": 600, "samples": 4000},
}  # fmt: skip


def widths_of(config: Config) -> np.ndarray:
    """Kernel widths, standard deviations.

    Raises:
        ValueError: if there are too few widths, sets or repeats for an error.
    """
    if config.widths < 5:
        raise ValueError(f"widths is {config.widths}; the minimum is fitted on five at least")
    if min(config.sets, config.repeats) < 2:
        raise ValueError(
            f"sets is {config.sets} and repeats {config.repeats}; an error needs at least 2 each"
        )
    return np.geomspace(config.narrowest, config.widest, config.widths)


def knots_of(config: Config) -> np.ndarray:
    """OU times of the knots, even in log snr."""
    level = np.linspace(*np.log(np.expm1([2 * T_MIN, 2 * T_MAX])), config.knots)
    return 0.5 * np.log1p(np.exp(level))


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Divergences at constant widths, optimised smoothings, and samples."""
    key = jax.random.key(config.seed)
    names = ("constant", "optimised")
    makers = (_constant, _optimised)
    measured: dict[str, Any] = {"widths": widths_of(config), "knots": knots_of(config)}
    for index, (name, make) in enumerate(zip(names, makers)):
        work = partial(make, jax.random.fold_in(key, index), config, session.progress(name))
        measured |= session.part(name, work)
    return measured


def _cloud(key: jax.Array, config: Config) -> Any:
    return diffjax.point_cloud(jax.random.normal(key, (config.n, config.dim), config.dtype))


def _blurred(cloud: Any, log_variance: jax.Array) -> Diffusion:
    return Diffusion(smoothed(cloud, jnp.exp(log_variance)), diffjax.ornstein_uhlenbeck())


def _truth(x: jax.Array) -> jax.Array:
    """``log rho(x)`` of the data."""
    return -0.5 * jnp.sum(jnp.square(x) + math.log(2 * math.pi), axis=-1)


def _constant(key: jax.Array, config: Config, progress: Any) -> Curves:
    """Divergence per coordinate at each width: mean and error over sets; also on own points."""
    widths, values = widths_of(config), []
    for i, width in enumerate(widths):
        found = _sets(jax.random.fold_in(key, i), jnp.asarray(width, config.dtype), config)
        values.append(np.asarray(found, np.float64))
        if progress is not None:
            progress(i + 1, len(widths))
    stacked = np.asarray(values) / config.dim  # (W, sets, 3)
    mean, error = stacked.mean(1), stacked.std(1, ddof=1) / math.sqrt(config.sets)
    return {
        "divergence": mean[:, 0], "divergence_error": error[:, 0],
        "own": mean[:, 1], "own_error": error[:, 1],
        "direct_gap": mean[:, 2], "direct_gap_error": error[:, 2],
    }  # fmt: skip


@partial(jax.jit, static_argnames="config")
def _sets(key: jax.Array, width: jax.Array, config: Config) -> jax.Array:
    """Per set: divergence on fresh points, on own points, and bound minus density, ``(sets, 3)``.

    The last one compares the integral over noise levels with the density of the kernel estimate
    itself at the same points.
    """

    def one(index: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, index), 4)
        cloud = _cloud(keys[0], config)
        fresh = jax.random.normal(keys[1], (config.held_out, config.dim), config.dtype)
        own = cloud.points[: config.held_out]
        model = _blurred(cloud, 2 * jnp.log(width))
        both = jnp.concatenate([fresh, own])
        loss = point_losses(keys[2], model, both, T_MIN, T_MAX, levels=config.levels)
        excess = loss + _truth(both)
        density = model.data.log_normaliser(fresh, 1.0, 0.0)
        gap = jnp.mean(loss[: len(fresh)] + density)
        return jnp.stack([jnp.mean(excess[: len(fresh)]), jnp.mean(excess[len(fresh) :]), gap])

    return jax.lax.map(one, jnp.arange(config.sets), batch_size=8)


def _optimised(key: jax.Array, config: Config, progress: Any) -> Curves:
    """Optimised smoothings of several sets, their divergences, and copies among their samples."""
    found: dict[str, list] = {}
    for i in range(config.repeats):
        result = _one_set(jax.random.fold_in(key, i), config)
        for name, value in result.items():
            found.setdefault(name, []).append(np.asarray(value, np.float64))
        if progress is not None:
            progress(i + 1, config.repeats)
    return {name: np.stack(values) for name, values in found.items()}


def _one_set(key: jax.Array, config: Config) -> dict[str, jax.Array]:
    """Smoothings of one point set, their bounds on fresh points, and the copies they make.

    The third smoothing is optimised on the points of the set instead of held-out ones.
    """
    keys = jax.random.split(key, 6)
    cloud = _cloud(keys[0], config)
    seen, fresh = (jax.random.normal(k, (config.fit, config.dim), config.dtype) for k in keys[1:3])
    own = cloud.points[jnp.arange(config.fit) % config.n]
    begin = jnp.full(config.knots, math.log(0.3), config.dtype)
    single, _ = _adam(cloud, begin, seen, keys[3], True, config)
    level, history = _adam(cloud, single, seen, keys[3], False, config)
    overfit, _ = _adam(cloud, begin, own, keys[3], False, config)
    judged = [_loss(cloud, v, fresh, keys[4], config) for v in (single, level, overfit)]
    made = [cloud, *(_by_level(cloud, v, config) for v in (single, level))]
    copies = [_copies(keys[5], cloud, data, config) for data in made]
    start = jax.random.normal(keys[5], (config.samples, config.dim), config.dtype)
    copies.append(gap_ratio(start, cloud.points).memorised.mean)
    return {
        "log_variances": level, "log_variance": single[0], "overfit_log_variances": overfit,
        "history": history, "judged": jnp.stack(judged), "copies": jnp.stack(copies),
    }  # fmt: skip


def _by_level(cloud: Any, log_variances: jax.Array, config: Config) -> Any:
    knots = jnp.asarray(knots_of(config), log_variances.dtype)
    return smoothed_by_level(cloud, jnp.exp(log_variances), knots)


@partial(jax.jit, static_argnames="config")
def _loss(cloud: Any, log_variances: Any, at: Any, key: jax.Array, config: Config) -> jax.Array:
    """Bound of the chain per coordinate, beyond the entropy of the data."""
    model = Diffusion(_by_level(cloud, log_variances, config), diffjax.ornstein_uhlenbeck())
    start, end = (_blurred(cloud, log_variances[k]) for k in (-1, 0))
    values = point_losses(key, model, at, T_MIN, T_MAX, levels=config.levels, start=start, end=end)
    return jnp.mean(values + _truth(at)) / config.dim


@partial(jax.jit, static_argnames="config")
def _adam(
    cloud: Any, start: jax.Array, at: jax.Array, key: jax.Array, shared: Any, config: Config
) -> tuple[jax.Array, jax.Array]:
    """Adam with a rate that falls to zero; the mean of the last quarter of the iterates.

    ``shared`` keeps the variances of all levels equal.
    """
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, config.steps))

    def tied(values: jax.Array) -> jax.Array:
        return jnp.where(shared, jnp.mean(values), values)

    def step(carry: Any, i: jax.Array) -> Any:
        values, state = carry
        value, gradient = jax.value_and_grad(
            lambda v: _loss(cloud, tied(v), at, jax.random.fold_in(key, i), config)
        )(values)
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(values, change), state), (value, tied(values))

    _, (history, path) = jax.lax.scan(
        step, (start, optimiser.init(start)), jnp.arange(config.steps)
    )
    return jnp.mean(path[-max(1, config.steps // 4) :], axis=0), history


def _copies(key: jax.Array, cloud: Any, data: Any, config: Config) -> jax.Array:
    """Fraction of copies (gap ratio below 1/3) among the samples of an ancestral chain."""
    times = jnp.asarray(schedules.log_snr(T_MIN, T_MAX, config.chain), config.dtype)
    grid = schedules.backward_grid(times, None)
    start = jax.random.normal(key, (config.samples, config.dim), config.dtype)
    model = Diffusion(data, diffjax.ornstein_uhlenbeck())
    x, _ = diffjax.backward(key, model, start, grid, method="ancestral")
    return gap_ratio(x, cloud.points).memorised.mean


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact divergences of kernel estimates, their limit, and a wrong convention of the width."""
    log_n, alpha = math.log(config.n), math.log(config.n) / config.dim
    widths = measured["widths"]
    fine = np.geomspace(config.narrowest, config.widest, 61)

    def exact(values: np.ndarray) -> np.ndarray:
        return np.asarray(
            kernel_density.finite_size_estimate(values, log_n, float(config.dim)).divergence
        )

    curve = exact(fine)
    best = int(np.argmin(curve))
    return {
        "exact": exact(widths), "wrong": exact(widths**2), "fine": fine, "exact_fine": curve,
        "best_width": fine[best], "best_divergence": curve[best],
        "optimal_limit": float(kernel_density.thresholds(alpha).optimal),
    }  # fmt: skip


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and error over sets."""
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Exact overlays at constant width, two controls, and the limit of many dimensions."""
    curve = (measured["divergence"], measured["divergence_error"])
    zero = np.zeros_like(predicted["exact"])
    return [
        compare("divergence of a constant smoothing", *curve, predicted["exact"]),
        compare("integral over noise levels minus log density", measured["direct_gap"],
                measured["direct_gap_error"], zero),
        compare("divergence, width read as a variance", *curve, predicted["wrong"], control=True),
        compare("divergence on the points of the set itself", measured["own"],
                measured["own_error"], predicted["exact"], control=True),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Divergences and copies of the regularisers, comparisons, one sentence."""
    found = comparisons(measured, predicted)
    judged, error = _mean(measured["judged"])
    gain, gain_error = _mean(measured["judged"][:, 0] - measured["judged"][:, 1])
    copies, copies_error = _mean(measured["copies"])
    width, width_error = _mean(np.exp(0.5 * measured["log_variance"]))
    rows = [
        ("best constant width", f"{number(width, width_error)}, exact {predicted['best_width']:.3f}"
         f", many dimensions {predicted['optimal_limit']:.3f}"),
        ("divergence per coordinate, constant", f"{number(judged[0], error[0])} nats, exact "
         f"{predicted['best_divergence']:.4f}"),
        ("divergence per coordinate, by level", f"{number(judged[1], error[1])} nats"),
        ("gain of the level dependence", f"{number(gain, gain_error)} nats per coordinate"),
        ("divergence, optimised on its own points", f"{number(judged[2], error[2])} nats"),
        *(
            (f"copies among samples, {name}", number(copies[k], copies_error[k]))
            for k, name in enumerate(METHODS)
        ),
    ]  # fmt: skip
    summary = {
        "best_constant_width": {
            "value": width, "error": width_error, "exact": predicted["best_width"],
            "limit": predicted["optimal_limit"],
        },
        "divergence": {
            name: {"value": judged[k], "error": error[k]}
            for k, name in enumerate(("constant", "by_level", "on_own_points"))
        },
        "best_exact_divergence": predicted["best_divergence"],
        "gain_of_level_dependence": {"value": gain, "error": gain_error},
        "copies": {
            name: {"value": copies[k], "error": copies_error[k]} for k, name in enumerate(METHODS)
        },
    }  # fmt: skip
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(measured, predicted),
    )  # fmt: skip


def _finding(config: Config, found: list[Comparison], summary: dict[str, Any]) -> str:
    def pair(entry: dict[str, Any]) -> str:
        return number(float(entry["value"]), float(entry["error"]))

    copies, divergence = summary["copies"], summary["divergence"]
    gain = pair(summary["gain_of_level_dependence"])
    return (
        f"For n = {config.n} points of N(0, I) in d = {config.dim}, a kernel variance optimised at "
        f"every noise level through the likelihood of the chain leaves "
        f"{pair(divergence['by_level'])} nats per coordinate between data and samples, against "
        f"{pair(divergence['constant'])} with the best constant kernel (gain {gain}), and "
        f"{pair(copies['by level'])} of its samples are copies, as among fresh data "
        f"({pair(copies['truth'])}), against {pair(copies['none'])} without smoothing; at constant "
        f"width the exact divergence is met with a reduced chi-square of {found[0].chi_square:.2f}."
    )


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    axes = {
        "widths": "constant kernel widths, standard deviations",
        "divergence": "divergence per coordinate on fresh points, nats",
        "divergence_error": "its standard error over sets",
        "own": "the same on the points of the set",
        "own_error": "its standard error over sets",
        "direct_gap": "likelihood bound minus negative log density per coordinate, nats",
        "direct_gap_error": "its standard error over sets",
        "exact": "exact divergence per coordinate at these widths, nats",
        "fine": "widths of exact_fine",
        "exact_fine": "exact divergence per coordinate, nats",
        "knots": "OU times of the knots",
        "log_variances": "log of the optimised kernel variances, (set, knot)",
        "overfit_log_variances": "the same, optimised on the points of the set",
        "log_variance": "log of the best constant kernel variance, (set,)",
        "history": "bound per coordinate during the optimisation by level, (set, step), nats",
        "judged": "bound per coordinate on fresh points: constant, by level, on own points, nats",
        "copies": "copies among samples: none, constant, by level, truth, (set, method)",
    }
    return {name: np.asarray((measured | predicted)[name]) for name in axes}, axes


def draw(measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Divergence against width, optimised widths against noise, and copies."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    line(axes[0], predicted["fine"], predicted["exact_fine"], "exact, constant width", COLOURS[0])
    points(axes[0], measured["widths"], measured["divergence"], measured["divergence_error"],
           "likelihood of the chain, fresh points", BLACK)  # fmt: skip
    gain, error = _mean(measured["judged"][:, 0] - measured["judged"][:, 1])
    level = predicted["best_divergence"] - gain
    axes[0].axhspan(level - error, level + error, color=GREEN, alpha=0.5, lw=0,
                    label="optimised by level: exact best less its gain (1 s.e.)")  # fmt: skip
    axes[0].axvline(predicted["optimal_limit"], color=ORANGE, ls=":", lw=1.2,
                    label="best width, many dimensions")  # fmt: skip
    axes[0].set_xscale("log")
    axes[0].set_xlabel("kernel width (standard deviations of the data)")
    axes[0].set_ylabel("divergence per coordinate (nats)")
    noise = np.sqrt(np.expm1(2 * measured["knots"]))
    for name, colour, label, marker in (
        ("log_variances", GREEN, "optimised on held-out points", "o"),
        ("overfit_log_variances", RED, "optimised on the points themselves", "s"),
    ):
        width, spread = _mean(np.exp(0.5 * measured[name]))
        points(axes[1], noise, width, spread, label, colour, marker)
        axes[1].plot(noise, width, color=colour, lw=0.8)
    axes[1].axhline(predicted["best_width"], color=COLOURS[0], lw=1.5, label="best constant, exact")
    axes[1].set(xscale="log", yscale="log")
    axes[1].set_xlabel(r"noise level $\sigma=\sqrt{e^{2t}-1}$")
    axes[1].set_ylabel("kernel width")
    copies, error = _mean(measured["copies"])
    place = np.arange(len(METHODS))
    axes[2].bar(place, copies, color=[RED, COLOURS[0], GREEN, "0.7"])
    axes[2].errorbar(place, copies, yerr=error, fmt="none", ecolor=BLACK, capsize=3)
    labels = ["no\nsmoothing", "best\nconstant", "by level", "fresh\ndata"]
    axes[2].set_xticks(place, labels)
    axes[2].set_ylabel("samples that are copies (gap ratio < 1/3)")
    axes[2].set_ylim(0, 1.15)
    for k, value in enumerate(copies):
        axes[2].text(k, value + 0.03, f"{value:.3f}", ha="center", fontsize=9)
    for axis in axes[:2]:
        axis.legend(fontsize=8)
    return figure
