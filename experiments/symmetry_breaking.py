"""Spontaneous symmetry breaking: fixed points of the generative drift and when they lose stability.

Fixed points of two deltas, of a circle and of a mixture of ten Gaussians are continued numerically
from noise to data, by Newton's method with the exact Jacobian, and laid over the self-consistency
of a magnet. The critical time of the centre depends on the dynamics (reverse SDE, probability
flow, curvature of the log density), so each number names its criterion. For the mixture, whose
centre is no symmetric point, stable fixed points are counted from many starts.

The published notebook integrates the drift with the wrong sign of its linear part. End points
still look right; second and fourth moments on the way do not, which is the control.

Source: Raya, Ambrogioni 2023 (2305.19693).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.speciation
import theory.symmetry_breaking as breaking
from diffjax import schedules
from diffjax.diffusion import score_model
from diffjax.noise import normal
from diffjax.observables import stability
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import number

CRITERIA = {"sde": 1.0, "ode": 0.0, "log_density": 1e9}  # noise of the drift
PATH = (-0.2 * np.pi, 0.7 * np.pi)


@dataclass(frozen=True)
class Config:
    """Grids of times and sizes of the ensembles."""

    times: int = option(60, "times on each branch")
    indices: tuple[int, ...] = option(
        (520, 500, 480, 470, 460, 450, 440, 430, 400, 350, 300),
        "step indices at which stable points of the mixture are counted",
        nargs="+",
        type=int,
    )
    starts: int = option(500, "starts of each count")
    walkers: int = option(20_000, "trajectories per time of the moments")
    steps: int = option(1000, "Euler steps of a trajectory")
    stops: tuple[float, ...] = option(
        (0.7, 0.6, 0.5, 0.4, 0.3, 0.2),
        "indices s at which trajectories stop",
        nargs="+",
        type=float,
    )
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "times": 20,
        "indices": (500, 430, 300),
        "starts": 200,
        "walkers": 5000,
        "steps": 500,
        "stops": (0.5, 0.3),
    },
    "quick": {},
    "paper": {"times": 200, "starts": 5000, "walkers": 200_000, "steps": 4000},
}


def mixture(dtype: Any = np.float64) -> tuple[diffjax.Diffusion, np.ndarray, np.ndarray]:
    """Ten equal components in 16 dimensions with unit mean variance, centres and covariance."""
    centres = np.random.default_rng(0).standard_normal((10, 16))
    centres -= centres.mean(0)
    covariance = centres.T @ centres / 10 + 0.15**2 * np.eye(16)
    size = np.sqrt(np.trace(covariance) / 16)
    centres = centres / size + 0.3
    data = diffjax.gaussian_mixture(
        jnp.ones(10, dtype), jnp.asarray(centres, dtype), jnp.asarray((0.15 / size) ** 2, dtype)
    )
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck()), centres, covariance / size**2


def circle(radius: float, points: int) -> diffjax.Diffusion:
    """Points evenly on a circle: its posterior up to an error of order ``I_points(z)``."""
    angle = 2 * np.pi * np.arange(points) / points
    places = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return diffjax.Diffusion(diffjax.point_cloud(places), diffjax.ornstein_uhlenbeck())


def two_deltas(size: float = 1.0) -> diffjax.Diffusion:
    """The points +size and -size."""
    points = np.array([[size], [-size]])
    return diffjax.Diffusion(diffjax.point_cloud(points), diffjax.ornstein_uhlenbeck())


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Branches of symmetric data, the mixture, and moments on the way."""
    measured = dict(session.part("branches", partial(_branches, config)))
    measured |= session.part("criteria", _criteria)
    measured |= session.part("mixture", partial(_mixture, config, session.progress("mixture")))
    return measured | session.part(
        "moments", partial(_moments, config, session.progress("moments"))
    )


def _branches(config: Config) -> Curves:
    """Ordered branch and the two growth rates on it, for two deltas and the circle."""
    found: Curves = {}
    for name, model, unit in (
        ("deltas", two_deltas(), np.array([1.0])),
        ("circle", circle(np.sqrt(2), 64), np.array([np.sqrt(2), 0.0])),
    ):
        # from the data to noise in theta; the branch ends where the centre becomes stable
        t_c = 0.5 * np.arcsinh(1.0)
        times = t_c * np.linspace(0.995, 0.15, config.times)
        start = 0.5 * unit[None]
        branch = stability.fixed_points(model, start, times, sweeps=2000)
        states = np.stack([branch.states[:, 0], np.zeros((config.times, unit.size))])
        rates, centre = np.asarray(stability.drift_spectrum(model, states, times).eigenvalues)
        found |= {
            f"times_{name}": times,
            f"radius_{name}": np.linalg.norm(branch.states[:, 0], axis=-1),
            f"radial_{name}": rates[:, -1],
            f"transverse_{name}": rates[:, 0],
            f"centre_{name}": centre[:, 0],
        }
    return found


