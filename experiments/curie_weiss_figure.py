"""The figure of the Curie-Weiss experiment: six panels, theory as lines, measurements as points."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, line, points

MARKERS = "os^Dv<"


def draw(
    config: Any,
    measured: dict[str, Any],
    predicted: dict[str, Any],
    minima: tuple[np.ndarray, np.ndarray],
    information: tuple[np.ndarray, np.ndarray],
) -> Any:
    """Potential, bifurcation, clone agreement, sweeps, information."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    _potential(axes[0, 0], config, measured, predicted)
    _bifurcation(axes[0, 1], config, measured, predicted, minima)
    _agreement(axes[0, 2], config, measured, predicted)
    _couplings(axes[1, 0], config, measured, predicted)
    _fields(axes[1, 1], config, measured, predicted)
    _information(axes[1, 2], config, measured, predicted, information)
    return figure


def _potential(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    """``-mu^2/2 - 2 log p(mu)`` of histograms, at the first, middle and last time."""
    times = measured["overlap_times"]
    for colour, marker, i in zip(
        (BLUE, GREEN, RED), MARKERS, sorted({0, len(times) // 2, len(times) - 1})
    ):
        grid, exact = predicted["overlap_grid"][i], predicted["overlap_potential"][i]
        count, edges = np.histogram(measured["overlap"][i], 24)
        centre, width = 0.5 * (edges[1:] + edges[:-1]), edges[1] - edges[0]
        seen = count >= 10
        value = -0.5 * centre**2 - 2 * np.log(np.maximum(count, 1) / (width * config.states))
        seen_error = 2 / np.sqrt(np.maximum(count, 1))
        # potentials are known up to a constant: each is 0 in its own centre
        p = np.exp(-(exact + 0.5 * grid**2 - exact.min()) / 2)
        constant = 2 * np.log(p.sum() * (grid[1] - grid[0])) - exact.min()
        shift = np.interp(0, grid, exact)
        near = np.abs(grid) < np.abs(centre[seen]).max() * 1.15
        leading = predicted["overlap_leading"][i]
        line(axis, grid[near], exact[near] - shift, "exact, finite d" if i == 0 else "", colour)
        line(
            axis, grid[near], (leading - np.interp(0, grid, leading))[near],
            "large d" if i == 0 else "", colour, ":",
        )  # fmt: skip
        points(
            axis, centre[seen], (value - constant - shift)[seen], seen_error[seen],
            f"t = {times[i]:.2f}", colour, marker,
        )  # fmt: skip
    axis.set_xlabel(r"overlap $\mu=\sum_ix_i/\sqrt{d}$")
    axis.set_ylabel(r"potential $U(\mu)-U(0)$")
    axis.set_title(f"potential of the overlap, d = {config.sweep_dim}", fontsize=10)
    axis.legend(fontsize=8)


def _bifurcation(
    axis: Any, config: Any, measured: dict, predicted: dict, minima: tuple[np.ndarray, np.ndarray]
) -> None:
    times = predicted["branch_times"]
    for sign in (1, -1):
        first = sign == 1
        line(axis, times, sign * predicted["branch_exact"],
             "minimum of the exact potential" if first else "", BLUE)  # fmt: skip
        line(axis, times, sign * predicted["branch"], "large d" if first else "", RED, ":")
        points(
            axis, measured["overlap_times"], sign * minima[0], minima[1],
            "zero of the measured drift" if first else "", BLACK,
        )  # fmt: skip
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel(r"overlap $\mu$")
    axis.set_title(f"bifurcation, d = {config.sweep_dim}", fontsize=10)
    axis.legend(fontsize=8)


def _agreement(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    fine = predicted["fine_offsets"]
    for i, dim in enumerate(config.dims):
        colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
        t = measured[f"times_d{dim}"]
        offset = np.linspace(fine[0], fine[-1], len(t))
        line(axis, fine, predicted[f"phi_fine_d{dim}"], "formula" if i == 0 else "", colour)
        points(axis, offset, measured[f"phi_d{dim}"], measured[f"phi_error_d{dim}"],
               f"d = {dim}", colour, marker)  # fmt: skip
    axis.axvline(0, color=BLACK, lw=0.8, ls=":")
    axis.set_xlabel(r"$t-\frac{1}{2}\log(d\,m^{*2})$")
    axis.set_ylabel(r"clone agreement $\phi$")
    axis.set_title(rf"speciation at $\beta$ = {config.beta:g}", fontsize=10)
    axis.legend(fontsize=8)


def _couplings(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    n, fine = len(config.betas), predicted["fine_betas"]
    line(axis, fine, predicted["fine_beta_phi"], "from the overlap, finite d", BLUE)
    line(axis, fine, predicted["fine_beta_phi_large"], "formula, large d", RED, ":")
    points(axis, config.betas, measured["sweep_phi"][:n], measured["sweep_phi_error"][:n],
           "counted", BLACK)  # fmt: skip
    axis.set_xlabel(r"coupling $\beta$")
    axis.set_ylabel(r"$\phi$ at $t=\frac{1}{2}\log(d\,m^{*2})$")
    axis.set_title(f"couplings, d = {config.sweep_dim}", fontsize=10)
    axis.legend(fontsize=8)


def _fields(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    n, fine = len(config.betas), predicted["fine_fields"]
    for name, label, colour, marker in (
        ("phi", r"$\phi$ at $t=\frac{1}{2}\log(d\,m^{*2})$", BLUE, "o"),
        ("weight", "weight of M > 0", ORANGE, "s"),
    ):
        first = name == "phi"
        curve, large = (predicted[f"fine_field_{name}{end}"] for end in ("", "_large"))
        line(axis, fine, curve, "finite d" if first else "", colour)
        line(axis, fine, large, "large d" if first else "", colour, ":")
        points(axis, config.fields, measured[f"sweep_{name}"][n:],
               measured[f"sweep_{name}_error"][n:], label, colour, marker)  # fmt: skip
    axis.set_xlabel(r"total field $h_0$")
    axis.set_title(rf"fields, $\beta$ = {config.beta:g}, d = {config.sweep_dim}", fontsize=10)
    axis.legend(fontsize=8)


def _information(
    axis: Any, config: Any, measured: dict, predicted: dict, limit: tuple[np.ndarray, np.ndarray]
) -> None:
    t, fine = measured["information_times"], predicted["information_fine_times"]
    line(axis, fine, predicted["information_fine"], "theory, one pure state", BLUE)
    line(axis, fine, predicted["gaussian_fine"], "Gaussian of equal variance", RED, ":")
    for dim, marker, colour in zip(config.information_dims, "^v", (GREEN, ORANGE)):
        points(axis, t, measured[f"information_d{dim}"], measured[f"information_error_d{dim}"],
               f"d = {dim}", colour, marker)  # fmt: skip
    points(axis, t, *limit, "without the 1/d term", BLACK)
    axis.set_xscale("log")
    axis.set_ylim(-0.02, 2.2 * float(np.max(predicted["information_fine"])))
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("information per spin (nats)")
    axis.set_title(r"collapse at $I_1(t_C)=\alpha=\log n\,/\,d$", fontsize=10)
    axis.legend(fontsize=8)
