r"""Moments of one coordinate of a random direction under an exponential tilt, at any dimension.

For ``u`` uniform on the unit sphere in d dimensions, ``nu = d/2 - 1`` and ``a = nu + 1/2``,

    L_nu(y) = log E exp(y u_1) = log[Gamma(nu + 1) (2/y)^nu I_nu(y)],                      (1)
    A_nu(y) = L_nu'(y) = I_{nu+1}(y) / I_nu(y).                                            (2)

The Bessel functions themselves under- or overflow at large d, these do not. The recurrences

    A_nu = y / (2 nu + 2 + y A_{nu+1}),                                                    (3)
    L_nu = L_{nu+1} + log(1 + y A_{nu+1} / (2 nu + 2))                                     (4)

have positive terms only. They run downwards from the order ``nu + 64``. There A follows from the
Riccati equation ``A' = 1 - A^2 - 2 a A / y`` for large ``S = sqrt(a^2 + y^2)``: with ``p = a / S``

    A = y/(S + a) [1 - q],  q = p/(2S) [1 + (4 - p - 5p^2)/(4S)
                                          + (12 - 4p - 41p^2 + 5p^3 + 30p^4)/(8S^2)],      (5)

and L, for ``N = nu``, ``S = sqrt(N^2 + y^2)``, ``p = N/S``, from Debye's uniform expansion of
``I_N`` joined with Stirling's series of the Gamma function,

    L - y = -y (N + N^2/(S + y))/(S + N) - N log(1 + y^2/(2N (S + N))) - log(S/N)/2
            + sum_k [D_k(p) - D_k(1)] / N^k.                                               (6)

The polynomials ``D_k`` are those of the logarithm of the series ``sum_k u_k(p)/N^k``. Only
``L - y`` is returned: it stays of order ``d log y`` where ``L`` and ``y`` agree in all digits.

The derivative of (3) loses the factor ``y/a`` in precision, hence beyond a size that depends on the
dtype the derivative of (5) is taken, whose leading term ``a / (S (S + a))`` is written without a
difference.

References:
    Amos 1974, Math. Comp. 28, 239; DLMF 10.41 (Debye's polynomials); Mardia, Jupp 2000.
"""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

STEPS = 64
"""Orders between the asymptotic start and the wanted function."""


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def direction_mean(dim: int, y: Array) -> Array:
    """``A(y) = E u_1``, eq. (2), elementwise.

    Args:
        dim: dimension of the sphere's space, 2 at least (static).
        y: tilt, not negative, of floating dtype.
    """
    return _mean_and_slope(dim, y)[0]


