r"""Entropy production along forward and generative paths, and fluctuation theorems.

In Ornstein-Uhlenbeck coordinates at temperature T, with the score F, the stationary law
``gamma = N(0, T I)`` and the noised laws ``p_t``:

*Forward*, from t_0 to t_f with exact steps. Two end points suffice,

    dS_tot = log p_0/gamma (x_0) - log p_f/gamma (x_f),      <exp(-dS_tot)> = 1 exactly.   (1)

*Generative*, Euler steps of ``dx = b dtau + sqrt(2T) dW``, ``b = x + 2 T F``, with the kernels
``K_k(x -> y) = N(y; x + b_k(x) dt, 2 T dt I)``. Of a path ``x_0 ... x_N`` with the log ratio
``R = log p_start(x_0) / p_end(x_N)`` of its ends:

    midpoint  sum_k (x_{k+1} - x_k) . b_k((x_k + x_{k+1})/2) / T + R                        (2)
    kernel    sum_k log K_k(x_k -> x_{k+1}) / K_k(x_{k+1} -> x_k) + R                       (3)
    noising   sum_k log K_k(x_k -> x_{k+1}) / N(x_k; (1 - dt) x_{k+1}, 2 T dt I) + R        (4)

``<exp(-.)>`` is 1 + O(dt) for (2), and 1 at any dt for (3) and (4), for every drift: the averages
test the bookkeeping and never the score. A simulated drift or start that differs from the one in
the formula breaks them: a wrong start most visibly in (3), a drift only weakly. For an exact score
(4) sees either to O(dt) only, as the noising chain is nearly the assumed one.

The means of (2) and (3) are O(dt) low. The mean of (4) is a relative entropy of paths, so >= 0,
which vanishes with dt for the exact score only, and tests the score. It is no dissipation.

*One level.* For ``x ~ p_t`` and one step to ``y`` at ``s = t - dt``, the mean of

    log p_t(x) K(x -> y) - log p_s(y) N(x; (1 - dt) y, 2 T dt I)                            (5)

is a relative entropy of two pairs; a score that is wrong by ``e(x)`` adds ``T dt E|e|^2``.

*Rates* per unit of OU time: production ``pi = E|x + T F|^2 / T``, flow ``phi = E|x|^2/T - d``, and
``dS/dt = pi - phi``; the generative SDE has the same production and the flow ``2 pi - phi``.

References:
    Yu, Huang 2025 (2405.11932); Murashita, Funo, Ueda 2014 (1401.4494).
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Posterior, require
from diffjax.data.gaussian_mixture import GaussianMixture
from diffjax.diffusion import Diffusion, score_at
from diffjax.dynamics.scan import run_steps
from diffjax.noise import normal
from diffjax.observables.estimates import Estimate, mean_and_error

AT_FINITE_STEP = {"midpoint": "O(dt)", "kernel": "exact", "noising": "exact"}
"""Whether the exponential average of each field of `PathProduction` is 1 at a finite step."""


class PathProduction(NamedTuple):
    """Functionals of each generative path in nats, shape ``(n,)``; see `AT_FINITE_STEP`."""

    midpoint: Array
    """Heat at the midpoint plus the change of entropy, (2): integral theorem up to O(dt)."""
    kernel: Array
    """Ratio to the reversed path under the same kernels, (3): integral theorem exact."""
    noising: Array
    """Ratio to the noising chain, (4): integral theorem exact; its mean tests the score."""


class ForwardProduction(NamedTuple):
    """Total entropy production of forward paths."""

    total: Array
    """Nats, ``(n,)``, (1)."""
    finite_variance: bool | None
    """Whether ``exp(-total)`` has a finite variance; None where this is not known."""


class IntegralTheorem(NamedTuple):
    """Average of ``exp(-production)`` over paths."""

    mean: Array
    error: Array
    """Standard error; without meaning where the variance is infinite."""
    effective_samples: Array
    """``(sum w)^2 / sum w^2`` for ``w = exp(-production)``, between 1 and n."""


class Rates(NamedTuple):
    """Rates per unit of OU time at each time, summed over coordinates, with errors."""

    production: Estimate
    flow: Estimate
    reverse_flow: Estimate
    fisher: Estimate
    """Mean squared score."""


def integral_theorem(production: Array) -> IntegralTheorem:
    """Exponential average over independent paths, 1 where the theorem holds.

    Args:
        production: entropy production of each path in nats, ``(n,)``.

    Returns:
        Mean, standard error and effective sample size; sums run in float32 or better.

    Raises:
        ValueError: if ``production`` is not a vector of one path or more.
    """
    if production.ndim != 1 or not production.size:
        raise ValueError(f"production has shape {production.shape}, expected (n,), one per path")
    wide = production.astype(jnp.promote_types(production.dtype, jnp.float32))
    top = jnp.max(-wide)
    weights = jnp.exp(-wide - top)
    mean, error = mean_and_error(weights)
    effective = jnp.square(jnp.sum(weights)) / jnp.sum(jnp.square(weights))
    return IntegralTheorem(jnp.exp(top) * mean, jnp.exp(top) * error, effective)


def has_finite_variance(
    variance: ArrayLike, t_final: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    """Whether ``exp(-dS_tot)`` of (1) has a finite variance for Gaussians of this width.

    The second moment is the integral of ``gamma^2 / p_0`` times the mean of ``(p_f/gamma)^2``,
    and converges if the Gaussian exponent of the start is positive; as t_f grows, for a variance
    above T/2.

    Args:
        variance: smallest variance per coordinate of the start, positive.
        t_final: OU time between the ends.
        temperature: temperature of the process, positive.

    Raises:
        ValueError: for concrete arguments out of range.
    """
    checks.positive(variance, "variance")
    checks.positive(temperature, "temperature")
    checks.noise_time(t_final, zero_allowed=True)
    ratio = jnp.asarray(variance) / temperature
    decay = jnp.exp(-2 * jnp.asarray(t_final))
    excess = (ratio - 1) * decay
    lost = -excess / (1 + excess)
    width = 1 + 2 * lost * (1 - decay)
    exponent = 1 - 0.5 / ratio + lost * decay / jnp.where(width > 0, width, 1)
    return (width > 0) & (exponent > 0)


def end_point_production(
    model: Diffusion, x_start: ArrayLike, x_final: ArrayLike, t_start: ArrayLike, t_final: ArrayLike
) -> Array:
    """Total entropy production (1) of forward paths with these end points, ``(n,)`` in nats.

    Args:
        model: whose noised laws enter the formula.
        x_start: states at ``t_start``, ``(n, d)``.
        x_final: states at ``t_final``, ``(n, d)``.
        t_start: OU time; 0 only for data with a density.
        t_final: OU time, later.

    Raises:
        ValueError: for atomic data at ``t_start = 0``, other coordinates, or wrong times.
        TypeError: if the model has no density.
    """
    _check_model(model, t_start)
    _check_order(t_start, t_final)
    x_start, x_final = checks.floating(x_start, "x_start"), checks.floating(x_final, "x_final")
    half = 0.5 / jnp.asarray(model.process.temperature, x_start.dtype)
    heat = half * (jnp.sum(jnp.square(x_start), -1) - jnp.sum(jnp.square(x_final), -1))
    return heat + model.log_density(x_start, t_start) - model.log_density(x_final, t_final)


def forward_entropy_production(
    key: Array, model: Diffusion, t_final: ArrayLike, n: int, *, t_start: ArrayLike = 0.0
) -> ForwardProduction:
    """Total entropy production of ``n`` forward paths with exact steps, (1).

    Warns where ``exp(-total)`` has an infinite variance, which is known for Gaussian mixtures that
    start at 0: then the standard error of its mean means nothing. Long paths have no power to
    find errors: take ``t_final <= 1``.

    Args:
        key: typed PRNG key.
        model: data and process in Ornstein-Uhlenbeck coordinates.
        t_final: OU time of the end.
        n: number of paths.
        t_start: OU time of the start, positive for atomic data, whose law at 0 is singular.

    Raises:
        ValueError: for atomic data at ``t_start = 0``, other coordinates, or wrong times.
        TypeError: if the model has no density.
    """
    _check_model(model, t_start)
    _check_order(t_start, t_final)
    key_start, key_step = jax.random.split(key)
    x = model.sample(key_start, t_start, checks.count(n, "n"))
    ends = jnp.asarray(t_start, x.dtype), jnp.asarray(t_final, x.dtype)
    end = _exact_step(key_step, model.process, x, *ends)
    finite = _finite_variance(model, t_start, t_final)
    if finite is False:
        warnings.warn(
            "exp(-production) has infinite variance: variance < T/2 at long times; its mean "
            "converges slowly and has no standard error",
            RuntimeWarning,
            stacklevel=2,
        )
    return ForwardProduction(end_point_production(model, x, end, t_start, t_final), finite)


def path_entropy_production(
    key: Array,
    model: Diffusion,
    times: ArrayLike,
    n: int,
    *,
    drift: Any = None,
    simulated: Any = None,
    start: ArrayLike | None = None,
) -> PathProduction:
    """Functionals (2), (3) and (4) along ``n`` generative Euler paths; no path is stored.

    Args:
        key: typed PRNG key.
        model: data and process in Ornstein-Uhlenbeck coordinates; its laws at both ends enter.
        times: strictly decreasing OU times ``(S + 1,)``; the last one may be 0 for data with a
            density.
        n: number of paths.
        drift: `Diffusion` or `ScoreModel` whose score is simulated and enters the kernels, e.g. a
            learned one; ``model`` if None.
        simulated: a control: simulate this score, but keep that of ``drift`` in the formulas.
        start: a control: states ``(n, d)`` in place of exact draws at ``times[0]``.

    Raises:
        ValueError: for atomic data down to 0, other coordinates, wrong times or shapes.
        TypeError: if the model has no density.
    """
    key_start, key_path = jax.random.split(key)
    times = _grid(model, times)
    count = checks.count(n, "n")
    x = model.sample(key_start, times[0], count) if start is None else start
    x = checks.floating(x, "start")
    if x.shape != (count, model.dim):
        raise ValueError(f"start has shape {x.shape}, expected ({count}, {model.dim})")
    drift = model if drift is None else drift
    simulated = drift if simulated is None else simulated
    end, sums = _paths(key_path, drift, simulated, x, times.astype(x.dtype))
    ends = model.log_density(x, times[0]) - model.log_density(end, times[-1])
    return PathProduction(*(total + ends for total in sums))


def score_test(
    key: Array,
    model: Diffusion,
    times: ArrayLike,
    n: int,
    *,
    drift: Any = None,
    simulated: Any = None,
) -> Estimate:
    """Mean of (4) for one step at each noise level, (5): >= 0, larger for a wrong score.

    Every level starts from exact draws, so that levels are independent. The difference from the
    exact score at the same key is ``T dt E|e|^2`` to leading order, with the standard error
    ``sqrt(2 T dt E|e|^2 / n)``.

    Args:
        key: typed PRNG key.
        model: whose laws are taken as the truth.
        times: strictly decreasing OU times ``(S + 1,)``.
        n: number of pairs at each level.
        drift: `Diffusion` or `ScoreModel` that is tested; ``model`` if None.
        simulated: makes the step in place of ``drift``, which stays in the formula. For a tested
            score ``drift`` with the error e, the mean is at any step that of ``drift = model``,
            ``simulated = drift``, plus ``T dt E|e|^2``.

    Returns:
        Nats for each step, ``(S,)``.

    Raises:
        ValueError: for atomic data down to 0, other coordinates or wrong times.
        TypeError: if the model has no density.
    """
    times = _grid(model, times)
    drift = model if drift is None else drift
    simulated = drift if simulated is None else simulated
    return _levels(key, model, drift, simulated, times, checks.count(n, "n"))


def score_gap(
    key: Array, model: Diffusion, times: ArrayLike, n: int, *, drift: Any, simulated: Any = None
) -> Estimate:
    """Excess of `score_test` over the exact score, on the same states and noise.

    With the error e of ``drift`` it is ``T dt E|e|^2`` plus the gap of ``drift = model``,
    ``simulated = drift``, exactly at any step. The second is of higher order in dt, but of first
    order in e, so that at a fixed step it is what remains of a score that is nearly exact.

    Args:
        key: as in `score_test`.
        model: whose laws and score are taken as the truth.
        times: strictly decreasing OU times ``(S + 1,)``.
        n: number of pairs at each level.
        drift: `Diffusion` or `ScoreModel` that is tested.
        simulated: makes the step in place of ``drift``.

    Returns:
        Nats for each step, ``(S,)``, with the standard error of the difference.

    Raises:
        ValueError: for atomic data down to 0, other coordinates or wrong times.
        TypeError: if the model has no density.
    """
    times = _grid(model, times)
    simulated = drift if simulated is None else simulated
    return _gaps(key, model, drift, simulated, times, checks.count(n, "n"))


def rates(key: Array, model: Diffusion, times: ArrayLike, n: int, *, score: Any = None) -> Rates:
    """Entropy production, flows and Fisher information by exact draws and any score.

    Args:
        key: typed PRNG key.
        model: draws the states, in Ornstein-Uhlenbeck coordinates.
        times: OU times ``(S,)``, positive, or 0 for data with a density.
        n: number of states at each time.
        score: `Diffusion` or `ScoreModel` whose score is taken; ``model`` if None.

    Returns:
        Estimates of shape ``(S,)``.

    Raises:
        ValueError: for other coordinates or wrong times.
        TypeError: if the model cannot be sampled.
    """
    grid = jnp.atleast_1d(jnp.asarray(times, jnp.result_type(float)))
    _check_model(model, times)
    return _rates(key, model, model if score is None else score, grid, checks.count(n, "n"))


def _check_model(model: Diffusion, times: Any) -> None:
    require(model.data, Posterior, "entropy production")
    ou = (processes.OrnsteinUhlenbeck, processes.VariancePreserving)
    if not isinstance(model.process, ou):
        raise ValueError(
            f"process is {type(model.process).__name__}, expected Ornstein-Uhlenbeck coordinates; "
            "pass ornstein_uhlenbeck(temperature), the times are the same"
        )
    smooth = getattr(model.data, "has_density", False)
    why = " (atomic data: exp(-production) is 0 almost surely)"
    checks.noise_time(times, zero_allowed=bool(smooth), why=why)


def _check_order(t_start: ArrayLike, t_final: ArrayLike) -> None:
    if checks.is_concrete(t_start, t_final) and not np.asarray(t_start) < np.asarray(t_final):
        raise ValueError(f"need t_start < t_final, got {t_start} and {t_final}")


def _grid(model: Diffusion, times: ArrayLike) -> Array:
    checks.decreasing(times)
    if checks.is_concrete(times) and not np.all(np.isfinite(np.asarray(times))):
        raise ValueError(f"times must be finite, but are {times!r}; start at 5, say, for noise")
    _check_model(model, times)
    return jnp.asarray(times, jnp.result_type(float))


def _finite_variance(model: Diffusion, t_start: ArrayLike, t_final: ArrayLike) -> bool | None:
    """The widest component decides along every axis; unknown for anything but diagonal mixtures."""
    data = model.data
    if not isinstance(data, GaussianMixture) or data.factors is not None:
        return None
    if not checks.is_concrete(data, t_start, t_final, model.process.temperature):
        return None
    decay = jnp.exp(-2 * jnp.asarray(t_start))
    width = jnp.min(jnp.max(data.variances, axis=0)) * decay + model.process.variance(t_start)
    span = jnp.asarray(t_final) - t_start
    return bool(has_finite_variance(width, span, model.process.temperature))


def _drift(model: Any, x: Array, t: Array, temperature: Any) -> Array:
    return x + 2 * temperature * score_at(model, x, t)


def _square(x: Array) -> Array:
    return jnp.sum(jnp.square(x), axis=-1)


@jax.jit
def _exact_step(key: Array, process: Any, x: Array, s: Array, t: Array) -> Array:
    factor, variance = processes.transition(process, s, t)
    return factor * x + jnp.sqrt(variance) * normal(key, x.shape, x.dtype)


@jax.jit
def _paths(
    key: Array, drift: Any, simulated: Any, x: Array, times: Array
) -> tuple[Array, tuple[Array, ...]]:
    """End states, and the sums of (2), (3) and (4)."""
    T = jnp.asarray(drift.process.temperature, x.dtype)

    def step(key: Array, state: Any, t: Array, t_next: Array) -> tuple[Any, None]:
        x, (midpoint, kernel, noising) = state
        dt = t - t_next
        noise = normal(key, x.shape, x.dtype)
        y = x + _drift(simulated, x, t, T) * dt + jnp.sqrt(2 * T * dt) * noise
        here, there, middle = (_drift(drift, p, t, T) for p in (x, y, 0.5 * (x + y)))
        ahead = _square(y - x - here * dt)
        back = _square(x - y - there * dt)
        noised = _square(x - (1 - dt) * y)
        midpoint = midpoint + jnp.sum((y - x) * middle, axis=-1) / T
        kernel = kernel + (back - ahead) / (4 * T * dt)
        return (y, (midpoint, kernel, noising + (noised - ahead) / (4 * T * dt))), None

    zero = jnp.zeros(x.shape[:-1], x.dtype)
    (x, sums), _ = run_steps(step, key, (x, (zero, zero, zero)), times)
    return x, sums


def _pair(
    key: Array, model: Diffusion, drift: Any, simulated: Any, t: Array, s: Array, n: int
) -> Array:
    """The log ratio (5) of n pairs."""
    key_start, key_step = jax.random.split(key)
    x = model.sample(key_start, t, n)
    end, (_, _, noising) = _paths(key_step, drift, simulated, x, jnp.stack([t, s]).astype(x.dtype))
    return noising + model.log_density(x, t) - model.log_density(end, s)


@partial(jax.jit, static_argnames="n")
def _levels(
    key: Array, model: Diffusion, drift: Any, simulated: Any, times: Array, n: int
) -> Estimate:
    def level(item: tuple[Array, Array, Array]) -> Estimate:
        i, t, s = item
        key_level = jax.random.fold_in(key, i)
        return mean_and_error(_pair(key_level, model, drift, simulated, t, s, n))

    return jax.lax.map(level, (jnp.arange(times.shape[0] - 1), times[:-1], times[1:]))


@partial(jax.jit, static_argnames="n")
def _gaps(
    key: Array, model: Diffusion, drift: Any, simulated: Any, times: Array, n: int
) -> Estimate:
    def level(item: tuple[Array, Array, Array]) -> Estimate:
        i, t, s = item
        key_level = jax.random.fold_in(key, i)
        tested = _pair(key_level, model, drift, simulated, t, s, n)
        return mean_and_error(tested - _pair(key_level, model, model, model, t, s, n))

    return jax.lax.map(level, (jnp.arange(times.shape[0] - 1), times[:-1], times[1:]))


@partial(jax.jit, static_argnames="n")
def _rates(key: Array, model: Diffusion, score: Any, times: Array, n: int) -> Rates:
    T = model.process.temperature

    def level(item: tuple[Array, Array]) -> Rates:
        i, t = item
        x = model.sample(jax.random.fold_in(key, i), t, n)
        force = score_at(score, x, t.astype(x.dtype))
        production = _square(x + T * force) / T
        flow = _square(x) / T - x.shape[-1]
        values = (production, flow, 2 * production - flow, _square(force))
        return Rates(*(mean_and_error(value) for value in values))

    return jax.lax.map(level, (jnp.arange(times.shape[0]), times))
