r"""Data on a linear manifold: spectrum of the score's Jacobian, and when its directions are lost.

Coordinates of the variance-exploding process, :math:`x = y + \sqrt v\,z`, with the noise variance
:math:`v = (e^{2t} - 1)T` (T = 1: data in units of the process). Gaussian data with covariance
eigenvalues :math:`s_i^2` have the score Jacobian :math:`-(vI + S)^{-1}`, in units of the noise

.. math:: v|J|_i = \frac{v}{v + s_i^2}: \tag{1}

1 across the manifold and small along it. Two subspaces are told apart by the gap

.. math:: g(v) = \frac{v}{v + s_2^2} - \frac{v}{v + s_1^2}, \qquad
   v^* = s_1 s_2 = \arg\max g, \tag{2}

and the manifold (s_2 = 0) by :math:`s^2/(v + s^2)`. A random :math:`n \times m` frame of entry
variance :math:`s^2/n` has the edges :math:`s^2(1 \mp \sqrt{m/n})^2` (3) of Marchenko and Pastur.

The empirical score of N points condenses, at a state typical of the noised law, where the noise
still carries the information to tell N points apart (the full random energy model):

.. math:: \log N = \tfrac12 \sum_i \log(1 + s_i^2/v_c). \tag{4}

For one subspace as if it were alone, :math:`v_k = s_k^2/(N^{2/d_k} - 1)` (5). (5) depends on the
dimension as much as on the variance, and does not predict in which order subspaces are lost in a
joint simulation.

*A published approximation* replaces the energies :math:`|y|^2/2 - x\cdot y` by Gaussian ones of
the same variance,

.. math:: v_c(x) = \Big[\frac{\gamma\,\frac12\mathrm{tr}\,S^2 + x^\top S x}{2\log N}\Big]^{1/2},
   \qquad Y_2 = 1 - v/v_c, \tag{6}

:math:`\gamma = 0` for data of unit norm; with x along direction i and :math:`|x|^2 = v`,

.. math:: 2\log N\,v^2 - s_i^2 v - \tfrac\gamma2\,\mathrm{tr}\,S^2 = 0. \tag{7}

It is good for :math:`v \gg s^2` only (isotropic data, large d): with seven directions and a
thousand points it is ten times above (4) and above simulations. Its plotted curve,

.. math:: \Big[(v + s_i^2)^{-2} + G^2(\varphi_0 + \varphi_i)^2\Big]^{1/2}, \quad
   \varphi_i = \Big(\frac1v - \frac1{v_i}\Big)_+, \quad
   G = \sum_j \frac{s_j^2}{v^2(v + s_j^2)}, \tag{8}

:math:`\varphi_0` the same at x = 0 (absent for :math:`\gamma = 0`), is here to reproduce a figure.

Sources: Achilli et al. 2024 (2410.08727); Ventura et al. 2025 (2410.05898); Achilli et al. 2025
(2502.09578).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.collapse import spectrum_collapse_time
from theory.finite_random_energy import gaussian_partition_averages

__all__ = [
    "best_gap_variance",
    "collapse_variance",
    "direction_collapse_variances",
    "energy_collapse_variance",
    "energy_participation",
    "finite_size_participation",
    "marchenko_pastur_edges",
    "plotted_singular_values",
    "population_gap",
    "population_spectrum",
    "subspace_collapse_variances",
    "unit_norm_variances",
]


def population_spectrum(noise_variance: ArrayLike, variances: ArrayLike) -> Array:
    r"""Spectrum of the population's score Jacobian, in units of the noise.

    .. math:: v|J|_i = v/(v + s_i^2)

    Args:
        noise_variance: noise variance v of variance-exploding coordinates; broadcasts.
        variances: variances :math:`s_i^2` of the data.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ventura et al. 2025 (2410.05898); (1).
    """
    _require_noise(noise_variance)
    checks.require_variance(variances, "variances")
    noise_variance, variances = floats(noise_variance, variances)
    return noise_variance / (noise_variance + variances)


def population_gap(noise_variance: ArrayLike, larger: ArrayLike, smaller: ArrayLike = 0.0) -> Array:
    r"""Gap of the population's spectrum between two subspaces.

    .. math:: g(v) = \frac{v}{v + s_2^2} - \frac{v}{v + s_1^2}

    Args:
        noise_variance: noise variance v; arguments broadcast.
        larger: variance :math:`s_1^2` of one subspace (its smallest, if it has several).
        smaller: variance :math:`s_2^2` of the other (its largest); 0 for the surrounding space.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ventura et al. 2025 (2410.05898); (2).
    """
    _require_noise(noise_variance)
    checks.require_variance(larger, "larger")
    checks.require_variance(smaller, "smaller")
    v, larger, smaller = floats(noise_variance, larger, smaller)
    return v * (larger - smaller) / ((v + larger) * (v + smaller))


def best_gap_variance(larger: ArrayLike, smaller: ArrayLike) -> Array:
    r"""Noise variance at which two subspaces are told apart best.

    .. math:: v^* = s_1 s_2

    Args:
        larger: variance :math:`s_1^2`; arguments broadcast.
        smaller: variance :math:`s_2^2`, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ventura et al. 2025 (2410.05898); (2).
    """
    fix = "a gap to the surrounding space grows all the way down to v = 0"
    checks.require_positive("larger", larger, fix)
    checks.require_positive("smaller", smaller, fix)
    larger, smaller = floats(larger, smaller)
    return jnp.sqrt(larger) * jnp.sqrt(smaller)


def marchenko_pastur_edges(ratio: ArrayLike, variance: ArrayLike = 1.0) -> tuple[Array, Array]:
    r"""Edges of the non-zero covariance spectrum of a random frame.

    .. math:: s^2 (1 \mp \sqrt{m/n})^2

    Args:
        ratio: dimension of the manifold over that of the space, m/n in (0, 1].
        variance: :math:`s^2`; the entries of the frame have variance :math:`s^2/n`.

    Returns:
        The lower and the upper edge; arguments broadcast.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Marchenko, Pastur 1967; (3).
    """
    fix = "pass the dimension of the manifold over that of the space"
    checks.require("ratio", ratio, lambda r: (r > 0) & (r <= 1), "in (0, 1]", fix)
    checks.require_variance(variance)
    ratio, variance = floats(ratio, variance)
    root = jnp.sqrt(ratio)
    return variance * (1 - root) ** 2, variance * (1 + root) ** 2


def collapse_variance(log_n: ArrayLike, variances: ArrayLike) -> Array:
    r"""Noise variance at which the empirical score condenses at a typical state.

    .. math:: \log N = \tfrac12 \sum_i \log(1 + s_i^2/v_c)

    The collapse time of `theory.collapse.spectrum_collapse_time` in other coordinates. It is sharp
    for many directions; with a few, half-way participation in simulations lies 5 to 30 per cent
    above it for noised training points.

    Args:
        log_n: natural logarithm of the number of points, shape (...).
        variances: variances of the data, one for each direction, shape (..., d); zeros allowed.

    Returns:
        Shape (...); 0 if all variances are. NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2025 (2502.09578); (4).
    """
    checks.require_variance(variances, "variances")
    return jnp.expm1(2 * spectrum_collapse_time(log_n, variances))


def subspace_collapse_variances(log_n: ArrayLike, variances: ArrayLike, dims: ArrayLike) -> Array:
    r"""Noise variance at which each subspace would condense if it were alone.

    .. math:: v_k = s_k^2/(N^{2/d_k} - 1)

    Args:
        log_n: natural logarithm of the number of points; arguments broadcast.
        variances: variance of each subspace.
        dims: dimension of each subspace.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2025 (2502.09578); (5).
    """
    _require_points(log_n)
    checks.require_variance(variances, "variances")
    checks.require_dimension(dims, "dims")
    log_n, variances, dims = floats(log_n, variances, dims)
    return variances * jnp.exp(-2 * log_n / dims) / -jnp.expm1(-2 * log_n / dims)


def energy_collapse_variance(
    log_n: ArrayLike, quadratic: ArrayLike, fourth: ArrayLike, gamma: ArrayLike = 1.0
) -> Array:
    r"""Noise variance of condensation if the energies were Gaussian (approximation).

    .. math:: v_c(x) = \Big[\frac{\gamma\,\frac12\mathrm{tr}\,S^2 + x^\top S x}{2\log N}\Big]^{1/2}

    Args:
        log_n: natural logarithm of the number of points; arguments broadcast.
        quadratic: :math:`x^\top S x` of the state.
        fourth: :math:`\mathrm{tr}\,S^2 = \sum_i s_i^4`.
        gamma: 1 for Gaussian data, 0 for data of unit norm.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2024 (2410.08727); (6).
    """
    _require_points(log_n)
    checks.require_nonnegative("quadratic", quadratic, "pass x S x of a covariance S")
    checks.require_nonnegative("fourth", fourth, "pass the sum of squared variances")
    checks.require_nonnegative("gamma", gamma, "pass 1, or 0 for data of unit norm")
    log_n, quadratic, fourth, gamma = floats(log_n, quadratic, fourth, gamma)
    return _root(0.5 * gamma * fourth + quadratic, 2 * log_n)


def direction_collapse_variances(
    log_n: ArrayLike, variances: ArrayLike, gamma: ArrayLike = 1.0
) -> Array:
    r"""`energy_collapse_variance` at the state of squared norm v along each direction.

    .. math:: 2\log N\,v^2 - s_i^2 v - \tfrac\gamma2\sum_j s_j^4 = 0

    Args:
        log_n: natural logarithm of the number of points, shape (...).
        variances: variances of the data, one for each direction, shape (..., d).
        gamma: 1 for Gaussian data, 0 for data of unit norm, shape (...).

    Returns:
        Shape (..., d).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2024 (2410.08727); (7).
    """
    _require_points(log_n)
    checks.require_variance(variances, "variances")
    checks.require_nonnegative("gamma", gamma, "pass 1, or 0 for data of unit norm")
    log_n, variances, gamma = floats(log_n, variances, gamma)
    log_n, gamma = log_n[..., None], gamma[..., None]
    fourth = jnp.sum(variances**2, axis=-1, keepdims=True)
    inside = variances**2 + 4 * log_n * gamma * fourth
    root = jnp.sqrt(jnp.where(inside > 0, inside, 1))
    return (variances + jnp.where(inside > 0, root, 0)) / (4 * log_n)


def energy_participation(noise_variance: ArrayLike, collapse: ArrayLike) -> Array:
    r"""Participation ratio of Gaussian energies below their condensation.

    .. math:: Y_2 = (1 - v/v_c)_+

    The limit of many points; the approach to it is logarithmic (`finite_size_participation`).

    Args:
        noise_variance: noise variance v; arguments broadcast.
        collapse: noise variance :math:`v_c` of condensation.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; (6).
    """
    _require_noise(noise_variance)
    _require_noise(collapse, "collapse")
    noise_variance, collapse = floats(noise_variance, collapse)
    return jnp.maximum(0, 1 - noise_variance / collapse)


def finite_size_participation(ratio: ArrayLike, log_n: ArrayLike) -> Array:
    r"""Exact participation ratio of N independent Gaussian energies.

    .. math:: \Big\langle \sum_\mu w_\mu^2\Big\rangle, \quad
       w \propto e^{\xi\sqrt{2\log N}\,v_c/v}

    At N = 1000 it is .58 at half the condensation, where the limit is .5.

    Args:
        ratio: :math:`v/v_c`; arguments broadcast.
        log_n: natural logarithm of the number of points.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Derrida 1981; `theory.finite_random_energy`.
    """
    checks.require_positive("ratio", ratio, "pass v / v_c")
    _require_points(log_n)
    ratio, log_n = floats(ratio, log_n)
    return gaussian_partition_averages(jnp.sqrt(2 * log_n) / ratio, log_n).participation


def plotted_singular_values(
    noise_variance: ArrayLike, log_n: ArrayLike, variances: ArrayLike, gamma: ArrayLike = 1.0
) -> Array:
    r"""Singular values as plotted from Gaussian energies: the reproduction of a figure.

    .. math:: \Big[(v + s_i^2)^{-2} + G^2(\varphi_0 + \varphi_i)^2\Big]^{1/2}

    Not a prediction of a simulation; see the module's docstring for the symbols.

    Args:
        noise_variance: noise variance v, shape (...).
        log_n: natural logarithm of the number of points, shape (...).
        variances: variances of the data, one for each direction, shape (..., d).
        gamma: 1 for Gaussian data, 0 for data of unit norm, shape (...).

    Returns:
        Shape (..., d), in the order of ``variances``.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2024 (2410.08727); (8).
    """
    _require_noise(noise_variance)
    collapse = direction_collapse_variances(log_n, variances, gamma)
    noise_variance, log_n, variances, gamma = floats(noise_variance, log_n, variances, gamma)
    fourth = jnp.sum(variances**2, axis=-1)
    centre = _root(0.5 * gamma * fourth, 2 * log_n)
    v = noise_variance[..., None]
    strength = jnp.sum(variances / (v**2 * (v + variances)), axis=-1, keepdims=True)
    condensed = _beyond(v, collapse) + _beyond(v, centre[..., None])
    return jnp.sqrt((v + variances) ** -2 + (strength * condensed) ** 2)


def unit_norm_variances(variances: ArrayLike) -> Array:
    r"""Covariance eigenvalues of Gaussian data divided by their norm.

    .. math:: c_i = E\frac{y_i^2}{|y|^2}
       = \int_0^\infty \frac{s_i^2}{1 + 2\lambda s_i^2} \prod_j (1 + 2\lambda s_j^2)^{-1/2} d\lambda

    Their sum is 1. Seen from the centre such data show :math:`v|J|_i = |1 - c_i/v|`, whose order
    changes at :math:`v = (c_1 + c_2)/2` in the population already.

    Args:
        variances: variances before the division, shape (..., d), two of them positive at least.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: the discussion of 2410.08727; the integral is :math:`1/q = \int e^{-\lambda q}d\lambda`.
    """
    checks.require_variance(variances, "variances")
    (variances,) = floats(variances)
    relative = variances / jnp.max(variances, axis=-1, keepdims=True)
    # analytic in log(lambda) within pi of the real axis: the error of the sum is exp(-2 pi^2 / h)
    step = 0.5
    nodes = jnp.arange(-40.0, 80.0, step, dtype=relative.dtype)
    growth = 2 * jnp.exp(nodes) * relative[..., None]  # (..., d, nodes)
    weight = jnp.exp(nodes - 0.5 * jnp.sum(jnp.log1p(growth), axis=-2))
    return step * jnp.sum(relative[..., None] * weight[..., None, :] / (1 + growth), axis=-1)


def _beyond(v: Array, collapse: Array) -> Array:
    """:math:`(1/v - 1/v_c)_+`; absent where nothing condenses."""
    exists = collapse > v
    return jnp.where(exists, 1 / v - 1 / jnp.where(exists, collapse, 1), 0)


def _root(numerator: Array, denominator: Array) -> Array:
    square = numerator / denominator
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def _require_points(log_n: ArrayLike) -> None:
    checks.require_positive("log_n", log_n, "two training points are needed")


def _require_noise(value: ArrayLike, name: str = "noise_variance") -> None:
    checks.require_positive(name, value, "pass the variance of the noise, not its deviation")
