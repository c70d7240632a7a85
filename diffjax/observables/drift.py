r"""Generative drifts: their Jacobian, growth rates, and potential along a path.

The generative dynamics with the marginals of a process, run in the time that grows from noise to
data, have the drift

    b(x, t) = -rho x + w F(x, t),   w = (1 + noise)/2 g(t)^2,                              (1)

with the forward drift ``rho x``, the diffusion coefficient g and the score F; in
Ornstein-Uhlenbeck coordinates ``b = x + (1 + noise) T F``. ``noise`` is 1 for the reverse SDE and 0
for the probability flow (it is the square of the amplitude in `methods.euler_maruyama`). With the
posterior mean D, whose derivative is ``D' = scale / std^2 Cov[a | x]``, the Jacobian is

    A = w scale / std^2 D' - (rho + w / std^2) I.                                          (2)

A positive eigenvalue means growth per unit of OU time. Of a network that is no gradient the
symmetric part of (2) is meant, and the size of the other part is reported.

Along ``x(phi) = cos(phi) x_1 + sin(phi) x_2`` between two data the potential is

    U(phi) = -int b . x'(phi) dphi.                                                        (3)

References:
    Raya, Ambrogioni 2023 (2305.19693).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Posterior, per_event
from diffjax.diffusion import Diffusion, ScoreModel, denoise_at, score_at
from diffjax.noise import normal
from diffjax.processes import Process

_COLUMNS = 64  # columns of a Jacobian that are computed at once


class DriftSpectrum(NamedTuple):
    """Spectrum of the symmetric part of the Jacobian of a drift."""

    eigenvalues: Array
    """Descending, ``(..., d)``: growth rates per unit of OU time."""
    asymmetry: Array
    """Norm of the antisymmetric part over that of the whole; 0 for the score of any density."""


class LeadingRate(NamedTuple):
    """Leading eigenvalue of the symmetric part of a Jacobian by Lanczos' method."""

    rate: Array
    """``(...)``, a lower bound that converges first of all."""
    residual: Array
    """Norm of ``A v - rate v``: an eigenvalue lies within it."""
    asymmetry: Array
    """Relative norm of the antisymmetric part, from one random vector; see `DriftSpectrum`."""


