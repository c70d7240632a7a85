r"""Clone agreement: the probability that two trajectories from one state end in the same class.

Two backward trajectories that share the state :math:`x_t` and have independent noise are two
draws from the posterior, so they agree with probability

.. math:: \phi(t) = E_{x \sim P_t} \sum_c p_c(x)^2 = E\, p_{c^*}(x), \tag{1}

where :math:`c^*` is the true class behind :math:`x`: a draw from the posterior and the truth
have the same law.

**Two Gaussians** :math:`N(\pm m, \sigma^2 I_d)` of weights :math:`w, 1 - w` depend on

.. math:: \kappa = \frac{|m|e^{-t}}{\sqrt{\Gamma_t}}, \qquad \Gamma_t = \Delta_t + \sigma^2
   e^{-2t}, \tag{2}

.. math:: \phi = \sum_\pm w_\pm E_z\Big[\tfrac12 + \tfrac12\tanh^2\Big(\pm\kappa^2 + \kappa z
   + \tfrac12\log\frac{w}{1-w}\Big)\Big]. \tag{3}

**Different covariances.** With :math:`\delta = \Sigma_1 - \Sigma_2` and
:math:`\bar C = \Delta_t I + \frac12 e^{-2t}(\Sigma_1 + \Sigma_2)` the log-likelihood ratio is
:math:`N(\pm2\kappa^2, 4\kappa^2)`, where

.. math:: \kappa^2 \simeq \frac{e^{-2t}}{4}(m_1 - m_2)^\top\bar C^{-1}(m_1 - m_2)
   + \frac{e^{-4t}}{8}\mathrm{Tr}[(\bar C^{-1}\delta)^2], \tag{4}

for large :math:`d`, if no single direction of :math:`e^{-2t}\bar C^{-1}\delta` is of order one.
Classes that differ by an isotropic variance only have the exact log ratio

.. math:: \log\frac{p_1}{p_2} = \log\frac{w}{1-w} - \frac d2\log\frac{\Gamma_1}{\Gamma_2}
   - \frac{|x|^2}{2}(\Gamma_1^{-1} - \Gamma_2^{-1}), \qquad |x|^2 \sim \Gamma_c\chi^2_d. \tag{5}

Everything but (4) is exact for every :math:`d`.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Sclocchi, Favero, Wyart 2024
(2402.16991).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks, quadrature
from theory.channel import binary_mmse, state_variance
from theory.checks import Array, elementwise, floats
from theory.roots import find_root


def clone_agreement(kappa: ArrayLike) -> Array:
    r"""Clone agreement of two balanced classes.

    .. math:: \phi = \tfrac12 + \tfrac12 E_z\tanh^2(\kappa^2 + \kappa z)

    1/2 at kappa = 0, 0.7752 at kappa = 1.

    Args:
        kappa: distance of a class centre from the middle in units of the standard deviation of the
            state, any shape.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    (kappa,) = floats(kappa)
    return 1 - 0.5 * binary_mmse(kappa**2)


