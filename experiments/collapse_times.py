"""Nearest-neighbour times of exact backward trajectories, and the own-point probability.

Gaussian training sets. P_own(t), the probability that the point behind a noised state is the one
nearest to it, is the error-free probability of a random code and known exactly at every n and d; it
is measured twice, on noised training points and along exact backward trajectories (is the nearest
point at time t the one that the trajectory ends on?), with errors between independent training
sets. The time of the last change of the nearest point, often quoted as the collapse time, lies
above t_C: it is later than t with a probability of at most P_own(t), which is still about 2/3 at
t_C.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), SI.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.channel
import theory.collapse
from diffjax import schedules
from diffjax.noise import normal
from diffjax.observables.collapse import collapse_curves, last_change_time, nearest_point
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, line, number, points

LOW, HIGH, START = 0.4, 2.2, 5.0  # measured times and start of the trajectories over t_C
NODES = 24  # of the fine theory grid


@dataclass(frozen=True)
class Config:
    """Sizes ``(dim, n, variance)`` of the training sets, and how many of them."""

    dims: tuple[int, ...] = option((16, 64, 256), "dimensions", nargs="+", type=int)
    points: tuple[int, ...] = option((200, 1000, 5000), "points per set", nargs="+", type=int)
    variances: tuple[float, ...] = option((1.0, 0.25, 1.0), "variances", nargs="+", type=float)
    times: int = option(7, "times at which P_own is measured, in units of t_C")
    sets: int = option(60, "independent training sets per time (and for the trajectories)")
    states: int = option(200, "noised points per training set")
    trajectories: int = option(20, "backward trajectories per training set")
    steps: int = option(100, "steps of the trajectories, even in log snr")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (8, 16), "points": (100, 200), "variances": (0.5, 1.0), "times": 4, "sets": 30,
        "states": 100, "trajectories": 20, "steps": 50,
    },
    "quick": {"sets": 40, "states": 100, "trajectories": 10, "steps": 60},
    "paper": {},
}  # fmt: skip


def sizes(config: Config) -> list[tuple[str, int, int, float]]:
    """``(name, dim, n, variance)`` of every family of training sets."""
    if not len(config.dims) == len(config.points) == len(config.variances):
        raise ValueError(
            f"dims, points and variances need equal lengths, got {len(config.dims)}, "
            f"{len(config.points)} and {len(config.variances)}"
        )
    if config.sets < 2:
        raise ValueError(f"sets is {config.sets}; errors between sets need at least 2")
    columns = zip(config.dims, config.points, config.variances)
    return [(f"d{dim}_n{n}", dim, n, variance) for dim, n, variance in columns]


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """``P_own`` on fresh sets at every time, and backward trajectories on fresh sets."""
    measured: dict[str, Any] = {}
    for index, (name, dim, n, variance) in enumerate(sizes(config)):
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        key_own, key_path = jax.random.split(key)
        t_c = float(theory.collapse.gaussian_collapse_time(np.log(n), dim, variance))
        size, bar = (dim, n, variance), session.progress(name)
        for part, work in (
            (f"own-{name}", partial(_own, key_own, size, t_c, config, bar)),
            (f"paths-{name}", partial(_paths, key_path, size, t_c, config)),
        ):
            measured |= {f"{k}_{name}": v for k, v in session.part(part, work).items()}
        measured[f"collapse_time_{name}"] = t_c
    return measured


def _own(
    key: jax.Array, size: tuple[int, int, float], t_c: float, config: Config, progress: Any
) -> Curves:
    """``P_own`` at every time, mean and error over training sets drawn afresh."""
    times = t_c * np.linspace(LOW, HIGH, config.times)
    process = diffjax.ornstein_uhlenbeck()
    values = np.zeros((config.times, config.sets))
    for i, t in enumerate(times):
        for r in range(config.sets):
            key_set, key_states = jax.random.split(
                jax.random.fold_in(jax.random.fold_in(key, i), r)
            )
            cloud = diffjax.point_cloud(_gaussian_points(key_set, size, config.dtype))
            diffusion = diffjax.Diffusion(cloud, process)
            curves = collapse_curves(key_states, diffusion, [t], config.states)
            values[i, r] = curves.own_nearest.mean[0]
        if progress is not None:
            progress(i + 1, config.times)
    mean, error = _over_sets(values)
    return {"times": times, "own": mean, "own_error": error}


def _over_sets(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the last axis and the standard error between independent training sets."""
    return values.mean(-1), values.std(-1, ddof=1) / np.sqrt(values.shape[-1])


