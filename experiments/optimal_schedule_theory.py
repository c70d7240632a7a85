"""Predictions of the experiment `optimal_schedule`: exact laws of few steps, and optima."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy.special import expit, ndtr

import theory.speed_limit
import theory.thermodynamics

_CELLS = 1201
_LEVELS = 4001


class Laws:
    """Closed forms of a mixture in numpy, which share no code with the simulator."""

    def __init__(self, config: Any) -> None:
        self.mean, self.variance = config.mean, config.variance
        self.t_min, self.t_max = config.t_min, config.t_max

    def channel(self, t: float) -> tuple[float, float, float]:
        """Scale, noise variance, and variance of each noised Gaussian."""
        scale, noise = math.exp(-t), -math.expm1(-2 * t)
        return scale, noise, noise + scale**2 * self.variance

    def density(self, x: np.ndarray, t: float) -> np.ndarray:
        """Noised density."""
        scale, _, gamma = self.channel(t)
        parts = [np.exp(-((x - s * scale * self.mean) ** 2) / (2 * gamma)) for s in (1, -1)]
        return sum(parts) / (2 * math.sqrt(2 * math.pi * gamma))

    def denoiser(self, x: np.ndarray, t: float) -> np.ndarray:
        """Posterior mean."""
        scale, noise, gamma = self.channel(t)
        sign = 2 * expit(2 * scale * self.mean * x / gamma) - 1
        return (self.mean * noise * sign + scale * self.variance * x) / gamma

    def target_quantiles(self, levels: int) -> np.ndarray:
        """Quantiles of |x| at the last time at the middles of equal levels."""
        scale, _, gamma = self.channel(self.t_min)
        centre, spread = scale * self.mean, math.sqrt(gamma)
        x = np.linspace(0, centre + 10 * spread, 40_001)
        below = ndtr((x - centre) / spread) - ndtr((-x - centre) / spread)
        kept = np.concatenate([[True], np.diff(below) > 0])
        return np.interp((np.arange(levels) + 0.5) / levels, below[kept], x[kept])


def equal_length(config: Any) -> list[np.ndarray]:
    """Increasing grids of constant transport speed and of constant speed of the sampler."""
    return [
        _equal_length(speed, config.mean, config.variance, config.t_min, config.t_max, config.steps)
        for speed in (theory.speed_limit.production_speed, theory.speed_limit.sampler_speed)
    ]


def _equal_length(
    speed: Any, mean: float, variance: float, low: float, high: float, pieces: int
) -> Any:
    """Times of equal length, compiled as a whole."""
    of_time = partial(speed, mean=mean, variance=variance)
    times = jax.jit(lambda ends: theory.speed_limit.equal_length_times(of_time, *ends, pieces))
    return np.asarray(times(jnp.asarray([low, high])))


def sampled_law(config: Any, grid: np.ndarray) -> tuple[float, float, float]:
    """Second moment, variance of x^2, and squared distance to the target of the sampled law.

    The kernels of the ancestral sampler are integrated over a grid of states from step to step.
    """
    law = Laws(config)
    edge = law.mean + 9 * max(1.0, math.sqrt(law.variance))
    edge = min(edge, 6.5)
    x = np.linspace(-edge, edge, _CELLS)
    width = x[1] - x[0]
    density = law.density(x, grid[0])
    for t, s in itertools.pairwise(grid):
        (_, noise_t, _), (scale_s, noise_s, _) = law.channel(t), law.channel(s)
        lost = math.expm1(-2 * (t - s)) / math.expm1(-2 * t)
        mean = scale_s * lost * law.denoiser(x, t)
        mean = mean + math.exp(s - t) * noise_s / noise_t * x
        variance = noise_s * lost
        # the law is even, so that half of it is enough
        kernel = np.exp(-((x[: _CELLS // 2 + 1, None] - mean) ** 2) / (2 * variance))
        half = kernel @ density * width / math.sqrt(2 * math.pi * variance)
        density = np.concatenate([half, half[-2::-1]])
    mass = density * width
    second, fourth = mass @ x**2, mass @ x**4
    middle = np.cumsum(mass) - 0.5 * mass
    above = x >= 0
    below = 2 * middle[above] - 1
    kept = np.concatenate([[True], np.diff(below) > 0])
    levels = (np.arange(_LEVELS) + 0.5) / _LEVELS
    quantiles = np.interp(levels, below[kept], x[above][kept])
    distance = np.mean((quantiles - law.target_quantiles(_LEVELS)) ** 2)
    return float(second), float(fourth - second**2), float(distance)


def predictions(config: Any, grids: np.ndarray, times: np.ndarray) -> dict[str, Any]:
    """Of every grid its divergence and sampled law; the speed limit at some times."""
    mean, variance = config.mean, config.variance
    divergence = jax.jit(lambda grid: theory.speed_limit.path_divergence(grid, mean, variance))
    snr = 1 / np.expm1(2 * grids)
    mmse = np.asarray(theory.speed_limit.mixture_mmse(grids, mean, variance))
    exact = np.asarray([divergence(jnp.asarray(grid[::-1])) for grid in grids])
    # control: the denoiser of the end of each step instead of its start
    wrong = exact - 0.5 * np.sum((mmse[:, :-1] - mmse[:, 1:]) * np.diff(snr, axis=1), axis=1)
    found = np.asarray([sampled_law(config, grid) for grid in grids])
    law = Laws(config)
    scale, _, gamma = law.channel(config.t_min)
    speed = partial(theory.speed_limit.production_speed, mean=mean, variance=variance)
    shown = np.geomspace(times[0], times[-1], 30)
    length = jax.jit(jax.vmap(lambda t: theory.speed_limit.path_length(speed, 1e-7, t)))(shown)
    transport = theory.speed_limit.noised_transport_distance(shown, mean, variance)
    every = np.geomspace(config.t_min, config.t_max, 200)
    return {
        "divergence": exact, "divergence_wrong": wrong, "moment": found[:, 0],
        "moment_variance": found[:, 1], "distance": found[:, 2],
        "data_moment": (scale * mean) ** 2 + gamma,
        "production": np.asarray(theory.thermodynamics.total_production(times, mean, variance)),
        "limit_times": shown,
        "limit_production": np.asarray(
            theory.thermodynamics.total_production(shown, mean, variance)
        ),
        "limit_length": np.asarray(length) ** 2 / shown,
        "limit_transport": np.asarray(transport) ** 2 / shown,
        "every": every, "transport_speed": np.asarray(speed(every)),
        "sampler_speed": np.asarray(theory.speed_limit.sampler_speed(every, mean, variance)),
    }  # fmt: skip


def descended(config: Any) -> dict[str, Any]:
    """Free optima by gradient descent: of the divergence, and of the action of a schedule."""
    mean, variance = config.mean, config.variance
    ends = (config.t_min, config.t_max)
    low, high = (-math.log(math.expm1(2 * t)) for t in ends)

    def in_log_snr(logits: jax.Array) -> jax.Array:
        inner = low + (high - low) * jnp.cumsum(jax.nn.softmax(logits))[:-1]
        times = 0.5 * jnp.log1p(jnp.exp(-inner))
        return jnp.concatenate([jnp.full(1, ends[0]), times, jnp.full(1, ends[1])])

    def in_time(logits: jax.Array) -> jax.Array:
        steps = jnp.cumsum(jax.nn.softmax(logits))
        return ends[0] + (ends[1] - ends[0]) * jnp.concatenate([jnp.zeros(1), steps])

    _, least = _descend(
        lambda v: theory.speed_limit.path_divergence(in_log_snr(v), mean, variance), config.steps
    )

    def action(logits: jax.Array) -> jax.Array:
        return theory.speed_limit.schedule_action(in_time(logits), mean, variance)

    logits, value = _descend(action, config.pieces)
    transport, sampler = (
        partial(speed, mean=mean, variance=variance)
        for speed in (theory.speed_limit.production_speed, theory.speed_limit.sampler_speed)
    )
    equal = _equal_length(theory.speed_limit.production_speed, mean, variance, *ends, config.pieces)
    length = theory.speed_limit.path_length

    @jax.jit
    def lengths(logits: jax.Array) -> tuple[jax.Array, ...]:
        times = in_time(logits)
        along = jax.vmap(lambda t: length(transport, ends[0], t))(times[1:])
        both = theory.speed_limit.schedule_action(equal, mean, variance), action(0 * logits)
        return times, along, length(sampler, *ends), *both

    times, along, of_sampler, at_equal, at_even = map(np.asarray, lengths(logits))
    even = np.arange(1, config.pieces + 1) / config.pieces
    square = float(along[-1]) ** 2
    return {
        "least": least, "leading": float(of_sampler) ** 2 / (4 * config.steps),
        "action": value / square, "action_equal": float(at_equal) / square,
        "action_uniform": float(at_even) / square,
        "action_distance": float(np.abs(along / along[-1] - even).max()),
        "action_times": times, "equal_times": equal,
    }  # fmt: skip


def _descend(loss: Any, size: int, updates: int = 4000) -> tuple[np.ndarray, float]:
    """Optimum of a deterministic loss of free increments by Adam, from equal ones."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.05, updates))

    def update(carry: Any, _: Any) -> Any:
        values, state = carry
        value, gradient = jax.value_and_grad(loss)(values)
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(values, change), state), value

    start = jnp.zeros(size)
    carry = (start, optimiser.init(start))
    (values, _), history = jax.jit(lambda c: jax.lax.scan(update, c, length=updates))(carry)
    return values, float(history[-1])
