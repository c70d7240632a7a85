"""Entropy production of the forward and the generative process: rates, integrals, finite steps.

Two Gaussians in d dimensions at temperature 1. Measured at each time, from exact draws and the
score: production pi = E|x + F|^2, flow phi = E|x|^2 - d, flow of the generative process
phi* = 2 pi - phi, Fisher information I_F = E|F|^2, and the mean squared error of the denoiser. The
theory of all of them is exact; the entropy changes at the rate pi - phi = I_F - d, and I-MMSE,
dI/dsnr = mmse/2, makes the error of the denoiser a derivative of the entropy. The flow phi*
changes sign and has a minimum below the bifurcation of the potential: neither is a transition.

The mean production of forward paths, from their end points, is the integral of pi at any step. That
of generative paths on a grid of steps dt is not: with the heat at the midpoint (a) and against the
reversed kernels (b) it lies O(dt) below, against the noising chain (c) it is a relative entropy,
O(dt) above 0. All three are predicted at every dt by the transfer operator. Averages of exp(-S)
of (b) and (c) are exactly 1 at the same steps: an exact integral theorem does not make the mean
unbiased.

Controls: pi without its constant -2d, phi* with the signs of its two parts exchanged, time in units
of half the relaxation time, and the continuum value for means on a grid.

Source: Yu, Huang 2025 (2405.11932); Guo, Shamai, Verdu 2005 (cs/0412108).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax.diffusion import denoise_at
from diffjax.observables import thermodynamics
from diffjax.observables.estimates import Moments, mean_and_error, merge_moments, moments
from experiments.command_line import option
from experiments.entropy_production_theory import RATES, comparisons, extrema, predict
from experiments.session import Curves, Report, Session
from experiments.style import number

FIELDS = ("midpoint", "kernel", "noising")
__all__ = ["PRESETS", "Config", "predict", "report", "simulate"]


@dataclass(frozen=True)
class Config:
    """Laws of the data, times, steps, and sizes of the simulation."""

    dims: tuple[int, ...] = option((1, 16), "dimensions", nargs="+", type=int)
    mean: float = option(1.0, "distance of a centre from the origin")
    variance: float = option(0.4, "variance of each Gaussian for the rates")
    t_max: float = option(1.5, "largest OU time of the rates")
    times: int = option(16, "OU times of the rates, from 0")
    states: int = option(200_000, "states at each time")
    ends: tuple[float, ...] = option(
        (0.25, 0.5, 1.0), "OU times of the ends of forward paths", nargs="+", type=float
    )
    path_variances: tuple[float, ...] = option(
        (1.0, 0.7), "variance of each Gaussian for generative paths, one for every dimension",
        nargs="+", type=float,
    )  # fmt: skip
    t_final: float = option(1.0, "OU time of the start of generative paths")
    steps: tuple[int, ...] = option(
        (10, 20, 40, 80), "numbers of steps of generative paths", nargs="+", type=int
    )
    paths: int = option(2**18, "forward and generative paths, in batches")
    batch: int = option(2**14, "paths at once")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (1, 8), "times": 8, "states": 30_000, "ends": (0.5, 1.0), "steps": (10, 20),
        "paths": 2**15,
    },
    "quick": {},
    "paper": {"times": 40, "states": 2_000_000, "steps": (10, 20, 40, 80, 160), "paths": 2**21},
}  # fmt: skip


def checked(config: Config) -> None:
    """Refuse sizes that do not fit."""
    if config.paths % config.batch:
        raise ValueError(f"paths is {config.paths}, expected a multiple of batch {config.batch}")
    if 1 not in config.dims or len(config.path_variances) != len(config.dims):
        raise ValueError(
            f"dims is {config.dims}, expected 1 among them and one of path_variances for each"
        )
    if min(config.steps) < 3 * config.t_final:
        raise ValueError(f"steps is {config.steps}: steps of t_final / N above 1/3 are no limit")


def times_of(config: Config) -> np.ndarray:
    """OU times of the rates, closer to each other at the beginning."""
    return config.t_max * np.linspace(0, 1, config.times) ** 1.5


def model_of(dim: int, mean: float, variance: float, dtype: str) -> diffjax.Diffusion:
    """Two balanced Gaussians with centres along all axes."""
    centre = np.full(dim, mean / np.sqrt(dim), dtype)
    data = diffjax.gaussian_mixture(
        [0.5, 0.5], np.stack([centre, -centre]), np.asarray(variance, dtype)
    )
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Rates and errors of the denoiser, ends of forward paths, generative paths."""
    checked(config)
    measured: dict[str, Any] = {"times": times_of(config)}
    plans: dict[str, Callable] = {"rates": _rates, "forward": _forward, "generative": _generative}
    for i, dim in enumerate(config.dims):
        for j, (name, work) in enumerate(plans.items()):
            key = jax.random.fold_in(jax.random.key(config.seed), 10 * i + j)
            label = f"{name}-d{dim}"
            found = session.part(label, partial(work, key, dim, config, session.progress(label)))
            measured |= {f"{k}_d{dim}": v for k, v in found.items()}
    return measured


