r"""Entropy production of the forward and generative processes of two balanced Gaussians in d = 1.

Temperature 1, :math:`dx = -x\,dt + \sqrt2\,dB`, data
:math:`\frac12 N(\mu, \sigma^2) + \frac12 N(-\mu, \sigma^2)`. At time t the centres are at
:math:`\mu_t = \mu e^{-t}` and the variance of each is :math:`\Gamma = 1 + \delta`,
:math:`\delta = (\sigma^2 - 1)e^{-2t}`. With :math:`\kappa = \mu_t/\sqrt\Gamma` and the score F,

.. math:: E x^2 = \mu_t^2 + \Gamma, \qquad I_F = E F^2 = \frac1\Gamma
   - \frac{\mu_t^2}{\Gamma^2}(1 - E\tanh^2), \qquad
   S = \tfrac12\log(2\pi e\Gamma) + I_{mix}(\kappa), \tag{1}

where the argument of tanh is :math:`\kappa^2 + \kappa z`, z normal. Entropy production and flow are

.. math:: \pi = E(x + F)^2 = E x^2 - 2 + I_F, \qquad \varphi = E x^2 - 1, \qquad
   \dot S = \pi - \varphi = I_F - 1. \tag{2}

With :math:`x + F = [\delta x + \mu_t\tanh(\mu_tx/\Gamma)]/\Gamma` the mean of a square is taken, so
that :math:`\pi \ge 0` also where its leading orders cancel: at large t for
:math:`\mu^2 + \sigma^2 = 1`. The generative SDE has the same production and the flow

.. math:: \varphi^* = 2\pi - \varphi. \tag{3}

*Integral and detailed theorems.* With the normal density :math:`\gamma`, a forward path has
:math:`\Delta S_{tot} = \log\frac{p_0}\gamma(x_0) - \log\frac{p_t}\gamma(x_t)`, so

.. math:: \langle\Delta S_{tot}\rangle = KL(p_0|\gamma) - KL(p_t|\gamma) = \int_0^t \pi,
   \qquad \langle e^{-k\Delta S_{tot}}\rangle
   = \Big\langle\Big(\frac\gamma{p_0}(x_0)\Big)^k\Big(\frac{p_t}\gamma(x_t)\Big)^k\Big\rangle.
   \tag{4}

The second is one at k = 0 and k = 1. If the path is made by N Euler steps of size dt instead, the
end point of a path that starts in :math:`\gamma` has variance :math:`S_N = V + r^2`,
:math:`r = (1 - dt)^N`, :math:`V = 2dt(1 - r^2)/(1 - (1 - dt)^2)`, and with :math:`c = 1 - 1/S_N`

.. math:: \langle e^{-\Delta S_{tot}}\rangle = S_N^{-1/2}(1 - c\Gamma)^{-1/2}
   \exp\frac{c\mu_t^2}{2(1 - c\Gamma)}, \qquad t = N dt. \tag{5}

The mutual information and the minimum mean squared error of spins are
`theory.channel.binary_information` and `theory.channel.binary_mmse`.

Sources: Yu, Huang 2025 (2405.11932); Murashita, Funo, Ueda 2014 (1401.4494).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import mixture_information
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_nodes
from theory.roots import find_root

_LAST_TIME = 8.0  # beyond it the reverse flow is below 1e-6 of its value at order one
_GRID = 256
_START_NODES = 481


class MixtureRates(NamedTuple):
    """Entropy in nats and rates in nats per unit of OU time."""

    entropy: Array
    """Differential entropy of the noised law."""
    fisher: Array
    """Fisher information, the mean squared score."""
    production: Array
    """Entropy production rate, the same for the forward and the generative process."""
    flow: Array
    """Entropy flow rate of the forward process."""
    reverse_flow: Array
    """Entropy flow rate of the generative SDE."""


def mixture_rates(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> MixtureRates:
    r"""Entropy and its rates for :math:`\frac12 N(\pm\mu, \sigma^2)`, by (1), (2) and (3).

    Args:
        t: OU time; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932).
    """
    checks.require_time(t)
    return _rates(*_mixture(t, mean, variance))


def total_production(t_final: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Mean total entropy production of the forward process until ``t_final``, in nats.

    .. math:: \int_0^{t_f} \pi\,dt = KL(p_0|\gamma) - KL(p_{t_f}|\gamma)

    Args:
        t_final: OU time of the end; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (4).
    """
    checks.require_time(t_final)
    t_final, mean, variance = _mixture(t_final, mean, variance)
    return _divergence(jnp.zeros_like(t_final), mean, variance) - _divergence(
        t_final, mean, variance
    )


