"""From memorisation to generalisation: samples of trained networks against the number of images.

Networks of one architecture, trained with one recipe for the same number of steps on nested sets of
n images, generate samples from the same initial noise. A sample is memorised if it lies within
delta_m of a training image, spurious if it is repeated by another sample instead, and generalised
otherwise; the thresholds are calibrated on held-out images, and the null curve is the fraction of
held-out images that would count as memorised. All seeds are trained side by side under one vmap.

The exact empirical score memorises at every n. Its trajectories, stopped at the noise sigma^2 of
x = a + sigma z, lie within delta_m of their image with the probability that chi-square with d
degrees of freedom is below delta_m^2 / sigma^2, which tests samplers, distances and thresholds.

Source: Pham, Raya, Negri, Zaki, Ambrogioni, Krotov 2025 (2505.21777); Bonnaire, Urfin, Biroli,
Mezard 2025 (2505.17638).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import schedules
from diffjax.networks import objectives, training
from diffjax.observables import memorisation
from diffjax.observables.memorisation import Thresholds
from experiments import learned
from experiments.audit import Audit, audit
from experiments.audit import draw as draw_audit
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.learned import Images
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, line, number, points

KINDS = ("memorised", "spurious", "generalised")
SHOWN = 8  # samples of each audit beside their nearest training images
LEVELS = (0.25, 0.75)  # probabilities that the stopped exact trajectories are set to, first to last
TIMES = (0.01, 3.0)  # trained; the images are told apart well inside
START = 5.0


@dataclass(frozen=True)
class Config:
    """Images, sizes of the training sets, network and recipe."""

    data: str = option("digits", "digits, mnist, fashion-mnist, or a path to images or an array")
    root: str | None = option(None, "folder with the files of mnist or fashion-mnist")
    classes: tuple[str, ...] | None = option(None, "classes; all by default", nargs="+", type=str)
    sizes: tuple[int, ...] = option(
        (16, 64, 128, 256, 512, 1500), "sizes of the training sets, increasing", nargs="+", type=int
    )
    seeds: int = option(3, "networks per size, trained side by side")
    samples: int = option(256, "samples per network; at most as many as images are held out")
    held_out: int = option(1000, "most images that are held out")
    width: int = option(128, "width of the MLP")
    depth: int = option(3, "layers of the MLP")
    steps: int = option(3000, "training steps at every size")
    batch: int = option(64, "images per step")
    learning_rate: float = option(3e-3, "learning rate")
    warm_up: int = option(100, "steps of warm-up")
    ema: float = option(0.999, "weight of the past in the averaged parameters")
    chain: int = option(100, "steps of the sampler")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "sizes": (8, 200), "samples": 200, "width": 32, "depth": 1, "steps": 40, "batch": 16,
        "chain": 20,
    },
    "quick": {},
    "paper": {
        "data": "mnist", "classes": ("1", "8"), "sizes": (16, 64, 256, 1000, 4000, 10_000),
        "held_out": 1000, "samples": 1000, "width": 1024, "depth": 4, "steps": 100_000,
        "batch": 128, "learning_rate": 3e-4, "chain": 500,
    },
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Thresholds, then networks, samples and their labels at every size."""
    sizes = np.asarray(config.sizes)
    if len(sizes) < 2 or np.any(np.diff(sizes) <= 0):
        raise ValueError(f"sizes must be two or more that increase, got {config.sizes}")
    if config.seeds < 2:
        raise ValueError(f"seeds is {config.seeds}; errors between networks need at least 2")
    data = learned.images(config.data, config.root, config.classes, config.sizes[-1],
                          config.held_out)  # fmt: skip
    limits = memorisation.calibrate(data.held_out, data.train, size=config.samples)
    null = memorisation.null_curve(data.held_out, data.train, sizes, limits.memorised_below)
    measured: dict[str, Any] = {
        "data": data, "limits": limits, "sizes": sizes,
        "null": np.asarray(null.mean), "null_error": np.asarray(null.error),
    }  # fmt: skip
    rows = []
    noise = exact_noise(config, limits, data.train.shape[1])
    for i, n in enumerate(config.sizes):
        bar = session.progress(f"n = {n}, {config.seeds} networks")
        part = partial(_at_size, config, data, limits, n, float(noise[i]), bar)
        rows.append(session.part(f"n{n}", part))
    stacked = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return measured | stacked


