r"""Expectations over normal and chi-square variables, and integrals over intervals.

**Normal variable.** For an integrand that is analytic in a strip of half-width :math:`a` around the
real axis, the trapezoid rule of spacing :math:`h` has error
:math:`\sim \exp(-2\pi a/h)` (1), and the Gaussian weight alone allows
:math:`\exp(-2\pi^2/h^2)` (2). The functions met here are logistic in :math:`\kappa^2 + \kappa z`,
with poles at :math:`z = -\kappa \pm i\pi/2\kappa`, where the weight is
:math:`e^{-\kappa^2/2}`, so that

.. math:: \text{error} \sim \exp\Big(-\frac{\kappa^2}{2} - \frac{\pi^2}{\kappa h}\Big) \tag{3}

which is largest at :math:`\kappa = (\pi^2/h)^{1/3}`, and :math:`10^{-12}` at the spacing
:math:`h = 0.109` taken here, for every :math:`\kappa`. A Gauss-Hermite rule of the same cost
follows the same poles and does worse.

**Chi-square variables.** In :math:`r = \log \chi^2` the densities are smooth and fall off faster
than exponentially to the right and like :math:`e^{dr/2}` to the left, so the trapezoid rule
converges geometrically for every real :math:`d > 0`. The range comes from the bounds of Birgé,

.. math:: P[\chi'^2_d(\lambda) < d + \lambda - 2\sqrt{(d + 2\lambda)x}] \le e^{-x}, \quad
   P[\chi'^2_d(\lambda) > d + \lambda + 2\sqrt{(d + 2\lambda)x} + 2x] \le e^{-x}, \tag{4}

and :math:`P[\chi^2_d < q] \le (eq/d)^{d/2}` (5), at :math:`x = 37`.

**Noncentral chi-square.** The Laplace transform of the density is
:math:`(1 + 2s)^{-d/2} \exp(-\lambda s/(1 + 2s))`. With :math:`w = 1 + 2s` the distribution
function is

.. math:: F(y) = \frac{1}{2\pi i} \int \frac{dw}{w - 1}
   \exp\Big[\frac{(w-1)y}{2} - \frac{\lambda}{2}\Big(1 - \frac1w\Big)
   - \frac d2 \log w\Big] \tag{6}

on a contour that passes to the right of :math:`w = 1` and :math:`w = 0`; the density is half the
same integral without :math:`1/(w-1)`. On :math:`w = w_0 (v \cot v + iv)` through the saddle point
:math:`y w_0^2 - d w_0 - \lambda = 0` the integrand is a bump of known width, so a fixed small
number of nodes gives the *logarithm* of the lower tail to machine accuracy, also where it is
:math:`e^{-250}`: a series of Poisson-weighted incomplete gamma functions would need windows that
move with the tail.

Sources: Trefethen and Weideman, SIAM Review 56, 385 (2014); Birgé (2001); Talbot (1979).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory.checks import Array, elementwise, floats, require_nonnegative, require_positive

_NODES = 161
_RANGE = 8.75
_TAIL = 37.0


def gaussian_expectation(
    f: Callable[[Array], Array], *, nodes: int | None = None, dtype: jnp.dtype | None = None
) -> Array:
    r"""Expectation of ``f(z)`` over a standard normal ``z``.

    .. math:: E_z f(z) = \frac{1}{\sqrt{2\pi}} \int e^{-z^2/2} f(z) dz

    Args:
        f: takes the nodes, shape (nodes,), and returns values of shape (..., nodes).
        nodes: nodes of the trapezoid rule on [-8.75, 8.75]; 161 if not given.
            Use more for integrands with poles nearer to the axis than (3).
        dtype: dtype of the nodes; the default floating dtype if not given.

    Returns:
        Shape (...), the last axis of ``f`` summed.
    """
    z, weights = gaussian_nodes(nodes, dtype)
    return jnp.sum(f(z) * weights, axis=-1)


def gaussian_nodes(nodes: int | None = None, dtype: jnp.dtype | None = None) -> tuple[Array, Array]:
    r"""Nodes and weights of the trapezoid rule for :math:`E_z f(z) \approx \sum_j w_j f(z_j)`."""
    count = _NODES if nodes is None else nodes
    z = np.linspace(-_RANGE, _RANGE, count)
    weights = np.exp(-0.5 * z**2)
    kind = jnp.result_type(float) if dtype is None else dtype
    return jnp.asarray(z, kind), jnp.asarray(weights / weights.sum(), kind)


def legendre_nodes(lower: ArrayLike, upper: ArrayLike, nodes: int = 64) -> tuple[Array, Array]:
    r"""Gauss-Legendre nodes and weights, :math:`\int_a^b f \approx \sum_j w_j f(x_j)`.

    Args:
        lower: shape (...).
        upper: shape (...).
        nodes: number of nodes.

    Returns:
        Nodes and weights, each of shape (..., nodes).
    """
    lower, upper = floats(lower, upper)
    x, weights = np.polynomial.legendre.leggauss(nodes)
    half = 0.5 * (upper - lower)[..., None]
    middle = 0.5 * (upper + lower)[..., None]
    kind = half.dtype
    return middle + half * jnp.asarray(x, kind), half * jnp.asarray(weights, kind)


def integrate(
    f: Callable[[Array], Array], lower: ArrayLike, upper: ArrayLike, nodes: int = 64
) -> Array:
    r"""Integral of a smooth function over an interval, :math:`\int_a^b f(x) dx`.

    Args:
        f: takes the nodes, shape (..., nodes), and returns values of the same shape.
        lower: lower end, shape (...).
        upper: upper end, shape (...).
        nodes: number of Gauss-Legendre nodes.
    """
    x, weights = legendre_nodes(lower, upper, nodes)
    return jnp.sum(f(x) * weights, axis=-1)


def chi_square_nodes(dim: ArrayLike, nodes: int = 192) -> tuple[Array, Array]:
    r"""Nodes and weights for :math:`E f(\chi^2_d) \approx \sum_j w_j f(q_j)`.

    Args:
        dim: degrees of freedom, a scalar, any positive real number.
        nodes: number of nodes.

    Returns:
        Values of the variable and weights of sum one, each of shape (nodes,).
    """
    (dim,) = floats(dim)
    r, log_spacing = _log_chi_square_grid(dim, jnp.zeros_like(dim), nodes)
    return jnp.exp(r), jax.nn.softmax(0.5 * (dim * r - jnp.exp(r)) + log_spacing)


def noncentral_chi_square_nodes(
    dim: ArrayLike, noncentrality: ArrayLike, nodes: int = 96
) -> tuple[Array, Array]:
    r"""Nodes and weights for :math:`E f(\chi'^2_d(\lambda)) \approx \sum_j w_j f(q_j)`.

    Args:
        dim: degrees of freedom, a scalar, any positive real number.
        noncentrality: :math:`\lambda \ge 0`, a scalar.
        nodes: number of nodes.

    Returns:
        Values of the variable and weights of sum one, each of shape (nodes,).
    """
    dim, noncentrality = floats(dim, noncentrality)
    r, log_spacing = _log_chi_square_grid(dim, noncentrality, nodes)
    q = jnp.exp(r)
    log_density = jax.vmap(lambda y: _log_density(y, dim, noncentrality))(q)
    return q, jax.nn.softmax(log_density + r + log_spacing)


def noncentral_chi_square_log_cdf(y: ArrayLike, dim: ArrayLike, noncentrality: ArrayLike) -> Array:
    r"""Logarithm of the distribution function of a noncentral chi-square variable, by (6).

    .. math:: \log P[\chi'^2_d(\lambda) < y]

    Accurate to 1e-10 of itself however small the probability is, and to 1e-10 of the upper tail
    where the probability is close to one; arguments broadcast.

    Args:
        y: argument, positive.
        dim: degrees of freedom, any positive real number.
        noncentrality: :math:`\lambda \ge 0`.

    Raises:
        ValueError: for concrete arguments out of range.
    """
    require_positive("y", y, "the variable is positive")
    require_positive("dim", dim, "pass the degrees of freedom")
    require_nonnegative("noncentrality", noncentrality, "pass the sum of squared means")
    return _log_cdf(*floats(y, dim, noncentrality))


def _log_chi_square_grid(dim: Array, shift: Array, nodes: int) -> tuple[Array, Array]:
    """Logarithms of the variable over the range of (4) and (5), and the log of their spacing."""
    dim, shift = jax.lax.stop_gradient((dim, shift))
    spread = 2 * jnp.sqrt((dim + 2 * shift) * _TAIL)
    tiny = jnp.finfo(dim.dtype).tiny
    power_law = jnp.minimum(
        jnp.log(dim) - 1 - 2 * jnp.maximum(_TAIL - shift / 2, 0) / dim, -jnp.log1p(shift)
    )
    birge = jnp.log(jnp.maximum(dim + shift - spread, tiny))
    one_direction = 2 * jnp.log(jnp.maximum(jnp.sqrt(shift) - math.sqrt(2 * _TAIL), tiny))
    lower = jnp.maximum(jnp.maximum(birge, one_direction), power_law)
    upper = jnp.log(dim + shift + spread + 2 * _TAIL)
    # long power-law tails are thinned out exponentially, short ranges stay uniform
    grading = jnp.log1p((upper - lower) / 6)
    s = grading * jnp.linspace(0, 1, nodes, dtype=dim.dtype)
    return upper - (upper - lower) * jnp.expm1(s) / jnp.expm1(grading), s


def _log_density(y: Array, dim: Array, shift: Array) -> Array:
    """Logarithm of the density of a noncentral chi-square variable; scalars."""
    return _log_contour(_saddle(y, dim, shift), y, dim, shift, False)


def noncentral_chi_square_log_tails(y: Array, dim: Array, shift: Array) -> tuple[Array, Array]:
    """Logarithms of the lower and the upper tail of scalars, each to its own relative accuracy."""
    saddle = _saddle(y, dim, shift)
    # the pole at w = 1 stays several nodes away from the contour, on either side
    spread = jnp.sqrt(2 * dim + 4 * shift + 2)
    gap = 1 + 3 / spread
    upper = y > dim + shift + jnp.maximum(2 * spread, 12)
    saddle = jnp.where(upper, jnp.minimum(saddle, 1 / gap), jnp.maximum(saddle, gap))
    small = _log_contour(saddle, y, dim, shift, True)
    large = jnp.log1p(-jnp.exp(jnp.minimum(small, -1e-3)))
    return jnp.where(upper, large, small), jnp.where(upper, small, large)


def _log_contour(
    saddle: Array, y: Array, dim: Array, shift: Array, pole: bool, nodes: int = 36
) -> Array:
    """Logarithm of the modulus of (6), or of the density without the pole, in real arithmetic.

    On the contour w = saddle (v / sin v) e^{iv}; its lower half is the conjugate of the upper.
    """
    saddle = jax.lax.stop_gradient(saddle)
    curvature = jax.lax.stop_gradient(0.5 * (y * saddle + shift / saddle))
    reach = jnp.minimum(jnp.pi, 9 / jnp.sqrt(curvature))
    v = reach * (jnp.arange(nodes, dtype=y.dtype) + 0.5) / nodes
    sin, cos = jnp.sin(v), jnp.cos(v)
    ratio = v / sin
    c = ratio * cos
    field, pull = 0.5 * y * saddle, 0.5 * shift / saddle
    size = field * (c - 1) + pull * (cos / ratio - 1) - 0.5 * dim * jnp.log(ratio)
    phase = field * v - pull * sin / ratio - 0.5 * dim * v
    # -i dw/dv / (w - 1), or half of -i dw/dv
    bend = v - c * (1 - c) / v
    if pole:
        real, imaginary = c - 1 / saddle, v
        norm = real**2 + imaginary**2
        even, odd = (real + bend * imaginary) / norm, (bend * real - imaginary) / norm
    else:
        even, odd = 0.5 * saddle, 0.5 * saddle * bend
    total = jnp.sum(jnp.exp(size) * (even * jnp.cos(phase) - odd * jnp.sin(phase)))
    top = 0.5 * ((saddle - 1) * y - shift * (1 - 1 / saddle) - dim * jnp.log(saddle))
    total = jnp.abs(total) * reach / (nodes * jnp.pi)
    return top + jnp.log(jnp.maximum(total, jnp.finfo(y.dtype).tiny))


def _saddle(y: Array, dim: Array, shift: Array) -> Array:
    """Saddle point of (6); in the lowest dimensions the contour is wider, for its tails' sake."""
    return jnp.maximum((dim + jnp.sqrt(dim**2 + 4 * y * shift)) / 2, 6) / y


_log_cdf = elementwise(lambda y, dim, shift: noncentral_chi_square_log_tails(y, dim, shift)[0])
