r"""Collapse times: when the empirical score begins to pull a trajectory to one training point.

A noised training point :math:`x = e^{-t}a_1 + \sqrt{\Delta_t}z` compares the weight :math:`Z_1`
of its own datum with the weights of the :math:`n - 1` others, a Random Energy Model whose
energies are squared distances. The own datum wins once :math:`n < e^{I(a; x_t)}`, so the
collapse time solves

.. math:: I(a; x_{t_C}) = \log n, \tag{1}

the zero of the excess entropy. For Gaussian data with eigenvalues :math:`\lambda_i`

.. math:: \log n = \tfrac12 \sum_i \log\Big(1 + \frac{\lambda_i/T}{e^{2t_C} - 1}\Big), \tag{2}

which for :math:`\lambda_i = \sigma^2` reads

.. math:: t_C = \tfrac12 \log\Big[1 + \frac{\sigma^2/T}{n^{2/d} - 1}\Big]. \tag{3}

A mixture adds the information about the class; well below speciation that is :math:`\log 2`, so
:math:`n \to n/2`. For fair signs, :math:`I_1(t_C) = \alpha` has no root above the entropy
:math:`\log 2` per spin. Sitting exactly on :math:`x = e^{-t}a_1`, without noise, the threshold is

.. math:: \alpha = \tfrac12 \log(1 + u) + \tfrac12 \frac{u}{1 + u}, \qquad
   u = \sigma^2 e^{-2t}/\Delta_t, \tag{4}

reached earlier on the way back, at :math:`t_o > t_C`: training points become attractive before
trajectories condense on them.

*Two levels*, :math:`a = c + b`, with :math:`e^{\alpha_1 d}` clusters of variance
:math:`\sigma_1^2` and :math:`e^{\alpha_2 d}` points in each of variance :math:`\sigma_2^2`: with
:math:`I_1 = \frac12\log(1 + \frac{\sigma_{1,t}^2}{\Delta + \sigma_{2,t}^2})` and
:math:`I_2 = \frac12\log(1 + \sigma_{2,t}^2/\Delta)`, the cluster is found where
:math:`I_1 = \alpha_1` and the sample where :math:`I_2 = \alpha_2` if that order is right, and
otherwise both at

.. math:: I_1 + I_2 = \alpha_1 + \alpha_2. \tag{5}

All thresholds are sharp for large :math:`d` at fixed :math:`\alpha = \log n/d`; at finite size
they locate the zero of an exact quantity (the excess entropy) and not a transition.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Achilli et al. 2025 (2502.09578).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import binary_information, mixture_information
from theory.checks import Array, elementwise, floats
from theory.excess_entropy import (
    gaussian_excess_entropy,
    mixture_excess_entropy,
    spectrum_excess_entropy,
)
from theory.finite_size import (
    expected_softplus,
    gaussian_approximation_of_own,
    gaussian_empirical_excess_entropy,
    mixture_empirical_excess_entropy,
    nearest_is_own_probability,
)
from theory.roots import find_root

__all__ = [
    "TwoLevelTimes",
    "expected_softplus",
    "gaussian_approximation_of_own",
    "gaussian_collapse_time",
    "gaussian_empirical_excess_entropy",
    "gaussian_excess_entropy",
    "low_rank_collapse_time",
    "mixture_collapse_time",
    "mixture_empirical_excess_entropy",
    "mixture_excess_entropy",
    "nearest_is_own_probability",
    "separated_mixture_collapse_time",
    "spectrum_collapse_time",
    "spectrum_excess_entropy",
    "spin_collapse_time",
    "trap_onset_time",
    "two_level_collapse_times",
]


class TwoLevelTimes(NamedTuple):
    """Collapse times of clustered data; equal where both happen in one transition."""

    cluster: Array
    """When the cluster of the trajectory is decided."""
    sample: Array
    """When the training point is decided."""


def gaussian_collapse_time(
    log_n: ArrayLike, dim: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Collapse time of isotropic Gaussian data.

    .. math:: t_C = \tfrac12 \log\Big[1 + \frac{\sigma^2/T}{n^{2/d} - 1}\Big]

    It tends to 0 with the variance. Arguments broadcast.

    Args:
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    checks.require_size(log_n, dim)
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    log_n, dim, variance, temperature = floats(log_n, dim, variance, temperature)
    # exp(-2a) / (1 - exp(-2a)) does not overflow for very many points
    odds = jnp.exp(-2 * log_n / dim) / -jnp.expm1(-2 * log_n / dim)
    return 0.5 * jnp.log1p(variance / temperature * odds)


def low_rank_collapse_time(
    log_n: ArrayLike, rank: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Collapse time of Gaussian data in a subspace, whatever the dimension around it.

    .. math:: t_C = \tfrac12 \log\Big[1 + \frac{\sigma^2/T}{n^{2/r} - 1}\Big]

    Args:
        log_n: natural logarithm of the number of training points.
        rank: dimension of the subspace.
        variance: variance per direction of the subspace.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2025 (2502.09578); (2) with r equal eigenvalues and zeros.
    """
    checks.require_dimension(rank, "rank")
    return gaussian_collapse_time(log_n, rank, variance, temperature)


