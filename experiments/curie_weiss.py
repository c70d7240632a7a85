"""Speciation and information of Curie-Weiss data: non-Gaussian classes with an exact score.

Spins with P0 ~ exp(beta M^2 / 2d + h0 M / d); classes are the signs of M. Measured: the law of the
overlap mu = sum_i x_i / sqrt(d) and the drift that the exact score gives it (the potential and its
bifurcation), clone agreement phi(t) by counting and by clone trajectories for several d, couplings
and total fields, the weights of the two states, and the information per spin of exact densities.
Theory is exact at finite d for the law of the overlap, and holds up to O(1/d) for phi and the
information. Controls: beta in the convention that is off by a factor 2, the score of one saddle
point, and Gaussian data of the same variance.

Source: Biroli, Mezard 2023 (2306.03518); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.curie_weiss as magnet
from diffjax.data.curie_weiss import sign_log_posterior
from diffjax.observables import crossing
from diffjax.observables.speciation import agreement_of_posterior
from experiments.command_line import option
from experiments.comparison import compare
from experiments.curie_weiss_figure import draw
from experiments.curie_weiss_theory import BINS, OFFSETS, middle, sweep
from experiments.curie_weiss_theory import predict as predict
from experiments.session import Curves, Report, Session
from experiments.style import number

OVERLAP = (-1.0, 0.4)  # times of the overlap from the dynamic speciation time
ALPHAS = (0.05, 0.1)  # log n / d of the collapse times
START = 0.4  # saddle point iterations begin at this field
OU = diffjax.ornstein_uhlenbeck()


@dataclass(frozen=True)
class Config:
    """Couplings, sizes and samples."""

    beta: float = option(1.5, "coupling (critical at 1)")
    dims: tuple[int, ...] = option((32, 64, 128, 256), "numbers of spins", nargs="+", type=int)
    times: int = option(9, "branching times")
    states: int = option(20_000, "states per time")
    pairs: int = option(4000, "pairs of clone trajectories per time")
    betas: tuple[float, ...] = option(
        (1.1, 1.2, 1.35, 1.5, 2.0, 3.0), "couplings of the sweep", nargs="+", type=float
    )
    fields: tuple[float, ...] = option(
        (0.0, 0.25, 0.5, 1.0), "total fields h0 of the sweep", nargs="+", type=float
    )
    sweep_dim: int = option(64, "spins in the sweeps and of the overlap")
    overlap_times: int = option(7, "times of the overlap")
    information_dims: tuple[int, ...] = option((64, 128), "d and 2d", nargs=2, type=int)
    information_times: int = option(8, "times of the information")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (16, 64), "times": 5, "states": 8000, "pairs": 2000, "betas": (1.2, 1.5, 2.5),
        "fields": (0.0, 0.4, 1.0), "overlap_times": 3, "information_dims": (32, 64),
        "information_times": 5,
    },
    "quick": {},
    "paper": {"dims": (32, 64, 128, 256, 512), "states": 100_000, "pairs": 20_000},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """All parts, each with a key of its own."""
    if config.information_dims[1] != 2 * config.information_dims[0]:
        raise ValueError(f"information_dims must be d and 2d, got {config.information_dims}")
    keys = jax.random.split(jax.random.key(config.seed), 3 + len(config.dims))
    measured: dict[str, Any] = {}
    for dim, key in zip(config.dims, keys[3:]):
        found = session.part(f"clones-d{dim}", partial(_clones, key, dim, config))
        measured |= {f"{name}_d{dim}": value for name, value in found.items()}
    measured |= session.part("sweeps", lambda: _sweeps(keys[0], config))
    measured |= session.part("overlap", lambda: _overlap(keys[1], config))
    return measured | session.part("information", lambda: _information(keys[2], config))


def _clones(key: jax.Array, dim: int, config: Config) -> Curves:
    """``phi`` by counting, and the frequency of equal signs of clone trajectories."""
    data = diffjax.curie_weiss(dim, config.beta, dtype=config.dtype)
    diffusion = diffjax.Diffusion(data, OU)
    times = middle(dim, config.beta) + np.linspace(*OFFSETS, config.times)
    rows = []
    for i, t in enumerate(times.astype(config.dtype)):
        key_x, key_path = jax.random.split(jax.random.fold_in(key, i))
        x = diffusion.sample(key_x, t, config.states)
        chance = _chance(data.condition_on_nothing(), x, t)
        grid = jnp.asarray([t, t / 2, 0], x.dtype)
        ends, _ = diffjax.clones(key_path, diffusion, x[: config.pairs], grid)
        rows.append((*_mean(chance), *_agreement(ends, chance[: config.pairs])))
    names = ("phi", "phi_error", "clones", "clones_error", "clones_chance")
    return {"times": times} | dict(zip(names, np.asarray(rows).T))


@jax.jit
def _chance(counted: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    """Chance that two clones of each state end with magnetisations of equal sign."""
    return agreement_of_posterior(sign_log_posterior(counted, x, OU.scale(t), OU.std(t)))


def _agreement(ends: jax.Array, chance: jax.Array) -> tuple[float, float, float]:
    """Mean agreement of pairs, its error given the states, and what is expected of these states.

    A magnetisation of zero counts half for each sign.
    """
    sign = np.sign(np.asarray(ends, np.float64).sum(-1).round())
    equal = 0.5 + 0.5 * sign[:, 0] * sign[:, 1]
    expected = np.asarray(chance, np.float64)
    error = np.sqrt(np.mean(expected * (1 - expected)) / len(expected))
    return float(equal.mean()), float(error), float(expected.mean())


def _mean(values: jax.Array) -> tuple[float, float]:
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _sweeps(key: jax.Array, config: Config) -> Curves:
    """``phi`` at ``log(d m^2) / 2``, and the weight of positive magnetisation of clean samples."""
    dim, rows = config.sweep_dim, []
    for i, (beta, field) in enumerate(sweep(config)):
        data = diffjax.curie_weiss(dim, beta, field / dim, dtype=config.dtype)
        t = jnp.asarray(middle(dim, beta), config.dtype)
        phi, sign = _counted(
            data.condition_on_nothing(), jax.random.fold_in(key, i), t, config.states
        )
        rows.append((float(t), *_mean(phi), *_mean(sign)))
    names = ("time", "phi", "phi_error", "weight", "weight_error")
    return {f"sweep_{name}": column for name, column in zip(names, np.asarray(rows).T)}


@partial(jax.jit, static_argnames="states")
def _counted(
    counted: Any, key: jax.Array, t: jax.Array, states: int
) -> tuple[jax.Array, jax.Array]:
    """Chance of agreement at fresh states, and whether their data have M > 0 (ties one half)."""
    key_a, key_x = jax.random.split(key)
    a = counted.sample(key_a, states)
    x = diffjax.processes.perturb(key_x, OU, a, t)
    return _chance(counted, x, t), 0.5 + 0.5 * jnp.sign(jnp.round(jnp.sum(a, axis=-1)))


def _overlap(key: jax.Array, config: Config) -> Curves:
    """Overlaps of noised states, with their drift from the exact score and from one saddle."""
    dim = config.sweep_dim
    diffusion = diffjax.Diffusion(diffjax.curie_weiss(dim, config.beta, dtype=config.dtype), OU)
    t_u = float(magnet.dynamic_speciation_time(dim, config.beta))
    times = t_u + np.linspace(*OVERLAP, config.overlap_times)
    rows = []
    for i, t in enumerate(times.astype(config.dtype)):
        x = diffusion.sample(jax.random.fold_in(key, i), t, config.states)
        rows.append([np.asarray(v, np.float64) for v in _drifts(diffusion, x, t, config.beta)])
    mu, drift, saddle = np.moveaxis(np.asarray(rows), 1, 0)
    return {"overlap_times": times, "overlap": mu, "drift": drift, "drift_saddle": saddle}


@jax.jit
def _drifts(
    diffusion: diffjax.Diffusion, x: jax.Array, t: jax.Array, beta: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """``mu`` and its backward drift ``sum_i (x_i + 2 F_i) / sqrt(d)``, exact and by one saddle."""
    root = np.sqrt(x.shape[-1]).astype(x.dtype)
    scale, variance = OU.scale(t), OU.variance(t)

    def iterate(_: int, v: jax.Array) -> jax.Array:
        return jnp.mean(jnp.tanh(beta * v + scale * x / variance), axis=-1, keepdims=True)

    v = jax.lax.fori_loop(0, 300, iterate, jnp.full_like(x[:, :1], START))
    mean = jnp.tanh(beta * v + scale * x / variance)
    scores = (diffusion.score(x, t), (scale * mean - x) / variance)
    mu, *drifts = (jnp.sum(y, axis=-1) / root for y in (x, *(x + 2 * f for f in scores)))
    return mu, *drifts


def information_times(config: Config) -> np.ndarray:
    """Times at which the information is measured."""
    return np.geomspace(0.05, 1.5, config.information_times)


def _information(key: jax.Array, config: Config) -> Curves:
    """Information per spin between datum and state: mean log-ratio of exact densities."""
    found = {"information_times": information_times(config)}
    for dim in config.information_dims:
        diffusion = diffjax.Diffusion(diffjax.curie_weiss(dim, config.beta, dtype=config.dtype), OU)
        rows = []
        for i, t in enumerate(found["information_times"].astype(config.dtype)):
            row = jax.random.fold_in(jax.random.fold_in(key, dim), i)
            rows.append(_mean(_log_ratio(diffusion, row, t, config.states)))
        mean, error = np.asarray(rows).T
        found |= {f"information_d{dim}": mean, f"information_error_d{dim}": error}
    return found


@partial(jax.jit, static_argnames="states")
def _log_ratio(
    diffusion: diffjax.Diffusion, key: jax.Array, t: jax.Array, states: int
) -> jax.Array:
    """``[log p(x | a) - log p(x)] / d`` of fresh pairs."""
    key_a, key_z = jax.random.split(key)
    a = diffusion.data.sample(key_a, states)
    z = jax.random.normal(key_z, a.shape, a.dtype)
    x = OU.scale(t) * a + OU.std(t) * z
    conditional = -0.5 * jnp.sum(z**2 + jnp.log(2 * jnp.pi * OU.variance(t)), axis=-1)
    return (conditional - diffusion.log_density(x, t)) / diffusion.dim


def binned_drift(measured: dict[str, Any], drift: np.ndarray, i: int) -> tuple[np.ndarray, ...]:
    """Mean ``|mu|``, outward drift and its error in bins of ``|mu|`` at the i-th time."""
    mu = measured["overlap"][i]
    order = np.argsort(np.abs(mu))
    outward = (np.sign(mu) * drift[i])[order]
    parts = list(zip(np.array_split(np.abs(mu)[order], BINS), np.array_split(outward, BINS)))
    return tuple(
        np.asarray(column)
        for column in zip(
            *((a.mean(), b.mean(), b.std(ddof=1) / np.sqrt(len(b))) for a, b in parts)
        )
    )


def minima(
    config: Config, measured: dict[str, Any], drift: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where a drift at the measured overlaps changes its sign; 0 where it points inward."""
    found = []
    for i in range(config.overlap_times):
        place, error = crossing(*binned_drift(measured, drift, i), 0.0)
        found.append((place, error) if np.isfinite(place) else (0.0, 0.0))
    return tuple(np.asarray(found).T)


