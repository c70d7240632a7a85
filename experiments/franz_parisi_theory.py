"""Predictions and comparisons of the experiment `franz_parisi`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import theory.channel
import theory.clone_agreement
import theory.collapse
import theory.curie_weiss
import theory.franz_parisi
import theory.overlap
from experiments.comparison import Comparison, compare, histogram_hazards

FIGURE: dict[str, Any] = {
    "mean": 1.0, "variance": 0.1, "times": (0.1, 1.0),
    "q": (0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0),
}  # fmt: skip
"""The published one-dimensional figure: parameters, and the points that are measured."""

LARGEST_FLUCTUATION = 3.0  # relative variance of a Boltzmann sum whose average is compared


def predictions(config: Any, measured: dict[str, Any], slices: np.ndarray) -> dict[str, Any]:
    """All theory curves."""
    found: dict[str, Any] = {}
    for family in ("gaussian", "mixture", "spins", "magnet"):
        found |= _histogram(family, config, measured)
    found |= _one_dimension()
    return found | _slices(config, measured, slices)


def _edges(family: str, config: Any) -> np.ndarray:
    if family == "mixture":
        return np.linspace(-1.2, 1.8, 61)
    if family == "gaussian":
        return np.linspace(-0.8, 1.9, 55)
    dim = getattr(config, family)
    if dim < 10:
        return (np.arange(dim + 2) * 2 - dim - 1) / dim
    step = 4 / dim * max(1, dim // 64)
    return np.arange(-1 - step / 4, 1 + step, step)


def _histogram(family: str, config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Edges, measured densities, exact probabilities below the edges, mean overlaps."""
    edges = _edges(family, config)
    times = np.asarray(config.magnet_times if family == "magnet" else config.times)
    counts = np.stack([np.histogram(q, edges)[0] for q in measured[f"q_{family}"]])
    below = np.full((len(times), len(edges)), np.nan)
    mean = np.full(len(times), np.nan)
    if family in ("gaussian", "mixture"):
        law = (float(config.dim), config.mean_norm * (family == "mixture"), config.variance)
        below = np.asarray(theory.overlap.mixture_overlap_distribution(edges, times, *law))
        mean = np.asarray(theory.overlap.mixture_overlap_mean(times, *law))
    elif family == "spins":
        law = theory.overlap.curie_weiss_overlap_law(times, config.beta, config.spins)
        below = np.concatenate([np.zeros((len(times), 1)), np.cumsum(law, axis=1)], axis=1)
        mean = np.asarray(law) @ np.linspace(-1, 1, config.spins + 1)
    else:
        peaks = theory.overlap.curie_weiss_overlaps(times, config.beta)
        agree = theory.curie_weiss.clone_agreement(times, float(config.magnet), config.beta)
        mean = np.asarray(agree * peaks.same + (1 - agree) * peaks.other)
    found = {
        "edges": edges, "counts": counts, "law": below, "theory_mean": mean,
        "density": counts / (config.pairs * np.diff(edges)),
    }  # fmt: skip
    if family == "magnet":  # no exact law: the two peaks instead
        found["law"] = np.stack([peaks.same, peaks.other], axis=1)
    return {f"{name}_{family}": value for name, value in found.items()}


def _one_dimension() -> dict[str, Any]:
    """Scalar potential at the measured points and on a fine grid, and its second minimum."""
    mean, variance = FIGURE["mean"], FIGURE["variance"]
    times, q = np.asarray(FIGURE["times"]), np.asarray(FIGURE["q"])
    fine = np.linspace(0.2, 2.45, 61) ** 2
    grid = np.concatenate([q, q**2, fine])  # q taken for a distance is the control
    value = np.asarray(theory.franz_parisi.scalar_potential(grid, times[:, None], mean, variance))
    return {
        "scalar_theory": value[:, : len(q)],
        "scalar_wrong": value[:, len(q) : 2 * len(q)],
        "scalar_fine_q": fine,
        "scalar_fine": value[:, 2 * len(q) :],
        "second_minimum": second_minimum_times(),
    }


