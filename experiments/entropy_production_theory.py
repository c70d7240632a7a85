"""Theory of the experiment ``entropy_production``: rates, integrals, means at finite steps."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import theory.thermodynamics
from experiments.comparison import Comparison, compare
from theory.transfer_operator import mean_productions

RATES = ("production", "flow", "reverse_flow", "fisher")
NODES = 241  # spacing below 0.09, for steps down to 1/160
DEGREE = 3  # of the polynomials that give the zero and the minimum
FINE = 120


def extrema(config: Any) -> dict[str, np.ndarray]:
    """Times around the zero and the minimum of the generative flow, where it is measured again."""
    zero = float(theory.thermodynamics.reverse_flow_zero(config.mean, config.variance))
    lowest, _ = theory.thermodynamics.reverse_flow_minimum(config.mean, config.variance)
    spread = np.linspace(-1, 1, 8)
    return {
        "near_zero": zero * (1 + 0.35 * spread),
        "near_minimum": float(lowest) * (1 + 0.4 * spread),
    }


def rates_of(t: Any, dim: int, mean: float, variance: float) -> Any:
    """Rates in d dimensions: the coordinate along the centres and d - 1 others."""
    along = theory.thermodynamics.mixture_rates(t, mean, variance)
    across = theory.thermodynamics.mixture_rates(t, 0.0, variance)
    return type(along)(*(a + (dim - 1) * b for a, b in zip(along, across)))


def error_of_denoiser(t: Any, dim: int, mean: float, variance: float) -> np.ndarray:
    """By I-MMSE: twice the derivative of ``S - d log(2 pi e Delta) / 2`` by the snr."""

    def information(t: Any) -> Any:
        noise = -jax.numpy.expm1(-2 * t)
        entropy = rates_of(t, dim, mean, variance).entropy
        return entropy - 0.5 * dim * jax.numpy.log(2 * np.pi * np.e * noise)

    t = np.asarray(t)
    slope = np.asarray(jax.vmap(jax.grad(information))(t))
    by_time = -2 * np.exp(2 * t) / np.expm1(2 * t) ** 2  # of snr = 1 / (e^(2t) - 1)
    return 2 * slope / by_time


def predict(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Curves and points of every dimension, and fits of the generative flow."""
    law = config.mean, config.variance
    fine = config.t_max * np.linspace(0.02, 1, FINE) ** 1.5
    predicted: dict[str, Any] = {"fine_times": fine}
    means = _means(config)
    for i, dim in enumerate(config.dims):
        every = np.concatenate([fine, measured["times"]])
        rates = rates_of(every, dim, *law)
        for name in (*RATES, "entropy"):
            found = np.split(np.asarray(getattr(rates, name)), [FINE])
            predicted[f"{name}_fine_d{dim}"], predicted[f"{name}_d{dim}"] = found
        error = error_of_denoiser(every[every > 0], dim, *law)
        predicted[f"mmse_fine_d{dim}"], predicted[f"mmse_d{dim}"] = np.split(error, [FINE])
        predicted[f"forward_d{dim}"] = _total(np.asarray(config.ends), dim, *law)
        path_law = config.mean, config.path_variances[i]
        predicted[f"continuum_d{dim}"] = float(_total(config.t_final, dim, *path_law))
        predicted[f"means_d{dim}"] = means[i]
    return predicted | _flow(config, measured)


def _total(t: Any, dim: int, mean: float, variance: float) -> np.ndarray:
    along, across = (
        np.asarray(theory.thermodynamics.total_production(t, m, variance)) for m in (mean, 0.0)
    )
    return along + (dim - 1) * across


def _means(config: Any) -> np.ndarray:
    """``(dims, 3, steps)`` by the transfer operator."""
    mean = np.outer(np.ones(len(config.dims)), [config.mean, 0.0])
    variance = np.outer(config.path_variances, [1, 1])
    weights = np.stack([np.ones(len(config.dims)), np.asarray(config.dims) - 1], axis=-1)
    columns = [
        np.sum(
            np.asarray(mean_productions(steps, config.t_final, mean, variance, nodes=NODES))
            * weights,
            axis=-1,
        )
        for steps in config.steps
    ]  # (3, dims) each
    values = np.moveaxis(np.asarray(columns), (0, 2), (2, 0))
    if np.any(np.isnan(values)):
        raise FloatingPointError(f"{NODES} nodes are too few for {max(config.steps)} steps")
    return values


