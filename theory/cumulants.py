r"""Cumulant functions of random energies, as differentiable functions of one number.

The Random Energy Model needs of its energies only

.. math:: g(\lambda) = \lim \tfrac1N \log E e^{-\lambda E}, \tag{1}

convex, with :math:`g(0) = 0`; note the sign: :math:`-g'(\lambda)` is the energy per :math:`N` that
carries the tilted average, low for large :math:`\lambda`. For overlaps instead of energies,
:math:`g(\lambda) = \lim \frac1N \log E e^{\lambda \xi\cdot\xi'}` (2), put
:math:`E = -\xi\cdot\xi'`; the symmetric laws below have the same function either way.

Each factory returns a `jax.tree_util.Partial`: a callable from scalar to scalar whose numbers are
leaves of a pytree. It passes through ``jit`` and ``vmap`` as an argument, and derivatives with
respect to its numbers are those of whatever it is used in. A function of your own does as well,
see `theory.rem`; outside of the domain of (1) it must be NaN or infinite.

Sources: Derrida, Phys. Rev. B 24, 2613 (1981); Lucibello, Mezard 2024 (2304.14964).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats

Cumulant = Callable[[Array], Array]


def gaussian(variance: ArrayLike) -> Partial:
    r"""Gaussian energies of mean zero.

    .. math:: g(\lambda) = \lambda^2 v/2

    Args:
        variance: variance v of the energies over N, a positive scalar.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981.
    """
    checks.require_positive("variance", variance, "pass the variance of the energies over N")
    return Partial(_gaussian, variance)


def noncentral_chi_square(ratio: ArrayLike, distance: ArrayLike) -> Partial:
    r"""Squared distances to Gaussian points.

    .. math:: g(\lambda) = -\tfrac12\log(1 + \lambda u) - \frac{\lambda\rho/2}{1 + \lambda u}

    The energies are :math:`\frac12|\sqrt u\, v + r|^2` with :math:`v \sim N(0, I_N)` and
    :math:`|r|^2 = N\rho`; finite for :math:`\lambda > -1/u`.

    Args:
        ratio: variance u per coordinate of the points, in units of the noise; not negative.
        distance: squared distance :math:`\rho` per coordinate from their centre, not negative.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    checks.require_nonnegative("ratio", ratio, "pass the variance of the points over the noise")
    checks.require_nonnegative("distance", distance, "pass a squared distance per coordinate")
    return Partial(_noncentral_chi_square, ratio, distance)


def binary() -> Partial:
    r"""Overlaps of fair signs.

    .. math:: g(\lambda) = \log\cosh\lambda

    Energies per N lie between -1 and 1, of which :math:`2^N` are there: nothing condenses for
    alpha above log 2.

    Source: Lucibello, Mezard 2024 (2304.14964).
    """
    return Partial(_binary)


def spherical() -> Partial:
    r"""Overlaps of points on a sphere of squared radius N.

    .. math:: g(\lambda) = \lambda q + \tfrac12\log(1 - q^2), \qquad
       q = \frac{\sqrt{1 + 4\lambda^2} - 1}{2\lambda}

    Source: Lucibello, Mezard 2024 (2304.14964).
    """
    return Partial(_spherical)


def tabulated(samples: ArrayLike, size: ArrayLike) -> Partial:
    r"""Energies known by samples only.

    .. math:: \hat g(\lambda) = \frac1N \log \frac1K \sum_{k=1}^K e^{-\lambda N \epsilon_k}

    It is the function of the given N, not its limit, and K samples know the law only down to
    probabilities of 1/K: entropies :math:`\hat g - \lambda \hat g' \ge -\log K/N` end there, so
    that for alpha above :math:`\log K/N` no condensation is ever seen (as for `binary`), and the
    neighbourhood of that value carries the noise of the lowest sample. The average of the logarithm
    is biased by :math:`-(e^{Ns} - 1)/2KN`, :math:`s = g(2\lambda) - 2g(\lambda)`, as long as that
    is small.

    Args:
        samples: energies over N, shape (K,).
        size: the N that they belong to, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981, with the average over the samples.
    """
    if np.ndim(samples) != 1 or np.shape(samples)[0] < 2:
        raise ValueError(f"samples has shape {np.shape(samples)}, expected (K,) of at least two")
    fix = "drop samples that overflowed"
    checks.require("samples", samples, np.isfinite, "finite", fix)
    checks.require_positive("size", size, "pass the N of the samples")
    return Partial(_tabulated, samples, size)


def settle(cumulant: Cumulant, *values: ArrayLike) -> tuple[Any, ...]:
    """The cumulant function and numbers in one floating dtype, which arrays among them decide."""
    if not isinstance(cumulant, Partial):
        if not callable(cumulant):
            raise TypeError(
                f"cumulant must be a function, but is {cumulant!r}; see theory.cumulants"
            )
        return (cumulant, *floats(*values))
    leaves, tree = jax.tree.flatten(cumulant)
    numbers = floats(*values, *leaves)
    settled = jax.tree.unflatten(tree, numbers[len(values) :])
    return (settled, *numbers[: len(values)])


def _gaussian(variance: Array, tilt: Array) -> Array:
    return 0.5 * variance * tilt**2


def _noncentral_chi_square(ratio: Array, distance: Array, tilt: Array) -> Array:
    return -0.5 * jnp.log1p(tilt * ratio) - 0.5 * tilt * distance / (1 + tilt * ratio)


def _binary(tilt: Array) -> Array:
    return jnp.logaddexp(tilt, -tilt) - math.log(2)


def _spherical(tilt: Array) -> Array:
    root = jnp.sqrt(1 + 4 * tilt**2)
    # q = 2 tilt / (1 + root) and 1 - q^2 = 2 / (1 + root)
    return 2 * tilt**2 / (1 + root) - 0.5 * jnp.log(0.5 * (1 + root))


def _tabulated(samples: Array, size: Array, tilt: Array) -> Array:
    # energies above the one that wins: a difference of exponents would lose its digits
    extreme = jnp.where(tilt >= 0, jnp.min(samples), jnp.max(samples))
    total = jnp.sum(jnp.exp(-tilt * size * (samples - extreme)))
    return -tilt * extreme + (jnp.log(total) - math.log(samples.shape[0])) / size