def _criteria() -> Curves:
    """Critical times of two deltas at +-1/2 by dynamics, from the sign of the growth rate."""
    model, found = two_deltas(0.5), []
    for noise in CRITERIA.values():
        times = np.linspace(0.25, 0.05, 2001)
        rates = stability.drift_spectrum(model, np.zeros((2001, 1)), times, noise)
        found.append(stability.critical_times(times, rates.eigenvalues[:, 0]))
    return {"critical": np.asarray(found)}


def _mixture(config: Config, progress: Any) -> Curves:
    """Counts of stable points, spectra at the mean, the branch of the centre, a landscape."""
    model, centres, _ = mixture()
    clock = np.asarray(schedules.ddpm_linear())
    counts = []
    for i, index in enumerate(config.indices):
        t = float(clock[index])
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        starts = jnp.concatenate([model.sample(key, t, config.starts), np.exp(-t) * centres])
        counts.append(int(stability.stable_points(model, starts, t).number))
        if progress is not None:
            progress(i + 1, len(config.indices))
    index = np.arange(600, 380, -2)
    times = clock[index]
    at_mean = np.exp(-times)[:, None] * centres.mean(0)
    spectrum = np.asarray(stability.drift_spectrum(model, at_mean, times).eigenvalues)
    branch = stability.fixed_points(model, at_mean[0], times)
    kept = np.asarray(branch.converged)
    states = np.where(kept[:, None], np.asarray(branch.states), at_mean)
    along = np.asarray(stability.drift_spectrum(model, states, times).eigenvalues)[:, 0]
    jump = np.linalg.norm(np.diff(states, axis=0), axis=-1) > 1
    last = int(np.argmax(~kept | np.append(False, jump))) if np.any(~kept) or jump.any() else -1
    angles = np.linspace(*PATH, 100)
    shown = np.array([600, 460, 400, 300])
    landscapes = [
        np.asarray(
            stability.path_potential(
                model,
                np.repeat(centres, 10, 0)[_PAIRS],
                np.tile(centres, (10, 1))[_PAIRS],
                float(clock[i]),
                angles,
            )
        ).mean(0)
        for i in shown
    ]
    return {
        "counts": np.asarray(counts),
        "index": index,
        "spectrum": spectrum,
        "along": along,
        "fold": np.asarray(index[last] if last > 0 else 0),
        "angles": angles,
        "landscapes": np.asarray(landscapes),
        "shown": shown,
        "crossing": np.interp(
            stability.critical_times(times, spectrum[:, 0]), clock, np.arange(len(clock))
        ),
    }


_PAIRS = np.flatnonzero(np.repeat(np.arange(10), 10) < np.tile(np.arange(10), 10))


