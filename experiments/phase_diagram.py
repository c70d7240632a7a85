"""Phases of the generative potential of two Gaussians in the plane of centre and time.

The frozen potential U = -2 log p_t - |x|^2/2 of the reverse SDE has one well, two wells, or no
lower bound; the noised law p_t has one mode or two. These are different events, and neither is the
time at which the entropy flow of the generative process changes its sign. The number of stable
fixed points and the critical times are found by following the drifts of the simulator, the flow
from samples, and the decision of the class from clones of the backward SDE. The Gibbs measure of
the frozen potential, sampled by Hamiltonian Monte Carlo, is a mixture of three Gaussians and not
p_t.

Traps that the figure shows: U has two wells while p_t has one mode; the flow changes its sign where
nothing happens, mostly below the dynamic time and for weak centres above it; for variances above 2
the potential is unbounded at early times, and the SDE samples the data all the same; exp(-U) is not
the law of the process.

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

import diffjax
import theory.clone_agreement
import theory.phase_diagram
import theory.speciation
import theory.thermodynamics
from diffjax import Diffusion, schedules
from diffjax.observables import stability, thermodynamics
from experiments.command_line import option
from experiments.comparison import Comparison, compare, histogram_hazards
from experiments.phase_diagram_figure import draw
from experiments.session import Curves, Report, Session
from experiments.style import number

DENSITY = 1e8  # noise at which the drift is the score
GIBBS = ((0.3, 1.0, 0.4), (0.3, 1.5, 0.4), (0.45, 1.0, 2.5))
"""Time, mean and variance of the frozen potentials that are sampled: two wells under one mode of
the noised law, two wells under two modes, and little above the unbounded region."""
T_LOW = 0.02


@dataclass(frozen=True)
class Config:
    """Grid of the plane, samples and chains."""

    variances: tuple[float, ...] = option((0.4, 1.5, 2.5), "variances", nargs="+", type=float)
    means: int = option(8, "norms of the centre between 0.3 and 3")
    times: int = option(12, "times of the grid between 0.02 and 1.8")
    fine: int = option(400, "times along which the growth rate at the centre is followed")
    samples: int = option(40_000, "states for each entropy flow")
    pairs: int = option(20_000, "pairs of clones at each time")
    chains: int = option(4000, "independent chains in each frozen potential")
    warmup: int = option(100, "transitions of a chain before its one sample")
    paths: int = option(40_000, "paths of the SDE through the unbounded potential")
    steps: int = option(800, "Euler steps of these paths")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float64", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "means": 4, "times": 5, "fine": 150, "samples": 8000, "pairs": 4000, "chains": 1000,
        "warmup": 60, "paths": 8000, "steps": 300, "variances": (0.4, 2.5),
    },
    "quick": {},
    "paper": {
        "means": 24, "times": 40, "fine": 2000, "samples": 1_000_000, "pairs": 400_000,
        "chains": 40_000, "warmup": 300, "paths": 400_000, "steps": 4000,
    },
}  # fmt: skip


def model_of(mean: Any, variance: Any, dtype: Any) -> Diffusion:
    """Two balanced Gaussians on a line; mean and variance may be traced."""
    centre = jnp.asarray(mean, dtype).reshape(1, 1)
    means = jnp.concatenate([centre, -centre])
    data = diffjax.gaussian_mixture(jnp.ones(2, dtype), means, jnp.asarray(variance, dtype))
    return Diffusion(data, diffjax.ornstein_uhlenbeck())


def means_of(config: Config) -> np.ndarray:
    """Norms of the centres."""
    return np.linspace(0.3, 3.0, config.means)


def grid_of(config: Config) -> np.ndarray:
    """Times at which stable points are counted."""
    return np.linspace(T_LOW, 1.8, config.times)


def clone_times(mean: float, variance: float) -> np.ndarray:
    """Times around the static and the dynamic time."""
    middle = float(theory.speciation.mixture_dynamic_time(mean, variance))
    return middle * np.array([0.25, 0.5, 0.75, 1.0, 1.4, 2.0])


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Counts and critical times, flows, clones, frozen chains, and paths."""
    key = jax.random.key(config.seed)
    measured: dict[str, Any] = {}
    measured |= session.part("phases", partial(_phases, config))
    for index, (name, make) in enumerate(
        (("flows", _flows), ("clones", _clones), ("frozen", _frozen), ("paths", _paths))
    ):
        work = partial(make, jax.random.fold_in(key, index), config)
        measured |= session.part(name, work)
    return measured


