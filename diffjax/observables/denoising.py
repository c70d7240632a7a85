r"""Loss of a denoiser per noise level, its gap between training and held-out data, and of classes.

A clean point ``a`` is noised to ``x_t = scale a + std z`` and guessed by ``D(x_t)``:

    mmse(t) = E |a - D(x_t)|^2,      l(t) = E |z - (x_t - scale D) / std|^2 = snr(t) mmse(t),   (1)

both summed over coordinates. For the exact posterior mean, and data from the true distribution,
``mmse`` is the smallest possible error, and half its integral over snr the information between
datum and state; any other denoiser has a larger one. On its own training points a denoiser that has
memorised them has a smaller one: the gap between held-out and training loss is the signal.

With a class ``c``, the error of a denoiser that is told the class is smaller by

    E |a - D(x_t)|^2 - E |a - D_c(x_t)|^2 = E |D_c(x_t) - D(x_t)|^2,                           (2)

and half its integral over snr is the information between class and state. Both sides are returned:
they agree for exact denoisers only, and the right one has much the smaller error.

References:
    Guo, Shamai, Verdu 2005 (cs/0412108); Verdu 2010 for denoisers of a wrong distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Classified, Denoiser, require
from diffjax.diffusion import Diffusion, ScoreModel, denoise_at
from diffjax.observables.estimates import Estimate, mean_and_error
from diffjax.observables.neighbours import point_set

BATCH = 1024
"""States that are denoised at once."""


class DenoisingLoss(NamedTuple):
    """Losses against time, each ``(T,)``, with independent errors; eq. (1).

    Attributes:
        times: OU times.
        mmse: squared error of the denoised point, summed over coordinates.
        noise_loss: squared error of the predicted noise, summed over coordinates.
    """

    times: Array
    mmse: Estimate
    noise_loss: Estimate


class DenoisingGap(NamedTuple):
    """Losses on training and on held-out points, and held-out minus training, ``(T,)`` each."""

    train: DenoisingLoss
    held_out: DenoisingLoss
    mmse: Estimate
    noise_loss: Estimate


class ClassDenoisingLoss(NamedTuple):
    """What knowing the class saves, against time, each ``(T,)``; eq. (2).

    Attributes:
        times: OU times.
        mmse: left side of (2): what the squared error loses.
        noise_loss: the same times snr: what the loss of noise prediction loses.
        separation: right side of (2).
    """

    times: Array
    mmse: Estimate
    noise_loss: Estimate
    separation: Estimate


def denoising_loss(
    key: Array,
    model: Diffusion | ScoreModel,
    points: ArrayLike,
    times: ArrayLike,
    *,
    samples: int,
    batch: int = BATCH,
) -> DenoisingLoss:
    """Loss of a denoiser on clean points, at every time; eq. (1).

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        model: `Diffusion` of anything with ``denoise`` (a trained network), or a score model.
        points: clean points ``(n, d)``, drawn uniformly with replacement.
        times: OU times ``(T,)``, above 0.
        samples: number of states per time (static).
        batch: states that are denoised at once (static).

    Raises:
        TypeError: if the data cannot denoise.
        ValueError: if the points are empty, not ``(n, d)`` or not finite, or have another dimension
            than the model; if a time is not positive; if a count is below 1.

    References:
        Guo, Shamai, Verdu 2005 (cs/0412108).
    """
    points, times = _checked(model, points, times)
    samples, batch = checks.count(samples, "samples"), checks.count(batch, "batch")
    mean, error = _loss(model, key, points, times, samples, min(batch, samples))
    ratio = processes.snr(model.process, times.astype(mean.dtype))
    return DenoisingLoss(times, Estimate(mean, error), Estimate(ratio * mean, ratio * error))


def denoising_gap(
    key: Array,
    model: Diffusion | ScoreModel,
    train: ArrayLike,
    held_out: ArrayLike,
    times: ArrayLike,
    *,
    samples: int,
    batch: int = BATCH,
) -> DenoisingGap:
    """Loss on held-out minus loss on training points at every time: positive where memorised.

    Arguments, errors and source are those of `denoising_loss`; both sets are noised independently.
    """
    keys = jax.random.split(key)
    sets = (train, held_out)
    losses = [
        denoising_loss(k, model, points, times, samples=samples, batch=batch)
        for k, points in zip(keys, sets)
    ]
    first, second = losses
    gaps = [
        Estimate(after.mean - before.mean, jnp.hypot(after.error, before.error))
        for before, after in zip(first[1:], second[1:])
    ]
    return DenoisingGap(first, second, *gaps)


def class_denoising_loss(
    key: Array,
    model: Diffusion,
    points: ArrayLike,
    labels: ArrayLike,
    times: ArrayLike,
    *,
    samples: int,
    batch: int = BATCH,
) -> ClassDenoisingLoss:
    """What knowing the class saves a denoiser, at every time; eq. (2).

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        model: `Diffusion` of data with ``denoise`` and ``class_denoise``.
        points: clean points ``(n, d)``, drawn uniformly with replacement.
        labels: class index of every point, ``(n,)``.
        times: OU times ``(T,)``, above 0.
        samples: number of states per time (static).
        batch: states that are denoised at once (static).

    Raises:
        TypeError: if the data have no classes.
        ValueError: as `denoising_loss`, and if a label is missing or out of range.

    References:
        Guo, Shamai, Verdu 2005 (cs/0412108).
    """
    require(getattr(model, "data", model), Classified, "class_denoising_loss")
    points, times = _checked(model, points, times)
    labels = np.asarray(labels)
    if labels.shape != points.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            f"labels has shape {labels.shape} and dtype {labels.dtype}, expected one integer class "
            f"for each of {len(points)} points"
        )
    if labels.min() < 0 or labels.max() >= model.data.classes:
        raise ValueError(
            f"labels run from {labels.min()} to {labels.max()}, but the model has "
            f"{model.data.classes} classes, counted from 0"
        )
    samples, batch = checks.count(samples, "samples"), checks.count(batch, "batch")
    mean, error = _class_loss(
        model, key, points, jnp.asarray(labels), times, samples, min(batch, samples)
    )
    ratio = processes.snr(model.process, times.astype(mean.dtype))
    saved, separation = Estimate(mean[:, 0], error[:, 0]), Estimate(mean[:, 1], error[:, 1])
    return ClassDenoisingLoss(
        times, saved, Estimate(ratio * saved.mean, ratio * saved.error), separation
    )


def _checked(model: Any, points: ArrayLike, times: ArrayLike) -> tuple[Array, Array]:
    """Points and times, after the checks that both losses share."""
    if not isinstance(model, ScoreModel):
        if not isinstance(model, Diffusion):
            raise TypeError(
                f"model is a {type(model).__name__}, expected a Diffusion(data, process): a "
                "denoiser alone does not say which time is which noise"
            )
        require(model.data, Denoiser, "denoising_loss")
    points = point_set(points, "points")
    if isinstance(model, Diffusion):
        checks.event_size(points, model.dim, "points")
    checks.noise_time(times, zero_allowed=False, why=" (there is no noise to predict)")
    return points, jnp.atleast_1d(checks.floating(times, "times"))


@partial(jax.jit, static_argnames=("samples", "batch"))
def _loss(model, key: Array, points: Array, times: Array, samples: int, batch: int) -> Estimate:
    def squared(index: Array, x: Array, t: Array) -> Array:
        return _square(points[index] - denoise_at(model, x, t))

    return _over_times(model, key, points, times, samples, batch, squared)


@partial(jax.jit, static_argnames=("samples", "batch"))
def _class_loss(
    model, key: Array, points: Array, labels: Array, times: Array, samples: int, batch: int
) -> Estimate:
    def differences(index: Array, x: Array, t: Array) -> Array:
        scale, std = model.process.scale(t), model.process.std(t)
        any_class = model.data.denoise(x, scale, std)
        every = model.data.class_denoise(x, scale, std)
        own = jnp.take_along_axis(every, labels[index][:, None, None], axis=1)[:, 0]
        shift = own - any_class
        # |a - D|^2 - |a - D_c|^2 without the difference of two large numbers
        saved = jnp.sum(shift * (2 * points[index] - own - any_class), -1)
        return jnp.stack([saved.astype(_wide(saved)), _square(shift)], -1)

    return _over_times(model, key, points, times, samples, batch, differences)


def _over_times(
    model,
    key: Array,
    points: Array,
    times: Array,
    samples: int,
    batch: int,
    measure: Callable[[Array, Array, Array], Array],
) -> Estimate:
    """Mean and error of ``measure(index, x, t)`` over fresh states at every time."""
    blocks = -(-samples // batch)

    def one_time(item: tuple[Array, Array]) -> Estimate:
        i, t = item
        t = t.astype(points.dtype)

        def block(key: Array) -> Array:
            key_index, key_noise = jax.random.split(key)
            index = jax.random.randint(key_index, (batch,), 0, points.shape[0])
            x = processes.perturb(key_noise, model.process, points[index], t)
            return measure(index, x, t)

        values = jax.lax.map(block, jax.random.split(jax.random.fold_in(key, i), blocks))
        return mean_and_error(values.reshape(-1, *values.shape[2:])[:samples])

    return jax.lax.map(one_time, (jnp.arange(times.shape[0]), times))


def _wide(values: Array) -> jnp.dtype:
    return jnp.promote_types(values.dtype, jnp.float32)


def _square(difference: Array) -> Array:
    return jnp.sum(jnp.square(difference.astype(_wide(difference))), -1)
