r"""States of a one-dimensional Gaussian mixture with their class posteriors, by quadrature.

A class k of weight :math:`\pi_k` is :math:`p_k = N(e^{-t}m_k, v_k)` at OU time t, with
:math:`v_k = \Delta_t + e^{-2t}\sigma_k^2`. Expectations are trapezoid sums over nodes of every
class,

.. math:: E f = \sum_k \pi_k E_z f(e^{-t}m_k + \sqrt{v_k} z). \tag{1}

The 1601 nodes resolve classes whose standard deviations differ up to twenty-fold.

Source: Trefethen and Weideman, SIAM Review 56, 385 (2014), for the rule.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.quadrature import gaussian_nodes

_NODES = 1601  # resolves standard deviations that differ twenty-fold


def class_states(
    t: Array, weights: Array, means: Array, variances: Array
) -> tuple[Array, Array, Array]:
    """Log posteriors (K, N, K), scores (K, N, K) at the nodes of every class, and node weights."""
    z, nodes = gaussian_nodes(_NODES, t.dtype)
    centre = jnp.exp(-t) * means
    spread = -jnp.expm1(-2 * t) + jnp.exp(-2 * t) * variances
    x = centre[:, None] + jnp.sqrt(spread)[:, None] * z
    scaled = (x[..., None] - centre) / spread
    logits = jnp.log(weights) - 0.5 * scaled * (x[..., None] - centre) - 0.5 * jnp.log(spread)
    return jax.nn.log_softmax(logits, axis=-1), -scaled, nodes


def posterior_entropy(log_p: Array) -> Array:
    """``-sum_k P_k log P_k``, (...)."""
    return -jnp.sum(jnp.exp(log_p) * log_p, -1)


def squared_guidance(log_p: Array, scores: Array) -> Array:
    """``|F_k - F|^2`` of every class, (..., K)."""
    mean = jnp.sum(jnp.exp(log_p) * scores, -1, keepdims=True)
    return (scores - mean) ** 2


def entropy_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    """Mean entropy of the posterior over the mixture, ()."""
    return weights @ class_entropies_kernel(t, weights, means, variances)


def class_entropies_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    """Mean entropy of the posterior over every class, (K,)."""
    log_p, _, nodes = class_states(t, weights, means, variances)
    return posterior_entropy(log_p) @ nodes


def rate_kernel(t: Array, weights: Array, means: Array, variances: Array) -> Array:
    """Mean over the mixture of ``sum_k P_k |F_k - F|^2``, ()."""
    log_p, scores, nodes = class_states(t, weights, means, variances)
    return weights @ (jnp.sum(jnp.exp(log_p) * squared_guidance(log_p, scores), -1) @ nodes)


def mixture_arguments(
    t: ArrayLike, weights: ArrayLike, means: ArrayLike, variances: ArrayLike
) -> tuple[Array, Array, Array, Array]:
    """Checked arguments of one dtype; raises ``ValueError`` for concrete ones out of range."""
    checks.require_time(t)
    checks.require_weights(weights)
    checks.require_variance(variances, "variances")
    if not isinstance(t, jax.core.Tracer) and np.any(np.asarray(t) == 0):
        fix = "at t = 0 classes without width are decided; pass a small t"
        checks.require_positive("variances", variances, fix)
    shapes = {np.shape(weights)[-1:], np.shape(means)[-1:], np.shape(variances)[-1:]}
    if len(shapes) != 1 or () in shapes:
        raise ValueError(
            f"weights, means and variances have shapes {np.shape(weights)}, {np.shape(means)} and "
            f"{np.shape(variances)}, expected (..., K) with one K"
        )
    return floats(t, weights, means, variances)  # type: ignore[return-value]
