"""A measured number and its standard error, and crossings of measured curves."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array


class Estimate(NamedTuple):
    """A mean and its standard error over independent samples (arrays of one shape)."""

    mean: Array
    error: Array


def mean_and_error(samples: Array, axis: int = 0) -> Estimate:
    """Mean over ``axis`` and the standard error of that mean.

    Sums run in float32 or better. With one sample the error is infinite: nothing is known of it.
    """
    n = samples.shape[axis]
    wide = samples.astype(jnp.promote_types(samples.dtype, jnp.float32))
    mean = jnp.mean(wide, axis=axis)
    if n < 2:
        return Estimate(mean, jnp.full_like(mean, jnp.inf))
    return Estimate(mean, jnp.std(wide, axis=axis, ddof=1) / np.sqrt(n))


class Moments(NamedTuple):
    """Number, mean and sum of squared deviations of some samples (arrays of one shape)."""

    number: Array
    mean: Array
    squares: Array


def moments(samples: Array, member: Array | None = None) -> Moments:
    """Moments of ``samples (B, ...)`` over the first axis, of those where ``member`` is 1.

    Sums run in float32 or better; ``member`` broadcasts against the samples.
    """
    wide = samples.astype(jnp.promote_types(samples.dtype, jnp.float32))
    kept = jnp.ones_like(wide) if member is None else jnp.broadcast_to(member, wide.shape)
    kept = kept.astype(wide.dtype)
    count = jnp.sum(kept, axis=0)
    mean = jnp.sum(kept * wide, axis=0) / jnp.maximum(count, 1)
    return Moments(count, mean, jnp.sum(kept * jnp.square(wide - mean), axis=0))


def merge_moments(parts: Moments) -> Estimate:
    """Mean and error over all samples of several blocks, stacked along the first axis.

    Without a sample the mean is NaN, with one the error is infinite.
    """
    count = jnp.sum(parts.number, axis=0)
    mean = jnp.sum(parts.number * parts.mean, axis=0) / count
    between = jnp.sum(parts.number * jnp.square(parts.mean - mean), axis=0)
    squares = jnp.sum(parts.squares, axis=0) + between
    spread = jnp.sqrt(squares / jnp.maximum(count - 1, 1) / count)
    return Estimate(mean, jnp.where(count > 1, spread, jnp.inf))


def crossing(times: Array, curve: Array, error: Array, level: float) -> tuple[float, float]:
    """Time at which a measured curve crosses ``level``, and its standard error.

    The last crossing on the grid (largest time) is read off by linear interpolation in time; its
    error propagates the errors of the two neighbouring points. Use independent points.

    Args:
        times: increasing ``(T,)``.
        curve: measured values ``(T,)``.
        error: standard errors ``(T,)``.
        level: the value to cross.

    Returns:
        ``(time, standard error)``; ``(nan, nan)`` if the curve does not cross the level.
    """
    t, y, e = (np.asarray(a, dtype=np.float64) for a in (times, curve, error))
    side = y > level
    change = np.nonzero(side[1:] != side[:-1])[0]
    if change.size == 0:
        return float("nan"), float("nan")
    i = int(change[-1])
    slope = (y[i + 1] - y[i]) / (t[i + 1] - t[i])
    share = (level - y[i]) / (y[i + 1] - y[i])
    spread = np.hypot((1 - share) * e[i], share * e[i + 1])
    return float(t[i] + share * (t[i + 1] - t[i])), float(spread / abs(slope))
