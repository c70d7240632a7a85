r"""How long a score of random features generalises before it memorises its n training points.

A score ``s_A(x) = A sin(W x / sqrt d) / sqrt p`` with fixed Gaussian ``W`` learns ``A`` at one
noise level from n points of N(0, I_d). For the sine all moments over the noise are closed, and so
is the gradient flow on a given set: its losses and its spectrum are those of the features
themselves. The d slowest modes of the population and the n modes of the set relax at the times of
their eigenvalues, which are laid over the limit of many dimensions: the time to generalise falls a
little with n, the time to memorise grows, in proportion to n where 1 << n/d << p/d. Stochastic
gradient descent with fresh noise in every step is run beside it: the mean of its weights obeys an
exact linear recursion, mode by mode.

Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, GREEN, line, number, points
from theory import random_features

SMALL = {"dim": 6, "n": 12, "features": 40}  # of the stochastic descent
STEPS = (20, 60, 150, 400, 1000)  # at which its weights are looked at
RATE = 0.5  # of the descent over the largest stable one


@dataclass(frozen=True)
class Config:
    """Sizes of the flow, replicas, noise level."""

    dim: int = option(40, "dimension of the data")
    psi_p: float = option(24.0, "features over the dimension")
    psi_n: tuple[float, ...] = option(
        (1.0, 2.0, 4.0, 8.0, 16.0), "training points over the dimension", nargs="+", type=float
    )
    t: float = option(0.1, "OU time of the noise level")
    replicas: int = option(8, "independent features and training sets")
    grid: int = option(160, "training times, even in their logarithm")
    chains: int = option(2000, "runs of stochastic descent for every number of steps")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"dim": 16, "psi_n": (2.0, 4.0, 8.0), "replicas": 6, "grid": 60, "chains": 400},
    "quick": {},
    "paper": {"dim": 100, "replicas": 24, "grid": 240, "chains": 10_000},
}  # fmt: skip


def sizes(config: Config) -> list[int]:
    """Numbers of training points.

    Raises:
        ValueError: if there are too few sizes or replicas, or too few features.
    """
    if len(config.psi_n) < 2 or config.replicas < 2:
        raise ValueError(
            f"psi_n has {len(config.psi_n)} values and replicas is {config.replicas}; "
            "a slope and its error need at least 2 each"
        )
    if max(config.psi_n) + 1 >= config.psi_p:
        raise ValueError(
            f"psi_p is {config.psi_p}, expected more features than points and dimensions: "
            f"above {max(config.psi_n) + 1:g}"
        )
    return [round(psi * config.dim) for psi in config.psi_n]


def moments(x: np.ndarray | None, w: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """``U = E[S S^T]`` and ``V = E[S z^T]`` over the noise and the points (None: the population).

    ``S = sin(W x_t / sqrt d)`` with ``x_t = e^-t x + sqrt(Delta) z``; by
    ``2 sin u sin v = cos(u - v) - cos(u + v)`` and the characteristic function of a Gaussian.
    """
    d = w.shape[1]
    noise, decay = -math.expm1(-2 * t), math.exp(-t)
    gram = w @ w.T / d
    square = np.diag(gram)
    spread = noise if x is not None else 1.0  # variance of the Gaussian part of x_t
    near = np.exp(-0.5 * spread * (square[:, None] + square - 2 * gram))
    far = np.exp(-0.5 * spread * (square[:, None] + square + 2 * gram))
    if x is None:
        even, odd, cosine = 1.0, 1.0, np.exp(-0.5 * decay**2 * square)
    else:
        angle = decay * w @ x.T / math.sqrt(d)  # (p, n)
        cos, sin = np.cos(angle), np.sin(angle)
        products, others = cos @ cos.T / len(x), sin @ sin.T / len(x)
        even, odd, cosine = products + others, products - others, cos.mean(1)
    second = 0.5 * (even * near - odd * far)
    first = (cosine * np.exp(-0.5 * noise * square))[:, None] * math.sqrt(noise / d) * w
    return second, first


def losses(x: np.ndarray, w: np.ndarray, t: float, times: np.ndarray) -> tuple[Any, Any, Any]:
    """Training and test loss of the gradient flow at training times, and the spectrum of U."""
    p, d = w.shape
    noise = -math.expm1(-2 * t)
    second, first = moments(x, w, t)
    second_all, first_all = moments(None, w, t)
    values, vectors = np.linalg.eigh(second)
    values = np.maximum(values, 1e-14)
    force = first.T @ vectors  # (d, p)
    rotated, aim = vectors.T @ second_all @ vectors, vectors.T @ first_all
    train, test = [], []
    for time in times:
        learned = -np.expm1(-2 * noise * values * time * d / p)
        weights = force * learned / values
        power = (force**2).sum(0) / values
        train.append(1 + np.sum(power * (learned**2 - 2 * learned)) / d)
        fitted = np.sum((weights @ rotated) * weights) - 2 * np.sum(weights.T * aim)
        test.append(1 + fitted / d)
    return np.asarray(train), np.asarray(test), values


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Losses of the flow at every size, and stochastic descent."""
    sizes(config)
    measured = dict(session.part("flow", partial(_flow, config, session.progress("flow"))))
    return measured | session.part("descent", partial(_descent, config))


