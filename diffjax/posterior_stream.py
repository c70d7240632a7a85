"""One pass over blocks of points: online softmax, and the few points that dominate it.

A running maximum `M` of the logits `z_mu` rescales the sums `sum_mu exp(z_mu - M) (1, v_mu, ...)`
block by block (Milakov & Gimelshein 2018, arXiv:1805.02867; Rabe & Staats 2021,
arXiv:2112.05682), so that memory does not grow with the number of points.

The rounding error of `z` is about `eps |x| |a| / sigma^2`, several nats at small noise. The pass
therefore also finds the points with the largest computed logits, for later comparison by direct
differences, in one of two ways:

* *cells*: each block is cut into strided cells of a few points; in each of its lanes the largest
  cell maxima of the whole stream are followed, which costs a few vector operations. The points of
  the best cells are looked at once, at the end.
* *sorted*: a running sorted list of any length. Exact, and several times slower.

Both report `hidden`, an upper limit of every computed logit that they do not hold.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.posterior_points import LANES, Block, PointBlocks, Query, logits

HELD = 8
"""Points that are compared again by direct differences."""
WIDE = 64
"""The same on the second attempt, where more than `HELD` points matter."""
DEPTH = 3
"""Maxima of cells followed in each lane."""


class Stream(NamedTuple):
    """Sums relative to `exp(peak)`, and the points with the largest logits."""

    peak: jax.Array  # (B,)
    total: jax.Array  # (B,), sum exp(z - peak)
    squares: jax.Array  # (B,), sum exp(2 (z - peak))
    moment: jax.Array | None  # (B, v), sum exp(z - peak) v
    logits: jax.Array  # (B, K), decreasing, as they entered the sums
    index: jax.Array  # type: ignore[assignment]  # (B, K), m c where fewer than K points have weight
    hidden: jax.Array  # (B,)


def stream(query: Query, blocks: PointBlocks, values, held: int, precision) -> Stream:
    """One pass over all points; `values` `(m, c, v)` or None; `held` candidates (static)."""
    batch, dtype = query.field.shape[0], query.field.dtype
    single = blocks.log_weights.shape[0] == 1
    held = min(held, blocks.size)
    start, update = _cells(batch, blocks, dtype) if held <= HELD else _sorted(batch, held, dtype)
    zero = jnp.zeros((batch,), dtype)
    # Finite, so that a block in which nothing has weight gives no nan.
    lowest = jnp.full((batch,), jnp.finfo(dtype).min / 4, dtype)
    moment = None if values is None else jnp.zeros((batch, values.shape[-1]), dtype)

    def body(carry, block):
        (peak, total, squares, moment), found = carry
        # Sums and candidates must see the same rounded logits: one is subtracted from the other.
        z = lax.optimization_barrier(logits(query, block, precision))
        found, best = update(found, lax.stop_gradient(z), block.start)
        peak, old = jnp.maximum(peak, best), peak
        p = jnp.exp(z - peak[:, None])
        shrink = jnp.exp(old - peak)
        total = total * shrink + p.sum(-1)
        squares = squares * shrink**2 + (p * p).sum(-1)
        if moment is not None:
            gain = jnp.matmul(p, block.values.astype(dtype), precision=precision)
            moment = moment * shrink[:, None] + gain
        return ((peak, total, squares, moment), found), z if single else None

    carry, z = scan_blocks(body, ((lowest, zero, zero, moment), start), blocks, values)
    (peak, total, squares, moment), found = carry
    if held <= HELD:
        found = _open_cells(found, query, blocks, held, None if z is None else z[0])
    value, index = found[0][:, :held], found[1][:, :held]
    index = jnp.where(value > lowest[:, None], index, blocks.log_weights.size)
    return Stream(peak, total, squares, moment, value, index, found[0][:, held])


def scan_blocks(body, carry, blocks: PointBlocks, values=None):
    """`carry, ys = scan(body)` over the blocks; the body is recomputed in reverse derivatives.

    Without recomputation a reverse pass would store every logit, which is the `(B, n)` array that
    this module exists to avoid.
    """
    count, length = blocks.log_weights.shape
    starts = jnp.arange(count, dtype=jnp.int32) * length
    stack = Block(blocks.centred, blocks.half_norms, blocks.log_weights, values, starts)
    if count == 1:
        carry, out = body(carry, jax.tree.map(lambda leaf: leaf[0], stack))
        return carry, jax.tree.map(lambda leaf: leaf[None], out)
    return lax.scan(jax.checkpoint(body, prevent_cse=False), carry, stack)


def largest(z, count: int):
    """`lax.top_k` kept whole: XLA turns it into a full sort when its outputs are sliced."""
    return lax.optimization_barrier(lax.top_k(z, count))


def _sorted(batch: int, held: int, dtype):
    """Running list of the `held + 1` largest logits; the last one is the hidden limit."""
    start = (
        jnp.full((batch, held + 1), -jnp.inf, dtype),
        jnp.zeros((batch, held + 1), jnp.int32),
    )

    def update(found, z, first):
        here = jnp.broadcast_to(first + jnp.arange(z.shape[1], dtype=jnp.int32), z.shape)
        value, at = largest(jnp.concatenate([found[0], z], 1), held + 1)
        index = jnp.take_along_axis(jnp.concatenate([found[1], here], 1), at, 1)
        # Not `value[:, 0]`: a reverse derivative would then store the whole list at every step.
        return (value, index), z.max(-1)

    return start, update


def _lanes(blocks: PointBlocks) -> tuple[int, int, int]:
    """Lanes, points of a cell, and cells followed in each lane."""
    count, length = blocks.log_weights.shape
    lanes = min(LANES, length)
    return lanes, length // lanes, min(DEPTH, count)


def _cells(batch: int, blocks: PointBlocks, dtype):
    """In each lane the largest maxima of cells and the first points of these cells."""
    lanes, points, depth = _lanes(blocks)
    start = (
        (jnp.full((batch, lanes), -jnp.inf, dtype),) * depth,
        (jnp.zeros((batch, lanes), jnp.int32),) * depth,
    )

    def update(found, z, first):
        # The maxima are needed anyway, for the peak; the barrier keeps them from being recomputed.
        new = lax.optimization_barrier(z.reshape(batch, points, lanes).max(1))
        best = new.max(-1)
        value, index = list(found[0]), list(found[1])
        at = jnp.broadcast_to(first + jnp.arange(lanes, dtype=jnp.int32), new.shape)
        for k in range(depth):
            up = new > value[k]
            new, value[k] = jnp.where(up, value[k], new), jnp.where(up, new, value[k])
            at, index[k] = jnp.where(up, index[k], at), jnp.where(up, at, index[k])
        return (tuple(value), tuple(index)), best

    return start, update


def _open_cells(found, query: Query, blocks: PointBlocks, held: int, z):
    """The `held` largest logits among the points of the best cells, and the hidden limit.

    `z` are the logits of the only block, or None where there were more: then those of the best
    cells are computed again, except their maxima, which are known as they entered the sums.
    """
    lanes, points, depth = _lanes(blocks)
    count = blocks.log_weights.shape[0]
    maxima, first = jnp.concatenate(found[0], 1), jnp.concatenate(found[1], 1)
    keep = min(held + 1, maxima.shape[1])
    best, at = largest(maxima, keep)
    limit = jnp.where(count > depth, found[0][-1].max(-1), -jnp.inf)
    if keep > held:
        limit = jnp.maximum(limit, best[:, held])
    best, first = best[:, :held], jnp.take_along_axis(first, at, 1)[:, :held]
    index = first[:, :, None] + lanes * jnp.arange(points, dtype=jnp.int32)
    if z is not None:
        value = jnp.take_along_axis(lax.stop_gradient(z), index.reshape(index.shape[0], -1), 1)
    else:
        value = _logits_again(query, blocks, index, best)
    value, index = (a.reshape(a.shape[0], -1) for a in (value, index))
    spare = max(0, held + 1 - value.shape[1])
    value = jnp.pad(value, ((0, 0), (0, spare)), constant_values=-jnp.inf)
    index = jnp.pad(index, ((0, 0), (0, spare)))
    value, at = largest(value, held + 1)
    index = jnp.take_along_axis(index, at, 1)
    limit = jnp.maximum(limit, value[:, held])
    return jnp.concatenate([value[:, :held], limit[:, None]], 1), index


def _logits_again(query: Query, blocks: PointBlocks, index, best):
    """Logits `(B, K, g)` of the points of cells, with the known maximum of each put in place."""
    rows = blocks.centred.reshape(-1, blocks.centre.size)
    dtype = query.field.dtype
    take = partial(jnp.take, axis=0, mode="clip")
    product = jnp.einsum(
        "bd,bkgd->bkg", query.field, take(rows, index).astype(dtype), precision="highest"
    )
    half, log_weights = (
        take(blocks.half_norms.ravel(), index),
        take(blocks.log_weights.ravel(), index),
    )
    z = product - query.curvature[:, None, None] * half.astype(dtype) + log_weights.astype(dtype)
    if query.own is not None:
        z = jnp.where(index == query.own[:, None, None], -jnp.inf, z)
    top = jnp.arange(z.shape[-1]) == jnp.argmax(z, -1)[..., None]
    return jnp.where(top, best[..., None], z)