def second_minimum_times() -> tuple[float, float]:
    """Times below which the other class is no minimum, in q and in its square root.

    There the smallest slope beyond the barrier changes its sign. The potential of sqrt(q) is that
    of q less log(2 sqrt(q)), the Jacobian.
    """
    mean, variance = FIGURE["mean"], FIGURE["variance"]
    q = np.linspace(1.5, 3.3, 25)

    times = np.array([0.209, 0.212, 0.215, 0.178, 0.18, 0.182])
    value = theory.franz_parisi.scalar_potential(q, times[:, None], mean, variance)
    jacobian = np.log(2 * np.sqrt(q)) * (np.arange(6) > 2)[:, None]
    slopes = []
    for slope in np.diff(np.asarray(value) - jacobian):
        k = np.clip(np.argmin(slope), 1, len(slope) - 2)
        left, lowest, right = slope[k - 1 : k + 2]
        slopes.append(lowest - (right - left) ** 2 / (8 * (left - 2 * lowest + right)))
    first, second = (
        float(np.polyval(np.polyfit(slopes[k : k + 3], times[k : k + 3], 2), 0.0)) for k in (0, 3)
    )
    return first, second


def _log_density_factor(dim: int, edges: np.ndarray) -> float:
    """Logarithm of sqrt(d/2 pi) dq, which the number of points of a slice holds beside e^(d s)."""
    return float(np.log(edges[1] - edges[0]) + 0.5 * np.log(dim / (2 * np.pi)))


def _slices(config: Any, measured: dict[str, Any], edges: np.ndarray) -> dict[str, Any]:
    """Slices of the point clouds: potentials, exact means, and which means can be compared."""
    middle = 0.5 * (edges[1:] + edges[:-1])
    t_last, alpha, variance = config.cloud_times[-1], config.alpha, config.cloud_variance
    rows: dict[str, list] = {name: [] for name in ("potential", "error", "annealed")}
    ratios = []
    for dim in config.cloud_dims:
        n = max(2, round(math.exp(alpha * dim)))
        scalars = [
            measured[f"{k}_d{dim}"].astype(np.float64)[..., None]
            for k in ("own_square", "state_square", "product")
        ]
        times = np.asarray(config.cloud_times)[:, None, None, None]
        law = (times, math.log(n), float(dim), variance, *scalars)
        powers = np.array([1.0, 2.0]).reshape(2, 1, 1, 1, 1)
        mean, square = np.asarray(
            theory.franz_parisi.random_energy_slice(edges[:-1], edges[1:], *law, powers)
        )
        fluctuation = np.exp(square - 2 * mean).mean((1, 2))  # (T, S)
        logs = measured[f"slices_d{dim}"].astype(np.float64)
        ratio = np.exp(logs - mean).mean(2)  # (T, sets, S)
        error = ratio.std(1, ddof=1) / math.sqrt(config.sets)
        used = fluctuation < LARGEST_FLUCTUATION
        ratios.append(np.stack([np.where(used, v, np.nan) for v in (ratio.mean(1), error)]))
        with np.errstate(invalid="ignore"):
            # (sets, S); infinite where a slice is empty
            value = (_log_density_factor(dim, edges) - logs[-1].mean(1)) / dim
            rows["potential"].append(value.mean(0))
            rows["error"].append(value.std(0, ddof=1) / math.sqrt(config.sets))
        rows["annealed"].append((_log_density_factor(dim, edges) - mean[-1].mean((0, 1))) / dim)
    law = (t_last, alpha, variance)
    fine = np.linspace(-math.sqrt(2 * alpha), math.sqrt(2 * alpha), 201)[1:-1]
    potential = theory.franz_parisi.random_energy_potential
    shown = np.linspace(config.cloud_times[0], t_last, 50)
    minimum = theory.franz_parisi.random_energy_minimum(np.append(shown, t_last), *law[1:])
    return {
        "slice_q": middle, "slice_potential": np.stack(rows["potential"]),
        "slice_potential_error": np.stack(rows["error"]),
        "slice_annealed": np.stack(rows["annealed"]), "slice_ratio": np.stack(ratios),
        "slice_theory": np.asarray(potential(middle, *law)), "slice_fine_q": fine,
        "slice_fine": np.asarray(potential(fine, *law)),
        "shown_times": shown, "lowest": np.asarray(minimum.potential)[:-1],
        "condensed_overlap": np.asarray(minimum.condensed_overlap),
        "collapse_time": float(
            theory.collapse.gaussian_collapse_time(alpha * 1000.0, 1000.0, variance)
        ),
    }  # fmt: skip


