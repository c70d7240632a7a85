"""Four one-dimensional mixtures: class information sampled, tracked, and by quadrature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.class_information as exact
from diffjax import schedules
from diffjax.observables.class_information import class_information
from diffjax.observables.class_tracker import track_classes
from experiments.comparison import Comparison, compare
from experiments.session import Curves

# weights, means, standard deviations
MIXTURES: dict[str, tuple[tuple[float, ...], ...]] = {
    "A": ((0.5, 0.5), (-1.0, 1.0), (0.25, 0.25)),
    "B": ((0.3, 0.7), (-1.0, 1.0), (0.2, 0.4)),
    "C": ((0.25, 0.35, 0.4), (-2.0, 0.0, 1.5), (0.3, 0.2, 0.4)),
    "D": ((0.25, 0.25, 0.25, 0.25), (-2.2, -1.8, 1.8, 2.2), (0.1, 0.1, 0.1, 0.1)),
}
FEW = 50  # steps at which the wrong variance shows
NUDGE = 0.15  # relative half-width of the finite differences


def mixture(name: str) -> tuple[np.ndarray, ...]:
    """Weights, means and variances."""
    weights, means, deviations = map(np.asarray, MIXTURES[name])
    return weights, means, deviations**2


def ddpm_grid(steps: int) -> np.ndarray:
    """Times of ``steps`` equally spaced indices of the DDPM schedule, from 999 down to 0."""
    schedule = np.asarray(schedules.ddpm_linear(), np.float64)
    return schedule[np.round(np.linspace(len(schedule) - 1, 0, steps)).astype(int)]


def tracked_places(steps: int, count: int) -> np.ndarray:
    """Positions on the grid at which independent runs are read, even in log t."""
    grid = ddpm_grid(steps)
    wanted = np.geomspace(0.05, 2.0, count)
    return np.unique([np.argmin(np.abs(np.log(grid / t))) for t in wanted])[::-1]


def measure(key: jax.Array, name: str, config: Any) -> Curves:
    """Sampled and tracked entropies and rates of one mixture; every point is independent."""
    weights, means, variances = mixture(name)
    data = diffjax.gaussian_mixture(weights, means[:, None].astype(config.dtype), variances)
    model = diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())
    keys = jax.random.split(key, 4)
    times = np.geomspace(0.05, 2.0, config.times).astype(config.dtype)
    fresh = class_information(keys[0], model, times, samples=config.states)
    ends = [
        class_information(k, model, times * factor, samples=config.states).entropy
        for k, factor in zip(jax.random.split(keys[1]), (1 + NUDGE, 1 - NUDGE))
    ]
    width = 2 * NUDGE * times
    found: Curves = {
        "times": times,
        **_both("entropy", fresh.entropy), **_both("rate", fresh.rate),
        **_both("class_loss_rate", fresh.class_loss_rate),
        "difference": (ends[0].mean - ends[1].mean) / width,
        "difference_error": np.hypot(ends[0].error, ends[1].error) / width,
    }  # fmt: skip
    found |= _tracked(keys[2], model, config)
    return found | _wrong(keys[3], model, config)


def _both(name: str, estimate: Any) -> Curves:
    return {name: np.asarray(estimate.mean), f"{name}_error": np.asarray(estimate.error)}


def _tracked(key: jax.Array, model: Any, config: Any) -> Curves:
    """One run of trajectories for every point that is read."""
    places = tracked_places(config.steps, config.tracked)
    grid = jnp.asarray(ddpm_grid(config.steps), config.dtype)
    runs = [
        track_classes(jax.random.fold_in(key, int(i)), model, grid, samples=config.paths,
                      batch=config.paths)
        for i in places
    ]  # fmt: skip
    found: Curves = {"tracked_times": np.asarray(grid)[places]}
    for name in ("entropy", "rate"):
        pairs = [(getattr(run, name), i) for run, i in zip(runs, places)]
        found[f"tracked_{name}"] = np.array([e.mean[i] for e, i in pairs])
        found[f"tracked_{name}_error"] = np.array([e.error[i] for e, i in pairs])
    found["grid"] = np.asarray(grid)
    found["posterior_rms"] = np.sqrt(
        np.mean([np.square(np.asarray(run.posterior_rms)) for run in runs], axis=0)
    )
    return found


def _wrong(key: jax.Array, model: Any, config: Any) -> Curves:
    """Few steps, forward variance: divided by itself, and by the variance of the bridge."""
    grid = jnp.asarray(ddpm_grid(FEW), config.dtype)
    found: Curves = {"few_grid": np.asarray(grid)}
    for name, ratio in (("matched", None), ("mismatched", "bridge")):
        run = track_classes(key, model, grid, samples=config.paths, batch=config.paths,
                            step_variance="forward", ratio_variance=ratio)  # fmt: skip
        found[f"{name}_rms"] = np.asarray(run.posterior_rms)
        found[f"{name}_loss"] = np.asarray(run.class_loss.mean[-1])
        found[f"{name}_loss_error"] = np.asarray(run.class_loss.error[-1])
    return found


def predict(name: str, measured: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured, by quadrature, and peaks of the rate on three clocks."""
    weights, means, variances = mixture(name)
    times = np.asarray(measured["times"], np.float64)
    parts = {
        "": times, "after": times * (1 + NUDGE), "before": times * (1 - NUDGE),
        "tracked": np.asarray(measured["tracked_times"], np.float64),
        "fine": np.geomspace(0.02, 3.0, 80),
    }  # fmt: skip
    grid, ends = np.concatenate(list(parts.values())), np.cumsum([len(t) for t in parts.values()])
    equal = np.full(len(weights), 1 / len(weights))
    curves = {
        "entropy": exact.entropy(grid, weights, means, variances),
        "rate": exact.entropy_rate(grid, weights, means, variances),
        "balanced": exact.entropy(grid, equal, means, variances),
    }
    # one call for all times: every shape is a compilation
    cut = {
        key: dict(zip(parts, np.split(np.asarray(curve), ends[:-1])))
        for key, curve in curves.items()
    }
    found = {f"{part}_{key}".lstrip("_"): v for key in cut for part, v in cut[key].items()}
    found["fine"] = parts["fine"]
    found["difference"] = (found["after_entropy"] - found["before_entropy"]) / (2 * NUDGE * times)
    last = float(measured["few_grid"][-1])
    found["last_loss"] = np.asarray(exact.class_losses(last, weights, means, variances))
    peaks = (exact.peak, exact.vp_index_peak, exact.log_sigma_peak)
    found["peaks"] = np.array([peak(weights, means, variances).t for peak in peaks])
    return found


