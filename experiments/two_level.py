"""Clustered training sets: clusters and samples are memorised at two times, or both at once.

Training points a = c + b, Gaussian centres c of n_1 clusters and n_2 Gaussian points b in each. A
generalised random energy model says when the empirical score binds a trajectory to a cluster and
to a sample: first the one and then the other, if clusters are few; at one time, if they are many.
Two probabilities are known exactly at every size, because they are error-free probabilities of
random codes: that the own centre is the nearest centre (the points of the cluster act as noise),
and that the own point is the nearest one of its cluster. The posterior weights of the own cluster
and of the own point are laid over the asymptotic times.

Source: Achilli et al. 2025 (2502.09578).
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
from diffjax import processes
from diffjax.noise import normal
from diffjax.posterior_sums import point_blocks, posterior_sums
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, BLUE, GREEN, RED, line, number, points

FAMILIES = {"apart": "few clusters", "together": "many clusters"}
MEASURED = ("centre", "inner", "cluster", "own")


@dataclass(frozen=True)
class Config:
    """Two families of training sets at several dimensions."""

    dims: tuple[int, ...] = option((12, 20, 28), "dimensions", nargs="+", type=int)
    apart: tuple[float, ...] = option(
        (0.1, 0.2, 0.9, 0.35), "alpha_1, alpha_2, sigma_1^2, sigma_2^2 of the few clusters",
        nargs=4, type=float,
    )  # fmt: skip
    together: tuple[float, ...] = option(
        (0.2, 0.1, 0.6, 0.4), "the same of the many clusters", nargs=4, type=float
    )
    times: int = option(9, "times, even in log t around the transitions")
    sets: int = option(60, "independent training sets per time")
    states: int = option(100, "noised points per training set")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"dims": (8, 14), "times": 5, "sets": 30, "states": 60},
    "quick": {"dims": (12, 20), "sets": 40},
    "paper": {},
}  # fmt: skip


def sizes(config: Config) -> list[tuple[str, str, int, int, int, tuple[float, float]]]:
    """``(name, family, dim, n_1, n_2, (sigma_1^2, sigma_2^2))`` of all training sets."""
    if config.sets < 2:
        raise ValueError(f"sets is {config.sets}; errors between sets need at least 2")
    found = []
    for family in FAMILIES:
        first, second, *variances = getattr(config, family)
        for dim in config.dims:
            counts = [max(2, round(np.exp(alpha * dim))) for alpha in (first, second)]
            found.append((f"{family}_d{dim}", family, dim, *counts, tuple(variances)))
    return found


def transition_times(dim: int, n_1: int, n_2: int, variances: tuple[float, float]) -> tuple:
    """Asymptotic times (cluster, sample) at the numbers that were really used."""
    alphas = np.log([n_1, n_2]) / dim
    return tuple(
        map(float, theory.collapse.two_level_collapse_times(alphas, np.asarray(variances)))
    )


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """All four observables at every time, on fresh training sets."""
    measured: dict[str, Any] = {}
    for index, (name, _, *size) in enumerate(sizes(config)):
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        work = partial(_curves, key, tuple(size), config, session.progress(name))
        measured |= {f"{k}_{name}": v for k, v in session.part(name, work).items()}
    return measured


def _curves(key: jax.Array, size: tuple, config: Config, progress: Any) -> Curves:
    """Means over training sets and their standard errors, ``(T,)`` each."""
    later, sooner = transition_times(*size)
    times = np.geomspace(0.45 * sooner, 2.2 * later, config.times)
    found = []
    for i, t in enumerate(times):
        keys = jax.random.split(jax.random.fold_in(key, i), config.sets)
        found.append(_observe(keys, jnp.asarray(t, config.dtype), size, config.states))
        if progress is not None:
            progress(i + 1, config.times)
    values = np.asarray(found, np.float64)  # (T, sets, 4)
    mean, error = values.mean(1), values.std(1, ddof=1) / np.sqrt(config.sets)
    return {
        "times": times,
        **{name: mean[:, k] for k, name in enumerate(MEASURED)},
        **{f"{name}_error": error[:, k] for k, name in enumerate(MEASURED)},
    }


@partial(jax.jit, static_argnames=("size", "states"))
def _observe(keys: jax.Array, t: jax.Array, size: tuple, states: int) -> jax.Array:
    """Averages over the states of each training set, ``(sets, 4)`` in the order of `MEASURED`."""
    dim, n_1, n_2, variances = size
    process = diffjax.ornstein_uhlenbeck()
    scale, std = process.scale(t), process.std(t)

    def one(key: jax.Array) -> jax.Array:
        key_c, key_b, key_own, key_x = jax.random.split(key, 4)
        centres = np.sqrt(variances[0]).astype(t.dtype) * normal(key_c, (n_1, dim), t.dtype)
        spread = np.sqrt(variances[1]).astype(t.dtype)
        inner = centres[:, None] + spread * normal(key_b, (n_1, n_2, dim), t.dtype)
        flat = inner.reshape(n_1 * n_2, dim)
        own = jax.random.randint(key_own, (states,), 0, n_1 * n_2)
        cluster = own // n_2
        x = processes.perturb(key_x, process, flat[own], t)
        nearest_centre = _nearest(x, scale * centres, None)
        member = jnp.arange(n_1 * n_2) // n_2
        nearest_inner = _nearest(x, scale * flat, member == cluster[:, None])
        one_hot = jax.nn.one_hot(member, n_1, dtype=t.dtype)
        # few points in low dimension: rounding is far below the errors
        sums = posterior_sums(
            point_blocks(flat), x, scale, std, values=one_hot, top=0, refine=False
        )
        weights = jnp.take_along_axis(sums.mean, cluster[:, None], 1)[:, 0]
        gap = jnp.sum((x - scale * flat[own]) ** 2, axis=-1) / (2 * std**2)
        log_own = -gap - np.log(n_1 * n_2) - sums.log_normaliser
        observed = (
            nearest_centre == cluster,
            nearest_inner == own,
            weights,
            jnp.exp(log_own),
        )
        return jnp.stack([jnp.mean(v.astype(t.dtype)) for v in observed])

    return jax.lax.map(one, keys)


def _nearest(x: jax.Array, candidates: jax.Array, allowed: jax.Array | None) -> jax.Array:
    """Index of the nearest of the allowed candidates, ``(B,)``; ``allowed`` is ``(B, n)``."""
    product = jnp.matmul(x, candidates.T, precision="highest")
    energy = 0.5 * jnp.sum(candidates**2, axis=-1) - product
    return jnp.argmin(energy if allowed is None else jnp.where(allowed, energy, jnp.inf), axis=1)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """The two exact probabilities, each also with a wrong variance."""
    predicted: dict[str, Any] = {}
    for name, _, dim, n_1, n_2, variances in sizes(config):
        times = measured[f"times_{name}"]
        fine = np.geomspace(times[0], times[-1], 40)
        grid = np.concatenate([times, fine])
        # points of a cluster are noise for the decision between centres
        snr = np.asarray(theory.channel.snr(grid))
        effective = variances[0] / (1 + variances[1] * snr)
        codes = {
            "centre": (n_1, effective), "inner": (n_2, variances[1]),
            "centre_wrong": (n_1, variances[0]), "inner_wrong": (n_2, sum(variances)),
        }  # fmt: skip
        for key, (count, variance) in codes.items():
            curve = theory.collapse.nearest_is_own_probability(grid, np.log(count), dim, variance)
            curve = np.asarray(curve, np.float64)
            predicted[f"{key}_{name}"] = curve[: len(times)]
            predicted[f"{key}_fine_{name}"] = curve[len(times) :]
        predicted[f"fine_times_{name}"] = fine
    return predicted


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Both random codes at all sizes, and with a wrong variance."""
    names = [name for name, *_ in sizes(config)]

    def gather(source: dict[str, Any], key: str) -> np.ndarray:
        return np.concatenate([source[f"{key}_{name}"] for name in names])

    floor, found = 1 / (config.sets * config.states), []
    for key, label, wrong in (
        ("centre", "own centre is the nearest", "points of the cluster not counted as noise"),
        ("inner", "own point is the nearest of its cluster", "variance of the centres added"),
    ):
        value, error = gather(measured, key), gather(measured, f"{key}_error")
        found.append(compare(label, value, error, gather(predicted, key), floor=floor))
        wrong_curve = gather(predicted, f"{key}_wrong")
        found.append(
            compare(f"{label}, {wrong}", value, error, wrong_curve, floor=floor, control=True)
        )
    return found


