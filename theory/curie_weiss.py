r"""Curie-Weiss data: speciation and collapse of a magnet under noise.

Spins :math:`a \in \{\pm1\}^d` of the law :math:`P_0(a) \propto \exp[\beta M^2/2d + hM]`,
:math:`M = \sum_i a_i`: data that are not Gaussian, with two classes (the signs of :math:`M`) for
:math:`\beta > 1` and one below. Fields are per spin where the argument is called ``field`` and in
total, :math:`h_0 = dh`, where it is ``field_total``: a total field of order one decides the
weights of the classes,

.. math:: w_\pm \propto e^{\pm h_0m^*}, \tag{1}

a field per spin of order one leaves a single class. Magnetisation, branches and free energy are in
`theory.curie_weiss_magnet`, the exact sums and the speciation times of finite size in
`theory.curie_weiss_finite`; all their names are also found here.

**Speciation.** In a class, :math:`M` is Gaussian with mean :math:`\pm dm^*` and variance
:math:`d\chi` up to corrections of relative order :math:`1/d`. For the overlap
:math:`\mu = \sum_i x_i/\sqrt d` this is a mixture of two Gaussians with centres
:math:`\pm\sqrt d\,m^*` and variance :math:`\chi`, so that the clone agreement is the one of
`theory.clone_agreement` with

.. math:: \kappa = \frac{\sqrt d\,m^*e^{-t}}{\sqrt{\Delta_t + \chi e^{-2t}}} \tag{2}

and the weights (1), where :math:`\beta` is away from 1; near it shifts are large and negative.
Near speciation :math:`e^{-2t} \sim 1/d`, and the potential of the backward process is to leading
order, with :math:`A = \sqrt d\,m^*e^{-t}` and noise :math:`\sqrt{2T}\,dW`,

.. math:: U(\mu) = \tfrac12\mu^2 - 2T\log\cosh\Big(\frac{A\mu}T + h_0m^*\Big). \tag{3}

Its minima :math:`\mu = 2A\xi` solve the equation of a magnet again,

.. math:: \xi = \tanh(\beta_t\xi + h_0m^*), \qquad \beta_t = 2A^2/T, \tag{4}

which is critical at :math:`e^{2t} = 2dm^{*2}/T`, the large-:math:`d` form of
:math:`t_U = \frac12\mathrm{asinh}(\Lambda/T)`.

**Collapse.** In one pure state spins are independent with mean :math:`m^*`. Per spin, the noised
state has the entropy of two Gaussians and holds the information

.. math:: s(t) = S\Big[\sum_\pm \tfrac{1 \pm m^*}2 N(\pm e^{-t}, \Delta_t)\Big], \qquad
   I_1(t) = s(t) - \tfrac12\log(2\pi e\Delta_t), \tag{5}

which rises from 0 at large times to the entropy :math:`H_b` of the magnetisation at :math:`t = 0`;
what the class adds is of order :math:`1/d`. With :math:`\alpha = \log n/d`, collapse is at

.. math:: I_1(t_C) = \alpha, \tag{6}

and there is none if :math:`\alpha > H_b`: the training set holds typical states repeatedly.

Sources: Biroli, Mezard 2023 (2306.03518); Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.biased_sign import sign_information, snr_of_sign_information
from theory.checks import Array, floats
from theory.clone_agreement import mixture_kappa, weighted_clone_agreement
from theory.curie_weiss_finite import (
    asymptotic_top_eigenvalue,
    dynamic_speciation_time,
    exact_class_weight,
    exact_overlap_potential,
    log_partition,
    overlap_clone_agreement,
    spectral_speciation_time,
    static_speciation_time,
    top_eigenvalue,
)
from theory.curie_weiss_magnet import (
    Branches,
    LandauCoefficients,
    arguments,
    beta_of_pair_coupling,
    binary_entropy_of_magnetization,
    effective_field,
    free_energy_density,
    landau_coefficients,
    landau_free_energy,
    magnetization,
    magnetization_branches,
    spinodal_field,
    susceptibility,
)

__all__ = [
    "Branches",
    "LandauCoefficients",
    "asymptotic_top_eigenvalue",
    "beta_of_pair_coupling",
    "bifurcation",
    "binary_entropy_of_magnetization",
    "class_weight",
    "clone_agreement",
    "clone_kappa",
    "collapse_time",
    "dynamic_speciation_time",
    "effective_field",
    "entropy_density",
    "exact_class_weight",
    "exact_overlap_potential",
    "free_energy_density",
    "information",
    "landau_coefficients",
    "landau_free_energy",
    "log_partition",
    "magnetization",
    "magnetization_branches",
    "overlap_clone_agreement",
    "overlap_potential",
    "spectral_speciation_time",
    "spinodal_field",
    "static_speciation_time",
    "susceptibility",
    "top_eigenvalue",
]

_SATURATED = 1e4  # snr beyond which nothing changes in any floating dtype


def information(
    t: ArrayLike, beta: ArrayLike, field: ArrayLike = 0.0, temperature: ArrayLike = 1.0
) -> Array:
    r"""Information per spin between datum and noised state, in one pure state, in nats.

    .. math:: I_1(t) = s(t) - \tfrac12\log(2\pi e\Delta_t)

    The entropy of the magnetisation at t = 0, where all derivatives by the time vanish. By beta,
    the derivative at beta = 1 is that from below.

    Args:
        t: time; arguments broadcast.
        beta: inverse temperature of the data.
        field: field h per spin.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (5).
    """
    checks.require_time(t)
    checks.require_temperature(temperature)
    t, beta, field, temperature = floats(t, *arguments(beta, field), temperature)
    return sign_information(_resolved_snr(t, temperature), effective_field(beta, field))


def entropy_density(
    t: ArrayLike, beta: ArrayLike, field: ArrayLike = 0.0, temperature: ArrayLike = 1.0
) -> Array:
    r"""Differential entropy per spin of the noised state, in one pure state.

    .. math:: s(t) = S\Big[\tfrac{1+m^*}2 N(e^{-t}, \Delta_t) + \tfrac{1-m^*}2 N(-e^{-t},
       \Delta_t)\Big]

    Minus infinity at t = 0, where the state is discrete.

    Args:
        t: time; arguments broadcast.
        beta: inverse temperature of the data.
        field: field h per spin.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (5).
    """
    t, beta, field, temperature = floats(t, beta, field, temperature)
    noise = -temperature * jnp.expm1(-2 * t)
    known = information(t, beta, field, temperature)
    return known + 0.5 * (jnp.log(2 * jnp.pi * noise) + 1)


def collapse_time(
    alpha: ArrayLike, beta: ArrayLike, field: ArrayLike = 0.0, temperature: ArrayLike = 1.0
) -> Array:
    r"""Collapse time of Curie-Weiss data.

    .. math:: I_1(t_C) = \alpha

    0 for alpha of at least the entropy of the magnetisation: there is no collapse. Up to beta = 1
    it is the time of fair signs; the derivative by beta at 1 is that from below, zero.

    Args:
        alpha: logarithm of the number of training points per spin, positive; arguments broadcast.
        beta: inverse temperature of the data.
        field: field h per spin.
        temperature: temperature of the process.

    Returns:
        The time. NaN where the solver did not converge.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (6).
    """
    checks.require_positive("alpha", alpha, "pass log(n)/d of at least two points")
    checks.require_temperature(temperature)
    alpha, beta, field, temperature = floats(alpha, *arguments(beta, field), temperature)
    ratio = snr_of_sign_information(alpha, effective_field(beta, field))
    return 0.5 * jnp.log1p(1 / (temperature * ratio))


def class_weight(beta: ArrayLike, field_total: ArrayLike = 0.0) -> Array:
    r"""Weight of the class of positive magnetisation, for large d.

    .. math:: w_+ = \frac1{1 + e^{-2h_0m^*}}

    NaN for beta <= 1, where there are no classes. The finite-size value is `exact_class_weight`.

    Args:
        beta: inverse temperature of the data; arguments broadcast.
        field_total: total field h0, d times the field per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (1).
    """
    beta, field_total = arguments(beta, field_total)
    weight = jax.nn.sigmoid(2 * field_total * magnetization(beta))
    return jnp.where(beta > 1, weight, jnp.nan)


def clone_kappa(
    t: ArrayLike, dim: ArrayLike, beta: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Distance of a class from the middle, in standard deviations of the noised overlap.

    .. math:: \kappa = \frac{\sqrt d\,m^*e^{-t}}{\sqrt{\Delta_t + \chi e^{-2t}}}

    NaN for beta <= 1, where there are no classes.

    Args:
        t: time; arguments broadcast.
        dim: number of spins.
        beta: inverse temperature of the data.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for the classes of a magnet;
    (2).
    """
    checks.require_time(t)
    checks.require_temperature(temperature)
    checks.require_dimension(dim)
    t, dim, beta, temperature = floats(t, dim, *arguments(beta), temperature)
    ordered = beta > 1
    inside = jnp.where(ordered, beta, 2)
    distance = jnp.sqrt(dim) * magnetization(inside)
    kappa = mixture_kappa(t, distance, susceptibility(inside), temperature)
    return jnp.where(ordered, kappa, jnp.nan)


