"""The figure of the experiment ``symmetry_breaking``."""

from __future__ import annotations

from typing import Any

import numpy as np

import theory.symmetry_breaking as breaking
from experiments.style import BLACK, BLUE, COLOURS, GREEN, RED, line, points


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Bifurcations, the mixture's counts and spectrum, landscapes, and moments on the way."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(14, 8.5), layout="constrained")
    for axis, name, dim, title in (
        (panels[0, 0], "deltas", 1, "two deltas at ±1"),
        (panels[0, 1], "circle", 2, r"circle, $r^2 = 2$"),
    ):
        _bifurcation(axis, measured, name, dim, title)
    _counts(panels[0, 2], config, measured, predicted)
    _spectrum(panels[1, 0], measured, predicted)
    _landscapes(panels[1, 1], measured)
    _moments(panels[1, 2], config, measured, predicted)
    return figure


def _bifurcation(axis: Any, measured: dict, name: str, dim: int, title: str) -> None:
    radius, critical = np.sqrt(dim), 0.5 * np.arcsinh(1.0)
    times = np.concatenate(
        [np.linspace(1.0, 1.002 * critical, 30), critical * (1 - np.linspace(1e-4, 0.9, 200) ** 2)]
    )
    theta = np.exp(-times)
    branch = np.asarray(breaking.ordered_radius(times, radius, dim)) / radius
    line(axis, theta, branch, "stable, theory", BLUE)
    line(axis, theta, -branch, "_nolegend_", BLUE)
    axis.plot(
        theta[theta > np.exp(-critical)],
        0 * theta[theta > np.exp(-critical)],
        ":",
        color=BLACK,
        label="unstable centre",
    )
    found = np.exp(-measured[f"times_{name}"]), measured[f"radius_{name}"] / radius
    for sign, label in ((1, "continued by Newton"), (-1, "_nolegend_")):
        points(axis, found[0], sign * found[1], None, label, RED)
    axis.axvline(np.exp(-critical), color=GREEN, lw=1, ls="--", label=r"$\theta_c$ (SDE)")
    axis.set(xlabel=r"$\theta = e^{-t}$", ylabel="fixed point $x^*/r$", title=title)
    axis.legend(fontsize=8, loc="lower left")


def _counts(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    axis.step(config.indices, measured["counts"], where="mid", color=BLUE, lw=1)
    points(axis, config.indices, measured["counts"], None, "stable fixed points", BLUE)
    _criteria(axis, measured, predicted)
    axis.invert_xaxis()
    axis.set(
        xlabel="DDPM step index",
        ylabel="number of stable fixed points",
        title="mixture of ten Gaussians, d = 16",
    )
    axis.legend(fontsize=8)


def _criteria(axis: Any, measured: dict, predicted: dict) -> None:
    for value, label, colour, style in (
        (float(predicted["formula"]), "formula for symmetric data", GREEN, "--"),
        (float(measured["fold"]), "central branch ends", RED, "-."),
        (float(measured["crossing"]), "rate at the mean is 0", BLACK, ":"),
    ):
        if value > 0:
            axis.axvline(value, color=colour, lw=1.2, ls=style, label=f"{label}: {value:.0f}")


def _spectrum(axis: Any, measured: dict, predicted: dict) -> None:
    axis.plot(measured["index"], measured["spectrum"][:, 1:10], color=COLOURS[5], lw=0.8)
    line(axis, measured["index"], measured["spectrum"][:, 0], "leading, at the mean", BLUE)
    line(axis, measured["index"], measured["along"], "leading, on the branch", RED, "--")
    axis.plot([], [], color=COLOURS[5], lw=0.8, label="2nd to 10th, at the mean")
    axis.axhline(0, color=BLACK, lw=0.6)
    _criteria(axis, measured, predicted)
    axis.invert_xaxis()
    axis.set(
        xlabel="DDPM step index",
        ylabel="growth rate per unit of OU time",
        title="Jacobian of the drift of the reverse SDE",
    )
    axis.legend(fontsize=7, loc="upper left")


def _landscapes(axis: Any, measured: dict) -> None:
    for index, curve, colour in zip(measured["shown"], measured["landscapes"], COLOURS):
        centred = curve - np.interp(np.pi / 4, measured["angles"], curve)
        line(axis, measured["angles"] / np.pi, centred, f"index {index}", colour)
    for place in (0, 0.5):
        axis.axvline(place, color=BLACK, lw=0.6, ls=":")
    axis.set(
        xlabel=r"angle $\varphi/\pi$ between two centres",
        ylabel=r"$U(\varphi) - U(\pi/4)$, mean over pairs",
        title="potential",
    )
    axis.legend(fontsize=8, loc="lower center")


def _moments(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    for name, colour, marker in (("second", BLUE, "o"), ("fourth", RED, "s")):
        order = np.argsort(config.stops)
        stops = np.asarray(config.stops)[order]
        line(axis, stops, predicted[name][order], f"{name} moment, exact", colour)
        for row, label, face in ((0, "reverse SDE", marker), (1, "wrong sign (control)", "x")):
            points(
                axis,
                stops,
                measured[name][row][order],
                measured[f"{name}_error"][row][order],
                f"{name}, {label}",
                colour,
                face,
            )
    axis.set(
        xlabel="index s of the linear schedule",
        ylabel="moment of x",
        ylim=(0, None),
        title="two deltas on the way from noise",
    )
    axis.legend(fontsize=7)
