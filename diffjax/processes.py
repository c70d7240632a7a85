r"""Noising processes: linear Gaussian channels ``x = scale(t) a + std(t) z`` on one clock.

Every ``t`` is the time of the Ornstein-Uhlenbeck process ``dx = -x dt + sqrt(2 T) dB``. The
signal-to-noise ratio fixes the time of any other process,

    snr(t) = scale(t)^2 / std(t)^2 = 1 / (T expm1(2 t)),                                 (1)

so a process chooses only its coordinates (``scale``) and the name of its own clock
(``native``). With ``c(t) = scale(t) e^t`` its forward SDE is

    dx = (d log scale / dt) x dt + c(t) sqrt(2 T) dB,                                    (2)

and, conditionally on the clean datum ``a`` and on ``x_t``, the state at ``s < t`` is Gaussian
with

    mean = scale(s) (1 - r) a + sqrt(r) std(s) / std(t) x_t,   variance = std(s)^2 (1 - r),
    r = snr(t) / snr(s) = e^{-2(t-s)} (1 - e^{-2s}) / (1 - e^{-2t}),                     (3)

which divides by no scale and stays finite at ``t -> infinity``. For the OU process (3) is the
bridge ``c_a = e^{-s} Delta_{t-s} / Delta_t``, ``c_x = e^{-(t-s)} Delta_s / Delta_t``.

References:
    Sohl-Dickstein et al. 2015 (1503.03585); Ho, Jain, Abbeel 2020 (2006.11239); Song et al.
    2021 (2011.13456); Karras et al. 2022 (2206.00364); Lipman et al. 2023 (2210.02747).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.noise import normal


@runtime_checkable
class Process(Protocol):
    """What a noising process answers: its coordinates and its own clock."""

    @property
    def temperature(self) -> Array | float:
        """Temperature T of the OU process that carries the same signal-to-noise ratio."""
        ...

    def scale(self, t: ArrayLike) -> Array:
        """Factor of the clean datum in ``x``."""
        ...

    def std(self, t: ArrayLike) -> Array:
        """Standard deviation of the noise in ``x``, per coordinate."""
        ...

    def variance(self, t: ArrayLike) -> Array:
        """``std^2``, differentiable at t = 0 where the square root is not."""
        ...

    def log_scale_rate(self, t: ArrayLike) -> Array:
        """``d log scale / dt``, the linear forward drift."""
        ...

    def native(self, t: ArrayLike) -> Array:
        """The process's own clock (index, sigma, u) at OU time ``t``."""
        ...

    def time(self, native: ArrayLike) -> Array:
        """OU time at a value of the process's own clock."""
        ...


@records.register
@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """``x_t = e^{-t} a + sqrt(T (1 - e^{-2t})) z``; see `ornstein_uhlenbeck`."""

    temperature: Array | float

    def scale(self, t: ArrayLike) -> Array:
        """``e^{-t}``."""
        return jnp.exp(-jnp.asarray(t))

    def std(self, t: ArrayLike) -> Array:
        """``sqrt(Delta_t)``."""
        return jnp.sqrt(self.variance(t))

    def variance(self, t: ArrayLike) -> Array:
        """``Delta_t = -T expm1(-2t)``."""
        return -self.temperature * jnp.expm1(-2 * jnp.asarray(t))

    def log_scale_rate(self, t: ArrayLike) -> Array:
        """-1 at every time."""
        return -jnp.ones_like(jnp.asarray(t))

    def native(self, t: ArrayLike) -> Array:
        """OU time itself."""
        return jnp.asarray(t)

    def time(self, native: ArrayLike) -> Array:
        """OU time itself."""
        return jnp.asarray(native)


@records.register
@dataclass(frozen=True)
class VariancePreserving:
    """OU coordinates at T = 1 with a step index as clock; see `variance_preserving`."""

    schedule: Array

    @property
    def temperature(self) -> Array | float:
        """1: the variance that is preserved is that of the standard normal."""
        return 1.0

    def scale(self, t: ArrayLike) -> Array:
        """``e^{-t} = sqrt(alpha bar)``."""
        return jnp.exp(-jnp.asarray(t))

    def std(self, t: ArrayLike) -> Array:
        """``sqrt(1 - alpha bar)``."""
        return jnp.sqrt(self.variance(t))

    def variance(self, t: ArrayLike) -> Array:
        """``1 - alpha bar = -expm1(-2t)``."""
        return -jnp.expm1(-2 * jnp.asarray(t))

    def log_scale_rate(self, t: ArrayLike) -> Array:
        """-1 at every time."""
        return -jnp.ones_like(jnp.asarray(t))

    def native(self, t: ArrayLike) -> Array:
        """Step index, linearly interpolated and held at the ends of the schedule."""
        index = jnp.arange(self.schedule.shape[0], dtype=self.schedule.dtype)
        return jnp.interp(jnp.asarray(t, self.schedule.dtype), self.schedule, index)

    def time(self, native: ArrayLike) -> Array:
        """OU time of a (fractional) step index."""
        index = jnp.arange(self.schedule.shape[0], dtype=self.schedule.dtype)
        return jnp.interp(jnp.asarray(native, self.schedule.dtype), index, self.schedule)


