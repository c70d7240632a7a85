"""Collapse of trained networks onto their images, against training time and number of images.

Perceptrons are trained on n images and looked at after a growing number of steps. Clones of their
trajectories end near a training image each: whether on the same one, as the clones of the exact
empirical score do below its collapse time, and how near (a sample is memorised if its nearest image
is less than a third as far as the second one). The exact score is run through the same protocol;
its phi_C is also known from the weights of the posterior.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), fig. 5; Bonnaire, Urfin, Biroli,
Mezard 2025 (2505.17638) for training times.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax.observables.collapse import collapse_curves
from experiments import learned
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.image_speciation import _frequency
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, line, number, points

RATIO = 1 / 3  # of nearest to second nearest distance, below which a sample is memorised


@dataclass(frozen=True)
class Config:
    """Images, networks and sample sizes."""

    data: str = option("digits", "digits, mnist, fashion-mnist, cifar10 or a folder of images")
    root: str | None = option(None, "folder of the image files")
    classes: tuple[str, ...] = option(("0", "1"), "two classes", nargs=2, type=str)
    sizes: tuple[int, ...] = option((16, 64, 256), "numbers of images", nargs="+", type=int)
    train_steps: tuple[int, ...] = option(
        (1000, 4000, 16000, 64000), "steps at which networks are looked at", nargs="+", type=int
    )
    width: int = option(256, "width of the perceptrons")
    times: int = option(9, "branching times, even in log t")
    pairs: int = option(1000, "trajectories per branching time")
    steps: int = option(60, "steps before the branching time, and as many after it")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "sizes": (8, 32), "train_steps": (100, 600), "width": 64, "times": 4, "pairs": 200,
        "steps": 12,
    },
    "quick": {
        "sizes": (16, 128), "train_steps": (500, 2000, 8000), "width": 192, "times": 7,
        "pairs": 500, "steps": 40,
    },
    "paper": {},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Networks and exact score at every size."""
    if min(config.sizes) < 3:
        raise ValueError(f"sizes are {config.sizes}, expected at least 3 images each")
    data = learned.images(config.data, config.root, config.classes, max(config.sizes), 0)
    measured: dict[str, Any] = {"data": data}
    for n in config.sizes:
        part = session.part(f"n{n}", partial(_measure, config, data.train[:n], data.shape, session))
        measured |= {f"{name}_n{n}": value for name, value in part.items()}
    return measured