def _hazards(
    family: str, measured: dict[str, Any], predicted: dict[str, Any], law: np.ndarray
) -> list[np.ndarray]:
    """`histogram_hazards` of all times, joined."""
    edges = predicted[f"edges_{family}"]
    rows = [histogram_hazards(q, edges, b) for q, b in zip(measured[f"q_{family}"], law)]
    return [np.concatenate(parts) for parts in zip(*rows)]


def _wrong_laws(config: Any, predicted: dict[str, Any]) -> np.ndarray:
    """The Franz-Parisi potential of one state taken for the logarithm of the histogram."""
    from scipy.stats import norm

    u = np.asarray(theory.channel.signal_ratio(np.asarray(config.times), config.variance))
    spread = 1 / np.sqrt(config.dim * (1 + u))
    edges = predicted["edges_gaussian"]
    return norm.cdf((edges - (u / (1 + u))[:, None]) / spread[:, None])


def comparisons(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact laws, identities and potentials, with four controls."""
    found: list[Comparison] = []
    for family, label in (
        ("gaussian", "Gaussian"), ("mixture", "mixture"), ("spins", "small magnet")
    ):  # fmt: skip
        values = _hazards(family, measured, predicted, predicted[f"law_{family}"])
        found.append(compare(f"histogram of overlaps, {label}", *values))
    values = _hazards("gaussian", measured, predicted, _wrong_laws(config, predicted))
    found.append(
        compare("histogram of overlaps, by the potential of one state", *values, control=True)
    )
    u = np.asarray(theory.channel.signal_ratio(np.asarray(config.times), config.variance))
    found.append(
        compare("variance at a fixed state, Gaussian", measured["width_gaussian"],
                measured["width_error_gaussian"], 1 / (config.dim * (1 + u)))
    )  # fmt: skip
    found += _means(measured, predicted)
    ratio, error = np.moveaxis(predicted["slice_ratio"], 1, 0)
    found.append(
        compare("annealed Boltzmann sums of slices", ratio.ravel(), error.ravel(),
                np.ones(ratio.size))
    )  # fmt: skip
    own = [measured[f"own_d{dim}"].astype(np.float64) / dim for dim in config.cloud_dims]
    own = np.stack([-v.mean(2) for v in own])  # (d, T, sets)
    error = own.std(2, ddof=1) / math.sqrt(config.sets)
    found.append(
        compare("potential of the own point, V(1) = 1/2", own.mean(2).ravel(), error.ravel(),
                np.full(own[..., 0].size, theory.franz_parisi.OWN_POTENTIAL))
    )  # fmt: skip
    found.append(
        compare("potential of slices, limit of large d", predicted["slice_potential"][-1],
                predicted["slice_potential_error"][-1], predicted["slice_theory"], exact=False)
    )  # fmt: skip
    scalar = (measured["scalar"].ravel(), measured["scalar_error"].ravel())
    found.append(compare("one-dimensional potential", *scalar, predicted["scalar_theory"].ravel()))
    found.append(
        compare("one-dimensional potential, q taken for a distance", *scalar,
                predicted["scalar_wrong"].ravel(), control=True)
    )  # fmt: skip
    return found


def _means(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Nishimori's identity: by theory where it is known, else by the measured denoiser."""

    def gather(name: str, families: tuple[str, ...], source: dict) -> np.ndarray:
        return np.concatenate([source[f"{name}_{family}"] for family in families])

    known, magnets = ("gaussian", "mixture", "spins"), ("magnet",)
    mean, error = gather("mean", known, measured), gather("mean_error", known, measured)
    expected = gather("theory_mean", known, predicted)
    both = (*known, *magnets)
    squared = gather("denoised", both, measured)
    spread = gather("denoised_error", both, measured)
    return [
        compare("mean overlap", mean, error, expected),
        compare("mean overlap of independent data", gather("apart", known, measured),
                gather("apart_error", known, measured), expected, control=True),
        compare("mean overlap and squared denoiser", gather("mean", both, measured),
                np.hypot(gather("mean_error", both, measured), spread), squared),
        compare("the same, posterior of twice the noise", gather("wrong", both, measured),
                np.hypot(gather("wrong_error", both, measured), spread), squared, control=True),
        compare("mean overlap of the large magnet, mean field", gather("mean", magnets, measured),
                gather("mean_error", magnets, measured),
                gather("theory_mean", magnets, predicted), exact=False),
    ]  # fmt: skip
