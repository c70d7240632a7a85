"""Guidance: scores that are bent towards a class, or away from one, while a sampler runs.

A rule goes to `diffjax.backward` as ``guidance=rule``:

    rule = guidance.classifier_free(model, 1, weight=2.0)
    samples, info = diffjax.backward(key, model, x, times, method="heun", guidance=rule)

Conventions: ``classifier_free`` has ``F_w = F_c + w (F_c - F)``, so that ``w = 0`` is plain
conditional sampling; papers that write ``gamma`` mean ``gamma = 1 + w``. ``negative_prompt`` has
``F - lambda (F_c - F)``, which is ``gamma = -lambda``, ``w = -1 - lambda``.
"""

from diffjax.guidance.base import Guidance
from diffjax.guidance.constant import (
    classifier_free,
    exact_negative,
    negative_prompt,
    power_law,
)
from diffjax.guidance.thresholds import safe_latent
from diffjax.guidance.tracking import (
    dynamic_negative,
    normalised_negative,
    tracked_posterior,
)
from diffjax.guidance.weights import schedule

__all__ = [
    "Guidance",
    "classifier_free",
    "dynamic_negative",
    "exact_negative",
    "negative_prompt",
    "normalised_negative",
    "power_law",
    "safe_latent",
    "schedule",
    "tracked_posterior",
]
