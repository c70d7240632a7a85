r"""Solution of the equations for the spectrum of random features; see `random_features`.

With :math:`R = 1 + \frac{\psi_p}{\psi_n}(a^2 e^{-2t} r + \bar v^2 q)`,
:math:`h_\lambda = b^2 + \lambda a^2 e^{-2t}/R` and :math:`D_\lambda = 1 + q \psi_p h_\lambda`,

.. math:: r = q \Big\langle\frac{\lambda}{D_\lambda}\Big\rangle_\lambda, \qquad
   q \Big[\bar s^2 - z + \frac{\bar v^2}{R} + \Big\langle\frac{h_\lambda}{D_\lambda}
   \Big\rangle_\lambda\Big] = 1 \tag{1}

are solved by Newton's method in :math:`(q, r)`, continued along :math:`z = x + iy` from
:math:`y` above the spectrum in geometric steps. On the real axis outside the spectrum the second
equation gives :math:`z` as a function of a real :math:`q`, which is stationary at an edge (2);
edges are bracketed on a grid, narrowed, and polished on (2). A last Newton step, with fixed
slopes, carries the first derivatives; those of an edge need no change of q, by (2).

Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from theory.checks import Array

_CONTINUE, _POLISH = 48, 17
_GRID, _STAGES, _SHARPEN = 400, 9, 6
_MOST = 4


class Bulks(NamedTuple):
    """Intervals of the spectrum in increasing order, shape (4,), NaN where there are fewer."""

    lower: Array
    """Lower edges."""
    upper: Array
    """Upper edges."""
    mass: Array
    """Fractions of the eigenvalues."""


class Law(NamedTuple):
    """Numbers that fix the spectrum."""

    signal: Array  # a^2 e^{-2t}
    noise: Array  # b^2
    v_squared: Array
    s_squared: Array
    psi_p: Array
    psi_n: Array
    eigenvalues: Array  # (k,)


class Parts(NamedTuple):
    """Zero of the first equation (1) and 1/q + z of the second, with slopes in q and r."""

    first: Array
    second: Array
    first_q: Array
    first_r: Array
    second_q: Array
    second_r: Array


def _parts(q: Array, r: Array, law: Law) -> Parts:
    """Both equations (1), written out with few divisions: complex ones are slow to compile."""
    signal, noise, v_squared, s_squared, psi_p, psi_n, eigenvalues = law
    ratio = psi_p / psi_n
    R_q, R_r = ratio * v_squared, ratio * signal
    inverse_R = 1 / (1 + R_r * r + R_q * q)
    h = noise + eigenvalues * signal * inverse_R
    inverse_D = 1 / (1 + q * psi_p * h)
    by_R = -eigenvalues * signal * inverse_R**2
    D_q, D_r = psi_p * (h + q * by_R * R_q), psi_p * q * by_R * R_r
    flow = eigenvalues * inverse_D
    return Parts(
        r - q * jnp.mean(flow),
        s_squared + v_squared * inverse_R + jnp.mean(h * inverse_D),
        jnp.mean(flow * (q * inverse_D * D_q - 1)),
        1 + q * jnp.mean(flow * inverse_D * D_r),
        jnp.mean((by_R * R_q - h * inverse_D * D_q) * inverse_D) - v_squared * inverse_R**2 * R_q,
        jnp.mean((by_R * R_r - h * inverse_D * D_r) * inverse_D) - v_squared * inverse_R**2 * R_r,
    )


def _newton_step(q: Array, r: Array, z: Array, law: Law) -> tuple[Array, Array]:
    """Step of Newton's method for (1); it is differentiated with the slopes held fixed."""
    parts = _parts(q, r, law)
    second = parts.second - z
    f1, f2 = parts.first, q * second - 1
    slopes = parts.first_q, parts.first_r, second + q * parts.second_q, q * parts.second_r
    a, b, c, d = lax.stop_gradient(slopes)
    det = a * d - b * c
    inverse = 1 / jnp.where(det == 0, 1, det)
    return (d * f1 - b * f2) * inverse, (a * f2 - c * f1) * inverse


def _complex_kind(x: Array) -> jnp.dtype:
    return jnp.dtype(jnp.complex64 if x.dtype == jnp.float32 else jnp.complex128)


