r"""Safe latent diffusion: negative guidance where the forbidden class is predicted strongly.

With noise predictions ``eps = -std F`` of all data and ``eps_c`` of the forbidden class, for each
coordinate

    u = eps - eps_c,   m = min(s |u|, 1) where u < threshold, else 0,                       (1)
    kappa = -m u + s_m nu,   nu <- b nu + (1 - b) kappa,                                    (2)
    eps_guided = eps - lambda kappa.                                                        (3)

References:
    Schramowski, Brack, Deiseroth, Kersting 2023 (2211.05105).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import per_event
from diffjax.diffusion import Diffusion
from diffjax.guidance.base import checked_class, score_pair
from diffjax.guidance.weights import Weight, as_weight, weight_at


@records.register
@dataclass(frozen=True)
class SafeLatent:
    """Record made by `safe_latent`; its state is the momentum ``nu``, ``(..., d)``."""

    model: Diffusion
    weight: Weight
    slope: ArrayLike
    threshold: ArrayLike
    momentum_scale: ArrayLike
    momentum_decay: ArrayLike
    c: int = field(metadata={"static": True})
    needs_noise: ClassVar[bool] = False

    def init(self, key: Array, x: Array) -> Array:
        """No momentum."""
        return jnp.zeros_like(x)

    def guide(self, state: Array, x: Array, t: Array) -> Array:
        """Eq. (3) as a score."""
        score, push = self._push(state, x, t)
        std = per_event(self.model.process.std(t), x)
        return score + weight_at(self.weight, t, x) * push / std

    def update(
        self, state: Array, x: Array, t: Array, x_next: Array, t_next: Array, variance: Array
    ) -> Array:
        """The momentum of eq. (2)."""
        _, push = self._push(state, x, t)
        decay = jnp.asarray(self.momentum_decay, x.dtype)
        return decay * state + (1 - decay) * push

    def _push(self, state: Array, x: Array, t: Array) -> tuple[Array, Array]:
        """``F`` and ``kappa``, eq. (1, 2)."""
        score, difference = score_pair(self.model, self.c, x, t)
        u = per_event(self.model.process.std(t), x) * difference
        slope, threshold, scale = (
            jnp.asarray(v, x.dtype) for v in (self.slope, self.threshold, self.momentum_scale)
        )
        mask = jnp.where(u < threshold, jnp.minimum(slope * jnp.abs(u), 1), 0)
        return score, -mask * u + scale * state


def safe_latent(
    model: Diffusion,
    c: int,
    weight: object = 1.0,
    *,
    slope: ArrayLike = 100.0,
    threshold: ArrayLike = 0.04,
    momentum_scale: ArrayLike = 0.2,
    momentum_decay: ArrayLike = 0.1,
) -> SafeLatent:
    """Thresholded guidance away from class ``c``, eq. (3), without a warm-up.

    Args:
        model: a diffusion whose data have class denoisers.
        c: index of the forbidden class.
        weight: ``lambda``: a number, a `schedule`, or a function of OU time.
        slope: ``s``, in noise predictions (which have the scale of the noise, one).
        threshold: coordinates with ``u`` above it are left alone.
        momentum_scale: ``s_m``.
        momentum_decay: ``b``.

    Raises:
        TypeError: if the data have no class denoisers.
        ValueError: if the class does not exist, or an option is NaN or infinite.

    References:
        Schramowski, Brack, Deiseroth, Kersting 2023 (2211.05105).
    """
    c = checked_class(model, c, "safe latent diffusion")
    options = {
        "slope": slope, "threshold": threshold, "momentum_scale": momentum_scale,
        "momentum_decay": momentum_decay,
    }  # fmt: skip
    values = {name: checks.floating(value, name) for name, value in options.items()}
    return SafeLatent(model, as_weight(weight, "weight"), **values, c=c)
