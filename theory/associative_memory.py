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

(2)-(4) are exact as :math:`N \to \infty` with :math:`\alpha` fixed.

**Energy of squared distances.** In :math:`y = e^tx`, with noise variance :math:`v = 1/\lambda` and
:math:`B = 1/2v`,

.. math:: E(y, v) = -\tfrac1B\log\sum_\mu e^{-B|y - \xi^\mu|^2}, \qquad
   \nabla E = 2(y - \mathrm E[a|y]), \qquad \nabla\log p_v = -B\,\nabla E = -\tfrac1{2v}\nabla E,
   \tag{6}

without any condition on the norms; for patterns of norm r, :math:`E = 2E_\lambda + r^2` (7). One
step :math:`y \leftarrow \mathrm E[a|y]` is one update of the memory.

**Circle.** Patterns that fill the unit circle densely leave a function of the radius,

.. math:: E(R) = R^2 + 1 - \tfrac1B\log I_0(2BR), \qquad R = I_1(2BR)/I_0(2BR) \tag{8}

at its minimum: a ring for :math:`B > 1`, the centre otherwise. The logarithm is that of the mean
over the circle, so that n patterns have the energy :math:`E(R) - \frac1B\log n`.

Sources: Lucibello, Mezard 2024 (2304.14964); Biroli, Bonnaire, de Bortoli, Mezard 2024
(2402.18491); Achilli et al. 2025 (2502.09578); Ambrogioni 2024 (2309.17290) and Pham, Raya, Negri,
Zaki, Ambrogioni, Krotov 2025 (2505.21777) for (6) and (8).
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e, logsumexp
from jax.typing import ArrayLike

from theory import checks, cumulants
from theory.bessel import ratio_of_scalars
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


def distance_energy(y: ArrayLike, patterns: ArrayLike, inverse_temperature: ArrayLike) -> Array:
    r"""Energy of squared distances, whose gradient is the score of the noised patterns.

    .. math:: E(y) = -\tfrac1B\log\sum_\mu e^{-B|y - \xi^\mu|^2}, \qquad
       \nabla\log p_v = -B\,\nabla E

    Args:
        y: states in the coordinates :math:`e^tx`, shape (..., N).
        patterns: shape (P, N), of any norms.
        inverse_temperature: :math:`B = 1/2v`, half the signal-to-noise ratio, positive, shape
            (...).

    Returns:
        Shape (...).

    Raises:
        ValueError: for shapes that do not fit and concrete arguments out of range.

    Source: Pham et al. 2025 (2505.21777), with the factor of the gradient of (6).
    """
    y, patterns, logits, B = _by_distance(y, patterns, inverse_temperature)
    return jnp.sum(y**2, axis=-1) - logsumexp(logits, axis=-1) / B


def distance_energy_gradient(
    y: ArrayLike, patterns: ArrayLike, inverse_temperature: ArrayLike
) -> Array:
    r"""Gradient of `distance_energy` by the state.

    .. math:: \nabla E = 2\Big(y - \sum_\mu \mathrm{softmax}_\mu(-B|y - \xi^\mu|^2)\,\xi^\mu\Big)

    Args:
        y: states, shape (..., N).
        patterns: shape (P, N), of any norms.
        inverse_temperature: :math:`B = 1/2v`, positive, shape (...).

    Returns:
        Shape (..., N).

    Raises:
        ValueError: for shapes that do not fit and concrete arguments out of range.

    Source: Pham et al. 2025 (2505.21777); (6).
    """
    y, patterns, logits, _ = _by_distance(y, patterns, inverse_temperature)
    mean = jnp.matmul(jax.nn.softmax(logits, axis=-1), patterns, precision="highest")
    return 2 * (y - mean)


def circle_energy(radius: ArrayLike, inverse_temperature: ArrayLike) -> Array:
    r"""Energy of a state at some radius, patterns filling the unit circle.

    .. math:: E(R) = R^2 + 1 - \tfrac1B\log I_0(2BR)

    Args:
        radius: R, the distance from the centre, not negative; arguments broadcast.
        inverse_temperature: :math:`B = 1/2v`, positive.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2024 (2309.17290); (8).
    """
    checks.require_nonnegative("radius", radius, "pass the distance from the centre")
    _require_inverse_temperature(inverse_temperature)
    radius, B = floats(radius, inverse_temperature)
    return _circle_energy(radius, B)


def circle_radius(inverse_temperature: ArrayLike) -> Array:
    r"""Radius of the ring of least energy, patterns filling the unit circle.

    .. math:: R = I_1(2BR)/I_0(2BR)

    and 0 for :math:`B \le 1`, that is for noise :math:`v \ge 1/2`, the variance of the circle per
    coordinate. The slope by B is infinite at :math:`B = 1`. NaN where the solver did not converge.

    Args:
        inverse_temperature: :math:`B = 1/2v`, positive, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2024 (2309.17290); (8).
    """
    _require_inverse_temperature(inverse_temperature)
    return _circle_radius(*floats(inverse_temperature))


def circle_least_energy(inverse_temperature: ArrayLike) -> Array:
    r"""Energy of the ring, or of the centre where there is none: (8) at `circle_radius`.

    Args:
        inverse_temperature: :math:`B = 1/2v`, positive, any shape.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Ambrogioni 2024 (2309.17290); (8).
    """
    _require_inverse_temperature(inverse_temperature)
    (B,) = floats(inverse_temperature)
    return _circle_energy(_circle_radius(B), B)


def _require(lam: ArrayLike, patterns: str) -> None:
    checks.require_positive("lam", lam, "pass the signal-to-noise ratio")
    if patterns not in PATTERNS:
        raise ValueError(f"patterns is {patterns!r}; choose one of {', '.join(PATTERNS)}")


def _require_inverse_temperature(B: ArrayLike) -> None:
    fix = "pass 1/(2 v) with the noise variance v, half the signal-to-noise ratio"
    checks.require_positive("inverse_temperature", B, fix)


def _by_distance(
    y: ArrayLike, patterns: ArrayLike, B: ArrayLike
) -> tuple[Array, Array, Array, Array]:
    """Arguments as arrays, with the logits without ``-B |y|^2``, which all patterns share."""
    _require_inverse_temperature(B)
    y, patterns, B = _memory(y, patterns, B)
    overlaps = jnp.matmul(y, patterns.T, precision="highest")
    logits = B[..., None] * (2 * overlaps - jnp.sum(patterns**2, axis=-1))
    return y, patterns, logits, B


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


def _circle_energy(radius: Array, B: Array) -> Array:
    y = 2 * B * radius
    return radius**2 + 1 - (jnp.log(i0e(y)) + y) / B


def _circle_radius_kernel(B: Array) -> Array:
    ordered = B > 1
    safe = jnp.where(ordered, B, 2)

    def excess(radius: Array) -> Array:
        # I_1/I_0 = BR / (1 + BR I_2/I_1), so that the root R = 0 divides out of (8)
        ratio = ratio_of_scalars(jnp.ones_like(safe), 2 * safe * radius)
        return safe * radius * ratio - (safe - 1)

    root = find_root(excess, jnp.zeros_like(safe), jnp.ones_like(safe)).value
    return jnp.where(ordered, root, 0)


_circle_radius = elementwise(_circle_radius_kernel)
