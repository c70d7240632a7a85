"""Clone agreement of two Gaussian classes: when a backward trajectory chooses its class.

States x_t of the mixture N(+-m, variance I), m = mean in every coordinate, are drawn in full
dimension, fresh at every time. Two clones of a state end in classes drawn independently from the
exact posterior p(c | x_t), so that the frequency of equal classes is compared with the exact
phi(t). At the smallest dimension whole clone trajectories are run as well, by exact transitions
and by Euler-Maruyama. A second, generic mixture (unequal weights, variance 2) rejects theories
that are wrong where variance = 1 hides it.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), figure 2.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.clone_agreement
import theory.speciation
from diffjax.dynamics.methods import euler_maruyama
from diffjax.observables import crossing
from experiments import published
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, PURPLE, SKY, line, number, points

LEVEL = 0.7752002454  # phi at kappa = 1, where the noised law of two classes becomes bimodal
ENTRIES = 2**18  # numbers in a block of states: one megabyte, which stays in the cache
RARE = 10  # fewest expected disagreements (agreements) for which a frequency is nearly normal
GENERIC = {"dim": 64, "mean": 0.5, "variance": 2.0, "weight": 0.3}
EULER_STEP = 0.02


@dataclass(frozen=True)
class Config:
    """The mixture, the times and the sample sizes."""

    dims: tuple[int, ...] = option((256, 1024, 4096, 16384), "dimensions", nargs="+", type=int)
    mean: float = option(1.0, "centre in every coordinate: |m|^2 = dim mean^2")
    variance: float = option(1.0, "variance per coordinate within a class")
    weight: float = option(0.5, "weight of the first class")
    t_min: float = option(1.0, "first branching time")
    t_max: float = option(10.0, "last branching time")
    t_step: float = option(0.5, "distance of branching times")
    states: int = option(10_000, "states per time and dimension, one pair of clones each")
    trajectories: int = option(500, "pairs of full clone trajectories per time")
    trajectory_dim: int = option(256, "dimension of the clone trajectories")
    trajectory_times: int = option(3, "branching times of the clone trajectories")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dims": (32, 128), "states": 4000, "t_max": 5.0, "trajectories": 1000,
        "trajectory_dim": 32, "trajectory_times": 2,
    },
    "quick": {"dims": (256, 1024, 4096)},
    "paper": {},
}  # fmt: skip


def branching_times(config: Config) -> np.ndarray:
    """The grid of branching times."""
    count = int(np.floor((config.t_max - config.t_min) / config.t_step + 1e-9)) + 1
    return config.t_min + config.t_step * np.arange(count)


def mixture(dim: int, mean: float, variance: float, weight: float, dtype: str) -> diffjax.Diffusion:
    """The two classes under the Ornstein-Uhlenbeck process."""
    centre = jnp.full((1, dim), mean, dtype)
    data = diffjax.gaussian_mixture(
        jnp.asarray([weight, 1 - weight], dtype),
        jnp.concatenate([centre, -centre]),
        jnp.asarray(variance, dtype),
    )
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Agreement frequencies of drawn classes per dimension, and of clone trajectories."""
    times = branching_times(config)
    measured: dict[str, Any] = {"times": times}
    chosen = {"mean": config.mean, "variance": config.variance, "weight": config.weight}
    sets = [(f"d{dim}", {"dim": dim, **chosen}) for dim in config.dims] + [("generic", GENERIC)]
    for index, (name, parameters) in enumerate(sets):
        diffusion = mixture(dtype=config.dtype, **parameters)
        bar = session.progress(name)
        work = partial(agreement, diffusion, times, config.states, (config.seed, index), bar)
        measured |= {f"{key}_{name}": v for key, v in session.part(name, work).items()}
    return measured | session.part("trajectories", lambda: _trajectories(config))


