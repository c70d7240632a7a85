"""Removing a class of images: constant negative prompts against a tracked posterior.

A class-conditional perceptron with label dropout supplies the scores of all images and of the
forbidden class; a classifier that was trained on other images says what was sampled. All rules of
a seed run from the same noise through the same network; a seed has its own network and noise. What
is left of the class, the balance of the others, and the distance to the nearest training image are
laid beside their values for real images of the kept classes.

No theory predicts a network. The same sampler with the exact score of the labelled training images
must sample all classes by their frequencies if it is not guided, and the kept ones by theirs if it
is guided by the true posterior; a constant weight must not. These are the comparisons.

Source: Koulischer et al. 2024 (2410.14398).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import guidance, schedules
from diffjax.networks import functional, objectives, training
from diffjax.networks.conditional import (
    ConditionalMLPConfig,
    conditional_denoiser,
    conditional_mlp,
)
from diffjax.noise import normal
from diffjax.observables import removal
from diffjax.observables.neighbours import nearest_distances
from experiments import learned, recognition
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.learned import Images
from experiments.session import Curves, Report, Session
from experiments.style import number

T_MIN, T_MAX = 5e-3, 4.0
"""OU times between which networks are trained and all chains run, for pixels of mean square 1."""
KINDS = {
    "prompt": "negative prompt",
    "dynamic": "dynamic",
    "tempered": "dynamic, tempered",
    "normalised": "dynamic, normalised",
}
# The published settings for images of 3072 pixels; the offset never reached the released sampler.
TEMPERED = {"prior": 0.01, "temper": 0.2, "offset": 0.0, "p_max": 0.8}
QUANTITIES = ("forbidden", "balance", "distance")
EXACT = ("true posterior", "unguided", "negative prompt")  # rules with the exact score
PROMPT = 0.5  # weight of the last one
SHOWN = 16  # images of a rule in the figure


@dataclass(frozen=True)
class Config:
    """Images, networks, samples, and the weights of the trade-off curves."""

    data: str = option("digits", "digits, mnist, fashion-mnist, cifar10 or a folder of images")
    root: str | None = option(None, "folder of the image files")
    classes: tuple[str, ...] = option(
        (), "classes of the images; all if none is named", nargs="+", type=str
    )
    remove: tuple[str, ...] = option(
        (), "classes to remove, one after the other; each if none is named", nargs="+", type=str
    )
    n: int | None = option(None, "training images; half of all by default", type=int)
    seeds: int = option(3, "networks, each with its own noise")
    samples: int = option(1000, "samples of each rule and seed")
    steps: int = option(200, "steps of the chains, even in log snr")
    width: int = option(512, "width of the perceptron")
    train_steps: int = option(30000, "optimiser steps of the network")
    classifier_steps: int = option(3000, "optimiser steps of the classifier")
    exact_samples: int = option(8000, "samples with the exact score of the images")
    prompts: tuple[float, ...] = option(
        (0.25, 0.5, 1.0, 2.0, 4.0), "weights of the negative prompt", nargs="+", type=float
    )
    dynamics: tuple[float, ...] = option(
        (0.25, 0.5, 1.0, 2.0, 4.0),
        "weights of both untempered dynamic rules",
        nargs="+",
        type=float,
    )
    tempers: tuple[float, ...] = option(
        (1.0, 5.0, 12.0, 25.0), "weights of the tempered dynamic rule", nargs="+", type=float
    )
    seed: int = option(0, "first seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {  # as many samples as held-out images: one shape
        "classes": ("0", "1", "4", "7"), "remove": ("4",), "seeds": 2, "samples": 360, "steps": 40,
        "width": 128, "train_steps": 600, "classifier_steps": 80, "exact_samples": 600,
        "prompts": (0.5, 2.0), "dynamics": (1.0,), "tempers": (5.0,),
    },
    "quick": {
        "remove": ("0", "3"), "samples": 300, "steps": 60, "width": 192, "train_steps": 3000,
        "classifier_steps": 500, "exact_samples": 1000, "prompts": (0.25, 0.5, 1.0, 2.0),
        "dynamics": (0.5, 1.0, 4.0), "tempers": (5.0, 25.0),
    },
    "paper": {},
}  # fmt: skip


def jobs(config: Config) -> list[tuple[str, float]]:
    """Kind and weight of every rule; the first one is no guidance."""
    sweeps = {
        "prompt": config.prompts, "dynamic": config.dynamics, "tempered": config.tempers,
        "normalised": config.dynamics,
    }  # fmt: skip
    return [("prompt", 0.0)] + [(kind, w) for kind, weights in sweeps.items() for w in weights]


def make_rule(kind: str, model: diffjax.Diffusion, c: int, prior: float, weight: float) -> Any:
    """The rule that is meant by a word of `KINDS`; the classes of one word compile once."""
    weight = jnp.float32(weight)
    if kind == "prompt":
        return guidance.negative_prompt(model, c, weight)
    if kind == "normalised":
        return guidance.normalised_negative(model, c, prior=jnp.float32(prior), weight=weight)
    settings = TEMPERED if kind == "tempered" else {**TEMPERED, "temper": 1.0, "p_max": 0.99}
    if kind == "dynamic":
        settings["prior"] = prior
    return guidance.dynamic_negative(
        model, c, weight=weight, **{name: jnp.float32(v) for name, v in settings.items()}
    )


def load(config: Config) -> tuple[Images, list[int]]:
    """Images of mean square 1 per pixel, and the positions of the classes to be removed."""
    data = learned.images(config.data, config.root, config.classes or None, config.n)
    if data.train_labels is None:
        raise ValueError(f"{data.name} has no labels, and without labels there is no class")
    classes = int(data.train_labels.max()) + 1
    names = config.classes or tuple(str(c) for c in range(classes))
    unknown = sorted(set(config.remove) - set(names))
    if unknown:
        raise ValueError(f"remove names {', '.join(unknown)}; choose among {', '.join(names)}")
    size = float(np.sqrt(np.mean(np.square(data.train))))
    scaled = replace(
        data, train=(data.train / size).astype(np.float32),
        held_out=(data.held_out / size).astype(np.float32), mean=data.mean / size,
    )  # fmt: skip
    return scaled, [names.index(c) for c in config.remove or names]


def train_networks(
    data: Images, config: Config, session: Session
) -> Iterator[tuple[int, diffjax.Diffusion]]:
    """Seeds, and the conditional perceptron of each that has learned the training images."""
    sizes = ConditionalMLPConfig(data.train.shape[1], len(frequencies(data)), width=config.width)
    network, _ = functional(conditional_mlp(sizes))  # one function, so that all seeds compile once
    for seed in range(config.seed, config.seed + config.seeds):
        _, params = functional(conditional_mlp(sizes, key=jax.random.key(seed)))
        yield seed, _train(seed, network, params, data, config, session.progress(f"seed {seed}"))


def _train(
    seed: int, network: Any, params: Any, data: Images, config: Config,
    progress: Callable[[int, int], None] | None,
) -> diffjax.Diffusion:  # fmt: skip
    # a perceptron that predicts the image itself need not carry the noise through its layers
    objective = objectives.modern(t_min=T_MIN, t_max=T_MAX, parametrisation="x0", weighting="v")
    recipe = training.modern(
        steps=config.train_steps, batch=min(128, len(data.train)), learning_rate=1e-3,
        warm_up=min(200, config.train_steps // 2), weight_decay=0.0,
        ema=0.999 if config.train_steps >= 3000 else 0.99,
    )  # fmt: skip
    state, _ = training.train(
        training.initial_state(params, recipe, seed), network.apply, objective, data.train, recipe,
        labels=data.train_labels, progress=progress,
    )  # fmt: skip
    model = conditional_denoiser(
        network.apply, training.trained_parameters(state), classes=len(frequencies(data)),
        shape=data.train.shape[1], parametrisation=objective.parametrisation,
        class_weights=frequencies(data), t_range=(T_MIN, T_MAX),
    )  # fmt: skip
    return diffjax.Diffusion(model, diffjax.ornstein_uhlenbeck())


def frequencies(data: Images) -> np.ndarray:
    """Class frequencies of the training images, ``(K,)``."""
    return np.bincount(data.train_labels) / len(data.train_labels)


def run(key: jax.Array, rule: Any, samples: int, steps: int) -> jax.Array:
    """Samples ``(M, d)`` of the ancestral chain from pure noise."""
    key_start, key_chain = jax.random.split(key)
    grid = schedules.backward_grid(schedules.log_snr(T_MIN, T_MAX, steps)).astype(jnp.float32)
    start = normal(key_start, (samples, rule.model.dim), jnp.float32)
    x, _ = diffjax.backward(key_chain, rule.model, start, grid, method="ancestral", guidance=rule)
    return x


def quality(label: Any, near: Any, data: Images, c: int) -> list[float]:
    """Forbidden fraction, KL, mean distance, from labels and distances of samples."""
    return [
        float(removal.forbidden_fraction(label, c).mean),
        float(removal.class_balance(label, frequencies(data), c).mean),
        float(np.mean(near)),
    ]


def nearest(x: Any, data: Images) -> np.ndarray:
    """Distances to the nearest training image, ``(M,)``."""
    return np.asarray(nearest_distances(x, data.train, count=1).distances[:, 0])


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Networks and what every rule samples from them; the exact score of the same images."""
    if config.seeds < 2:
        raise ValueError(f"seeds is {config.seeds}; errors between networks need at least 2")
    data, removed = load(config)
    measured: dict[str, Any] = {"data": data, "removed": removed}
    work = partial(_sample_networks, data, removed, config, session)
    measured |= session.part("networks", work)
    for c in removed:
        measured |= session.part(f"exact_{c}", partial(_sample_exact, data, c, config))
    return measured


