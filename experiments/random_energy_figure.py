"""The figure of `experiments.random_energy`: free energy, participation, trees.

Exact averages are smooth in the temperature and drawn as splines through their nodes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from experiments.style import BLACK, COLOURS, line, points

MARKERS = "os^Dv<"


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Three panels over the inverse temperature in units of the critical one."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13.5, 4.2), layout="constrained")
    _free_energy(axes[0], config, measured, predicted)
    _participation(axes[1], config, measured, predicted)
    _trees(axes[2], measured, predicted)
    for axis in axes:
        axis.plot([], [], color="0.5", label="exact at this size")
        axis.axvline(1, color=BLACK, lw=0.8, ls=":")
        axis.set_xlabel(r"inverse temperature $\beta/\beta_c$")
        axis.legend(fontsize=8)
    return figure


def _free_energy(
    axis: Any, config: Any, measured: dict[str, Any], predicted: dict[str, Any]
) -> None:
    """Free energy over beta, which is flat where condensed."""
    critical = measured["critical"]
    x, fine, dense = measured["betas"], predicted["fine"], predicted["dense"]
    line(axis, dense / critical, predicted["limit_dense"] / dense, "limit", BLACK)
    line(axis, dense / critical, predicted["annealed_dense"] / dense, "annealed", BLACK, ":")
    for i, count in enumerate(config.counts):
        name, colour = f"m{count}", COLOURS[i % len(COLOURS)]
        smooth = CubicSpline(fine, predicted[f"free_fine_{name}"])(dense)
        line(axis, dense / critical, smooth / dense, "", colour)
        points(
            axis, x / critical, measured[f"free_{name}"] / x, measured[f"free_error_{name}"] / x,
            f"M = {count}", colour, MARKERS[i % 6],
        )  # fmt: skip
    frozen = float(predicted["limit_dense"][-1] / dense[-1])
    axis.set_ylim(0.6 * frozen, 1.9 * frozen)
    axis.set_ylabel(r"$E\,\log Z\,/\,(\beta N)$")
    axis.set_title(r"free energy ($-$) of random energies", fontsize=10)


def _participation(
    axis: Any, config: Any, measured: dict[str, Any], predicted: dict[str, Any]
) -> None:
    critical = measured["critical"]
    x, fine = measured["betas"] / critical, predicted["fine"] / critical
    dense = predicted["dense"] / critical
    for key, label, style in (
        ("participation", r"limit of $E\,Y_2$", "-"), ("squared", r"limit of $E\,Y_2^2$", "--"),
    ):  # fmt: skip
        line(axis, dense, predicted[f"{key}_limit_dense"], label, BLACK, style)
    for i, count in enumerate(config.counts):
        name, colour = f"m{count}", COLOURS[i % len(COLOURS)]
        for key, style, marker in (("participation", "-", MARKERS[i % 6]), ("squared", "--", ".")):
            smooth = CubicSpline(fine, predicted[f"{key}_fine_{name}"])(dense)
            line(axis, dense, smooth, "", colour, style)
            label = f"M = {count}" if key == "participation" else ""
            error = measured[f"{key}_error_{name}"]
            points(axis, x, measured[f"{key}_{name}"], error, label, colour, marker)
    axis.set_ylim(0, 1)
    axis.set_ylabel(r"participation $Y_2$, and its square (dashed)")
    axis.set_title("weights: exact (coloured) and Poisson-Dirichlet limit", fontsize=10)


def _trees(axis: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    """Free energy over beta; where the levels freeze as ticks at the bottom."""
    critical = measured["critical"]
    x, dense = measured["betas"], predicted["dense"]
    for i, (order, label) in enumerate(
        (("separate", "stronger level first"), ("merged", "stronger level last: merged"))
    ):
        colour = COLOURS[i]
        limit = predicted[f"tree_limit_dense_{order}"] / dense
        line(axis, dense / critical, limit, f"limit, {label}", colour, "--")
        smooth = CubicSpline(x, predicted[f"tree_free_{order}"])(dense)
        line(axis, dense / critical, smooth / dense, "", colour)
        value, error = (measured[f"tree_{k}_{order}"] / x for k in ("free", "free_error"))
        points(axis, x / critical, value, error, f"trees, {label}", colour, MARKERS[i])
        freezing = predicted[f"tree_freezing_{order}"] / critical
        axis.plot(freezing, np.full(freezing.shape, 0.03), "|", color=colour, ms=12, mew=2,
                  transform=axis.get_xaxis_transform(), clip_on=False)  # fmt: skip
    floor = float(predicted["tree_limit_dense_merged"][-1] / dense[-1])
    axis.set_ylim(0.6 * floor, 1.9 * floor)
    axis.set_ylabel(r"$E\,\log Z\,/\,(\beta N)$")
    axis.set_title("two-level trees (ticks: where levels freeze)", fontsize=10)
