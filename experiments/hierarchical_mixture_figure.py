"""Figure of the experiment `hierarchical_mixture`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, COLOURS, GREEN, ORANGE, line, points


def draw(
    config: Any, measured: dict[str, Any], predicted: dict[str, Any], summary: dict[str, Any]
) -> Any:
    """Levels against time; times against dimension; what U-turns change; the branching tree."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11.5, 8.6), layout="constrained")
    _levels(panels[0, 0], config, measured, predicted)
    _times(panels[0, 1], config, summary)
    _turns(panels[1, 0], config, measured, predicted)
    _tree(panels[1, 1], config, measured, predicted)
    return figure


def _levels(axis: Any, config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    dims = config.dims[:: max(1, len(config.dims) - 1)]
    for dim, style, marker, small in zip(dims, ("--", "-"), "so", (True, False)):
        times, fine = measured[f"times_d{dim}"], predicted[f"fine_times_d{dim}"]
        value = measured[f"agree_d{dim}"] / config.states
        error = np.sqrt(predicted[f"phi_d{dim}"] * (1 - predicted[f"phi_d{dim}"]) / config.states)
        for k, gamma in enumerate(config.exponents):
            label = rf"d = {dim}, level {k + 1}, $\gamma$ = {gamma:g}"
            line(axis, fine, predicted[f"phi_fine_d{dim}"][:, k], "", COLOURS[k], style)
            axis.errorbar(
                times, value[:, k], error[:, k], fmt=marker, ms=4, lw=1, capsize=2, zorder=3,
                color=COLOURS[k], mfc="white" if small else COLOURS[k], label=label,
            )  # fmt: skip
    axis.axhline(0.7752, color=BLACK, lw=0.6, ls=":")
    axis.set_xlabel("branching time t (Ornstein-Uhlenbeck)")
    axis.set_ylabel(r"clone agreement of a level $\phi_k(t)$")
    axis.set_title("every level has its own time; lines: exact", fontsize=10)
    axis.set_ylim(0.47, 1.22)
    axis.legend(fontsize=8, ncols=2, loc="upper center")


def _times(axis: Any, config: Any, summary: dict[str, Any]) -> None:
    dims = np.asarray(config.dims, float)
    fine = np.geomspace(dims[0], dims[-1], 50)
    for k, gamma in enumerate(config.exponents):
        square = config.strength * fine**gamma
        static = 0.5 * np.log(1 + (square - config.variance) / config.temperature)
        line(axis, fine, static, "", COLOURS[k])
        line(axis, fine, 0.5 * np.log(square / config.temperature), "", COLOURS[k], ":")
        values = np.asarray([summary[f"d{dim}"]["crossing"][k] for dim in config.dims])
        errors = np.asarray([summary[f"d{dim}"]["crossing_error"][k] for dim in config.dims])
        points(axis, dims, values, errors, f"level {k + 1}, $\\gamma$ = {gamma:g}", COLOURS[k])
    axis.plot([], [], "-", color=BLACK, lw=1.5, label=r"exact time of $\phi_k$ = 0.7752")
    axis.plot([], [], ":", color=BLACK, lw=1.5, label=r"$\frac{1}{2}\log(|m_k|^2/T)$")
    axis.set_xscale("log")
    axis.set_xlabel("dimension d")
    axis.set_ylabel(r"time at which $\phi_k$ = 0.7752")
    axis.set_title(r"times part like $\frac{\gamma_k}{2}\log d$", fontsize=10)
    axis.legend(fontsize=8)


def _turns(axis: Any, config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    times, fine = measured["turn_times"], predicted[f"fine_times_d{config.dims[0]}"]
    share = measured["turn_highest"] / config.turns
    error = np.sqrt(predicted["highest"] * (1 - predicted["highest"]) / config.turns)
    levels = len(config.exponents)
    for k in range(levels + 1):
        colour = COLOURS[k] if k < levels else BLACK
        label = f"highest change: level {k + 1}" if k < levels else "no level changes"
        line(axis, fine, predicted["highest_fine"][:, k], "", colour)
        points(axis, times, share[:, k], error[:, k], label, colour)
    line(axis, fine, predicted["overlap_fine"], "", ORANGE, "--")
    points(axis, times, measured["turn_overlap"], measured["turn_overlap_error"],
           "overlap within the classes", ORANGE, "D")  # fmt: skip
    axis.set_xlabel("turning time t (Ornstein-Uhlenbeck)")
    axis.set_ylabel("fraction of U-turns, overlap")
    axis.set_title(f"U-turns, d = {config.dims[0]}; lines: exact", fontsize=10)
    axis.legend(fontsize=8)


def _tree(axis: Any, config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    times, fine = measured["tree_times"], predicted["tree_fine_times"]
    for key, label, colour in (
        ("branch", "same branch", COLOURS[0]),
        ("leaf", "same class", GREEN),
    ):
        value, exact = measured[f"tree_{key}"] / config.tree_states, predicted[f"tree_{key}"]
        error = np.sqrt(exact * (1 - exact) / config.tree_states)
        line(axis, fine, predicted[f"tree_{key}_fine"], f"{label}, exact", colour)
        points(axis, times, value, error, f"{label}, measured", colour)
    line(axis, fine, predicted["tree_apart_fine"], "same branch if levels were independent",
         COLOURS[1], "--")  # fmt: skip
    axis.set_xlabel("branching time t (Ornstein-Uhlenbeck)")
    axis.set_ylabel("clone agreement")
    axis.set_title("tree whose branches split in directions of their own", fontsize=10)
    axis.legend(fontsize=8)