def comparisons(
    names: tuple[str, ...], measured: dict[str, dict], predicted: dict[str, dict]
) -> list[Comparison]:
    """Five exact overlays of all mixtures together and two controls."""

    def gather(source: dict[str, dict], key: str, chosen: tuple[str, ...] = names) -> np.ndarray:
        return np.concatenate([np.ravel(source[name][key]) for name in chosen])

    def overlay(label: str, key: str) -> Comparison:
        value, error = gather(measured, key), gather(measured, f"{key}_error")
        return compare(label, value, error, gather(predicted, key))

    found = [
        overlay("entropy of the class, sampled", "entropy"),
        overlay("its rate, mean squared guidance", "rate"),
        overlay("its rate, finite differences of sampled entropies", "difference"),
        overlay("entropy of the class, tracked along trajectories", "tracked_entropy"),
        overlay("its rate, tracked along trajectories", "tracked_rate"),
    ]
    unequal = tuple(name for name in names if len(set(MIXTURES[name][0])) > 1)
    if unequal:
        value, error = (
            gather(measured, "entropy", unequal),
            gather(measured, "entropy_error", unequal),
        )
        found.append(
            compare("entropy for equal prior weights", value, error,
                    gather(predicted, "balanced", unequal), control=True)
        )  # fmt: skip
    found.append(
        compare(
            f"class loss after {FEW} steps, forward kernel divided by the bridge's variance",
            gather(measured, "mismatched_loss"), gather(measured, "mismatched_loss_error"),
            gather(predicted, "last_loss"), control=True,
        )
    )  # fmt: skip
    return found
