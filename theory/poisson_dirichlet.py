r"""Poisson-Dirichlet weights: the law of the few terms that carry a condensed sum.

The terms :math:`e^{-\beta E_i}` of a condensed sum are, up to a factor, the points of a Poisson
process of density :math:`m x^{-1-m} dx`,

.. math:: x_i = \Gamma_i^{-1/m}, \qquad \Gamma_i = e_1 + \dots + e_i, \tag{1}

with independent exponential variables :math:`e_j`. The weights :math:`w_i = x_i/\sum_j x_j`, in
decreasing order, are the Poisson-Dirichlet law :math:`\mathrm{PD}(m, 0)`, with

.. math:: E \sum_i w_i^k = \frac{\Gamma(k - m)}{\Gamma(k) \Gamma(1 - m)}, \tag{2}

among them :math:`E Y_2 = 1 - m`, and :math:`E Y_2^2 = (1 - m)(3 - 2m)/3` (3).

**Truncation.** Of the K largest terms, given :math:`\Gamma_K`, those left out have the sum

.. math:: \sum_{i > K} x_i = \frac{m}{1 - m}\Gamma_K^{1 - 1/m}
   \Big[1 \pm \frac{1 - m}{\sqrt{m(2 - m)\,\Gamma_K}}\Big], \tag{4}

average and standard deviation. The average is kept in the denominator, so that what is neglected is
a fluctuation of relative size :math:`O(K^{1/2 - 1/m})` of the weights, and not the
:math:`O(K^{1 - 1/m})` of stick breaking.

Sources: Derrida 1981; Mezard, Parisi, Virasoro 1985; Pitman, Yor, Ann. Probab. 25, 855 (1997).
"""

import operator

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats

_FIX = "pass the ratio of temperature and condensation temperature"


def sample_weights(key: Array, order: ArrayLike, terms: int, shape: tuple[int, ...] = ()) -> Array:
    r"""Draws of the largest Poisson-Dirichlet weights, in decreasing order.

    .. math:: w_i = \frac{\Gamma_i^{-1/m}}{\sum_{j \le K}\Gamma_j^{-1/m}
       + \frac{m}{1 - m}\Gamma_K^{1 - 1/m}}

    The weights that are left out sum up to what is missing from one; the error of the others is
    that of (4). It is small for m below 0.8 or so, and no number of terms helps for m near 1.

    Args:
        key: a typed random key.
        order: the index m, between 0 and 1; broadcasts against ``shape``.
        terms: number K of weights.
        shape: shape of the independent draws; that of ``order`` if empty.

    Returns:
        Shape (..., terms). Differentiable by ``order`` at fixed key.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Pitman, Yor 1997; (1), (4).
    """
    checks.require("order", order, lambda v: (v > 0) & (v < 1), "between 0 and 1", _FIX)
    if operator.index(terms) < 1:
        raise ValueError(
            f"terms must be at least 1, but is terms={terms}; pass a number of weights"
        )
    (order,) = floats(order)
    draws = jnp.broadcast_shapes(shape, order.shape)
    waits = jax.random.exponential(key, (*draws, terms), order.dtype)
    # a wait of 0 has a probability of 1e-7 in single precision
    arrivals = jnp.cumsum(jnp.maximum(waits, jnp.finfo(order.dtype).tiny), axis=-1)
    m = jnp.broadcast_to(order, draws)[..., None]
    logs = -jnp.log(arrivals) / m
    last = jnp.log(arrivals[..., -1:])
    rest = jnp.log(m) - jnp.log1p(-m) + (1 - 1 / m) * last
    return jax.nn.softmax(jnp.concatenate([logs, rest], axis=-1), axis=-1)[..., :-1]


def participation_moment(power: ArrayLike, order: ArrayLike) -> Array:
    r"""Average sum of powers of the weights in the condensed phase.

    .. math:: E\sum_i w_i^k = \frac{\Gamma(k - m)}{\Gamma(k)\Gamma(1 - m)}

    For k = 2 it is 1 - m. 0 at m = 1, where nothing condenses.

    Args:
        power: the exponent k, above 1; arguments broadcast.
        order: the index m, above 0 and at most 1.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (2).
    """
    checks.require("power", power, lambda v: v > 1, "above 1", "the weights themselves sum to 1")
    checks.require("order", order, lambda v: (v > 0) & (v <= 1), "in (0, 1]", _FIX)
    power, order = floats(power, order)
    # 1 / Gamma(1 - m) = (1 - m) / Gamma(2 - m) is regular at m = 1
    logs = gammaln(power - order) - gammaln(power) - gammaln(2 - order)
    return (1 - order) * jnp.exp(logs)


def squared_participation(order: ArrayLike) -> Array:
    r"""Average squared participation ratio in the condensed phase.

    .. math:: E Y_2^2 = \frac{(1 - m)(3 - 2m)}{3}

    Args:
        order: the index m, above 0 and at most 1, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; Mezard, Parisi, Virasoro 1985; (3).
    """
    checks.require("order", order, lambda v: (v > 0) & (v <= 1), "in (0, 1]", _FIX)
    (order,) = floats(order)
    return (1 - order) * (3 - 2 * order) / 3