@records.register
@dataclass(frozen=True)
class VarianceExploding:
    """``x = a + sigma z``, ``sigma^2 = T expm1(2t)``; see `variance_exploding`."""

    temperature: Array | float

    def scale(self, t: ArrayLike) -> Array:
        """1 at every time."""
        return jnp.ones_like(jnp.asarray(t) * 1.0)

    def std(self, t: ArrayLike) -> Array:
        """``sigma(t)``; infinite beyond t = 44 in float32."""
        return jnp.sqrt(self.variance(t))

    def variance(self, t: ArrayLike) -> Array:
        """``sigma^2 = T expm1(2t)``."""
        return self.temperature * jnp.expm1(2 * jnp.asarray(t))

    def log_scale_rate(self, t: ArrayLike) -> Array:
        """0 at every time."""
        return jnp.zeros_like(jnp.asarray(t) * 1.0)

    def native(self, t: ArrayLike) -> Array:
        """``sigma``."""
        return self.std(t)

    def time(self, native: ArrayLike) -> Array:
        """``log(1 + sigma^2 / T) / 2``."""
        return 0.5 * jnp.log1p(jnp.square(jnp.asarray(native)) / self.temperature)


@records.register
@dataclass(frozen=True)
class RectifiedFlow:
    """``x = (1 - u) a + u z``, the straight path of flow matching; see `rectified_flow`."""

    temperature: Array | float

    def _ou_std(self, t: ArrayLike) -> Array:
        """``D = sqrt(-T expm1(-2t))``, in which no expression overflows at large ``t``."""
        return jnp.sqrt(-self.temperature * jnp.expm1(-2 * jnp.asarray(t)))

    def scale(self, t: ArrayLike) -> Array:
        """``1 - u = e^{-t} / (e^{-t} + D)``."""
        decay = jnp.exp(-jnp.asarray(t))
        return decay / (decay + self._ou_std(t))

    def std(self, t: ArrayLike) -> Array:
        """``u = D / (e^{-t} + D)``."""
        ou_std = self._ou_std(t)
        return ou_std / (jnp.exp(-jnp.asarray(t)) + ou_std)

    def variance(self, t: ArrayLike) -> Array:
        """``u^2``."""
        decay = jnp.exp(-jnp.asarray(t))
        ou_variance = -self.temperature * jnp.expm1(-2 * jnp.asarray(t))
        return ou_variance / jnp.square(decay + jnp.sqrt(ou_variance))

    def log_scale_rate(self, t: ArrayLike) -> Array:
        """``-T / (D (e^{-t} + D))``; diverges like ``t^{-1/2}`` as ``t -> 0``."""
        ou_std = self._ou_std(t)
        return -self.temperature / (ou_std * (jnp.exp(-jnp.asarray(t)) + ou_std))

    def native(self, t: ArrayLike) -> Array:
        """``u`` in [0, 1]."""
        return self.std(t)

    def time(self, native: ArrayLike) -> Array:
        """``log(1 + u^2 / (T (1 - u)^2)) / 2``; infinite at ``u = 1``."""
        u = jnp.asarray(native)
        return 0.5 * jnp.log1p(jnp.square(u / (1 - u)) / self.temperature)


def ornstein_uhlenbeck(temperature: float = 1.0) -> OrnsteinUhlenbeck:
    """Ornstein-Uhlenbeck process ``dx = -x dt + sqrt(2 T) dB``: ``x_t = e^{-t} a + std z``.

    Args:
        temperature: T > 0, the variance per coordinate that the noise reaches.

    Raises:
        ValueError: if the temperature is not positive.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), eq. (1).
    """
    checks.positive(temperature, "temperature")
    return OrnsteinUhlenbeck(temperature)


def variance_preserving(schedule: ArrayLike) -> VariancePreserving:
    """Variance-preserving process: OU at T = 1 whose own clock is a step index.

    Args:
        schedule: OU time of every step, ``(steps,)``, increasing with the index, as returned by
            `diffjax.schedules.ddpm_linear` or `diffjax.schedules.cosine`.

    Raises:
        ValueError: if the schedule is not a finite, strictly increasing 1-D array.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239); Song et al. 2021 (2011.13456).
    """
    times = checks.floating(schedule, "schedule")
    if times.ndim != 1 or times.shape[0] < 2:
        raise ValueError(f"schedule has shape {times.shape}, expected the OU time of every step")
    if checks.is_concrete(times) and bool(np.any(np.diff(np.asarray(times)) <= 0)):
        raise ValueError("schedule must increase strictly; for alpha bar use schedules.ou_time")
    return VariancePreserving(times)


