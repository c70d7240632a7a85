r"""A trained network as a data distribution that only knows ``denoise``.

The network was trained in the coordinates and on the clock of a process (``variance_preserving``
of a schedule for one with step indices). Asked about the channel ``x = scale a + std z`` of any
other process, it is called at the OU time of the same signal-to-noise ratio,

    t = log(1 + std^2 / (T scale^2)) / 2,                                                  (1)

with ``x`` rescaled to the coordinates of its own process,

    x' = x hypot(scale'(t), std'(t)) / hypot(scale, std),     time = native'(t),            (2)

and its output, a prediction of z, of a, or of ``v = alpha z - sigma a`` with
``alpha, sigma = (scale, std) / hypot(scale, std)``, gives both the posterior mean and the score

    E[z | x] = z,   (x - scale a) / std,   or   sigma x / hypot(scale, std) + alpha v,
    score = -E[z | x] / std.                                                               (3)

References:
    Ho, Jain, Abbeel 2020 (2006.11239); Salimans, Ho 2022 (2202.00512); Karras et al. 2022
    (2206.00364), section 3: networks are interchangeable between samplers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes, records
from diffjax.data.base import per_event
from diffjax.networks.layers import at_least_single
from diffjax.networks.objectives import PARAMETRISATIONS, denoised
from diffjax.processes import Process, VariancePreserving

_NO_SIGNAL = 10.0  # OU time at which the signal-to-noise ratio is 2e-9


@records.register
@dataclass(frozen=True)
class NetworkDenoiser:
    """A network as a data distribution; made by `network_denoiser`.

    Attributes:
        params: parameters of the network, traced.
        process: the process of the network, traced.
        t_range: OU times between which the network was trained, ``(2,)``, traced.
        apply: ``apply(params, x, time)``, static.
        shape: shape of one event of the network, static.
        parametrisation: ``eps``, ``x0`` or ``v``, static.
        whole_steps: whether the clock is rounded to integers, static.
    """

    params: Any
    process: Process
    t_range: Array
    apply: Callable[..., Array] = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    parametrisation: str = field(metadata={"static": True})
    whole_steps: bool = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        """Dimension d of the data: the product of ``shape``."""
        return math.prod(self.shape)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Estimate of ``E[a | x]``, shape of ``x``."""
        output, x, scale, std, dtype = self._call(x, scale, std)
        return denoised(self.parametrisation, output, x, scale, std).astype(dtype)

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Estimate of the score, eq. (3), shape of ``x``; divides by no scale."""
        output, x, scale, std, dtype = self._call(x, scale, std)
        noise = _NOISE[self.parametrisation](output, x, per_event(scale, x), per_event(std, x))
        return (-noise / per_event(std, x)).astype(dtype)

    def _call(
        self, x: Array, scale: ArrayLike, std: ArrayLike
    ) -> tuple[Array, Array, Array, Array, Any]:
        """The network's output at (1, 2), the channel per state, and the dtype of the result."""
        asked, dtype = x.dtype, at_least_single(x.dtype)
        batch = jnp.broadcast_shapes(x.shape[:-1], jnp.shape(scale), jnp.shape(std))
        x = jnp.broadcast_to(x, (*batch, self.dim)).astype(dtype)
        scale, std = (jnp.broadcast_to(jnp.asarray(v, dtype), batch) for v in (scale, std))
        scale, t = self._time(scale, std)
        size = jnp.hypot(self.process.scale(t), self.process.std(t)) / jnp.hypot(scale, std)
        native = self.process.native(jnp.clip(t, *self.t_range.astype(dtype)))
        if self.whole_steps:
            native = jnp.round(native).astype(jnp.int32)
        event = (per_event(size, x) * x).reshape(*batch, *self.shape)
        output = self.apply(self.params, event, native)
        return output.reshape(x.shape).astype(dtype), x, scale, std, asked

    def _time(self, scale: Array, std: Array) -> tuple[Array, Array]:
        """Eq. (1), with as much signal as the network was trained to see at least."""
        last, T = self.t_range[1].astype(std.dtype), self.process.temperature
        ratio = jnp.exp(-last) / jnp.sqrt(-T * jnp.expm1(-2 * last))
        scale = jnp.maximum(scale, std * ratio.astype(std.dtype))
        return scale, 0.5 * jnp.log1p(jnp.square(std / scale) / T)


