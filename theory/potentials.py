r"""Effective potentials of the backward process along the directions that separate classes.

**Two Gaussians** :math:`N(\pm m, \sigma^2 I_d)` of weights :math:`w, 1 - w`. With
:math:`M = |m|` the overlap :math:`y = m \cdot x/M` obeys, for every :math:`d` and :math:`T`, the
closed equation

.. math:: -dy = \Big[y + \frac{2T}{\Gamma_t}\Big(-y + Me^{-t}\tanh\Big(\frac{Me^{-t}y}{\Gamma_t}
   + \tfrac12\log\frac{w}{1-w}\Big)\Big)\Big] dt + \sqrt{2T}\, dW \tag{1}

with :math:`\Gamma_t = \Delta_t + \sigma^2 e^{-2t}`; the other coordinates are independent
Gaussians of variance :math:`\Gamma_t`. Its drift is :math:`-U'(y)` with

.. math:: U(y) = -\tfrac12y^2 + 2T\Big[\frac{y^2}{2\Gamma_t}
   - \log\cosh\Big(\frac{Me^{-t}y}{\Gamma_t} + \tfrac12\log\frac{w}{1-w}\Big)\Big]. \tag{2}

In :math:`q = m \cdot x/\sqrt d = \tilde\mu y`, :math:`M^2 = d\tilde\mu^2`, the noise is
:math:`\sqrt{2T\tilde\mu^2}\,dW` and the potential :math:`V(q) = \tilde\mu^2 U(q/\tilde\mu)` (3).

**K classes on a simplex**, :math:`m_c \cdot m_{c'} = -M^2/(K-1)`, with :math:`\sigma^2 = T` so that
:math:`\Gamma_t = T`. In units of :math:`\sqrt T`, along the direction of one class, with
:math:`A = Me^{-t}/\sqrt T`,

.. math:: U(r) = \frac{r^2}{2} - 2\log\frac{e^{rA} + (K-1)e^{-rA/(K-1)}}{K}. \tag{4}

The origin loses stability at :math:`A_U = \sqrt{(K-1)/2}` (5). With :math:`s = rAK/(K-1)` the
stationary points off the origin satisfy
:math:`A^2 = \frac{K-1}{2K}\, s\, \frac{e^s + K - 1}{e^s - 1}` (6), whose minimum over :math:`s`
is the spinodal :math:`A_{sp}`, at the non-zero root of

.. math:: e^s + K - 2 - (K - 1)e^{-s} = K s. \tag{7}

For :math:`K \ge 3`, :math:`A_{sp} < A_U`: minima appear off the origin while it is still stable,
and criteria that look at the origin give too small a time. Exact in every dimension.

Sources: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); Achilli, Benedetti, Biroli,
Mezard 2026 (2602.04404).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import state_variance
from theory.checks import Array, elementwise, floats
from theory.roots import find_root


def reduced_drift(
    y: ArrayLike,
    t: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Backward drift of the overlap with the direction of the centres.

    .. math:: y + \frac{2T}{\Gamma_t}\Big(-y + Me^{-t}\tanh\Big(\frac{Me^{-t}y}{\Gamma_t}
       + \tfrac12\log\frac{w}{1-w}\Big)\Big)

    per unit of generative time, with noise :math:`\sqrt{2T}dW`. Arguments broadcast.

    Args:
        y: overlap m.x/|m|.
        t: time, positive where the variance is zero.
        mean_norm: norm of a class centre, the classes being at plus and minus it.
        variance: variance per coordinate within a class.
        weight: fraction of the data in the class at plus the centre.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    y, spread, field, bias, temperature = _fields(y, t, mean_norm, variance, weight, temperature)
    return y + 2 * temperature * (-y / spread + field * jnp.tanh(field * y + bias))


def reduced_potential(
    y: ArrayLike,
    t: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    weight: ArrayLike = 0.5,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Potential of the overlap with the direction of the centres.

    .. math:: U(y) = -\tfrac12y^2 + 2T\Big[\frac{y^2}{2\Gamma_t}
       - \log\cosh\Big(\frac{Me^{-t}y}{\Gamma_t} + \tfrac12\log\frac{w}{1-w}\Big)\Big]

    Arguments broadcast.

    Args:
        y: overlap m.x/|m|.
        t: time, positive where the variance is zero.
        mean_norm: norm of a class centre, the classes being at plus and minus it.
        variance: variance per coordinate within a class.
        weight: fraction of the data in the class at plus the centre.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    y, spread, field, bias, temperature = _fields(y, t, mean_norm, variance, weight, temperature)
    well = y**2 / (2 * spread) - _log_cosh(field * y + bias)
    return -0.5 * y**2 + 2 * temperature * well


def overlap_potential(
    q: ArrayLike,
    t: ArrayLike,
    dim: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
) -> Array:
    r"""Potential of the overlap per square root of the dimension, of balanced classes.

    .. math:: V(q) = -\tfrac12q^2 + T\frac{q^2}{\Gamma_t}
       - 2T\tilde\mu^2\log\cosh\frac{\sqrt d\,e^{-t}q}{\Gamma_t}

    with noise :math:`\sqrt{2T\tilde\mu^2}\,dW`, :math:`|m|^2 = d\tilde\mu^2`. Arguments broadcast.

    Args:
        q: overlap m.x/sqrt(d).
        t: time, positive where the variance is zero.
        dim: number of coordinates.
        mean_norm: norm of a class centre, positive.
        variance: variance per coordinate within a class.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), with the noise corrected for
    centres of any norm; (3).
    """
    checks.require_dimension(dim)
    checks.require_positive("mean_norm", mean_norm, "pass the norm of a class centre")
    q, dim, mean_norm = floats(q, dim, mean_norm)
    per_coordinate = mean_norm / jnp.sqrt(dim)
    y = q / per_coordinate
    potential = reduced_potential(y, t, mean_norm, variance, temperature=temperature)
    return per_coordinate**2 * potential


def simplex_potential(r: ArrayLike, amplitude: ArrayLike, classes: ArrayLike) -> Array:
    r"""Potential along the direction of one of several classes on a regular simplex.

    .. math:: U(r) = \frac{r^2}{2} - 2\log\frac{e^{rA} + (K-1)e^{-rA/(K-1)}}{K}

    for a variance within classes equal to the temperature. Arguments broadcast.

    Args:
        r: coordinate in units of the square root of the temperature.
        amplitude: A = M exp(-t) / sqrt(T).
        classes: number K of classes, two at least.

    Raises:
        ValueError: for a concrete number of classes below two.

    Source: Achilli, Benedetti, Biroli, Mezard 2026 (2602.04404); (4).
    """
    _require_classes(classes)
    r, amplitude, classes = floats(r, amplitude, classes)
    field = r * amplitude
    others = jnp.log(classes - 1) - field / (classes - 1)
    return 0.5 * r**2 - 2 * (jnp.logaddexp(field, others) - jnp.log(classes))


def simplex_instability(classes: ArrayLike) -> Array:
    r"""Amplitude at which the origin between simplex classes becomes unstable.

    .. math:: A_U = \sqrt{(K-1)/2}

    Args:
        classes: number K of classes, two at least, any shape.

    Raises:
        ValueError: for a concrete number of classes below two.

    Source: Achilli, Benedetti, Biroli, Mezard 2026 (2602.04404); (5).
    """
    _require_classes(classes)
    (classes,) = floats(classes)
    return jnp.sqrt((classes - 1) / 2)


def simplex_spinodal(classes: ArrayLike) -> Array:
    r"""Amplitude at which minima first appear away from the origin between simplex classes.

    .. math:: A_{sp}^2 = \min_{s > 0} \frac{K-1}{2K}\, s\, \frac{e^s + K - 1}{e^s - 1}

    Equal to `simplex_instability` for two classes, below it for more.

    Args:
        classes: number K of classes, two at least, any shape.

    Returns:
        NaN where the solver did not converge.

    Raises:
        ValueError: for a concrete number of classes below two.

    Source: Achilli, Benedetti, Biroli, Mezard 2026 (2602.04404); (6), (7).
    """
    _require_classes(classes)
    return _spinodal(*floats(classes))


def simplex_dynamic_time(
    mean_norm: ArrayLike, classes: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Time at which the origin between simplex classes becomes unstable on the way back.

    .. math:: t_U = \log\frac{M}{\sqrt T A_U}

    for a variance within classes equal to the temperature. NaN unless positive.

    Args:
        mean_norm: norm M of a class centre; arguments broadcast.
        classes: number K of classes, two at least.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli, Benedetti, Biroli, Mezard 2026 (2602.04404); (5).
    """
    return _time_of_amplitude(mean_norm, simplex_instability(classes), temperature)


