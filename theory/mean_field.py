r"""Mean-field magnets beyond Ising spins: Potts colours and O(n) rotors.

**Potts.** Spins take one of :math:`q` colours, written one-hot, and
:math:`P_0 \propto e^{\frac{\beta}{2d}\sum_c N_c^2}` with :math:`N_c` the number of spins of a
colour. In the ordered states one colour has the fraction :math:`X = \frac{1 + (q-1)m}{q}` and each
of the others :math:`y = \frac{1-m}q`, with

.. math:: m = \frac{e^{\beta m} - 1}{e^{\beta m} + q - 1}, \qquad\text{or}\qquad
   \beta = s + \frac{qs}{e^s - 1}, \quad s = \beta m, \tag{1}

and the free energy per spin is

.. math:: f(m) = \frac{\beta}{2q}\big[1 + (q-1)m^2\big] - \frac{\beta(1-m)}q
   - \log(e^{\beta m} + q - 1). \tag{2}

For :math:`q > 2` the transition is of first order: the ordered state appears at the spinodal, the
minimum of (1) over :math:`s`, where :math:`e^s + q - 2 - (q-1)e^{-s} = qs`; it takes over at

.. math:: \beta_c = \frac{2(q-1)\log(q-1)}{q-2}, \qquad m_c = \frac{q-2}{q-1}; \tag{3}

and the paramagnet loses stability at :math:`\beta = q`. For :math:`q = 2` the three meet at
:math:`\beta = 2`: Ising spins have half that coupling. The integral over the fields that decouple
the spins adds :math:`F_1 = -\frac12[(q-2)\log(1 - \beta y) + \log(1 - \beta qXy)]` to
:math:`\log Z`, and as :math:`\sum_c\langle N_c^2\rangle/d = 2\,\partial_\beta\log Z`, the
eigenvalue of the covariance that separates the :math:`q` classes is

.. math:: \Lambda = \frac{d\,m^2}q + \frac2{q-1}\frac{dF_1}{d\beta} + O(1/d), \tag{4}

:math:`q - 1` times degenerate; it is :math:`1/(q - \beta)` in the paramagnet.

Under noise, near speciation, the ordered classes are Gaussians on a regular simplex, of centres of
norm :math:`|m_c|^2 = dm^2(q-1)/q` and variance :math:`T` of the state. Their potential and its own
first-order transition are in `theory.potentials`: with the norm from `potts_class_norm`,
`simplex_spinodal_time` and `simplex_dynamic_time` give the times at which classes appear and at
which the middle becomes unstable. It is the same equation as (1): :math:`\beta = 2qA^2/(q-1)` for
the amplitude :math:`A` there.

**Rotors.** :math:`d` unit vectors :math:`s_i` of :math:`n` components with
:math:`P_0 \propto e^{\frac{\beta}{2d}|\sum_i s_i|^2}`:

.. math:: m = R(\beta m), \qquad R(y) = \frac{I_{n/2}(y)}{I_{n/2-1}(y)}
   = \cfrac{y}{n + \cfrac{y^2}{n + 2 + \cdots}}, \tag{5}

critical at :math:`\beta_c = n`; :math:`n = 1` is the Ising magnet. The covariance has the
eigenvalue :math:`\Lambda = \langle|\sum_is_i|^2\rangle/(nd)`, :math:`n` times degenerate, and as
above

.. math:: \Lambda = \frac{d\,m^2}n + \frac2n\frac{dF_1}{d\beta} + O(1/d), \qquad
   F_1 = \tfrac{n-1}2\log\beta + (n-1)\log m - \tfrac12\log[1 - \beta R'(\beta m)], \tag{6}

or :math:`1/(n - \beta)` below the transition. Both magnets have data of constant norm, so that
:math:`t_U = \frac12\mathrm{asinh}(\Lambda/T)` is exact as the instability of the centre, with
the exact :math:`\Lambda`.

Sources: Wu, Rev. Mod. Phys. 54, 235 (1982) for Potts; Biroli, Mezard 2023 (2306.03518) for
magnets as data.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks, speciation
from theory.bessel import ratio_of_scalars
from theory.checks import Array, elementwise, floats
from theory.curie_weiss_magnet import Branches, require_beta
from theory.potentials import spinodal_argument
from theory.roots import find_root


class PottsTransition(NamedTuple):
    """The transition of the Potts magnet; all three values of beta are 2 for two colours."""

    beta: Array
    """Inverse temperature of coexistence."""
    magnetization: Array
    """Jump of the magnetisation there, zero for two colours."""
    spinodal: Array
    """Inverse temperature from which on an ordered state exists."""
    instability: Array
    """Inverse temperature from which on the paramagnet is unstable."""


def potts_transition(q: ArrayLike) -> PottsTransition:
    r"""Where the Potts magnet orders.

    .. math:: \beta_c = \frac{2(q-1)\log(q-1)}{q-2}, \qquad m_c = \frac{q-2}{q-1}

    Args:
        q: number of colours, two at least (continuous transition), any shape.

    Returns:
        NaN in the spinodal where the solver did not converge.

    Raises:
        ValueError: for a concrete number of colours below two.

    Source: Wu 1982; (3).
    """
    _require_colours(q)
    (q,) = floats(q)
    return PottsTransition(_coexistence(q), (q - 2) / (q - 1), _potts_spinodal(q)[0], q)


def potts_magnetization(q: ArrayLike, beta: ArrayLike) -> Branches:
    r"""Solutions of non-negative magnetisation of the Potts magnet.

    .. math:: m = \frac{e^{\beta m} - 1}{e^{\beta m} + q - 1}

    The paramagnet and, beyond the spinodal, the ordered state; between spinodal and beta = q an
    unstable solution separates them, afterwards the paramagnet is the unstable one. At
    coexistence the ordered state is called stable.

    Args:
        q: number of colours, two at least; arguments broadcast.
        beta: inverse temperature.

    Returns:
        NaN where a solution does not exist, or where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Wu 1982; (1).
    """
    return Branches(*_potts(*_potts_arguments(q, beta)))


def potts_free_energy(magnetization: ArrayLike, q: ArrayLike, beta: ArrayLike) -> Array:
    r"""Free energy per spin of the Potts magnet at a magnetisation along one colour.

    .. math:: f(m) = \frac{\beta}{2q}\big[1 + (q-1)m^2\big] - \frac{\beta(1-m)}q
       - \log(e^{\beta m} + q - 1)

    Stationary at the solutions of the self-consistency; the lowest one is
    :math:`-\frac1d\log Z`.

    Args:
        magnetization: magnetisation m, 0 for the paramagnet; arguments broadcast.
        q: number of colours, two at least.
        beta: inverse temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Wu 1982; (2).
    """
    magnetization, q, beta = floats(magnetization, *_potts_arguments(q, beta))
    energy = beta / (2 * q) * (1 + (q - 1) * magnetization**2)
    others = jnp.log(q - 1)
    entropy = beta * (1 - magnetization) / q + jnp.logaddexp(beta * magnetization, others)
    return energy - entropy


def potts_class_norm(dim: ArrayLike, q: ArrayLike, beta: ArrayLike) -> Array:
    r"""Norm of a class centre of Potts data, measured from the middle of the classes.

    .. math:: |m_c| = \sqrt{d\,m^2\,\frac{q-1}q}

    In the stable state: 0 in the paramagnet, where there are no classes.

    Args:
        dim: number of spins; arguments broadcast.
        q: number of colours, two at least.
        beta: inverse temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Wu 1982; (1).
    """
    checks.require_dimension(dim)
    dim, q, beta = floats(dim, *_potts_arguments(q, beta))
    return jnp.sqrt(dim * (q - 1) / q) * potts_magnetization(q, beta).stable


def potts_top_eigenvalue(dim: ArrayLike, q: ArrayLike, beta: ArrayLike) -> Array:
    r"""Eigenvalue of the covariance of Potts data that separates the classes, q - 1 times.

    .. math:: \Lambda = \frac{d\,m^2}q + \frac2{q-1}\frac{dF_1}{d\beta} + O(1/d)

    In the stable state; in a window of width O(1/d) around coexistence both states contribute.
    Infinite at the continuous transition of q = 2.

    Args:
        dim: number of spins; arguments broadcast.
        q: number of colours, two at least.
        beta: inverse temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Wu 1982 for the magnet; (4).
    """
    checks.require_dimension(dim)
    return _potts_eigenvalue(*floats(dim, *_potts_arguments(q, beta)))


def potts_speciation_time(
    dim: ArrayLike, q: ArrayLike, beta: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Spectral speciation time of Potts data.

    .. math:: t_S = \tfrac12\log(\Lambda/T)

    NaN for an eigenvalue not above the temperature.

    Args:
        dim: number of spins; arguments broadcast.
        q: number of colours, two at least.
        beta: inverse temperature.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (4).
    """
    checks.require_temperature(temperature)
    dim, q, beta, temperature = floats(dim, q, beta, temperature)
    return speciation.spectral_time(potts_top_eigenvalue(dim, q, beta), temperature)


