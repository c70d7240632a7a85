r"""Channels on strings of symbols: what is seen of a leaf, and the evidence that it leaves.

Every channel acts on each leaf alone; belief propagation needs only the evidence
``log P(observed | c)`` of the true symbol c out of v, up to a constant:

    uniform corruption  a symbol is resampled with probability eps:
                        log[(1 - eps) delta(c, observed) + eps / v]                        (1)
    masking             a symbol is erased with probability eps:
                        log delta(c, observed), or 0 where it is masked                    (2)
    Gaussian            ``x = scale e_c + std z`` of the one-hot vector ``e_c``:
                        scale x_c / std^2 = x_c e^-t / Delta_t                             (3)
    eps process         (1) with the true symbol in place of the observed one: a simplified
                        process of the theory, which no observation produces               (4)

References:
    Austin, Johnson, Ho, Tarlow, van den Berg 2021 (2107.03006), for (1) and (2); Sclocchi, Favero,
    Wyart 2024 (2402.16991), for (3) and (4).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from diffjax import checks

MASKED = -1
"""The symbol that stands for a masked leaf."""


def corrupt_uniformly(key: Array, leaves: Array, symbols: int, epsilon: ArrayLike) -> Array:
    """Strings ``(..., n)`` whose leaves are resampled uniformly with probability ``epsilon``.

    A resampled leaf can get its own symbol back. ``epsilon`` broadcasts against the batch.
    """
    _probability(epsilon)
    key_where, key_what = jax.random.split(key)
    hit = _happens(key_where, leaves.shape, epsilon)
    return jnp.where(hit, jax.random.randint(key_what, leaves.shape, 0, symbols), leaves)


def corrupt_by_masking(key: Array, leaves: Array, epsilon: ArrayLike) -> Array:
    """Strings ``(..., n)`` whose leaves are `MASKED` with probability ``epsilon``.

    Unsigned symbols, which have no room for `MASKED`, become int32.
    """
    _probability(epsilon)
    leaves = _signed(leaves)
    return jnp.where(_happens(key, leaves.shape, epsilon), MASKED, leaves)


def uniform_evidence(
    observed: Array, symbols: int, epsilon: ArrayLike, dtype: DTypeLike | None = None
) -> Array:
    """Evidence (1) of strings ``(..., n)``, ``(..., n, v)``; ``-inf`` appears at ``epsilon = 0``.

    Args:
        observed: integer symbols of the leaves.
        symbols: number of symbols v.
        epsilon: probability of resampling; broadcasts against the batch ``(...)``.
        dtype: of the result; that of ``epsilon`` if None.

    Raises:
        ValueError: for concrete symbols outside of 0..v - 1, or an epsilon outside of [0, 1].
    """
    _probability(epsilon)
    _in_alphabet(observed, symbols, lowest=0)
    epsilon = _broadcast(epsilon, dtype)[..., None]
    observed = _wide(observed)
    seen = observed[..., None] == jnp.arange(symbols, dtype=observed.dtype)
    return jnp.log(jnp.where(seen, 1 - epsilon + epsilon / symbols, epsilon / symbols))


def epsilon_process_evidence(
    leaves: Array, symbols: int, epsilon: ArrayLike, dtype: DTypeLike | None = None
) -> Array:
    """Evidence (4) of true leaves ``(..., n)``, ``(..., n, v)``; arguments as `uniform_evidence`.

    The evidence always favours the truth, which no channel that hides it can do: thresholds of
    this process are not those of a real channel.
    """
    return uniform_evidence(leaves, symbols, epsilon, dtype)


def masking_evidence(observed: Array, symbols: int, dtype: DTypeLike | None = None) -> Array:
    """Evidence (2) of strings with masked leaves ``(..., n)``, ``(..., n, v)``, with ``-inf``.

    Raises:
        ValueError: for concrete symbols that are neither `MASKED` nor in 0..v - 1.
    """
    _in_alphabet(observed, symbols, lowest=MASKED)
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    seen = _wide(observed)[..., None]
    possible = (seen == jnp.arange(symbols, dtype=seen.dtype)) | (seen == MASKED)
    return jnp.where(possible, jnp.zeros((), dtype), -jnp.inf)


def gaussian_evidence(x: Array, symbols: int, scale: ArrayLike, std: ArrayLike) -> Array:
    """Evidence (3) of noised one-hot strings ``x (..., n v)``, ``(..., n, v)``.

    In float32 or better; ``scale`` and ``std`` broadcast against the batch.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    gain = jnp.asarray(scale, wide.dtype) / jnp.square(jnp.asarray(std, wide.dtype))
    logits = gain[..., None] * wide
    return logits.reshape(*logits.shape[:-1], -1, symbols)


def one_hot_event(leaves: Array, symbols: int, dtype: DTypeLike | None = None) -> Array:
    """Strings ``(..., n)`` as events ``(..., n v)``, one-hot and flattened leaf by leaf."""
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    return jax.nn.one_hot(leaves, symbols, dtype=dtype).reshape(*leaves.shape[:-1], -1)


def string_of_event(x: Array, symbols: int) -> Array:
    """The likeliest symbol of every leaf of events ``(..., n v)``, ``(..., n)``."""
    return jnp.argmax(x.reshape(*x.shape[:-1], -1, symbols), axis=-1)


def _signed(leaves: Array) -> Array:
    """Symbols in a signed dtype, which has room for `MASKED`."""
    unsigned = jnp.issubdtype(leaves.dtype, jnp.unsignedinteger)
    return leaves.astype(jnp.int32) if unsigned else leaves


def _wide(leaves: Array) -> Array:
    """Symbols in a dtype that holds `MASKED` and every symbol."""
    return leaves.astype(jnp.int32) if leaves.dtype.itemsize < 4 else _signed(leaves)


def _happens(key: Array, shape: tuple[int, ...], epsilon: ArrayLike) -> Array:
    probability = _broadcast(epsilon, None)
    return jax.random.uniform(key, shape, probability.dtype) < probability


def _broadcast(epsilon: ArrayLike, dtype: DTypeLike | None) -> Array:
    """``epsilon`` in a floating dtype with a trailing axis for the leaves."""
    if dtype is None:
        dtype = jnp.result_type(epsilon)
        if not jnp.issubdtype(dtype, jnp.floating):
            dtype = jnp.result_type(float)
    return jnp.asarray(epsilon, dtype)[..., None]


def _in_alphabet(observed: Array, symbols: int, *, lowest: int) -> None:
    """Raise ``ValueError`` unless every concrete symbol lies between ``lowest`` and v - 1."""
    if not checks.is_concrete(observed) or np.size(observed) == 0:
        return
    values = np.asarray(observed)
    if values.min() < lowest or values.max() >= symbols:
        raise ValueError(
            f"symbols must lie in {lowest}..{symbols - 1}, but go from {values.min()} to "
            f"{values.max()}; leaves and the number of symbols belong to different grammars"
        )


def _probability(epsilon: ArrayLike) -> None:
    """Raise ``ValueError`` unless every concrete value lies in [0, 1]."""
    if not checks.is_concrete(epsilon):
        return
    values = np.asarray(epsilon)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"epsilon must be a probability in [0, 1], but is {epsilon!r}")
