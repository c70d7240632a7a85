r"""Random energies at finite size: exact averages over the disorder by quadrature.

For :math:`Z = \sum_{i=1}^M e^{b_i}` with independent :math:`b_i = -\beta E_i` of any law, let

.. math:: \ell(u) = E \exp(-e^{u + b}), \qquad k_p(u) = E\, e^{p(u + b)} \exp(-e^{u + b}). \tag{1}

From :math:`\log Z = \int \frac{ds}{s}(e^{-s} - e^{-sZ})` and :math:`\int ds\, s^{p-1} e^{-sZ} =
\Gamma(p) Z^{-p}`, with :math:`s = e^u`, and :math:`Y_2 = \sum_i e^{2b_i}/Z^2`,

.. math:: E\log Z = \int du\,\big[\exp(-e^u) - \ell^M\big], \qquad
   E Y_2 = M \int du\, k_2\, \ell^{M-1}, \tag{2}

.. math:: E Y_2^2 = \frac16 \int du\,\big[M k_4\, \ell^{M-1}
   + M(M-1)\, k_2^2\, \ell^{M-2}\big]. \tag{3}

The integrands are analytic in the strip :math:`|\mathrm{Im}\,u| < \pi/2` and vanish at both ends,
so that the trapezoid rule of spacing :math:`h` has the error :math:`e^{-\pi^2/h}` (4).

**Trees.** Where :math:`M_1 M_2 \cdots M_L` energies are sums along the branches of a tree,
:math:`E\exp(-e^u Z)` follows from the leaves up,

.. math:: \ell_{k-1}(u) = \big[E_{b_k}\,\ell_k(u + b_k)\big]^{M_k}, \qquad
   \ell_L = \exp(-e^u), \tag{5}

and :math:`E\log Z = \int du\,[\exp(-e^u) - \ell_0]`. For normal :math:`b_k` each average is a
convolution with a Gaussian.

The averages are exact for every M (in practice up to :math:`10^{10}`), and free of the corrections
of order :math:`\log N/N` that separate finite systems from `theory.rem` and `theory.grem`.

Sources: Derrida, Phys. Rev. B 24, 2613 (1981); Derrida, Spohn, J. Stat. Phys. 51, 817 (1988) (5).
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp, ndtr
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.quadrature import gaussian_nodes

_SPACING = 0.5  # the error (4) is 3e-9
_POINTS = 1024
_LATTICE = 2048
_NODES = 1025
_TAIL = 8.75
_SMALL = 37.0  # exp(-37) is the rounding error
_LARGEST = 25.0  # of log M: the nodes end at probabilities of 1e-18


class PartitionAverages(NamedTuple):
    """Averages over the disorder; NaN where the quadrature does not reach far enough."""

    log_partition: Array
    """Average of log Z."""
    participation: Array
    """Average of the participation ratio."""
    squared_participation: Array
    """Average of its square."""


def partition_averages(
    log_weights: ArrayLike, probabilities: ArrayLike, log_count: ArrayLike, *, points: int = _POINTS
) -> PartitionAverages:
    r"""Averages over many independent energies with a law given by a quadrature rule.

    .. math:: E\log Z, \quad E Y_2, \quad E Y_2^2, \qquad Z = \sum_{i=1}^M e^{b_i}

    Args:
        log_weights: nodes of b, increasing, shape (..., J); spacings above 0.5 where the
            probability matters cost accuracy.
        probabilities: their weights of sum one, shape (..., J). Nodes must reach to tails far
            below 1/M.
        log_count: log M, not negative, shape (...).
        points: points of the rule in u; the range they cover grows with that of b.

    Raises:
        ValueError: for shapes that do not fit and concrete arguments out of range.

    Source: Derrida 1981; (1) to (3).
    """
    checks.require_nonnegative("log_count", log_count, "pass log of the number of energies")
    checks.require_nonnegative("probabilities", probabilities, "pass the weights of a rule")
    log_weights, probabilities, log_count = floats(log_weights, probabilities, log_count)
    if log_weights.shape[-1:] != probabilities.shape[-1:]:
        raise ValueError(
            f"log_weights and probabilities have shapes {log_weights.shape} and "
            f"{probabilities.shape}, expected (..., J) both; pass one probability per node"
        )
    return PartitionAverages(*_averages(points)(log_weights, probabilities, log_count))


def gaussian_partition_averages(deviation: ArrayLike, log_count: ArrayLike) -> PartitionAverages:
    r"""Averages over many independent Gaussian energies.

    .. math:: b = -\beta E \sim N(0, \sigma^2), \qquad \sigma = \beta\sqrt{N v}

    Args:
        deviation: standard deviation :math:`\sigma` of b, positive, below 29; arguments broadcast.
        log_count: log M, not negative, at most 25.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1) to (3).
    """
    checks.require_positive("deviation", deviation, "pass beta sqrt(N v)")
    checks.require_nonnegative("log_count", log_count, "pass log of the number of energies")
    return PartitionAverages(*_gaussian(*floats(deviation, log_count)))


def tree_log_partition(deviations: ArrayLike, log_counts: ArrayLike) -> Array:
    r"""Average logarithm of the sum over the leaves of a tree of Gaussian energies.

    .. math:: E\log\sum e^{b_1 + \dots + b_L}, \qquad b_k \sim N(0, \sigma_k^2)

    independent for each edge.

    Args:
        deviations: standard deviations of b on the edges of each level, from the root, shape
            (..., L), positive.
        log_counts: log of the number of children of a node, shape (..., L), not negative and of
            sum at most 25.

    Returns:
        Shape (...). NaN where the lattice does not resolve a level, which takes deviations of at
        least 0.5 and of sum below 30 or so.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida, Spohn 1988; (5).
    """
    checks.require_positive("deviations", deviations, "pass beta sqrt(N v) of each level")
    checks.require_nonnegative("log_counts", log_counts, "pass log of the number of children")
    return _tree(*floats(deviations, log_counts))


def _averages_kernel(
    nodes: Array, probabilities: Array, log_count: Array, points: int = _POINTS
) -> tuple[Array, Array, Array]:
    # Z in units of a value that it hardly ever falls below
    unit = _crowd(nodes, probabilities, log_count)
    nodes = nodes - unit
    u, spacing = _range(nodes, probabilities, log_count, points)
    a = u[:, None] + nodes
    size = jnp.exp(a)

    def average(values: Array) -> Array:
        return values @ probabilities

    most = 1 - float(jnp.finfo(nodes.dtype).eps)
    log_survival = jnp.log1p(-jnp.minimum(average(-jnp.expm1(-size)), most))
    second, fourth = (average(jnp.exp(p * a - size)) for p in (2, 4))
    count = jnp.exp(log_count)
    others, rest = (jnp.exp((count - k) * log_survival) for k in (1, 2))
    log_partition = jnp.sum(jnp.exp(-jnp.exp(u)) - jnp.exp(count * log_survival))
    participation = count * jnp.sum(second * others)
    squares = count * jnp.sum(fourth * others + (count - 1) * second**2 * rest) / 6
    values = (unit + spacing * log_partition, spacing * participation, spacing * squares)
    first, middle, last = (jnp.where(spacing <= _SPACING, v, jnp.nan) for v in values)
    return first, middle, last


def _crowd(nodes: Array, probabilities: Array, log_count: Array) -> Array:
    """A term that is missing among the M, with all larger ones, with probability exp(-39)."""
    nodes, probabilities, log_count = lax.stop_gradient((nodes, probabilities, log_count))
    above = jnp.cumsum(probabilities[::-1])[::-1]
    missing = -jnp.exp(log_count) * jnp.log1p(-jnp.minimum(above, 1 - 1e-7))
    return jnp.max(jnp.where(missing >= 39, nodes, nodes[0]))


def _range(
    nodes: Array, probabilities: Array, log_count: Array, points: int
) -> tuple[Array, Array]:
    """Points u between which the integrands are not zero, and their spacing."""
    nodes, probabilities, log_count = lax.stop_gradient((nodes, probabilities, log_count))
    # 1 - l^M is at most M E min(1, exp(u + b)), and that at most M exp(u) E exp(b)
    mean = jnp.minimum(nodes[-1], logsumexp(nodes, b=probabilities))
    loose = -_SMALL - jnp.maximum(mean + log_count, 0)
    u = loose * jnp.linspace(1, 0, 64, dtype=nodes.dtype)
    bound = log_count + jnp.log(jnp.exp(jnp.minimum(u[:, None] + nodes, 0)) @ probabilities)
    lower = jnp.max(jnp.where((bound < -_SMALL) & (u < -_SMALL), u, loose))
    upper = 4.0  # in units of the crowd
    u = lower + (upper - lower) * jnp.linspace(0, 1, points, dtype=nodes.dtype)
    return u, (upper - lower) / (points - 1)


def _gaussian_kernel(deviation: Array, log_count: Array) -> tuple[Array, Array, Array]:
    z, probabilities = gaussian_nodes(_NODES, deviation.dtype)
    values = _averages_kernel(deviation * z, probabilities, log_count)
    resolved = (deviation * (2 * _TAIL / (_NODES - 1)) <= _SPACING) & (log_count <= _LARGEST)
    first, middle, last = (jnp.where(resolved, value, jnp.nan) for value in values)
    return first, middle, last


def _tree_kernel(deviations: Array, log_counts: Array) -> Array:
    reach = lax.stop_gradient(_TAIL * jnp.sum(deviations))
    lower, upper = -(reach + lax.stop_gradient(jnp.sum(log_counts)) + _SMALL), reach + 5
    u = lower + (upper - lower) * jnp.linspace(0, 1, _LATTICE, dtype=deviations.dtype)
    spacing = (upper - lower) / (_LATTICE - 1)
    steps = u[:, None] - u[None, :]
    most = 1 - float(jnp.finfo(u.dtype).eps)
    # complements 1 - l, which are small where a large power is taken
    start = -jnp.expm1(-jnp.exp(u))

    def climb(complement: Array, level: tuple[Array, Array]) -> tuple[Array, None]:
        deviation, log_count = level
        z = steps / deviation
        kernel = jnp.exp(-0.5 * z**2) * (spacing / (deviation * math.sqrt(2 * math.pi)))
        # beyond the right end of the lattice the complement is one
        beyond = ndtr((u - upper - 0.5 * spacing) / deviation)
        smooth = jnp.minimum(kernel @ complement + beyond, most)
        return -jnp.expm1(jnp.exp(log_count) * jnp.log1p(-smooth)), None

    complement, _ = lax.scan(climb, start, (deviations, log_counts), reverse=True)
    value = spacing * jnp.sum(complement - start)
    resolved = (spacing <= _SPACING) & (jnp.min(deviations) >= 1.35 * spacing)
    resolved &= jnp.sum(log_counts) <= _LARGEST
    return jnp.where(resolved, value, jnp.nan)


@functools.cache
def _averages(points: int) -> Callable[..., tuple[Array, Array, Array]]:
    kernel = functools.partial(_averages_kernel, points=points)
    return elementwise(kernel, "(j),(j),()->(),(),()")


_gaussian = elementwise(_gaussian_kernel)
_tree = elementwise(_tree_kernel, "(l),(l)->()")
