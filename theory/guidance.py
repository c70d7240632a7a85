r"""Guidance of two Gaussians, exactly: what the deterministic and the stochastic sampler do.

**Model.** Data :math:`\pm m + \sigma z` with equal weights, guided towards :math:`+m` by
:math:`F_w = F_+ + w (F_+ - F)`, started from :math:`N(0, 1)` at :math:`t_{max}`, temperature 1.
Only :math:`y = x \cdot m/M` is affected, :math:`M = |m|`. With
:math:`\Gamma_t = 1 + (\sigma^2 - 1) e^{-2t}` let

.. math:: z = \frac{y - M e^{-t}}{\sqrt{\Gamma_t}}, \qquad
   k = \frac{M e^{-t}}{\sqrt{\Gamma_t}} = \frac{M}{\sqrt{e^{2t} - 1 + \sigma^2}}. \tag{1}

In the clock :math:`d\lambda = d\tau/\Gamma = d \log k` the unguided motion of :math:`z` is at rest
(ODE) or a stationary Ornstein-Uhlenbeck process (SDE), and the whole problem has no parameter but
:math:`w`:

.. math:: \frac{dz}{dk} = w \, [1 - \tanh k(k + z)] \qquad \text{(ODE)} \tag{2}

.. math:: dz = \{-z + 2wk [1 - \tanh k(k+z)]\} d\lambda + \sqrt 2 \, dW_\lambda
   \qquad \text{(SDE)} \tag{3}

from :math:`k(t_{max})` to :math:`k(0) = M/\sigma`; then :math:`y = M e^{-t} + \sqrt{\Gamma_t} z`.
The force ends at speciation, :math:`k \sim 1`. Afterwards (2) keeps :math:`z`: the shift of the
mean is :math:`\sigma a(w)` for every large :math:`M`. (3) forgets it like :math:`1/k`: the shift is
:math:`C(w) \sigma^2/M`, :math:`C = \lim_{k \to \infty} k E z`, and the variance returns
to :math:`\sigma^2`. In :math:`d` dimensions :math:`M \propto \sqrt d`: at large :math:`d` guidance
does no harm with the SDE, and with the ODE only relative to :math:`M`.

**Numerics.** (2): fourth-order Runge-Kutta steps in :math:`\log(1 + k)` for the nodes of the
Gaussian start. (3): the density is :math:`e^{-z^2/2} \sum_n c_n h_n(z)/\sqrt{2\pi}` in normalised
Hermite polynomials, of which :math:`c_n = E h_n(z)` obey

.. math:: \frac{dc_n}{d\lambda} = -n c_n + \sqrt n \, E[f h_{n-1}], \qquad
   f = 2wk[1 - \tanh k(k+z)], \tag{4}

by Runge-Kutta steps in k with the linear part integrated exactly. Mean and variance are
:math:`c_1` and :math:`1 + \sqrt 2 c_2 - c_1^2`.

**Tilted law.** :math:`p_+^{1+w} p^{-w}`, which neither sampler produces: noising and tilting do not
commute. With centred Gaussians of variances :math:`v_c` (class) and :math:`v` (all), and
:math:`\gamma = 1 + w`, all three laws are Gaussian, of variances

.. math:: \Big(\frac\gamma{v_c} + \frac{1-\gamma}v\Big)^{-1}, \qquad
   v_c^\gamma v^{1-\gamma} \text{ (ODE)}, \qquad
   \int_0^1 \Big(\frac{v_c}{1 + (v_c-1)q}\Big)^{2\gamma}
   \Big(\frac v{1 + (v-1)q}\Big)^{2 - 2\gamma} dq \text{ (SDE)}. \tag{5}

Sources: Ho, Salimans 2022 (2207.12598); Pavasovic, Verbeek, Biroli, Mezard 2025 (2502.07849);
Bradley, Nakkiran 2024 (2408.09000) for the Gaussians.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from theory.checks import (
    Array,
    elementwise,
    floats,
    require,
    require_mean_norm,
    require_nonnegative,
    require_positive,
)
from theory.quadrature import gaussian_nodes, integrate

_STEPS = 800  # of (2)
_MODES, _MODE_STEPS = 64, 400  # of (4)
_LARGE = 12.0  # k beyond which the force is below e^{-2 k^2} at every node


class Moments(NamedTuple):
    """Mean and variance of the coordinate along the class centre."""

    mean: Array
    variance: Array


class MixtureShift(NamedTuple):
    """Shift of the mean by guidance, and the variance it leaves, along the class centre."""

    ode_mean: Array
    ode_variance: Array
    sde_mean: Array
    sde_variance: Array


class LargeNorm(NamedTuple):
    """Constants of the guided mean at large norm of the centres, in units of sigma."""

    ode: Array
    """:math:`a(w)`: the ODE shifts the mean by :math:`\\sigma a(w)`."""
    sde: Array
    """:math:`C(w)`: the SDE shifts it by :math:`\\sigma^2 C(w)/M`."""


def guided_ode_moments(
    weight: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    t_max: ArrayLike,
    t: ArrayLike = 0.0,
) -> Moments:
    r"""Moments of :math:`y(t)` under the guided probability flow, by (2).

    Accurate to 1e-8; arguments broadcast.

    Args:
        weight: w of the guided score, any sign; 0 is plain conditional sampling.
        mean_norm: :math:`M = |m|` of either centre.
        variance: :math:`\sigma^2 > 0` within a class.
        t_max: time of the Gaussian start.
        t: time at which the moments are asked for, below ``t_max``.

    Raises:
        ValueError: for concrete arguments out of range.
    """
    values = _checked(weight, mean_norm, variance, t_max, t)
    return Moments(*_ode(*values))


def guided_sde_moments(
    weight: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    t_max: ArrayLike,
    t: ArrayLike = 0.0,
) -> Moments:
    r"""Moments of :math:`y(t)` under the guided reverse SDE, by (4).

    Accurate to 1e-6 up to weights of about 15; NaN where 64 modes do not hold the density.
    Arguments broadcast.

    Args:
        weight: :math:`w \ge 0`; with negative weights mass crosses to the other class, which an
            expansion around one class does not hold.
        mean_norm: :math:`M = |m|` of either centre.
        variance: :math:`\sigma^2 > 0` within a class.
        t_max: time of the Gaussian start.
        t: time at which the moments are asked for, below ``t_max``.

    Raises:
        ValueError: for concrete arguments out of range.
    """
    require_nonnegative("weight", weight, "the SDE is solved around the class that is aimed at")
    values = _checked(weight, mean_norm, variance, t_max, t)
    return Moments(*_sde(*values))


def guided_large_norm(weight: ArrayLike) -> LargeNorm:
    r"""Constants :math:`a(w)` and :math:`C(w)` of the shift for :math:`M, t_{max} \to \infty`.

    .. math:: E y(0) - M \to \sigma a(w) \text{ (ODE)}, \qquad \sigma^2 C(w)/M \text{ (SDE)}

    Args:
        weight: :math:`w \ge 0`, broadcast.

    Raises:
        ValueError: for a concrete negative weight.
    """
    require_nonnegative("weight", weight, "both constants are for guidance towards the class")
    return LargeNorm(*_constants(*floats(weight)))


def mixture_shift(
    weight: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike = 1.0,
    t_max: ArrayLike | None = None,
) -> MixtureShift:
    r"""What guidance towards one of two classes :math:`\pm m` does to its law, for both samplers.

    The shift of the mean is that over the unguided sampler (:math:`w = 0`) from the same start
    :math:`N(0, 1)`; orthogonal coordinates are not changed. In :math:`d` dimensions
    :math:`M \propto \sqrt d`: the SDE's shift vanishes like :math:`1/M`, the ODE's does not.

    Args:
        weight: :math:`w \ge 0` of the guided score :math:`F_c + w (F_c - F)`.
        mean_norm: :math:`M = |m|` of either centre.
        variance: :math:`\sigma^2 > 0` within a class.
        t_max: OU time of the start; :math:`14 + \log(1 + M)` if None, which is as good as infinite
            to six digits.

    Raises:
        ValueError: for concrete arguments out of range.

    References:
        Pavasovic, Verbeek, Biroli, Mezard 2025 (2502.07849).
    """
    if t_max is None:
        t_max = 14 + jnp.log1p(jnp.abs(jnp.asarray(mean_norm, float)))
    ode, sde = (
        solve(weight, mean_norm, variance, t_max)
        for solve in (guided_ode_moments, guided_sde_moments)
    )
    plain = guided_ode_moments(0.0, mean_norm, variance, t_max).mean
    slow = guided_sde_moments(0.0, mean_norm, variance, t_max).mean
    return MixtureShift(ode.mean - plain, ode.variance, sde.mean - slow, sde.variance)


def tilted_moments(weight: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike) -> Moments:
    r"""Moments of :math:`y` under the tilted law :math:`p_+^{1+w} p^{-w}` of the clean data.

    .. math:: p(y) \propto e^{-(y-M)^2/2\sigma^2} \big(1 + e^{-2My/\sigma^2}\big)^{-w}

    Args:
        weight: w, any sign.
        mean_norm: :math:`M = |m|` of either centre.
        variance: :math:`\sigma^2 > 0` within a class.

    Raises:
        ValueError: for concrete arguments out of range.
    """
    require_mean_norm(mean_norm)
    require_positive("variance", variance, "pass the variance within a class")
    return Moments(*_tilted(*floats(weight, mean_norm, variance)))


def gaussian_guidance_variances(
    gamma: ArrayLike, class_variance: ArrayLike, data_variance: ArrayLike
) -> tuple[Array, Array, Array]:
    r"""Variances (5) of centred Gaussians: of the tilted law, the guided ODE, the guided SDE.

    The samplers start from :math:`N(0, 1)` at infinite time.

    Args:
        gamma: :math:`\gamma = 1 + w`.
        class_variance: :math:`v_c > 0`.
        data_variance: :math:`v > 0`.

    Returns:
        Three arrays; the tilted law is NaN where it cannot be normalised.

    Raises:
        ValueError: for a concrete variance that is not positive.

    References:
        Bradley, Nakkiran 2024 (2408.09000), where ``v_c = 1`` and ``v = 2``.
    """
    require_positive("class_variance", class_variance, "pass the variance of the class")
    require_positive("data_variance", data_variance, "pass the variance of all data")
    return _gaussian(*floats(gamma, class_variance, data_variance))


def _checked(
    weight: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike, t_max: ArrayLike, t: ArrayLike
) -> tuple[Array, ...]:
    require_mean_norm(mean_norm)
    require_positive("variance", variance, "pass the variance within a class")
    require_nonnegative("t", t, "pass a time of the Ornstein-Uhlenbeck process")
    if not any(isinstance(v, jax.core.Tracer) for v in (t_max, t)):
        gap = np.asarray(t_max) - np.asarray(t)
        require("t_max - t", gap, lambda v: v > 0, "positive", "the chain runs down from t_max")
    return floats(weight, mean_norm, variance, t_max, t)


def _ends(mean_norm: Array, variance: Array, time: Array) -> tuple[Array, Array, Array]:
    """Signal ``M e^{-t}``, its spread ``Gamma``, and ``k`` of (1)."""
    spread = 1 + (variance - 1) * jnp.exp(-2 * time)
    signal = mean_norm * jnp.exp(-time)
    return signal, spread, signal / jnp.sqrt(spread)


def _start(mean_norm: Array, variance: Array, t_max: Array) -> tuple[Array, Array, Array]:
    """``k`` and the mean and variance of z for a start from N(0, 1)."""
    _, spread, k = _ends(mean_norm, variance, t_max)
    return k, -k, 1 / spread


def _runge_kutta(slope: Callable[[Array, Array], Array], y: Array, start: Array, end: Array):
    """Classical steps of ``dy/ds = slope(s, y)``, evenly spaced."""
    h = (end - start) / _STEPS

    def step(y: Array, i: Array) -> tuple[Array, None]:
        s = start + i * h
        a = slope(s, y)
        b = slope(s + h / 2, y + h / 2 * a)
        c = slope(s + h / 2, y + h / 2 * b)
        d = slope(s + h, y + h * c)
        return y + h / 6 * (a + 2 * b + 2 * c + d), None

    return lax.scan(step, y, jnp.arange(_STEPS, dtype=y.dtype))[0]


def _repulsion(k: Array, z: Array) -> Array:
    """``1 - tanh k(k + z)`` without cancellation."""
    return 2 * jax.nn.sigmoid(-2 * k * (k + z))


def _flow(weight: Array, z: Array, k_start: Array, k_end: Array) -> Array:
    """(2) in ``s = log(1 + k)``, from one k to another."""

    def slope(s: Array, z: Array) -> Array:
        return weight * jnp.exp(s) * _repulsion(jnp.expm1(s), z)

    return _runge_kutta(slope, z, jnp.log1p(k_start), jnp.log1p(k_end))


def _mean_variance(z: Array, weights: Array) -> tuple[Array, Array]:
    mean = jnp.sum(weights * z)
    return mean, jnp.sum(weights * jnp.square(z - mean))


@elementwise
def _ode(weight: Array, mean_norm: Array, variance: Array, t_max: Array, t: Array):
    k_start, shift, width = _start(mean_norm, variance, t_max)
    signal, spread, k_end = _ends(mean_norm, variance, t)
    nodes, weights = gaussian_nodes(dtype=weight.dtype)
    z = _flow(weight, shift + jnp.sqrt(width) * nodes, k_start, k_end)
    mean, square = _mean_variance(z, weights)
    return signal + jnp.sqrt(spread) * mean, spread * square


def _hermite_table() -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and ``sqrt(weight) h_n`` at them, ``(modes, nodes)``: orthonormal rows."""
    z, weights = np.polynomial.hermite_e.hermegauss(2 * _MODES + 32)
    rows = [np.sqrt(weights / weights.sum())]
    rows.append(z * rows[0])
    for n in range(1, _MODES - 1):
        rows.append((z * rows[n] - np.sqrt(n) * rows[n - 1]) / np.sqrt(n + 1))
    return z, np.stack(rows)


