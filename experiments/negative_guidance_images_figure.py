"""Figure of the experiment ``negative_guidance_images``: trade-off curves and samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import learned
from experiments.style import BLACK, BLUE, GREEN, ORANGE, RED

if TYPE_CHECKING:
    from experiments.negative_guidance_images import Config

_LOOKS = {
    "prompt": (RED, "s"), "dynamic": (BLUE, "o"), "tempered": (ORANGE, "v"),
    "normalised": (GREEN, "^"),
}  # fmt: skip


def draw(config: Config, measured: dict[str, Any]) -> Any:
    """Forbidden fraction against distance and against balance; images of the same noise."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(11, 6.6), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.8, 1))
    left, right = upper.subplots(1, 2, sharey=True)
    for axis, column, label in (
        (left, 2, "distance to the nearest training image / that of held-out images"),
        (right, 1, "imbalance of the kept classes, KL (nats)"),
    ):
        _draw_panel(axis, config, measured, column)
        axis.set_xlabel(label)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.grid(alpha=0.2)
    left.set_xlim(left=min(0.95, left.get_xlim()[0]))
    ticks = [v for v in (0.5, 0.7, 1, 1.5, 2, 3, 5, 10) if _inside(v, left.get_xlim())]
    left.set_xticks(ticks, labels=[f"{v:g}" for v in ticks])
    left.xaxis.set_minor_locator(plt.NullLocator())
    left.axvline(1, color=BLACK, lw=0.7, ls=":")
    left.set_ylabel("fraction in the forbidden class")
    handles, labels = left.get_legend_handles_labels()
    upper.legend(handles, labels, fontsize=9, ncols=3, loc="outside lower center")
    _draw_images(lower, config, measured)
    return figure


def _inside(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def _draw_panel(axis: Any, config: Config, measured: dict[str, Any], column: int) -> None:
    """One trade-off curve per rule, all from the unguided samples; the classifier's floor."""
    from experiments.negative_guidance_images import KINDS, averages, jobs

    mean, error = averages(measured)
    rules = jobs(config)
    count = config.samples * config.seeds * len(measured["removed"])
    lowest = 0.5 / count  # where an empty class is drawn
    for kind, label in KINDS.items():
        at = [j for j, r in enumerate(rules) if r[0] == kind and r[1] > 0]
        at = [0, *sorted(at, key=lambda j: rules[j][1])]
        x, y = mean[at, column], np.maximum(mean[at, 0], lowest)
        spread = np.minimum(error[at, 0], 0.9 * y), error[at, 0]
        across = np.minimum(error[at, column], 0.9 * x), error[at, column]
        colour, marker = _LOOKS[kind]
        axis.errorbar(
            x[1:], y[1:], yerr=np.asarray(spread)[:, 1:], xerr=np.asarray(across)[:, 1:],
            fmt=marker, ms=5, lw=1, capsize=2, color=colour, label=label,
            zorder=3,
        )  # fmt: skip
        axis.plot(x, y, color=colour, lw=1, zorder=2)
    axis.errorbar(
        mean[0, column], mean[0, 0], yerr=error[0, 0], xerr=error[0, column], fmt="D", ms=6,
        capsize=2, color=BLACK, label="unguided", zorder=4,
    )  # fmt: skip
    floor = max(float(measured["real"][:, 0].mean()), lowest)
    axis.axhline(floor, color=BLACK, lw=1, ls="--", label="real images of the kept classes")


def _draw_images(figure: Any, config: Config, measured: dict[str, Any]) -> None:
    """The first samples at the largest weight of each rule, all from the same noise."""
    from experiments.negative_guidance_images import KINDS, jobs

    rules, data = jobs(config), measured["data"]
    chosen = [0]
    for kind in KINDS:
        at = sorted((j for j, r in enumerate(rules) if r[0] == kind and r[1] > 0),
                    key=lambda j: rules[j][1])  # fmt: skip
        chosen.append(at[-1])
    for axis, j in zip(figure.subplots(1, len(chosen)), chosen):
        kind, weight = rules[j]
        # pixels between black and white of the training images
        low, high = data.train.min(), data.train.max()
        images = (measured["shown"][j] - low) / (high - low)
        learned.draw_grid(axis, images, data.shape, 0.0)
        title = f"{KINDS[kind]}, {weight:g}" if weight else "unguided"
        axis.set_title(title, fontsize=9)
    names = config.classes or tuple(map(str, range(len(measured["confusion"]))))
    figure.suptitle(
        f"samples of the same noise; forbidden: {names[measured['removed'][0]]}", fontsize=10
    )
