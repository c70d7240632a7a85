r"""What a guidance rule is, and the scores that rules combine.

A rule replaces the score of a sampler. It may carry a state along the trajectory: ``init`` makes
it, ``guide`` returns the guided score, and ``update`` sees each transition after it was drawn.
Scores of classes come from class denoisers by Tweedie's formula,

    F_k = (scale D_k - x) / std^2,   D_k = E[a | x, k].                                    (1)

All rules are combinations of scores at one ``(x, t)``, hence of noise predictions
``eps_k = -std F_k`` at that ``(x, t)`` with the same coefficients.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol, runtime_checkable

import jax.numpy as jnp
from jax import Array

from diffjax.data.base import ClassDenoiser, per_event, require
from diffjax.diffusion import Diffusion, score_at


@runtime_checkable
class Guidance(Protocol):
    """A guidance rule; a pytree.

    Attributes:
        model: the diffusion whose scores are combined.
        needs_noise: whether ``update`` needs a transition of positive variance, the reverse SDE's.
    """

    model: Diffusion
    needs_noise: ClassVar[bool]

    def init(self, key: Array, x: Array) -> Any:
        """The state at the start of trajectories ``x (..., d)``; ``()`` if the rule has none."""
        ...

    def guide(self, state: Any, x: Array, t: Array) -> Array:
        """The guided score at ``(x, t)``, shape of ``x``."""
        ...

    def update(
        self, state: Any, x: Array, t: Array, x_next: Array, t_next: Array, variance: Array
    ) -> Any:
        """The state after ``x`` at ``t`` went to ``x_next`` at ``t_next`` by a Gaussian kernel.

        ``variance`` is the kernel's variance per coordinate, 0 for a deterministic step.
        """
        ...


def checked_class(model: Diffusion, c: int, name: str) -> int:
    """The class index, if the model has that class.

    Raises:
        TypeError: if the model is no `Diffusion` or its data have no class denoisers.
        ValueError: if the class does not exist.
    """
    if not isinstance(model, Diffusion):
        raise TypeError(f"guidance needs a Diffusion, got {type(model).__name__}")
    require(model.data, ClassDenoiser, name)
    classes = model.data.classes
    if int(c) != c or not 0 <= c < classes:
        raise ValueError(f"class {c!r} does not exist; classes are 0..{classes - 1}")
    return int(c)


def class_score_at(model: Diffusion, c: int, x: Array, t: Array) -> Array:
    """Score of class ``c``, eq. (1), shape of ``x``; of that class alone if it can be had alone."""
    data, process = model.data, model.process
    if hasattr(data, "condition"):
        return score_at(Diffusion(data.condition(c), process), x, t)
    scale, std = process.scale(t), process.std(t)
    mean = data.class_denoise(x, scale, std)[..., c, :]
    return (per_event(scale, x) * mean - x) / per_event(process.variance(t), x)


def score_pair(model: Diffusion, c: int, x: Array, t: Array) -> tuple[Array, Array]:
    """``F`` and ``F_c - F``, each of the shape of ``x``."""
    score = score_at(model, x, t)
    return score, class_score_at(model, c, x, t) - score


def all_class_scores(model: Diffusion, x: Array, t: Array) -> Array:
    """Scores of all classes, ``(..., K, d)``, eq. (1)."""
    process = model.process
    means = model.data.class_denoise(x, process.scale(t), process.std(t))
    scale = per_event(process.scale(t), x)[..., None]
    variance = per_event(process.variance(t), x)[..., None]
    return (scale * means - jnp.expand_dims(x, -2)) / variance