def _hermite_of_gaussian(mean: Array, variance: Array) -> Array:
    """``E h_n`` for n below the number of modes, by the recursion of the polynomials."""

    def step(pair: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], Array]:
        before, last = pair
        new = (mean * last + (variance - 1) * jnp.sqrt(n) * before) / jnp.sqrt(n + 1)
        return (last, new), new

    zero, one = jnp.zeros_like(mean), jnp.ones_like(mean)
    orders = jnp.arange(_MODES - 1, dtype=mean.dtype)
    _, rest = lax.scan(step, (zero, one), orders)
    return jnp.concatenate([one[None], rest])


def _fokker_planck(weight: Array, c: Array, k_start: Array, k_end: Array) -> Array:
    """(4) from one k to another: Runge-Kutta steps in k with the decay ``k^{-n}`` taken out."""
    z, table = (jnp.asarray(a, c.dtype) for a in _hermite_table())
    orders = jnp.arange(_MODES, dtype=c.dtype)
    # beyond k = 5 less than 1e-7 of the density feels the force, which would only stiffen (4)
    k_last = jnp.minimum(k_end, 5)
    h = (k_last - k_start) / _MODE_STEPS

    def force(k: Array, c: Array) -> Array:
        density = jnp.matmul(c, table, precision="highest")
        moments = jnp.matmul(table, _repulsion(k, z) * density, precision="highest")
        return (
            2 * weight * jnp.sqrt(orders) * jnp.concatenate([jnp.zeros(1, c.dtype), moments[:-1]])
        )

    def step(c: Array, i: Array) -> tuple[Array, None]:
        k = k_start + i * h
        first, second = (k / (k + h / 2)) ** orders, ((k + h / 2) / (k + h)) ** orders
        p = force(k, c)
        q = force(k + h / 2, first * (c + h / 2 * p))
        r = force(k + h / 2, first * c + h / 2 * q)
        e = force(k + h, second * (first * c + h * r))
        return second * (first * (c + h / 6 * p) + h / 3 * (q + r)) + h / 6 * e, None

    c, _ = lax.scan(step, c, jnp.arange(_MODE_STEPS, dtype=c.dtype))
    return c * (k_last / k_end) ** orders


