"""Theory of the experiment `hierarchical_mixture`: exact curves, and wrong ones."""

from __future__ import annotations

from typing import Any

import numpy as np

import theory.hierarchical_mixture
import theory.many_classes
import theory.speciation

TREE = {"root": 2.0, "branches": (3.0, 1.5), "dim": 16}


def norms(config: Any, dim: int) -> np.ndarray:
    """Norms of the levels from the top, ``(L,)``."""
    return np.sqrt(config.strength * float(dim) ** np.asarray(config.exponents))


def predict(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact curves at the measured times and on fine grids, wrong ones, and the times."""
    levels = np.stack([norms(config, dim) for dim in config.dims])
    common = np.exp(np.log(levels).mean(1, keepdims=True)) + 0 * levels
    tree_norms = np.asarray([TREE["root"], *TREE["branches"]])[:, None] + np.zeros(levels.shape[1])
    rows = np.concatenate([levels, common, levels, np.roll(levels, 1, axis=1), tree_norms])
    count = len(config.dims)
    variances = np.full(len(rows), config.variance)
    variances[2 * count : 3 * count] = 0
    grids = {}
    for dim in config.dims:
        times = measured[f"times_d{dim}"]
        fine = np.linspace(times[0], times[-1], 120)
        grids |= {f"times_d{dim}": times, f"half_d{dim}": times / 2, f"fine_d{dim}": fine}
    grids["tree"] = measured["tree_times"]
    grids["tree_fine"] = np.linspace(grids["tree"][0], grids["tree"][-1], 60)
    # one call for all curves: one compilation
    grid = np.concatenate(list(grids.values()))
    phi = theory.many_classes.hierarchy_clone_agreement(
        grid, rows[:, None], variances[:, None], config.temperature
    )
    ends = np.cumsum([len(g) for g in grids.values()])[:-1]
    parts = dict(zip(grids, np.split(np.asarray(phi, np.float64), ends, axis=1)))
    static = theory.speciation.mixture_static_time(levels, config.variance, config.temperature)
    spectral = theory.speciation.hierarchy_times(levels, config.temperature)
    predicted: dict[str, Any] = {}
    for k, dim in enumerate(config.dims):
        here, half = parts[f"times_d{dim}"], parts[f"half_d{dim}"]
        predicted |= {
            f"phi_d{dim}": here[k], f"common_d{dim}": here[count + k],
            f"no_variance_d{dim}": here[2 * count + k], f"other_level_d{dim}": here[3 * count + k],
            f"half_time_d{dim}": half[k], f"phi_fine_d{dim}": parts[f"fine_d{dim}"][k],
            f"fine_times_d{dim}": grids[f"fine_d{dim}"],
            f"static_times_d{dim}": np.asarray(static)[k],
            f"spectral_times_d{dim}": np.asarray(spectral)[k],
        }  # fmt: skip
    apart = [parts[name][-3:, :, 0] for name in ("tree", "tree_fine")]
    branching = _predict_tree(config, grids["tree"], grids["tree_fine"], apart)
    return predicted | _predict_turns(config, measured, predicted) | branching


def _predict_turns(
    config: Any, measured: dict[str, Any], predicted: dict[str, Any]
) -> dict[str, Any]:
    """Highest change and overlap of U-turns, at the measured and at fine times."""
    dim, count = config.dims[0], len(measured["turn_times"])
    times = np.concatenate([measured["turn_times"], predicted[f"fine_times_d{dim}"]])
    phi = np.concatenate([predicted[f"phi_d{dim}"], predicted[f"phi_fine_d{dim}"]])
    overlap = theory.hierarchical_mixture.uturn_overlap(times, config.variance, config.temperature)
    highest = np.asarray(theory.hierarchical_mixture.highest_change(phi), np.float64)
    overlap = np.asarray(overlap, np.float64)
    return {
        "overlap": overlap[:count], "overlap_fine": overlap[count:],
        "highest": highest[:count], "highest_fine": highest[count:],
    }  # fmt: skip


def _predict_tree(
    config: Any, times: np.ndarray, fine: np.ndarray, apart: list[np.ndarray]
) -> dict[str, Any]:
    """Exact agreement of the tree, and that of independent levels from ``apart (3, T)``."""
    exact = theory.hierarchical_mixture.branching_clone_agreement(
        np.concatenate([times, fine]), TREE["root"], np.asarray(TREE["branches"]), config.variance,
        config.temperature,
    )  # fmt: skip
    measured, drawn = np.split(np.asarray(exact), [len(times)], axis=1)
    found: dict[str, Any] = {"tree_fine_times": fine}
    for name, values, alone in (("", measured, apart[0]), ("_fine", drawn, apart[1])):
        found |= {
            f"tree_branch{name}": values[0], f"tree_leaf{name}": values[1],
            f"tree_apart{name}": alone[0],
            f"tree_apart_leaf{name}": alone[0] * 0.5 * (alone[1] + alone[2]),
        }  # fmt: skip
    return found