def drift(model: Any, x: ArrayLike, t: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Generative drift (1), ``(..., d)``.

    Args:
        model: a `Diffusion` or a `ScoreModel`.
        x: states ``(..., d)``.
        t: OU time > 0, broadcast against the batch.
        noise: 1 for the reverse SDE, 0 for the probability flow.

    Raises:
        ValueError: on a wrong event size or a time that is not positive.
    """
    x, t = checked(model, x, t, noise)
    return _drift(model, x, t, jnp.asarray(noise, x.dtype))


def drift_jacobian(model: Any, x: ArrayLike, t: ArrayLike, noise: ArrayLike = 1.0) -> Array:
    """Jacobian of the drift, ``(..., d, d)``, eq. (2); by forward differentiation of a network.

    Arguments as in `drift`.
    """
    x, t = checked(model, x, t, noise)
    return jacobian_at(model, x, t, jnp.asarray(noise, x.dtype))


def drift_spectrum(model: Any, x: ArrayLike, t: ArrayLike, noise: ArrayLike = 1.0) -> DriftSpectrum:
    """All growth rates at given states: eigenvalues of the symmetric part of the Jacobian.

    Arguments as in `drift`. Costs d products and an eigendecomposition for each state; for images
    and networks use `leading_rate`.

    References:
        Raya, Ambrogioni 2023 (2305.19693).
    """
    return spectrum_of(drift_jacobian(model, x, t, noise))


def leading_rate(
    key: Array,
    model: Any,
    x: ArrayLike,
    t: ArrayLike,
    noise: ArrayLike = 1.0,
    *,
    iterations: int = 30,
) -> LeadingRate:
    """Leading growth rate by Lanczos' method with products only, for many dimensions or networks.

    Args:
        key: typed PRNG key of the first vector.
        model: as in `drift`.
        x: states ``(..., d)``.
        t: OU time > 0, broadcast against the batch.
        noise: 1 for the reverse SDE, 0 for the probability flow.
        iterations: products per state, at most d (static).

    Raises:
        ValueError: on a wrong event size or a time that is not positive.
    """
    x, t = checked(model, x, t, noise)
    steps = min(checks.count(iterations, "iterations"), x.shape[-1])
    return _lanczos(key, model, x, t, jnp.asarray(noise, x.dtype), steps)


def path_potential(
    model: Any,
    first: ArrayLike,
    second: ArrayLike,
    t: ArrayLike,
    angles: ArrayLike,
    noise: ArrayLike = 1.0,
) -> Array:
    """Potential (3) along the great circle through two data, zero at the first angle.

    Args:
        model: as in `drift`.
        first: datum at the angle 0, ``(..., d)``.
        second: datum at the angle pi/2, ``(..., d)``.
        t: one OU time > 0.
        angles: increasing ``(P,)``, in radians.
        noise: 1 for the reverse SDE, 0 for the probability flow.

    Returns:
        ``(..., P)``: average it over pairs of data for the landscape of a set.

    Raises:
        ValueError: on a wrong event size or a time that is not positive.

    References:
        Raya, Ambrogioni 2023 (2305.19693), section 4.
    """
    first, t = checked(model, first, t, noise)
    second = jnp.asarray(second, first.dtype)
    checks.event_size(second, first.shape[-1], "second")
    angles = jnp.asarray(angles, first.dtype)
    return _path(model, first, second, t, angles, jnp.asarray(noise, first.dtype))


def checked(model: Any, x: ArrayLike, t: ArrayLike, noise: ArrayLike) -> tuple[Array, Array]:
    """Checked state and time in the dtype of the state."""
    if isinstance(model, Diffusion):
        checks.event_size(x, model.dim)
    elif not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a Diffusion or a ScoreModel, got {type(model).__name__}")
    checks.noise_time(t, zero_allowed=False, why=" (the drift has no Jacobian there)")
    if checks.is_concrete(noise) and np.any(np.asarray(noise) < 0):
        raise ValueError(f"noise must be >= 0, but is {noise!r}; 1 is the SDE, 0 the flow")
    x = checks.floating(x, "x")
    return x, jnp.asarray(t, x.dtype)


def has_jacobian(model: Any) -> bool:
    """Whether the posterior covariance is known."""
    return isinstance(model, Diffusion) and isinstance(model.data, Posterior)


def coefficients(process: Process, t: Array, noise: Array) -> tuple[Array, Array, Array]:
    """``rho`` and ``w`` of (1), and ``w scale / (rho std^2 + w)``."""
    rate = process.log_scale_rate(t)
    weight = 0.5 * (1 + noise) * jnp.square(processes.diffusion_coefficient(process, t))
    return rate, weight, weight * process.scale(t) / (rate * process.variance(t) + weight)


@jax.jit
def _drift(model: Any, x: Array, t: Array, noise: Array) -> Array:
    rate, weight, _ = coefficients(model.process, t, noise)
    return per_event(weight, x) * score_at(model, x, t) - per_event(rate, x) * x


def response(model: Any, x: Array, t: Array, u: Array) -> Array:
    """Derivative of ``D(x, t)`` along ``u``."""
    if not has_jacobian(model):
        return jax.jvp(lambda y: denoise_at(model, y, t), (x,), (u,))[1]
    scale, variance = model.process.scale(t), model.process.variance(t)
    product = model.data.covariance_product(x, scale, model.process.std(t), u)
    return per_event(scale / variance, x) * product


def response_matrix(model: Any, x: Array, t: Array) -> Array:
    """Derivative of D, ``(..., d, d)``."""

    def column(u: Array) -> Array:
        return response(model, x, t, jnp.broadcast_to(u, x.shape))

    basis = jnp.eye(x.shape[-1], dtype=x.dtype)
    columns = jax.lax.map(column, basis, batch_size=min(_COLUMNS, x.shape[-1]))
    return jnp.moveaxis(columns, 0, -1)


@jax.jit
def jacobian_at(model: Any, x: Array, t: Array, noise: Array) -> Array:
    """Jacobian (2) inside traced code."""
    rate, weight, _ = coefficients(model.process, t, noise)
    variance, scale = model.process.variance(t), model.process.scale(t)
    into = per_event(weight * scale / variance, x)[..., None]
    decay = per_event(rate + weight / variance, x)[..., None]
    return into * response_matrix(model, x, t) - decay * jnp.eye(x.shape[-1], dtype=x.dtype)


@jax.jit
def spectrum_of(jacobian: Array) -> DriftSpectrum:
    """Eigenvalues of the symmetric part, and the size of the other."""
    transposed = jnp.swapaxes(jacobian, -1, -2)
    values = jnp.linalg.eigvalsh(0.5 * (jacobian + transposed))[..., ::-1]
    norm = jnp.sqrt(jnp.sum(jnp.square(jacobian), axis=(-1, -2)))
    gap = 0.5 * jnp.sqrt(jnp.sum(jnp.square(jacobian - transposed), axis=(-1, -2)))
    return DriftSpectrum(values, gap / jnp.where(norm > 0, norm, 1))


@partial(jax.jit, static_argnames="steps")
def _lanczos(key: Array, model: Any, x: Array, t: Array, noise: Array, steps: int) -> LeadingRate:
    rate, weight, _ = coefficients(model.process, t, noise)
    scale, variance = model.process.scale(t), model.process.variance(t)
    into = per_event(weight * scale / variance, x)
    decay = per_event(rate + weight / variance, x)

    def halves(u: Array) -> tuple[Array, Array]:
        """``A u`` and ``A^T u``."""
        forward = response(model, x, t, u)
        if has_jacobian(model):
            return (into * forward - decay * u,) * 2
        _, pull = jax.vjp(lambda y: denoise_at(model, y, t), x)
        return into * forward - decay * u, into * pull(u)[0] - decay * u

    def product(u: Array) -> Array:
        first, second = halves(u)
        return 0.5 * (first + second)

    def step(state: tuple, i: Array) -> tuple[tuple, tuple[Array, Array]]:
        basis, u = state  # basis (steps, ..., d)
        basis = basis.at[i].set(u)
        image = product(u)
        alpha = jnp.sum(image * u, axis=-1)
        for _ in range(2):  # once more, against the loss of orthogonality
            overlaps = jnp.sum(basis * image, axis=-1, keepdims=True)
            image = image - jnp.sum(overlaps * basis, axis=0)
        beta = jnp.linalg.norm(image, axis=-1)
        small = beta <= 10 * jnp.finfo(x.dtype).eps * (1 + jnp.abs(alpha))
        u = jnp.where(small[..., None], 0, image / jnp.where(small, 1, beta)[..., None])
        return (basis, u), (alpha, jnp.where(small, 0, beta))

    first = normal(key, x.shape, x.dtype)
    forward, backward = halves(first)
    whole = jnp.linalg.norm(forward, axis=-1)
    skew = 0.5 * jnp.linalg.norm(forward - backward, axis=-1)
    first = first / jnp.linalg.norm(first, axis=-1, keepdims=True)
    empty = jnp.zeros((steps, *x.shape), x.dtype)
    _, (alpha, beta) = jax.lax.scan(step, (empty, first), jnp.arange(steps))
    alpha, beta = jnp.moveaxis(alpha, 0, -1), jnp.moveaxis(beta, 0, -1)
    # a vanished beta ends the recurrence: what follows is decoupled and must not lead
    alive = jnp.cumprod(jnp.concatenate([jnp.ones_like(beta[..., :1]), beta[..., :-1] > 0], -1), -1)
    alpha = jnp.where(alive > 0, alpha, -jnp.inf)
    lowest = jnp.min(jnp.where(jnp.isfinite(alpha), alpha, jnp.inf), axis=-1, keepdims=True)
    alpha = jnp.where(jnp.isfinite(alpha), alpha, lowest - 1 - jnp.abs(lowest))
    eye, upper = jnp.eye(steps, dtype=x.dtype), jnp.eye(steps, k=1, dtype=x.dtype)
    tridiagonal = alpha[..., None] * eye + beta[..., None] * upper
    tridiagonal = tridiagonal + beta[..., None, :] * upper.T
    values, vectors = jnp.linalg.eigh(tridiagonal)
    residual = jnp.abs(beta[..., -1] * vectors[..., -1, -1])
    return LeadingRate(values[..., -1], residual, skew / jnp.where(whole > 0, whole, 1))


@jax.jit
def _path(model: Any, first: Array, second: Array, t: Array, angles: Array, noise: Array) -> Array:
    nodes, weights = np.polynomial.legendre.leggauss(3)
    half = 0.5 * jnp.diff(angles)
    middle = 0.5 * (angles[:-1] + angles[1:])

    def piece(item: tuple[Array, Array]) -> Array:
        centre, width = item
        total = jnp.zeros(jnp.broadcast_shapes(first.shape, second.shape)[:-1], first.dtype)
        for node, part in zip(nodes, weights):
            angle = centre + width * node
            x = jnp.cos(angle) * first + jnp.sin(angle) * second
            tangent = jnp.cos(angle) * second - jnp.sin(angle) * first
            total = total - part * width * jnp.sum(_drift(model, x, t, noise) * tangent, axis=-1)
        return total

    pieces = jnp.cumsum(jax.lax.map(piece, (middle, half)), axis=0)
    whole = jnp.concatenate([jnp.zeros_like(pieces[:1]), pieces])
    return jnp.moveaxis(whole, 0, -1)
