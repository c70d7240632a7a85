r"""Laws of the overlap of a datum with a posterior sample, or of two replicas.

Given a state x, the datum a that made it and a posterior sample a' are exchangeable (Nishimori),

.. math:: p(a, a') = \int dx\, p_t(x)\, p(a|x)\, p(a'|x), \qquad E[a\cdot a'] = E|D(x)|^2, \tag{1}

D the posterior mean. The overlap is :math:`q = a\cdot a'/E|a|^2`, T = 1,
:math:`u = \sigma^2e^{-2t}/\Delta_t` and :math:`\rho = u/(1 + u)`.

*Gaussian data* of variance :math:`\sigma^2`. The coordinates of a and a' have correlation
:math:`\rho`, so that :math:`E e^{\lambda dq} = [1 - 2\rho\lambda - (1-\rho^2)\lambda^2]^{-d/2}` (2)
and with :math:`s = dq`, K the modified Bessel function,

.. math:: p(s) = \frac{|s|^{(d-1)/2}\,e^{\rho s/(1-\rho^2)}\,K_{(d-1)/2}(|s|/(1-\rho^2))}
   {2^{(d-1)/2}\sqrt\pi\,\Gamma(d/2)\sqrt{1-\rho^2}}. \tag{3}

*Two potentials.* The logarithm of (3) is the annealed one: with :math:`c = 1 - \rho^2`,
:math:`-\frac1d\log p \to I(q) = \max_\lambda\{\lambda q + \frac12\log[1 - 2\rho\lambda
- c\lambda^2]\}` (4). The Franz-Parisi potential averages the logarithm at given (a, x), where q is
normal,

.. math:: V(q) - V_{eq} = \frac{1+u}2(q - \rho)^2, \qquad
   E\,\mathrm{Var}(q|a, x) = \frac{1}{d(1+u)}. \tag{5}

Both have their minimum at :math:`\rho`, and :math:`I \le V - V_{eq}`: states differ, so that the
histogram over states, of variance :math:`(1+\rho^2)/d`, is wider than one of a single state.

*Two balanced Gaussians at* :math:`\pm m`, M = |m|. Along m, x is normal around
:math:`e^{-t}M` with variance :math:`\Gamma_t` up to a common sign, the classes have the posterior
:math:`p_s(x)`, and given x and class a is normal with mean
:math:`\mu_s = (sM\Delta_t + e^{-t}\sigma^2x)/\Gamma_t` and variance
:math:`v = \sigma^2\Delta_t/\Gamma_t`. The characteristic function of a.a' is

.. math:: \big[1 - 2i\rho\sigma^2k + c\,\sigma^4k^2\big]^{-\frac{d-1}2}\,
   E_x\sum_{s,s'} p_sp_{s'}\frac{1}{\sqrt{1+k^2v^2}}
   \exp\frac{ik\mu_s\mu_{s'} - \frac12k^2v(\mu_s^2 + \mu_{s'}^2)}{1 + k^2v^2}. \tag{6}

*Curie-Weiss spins.* For large d, a' is in the class of a with the probability of clones
(`theory.curie_weiss.clone_agreement`), and with :math:`\theta_\pm = \pm\beta m^* + bx`,
:math:`b = e^{-t}/\Delta_t`, x a noised spin of mean :math:`m^*`,

.. math:: q_{same} = E\tanh^2\theta_+, \qquad q_{other} = E\tanh\theta_+\tanh\theta_-. \tag{7}

At small d the law is exact by quadrature over x and enumeration of both configurations (8).

Sources: Yu, Huang 2025 (2405.11932) for the potential; Biroli, Mezard 2023 (2306.03518) for (7).
The laws are derived here.
"""

import math
import operator
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln, logsumexp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import signal_ratio
from theory.checks import Array, elementwise, floats
from theory.curie_weiss_magnet import magnetization, require_beta
from theory.quadrature import gaussian_expectation, gaussian_nodes

_FREQUENCIES = 2048
_PERIOD = 24.0  # of the inversion of (6), in units of a bound on the overlap
_BESSEL_NODES = 801
_LARGEST_DIM = 5


class MagnetOverlaps(NamedTuple):
    """Typical overlaps of two posterior samples of a magnet in the limit of many spins."""

    same: Array
    """Both in the class of the state."""
    other: Array
    """In opposite classes."""


