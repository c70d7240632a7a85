"""When the class is decided: conditional entropy of the class along the trajectory, and its rate.

Four mixtures on a line, whose entropy H(y | x_t) is known by quadrature, are overlaid with its
sampled value, and with the posterior that is carried along backward trajectories and needs nothing
but class denoisers. The rate dH/dt is the mean squared guidance vector; it is compared with finite
differences and with the trajectories' own. Dividing by a variance that did not generate the states
fails at 50 steps. Labelled images (all ten classes) give profiles for each class and each pair: the
time at which half of the information between two classes is there orders them in a tree. With
--network-steps a conditional perceptron is trained and its class entropy tracked through it alone.

Where the rate peaks depends on the clock: per OU time, per index s of the variance-preserving
process and per log sigma the peaks lie at different times, and none is the symmetry breaking.

Source: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433). The mixtures are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from experiments import class_images, class_mixtures
from experiments.class_information_figure import draw
from experiments.class_mixtures import MIXTURES
from experiments.command_line import option
from experiments.comparison import Comparison
from experiments.session import Curves, Report, Session
from experiments.style import number


@dataclass(frozen=True)
class Config:
    """Mixtures, images, and how many states and trajectories."""

    mixtures: tuple[str, ...] = option(
        ("A", "B", "C", "D"), "mixtures on the line", nargs="+", type=str
    )
    times: int = option(10, "OU times at which fresh states are drawn, even in log t")
    states: int = option(20000, "fresh states per time")
    steps: int = option(250, "steps of the trajectories: equally spaced DDPM indices 999 to 0")
    tracked: int = option(6, "times read from trajectories, each from a run of its own")
    paths: int = option(2000, "trajectories of a run")
    data: str = option("digits", "images", choices=("digits", "mnist", "fashion-mnist"))
    root: str | None = option(None, "folder of the image files, for all but digits")
    classes: tuple[str, ...] = option(
        (), "classes of the images; all if none is named", nargs="+", type=str
    )
    n: int | None = option(None, "number of images; all if not given", type=int)
    image_range: tuple[float, ...] = option(
        (0.1, 3.5), "OU times of the images", nargs=2, type=float
    )
    image_times: int = option(16, "OU times at which noised images are drawn")
    image_states: int = option(2048, "noised images per time")
    image_steps: int = option(100, "steps of trajectories of images, even in log snr")
    image_paths: int = option(1024, "trajectories of images; 0: none")
    network_steps: int = option(20000, "training steps of a conditional network; 0: none")
    width: int = option(256, "width of the network")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "mixtures": ("C",), "times": 4, "states": 4096, "tracked": 3, "paths": 1000,
        "classes": ("0", "1", "7"), "n": 150, "image_times": 10, "image_states": 512,
        "image_steps": 20, "image_paths": 0, "network_steps": 0,
    },
    "quick": {"image_times": 12, "image_states": 768, "image_steps": 50, "image_paths": 512,
              "network_steps": 3000},
    "paper": {},
}  # fmt: skip


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Mixtures, images and, if asked for, the network: one part each."""
    unknown = sorted(set(config.mixtures) - set(MIXTURES))
    if unknown or not config.mixtures:
        raise ValueError(f"mixtures is {config.mixtures}; choose some of {', '.join(MIXTURES)}")
    keys = jax.random.split(jax.random.key(config.seed), len(MIXTURES) + 2)
    measured: dict[str, Any] = {}
    progress = session.progress("mixtures")
    for done, name in enumerate(config.mixtures):
        key = keys[list(MIXTURES).index(name)]
        work = partial(class_mixtures.measure, key, name, config)
        measured[name] = session.part(f"mixture_{name}", work)
        if progress is not None:
            progress(done + 1, len(config.mixtures))
    data = class_images.data_set(config)
    measured |= session.part("images", partial(class_images.measure, keys[-2], data, config))
    if config.network_steps and config.image_paths:
        bar = session.progress("network")
        work = partial(class_images.network, keys[-1], data, config, bar)
        measured |= session.part("network", work)
    return measured | {"class_names": data.class_names, "data": data.name,
                       "convention": data.convention}  # fmt: skip


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Quadrature for the mixtures; the tree of the image classes."""
    predicted = {name: class_mixtures.predict(name, measured[name]) for name in config.mixtures}
    times, errors = class_images.decision_times(measured)
    return {
        **predicted,
        "decided": times,
        "decided_error": errors,
        "tree": class_images.tree(times),
    }


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Overlays of the mixtures, decision times of the pairs, the peaks on three clocks."""
    found = class_mixtures.comparisons(config.mixtures, measured, predicted)
    pairs = _pairs(measured, predicted)
    summary: dict[str, Any] = {
        "units": "nats, OU time",
        "peak_times": {
            name: dict(zip(("per_t", "per_s", "per_log_sigma"), predicted[name]["peaks"]))
            for name in config.mixtures
        },
        "posterior_rms": {
            name: {"matched": float(np.max(measured[name]["posterior_rms"])),
                   f"matched_{class_mixtures.FEW}": float(np.max(measured[name]["matched_rms"])),
                   f"wrong_{class_mixtures.FEW}": float(np.max(measured[name]["mismatched_rms"]))}
            for name in config.mixtures
        },
        "data": measured["data"], "convention": measured["convention"],
        "pairs": [{"pair": pair, "time": t, "error": e} for pair, t, e in pairs],
    }  # fmt: skip
    rows = _rows(config, measured, predicted, pairs)
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, measured, predicted, pairs), table=rows, summary=summary,
        curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _pairs(measured: dict[str, Any], predicted: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Pairs of classes from the first decided in generation (largest t) to the last."""
    names, times = measured["class_names"], predicted["decided"]
    listed = [
        (f"{names[j]}-{names[i]}", float(times[i, j]), float(predicted["decided_error"][i, j]))
        for i in range(len(names))
        for j in range(i)
    ]
    return sorted(listed, key=lambda item: -item[1])


def _rows(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any], pairs: list
) -> list[tuple[str, str]]:
    rows = []
    for name in config.mixtures:
        t, s, sigma = map(number, predicted[name]["peaks"])
        rows.append((f"mixture {name}: rate peaks at OU time",
                     f"{t} per t, {s} per s, {sigma} per log sigma"))  # fmt: skip
        few, many = (measured[name][f"{kind}_rms"] for kind in ("mismatched", "posterior"))
        rows.append((f"mixture {name}: rms error of the tracked posterior",
                     f"{np.max(many):.3f} at {config.steps} steps; {np.max(few):.2f} with the "
                     f"wrong variance at {class_mixtures.FEW}"))  # fmt: skip
    for label, chosen in (("decided first", pairs[:3]), ("decided last", pairs[-3:])):
        text = ", ".join(f"{pair} at t = {number(t, e)}" for pair, t, e in chosen)
        rows.append((f"{measured['data']}: {label}", text))
    if "network_entropy" in measured:
        gap = np.max(np.abs(measured["network_entropy"] - measured["image_tracked_entropy"]))
        rows.append(("network against points, entropy", f"largest difference {gap:.3f} nats"))
    return rows


def _finding(
    config: Config, found: list[Comparison], measured: dict, predicted: dict, pairs: list
) -> str:
    name = config.mixtures[0]
    t, s, sigma = predicted[name]["peaks"]
    wrong = np.max(measured[name]["mismatched_rms"])
    return (
        f"The entropy of the class and its rate, sampled and carried along {config.steps} steps of "
        f"trajectories, follow quadrature (reduced chi-square "
        f"{', '.join(f'{c.chi_square:.2f}' for c in found if not c.control)}); the rate of mixture "
        f"{name} peaks at OU time {t:.3f} per t, {s:.3f} per index s and {sigma:.3f} per log "
        f"sigma, so that a peak means nothing without its clock; with the wrong variance the "
        f"posterior is off by {wrong:.2f} at {class_mixtures.FEW} steps; of {measured['data']} the "
        f"pair {pairs[0][0]} is decided first, at t = {number(*pairs[0][1:])}, and {pairs[-1][0]} "
        f"last, at {number(*pairs[-1][1:])} (pixel convention: {measured['convention']})."
    )


_MIXTURE_TEXTS = {
    "times": "OU times of fresh states (T,)",
    "entropy": "H(y|x_t), sampled, nats (T,)",
    "rate": "dH/dt, mean squared guidance, nats per OU time (T,)",
    "difference": "dH/dt by finite differences of sampled entropies (T,)",
    "class_loss_rate": "dL_k/dt (T, K)",
    "tracked_times": "OU times read from trajectories (P,)",
    "tracked_entropy": "H tracked along trajectories, nats (P,)",
    "tracked_rate": "dH/dt tracked along trajectories (P,)",
    "grid": "OU times of the trajectories",
    "posterior_rms": "rms error of the tracked posterior on the grid",
    "few_grid": "OU times of few steps",
    "matched_rms": "the same at few steps of the forward variance",
    "mismatched_rms": "the same divided by the variance of the bridge",
}
_PREDICTED_TEXTS = {
    "fine": "OU times of the theory curves",
    "fine_entropy": "H(y|x_t) by quadrature, nats",
    "fine_rate": "dH/dt by quadrature, nats per OU time",
}
_IMAGE_TEXTS = {
    "image_times": "OU times of noised images (T,)",
    "image_entropy": "H(y|x_t) of the images, nats (T,)",
    "image_rate": "its rate, nats per OU time (T,)",
    "image_class_loss": "L_k of every class, nats (T, K)",
    "image_class_loss_rate": "dL_k/dt of every class (T, K)",
    "pair_entropy": "entropy between two classes, nats (T, K, K)",
    "pair_rate": "its rate, nats per OU time (T, K, K)",
    "image_grid": "OU times of trajectories of images",
    "image_tracked_entropy": "H tracked with the exact class denoisers, nats",
    "image_tracked_rate": "its rate",
    "network_entropy": "H tracked through the conditional network, nats",
    "network_rate": "its rate",
    "network_mismatch": "rate by which the network's unconditional output is off",
}


def _arrays(config: Config, measured: dict, predicted: dict) -> tuple[Curves, dict[str, str]]:
    curves: Curves = {}
    axes: dict[str, str] = {}

    def add(label: str, source: dict, key: str, text: str) -> None:
        if key not in source:
            return
        curves[label], axes[label] = np.asarray(source[key]), text
        if f"{key}_error" in source:
            curves[f"{label}_error"] = np.asarray(source[f"{key}_error"])
            axes[f"{label}_error"] = f"standard error of: {text}"

    for name in config.mixtures:
        for source, texts in ((measured, _MIXTURE_TEXTS), (predicted, _PREDICTED_TEXTS)):
            for key, text in texts.items():
                add(f"{key}_{name}", source[name], key, f"mixture {name}: {text}")
    for key, text in _IMAGE_TEXTS.items():
        add(key, measured, key, text)
    off = ~np.eye(len(predicted["decided"]), dtype=bool)
    curves["decided"] = predicted["decided"][off]
    axes["decided"] = "OU times at which pairs of classes are decided, rows without the diagonal"
    curves["tree"], axes["tree"] = predicted["tree"], "average linkage of the decision times"
    return curves, axes
