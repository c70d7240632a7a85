r"""Class information on other clocks, where its rate peaks, and its bounds by clone agreement.

The rate of `theory.class_information` per unit of a clock c is :math:`(dt/dc)\,dH/dt` (1). The
index s of the variance-preserving process of linear
:math:`\beta(s) = \beta_0 + (\beta_1 - \beta_0)s` has

.. math:: t = \tfrac12\int_0^s \beta, \qquad \frac{dt}{ds} = \tfrac12\beta(s)
   = \tfrac12\sqrt{\beta_0^2 + 4(\beta_1 - \beta_0)t}, \tag{2}

which with :math:`\beta = 2` is OU time itself, and the logarithm of the noise of the exploding
process :math:`dt/d\log\sigma_{VE} = 1 - e^{-2t}` (3).

*Where the rate peaks depends on the clock*: for centres :math:`\pm1` of standard deviation 1/4 at
t = 0.127, 0.200 and 0.259 per t, per s and per :math:`\log\sigma`. A peak without its clock says
nothing, and none of them is the time at which the symmetry breaks (0.441).

With the clone agreement :math:`\phi = E\sum_k P_k^2` the entropy obeys Jensen's and Fano's
inequality

.. math:: e^{-H} \le \phi, \qquad H \le h(1-\phi) + (1-\phi)\log(K-1), \tag{4}

with :math:`h(q) = -q\log q - (1-q)\log(1-q)`, and for two classes

.. math:: 2(1-\phi) \le H/\log 2 \le \sqrt{2(1-\phi)}. \tag{5}

Sources: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433); Song et al. 2021 (2011.13456).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.mixture_classes import entropy_kernel, mixture_arguments, rate_kernel
from theory.roots import find_root

_GRID = np.geomspace(1e-3, 6.0, 96)  # times between which a peak is looked for


class Peak(NamedTuple):
    """Where a rate is largest: NaN in every field if there is no maximum inside the range."""

    t: Array
    """OU time of the peak, on whatever clock."""
    rate: Array
    """Rate per unit of the clock, in nats."""
    entropy: Array
    """Entropy of the class at the peak, in nats."""


def vp_index(t: ArrayLike, beta_min: ArrayLike = 0.1, beta_max: ArrayLike = 20.0) -> Array:
    r"""Index s with :math:`t = \frac12\int_0^s\beta`, linear :math:`\beta`; (2).

    .. math:: s = \frac{\sqrt{\beta_0^2 + 4(\beta_1-\beta_0)t} - \beta_0}{\beta_1-\beta_0}

    Args:
        t: OU time; arguments broadcast.
        beta_min: :math:`\beta(0) > 0`.
        beta_max: :math:`\beta(1) > 0`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Song et al. 2021 (2011.13456).
    """
    t, low, high = _beta_arguments(t, beta_min, beta_max)
    return 4 * t / (jnp.sqrt(low**2 + 4 * (high - low) * t) + low)


def rate_per_vp_index(
    rate: ArrayLike, t: ArrayLike, beta_min: ArrayLike = 0.1, beta_max: ArrayLike = 20.0
) -> Array:
    r"""Rate per unit of the index, :math:`dH/ds = \frac12\beta(s)\,dH/dt`; (2).

    Args:
        rate: :math:`dH/dt` at ``t``; arguments broadcast.
        t: as in `vp_index`.
        beta_min: as in `vp_index`.
        beta_max: as in `vp_index`.
    """
    t, low, high = _beta_arguments(t, beta_min, beta_max)
    return floats(rate)[0] * 0.5 * jnp.sqrt(low**2 + 4 * (high - low) * t)


def rate_per_log_sigma(rate: ArrayLike, t: ArrayLike) -> Array:
    r"""Rate per unit of :math:`\log\sigma_{VE}`, :math:`(1 - e^{-2t})\,dH/dt`; (3).

    Args:
        rate: :math:`dH/dt` at ``t``; arguments broadcast.
        t: OU time.

    Source: Karras et al. 2022 (2206.00364) for the clock.
    """
    checks.require_time(t)
    rate, t = floats(rate, t)
    return -rate * jnp.expm1(-2 * t)


def rate_per_ddpm_index(rate: ArrayLike, beta: ArrayLike) -> Array:
    r"""Rate per step of a DDPM schedule, :math:`-\frac12\log(1-\beta_i)\,dH/dt`; (1).

    Args:
        rate: :math:`dH/dt` at the time of the index; arguments broadcast.
        beta: variance :math:`\beta_i` of the step, in (0, 1).

    Raises:
        ValueError: for a concrete variance out of range.

    Source: Ho, Jain, Abbeel 2020 (2006.11239).
    """
    fix = "pass the variance of one step of the schedule"
    checks.require("beta", beta, lambda v: (v > 0) & (v < 1), "between 0 and 1", fix)
    rate, beta = floats(rate, beta)
    return -0.5 * jnp.log1p(-beta) * rate


def peak(weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Peak:
    r"""Where the rate per unit of OU time is largest, for t between 0.001 and 6.

    Args:
        weights: as in `theory.class_information.entropy`, shape (..., K).
        means: as in `entropy`.
        variances: as in `entropy`.

    Returns:
        The peak; its time depends on the clock, see `vp_index_peak` and `log_sigma_peak`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433).
    """
    return _find_peak(weights, means, variances, 2.0, 2.0, 0.0)


def vp_index_peak(
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    beta_min: ArrayLike = 0.1,
    beta_max: ArrayLike = 20.0,
) -> Peak:
    """The same as `peak` for the rate per unit of the index s of `vp_index`."""
    _beta_arguments(1.0, beta_min, beta_max)
    return _find_peak(weights, means, variances, beta_min, beta_max, 0.0)


def log_sigma_peak(weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Peak:
    r"""The same as `peak` for the rate per unit of :math:`\log\sigma_{VE}`."""
    return _find_peak(weights, means, variances, 2.0, 2.0, 1.0)


def agreement_lower_bound(entropy: ArrayLike) -> Array:
    r"""Jensen: clones agree at least with probability :math:`e^{-H}`; H in nats; (4)."""
    checks.require_nonnegative("entropy", entropy, "pass H(y|x_t) in nats")
    return jnp.exp(-floats(entropy)[0])


def fano_bound(agreement: ArrayLike, classes: ArrayLike) -> Array:
    r"""Fano: the entropy is at most :math:`h(1-\phi) + (1-\phi)\log(K-1)` nats; (4).

    Args:
        agreement: clone agreement :math:`\phi` in [0, 1]; arguments broadcast.
        classes: number of classes K, 2 at least.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Cover, Thomas, Elements of Information Theory, section 2.10.
    """
    _require_agreement(agreement)
    checks.require("classes", classes, lambda v: v >= 2, ">= 2", "one class is always decided")
    agreement, classes = floats(agreement, classes)
    error = 1 - agreement
    binary = -xlogy(error, error) - xlogy(agreement, agreement)
    return binary + error * jnp.log(classes - 1)


def binary_entropy_bounds(agreement: ArrayLike) -> tuple[Array, Array]:
    r"""Two classes: :math:`2(1-\phi) \le H/\log 2 \le \sqrt{2(1-\phi)}`, in nats; (5).

    Args:
        agreement: clone agreement :math:`\phi` in [1/2, 1].

    Raises:
        ValueError: for a concrete agreement out of range.
    """
    _require_agreement(agreement)
    gini = 2 * (1 - floats(agreement)[0])
    root = jnp.sqrt(jnp.where(gini > 0, gini, 1))
    return np.log(2) * gini, np.log(2) * jnp.where(gini > 0, root, 0)


def _find_peak(weights, means, variances, low, high, exploding) -> Peak:
    _, *mixture = mixture_arguments(1.0, weights, means, variances)
    return Peak(*_peak(*floats(*mixture, low, high, exploding)))


def _peak_kernel(
    weights: Array, means: Array, variances: Array, low: Array, high: Array, exploding: Array
) -> tuple[Array, Array, Array]:
    """Maximum over log t of the rate times (2), or (3) where ``exploding`` is 1."""

    def log_rate(log_t: Array) -> Array:
        t = jnp.exp(log_t)
        speed = 0.5 * jnp.sqrt(low**2 + 4 * (high - low) * t)
        speed = jnp.where(exploding > 0, -jnp.expm1(-2 * t), speed)
        return jnp.log(rate_kernel(t, weights, means, variances) * speed)

    grid = jnp.log(jnp.asarray(_GRID, weights.dtype))
    best = jnp.argmax(jax.lax.stop_gradient(jax.lax.map(log_rate, grid)))
    inside = (best > 0) & (best < len(_GRID) - 1)
    lower, upper = grid[jnp.maximum(best - 1, 0)], grid[jnp.minimum(best + 1, len(_GRID) - 1)]
    log_t = find_root(jax.grad(log_rate), lower, upper).value
    log_t = jnp.where(inside, log_t, jnp.nan)
    t = jnp.exp(log_t)
    return t, jnp.exp(log_rate(log_t)), entropy_kernel(t, weights, means, variances)


def _beta_arguments(t, beta_min, beta_max) -> tuple[Array, ...]:
    checks.require_time(t)
    for name, value in (("beta_min", beta_min), ("beta_max", beta_max)):
        checks.require_positive(name, value, "the published schedule runs from 0.1 to 20")
    return floats(t, beta_min, beta_max)


def _require_agreement(agreement: ArrayLike) -> None:
    fix = "pass the probability that two clones agree"
    checks.require("agreement", agreement, lambda v: (v >= 0) & (v <= 1), "in [0, 1]", fix)


_peak = elementwise(_peak_kernel, "(k),(k),(k),(),(),()->(),(),()")
