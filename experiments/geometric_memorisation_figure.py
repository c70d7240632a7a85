"""Figure of `experiments.geometric_memorisation`: condensation, loss of subspaces, spectra."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, line, points

AXES = {
    "spectrum_v": "noise variances v of the spectra (V,)",
    "spectrum_": "medians of the sorted values -v eig J at train, fresh or zero, and of the "
    "population (V, d)",
    "rem_": "collapse variance of the full random energy model (N,)",
    "energies_": "collapse variance of Gaussian energies along a strong direction (N,)",
    "half_": "noise variance of Y_2 = 1/2 and its standard error (N, 2)",
    "sizes": "numbers of training points (N,)",
    "fine_sizes": "numbers of points of the theory curves",
    "unit_norm": "strong and weak covariance eigenvalue of data of unit norm, exact (2,)",
    "retained_v_": "noise variances of the retained variance (V,)",
    "retained_quartiles_": "quartiles of the retained variance at fresh points, strong and weak "
    "subspace (3, V, 2)",
}
NAMES = ("strong (variance 1)", "weak (variance .09)")


def draw(config: Any, curves: dict[str, Any], families: dict[str, Any], summary: dict) -> Any:
    """Four panels: condensation against N, retained variances, spectra, the centre of a shell."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(12, 9.5), layout="constrained")
    _draw_condensation(axes[0, 0], curves, families)
    _draw_retained(axes[0, 1], config, curves, families)
    _draw_spectra(axes[1, 0], config, curves)
    _draw_centre(axes[1, 1], config, curves, summary)
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.legend(fontsize=7.5)
    return figure


def _draw_condensation(axis: Any, curves: dict, families: dict) -> None:
    for (family, dims), colour in zip(families.items(), (BLUE, RED)):
        for place, marker in (("train", "o"), ("fresh", "^")):
            value, error = curves[f"half_{place}_{family}"].T
            points(axis, curves["sizes"], value, error, f"{dims}, {place}", colour, marker)
        line(axis, curves["fine_sizes"], curves[f"rem_fine_{family}"], f"{dims}, full REM", colour)
        line(axis, curves["fine_sizes"], curves[f"energies_fine_{family}"],
             f"{dims}, Gaussian energies (control)", colour, ":")  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(top=6)
    axis.set_xlabel("number of training points N")
    axis.set_ylabel(r"noise variance v where $E\,Y_2 = 1/2$")
    axis.set_title("condensation", fontsize=10)


def _draw_retained(axis: Any, config: Any, curves: dict, families: dict) -> None:
    for (family, dims), style in zip(families.items(), ("-", "--")):
        v = curves[f"retained_v_{family}"]
        low, median, high = curves[f"retained_quartiles_{family}"]
        for k, colour in enumerate((BLUE, ORANGE)):
            axis.plot(v, median[:, k], style, color=colour, label=f"{dims}, {NAMES[k]}")
            axis.fill_between(v, low[:, k], high[:, k], color=colour, alpha=0.12, lw=0)
    axis.axhline(1, color=BLACK, lw=1, ls="-.", label="population, mean")
    axis.axhline(0.5, color=BLACK, lw=0.6, ls=":")
    axis.set_xlabel("noise variance v")
    axis.set_ylabel(r"retained variance $\rho_k$ (median, quartiles)")
    axis.set_title(f"loss of subspaces at fresh points, N = {config.shown}", fontsize=10)


def _draw_spectra(axis: Any, config: Any, curves: dict) -> None:
    v, dim = curves["spectrum_v"], config.dim
    strong, weak = config.first
    edges = (0, dim - strong - weak, dim - strong, dim)
    names = (f"upper {dim - strong - weak}", f"next {weak}", f"lowest {strong}")
    groups = list(zip(edges[:-1], edges[1:], (GREEN, ORANGE, BLUE), names))
    for first, last, colour, label in groups:
        for place, style in (("train", "-"), ("fresh", "--")):
            values = curves[f"spectrum_{place}"][:, first:last].mean(1)
            axis.plot(v, values, style, color=colour, label=f"{label}, {place}")
        population = curves["spectrum_population"][:, first:last].mean(1)
        axis.plot(v, population, ":", color=colour, lw=2, label=f"{label}, population")
    axis.set_xlabel("noise variance v")
    axis.set_ylabel(r"$-v$ eig $J$, medians of sorted values")
    axis.set_title(
        f"Jacobian spectrum, d = {dim}, dimensions {tuple(config.first)}, N = {config.shown}\n"
        "(means over groups of sorted positions)", fontsize=10,
    )  # fmt: skip


def _draw_centre(axis: Any, config: Any, curves: dict, summary: dict) -> None:
    strong, weak = curves["unit_norm"]
    v = np.geomspace(0.04, 2, 400)
    line(axis, v, np.abs(1 - strong / v), "strong, population", BLUE)
    line(axis, v, np.abs(1 - weak / v), "weak, population", ORANGE)
    switch = summary["population_switch"]
    axis.axvline(switch, color=PURPLE, lw=1.5, label=f"switch, population: v = {switch:.3f}")
    for n, switch, style in zip(config.sizes, summary["switch"], ("--", "-.", ":", "--", "-.")):
        axis.axvline(switch, color=BLACK, lw=0.8, ls=style, label=f"N = {n}: {switch:.3f}")
    axis.set_ylim(0, 2)
    axis.set_xlabel("noise variance v")
    axis.set_ylabel(r"$v|J(0)| = |1 - c/v|$")
    axis.set_title("unit norm at x = 0: a shell seen from its centre, no memorisation", fontsize=10)
