r"""Denoising losses: what a network predicts, how noise levels are drawn and weighted.

A clean example ``a`` is noised to ``x = scale a + std z``. With ``c^2 = scale^2 + std^2``,
``alpha = scale / c`` and ``sigma = std / c`` the network predicts one of

    eps: z,          x0: a,          v: alpha z - sigma a.                                   (1)

For one and the same estimate of ``a`` their errors differ by known factors,

    |dz|^2 = snr |da|^2,             |dv|^2 = (1 + snr) |da|^2,      snr = scale^2 / std^2,   (2)

so that every weighting is a factor ``w`` of ``|da|^2 / d``, whatever is predicted:

    eps: snr,   x0: 1,   v: 1 + snr,   min_snr: min(snr, 5),   sigmoid: snr / (1 + snr e^{-2}). (3)

In the units of the network's own error the factor is ``w`` over that of (2); nothing is divided by
``scale``. The network is a pure function ``apply(params, x, time, *, key)``: ``x`` is
``(B, ...)``, ``time`` ``(B,)`` is the process's own clock (a step index, a sigma, OU time), and
``key`` is that of dropout (None: evaluation).

References:
    Ho, Jain, Abbeel 2020 (2006.11239), eq. (14); Salimans, Ho 2022 (2202.00512), for v; Hang et al.
    2023 (2303.09556), for min-SNR; Kingma, Gao 2023 (2303.00848), for the sigmoid; Kingma,
    Salimans, Poole, Ho 2021 (2107.00630), appendix I.1, for evenly spread noise levels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import Partial
from jax.typing import ArrayLike, DTypeLike

from diffjax import checks, processes, records, schedules
from diffjax.noise import normal
from diffjax.observables.estimates import Estimate, mean_and_error
from diffjax.processes import Process

Apply = Callable[..., Array]
"""``apply(params, x (B, ...), time (B,), *, key) -> (B, ...)``."""

_FARTHEST = 60.0  # |log snr| beyond which weights are taken at this value, so that none is 0 / 0

# Logarithms of the factors of |da|^2, eq. (2) and (3), as functions of log snr.
_LOG_WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "eps": lambda y: y,
    "x0": jnp.zeros_like,
    "v": jax.nn.softplus,
    "min_snr": lambda y: jnp.minimum(y, math.log(5)),
    "sigmoid": lambda y: y + jax.nn.log_sigmoid(2 - y),
}
PARAMETRISATIONS = ("eps", "x0", "v")
WEIGHTINGS = tuple(_LOG_WEIGHTS)


@records.register
@dataclass(frozen=True)
class ListedTimes:
    """Noise levels drawn uniformly and independently from a list of OU times ``(K,)``."""

    times: Array

    def draw(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        """``n`` times."""
        index = jax.random.randint(key, (n,), 0, self.times.shape[0], jnp.int32)
        return self.times.astype(dtype)[index]


@records.register
@dataclass(frozen=True)
class EvenLogSnr:
    """Noise levels uniform in log snr between two OU times, spread evenly over a batch."""

    t_min: Array | float
    t_max: Array | float

    def draw(self, key: Array, n: int, dtype: DTypeLike) -> Array:
        """``n`` times: one uniform shift of an even grid, so that a batch covers every level."""
        shift = jax.random.uniform(key, (), dtype)
        share = (jnp.arange(n, dtype=dtype) / n + shift) % 1
        low, high = (
            jnp.log(jnp.expm1(2 * jnp.asarray(t, dtype))) for t in (self.t_min, self.t_max)
        )
        return 0.5 * jax.nn.softplus(low + share * (high - low))


@records.register
@dataclass(frozen=True)
class Objective:
    """What is trained; made by `objective`, `published` or `modern`."""

    process: Process
    levels: ListedTimes | EvenLogSnr
    parametrisation: str = field(metadata={"static": True})
    weighting: str = field(metadata={"static": True})


def objective(
    process: Process,
    levels: ListedTimes | EvenLogSnr,
    parametrisation: str = "eps",
    weighting: str = "eps",
) -> Objective:
    """A denoising objective.

    Args:
        process: the channel; its own clock is the ``time`` that the network is given.
        levels: how noise levels are drawn.
        parametrisation: ``eps``, ``x0`` or ``v``, eq. (1).
        weighting: ``eps``, ``x0``, ``v``, ``min_snr`` or ``sigmoid``, eq. (3).

    Raises:
        ValueError: on an unknown name, or noise levels that are not above zero.
    """
    for name, value, known in (
        ("parametrisation", parametrisation, PARAMETRISATIONS),
        ("weighting", weighting, WEIGHTINGS),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(known)}")
    for times in jax.tree.leaves(levels):
        checks.positive(times, "times of the noise levels")
    return Objective(process, levels, parametrisation, weighting)


def published(process: Process | None = None) -> Objective:
    """The published objective: noise prediction, index uniform on 1..999 of DDPM's schedule.

    Index 0 is sampled from but never trained.

    Args:
        process: another process in whose coordinates and clock the network sees the same noise
            levels, for a network that takes OU times; default: that of the schedule.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    times = schedules.ddpm_linear()
    process = processes.variance_preserving(times) if process is None else process
    return objective(process, ListedTimes(times[1:]))


