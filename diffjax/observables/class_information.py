r"""When the class is decided: conditional entropy of the class, its exact rate, and profiles.

With the posterior ``P_k = p(y = k | x_t)``, the class denoisers ``D_k = E[a | x_t, k]`` and
``D = sum_k P_k D_k``,

    H(t) = E[-sum_k P_k log P_k],     dH/dt = g(t) E sum_k P_k |D_k - D|^2,                 (1)
    g = snr (1 + T snr),              which is e^{-2t} / Delta_t^2 at T = 1,                (2)

the mean squared guidance vector ``T E |F_y - F|^2`` in the coordinates of the OU process: no
difference of entropies is taken. The rate per unit of any other clock is ``dt/dclock`` times this
one, so that *where it peaks depends on the clock*.

Profiles of a class, over states ``x ~ p(x_t | k)``, with ``sum_k pi_k (.)_k = H``:

    H_k = E_k[-sum_j P_j log P_j]     the uncertainty met along paths of class k,           (3)
    L_k = E_k[-log P_k],     dL_k/dt = g E_k |D_k - D|^2     (exact; dH_k/dt is not),       (4)

of a pair, whose prior, states and posterior ``q = P_i / (P_i + P_j)`` are those of the two alone,

    H_ij = E_ij[h(q)],     dH_ij/dt = g E_ij[q (1 - q) |D_i - D_j|^2],                      (5)

and of a partition, in which ``P_g = sum P_k`` and ``D_g = sum P_k D_k / P_g`` over each group.
Averages over one class or pair are taken over ``x ~ P_t`` with weight ``P_k / pi_k``, or
``(P_i + P_j) / (pi_i + pi_j)``, so that one set of states serves all of them and the profiles add
up to the entropy sample by sample. Everything is in nats.

References:
    Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433); Guo, Shamai, Verdu 2005 (cs/0412108).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Classified, require
from diffjax.diffusion import Diffusion
from diffjax.observables.estimates import Estimate, merge_moments, moments
from diffjax.processes import Process

BATCH = 256
"""States whose class denoisers ``(batch, K, d)`` are held at once."""


class ClassInformation(NamedTuple):
    """Class information against time; nats, and nats per unit of OU time.

    Attributes:
        times: OU times ``(T,)``.
        entropy: ``H(y | x_t)``, eq. (1), ``(T,)``.
        rate: ``dH/dt`` without differencing, eq. (1), ``(T,)``.
        agreement: clone agreement ``E sum_k P_k^2``, ``(T,)``.
        class_entropy: ``H_k``, eq. (3), ``(T, K)``.
        class_loss: ``L_k``, eq. (4), ``(T, K)``.
        class_loss_rate: ``dL_k/dt``, eq. (4), ``(T, K)``.
    """

    times: Array
    entropy: Estimate
    rate: Estimate
    agreement: Estimate
    class_entropy: Estimate
    class_loss: Estimate
    class_loss_rate: Estimate


class PairInformation(NamedTuple):
    """Information between the classes of every pair, eq. (5): symmetric with zero diagonal.

    Attributes:
        times: OU times ``(T,)``.
        entropy: ``H_ij`` in nats, ``(T, K, K)``.
        rate: ``dH_ij/dt`` in nats per unit of OU time, ``(T, K, K)``.
    """

    times: Array
    entropy: Estimate
    rate: Estimate


def class_information(
    key: Array,
    diffusion: Diffusion,
    times: ArrayLike,
    *,
    samples: int,
    batch: int = BATCH,
    groups: ArrayLike | None = None,
) -> ClassInformation:
    """Entropy of the class, its rate and the profile of every class, on fresh ``x_t ~ P_t``.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``, so that times are independent.
        diffusion: data with classes and class weights: a Gaussian mixture, labelled points, ...
        times: OU times ``(T,)``, above 0.
        samples: states per time (static); rounded up to full batches.
        batch: states that are held at once (static).
        groups: group of every class, integers ``(K,)`` from 0; the groups take the place of the
            classes everywhere. By default every class is its own group.

    Raises:
        TypeError: if the data have no classes, or none whose weights are known.
        ValueError: if a time is not positive, a count below 1, or the groups are no partition.

    References:
        Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433).
    """
    times, blocks, batch = _checked(diffusion, times, samples, batch)
    values = Partial(_class_values, _member(groups, diffusion.data.classes))
    prior = class_weights(diffusion.data)
    parts = _over_times(diffusion, key, times, prior, values, blocks=blocks, batch=batch)
    return ClassInformation(times, *parts)


def pair_information(
    key: Array, diffusion: Diffusion, times: ArrayLike, *, samples: int, batch: int = BATCH
) -> PairInformation:
    """Entropy between the two classes of every pair and its rate, on fresh ``x_t ~ P_t``.

    Arguments, errors and source are those of `class_information`.
    """
    times, blocks, batch = _checked(diffusion, times, samples, batch)
    values, prior = Partial(_pair_values), class_weights(diffusion.data)
    parts = _over_times(diffusion, key, times, prior, values, blocks=blocks, batch=batch)
    return PairInformation(times, *parts)


def class_and_pair_information(
    key: Array, diffusion: Diffusion, times: ArrayLike, *, samples: int, batch: int = BATCH
) -> tuple[ClassInformation, PairInformation]:
    """Both of `class_information` and `pair_information` from one set of states, at one cost.

    Arguments, errors and source are those of `class_information`.
    """
    times, blocks, batch = _checked(diffusion, times, samples, batch)
    values, prior = Partial(_all_values), class_weights(diffusion.data)
    parts = _over_times(diffusion, key, times, prior, values, blocks=blocks, batch=batch)
    return ClassInformation(times, *parts[:-2]), PairInformation(times, *parts[-2:])


def in_bits(estimate: Estimate) -> Estimate:
    """An estimate in nats, in bits."""
    return Estimate(estimate.mean / np.log(2), estimate.error / np.log(2))


def rate_factor(process: Process, t: ArrayLike) -> Array:
    """``g(t)`` of eq. (2): rate per unit of OU time over the squared guidance of denoisers."""
    ratio = processes.snr(process, t)
    return ratio * (1 + jnp.asarray(process.temperature, ratio.dtype) * ratio)


def entropy_of(log_p: Array) -> Array:
    """``-sum_k P_k log P_k`` of finite log posteriors ``(..., K)``."""
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def class_separation(log_p: Array, means: Array) -> tuple[Array, Array]:
    """``|D_k - D|^2 (..., K)`` and ``D_k - D (..., K, d)`` of class denoisers ``means``."""
    p = jnp.exp(log_p).astype(means.dtype)[..., None]
    away = means - jnp.sum(p * means, axis=-2, keepdims=True)
    wide = away.astype(log_p.dtype)
    return jnp.sum(jnp.square(wide), axis=-1), wide


def floored(log_p: Array) -> Array:
    """Log posteriors in float32 or better, with a finite number for ``log 0``."""
    wide = log_p.astype(jnp.promote_types(log_p.dtype, jnp.float32))
    return jnp.maximum(wide, float(jnp.finfo(wide.dtype).min) / 8)


def _class_values(
    member: Array | None, log_p: Array, means: Array, prior: Array, gain: Array
) -> tuple:
    """Values whose means are the fields of `ClassInformation`, in their order."""
    log_p, means, prior = _grouped(log_p, means, prior, member)
    p, entropy = jnp.exp(log_p), entropy_of(log_p)
    separation = gain * class_separation(log_p, means)[0]
    share = p / prior
    return (
        entropy, jnp.sum(p * separation, -1), jnp.sum(jnp.square(p), -1),
        share * entropy[:, None], -share * log_p, share * separation,
    )  # fmt: skip


def _pair_values(log_p: Array, means: Array, prior: Array, gain: Array) -> tuple[Array, Array]:
    """Values ``(B, K, K)`` whose means are the fields of `PairInformation`."""
    _, away = class_separation(log_p, means)
    gram = jnp.einsum("bid,bjd->bij", away, away, precision="highest")
    square = jnp.diagonal(gram, axis1=-2, axis2=-1)
    # centred at D, so that the difference of squares loses little
    distance = jnp.maximum(square[:, :, None] + square[:, None] - 2 * gram, 0)
    first, second = log_p[:, :, None], log_p[:, None]
    total = jnp.logaddexp(first, second)
    off = 1 - jnp.eye(log_p.shape[-1], dtype=log_p.dtype)
    surprise = jnp.exp(first) * (total - first) + jnp.exp(second) * (total - second)
    weight = off / (prior[:, None] + prior)
    return weight * surprise, gain * weight * jnp.exp(first + second - total) * distance


def _all_values(log_p: Array, means: Array, prior: Array, gain: Array) -> tuple[Array, ...]:
    at = (log_p, means, prior, gain)
    return (*_class_values(None, *at), *_pair_values(*at))


def _grouped(log_p: Array, means: Array, prior: Array, member: Array | None) -> tuple:
    """Posterior, denoisers and prior of the groups whose classes ``member (G, K)`` lists."""
    if member is None:
        return log_p, means, prior
    inside = jnp.where(member, log_p[:, None], floored(jnp.full_like(log_p, -jnp.inf))[:, None])
    total = logsumexp(inside, axis=-1)
    share = jnp.where(member, jnp.exp(inside - total[..., None]), 0).astype(means.dtype)
    merged = jnp.einsum("bgk,bkd->bgd", share, means, precision="highest")
    return floored(total), merged, member.astype(prior.dtype) @ prior


@partial(jax.jit, static_argnames=("blocks", "batch"))
def _over_times(
    diffusion: Diffusion,
    key: Array,
    times: Array,
    prior: Array,
    values: Partial,
    *,
    blocks: int,
    batch: int,
) -> tuple[Estimate, ...]:
    """Mean and error of every value over ``blocks * batch`` fresh states at every time."""
    data, process = diffusion.data, diffusion.process

    def one_time(item: tuple[Array, Array]) -> Any:
        key_time, t = item

        def block(key_block: Array) -> Any:
            x = diffusion.sample(key_block, t, batch)
            at = t.astype(x.dtype)
            scale, std = process.scale(at), process.std(at)
            log_p = floored(data.class_log_posterior(x, scale, std))
            means = data.class_denoise(x, scale, std)
            gain = rate_factor(process, at).astype(log_p.dtype)
            found = values(log_p, means, prior.astype(log_p.dtype), gain)
            return tuple(moments(value) for value in found)

        parts = jax.lax.map(block, jax.random.split(key_time, blocks))
        return tuple(merge_moments(part) for part in parts)

    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(times.shape[0]))
    return jax.lax.map(one_time, (keys, times))


def class_weights(data: Any) -> Array:
    """Prior weights ``(K,)`` of the classes of ``data``.

    Raises:
        TypeError: if the data do not know them.
    """
    if not hasattr(data, "class_weights"):
        raise TypeError(
            f"{type(data).__name__} does not know the weights of its classes; give it a property "
            "class_weights of shape (K,)"
        )
    return data.class_weights


def _checked(
    diffusion: Diffusion, times: ArrayLike, samples: int, batch: int
) -> tuple[Array, int, int]:
    """Times, number of batches and their size."""
    if not isinstance(diffusion, Diffusion):
        raise TypeError(
            f"diffusion is a {type(diffusion).__name__}, expected a Diffusion(data, process)"
        )
    require(diffusion.data, Classified, "class_information")
    checks.noise_time(times, zero_allowed=False, why=" (class denoisers are told apart by noise)")
    batch = min(checks.count(batch, "batch"), checks.count(samples, "samples"))
    return jnp.atleast_1d(checks.floating(times, "times")), -(-samples // batch), batch


def _member(groups: ArrayLike | None, classes: int) -> Array | None:
    """Which classes each group holds, ``(G, K)``."""
    if groups is None:
        return None
    values = np.asarray(groups)
    fits = values.shape == (classes,) and values.dtype.kind in "iu"
    if not fits or set(values.tolist()) != set(range(int(values.max()) + 1)):
        raise ValueError(
            f"groups is {groups!r}, expected the group of each of {classes} classes, counted from "
            "0 without gaps"
        )
    return jnp.asarray(values == np.arange(values.max() + 1)[:, None])
