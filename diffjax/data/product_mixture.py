r"""Mixtures of product measures over equal sites: mean-field spins seen through their field.

Each of d sites is in one of Q states, state c being the vector ``A_c`` of k numbers, and given a
hidden value v out of V the sites are independent and equal:

    P0(a) = sum_v w_v prod_i p(c_i | v),   a_i = A_{c_i}.                                  (1)

A mean-field magnet has this form by the Hubbard-Stratonovich identity, with v a point of a grid
(`curie_weiss`, `potts`). Noised sites stay independent given v, so that the posterior of v is

    w_v(x) ~ w_v prod_i r_i(v),   r_i(v) = sum_c p_i(c) p(c | v) / p(c),                   (2)

with ``p(c) = sum_v w_v p(c | v)`` and ``p_i(c) ~ p(c) exp(-|x_i - scale A_c|^2 / 2 std^2)``; and

    p(c_i = c | v, x) = p_i(c) p(c | v) / (p(c) r_i(v)).                                   (3)

Nothing is expanded around a saddle point. (2) is a product of ratios near 1, of which several
are multiplied before a logarithm is taken, and the logarithms are summed with compensation: the
log-weights in float32 are wrong by about ``1e-7`` of their spread, which is below ``1e-7 d``.

Sites are visited by a scan: memory is ``O(B (V + d Q))`` for B states, time ``O(B V d Q)``.

References:
    Hubbard 1959; Biroli, Mezard 2023 (2306.03518), for the Curie-Weiss model.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from diffjax import records

_GROUP = 8  # ratios that are multiplied before the logarithm
_LOG_RANGE = 80.0  # |log| that float32 holds


@records.register
@dataclass(frozen=True)
class ProductMixture:
    """Record made by `product_mixture`; implements `Posterior`. Events are ``(d k,)``, by site."""

    log_weights: Array  # (V,)
    log_probabilities: Array  # (V, Q)
    log_marginal: Array  # (Q,)
    values: Array  # (Q, k)
    sites: int = field(metadata={"static": True})
    group: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        """Dimension ``d k`` of an event."""
        return self.sites * self.values.shape[-1]

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d k)``, by (1)."""
        key_field, key_sites = jax.random.split(key)
        u = jax.random.uniform(key_field, (n,), self.log_weights.dtype)
        cumulative = jnp.cumsum(jnp.exp(self.log_weights))
        index = jnp.searchsorted(cumulative / cumulative[-1], u, side="right")
        p = jnp.exp(self.log_probabilities)[index][:, None, :]
        states = _draw_states(key_sites, jnp.broadcast_to(p, (n, self.sites, p.shape[-1])))
        return self.values[states].reshape(n, self.dim)

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, ``(...)``."""
        here, channel = _as(self, x.dtype), _Channel(self, x, scale, std)
        joint = here.log_marginal + channel.log_likelihood()
        base = jnp.sum(logsumexp(joint, axis=-1), axis=-1)
        ratio = logsumexp(here.log_weights + _log_ratios(here, channel.states()), axis=-1)
        norm = 0.5 * self.dim * jnp.log(2 * jnp.pi * jnp.square(channel.std))
        return (base + ratio - norm[:, 0, 0]).reshape(channel.batch)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``, (3) averaged with (2)."""
        here, channel = _as(self, x.dtype), _Channel(self, x, scale, std)
        states, ratios = channel.states(), _ratios(here)
        weights = jnp.exp(_log_posterior(here, states))

        def body(_: None, p: Array) -> tuple[None, Array]:
            posterior = p * _dot(weights / _divisor(_site_ratio(p, ratios)), ratios)
            return None, posterior / jnp.sum(posterior, axis=-1, keepdims=True)

        _, posterior = jax.lax.scan(body, None, states)
        return channel.event(_dot(posterior, here.values))

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)``: v by (2), then independent sites by (3)."""
        key_field, key_sites = jax.random.split(key)
        here, channel = _as(self, x.dtype), _Channel(self, x, scale, std)
        states = channel.states()
        index = _draw_index(key_field, _log_posterior(here, states))
        p = jnp.moveaxis(states * _ratios(here)[index], 0, 1)
        drawn = _draw_states(key_sites, p / jnp.sum(p, axis=-1, keepdims=True))
        return here.values[drawn].reshape(*channel.batch, self.dim)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``: within the product measures, plus the spread of their means."""
        here, channel = _as(self, x.dtype), _Channel(self, x, scale, std)
        states, ratios = channel.states(), _ratios(here)
        weights = jnp.exp(_log_posterior(here, states))
        u = jnp.broadcast_to(u, (*channel.batch, self.dim)).reshape(channel.x.shape)
        overlap = jnp.moveaxis(_dot(u, here.values.T), 1, 0)  # A_c . u_i, (d, B, Q)

        def mean_overlap(p: Array, g: Array) -> tuple[Array, Array]:
            ratio = _divisor(_site_ratio(p, ratios))
            return ratio, _site_ratio(p * g, ratios) / ratio

        def total(carry: Array, item: tuple[Array, Array]) -> tuple[Array, None]:
            return carry + mean_overlap(*item)[1], None

        start = jnp.zeros_like(weights)
        spread, _ = jax.lax.scan(total, start, (states, overlap))
        spread = spread - jnp.sum(weights * spread, axis=-1, keepdims=True)

        def body(_: None, item: tuple[Array, Array]) -> tuple[None, Array]:
            p, g = item
            ratio, mean = mean_overlap(p, g)
            share = weights / ratio
            across = _dot(share * (spread - mean), ratios)
            return None, p * (g * _dot(share, ratios) + across)

        _, product = jax.lax.scan(body, None, (states, overlap))
        return channel.event(_dot(product, here.values))