def _phases(config: Config) -> Curves:
    """Stable points of U and p_t, ``(V, M, T)``, and critical times of the centre, ``(V, M)``."""
    times, means = jnp.asarray(grid_of(config)), jnp.asarray(means_of(config))
    fine = jnp.asarray(np.linspace(2.2, T_LOW, config.fine))
    found = [
        _phase_grid(means, times, fine, jnp.asarray(v), config.dtype) for v in config.variances
    ]
    names = ("wells", "modes", "critical_u", "critical_p")
    return {name: np.stack([np.asarray(each[i]) for each in found]) for i, name in enumerate(names)}


@partial(jax.jit, static_argnames="dtype")
def _phase_grid(
    means: jax.Array, times: jax.Array, fine: jax.Array, variance: jax.Array, dtype: str
) -> tuple[jax.Array, ...]:
    starts = jnp.asarray([[0.0], [0.3], [-0.3], [3.0], [-3.0]], dtype)
    centre = jnp.zeros((fine.size, 1), dtype)

    def at_mean(mean: jax.Array) -> tuple[jax.Array, ...]:
        model = model_of(mean, variance, dtype)

        def count(t: jax.Array, noise: float) -> jax.Array:
            return stability.stable_points(model, starts, t, noise=noise).number

        rates = [
            stability.drift_jacobian(model, centre, fine.astype(dtype), noise)[:, 0, 0]
            for noise in (1.0, DENSITY)
        ]
        critical = [stability.critical_times(fine, rate) for rate in rates]
        wells = jax.lax.map(lambda t: count(t, 1.0), times)
        modes = jax.lax.map(lambda t: count(t, DENSITY), times)
        return wells, modes, *critical

    return jax.lax.map(at_mean, means)


def flow_points(config: Config) -> list[tuple[float, float]]:
    """Mean and variance of the measured entropy flows."""
    return [(1.0, config.variances[0]), (1.5, config.variances[0]), (1.0, config.variances[-1])]


FLOW_TIMES = np.array([0.06, 0.12, 0.18, 0.24, 0.3, 0.4, 0.5, 0.6, 0.9])
ZERO = 1
"""Index of the flow whose zero is quoted."""


def _flows(key: jax.Array, config: Config) -> Curves:
    """Entropy flow of the generative process, ``(P, T)``, and its standard error."""
    found = []
    for i, (mean, variance) in enumerate(flow_points(config)):
        model = model_of(mean, variance, config.dtype)
        rates = thermodynamics.rates(jax.random.fold_in(key, i), model, FLOW_TIMES, config.samples)
        found.append(np.stack(rates.reverse_flow))
    values = np.asarray(found, np.float64)
    return {"flow": values[:, 0], "flow_error": values[:, 1]}


def _clones(key: jax.Array, config: Config) -> Curves:
    """Fraction of pairs of the backward SDE that end in the same class, ``(V, T)``."""
    rows = [
        _agreements(
            jax.random.fold_in(key, i), jnp.asarray(clone_times(1.5, v), config.dtype),
            jnp.asarray(v, config.dtype), config.pairs,
        )
        for i, v in enumerate(config.variances)
    ]  # fmt: skip
    agreement = np.asarray(rows, np.float64)
    error = np.sqrt(agreement * (1 - agreement) / config.pairs)
    return {"agreement": agreement, "agreement_error": error}


@partial(jax.jit, static_argnames="pairs")
def _agreements(key: jax.Array, times: jax.Array, variance: jax.Array, pairs: int) -> jax.Array:
    """Fraction of equal classes at each time, of a backward chain with two exact steps."""
    model = model_of(1.5, variance, times.dtype)

    def one(item: tuple[jax.Array, jax.Array]) -> jax.Array:
        index, t = item
        key_x, key_c, key_l = jax.random.split(jax.random.fold_in(key, index), 3)
        x = model.sample(key_x, t, pairs)
        ends, _ = diffjax.clones(key_c, model, x, t * jnp.asarray([1.0, 0.6, 0.0], t.dtype))
        # the class of a datum is drawn from its posterior given the datum itself
        log_p = model.data.class_log_posterior(ends, jnp.ones_like(t), jnp.zeros_like(t))
        label = jax.random.categorical(key_l, log_p)
        return jnp.mean((label[:, 0] == label[:, 1]).astype(t.dtype))

    return jax.lax.map(one, (jnp.arange(times.size), times))


