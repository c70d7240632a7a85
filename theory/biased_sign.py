r"""A sign of any prior behind Gaussian noise: information and smallest error.

A sign :math:`a = \pm1` with mean :math:`m = \tanh H` has the prior weights
:math:`w_\pm = 1/(1 + e^{\mp 2H})`. Behind noise of signal-to-noise ratio :math:`s` the log-odds
of the state are :math:`2(H + sa + \sqrt s z)`, :math:`z \sim N(0, 1)`, so that, with
:math:`\lambda = s + \sqrt s z`,

.. math:: I = -\sum_\pm w_\pm L_\pm, \qquad
   L_\pm = E_z\log\big(w_\pm + w_\mp e^{-2\lambda}\big)
   = E_z\log\big[1 + w_\mp(e^{-2\lambda} - 1)\big] \tag{1}

and :math:`\mathrm{mmse} = \sum_\pm w_\pm E_z \cosh^{-2}(\lambda \pm H)` (2). The last form of (1)
is accurate both for small :math:`s` and for large, where :math:`I` tends to the entropy
:math:`H_b` of the prior. Moving the prior changes the law of the state, but to first order not
the posterior on average:

.. math:: \frac{\partial I}{\partial s} = \tfrac12\mathrm{mmse}, \qquad
   \frac{\partial I}{\partial m} = \tfrac12(L_- - L_+), \qquad
   \frac{\partial\,\mathrm{mmse}}{\partial s} = -\sum_\pm w_\pm E_z\cosh^{-4}(\lambda \pm H).
   \tag{3}

The inverse of :math:`I(s)` comes from Halley's method for
:math:`Y(s) = -\log\frac{H_b - I(s)}{H_b - I}` (4), which is close to linear from
:math:`s(1 - m^2)/2H_b` to :math:`s/2`. The root lies between a Gaussian of the same variance, which
holds more information, and the bound :math:`h_b(p) \le \log2\sqrt{4p(1-p)}` on what is missing:

.. math:: \frac{e^{2I} - 1}{1 - m^2} \le s \le 2\log\frac{\log(2)\sqrt{1 - m^2}}{H_b - I}.
   \tag{5}

The poles of the integrands lie at the same height as those of a fair sign, where the Gaussian
weight is smaller by :math:`e^{-H - H^2/2s}`, so the rule of `theory.quadrature` holds its accuracy.

Source: Guo, Shamai, Verdu 2005 (cs/0412108).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_nodes

_SATURATED = 1e3  # snr beyond which a sign is known in any floating dtype


def sign_entropy(bias: ArrayLike) -> Array:
    r"""Entropy of a biased sign, in nats.

    .. math:: H_b = -\sum_\pm w_\pm \log w_\pm, \qquad w_\pm = \frac{1}{1 + e^{\mp 2H}}

    Args:
        bias: half the log-odds H of the prior, any shape.

    Source: (1) for large s.
    """
    (bias,) = floats(bias)
    # even, and without cancellation for a large bias
    strength = jnp.abs(bias)
    return jax.nn.softplus(-2 * strength) + 2 * strength * jax.nn.sigmoid(-2 * strength)


def sign_information(ratio: ArrayLike, bias: ArrayLike = 0.0) -> Array:
    r"""Information about a biased sign behind Gaussian noise, in nats.

    .. math:: I = -\sum_\pm w_\pm E_z\log\big(w_\pm + w_\mp e^{-2(s + \sqrt s z)}\big)

    Args:
        ratio: signal-to-noise ratio s; arguments broadcast.
        bias: half the log-odds H of the prior.

    Raises:
        ValueError: for a negative concrete ratio.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (1).
    """
    checks.require("ratio", ratio, lambda v: v >= 0, ">= 0", "pass a signal-to-noise ratio")
    return _information(*floats(ratio, bias))


def sign_mmse(ratio: ArrayLike, bias: ArrayLike = 0.0) -> Array:
    r"""Smallest mean squared error for a biased sign behind Gaussian noise.

    .. math:: \mathrm{mmse} = \sum_\pm w_\pm E_z \cosh^{-2}(s + \sqrt s z \pm H)

    Args:
        ratio: signal-to-noise ratio s; arguments broadcast.
        bias: half the log-odds H of the prior.

    Raises:
        ValueError: for a negative concrete ratio.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (2).
    """
    checks.require("ratio", ratio, lambda v: v >= 0, ">= 0", "pass a signal-to-noise ratio")
    return _mmse(*floats(ratio, bias))


def snr_of_sign_information(level: ArrayLike, bias: ArrayLike = 0.0) -> Array:
    r"""Signal-to-noise ratio at which a biased sign is known to a given extent.

    .. math:: I(s) = \text{level}

    Infinite for a level of at least the entropy of the sign, with derivatives of zero.

    Args:
        level: information in nats, positive; arguments broadcast.
        bias: half the log-odds H of the prior.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (4), (5).
    """
    checks.require_positive("level", level, "pass an information in nats")
    return _inverse(*floats(level, bias))


def _fields(ratio: Array) -> tuple[Array, Array]:
    s = jnp.minimum(ratio, _SATURATED)
    z, nodes = gaussian_nodes(dtype=s.dtype)
    return s + jnp.sqrt(s) * z, nodes


def _missing(ratio: Array, bias: Array) -> tuple[Array, Array]:
    """The two averages of (1)."""
    field, nodes = _fields(ratio)
    gain = jnp.expm1(-2 * field)
    # a weight that rounds to one leaves its partner without any weight in (1)
    least = jnp.finfo(gain.dtype).eps - 1
    plus, minus = (jnp.maximum(jax.nn.sigmoid(-2 * b) * gain, least) for b in (bias, -bias))
    return jnp.sum(nodes * jnp.log1p(plus)), jnp.sum(nodes * jnp.log1p(minus))


def _sech_power(ratio: Array, bias: Array, power: int) -> Array:
    field, nodes = _fields(ratio)
    total = jnp.zeros_like(ratio)
    for b in (bias, -bias):
        decay = jnp.exp(-2 * jnp.abs(field + b))
        sech2 = 4 * decay / (1 + decay) ** 2
        total += jax.nn.sigmoid(2 * b) * jnp.sum(nodes * sech2 ** (power // 2))
    return total


@jax.custom_jvp
def _information_kernel(ratio: Array, bias: Array) -> Array:
    plus, minus = _missing(ratio, bias)
    return 0.0 - (jax.nn.sigmoid(2 * bias) * plus + jax.nn.sigmoid(-2 * bias) * minus)


@jax.custom_jvp
def _mmse_kernel(ratio: Array, bias: Array) -> Array:
    return _sech_power(ratio, bias, 2)


def _information_by_bias(tangent: Array, _: Array, ratio: Array, bias: Array) -> Array:
    plus, minus = _missing(ratio, bias)
    return 2 * jax.nn.sigmoid(2 * bias) * jax.nn.sigmoid(-2 * bias) * (minus - plus) * tangent


def _mmse_by_bias(tangent: Array, _: Array, ratio: Array, bias: Array) -> Array:
    return jax.jvp(lambda b: _sech_power(ratio, b, 2), (bias,), (tangent,))[1]


# the square root in the field has no derivative at zero, its averages have
_information_kernel.defjvps(
    lambda tangent, _, ratio, bias: 0.5 * _mmse_kernel(ratio, bias) * tangent,
    _information_by_bias,
)
_mmse_kernel.defjvps(
    lambda tangent, _, ratio, bias: -_sech_power(ratio, bias, 4) * tangent, _mmse_by_bias
)


class _Search(NamedTuple):
    lower: Array
    upper: Array
    s: Array
    iterations: Array
    done: Array


def _expansion(ratio: Array, bias: Array) -> tuple[Array, Array, Array]:
    """Information and its first two derivatives by the ratio, from the same exponentials."""
    field, nodes = _fields(ratio)
    gain = jnp.expm1(-2 * field)
    least = jnp.finfo(gain.dtype).eps - 1
    known, first, second = (jnp.zeros_like(gain) for _ in range(3))
    for b in (bias, -bias):
        weight, other = jax.nn.sigmoid(2 * b), jax.nn.sigmoid(-2 * b)
        inside = jnp.maximum(other * gain, least)
        wrong = other * (gain + 1) / (1 + inside)
        spread = 4 * wrong * (1 - wrong)
        known += weight * jnp.log1p(inside)
        first += weight * spread
        second += weight * spread**2
    return -jnp.dot(nodes, known), 0.5 * jnp.dot(nodes, first), -0.5 * jnp.dot(nodes, second)


def _advance(search: _Search, level: Array, limit: Array, bias: Array) -> _Search:
    """One step of Halley's method for (4), or of bisection where that leaves the bracket."""
    s = search.s
    known, first, second = _expansion(s, bias)
    eps = jnp.finfo(s.dtype).eps
    lower, upper = (
        jnp.where(known < level, s, search.lower),
        jnp.where(known < level, search.upper, s),
    )
    missing = jnp.maximum(limit - known, eps * limit)
    value = -jnp.log1p(jnp.maximum((level - known) / (limit - level), eps - 1))
    slope = first / missing
    bend = second / missing + slope**2
    target = s - 2 * value * slope / (2 * slope**2 - value * bend)
    inside = (target >= lower) & (target <= upper)
    target = jnp.where(inside, target, jnp.sqrt(lower * upper))
    exact = jnp.abs(known - level) <= 4 * eps * level
    # the step after one of relative size 1e-5 would be of its third power
    done = exact | (inside & (jnp.abs(target - s) <= 1e-5 * s)) | (upper <= lower * (1 + 4 * eps))
    return _Search(lower, upper, jnp.where(exact, s, target), search.iterations + 1, done)