def agreement(
    diffusion: diffjax.Diffusion,
    times: np.ndarray,
    states: int,
    seed: tuple[int, ...],
    progress: Any = None,
) -> Curves:
    """Frequency with which two classes drawn from ``p(c | x_t)`` agree, and its standard error.

    The normals are the cost. Their bits come from numpy streams, which take a tenth of the time of
    a counter based generator; every block of states has a stream of its own, so that the numbers
    do not depend on the number of threads. The bits become normals inside the compiled function.
    """
    rows = max(1, min(states, ENTRIES // diffusion.dim))
    starts = range(0, states, rows)
    jobs = [(i, start) for i in range(len(times)) for start in starts]
    equal = np.zeros(len(times), np.int64)
    dtype = np.dtype(diffusion.data.means.dtype)

    def block(job: tuple[int, int]) -> int:
        i, start = job
        stream = np.random.SFC64([*seed, i, start])
        words = stream.random_raw(-(-rows * diffusion.dim * dtype.itemsize // 8))
        bits = words.view(f"u{dtype.itemsize}")[: rows * diffusion.dim]
        uniforms = np.random.Generator(stream).random((rows, 3), dtype=dtype)
        t = np.asarray(times[i], dtype)
        return int(np.sum(_equal_classes(diffusion, bits, uniforms, t)[: states - start]))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (job, count) in enumerate(zip(jobs, pool.map(block, jobs))):
            equal[job[0]] += count
            if progress is not None:
                progress(done + 1, len(jobs))
    return frequency(equal, states)


@jax.jit
def _equal_classes(
    diffusion: diffjax.Diffusion, bits: jax.Array, uniforms: jax.Array, t: jax.Array
) -> jax.Array:
    """States ``x_t`` in full dimension from random bits; whether two drawn classes agree."""
    data, process = diffusion.data, diffusion.process
    normals = _normals(bits, t.dtype).reshape(-1, data.dim)
    scale, std = process.scale(t), process.std(t)
    label = (uniforms[:, 0] >= data.class_weights[0]).astype(jnp.int32)
    spread = jnp.sqrt(jnp.square(std) + jnp.square(scale) * data.variances)[label]
    x = scale * data.means[label] + spread * normals
    first = jnp.exp(data.class_log_posterior(x, scale, std)[:, 0])
    drawn = uniforms[:, 1:] < first[:, None]
    return drawn[:, 0] == drawn[:, 1]


def _normals(bits: jax.Array, dtype: np.dtype) -> jax.Array:
    """Normals of a dtype from unsigned integers of its size, by inversion as `jax.random` does."""
    kind = jnp.finfo(dtype)
    one = np.asarray(1, dtype).view(bits.dtype)
    shift = np.asarray(kind.bits - kind.nmant, bits.dtype)
    unit = jax.lax.bitcast_convert_type((bits >> shift) | one, dtype) - 1
    # odd multiples of eps: symmetric about 0, and never 1
    return np.sqrt(np.asarray(2, dtype)) * jax.lax.erf_inv(2 * unit - 1 + kind.eps)


def frequency(count: np.ndarray, total: int) -> Curves:
    """A frequency and its binomial standard error (of ``(k + 1)/(n + 2)``, so never zero)."""
    smooth = (count + 1) / (total + 2)
    return {"phi": count / total, "phi_error": np.sqrt(smooth * (1 - smooth) / total)}


def _trajectories(config: Config) -> Curves:
    """Agreement of full-dimensional clones, by exact transitions and by Euler-Maruyama."""
    dim = config.trajectory_dim
    diffusion = mixture(dim, config.mean, config.variance, config.weight, config.dtype)
    middle = float(np.log(np.sqrt(dim) * abs(config.mean)))
    times = np.maximum(0.3, middle + np.linspace(-0.5, 0.5, config.trajectory_times))
    found: dict[str, list[float]] = {}
    for i, t in enumerate(times):
        steps = round(t / EULER_STEP)
        grids = {"exact": (None, 8), "euler": (euler_maruyama(), steps)}
        for j, (name, (method, count)) in enumerate(grids.items()):
            key = jax.random.fold_in(jax.random.key(config.seed), 2 * i + j)
            key_x, key_path, key_class = jax.random.split(key, 3)
            x = diffusion.sample(key_x, t, config.trajectories)
            grid = np.linspace(t, 0.0, count + 1)
            ends, _ = diffjax.clones(key_path, diffusion, x, grid, method=method)
            log_p = diffusion.class_log_posterior(ends, 0.0)
            drawn = jax.random.categorical(key_class, log_p)
            equal = int(jnp.sum(drawn[:, 0] == drawn[:, 1]))
            row = frequency(np.asarray(equal), config.trajectories)
            found.setdefault(name, []).append(row["phi"])
            found.setdefault(f"{name}_error", []).append(row["phi_error"])
    return {f"trajectory_{name}": np.asarray(v) for name, v in found.items()} | {
        "trajectory_times": times
    }


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """The exact ``phi(t)`` at the measured times and on a fine grid, and the static times."""
    times, branched = measured["times"], measured["trajectory_times"]
    fine = np.linspace(min(times[0], branched[0]), times[-1], 300)
    grid = np.concatenate([times, fine, branched])
    chosen = (config.variance, config.weight)
    dims = (*config.dims, config.trajectory_dim)
    rows = [(abs(config.mean) * np.sqrt(dim), *chosen) for dim in dims]
    norm = GENERIC["mean"] * np.sqrt(GENERIC["dim"])
    variance, weight = GENERIC["variance"], GENERIC["weight"]
    rows += [
        (norm, variance, weight), (norm, 0.0, weight), (norm / 2, variance, weight),
        (norm, variance, 0.5),
    ]  # fmt: skip
    # one call for all curves: one compilation
    phi = np.asarray(
        theory.clone_agreement.mixture_clone_agreement(
            grid, *(column[:, None] for column in np.asarray(rows).T)
        ),
        np.float64,
    )
    names = [f"d{dim}" for dim in config.dims] + ["trajectory", "generic"]
    names += [f"generic_{wrong}" for wrong in ("no_variance", "half_distance", "balanced")]
    predicted: dict[str, Any] = {"fine_times": fine}
    for name, curve in zip(names, phi):
        predicted[f"phi_{name}"] = curve[: len(times)]
        predicted[f"phi_fine_{name}"] = curve[len(times) : len(times) + len(fine)]
    predicted["phi_trajectory"] = phi[len(config.dims), len(times) + len(fine) :]
    norms = np.asarray([row[0] for row in rows[: len(config.dims)]])
    static = theory.speciation.mixture_static_time(norms, config.variance)
    predicted["static_times"] = np.asarray(static, np.float64)
    return predicted


def against_frequencies(
    name: str, value: Any, expected: Any, total: int, wrong: Any = None, **kind: Any
) -> Comparison:
    """`compare` frequencies of ``total`` draws with the binomial error of the exact theory.

    Points with fewer than `RARE` expected successes or failures are left out: they are not normal.
    With ``wrong``, a theory known to be wrong is compared on the same points and errors.
    """
    expected = np.asarray(expected)
    error = np.sqrt(expected * (1 - expected) / total)
    normal = total * np.minimum(expected, 1 - expected) >= RARE
    tested = np.where(normal, value, np.nan)
    return compare(name, tested, error, expected if wrong is None else wrong, **kind)


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Exact curves, trajectories, controls on the generic mixture, and the published points."""
    draws = config.states
    value = np.concatenate([measured[f"phi_d{dim}"] for dim in config.dims])
    expected = np.concatenate([predicted[f"phi_d{dim}"] for dim in config.dims])
    generic, exact = measured["phi_generic"], predicted["phi_generic"]
    found = [
        against_frequencies("clone agreement, all dimensions", value, expected, draws),
        against_frequencies("clone agreement, generic mixture", generic, exact, draws),
    ]
    for wrong, label in (
        ("no_variance", "Gamma replaced by Delta"),
        ("half_distance", "half of the distance |m| to the middle"),
        ("balanced", "weights forgotten"),
    ):
        curve = predicted[f"phi_generic_{wrong}"]
        found.append(
            against_frequencies(
                f"generic mixture, {label}", generic, exact, draws, wrong=curve, control=True
            )
        )
    phi, pairs = predicted["phi_trajectory"], config.trajectories
    for method, label, is_exact in (
        ("exact", "exact transitions", True), ("euler", f"Euler, step {EULER_STEP}", False),
    ):  # fmt: skip
        found.append(
            against_frequencies(
                f"clone trajectories, {label}", measured[f"trajectory_{method}"], phi, pairs,
                exact=is_exact,
            )
        )  # fmt: skip
    for dim in _published_dims(config):
        value = np.interp(published.FIGURE_2_TIMES, *_phi_on_fine(predicted, dim))
        found.append(
            against_frequencies(
                f"published simulation, d = {dim}", published.FIGURE_2_AGREEMENT[dim], value,
                published.FIGURE_2_PAIRS, exact=False,
            )
        )  # fmt: skip
    return found


def _phi_on_fine(predicted: dict[str, Any], dim: int) -> tuple[np.ndarray, np.ndarray]:
    return predicted["fine_times"], predicted[f"phi_fine_d{dim}"]


def _published_dims(config: Config) -> list[int]:
    """Dimensions of the published simulation, if this is the published mixture."""
    if (config.mean, config.variance, config.weight) != (1.0, 1.0, 0.5) or config.t_max < 10:
        return []
    return [dim for dim in config.dims if dim in published.FIGURE_2_AGREEMENT]


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Crossing times, comparisons, one sentence."""
    times = measured["times"]
    found = comparisons(config, measured, predicted)
    floor = config.weight**2 + (1 - config.weight) ** 2
    level = floor + (LEVEL - 0.5) / 0.5 * (1 - floor)
    rows, summary, crossings = [], {}, []
    for dim, static in zip(config.dims, predicted["static_times"].tolist()):
        t, error = crossing(times, measured[f"phi_d{dim}"], measured[f"phi_error_d{dim}"], level)
        # the same linear interpolation of the exact curve: only the noise differs
        expected, _ = crossing(times, predicted[f"phi_d{dim}"], np.zeros(len(times)), level)
        crossings.append((t, error, expected))
        label = f"d = {dim}: crossing of phi = {level:.4f}"
        text = f"t = {number(t, error)}, exact {number(expected)}, static time {number(static)}"
        rows.append((label, text))
        summary[f"d{dim}"] = {
            "crossing_time": t, "crossing_error": error, "exact_crossing_same_grid": expected,
            "static_time": static,
        }  # fmt: skip
    slope, slope_error, slope_exact = _slope(config.dims, np.asarray(crossings))
    summary["slope_of_crossing_with_log_d"] = {
        "value": slope, "error": slope_error, "exact": slope_exact,
    }  # fmt: skip
    rows.append(
        ("d t / d log d", f"{number(slope, slope_error)}, exact {slope_exact:.4f}, large d 0.5")
    )
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, slope, slope_error, np.asarray(crossings)),
        table=rows, summary=summary, curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _slope(dims: tuple[int, ...], crossings: np.ndarray) -> tuple[float, float, float]:
    """Weighted slope of the crossing time with log d: value, error, and that of the theory."""
    t, error, expected = crossings.T
    used = np.isfinite(t) & np.isfinite(expected)
    if used.sum() < 2:
        return float("nan"), float("nan"), float("nan")
    x, weight = np.log(np.asarray(dims, float))[used], error[used] ** -2.0
    centred = x - np.average(x, weights=weight)
    norm = np.sum(weight * centred**2)
    slopes = [np.sum(weight * centred * y[used]) / norm for y in (t, expected)]
    return float(slopes[0]), float(norm**-0.5), float(slopes[1])


def _finding(
    config: Config, found: list[Comparison], slope: float, error: float, crossings: np.ndarray
) -> str:
    exact = found[0]
    shift = np.nanmax(np.abs(crossings[:, 0] - crossings[:, 2]))
    return (
        f"For d = {min(config.dims)} to {max(config.dims)} the measured clone agreement follows "
        f"the exact phi(t) without a fitted parameter (reduced chi-square {exact.chi_square:.2f} "
        f"over {exact.points} points); the class is decided at a time that grows with log d with "
        f"slope {number(slope, error)}, and no crossing is off by more than {shift:.3f}."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {"times": measured["times"], "fine_times": predicted["fine_times"]}
    axes = {"times": "OU branching times (T,)", "fine_times": "OU times of the theory curves"}
    for dim in config.dims:
        for key, source, text in (
            (f"phi_d{dim}", measured, "fraction of agreeing clones (T,)"),
            (f"phi_error_d{dim}", measured, "its standard error (T,)"),
            (f"phi_fine_d{dim}", predicted, "exact clone agreement on fine_times"),
        ):
            curves[key], axes[key] = source[key], f"d = {dim}: {text}"
    for key in ("phi_generic", "phi_error_generic"):
        curves[key], axes[key] = measured[key], f"generic mixture {GENERIC}: fraction or error (T,)"
    for key, text in (
        ("trajectory_times", "OU branching times of clone trajectories"),
        ("trajectory_exact", "agreement of clones run by exact transitions"),
        ("trajectory_exact_error", "its standard error"),
        ("trajectory_euler", "agreement of clones run by Euler-Maruyama"),
        ("trajectory_euler_error", "its standard error"),
    ):
        curves[key], axes[key] = measured[key], f"d = {config.trajectory_dim}: {text}"
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Clone agreement against time, and against time from the speciation time."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
    times, fine = measured["times"], predicted["fine_times"]
    markers = "os^Dv<"
    for i, dim in enumerate(config.dims):
        colour, marker = COLOURS[i % len(COLOURS)], markers[i % len(markers)]
        value, error = measured[f"phi_d{dim}"], measured[f"phi_error_d{dim}"]
        curve = predicted[f"phi_fine_d{dim}"]
        shift = 0.5 * np.log(dim * config.mean**2)
        line(left, fine, curve, "exact theory" if i == 0 else "", colour)
        points(left, times, value, error, f"d = {dim}", colour, marker)
        line(right, fine - shift, curve, "", colour)
        points(right, times - shift, value, error, f"d = {dim}", colour, marker)
        if dim in _published_dims(config):
            left.plot(
                published.FIGURE_2_TIMES, published.FIGURE_2_AGREEMENT[dim], "x", color=BLACK, ms=5,
                label="published simulation" if i == 0 else "", zorder=4,
            )  # fmt: skip
    _draw_trajectories(config, left, right, measured)
    right.axvline(0, color=BLACK, lw=0.8, ls=":")
    for axis in (left, right):
        axis.axhline(LEVEL, color=BLACK, lw=0.6, ls=":")
        axis.set_ylim(0.45, 1.02)
    left.set_xlabel("branching time t (Ornstein-Uhlenbeck)")
    right.set_xlabel(r"$t - \frac{1}{2}\log(d\,\tilde\mu^2)$")
    right.set_xlim(-3, 4)
    left.set_ylabel(r"clone agreement $\phi(t)$")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    left.set_title(
        rf"$\tilde\mu$ = {config.mean}, $\sigma^2$ = {config.variance}, w = {config.weight}, "
        f"{config.states} pairs per point",
        fontsize=10,
    )
    return figure


def _draw_trajectories(config: Config, left: Any, right: Any, measured: dict[str, Any]) -> None:
    times = measured["trajectory_times"]
    shift = 0.5 * np.log(config.trajectory_dim * config.mean**2)
    for method, label, colour, marker in (
        ("exact", "exact steps", SKY, "P"), ("euler", "Euler", PURPLE, "X"),
    ):  # fmt: skip
        value = measured[f"trajectory_{method}"]
        error = measured[f"trajectory_{method}_error"]
        text = f"trajectories, {label}, d = {config.trajectory_dim}"
        points(left, times, value, error, text, colour, marker)
        points(right, times - shift, value, error, "", colour, marker)