def _solve(x: Array, y: Array, law: Law) -> tuple[Array, Array]:
    """Solution u = (q, r) of (1) at z = x + iy, and whether it is one."""
    law, x, y = lax.stop_gradient((law, x, y))
    kind = _complex_kind(x)
    complex_law = jax.tree.map(lambda v: v.astype(kind), law)
    sign = jnp.where(y < 0, -1, 1).astype(x.dtype)
    top = 2 * _largest(law)
    # on the real axis, close to it on the scale of the distance to the eigenvalue of finite weight
    close = jnp.maximum(jnp.abs(y), 1e-4 * jnp.abs(x - law.s_squared)) / top
    ratio = jnp.maximum(close, 1e-13) ** (1 / _CONTINUE)

    # three steps at each point of the way, then all that are left at z itself
    def advance(k: Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        u, _, near = carry
        stage = k // 3
        along = lax.complex(x, sign * top * ratio ** jnp.minimum(stage, _CONTINUE).astype(x.dtype))
        z = jnp.where(stage <= _CONTINUE, along, lax.complex(x, y))
        new = u - jnp.stack(_newton_step(u[0], u[1], z, complex_law))
        return new, u, jnp.where(stage <= _CONTINUE, new, near)

    first = -1 / lax.complex(x, sign * top)
    start = jnp.stack([first, first])
    steps = 3 * (_CONTINUE + 1) + _POLISH
    u, before, near = lax.fori_loop(0, steps, advance, (start, start, start))
    root = math.sqrt(float(jnp.finfo(x.dtype).eps))
    size = jnp.maximum(jnp.abs(u), root * jnp.abs(u[0]))
    settled = (jnp.abs(u - before) <= root * size).all()
    same = jnp.abs(u - near)[0] <= 0.1 * size[0]  # Newton did not leave for another branch
    return u, settled & same & (sign * jnp.imag(u) >= -root * size).all()


def _largest(law: Law) -> Array:
    """Above the spectrum of U, by the edges of the three Wishart matrices in it."""
    psi_p, psi_n = law.psi_p, law.psi_n
    features = (1 + jnp.sqrt(psi_p)) ** 2
    points = (1 + jnp.sqrt(1 / psi_n)) ** 2 * law.eigenvalues.max()
    residual = law.v_squared * (1 + jnp.sqrt(psi_p / psi_n)) ** 2
    return law.s_squared + 2 * (residual + law.signal * features * points) + law.noise * features


def _carry(x: Array, y: Array, u: Array, found: Array, law: Law) -> Array:
    """q of a solution, NaN if it is none; one more Newton step carries derivatives."""
    u = jnp.where(found, u, jnp.ones_like(u))
    law = jax.tree.map(lambda v: v.astype(u.dtype), law)
    q = u[0] - _newton_step(u[0], u[1], lax.complex(x, y), law)[0]
    return jnp.where(found, q, jnp.nan)


@jax.jit
def transform(x: Array, y: Array, law: Law) -> Array:
    """q at z = x + iy, all broadcast; NaN where there is no solution."""

    def one(x: Array, y: Array, *numbers: Array) -> Array:
        law = Law(*numbers)
        return _carry(x, y, *_solve(x, y, law), law)

    signature = "(),()," + "()," * 6 + "(k)->()"
    return jnp.vectorize(one, signature=signature)(x, y, *law)


class _Ends(NamedTuple):
    """Brackets of the edges, ``(8,)`` each, and the solution at their inner ends, ``(8, 2)``."""

    outer: Array
    inner: Array
    u: Array
    exists: Array


@jax.jit
def find_bulks(law: Law) -> Bulks:
    """Intervals of the spectrum of one law."""
    fixed = lax.stop_gradient(law)
    ends, u, good = lax.stop_gradient(_search(fixed))
    sharp = lax.fori_loop(
        0, _SHARPEN, lambda _, v: jax.vmap(lambda u: _to_edge(u, fixed))(v), jnp.real(ends.u)
    )
    edges = jax.vmap(lambda u: _edge(u, law))(lax.stop_gradient(sharp))
    close = jnp.abs(lax.stop_gradient(edges) - ends.inner) <= 1e-3 * (ends.inner - fixed.s_squared)
    found = ends.exists & close
    edges = jnp.where(found, edges, ends.inner)
    lower, upper, whole = edges[0::2], edges[1::2], found[0::2] & found[1::2]
    shape = (_MOST, _GRID // _MOST)
    u, good = u.reshape(*shape, 2), good.reshape(shape)
    mass = jax.vmap(lambda *interval: _mass(law, *interval))(lower, upper, u, good)
    return Bulks(*(jnp.where(whole, v, jnp.nan) for v in (lower, upper, mass)))


def _search(law: Law) -> tuple[_Ends, Array, Array]:
    """Narrow brackets of the edges, and the solutions at the nodes of every interval's mass.

    All stages solve at as many points, so that one program serves them: first the grid, then
    points inside every bracket, at last the nodes.
    """
    grid = np.concatenate([[0], np.geomspace(1e-7, 1, _GRID - 1)])
    x = law.s_squared + _largest(law) * jnp.asarray(grid, law.psi_p.dtype)
    none = jnp.zeros(2 * _MOST, x.dtype)
    kind = _complex_kind(x)
    ends = _Ends(none, none, jnp.zeros((2 * _MOST, 2), kind), none > 0)

    def stage(k: Array, carry: tuple) -> tuple:
        x, ends, _, _ = carry
        u, good = jax.vmap(lambda x: _solve(x, jnp.zeros_like(x), law))(x)
        # q alone may be all but real where most eigenvalues are equal
        tiny = 100 * math.sqrt(float(jnp.finfo(x.dtype).eps))
        inside = good & (jnp.imag(u) > tiny * jnp.abs(u)).any(-1)
        updates = _bracket(x, inside, u), _narrow(ends, x, inside, u), ends
        which = jnp.where(k == 0, 0, jnp.where(k < _STAGES - 1, 1, 2))
        ends = jax.tree.map(lambda *v: lax.select_n(which, *v), *updates)
        return jnp.where(k < _STAGES - 2, _sections(ends), _nodes(ends, law)), ends, u, good

    start = x, ends, jnp.zeros((_GRID, 2), kind), jnp.zeros(_GRID, bool)
    return lax.fori_loop(0, _STAGES, stage, start)[1:]


def _bracket(x: Array, inside: Array, u: Array) -> _Ends:
    """Cells of the grid at whose ends the density begins or ends."""
    (at,) = jnp.nonzero(inside[1:] != inside[:-1], size=2 * _MOST, fill_value=-1)
    exists = at >= 0
    at = jnp.where(exists, at, at[0])
    within = at + inside[at + 1].astype(at.dtype)
    return _Ends(x[2 * at + 1 - within], x[within], u[within], exists)


def _sections(ends: _Ends) -> Array:
    """Points that cut every bracket, from the outer to the inner end, flat."""
    count = _GRID // (2 * _MOST)
    share = jnp.asarray(np.arange(1, count + 1) / (count + 1), ends.outer.dtype)
    return (ends.outer[:, None] + (ends.inner - ends.outer)[:, None] * share).ravel()


def _narrow(ends: _Ends, x: Array, inside: Array, u: Array) -> _Ends:
    """The section of every bracket in which the density begins."""
    x, inside, u = (v.reshape(2 * _MOST, -1, *v.shape[1:]) for v in (x, inside, u))
    some, first = inside.any(1), jnp.argmax(inside, 1)
    row = jnp.arange(2 * _MOST)
    before = jnp.where(first > 0, x[row, first - 1], ends.outer)
    return _Ends(
        jnp.where(some, before, x[:, -1]),
        jnp.where(some, x[row, first], ends.inner),
        jnp.where(some[:, None], u[row, first], ends.u),
        ends.exists,
    )


def _nodes(ends: _Ends, law: Law) -> Array:
    """Nodes of the integrals over all intervals, flat."""
    return jax.vmap(lambda *pair: _spread(law, *pair)[0])(
        ends.inner[0::2], ends.inner[1::2]
    ).ravel()


def _spread(law: Law, lower: Array, upper: Array) -> tuple[Array, Array]:
    """Nodes and weights between edges, in the logarithm of the distance from the least value."""
    nodes = _GRID // _MOST
    ends = jnp.log(jnp.stack([lower, upper]) - law.s_squared)
    middle, half = 0.5 * (ends[1] + ends[0]), 0.5 * (ends[1] - ends[0])
    angle = jnp.asarray((np.arange(nodes) + 0.5) * np.pi / nodes, lower.dtype)
    distance = jnp.exp(middle - half * jnp.cos(angle))
    return law.s_squared + distance, distance * half * jnp.sin(angle) * (math.pi / nodes)


def _value(u: Array, law: Law) -> Array:
    """z of (2)."""
    return _parts(u[0], u[1], law).second - 1 / u[0]


def _to_edge(u: Array, law: Law) -> Array:
    """A real u after one Newton step to where z does not move along the first equation."""

    def stationary(u: Array) -> Array:
        parts = _parts(u[0], u[1], law)
        of_q = parts.second_q + 1 / u[0] ** 2
        return jnp.stack([parts.first, of_q * parts.first_r - parts.second_r * parts.first_q])

    (a, b), (c, d) = jax.jacfwd(stationary)(u)
    f1, f2 = stationary(u)
    det = a * d - b * c
    return u - jnp.stack([d * f1 - b * f2, a * f2 - c * f1]) / jnp.where(det == 0, 1, det)


def _edge(u: Array, law: Law) -> Array:
    """An edge with its derivatives: z does not depend on q there, and on r through (1)."""
    parts = _parts(u[0], u[1], law)
    return _value(jnp.stack([u[0], u[1] - parts.first / lax.stop_gradient(parts.first_r)]), law)


def _mass(law: Law, lower: Array, upper: Array, u: Array, good: Array) -> Array:
    """Integral of the density, of which the solutions at the nodes are known."""
    x, weight = _spread(law, lower, upper)
    q = jax.vmap(lambda x, u, good: _carry(x, jnp.zeros_like(x), u, good, law))(x, u, good)
    return jnp.sum(jnp.imag(q) * weight) / math.pi
