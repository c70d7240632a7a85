"""The theory of the Curie-Weiss experiment, at the measured places and along fine grids."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import theory.curie_weiss as magnet

OFFSETS = (-1.0, 1.5)  # branching times from log(d m^2) / 2
BINS = 14  # of the overlap
NODES = 40  # of the fine grids of the sweeps


def middle(dim: int, beta: float) -> float:
    """``log(d m^2) / 2``."""
    return 0.5 * float(np.log(dim * magnet.magnetization(beta) ** 2))


def sweep(config: Any) -> list[tuple[float, float]]:
    """``(beta, h0)`` of the coupling sweep and of the field sweep."""
    return [(beta, 0.0) for beta in config.betas] + [(config.beta, h) for h in config.fields]


def predict(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Large-d formulas, finite-d laws of the overlap, and the wrong theories."""
    beta = config.beta
    predicted: dict[str, Any] = {}
    fine = np.linspace(*OFFSETS, 60)
    predicted["fine_offsets"] = fine
    for dim in config.dims:
        t = measured[f"times_d{dim}"]
        grid = np.concatenate([t, middle(dim, beta) + fine])
        phi = np.asarray(magnet.clone_agreement(grid, dim, beta))
        predicted[f"phi_d{dim}"], predicted[f"phi_fine_d{dim}"] = phi[: len(t)], phi[len(t) :]
        predicted[f"overlap_phi_d{dim}"] = np.asarray(magnet.overlap_clone_agreement(t, dim, beta))
    predicted |= _predict_sweeps(config, measured) | _predict_overlap(config, measured)
    t = measured["information_times"]
    grid = np.concatenate([t, np.geomspace(0.02, 2.0, 80)])
    snr = 1 / np.expm1(2 * grid)
    spread = 1 - float(magnet.magnetization(beta)) ** 2
    for name, curve in (
        ("information", np.asarray(magnet.information(grid, beta))),
        ("gaussian", 0.5 * np.log1p(snr * spread)),
    ):
        predicted[name], predicted[f"{name}_fine"] = curve[: len(t)], curve[len(t) :]
    predicted["information_fine_times"] = grid[len(t) :]
    return predicted


def _predict_sweeps(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """At the measured couplings and fields, and along fine grids of both."""
    beta, field = np.asarray(sweep(config)).T
    fine_betas = np.linspace(min(config.betas), max(config.betas), NODES)
    fine_fields = np.linspace(min(config.fields), max(config.fields), NODES)
    beta = np.concatenate([beta, fine_betas, np.full(NODES, config.beta)])
    field = np.concatenate([field, np.zeros(NODES), fine_fields])
    dim = config.sweep_dim
    t = 0.5 * np.log(dim * np.asarray(magnet.magnetization(beta)) ** 2)
    found: dict[str, Any] = {"fine_betas": fine_betas, "fine_fields": fine_fields}
    for name, values in (
        ("phi", magnet.overlap_clone_agreement(t, dim, beta, field)),
        ("phi_large", magnet.clone_agreement(t, dim, beta, field)),
        ("weight", magnet.exact_class_weight(dim, beta, field)),
        ("weight_large", magnet.class_weight(beta, field)),
    ):
        whole = np.asarray(values)
        found[f"sweep_{name}"] = whole[: -2 * NODES]
        found[f"fine_beta_{name}"] = whole[-2 * NODES : -NODES]
        found[f"fine_field_{name}"] = whole[-NODES:]
    return found


def _predict_overlap(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Bin probabilities and drifts of the exact potential; the bifurcation of the formula."""
    dim, beta, times = config.sweep_dim, config.beta, measured["overlap_times"]
    t, mu = times[:, None], measured["overlap"]

    def total(values: jax.Array) -> jax.Array:
        return jnp.sum(magnet.exact_overlap_potential(values, t, dim, beta))

    reach = np.sqrt(dim) * np.exp(-t) + 6
    grid = reach * np.linspace(-1, 1, 1201)
    exact, wrong = (_density(grid, t, dim, b) for b in (beta, beta / 2))
    edges = [_quantiles(g, p) for g, p in zip(grid, exact)]
    fine = np.linspace(times[0], times[-1], 60)
    return {
        "overlap_drift": -np.asarray(jax.grad(total)(jnp.asarray(mu))),
        "overlap_grid": grid,
        "overlap_potential": np.asarray(magnet.exact_overlap_potential(grid, t, dim, beta)),
        "overlap_leading": np.asarray(magnet.overlap_potential(grid, t, dim, beta)),
        "overlap_edges": np.asarray(edges),
        "overlap_wrong": np.asarray([_shares(g, p, e) for g, p, e in zip(grid, wrong, edges)]),
        "branch_times": fine,
        "branch": np.abs(np.asarray(magnet.bifurcation(fine, dim, beta)[0])),
        "branch_exact": _minima(fine, dim, beta),
    }


def _density(grid: np.ndarray, t: np.ndarray, dim: int, beta: float) -> np.ndarray:
    """Law of the overlap on a grid, from its potential ``-mu^2 / 2 - 2 log p``."""
    potential = np.asarray(magnet.exact_overlap_potential(grid, t, dim, beta))
    p = np.exp(-(potential + 0.5 * grid**2) / 2)
    return p / p.sum(1, keepdims=True)


def _cumulative(p: np.ndarray) -> np.ndarray:
    return np.cumsum(p) - 0.5 * p


def _quantiles(grid: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Inner edges of bins of equal probability."""
    return np.interp(np.arange(1, BINS) / BINS, _cumulative(p), grid)


def _shares(grid: np.ndarray, p: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Probability of each bin."""
    return np.diff(np.concatenate([[0], np.interp(edges, grid, _cumulative(p)), [1]]))


def _minima(times: np.ndarray, dim: int, beta: float) -> np.ndarray:
    """Right minimum of the exact potential of the overlap."""
    grid = np.linspace(0, 2.2 * np.sqrt(dim) * np.exp(-times.min()) + 1, 600)
    potential = magnet.exact_overlap_potential(grid, times[:, None], dim, beta)
    return grid[np.argmin(np.asarray(potential), axis=1)]
