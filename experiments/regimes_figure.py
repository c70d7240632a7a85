"""The figure of the three regimes."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.regimes_times import chosen_times
from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, SKY, line, number, points

SHADES = {"III": "#f6e3d6", "II": "#e4f0e9", "I": "#eaf0f8"}


def draw(measured: dict[str, Any], predicted: dict[str, Any], found: dict[str, Any]) -> Any:
    """Three panels over one time axis: class commitment, excess entropy, participation."""
    import matplotlib.pyplot as plt

    labelled = "clones" in measured
    heights = [3, 3, 2] if labelled else [3, 2]
    figure, axes = plt.subplots(
        len(heights), 1, sharex=True, figsize=(7.5, 1.35 * sum(heights)),
        gridspec_kw={"height_ratios": heights}, layout="constrained",
    )  # fmt: skip
    panels = list(np.atleast_1d(axes))
    if labelled:
        _commitment(panels.pop(0), measured, predicted)
    _entropy(panels.pop(0), measured, predicted)
    _condensation(panels.pop(0), measured)
    _shade(axes, measured["times"], found)
    n, d = measured["data"].points.shape
    axes[0].set_title(f"{measured['data'].name}: n = {n}, d = {d}", pad=18)
    axes[-1].set_xlabel("Ornstein-Uhlenbeck time t (noise grows to the right)")
    axes[0].set_xscale("log")
    axes[0].set_xlim(measured["times"][0], measured["times"][-1])
    return figure


def _commitment(axis: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    times = measured["times"]
    value, error = measured["clone_agreement"], measured["clone_agreement_error"]
    points(axis, times, value, error, "posterior of the labels", BLUE)
    points(
        axis, measured["clone_times"], measured["clones"], measured["clones_error"],
        "simulated clones", ORANGE, "s",
    )  # fmt: skip
    if "mixture_phi_fine" in predicted:
        line(axis, predicted["fine_times"], predicted["mixture_phi_fine"], "mixture, exact", BLACK)
    axis.set_ylabel("clone agreement $\\phi(t)$")
    axis.legend(loc="center left", fontsize=8)


def _entropy(axis: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> None:
    n, d = measured["data"].points.shape
    alpha = np.log(n) / d
    scale = measured["fraction"] / alpha
    times, fine = measured["times"], predicted["fine_times"]
    for name, label, colour, marker in (
        ("excess_entropy", "$f^e$ measured", BLUE, "o"),
        ("leave_one_out", "$f_{LOO}$ measured", GREEN, "^"),
    ):
        points(axis, times, measured[name] * scale, measured[f"{name}_error"] * scale, label,
               colour, marker)  # fmt: skip
    if "mixture_entropy" in predicted:
        line(axis, fine, predicted["mixture_entropy"] / alpha, "mixture $f$, exact", BLACK)
        line(axis, fine, predicted["mixture_finite_size"] / alpha, "finite size", PURPLE, "--")
    else:
        curve = predicted["spectrum_entropy"] / alpha
        line(axis, fine, curve, "Gaussian of this spectrum (approximate)", RED, "--")
    axis.axhline(0, color=BLACK, lw=0.7)
    axis.set_ylim(-1.3, 1.1)
    axis.set_ylabel("excess entropy $f\\,/\\,\\alpha$")
    axis.legend(loc="lower right", fontsize=8)


def _condensation(axis: Any, measured: dict[str, Any]) -> None:
    times = measured["times"]
    for name, label, colour, marker in (
        ("participation", "$\\phi_C = E\\sum w_\\mu^2$", RED, "o"),
        ("own_nearest", "own point is nearest", SKY, "v"),
    ):
        points(axis, times, measured[name], measured[f"{name}_error"], label, colour, marker)
    axis.set_ylabel("probability")
    axis.set_ylim(-0.05, 1.05)
    axis.legend(loc="upper right", fontsize=8)


def _shade(axes: Any, times: np.ndarray, found: dict[str, Any]) -> None:
    """Regimes as bands, their borders as vertical lines with their values."""
    t_s, e_s, t_c, e_c = chosen_times(found)
    bounds = [("III", times[0], t_c), ("II", t_c, t_s), ("I", t_s, times[-1])]
    for axis in axes:
        for name, low, high in bounds:
            if np.isfinite(low) and np.isfinite(high) and low < high:
                axis.axvspan(low, high, color=SHADES[name], zorder=0, lw=0)
        for t in (t_c, t_s):
            if np.isfinite(t):
                axis.axvline(t, color=BLACK, lw=0.8, ls=":", zorder=1)
    top = axes[0]
    for symbol, t, error in (("t_C", t_c, e_c), ("t_S", t_s, e_s)):
        if np.isfinite(t):
            top.annotate(
                f"${symbol}$ = {number(t, error)}", (t, 1.0), xycoords=("data", "axes fraction"),
                xytext=(0, 3), textcoords="offset points", ha="center", fontsize=8,
            )  # fmt: skip
    for name, low, high in bounds:
        if np.isfinite(low) and np.isfinite(high) and low < high:
            top.annotate(
                name, (np.sqrt(low * high), 0.04), xycoords=("data", "axes fraction"),
                ha="center", fontsize=10, fontweight="bold",
            )  # fmt: skip
