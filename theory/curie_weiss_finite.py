r"""The Curie-Weiss magnet at finite size: sums over its magnetisation, and speciation times.

The law :math:`P_0(a) \propto \exp[\beta M^2/2d + hM]` depends on the :math:`d + 1` values of
:math:`M = \sum_i a_i` only,

.. math:: Z = \sum_{k=0}^d \binom dk e^{\beta M_k^2/2d + hM_k}, \qquad M_k = 2k - d, \tag{1}

and spins are exchangeable, so that the largest eigenvalue of their covariance belongs to the
uniform direction,

.. math:: \Lambda = \frac{\langle M^2\rangle - \langle M\rangle^2}{d}. \tag{2}

Without a field, for large :math:`d` and with :math:`r = 1/[1 - \beta(1 - m^{*2})]`,

.. math:: \Lambda = d\,m^{*2} + \chi - 2m^{*2}r(r - 1) + O(1/d), \tag{3}

where the last term is the finite-size shift of :math:`\langle|M|\rangle`; it is
:math:`1/(1 - \beta)` below the critical point, and at :math:`\beta = 1`, from the weight
:math:`e^{-dv^4/12}`,

.. math:: \Lambda = \sqrt{12d}\,\frac{\Gamma(3/4)}{\Gamma(1/4)} \simeq 1.1708\sqrt d, \tag{4}

with corrections of relative order :math:`d^{-1/2}`. As :math:`|a|^2 = d`, the criteria
:math:`t_b = \frac12\log(1 + \Lambda/T)` and :math:`t_U = \frac12\mathrm{asinh}(\Lambda/T)` of
`theory.speciation` are exact at every :math:`d` without a field (5). The overlap
:math:`\mu = \sum_i x_i/\sqrt d` of the noised state has the density

.. math:: p_t(\mu) = \frac1Z \sum_k \binom dk e^{\beta M_k^2/2d + hM_k}
   N\Big(\mu;\, \frac{e^{-t}M_k}{\sqrt d},\, \Delta_t\Big), \tag{6}

and its backward drift, averaged over the other directions, is :math:`-U'(\mu)` with
:math:`U = -\frac12\mu^2 - 2T\log p_t(\mu)` (7). The average acts like a shift of :math:`\beta`:
:math:`U''(0)` vanishes where :math:`\Lambda(\beta - \mathrm{snr}) = T\sinh 2t`, :math:`O(1/d)`
before :math:`t_U`, which is about the whole state at the centre. The overlap says nearly all that
the state knows about the class: with :math:`p_+(\mu) = P(M > 0|\mu) + \frac12P(M = 0|\mu)`,

.. math:: \phi_\mu(t) = \int d\mu\, p_t(\mu)\big[p_+(\mu)^2 + (1 - p_+(\mu))^2\big] \tag{8}

is a lower bound of the clone agreement, by :math:`O(1/d^2)` near speciation, at every
:math:`\beta`.

The number of spins must be a concrete integer: it is the length of the sum, which takes memory of
order :math:`d` per element. In double precision the relative error is about
:math:`10^{-16}d`.

Source: Biroli, Mezard 2023 (2306.03518).
"""

import math
import operator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from theory import checks, speciation
from theory.checks import Array, elementwise, floats
from theory.curie_weiss_magnet import arguments, effective_field, require_beta, spin_variance

_CRITICAL = math.sqrt(12) * math.gamma(0.75) / math.gamma(0.25)
_NODES = 801


