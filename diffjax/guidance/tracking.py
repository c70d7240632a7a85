r"""Dynamic negative guidance: the posterior of the forbidden class, tracked along the trajectory.

The guided score is ``F - lambda (F_c - F)`` with ``lambda = lambda_0 p/(1 - p)``, where ``p``
estimates ``p(c | x_t)``. The kernel of the reverse chain from ``t`` to ``s`` has mean and
variance

    mu_k = (x + beta F_k) / r,   r = scale_t / scale_s,   beta = Var[x_t | x_s],             (1)
    V = beta (the width of spread-out data) or the bridge variance, whichever sampled.      (2)

In coordinates of a variance-preserving process (1) is DDPM's mean. A transition to ``x'`` is
evidence for the class, and Bayes' rule reads

    log p <- clip(log p - [tau (|x' - mu_c|^2 - |x' - mu|^2) - delta] / 2V,
                  log p_min, log p_max)                                                     (3)

with the unguided means, but the ``x'`` that was drawn with guidance. (3) drifts off the simplex:
nothing keeps ``p`` below one but the clip. With ``lambda_0 = 1`` the guided kernel *is* the kernel
of all classes but c, and the log-odds obey

    l <- l - [|x' - mu_c|^2 - |x' - mu_{not c}|^2] / 2V,
    mu_{not c} = mu - p/(1 - p) (mu_c - mu),   l = log p/(1 - p)                            (4)

without a clip (the weight alone is limited). Differences of squares are taken as
``|v|^2 - 2 (x' - mu) . v`` with ``v = mu_c - mu``, before they can cancel.

The variance in (3) and (4) must be the one that drew ``x'``. The released code samples with
``beta`` and divides by the bridge variance, which differ where a step removes most of the noise:
harmless at 1000 steps, ruinous in the last of 50 (``bridge_variance=True`` reproduces it). The
offset delta is divided by ``2V`` and so grows towards ``t = 0``.

References:
    Koulischer, Deleu, Raya, Demeester, Ambrogioni 2024 (2410.14398).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes, records
from diffjax.data.base import per_event
from diffjax.diffusion import Diffusion
from diffjax.guidance.base import checked_class, score_pair
from diffjax.guidance.weights import Weight, as_weight, weight_at


@records.register
@dataclass(frozen=True)
class DynamicNegative:
    """Record made by `dynamic_negative`; its state is ``log p``, ``(...)``."""

    model: Diffusion
    weight: Weight
    prior: ArrayLike
    temper: ArrayLike
    offset: ArrayLike
    p_min: ArrayLike
    p_max: ArrayLike
    c: int = field(metadata={"static": True})
    bridge_variance: bool = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = True

    def init(self, key: Array, x: Array) -> Array:
        """``log prior`` for every trajectory."""
        return jnp.full(x.shape[:-1], jnp.log(jnp.asarray(self.prior, x.dtype)))

    def guide(self, state: Array, x: Array, t: Array) -> Array:
        """``F - lambda_0 p/(1 - p) (F_c - F)`` with the current ``p``."""
        score, difference = score_pair(self.model, self.c, x, t)
        odds = jnp.exp(state) / -jnp.expm1(state)
        return score - weight_at(self.weight, t, x) * odds[..., None] * difference

    def update(
        self, state: Array, x: Array, t: Array, x_next: Array, t_next: Array, variance: Array
    ) -> Array:
        """Eq. (3)."""
        offset_mean, gap = _evidence(self.model, self.c, x, t, x_next, t_next)
        excess = jnp.sum(jnp.square(gap) - 2 * offset_mean * gap, axis=-1)
        if self.bridge_variance:
            variance = _bridge_or_beta(self.model, t_next, t)
        temper, offset = (jnp.asarray(v, x.dtype) for v in (self.temper, self.offset))
        moved = state - _per_variance(temper * excess - offset, variance)
        low, high = (jnp.log(jnp.asarray(p, x.dtype)) for p in (self.p_min, self.p_max))
        return jnp.clip(moved, low, high)


@records.register
@dataclass(frozen=True)
class NormalisedNegative:
    """Record made by `normalised_negative`; its state is ``log p/(1 - p)``, ``(...)``."""

    model: Diffusion
    weight: Weight
    prior: ArrayLike
    p_max: ArrayLike
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = True

    def init(self, key: Array, x: Array) -> Array:
        """Log-odds of the prior for every trajectory."""
        prior = jnp.asarray(self.prior, x.dtype)
        return jnp.full(x.shape[:-1], jnp.log(prior) - jnp.log1p(-prior))

    def guide(self, state: Array, x: Array, t: Array) -> Array:
        """``F - lambda_0 p/(1 - p) (F_c - F)`` with the current log-odds."""
        score, difference = score_pair(self.model, self.c, x, t)
        return score - weight_at(self.weight, t, x) * self._odds(state)[..., None] * difference

    def update(
        self, state: Array, x: Array, t: Array, x_next: Array, t_next: Array, variance: Array
    ) -> Array:
        """Eq. (4)."""
        residual, gap = _evidence(self.model, self.c, x, t, x_next, t_next)
        # x' - mu_not = residual + odds gap, and mu_c - mu_not = (1 + odds) gap
        odds = self._odds(state)
        square, product = jnp.sum(jnp.square(gap), -1), jnp.sum(residual * gap, -1)
        excess = (1 + odds) * ((1 - odds) * square - 2 * product)
        return state - _per_variance(excess, variance)

    def _odds(self, log_odds: Array) -> Array:
        """``p/(1 - p)``, limited."""
        p_max = jnp.asarray(self.p_max, log_odds.dtype)
        return jnp.exp(jnp.minimum(log_odds, jnp.log(p_max) - jnp.log1p(-p_max)))


def dynamic_negative(
    model: Diffusion,
    c: int,
    *,
    prior: ArrayLike,
    weight: object = 1.0,
    temper: ArrayLike = 1.0,
    offset: ArrayLike = 0.0,
    p_min: ArrayLike = 1e-6,
    p_max: ArrayLike = 0.99,
    bridge_variance: bool = False,
) -> DynamicNegative:
    """Guidance away from class ``c`` with a weight set by its tracked posterior, eq. (3).

    With exact scores use ``temper = 1``, ``offset = 0`` and the true prior. The published settings
    for images (temper 0.2, offset 2e-4, prior 0.01, weight 5 on CIFAR10) compensate high dimension
    and errors of the network; in low dimension they remove almost nothing. The released pipeline
    never passes its offset on, so that its runs have ``offset = 0``.

    Args:
        model: a diffusion whose data have class denoisers.
        c: index of the forbidden class.
        prior: probability of the forbidden class at the start, between 0 and 1.
        weight: ``lambda_0``: a number, a `schedule`, or a function of OU time.
        temper: ``tau``, multiplies the evidence of every step.
        offset: ``delta``, a squared length per step, divided by ``2V``.
        p_min: lower clip of ``p``.
        p_max: upper clip; 0.99 limits the guidance weight to ``99 lambda_0``.
        bridge_variance: divide by the variance of the bridge whatever variance drew the step, as
            the released code does.

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or the probabilities are out of order.

    References:
        Koulischer, Deleu, Raya, Demeester, Ambrogioni 2024 (2410.14398).
    """
    c = checked_class(model, c, "dynamic negative guidance")
    if checks.is_concrete((prior, p_min, p_max)):
        _check_probabilities(prior, p_min, p_max)
    checks.positive(temper, "temper")
    options = {"prior": prior, "temper": temper, "offset": offset, "p_min": p_min, "p_max": p_max}
    values = {name: checks.floating(value, name) for name, value in options.items()}
    return DynamicNegative(
        model, as_weight(weight, "weight"), **values, c=c, bridge_variance=bool(bridge_variance)
    )


def normalised_negative(
    model: Diffusion,
    c: int,
    *,
    prior: ArrayLike,
    weight: object = 1.0,
    p_max: ArrayLike = 0.99,
) -> NormalisedNegative:
    """Guidance away from class ``c`` by its tracked log-odds, eq. (4): the exact Bayes rule.

    Exact for exact scores and small steps, whatever ``weight`` is. Needs no lower clip; ``p_max``
    limits the weight and the mean of the kept classes, never the log-odds.

    Args:
        model: a diffusion whose data have class denoisers.
        c: index of the forbidden class.
        prior: true probability of the forbidden class.
        weight: ``lambda_0``: a number, a `schedule`, or a function of OU time.
        p_max: limits the odds to ``p_max / (1 - p_max)``.

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or the probabilities are out of order.

    References:
        Koulischer, Deleu, Raya, Demeester, Ambrogioni 2024 (2410.14398), where ``p`` is tracked
        against the kernel of all data instead.
    """
    c = checked_class(model, c, "dynamic negative guidance")
    if checks.is_concrete((prior, p_max)):
        _check_probabilities(prior, 0.0, p_max)
    prior, p_max = checks.floating(prior, "prior"), checks.floating(p_max, "p_max")
    return NormalisedNegative(model, as_weight(weight, "weight"), prior, p_max, c)


def tracked_posterior(rule: DynamicNegative | NormalisedNegative, state: Array) -> Array:
    """The tracked ``p(c | x_t)`` of a rule's state, ``(...)``."""
    if isinstance(rule, NormalisedNegative):
        return jax.nn.sigmoid(state)
    return jnp.exp(state)


