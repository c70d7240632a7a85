"""Points of an empirical measure, prepared once for the streaming posterior sums.

The measure is `sum_mu W_mu delta_{a_mu}`. Its points are cut into `m` blocks of `c` points, padded
at the end with points of weight zero, so that the kernel never slices or pads inside a compiled
loop. Logits are computed from points centred on their mean `abar`, because the rounding error of
`x . a` grows with the norms of both; the unshifted points are kept beside them, because the few
points that matter are compared again with `x` directly and a centred copy has lost its last bits.

For a centred state `y = x - s abar` and centred points `b_mu = a_mu - abar` the logits are, up to
`-|y|^2 / 2 sigma^2`, which never enters because it would swamp them,

    z_mu = log W_mu + (s / sigma^2) y . b_mu - (s / sigma)^2 |b_mu|^2 / 2.                       (1)
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from diffjax import records

HELD = 8
"""Points that are compared again by direct differences."""
FEW = 2 * HELD
"""As many candidates are compared at once; more of them in groups."""
LANES = 128
"""Points of a block are compared in strided cells; a block longer than this is a multiple of it."""


@records.register
@dataclass(frozen=True)
class PointBlocks:
    """Weighted points in `m` blocks of `c`; build it with `point_blocks`.

    Attributes:
      originals: `(m, c, d)` points as given; the padding repeats the mean.
      centred: `(m, c, d)` points minus `centre`; zero in the padding.
      half_norms: `(m, c)`, `|a - abar|^2 / 2`.
      log_weights: `(m, c)`, `log W_mu`; minus infinity in the padding.
      centre: `(d,)` mean of the points, whatever their weights.
      size: number of points `n` without the padding (static).
    """

    originals: jax.Array
    centred: jax.Array
    half_norms: jax.Array
    log_weights: jax.Array
    centre: jax.Array
    size: int = field(metadata={"static": True})


def point_blocks(points, log_weights=None, *, chunk: int | None = None) -> PointBlocks:
    """Points prepared for `posterior_sums`: centred, padded and blocked once.

    Args:
      points: `(n, d)`, n >= 1. 16-bit points are kept in float32.
      log_weights: `(n,)` logarithms of the weights `W_mu`, in nats; need not be normalised.
        Default `-log n` each. Minus infinity takes a point out.
      chunk: points per block (static); rounded up to a multiple of 128 above 128. By default
        chosen so that a block of logits stays in the cache of a CPU, or fills an accelerator.

    Raises:
      ValueError: `points` is not `(n, d)` with n >= 1, `log_weights` is not `(n,)`, `chunk` < 1.
    """
    points = jnp.asarray(points)
    if points.ndim != 2 or points.shape[0] < 1:
        raise ValueError(
            f"points has shape {points.shape}, expected (n, d) with n >= 1; "
            "for one-dimensional data pass points[:, None]"
        )
    dtype = working_dtype(points.dtype)
    points = points.astype(dtype)
    size = points.shape[0]
    if log_weights is None:
        log_weights = jnp.full((size,), -jnp.log(size), dtype)
    log_weights = jnp.asarray(log_weights).astype(dtype)
    if log_weights.shape != (size,):
        raise ValueError(f"log_weights has shape {log_weights.shape}, expected ({size},)")
    count, length = _grid(size, points.shape[1], chunk)
    centre = points.mean(0)
    spare = count * length - size
    originals = jnp.concatenate([points, jnp.broadcast_to(centre, (spare, centre.size))])
    centred = originals - centre
    log_weights = jnp.concatenate([log_weights, jnp.full((spare,), -jnp.inf, dtype)])
    return PointBlocks(
        originals.reshape(count, length, -1),
        centred.reshape(count, length, -1),
        (0.5 * (centred * centred).sum(-1)).reshape(count, length),
        log_weights.reshape(count, length),
        centre,
        size,
    )


def working_dtype(*dtypes):
    """The widest of these floating types, at least float32 (also under strict promotion)."""
    wide = [jnp.dtype(d) for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    return max([jnp.dtype(jnp.float32), *wide], key=lambda d: jnp.finfo(d).bits)


def block_points(blocks: PointBlocks) -> jax.Array:
    """The `(n, d)` points in their original order, exactly as they were given."""
    return blocks.originals.reshape(-1, blocks.centre.size)[: blocks.size]


def block_values(blocks: PointBlocks, values) -> jax.Array:
    """Values `(n, v)` of the points, in their order, blocked to `(m, c, v)` once for reuse.

    Raises:
      ValueError: `values` has not one row for each point.
    """
    values = jnp.asarray(values)
    if values.ndim != 2 or values.shape[0] != blocks.size:
        raise ValueError(f"values has shape {values.shape}, expected ({blocks.size}, v)")
    count, length = blocks.log_weights.shape
    padded = jnp.pad(values, ((0, count * length - blocks.size), (0, 0)))
    return padded.reshape(count, length, -1)


def _grid(size: int, dim: int, chunk: int | None) -> tuple[int, int]:
    """Number of blocks and points in each."""
    if chunk is None:
        # Measured on CPU: in low dimension the products are cheap and fewer, longer steps win.
        on_cpu = 512 if dim >= 128 else 1024
        chunk = on_cpu if jax.default_backend() == "cpu" else 8192
        chunk = size if size <= 4 * chunk else chunk
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}, expected at least 1")
    chunk = min(chunk, size)
    if chunk > LANES:
        chunk = -(-chunk // LANES) * LANES
    return -(-size // chunk), chunk


class Query(NamedTuple):
    """Flat batch of states with the factors of equation (1)."""

    x: jax.Array  # (B, d)
    scale: jax.Array  # (B,)
    std: jax.Array  # (B,)
    centred: jax.Array  # (B, d), y = x - s abar
    field: jax.Array  # (B, d), s y / sigma^2
    curvature: jax.Array  # (B,), (s / sigma)^2
    own: jax.Array | None  # (B,) index left out of the sums


class Block(NamedTuple):
    """What one step over the blocks sees; `start` is the index of its first point."""

    centred: jax.Array  # (c, d)
    half_norms: jax.Array  # (c,)
    log_weights: jax.Array  # (c,)
    values: jax.Array | None  # (c, v)
    start: jax.Array  # ()


@jax.custom_jvp
def exact_residual(x, scale, point):
    """`x - scale point` with an error of about one rounding of the *result*, row by row.

    Both factors are cut into halves whose products are exact, so that neither a rounded product
    nor a fused multiply-add (compilers differ) can enter. `x`, `point` `(..., d)`, `scale` `(...)`.
    """
    scale = scale[..., None]
    if x.dtype != jnp.float32:
        return x - scale * point
    scale_high, point_high = _high_half(scale), _high_half(point)
    scale_low, point_low = scale - scale_high, point - point_high
    cross = scale_high * point_low + scale_low * point_high
    return ((x - scale_high * point_high) - cross) - scale_low * point_low


@exact_residual.defjvp
def _exact_residual_jvp(primals, tangents):
    # The derivative of the difference, not of the halves (cutting has no derivative).
    _, scale, point = primals
    dx, dscale, dpoint = tangents
    tangent = dx - dscale[..., None] * point - scale[..., None] * dpoint
    return exact_residual(*primals), tangent


def _high_half(a):
    bits = lax.bitcast_convert_type(a, jnp.uint32)
    return lax.bitcast_convert_type(bits & jnp.uint32(0xFFFFF000), jnp.float32)


@jax.custom_jvp
def pinned_logits(value, field, curvature, centred, half_norms, log_weights):
    """Logits that were computed elsewhere, `value` `(B, K)`, with the derivative of equation (1).

    `centred` `(B, K, d)`, `half_norms` and `log_weights` `(B, K)` of the same points are read only
    when a derivative is taken.
    """
    return value


@pinned_logits.defjvp
def _pinned_logits_jvp(primals, tangents):
    value, field, curvature, centred, half_norms, _ = primals
    _, dfield, dcurvature, dcentred, dhalf, dlog_weights = tangents
    tangent = (
        jnp.einsum("bd,bkd->bk", dfield, centred, precision="highest")
        + jnp.einsum("bd,bkd->bk", field, dcentred, precision="highest")
        - dcurvature[:, None] * half_norms
        - curvature[:, None] * dhalf
        + dlog_weights
    )
    return value, tangent


def make_query(blocks: PointBlocks, x, scale, std, own=None) -> Query:
    """Flat query from `x` `(B, d)`, `scale`, `std` `(B,)`, `own` `(B,)` or None."""
    centred = exact_residual(x, scale, jnp.broadcast_to(blocks.centre.astype(x.dtype), x.shape))
    ratio = scale / std
    field = centred * (ratio / std)[:, None]
    return Query(x, scale, std, centred, field, ratio * ratio, own)


def logits(query: Query, block, precision):
    """Equation (1) for the points of one block, `(B, c)`; minus infinity at the own point."""
    dtype = query.field.dtype
    product = jnp.matmul(query.field, block.centred.astype(dtype).T, precision=precision)
    bias = block.log_weights.astype(dtype) - query.curvature[:, None] * block.half_norms.astype(
        dtype
    )
    z = product + bias
    if query.own is None:
        return z
    here = jnp.arange(z.shape[1], dtype=jnp.int32)[None, :]
    return jnp.where(here == (query.own - block.start)[:, None], -jnp.inf, z)


def take_points(stack, index):
    """Rows `(B, K, ...)` of a blocked array, by index in the points' order."""
    flat = stack.reshape((-1, *stack.shape[2:]))
    return jnp.take(flat, index, axis=0, mode="clip")


