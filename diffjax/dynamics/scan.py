"""The one loop over a time grid: scan, checkpointed gradients, and chunks with progress.

A step is ``step(key, x, t, t_next) -> (x_next, info)``, where ``x`` may be any pytree. The key of
step ``i`` is ``fold_in(key, i)`` with ``i`` counted on the whole grid, so that a grid that is run
in chunks, or resumed, sees the same noise. Nothing is stored along the way except what ``observe``
returns.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

Step = Callable[[Array, Any, Array, Array], tuple[Any, Any]]
Observe = Callable[..., Any]


def run_steps(
    step: Step,
    key: Array,
    x: Any,
    times: Array,
    *,
    observe: Observe | None = None,
    first: int | Array = 0,
    remat: bool = False,
) -> tuple[Any, Any]:
    """Apply ``step`` along consecutive pairs of ``times``.

    Args:
        step: the transition; see the module's docstring.
        key: typed PRNG key of the whole grid.
        x: state at ``times[0]``, ``(..., d)`` or any pytree.
        times: grid ``(S + 1,)``.
        observe: ``observe(x, t)`` is evaluated after every step; the results are stacked.
        first: index of the first step on the whole grid (for runs in chunks).
        remat: recompute inside segments of about ``sqrt(S)`` steps when differentiated, so that
            reverse-mode memory grows like ``2 sqrt(S)`` states instead of ``S`` times everything
            a step holds.

    Returns:
        The final state, and the stacked observations with leading axis S (None without
        ``observe``).
    """
    steps = times.shape[0] - 1
    index = first + jnp.arange(steps)
    grid = (index, times[:-1], times[1:])

    def body(x: Any, item: tuple[Array, Array, Array]) -> tuple[Any, Any]:
        i, t, t_next = item
        x, _ = step(jax.random.fold_in(key, i), x, t, t_next)
        return x, None if observe is None else observe(x, t_next)

    if not remat:
        return jax.lax.scan(body, x, grid)
    return _segmented(body, x, grid, steps)


def _segmented(body: Callable, x: Any, grid: Any, steps: int) -> tuple[Any, Any]:
    """A scan over checkpointed scans of about ``sqrt(steps)`` steps, and the remainder."""
    length = max(1, math.isqrt(steps))
    whole = steps // length * length
    segments = jax.tree.map(lambda g: g[:whole].reshape(-1, length, *g.shape[1:]), grid)
    rest = jax.tree.map(lambda g: g[whole:], grid)

    @jax.checkpoint
    def segment(x: Any, items: Any) -> tuple[Any, Any]:
        return jax.lax.scan(jax.checkpoint(body), x, items)

    x, nested = jax.lax.scan(segment, x, segments)
    x, tail = jax.lax.scan(jax.checkpoint(body), x, rest)
    flat = jax.tree.map(lambda o: o.reshape(whole, *o.shape[2:]), nested)
    return x, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), flat, tail)


def chunk_bounds(steps: int, chunks: int) -> list[tuple[int, int]]:
    """Up to ``chunks`` ranges of steps of at most two lengths (so at most two compilations)."""
    length = -(-steps // max(1, min(chunks, steps)))
    return [(start, min(start + length, steps)) for start in range(0, steps, length)]
