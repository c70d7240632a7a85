r"""Rules without a state: classifier-free, power law, negative prompt, and the exact ``not c``.

With the scores ``F`` of all data and ``F_c`` of a class:

    classifier_free  F_w = F_c + w (F_c - F)                                                (1)
    power_law        F_c + w |F_c - F|^a (F_c - F),  a > -1                                 (2)
    negative_prompt  F - lambda (F_c - F)                                                   (3)
    exact_negative   F - lambda_0 p/(1 - p) (F_c - F),  p = p(c | x_t)                      (4)

(1) with ``gamma = 1 + w`` is ``F + gamma (F_c - F)``, so (3) is ``gamma = -lambda``. From
``p(x | not c) ~ p_t(x) (1 - p(c | x))`` the score of all data but class c is (4) with
``lambda_0 = 1``. Since ``F_c - F = (1 - p)(F_c - F_{not c})``, (4) is evaluated as
``F - lambda_0 p (F_c - F_{not c})``, which has no pole at ``p = 1``.

The score (1) of the noised law is not the score of a noised tilted law ``p_c^{1+w} p^{-w}``: no
posterior sampler exists for a guided score, only integration of an SDE or ODE, and the two give
different laws.

References:
    Ho, Salimans 2022 (2207.12598); Pavasovic, Verbeek, Biroli, Mezard 2025 (2502.07849);
    Koulischer, Deleu, Raya, Demeester, Ambrogioni 2024 (2410.14398).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import Classified, require
from diffjax.diffusion import Diffusion
from diffjax.guidance.base import all_class_scores, checked_class, score_pair
from diffjax.guidance.weights import Weight, as_weight, weight_at


def _no_state(rule: Any, key: Array, x: Array) -> tuple[()]:
    """No state."""
    return ()


def _keep(
    rule: Any, state: Any, x: Array, t: Array, x_next: Array, t_next: Array, variance: Array
) -> Any:
    """No state, nothing to update."""
    return state


@records.register
@dataclass(frozen=True)
class ClassifierFree:
    """Record made by `classifier_free`."""

    model: Diffusion
    weight: Weight
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = False

    init = _no_state
    update = _keep

    def guide(self, state: Any, x: Array, t: Array) -> Array:
        """Eq. (1)."""
        score, difference = score_pair(self.model, self.c, x, t)
        return score + (1 + weight_at(self.weight, t, x)) * difference


@records.register
@dataclass(frozen=True)
class PowerLaw:
    """Record made by `power_law`."""

    model: Diffusion
    weight: Weight
    exponent: ArrayLike
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = False

    init = _no_state
    update = _keep

    def guide(self, state: Any, x: Array, t: Array) -> Array:
        """Eq. (2)."""
        score, difference = score_pair(self.model, self.c, x, t)
        square = jnp.sum(jnp.square(difference), axis=-1, keepdims=True)
        # s phi(s) -> 0 for s -> 0, also where phi itself diverges
        apart = square > 0
        half = 0.5 * jnp.asarray(self.exponent, x.dtype)
        factor = jnp.where(apart, jnp.where(apart, square, 1) ** half, 0)
        return score + (1 + weight_at(self.weight, t, x) * factor) * difference


@records.register
@dataclass(frozen=True)
class NegativePrompt:
    """Record made by `negative_prompt`."""

    model: Diffusion
    weight: Weight
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = False

    init = _no_state
    update = _keep

    def guide(self, state: Any, x: Array, t: Array) -> Array:
        """Eq. (3)."""
        score, difference = score_pair(self.model, self.c, x, t)
        return score - weight_at(self.weight, t, x) * difference


@records.register
@dataclass(frozen=True)
class ExactNegative:
    """Record made by `exact_negative`."""

    model: Diffusion
    weight: Weight
    log_odds_range: Array  # (2,)
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = False

    init = _no_state
    update = _keep

    def guide(self, state: Any, x: Array, t: Array) -> Array:
        """Eq. (4), in the form without a pole."""
        model, process = self.model, self.model.process
        log_p = model.data.class_log_posterior(x, process.scale(t), process.std(t))
        # a class of weight zero has no score
        scores = jnp.where(log_p[..., None] > -jnp.inf, all_class_scores(model, x, t), 0)
        forbidden = jnp.arange(log_p.shape[-1]) == self.c
        kept = jnp.where(forbidden, -jnp.inf, log_p)
        score_kept = jnp.sum(jax.nn.softmax(kept, axis=-1)[..., None] * scores, axis=-2)
        log_rest = logsumexp(kept, axis=-1)
        low, high = jnp.asarray(self.log_odds_range, x.dtype)
        log_odds = jnp.clip(log_p[..., self.c] - log_rest, low, high)
        difference = scores[..., self.c, :] - score_kept
        # lambda (F_c - F) = lambda_0 odds (1 - p) (F_c - F_kept)
        share = jnp.exp(log_odds + log_rest)[..., None]
        score = score_kept + jnp.exp(log_p[..., self.c])[..., None] * difference
        return score - weight_at(self.weight, t, x) * share * difference


def classifier_free(model: Diffusion, c: int, weight: Any = 0.0) -> ClassifierFree:
    """Classifier-free guidance towards class ``c``, ``F_w = F_c + w (F_c - F)``, eq. (1).

    Args:
        model: a diffusion whose data have class denoisers.
        c: class index.
        weight: ``w``, a number, a `schedule`, or a function of OU time. 0 is plain conditional
            sampling, -1 unconditional. Papers that write gamma mean ``w = gamma - 1``.

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or the weight has a shape.

    References:
        Ho, Salimans 2022 (2207.12598).
    """
    return ClassifierFree(model, as_weight(weight, "weight"), checked_class(model, c, "guidance"))


def power_law(model: Diffusion, c: int, weight: Any, exponent: ArrayLike) -> PowerLaw:
    """Nonlinear guidance towards class ``c``, ``F_c + w |F_c - F|^a (F_c - F)``, eq. (2).

    For ``a > 0`` it vanishes faster than eq. (1) once the class is decided and ``F_c = F`` nearly.

    Args:
        model: a diffusion whose data have class denoisers.
        c: class index.
        weight: ``w``, as in `classifier_free`; its unit is a length to the power ``a``.
        exponent: ``a > -1``; 0 gives eq. (1).

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or the exponent is not above -1.

    References:
        Pavasovic, Verbeek, Biroli, Mezard 2025 (2502.07849).
    """
    checks.positive(jnp.asarray(exponent) + 1, "exponent + 1")
    c = checked_class(model, c, "guidance")
    return PowerLaw(model, as_weight(weight, "weight"), checks.floating(exponent, "exponent"), c)


def negative_prompt(model: Diffusion, c: int, weight: Any = 1.0) -> NegativePrompt:
    """Constant guidance away from class ``c``, ``F - lambda (F_c - F)``, eq. (3).

    Args:
        model: a diffusion whose data have class denoisers.
        c: index of the forbidden class.
        weight: ``lambda``, as in `classifier_free`. 0 samples all data.

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or the weight has a shape.
    """
    return NegativePrompt(model, as_weight(weight, "weight"), checked_class(model, c, "guidance"))


def exact_negative(
    model: Diffusion,
    c: int,
    weight: Any = 1.0,
    *,
    p_min: ArrayLike = 0.0,
    p_max: ArrayLike = 1.0,
) -> ExactNegative:
    """What perfect negative guidance would do: eq. (4) with the true posterior ``p(c | x_t)``.

    With the defaults the guided score is the score of the data without class ``c``.

    Args:
        model: a diffusion whose data know their class posterior.
        c: index of the forbidden class.
        weight: ``lambda_0``, as in `classifier_free`.
        p_min: the posterior is clipped from below to this value in ``p / (1 - p)``.
        p_max: and from above; 0.99 limits the weight to ``99 lambda_0``.

    Raises:
        TypeError: if the data do not know their class posterior.
        ValueError: if the class does not exist, or the limits are out of order.
    """
    c = checked_class(model, c, "exact negative guidance")
    require(model.data, Classified, "exact negative guidance")
    low, high = jnp.asarray(p_min, float), jnp.asarray(p_max, float)
    if checks.is_concrete((low, high)) and not 0 <= low < high <= 1:
        raise ValueError(f"p_min and p_max must be 0 <= p_min < p_max <= 1, but are {low}, {high}")
    limits = jnp.stack([jnp.log(low) - jnp.log1p(-low), jnp.log(high) - jnp.log1p(-high)])
    return ExactNegative(model, as_weight(weight, "weight"), limits, c)
