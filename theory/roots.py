r"""Roots of scalar functions inside a bracket, with derivatives by the implicit function theorem.

Chandrupatla's method keeps a bracket :math:`[x_1, x_2]` with a change of sign and the point
:math:`x_3` that left it last. With

.. math:: \xi = \frac{x_1 - x_2}{x_3 - x_2}, \qquad \varphi = \frac{f_1 - f_2}{f_3 - f_2} \tag{1}

inverse quadratic interpolation through the three points is safe where
:math:`\varphi^2 < \xi` and :math:`(1 - \varphi)^2 < 1 - \xi` (2); elsewhere the bracket is halved.
No derivative is needed, a root takes about ten evaluations, and the number of evaluations is
nearly the same for all members of a batch, which is what a batched loop wants: the slowest
member decides.

At a root :math:`f(x, \theta) = 0`,

.. math:: \frac{dx}{d\theta} = -\frac{\partial_\theta f}{\partial_x f} \tag{3}

whatever the iteration did. The rule is exact to all orders, in forward and reverse mode, and holds
for every parameter that ``f`` closes over; the ends of the bracket do not enter.

Source: T. R. Chandrupatla, Advances in Engineering Software 28, 145 (1997).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from theory.checks import Array, floats


class Root(NamedTuple):
    """What a search returned: ``value`` is NaN unless ``converged``."""

    value: Array
    """The root."""
    residual: Array
    """The function at the best point that the search found."""
    iterations: Array
    """Evaluations of the function inside the bracket."""
    converged: Array
    """Whether the sign changed over the bracket and the bracket shrank to the tolerance."""


class _State(NamedTuple):
    x1: Array
    f1: Array
    x2: Array
    f2: Array
    x3: Array
    f3: Array
    fraction: Array
    iterations: Array
    done: Array

    @property
    def best(self) -> tuple[Array, Array]:
        first = jnp.abs(self.f1) < jnp.abs(self.f2)
        return jnp.where(first, self.x1, self.x2), jnp.where(first, self.f1, self.f2)


def find_root(
    f: Callable[[Array], Array],
    lower: ArrayLike,
    upper: ArrayLike,
    *,
    tolerance: float | None = None,
    max_iterations: int = 100,
) -> Root:
    r"""Root of a continuous scalar function between two points where its signs differ.

    .. math:: f(x) = 0, \qquad |\delta x| \le \text{tolerance} \cdot \max(1, |x|)

    Pose the problem in a variable of order one (the logarithm of a rate, not the rate). Works
    under ``jit``, ``vmap``, ``jvp`` and ``vjp``; derivatives with respect to all that ``f`` closes
    over come from (3).

    Args:
        f: scalar to scalar; may be infinite, but not NaN, at the ends.
        lower: one end of the bracket, a scalar.
        upper: the other end.
        tolerance: width of the bracket at which to stop; 4 units in the last place if not given.
        max_iterations: evaluations after which the search gives up.

    Returns:
        The record of the search. Without a change of sign, or where the search gave up,
        ``converged`` is False and ``value`` is NaN (its derivatives are finite and meaningless).

    Source: T. R. Chandrupatla (1997).
    """
    lower, upper = (lax.stop_gradient(end) for end in floats(lower, upper))
    dtype = jnp.result_type(lower, upper)
    step = 4 * float(jnp.finfo(dtype).eps) if tolerance is None else tolerance

    def solve(fun: Callable[[Array], Array], _: Array) -> tuple[Array, tuple[Array, ...]]:
        state, changes = _search(fun, lower, upper, step, max_iterations)
        value, residual = state.best
        found = state.done & changes & jnp.isfinite(residual)
        # what comes along must be of floating dtype to pass through a derivative
        return value, (residual, state.iterations.astype(dtype), found.astype(dtype))

    value, (residual, iterations, found) = lax.custom_root(
        f, 0.5 * (lower + upper), solve, _divide_by_slope, has_aux=True
    )
    converged = found > 0
    value = jnp.where(converged, value, jnp.nan)
    return Root(value, residual, iterations.astype(int), converged)


def _divide_by_slope(linear: Callable[[Array], Array], y: Array) -> Array:
    slope = linear(jnp.ones_like(y))
    return y / jnp.where((slope == 0) | ~jnp.isfinite(slope), 1, slope)


def _search(
    f: Callable[[Array], Array], lower: Array, upper: Array, step: float, max_iterations: int
) -> tuple[_State, Array]:
    f1, f2 = jax.vmap(f)(jnp.stack([lower, upper]))  # one copy of f in the program, not two
    changes = jnp.sign(f1) * jnp.sign(f2) <= 0
    half = jnp.full_like(lower, 0.5)
    # without a change of sign there is nothing to do: a batch must not wait for it
    start = _State(lower, f1, upper, f2, upper, f2, half, jnp.asarray(0), ~changes)
    end = lax.while_loop(
        lambda s: ~s.done & (s.iterations < max_iterations),
        lambda s: _advance(f, s, step),
        start,
    )
    return end, changes


def _advance(f: Callable[[Array], Array], s: _State, step: float) -> _State:
    x = s.x1 + s.fraction * (s.x2 - s.x1)
    value = f(x)
    same = jnp.sign(value) == jnp.sign(s.f1)
    x3, f3 = jnp.where(same, s.x1, s.x2), jnp.where(same, s.f1, s.f2)
    x2, f2 = jnp.where(same, s.x2, s.x1), jnp.where(same, s.f2, s.f1)
    moved = s._replace(x1=x, f1=value, x2=x2, f2=f2, x3=x3, f3=f3, iterations=s.iterations + 1)
    best, residual = moved.best
    width = jnp.abs(x2 - x)
    margin = step * jnp.maximum(1, jnp.abs(best)) / jnp.where(width == 0, 1, width)
    done = (2 * margin > 1) | (width == 0) | (residual == 0)
    fraction = jnp.clip(_interpolate(moved), margin, 1 - margin)
    return moved._replace(fraction=fraction, done=done)


def _interpolate(s: _State) -> Array:
    """Next point as a fraction of the way from ``x1`` to ``x2``, by (1) and (2)."""
    xi = (s.x1 - s.x2) / (s.x3 - s.x2)
    phi = (s.f1 - s.f2) / (s.f3 - s.f2)
    safe = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
    fraction = s.f1 / (s.f2 - s.f1) * s.f3 / (s.f2 - s.f3) + (s.x3 - s.x1) / (
        s.x2 - s.x1
    ) * s.f1 / (s.f3 - s.f1) * s.f2 / (s.f3 - s.f2)
    return jnp.where(safe & jnp.isfinite(fraction), fraction, 0.5)
