r"""When the class is decided: conditional entropy of the class and its rate, in one dimension.

A class :math:`y` of weight :math:`\pi_k` has the law :math:`N(m_k, \sigma_k^2)` at time 0 and
:math:`p_k = N(e^{-t}m_k, v_k)`, :math:`v_k = \Delta_t + e^{-2t}\sigma_k^2`,
:math:`\Delta_t = 1 - e^{-2t}`, at time t of the Ornstein-Uhlenbeck process (T = 1; other
temperatures: divide means by :math:`\sqrt T` and variances by T). With the posterior
:math:`P_k(x)`, the score :math:`F_k` of a class and :math:`F = \sum_k P_k F_k`,

.. math:: H(t) = E\Big[-\sum_k P_k \log P_k\Big], \qquad
   \frac{dH}{dt} = E \sum_k P_k |F_k - F|^2. \tag{1}

The rate is the mean squared guidance vector. It is half the rate at which a score that is told the
class explains more than one that is not (I-MMSE), and needs no difference of entropies.

*Profiles* over :math:`x \sim p_k`, both with :math:`\sum_k \pi_k (\cdot)_k = H`:

.. math:: H_k = E_k\Big[-\sum_j P_j \log P_j\Big], \quad
   L_k = E_k[-\log P_k] = -\log\pi_k - \mathrm{KL}(p_k \| P_t), \quad
   \frac{dL_k}{dt} = E_k |F_k - F|^2. \tag{2}

The last identity is exact; :math:`dH_k/dt` is not an expectation of this kind.

*Partitions* merge classes, :math:`P_g = \sum_{k\in g} P_k`,
:math:`F_g = \sum_{k\in g} P_k F_k / P_g` (3). A *pair* keeps two classes with their relative
weights.

Rates on other clocks, their peaks, and bounds by the clone agreement :math:`\phi = E\sum_k P_k^2`
are in `theory.class_clocks`; their names are also found here. *High noise*:
:math:`H(y) - H(t) \simeq \frac12 \mathrm{snr}(t)\, \mathrm{Var}(m_y)` (4).

Expectations are sums over the states of `theory.mixture_classes`. All entropies are in nats.

Sources: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433); Guo, Shamai, Verdu 2005
(cs/0412108).
"""

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, xlogy
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.class_clocks import (
    Peak,
    agreement_lower_bound,
    binary_entropy_bounds,
    fano_bound,
    log_sigma_peak,
    peak,
    rate_per_ddpm_index,
    rate_per_log_sigma,
    rate_per_vp_index,
    vp_index,
    vp_index_peak,
)
from theory.mixture_classes import (
    class_entropies_kernel,
    class_states,
    entropy_kernel,
    mixture_arguments,
    rate_kernel,
    squared_guidance,
)

__all__ = [
    "Peak",
    "agreement_lower_bound",
    "binary_entropy_bounds",
    "class_entropies",
    "class_loss_rates",
    "class_losses",
    "clone_agreement",
    "entropy",
    "entropy_rate",
    "fano_bound",
    "high_noise_entropy",
    "log_sigma_peak",
    "pair_entropy",
    "pair_entropy_rate",
    "partition_entropy",
    "partition_entropy_rate",
    "peak",
    "rate_per_ddpm_index",
    "rate_per_log_sigma",
    "rate_per_vp_index",
    "vp_index",
    "vp_index_peak",
]

_ARGUMENTS = "(),(k),(k),(k)"


