"""Figure of the experiment `phase_diagram`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, RED, SKY, line, points

GIBBS_TEXT = ("two wells, one mode", "two wells, two modes", "above the unbounded region")


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """The plane for each variance, the frozen measures, flows and clones."""
    import matplotlib.pyplot as plt

    columns = max(3, len(config.variances))
    figure, axes = plt.subplots(2, columns, figsize=(5 * columns, 9), layout="constrained")
    for i, axis in enumerate(axes[0]):
        if i < len(config.variances):
            _plane(axis, i, config, measured, predicted)
        else:
            _flow(axis, config, measured, predicted)
    for axis, i in zip(axes[1, :2], (0, 2)):
        _gibbs(axis, i, measured, predicted)
    _clones(axes[1, 2], config, measured, predicted)
    for axis in axes[1, 3:]:
        axis.set_visible(False)
    for axis in axes[1]:
        axis.legend(fontsize=7)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    last, names = axes[0, len(config.variances) - 1].get_legend_handles_labels()
    known = dict(zip(labels, handles)) | dict(zip(names, last))
    figure.legend(known.values(), known.keys(), fontsize=8, ncols=4, loc="outside lower center")
    return figure


def _plane(axis: Any, i: int, config: Any, measured: dict, predicted: dict) -> None:
    from experiments.phase_diagram import grid_of, means_of

    means, times = means_of(config), grid_of(config)
    fine = predicted["fine_means"]
    line(axis, fine, predicted["dynamic"][i], r"$t_U$: U splits", BLUE)
    line(axis, fine, predicted["static"][i], r"$t_b$: $p_t$ splits, agreement .775", RED)
    line(axis, fine[::4], predicted["zero"][i], r"$\varphi^*=0$: no transition", GREEN, "--")
    edge = float(predicted["unbounded"][i])
    if np.isfinite(edge):
        axis.axhspan(0, edge, color=SKY, alpha=0.25, lw=0, label="U unbounded")
    for name, marker, colour, label in (
        ("critical_u", "o", BLUE, "centre of U loses stability, simulator"),
        ("critical_p", "s", RED, r"centre of $p_t$ loses convexity, simulator"),
    ):
        axis.plot(means, measured[name][i], marker, color=colour, ms=6, label=label, zorder=4)
    mesh = np.meshgrid(means, times, indexing="ij")
    for count, mode, marker, colour, label in (
        (0, None, "x", BLACK, "no stable point"),
        (1, 1, ".", PURPLE, "one well, one mode"),
        (2, 1, "^", ORANGE, "two wells, one mode"),
        (2, 2, "D", ORANGE, "two wells, two modes"),
    ):
        here = measured["wells"][i] == count
        if mode is not None:
            here = here & (measured["modes"][i] == mode)
        axis.plot(mesh[0][here], mesh[1][here], marker, color=colour, ms=3.5, label=label, ls="")
    axis.set_title(rf"$\sigma^2$ = {config.variances[i]:g}", fontsize=10)
    axis.set_xlabel(r"norm of the centres $\mu$")
    axis.set_ylabel("Ornstein-Uhlenbeck time t")
    axis.set_ylim(0, 1.85)


def _gibbs(axis: Any, i: int, measured: dict, predicted: dict) -> None:
    from experiments.phase_diagram import GIBBS

    edges = predicted["edges"][i]
    width, middle = np.diff(edges), 0.5 * (edges[1:] + edges[:-1])
    samples = measured["frozen"][i]
    counts = np.histogram(samples, edges)[0]
    density, error = counts / width / samples.size, np.sqrt(counts) / width / samples.size
    points(axis, middle, density, error, "NUTS in the frozen potential", BLACK)
    line(axis, middle, np.diff(predicted["gibbs_law"][i]) / width,
         r"$e^{-U}/Z$: three Gaussians", BLUE)  # fmt: skip
    line(axis, middle, np.diff(predicted["noised_law"][i]) / width, r"$p_t$, law of the process",
         RED, "--")  # fmt: skip
    t, mean, variance = GIBBS[i]
    axis.set_title(
        rf"t = {t:g}, $\mu$ = {mean:g}, $\sigma^2$ = {variance:g}; {GIBBS_TEXT[i]}"
        "\n" rf"$e^{{-U}}$ is not $p_t$: {predicted['divergence'][i]:.2f} nats", fontsize=9,
    )  # fmt: skip
    axis.set_xlabel("coordinate along the centres")
    axis.set_ylabel("density")
    axis.set_xlim(edges[0], edges[-1])


def _flow(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    from experiments.phase_diagram import FLOW_TIMES, flow_points

    for k, ((mean, variance), colour) in enumerate(zip(flow_points(config), COLOURS)):
        label = rf"$\mu$ = {mean:g}, $\sigma^2$ = {variance:g}"
        points(axis, FLOW_TIMES, measured["flow"][k], measured["flow_error"][k], label, colour)
        line(axis, FLOW_TIMES, predicted["flow_theory"][k], "", colour)
    axis.axhline(0, color=BLACK, lw=0.6)
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel(r"entropy flow $\varphi^*$ [nats per unit time]")
    axis.set_title("flow of the generative process", fontsize=10)
    axis.legend(fontsize=7)


def _clones(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    times = predicted["clone_times"]
    for k, (variance, colour) in enumerate(zip(config.variances, COLOURS)):
        points(axis, times[k], measured["agreement"][k], measured["agreement_error"][k],
               rf"clones, $\mu$ = 1.5, $\sigma^2$ = {variance:g}", colour)  # fmt: skip
        line(axis, times[k], predicted["agreement_theory"][k], "", colour)
        axis.axvline(times[k][3], color=colour, ls=":", lw=1)
    axis.plot([], [], ":", color=BLACK, label=r"$t_U$")
    axis.axhline(0.7752, color=BLACK, lw=0.6, ls="--", label=r"agreement at $t_b$")
    axis.set_title("the class is decided gradually", fontsize=10)
    axis.set_xlabel("Ornstein-Uhlenbeck time t")
    axis.set_ylabel("clone agreement")
