"""Thermodynamic test of a trained score: the entropy of its paths against the noising chain.

A perceptron is trained on samples of a known mixture. At each noise level, states of the exact law
are moved by one Euler step of the reverse SDE, and the mean of the log ratio of the pair of states
to the same pair under the noising chain is measured: a relative entropy in nats, never negative,
which vanishes with the step for the exact score only. It needs densities of the levels, no score.

For the exact score its value at a finite step is known by quadrature, and so is that of a score
that is 5% too large. It has a part of second order in the step and of first order in the error,
which at coarse levels outweighs the error of such a score: the known scores are tested at fine
levels. A score with the error e(x) exceeds the exact one by

    gap = dt E|e|^2 + (value of exact formula on pairs that the tested score made, less exact),

exactly at any step: the first term is Girsanov's, the second is of higher order in dt. Both are
measured on independent states, the first from the squared difference of the scores. The gap of all
levels must fall with training; that of one coarse level can be negative.

Source: Yu, Huang 2025 (2405.11932); Ho, Jain, Abbeel 2020 (2006.11239).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

import diffjax
from diffjax.diffusion import score_at, score_model
from diffjax.observables import thermodynamics
from diffjax.observables.estimates import mean_and_error
from experiments import learned
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, GREEN, ORANGE, RED, line, number, points
from theory.transfer_operator import pair_entropy

BLOCKS = 8


@dataclass(frozen=True)
class Config:
    """Law of the data, training, noise levels, and sizes of the simulation."""

    dim: int = option(8, "dimension")
    mean: float = option(2.0, "norm of a centre")
    variance: float = option(0.4, "variance of each Gaussian")
    examples: int = option(50_000, "samples that the network is trained on")
    looks: tuple[int, ...] = option(
        (50, 200, 800, 3200), "training steps at which the network is tested", nargs="+", type=int
    )
    width: int = option(64, "width of the perceptron")
    learning_rate: float = option(3e-3, "learning rate")
    levels: int = option(48, "noise levels of the networks, a multiple of 8")
    fine_levels: int = option(256, "noise levels of the known scores, a multiple of 8")
    t_min: float = option(0.02, "OU time of the end of the last step")
    t_max: float = option(2.0, "OU time of the first noise level")
    excess: float = option(0.05, "relative error of the score in the control")
    pairs: int = option(16_000, "pairs of states at each level")
    fine_pairs: int = option(40_000, "pairs of states at each level of the known scores")
    seed: int = option(0, "seed of every random number")


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "dim": 4, "examples": 5000, "looks": (40, 160, 640), "width": 32, "levels": 24,
        "pairs": 4000, "fine_levels": 256, "fine_pairs": 10_000,
    },
    "quick": {},
    "paper": {"looks": (50, 200, 800, 3200, 12_800, 51_200), "width": 128, "levels": 96,
              "examples": 500_000, "pairs": 100_000, "fine_levels": 1024, "fine_pairs": 200_000},
}  # fmt: skip


def checked(config: Config) -> None:
    """Refuse levels that the network does not know, and training lengths without an order."""
    if not learned.T_MIN <= config.t_min < config.t_max <= learned.T_MAX:
        raise ValueError(
            f"need {learned.T_MIN:g} <= t_min < t_max <= {learned.T_MAX:g}, the trained levels, "
            f"got {config.t_min:g} and {config.t_max:g}"
        )
    if len(config.looks) < 2 or list(config.looks) != sorted(set(config.looks)):
        raise ValueError(f"looks must be two or more that increase, got {config.looks}")
    for name in ("levels", "fine_levels"):
        if getattr(config, name) % BLOCKS:
            raise ValueError(f"{name} is {getattr(config, name)}, not a multiple of {BLOCKS}")


def times_of(config: Config, levels: int | None = None) -> np.ndarray:
    """Decreasing OU times, even in the square root: small steps where the score is steep."""
    levels = config.levels if levels is None else levels
    return np.linspace(np.sqrt(config.t_max), np.sqrt(config.t_min), levels + 1) ** 2


def blocks(values: np.ndarray) -> np.ndarray:
    """Sums over neighbouring levels, in `BLOCKS` blocks of equally many."""
    return values.reshape(*values.shape[:-1], BLOCKS, -1).sum(-1)


def block_cells(cells: np.ndarray) -> np.ndarray:
    """Means and errors ``(2, L)`` of independent levels, summed in blocks."""
    return np.stack([blocks(cells[0]), np.sqrt(blocks(cells[1] ** 2))])


def model_of(config: Config) -> diffjax.Diffusion:
    """The mixture, with centres along all axes."""
    centre = np.full(config.dim, config.mean / np.sqrt(config.dim), np.float32)
    data = diffjax.gaussian_mixture(
        [0.5, 0.5], np.stack([centre, -centre]), np.float32(config.variance)
    )
    return diffjax.Diffusion(data, diffjax.ornstein_uhlenbeck())


def _scaled(factor: jax.Array, model: Any, x: jax.Array, t: jax.Array) -> jax.Array:
    return factor.astype(x.dtype) * score_at(model, x, t)


def with_factor(model: Any, factor: float) -> Any:
    """The score with a relative error; one program for all factors."""
    return score_model(Partial(_scaled, jnp.asarray(factor), model), model.process)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """The exact score and one that is too large; the network after every number of steps."""
    checked(config)
    key_known, key_data, key_looks = jax.random.split(jax.random.key(config.seed), 3)
    known = session.part("known", lambda: _known(key_known, config))
    networks = session.part("networks", lambda: _networks(key_data, key_looks, config, session))
    fine = times_of(config, config.fine_levels)
    return {"times": times_of(config), "fine_times": fine} | known | networks


def _known(key: jax.Array, config: Config) -> Curves:
    """``(2, L)`` of the exact score and of one that is too large, on independent pairs."""
    model, times = model_of(config), times_of(config, config.fine_levels)
    found = [
        thermodynamics.score_test(
            k, model, times, config.fine_pairs, drift=with_factor(model, factor)
        )
        for k, factor in zip(jax.random.split(key), (1.0, 1 + config.excess))
    ]
    return {name: np.stack(values) for name, values in zip(("exact", "too_large"), found)}


def _networks(key_data: jax.Array, key: jax.Array, config: Config, session: Session) -> Curves:
    """Gaps, squared errors, remainders ``(looks, 2, L)``, and losses."""
    model, times = model_of(config), times_of(config)
    data = np.asarray(model.data.sample(key_data, config.examples))
    steps = learned.denoisers(
        data, (1, 1, config.dim), config.looks, width=config.width,
        learning_rate=config.learning_rate, seed=config.seed,
        progress=session.progress("training"),
    )  # fmt: skip
    update = session.progress("testing")
    rows, losses = [], []
    for i, (network, loss) in enumerate(steps):
        keys = jax.random.split(jax.random.fold_in(key, i), 3)
        settings = model, times, config.pairs
        gap = thermodynamics.score_gap(keys[0], *settings, drift=network)
        squared = _squared_error(keys[1], model, network, jnp.asarray(times[:-1]), config.pairs)
        rest = thermodynamics.score_gap(keys[2], *settings, drift=model, simulated=network)
        rows.append([np.stack(part) for part in (gap, squared, rest)])
        losses.append(float(np.mean(loss[-max(1, len(loss) // 4) :])))
        if update is not None:
            update(i + 1, len(config.looks))
    gaps, squared_errors, rests = (np.stack([row[j] for row in rows]) for j in range(3))
    return {
        "gap": gaps, "squared_error": squared_errors, "rest": rests, "losses": np.asarray(losses),
    }  # fmt: skip


@partial(jax.jit, static_argnames="n")
def _squared_error(key: jax.Array, model: Any, network: Any, times: jax.Array, n: int) -> Any:
    """``E|s - F|^2`` at each time."""

    def level(item: tuple[jax.Array, jax.Array]) -> Any:
        i, t = item
        x = model.sample(jax.random.fold_in(key, i), t, n)
        t = t.astype(x.dtype)
        error = score_at(network, x, t) - score_at(model, x, t)
        return mean_and_error(jnp.sum(jnp.square(error), axis=-1))

    return jax.lax.map(level, (jnp.arange(times.shape[0]), times))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Values of both known scores by quadrature, one step from every level."""
    t, s = measured["fine_times"][:-1], measured["fine_times"][1:]
    factor = np.asarray([1, 1 + config.excess])[:, None]
    along, across = (
        np.asarray(pair_entropy(t, s, mean, config.variance, factor=factor))
        for mean in (np.full_like(factor, config.mean), np.zeros_like(factor))
    )
    exact, too_large = along + (config.dim - 1) * across
    return {"exact": exact, "too_large": too_large}