def generative_production(t_final: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Mean total entropy production of the generative SDE from ``t_final`` to 0, in nats.

    The continuum limit :math:`\int_0^{t_f}\pi^*\,dt`, :math:`\pi^* = \pi`, which equals
    `total_production`. Estimates on a grid of steps dt are O(dt) lower, see
    `theory.transfer_operator`.

    Args:
        t_final: OU time of the start, from the exact noised law; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (3), (4).
    """
    return total_production(t_final, mean, variance)


def euler_integral_theorem(
    steps: ArrayLike, dt: ArrayLike, mean: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Exponential average of the end-point production over forward paths of Euler steps.

    .. math:: \langle e^{-\Delta S_{tot}}\rangle = S_N^{-1/2}(1 - c\Gamma)^{-1/2}
       \exp\frac{c\mu_t^2}{2(1 - c\Gamma)}

    One for exact steps. NaN where the average diverges.

    Args:
        steps: number of steps; arguments broadcast.
        dt: size of a step, between 0 and 2 (stable).
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; (5).
    """
    checks.require("dt", dt, lambda v: (v > 0) & (v < 2), "between 0 and 2", "take smaller steps")
    checks.require("steps", steps, lambda v: v >= 0, ">= 0", "pass the number of steps")
    steps, dt, mean, variance = floats(steps, dt, *_mixture(0.0, mean, variance)[1:])
    centre, excess = _noised(steps * dt, mean, variance)
    # (1 - dt)^N also for dt > 1, where only the square matters
    squared = jnp.exp(steps * jnp.log(jnp.square(1 - dt)))
    spread = 2 * dt * (1 - squared) / (1 - jnp.square(1 - dt)) + squared
    c = 1 - 1 / spread
    left = 1 - c * (1 + excess)
    exists = left > 0
    left = jnp.where(exists, left, 1)
    value = jnp.exp(c * centre**2 / (2 * left)) / jnp.sqrt(spread * left)
    return jnp.where(exists, value, jnp.nan)


def detailed_theorem(
    k: ArrayLike, t_final: ArrayLike, mean: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Generating function :math:`\langle e^{-k\Delta S_{tot}}\rangle` of the forward process.

    By the detailed theorem it is also :math:`\langle e^{-(1-k)\Delta\tilde S_{tot}}\rangle` of
    the same process started from the law at ``t_final``. One at k = 0 and k = 1.

    Args:
        k: between 0 and 1; arguments broadcast.
        t_final: OU time of the end.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Murashita, Funo, Ueda 2014 (1401.4494); (4), by quadrature in both end points.
    """
    fix = "the generating function is computed between its two known ends"
    checks.require("k", k, lambda v: (v >= 0) & (v <= 1), "between 0 and 1", fix)
    checks.require_time(t_final)
    return _generating_function(*floats(k, *_mixture(t_final, mean, variance)))


def reverse_flow_minimum(mean: ArrayLike, variance: ArrayLike) -> tuple[Array, Array]:
    r"""Time and value of the minimum of the reverse flow :math:`\varphi^*(t)`.

    NaN where the lowest value on [0, 8] is not a negative one inside of the interval. Neither the
    zero nor the minimum is a transition; the zero lies below the bifurcation of the potential for
    classes far apart, and above it for mean 0.82 and variance 0.4.

    Args:
        mean: distance of a centre from the origin; arguments broadcast.
        variance: variance of each Gaussian, positive.

    Returns:
        Time and value.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (3).
    """
    _, mean, variance = _mixture(0.0, mean, variance)
    t, value = _lowest(mean, variance)
    return t, value


def reverse_flow_zero(mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Time below the minimum at which the reverse flow :math:`\varphi^*(t)` changes sign.

    NaN without a minimum, or if the flow is not positive at t = 0.

    Args:
        mean: distance of a centre from the origin; arguments broadcast.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (3).
    """
    _, mean, variance = _mixture(0.0, mean, variance)
    return _zero(mean, variance)


def _mixture(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> tuple[Array, ...]:
    checks.require_mean_norm(mean, "mean")
    checks.require_positive("variance", variance, "data without a density have infinite entropy")
    return floats(t, mean, variance)


def _noised(t: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Centre, and the excess of the variance over one."""
    return mean * jnp.exp(-t), (variance - 1) * jnp.exp(-2 * t)


def _width(t: Array, variance: Array) -> Array:
    """Variance of a noised Gaussian; one plus the excess cancels for a small one."""
    return -jnp.expm1(-2 * t) + variance * jnp.exp(-2 * t)


def _rate_values(t: Array, mean: Array, variance: Array) -> MixtureRates:
    centre, excess = _noised(t, mean, variance)
    gamma = _width(t, variance)
    kappa = centre / jnp.sqrt(gamma)
    z, weights = gaussian_nodes(dtype=t.dtype)
    field = kappa**2 + kappa * z
    # 1 - tanh^2 without cancellation
    unknown = 4 * jnp.sum(weights * jax.nn.sigmoid(2 * field) * jax.nn.sigmoid(-2 * field))
    fisher = 1 / gamma - (centre / gamma) ** 2 * unknown
    velocity = (excess * (centre + jnp.sqrt(gamma) * z) + centre * jnp.tanh(field)) / gamma
    production = jnp.sum(weights * velocity**2)
    flow = centre**2 + excess
    entropy = 0.5 * jnp.log(2 * jnp.pi * jnp.e * gamma) + mixture_information(kappa)
    return MixtureRates(entropy, fisher, production, flow, 2 * production - flow)


def _divergence(t: Array, mean: Array, variance: Array) -> Array:
    """Kullback-Leibler divergence of the noised law from the normal one."""
    centre, excess = _noised(t, mean, variance)
    gamma = _width(t, variance)
    narrow = gamma < 0.5
    log_gamma = jnp.where(narrow, jnp.log(gamma), jnp.log1p(jnp.where(narrow, 0, excess)))
    information = mixture_information(centre / jnp.sqrt(gamma))
    return 0.5 * (centre**2 + excess - log_gamma) - information


def _log_ratio(x: Array, centre: Array, variance: Array) -> Array:
    """Logarithm of the density of the mixture over the normal density."""
    cosh = jnp.logaddexp(x * centre / variance, -x * centre / variance) - jnp.log(2)
    return 0.5 * (x**2 - (x**2 + centre**2) / variance - jnp.log(variance)) + cosh


def _generating_value(k: Array, t: Array, mean: Array, variance: Array) -> Array:
    centre, excess = _noised(t, mean, variance)
    reach = mean + 9 * jnp.sqrt(jnp.maximum(variance, 1))
    x0 = reach * jnp.linspace(-1, 1, _START_NODES, dtype=t.dtype)
    spacing = 2 * reach / (_START_NODES - 1)
    z, weights = gaussian_nodes(dtype=t.dtype)
    end = jnp.exp(-t) * x0[:, None] + jnp.sqrt(-jnp.expm1(-2 * t)) * z
    log_start = _log_ratio(x0, mean, variance)
    log_normal = -0.5 * (x0**2 + jnp.log(2 * jnp.pi))
    tilted = jnp.exp(
        ((1 - k) * log_start + log_normal)[:, None] + k * _log_ratio(end, centre, 1 + excess)
    )
    return spacing * jnp.sum(tilted * weights)


def _lowest_value(mean: Array, variance: Array) -> tuple[Array, Array]:
    def flow(t: Array) -> Array:
        return _rate_values(t, mean, variance).reverse_flow

    grid = jnp.linspace(0, 1, _GRID, dtype=mean.dtype) ** 2 * _LAST_TIME
    values = jax.lax.stop_gradient(jax.vmap(flow)(grid))
    i = jnp.clip(jnp.argmin(values), 1, _GRID - 2)
    inside = (values[i] < 0) & (values[i] <= values[i - 1]) & (values[i] <= values[i + 1])
    root = find_root(jax.grad(flow), grid[i - 1], grid[i + 1])
    t = jnp.where(inside, root.value, jnp.nan)
    return t, flow(t)


def _zero_value(mean: Array, variance: Array) -> Array:
    def flow(t: Array) -> Array:
        return _rate_values(t, mean, variance).reverse_flow

    t, _ = _lowest_value(mean, variance)
    exists = jnp.isfinite(t)
    root = find_root(flow, jnp.zeros_like(t), jnp.where(exists, t, 1))
    return jnp.where(exists, root.value, jnp.nan)


_rates = elementwise(_rate_values)
_generating_function = elementwise(_generating_value)
_lowest = elementwise(_lowest_value)
_zero = elementwise(_zero_value)