def _measure(
    config: Config, train: np.ndarray, shape: tuple[int, int, int], session: Session
) -> Curves:
    """``phi_C`` of the exact score and of the last network; memorised fraction of every one."""
    n, key = len(train), jax.random.key(config.seed)
    exact = diffjax.Diffusion(diffjax.point_cloud(train), diffjax.ornstein_uhlenbeck())
    nearest = learned.nearest_points(train)
    times = np.geomspace(0.02, 2.0, config.times)
    fractions, losses = [], []
    model: Any = None
    looks = learned.denoisers(
        train, shape, config.train_steps, width=config.width, seed=config.seed,
        progress=session.progress(f"training, n = {n}"),
    )  # fmt: skip
    for model, curve in looks:
        ends = learned.clone_ends(
            key, model, learned.T_MAX / 2, config.pairs, config.steps, "ancestral"
        )
        fractions.append(_frequency(int(np.sum(_memorised(ends[:, 0], train))), config.pairs))
        losses.append(float(np.mean(curve[-max(1, len(curve) // 10) :])))
    found: dict[str, list[tuple[float, float]]] = {"network": [], "exact": []}
    for i, t in enumerate(times):
        keys = jax.random.split(jax.random.fold_in(key, i))
        for name, which, method, k in (
            ("network", model, "ancestral", keys[0]), ("exact", exact, "exact", keys[1]),
        ):  # fmt: skip
            ends = learned.clone_ends(k, which, float(t), config.pairs, config.steps, method)
            index = nearest(ends)
            found[name].append(_frequency(int(jnp.sum(index[:, 0] == index[:, 1])), config.pairs))
    weights = collapse_curves(jax.random.fold_in(key, 99), exact, times, 8 * config.pairs)
    curves = {
        "times": times, "posterior": np.asarray(weights.participation.mean),
        "posterior_error": np.asarray(weights.participation.error), "loss": np.asarray(losses),
    }  # fmt: skip
    for name, rows in {**found, "memorised": fractions}.items():
        curves[name], curves[f"{name}_error"] = np.asarray(rows).T
    return curves


def _memorised(samples: jax.Array, reference: np.ndarray) -> np.ndarray:
    """Whether the nearest image is less than `RATIO` times as far as the second nearest."""
    from diffjax.observables.memorisation import gap_ratio

    return np.asarray(gap_ratio(samples, jnp.asarray(reference)).ratio) < RATIO


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """``phi_C`` of pairs that never met: one over the number of images."""
    return {f"unrelated_n{n}": np.full(config.times, 1 / n) for n in config.sizes}


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """The exact score against its posterior and against chance; networks against both."""

    def gather(source: dict[str, Any], key: str) -> np.ndarray:
        return np.concatenate([source[f"{key}_n{n}"] for n in config.sizes])

    posterior, spread = gather(measured, "posterior"), gather(measured, "posterior_error")
    found = []
    for name, against, label, kind in (
        ("exact", posterior, "clones of the exact score on one image, weights", {}),
        ("exact", gather(predicted, "unrelated"), "the same, pairs that never met",
         {"control": True}),
        ("network", posterior, "clones of the longest trained networks, exact weights",
         {"exact": False}),
    ):  # fmt: skip
        error = np.hypot(gather(measured, f"{name}_error"), spread)
        found.append(compare(label, gather(measured, name), error, against, **kind))
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Memorised fractions by size and steps."""
    found, summary, table = comparisons(config, measured, predicted), {}, []
    for n in config.sizes:
        rows = list(zip(measured[f"memorised_n{n}"], measured[f"memorised_error_n{n}"]))
        summary[f"n{n}"] = {
            "train_steps": list(config.train_steps),
            "memorised": [float(v) for v, _ in rows],
            "memorised_error": [float(e) for _, e in rows],
            "loss": measured[f"loss_n{n}"].tolist(),
        }
        texts = (f"{steps}: {number(*row)}" for steps, row in zip(config.train_steps, rows))
        table.append((f"n = {n}, memorised after steps", ", ".join(texts)))
    texts = {
        "times": "branching OU times (T,)",
        "posterior": "phi_C = E sum w^2 of the exact empirical score",
        "exact": "frequency of clones on one image, exact empirical score",
        "network": "the same for the longest trained network",
        "memorised": "memorised fraction at every number of training steps",
    }
    texts |= {
        f"{k}_error": f"standard error of {k}"
        for k in ("posterior", "exact", "network", "memorised")
    }
    curves = {
        f"{key}_n{n}": np.asarray(measured[f"{key}_n{n}"]) for n in config.sizes for key in texts
    }
    axes = {f"{key}_n{n}": f"n = {n}: {text}" for n in config.sizes for key, text in texts.items()}
    curves["train_steps"] = np.asarray(config.train_steps)
    axes["train_steps"] = "numbers of training steps"
    return Report(
        finding=_finding(config, measured, found), table=table, summary=summary, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured),
    )  # fmt: skip


def _finding(config: Config, measured: dict[str, Any], found: list[Comparison]) -> str:
    few, many = min(config.sizes), max(config.sizes)
    values = [
        number(measured[f"memorised_n{n}"][-1], measured[f"memorised_error_n{n}"][-1])
        for n in (few, many)
    ]
    return (
        f"After {config.train_steps[-1]} steps a network memorises {values[0]} of its samples at "
        f"n = {few} and {values[1]} at n = {many}, where the exact empirical score memorises all; "
        f"clones of the exact score end on one image as its weights say (reduced chi-square "
        f"{found[0].chi_square:.2f} over {found[0].points} points)."
    )


def draw(config: Config, measured: dict[str, Any]) -> Any:
    """``phi_C(t)`` of exact score and networks; memorised fraction against training steps."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    for i, n in enumerate(config.sizes):
        colour, marker = COLOURS[i % len(COLOURS)], "os^Dv<"[i % 6]
        times = measured[f"times_n{n}"]
        line(left, times, measured[f"posterior_n{n}"], f"n = {n}: exact weights", colour)
        points(left, times, measured[f"exact_n{n}"], measured[f"exact_error_n{n}"],
               f"n = {n}: exact score", colour, marker)  # fmt: skip
        points(left, times, measured[f"network_n{n}"], measured[f"network_error_n{n}"],
               f"n = {n}: trained network", colour, "x")  # fmt: skip
        points(right, config.train_steps, measured[f"memorised_n{n}"],
               measured[f"memorised_error_n{n}"], f"n = {n}", colour, marker)  # fmt: skip
    left.set_xscale("log")
    left.set_xlabel("branching time t (Ornstein-Uhlenbeck)")
    left.set_ylabel(r"clones on the same image, $\phi_C(t)$")
    left.legend(fontsize=7)
    right.set_xscale("log")
    right.set_xticks(config.train_steps, [str(steps) for steps in config.train_steps])
    right.set_xticks([], minor=True)
    right.axhline(1, color=BLACK, lw=0.8, ls=":", label="exact score")
    right.set_ylim(-0.03, 1.05)
    right.set_xlabel("training steps")
    right.set_ylabel("memorised fraction of samples")
    right.legend(fontsize=8)
    return figure
