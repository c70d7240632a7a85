"""The figure of the experiment ``late_start``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.late_start_cells import FLOOR, PUBLISHED, SEEDS, curves_of
from experiments.style import BLACK, BLUE, COLOURS, GREEN, ORANGE, RED, SKY

TITLES = {"ddim": "DDIM", "eta1": r"$\eta = 1$", "exact": "exact transitions"}


def draw(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Distance and class divergence against the start, of the mixture and of images."""
    import matplotlib.pyplot as plt

    samplers = [s for s in config.samplers if s != "exact"]
    columns = max(2, len(samplers))
    figure, panels = plt.subplots(2, columns, figsize=(6 * columns, 9), layout="constrained")
    for axis, sampler in zip(panels[0], samplers):
        _sampler(axis, sampler, config, measured, predicted)
    if len(samplers) < 2:
        _divergence(panels[0, 1], config, measured, predicted)
    _images(panels[1, 0], config, measured, predicted)
    _image_classes(panels[1, 1], config, measured)
    return figure


def _sampler(axis: Any, sampler: str, config: Any, measured: dict, predicted: dict) -> None:
    colours = dict(zip(config.steps, COLOURS))
    for name, steps, values in curves_of(config, measured):
        if name not in (sampler, "exact"):
            continue
        colour = BLACK if name == "exact" else colours[steps]
        label = "exact transitions" if name == "exact" else f"{steps} steps"
        for kind, fmt, text in ((0, "o--", "vanilla"), (1, "s-", "Gaussian")):
            axis.errorbar(
                config.indices,
                values[kind].mean(-1),
                values[kind].std(-1, ddof=1),
                fmt=fmt,
                ms=4,
                lw=1,
                capsize=2,
                color=colour,
                mfc="white" if kind == 0 else colour,
                label=f"{label}, {text}",
            )
    for (name, steps, _, index), (mean, spread) in PUBLISHED.items():
        if name == sampler:
            axis.errorbar(
                index,
                mean,
                3 * spread,
                fmt="*",
                ms=11,
                capsize=3,
                zorder=5,
                color=colours.get(steps, ORANGE),
                mec=BLACK,
            )
    axis.plot([], [], "*", ms=11, color="white", mec=BLACK, label="reference value, 3 sd")
    axis.axhline(FLOOR[0], color=BLACK, lw=0.8, ls=":", label="floor of exact samples")
    _critical(axis, predicted["rate"], predicted["formula"])
    axis.set(
        yscale="log",
        xlabel="DDPM step index of the start",
        title=f"mixture, {TITLES[sampler]}",
        ylabel=f"squared Frechet distance, mean and sd of {SEEDS}",
    )
    axis.legend(fontsize=7, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.12))


def _critical(axis: Any, rate: float, formula: float) -> None:
    axis.axvline(rate, color=GREEN, lw=1.2, label=f"rate at mean 0: {rate:.0f}")
    axis.axvline(formula, color=GREEN, lw=1.2, ls="--", label=f"formula: {formula:.0f}")


def _divergence(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    for (sampler, steps, values), colour in zip(curves_of(config, measured, "divergence"), COLOURS):
        for kind, fmt, text in ((0, "o--", "vanilla"), (1, "s-", "Gaussian")):
            axis.errorbar(
                config.indices,
                values[kind].mean(-1),
                values[kind].std(-1, ddof=1),
                fmt=fmt,
                ms=4,
                lw=1,
                capsize=2,
                color=colour,
                label=f"{TITLES[sampler]}, {steps} steps, {text}",
            )
    _critical(axis, predicted["rate"], predicted["formula"])
    axis.set(
        xlabel="DDPM step index of the start",
        ylabel="KL(prior, frequencies) in nats",
        title="mixture, classes of the samples",
    )
    axis.legend(fontsize=7)


def _images(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    _two(axis, config, measured["image_distance"], "exact score, ")
    title = f"{config.data}, DDIM {config.image_steps} steps: exact score"
    if "network_distance" in measured:
        _two(axis, config, measured["network_distance"], "network, ", ORANGE, SKY)
        title += " and network"
    _critical(axis, float(measured["image_crossing"]), predicted["image_formula"])
    axis.set(
        yscale="log",
        xlabel="DDPM step index of the start",
        ylabel="squared Frechet distance in pixels",
        title=title,
    )
    axis.legend(fontsize=8)


def _image_classes(axis: Any, config: Any, measured: dict) -> None:
    _two(axis, config, measured["image_divergence"])
    axis.set(
        xlabel="DDPM step index of the start",
        ylabel="KL(prior, frequencies) in nats",
        title=f"{config.data}, exact score: classes of the samples",
        ylim=(0, None),
    )
    axis.legend(fontsize=8)


def _two(
    axis: Any, config: Any, values: np.ndarray, name: str = "", first: str = RED, second: str = BLUE
) -> None:
    spread = values.std(-1, ddof=1) if values.shape[-1] > 1 else None
    for kind, colour, fmt, text in ((0, first, "o--", "vanilla"), (1, second, "s-", "Gaussian")):
        axis.errorbar(
            config.indices,
            values[kind].mean(-1),
            None if spread is None else spread[kind],
            fmt=fmt,
            ms=4,
            lw=1,
            capsize=2,
            color=colour,
            label=name + text,
        )