def _frozen(key: jax.Array, config: Config) -> Curves:
    """One sample of each chain in each frozen potential, ``(G, chains)``."""
    from numpyro.infer import MCMC, NUTS

    # one run in the product of all potentials, whose coordinates are independent
    sampler = MCMC(
        NUTS(_frozen_model, max_tree_depth=4), num_warmup=config.warmup, num_samples=1,
        num_chains=config.chains, chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    key_start, key_run = jax.random.split(key)
    start = 2 * jax.random.normal(key_start, (config.chains, len(GIBBS)), config.dtype)
    sampler.run(key_run, jnp.asarray(GIBBS, config.dtype), init_params={"y": start})
    return {"frozen": np.asarray(sampler.get_samples()["y"], np.float64).T}


def _frozen_model(points: jax.Array) -> None:
    """The product of the Gibbs measures exp(-U) of the simulator's densities, for numpyro."""
    import numpyro
    import numpyro.distributions as dist

    y = numpyro.sample("y", dist.ImproperUniform(dist.constraints.real, (), (len(GIBBS),)))

    def minus_potential(y: jax.Array, point: jax.Array) -> jax.Array:
        t, mean, variance = point
        model = model_of(mean, variance, t.dtype)
        scale, std = model.process.scale(t), model.process.std(t)
        return 2 * model.data.log_normaliser(y[None], scale, std) + 0.5 * y**2

    numpyro.factor("potential", jnp.sum(jax.vmap(minus_potential)(y, points)))


def _paths(key: jax.Array, config: Config) -> Curves:
    """Second moment of Euler paths of the SDE that cross the unbounded potential, at each end."""
    variance = config.variances[-1]
    model = model_of(1.0, variance, config.dtype)
    key_start, key_path = jax.random.split(key)
    x = model.sample(key_start, 1.5, config.paths)
    times = schedules.backward_grid(schedules.linear(0.0, 1.5, config.steps + 1), None)
    x, _ = diffjax.backward(key_path, model, x, times, method="euler_maruyama")
    square = np.asarray(x[:, 0], np.float64) ** 2
    error = square.std(ddof=1) / math.sqrt(config.paths)
    return {"second_moment": np.array([square.mean(), error])}


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Lines of the plane, counts, flows, agreements, and laws of the frozen potentials."""
    means, fine = means_of(config), np.linspace(0.05, 3.2, 200)
    lines: dict[str, list] = {name: [] for name in ("dynamic", "static", "unbounded", "zero")}
    for variance in config.variances:
        lines["dynamic"].append(theory.speciation.mixture_dynamic_time(fine, variance))
        lines["static"].append(theory.speciation.mixture_static_time(fine, variance))
        lines["unbounded"].append(theory.phase_diagram.unbounded_time(variance))
        lines["zero"].append(theory.thermodynamics.reverse_flow_zero(fine[::4], variance))
    grid = (grid_of(config), means[:, None], np.asarray(config.variances)[:, None, None])
    well = np.asarray(theory.phase_diagram.well_position(*grid))
    mode = np.asarray(theory.phase_diagram.mode_position(*grid))
    variances = np.asarray(config.variances)
    flows = np.asarray(flow_points(config))
    rates = theory.thermodynamics.mixture_rates(FLOW_TIMES, flows[:, :1], flows[:, 1:])
    clone_grid = np.stack([clone_times(1.5, v) for v in variances])
    agreement = theory.clone_agreement.mixture_clone_agreement
    return {
        "fine_means": fine, **{name: np.stack(rows) for name, rows in lines.items()},
        "wells_theory": np.where(np.isnan(well), 0, np.where(well > 0, 2, 1)),
        "modes_theory": np.where(mode > 0, 2, 1),
        "critical_u_theory": _of_plane(theory.speciation.mixture_dynamic_time, config),
        "critical_p_theory": _of_plane(theory.speciation.mixture_static_time, config),
        "flow_theory": np.asarray(rates.reverse_flow), "flow_wrong": np.asarray(rates.flow),
        "clone_times": clone_grid,
        "agreement_theory": np.asarray(agreement(clone_grid, 1.5, variances[:, None])),
        "agreement_wrong": np.asarray(agreement(clone_grid, 1.5, 1.0)),
        **_gibbs(),
    }  # fmt: skip


def _of_plane(time: Any, config: Config) -> np.ndarray:
    """Critical times ``(V, M)``; NaN below the grid."""
    value = np.asarray(time(means_of(config), np.asarray(config.variances)[:, None]))
    return np.where(value > T_LOW, value, np.nan)


def _gibbs() -> dict[str, Any]:
    """Bins of the frozen samples, exact laws, and the noised law."""
    from scipy.stats import norm

    unit = np.linspace(-3.5, 3.5, 36)
    edges: list = []
    laws, noised, variances, divergences = [], [], [], []
    for t, mean, variance in GIBBS:
        second = float(theory.phase_diagram.equilibrium_variance(t, mean, variance))
        at = unit * math.sqrt(second)
        edges.append(at)
        laws.append(theory.phase_diagram.equilibrium_distribution(at, t, mean, variance))
        centre = mean * math.exp(-t)
        spread = math.sqrt(1 + (variance - 1) * math.exp(-2 * t))
        noised.append(0.5 * (norm.cdf(at, centre, spread) + norm.cdf(at, -centre, spread)))
        variances.append([second, spread**2 + centre**2])
        divergences.append(theory.phase_diagram.equilibrium_divergence(t, mean, variance))
    return {
        "edges": np.stack(edges), "gibbs_law": np.stack(laws), "noised_law": np.stack(noised),
        "gibbs_variances": np.asarray(variances), "divergence": np.asarray(divergences),
    }  # fmt: skip


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Frozen samples, clones and flows, each with a wrong theory, and the paths."""

    def hazards(law: np.ndarray) -> list[np.ndarray]:
        rows = [
            histogram_hazards(x, edges, b)
            for x, edges, b in zip(measured["frozen"], predicted["edges"], law)
        ]
        return [np.concatenate(parts) for parts in zip(*rows)]

    def flat(name: str) -> np.ndarray:
        return np.ravel((measured | predicted)[name])

    agreement = flat("agreement_theory")
    error = np.sqrt(agreement * (1 - agreement) / config.pairs)
    mean, moment_error = measured["second_moment"]
    exact = 1.0 + config.variances[-1]
    return [
        compare("Gibbs measure of the frozen potential", *hazards(predicted["gibbs_law"])),
        compare("noised law taken for the Gibbs measure", *hazards(predicted["noised_law"]),
                control=True),
        compare("clone agreement of the backward SDE", flat("agreement"), error, agreement),
        compare("clone agreement, variance 1 in place of its own", flat("agreement"), error,
                flat("agreement_wrong"), control=True),
        compare("entropy flow of the generative process", flat("flow"), flat("flow_error"),
                flat("flow_theory")),
        compare("entropy flow of the forward process in its place", flat("flow"),
                flat("flow_error"), flat("flow_wrong"), control=True),
        compare("second moment of data from Euler paths", [mean], [moment_error], [exact],
                exact=False),
    ]  # fmt: skip


def mismatches(measured: dict[str, Any], predicted: dict[str, Any]) -> dict[str, float]:
    """Counts of points in the wrong phase, and largest distances of critical times."""
    found: dict[str, float] = {}
    for name in ("wells", "modes"):
        found[name] = float(np.sum(measured[name] != predicted[f"{name}_theory"]))
    for name in ("critical_u", "critical_p"):
        both = np.stack([measured[name], predicted[f"{name}_theory"]])
        found[f"{name}_existence"] = float(np.sum(np.isnan(both[0]) != np.isnan(both[1])))
        found[name] = float(np.nanmax(np.abs(both[0] - both[1])))
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Phases, critical times, flow zero, Gibbs measure, and one sentence."""
    found, wrong = comparisons(config, measured, predicted), mismatches(measured, predicted)
    points = measured["wells"].size
    zero, zero_error = flow_zero(measured)
    where = flow_points(config)[ZERO]
    exact_zero = float(theory.thermodynamics.reverse_flow_zero(*where))
    mean, error = measured["second_moment"]
    table = [
        ("stable points of U counted otherwise than by theory",
         f"{wrong['wells']:.0f} of {points}"),
        ("modes of p_t counted otherwise than by theory", f"{wrong['modes']:.0f} of {points}"),
        ("largest distance of critical times, U and p_t",
         f"{wrong['critical_u']:.1g}, {wrong['critical_p']:.1g}"),
        (f"zero of the entropy flow, mean {where[0]:g}, variance {where[1]:g}",
         f"t = {number(zero, zero_error)}, theory {exact_zero:.4f}"),
        ("second moment by SDE through the unbounded potential",
         f"{number(mean, error)}, data {1 + config.variances[-1]:g}"),
    ]  # fmt: skip
    table += [
        (f"variance at t = {t:g}, mean {m:g}, variance {v:g}",
         f"frozen chains {np.var(x):.3f}, exp(-U) {pair[0]:.4f}, p_t {pair[1]:.4f}; "
         f"divergence of p_t {kl:.3f} nats")
        for (t, m, v), x, pair, kl in zip(
            GIBBS, measured["frozen"], predicted["gibbs_variances"], predicted["divergence"]
        )
    ]  # fmt: skip
    summary = {
        "mismatches": wrong, "points": points, "flow_zero": [zero, zero_error, exact_zero],
        "second_moment": [mean, error, 1 + config.variances[-1]],
        "divergence": list(predicted["divergence"]),
    }  # fmt: skip
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=_finding(config, found, wrong, (zero, zero_error), predicted), table=table,
        summary=summary, curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def flow_zero(measured: dict[str, Any]) -> tuple[float, float]:
    """First measured zero of an entropy flow, and its error."""
    from diffjax.observables.estimates import crossing

    flow, error = measured["flow"][ZERO], measured["flow_error"][ZERO]
    # the first change of sign only: the flow returns to zero from below at large times
    last = int(np.argmax(flow < 0)) + 1
    return crossing(FLOW_TIMES[:last], flow[:last], error[:last], 0.0)


def _finding(
    config: Config, found: list[Comparison], wrong: dict, zero: tuple, predicted: dict[str, Any]
) -> str:
    mean, v = flow_points(config)[ZERO]
    static = float(theory.speciation.mixture_static_time(mean, v))
    dynamic = float(theory.speciation.mixture_dynamic_time(mean, v))
    reached = max(wrong["critical_u"], wrong["critical_p"])
    return (
        f"For centres at {mean:g} and variance {v:g} the frozen potential splits at t = "
        f"{dynamic:.3f}, the noised law at {static:.3f}, and the entropy flow of the generative "
        f"process changes sign at {number(*zero)}: three different events; simulated fixed points "
        f"reproduce the boundaries of the plane to {reached:.0e} in t; the Gibbs measure of the "
        f"frozen potential is the predicted mixture of three Gaussians (reduced chi-square "
        f"{found[0].chi_square:.2f}) and not the noised law, which is up to "
        f"{predicted['divergence'].max():.2f} nats away; class decisions follow the clone "
        f"agreement (reduced chi-square {found[2].chi_square:.2f}) through all boundaries."
    )


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    axes = {
        "wells": "number of stable points of U (variance, mean, time)",
        "modes": "number of modes of p_t (variance, mean, time)",
        "wells_theory": "the same by theory, 0 where U is unbounded",
        "modes_theory": "the same by theory",
        "flow": "entropy flow of the generative process (mixture, time)",
        "flow_error": "its standard error",
        "flow_theory": "entropy flow by quadrature",
        "clone_times": "OU times of the clones (variance, time)",
        "agreement": "fraction of clones in the same class (variance, time)",
        "agreement_error": "its standard error",
        "agreement_theory": "clone agreement by quadrature",
        "edges": "ends of the bins of the frozen samples (potential, edge)",
        "gibbs_law": "distribution function of exp(-U) at the edges (potential, edge)",
        "noised_law": "distribution function of p_t at the edges",
        "frozen": "one sample of each chain (potential, chain)",
    }
    return {name: np.asarray((measured | predicted)[name]) for name in axes}, axes