def _sample_networks(data: Images, removed: list[int], config: Config, session: Session) -> Curves:
    """``values (R, J, seeds, 3)`` of R removed classes and J rules, real images, confusion."""
    # the classifier knows the images that the generator does not
    other = replace(
        data, train=data.held_out, train_labels=data.held_out_labels, held_out=data.train,
        held_out_labels=data.train_labels,
    )  # fmt: skip
    read = recognition.reader(
        jax.random.fold_in(jax.random.key(config.seed), 1), other, config.classifier_steps
    )
    classes, rules = len(frequencies(data)), jobs(config)
    confusion = np.zeros((classes, classes))
    told = np.argmax(read(data.train), axis=-1)
    np.add.at(confusion, (data.train_labels, told), 1)
    found: Curves = {"confusion": confusion, "real": _real(data, told, removed)}
    values = np.zeros((len(removed), len(rules), config.seeds, len(QUANTITIES)))
    shares = np.zeros((*values.shape[:3], classes))
    shown, done, bar = [], 0, session.progress("samples")
    for at, (seed, model) in enumerate(train_networks(data, config, session)):
        key = jax.random.fold_in(jax.random.key(seed), 2)
        for i, c in enumerate(removed):
            for j, (kind, weight) in enumerate(rules):
                rule = make_rule(kind, model, c, frequencies(data)[c], weight)
                x = run(key, rule, config.samples, config.steps)
                label = np.argmax(read(x), axis=-1)
                values[i, j, at] = quality(label, nearest(x, data), data, c)
                shares[i, j, at] = np.bincount(label, minlength=classes) / len(label)
                if i == at == 0:
                    shown.append(np.asarray(x[:SHOWN]))
                done += 1
                if bar is not None:
                    bar(done, config.seeds * len(removed) * len(rules))
    return found | {"values": values, "shares": shares, "shown": np.asarray(shown)}


