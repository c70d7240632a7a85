"""Time grids of a sampler: thermodynamic metrics against gradients through the simulator.

The entropy production of the noised path of a mixture is bounded from below by the squared
transport distance over the time (speed limit), and a schedule of constant speed is the optimum; it
is found in closed form and by gradient descent. A sampler of few steps has another metric: with a
denoiser that is fixed in each step, the divergence of the exact path is the error of a Riemann sum
of mmse, and the steps should be of equal length in the metric of its slope. Grids are trained by
Adam through the simulator: on that divergence, measured by exact paths, and through the sampler on
the transport distance of its samples. They are judged on other random numbers beside uniform,
cosine and log-snr grids. The reversed optimum is the control. Where classes are far apart,
derivatives of samples have heavy tails (paths close to the boundary between the classes), and only
the divergence can be trained on.

Source: Aurell et al. 2012 (1201.3207) for the speed limit; Ho, Jain, Abbeel 2020 (2006.11239) and
Guo, Shamai, Verdu 2005 (cs/0412108) for the sampler; the optimisation is made here.
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
from diffjax import Diffusion, processes
from diffjax.observables import thermodynamics
from diffjax.observables.discretisation import path_divergence
from experiments.command_line import option
from experiments.comparison import Comparison, compare
from experiments.optimal_schedule_figure import draw
from experiments.optimal_schedule_theory import Laws, descended, equal_length, predictions
from experiments.session import Curves, Report, Session
from experiments.style import number

BASELINES = ("uniform t", "cosine", "uniform log snr", "constant transport speed",
             "constant sampler speed")  # fmt: skip
TRAINED = ("trained on divergence", "trained on transport", "trained, reversed")
LIMIT_TIMES = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.6])
_TEST, _TRAIN = 1_000_003, 17  # branches of the key: judging never sees a key of the training


@dataclass(frozen=True)
class Config:
    """Mixture, sampler and effort."""

    mean: float = option(1.2, "distance of the centres from the origin")
    variance: float = option(0.15, "variance of each Gaussian")
    t_min: float = option(0.003, "last time of the sampler")
    t_max: float = option(3.0, "first time of the sampler")
    steps: int = option(10, "steps of the sampler")
    batch: int = option(2048, "trajectories of a gradient step")
    updates: int = option(400, "steps of Adam")
    rate: float = option(0.05, "learning rate of Adam, falling to zero")
    fits: int = option(4, "trainings with independent noise")
    samples: int = option(20_000, "trajectories that judge a grid once")
    seeds: int = option(10, "independent judgements of a grid")
    pieces: int = option(32, "pieces of the schedule whose action is minimised")
    seed: int = option(0, "seed of every random number")
    dtype: str = option("float64", "precision of the simulation", choices=("float32", "float64"))


PRESETS: dict[str, dict[str, Any]] = {
    "test": {
        "steps": 8, "batch": 512, "updates": 150, "fits": 2, "samples": 4000, "seeds": 4,
        "pieces": 16,
    },
    "quick": {},
    "paper": {"steps": 16, "batch": 8192, "updates": 1500, "fits": 8, "samples": 200_000,
              "seeds": 20, "pieces": 64},
}  # fmt: skip


def model_of(config: Config) -> Diffusion:
    """Two balanced Gaussians on a line."""
    means = config.mean * np.array([[1.0], [-1.0]], config.dtype)
    data = diffjax.gaussian_mixture(np.ones(2), means, config.variance)
    return Diffusion(data, diffjax.ornstein_uhlenbeck())


def grid_of(logits: jax.Array, config: Config) -> jax.Array:
    """Decreasing OU times ``(S + 1,)`` with positive increments of log snr, a softmax each."""
    low, high = log_snr(np.array([config.t_max, config.t_min]))
    steps = jnp.cumsum(jax.nn.softmax(logits))[:-1]
    inner = low + (high - low) * steps
    times = 0.5 * jnp.log1p(jnp.exp(-inner))
    ends = jnp.asarray([config.t_max, config.t_min], logits.dtype)
    return jnp.concatenate([ends[:1], times, ends[1:]])


def log_snr(times: np.ndarray) -> np.ndarray:
    """Logarithm of the signal-to-noise ratio."""
    return -np.log(np.expm1(2 * np.asarray(times)))


def logits_of(times: np.ndarray) -> np.ndarray:
    """Inverse of `grid_of`."""
    steps = np.diff(log_snr(times))
    return np.log(steps / steps.sum())


def baselines(config: Config) -> np.ndarray:
    """Decreasing grids in the order of `BASELINES`, ``(5, S + 1)``."""
    low, high, steps = config.t_min, config.t_max, config.steps
    angle = np.linspace(math.acos(math.exp(-low)), math.acos(math.exp(-high)), steps + 1)
    even = np.linspace(*log_snr(np.array([low, high])), steps + 1)
    grids = [
        np.linspace(low, high, steps + 1), -np.log(np.cos(angle)),
        0.5 * np.log1p(np.exp(-even)), *equal_length(config),
    ]  # fmt: skip
    grids = np.stack(grids)[:, ::-1]
    grids[:, 0], grids[:, -1] = high, low  # no rounding at the ends
    return grids


def simulate(config: Config, session: Session) -> dict[str, Any]:
    """Speed limit, trainings, judgements of all grids."""
    if config.fits < 2 or config.seeds < 2:
        raise ValueError(
            f"fits is {config.fits} and seeds {config.seeds}; errors between them need 2 of each"
        )
    key = jax.random.key(config.seed)
    train, test = jax.random.fold_in(key, _TRAIN), jax.random.fold_in(key, _TEST)
    measured: dict[str, Any] = session.part("limit", partial(_limit, test, config))
    target = _target(jax.random.fold_in(train, 0), config)
    for index, (name, loss) in enumerate(
        (("divergence", _divergence_loss), ("transport", _transport_loss)), start=1
    ):
        work = partial(
            _trainings, jax.random.fold_in(train, index), loss, target, config,
            session.progress(f"training on {name}"),
        )  # fmt: skip
        measured |= {f"{k}_{name}": v for k, v in session.part(name, work).items()}
    measured["grids"] = _all_grids(measured, config)
    work = partial(
        _judgements, jax.random.fold_in(test, 1), measured["grids"], config,
        session.progress("judging"),
    )  # fmt: skip
    return measured | session.part("judged", work)


def _all_grids(measured: dict[str, Any], config: Config) -> np.ndarray:
    """Baselines, then each fit on divergence, on transport, and the latter reversed."""
    reverse = [
        np.asarray(grid_of(jnp.asarray(logits_of(grid)[::-1].copy()), config))
        for grid in measured["grids_transport"]
    ]
    return np.concatenate(
        [baselines(config), measured["grids_divergence"], measured["grids_transport"], reverse]
    )


def _limit(key: jax.Array, config: Config) -> Curves:
    """Entropy production until each time from end points of forward paths, ``(T,)``."""
    model, n = model_of(config), config.samples * config.seeds
    found = []
    for i, t in enumerate(LIMIT_TIMES):
        key_a, key_x = jax.random.split(jax.random.fold_in(key, 100 + i))
        a = model.sample(key_a, 0.0, n)
        x = processes.perturb(key_x, model.process, a, t)
        total = np.asarray(thermodynamics.end_point_production(model, a, x, 0.0, t), np.float64)
        found.append((total.mean(), total.std(ddof=1) / math.sqrt(n)))
    values = np.asarray(found)
    return {"production": values[:, 0], "production_error": values[:, 1]}


def _target(key: jax.Array, config: Config) -> jax.Array:
    """Quantiles of ``|x|`` at the last time at ``batch`` levels, from many exact draws."""
    many = 64 * config.batch
    x = jnp.sort(jnp.abs(model_of(config).sample(key, config.t_min, many)[:, 0]))
    return jnp.mean(x.reshape(config.batch, 64), axis=1)


def _ends(key: jax.Array, grid: jax.Array, n: int, config: Config) -> jax.Array:
    """``n`` samples of the ancestral sampler from the exact law at the first time, ``(n,)``."""
    key_start, key_path = jax.random.split(key)
    model = model_of(config)
    x = model.sample(key_start, config.t_max, n)
    x, _ = diffjax.backward(key_path, model, x, grid, method="ancestral")
    return x[:, 0]


def _transport_loss(key: jax.Array, grid: jax.Array, target: jax.Array, config: Config) -> Any:
    """Squared transport distance of the samples to the target; both laws are even, so of |x|."""
    x = jnp.sort(jnp.abs(_ends(key, grid, config.batch, config)))
    return jnp.mean(jnp.square(x - target))


def _divergence_loss(key: jax.Array, grid: jax.Array, target: jax.Array, config: Config) -> Any:
    """Divergence of the exact path, measured by exact paths."""
    return path_divergence(key, model_of(config), grid, config.batch).mean


@partial(jax.jit, static_argnames=("loss", "config"))
def _train(key: jax.Array, target: jax.Array, loss: Any, config: Config) -> tuple:
    """Grid after Adam, averaged over the last quarter, and the loss along the way."""
    optimiser = optax.adam(optax.cosine_decay_schedule(config.rate, config.updates))

    def value(logits: jax.Array, key: jax.Array) -> jax.Array:
        return loss(key, grid_of(logits, config), target, config)

    def update(carry: Any, i: jax.Array) -> Any:
        logits, state = carry
        now, gradient = jax.value_and_grad(value)(logits, jax.random.fold_in(key, i))
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(logits, change), state), (now, logits)

    start = jnp.zeros(config.steps, target.dtype)  # even in log snr
    carry = (start, optimiser.init(start))
    _, (history, path) = jax.lax.scan(update, carry, jnp.arange(config.updates))
    mean = jnp.mean(path[-max(1, config.updates // 4) :], axis=0)
    return grid_of(mean, config), history


def _trainings(
    key: jax.Array, loss: Any, target: jax.Array, config: Config, progress: Any
) -> Curves:
    grids, histories = [], []
    for i in range(config.fits):
        grid, history = _train(jax.random.fold_in(key, i), target, loss, config)
        grids.append(np.asarray(grid, np.float64))
        histories.append(np.asarray(history, np.float64))
        if progress is not None:
            progress(i + 1, config.fits)
    return {"grids": np.stack(grids), "history": np.stack(histories)}


def _judgements(key: jax.Array, grids: np.ndarray, config: Config, progress: Any) -> Curves:
    """Divergence, squared transport distance, second moment, error: ``(grid, seed, 4)``."""
    quantiles = jnp.asarray(Laws(config).target_quantiles(config.samples), config.dtype)
    found = []
    for i, grid in enumerate(grids):
        keys = jax.random.split(jax.random.fold_in(key, i), config.seeds)
        found.append(_judge(keys, jnp.asarray(grid, config.dtype), quantiles, config))
        if progress is not None:
            progress(i + 1, len(grids))
    return {"judged": np.asarray(found, np.float64)}


@partial(jax.jit, static_argnames="config")
def _judge(keys: jax.Array, grid: jax.Array, quantiles: jax.Array, config: Config) -> jax.Array:
    def one(key: jax.Array) -> jax.Array:
        key_paths, key_ends = jax.random.split(key)
        divergence = path_divergence(key_paths, model_of(config), grid, config.samples)
        x = _ends(key_ends, grid, config.samples, config)
        distance = jnp.mean(jnp.square(jnp.sort(jnp.abs(x)) - quantiles))
        return jnp.stack([divergence.mean, distance, jnp.mean(jnp.square(x)), divergence.error])

    return jax.lax.map(one, keys)


def predict(config: Config, measured: dict[str, Any]) -> dict[str, Any]:
    """Exact divergences and sampled laws of every grid, speed limits, the free optimum."""
    return predictions(config, measured["grids"], LIMIT_TIMES) | descended(config)


def rows_of(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    """Mean, error and theory of the judgements of each schedule, over its fits and seeds."""
    found = {}
    first = len(BASELINES)
    groups = {name: [i] for i, name in enumerate(BASELINES)}
    groups |= {
        name: list(range(first + k * config.fits, first + (k + 1) * config.fits))
        for k, name in enumerate(TRAINED)
    }
    for name, members in groups.items():
        values = measured["judged"][members]  # (fits, seeds, 4)
        mean = values.mean((0, 1))
        error = values.std((0, 1), ddof=1) / math.sqrt(values.shape[0] * config.seeds)
        if len(members) > 1:  # fits differ more than seeds do
            between = values.mean(1).std(0, ddof=1) / math.sqrt(len(members))
            error = np.maximum(error, between)
        found[name] = {
            "divergence": float(mean[0]), "divergence_error": float(error[0]),
            "distance": float(mean[1]), "distance_error": float(error[1]),
            "divergence_theory": float(predicted["divergence"][members].mean()),
            "distance_theory": float(predicted["distance"][members].mean()),
            "members": members,
        }  # fmt: skip
    return found


def comparisons(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> list:
    """Divergences, second moments and production, with controls."""
    judged, seeds = measured["judged"], math.sqrt(config.seeds)
    mean, error = judged.mean(1), judged.std(1, ddof=1) / seeds
    # of the divergence every path counts, not only the seeds
    error[:, 0] = np.sqrt(np.mean(judged[:, :, 3] ** 2, axis=1)) / seeds
    found = [
        compare("divergence of the exact path", mean[:, 0], error[:, 0],
                predicted["divergence"]),
        compare("divergence by mmse at the end of the steps", mean[:, 0],
                error[:, 0], predicted["divergence_wrong"], control=True),
        compare("second moment of the samples", mean[:, 2], _moment_error(config, predicted),
                predicted["moment"]),
        compare("second moment, data in place of the sampled law", mean[:, 2],
                _moment_error(config, predicted), np.full(len(mean), predicted["data_moment"]),
                control=True),
        compare("entropy production", measured["production"], measured["production_error"],
                predicted["production"]),
        compare("transport distance of samples, without the bias of their number", mean[:, 1],
                error[:, 1], predicted["distance"], exact=False),
    ]  # fmt: skip
    first, fits = len(BASELINES), config.fits
    best = judged[first + fits : first + 2 * fits, :, 1]
    worst = judged[first + 2 * fits :, :, 1]
    spread = np.hypot(best.std(ddof=1), worst.std(1, ddof=1)) / seeds
    found.append(
        compare("reversed grid taken for the trained one", worst.mean(1), spread, best.mean(1),
                control=True)
    )  # fmt: skip
    return found


def _moment_error(config: Config, predicted: dict[str, Any]) -> np.ndarray:
    """Standard error of the mean of x^2 from the predicted law."""
    return np.sqrt(predicted["moment_variance"] / (config.samples * config.seeds))


def report(config: Config, measured: dict[str, Any], predicted: dict[str, Any]) -> Report:
    """Judgements of all schedules, the metric of the optimum, one sentence."""
    found = comparisons(config, measured, predicted)
    rows = rows_of(config, measured, predicted)
    table = [
        (name, f"divergence {number(row['divergence'], row['divergence_error'])} (theory "
         f"{row['divergence_theory']:.4f}), squared distance "
         f"{number(row['distance'], row['distance_error'])} (theory {row['distance_theory']:.5f})")
        for name, row in rows.items()
    ]  # fmt: skip
    table += [
        ("least divergence of a grid, by theory", f"{predicted['least']:.4f}; (length)^2/4N = "
         f"{predicted['leading']:.4f}"),
        ("action of the schedule over (length)^2", f"gradient descent {predicted['action']:.5f}, "
         f"equal lengths {predicted['action_equal']:.5f}, uniform t "
         f"{predicted['action_uniform']:.3f}; largest distance of the two in length "
         f"{predicted['action_distance']:.2g}"),
    ]  # fmt: skip
    summary = {
        "schedules": rows,
        **{k: predicted[k] for k in ("least", "leading", "action", "action_equal",
                                     "action_uniform", "action_distance")},
    }  # fmt: skip
    curves, axes = _arrays(measured, predicted)
    return Report(
        finding=_finding(config, found, rows, predicted), table=table, summary=summary,
        curves=curves, axes=axes, comparisons=found,
        figure=lambda: draw(config, measured, predicted, rows),
    )  # fmt: skip


def _finding(
    config: Config, found: list[Comparison], rows: dict[str, Any], predicted: dict[str, Any]
) -> str:
    def text(name: str, key: str) -> str:
        return number(rows[name][key], rows[name][f"{key}_error"])

    by_distance = min(BASELINES, key=lambda name: rows[name]["distance"])
    return (
        f"With {config.steps} steps a grid trained by gradient on exact paths has the divergence "
        f"{text(TRAINED[0], 'divergence')} nats on unseen noise, the least possible being "
        f"{predicted['least']:.3f}, steps of equal length in the sampler's own metric "
        f"{text('constant sampler speed', 'divergence')}, an even log snr "
        f"{text('uniform log snr', 'divergence')} and a constant transport speed, optimal for the "
        f"entropy production, {text('constant transport speed', 'divergence')}; trained through "
        f"the sampler on the transport distance it comes to {text(TRAINED[1], 'distance')} squared "
        f"from the data law, against {text(by_distance, 'distance')} for the best other grid "
        f"({by_distance}) and "
        f"{text(TRAINED[2], 'distance')} reversed; measured divergences follow the Riemann sum of "
        f"mmse (reduced chi-square {found[0].chi_square:.2f})."
    )


def _arrays(measured: dict[str, Any], predicted: dict[str, Any]) -> tuple[Curves, dict[str, str]]:
    axes = {
        "grids": f"OU times (grid, step): {', '.join(BASELINES)}, then fits: {', '.join(TRAINED)}",
        "judged": "(grid, seed, 4): divergence, squared distance, moment, error of the first",
        "divergence": "exact divergence of each grid [nats]",
        "distance": "squared transport distance of the exact law of the samples (grid,)",
        "moment": "second moment of the exact law of the samples (grid,)",
        "history_divergence": "(fit, update): measured divergence during training",
        "history_transport": "(fit, update): measured squared distance during training",
        "production": "measured entropy production at the times of the speed limit [nats]",
        "production_error": "its standard error",
        "limit_production": "entropy production, (time,)",
        "limit_length": "squared length of the path over the time",
        "limit_transport": "squared transport distance over the time",
        "limit_times": "OU times of the speed limit",
    }
    return {name: np.asarray((measured | predicted)[name]) for name in axes}, axes
