"""Figure of the experiment `associative_memory`: four panels."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, line, points

MARKERS = "os^D"
SHADES = {"gaussian": BLUE, "spherical": GREEN, "binary": RED}


def draw(
    config: Any,
    measured: dict,
    predicted: dict,
    loads: np.ndarray,
    half: np.ndarray,
    error: np.ndarray,
    scales: tuple,
) -> Any:
    """Retrieval, its drift with the size, recovery against time, capacities."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 2, figsize=(11.5, 9), layout="constrained")
    _retrieval(panels[0, 0], config, measured, predicted, loads)
    _drift(panels[0, 1], config, predicted, half, error)
    _recovery(panels[1, 0], config, measured, scales)
    _capacities(panels[1, 1], predicted)
    return figure


def _retrieval(axis: Any, config: Any, measured: dict, predicted: dict, loads: np.ndarray) -> None:
    """Binary patterns at all sizes."""
    i = list(SHADES).index("binary")
    for j, size in enumerate(config.sizes):
        value, spread = (measured[f"{k}_n{size}"][i] for k in ("retrieved", "retrieved_error"))
        points(axis, loads, value, spread, f"N = {size}", COLOURS[j], MARKERS[j % 4])
        axis.plot(loads, value, color=COLOURS[j], lw=0.7)
    axis.axvline(predicted["threshold"][i], color=BLACK, lw=1, label=r"$\alpha_1(\lambda)$")
    axis.set_xlabel(r"load $\alpha = \log P / N$ (nats)")
    axis.set_ylabel("fraction of patterns retrieved")
    axis.set_title(rf"binary patterns, $\lambda$ = {config.lam:g}", fontsize=10)
    axis.legend(fontsize=8)


def _drift(axis: Any, config: Any, predicted: dict, half: np.ndarray, error: np.ndarray) -> None:
    inverse = 1 / np.asarray(config.sizes)
    for i, (family, colour) in enumerate(SHADES.items()):
        points(axis, inverse, half[i], error[i], family, colour, MARKERS[i])
        axis.plot(0, predicted["threshold"][i], MARKERS[i], mfc="none", ms=8, color=colour,
                  label=rf"{family}, $\alpha_1$, $N\to\infty$", clip_on=False)  # fmt: skip
    axis.set_xlim(left=0)
    axis.set_xlabel("inverse number of units $1/N$")
    axis.set_ylabel(r"load at half retrieval (nats)")
    axis.set_title("drift with the size", fontsize=10)
    axis.legend(fontsize=8)


def _recovery(axis: Any, config: Any, measured: dict, scales: tuple) -> None:
    times, n = measured["times"], measured["weight"].shape[1]
    line(axis, times, measured["weight"].mean(1), "mean own weight, exact rate", BLUE)
    for name, label, colour, marker in (
        ("turns", "exact U-turns", BLUE, "o"), ("ddim", "U-turns by DDIM", ORANGE, "s"),
    ):  # fmt: skip
        p = measured[name].mean(1)
        points(axis, times, p, np.sqrt(p * (1 - p) / (n * config.trials)), label, colour, marker)
    p = measured["clean"]
    points(axis, times, p.mean(1), p.std(1) / np.sqrt(n), "own weight, clean cue", GREEN, "^")
    p = measured["stays"]
    points(axis, times, p, np.sqrt(p * (1 - p) / n), "clean cue retrieved", RED, "D")
    for value, label, style in zip(scales, ("$t_C$", "$t_o$"), ("-", "--")):
        axis.axvline(value, color=BLACK, lw=1, ls=style, label=rf"{label}, $d\to\infty$")
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("fraction of patterns recovered")
    axis.set_title(f"{n} Gaussian patterns, d = {config.dim}", fontsize=10)
    axis.legend(fontsize=8)


def _capacities(axis: Any, predicted: dict) -> None:
    for family, colour in SHADES.items():
        line(axis, predicted["lam"], predicted[f"attraction_{family}"], f"{family}, clean cue",
             colour)  # fmt: skip
        line(axis, predicted["lam"], predicted[f"collapse_{family}"], f"{family}, noised",
             colour, "--" if family != "spherical" else ":")  # fmt: skip
    axis.axhline(np.log(2), color=BLACK, lw=0.6, ls=":")
    axis.set_xscale("log")
    axis.set_xlabel(r"signal-to-noise ratio $\lambda$")
    axis.set_ylabel(r"capacity $\alpha$ (nats per coordinate)")
    axis.set_title(r"capacities at equal noise, $N\to\infty$", fontsize=10)
    axis.legend(fontsize=8)