def _flow(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Zero and minimum of cubics through measured flows, errors, and the same of theory."""
    law, grids = (config.mean, config.variance), extrema(config)
    found: dict[str, Any] = {
        "zero": float(theory.thermodynamics.reverse_flow_zero(*law)),
        "minimum": float(theory.thermodynamics.reverse_flow_minimum(*law)[0]),
    }
    for name, locate in (("zero", _root), ("minimum", _lowest)):
        grid = grids[f"near_{name}"]
        exact = np.asarray(theory.thermodynamics.mixture_rates(grid, *law).reverse_flow)
        value, error = measured[f"near_{name}_d1"]
        fit, covariance = np.polyfit(grid, value, DEGREE, w=1 / error, cov="unscaled")
        at = locate(fit, grid)
        start = np.polyfit(grid, exact, DEGREE, w=1 / error)
        found[f"{name}_fit"] = locate(start, grid)
        # implicit function: the derivative of the condition by the coefficients
        order = 0 if name == "zero" else 1
        gradient = np.asarray(
            [np.polyval(np.polyder(unit, order), at) for unit in np.eye(DEGREE + 1)]
        )
        slope = np.polyval(np.polyder(fit, order + 1), at)
        found[f"{name}_found"] = at, float(np.sqrt(gradient @ covariance @ gradient) / abs(slope))
        if name == "minimum":
            powers = at ** np.arange(DEGREE, -1, -1)
            found["depth_found"] = (
                float(np.polyval(fit, at)), float(np.sqrt(powers @ covariance @ powers))
            )  # fmt: skip
            found["depth_fit"] = float(np.polyval(start, found["minimum_fit"]))
    return found


def _root(fit: np.ndarray, grid: np.ndarray) -> float:
    return _inside(np.roots(fit), grid)


def _lowest(fit: np.ndarray, grid: np.ndarray) -> float:
    roots = np.roots(np.polyder(fit))
    curved = np.real(np.polyval(np.polyder(fit, 2), roots)) > 0
    return _inside(roots[curved], grid)


def _inside(roots: np.ndarray, grid: np.ndarray) -> float:
    """The real root closest to the middle of the grid; NaN if none is inside of it."""
    real = np.real(roots[np.abs(np.imag(roots)) < 1e-9])
    real = real[(real > grid[0]) & (real < grid[-1])]
    middle = 0.5 * (grid[0] + grid[-1])
    return float(real[np.argmin(np.abs(real - middle))]) if real.size else float("nan")


def comparisons(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Rates, integrals and means of all dimensions; wrong signs, constants, units and limits."""
    dims, times = config.dims, measured["times"]

    def joined(name: str, source: dict[str, Any], index: Any = ...) -> np.ndarray:
        return np.concatenate([np.asarray(source[f"{name}_d{d}"])[index].ravel() for d in dims])

    def both(name: str) -> tuple[np.ndarray, np.ndarray]:
        return joined(name, measured, 0), joined(name, measured, 1)

    found: list[Comparison] = []
    labels = {
        "production": "production rate", "flow": "flow of the forward process",
        "reverse_flow": "flow of the generative process", "fisher": "Fisher information",
        "mmse": "error of the denoiser, I-MMSE", "forward": "production of forward paths",
    }  # fmt: skip
    found += [compare(t, *both(n), joined(n, predicted)) for n, t in labels.items()]
    for j, name in enumerate(("midpoint", "reversed kernels", "noising chain")):
        value, error = (joined("means", measured, (i, j)) for i in range(2))
        label = f"mean of generative paths, {name}: transfer operator"
        found.append(compare(label, value, error, joined("means", predicted, j)))
        if j:
            value, error = (joined("averages", measured, (i, j)) for i in range(2))
            found.append(compare(f"average of exp(-S), {name}: 1", value, error, 1 + 0 * value))
    flow = np.asarray([predicted[f"{n}_found"] for n in ("zero", "minimum", "depth")]).T
    fits = [predicted[f"{n}_fit"] for n in ("zero", "minimum", "depth")]
    # time and depth of the minimum come from one fit but are nearly uncorrelated
    found.append(compare("zero and minimum of the generative flow", *flow, fits))
    return found + _wrong(config, measured, predicted, joined, both, times)


def _wrong(
    config: Any, measured: dict, predicted: dict, joined: Any, both: Any, times: np.ndarray
) -> list[Comparison]:
    law = config.mean, config.variance
    doubled = {f"production_d{d}": rates_of(2 * times, d, *law).production for d in config.dims}
    constant = np.concatenate([np.full(len(times), 2.0 * d) for d in config.dims])
    means = [joined("means", measured, (i, slice(0, 2))) for i in range(2)]
    limit = np.concatenate(
        [np.full(2 * len(config.steps), predicted[f"continuum_d{d}"]) for d in config.dims]
    )
    return [
        compare("production without -2d", *both("production"),
                joined("production", predicted) + constant, control=True),
        compare("flow of the generative process, sign", *both("reverse_flow"),
                -joined("reverse_flow", predicted), control=True),
        compare("production, time in half units", *both("production"),
                joined("production", doubled), control=True),
        compare("mean of generative paths: continuum", *means, limit, control=True),
    ]  # fmt: skip