def gaussian_overlap_log_density(
    q: ArrayLike, t: ArrayLike, dim: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Logarithm of the density of :math:`q = a\cdot a'/(d\sigma^2)` for Gaussian data, by (3).

    Args:
        q: overlap, not zero in one dimension; arguments broadcast.
        t: OU time, positive.
        dim: number of coordinates.
        variance: variance per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; exact in every dimension.
    """
    _require(t, variance)
    checks.require_dimension(dim)
    q, t, dim, variance = floats(q, t, dim, variance)
    return _log_density(q, signal_ratio(t, variance), dim)


def gaussian_overlap_rate(q: ArrayLike, t: ArrayLike, variance: ArrayLike) -> Array:
    r"""Rate function (4) of the histogram of overlaps over states, per coordinate.

    Args:
        q: overlap; arguments broadcast.
        t: OU time, positive.
        variance: variance per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; the limit of (3) for large d.
    """
    _require(t, variance)
    q, t, variance = floats(q, t, variance)
    u = signal_ratio(t, variance)
    rho = u / (1 + u)
    c = (1 + 2 * u) / (1 + u) ** 2  # 1 - rho^2
    tilt = 2 * (q - rho) / (c + 2 * rho * q + jnp.hypot(c, 2 * q))
    return tilt * q + 0.5 * jnp.log1p(-2 * rho * tilt - c * tilt**2)


def gaussian_overlap_potential(q: ArrayLike, t: ArrayLike, variance: ArrayLike) -> Array:
    r"""Franz-Parisi potential :math:`V(q) - V_{eq}` of Gaussian data, per coordinate, by (5).

    Args:
        q: overlap; arguments broadcast.
        t: OU time, positive.
        variance: variance per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932), annealed slices of the random energy model.
    """
    _require(t, variance)
    q, t, variance = floats(q, t, variance)
    u = signal_ratio(t, variance)
    return 0.5 * (1 + u) * (q - u / (1 + u)) ** 2


def mixture_overlap_distribution(
    q: ArrayLike, t: ArrayLike, dim: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Distribution function of :math:`q = a\cdot a'/(M^2 + d\sigma^2)`, by inversion of (6).

    Accurate to 1e-9 for 8 coordinates or more; in low dimension the density has a peak at 0 that
    the inversion does not resolve. Single Gaussian for ``mean_norm`` 0.

    Args:
        q: overlaps, shape (n,).
        t: OU time, positive; the other arguments broadcast.
        dim: number of coordinates.
        mean_norm: norm M of a class centre.
        variance: variance per coordinate within a class, positive.

    Returns:
        Probabilities of an overlap below each q, shape (..., n).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    _require_mixture(t, dim, mean_norm, variance)
    q, t, dim, mean_norm, variance = floats(q, t, dim, mean_norm, variance)
    return _distribution(q, t, dim, mean_norm, variance)


def mixture_overlap_mean(
    t: ArrayLike, dim: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Mean overlap :math:`E|D|^2/(M^2 + d\sigma^2)` of two balanced Gaussians, by (1).

    Args:
        t: OU time, positive; arguments broadcast.
        dim: number of coordinates.
        mean_norm: norm M of a class centre.
        variance: variance per coordinate within a class, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Nishimori's identity.
    """
    _require_mixture(t, dim, mean_norm, variance)
    return _mean(*floats(t, dim, mean_norm, variance))


def curie_weiss_overlaps(t: ArrayLike, beta: ArrayLike) -> MagnetOverlaps:
    r"""Overlaps of posterior samples of the Curie-Weiss magnet in one class and in two, by (7).

    Exact as d goes to infinity, with corrections O(1/d) away from the critical point; the two are
    one below it.

    Args:
        t: OU time, positive; arguments broadcast.
        beta: inverse temperature, critical at 1.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518).
    """
    checks.require_positive("t", t, "the posterior of clean data is a point")
    require_beta(beta)
    t, beta = floats(t, beta)
    return _magnet(t, beta, magnetization(beta))


