r"""Excess entropy: how far the training set is from running out, and where it vanishes.

With :math:`n` training points in :math:`d` dimensions, the excess entropy per coordinate of the
noised law over well separated noised points is the logarithm of :math:`n` less the information
that a noised state keeps about its datum,

.. math:: f(t) = \alpha + \tfrac12 + \tfrac12 \log(2\pi\Delta_t) - s(t)
   = \tfrac1d [\log n - I(a; x_t)], \qquad \alpha = \frac{\log n}{d}, \tag{1}

where :math:`s = -\frac1d E \log P_t`. It vanishes at the collapse time. Closed forms, exact for
every :math:`d`: a Gaussian of eigenvalues :math:`\lambda_i`

.. math:: f = \alpha - \frac{1}{2d} \sum_i \log(1 + \lambda_i \mathrm{snr}) \tag{2}

and a balanced mixture of :math:`N(\pm m, \sigma^2 I_d)` with :math:`u = \sigma^2 \mathrm{snr}`

.. math:: f = \alpha - \tfrac12 \log(1 + u) - \frac{I_\mathrm{mix}(\kappa)}{d}. \tag{3}

For data with a given covariance, (2) is a lower bound, since a Gaussian keeps the most information.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import (
    gaussian_information,
    mixture_information,
    signal_ratio,
    snr,
    state_variance,
)
from theory.checks import Array, floats


def gaussian_excess_entropy(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Excess entropy per coordinate of isotropic Gaussian data.

    .. math:: f(t) = \frac{\log n}{d} - \tfrac12 \log(1 + u), \qquad u = \sigma^2 e^{-2t}/\Delta_t

    Minus infinity at t = 0. Arguments broadcast.

    Args:
        t: time.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    checks.require_size(log_n, dim)
    t, log_n, dim, variance, temperature = floats(t, log_n, dim, variance, temperature)
    return log_n / dim - 0.5 * jnp.log1p(signal_ratio(t, variance, temperature))


def spectrum_excess_entropy(
    t: ArrayLike, log_n: ArrayLike, eigenvalues: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Excess entropy per coordinate of Gaussian data with a given spectrum.

    .. math:: f(t) = \frac{\log n}{d} - \frac{1}{2d} \sum_i \log(1 + \lambda_i \mathrm{snr})

    A lower bound for data that are not Gaussian but have this covariance.

    Args:
        t: time, shape (...).
        log_n: natural logarithm of the number of training points, shape (...).
        eigenvalues: eigenvalues of the covariance, shape (..., d); zeros are allowed.
        temperature: temperature of the process, shape (...).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    checks.require_positive("log_n", log_n, "two training points are needed")
    t, log_n, eigenvalues, temperature = floats(t, log_n, eigenvalues, temperature)
    information = gaussian_information(snr(t, temperature), eigenvalues)
    return (log_n - information) / eigenvalues.shape[-1]


def mixture_excess_entropy(
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Excess entropy per coordinate of a balanced mixture of two Gaussians.

    .. math:: f(t) = \frac{\log n}{d} - \tfrac12 \log(1 + u) - \frac{I_\mathrm{mix}(\kappa)}{d}

    Exact for every dimension; minus infinity at t = 0. Arguments broadcast.

    Args:
        t: time.
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        mean_norm: norm of a class centre, the classes being at plus and minus it.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), with the information about the
    class that their plotted curve leaves out; (3).
    """
    checks.require_mean_norm(mean_norm)
    values = floats(t, log_n, dim, mean_norm, variance, temperature)
    t, log_n, dim, mean_norm, variance, temperature = values
    spread = state_variance(t, variance, temperature)
    point_like = spread == 0
    kappa = mean_norm * jnp.exp(-t) / jnp.sqrt(jnp.where(point_like, 1, spread))
    kappa = jnp.where(point_like & (mean_norm > 0), jnp.inf, kappa)
    f = gaussian_excess_entropy(t, log_n, dim, variance, temperature)
    return f - mixture_information(kappa) / dim
