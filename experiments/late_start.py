"""Gaussian late start: skip the part of the dynamics in front of the symmetry breaking.

A sampler that begins at a late time from a Gaussian of matched mean and covariance is compared
with one that begins there from standard noise ("vanilla"). For a mixture of ten Gaussians every
ingredient is exact, so that the Frechet distance to the data measures the start and the step alone;
images are sampled by the exact empirical score of all of them, and by a perceptron trained on them,
whose error bars are of sampling from one network. The whole curve over start times is
shown, with its knee, beside the times at which the centre loses stability: the best of many start
times is an optimistic number. Distances are between pixels or coordinates, not features of a
network; those of the mixture are to as many exact samples, the floor is to the exact moments.

Source: Raya, Ambrogioni 2023 (2305.19693).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.speciation
from diffjax import schedules
from diffjax.dynamics import methods
from diffjax.dynamics.late_start import gaussian_start, gaussian_start_of_moments, isotropic_start
from diffjax.observables import stability
from diffjax.observables.sample_quality import frechet_distance
from experiments import learned
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.late_start_cells import (
    FLOOR,
    KINDS,
    PUBLISHED,
    SAMPLES,
    SEEDS,
    cells,
    curves_of,
)
from experiments.session import Curves, Report, Session
from experiments.style import number
from experiments.symmetry_breaking import mixture

SAMPLERS = {"ddim": methods.ddim(), "eta1": methods.ddim(1.0), "exact": methods.exact()}


@dataclass(frozen=True)
class Config:
    """Start times, numbers of steps, and the images."""

    indices: tuple[int, ...] = option(
        (100, 200, 300, 400, 500, 600, 700, 800, 900), "start indices", nargs="+", type=int
    )
    steps: tuple[int, ...] = option((3, 5, 10), "denoiser calls of a run", nargs="+", type=int)
    samplers: tuple[str, ...] = option(
        ("ddim", "eta1", "exact"), "samplers of the whole curves", nargs="+", type=str
    )
    data: str = option("digits", "images", choices=("digits", "mnist", "fashion-mnist"))
    root: str = option("", "folder of image files")
    n: int = option(1700, "number of images, equally many of each class")
    image_steps: int = option(10, "steps for images, DDIM")
    image_samples: int = option(1700, "samples of images per run")
    image_seeds: int = option(3, "seeds for images")
    network_steps: int = option(8000, "training steps of a perceptron on the images; 0: none")
    network_width: int = option(256, "width of the perceptron")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "indices": (200, 400, 600, 800),
        "steps": (3,),
        "samplers": ("ddim",),
        "image_steps": 3,
        "image_samples": 500,
        "image_seeds": 2,
        "network_steps": 0,
        "n": 300,
    },
    "quick": {},
    "paper": {
        "indices": tuple(range(50, 1000, 50)),
        "image_samples": 5000,
        "image_seeds": 5,
        "network_steps": 64_000,
        "network_width": 512,
    },
}


def times_of(clock: np.ndarray, index: int, steps: int) -> np.ndarray:
    """OU times of ``steps`` denoiser calls from ``index`` down, and t = 0 behind the last."""
    grid = np.linspace(0, index, steps).astype(int)[::-1]
    return np.append(clock[grid], 0.0)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Distances of the benchmark and of the images over start times."""
    for name in config.samplers:
        if name not in SAMPLERS:
            raise ValueError(f"unknown sampler {name!r}; choose of {', '.join(SAMPLERS)}")
    bar = session.progress
    measured = dict(session.part("benchmark", partial(_benchmark, config, bar("benchmark"))))
    measured |= session.part("images", partial(_images, config, bar("images")))
    if config.network_steps:
        bars = bar("training of the network"), bar("network")
        measured |= session.part("network", partial(_network, config, *bars))
    return measured