def training_grid(config: Config) -> np.ndarray:
    """Training times, from long before generalisation to long after memorisation."""
    noise = -math.expm1(-2 * config.t)
    return np.geomspace(0.1, 1e5, config.grid) / noise


def _flow(config: Config, progress: Any) -> Curves:
    times, p = training_grid(config), round(config.psi_p * config.dim)
    shape = (len(config.psi_n), config.replicas, config.grid)
    found = {"train": np.zeros(shape), "test": np.zeros(shape)}
    found["relaxation"] = np.zeros((*shape[:2], 3))
    for i, n in enumerate(sizes(config)):
        for replica in range(config.replicas):
            rng = np.random.default_rng((config.seed, i, replica))
            x, w = rng.normal(size=(n, config.dim)), rng.normal(size=(p, config.dim))
            train, test, values = losses(x, w, config.t, times)
            found["train"][i, replica], found["test"][i, replica] = train, test
            found["relaxation"][i, replica] = relaxation_times(values, n, config)
            found[f"spectrum_{i}"] = values
            if progress is not None:
                progress(i * config.replicas + replica + 1, shape[0] * shape[1])
    return found


def _problem(config: Config) -> tuple[np.ndarray, ...]:
    """Points, features, moments, modes and the step of the stochastic descent."""
    rng = np.random.default_rng((config.seed, 77))
    x = rng.normal(size=(SMALL["n"], SMALL["dim"]))
    w = rng.normal(size=(SMALL["features"], SMALL["dim"]))
    second, first = moments(x, w, config.t)
    values, vectors = np.linalg.eigh(second)
    chosen = [-1, -SMALL["dim"], -SMALL["dim"] - 2]  # two of the population, one of the set
    return x, w, first, values[chosen], vectors[:, chosen], np.asarray(RATE / values[-1])


def _descent(config: Config) -> Curves:
    """Overlap of the mean weights with their limit, per mode and number of steps."""
    x, w, first, values, vectors, step = _problem(config)
    target = -(first.T @ vectors) / values  # (d, modes): limit of sqrt(Delta/p) A on the modes
    size = np.linalg.norm(target, axis=0)
    mean, error = np.zeros((len(STEPS), 3)), np.zeros((len(STEPS), 3))
    for i, steps in enumerate(STEPS):
        key = jax.random.fold_in(jax.random.key(config.seed), i)
        weights = _descend(key, *map(jnp.asarray, (x, w, step)), config.t, steps, config.chains)
        overlap = np.einsum("cdp,pm,dm->cm", np.asarray(weights), vectors, target / size**2)
        mean[i], error[i] = overlap.mean(0), overlap.std(0, ddof=1) / math.sqrt(config.chains)
    return {"overlap": mean, "overlap_error": error}


@partial(jax.jit, static_argnames="chains")
def _descend(
    key: jax.Array, x: jax.Array, w: jax.Array, step: jax.Array, t: float, steps: Any, chains: int
) -> jax.Array:
    """``B = sqrt(Delta/p) A`` after ``steps`` of descent with fresh noise, ``(chains, d, p)``."""
    noise = -jnp.expm1(-2 * t)

    def body(i: Any, weights: jax.Array) -> jax.Array:
        z = jax.random.normal(jax.random.fold_in(key, i), (chains, *x.shape), x.dtype)
        noised = jnp.exp(-t) * x + jnp.sqrt(noise) * z
        s = jnp.sin(noised @ w.T / math.sqrt(x.shape[1]))  # (chains, n, p)
        residual = jnp.einsum("cdp,cnp->cnd", weights, s) + z
        return weights - step * jnp.einsum("cnd,cnp->cdp", residual, s) / x.shape[0]

    return jax.lax.fori_loop(0, steps, body, jnp.zeros((chains, x.shape[1], w.shape[0]), x.dtype))


