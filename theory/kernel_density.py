r"""Kernel density estimation of a Gaussian in large dimension: where the estimate condenses.

A Gaussian kernel of width :math:`h` on :math:`n = e^{\alpha d}` points of :math:`N(0, I_d)`,
evaluated at a *fresh* point of the same law, is a Random Energy Model of squared distances: with
:math:`w = 1/h^2` and the cumulant function

.. math:: g(\lambda) = -\tfrac12\log(1 + \lambda w) - \frac{\lambda w/2}{1 + \lambda w} \tag{1}

it condenses at :math:`\lambda_c = w_*/w`, where

.. math:: \alpha = \tfrac12\log(1 + w_*) - \tfrac12\frac{w_*}{(1 + w_*)^2}, \qquad
   h_G = w_*^{-1/2}, \qquad \lambda_c = (h/h_G)^2. \tag{2}

For :math:`h < h_G` few points carry the estimate, :math:`Y_2 = 1 - (h/h_G)^2` (3). Its p-th powers
condense where :math:`\lambda_c < p`: the squares below :math:`h_\mathrm{CLT} = \sqrt2 h_G` (4),
above which fluctuations are Gaussian, and :math:`\alpha`-stable of index :math:`(h/h_G)^2` in
between.

**Divergence.** Since :math:`\hat\rho(x) = n^{-1}(2\pi h^2)^{-d/2} Z`, with the free energy
:math:`\varphi = \lim \frac1d\log Z` at :math:`\beta = 1`,

.. math:: D(h) = \lim \tfrac1d E_\rho \log\frac{\rho}{\hat\rho}
   = \tfrac12\log h^2 - \tfrac12 + \alpha - \varphi \tag{5}

.. math:: D = \begin{cases} \frac12\log(1 + h^2) - \frac12\frac{h^2}{1 + h^2} & h \ge h_G \\
   \frac12\log h^2 - \frac12 + \alpha + \frac{1}{2h^2}\frac{2 + w_*}{(1 + w_*)^2} & h < h_G
   \end{cases} \tag{6}

The first line, the divergence from the data smoothed by the kernel, grows with :math:`h`; the
second has its minimum inside the condensed phase, at

.. math:: h_\mathrm{opt}^2 = \frac{2 + w_*}{(1 + w_*)^2} < h_G^2. \tag{7}

This is not the collapse of diffusion, where the point is a noised training point. Exact as
:math:`d \to \infty`.

Source: Biroli, Mezard 2024 (2408.05807).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.roots import find_root

_ALPHA = "pass log(n)/d of at least two points"
_WIDTH = "pass the standard deviation of the kernel"


class KernelThresholds(NamedTuple):
    """Widths that separate the regimes of a kernel density estimate, in standard deviations."""

    glass: Array
    """Below it the estimate is condensed: few points carry it."""
    gaussian: Array
    """Above it the fluctuations of the estimate are Gaussian."""
    optimal: Array
    """Minimises the Kullback-Leibler divergence."""


def thresholds(alpha: ArrayLike) -> KernelThresholds:
    r"""Widths at which a Gaussian kernel density estimate changes its nature.

    .. math:: h_G = w_*^{-1/2}, \quad h_\mathrm{CLT} = \sqrt2 h_G, \quad
       h_\mathrm{opt} = \frac{\sqrt{2 + w_*}}{1 + w_*}

    with (2). NaN where the solver did not converge.

    Args:
        alpha: logarithm of the number of points per coordinate, any shape, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (2), (4), (7).
    """
    checks.require_positive("alpha", alpha, _ALPHA)
    w = _critical(*floats(alpha))
    glass = 1 / jnp.sqrt(w)
    return KernelThresholds(glass, math.sqrt(2) * glass, jnp.sqrt(2 + w) / (1 + w))


def stability_index(width: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Index of the stable law of the fluctuations of the estimate.

    .. math:: \lambda_c = (h/h_G)^2

    Between 1 and 2 the fluctuations over data sets are stable of this index; from 2 on they are
    Gaussian; below 1 it is the index m of the Poisson-Dirichlet law of the weights.

    Args:
        width: width of the kernel, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (2).
    """
    checks.require_positive("width", width, _WIDTH)
    checks.require_positive("alpha", alpha, _ALPHA)
    width, alpha = floats(width, alpha)
    return width**2 * _critical(alpha)


def kernel_participation(width: ArrayLike, alpha: ArrayLike, power: ArrayLike = 1.0) -> Array:
    r"""Participation ratio of the terms of the estimate, or of powers of them.

    .. math:: \frac{\sum_\mu k_\mu^{2p}}{(\sum_\mu k_\mu^p)^2} \to
       \max\Big(0, 1 - \frac{(h/h_G)^2}{p}\Big)

    on average, for kernels :math:`k_\mu`. It is :math:`Y_2` for p = 1; for p = 2 it ends at
    :math:`h_\mathrm{CLT}`: the largest term is seen in the fluctuations, not in the sum.

    Args:
        width: width of the kernel, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate, positive.
        power: the exponent p, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (3), (4).
    """
    checks.require_positive("power", power, "1 for the weights themselves")
    index = stability_index(width, alpha)
    (power,) = floats(power)
    return jnp.maximum(0, 1 - index / power.astype(index.dtype))


def kullback_leibler(width: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Divergence of a Gaussian from its kernel density estimate, per coordinate.

    .. math:: D(h) = \lim \tfrac1d E_\rho \log\frac{\rho}{\hat\rho}

    The logarithm of the estimate does not fluctuate in the limit, so that this is also the error
    of the log density per coordinate at a typical point. Minimal at ``thresholds(alpha).optimal``,
    continuous with its first derivative at ``glass``.

    Args:
        width: width of the kernel, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (5), (6).
    """
    checks.require_positive("width", width, _WIDTH)
    checks.require_positive("alpha", alpha, _ALPHA)
    width, alpha = floats(width, alpha)
    squared, w = width**2, _critical(alpha)
    smoothed = 0.5 * (jnp.log1p(squared) - squared / (1 + squared))
    carried = (2 + w) / (1 + w) ** 2 / (2 * squared)
    condensed = 0.5 * jnp.log(squared) - 0.5 + alpha + carried
    # NaN of the solver must not look like the annealed phase
    value = jnp.where(squared * w < 1, condensed, smoothed)
    return jnp.where(jnp.isnan(w), jnp.nan, value)


def _critical_kernel(alpha: Array) -> Array:
    def excess(x: Array) -> Array:
        occupied = jax.nn.sigmoid(x)
        return 0.5 * (jax.nn.softplus(x) - occupied * (1 - occupied)) - alpha

    # the second term of (2) lies between 0 and 1/8
    def log_expm1(y: Array) -> Array:
        return y + jnp.log(-jnp.expm1(-y))

    lower, upper = log_expm1(2 * alpha) - 1e-6, log_expm1(2 * alpha + 0.25) + 1e-6
    return jnp.exp(find_root(excess, lower, upper).value)


_critical = elementwise(_critical_kernel)
