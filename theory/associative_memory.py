r"""Dense associative memory with exponential interactions, and its capacities.

:math:`P = e^{\alpha N}` patterns :math:`\xi^\mu` of squared norm about N:

.. math:: E_\lambda(y) = \tfrac12|y|^2 - \tfrac1\lambda\log\sum_\mu e^{\lambda y\cdot\xi^\mu},
   \qquad -\nabla E_\lambda = \sum_\mu \mathrm{softmax}_\mu(\lambda y\cdot\xi^\mu)\,\xi^\mu - y.
   \tag{1}

**Retrieval.** At :math:`y = \xi^1` the signal :math:`e^{\lambda Nr}`, :math:`r = |\xi^1|^2/N`,
stands against a Random Energy Model of overlaps, :math:`g(\lambda) = \lim \frac1N\log
Ee^{\lambda\xi^1\cdot\xi}`: a typical pattern is retrieved iff :math:`\varphi(\alpha, \lambda) <
\lambda` (2), that is for :math:`\alpha` below

.. math:: \alpha_1(\lambda) = \lambda - g(\lambda) \text{ while } g'(\lambda) < 1 \tag{3}

and constant beyond, where the sum is frozen when it wins. For patterns on a sphere or of signs
overlaps are below one and (3) always holds. For Gaussian patterns :math:`\alpha_1 = \lambda -
\lambda^2/2` up to :math:`\lambda = 1`, and 1/2 from there.

**All patterns**, Gaussian. Norms occur down to the r with :math:`\frac12(r - 1 - \log r) =
\alpha`; a pattern of norm r needs :math:`\varphi(\alpha, \lambda; v = r) < \lambda r`, i.e.
:math:`\alpha < \alpha_1 r`. The shortest fails first:

.. math:: \alpha_c = \alpha_1(\lambda)\, r, \qquad \tfrac12(r - 1 - \log r) = \alpha_1(\lambda)\, r,
   \quad r < 1. \tag{4}

**Diffusion.** For points of equal norm, :math:`\lambda = e^{-2t}/\Delta_t` and :math:`y = e^tx`,

.. math:: -\log P_t^e(x) = \lambda E_\lambda(y) + \text{const}(t), \qquad
   \nabla_x\log P_t^e = -e^t\lambda\nabla E_\lambda(e^tx), \tag{5}

and the empirical denoiser is one unit step down the energy; unequal norms add
:math:`-\frac\lambda2|\xi^\mu|^2` to each logit. At equal :math:`\lambda`, with the same logits, a
clean stored point attracts up to a larger :math:`\alpha` than a point noised at that level returns
to where it came from: `attraction_capacity` is above `collapse_capacity`. The memory without norm
term on Gaussian patterns (`retrieval_threshold`) obeys no such order.

Exact as :math:`N \to \infty` with :math:`\alpha` fixed.

Sources: Lucibello, Mezard 2024 (2304.14964); Biroli, Bonnaire, de Bortoli, Mezard 2024
(2402.18491); Achilli et al. 2025 (2502.09578).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jax.typing import ArrayLike

from theory import checks, cumulants
from theory.channel import binary_information
from theory.checks import Array, elementwise, floats
from theory.roots import find_root

PATTERNS = ("gaussian", "spherical", "binary")


def retrieval_threshold(lam: ArrayLike, patterns: str) -> Array:
    r"""Largest alpha at which a typical pattern is retrieved by the memory without norm term.

    .. math:: \alpha_1(\lambda) = \lambda - g(\lambda)

    and 1/2 for Gaussian patterns from :math:`\lambda = 1` on.

    Args:
        lam: inverse temperature of the memory, positive, any shape; logits are
            :math:`\lambda y\cdot\xi = O(N)`.
        patterns: "gaussian", "spherical" or "binary".

    Raises:
        ValueError: for concrete arguments out of range and unknown patterns.

    Source: Lucibello, Mezard 2024 (2304.14964); (2), (3).
    """
    _require(lam, patterns)
    (lam,) = floats(lam)
    if patterns == "gaussian":
        inside = jnp.minimum(lam, 1)
        return inside - inside**2 / 2
    law = cumulants.spherical() if patterns == "spherical" else cumulants.binary()
    return lam - jnp.vectorize(law)(lam)


def all_patterns_threshold(lam: ArrayLike) -> Array:
    r"""Largest alpha at which all Gaussian patterns are retrieved at once.

    .. math:: \alpha_c = \alpha_1 r, \qquad \tfrac12(r - 1 - \log r) = \alpha_1 r

    Below `retrieval_threshold`, with :math:`1/2e` from :math:`\lambda = 1` on. Derived here, not
    compared with print. NaN where the solver did not converge.

    Args:
        lam: inverse temperature of the memory, positive, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Lucibello, Mezard 2024 (2304.14964), for the setting; (4).
    """
    return _all_patterns(retrieval_threshold(lam, "gaussian"))


def attraction_capacity(lam: ArrayLike, patterns: str) -> Array:
    r"""Largest alpha at which a clean stored point attracts, with the norm term in the logits.

    .. math:: \tfrac12\log(1 + \lambda) + \tfrac12\frac{\lambda}{1 + \lambda} \text{ (Gaussian)},
       \qquad \lambda - g(\lambda) \text{ (spherical, binary)}

    For points of equal norm the term is a constant. With :math:`\lambda = u` this is the onset of
    traps, `theory.collapse.trap_onset_time`.

    Args:
        lam: signal-to-noise ratio of the channel, positive, any shape.
        patterns: "gaussian", "spherical" or "binary", of unit variance per coordinate.

    Raises:
        ValueError: for concrete arguments out of range and unknown patterns.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (5).
    """
    _require(lam, patterns)
    if patterns != "gaussian":
        return retrieval_threshold(lam, patterns)
    (lam,) = floats(lam)
    return 0.5 * (jnp.log1p(lam) + lam / (1 + lam))


def collapse_capacity(lam: ArrayLike, patterns: str) -> Array:
    r"""Largest alpha at which a noised trajectory returns to the point that it came from.

    .. math:: \tfrac12\log(1 + \lambda) \text{ (Gaussian, spherical)}, \qquad
       I_1(\lambda) \text{ (binary)}

    the information per coordinate that passes the channel; for points on a sphere to leading order.

    Args:
        lam: signal-to-noise ratio of the channel, positive, any shape.
        patterns: "gaussian", "spherical" or "binary", of unit variance per coordinate.

    Raises:
        ValueError: for concrete arguments out of range and unknown patterns.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (5).
    """
    _require(lam, patterns)
    if patterns == "binary":
        return binary_information(lam)
    (lam,) = floats(lam)
    return 0.5 * jnp.log1p(lam)


def energy(y: ArrayLike, patterns: ArrayLike, lam: ArrayLike) -> Array:
    r"""Energy of the memory, without norm term.

    .. math:: E_\lambda(y) = \tfrac12|y|^2 - \tfrac1\lambda\log\sum_\mu e^{\lambda y\cdot\xi^\mu}

    Args:
        y: states, shape (..., N).
        patterns: shape (P, N).
        lam: inverse temperature of the memory, positive, shape (...).

    Returns:
        Shape (...).

    Raises:
        ValueError: for shapes that do not fit and concrete arguments out of range.

    Source: Lucibello, Mezard 2024 (2304.14964); (1).
    """
    y, patterns, lam = _memory(y, patterns, lam)
    logits = lam[..., None] * (y @ patterns.T)
    return 0.5 * jnp.sum(y**2, axis=-1) - logsumexp(logits, axis=-1) / lam


def energy_gradient(y: ArrayLike, patterns: ArrayLike, lam: ArrayLike) -> Array:
    r"""Gradient of the energy by the state; minus it is the step of softmax attention.

    .. math:: \nabla E_\lambda = y - \sum_\mu \mathrm{softmax}_\mu(\lambda y\cdot\xi^\mu)\,\xi^\mu

    Args:
        y: states, shape (..., N).
        patterns: shape (P, N).
        lam: inverse temperature of the memory, positive, shape (...).

    Returns:
        Shape (..., N).

    Raises:
        ValueError: for shapes that do not fit and concrete arguments out of range.

    Source: Lucibello, Mezard 2024 (2304.14964); (1).
    """
    y, patterns, lam = _memory(y, patterns, lam)
    logits = lam[..., None] * (y @ patterns.T)
    return y - jax.nn.softmax(logits, axis=-1) @ patterns


def _require(lam: ArrayLike, patterns: str) -> None:
    checks.require_positive("lam", lam, "pass the signal-to-noise ratio")
    if patterns not in PATTERNS:
        raise ValueError(f"patterns is {patterns!r}; choose one of {', '.join(PATTERNS)}")


def _memory(y: ArrayLike, patterns: ArrayLike, lam: ArrayLike) -> tuple[Array, Array, Array]:
    checks.require_positive("lam", lam, "pass the signal-to-noise ratio")
    y, patterns, lam = floats(y, patterns, lam)
    if patterns.ndim != 2 or y.shape[-1:] != patterns.shape[1:]:
        raise ValueError(
            f"y and patterns have shapes {y.shape} and {patterns.shape}, expected (..., N) and "
            "(P, N); pass one row per stored pattern"
        )
    return y, patterns, lam


def _all_patterns_kernel(typical: Array) -> Array:
    def excess(x: Array) -> Array:  # x = log r
        return 0.5 * (jnp.expm1(x) - x) - typical * jnp.exp(x)

    # at the lower end (1 - 2 typical) exp(x) + 2 typical > 0, as typical <= 1/2
    x = find_root(excess, -1 - 2 * typical - 1e-6, jnp.zeros_like(typical)).value
    return typical * jnp.exp(x)


_all_patterns = elementwise(_all_patterns_kernel)
