r"""Attractors of the exact empirical score: fixed points of ``y <- E[a | y]`` and their basins.

In the coordinates of the clean data, ``y = x / scale = a + sqrt(v) z`` with ``v = T (e^{2t} - 1)``,
the noised patterns ``xi_mu`` have the energy

    E(y, v) = -2 v log sum_mu exp(-|y - xi_mu|^2 / 2v),   grad E = 2 (y - E[a | y]),         (1)

and the score is ``-grad E / 2v`` (not ``-grad E``). Its minima are fixed points of

    y <- E[a | y] = sum_mu w_mu(y) xi_mu,                                                    (2)

which is mean shift, and one update of a modern Hopfield network of inverse temperature ``1/v`` if
the patterns have equal norms. (2) never raises the energy. With the Hessian
``2 (1 - Cov[a | y] / v)`` a fixed point is stable if

    lambda_max(Cov[a | y]) / v < 1,                                                          (3)

the factor by which (2) shrinks the slowest error. Near a merging of two attractors this factor
comes close to one, and thousands of steps are needed. At ``v > 0`` attractors that are no patterns
are neighbours that have merged; they lie inside the convex hull of the patterns.

References:
    Ambrogioni 2024 (2309.17290); Pham, Raya, Negri, Zaki, Ambrogioni, Krotov 2025 (2505.21777);
    Ramsauer et al. 2021 (2008.02217), for the Hopfield update; Comaniciu, Meer 2002, for (2).
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Atomic, Posterior, require
from diffjax.diffusion import Diffusion
from diffjax.observables.neighbours import nearest_distances

__all__ = [
    "Attractors",
    "Basins",
    "attractors",
    "basins",
    "distinct",
    "energy",
    "energy_gradient",
    "hessian_ratio",
    "iterate",
]


class Attractors(NamedTuple):
    """Where each of ``m`` starts ends; all in the coordinates ``y`` of the clean data.

    Attributes:
        points: the ends, ``(m, d)``.
        label: number of the first start that reached the same stable attractor, ``(m,)``; -1 where
            the end is unstable or the iteration did not converge.
        stable: whether (3) holds at a converged end, ``(m,)``.
        converged: whether the last step was below the tolerance, ``(m,)``.
        iterations: steps taken, ``(m,)``.
        ratio: ``lambda_max(Cov[a | y]) / v``, ``(m,)``.
        pattern: number of the pattern of largest weight, which is the nearest of those with
            equal weights, ``(m,)``.
        distance: to that pattern, ``(m,)``.
    """

    points: Array
    label: Array
    stable: Array
    converged: Array
    iterations: Array
    ratio: Array
    pattern: Array
    distance: Array


class Basins(NamedTuple):
    """Shares of ``M`` starts that end in each of ``k`` attractors.

    Attributes:
        share: ``(k,)``.
        error: binomial standard errors, ``(k,)``; 0 at a share of 0 or 1, where ``3 / M`` is the
            usual bound.
        label: attractor of each start, ``(M,)``; -1 where it ended elsewhere.
    """

    share: Array
    error: Array
    label: Array


def energy(diffusion: Diffusion, y: ArrayLike, t: ArrayLike) -> Array:
    """Energy (1) of states in the coordinates of the clean data.

    Patterns of equal weight count one each; with unequal weights, ``n`` times their weight.

    Args:
        diffusion: of a `point_cloud` or other atoms.
        y: states ``(..., d)``, ``y = x / scale``.
        t: OU time, broadcast against the batch.

    Returns:
        Shape ``(...)``, in units of squared data.

    Raises:
        TypeError: if the data are not atoms with a posterior.
        ValueError: on a wrong event size or a time that is not positive.

    References:
        Pham et al. 2025 (2505.21777).
    """
    y, v = _inputs(diffusion, y, t)
    return _energy(diffusion.data, y, v)


def energy_gradient(diffusion: Diffusion, y: ArrayLike, t: ArrayLike) -> Array:
    """``grad E = 2 (y - E[a | y])`` of (1), ``(..., d)``; ``-1/2v`` times it is the score of ``y``.

    Arguments, errors and source are those of `energy`.
    """
    y, v = _inputs(diffusion, y, t)
    return _gradient(diffusion.data, y, v)


def hessian_ratio(diffusion: Diffusion, y: ArrayLike, t: ArrayLike) -> Array:
    """``lambda_max(Cov[a | y]) / v``, ``(...)``: below one where (1) is convex, eq. (3).

    Diagonalises a ``(d, d)`` matrix for each state, one after the other. Arguments, errors and
    source are those of `energy`.
    """
    y, v = _inputs(diffusion, y, t)
    shape = y.shape[:-1]
    rows = y.reshape(-1, y.shape[-1])
    return _curvature(diffusion.data, rows, jnp.broadcast_to(v, shape).ravel())[0].reshape(shape)


def iterate(diffusion: Diffusion, y: ArrayLike, t: ArrayLike, steps: int) -> Array:
    """``steps`` updates (2) of the memory, ``(..., d)``, whether they converge or not.

    Args:
        diffusion: as in `energy`; any data with a denoiser will do.
        y: states ``(..., d)`` in the coordinates of the clean data.
        t: OU time, broadcast against the batch.
        steps: number of updates (static).

    Raises:
        ValueError: as `energy`, and unless ``steps`` is an integer >= 1.
    """
    y, v = _inputs(diffusion, y, t, atoms=False)
    return _iterate(diffusion.data, y, v, checks.count(steps, "steps"))


def attractors(
    diffusion: Diffusion,
    t: ArrayLike,
    starts: ArrayLike | None = None,
    *,
    tolerance: float | None = None,
    merge_below: float | None = None,
    max_iterations: int = 20_000,
) -> Attractors:
    """Run (2) from every start to a fixed point, judge its stability, and merge equal ends.

    All starts advance together until the slowest has converged; those that have arrived stay where
    they are. Which starts share an attractor is decided in their order.

    Args:
        diffusion: of a `point_cloud` or other atoms.
        t: one OU time, above 0.
        starts: ``(m, d)`` in the coordinates of the clean data; the patterns themselves if None.
        tolerance: largest coordinate of a last step; 1e-12 (1e-6 in float32) times the largest
            coordinate of the patterns if None.
        merge_below: ends that are nearer than this are one attractor; the same factor's square root
            times the largest coordinate if None.
        max_iterations: steps after which a start is given up (not converged).

    Returns:
        One row for each start; `distinct` keeps one for each stable attractor.

    Raises:
        TypeError: if the data are not atoms with a posterior.
        ValueError: on shapes that do not fit, a time or a tolerance that is not positive.

    References:
        Pham et al. 2025 (2505.21777); eq. (2), (3).
    """
    y, v = _inputs(diffusion, diffusion.data.points if starts is None else starts, t)
    if y.ndim != 2 or v.ndim:
        raise ValueError(
            f"starts and t have shapes {y.shape} and {v.shape}, expected (m, d) and one time"
        )
    step, merge = _limits(diffusion, y.dtype, tolerance, merge_below)
    checks.count(max_iterations, "max_iterations")
    return _attractors(diffusion.data, y, v, step, merge, max_iterations)


def distinct(found: Attractors) -> Attractors:
    """The rows of the distinct stable attractors, in the order of their first starts.

    Their number depends on values, so that this runs outside ``jit`` only.
    """
    label = np.asarray(found.label)
    kept = np.flatnonzero(label == np.arange(len(label)))
    return Attractors(*(jnp.asarray(np.asarray(values)[kept]) for values in found))


def basins(
    diffusion: Diffusion,
    t: ArrayLike,
    found: Attractors,
    starts: ArrayLike,
    *,
    tolerance: float | None = None,
    merge_below: float | None = None,
    max_iterations: int = 20_000,
) -> Basins:
    """Volumes of basins of attraction of (2), as shares of starts drawn by the caller.

    Starts that are uniform in a region give volumes relative to that region; starts drawn from
    ``p_t`` give the probabilities of the attractors.

    Args:
        diffusion: as in `attractors`.
        t: one OU time, above 0.
        found: distinct attractors at the same time, of `distinct`.
        starts: ``(M, d)`` independent states in the coordinates of the clean data.
        tolerance: as in `attractors`.
        merge_below: as in `attractors`, here the distance to the attractor.
        max_iterations: as in `attractors`.

    Raises:
        TypeError: as `attractors`.
        ValueError: as `attractors`, and if there is no attractor.
    """
    ends = attractors(
        diffusion, t, starts, tolerance=tolerance, merge_below=1.0, max_iterations=max_iterations
    )
    _, limit = _limits(diffusion, ends.points.dtype, tolerance, merge_below)
    near = nearest_distances(ends.points, found.points, count=1)
    arrived = (near.distances[:, 0] <= limit) & ends.converged & ends.stable
    label = jnp.where(arrived, near.indices[:, 0], -1)
    share = jnp.mean(label[:, None] == jnp.arange(len(found.points)), axis=0, dtype=limit.dtype)
    return Basins(share, jnp.sqrt(share * (1 - share) / len(label)), label)


def _inputs(
    diffusion: Diffusion, y: ArrayLike, t: ArrayLike, *, atoms: bool = True
) -> tuple[Array, Array]:
    """Checked state, and the noise variance ``v = 1 / snr`` in its dtype."""
    if atoms:
        require(diffusion.data, Posterior, "an energy")
        require(diffusion.data, Atomic, "an energy")
    checks.event_size(y, diffusion.dim, "y")
    checks.noise_time(t, zero_allowed=False, why=" (the energy of noiseless patterns is infinite)")
    y = checks.floating(y, "y")
    return y, 1 / processes.snr(diffusion.process, jnp.asarray(t, y.dtype))


def _limits(
    diffusion: Diffusion, dtype: Any, tolerance: float | None, merge_below: float | None
) -> tuple[Array, Array]:
    """Tolerance of the iteration, and distance below which ends are one attractor."""
    relative = 1e-12 if jnp.finfo(dtype).eps < 1e-12 else 1e-6
    size = jnp.max(jnp.abs(diffusion.data.points)).astype(dtype)
    for name, value in (("tolerance", tolerance), ("merge_below", merge_below)):
        if value is not None:
            checks.positive(value, name)
    step = relative * size if tolerance is None else jnp.asarray(tolerance, dtype)
    merge = np.sqrt(relative) * size if merge_below is None else jnp.asarray(merge_below, dtype)
    return step, merge.astype(dtype)


def _denoise(data: Any, y: Array, v: Array) -> Array:
    """``E[a | y]`` in the channel ``y = a + sqrt(v) z``."""
    return data.denoise(y, jnp.ones_like(v), jnp.sqrt(v))


@jax.jit
def _energy(data: Any, y: Array, v: Array) -> Array:
    log_p = data.log_normaliser(y, jnp.ones_like(v), jnp.sqrt(v))
    n = jax.eval_shape(data.index_log_weights, y, jnp.ones_like(v), jnp.sqrt(v)).shape[-1]
    return -2 * v * (log_p + 0.5 * data.dim * jnp.log(2 * jnp.pi * v) + np.log(n))


@jax.jit
def _gradient(data: Any, y: Array, v: Array) -> Array:
    return 2 * (y - _denoise(data, y, v))


@partial(jax.jit, static_argnames="steps")
def _iterate(data: Any, y: Array, v: Array, steps: int) -> Array:
    return lax.fori_loop(0, steps, lambda _, y: _denoise(data, y, v), y)


@jax.jit
def _curvature(data: Any, y: Array, v: Array) -> tuple[Array, Array]:
    """``lambda_max(Cov) / v`` of states ``(m, d)``, and the pattern of largest weight."""
    points = data.points.astype(y.dtype)

    def one(state: tuple[Array, Array]) -> tuple[Array, Array]:
        y, v = state
        log_weights = data.index_log_weights(y, jnp.ones_like(v), jnp.sqrt(v))
        weights = jnp.exp(log_weights)[:, None]
        centred = points - jnp.sum(weights * points, axis=0)
        covariance = jnp.matmul(centred.T, weights * centred, precision="highest")
        ratio = jnp.linalg.eigvalsh(covariance)[-1] / v
        return ratio, jnp.argmax(log_weights).astype(jnp.int32)

    return lax.map(one, (y, v))


class _State(NamedTuple):
    y: Array
    moving: Array
    iterations: Array


@jax.jit
def _attractors(
    data: Any, y: Array, v: Array, tolerance: Array, merge_below: Array, most: int
) -> Attractors:
    def body(s: _State) -> _State:
        step = _denoise(data, s.y, v) - s.y
        y = s.y + jnp.where(s.moving[:, None], step, 0)
        # a start that is not finite moves until it is given up
        arrived = jnp.max(jnp.abs(step), axis=-1) <= tolerance
        return _State(y, s.moving & ~arrived, s.iterations + s.moving)

    rows = y.shape[0]
    start = _State(y, jnp.ones(rows, bool), jnp.zeros(rows, jnp.int32))
    end = lax.while_loop(lambda s: jnp.any(s.moving & (s.iterations < most)), body, start)
    y, converged = end.y, ~end.moving
    ratio, pattern = _curvature(data, y, jnp.broadcast_to(v, y.shape[:-1]))
    stable = converged & (ratio < 1)
    return Attractors(
        points=y,
        label=_first_of_its_kind(y, stable, merge_below),
        stable=stable,
        converged=converged,
        iterations=end.iterations,
        ratio=ratio,
        pattern=pattern,
        distance=jnp.linalg.norm(y - data.points[pattern].astype(y.dtype), axis=-1),
    )


def _first_of_its_kind(y: Array, stable: Array, merge_below: Array) -> Array:
    """Number of the first stable row within ``merge_below`` of each stable row; -1 for others."""
    rows = jnp.arange(y.shape[0], dtype=jnp.int32)

    def visit(first: Array, row: Array) -> tuple[Array, Array]:
        near = jnp.linalg.norm(y - y[row], axis=-1) <= merge_below
        known = first & near
        own = jnp.where(known.any(), jnp.argmax(known).astype(jnp.int32), row)
        label = jnp.where(stable[row], own, -1)
        return first.at[row].set(label == row), label

    return lax.scan(visit, jnp.zeros(y.shape[0], bool), rows)[1]