def curie_weiss_overlap_law(t: ArrayLike, beta: ArrayLike, dim: int = 4, nodes: int = 25) -> Array:
    r"""Probabilities of :math:`a\cdot a' = -d, 2 - d, \ldots, d` of a small magnet, by (8).

    Exact up to the quadrature over the d noised spins, which takes ``nodes ** dim`` points. With
    25 nodes for each spin its error is 2e-4 at t = .1, where it is largest.

    Args:
        t: OU time, positive; t and beta broadcast.
        beta: inverse temperature.
        dim: number of spins, a concrete integer from 1 to 5.
        nodes: nodes for each spin.

    Returns:
        Shape (..., dim + 1).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    checks.require_positive("t", t, "the posterior of clean data is a point")
    require_beta(beta)
    size = operator.index(dim)
    if not 1 <= size <= _LARGEST_DIM:
        raise ValueError(f"dim must be 1 to {_LARGEST_DIM}, but is dim={dim}; it is enumerated")
    number = checks.require_count("nodes", nodes, 3, "a rule over a range of 17.5 needs some 25")
    t, beta = floats(t, beta)
    return _small_magnet(size, number, t, beta)


def _require(t: ArrayLike, variance: ArrayLike) -> None:
    checks.require_positive("t", t, "the posterior of clean data is a point")
    checks.require_positive("variance", variance, "pass the variance per coordinate")


def _require_mixture(
    t: ArrayLike, dim: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike
) -> None:
    _require(t, variance)
    checks.require_dimension(dim)
    checks.require_mean_norm(mean_norm)


def _log_scaled_bessel(order: Array, y: Array) -> Array:
    """Logarithm of e^y K(y) by the trapezoid rule over exp(-y cosh r) cosh(order r); scalars."""
    peak = jax.lax.stop_gradient(jnp.arcsinh(order / y))
    # the integrand is below e^-40 of its largest value beyond these ends
    drop = jax.lax.stop_gradient(40 / jnp.hypot(order, y))
    lower = jnp.maximum(peak - drop - jnp.sqrt(2 * drop), 0)
    upper = peak + jnp.log1p(drop + jnp.sqrt(drop * (2 + drop)))
    r = lower + (upper - lower) * jnp.linspace(0, 1, _BESSEL_NODES, dtype=y.dtype)
    logs = -2 * y * jnp.sinh(r / 2) ** 2 + jnp.logaddexp(order * r, -order * r) - math.log(2)
    half = jnp.where(jnp.arange(_BESSEL_NODES) == 0, math.log(0.5), 0).astype(y.dtype)
    return logsumexp(logs + half) + jnp.log((upper - lower) / (_BESSEL_NODES - 1))


def _log_density_value(q: Array, u: Array, dim: Array) -> Array:
    c = (1 + 2 * u) / (1 + u) ** 2  # 1 - rho^2
    order, size = 0.5 * (dim - 1), jnp.abs(dim * q)
    least = jnp.finfo(q.dtype).tiny ** 0.25
    # (rho s - |s|)/c without cancellation
    tilt = jnp.where(q > 0, -(1 + u) / (1 + 2 * u), -(1 + u)) * size
    tilt = jnp.where(size > least, tilt, (u / (1 + u) * dim * q - least) / c)
    size = jnp.maximum(size, least)  # the density is finite at 0
    log_norm = 0.5 * (dim - 1) * math.log(2) + 0.5 * math.log(math.pi) + gammaln(dim / 2)
    value = order * jnp.log(size) + tilt + _log_scaled_bessel(order, size / c)
    return (value - log_norm - 0.5 * jnp.log(c) + jnp.log(dim)).astype(q.dtype)


def _along(t: Array, mean_norm: Array, variance: Array, z: Array) -> tuple[Array, Array, Array]:
    """Posterior of both classes, means within them ``(2, n)``, and the variance along m."""
    decay, noise = jnp.exp(-t), -jnp.expm1(-2 * t)
    gamma = noise + variance * decay**2
    x = decay * mean_norm + jnp.sqrt(gamma) * z
    field = decay * mean_norm * x / gamma
    weights = jax.nn.sigmoid(jnp.stack([2 * field, -2 * field]))
    base, shift = decay * variance * x / gamma, mean_norm * noise / gamma
    return weights, jnp.stack([base + shift, base - shift]), variance * noise / gamma


def _characteristic(k: Array, t: Array, dim: Array, mean_norm: Array, variance: Array) -> Array:
    """The function (6) at a vector of frequencies."""
    u = signal_ratio(t, variance)
    rho, c = u / (1 + u), (1 + 2 * u) / (1 + u) ** 2
    z, nodes = gaussian_nodes(dtype=k.dtype)
    weights, mean, v = _along(t, mean_norm, variance, z)
    spread = 1 + (k * v)[:, None] ** 2

    def pair(i: int, j: int) -> Array:
        size = -0.5 * k[:, None] ** 2 * v * (mean[i] ** 2 + mean[j] ** 2) / spread
        size = jnp.exp(size) * nodes * weights[i] * weights[j]
        phase = k[:, None] * mean[i] * mean[j] / spread
        return jax.lax.complex(
            jnp.sum(size * jnp.cos(phase), axis=1), jnp.sum(size * jnp.sin(phase), axis=1)
        )

    # the pairs (0, 1) and (1, 0) are equal
    along = pair(0, 0) + pair(0, 1) + pair(0, 1) + pair(1, 1)
    real, imaginary = 1 + c * (variance * k) ** 2, -2 * rho * variance * k
    log_size = -0.5 * jnp.log(spread[:, 0])
    log_size = log_size - 0.5 * (dim - 1) * jnp.log(jnp.hypot(real, imaginary))
    angle = -0.5 * (dim - 1) * jnp.arctan2(imaginary, real)
    return along * jnp.exp(jax.lax.complex(log_size, angle))


def _distribution_values(
    q: Array, t: Array, dim: Array, mean_norm: Array, variance: Array
) -> Array:
    u = signal_ratio(t, variance)
    rho = u / (1 + u)
    bound = (
        variance * (jnp.sqrt(dim * (1 + rho**2)) + dim * rho)
        + mean_norm**2
        + 2 * mean_norm * jnp.sqrt(variance)
    )
    step = jax.lax.stop_gradient(2 * math.pi / (_PERIOD * bound))
    k = step * (jnp.arange(_FREQUENCIES, dtype=q.dtype) + 0.5)
    phi = _characteristic(k, t, dim, mean_norm, variance)
    angle = (mean_norm**2 + dim * variance) * q[:, None] * k
    imaginary = jnp.imag(phi) * jnp.cos(angle) - jnp.real(phi) * jnp.sin(angle)
    return 0.5 - step / math.pi * jnp.sum(imaginary / k, axis=1)


def _mean_value(t: Array, dim: Array, mean_norm: Array, variance: Array) -> Array:
    u = signal_ratio(t, variance)

    def squared(z: Array) -> Array:
        weights, mean, _ = _along(t, mean_norm, variance, z)
        return jnp.sum(weights * mean, axis=0) ** 2

    along = gaussian_expectation(squared, dtype=t.dtype)
    return (along + (dim - 1) * variance * u / (1 + u)) / (mean_norm**2 + dim * variance)


def _magnet_values(t: Array, beta: Array, m: Array) -> MagnetOverlaps:
    kappa = jnp.exp(-t) / jnp.sqrt(-jnp.expm1(-2 * t))

    def means(z: Array) -> Array:
        up, down = kappa * (kappa + z), kappa * (z - kappa)  # b x of both spins

        def over(signal: Array) -> Array:
            own, opposite = jnp.tanh(signal + beta * m), jnp.tanh(signal - beta * m)
            return jnp.stack([own * own, own * opposite])

        return 0.5 * ((1 + m) * over(up) + (1 - m) * over(down))

    return MagnetOverlaps(*gaussian_expectation(means, dtype=t.dtype))


def _small_magnet_values(dim: int, nodes: int, t: Array, beta: Array) -> Array:
    """In the gauge of the datum: x_i a_i is a noised +1, and a' = a tau has the overlap sum tau."""
    kind = t.dtype
    tau = np.array(list(product([-1, 1], repeat=dim)))  # (2^d, d)
    kappa = jnp.exp(-t) / jnp.sqrt(-jnp.expm1(-2 * t))
    z, weights = gaussian_nodes(nodes, kind)
    signal = kappa**2 + kappa * z  # b x_i a_i
    rest = jnp.meshgrid(*[signal] * (dim - 1), indexing="ij")
    others = jnp.stack([g.ravel() for g in rest]) if dim > 1 else jnp.zeros((0, 1), kind)
    mass = jnp.ones((1,), kind)
    for _ in range(dim - 1):
        mass = (mass[:, None] * weights).ravel()
    bonds = jnp.asarray(tau[:, 1:], kind) @ others  # (2^d, n^(d-1))
    counted = np.arange(dim + 1)[:, None] == (tau.sum(1) + dim) // 2  # (d + 1, 2^d)

    def conditional(bonds_of_spins: Array) -> Array:
        """Law of the overlap given the datum, of whose spins the products with tau are given."""
        prior = beta * bonds_of_spins**2 / (2 * dim)

        def first(node: tuple[Array, Array]) -> Array:
            value, weight = node
            logs = prior[:, None] + bonds + jnp.asarray(tau[:, :1], kind) * value
            return weight * (jax.nn.softmax(logs, axis=0) @ mass)

        found = jnp.sum(jax.lax.map(first, (signal, weights)), axis=0)
        return jnp.asarray(counted, kind) @ found

    ups = np.arange(dim + 1)
    spins = np.where(np.arange(dim) < ups[:, None], 1, -1)  # one datum of each magnetisation
    laws = jax.lax.map(conditional, jnp.asarray(spins @ tau.T, kind))
    counts = jnp.asarray([math.comb(dim, k) for k in ups], kind)
    prior = counts * jnp.exp(beta * jnp.asarray(2 * ups - dim, kind) ** 2 / (2 * dim))
    return prior @ laws / jnp.sum(prior)


@partial(jax.jit, static_argnums=(0, 1))
def _small_magnet(dim: int, nodes: int, t: Array, beta: Array) -> Array:
    return jnp.vectorize(partial(_small_magnet_values, dim, nodes), signature="(),()->(k)")(t, beta)


_log_density = elementwise(_log_density_value)
_distribution = elementwise(_distribution_values, "(n),(),(),(),()->(n)")
_mean = elementwise(_mean_value)
_magnet = elementwise(_magnet_values)
