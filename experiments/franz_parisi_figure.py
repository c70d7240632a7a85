"""Figure of the experiment `franz_parisi`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import theory.overlap
from experiments.franz_parisi_theory import FIGURE
from experiments.style import BLACK, COLOURS, GREEN, RED, line, points


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Potentials of three data sets, slices and minima of point clouds, the scalar potential."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    _gaussian(axes[0, 0], config, predicted)
    _mixture(axes[0, 1], config, predicted)
    _magnet(axes[0, 2], config, predicted)
    _slices(axes[1, 0], config, measured, predicted)
    _transition(axes[1, 1], config, measured, predicted)
    _scalar(axes[1, 2], measured, predicted)
    for axis in axes.flat:
        axis.legend(fontsize=7)
    return figure


def _middle(edges: np.ndarray) -> np.ndarray:
    return 0.5 * (edges[1:] + edges[:-1])


def _histogram(axis: Any, config: Any, predicted: dict, family: str, i: int, colour: str) -> None:
    """-log of the density over d, with errors of the counts."""
    edges, counts = predicted[f"edges_{family}"], predicted[f"counts_{family}"][i]
    kept = counts >= 5
    dim = getattr(config, family, config.dim)
    value = -np.log(np.where(kept, predicted[f"density_{family}"][i], 1)) / dim
    error = 1 / np.sqrt(np.maximum(counts, 1)) / dim
    times = config.magnet_times if family == "magnet" else config.times
    points(axis, _middle(edges)[kept], value[kept], error[kept],
           f"histogram, t = {times[i]:g}", colour)  # fmt: skip


def _law(predicted: dict, family: str, i: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    edges = predicted[f"edges_{family}"]
    density = np.diff(predicted[f"law_{family}"][i]) / np.diff(edges)
    return _middle(edges), -np.log(np.where(density > 1e-7, density, np.nan)) / dim


def _gaussian(axis: Any, config: Any, predicted: dict) -> None:
    q = np.linspace(-0.8, 1.9, 200)
    for i, (t, colour) in enumerate(zip(config.times, COLOURS)):
        _histogram(axis, config, predicted, "gaussian", i, colour)
        x, law = _law(predicted, "gaussian", i, config.dim)
        line(axis, x, law, "exact law" if i == 0 else "", colour)
        potential = np.asarray(theory.overlap.gaussian_overlap_potential(q, t, config.variance))
        # at one state the density at the peak is sqrt(d (1 + u) / 2 pi); u from the curvature
        bend = (potential[0] - 2 * potential[1] + potential[2]) / (q[1] - q[0]) ** 2
        shift = -0.5 * math.log(config.dim * bend / (2 * math.pi)) / config.dim
        line(axis, q, potential + shift, "potential at one state" if i == 0 else "", colour, ":")
    axis.set_ylim(-0.07, 0.26)
    axis.set_title(f"Gaussian, d = {config.dim}: histogram over states is wider", fontsize=10)
    _label(axis, r"$-\frac{1}{d}\log$ density")


def _mixture(axis: Any, config: Any, predicted: dict) -> None:
    for i, colour in zip(range(len(config.times)), COLOURS):
        _histogram(axis, config, predicted, "mixture", i, colour)
        x, law = _law(predicted, "mixture", i, config.dim)
        line(axis, x, law, "exact law" if i == 0 else "", colour)
    axis.set_title(f"two Gaussians, |m| = {config.mean_norm:g}, d = {config.dim}: the other class",
                   fontsize=10)  # fmt: skip
    _label(axis, r"$-\frac{1}{d}\log$ density")


def _magnet(axis: Any, config: Any, predicted: dict) -> None:
    dim = config.magnet
    for i, colour in zip(range(len(config.times)), COLOURS):
        _histogram(axis, config, predicted, "magnet", i, colour)
        for peak, style in zip(predicted["law_magnet"][i], ("--", "-.")):
            axis.axvline(peak, color=colour, ls=style, lw=1)
    axis.plot([], [], "--", color=BLACK, lw=1, label="same class, mean field")
    axis.plot([], [], "-.", color=BLACK, lw=1, label="other class, mean field")
    axis.set_title(rf"Curie-Weiss magnet, $\beta$ = {config.beta:g}, d = {dim}", fontsize=10)
    _label(axis, r"$-\frac{1}{d}\log$ density")


def _slices(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    t = config.cloud_times[-1]
    for k, (dim, colour) in enumerate(zip(config.cloud_dims, COLOURS)):
        value, error = predicted["slice_potential"][k], predicted["slice_potential_error"][k]
        kept = np.isfinite(value)
        points(axis, predicted["slice_q"][kept], value[kept], error[kept], f"d = {dim}", colour)
        line(axis, predicted["slice_q"], predicted["slice_annealed"][k], "", colour, ":")
        own = -measured[f"own_d{dim}"][-1].astype(np.float64).mean(1) / dim
        points(axis, [1 + 0.02 * (k - 1)], [own.mean()],
               [own.std(ddof=1) / math.sqrt(config.sets)], "", colour, "D")  # fmt: skip
    line(axis, predicted["slice_fine_q"], predicted["slice_fine"], r"$d\to\infty$", BLACK)
    axis.plot([], [], ":", color=BLACK, label="exact mean of the slice")
    edge = predicted["condensed_overlap"][-1]
    for sign in (-1, 1):
        label = "condensed beyond" if sign > 0 else ""
        axis.axvline(sign * edge, color=BLACK, ls="-.", lw=0.8, label=label)
    axis.axhline(0.5, color=BLACK, lw=0.6, ls="--")
    axis.annotate(
        "own point\nV(1) = 1/2",
        (1.0, 0.505),
        (0.85, 0.62),
        fontsize=8,
        arrowprops={"arrowstyle": "-"},
    )
    axis.set_title(rf"n = $e^{{{config.alpha:g}d}}$ points, t = {t:g}", fontsize=10)
    _label(axis, "V(q) per coordinate [nats]")
    axis.set_xlabel(r"overlap with the own point $a\cdot a_1/d\sigma^2$")


def _transition(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    times = np.asarray(config.cloud_times)
    line(
        axis,
        predicted["shown_times"],
        0.5 - predicted["lowest"],
        r"$V(1)-V_{eq}$, $d\to\infty$ [nats]",
        BLACK,
    )
    for dim, colour in zip(config.cloud_dims, COLOURS):
        weight = measured[f"own_weight_d{dim}"].astype(np.float64).mean(-1)
        error = weight.std(1, ddof=1) / math.sqrt(config.sets)
        points(axis, times, weight.mean(1), error, f"weight of the own point, d = {dim}", colour)
        logs = np.logaddexp.reduce(measured[f"slices_d{dim}"].astype(np.float64), axis=-1)
        gap = ((logs - measured[f"own_d{dim}"]) / dim).mean(-1)
        spread = gap.std(1, ddof=1) / math.sqrt(config.sets)
        points(axis, times, gap.mean(1), spread, f"log(others/own)/d, d = {dim}", colour, "s")
    axis.axvline(predicted["collapse_time"], color=RED, lw=1, label=r"$t_C$, $d\to\infty$")
    axis.axhline(0, color=BLACK, lw=0.6)
    axis.set_title("first-order transition: two minima cross", fontsize=10)
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("weight; difference of potentials [nats]")


def _scalar(axis: Any, measured: dict, predicted: dict) -> None:
    for i, (t, colour) in enumerate(zip(FIGURE["times"], (RED, GREEN))):
        points(axis, FIGURE["q"], measured["scalar"][i], measured["scalar_error"][i],
               f"simulator, t = {t:g}", colour)  # fmt: skip
        line(
            axis,
            predicted["scalar_fine_q"],
            predicted["scalar_fine"][i],
            f"quadrature, t = {t:g}",
            colour,
        )
    axis.axvline(4 * FIGURE["mean"] ** 2, color=BLACK, ls=":", lw=1, label=r"$4\mu^2$")
    first, second = predicted["second_minimum"]
    axis.set_title(
        f"1-D figure version; second minimum gone below\nt = {first:.4f} in q, {second:.4f} in "
        r"$\sqrt{q}$: no transition", fontsize=10,
    )  # fmt: skip
    axis.set_ylim(0, 14)
    axis.set_xlabel("q, squared distance from the datum")
    axis.set_ylabel("V(q, t) [nats]")


def _label(axis: Any, name: str) -> None:
    axis.set_xlabel(r"overlap $q = a\cdot a'/E|a|^2$")
    axis.set_ylabel(name)
