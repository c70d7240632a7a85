r"""The noising process as a Gaussian channel: variances, information and minimal errors.

A datum :math:`a` and a standard normal :math:`z` give, at time :math:`t` and temperature :math:`T`,

.. math:: x = e^{-t} a + \sqrt{\Delta_t} z, \qquad \Delta_t = T(1 - e^{-2t}), \qquad
   \mathrm{snr} = \frac{e^{-2t}}{\Delta_t} = \frac{1}{T(e^{2t} - 1)}. \tag{1}

The information between datum and state and the smallest mean squared error of a denoiser belong to
each other,

.. math:: I(\mathrm{snr}) = \tfrac12 \int_0^\mathrm{snr} \mathrm{mmse}(s) ds. \tag{2}

*Gaussian data* with eigenvalues :math:`\lambda_i`:
:math:`I = \frac12 \sum_i \log(1 + \lambda_i \mathrm{snr})` (3).
*A fair sign* :math:`\pm 1`: the field on it is :math:`s + \sqrt s z`, so that

.. math:: \mathrm{mmse} = 1 - E_z \tanh(s + \sqrt s z) = 1 - E_z \tanh^2(s + \sqrt s z), \qquad
   I = \log 2 - E_z \log(1 + e^{-2(s + \sqrt s z)}) \tag{4}

with :math:`s` the snr; both forms of the error agree because the state is drawn from the model that
also defines the posterior. *A balanced mixture* of :math:`N(\pm m, \sigma^2 I_d)`: the sign sees a
channel of :math:`s = \kappa^2`, :math:`\kappa = |m| e^{-t}/\sqrt{\Delta_t + \sigma^2 e^{-2t}}`,
and the total is (3) plus :math:`I_\mathrm{mix}(\kappa) = I(\kappa^2)` of (4). All of it is exact.

Source: Guo, Shamai, Verdu 2005 (cs/0412108).
"""

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.mmse import (
    Estimate,
    collapse_time_from_mmse,
    excess_entropy_from_mmse,
    information_from_mmse,
    information_from_mmse_in_time,
    information_from_noise_loss,
)
from theory.quadrature import gaussian_expectation

__all__ = [
    "Estimate",
    "binary_information",
    "binary_mmse",
    "collapse_time_from_mmse",
    "excess_entropy_from_mmse",
    "gaussian_information",
    "information_from_mmse",
    "information_from_mmse_in_time",
    "information_from_noise_loss",
    "mixture_information",
    "ou_variance",
    "signal_ratio",
    "snr",
    "state_variance",
    "time_of_snr",
]

_SATURATED = 1e3  # snr beyond which the error of a sign is zero in any floating dtype


