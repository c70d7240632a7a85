r"""Collapse at finite dimension and finite number of training points.

Gaussian data :math:`a \sim N(0, \sigma^2 I_d)`, :math:`n` training points, a state
:math:`x = e^{-t}a_1 + \sqrt{\Delta_t} z` made from the first of them, and
:math:`u = \sigma^2 e^{-2t}/\Delta_t`.

**Nearest point.** Given :math:`x` and :math:`z`, another point is closer to :math:`x` than its
own with probability

.. math:: p = P\Big[\chi'^2_d\Big(\frac{|x|^2}{\sigma_t^2}\Big)
   < \frac{\Delta_t |z|^2}{\sigma_t^2}\Big], \qquad \sigma_t^2 = \sigma^2 e^{-2t}, \tag{1}

and the others are independent, so the own point is the nearest with probability

.. math:: P_\mathrm{own} = E\big[(1 - p)^{n-1}\big], \tag{2}

the probability that a random code on a Gaussian channel is decoded without error. The average runs
over :math:`y = \Delta_t|z|^2/\sigma_t^2 = \chi^2_d/u` and, given it, over
:math:`|x|^2/\sigma_t^2 \sim \chi'^2_d(y)` (3). Exact for every :math:`d`, :math:`n` and :math:`t`.

**Empirical excess entropy.** With :math:`L = \log(Z_{2..n}/Z_1)`, the log ratio of the weights
of the other points and of the own one, :math:`f^e = \frac1d E\log(1 + e^L)` (4) exactly. Above
collapse the other points sum up like their average and :math:`L` is minus the information
density plus :math:`\log n`, which for large :math:`d` is

.. math:: L \sim N\Big(d f, \frac{d\,u}{1 + u}\Big). \tag{5}

(4) with (5) is asymptotic above the collapse time and an upper estimate around it.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Polyanskiy, Poor, Verdu 2010
(information density of a Gaussian channel).
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from theory import checks, quadrature
from theory.channel import signal_ratio
from theory.checks import Array, elementwise, floats
from theory.excess_entropy import gaussian_excess_entropy, mixture_excess_entropy


def nearest_is_own_probability(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Probability that the training point behind a noised state is the one nearest to it.

    .. math:: P_\mathrm{own}(t) = E[(1 - p)^{n-1}]

    with (1), for Gaussian data; exact for every ``dim`` and ``log_n``. It is 1 at t = 0 and 1/n for
    large t. Arguments broadcast.

    Args:
        t: time.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate of the data, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for the setting.
    """
    checks.require_time(t)
    checks.require_size(log_n, dim)
    checks.require_positive("variance", variance, "points without spread are all equally near")
    checks.require_temperature(temperature)
    return _own(*floats(t, log_n, dim, variance, temperature))