def _rates(key: jax.Array, dim: int, config: Config, progress: Any) -> Curves:
    """Rates ``(2, T)``; squared errors of the denoiser at the positive times."""
    model = model_of(dim, config.mean, config.variance, config.dtype)
    key_rates, key_error = jax.random.split(key)
    times = times_of(config)
    near = extrema(config) if dim == 1 else {}
    every = np.concatenate([times, *near.values()])
    found = thermodynamics.rates(key_rates, model, every, config.states)
    curves = {name: np.stack(getattr(found, name))[:, : config.times] for name in RATES}
    parts = np.split(np.stack(found.reverse_flow)[:, config.times :], max(len(near), 1), axis=1)
    curves |= dict(zip(near, parts))
    error = _errors(key_error, model, jnp.asarray(times[1:]), config.states)
    curves["mmse"] = np.stack(error)
    if progress is not None:
        progress(1, 1)
    return {name: np.asarray(values, float) for name, values in curves.items()}


@partial(jax.jit, static_argnames="n")
def _errors(key: jax.Array, model: Any, times: jax.Array, n: int) -> Any:
    """``E|a - D(x, t)|^2`` at each time, from clean data and their noised states."""

    def level(item: tuple[jax.Array, jax.Array]) -> Any:
        i, t = item
        key_data, key_noise = jax.random.split(jax.random.fold_in(key, i))
        a = model.data.sample(key_data, n)
        t = t.astype(a.dtype)
        x = diffjax.processes.perturb(key_noise, model.process, a, t)
        return mean_and_error(jnp.sum(jnp.square(a - denoise_at(model, x, t)), axis=-1))

    return jax.lax.map(level, (jnp.arange(times.shape[0]), times))


@jax.jit
def _moments(values: jax.Array) -> Moments:
    return moments(values.astype(float))


def _average(key: jax.Array, config: Config, work: Callable) -> np.ndarray:
    """Mean and error over all batches of what ``work(key)`` makes moments of, ``(2, ...)``."""
    count = config.paths // config.batch
    found = [work(jax.random.fold_in(key, i)) for i in range(count)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *found)
    return np.stack(merge_moments(stacked))


def _forward(key: jax.Array, dim: int, config: Config, progress: Any) -> Curves:
    """Mean production of forward paths, ``(2, ends)``."""
    model = model_of(dim, config.mean, config.variance, config.dtype)
    rows = []
    for i, t in enumerate(config.ends):

        def work(key: jax.Array, t: float = t) -> Moments:
            key_start, key_path = jax.random.split(key)
            x = model.sample(key_start, 0.0, config.batch)
            end, _ = diffjax.forward(key_path, model.process, x, [0.0, t])
            return _moments(thermodynamics.end_point_production(model, x, end, 0.0, t))

        rows.append(_average(jax.random.fold_in(key, i), config, work))
        if progress is not None:
            progress(i + 1, len(config.ends))
    return {"forward": np.stack(rows, axis=-1)}