def modern(
    process: Process | None = None,
    *,
    t_min: float = 1e-4,
    t_max: float = 5.0,
    parametrisation: str = "v",
    weighting: str = "sigmoid",
) -> Objective:
    """Prediction of v at even log snr with the sigmoid weighting; OU time unless given a process.

    Raises:
        ValueError: on an unknown name, or unless ``0 < t_min < t_max``.

    References:
        Kingma, Gao 2023 (2303.00848); Salimans, Ho 2022 (2202.00512).
    """
    if not 0 < t_min < t_max:
        raise ValueError(f"need 0 < t_min < t_max, got {t_min} and {t_max}")
    process = processes.ornstein_uhlenbeck() if process is None else process
    return objective(process, EvenLogSnr(t_min, t_max), parametrisation, weighting)


def target(parametrisation: str, a: Array, z: Array, scale: ArrayLike, std: ArrayLike) -> Array:
    """What the network should predict, eq. (1), shape of ``a``; ``scale``, ``std`` are ``(B,)``."""
    if parametrisation == "eps":
        return z
    if parametrisation == "x0":
        return a
    alpha, sigma, _ = _angles(a, scale, std)
    return alpha * z - sigma * a


def denoised(
    parametrisation: str, output: Array, x: Array, scale: ArrayLike, std: ArrayLike
) -> Array:
    """The estimate of ``E[a | x]`` that an output stands for; only ``eps`` divides by scale."""
    if parametrisation == "x0":
        return output
    if parametrisation == "eps":
        return (x - _per_example(std, x) * output) / _per_example(scale, x)
    alpha, sigma, c = _angles(x, scale, std)
    return alpha * x / c - sigma * output


def prediction(
    parametrisation: str, mean: Array, x: Array, scale: ArrayLike, std: ArrayLike
) -> Array:
    """The output that stands for an estimate ``mean`` of ``a``: the inverse of `denoised`."""
    if parametrisation == "x0":
        return mean
    if parametrisation == "eps":
        return (x - _per_example(scale, x) * mean) / _per_example(std, x)
    alpha, sigma, c = _angles(x, scale, std)
    return (alpha * x / c - mean) / sigma


def weights(parametrisation: str, weighting: str, log_snr: ArrayLike) -> Array:
    """Factor of the squared error of the network's own output, eq. (3) over eq. (2)."""
    y = jnp.clip(jnp.asarray(log_snr), -_FARTHEST, _FARTHEST)
    return jnp.exp(_LOG_WEIGHTS[weighting](y) - _LOG_WEIGHTS[parametrisation](y))


def example_losses(
    objective: Objective,
    apply: Apply,
    params: Any,
    a: Array,
    t: Array,
    z: Array,
    *,
    key: Array | None = None,
    labels: Array | None = None,
) -> Array:
    """Weighted squared error of every example, averaged over coordinates, ``(B,)``.

    Args:
        objective: process, parametrisation and weighting.
        apply: the network.
        params: its parameters.
        a: clean examples ``(B, ...)``.
        t: OU times ``(B,)``.
        z: standard normals, shape of ``a``.
        key: key of dropout; None for evaluation.
        labels: class of every example ``(B,)``, which a conditional network takes after the time;
            None for a network without.

    Returns:
        Losses in float32 or better, whatever the dtype of the network's output.
    """
    process, kind = objective.process, objective.parametrisation
    scale, std = process.scale(t), process.std(t)
    x = _per_example(scale, a) * a + _per_example(std, a) * z
    known = () if labels is None else (labels,)
    output = apply(params, x, jnp.asarray(process.native(t), a.dtype), *known, key=key)
    wanted = target(kind, a, z, scale, std)
    error = jnp.square(output.astype(a.dtype) - wanted)
    factor = weights(kind, objective.weighting, jnp.log(processes.snr(process, t)))
    return factor.astype(a.dtype) * jnp.mean(error.reshape(len(a), -1), axis=-1)


