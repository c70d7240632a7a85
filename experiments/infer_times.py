"""Speciation and collapse times inferred from measured curves, and chains that stop mixing.

Many replicas of one study: two Gaussian classes whose |m| and sigma^2 are drawn from a prior are
diffused, clones and information densities are measured at a few times, and the times are inferred
with the theory as likelihood. Because the truth is known, the posteriors can be checked: ranks of
the truth must be uniform and standardised errors of unit size (simulation-based calibration). The
naive midpoint of a fitted logistic curve is biased. Beside it, Markov chains on P_t that start in
both classes: their split r-hat leaves 1 at speciation.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491) for the curves; Talts et al. 2018
(1804.06788) for the calibration.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.clone_agreement
import theory.collapse
import theory.excess_entropy
import theory.speciation
from diffjax import processes
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, BLUE, GREEN, ORANGE, RED, line, number, points

THIN = 5  # draws between two that count as independent
FIRST, LAST = 0.25, 3.5  # measured times
STUCK = 1.1  # split r-hat beyond which chains have not mixed


@dataclass(frozen=True)
class Config:
    """Sizes of a replica and of its posterior."""

    dim: int = option(64, "dimension")
    n: int = option(2000, "training points whose collapse is asked for")
    replicas: int = option(200, "replicas, each with its own truth")
    times: int = option(9, "measured times of a replica, even in log t")
    pairs: int = option(150, "pairs of clones per time, each branched from its own state")
    states: int = option(150, "states per time behind the excess entropy")
    prior_norm: float = option(4.0, "median of |m| in the prior")
    prior_norm_spread: float = option(0.4, "standard deviation of log |m|")
    prior_variance: float = option(0.8, "median of sigma^2 in the prior")
    prior_variance_spread: float = option(0.4, "standard deviation of log sigma^2")
    warmup: int = option(300, "steps of adaptation of a posterior")
    draws: int = option(99, "posterior draws kept, one in five")
    chains: int = option(8, "chains on P_t, half of them started in each class")
    chain_times: int = option(9, "times at which chains on P_t run")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float64", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dim": 24, "n": 200, "replicas": 24, "times": 6, "pairs": 100, "states": 100,
        "warmup": 150, "draws": 39, "chains": 4, "chain_times": 5,
    },
    "quick": {"replicas": 60, "draws": 59},
    "paper": {},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Truths and data of all replicas; their posteriors; chains on ``P_t``."""
    if config.replicas < 8:
        raise ValueError(f"replicas is {config.replicas}; a calibration needs at least 8")
    measured = session.part("replicas", lambda: _replicas(config))
    measured |= session.part("posteriors", lambda: _posteriors(config, measured))
    return measured | session.part("chains", lambda: _chains(config))


def _prior(config: Config) -> Any:
    from theory.inference import MixturePrior

    return MixturePrior(
        (float(np.log(config.prior_norm)), config.prior_norm_spread),
        (float(np.log(config.prior_variance)), config.prior_variance_spread),
    )


def _replicas(config: Config) -> Curves:
    """Parameters from the prior, and what would be measured on such data."""
    key_norm, key_variance, key_data = jax.random.split(jax.random.key(config.seed), 3)
    norm, variance = (
        jnp.exp(location + spread * jax.random.normal(key, (config.replicas,), config.dtype))
        for key, (location, spread) in zip((key_norm, key_variance), _prior(config))
    )
    times = jnp.geomspace(FIRST, LAST, config.times, dtype=config.dtype)
    keys = jax.random.split(key_data, config.replicas)
    agreeing, information, error = _measure(
        keys, norm, variance, times, config.dim, config.pairs, config.states
    )
    excess = (np.log(config.n) - np.asarray(information)) / config.dim
    return {
        "times": np.asarray(times), "mean_norm": np.asarray(norm),
        "variance": np.asarray(variance), "agreeing": np.asarray(agreeing),
        "excess": excess, "excess_error": np.asarray(error) / config.dim,
    }  # fmt: skip


