"""Speciation of a trained network by cloning, beside the exact empirical score of its images.

A network is trained on half of the images of two classes. Trajectories of the network run from
noise to a branching time and are cloned there; a classifier that knows the other half only (the
class of the nearest image) says whether two clones end in one class. The exact empirical score of
the training images is run through the same protocol, and its phi(t) is also known from the
posterior of the class, without any trajectory.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), fig. 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
import theory.speciation
from diffjax.observables import crossing
from diffjax.observables.speciation import CROSSING_LEVEL, agreement_of_pairs, clone_agreement
from diffjax.observables.spectrum import covariance_spectrum
from experiments import learned
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.learned import Images
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, BLUE, ORANGE, PURPLE, line, number, points

FIRST, LAST = 0.03, 2.5  # branching times


@dataclass(frozen=True)
class Config:
    """Images, network and sample sizes."""

    data: str = option("digits", "digits, mnist, fashion-mnist, cifar10 or a folder of images")
    root: str | None = option(None, "folder of the image files")
    classes: tuple[str, ...] = option(("0", "1"), "two classes", nargs=2, type=str)
    n: int | None = option(None, "images, both halves together; all by default", type=int)
    network: str = option("mlp", "network", choices=("mlp", "unet"))
    width: int = option(256, "width of the perceptron")
    train_steps: int = option(20000, "optimiser steps")
    times: int = option(12, "branching times, even in log t")
    pairs: int = option(2000, "trajectories per branching time")
    steps: int = option(60, "steps before the branching time, and as many after it")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"width": 64, "train_steps": 400, "times": 5, "pairs": 300, "steps": 15},
    "quick": {"width": 128, "train_steps": 6000, "times": 9, "pairs": 1000, "steps": 40},
    "paper": {},
}


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Train, then clone the network and the exact score."""
    half = None if config.n is None else config.n // 2
    data = learned.images(config.data, config.root, config.classes, half, half)
    return {"data": data} | session.part("clones", lambda: _measure(config, data, session))


def _measure(config: Config, data: Images, session: Session) -> Curves:
    looks = learned.denoisers(
        data.train, data.shape, (config.train_steps,), network=config.network, width=config.width,
        seed=config.seed, progress=session.progress("training"),
    )  # fmt: skip
    model, losses = next(looks)
    cloud = diffjax.point_cloud(data.train, data.train_labels)
    exact = diffjax.Diffusion(cloud, diffjax.ornstein_uhlenbeck())
    nearest_known = learned.nearest_points(data.train)
    nearest_other = learned.nearest_points(data.held_out)
    known_labels, other_labels = jnp.asarray(data.train_labels), jnp.asarray(data.held_out_labels)
    times = np.geomspace(FIRST, LAST, config.times)
    key = jax.random.key(config.seed)
    found: dict[str, list[tuple[float, float]]] = {"network": [], "exact": [], "strangers": []}
    bar = session.progress("clones")
    for i, t in enumerate(times):
        keys = jax.random.split(jax.random.fold_in(key, i))
        sizes = (float(t), config.pairs, config.steps)
        ends = learned.clone_ends(keys[0], model, *sizes, "ancestral")
        named = other_labels[nearest_other(ends)]
        exact_ends = learned.clone_ends(keys[1], exact, *sizes, "exact")
        labels = known_labels[nearest_known(exact_ends)]
        for name, first, second in (
            ("network", named[:, 0], named[:, 1]),
            ("exact", labels[:, 0], labels[:, 1]),
            ("strangers", labels[:, 0], jnp.roll(labels[:, 1], 1)),
        ):
            equal = int(jnp.sum(first == second))
            found[name].append(_frequency(equal, config.pairs))
        if bar is not None:
            bar(i + 1, config.times)
    phi = clone_agreement(jax.random.fold_in(key, config.times), exact, times, 4 * config.pairs)
    curves = {"times": times, "losses": losses, "posterior": np.asarray(phi.mean)}
    curves["posterior_error"] = np.asarray(phi.error)
    for name, rows in found.items():
        curves[name], curves[f"{name}_error"] = np.asarray(rows).T
    accuracy = agreement_of_pairs(other_labels[nearest_other(data.train)], known_labels)
    curves["accuracy"] = np.asarray(accuracy.mean)
    return curves


def _frequency(count: int, total: int) -> tuple[float, float]:
    """A frequency and its binomial standard error (of ``(k + 1)/(n + 2)``, so never zero)."""
    smooth = (count + 1) / (total + 2)
    return count / total, float(np.sqrt(smooth * (1 - smooth) / total))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """The spectral speciation time of the training images, and the level of the crossing."""
    data = measured["data"]
    eigenvalue = float(covariance_spectrum(data.train).eigenvalues[0])
    weights = np.bincount(data.train_labels) / len(data.train_labels)
    floor = float(np.sum(weights**2))
    return {
        "eigenvalue": eigenvalue,
        "spectral": float(theory.speciation.spectral_time(eigenvalue)),
        "level": floor + CROSSING_LEVEL * (1 - floor),
    }


