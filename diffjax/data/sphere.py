r"""The uniform law on a sphere, a curved manifold whose posterior is known exactly.

Data ``a = r u`` with ``u`` uniform on the unit sphere of d dimensions (d = 2: a circle). Seen
through ``x = scale a + std z`` the posterior of ``u`` is the von Mises-Fisher law

    p(u | x) ~ exp(kappa m . u),   kappa = scale r |x| / std^2,   m = x / |x|.             (1)

With ``A`` and ``L`` of `diffjax.bessel`,

    E[a | x] = r A(kappa) m,                                                               (2)
    Cov[a | x] = r^2 [A'(kappa) m m^T + (A(kappa)/kappa) (I - m m^T)],                     (3)
    log p(x) = -(d/2) log(2 pi std^2) - (|x| - scale r)^2 / (2 std^2) + L(kappa) - kappa.  (4)

A draw from (1) is ``W m + sqrt(1 - W^2) v`` with ``v`` uniform on the directions orthogonal to m.
Ulrich's envelope for W, in Wood's form, takes two Gamma variables ``G, H`` of shape (d - 1)/2 and

    b = (d - 1) / (2 kappa + sqrt(4 kappa^2 + (d - 1)^2)),   1 - W = 2 b G / (H + b G),    (5)
    accept with probability exp[(d - 1)(log(1 + e) - e)],  e = (1 - b)(G - H) / (2 (H + b G)).  (6)

Written like this nothing cancels: the usual form loses W at small noise, where ``1 - W`` is below
one rounding, and its acceptance subtracts numbers of size kappa. The draw is exact; about two of
three proposals are accepted in the worst case.

References:
    Ulrich 1984, Appl. Statist. 33, 158; Wood 1994, Commun. Statist. Simul. 23, 157; Raya,
    Ambrogioni 2023 (2305.19693).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.bessel import direction_gain, direction_variance, log_tilt
from diffjax.data.base import per_event
from diffjax.noise import normal

_State = tuple[Array, Array, Array, Array]  # trial, done, W, sqrt(1 - W^2)


@records.register
@dataclass(frozen=True)
class Hypersphere:
    """Record made by `hypersphere`; implements `Posterior`."""

    radius: Array  # ()
    dim: int = field(metadata={"static": True})

    def sample(self, key: Array, n: int) -> Array:
        """``n`` clean samples, ``(n, d)``."""
        return self.radius * _unit(normal(key, (n, self.dim), self.radius.dtype))

    def log_normaliser(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``log p(x)`` in nats, ``(...)``, eq. (4)."""
        norm = _norm(x)
        scale, std = jnp.asarray(scale, x.dtype), jnp.asarray(std, x.dtype)
        shell = (norm - scale * self.radius.astype(x.dtype)) / std
        tilt = log_tilt(self.dim, self._concentration(norm, scale, std))
        gauss = 0.5 * self.dim * (jnp.log(2 * jnp.pi) + 2 * jnp.log(std))
        return tilt - gauss.astype(x.dtype) - 0.5 * jnp.square(shell)

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Posterior mean ``E[a | x]``, eq. (2), shape of ``x``; 0 at the centre."""
        return self._gain(x, scale, std)[..., None] * x

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """``grad_x log p(x)``, radial to the last digit."""
        gain = per_event(scale, x) * self._gain(x, scale, std)[..., None]
        return (gain - 1) * x / jnp.square(per_event(std, x))

    def sample_posterior(self, key: Array, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """One draw ``a ~ p(a | x)`` per state by (5) and (6), shape of ``x``; no derivative."""
        key_w, key_v = jax.random.split(key)
        norm = _norm(x)
        scale, std = jnp.asarray(scale, x.dtype), jnp.asarray(std, x.dtype)
        kappa = jnp.broadcast_to(self._concentration(norm, scale, std), norm.shape)
        along, across = _tilted_direction(key_w, self.dim, kappa)
        first = jnp.zeros_like(x).at[..., 0].set(1)
        m = jnp.where(norm[..., None] == 0, first, _unit(x))  # any axis at the centre
        v = normal(key_v, x.shape, x.dtype)
        for _ in range(2):  # twice: in few dimensions little may be left of the first remainder
            v = _unit(v - jnp.sum(v * m, axis=-1, keepdims=True) * m)
        return self.radius.astype(x.dtype) * (along[..., None] * m + across[..., None] * v)

    def covariance_product(self, x: Array, scale: ArrayLike, std: ArrayLike, u: Array) -> Array:
        """``Cov[a | x] u``, eq. (3), shape of ``x``."""
        kappa = self._concentration(
            _norm(x), jnp.asarray(scale, x.dtype), jnp.asarray(std, x.dtype)
        )
        m = _unit(x)
        radial = m * jnp.sum(m * u, axis=-1, keepdims=True)
        around = direction_gain(self.dim, kappa)[..., None]
        along = direction_variance(self.dim, kappa)[..., None]
        return jnp.square(self.radius.astype(x.dtype)) * (along * radial + around * (u - radial))

    def _concentration(self, norm: Array, scale: Array, std: Array) -> Array:
        return (scale * self.radius.astype(norm.dtype) / std) * (norm / std)

    def _gain(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Factor ``r A(kappa)/|x|`` of ``x`` in the posterior mean, ``(...)``."""
        scale, std = jnp.asarray(scale, x.dtype), jnp.asarray(std, x.dtype)
        radius = self.radius.astype(x.dtype)
        gain = direction_gain(self.dim, self._concentration(_norm(x), scale, std))
        return (radius / std) * (scale * radius / std) * gain


