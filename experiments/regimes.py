"""The dynamical regimes of a data set: when its classes split, when its score collapses.

Noise a data set to time t (Ornstein-Uhlenbeck time) and run the exact empirical score backwards.
At large t a trajectory has no class (regime I); below the speciation time its class is decided
(regime II); below the collapse time it is bound to one training point (regime III). This
experiment measures the curves behind both transitions on your data and lays theory over them.

  python -m experiments regimes                                      embedded digits 0 and 1
  python -m experiments regimes --data mnist --root DIR --classes 1 8 --n 10000
  python -m experiments regimes --data points.npy --labels labels.npy
  python -m experiments regimes --data mixture --dim 256 --n 20000

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.channel
import theory.collapse
import theory.speciation
from diffjax import schedules
from diffjax.dynamics.span import span_basis
from diffjax.observables.collapse import (
    CollapseCurves,
    collapse_curves,
    last_change_time,
    nearest_point,
)
from diffjax.observables.speciation import agreement_of_pairs, clone_agreement
from diffjax.observables.spectrum import covariance_spectrum
from experiments import inputs, regimes_figure
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.inputs import DataSet
from experiments.regimes_times import collapse_is_later, finding, in_schedule, transition_times
from experiments.session import Curves, Report, Session
from experiments.style import number

CLONE_STRIDE = 3  # clones are simulated at every third time


@dataclass(frozen=True)
class Config:
    """What to analyse, and how large the samples are."""

    data: str = option(
        "digits", "digits, mnist, fashion-mnist, cifar10, images, mixture, or a .npy/.npz file"
    )
    root: str | None = option(None, "folder of image files (mnist, fashion-mnist, cifar10, images)")
    labels: str | None = option(None, "labels of a .npy data set: a .npy file")
    classes: tuple[str, ...] | None = option(None, "classes to keep, balanced", nargs="+", type=str)
    n: int | None = option(None, "number of points in total", type=int)
    pad: int | None = option(None, "zero-pad images to this side (32: published MNIST)", type=int)
    channels: str = option("all", "colour channels", choices=("all", "first"))
    dim: int = option(256, "dimension of --data mixture")
    mean: float = option(1.0, "centre per coordinate of --data mixture")
    variance: float = option(1.0, "variance per coordinate of --data mixture")
    schedule: str = option(
        "ddpm-linear", "schedule in which times are repeated", choices=tuple(schedules.SCHEDULES)
    )
    samples: int = option(2000, "noised states per time")
    times: int = option(24, "number of times")
    trajectories: int = option(300, "backward trajectories for nearest-neighbour times")
    steps: int = option(64, "steps of those trajectories")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"samples": 400, "times": 9, "trajectories": 40, "steps": 24},
    "quick": {},
    "paper": {"samples": 10_000, "times": 40, "trajectories": 2000, "steps": 200},
}


def load(config: Config) -> DataSet:
    """The data set that ``config`` names."""
    if config.data == "digits":
        return inputs.digits(config.classes, config.n, config.dtype)
    if config.data == "mixture":
        n = 20_000 if config.n is None else config.n
        return inputs.mixture(
            config.dim, n, config.mean, config.variance, config.seed, config.dtype
        )
    if config.data in {"mnist", "fashion-mnist", "cifar10", "images"}:
        return inputs.image_files(
            config.data, config.root, config.classes, config.n, config.pad, config.channels,
            config.dtype,
        )  # fmt: skip
    return inputs.arrays(config.data, config.labels, config.classes, config.n, config.dtype)


def analyse(
    points: Any,
    labels: Any = None,
    *,
    name: str = "data",
    session: Session | None = None,
    **sizes: Any,
) -> Report:
    """The three regimes of an array: everything that the command line reports.

    Args:
        points: ``(n, d)``, used as they are (their mean is subtracted); n >= 2.
        labels: optional ``(n,)``; without labels there is no clone agreement.
        name: for titles.
        session: where finished parts go; by default nothing is written and no bar is drawn.
        **sizes: fields of `Config`, such as ``samples``, ``times``, ``seed``, ``schedule``.

    Returns:
        A `Report`; ``report.summary`` holds the numbers, ``report.figure()`` draws.

    Raises:
        ValueError: if the points are not ``(n, d)`` with n >= 2, not finite, or all equal, or if
            labels do not match.
    """
    array = np.asarray(points)
    if array.dtype.kind != "f":
        array = array.astype(np.float32)
    config = Config(**{"data": name, "dtype": str(array.dtype), **sizes})
    cloud = diffjax.point_cloud(array, labels)  # checks shapes, values and label length
    names = tuple(str(c) for c in np.unique(np.asarray(labels))) if labels is not None else ()
    known = None if labels is None else np.asarray(cloud.labels)
    data = DataSet(name, array, known, names, "as given")
    quiet = session or Session(Path(), "memory", resume=False, quiet=True, keep=False)
    measured = simulate_data(data, config, quiet)
    return report(config, measured, predict(config, measured))


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Load the data and measure all curves."""
    return simulate_data(load(config), config, session)