def crossing(times: np.ndarray, value: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """First time at which a falling weight passes 1/2, and its standard error; NaN without one."""
    below = np.flatnonzero((value[:-1] >= 0.5) & (value[1:] < 0.5))
    if not below.size:
        return float("nan"), float("nan")
    i = below[0]
    logs, drop = np.log(times[i : i + 2]), value[i] - value[i + 1]
    part = (value[i] - 0.5) / drop
    log_time = logs[0] + part * (logs[1] - logs[0])
    spread = np.hypot((1 - part) * error[i], part * error[i + 1]) / drop * (logs[1] - logs[0])
    return float(np.exp(log_time)), float(np.exp(log_time) * spread)


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Where the weights of the own cluster and point pass 1/2, beside the asymptotic times."""
    found = comparisons(config, measured, predicted)
    summary, rows = {}, []
    for name, family, dim, n_1, n_2, variances in sizes(config):
        asymptotic = transition_times(dim, n_1, n_2, variances)
        entry: dict[str, Any] = {
            "dim": dim, "clusters": n_1, "points_per_cluster": n_2, "variances": list(variances),
            "transitions": "two" if asymptotic[0] > asymptotic[1] else "one",
        }  # fmt: skip
        texts = []
        for key, label, limit in zip(("cluster", "own"), ("cluster", "sample"), asymptotic):
            curve = (measured[f"{k}_{name}"] for k in ("times", key, f"{key}_error"))
            value, error = crossing(*curve)
            entry |= {f"{label}_time": limit, f"{label}_crossing": value,
                      f"{label}_crossing_error": error}  # fmt: skip
            texts.append(
                f"{label}: weight 1/2 at {number(value, error)}, d -> infinity {limit:.3f}"
            )
        summary[name] = entry
        label = f"{FAMILIES[family]}, d = {dim}, n = {n_1} x {n_2}"
        rows.append((label, "; ".join(texts)))
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(config: Config, found: list[Comparison], summary: dict[str, Any]) -> str:
    texts = []
    for family, label in FAMILIES.items():
        entry = summary[f"{family}_d{config.dims[-1]}"]
        ratio = entry["cluster_crossing"] / entry["sample_crossing"]
        limit = entry["cluster_time"] / entry["sample_time"]
        texts.append(
            f"with {label} ({entry['clusters']} of {entry['points_per_cluster']} points) the own "
            f"cluster is bound at {ratio:.2f} times the time of the own point ({limit:.2f} in "
            f"large dimension)"
        )
    return (
        f"At d = {config.dims[-1]}, {' and '.join(texts)}; the nearest centre and the nearest "
        f"point of a cluster follow their exact probabilities (reduced chi-square "
        f"{found[0].chi_square:.2f} and {found[2].chi_square:.2f} over {found[0].points} points)."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    texts = {
        "times": "OU times (T,)",
        "centre": "probability that the own centre is the nearest centre (T,)",
        "inner": "probability that the own point is the nearest of its cluster (T,)",
        "cluster": "posterior weight of the own cluster (T,)",
        "own": "posterior weight of the own point (T,)",
        **{f"{name}_error": f"standard error of {name} between training sets" for name in MEASURED},
    }
    theory_texts = {
        "fine_times": "OU times of the theory curves",
        "centre_fine": "exact probability that the own centre is the nearest",
        "inner_fine": "exact probability that the own point is the nearest of its cluster",
    }
    curves: Curves = {}
    axes: dict[str, str] = {}
    for name, family, dim, n_1, n_2, _ in sizes(config):
        for source, words in ((measured, texts), (predicted, theory_texts)):
            for key, text in words.items():
                curves[f"{key}_{name}"] = np.asarray(source[f"{key}_{name}"])
                axes[f"{key}_{name}"] = f"{FAMILIES[family]}, d = {dim}, n = {n_1} x {n_2}: {text}"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Weights of the own cluster and point over time, one panel for each family."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 5), sharey=True, layout="constrained")
    largest = [size for size in sizes(config) if size[2] == config.dims[-1]]
    for axis, (name, family, dim, n_1, n_2, variances) in zip(panels, largest):
        _draw_family(axis, name, measured, predicted)
        limits = transition_times(dim, n_1, n_2, variances)
        for limit, colour, label in zip(limits, (BLUE, RED), ("cluster", "sample")):
            style = "-" if colour == BLUE else "--"
            axis.axvline(limit, color=colour, lw=1, ls=style, label=rf"{label}, $d\to\infty$")
        axis.set_title(f"{FAMILIES[family]}: d = {dim}, n = {n_1} x {n_2}", fontsize=10)
        axis.set_xlabel("Ornstein-Uhlenbeck time t")
        axis.axhline(0.5, color=BLACK, lw=0.6, ls=":")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, ncols=4, loc="outside lower center")
    panels[0].set_ylabel("probability, posterior weight")
    return figure


def _draw_family(axis: Any, name: str, measured: dict, predicted: dict) -> None:
    times = measured[f"times_{name}"]
    for key, label, colour in (
        ("centre", "own centre nearest", GREEN), ("inner", "own point nearest in cluster", BLACK),
    ):  # fmt: skip
        line(axis, predicted[f"fine_times_{name}"], predicted[f"{key}_fine_{name}"],
             f"{label}, exact", colour)  # fmt: skip
        points(axis, times, measured[f"{key}_{name}"], measured[f"{key}_error_{name}"],
               f"{label}, measured", colour, "D")  # fmt: skip
    for key, label, colour, marker in (
        ("cluster", "weight of own cluster", BLUE, "o"), ("own", "weight of own point", RED, "s"),
    ):  # fmt: skip
        points(axis, times, measured[f"{key}_{name}"], measured[f"{key}_error_{name}"], label,
               colour, marker)  # fmt: skip