def _moments_of_modes(c: Array) -> tuple[Array, Array]:
    """Mean and variance of z; NaN where the last modes are not small."""
    lost = jnp.abs(c[-1]) + jnp.abs(c[-2]) > 1e-2
    mean = jnp.where(lost, jnp.nan, c[1])
    return mean, 1 + jnp.sqrt(jnp.asarray(2, c.dtype)) * c[2] - mean**2


@elementwise
def _sde(weight: Array, mean_norm: Array, variance: Array, t_max: Array, t: Array):
    k_start, shift, width = _start(mean_norm, variance, t_max)
    signal, spread, k_end = _ends(mean_norm, variance, t)
    c = _hermite_of_gaussian(shift, width)
    # without centres nothing is guided, and ratios of k must stay finite
    tiny = jnp.finfo(weight.dtype).tiny ** 0.5
    start, end = jnp.maximum(k_start, tiny), jnp.maximum(k_end, 2 * tiny)
    mean, square = _moments_of_modes(_fokker_planck(weight, c, start, end))
    return signal + jnp.sqrt(spread) * mean, spread * square


@elementwise
def _constants(weight: Array):
    nodes, weights = gaussian_nodes(dtype=weight.dtype)
    large = jnp.asarray(_LARGE, weight.dtype)
    z = _flow(weight, nodes, jnp.zeros_like(weight), large)
    zero = jnp.zeros_like(weight)
    c = _hermite_of_gaussian(zero, zero + 1)
    start = jnp.asarray(1e-9, weight.dtype)
    mean, _ = _moments_of_modes(_fokker_planck(weight, c, start, large))
    return jnp.sum(weights * z), large * mean


@elementwise
def _tilted(weight: Array, mean_norm: Array, variance: Array):
    nodes, weights = gaussian_nodes(641, weight.dtype)
    sigma = jnp.sqrt(variance)
    y = mean_norm + sigma * nodes
    tilt = -weight * jax.nn.softplus(-2 * mean_norm * y / variance)
    tilted = jax.nn.softmax(jnp.log(weights) + tilt)
    mean, square = _mean_variance(nodes, tilted)
    return mean_norm + sigma * mean, variance * square


@elementwise
def _gaussian(gamma: Array, class_variance: Array, data_variance: Array):
    precision = gamma / class_variance + (1 - gamma) / data_variance
    tilted = jnp.where(precision > 0, 1 / precision, jnp.nan)
    ode = class_variance**gamma * data_variance ** (1 - gamma)

    def integrand(q: Array) -> Array:
        both = class_variance / (1 + (class_variance - 1) * q)
        all_data = data_variance / (1 + (data_variance - 1) * q)
        return both ** (2 * gamma) * all_data ** (2 - 2 * gamma)

    zero = jnp.zeros_like(gamma)
    return tilted, ode, integrate(integrand, zero, zero + 1)
