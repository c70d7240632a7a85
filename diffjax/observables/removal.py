r"""How well a class was removed: what is left of it, what became of the others, and at what price.

With labels of M generated samples, prior weights ``pi_k`` and a forbidden class c:

    forbidden fraction   f_c,   the share of samples with label c                          (1)
    class balance        KL = sum_{k != c} q_k log(q_k / f_k),  q_k = pi_k / (1 - pi_c)     (2)
    distance             mean distance of a sample to the nearest centre                   (3)

The fractions ``f_k`` of (2) are taken over all samples, so that a leak f of the forbidden class
alone costs ``-log(1 - f)``; a class without samples counts as ``1/M``. (3) is to be compared with
its value for data of the kept classes.

References:
    Koulischer, Deleu, Raya, Demeester, Ambrogioni 2024 (2410.14398) for the setting.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.observables.estimates import Estimate, mean_and_error


def forbidden_fraction(labels: Array, c: int) -> Estimate:
    """Share (1) of samples with the forbidden label, and its binomial standard error.

    Args:
        labels: class index of every sample, ``(M,)``.
        c: index of the forbidden class.
    """
    share = jnp.mean((jnp.asarray(labels) == c).astype(jnp.result_type(float)))
    return Estimate(share, jnp.sqrt(share * (1 - share) / labels.shape[0]))


def class_balance(labels: Array, weights: ArrayLike, c: int) -> Estimate:
    """Divergence (2) of the obtained from the wanted classes in nats, and its standard error.

    The error is that of a multinomial sample to first order,
    ``Var = (sum_k q_k^2 / f_k - 1) / M``; it does not hold where a class is empty.

    Args:
        labels: class index of every sample, ``(M,)``.
        weights: prior weight ``pi_k`` of every class, ``(K,)``, of sum one.
        c: index of the forbidden class.

    Raises:
        ValueError: if the weights are no ``(K,)`` vector, or all weight is on the forbidden class.
    """
    weights = checks.floating(weights, "weights")
    if weights.ndim != 1 or not 0 <= c < weights.shape[0]:
        raise ValueError(f"weights has shape {weights.shape}, expected (K,) with class {c} in it")
    wanted = jnp.where(jnp.arange(weights.shape[0]) == c, 0, weights)
    checks.positive(jnp.sum(wanted), "sum of the weights of the kept classes")
    wanted = wanted / jnp.sum(wanted)
    count = labels.shape[0]
    one_hot = jnp.asarray(labels)[:, None] == jnp.arange(weights.shape[0])
    shares = jnp.maximum(jnp.mean(one_hot.astype(wanted.dtype), axis=0), 1 / count)
    safe = jnp.where(wanted > 0, wanted, 1)
    divergence = jnp.sum(jnp.where(wanted > 0, wanted * jnp.log(safe / shares), 0))
    variance = (jnp.sum(jnp.square(wanted) / shares) - 1) / count
    return Estimate(divergence, jnp.sqrt(jnp.maximum(variance, 0)))


def centre_distance(x: Array, centres: ArrayLike) -> Estimate:
    """Mean Euclidean distance (3) to the nearest of a few centres, and its standard error.

    For many reference points (images) use `diffjax.observables.neighbours`.

    Args:
        x: samples ``(M, d)``.
        centres: ``(K, d)``.

    Raises:
        ValueError: if the centres have another dimension than the samples.
    """
    centres = jnp.asarray(centres, x.dtype)
    checks.event_size(centres, x.shape[-1], "centres")
    # one centre at a time: never an array (M, K, d)
    nearest = jnp.full(x.shape[:-1], jnp.inf, x.dtype)
    for centre in centres:
        nearest = jnp.minimum(nearest, jnp.sum(jnp.square(x - centre), axis=-1))
    return mean_and_error(jnp.sqrt(nearest))


def tracking_error(
    tracked: Array, exact: Array, *, p_min: ArrayLike = 0.0, p_max: ArrayLike = 1.0
) -> Array:
    """Root mean square over samples of tracked minus exact posterior, both clipped.

    Both belong to the same states at the same time: the tracked probability *before* a step with
    the posterior of the state before that step, not of the state after it.

    Args:
        tracked: ``(..., M)``.
        exact: ``(..., M)``.
        p_min: lower clip.
        p_max: upper clip.

    Returns:
        Shape ``(...)``.
    """
    gap = jnp.clip(tracked, p_min, p_max) - jnp.clip(exact, p_min, p_max)
    return jnp.sqrt(jnp.mean(jnp.square(gap), axis=-1))