def ou_variance(t: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Variance of the noise at time t.

    .. math:: \Delta_t = T(1 - e^{-2t})

    Args:
        t: time, not negative; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    checks.require_time(t)
    checks.require_temperature(temperature)
    t, temperature = floats(t, temperature)
    return -temperature * jnp.expm1(-2 * t)


def snr(t: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Signal-to-noise ratio of the channel at time t.

    .. math:: \mathrm{snr}(t) = \frac{1}{T(e^{2t} - 1)}

    Infinite at t = 0.

    Args:
        t: time, not negative; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    t, temperature = floats(t, temperature)
    return jnp.exp(-2 * t) / ou_variance(t, temperature)


def time_of_snr(ratio: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the channel has a given signal-to-noise ratio.

    .. math:: t = \tfrac12 \log\Big(1 + \frac{1}{T\,\mathrm{snr}}\Big)

    Args:
        ratio: signal-to-noise ratio, positive; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    checks.require("ratio", ratio, lambda v: v > 0, "positive", "pass a signal-to-noise ratio")
    checks.require_temperature(temperature)
    ratio, temperature = floats(ratio, temperature)
    return 0.5 * jnp.log1p(1 / (temperature * ratio))


def state_variance(t: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Variance per coordinate of the noised state of Gaussian data.

    .. math:: \Gamma_t = \Delta_t + \sigma^2 e^{-2t}

    Args:
        t: time, not negative; arguments broadcast.
        variance: variance per coordinate of the data.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    checks.require_variance(variance)
    t, variance, temperature = floats(t, variance, temperature)
    return ou_variance(t, temperature) + variance * jnp.exp(-2 * t)


def signal_ratio(t: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Signal-to-noise ratio per coordinate of Gaussian data.

    .. math:: u = \sigma^2 e^{-2t}/\Delta_t

    Infinite at t = 0 for positive variance, and zero for zero variance at every t.

    Args:
        t: time, not negative; arguments broadcast.
        variance: variance per coordinate of the data.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    checks.require_variance(variance)
    t, variance, temperature = floats(t, variance, temperature)
    noiseless = t == 0
    ratio = variance * snr(jnp.where(noiseless, 1, t), temperature)
    return jnp.where(noiseless & (variance > 0), jnp.inf, ratio)


def gaussian_information(ratio: ArrayLike, eigenvalues: ArrayLike) -> Array:
    r"""Information between Gaussian data and the noised state, in nats.

    .. math:: I = \tfrac12 \sum_i \log(1 + \lambda_i \mathrm{snr})

    Args:
        ratio: signal-to-noise ratio of the channel, shape (...).
        eigenvalues: eigenvalues of the covariance, shape (..., d); zeros are allowed.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (3).
    """
    checks.require("ratio", ratio, lambda v: v >= 0, ">= 0", "pass a signal-to-noise ratio")
    checks.require_nonnegative("eigenvalues", eigenvalues, "clip rounding errors at 0")
    ratio, eigenvalues = floats(ratio, eigenvalues)
    present = eigenvalues > 0
    product = jnp.where(present, eigenvalues, 1) * ratio[..., None]
    return 0.5 * jnp.sum(jnp.where(present, jnp.log1p(product), 0), axis=-1)


def binary_mmse(ratio: ArrayLike) -> Array:
    r"""Smallest mean squared error for a fair sign behind Gaussian noise.

    .. math:: \mathrm{mmse}(s) = 1 - E_z \tanh^2(s + \sqrt s z)

    Args:
        ratio: signal-to-noise ratio s, any shape.

    Raises:
        ValueError: for a negative concrete ratio.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (4).
    """
    checks.require("ratio", ratio, lambda v: v >= 0, ">= 0", "pass a signal-to-noise ratio")
    (ratio,) = floats(ratio)
    return _mmse(ratio)


def binary_information(ratio: ArrayLike) -> Array:
    r"""Information about a fair sign behind Gaussian noise, in nats.

    .. math:: I(s) = \log 2 - E_z \log(1 + e^{-2(s + \sqrt s z)})

    Args:
        ratio: signal-to-noise ratio s, any shape.

    Raises:
        ValueError: for a negative concrete ratio.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (4).
    """
    checks.require("ratio", ratio, lambda v: v >= 0, ">= 0", "pass a signal-to-noise ratio")
    (ratio,) = floats(ratio)
    return _information(ratio)


def mixture_information(kappa: ArrayLike) -> Array:
    r"""Information about the class of a balanced mixture of two Gaussians, in nats.

    .. math:: I_\mathrm{mix}(\kappa) = \log 2 - E_z \log(1 + e^{-2(\kappa^2 + \kappa z)})

    Args:
        kappa: distance of a class centre from the middle in units of the standard deviation of the
            state, any shape.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (4).
    """
    (kappa,) = floats(kappa)
    return _information(kappa**2)


def _fields(ratio: Array, z: Array) -> Array:
    s = jnp.minimum(ratio, _SATURATED)[..., None]
    return s + jnp.sqrt(s) * z


@jax.jit
def _mmse_slope(ratio: Array) -> Array:
    """d mmse / d snr = -E sech^4."""

    def sech4(z: Array) -> Array:
        return (1 - jnp.tanh(_fields(ratio, z)) ** 2) ** 2

    return -gaussian_expectation(sech4, dtype=ratio.dtype)


@jax.custom_jvp
@jax.jit
def _mmse(ratio: Array) -> Array:
    def tanh2(z: Array) -> Array:
        return jnp.tanh(_fields(ratio, z)) ** 2

    return 1 - gaussian_expectation(tanh2, dtype=ratio.dtype)


@jax.custom_jvp
@jax.jit
def _information(ratio: Array) -> Array:
    def missing(z: Array) -> Array:
        return jax.nn.softplus(-2 * _fields(ratio, z))

    return math.log(2) - gaussian_expectation(missing, dtype=ratio.dtype)


# the square root in the field has no derivative at zero, its averages have
_mmse.defjvps(lambda tangent, _, ratio: _mmse_slope(ratio) * tangent)
_information.defjvps(lambda tangent, _, ratio: 0.5 * _mmse(ratio) * tangent)
