r"""Phases of the frozen potential and of the noised law of two balanced Gaussians.

Data :math:`N(\pm m, \sigma^2 I)`, :math:`M = |m|`, T = 1; y is the coordinate along m,
:math:`\Gamma = 1 + (\sigma^2 - 1)e^{-2t}` and :math:`c = Me^{-t}/\Gamma`. The density and the
potential of the reverse SDE along m are

.. math:: -\log p_t = \frac{y^2}{2\Gamma} - \log\cosh cy, \qquad
   U = -2\log p_t - \tfrac12y^2 = \frac{y^2}{2s^2} - 2\log\cosh cy, \quad
   s^2 = \frac\Gamma{2 - \Gamma}. \tag{1}

Both have one minimum, where :math:`c^2\Gamma \le 1` and :math:`2c^2s^2 \le 1`, or two, at the
positive roots of

.. math:: y = c\,\Gamma\tanh cy \;(p_t), \qquad y = 2cs^2\tanh cy \;(U). \tag{2}

The boundaries are the static and the dynamic time of `theory.speciation`. They are different
events: U has two wells while :math:`p_t` still has one mode. For :math:`\Gamma > 2`, that is

.. math:: \sigma^2 > 2, \qquad t < \tfrac12\log(\sigma^2 - 1), \tag{3}

U has no minimum and falls without bound on both sides, while the SDE with the exact score still
samples :math:`p_t`: the potential moves in time.

*The equilibrium measure of the frozen potential* is, because :math:`\cosh^2` is a sum of three
exponentials, a mixture of three Gaussians of variance :math:`s^2` at :math:`0, \pm2cs^2`,

.. math:: e^{-U} \propto 2\,e^{-y^2/2s^2} + e^{2c^2s^2}\sum_\pm e^{-(y \mp 2cs^2)^2/2s^2}, \qquad
   \langle y^2\rangle = s^2 + \frac{(2cs^2)^2}{1 + e^{-2c^2s^2}}. \tag{4}

It is not :math:`p_t`, of variance :math:`\Gamma + M^2e^{-2t}`: for :math:`\sigma^2 = 1` its outer
Gaussians are at twice the centres.

Another temperature is T = 1 with all lengths divided by :math:`\sqrt T`.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Yu, Huang 2025 (2405.11932). (4) is
derived here.
"""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_nodes
from theory.roots import find_root


def unbounded_time(variance: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time below which the frozen potential has no lower bound, by (3).

    .. math:: \tfrac12\log(\sigma^2/T - 1)

    NaN unless positive, which needs :math:`\sigma^2 > 2T`. Independent of the centres.

    Args:
        variance: variance per coordinate within a class; arguments broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932), checked and extended here.
    """
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    variance, temperature = floats(variance, temperature)
    ratio = variance / temperature - 1
    exists = ratio > 1
    return jnp.where(exists, 0.5 * jnp.log(jnp.where(exists, ratio, 2)), jnp.nan)


def well_position(
    t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Distance of the minima of the frozen potential from the centre, by (2).

    Zero where the potential has one well, NaN where it is unbounded.

    Args:
        t: OU time; arguments broadcast.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    field, gamma, unit = _scaled(t, mean_norm, variance, temperature)
    bounded = gamma < 2
    width = gamma / jnp.where(bounded, 2 - gamma, 1)
    return jnp.where(bounded, unit * _position(field, 2 * width), jnp.nan)


def mode_position(
    t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Distance of the modes of the noised law from the centre, by (2); zero where there is one.

    Args:
        t: OU time; arguments broadcast.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    field, gamma, unit = _scaled(t, mean_norm, variance, temperature)
    return unit * _position(field, gamma)


def equilibrium_distribution(
    y: ArrayLike, t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Distribution function of the Gibbs measure :math:`e^{-U}` of the frozen potential, by (4).

    NaN where the potential is unbounded.

    Args:
        y: coordinate along the centres; arguments broadcast.
        t: OU time.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    y, t, mean_norm, variance = floats(y, t, mean_norm, variance)
    place, width, outer = _three(t, mean_norm, variance)
    spread = jnp.sqrt(width)
    sides = ndtr((y - place) / spread) + ndtr((y + place) / spread)
    return (1 - outer) * ndtr(y / spread) + 0.5 * outer * sides


def equilibrium_variance(t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike) -> Array:
    r"""Variance of the Gibbs measure of the frozen potential along the centres, by (4).

    NaN where the potential is unbounded.

    Args:
        t: OU time; arguments broadcast.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    place, width, outer = _three(*floats(t, mean_norm, variance))
    return width + outer * place**2


