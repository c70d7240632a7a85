r"""Clone agreement of many Gaussian classes, by one-dimensional integrals.

Two draws from the posterior of a state agree in their class with probability

.. math:: \phi = E_{x \sim P_t} \sum_c p_c(x)^2 = E\, p_{c^*}(x), \tag{1}

where :math:`c^*` is the true class behind :math:`x`. With :math:`\Gamma_t` the variance per
coordinate of the noised state of one class, :math:`\kappa_c = |m_c| e^{-t}/\sqrt{\Gamma_t}`.

**K classes with orthogonal centres** :math:`m_c` of their own norms. The log-weight of class
:math:`c` is :math:`\log w_c + \kappa_c z_c - \frac12\kappa_c^2` with :math:`\kappa_c^2` more for
the true one, all :math:`z_c` independent. With :math:`1/S = \int d\theta\, e^{-\theta S}` and
:math:`\theta = e^y`

.. math:: \phi = \sum_c w_c \int dy\, H_c(y) \prod_{c' \ne c} G_{c'}(y), \tag{2}

.. math:: G_c(y) = E_z \exp(-w_c e^{y + \kappa_c z - \kappa_c^2/2}), \qquad
   H_c(y) = E_z\, h(y + \log w_c + \kappa_c z + \tfrac12\kappa_c^2), \quad h(v) = e^{v - e^v},
   \tag{3}

one-dimensional integrals for every :math:`K`. Only differences of centres matter, so **simplex**
centres, :math:`m_c \cdot m_{c'} = -M^2/(K - 1)`, are orthogonal ones of norm
:math:`M\sqrt{K/(K - 1)}`.

**Centres at** :math:`\pm m_1 \pm m_2 \ldots`, orthogonal with independent signs, decide their signs
independently: two balanced classes with each norm, and their product for the class as a whole.

All of it is exact for every dimension.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Sclocchi, Favero, Wyart 2024
(2402.16991).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks, quadrature
from theory.checks import Array, elementwise, floats
from theory.clone_agreement import clone_agreement, mixture_kappa


def orthogonal_clone_agreement(kappas: ArrayLike, weights: ArrayLike) -> Array:
    r"""Clone agreement of Gaussian classes with orthogonal centres.

    .. math:: \phi = E\, p_{c^*}(x), \qquad
       \log p_c = \log w_c + \kappa_c z_c + \kappa_c^2 (\delta_{c c^*} - \tfrac12) + \text{const}

    By (2): to 1e-9 for every number of classes.

    Args:
        kappas: norms of the centres in units of the standard deviation of the state, (..., K).
        weights: fractions of the data, (..., K), positive, of sum one.

    Returns:
        Shape (...).

    Raises:
        ValueError: for concrete weights that are not positive or do not sum to one.

    Source: derived here, (2) and (3).
    """
    checks.require_nonnegative("kappas", kappas, "pass norms over standard deviations")
    checks.require_weights(weights)
    return _orthogonal(*floats(kappas, weights))


def simplex_clone_agreement(kappa: ArrayLike, weights: ArrayLike) -> Array:
    r"""Clone agreement of Gaussian classes with centres on a regular simplex.

    .. math:: m_c \cdot m_{c'} = -\frac{M^2}{K - 1}, \qquad \kappa = M e^{-t}/\sqrt{\Gamma_t}

    Args:
        kappa: norm of a centre in units of the standard deviation of the state, (...).
        weights: fractions of the data, (..., K), positive, of sum one; equal ones for plain
        classes.

    Returns:
        Shape (...).

    Raises:
        ValueError: for concrete weights that are not positive or do not sum to one.

    Source: derived here, (2) at the norm of orthogonal centres of the same distances.
    """
    kappa, weights = floats(kappa, weights)
    classes = weights.shape[-1]
    stretched = kappa[..., None] * jnp.sqrt(jnp.asarray(classes / (classes - 1), kappa.dtype))
    kappas, weights = jnp.broadcast_arrays(stretched, weights)
    return orthogonal_clone_agreement(kappas, weights)


def hierarchy_clone_agreement(
    t: ArrayLike, mean_norms: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Clone agreement at each level of centres with independent orthogonal signs.

    .. math:: m = \pm m_1 \pm m_2 \ldots, \qquad \phi_k = \phi(|m_k| e^{-t}/\sqrt{\Gamma_t})

    The product over levels is the agreement of the class as a whole.

    Args:
        t: time, shape (...).
        mean_norms: norms of the levels, shape (..., L).
        variance: variance per coordinate within a class, shape (...).
        temperature: temperature of the process, shape (...).

    Returns:
        Shape (..., L).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Sclocchi, Favero, Wyart 2024 (2402.16991), for hierarchies.
    """
    values = floats(t, variance, temperature)
    checks.require_time(t)
    t, variance, temperature = (value[..., None] for value in values)
    return clone_agreement(mixture_kappa(t, mean_norms, variance, temperature))


def _orthogonal_kernel(kappas: Array, weights: Array) -> Array:
    z, nodes = quadrature.gaussian_nodes(241, kappas.dtype)
    strongest = jax.lax.stop_gradient(jnp.max(kappas))
    smallest = jax.lax.stop_gradient(jnp.min(jnp.log(weights)))
    lower = -38 - 0.5 * strongest**2 - 9 * strongest
    y, spacing = jnp.linspace(
        lower, 5 + 9 * strongest + 0.5 * strongest**2 - smallest, 1601, retstep=True
    )

    def one(kappa: Array, log_weight: Array) -> tuple[Array, Array]:
        center = y[:, None] + log_weight + kappa * z
        other = jnp.exp(-jnp.exp(center - 0.5 * kappa**2)) @ nodes
        shifted = center + 0.5 * kappa**2
        return other, jnp.exp(shifted - jnp.exp(shifted)) @ nodes

    others, own = jax.lax.map(lambda pair: one(*pair), (kappas, jnp.log(weights)))
    logs = jnp.log(jnp.maximum(others, jnp.finfo(y.dtype).tiny))
    rest = jnp.exp(jnp.sum(logs, axis=0) - logs)
    return spacing * jnp.sum(weights[:, None] * own * rest)


_orthogonal = elementwise(_orthogonal_kernel, "(k),(k)->()")
