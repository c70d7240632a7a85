"""Figure of the experiment `hierarchy_correlations`."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.style import BLACK, COLOURS, RED, line, points

NAMES = {
    "masking": "probability that a leaf is masked",
    "uniform": "probability that a leaf is resampled",
    "gaussian": "time t (Ornstein-Uhlenbeck)",
}


def draw(
    config: Any, measured: dict[str, Any], predicted: dict[str, Any], summary: dict[str, Any]
) -> Any:
    """Susceptibility and length, two-point function, levels, controls, short strings."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(15, 8.6), layout="constrained")
    _susceptibility(panels[0, 0], config, measured, summary)
    _length(panels[0, 1], config, measured, summary)
    _two_point(panels[0, 2], config, measured, summary)
    _levels(panels[1, 0], config, measured)
    _controls(panels[1, 1], config, measured)
    _short(panels[1, 2], measured, predicted)
    for axis in (*panels[0, :2], *panels[1, :2]):
        axis.set_xlabel(NAMES[config.channel])
    return figure


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = np.nan_to_num(values, nan=1.0)
    return values.mean(0), values.std(0, ddof=1) / np.sqrt(len(values))


def _susceptibility(axis: Any, config: Any, measured: dict, summary: dict) -> None:
    for i, depth in enumerate(config.depths):
        entry, colour = summary[f"L{depth}"], COLOURS[i]
        points(axis, measured["noise"], *_mean(measured[f"chi_L{depth}"]),
               f"L = {depth}, {entry['leaves']} leaves", colour)  # fmt: skip
        axis.axvline(entry["class_half"], color=colour, lw=1, ls="--",
                     label="class half lost" if i == 0 else "")  # fmt: skip
    axis.axhline(1, color=BLACK, lw=0.8, ls=":", label="independent leaves")
    axis.set_ylabel(r"susceptibility $\chi = \sum_{ij} C_{ij} / \sum_i C_{ii}$")
    axis.set_title(f"v = {config.symbols}, m = {config.synonyms}, s = {config.branching}, "
                   f"{config.grammars} grammars", fontsize=10)  # fmt: skip
    axis.legend(fontsize=8)


def _length(axis: Any, config: Any, measured: dict, summary: dict) -> None:
    for i, depth in enumerate(config.depths):
        points(axis, measured["noise"], *_mean(measured[f"length_L{depth}"]), f"L = {depth}",
               COLOURS[i])  # fmt: skip
        axis.axvline(summary[f"L{depth}"]["class_half"], color=COLOURS[i], lw=1, ls="--")
    axis.set_ylabel(r"correlation length $\xi$ in leaves")
    axis.set_title("how far changes are correlated", fontsize=10)
    axis.legend(fontsize=8)


def _two_point(axis: Any, config: Any, measured: dict, summary: dict) -> None:
    depth, noise = config.depths[-1], measured["noise"]
    values = measured[f"covariance_L{depth}"]
    ratio = values / np.maximum(values[..., :1], 1e-12)
    middle = summary[f"L{depth}"]["noise"]
    centre = int(np.argmin(np.abs(noise - (middle if np.isfinite(middle) else noise.mean()))))
    chosen = sorted({max(0, centre - 3), centre, min(len(noise) - 1, centre + 4)})
    heights = np.arange(1, depth + 1)
    for i, k in enumerate(chosen):
        mean, error = _mean(ratio[:, k, 1:])
        points(axis, heights, mean, error, f"noise {noise[k]:.2f}", COLOURS[i])
        axis.plot(heights, mean, "-", lw=0.8, color=COLOURS[i])
    axis.set_yscale("symlog", linthresh=1e-3)
    axis.axhline(0, color=BLACK, lw=0.6, ls=":")
    axis.set_xlabel("height of the common ancestor")
    axis.set_ylabel(r"$C(k) / C(0)$")
    axis.set_title(f"two-point function, L = {depth}", fontsize=10)
    axis.legend(fontsize=8)


def _levels(axis: Any, config: Any, measured: dict) -> None:
    depth = config.depths[-1]
    kept, belief = measured[f"kept_L{depth}"], measured[f"belief_L{depth}"]
    for i, level in enumerate(sorted({0, depth // 2, depth})):
        name = {0: "class", depth: "leaves"}.get(level, f"level {level}")
        line(axis, measured["noise"], belief[..., level].mean(0), "", COLOURS[i])
        points(axis, measured["noise"], *_mean(kept[..., level]), f"{name} kept", COLOURS[i])
    axis.plot([], [], "-", color=BLACK, label="belief in the truth")
    axis.axhline(1 / config.symbols, color=BLACK, lw=0.6, ls=":")
    axis.set_ylabel("fraction that is unchanged")
    axis.set_title(f"L = {depth}: only the class has a transition", fontsize=10)
    axis.legend(fontsize=8)


def _controls(axis: Any, config: Any, measured: dict) -> None:
    depth = config.depths[-1]
    for key, label, colour, marker in (
        ("chi", "connected", COLOURS[0], "o"), ("disconnected", "means not subtracted", RED, "s"),
        ("dealt", "leaves dealt out among the data", BLACK, "D"),
    ):  # fmt: skip
        points(axis, measured["noise"], *_mean(measured[f"{key}_L{depth}"]), label, colour, marker)
    axis.set_yscale("log")
    axis.set_ylabel("susceptibility")
    axis.set_title(f"controls, L = {depth}", fontsize=10)
    axis.legend(fontsize=8)


def _short(axis: Any, measured: dict, predicted: dict) -> None:
    noise = predicted["short_noise"]
    for g, exact in enumerate(predicted["chi_fine"]):
        colour = COLOURS[g % len(COLOURS)]
        label = "all strings listed" if g == 0 else ""
        line(axis, predicted["short_fine"], exact, label, colour)
        points(axis, noise, measured["chi_short"][g], measured["chi_error_short"][g],
               "measured, a colour for each grammar" if g == 0 else "", colour)  # fmt: skip
    axis.set_xlabel(NAMES["masking"])
    axis.set_ylabel(r"susceptibility $\chi$")
    axis.set_title("short strings: v = 4, m = 2, L = 3", fontsize=10)
    axis.legend(fontsize=8)
