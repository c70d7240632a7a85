r"""Recovery of stored patterns: noise one to time t, denoise back, and see whether it returns.

Run back exactly, the end is a draw from the posterior of the noised state, so that pattern
``xi_mu`` is recovered with probability

    R_mu(t) = E_z w_mu(scale xi_mu + std z),                                                 (1)

which needs no trajectory. The probability-flow ODE and DDIM are deterministic maps of the noised
state: they end on the pattern whose basin holds it, and have another rate. The recovery (critical)
time of a pattern is

    t_rec = largest t with R_mu(t) >= level, 0.9 as published,                               (2)

and ``y = x / scale`` is then at the root mean squared distance ``sqrt(d v)``,
``v = T (e^{2 t_rec} - 1)``, from the pattern: the radius of its basin (3).

References:
    Pham, Raya, Negri, Zaki, Ambrogioni, Krotov 2025 (2505.21777); Biroli, Bonnaire, de Bortoli,
    Mezard 2024 (2402.18491), for (1) as an overlap with the Random Energy Model.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax import checks, processes, schedules
from diffjax.data.base import Atomic, require
from diffjax.diffusion import Diffusion
from diffjax.dynamics.backward import as_model
from diffjax.dynamics.methods import Method
from diffjax.dynamics.protocols import u_turns
from diffjax.observables.estimates import Estimate, mean_and_error

__all__ = ["basin_radius", "own_weight", "recovery", "recovery_time"]


def recovery(
    key: Array,
    model: Any,
    patterns: ArrayLike,
    times: ArrayLike,
    *,
    within: float,
    trials: int = 10,
    method: str | Method = "ddim",
    steps: int = 20,
    t_min: float = 1e-3,
) -> Estimate:
    """Fraction of U-turns that return to the pattern that they started from.

    The grid of a U-turn at time t has ``steps`` steps: from t to ``t_min`` evenly in log snr, and
    from there to 0. Trials of one time are independent, and so are times.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        model: a `Diffusion`, of the exact score or of a network.
        patterns: clean states ``(m, d)``.
        times: turning times ``(T,)``, above ``t_min``.
        within: Euclidean distance at which a trajectory has returned.
        trials: U-turns for each pattern and time (static).
        method: as in `diffjax.backward`; with "exact" the result estimates (1), whatever the grid.
        steps: steps of each trajectory (static).
        t_min: last positive time of the grid.

    Returns:
        Fractions and their standard errors ``(T, m)``; the error is 0 where all trials agree.

    Raises:
        ValueError: on shapes that do not fit, times not above ``t_min``, or a count below 1.

    References:
        Pham et al. 2025 (2505.21777), who use DDIM with 20 steps.
    """
    patterns, times = _patterns_and_times(as_model(model, None), patterns, times)
    checks.positive(within, "within")
    checks.positive(t_min, "t_min")
    if checks.is_concrete(times) and bool(jnp.any(times <= t_min)):
        raise ValueError(f"times must be above t_min = {t_min}, but the smallest is {times.min()}")
    trials, steps = checks.count(trials, "trials"), checks.count(steps, "steps")
    return _recovery(key, model, patterns, times, within, t_min, trials, steps, method)


def own_weight(
    key: Array,
    diffusion: Diffusion,
    times: ArrayLike,
    samples: int,
    *,
    within: float = 0.0,
) -> Estimate:
    """Posterior weight of the own pattern in a noised state, eq. (1): the exact recovery rate.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        diffusion: of a `point_cloud` or other atoms, which are the patterns.
        times: OU times ``(T,)``, above 0.
        samples: noised states for each pattern and time (static).
        within: the weights of patterns that are at most this far from the own one are added to
            its weight; at 0 these are its exact copies.

    Returns:
        Means and standard errors over the noise, ``(T, n)``.

    Raises:
        TypeError: if the data are not atoms.
        ValueError: on a time that is not positive, or a count below 1.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    require(diffusion.data, Atomic, "own_weight")
    _, times = _patterns_and_times(diffusion, diffusion.data.points, times)
    return _own_weight(key, diffusion, times, within, checks.count(samples, "samples"))