def gaussian_approximation_of_own(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Gaussian approximation of the probability that the nearest point is the own one.

    .. math:: \Phi\Big(\frac{\frac d2 \log(1 + u) - \log n}{\sqrt{d u/(1 + u)}}\Big)

    It gives 1/2 at the collapse time, where the exact value is about 0.68; kept to show by how
    much the central limit theorem is off.

    Args:
        t: time, positive.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate of the data, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Polyanskiy, Poor, Verdu 2010, the normal approximation.
    """
    checks.require_time(t)
    checks.require_size(log_n, dim)
    checks.require_positive("variance", variance, "points without spread are all equally near")
    checks.require_temperature(temperature)
    t, log_n, dim, variance, temperature = floats(t, log_n, dim, variance, temperature)
    u = signal_ratio(t, variance, temperature)
    return ndtr((0.5 * dim * jnp.log1p(u) - log_n) / jnp.sqrt(dim * u / (1 + u)))


def expected_softplus(mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Average of :math:`\log(1 + e^L)` over a normal variable.

    .. math:: E\log(1 + e^L), \qquad L \sim N(\text{mean}, \text{variance})

    Accurate to 1e-11 for every variance; at zero variance it is the function itself.

    Args:
        mean: mean of L.
        variance: variance of L, not negative.

    Raises:
        ValueError: for a negative concrete variance.

    Source: (4).
    """
    checks.require_variance(variance)
    return _softplus(*floats(mean, variance))


def gaussian_empirical_excess_entropy(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Excess entropy of the empirical measure of Gaussian data at finite size.

    .. math:: f^e(t) \simeq \frac1d E\log(1 + e^L), \qquad L \sim N(d f, d u/(1 + u))

    Asymptotic above the collapse time, an upper estimate near it.

    Args:
        t: time, positive.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate of the data.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for the quantity; (4), (5).
    """
    f = gaussian_excess_entropy(t, log_n, dim, variance, temperature)
    return _empirical(f, *floats(t, dim, variance, temperature))


def mixture_empirical_excess_entropy(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Excess entropy of the empirical measure of a balanced mixture at finite size.

    .. math:: f^e(t) \simeq \frac1d E\log(1 + e^L), \qquad L \sim N(d f, d u/(1 + u))

    with the f of the mixture, information about the class included. Asymptotic above the collapse
    time, an upper estimate near it.

    Args:
        t: time, positive.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for the quantity; (4), (5).
    """
    f = mixture_excess_entropy(t, log_n, dim, mean_norm, variance, temperature)
    return _empirical(f, *floats(t, dim, variance, temperature))


def _empirical(f: Array, t: Array, dim: Array, variance: Array, temperature: Array) -> Array:
    u = signal_ratio(t, variance, temperature)
    return _softplus(dim * f, dim * u / (1 + u)) / dim


def _softplus_kernel(mean: Array, variance: Array) -> Array:
    """Trapezoid rule for a narrow normal, split at the kink of a wide one."""
    wide = variance > 16
    narrow_variance = jnp.where(wide | (variance == 0), 1, variance)
    deviation = jnp.where(variance == 0, 0, jnp.sqrt(narrow_variance))
    narrow = quadrature.gaussian_expectation(
        lambda z: jax.nn.softplus(mean + deviation * z), dtype=mean.dtype
    )
    return jnp.where(wide, _wide_softplus(mean, jnp.where(wide, variance, 16)), narrow)


def _wide_softplus(mean: Array, variance: Array) -> Array:
    s = jnp.sqrt(variance)
    ratio = mean / s
    positive_part = mean * ndtr(ratio) + s * _density(ratio)
    length, weights = quadrature.legendre_nodes(jnp.zeros_like(mean), 40.0 + 0 * mean)
    both = _density((length - mean) / s) + _density((length + mean) / s)
    return positive_part + jnp.sum(weights * jnp.log1p(jnp.exp(-length)) * both) / s


def _density(z: Array) -> Array:
    return jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def _own_kernel(t: Array, log_n: Array, dim: Array, variance: Array, temperature: Array) -> Array:
    u = signal_ratio(jnp.where(t == 0, 1, t), variance, temperature)
    far = jnp.isinf(t)
    chi, outer_weights = quadrature.chi_square_nodes(dim, _OUTER)
    log_others = log_n + jnp.log(-jnp.expm1(-log_n))

    def given_noise(y: Array) -> Array:
        q, weights = quadrature.noncentral_chi_square_nodes(dim, y, _INNER)
        lower, upper = jax.vmap(quadrature.noncentral_chi_square_log_tails, (None, None, 0))(
            y, dim, q
        )
        # log(-log(1 - p)); the tail's own logarithm where 1 - p rounds to one
        tiny = lower < -18
        rate = jnp.where(tiny, lower, jnp.log(-jnp.where(tiny, -1, upper)))
        return jnp.sum(weights * jnp.exp(-jnp.exp(log_others + rate)))

    value = jnp.sum(outer_weights * jax.vmap(given_noise)(chi / jnp.where(far, 1, u)))
    return jnp.where(t == 0, 1, jnp.where(far, jnp.exp(-log_n), value))


_OUTER = 64
_INNER = 128
_softplus = elementwise(_softplus_kernel)
_own = elementwise(_own_kernel)
