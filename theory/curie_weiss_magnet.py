r"""Mean field of the Curie-Weiss magnet: magnetisation, its branches, and the free energy.

Spins :math:`a \in \{\pm1\}^d` with :math:`M = \sum_i a_i` have the law

.. math:: P_0(a) = \frac1Z \exp\Big[\frac{\beta M^2}{2d} + hM\Big], \tag{1}

with the field :math:`h` per spin: a field :math:`h_0` of order one *in total* is :math:`h = h_0/d`.
A Gaussian integral over a field :math:`v` decouples the spins,
:math:`Z = \sqrt{d\beta/2\pi} \int dv\, e^{-d f(v)}`, with the free energy per spin

.. math:: f(v) = \tfrac12\beta v^2 - \log 2\cosh(\beta v + h), \tag{2}

whose minimum gives :math:`-\frac1d \log Z` and whose stationary points solve

.. math:: m = \tanh(\beta m + h). \tag{3}

With :math:`x = \beta m + h` this is :math:`(x - h)\coth x = \beta`, free of the root at zero.
Without a field there is one solution up to the critical :math:`\beta = 1` and three above; a field
leaves three up to the spinodal

.. math:: h_{sp} = \beta m_s - \mathrm{artanh}\, m_s, \qquad m_s = \sqrt{1 - 1/\beta}, \tag{4}

where :math:`\partial h/\partial m = 0`. The susceptibility is

.. math:: \chi = \frac{\partial m}{\partial h} = \frac{1 - m^2}{1 - \beta(1 - m^2)}, \tag{5}

and near the origin, to first order in the field,

.. math:: f(v) = -\log2 - h\beta v + \frac{\beta(1-\beta)}{2}v^2 + \frac{\beta^4}{12}v^4. \tag{6}

Exact as :math:`d \to \infty`.

Source: Biroli, Mezard 2023 (2306.03518); (2) and (3) are textbook.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.biased_sign import sign_entropy
from theory.checks import Array, elementwise, floats
from theory.roots import find_root


class Branches(NamedTuple):
    """Solutions of a self-consistency; NaN where there is none of the kind."""

    stable: Array
    """The lowest minimum; the positive one of two that are equal."""
    metastable: Array
    """The other minimum."""
    unstable: Array
    """The maximum between the two."""


class LandauCoefficients(NamedTuple):
    """Expansion of the free energy per spin in powers of the field v."""

    constant: Array
    linear: Array
    quadratic: Array
    quartic: Array


def beta_of_pair_coupling(inverse_temperature: ArrayLike, coupling: ArrayLike = 1.0) -> Array:
    r"""The beta of (1) for weights written as a sum over all ordered pairs of spins.

    .. math:: e^{\frac{\beta_s J}{d}\sum_{i,j} a_ia_j} = e^{\frac{\beta M^2}{2d}}, \qquad
       \beta = 2\beta_s J

    Args:
        inverse_temperature: the factor beta_s; arguments broadcast.
        coupling: the coupling J of a pair.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (1).
    """
    fix = "the model is a ferromagnet"
    checks.require_nonnegative("inverse_temperature", inverse_temperature, fix)
    checks.require_nonnegative("coupling", coupling, fix)
    inverse_temperature, coupling = floats(inverse_temperature, coupling)
    return 2 * inverse_temperature * coupling


def magnetization(beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Magnetisation per spin of the stable state; the positive one without a field.

    .. math:: m^* = \tanh(\beta m^* + h)

    Exactly 0 for beta <= 1 without a field. The derivative by the field is the susceptibility, for
    zero field that of the positive state. At the critical point the derivative by beta is the one
    from below, which is zero, and so is the one by the field, which has no finite value there.

    Args:
        beta: inverse temperature, critical at 1; arguments broadcast.
        field: field h per spin.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (3).
    """
    return jnp.tanh(effective_field(beta, field))