def recovery_time(times: ArrayLike, probability: ArrayLike, level: float = 0.9) -> Array:
    """Largest time of a grid at which a pattern is recovered, eq. (2).

    Args:
        times: ``(T,)`` in any order.
        probability: ``(T, ...)``, of `recovery` or `own_weight`.
        level: fraction of the trials that must return.

    Returns:
        Shape ``(...)``; NaN where the level is not reached at any time.

    Raises:
        ValueError: on shapes that do not fit.
    """
    times, probability = jnp.asarray(times), jnp.asarray(probability)
    if times.ndim != 1 or probability.shape[:1] != times.shape:
        raise ValueError(
            f"times and probability have shapes {times.shape} and {probability.shape}, expected "
            "(T,) and (T, ...)"
        )
    columns = times.reshape(-1, *(1,) * (probability.ndim - 1))
    last = jnp.max(jnp.where(probability >= level, columns, -jnp.inf), axis=0)
    return jnp.where(jnp.isfinite(last), last, jnp.nan)


def basin_radius(diffusion: Diffusion, t: ArrayLike) -> Array:
    """Root mean squared distance ``sqrt(d v)`` of ``y = x / scale`` from its datum, eq. (3).

    Args:
        diffusion: gives dimension and process.
        t: OU times, the recovery times of patterns; NaN stays NaN.
    """
    return jnp.sqrt(diffusion.dim / processes.snr(diffusion.process, t))


def _patterns_and_times(model: Any, patterns: ArrayLike, times: ArrayLike) -> tuple[Array, Array]:
    patterns = checks.floating(patterns, "patterns")
    times = jnp.atleast_1d(jnp.asarray(times, patterns.dtype))
    if patterns.ndim != 2 or times.ndim != 1:
        raise ValueError(
            f"patterns and times have shapes {patterns.shape} and {times.shape}, expected (m, d) "
            "and (T,)"
        )
    if isinstance(model, Diffusion):
        checks.event_size(patterns, model.dim, "patterns")
    checks.noise_time(times, zero_allowed=False, why=" (nothing is to be recovered)")
    return patterns, times


@partial(jax.jit, static_argnames=("trials", "steps", "method"))
def _recovery(
    key: Array,
    model: Any,
    patterns: Array,
    times: Array,
    within: ArrayLike,
    t_min: ArrayLike,
    trials: int,
    steps: int,
    method: str | Method,
) -> Estimate:
    starts = jnp.broadcast_to(patterns, (trials, *patterns.shape))

    def at(step: tuple[Array, Array]) -> Estimate:
        i, t = step
        grid = schedules.backward_grid(_even(t_min, t, steps), 0.0)
        ends, _ = u_turns(jax.random.fold_in(key, i), model, starts, grid, method=method)
        returned = jnp.linalg.norm(ends - patterns, axis=-1) <= within
        return mean_and_error(returned.astype(patterns.dtype))

    return lax.map(at, (jnp.arange(times.shape[0]), times))


def _even(t_min: ArrayLike, t: Array, steps: int) -> Array:
    """``steps`` times from ``t_min`` to ``t``, even in log snr, in the dtype of ``t``."""
    ends = jnp.log(jnp.expm1(2 * jnp.stack([jnp.asarray(t_min, t.dtype), t])))
    share = jnp.linspace(0, 1, steps, dtype=t.dtype) if steps > 1 else jnp.ones(1, t.dtype)
    return 0.5 * jax.nn.softplus(ends[0] + share * (ends[1] - ends[0]))


@partial(jax.jit, static_argnames="samples")
def _own_weight(
    key: Array, diffusion: Diffusion, times: Array, within: ArrayLike, samples: int
) -> Estimate:
    data, process = diffusion.data, diffusion.process
    points = data.points

    def close(point: Array) -> Array:
        return jnp.linalg.norm(points - point, axis=-1) <= within

    near = lax.map(close, points)

    def at(step: tuple[Array, Array]) -> Estimate:
        i, t = step
        states = jnp.broadcast_to(points, (samples, *points.shape))
        noised = processes.perturb(jax.random.fold_in(key, i), process, states, t)

        def weights(x: Array) -> Array:  # (n, n) numbers at a time
            log_weights = data.index_log_weights(x, process.scale(t), process.std(t))
            return jnp.sum(jnp.where(near, jnp.exp(log_weights), 0), axis=-1)

        return mean_and_error(lax.map(weights, noised))

    return lax.map(at, (jnp.arange(times.shape[0]), times))
