"""Removing a class: constant negative prompts against a weight set by the class posterior.

Samples of analytic mixtures without one class, by DDPM's sampler with exact scores: unguided, with
a negative prompt of constant weight, with the exact class posterior, and with a posterior that is
tracked along the trajectory (dynamic negative guidance, in its published and in a normalised form).
What is left of the class, the balance of the others, and the distance to the nearest centre are
laid beside the exact values of the data without the class. A constant weight removes the class only
by pushing samples off the data; the dynamic weight does not.

The tracked posterior divides by the variance of the kernel that drew the step. The released code
divides by another one, which is harmless at 1000 steps and ruins the last of 50: the control.

Source: Koulischer et al. 2024 (2410.14398).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from diffjax import guidance, schedules
from diffjax.dynamics import methods
from diffjax.observables import removal
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import number

# centres, standard deviations, weights; the forbidden component comes first. A component of weight
# zero lets all one-dimensional cases share their compiled programs.
CASES: dict[str, tuple[list, list, list]] = {
    "1d2": ([[-1.0], [1.0], [9.0]], [0.25, 0.25, 0.25], [0.5, 0.5, 0.0]),
    "1d3": ([[-2.0], [0.0], [1.5]], [0.3, 0.2, 0.4], [0.25, 0.35, 0.4]),
    "1d3mid": ([[0.0], [-2.0], [1.5]], [0.2, 0.3, 0.4], [0.35, 0.25, 0.4]),
    "2d4": ([[1.5, 0.0], [-1.5, 0.0], [0.0, 1.5], [0.0, -1.5]], [0.3] * 4, [0.1, 0.3, 0.3, 0.3]),
}
TABLE = {  # rows of the report: rule and weight
    "none": ("prompt", 0.0),
    "NP 0.25": ("prompt", 0.25),
    "NP 1": ("prompt", 1.0),
    "exact posterior": ("exact", 1.0),
    "exact, clipped": ("clipped", 1.0),
    "DNG": ("dynamic", 1.0),
    "DNG, normalised": ("normalised", 1.0),
}
REFERENCE = {  # forbidden, KL, distance of the same chains with 8000 samples
    "1d2": {"none": (0.507, 0.707, 0.201), "NP 0.25": (0.357, 0.442, 0.374),
            "NP 1": (0.129, 0.138, 1.71), "exact, clipped": (0.0039, 0.0039, 0.201),
            "DNG": (0.0206, 0.0208, 0.199)},
    "2d4": {"none": (0.103, 0.109, 0.379), "NP 0.25": (0.036, 0.096, 0.676),
            "NP 1": (0.0013, 0.576, 2.77), "exact, clipped": (0.0004, 0.0004, 0.377),
            "DNG": (0.0054, 0.0054, 0.376)},
}  # fmt: skip
QUANTITIES = ("forbidden", "balance", "distance")
WATCHED = 1000  # samples whose tracked posterior is kept
INDICES = (600, 400, 200, 100, 0)
LIMITS = (1e-6, 0.99)


@dataclass(frozen=True)
class Config:
    """Mixtures, samples, seeds, and the weights of the two trade-off curves."""

    cases: tuple[str, ...] = option(tuple(CASES), "mixtures", nargs="+", choices=tuple(CASES))
    samples: int = option(8000, "samples of each run")
    seeds: int = option(4, "runs with independent noise")
    steps: int = option(1000, "steps of DDPM's linear schedule")
    coarse: int = option(50, "steps of the control")
    prompts: tuple[float, ...] = option(
        (0.05, 0.1, 0.25, 0.5, 1.0, 2.0), "weights of the negative prompt", nargs="+", type=float
    )
    dynamics: tuple[float, ...] = option(
        (0.1, 0.25, 0.5, 1.0, 2.0, 4.0), "weights of the dynamic rule", nargs="+", type=float
    )
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {"cases": ("1d2", "1d3"), "samples": 1000, "seeds": 2, "prompts": (0.5, 2.0),
             "dynamics": (0.5,)},
    "quick": {"samples": 3000, "seeds": 3, "prompts": (0.1, 0.25, 0.5, 1.0),
              "dynamics": (0.25, 0.5, 1.0, 2.0)},
    "paper": {"samples": 16_000},
}  # fmt: skip


def model_of(case: str, dtype: str) -> diffjax.Diffusion:
    """The mixture of a case with the process of all of them."""
    centres, spreads, weights = (np.asarray(v, dtype) for v in CASES[case])
    data = diffjax.gaussian_mixture(weights, centres, spreads**2)
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())


def make_rule(kind: str, model: diffjax.Diffusion, prior: float, weight: Any) -> Any:
    """The rule that is meant by a word of `TABLE`, against component 0."""
    if kind == "prompt":
        return guidance.negative_prompt(model, 0, weight)
    if kind in ("exact", "clipped"):
        low, high = LIMITS if kind == "clipped" else (0.0, 1.0)
        return guidance.exact_negative(model, 0, weight, p_min=low, p_max=high)
    if kind == "normalised":
        return guidance.normalised_negative(model, 0, prior=prior, weight=weight)
    released = kind == "dynamic"  # the published table has the released variances
    return guidance.dynamic_negative(
        model, 0, prior=prior, weight=weight, p_min=LIMITS[0], p_max=LIMITS[1],
        bridge_variance=released,
    )  # fmt: skip


def watch(x: jax.Array, t: jax.Array, state: Any) -> Any:
    """The first samples and their tracked posterior, after every step."""
    return x[:WATCHED], state[:WATCHED]


def run(
    key: jax.Array, case: str, kind: str, weight: float, config: Config, steps: int
) -> tuple[jax.Array, Any]:
    """Samples of one rule, and what `watch` saw of a tracked posterior."""
    model = model_of(case, config.dtype)
    rule = make_rule(kind, model, CASES[case][2][0], jnp.asarray(weight, config.dtype))
    # every `spacing`-th step of the schedule, as samplers with fewer steps do
    spacing = max(1, config.steps // steps)
    grid = schedules.backward_grid(schedules.ddpm_linear(config.steps)[::spacing])
    key_start, key_chain = jax.random.split(key)
    x = jax.random.normal(key_start, (config.samples, model.dim), config.dtype)
    tracked = rule.needs_noise
    x, info = diffjax.backward(
        key_chain, model, x, grid, method=methods.ancestral("transition"), guidance=rule,
        observe=watch if tracked else None,
    )  # fmt: skip
    return x, (grid, info.observed, rule) if tracked else None


def quality(case: str, x: jax.Array, dtype: str) -> np.ndarray:
    """``(value, error)`` of forbidden fraction, KL, distance, fractions of the kept classes."""
    model = model_of(case, dtype)
    zero = jnp.zeros((), x.dtype)
    labels = jnp.argmax(model.data.class_log_posterior(x, zero + 1, zero), axis=-1)
    centres, _, weights = CASES[case]
    real = np.flatnonzero(weights)
    kept = [removal.forbidden_fraction(labels, int(k)) for k in real[1:]]
    found = [
        removal.forbidden_fraction(labels, 0),
        removal.class_balance(labels, np.asarray(weights)[real], 0),
        removal.centre_distance(x, np.asarray(centres)[real]),
        *kept,
    ]
    return np.asarray([[float(e.mean) for e in found], [float(e.error) for e in found]])


def errors_of_tracking(case: str, tracked: Any, dtype: str) -> np.ndarray:
    """Root mean square of tracked minus exact posterior after every step, ``(steps,)``."""
    grid, (x, state), rule = tracked
    model = model_of(case, dtype)
    p = guidance.tracked_posterior(rule, state)
    exact = jnp.exp(_log_posterior(model, x[:-1], grid[1:-1].astype(x.dtype)))
    limits = dict(zip(("p_min", "p_max"), LIMITS))
    return np.asarray(removal.tracking_error(p[:-1], exact, **limits), np.float64)


@jax.jit
def _log_posterior(model: diffjax.Diffusion, x: jax.Array, times: jax.Array) -> jax.Array:
    """``log p(0 | x_t)`` of states ``(steps, B, d)`` at their times."""
    process = model.process
    times = times[:, None]
    log_p = model.data.class_log_posterior(x, process.scale(times), process.std(times))
    return log_p[..., 0]


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Rows of the table, both curves and the control, for every case."""
    if config.seeds < 2:
        raise ValueError(f"seeds is {config.seeds}; errors between runs need at least 2")
    measured: dict[str, Any] = {}
    for index, case in enumerate(config.cases):
        key = jax.random.fold_in(jax.random.key(config.seed), index)
        work = partial(_case, key, case, config, session.progress(case))
        measured |= {f"{k}_{case}": v for k, v in session.part(case, work).items()}
    return measured


