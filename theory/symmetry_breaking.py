r"""Spontaneous symmetry breaking of generative dynamics: order parameter, stability, potential.

**Fixed points.** The generative dynamics :math:`dx = [x + (1+g)TF]\,d\tau + \sqrt{2gT}\,dW` have
the marginals :math:`P_t` for every :math:`g \ge 0` (here in units of the temperature: 1 is
the reverse SDE, 0 the probability flow). With :math:`\theta = e^{-t}`, :math:`q = \theta^2`,
:math:`\Delta = T(1-q)` and the posterior mean :math:`D`, :math:`F = (\theta D - x)/\Delta`, a fixed
point of the drift solves

.. math:: (g + q)\,x = (1 + g)\,\theta\,D(x, t) \tag{1}

and the Jacobian of the drift there is

.. math:: A_g = I + (1+g)\,T\Big[-\frac{I}{\Delta} + \frac{q}{\Delta^2}\,\mathrm{Cov}(a|x)\Big].
   \tag{2}

A positive eigenvalue means growth per unit of generative time. At the centre of symmetric data of
constant norm the posterior is the data law, and :math:`\Lambda` of its covariance gives
`theory.speciation.fixed_point_time`.

**Sphere** of radius r in d dimensions (d = 1: two deltas at :math:`\pm r`), with
:math:`A_d(z) = I_{d/2}(z)/I_{d/2-1}(z)`, :math:`D = r A_d(\theta rR/\Delta)` along :math:`x`,
:math:`|x| = R`. With :math:`R = r\,\frac{(1+g)\theta}{g+q}\,u`, (1) is the self-consistency of the
O(d) magnet,

.. math:: u = A_d(k u), \qquad k = \frac{(1+g)\,q\,r^2}{(g+q)\,\Delta}, \tag{3}

ordered for :math:`k > d`. At radius R the posterior covariance is :math:`r^2A_d'(z)` along the
radius and :math:`r^2A_d(z)/z` across it, :math:`A_d' = 1 - A_d^2 - (d-1)A_d/z` (4). Across the
ordered branch (2) vanishes exactly: the Goldstone directions of the broken rotation.

**Variance exploding coordinates.** With :math:`v = \sigma^2_{VE}` and :math:`b = 1/v` the posterior
is :math:`p(a|x) \propto e^{-b(|a|^2/2 - x\cdot a)}P_0(a)`, the score is
:math:`-b\nabla(\frac12|x|^2 + f)` with :math:`f = -\frac1b\log Z`, and stationary points solve
:math:`x = \langle a\rangle_x`, stable where :math:`b\,\mathrm{Cov}(a|x)` has no eigenvalue above
one. Two deltas in a field are the Curie-Weiss magnet, the sphere is the O(d) magnet:

.. math:: m = \tanh(b(m+h)), \qquad f = \min_m\Big[\tfrac12m^2 - \tfrac1b\log\cosh bm\Big],
   \qquad R/r = A_d(b\,r\,R). \tag{5}

**Clock of the linear variance schedule** :math:`\beta(s) = \beta_0 + (\beta_1-\beta_0)s` on
:math:`s \in [0, 1]`: :math:`dt = \frac12\beta\,ds`, so

.. math:: t = \tfrac12\beta_0 s + \tfrac14(\beta_1 - \beta_0)s^2. \tag{6}

A potential or a rate per unit of s is :math:`\beta(s)/2` times the one per unit of t.

Sources: Raya, Ambrogioni 2023 (2305.19693); Ambrogioni, Entropy 27, 291 (2025) (2310.17467);
Ambrogioni, Entropy 26, 381 (2024) (2309.17290). (3) for every g and the rates are derived here.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.bessel import bessel_ratio
from theory.checks import Array, floats
from theory.curie_weiss_magnet import free_energy_density, magnetization, susceptibility
from theory.mean_field import rotor_magnetization


class SphereRates(NamedTuple):
    """Eigenvalues of the Jacobian of the drift at a state of the sphere."""

    radial: Array
    """Along the radius."""
    transverse: Array
    """Across it, d - 1 times degenerate."""


def centre_rate(
    t: ArrayLike, eigenvalue: ArrayLike, noise: ArrayLike = 1.0, temperature: ArrayLike = 1.0
) -> Array:
    r"""Growth rate of a small displacement from the centre of symmetric data of constant norm.

    .. math:: \lambda = 1 + (1+g)T\Big[-\frac1\Delta + \frac{q\Lambda}{\Delta^2}\Big]

    Minus it, at g = 1, is the curvature of the potential
    :math:`U = -2T\log P_t - \frac12|x|^2` at its centre.

    Args:
        t: time, positive; arguments broadcast.
        eigenvalue: eigenvalue of the covariance of the data in the direction of displacement.
        noise: g in units of the temperature: 1 for the reverse SDE, 0 for the probability flow.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Raya, Ambrogioni 2023 (2305.19693); (2).
    """
    fix = "pass an eigenvalue of a covariance"
    checks.require_nonnegative("eigenvalue", eigenvalue, fix)
    _require_dynamics(t, noise, temperature)
    t, eigenvalue, noise, temperature = floats(t, eigenvalue, noise, temperature)
    return _rate(t, eigenvalue, noise, temperature)


def ordered_radius(
    t: ArrayLike,
    radius: ArrayLike,
    dim: ArrayLike,
    noise: ArrayLike = 1.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Distance from the centre of the stable fixed points of data on a sphere.

    .. math:: (g + q)R = (1+g)\,\theta r\,A_d(\theta rR/\Delta)

    Zero where the centre is stable. In one dimension the data are two deltas. Beyond the critical
    time the derivative is that of the centre, zero.

    Args:
        t: time, positive; arguments broadcast.
        radius: radius r of the sphere.
        dim: dimension d, one at least.
        noise: g in units of the temperature: 1 for the reverse SDE, 0 for the probability flow.
        temperature: temperature of the process.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Raya, Ambrogioni 2023 (2305.19693); (3).
    """
    t, radius, dim, noise, temperature = _sphere(t, radius, dim, noise, temperature)
    q = jnp.exp(-2 * t)
    largest = (1 + noise) * jnp.exp(-t) / (noise + q)  # of R / r
    coupling = largest * jnp.exp(-t) * radius**2 / _variance(t, temperature)
    return radius * largest * rotor_magnetization(dim, coupling)


