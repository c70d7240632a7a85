r"""The order of the examples, as a pure function of seed and step: there is nothing to save.

Example number ``g = step * batch + j`` of a run belongs to epoch ``g // n`` and is entry ``g % n``
of the permutation with key ``fold_in(key, epoch)``, so that every epoch visits each example once,
batches run on across epochs, and a resumed run sees the examples that it would have seen.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_LARGEST = 2**31  # example numbers within n steps are counted in 32 bits


def check_sizes(n: int, batch: int) -> None:
    """Raise ``ValueError`` for no examples, or sizes at which the counting would overflow."""
    if n < 1:
        raise ValueError("data holds no examples; expected (n, ...) with n >= 1")
    if n * batch >= _LARGEST:
        raise ValueError(f"n * batch = {n} * {batch} must stay below 2**31; take a smaller batch")


def batch_indices(key: Array, first: Array, steps: int, batch: int, n: int) -> Array:
    """Indices of the examples of steps ``first .. first + steps - 1``, ``(steps, batch)``.

    Args:
        key: typed PRNG key of the order.
        first: number of the first step, a scalar.
        steps: how many steps (static).
        batch: examples per step (static).
        n: number of examples (static).
    """
    # n steps are batch whole epochs: the remainder alone is multiplied out.
    whole, rest = jnp.divmod(jnp.asarray(first, jnp.int32), n)
    start = rest * batch
    epoch = whole * batch + start // n
    offset = start % n + jnp.arange(steps * batch, dtype=jnp.int32)
    epochs = (n - 1 + steps * batch - 1) // n + 1

    numbers = epoch + jnp.arange(epochs, dtype=jnp.int32)
    orders = jax.vmap(lambda number: epoch_order(key, number, n))(numbers)
    return orders[offset // n, offset % n].reshape(steps, batch)


def epoch_order(key: Array, epoch: Array | int, n: int) -> Array:
    """The permutation of an epoch, ``(n,)``: indices sorted by random 32-bit numbers."""
    numbers = jax.random.bits(jax.random.fold_in(key, epoch), (n,), jnp.uint32)
    _, order = jax.lax.sort((numbers, jnp.arange(n, dtype=jnp.int32)), num_keys=1)
    return order
