r"""Ratio of modified Bessel functions of neighbouring orders, for every order and argument.

With :math:`r_\nu = I_{\nu+1}(y)/I_\nu(y)` the recurrence of the functions reads

.. math:: r_\nu = \frac{y}{2\nu + 2 + y\,r_{\nu+1}} \tag{1}

and is stable downwards: an error shrinks by :math:`r_\nu^2` in each step. It starts at the order
:math:`\nu + 64` from the expansion of the Riccati equation :math:`r' = 1 - r^2 - 2ar/y`,
:math:`a = \nu + \frac12`, for large :math:`S = \sqrt{a^2 + y^2}`: with :math:`p = a/S`

.. math:: r \simeq \frac{y}{S + a}\Big[1 - \frac{p}{2S}\Big(1 + \frac{4 - p - 5p^2}{4S}
   + \frac{12 - 4p - 41p^2 + 5p^3 + 30p^4}{8S^2}\Big)\Big]. \tag{2}

Where the steps contract little, :math:`y \gg 64^2`, (2) is accurate by itself.

Source: Amos, Math. Comp. 28, 239 (1974) for (1); (2) by iteration of the Riccati equation.
"""

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats

_STEPS = 64


def bessel_ratio(order: ArrayLike, y: ArrayLike) -> Array:
    r"""Ratio of modified Bessel functions of neighbouring orders.

    .. math:: r_\nu(y) = I_{\nu+1}(y)/I_\nu(y)

    To a few units in the last place; differentiable in both arguments, also at zero.

    Args:
        order: the lower order, -1/2 at least; arguments broadcast.
        y: argument, not negative.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Amos 1974; (1), (2).
    """
    checks.require("order", order, lambda v: v >= -0.5, ">= -1/2", "pass n/2 - 1 for n components")
    checks.require_nonnegative("y", y, "pass the argument of the Bessel functions")
    return _ratio(*floats(order, y))


def ratio_of_scalars(order: Array, y: Array) -> Array:
    """`bessel_ratio` of scalars, to be used inside a kernel."""
    a = order + _STEPS + 0.5
    size = jnp.hypot(a, y)
    p = a / size
    third = (12 - p * (4 + p * (41 - p * (5 + 30 * p)))) / (8 * size**2)
    second = (4 - p * (1 + 5 * p)) / (4 * size)
    start = y / (size + a) * (1 - 0.5 * p / size * (1 + second + third))

    def step(i: Array, ratio: Array) -> Array:
        return y / (2 * (order + (_STEPS - i).astype(y.dtype)) + y * ratio)

    return lax.fori_loop(0, _STEPS, step, start)


_ratio = elementwise(ratio_of_scalars)
