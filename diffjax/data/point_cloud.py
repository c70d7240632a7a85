r"""The empirical measure ``sum_mu W_mu delta_{a_mu}`` of a set of points.

Its posterior under ``x = scale a + std z`` is a softmax over the points,

    w_mu(x) ~ W_mu exp(-|x - scale a_mu|^2 / (2 std^2)),                                   (1)

and its score pulls every trajectory onto a training point at the collapse time. All sums over
points stream through `diffjax.posterior_sums`; nothing of size ``(B, n)`` is held unless the
caller asks for `index_log_weights`.

References:
    Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import per_event
from diffjax.posterior_sums import (
    PointBlocks,
    point_blocks,
    posterior_covariance_product,
    posterior_index,
    posterior_log_weights,
    posterior_sums,
)


@records.register
@dataclass(frozen=True)
class PointCloud:
    """Record made by `point_cloud`; implements `Posterior`, `Classified` and `Atomic`."""

    points: Array  # (n, d)
    blocks: PointBlocks
    log_weights: Array  # (n,), -inf for points that a condition excludes
    labels: Array  # (n,) class index; all 0 without labels
    classes: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.points.shape[-1]

    @property
    def size(self) -> int:
        """Number of points n."""
        return self.points.shape[0]

    @property
    def class_weights(self) -> Array:
        """Prior weight of every class, ``(classes,)``."""
        return _one_hot(self).T @ jnp.exp(self.log_weights)

    def sample(self, key: Array, n: int) -> Array:
        """``n`` points drawn with their weights, ``(n, d)``."""
        return self.points[self.sample_prior_index(key, n)]

    def sample_prior_index(self, key: Array, n: int) -> Array:
        """``n`` indices ``(n,)``, uniform over the points that no condition excludes."""
        kept = jnp.cumsum(self.log_weights > -jnp.inf, dtype=jnp.int32)
        rank = jax.random.randint(key, (n,), 0, kept[-1], dtype=jnp.int32)
        return jnp.searchsorted(kept, rank, side="right")

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` of the noised empirical measure, in nats, ``(...)``."""
        sums = posterior_sums(self.blocks, x, scale, std, values=None, top=0)
        variance = jnp.square(jnp.asarray(std, x.dtype))
        return sums.log_normaliser - 0.5 * self.dim * jnp.log(2 * jnp.pi * variance)

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``-(x - scale E[a | x]) / std^2``, the residual free of cancellation."""
        residual = cast(Array, posterior_sums(self.blocks, x, scale, std, top=0).residual)
        return -residual / jnp.square(per_event(std, x))

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``sum_mu w_mu(x) a_mu``, shape of ``x``."""
        return cast(Array, posterior_sums(self.blocks, x, scale, std, top=0).mean)

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """A training point drawn with the weights (1), shape of ``x``."""
        return self.points[self.sample_index(key, x, scale, std)]

    def sample_index(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """The index of a point drawn with the weights (1), ``(...)``."""
        return posterior_index(key, self.blocks, x, scale, std)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``, shape of ``x``."""
        return posterior_covariance_product(self.blocks, x, scale, std, u)

    def index_log_weights(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log w_mu(x)``, ``(..., n)``."""
        return posterior_log_weights(self.blocks, x, scale, std)

    def class_log_posterior(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(c | x)``, ``(..., classes)``; -inf only for a class without weight.

        One pass over the points. A second one, in the log domain, where some class has less weight
        than the first can resolve.
        """
        one_hot = _one_hot(self, x.dtype)
        sums = posterior_sums(self.blocks, x, scale, std, values=one_hot, top=0)
        weights = cast(Array, sums.mean)
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        exist = jnp.max(jnp.where(one_hot.T > 0, self.log_weights, -jnp.inf), axis=-1) > -jnp.inf
        lost = jnp.any(exist & (weights < 100 * jnp.finfo(weights.dtype).eps))

        def summed() -> Array:
            positive = weights > 0
            return jnp.where(positive, jnp.log(jnp.where(positive, weights, 1)), -jnp.inf)

        def in_logs() -> Array:
            return _class_log_posterior(self, x, scale, std).astype(weights.dtype)

        return cast(Array, jax.lax.cond(lost, in_logs, summed))

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``E[a | x, c]`` per class, ``(..., classes, d)``."""
        means = [self.condition(c).denoise(x, scale, std) for c in range(self.classes)]
        return jnp.stack(means, axis=-2)

    def condition(self, c: int) -> PointCloud:
        """The points of class ``c`` alone: the others are masked, so indices keep their meaning."""
        if c not in range(self.classes):
            raise ValueError(f"class {c} does not exist; classes are 0..{self.classes - 1}")
        kept = jnp.where(self.labels == c, self.log_weights, -jnp.inf)
        log_weights = jax.nn.log_softmax(kept)
        return replace(self, log_weights=log_weights, blocks=point_blocks(self.points, log_weights))


def point_cloud(points: ArrayLike, labels: ArrayLike | None = None) -> PointCloud:
    """Empirical measure of a data set, every point with weight 1/n.

    Duplicate points are allowed: they share their weight. A single point (n = 1) is collapsed
    at every time.

    Args:
        points: ``(n, d)`` real numbers.
        labels: optional ``(n,)``; the sorted distinct values become classes 0, 1, ... Without
            labels all points form one class.

    Returns:
        A frozen record in the dtype of ``points``.

    Raises:
        ValueError: if ``points`` is not ``(n, d)`` with n, d >= 1, holds NaN or infinity, or if
            ``labels`` has another length.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    shape = np.shape(points)
    if len(shape) != 2:
        fix = "; for one-dimensional data pass points[:, None]" if len(shape) == 1 else ""
        raise ValueError(f"points has shape {shape}, expected (n, d){fix}")
    if 0 in shape:
        raise ValueError(f"points has shape {shape}: the set is empty")
    points = checks.floating(points, "points")
    index, classes = _class_index(labels, shape[0])
    log_weights = jnp.full((shape[0],), -np.log(shape[0]), points.dtype)
    return PointCloud(points, point_blocks(points, log_weights), log_weights, index, classes)


def _class_index(labels: ArrayLike | None, n: int) -> tuple[Array, int]:
    """Class index of every point, and the number of classes."""
    if labels is None:
        return jnp.zeros((n,), dtype=jnp.int32), 1
    values = np.asarray(labels)
    if values.shape != (n,):
        raise ValueError(f"labels has shape {values.shape}, expected ({n},), one label per point")
    if values.dtype.kind == "f" and not np.all(np.isfinite(values)):
        raise ValueError("labels hold NaN or infinite values; give every point a class")
    names, index = np.unique(values, return_inverse=True)
    return jnp.asarray(index, dtype=jnp.int32), len(names)


def _one_hot(cloud: PointCloud, dtype: jnp.dtype | None = None) -> Array:
    """Class membership ``(n, classes)``."""
    return jax.nn.one_hot(cloud.labels, cloud.classes, dtype=dtype or cloud.points.dtype)


def _class_log_posterior(cloud: PointCloud, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
    """``log p(c | x)`` from the log-weights of all points, a few states at a time."""
    batch = x.shape[:-1]
    channel = (jnp.broadcast_to(jnp.asarray(v, x.dtype), batch).reshape(-1) for v in (scale, std))
    flat = (x.reshape(-1, x.shape[-1]), *channel)
    classes = jnp.arange(cloud.classes, dtype=cloud.labels.dtype)

    def one(state: tuple[Array, Array, Array]) -> Array:
        log_weight = posterior_log_weights(cloud.blocks, *state)

        def of_class(c: Array) -> Array:
            return logsumexp(jnp.where(cloud.labels == c, log_weight, -jnp.inf))

        return jax.nn.log_softmax(jax.lax.map(of_class, classes))

    return jax.lax.map(one, flat, batch_size=32).reshape(*batch, cloud.classes)
