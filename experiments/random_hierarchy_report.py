"""Comparisons, crossings and the report of the experiment ``random_hierarchy``."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.comparison import Comparison, compare
from experiments.random_hierarchy_figure import draw
from experiments.random_hierarchy_theory import REAL
from experiments.session import Curves, Report
from experiments.style import number

NAMES = {"masking": "masking", "corruption": "uniform corruption", "gaussian": "Gaussian, time t"}
BOOTSTRAPS = 400
PUBLISHED = {"masking": 0.27, "corruption": 0.16, "gaussian": 0.07}
"""Crossings for 32 symbols, 8 synonyms and pairs."""


def report(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Where the curves cross, beside the transition of deep hierarchies."""
    found = comparisons(config, measured, predicted)
    summary: dict[str, Any] = {
        "map_threshold_belief": float(predicted["map_threshold"][0]),
        "map_threshold_noise": float(predicted["map_threshold"][1]),
    }
    rows = []
    shallow, deep = config.depths[-2:] if len(config.depths) < 3 else config.depths[-3::2]
    for channel in REAL:
        value, error = crossing(config, measured, channel, shallow, deep)
        mean, spread = predicted[f"transition_{channel}"]
        same = theory_crossing(config, measured, predicted, channel, shallow, deep)
        summary[channel] = {
            "crossing": value, "crossing_error": error, "depths": [shallow, deep],
            "crossing_of_populations": same,
            "transition": mean, "transition_error": spread,
            "published_crossing": PUBLISHED[channel] if is_published(config) else None,
        }  # fmt: skip
        rows.append(
            (
                NAMES[channel],
                f"L = {shallow} and {deep} cross at {number(value, error)}, populations of the "
                f"same grammars at {number(same)}; deep random hierarchies lose the class at "
                f"{number(mean, spread)}",
            )
        )
    epsilon = summary["map_threshold_noise"]
    rows.append(("epsilon process", f"threshold of the mean-field map {number(epsilon)}"))
    counts = measured["chain_classes"]
    summary["chain"] = {
        "valid_strings": float(measured["chain_valid"][-1]),
        "valid_strings_euler_maruyama": float(measured["sde_valid"]),
        "classes": int((counts > 0).sum()),
    }
    rows.append(
        (
            "backward SDE",
            f"{counts.sum()} of {config.chains} samples obey the grammar, by Euler-Maruyama with "
            f"the score {measured['sde_classes'].sum()}",
        )
    )
    curves, axes = arrays(config, measured, predicted)
    return Report(
        finding=_finding(summary, found), table=rows, summary=summary, curves=curves, axes=axes,
        comparisons=found, figure=lambda: draw(config, measured, predicted, summary),
    )  # fmt: skip


def is_published(config: Any) -> bool:
    """Whether the grammar is the one whose crossings are known."""
    return (config.symbols, config.synonyms) == (32, 8)