def effective_field(beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Field on a spin in the stable state, half the log-odds of its two values.

    .. math:: x = \beta m^* + h = \mathrm{artanh}\, m^*

    Args:
        beta: inverse temperature, critical at 1; arguments broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (3).
    """
    return _stable(*arguments(beta, field))


def magnetization_branches(beta: ArrayLike, field: ArrayLike = 0.0) -> Branches:
    r"""All solutions of the self-consistency.

    .. math:: m = \tanh(\beta m + h)

    The metastable and the unstable one exist for beta > 1 and fields below the spinodal, where
    they meet. Without a field the two minima are equal, and the positive one is called stable.

    Args:
        beta: inverse temperature; arguments broadcast.
        field: field h per spin.

    Returns:
        NaN where a solution does not exist, or where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (3), (4).
    """
    beta, field = arguments(beta, field)
    metastable, unstable = _others(beta, field)
    return Branches(jnp.tanh(_stable(beta, field)), metastable, unstable)


def spinodal_field(beta: ArrayLike) -> Array:
    r"""Field per spin up to which the state that opposes it is metastable.

    .. math:: h_{sp} = \beta m_s - \mathrm{artanh}\, m_s, \qquad m_s = \sqrt{1 - 1/\beta}

    0 at beta = 1, NaN below, where there is a single state.

    Args:
        beta: inverse temperature, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (4).
    """
    (beta,) = arguments(beta)
    return _spinodal(beta)


def susceptibility(beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Response of the magnetisation to the field per spin, and variance of M per spin.

    .. math:: \chi = \frac{1 - m^{*2}}{1 - \beta(1 - m^{*2})}

    In the stable state. Infinite at the critical point.

    Args:
        beta: inverse temperature; arguments broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (5).
    """
    beta, field = arguments(beta, field)
    width = spin_variance(_stable(beta, field))
    return width / (1 - beta * width)


def free_energy_density(beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Free energy per spin of the stable state.

    .. math:: -\lim_{d\to\infty} \tfrac1d\log Z
       = \tfrac12\beta m^{*2} - \log 2\cosh(\beta m^* + h)

    Args:
        beta: inverse temperature; arguments broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    beta, field = arguments(beta, field)
    return landau_free_energy(jnp.tanh(_stable(beta, field)), beta, field)


def landau_free_energy(v: ArrayLike, beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Free energy per spin at a value of the decoupling field.

    .. math:: f(v) = \tfrac12\beta v^2 - \log 2\cosh(\beta v + h)

    Its stationary points are the magnetisations.

    Args:
        v: decoupling field; arguments broadcast.
        beta: inverse temperature.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    v, beta, field = floats(v, *arguments(beta, field))
    total = beta * v + field
    return 0.5 * beta * v**2 - jnp.logaddexp(total, -total)


def landau_coefficients(beta: ArrayLike, field: ArrayLike = 0.0) -> LandauCoefficients:
    r"""Coefficients of the free energy near the origin.

    .. math:: f(v) = -\log2 - h\beta v + \frac{\beta(1-\beta)}2 v^2 + \frac{\beta^4}{12}v^4

    To first order in the field and fourth in v.

    Args:
        beta: inverse temperature; arguments broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (6).
    """
    beta, field = jnp.broadcast_arrays(*arguments(beta, field))
    constant = jnp.full_like(beta, -jnp.log(2.0))
    return LandauCoefficients(constant, -field * beta, 0.5 * beta * (1 - beta), beta**4 / 12)


def binary_entropy_of_magnetization(beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Entropy per spin of one pure state, in nats.

    .. math:: H_b = -\sum_\pm \frac{1 \pm m^*}2 \log\frac{1 \pm m^*}2

    The logarithm of the number of typical configurations per spin.

    Args:
        beta: inverse temperature; arguments broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518).
    """
    return sign_entropy(_stable(*arguments(beta, field)))


def spin_variance(x: Array) -> Array:
    """Variance 1 - tanh(x)^2 of a spin in the field x, without cancellation for a strong field."""
    return 4 * jax.nn.sigmoid(2 * x) * jax.nn.sigmoid(-2 * x)


def require_beta(beta: ArrayLike) -> None:
    """Finite and not below zero."""
    checks.require_nonnegative("beta", beta, "pass the inverse temperature of a ferromagnet")


def arguments(beta: ArrayLike, *others: ArrayLike) -> tuple[Array, ...]:
    """An inverse temperature and fields, checked, in one floating dtype."""
    require_beta(beta)
    for field in others:
        fix = "pass the field per spin"
        checks.require("field", field, lambda v: abs(v) < float("inf"), "finite", fix)
    return floats(beta, *others)


def _x_coth_x_minus_one(x: Array) -> Array:
    """Accurate to rounding for small x, where it decides between one solution and three."""
    small = x < 0.1
    y = jnp.where(small, x, 0.1) ** 2
    series = y / 3 * (1 - y / 15 * (1 - 2 * y / 21 * (1 - y / 10 * (1 - 10 * y / 99))))
    large = jnp.where(small, 1, x)
    return jnp.where(small, series, large / jnp.tanh(large) - 1)


def _stable_kernel(beta: Array, field: Array) -> Array:
    sign = jnp.where(field < 0, -1, 1).astype(beta.dtype)
    strength = sign * field
    exists, weak = (strength > 0) | (beta > 1), beta
    beta, strength = jnp.where(exists, beta, 2), jnp.where(exists, strength, 0)

    def excess(u: Array) -> Array:  # (x - h) coth x - beta, x = e^u
        x = jnp.exp(u)
        return _x_coth_x_minus_one(x) - strength / jnp.tanh(x) - (beta - 1)

    # tanh x <= x from the field, and x coth x - 1 <= x^2/3 without it; m < 1 from above
    critical = jnp.sqrt(3 * jnp.maximum(beta - 1, 0))
    lower = jnp.log(jnp.maximum(strength, critical)) - 1e-3
    x = jnp.exp(find_root(excess, lower, jnp.log(beta + strength) + 1e-3).value)
    # linear response, for the sake of its derivative: the value there is zero
    response = field / jnp.where(exists | (weak == 1), 1, 1 - weak)
    return jnp.where(exists, sign * x, jnp.where(weak == 1, 0, response))


def _turning_point(beta: Array) -> tuple[Array, Array]:
    """Effective field x and field h at the spinodal, of beta above 1."""
    m = jnp.sqrt(1 - 1 / beta)
    x = jnp.arctanh(m)
    return x, beta * m - x


def _others_kernel(beta: Array, field: Array) -> tuple[Array, Array]:
    sign = jnp.where(field < 0, -1, 1).astype(beta.dtype)
    strength = sign * field
    ordered = beta > 1
    beta = jnp.where(ordered, beta, 2)
    x, limit = _turning_point(beta)
    exists = ordered & (strength < limit)
    strength = jnp.where(exists, strength, 0)

    def excess(y: Array) -> Array:  # y = -x where x opposes the field; free of the root at zero
        return _x_coth_x_minus_one(y) + strength / jnp.tanh(y) - (beta - 1)

    def barrier(y: Array) -> Array:  # includes it: the barrier without a field
        return beta * jnp.tanh(y) - y - strength

    roots = find_root(excess, x, beta).value, find_root(barrier, 0 * x, x).value
    metastable, unstable = (-sign * jnp.tanh(y) + 0.0 for y in roots)
    return jnp.where(exists, metastable, jnp.nan), jnp.where(exists, unstable, jnp.nan)


def _spinodal_kernel(beta: Array) -> Array:
    ordered = beta > 1
    limit = _turning_point(jnp.where(ordered, beta, 2))[1]
    return jnp.where(ordered, limit, jnp.where(beta == 1, 0, jnp.nan))


_stable = elementwise(_stable_kernel)
_others = elementwise(_others_kernel)
_spinodal = elementwise(_spinodal_kernel)
