"""Covariance spectrum of a data set: what the spectral criteria and the Gaussian theory need."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks


class Spectrum(NamedTuple):
    """Covariance spectrum of centred points.

    Attributes:
        eigenvalues: descending, ``(min(n, d),)``, of the covariance with denominator n - 1.
        effective_rank: ``(sum lambda)^2 / sum lambda^2``; 0 if all points coincide.
    """

    eigenvalues: Array
    effective_rank: Array


def covariance_spectrum(points: ArrayLike) -> Spectrum:
    """Eigenvalues of the covariance of a data set ``(n, d)``, by the smaller Gram matrix.

    The largest one is Lambda of the spectral speciation time ``log(Lambda) / 2``. Its value
    depends on the convention of the data (pixel range, channels, standardisation).

    Raises:
        ValueError: if ``points`` is not ``(n, d)`` with n >= 2, or is not finite.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    if len(np.shape(points)) != 2 or np.shape(points)[0] < 2:
        raise ValueError(f"points has shape {np.shape(points)}, expected (n, d) with n >= 2")
    return _spectrum(checks.floating(points, "points"))


@jax.jit
def _spectrum(points: Array) -> Spectrum:
    n, d = points.shape
    wide = points.astype(jnp.result_type(float))
    centred = wide - jnp.mean(wide, axis=0)
    rows = centred if n <= d else centred.T
    gram = jnp.matmul(rows, rows.T, precision="highest") / (n - 1)
    eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0.0)
    total, squares = jnp.sum(eigenvalues), jnp.sum(jnp.square(eigenvalues))
    rank = jnp.where(squares > 0, jnp.square(total) / jnp.where(squares > 0, squares, 1.0), 0.0)
    return Spectrum(eigenvalues, rank)