def simulate_data(data: DataSet, config: Config, session: Session) -> dict[str, Any]:
    """Measure the spectrum, the curves against time, clones and nearest-neighbour times."""
    points = np.asarray(data.points)
    if points.ndim == 2 and points.shape[0] < 2:
        raise ValueError("the analysis needs n >= 2 points: one point has no spread")
    spectrum = covariance_spectrum(points)
    eigenvalues = np.asarray(spectrum.eigenvalues, np.float64)
    if eigenvalues[0] <= 0:
        raise ValueError("all points coincide: the variance is zero and nothing can split")
    times = time_grid(eigenvalues, len(points), config.times)
    cloud, fraction = _cloud(data)
    diffusion = diffjax.Diffusion(cloud, diffjax.ornstein_uhlenbeck())
    key_curves, key_clones, key_paths, key_phi = jax.random.split(jax.random.key(config.seed), 4)
    tag = _tag(data)

    def curves() -> Curves:
        bar = session.progress("curves")
        return flat(collapse_curves(key_curves, diffusion, times, config.samples, progress=bar))

    measured: dict[str, Any] = {"data": data, "times": times, "eigenvalues": eigenvalues}
    measured["effective_rank"] = float(spectrum.effective_rank)
    measured["fraction"] = fraction
    measured |= session.part(f"curves-{tag}", curves)
    measured |= session.part(
        f"paths-{tag}", lambda: _nearest_times(key_paths, diffusion, times, config, session)
    )
    if data.labels is not None and len(data.class_names) > 1:
        measured |= session.part(
            f"clones-{tag}", lambda: _clones(key_clones, diffusion, times, config)
        )
    if data.mean_norm is not None:
        measured |= session.part(
            f"mixture-{tag}", lambda: _mixture_agreement(key_phi, data, times, config)
        )
    return measured


def time_grid(eigenvalues: np.ndarray, n: int, count: int) -> np.ndarray:
    """Times evenly spaced in log snr, from well below the collapse to well above speciation."""
    collapse = float(theory.collapse.spectrum_collapse_time(np.log(n), eigenvalues))
    high = max(0.5 * np.log1p(100 * eigenvalues[0]), 3 * collapse)
    low = max(1e-4, 0.15 * min(collapse, high / 3))
    return np.asarray(schedules.log_snr(low, high, count), np.float64)


def _cloud(data: DataSet) -> tuple[Any, float]:
    """The centred cloud in the smallest space that holds it, and that space's share r / d.

    Constant coordinates (the border of an image) are dropped, and fewer points than dimensions
    are rotated into their span. Posterior weights do not change; quantities per dimension are
    r / d times those that the reduced cloud reports.
    """
    mean = data.points.mean(axis=0, dtype=np.float64)
    points = np.asarray(data.points - mean, data.points.dtype)
    points = points[:, np.ptp(data.points, axis=0) > 0]
    if points.shape[0] < points.shape[1]:
        points = span_basis(jnp.asarray(points))[2]
    return diffjax.point_cloud(points, data.labels), points.shape[1] / data.points.shape[1]


