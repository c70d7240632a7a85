r"""Mean-field theory of diffusion on the Random Hierarchy Model.

Every one of v symbols of a level is produced by m tuples of s symbols of the next, the tuples
being distinct and otherwise random. In the :math:`\epsilon` process the evidence at a leaf is
:math:`1 - \epsilon + \epsilon/v` for the true symbol and :math:`\epsilon/v` for each other one.
Let a message put the belief p on the true symbol of each of the s children, and spread the rest
evenly. The true tuple then has the weight :math:`p^s`, and the :math:`mv - 1` other tuples of the
grammar, random ones among the :math:`v^s - 1` that are left, share :math:`f (1 - p^s)` on average,

.. math:: f = \frac{mv - 1}{v^s - 1}, \tag{1}

of which the fraction :math:`(m - 1)/(mv - 1)` belongs to the true parent. Its belief is

.. math:: G(p) = \frac{p^s + f\frac{m-1}{mv-1}(1 - p^s)}{p^s + f (1 - p^s)}. \tag{2}

Certainty and chance are fixed points, :math:`G(1) = 1` and :math:`G(1/v) = 1/v`, of slopes

.. math:: G'(1) = \frac{s\,m(v-1)}{v^s - 1}, \qquad
          G'(\tfrac1v) = \frac{s\,v^{s-1}(v-1)}{m(v^s-1)}. \tag{3}

Not both can exceed 1: their product is :math:`[s v^{(s-1)/2}(v-1)/(v^s-1)]^2 \le 1`, because
:math:`1 + v + \dots + v^{s-1} \ge s v^{(s-1)/2}`. If both are below 1, both ends attract and one
unstable fixed point lies between them. It is the root of

.. math:: h(p) = \frac{p^s + f\frac{m-1}{mv-1}(1 - p^s) - p\,[p^s + f(1 - p^s)]}
                      {(1 - p)(p - 1/v)}, \tag{4}

in which the ends are divided out; for s = 2 it is :math:`p_* = (m-1)/(v-m)`. In terms of the
noise it is :math:`\epsilon_* = (1 - p_*)/(1 - 1/v)`: with less noise the class of a deep hierarchy
is found, with more it is lost. If one slope exceeds 1, one end attracts every belief, and there is
no threshold.

(2) is the average of a ratio replaced by the ratio of averages, and it follows a single number
down the tree. It describes the :math:`\epsilon` process well and no channel that really hides a
symbol: what such a channel leaves behind fluctuates from leaf to leaf, and the mean belief says
little about it (`theory.hierarchy_population`).

Source: Sclocchi, Favero, Wyart 2024 (2402.16991).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, elementwise, floats
from theory.roots import find_root


class Threshold(NamedTuple):
    """The unstable fixed point of (2); NaN where there is none."""

    belief: Array
    """Belief :math:`p_*` in the true symbol of a leaf."""
    noise: Array
    r"""Noise :math:`\epsilon_* = (1 - p_*)/(1 - 1/v)` of the :math:`\epsilon` process."""


def belief_map(
    p: ArrayLike, symbols: ArrayLike, synonyms: ArrayLike, branching: ArrayLike
) -> Array:
    r"""Belief in the true symbol one level up, :math:`G(p)` of (2).

    Args:
        p: belief in the true symbol of each child, in [0, 1].
        symbols: number of symbols v per level, above 1.
        synonyms: number of rules m per symbol, at least 1 and at most :math:`v^{s-1}`.
        branching: number of children s, above 1.

    Returns:
        Broadcast over the arguments.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024; (2).
    """
    checks.require("p", p, lambda p: (p >= 0) & (p <= 1), "in [0, 1]", "pass a probability")
    require_grammar(symbols, synonyms, branching)
    return _belief_map_of(*floats(p, symbols, synonyms, branching))


def slope_at_certainty(symbols: ArrayLike, synonyms: ArrayLike, branching: ArrayLike) -> Array:
    r"""Slope :math:`G'(1) = s m (v-1)/(v^s - 1)`: how doubt grows from level to level.

    Args:
        symbols: number of symbols v per level, above 1.
        synonyms: number of rules m per symbol.
        branching: number of children s.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024; (3).
    """
    require_grammar(symbols, synonyms, branching)
    return _slope_at_certainty_of(*floats(symbols, synonyms, branching))


def slope_at_chance(symbols: ArrayLike, synonyms: ArrayLike, branching: ArrayLike) -> Array:
    r"""Slope :math:`G'(1/v) = s v^{s-1}(v-1)/[m(v^s - 1)]`: how a hint grows from level to level.

    Args:
        symbols: number of symbols v per level, above 1.
        synonyms: number of rules m per symbol.
        branching: number of children s.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024; (3).
    """
    require_grammar(symbols, synonyms, branching)
    return _slope_at_chance_of(*floats(symbols, synonyms, branching))


def threshold(symbols: ArrayLike, synonyms: ArrayLike, branching: ArrayLike) -> Threshold:
    r"""Belief and noise at which the class of a deep hierarchy is lost in the mean-field map.

    .. math:: p_* = G(p_*), \quad 1/v < p_* < 1, \qquad \epsilon_* = \frac{1 - p_*}{1 - 1/v}

    Args:
        symbols: number of symbols v per level, above 1.
        synonyms: number of rules m per symbol, at least 1 and at most :math:`v^{s-1}`.
        branching: number of children s, above 1.

    Returns:
        NaN where one of the slopes (3) is 1 or more: for one rule per symbol, for example, the
        root is found from any hint, and where all tuples are rules it never is.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024; (4).
    """
    require_grammar(symbols, synonyms, branching)
    return _threshold_of(*floats(symbols, synonyms, branching))


def leaf_belief(noise: ArrayLike, symbols: ArrayLike) -> Array:
    r"""Belief :math:`p_L = 1 - \epsilon + \epsilon/v` in a leaf of the :math:`\epsilon` process.

    Args:
        noise: :math:`\epsilon` in [0, 1].
        symbols: number of symbols v, above 1.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024.
    """
    require_noise(noise)
    checks.require("symbols", symbols, lambda v: v > 1, "above 1", "one symbol carries nothing")
    noise, symbols = floats(noise, symbols)
    return 1 - noise + noise / symbols


def iterated_belief(
    noise: ArrayLike,
    levels: int,
    symbols: ArrayLike,
    synonyms: ArrayLike,
    branching: ArrayLike,
) -> Array:
    r"""Beliefs :math:`p_L, G(p_L), G(G(p_L)), \dots` from the leaves to the root.

    Args:
        noise: :math:`\epsilon` in [0, 1].
        levels: number of applications of (2); static.
        symbols: number of symbols v per level, above 1.
        synonyms: number of rules m per symbol, at least 1 and at most :math:`v^{s-1}`.
        branching: number of children s, above 1.

    Returns:
        Shape (..., levels + 1); the last entry is the belief in the true class.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024; (2).
    """
    levels = checks.require_count("levels", levels, 0, "count the maps applied")
    require_noise(noise)
    require_grammar(symbols, synonyms, branching)
    return _iterate(levels, *floats(noise, symbols, synonyms, branching))


def require_noise(noise: ArrayLike) -> None:
    """A probability."""
    fix = "pass the probability that a leaf is hidden"
    checks.require("noise", noise, lambda e: (e >= 0) & (e <= 1), "in [0, 1]", fix)


def require_grammar(symbols: ArrayLike, synonyms: ArrayLike, branching: ArrayLike) -> None:
    """At least two symbols and children, and no more rules than there are tuples."""
    fix = "the tuples of a grammar are distinct, and there are v^s of them"
    checks.require("symbols", symbols, lambda v: v > 1, "above 1", "one symbol carries nothing")
    checks.require("branching", branching, lambda s: s > 1, "above 1", "count the children")
    checks.require("synonyms", synonyms, lambda m: m >= 1, ">= 1", "every symbol needs a rule")
    if not any(isinstance(n, jax.core.Tracer) for n in (symbols, synonyms, branching)):
        v, m, s = (np.asarray(n, np.float64) for n in (symbols, synonyms, branching))
        checks.require("synonyms", m / v ** (s - 1) * np.ones_like(v), lambda r: r <= 1,
                       "at most v^(s-1) (in units of which it is shown)", fix)  # fmt: skip


def _weights(p: Array, v: Array, m: Array, s: Array) -> tuple[Array, Array]:
    """Weight of the true parent and of all parents, numerator and denominator of (2).

    Both times v^(s/2), which is halfway between the weights of certainty and of chance.
    """
    root = jnp.sqrt(v)
    power = (p * root) ** s
    others = (1 - p**s) / (root**s - root**-s)
    return power + (m - 1) * others, power + (m * v - 1) * others


def _belief_map(p: Array, v: Array, m: Array, s: Array) -> Array:
    own, total = _weights(p, v, m, s)
    return own / total


def _slope_at_certainty(v: Array, m: Array, s: Array) -> Array:
    return s * m * (v - 1) / (v**s - 1)


def _slope_at_chance(v: Array, m: Array, s: Array) -> Array:
    return s * (1 - 1 / v) / (m * (1 - v**-s))


def _threshold(v: Array, m: Array, s: Array) -> Threshold:
    at_one, at_chance = _slope_at_certainty(v, m, s), _slope_at_chance(v, m, s)
    width = 1 - 1 / v

    def quotient(u: Array) -> Array:
        """``h`` of (4) at ``p = 1/v + u (1 - 1/v)``, with its limits at both ends."""
        p = 1 / v + u * width
        own, total = _weights(p, v, m, s)
        inner = jnp.where((u > 0) & (u < 1), u * (1 - u) * width**2, 1)
        ends = jnp.where(u <= 0, total * (at_chance - 1), (1 - at_one) * total) / width
        return jnp.where((u > 0) & (u < 1), (own - p * total) / inner, ends)

    fraction = find_root(quotient, jnp.zeros_like(v), jnp.ones_like(v)).value
    pair = s == 2
    gap = jnp.where(pair & (v > m), v - m, 1)
    belief = jnp.where(pair, (m - 1) / gap, 1 / v + fraction * width)
    belief = jnp.where((at_one < 1) & (at_chance < 1), belief, jnp.nan)
    return Threshold(belief, (1 - belief) / width)


@partial(jax.jit, static_argnums=0)
def _iterate(levels: int, noise: Array, v: Array, m: Array, s: Array) -> Array:
    shape = jnp.broadcast_shapes(noise.shape, v.shape, m.shape, s.shape)
    start = jnp.broadcast_to(1 - noise + noise / v, shape)

    def up(p: Array, _: None) -> tuple[Array, Array]:
        above = _belief_map(p, v, m, s)
        return above, above

    _, found = jax.lax.scan(up, start, None, length=levels)
    return jnp.moveaxis(jnp.concatenate([start[None], found]), 0, -1)


_belief_map_of = elementwise(_belief_map)
_slope_at_certainty_of = elementwise(_slope_at_certainty)
_slope_at_chance_of = elementwise(_slope_at_chance)
_threshold_of = elementwise(_threshold)