def exact_noise(config: Config, limits: Thresholds, dim: int) -> np.ndarray:
    """Variances at which the exact trajectories are stopped, one for every size."""
    from scipy.stats import chi2

    levels = np.linspace(*LEVELS, len(config.sizes))
    return limits.memorised_below**2 / chi2.ppf(levels, dim)


def _at_size(
    config: Config, data: Images, limits: Thresholds, n: int, noise: float, bar: Any
) -> Curves:
    """Everything that is measured at one size."""
    train = data.train[:n]
    drawn, loss = _generate(config, train, bar)
    found = [memorisation.fractions(x, train, **limits._asdict()) for x in drawn]
    copies = [memorisation.gap_ratio(x, train).memorised.mean for x in drawn]
    shown = audit(drawn[0], train, shown=SHOWN, order="spread")
    hits, total = _exact(config, train, limits.memorised_below, noise)
    return {
        "labels": np.stack([f.labels for f in found]),
        "train_distance": np.stack([f.train_distance for f in found]),
        "copies": np.asarray(copies, np.float64),
        "loss": loss,
        **{f"shown_{name}": value for name, value in shown._asdict().items()},
        "exact": np.asarray(hits / total),
        "exact_total": np.asarray(total),
    }


def _generate(config: Config, train: np.ndarray, bar: Any) -> tuple[jax.Array, np.ndarray]:
    """Samples ``(seeds, M, d)`` of networks trained side by side, and their last losses."""
    network, initial = learned.perceptron(train.shape[1], config.width, config.depth)
    goal = _objective()
    plan = training.modern(
        steps=config.steps, batch=config.batch, learning_rate=config.learning_rate,
        warm_up=config.warm_up, ema=config.ema, chunk=256, checkpoint_every=config.steps,
    )  # fmt: skip
    key_weights, key_samples = jax.random.split(jax.random.key(config.seed))
    params = jax.vmap(initial)(jax.random.split(key_weights, config.seeds))
    state = training.initial_states(params, plan, config.seed + np.arange(config.seeds))
    state, losses = training.train(state, network, goal, train, plan, progress=bar)

    # the same initial noise at every size, another one for every seed
    keys = jax.random.split(key_samples, config.seeds)
    shape = (config.samples, train.shape[1])
    drawn = _draw(training.trained_parameters(state), keys, network, shape, config.chain)
    return drawn, losses[-max(1, config.steps // 20) :].mean(0)


def _objective() -> objectives.Objective:
    return objectives.modern(t_min=TIMES[0], t_max=TIMES[1], parametrisation="x0", weighting="v")


@partial(jax.jit, static_argnums=(2, 3, 4))
def _draw(
    params: Any, keys: jax.Array, network: Any, shape: tuple[int, int], steps: int
) -> jax.Array:
    """Samples ``(seeds, *shape)``; compiled once for all sizes."""

    def of_seed(params: Any, key: jax.Array) -> jax.Array:
        model = learned.diffusion(_objective(), network, params, shape[1])
        return learned.samples(key, model, shape, steps)

    return jax.vmap(of_seed)(params, keys)


def _exact(config: Config, train: np.ndarray, below: float, noise: float) -> tuple[int, int]:
    """Trajectories of the exact score that stop at ``noise`` within ``below`` of an image."""
    total = config.samples * config.seeds
    model = diffjax.Diffusion(diffjax.point_cloud(train), diffjax.ornstein_uhlenbeck())
    stop = 0.5 * np.log1p(noise)
    times = jnp.asarray(schedules.log_snr(stop, START, 20)[::-1], train.dtype)
    key_start, key_path = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), len(train))
    )
    start = model.sample(key_start, times[0], total)
    x, _ = diffjax.backward(key_path, model, start, times, method="exact", span_reduction=False)
    near = memorisation.nearest_distances(x * np.exp(float(times[-1])), train, count=1)
    return int(jnp.sum(near.distances[:, 0] <= below)), total


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Memorised fraction of the stopped exact trajectories, and that at twice their noise."""
    from scipy.stats import chi2

    limits, dim = measured["limits"], measured["data"].train.shape[1]
    ratio = limits.memorised_below**2 / exact_noise(config, limits, dim)
    return {"exact": chi2.cdf(ratio, dim), "twice": chi2.cdf(ratio / 2, dim)}


def fractions(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Means over seeds and their errors, ``(sizes, 3)``: between seeds, or binomial if larger."""
    labels = measured["labels"]
    found = np.stack([(labels == kind).mean(-1) for kind in range(3)], -1)  # (sizes, seeds, 3)
    mean, seeds = found.mean(1), found.shape[1]
    binomial = np.sqrt(mean * (1 - mean) / (seeds * labels.shape[-1]))
    return mean, np.maximum(found.std(1, ddof=1) / np.sqrt(seeds), binomial)


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Exact trajectories against chi-square; twice the noise; the networks against memory."""
    value, total = measured["exact"], measured["exact_total"]
    error = np.sqrt(predicted["exact"] * (1 - predicted["exact"]) / total)
    mean, spread = fractions(measured)
    floor = 1 / total[0]
    return [
        compare("memorised, stopped exact trajectories", value, error, predicted["exact"]),
        compare(
            "memorised, twice the noise", value, error, predicted["twice"], control=True,
        ),
        compare(
            "memorised by networks, null curve", mean[:, 0],
            np.hypot(spread[:, 0], measured["null_error"]), measured["null"], exact=False,
            floor=floor,
        ),
    ]  # fmt: skip


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Fractions by size, critical sizes, one sentence."""
    found, sizes, data = comparisons(measured, predicted), measured["sizes"], measured["data"]
    mean, error = fractions(measured)
    rows = [
        ("images", f"{data.name}: {len(data.held_out)} held out; {data.convention}"),
        ("thresholds", f"delta_m = {measured['limits'].memorised_below:.4g}, delta_s = "
         f"{measured['limits'].spurious_below:.4g}"),
    ]  # fmt: skip
    for i, n in enumerate(sizes):
        values = ", ".join(f"{k} {number(mean[i, j], error[i, j])}" for j, k in enumerate(KINDS))
        rows.append(
            (f"n = {n}", f"{values}; null {number(measured['null'][i])}; loss "
             f"{measured['loss'][i].mean():.3g}; by gap ratio {measured['copies'][i].mean():.3f}")
        )  # fmt: skip
    critical = _critical(config, measured)
    if critical:
        values = (
            f"{name} = {number(entry['value'], entry['value'] * entry['log_error'])}"
            for name, entry in critical.items()
        )
        rows.append(("critical sizes", ", ".join(values)))
    summary = {
        "thresholds": measured["limits"]._asdict(), "sizes": sizes, "null": measured["null"],
        "memorised": mean[:, 0], "memorised_error": error[:, 0], "spurious": mean[:, 1],
        "generalised": mean[:, 2], "by_gap_ratio": measured["copies"].mean(1),
        "gap_ratio_error": measured["copies"].std(1, ddof=1) / np.sqrt(config.seeds),
        "critical_sizes": critical,
        "thresholds_swept": _sweep(measured),
        "training_loss": measured["loss"].mean(1),
    }  # fmt: skip
    finding = (
        f"Of the samples of networks trained for {config.steps} steps on {sizes[0]} of the "
        f"{data.name}, {number(100 * mean[0, 0], 100 * error[0, 0])}% are training images, and on "
        f"{sizes[-1]} {number(100 * mean[-1, 0], 100 * error[-1, 0])}%, where held-out images give "
        f"{number(100 * measured['null'][-1], 100 * measured['null_error'][-1])}% "
        f"({config.seeds} seeds)."
    )
    curves, axes = _arrays(measured)
    return Report(
        finding=finding, table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _critical(config: Config, measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Sizes between the phases by name; empty for fewer than three sizes."""
    if len(measured["sizes"]) < 3:
        return {}
    key = jax.random.key(config.seed)
    found = memorisation.critical_sizes(key, measured["sizes"], measured["labels"])
    return {
        name: {"value": float(v), "log_error": float(e), "found": float(f)}
        for name, v, e, f in zip(("n_m", "n_s", "n_g"), *found)
    }


def _sweep(measured: dict[str, Any]) -> dict[str, np.ndarray]:
    """Memorised fractions with half and with twice the threshold, ``(sizes,)``."""
    below = measured["limits"].memorised_below
    near = measured["train_distance"]
    return {f"{factor:g}": np.mean(near <= factor * below, axis=(1, 2)) for factor in (0.5, 1, 2)}


def _arrays(measured: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    mean, error = fractions(measured)
    curves: Curves = {"sizes": measured["sizes"]}
    axes = {"sizes": "training images (N,)"}
    for j, kind in enumerate(KINDS):
        curves[kind], curves[f"{kind}_error"] = mean[:, j], error[:, j]
        axes[kind] = f"{kind} fraction of the samples, mean over seeds (N,)"
        axes[f"{kind}_error"] = "its standard error"
    for name, text in (
        ("null", "memorised fraction of held-out images (N,)"),
        ("null_error", "its standard error"),
        ("exact", "memorised fraction of stopped exact trajectories (N,)"),
        ("train_distance", "distance of each sample to the nearest training image (N, seeds, M)"),
        ("copies", "memorised fraction by the ratio of neighbour distances (N, seeds)"),
        ("shown_samples", "samples of the first seed, even ranks of the distance (N, shown, d)"),
        ("shown_nearest", "their nearest training images (N, shown, d)"),
    ):
        curves[name], axes[name] = np.asarray(measured[name]), text
    return curves, axes


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Fractions against n with the null curve, and audits at the smallest and largest n."""
    import matplotlib.pyplot as plt

    sizes, data = measured["sizes"], measured["data"]
    figure = plt.figure(figsize=(15, 7.2), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.25))
    top, bottom = left.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    _draw_fractions(top, config, measured)
    total = measured["exact_total"]
    spread = np.sqrt(predicted["exact"] * (1 - predicted["exact"]) / total)
    points(bottom, sizes, measured["exact"], spread, "stopped exact score", GREEN, "x")
    line(bottom, sizes, predicted["exact"], "chi-square, exact", GREEN, ":")
    bottom.set_ylim(0, 1)
    bottom.set_xticks(sizes, [str(n) for n in sizes])
    bottom.set_xticks([], minor=True)
    bottom.set_xlabel("training images $n$")
    bottom.set_ylabel("memorised")
    bottom.legend(fontsize=8)
    for panel, i in zip(right.subfigures(2, 1), (0, len(sizes) - 1)):
        shown = Audit(*(measured[f"shown_{name}"][i] for name in Audit._fields))
        draw_audit(
            shown, data.shape, memorised_below=measured["limits"].memorised_below,
            mean=np.resize(data.mean, data.train.shape[1]), limits=(0, 1), columns=SHOWN,
            figure=panel,
        )  # fmt: skip
        panel.suptitle(f"n = {sizes[i]}: samples over their nearest training images", fontsize=10)
    return figure


def _draw_fractions(axis: Any, config: Config, measured: dict[str, Any]) -> None:
    """Fractions of the three kinds, null curve, sweep of the threshold, critical sizes."""
    sizes, (mean, error) = measured["sizes"], fractions(measured)
    swept = _sweep(measured)
    axis.fill_between(
        sizes, swept["0.5"], swept["2"], color=RED, alpha=0.12, lw=0,
        label=r"memorised, $\delta_m/2$ to $2\delta_m$",
    )  # fmt: skip
    for j, (kind, colour) in enumerate(zip(KINDS, (RED, ORANGE, BLUE))):
        points(axis, sizes, mean[:, j], error[:, j], kind, colour, "os^"[j])
        axis.plot(sizes, mean[:, j], color=colour, lw=0.8)
    copies = measured["copies"]
    points(
        axis, sizes, copies.mean(1), copies.std(1, ddof=1) / np.sqrt(config.seeds),
        "memorised by ratio of distances < 1/3", PURPLE, "D",
    )  # fmt: skip
    points(axis, sizes, measured["null"], measured["null_error"], "null: held-out images", BLACK)
    for name, entry in _critical(config, measured).items():
        if np.isfinite(entry["value"]):
            axis.axvline(entry["value"], color=BLACK, lw=0.7, ls=":")
            axis.text(entry["value"], 1.04, f"${name}$", fontsize=9, ha="center")
    axis.set_xscale("log")
    axis.set_ylabel(f"fraction of samples ({config.seeds} seeds)")
    axis.set_ylim(-0.03, 1.1)
    axis.legend(fontsize=8, loc="center left", framealpha=0.95)