def entropy(t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Array:
    r"""Entropy of the class given the noised state, :math:`H(y|x_t)`, in nats; (1).

    Args:
        t: OU time, shape (...).
        weights: prior weights of the classes, sum one, shape (..., K).
        means: centres of the classes, shape (..., K).
        variances: variances of the classes (never standard deviations), positive at t = 0.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433).
    """
    return _entropy(*mixture_arguments(t, weights, means, variances))


def entropy_rate(t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Array:
    r"""Rate :math:`dH/dt = E\sum_k P_k|F_k - F|^2` in nats per unit of OU time; (1).

    Arguments, errors and source are those of `entropy`; needs positive variances at t = 0.
    """
    return _rate(*mixture_arguments(t, weights, means, variances))


def class_entropies(
    t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike
) -> Array:
    r"""Uncertainty met along paths of each class, :math:`H_k`, shape (..., K), in nats; (2).

    Arguments, errors and source are those of `entropy`.
    """
    return _class_entropies(*mixture_arguments(t, weights, means, variances))


def class_losses(t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Array:
    r"""Mean surprise :math:`L_k = E_k[-\log P_k]` of each class, shape (..., K), in nats; (2).

    Arguments, errors and source are those of `entropy`.
    """
    return _class_losses(*mixture_arguments(t, weights, means, variances))


def class_loss_rates(
    t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike
) -> Array:
    r"""Rates :math:`dL_k/dt = E_k|F_k - F|^2`, shape (..., K), nats per unit of OU time; (2).

    Arguments, errors and source are those of `entropy`.
    """
    return _class_loss_rates(*mixture_arguments(t, weights, means, variances))


def clone_agreement(
    t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike
) -> Array:
    r"""Chance :math:`\phi = E\sum_k P_k^2` that two clones from one state agree in class.

    Arguments, errors and source are those of `entropy`.
    """
    return _agreement(*mixture_arguments(t, weights, means, variances))


def pair_entropy(
    t: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    pair: tuple[int, int],
) -> Array:
    r"""Entropy between two classes: the mixture is reduced to them; nats.

    Args:
        t: as in `entropy`.
        weights: as in `entropy`.
        means: as in `entropy`.
        variances: as in `entropy`.
        pair: indices of the two classes.

    Raises:
        ValueError: for a pair that is no pair of classes; else as `entropy`.

    Source: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433).
    """
    return _entropy(*_reduced(t, weights, means, variances, pair))


def pair_entropy_rate(
    t: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    pair: tuple[int, int],
) -> Array:
    r"""Rate of `pair_entropy` in nats per unit of OU time, with the same arguments."""
    return _rate(*_reduced(t, weights, means, variances, pair))


def partition_entropy(
    t: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    groups: ArrayLike,
) -> Array:
    r"""Entropy of the group of classes given the state, in nats; (3).

    Args:
        t: as in `entropy`.
        weights: as in `entropy`.
        means: as in `entropy`.
        variances: as in `entropy`.
        groups: group of each class, integers from 0 to K - 1, shape (K,).

    Raises:
        ValueError: for groups of another length or out of range; else as `entropy`.

    Source: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433).
    """
    arguments = mixture_arguments(t, weights, means, variances)
    return _partition_entropy(*arguments, _groups(groups, arguments[1]))


def partition_entropy_rate(
    t: ArrayLike,
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    groups: ArrayLike,
) -> Array:
    r"""Rate of `partition_entropy` in nats per unit of OU time, with the same arguments; (3)."""
    arguments = mixture_arguments(t, weights, means, variances)
    return _partition_rate(*arguments, _groups(groups, arguments[1]))


def high_noise_entropy(t: ArrayLike, weights: ArrayLike, means: ArrayLike) -> Array:
    r"""Asymptotic law :math:`H(t) \simeq H(y) - \frac12\mathrm{snr}(t)\,\mathrm{Var}(m_y)`; (4).

    Args:
        t: OU time above 0, shape (...).
        weights: as in `entropy`.
        means: as in `entropy`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108).
    """
    checks.require_time(t)
    checks.require_weights(weights)
    t, weights, means = floats(t, weights, means)
    centre = jnp.sum(weights * means, -1, keepdims=True)
    spread = jnp.sum(weights * (means - centre) ** 2, -1)
    return -jnp.sum(xlogy(weights, weights), -1) - 0.5 * spread / jnp.expm1(2 * t)


def _class_losses_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    log_p, _, nodes = class_states(t, weights, means, variances)
    return -jnp.einsum("knk,n->k", log_p, nodes)


def _class_loss_rates_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    log_p, scores, nodes = class_states(t, weights, means, variances)
    return jnp.einsum("knk,n->k", squared_guidance(log_p, scores), nodes)


def _agreement_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    log_p, _, nodes = class_states(t, weights, means, variances)
    return weights @ (jnp.sum(jnp.exp(2 * log_p), -1) @ nodes)


def _merge_classes(log_p: Array, scores: Array, groups: Array) -> tuple[Array, Array]:
    """Log posteriors and scores of K groups, (3); those of empty groups are -inf and 0."""
    member = groups == jnp.arange(log_p.shape[-1])[:, None]
    exists = jnp.any(member, axis=-1)
    inside = jnp.where(member, log_p[..., None, :], -jnp.inf)
    # no derivative may pass through the logarithm of an empty sum
    total = logsumexp(jnp.where(exists[:, None], inside, 0), axis=-1)
    share = jnp.where(member, jnp.exp(log_p[..., None, :] - total[..., None]), 0)
    mean = jnp.sum(share * scores[..., None, :], -1)
    return jnp.where(exists, total, -jnp.inf), mean


def _partition_entropy_kernel(
    t: Array, weights: Array, means: Array, variances: Array, groups: Array
) -> Array:
    log_p, scores, nodes = class_states(t, weights, means, variances)
    log_p, _ = _merge_classes(log_p, scores, groups)
    p = jnp.exp(log_p)
    surprise = -jnp.sum(p * jnp.where(p > 0, log_p, 0), -1)
    return weights @ (surprise @ nodes)


def _partition_rate_kernel(
    t: Array, weights: Array, means: Array, variances: Array, groups: Array
) -> Array:
    log_p, scores, nodes = class_states(t, weights, means, variances)
    log_p, scores = _merge_classes(log_p, scores, groups)
    return weights @ (jnp.sum(jnp.exp(log_p) * squared_guidance(log_p, scores), -1) @ nodes)


def _reduced(t, weights, means, variances, pair: tuple[int, int]) -> tuple:
    """The mixture of the two classes of a pair."""
    t, weights, means, variances = mixture_arguments(t, weights, means, variances)
    chosen = np.asarray(pair)
    valid = chosen.shape == (2,) and chosen[0] != chosen[1]
    if not valid or chosen.min() < 0 or chosen.max() >= weights.shape[-1]:
        raise ValueError(f"pair is {pair}, expected two of the classes 0..{weights.shape[-1] - 1}")
    kept = weights[..., chosen]
    kept = kept / jnp.sum(kept, -1, keepdims=True)
    return t, kept, means[..., chosen], variances[..., chosen]


def _groups(groups: ArrayLike, weights: Array) -> Array:
    values, count = np.asarray(groups), weights.shape[-1]
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise ValueError(f"groups is {groups!r}, expected {count} integers, one for each class")
    if values.min() < 0 or values.max() >= count:
        raise ValueError(f"groups is {groups!r}, expected numbers from 0 to {count - 1}")
    return jnp.asarray(values)


_entropy = elementwise(entropy_kernel, f"{_ARGUMENTS}->()")
_rate = elementwise(rate_kernel, f"{_ARGUMENTS}->()")
_agreement = elementwise(_agreement_kernel, f"{_ARGUMENTS}->()")
_class_entropies = elementwise(class_entropies_kernel, f"{_ARGUMENTS}->(k)")
_class_losses = elementwise(_class_losses_kernel, f"{_ARGUMENTS}->(k)")
_class_loss_rates = elementwise(_class_loss_rates_kernel, f"{_ARGUMENTS}->(k)")
_partition_entropy = elementwise(_partition_entropy_kernel, f"{_ARGUMENTS},(k)->()")
_partition_rate = elementwise(_partition_rate_kernel, f"{_ARGUMENTS},(k)->()")
