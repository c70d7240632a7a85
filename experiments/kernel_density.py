"""Kernel density estimates of a Gaussian: where they condense, and the best width.

Gaussian kernels on n = exp(alpha d) points of N(0, I_d), evaluated at fresh points of the same law.
Three statistics are averaged over independent point sets, drawn afresh for every width: the
participation ratio of the kernels, which ends at h_G for large d; that of their squares, which ends
at h_CLT = sqrt(2) h_G and tells stable from Gaussian fluctuations; and the Kullback-Leibler
divergence, whose minimum is the best width. All three are known exactly at every d and n, and
compared in standard errors; the limits are laid over them. The collapse of diffusion is another
problem: its root is a control that must fail.

Source: Biroli, Mezard 2024 (2408.05807).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, line, number, points
from theory import kernel_density

STATISTICS = ("participation", "squares", "divergence")
BLOCK = 2**22  # kernels evaluated at once


@dataclass(frozen=True)
class Config:
    """Dimensions and density of points, widths over h_G, and how many sets of points."""

    dims: tuple[int, ...] = option((12, 18, 24, 30), "dimensions", nargs="+", type=int)
    alpha: float = option(0.35, "log of the number of points over the dimension")
    widths: int = option(12, "widths, even in their logarithm")
    narrowest: float = option(0.7, "narrowest width over h_G")
    widest: float = option(2.4, "widest width over h_G")
    sets: int = option(100, "independent point sets per width")
    queries: int = option(64, "points at which the estimate on a set is evaluated")
    nodes: int = option(1024, "nodes of the exact averages")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (10, 16), "alpha": 0.4, "widths": 6, "narrowest": 0.8, "sets": 60, "queries": 32,
        "nodes": 576,
    },
    "quick": {"dims": (12, 18, 24), "widths": 10},
    "paper": {},
}  # fmt: skip


def sizes(config: Config) -> list[tuple[str, int, int]]:
    """``(name, dim, n)`` of every family of point sets."""
    if config.sets < 2:
        raise ValueError(f"sets is {config.sets}; errors between sets need at least 2")
    if config.widths < 5:
        raise ValueError(f"widths is {config.widths}; the minimum is fitted on five at least")
    return [(f"d{dim}", dim, round(math.exp(config.alpha * dim))) for dim in config.dims]


def widths_of(config: Config, dim: int, n: int) -> np.ndarray:
    """Widths even in their logarithm, around the thresholds of these sizes."""
    glass = float(kernel_density.thresholds(math.log(n) / dim).glass)
    return glass * np.geomspace(config.narrowest, config.widest, config.widths)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """The three statistics at every width, with errors between point sets."""
    measured: dict[str, Any] = {}
    for index, (name, dim, n) in enumerate(sizes(config)):
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        work = partial(_estimate, key, dim, n, config, session.progress(name))
        measured |= {f"{k}_{name}": v for k, v in session.part(name, work).items()}
    return measured


def _estimate(key: jax.Array, dim: int, n: int, config: Config, progress: Any) -> Curves:
    widths = widths_of(config, dim, n)
    values = np.zeros((len(widths), 3, config.sets))
    for i, width in enumerate(widths):
        sampled = _sets(
            jax.random.fold_in(key, i), jnp.asarray(width, config.dtype), dim, n, config.sets,
            config.queries,
        )  # fmt: skip
        values[i] = np.asarray(sampled, np.float64).T
        if progress is not None:
            progress(i + 1, len(widths))
    found: Curves = {"widths": widths}
    for column, name in enumerate(STATISTICS):
        found[name] = values[:, column].mean(-1)
        found[f"{name}_error"] = values[:, column].std(-1, ddof=1) / math.sqrt(config.sets)
    return found


@partial(jax.jit, static_argnames=("dim", "n", "sets", "queries"))
def _sets(key: jax.Array, width: jax.Array, dim: int, n: int, sets: int, queries: int) -> jax.Array:
    """Means over the queries of the three statistics, ``(sets, 3)``."""
    batch = max(1, min(sets, BLOCK // (n * queries)))

    def one(index: jax.Array) -> jax.Array:
        key_data, key_query = jax.random.split(jax.random.fold_in(key, index))
        y = jax.random.normal(key_data, (n, dim), width.dtype)
        x = jax.random.normal(key_query, (queries, dim), width.dtype)
        squared = jnp.sum(x**2, 1)
        distance = squared[:, None] + jnp.sum(y**2, 1) - 2 * jnp.matmul(x, y.T, precision="highest")
        logs = -0.5 * distance / width**2
        total = jax.nn.logsumexp(logs, axis=1)
        weights = jnp.exp(logs - total[:, None])
        participation = jnp.sum(weights**2, axis=1)
        squares = jnp.sum(weights**4, axis=1) / participation**2
        estimate = total / dim - jnp.log(width) - math.log(n) / dim
        divergence = -0.5 * squared / dim - estimate
        return jnp.stack([jnp.mean(v) for v in (participation, squares, divergence)])

    return jax.lax.map(one, jnp.arange(sets), batch_size=batch)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact averages, their limits, and the curves that condense at the root of diffusion."""
    predicted: dict[str, Any] = {}
    for name, dim, n in sizes(config):
        alpha, widths = math.log(n) / dim, measured[f"widths_{name}"]
        thresholds = kernel_density.thresholds(alpha)
        glass = float(thresholds.glass)
        # collapse of diffusion: alpha = log(1 + w)/2
        diffusion = math.expm1(2 * alpha) ** -0.5
        exact = kernel_density.finite_size_estimate(
            widths, math.log(n), float(dim), nodes=config.nodes
        )
        for key, values in zip(("divergence", "participation", "squares"), exact):
            curve = np.asarray(values)
            predicted[f"{key}_{name}"] = curve
            # the same curve, moved to where it would be if it condensed at the other root
            moved = np.log(widths * glass / diffusion)
            predicted[f"{key}_wrong_{name}"] = np.interp(
                moved, np.log(widths), curve, left=np.nan, right=np.nan
            )
        fine = glass * np.geomspace(config.narrowest, config.widest, 121)
        for source, suffix in ((widths, "limit"), (fine, "limit_fine")):
            limits = _limits(source, alpha)
            predicted |= {f"{key}_{suffix}_{name}": v for key, v in limits.items()}
        predicted |= {
            f"fine_{name}": fine, f"glass_{name}": glass, f"diffusion_{name}": diffusion,
            f"gaussian_{name}": float(thresholds.gaussian),
            f"optimal_{name}": float(thresholds.optimal),
        }  # fmt: skip
    return predicted