def clone_agreement(
    t: ArrayLike,
    dim: ArrayLike,
    beta: ArrayLike,
    field_total: ArrayLike = 0.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Probability that two clones end with magnetisations of equal sign.

    .. math:: \phi = \sum_\pm w_\pm E_z\Big[\tfrac12
       + \tfrac12\tanh^2(\pm\kappa^2 + \kappa z + h_0m^*)\Big]

    The error is O(1/d) where beta is away from 1, about -0.35/d at kappa = 1 for beta = 1.5, and
    large and negative near it, where `overlap_clone_agreement` still holds. NaN for beta <= 1,
    where there are no classes.

    Args:
        t: time; arguments broadcast.
        dim: number of spins.
        beta: inverse temperature of the data.
        field_total: total field h0, d times the field per spin.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), for the classes of a magnet;
    (1), (2).
    """
    t, dim, beta, field_total, temperature = floats(
        t, dim, *arguments(beta, field_total), temperature
    )
    kappa = clone_kappa(t, dim, beta, temperature)
    weight = class_weight(beta, field_total)
    absent = jnp.isnan(kappa)
    least = jnp.finfo(weight.dtype).eps  # a class may be as good as certain
    weight = jnp.where(absent, 0.5, jnp.clip(weight, least, 1 - least))
    agreement = weighted_clone_agreement(jnp.where(absent, 1, kappa), weight)
    return jnp.where(absent, jnp.nan, agreement)


def overlap_potential(
    mu: ArrayLike,
    t: ArrayLike,
    dim: ArrayLike,
    beta: ArrayLike,
    field_total: ArrayLike = 0.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Backward potential of the overlap, to leading order near speciation.

    .. math:: U(\mu) = \tfrac12\mu^2
       - 2T\log\cosh\Big(\frac{\sqrt d\,e^{-t}m^*\mu}T + h_0m^*\Big)

    with noise :math:`\sqrt{2T}\,dW`. Up to a constant, the error at fixed
    :math:`t - \frac12\log d` is O(1/d) where beta is away from 1; `exact_overlap_potential` has
    none. Arguments broadcast.

    Args:
        mu: overlap, the sum of the state over the square root of the number of spins.
        t: time.
        dim: number of spins.
        beta: inverse temperature of the data.
        field_total: total field h0, d times the field per spin.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (3).
    """
    mu, temperature = floats(mu, temperature)
    amplitude, bias, temperature = _near_speciation(t, dim, beta, field_total, temperature)
    x = amplitude * mu / temperature + bias
    log_cosh = jnp.logaddexp(x, -x) - jnp.log(jnp.asarray(2, x.dtype))
    return 0.5 * mu**2 - 2 * temperature * log_cosh