def _benchmark(config: Config, progress: Any) -> Curves:
    """Frechet distance and class divergence of every cell and seed, ``(cells, seeds)``."""
    model, centres, covariance = mixture(np.float32)
    clock = np.asarray(schedules.ddpm_linear(), np.float32)
    mean = jnp.asarray(centres.mean(0), jnp.float32)
    starts = {
        "vanilla": isotropic_start(16, jnp.float32(1)),
        "gaussian": gaussian_start_of_moments(mean, jnp.asarray(covariance, jnp.float32)),
    }
    keys = [jax.random.fold_in(jax.random.key(config.seed), s) for s in range(SEEDS)]
    exact = jnp.asarray(sigma_points(centres.mean(0), covariance), jnp.float32)
    clean = [model.sample(jax.random.fold_in(key, 0), 0.0, SAMPLES) for key in keys]
    floor = [float(frechet_distance(x, exact)) for x in clean]
    runs, distance, divergence = cells(config), [], []
    for i, (sampler, steps, kind, index) in enumerate(runs):
        times = times_of(clock, index, steps)
        for key, real in zip(keys, clean):
            key_start, key_path = jax.random.split(jax.random.fold_in(key, 2 + i))
            x = diffjax.late_start(key_start, starts[kind], times[0], SAMPLES)
            x, _ = diffjax.backward(key_path, model, x, times, method=SAMPLERS[sampler])
            distance.append(float(frechet_distance(x, real)))
            label = np.argmax(np.asarray(model.class_log_posterior(x, 1e-3)), axis=-1)
            divergence.append(_divergence(label, np.full(10, 0.1)))
        if progress is not None:
            progress(i + 1, len(runs))
    return {
        "distance": np.reshape(distance, (-1, SEEDS)),
        "divergence": np.reshape(divergence, (-1, SEEDS)),
        "floor": np.asarray(floor),
    }


def sigma_points(mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """2 d points with exactly this mean and sample covariance: a reference without an error."""
    d = len(mean)
    arms = np.sqrt(d - 0.5) * np.linalg.cholesky(covariance).T
    return mean + np.concatenate([arms, -arms])


def _divergence(labels: np.ndarray, prior: np.ndarray) -> float:
    """KL divergence of the prior from the frequencies of labels; an empty class counts 1/M."""
    counts = np.maximum(np.bincount(labels, minlength=prior.size), 1)
    return float(np.sum(prior * np.log(prior * len(labels) / counts)))


def _image_starts(config: Config) -> tuple[Any, Any, dict[str, Any]]:
    """The images, their points, and the two starts."""
    classes = tuple(str(c) for c in range(10))
    data = learned.images(config.data, config.root or None, classes, config.n)
    points = jnp.asarray(data.train)
    vanilla = isotropic_start(points.shape[1], jnp.float32(1))
    return data, points, {"vanilla": vanilla, "gaussian": gaussian_start(points)}


def _over_starts(config: Config, model: Any, starts: dict[str, Any], progress: Any) -> Any:
    """Samples of images for every kind of start, start index and seed, in this order."""
    clock = np.asarray(schedules.ddpm_linear(), np.float32)
    total = len(KINDS) * len(config.indices)
    for i in range(total):
        kind, index = KINDS[i // len(config.indices)], config.indices[i % len(config.indices)]
        times = times_of(clock, index, config.image_steps)
        for seed in range(config.image_seeds):
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 500 + i), seed)
            key_start, key_path = jax.random.split(key)
            x = diffjax.late_start(key_start, starts[kind], times[0], config.image_samples)
            yield diffjax.backward(key_path, model, x, times, method="ddim")[0]
        if progress is not None:
            progress(i + 1, total)


def _network(config: Config, training: Any, progress: Any) -> Curves:
    """Distances of the samples of a perceptron trained on the images, by the same starts."""
    data, points, starts = _image_starts(config)
    ((model, _),) = learned.denoisers(
        data.train, data.shape, (config.network_steps,), width=config.network_width,
        seed=config.seed, progress=training,
    )  # fmt: skip
    samples = _over_starts(config, model, starts, progress)
    distance = [float(frechet_distance(x, points)) for x in samples]
    shape = (len(KINDS), len(config.indices), config.image_seeds)
    return {"network_distance": np.reshape(distance, shape)}