def mixture_kappa(
    t: ArrayLike, mean_norm: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Distance of a class centre from the middle, in standard deviations of the noised state.

    .. math:: \kappa = |m| e^{-t} / \sqrt{\Delta_t + \sigma^2 e^{-2t}}

    Infinite at t = 0 for zero variance. Arguments broadcast.

    Args:
        t: time.
        mean_norm: norm of a class centre, the classes being at plus and minus it.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    checks.require_mean_norm(mean_norm)
    t, mean_norm, variance, temperature = floats(t, mean_norm, variance, temperature)
    spread = state_variance(t, variance, temperature)
    sharp = spread == 0
    kappa = mean_norm * jnp.exp(-t) / jnp.sqrt(jnp.where(sharp, 1, spread))
    return jnp.where(sharp & (mean_norm > 0), jnp.inf, kappa)


def weighted_clone_agreement(kappa: ArrayLike, weight: ArrayLike) -> Array:
    r"""Clone agreement of two classes of unequal weight and equal covariance.

    .. math:: \phi = \sum_\pm w_\pm E_z\Big[\tfrac12
       + \tfrac12\tanh^2\Big(\pm\kappa^2 + \kappa z + \tfrac12\log\frac{w}{1-w}\Big)\Big]

    At kappa = 0 it is the sum of the squared weights. Arguments broadcast.

    Args:
        kappa: half the distance of the centres in units of the standard deviation of the state.
        weight: fraction of the data in the first class, between 0 and 1.

    Raises:
        ValueError: for concrete weights outside (0, 1).

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for equal weights; (3).
    """
    checks.require_weight(weight)
    return _weighted(*floats(kappa, weight))


def mixture_clone_agreement(
    t: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Clone agreement of two Gaussian classes at plus and minus a centre, at time t.

    .. math:: \phi(t) = E_{x \sim P_t}[p_1(x)^2 + p_2(x)^2]

    Exact for every dimension. Arguments broadcast.

    Args:
        t: time; the limit for large t is the sum of the squared weights.
        mean_norm: norm of a class centre.
        variance: variance per coordinate within a class.
        weight: fraction of the data in the first class, between 0 and 1.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2), (3).
    """
    checks.require_time(t)
    checks.require_weight(weight)
    values = floats(t, mean_norm, variance, weight, temperature)
    t, mean_norm, variance, weight, temperature = values
    return weighted_clone_agreement(mixture_kappa(t, mean_norm, variance, temperature), weight)


def kappa_of_agreement(level: ArrayLike = 0.5504, weight: ArrayLike = 0.5) -> Array:
    r"""The kappa at which the normalised clone agreement of two classes has a given value.

    .. math:: \frac{\phi(\kappa) - \sum_c w_c^2}{1 - \sum_c w_c^2} = \text{level}

    The default level belongs to kappa = 1 of balanced classes, where phi = 0.7752.

    Args:
        level: between 0 and 1; arguments broadcast.
        weight: fraction of the data in the first class, between 0 and 1.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    checks.require_level(level)
    checks.require_weight(weight)
    return _kappa(*floats(level, weight))


def mixture_crossing_time(
    mean_norm: ArrayLike,
    variance: ArrayLike,
    weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
    level: ArrayLike = 0.5504,
) -> Array:
    r"""Time at which the clone agreement of two Gaussian classes crosses a level.

    .. math:: \frac{\phi(t) - \sum_c w_c^2}{1 - \sum_c w_c^2} = \text{level}

    NaN where the classes overlap so much that the level is not reached at t = 0.

    Args:
        mean_norm: norm of a class centre; arguments broadcast.
        variance: variance per coordinate within a class.
        weight: fraction of the data in the first class, between 0 and 1.
        temperature: temperature of the process.
        level: normalised agreement between 0 and 1; the default is phi = 0.775 at equal weights.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2), (3).
    """
    checks.require_mean_norm(mean_norm)
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    values = floats(mean_norm, variance, weight, temperature, level)
    checks.require_weight(weight)
    checks.require_level(level)
    mean_norm, variance, weight, temperature, level = values
    kappa = kappa_of_agreement(level, weight)
    # (2) solved for exp(2t) - 1
    beyond = (mean_norm**2 / kappa**2 - variance) / temperature
    exists = beyond > 0
    return jnp.where(exists, 0.5 * jnp.log1p(jnp.where(exists, beyond, 1)), jnp.nan)


def effective_kappa(
    t: ArrayLike,
    mean_difference: ArrayLike,
    covariance_a: ArrayLike,
    covariance_b: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""The kappa of two classes that differ in mean and covariance, for large dimension.

    .. math:: \kappa^2 \simeq \frac{e^{-2t}}{4}(m_1 - m_2)^\top\bar C^{-1}(m_1 - m_2)
       + \frac{e^{-4t}}{8}\mathrm{Tr}[(\bar C^{-1}\delta)^2]

    To be used in `clone_agreement`. One direction whose variance differs by order one breaks it.
    Its derivatives are infinite where the classes coincide.

    Args:
        t: time, a scalar.
        mean_difference: difference of the centres, shape (d,).
        covariance_a: covariance of the first class, shape (d, d), or its diagonal, shape (d,).
        covariance_b: covariance of the second class, in the same form.
        temperature: temperature of the process, a scalar.

    Raises:
        ValueError: for concrete arguments out of range, or forms that differ.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), appendix; (4).
    """
    checks.require_time(t)
    checks.require_temperature(temperature)
    values = floats(t, mean_difference, covariance_a, covariance_b, temperature)
    t, mean_difference, covariance_a, covariance_b, temperature = values
    dim = mean_difference.shape[-1]
    if covariance_a.shape != covariance_b.shape or covariance_a.shape not in {(dim,), (dim, dim)}:
        raise ValueError(
            f"covariances have shapes {covariance_a.shape} and {covariance_b.shape}, expected both "
            f"({dim},) or both ({dim}, {dim}); pass two diagonals or two matrices"
        )
    signal = jnp.exp(-2 * t)
    noise = -temperature * jnp.expm1(-2 * t)
    mean, difference = 0.5 * (covariance_a + covariance_b), covariance_a - covariance_b
    if covariance_a.ndim == 1:
        common = noise + signal * mean
        shift = jnp.sum(mean_difference**2 / common)
        shape = jnp.sum((difference / common) ** 2)
    else:
        common = noise * jnp.eye(dim, dtype=mean.dtype) + signal * mean
        solved = jnp.linalg.solve(common, jnp.column_stack([difference, mean_difference]))
        shift = mean_difference @ solved[:, -1]
        shape = jnp.sum(solved[:, :-1] * solved[:, :-1].T)
    return jnp.sqrt(signal * shift / 4 + signal**2 * shape / 8)


def variance_clone_agreement(
    t: ArrayLike,
    dim: ArrayLike,
    variance_a: ArrayLike,
    variance_b: ArrayLike,
    weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Clone agreement of two centred Gaussian classes that differ in their variance only.

    .. math:: \phi = \sum_c w_c E_{q \sim \chi^2_d}[p_1^2 + p_2^2], \qquad |x|^2 = \Gamma_c q

    with (5); exact for every dimension. Arguments broadcast.

    Args:
        t: time, positive unless both variances are.
        dim: number of coordinates.
        variance_a: variance per coordinate of the first class.
        variance_b: variance per coordinate of the second class.
        weight: fraction of the data in the first class, between 0 and 1.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), appendix; (5).
    """
    checks.require_time(t)
    checks.require_dimension(dim)
    checks.require_variance(variance_a, "variance_a")
    checks.require_variance(variance_b, "variance_b")
    checks.require_weight(weight)
    checks.require_temperature(temperature)
    return _variance_only(*floats(t, dim, variance_a, variance_b, weight, temperature))


def _weighted_kernel(kappa: Array, weight: Array) -> Array:
    kappa = jnp.minimum(jnp.abs(kappa), 1e3)  # certain beyond; keeps infinite kappa finite
    bias = 0.5 * (jnp.log(weight) - jnp.log1p(-weight))
    z, nodes = quadrature.gaussian_nodes(dtype=kappa.dtype)
    first = jnp.tanh(kappa**2 + kappa * z + bias) ** 2
    second = jnp.tanh(-(kappa**2) + kappa * z + bias) ** 2
    return 0.5 + 0.5 * jnp.sum(nodes * (weight * first + (1 - weight) * second))


def _kappa_kernel(level: Array, weight: Array) -> Array:
    never = weight**2 + (1 - weight) ** 2

    def excess(x: Array) -> Array:
        return (_weighted_kernel(jnp.exp(x), weight) - never) / (1 - never) - level

    lower, upper = jnp.full_like(level, -12.0), jnp.full_like(level, 4.0)
    return jnp.exp(find_root(excess, lower, upper).value)


def _variance_kernel(
    t: Array, dim: Array, variance_a: Array, variance_b: Array, weight: Array, temperature: Array
) -> Array:
    signal, noise = jnp.exp(-2 * t), -temperature * jnp.expm1(-2 * t)
    a, b = noise + signal * variance_a, noise + signal * variance_b
    q, nodes = quadrature.chi_square_nodes(dim, 384)
    bias = jnp.log(weight) - jnp.log1p(-weight) - 0.5 * dim * jnp.log(a / b)

    def agreement(radius: Array) -> Array:
        return 0.5 + 0.5 * jnp.tanh(0.5 * (bias - 0.5 * radius * (1 / a - 1 / b))) ** 2

    return jnp.sum(nodes * (weight * agreement(a * q) + (1 - weight) * agreement(b * q)))


_weighted = elementwise(_weighted_kernel)
_kappa = elementwise(_kappa_kernel)
_variance_only = elementwise(_variance_kernel)
