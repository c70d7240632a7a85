r"""Random Energy Model: free energy, condensation and participation of many independent energies.

:math:`M = e^{\alpha N}` independent energies with cumulant function
:math:`g(\lambda) = \lim \frac1N \log E e^{-\lambda E}` (see `theory.cumulants`) have

.. math:: \varphi(\beta) = \lim \tfrac1N \log \sum_i e^{-\beta E_i}
   = \min_{0 < m \le 1} \frac{\alpha + g(m\beta)}{m}. \tag{1}

With the entropy :math:`s(\lambda) = \alpha + g - \lambda g'` (2), which falls from
:math:`\alpha` at :math:`\lambda = 0`, and its zero :math:`s(\lambda_c) = 0` (3): for
:math:`\beta < \lambda_c` the minimum is at :math:`m = 1` (annealed); beyond, the sum condenses on
few energies, :math:`m = \lambda_c/\beta` and
:math:`\varphi = \beta g'(\lambda_c) = -\beta\epsilon_\min` (4), where the rate function

.. math:: f(\epsilon) = \max_\lambda [-g(\lambda) - \lambda\epsilon], \qquad
   P[E \approx N\epsilon] \sim e^{-N f(\epsilon)} \tag{5}

equals :math:`\alpha`. :math:`\varphi` and its first derivative are continuous at
:math:`\lambda_c`; the order m has a kink there, and its derivative is that of the annealed side.

**Weights.** In the condensed phase :math:`w_i = e^{-\beta E_i}/Z` follow the Poisson-Dirichlet law
of index :math:`m`,

.. math:: E \sum_i w_i^2 = 1 - m, \tag{6}

further moments and samples in `theory.poisson_dirichlet`.

**Finite N.** Where :math:`Ng` is the cumulant function without corrections (sums of N terms), the
energies near :math:`N\epsilon_\min` are a Poisson process: by the saddle point the number below
:math:`N\epsilon_\min + x` has mean :math:`e^{\lambda_c x}/\sqrt{2\pi N g'' \lambda_c^2}` (7), hence
with Euler's :math:`\gamma`

.. math:: \tfrac1N E\min_i E_i = \epsilon_\min
   + \frac{\frac12\log(2\pi N g''\lambda_c^2) - \gamma}{\lambda_c N}, \qquad
   \text{sd} = \frac{\pi}{\sqrt6\,\lambda_c N} \tag{8}

(a Gumbel law), up to :math:`O(\log^2 N/N^2)`: the lowest energy lies above its limit by
:math:`\log N/2\lambda_c N`. The sum over that process is a positive stable variable, so that for
:math:`\beta > \lambda_c`, up to the same order,

.. math:: \tfrac1N E\log Z = \varphi + \frac1N\Big[-\frac{1}{2m}\log(2\pi N g''\lambda_c^2)
   + \frac1m\log\Gamma(1 - m) + \gamma\Big(\frac1m - 1\Big)\Big]. \tag{9}

**Calling.** A cumulant function made by `theory.cumulants` passes into compiled code as it is. Any
other function is compiled anew in each call, unless ``jax.jit`` is put around the whole
computation, in which it may be made and may close over parameters to differentiate by.

Sources: Derrida, Phys. Rev. B 24, 2613 (1981); Mezard, Parisi, Virasoro 1985; Bahadur and Rao 1960
(7); Derrida, Toulouse 1985.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.tree_util import Partial
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.cumulants import Cumulant, settle
from theory.poisson_dirichlet import participation_moment, squared_participation
from theory.roots import find_root

__all__ = [
    "LowestEnergy",
    "RandomEnergyState",
    "condensation",
    "entropy",
    "finite_size_free_energy",
    "finite_size_lowest_energy",
    "free_energy",
    "gaussian_free_energy",
    "lowest_energy",
    "order_parameter",
    "participation_moment",
    "planted_free_energy",
    "random_energy_state",
    "rate_function",
    "squared_participation",
]

_OCTAVES = 2.0 ** np.arange(-60, 61)
_ALPHA = "pass log(number of energies)/N"
_BETA = "pass an inverse temperature"


class RandomEnergyState(NamedTuple):
    """Solution of (1) at one temperature; NaN where the solver did not converge."""

    free_energy: Array
    """The limit of the log of the sum, per N."""
    order: Array
    """The index m: 1 above condensation, less below."""
    energy: Array
    """Energy per N that carries the sum; the lowest one where condensed."""


class LowestEnergy(NamedTuple):
    """The lowest of many energies at finite N, per N."""

    mean: Array
    """Its average."""
    deviation: Array
    """Its standard deviation."""


def random_energy_state(beta: ArrayLike, alpha: ArrayLike, cumulant: Cumulant) -> RandomEnergyState:
    r"""Free energy, order parameter and energy of unplanted energies.

    .. math:: \varphi(\beta) = \min_{0 < m \le 1} \frac{\alpha + g(m\beta)}{m}

    Args:
        beta: inverse temperature, positive; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1) to (4).
    """
    checks.require_positive("beta", beta, _BETA)
    checks.require_positive("alpha", alpha, _ALPHA)
    g, beta, alpha = settle(cumulant, beta, alpha)
    return _state(g, beta, alpha)


def free_energy(beta: ArrayLike, alpha: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Logarithm per N of the sum over unplanted energies.

    .. math:: \varphi(\beta) = \lim \tfrac1N \log \sum_{i=1}^{e^{\alpha N}} e^{-\beta E_i}

    This is :math:`-\beta` times the free energy of thermodynamics. `planted_free_energy` adds a
    configuration of its own energy.

    Args:
        beta: inverse temperature, positive; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1).
    """
    return random_energy_state(beta, alpha, cumulant).free_energy


