r"""Energies of a score that knows no density: along an arc, and by the probability flow.

In the coordinates ``y = x / scale = a + sqrt(v) z`` of the clean data, every score defines an
energy up to a constant,

    E(y, v) = -2 v log p_v(y),           grad E = -2 v F(y, v) = 2 (y - D(y, v)),            (1)

with the denoiser D. On a path only the tangential part of D counts: along the arc between two
states,

    y(phi) = cos(phi) y_1 + sin(phi) y_2,   E(phi) - E(0) = 2 int_0^phi (y - D) . y'(phi) dphi,  (2)

which depends on the path if D is that of a network, whose score need not be a gradient.

The density itself follows from the probability flow. With ``D`` and ``u = log v`` (which spreads
the noise levels evenly),

    dy/du = (y - D) / 2,       d log p / du = -(d - div D) / 2,                              (3)

along the trajectory from ``y`` up to a noise so large that p is a Gaussian of the moments of the
data,

    log p_v(y) = log N(y_end; mean, covariance + v_end) + (1/2) int (d - div D) du.          (4)

(4) is the likelihood that the flow of the network assigns, which is not that of its score where
the two differ. The error of the start falls like ``1/v_end``.

References:
    Song et al. 2021 (2011.13456), appendix D.2, for (3) and (4); Hutchinson 1989 for the trace by
    random probes; Pham et al. 2025 (2505.21777) for (2).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Denoiser, require
from diffjax.diffusion import Diffusion

__all__ = ["arc", "arc_energy", "flow_log_density"]


def arc(first: ArrayLike, second: ArrayLike, angles: ArrayLike) -> Array:
    """States ``cos(phi) y_1 + sin(phi) y_2`` of (2), ``(A, ..., d)``.

    Args:
        first: ``y_1``, ``(..., d)``, at angle 0.
        second: ``y_2``, ``(..., d)``, at angle pi/2.
        angles: phi, ``(A,)``.
    """
    first, second = jnp.asarray(first), jnp.asarray(second)
    angles = jnp.asarray(angles, first.dtype).reshape(-1, *(1,) * first.ndim)
    return jnp.cos(angles) * first + jnp.sin(angles) * second


def arc_energy(
    diffusion: Diffusion, first: ArrayLike, second: ArrayLike, t: ArrayLike, angles: ArrayLike
) -> Array:
    """Energy along an arc relative to its first angle, eq. (2).

    Three-point Gauss-Legendre quadrature between neighbouring angles.

    Args:
        diffusion: of any data with a denoiser, a network for example.
        first: ``y_1``, ``(..., d)``, in the coordinates of the clean data.
        second: ``y_2``, ``(..., d)``.
        t: one OU time, above 0.
        angles: increasing, ``(A,)``; at least two.

    Returns:
        ``(A, ...)``, 0 at the first angle.

    Raises:
        ValueError: on shapes that do not fit or a time that is not positive.

    References:
        Pham et al. 2025 (2505.21777), with the factor of (1).
    """
    first, t = _inputs(diffusion, first, t)
    second = jnp.asarray(second, first.dtype)
    angles = jnp.asarray(angles, first.dtype)
    if first.shape != second.shape or angles.ndim != 1 or angles.shape[0] < 2 or t.ndim:
        raise ValueError(
            f"first, second, angles and t have shapes {first.shape}, {second.shape}, "
            f"{angles.shape} and {t.shape}, expected two equal ones, (A,) with A >= 2, and one time"
        )
    return _arc_energy(diffusion, first, second, t, angles)


def flow_log_density(
    diffusion: Diffusion,
    y: ArrayLike,
    t: ArrayLike,
    *,
    mean: ArrayLike,
    variance: ArrayLike,
    t_max: float = 5.0,
    steps: int = 200,
    key: Array | None = None,
    probes: int = 1,
) -> Array:
    """``log p_v(y)`` by the probability flow, eq. (4), by classical Runge-Kutta steps even in u.

    Args:
        diffusion: of any data with a differentiable denoiser.
        y: states ``(..., d)`` in the coordinates of the clean data.
        t: one OU time, above 0 and below ``t_max``.
        mean: of the clean data, ``(d,)``.
        variance: of the clean data, one number or one for each coordinate: eq. (4) is started from
            a diagonal Gaussian.
        t_max: OU time at which the flow ends.
        steps: Runge-Kutta steps (static).
        key: typed PRNG key of random probes; None takes the exact trace with d derivatives.
        probes: number of probes of each state, the same at all steps (static).

    Returns:
        Nats, shape ``(...)``.

    Raises:
        ValueError: on shapes that do not fit, or times that are not ``0 < t < t_max``.

    References:
        Song et al. 2021 (2011.13456), appendix D.2.
    """
    y, t = _inputs(diffusion, y, t)
    if t.ndim or (checks.is_concrete(t) and not float(t) < t_max):
        raise ValueError(f"t must be one time below t_max = {t_max}, but is {t}")
    checks.positive(variance, "variance")
    mean, variance = (jnp.asarray(value, y.dtype) for value in (mean, variance))
    directions = _directions(key, y, checks.count(probes, "probes"))
    ends = jnp.stack([t, jnp.asarray(t_max, y.dtype)])
    return _flow(diffusion, y, ends, mean, variance, directions, checks.count(steps, "steps"))


def _inputs(diffusion: Diffusion, y: ArrayLike, t: ArrayLike) -> tuple[Array, Array]:
    require(diffusion.data, Denoiser, "an energy")
    checks.event_size(y, diffusion.dim, "state")
    checks.noise_time(t, zero_allowed=False, why=" (the energy of noiseless data is infinite)")
    y = checks.floating(y, "state")
    return y, jnp.asarray(t, y.dtype)


def _denoise(data: Any, y: Array, v: Array) -> Array:
    return data.denoise(y, jnp.ones_like(v), jnp.sqrt(v))


@jax.jit
def _arc_energy(
    diffusion: Diffusion, first: Array, second: Array, t: Array, angles: Array
) -> Array:
    v = 1 / processes.snr(diffusion.process, t)
    nodes, weights = (jnp.asarray(a, first.dtype) for a in np.polynomial.legendre.leggauss(3))
    half = 0.5 * jnp.diff(angles)
    inside = (angles[:-1] + half)[:, None] + half[:, None] * nodes
    y = arc(first, second, inside.ravel())
    along = arc(second, -first, inside.ravel())  # dy/dphi
    slope = 2 * jnp.sum((y - _denoise(diffusion.data, y, v)) * along, axis=-1)
    slope = slope.reshape(*inside.shape, *slope.shape[1:])
    steps = half.reshape(-1, *(1,) * (slope.ndim - 2)) * jnp.tensordot(slope, weights, ((1,), (0,)))
    return jnp.concatenate([jnp.zeros_like(steps[:1]), jnp.cumsum(steps, axis=0)])


def _directions(key: Array | None, y: Array, probes: int) -> Array:
    """Vectors u for which the mean of ``u . J u`` over the first axis is the trace of J."""
    dim = y.shape[-1]
    if key is None:
        axes = np.sqrt(dim) * jnp.eye(dim, dtype=y.dtype)
        return jnp.broadcast_to(axes.reshape(dim, *(1,) * (y.ndim - 1), dim), (dim, *y.shape))
    return jax.random.rademacher(key, (probes, *y.shape), y.dtype)


@partial(jax.jit, static_argnames="steps")
def _flow(
    diffusion: Diffusion,
    y: Array,
    ends: Array,
    mean: Array,
    variance: Array,
    directions: Array,
    steps: int,
) -> Array:
    data, dim = diffusion.data, y.shape[-1]
    low, high = -jnp.log(processes.snr(diffusion.process, ends))
    h = (high - low) / steps

    def rates(y: Array, u: Array) -> tuple[Array, Array]:
        def flow(y: Array) -> Array:
            return 0.5 * (y - _denoise(data, y, jnp.exp(u)))

        def along(direction: Array) -> Array:
            return jnp.sum(direction * jax.jvp(flow, (y,), (direction,))[1], axis=-1)

        return flow(y), jnp.mean(lax.map(along, directions), axis=0)

    ahead = jnp.asarray([0.5, 0.5, 1.0, 0.0], y.dtype)  # of the next stage
    share = jnp.asarray([1, 2, 2, 1], y.dtype) / 6

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        first, u = state[0], low + i.astype(y.dtype) * h

        # one copy of the network in the program, not four
        def stage(j: Array, s: tuple[Array, ...]) -> tuple[Array, ...]:
            here, offset, y, gained = s
            slope, rate = rates(here, u + offset)
            y, gained = y + h * share[j] * slope, gained + h * share[j] * rate
            return first + h * ahead[j] * slope, h * ahead[j], y, gained

        return lax.fori_loop(0, 4, stage, (first, jnp.zeros_like(h), *state))[2:]

    y, gained = lax.fori_loop(0, steps, step, (y, jnp.zeros(y.shape[:-1], y.dtype)))
    spread = jnp.broadcast_to(variance + jnp.exp(high), (dim,))
    squares = jnp.square(y - mean) / spread + jnp.log(2 * jnp.pi * spread)
    return gained - 0.5 * jnp.sum(squares, axis=-1)