def network_denoiser(
    apply: Callable[..., Array],
    params: Any,
    *,
    shape: int | tuple[int, ...],
    process: Process | None = None,
    parametrisation: str = "eps",
    t_range: tuple[float, float] | None = None,
    whole_steps: bool | None = None,
) -> NetworkDenoiser:
    """Make a network a data distribution for every sampler, clones and U-turns.

    Noisier than the noisiest level that was trained, a state is denoised at that level, so that
    no estimate divides by a vanishing scale; cleaner than the cleanest, the network is called at
    the cleanest level and its output is read with the true one.

    Args:
        apply: pure function ``apply(params, x (..., *shape), time (...))``, hashable: a
            `diffjax.networks.Network`, its method ``apply``, or any function.
        params: its parameters, a pytree. They run in their own dtype; everything around the
            network runs in the dtype of the states, in float32 at least.
        shape: shape ``(H, W, C)`` of an event, or the dimension of a vector. States are flat,
            ``(..., H W C)``, row by row with the channel last.
        process: the process that it was trained in: its coordinates and its clock. OU time if
            None; ``variance_preserving(ddpm_linear())`` for the published networks.
        parametrisation: what it predicts, ``eps``, ``x0`` or ``v``, eq. (3).
        t_range: OU times between which it was trained; the schedule of a variance-preserving
            process, else 0 to 10.
        whole_steps: round the clock to the nearest integer (nearest index in OU time) rather
            than to call the network at fractional indices. Default: for variance-preserving
            processes only.

    Raises:
        ValueError: on an unknown parametrisation, or unless ``0 <= t_min < t_max <= 40``.
        TypeError: if ``apply`` cannot be called.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239); Salimans, Ho 2022 (2202.00512).
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function of (params, x, time), got {apply!r}")
    if parametrisation not in PARAMETRISATIONS:
        raise ValueError(
            f"unknown parametrisation {parametrisation!r}; choose one of "
            f"{', '.join(PARAMETRISATIONS)}"
        )
    process = processes.ornstein_uhlenbeck() if process is None else process
    listed = isinstance(process, VariancePreserving)
    event = (shape,) if isinstance(shape, int) else tuple(shape)
    return NetworkDenoiser(
        params=params,
        process=process,
        t_range=_range(process, t_range),
        apply=apply,
        shape=tuple(checks.count(side, "shape") for side in event),
        parametrisation=parametrisation,
        whole_steps=listed if whole_steps is None else bool(whole_steps),
    )


def _range(process: Process, t_range: tuple[float, float] | None) -> Array:
    """Checked ``t_range``, or that of the process."""
    if t_range is None and isinstance(process, VariancePreserving):
        return process.schedule[jnp.array([0, -1])]
    low, high = (0.0, _NO_SIGNAL) if t_range is None else t_range
    if not 0 <= low < high <= 4 * _NO_SIGNAL:
        raise ValueError(f"need 0 <= t_min < t_max <= 40 in t_range, got {t_range}")
    return jnp.asarray(np.array([low, high]), jnp.result_type(float))


def _noise_from_v(v: Array, x: Array, scale: Array, std: Array) -> Array:
    """``sigma x' + alpha v`` with variance-preserving ``x'``."""
    total = jnp.hypot(scale, std)
    return (std * x / total + scale * v) / total


_NOISE: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "eps": lambda z, x, scale, std: z,
    "x0": lambda a, x, scale, std: (x - scale * a) / std,
    "v": _noise_from_v,
}