def _gaussian_points(key: jax.Array, size: tuple[int, int, float], dtype: str) -> jax.Array:
    dim, n, variance = size
    return jnp.sqrt(jnp.asarray(variance, dtype)) * normal(key, (n, dim), dtype)


def _paths(key: jax.Array, size: tuple[int, int, float], t_c: float, config: Config) -> Curves:
    """Nearest points along exact trajectories; last changes, and agreement with the final point."""
    grid = schedules.log_snr(0.02 * t_c, START * t_c, config.steps)[::-1].astype(config.dtype)
    # one grid time is t_C itself, where P_own is tested along trajectories
    at_collapse = int(jnp.argmin(jnp.abs(grid - t_c)))
    grid = jnp.concatenate([grid.at[at_collapse].set(t_c), jnp.zeros((1,), grid.dtype)])
    last, stays = [], []
    for r in range(config.sets):
        key_set, key_path = jax.random.split(jax.random.fold_in(key, r))
        cloud = diffjax.point_cloud(_gaussian_points(key_set, size, config.dtype))
        index = _nearest_indices(cloud, key_path, grid, config.trajectories)
        last.append(last_change_time(index, grid))
        stays.append(jnp.mean((index == index[-1]).astype(grid.dtype), axis=1))
    last = np.asarray(last, np.float64)  # (sets, trajectories)
    stays_mean, stays_error = _over_sets(np.asarray(stays, np.float64).T)
    mean, error = _over_sets(last.mean(axis=1))
    return {
        "path_times": np.asarray(grid[:-1], np.float64),
        "path_own": stays_mean[:-1],
        "path_own_error": stays_error[:-1],
        "at_collapse": np.asarray(at_collapse),
        "last_change": np.sort(last.ravel()),
        "last_change_mean": mean,
        "last_change_mean_error": error,
        "last_change_median_error": _median_error(last),
    }