def _tag(data: DataSet) -> str:
    """Fingerprint of the points and labels themselves."""
    digest = hashlib.sha256(np.ascontiguousarray(data.points).tobytes())
    if data.labels is not None:
        digest.update(np.ascontiguousarray(data.labels).tobytes())
    return digest.hexdigest()[:8]


def flat(curves: CollapseCurves) -> Curves:
    """Estimates as ``name`` and ``name_error`` arrays."""
    arrays: Curves = {"unresolved": np.asarray(curves.unresolved)}
    for name, estimate in curves._asdict().items():
        if name != "unresolved":
            arrays[name] = np.asarray(estimate.mean, np.float64)
            arrays[f"{name}_error"] = np.asarray(estimate.error, np.float64)
    return arrays


def _clones(key: jax.Array, diffusion: Any, times: np.ndarray, config: Config) -> Curves:
    """Label agreement of simulated clones: exact trajectories from fresh states."""
    cloud = diffusion.data
    chosen = times[::CLONE_STRIDE]
    find = nearest_point(cloud, diffusion.process)
    means, errors = [], []
    for i, t in enumerate(chosen):
        key_x, key_clones = jax.random.split(jax.random.fold_in(key, i))
        x = diffusion.sample(key_x, float(t), config.samples)
        ends, _ = diffjax.clones(key_clones, diffusion, x, [float(t), 0.0])
        labels = cloud.labels[jax.jit(find)(ends, jnp.zeros((), ends.dtype))]
        agreement = agreement_of_pairs(labels[:, 0], labels[:, 1])
        means.append(float(agreement.mean))
        errors.append(float(agreement.error))
    wrong = diffjax.Diffusion(cloud, diffjax.ornstein_uhlenbeck(2.0))
    control = clone_agreement(jax.random.fold_in(key, 10_000), wrong, chosen, config.samples)
    return {
        "clone_times": chosen,
        "clones": np.asarray(means),
        "clones_error": np.asarray(errors),
        "wrong_temperature": np.asarray(control.mean, np.float64),
        "wrong_temperature_error": np.asarray(control.error, np.float64),
    }


def _nearest_times(
    key: jax.Array, diffusion: Any, times: np.ndarray, config: Config, session: Session
) -> Curves:
    """Time of the last change of the nearest training point along exact trajectories."""
    grid = np.asarray(schedules.log_snr(times[0] / 4, times[-1], config.steps))[::-1]
    key_start, key_path = jax.random.split(key)
    start = diffusion.sample(key_start, float(grid[0]), config.trajectories)
    _, info = diffjax.backward(
        key_path, diffusion, start, grid, observe=nearest_point(diffusion.data, diffusion.process),
        progress=session.progress("trajectories"),
    )  # fmt: skip
    return {"nearest_times": np.asarray(last_change_time(info.observed, jnp.asarray(grid[1:])))}


def _mixture_agreement(key: jax.Array, data: DataSet, times: np.ndarray, config: Config) -> Curves:
    """Clone agreement of the mixture itself (its own exact posterior, not the points')."""
    d = data.points.shape[1]
    centre = np.full((1, d), (data.mean_norm or 0.0) / np.sqrt(d), data.points.dtype)
    mixture = diffjax.gaussian_mixture([0.5, 0.5], np.concatenate([centre, -centre]), data.variance)
    diffusion = diffjax.Diffusion(mixture, diffjax.ornstein_uhlenbeck())
    phi = clone_agreement(key, diffusion, times, config.samples)
    return {
        "mixture_agreement": np.asarray(phi.mean, np.float64),
        "mixture_agreement_error": np.asarray(phi.error, np.float64),
    }


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Theory: the criteria, the Gaussian-spectrum entropy, and the mixture's exact curves."""
    data, eigenvalues, times = measured["data"], measured["eigenvalues"], measured["times"]
    n, d = data.points.shape
    fine = np.geomspace(times[0], times[-1], 200)
    padded = np.concatenate([eigenvalues, np.zeros(d - len(eigenvalues))])
    entropy = jax.vmap(
        lambda t: theory.collapse.spectrum_excess_entropy(t, np.log(n), jnp.asarray(padded))
    )
    largest = eigenvalues[0]
    found: dict[str, Any] = {
        "fine_times": fine,
        "spectrum_entropy": np.asarray(entropy(fine)),
        "spectral": float(theory.speciation.spectral_time(largest)),
        "static": float(theory.speciation.static_time(largest)),
        "dynamic": float(theory.speciation.dynamic_time(largest)),
        "collapse": float(theory.collapse.spectrum_collapse_time(np.log(n), padded)),
    }
    if data.mean_norm is not None:
        found |= _predict_mixture(data, times, fine)
    return found


