r"""A data distribution seen through a noising process: scores, densities and posteriors at (x, t).

    score = grad_x log p_t(x) = (scale E[a | x] - x) / std^2            (Tweedie)          (1)
    J = d score / dx = (scale^2 Cov[a | x] / std^2 - I) / std^2                            (2)

References:
    Robbins 1956; Efron 2011 (Tweedie's formula); Biroli, Bonnaire, de Bortoli, Mezard 2024
    (2402.18491).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike

from diffjax import checks, processes, records
from diffjax.data.base import Atomic, ClassDenoiser, Classified, Posterior, per_event, require
from diffjax.processes import Process


@records.register
@dataclass(frozen=True)
class Diffusion:
    """Data distribution and process; every method takes states ``x (..., d)`` and OU times ``t``.

    Times are scalars or broadcast against the batch ``(...)``. ``t = 0`` is accepted only where
    the data have a density (Gaussian mixtures with positive variances). Results have the dtype
    of ``x``. What the data cannot answer raises ``TypeError`` naming the missing capability.

    Attributes:
        data: a distribution of `diffjax.data`, or anything that implements `Denoiser`.
        process: a process of `diffjax.processes`.
    """

    data: Any
    process: Process

    @property
    def dim(self) -> int:
        """Dimension d of the data."""
        return self.data.dim

    def score(self, x: ArrayLike, t: ArrayLike) -> Array:
        """Score ``grad_x log p_t(x)``, ``(..., d)``, eq. (1)."""
        return _score(self, *self._inputs(x, t))

    def denoise(self, x: ArrayLike, t: ArrayLike) -> Array:
        """Posterior mean ``E[a | x_t = x]``, ``(..., d)``."""
        return _denoise(self, *self._inputs(x, t))

    def log_density(self, x: ArrayLike, t: ArrayLike) -> Array:
        """``log p_t(x)`` in nats, ``(...)``."""
        require(self.data, Posterior, "log_density")
        return _call(self, "log_normaliser", *self._inputs(x, t))

    def class_log_posterior(self, x: ArrayLike, t: ArrayLike) -> Array:
        """``log p(c | x_t = x)``, ``(..., K)``."""
        require(self.data, Classified, "class_log_posterior")
        return _call(self, "class_log_posterior", *self._inputs(x, t))

    def class_score(self, x: ArrayLike, t: ArrayLike) -> Array:
        """Score of every class, ``(..., K, d)``."""
        require(self.data, ClassDenoiser, "class_score")
        x, t = self._inputs(x, t)
        means = _call(self, "class_denoise", x, t)
        scale = per_event(self.process.scale(t), x)[..., None]
        return (scale * means - x[..., None, :]) / per_event(self.process.variance(t), x)[..., None]

    def index_log_weights(self, x: ArrayLike, t: ArrayLike) -> Array:
        """``log w_mu(x)``, the log posterior of the index, ``(..., n)``; holds B x n numbers."""
        require(self.data, Atomic, "index_log_weights")
        return _call(self, "index_log_weights", *self._inputs(x, t))

    def jacobian(self, x: ArrayLike, t: ArrayLike) -> Array:
        """Jacobian of the score, ``(..., d, d)``, symmetric, eq. (2)."""
        require(self.data, Posterior, "jacobian")
        return _jacobian(self, *self._inputs(x, t))

    def sample(self, key: Array, t: ArrayLike, n: int) -> Array:
        """``n`` samples of ``x_t``, ``(n, d)``, exact at every ``t >= 0`` (``t = 0``: clean data).

        Args:
            key: typed PRNG key.
            t: one OU time.
            n: number of samples (static).
        """
        require(self.data, Posterior, "sample")
        checks.noise_time(t, zero_allowed=True)
        return _sample(self, key, t, n)

    def sample_posterior(self, key: Array, x: ArrayLike, t: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x_t = x)`` per state, ``(..., d)``."""
        require(self.data, Posterior, "sample_posterior")
        return _sample_posterior(self, key, *self._inputs(x, t))

    def _inputs(self, x: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
        """Checked state and time in the dtype of the state."""
        checks.event_size(x, self.dim)
        has_density = getattr(self.data, "has_density", False)
        checks.noise_time(t, zero_allowed=has_density, why=" (the clean data have no density)")
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            x = x.astype(jnp.result_type(float))
        return x, jnp.asarray(t, x.dtype)


@records.register
@dataclass(frozen=True)
class ScoreModel:
    """A bare score function ``score(x, t)`` with its process; made by `score_model`."""

    score: Partial
    process: Process


def score_model(score: Callable[[Array, Array], Array], process: Process) -> ScoreModel:
    """Wrap a score function so that samplers can use it.

    Args:
        score: ``score(x (..., d), t ())`` returning ``grad log p_t(x)`` in the coordinates of
            ``process``. Parameters that change between calls belong in a
            `jax.tree_util.Partial`, which is traced; a closure is compiled in.
        process: the process whose ``log p_t`` it is.
    """
    return ScoreModel(score if isinstance(score, Partial) else Partial(score), process)


def denoise_at(model: Diffusion | ScoreModel, x: Array, t: Array) -> Array:
    """``E[a | x_t = x]`` inside traced code: no checks, no jit of its own."""
    scale, std = model.process.scale(t), model.process.std(t)
    if isinstance(model, ScoreModel):
        # The one place that divides by scale: a score is all that there is.
        return (x + per_event(jnp.square(std), x) * model.score(x, t)) / per_event(scale, x)
    return model.data.denoise(x, scale, std)


def score_at(model: Diffusion | ScoreModel, x: Array, t: Array) -> Array:
    """Score inside traced code: no checks, no jit of its own; eq. (1)."""
    if isinstance(model, ScoreModel):
        return model.score(x, t)
    scale, std = model.process.scale(t), model.process.std(t)
    if hasattr(model.data, "score"):  # a form that does not cancel at small noise
        return model.data.score(x, scale, std)
    variance = per_event(model.process.variance(t), x)
    return (per_event(scale, x) * model.data.denoise(x, scale, std) - x) / variance


def _channel(diffusion: Diffusion, t: Array) -> tuple[Array, Array]:
    """``scale(t), std(t)``."""
    return diffusion.process.scale(t), diffusion.process.std(t)


@partial(jax.jit, static_argnums=1)
def _call(diffusion: Diffusion, name: str, x: Array, t: Array) -> Array:
    return getattr(diffusion.data, name)(x, *_channel(diffusion, t))


@jax.jit
def _denoise(diffusion: Diffusion, x: Array, t: Array) -> Array:
    return denoise_at(diffusion, x, t)


@jax.jit
def _score(diffusion: Diffusion, x: Array, t: Array) -> Array:
    return score_at(diffusion, x, t)


@jax.jit
def _jacobian(diffusion: Diffusion, x: Array, t: Array) -> Array:
    scale, std = _channel(diffusion, t)
    dim = x.shape[-1]

    def column(u: Array) -> Array:
        return diffusion.data.covariance_product(x, scale, std, jnp.broadcast_to(u, x.shape))

    covariance = jnp.moveaxis(jax.lax.map(column, jnp.eye(dim, dtype=x.dtype)), 0, -1)
    gain = jnp.square(per_event(scale, x) / per_event(std, x))[..., None]
    variance = per_event(diffusion.process.variance(t), x)[..., None]
    return (gain * covariance - jnp.eye(dim, dtype=x.dtype)) / variance


@partial(jax.jit, static_argnums=3)
def _sample(diffusion: Diffusion, key: Array, t: ArrayLike, n: int) -> Array:
    data, process = diffusion.data, diffusion.process
    if hasattr(data, "sample_noised"):
        return data.sample_noised(key, n, process.scale(t), process.std(t))
    key_data, key_noise = jax.random.split(key)
    return processes.perturb(key_noise, process, data.sample(key_data, n), t)


@jax.jit
def _sample_posterior(diffusion: Diffusion, key: Array, x: Array, t: Array) -> Array:
    return diffusion.data.sample_posterior(key, x, *_channel(diffusion, t))