def spectrum_collapse_time(
    log_n: ArrayLike, eigenvalues: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Collapse time of Gaussian data with a given spectrum.

    .. math:: \log n = \tfrac12 \sum_i \log\Big(1 + \frac{\lambda_i/T}{e^{2t_C} - 1}\Big)

    Zero eigenvalues are allowed and do not count; with all of them zero the time is 0, as it is
    for zero variance. For data that are not Gaussian it is an upper estimate.

    Args:
        log_n: natural logarithm of the number of training points, shape (...).
        eigenvalues: eigenvalues of the covariance, shape (..., d), in any order.
        temperature: temperature of the process, shape (...).

    Returns:
        Shape (...). NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    checks.require_positive("log_n", log_n, "two training points are needed")
    checks.require_nonnegative("eigenvalues", eigenvalues, "clip rounding errors at 0")
    checks.require_temperature(temperature)
    return _spectrum(*floats(log_n, eigenvalues, temperature))


def mixture_collapse_time(
    log_n: ArrayLike,
    dim: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Collapse time of a balanced mixture of two Gaussians.

    .. math:: \frac d2 \log(1 + u) + I_\mathrm{mix}(\kappa) = \log n

    Args:
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        mean_norm: norm of a class centre, the classes being at plus and minus it.
        variance: variance per coordinate within a class, positive.
        temperature: temperature of the process.

    Returns:
        The time; arguments broadcast. NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    checks.require_size(log_n, dim)
    checks.require_mean_norm(mean_norm)
    checks.require_positive("variance", variance, "two point masses hold log 2 nats only")
    checks.require_temperature(temperature)
    return _mixture(*floats(log_n, dim, mean_norm, variance, temperature))


def separated_mixture_collapse_time(
    log_n: ArrayLike, dim: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Collapse time of a balanced mixture whose classes have separated before.

    .. math:: t_C = \tfrac12 \log\Big[1 + \frac{\sigma^2/T}{(n/2)^{2/d} - 1}\Big]

    The limit of `mixture_collapse_time` for distant centres. NaN for n <= 2: one point per class.

    Args:
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    checks.require_size(log_n, dim)
    log_n, dim, variance, temperature = floats(log_n, dim, variance, temperature)
    per_class = log_n - math.log(2)
    enough = per_class > 0
    time = gaussian_collapse_time(jnp.where(enough, per_class, 1), dim, variance, temperature)
    return jnp.where(enough, time, jnp.nan)


def spin_collapse_time(alpha: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Collapse time of independent fair signs.

    .. math:: I_1(\mathrm{snr}(t_C)) = \alpha

    0 for alpha >= log 2, where the training set holds every configuration: there is no collapse.

    Args:
        alpha: logarithm of the number of training points per spin, positive.
        temperature: temperature of the process.

    Returns:
        The time; arguments broadcast. NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    checks.require_positive("alpha", alpha, "pass log(n)/d of at least two points")
    checks.require_temperature(temperature)
    return _spin(*floats(alpha, temperature))


def trap_onset_time(alpha: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which training points become attractive, for a state sitting on one of them.

    .. math:: \alpha = \tfrac12 \log(1 + u) + \tfrac12 \frac{u}{1 + u}

    Args:
        alpha: logarithm of the number of training points per coordinate, positive.
        variance: variance per coordinate of Gaussian data.
        temperature: temperature of the process.

    Returns:
        The time; arguments broadcast. NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (4).
    """
    checks.require_positive("alpha", alpha, "pass log(n)/d of at least two points")
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    return _onset(*floats(alpha, variance, temperature))


def two_level_collapse_times(
    alphas: ArrayLike, variances: ArrayLike, temperature: ArrayLike = 1.0
) -> TwoLevelTimes:
    r"""Collapse times of clustered Gaussian data.

    .. math:: I_1(t_1) = \alpha_1, \; I_2(t_2) = \alpha_2 \text{ if } t_1 > t_2, \text{ else }
       I_1 + I_2 = \alpha_1 + \alpha_2

    Args:
        alphas: log number of clusters, and of points in a cluster, per coordinate, shape (..., 2).
        variances: variance of the cluster centres, and within a cluster, shape (..., 2).
        temperature: temperature of the process, shape (...).

    Returns:
        The pair (cluster, sample), each of shape (...). In the merged case both hold the single
        time; its condition is that clusters would be resolved no earlier than samples.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli et al. 2025 (2502.09578); (5).
    """
    checks.require_positive("alphas", alphas, "pass log(number)/d of at least two each")
    checks.require_variance(variances, "variances")
    checks.require_temperature(temperature)
    alphas, variances, temperature = floats(alphas, variances, temperature)
    if alphas.shape[-1:] != (2,) or variances.shape[-1:] != (2,):
        raise ValueError(
            f"alphas and variances have shapes {alphas.shape} and {variances.shape}, expected "
            "(..., 2); pass the values of clusters first, of points in a cluster second"
        )
    ratios = variances / temperature[..., None]
    per_level = ratios / jnp.expm1(2 * alphas)
    # with y = expm1(2t): I1 = a1 at y1 = r1/expm1(2 a1) - r2, and I2 = a2 at y2 = r2/expm1(2 a2)
    y1, y2 = per_level[..., 0] - ratios[..., 1], per_level[..., 1]
    single = jnp.sum(ratios, axis=-1) / jnp.expm1(2 * jnp.sum(alphas, axis=-1))
    apart = y1 > y2
    cluster, sample = jnp.where(apart, y1, single), jnp.where(apart, y2, single)
    return TwoLevelTimes(0.5 * jnp.log1p(cluster), 0.5 * jnp.log1p(sample))


def _log_expm1(x: Array) -> Array:
    return x + jnp.log(-jnp.expm1(-x))


def _time_of_log_snr(x: Array, temperature: Array) -> Array:
    return 0.5 * jax.nn.softplus(-x - jnp.log(temperature))


def _spectrum_kernel(log_n: Array, eigenvalues: Array, temperature: Array) -> Array:
    # in units of the largest eigenvalue, the unknown is x = log(snr lambda_max)
    largest = jnp.max(eigenvalues)
    empty = largest == 0
    scale = jnp.where(empty, 1, largest)
    present = eigenvalues > 0
    logs = jnp.where(present, jnp.log(jnp.where(present, eigenvalues, 1) / scale), -jnp.inf)
    count = jnp.maximum(jnp.sum(present), 1).astype(log_n.dtype)

    def excess(x: Array) -> Array:
        terms = jax.nn.softplus(jnp.where(present, logs, 0) + x)
        return 0.5 * jnp.sum(jnp.where(present, terms, 0)) - log_n

    # all directions as strong as the strongest, and the strongest alone
    lower = _log_expm1(2 * log_n / count) - 1e-6
    upper = _log_expm1(2 * log_n) + 1e-6
    x = find_root(excess, lower, upper).value - jnp.log(scale)
    return jnp.where(empty, 0, _time_of_log_snr(jnp.where(empty, 0, x), temperature))


def _mixture_kernel(
    log_n: Array, dim: Array, mean_norm: Array, variance: Array, temperature: Array
) -> Array:
    contrast = mean_norm / jnp.sqrt(variance)

    def excess(x: Array) -> Array:  # x = log u; kappa^2 = M^2/sigma^2 u/(1 + u)
        kappa = contrast * jnp.sqrt(jax.nn.sigmoid(x))
        return 0.5 * dim * jax.nn.softplus(x) + mixture_information(kappa) - log_n

    # the class holds at most log(1 + kappa^2)/2 <= log(1 + M^2/sigma^2 u)/2
    steepness = jnp.log(jnp.maximum(1, contrast**2))
    lower = _log_expm1(2 * log_n / (dim + 1)) - steepness - 1e-6
    upper = _log_expm1(2 * log_n / dim) + 1e-6
    x = find_root(excess, lower, upper).value
    return _time_of_log_snr(x - jnp.log(variance), temperature)


def _spin_kernel(alpha: Array, temperature: Array) -> Array:
    exists = alpha < math.log(2)
    level = jnp.where(exists, alpha, 0.5)

    def excess(x: Array) -> Array:
        return binary_information(jnp.exp(x)) - level

    # I <= log(1 + s)/2 from below; beyond s = 100 the information is log 2 to rounding
    x = find_root(excess, jnp.log(jnp.expm1(2 * level)) - 1e-6, jnp.log(100.0 + 0 * level)).value
    return jnp.where(exists, _time_of_log_snr(x, temperature), 0)


def _onset_kernel(alpha: Array, variance: Array, temperature: Array) -> Array:
    def excess(x: Array) -> Array:
        return 0.5 * (jax.nn.softplus(x) + jax.nn.sigmoid(x)) - alpha

    # u/(1 + u) lies between 0 and log(1 + u)
    x = find_root(excess, _log_expm1(alpha) - 1e-6, _log_expm1(2 * alpha) + 1e-6).value
    return 0.5 * jnp.log1p(variance / temperature * jnp.exp(-x))


_spectrum = elementwise(_spectrum_kernel, "(),(d),()->()")
_mixture = elementwise(_mixture_kernel)
_spin = elementwise(_spin_kernel)
_onset = elementwise(_onset_kernel)
