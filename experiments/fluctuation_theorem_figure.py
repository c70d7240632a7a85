"""The figure of the experiment ``fluctuation_theorem``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.fluctuation_theorem_theory import KS, STARTS
from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, line, points

NAMES = ("(a) midpoint", "(b) reversed kernels", "(c) noising chain")


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Averages of both processes, the detailed theorem, histograms, and the controls."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    _forward(panels[0, 0], config, measured, predicted)
    _generative(panels[0, 1], config, measured, predicted)
    _controls(panels[0, 2], config, measured, predicted)
    _detailed(panels[1, 0], config, measured, predicted)
    _histograms(panels[1, 1], config, measured)
    _ratio(panels[1, 2], config, measured)
    return figure


def _forward(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    axis.axhline(1, color=BLACK, lw=1, label="exact steps, theory")
    for i, (dim, colour) in enumerate(zip(config.dims, COLOURS)):
        cells, x = measured[f"forward_d{dim}_averages"], np.asarray(config.times) + 0.008 * i
        curve = predicted["every_time"], predicted[f"euler_every_d{dim}"]
        line(axis, *curve, f"Euler, d = {dim}, theory", colour)
        for j, (marker, text) in enumerate(
            (("o", "exact steps"), ("s", "Euler"), ("x", "control"))
        ):
            label = f"{text}, d = {dim}" + (f", drift {config.excess:.0%} too large" * (j == 2))
            points(axis, x, cells[:, j, 0], cells[:, j, 1], label, colour, marker)
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$ of the end",
        ylabel=r"$\langle e^{-\Delta S_{tot}}\rangle$",
        title=f"forward paths, dt = {config.dt:g}",
    )
    axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _generative(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    axis.axhline(1, color=BLACK, lw=1, label="(b), (c): theory")
    for i, (dim, style) in enumerate(zip(config.dims, ("-", "--", ":"))):
        cells = measured[f"generative_d{dim}_averages"]
        line(
            axis, config.times, predicted[f"generative_d{dim}"][:, 0],
            f"(a), d = {dim}, transfer operator", RED, style,
        )  # fmt: skip
        for j, (colour, marker) in enumerate(((RED, "o"), (BLUE, "s"), (GREEN, "^"))):
            x = np.asarray(config.times) + 0.01 * (j - 1) + 0.004 * i
            label = f"{NAMES[j]}, d = {dim}"
            points(axis, x, cells[:, j, 0], cells[:, j, 1], label, colour, marker)
            if i == 0:
                for bar in axis.containers[-1].lines[:1]:
                    bar.set_markerfacecolor("white")
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$ of the start",
        ylabel=r"$\langle e^{-\Delta S_{tot}}\rangle$",
        title=f"generative Euler paths, dt = {config.dt:g}",
    )
    axis.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14))


def _controls(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    axis.axhline(1, color=BLACK, lw=1, label="1")
    labels = []
    for i, name in enumerate(STARTS):
        for dim in config.dims:
            cells = measured[f"generative_d{dim}_controls"][i]
            theory = predicted[f"controls_d{dim}"][i]
            x = len(labels)
            for j, (colour, marker) in enumerate(((BLUE, "s"), (GREEN, "^")), 1):
                label = NAMES[j] if x == 0 else "_nolegend_"
                points(axis, x + 0.2 * j - 0.3, *cells[j, :2], label, colour, marker)
                axis.plot(
                    [x + 0.2 * j - 0.42, x + 0.2 * j - 0.18], [theory[j]] * 2, color=ORANGE, lw=2,
                    label="transfer operator" if x == 0 and j == 1 else "_nolegend_", zorder=1,
                )  # fmt: skip
            labels.append(f"{name}\nd = {dim}")
    axis.set_xticks(range(len(labels)), labels, fontsize=7, rotation=25, ha="right")
    axis.set(
        ylabel=r"$\langle e^{-\Delta S_{tot}}\rangle$",
        title=f"generative controls, t = {config.times[-1]:g}, dt = {config.dt:g}, "
        f"{config.excess:.0%}",
    )
    axis.legend(fontsize=7)


def _detailed(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    for dim, colour in zip(config.dims, COLOURS):
        label = f"d = {dim}, quadrature"
        line(axis, predicted["fine_k"], predicted[f"detailed_fine_d{dim}"], label, colour)
        for name, marker, shift, text in (
            ("forward", "o", -0.006, r"$\langle e^{-kS}\rangle$"),
            ("reversed", "x", 0.006, r"$\langle e^{-(1-k)S'}\rangle'$"),
        ):
            cells = measured[f"detailed_d{dim}_{name}"]
            points(axis, KS + shift, cells[0], cells[1], f"d = {dim}, {text}", colour, marker)
    axis.set(
        xlabel="exponent $k$",
        ylabel="generating function",
        title=f"detailed theorem, t = {config.detailed_time:g}",
    )
    axis.legend(fontsize=8)


def _cells(measured: dict, dim: int) -> tuple[np.ndarray, ...]:
    """Centres and widths of the bins between edges, and their counts of both processes."""
    edges = measured[f"detailed_d{dim}_edges"]
    counts = measured[f"detailed_d{dim}_counts"], measured[f"detailed_d{dim}_reversed_counts"]
    return 0.5 * (edges[1:] + edges[:-1]), np.diff(edges), *counts


def _histograms(axis: Any, config: Any, measured: dict) -> None:
    for dim, colour in zip(config.dims, COLOURS):
        centre, width, ahead, back = (v[1:-1] for v in _cells(measured, dim))
        total = measured[f"detailed_d{dim}_counts"].sum() * width
        used = back > 0
        axis.step(
            centre, ahead / total, where="mid", color=colour, lw=1.5,
            label=f"forward, $S$, d = {dim}",
        )  # fmt: skip
        axis.step(
            centre[used], (back / total)[used], where="mid", color=colour, lw=1.2, ls="--",
            label=f"reversed, $-S'$, d = {dim}",
        )  # fmt: skip
    axis.set(
        xlabel="total entropy production (nats)",
        ylabel="density (1/nats)",
        yscale="log",
        title=f"exact steps, t = {config.detailed_time:g}",
    )
    axis.legend(fontsize=8)


def _ratio(axis: Any, config: Any, measured: dict) -> None:
    ends = []
    for dim, colour, marker in zip(config.dims, COLOURS, ("o", "s", "^")):
        centre, _, ahead, back = (v[1:-1] for v in _cells(measured, dim))
        used = (ahead > 20) & (back > 20)
        ratio, error = np.log(ahead[used] / back[used]), np.sqrt(1 / ahead[used] + 1 / back[used])
        points(axis, centre[used], ratio, error, f"simulation, d = {dim}", colour, marker)
        ends += [centre[used].min(), centre[used].max()]
    line(axis, [min(ends), max(ends)], [min(ends), max(ends)], "detailed theorem", BLACK)
    axis.set(
        xlabel="total entropy production $S$ (nats)",
        ylabel="log of forward over reversed counts",
        title="slope one",
    )
    axis.legend(fontsize=8)