def extrapolated(config: Config, measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Information per spin without its 1/d term, ``2 I(2d) - I(d)``, and its error."""
    (small, large), errors = (
        [measured[f"{name}_d{dim}"] for dim in config.information_dims]
        for name in ("information", "information_error")
    )
    return 2 * large - small, np.hypot(2 * errors[1], errors[0])


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact laws at finite d, formulas for large d, and three wrong theories."""
    largest, n = config.dims[-1], config.sweep_dim

    def gather(source: dict[str, Any], name: str) -> np.ndarray:
        return np.concatenate([source[f"{name}_d{dim}"] for dim in config.dims])

    share, expected = _bin_shares(config, measured, predicted), 1 / BINS
    error = np.full(share.shape, np.sqrt(expected * (1 - expected) / config.states))
    drifts = [_drift_gaps(config, measured, predicted, v) for v in ("drift", "drift_saddle")]
    weight = measured["sweep_weight"], measured["sweep_weight_error"]
    info = extrapolated(config, measured)
    phi = measured[f"phi_d{largest}"], measured[f"phi_error_d{largest}"]
    return [
        compare(f"law of the overlap, d = {n}", share, error, np.full(share.shape, expected)),
        compare(f"drift of the overlap, d = {n}", *drifts[0], 0 * drifts[0][0]),
        compare(
            "clone trajectories and counting, all d", gather(measured, "clones"),
            gather(measured, "clones_error"), gather(measured, "clones_chance"),
        ),
        compare("weight of M > 0 in the sweeps", *weight, predicted["sweep_weight"]),
        compare("law of the overlap, beta / 2", share, error, predicted["overlap_wrong"],
                control=True),
        compare(f"drift by one saddle point, d = {n}", *drifts[1], 0 * drifts[1][0], control=True),
        compare("information, Gaussian of equal variance", *info, predicted["gaussian"],
                control=True),
        compare(f"phi, formula, d = {largest}", *phi, predicted[f"phi_d{largest}"], exact=False),
        compare(
            f"phi, from the overlap, d = {largest}", *phi, predicted[f"overlap_phi_d{largest}"],
            exact=False,
        ),
        compare(
            "phi, sweeps, from the overlap", measured["sweep_phi"], measured["sweep_phi_error"],
            predicted["sweep_phi"], exact=False,
        ),
        compare("information without its 1/d term", *info, predicted["information"], exact=False),
    ]  # fmt: skip


def _bin_shares(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> np.ndarray:
    """Measured fraction of overlaps in each bin, ``(T, BINS)``."""
    rows = zip(measured["overlap"], predicted["overlap_edges"])
    return (
        np.asarray([np.bincount(np.searchsorted(e, mu), minlength=BINS) for mu, e in rows])
        / config.states
    )


def _drift_gaps(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any], name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the drift less its prediction at each overlap, in bins, and its error."""
    gap = measured[name] - predicted["overlap_drift"]
    rows = [binned_drift(measured, gap, i) for i in range(config.overlap_times)]
    return tuple(np.concatenate([row[k] for row in rows]) for k in (1, 2))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Finite-size shifts, weights, collapse times, comparisons, one sentence."""
    found = comparisons(config, measured, predicted)
    rows, summary = [], {"shift_times_d": {}}
    for dim in config.dims:
        shift, error = shift_times_d(dim, measured, predicted)
        summary["shift_times_d"][str(dim)] = {"value": shift, "error": error}
        rows.append((f"d = {dim}: d (phi - formula), mean over times", number(shift, error)))
    place, place_error = minima(config, measured, measured["drift"])
    exact, _ = minima(config, measured, predicted["overlap_drift"])  # read off the same bins
    for t, value, error, expected in zip(measured["overlap_times"], place, place_error, exact):
        text = f"{number(value, error)}, exact {expected:.3f}"
        rows.append((f"minimum of the potential at t = {t:.2f}", text))
    for (beta, field), *values in zip(
        sweep(config), measured["sweep_weight"], measured["sweep_weight_error"],
        predicted["sweep_weight"], predicted["sweep_weight_large"],
    ):  # fmt: skip
        if field:
            text = f"{number(*values[:2])}, exact {values[2]:.4f}, large d {values[3]:.4f}"
            rows.append((f"weight of M > 0 at h0 = {field:g}, beta = {beta:g}", text))
    info, error = extrapolated(config, measured)
    for alpha in ALPHAS:
        entry = _collapse_time(alpha, config.beta, measured, predicted, info, error)
        summary[f"collapse_time_alpha{alpha:g}"] = entry
        text = f"{number(entry['value'], entry['error'])}, theory {number(entry['theory'])}"
        rows.append((f"I = alpha = {alpha:g} at t_C", text))
    summary["minima"] = {"value": place, "error": place_error, "exact": exact}
    summary["information"] = {"value": info, "error": error, "theory": predicted["information"]}
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted, (place, place_error), (info, error)),
    )  # fmt: skip


