"""Values of the experiment ``fluctuation_theorem``: closed forms and the transfer operator."""

from __future__ import annotations

from typing import Any

import numpy as np

import theory.thermodynamics
from experiments.comparison import Comparison, compare
from theory.transfer_operator import exponential_averages, mean_productions

NODES = 181  # spacing below 0.36 for a step of 0.1
KS = np.linspace(0.1, 0.9, 9)
STARTS = ("start in pure noise", "simulated score too large", "score too large in both")


def predict(config: Any, measured: dict[str, Any]) -> dict[str, Any]:
    """Products over independent coordinates of one-dimensional values, all dimensions at once."""
    fine = np.linspace(0, 1, 41)
    times, dims = np.asarray(config.times), np.asarray(config.dims)
    steps = np.round(times / config.dt).astype(int)
    # (dims, 2): the coordinate along the centres, and one of the others
    mean = np.outer(np.ones(len(dims)), [config.mean, 0.0])
    variance = np.outer(config.variances, [1, 1])
    powers = np.stack([np.ones(len(dims)), dims - 1], axis=-1)

    def product(values: Any) -> np.ndarray:
        return np.prod(np.asarray(values) ** powers, axis=-1)

    every = np.arange(1, max(steps) + 1)
    euler = product(
        theory.thermodynamics.euler_integral_theorem(
            every[:, None, None], config.dt, mean, variance
        )
    )
    every_k = np.concatenate([fine, KS])[:, None, None]
    curve = product(
        theory.thermodynamics.detailed_theorem(every_k, config.detailed_time, mean, variance)
    )
    rows = [
        [product(v) for v in exponential_averages(int(n), t, mean, variance, nodes=NODES)]
        for n, t in zip(steps[:-1], times[:-1])
    ]
    variants = _variants(config, mean, variance)
    settings = (int(steps[-1]), times[-1], mean, variance)
    last = [product(v) for v in exponential_averages(*settings, **variants, nodes=NODES)]
    generative = np.asarray([*rows, [v[0] for v in last]])
    means = np.asarray(mean_productions(*settings, **variants, nodes=NODES).noising)
    noising = np.sum(means * powers, axis=-1)[[0, 3]]
    predicted: dict[str, Any] = {"fine_k": fine, "every_time": config.dt * every}
    for i, dim in enumerate(config.dims):
        predicted |= {
            f"euler_d{dim}": euler[steps - 1, i], f"euler_every_d{dim}": euler[:, i],
            f"generative_d{dim}": generative[..., i],
            f"detailed_fine_d{dim}": curve[:41, i], f"detailed_d{dim}": curve[41:, i],
            f"controls_d{dim}": np.stack([v[1:, i] for v in last], axis=-1),
            f"noising_d{dim}": noising[:, i],
        }  # fmt: skip
    if any(np.any(np.isnan(values)) for values in predicted.values()):
        raise FloatingPointError(f"{NODES} nodes are too few for dt = {config.dt:g}")
    return predicted


def _variants(config: Any, mean: np.ndarray, variance: np.ndarray) -> dict[str, Any]:
    """Factors of the score and starts: the right ones, then those of `STARTS`, ``(4, 1, 1)``."""
    t, wrong = config.times[-1], 1 + config.excess
    noised = mean * np.exp(-t), 1 + (variance - 1) * np.exp(-2 * t)
    pure = 0 * mean, np.ones_like(variance)
    factors = np.asarray([[1, 1], [1, 1], [wrong, 1], [wrong, wrong]]).T[..., None, None]
    start = tuple(np.stack([noised[i], pure[i], noised[i], noised[i]]) for i in range(2))
    return {"simulated": factors[0], "assumed": factors[1], "start": start}


