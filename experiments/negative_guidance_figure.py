"""Figure of the experiment ``negative_guidance``: both trade-off curves, case by case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.style import BLACK, BLUE, GREEN, ORANGE, RED, points

if TYPE_CHECKING:
    from experiments.negative_guidance import Config

_COLUMNS = {2: "distance to the nearest centre / its value for kept data", 1: "KL (nats)"}


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Forbidden fraction against distance (above) and against the balance of classes (below)."""
    import matplotlib.pyplot as plt

    count = len(config.cases)
    figure, panels = plt.subplots(
        2, count, figsize=(3.4 * count + 0.8, 7), sharey="col", layout="constrained", squeeze=False
    )
    for axis_pair, case in zip(panels.T, config.cases):
        for axis, (column, label) in zip(axis_pair, _COLUMNS.items()):
            unit = float(predicted[f"kept_{case}"][2]) if column == 2 else 1.0
            _draw_panel(axis, case, config, measured, column, unit)
            axis.set_xlabel(label, fontsize=8)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(alpha=0.2)
            if column == 2:
                axis.set_xticks([1, 2, 5, 10, 20], labels=["1", "2", "5", "10", "20"])
                axis.minorticks_off()
        axis_pair[0].set_title(case, fontsize=11)
        axis_pair[0].axvline(1, color=BLACK, lw=0.7, ls=":")
    for axis in panels[:, 0]:
        axis.set_ylabel("fraction in the forbidden class")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, ncols=3, loc="outside lower center")
    return figure


def _draw_panel(
    axis: Any, case: str, config: Config, measured: dict[str, Any], column: int, unit: float
) -> None:
    """One pair of curves, and the single rules."""
    floor = 0.3 / (config.samples * config.seeds)  # where an empty class or a KL of 0 is drawn
    for name, weights, colour, marker, label in (
        ("NP curve", config.prompts, RED, "s", r"negative prompt, $\lambda$ increasing"),
        ("DNG curve", config.dynamics, BLUE, "o", r"dynamic, $\lambda_0$ increasing"),
    ):
        values = np.asarray([measured[f"{name} {i}_{case}"] for i in range(len(weights))])
        order = np.argsort(weights)
        x = np.maximum(values[order, 0, column] / unit, floor)
        y, error = values[order, 0, 0], values[order, 1, 0]
        axis.plot(x, np.maximum(y, floor), color=colour, lw=1, zorder=2)
        points(axis, x, np.maximum(y, floor), error, label, colour, marker)
    for name, colour, marker, label in (
        ("none", BLACK, "D", "unguided"),
        ("exact posterior", GREEN, "^", "exact posterior"),
        ("DNG, normalised", ORANGE, "v", "dynamic, normalised"),
    ):
        value, error = measured[f"{name}_{case}"]
        spread = [[min(error[0], 0.9 * value[0])], [error[0]]] if value[0] > 0 else None
        place = [max(value[column] / unit, floor)], [max(value[0], floor)]
        points(axis, *place, spread, label, colour, marker)