def _real(data: Images, told: np.ndarray, removed: list[int]) -> np.ndarray:
    """The three quantities of real images of the kept classes, ``(R, 3)``.

    Labels are those of images that the classifier has not seen, distances those of images that the
    generator has not seen.
    """
    near = nearest(data.held_out, data)
    return np.asarray(
        [
            quality(told[data.train_labels != c], near[data.held_out_labels != c], data, c)
            for c in removed
        ]
    )


def _sample_exact(data: Images, c: int, config: Config) -> Curves:
    """Class counts of chains with the exact score, by three rules."""
    cloud = diffjax.point_cloud(data.train, data.train_labels)
    model = diffjax.Diffusion(cloud, diffjax.ornstein_uhlenbeck())
    index = learned.nearest_points(data.train)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 3), c)
    counts = []
    prompts = (guidance.negative_prompt(model, c, jnp.float32(w)) for w in (0, PROMPT))
    for row, rule in enumerate((guidance.exact_negative(model, c), *prompts)):
        x = run(jax.random.fold_in(key, row), rule, config.exact_samples, config.steps)
        counts.append(np.bincount(data.train_labels[index(x)], minlength=cloud.classes))
    return {f"exact_{c}": np.asarray(counts, np.float64)}


def in_turn(shares: np.ndarray, first: int) -> np.ndarray:
    """Share of each class among the classes that are left, class ``first`` first, ``(K - 1,)``.

    Unlike the shares themselves, these are uncorrelated in a multinomial sample.
    """
    order = [first, *(k for k in range(len(shares)) if k != first)]
    ordered = np.asarray(shares, np.float64)[order]
    return (ordered / np.cumsum(ordered[::-1])[::-1])[:-1]


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Class frequencies of all training images, and without each removed class."""
    weights = frequencies(measured["data"])
    kept = {c: np.where(np.arange(len(weights)) == c, 0, weights) for c in measured["removed"]}
    return {"all": weights, "kept": {c: v / v.sum() for c, v in kept.items()}}


def comparisons(measured: dict[str, Any], predicted: dict[str, Any]) -> list[Comparison]:
    """Exact scores against frequencies, what must fail, and the unguided network."""
    found = []
    for label, row, law, control in (
        ("exact score, true posterior; images without the class", 0, "kept", False),
        ("exact score, unguided; all images", 1, "all", False),
        ("exact score, unguided; images without the class", 1, "kept", True),
        (f"exact score, negative prompt {PROMPT}; images without the class", 2, "kept", True),
    ):
        parts = []
        for c in measured["removed"]:
            counts = measured[f"exact_{c}"][row]
            wanted = predicted["all"] if law == "all" else predicted["kept"][c]
            parts.append(_overlay(counts, wanted, c))
        value, error, theory = np.concatenate(parts, axis=1)
        found.append(compare(label, value, error, theory, control=control))
    shares = measured["shares"][0, 0]  # unguided chains are the same for every removed class
    spread = shares.std(0, ddof=1) / np.sqrt(len(shares))
    found.append(
        compare("network, unguided; all images", shares.mean(0), spread, predicted["all"],
                exact=False)
    )  # fmt: skip
    return found


def _overlay(counts: np.ndarray, wanted: np.ndarray, c: int) -> np.ndarray:
    """Measured shares in turn, binomial errors of the theory, theory: ``(3, K - 1)``."""
    order = [c, *(k for k in range(len(counts)) if k != c)]
    left = np.cumsum(counts[order][::-1])[::-1][:-1]
    value, theory = in_turn(counts, c), in_turn(wanted, c)
    return np.stack([value, np.hypot(np.sqrt(theory * (1 - theory) / left), 1 / left), theory])


def averages(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Means over removed classes, and errors between seeds, ``(J, 3)``; distance over the real."""
    values = np.array(measured["values"])
    values[..., 2] /= measured["real"][:, None, None, 2]
    by_seed = values.mean(0)
    return by_seed.mean(1), by_seed.std(1, ddof=1) / np.sqrt(by_seed.shape[1])


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """The table of all rules, the classifier, and the trade-off curves."""
    from experiments.negative_guidance_images_figure import draw

    found = comparisons(measured, predicted)
    mean, error = averages(measured)
    confusion, real = measured["confusion"], measured["real"]
    data, removed = measured["data"], measured["removed"]
    accuracy = float(np.trace(confusion) / confusion.sum())
    floor = real[:, 0].mean()
    rows = [
        ("images", f"{data.name}: {len(data.train)} to train on, {len(data.held_out)} held out"),
        ("classifier", f"{100 * accuracy:.1f}% right on images that it has not seen"),
        ("columns", "forbidden fraction / KL (nats) / distance over that of held-out images"),
        ("real images", f"{floor:.4f} / {real[:, 1].mean():.4f} / 1"),
    ]
    entries = []
    for (kind, weight), value, spread in zip(jobs(config), mean, error):
        name = f"{KINDS[kind]} {weight:g}" if weight else "unguided"
        texts = [number(v, e) for v, e in zip(value, spread)]
        rows.append((name, " / ".join(texts)))
        entries.append(
            {"rule": kind, "weight": weight}
            | {q: {"value": v, "error": e} for q, v, e in zip(QUANTITIES, value, spread)}
        )
    summary = {
        "classifier_accuracy": accuracy,
        "forbidden_fraction_of_real_images": dict(zip(map(str, removed), real[:, 0].tolist())),
        "confusion": confusion.tolist(),
        "rules": entries,
    }
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, mean, accuracy, floor), table=rows, summary=summary,
        curves=curves, axes=axes, comparisons=found, figure=lambda: draw(config, measured),
    )  # fmt: skip


