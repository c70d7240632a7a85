r"""Signs whose probability depends on their sum only, by exact counting.

    P0(a) = P(k) / binomial(d, k),   k = number of +1 among the d signs.                   (1)

Noised signs are tilted by ``y_i = scale x_i / std^2``, so that every posterior quantity follows
from the law of k for independent signs with odds ``e^{2 y_i}``, which is built sign by sign,

    C_i(k) = C_{i-1}(k) P(a_i = -1) + C_{i-1}(k - 1) P(a_i = +1),                          (2)
    log p(x) = log sum_k P(k) C_d(k) / binomial(d, k) + base(x),                           (3)

and from its derivatives: ``d log p / dy`` is the posterior mean and the second derivative the
covariance. (2) runs in logarithms and all of its terms are positive: no cancellation, no
underflow. The cost is ``O(d^2)`` for each state, memory ``O(d^{3/2})`` for derivatives and
``O(d^2)`` for `sample_posterior`.

References:
    Barlow, Heidtmann 1984 (the recursion); Biroli, Mezard 2023 (2306.03518), for the model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaln, logsumexp
from jax.typing import ArrayLike

from diffjax import records
from diffjax.data.base import per_event

_NOTHING = -1e30  # logarithm of an impossible count; finite, so that derivatives are too


@records.register
@dataclass(frozen=True)
class ExchangeableSpins:
    """Signs with law (1); implements `Posterior`."""

    log_law: Array  # (d + 1,), log P(k), normalised

    @property
    def dim(self) -> int:
        """Number of signs d."""
        return self.log_law.shape[0] - 1

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``: k, then signs without replacement."""
        dtype = self.log_law.dtype
        key_count, key_signs = jax.random.split(key)
        up = jax.random.categorical(key_count, self.log_law, shape=(n,)).astype(dtype)
        uniforms = jax.random.uniform(key_signs, (n, self.dim), dtype).T

        def body(left: Array, item: tuple[Array, Array]) -> tuple[Array, Array]:
            u, sites = item
            drawn = u * sites < left
            return left - drawn, jnp.where(drawn, 1, -1).astype(dtype)

        _, signs = jax.lax.scan(body, up, (uniforms, jnp.arange(self.dim, 0, -1, dtype=dtype)))
        return signs.T

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, ``(...)``; eq. (3)."""
        scale_, std_ = per_event(scale, x), per_event(std, x)
        up, down = (-0.5 * jnp.square((x - sign * scale_) / std_) for sign in (1, -1))
        base = jnp.sum(jnp.logaddexp(up, down) - 0.5 * jnp.log(2 * jnp.pi * std_**2), axis=-1)
        return base + jax.vmap(self._log_sum)(_flat(tilt(x, scale, std))).reshape(base.shape)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``."""
        y = tilt(x, scale, std)
        return jax.vmap(self._mean)(_flat(y)).reshape(y.shape)

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)``: k, then the signs from the last to the first by (2)."""
        y = tilt(x, scale, std)
        flat = _flat(y)
        key_count, key_signs = jax.random.split(key)
        counts = jax.vmap(lambda v: _all_counts(v))(flat)  # (B, d + 1, d + 1)
        log_k = self.log_config() + counts[:, -1]
        k = jax.random.categorical(key_count, log_k, axis=-1)
        u = jax.random.uniform(key_signs, flat.shape, y.dtype)
        return jax.vmap(_signs_given_count)(flat, counts, k, u).reshape(y.shape)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``, the derivative of the mean along u."""
        y = tilt(x, scale, std)

        def one(v: Array, direction: Array) -> Array:
            return jax.jvp(self._mean, (v,), (direction,))[1]

        return jax.vmap(one)(_flat(y), _flat(jnp.broadcast_to(u, y.shape))).reshape(y.shape)

    def log_config(self) -> Array:
        """``log P(k) / binomial(d, k)``."""
        return self.log_law - log_binomial(self.dim, self.log_law.dtype)

    def _log_sum(self, y: Array) -> Array:
        return logsumexp(self.log_config().astype(y.dtype) + log_counts(y))

    def _mean(self, y: Array) -> Array:
        return jnp.tanh(y) + jax.grad(self._log_sum)(y)


def tilt(x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
    """``y = scale x / std^2``, half of the log-odds that the channel gives to each sign."""
    return x * per_event(scale, x) / jnp.square(per_event(std, x))


def log_binomial(dim: int, dtype: jnp.dtype) -> Array:
    """``log binomial(d, k)``, ``(d + 1,)``."""
    k = jnp.arange(dim + 1, dtype=dtype)
    return gammaln(jnp.asarray(dim + 1, dtype)) - gammaln(k + 1) - gammaln(dim - k + 1)


def log_counts(y: Array) -> Array:
    """``log C_d(k)`` of (2) for half log-odds ``y (d,)``, ``(d + 1,)``.

    Derivatives recompute the recursion block by block: ``O(d^{3/2})`` memory.
    """
    dim = y.shape[0]
    block = max(1, math.isqrt(dim))

    def run(counts: Array, signs: Array) -> tuple[Array, None]:
        return jax.lax.scan(_add_sign, counts, signs)[0], None

    whole = dim // block * block
    counts, _ = jax.lax.scan(jax.checkpoint(run), _no_signs(y), y[:whole].reshape(-1, block))
    return run(counts, y[whole:])[0]


def _no_signs(y: Array) -> Array:
    return jnp.full(y.shape[0] + 1, _NOTHING, y.dtype).at[0].set(0)


def _add_sign(counts: Array, y: Array) -> tuple[Array, None]:
    shifted = jnp.concatenate([jnp.full(1, _NOTHING, counts.dtype), counts[:-1]])
    return jnp.logaddexp(counts + _log_chance(-y), shifted + _log_chance(y)), None


def _log_chance(y: Array) -> Array:
    return -jax.nn.softplus(-2 * y)


def _all_counts(y: Array) -> Array:
    """``log C_i(k)`` for i = 0 .. d, ``(d + 1, d + 1)``."""

    def body(counts: Array, value: Array) -> tuple[Array, Array]:
        new, _ = _add_sign(counts, value)
        return new, new

    first = _no_signs(y)
    return jnp.concatenate([first[None], jax.lax.scan(body, first, y)[1]])


def _signs_given_count(y: Array, counts: Array, k: Array, u: Array) -> Array:
    """Signs with k of them up, from the last to the first."""

    def body(left: Array, item: tuple[Array, Array, Array, Array]) -> tuple[Array, Array]:
        value, before, after, uniform = item
        log_up = before[jnp.maximum(left - 1, 0)] + _log_chance(value) - after[left]
        up = (left > 0) & (jnp.log(uniform) < log_up)
        return left - up, jnp.where(up, 1, -1).astype(value.dtype)

    return jax.lax.scan(body, k, (y, counts[:-1], counts[1:], u), reverse=True)[1]


def _flat(y: Array) -> Array:
    return y.reshape(-1, y.shape[-1])
