r"""Correlations of what changes in a U-turn: susceptibility and two-point function on a tree.

A U-turn (noise to some level, then a draw from the posterior) leaves the sites of a datum, the
leaves of a tree say, changed or not: ``sigma_i = -1`` or ``+1``. With connected averages over
data, noise and posterior draws together,

    C_ij = <sigma_i sigma_j> - <sigma_i><sigma_j>,   chi = sum_ij C_ij / sum_i C_ii,         (1)

``chi`` is the number of sites that change together: 1 for independent sites, n if all change at
once. It equals ``Var(M) / sum_i Var(sigma_i)`` with ``M = sum_i sigma_i`` (2), so that no matrix is
needed. On a tree of branching s the leaves of a block of ``s^k`` neighbours have a common ancestor
at height at most k. With ``S_k = sum_blocks (sum_{i in block} delta sigma_i)^2`` the pairs whose
first common ancestor is at height k, ``N_k = n (s^k - s^{k-1})`` ordered ones, have the mean

    C(k) = <S_k - S_{k-1}> / N_k,   C(0) = <S_0> / n,   chi = sum_k N_k C(k) / (n C(0)),   (3)

and the correlations reach as far as the mean size of the smallest block that holds a pair,

    xi = sum_k s^k N_k C(k) / sum_k N_k C(k), in leaves.                                     (4)

Averages of different grammars must not be mixed: the variance between them is no correlation of
sites. Errors of ratios are those of their linearisation.

References:
    Sclocchi, Favero, Levi, Wyart 2024 (2410.13770), whose susceptibility this is; (3) and (4) are
    written for this estimator.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax.observables.estimates import Estimate, mean_and_error


class TreeCorrelation(NamedTuple):
    """Connected correlations of the leaves of a tree, by the height of their common ancestor."""

    by_height: Estimate
    """``C(k)``, eq. (3), ``(L + 1,)``; the first entry is the mean variance of a leaf."""
    susceptibility: Estimate
    """``chi``, eq. (1), ``()``; NaN where no leaf varies."""
    length: Estimate
    """``xi``, eq. (4), in leaves, ``()``; NaN where the correlations sum to zero."""


def susceptibility(changes: ArrayLike) -> Estimate:
    """Number of sites that change together, eq. (2), and its standard error.

    Args:
        changes: ``(B, n)``, +1 where a site is unchanged and -1 where it is changed (any two
            numbers or real values do), rows independent of each other.

    Returns:
        ``chi`` and its error, ``()``; NaN where no site varies.

    Raises:
        ValueError: if ``changes`` is not ``(B, n)`` with two rows at least.

    References:
        Sclocchi, Favero, Levi, Wyart 2024 (2410.13770).
    """
    return _susceptibility(_rows(changes))


def tree_correlation(changes: ArrayLike, branching: int) -> TreeCorrelation:
    """Two-point function by tree distance, susceptibility and correlation length.

    Args:
        changes: ``(B, s^L)`` as in `susceptibility`, leaves in the order of the tree.
        branching: number of children s of every node (static).

    Returns:
        Estimates with errors over the rows; ``O(B n)`` memory.

    Raises:
        ValueError: if the number of leaves is no power of ``branching``, or shapes do not fit.

    References:
        Sclocchi, Favero, Levi, Wyart 2024 (2410.13770).
    """
    changes = _rows(changes)
    return _tree_correlation(changes, branching, _depth(changes.shape[1], branching))


@jax.jit
def _susceptibility(changes: Array) -> Estimate:
    deviation = _deviations(changes)
    together = jnp.square(jnp.sum(deviation, axis=1))
    return _ratio(together, jnp.sum(jnp.square(deviation), axis=1))


@partial(jax.jit, static_argnums=(1, 2))
def _tree_correlation(changes: Array, branching: int, depth: int) -> TreeCorrelation:
    deviation = _deviations(changes)
    rows, n = deviation.shape
    block, squares = deviation, [jnp.sum(jnp.square(deviation), axis=1)]
    for _ in range(depth):
        block = jnp.sum(block.reshape(rows, -1, branching), axis=-1)
        squares.append(jnp.sum(jnp.square(block), axis=1))
    totals = jnp.stack(squares, axis=1)  # (B, L + 1): S_k
    shells = jnp.diff(totals, axis=1, prepend=0)  # N_k C(k), n C(0) first
    sizes = float(branching) ** np.arange(depth + 1)
    pairs = n * np.diff(sizes, prepend=0)
    # the mean is that of the same rows
    mean, error = mean_and_error(shells / pairs * (rows / (rows - 1)))
    return TreeCorrelation(
        Estimate(mean, error),
        _ratio(totals[:, -1], totals[:, 0]),
        _ratio(shells @ jnp.asarray(sizes, shells.dtype), totals[:, -1]),
    )


def _rows(changes: ArrayLike) -> Array:
    values = jnp.asarray(changes)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 1:
        raise ValueError(
            f"changes has shape {values.shape}, expected (B, n) with B >= 2 independent rows"
        )
    return values


def _deviations(changes: Array) -> Array:
    """Differences to the mean of every site, in float32 or better."""
    wide = changes.astype(jnp.promote_types(changes.dtype, jnp.float32))
    wide = wide - wide[0]  # exactly zero for a site that never changes
    return wide - jnp.mean(wide, axis=0)


def _depth(leaves: int, branching: int) -> int:
    """L of ``leaves = branching^L``."""
    depth, size = 0, 1
    while branching > 1 and size < leaves:
        depth, size = depth + 1, size * branching
    if size != leaves:
        raise ValueError(f"changes has {leaves} leaves, which is no power of branching={branching}")
    return depth


def _ratio(above: Array, below: Array) -> Estimate:
    """Ratio of the means of two positive columns, and the error of its linearisation."""
    varies = jnp.mean(below) > 0
    size = jnp.where(varies, jnp.mean(below), 1)
    ratio = jnp.mean(above) / size
    _, error = mean_and_error((above - ratio * below) / size)
    return Estimate(jnp.where(varies, ratio, jnp.nan), jnp.where(varies, error, jnp.nan))
