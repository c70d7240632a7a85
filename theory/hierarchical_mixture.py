r"""Hierarchies of Gaussian classes: trees that branch differently, and what a U-turn changes first.

**Independent signs.** With centres :math:`\sum_k s_k m_k`, :math:`m_k` orthogonal and signs
independent, the levels decide independently with agreements :math:`\phi_k`
(`theory.many_classes.hierarchy_clone_agreement`). A U-turn (noise to :math:`t`, then a draw from
the posterior) keeps the sign of level :math:`k` with the same probability :math:`\phi_k`, because
datum and draw are exchangeable, and the highest level that changes is level :math:`k` with
probability

.. math:: P_k = (1 - \phi_k)\prod_{j < k}\phi_j, \qquad P_{\rm none} = \prod_j \phi_j. \tag{1}

**A tree with splits of its own in each branch**, centres :math:`s m_0 + s' m_s`,
:math:`m_0, m_+, m_-` orthogonal, does not factorise: the branch is also seen in which of the two
lower directions holds a signal. In units of :math:`\sqrt{\Gamma_t}` with
:math:`\kappa_i = |m_i|e^{-t}/\sqrt{\Gamma_t}` and the overlaps :math:`y_i` of the state with
:math:`m_i/|m_i|` the log-odds of the branch are

.. math:: \ell = 2\kappa_0 y_0 + \Lambda_+(y_+) - \Lambda_-(y_-), \qquad
   \Lambda_i(y) = \log\cosh(\kappa_i y) - \tfrac12\kappa_i^2, \tag{2}

and with :math:`\varsigma(v) = 1/(1 + e^{-v})` the probabilities that two clones, or datum and draw
of a U-turn, share the branch, and both signs, are

.. math:: \phi_{\rm branch} = E\,\varsigma(s\ell), \qquad
   \phi_{\rm leaf} = E\,\varsigma(s\ell)\,\varsigma(2 s'\kappa_s y_s), \tag{3}

averages over the truth :math:`s, s'` and three normals. For :math:`\kappa_\pm \to 0` the branch
has the agreement of two classes; for :math:`\kappa_\pm \to \infty` it is always known.

**Overlap.** A Gaussian direction of variance :math:`\lambda` has no transition. The mean overlap of
datum and U-turn falls smoothly, and is :math:`\rho` at

.. math:: \frac{E[a a']}{\lambda} = \frac{\lambda e^{-2t}}{\Delta_t + \lambda e^{-2t}}, \qquad
   t_\rho = \tfrac12\log\Big(1 + \frac{\lambda}{T}\frac{1 - \rho}{\rho}\Big). \tag{4}

For data that are not Gaussian (4) with the covariance eigenvalues is a lower bound on the overlap
of principal components, because it belongs to the best linear estimate.

Everything is exact for every dimension. Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024
(2402.18491) for the mixtures; Sclocchi, Favero, Wyart 2024 (2402.16991) for U-turns of hierarchies;
(1) to (4) are derived here.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks, quadrature
from theory.channel import signal_ratio
from theory.checks import Array, elementwise, floats
from theory.clone_agreement import mixture_kappa

_NODES = 97  # error 1e-9 at the worst kappa, by (3) of `theory.quadrature`
_CERTAIN = 1e3


class BranchingAgreement(NamedTuple):
    """Probabilities that two clones agree in a tree of two levels."""

    branch: Array
    """In the sign of the first level."""
    leaf: Array
    """In both signs."""


def highest_change(agreement: ArrayLike) -> Array:
    r"""Probability that a level is the highest that a U-turn changes, levels being independent.

    .. math:: P_k = (1 - \phi_k)\prod_{j < k}\phi_j, \qquad P_{\rm none} = \prod_j \phi_j

    Args:
        agreement: agreement of every level from the top, shape (..., L).

    Returns:
        Shape (..., L + 1), of sum one; the last entry is "no level".

    Raises:
        ValueError: for concrete agreements outside of [0, 1].

    Source: (1).
    """
    fix = "pass the agreement of every level"
    checks.require("agreement", agreement, lambda v: (v >= 0) & (v <= 1), "in [0, 1]", fix)
    (agreement,) = floats(agreement)
    above = jnp.cumprod(agreement, axis=-1)
    first = jnp.ones_like(above[..., :1])
    before = jnp.concatenate([first, above[..., :-1]], axis=-1)
    return jnp.concatenate([(1 - agreement) * before, above[..., -1:]], axis=-1)


def branching_clone_agreement(
    t: ArrayLike,
    root_norm: ArrayLike,
    branch_norms: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> BranchingAgreement:
    r"""Clone agreement of a tree of two levels whose branches split in directions of their own.

    .. math:: m = s\,m_0 + s' m_s, \qquad \phi_{\rm branch} = E\,\varsigma(s\ell), \qquad
       \phi_{\rm leaf} = E\,\varsigma(s\ell)\,\varsigma(2 s'\kappa_s y_s)

    To 1e-8, by three-dimensional quadrature.

    Args:
        t: time, shape (...).
        root_norm: norm of the split into branches, shape (...).
        branch_norms: norms of the splits within the two branches, shape (..., 2).
        variance: variance per coordinate within a class, shape (...).
        temperature: temperature of the process, shape (...).

    Returns:
        Agreement in the branch and in the class, each of shape (...).

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (2), (3).
    """
    checks.require_time(t)
    checks.require_mean_norm(root_norm, "root_norm")
    checks.require_mean_norm(branch_norms, "branch_norms")
    if jnp.shape(branch_norms)[-1:] != (2,):
        raise ValueError(
            f"branch_norms has shape {jnp.shape(branch_norms)}, expected (..., 2): "
            "one norm for each of the two branches"
        )
    checks.require_variance(variance)
    checks.require_temperature(temperature)
    values = floats(t, root_norm, branch_norms, variance, temperature)
    t, root_norm, branch_norms, variance, temperature = values
    root = mixture_kappa(t, root_norm, variance, temperature)
    lower = mixture_kappa(t[..., None], branch_norms, variance[..., None], temperature[..., None])
    return BranchingAgreement(*_branching(root, lower))


def uturn_overlap(t: ArrayLike, eigenvalue: ArrayLike, temperature: ArrayLike = 1.0) -> Array:
    r"""Overlap of datum and U-turn in a Gaussian direction, over its variance.

    .. math:: \frac{E[a a']}{\lambda} = \frac{\lambda e^{-2t}}{\Delta_t + \lambda e^{-2t}}

    Args:
        t: turning time; arguments broadcast.
        eigenvalue: variance of the data in the direction.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (4).
    """
    checks.require_time(t)
    fix = "pass an eigenvalue of the covariance"
    checks.require_nonnegative("eigenvalue", eigenvalue, fix)
    checks.require_temperature(temperature)
    ratio = signal_ratio(t, eigenvalue, temperature)
    certain = jnp.isinf(ratio)
    safe = jnp.where(certain, 1, ratio)
    return jnp.where(certain, 1, safe / (1 + safe))


def overlap_time(
    eigenvalue: ArrayLike, level: ArrayLike = 0.5, temperature: ArrayLike = 1.0
) -> Array:
    r"""Turning time at which the overlap of a Gaussian direction has fallen to a level.

    .. math:: t_\rho = \tfrac12\log\Big(1 + \frac{\lambda}{T}\frac{1 - \rho}{\rho}\Big)

    At one half it is the static time of `theory.speciation`.

    Args:
        eigenvalue: variance of the data in the direction; arguments broadcast.
        level: overlap between 0 and 1.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: (4).
    """
    fix = "pass an eigenvalue of the covariance"
    checks.require_nonnegative("eigenvalue", eigenvalue, fix)
    checks.require_level(level)
    checks.require_temperature(temperature)
    eigenvalue, level, temperature = floats(eigenvalue, level, temperature)
    return 0.5 * jnp.log1p(eigenvalue / temperature * (1 - level) / level)


def _branching_kernel(root: Array, lower: Array) -> tuple[Array, Array]:
    """The averages (3); the branch of the truth is + and its sign is +, without loss."""
    root, lower = jnp.minimum(root, _CERTAIN), jnp.minimum(lower, _CERTAIN)
    z, weights = quadrature.gaussian_nodes(_NODES, root.dtype)

    def one_branch(own: Array, other: Array) -> tuple[Array, Array]:
        seen = own * (own + z)
        lead = _log_cosh(seen)[:, None] - _log_cosh(other * z) - 0.5 * (own**2 - other**2)
        sign = jax.nn.sigmoid(2 * seen)

        def add(total: tuple, node: tuple) -> tuple:
            shift, weight = node
            known = weight * jax.nn.sigmoid(shift + lead) @ weights  # (nodes,), over the other
            return (total[0] + weights @ known, total[1] + weights @ (sign * known)), None

        start = (jnp.zeros_like(root), jnp.zeros_like(root))
        return jax.lax.scan(add, start, (2 * root * (root + z), weights))[0]

    first, second = one_branch(lower[0], lower[1]), one_branch(lower[1], lower[0])
    return 0.5 * (first[0] + second[0]), 0.5 * (first[1] + second[1])


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(jnp.asarray(2, x.dtype))


_branching = elementwise(_branching_kernel, "(),(k)->(),()")
