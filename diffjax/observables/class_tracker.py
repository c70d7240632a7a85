r"""The class posterior carried along backward trajectories of any model with class denoisers.

A class ``y ~ pi`` is drawn, and its chain runs from noise along a grid of times ``t -> s`` with
Gaussian kernels of the bridge's means,

    x_s = mu_y + sqrt(V) z,      mu_k = c_a D_k(x_t) + c_x x_t,                             (1)
    log P_k <- log P_k - |x_s - mu_k|^2 / 2V - log sum_j P_j exp(-|x_s - mu_j|^2 / 2V).     (2)

(2) is Bayes' rule for this chain: whatever the steps, ``P_k`` is the posterior of the class given
the path, so that ``E[-sum P log P]`` is an entropy. As the steps shrink it becomes
``p(y = k | x_t)`` of the exact process, and nothing but class denoisers is needed: a network that
was trained with labels will do. Distances in (2) are taken relative to the chain's own class,
``|x_s - mu_k|^2 - |x_s - mu_y|^2 = delta (delta + 2 sqrt(V) z)``, ``delta = mu_y - mu_k``, without
cancellation.

*The variance in (2) must be the one that generated x_s.* Ancestral samplers are often run with the
variance of the forward step (``Delta_{t-s}``, ``beta_t`` of a DDPM step), while the published rule
divides by the posterior variance ``V``; ``ratio_variance`` reproduces this mismatch, whose
posteriors are wrong at coarse steps, nearly all of it in the last step, where
``V << Delta_{t-s}``.

The rate along the way is ``g E sum_k P_k |D_k - D|^2`` with ``D = sum_k P_k D_k``
(`diffjax.observables.class_information`). A network's unconditional output is not this ``D``;
``mismatch`` is the rate ``g E|D - D_null|^2`` that it would be wrong by.

References:
    Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433); Koulischer et al. 2024 (2410.14398).
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import ClassDenoiser, Classified, Denoiser, per_event, require
from diffjax.diffusion import Diffusion
from diffjax.noise import normal
from diffjax.observables.class_information import (
    class_separation,
    class_weights,
    entropy_of,
    floored,
    rate_factor,
)
from diffjax.observables.estimates import Estimate, Moments, merge_moments, moments
from diffjax.processes import Process

BATCH = 512
"""Trajectories that run at once."""

VARIANCES = ("bridge", "forward")


class ClassTracking(NamedTuple):
    """Class information along trajectories, at every time of the grid; nats, OU time.

    Points of one run belong to the same trajectories and are correlated.

    Attributes:
        times: the grid ``(S + 1,)``, decreasing.
        entropy: mean entropy of the tracked posterior, ``(S + 1,)``.
        rate: ``dH/dt``, mean squared guidance with the tracked posterior, ``(S + 1,)``.
        gained: integral of the rate from ``times[0]`` down to each time, ``(S + 1,)``: the
            entropy lost since, if all is consistent; trapezoid rule in log snr.
        class_entropy: mean entropy over the trajectories of each class, ``(S + 1, K)``.
        class_loss: mean ``-log P_y`` over the trajectories of each class, ``(S + 1, K)``.
        class_loss_rate: rate of ``class_loss``, ``g E|D_y - D|^2``, ``(S + 1, K)``.
        mismatch: ``g E|D - D_null|^2``, NaN for a model without ``denoise``, ``(S + 1,)``.
        posterior_rms: root mean square over trajectories and classes of the difference between
            the tracked and the exact posterior, NaN where that is not known, ``(S + 1,)``.
    """

    times: Array
    entropy: Estimate
    rate: Estimate
    gained: Estimate
    class_entropy: Estimate
    class_loss: Estimate
    class_loss_rate: Estimate
    mismatch: Estimate
    posterior_rms: Array


def track_classes(
    key: Array,
    diffusion: Diffusion,
    times: ArrayLike,
    *,
    samples: int,
    batch: int = BATCH,
    prior: ArrayLike | None = None,
    step_variance: str = "bridge",
    ratio_variance: str | None = None,
) -> ClassTracking:
    """Run chains of random classes from pure noise and carry the class posterior along, eq. (1, 2).

    Args:
        key: typed PRNG key.
        diffusion: data with ``classes`` and ``class_denoise``; a conditional network is one.
        times: strictly decreasing OU times, above 0, from almost pure noise down, ``(S + 1,)``.
        samples: number of trajectories (static); rounded up to full batches.
        batch: trajectories that run at once; holds ``(batch, K, d)`` (static).
        prior: weights of the classes ``(K,)``, normalised here; those of the data if None.
        step_variance: variance of the kernel that generates the states: ``bridge`` for ``V``, or
            ``forward`` for that of the forward step, ``Delta_{t-s}``.
        ratio_variance: variance by which (2) divides; the one of the kernel if None. Another one
            is wrong, and here to show it.

    Raises:
        TypeError: if the model has no class denoisers, or no prior is known.
        ValueError: if the times do not decrease or reach 0, on an unknown variance, a bad prior, or
            a count below 1.

    References:
        Handke, Koulischer, Raya, Ambrogioni 2025 (2506.10433), algorithm for the online entropy.
    """
    if not isinstance(diffusion, Diffusion):
        raise TypeError(
            f"diffusion is a {type(diffusion).__name__}, expected a Diffusion(data, process)"
        )
    require(diffusion.data, ClassDenoiser, "track_classes")
    checks.decreasing(times)
    checks.noise_time(times, zero_allowed=False, why=" (the last kernel has no variance)")
    names = (step_variance, ratio_variance or step_variance)
    for name in names:
        if name not in VARIANCES:
            raise ValueError(f"unknown variance {name!r}; choose one of {', '.join(VARIANCES)}")
    batch = min(checks.count(batch, "batch"), checks.count(samples, "samples"))
    times = checks.floating(times, "times")
    forward = jnp.array([name == "forward" for name in names])
    parts, square = _track(
        diffusion, key, times, _log_prior(diffusion.data, prior), forward,
        blocks=-(-samples // batch), batch=batch,
    )  # fmt: skip
    return ClassTracking._make((times, *parts, jnp.sqrt(square)))


def _log_prior(data: ClassDenoiser, prior: ArrayLike | None) -> Array:
    """Checked, normalised and floored, ``(K,)``."""
    weights = checks.floating(class_weights(data) if prior is None else prior, "prior")
    if weights.shape != (data.classes,):
        raise ValueError(f"prior has shape {weights.shape}, expected ({data.classes},)")
    if checks.is_concrete(weights) and not (np.all(weights >= 0) and np.sum(weights) > 0):
        raise ValueError(f"prior must be >= 0 and not all zero, but is {weights}")
    return floored(jnp.log(weights / jnp.sum(weights)))


@partial(jax.jit, static_argnames=("blocks", "batch"))
def _track(
    diffusion: Diffusion,
    key: Array,
    times: Array,
    log_prior: Array,
    forward: Array,
    *,
    blocks: int,
    batch: int,
) -> tuple[tuple[Estimate, ...], Array]:
    """All estimates over ``blocks * batch`` trajectories, and the mean square of the error."""

    def block(number: Array) -> tuple[tuple[Moments, ...], Array]:
        key_block = jax.random.fold_in(key, number)
        return _trajectories(diffusion, key_block, times, log_prior, forward, batch)

    parts, square = jax.lax.map(block, jnp.arange(blocks))
    return tuple(merge_moments(part) for part in parts), jnp.mean(square, axis=0)


class _State(NamedTuple):
    x: Array  # (B, d)
    log_p: Array  # (B, K)
    gained: Array  # (B,)
    density: Array  # (B,) rate per unit of log snr at the time before


def _trajectories(
    diffusion: Diffusion,
    key: Array,
    times: Array,
    log_prior: Array,
    forward: Array,
    batch: int,
) -> tuple[tuple[Moments, ...], Array]:
    """One scan over the grid for one batch of trajectories."""
    process = diffusion.process
    key_class, key_start, key_steps = jax.random.split(key, 3)
    y = jax.random.categorical(key_class, log_prior, shape=(batch,))
    log_snr = jnp.log(processes.snr(process, times))
    widths = jnp.diff(log_snr, prepend=log_snr[:1])
    # the state after the last time is not used
    following = jnp.append(times[1:], 0.5 * times[-1])
    grid = (jnp.arange(times.shape[0]), times, following, widths)

    def body(state: _State, item: tuple[Array, ...]) -> tuple[_State, tuple]:
        index, t, s, width = item
        means = _class_means(diffusion, state.x, t)
        separation, _ = class_separation(state.log_p, means)
        density = _density(process, t, state.log_p, separation)
        gained = state.gained + 0.5 * (state.density + density) * width
        seen = _observed(diffusion, state, gained, t, y, means, separation)
        square = _posterior_error(diffusion, state, t)
        key_step = jax.random.fold_in(key_steps, index)
        x, log_p = _step(process, key_step, state, t, s, y, means, forward)
        return _State(x, log_p, gained, density), (seen, square)

    zero = jnp.zeros(batch, log_prior.dtype)
    log_p = jnp.broadcast_to(log_prior, (batch, log_prior.shape[0]))
    start = _State(_noise(process, key_start, times, (batch, diffusion.dim)), log_p, zero, zero)
    return jax.lax.scan(body, start, grid)[1]


def _noise(process: Process, key: Array, times: Array, shape: tuple[int, int]) -> Array:
    """``N(0, T I)`` in the coordinates of the OU process, at ``times[0]`` of this one."""
    t = times[0]
    size = process.scale(t) * jnp.exp(t) * jnp.sqrt(jnp.asarray(process.temperature, t.dtype))
    return size * normal(key, shape, times.dtype)


def _class_means(diffusion: Diffusion, x: Array, t: Array) -> Array:
    process = diffusion.process
    return diffusion.data.class_denoise(x, process.scale(t), process.std(t))


def _density(process: Process, t: Array, log_p: Array, separation: Array) -> Array:
    """``-dH/dlog snr = snr sum_k P_k |D_k - D|^2 / 2`` of every trajectory."""
    mean = jnp.sum(jnp.exp(log_p) * separation, axis=-1)
    return 0.5 * processes.snr(process, t).astype(mean.dtype) * mean


def _observed(
    diffusion: Diffusion,
    state: _State,
    gained: Array,
    t: Array,
    y: Array,
    means: Array,
    separation: Array,
) -> tuple[Moments, ...]:
    """Moments of all observables at one time, in the order of `ClassTracking`."""
    p, entropy = jnp.exp(state.log_p), entropy_of(state.log_p)
    gain = rate_factor(diffusion.process, t).astype(p.dtype)
    own = jax.nn.one_hot(y, p.shape[-1], dtype=p.dtype)
    return (
        moments(entropy),
        moments(gain * jnp.sum(p * separation, axis=-1)),
        moments(gained),
        moments(jnp.broadcast_to(entropy[:, None], p.shape), own),
        moments(-state.log_p, own),
        moments(gain * separation, own),
        moments(gain * _null_distance(diffusion, state.x, t, p, means)),
    )


def _null_distance(diffusion: Diffusion, x: Array, t: Array, p: Array, means: Array) -> Array:
    """``|D - D_null|^2`` of every trajectory; NaN for a model without ``denoise``."""
    if not isinstance(diffusion.data, Denoiser):
        return jnp.full(p.shape[0], jnp.nan, p.dtype)
    process = diffusion.process
    null = diffusion.data.denoise(x, process.scale(t), process.std(t))
    mean = jnp.sum(p.astype(means.dtype)[..., None] * means, axis=-2)
    return jnp.sum(jnp.square((mean - null).astype(p.dtype)), axis=-1)


def _posterior_error(diffusion: Diffusion, state: _State, t: Array) -> Array:
    """Mean square of the difference to the exact posterior; NaN where it is not known."""
    if not isinstance(diffusion.data, Classified):
        return jnp.asarray(jnp.nan, state.log_p.dtype)
    scale, std = diffusion.process.scale(t), diffusion.process.std(t)
    exact = floored(diffusion.data.class_log_posterior(state.x, scale, std))
    return jnp.mean(jnp.square(jnp.exp(exact) - jnp.exp(state.log_p)))


def _step(
    process: Process,
    key: Array,
    state: _State,
    t: Array,
    s: Array,
    y: Array,
    means: Array,
    forward: Array,
) -> tuple[Array, Array]:
    """Eq. (1) and (2), with distances relative to the chain's own class.

    ``forward (2,)`` says which of the kernel and the ratio has the forward step's variance.
    """
    x = state.x
    c_a, c_x, bridge = processes.bridge(process, s, t)
    step, ratio = jnp.where(forward, processes.transition(process, s, t)[1], bridge)
    own = jnp.take_along_axis(means, y[:, None, None], axis=1)
    kick = jnp.sqrt(step) * normal(key, x.shape, x.dtype)
    moved = per_event(c_a, x) * own[:, 0] + per_event(c_x, x) * x + kick
    delta = (c_a * (own - means)).astype(state.log_p.dtype)
    distance = jnp.sum(delta * (delta + 2 * kick[:, None].astype(delta.dtype)), axis=-1)
    log_p = state.log_p - distance / (2 * ratio.astype(delta.dtype))
    return moved, floored(jax.nn.log_softmax(log_p, axis=-1))