def comparisons(config: Any, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Nishimori's identity, theory given the grammars, the backward SDE, and what is wrong."""
    found = []
    labels = [(channel, depth) for channel in REAL for depth in config.depths]
    for level, name in ((0, "class"), (-1, "leaves")):
        gap = [_paired(measured, f"{c}_L{depth}", "belief", level) for c, depth in labels]
        found.append(_from_pairs(f"{name} survive as often as they are believed", gap))
    gap = [_paired(measured, f"{c}_L{depth}", "below", -1) for c, depth in labels]
    found.append(_from_pairs("leaves, without the messages from above", gap, control=True))
    values = [belief(measured, f"{c}_L{depth}") for c, depth in labels]
    expected = [theory_belief(config, predicted, c, depth) for c, depth in labels]
    mean, error = (np.concatenate([v[k] for v in values]) for k in (0, 1))
    theory, own = (np.concatenate([v[k] for v in expected]) for k in (0, 1))
    error = np.hypot(error, own)
    found.append(compare("belief in the class, population given the grammars", mean, error, theory))
    for name, text in (("chain", "exact chain"), ("sde", "Euler-Maruyama")):
        label = f"classes of the backward SDE are alike, {text}"
        found.append(_alike(label, measured[f"{name}_classes"]))
    kept, chance = measured["chain_kept"], predicted["chain"]
    spread = np.sqrt(chance[0] * (1 - chance[0]) / config.chains)
    found.append(
        compare("class kept by U-turns of the backward SDE", kept,
                np.hypot(spread, chance[1]), chance[0])
    )  # fmt: skip
    masked = [belief(measured, f"masking_L{depth}") for depth in config.depths]
    found.append(
        compare(
            "masking, by the map of the epsilon process",
            *(np.concatenate([m[k] for m in masked]) for k in (0, 1)),
            np.concatenate([predicted[f"map_masking_L{depth}"] for depth in config.depths]),
            control=True,
        )
    )
    name = f"process_L{config.depths[-2]}"
    values_, spread = over_grammars(measured[f"belief_{name}"][..., 0])
    found.append(
        compare("epsilon process, mean-field map", values_, spread, predicted["map_process"],
                exact=False)
    )  # fmt: skip
    return found


def _paired(measured: dict, name: str, against: str, level: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over all strings of survival minus belief at each noise, and its error."""
    gap = measured[f"survives_{name}"][..., level] - measured[f"{against}_{name}"][..., level]
    flat = gap.reshape(len(gap), -1).astype(np.float64)
    return flat.mean(1), flat.std(1, ddof=1) / np.sqrt(flat.shape[1])


def _from_pairs(name: str, gaps: list, control: bool = False) -> Comparison:
    mean, error = (np.concatenate([g[k] for g in gaps]) for k in (0, 1))
    return compare(name, mean, error, np.zeros_like(mean), control=control)


def _alike(name: str, count: np.ndarray) -> Comparison:
    """Counts of the classes of valid samples against equal chances."""
    chance, total = 1 / len(count), count.sum()
    error = np.full(len(count), np.sqrt(chance * (1 - chance) / total))
    return compare(name, count / total, error, np.full(len(count), chance))


def belief(measured: dict, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Belief in the true class at each noise, and its error for these grammars."""
    values = measured[f"belief_{name}"][..., 0].astype(np.float64)  # (noises, grammars, strings)
    within = values.var(axis=-1, ddof=1) / values.shape[-1]
    return values.mean((1, 2)), np.sqrt(within.sum(-1)) / values.shape[1]


def over_grammars(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of ``(noises, grammars, strings)`` and its error between grammars."""
    each = values.astype(np.float64).mean(-1)
    return each.mean(-1), each.std(-1, ddof=1) / np.sqrt(each.shape[-1])


def theory_belief(
    config: Any, predicted: dict, channel: str, depth: int
) -> tuple[np.ndarray, np.ndarray]:
    """Belief of the populations at each noise, mean over grammars, and its error over pools."""
    pools = predicted[f"beliefs_{channel}"][..., depth].mean(-1)  # (pools, noises)
    # the error of one noise from a few pools is poorly known: all noises of a depth share it
    error = np.sqrt(pools.var(0, ddof=1).mean() / len(pools))
    return pools.mean(0), np.full(pools.shape[1], error)


def crossing(
    config: Any, measured: dict, channel: str, shallow: int, deep: int
) -> tuple[float, float]:
    """Noise at which the beliefs of two depths are equal, and its bootstrap error over grammars.

    The grammars of both depths share their lowest levels, so that the difference is paired. It
    is fitted by a parabola in the noise; resamples without a root in the range are left out.
    """
    grid = measured[f"noise_{channel}_L{deep}"]
    gap = measured[f"belief_{channel}_L{deep}"][..., 0].mean(-1) - measured[
        f"belief_{channel}_L{shallow}"
    ][..., 0].mean(-1)
    rng = np.random.default_rng(config.seed)
    grammars = gap.shape[1]
    draws = [gap[:, rng.integers(0, grammars, grammars)].mean(1) for _ in range(BOOTSTRAPS)]
    roots = np.array([_root(grid, d) for d in draws])
    return _root(grid, gap.mean(1)), float(np.nanstd(roots))


def theory_crossing(
    config: Any, measured: dict, predicted: dict, channel: str, shallow: int, deep: int
) -> float:
    """The same noise for the populations given the grammars."""
    curves = predicted[f"beliefs_{channel}"].mean((0, 2))  # (noises, L + 1), leaves first
    grid = measured[f"noise_{channel}_L{deep}"]
    return _root(grid, curves[:, deep] - curves[:, shallow])


def _root(grid: np.ndarray, gap: np.ndarray) -> float:
    """Where the fitted difference falls through zero, inside the range; NaN if nowhere."""
    unit = (grid - grid[0]) / (grid[-1] - grid[0])
    fit = np.polynomial.Polynomial.fit(unit, gap, 2)
    slope = fit.deriv()
    roots = [float(r.real) for r in fit.roots() if abs(r.imag) < 1e-12 and slope(r.real) < 0]
    inside = [r for r in roots if 0 <= r <= 1]
    return float(grid[0] + inside[0] * (grid[-1] - grid[0])) if inside else float("nan")


def _finding(summary: dict, found: list[Comparison]) -> str:
    texts = []
    for channel in REAL:
        entry = summary[channel]
        here = number(entry["crossing"], entry["crossing_error"])
        deep = number(entry["transition"], entry["transition_error"])
        texts.append(f"{NAMES[channel].split(',')[0]} {here} (deep random hierarchies {deep})")
    return (
        f"The class of a random hierarchy survives a U-turn up to a sharp noise, {', '.join(texts)}"
        f", while its symbols fade smoothly; survival equals posterior belief (reduced chi-square "
        f"{found[0].chi_square:.2f} over {found[0].points} points), and the threshold "
        f"{number(summary['map_threshold_noise'])} of the epsilon process belongs to no real "
        "channel."
    )


def arrays(config: Any, measured: dict, predicted: dict) -> tuple[Curves, dict[str, str]]:
    """Curves of the run and what they are."""
    curves: Curves = {}
    axes: dict[str, str] = {}

    def put(name: str, values: Any, text: str) -> None:
        curves[name], axes[name] = np.asarray(values), text

    for channel in REAL:
        put(f"noise_{channel}", measured[f"noise_{channel}_L{config.depths[0]}"],
            f"{NAMES[channel]}: noises (N,)")  # fmt: skip
        for depth in config.depths:
            name = f"{channel}_L{depth}"
            for key, text in (
                ("survives", "survival"),
                ("belief", "posterior belief in the truth"),
            ):
                levels = [
                    over_grammars(measured[f"{key}_{name}"][..., i]) for i in range(depth + 1)
                ]
                put(f"{key}_{name}", np.stack([m for m, _ in levels], -1),
                    f"{text} by level, root first (N, L + 1)")  # fmt: skip
                put(f"{key}_error_{name}", np.stack([e for _, e in levels], -1),
                    f"standard error of {key} between grammars")  # fmt: skip
            value, _ = theory_belief(config, predicted, channel, depth)
            put(f"theory_{name}", value, "belief in the class, population given the grammars (N,)")
    depth = config.depths[-2]
    put("noise_process", measured[f"noise_process_L{depth}"], "noises of the epsilon process")
    mean, error = over_grammars(measured[f"belief_process_L{depth}"][..., 0])
    put("belief_process", mean, f"belief in the class, L = {depth}")
    put("belief_error_process", error, "its standard error between grammars")
    put("map_process", predicted["map_process"], "the same by the mean-field map")
    for name, text in (
        ("chain_valid", "share of valid strings along the backward SDE, by its time grid"),
        ("sde_valid", "share of valid strings by Euler-Maruyama"),
        ("sde_classes", "valid strings by Euler-Maruyama in each class"),
        ("chain_classes", "samples of the backward SDE in each class"),
        ("chain_kept", "share of U-turns of the backward SDE that keep the class, by time"),
    ):
        put(name, measured[name], text)
    put("chain_theory", predicted["chain"][0], "the same by the population given the grammar")
    return curves, axes