def _case(key: jax.Array, case: str, config: Config, progress: Any) -> Curves:
    jobs = [(label, *entry, config.steps) for label, entry in TABLE.items()]
    jobs += [(f"NP curve {i}", "prompt", w, config.steps) for i, w in enumerate(config.prompts)]
    jobs += [(f"DNG curve {i}", "dynamic", w, config.steps) for i, w in enumerate(config.dynamics)]
    jobs += [(f"coarse {kind}", kind, 1.0, config.coarse) for kind in ("dynamic", "matched")]
    found: Curves = {}
    for done, (label, kind, weight, steps) in enumerate(jobs):
        seeds = config.seeds if label in TABLE or "coarse" in label else 1
        values, tracking = [], []
        for seed in range(seeds):  # the same noise for all rules
            x, tracked = run(jax.random.fold_in(key, seed), case, kind, weight, config, steps)
            values.append(quality(case, x, config.dtype))
            if tracked is not None and "curve" not in label:
                tracking.append(errors_of_tracking(case, tracked, config.dtype))
        mean, error = np.asarray(values).swapaxes(0, 1)  # (seeds, n) each
        found[label] = np.stack([mean.mean(0), np.sqrt(np.mean(error**2, 0) / seeds)])
        if tracking:
            found[f"{label} tracking"] = np.asarray(tracking)
        if progress is not None:
            progress(done + 1, len(jobs))
    return found


