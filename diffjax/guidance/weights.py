"""Guidance weights: numbers, functions of OU time, and schedules that can be optimised.

A schedule is piecewise linear between knots, in OU time or in log-SNR, and constant beyond them.
Knots and values are traced, so that the gradient of anything that a guided sampler returns with
respect to ``schedule.values`` is one ``jax.grad`` away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from diffjax import checks, records

Weight = Any
"""A number ``()``, or a pytree that can be called with an OU time ``()``."""


@records.register
@dataclass(frozen=True)
class Schedule:
    """A weight over time; made by `schedule`."""

    knots: Array  # (K,) increasing: OU times, or log expm1(2 t)
    values: Array  # (K,)
    logarithmic: bool = field(metadata={"static": True})

    def __call__(self, t: Array) -> Array:
        """The weight at OU time ``t``."""
        position = jnp.log(jnp.expm1(2 * t)) if self.logarithmic else t
        kind = position.dtype
        return jnp.interp(position, self.knots.astype(kind), self.values.astype(kind))


def schedule(
    values: ArrayLike,
    *,
    times: ArrayLike | None = None,
    log_snr: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Schedule:
    """A guidance weight that depends on time, linear between knots and constant beyond them.

    Args:
        values: the weight at every knot, ``(K,)``.
        times: OU times of the knots ``(K,)``, in any order; pass ``times[:-1]`` of a sampler's
            grid to set the weight of every step.
        log_snr: instead of ``times``: log signal-to-noise ratios of the knots; the weight is then
            linear in log-SNR.
        temperature: temperature of the process, which relates log-SNR to time:
            ``snr = 1 / (T expm1(2 t))``.

    Raises:
        ValueError: unless exactly one clock is given, with one distinct knot for each value.
    """
    if (times is None) == (log_snr is None):
        raise ValueError("give the knots of the schedule either as times or as log_snr")
    values = checks.floating(values, "values")
    given = checks.floating(times if log_snr is None else log_snr, "knots of the schedule")
    if values.ndim != 1 or given.shape != values.shape or values.shape[0] < 1:
        raise ValueError(
            f"values has shape {values.shape} and the knots {given.shape}, expected (K,) for both"
        )
    if log_snr is None:
        checks.noise_time(given, zero_allowed=True)
        knots = given
    else:
        knots = -given - jnp.log(jnp.asarray(temperature, given.dtype))
    order = jnp.argsort(knots)
    knots = knots[order]
    if checks.is_concrete(knots) and bool(jnp.any(jnp.diff(knots) <= 0)):
        raise ValueError(f"the knots of the schedule must be distinct, but are {given}")
    return Schedule(knots, values[order], log_snr is not None)


def as_weight(value: Any, name: str) -> Weight:
    """A number as an array, a schedule as it is, a function of OU time as a pytree.

    Raises:
        ValueError: if it is none of these.
    """
    if isinstance(value, (Schedule, Partial)):
        return value
    if callable(value):
        return Partial(value)
    weight = value if isinstance(value, jax.core.Tracer) else checks.floating(value, name)
    if jnp.ndim(weight) != 0:
        raise ValueError(
            f"{name} has shape {jnp.shape(weight)}, expected one number; for a weight that "
            "depends on time pass guidance.schedule(values, times=...)"
        )
    return weight


def weight_at(weight: Weight, t: Array, x: Array) -> Array:
    """The weight at ``t`` in the dtype of ``x``."""
    value = weight(jnp.asarray(t, x.dtype)) if callable(weight) else weight
    return jnp.asarray(value, x.dtype)
