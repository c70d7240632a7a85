r"""How long a score with random features takes to generalise, and to memorise.

A score :math:`s_A(x) = \frac{A}{\sqrt p} \varsigma(\frac{Wx}{\sqrt d})` with a fixed Gaussian
:math:`W` and :math:`p = \psi_p d` features learns :math:`A` from :math:`n = \psi_n d` points of
covariance eigenvalues :math:`\lambda`, by gradient flow
:math:`\dot A = -d^2 \nabla_A L` of :math:`L = \frac{1}{nd} \sum_\mu E_z
|\sqrt{\Delta_t} s_A(x_\mu) + z|^2` at one diffusion time :math:`t`,
:math:`\Delta_t = 1 - e^{-2t}`. Modes of the matrix :math:`U` of the features' second moments relax
independently,

.. math:: e^{-\tau/\tau_\lambda}, \qquad \tau_\lambda = \frac{\psi_p}{2 \Delta_t \lambda_U}, \tag{1}

and for large :math:`d` the law of the eigenvalues is that of

.. math:: U = \frac{GG^\top}{n} + b^2 \frac{WW^\top}{d} + \bar s^2 I, \qquad
   G = e^{-t} a \frac{W}{\sqrt d} X + \bar v\, \Omega \tag{2}

with Gaussian :math:`\Omega` and, for :math:`S = \varsigma(e^{-t} \sigma g + \sqrt{\Delta_t} g')`,
:math:`\sigma^2 = \mathrm{mean}\,\lambda`, and :math:`h(g) = E_{g'} S`,

.. math:: a = \frac{e^t}{\sigma} E[Sg], \quad b = E[Sg'], \quad
   \bar v^2 = E(h - ES - a e^{-t} \sigma g)^2, \quad \bar s^2 = E(S - h - b g')^2. \tag{3}

The mean :math:`ES`, zero for odd activations, adds one eigenvalue and is left out. With
:math:`R = 1 + \frac{\psi_p}{\psi_n}(a^2 e^{-2t} r + \bar v^2 q)`,
:math:`h_\lambda = b^2 + \lambda a^2 e^{-2t}/R` and :math:`D_\lambda = 1 + q \psi_p h_\lambda` the
Stieltjes transform :math:`q(z) = \frac1p \mathrm{Tr}(U - z)^{-1}` solves

.. math:: r = q \Big\langle\frac{\lambda}{D_\lambda}\Big\rangle_\lambda, \qquad
   q \Big[\bar s^2 - z + \frac{\bar v^2}{R} + \Big\langle\frac{h_\lambda}{D_\lambda}
   \Big\rangle_\lambda\Big] = 1, \tag{4}

found by Newton's method, continued from large to small :math:`\mathrm{Im} z`. The density is
:math:`\mathrm{Im}\, q(\lambda_U + i0)/\pi` (5); between its edges the second equation gives
:math:`z` as a function of a real :math:`q`, which is stationary at an edge (6).

For :math:`p > n + d` a fraction :math:`1 - (n+d)/p` of the eigenvalues is :math:`\bar s^2`, and
where a gap opens, :math:`n` eigenvalues lie below it and :math:`d` above: the latter hold the
population and are learned first, in a time independent of :math:`n`; the former hold the
training set, and take a time :math:`\propto n`. Where :math:`n \gg d` they split again: :math:`d`
of them lie lower by about :math:`b^2/(a^2 e^{-2t} + b^2)`.

Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks
from theory.activation_moments import (
    Activation,
    Constants,
    activation_constants,
    require_training_time,
)
from theory.checks import Array, floats
from theory.feature_spectrum import Bulks, Law, find_bulks, transform

__all__ = [
    "Bulks",
    "Constants",
    "TrainingTimes",
    "activation_constants",
    "asymptotic_training_times",
    "bulks",
    "relaxation_time",
    "spectral_density",
    "stieltjes",
    "training_times",
]


class TrainingTimes(NamedTuple):
    """Training times between the modes that generalise and those that memorise."""

    generalisation: Array
    """Relaxation time of the slowest mode of the population."""
    memorisation: Array
    """Relaxation time of the fastest mode of the training set."""
    end: Array
    """Relaxation time of the slowest mode of the training set."""


def stieltjes(
    z: ArrayLike,
    t: ArrayLike,
    psi_p: ArrayLike,
    psi_n: ArrayLike,
    eigenvalues: ArrayLike | Sequence[float] = (1.0,),
    *,
    activation: Activation = jnp.tanh,
) -> Array:
    r"""Stieltjes transform of the spectrum that rules training.

    .. math:: q(z) = \lim \frac1p \mathrm{Tr}(U - z)^{-1}

    A real ``z`` is approached from above: the imaginary part is then pi times the density. NaN
    where Newton's method did not converge, as at an eigenvalue of positive weight.

    Args:
        z: complex, any shape; t, psi_p and psi_n broadcast against it.
        t: diffusion time, positive.
        psi_p: features per dimension, p/d.
        psi_n: training points per dimension, n/d.
        eigenvalues: of the covariance of the data, shape (..., k), equally weighted.
        activation: any function of one variable, elementwise.

    Returns:
        Complex, with the precision of the real arguments.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638); (4).
    """
    z = z if hasattr(z, "imag") else np.asarray(z)
    x, y, law = _law(t, psi_p, psi_n, eigenvalues, activation, z.real, z.imag)
    return transform(x, y, law)


def spectral_density(
    eigenvalue: ArrayLike,
    t: ArrayLike,
    psi_p: ArrayLike,
    psi_n: ArrayLike,
    eigenvalues: ArrayLike | Sequence[float] = (1.0,),
    *,
    activation: Activation = jnp.tanh,
) -> Array:
    r"""Density of the eigenvalues of U, without the single value of positive weight.

    .. math:: \rho(\lambda) = \frac1\pi \mathrm{Im}\, q(\lambda + i0)

    NaN at that value and where the solver did not converge.

    Args:
        eigenvalue: of U, any shape; t, psi_p and psi_n broadcast against it.
        t: diffusion time, positive.
        psi_p: features per dimension, p/d.
        psi_n: training points per dimension, n/d.
        eigenvalues: of the covariance of the data, shape (..., k), equally weighted.
        activation: any function of one variable, elementwise.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638); (5).
    """
    x, law = _law(t, psi_p, psi_n, eigenvalues, activation, eigenvalue)
    return jnp.maximum(jnp.imag(transform(x, jnp.zeros_like(x), law)), 0) / math.pi


def bulks(
    t: ArrayLike,
    psi_p: ArrayLike,
    psi_n: ArrayLike,
    eigenvalues: ArrayLike | Sequence[float] = (1.0,),
    *,
    activation: Activation = jnp.tanh,
) -> Bulks:
    r"""Intervals that hold the continuous part of the spectrum, and their weights.

    Edges are stationary points of :math:`z(q)`, (6). They are looked for between 400 points,
    equally spaced in :math:`\log(\lambda - \bar s^2)`: an interval or a gap narrower than 5 % of
    its distance from :math:`\bar s^2` may be missed.

    Args:
        t: diffusion time, positive, a scalar.
        psi_p: features per dimension, p/d, a scalar.
        psi_n: training points per dimension, n/d, a scalar.
        eigenvalues: of the covariance of the data, shape (k,), equally weighted.
        activation: any function of one variable, elementwise.

    Raises:
        ValueError: for concrete arguments out of range, or arrays of parameters.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638); (6).
    """
    (law,) = _law(t, psi_p, psi_n, eigenvalues, activation)
    if law.eigenvalues.ndim != 1 or any(v.ndim for v in law[:-1]):
        raise ValueError("bulks takes scalars and one spectrum; use vmap for several")
    return find_bulks(law)


def relaxation_time(eigenvalue: ArrayLike, t: ArrayLike, psi_p: ArrayLike) -> Array:
    r"""Training time in which a mode of the random-feature score is learned.

    .. math:: \tau_\lambda = \frac{\psi_p}{2 \Delta_t \lambda}

    Args:
        eigenvalue: of U, positive; arguments broadcast.
        t: diffusion time, positive.
        psi_p: features per dimension, p/d.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638); (1).
    """
    require_training_time(t)
    checks.require_positive("psi_p", psi_p, "pass the number of features over the dimension")
    checks.require("eigenvalue", eigenvalue, lambda v: ~(v <= 0), "positive", "U is positive")
    eigenvalue, t, psi_p = floats(eigenvalue, t, psi_p)
    return psi_p / (-2 * jnp.expm1(-2 * t) * eigenvalue)


def training_times(
    t: ArrayLike,
    psi_p: ArrayLike,
    psi_n: ArrayLike,
    eigenvalues: ArrayLike | Sequence[float] = (1.0,),
    *,
    activation: Activation = jnp.tanh,
) -> TrainingTimes:
    r"""Training times at which the score generalises, starts to memorise, and has memorised.

    .. math:: \tau = \frac{\psi_p}{2 \Delta_t \lambda}

    at the lowest eigenvalue of the d largest, and at the highest and the lowest of the n below.
    NaN where no gap separates the two kinds, or :math:`p \le n + d`.

    Args:
        t: diffusion time, positive, a scalar.
        psi_p: features per dimension, p/d, a scalar.
        psi_n: training points per dimension, n/d, a scalar.
        eigenvalues: of the covariance of the data, shape (k,), equally weighted.
        activation: any function of one variable, elementwise.

    Raises:
        ValueError: for concrete arguments out of range, or arrays of parameters.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
    """
    found = bulks(t, psi_p, psi_n, eigenvalues, activation=activation)
    t, psi_p, psi_n = floats(t, psi_p, psi_n)
    return _times(found, t, psi_p.astype(found.mass.dtype), psi_n.astype(found.mass.dtype))


def asymptotic_training_times(
    t: ArrayLike, psi_n: ArrayLike, *, activation: Activation = jnp.tanh
) -> TrainingTimes:
    r"""Training times for data of unit variance, many features per point and many points.

    .. math:: \tau_\mathrm{gen} = \frac{1}{2 \Delta_t (a^2 e^{-2t} + b^2)}, \qquad
       \tau_\mathrm{mem} = \tau_\mathrm{end} = \frac{\psi_n}{2 \Delta_t \bar v^2}

    for :math:`\psi_p \gg \psi_n \gg 1`, where both kinds of eigenvalues concentrate.

    Args:
        t: diffusion time, positive; arguments broadcast.
        psi_n: training points per dimension, n/d.
        activation: any function of one variable, elementwise.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Bonnaire, Urfin, Biroli, Mezard 2025 (2505.17638).
    """
    checks.require_positive("psi_n", psi_n, "pass the number of points over the dimension")
    t, psi_n = floats(t, psi_n)
    constants = activation_constants(t, activation=activation)
    rate = -2 * jnp.expm1(-2 * t)
    population = constants.a**2 * jnp.exp(-2 * t) + constants.b**2
    memorised = psi_n / (rate * constants.v_squared)
    generalised = jnp.broadcast_to(1 / (rate * population), memorised.shape)
    return TrainingTimes(generalised, memorised, memorised)


def _law(t, psi_p, psi_n, eigenvalues, activation: Activation, *others):
    """``others`` and the checked parameters of the spectrum, in one dtype."""
    checks.require_positive("psi_p", psi_p, "pass the number of features over the dimension")
    checks.require_positive("psi_n", psi_n, "pass the number of points over the dimension")
    fix = "pass the eigenvalues of a covariance, clipped at 0"
    checks.require_nonnegative("eigenvalues", eigenvalues, fix)
    t, psi_p, psi_n, eigenvalues, *rest = floats(t, psi_p, psi_n, eigenvalues, *others)
    if eigenvalues.ndim < 1:
        raise ValueError("eigenvalues has shape (), expected (..., k); pass a list of one")
    constants = activation_constants(t, jnp.mean(eigenvalues, -1), activation=activation)
    signal, noise = constants.a**2 * jnp.exp(-2 * t), constants.b**2
    law = Law(signal, noise, constants.v_squared, constants.s_squared, psi_p, psi_n, eigenvalues)
    return (*rest, law)


@jax.jit
def _times(found: Bulks, t: Array, psi_p: Array, psi_n: Array) -> TrainingTimes:
    lower, upper, mass = found
    present = ~jnp.isnan(mass)
    above = jnp.cumsum(jnp.where(present, mass, 0)[::-1])[::-1]
    population = present & (above <= (1 + 1e-3) / psi_p)
    first = jnp.argmax(population)  # the lowest bulk of the population
    apart = (jnp.abs(above[first] * psi_p - 1) < 1e-3) & (first > 0) & (psi_p > psi_n + 1)
    scale = psi_p / (-2 * jnp.expm1(-2 * t))

    def time(eigenvalue: Array) -> Array:
        return jnp.where(apart, scale / jnp.where(apart, eigenvalue, 1), jnp.nan)

    return TrainingTimes(time(lower[first]), time(upper[first - 1]), time(lower[0]))