def _collapse_time(
    alpha: float,
    beta: float,
    measured: dict[str, Any],
    predicted: dict[str, Any],
    info: np.ndarray,
    error: np.ndarray,
) -> dict[str, float]:
    """Where the measured information is alpha, freed of the bias of interpolation by theory's."""
    log_t = np.log(measured["information_times"])
    place, spread = crossing(log_t, info, error, alpha)
    same, _ = crossing(log_t, predicted["information"], error, alpha)
    exact = float(magnet.collapse_time(alpha, beta))
    value = exact * np.exp(place - same)
    return {"value": value, "error": value * spread, "theory": exact}


def shift_times_d(
    dim: int, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[float, float]:
    """``d`` times the mean over times of measured ``phi`` less the formula, and its error."""
    gap = measured[f"phi_d{dim}"] - predicted[f"phi_d{dim}"]
    error = measured[f"phi_error_d{dim}"]
    return dim * float(gap.mean()), dim * float(np.sqrt(np.sum(error**2)) / len(error))


def _finding(config: Config, found: list, summary: dict[str, Any]) -> str:
    shift = summary["shift_times_d"][str(config.dims[0])]
    law, drift = found[0], found[1]
    return (
        f"At beta = {config.beta:g} the overlap of the noised magnet has the exact law and drift "
        f"of finite d (reduced chi-square {law.chi_square:.2f} and {drift.chi_square:.2f}); clone "
        f"agreement differs from the large-d formula by {number(shift['value'], shift['error'])} "
        f"/ d on average at d = {config.dims[0]}, and the information per spin tends to that of "
        f"independent spins of mean m*, not to that of Gaussian data (reduced chi-square "
        f"{found[6].chi_square:.0f})."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    """Measured and predicted arrays with their descriptions."""
    texts = {
        "sweep_time": "branching times of the sweeps (couplings, then total fields)",
        "sweep_phi": "clone agreement of the sweeps by counting",
        "sweep_phi_error": "its standard error",
        "sweep_weight": "weight of M > 0 among clean samples",
        "sweep_weight_error": "its standard error",
        "overlap_times": "OU times of the overlap",
        "information_times": "OU times of the information",
    }
    for dim in config.information_dims:
        texts[f"information_d{dim}"] = f"d = {dim}: information per spin in nats"
        texts[f"information_error_d{dim}"] = f"d = {dim}: its standard error"
    for dim in config.dims:
        for name, text in (
            ("times", "OU branching times"), ("phi", "clone agreement by counting"),
            ("phi_error", "its standard error"), ("clones", "agreement of clone trajectories"),
            ("clones_error", "its standard error given the states"),
        ):  # fmt: skip
            texts[f"{name}_d{dim}"] = f"d = {dim}: {text}"
    curves = {name: np.asarray(measured[name]) for name in texts}
    more = {
        "branch_times": "OU times of the bifurcation diagram",
        "branch": "right minimum of the potential of large d",
        "branch_exact": "right minimum of the exact potential",
        "fine_betas": "couplings of the theory curves",
        "fine_beta_phi": "clone agreement from the overlap at fine_betas",
        "fine_fields": "total fields of the theory curves",
        "fine_field_phi": "clone agreement from the overlap at fine_fields",
        "information_fine_times": "OU times of the theory of the information",
        "information_fine": "information per spin of one pure state in nats",
    }
    for dim in config.dims:
        more[f"phi_fine_d{dim}"] = f"d = {dim}: formula for phi at fine_offsets from log(d m^2)/2"
    more["fine_offsets"] = "times from log(d m^2)/2"
    return curves | {name: np.asarray(predicted[name]) for name in more}, texts | more