def _images(config: Config, progress: Any) -> Curves:
    """The same for images with their exact empirical score, and the growth rate at their mean."""
    data, points, starts = _image_starts(config)
    labels, start = np.asarray(data.train_labels), starts["gaussian"]
    model = diffjax.Diffusion(diffjax.point_cloud(points), diffjax.ornstein_uhlenbeck())
    clock = np.asarray(schedules.ddpm_linear(), np.float32)
    prior = np.bincount(labels, minlength=10) / len(labels)
    distance, divergence = [], []
    for x in _over_starts(config, model, starts, progress):
        distance.append(float(frechet_distance(x, points)))
        nearest = np.argmax(np.asarray(model.index_log_weights(x, 0.05)), axis=-1)
        divergence.append(_divergence(labels[nearest], prior))
    shape = (len(KINDS), len(config.indices), config.image_seeds)
    scan = np.arange(999, 50, -50)
    at_mean = jnp.exp(-clock[scan])[:, None] * start.mean
    rates = np.asarray(stability.leading_rate(jax.random.key(1), model, at_mean, clock[scan]).rate)
    crossing = np.interp(
        float(stability.critical_times(clock[scan], rates)), clock, np.arange(1000)
    )
    top = np.asarray(float(start.eigenvalues[0]))
    return {
        "image_distance": np.reshape(distance, shape),
        "image_divergence": np.reshape(divergence, shape),
        "image_crossing": crossing,
        "image_top": top,
        "image_index": scan,
        "image_rate": rates,
    }


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Indices at which the centre loses stability: by formula, and by the rate at the mean."""
    model, centres, covariance = mixture()
    clock = np.asarray(schedules.ddpm_linear())
    index = np.arange(600, 380, -2)
    at_mean = np.exp(-clock[index])[:, None] * centres.mean(0)
    rates = stability.drift_spectrum(model, at_mean, clock[index]).eigenvalues[:, 0]

    def to_index(t: Any) -> float:
        return float(np.interp(float(t), clock, np.arange(len(clock))))

    times = theory.speciation.fixed_point_time(
        np.array([np.linalg.eigvalsh(covariance)[-1], float(measured["image_top"])])
    )
    return {
        "formula": to_index(times[0]),
        "image_formula": to_index(times[1]),
        "rate": to_index(stability.critical_times(clock[index], rates)),
    }


def knee(indices: Any, curve: np.ndarray) -> float:
    """Index of the largest second difference of a curve on an even grid; NaN below three points."""
    if len(curve) < 3:
        return float("nan")
    return float(indices[1 + int(np.argmax(np.diff(curve, 2)))])


def comparisons(config: Config, measured: dict[str, Any]) -> list[Comparison]:
    """The published cells and the floor, and the cells with the two starts exchanged."""
    row = {cell: measured["distance"][i].mean() for i, cell in enumerate(cells(config))}
    value = np.array([row[cell] for cell in PUBLISHED] + [measured["floor"].mean()])
    mean, spread = np.array([*PUBLISHED.values(), FLOOR]).T
    error = spread * np.sqrt(2 / SEEDS)  # of two independent means over five seeds
    swapped = np.append(mean[:-1].reshape(-1, 2)[:, ::-1].ravel(), mean[-1])
    return [
        compare("Frechet distances of the benchmark", value, error, mean),
        compare("the same, starts exchanged", value, error, swapped, control=True),
    ]


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Table of the benchmark, knees, and the images."""
    from experiments.late_start_figure import draw

    knees = {
        f"{sampler}_{steps}": knee(config.indices, values[1].mean(-1))
        for sampler, steps, values in curves_of(config, measured)
    }
    image_knee = knee(config.indices, measured["image_distance"].mean(-1)[1])
    axes = {
        "indices": "DDPM step index of the start (I,)",
        "image_distance": "squared Frechet distance in pixels, vanilla and Gaussian (2, I, seeds)",
        "image_divergence": "KL divergence of class frequencies in nats (2, I, seeds)",
        "distance": "squared Frechet distance of the cells in summary.json (cells, seeds)",
        "divergence": "KL divergence of class frequencies of the cells in nats (cells, seeds)",
    }
    if "network_distance" in measured:
        axes["network_distance"] = (
            "image_distance by one trained perceptron, seeds of sampling (2, I, seeds)"
        )
    found: Curves = measured | {"indices": np.asarray(config.indices)}
    return Report(
        finding=_finding(config, measured),
        table=_table(config, measured, predicted, knees, image_knee),
        summary={
            "cells": _cells(config, measured), "knees": knees, "image_knee": image_knee,
            **predicted, "image_rate_index": float(measured["image_crossing"]),
            "network": _network_summary(config, measured),
        },
        curves={name: found[name] for name in axes},
        axes=axes,
        comparisons=comparisons(config, measured),
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _table(
    config: Config, measured: Any, predicted: Any, knees: dict[str, float], image_knee: float
) -> list[tuple[str, str]]:
    """Reference cells, floor, knees, critical indices."""
    rows = []
    for values, (cell, (mean, spread)) in zip(measured["distance"], PUBLISHED.items()):
        sampler, steps, kind, index = cell
        text = f"{number(values.mean(), values.std(ddof=1))}, reference {number(mean, spread)}"
        rows.append((f"{sampler}, {steps} steps, {kind} start at {index}", text))
    floor = measured["floor"]
    text = f"{number(floor.mean(), floor.std(ddof=1))}, reference {number(*FLOOR)}"
    rows.append(("floor, exact samples", text))
    text = ", ".join(f"{name}: {value:.0f}" for name, value in knees.items())
    rows.append(("knee of the Gaussian start", text))
    text = f"index {predicted['rate']:.0f} (rate at the mean), {predicted['formula']:.0f} (formula)"
    rows.append(("centre of the mixture unstable below", text))
    text = (
        f"knee {image_knee:.0f}; centre unstable below {float(measured['image_crossing']):.0f} "
        f"(rate at the mean), {predicted['image_formula']:.0f} (formula)"
    )
    rows.append((f"{config.data}, DDIM {config.image_steps} steps", text))
    found = _network_summary(config, measured)
    if found is not None:
        least = "; ".join(
            f"least {kind} distance {number(*found[kind]['least'])} at {found[kind]['index']}, "
            f"knee {found[kind]['knee']:.0f}"
            for kind in KINDS
        )
        rows.append((f"the same by a perceptron, {config.network_steps} training steps", least))
    return rows


def _network_summary(config: Config, measured: dict[str, Any]) -> dict[str, Any] | None:
    """Knee and least distance (mean, sd over seeds of sampling) of each start of the network."""
    if "network_distance" not in measured:
        return None
    found = {}
    for kind, values in zip(KINDS, measured["network_distance"]):
        mean = values.mean(-1)
        best = int(np.argmin(mean))
        sd = values[best].std(ddof=1) if values.shape[-1] > 1 else float("nan")
        found[kind] = {
            "knee": knee(config.indices, mean),
            "least": (float(mean[best]), float(sd)),
            "index": config.indices[best],
        }
    return found


def _cells(config: Config, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """All runs of the benchmark with their distances."""
    return [
        {
            "sampler": sampler, "steps": steps, "start": kind, "index": index,
            "distance": float(distance.mean()), "sd": float(distance.std(ddof=1)),
            "class_divergence": float(divergence.mean()),
        }
        for (sampler, steps, kind, index), distance, divergence in zip(
            cells(config), measured["distance"], measured["divergence"]
        )
    ]  # fmt: skip


def _finding(config: Config, measured: dict[str, Any]) -> str:
    vanilla, gaussian = measured["image_distance"].mean(-1)
    at = [config.indices[int(np.argmin(curve))] for curve in (vanilla, gaussian)]
    table = dict(zip(cells(config), measured["distance"].mean(-1)))
    text = (
        f"With three DDIM steps the matched Gaussian start brings the Frechet distance of the "
        f"mixture from {table['ddim', 3, 'vanilla', 500]:.2f} to "
        f"{table['ddim', 3, 'gaussian', 300]:.2f}; on {config.data} the exact score comes to "
        f"{vanilla.min():.3f} in pixels from its best vanilla start, index {at[0]}, and to "
        f"{gaussian.min():.3f} from its best Gaussian start, index {at[1]}."
    )
    found = _network_summary(config, measured)
    if found is None:
        return text
    (first, _), (second, _) = (found[kind]["least"] for kind in KINDS)
    return (
        f"{text} A perceptron trained on {config.data} comes to {first:.3f} from its best vanilla "
        f"start, index {found['vanilla']['index']}, and to {second:.3f} from its best Gaussian "
        f"start, index {found['gaussian']['index']}, in pixels."
    )