def relaxation_times(values: np.ndarray, n: int, config: Config) -> np.ndarray:
    """Times of the slowest mode of the population, and of the fastest and slowest of the set."""
    d = config.dim
    return config.psi_p / (-2 * math.expm1(-2 * config.t)) / values[[-d, -d - 1, -d - n]]


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Recursion of the descent, with half its rate as a wrong one, and times in the limit."""
    _, _, _, values, _, step = _problem(config)
    steps = np.asarray(STEPS)[:, None]
    found = [
        random_features.training_times(config.t, config.psi_p, psi, activation=jnp.sin)
        for psi in config.psi_n
    ]
    edges = np.asarray([[float(v) for v in each] for each in found])
    return {
        "recursion": 1 - (1 - step * values) ** steps,
        "wrong": 1 - (1 - 0.5 * step * values) ** steps,
        "generalise": edges[:, 0], "memorise": edges[:, 1], "memorised": edges[:, 2],
    }  # fmt: skip


def slope(log_n: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope of ``values (sizes, replicas)`` against ``log_n`` and its error."""
    mean, error = values.mean(1), values.std(1, ddof=1) / math.sqrt(values.shape[1])
    weight = (log_n - log_n.mean()) / np.sum((log_n - log_n.mean()) ** 2)
    return float(weight @ mean), float(np.sqrt(np.sum((weight * error) ** 2)))


