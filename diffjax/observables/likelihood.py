r"""Negative log-likelihood of data under a backward chain, by the loss of its denoiser.

The chain starts from ``p_T`` at the largest time, is driven by a denoiser D, and ends with a draw
from ``p(a | x_1)`` at the smallest. The likelihood of a clean point a is bounded by

    -log p(a) <= KL(q_T | p_T) + 1/2 int_{snr_T}^{snr_1} E |a - D(x)|^2 d snr
                 + E[-log p(a | x_1)],        q_t = N(scale a, std^2 I),                    (1)

with ``log p(a | x_1) = log p_0(a) + log q_1(x_1) - log p_1(x_1)``. It is an equality, for every
point a, where D is the posterior mean of one density p and both ends belong to it, because
``d KL(q_t | p_t) / d snr = E |a - D|^2 / 2``. A sum over noise levels: the best denoiser of every
level has the smallest bound, whatever happens at the other levels.

References:
    Guo, Shamai, Verdu 2005 (cs/0412108); Verdu 2010; Song, Durkan, Murray, Ermon 2021 (2101.09258);
    Kingma, Salimans, Poole, Ho 2021 (2107.00630).
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.data.base import Posterior, per_event, require
from diffjax.diffusion import Diffusion, denoise_at
from diffjax.noise import normal
from diffjax.observables.estimates import Estimate, mean_and_error


def negative_log_likelihood(
    key: Array,
    model: Diffusion,
    points: ArrayLike,
    t_min: ArrayLike,
    t_max: ArrayLike,
    *,
    start: Diffusion | None = None,
    end: Diffusion | None = None,
    levels: int = 64,
) -> Estimate:
    """Mean of the bound (1) over points, with the standard error over points.

    Args:
        key: typed PRNG key; the same key gives the same noise, so that differences between two
            models, and gradients, have little noise.
        model: whose denoiser drives the chain.
        points: clean data, held out from what the model was made of, ``(M, d)``.
        t_min: OU time of the last step of the chain, positive.
        t_max: OU time of its start.
        start: its ``log_density`` at ``t_max`` is ``log p_T``; ``model`` if None.
        end: its posterior at ``t_min`` is the last step; it needs a density at t = 0; ``model``
            if None.
        levels: noise levels of the integral, one in each of as many equal intervals of
            ``log snr``, drawn afresh for every point (unbiased).

    Returns:
        Nats, summed over the coordinates: mean and standard error, scalars. `point_losses` has
        the values of the points.

    Raises:
        ValueError: on wrong shapes or times.
        TypeError: if an end has no density.
    """
    return mean_and_error(
        point_losses(key, model, points, t_min, t_max, start=start, end=end, levels=levels)
    )


def point_losses(
    key: Array,
    model: Diffusion,
    points: ArrayLike,
    t_min: ArrayLike,
    t_max: ArrayLike,
    *,
    start: Diffusion | None = None,
    end: Diffusion | None = None,
    levels: int = 64,
) -> Array:
    """The bound (1) of every point, ``(M,)``; arguments as in `negative_log_likelihood`."""
    start, end = (model if other is None else other for other in (start, end))
    for place, name in ((start, "start"), (end, "end")):
        require(place.data, Posterior, f"the {name} of a chain with a likelihood")
    if checks.is_concrete(end.data) and not getattr(end.data, "has_density", False):
        raise TypeError("the end of the chain needs a density at t = 0, e.g. smoothed(data, h)")
    points = checks.floating(points, "points")
    if points.ndim != 2:
        raise ValueError(f"points has shape {points.shape}, expected (M, d)")
    checks.event_size(points, model.dim, "points")
    checks.noise_time(t_min, zero_allowed=False)
    if checks.is_concrete(t_min, t_max) and not np.asarray(t_min) < np.asarray(t_max):
        raise ValueError(f"need t_min < t_max, got {t_min} and {t_max}")
    levels = checks.count(levels, "levels")
    return _losses(key, model, start, end, points, t_min, t_max, levels)


@partial(jax.jit, static_argnames="levels")
def _losses(
    key: Array,
    model: Diffusion,
    start: Diffusion,
    end: Diffusion,
    points: Array,
    t_min: ArrayLike,
    t_max: ArrayLike,
    levels: int,
) -> Array:
    key_levels, key_start, key_end = jax.random.split(key, 3)
    inside = _integral(key_levels, model, points, t_min, t_max, levels)
    x, log_q = _noised(key_start, start, points, t_max)
    prior = log_q - _log_density(start, x, t_max)
    x, log_q = _noised(key_end, end, points, t_min)
    clean = end.data.log_normaliser(points, 1.0, 0.0)
    decoder = clean + log_q - _log_density(end, x, t_min)
    return prior + inside - decoder


def _integral(
    key: Array, model: Diffusion, points: Array, t_min: ArrayLike, t_max: ArrayLike, levels: int
) -> Array:
    """Half the integral of the squared error over snr, a stratified sum in ``log snr``."""
    T = model.process.temperature
    ends = jnp.asarray([t_max, t_min], points.dtype)
    low, high = -jnp.log(T * jnp.expm1(2 * ends))
    width = (high - low) / levels

    def level(total: Array, k: Array) -> tuple[Array, None]:
        key_place, key_noise = jax.random.split(jax.random.fold_in(key, k))
        place = jax.random.uniform(key_place, points.shape[:1], points.dtype)
        log_snr = low + width * (k + place)
        t = 0.5 * jnp.log1p(jnp.exp(-log_snr) / T)
        x, _ = _noised(key_noise, model, points, t)
        error = jnp.sum(jnp.square(points - denoise_at(model, x, t)), axis=-1)
        return total + 0.5 * width * jnp.exp(log_snr) * error, None

    start = jnp.zeros(points.shape[:1], points.dtype)
    return jax.lax.scan(level, start, jnp.arange(levels))[0]


def _noised(key: Array, model: Diffusion, points: Array, t: ArrayLike) -> tuple[Array, Array]:
    """``x ~ q_t`` and ``log q_t(x)``."""
    t = jnp.asarray(t, points.dtype)
    z = normal(key, points.shape, points.dtype)
    process = model.process
    x = per_event(process.scale(t), points) * points + per_event(process.std(t), points) * z
    variance = 2 * jnp.pi * process.variance(t)
    log_q = -0.5 * (jnp.sum(jnp.square(z), axis=-1) + points.shape[-1] * jnp.log(variance))
    return x, log_q


def _log_density(model: Diffusion, x: Array, t: ArrayLike) -> Array:
    t = jnp.asarray(t, x.dtype)
    return model.data.log_normaliser(x, model.process.scale(t), model.process.std(t))
