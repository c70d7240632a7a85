r"""Noise schedules as plain arrays of OU times, and the conversion of any clock to OU time.

A schedule ``(steps,)`` lists the OU time of every step and increases with the step index, i.e.
with the noise; samplers run it backwards (`backward_grid`). All conversions go through the
signal-to-noise ratio ``snr = 1 / (T expm1(2t))``.

References:
    Ho, Jain, Abbeel 2020 (2006.11239); Nichol, Dhariwal 2021 (2102.09672); Karras et al. 2022
    (2206.00364); Lipman et al. 2023 (2210.02747).
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks


def ou_time(
    *,
    snr: ArrayLike | None = None,
    alpha_bar: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    flow: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Array:
    """OU time of a noise level that is given in another convention (exactly one of them).

    Args:
        snr: signal-to-noise ratio ``scale^2 / std^2``: ``t = log(1 + 1 / (T snr)) / 2``.
        alpha_bar: squared scale of a variance-preserving process (T = 1): ``t = -log(ab) / 2``.
        sigma: noise of ``x = a + sigma z``: ``t = log(1 + sigma^2 / T) / 2``.
        flow: ``u`` of ``x = (1 - u) a + u z``: ``t = log(1 + u^2 / (T (1 - u)^2)) / 2``.
        temperature: temperature of the OU clock.

    Raises:
        ValueError: unless exactly one convention is given, or if a value is out of its range.
    """
    given = {"snr": snr, "alpha_bar": alpha_bar, "sigma": sigma, "flow": flow}
    given = {name: value for name, value in given.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"give exactly one of snr, alpha_bar, sigma, flow; got {sorted(given)}")
    ((name, value),) = given.items()
    upper = {"alpha_bar": 1.0, "flow": 1.0}.get(name, np.inf)
    if checks.is_concrete(value):
        values = np.asarray(value)
        if not np.all((values >= 0) & (values <= upper)):
            raise ValueError(f"{name} must lie in [0, {upper}], but is {value!r}")
    value = jnp.asarray(value)
    if name == "alpha_bar":
        return -0.5 * jnp.log(value)
    if name == "snr":
        return 0.5 * jnp.log1p(1 / (temperature * value))
    ratio = value if name == "sigma" else value / (1 - value)
    return 0.5 * jnp.log1p(jnp.square(ratio) / temperature)


def linear(t_min: ArrayLike, t_max: ArrayLike, steps: int) -> Array:
    """Times spaced evenly from ``t_min`` to ``t_max``, ``(steps,)``."""
    return jnp.linspace(t_min, t_max, _count(steps))


def log_snr(t_min: ArrayLike, t_max: ArrayLike, steps: int) -> Array:
    """Times spaced evenly in ``log snr`` from ``t_min > 0`` to ``t_max``, ``(steps,)``."""
    checks.positive(t_min, "t_min")
    ends = jnp.log(jnp.expm1(2 * jnp.asarray([t_min, t_max], dtype=float)))
    return 0.5 * jnp.logaddexp(jnp.linspace(ends[0], ends[1], _count(steps)), 0.0)


def ddpm_linear(
    steps: int = 1000, beta_start: ArrayLike = 1e-4, beta_end: ArrayLike = 0.02
) -> Array:
    """DDPM's linear schedule: ``t_i = -1/2 sum_{j <= i} log(1 - beta_j)``, index from 0.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239), section 4.
    """
    beta = jnp.linspace(beta_start, beta_end, _count(steps))
    return -0.5 * jnp.cumsum(jnp.log1p(-beta))


def cosine(steps: int = 1000, offset: ArrayLike = 0.008) -> Array:
    """Cosine schedule, ``alpha_bar(i) = cos^2(pi/2 (i/N + s)/(1 + s)) / cos^2(pi/2 s/(1 + s))``.

    Index i = 0 has t = 0; i = N (infinite time) is not part of the schedule.

    References:
        Nichol, Dhariwal 2021 (2102.09672), eq. (17).
    """
    index = jnp.arange(_count(steps)) / steps
    angle = (index + offset) / (1 + offset) * jnp.pi / 2
    start = jnp.asarray(offset) / (1 + jnp.asarray(offset)) * jnp.pi / 2
    # log cos of the ratio through log1p(-tan...) would not gain: i = 0 gives exactly 0 as it is
    return -(jnp.log(jnp.cos(angle)) - jnp.log(jnp.cos(start)))


def edm(
    steps: int = 18,
    sigma_min: ArrayLike = 0.002,
    sigma_max: ArrayLike = 80.0,
    rho: ArrayLike = 7.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    """EDM noise levels ``sigma_i^{1/rho}`` evenly spaced, as OU times; index 0 is the cleanest.

    References:
        Karras et al. 2022 (2206.00364), eq. (5), where the index runs the other way.
    """
    low, high = jnp.asarray(sigma_min) ** (1 / rho), jnp.asarray(sigma_max) ** (1 / rho)
    return ou_time(sigma=jnp.linspace(low, high, _count(steps)) ** rho, temperature=temperature)


def flow(steps: int = 1000, temperature: ArrayLike = 1.0) -> Array:
    """Evenly spaced ``u_i = (i + 1) / (steps + 1)`` of the path ``(1 - u) a + u z``, as OU times.

    Both ends are left out: ``u = 0`` is t = 0 and ``u = 1`` is infinite time.
    """
    u = jnp.arange(1, _count(steps) + 1) / (steps + 1)
    return ou_time(flow=u, temperature=temperature)


SCHEDULES: dict[str, Callable[..., Array]] = {
    "ddpm-linear": ddpm_linear,
    "cosine": cosine,
    "edm": edm,
    "flow": flow,
}


def by_name(name: str, steps: int | None = None) -> Array:
    """Schedule ``ddpm-linear``, ``cosine``, ``edm`` or ``flow`` with its published parameters.

    Raises:
        ValueError: if the name is unknown.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown schedule {name!r}; choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]() if steps is None else SCHEDULES[name](steps)


def step_index(schedule: ArrayLike, t: float) -> int | None:
    """First step whose OU time is at least ``t``; None if ``t`` is NaN or beyond the schedule."""
    times = np.asarray(schedule)
    if not np.isfinite(t) or t > times[-1]:
        return None
    return int(np.searchsorted(times, t, side="left"))


def backward_grid(schedule: ArrayLike, end: float | None = 0.0) -> Array:
    """Decreasing grid for a sampler: the schedule reversed, with ``end`` appended unless None."""
    times = jnp.asarray(schedule)[::-1]
    if end is None:
        return times
    if checks.is_concrete(times) and float(np.asarray(times)[-1]) <= end:
        return times
    return jnp.concatenate([times, jnp.full((1,), end, times.dtype)])


def _count(steps: int) -> int:
    """A checked number of steps."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, but is {steps}")
    return steps
