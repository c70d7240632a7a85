"""Excess entropy of a Gaussian mixture: how much of the training set is left to be found.

Training sets of n points of the balanced mixture N(+-m, variance I), m = mean in every coordinate.
The empirical excess entropy f^e = -(1/d) E log w_own is measured with the exact empirical score,
beside its finite-size theory (an upper estimate near the collapse). The population excess entropy
f = [log n - I(a; x_t)] / d, whose zero is the collapse time, is measured by Monte Carlo from the
exact log density of the mixture and compared with its closed form, which is exact at every d.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), figure 3. The published theory curve
leaves out the information about the class, 7% of f / alpha there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.collapse
from diffjax.noise import normal
from diffjax.observables import mean_and_error
from diffjax.observables.collapse import collapse_curves
from experiments import inputs, published
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.speciation import mixture
from experiments.style import BLACK, COLOURS, line, number, points

ENTRIES = 2**22  # numbers in a block of population states
EMPIRICAL, POPULATION = 0, 1  # streams of random keys


@dataclass(frozen=True)
class Config:
    """The mixture, the training sets and the sample sizes."""

    dims: tuple[int, ...] = option((256, 1024, 4096), "dimensions", nargs="+", type=int)
    n: int = option(20_000, "training points")
    mean: float = option(1.0, "centre in every coordinate: |m|^2 = dim mean^2")
    variance: float = option(1.0, "variance per coordinate within a class")
    t_min: float = option(0.552, "smallest time")
    t_max: float = option(8.0, "largest time")
    times: int = option(20, "number of times, evenly spaced")
    states: int = option(2000, "noised training points per time and dimension")
    population: int = option(2000, "states of the population per time and dimension")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (16, 32, 64), "n": 1000, "t_min": 0.2, "t_max": 4.0, "times": 10, "states": 1000,
        "population": 4000,
    },
    "quick": {"dims": (256, 1024), "states": 500},
    "paper": {},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Empirical curves of one training set per dimension, and the population's entropy."""
    times = np.linspace(config.t_min, config.t_max, config.times)
    measured: dict[str, Any] = {"times": times}
    for index, dim in enumerate(config.dims):
        special = _special_times(config, dim)
        measured[f"special_d{dim}"] = np.asarray(special)
        grid = np.concatenate([times, special])
        for kind, work in ((EMPIRICAL, _empirical), (POPULATION, _population)):
            name = ("empirical", "population")[kind]
            key = jax.random.fold_in(jax.random.key(config.seed), 2 * index + kind)
            bar = session.progress(f"{name} d = {dim}")
            part = session.part(
                f"{name}-d{dim}", lambda w=work, d=dim, g=grid, k=key, b=bar: w(config, d, g, k, b)
            )
            measured |= {f"{key}_d{dim}": value for key, value in part.items()}
    return measured


def _special_times(config: Config, dim: int) -> tuple[float, float]:
    """Collapse times of the mixture, and of one Gaussian of n points (the n/2 forgotten)."""
    log_n, norm = np.log(config.n), abs(config.mean) * np.sqrt(dim)
    exact = theory.collapse.mixture_collapse_time(log_n, dim, norm, config.variance)
    forgotten = theory.collapse.gaussian_collapse_time(log_n, dim, config.variance)
    return float(exact), float(forgotten)


def _empirical(config: Config, dim: int, grid: np.ndarray, key: jax.Array, bar: Any) -> Curves:
    """``f^e`` of one training set: the weight of the own point under the exact score."""
    data = inputs.mixture(
        dim, config.n, config.mean, config.variance, config.seed + dim, config.dtype
    )
    diffusion = diffjax.Diffusion(diffjax.point_cloud(data.points), diffjax.ornstein_uhlenbeck())
    curves = collapse_curves(key, diffusion, grid, config.states, progress=bar)
    return {
        "empirical": curves.excess_entropy.mean,
        "empirical_error": curves.excess_entropy.error,
        "unresolved": curves.unresolved,
    }


