"""Overlap of a datum with posterior samples: measured histograms and Franz-Parisi potentials.

A state x is made from a datum a and sent back to a clean sample a'. The two are exchangeable, and
the law of their overlap q = a.a'/E|a|^2 is known exactly for Gaussian data and mixtures of any
size and for small magnets. Three things are said of it:

* -log(histogram)/d is an annealed potential: the histogram runs over states as well. The
  Franz-Parisi potential averages the logarithm at a fixed state; the variance of q at a fixed state
  is its inverse curvature. Both have the same minimum.
* For an empirical measure of e^(alpha d) points the potential of the other points is measured from
  their Boltzmann weights, slice by slice of overlap; the own point sits alone at q = 1 with
  V(1) = 1/2. The two minima cross at the collapse time, a first-order transition.
* The one-dimensional potential of the source's figure is a function of the SQUARED distance. Its
  second minimum depends on that choice of variable, and detects no transition.

Source: Yu, Huang 2025 (2405.11932); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import diffjax
from diffjax import Diffusion, processes
from experiments.command_line import option
from experiments.comparison import Comparison
from experiments.franz_parisi_figure import draw
from experiments.franz_parisi_theory import FIGURE, comparisons, predictions
from experiments.session import Curves, Report, Session
from experiments.style import number

FAMILIES = ("gaussian", "mixture", "spins", "magnet")
"""Data whose overlaps are sampled; ``spins`` is the small magnet that is exact."""


@dataclass(frozen=True)
class Config:
    """Data, times and effort."""

    dim: int = option(32, "dimension of the Gaussian data and of the mixture")
    variance: float = option(0.7, "variance per coordinate")
    mean_norm: float = option(5.0, "norm of the centres of the mixture")
    beta: float = option(1.5, "inverse temperature of the magnets")
    spins: int = option(4, "spins of the small magnet, whose law is exact (5 at most)")
    magnet: int = option(256, "spins of the large magnet, compared with mean field")
    times: tuple[float, ...] = option((0.3, 0.6, 1.2), "OU times", nargs="+", type=float)
    magnet_times: tuple[float, ...] = option(
        (1.2, 2.0, 2.6), "as many OU times of the large magnet", nargs="+", type=float
    )
    pairs: int = option(40_000, "data with two posterior samples each, at every time")
    alpha: float = option(0.25, "log n / d of the empirical measure")
    cloud_variance: float = option(0.4, "variance per coordinate of its points")
    cloud_dims: tuple[int, ...] = option((16, 24, 32), "its dimensions", nargs="+", type=int)
    cloud_times: tuple[float, ...] = option(
        (0.12, 0.18, 0.24, 0.3, 0.4, 0.5), "OU times; the last one is shown slice by slice",
        nargs="+", type=float,
    )  # fmt: skip
    sets: int = option(150, "independent point clouds")
    states: int = option(20, "states of each cloud")
    draws: int = option(20_000, "states for each value of the one-dimensional potential")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "pairs": 8000, "magnet": 64, "cloud_dims": (22,), "sets": 60, "draws": 4000,
        "cloud_times": (0.15, 0.24, 0.35, 0.5), "times": (0.3, 1.2),
        "magnet_times": (1.2, 1.9),
    },
    "quick": {},
    "paper": {
        "pairs": 1_000_000, "sets": 1000, "cloud_dims": (16, 24, 32, 40), "draws": 200_000,
        "times": (0.15, 0.3, 0.6, 0.9, 1.2, 1.8), "magnet_times": (0.6, 1.2, 1.6, 2.0, 2.3, 2.6),
    },
}  # fmt: skip


def model_of(family: str, config: Config) -> Diffusion:
    """Data of one family, seen through the Ornstein-Uhlenbeck process."""
    if family in ("spins", "magnet"):
        data: Any = diffjax.curie_weiss(getattr(config, family), config.beta, dtype=config.dtype)
    else:
        centre = np.zeros((1, config.dim), config.dtype)
        centre[0, 0] = config.mean_norm * (family == "mixture")
        # one Gaussian is two at the same place, so that both share a compilation
        data = diffjax.gaussian_mixture(
            np.ones(2), np.concatenate([centre, -centre]), config.variance
        )
    return Diffusion(data, diffjax.ornstein_uhlenbeck())


def square_of(family: str, config: Config) -> float:
    """Mean squared norm of a datum."""
    if family in ("spins", "magnet"):
        return float(getattr(config, family))
    shift = config.mean_norm**2 if family == "mixture" else 0.0
    return config.dim * config.variance + shift


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Overlaps of all families, slices of the point clouds, and the one-dimensional potential."""
    if len(config.magnet_times) != len(config.times):
        raise ValueError(
            f"magnet_times has {len(config.magnet_times)} entries; pass {len(config.times)} times, "
            "as many as of the other data"
        )
    key = jax.random.key(config.seed)
    measured: dict[str, Any] = {}
    for index, family in enumerate(FAMILIES):
        work = partial(_overlaps, jax.random.fold_in(key, index), family, config)
        measured |= {f"{k}_{family}": v for k, v in session.part(family, work).items()}
    for dim in config.cloud_dims:
        work = partial(
            _clouds, jax.random.fold_in(key, 1000 + dim), dim, config,
            session.progress(f"clouds, d = {dim}"),
        )  # fmt: skip
        measured |= {f"{k}_d{dim}": v for k, v in session.part(f"clouds_d{dim}", work).items()}
    work = partial(_scalar, jax.random.fold_in(key, 10), config)
    return measured | session.part("scalar", work)