def delta_score(wrong: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """Score of two deltas; with ``wrong`` = 1 the reverse SDE has -x in place of +x."""
    scale, variance = jnp.exp(-t), -jnp.expm1(-2 * t)
    return (scale * jnp.tanh(scale * x / variance) - x) / variance - wrong * x


def _moments(config: Config, progress: Any) -> Curves:
    """Second and fourth moment at each stop, with the right and the wrong drift."""
    found = {"second": [], "second_error": [], "fourth": [], "fourth_error": []}
    for wrong in (0.0, 1.0):
        score = jax.tree_util.Partial(delta_score, jnp.asarray(wrong))
        model = score_model(score, diffjax.ornstein_uhlenbeck())
        for i, stop in enumerate(config.stops):
            key = jax.random.fold_in(jax.random.key(config.seed), 100 + i)
            key_start, key_path = jax.random.split(key)
            grid = np.asarray(
                breaking.linear_schedule_time(np.linspace(1.0, stop, config.steps + 1))
            )
            x = normal(key_start, (config.walkers, 1), jnp.float64)
            x, _ = diffjax.backward(key_path, model, x, grid, method="euler_maruyama")
            for name, power in (("second", 2), ("fourth", 4)):
                values = np.asarray(x)[:, 0] ** power
                found[name].append(values.mean())
                found[f"{name}_error"].append(values.std(ddof=1) / np.sqrt(values.size))
            if progress is not None:
                progress(int(wrong) * len(config.stops) + i + 1, 2 * len(config.stops))
    return {name: np.reshape(values, (2, -1)) for name, values in found.items()}


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Ordered branches, rates, critical times, and moments of the exact marginals."""
    predicted: dict[str, Any] = {}
    for name, dim in (("deltas", 1), ("circle", 2)):
        times, radius = measured[f"times_{name}"], np.sqrt(dim)
        branch = np.asarray(breaking.ordered_radius(times, radius, dim))
        rates = breaking.sphere_rates(times, branch, radius, dim)
        predicted |= {
            f"radius_{name}": branch,
            f"radial_{name}": np.asarray(rates.radial),
            f"centre_{name}": np.asarray(breaking.centre_rate(times, 1.0)),
        }
    times = theory.speciation.centre_times(0.25)
    predicted["critical"] = np.asarray([getattr(times, name) for name in CRITERIA])
    t = np.asarray(breaking.linear_schedule_time(np.asarray(config.stops)))
    q = np.exp(-2 * t)
    predicted |= {"second": np.ones_like(q), "fourth": q**2 + 6 * q * (1 - q) + 3 * (1 - q) ** 2}
    _, _, covariance = mixture()
    top = np.linalg.eigvalsh(covariance)[-1]
    clock = np.asarray(schedules.ddpm_linear())
    index = np.interp(theory.speciation.fixed_point_time(top), clock, np.arange(len(clock)))
    return predicted | {"formula": np.asarray(index)}


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Moments on the way with the right drift, and with the wrong one."""
    found = []
    for row, note, control in ((0, "", False), (1, ", wrong sign of the linear drift", True)):
        for name in ("second", "fourth"):
            found.append(
                compare(
                    f"{name} moment on the way from noise{note}",
                    measured[name][row],
                    measured[f"{name}_error"][row],
                    predicted[name],
                    control=control,
                )
            )
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Deviations of the branches from theory, critical times, counts."""
    from experiments.symmetry_breaking_figure import draw

    found = comparisons(measured, predicted)
    rows, summary = [], {}
    for name, label in (("deltas", "two deltas"), ("circle", "circle, r^2 = 2")):
        parts = ("radius", "radial", "centre")
        gaps = {p: _gap(measured[f"{p}_{name}"], predicted[f"{p}_{name}"]) for p in parts}
        rows.append(
            (
                label,
                ", ".join(f"{p} {g:.1e}" for p, g in gaps.items())
                + " (largest relative difference from theory)",
            )
        )
        summary[name] = gaps
    summary["goldstone_rate"] = float(np.abs(measured["transverse_circle"]).max())
    for name, value, expected in zip(CRITERIA, measured["critical"], predicted["critical"]):
        rows.append(
            (f"two deltas at +-1/2, {name}", f"critical t {value:.5f}, theory {expected:.5f}")
        )
        summary[f"critical_{name}"] = {"measured": float(value), "theory": float(expected)}
    counts = dict(zip(config.indices, map(int, measured["counts"])))
    rows.append(("stable points of the mixture", ", ".join(f"{i}: {c}" for i, c in counts.items())))
    summary |= {
        "stable_points": {str(i): c for i, c in counts.items()},
        "index_of_formula": float(predicted["formula"]),
        "index_of_rate_at_mean": float(measured["crossing"]),
        "index_of_fold": int(measured["fold"]),
    }
    rows.append(
        (
            "mixture, critical index",
            f"formula {float(predicted['formula']):.0f}, growth "
            f"rate at the mean {float(measured['crossing']):.0f}, branch of the centre ends "
            f"in a fold at {int(measured['fold'])}",
        )
    )
    second = number(measured["second"][1][0], measured["second_error"][1][0])
    finding = (
        f"The centre of two deltas loses stability at theta = {np.sqrt(np.sqrt(2) - 1):.4f} and "
        f"the continued branches follow the self-consistency to {summary['deltas']['radius']:.0e};"
        f" the mixture, which has no symmetric centre, goes from {measured['counts'][0]} to "
        f"{measured['counts'][-1]} stable points between the indices {config.indices[0]} and "
        f"{config.indices[-1]}, and its central branch ends in a fold at {int(measured['fold'])} "
        f"while the formula for symmetric data says "
        f"{float(predicted['formula']):.0f}; with the wrong sign of the linear drift the variance "
        f"at s = {config.stops[0]:g} is {second} instead of 1."
    )
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=finding,
        table=rows,
        summary=summary,
        curves=curves,
        axes=axes,
        comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )


def _gap(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.max(np.abs(value - expected) / (1 + np.abs(expected))))


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    texts = {
        "index": "step index of the mixture's curves (I,)",
        "spectrum": "growth rates at the noised mean of the mixture per unit of OU time (I, 16)",
        "along": "leading growth rate on the continued branch (I,)",
        "counts": "stable fixed points at the configured indices",
        "angles": "angle of the path between two centres, radians (P,)",
        "landscapes": "potential along the path, mean over pairs (4, P)",
        "second": "second moment at the stops, right and wrong drift (2, S)",
        "fourth": "fourth moment at the stops, right and wrong drift (2, S)",
        "second_error": "standard error of second",
        "fourth_error": "standard error of fourth",
    }
    curves: Curves = {name: np.asarray(measured[name]) for name in texts}
    axes = dict(texts)
    for name in ("deltas", "circle"):
        for part, text in (
            ("times", "OU times"),
            ("radius", "norm of the stable fixed point"),
            ("radial", "growth rate along it"),
            ("centre", "growth rate at the centre"),
        ):
            curves[f"{part}_{name}"] = np.asarray(measured[f"{part}_{name}"])
            axes[f"{part}_{name}"] = f"{name}: {text} (T,)"
        curves[f"radius_theory_{name}"] = np.asarray(predicted[f"radius_{name}"])
        axes[f"radius_theory_{name}"] = f"{name}: norm of the stable fixed point, theory (T,)"
    return curves, axes