def as_partial(network: Any) -> Partial:
    """A network as a pytree that can be called.

    Raises:
        TypeError: if it is not a hashable function of ``(params, x, time, *, key)``.
    """
    if not callable(network):
        raise TypeError(
            "network must be a function of (params, x, time, *, key), like those of "
            f"diffjax.networks.functional, got {type(network).__name__}"
        )
    hash(network)  # compiled programs are found again by it
    return network if isinstance(network, Partial) else Partial(network)


def noise_losses(
    key: Array,
    objective: Objective,
    network: Any,
    params: Any,
    data: Array,
    times: ArrayLike,
    *,
    samples: int = 512,
    batch: int = 256,
) -> Estimate:
    r"""Error of the noise prediction at each time, ``E|z - eps|^2`` summed over coordinates.

    By (2) it is ``snr`` times the error of the denoiser, for every parametrisation; its integral
    over log snr is twice an information. On training points an over-fitted network has a smaller
    error than on held-out ones.

    Args:
        key: typed PRNG key; time i uses ``fold_in(key, i)``.
        objective: process and parametrisation.
        network: a function ``apply``; called with ``key=None``.
        params: its parameters.
        data: clean examples ``(n, ...)``, drawn uniformly and independently.
        times: OU times ``(T,)``, all above 0.
        samples: noised examples per time; rounded up to full batches.
        batch: examples per call of the network.

    Returns:
        Mean and standard error over noised examples, ``(T,)`` each.

    Raises:
        ValueError: if a time is not positive, or a count is below one.

    References:
        Guo, Shamai, Verdu 2005 (cs/0412108).
    """
    checks.noise_time(times, zero_allowed=False)
    batch = min(checks.count(batch, "batch"), checks.count(samples, "samples"))
    plain = Objective(objective.process, objective.levels, objective.parametrisation, "eps")
    grid = jnp.atleast_1d(jnp.asarray(times, data.dtype))
    return _noise_losses(
        key,
        plain,
        as_partial(network),
        params,
        data,
        grid,
        blocks=-(-samples // batch),
        batch=batch,
    )


@partial(jax.jit, static_argnames=("blocks", "batch"))
def _noise_losses(
    key: Array,
    objective: Objective,
    apply: Partial,
    params: Any,
    data: Array,
    times: Array,
    *,
    blocks: int,
    batch: int,
) -> Estimate:
    n, size = data.shape[0], math.prod(data.shape[1:])

    def at_time(item: tuple[Array, Array]) -> Array:
        index, t = item
        key_time = jax.random.fold_in(key, index)

        def block(number: Array) -> Array:
            key_row, key_noise = jax.random.split(jax.random.fold_in(key_time, number))
            a = data[jax.random.randint(key_row, (batch,), 0, n, jnp.int32)]
            z = normal(key_noise, a.shape, a.dtype)
            return size * example_losses(objective, apply, params, a, jnp.full(batch, t), z)

        return jax.lax.map(block, jnp.arange(blocks)).reshape(-1)

    losses = jax.lax.map(at_time, (jnp.arange(times.shape[0]), times))
    return mean_and_error(losses, axis=1)


def _per_example(value: ArrayLike, x: Array) -> Array:
    """``value (B,)`` in the dtype of ``x`` with one axis for each of an example."""
    value = jnp.asarray(value, x.dtype)
    return cast(Array, value.reshape(value.shape + (1,) * (x.ndim - value.ndim)))


def _angles(x: Array, scale: ArrayLike, std: ArrayLike) -> tuple[Array, Array, Array]:
    """``alpha, sigma, c`` of eq. (1), broadcast against ``x``."""
    scale, std = _per_example(scale, x), _per_example(std, x)
    c = jnp.hypot(scale, std)
    return scale / c, std / c, c
