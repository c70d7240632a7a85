r"""Moments of an activation that sees a noised datum through Gaussian weights.

A feature is :math:`S = \varsigma(e^{-t} \sigma g + \sqrt{\Delta_t} g')` with normal :math:`g` of
the datum and :math:`g'` of the noise, :math:`\Delta_t = 1 - e^{-2t}`. Its linear parts and the
variances of the rest are, with :math:`h(g) = E_{g'} S`,

.. math:: a = \frac{e^t}{\sigma} E[Sg], \quad b = E[Sg'], \quad
   \bar v^2 = E(h - ES - a e^{-t} \sigma g)^2, \quad \bar s^2 = E(S - h - b g')^2. \tag{1}

No form in (1) subtracts large numbers. The average over :math:`g'` is done on two panels that meet
where the argument is zero, the kink of most activations that have one; the result is smooth in
:math:`g` on the scale :math:`\sqrt{\Delta_t}`, and the trapezoid rule has error
:math:`e^{-2\pi^2 \Delta_t/h^2}` (2) with :math:`h = 0.027`.

Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.quadrature import legendre_nodes

Activation = Callable[[Array], Array]

_RANGE = 8.75
_OUTER, _INNER = 641, 96


class Constants(NamedTuple):
    """Moments (3) of an activation."""

    mean: Array
    """Average of a feature."""
    a: Array
    """Slope of a feature in the datum."""
    b: Array
    """Slope of a feature in the noise."""
    v_squared: Array
    """Variance of what depends on the datum beyond its linear part."""
    s_squared: Array
    """Variance of what depends on the noise beyond its linear part: the least eigenvalue."""


def activation_constants(
    t: ArrayLike, variance: ArrayLike = 1.0, *, activation: Activation = jnp.tanh
) -> Constants:
    r"""Moments of an activation that enter the spectrum.

    .. math:: a = \frac{e^t}{\sigma} E[Sg], \quad b = E[Sg'], \quad
       \bar v^2 = E(h - ES - a e^{-t} \sigma g)^2, \quad \bar s^2 = E(S - h - b g')^2

    Accurate to rounding for activations that are smooth except at 0, at times of 1e-3 or more (of
    any size, if they are smooth at 0).

    Args:
        t: diffusion time, positive; arguments broadcast.
        variance: variance per coordinate of the data, positive.
        activation: any function of one variable, elementwise.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
    """
    require_training_time(t)
    checks.require_positive("variance", variance, "data without spread teach nothing")
    return _constants(*floats(t, variance), activation)


def require_training_time(t: ArrayLike) -> None:
    """A positive diffusion time: without noise there is no loss."""
    checks.require_positive("t", t, "without noise there is no loss; pass a time such as 0.01")


@partial(jax.jit, static_argnames="activation")
def _constants(t: Array, variance: Array, activation: Activation) -> Constants:
    def moments(t: Array, variance: Array) -> Constants:
        g, weight = _normal_nodes(t.dtype)
        slope, spread = jnp.exp(-t) * jnp.sqrt(variance), jnp.sqrt(-jnp.expm1(-2 * t))
        # panels that meet at the kink, the zero of the argument
        kink = jnp.clip(-slope * g / spread, -_RANGE, _RANGE)[:, None]
        ends = jnp.full_like(kink, _RANGE)
        panels = [
            legendre_nodes(lo[:, 0], hi[:, 0], _INNER) for lo, hi in ((-ends, kink), (kink, ends))
        ]
        inner, inner_weight = (jnp.concatenate(parts, -1) for parts in zip(*panels))
        inner_weight = inner_weight * jnp.exp(-0.5 * inner**2) / math.sqrt(2 * math.pi)
        values = activation(slope * g[:, None] + spread * inner)
        average = jnp.sum(values * inner_weight, -1)
        mean, signal = weight @ average, weight @ (average * g)
        b = weight @ jnp.sum(values * inner * inner_weight, -1)
        v_squared = weight @ (average - mean - signal * g) ** 2
        rest = (values - average[:, None] - b * inner) ** 2
        return Constants(
            mean, signal / slope, b, v_squared, weight @ jnp.sum(rest * inner_weight, -1)
        )

    return jnp.vectorize(moments, signature="(),()->(),(),(),(),()")(t, variance)


def _normal_nodes(dtype: jnp.dtype) -> tuple[Array, Array]:
    """Trapezoid rule fine enough for functions that noise has smoothed on a scale of 0.01."""
    g = np.linspace(-_RANGE, _RANGE, _OUTER)
    weight = np.exp(-0.5 * g**2)
    return jnp.asarray(g, dtype), jnp.asarray(weight / weight.sum(), dtype)
