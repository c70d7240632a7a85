r"""Speed limits of the noised path, and schedules of constant speed.

T = 1, two balanced Gaussians of variance :math:`\sigma^2` at :math:`\pm\mu` in one dimension. The
law moves with the velocity :math:`v = -(x + F)`, F the score, and the entropy production is
:math:`\pi = E v^2` (`theory.thermodynamics`). By Cauchy and Schwarz, and because no path between
two laws is shorter than the transport distance :math:`W_2` (Benamou and Brenier),

.. math:: \int_0^\tau \pi\,dt \;\ge\; \frac{L^2}{\tau} \;\ge\; \frac{W_2(p_0, p_\tau)^2}\tau, \qquad
   L = \int_0^\tau\!\sqrt\pi\,dt. \tag{1}

On a line, with the quantile functions Q,

.. math:: W_2^2 = \int_0^1 (Q_0 - Q_\tau)^2\,dp. \tag{2}

*Schedules.* A process of unit diffusion that passes through the same laws as :math:`p_{s(u)}`,
:math:`0 \le u \le 1`, has the velocity :math:`s'v` and produces the entropy (its action)

.. math:: A[s] = \int_0^1 s'(u)^2\,\pi(s)\,du \ge L^2, \tag{3}

with equality for constant speed, :math:`s'\sqrt{\pi(s)} = L`. (The Ornstein-Uhlenbeck process with
a faster clock has the diffusion s' as well, and produces the same entropy for every s.) If s is
linear between K + 1 equidistant times, with :math:`h_k = t_{k+1} - t_k` and
:math:`P(t) = \int_0^t\pi`, A is :math:`K\sum_k h_k[P(t_{k+1}) - P(t_k)]` (4).

*The ancestral sampler* keeps the denoiser fixed in each step. In the signal-to-noise ratio
:math:`\gamma` the reverse SDE reads :math:`dy = D\,d\gamma + dB`, and the sampler is its solution
for a fixed D, so that by Girsanov's theorem the divergence of the exact path from the sampler's,
both starting from the exact law, is :math:`\frac12\sum_k\int E|D_\gamma - D_{\gamma_k}|^2 d\gamma`.
The denoiser is a martingale along the path, so this is the error of a Riemann sum of the I-MMSE
relation:

.. math:: KL = \tfrac12\sum_k\mathrm{mmse}(\gamma_k)(\gamma_{k+1} - \gamma_k)
   - [I(\gamma_N) - I(\gamma_0)] \simeq \tfrac14\sum_k h_k^2 c(t_k)^2, \quad
   c = \sqrt{\frac{d\,\mathrm{mmse}}{dt}\Big|\frac{d\gamma}{dt}\Big|}. \tag{5}

For N steps it is at least :math:`(\int c\,dt)^2/4N` to leading order, for steps of equal length in
the metric c (6). The two metrics differ: (3) is about transport, (5) about what a frozen denoiser
misses.

Sources: Aurell, Gawedzki, Mejia-Monasterio, Mohayaei, Muratore-Ginanneschi 2012 (1201.3207) for
(1); Guo, Shamai, Verdu 2005 (cs/0412108) for I-MMSE; (5) is derived here.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike

from theory import checks
from theory.channel import mixture_information
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_expectation, gaussian_nodes, integrate
from theory.roots import find_root
from theory.thermodynamics import mixture_rates, total_production

_NODES = 96
_TRANSPORT_NODES = 401


def transport_distance(
    mean: ArrayLike, variance: ArrayLike, other_mean: ArrayLike, other_variance: ArrayLike
) -> Array:
    r"""Transport distance :math:`W_2` of two symmetric mixtures of two Gaussians on a line, by (2).

    Both laws are even, so that the map is odd, and it is solved for with the upper tails.

    Args:
        mean: distance of the first pair of centres from the origin; arguments broadcast.
        variance: variance of each Gaussian of the first, positive.
        other_mean: distance of the second pair.
        other_variance: variance of the second, positive.

    Returns:
        The distance, not its square.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Villani 2003, quantile form on a line.
    """
    for name, value in (("mean", mean), ("other_mean", other_mean)):
        checks.require_mean_norm(value, name)
    for name, value in (("variance", variance), ("other_variance", other_variance)):
        checks.require_positive(name, value, "pass the variance of each Gaussian")
    return _transport(*floats(mean, variance, other_mean, other_variance))


def noised_transport_distance(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Transport distance between the data and their law at time t.

    Args:
        t: OU time, positive; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (2).
    """
    checks.require_positive("t", t, "the distance at t = 0 is zero")
    t, mean, variance = floats(t, mean, variance)
    noised = -jnp.expm1(-2 * t) + variance * jnp.exp(-2 * t)
    return transport_distance(mean, variance, mean * jnp.exp(-t), noised)


