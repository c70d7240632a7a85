r"""Fixed points of generative drifts: branches, critical times, the number of stable points.

A fixed point of the drift ``b = -rho x + w F`` of `diffjax.observables.drift` solves the
self-consistency

    x = gain D(x, t),   gain = w scale / (rho std^2 + w),                                  (1)

with the posterior mean D. Since the derivative of D is ``scale / std^2 Cov[a | x]``, the Jacobian
of the drift is

    A = kappa (M - I),   M = gain scale / std^2 Cov[a | x],   kappa = rho + w / std^2.     (2)

M is positive, so that sweeps of (1) converge to fixed points that are stable (for the density
itself, ``noise -> infinity``, this is mean shift, an EM algorithm), and Newton's method on (1) to
any. A fixed point is unstable where the leading eigenvalue of A is positive. Derivatives of a fixed
point with respect to everything that the model holds, and to time, follow from the implicit
function theorem,

    dx = (I - M)^{-1} d(gain D),                                                           (3)

to first order (no second derivatives).

References:
    Raya, Ambrogioni 2023 (2305.19693); Biroli, Mezard 2023 (2306.03518).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.data.base import per_event
from diffjax.diffusion import denoise_at
from diffjax.observables.drift import (
    DriftSpectrum,
    LeadingRate,
    checked,
    coefficients,
    drift,
    drift_jacobian,
    drift_spectrum,
    has_jacobian,
    jacobian_at,
    leading_rate,
    path_potential,
    response,
    response_matrix,
    spectrum_of,
)

__all__ = [
    "Branch",
    "DriftSpectrum",
    "LeadingRate",
    "StablePoints",
    "critical_times",
    "drift",
    "drift_jacobian",
    "drift_spectrum",
    "fixed_points",
    "leading_rate",
    "path_potential",
    "stable_points",
]

_SOLVERS = ("dense", "krylov")


class Branch(NamedTuple):
    """Fixed points along a grid of times, continued from one to the next."""

    states: Array
    """``(T, ..., d)``; NaN where Newton's method did not converge."""
    residual: Array
    """Norm of ``x - gain D`` divided by ``1 + |x|``, ``(T, ...)``."""
    converged: Array
    """Whether the residual is below the tolerance, ``(T, ...)``."""


class StablePoints(NamedTuple):
    """Distinct stable fixed points that a set of starts leads to."""

    states: Array
    """The end of every start, ``(B, d)``."""
    rates: Array
    """Leading eigenvalue of the Jacobian of the drift at each end, ``(B,)``."""
    representative: Array
    """First start that leads to the same point, ``(B,)``; -1 for ends that are not stable."""
    number: Array
    """Number of distinct stable points."""


def fixed_points(
    model: Any,
    start: ArrayLike,
    times: ArrayLike,
    *,
    noise: ArrayLike = 1.0,
    sweeps: int = 0,
    solver: str | None = None,
    iterations: int = 30,
    tolerance: float | None = None,
) -> Branch:
    """Fixed points of the generative drift along decreasing times, each from the one before.

    Newton's method on (1) stays on the branch that it is on, stable or not. ``sweeps`` of (1) in
    front of it leave an unstable branch for a stable one if the state is off its symmetry. A branch
    that ends in a fold shows as times that did not converge or as a jump of the state; what follows
    is another branch.
    The states are differentiable, once, in all that ``model`` holds and in ``times``, by (3).

    Args:
        model: a `Diffusion` (exact Jacobian where its data have a posterior, else products by
            forward differentiation) or a `ScoreModel`.
        start: first guess at ``times[0]``, ``(..., d)``; the mean of the data times the scale for
            a large first time.
        times: strictly decreasing OU times ``(T,)``, all > 0; one time is allowed.
        noise: 1 for the reverse SDE, 0 for the probability flow.
        sweeps: of (1) at every time before Newton's method (static).
        solver: ``dense`` solves with the Jacobian ``(d, d)``, ``krylov`` by GMRES with products;
            default dense for data with a posterior, else krylov (static).
        iterations: most Newton steps per time (static).
        tolerance: of the residual; default 100 units in the last place for ``dense``, and the
            square root of one for ``krylov``.

    Raises:
        ValueError: on a grid that does not decrease, times that are not positive, a wrong event
            size, or an unknown solver.

    References:
        Raya, Ambrogioni 2023 (2305.19693).
    """
    times = jnp.atleast_1d(jnp.asarray(times))
    if times.shape[0] > 1:
        checks.decreasing(times)
    x, times = checked(model, start, times, noise)
    solver = _solver(model, solver)
    noise = jnp.asarray(noise, x.dtype)
    limit = _tolerance(tolerance, x.dtype, solver)
    return _follow(model, x, times, noise, sweeps, solver, iterations, limit)