@partial(jax.jit, static_argnums=(4, 5, 6))
def _measure(
    keys: jax.Array,
    norm: jax.Array,
    variance: jax.Array,
    times: jax.Array,
    dim: int,
    pairs: int,
    states: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Agreeing pairs, and mean and error of the information density, each ``(R, T)``."""
    process = diffjax.ornstein_uhlenbeck()
    unit = jnp.full((dim,), 1 / np.sqrt(dim), norm.dtype)

    def one(item: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, length, spread = item
        means = length * jnp.stack([unit, -unit])
        data = diffjax.gaussian_mixture(jnp.full((2,), 0.5, norm.dtype), means, spread)

        def at(key: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            scale, std = process.scale(t), process.std(t)
            key_a, key_x, key_class, key_b, key_y = jax.random.split(key, 5)
            x = processes.perturb(key_x, process, data.sample(key_a, pairs), t)
            log_p = data.class_log_posterior(x, scale, std)
            drawn = jax.random.categorical(key_class, log_p, shape=(2, pairs))
            clean = data.sample(key_b, states)
            y = processes.perturb(key_y, process, clean, t)
            gap = (y - scale * clean) / std
            channel = -0.5 * jnp.sum(gap**2, -1) - 0.5 * dim * jnp.log(2 * jnp.pi * std**2)
            density = channel - data.log_normaliser(y, scale, std)
            error = jnp.std(density, ddof=1) / np.sqrt(states)
            return jnp.sum(drawn[0] == drawn[1]), jnp.mean(density), error

        return jax.vmap(at)(jax.random.split(key, times.size), times)

    return jax.lax.map(one, (keys, norm, variance))


def _posteriors(config: Config, measured: dict[str, Any]) -> Curves:
    """Posterior draws of all replicas, and the naive logistic midpoint of each."""
    from theory.inference import AgreementCounts, MeasuredExcess, transition_posterior

    times = measured["times"]
    found = transition_posterior(
        jax.random.key(config.seed + 1),
        AgreementCounts(times, measured["agreeing"], float(config.pairs)),
        MeasuredExcess(times, measured["excess"], measured["excess_error"]),
        log_n=np.log(config.n), dim=config.dim, prior=_prior(config), warmup=config.warmup,
        samples=config.draws * THIN, chains=1,
    )  # fmt: skip
    midpoint, error = _logistic_midpoints(times, measured["agreeing"], config.pairs)
    kept = {
        f"draws_{name}": np.asarray(getattr(found, name))[:, 0, ::THIN]
        for name in ("mean_norm", "variance", "speciation_time", "collapse_time")
    }
    return {
        **kept, "r_hat": found.r_hat, "divergences": np.asarray(found.divergences),
        "midpoint": midpoint, "midpoint_error": error,
    }  # fmt: skip


def _logistic_midpoints(
    times: np.ndarray, agreeing: np.ndarray, pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """What a plot reader would do: fit ``1/2 + 1/2 / (1 + exp((t - t_0) / w))`` to each replica."""
    from scipy.optimize import curve_fit

    def curve(t: np.ndarray, middle: float, width: float) -> np.ndarray:
        return 0.5 + 0.5 / (1 + np.exp((t - middle) / width))

    found = []
    for counts in agreeing:
        smooth = (counts + 1) / (pairs + 2)
        sigma = np.sqrt(smooth * (1 - smooth) / pairs)
        try:
            best, covariance = curve_fit(curve, times, counts / pairs, (1.5, 0.3), sigma)
            found.append((best[0], np.sqrt(covariance[0, 0])))
        except RuntimeError:  # no convergence: this replica has no midpoint
            found.append((np.nan, np.nan))
    value, error = np.asarray(found).T
    return value, error


def _chains(config: Config) -> Curves:
    """Split r-hat of the magnetisation of chains on ``P_t`` of a mixture with ``|m|^2 = d``."""
    from theory.inference import ergodicity

    process = diffjax.ornstein_uhlenbeck()
    unit = np.full(config.dim, 1 / np.sqrt(config.dim))
    centre = np.ones(config.dim)  # |m|^2 = d
    data = diffjax.gaussian_mixture([0.5, 0.5], np.stack([centre, -centre]), config.prior_variance)
    eigenvalue = config.dim + config.prior_variance
    speciation = float(theory.speciation.spectral_time(eigenvalue))
    times = np.maximum(0.05, speciation + np.linspace(-1.5, 0.75, config.chain_times))
    key_start, key_chain = jax.random.split(jax.random.key(config.seed + 2))
    shape = (config.chain_times, config.chains, config.dim)
    side = np.where(np.arange(config.chains) % 2 == 0, 1.0, -1.0)
    clean = side[:, None] * centre + np.sqrt(config.prior_variance) * np.asarray(
        jax.random.normal(key_start, shape, "float64")
    )
    keys = jax.random.split(key_start, config.chain_times)
    starts = [processes.perturb(k, process, a, t) for k, a, t in zip(keys, clean, times)]

    def log_density(x: jax.Array, t: jax.Array) -> jax.Array:
        return data.log_normaliser(x, process.scale(t), process.std(t))

    r_hat, magnetisation = ergodicity(key_chain, log_density, times, jnp.stack(starts), unit)
    return {
        "chain_times": times, "chain_r_hat": r_hat, "chain_speciation": np.asarray(speciation),
        "chain_magnetisation": np.asarray(magnetisation).mean(-1),
    }  # fmt: skip


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """True times of every replica; curves of the first one under its posterior."""
    norm, variance = measured["mean_norm"], measured["variance"]
    log_n, dim = np.log(config.n), float(config.dim)
    fine = np.geomspace(measured["times"][0], measured["times"][-1], 60)
    draws = [measured[f"draws_{name}"][0][:, None] for name in ("mean_norm", "variance")]
    truth = (float(norm[0]), float(variance[0]))
    agreement = partial(theory.clone_agreement.mixture_clone_agreement, fine)
    excess = partial(theory.excess_entropy.mixture_excess_entropy, fine, log_n, dim)
    return {
        "speciation_time": np.asarray(theory.speciation.spectral_time(norm**2 + variance)),
        "collapse_time": np.asarray(
            theory.collapse.mixture_collapse_time(log_n, dim, norm, variance)
        ),
        "fine_times": fine,
        "agreement": np.asarray(agreement(*truth)), "excess": np.asarray(excess(*truth)),
        "agreement_band": np.quantile(agreement(*draws), [0.025, 0.975], axis=0),
        "excess_band": np.quantile(excess(*draws), [0.025, 0.975], axis=0),
    }  # fmt: skip


def ranks(draws: np.ndarray, truth: np.ndarray, bins: int) -> np.ndarray:
    """Histogram of the rank of the truth among the draws of every replica."""
    from theory.inference import rank_of_truth

    rank = np.asarray(rank_of_truth(draws, truth))
    return np.bincount(rank * bins // (draws.shape[1] + 1), minlength=bins)


def _bins(config: Config) -> int:
    """A divisor of the number of ranks, with about ten replicas in a bin."""
    return max(
        b for b in (4, 5, 10, 20) if (config.draws + 1) % b == 0 and b <= config.replicas / 5
    )


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Calibration of both times; three ways to be wrong."""
    bins, found = _bins(config), []
    flat = np.full(bins, config.replicas / bins)
    # a multinomial has one free count less than bins
    error = np.sqrt(flat * (1 - 1 / bins))
    for name in ("speciation_time", "collapse_time"):
        draws, truth = measured[f"draws_{name}"], predicted[name]
        label = name.replace("_", " ")
        found.append(compare(f"ranks of the {label}", ranks(draws, truth, bins), error, flat))
        mean, spread = draws.mean(1), draws.std(1, ddof=1)
        found.append(compare(f"posterior mean of the {label}", mean, spread, truth))
        narrow = mean[:, None] + (draws - mean[:, None]) / 3
        counts = ranks(narrow, truth, bins)
        found.append(
            compare(f"ranks of the {label}, errors three times too small", counts, error, flat,
                    control=True)
        )  # fmt: skip
    truth = predicted["speciation_time"]
    naive = (measured["midpoint"], measured["midpoint_error"], truth)
    return [*found, compare("midpoint of a logistic curve as t_S", *naive, control=True)]


def _bias(value: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Mean of the differences and its standard error."""
    gap = (value - truth)[np.isfinite(value)]
    return float(gap.mean()), float(gap.std(ddof=1) / np.sqrt(len(gap)))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Biases, calibration, and where chains stop mixing."""
    found = comparisons(config, measured, predicted)
    truth = predicted["speciation_time"]
    naive = _bias(measured["midpoint"], truth)
    bias = {
        name: _bias(measured[f"draws_{name}"].mean(1), predicted[name])
        for name in ("speciation_time", "collapse_time")
    }
    stuck = measured["chain_times"][measured["chain_r_hat"] > STUCK]
    mixing = float(stuck.max() - measured["chain_speciation"]) if stuck.size else float("nan")
    spread = {name: float(np.median(measured[f"draws_{name}"].std(1))) for name in bias}
    summary = {
        "bias_of_logistic_midpoint": naive[0], "bias_of_logistic_midpoint_error": naive[1],
        **{f"bias_of_{k}": v for k, (v, _) in bias.items()},
        **{f"bias_of_{k}_error": e for k, (_, e) in bias.items()},
        **{f"posterior_spread_of_{k}": v for k, v in spread.items()},
        "divergences": int(measured["divergences"].sum()),
        "largest_r_hat": float(np.max(measured["r_hat"])),
        "last_time_of_stuck_chains_minus_speciation_time": mixing,
        "barrier_at_that_time_nats": _barrier(config, measured, mixing),
    }  # fmt: skip
    table = [
        ("replicas", f"{config.replicas}, d = {config.dim}, {config.pairs} pairs of clones and "
                     f"{config.states} states at each of {config.times} times"),
        ("t_S, posterior", f"bias {number(*bias['speciation_time'])}, "
                           f"spread {number(spread['speciation_time'])}"),
        ("t_S, midpoint of a logistic curve", f"bias {number(*naive)}"),
        ("t_C, posterior", f"bias {number(*bias['collapse_time'])}, "
                           f"spread {number(spread['collapse_time'])}"),
        ("chains on P_t", f"split r-hat above {STUCK} up to t - t_S = {number(mixing)}, where "
                           f"the barrier has {number(_barrier(config, measured, mixing))} nats"),
    ]  # fmt: skip
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=_finding(found, naive, bias, mixing), table=table, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _barrier(config: Config, measured: dict[str, Any], shift: float) -> float:
    """Log-ratio of the marginal density along m at its modes and in the middle, in nats."""
    kappa = theory.clone_agreement.mixture_kappa(
        measured["chain_speciation"] + shift, np.sqrt(config.dim), config.prior_variance
    )
    grid = np.linspace(0, 2 * float(kappa), 400) if np.isfinite(shift) else np.zeros(1)
    density = np.logaddexp(-0.5 * (grid - kappa) ** 2, -0.5 * (grid + kappa) ** 2)
    return float(density.max() - density[0]) if np.isfinite(shift) else float("nan")


def _finding(
    found: list[Comparison], naive: tuple[float, float], bias: dict[str, Any], mixing: float
) -> str:
    stuck = (
        f"chains on P_t stop to cross between the classes at t = t_S {mixing:+.2f}"
        if np.isfinite(mixing)
        else "chains on P_t crossed between the classes at every time that was tried"
    )
    return (
        f"With the theory as likelihood the speciation and the collapse time are recovered with "
        f"a bias of {number(*bias['speciation_time'])} and {number(*bias['collapse_time'])} and "
        f"calibrated errors (reduced chi-square of the ranks {found[0].chi_square:.2f} and "
        f"{found[3].chi_square:.2f} over {found[0].points} bins), where the midpoint of a fitted "
        f"logistic curve is off by {number(*naive)}; {stuck}."
    )


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    texts = {
        "times": "measured OU times (T,)",
        "mean_norm": "true |m| of the replicas (R,)",
        "variance": "true sigma^2 of the replicas (R,)",
        "agreeing": "agreeing pairs of clones (R, T)",
        "excess": "measured excess entropy per coordinate (R, T), nats",
        "excess_error": "its standard error (R, T)",
        "draws_speciation_time": "posterior draws of the speciation time (R, L)",
        "draws_collapse_time": "posterior draws of the collapse time (R, L)",
        "chain_times": "OU times of the chains on P_t",
        "chain_r_hat": "split r-hat of the magnetisation of the chains",
        "chain_magnetisation": "mean magnetisation of every chain (T, C)",
    }
    curves = {name: np.asarray(measured[name]) for name in texts}
    known = np.isfinite(measured["midpoint"])
    curves["midpoint"] = np.where(known, measured["midpoint"], -1)
    texts["midpoint"] = "midpoint of a fitted logistic curve (R,); -1 where the fit failed"
    for name, text in (
        ("speciation_time", "true speciation time (R,)"),
        ("collapse_time", "true collapse time (R,)"),
    ):
        curves[name], texts[name] = predicted[name], text
    return curves, texts


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """One replica with its bands; errors; ranks; chains."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    _draw_replica(axes[0, 0], config, measured, predicted)
    _draw_errors(axes[0, 1], measured, predicted)
    _draw_ranks(axes[1, 0], config, measured, predicted)
    axis = axes[1, 1]
    shift = measured["chain_times"] - measured["chain_speciation"]
    excess = np.maximum(measured["chain_r_hat"] - 1, 1e-3)
    axis.semilogy(shift, excess, "o", color=BLUE, label="chains started in both classes")
    axis.axhline(STUCK - 1, color=BLACK, lw=0.8, ls=":", label=rf"$\hat r$ = {STUCK}")
    axis.axvline(0, color=GREEN, lw=1.5, label=r"$t_S = \frac{1}{2}\log\Lambda$")
    axis.set_xlabel("Ornstein-Uhlenbeck time $t - t_S$")
    axis.set_ylabel(r"split $\hat r - 1$ of the magnetisation")
    axis.legend(fontsize=8)
    return figure


def _draw_replica(axis: Any, config: Config, measured: dict, predicted: dict) -> None:
    fine, times = predicted["fine_times"], measured["times"]
    phi = measured["agreeing"][0] / config.pairs
    error = np.sqrt(np.maximum(phi * (1 - phi), 1 / config.pairs) / config.pairs)
    for band, curve, value, bar, label, colour, marker in (
        ("agreement_band", "agreement", phi, error, r"$\phi$", BLUE, "o"),
        (
            "excess_band",
            "excess",
            measured["excess"][0],
            measured["excess_error"][0],
            "$f$",
            RED,
            "s",
        ),
    ):
        axis.fill_between(fine, *predicted[band], color=colour, alpha=0.25, lw=0)
        line(axis, fine, predicted[curve], f"{label}, truth; band: 95% of the posterior", colour)
        points(axis, times, value, bar, f"{label}, measured", colour, marker)
    for name, colour in (("speciation_time", BLUE), ("collapse_time", RED)):
        axis.axvspan(
            *np.quantile(measured[f"draws_{name}"][0], [0.025, 0.975]), color=colour, alpha=0.12
        )
    axis.axhline(0, color=BLACK, lw=0.8)
    axis.set_xscale("log")
    ticks = [t for t in (0.2, 0.3, 0.5, 1, 2, 3) if fine[0] <= t <= fine[-1]]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.set_xticks([], minor=True)
    axis.set_ylim(-0.3, 1.05)
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("clone agreement; excess entropy (nats)")
    axis.set_title("one replica; shaded: inferred $t_C$ and $t_S$", fontsize=10)
    axis.legend(fontsize=8)


def _draw_errors(axis: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    truth = predicted["speciation_time"]
    draws = measured["draws_speciation_time"]
    axis.errorbar(
        truth, draws.mean(1) - truth, yerr=draws.std(1), fmt="o", ms=3, lw=0.8, color=BLUE,
        label="posterior",
    )  # fmt: skip
    axis.plot(
        truth, measured["midpoint"] - truth, "x", ms=4, color=ORANGE, label="logistic midpoint"
    )
    axis.axhline(0, color=BLACK, lw=0.8)
    axis.set_xlabel("true speciation time $t_S$")
    axis.set_ylabel("estimate minus truth")
    axis.legend(fontsize=8)


def _draw_ranks(axis: Any, config: Config, measured: dict[str, Any], predicted: dict) -> None:
    from scipy.stats import binom

    bins = _bins(config)
    centres = (np.arange(bins) + 0.5) / bins
    low, high = binom.ppf([0.005, 0.995], config.replicas, 1 / bins)
    axis.axhspan(low, high, color="0.85", label="99% of a uniform rank")
    for name, label, colour, shift in (
        ("speciation_time", "$t_S$", BLUE, -0.2), ("collapse_time", "$t_C$", RED, 0.2),
    ):  # fmt: skip
        counts = ranks(measured[f"draws_{name}"], predicted[name], bins)
        axis.bar(centres + shift / bins, counts, 0.38 / bins, color=colour, label=label)
    axis.set_xlabel("rank of the truth among the posterior draws")
    axis.set_ylabel("replicas")
    axis.legend(fontsize=8)