def _overlaps(key: jax.Array, family: str, config: Config) -> Curves:
    """Overlaps of datum and replicas, ``(T, pairs)``, and averages with errors ``(T,)``."""
    model, square = model_of(family, config), square_of(family, config)
    found = []
    for i, t in enumerate(config.magnet_times if family == "magnet" else config.times):
        values = _replicas(jax.random.fold_in(key, i), model, jnp.asarray(t, config.dtype), config)
        found.append([np.asarray(v, np.float64) / square for v in values])
    own, second, denoised, wrong, apart = np.swapaxes(np.asarray(found), 0, 1)
    width = 0.5 * (own - second) ** 2
    curves = {"q": own}
    for name, values in (
        ("mean", own), ("denoised", denoised), ("wrong", wrong), ("width", width),
        ("apart", apart),
    ):  # fmt: skip
        curves[name] = values.mean(1)
        curves[f"{name}_error"] = values.std(1, ddof=1) / math.sqrt(config.pairs)
    return curves


@partial(jax.jit, static_argnames="config")
def _replicas(key: jax.Array, model: Diffusion, t: jax.Array, config: Config) -> tuple:
    """Products of each datum with two posterior samples, squared denoiser, and two controls.

    The denoiser is averaged over states of its own, so that its mean is independent.
    """
    keys = jax.random.split(key, 7)
    n, scale, std = config.pairs, model.process.scale(t), model.process.std(t)
    a = model.data.sample(keys[0], n)
    x = processes.perturb(keys[1], model.process, a, t)
    first, second = (model.data.sample_posterior(k, x, scale, std) for k in keys[2:4])
    # control: the posterior of a channel with twice the noise variance
    hot = model.data.sample_posterior(keys[4], x, scale, math.sqrt(2) * std)
    other = processes.perturb(keys[5], model.process, model.data.sample(keys[6], n), t)
    mean = model.data.denoise(other, scale, std)
    return tuple(
        jnp.sum(u * v, axis=-1)
        for u, v in ((a, first), (a, second), (mean, mean), (a, hot), (a, jnp.roll(a, 1, axis=0)))
    )


def edges_of(config: Config) -> np.ndarray:
    """Ends of the slices of overlap with the own point, within those that hold points."""
    reach = 0.9 * math.sqrt(2 * config.alpha)
    return np.linspace(-reach, reach, 15)


def _clouds(key: jax.Array, dim: int, config: Config, progress: Any) -> Curves:
    """What `_observe_clouds` returns, with the leading axes (times, sets, states)."""
    found = []
    for i, t in enumerate(config.cloud_times):
        keys = jax.random.split(jax.random.fold_in(key, i), config.sets)
        found.append(_observe_clouds(keys, jnp.asarray(t, config.dtype), dim, config))
        if progress is not None:
            progress(i + 1, len(config.cloud_times))
    return {name: np.stack([np.asarray(each[name]) for each in found]) for name in found[0]}