def stable_points(
    model: Any,
    starts: ArrayLike,
    t: ArrayLike,
    *,
    noise: ArrayLike = 1.0,
    sweeps: int = 500,
    iterations: int = 30,
    separation: float = 1e-3,
) -> StablePoints:
    """Stable fixed points of the drift at one time that many starts lead to, and their number.

    Sweeps of (1), which increase a potential and so end at stable points, then Newton's method.
    Ends that did not converge, or are not stable, are not counted; nor is a point that no start
    leads to.

    Args:
        model: a `Diffusion` with an exact posterior.
        starts: ``(B, d)``, e.g. noised data and the scaled centres of classes.
        t: one OU time > 0.
        noise: 1 for the reverse SDE, 0 for the probability flow.
        sweeps: most sweeps (static).
        iterations: most Newton steps (static).
        separation: two ends closer than this, relative to ``1 + |x|``, are one point.

    Raises:
        ValueError: on a wrong shape or a time that is not positive.
        TypeError: if the model has no exact posterior.
    """
    if np.ndim(starts) != 2:
        raise ValueError(f"starts has shape {np.shape(starts)}, expected (B, d)")
    _require_posterior(model, "stable_points")
    x, t = checked(model, starts, t, noise)
    noise = jnp.asarray(noise, x.dtype)
    limit = _tolerance(None, x.dtype, "dense")
    return _stable(model, x, t, noise, sweeps, iterations, limit, separation)


def critical_times(times: ArrayLike, rates: ArrayLike) -> Array:
    """Largest time at which a leading growth rate becomes positive, ``(...)``, interpolated.

    Args:
        times: decreasing OU times ``(T,)``.
        rates: leading eigenvalues along a branch ``(T, ...)``.

    Returns:
        NaN for a branch that stays stable on the grid or is unstable from its first time on.
    """
    times, rates = jnp.asarray(times), jnp.asarray(rates)
    rises = (rates[:-1] <= 0) & (rates[1:] > 0)
    first = jnp.argmax(rises, axis=0)

    def pick(values: Array, index: Array) -> Array:
        return jnp.take_along_axis(values, index[None], axis=0)[0]

    low, high = pick(rates, first), pick(rates, first + 1)
    share = -low / jnp.where(high > low, high - low, 1)
    found = times[first] + share * (times[first + 1] - times[first])
    unstable = rates[0] > 0
    return jnp.where(jnp.any(rises, axis=0) & ~unstable, found, jnp.nan)


def _require_posterior(model: Any, purpose: str) -> None:
    if not has_jacobian(model):
        raise TypeError(f"{purpose} needs a Diffusion whose data have an exact posterior")


def _solver(model: Any, solver: str | None) -> str:
    if solver is None:
        return "dense" if has_jacobian(model) else "krylov"
    if solver not in _SOLVERS:
        raise ValueError(f"unknown solver {solver!r}; choose one of {', '.join(_SOLVERS)}")
    return solver


def _tolerance(tolerance: float | None, dtype: Any, solver: str) -> float:
    if tolerance is not None:
        return float(tolerance)
    eps = float(jnp.finfo(dtype).eps)
    return 100 * eps if solver == "dense" else eps**0.5


def _sweep_map(model: Any, t: Array, noise: Array, x: Array) -> Array:
    """Right side of (1)."""
    gain = coefficients(model.process, t, noise)[2]
    return per_event(gain, x) * denoise_at(model, x, t)


def _newton_step(model: Any, t: Array, noise: Array, x: Array, gap: Array, solver: str) -> Array:
    """``(I - M)^{-1} gap``."""
    gain = per_event(coefficients(model.process, t, noise)[2], x)
    if solver == "dense":
        matrix = jnp.eye(x.shape[-1], dtype=x.dtype) - gain[..., None] * response_matrix(
            model, x, t
        )
        return jnp.linalg.solve(matrix, gap[..., None])[..., 0]

    def solve(item: tuple[Array, Array]) -> Array:
        x, gap = item

        def product(u: Array) -> Array:
            return u - gain * response(model, x, t, u)

        return jax.scipy.sparse.linalg.gmres(product, gap, tol=1e-6, restart=30, maxiter=10)[0]

    rows = (x.reshape(-1, x.shape[-1]), gap.reshape(-1, x.shape[-1]))
    return jax.lax.map(solve, rows).reshape(x.shape)