def rotor_magnetization(n: ArrayLike, beta: ArrayLike) -> Array:
    r"""Length of the magnetisation per spin of the O(n) magnet.

    .. math:: m = \frac{I_{n/2}(\beta m)}{I_{n/2-1}(\beta m)}

    0 up to the critical beta = n, where the derivative by beta is that from below.

    Args:
        n: number of components of a spin, one at least; arguments broadcast.
        beta: inverse temperature.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (5).
    """
    return _rotor(*_rotor_arguments(n, beta))


def rotor_top_eigenvalue(dim: ArrayLike, n: ArrayLike, beta: ArrayLike) -> Array:
    r"""Largest eigenvalue of the covariance of the O(n) magnet, n times degenerate.

    .. math:: \Lambda = \frac{d\,m^2}n + \frac2n\frac{dF_1}{d\beta} + O(1/d)

    Infinite at the critical point.

    Args:
        dim: number of spins; arguments broadcast.
        n: number of components of a spin, one at least.
        beta: inverse temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (6).
    """
    checks.require_dimension(dim)
    return _rotor_eigenvalue(*floats(dim, *_rotor_arguments(n, beta)))


def rotor_speciation_time(
    dim: ArrayLike, n: ArrayLike, beta: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Spectral speciation time of the O(n) magnet.

    .. math:: t_S = \tfrac12\log(\Lambda/T)

    NaN for an eigenvalue not above the temperature.

    Args:
        dim: number of spins; arguments broadcast.
        n: number of components of a spin, one at least.
        beta: inverse temperature.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (6).
    """
    checks.require_temperature(temperature)
    dim, n, beta, temperature = floats(dim, n, beta, temperature)
    return speciation.spectral_time(rotor_top_eigenvalue(dim, n, beta), temperature)


def _require_colours(q: ArrayLike) -> None:
    checks.require("q", q, lambda v: v >= 2, ">= 2", "pass the number of colours")


def _potts_arguments(q: ArrayLike, beta: ArrayLike) -> tuple[Array, ...]:
    _require_colours(q)
    require_beta(beta)
    return floats(q, beta)


def _rotor_arguments(n: ArrayLike, beta: ArrayLike) -> tuple[Array, ...]:
    fix = "pass the number of components of a spin"
    checks.require("n", n, lambda v: v >= 1, ">= 1", fix)
    require_beta(beta)
    return floats(n, beta)


def _coexistence(q: Array) -> Array:
    """Equation (3), by its series close to two colours."""
    above = q - 2
    small = above < 1e-3
    near = jnp.where(small, above, 0)
    series = 1 - near * (1 / 2 - near * (1 / 3 - near * (1 / 4 - near * (1 / 5 - near / 6))))
    far = jnp.where(small, 1, above)
    return 2 * (q - 1) * jnp.where(small, series, jnp.log1p(far) / far)


def _potts_beta(q: Array, s: Array) -> Array:
    """Equation (1); s is positive."""
    return s + q * s / jnp.expm1(s)


def _potts_spinodal_kernel(q: Array) -> tuple[Array, Array]:
    """Inverse temperature and s = beta m at the spinodal."""
    more = q > 2
    s = spinodal_argument(jnp.where(more, q, 3))
    return jnp.where(more, _potts_beta(q, s), q), jnp.where(more, s, 0)


def _potts_kernel(q: Array, beta: Array) -> tuple[Array, Array, Array]:
    spinodal, turn = _potts_spinodal_kernel(q)
    critical = _coexistence(q)
    ordered, between = beta > spinodal, (beta > spinodal) & (beta < q)
    inside, lower = jnp.where(ordered, beta, 2 * q), jnp.maximum(turn, 1e-12)
    middle = jnp.where(between, beta, 0.5 * (q + spinodal))
    # beyond q the lower solution is the paramagnet
    level = jnp.stack([inside, middle])
    bracket = jnp.stack([lower, 0 * lower + 1e-12]), jnp.stack([inside, lower])
    s = jax.vmap(
        lambda b, lo, hi: find_root(lambda s: _potts_beta(q, s) - b, lo, hi).value
    )(level, *bracket)  # fmt: skip
    m = s / level
    upper = jnp.where(ordered, m[0], jnp.nan)
    barrier = jnp.where(between, m[1], jnp.where(ordered, 0, jnp.nan))
    wins = beta >= critical
    stable = jnp.where(ordered & wins, m[0], 0)
    metastable = jnp.where(wins, jnp.where(between, 0, jnp.nan), upper)
    return stable, metastable, barrier


def _potts_fluctuations(q: Array, beta: Array, m: Array) -> Array:
    """F_1 of (4) at a given magnetisation."""
    major, minor = (1 + (q - 1) * m) / q, (1 - m) / q
    transverse = (q - 2) * jnp.log1p(-beta * minor)
    return -0.5 * (transverse + jnp.log1p(-beta * q * major * minor))


def _potts_eigenvalue_kernel(dim: Array, q: Array, beta: Array) -> Array:
    m = _potts_kernel(q, beta)[0]
    major, minor = (1 + (q - 1) * m) / q, (1 - m) / q
    paramagnet = m == 0
    # m' = m u/(1 - beta u) with u = qXy, by (1)
    width = q * major * minor
    stiffness = jnp.where(paramagnet, 1, 1 - beta * width)
    slope = m * width / stiffness
    safe = jnp.where(paramagnet, 0, beta)
    change = jax.jvp(
        lambda b, x: _potts_fluctuations(q, b, x), (safe, m), (jnp.ones_like(beta), slope)
    )[1]
    return jnp.where(paramagnet, 1 / (q - beta), dim * m**2 / q + 2 * change / (q - 1))


def _rotor_kernel(n: Array, beta: Array) -> Array:
    ordered = beta > n
    inside = jnp.where(ordered, beta, 2 * n)

    def excess(u: Array) -> Array:  # y/R(y) - beta by one step of the recurrence, y = e^u
        y = jnp.exp(u)
        return y * ratio_of_scalars(0.5 * n, y) - (inside - n)

    # y^2/(n + 2) bounds y r from above, and m is below one
    lower = 0.5 * jnp.log((n + 2) * (inside - n)) - 1e-3
    y = jnp.exp(find_root(excess, lower, jnp.log(inside) + 1e-3).value)
    return jnp.where(ordered, y / inside, 0)


def _rotor_eigenvalue_kernel(dim: Array, n: Array, beta: Array) -> Array:
    m = _rotor_kernel(n, beta)
    ordered = m > 0
    m, inside = jnp.where(ordered, m, 0.5), jnp.where(ordered, beta, 2 * n)
    y = inside * m
    # R' and R'' by the Riccati equation, m' by (5)
    first = 1 - m**2 - (n - 1) * m / y
    second = -2 * m * first - (n - 1) * (first / y - m / y**2)
    slope = m * first / (1 - inside * first)
    stiffness = (first + inside * second * (m + inside * slope)) / (1 - inside * first)
    change = (n - 1) * (1 / inside + 2 * slope / m) + stiffness
    return jnp.where(ordered, (dim * m**2 + change) / n, 1 / (n - beta))


_potts = elementwise(_potts_kernel)
_potts_spinodal = elementwise(_potts_spinodal_kernel)
_potts_eigenvalue = elementwise(_potts_eigenvalue_kernel)
_rotor = elementwise(_rotor_kernel)
_rotor_eigenvalue = elementwise(_rotor_eigenvalue_kernel)
