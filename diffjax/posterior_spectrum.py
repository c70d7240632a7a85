r"""Covariance of the posterior over a point cloud, and its spectrum, one state at a time.

    C = Cov[a | x] = sum_mu w_mu (a_mu - E)(a_mu - E)^T,   rank C <= number of weights - 1.  (1)

With M weights that are not negligible the non-zero eigenvalues are those of the M x M Gram matrix
of the rows ``sqrt(w_mu) (a_mu - E)``. How many matter depends on the state, so the program holds
three ways and runs one of them per state: the Gram matrix of the best `FEW` points, of the best
`SOME`, or the d x d matrix streamed over all points. The points that are left out of a Gram matrix
hold less than `NEGLIGIBLE` roundings of the weight together.

Rows are formed as differences from the best point, so that a narrow posterior far from the origin
keeps its digits; weights come from `posterior_log_weights`.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax.posterior_sums import PointBlocks, block_points, posterior_log_weights

FEW, SOME = 32, 256
"""Points in the two Gram matrices."""
NEGLIGIBLE = 0.1
"""Weight that may be left out, in units of the rounding of 1."""


@jax.jit
def posterior_covariance_matrix(
    blocks: PointBlocks, x: Array, scale: ArrayLike, std: ArrayLike
) -> Array:
    """``Cov[a | x]``, eq. (1), ``(..., d, d)``.

    Args:
        blocks: points from `point_blocks`.
        x: ``(..., d)`` states.
        scale: factor of the clean datum, broadcast against the batch.
        std: noise, likewise, above 0.
    """
    log_weights = posterior_log_weights(blocks, x, scale, std)
    matrix = partial(_matrix, blocks)
    flat = log_weights.reshape(-1, log_weights.shape[-1])
    out = lax.map(matrix, flat)
    return out.reshape(*log_weights.shape[:-1], *out.shape[1:]).astype(x.dtype)


@jax.jit
def posterior_covariance_spectrum(
    blocks: PointBlocks, x: Array, scale: ArrayLike, std: ArrayLike
) -> Array:
    """Eigenvalues of ``Cov[a | x]``, descending, ``(..., d)``; arguments as above."""
    points = block_points(blocks)
    n, dim = points.shape
    log_weights = posterior_log_weights(blocks, x, scale, std)
    flat = log_weights.reshape(-1, n)
    sizes = [k for k in (FEW, SOME) if k < min(n, dim)]

    def dense(log_weight: Array) -> Array:
        if n <= dim:
            return _padded(_gram(points, log_weight, jnp.arange(n)), dim)
        return jnp.linalg.eigvalsh(_matrix(blocks, log_weight))[::-1]

    def small(k: int, log_weight: Array) -> Array:
        _, index = lax.top_k(log_weight, k)
        return _padded(_gram(points, log_weight[index], index), dim)

    branches = [partial(small, k) for k in sizes] + [dense]

    def one(log_weight: Array) -> Array:
        if not sizes:
            return dense(log_weight)
        best, _ = lax.top_k(log_weight, sizes[-1] + 1)
        # all that follow are no larger than the first one that is left out
        limit = jnp.log(NEGLIGIBLE * jnp.finfo(log_weight.dtype).eps / n)
        negligible = jnp.stack([best[k] < limit for k in sizes])
        chosen = jnp.where(negligible.any(), jnp.argmax(negligible), len(sizes))
        return lax.switch(chosen, branches, log_weight)

    eigenvalues = jnp.maximum(lax.map(one, flat), 0)
    return eigenvalues.reshape(*log_weights.shape[:-1], dim).astype(x.dtype)


def _gram(points: Array, log_weight: Array, index: Array) -> Array:
    """Non-zero eigenvalues, descending, from the points of ``index``; ``(k,)``."""
    weight = jnp.exp(log_weight)
    chosen = points[index].astype(weight.dtype)
    below = chosen[jnp.argmax(weight)] - chosen
    rows = jnp.sqrt(weight)[:, None] * (below - weight @ below)
    return jnp.linalg.eigvalsh(jnp.matmul(rows, rows.T, precision="highest"))[::-1]


def _padded(eigenvalues: Array, dim: int) -> Array:
    return jnp.pad(eigenvalues, (0, dim - eigenvalues.size))


def _matrix(blocks: PointBlocks, log_weight: Array) -> Array:
    """Equation (1) streamed over the blocks, ``(d, d)``."""
    count, length, dim = blocks.originals.shape
    dtype = log_weight.dtype
    pivot = block_points(blocks)[jnp.argmax(log_weight)].astype(dtype)
    spare = count * length - blocks.size
    weights = jnp.pad(jnp.exp(log_weight), (0, spare)).reshape(count, length)

    def first(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        points, weight = block
        return total + weight @ (points.astype(dtype) - pivot), None

    mean, _ = lax.scan(first, jnp.zeros((dim,), dtype), (blocks.originals, weights))

    def second(total: Array, block: tuple[Array, Array]) -> tuple[Array, None]:
        points, weight = block
        rows = jnp.sqrt(weight)[:, None] * (points.astype(dtype) - pivot - mean)
        return total + jnp.matmul(rows.T, rows, precision="highest"), None

    return lax.scan(second, jnp.zeros((dim, dim), dtype), (blocks.originals, weights))[0]