def simplex_spinodal_time(
    mean_norm: ArrayLike, classes: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Time at which minima first appear away from the origin between simplex classes.

    .. math:: t_{sp} = \log\frac{M}{\sqrt T A_{sp}}

    for a variance within classes equal to the temperature. NaN unless positive.

    Args:
        mean_norm: norm M of a class centre; arguments broadcast.
        classes: number K of classes, two at least.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Achilli, Benedetti, Biroli, Mezard 2026 (2602.04404); (6).
    """
    return _time_of_amplitude(mean_norm, simplex_spinodal(classes), temperature)


def _fields(
    y: ArrayLike,
    t: ArrayLike,
    mean_norm: ArrayLike,
    variance: ArrayLike,
    weight: ArrayLike,
    temperature: ArrayLike,
) -> tuple[Array, Array, Array, Array, Array]:
    checks.require_mean_norm(mean_norm)
    checks.require_weight(weight)
    values = floats(y, t, mean_norm, variance, weight, temperature)
    spread = state_variance(t, variance, temperature)
    y, t, mean_norm, variance, weight, temperature = values
    spread = spread.astype(y.dtype)
    bias = 0.5 * (jnp.log(weight) - jnp.log1p(-weight))
    return y, spread, mean_norm * jnp.exp(-t) / spread, bias, temperature


def _log_cosh(x: Array) -> Array:
    return jnp.logaddexp(x, -x) - jnp.log(jnp.asarray(2, x.dtype))


def _require_classes(classes: ArrayLike) -> None:
    checks.require("classes", classes, lambda v: v >= 2, ">= 2", "pass the number of classes")


def _time_of_amplitude(mean_norm: ArrayLike, amplitude: Array, temperature: ArrayLike) -> Array:
    checks.require_mean_norm(mean_norm)
    checks.require_temperature(temperature)
    mean_norm, amplitude, temperature = floats(mean_norm, amplitude, temperature)
    ratio = mean_norm / jnp.sqrt(temperature) / amplitude
    exists = ratio > 1
    return jnp.where(exists, jnp.log(jnp.where(exists, ratio, 2)), jnp.nan)


def spinodal_argument(k: Array) -> Array:
    """Positive root s of (7) for a scalar number of classes above two."""

    def excess(s: Array) -> Array:  # (7) over s^2 removes the double root at the origin
        return (jnp.expm1(s) - (k - 1) * jnp.expm1(-s) - k * s) / s**2

    return find_root(excess, 1.5 * (k - 2) / k, 2 * jnp.log(k) + 2).value


def _spinodal_kernel(classes: Array) -> Array:
    more = classes > 2
    k = jnp.where(more, classes, 3)
    s = spinodal_argument(k)
    squared = (k - 1) / (2 * k) * s * (jnp.exp(s) + k - 1) / jnp.expm1(s)
    return jnp.sqrt(jnp.where(more, squared, (classes - 1) / 2))


_spinodal = elementwise(_spinodal_kernel)
