r"""A data distribution blurred by a Gaussian kernel, as a regulariser of empirical scores.

With ``b ~ P0`` and ``a = b + sqrt(h) xi``, ``xi ~ N(0, I)``, the channel ``x = scale a + std z`` of
the blurred distribution is the channel of ``b`` with more noise,

    V = std^2 + scale^2 h,    g = scale h / V,                                             (1)
    p(x) = p_b(x; scale, sqrt V),                                                          (2)
    E[a | x] = E[b | x] + g (x - scale E[b | x]),                                          (3)
    Cov[a | x] = (1 - g scale)^2 Cov[b | x] + (h std^2 / V) I.                             (4)

For a point cloud this is the kernel density estimate of its points, whose score no longer
collapses onto them once ``std^2 << h``. The kernel variance ``h`` may also depend on the noise
level. Eq. (3) then defines the denoiser of a sampler that is the score of no single density.

References:
    Biroli, Mezard 2024 (2408.05807), kernel density estimates; Robbins 1956 (Tweedie's formula).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import Denoiser, Posterior, per_event, require
from diffjax.noise import normal


@records.register
@dataclass(frozen=True)
class Smoothed:
    """Record made by `smoothed`; implements `Posterior`.

    Attributes:
        data: the distribution under the kernel.
        variance: kernel variance per coordinate, ``()``.
    """

    data: Any
    variance: Array

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.data.dim

    @property
    def has_density(self) -> bool:
        """Whether the clean data have a density, so that ``std = 0`` is allowed."""
        return checks.is_concrete(self.variance) and bool(np.asarray(self.variance) > 0)

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``."""
        key_data, key_kernel = jax.random.split(key)
        clean = self.data.sample(key_data, n)
        kernel = normal(key_kernel, clean.shape, clean.dtype)
        return clean + jnp.sqrt(self.variance).astype(clean.dtype) * kernel

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, eq. (2), ``(...)``."""
        return self.data.log_normaliser(x, scale, _kernel(self.variance, x, scale, std)[0])

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``grad_x log p(x)``: that of (2), finite at ``std = 0``."""
        return _score(self.data, x, scale, _kernel(self.variance, x, scale, std)[0])

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``, eq. (3)."""
        return _blurred_mean(self.data, self.variance, x, scale, std)

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)``: ``b`` from its posterior, then the kernel's given both."""
        key_data, key_kernel = jax.random.split(key)
        wide, gain = _kernel(self.variance, x, scale, std)
        b = self.data.sample_posterior(key_data, x, scale, wide)
        spread = jnp.sqrt(self.variance).astype(x.dtype) * jnp.asarray(std, x.dtype) / wide
        inside = b + per_event(gain, x) * (x - per_event(scale, x) * b)
        return inside + per_event(spread, x) * normal(key_kernel, x.shape, x.dtype)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``, eq. (4)."""
        wide, gain = _kernel(self.variance, x, scale, std)
        kept = jnp.square(1 - per_event(gain, x) * per_event(scale, x))
        across = self.data.covariance_product(x, scale, wide, u)
        within = self.variance.astype(x.dtype) * jnp.square(jnp.asarray(std, x.dtype) / wide)
        return kept * across + per_event(within, x) * u


@records.register
@dataclass(frozen=True)
class SmoothedByLevel:
    """Record made by `smoothed_by_level`; implements `Denoiser`.

    Attributes:
        data: the distribution under the kernel.
        log_snr: knots, increasing, ``(K,)``.
        log_variances: logarithm of the kernel variance at the knots, ``(K,)``.
    """

    data: Any
    log_snr: Array
    log_variances: Array

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.data.dim

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Eq. (3) with the kernel variance of the noise level."""
        return _blurred_mean(self.data, self.variance(scale, std), x, scale, std)

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``(scale E[a | x] - x) / std^2`` with (3), free of cancellation."""
        variance = self.variance(scale, std)
        return _score(self.data, x, scale, _kernel(variance, x, scale, std)[0])

    def variance(self, scale: ArrayLike, std: ArrayLike) -> Array:
        """Kernel variance: linear between the knots in ``log h`` against ``log snr``."""
        dtype = self.log_variances.dtype
        level = 2 * (jnp.log(jnp.asarray(scale, dtype)) - jnp.log(jnp.asarray(std, dtype)))
        return jnp.exp(jnp.interp(level, self.log_snr, self.log_variances))


def smoothed(data: Any, variance: ArrayLike) -> Smoothed:
    """``data`` convolved with ``N(0, variance I)``; a point cloud becomes its kernel estimate.

    Args:
        data: a distribution with an exact posterior.
        variance: kernel variance per coordinate (never a standard deviation), >= 0.

    Raises:
        ValueError: if ``variance`` is negative, infinite, or no scalar.
        TypeError: if ``data`` has no posterior.

    References:
        Biroli, Mezard 2024 (2408.05807).
    """
    require(data, Posterior, "smoothed")
    variance = checks.floating(variance, "variance")
    if variance.ndim:
        raise ValueError(f"variance has shape {variance.shape}, expected one number")
    if checks.is_concrete(variance) and np.asarray(variance) < 0:
        raise ValueError(f"variance must be >= 0, but is {np.asarray(variance)}")
    return Smoothed(data, variance)


def smoothed_by_level(data: Any, variances: ArrayLike, times: ArrayLike) -> SmoothedByLevel:
    """A denoiser of ``data`` blurred by a kernel whose variance depends on the noise level.

    Args:
        data: a distribution, or anything that knows ``denoise``.
        variances: kernel variances at the knots, ``(K,)``, positive; in between ``log h`` is
            linear in the logarithm of the signal-to-noise ratio, outside it is constant.
        times: OU times of the knots at temperature 1, ``(K,)``, increasing and positive.

    Raises:
        ValueError: on shapes that differ, variances or times that are not positive, or times
            that do not increase.
        TypeError: if ``data`` cannot denoise.
    """
    require(data, Denoiser, "smoothed_by_level")
    variances, times = checks.floating(variances, "variances"), checks.floating(times, "times")
    if times.ndim != 1 or times.shape != variances.shape or not times.size:
        raise ValueError(
            f"variances and times have shapes {variances.shape} and {times.shape}, "
            "expected (K,) for both"
        )
    checks.positive(variances, "variances")
    checks.positive(times, "times")
    if checks.is_concrete(times) and np.any(np.diff(np.asarray(times)) <= 0):
        raise ValueError(f"times must increase strictly, but are {np.asarray(times)}")
    log_snr = -jnp.log(jnp.expm1(2 * times))[::-1]
    return SmoothedByLevel(data, log_snr, jnp.log(variances)[::-1])


def _kernel(variance: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> tuple[Array, Array]:
    """``sqrt V`` and the gain ``g`` of eq. (1), in the dtype of ``x``."""
    scale, std = jnp.asarray(scale, x.dtype), jnp.asarray(std, x.dtype)
    variance = variance.astype(x.dtype)
    total = jnp.square(std) + jnp.square(scale) * variance
    return jnp.sqrt(total), scale * variance / total


def _blurred_mean(data: Any, variance: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
    """Eq. (3)."""
    wide, gain = _kernel(variance, x, scale, std)
    mean = data.denoise(x, scale, wide)
    return mean + per_event(gain, x) * (x - per_event(scale, x) * mean)


def _score(data: Any, x: Array, scale: ArrayLike, wide: Array) -> Array:
    """Score of ``data`` at the noise level ``wide``: with (3), ``(scale E[a|x] - x) / std^2``."""
    if hasattr(data, "score"):
        return data.score(x, scale, wide)
    return (per_event(scale, x) * data.denoise(x, scale, wide) - x) / jnp.square(per_event(wide, x))
