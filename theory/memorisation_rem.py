r"""The Random Energy Model of memorisation: energies are distances to training points.

For Gaussian data of variance :math:`\sigma^2` the energies
:math:`E_\mu = |x - e^{-t}a_\mu|^2/2\Delta` of the other training points have, per coordinate,

.. math:: g(\lambda) = -\tfrac12\log(1 + \lambda u) - \frac{\lambda\rho/2}{1 + \lambda u}, \qquad
   u = \frac{\sigma^2 e^{-2t}}{\Delta}, \quad \rho = \frac{R}{\Delta}, \tag{1}

where :math:`R = |x - e^{-t}m|^2/d` is the squared distance per coordinate from the centre of
their class: :math:`\rho = 1 + u` for the own class, and :math:`4\tilde\mu^2 e^{-2t}/\Delta` more
for the other of two classes at :math:`\pm m` with :math:`|m|^2 = d\tilde\mu^2`. At
:math:`\beta = 1`

.. math:: \psi_+(t) = \lim \tfrac1d E\log Z_{2..n} = \begin{cases}
   \alpha - \frac12 - \frac12\log(1 + u) & t \ge t_C \\ -\epsilon_\min(t) & t < t_C \end{cases}
   \tag{2}

for the own class; both are :math:`-\frac12` at :math:`t_C`, and :math:`\psi_+ < -\frac12` below, so
that with the own point, of energy :math:`\frac12`, planted among them

.. math:: \lim \tfrac1d E\log Z_{1..n} = \max(-\tfrac12, \psi_+). \tag{3}

With :math:`s = \sigma^2 e^{-2t}` the energy carried at :math:`\lambda`, its inverse and the rate
function of the own class are

.. math:: \epsilon^*(\lambda) = \frac{\Delta^2 + 2\Delta s + \lambda s^2}{2(\Delta + \lambda
   s)^2}, \qquad
   \lambda^*(\epsilon) = \frac{s - 4\Delta\epsilon + A}{4s\epsilon}, \quad
   A = \sqrt{s^2 + 8\epsilon\Delta(\Delta + s)}, \tag{4}

.. math:: f(\epsilon) = -g(\lambda^*) - \lambda^*\epsilon, \tag{5}

and :math:`f(\epsilon_\min) = \alpha`. Exact as :math:`d \to \infty` with :math:`\log n/d` fixed.

Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), with the misprints of its appendix
corrected (:math:`\lambda s^2` in the first of (4)).
"""

import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.channel import signal_ratio, snr
from theory.checks import Array, elementwise, floats
from theory.cumulants import noncentral_chi_square
from theory.rem import RandomEnergyState, random_energy_state


def memorisation_state(
    t: ArrayLike,
    alpha: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
    separation: ArrayLike = 0.0,
) -> RandomEnergyState:
    r"""Free energy, order parameter and energy of the other training points.

    .. math:: \psi = \lim \tfrac1d E\log\sum_{\mu} e^{-E_\mu}

    Below the collapse time of the class the order parameter m is less than 1, and two independent
    draws from these points agree with probability 1 - m.

    Args:
        t: time, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate.
        variance: variance per coordinate within a class, positive.
        temperature: temperature of the process.
        separation: squared distance per coordinate between the centre of the points and that of the
            class of the state: 0 for the own class, 4 |m|^2 / d for the other one at -m.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1), (2).
    """
    _require(t, variance, temperature)
    checks.require_positive("alpha", alpha, "pass log(n)/d of at least two points")
    checks.require_variance(separation, "separation")
    values = _state(*floats(t, alpha, variance, temperature, separation))
    return RandomEnergyState(*values)


def others_free_energy(
    t: ArrayLike,
    alpha: ArrayLike,
    variance: ArrayLike,
    temperature: ArrayLike = 1.0,
    separation: ArrayLike = 0.0,
) -> Array:
    r"""Log weight per coordinate of all training points but the own one.

    .. math:: \psi_+(t) = \lim \tfrac1d E\log Z_{2..n}

    NaN where the solver did not converge.

    Args:
        t: time, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate.
        variance: variance per coordinate within a class, positive.
        temperature: temperature of the process.
        separation: see `memorisation_state`.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    return memorisation_state(t, alpha, variance, temperature, separation).free_energy


def all_points_free_energy(
    t: ArrayLike, alpha: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Log weight per coordinate of all training points, the own one planted among them.

    .. math:: \lim \tfrac1d E\log Z_{1..n} = \max(-\tfrac12, \psi_+(t))

    Half more than it is the empirical excess entropy, which is 0 below the collapse time. With a
    kink there, where each side takes half of the derivative.

    Args:
        t: time, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate.
        variance: variance per coordinate, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (3).
    """
    return jnp.maximum(-0.5, others_free_energy(t, alpha, variance, temperature))