def _relative(gap: Array, x: Array) -> Array:
    return jnp.linalg.norm(gap, axis=-1) / (1 + jnp.linalg.norm(x, axis=-1))


def _swept(model: Any, t: Array, noise: Array, x: Array, sweeps: int, limit: Any) -> Array:
    """Up to ``sweeps`` applications of (1)."""

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        i, x, last = state
        return (i < sweeps) & jnp.any(_relative(x - last, x) > limit)

    def sweep(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, _ = state
        return i + 1, _sweep_map(model, t, noise, x), x

    first = (jnp.asarray(0), x, jnp.full_like(x, jnp.inf))
    return jax.lax.while_loop(unfinished, sweep, first)[1]


def _newton(
    model: Any, t: Array, noise: Array, x: Array, solver: str, iterations: int, limit: Any
) -> tuple[Array, Array]:
    """A zero of ``x - gain D`` near ``x``, and its residual."""

    def gap(x: Array) -> Array:
        return _sweep_map(model, t, noise, x) - x

    def unfinished(state: tuple[Array, Array, Array]) -> Array:
        i, x, g = state
        return (i < iterations) & jnp.any(_relative(g, x) > limit)

    def step(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        i, x, g = state
        x = x + _newton_step(model, t, noise, x, g, solver)
        return i + 1, x, gap(x)

    _, x, g = jax.lax.while_loop(unfinished, step, (jnp.asarray(0), x, gap(x)))
    return x, _relative(g, x)


@partial(jax.jit, static_argnames=("sweeps", "solver", "iterations"))
def _follow(
    model: Any, x: Array, times: Array, noise: Array, sweeps: int, solver: str, iterations: int,
    limit: Any,
) -> Branch:  # fmt: skip
    frozen, noise_value = jax.lax.stop_gradient((model, noise))

    def one(x: Array, t: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        t_value = jax.lax.stop_gradient(t)
        if sweeps:
            x = _swept(frozen, t_value, noise_value, x, sweeps, limit)
        before = x
        x, residual = _newton(frozen, t_value, noise_value, x, solver, iterations, limit)
        # (3): one more step, of which only the derivative by the parameters is kept. At a critical
        # point, where the step is 0/0, there is no derivative.
        change = _sweep_map(model, t, noise, x) - x
        step = _newton_step(frozen, t_value, noise_value, x, change, solver)
        polished = x + jnp.where(jnp.isfinite(step), step - jax.lax.stop_gradient(step), 0)
        found = residual <= limit
        kept = jnp.where(found[..., None], x, before)  # a lost iterate is no guess
        return kept, (jnp.where(found[..., None], polished, jnp.nan), residual, found)

    _, branch = jax.lax.scan(one, jax.lax.stop_gradient(x), times)
    return Branch(*branch)


@partial(jax.jit, static_argnames=("sweeps", "iterations"))
def _stable(
    model: Any, x: Array, t: Array, noise: Array, sweeps: int, iterations: int, limit: Any,
    separation: Any,
) -> StablePoints:  # fmt: skip
    x = _swept(model, t, noise, x, sweeps, limit)
    x, residual = _newton(model, t, noise, x, "dense", iterations, limit)
    rates = spectrum_of(jacobian_at(model, x, t, noise)).eigenvalues[..., 0]
    stable = (residual <= limit) & (rates < 0)
    norms = jnp.sum(jnp.square(x), axis=-1)
    squares = norms[:, None] + norms - 2 * jnp.matmul(x, x.T, precision="highest")
    # a difference of large numbers: its rounding limits how close two points can be told apart
    rounding = 8 * jnp.finfo(x.dtype).eps * (norms[:, None] + norms)
    reach = jnp.square(separation * (1 + jnp.sqrt(norms)))[:, None] + rounding
    same = (squares < reach) & stable & stable[:, None]
    index = jnp.where(stable, jnp.argmax(same, axis=1), -1)
    return StablePoints(x, rates, index, jnp.sum(index == jnp.arange(x.shape[0])))
