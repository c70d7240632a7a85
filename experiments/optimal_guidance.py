"""A guidance schedule optimised by gradient through the whole sampler.

A class of a one-dimensional mixture is forbidden. Negative prompting subtracts lambda (F_c - F)
from the score; with a constant lambda it avoids the class only by leaving the data. Here lambda may
depend on the noise level, and Adam minimises the objective

    J = forbidden fraction + price * mean distance to the nearest centre                       (1)

through every step of the probability-flow sampler. It is compared with the best constant weight,
with dynamic negative guidance, and with the exact posterior, which needs more than a weight that
depends on time alone: it knows where each trajectory is. In one dimension the flow is monotone, so
that the ends of all trajectories follow from a few boundaries that are carried back along the flow
by an independent integrator: the fractions of samples are compared with that theory.

Source: Koulischer et al. 2024 (2410.14398), negative guidance; the optimisation is a perspective of
Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import diffjax
from diffjax import Diffusion, guidance, schedules
from diffjax.noise import normal
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.session import Curves, Report, Session
from experiments.style import BLACK, COLOURS, GREEN, ORANGE, PURPLE, RED, line, number, points

CENTRES, SPREADS, WEIGHTS = (-2.0, 0.0, 1.5), (0.3, 0.2, 0.4), (0.25, 0.35, 0.4)
FORBIDDEN = 0
T_MIN, T_MAX = 2e-3, 4.0  # ends of the sampler in OU time
OTHERS = ("none", "dynamic", "exact, flow", "exact, SDE")


@dataclass(frozen=True)
class Config:
    """Sampler, objective, and effort of the optimisation."""

    steps: int = option(100, "steps of the sampler, even in log snr")
    knots: int = option(10, "knots of the weight against log snr")
    price: float = option(0.2, "price of the distance to the nearest centre in the objective")
    batch: int = option(1024, "trajectories of a gradient step")
    updates: int = option(300, "steps of Adam")
    rate: float = option(0.1, "learning rate of Adam, falling to zero")
    samples: int = option(20_000, "trajectories that judge a rule")
    constants: int = option(12, "constant weights between 0 and the largest")
    largest: float = option(1.5, "largest constant weight")
    seeds: int = option(8, "optimisations and judgements with independent noise")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float32", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "steps": 60, "knots": 6, "batch": 512, "updates": 150, "samples": 4000, "constants": 7,
        "seeds": 3,
    },
    "quick": {},
    "paper": {"seeds": 32, "samples": 100_000, "updates": 1000, "knots": 16, "constants": 24},
}  # fmt: skip


def model_of(config: Config) -> Diffusion:
    """The mixture, seen through the Ornstein-Uhlenbeck process."""
    means = np.asarray(CENTRES, config.dtype)[:, None]
    data = diffjax.gaussian_mixture(WEIGHTS, means, np.square(SPREADS))
    return Diffusion(data, diffjax.ornstein_uhlenbeck())


def knots_of(config: Config) -> np.ndarray:
    """Log snr of the knots, from noise to data."""
    return np.linspace(*(-math.log(math.expm1(2 * t)) for t in (T_MAX, T_MIN)), config.knots)


def _rule(values: jax.Array, config: Config) -> Any:
    knots = jnp.asarray(knots_of(config), values.dtype)
    weight = guidance.schedule(values, log_snr=knots)
    return guidance.negative_prompt(model_of(config), FORBIDDEN, weight)


def _grid(config: Config) -> jax.Array:
    times = jnp.asarray(schedules.log_snr(T_MIN, T_MAX, config.steps + 1), config.dtype)
    return schedules.backward_grid(times, None)


def _ends(key: jax.Array, rule: Any, n: int, method: str, config: Config) -> jax.Array:
    """Samples of the guided sampler, ``(n, 1)``, from the noise ``N(0, 1)``."""
    key_start, key_path = jax.random.split(key)
    model, grid = model_of(config), _grid(config)
    start = normal(key_start, (n, 1), config.dtype)
    x, _ = diffjax.backward(key_path, model, start, grid, method=method, guidance=rule, remat=True)
    return x


def _distance(x: jax.Array) -> jax.Array:
    return jnp.min(jnp.abs(x - jnp.asarray(CENTRES, x.dtype)), axis=-1)


def _objective(values: jax.Array, key: jax.Array, config: Config) -> jax.Array:
    """Eq. (1) with the posterior of the forbidden class for the fraction, which is smooth."""
    x = _ends(key, _rule(values, config), config.batch, "heun", config)
    forbidden = jnp.exp(model_of(config).class_log_posterior(x, T_MIN)[..., FORBIDDEN])
    return jnp.mean(forbidden) + config.price * jnp.mean(_distance(x))


@partial(jax.jit, static_argnames="config")
def _optimise(key: jax.Array, start: jax.Array, config: Config) -> tuple[jax.Array, jax.Array]:
    """Weights at the knots (mean of the last quarter of the iterates), and the objective."""
    optimiser = optax.adam(optax.cosine_decay_schedule(config.rate, config.updates))

    def update(carry: Any, i: jax.Array) -> Any:
        values, state = carry
        value, gradient = jax.value_and_grad(_objective)(values, jax.random.fold_in(key, i), config)
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(values, change), state), (value, values)

    _, (history, path) = jax.lax.scan(
        update, (start, optimiser.init(start)), jnp.arange(config.updates)
    )
    return jnp.mean(path[-max(1, config.updates // 4) :], axis=0), history


def _judge(x: jax.Array) -> jax.Array:
    """Fractions of the three classes by the nearest boundary, distance, and eq. (1)'s parts."""
    edges = jnp.asarray(boundaries(), x.dtype)
    index = jnp.searchsorted(edges, x[:, 0])
    fractions = jnp.mean(jax.nn.one_hot(index, len(CENTRES), dtype=x.dtype), axis=0)
    return jnp.append(fractions, jnp.mean(_distance(x)))