def comparisons(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Theorems and closed forms; wrong dynamics, wrong starts and wrong formulas must fail."""
    dims = config.dims

    def cells(name: str, *index: Any) -> tuple[np.ndarray, np.ndarray]:
        rows = [measured[f"{name}_d{dim}_averages"][:, index[0]] for dim in dims]
        return np.concatenate([r[:, 0] for r in rows]), np.concatenate([r[:, 1] for r in rows])

    def expected(name: str, *index: Any) -> np.ndarray:
        return np.concatenate([predicted[f"{name}_d{dim}"][(slice(None), *index)] for dim in dims])

    exact, euler, wrong = (cells("forward", i) for i in range(3))
    a, b, c = (cells("generative", i) for i in range(3))
    one = np.ones(len(exact[0]))
    found: list[Comparison] = [
        compare("forward, exact steps: 1", *exact, one),
        compare("forward, Euler steps: closed form", *euler, expected("euler")),
        compare("generative, midpoint: transfer operator", *a, expected("generative", 0)),
        compare("generative, reversed kernels: 1", *b, one),
        compare("generative, noising chain: 1", *c, one),
        *_detailed(config, measured, predicted),
        compare(
            "mean against the noising chain: transfer operator",
            *_means(config, measured, -1), _predicted(config, predicted, 1),
        ),
        compare("forward, drift too large: closed form", *wrong, expected("euler"), control=True),
        compare("generative, midpoint: 1", *a, one, control=True),
        *_wrong_paths(config, measured, predicted),
    ]  # fmt: skip
    return found


def _means(config: Any, measured: dict[str, Any], which: int) -> tuple[np.ndarray, np.ndarray]:
    """Means of (c) and errors, by dimension."""
    rows = np.stack([measured[f"generative_d{dim}_noising"][which] for dim in config.dims])
    return rows[:, 0], rows[:, 1]


def _predicted(config: Any, predicted: dict[str, Any], which: int) -> np.ndarray:
    return np.asarray([predicted[f"noising_d{dim}"][which] for dim in config.dims])


def _detailed(config: Any, measured: dict, predicted: dict) -> list[Comparison]:
    """Generating functions of both processes; histograms with and without the factor exp(S)."""
    found = []
    theory_k = np.concatenate([predicted[f"detailed_d{dim}"] for dim in config.dims])
    for name, label in (("forward", "exp(-k S)"), ("reversed", "exp(-(1 - k) S'), reversed")):
        value, error = np.concatenate(
            [measured[f"detailed_d{dim}_{name}"][:2] for dim in config.dims], axis=-1
        )
        found.append(compare(f"detailed theorem, {label}", value, error, theory_k))
    shares = [histogram(measured, dim) for dim in config.dims]
    share, error, weighted, plain = (np.concatenate([s[i] for s in shares]) for i in range(4))
    found.append(compare("histograms, P(S) = exp(S) P'(-S)", share, error, weighted))
    found.append(compare("histograms, P(S) = P'(-S)", share, error, plain, control=True))
    return found


def histogram(measured: dict[str, Any], dim: int) -> tuple[np.ndarray, ...]:
    """Share of forward paths in each bin, error of its distance to the weighted share of reversed
    paths, that share, and the unweighted one."""
    cells = {
        name: measured[f"detailed_d{dim}_{name}"]
        for name in ("counts", "reversed_counts", "weighted", "squared")
    }
    total = cells["counts"].sum()
    share, weighted = cells["counts"] / total, cells["weighted"] / total
    variance = share * (1 - share) + cells["squared"] / total - weighted**2
    return share, np.sqrt(variance / total), weighted, cells["reversed_counts"] / total


def _wrong_paths(config: Any, measured: dict, predicted: dict) -> list[Comparison]:
    rows = np.stack([measured[f"generative_d{dim}_controls"] for dim in config.dims])
    one = np.ones(len(config.dims))
    names = ("reversed kernels, start in pure noise", "noising chain, simulated score too large")
    found = [
        compare(f"{name}: 1", rows[:, i, i + 1, 0], rows[:, i, i + 1, 1], one, control=True)
        for i, name in enumerate(names)
    ]
    values = np.stack([predicted[f"controls_d{dim}"] for dim in config.dims])
    # the same runs where their own values are known: kernel, then noising, of all three
    for j, name in ((1, "reversed kernels"), (2, "noising chain")):
        found.append(
            compare(
                f"controls against {name}: transfer operator", rows[:, :, j, 0].ravel(),
                rows[:, :, j, 1].ravel(), values[:, :, j].ravel(),
            )
        )  # fmt: skip
    found.append(
        compare(
            "mean against the noising chain, score too large: value of the exact score",
            *_means(config, measured, -1), _predicted(config, predicted, 0), control=True,
        )
    )  # fmt: skip
    return found
