"""The figure: entropies and rates of the mixtures, the control, images, and the tree of classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.class_mixtures import FEW
from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, PURPLE, RED, SKY, line, points

BIT = np.log(2)


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Two rows of three panels."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(15, 9), layout="constrained")
    _entropies(panels[0, 0], config, measured, predicted)
    _rates(panels[0, 1], config, measured, predicted)
    _control(panels[0, 2], config, measured)
    _image_entropy(panels[1, 0], measured)
    _pairs(panels[1, 1], measured, predicted)
    _tree(panels[1, 2], measured, predicted)
    for axis in (*panels[0], *panels[1, :2]):
        axis.set_xscale("log")
        axis.set_xlabel("Ornstein-Uhlenbeck time t")
    return figure


def _with_bits(axis: Any) -> None:
    """A second axis, in bits."""
    second = axis.secondary_yaxis("right", functions=(lambda v: v / BIT, lambda v: v * BIT))
    second.set_ylabel("bits")


def _entropies(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    for name, colour in zip(config.mixtures, COLOURS):
        found, theory = measured[name], predicted[name]
        line(axis, theory["fine"], theory["fine_entropy"], f"{name}, quadrature", colour)
        points(axis, found["times"], found["entropy"], found["entropy_error"],
               f"{name}, fresh states", colour)  # fmt: skip
        points(axis, found["tracked_times"], found["tracked_entropy"],
               found["tracked_entropy_error"], f"{name}, trajectories", colour, "^")  # fmt: skip
    axis.set_ylabel(r"entropy of the class $H(y|x_t)$ (nats)")
    axis.set_title("mixtures: what is not decided yet", fontsize=10)
    axis.legend(fontsize=6, ncols=2)
    _with_bits(axis)


def _rates(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    """Rates per OU time, and where they peak on three clocks."""
    for name, colour in zip(config.mixtures, COLOURS):
        found, theory = measured[name], predicted[name]
        line(axis, theory["fine"], theory["fine_rate"], f"{name}, quadrature", colour)
        points(axis, found["times"], found["rate"], found["rate_error"], "", colour)
        points(axis, found["tracked_times"], found["tracked_rate"], found["tracked_rate_error"],
               "", colour, "^")  # fmt: skip
        axis.errorbar(found["times"], found["difference"], yerr=found["difference_error"], fmt="x",
                      ms=5, lw=0.8, color=colour, alpha=0.6)  # fmt: skip
    first = config.mixtures[0]
    clocks = (r"per $t$", r"per $s$", r"per $\log\sigma$")
    for time, style, clock in zip(predicted[first]["peaks"], ("-", "--", ":"), clocks):
        axis.axvline(time, color=BLACK, lw=0.9, ls=style, label=f"{first}: rate {clock} peaks")
    for marker, label in (("o", "mean squared guidance"), ("x", "finite differences"),
                          ("^", "trajectories")):  # fmt: skip
        axis.plot([], [], marker, color=BLACK, ms=4, label=label)
    largest = max(float(np.max(measured[name]["rate"])) for name in config.mixtures)
    axis.set_ylim(-0.1 * largest, 1.6 * largest)
    axis.set_ylabel(r"$dH/dt$ (nats per unit of OU time)")
    axis.set_title("the peak depends on the clock", fontsize=10)
    axis.legend(fontsize=6)
    _with_bits(axis)


def _control(axis: Any, config: Any, measured: dict) -> None:
    for name, colour in zip(config.mixtures, COLOURS):
        found = measured[name]
        for grid, key, style, label in (
            ("grid", "posterior_rms", "-", f"{config.steps} steps"),
            ("few_grid", "matched_rms", "--", f"{FEW} steps, forward variance"),
            ("few_grid", "mismatched_rms", "o-", f"{FEW} steps, wrong variance"),
        ):
            axis.plot(found[grid], found[key], style, color=colour, ms=3, lw=1,
                      label=f"{name}, {label}")  # fmt: skip
    axis.set_yscale("log")
    axis.set_ylim(bottom=1e-5)
    axis.set_ylabel("rms error of the tracked posterior")
    axis.set_title("divide by the variance that made the states", fontsize=10)
    axis.legend(fontsize=6, ncols=2)


def _image_entropy(axis: Any, measured: dict) -> None:
    """Entropy of the images' class and its rate, sampled, tracked, and through the network."""
    grid, times = measured["image_grid"], measured["image_times"]
    points(axis, times, measured["image_entropy"], measured["image_entropy_error"],
           "entropy, fresh states", BLUE)  # fmt: skip
    if "image_tracked_entropy" in measured:
        _band(axis, grid, measured, "image_tracked_entropy", "entropy, exact denoisers", SKY)
        _band(axis, grid, measured, "image_tracked_rate", "rate, exact denoisers", ORANGE)
    points(axis, times, measured["image_rate"], measured["image_rate_error"],
           "rate (nats per OU time), fresh states", RED)  # fmt: skip
    if "network_entropy" in measured:
        _band(axis, grid, measured, "network_entropy", "entropy, network", GREEN)
        _band(axis, grid, measured, "network_rate", "rate, network", PURPLE)
    axis.set_xlim(0.5 * measured["image_times"][0], 1.2 * grid.max())
    axis.set_ylabel("nats")
    axis.set_title(f"{measured['data']}, {len(measured['class_names'])} classes", fontsize=10)
    axis.legend(fontsize=6)
    _with_bits(axis)


def _band(axis: Any, x: Any, measured: dict, name: str, label: str, colour: str) -> None:
    value, error = measured[name], measured[f"{name}_error"]
    axis.plot(x, value, "--", color=colour, lw=1.2, label=label)
    axis.fill_between(x, value - error, value + error, color=colour, alpha=0.3, lw=0)


def _pairs(axis: Any, measured: dict, predicted: dict) -> None:
    """All pairs in grey; the first and the last to be decided in colour."""
    names, times = measured["class_names"], measured["image_times"]
    order = [(i, j) for i in range(len(names)) for j in range(i)]
    order.sort(key=lambda pair: predicted["decided"][pair])
    for i, j in order:
        axis.plot(times, measured["pair_entropy"][:, i, j], color="0.8", lw=0.8, zorder=1)
    for (i, j), colour in zip((order[0], order[-1]), (RED, BLUE)):
        when = "last" if (i, j) == order[0] else "first"
        points(axis, times, measured["pair_entropy"][:, i, j],
               measured["pair_entropy_error"][:, i, j],
               f"{names[j]}-{names[i]}, decided {when}", colour)  # fmt: skip
        axis.axvline(predicted["decided"][i, j], color=colour, lw=0.8, ls=":")
    axis.set_ylabel(r"entropy between two classes $H_{ij}$ (nats)")
    axis.set_title("every pair has its own time", fontsize=10)
    axis.legend(fontsize=7)
    _with_bits(axis)


def _tree(axis: Any, measured: dict, predicted: dict) -> None:
    from scipy.cluster.hierarchy import dendrogram

    dendrogram(predicted["tree"], labels=list(measured["class_names"]), ax=axis,
               color_threshold=0, above_threshold_color=BLUE)  # fmt: skip
    times = predicted["decided"][np.tril_indices(len(predicted["decided"]), -1)]
    axis.set_ylim(0.9 * times.min(), 1.05 * times.max())
    axis.set_ylabel("OU time at which the pair is half decided")
    axis.set_xlabel("class")
    axis.set_title("classes that part last are joined lowest", fontsize=10)