def sphere_rates(
    t: ArrayLike,
    distance: ArrayLike,
    radius: ArrayLike,
    dim: ArrayLike,
    noise: ArrayLike = 1.0,
    temperature: ArrayLike = 1.0,
) -> SphereRates:
    r"""Eigenvalues of the Jacobian of the drift at a distance from the centre of a sphere.

    .. math:: \lambda = 1 + (1+g)T\Big[-\frac1\Delta + \frac{q r^2}{\Delta^2}c\Big],
       \qquad c_\parallel = 1 - A^2 - (d-1)\frac{A}{z}, \quad c_\perp = \frac Az,
       \quad z = \frac{\theta rR}\Delta

    On the ordered branch the transverse one is zero.

    Args:
        t: time, positive; arguments broadcast.
        distance: distance R of the state from the centre.
        radius: radius r of the sphere.
        dim: dimension d, one at least (then there is nothing transverse).
        noise: g in units of the temperature: 1 for the reverse SDE, 0 for the probability flow.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived from (2) and (4).
    """
    checks.require_nonnegative("distance", distance, "pass the norm of the state")
    t, radius, dim, noise, temperature = _sphere(t, radius, dim, noise, temperature)
    (distance,) = floats(jnp.asarray(distance, t.dtype))
    z = jnp.exp(-t) * radius * distance / _variance(t, temperature)
    order = dim / 2 - 1
    # A/z = 1/(d + z I_{d/2+1}/I_{d/2}), which holds at z = 0 as well
    across = 1 / (dim + z * bessel_ratio(order + 1, z))
    along = 1 - bessel_ratio(order, z) ** 2 - (dim - 1) * across
    rates = (_rate(t, radius**2 * part, noise, temperature) for part in (along, across))
    return SphereRates(*rates)