@partial(jax.jit, static_argnames=("dim", "config"))
def _observe_clouds(keys: jax.Array, t: jax.Array, dim: int, config: Config) -> dict:
    """Boltzmann sums of the slices and of the own point for each state, ``(sets, states)``."""
    process, variance = diffjax.ornstein_uhlenbeck(), config.cloud_variance
    n = max(2, round(math.exp(config.alpha * dim)))
    edges = jnp.asarray(edges_of(config), t.dtype)

    def one(key: jax.Array) -> dict[str, jax.Array]:
        key_points, key_own, key_x = jax.random.split(key, 3)
        points = math.sqrt(variance) * jax.random.normal(key_points, (n, dim), t.dtype)
        cloud = Diffusion(diffjax.point_cloud(points), process)
        own = jax.random.randint(key_own, (config.states,), 0, n)
        x = processes.perturb(key_x, process, points[own], t)
        scale, std = process.scale(t), process.std(t)
        log_w = cloud.data.index_log_weights(x, scale, std)
        log_sum = cloud.data.log_normaliser(x, scale, std) + math.log(n)
        log_sum = log_sum + 0.5 * dim * jnp.log(2 * math.pi * std**2)
        overlap = jnp.matmul(points[own], points.T, precision="highest") / (dim * variance)
        is_own = jax.nn.one_hot(own, n, dtype=bool)
        index = jnp.where(is_own, -1, jnp.searchsorted(edges, overlap) - 1)
        slices = jax.vmap(
            lambda k: logsumexp(jnp.where(index == k, log_w, -jnp.inf), axis=1), out_axes=1
        )(jnp.arange(edges.size - 1))
        own_log = jnp.take_along_axis(log_w, own[:, None], 1)[:, 0]
        return {
            "slices": slices + log_sum[:, None],
            "own": own_log + log_sum,
            "own_weight": jnp.exp(own_log),
            "own_square": jnp.sum(points[own] ** 2, axis=1),
            "state_square": jnp.sum(x**2, axis=1),
            "product": jnp.sum(points[own] * x, axis=1),
        }

    return jax.lax.map(one, keys)


def _scalar(key: jax.Array, config: Config) -> Curves:
    """One-dimensional potential from densities of the simulator, ``(T, Q)``, fresh states each."""
    times, q = FIGURE["times"], FIGURE["q"]
    data = diffjax.gaussian_mixture(
        np.ones(2), FIGURE["mean"] * np.array([[1.0], [-1.0]], config.dtype), FIGURE["variance"]
    )
    model = Diffusion(data, diffjax.ornstein_uhlenbeck())
    found = []
    for i, t in enumerate(times):
        keys = jax.random.split(jax.random.fold_in(key, i), len(q))
        values = _scalar_values(
            keys, model, jnp.asarray(q, config.dtype), jnp.asarray(t, config.dtype), config.draws
        )
        found.append(np.asarray(values, np.float64))
    values = np.asarray(found)  # (T, Q, draws)
    error = values.std(-1, ddof=1) / math.sqrt(config.draws)
    return {"scalar": values.mean(-1), "scalar_error": error}


@partial(jax.jit, static_argnames="draws")
def _scalar_values(
    keys: jax.Array, model: Diffusion, q: jax.Array, t: jax.Array, draws: int
) -> jax.Array:
    def one(item: tuple[jax.Array, jax.Array]) -> jax.Array:
        key, q = item
        key_a, key_x = jax.random.split(key)
        a = model.data.sample(key_a, draws)
        x = processes.perturb(key_x, model.process, a, t)
        scale, variance = model.process.scale(t), model.process.variance(t)

        def minus_energy(moved: jax.Array) -> jax.Array:
            gap = jnp.sum((x - scale * moved) ** 2, axis=-1) / (2 * variance)
            return model.data.log_normaliser(moved, jnp.ones_like(t), jnp.zeros_like(t)) - gap

        step = jnp.sqrt(q)
        both = jnp.logaddexp(minus_energy(a + step), minus_energy(a - step))
        return jnp.log(2 * step) - both

    return jax.lax.map(one, (keys, q))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Laws of the overlap, potentials, and the controls."""
    return predictions(config, measured, edges_of(config))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Comparisons, crossing of the two minima, second minima of the scalar potential."""
    found = comparisons(config, measured, predicted)
    crossing = _crossings(config, measured)
    minima = predicted["second_minimum"]
    table = [
        (f"own point holds half of the posterior, d = {dim}",
         f"t = {number(value, error)}; d -> infinity {predicted['collapse_time']:.4f}")
        for dim, (value, error) in crossing.items()
    ]  # fmt: skip
    table += [
        ("second minimum of the scalar potential", f"exists above t = {minima[0]:.4f} in q, above "
         f"{minima[1]:.4f} in sqrt(q)"),
        ("width at a fixed state / width of the histogram, Gaussian",
         ", ".join(f"{v:.3f} at t = {t:g}" for v, t in zip(_narrowing(measured), config.times))),
    ]  # fmt: skip
    summary = {
        "second_minimum_times": {"q": minima[0], "sqrt_q": minima[1]},
        "collapse_time": predicted["collapse_time"],
        "own_weight_half": {str(d): list(v) for d, v in crossing.items()},
    }
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, crossing, predicted), table=table, summary=summary,
        curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _narrowing(measured: dict[str, Any]) -> np.ndarray:
    """Standard deviation at a fixed state over that of the histogram."""
    return np.sqrt(measured["width_gaussian"]) / measured["q_gaussian"].std(1)


