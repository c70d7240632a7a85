"""Figure of the experiment `optimal_schedule`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, line, points


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any], rows: dict) -> Any:
    """Speed limit, metrics, grids, divergence and distance of every schedule, training."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    _limit(axes[0, 0], measured, predicted)
    _schedule(axes[0, 1], config, predicted)
    _speeds(axes[0, 2], predicted)
    names = list(rows)
    _grids(axes[1, 0], measured, rows, names)
    _judged(axes[1, 1], rows, names, "divergence")
    axes[1, 1].axvline(predicted["least"], color=GREEN, lw=1, ls="--", label="least of any grid")
    axes[1, 1].set_xlabel("divergence of the exact path [nats], unseen noise")
    _judged(axes[1, 2], rows, names, "distance")
    axes[1, 2].set_xlabel(r"$W_2^2$ of samples to the data law, unseen noise")
    for axis in (axes[0, 0], axes[0, 1], axes[0, 2], axes[1, 1], axes[1, 2]):
        axis.legend(fontsize=8)
    return figure


def _limit(axis: Any, measured: dict, predicted: dict) -> None:
    from experiments.optimal_schedule import LIMIT_TIMES

    shown = predicted["limit_times"]
    line(axis, shown, predicted["limit_production"], r"production $\int\pi\,dt$", BLUE)
    line(axis, shown, predicted["limit_length"], r"$L^2/\tau$", ORANGE, "--")
    line(axis, shown, predicted["limit_transport"], r"$W_2^2/\tau$", RED, ":")
    points(axis, LIMIT_TIMES, measured["production"], measured["production_error"],
           "production, simulator", BLACK)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(r"duration $\tau$ in Ornstein-Uhlenbeck time")
    axis.set_ylabel("nats")
    axis.set_title("speed limit of the noised path", fontsize=10)


def _schedule(axis: Any, config: Any, predicted: dict) -> None:
    u = np.linspace(0, 1, config.pieces + 1)
    line(axis, u, predicted["equal_times"], r"constant speed $\sqrt{\pi}$, closed form", BLUE)
    axis.plot(u, predicted["action_times"], "o", color=RED, ms=4, label="gradient descent, action")
    axis.plot(u[[0, -1]], [config.t_min, config.t_max], ":", color=BLACK, lw=1, label="uniform")
    axis.set_xlabel("fraction u of the duration")
    axis.set_ylabel("Ornstein-Uhlenbeck time s(u)")
    axis.set_title(
        f"least action: {predicted['action']:.4f} $L^2$, uniform "
        f"{predicted['action_uniform']:.2f} $L^2$", fontsize=10,
    )  # fmt: skip


def _speeds(axis: Any, predicted: dict) -> None:
    t = predicted["every"]
    line(axis, t, t * predicted["transport_speed"], r"transport, $t\sqrt{\pi}$", BLUE)
    line(axis, t, t * predicted["sampler_speed"], r"sampler, $t\,c(t)$", GREEN)
    axis.set_xscale("log")
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("speed per unit of log t")
    axis.set_title("two metrics: where steps are needed", fontsize=10)


def _colour(name: str) -> str:
    if "reversed" in name:
        return PURPLE
    return RED if "trained" in name else BLUE if "constant" in name else BLACK


def _grids(axis: Any, measured: dict, rows: dict, names: list[str]) -> None:
    for k, name in enumerate(names):
        for j, member in enumerate(rows[name]["members"]):
            grid = measured["grids"][member]
            axis.plot(grid, np.full(grid.size, -k - 0.12 * j), "|", ms=9, color=_colour(name))
    axis.set_xscale("log")
    axis.set_yticks(-np.arange(len(names)), names, fontsize=8)
    axis.set_xlabel("Ornstein-Uhlenbeck times of the steps")
    axis.set_title("grids (rows of ticks: independent trainings)", fontsize=10)


def _judged(axis: Any, rows: dict, names: list[str], key: str) -> None:
    for k, name in enumerate(names):
        row = rows[name]
        axis.errorbar(
            row[key], -k, xerr=row[f"{key}_error"], fmt="o", ms=5, capsize=2, color=_colour(name),
            label="measured" if k == 0 else None,
        )  # fmt: skip
        axis.plot(row[f"{key}_theory"], -k, "x", ms=8, color=ORANGE,
                  label="theory" if k == 0 else None)  # fmt: skip
    axis.set_xscale("log")
    axis.set_yticks(-np.arange(len(names)), names, fontsize=8)
