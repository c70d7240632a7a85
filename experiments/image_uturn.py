"""U-turns of images: which features and when the class change, by the exact empirical score.

An image is noised to t and run back by the exact score of n images, which returns one of them. The
principal components of the images are grouped in bands from coarse to fine; the overlap of the
image with the one that returns is measured in every band, and an independent classifier, trained
on other images, reads both classes. Datum and return are exchangeable, so that each curve is also
known from the posterior: the class from its weights, the overlap from the posterior mean. The
overlap of a Gaussian with the same covariance says at which noise every component is lost if only
second moments are known; it is a lower bound for the images, and exact for a surrogate set drawn
from that Gaussian, which is run beside. Images that are not in the set are turned, too.

Source: Sclocchi, Favero, Wyart 2024 (2402.16991), who turn photographs with a trained network and
compare features at the layers of a classifier; here the score is exact and features are linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.hierarchical_mixture
from diffjax.observables import Estimate, correlations, crossing
from diffjax.posterior_sums import posterior_sums
from experiments import learned
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.image_uturn_bands import Basis, basis, in_bands, unrelated_overlap
from experiments.image_uturn_figure import draw
from experiments.learned import Images
from experiments.recognition import reader
from experiments.session import Curves, Report, Session
from experiments.style import number

SEEN = 0.01  # pixels of less variance than this part of the largest are left out
READ = 1000  # draws of the surrogate that are read by the classifier, per time


@dataclass(frozen=True)
class Config:
    """Images, bands and sample sizes."""

    data: str = option("digits", "digits, mnist, fashion-mnist or a folder of images")
    root: str | None = option(None, "folder of the image files")
    classes: tuple[str, ...] | None = option(
        None, "classes; all by default", nargs="+", type=str
    )  # fmt: skip
    n: int = option(800, "images of the score")
    others: int = option(990, "other images: for the classifier, and a fifth to be turned")
    shares: tuple[float, ...] = option(
        (0.5, 0.8, 0.95), "shares of the variance that part the bands", nargs="+", type=float
    )
    span: tuple[float, ...] = option((0.02, 1.5), "first and last time", nargs=2, type=float)
    times: int = option(16, "turning times, even in log t")
    turns: int = option(8000, "U-turns per time")
    classifier_steps: int = option(800, "optimiser steps of the classifier")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"times": 6, "turns": 1500, "classifier_steps": 100},
    "quick": {"turns": 4000, "classifier_steps": 500},
    "paper": {"turns": 20_000, "times": 24, "classifier_steps": 2000},
}


def load(config: Config) -> tuple[Images, Images, np.ndarray, np.ndarray]:
    """Images of the score; those of the classifier; images of neither set and their labels."""
    data = learned.images(config.data, config.root, config.classes, config.n, config.others)
    if data.train_labels is None or data.held_out_labels is None:
        raise ValueError(f"{data.name} has no labels, but U-turns are read by a classifier")
    split = len(data.held_out) - len(data.held_out) // 5
    known = replace(
        data, train=data.held_out[:split], train_labels=data.held_out_labels[:split],
        held_out=data.train, held_out_labels=data.train_labels,
    )  # fmt: skip
    return data, known, data.held_out[split:], data.held_out_labels[split:]


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """U-turns of the images, of others and of the surrogate; expectations from the posterior."""
    data, known, fresh, fresh_labels = load(config)
    found = basis(data.train, config.shares)
    times = np.geomspace(*config.span, config.times)
    key = jax.random.key(config.seed)
    read = None

    def classes(images: np.ndarray) -> np.ndarray:
        nonlocal read
        if read is None:
            read = reader(jax.random.fold_in(key, 0), known, config.classifier_steps)
        # equal blocks: one compilation
        blocks = -(-len(images) // READ)
        padded = np.resize(images, (blocks, READ, images.shape[1])).astype(np.float32)
        return np.concatenate([np.asarray(read(v)).argmax(-1) for v in padded])[: len(images)]

    measured = {"data": data, "basis": found, "times": times}
    measured |= session.part("reading", lambda: {"read": classes(data.train)})
    own_read = measured["read"]
    shared = (data, found, own_read)
    jobs: dict[str, Callable[..., Curves]] = {
        "own": lambda *a: _turns(shared, (data.train, data.train_labels, own_read), *a),
        "fresh": lambda *a: _turns(shared, (fresh, fresh_labels, classes(fresh)), *a),
        "posterior": lambda *a: _posterior(shared, *a),
        "surrogate": lambda *a: _surrogate(found, classes, *a),
    }
    for i, (name, work) in enumerate(jobs.items()):
        rest = (times, config, jax.random.fold_in(key, i + 1), session.progress(name))
        measured |= {f"{name}_{k}": v for k, v in session.part(name, partial(work, *rest)).items()}
    return measured


def _turns(
    shared: tuple[Images, Basis, np.ndarray], starts: tuple, times: np.ndarray, config: Config,
    key: jax.Array, bar: Any,
) -> Curves:  # fmt: skip
    """U-turns that start from images of the score, or from others, with labels and read classes."""
    data, found, read = shared
    images, labels, own_read = starts
    diffusion = diffjax.Diffusion(diffjax.point_cloud(data.train), diffjax.ornstein_uhlenbeck())
    nearest = learned.nearest_points(data.train)
    rows = []
    for i, t in enumerate(times):
        key_start, key_turn = jax.random.split(jax.random.fold_in(key, i))
        index = np.asarray(jax.random.randint(key_start, (config.turns,), 0, len(images)))
        start = images[index]
        end = np.asarray(_turn(key_turn, diffusion, start, np.float32(t)))
        returned = np.asarray(nearest(end))
        same_class = own_read[index] == read[returned]
        row = _overlaps(found, start, end, ~same_class)
        same_label = labels[index] == data.train_labels[returned]
        row |= {"read": np.sum(same_class), "label": np.sum(same_label)}
        chi = _pixel_susceptibility(found, start, end)
        row |= {"chi": float(chi.mean), "chi_error": float(chi.error)}
        # an image twice in the set is one image
        row["image"] = np.sum(np.all(start == end, axis=1))
        rows.append(row)
        if bar is not None:
            bar(i + 1, len(times))
    return {name: np.asarray([row[name] for row in rows]) for name in rows[0]}


@jax.jit
def _turn(key: jax.Array, diffusion: diffjax.Diffusion, start: Any, t: jax.Array) -> jax.Array:
    """What returns from time t, in one exact transition."""
    return diffjax.u_turns(key, diffusion, start, jnp.stack([t, 0 * t]), method="exact")[0]


def _pixel_susceptibility(found: Basis, start: np.ndarray, end: np.ndarray) -> Estimate:
    """Number of pixels that pass their mean together, among those that vary."""
    spread = np.sum(found.variances * found.vectors**2, axis=1)
    used = spread > SEEN * spread.max()
    signs = np.sign((start - found.mean) * (end - found.mean))[:, used]
    return correlations.susceptibility(signs.astype(np.float32))


def _overlaps(found: Basis, start: np.ndarray, end: np.ndarray, changed: np.ndarray) -> Curves:
    """Overlap in every band over its variance, of all and of those whose class changed."""
    first, second = ((v - found.mean) @ found.vectors for v in (start, end))
    product = in_bands(found, first * second)
    mean, error = _moments(product)
    few = changed.sum() < 20
    part, spread = np.zeros((2, product.shape[1])) if few else _moments(product[changed])
    return {"overlap": mean, "overlap_error": error, "changed": part, "changed_error": spread}


def _posterior(
    shared: tuple[Images, Basis, np.ndarray], times: np.ndarray, config: Config, key: jax.Array,
    bar: Any,
) -> Curves:  # fmt: skip
    """Expectations of the same numbers from weights and means of the posterior, on fresh states."""
    data, found, read = shared
    cloud = diffjax.Diffusion(diffjax.point_cloud(data.train), diffjax.ornstein_uhlenbeck())
    shuffled = np.random.default_rng(config.seed).permutation(read)
    classes = int(max(read.max(), data.train_labels.max())) + 1
    members = [np.eye(classes)[v] for v in (read, data.train_labels, shuffled)]
    features = (data.train - found.mean) @ found.vectors
    values = np.concatenate([*members, features], axis=1).astype(np.float32)
    rows = []
    for i, t in enumerate(times):
        means = _posterior_means(
            jax.random.fold_in(key, i), cloud, values, np.float32(t), config.turns
        )
        *parts, mean = np.split(np.asarray(means, np.float64), classes * np.arange(1, 4), axis=1)
        row = {n: _moments(np.sum(p**2, 1)) for n, p in zip(("read", "label", "shuffled"), parts)}
        row["overlap"] = _moments(in_bands(found, mean**2))
        row["component"] = _moments(mean**2 / found.variances)
        rows.append(row)
        if bar is not None:
            bar(i + 1, len(times))
    curves = {name: np.asarray([row[name][0] for row in rows]) for name in rows[0]}
    return curves | {
        f"{name}_error": np.asarray([row[name][1] for row in rows]) for name in rows[0]
    }


@partial(jax.jit, static_argnames="states")
def _posterior_means(
    key: jax.Array, diffusion: diffjax.Diffusion, values: jax.Array, t: jax.Array, states: int
) -> jax.Array:
    """Posterior means of features of the images ``(n, v)`` at fresh states, ``(states, v)``."""
    x, process = diffusion.sample(key, t, states), diffusion.process
    sums = posterior_sums(
        diffusion.data.blocks, x, process.scale(t), process.std(t), values=values, top=0
    )
    return jnp.asarray(sums.mean)


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the first axis."""
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def _surrogate(
    found: Basis, classes: Callable[[np.ndarray], np.ndarray], times: np.ndarray, config: Config,
    key: jax.Array, bar: Any,
) -> Curves:  # fmt: skip
    """U-turns of Gaussian draws with the covariance of the images, in their components."""
    variances = jnp.asarray(found.variances[None], jnp.float32)
    data = diffjax.gaussian_mixture(np.ones(1, np.float32), jnp.zeros_like(variances), variances)
    diffusion = diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())
    rows = []
    for i, t in enumerate(times):
        key_start, key_turn = jax.random.split(jax.random.fold_in(key, i))
        start = diffusion.sample(key_start, 0.0, config.turns)
        end = _turn(key_turn, diffusion, start, np.float32(t))
        pixels = [np.asarray(v) @ found.vectors.T + found.mean for v in (start, end)]
        first, second = (classes(v[:READ].astype(np.float32)) for v in pixels)
        product = in_bands(found, np.asarray(start, np.float64) * np.asarray(end, np.float64))
        chi = _pixel_susceptibility(found, *pixels)
        rows.append([
            *_moments(product), np.mean(first == second), float(chi.mean), float(chi.error),
            np.bincount(first),
        ])  # fmt: skip
        if bar is not None:
            bar(i + 1, len(times))
    # chance of two unrelated draws
    most = max(len(row[-1]) for row in rows)
    total = sum(np.pad(row[-1], (0, most - len(row[-1]))) for row in rows)
    chance = np.sum((total / total.sum()) ** 2)
    names = ("overlap", "overlap_error", "read", "chi", "chi_error")
    curves = {name: np.asarray([row[j] for row in rows]) for j, name in enumerate(names)}
    return curves | {"chance": chance}


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Overlap of Gaussian bands, and the times at which bands and components have lost half."""
    found, times = measured["basis"], measured["times"]
    fine = np.geomspace(0.3 * times[0], 3 * times[-1], 300)
    curve = theory.hierarchical_mixture.uturn_overlap

    # one call for all curves: one compilation
    grid = np.concatenate([times, 2 * times, fine])
    overlap = np.asarray(curve(grid[:, None], found.variances), np.float64)
    bands, wrong, exact = np.split(
        in_bands(found, overlap * found.variances), [len(times), 2 * len(times)]
    )
    half = [float(np.exp(np.interp(-0.5, -e, np.log(fine)))) for e in exact.T]
    return {
        "bands": bands, "bands_wrong": wrong, "fine_times": fine,
        "bands_fine": exact, "band_half": np.asarray(half),
        "component_half": np.asarray(theory.hierarchical_mixture.overlap_time(found.variances)),
        "unrelated": unrelated_overlap(found, measured["data"].train, measured["read"]),
    }  # fmt: skip


def comparisons(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> list[Comparison]:
    """U-turns against the posterior, the surrogate against its theory, and wrong readings."""
    found = []
    for name, label in (("read", "class read by the classifier"), ("label", "labelled class")):
        value, error = _against(measured, name, config)
        expected = measured[f"posterior_{name}"]
        found.append(compare(f"U-turns that keep the {label}, posterior", value, error, expected))
    value, error = _against(measured, "read", config)
    found.append(
        compare("U-turns that keep the class, classes dealt out at random", value, error,
                measured["posterior_shuffled"], control=True)
    )  # fmt: skip
    for b, name in enumerate(measured["basis"].names()):
        error = np.hypot(
            measured["own_overlap_error"][:, b], measured["posterior_overlap_error"][:, b]
        )
        expected = measured["posterior_overlap"][:, b]
        value = measured["own_overlap"][:, b]
        found.append(compare(f"overlap of {name}, posterior mean", value, error, expected))
    surrogate = [np.ravel(measured[f"surrogate_{k}"]) for k in ("overlap", "overlap_error")]
    found += [
        compare("bands of the surrogate", *surrogate, np.ravel(predicted["bands"])),
        compare("bands of the surrogate, t doubled", *surrogate,
                np.ravel(predicted["bands_wrong"]), control=True),
        compare("bands of the images, Gaussian of their covariance",
                np.ravel(measured["posterior_overlap"]),
                np.ravel(measured["posterior_overlap_error"]), np.ravel(predicted["bands"]),
                exact=False),
    ]  # fmt: skip
    return found


def _against(measured: dict[str, Any], name: str, config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Frequency of U-turns that keep a class, and the error of its distance to the posterior."""
    expected = measured[f"posterior_{name}"]
    binomial = np.clip(expected * (1 - expected), 0, None) / config.turns
    error = np.hypot(np.sqrt(binomial), measured[f"posterior_{name}_error"])
    # too few changes for a normal law
    normal = config.turns * np.minimum(expected, 1 - expected) >= 10
    return np.where(normal, measured[f"own_{name}"] / config.turns, np.nan), error


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Times at which images, class and bands have half changed, one sentence."""
    found = comparisons(config, measured, predicted)
    times, data, turns = measured["times"], measured["data"], config.turns
    labels = np.bincount(measured["read"]) / len(measured["read"])
    floor = float(np.sum(labels**2))
    logs = np.log(times)

    def half(curve: np.ndarray, error: np.ndarray, level: float) -> tuple[float, float]:
        t, spread = crossing(logs, curve, error, level)
        return float(np.exp(t)), float(np.exp(t) * spread)

    def share(count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value = count / turns
        return value, np.sqrt(value * (1 - value) / turns)

    level = 0.5 * (1 + floor)
    class_half = half(measured["posterior_read"], measured["posterior_read_error"], level)
    image_half = half(*share(measured["own_image"]), 0.5)
    chance, drawn = float(measured["surrogate_chance"]), measured["surrogate_read"]
    spread = np.sqrt(drawn * (1 - drawn) / min(READ, turns))
    surrogate_half = half(drawn, spread, 0.5 * (1 + chance))
    rows = [
        ("images", f"{data.name}: n = {len(data.train)}, d = {data.train.shape[1]}"),
        ("convention", data.convention),
        ("own image returns in half of the U-turns", f"t = {number(*image_half)}"),
        (f"class kept with probability {level:.3f}", f"t = {number(*class_half)}"),
        ("class of the Gaussian surrogate half lost", f"t = {number(*surrogate_half)}"),
    ]
    summary: dict[str, Any] = {
        "data": data.name, "n": len(data.train), "convention": data.convention,
        "class_half_time": class_half, "image_half_time": image_half,
        "surrogate_class_half_time": surrogate_half, "class_floor": floor,
    }  # fmt: skip
    largest = int(np.argmax(measured["own_chi"]))
    chi = number(measured["own_chi"][largest], measured["own_chi_error"][largest])
    rows.append(("most pixels that change together", f"{chi} at t = {times[largest]:.3f}"))
    summary["largest_chi"] = measured["own_chi"][largest], times[largest]
    bands = {}
    for b, name in enumerate(measured["basis"].names()):
        errors = measured["posterior_overlap_error"][:, b]
        value = half(measured["posterior_overlap"][:, b], errors, 0.5)
        limit = predicted["band_half"][b]
        bands[name] = {"half_time": value, "gaussian_half_time": limit}
        rows.append((f"overlap 1/2 of {name}", f"t = {number(*value)}, Gaussian {limit:.3f}"))
    summary["bands"] = bands
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(data, found, class_half, image_half, bands), table=rows, summary=summary,
        curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted, summary),
    )  # fmt: skip


def _finding(
    data: Images, found: list[Comparison], class_half: tuple, image_half: tuple, bands: dict
) -> str:
    coarse, *_, fine = bands.values()
    return (
        f"U-turns of {data.name} by the exact score of {len(data.train)} images return another "
        f"image beyond t = {number(*image_half)} and another class beyond "
        f"{number(*class_half)}; the coarsest components have lost half of their overlap at "
        f"{number(*coarse['half_time'])} (Gaussian {coarse['gaussian_half_time']:.3f}), the finest "
        f"at {number(*fine['half_time'])} (Gaussian {fine['gaussian_half_time']:.3f}), and classes "
        f"and overlaps follow the posterior (reduced chi-square {found[0].chi_square:.2f} for the "
        f"class)."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    turns = f"of {config.turns} U-turns (T,)"
    texts = {
        "times": "OU turning times (T,)",
        "own_overlap": "overlap of image and return in every band, over its variance (T, bands)",
        "own_overlap_error": "its standard error",
        "own_changed": "the same where the class changed; 0 with error 0 for fewer than 20",
        "own_changed_error": "its standard error",
        "own_read": f"classes that the classifier reads unchanged, {turns}",
        "own_label": f"labels that are unchanged, {turns}",
        "own_image": f"images that return, {turns}",
        "fresh_overlap": "overlap of U-turns that start from images of neither set",
        "fresh_overlap_error": "its standard error",
        "fresh_read": f"their unchanged classes, {turns}",
        "own_chi": "number of pixels that pass their mean together (T,)",
        "own_chi_error": "its standard error",
        "surrogate_chi": "the same in the Gaussian surrogate",
        "surrogate_chi_error": "its standard error",
        "posterior_read": "probability that the read class is kept, from the posterior (T,)",
        "posterior_read_error": "its standard error",
        "posterior_overlap": "overlap from the posterior mean (T, bands)",
        "posterior_overlap_error": "its standard error",
        "posterior_component": "overlap of every component from the posterior mean (T, r)",
        "surrogate_overlap": "overlap of the Gaussian surrogate (T, bands)",
        "surrogate_overlap_error": "its standard error",
        "surrogate_read": "fraction of classes of the surrogate that are read unchanged (T,)",
    }
    curves = {key: np.asarray(measured[key]) for key in texts}
    names = ("fine_times", "bands_fine", "component_half", "unrelated")
    curves |= {key: predicted[key] for key in names}
    curves["variances"] = measured["basis"].variances
    return curves, texts | {
        "fine_times": "OU times of the theory curves",
        "bands_fine": "overlap of Gaussian bands (exact for the surrogate, bound for the images)",
        "component_half": "OU time at which a Gaussian component has lost half of its overlap",
        "unrelated": "mean overlap of unrelated images of different classes (bands,)",
        "variances": "variance of every component (r,)",
    }