def _limits(widths: np.ndarray, alpha: float) -> Curves:
    return {
        "participation": np.asarray(kernel_density.kernel_participation(widths, alpha)),
        "squares": np.asarray(kernel_density.kernel_participation(widths, alpha, 2.0)),
        "divergence": np.asarray(kernel_density.kullback_leibler(widths, alpha)),
    }


def best_width(widths: np.ndarray, divergence: np.ndarray) -> float:
    """Minimum of the cubic through the logarithms of the five widths around the limit's."""
    x = np.log(widths)
    cubic = np.polynomial.Polynomial.fit(x, divergence, 3)
    grid = np.linspace(x[0], x[-1], 2001)
    return float(np.exp(grid[np.argmin(cubic(grid))]))


def _best(config: Config, measured: dict[str, Any], predicted: dict[str, Any], name: str) -> dict:
    """Measured and exact best width, by the same fit, with an error by resampling."""
    widths = measured[f"widths_{name}"]
    chosen = np.sort(np.argsort(np.abs(np.log(widths / predicted[f"optimal_{name}"] / 1.1)))[:5])
    widths = widths[chosen]
    value, error, exact = (
        source[f"{key}_{name}"][chosen]
        for source, key in (
            (measured, "divergence"), (measured, "divergence_error"), (predicted, "divergence"),
        )
    )  # fmt: skip
    noise = np.random.default_rng(config.seed).normal(size=(200, len(widths)))
    resampled = [best_width(widths, value + row * error) for row in noise]
    return {
        "best_width": best_width(widths, value),
        "best_width_error": float(np.std(resampled, ddof=1)),
        "best_width_exact": best_width(widths, exact),
        "best_width_limit": predicted[f"optimal_{name}"],
    }


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact statistics at every size, the best width, limits, and the root of diffusion."""
    names = [name for name, *_ in sizes(config)]
    floor = 1 / (config.sets * config.queries)

    def against(label: str, key: str, suffix: str = "", **kind: Any) -> Comparison:
        value, error, theory = (
            np.concatenate([source[f"{key}{part}_{name}"] for name in names])
            for source, part in ((measured, ""), (measured, "_error"), (predicted, suffix))
        )
        return compare(label, value, error, theory, floor=floor, **kind)

    best = [_best(config, measured, predicted, name) for name in names]
    value, error, exact, limit = (
        [entry[f"best_width{part}"] for entry in best]
        for part in ("", "_error", "_exact", "_limit")
    )
    return [
        against("participation of the kernels", "participation"),
        against("participation of their squares", "squares"),
        against("divergence per coordinate", "divergence"),
        compare("best width", value, error, exact),
        compare("best width against its limit", value, error, limit, exact=False),
        against("participation against its limit", "participation", "_limit", exact=False),
        against("condensed at the root of diffusion", "participation", "_wrong", control=True),
        against("squares condensed at its double", "squares", "_wrong", control=True),
    ]


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Thresholds and best widths beside each other, comparisons, one sentence."""
    found = comparisons(config, measured, predicted)
    rows, summary = [], {}
    for name, dim, n in sizes(config):
        entry = {
            "dim": dim, "n": n,
            **{k: predicted[f"{k}_{name}"] for k in ("glass", "gaussian", "optimal", "diffusion")},
            **_best(config, measured, predicted, name),
            **_gaps(measured, predicted, name),
        }  # fmt: skip
        summary[name] = entry
        best = number(entry["best_width"], entry["best_width_error"])
        rows.append(
            (
                f"d = {dim}, n = {n}",
                f"h_G = {number(entry['glass'])}, h_CLT = {number(entry['gaussian'])}; best width "
                f"{best}, exact {number(entry['best_width_exact'])}, limit "
                f"{number(entry['optimal'])}",
            )
        )
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(found, summary), table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _gaps(measured: dict[str, Any], predicted: dict[str, Any], name: str) -> dict[str, float]:
    """Root-mean-square distance of both participations from their limits, over the widths."""
    gaps = {}
    for key in ("participation", "squares"):
        distance = measured[f"{key}_{name}"] - predicted[f"{key}_limit_{name}"]
        gaps[f"{key}_from_limit"] = float(np.sqrt(np.mean(distance**2)))
        gaps[f"{key}_from_limit_error"] = float(np.mean(measured[f"{key}_error_{name}"]))
    return gaps


