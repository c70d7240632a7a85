"""Figure of the experiment `image_uturn`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, COLOURS, ORANGE, PURPLE, RED, line, points


def draw(
    config: Any, measured: dict[str, Any], predicted: dict[str, Any], summary: dict[str, Any]
) -> Any:
    """Bands, class and pixels against time; half times; what a change of class keeps."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(16, 9), layout="constrained")
    _bands(panels[0, 0], measured, predicted, summary)
    _fresh(panels[0, 1], measured)
    _components(panels[0, 2], measured, predicted, summary)
    _classes(panels[1, 0], config, measured, summary)
    _changed(panels[1, 1], measured, predicted)
    _pixels(panels[1, 2], measured)
    for axis in (*panels[0, :2], *panels[1]):
        axis.set_xscale("log")
        axis.set_xlabel("turning time t (Ornstein-Uhlenbeck)")
        axis.axvline(summary["class_half_time"][0], color=BLACK, lw=0.8, ls=":")
        axis.axvline(summary["image_half_time"][0], color=PURPLE, lw=0.8, ls="--")
    return figure


def _bands(axis: Any, measured: dict, predicted: dict, summary: dict) -> None:
    times, names = measured["times"], measured["basis"].names()
    shown = (predicted["fine_times"] >= times[0]) & (predicted["fine_times"] <= times[-1])
    for b, name in enumerate(names):
        colour = COLOURS[b % len(COLOURS)]
        label = "Gaussian theory" if b == 0 else ""
        line(axis, predicted["fine_times"][shown], predicted["bands_fine"][shown, b], label, colour)
        surrogate = measured["surrogate_overlap"][:, b], measured["surrogate_overlap_error"][:, b]
        axis.errorbar(times, *surrogate, fmt="s", ms=4, lw=1, capsize=2, color=colour, mfc="white",
                      label="Gaussian surrogate" if b == 0 else "")  # fmt: skip
        points(axis, times, measured["own_overlap"][:, b], measured["own_overlap_error"][:, b],
               name, colour)  # fmt: skip
    axis.set_ylabel("overlap of image and return, per band")
    axis.set_title(f"{summary['data']}, n = {summary['n']}; dotted: class half lost, "
                   "dashed: own image", fontsize=10)  # fmt: skip
    axis.legend(fontsize=8)


def _components(axis: Any, measured: dict, predicted: dict, summary: dict) -> None:
    found, times = measured["basis"], measured["times"]
    curve, logs = measured["posterior_component"], np.log(times)
    half = np.full(len(found.variances), np.nan)
    for i, values in enumerate(curve.T):
        below = np.flatnonzero((values[:-1] >= 0.5) & (values[1:] < 0.5))
        if below.size:
            j = below[-1]
            part = (values[j] - 0.5) / (values[j] - values[j + 1])
            half[i] = np.exp(logs[j] + part * (logs[j + 1] - logs[j]))
    for b, name in enumerate(found.names()):
        member = found.band == b
        axis.plot(found.variances[member], half[member], "o", ms=4, color=COLOURS[b % len(COLOURS)],
                  label=name)  # fmt: skip
    line(axis, found.variances, predicted["component_half"],
         r"Gaussian: $\frac{1}{2}\log(1 + \lambda)$", BLACK)  # fmt: skip
    axis.axhline(summary["class_half_time"][0], color=BLACK, lw=0.8, ls=":")
    axis.axhline(summary["image_half_time"][0], color=PURPLE, lw=0.8, ls="--")
    axis.text(found.variances[-1], 1.05 * summary["class_half_time"][0], "class", fontsize=8)
    axis.text(found.variances[-1], 0.93 * summary["image_half_time"][0], "own image", fontsize=8,
              color=PURPLE, va="top")  # fmt: skip
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlabel(r"variance $\lambda$ of the component")
    axis.set_ylabel("time at which its overlap is 1/2")
    axis.legend(fontsize=8)


def _classes(axis: Any, config: Any, measured: dict, summary: dict) -> None:
    times, turns = measured["times"], config.turns
    order = np.argsort(times)
    line(axis, times[order], measured["posterior_read"][order], "class, posterior", COLOURS[0])
    for key, label, colour, marker in (
        ("own_read", "class kept", COLOURS[0], "o"),
        ("fresh_read", "class kept, image not in the set", COLOURS[2], "^"),
        ("own_image", "own image returns", PURPLE, "D"),
        ("surrogate_read", "class read in the Gaussian surrogate", ORANGE, "s"),
    ):
        value = measured[key] if key.startswith("surrogate") else measured[key] / turns
        error = np.sqrt(np.maximum(value * (1 - value), 1 / turns) / turns)
        points(axis, times, value, error, label, colour, marker)
    axis.axhline(summary["class_floor"], color=BLACK, lw=0.6, ls="--", label="chance")
    axis.set_ylabel("fraction of U-turns")
    axis.legend(fontsize=8)


def _changed(axis: Any, measured: dict, predicted: dict) -> None:
    times = measured["times"]
    for b, name in enumerate(measured["basis"].names()):
        value = measured["own_changed"][:, b] - predicted["unrelated"][b]
        error = measured["own_changed_error"][:, b]
        used = error > 0
        points(axis, times[used], value[used], error[used], name, COLOURS[b % len(COLOURS)])
    axis.axhline(0, color=RED, lw=0.8, ls="--", label="unrelated images of two classes")
    axis.set_ylabel("excess overlap where the class changed")
    axis.set_title("what a new class keeps of the old image", fontsize=10)
    axis.legend(fontsize=8)


def _fresh(axis: Any, measured: dict) -> None:
    for b, name in enumerate(measured["basis"].names()):
        value, error = (measured[f"fresh_{k}"][:, b] for k in ("overlap", "overlap_error"))
        points(axis, measured["times"], value, error, name, COLOURS[b % len(COLOURS)], "^")
    axis.set_ylabel("overlap of image and return, per band")
    axis.set_title("images that are not in the set", fontsize=10)
    axis.legend(fontsize=8)


def _pixels(axis: Any, measured: dict) -> None:
    for key, label, colour, marker in (
        ("own", "images", COLOURS[0], "o"), ("surrogate", "Gaussian surrogate", ORANGE, "s"),
    ):  # fmt: skip
        points(axis, measured["times"], measured[f"{key}_chi"], measured[f"{key}_chi_error"], label,
               colour, marker)  # fmt: skip
    axis.axhline(1, color=BLACK, lw=0.6, ls=":", label="independent pixels")
    axis.set_ylabel(r"pixels that change together, $\chi$")
    axis.set_title("susceptibility of pixels darker or brighter than the mean", fontsize=10)
    axis.legend(fontsize=8)