def field_magnetization(inverse_variance: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Stationary point of two deltas seen through noise, tilted by a field.

    .. math:: m = \tanh(b(m + h))

    The positive one without a field; zero up to b = 1.

    Args:
        inverse_variance: b = 1/v, v the variance of the noise in variance-exploding coordinates;
            arguments broadcast.
        field: displacement h of the state.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2025 (2310.17467); (5).
    """
    b, field = _thermal(inverse_variance, field)
    return magnetization(b, b * field)


def field_susceptibility(inverse_variance: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Response of `field_magnetization` to the field.

    .. math:: \chi = \frac{b(1-m^2)}{1 - b(1-m^2)}

    Infinite at b = 1 without a field, with an amplitude above the transition (b < 1) of twice
    the one below it.

    Args:
        inverse_variance: b = 1/v; arguments broadcast.
        field: displacement h of the state.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2025 (2310.17467); (5).
    """
    b, field = _thermal(inverse_variance, field)
    return b * susceptibility(b, b * field)


def field_free_energy(inverse_variance: ArrayLike) -> Array:
    r"""Lowest free energy of two deltas seen through noise, without the constant 1/2 of their norm.

    .. math:: f = \min_m\Big[\tfrac12m^2 - \tfrac1b\log\cosh bm\Big]

    Args:
        inverse_variance: b = 1/v, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2025 (2310.17467); (5).
    """
    b, _ = _thermal(inverse_variance, 0.0)
    return (free_energy_density(b) + jnp.log(jnp.asarray(2, b.dtype))) / b


def sphere_order(inverse_variance: ArrayLike, radius: ArrayLike, dim: ArrayLike) -> Array:
    r"""Order parameter of data on a sphere seen through noise.

    .. math:: R/r = A_d(b\,r\,R)

    Zero up to the critical :math:`b_c = d/r^2`.

    Args:
        inverse_variance: b = 1/v; arguments broadcast.
        radius: radius r of the sphere.
        dim: dimension d, one at least.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2025 (2310.17467); (5).
    """
    checks.require_positive("radius", radius, "pass the radius of the sphere of the data")
    checks.require_dimension(dim)
    b, _ = _thermal(inverse_variance, 0.0)
    b, radius, dim = floats(b, radius, dim)
    return rotor_magnetization(dim, b * radius**2)


def linear_schedule_time(s: ArrayLike, low: ArrayLike = 0.1, high: ArrayLike = 20.0) -> Array:
    r"""OU time at an index of the linear variance schedule.

    .. math:: t = \tfrac12\beta_0 s + \tfrac14(\beta_1 - \beta_0)s^2

    Args:
        s: index in [0, 1], 0 for clean data; arguments broadcast.
        low: rate :math:`\beta_0` at 0.
        high: rate :math:`\beta_1` at 1.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Song et al. 2021 (2011.13456); Raya, Ambrogioni 2023 (2305.19693); (6).
    """
    checks.require_nonnegative("s", s, "pass an index, 0 for clean data and 1 for noise")
    _require_schedule(low, high)
    s, low, high = floats(s, low, high)
    return 0.5 * low * s + 0.25 * (high - low) * s**2


def linear_schedule_index(t: ArrayLike, low: ArrayLike = 0.1, high: ArrayLike = 20.0) -> Array:
    r"""Index of the linear variance schedule at an OU time; inverse of `linear_schedule_time`.

    .. math:: s = \frac{2t}{\frac12\beta_0 + \sqrt{\frac14\beta_0^2 + (\beta_1 - \beta_0)t}}

    Args:
        t: time; arguments broadcast.
        low: rate :math:`\beta_0` at 0.
        high: rate :math:`\beta_1` at 1.

    Returns:
        The index, above 1 for times beyond the end of the schedule.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Song et al. 2021 (2011.13456); Raya, Ambrogioni 2023 (2305.19693); (6).
    """
    checks.require_time(t)
    _require_schedule(low, high)
    t, low, high = floats(t, low, high)
    return 2 * t / (0.5 * low + jnp.sqrt(0.25 * low**2 + (high - low) * t))


def _variance(t: Array, temperature: Array) -> Array:
    return -temperature * jnp.expm1(-2 * t)


def _rate(t: Array, covariance: Array, noise: Array, temperature: Array) -> Array:
    """Equation (2) for one eigenvalue of the posterior covariance."""
    variance = _variance(t, temperature)
    pull = jnp.exp(-2 * t) * covariance / variance - 1
    return 1 + (1 + noise) * temperature * pull / variance


def _require_dynamics(t: ArrayLike, noise: ArrayLike, temperature: ArrayLike) -> None:
    fix = "clean data have no density; pass a positive time"
    checks.require("t", t, lambda v: v > 0, "positive", fix)
    checks.require_nonnegative("noise", noise, "pass 1 for the reverse SDE, 0 for the flow")
    checks.require_temperature(temperature)


def _sphere(
    t: ArrayLike, radius: ArrayLike, dim: ArrayLike, noise: ArrayLike, temperature: ArrayLike
) -> tuple[Array, ...]:
    _require_dynamics(t, noise, temperature)
    checks.require_positive("radius", radius, "pass the radius of the sphere of the data")
    checks.require_dimension(dim)
    return floats(t, radius, dim, noise, temperature)


def _thermal(inverse_variance: ArrayLike, field: ArrayLike) -> tuple[Array, ...]:
    fix = "pass one over the variance of the noise"
    checks.require_positive("inverse_variance", inverse_variance, fix)
    checks.require("field", field, np.isfinite, "finite", "pass the displacement of the state")
    return floats(inverse_variance, field)


def _require_schedule(low: ArrayLike, high: ArrayLike) -> None:
    checks.require_positive("low", low, "pass the variance rate at clean data, such as 0.1")
    checks.require_positive("high", high, "pass the variance rate at noise, such as 20")