def comparisons(config: Config, measured: Any, predicted: Any) -> list[Comparison]:
    """The recursion of the descent, a wrong rate, and a memorisation time without n."""
    logs = np.log(measured["relaxation"][..., 1])
    mean, error = logs.mean(1), logs.std(1, ddof=1) / math.sqrt(config.replicas)
    flat = np.full(len(mean), np.sum(mean / error**2) / np.sum(1 / error**2))
    # modes of one run are correlated: one mode for each number of steps
    mode = np.arange(len(STEPS)) % 3
    at = (np.arange(len(STEPS)), mode)
    curve = (measured["overlap"][at], measured["overlap_error"][at])
    return [
        compare("weights of stochastic descent, mode by mode", *curve, predicted["recursion"][at]),
        compare("weights of stochastic descent, half the rate", *curve, predicted["wrong"][at],
                control=True),
        compare("log time to memorise, independent of n", mean, error, flat, control=True),
        compare("log time to memorise, many dimensions", mean, error,
                np.log(predicted["memorise"]), exact=False),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Times per size, slopes, comparisons, one sentence."""
    found = comparisons(config, measured, predicted)
    log_n, rows, summary = np.log(sizes(config)), [], {}
    names = ("generalise", "memorise", "memorised")
    for i, n in enumerate(sizes(config)):
        mean = measured["relaxation"][i].mean(0)
        error = measured["relaxation"][i].std(0, ddof=1) / math.sqrt(config.replicas)
        summary[f"n{n}"] = {
            name: {"value": mean[k], "error": error[k], "many_dimensions": predicted[name][i]}
            for k, name in enumerate(names)
        }
        text = ", ".join(
            f"{name} {number(mean[k], error[k])} ({predicted[name][i]:.4g})"
            for k, name in enumerate(names)
        )
        rows.append((f"n = {n}: times (many dimensions)", text))
    for k, name in enumerate(names):
        value, error = slope(log_n, np.log(measured["relaxation"][..., k]))
        limit, _ = slope(log_n, np.log(np.stack([predicted[name]] * 2, 1)))
        summary[f"slope_{name}"] = {"value": value, "error": error, "many_dimensions": limit}
        text = f"{number(value, error)}, many dimensions {limit:.3f}"
        rows.append((f"d log tau / d log n, {name}", text))
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary), table=rows, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(config: Config, found: list[Comparison], summary: dict[str, Any]) -> str:
    entry, other = summary["slope_memorise"], summary["slope_generalise"]
    return (
        f"Between n = {sizes(config)[0]} and {sizes(config)[-1]} training points in d = "
        f"{config.dim}, the training time at which a score of random features begins to memorise "
        f"grows like n to the power {number(entry['value'], entry['error'])} (many dimensions: "
        f"{entry['many_dimensions']:.2f}, and 1 for 1 << n/d << p/d), the one at which it has "
        f"generalised like {number(other['value'], other['error'])} "
        f"({other['many_dimensions']:.2f}); the mean weights of stochastic descent follow their "
        f"recursion with a reduced chi-square of {found[0].chi_square:.2f}."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    axes = {
        "train": "(size, replica, time): training loss", "test": "the same: test loss",
        "times": "training times tau", "sizes": "numbers of training points",
        "relaxation": "(size, replica, 3): times of the slowest population mode, fastest and "
        "slowest mode of the set",
        "overlap": "(steps, mode): mean weights of stochastic descent over their limit",
        "overlap_error": "its standard error", "recursion": "(steps, mode): exact value",
        "generalise": "(size,): time to generalise, many dimensions",
        "memorise": "(size,): start of memorisation, many dimensions",
        "memorised": "(size,): end of memorisation, many dimensions",
    }  # fmt: skip
    made = {"times": training_grid(config), "sizes": np.asarray(sizes(config))}
    values = measured | predicted | made
    return {name: np.asarray(values[name]) for name in axes}, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Losses against time, against time over n, memorisation times, and the descent."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 4, figsize=(17, 4.2), layout="constrained")
    times = training_grid(config)
    for i, n in enumerate(sizes(config)):
        colour = COLOURS[i % len(COLOURS)]
        train, test = measured["train"][i].mean(0), measured["test"][i].mean(0)
        axes[0].plot(times, test, color=colour, label=f"n = {n}, test")
        axes[0].plot(times, train, "--", color=colour, label="training" if i == 0 else None)
        for k, style in ((0, ":"), (1, "-")):
            mark = measured["relaxation"][i, :, k].mean()
            axes[0].axvline(mark, ymax=0.06, color=colour, ls=style, lw=2)
    axes[0].set_xlabel(r"training time $\tau$")
    axes[0].set_ylabel("denoising loss per coordinate")
    axes[0].set_ylim(0, 1.3)
    _spectrum(axes[1], config, measured, len(sizes(config)) // 2)
    log = sizes(config)
    for k, (name, text) in enumerate(
        (("generalise", "population, slowest"), ("memorise", "set, fastest"),
         ("memorised", "set, slowest"))
    ):  # fmt: skip
        line(axes[2], log, predicted[name], f"{text}, many dimensions", COLOURS[k])
        mean = measured["relaxation"][..., k].mean(1)
        error = measured["relaxation"][..., k].std(1, ddof=1) / math.sqrt(config.replicas)
        points(axes[2], log, mean, error, text, COLOURS[k], "os^"[k])
    axes[2].set(xscale="log", yscale="log")
    axes[2].set_ylim(top=30 * axes[2].get_ylim()[1])  # room for the legend
    axes[2].set_xticks(log, [str(n) for n in log])
    axes[2].minorticks_off()
    axes[2].set_xlabel("training points n")
    axes[2].set_ylabel(r"relaxation time $\tau$")
    fine = np.geomspace(STEPS[0] / 2, STEPS[-1] * 1.5, 60)
    _, _, _, values, _, step = _problem(config)
    for k, name in enumerate(("largest mode", "last mode of the population", "mode of the set")):
        line(axes[3], fine, 1 - (1 - step * values[k]) ** fine, f"{name}, exact", COLOURS[k])
        points(axes[3], STEPS, measured["overlap"][:, k], measured["overlap_error"][:, k],
               "stochastic descent" if k == 0 else "", COLOURS[k], "os^"[k])  # fmt: skip
    axes[3].set_xlabel("steps of stochastic descent")
    axes[3].set_ylabel("mean weights / their limit")
    for axis in (axes[0], axes[3]):
        axis.set_xscale("log")
    for axis in axes:
        axis.legend(fontsize=7)
    return figure


def _spectrum(axis: Any, config: Config, measured: dict[str, Any], i: int) -> None:
    """Histogram of the eigenvalues of one set over the density in the limit."""
    psi, p = config.psi_n[i], round(config.psi_p * config.dim)
    values = measured[f"spectrum_{i}"]
    values = values[-(config.dim + sizes(config)[i]) :]  # without those of no weight
    edges = np.geomspace(values[0] * 0.8, values[-1] * 1.3, 40)
    counts, _ = np.histogram(values, edges)
    axis.stairs(counts / p / np.diff(np.log(edges)), edges, color=BLACK, label="one set")
    fine = np.geomspace(edges[0], edges[-1], 400)
    density = random_features.spectral_density(
        fine, config.t, config.psi_p, psi, activation=jnp.sin
    )
    line(axis, fine, fine * np.nan_to_num(np.asarray(density)), "many dimensions", GREEN)
    axis.set_xscale("log")
    axis.set_title(f"n = {sizes(config)[i]}, p = {p}", fontsize=10)
    axis.set_xlabel("eigenvalue of U")
    axis.set_ylabel("density in the logarithm")
