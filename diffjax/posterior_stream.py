"""One pass over blocks of points: online softmax, and the few points that dominate it, refined.

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

Both report `hidden`, an upper limit of every computed logit that they do not hold. Afterwards the
terms of these points are taken out of the sums and put back with logits from direct differences.
"""

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from diffjax.posterior_points import (
    HELD,
    LANES,
    Block,
    PointBlocks,
    Query,
    differences,
    exact_residual,
    logits,
    pinned_logits,
    relative_logits,
    take_points,
    tree_sum,
    weighted,
)

WIDE = 64
"""Points compared by differences on the second attempt, where more than `HELD` points matter."""
DEPTH = 3
"""Maxima of cells followed in each lane."""
WINDOW = 40.0
"""Points this many nats below the best are resolved (e^-40 = 4e-18)."""
TOLERANCE = 1e-3
"""Error of a log-weight, in nats, that is acceptable without comparison by differences."""
SAFETY = 6.0
"""Rounding errors of logits over `eps |x| |a| / sigma^2`: 1 rms and 3.3 at most as measured on CPU
in float32 for dimensions 2 to 12288; not a worst-case bound, which grows with the dimension."""


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
        sums, found = carry
        # Sums and candidates must see the same rounded logits: one is subtracted from the other.
        z = lax.optimization_barrier(logits(query, block, precision))
        found, best = update(found, lax.stop_gradient(z), block.start)
        return (_enter(sums, z, best, block.values, precision), found), z if single else None

    carry, z = scan_blocks(body, ((lowest, zero, zero, moment), start), blocks, values)
    (peak, total, squares, moment), found = carry
    if held <= HELD:
        found = _open_cells(found, query, blocks, held, None if z is None else z[0])
    value, index = found[0][:, :held], found[1][:, :held]
    index = jnp.where(value > lowest[:, None], index, blocks.log_weights.size)
    return Stream(peak, total, squares, moment, value, index, found[0][:, held])


def plain_stream(query: Query, blocks: PointBlocks, values, precision):
    """The sums `(peak, total, squares, moment)` of `Stream` alone, for logits that are accurate."""
    batch, dtype = query.field.shape[0], query.field.dtype
    zero = jnp.zeros((batch,), dtype)
    lowest = jnp.full((batch,), jnp.finfo(dtype).min / 4, dtype)
    moment = None if values is None else jnp.zeros((batch, values.shape[-1]), dtype)

    def body(carry, block):
        z = logits(query, block, precision)
        return _enter(carry, z, lax.stop_gradient(z.max(-1)), block.values, precision), None

    return scan_blocks(body, (lowest, zero, zero, moment), blocks, values)[0]


def _enter(sums, z, best, values, precision):
    """The running sums with the logits `z` `(B, c)` of one more block, whose maxima are `best`."""
    peak, total, squares, moment = sums
    peak, old = jnp.maximum(peak, best), peak
    p = jnp.exp(z - peak[:, None])
    shrink = jnp.exp(old - peak)
    total = total * shrink + p.sum(-1)
    squares = squares * shrink**2 + (p * p).sum(-1)
    if moment is not None:
        gain = jnp.matmul(p, values.astype(z.dtype), precision=precision)
        moment = moment * shrink[:, None] + gain
    return peak, total, squares, moment


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
        value, at = largest(jnp.concatenate([found[0], z], 1), held + 1)
        earlier = jnp.take_along_axis(found[1], jnp.minimum(at, held), 1)
        index = jnp.where(at > held, first + at - (held + 1), earlier)
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
    # A cell in which nothing has weight was never entered: its index is not its own.
    entered = jnp.repeat(best > -jnp.inf, points, axis=1, total_repeat_length=value.shape[1])
    value = jnp.where(entered, value, -jnp.inf)
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


class Fine(NamedTuple):
    """Weights of the candidates (`K`; an own point comes last) and what remains outside them."""

    index: jax.Array  # type: ignore[assignment]  # (B, K), m c where there is none
    log_weight: jax.Array  # (B, K), normalised
    pivot: jax.Array  # (B, d), point a_0
    below: jax.Array | None  # (B, K, d), a_0 - a_k, or None where there are many
    residual: jax.Array  # (B, d), x - s a_0
    log_normaliser: jax.Array  # (B,)
    log_own: jax.Array | None  # (B,)
    log_others: jax.Array | None  # (B,)
    correction: jax.Array  # (B, K), weights less those that are in the scaled sums of the stream
    squares: jax.Array  # (B,), the same for the sum of squares
    log_shift: jax.Array  # (B,), log w_mu - z_mu outside the candidates
    factor: jax.Array  # (B,), weights over terms of the stream; 0 where the rest is negligible
    rest: jax.Array  # (B,), weight of the points that are not candidates
    unresolved: jax.Array  # (B,)


def _rounding(query: Query, blocks: PointBlocks, index):
    """Bound of the rounding error of the logits of points like the candidates, `(B,)`."""
    eps = jnp.finfo(query.field.dtype).eps
    norm = jnp.sqrt(2 * take_points(blocks.half_norms, index).astype(query.field.dtype)).max(-1)
    size = jnp.sqrt((query.field**2).sum(-1)) * norm + query.curvature * norm**2 / 2
    return lax.stop_gradient(SAFETY * eps * size)


def accurate(query: Query, blocks: PointBlocks):
    """Whether every logit and every `log Z` is within `TOLERANCE` without comparison, `()`."""
    eps = jnp.finfo(query.field.dtype).eps
    norm = jnp.sqrt(2 * blocks.half_norms.astype(query.field.dtype).max())
    steep = jnp.sqrt((query.field**2).sum(-1)) * norm + query.curvature * norm**2 / 2
    size = steep + ((query.centred / query.std[:, None]) ** 2).sum(-1) / 2
    return lax.stop_gradient((SAFETY * eps * size).max() < TOLERANCE)