def comparisons(measured: dict[str, Any]) -> list[Comparison]:
    """Exact clones against the posterior, the network against both, and unrelated pairs."""
    posterior, spread = measured["posterior"], measured["posterior_error"]
    found = []
    for name, label, kind in (
        ("exact", "clones of the exact score, posterior of the class", {}),
        ("strangers", "pairs that never met, posterior of the class", {"control": True}),
        ("network", "clones of the network, exact score of its images", {"exact": False}),
    ):
        error = np.hypot(measured[f"{name}_error"], spread)
        found.append(compare(label, measured[name], error, posterior, **kind))
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Crossing times of all curves."""
    found, data, times = comparisons(measured), measured["data"], measured["times"]
    crossings = {
        name: crossing(times, measured[name], measured[f"{name}_error"], predicted["level"])
        for name in ("posterior", "exact", "network")
    }
    losses = measured["losses"]
    last = losses[-max(1, len(losses) // 10) :]
    n, d = data.train.shape
    summary = {
        "n": n, "d": d, "largest_eigenvalue": predicted["eigenvalue"],
        "spectral_time": predicted["spectral"], "classifier_accuracy": float(measured["accuracy"]),
        "loss_at_the_start": float(losses[0]), "loss_at_the_end": float(np.mean(last)),
        **{f"crossing_{k}": v for k, (v, _) in crossings.items()},
        **{f"crossing_{k}_error": e for k, (_, e) in crossings.items()},
    }  # fmt: skip
    table = [
        ("images", f"{data.name}: n = {n} to train on, d = {d}; {data.convention}"),
        ("Lambda", f"{predicted['eigenvalue']:.4g}; spectral time {number(predicted['spectral'])}"),
        ("classifier", f"{100 * float(measured['accuracy']):.1f}% right on the training half"),
        ("loss", f"{losses[0]:.3g} at the first step, {np.mean(last):.3g} at the end"),
        *((f"phi crosses {predicted['level']:.3f}, {k}", f"t = {number(*v)}")
          for k, v in crossings.items()),
    ]  # fmt: skip
    texts = {"times": "branching OU times (T,)", "losses": "training loss of every step"}
    for name, text in (
        ("posterior", "phi of the exact empirical score, from the posterior"),
        ("exact", "frequency of equal classes, clones of the exact empirical score"),
        ("network", "frequency of equal classes, clones of the network"),
        ("strangers", "the same for pairs that never met"),
    ):
        texts |= {name: text, f"{name}_error": f"standard error of {name}"}
    return Report(
        finding=_finding(data.name, found, crossings), table=table, summary=summary,
        curves={name: np.asarray(measured[name]) for name in texts}, axes=texts,
        comparisons=found, figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(name: str, found: list[Comparison], crossings: dict[str, tuple]) -> str:
    return (
        f"On {name} clones of the trained network decide their class at t = "
        f"{number(*crossings['network'])}, those of the exact empirical score of its images at "
        f"{number(*crossings['posterior'])}; the two phi(t) differ by at most "
        f"{found[2].discrepancy:.2f}, and the protocol itself reproduces the posterior of the "
        f"class (reduced chi-square {found[0].chi_square:.2f} over {found[0].points} points)."
    )


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """``phi(t)`` of network and exact score, and the training loss."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    times = measured["times"]
    line(left, times, measured["posterior"], "exact empirical score, posterior", BLUE)
    for name, label, colour, marker in (
        ("exact", "exact empirical score, clones", BLUE, "o"),
        ("network", f"trained network ({config.network}), clones", ORANGE, "s"),
    ):
        points(left, times, measured[name], measured[f"{name}_error"], label, colour, marker)
    left.axhline(predicted["level"], color=BLACK, lw=0.8, ls=":")
    if np.isfinite(predicted["spectral"]):
        label = rf"$\frac{{1}}{{2}}\log\Lambda$ = {predicted['spectral']:.3g}"
        left.axvline(predicted["spectral"], color=PURPLE, lw=1.5, label=label)
    left.set_xscale("log")
    left.set_xlabel("branching time t (Ornstein-Uhlenbeck)")
    left.set_ylabel(r"clone agreement $\phi(t)$")
    left.set_title(measured["data"].name, fontsize=10)
    left.legend(fontsize=8)
    losses = measured["losses"]
    width = max(1, len(losses) // 100)
    smooth = losses[: len(losses) // width * width].reshape(-1, width).mean(1)
    right.loglog(width * (np.arange(len(smooth)) + 0.5), smooth, color=ORANGE)
    right.set_xlabel("training step")
    right.set_ylabel("denoising loss (mean of the step's batch)")
    return figure
