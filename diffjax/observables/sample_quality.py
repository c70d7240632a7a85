r"""Distance between two sets of samples in given features: Frechet distance, precision, recall.

*Frechet distance.* Of the normal distributions with the means and covariances of both sets,

    d^2 = |m_1 - m_2|^2 + Tr[S_1 + S_2 - 2 (S_1^{1/2} S_2 S_1^{1/2})^{1/2}].                 (1)

With triangular factors ``S = R^T R`` of the centred data the last trace is the sum of the singular
values of ``R_1 R_2^T`` (2), so that no covariance is formed and no root of a rounding error is
taken: where there are fewer samples than features, the root of a covariance has an error of
``sqrt(eps)`` in each missing direction.

*Precision and recall.* With the union of balls around the points of one set, each reaching to its
k-th nearest neighbour within the set, precision is the fraction of generated samples inside the
balls of the real ones, and recall the fraction of real ones inside the balls of the
generated (3).

The numbers depend on the features. The "FID" of the literature uses those of an Inception network
trained on ImageNet; call a distance in other features by their name.

References:
    Dowson, Landau 1982 for (1); Heusel et al. 2017 (1706.08500); Kynkaanniemi, Karras, Laine,
    Lehtinen, Aila 2019 (1904.06991) for (3).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks
from diffjax.observables.estimates import Estimate, mean_and_error
from diffjax.observables.neighbours import (
    nearest_distances,
    point_set,
    same_dimension,
    within_reach,
)


class PrecisionRecall(NamedTuple):
    """Fractions of eq. (3); the errors are those of the counted points, the balls held fixed."""

    precision: Estimate
    recall: Estimate


def frechet_distance(features_a: ArrayLike, features_b: ArrayLike) -> Array:
    """Squared Frechet distance between normal fits of two sets of features, eq. (1).

    Its square, as everywhere in the literature. An upward bias of order ``d / n`` comes with the
    estimated moments: compare only sets of equal sizes. Differentiable where both sets have more
    rows than features.

    Args:
        features_a: ``(n, d)``, n >= 2.
        features_b: ``(n', d)``, n' >= 2.

    Raises:
        ValueError: if a set has fewer than two rows, is not ``(n, d)`` or not finite, or if the
            dimensions differ.

    References:
        Dowson, Landau 1982; Heusel et al. 2017 (1706.08500).
    """
    a, b = point_set(features_a, "features_a"), point_set(features_b, "features_b")
    same_dimension(a, b, "features_a", "features_b")
    if min(len(a), len(b)) < 2:
        raise ValueError(f"sets of {len(a)} and {len(b)} rows: a covariance needs two at least")
    return _frechet(a, b)


def precision_recall(
    real: ArrayLike, generated: ArrayLike, *, neighbours: int = 3, chunk: int | None = None
) -> PrecisionRecall:
    """Precision and recall of generated samples by nearest neighbours, eq. (3).

    Both depend on the sizes of the sets: use equal ones, and the same when models are compared.

    Args:
        real: ``(n, d)``.
        generated: ``(M, d)``.
        neighbours: k, the neighbour to which a ball reaches (static).
        chunk: points per block of the distance computation (static).

    Raises:
        ValueError: if a set is empty, not ``(n, d)`` or not finite; if dimensions differ; if
            a set has no more than ``neighbours`` points.

    References:
        Kynkaanniemi et al. 2019 (1904.06991).
    """
    real, generated = point_set(real, "real"), point_set(generated, "generated")
    same_dimension(real, generated, "real", "generated")
    k = checks.count(neighbours, "neighbours")
    if min(len(real), len(generated)) <= k:
        raise ValueError(
            f"sets of {len(real)} and {len(generated)} points have no neighbour {k}; "
            "pass more points or a smaller number of neighbours"
        )
    dtype = jnp.promote_types(real.dtype, generated.dtype)
    real, generated = real.astype(dtype), generated.astype(dtype)

    def covered(points: Array, by: Array) -> Estimate:
        own = nearest_distances(by, by, count=k, exclude_own=True, chunk=chunk)
        inside = within_reach(points, by, own.distances[:, -1], chunk)
        return mean_and_error(inside.astype(own.distances.dtype))

    return PrecisionRecall(covered(generated, real), covered(real, generated))


@jax.jit
def _frechet(a: Array, b: Array) -> Array:
    wide = jnp.promote_types(jnp.promote_types(a.dtype, b.dtype), jnp.float32)
    (mean_a, factor_a), (mean_b, factor_b) = (_moments(x.astype(wide)) for x in (a, b))
    product = jnp.matmul(factor_a, factor_b.T, precision="highest")
    shared = jnp.sum(jnp.linalg.svd(product, compute_uv=False))
    traces = jnp.sum(jnp.square(factor_a)) + jnp.sum(jnp.square(factor_b))
    # a difference of nearly equal numbers for equal sets: rounding may take it below zero
    return jnp.sum(jnp.square(mean_a - mean_b)) + jnp.maximum(traces - 2 * shared, 0)


def _moments(x: Array) -> tuple[Array, Array]:
    """Mean and a factor R of the covariance ``R^T R``."""
    mean = jnp.mean(x, axis=0)
    return mean, jnp.linalg.qr(x - mean, mode="r") / jnp.sqrt(jnp.asarray(len(x) - 1, x.dtype))