def product_mixture(
    log_weights: np.ndarray,
    log_probabilities: np.ndarray,
    values: np.ndarray,
    sites: int,
    dtype: jnp.dtype | None = None,
) -> ProductMixture:
    """Mixture of product measures (1); weights and probabilities are normalised here.

    Args:
        log_weights: ``(V,)``, logarithms of ``w_v`` up to a constant.
        log_probabilities: ``(V, Q)``, logarithms of ``p(c | v)`` up to a constant for each v.
        values: ``(Q, k)``, the vectors of the states.
        sites: number of sites d.
        dtype: of the tables and of clean samples; the default float if None.

    Raises:
        ValueError: if a site is certain beyond what float32 can hold.
    """
    dtype = jnp.dtype(jnp.result_type(float) if dtype is None else dtype)
    log_w = log_weights - np.logaddexp.reduce(log_weights)
    log_p = log_probabilities - np.logaddexp.reduce(log_probabilities, axis=1)[:, None]
    marginal = np.logaddexp.reduce(log_w[:, None] + log_p, axis=0)
    span = float(np.max(np.abs(log_p - marginal)))
    if span > _LOG_RANGE:
        raise ValueError(
            f"a probability of a site differs by a factor e^{span:.0f} from its mean; factors "
            f"above e^{_LOG_RANGE:.0f} overflow in float32: take a weaker coupling"
        )
    group = _GROUP
    while group * span > _LOG_RANGE and group > 1:
        group //= 2
    return ProductMixture(
        jnp.asarray(log_w, dtype), jnp.asarray(log_p, dtype), jnp.asarray(marginal, dtype),
        jnp.asarray(values, dtype), sites, group,
    )  # fmt: skip


