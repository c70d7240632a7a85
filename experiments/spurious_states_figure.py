"""Figure of the experiment `spurious_states`: landscapes above, numbers below."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, line, points

KINDS = ("memorised", "spurious", "generalised")


def draw(config: Any, measured: dict, predicted: dict, levels: np.ndarray, found: Any) -> Any:
    """Energies of a few numbers of patterns; wells, ring and fractions."""
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 8.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    axes = upper.subplots(1, len(config.landscapes), squeeze=False)[0]
    for axis, count, field in zip(axes, config.landscapes, measured["landscapes"]):
        image = _landscape(axis, measured, count, field, config.noise)
    upper.colorbar(image, ax=list(axes), label="energy above the minimum", shrink=0.9)
    wells, ring, last = lower.subplots(1, 3)
    _wells(wells, config, measured, levels)
    line(ring, predicted["fine"], predicted["ring_fine"], r"$R = I_1/I_0$, many patterns", BLACK)
    points(ring, measured["ring_noise"], measured["ring"], measured["ring_error"],
           f"{config.many} random patterns", BLUE)  # fmt: skip
    ring.axvline(0.5, color=BLACK, lw=0.7, ls=":")
    ring.set_xlabel("noise variance $v$")
    ring.set_ylabel("radius of the attractors")
    ring.legend(fontsize=8)
    _fractions(last, config, measured, predicted, found)
    return figure


def _landscape(axis: Any, measured: dict, count: int, field: np.ndarray, noise: float) -> Any:
    side = measured["side"]
    image = axis.contourf(side, side, np.clip(field, 0, 1.5), levels=np.linspace(0, 1.5, 16),
                          cmap="cividis")  # fmt: skip
    angles = np.random.RandomState(9).uniform(0, 2 * np.pi, count)
    if count < 100:
        axis.plot(np.cos(angles), np.sin(angles), "o", ms=5, mfc="none", color="white",
                  label="patterns")  # fmt: skip
        wells = measured[f"wells_{count}"]
        axis.plot(wells[:, 0], wells[:, 1], "x", ms=7, mew=2, color=RED, label="attractors")
        axis.legend(fontsize=8, loc="lower right", facecolor="0.6")
    axis.set_title(f"K = {count}, v = {noise:g}", fontsize=10)
    axis.set_aspect("equal")
    axis.set_xlabel("$y_1$")
    axis.set_ylabel("$y_2$")
    return image


def _wells(axis: Any, config: Any, measured: dict, levels: np.ndarray) -> None:
    for i, count in enumerate(config.few):
        axis.plot(levels, measured["counts"][i], "os"[i % 2] + "-", ms=4, lw=0.8, color=COLOURS[i],
                  label=f"K = {count}")  # fmt: skip
        axis.axhline(count, color=COLOURS[i], lw=0.7, ls=":")
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel("noise variance $v$")
    axis.set_ylabel("stable attractors of the exact score")
    axis.legend(fontsize=8)


def _fractions(axis: Any, config: Any, measured: dict, predicted: dict, found: Any) -> None:
    sizes = np.asarray(config.sizes)
    if found is not None:
        mean, error = found
        for j, (kind, colour) in enumerate(zip(KINDS, (RED, ORANGE, BLUE))):
            points(axis, sizes, mean[:, j], error[:, j], f"networks, {kind}", colour, "os^"[j])
            axis.plot(sizes, mean[:, j], color=colour, lw=0.8)
    points(axis, sizes, measured["null"], measured["null_error"], "null: held-out points", BLACK)
    axis.plot(sizes, measured["memorised_exact"], "D", ms=4, color=GREEN,
              label="exact score, memorised")  # fmt: skip
    p = predicted["stopped"]
    spread = np.sqrt(p * (1 - p) / config.trajectories)
    points(axis, sizes, measured["stopped"], spread, "exact score, stopped early", GREEN, "x")
    line(axis, sizes, p, "its theory", GREEN, ":")
    axis.set_xscale("log")
    axis.set_ylim(-0.03, 1.7)  # room for the legend
    axis.set_yticks(np.linspace(0, 1, 6))
    axis.set_xlabel("patterns $n$")
    axis.set_ylabel("fraction of samples")
    axis.legend(fontsize=7, ncols=2, loc="upper center")