def production_speed(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Speed :math:`\sqrt\pi` of the noised law in the transport metric, per unit of OU time.

    Args:
        t: OU time; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (1).
    """
    return jnp.sqrt(mixture_rates(t, mean, variance).production)


def sampler_speed(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Speed c of (5), in which a step of the ancestral sampler has its error.

    Args:
        t: OU time, positive; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    _require(t, mean, variance)
    return _sampler_speed(*floats(t, mean, variance))


def mixture_mmse(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Minimum mean squared error of a datum of two balanced Gaussians on a line.

    .. math:: \mathrm{mmse} = \frac{\sigma^2\Delta_t}{\Gamma_t}
       + \frac{\mu^2\Delta_t^2}{\Gamma_t^2}\,(1 - E\tanh^2)

    Args:
        t: OU time, positive; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108).
    """
    _require(t, mean, variance)
    return _mmse(*floats(t, mean, variance))


def schedule_action(times: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Action (4) of a schedule that is linear between equidistant times.

    Args:
        times: increasing OU times, shape (K + 1,).
        mean: distance of a centre from the origin, a scalar.
        variance: variance of each Gaussian, positive, a scalar.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (3), (4).
    """
    times = _grid(times)
    produced = total_production(times, mean, variance)
    return (times.size - 1) * jnp.sum(jnp.diff(times) * jnp.diff(produced))


def path_divergence(times: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""Divergence of the exact reverse path from the ancestral sampler's, in nats, exact, by (5).

    Args:
        times: increasing OU times of the grid, positive, shape (N + 1,); both ends are included.
        mean: distance of a centre from the origin, a scalar.
        variance: variance of each Gaussian, positive, a scalar.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    times = _grid(times)
    _require(times, mean, variance)
    mean, variance = (jnp.asarray(v, times.dtype) for v in (mean, variance))
    ratio = 1 / jnp.expm1(2 * times)
    gained = 0.5 * jnp.sum(_mmse(times[1:], mean, variance) * (ratio[:-1] - ratio[1:]))
    noised = -jnp.expm1(-2 * times) + variance * jnp.exp(-2 * times)
    information = 0.5 * jnp.log1p(variance * ratio)
    information = information + mixture_information(mean * jnp.exp(-times) / jnp.sqrt(noised))
    return gained - (information[0] - information[-1])


def path_length(speed: Callable[[Array], Array], lower: ArrayLike, upper: ArrayLike) -> Array:
    r"""Length :math:`\int c\,dt` of a path of a given speed.

    Args:
        speed: takes times of any shape, returns speeds of the same shape; it may close over
            numbers that are differentiated.
        lower: first time, positive, a scalar.
        upper: last time, later, a scalar.

    Raises:
        ValueError: for concrete times out of range.

    Source: (1), by Gauss-Legendre quadrature in log t.
    """
    checks.require_positive("lower", lower, "start after t = 0, the integral is over log t")
    checks.require_positive("upper", upper, "pass the last time")
    checks.require_increasing("lower", lower, "upper", upper)
    return _length(speed, *(jnp.log(v) for v in floats(lower, upper)))


def equal_length_times(
    speed: Callable[[Array], Array], lower: ArrayLike, upper: ArrayLike, pieces: int
) -> Array:
    r"""Times that divide a path into pieces of equal length, the schedule of constant speed.

    Args:
        speed: as in `path_length`.
        lower: first time, positive, a scalar.
        upper: last time, later, a scalar.
        pieces: number K of pieces, a concrete integer.

    Returns:
        Increasing times, shape (K + 1,), both ends included; NaN where the search failed.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (3).
    """
    pieces = checks.require_count("pieces", pieces, 1, "pass their number")
    total = path_length(speed, lower, upper)
    lower, upper = floats(lower, upper)
    ends = (jnp.log(lower), jnp.log(upper))

    def divide(share: Array) -> Array:
        root = find_root(lambda r: _length(speed, ends[0], r) / total - share, *ends)
        return jnp.exp(root.value)

    inner = jax.vmap(divide)(jnp.arange(1, pieces, dtype=lower.dtype) / pieces)
    return jnp.concatenate([lower[None], inner, upper[None]])


def _require(t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> None:
    checks.require_positive("t", t, "the signal-to-noise ratio at t = 0 is infinite")
    checks.require_mean_norm(mean, "mean")
    checks.require_positive("variance", variance, "pass the variance of each Gaussian")


def _grid(times: ArrayLike) -> Array:
    fix = "pass increasing OU times (K + 1,)"
    (times,) = floats(times)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}; {fix}")
    checks.require("step of times", jnp.diff(times), lambda v: v > 0, "positive", fix)
    return times


def _length(speed: Callable[[Array], Array], low: Array, high: Array) -> Array:
    return integrate(lambda r: speed(jnp.exp(r)) * jnp.exp(r), low, high, _NODES)


def _mmse_value(t: Array, mean: Array, variance: Array) -> Array:
    noise = -jnp.expm1(-2 * t)
    gamma = noise + variance * jnp.exp(-2 * t)
    kappa = mean * jnp.exp(-t) / jnp.sqrt(gamma)

    def unknown(z: Array) -> Array:  # 1 - tanh^2 without cancellation
        size = jnp.abs(kappa**2 + kappa * z)
        decay = jnp.exp(-2 * size)
        return 4 * decay / (1 + decay) ** 2

    between = gaussian_expectation(unknown, dtype=t.dtype)
    return noise / gamma * (variance + mean**2 * noise / gamma * between)


def _sampler_speed_value(t: Array, mean: Array, variance: Array) -> Array:
    rate = jax.grad(_mmse_value)(t, mean, variance)
    return jnp.sqrt(rate / 2) / jnp.sinh(t)  # |d snr / dt| = 1 / (2 sinh^2 t)


def _log_tail(x: Array, mean: Array, variance: Array) -> Array:
    """Logarithm of P(X > x) for x >= 0."""
    spread = jnp.sqrt(variance)
    return jnp.logaddexp(log_ndtr((mean - x) / spread), log_ndtr((-mean - x) / spread)) - math.log(
        2
    )


def _log_density_at_centre(mean: Array, variance: Array) -> Array:
    return -0.5 * (mean**2 / variance + jnp.log(variance))


def _transport_value(m1: Array, v1: Array, m2: Array, v2: Array) -> Array:
    # from the law with the deeper gap at the centre: the map there is flat instead of steep
    swap = _log_density_at_centre(m1, v1) > _log_density_at_centre(m2, v2)
    m1, v1, m2, v2 = (jnp.where(swap, b, a) for a, b in ((m1, m2), (v1, v2), (m2, m1), (v2, v1)))
    z, weights = gaussian_nodes(_TRANSPORT_NODES, m1.dtype)
    x = jnp.abs(m1 + jnp.sqrt(v1) * z)
    reach = m2 + 12 * jnp.sqrt(v2)

    def image(x: Array) -> Array:
        target = _log_tail(x, m1, v1)
        found = find_root(lambda y: _log_tail(y, m2, v2) - target, -1e-6 * reach, reach)
        return found.value

    return jnp.sqrt(jnp.sum(weights * (x - jax.vmap(image)(x)) ** 2))


_mmse = elementwise(_mmse_value)
_sampler_speed = elementwise(_sampler_speed_value)
_transport = elementwise(_transport_value)