@partial(jax.jit, static_argnames="config")
def _scheduled(key: jax.Array, values: jax.Array, config: Config) -> jax.Array:
    return _judge(_ends(key, _rule(values, config), config.samples, "heun", config))


def boundaries() -> np.ndarray:
    """Where the most probable class of a clean datum changes, ``(2,)``."""
    x = np.linspace(-4, 4, 80_001)
    logs = [
        math.log(w / s) - 0.5 * ((x - m) / s) ** 2 for m, s, w in zip(CENTRES, SPREADS, WEIGHTS)
    ]
    best = np.argmax(logs, axis=0)
    inside = (x > CENTRES[0]) & (x < CENTRES[-1])  # beyond the centres the widest class wins
    change = np.flatnonzero((np.diff(best) != 0) & inside[1:])
    return 0.5 * (x[change] + x[change + 1])


def constants_of(config: Config) -> np.ndarray:
    """Constant weights.

    Raises:
        ValueError: if there are too few weights or seeds.
    """
    if config.constants < 3 or config.seeds < 2:
        raise ValueError(
            f"constants is {config.constants} and seeds {config.seeds}; "
            "a best constant needs 3 weights and an error 2 seeds"
        )
    return np.linspace(0, config.largest, config.constants)


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Constant weights, optimised schedules, and the other rules."""
    key = jax.random.key(config.seed)
    makers = {"constant": _constants, "optimised": _optimised, "others": _others}
    measured: dict[str, Any] = {"weights": constants_of(config), "knots": knots_of(config)}
    for index, (name, make) in enumerate(makers.items()):
        work = partial(make, jax.random.fold_in(key, index), config, session.progress(name))
        measured |= session.part(name, work)
    return measured


def _constants(key: jax.Array, config: Config, progress: Any) -> Curves:
    values = []
    for i, weight in enumerate(constants_of(config)):
        level = jnp.full(config.knots, weight, config.dtype)
        keys = jax.random.split(jax.random.fold_in(key, i), config.seeds)
        values.append([np.asarray(_scheduled(k, level, config), np.float64) for k in keys])
        if progress is not None:
            progress(i + 1, config.constants)
    return {"constant": np.asarray(values)}  # (weights, seeds, 4)


def _optimised(key: jax.Array, config: Config, progress: Any) -> Curves:
    found: dict[str, list] = {"schedules": [], "history": [], "optimised": []}
    start = jnp.full(config.knots, 0.3, config.dtype)
    for i in range(config.seeds):
        key_fit, key_judge = jax.random.split(jax.random.fold_in(key, i))
        values, history = _optimise(key_fit, start, config)
        judged = _scheduled(key_judge, values, config)
        for name, value in zip(found, (values, history, judged)):
            found[name].append(np.asarray(value, np.float64))
        if progress is not None:
            progress(i + 1, config.seeds)
    return {name: np.stack(values) for name, values in found.items()}


def _others(key: jax.Array, config: Config, progress: Any) -> Curves:
    """Judgements ``(rule, seed, 4)`` in the order of `OTHERS`."""
    model = model_of(config)
    rules = (
        (guidance.negative_prompt(model, FORBIDDEN, 0.0), "ancestral"),
        (guidance.dynamic_negative(model, FORBIDDEN, prior=WEIGHTS[FORBIDDEN]), "ancestral"),
        (guidance.exact_negative(model, FORBIDDEN, p_max=0.99), "heun"),
        (guidance.exact_negative(model, FORBIDDEN, p_max=0.99), "ancestral"),
    )
    values = []
    for i, (rule, method) in enumerate(rules):
        keys = jax.random.split(jax.random.fold_in(key, i), config.seeds)
        values.append(
            [
                np.asarray(_judge(_ends(k, rule, config.samples, method, config)), np.float64)
                for k in keys
            ]
        )
        if progress is not None:
            progress(i + 1, len(rules))
    return {"others": np.asarray(values)}


def class_scores(x: np.ndarray, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Score of the mixture and of the forbidden class at OU time t, in closed form."""
    decay = math.exp(-t)
    means = decay * np.asarray(CENTRES)
    variances = decay**2 * np.square(SPREADS) - math.expm1(-2 * t)
    residual = (means - x[:, None]) / variances
    logs = np.log(WEIGHTS) - 0.5 * np.log(variances) - 0.5 * residual**2 * variances
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    return (weights * residual).sum(1), residual[:, FORBIDDEN]