def leave_one_out_excess_entropy(
    t: ArrayLike, alpha: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Excess entropy with the own point left out, for one Gaussian in large dimension.

    .. math:: f_\mathrm{LOO}(t) = \tfrac12 + \psi_+(t)

    It equals the excess entropy above the collapse time and is more negative below.

    Args:
        t: time, positive; arguments broadcast.
        alpha: logarithm of the number of points per coordinate.
        variance: variance per coordinate, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (2).
    """
    return 0.5 + others_free_energy(t, alpha, variance, temperature)


def typical_energy(
    tilt: ArrayLike, t: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Energy per coordinate that dominates the tilted average over the own class.

    .. math:: \epsilon^*(\lambda) = \frac{\Delta^2 + 2\Delta s + \lambda s^2}{2(\Delta + \lambda
       s)^2}

    Args:
        tilt: the tilt :math:`\lambda`, not negative; arguments broadcast.
        t: time, positive.
        variance: variance per coordinate, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), corrected; (4).
    """
    _require(t, variance, temperature)
    tilt, t, variance, temperature = floats(tilt, t, variance, temperature)
    u = signal_ratio(t, variance, temperature)
    return (1 + 2 * u + tilt * u**2) / (2 * (1 + tilt * u) ** 2)


def energy_tilt(
    energy: ArrayLike, t: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Tilt at which an energy per coordinate is typical; negative above the mean energy.

    .. math:: \lambda^*(\epsilon) = \frac{s - 4\Delta\epsilon + A}{4s\epsilon}, \qquad
       A = \sqrt{s^2 + 8\epsilon\Delta(\Delta + s)}

    Args:
        energy: energy per coordinate, positive; arguments broadcast.
        t: time, positive.
        variance: variance per coordinate, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (4).
    """
    _require(t, variance, temperature)
    checks.require_positive("energy", energy, "energies are squared distances")
    energy, t, variance, temperature = floats(energy, t, variance, temperature)
    u = signal_ratio(t, variance, temperature)
    root = jnp.sqrt(u**2 + 8 * energy * (1 + u))
    return (u - 4 * energy + root) / (4 * u * energy)


def energy_rate(
    energy: ArrayLike, t: ArrayLike, variance: ArrayLike, temperature: ArrayLike = 1.0
) -> Array:
    r"""Rate function of the energy per coordinate of a point of the own class.

    .. math:: f(\epsilon) = -g(\lambda^*) - \lambda^*\epsilon, \qquad
       P[E \approx d\epsilon] \sim e^{-d f(\epsilon)}

    Args:
        energy: energy per coordinate, positive; arguments broadcast.
        t: time, positive.
        variance: variance per coordinate, positive.
        temperature: temperature of the process.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), corrected; (5).
    """
    tilt = energy_tilt(energy, t, variance, temperature)
    energy, t, variance, temperature = floats(energy, t, variance, temperature)
    u = signal_ratio(t, variance, temperature)
    return -noncentral_chi_square(u, 1 + u)(tilt) - tilt * energy


def _require(t: ArrayLike, variance: ArrayLike, temperature: ArrayLike) -> None:
    checks.require_positive("t", t, "energies are infinite at t = 0")
    checks.require_positive("variance", variance, "points without spread have one energy")
    checks.require_temperature(temperature)


def _state_kernel(
    t: Array, alpha: Array, variance: Array, temperature: Array, separation: Array
) -> RandomEnergyState:
    u = signal_ratio(t, variance, temperature)
    distance = 1 + u + separation * snr(t, temperature)
    return random_energy_state(jnp.ones_like(t), alpha, noncentral_chi_square(u, distance))


_state = elementwise(_state_kernel)
