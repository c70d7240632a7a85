r"""Population dynamics of beliefs on random hierarchies, for channels that really hide symbols.

Given a grammar, what is seen below two nodes of a tree is independent once their symbols are
known. The upward message :math:`\nu` of a node whose true symbol is a, a random vector over what
was generated below it and what the channel left, therefore has a law :math:`P_l(\nu | a)` that
obeys, from the leaves to the root,

.. math:: \nu(b) \propto \sum_{r \in R_b} \prod_{i=1}^s \nu_i(r_i), \qquad
   \nu_i \sim P_{l+1}(\cdot \,|\, \rho_i), \qquad \rho \text{ uniform in } R_a. \tag{1}

This is exact for every grammar. The laws are represented by a population of messages for every
true symbol, from which the s children are drawn with replacement; the error falls as one over
the root of the size of the population. A level costs the same at every depth, so that hierarchies
can be followed to depths at which their :math:`s^L` leaves could not be stored.

The belief in the true class is :math:`\nu(a)` at the root, and by Nishimori's identity also the
probability that noising a datum and drawing a posterior sample leaves its class unchanged. Deep
in the tree it goes to 1 or to 1/v. The noise that separates the two differs a little from grammar
to grammar, and its mean is the transition of the ensemble; the beliefs of two depths, averaged
over grammars, cross near it. A small population fluctuates like an imperfect choice of noise at
its leaves, which widens the spread between grammars but hardly moves the mean: for 32 symbols, 8
synonyms and masking the spread is .02 with 48 members for each symbol, and .005 with 1920.

Leaves. :math:`\nu_L(c) \propto P(\text{seen} | c)`:

.. math:: \text{masking: } \delta_{c,a} \text{ or } \tfrac1v; \quad
          \text{uniform corruption: } (1-\epsilon)\delta_{c,\text{seen}} + \tfrac\epsilon v; \quad
          \text{Gaussian: softmax}_c\big(x_c e^{-t}/\Delta_t\big). \tag{2}

Source: Mezard, Montanari 2009, chapter 14 (population dynamics); Cagnetta et al. 2023
(2307.02129) and Sclocchi, Favero, Wyart 2024 (2402.16991) for the model.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array
from theory.hierarchy import require_grammar, require_noise

Leaves = Callable[[Array, Array, int, int], Array]
"""``leaves(key, noise, symbols, size)``: messages (2), (symbols, size, symbols), by true symbol."""


class Transition(NamedTuple):
    """Noise at which the class of a deep hierarchy is lost."""

    noise: Array
    """Of each grammar, shape (grammars,); NaN where it is not inside the bracket. The spread is
    that of the grammars and of finite populations together."""
    mean: Array
    """Mean over grammars."""
    error: Array
    """Standard error of the mean."""


def masked_leaves(key: Array, noise: ArrayLike, symbols: int, size: int) -> Array:
    r"""Messages of leaves that are masked with probability ``noise``; see (2).

    Args:
        key: typed PRNG key.
        noise: probability of a mask, a scalar.
        symbols: number of symbols v.
        size: messages for each true symbol.

    Returns:
        Shape (symbols, size, symbols): true symbol, member, belief in each symbol.

    Raises:
        ValueError: if a concrete noise is no probability.
    """
    require_noise(noise)
    hidden = jax.random.uniform(key, (symbols, size)) < noise
    true = jnp.eye(symbols)[:, None, :]
    return jnp.where(hidden[..., None], 1 / symbols, true)


def corrupted_leaves(key: Array, noise: ArrayLike, symbols: int, size: int) -> Array:
    r"""Messages of leaves that are resampled with probability ``noise``; see (2).

    Arguments, result and errors as `masked_leaves`.
    """
    require_noise(noise)
    key_where, key_what = jax.random.split(key)
    true = jnp.broadcast_to(jnp.arange(symbols)[:, None], (symbols, size))
    other = jax.random.randint(key_what, (symbols, size), 0, symbols)
    seen = jnp.where(jax.random.uniform(key_where, (symbols, size)) < noise, other, true)
    kept = 1 - jnp.asarray(noise, float)
    return kept * jax.nn.one_hot(seen, symbols) + (1 - kept) / symbols


def gaussian_leaves(key: Array, t: ArrayLike, symbols: int, size: int) -> Array:
    r"""Messages of one-hot leaves noised to Ornstein-Uhlenbeck time ``t`` at temperature 1.

    The logits are :math:`x_c e^{-t}/\Delta_t = \mathrm{snr}\,\delta_{c,a} +
    \sqrt{\mathrm{snr}}\,z_c`.

    Args:
        key: typed PRNG key.
        t: time, a positive scalar.
        symbols: number of symbols v.
        size: messages for each true symbol.

    Returns:
        Shape (symbols, size, symbols).

    Raises:
        ValueError: if a concrete time is not positive.
    """
    checks.require_positive("t", t, "without noise every symbol is known")
    snr = 1 / jnp.expm1(2 * jnp.asarray(t, float))
    z = jax.random.normal(key, (symbols, size, symbols))
    return jax.nn.softmax(snr * jnp.eye(symbols)[:, None, :] + jnp.sqrt(snr) * z, axis=-1)


def random_rules(key: Array, levels: int, symbols: int, synonyms: int, branching: int) -> Array:
    """Rules of a random grammar with as many classes as symbols.

    Args:
        key: typed PRNG key.
        levels: number of levels of rules; static, as the other sizes.
        symbols: number of symbols v.
        synonyms: number of rules m of each symbol.
        branching: number of children s.

    Returns:
        Integers of shape (levels, symbols, synonyms, branching), from the root down; the tuples of
        a level are distinct. All ``symbols**branching`` tuples are listed to draw them.

    Raises:
        ValueError: if there are more rules than tuples.
    """
    require_grammar(symbols, synonyms, branching)
    tuples = symbols**branching

    def one(key: Array) -> Array:
        index = jax.random.permutation(key, tuples)[: symbols * synonyms]
        digits = index[:, None] // symbols ** jnp.arange(branching) % symbols
        return digits.reshape(symbols, synonyms, branching)

    return jax.lax.map(one, jax.random.split(key, levels))


def belief_by_level(key: Array, rules: ArrayLike, messages: ArrayLike) -> Array:
    r"""Mean belief in the true symbol of each level of a hierarchy, leaves first.

    Args:
        key: typed PRNG key.
        rules: (levels, v, m, s), from the root down, with as many classes as symbols.
        messages: population of the leaves, (v, size, v), of `masked_leaves` and its kin.

    Returns:
        Shape (levels + 1,): entry l is the mean over the population of the belief that what is
        seen below a node l levels above the leaves gives to its symbol. The last is the root's.

    Raises:
        ValueError: if the shapes do not belong together.

    Source: (1).
    """
    rules, messages = jnp.asarray(rules), jnp.asarray(messages)
    v = messages.shape[-1]
    fits = messages.ndim == 3 and messages.shape[0] == v
    if not fits or rules.ndim != 4 or rules.shape[1] != v:
        raise ValueError(
            f"shapes {rules.shape} of rules and {messages.shape} of messages must be "
            "(levels, v, m, s) and (v, size, v)"
        )
    return _belief_by_level(key, rules, messages)


def transition(
    key: Array,
    leaves: Leaves,
    bracket: tuple[float, float],
    levels: int,
    symbols: int,
    synonyms: int,
    branching: int,
    *,
    grammars: int = 16,
    size: int = 64,
    bisections: int = 12,
) -> Transition:
    r"""Noise at which the mean belief at the root of a deep hierarchy passes one half.

    Each random grammar is followed with one set of random numbers, which are the same for all
    noises, and the noise is bisected.

    Args:
        key: typed PRNG key.
        leaves: `masked_leaves`, `corrupted_leaves`, `gaussian_leaves` or a function like them. A
            function is compiled in; one in a `jax.tree_util.Partial` shares the compilation
            of others that differ in its arrays only.
        bracket: noises below and above the transition.
        levels: depth; the width of the step falls geometrically with it.
        symbols: number of symbols v, and of classes.
        synonyms: number of rules m of each symbol.
        branching: number of children s.
        grammars: number of random grammars.
        size: population for each true symbol.
        bisections: halvings of the bracket.

    Returns:
        One noise per grammar, their mean and its error; NaN in ``noise`` where the bracket does
        not hold the transition, and then also in the others.

    Raises:
        ValueError: if there are more rules than tuples, no level, or fewer than two grammars.
    """
    require_grammar(symbols, synonyms, branching)
    if grammars < 2:
        raise ValueError(f"grammars must be at least 2, but is grammars={grammars}")
    levels = checks.require_count("levels", levels, 1, "pass the depth")
    sizes = (levels, symbols, synonyms, branching, size, bisections)
    leaves = leaves if isinstance(leaves, Partial) else Partial(leaves)
    low, high = (jnp.asarray(end, float) for end in bracket)
    noise = _bisect(jax.random.split(key, grammars), low, high, leaves, sizes)
    return Transition(noise, jnp.mean(noise), jnp.std(noise, ddof=1) / jnp.sqrt(1.0 * grammars))


@partial(jax.jit, static_argnames="sizes")
def _bisect(keys: Array, low: Array, high: Array, leaves: Partial, sizes: tuple) -> Array:
    levels, symbols, synonyms, branching, size, bisections = sizes

    def one(key: Array) -> Array:
        key_rules, key_leaves, key_climb = jax.random.split(key, 3)
        rules = random_rules(key_rules, levels, symbols, synonyms, branching)

        def found(noise: Array) -> Array:
            messages = leaves(key_leaves, noise, symbols, size)
            return _belief_by_level(key_climb, rules, messages)[-1] > 0.5

        def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            middle = 0.5 * (ends[0] + ends[1])
            inside = found(middle)
            return (jnp.where(inside, middle, ends[0]), jnp.where(inside, ends[1], middle)), None

        ends, _ = jax.lax.scan(halve, (low, high), None, length=bisections)
        # an end that never moved was not seen to be on its side
        moved = (ends[0] > low) & (ends[1] < high)
        return jnp.where(moved, 0.5 * (ends[0] + ends[1]), jnp.nan)

    return jax.lax.map(one, keys)


@jax.jit
def _belief_by_level(key: Array, rules: Array, messages: Array) -> Array:
    def up(carry: tuple[Array, Array], table: Array) -> tuple[tuple[Array, Array], Array]:
        population, level = carry
        above = _climb(jax.random.fold_in(key, level), population, table)
        return (above, level + 1), _mean_belief(above)

    _, beliefs = jax.lax.scan(up, (messages, jnp.asarray(0)), rules, reverse=True)
    return jnp.concatenate([_mean_belief(messages)[None], beliefs[::-1]])


def _climb(key: Array, messages: Array, rules: Array) -> Array:
    """Population of the level above, eq. (1)."""
    v, size, _ = messages.shape
    _, synonyms, branching = rules.shape
    key_rule, key_member = jax.random.split(key)
    chosen = jax.random.randint(key_rule, (v, size), 0, synonyms)
    children = rules[jnp.arange(v)[:, None], chosen]  # (v, size, s)
    member = jax.random.randint(key_member, children.shape, 0, size)
    weight = jnp.ones((), messages.dtype)
    for i in range(branching):
        below = messages[children[..., i], member[..., i]]  # (v, size, v)
        # a product with a table of zeros and ones, several times faster than a gather on a CPU
        table = jax.nn.one_hot(rules[..., i].ravel(), v, dtype=below.dtype)
        weight = weight * jnp.matmul(below, table.T, precision="highest")
    belief = jnp.sum(weight.reshape(v, size, v, synonyms), axis=-1)
    return belief / jnp.sum(belief, axis=-1, keepdims=True)


def _mean_belief(messages: Array) -> Array:
    return jnp.mean(jnp.diagonal(messages, axis1=0, axis2=2))