def log_partition(dim: int, beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Logarithm of the partition function, in nats for the whole magnet (not per spin).

    .. math:: \log Z = \log\sum_k \binom dk e^{\beta M_k^2/2d + hM_k}

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and field broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (1).
    """
    return _log_partition(whole(dim), *arguments(beta, field))


def top_eigenvalue(dim: int, beta: ArrayLike, field: ArrayLike = 0.0) -> Array:
    r"""Largest eigenvalue of the covariance of the spins, exact.

    .. math:: \Lambda = \frac{\langle M^2\rangle - \langle M\rangle^2}d

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and field broadcast.
        field: field h per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    return _top_eigenvalue(whole(dim), *arguments(beta, field))


def asymptotic_top_eigenvalue(dim: ArrayLike, beta: ArrayLike) -> Array:
    r"""Largest eigenvalue of the covariance of the spins for large d, without a field.

    .. math:: \Lambda = d\,m^{*2} + \chi - 2m^{*2}r(r - 1), \qquad
       r = \frac1{1 - \beta(1 - m^{*2})}

    At the critical point :math:`\sqrt{12d}\,\Gamma(3/4)/\Gamma(1/4)`, which is not the limit of
    its neighbours: the error is O(1/d) at fixed beta, and the approach not uniform.

    Args:
        dim: number of spins; arguments broadcast.
        beta: inverse temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (3), (4).
    """
    checks.require_dimension(dim)
    require_beta(beta)
    dim, beta = floats(dim, beta)
    return _asymptotic(dim, beta, effective_field(beta))


def spectral_speciation_time(dim: int, beta: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the magnetisation of the data and the noise have equal variance.

    .. math:: t_S = \tfrac12\log(\Lambda/T)

    About :math:`\frac12\log(d\,m^{*2})` above the critical point and :math:`\frac14\log d` at it.
    NaN for an eigenvalue not above the temperature.

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and temperature broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (2).
    """
    checks.require_temperature(temperature)
    beta, temperature = floats(beta, temperature)
    return speciation.spectral_time(top_eigenvalue(dim, beta), temperature)


def static_speciation_time(dim: int, beta: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the noised law splits at the centre, exact at finite size.

    .. math:: t_b = \tfrac12\log(1 + \Lambda/T)

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and temperature broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (5).
    """
    checks.require_temperature(temperature)
    beta, temperature = floats(beta, temperature)
    return speciation.static_time(top_eigenvalue(dim, beta), temperature)


def dynamic_speciation_time(dim: int, beta: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Time at which the backward potential splits at the centre, exact at finite size.

    .. math:: t_U = \tfrac12\,\mathrm{asinh}(\Lambda/T)

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and temperature broadcast.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (5).
    """
    checks.require_temperature(temperature)
    beta, temperature = floats(beta, temperature)
    return speciation.dynamic_time(top_eigenvalue(dim, beta), temperature)


def exact_class_weight(dim: int, beta: ArrayLike, field_total: ArrayLike = 0.0) -> Array:
    r"""Probability of a positive magnetisation, exact.

    .. math:: w_+ = P(M > 0) + \tfrac12 P(M = 0)

    Args:
        dim: number of spins, a concrete integer.
        beta: inverse temperature; beta and field_total broadcast.
        field_total: total field h0, d times the field per spin.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (1).
    """
    dim = whole(dim)
    beta, field_total = arguments(beta, field_total)
    return _class_weight(dim, beta, field_total / dim)


def exact_overlap_potential(
    mu: ArrayLike,
    t: ArrayLike,
    dim: int,
    beta: ArrayLike,
    field_total: ArrayLike = 0.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Backward potential of the overlap with the uniform direction, at finite size.

    .. math:: U(\mu) = -\tfrac12\mu^2 - 2T\log p_t(\mu), \qquad \mu = \sum_i x_i/\sqrt d

    The drift :math:`-U'` is the exact one averaged over the other directions, with noise
    :math:`\sqrt{2T}\,dW`. Arrays broadcast.

    Args:
        mu: overlap.
        t: time, positive.
        dim: number of spins, a concrete integer.
        beta: inverse temperature.
        field_total: total field h0, d times the field per spin.
        temperature: temperature of the process.

    Returns:
        The potential, without any constant subtracted.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Mezard 2023 (2306.03518); (7).
    """
    checks.require("t", t, lambda v: v > 0, "positive", "at t = 0 the overlap has no density")
    checks.require_temperature(temperature)
    dim = whole(dim)
    mu, t, beta, field_total, temperature = floats(
        mu, t, *arguments(beta, field_total), temperature
    )
    return _overlap_potential(dim, mu, t, beta, field_total / dim, temperature)


def overlap_clone_agreement(
    t: ArrayLike,
    dim: int,
    beta: ArrayLike,
    field_total: ArrayLike = 0.0,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Clone agreement of the sign of M as far as the overlap tells it, at finite size.

    .. math:: \phi_\mu(t) = \int d\mu\, p_t(\mu)\big[p_+(\mu)^2 + (1 - p_+(\mu))^2\big]

    A lower bound of the clone agreement, exact up to :math:`O(1/d^2)` near speciation also where
    beta is close to 1 or below. M = 0 counts half for each class. Arrays broadcast.

    Args:
        t: time.
        dim: number of spins, a concrete integer.
        beta: inverse temperature.
        field_total: total field h0, d times the field per spin.
        temperature: temperature of the process.

    Returns:
        NaN at times so small that single values of M stand out beyond the resolution of the
        integral, about :math:`10^{-5}d` in units of the temperature.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491) for the definition; (8).
    """
    checks.require_time(t)
    checks.require_temperature(temperature)
    dim = whole(dim)
    t, beta, field_total, temperature = floats(t, *arguments(beta, field_total), temperature)
    return _overlap_agreement(dim, t, beta, field_total / dim, temperature)


def whole(dim: int) -> int:
    """``dim`` as a Python integer of one at least; a traced or a fractional one is refused."""
    if isinstance(dim, jax.core.Tracer):
        raise TypeError(
            "dim must be a concrete integer, but is traced; pass it as a static argument, or loop "
            "over sizes outside jit and vmap"
        )
    try:
        size = operator.index(dim)
    except TypeError:
        size = int(dim) if np.ndim(dim) == 0 and dim == np.floor(dim) else 0
    checks.require("dim", size or dim, lambda v: size >= 1, "an integer >= 1", "count the spins")
    return size


def _log_weights(dim: int, beta: Array, field: Array) -> tuple[Array, Array]:
    """Values of M, shape (d + 1,), and logarithms of their weights, shape (..., d + 1)."""
    half = np.arange(1, dim // 2 + 1, dtype=np.longdouble)
    # up to the middle, and mirrored: the two classes must not differ by rounding
    rising = np.concatenate([[0], np.cumsum(np.log((dim + 1 - half) / half))])
    binomial = np.concatenate([rising, rising[: (dim + 1) // 2][::-1]])
    size = jnp.asarray(2 * np.arange(dim + 1) - dim, beta.dtype)
    entropy = jnp.asarray(binomial.astype(float), beta.dtype)
    # half of beta M first: the square alone leaves the range of short dtypes
    energy = size * (0.5 * beta[..., None] * (size / dim) + field[..., None])
    return size, entropy + energy


@partial(jax.jit, static_argnums=0)
def _log_partition(dim: int, beta: Array, field: Array) -> Array:
    return jax.nn.logsumexp(_log_weights(dim, *jnp.broadcast_arrays(beta, field))[1], axis=-1)


def _probabilities(dim: int, beta: Array, field: Array) -> tuple[Array, Array]:
    size, logs = _log_weights(dim, *jnp.broadcast_arrays(beta, field))
    return size, jax.nn.softmax(logs, axis=-1)


@partial(jax.jit, static_argnums=0)
def _top_eigenvalue(dim: int, beta: Array, field: Array) -> Array:
    size, weights = _probabilities(dim, beta, field)
    mean = jnp.sum(weights * size, axis=-1, keepdims=True)
    return jnp.sum(weights * (size - mean) ** 2, axis=-1) / dim


@partial(jax.jit, static_argnums=0)
def _class_weight(dim: int, beta: Array, field: Array) -> Array:
    size, weights = _probabilities(dim, beta, field)
    return jnp.sum(weights * (0.5 + 0.5 * jnp.sign(size)), axis=-1)


@partial(jax.jit, static_argnums=0)
def _overlap_potential(
    dim: int, mu: Array, t: Array, beta: Array, field: Array, temperature: Array
) -> Array:
    mu, t, beta, field, temperature = jnp.broadcast_arrays(mu, t, beta, field, temperature)
    size, logs = _log_weights(dim, beta, field)
    noise = -temperature * jnp.expm1(-2 * t)
    shift = mu[..., None] - jnp.exp(-t)[..., None] * size / math.sqrt(dim)
    log_density = (
        jax.nn.logsumexp(logs - 0.5 * shift**2 / noise[..., None], axis=-1)
        - jax.nn.logsumexp(logs, axis=-1)
        - 0.5 * jnp.log(2 * jnp.pi * noise)
    )
    return -0.5 * mu**2 - 2 * temperature * log_density


@partial(jax.jit, static_argnums=0)
def _overlap_agreement(dim: int, t: Array, beta: Array, field: Array, temperature: Array) -> Array:
    return jnp.vectorize(partial(_overlap_agreement_kernel, dim))(t, beta, field, temperature)


def _overlap_agreement_kernel(
    dim: int, t: Array, beta: Array, field: Array, temperature: Array
) -> Array:
    size, logs = _log_weights(dim, beta, field)
    centers = jnp.exp(-t) * size / math.sqrt(dim)
    deviation = jnp.sqrt(-temperature * jnp.expm1(-2 * t))
    reach = jnp.exp(-t) * math.sqrt(dim) + 8.75 * deviation
    mu = reach * jnp.linspace(-1, 1, _NODES, dtype=t.dtype)
    resolved = 2 * reach < 0.5 * (_NODES - 1) * deviation
    scale = jnp.where(resolved, deviation, 1)
    joint = logs - 0.5 * ((mu[:, None] - centers) / scale) ** 2
    log_density = jax.nn.logsumexp(joint, axis=-1)
    sign = jnp.sum(jnp.exp(joint - log_density[:, None]) * jnp.sign(size), axis=-1)
    agreement = jnp.sum(jax.nn.softmax(log_density) * (0.5 + 0.5 * sign**2))
    return jnp.where(resolved, agreement, jnp.nan)


def _asymptotic_kernel(dim: Array, beta: Array, x: Array) -> Array:
    critical = beta == 1
    width = spin_variance(x)
    r = 1 / jnp.where(critical, 1, 1 - beta * width)
    square = jnp.tanh(x) ** 2
    away = dim * square + width * r - 2 * square * r * (r - 1)
    return jnp.where(critical, _CRITICAL * jnp.sqrt(dim), away)


_asymptotic = elementwise(_asymptotic_kernel)