def _predict_mixture(data: DataSet, times: np.ndarray, fine: np.ndarray) -> dict[str, Any]:
    """Exact curves of the balanced mixture, and a wrong one: within-class variance forgotten."""
    n, d = data.points.shape
    norm, variance = data.mean_norm, data.variance
    phi = theory.speciation.mixture_clone_agreement
    return {
        "mixture_phi": np.asarray(phi(times, norm, variance)),
        "mixture_phi_fine": np.asarray(phi(fine, norm, variance)),
        "mixture_phi_wrong": np.asarray(phi(times, 0.5 * norm, variance)),
        "mixture_entropy": np.asarray(
            theory.collapse.mixture_excess_entropy(fine, np.log(n), d, norm, variance)
        ),
        "mixture_finite_size": np.asarray(
            theory.collapse.mixture_empirical_excess_entropy(fine, np.log(n), d, norm, variance)
        ),
        "mixture_collapse": float(
            theory.collapse.mixture_collapse_time(np.log(n), d, norm, variance)
        ),
    }


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Times by every definition, comparisons, the sentence, and the figure."""
    data = measured["data"]
    n, d = data.points.shape
    alpha = np.log(n) / d
    found = transition_times(measured, predicted)
    schedule = schedules.by_name(config.schedule)
    entries = {name: in_schedule(t, error, schedule) for name, (t, error) in found.items()}
    curves, axes = _curves(measured, predicted)
    summary = {
        "data": data.name,
        "n": n,
        "d": d,
        "alpha": alpha,
        "classes": list(data.class_names),
        "convention": data.convention,
        "Lambda": measured["eigenvalues"][0],
        "Lambda_convention": f"largest eigenvalue, denominator n - 1; {data.convention}",
        "top_eigenvalues": measured["eigenvalues"][:5],
        "effective_rank": measured["effective_rank"],
        "schedule": config.schedule,
        "times": entries,
        "collapse_before_speciation": collapse_is_later(found),
        "unresolved_fraction": float(np.max(measured["unresolved"])),
    }
    rows = _rows(data, summary, found, entries, config.schedule)
    return Report(
        finding(data, found),
        rows,
        summary,
        curves,
        axes,
        comparisons(measured, predicted),
        lambda: regimes_figure.draw(measured, predicted, found),
    )


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Exact overlays with their controls, and the approximate entropy."""
    results = []
    samples_floor = 1e-3
    if "clones" in measured:
        same = slice(None, None, CLONE_STRIDE)
        phi, phi_error = measured["clone_agreement"][same], measured["clone_agreement_error"][same]
        error = np.hypot(measured["clones_error"], phi_error)
        results += [
            compare("label agreement of clones against E sum p_c^2", measured["clones"], error, phi,
                    floor=samples_floor),
            compare("the same with noise at temperature 2", measured["clones"],
                    np.hypot(measured["clones_error"], measured["wrong_temperature_error"]),
                    measured["wrong_temperature"], control=True, floor=samples_floor),
        ]  # fmt: skip
    if "mixture_agreement" in measured:
        value, error = measured["mixture_agreement"], measured["mixture_agreement_error"]
        results += [
            compare("phi of the mixture against quadrature", value, error,
                    predicted["mixture_phi"], floor=samples_floor),
            compare("the same with half the distance of the centres", value, error,
                    predicted["mixture_phi_wrong"], control=True, floor=samples_floor),
        ]  # fmt: skip
    theory_f = np.interp(measured["times"], predicted["fine_times"], predicted["spectrum_entropy"])
    measured_f = measured["excess_entropy"] * measured["fraction"]
    above = measured["times"] > predicted["collapse"]
    if above.any():
        results.append(
            compare("f^e above t_C against the Gaussian-spectrum f", measured_f[above],
                    measured["excess_entropy_error"][above] * measured["fraction"],
                    theory_f[above], exact=False)
        )  # fmt: skip
    return results


