"""The figure of the experiment ``entropy_production``."""

from __future__ import annotations

from typing import Any

import numpy as np

import theory.thermodynamics
from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, RED, line, points


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Rates in both dimensions, error of the denoiser, integrals, steps, and the flow's minimum."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(15, 8.4), layout="constrained")
    for axis, dim in zip(panels[0], (config.dims[0], config.dims[-1])):
        _rates(axis, config, dim, measured, predicted)
    _flow(panels[0, 2], config, measured, predicted)
    _error(panels[1, 0], config, measured, predicted)
    _integral(panels[1, 1], config, measured, predicted)
    _steps(panels[1, 2], config, measured, predicted)
    return figure


def _rates(axis: Any, config: Any, dim: int, measured: dict, predicted: dict) -> None:
    t, fine = measured["times"], predicted["fine_times"]
    axis.axhline(0, color=BLACK, lw=0.6)
    for name, label, colour, marker in (
        ("production", r"production $\pi = \pi^*$", BLUE, "o"),
        ("flow", r"forward flow $\varphi$", GREEN, "s"),
        ("reverse_flow", r"generative flow $\varphi^*$", RED, "^"),
    ):
        line(axis, fine, predicted[f"{name}_fine_d{dim}"] / dim, f"{label}, theory", colour)
        value, error = measured[f"{name}_d{dim}"] / dim
        points(axis, t, value, error, "_nolegend_", colour, marker)
    entropy = predicted[f"fisher_fine_d{dim}"] / dim - 1
    line(axis, fine, entropy, r"$\dot S = I_F - d$, theory", PURPLE, "--")
    value, error = measured[f"fisher_d{dim}"] / dim
    points(axis, t, value - 1, error, "simulation", PURPLE, "x")
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$",
        ylabel="rate per coordinate (nats per unit of $t$)",
        title=rf"d = {dim}, $\mu$ = {config.mean:g}, $\sigma^2$ = {config.variance:g}",
    )
    axis.legend(fontsize=7, ncols=2)


def _flow(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    from experiments.entropy_production_theory import extrema

    grids = extrema(config)
    fine = np.linspace(grids["near_zero"][0], grids["near_minimum"][-1], 200)
    flow = theory.thermodynamics.mixture_rates(fine, config.mean, config.variance).reverse_flow
    axis.axhline(0, color=BLACK, lw=0.6)
    line(axis, fine, np.asarray(flow), r"$\varphi^*$, theory", RED)
    for name, colour, marker in (("near_zero", ORANGE, "s"), ("near_minimum", BLUE, "o")):
        value, error = measured[f"{name}_d1"]
        points(axis, grids[name], value, error, f"simulation, {name[5:]}", colour, marker)
    depth = predicted["depth_found"]
    for x, y, colour, label in (
        (predicted["zero_found"], (0, 0), ORANGE, "fitted zero"),
        (predicted["minimum_found"], depth, BLUE, "fitted minimum"),
    ):
        axis.errorbar(
            x[0], y[0], yerr=y[1] or None, xerr=x[1], fmt="*", ms=13, color=colour, mec=BLACK,
            capsize=3, zorder=5, label=f"{label}, t = {x[0]:.4f}",
        )  # fmt: skip
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$",
        ylabel=r"generative flow $\varphi^*$ (nats per unit of $t$)",
        title="sign change and minimum, d = 1",
    )
    axis.legend(fontsize=8)


def _error(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    for dim, colour, marker in zip(config.dims, COLOURS, ("o", "s", "^")):
        fine = predicted[f"mmse_fine_d{dim}"] / dim
        label = f"d = {dim}, $2\\,dI/d\\,$snr, theory"
        line(axis, predicted["fine_times"], fine, label, colour)
        value, error = measured[f"mmse_d{dim}"] / dim
        points(axis, measured["times"][1:], value, error, "simulation", colour, marker)
        value, error = measured[f"fisher_d{dim}"][:, 1:]
        t = measured["times"][1:]
        noise = -np.expm1(-2 * t)
        factor = noise**2 * np.exp(2 * t) / dim
        points(
            axis, t, factor * (dim / noise - value), factor * error,
            r"$\Delta_t^2 e^{2t}(d/\Delta_t - I_F)$, simulation", colour, "x",
        )  # fmt: skip
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$",
        ylabel=r"$E|a - D|^2$ per coordinate",
        title="error of the denoiser (I-MMSE)",
    )
    axis.legend(fontsize=7)


def _integral(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    fine = np.linspace(0.01, max(config.ends) * 1.1, 60)
    for dim, colour, marker in zip(config.dims, COLOURS, ("o", "s", "^")):
        law = config.mean, config.variance
        along, across = (
            np.asarray(theory.thermodynamics.total_production(fine, m, law[1]))
            for m in (law[0], 0.0)
        )
        total = along + (dim - 1) * across
        line(axis, fine, total / dim, rf"d = {dim}, $\int_0^t\pi$, theory", colour)
        value, error = measured[f"forward_d{dim}"] / dim
        points(axis, config.ends, value, error, r"$\langle\Delta S_{tot}\rangle$", colour, marker)
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$ of the end",
        ylabel="production per coordinate (nats)",
        title="forward paths, exact at any step",
        ylim=(0, None),
    )
    axis.legend(fontsize=8)


def _steps(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    dt = config.t_final / np.asarray(config.steps)
    axis.axhline(1, color=BLACK, lw=1, label="continuum")
    colours = {"(a) midpoint": BLUE, "(b) reversed kernels": RED, "(c) noising chain": GREEN}
    for i, (dim, marker, style) in enumerate(zip(config.dims, ("o", "s", "^"), ("-", "--", ":"))):
        which = rf"d = {dim}, $\sigma^2$ = {config.path_variances[i]:g}"
        scale = predicted[f"continuum_d{dim}"]
        for j, (name, colour) in enumerate(colours.items()):
            label = f"{name}, {which}"
            line(axis, dt, predicted[f"means_d{dim}"][j] / scale, label, colour, style)
            value, error = measured[f"means_d{dim}"][:, j] / scale
            label = "simulation" if i == j == 0 else "_nolegend_"
            points(axis, dt, value, error, label, colour, marker)
    axis.set(
        xlabel="step $dt$ (OU time)",
        ylabel=r"$\langle\Delta S_{tot}\rangle$ over the continuum value",
        title=f"generative paths, t = {config.t_final:g}\n(lines: transfer operator)",
        xlim=(0, None),
    )
    axis.legend(fontsize=7, loc="center", bbox_to_anchor=(0.5, 0.41))
