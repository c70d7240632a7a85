r"""Entropy production of generative Euler chains at a finite step, by a transfer operator in d = 1.

Data :math:`\frac12 N(\pm\mu, \sigma^2)` at temperature 1, with the score F and the law
:math:`p_t` of the noised data. The chain runs from :math:`t_0 = t_f` to :math:`t_N = 0` in steps
:math:`h = t_f/N` of the reverse SDE, with drift :math:`b_k(x) = x + 2F(x, t_k)` and the kernels

.. math:: K_k(x \to y) = N(y;\, x + h\,b_k(x),\, 2h). \tag{1}

Of a path with the log ratio :math:`R = \log p_{t_f}(x_0) - \log p_0(x_N)` of its ends, and with one
term for each step, three functionals are

.. math:: X = R + \sum_k g_k(x_k, x_{k+1}), \qquad g_k(x, y) =
   \begin{cases} (y - x)\,b_k(\frac{x+y}2) & \text{midpoint} \\
   \log K_k(x \to y)/K_k(y \to x) & \text{kernel} \\
   \log K_k(x \to y)/N(x;\, (1 - h)y,\, 2h) & \text{noising.} \end{cases} \tag{2}

*Exponential averages* are propagated from the end of the path to its start,

.. math:: \psi_N = p_0, \qquad \psi_k(x) = \int dy\, K_k(x \to y)\, e^{-g_k(x, y)}\, \psi_{k+1}(y),
   \qquad \langle e^{-X}\rangle = \int dx\, \frac{\rho_0}{p_{t_f}}(x)\, \psi_0(x), \tag{3}

for paths that start in :math:`\rho_0`; all functions stay close to :math:`p_t`. Kernel and noising
have the value one at any h if :math:`\rho_0 = p_{t_f}`: there :math:`K e^{-g}` is the reversed
kernel, whose integral over x is one. The midpoint has :math:`1 + O(h)`.

*Means* are propagated forward, :math:`\rho_{k+1}(y) = \int dx\, \rho_k(x) K_k(x \to y)`,

.. math:: \langle X\rangle = \int \rho_0 \log p_{t_f} - \int \rho_N \log p_0
   + \sum_k \int\!\!\int \rho_k(x)\, K_k(x \to y)\, g_k(x, y). \tag{4}

Those of midpoint and kernel lie O(h) below the continuum value
`theory.thermodynamics.generative_production`. That of noising is a relative entropy of paths, which
vanishes with h for the exact score; a score that is wrong by e(x) adds
:math:`\int_0^{t_f} E e^2 dt` (5), and at a finite step a part of order h that is linear in e, which
can outweigh (5).

*One step* from the exact law of a time t to s = t - h has the relative entropy

.. math:: \int dx\, p_t(x) \int dy\, K(x \to y)
   \log\frac{p_t(x)\,K(x \to y)}{p_s(y)\,N(x;\,(1 - h)y,\,2h)} \ge 0 \tag{6}

to the same pair under the noising chain. It is integrated over x and the noise of the step, so that
small steps need no fine grid.

*Controls.* The score can be multiplied by one factor in the simulated kernel (1) and by another in
the functional (2), and the start can be another mixture. Coordinates of isotropic data in d
dimensions are independent once the first axis is along the centre: averages (3) multiply and means
(4) add, one with :math:`\mu` and d - 1 with :math:`\mu = 0`.

Integrals are trapezoid rules on :math:`|x| \le \mu + 9\max(1, \sigma)`. By
`theory.quadrature` (1) a kernel of standard deviation :math:`\sqrt{2h}` is integrated to rounding
error if the spacing is below :math:`0.8\sqrt{2h}`; the same is asked of :math:`\sigma`. Coarser
grids give NaN, and so do chains that reach the ends of the grid: scores that are too small by
nearly one half, which no longer hold the chain together.

Sources: Yu, Huang 2025 (2405.11932); Murashita, Funo, Ueda 2014 (1401.4494). (3) and (4) are
derived here.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_nodes

NODES = 401
_REACH = 9.0
_PAIR_NODES = 201
_NOISE_NODES = 81
_EDGE = 1e-11
_COARSEST = 0.8  # spacing in standard deviations: the error of the rule is 4e-14


class PathAverages(NamedTuple):
    """One number for each functional of (2)."""

    midpoint: Array
    """Heat at the midpoint plus the change of entropy."""
    kernel: Array
    """Log ratio to the reversed path under the same kernels."""
    noising: Array
    """Log ratio to the noising chain."""


class Chain(NamedTuple):
    """Law of the data and what differs from it in a control; made by `chain`."""

    mean: Array
    variance: Array
    simulated: Array
    assumed: Array
    start_mean: Array
    start_variance: Array


def exponential_averages(
    steps: int,
    t_final: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    simulated: ArrayLike = 1.0,
    assumed: ArrayLike = 1.0,
    start: tuple[ArrayLike, ArrayLike] | None = None,
    nodes: int = NODES,
) -> PathAverages:
    r"""Averages :math:`\langle e^{-X}\rangle` of the three functionals at a finite step, by (3).

    Args:
        steps: number N of Euler steps, a Python integer.
        t_final: OU time of the start, positive; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.
        simulated: factor of the score that moves the chain.
        assumed: factor of the score in the functional.
        start: mean and variance of the mixture that paths are started from; that of the noised
            data if None.
        nodes: nodes of the rule; NaN where they are too far apart or end too early.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; (3).
    """
    _require(steps, t_final, mean, variance, nodes)
    parts = _arguments(t_final, mean, variance, simulated, assumed, start)
    return PathAverages(*_exponential(steps, nodes)(*parts))


def mean_productions(
    steps: int,
    t_final: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    simulated: ArrayLike = 1.0,
    assumed: ArrayLike = 1.0,
    start: tuple[ArrayLike, ArrayLike] | None = None,
    nodes: int = NODES,
) -> PathAverages:
    r"""Means :math:`\langle X\rangle` of the three functionals at a finite step in nats, by (4).

    Args:
        steps: number N of Euler steps, a Python integer.
        t_final: OU time of the start, positive; arguments broadcast.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.
        simulated: factor of the score that moves the chain.
        assumed: factor of the score in the functional.
        start: mean and variance of the mixture that paths are started from; that of the noised
            data if None.
        nodes: nodes of the rule; NaN where they are too far apart or end too early.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; (4).
    """
    _require(steps, t_final, mean, variance, nodes)
    parts = _arguments(t_final, mean, variance, simulated, assumed, start)
    return PathAverages(*_means(steps, nodes)(*parts))


def pair_entropy(
    t: ArrayLike,
    t_next: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    *,
    factor: ArrayLike = 1.0,
) -> Array:
    r"""Relative entropy (6) of one Euler step to the noising chain, in nats.

    Args:
        t: OU time before the step, with the exact law; arguments broadcast.
        t_next: OU time after it, smaller.
        mean: distance of a centre from the origin.
        variance: variance of each Gaussian, positive.
        factor: of the score.

    Returns:
        Not negative for any factor; NaN where the rule in x is too coarse.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: derived here; (6).
    """
    fix = "the step goes backwards in time"
    checks.require_time(t_next)
    if not any(isinstance(v, jax.core.Tracer) for v in (t, t_next)):
        step = np.asarray(t) - np.asarray(t_next)
        checks.require("t - t_next", step, lambda v: v > 0, "positive", fix)
    checks.require_mean_norm(mean, "mean")
    checks.require_positive("variance", variance, "the data need a density")
    return _pair(*floats(t, t_next, mean, variance, factor))


def _require(
    steps: int, t_final: ArrayLike, mean: ArrayLike, variance: ArrayLike, nodes: int
) -> None:
    checks.require_count("steps", steps, 1, "pass the number of Euler steps")
    checks.require_count("nodes", nodes, 3, "take an odd number of some hundred")
    checks.require_positive("t_final", t_final, "the chain starts at a later time than 0")
    checks.require_mean_norm(mean, "mean")
    checks.require_positive("variance", variance, "the data need a density")


def _arguments(
    t_final: ArrayLike,
    mean: ArrayLike,
    variance: ArrayLike,
    simulated: ArrayLike,
    assumed: ArrayLike,
    start: tuple[ArrayLike, ArrayLike] | None,
) -> tuple[Array, ...]:
    if start is not None:
        checks.require_mean_norm(start[0], "mean of start")
        checks.require_positive("variance of start", start[1], "the start needs a density")
        return floats(t_final, mean, variance, simulated, assumed, *start)
    t_final, mean, variance, simulated, assumed = floats(
        t_final, mean, variance, simulated, assumed
    )
    noised = mean * jnp.exp(-t_final), 1 + (variance - 1) * jnp.exp(-2 * t_final)
    return (t_final, mean, variance, simulated, assumed, *noised)


def _log_density(x: Array, mean: Array, variance: Array) -> Array:
    """Logarithm of the density of the balanced mixture."""
    cosh = jnp.logaddexp(x * mean / variance, -x * mean / variance) - jnp.log(2)
    return cosh - 0.5 * ((x**2 + mean**2) / variance + jnp.log(2 * jnp.pi * variance))


def _log_kernel(y: Array, centre: Array, h: Array) -> Array:
    return -0.25 * jnp.square(y - centre) / h - 0.5 * jnp.log(4 * jnp.pi * h)


def _drift(x: Array, t: Array, factor: Array, mean: Array, variance: Array) -> Array:
    gamma = 1 + (variance - 1) * jnp.exp(-2 * t)
    centre = mean * jnp.exp(-t)
    return x + 2 * factor * (centre * jnp.tanh(x * centre / gamma) - x) / gamma


def _grid(h: Array, law: Chain, nodes: int) -> tuple[Array, Array]:
    """Nodes and spacing; the latter is NaN if it is too coarse."""
    widest = jnp.maximum(jnp.maximum(law.variance, law.start_variance), 1)
    reach = jnp.maximum(law.mean, law.start_mean) + _REACH * jnp.sqrt(widest)
    spacing = 2 * reach / (nodes - 1)
    finest = jnp.minimum(jnp.minimum(2 * h, law.variance), law.start_variance)
    x = reach * jnp.linspace(-1, 1, nodes, dtype=h.dtype)
    return x, jnp.where(spacing <= _COARSEST * jnp.sqrt(finest), spacing, jnp.nan)


def _inside(values: Array) -> Array:
    """The values on the grid; NaN if they do not vanish at its ends."""
    ends = jnp.maximum(values[..., 0], values[..., -1])
    small = ends <= _EDGE * jnp.max(values, axis=-1)
    return jnp.where(small[..., None], values, jnp.nan)


def _step(x: Array, t: Array, h: Array, law: Chain) -> tuple[Array, Array]:
    """Log of the simulated kernel (x, y), and the three terms (2), ``(3, x, y)``."""
    here, there = x[:, None], x[None, :]

    def drift(point: Array, factor: Array) -> Array:
        return _drift(point, t, factor, law.mean, law.variance)

    moved = _log_kernel(there, here + h * drift(here, law.simulated), h)
    ahead = _log_kernel(there, here + h * drift(here, law.assumed), h)
    back = _log_kernel(here, there + h * drift(there, law.assumed), h)
    noised = _log_kernel(here, (1 - h) * there, h)
    midpoint = (there - here) * drift(0.5 * (here + there), law.assumed)
    return moved, jnp.stack([midpoint, ahead - back, ahead - noised])


def _exponential_value(steps: int, nodes: int, t_final: Array, *parts: Array) -> tuple[Array, ...]:
    law = Chain(*parts)
    h = t_final / steps
    x, spacing = _grid(h, law, nodes)

    @jax.checkpoint
    def back(psi: Array, k: Array) -> tuple[Array, None]:
        moved, terms = _step(x, t_final - k * h, h, law)
        return spacing * jnp.einsum("fxy,fy->fx", jnp.exp(moved - terms), psi), None

    end = jnp.exp(_log_density(x, law.mean, law.variance))
    order = jnp.arange(steps, dtype=h.dtype)
    psi, _ = jax.lax.scan(back, jnp.broadcast_to(end, (3, nodes)), order, reverse=True)
    gamma = 1 + (law.variance - 1) * jnp.exp(-2 * t_final)
    noised = _log_density(x, law.mean * jnp.exp(-t_final), gamma)
    ratio = jnp.exp(_log_density(x, law.start_mean, law.start_variance) - noised)
    value = spacing * jnp.sum(_inside(ratio * psi), axis=-1)
    return value[0], value[1], value[2]


def _mean_value(steps: int, nodes: int, t_final: Array, *parts: Array) -> tuple[Array, ...]:
    law = Chain(*parts)
    h = t_final / steps
    x, spacing = _grid(h, law, nodes)

    @jax.checkpoint
    def ahead(state: tuple[Array, Array], k: Array) -> tuple[tuple[Array, Array], None]:
        rho, total = state
        moved, terms = _step(x, t_final - k * h, h, law)
        flow = rho[:, None] * jnp.exp(moved)
        total = total + spacing**2 * jnp.einsum("xy,fxy->f", flow, terms)
        return (spacing * jnp.sum(flow, axis=0), total), None

    start = jnp.exp(_log_density(x, law.start_mean, law.start_variance))
    order = jnp.arange(steps, dtype=h.dtype)
    (end, total), _ = jax.lax.scan(ahead, (start, jnp.zeros(3, h.dtype)), order)
    gamma = 1 + (law.variance - 1) * jnp.exp(-2 * t_final)
    first = start * _log_density(x, law.mean * jnp.exp(-t_final), gamma)
    last = _inside(end) * _log_density(x, law.mean, law.variance)
    value = total + spacing * jnp.sum(first - last)
    return value[0], value[1], value[2]


def _pair_value(t: Array, s: Array, mean: Array, variance: Array, factor: Array) -> Array:
    h = t - s
    laws = [(mean * jnp.exp(-u), 1 + (variance - 1) * jnp.exp(-2 * u)) for u in (t, s)]
    reach = laws[0][0] + _REACH * jnp.sqrt(laws[0][1])
    spacing = 2 * reach / (_PAIR_NODES - 1)
    x = (reach * jnp.linspace(-1, 1, _PAIR_NODES, dtype=t.dtype))[:, None]
    z, weights = gaussian_nodes(_NOISE_NODES, t.dtype)
    y = x + h * _drift(x, t, factor, mean, variance) + jnp.sqrt(2 * h) * z
    start = _log_density(x, *laws[0])
    # the kernel at its own noise
    ahead = -0.5 * z**2 - 0.5 * jnp.log(4 * jnp.pi * h)
    value = start + ahead - _log_density(y, *laws[1]) - _log_kernel(x, (1 - h) * y, h)
    total = spacing * jnp.sum(jnp.exp(start) * value * weights)
    return jnp.where(spacing <= _COARSEST * jnp.sqrt(laws[0][1]), total, jnp.nan)


_pair = elementwise(_pair_value)


@functools.cache
def _exponential(steps: int, nodes: int) -> Callable[..., tuple[Array, ...]]:
    return elementwise(functools.partial(_exponential_value, steps, nodes))


@functools.cache
def _means(steps: int, nodes: int) -> Callable[..., tuple[Array, ...]]:
    return elementwise(functools.partial(_mean_value, steps, nodes))