class _Channel:
    """A batch of states, flattened to ``(B, d, k)``, and their channel ``(B, 1, 1)``."""

    def __init__(self, spins: ProductMixture, x: Array, scale: ArrayLike, std: ArrayLike) -> None:
        self.spins = spins
        scale, std = (jnp.asarray(v, x.dtype) for v in (scale, std))
        self.batch = jnp.broadcast_shapes(x.shape[:-1], scale.shape, std.shape)
        flat = jnp.broadcast_to(x, (*self.batch, x.shape[-1]))
        self.x = flat.reshape(-1, spins.sites, spins.values.shape[-1])
        self.scale, self.std = (
            jnp.broadcast_to(v, self.batch).reshape(-1, 1, 1) for v in (scale, std)
        )

    def log_likelihood(self) -> Array:
        """``-|x_i - scale A_c|^2 / (2 std^2)``, ``(B, d, Q)``."""
        gap = self.x[:, :, None, :] - self.scale[..., None] * self.spins.values.astype(self.x.dtype)
        return -0.5 * jnp.sum(jnp.square(gap), axis=-1) / jnp.square(self.std)

    def states(self) -> Array:
        """``p_i(c)`` of every site, leading site axis for the scans: ``(d, B, Q)``."""
        values = self.spins.values.astype(self.x.dtype)
        gain = self.scale / jnp.square(self.std)
        # without |x_i|^2, which all states share
        joint = gain * (_dot(self.x, values.T) - 0.5 * self.scale * jnp.sum(values**2, axis=-1))
        log_p = self.spins.log_marginal.astype(self.x.dtype) + joint
        return jnp.moveaxis(jax.nn.softmax(log_p, axis=-1), 1, 0)

    def event(self, by_site: Array) -> Array:
        """``(d, B, k)`` as events ``(..., d k)``."""
        return jnp.moveaxis(by_site, 0, 1).reshape(*self.batch, self.spins.dim)


def _as(spins: ProductMixture, dtype: jnp.dtype) -> ProductMixture:
    """The tables in the dtype of the states."""
    return jax.tree.map(lambda table: table.astype(dtype), spins)


def _ratios(spins: ProductMixture) -> Array:
    """``p(c | v) / p(c)``, ``(V, Q)``."""
    return jnp.exp(spins.log_probabilities - spins.log_marginal)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def _site_ratio(p: Array, ratios: Array) -> Array:
    """``sum_c p_i(c) p(c | v) / p(c)``, ``(B, V)``, summed in place of a tiny matrix product."""
    total = p[:, 0, None] * ratios[:, 0]
    for c in range(1, ratios.shape[1]):
        total = total + p[:, c, None] * ratios[:, c]
    return total


def _divisor(ratio: Array) -> Array:
    """A ratio that may have underflowed where the weight has as well."""
    return jnp.maximum(ratio, jnp.finfo(ratio.dtype).tiny)


def _log_ratios(spins: ProductMixture, states: Array) -> Array:
    """``sum_i log r_i(v)``, ``(B, V)``; an unobserved site pads the groups, its ratio is 1."""
    group, ratios = spins.group, _ratios(spins)
    missing = -spins.sites % group
    unobserved = jnp.broadcast_to(jnp.exp(spins.log_marginal), (missing, *states.shape[1:]))
    blocks = jnp.concatenate([states, unobserved]).reshape(-1, group, *states.shape[1:])
    tiny = jnp.finfo(states.dtype).tiny

    def body(carry: tuple[Array, Array], block: Array) -> tuple[tuple[Array, Array], None]:
        total, lost = carry
        product = _site_ratio(block[0], ratios)
        for p in block[1:]:
            product = product * _site_ratio(p, ratios)
        term = jnp.log(jnp.maximum(product, tiny)) - lost
        new = total + term
        return (new, (new - total) - term), None

    zero = jnp.zeros((states.shape[1], ratios.shape[0]), states.dtype)
    return jax.lax.scan(body, (zero, zero), blocks)[0][0]


def _log_posterior(spins: ProductMixture, states: Array) -> Array:
    """``log w_v(x)``, normalised, ``(B, V)``; eq. (2)."""
    return jax.nn.log_softmax(spins.log_weights + _log_ratios(spins, states), axis=-1)


def _draw_index(key: Array, log_weights: Array) -> Array:
    """One index for each row of ``(B, V)``, by inversion with one uniform for each row."""
    cumulative = jnp.cumsum(jnp.exp(log_weights), axis=-1)
    cumulative = cumulative / cumulative[:, -1:]
    u = jax.random.uniform(key, (log_weights.shape[0], 1), log_weights.dtype)
    return jnp.sum(cumulative <= u, axis=-1)


def _draw_states(key: Array, p: Array) -> Array:
    """One state for each site of ``(B, d, Q)``, by inversion with one uniform for each site."""
    u = jax.random.uniform(key, (*p.shape[:-1], 1), p.dtype)
    return jnp.sum(jnp.cumsum(p, axis=-1)[..., :-1] <= u, axis=-1)