def flow_fractions(values: np.ndarray, knots: np.ndarray, sign: float = -1.0) -> np.ndarray:
    """Fractions of the three classes at the end of the guided flow, ``(3,)``.

    The boundaries between the classes are carried from the data to the noise along
    ``dx/dt = -x - F + lambda (F_c - F)``; the fractions are those of ``N(0, 1)`` between them.

    Args:
        values: weights at the knots, ``(K,)``.
        knots: log snr, increasing, ``(K,)``.
        sign: of the guidance; +1 is the wrong one.
    """
    from scipy.integrate import solve_ivp
    from scipy.stats import norm

    def slope(t: float, x: np.ndarray) -> np.ndarray:
        score, inside = class_scores(x, t)
        weight = np.interp(-math.log(math.expm1(2 * t)), knots, values)
        return -x - (score + sign * weight * (inside - score))

    solved = solve_ivp(slope, (T_MIN, T_MAX), boundaries(), rtol=1e-9, atol=1e-10, method="LSODA")
    if not solved.success:
        return np.full(len(CENTRES), np.nan)
    return np.diff(norm.cdf([-np.inf, *solved.y[:, -1], np.inf]))


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Fractions at every constant weight and optimised schedule, and with the wrong sign."""
    knots = measured["knots"]
    fine = np.linspace(0, config.largest, 41)

    def constant(weights: np.ndarray, sign: float = -1.0) -> np.ndarray:
        return np.stack([flow_fractions(np.full(len(knots), w), knots, sign) for w in weights])

    return {
        "constant_theory": constant(measured["weights"]),
        "constant_wrong": constant(measured["weights"], 1.0),
        "fine": fine,
        "fine_theory": constant(fine),
        "optimised_theory": np.stack([flow_fractions(v, knots) for v in measured["schedules"]]),
    }


def _binomial(expected: np.ndarray, config: Config, seeds: int = 1) -> np.ndarray:
    return np.sqrt(expected * (1 - expected) / (config.samples * seeds))


def comparisons(config: Config, measured: Any, predicted: Any) -> list[Comparison]:
    """Forbidden and middle fractions against the carried boundaries, and a wrong sign."""
    found = []
    pooled = measured["constant"].mean(1)
    for label, theory, control in (
        ("constant weights", "constant_theory", False),
        ("constant weights, wrong sign", "constant_wrong", True),
    ):
        expected = predicted[theory][:, 0]
        error = _binomial(predicted["constant_theory"][:, 0], config, config.seeds)
        found.append(
            compare(f"forbidden fraction, {label}", pooled[:, 0], error, expected, control=control)
        )
    expected = predicted["optimised_theory"]
    for k, label in ((0, "forbidden"), (1, "middle")):
        error = _binomial(expected[:, k], config)
        found.append(
            compare(f"{label} fraction, optimised schedules", measured["optimised"][:, k], error,
                    expected[:, k])
        )  # fmt: skip
    return found


def _mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def judgements(config: Config, measured: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Forbidden fraction, distance, imbalance and objective of each rule, with errors."""
    value = {"optimised": measured["optimised"]}
    objective = measured["constant"][..., 0] + config.price * measured["constant"][..., 3]
    best = int(np.argmin(objective.mean(1)))
    value[f"constant {measured['weights'][best]:.2f}"] = measured["constant"][best]
    value |= dict(zip(OTHERS, measured["others"]))
    kept = np.asarray(WEIGHTS)[1:] / (1 - WEIGHTS[FORBIDDEN])
    rows = {}
    for name, each in value.items():
        share = np.maximum(each[:, 1:3], 1 / config.samples)
        parts = {
            "forbidden": each[:, 0],
            "distance": each[:, 3],
            "divergence": (kept * np.log(kept / share)).sum(1),
            "objective": each[:, 0] + config.price * each[:, 3],
        }
        rows[name] = {}
        for key, values in parts.items():
            rows[name][key], rows[name][f"{key}_error"] = map(float, _mean(values))
    return rows


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Judgements of the rules, comparisons, one sentence."""
    found = comparisons(config, measured, predicted)
    rows = judgements(config, measured)
    table = [
        (
            name,
            ", ".join(
                f"{key} {number(row[key], row[f'{key}_error'])}"
                for key in ("forbidden", "divergence", "distance", "objective")
            ),
        )
        for name, row in rows.items()
    ]
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=_finding(rows, found), table=table, summary={"rules": rows}, curves=curves,
        axes=axes, comparisons=found, figure=lambda: draw(config, measured, predicted, rows),
    )  # fmt: skip


def _finding(rows: dict[str, dict[str, float]], found: list[Comparison]) -> str:
    def text(name: str, key: str) -> str:
        return number(rows[name][key], rows[name][f"{key}_error"])

    constant = next(name for name in rows if name.startswith("constant"))
    return (
        "A negative-prompt weight optimised by gradient through the sampler at every noise level "
        f"lowers the objective to {text('optimised', 'objective')} from "
        f"{text(constant, 'objective')} with the best constant weight (forbidden fraction "
        f"{text('optimised', 'forbidden')} against {text(constant, 'forbidden')}, distance to the "
        f"data {text('optimised', 'distance')} against {text(constant, 'distance')}), at the price "
        f"of the balance of the kept classes ({text('optimised', 'divergence')} nats against "
        f"{text('exact, SDE', 'divergence')} with the exact posterior), which the objective does "
        "not hold. Knowing the posterior of the class, the exact rule reaches "
        f"{text('exact, SDE', 'objective')} and "
        f"the tracked one {text('dynamic', 'objective')}. The fractions agree with boundaries "
        f"carried along the flow (reduced chi-square {found[0].chi_square:.2f} and "
        f"{found[2].chi_square:.2f})."
    )


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    judged = "fractions of the classes and distance to the nearest centre, last axis"
    axes = {
        "weights": "constant weights lambda",
        "constant": f"(weight, seed, 4): {judged}",
        "constant_theory": "(weight, 3): fractions of the classes by carried boundaries",
        "fine": "weights of fine_theory",
        "fine_theory": "(weight, 3): fractions of the classes by carried boundaries",
        "knots": "log snr of the knots",
        "schedules": "(seed, knot): optimised weights",
        "history": "(seed, update): objective during the optimisation",
        "optimised": f"(seed, 4): {judged}",
        "optimised_theory": "(seed, 3): fractions of the classes by carried boundaries",
        "others": f"(rule, seed, 4): {judged}; rules none, dynamic, exact flow, exact SDE",
    }
    return {name: np.asarray((measured | predicted)[name]) for name in axes}, axes


def draw(config: Config, measured: Any, predicted: Any, rows: Any) -> Any:
    """Fractions against constant weights, optimised weights against noise, the trade-off."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    mean, _ = _mean(measured["constant"].swapaxes(0, 1))
    for k, label in enumerate(("forbidden", "middle", "right")):
        line(axes[0], predicted["fine"], predicted["fine_theory"][:, k], f"{label}, theory",
             COLOURS[k])  # fmt: skip
        error = _binomial(predicted["constant_theory"][:, k], config, config.seeds)
        points(axes[0], measured["weights"], mean[:, k], error, label, COLOURS[k], "os^"[k])
    axes[0].set_xlabel(r"constant negative-prompt weight $\lambda$")
    axes[0].set_ylabel("fraction of samples")
    noise = np.exp(-0.5 * measured["knots"])
    weight, spread = _mean(measured["schedules"])
    points(axes[1], noise, weight, spread, "optimised through the sampler", GREEN)
    axes[1].plot(noise, weight, color=GREEN, lw=0.8)
    constant = next(name for name in rows if name.startswith("constant"))
    axes[1].axhline(float(constant.split()[1]), color=COLOURS[0], label="best constant")
    axes[1].axhline(0, color=BLACK, lw=0.6)
    axes[1].set_xscale("log")
    axes[1].set_xlabel(r"noise level $\sigma=\sqrt{e^{2t}-1}$")
    axes[1].set_ylabel(r"weight $\lambda$")
    axes[2].plot(mean[:, 0], mean[:, 3], "o-", ms=4, color=COLOURS[0], label="constant weights")
    marks = {"optimised": (GREEN, "*"), "none": (BLACK, "x"), "dynamic": (ORANGE, "s"),
             "exact, flow": (RED, "^"), "exact, SDE": (PURPLE, "D")}  # fmt: skip
    for name, (colour, marker) in marks.items():
        row = rows[name]
        axes[2].errorbar(
            row["forbidden"], row["distance"], xerr=row["forbidden_error"],
            yerr=row["distance_error"], fmt=marker, ms=9 if marker == "*" else 6, color=colour,
            label=name, zorder=4,
        )  # fmt: skip
    axes[2].set_xlabel("forbidden fraction")
    axes[2].set_ylabel("mean distance to the nearest centre")
    axes[2].set_yscale("log")
    for axis in axes:
        axis.legend(fontsize=8)
    return figure
