r"""Franz-Parisi potential of the posterior: the cost of a distance from the true datum.

*Random energy model.* :math:`n = e^{\alpha d}` Gaussian points of variance :math:`\sigma^2`, one of
which, :math:`a_1`, made the state. Let :math:`q = a\cdot a_1/(d\sigma^2)` be the overlap of another
point with it and :math:`u = \sigma^2 e^{-2t}/\Delta_t`. There are :math:`e^{d(\alpha - q^2/2)}`
points at overlap q, so overlaps exist for :math:`|q| \le \sqrt{2\alpha}` and at q = 1. The energies
of a slice are those of a random energy model, and

.. math:: V(q) = -\min_{0<m\le1}\frac1m\Big[\alpha - \frac{q^2}2 - \frac{mu(1-q)^2}2
   - \frac12\log(1 + mu) - \frac m{2(1 + mu)}\Big], \qquad V(1) = \tfrac12. \tag{1}

The bracket is stationary in m where

.. math:: s(m) = \alpha - \frac{q^2}2 - \frac12\log(1 + mu) + \frac{mu}{2(1 + mu)}
   - \frac{m^2u}{2(1 + mu)^2} = 0. \tag{2}

It falls with m, so the slice is annealed, m = 1, if :math:`s(1) \ge 0`, that is for
:math:`|q| \le q_c = \sqrt{q_{eq}^2 + 2f}` (3) with the excess entropy
:math:`f = \alpha - \frac12\log(1 + u)`, and condensed beyond. Exchanging the minimum over q with
the one over m, the lowest slice of the other points is at

.. math:: q_{eq} = \frac{mu}{1 + mu}, \qquad V_{eq} = -\psi_+, \tag{4}

with m and the free energy :math:`\psi_+` of the whole memorisation problem
(`theory.memorisation_rem`); m = 1 above the collapse time, and there
:math:`V(1) - V_{eq} = f`: a first-order transition at f = 0.

*Finite size.* At given own point and state the slices of the other points have an exact mean. A
Gaussian point seen through the channel has the posterior mean :math:`e^{-t}\sigma^2x/\Gamma_t` and
variance :math:`v = \sigma^2\Delta_t/\Gamma_t` per coordinate, so that, with the energy
:math:`E = |x - e^{-t}a|^2/2\Delta_t` and :math:`\Phi` the normal distribution function,

.. math:: E\sum_{\mu>1,\,q_\mu\in(q_-,q_+)} e^{-E_\mu} = (n-1)\,(\Delta_t/\Gamma_t)^{d/2}
   e^{-|x|^2/2\Gamma_t}\,\big[\Phi(h_+) - \Phi(h_-)\big], \quad
   h_\pm = \frac{q_\pm d\sigma^2 - e^{-t}\sigma^2\,x\cdot a_1/\Gamma_t}{\sqrt v\,|a_1|}. \tag{5}

For :math:`e^{-mE}` replace :math:`\Delta_t` by :math:`\Delta_t/m`.

*One dimension.* The version of the figure in the source, see `scalar_potential`.

Source: Yu, Huang 2025 (2405.11932); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike

from theory import checks
from theory.channel import signal_ratio
from theory.checks import Array, elementwise, floats
from theory.memorisation_rem import memorisation_state
from theory.quadrature import gaussian_nodes
from theory.roots import find_root

_DATA_NODES = 401
_NOISE_NODES = 1201
OWN_POTENTIAL = 0.5
"""Potential of the point that made the state, at overlap one."""


class RandomEnergyMinimum(NamedTuple):
    """Lowest slice of the points other than the one that made the state."""

    overlap: Array
    """Overlap of the lowest slice."""
    potential: Array
    """Potential there, in nats per coordinate; to be compared with `OWN_POTENTIAL`."""
    condensed_overlap: Array
    """Overlap beyond which slices are condensed; NaN if they all are."""


def random_energy_potential(
    q: ArrayLike, t: ArrayLike, alpha: ArrayLike, variance: ArrayLike
) -> Array:
    r"""Franz-Parisi potential per coordinate at overlap q, annealed and condensed slices, by (1).

    NaN where no points exist, :math:`q^2 > 2\alpha`, except at q = 1 exactly, which holds the own
    point. Exact as d goes to infinity.

    Args:
        q: overlap with the own point; arguments broadcast.
        t: OU time, positive.
        alpha: logarithm of the number of points per coordinate, positive.
        variance: variance per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (1), (2).
    """
    checks.require("q", q, lambda v: abs(v) <= 1, "between -1 and 1", "pass a normalised overlap")
    _require(t, alpha, variance)
    q, t, alpha, variance = floats(q, t, alpha, variance)
    return _slice(q, signal_ratio(t, variance), alpha)


def random_energy_minimum(
    t: ArrayLike, alpha: ArrayLike, variance: ArrayLike
) -> RandomEnergyMinimum:
    r"""Equilibrium overlap, its potential, and the overlap of condensation, by (3) and (4).

    Args:
        t: OU time, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate, positive.
        variance: variance per coordinate, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932); (3), (4).
    """
    _require(t, alpha, variance)
    t, alpha, variance = floats(t, alpha, variance)
    u = signal_ratio(t, variance)
    state = memorisation_state(t, alpha, variance)
    tilted = state.order * u
    square = (u / (1 + u)) ** 2 + 2 * alpha - jnp.log1p(u)
    exists = square >= 0
    edge = jnp.where(exists, jnp.sqrt(jnp.where(square > 0, square, 1)), jnp.nan)
    return RandomEnergyMinimum(tilted / (1 + tilted), -state.free_energy, edge)


def random_energy_slice(
    lower: ArrayLike,
    upper: ArrayLike,
    t: ArrayLike,
    log_n: ArrayLike,
    dim: ArrayLike,
    variance: ArrayLike,
    own_square: ArrayLike,
    state_square: ArrayLike,
    product: ArrayLike,
    power: ArrayLike = 1.0,
) -> Array:
    r"""Logarithm of the mean Boltzmann sum of a slice at given own point and state, by (5).

    The mean is over the n - 1 other Gaussian points, exact at every size. A typical sum falls
    below it where the slice is condensed.

    Args:
        lower: lower end of the slice of overlaps; arguments broadcast.
        upper: upper end, above it.
        t: OU time, positive.
        log_n: logarithm of the number of points.
        dim: number of coordinates.
        variance: variance per coordinate, positive.
        own_square: squared norm of the own point, positive.
        state_square: squared norm of the state.
        product: scalar product of both.
        power: m of the sum of exp(-m E); 2 gives the fluctuations of the slice.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here.
    """
    checks.require_positive("t", t, "the posterior of clean data is a point")
    checks.require_positive("variance", variance, "pass the variance per coordinate")
    checks.require_positive("own_square", own_square, "pass the squared norm of the own point")
    checks.require_size(log_n, dim)
    checks.require_positive("power", power, "pass the power of the Boltzmann factor")
    checks.require_increasing("lower", lower, "upper", upper)
    return _slice_sum(
        *floats(lower, upper, t, log_n, dim, variance, own_square, state_square, product, power)
    )


def scalar_potential(q: ArrayLike, t: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> Array:
    r"""One-dimensional potential of two balanced Gaussians at the squared distance q.

    .. math:: V(q, t) = -\Big\langle\log\frac{e^{-H(a_0 + \sqrt q)} + e^{-H(a_0 - \sqrt q)}}
       {2\sqrt q}\Big\rangle, \qquad H(a) = \frac{(x_t - e^{-t}a)^2}{2\Delta_t} - \log p_0(a)

    over the datum :math:`a_0` and its noised state. The factor :math:`1/(2\sqrt q)` is the Jacobian
    of q, so that minima and inflection points depend on the variable: with :math:`\mu = 1`,
    :math:`\sigma^2 = .1` the second minimum, the other class near :math:`q = 4\mu^2`, exists at
    large t and disappears below t = .2118 in q and below .1799 in :math:`\sqrt q`. It does not
    detect collapse.

    Args:
        q: squared distance from the datum, positive; arguments broadcast.
        t: OU time, positive.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Yu, Huang 2025 (2405.11932), by trapezoid rules over datum and noise.
    """
    checks.require_positive("q", q, "pass a squared distance")
    checks.require_positive("t", t, "the posterior of clean data is a point")
    checks.require_mean_norm(mean, "mean")
    checks.require_positive("variance", variance, "the data need a density")
    return _scalar(*floats(q, t, mean, variance))


def _require(t: ArrayLike, alpha: ArrayLike, variance: ArrayLike) -> None:
    checks.require_positive("t", t, "the posterior of clean data is a point")
    checks.require_positive("alpha", alpha, "pass log(n)/d")
    checks.require_positive("variance", variance, "pass the variance per coordinate")


def _slice_value(q: Array, u: Array, alpha: Array) -> Array:
    entropy = alpha - 0.5 * q**2
    large, small = jnp.maximum(u, 1), jnp.minimum(u, 1)

    def tilt(x: Array) -> tuple[Array, Array]:
        """m and m u, of which the one of order one is searched for."""
        return x / large, x * small

    def lost(x: Array) -> Array:
        m, ratio = tilt(x)
        return 0.5 * (jnp.log1p(ratio) - ratio / (1 + ratio) + m * ratio / (1 + ratio) ** 2)

    end = lost(large)
    condensed = (entropy < end) & (entropy >= 0)
    # elsewhere a search that ends at m = 1
    target = jnp.where(condensed, entropy, end)
    found = find_root(lambda x: target - lost(x), jnp.zeros_like(u), large).value
    m, ratio = tilt(jnp.where(condensed, found, large))
    some = jnp.where(m > 0, m, 1)
    free = jnp.where(m > 0, (0.5 * jnp.log1p(ratio) - entropy) / some, 0.5 * u)
    value = 0.5 * u * (1 - q) ** 2 + 0.5 / (1 + ratio) + free
    others = jnp.where(entropy >= 0, value, jnp.nan)
    return jnp.where(q == 1, jnp.fmin(others, OWN_POTENTIAL), others)


@jax.jit
def _slice_sum(
    lower: Array, upper: Array, t: Array, log_n: Array, dim: Array, variance: Array,
    own_square: Array, state_square: Array, product: Array, power: Array,
) -> Array:  # fmt: skip
    u, noise = power * signal_ratio(t, variance), -jnp.expm1(-2 * t) / power
    gamma = noise * (1 + u)
    width = jnp.sqrt(variance / (1 + u) * own_square)
    middle = jnp.exp(-t) * variance * product / gamma
    high, low = ((q * dim * variance - middle) / width for q in (upper, lower))
    # the smaller tails, so that nothing cancels above the mean
    flip = low > 0
    high, low = jnp.where(flip, -low, high), jnp.where(flip, -high, low)
    top, bottom = log_ndtr(high), log_ndtr(low)
    inside = top + jnp.log1p(-jnp.exp(jnp.minimum(bottom - top, -1e-12)))
    others = log_n + jnp.log1p(-jnp.exp(-log_n))
    return others - 0.5 * (dim * jnp.log1p(u) + state_square / gamma) + inside


def _scalar_value(q: Array, t: Array, mean: Array, variance: Array) -> Array:
    z, data_weights = gaussian_nodes(_DATA_NODES, q.dtype)
    noise, noise_weights = gaussian_nodes(_NOISE_NODES, q.dtype)
    a0 = mean + jnp.sqrt(variance) * z[:, None]  # the other class is its mirror image
    step, gap = jnp.sqrt(q), jnp.exp(-t) * jnp.sqrt(q / -jnp.expm1(-2 * t))

    def log_prior(a: Array) -> Array:
        logs = [-((a - centre) ** 2) / (2 * variance) for centre in (mean, -mean)]
        return jnp.logaddexp(*logs) - 0.5 * jnp.log(8 * jnp.pi * variance)

    right = log_prior(a0 + step) - 0.5 * (noise - gap) ** 2
    left = log_prior(a0 - step) - 0.5 * (noise + gap) ** 2
    value = jnp.logaddexp(right, left) - jnp.log(2 * step)
    return -jnp.sum(data_weights * jnp.sum(value * noise_weights, axis=-1))


_slice = elementwise(_slice_value)
_scalar = elementwise(_scalar_value)
