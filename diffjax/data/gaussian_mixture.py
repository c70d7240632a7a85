r"""Gaussian mixtures with an exact posterior under any linear Gaussian channel.

    P0 = sum_c w_c N(m_c, Sigma_c),   Sigma_c = diag(v_c) + F_c F_c^T,                     (1)
    C_c = std^2 I + scale^2 Sigma_c = D_c + scale^2 F_c F_c^T,                             (2)
    p(c | x) ~ w_c N(x; scale m_c, C_c),                                                   (3)
    score = -sum_c p(c | x) C_c^{-1} (x - scale m_c),                                      (4)
    E[a | x, c] = m_c + scale Sigma_c C_c^{-1} (x - scale m_c),                            (5)
    Cov[a | x, c] = std^2 Sigma_c C_c^{-1}.                                                (6)

``C_c^{-1}`` is applied by the Woodbury identity, an ``r x r`` system for factors of rank r.
Log-likelihoods are formed relative to component 0, so that the large ``|x|^2`` term that all
components share cancels before it is rounded. Components are visited by a scan: memory is
``O(B d)``, not ``O(B K d)``.

References:
    Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), SI; Raya, Ambrogioni 2023
    (2305.19693).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.base import per_event
from diffjax.noise import normal

_UNROLL = 8  # components that are fused into one loop body


class _Component(NamedTuple):
    """Parameters of one component, cut out of the stacked arrays by the scan."""

    mean: Array  # (d,)
    variance: Array  # (1,) or (d,)
    factor: Array | None  # (d, r)


@records.register
@dataclass(frozen=True)
class GaussianMixture:
    """Record made by `gaussian_mixture`; implements `Posterior` and `Classified`."""

    log_weights: Array  # (K,)
    means: Array  # (K, d)
    variances: Array  # (K, 1) or (K, d)
    factors: Array | None  # (K, d, r)
    labels: Array  # (K,) class index of each component
    classes: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        """Dimension d."""
        return self.means.shape[-1]

    @property
    def has_density(self) -> bool:
        """Whether the clean data have a density, so that ``std = 0`` is allowed."""
        return checks.is_concrete(self.variances) and bool(np.all(np.asarray(self.variances) > 0))

    @property
    def class_weights(self) -> Array:
        """Prior weight of every class, ``(K classes,)``."""
        return jnp.exp(_by_class(self, self.log_weights))

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``."""
        return self.sample_noised(key, n, 1.0, 0.0)

    def sample_noised(self, key: Array, n: int, scale: ArrayLike, std: ArrayLike) -> Array:
        """``n`` samples of ``x`` drawn directly from the noised mixture (one normal per entry)."""
        key_index, key_noise, key_factor = jax.random.split(key, 3)
        dtype = self.means.dtype
        scale, std = jnp.asarray(scale, dtype), jnp.asarray(std, dtype)
        index = jax.random.categorical(key_index, self.log_weights, shape=(n,))
        diagonal = jnp.square(std) + jnp.square(scale) * self.variances
        noise = normal(key_noise, (n, self.dim), dtype)
        x = scale * self.means[index] + jnp.sqrt(diagonal)[index] * noise
        if self.factors is None:
            return x
        return x + scale * _factor_noise(self, key_factor, index)

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` of the noised mixture in nats, ``(...)``."""
        relative, base = _log_joint(self, x, scale, std)
        return base + logsumexp(relative, axis=-1)

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``grad_x log p(x)``, eq. (4); finite at ``std = 0`` where the mixture has a density."""
        scale_, std_ = per_event(scale, x), per_event(std, x)

        def contribution(component: _Component, weight: Array) -> Array:
            residual = x - scale_ * component.mean
            return -weight * _solve(component, scale_, std_, residual)

        return _component_sum(self, self._responsibilities(x, scale, std), contribution, x)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``, eq. (5) averaged with eq. (3)."""
        return self._mean(x, scale, std, self._responsibilities(x, scale, std))

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)``: a component by eq. (3), then its Gaussian posterior.

        With diagonal covariances the draw is ``E[a | x, c] + std sqrt(v / D) z``. With factors a
        joint sample ``(a', x')`` of the component is conditioned (Matheron's rule):
        ``a = a' + scale Sigma C^{-1} (x - x')`` has mean (5) and covariance (6) exactly.
        """
        key_index, key_a, key_factor, key_z = jax.random.split(key, 4)
        relative, _ = _log_joint(self, x, scale, std)
        index = jax.random.categorical(key_index, relative, axis=-1)
        chosen = jax.nn.one_hot(index, self.means.shape[0], dtype=x.dtype)
        scale_, std_ = per_event(scale, x), per_event(std, x)
        noise = normal(key_a, x.shape, x.dtype)
        if self.factors is None:
            variance = self.variances[index]
            diagonal = jnp.square(std_) + jnp.square(scale_) * variance
            spread = std_ * jnp.sqrt(variance / diagonal) * noise
            return self._mean(x, scale, std, chosen) + spread
        prior = noise * jnp.sqrt(self.variances)[index] + _factor_noise(self, key_factor, index)
        observed = scale_ * prior + std_ * normal(key_z, x.shape, x.dtype)

        def contribution(component: _Component, weight: Array) -> Array:
            gap = x - scale_ * component.mean - observed
            gain = _covariance(component, _solve(component, scale_, std_, gap))
            return weight * (component.mean + prior + scale_ * gain)

        return _component_sum(self, chosen, contribution, x)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``: within components by eq. (6), plus the spread of their means."""
        weights = self._responsibilities(x, scale, std)
        scale_, std_ = per_event(scale, x), per_event(std, x)
        centre = self._mean(x, scale, std, weights)

        def contribution(component: _Component, weight: Array) -> Array:
            within = _covariance(component, _solve(component, scale_, std_, u))
            offset = _component_mean(component, x, scale_, std_) - centre
            across = offset * jnp.sum(offset * u, axis=-1, keepdims=True)
            return weight * (jnp.square(std_) * within + across)

        return _component_sum(self, weights, contribution, x)

    def class_log_posterior(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(c | x)`` per class, ``(..., classes)``."""
        relative, _ = _log_joint(self, x, scale, std)
        return _by_class(self, jax.nn.log_softmax(relative, axis=-1))

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``E[a | x, c]`` per class, ``(..., classes, d)``; NaN for a class of weight 0."""
        relative, _ = _log_joint(self, x, scale, std)

        def one_class(c: Array) -> Array:
            weights = jax.nn.softmax(jnp.where(self.labels == c, relative, -jnp.inf), axis=-1)
            return self._mean(x, scale, std, weights)

        stacked = jax.lax.map(one_class, jnp.arange(self.classes))
        return jnp.moveaxis(stacked, 0, -2)

    def condition(self, c: int) -> GaussianMixture:
        """The mixture of class ``c`` alone: the other components get weight 0."""
        if c not in range(self.classes):
            raise ValueError(f"class {c} does not exist; classes are 0..{self.classes - 1}")
        kept = jnp.where(self.labels == c, self.log_weights, -jnp.inf)
        return replace(self, log_weights=jax.nn.log_softmax(kept))

    def _responsibilities(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        relative, _ = _log_joint(self, x, scale, std)
        return jax.nn.softmax(relative, axis=-1)

    def _mean(self, x: Array, scale: ArrayLike, std: ArrayLike, weights: Array) -> Array:
        scale_, std_ = per_event(scale, x), per_event(std, x)

        def contribution(component: _Component, weight: Array) -> Array:
            return weight * _component_mean(component, x, scale_, std_)

        return _component_sum(self, weights, contribution, x)


def gaussian_mixture(
    weights: ArrayLike,
    means: ArrayLike,
    variances: ArrayLike,
    factors: ArrayLike | None = None,
    labels: ArrayLike | None = None,
) -> GaussianMixture:
    """Gaussian mixture ``sum_c w_c N(m_c, diag(v_c) + F_c F_c^T)``.

    Args:
        weights: ``(K,)``, non-negative; normalised here.
        means: ``(K, d)``.
        variances: variance per coordinate (never a standard deviation): ``()``, ``(K,)`` or
            ``(K, d)``; zero is allowed and gives point masses in those coordinates.
        factors: optional ``(K, d, r)``; adds ``F_c F_c^T`` to the covariance.
        labels: optional ``(K,)`` integers that group components into classes (sorted values
            become classes 0, 1, ...); by default every component is its own class.

    Returns:
        A frozen record in the dtype of ``means``.

    Raises:
        ValueError: on wrong shapes, negative weights or variances, NaN or infinite values.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    means = checks.floating(means, "means")
    if means.ndim != 2 or 0 in means.shape:
        raise ValueError(f"means has shape {means.shape}, expected (K, d) with K, d >= 1")
    k, d = means.shape
    weights = checks.floating(weights, "weights").astype(means.dtype)
    if weights.shape != (k,):
        raise ValueError(f"weights has shape {weights.shape}, expected ({k},), one per mean")
    if checks.is_concrete(weights) and not _are_weights(np.asarray(weights)):
        raise ValueError(f"weights must be non-negative and not all zero, but are {weights}")
    log_weights = jnp.log(weights) - jnp.log(jnp.sum(weights))
    labels, classes = _class_index(labels, k)
    return GaussianMixture(
        log_weights, means, _variances(variances, means), _factors(factors, k, d, means.dtype),
        labels, classes,
    )  # fmt: skip


def _are_weights(weights: np.ndarray) -> bool:
    """Whether all are non-negative and one is above zero."""
    return bool(np.all(weights >= 0) and np.sum(weights) > 0)


def _variances(variances: ArrayLike, means: Array) -> Array:
    """Variances as ``(K, 1)`` or ``(K, d)``."""
    k, d = means.shape
    variances = checks.floating(variances, "variances").astype(means.dtype)
    if variances.shape not in {(), (k,), (k, d)}:
        raise ValueError(
            f"variances has shape {variances.shape}, expected (), ({k},) or ({k}, {d})"
        )
    if checks.is_concrete(variances) and np.any(np.asarray(variances) < 0):
        smallest = np.min(np.asarray(variances))
        raise ValueError(f"variances must be >= 0, but the smallest is {smallest}")
    return variances if variances.ndim == 2 else jnp.broadcast_to(variances, (k,))[:, None]


def _factors(factors: ArrayLike | None, k: int, d: int, dtype: jnp.dtype) -> Array | None:
    """Factors as a checked ``(K, d, r)`` array."""
    if factors is None:
        return None
    factors = checks.floating(factors, "factors").astype(dtype)
    if factors.ndim != 3 or factors.shape[:2] != (k, d):
        raise ValueError(f"factors has shape {factors.shape}, expected ({k}, {d}, r)")
    return factors


def _class_index(labels: ArrayLike | None, k: int) -> tuple[Array, int]:
    """Class index of every component, and the number of classes."""
    if labels is None:
        return jnp.arange(k), k
    values = np.asarray(labels)
    if values.shape != (k,):
        raise ValueError(f"labels has shape {values.shape}, expected ({k},), one per component")
    names, index = np.unique(values, return_inverse=True)
    return jnp.asarray(index), len(names)


def _by_class(mixture: GaussianMixture, log_weights: Array) -> Array:
    """Log-sum of component log-weights ``(..., K)`` over each class, ``(..., classes)``."""
    member = mixture.labels == jnp.arange(mixture.classes)[:, None]
    return logsumexp(jnp.where(member, log_weights[..., None, :], -jnp.inf), axis=-1)


def _factor_noise(mixture: GaussianMixture, key: Array, index: Array) -> Array:
    """``F_c eta`` with ``eta ~ N(0, I_r)`` for each row's component."""
    factors = cast(Array, mixture.factors)
    eta = normal(key, (*index.shape, factors.shape[-1]), factors.dtype)
    chosen = jax.nn.one_hot(index, mixture.means.shape[0], dtype=eta.dtype)

    def contribution(component: _Component, weight: Array) -> Array:
        return weight * (eta @ cast(Array, component.factor).T)

    like = jnp.zeros((*index.shape, mixture.dim), eta.dtype)
    return _component_sum(mixture, chosen, contribution, like)


def _component_sum(mixture: GaussianMixture, weights: Array, contribution, like: Array) -> Array:
    """``sum_c contribution(component c, weights[..., c, None])`` by a scan over components."""
    stacked = _Component(mixture.means, mixture.variances, mixture.factors)
    per_component = jnp.moveaxis(weights, -1, 0)[..., None]

    def body(total: Array, item: tuple[_Component, Array]) -> tuple[Array, None]:
        return total + contribution(*item), None

    shape = jnp.broadcast_shapes(like.shape, (*weights.shape[:-1], 1))
    start = jnp.zeros(shape, like.dtype)
    unroll = min(mixture.means.shape[0], _UNROLL)
    return jax.lax.scan(body, start, (stacked, per_component), unroll=unroll)[0]


def _solve(component: _Component, scale_: Array, std_: Array, y: Array) -> Array:
    """``C^{-1} y`` by the Woodbury identity; ``y`` is ``(..., d)``."""
    diagonal = jnp.square(std_) + jnp.square(scale_) * component.variance
    whitened = y / diagonal
    if component.factor is None:
        return whitened
    inner, projected = _inner_system(component, scale_, diagonal, whitened)
    correction = jnp.linalg.solve(inner, projected[..., None])[..., 0] @ component.factor.T
    return whitened - jnp.square(scale_) * correction / diagonal


def _inner_system(
    component: _Component, scale_: Array, diagonal: Array, whitened: Array
) -> tuple[Array, Array]:
    """``I + scale^2 F^T D^{-1} F`` and ``F^T D^{-1} y``."""
    factor = cast(Array, component.factor)
    d, rank = factor.shape
    precision = jnp.broadcast_to(1 / diagonal, (*diagonal.shape[:-1], d))
    gram = jnp.einsum("ir,...i,is->...rs", factor, precision, factor, precision="highest")
    inner = jnp.eye(rank, dtype=factor.dtype) + jnp.square(scale_)[..., None] * gram
    return inner, jnp.matmul(whitened, factor, precision="highest")


def _covariance(component: _Component, y: Array) -> Array:
    """``Sigma y``."""
    product = component.variance * y
    if component.factor is None:
        return product
    inner = jnp.matmul(y, component.factor, precision="highest")
    return product + jnp.matmul(inner, component.factor.T, precision="highest")


def _component_mean(component: _Component, x: Array, scale_: Array, std_: Array) -> Array:
    """``E[a | x, c]``, eq. (5)."""
    residual = x - scale_ * component.mean
    return component.mean + scale_ * _covariance(
        component, _solve(component, scale_, std_, residual)
    )


def _log_joint(
    mixture: GaussianMixture, x: Array, scale: ArrayLike, std: ArrayLike
) -> tuple[Array, Array]:
    """``log w_c N(x; scale m_c, C_c)`` as ``(relative (..., K), base (...))``; their sum is it.

    ``base`` is the Gaussian of component 0's diagonal around the mean of the centres. With
    ``r = x - scale mbar`` and ``e = scale (m_c - mbar)``,

        relative = log w_c - 1/2 sum r^2 (1/D_c - 1/D_0) + sum (r - e/2) e / D_c
                   - 1/2 sum log(D_c / D_0) + 1/2 [low-rank terms].
    """
    scale_, std_ = per_event(scale, x), per_event(std, x)
    dim = mixture.dim
    middle = jnp.mean(mixture.means, axis=0)
    residual = x - scale_ * middle
    reference = jnp.square(std_) + jnp.square(scale_) * mixture.variances[0]
    base = -0.5 * (
        jnp.sum(jnp.square(residual) / reference, axis=-1)
        + _event_sum(jnp.log(2 * jnp.pi * reference), dim)
    )

    def one(_: None, component: _Component) -> tuple[None, Array]:
        shift = scale_ * (component.mean - middle)
        diagonal = jnp.square(std_) + jnp.square(scale_) * component.variance
        excess = (reference - diagonal) / (diagonal * reference)
        quadratic = (
            -0.5 * jnp.square(residual) * excess + (residual - 0.5 * shift) * shift / diagonal
        )
        value = jnp.sum(quadratic, axis=-1) - 0.5 * _event_sum(jnp.log(diagonal / reference), dim)
        if component.factor is not None:
            value = value + _low_rank_term(component, scale_, diagonal, residual - shift)
        return None, value

    stacked = _Component(mixture.means, mixture.variances, mixture.factors)
    unroll = min(mixture.means.shape[0], _UNROLL)
    _, values = jax.lax.scan(one, None, stacked, unroll=unroll)
    return mixture.log_weights + jnp.moveaxis(values, 0, -1), base


def _low_rank_term(component: _Component, scale_: Array, diagonal: Array, residual: Array) -> Array:
    """``(scale^2 g^T M^{-1} g - log det M) / 2``, what the factors add to the log density."""
    inner, projected = _inner_system(component, scale_, diagonal, residual / diagonal)
    solved = jnp.linalg.solve(inner, projected[..., None])[..., 0]
    quadratic = jnp.square(scale_[..., 0]) * jnp.sum(projected * solved, axis=-1)
    return 0.5 * (quadratic - jnp.linalg.slogdet(inner)[1])


def _event_sum(values: Array, dim: int) -> Array:
    """Sum over the event axis of an array whose last axis is 1 (isotropic) or d."""
    return jnp.sum(values, axis=-1) * (dim / values.shape[-1])