def _rows(
    data: DataSet,
    summary: dict[str, Any],
    found: dict[str, tuple[float, float]],
    entries: dict[str, dict[str, Any]],
    schedule: str,
) -> list[tuple[str, str]]:
    """The table on the terminal."""
    top = ", ".join(f"{value:.4g}" for value in summary["top_eigenvalues"])
    rows = [
        ("data", f"{data.name}: n = {summary['n']}, d = {summary['d']}"),
        ("alpha = log n / d", f"{summary['alpha']:.5g} nats"),
        ("Lambda", f"{summary['Lambda']:.5g}  [{data.convention}]"),
        ("top eigenvalues", top),
        ("effective rank", f"{summary['effective_rank']:.4g}"),
    ]
    for name, (t, error) in found.items():
        entry = entries[name]
        index = entry["step_index"]
        where = "" if not np.isfinite(t) else (
            f"   sigma = {entry['sigma']:.4g}, {schedule} step "
            f"{index if index is not None else 'beyond the schedule'}"
        )  # fmt: skip
        rows.append((name, f"t = {number(t, error)}{where}" if np.isfinite(t) else "none"))
    order = summary["collapse_before_speciation"]
    rows.append(("t_C < t_S", {True: "yes", False: "no", None: "cannot be said"}[order]))
    return rows


def _curves(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    """Named arrays and what they are."""
    scale = measured["fraction"]
    axes = {
        "times": "OU times of the measured curves",
        "eigenvalues": "covariance eigenvalues, descending",
        "excess_entropy": "f^e per dimension (nats)",
        "leave_one_out": "f_LOO per dimension (nats)",
        "participation": "phi_C = E sum_mu w_mu^2",
        "own_nearest": "probability that the generating point is the nearest",
        "nearest_times": "last change of the nearest point, one per trajectory (OU time)",
        "fine_times": "OU times of the theory curves",
        "spectrum_entropy": "f of the Gaussian with this spectrum, per dimension (nats)",
    }
    optional = {
        "clone_agreement": "phi = E sum_c p(c|x)^2 of the labels",
        "clone_times": "OU times of the simulated clones",
        "clones": "fraction of clone pairs with equal label",
        "mixture_agreement": "phi of the mixture by its exact posterior",
        "mixture_phi_fine": "phi of the mixture by quadrature, on fine_times",
        "mixture_entropy": "population f of the mixture, per dimension (nats)",
        "mixture_finite_size": "finite-size f^e of the mixture, per dimension (nats)",
    }
    pool = {**measured, **predicted}
    if "clones" not in measured:
        pool.pop("clone_agreement")
    axes |= {name: text for name, text in optional.items() if name in pool}
    arrays = {name: np.asarray(pool[name]) for name in axes}
    for name in list(axes):
        if f"{name}_error" in pool:
            axes[f"{name}_error"] = f"standard error of {name}"
            arrays[f"{name}_error"] = np.asarray(pool[f"{name}_error"])
    for name in ("excess_entropy", "leave_one_out"):
        arrays[name] = arrays[name] * scale
        arrays[f"{name}_error"] = arrays[f"{name}_error"] * scale
    return arrays, axes