def tree_sum(terms):
    """Sum over the last axis, sixteen at a time: error of a few roundings at any length."""
    while terms.shape[-1] > 16:
        width = terms.shape[-1] // 16
        head = terms[..., : 16 * width].reshape((*terms.shape[:-1], 16, width)).sum(-2)
        terms = jnp.concatenate([head, terms[..., 16 * width :]], -1)
    return terms.sum(-1)


def differences(query: Query, blocks: PointBlocks, pivot, index):
    """`a_0 - a_k` `(B, K, d)`."""
    return pivot[:, None, :] - take_points(blocks.originals, index).astype(query.x.dtype)


def _groups(index):
    """Candidates `(B, K)` as `(K / HELD, B, HELD)`."""
    padded = jnp.pad(index, ((0, 0), (0, -index.shape[1] % HELD)))
    return padded.reshape(index.shape[0], -1, HELD).swapaxes(0, 1)


def by_groups(function, index):
    """`function(index)` `(B, K)` a few candidates at a time: many would fill the memory."""
    out = lax.map(jax.checkpoint(function), _groups(index))
    return out.swapaxes(0, 1).reshape(index.shape[0], -1)[:, : index.shape[1]]


def weighted(function, index, weight):
    """`sum_k weight_k function(index)_k` for `function(index)` `(B, K, v)`, likewise."""

    def total(pair):
        return (pair[1][..., None] * function(pair[0])).sum(1)

    if index.shape[1] <= FEW:
        return total((index, weight))
    return lax.map(jax.checkpoint(total), (_groups(index), _groups(weight))).sum(0)


def relative_logits(query: Query, blocks: PointBlocks, index, pivot, residual):
    """Equation (3) of `posterior_sums` without the weights, `(B, K)`; the differences, if few."""

    def distance(below):
        step = query.scale[:, None, None] * below
        sums = tree_sum(step * (step + 2 * residual[:, None, :]))
        # Divided last: a rounded factor in every term would not cancel between them.
        return -0.5 * (sums / query.std[:, None]) / query.std[:, None]

    if index.shape[1] <= FEW:
        # The barrier makes one gather of it; fused into each use it would be done again.
        below = lax.optimization_barrier(differences(query, blocks, pivot, index))
        return distance(below), below
    return by_groups(lambda i: distance(differences(query, blocks, pivot, i)), index), None