def _check_probabilities(prior: ArrayLike, p_min: ArrayLike, p_max: ArrayLike) -> None:
    values = np.asarray(prior), np.asarray(p_min), np.asarray(p_max)
    if not (0 <= values[1] < values[2] < 1 and 0 < values[0] < 1):
        raise ValueError(
            "the tracked posterior needs 0 < prior < 1 and 0 <= p_min < p_max < 1, but "
            f"prior = {prior}, p_min = {p_min}, p_max = {p_max}"
        )


def _evidence(
    model: Diffusion, c: int, x: Array, t: Array, x_next: Array, s: Array
) -> tuple[Array, Array]:
    """``x' - mu`` and ``mu_c - mu`` of eq. (1)."""
    factor, beta = processes.transition(model.process, s, t)
    score, difference = score_pair(model, c, x, t)
    factor, beta = per_event(factor, x), per_event(beta, x)
    return x_next - (x + beta * score) / factor, beta * difference / factor


def _per_variance(value: Array, variance: Array) -> Array:
    """``value / 2V``; a step without noise is no evidence (the last one of a chain)."""
    variance = jnp.asarray(variance, value.dtype)
    noisy = variance > 0
    return jnp.where(noisy, value / (2 * jnp.where(noisy, variance, 1)), 0)


def _bridge_or_beta(model: Diffusion, s: Array, t: Array) -> Array:
    """Variance of the bridge, and of the forward transition where the bridge ends at ``s = 0``."""
    _, _, bridge = processes.bridge(model.process, s, t)
    _, beta = processes.transition(model.process, s, t)
    return jnp.where(s > 0, bridge, beta)