def _population(config: Config, dim: int, grid: np.ndarray, key: jax.Array, bar: Any) -> Curves:
    """``f = (log n - I)/d`` with ``I = E log p(x | a) / P_t(x)`` over the population.

    ``log p(x | a) = -|z|^2/2 - (d/2) log(2 pi Delta)`` in terms of the noise, so this is
    ``alpha + 1/2 + log(2 pi Delta)/2 + (1/d) E log P_t`` with ``|z|^2`` as a control variate of
    known mean d: the same expectation with a much smaller variance.
    """
    diffusion = mixture(dim, config.mean, config.variance, 0.5, config.dtype)
    rows = max(1, min(config.population, ENTRIES // dim))
    blocks = -(-config.population // rows)
    alpha = np.log(config.n) / dim
    found = []
    for i, t in enumerate(grid):
        keys = [jax.random.fold_in(jax.random.fold_in(key, i), b) for b in range(blocks)]
        information = jnp.concatenate(
            [_information_density(diffusion, k, jnp.asarray(t, config.dtype), rows) for k in keys]
        )
        estimate = mean_and_error(information[: config.population].astype(jnp.float64))
        found.append((alpha - estimate.mean / dim, estimate.error / dim))
        if bar is not None:
            bar(i + 1, len(grid))
    value, error = np.asarray(found, np.float64).T
    return {"population": value, "population_error": error}


@partial(jax.jit, static_argnames="rows")
def _information_density(
    diffusion: diffjax.Diffusion, key: jax.Array, t: jax.Array, rows: int
) -> jax.Array:
    """``log p(x | a) - log P_t(x)`` of ``rows`` fresh pairs."""
    process, dim = diffusion.process, diffusion.dim
    key_data, key_noise = jax.random.split(key)
    data = diffusion.data.sample(key_data, rows)
    noise = normal(key_noise, data.shape, data.dtype)
    x = process.scale(t) * data + process.std(t) * noise
    channel = 0.5 * jnp.sum(jnp.square(noise), axis=-1)
    channel = channel + 0.5 * dim * jnp.log(2 * jnp.pi * jnp.square(process.std(t)))
    return -channel - diffusion.data.log_normaliser(x, process.scale(t), process.std(t))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact ``f``, ``f`` without the class information, and the finite-size ``f^e``."""
    times = measured["times"]
    fine = np.linspace(min(times[0], 0.2), times[-1], 300)
    dims = np.asarray(config.dims, float)[:, None]
    special = np.stack([measured[f"special_d{dim}"] for dim in config.dims])
    shared = [np.tile(grid, (len(dims), 1)) for grid in (times, fine)]
    grid = np.concatenate([shared[0], special, shared[1]], axis=1)
    log_n, norm = np.log(config.n), abs(config.mean) * np.sqrt(dims)
    exact = theory.collapse.mixture_excess_entropy(grid, log_n, dims, norm, config.variance)
    finite = theory.collapse.mixture_empirical_excess_entropy(
        grid, log_n, dims, norm, config.variance
    )
    one = theory.collapse.gaussian_excess_entropy(grid, log_n, dims, config.variance)
    half = theory.collapse.gaussian_excess_entropy(
        grid, np.log(config.n / 2), dims, config.variance
    )
    # (0, inf) instead of (-inf, inf) of the plotting grid: nothing here is at t = 0
    cut, predicted = len(times) + 2, {"fine_times": fine}
    for name, curve in (("f", exact), ("finite", finite), ("no_class", one), ("half", half)):
        for row, dim in zip(np.asarray(curve, np.float64), config.dims):
            predicted[f"{name}_d{dim}"], predicted[f"{name}_fine_d{dim}"] = row[:cut], row[cut:]
    return predicted


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """The exact population curve with its controls; the finite-size and published curves."""

    def gather(source: dict[str, Any], name: str, part: slice | int) -> np.ndarray:
        rows = [np.atleast_1d(source[f"{name}_d{dim}"][part]) for dim in config.dims]
        return np.concatenate(rows)

    regular = slice(0, config.times)
    value = gather(measured, "population", regular)
    error = gather(measured, "population_error", regular)
    found = [
        compare("population f(t), all dimensions", value, error, gather(predicted, "f", regular))
    ]
    for name, label in (
        ("no_class", "information about the class dropped"), ("half", "n/2 points at every time"),
    ):  # fmt: skip
        wrong = gather(predicted, name, regular)
        found.append(compare(f"population f(t), {label}", value, error, wrong, control=True))
    for part, label, control in (
        (-2, "f = 0 at the collapse time of the mixture", False),
        (-1, "f = 0 at the collapse time with n/2 forgotten", True),
    ):
        value, error = (
            gather(measured, "population", part),
            gather(measured, "population_error", part),
        )
        found.append(compare(label, value, error, np.zeros_like(value), control=control))
    for dim in config.dims:
        found.append(
            compare(
                f"empirical f^e, finite-size theory, d = {dim}",
                measured[f"empirical_d{dim}"][regular],
                measured[f"empirical_error_d{dim}"][regular],
                predicted[f"finite_d{dim}"][regular],
                exact=False,
                floor=_resolution(config, dim),
            )
        )
    return found + _published_comparisons(config, predicted)


def _resolution(config: Config, dim: int) -> float:
    """What one rare state would add to ``f^e``: where all weights are 1 the error is not 0."""
    return 1 / (config.states * dim)


def _published_comparisons(config: Config, predicted: dict[str, Any]) -> list[Comparison]:
    found = []
    for dim in _published_dims(config):
        alpha = np.log(config.n) / dim
        curve = predicted[f"finite_fine_d{dim}"] / alpha
        found.append(
            compare(
                f"published simulation, finite-size theory, d = {dim}",
                published.FIGURE_3_EXCESS[dim], published.FIGURE_3_ERROR[dim],
                np.interp(published.FIGURE_3_TIMES, predicted["fine_times"], curve), exact=False,
            )
        )  # fmt: skip
    return found


def _published_dims(config: Config) -> list[int]:
    """Dimensions of the published simulation, if this is the published mixture."""
    same = (config.mean, config.variance, config.n) == (1.0, 1.0, published.FIGURE_3_POINTS)
    return [dim for dim in config.dims if same and dim in published.FIGURE_3_EXCESS]


def scaling(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    """How ``f^e`` at the collapse time, where ``f = 0``, vanishes with the dimension.

    With L normal of variance ``d u/(1 + u)`` around 0 the finite-size theory gives
    ``f^e(t_C) = sqrt(d u/(1 + u) / 2 pi) / d`` to leading order; at fixed n it falls like 1/d.
    """
    value = np.asarray([measured[f"empirical_d{dim}"][-2] for dim in config.dims])
    error = np.asarray([measured[f"empirical_error_d{dim}"][-2] for dim in config.dims])
    theory_value = np.asarray([predicted[f"finite_d{dim}"][-2] for dim in config.dims])
    result = {
        "empirical_at_collapse": value, "error": error, "finite_size_theory": theory_value,
        "ratio_to_theory": value / theory_value, "ratio_error": error / theory_value,
        "exponent": float("nan"), "exponent_error": float("nan"), "exponent_theory": float("nan"),
    }  # fmt: skip
    if len(config.dims) > 1:
        x, weight = np.log(np.asarray(config.dims, float)), (value / error) ** 2
        centred = x - np.average(x, weights=weight)
        norm = np.sum(weight * centred**2)
        for key, y in (("exponent", value), ("exponent_theory", theory_value)):
            result[key] = float(np.sum(weight * centred * np.log(y)) / norm)
        result["exponent_error"] = float(norm**-0.5)
    return result


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Collapse times, the value of ``f^e`` there, comparisons, one sentence."""
    found, scaled = comparisons(config, measured, predicted), scaling(config, measured, predicted)
    rows, summary = [], {"scaling_at_collapse": scaled}
    for i, dim in enumerate(config.dims):
        t_exact, t_forgotten = measured[f"special_d{dim}"]
        alpha = np.log(config.n) / dim
        value, error = scaled["empirical_at_collapse"][i], scaled["error"][i]
        f, f_error = measured[f"population_d{dim}"][-2], measured[f"population_error_d{dim}"][-2]
        rows.append(
            (
                f"d = {dim}: collapse time",
                f"{number(t_exact)} ({number(t_forgotten)} with n/2 forgotten); there f/alpha = "
                f"{number(f / alpha, f_error / alpha)}, f^e/alpha = "
                f"{number(value / alpha, error / alpha)}, finite-size theory "
                f"{scaled['finite_size_theory'][i] / alpha:.4f}",
            )
        )
        summary[f"d{dim}"] = {
            "alpha": alpha, "collapse_time": t_exact,
            "collapse_time_n_over_2_forgotten": t_forgotten,
            "population_f_at_collapse": f, "population_f_error": f_error,
            "unresolved_fraction": float(np.max(measured[f"unresolved_d{dim}"])),
        }  # fmt: skip
    rows.append(
        (
            "f^e(t_C) ~ d^x",
            f"x = {number(scaled['exponent'], scaled['exponent_error'])}, finite-size theory "
            f"{number(scaled['exponent_theory'])}",
        )
    )
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, scaled), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(config: Config, found: list[Comparison], scaled: dict[str, Any]) -> str:
    ratio, error = scaled["ratio_to_theory"], scaled["ratio_error"]
    return (
        f"The population excess entropy of d = {min(config.dims)} to {max(config.dims)} agrees "
        f"with its closed form (reduced chi-square {found[0].chi_square:.2f} over "
        f"{found[0].points} points) and rejects the curve without the information about the class "
        f"({found[1].chi_square:.0f}); at the collapse time the empirical one is still "
        f"{number(ratio[-1], error[-1])} of its finite-size estimate, which is an upper one, and "
        f"falls with the dimension like d^{number(scaled['exponent'], scaled['exponent_error'])} "
        f"(theory {scaled['exponent_theory']:.2f})."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {"times": measured["times"], "fine_times": predicted["fine_times"]}
    axes = {"times": "OU times (T,)", "fine_times": "OU times of the theory curves"}
    texts = {
        "empirical": "f^e in nats per dimension (T + 2,): at times, then at special",
        "empirical_error": "standard error of it, of this training set",
        "population": "population f by Monte Carlo, nats per dimension (T + 2,)",
        "population_error": "its standard error",
        "unresolved": "fraction of states whose weights were not resolved (T + 2,)",
        "special": "collapse time, and collapse time with n/2 forgotten",
    }
    for dim in config.dims:
        for name, text in texts.items():
            curves[f"{name}_d{dim}"] = measured[f"{name}_d{dim}"]
            axes[f"{name}_d{dim}"] = f"d = {dim}: {text}"
        for name, text in (("f", "exact f"), ("finite", "finite-size f^e, approximate")):
            curves[f"{name}_fine_d{dim}"] = predicted[f"{name}_fine_d{dim}"]
            axes[f"{name}_fine_d{dim}"] = f"d = {dim}: {text}, nats per dimension, on fine_times"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Excess entropies against time, and residuals in standard errors."""
    import matplotlib.pyplot as plt

    figure, (top, middle, bottom) = plt.subplots(
        3, 1, sharex=True, figsize=(8, 8.5), layout="constrained",
        gridspec_kw={"height_ratios": [3.2, 1, 1]},
    )  # fmt: skip
    times, fine = measured["times"], predicted["fine_times"]
    count = len(times)
    for i, dim in enumerate(config.dims):
        colour, marker, alpha = COLOURS[i % len(COLOURS)], "os^Dv<"[i % 6], np.log(config.n) / dim
        value = measured[f"empirical_d{dim}"][:count]
        error = measured[f"empirical_error_d{dim}"][:count]
        finite, exact = predicted[f"finite_d{dim}"][:count], predicted[f"f_d{dim}"][:count]
        line(top, fine, predicted[f"f_fine_d{dim}"] / alpha, "$f$, exact" if i == 0 else "", colour)
        line(
            top, fine, predicted[f"finite_fine_d{dim}"] / alpha,
            "$f^e$, finite size (approximate)" if i == 0 else "", colour, "--",
        )  # fmt: skip
        points(top, times, value / alpha, error / alpha, f"$f^e$, d = {dim}", colour, marker)
        population = measured[f"population_d{dim}"][:count]
        spread = measured[f"population_error_d{dim}"][:count]
        points(middle, times, (population - exact) / spread, 1, f"d = {dim}", colour, marker)
        error = np.hypot(error, _resolution(config, dim))
        points(bottom, times, (value - finite) / error, 1, f"d = {dim}", colour, marker)
        _draw_published(config, dim, top, bottom, predicted, i == 0)
    for axis in (top, middle, bottom):
        axis.axhline(0, color=BLACK, lw=0.7)
    top.set_ylim(-0.15, 1.08)
    top.set_ylabel(r"excess entropy / $\alpha$")
    top.set_title(
        rf"n = {config.n}, $\tilde\mu$ = {config.mean}, $\sigma^2$ = {config.variance}", fontsize=10
    )
    top.legend(fontsize=8)
    middle.set_ylabel("$f$ by Monte Carlo\n" + r"$-$ exact (s.e.)", fontsize=8)
    bottom.set_ylabel("$f^e$ measured\n" + r"$-$ finite size (s.e.)", fontsize=8)
    bottom.set_yscale("symlog", linthresh=4)
    bottom.set_ylim(-100, 100)  # far below t_C the estimate is off by more; see curves.npz
    bottom.set_yticks([-100, -10, -2, 0, 2, 10, 100], ["-100", "-10", "-2", "0", "2", "10", "100"])
    bottom.minorticks_off()
    bottom.set_xlabel("Ornstein-Uhlenbeck time t")
    return figure


def _draw_published(
    config: Config, dim: int, top: Any, bottom: Any, predicted: dict[str, Any], first: bool
) -> None:
    """Published points and their distance from the finite-size theory."""
    if dim not in _published_dims(config):
        return
    times, value = published.FIGURE_3_TIMES, published.FIGURE_3_EXCESS[dim]
    error = published.FIGURE_3_ERROR[dim]
    points(top, times, value, error, "published simulation" if first else "", BLACK, "x")
    curve = predicted[f"finite_fine_d{dim}"] * dim / np.log(config.n)
    distance = (value - np.interp(times, predicted["fine_times"], curve)) / error
    bottom.plot(times, distance, "x", color=BLACK, ms=4)
