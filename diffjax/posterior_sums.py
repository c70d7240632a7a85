"""Posterior sums over the points of an empirical measure, streamed and safe at small noise.

The measure `sum_mu W_mu delta_{a_mu}` is seen through the channel `x = s a + sigma z`. Everything
that the empirical score needs is a sum over the logits

    l_mu(x) = log W_mu - |x - s a_mu|^2 / (2 sigma^2),                                          (1)
    w_mu = exp(l_mu - log Z),   log Z = log sum_mu exp(l_mu)                                    (2)

(Biroli, Bonnaire, de Bortoli, Mezard 2024, arXiv:2402.18491): the score is `(s E[a|x] - x) /
sigma^2`. One pass with an online softmax (`posterior_stream`) gives sums and the candidates with
the largest logits. A matrix product computes (1) with an error of about `eps |x| |a| / sigma^2`;
the candidates are therefore compared again by direct differences. With the residual `r = x - s a_0`
of the best one, computed to one rounding of itself, and `delta_k = s (a_0 - a_k)`,

    l_k - l_0 = log W_k - log W_0 - delta_k . (delta_k + 2 r) / (2 sigma^2),                    (3)

in which nothing large cancels. The candidates' coarse terms leave the sums and (3) replaces them.
Where the terms left over are negligible they are set to zero instead of trusting a difference.

Where the noise is large, the bound on the error of (1) is below the tolerance for every point and
nothing is compared again; this is decided for a whole batch, and only where no best points are
asked for. Where more candidates matter than are held, a second pass holds `WIDE` of them; where
that is still too few, the flag `unresolved` is raised. The second pass is taken by a whole batch as
soon as one of its states needs it.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from diffjax import records
from diffjax.posterior_points import (
    HELD,
    Block,
    PointBlocks,
    Query,
    block_points,
    block_values,
    by_groups,
    differences,
    logits,
    make_query,
    point_blocks,
    take_points,
    weighted,
    working_dtype,
)
from diffjax.posterior_stream import (
    WIDE,
    Fine,
    Stream,
    accurate,
    below_pivot,
    largest,
    plain_stream,
    scan_blocks,
    widened,
)

__all__ = [
    "PointBlocks",
    "PosteriorSums",
    "block_points",
    "block_values",
    "point_blocks",
    "posterior_covariance_product",
    "posterior_index",
    "posterior_log_weights",
    "posterior_sums",
]


@records.register
@dataclass(frozen=True)
class PosteriorSums:
    """Sums over the posterior weights `w_mu` of `(...)` states.

    Attributes:
      log_normaliser: `(...)`, `log Z` of equation (2), without `(2 pi sigma^2)^(-d/2)`.
      mean: `(..., v)`, `sum_mu w_mu v_mu`, or None without values.
      residual: `(..., d)`, `x - s E[a|x]` to the last digits, or None unless the values are the
        points. The score is `-residual / std**2`; computing it from `mean` loses digits at small
        noise, where `x` and `s mean` agree in most of theirs.
      participation: `(...)`, `Y_2 = sum_mu w_mu^2`.
      top_index: `(..., k)` points of largest weight, decreasing; -1 where fewer have weight.
      top_log_weight: `(..., k)`, `log w_mu` of these.
      log_own: `(...)`, `log w_own`, or None.
      log_others: `(...)`, `log(1 - w_own)`, accurate also where `w_own` rounds to 1, or None.
      unresolved: `(...)`, True where log-weights may be wrong by more than 1e-3 nats, or where the
        result is not finite.
    """

    log_normaliser: jax.Array
    mean: jax.Array | None
    residual: jax.Array | None
    participation: jax.Array
    top_index: jax.Array
    top_log_weight: jax.Array
    log_own: jax.Array | None
    log_others: jax.Array | None
    unresolved: jax.Array


def posterior_sums(
    blocks: PointBlocks,
    x,
    scale,
    std,
    *,
    values="points",
    own=None,
    top: int = 8,
    refine: bool = True,
    precision="highest",
) -> PosteriorSums:
    """Normaliser, mean, participation and best points of the posterior, in one streamed pass.

    Log-weights of points within 40 nats of the best, and `log_normaliser`, are within 1e-3 nats
    plus two units in the last place, or `unresolved` says that they may not be. Derivatives are
    those of the exact sums, in forward and reverse mode; which points are candidates is held fixed.

    Args:
      blocks: points from `point_blocks`.
      x: `(..., d)` states; 16-bit states are computed in float32.
      scale: `s >= 0`, broadcast against `x.shape[:-1]`. At 0 the posterior is the prior.
      std: `sigma > 0`, likewise. At 0 results are not finite and `unresolved` is True.
      values: "points" for the posterior mean of the points, None for no mean, `(n, v)` in the
        points' order (one-hot labels, say), or `(m, c, v)` from `block_values`.
      own: `(...)` integer index of a point in each row, for leave-one-out sums, or None.
      top: number of best points to report (static); at most n are. 0 is faster at large noise.
      refine: compare the best points by differences (static).
      precision: of matrix products, as in `jax.numpy.matmul` (static).

    Returns:
      `PosteriorSums`; 16-bit only in `mean` and `residual` of 16-bit states.
    """
    stacked = _stacked(blocks, values)
    points = isinstance(values, str)
    return _posterior_sums(
        blocks, x, scale, std, stacked, own, points, min(top, blocks.size), refine, precision
    )


@partial(jax.jit, static_argnums=(6, 7, 8, 9))
def _posterior_sums(blocks, x, scale, std, stacked, own, points, top, refine, precision):
    query, shape, out = _flat_query(blocks, x, scale, std, own)
    stacked = blocks.centred if points else stacked

    def finish(coarse, fine):
        return _sums(query, blocks, coarse, fine, stacked, points, top)

    def refined():
        return widened(query, blocks, stacked, finish, max(HELD, top), refine, precision)

    def plain():
        return _plain_sums(query, blocks, stacked, points, precision)

    if top == 0 and own is None and refine:
        result = lax.cond(accurate(query, blocks), plain, refined)
    else:
        result = refined()
    result = jax.tree.map(lambda leaf: leaf.reshape(shape + leaf.shape[1:]), result)
    return _cast(result, out)


def _flat_query(
    blocks: PointBlocks, x, scale, std, own
) -> tuple[Query, tuple[int, ...], jnp.dtype]:
    """Query over a flat batch, the shape of the batch, and the dtype of `x`."""
    x = jnp.asarray(x)
    dim = blocks.centre.size
    if x.ndim < 1 or x.shape[-1] != dim:
        raise ValueError(
            f"x has shape {x.shape}, expected (..., {dim}) for points of dimension {dim}"
        )
    dtype = working_dtype(x.dtype, blocks.centre.dtype)
    out = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else dtype
    shape = x.shape[:-1]

    def flat(a, kind):
        return jnp.broadcast_to(jnp.asarray(a).astype(kind), shape).reshape(-1)

    own = None if own is None else flat(own, jnp.int32)
    x = x.astype(dtype).reshape(-1, dim)
    return make_query(blocks, x, flat(scale, dtype), flat(std, dtype), own), shape, out


def _stacked(blocks: PointBlocks, values):
    """Values in blocks `(m, c, v)`; None where there are none or they are the points."""
    if isinstance(values, str):
        if values != "points":
            raise ValueError(f"values is {values!r}, expected 'points', None or an array (n, v)")
        return None
    if values is None:
        return None
    values = jnp.asarray(values)
    return values if values.ndim == 3 else block_values(blocks, values)


def _cast(result: PosteriorSums, dtype) -> PosteriorSums:
    """16-bit states get their means back in 16 bits."""
    if result.mean is None or jnp.finfo(dtype).bits >= 32:
        return result
    residual = None if result.residual is None else result.residual.astype(dtype)
    fields = {**vars(result), "mean": result.mean.astype(dtype), "residual": residual}
    return PosteriorSums(**fields)


def _sums(query, blocks, coarse: Stream, fine: Fine, stacked, points, top) -> PosteriorSums:
    """Everything that `posterior_sums` returns, for a flat batch."""
    mean = residual = None
    if points:
        below = below_pivot(query, blocks, coarse, fine)
        mean = fine.pivot - below
        residual = fine.residual + query.scale[:, None] * below
    elif stacked is not None:
        near = partial(take_points, stacked.astype(query.x.dtype))
        mean = weighted(near, fine.index, fine.correction)
        mean = mean + fine.factor[:, None] * cast(jax.Array, coarse.moment)
    _, at = largest(lax.stop_gradient(fine.log_weight), top)
    best = jnp.take_along_axis(fine.log_weight, at, 1)
    index = jnp.take_along_axis(fine.index, at, 1)
    return PosteriorSums(
        log_normaliser=fine.log_normaliser,
        mean=mean,
        residual=residual,
        participation=fine.squares,
        top_index=jnp.where(best > -jnp.inf, index, -1),
        top_log_weight=best,
        log_own=fine.log_own,
        log_others=fine.log_others,
        unresolved=fine.unresolved,
    )


def _plain_sums(query, blocks, stacked, points, precision) -> PosteriorSums:
    """What `_sums` returns without best points, from logits that need no comparison."""
    peak, total, squares, moment = plain_stream(query, blocks, stacked, precision)
    mean = residual = None
    if moment is not None:
        mean = moment / total[:, None]
    if points:
        residual = query.centred - query.scale[:, None] * mean
        mean = mean + blocks.centre.astype(total.dtype)
    ahead = 0.5 * ((query.centred / query.std[:, None]) ** 2).sum(-1)
    log_normaliser = peak + jnp.log(total) - ahead
    return PosteriorSums(
        log_normaliser=log_normaliser,
        mean=mean,
        residual=residual,
        participation=squares / total**2,
        top_index=jnp.zeros((total.size, 0), jnp.int32),
        top_log_weight=jnp.zeros((total.size, 0), total.dtype),
        log_own=None,
        log_others=None,
        unresolved=~jnp.isfinite(log_normaliser),
    )


class _Located(NamedTuple):
    """What a second pass over the points has to know of the first."""

    index: jax.Array  # type: ignore[assignment]  # (B, WIDE)
    log_weight: jax.Array  # (B, WIDE)
    pivot: jax.Array  # (B, d)
    below: jax.Array | None  # (B, d), a_0 - E[a|x]
    log_shift: jax.Array  # (B,)
    rest: jax.Array  # (B,), weight outside the candidates


def _locate(query, blocks, refine, precision, *, mean=False) -> _Located:
    """First pass: candidates with their weights, padded to one length, and the rest."""
    width = max(HELD, min(WIDE, blocks.size))

    def finish(coarse, fine):
        spare = ((0, 0), (0, width - fine.index.shape[1]))
        return _Located(
            jnp.pad(fine.index, spare, constant_values=blocks.log_weights.size),
            jnp.pad(fine.log_weight, spare, constant_values=-jnp.inf),
            fine.pivot,
            below_pivot(query, blocks, coarse, fine) if mean else None,
            fine.log_shift,
            fine.rest,
        )

    stacked = blocks.centred if mean else None
    return widened(query, blocks, stacked, finish, HELD, refine, precision)


@partial(jax.jit, static_argnames=("refine", "precision"))
def posterior_log_weights(
    blocks: PointBlocks, x, scale, std, *, refine: bool = True, precision="highest"
):
    """Normalised `log w_mu(x)` of every point, `(..., n)`, in the points' order.

    This is the one function that holds all `B n` numbers; arguments, accuracy and source are those
    of `posterior_sums`.
    """
    query, shape, _ = _flat_query(blocks, x, scale, std, None)
    found = _locate(query, blocks, refine, precision)

    def body(carry, block):
        return carry, logits(query, block, precision) + found.log_shift[:, None]

    _, stacked = scan_blocks(body, None, blocks)
    rows = stacked.swapaxes(0, 1).reshape(query.x.shape[0], -1)
    row = jnp.arange(rows.shape[0])[:, None]
    rows = rows.at[row, found.index].set(found.log_weight, mode="drop")
    return rows[:, : blocks.size].reshape((*shape, blocks.size))


def _rest_weights(query, blocks, block: Block, found: _Located, precision):
    """Weights `(B, c)` of the points of a block that are not candidates."""
    w = jnp.exp(logits(query, block, precision) + found.log_shift[:, None])
    w = jnp.where((found.rest > 0)[:, None], w, 0)
    place = found.index - block.start
    place = jnp.where(place < 0, blocks.log_weights.size, place)  # negative ones would wrap
    return w.at[jnp.arange(w.shape[0])[:, None], place].set(0, mode="drop")


@partial(jax.jit, static_argnames=("refine", "precision"))
def posterior_index(
    key, blocks: PointBlocks, x, scale, std, *, refine: bool = True, precision="highest"
):
    """A point drawn from the posterior of each state: `(...)` int32 in the points' order.

    Inversion of the cumulative weights with one uniform for each state: first the candidates in
    decreasing order of weight, then all other points in their order (only where some state needs
    them; this is a second pass). So the draw depends neither on the chunk size nor on the other
    states, up to rounding, and near-duplicates are drawn with their right odds at any noise.

    Args:
      key: typed key; used for one `uniform` of the batch's shape, at least 32 bits.
      blocks: and the others as in `posterior_sums`.
    """
    query, shape, _ = _flat_query(blocks, x, scale, std, None)
    found = _locate(query, blocks, refine, precision)
    order = jnp.argsort(-found.log_weight, axis=-1, stable=True)
    ahead = jnp.cumsum(jnp.exp(jnp.take_along_axis(found.log_weight, order, 1)), -1)
    uniform = jax.random.uniform(key, shape, query.x.dtype).reshape(-1)
    target = uniform * (ahead[:, -1] + found.rest)
    alive = jnp.isfinite(found.log_weight).sum(-1)
    rank = jnp.minimum((ahead <= target[:, None]).sum(-1), jnp.maximum(alive, 1) - 1)
    near = jnp.take_along_axis(found.index, jnp.take_along_axis(order, rank[:, None], 1), 1)[:, 0]
    near = near.astype(jnp.int32)
    far = (target >= ahead[:, -1]) & (found.rest > 0)

    def body(carry, block):
        passed, drawn = carry
        w = _rest_weights(query, blocks, block, found, precision)
        cumulative = passed[:, None] + jnp.cumsum(w, -1)
        wanted = target[:, None] - ahead[:, -1:]
        hit = jnp.argmax((cumulative > wanted) & (w > 0), -1).astype(jnp.int32)
        inside = (passed <= wanted[:, 0]) & (cumulative[:, -1] > wanted[:, 0])
        return (cumulative[:, -1], jnp.where(inside, block.start + hit, drawn)), None

    def search():
        (_, drawn), _ = scan_blocks(body, (jnp.zeros_like(target), near), blocks)
        return jnp.where(far, drawn, near)

    return lax.cond(far.any(), search, lambda: near).reshape(shape)


@partial(jax.jit, static_argnames=("refine", "precision"))
def posterior_covariance_product(
    blocks: PointBlocks, x, scale, std, u, *, refine: bool = True, precision="highest"
):
    """`Cov[a|x] u = sum_mu w_mu (a_mu - E) ((a_mu - E) . u)`, `(..., d)`, with `E = E[a|x]`.

    Streamed in two passes and centred on the posterior mean, so that a narrow posterior far from
    the origin loses no digits; the Jacobian of the score times `u` is
    `(s^2 Cov u / sigma^2 - u) / sigma^2`.

    Args:
      blocks: and the others as in `posterior_sums`.
      u: `(..., d)`, broadcast against `x`.
    """
    query, shape, out = _flat_query(blocks, x, scale, std, None)
    dtype = query.x.dtype
    u = jnp.broadcast_to(jnp.asarray(u).astype(dtype), (*shape, query.x.shape[1]))
    u = u.reshape(query.x.shape)
    found = _locate(query, blocks, refine, precision, mean=True)
    below = cast(jax.Array, found.below)
    offset = found.pivot - blocks.centre.astype(dtype) - below  # E minus the centre

    def from_mean(index):
        return below[:, None, :] - differences(query, blocks, found.pivot, index)

    def along(index):
        return jnp.einsum("bkd,bd->bk", from_mean(index), u, precision="highest")

    weight = jnp.exp(found.log_weight) * by_groups(along, found.index)
    near = weighted(from_mean, found.index, weight)

    def body(carry, block):
        total, moment = carry
        b = block.centred.astype(dtype)
        along = jnp.matmul(u, b.T, precision=precision) - (offset * u).sum(-1, keepdims=True)
        w = _rest_weights(query, blocks, block, found, precision) * along
        return (total + w.sum(-1), moment + jnp.matmul(w, b, precision=precision)), None

    def outside():
        start = (jnp.zeros_like(found.rest), jnp.zeros_like(u))
        (total, moment), _ = scan_blocks(body, start, blocks)
        return near + moment - total[:, None] * offset

    result = lax.cond((found.rest > 0).any(), outside, lambda: near)
    return result.reshape((*shape, -1)).astype(out)