def _finding(found: list[Comparison], summary: dict[str, Any]) -> str:
    best = ", ".join(
        f"{number(e['best_width'] / e['glass'], e['best_width_error'] / e['glass'])} at d = "
        f"{e['dim']}"
        for e in summary.values()
    )
    last = list(summary.values())[-1]
    return (
        f"The best width of a kernel density estimate falls with the dimension, {best} in units "
        f"of h_G, towards {number(last['optimal'] / last['glass'])}, inside the phase where single "
        f"points carry the estimate; participation and divergence agree with their exact "
        f"finite-size values (reduced chi-square {found[0].chi_square:.2f} and "
        f"{found[2].chi_square:.2f}), and do not with a condensation at the collapse root of "
        f"diffusion."
    )


_TEXTS = {
    "participation": "participation ratio of the kernels",
    "squares": "participation ratio of their squares",
    "divergence": "Kullback-Leibler divergence per coordinate, nats",
}


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}
    for name, dim, n in sizes(config):
        found = {"widths": (measured[f"widths_{name}"], "widths of the kernel (W,)"),
                 "fine": (predicted[f"fine_{name}"], "widths of the limits (L,)")}  # fmt: skip
        for key, text in _TEXTS.items():
            found[key] = measured[f"{key}_{name}"], f"{text} (W,)"
            found[f"{key}_error"] = measured[f"{key}_error_{name}"], "standard error between sets"
            found[f"{key}_exact"] = predicted[f"{key}_{name}"], f"{text}, exact (W,)"
            found[f"{key}_limit"] = predicted[f"{key}_limit_fine_{name}"], f"{text}, limit (L,)"
        for key, (values, text) in found.items():
            curves[f"{key}_{name}"] = np.asarray(values)
            axes[f"{key}_{name}"] = f"d = {dim}, n = {n}: {text}"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Both participations and the divergence over the width in units of ``h_G``."""
    import matplotlib.pyplot as plt
    from scipy.interpolate import CubicSpline

    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    families = sizes(config)
    last = families[-1][0]
    fine = predicted[f"fine_{last}"] / predicted[f"glass_{last}"]
    for axis, key in zip(axes, STATISTICS):
        line(axis, fine, predicted[f"{key}_limit_fine_{last}"], "limit", BLACK)
        for i, (name, dim, n) in enumerate(families):
            colour, glass = COLOURS[i % len(COLOURS)], predicted[f"glass_{name}"]
            x = measured[f"widths_{name}"] / glass
            # smooth in the width: a spline through the exact values
            smooth = CubicSpline(np.log(x), predicted[f"{key}_{name}"])(np.log(fine))
            line(axis, fine, smooth, "", colour)
            points(
                axis, x, measured[f"{key}_{name}"], measured[f"{key}_error_{name}"],
                f"d = {dim}, n = {n}", colour, "os^Dv<"[i % 6],
            )  # fmt: skip
        axis.plot([], [], color="0.5", label="exact at this size")
        axis.axvline(1, color=BLACK, lw=0.8, ls=":")
        axis.axvline(math.sqrt(2), color=BLACK, lw=0.8, ls="-.")
        axis.set_xlabel("width of the kernel $h/h_G$")
    _finish(axes, predicted, families)
    return figure


def _finish(axes: Any, predicted: dict[str, Any], families: list[tuple[str, int, int]]) -> None:
    """Titles, limits and what belongs to one panel only."""
    last = families[-1][0]
    glass = predicted[f"glass_{last}"]
    wrong = np.maximum(0, 1 - (predicted[f"fine_{last}"] / predicted[f"diffusion_{last}"]) ** 2)
    line(axes[0], predicted[f"fine_{last}"] / glass, wrong, "root of diffusion (control)", "0.6",
         ":")  # fmt: skip
    for axis, label in zip(axes, (r"$Y_2$", r"$Y_2$ of the squares", "divergence per coordinate")):
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0)
    best = predicted[f"optimal_{last}"] / glass
    axes[2].axvline(best, color=BLACK, lw=0.8, ls="--", label="best width, limit")
    axes[0].set_title("kernels: condensed below $h_G$ (dotted)", fontsize=10)
    axes[1].set_title(r"squares: stable up to $h_{CLT}$ (dash-dotted), then Gaussian", fontsize=10)
    axes[2].set_title("Kullback-Leibler divergence", fontsize=10)
    for axis in axes:
        axis.legend(fontsize=8)