def equilibrium_divergence(t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike) -> Array:
    r"""Divergence :math:`KL(p_t\,\|\,e^{-U}/Z)` along the centres, in nats.

    How far the noised law is from equilibrium in its own frozen potential. NaN where the potential
    is unbounded.

    Args:
        t: OU time; arguments broadcast.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here, by quadrature.
    """
    t, mean_norm, variance = floats(t, mean_norm, variance)
    _scaled(t, mean_norm, variance, 1.0)  # for its checks
    return _divergence(t, mean_norm, variance)


def _scaled(
    t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike
) -> tuple[Array, Array, Array]:
    """c and Gamma in units of the temperature, and its square root."""
    checks.require_time(t)
    checks.require_mean_norm(mean_norm)
    checks.require_positive("variance", variance, "pass the variance per coordinate")
    checks.require_temperature(temperature)
    t, mean_norm, variance, temperature = floats(t, mean_norm, variance, temperature)
    unit = jnp.sqrt(temperature)
    gamma = -jnp.expm1(-2 * t) + variance / temperature * jnp.exp(-2 * t)
    return mean_norm / unit * jnp.exp(-t) / gamma, gamma, unit


def _three(t: Array, mean_norm: Array, variance: Array) -> tuple[Array, Array, Array]:
    """Place, variance and total weight of the outer two of the three Gaussians (4)."""
    field, gamma, _ = _scaled(t, mean_norm, variance, 1.0)
    width = jnp.where(gamma < 2, gamma / jnp.where(gamma < 2, 2 - gamma, 1), jnp.nan)
    return 2 * field * width, width, jax.nn.sigmoid(2 * field**2 * width)


def _position_value(field: Array, gain: Array) -> Array:
    """Positive root of y = gain c tanh(c y), or 0."""
    slope = gain * field**2
    split = slope > 1
    g = jnp.where(split, slope, 2)

    def excess(z: Array) -> Array:  # z = c y, free of the root at 0
        return g * jnp.tanh(z) / z - 1

    z = find_root(excess, jnp.sqrt(1.5 * (g - 1) / g) * 0.1, g).value
    return jnp.where(split, z / jnp.where(split, field, 1), 0)


def _divergence_value(t: Array, mean_norm: Array, variance: Array) -> Array:
    place, width, outer = _three(t, mean_norm, variance)
    gamma = -jnp.expm1(-2 * t) + variance * jnp.exp(-2 * t)
    z, weights = gaussian_nodes(dtype=t.dtype)
    centre = mean_norm * jnp.exp(-t)
    y = centre + jnp.sqrt(gamma) * z  # the law is symmetric

    def log_three() -> Array:
        logs = [
            jnp.log(weight) - (y - mean) ** 2 / (2 * width)
            for weight, mean in ((1 - outer, 0.0), (outer / 2, place), (outer / 2, -place))
        ]
        return jax.nn.logsumexp(jnp.stack(logs), axis=0) - 0.5 * jnp.log(2 * math.pi * width)

    logs = [-((y - sign * centre) ** 2) / (2 * gamma) for sign in (1, -1)]
    own = jnp.logaddexp(*logs) - math.log(2) - 0.5 * jnp.log(2 * math.pi * gamma)
    return jnp.sum(weights * (own - log_three()))


_position = elementwise(_position_value)
_divergence = elementwise(_divergence_value)