@direction_mean.defjvp
def _direction_mean_jvp(dim: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple:
    mean, slope = _mean_and_slope(dim, primals[0])
    return mean, slope * tangents[0]


def direction_variance(dim: int, y: Array) -> Array:
    """``A'(y)``, the variance of ``u_1``, elementwise; arguments as in `direction_mean`."""
    return _mean_and_slope(dim, y)[1]


def direction_gain(dim: int, y: Array) -> Array:
    """``A(y)/y``, which is ``1/d`` at 0 and the variance of every other coordinate."""
    zero = y == 0
    safe = jnp.where(zero, 1, y)
    return jnp.where(zero, jnp.asarray(1 / dim, y.dtype), direction_mean(dim, safe) / safe)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def log_tilt(dim: int, y: Array) -> Array:
    """``log E exp(y u_1) - y``, eq. (6) and (4), elementwise; arguments as in `direction_mean`."""
    order = 0.5 * dim - 1
    top = order + STEPS
    size = jnp.hypot(jnp.asarray(top, y.dtype), y)
    ratio = top / size
    series = jnp.zeros_like(y)
    for coefficients in reversed(_DEBYE):  # Horner's scheme in 1/N
        polynomial = jnp.polyval(jnp.asarray(coefficients[::-1], y.dtype), ratio)
        series = (series + polynomial - sum(coefficients)) / top
    value = (
        -y * (top + top * (top / (size + y))) / (size + top)
        - top * jnp.log1p(y * (y / (2 * top * (size + top))))
        - 0.5 * jnp.log(size / top)
        + series
    )

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio_above, total = carry
        k = order + (STEPS - i).astype(y.dtype)  # nu + 1 of the order that is reached
        total = total + jnp.log1p(y * ratio_above / (2 * k))
        return y / (2 * k + y * ratio_above), total

    start = (_series(top + 0.5, y)[0], value)
    return lax.fori_loop(0, STEPS, step, start)[1]


@log_tilt.defjvp
def _log_tilt_jvp(dim: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple:
    y = primals[0]
    return log_tilt(dim, y), (direction_mean(dim, y) - 1) * tangents[0]


def _mean_and_slope(dim: int, y: Array) -> tuple[Array, Array]:
    """``A`` and ``A'`` by the recurrence (3) and its derivative, or by (5) at large size."""
    order = 0.5 * dim - 1

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        above, slope_above = carry
        denominator = 2 * (order + (STEPS - i).astype(y.dtype)) + y * above
        mean = y / denominator
        # A' = [1 - A (A_+ + y A_+')] / (2 nu + 2 + y A_+)
        return mean, (1 - mean * (above + y * slope_above)) / denominator

    mean, slope = lax.fori_loop(0, STEPS, step, _series(order + STEPS + 0.5, y))
    far_mean, far_slope = _series(order + 0.5, y)
    # where the fourth correction, about S^-4, is below the rounding of the recurrence, eps S
    far = jnp.hypot(jnp.asarray(order + 0.5, y.dtype), y) > _far(y.dtype)
    return jnp.where(far, far_mean, mean), jnp.where(far, far_slope, slope)


def _far(dtype: jnp.dtype) -> float:
    return float(jnp.finfo(dtype).eps) ** -0.2 * (2 if jnp.finfo(dtype).bits > 32 else 3)


def _series(a: float, y: Array) -> tuple[Array, Array]:
    """Equation (5) and its derivative."""
    size = jnp.hypot(jnp.asarray(a, y.dtype), y)
    lead = y / (size + a)
    lead_slope = a / size / (size + a)

    def correction(y: Array) -> Array:
        s = jnp.hypot(jnp.asarray(a, y.dtype), y)
        p = a / s
        third = (12 - p * (4 + p * (41 - p * (5 + 30 * p)))) / (8 * s * s)
        return 0.5 * p / s * (1 + (4 - p * (1 + 5 * p)) / (4 * s) + third)

    q, q_slope = jax.jvp(correction, (y,), (jnp.ones_like(y),))
    return lead * (1 - q), lead_slope * (1 - q) - lead * q_slope


def _debye(terms: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of ``D_1 .. D_terms`` in increasing powers of p, exact before rounding."""

    def product(f: list[Fraction], g: list[Fraction]) -> list[Fraction]:
        out = [Fraction(0)] * (len(f) + len(g) - 1)
        for i, a in enumerate(f):
            for j, b in enumerate(g):
                out[i + j] += a * b
        return out

    def total(f: list[Fraction], g: list[Fraction], factor: Fraction) -> list[Fraction]:
        width = max(len(f), len(g))
        pad = [Fraction(0)]
        return [
            a + factor * b for a, b in zip(f + pad * (width - len(f)), g + pad * (width - len(g)))
        ]

    zero = Fraction(0)
    u = [[Fraction(1)]]
    for _ in range(terms):  # u' = p^2 (1 - p^2) u'/2 + int (1 - 5 p^2) u / 8
        slope = [i * c for i, c in enumerate(u[-1])][1:] or [zero]
        moved = product(slope, [zero, zero, Fraction(1, 2), zero, Fraction(-1, 2)])
        weighted = product(u[-1], [Fraction(1), zero, Fraction(-5)])
        integral = [zero, *(c / (i + 1) for i, c in enumerate(weighted))]
        u.append(total(moved, integral, Fraction(1, 8)))
    logs: list[list[Fraction]] = []
    for k in range(1, terms + 1):  # k u_k = sum_j j D_j u_{k-j}
        d = u[k]
        for j in range(1, k):
            d = total(d, product(logs[j - 1], u[k - j]), Fraction(-j, k))
        logs.append(d)
    return tuple(tuple(float(c) for c in d) for d in logs)


_DEBYE = _debye(6)