def data_values(case: str, removed: bool) -> np.ndarray:
    """Exact ``(forbidden, KL, distance, kept fractions...)`` of data, by summing over a grid."""
    centres, spreads, weights = (np.asarray(v) for v in CASES[case])
    real = weights > 0
    centres, spreads, weights = centres[real], spreads[real], weights[real]
    dim = centres.shape[1]
    axis = np.arange(-5, 5, 2e-4) if dim == 1 else np.arange(-4, 4, 8e-3)
    points = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), -1).reshape(-1, dim)
    square = np.stack([np.sum((points - m) ** 2, -1) for m in centres])
    density = np.exp(-square / (2 * spreads[:, None] ** 2)) * (weights / spreads**dim)[:, None]
    label = np.argmax(density, axis=0)
    law = density[1:].sum(0) if removed else density.sum(0)
    law /= law.sum()
    shares = np.array([law[label == k].sum() for k in range(len(weights))])
    wanted = weights[1:] / weights[1:].sum()
    balance = np.sum(wanted * np.log(wanted / shares[1:]))
    return np.array([shares[0], balance, law @ np.sqrt(square.min(0)), *shares[1:]])


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact values of the data with and without the class."""
    return {
        f"{name}_{case}": data_values(case, name == "kept")
        for case in config.cases
        for name in ("all", "kept")
    }


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Unguided chains and the exact posterior against the data; what must fail."""
    # fractions of all classes sum to one and the balance is a function of them
    used = [[0, *range(2, 2 + len(np.flatnonzero(CASES[c][2])) - 1)] for c in config.cases]

    def gather(source: dict[str, Any], name: str, row: int | None = None) -> np.ndarray:
        arrays = (source[f"{name}_{case}"] for case in config.cases)
        return np.concatenate([(a if row is None else a[row])[i] for a, i in zip(arrays, used)])

    floor = 1 / (config.samples * config.seeds)
    found: list[Comparison] = []
    for label, row, law, control in (
        ("unguided chains, data", "none", "all", False),
        ("exact posterior, data without the class", "exact posterior", "kept", False),
        ("negative prompt 0.25, data without the class", "NP 0.25", "kept", True),
    ):
        value, error = gather(measured, row, 0), gather(measured, row, 1)
        found.append(
            compare(label, value, error, gather(predicted, law), floor=floor, control=control)
        )
    last = {
        kind: np.stack([measured[f"coarse {kind} tracking_{case}"][:, -1] for case in config.cases])
        for kind in ("dynamic", "matched")
    }
    spread = np.hypot(*(v.std(1, ddof=1) for v in last.values())) / np.sqrt(config.seeds)
    label = f"tracking at {config.coarse} steps, the bridge's variance in place of the sampler's"
    found.append(
        compare(label, last["dynamic"].mean(1), spread, last["matched"].mean(1), control=True)
    )
    return found


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """The table beside the published one, tracking errors, and both trade-off curves."""
    from experiments.negative_guidance_figure import draw

    found = comparisons(config, measured, predicted)
    rows, summary = [], {}
    for case in config.cases:
        entry: dict[str, Any] = {}
        for label in TABLE:
            value, error = measured[f"{label}_{case}"]
            texts = [number(v, e) for v, e in zip(value[:3], error[:3])]
            reference = REFERENCE.get(case, {}).get(label)
            beside = f"  (8000 samples: {reference})" if reference else ""
            rows.append((f"{case}, {label}", " / ".join(texts) + beside))
            entry[label] = {
                name: {"value": v, "error": e} for name, v, e in zip(QUANTITIES, value, error)
            }
        for label in ("DNG", "DNG, normalised"):
            tracking = measured[f"{label} tracking_{case}"].mean(0)
            at = {i: float(tracking[len(tracking) - i]) for i in INDICES if 0 < i < len(tracking)}
            entry[label]["tracking_rms"] = {str(i): v for i, v in at.items()}
            texts = [f"{v:.3f} at index {i}" for i, v in at.items()]
            rows.append((f"{case}, {label}, tracking rms", ", ".join(texts)))
        entry["coarse_tracking_rms"] = {
            kind: float(measured[f"coarse {kind} tracking_{case}"][:, -1].mean())
            for kind in ("dynamic", "matched")
        }
        summary[case] = entry
    curves, axes = _arrays(config, measured, predicted)
    return Report(
        finding=_finding(config, found, summary, predicted), table=rows, summary=summary,
        curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(
    config: Config, found: list[Comparison], summary: dict[str, Any], predicted: dict[str, Any]
) -> str:
    case = config.cases[0]
    entry, normal = summary[case], float(predicted[f"kept_{case}"][2])
    prompt, dynamic = (
        {name: entry[label][name]["value"] for name in QUANTITIES} for label in ("NP 1", "DNG")
    )
    before = entry["none"]["forbidden"]["value"]
    coarse = entry["coarse_tracking_rms"]
    return (
        f"On {case} a constant negative prompt of weight 1 lowers the forbidden fraction from "
        f"{before:.3f} to {prompt['forbidden']:.3f} by leaving the data (distance "
        f"{prompt['distance'] / normal:.1f} times normal), the tracked weight to "
        f"{dynamic['forbidden']:.3f} without ({dynamic['distance'] / normal:.2f} times normal); "
        f"the exact posterior gives the data without the class (reduced chi-square "
        f"{found[1].chi_square:.2f} over {found[1].points} points); with the bridge's variance "
        f"at {config.coarse} steps the tracked posterior is off by {coarse['dynamic']:.2f}, with "
        f"the sampler's by {coarse['matched']:.3f}."
    )


def _arrays(
    config: Config, measured: dict[str, Any], predicted: dict[str, Any]
) -> tuple[Curves, dict[str, str]]:
    order = "forbidden fraction, KL, distance, fractions of the kept classes"
    curves: Curves = {}
    axes: dict[str, str] = {}
    for name, values in measured.items():
        label, _, case = name.rpartition("_")
        key = name.replace(" ", "_").replace(",", "")
        curves[key] = np.asarray(values)
        axes[key] = f"{case}, {label}: (value, error) of {order}"
        if "tracking" in label:
            axes[key] = f"{case}, {label}: rms of tracked minus exact p after each step (seeds, S)"
    for name, values in predicted.items():
        label, _, case = name.rpartition("_")
        curves[f"data_{name}"] = np.asarray(values)
        axes[f"data_{name}"] = f"{case}, {label} data, exact: {order}"
    return curves, axes
