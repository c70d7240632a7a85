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