def expected(measured: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gap that the squared error of the score and the remainder give, error, and first term."""
    dt = -np.diff(measured["times"])
    squared, rest = measured["squared_error"], measured["rest"]
    first = dt * squared[:, 0]
    return first + rest[:, 0], np.hypot(dt * squared[:, 1], rest[:, 1]), first


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Known scores, networks against their squared errors; what must be seen as wrong."""
    gap, gap_error = measured["gap"][:, 0].ravel(), measured["gap"][:, 1].ravel()
    theirs, error, first = (part.ravel() for part in expected(measured))
    both = np.hypot(gap_error, error)
    last = measured["gap"][-1]
    exact, wrong = (block_cells(measured[name]) for name in ("exact", "too_large"))
    known = {name: blocks(predicted[name]) for name in ("exact", "too_large")}
    found: list[Comparison] = [
        compare("exact score by level: quadrature", *exact, known["exact"]),
        compare("score too large by level: quadrature", *wrong, known["too_large"]),
        compare("networks: gap, squared error of the score", gap, both, theirs),
        compare("networks: gap, dt E|e|^2 alone", gap, both, first, exact=False),
        compare("score too large, value of the exact score", *wrong, known["exact"],
                control=True),
        compare("networks: gap, half of the squared error", gap, both, theirs - first / 2,
                control=True),
        compare("network after all steps: no gap", *last, 0 * last[0], control=True),
    ]  # fmt: skip
    return found


def total(cells: np.ndarray) -> tuple[float, float]:
    """Sum over independent levels of ``(2, L)``, and its error."""
    return float(cells[0].sum()), float(np.sqrt(np.sum(cells[1] ** 2)))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Relative entropies of all levels together, by training length."""
    found = comparisons(config, measured, predicted)
    rows, summary = [], {}
    for name, label in (("exact", "exact score"), ("too_large", "score too large")):
        value, error = total(measured[name])
        theory = float(predicted[name].sum())
        z = (value - predicted["exact"].sum()) / error
        summary[name] = {"value": value, "error": error, "theory": theory, "z": float(z)}
        text = f"{number(value, error)} nats, theory {theory:.5f}, {z:.1f} s.e. from exact"
        rows.append((f"{label}, all levels", text))
    theirs, error, _ = expected(measured)
    summary["networks"] = []
    for i, steps in enumerate(config.looks):
        value, own = total(measured["gap"][i])
        other, other_error = total(np.stack([theirs[i], error[i]]))
        summary["networks"].append(
            {"steps": steps, "gap": value, "error": own, "z": value / own, "expected": other,
             "expected_error": other_error, "loss": float(measured["losses"][i])}
        )  # fmt: skip
        text = (
            f"gap {number(value, own)} nats, by the error of the score "
            f"{number(other, other_error)}, {value / own:.0f} s.e. from 0"
        )
        rows.append((f"network after {steps} steps", text))
    axes = {
        "times": "OU times of the levels, decreasing (L + 1,)",
        "fine_times": "OU times of the levels of the known scores, decreasing (M + 1,)",
        "exact": "relative entropy of pairs in nats, exact score, and error (2, M)",
        "too_large": "the same of a score that is too large (2, M)",
        "exact_theory": "the exact score by quadrature (M,)",
        "gap": "excess of networks over the exact score in nats, and error (looks, 2, L)",
        "squared_error": "squared error of the score of networks, and error (looks, 2, L)",
        "rest": "excess of the exact formula on pairs made by networks, and error (looks, 2, L)",
        "losses": "mean training loss before each look (looks,)",
    }
    curves: Curves = measured | {"exact_theory": predicted["exact"]}
    return Report(
        finding=_finding(config, summary), table=rows, summary=summary,
        curves={name: curves[name] for name in axes}, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted),
    )  # fmt: skip


def _finding(config: Config, summary: dict[str, Any]) -> str:
    first, last = summary["networks"][0], summary["networks"][-1]
    exact, wrong = summary["exact"], summary["too_large"]
    return (
        f"Over {config.fine_levels} levels from t = {config.t_max:g} to {config.t_min:g} the exact "
        f"score in d = {config.dim} is irreversible against the noising chain by "
        f"{number(exact['value'], exact['error'])} nats, the {exact['theory']:.4f} of its finite "
        f"steps, and one that is {100 * config.excess:g}% too large is told from it at "
        f"{wrong['z']:.0f} s.e.; the excess of a perceptron falls from "
        f"{number(first['gap'], first['error'])} nats after {first['steps']} training steps to "
        f"{number(last['gap'], last['error'])} after {last['steps']}, where the error of its score "
        f"gives {number(last['expected'], last['expected_error'])}."
    )


def draw(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Any:
    """Known scores and networks by noise level, and totals against training."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 3, figsize=(15, 4.8), layout="constrained")
    _draw_known(panels[0], config, measured, predicted)
    _draw_levels(panels[1], config, measured)
    _draw_training(panels[2], config, measured, predicted)
    return figure


def _draw_known(axis: Any, config: Config, measured: Any, predicted: Any) -> None:
    times, dt = measured["fine_times"][:-1], -np.diff(measured["fine_times"])
    for name, label, colour, marker in (
        ("exact", "exact score", GREEN, "o"),
        ("too_large", f"{config.excess:.0%} too large", RED, "s"),
    ):
        line(axis, times, predicted[name] / dt, f"{label}, quadrature", colour)
        value, error = block_cells(measured[name]) / blocks(dt)
        middle = np.exp(blocks(np.log(times)) * BLOCKS / len(times))
        points(axis, middle, value, error, f"{label}, simulation", colour, marker)
    axis.axhline(0, color=BLACK, lw=0.6)
    axis.set(
        xscale="log",
        xlabel="Ornstein-Uhlenbeck time $t$ of the level",
        ylabel="relative entropy per unit of $t$ (nats)",
        title=f"known scores, d = {config.dim}, {config.fine_levels} levels",
    )
    axis.legend(fontsize=8)


def _draw_levels(axis: Any, config: Config, measured: Any) -> None:
    times, dt = measured["times"][:-1], -np.diff(measured["times"])
    theirs, _, _ = expected(measured)
    middle = np.exp(blocks(np.log(times)) * BLOCKS / len(times))
    for i, steps in enumerate(config.looks):
        colour = COLOURS[i % len(COLOURS)]
        line(axis, times, theirs[i] / dt, "_nolegend_", colour)
        value, error = block_cells(measured["gap"][i]) / blocks(dt)
        points(axis, middle, value, error, f"{steps} steps", colour)
    axis.plot([], [], color=BLACK, label="by the error of the score")
    axis.set_ylim(0.3 * blocks(theirs[-1]).min() / blocks(dt).max(), None)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="Ornstein-Uhlenbeck time $t$ of the level",
        ylabel="gap per unit of $t$ (nats)",
        title="networks over the exact score",
    )
    axis.legend(fontsize=8)


def _draw_training(axis: Any, config: Config, measured: Any, predicted: Any) -> None:
    theirs, _, first = expected(measured)
    totals = np.asarray([total(cells) for cells in measured["gap"]]).T
    points(axis, config.looks, totals[0], totals[1], "measured gap", COLOURS[0])
    line(axis, config.looks, theirs.sum(-1), "by the error of the score", BLACK)
    line(axis, config.looks, first.sum(-1), r"$\int E|s - F|^2\,dt$ (Girsanov)", ORANGE, "--")
    value, own = total(measured["too_large"])
    excess = value - predicted["exact"].sum()
    axis.axhspan(excess - own, excess + own, color=RED, alpha=0.3)
    axis.axhline(excess, color=RED, lw=1, label=f"score {config.excess:.0%} too large")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="training steps",
        ylabel="gap over the exact score (nats)",
        title=f"all levels, t = {config.t_max:g} to {config.t_min:g}",
    )
    axis.legend(fontsize=8)
