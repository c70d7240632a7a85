r"""Speciation: when a backward trajectory chooses its class, by three criteria.

Let :math:`\Lambda` be the largest eigenvalue of the covariance of centred data. The noised state
has variance :math:`\Delta_t + \Lambda e^{-2t}` in its direction.

*Spectral*: signal and noise are equal, :math:`\Lambda e^{-2t} = T`, so
:math:`t_S = \frac12\log(\Lambda/T)` (1).

*Static*: :math:`-\log P_t` loses convexity at the centre. *Dynamic*: the potential
:math:`U = -2T\log P_t - \frac12|x|^2` of the backward process does, :math:`U''(0) = 0`. For
symmetric data of constant norm

.. math:: t_b = \tfrac12\log(1 + \Lambda/T), \qquad t_U = \tfrac12\,\mathrm{asinh}(\Lambda/T),
   \tag{2}

and for two balanced Gaussians :math:`N(\pm m, \sigma^2 I)`, :math:`M = |m|`, where
:math:`-(\log P_t)'' = 1/\Gamma_t - M^2e^{-2t}/\Gamma_t^2`,

.. math:: t_b = \tfrac12\log\Big(1 + \frac{M^2 - \sigma^2}{T}\Big), \qquad
   t_U = \tfrac12\log\frac{M^2 + \sqrt{M^4 + (\sigma^2 - T)^2}}{T}. \tag{3}

The static one is the same as :math:`\kappa = 1`, a clone agreement of 0.7752. For large :math:`M`,
:math:`t_S = t_b = \log M` and :math:`t_U = t_S + \frac12\log 2`. The criteria differ by factors
inside the logarithm, so a number must name its own. A hierarchy of centres
:math:`\pm m_1 \pm m_2 \ldots` has a time :math:`t_k = \frac12\log(|m_k|^2/T)` (4) for each
level; levels separate with the dimension only if their norms grow with different powers of it.

The dynamic criterion belongs to one member of the family of generative dynamics with the marginals
:math:`P_t`, :math:`dx = [x + (1+g)TF]\,d\tau + \sqrt{2gT}\,dW`. For symmetric data of constant norm
the centre is a fixed point of every drift at every time, the posterior there is the data law, and
with :math:`q = e^{-2t}` the largest eigenvalue of the Jacobian of the drift vanishes at

.. math:: q^2 + [(1+g)(1+\Lambda/T) - 2]\,q - g = 0. \tag{5}

The reverse SDE, :math:`g = 1`, has :math:`t_U`, and :math:`g \to \infty` has :math:`t_b`. The
probability flow, :math:`g = 0`, has :math:`q = 1 - \Lambda/T`, and an unstable centre at every time
where :math:`\Lambda \ge T`.

Clone agreements are in `theory.clone_agreement` and `theory.many_classes`, potentials in
`theory.potentials`; their names are also found here.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Biroli, Mezard 2023 (2306.03518);
Raya, Ambrogioni 2023 (2305.19693) for the SDE in (5), whose general form is derived here.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.clone_agreement import (
    clone_agreement,
    effective_kappa,
    kappa_of_agreement,
    mixture_clone_agreement,
    mixture_crossing_time,
    mixture_kappa,
    variance_clone_agreement,
    weighted_clone_agreement,
)
from theory.many_classes import (
    hierarchy_clone_agreement,
    orthogonal_clone_agreement,
    simplex_clone_agreement,
)
from theory.potentials import (
    overlap_potential,
    reduced_drift,
    reduced_potential,
    simplex_dynamic_time,
    simplex_instability,
    simplex_potential,
    simplex_spinodal,
    simplex_spinodal_time,
)

__all__ = [
    "CentreTimes",
    "centre_times",
    "clone_agreement",
    "dynamic_time",
    "effective_kappa",
    "fixed_point_time",
    "hierarchy_clone_agreement",
    "hierarchy_times",
    "kappa_of_agreement",
    "mixture_clone_agreement",
    "mixture_crossing_time",
    "mixture_dynamic_time",
    "mixture_kappa",
    "mixture_static_time",
    "orthogonal_clone_agreement",
    "overlap_potential",
    "reduced_drift",
    "reduced_potential",
    "simplex_clone_agreement",
    "simplex_dynamic_time",
    "simplex_instability",
    "simplex_potential",
    "simplex_spinodal",
    "simplex_spinodal_time",
    "spectral_time",
    "static_time",
    "variance_clone_agreement",
    "weighted_clone_agreement",
]


def spectral_time(eigenvalue: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the strongest direction of the data and the noise have equal variance.

    .. math:: t_S = \tfrac12\log(\Lambda/T)

    NaN for an eigenvalue not above the temperature.

    Args:
        eigenvalue: largest eigenvalue of the covariance of centred data; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    eigenvalue, temperature = _spectral_arguments(eigenvalue, temperature)
    return _half_log(eigenvalue / temperature)


def static_time(eigenvalue: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the noised law of symmetric data of constant norm splits at the centre.

    .. math:: t_b = \tfrac12\log(1 + \Lambda/T)

    Args:
        eigenvalue: largest eigenvalue of the covariance of centred data; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    eigenvalue, temperature = _spectral_arguments(eigenvalue, temperature)
    return 0.5 * jnp.log1p(eigenvalue / temperature)


def dynamic_time(eigenvalue: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the backward potential of symmetric data of constant norm splits.

    .. math:: t_U = \tfrac12\,\mathrm{asinh}(\Lambda/T)

    Args:
        eigenvalue: largest eigenvalue of the covariance of centred data; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    eigenvalue, temperature = _spectral_arguments(eigenvalue, temperature)
    return 0.5 * jnp.arcsinh(eigenvalue / temperature)


class CentreTimes(NamedTuple):
    """When the centre of symmetric data of constant norm becomes unstable, by criterion."""

    sde: Array
    """Drift of the reverse SDE: `dynamic_time`."""
    ode: Array
    """Drift of the probability flow; infinite where the centre is unstable at every time."""
    log_density: Array
    """Convexity of the negative log density: `static_time`."""


def fixed_point_time(
    eigenvalue: ArrayLike, noise: ArrayLike = 1.0, temperature: ArrayLike = 1.0
) -> Array:
    r"""Time at which the centre becomes an unstable fixed point of a generative drift.

    .. math:: q^2 + [(1+g)(1+\Lambda/T) - 2]\,q - g = 0, \qquad q = e^{-2t}

    For centred data of constant norm that are symmetric under reflection. Infinite where the
    centre is unstable at every time, which happens for the probability flow with an eigenvalue of
    the temperature or more; the derivative there is zero. Zero for a zero eigenvalue.

    Args:
        eigenvalue: largest eigenvalue of the covariance of centred data; arguments broadcast.
        noise: g in units of the temperature: 1 for the reverse SDE, 0 for the probability flow.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Raya, Ambrogioni 2023 (2305.19693) for the SDE; (5).
    """
    checks.require_nonnegative("noise", noise, "pass 1 for the reverse SDE, 0 for the flow")
    checks.require_temperature(temperature)
    fix = "pass the largest eigenvalue of a covariance"
    checks.require_nonnegative("eigenvalue", eigenvalue, fix)
    eigenvalue, noise, temperature = floats(eigenvalue, noise, temperature)
    ratio = eigenvalue / temperature
    total = (1 + noise) * (1 + ratio)
    linear = total - 2
    # discriminant linear^2 + 4 g, which is zero only for the flow at ratio one
    square = linear**2 + 4 * noise
    root = jnp.sqrt(jnp.where(square > 0, square, 1))
    # 1 - q by its own quadratic near q = 1, and q without cancellation far from it
    lost = 2 * (1 + noise) * ratio / (total + root)
    far = 2 * noise / jnp.where(linear + root > 0, linear + root, 1)
    exists = (noise > 0) | (ratio < 1)
    close = exists & (lost < 0.5)
    late = exists & ~close
    # late with linear <= 0 means q = 1 - lost <= 1/2, where the subtraction loses one bit
    q = jnp.where(linear > 0, far, 1 - lost)
    near_time = -0.5 * jnp.log1p(-jnp.where(close, lost, 0))
    late_time = -0.5 * jnp.log(jnp.where(late, q, 1))
    valid = (noise >= 0) & (eigenvalue >= 0) & (temperature > 0)
    never = jnp.where(valid, jnp.inf, jnp.nan)
    return jnp.where(exists & valid, jnp.where(close, near_time, late_time), never)


def centre_times(eigenvalue: ArrayLike, temperature: ArrayLike = 1.0) -> CentreTimes:
    r"""Critical times of the centre of symmetric data of constant norm, by criterion.

    They are different numbers for one set of data, and only agree in the order: the flow first.

    Args:
        eigenvalue: largest eigenvalue of the covariance of centred data; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Raya, Ambrogioni 2023 (2305.19693); Biroli, Mezard 2023 (2306.03518); (2), (5).
    """
    return CentreTimes(
        sde=dynamic_time(eigenvalue, temperature),
        ode=fixed_point_time(eigenvalue, 0.0, temperature),
        log_density=static_time(eigenvalue, temperature),
    )


def mixture_static_time(
    mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Time at which the noised law of two balanced Gaussians splits at the centre.

    .. math:: t_b = \tfrac12\log\Big(1 + \frac{M^2 - \sigma^2}{T}\Big)

    Where kappa = 1 and the clone agreement is 0.7752. NaN unless the norm is above the standard
    deviation.

    Args:
        mean_norm: norm of a class centre; arguments broadcast.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    mean_norm, variance, temperature = _mixture_arguments(mean_norm, variance, temperature)
    beyond = (mean_norm**2 - variance) / temperature
    exists = beyond > 0
    return jnp.where(exists, 0.5 * jnp.log1p(jnp.where(exists, beyond, 1)), jnp.nan)


def mixture_dynamic_time(
    mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Time at which the backward potential of two balanced Gaussians splits at the centre.

    .. math:: t_U = \tfrac12\log\frac{M^2 + \sqrt{M^4 + (\sigma^2 - T)^2}}{T}

    NaN unless positive, which at T = 1 needs :math:`M^2 > \sigma^2 - \sigma^4/2`.

    Args:
        mean_norm: norm of a class centre; arguments broadcast.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    mean_norm, variance, temperature = _mixture_arguments(mean_norm, variance, temperature)
    square = mean_norm**4 + (variance - temperature) ** 2
    root = jnp.sqrt(jnp.where(square > 0, square, 1))
    return _half_log(jnp.where(square > 0, mean_norm**2 + root, 0) / temperature)


def hierarchy_times(mean_norms: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Spectral time of each level of centres with independent orthogonal signs.

    .. math:: t_k = \tfrac12\log(|m_k|^2/T)

    NaN for levels whose squared norm is not above the temperature.

    Args:
        mean_norms: norms of the levels, shape (..., L).
        temperature: temperature of the process, broadcast against it.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), level by level; (4).
    """
    checks.require_mean_norm(mean_norms, "mean_norms")
    checks.require_temperature(temperature)
    mean_norms, temperature = floats(mean_norms, temperature)
    return _half_log(mean_norms**2 / temperature)


def _half_log(ratio: Array) -> Array:
    exists = ratio > 1
    return jnp.where(exists, 0.5 * jnp.log(jnp.where(exists, ratio, 2)), jnp.nan)


def _spectral_arguments(eigenvalue: ArrayLike, temperature: ArrayLike) -> tuple[Array, ...]:
    fix = "pass the largest eigenvalue of a covariance"
    checks.require_nonnegative("eigenvalue", eigenvalue, fix)
    checks.require_temperature(temperature)
    return floats(eigenvalue, temperature)


def _mixture_arguments(
    mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike
) -> tuple[Array, ...]:
    checks.require_mean_norm(mean_norm)
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    return floats(mean_norm, variance, temperature)