def bifurcation(
    t: ArrayLike,
    dim: ArrayLike,
    beta: ArrayLike,
    field_total: ArrayLike = 0.0,
    temperature: ArrayLike = 1.0,
) -> Branches:
    r"""Stationary points of the leading-order potential of the overlap: the bifurcation diagram.

    .. math:: \mu = 2\sqrt d\,e^{-t}m^*\tanh\Big(\frac{\sqrt d\,e^{-t}m^*\mu}T + h_0m^*\Big)

    A pitchfork at :math:`e^{2t} = 2dm^{*2}/T` without a field; with a field the minimum of the
    minority class appears apart, at a spinodal. Arguments broadcast.

    Args:
        t: time.
        dim: number of spins.
        beta: inverse temperature of the data.
        field_total: total field h0, d times the field per spin.
        temperature: temperature of the process.

    Returns:
        Overlaps of the lower minimum, of the other one and of the barrier between them; the last
        two are NaN where there is a single minimum.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (4).
    """
    amplitude, bias, temperature = _near_speciation(t, dim, beta, field_total, temperature)
    branches = magnetization_branches(2 * amplitude**2 / temperature, bias)
    return Branches(*(2 * amplitude * branch for branch in branches))


def _near_speciation(
    t: ArrayLike, dim: ArrayLike, beta: ArrayLike, field_total: ArrayLike, temperature: ArrayLike
) -> tuple[Array, Array, Array]:
    """Amplitude A and bias of (3)."""
    checks.require_time(t)
    checks.require_dimension(dim)
    checks.require_temperature(temperature)
    t, dim, beta, field_total, temperature = floats(
        t, dim, *arguments(beta, field_total), temperature
    )
    order = magnetization(beta)
    return jnp.sqrt(dim) * order * jnp.exp(-t), field_total * order, temperature


def _resolved_snr(t: Array, temperature: Array) -> Array:
    """Signal-to-noise ratio, cut off where it is as good as infinite, also for derivatives."""
    signal, noise = jnp.exp(-2 * t), -temperature * jnp.expm1(-2 * t)
    resolved = _SATURATED * noise > signal
    return jnp.where(resolved, signal / jnp.where(resolved, noise, 1), _SATURATED)