def _crossings(config: Config, measured: dict[str, Any]) -> dict[int, tuple[float, float]]:
    """Time at which the mean posterior weight of the own point is 1/2, by dimension."""
    from diffjax.observables.estimates import crossing

    found = {}
    for dim in config.cloud_dims:
        weight = measured[f"own_weight_d{dim}"].astype(np.float64).mean(-1)  # (T, sets)
        error = weight.std(1, ddof=1) / math.sqrt(config.sets)
        found[dim] = crossing(config.cloud_times, weight.mean(1), error, 0.5)
    return found


def _finding(
    config: Config, found: list[Comparison], crossing: dict, predicted: dict[str, Any]
) -> str:
    by_name = {c.name: c for c in found}
    gaussian = by_name["histogram of overlaps, Gaussian"]
    mixture = by_name["histogram of overlaps, mixture"]
    spins = by_name["histogram of overlaps, small magnet"]
    dim = config.cloud_dims[-1]
    minima = predicted["second_minimum"]
    return (
        f"Overlaps of a datum and a posterior sample follow their exact laws (reduced chi-square "
        f"{gaussian.chi_square:.2f} for a Gaussian, {mixture.chi_square:.2f} for two, "
        f"{spins.chi_square:.2f} for {config.spins} spins); the histogram over states is wider "
        f"than the Franz-Parisi potential, which holds at a fixed state, and both have one "
        f"minimum; with n = exp({config.alpha:g} d) points the own point at overlap 1 holds half "
        f"of the posterior at t = {number(*crossing[dim])} for d = {dim}, where the potentials of "
        f"both minima cross in large dimension at t = {predicted['collapse_time']:.3f}; the second "
        f"minimum of the one-dimensional potential disappears at t = {minima[0]:.3f} as a function "
        f"of the squared distance and at {minima[1]:.3f} as one of the distance, so that it marks "
        f"no transition."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}
    for family in FAMILIES:
        for name, text in (
            ("mean", "mean overlap of datum and posterior sample (T,)"),
            ("mean_error", "its standard error"),
            ("denoised", "squared denoiser over E|a|^2 (T,)"),
            ("width", "variance of the overlap at a fixed state (T,)"),
        ):
            curves[f"{name}_{family}"] = measured[f"{name}_{family}"]
            axes[f"{name}_{family}"] = f"{family}: {text}"
        for name in ("edges", "density", "law"):
            curves[f"{name}_{family}"] = np.asarray(predicted[f"{name}_{family}"])
            axes[f"{name}_{family}"] = f"{family}: {name} of the histogram of overlaps"
    texts = {
        "scalar": "one-dimensional potential (time, q) of the simulator",
        "scalar_error": "its standard error",
        "scalar_theory": "one-dimensional potential by quadrature",
        "slice_dim": "dimension of each slice that holds points in every state (K,)",
        "slice_q": "middle of the slice",
        "slice_potential": "measured potential of the slice at the largest time [nats]",
        "slice_potential_error": "its standard error",
        "slice_annealed": "exact annealed potential of the slice",
        "slice_theory": "potential of the random energy model",
    }
    used = np.isfinite(predicted["slice_potential"])  # (d, S)
    dims = np.asarray(config.cloud_dims)[:, None]
    rows = {"slice_dim": dims, **predicted}
    for name, text in texts.items():
        values = np.asarray((measured | rows)[name])
        curves[name] = np.broadcast_to(values, used.shape)[used] if "slice" in name else values
        axes[name] = text
    return curves, axes
