r"""What changes in a U-turn of a masked string, exactly, by listing all strings.

Let N strings of n sites be equally likely, as those of a random hierarchy are. Every site is
masked with probability :math:`\epsilon`; the draw from the posterior is any string that agrees
with the datum at all sites left, with equal probabilities. With :math:`A_S(a, a') = 1` if the
strings agree outside of the masked set S, the pair of datum and draw has the law

.. math:: W(a, a') = \frac1N \sum_S \epsilon^{|S|}(1 - \epsilon)^{n - |S|}
   \frac{A_S(a, a')}{\sum_b A_S(a, b)}, \tag{1}

symmetric in its arguments (the two are exchangeable), and the sites
:math:`\varsigma_i = +1` (unchanged) or :math:`-1` have the moments

.. math:: \langle\varsigma_i\rangle = \sum_{a,a'} W\,\varsigma_i, \qquad
   C_{ij} = \sum_{a,a'} W\,\varsigma_i\varsigma_j
   - \langle\varsigma_i\rangle\langle\varsigma_j\rangle. \tag{2}

The sum runs over :math:`2^n` sets and :math:`N^2` pairs: for short strings only. Independent
sites have :math:`\chi = \sum_{ij}C_{ij}/\sum_i C_{ii} = 1`, and strings of one repeated symbol
:math:`\chi = n`.

Source: Sclocchi, Favero, Levi, Wyart 2024 (2410.13770), for the correlations; (1) and (2) are
enumerations.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array

_SITES = 12


class ChangeMoments(NamedTuple):
    """Moments (2) of the sites, +1 where unchanged."""

    mean: Array
    """Shape (..., n)."""
    covariance: Array
    """Shape (..., n, n)."""


def masked_change_moments(strings: ArrayLike, epsilon: ArrayLike) -> ChangeMoments:
    r"""Mean and covariance of the changes of a masked string after a draw from its posterior.

    Args:
        strings: all equally likely strings, integers of shape (N, n), n at most 12.
        epsilon: probability that a site is masked, shape (...).

    Returns:
        Moments of shapes (..., n) and (..., n, n).

    Raises:
        ValueError: for concrete arguments out of range, or strings too long to enumerate.

    Source: (1), (2).
    """
    checks.require(
        "epsilon", epsilon, lambda v: (v >= 0) & (v <= 1), "in [0, 1]", "pass a fraction"
    )
    strings, (epsilon,) = jnp.asarray(strings), checks.floats(epsilon)
    if strings.ndim != 2 or not strings.size or strings.shape[1] > _SITES:
        raise ValueError(
            f"strings has shape {strings.shape}, expected (N, n) with n <= {_SITES} sites"
        )
    return _moments(strings, epsilon)


def change_susceptibility(covariance: ArrayLike) -> Array:
    r"""Number of sites that change together, :math:`\chi = \sum_{ij}C_{ij}/\sum_i C_{ii}`.

    Args:
        covariance: shape (..., n, n).

    Returns:
        Shape (...); NaN where no site varies.

    Raises:
        ValueError: if the matrices are not square.

    Source: Sclocchi, Favero, Levi, Wyart 2024 (2410.13770).
    """
    covariance = _square(covariance)
    alone = jnp.trace(covariance, axis1=-2, axis2=-1)
    varies = alone > 0
    total = jnp.sum(covariance, axis=(-2, -1))
    return jnp.where(varies, total / jnp.where(varies, alone, 1), jnp.nan)


def covariance_by_height(covariance: ArrayLike, branching: int) -> Array:
    r"""Mean covariance of leaves by the height of their first common ancestor.

    Args:
        covariance: shape (..., n, n), leaves in the order of a tree, n a power of ``branching``.
        branching: number of children of every node.

    Returns:
        Shape (..., L + 1), the mean variance first.

    Raises:
        ValueError: if the number of leaves is no power of ``branching``.

    Source: Sclocchi, Favero, Levi, Wyart 2024 (2410.13770).
    """
    covariance = _square(covariance)
    leaves = covariance.shape[-1]
    branching = checks.require_count("branching", branching, 2, "count the children")
    depth = round(np.log(leaves) / np.log(branching))
    if branching**depth != leaves:
        raise ValueError(f"covariance has {leaves} leaves, no power of branching={branching}")
    index = np.arange(leaves)
    ancestors = index[:, None] // branching ** np.arange(depth + 1)  # (n, L + 1)
    height = np.argmax(ancestors[:, None] == ancestors, axis=-1)
    shells = np.stack([height == k for k in range(depth + 1)])
    weights = jnp.asarray(shells / shells.sum((1, 2), keepdims=True), covariance.dtype)
    return jnp.einsum("...ij,kij->...k", covariance, weights, precision="highest")


def _square(covariance: ArrayLike) -> Array:
    """Square matrices of floating dtype."""
    (matrix,) = checks.floats(covariance)
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"covariance has shape {matrix.shape}, expected (..., n, n)")
    return matrix


@jax.jit
def _moments(strings: Array, epsilon: Array) -> ChangeMoments:
    number, n = strings.shape
    same = strings[:, None] == strings  # (N, N, n)
    masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1

    def add(total: Array, mask: Array) -> tuple[Array, None]:
        agree = jnp.all(same | (mask == 1), axis=-1).astype(total.dtype)
        share = agree / (number * jnp.sum(agree, axis=1, keepdims=True))
        return total.at[jnp.sum(mask)].add(share), None

    # (1) by the number of masked sites: the noise only weighs these
    start = jnp.zeros((n + 1, number, number), epsilon.dtype)
    by_number = jax.lax.scan(add, start, jnp.asarray(masks))[0]
    change = jnp.where(same, 1, -1).astype(epsilon.dtype)
    first = jnp.einsum("kab,abi->ki", by_number, change, precision="highest")
    second = jnp.einsum("kab,abi,abj->kij", by_number, change, change, precision="highest")
    weights = jnp.stack([epsilon**k * (1 - epsilon) ** (n - k) for k in range(n + 1)], axis=-1)
    mean = jnp.einsum("...k,ki->...i", weights, first, precision="highest")
    product = jnp.einsum("...k,kij->...ij", weights, second, precision="highest")
    return ChangeMoments(mean, product - mean[..., :, None] * mean[..., None, :])
