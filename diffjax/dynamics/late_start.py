r"""Late start: backward dynamics that begin from a Gaussian of matched mean and covariance.

Before the central fixed point of the generative drift loses its stability the noised law is close
to a Gaussian, so that part of a trajectory can be skipped. Data with mean ``m`` and covariance
``S`` have at time ``t`` exactly the mean ``scale m`` and the covariance

    scale^2 S + std^2 I,                                                                   (1)

and a start is a record that draws from the normal distribution with these moments at any ``t``:

    spectral   ``scale m + c z + V [(sqrt(scale^2 l + std^2) - c) * V^T z]`` with the k leading
               eigenvectors V and eigenvalues l of S, and ``c = sqrt(scale^2 r + std^2)``, where r
               is the mean of the other eigenvalues; exact where those are equal.             (2)
    weighted   ``scale m + std z + scale / sqrt(n - 1) sum_mu zeta_mu (a_mu - m)``, zeta and z
               normal: exact for the sample covariance, without a factorisation.              (3)
    streamed   the same sum, accumulated over batches of a data set that does not fit in memory.

The normaliser of a sample covariance is n - 1 in each of them. No ridge is added: (1) is positive
definite for ``std > 0``. The start that is called vanilla in the literature, standard noise at the
late time, is `isotropic_start`.

References:
    Raya, Ambrogioni 2023 (2305.19693) for the late start; (2) and (3) are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes, records
from diffjax.data.base import Denoiser, Posterior, require
from diffjax.data.point_cloud import PointCloud
from diffjax.diffusion import Diffusion
from diffjax.noise import normal
from diffjax.processes import Process

_BLOCK = 1024  # points per block of the weighted sum


@runtime_checkable
class Start(Protocol):
    """Draws from a normal distribution with the moments (1) at any noise level."""

    @property
    def dim(self) -> int:
        """Dimension d of the data."""
        ...

    def sample(self, key: Array, n: int, scale: ArrayLike, std: ArrayLike) -> Array:
        """``n`` states ``(n, d)`` of the channel ``x = scale a + std z``."""
        ...


@records.register
@dataclass(frozen=True)
class SpectralStart:
    """Leading eigenvectors, and one variance for the rest; eq. (2).

    Attributes:
        mean: ``(d,)``.
        vectors: orthonormal columns ``(d, k)``.
        eigenvalues: variances along them ``(k,)``.
        rest: variance in every other direction, ``()``.
    """

    mean: Array
    vectors: Array
    eigenvalues: Array
    rest: Array

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.mean.shape[0]

    def sample(self, key: Array, n: int, scale: ArrayLike, std: ArrayLike) -> Array:
        """``n`` states ``(n, d)``, eq. (2)."""
        scale, std = (jnp.asarray(v, self.mean.dtype) for v in (scale, std))
        noise = normal(key, (n, self.dim), self.mean.dtype)
        common = jnp.sqrt(jnp.square(scale) * self.rest + jnp.square(std))
        along = jnp.sqrt(jnp.square(scale) * self.eigenvalues + jnp.square(std))
        inner = jnp.matmul(noise, self.vectors, precision="highest") * (along - common)
        kept = jnp.matmul(inner, self.vectors.T, precision="highest")
        return scale * self.mean + common * noise + kept


@records.register
@dataclass(frozen=True)
class WeightedStart:
    """Centred points, combined with normal weights; eq. (3).

    Attributes:
        mean: ``(d,)``.
        blocks: centred points divided by ``sqrt(n - 1)``, ``(blocks, block, d)``, padded with 0.
    """

    mean: Array
    blocks: Array

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.mean.shape[0]

    def sample(self, key: Array, n: int, scale: ArrayLike, std: ArrayLike) -> Array:
        """``n`` states ``(n, d)``, eq. (3); holds ``n`` weights per point of one block."""
        scale, std = (jnp.asarray(v, self.mean.dtype) for v in (scale, std))
        key_noise, key_weights = jax.random.split(key)

        def add(total: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            index, block = item
            return total + _weighted(jax.random.fold_in(key_weights, index), n, block), None

        start = jnp.zeros((n, self.dim), self.mean.dtype)
        index = jnp.arange(self.blocks.shape[0])
        signal, _ = jax.lax.scan(add, start, (index, self.blocks))
        noise = normal(key_noise, (n, self.dim), self.mean.dtype)
        return scale * (self.mean + signal) + std * noise


@records.register
@dataclass(frozen=True)
class StreamedStart:
    """A fixed number of draws of the signal in eq. (3), made in passes over the data.

    Two calls with different keys share their signal, so ask once for all states that have to be
    independent.

    Attributes:
        mean: ``(d,)``.
        signal: ``(draws, d)``, normal with mean zero and the covariance of the data.
    """

    mean: Array
    signal: Array

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.mean.shape[0]

    def sample(self, key: Array, n: int, scale: ArrayLike, std: ArrayLike) -> Array:
        """``n`` states ``(n, d)``, at most as many as there are draws of the signal."""
        if n > self.signal.shape[0]:
            raise ValueError(
                f"n is {n}, but this start holds {self.signal.shape[0]} draws; pass a larger "
                "draws= to streamed_start"
            )
        scale, std = (jnp.asarray(v, self.mean.dtype) for v in (scale, std))
        noise = normal(key, (n, self.dim), self.mean.dtype)
        return scale * (self.mean + self.signal[:n]) + std * noise


def gaussian_start(
    points: ArrayLike, *, method: str = "dense", rank: int | None = None
) -> SpectralStart | WeightedStart:
    """Start with the mean and the sample covariance (normaliser n - 1) of a data set.

    Args:
        points: ``(n, d)``, n >= 2.
        method: ``dense``, one eigendecomposition, then ``O(d^2)`` for a state at any time;
            ``low_rank``, its ``rank`` leading vectors and the mean variance of the rest,
            ``O(d rank)``; ``weighted``, no factorisation, ``O(n d)`` for a state. All but
            ``low_rank`` have exactly the sample covariance.
        rank: number k of vectors that ``low_rank`` keeps.

    Raises:
        ValueError: on an unknown method, fewer than two points, values that are not finite, or a
            rank outside 1 to ``min(n - 1, d)``.

    References:
        Raya, Ambrogioni 2023 (2305.19693), section 5.
    """
    points = _points(points)
    if method == "weighted":
        return _weighted_start(points)
    if method not in ("dense", "low_rank"):
        raise ValueError(f"unknown method {method!r}; choose dense, low_rank or weighted")
    most = min(points.shape[0] - 1, points.shape[1])
    if (rank is None) != (method == "dense"):
        raise ValueError(f"rank is {rank}, but method {method!r}: rank belongs to low_rank")
    kept = most if rank is None else checks.count(rank, "rank")
    if kept > most:
        raise ValueError(f"rank is {rank}, but {points.shape} points have rank {most} at most")
    return _spectral_start(points, kept)


def gaussian_start_of_moments(mean: ArrayLike, covariance: ArrayLike) -> SpectralStart:
    """Start with a given mean ``(d,)`` and covariance ``(d, d)``.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, or a covariance with an
            eigenvalue that is negative beyond rounding.
    """
    mean, covariance = checks.floating(mean, "mean"), checks.floating(covariance, "covariance")
    if mean.ndim != 1 or covariance.shape != (mean.shape[0],) * 2:
        raise ValueError(
            f"mean has shape {mean.shape} and covariance {covariance.shape}, expected (d,), (d, d)"
        )
    dtype = jnp.promote_types(jnp.promote_types(mean.dtype, covariance.dtype), jnp.float32)
    values, vectors = jnp.linalg.eigh(covariance.astype(dtype))
    if checks.is_concrete(values):
        slack = 10 * len(values) * jnp.finfo(dtype).eps * jnp.max(jnp.abs(values))
        if values[0] < -slack:
            raise ValueError(f"covariance has the negative eigenvalue {float(values[0]):.3g}")
    return SpectralStart(mean.astype(dtype), vectors, jnp.maximum(values, 0), jnp.zeros((), dtype))


def isotropic_start(dim: int, variance: ArrayLike = 1.0) -> SpectralStart:
    """Start of data with mean zero and ``variance`` in every direction.

    With the temperature of the process as variance this is pure noise, ``N(0, T I)`` in
    Ornstein-Uhlenbeck coordinates at every time: the vanilla late start.
    """
    dim = checks.count(dim, "dim")
    checks.positive(variance, "variance")
    rest = checks.floating(variance, "variance")
    empty = jnp.zeros((dim, 0), rest.dtype)
    return SpectralStart(jnp.zeros((dim,), rest.dtype), empty, empty[0], rest)


def streamed_start(
    key: Array, batches: Callable[[], Iterable[ArrayLike]], draws: int
) -> StreamedStart:
    """Start of a data set that is read in batches, eq. (3), in two passes: mean, then signal.

    The batches are centred by the mean of all data, never by their own. Memory is one batch, its
    ``draws`` weights per point, and the ``(draws, d)`` signal.

    Args:
        key: typed PRNG key of the weights.
        batches: called twice; each call returns the same batches ``(b, ...)`` in the same order,
            of any sizes. Events are flattened.
        draws: number of states that the start can give.

    Raises:
        ValueError: if there are fewer than two points, events differ in size, values are not
            finite, or the second pass finds another number of points.
    """
    draws = checks.count(draws, "draws")
    count, total = 0, None
    for batch in batches():
        rows = _rows(batch)
        sums = jnp.sum(rows, axis=0)
        if total is not None and total.shape != sums.shape:
            raise ValueError(f"events of size {total.size} and {sums.size} in batches")
        count, total = count + rows.shape[0], sums if total is None else total + sums
    if total is None or count < 2:
        raise ValueError(f"batches hold {count} points, but a covariance needs two at least")
    mean = total / count
    signal, seen = jnp.zeros((draws, mean.shape[0]), mean.dtype), 0
    for index, batch in enumerate(batches()):
        rows = _rows(batch)
        signal = _accumulate(jax.random.fold_in(key, index), signal, rows, mean, count)
        seen += rows.shape[0]
    if seen != count:
        raise ValueError(
            f"batches gave {count} points in the first pass and {seen} in the second; it must "
            "start a new iterator at every call"
        )
    return StreamedStart(mean, signal)


def late_start(
    key: Array,
    source: Any,
    t0: ArrayLike,
    n: int,
    *,
    process: Process | None = None,
    method: str = "dense",
    rank: int | None = None,
) -> Array:
    """States at time ``t0`` from a normal distribution with exactly the moments of ``x_t0``.

    Hand them to `backward` with a grid that begins at ``t0``::

        x = late_start(key, diffusion, 0.8, 1000)
        samples, info = backward(key_path, diffusion, x, times, method="ddim")

    Make the start once with `gaussian_start` where many times or keys are wanted: points are
    factorised, and the moments of a distribution computed, in every call.

    Args:
        key: typed PRNG key. The first rows of a larger ``n`` equal those of a smaller one.
        source: a start; or points ``(n, d)``; or a `Diffusion`, or its data: points (their sample
            moments), or a distribution with an exact posterior (its exact moments, by d products
            of its covariance).
        t0: OU time of the start, one number >= 0.
        n: number of states.
        process: the process of a start, of points or of data (default Ornstein-Uhlenbeck with
            T = 1); a `Diffusion` has its own.
        method: as in `gaussian_start`, for points.
        rank: as in `gaussian_start`, for points.

    Returns:
        ``(n, d)``.

    Raises:
        ValueError: on a negative time, a process beside that of a `Diffusion`, or as
            `gaussian_start`.
        TypeError: if the data of a `Diffusion` are only known by a denoiser: pass a start made
            from the training data instead.

    References:
        Raya, Ambrogioni 2023 (2305.19693).
    """
    checks.noise_time(t0, zero_allowed=True)
    n = checks.count(n, "n")
    start: Start
    if isinstance(source, Diffusion):
        if process is not None:
            raise ValueError("process was given beside a Diffusion, which has its own")
        process, start = source.process, _start_of(source.data, method, rank)
    elif isinstance(source, Denoiser):  # data without a process also have dim and sample
        start = _start_of(source, method, rank)
    elif isinstance(source, Start):
        start = source
    else:
        start = gaussian_start(source, method=method, rank=rank)
    process = processes.ornstein_uhlenbeck() if process is None else process
    return _draw(key, start, process, t0, n)


@partial(jax.jit, static_argnames="n")
def _draw(key: Array, start: Any, process: Process, t0: ArrayLike, n: int) -> Array:
    return start.sample(key, n, process.scale(t0), process.std(t0))


def _start_of(data: Any, method: str, rank: int | None) -> SpectralStart | WeightedStart:
    """The start of a data distribution; without signal the posterior is the distribution itself."""
    if isinstance(data, PointCloud):
        if data.classes > 1 and checks.is_concrete(data.log_weights):
            kept = np.asarray(data.log_weights) > -np.inf
            return gaussian_start(data.points[kept], method=method, rank=rank)
        return gaussian_start(data.points, method=method, rank=rank)
    require(data, Posterior, "late_start")
    if method != "dense" or rank is not None:
        raise ValueError(f"method {method!r} is for points; exact moments are factorised densely")
    return gaussian_start_of_moments(*_moments(data))


@jax.jit
def _moments(data: Any) -> tuple[Array, Array]:
    """Mean and covariance of a distribution, from its posterior at ``scale = 0``."""
    dtype = jax.eval_shape(lambda key: data.sample(key, 1), jax.random.key(0)).dtype
    x = jnp.zeros((data.dim,), dtype)

    def column(u: Array) -> Array:
        return data.covariance_product(x, 0.0, 1.0, u)

    covariance = jax.lax.map(column, jnp.eye(data.dim, dtype=dtype))
    return data.denoise(x, 0.0, 1.0), 0.5 * (covariance + covariance.T)


@partial(jax.jit, static_argnames="kept")
def _spectral_start(points: Array, kept: int) -> SpectralStart:
    """Leading vectors by the covariance, or by the points where they are fewer than dimensions."""
    n, d = points.shape
    mean = jnp.mean(points, axis=0)
    centred = (points - mean) / math.sqrt(n - 1)
    if n > d:
        covariance = jnp.matmul(centred.T, centred, precision="highest")
        values, vectors = jnp.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
    else:
        _, spread, rows = jnp.linalg.svd(centred, full_matrices=False)
        values, vectors = jnp.square(spread), rows.T
    values = jnp.maximum(values, 0)
    dropped = jnp.sum(values[kept:]) / max(d - kept, 1)
    # fewer points than dimensions: the directions that are left out of "dense" have no variance
    exact = kept == min(n - 1, d)
    rest = jnp.zeros_like(dropped) if exact else dropped
    return SpectralStart(mean, vectors[:, :kept], values[:kept], rest)


@jax.jit
def _weighted_start(points: Array) -> WeightedStart:
    n, d = points.shape
    mean = jnp.mean(points, axis=0)
    block = min(n, _BLOCK)
    centred = jnp.pad((points - mean) / math.sqrt(n - 1), ((0, -n % block), (0, 0)))
    return WeightedStart(mean, centred.reshape(-1, block, d))


@jax.jit
def _accumulate(key: Array, signal: Array, rows: Array, mean: Array, count: int) -> Array:
    part = _weighted(key, signal.shape[0], rows - mean)
    return signal + part / jnp.sqrt(jnp.asarray(count - 1, signal.dtype))


def _weighted(key: Array, n: int, rows: Array) -> Array:
    """``n`` normal combinations of rows."""
    weights = normal(key, (n, rows.shape[0]), rows.dtype)
    return jnp.matmul(weights, rows, precision="highest")


def _points(points: ArrayLike) -> Array:
    """Checked points in float32 at least."""
    if len(np.shape(points)) != 2 or np.shape(points)[0] < 2 or np.shape(points)[1] < 1:
        raise ValueError(f"points has shape {np.shape(points)}, expected (n, d) with n >= 2")
    points = checks.floating(points, "points")
    return points.astype(jnp.promote_types(points.dtype, jnp.float32))


def _rows(batch: ArrayLike) -> Array:
    """A batch as finite rows ``(b, d)`` in float32 at least."""
    if len(np.shape(batch)) < 2:
        raise ValueError(f"a batch has shape {np.shape(batch)}, expected (b, ...)")
    rows = checks.floating(batch, "batch")
    rows = rows.reshape(rows.shape[0], -1)
    return rows.astype(jnp.promote_types(rows.dtype, jnp.float32))
