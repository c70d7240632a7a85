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
:math:`d \to \infty`; at finite d and n, given :math:`|x|^2`, the squared distances are independent
noncentral chi-square variables, whose averages `theory.finite_random_energy` has,

.. math:: |x - y|^2 \sim \chi'^2_d(|x|^2), \qquad |x|^2 \sim \chi^2_d. \tag{8}

Source: Biroli, Mezard 2024 (2408.05807).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.finite_random_energy import partition_averages
from theory.quadrature import chi_square_nodes, noncentral_chi_square_nodes
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


class FiniteEstimate(NamedTuple):
    """Averages over data sets and points at finite dimension and number of points."""

    divergence: Array
    """Kullback-Leibler divergence of the density from the estimate, per coordinate."""
    participation: Array
    """Participation ratio of the terms of the estimate."""
    participation_of_squares: Array
    """Participation ratio of their squares, which tells stable from Gaussian fluctuations."""


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


def finite_size_estimate(
    width: ArrayLike, log_n: ArrayLike, dim: ArrayLike, *, nodes: int = 640
) -> FiniteEstimate:
    r"""Divergence and participation of a kernel density estimate of n points in d dimensions.

    .. math:: \tfrac1d E\log\frac{\rho(x)}{\hat\rho(x)}, \qquad
       E\frac{\sum_\mu k_\mu^{2p}}{(\sum_\mu k_\mu^p)^2}, \; p = 1, 2

    averaged over the data set and a fresh point; to seven digits for dim >= 8. NaN where the nodes
    do not resolve a narrow kernel. It takes a few thousand times as long as the limits.

    Args:
        width: width of the kernel, positive; arguments broadcast.
        log_n: natural logarithm of the number of points, at most 25.
        dim: number of coordinates.
        nodes: nodes in the squared distance and in the logarithm of the sum.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807), for the setting; (8).
    """
    checks.require_positive("width", width, _WIDTH)
    checks.require_size(log_n, dim)
    return FiniteEstimate(*_finite(nodes)(*floats(width, log_n, dim)))


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


@functools.cache
def _finite(nodes: int) -> Callable[..., tuple[Array, Array, Array]]:
    """The finite-size averages with this number of nodes."""

    def kernel(width: Array, log_n: Array, dim: Array) -> tuple[Array, Array, Array]:
        norms, weights = chi_square_nodes(dim, 24)
        # far points of no weight would need a long range
        norms = jnp.where(weights > 1e-10, norms, dim)

        def given(norm: Array) -> tuple[Array, Array, Array]:
            distances, probabilities = noncentral_chi_square_nodes(dim, norm, nodes)
            logs = -0.5 * distances / width**2  # increasing: the rule begins at the far end
            plain, squares = (
                partition_averages(p * logs, probabilities, log_n, points=nodes) for p in (1, 2)
            )
            return plain.log_partition, plain.participation, squares.participation

        averages = (weights @ values for values in jax.lax.map(given, norms))
        log_partition, participation, of_squares = averages
        divergence = jnp.log(width) - 0.5 + (log_n - log_partition) / dim
        return divergence, participation, of_squares

    return elementwise(kernel)
