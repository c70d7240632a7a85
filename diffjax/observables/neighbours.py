r"""Nearest neighbours among many points, streamed, and exact also where distances vanish.

For states and points centred on the mean of the points, ``y`` and ``b_mu``, the half squared
distance is ``|y|^2 / 2 - z_mu`` with ``z_mu = y . b_mu - |b_mu|^2 / 2`` (1), a matrix product whose
rounding error ``~ eps (|y| + |b|)^2`` is larger than the distance itself between near-duplicates.
So (1) only selects candidates, block by block, and their distances are computed again by
direct differences. If a point outside the candidates could be nearer than the last reported one
within the rounding error of (1), the row is done again by differences with every point.

Memory is that of a block of rows times a block of points; no array ``(M, n)`` or ``(M, n, d)``
is made.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.posterior_points import (
    HELD,
    PointBlocks,
    Query,
    by_groups,
    logits,
    make_query,
    point_blocks,
    take_points,
    tree_sum,
)
from diffjax.posterior_stream import SAFETY, largest, scan_blocks

_NUMBERS = 1 << 22  # in the largest temporary array of a block of rows


class Neighbours(NamedTuple):
    """Nearest points of ``M`` rows.

    Attributes:
        distances: Euclidean, increasing, ``(M, count)``; infinite where there are fewer points.
        indices: of these points, ``(M, count)``; -1 where there are fewer points.
    """

    distances: Array
    indices: Array


def nearest_distances(
    samples: ArrayLike,
    train: ArrayLike,
    *,
    count: int = 2,
    exclude_own: bool = False,
    chunk: int | None = None,
) -> Neighbours:
    """Distances of every sample to its nearest points, and which points they are.

    The distance of a sample to an equal point is 0 exactly; of many equal points any may be named.
    Runs in the wider of both dtypes, float32 at least. Compiled once for each pair of shapes.

    Args:
        samples: ``(M, d)``.
        train: the points, ``(n, d)``.
        count: how many neighbours (static).
        exclude_own: leave out point i for sample i, by index and not by value; needs as many
            samples as points.
        chunk: points per block (static); chosen for the device by default.

    Raises:
        ValueError: if a set is empty, not ``(n, d)``, or not finite; if the dimensions differ; if
            ``exclude_own`` is asked for sets of different size; if ``count`` is below 1.
    """
    samples, train = point_set(samples, "samples"), point_set(train, "train")
    same_dimension(samples, train, "samples", "train")
    if exclude_own and len(samples) != len(train):
        raise ValueError(
            f"exclude_own compares sample i with point i, but there are {len(samples)} samples and "
            f"{len(train)} points; pass the same set twice"
        )
    blocks = point_blocks(train, jnp.zeros(len(train), train.dtype), chunk=chunk)
    return _nearest(blocks, samples, checks.count(count, "count"), exclude_own)


def within_reach(samples: Array, points: Array, reach: Array, chunk: int | None = None) -> Array:
    """Whether some point is within its own reach of a sample, ``|x - a_mu| <= reach_mu``; ``(M,)``.

    The points with the largest ``reach^2 - |x - a|^2`` are the candidates.
    """
    blocks = point_blocks(points, 0.5 * jnp.square(reach), chunk=chunk)
    return _within(blocks, samples, reach)


def point_set(value: ArrayLike, name: str) -> Array:
    """``value`` as finite points ``(n, d)`` of their own floating dtype.

    Raises:
        ValueError: if it is empty, has another shape, or is not finite.
    """
    shape = np.shape(value)
    if len(shape) != 2:
        fix = "; flatten images with reshape(len(images), -1)" if len(shape) > 2 else ""
        raise ValueError(f"{name} has shape {shape}, expected (n, d){fix}")
    if 0 in shape:
        raise ValueError(f"{name} has shape {shape}: the set is empty")
    return checks.floating(value, name)


def same_dimension(first: Array, second: Array, first_name: str, second_name: str) -> None:
    """Raise ``ValueError`` unless two sets of points have one dimension."""
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"{first_name} has dimension {first.shape[1]} and {second_name} {second.shape[1]}; "
            "distances need points of one space"
        )


@partial(jax.jit, static_argnames=("count", "exclude_own"))
def _nearest(blocks: PointBlocks, x: Array, count: int, exclude_own: bool) -> Neighbours:
    own = jnp.arange(x.shape[0], dtype=jnp.int32) if exclude_own else None

    def rows(x: Array, own: Array | None) -> Neighbours:
        query, half, index = _candidates(blocks, x, own, count + HELD)
        squared = jnp.where(half < jnp.inf, _squares(query.x, blocks, index), jnp.inf)
        found = _sorted(squared, index, count)
        doubtful = _doubtful(query, half[:, -1], found.distances[:, -1])
        return lax.cond(doubtful.any(), _again, lambda *a: a[-1], blocks, query, doubtful, found)

    squared, index = _by_rows(rows, blocks, x, own)
    return Neighbours(jnp.sqrt(squared), index)


@jax.jit
def _within(blocks: PointBlocks, x: Array, reach: Array) -> Array:
    def rows(x: Array, own: Array | None) -> Array:
        query, half, index = _candidates(blocks, x, own, HELD)
        squared = _squares(query.x, blocks, index)
        radius = jnp.take(reach, index, mode="clip").astype(squared.dtype)
        return jnp.any((jnp.sqrt(squared) <= radius) & (half < jnp.inf), axis=1)

    return _by_rows(rows, blocks, x, None)


def _by_rows(function, blocks: PointBlocks, x: Array, own: Array | None):
    """``function(x, own)`` for a few rows at a time."""
    total, dim = x.shape
    length = min(total, max(16, _NUMBERS // max(blocks.log_weights.shape[1], HELD * dim)))
    spare = -total % length

    def cut(rows: Array) -> Array:
        padded = jnp.pad(rows, ((0, spare),) + ((0, 0),) * (rows.ndim - 1))
        return padded.reshape(-1, length, *rows.shape[1:])

    out = lax.map(lambda item: function(*item), jax.tree.map(cut, (x, own)))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:total], out)


def _candidates(
    blocks: PointBlocks, x: Array, own: Array | None, held: int
) -> tuple[Query, Array, Array]:
    """The ``held`` smallest half squares of (1), increasing, and their points, ``(B, held)``.

    They are ranked in float32, of which a rounding is relative to the distance itself; XLA sorts
    whole rows of any other type.
    """
    dtype = jnp.promote_types(jnp.promote_types(x.dtype, blocks.centre.dtype), jnp.float32)
    one = jnp.ones(x.shape[:1], dtype)
    query = make_query(blocks, x.astype(dtype), one, one, own)
    centred = 0.5 * jnp.sum(jnp.square(query.centred), -1, keepdims=True)
    most = float(jnp.finfo(jnp.float32).max)
    start = (
        jnp.full((x.shape[0], held), -jnp.inf, jnp.float32),
        jnp.zeros((x.shape[0], held), jnp.int32),
    )

    def body(carry, block):
        z = lax.stop_gradient(logits(query, block, "highest"))
        near = jnp.where(z > -jnp.inf, jnp.maximum(z - centred, -most), -jnp.inf)
        here = jnp.broadcast_to(block.start + jnp.arange(z.shape[1], dtype=jnp.int32), z.shape)
        near = jnp.concatenate([carry[0], near.astype(jnp.float32)], 1)
        near, at = largest(near, held)
        index = jnp.take_along_axis(jnp.concatenate([carry[1], here], 1), at, 1)
        return (near, index), None

    (near, index), _ = scan_blocks(body, start, blocks)
    return query, -near, index


def _squares(x: Array, blocks: PointBlocks, index: Array) -> Array:
    """Squared distances ``(B, K)`` by direct differences."""

    def group(index: Array) -> Array:
        points = take_points(blocks.originals, index).astype(x.dtype)
        return tree_sum(jnp.square(x[:, None, :] - points))

    return by_groups(group, index)


def _sorted(squared: Array, index: Array, count: int) -> Neighbours:
    """The ``count`` smallest of the last axis, still squared."""
    index = jnp.where(squared < jnp.inf, index, -1)
    squared, index = lax.sort((squared, index), num_keys=2)
    return Neighbours(squared[..., :count], index[..., :count])


def _doubtful(query: Query, half: Array, last: Array) -> Array:
    """Whether a point that is no candidate may be nearer than the last one found, ``(B,)``.

    ``half`` is the largest half square of the candidates, ``last`` the exact square of the last.
    """
    eps, coarse = (float(jnp.finfo(kind).eps) for kind in (last.dtype, jnp.float32))
    squares = jnp.sum(jnp.square(query.centred), -1)
    # A point as near as the last one has a norm of at most this.
    norm = jnp.sqrt(squares) + jnp.sqrt(last)
    hidden = (1 - coarse) * half.astype(last.dtype) - 2 * SAFETY * eps * jnp.square(norm)
    # At infinity every point is a candidate, and nothing is nearer than 0.
    return (half < jnp.inf) & (last > 0) & ~(hidden >= 0.5 * last)


def _again(blocks: PointBlocks, query: Query, doubtful: Array, found: Neighbours) -> Neighbours:
    """Doubtful rows by differences with all points."""
    own = jnp.full(doubtful.shape, -1, jnp.int32) if query.own is None else query.own

    def row(item):
        x, own, doubt, known = item
        return lax.cond(doubt, _all_differences, lambda *a: a[-1], blocks, x, own, known)

    return lax.map(row, (query.x, own, doubtful, found))


def _all_differences(blocks: PointBlocks, x: Array, own: Array, known: Neighbours) -> Neighbours:
    count, length = blocks.log_weights.shape
    starts = jnp.arange(count, dtype=jnp.int32) * length

    def body(carry: Neighbours, item) -> tuple[Neighbours, None]:
        points, log_weights, start = item
        index = start + jnp.arange(length, dtype=jnp.int32)
        squared = tree_sum(jnp.square(x - points.astype(x.dtype)))
        squared = jnp.where((log_weights > -jnp.inf) & (index != own), squared, jnp.inf)
        squared = jnp.concatenate([carry.distances, squared])
        index = jnp.concatenate([carry.indices, index])
        return _sorted(squared, index, carry.indices.size), None

    start = Neighbours(jnp.full_like(known.distances, jnp.inf), jnp.full_like(known.indices, -1))
    return lax.scan(body, start, (blocks.originals, blocks.log_weights, starts))[0]