def hypersphere(dim: int, radius: ArrayLike) -> Hypersphere:
    """Uniform law on the sphere of a given radius around the origin.

    Its covariance is ``radius^2 / dim`` in every direction: ``radius = sqrt(dim)`` has unit
    variance per coordinate.

    Args:
        dim: dimension d of the space, 2 (a circle) or more; static.
        radius: positive number; its dtype is that of the samples (Python numbers take the default).

    Returns:
        A frozen record with score, density, exact posterior samples and covariance.

    Raises:
        ValueError: if ``dim`` is not an integer of two at least, or ``radius`` is not one positive
            number.

    References:
        Raya, Ambrogioni 2023 (2305.19693); Mardia, Jupp 2000.
    """
    if checks.count(dim, "dim") < 2:
        raise ValueError("dim must be at least 2, but is 1; pass two points as a point_cloud")
    radius = checks.floating(radius, "radius")
    if radius.ndim:
        raise ValueError(f"radius has shape {radius.shape}, expected one number")
    checks.positive(radius, "radius")
    return Hypersphere(radius, int(dim))


def _norm(x: Array) -> Array:
    """``|x|`` with the derivative 0 at 0, where every function of it here is even."""
    square = jnp.sum(jnp.square(x), axis=-1)
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def _unit(x: Array) -> Array:
    """``x / |x|``, and 0 at 0."""
    norm = _norm(x)[..., None]
    return jnp.where(norm == 0, 0, x / jnp.where(norm == 0, 1, norm))


def _tilted_direction(key: Array, dim: int, kappa: Array) -> tuple[Array, Array]:
    """``W`` and ``sqrt(1 - W^2)`` of one draw for each concentration, eq. (5) and (6)."""
    freedom = dim - 1
    b = freedom / (2 * kappa + jnp.hypot(2 * kappa, jnp.asarray(freedom, kappa.dtype)))

    def propose(carry: _State) -> _State:
        trial, done, along, across = carry
        keys = jax.random.split(jax.random.fold_in(key, trial), 3)
        shape, dtype = kappa.shape, kappa.dtype
        g = jax.random.gamma(keys[0], 0.5 * freedom, shape, dtype)
        h = jax.random.gamma(keys[1], 0.5 * freedom, shape, dtype)
        total = h + b * g
        e = 0.5 * (1 - b) * (g - h) / total
        bound = freedom * (jnp.log1p(e) - e)
        accept = jnp.log(jax.random.uniform(keys[2], shape, dtype)) <= bound
        take = accept & ~done & (total > 0)
        along = jnp.where(take, (h - b * g) / total, along)
        across = jnp.where(take, 2 * jnp.sqrt(b * g) * jnp.sqrt(h) / total, across)
        return trial + 1, done | take, along, across

    lost = ~jnp.isfinite(kappa)  # NaN in, NaN out: never proposed again
    start = (jnp.asarray(0), lost, jnp.where(lost, jnp.nan, 1), jnp.zeros_like(kappa))
    return lax.while_loop(lambda carry: ~jnp.all(carry[1]), propose, start)[2:]