def variance_exploding(temperature: float = 1.0) -> VarianceExploding:
    """Variance-exploding process ``x = a + sigma z`` with ``sigma^2 = T (e^{2t} - 1)``.

    The temperature only says which OU clock is meant; sigma is the process's own clock.

    Raises:
        ValueError: if the temperature is not positive.

    References:
        Song et al. 2021 (2011.13456); Karras et al. 2022 (2206.00364).
    """
    checks.positive(temperature, "temperature")
    return VarianceExploding(temperature)


def rectified_flow(temperature: float = 1.0) -> RectifiedFlow:
    """Straight path ``x = (1 - u) a + u z``, ``u = sqrt(T expm1 2t) / (1 + sqrt(T expm1 2t))``.

    Raises:
        ValueError: if the temperature is not positive.

    References:
        Lipman et al. 2023 (2210.02747); Liu, Gong, Liu 2023 (2209.03003).
    """
    checks.positive(temperature, "temperature")
    return RectifiedFlow(temperature)


def snr(process: Process, t: ArrayLike) -> Array:
    """Signal-to-noise ratio ``scale^2 / std^2 = 1 / (T expm1(2t))``, eq. (1)."""
    t = jnp.asarray(t)
    return jnp.exp(-2 * t) / (-process.temperature * jnp.expm1(-2 * t))


def diffusion_coefficient(process: Process, t: ArrayLike) -> Array:
    """``g(t) = scale(t) e^t sqrt(2 T)`` of the forward SDE ``dx = f dt + g dB``, eq. (2).

    In the coordinates of the OU process this is ``sqrt(2 T)`` at every time.
    """
    t = jnp.asarray(t)
    return process.scale(t) * jnp.exp(t) * jnp.sqrt(2 * jnp.asarray(process.temperature, t.dtype))


def drift(process: Process, x: Array, t: ArrayLike) -> Array:
    """Forward drift ``(d log scale / dt) x``, eq. (2); ``x`` is ``(..., d)``, ``t`` ``(...)``."""
    return jnp.asarray(process.log_scale_rate(t))[..., None] * x


def perturb(key: Array, process: Process, a: Array, t: ArrayLike) -> Array:
    """Noise clean data to time ``t``: ``x = scale(t) a + std(t) z``.

    Args:
        key: typed PRNG key.
        process: the noising process.
        a: clean data ``(..., d)``.
        t: OU time, broadcast against the batch ``(...)``.

    Returns:
        ``x``, shape ``(..., d)``, dtype of ``a``.
    """
    t = jnp.asarray(t, a.dtype)
    shape = jnp.broadcast_shapes(a.shape, (*t.shape, 1))
    noise = normal(key, shape, a.dtype)
    return process.scale(t)[..., None] * a + process.std(t)[..., None] * noise


def bridge(process: Process, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array, Array]:
    """Coefficients ``(c_a, c_x, variance)`` of ``x_s`` given ``a`` and ``x_t``, eq. (3).

    ``x_s ~ N(c_a a + c_x x_t, variance I)``. The law of ``x_s`` for an exact posterior draw of
    ``a`` is that of the reverse SDE, whatever the step.

    Args:
        process: the noising process.
        s: the earlier (cleaner) time.
        t: the later (noisier) time, above 0.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239), eq. (6-7).
    """
    s, t = jnp.asarray(s), jnp.asarray(t)
    lost = _lost_fraction(s, t)
    variance_s = process.variance(s)
    c_x = _scale_ratio(process, s, t) * variance_s / process.variance(t)
    return process.scale(s) * lost, c_x, variance_s * lost


def _scale_ratio(process: Process, s: Array, t: Array) -> Array:
    """``scale(t) / scale(s)``; where both underflow every process decays like the OU one."""
    scale_s = process.scale(s)
    limits = jnp.finfo(scale_s.dtype)
    underflow = scale_s < limits.tiny / limits.eps
    ratio = process.scale(t) / jnp.where(underflow, 1, scale_s)
    return jnp.where(underflow, jnp.exp(s - t), ratio)


def _lost_fraction(s: Array, t: Array) -> Array:
    """``1 - snr(t) / snr(s)``: the share of the information on ``a`` in ``x_s`` that is lost."""
    return jnp.expm1(-2 * (t - s)) / jnp.expm1(-2 * t)


def transition(process: Process, s: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    """``(factor, variance)`` of the forward transition ``x_t | x_s ~ N(factor x_s, variance I)``.

    ``factor = scale(t) / scale(s)`` and ``variance = std(t)^2 (1 - r)`` with r of eq. (3) for
    ``s <= t``.
    """
    s, t = jnp.asarray(s), jnp.asarray(t)
    return _scale_ratio(process, s, t), process.variance(t) * _lost_fraction(s, t)