def _coarse_logits(query: Query, blocks: PointBlocks, coarse: Stream):
    """Logits of the candidates as they entered the stream, with derivatives."""
    dtype = query.field.dtype
    parts = (blocks.centred, blocks.half_norms, blocks.log_weights)
    b, half, log_weights = (take_points(part, coarse.index).astype(dtype) for part in parts)
    return pinned_logits(coarse.logits, query.field, query.curvature, b, half, log_weights)


def _own_logit(query: Query, blocks: PointBlocks):
    """Logit (1) of the own point, `(B,)`, which is left out of the stream."""
    dtype = query.field.dtype
    parts = (blocks.centred, blocks.half_norms, blocks.log_weights)
    b, half, log_weight = (take_points(part, query.own).astype(dtype) for part in parts)
    return (query.field * b).sum(-1) - query.curvature * half + log_weight


def _refine(query: Query, blocks: PointBlocks, coarse: Stream, refine: bool) -> Fine:
    """Replaces the logits of the candidates by differences and normalises."""
    z, index, start = _coarse_logits(query, blocks, coarse), coarse.index, coarse.index[:, 0]
    everything = z
    if query.own is not None:
        own = _own_logit(query, blocks)
        start = jnp.where(own > coarse.logits[:, 0], query.own, start)
        index = jnp.concatenate([index, query.own[:, None]], 1)
        everything = jnp.concatenate([z, own[:, None]], 1)
    dtype = z.dtype
    pivot = take_points(blocks.originals, start).astype(dtype)
    residual = exact_residual(query.x, query.scale, pivot)
    base = -0.5 * (tree_sum(residual**2) / query.std) / query.std
    log_weights = take_points(blocks.log_weights, index).astype(dtype)
    fine, below = relative_logits(query, blocks, index, pivot, residual)
    fine = jnp.where(index < blocks.log_weights.size, fine + log_weights, -jnp.inf)
    if not refine:
        first = take_points(blocks.log_weights, start).astype(dtype)
        fine = everything - everything.max(-1, keepdims=True) + first[:, None]
    return _normalised(
        query, blocks, coarse, z, index, fine, (pivot, below, residual, base, refine)
    )


def _normalised(query, blocks, coarse: Stream, z, index, fine, anchor) -> Fine:
    """Joins the candidates' logits `fine`, relative to `base`, with the rest of the stream."""
    pivot, below, residual, base, refine = anchor
    held, eps = z.shape[1], jnp.finfo(z.dtype).eps
    # The rest is anchored on the best candidate that entered the stream: same errors, same sign.
    shift = jnp.where(jnp.isfinite(z[:, 0]), fine[:, 0] - z[:, 0], 0)
    entered = jnp.exp(z - coarse.peak[:, None])
    # At most n terms below the limit: nothing to lose, and no cancelled difference to trust.
    gap = coarse.hidden - coarse.logits[:, 0]
    negligible = gap + jnp.log(float(blocks.size)) < jnp.log(0.01 * eps)
    rest = jnp.where(negligible, 0, jnp.maximum(coarse.total - entered.sum(-1), 0))
    some = rest > 0
    log_rest = jnp.where(some, jnp.log(jnp.where(some, rest, 1)) + coarse.peak + shift, -jnp.inf)
    others = jnp.logaddexp(jax.nn.logsumexp(fine[:, :held], -1), log_rest)
    total, log_own, log_others = others, None, None
    if query.own is not None:
        own = fine[:, held]
        total = jnp.logaddexp(others, own)
        log_own, log_others = -jax.nn.softplus(others - own), -jax.nn.softplus(own - others)
    bound = _rounding(query, blocks, index)
    hides = (gap > -WINDOW - 2 * bound) if refine else True
    factor = jnp.where(some, jnp.exp(coarse.peak + shift - total), 0)
    weight = jnp.exp(fine - total[:, None])
    scaled = jnp.pad(factor[:, None] * entered, ((0, 0), (0, fine.shape[1] - held)))
    squares = factor**2 * coarse.squares + (weight**2 - scaled**2).sum(-1)
    return Fine(
        index=index,
        log_weight=fine - total[:, None],
        pivot=pivot,
        below=below,
        residual=residual,
        log_normaliser=base + total,
        log_own=log_own,
        log_others=log_others,
        correction=weight - scaled,
        squares=squares,
        log_shift=shift - total,
        factor=factor,
        rest=factor * rest,
        unresolved=(hides & (bound > TOLERANCE)) | ~jnp.isfinite(base + total),
    )


def widened(query, blocks, stacked, finish, least, refine, precision):
    """`finish(coarse, fine)`, with more candidates where the first ones leave states unresolved."""

    def attempt(held):
        coarse = stream(query, blocks, stacked, held, precision)
        fine = _refine(query, blocks, coarse, refine)
        return finish(coarse, fine), fine.unresolved.any()

    result, again = attempt(least)
    if not refine or least >= min(WIDE, blocks.size):
        return result
    return lax.cond(again, lambda: attempt(WIDE)[0], lambda: result)


def below_pivot(query, blocks, coarse: Stream, fine: Fine):
    """`a_0 - E[a|x]`, `(B, d)`: small and accurate where the posterior is narrow."""
    offset = fine.pivot - blocks.centre.astype(fine.pivot.dtype)
    stream = fine.factor[:, None] * (
        coarse.total[:, None] * offset - cast(jax.Array, coarse.moment)
    )
    if fine.below is not None:
        return (fine.correction[..., None] * fine.below).sum(1) + stream
    below = partial(differences, query, blocks, fine.pivot)
    return weighted(below, fine.index, fine.correction) + stream