@jax.custom_jvp
def _inverse_kernel(level: Array, bias: Array) -> Array:
    limit = sign_entropy(bias)
    exists = level < limit * (1 - 8 * jnp.finfo(level.dtype).eps)
    level = jnp.where(exists, level, 0.5 * limit)
    variance = 4 * jax.nn.sigmoid(2 * bias) * jax.nn.sigmoid(-2 * bias)
    lower = jnp.expm1(2 * level) / variance * (1 - 1e-6)
    upper = 2 * jnp.log(jnp.log(2.0) * jnp.sqrt(variance) / (limit - level)) * (1 + 1e-6)
    start = _Search(lower, upper, jnp.sqrt(lower * upper), jnp.asarray(0), lower > upper)
    end = lax.while_loop(
        lambda x: ~x.done & (x.iterations < 50), lambda x: _advance(x, level, limit, bias), start
    )
    value = jnp.where(end.done & (end.iterations > 0), end.s, jnp.nan)
    return jnp.where(exists, value, jnp.inf)


def _by_level(tangent: Array, s: Array, level: Array, bias: Array) -> Array:
    known = jnp.isfinite(s)
    slope = 0.5 * _mmse_kernel(jnp.where(known, s, 1), bias)
    return jnp.where(known, tangent / slope, 0)


def _by_bias(tangent: Array, s: Array, level: Array, bias: Array) -> Array:
    known = jnp.isfinite(s)
    ratio = jnp.where(known, s, 1)
    change = _information_by_bias(tangent, s, ratio, bias)
    return jnp.where(known, -change / (0.5 * _mmse_kernel(ratio, bias)), 0)


_inverse_kernel.defjvps(_by_level, _by_bias)

_information = elementwise(_information_kernel)
_mmse = elementwise(_mmse_kernel)
_inverse = elementwise(_inverse_kernel)
