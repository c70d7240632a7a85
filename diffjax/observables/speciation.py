r"""Class commitment: the clone agreement ``phi(t)`` and its crossing.

Two backward trajectories that branch from one ``x_t`` with independent noise end in the same
class with probability ``phi(t) = E_{x ~ P_t} sum_c p(c | x)^2``, which falls from 1 (for separable
classes) to ``sum_c w_c^2``. With an exact class posterior no trajectory is needed; the estimator
from pairs works for any sampler and any classifier.

References:
    Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.data.base import Classified, require
from diffjax.diffusion import Diffusion
from diffjax.observables.estimates import Estimate, mean_and_error

CROSSING_LEVEL = 0.5504
"""Normalised agreement at the published crossing: phi = 0.775 for two equal classes."""


def clone_agreement(key: Array, diffusion: Diffusion, times: ArrayLike, samples: int) -> Estimate:
    """``phi(t) = E sum_c p(c | x_t)^2`` with fresh ``x_t ~ P_t`` at every time.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        diffusion: needs data with classes.
        times: OU times ``(T,)``, above 0 where the data have no density.
        samples: number of states per time.

    Returns:
        Mean and standard error, ``(T,)``.

    Raises:
        TypeError: if the data have no classes.
        ValueError: if a time is negative, or 0 where the data have no density.
    """
    require(diffusion.data, Classified, "clone_agreement")
    has_density = getattr(diffusion.data, "has_density", False)
    checks.noise_time(times, zero_allowed=has_density, why=" (the clean data have no density)")
    times = jnp.atleast_1d(jnp.asarray(times))
    keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(times.shape[0]))
    return _agreement(diffusion, keys, times, samples)


@partial(jax.jit, static_argnames="samples")
def _agreement(diffusion: Diffusion, keys: Array, times: Array, samples: int) -> Estimate:
    def one_time(item: tuple[Array, Array]) -> Estimate:
        key, t = item
        x = diffusion.sample(key, t, samples)
        t = t.astype(x.dtype)
        scale, std = diffusion.process.scale(t), diffusion.process.std(t)
        log_p = diffusion.data.class_log_posterior(x, scale, std)
        return mean_and_error(agreement_of_posterior(log_p))

    return jax.lax.map(one_time, (keys, times))


def agreement_of_posterior(class_log_posterior: Array) -> Array:
    """``sum_c p_c^2`` of log posteriors ``(..., K)``: chance that two clones agree."""
    return jnp.sum(jnp.exp(2 * class_log_posterior), axis=-1)


def agreement_of_pairs(first: Array, second: Array) -> Estimate:
    """Fraction of pairs ``(B,)`` with equal class indices, and its standard error."""
    return mean_and_error((first == second).astype(jnp.result_type(float)))


def normalised_agreement(phi: Array, class_weights: Array) -> Array:
    """``(phi - sum w^2) / (1 - sum w^2)``: 1 where the class is decided, 0 where it is forgotten.

    NaN for a single class, which is decided at every time.
    """
    floor = jnp.sum(jnp.square(class_weights))
    return jnp.where(floor < 1, (phi - floor) / (1 - floor), jnp.nan)
