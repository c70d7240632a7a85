r"""Random Energy Model: free entropy and participation of many independent energies.

:math:`M = e^{\alpha N}` independent energies with
:math:`g(\lambda) = \lim \frac1N \log E e^{-\lambda E}` have

.. math:: \varphi(\beta) = \lim \tfrac1N \log \sum_i e^{-\beta E_i}
   = \min_{0 < m \le 1} \frac{\alpha + g(m\beta)}{m}. \tag{1}

With the entropy :math:`s(\lambda) = \alpha + g - \lambda g'` (2): where :math:`s(\beta) > 0` the
minimum is at :math:`m = 1` (annealed); otherwise the sum condenses on few energies,
:math:`m = \lambda_c/\beta` with :math:`s(\lambda_c) = 0`, and
:math:`\varphi = \beta g'(\lambda_c) = -\beta \epsilon_\min` (3). In that phase the weights
:math:`w_i` follow the Poisson-Dirichlet law of index :math:`m`,

.. math:: E \sum_i w_i^k = \frac{\Gamma(k - m)}{\Gamma(k) \Gamma(1 - m)}. \tag{4}

Exact as :math:`N \to \infty`. Gaussian energies of variance :math:`Nv` have
:math:`g = \lambda^2 v/2` and condense at :math:`\beta_c = \sqrt{2\alpha/v}`.

Source: Derrida, Phys. Rev. B 24, 2613 (1981).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.roots import find_root


class RandomEnergyState(NamedTuple):
    """Solution of (1) at one temperature."""

    free_entropy: Array
    """The limit of the log of the sum, per N."""
    order: Array
    """The index m: 1 above condensation, less below. NaN where the solver did not converge."""
    lowest_energy: Array
    """Energy per N that carries the sum where condensed; the typical one otherwise."""


def random_energy_state(
    cumulant: Callable[[Array], Array], alpha: ArrayLike, beta: ArrayLike = 1.0
) -> RandomEnergyState:
    r"""Free entropy of energies with a given cumulant function.

    .. math:: \varphi(\beta) = \min_{0 < m \le 1} \frac{\alpha + g(m\beta)}{m}

    Args:
        cumulant: the function g, convex, scalar to scalar, differentiable, with g(0) = 0; it may
            close over parameters to differentiate by.
        alpha: logarithm of the number of energies per N, a positive scalar.
        beta: inverse temperature, a positive scalar.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1) to (3).
    """
    checks.require_positive("alpha", alpha, "pass log(number of energies)/N")
    checks.require_positive("beta", beta, "pass an inverse temperature")
    alpha, beta = floats(alpha, beta)
    slope = jax.grad(cumulant)

    def entropy(x: Array) -> Array:
        return alpha + cumulant(x) - x * slope(x)

    condensed = entropy(beta) <= 0
    # keep the search well posed in the annealed phase, where its result is not used
    top = jnp.where(condensed, entropy(beta), -1)

    def shifted(fraction: Array) -> Array:
        inside = entropy(fraction * beta)
        return jnp.where(condensed, inside, alpha + fraction * (top - alpha))

    order = jnp.where(condensed, find_root(shifted, 0.0 * beta, 1.0 + 0 * beta).value, 1)
    value = (alpha + cumulant(order * beta)) / order
    return RandomEnergyState(value, order, -slope(order * beta))


def gaussian_free_entropy(beta: ArrayLike, alpha: ArrayLike, variance: ArrayLike) -> Array:
    r"""Free entropy of Gaussian energies.

    .. math:: \varphi = \alpha + \beta^2 v/2 \;\; (\beta < \sqrt{2\alpha/v}), \qquad
       \varphi = \beta\sqrt{2\alpha v} \;\; \text{beyond}

    Args:
        beta: inverse temperature, not negative; arguments broadcast.
        alpha: logarithm of the number of energies per N, positive.
        variance: variance of the energies per N, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (1).
    """
    checks.require_nonnegative("beta", beta, "pass an inverse temperature")
    checks.require_positive("alpha", alpha, "pass log(number of energies)/N")
    checks.require_positive("variance", variance, "pass the variance of the energies over N")
    beta, alpha, variance = floats(beta, alpha, variance)
    free = beta**2 * variance < 2 * alpha
    frozen = beta * jnp.sqrt(2 * alpha * variance)
    return jnp.where(free, alpha + beta**2 * variance / 2, frozen)


def participation_moment(power: ArrayLike, order: ArrayLike) -> Array:
    r"""Average sum of powers of the weights in the condensed phase.

    .. math:: E\sum_i w_i^k = \frac{\Gamma(k - m)}{\Gamma(k)\Gamma(1 - m)}

    For k = 2 it is 1 - m. 0 at m = 1, where nothing condenses.

    Args:
        power: the exponent k, above 1; arguments broadcast.
        order: the index m, above 0 and at most 1.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (4).
    """
    checks.require("power", power, lambda v: v > 1, "above 1", "the weights themselves sum to 1")
    fix = "pass the ratio of temperature and condensation temperature"
    checks.require("order", order, lambda v: (v > 0) & (v <= 1), "in (0, 1]", fix)
    power, order = floats(power, order)
    # 1 / Gamma(1 - m) = (1 - m) / Gamma(2 - m) is regular at m = 1
    logs = gammaln(power - order) - gammaln(power) - gammaln(2 - order)
    return (1 - order) * jnp.exp(logs)


def squared_participation(order: ArrayLike) -> Array:
    r"""Average squared participation ratio in the condensed phase.

    .. math:: E Y_2^2 = \frac{(1 - m)(3 - 2m)}{3}

    Args:
        order: the index m, above 0 and at most 1, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; Mezard, Parisi, Virasoro 1985.
    """
    fix = "pass the ratio of temperature and condensation temperature"
    checks.require("order", order, lambda v: (v > 0) & (v <= 1), "in (0, 1]", fix)
    (order,) = floats(order)
    return (1 - order) * (3 - 2 * order) / 3