def _generative(key: jax.Array, dim: int, config: Config, progress: Any) -> Curves:
    """Means and averages of exp(-S), ``(2, 3, steps)``; rows (a), (b), (c)."""
    variance = config.path_variances[config.dims.index(dim)]
    model = model_of(dim, config.mean, variance, config.dtype)
    means, averages = [], []
    for i, steps in enumerate(config.steps):
        grid = np.linspace(config.t_final, 0, steps + 1)

        def work(key: jax.Array, grid: np.ndarray = grid) -> Moments:
            found = thermodynamics.path_entropy_production(key, model, grid, config.batch)
            values = jnp.stack(found, axis=-1).astype(float)
            return _moments(jnp.concatenate([values, jnp.exp(-values)], axis=-1))

        found = _average(jax.random.fold_in(key, i), config, work)
        means.append(found[:, :3])
        averages.append(found[:, 3:])
        if progress is not None:
            progress(i + 1, len(config.steps))
    return {"means": np.stack(means, axis=-1), "averages": np.stack(averages, axis=-1)}


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Integral of the rate, bias at every step, zero and minimum of the generative flow."""
    from experiments.entropy_production_figure import draw

    found = comparisons(config, measured, predicted)
    rows: list[tuple[str, str]] = []
    summary: dict[str, Any] = {}

    def entry(label: str, value: Any, error: Any, theory: Any) -> None:
        value, error, theory = (float(v) for v in (value, error, theory))
        summary[label] = {"value": value, "error": error, "theory": theory}
        rows.append((label, f"{number(value, error)}, theory {theory:.5f}"))

    for dim in config.dims:
        for i, t in enumerate(config.ends):
            label = f"d = {dim}: forward production to t = {t:g}"
            entry(label, *measured[f"forward_d{dim}"][:, i], predicted[f"forward_d{dim}"][i])
        for i, steps in enumerate(config.steps):
            for j, name in enumerate(FIELDS):
                label = f"d = {dim}, dt = {config.t_final / steps:g}: mean, {name}"
                cell = measured[f"means_d{dim}"][:, j, i]
                entry(label, *cell, predicted[f"means_d{dim}"][j, i])
                if name != "noising":
                    low = 1 - cell[0] / predicted[f"continuum_d{dim}"]
                    rows[-1] = (label, f"{rows[-1][1]}, {100 * low:.2g}% below the continuum")
    for name in ("zero", "minimum"):
        entry(f"phi* {name}, time", *predicted[f"{name}_found"], predicted[f"{name}_fit"])
        rows[-1] = (rows[-1][0], f"{rows[-1][1]} (exact {predicted[name]:.5f})")
        summary[f"phi* {name}, time"]["exact"] = float(predicted[name])
    depth = predicted["depth_found"], predicted["depth_fit"]
    entry("phi* minimum, value", *depth[0], depth[1])
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, measured, predicted), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _arrays(config: Config, measured: Any, predicted: Any) -> tuple[Curves, dict[str, str]]:
    axes = {
        "times": "OU times of the rates (T,)",
        "ends": "OU times of the ends of forward paths (E,)",
        "steps": "sizes of the steps of generative paths, OU time (S,)",
    }
    curves: Curves = {
        "times": measured["times"], "ends": np.asarray(config.ends),
        "steps": config.t_final / np.asarray(config.steps),
    }  # fmt: skip
    for dim in config.dims:
        for name in RATES:
            curves[f"{name}_d{dim}"] = measured[f"{name}_d{dim}"]
            axes[f"{name}_d{dim}"] = f"{name}: mean and error at each time, nats per OU time (2, T)"
        for name, text in (
            ("mmse", "squared error of the denoiser and its error at times[1:] (2, T - 1)"),
            ("forward", "production of forward paths in nats, and error (2, E)"),
            ("means", "production of generative paths (a), (b), (c) in nats, and error (2, 3, S)"),
            ("averages", "their averages of exp(-S), and error (2, 3, S)"),
        ):
            curves[f"{name}_d{dim}"] = measured[f"{name}_d{dim}"]
            axes[f"{name}_d{dim}"] = text
        curves[f"means_theory_d{dim}"] = predicted[f"means_d{dim}"]
        axes[f"means_theory_d{dim}"] = "means of generative paths by the transfer operator (3, S)"
    return curves, axes


def _finding(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> str:
    dim = config.dims[0]
    step = config.t_final / config.steps[0]
    exact = predicted[f"continuum_d{dim}"]
    low, other = (1 - measured[f"means_d{dim}"][0, j, 0] / exact for j in range(2))
    kernel = measured[f"averages_d{dim}"][:, 1, 0]
    flow = predicted["zero_found"], predicted["minimum_found"]
    last = measured[f"forward_d{dim}"][:, -1]
    return (
        f"Forward paths to t = {config.ends[-1]:g} produce {number(*last)} nats in d = {dim}, the "
        f"integral of the rate ({predicted[f'forward_d{dim}'][-1]:.4f}); generative paths in steps "
        f"of {step:g} come out {100 * low:.1f}% (midpoint) and {100 * other:.1f}% (reversed "
        f"kernels) below the continuum, as the transfer operator says, although exp(-S) of the "
        f"latter averages to {number(*kernel)}; the flow of the generative process changes sign at "
        f"t = {number(*flow[0])} and is lowest at {number(*flow[1])}."
    )
