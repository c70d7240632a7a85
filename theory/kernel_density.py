r"""Kernel density estimation of a Gaussian in large dimension: where the estimate condenses.

A Gaussian kernel of width :math:`h` on :math:`n = e^{\alpha d}` points of :math:`N(0, I_d)`,
evaluated at a
*fresh* point of the same law, is a Random Energy Model. With :math:`w = 1/h^2` it condenses at

.. math:: \alpha = \tfrac12\log(1 + w_*) - \tfrac12\frac{w_*}{(1 + w_*)^2}, \qquad
   h_G = w_*^{-1/2}. \tag{1}

Fluctuations are Gaussian above :math:`h_\mathrm{CLT} = \sqrt2 h_G` (2) and :math:`\alpha`-stable
of index :math:`(h/h_G)^2` in between; below :math:`h_G`, :math:`Y_2 = 1 - (h/h_G)^2` (3). The
width that minimises the Kullback-Leibler divergence lies inside the condensed phase,

.. math:: h_\mathrm{opt}^2 = \frac{2 + w_*}{(1 + w_*)^2} < h_G^2. \tag{4}

This is not the collapse of diffusion, where the point is a noised training point. Exact as
:math:`d \to \infty`.

Source: Biroli, Mezard 2024 (2408.05807).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.roots import find_root


class KernelWidths(NamedTuple):
    """Widths that separate the regimes of a kernel density estimate, in standard deviations."""

    condensation: Array
    """Below it, few points carry the estimate."""
    gaussian: Array
    """Above it, the fluctuations of the estimate are Gaussian."""
    optimal: Array
    """Minimises the Kullback-Leibler divergence."""


def kernel_widths(alpha: ArrayLike) -> KernelWidths:
    r"""Widths at which a Gaussian kernel density estimate changes its nature.

    .. math:: h_G = w_*^{-1/2}, \quad h_\mathrm{CLT} = \sqrt2 h_G, \quad
       h_\mathrm{opt} = \frac{\sqrt{2 + w_*}}{1 + w_*}

    with (1). NaN where the solver did not converge.

    Args:
        alpha: logarithm of the number of points per coordinate, any shape, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (1), (2), (4).
    """
    checks.require_positive("alpha", alpha, "pass log(n)/d of at least two points")
    w = _critical(*floats(alpha))
    critical = 1 / jnp.sqrt(w)
    return KernelWidths(
        critical, jnp.sqrt(2.0).astype(w.dtype) * critical, jnp.sqrt(2 + w) / (1 + w)
    )


def kernel_participation(width: ArrayLike, alpha: ArrayLike) -> Array:
    r"""Participation ratio of a Gaussian kernel density estimate.

    .. math:: Y_2 = \max(0, 1 - (h/h_G)^2)

    Args:
        width: width of the kernel, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2024 (2408.05807); (3).
    """
    checks.require_positive("width", width, "pass the standard deviation of the kernel")
    width, alpha = floats(width, alpha)
    return jnp.maximum(0, 1 - (width / kernel_widths(alpha).condensation) ** 2)


def _critical_kernel(alpha: Array) -> Array:
    def excess(x: Array) -> Array:
        occupied = jax.nn.sigmoid(x)
        return 0.5 * (jax.nn.softplus(x) - occupied * (1 - occupied)) - alpha

    # the second term of (1) lies between 0 and 1/8
    def log_expm1(y: Array) -> Array:
        return y + jnp.log(-jnp.expm1(-y))

    lower, upper = log_expm1(2 * alpha) - 1e-6, log_expm1(2 * alpha + 0.25) + 1e-6
    return jnp.exp(find_root(excess, lower, upper).value)


_critical = elementwise(_critical_kernel)
