"""The figure of the experiment ``random_hierarchy``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.random_hierarchy_theory import BRANCHING
from experiments.style import BLACK, BLUE, COLOURS, GREEN, RED, line, points
from theory.hierarchy import iterated_belief

LABELS = {
    "masking": r"masking probability $\epsilon$",
    "corruption": r"corruption probability $\epsilon$",
    "gaussian": "Ornstein-Uhlenbeck time $t$",
}
TITLES = {
    "masking": "class, masking",
    "corruption": "class, uniform corruption",
    "gaussian": "class, Gaussian noise",
}
MARKERS = ("o", "s", "^", "D", "v", "P")


def draw(config: Any, measured: dict, predicted: dict, summary: dict) -> Any:
    """Class survival of three channels, all levels of one, the map's threshold, backward SDE."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(14, 8.5), layout="constrained")
    for axis, channel in zip(panels[0], LABELS):
        _class(axis, config, measured, predicted, channel)
        axis.set(xlabel=LABELS[channel], title=TITLES[channel])
    panels[0, 0].set_ylabel("class unchanged by a U-turn")
    panels[0, 0].legend(fontsize=8)
    _levels(panels[1, 0], config, measured)
    _process(panels[1, 1], config, measured, predicted, summary)
    _chain(panels[1, 2], config, measured, predicted)
    return figure


def _grammar_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    each = values.astype(np.float64).mean(-1)
    return each.mean(-1), each.std(-1, ddof=1) / np.sqrt(each.shape[-1])


def _class(axis: Any, config: Any, measured: dict, predicted: dict, channel: str) -> None:
    for i, depth in enumerate(config.depths):
        name, colour = f"{channel}_L{depth}", COLOURS[i % len(COLOURS)]
        grid = measured[f"noise_{name}"]
        mean, error = _grammar_mean(measured[f"survives_{name}"][..., 0])
        points(axis, grid, mean, error, f"L = {depth}", colour, MARKERS[i % len(MARKERS)])
        theory = predicted[f"beliefs_{channel}"][..., depth].mean((0, 2))
        line(axis, grid, theory, "population" if i == 0 else "_nolegend_", colour)
    mean, error = predicted[f"transition_{channel}"]
    axis.axvspan(mean - error, mean + error, color=BLACK, alpha=0.2, lw=0)
    axis.axvline(mean, color=BLACK, lw=1, ls="--", label=r"transition, $L\to\infty$")
    axis.set_ylim(0, 1)


def _levels(axis: Any, config: Any, measured: dict) -> None:
    """Every level of the deepest trees under masking."""
    depth = config.depths[-1]
    name = f"masking_L{depth}"
    grid = measured[f"noise_{name}"]
    shown = sorted({0, 1, 2, depth // 2, depth - 1, depth})
    for i, level in enumerate(shown):
        colour = COLOURS[i % len(COLOURS)]
        mean, error = _grammar_mean(measured[f"survives_{name}"][..., level])
        label = {0: "class", depth: "leaves"}.get(level, f"level {level}")
        points(axis, grid, mean, error, label, colour, MARKERS[i % len(MARKERS)])
        belief, _ = _grammar_mean(measured[f"belief_{name}"][..., level])
        line(axis, grid, belief, "mean belief" if i == 0 else "_nolegend_", colour)
    axis.set(
        xlabel=LABELS["masking"], ylabel="symbols unchanged by a U-turn", ylim=(0, 1),
        title=f"all levels, L = {depth}",
    )  # fmt: skip
    axis.legend(fontsize=8, ncols=2, loc="lower left")


def _process(axis: Any, config: Any, measured: dict, predicted: dict, summary: dict) -> None:
    depth = config.depths[-2]
    grid = measured[f"noise_process_L{depth}"]
    mean, error = _grammar_mean(measured[f"belief_process_L{depth}"][..., 0])
    points(axis, grid, mean, error, rf"$\epsilon$ process, L = {depth}", BLUE)
    fine = np.linspace(grid[0], grid[-1], 200)
    curve = iterated_belief(fine, depth, config.symbols, config.synonyms, BRANCHING)[:, -1]
    line(axis, fine, np.asarray(curve), "its mean-field map", BLUE)
    masked = f"masking_L{depth}"
    mean, error = _grammar_mean(measured[f"survives_{masked}"][..., 0])
    points(axis, measured[f"noise_{masked}"], mean, error, f"masking, L = {depth}", RED, "s")
    line(
        axis, measured[f"noise_{masked}"], predicted[f"map_masking_L{depth}"],
        "map with masking (wrong)", RED, "--",
    )  # fmt: skip
    threshold = summary["map_threshold_noise"]
    if np.isfinite(threshold):
        axis.axvline(threshold, color=BLACK, lw=1, ls=":", label=r"$\epsilon_*$ of the map")
    axis.set(
        xlabel=r"$\epsilon$", ylabel="class unchanged, belief", ylim=(0, 1.02),
        title="the map's threshold is no channel's",
    )  # fmt: skip
    axis.legend(fontsize=8, loc="center", bbox_to_anchor=(0.47, 0.2))


def _chain(axis: Any, config: Any, measured: dict, predicted: dict) -> None:
    from experiments.random_hierarchy import CHAIN_TIMES

    times = np.array(CHAIN_TIMES)
    shown = np.where(times > 0, times, 0.5 * times[times > 0].min())
    axis.plot(
        shown, measured["chain_valid"], "o-", color=GREEN, ms=4, lw=1,
        label="valid strings along the backward SDE",
    )  # fmt: skip
    kept, t = measured["chain_kept"], measured[f"noise_gaussian_L{config.depths[0]}"]
    error = np.sqrt(kept * (1 - kept) / config.chains)
    points(axis, t, kept, error, "class kept by its U-turn", BLUE, "s")
    line(axis, t, predicted["chain"][0], "population", BLUE)
    axis.set_xscale("log")
    axis.set(
        xlabel="Ornstein-Uhlenbeck time $t$ (leftmost: 0)", ylabel="share of trajectories",
        ylim=(-0.02, 1.19), title=f"backward SDE, L = {config.chain_depth}",
    )  # fmt: skip
    axis.legend(fontsize=8, loc="upper right")