def planted_free_energy(
    beta: ArrayLike, alpha: ArrayLike, cumulant: Cumulant, planted_energy: ArrayLike
) -> Array:
    r"""Logarithm per N of the sum over random energies and a planted one.

    .. math:: \lim \tfrac1N \log\Big(e^{-\beta N\epsilon_1} + \sum_{i > 1} e^{-\beta E_i}\Big)
       = \max(-\beta\epsilon_1, \varphi(\beta))

    With a kink where the two are equal, where each takes half of the derivative.

    Args:
        beta: inverse temperature, positive; arguments broadcast.
        alpha: logarithm of the number of random energies per N, positive.
        cumulant: the function g of the random energies; see `theory.cumulants`.
        planted_energy: energy :math:`\epsilon_1` of the planted configuration, over N.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    rest = free_energy(beta, alpha, cumulant)
    beta, planted_energy = floats(beta, planted_energy)
    return jnp.maximum(rest, -beta * planted_energy)


def order_parameter(beta: ArrayLike, alpha: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Index of the Poisson-Dirichlet law of the weights.

    .. math:: m = \min(1, \lambda_c/\beta)

    Args:
        beta: inverse temperature, positive; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (3).
    """
    return random_energy_state(beta, alpha, cumulant).order


def condensation(alpha: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Inverse temperature beyond which few energies carry the sum.

    .. math:: \alpha + g(\lambda_c) - \lambda_c g'(\lambda_c) = 0

    Infinite where the entropy stays positive, so that nothing condenses (`cumulants.binary` above
    alpha = log 2). NaN where the root lies below 2^-58 or the solver did not converge.

    Args:
        alpha: logarithm of the number of energies per N, positive, any shape.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (3).
    """
    checks.require_positive("alpha", alpha, _ALPHA)
    g, alpha = settle(cumulant, alpha)
    return _condensation(g, alpha)


def entropy(lam: ArrayLike, alpha: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Logarithm per N of the number of energies that carry the sum at a tilt.

    .. math:: s(\lambda) = \alpha + g(\lambda) - \lambda g'(\lambda)
       = \alpha - f(-g'(\lambda))

    Negative beyond `condensation`, where no such energy is left.

    Args:
        lam: the tilt, of either sign; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (2).
    """
    checks.require("lam", lam, np.isfinite, "finite", "pass an inverse temperature")
    checks.require_positive("alpha", alpha, _ALPHA)
    g, lam, alpha = settle(cumulant, lam, alpha)
    return _entropy(g, lam, alpha)


def rate_function(energy: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Large deviations of one energy per N.

    .. math:: f(\epsilon) = \max_\lambda [-g(\lambda) - \lambda\epsilon]

    0 at the mean energy :math:`-g'(0)`; the maximum is at a negative tilt above it. Infinite for
    energies that do not occur.

    Args:
        energy: energy over N, any shape.
        cumulant: the function g, scalar to scalar, of tilts of either sign and NaN or infinite
            outside of its domain.

    Raises:
        ValueError: for energies that are not finite.

    Source: Derrida 1981; (5).
    """
    checks.require("energy", energy, np.isfinite, "finite", "pass an energy over N")
    g, energy = settle(cumulant, energy)
    return _rate(g, energy)


def lowest_energy(alpha: ArrayLike, cumulant: Cumulant) -> Array:
    r"""Lowest of the energies, per N, as N goes to infinity.

    .. math:: \epsilon_\min = -g'(\lambda_c), \qquad f(\epsilon_\min) = \alpha

    NaN where nothing condenses: the lowest energy is then the end of their range.

    Args:
        alpha: logarithm of the number of energies per N, positive, any shape.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (4).
    """
    checks.require_positive("alpha", alpha, _ALPHA)
    g, alpha = settle(cumulant, alpha)
    return _lowest(g, alpha)[0]


def finite_size_lowest_energy(
    size: ArrayLike, alpha: ArrayLike, cumulant: Cumulant
) -> LowestEnergy:
    r"""Average and standard deviation of the lowest energy, per N, at large finite N.

    .. math:: \epsilon_\min + \frac{\frac12\log(2\pi N g''\lambda_c^2) - \gamma}{\lambda_c N},
       \qquad \frac{\pi}{\sqrt6\,\lambda_c N}

    The next terms are of order :math:`\log^2 N/N^2`. NaN where nothing condenses.

    Args:
        size: the N of :math:`e^{\alpha N}` energies, positive; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (7), (8).
    """
    checks.require_positive("size", size, "pass log(number of energies)/alpha")
    checks.require_positive("alpha", alpha, _ALPHA)
    g, size, alpha = settle(cumulant, size, alpha)
    energy, critical, curvature = _lowest(g, alpha)
    prefactor = 0.5 * jnp.log(2 * jnp.pi * size * curvature * critical**2)
    mean = energy + (prefactor - np.euler_gamma) / (critical * size)
    return LowestEnergy(mean, math.pi / (math.sqrt(6) * critical * size))


def finite_size_free_energy(
    beta: ArrayLike, size: ArrayLike, alpha: ArrayLike, cumulant: Cumulant
) -> Array:
    r"""Average logarithm per N of the sum at large finite N, in the condensed phase.

    .. math:: \varphi + \frac1N\Big[-\frac{1}{2m}\log(2\pi N g''\lambda_c^2)
       + \frac1m\log\Gamma(1 - m) + \gamma\Big(\frac1m - 1\Big)\Big]

    The next terms are of order :math:`\log^2 N/N^2`, and it diverges as beta falls to
    condensation. NaN in the annealed phase, where corrections are exponentially small (but for a
    region of width :math:`N^{-1/2}` around condensation).

    Args:
        beta: inverse temperature, positive; arguments broadcast.
        size: the N of :math:`e^{\alpha N}` energies, positive.
        alpha: logarithm of the number of energies per N, positive.
        cumulant: the function g, scalar to scalar; see `theory.cumulants`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (9).
    """
    checks.require_positive("beta", beta, _BETA)
    checks.require_positive("size", size, "pass log(number of energies)/alpha")
    checks.require_positive("alpha", alpha, _ALPHA)
    g, beta, size, alpha = settle(cumulant, beta, size, alpha)
    energy, critical, curvature = _lowest(g, alpha)
    condensed = beta > critical
    m = jnp.where(condensed, critical / beta, 0.5)
    prefactor = 0.5 * jnp.log(2 * jnp.pi * size * curvature * critical**2)
    terms = (gammaln(1 - m) - prefactor) / m + np.euler_gamma * (1 / m - 1)
    return jnp.where(condensed, terms / size - beta * energy, jnp.nan)


def gaussian_free_energy(beta: ArrayLike, alpha: ArrayLike, variance: ArrayLike) -> Array:
    r"""Free energy of Gaussian energies, in closed form.

    .. math:: \varphi = \alpha + \beta^2 v/2 \;\; (\beta < \sqrt{2\alpha/v}), \qquad
       \varphi = \beta\sqrt{2\alpha v} \;\; \text{beyond}

    Args:
        beta: inverse temperature, not negative; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        variance: variance of the energies over N, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1).
    """
    checks.require_nonnegative("beta", beta, _BETA)
    checks.require_positive("alpha", alpha, _ALPHA)
    checks.require_positive("variance", variance, "pass the variance of the energies over N")
    beta, alpha, variance = floats(beta, alpha, variance)
    free = beta**2 * variance < 2 * alpha
    frozen = beta * jnp.sqrt(2 * alpha * variance)
    return jnp.where(free, alpha + beta**2 * variance / 2, frozen)


def _compiled(kernel: Callable[..., Any]) -> Callable[..., Any]:
    """Jitted for good where the cumulant function is a pytree, else for this call."""
    jitted = jax.jit(kernel)

    @functools.wraps(kernel)
    def call(cumulant: Cumulant, *values: Array) -> Any:
        if isinstance(cumulant, Partial):
            return jitted(cumulant, *values)
        # a plain function may hold tracers, which no cache may outlive
        return jax.jit(functools.partial(kernel, cumulant))(*values)

    return call


def _entropy_of(cumulant: Cumulant, tilt: Array, alpha: Array) -> tuple[Array, Array]:
    """The entropy, and the size of the terms that cancel in it."""
    value, slope = jax.value_and_grad(cumulant)(tilt)
    scale = jnp.abs(alpha) + jnp.abs(value) + jnp.abs(tilt * slope)
    # a convex function that diverges at the end of its domain takes the entropy to minus infinity
    inside = jnp.isfinite(scale)
    return jnp.where(inside, alpha + value - tilt * slope, -jnp.inf), jnp.where(inside, scale, 0)


def _between(
    f: Callable[[Array], Array], lower: Array, upper: Array, exists: Array
) -> tuple[Array, Array]:
    """Root between two points, to the precision of their distance, and whether it was found."""

    def scaled(fraction: Array) -> Array:
        # without a bracket there is nothing to solve
        return jnp.where(exists, f(lower + fraction * (upper - lower)), fraction - 0.5)

    root = find_root(scaled, jnp.zeros_like(lower), jnp.ones_like(lower))
    return lower + root.value * (upper - lower), exists & root.converged


def _condensation_kernel(cumulant: Cumulant, alpha: Array) -> Array:
    grid = jnp.asarray(_OCTAVES, alpha.dtype)
    values, scales = jax.vmap(lambda x: _entropy_of(cumulant, x, alpha))(grid)
    # a sign that is not rounding
    negative = values < -8 * jnp.finfo(alpha.dtype).eps * scales
    index = jnp.argmax(negative)
    exists = negative[index] & (index > 1)
    lower = grid[jnp.maximum(index - 2, 0)]
    root, found = _between(
        lambda x: _entropy_of(cumulant, x, alpha)[0], lower, grid[jnp.maximum(index, 1)], exists
    )
    nothing = ~jnp.any(negative) & (values[0] > 0)
    return jnp.where(nothing, jnp.inf, jnp.where(found, root, jnp.nan))


def _state_kernel(
    cumulant: Cumulant, beta: Array, alpha: Array, critical: Array
) -> RandomEnergyState:
    condensed = beta > critical
    tilt = jnp.where(condensed, critical, beta)
    order = jnp.where(condensed, jnp.where(condensed, critical, 1) / beta, 1)
    value, slope = jax.value_and_grad(cumulant)(tilt)
    state = RandomEnergyState((alpha + value) / order, order, -slope)
    known = ~jnp.isnan(critical)
    return RandomEnergyState(*(jnp.where(known, leaf, jnp.nan) for leaf in state))


def _lowest_kernel(cumulant: Cumulant, alpha: Array, critical: Array) -> tuple[Array, Array, Array]:
    """The lowest energy, the tilt that carries it and the curvature there."""
    exists = jnp.isfinite(critical)
    tilt = jnp.where(exists, critical, 1)
    values = -jax.grad(cumulant)(tilt), tilt, jax.grad(jax.grad(cumulant))(tilt)
    energy, tilt, curvature = (jnp.where(exists, value, jnp.nan) for value in values)
    return energy, tilt, curvature


def _rate_kernel(cumulant: Cumulant, energy: Array) -> Array:
    octaves = jnp.asarray(_OCTAVES, energy.dtype)
    grid = jnp.concatenate([-octaves[::-1], jnp.zeros_like(octaves[:1]), octaves])

    def excess(x: Array) -> Array:
        value, slope = jax.value_and_grad(cumulant)(x)
        # a convex function that is infinite outside of its domain is steep at the ends
        return jnp.where(jnp.isfinite(value), slope + energy, jnp.sign(x) * jnp.inf)

    above = jax.vmap(excess)(grid) >= 0
    index = jnp.argmax(above)
    exists = above[index] & (index > 0)
    lower = grid[jnp.maximum(index - 1, 0)]
    tilt, found = _between(excess, lower, grid[jnp.maximum(index, 1)], exists)
    tilt = jnp.where(found, tilt, 0)
    rate = -cumulant(tilt) - tilt * energy
    missing = jnp.where(exists | jnp.isnan(energy), jnp.nan, jnp.inf)
    return jnp.where(found, rate, missing)


@_compiled
def _condensation(cumulant: Cumulant, alpha: Array) -> Array:
    return jnp.vectorize(functools.partial(_condensation_kernel, cumulant))(alpha)


@_compiled
def _state(cumulant: Cumulant, beta: Array, alpha: Array) -> RandomEnergyState:
    critical = _condensation(cumulant, alpha)
    values = jnp.vectorize(functools.partial(_state_kernel, cumulant))(beta, alpha, critical)
    return RandomEnergyState(*values)


@_compiled
def _lowest(cumulant: Cumulant, alpha: Array) -> tuple[Array, Array, Array]:
    critical = _condensation(cumulant, alpha)
    return jnp.vectorize(functools.partial(_lowest_kernel, cumulant))(alpha, critical)


@_compiled
def _entropy(cumulant: Cumulant, lam: Array, alpha: Array) -> Array:
    return jnp.vectorize(lambda x, a: _entropy_of(cumulant, x, a)[0])(lam, alpha)


@_compiled
def _rate(cumulant: Cumulant, energy: Array) -> Array:
    return jnp.vectorize(functools.partial(_rate_kernel, cumulant))(energy)
