r"""The Curie-Weiss magnet as a data distribution, exact at every size.

    P0(a) = exp(beta M^2 / 2d + h M) / Z,   a in {-1, 1}^d,   M = sum_i a_i.               (1)

For ``h = 0`` two classes of opposite magnetisation exist above ``beta = 1``. With a field v,

    exp(beta M^2 / 2d) = sqrt(d beta / 2 pi) int dv exp(-d beta v^2 / 2 + beta v M),       (2)

the signs are independent given v, ``P(a_i = 1 | v) = 1 / (1 + e^{-2 (beta v + h)})``, and (1) is a
`ProductMixture`. The integral runs over a grid of v with the spacing ``0.7 / sqrt(d beta)``: for
every configuration the integrand is a Gaussian of variance ``1 / (d beta)`` centred at
``M / d``, so that the trapezoid rule gives every probability with a relative error of
``2 exp(-2 pi^2 / 0.7^2) = 6e-18`` and the cut at ``|v| = 1 + 8.5 / sqrt(d beta)`` one of 2e-17,
whatever the noise, the state and the field. No saddle point is used: below the speciation time
there are two.

The sign of M is the class. Its posterior is counted exactly (`exchangeable_spins`), ``O(d^2)``
for each state.

References:
    Biroli, Mezard 2023 (2306.03518); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.data.exchangeable_spins import ExchangeableSpins, log_counts, tilt
from diffjax.data.product_mixture import ProductMixture, product_mixture

SPACING, TAIL = 0.7, 8.5
"""Spacing of the grid of v and its margin, in standard deviations ``1 / sqrt(d beta)``."""


@records.register
@dataclass(frozen=True)
class CurieWeiss:
    """Record made by `curie_weiss`; implements `Posterior` and `Classified`.

    Class 0 has ``M < 0``, class 1 ``M > 0``; configurations with ``M = 0`` belong to both by half.
    """

    spins: ProductMixture
    log_law: Array  # (d + 1,), log P(k) of the number k = (M + d) / 2 of signs +1

    @property
    def dim(self) -> int:
        """Number of signs d."""
        return self.spins.sites

    @property
    def classes(self) -> int:
        """2: negative and positive magnetisation."""
        return 2

    @property
    def class_weights(self) -> Array:
        """``P(M < 0)`` and ``P(M > 0)`` with ties split, exact at this size, ``(2,)``."""
        return jnp.exp(logsumexp(self.log_law + _log_member(self.dim, self.log_law), axis=-1))

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``."""
        return self.spins.sample(key, n)

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, ``(...)``."""
        return self.spins.log_normaliser(x, scale, std)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x] = <tanh(beta v + h + scale x / std^2)>_v``."""
        return self.spins.denoise(x, scale, std)

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)``: v, then independent signs."""
        return self.spins.sample_posterior(key, x, scale, std)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``."""
        return self.spins.covariance_product(x, scale, std, u)

    def class_log_posterior(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log P(M < 0 | x), log P(M > 0 | x)``, ``(..., 2)``; ``O(d^2)`` for each state."""
        return sign_log_posterior(self.condition_on_nothing(), x, scale, std)

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``E[a | x, c]``, ``(..., 2, d)``; ``O(d^2)`` for each state."""
        laws = jax.nn.log_softmax(self.log_law + _log_member(self.dim, self.log_law))

        def one(log_law: Array) -> Array:
            return ExchangeableSpins(log_law).denoise(x, scale, std)

        return jax.vmap(one, out_axes=-2)(laws)

    def condition(self, c: int) -> ExchangeableSpins:
        """The class of one sign of M alone; every method costs ``O(d^2)`` for each state."""
        if not 0 <= c < 2:
            raise ValueError(f"class {c} does not exist; classes are 0..1")
        kept = self.log_law + _log_member(self.dim, self.log_law)[c]
        return ExchangeableSpins(jax.nn.log_softmax(kept))

    def condition_on_nothing(self) -> ExchangeableSpins:
        """The same distribution by counting instead of the field v; ``O(d^2)`` for each state."""
        return ExchangeableSpins(self.log_law)


def curie_weiss(
    dim: int, beta: float, field: float = 0.0, *, dtype: jnp.dtype | None = None
) -> CurieWeiss:
    """Curie-Weiss magnet ``P0(a) ~ exp(beta M^2 / 2d + h M)``; critical at ``beta = 1``.

    Args:
        dim: number of signs d.
        beta: coupling >= 0. With pairs counted otherwise see `curie_weiss_of_pairs`.
        field: field h *per sign*. A total field ``h0 M / d``, which leaves both classes alive, is
            ``h = h0 / d``; their weights then tend to ``1 / (1 + e^{-+2 h0 m})``.
        dtype: of the tables and of clean samples; the default float if None. Answers have the
            dtype of the states. In float32 log-weights of v are wrong by about ``1e-7 d``.

    Raises:
        ValueError: if a size or a number is out of range. All must be concrete: they fix the
            number of grid points, about ``2.9 sqrt(d beta) + 30``.

    References:
        Biroli, Mezard 2023 (2306.03518).
    """
    dim = checks.count(dim, "dim")
    beta, field = checks.number(beta, "beta"), checks.number(field, "field")
    if beta < 0:
        raise ValueError(f"beta must be >= 0 (ferromagnetic), but is {beta!r}")
    xi = field_axis(np.sqrt(dim * beta))  # v sqrt(d beta)
    theta = np.sqrt(beta / dim) * xi + field
    log_two_cosh = np.logaddexp(theta, -theta)
    spins = product_mixture(
        -0.5 * xi**2 + dim * log_two_cosh, np.stack([-theta, theta], 1), np.array([[-1.0], [1.0]]),
        dim, dtype,
    )  # fmt: skip
    return CurieWeiss(spins, jnp.asarray(_log_law(dim, beta, field), spins.log_weights.dtype))


def curie_weiss_of_pairs(
    dim: int,
    beta: float,
    pair_coupling: float = 1.0,
    total_field: float = 0.0,
    *,
    dtype: jnp.dtype | None = None,
) -> CurieWeiss:
    """The same magnet with a sum over all ordered pairs and a total field.

    ``P0(a) ~ exp[(beta J / d) sum_{i,j} a_i a_j + (h0 / d) sum_i a_i]`` is `curie_weiss` with
    the coupling ``2 beta J`` and the field ``h0 / d`` per sign: critical at ``beta J = 1/2``.

    Args:
        dim: number of signs d.
        beta: inverse temperature in this convention.
        pair_coupling: J.
        total_field: h0.
        dtype: as in `curie_weiss`.

    Raises:
        ValueError: as `curie_weiss`.

    References:
        Biroli, Mezard 2023 (2306.03518).
    """
    dim = checks.count(dim, "dim")
    beta, pair_coupling = checks.number(beta, "beta"), checks.number(pair_coupling, "pair_coupling")
    field = checks.number(total_field, "total_field") / dim
    return curie_weiss(dim, 2 * beta * pair_coupling, field, dtype=dtype)


def sign_log_posterior(
    counted: ExchangeableSpins, x: Array, scale: ArrayLike, std: ArrayLike
) -> Array:
    """``log P(M < 0 | x), log P(M > 0 | x)`` with ties split, ``(..., 2)``; ``O(d^2)`` each.

    Needs the law of M only, so that all couplings and fields share a compilation.
    """
    y = tilt(x, scale, std)
    config = counted.log_config().astype(y.dtype)
    member = _log_member(counted.dim, config)

    def one(row: Array) -> Array:
        return jax.nn.log_softmax(logsumexp(config + log_counts(row) + member, axis=-1))

    return jax.vmap(one)(y.reshape(-1, counted.dim)).reshape(*y.shape[:-1], 2)


def field_axis(largest: float) -> np.ndarray:
    """Grid of the field in standard deviations, beyond ``largest`` by the margin.

    The number of points is rounded up, so that neighbouring couplings share a compilation.
    """
    reach = 8 * int(np.ceil((largest + TAIL) / SPACING / 8))
    return SPACING * np.arange(-reach, reach + 1)


def _log_law(dim: int, beta: float, field: float) -> np.ndarray:
    """``log P(k)`` of the number of signs +1, normalised, in float64."""
    k = np.arange(dim + 1)
    steps = np.log(np.arange(dim, 0, -1)) - np.log(np.arange(1, dim + 1))
    m = 2.0 * k - dim
    log_p = np.concatenate([[0.0], np.cumsum(steps)]) + beta * m**2 / (2 * dim) + field * m
    return log_p - np.logaddexp.reduce(log_p)


def _log_member(dim: int, like: Array) -> Array:
    """Log share of each count k in the classes ``M < 0`` and ``M > 0``, ``(2, d + 1)``."""
    m = 2 * jnp.arange(dim + 1) - dim
    signs = jnp.array([[-1], [1]])
    share = jnp.where(m == 0, jnp.log(0.5), jnp.where(signs * m > 0, 0.0, -jnp.inf))
    return share.astype(like.dtype)
