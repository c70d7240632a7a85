r"""Generalised Random Energy Model: Gaussian energies on a tree.

From the root, every node of level :math:`l - 1` has :math:`e^{\alpha_l N}` children, each edge
carries an independent energy of variance :math:`N v_l`, and a leaf has the sum along its branch.
With :math:`A_k = \sum_{l \le k}\alpha_l` and :math:`V_k = \sum_{l \le k} v_l`, the sum over leaves
is that over independent levels whose points :math:`(A_k, V_k)` are replaced by their smallest
concave majorant :math:`\hat V(A)`. Its slope over level l is

.. math:: c_l = \min_{i < l}\, \max_{j \ge l}\, \frac{V_j - V_i}{A_j - A_i}, \tag{1}

which falls with depth, so that level l freezes at

.. math:: \beta_l = \sqrt{2/c_l}, \tag{2}

levels of equal slope together, and with :math:`\hat v_l = c_l\alpha_l`

.. math:: \varphi(\beta) = \sum_l \begin{cases} \alpha_l + \beta^2\hat v_l/2 & \beta < \beta_l \\
   \beta\sqrt{2\alpha_l\hat v_l} & \beta \ge \beta_l. \end{cases} \tag{3}

If :math:`\sqrt{2\alpha_l/v_l}` increases with depth nothing merges and each level is a Random
Energy Model of its own. Otherwise the deeper level would freeze before the one above it, which it
cannot: they freeze as one. The merged levels' mean slopes are those of an antitonic regression of
:math:`v_l/\alpha_l` with weights :math:`\alpha_l`, of which (1) is the min-max formula. Derivatives
by the levels are one-sided where two levels are about to merge. Exact as :math:`N \to \infty`.

Sources: Derrida, J. Physique Lett. 46, L401 (1985); Capocaccia, Cassandro, Picco 1987; Robertson,
Wright, Dykstra 1988 (1).
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats


class MergedLevels(NamedTuple):
    """What freezes together, level by level from the root."""

    variances: Array
    """Variances over N on the concave majorant; their sum is that of the given ones."""
    freezing: Array
    """Inverse temperature at which each level freezes, not decreasing; equal in a merged block."""
    block: Array
    """Number of the merged block that each level belongs to, from 0 at the root."""


def merged_levels(alphas: ArrayLike, variances: ArrayLike) -> MergedLevels:
    r"""Concave majorant of the levels and where they freeze.

    .. math:: \beta_l = \sqrt{2/c_l}, \qquad \hat v_l = c_l\alpha_l

    with (1).

    Args:
        alphas: logarithm of the number of children per N, from the root, shape (..., L), positive.
        variances: variance over N of the energy of an edge, shape (..., L), positive.

    Returns:
        Arrays of shape (..., L); ``block`` has the dtype of integers.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1985; (1), (2).
    """
    alphas, variances = _levels(alphas, variances)
    slopes = _slopes(alphas, variances)
    starts = jnp.diff(slopes, axis=-1, prepend=slopes[..., :1])
    # rounding tells the levels of one block apart by a few units in the last place
    new = starts < -64 * jnp.finfo(slopes.dtype).eps * slopes
    return MergedLevels(slopes * alphas, jnp.sqrt(2 / slopes), jnp.cumsum(new, axis=-1))


def freezing(alphas: ArrayLike, variances: ArrayLike) -> Array:
    r"""Inverse temperature at which each level freezes.

    .. math:: \beta_l = \sqrt{2/c_l}

    Args:
        alphas: logarithm of the number of children per N, from the root, shape (..., L), positive.
        variances: variance over N of the energy of an edge, shape (..., L), positive.

    Returns:
        Shape (..., L), not decreasing.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1985; (2).
    """
    return merged_levels(alphas, variances).freezing


def free_energy(beta: ArrayLike, alphas: ArrayLike, variances: ArrayLike) -> Array:
    r"""Logarithm per N of the sum over the leaves.

    .. math:: \varphi(\beta) = \lim \tfrac1N \log \sum e^{-\beta E}

    Args:
        beta: inverse temperature, positive, shape (...).
        alphas: logarithm of the number of children per N, from the root, shape (..., L), positive.
        variances: variance over N of the energy of an edge, shape (..., L), positive.

    Returns:
        Shape (...).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1985; (3).
    """
    checks.require_positive("beta", beta, "pass an inverse temperature")
    alphas, variances = _levels(alphas, variances)
    return _free_energy(*floats(beta, alphas, variances))


def _levels(alphas: ArrayLike, variances: ArrayLike) -> tuple[Array, Array]:
    checks.require_positive("alphas", alphas, "drop levels without branching")
    checks.require_positive("variances", variances, "merge levels without energies")
    shapes = np.shape(alphas), np.shape(variances)
    if not all(shapes) or shapes[0][-1] != shapes[1][-1] or shapes[0][-1] == 0:
        raise ValueError(
            f"alphas and variances have shapes {shapes[0]} and {shapes[1]}, expected (..., L); "
            "pass one number each per level, from the root"
        )
    alphas, variances = floats(alphas, variances)
    return alphas, variances


def _slopes_kernel(alphas: Array, variances: Array) -> Array:
    """Slopes of the concave majorant over all levels, by (1)."""
    count = np.arange(alphas.shape[0])
    first, last, level = count[:, None, None], count[None, :, None], count[None, None, :]
    # sums over the levels from the first to the last one; never a difference of large sums
    within = jnp.asarray((first <= level) & (level <= last), alphas.dtype)
    width = jnp.sum(within * alphas, axis=-1)
    slope = jnp.sum(within * variances, axis=-1) / jnp.where(width > 0, width, 1)
    reaches = (last >= level) & (first <= last)
    highest = jnp.max(jnp.where(reaches, slope[..., None], -jnp.inf), axis=1)
    return jnp.min(jnp.where(first[:, 0] <= level[0], highest, jnp.inf), axis=0)


def _free_energy_kernel(beta: Array, alphas: Array, variances: Array) -> Array:
    slopes = _slopes_kernel(alphas, variances)
    free = alphas * (1 + 0.5 * beta**2 * slopes)
    frozen = beta * alphas * jnp.sqrt(2 * slopes)
    return jnp.sum(jnp.where(beta**2 * slopes < 2, free, frozen))


_slopes = elementwise(_slopes_kernel, "(l),(l)->(l)")
_free_energy = elementwise(_free_energy_kernel, "(),(l),(l)->()")