def _median_error(last: np.ndarray) -> np.floating:
    """Standard error of the median: bootstrap over training sets."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(last), (400, len(last)))
    return np.std([np.median(last[rows]) for rows in chosen])


@partial(jax.jit, static_argnames="trajectories")
def _nearest_indices(cloud: Any, key: jax.Array, grid: jax.Array, trajectories: int) -> jax.Array:
    """Index of the nearest point at every grid time, ``(S + 1, trajectories)``."""
    process = diffjax.ornstein_uhlenbeck()
    diffusion = diffjax.Diffusion(cloud, process)
    nearest = nearest_point(cloud, process)
    key_start, key_path = jax.random.split(key)
    x = diffusion.sample(key_start, grid[0], trajectories)
    _, info = diffjax.backward(key_path, diffusion, x, grid, method="exact", observe=nearest)
    return jnp.concatenate([nearest(x, grid[0])[None], info.observed])


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """``P_own`` exactly, by its normal approximation and with n/2; the width of the transition."""
    families = sizes(config)
    t_c = np.asarray([measured[f"collapse_time_{name}"] for name, *_ in families])[:, None]
    dim, n, variance = (np.asarray(c, float)[:, None] for c in list(zip(*families))[1:])
    grid = t_c * np.concatenate(
        [np.linspace(LOW, HIGH, config.times), [1.0], np.linspace(0.1, 3.0, NODES)]
    )
    log_n = np.log(n)
    curves = {
        "own": theory.collapse.nearest_is_own_probability(grid, log_n, dim, variance),
        "normal": theory.collapse.gaussian_approximation_of_own(grid, log_n, dim, variance),
        "half": theory.collapse.nearest_is_own_probability(grid, np.log(n / 2), dim, variance),
    }
    predicted: dict[str, Any] = {}
    for row, (name, *_) in enumerate(families):
        for key, curve in curves.items():
            values = np.asarray(curve[row], np.float64)
            predicted[f"{key}_{name}"] = values[: config.times]
            predicted[f"{key}_at_collapse_{name}"] = values[config.times]
            predicted[f"{key}_fine_{name}"] = values[config.times + 1 :]
        fine = grid[row, config.times + 1 :]
        predicted[f"fine_times_{name}"] = fine
        own = predicted[f"own_fine_{name}"]
        predicted[f"half_time_{name}"] = float(np.interp(-0.5, -own, fine))
    for (name, *_), width in zip(families, _width(t_c, dim, variance)):
        predicted[f"width_{name}"] = float(width)
    return predicted


def _width(t: np.ndarray, dim: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Finite-size width of the collapse: fluctuation of L over its slope ``d |df/dt|``, at t_C."""
    u = np.asarray(theory.channel.signal_ratio(t, variance), np.float64)
    slope = u / variance * (u + variance) / (1 + u)  # df/dt, with du/dt = -2 u (1 + u/variance)
    return (np.sqrt(dim * u / (1 + u)) / (dim * slope))[:, 0]


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact ``P_own`` on noised points and along trajectories; two wrong theories."""
    names = [name for name, *_ in sizes(config)]

    def gather(source: dict[str, Any], key: str) -> np.ndarray:
        return np.concatenate([source[f"{key}_{name}"] for name in names])

    value, error = gather(measured, "own"), gather(measured, "own_error")
    floor = 1 / (config.sets * config.states)
    own = compare("P_own(t), all sizes", value, error, gather(predicted, "own"), floor=floor)
    found = [own]
    for key, label in (("normal", "normal approximation"), ("half", "n/2 points")):
        found.append(
            compare(
                f"P_own(t), {label}", value, error, gather(predicted, key), floor=floor,
                control=True,
            )
        )  # fmt: skip
    at = [int(measured[f"at_collapse_{name}"]) for name in names]
    along = [
        np.asarray([measured[f"{key}_{name}"][i] for name, i in zip(names, at)])
        for key in ("path_own", "path_own_error")
    ]
    for key, label, control in (
        ("own", "", False), ("normal", ", normal approximation", True),
    ):  # fmt: skip
        expected = [predicted[f"{key}_at_collapse_{name}"] for name in names]
        label = f"nearest point at t_C is the final one, trajectories{label}"
        found.append(compare(label, *along, expected, control=control))
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Nearest-neighbour times beside t_C, comparisons, one sentence."""
    found = comparisons(config, measured, predicted)
    rows, summary = [], {}
    for name, dim, n, variance in sizes(config):
        t_c, last = measured[f"collapse_time_{name}"], measured[f"last_change_{name}"]
        mean = float(measured[f"last_change_mean_{name}"])
        mean_error = float(measured[f"last_change_mean_error_{name}"])
        median = float(np.median(last))
        median_error = float(measured[f"last_change_median_error_{name}"])
        half, width = predicted[f"half_time_{name}"], predicted[f"width_{name}"]
        entry = {
            "dim": dim, "n": n, "variance": variance, "collapse_time": t_c,
            "nearest_neighbour_time": mean, "nearest_neighbour_time_error": mean_error,
            "nearest_neighbour_median": median, "nearest_neighbour_median_error": median_error,
            "excess_of_mean_over_collapse_time": mean / t_c - 1,
            "excess_error": mean_error / t_c,
            "time_of_own_one_half": half,
            "own_probability_at_collapse": float(predicted[f"own_at_collapse_{name}"]),
            "finite_size_width": width, "excess_in_widths": (mean - t_c) / width,
            "excess_in_widths_error": mean_error / width,
        }  # fmt: skip
        summary[name] = entry
        rows.append(
            (
                f"d = {dim}, n = {n}, variance {variance:g}",
                f"t_C = {number(t_c)}; nearest-neighbour time: mean {number(mean, mean_error)}, "
                f"median {number(median, median_error)}; P_own = 1/2 at {number(half)}; excess "
                f"{100 * (mean / t_c - 1):.0f}% = "
                f"{number((mean - t_c) / width, mean_error / width)} finite-size widths",
            )
        )
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(found, summary), table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(found: list[Comparison], summary: dict[str, Any]) -> str:
    excess = ", ".join(
        f"{100 * e['excess_of_mean_over_collapse_time']:.0f}({100 * e['excess_error']:.0f})% at "
        f"d = {e['dim']}"
        for e in summary.values()
    )
    own = ", ".join(f"{e['own_probability_at_collapse']:.2f}" for e in summary.values())
    return (
        f"The nearest-neighbour time of exact trajectories overestimates the collapse time by "
        f"{excess}, because the own point is the nearest with probability {own} at t_C and loses "
        f"slowly above it; the exact P_own(t) agrees with the simulation (reduced chi-square "
        f"{found[0].chi_square:.2f} over {found[0].points} points)."
    )