def _finding(
    config: Config, found: list[Comparison], mean: np.ndarray, accuracy: float, floor: float
) -> str:
    rules = jobs(config)

    def best(kind: str) -> tuple[float, np.ndarray]:
        """The weight of a kind that leaves least of the class."""
        at = min((j for j, r in enumerate(rules) if r[0] == kind), key=lambda j: mean[j, 0])
        return rules[at][1], mean[at]

    parts = []
    for kind, name in KINDS.items():
        weight, value = best(kind)
        parts.append(
            f"{name} {weight:g}: {value[0]:.3f} (KL {value[1]:.2f}, distance {value[2]:.2f})"
        )
    return (
        f"Without guidance {mean[0, 0]:.3f} of the samples are in the forbidden class (distance "
        f"{mean[0, 2]:.2f} times that of held-out images); the weights that leave least of it give "
        f"{'; '.join(parts)}. The classifier (accuracy {accuracy:.3f}) calls {floor:.3f} of real "
        f"kept images forbidden. With the exact score of the images the true posterior removes the "
        f"class and keeps the others (reduced chi-square {found[0].chi_square:.2f} over "
        f"{found[0].points} points)."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    mean, error = averages(measured)
    order = "forbidden fraction, KL, distance"
    curves: Curves = {
        "weights": np.asarray([w for _, w in jobs(config)]), "mean": mean, "error": error,
        "frequencies": predicted["all"],
    }  # fmt: skip
    axes = {
        "weights": "weight of every rule (J,): unguided, " + ", ".join(KINDS.values()),
        "mean": f"{order} over that of held-out images, means over removed classes (J, 3)",
        "error": "their standard errors between seeds (J, 3)",
        "frequencies": "class frequencies of the training images (K,)",
    }
    texts = {
        "values": f"{order} of removed class, rule, seed (R, J, seeds, 3)",
        "shares": "share of every class among the samples (R, J, seeds, K)",
        "real": f"{order} of real images of the kept classes (R, 3)",
        "confusion": "unseen images of a class (row) by the label that they are given (column)",
    }
    for c in measured["removed"]:
        texts[f"exact_{c}"] = f"class counts with the exact score: {', '.join(EXACT)} (3, K)"
    return curves | {name: np.asarray(measured[name]) for name in texts}, axes | texts