_MEASURED = {
    "times": "OU times (T,)",
    "own": "P_own on noised training points (T,)",
    "own_error": "its standard error between training sets",
    "path_times": "OU times along the trajectories (S,)",
    "path_own": "fraction of trajectories whose nearest point is their final one (S,)",
    "path_own_error": "its standard error between training sets (correlated in time)",
    "last_change": "sorted OU times of the last change of the nearest point",
}
_PREDICTED = {
    "fine_times": "OU times of the theory curves",
    "own_fine": "exact P_own on fine_times",
    "normal_fine": "normal approximation of P_own on fine_times",
}


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}
    for name, dim, n, variance in sizes(config):
        for source, texts in ((measured, _MEASURED), (predicted, _PREDICTED)):
            for key, text in texts.items():
                curves[f"{key}_{name}"] = np.asarray(source[f"{key}_{name}"])
                axes[f"{key}_{name}"] = f"d = {dim}, n = {n}, variance {variance:g}: {text}"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """``P_own`` with its theory, and the distribution of nearest-neighbour times, over ``t_C``."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
    for i, (name, dim, n, variance) in enumerate(sizes(config)):
        colour, marker = COLOURS[i % len(COLOURS)], "os^Dv<"[i % 6]
        t_c, first = measured[f"collapse_time_{name}"], i == 0
        fine, exact = predicted[f"fine_times_{name}"] / t_c, predicted[f"own_fine_{name}"]
        label = rf"d = {dim}, n = {n}, $\sigma^2$ = {variance:g}"
        line(left, fine, exact, "exact theory" if first else "", colour)
        line(
            left, fine, predicted[f"normal_fine_{name}"],
            "normal approximation" if first else "", colour, ":",
        )  # fmt: skip
        points(
            left, measured[f"times_{name}"] / t_c, measured[f"own_{name}"],
            measured[f"own_error_{name}"], label, colour, marker,
        )  # fmt: skip
        line(right, fine, exact, r"$P_{own}$, upper bound" if first else "", colour, "--")
        last, later = measured[f"last_change_{name}"] / t_c, measured[f"path_times_{name}"] / t_c
        later = later[later < 3][:: max(1, np.sum(later < 3) // 16)]
        survival = np.mean(last > later[:, None], axis=1)
        error = np.sqrt(survival * (1 - survival) / len(last))
        points(right, later, survival, error, label, colour, marker)
        median = float(np.median(last))
        right.plot([median] * 2, [0, 0.5], color=colour, lw=0.8, ls="-.")
    for axis in (left, right):
        axis.axvline(1, color=BLACK, lw=0.8, ls=":")
        axis.set_xlim(0, 3)
        axis.set_ylim(0, 1.03)
        axis.set_xlabel("Ornstein-Uhlenbeck time $t / t_C$")
    left.set_ylabel("probability")
    left.set_title("own point is the nearest, $P_{own}(t)$", fontsize=10)
    right.set_title("last change of the nearest point is later than t (medians dash-dotted)",
                    fontsize=10)  # fmt: skip
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    return figure
