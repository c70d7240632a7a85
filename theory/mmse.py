r"""From the loss curve of a denoiser to information, excess entropy and collapse time.

The mean squared error of the best denoiser gives the information between datum and state,

.. math:: I = \tfrac12 \int_0^\mathrm{snr} \mathrm{mmse}(s) ds
   = \tfrac12 \int_{-\infty}^{\log \mathrm{snr}} \ell \; d\log\mathrm{snr}
   = \int_t^\infty \mathrm{mmse} \frac{e^{2t'} dt'}{T(e^{2t'} - 1)^2} \tag{1}

with the loss of noise prediction
:math:`\ell = E|z - \hat\epsilon|^2 = \mathrm{snr} \cdot \mathrm{mmse}`. All three are done in
:math:`y = \log\mathrm{snr}`, where curves are smooth on the scale one. On measured points the
integral of the trapezoid rule is corrected by the slopes :math:`\ell'` of neighbouring points,
:math:`\frac{h^2}{12}(\ell'_j - \ell'_{j+1})` (2); below the first point the error is taken
constant in snr, so this piece is :math:`\ell_0/2` (3). The rule is linear in :math:`\ell`, hence
independent standard errors propagate through its matrix.

An imperfect denoiser has a larger error and therefore overestimates information and collapse time.

Source: Guo, Shamai, Verdu 2005 (cs/0412108).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from theory import checks
from theory.checks import Array, floats
from theory.quadrature import integrate


class Estimate(NamedTuple):
    """A number, or an array of them, with two kinds of uncertainty."""

    value: Array
    """The estimate."""
    standard_error: Array
    """One standard deviation, from the standard errors that were passed; zero without them."""
    discretisation: Array
    """Upper estimate of the error made by integrating between the points."""


def information_from_noise_loss(
    log_snr: ArrayLike, loss: ArrayLike, standard_error: ArrayLike | None = None
) -> Estimate:
    r"""Information at each point of a curve of noise-prediction losses, in nats.

    .. math:: I = \tfrac12 \int_{-\infty}^{\log\mathrm{snr}} \ell \; d\log\mathrm{snr}

    Args:
        log_snr: increasing, shape (N,), N >= 2; the first should lie where mmse is constant.
        loss: squared error of the noise prediction, summed over coordinates, shape (N,).
        standard_error: standard errors of ``loss``, shape (N,), independent.

    Returns:
        Shape (N,) each.

    Raises:
        ValueError: for concrete points that do not increase, or shapes that differ.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (1).
    """
    error = jnp.zeros_like(jnp.asarray(loss)) if standard_error is None else standard_error
    y, loss, error = floats(log_snr, loss, error)
    if y.ndim != 1 or y.shape != loss.shape or error.shape != y.shape or y.shape[0] < 2:
        raise ValueError(
            f"log_snr, loss and standard_error have shapes {y.shape}, {loss.shape}, {error.shape}, "
            "expected the same (N,) with N >= 2; pass one curve, and use vmap for several"
        )
    _require_increasing("log_snr", y)
    return _integrate_curve(y, loss, error)


def information_from_mmse(
    snr: ArrayLike,
    mmse: ArrayLike | Callable[[Array], Array],
    standard_error: ArrayLike | None = None,
) -> Estimate:
    r"""Information at each signal-to-noise ratio, from the error of the best denoiser.

    .. math:: I(\mathrm{snr}) = \tfrac12 \int_0^\mathrm{snr} \mathrm{mmse}(s) ds

    Args:
        snr: increasing and positive, shape (N,), N >= 2.
        mmse: squared error summed over coordinates, shape (N,), or a function of snr, which is then
            integrated by Gauss-Legendre rules of 16 nodes between the points.
        standard_error: standard errors of ``mmse``, shape (N,), independent; not for a function.

    Returns:
        Shape (N,) each.

    Raises:
        ValueError: for concrete points that are not positive and increasing.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (1).
    """
    checks.require_positive("snr", snr, "leave out the point at infinite time")
    if callable(mmse):
        (points,) = floats(snr)
        _require_increasing("snr", points)
        value, coarse = _integrate_function(mmse, points, 16), _integrate_function(mmse, points, 8)
        return Estimate(value, jnp.zeros_like(value), jnp.abs(value - coarse))
    snr, mmse = floats(snr, mmse)
    error = None if standard_error is None else snr * floats(standard_error)[0]
    return information_from_noise_loss(jnp.log(snr), snr * mmse, error)


def information_from_mmse_in_time(
    t: ArrayLike,
    mmse: ArrayLike,
    standard_error: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Estimate:
    r"""Information at each time, from the error of the best denoiser.

    .. math:: I(t) = \int_t^\infty \mathrm{mmse}(t') \frac{e^{2t'} dt'}{T(e^{2t'} - 1)^2}

    Args:
        t: increasing and positive, shape (N,), N >= 2; the last should lie where mmse is constant.
        mmse: squared error summed over coordinates, shape (N,).
        standard_error: standard errors of ``mmse``, shape (N,), independent.
        temperature: temperature of the process.

    Returns:
        Shape (N,) each, in the order of ``t``.

    Raises:
        ValueError: for concrete times that are not positive and increasing.

    Source: Guo, Shamai, Verdu 2005 (cs/0412108); (1).
    """
    checks.require_positive("t", t, "leave out t = 0, where the information may be infinite")
    checks.require_temperature(temperature)
    t, mmse, temperature = floats(t, mmse, temperature)
    _require_increasing("t", t)
    snr = jnp.exp(-2 * t) / (-temperature * jnp.expm1(-2 * t))
    error = None if standard_error is None else jnp.flip(floats(standard_error)[0])
    curve = information_from_mmse(jnp.flip(snr), jnp.flip(mmse), error)
    return jax.tree.map(jnp.flip, curve)


def excess_entropy_from_mmse(
    log_n: ArrayLike,
    dim: ArrayLike,
    t: ArrayLike,
    mmse: ArrayLike,
    standard_error: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Estimate:
    r"""Excess entropy per coordinate at each time, from the error of the best denoiser.

    .. math:: f(t) = \frac{\log n - I(t)}{d}

    Args:
        log_n: natural logarithm of the number of training points.
        dim: number of coordinates.
        t: increasing and positive, shape (N,), N >= 2.
        mmse: squared error summed over coordinates, shape (N,).
        standard_error: standard errors of ``mmse``, shape (N,), independent.
        temperature: temperature of the process.

    Returns:
        Shape (N,) each.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    checks.require_size(log_n, dim)
    info = information_from_mmse_in_time(t, mmse, standard_error, temperature)
    log_n, dim = floats(log_n, dim)
    return Estimate(
        (log_n - info.value) / dim, info.standard_error / dim, info.discretisation / dim
    )


def collapse_time_from_mmse(
    log_n: ArrayLike,
    t: ArrayLike,
    mmse: ArrayLike,
    standard_error: ArrayLike | None = None,
    temperature: ArrayLike = 1.0,
) -> Estimate:
    r"""Collapse time, from the error of the best denoiser.

    .. math:: I(t_C) = \log n

    NaN where the curve of information does not cross on the given times.

    Args:
        log_n: natural logarithm of the number of training points, a scalar.
        t: increasing and positive, shape (N,), N >= 2.
        mmse: squared error summed over coordinates, shape (N,).
        standard_error: standard errors of ``mmse``, shape (N,), independent.
        temperature: temperature of the process.

    Returns:
        Scalars.

    Raises:
        ValueError: for concrete arguments out of range.

    Source: Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491); (1).
    """
    checks.require_positive("log_n", log_n, "two training points are needed")
    info = information_from_mmse_in_time(t, mmse, standard_error, temperature)
    return _cross(info, *floats(t, mmse, log_n, temperature))


@jax.jit
def _cross(info: Estimate, t: Array, mmse: Array, log_n: Array, temperature: Array) -> Estimate:
    """Time at which the curve of information equals ``log_n``, and how far errors move it."""
    crossed = (info.value[0] >= log_n) & (info.value[-1] <= log_n)
    low = jnp.clip(jnp.searchsorted(-info.value, -log_n), 1, t.shape[0] - 1)
    ends = jnp.stack([low, low - 1])
    snr = jnp.exp(-2 * t[ends]) / (-temperature * jnp.expm1(-2 * t[ends]))
    slopes = 2 / (snr * mmse[ends])  # d log snr / d I
    y, fraction = _inverse_hermite(info.value[ends], jnp.log(snr), slopes, log_n)
    ratio = jnp.exp(-y) / temperature
    per_nat = 0.5 * ratio / (1 + ratio) * (slopes[0] + fraction * (slopes[1] - slopes[0]))

    def at_crossing(values: Array) -> Array:
        inside = values[ends[0]] + fraction * (values[ends[1]] - values[ends[0]])
        return jnp.where(crossed, per_nat * inside, jnp.nan)

    value = jnp.where(crossed, 0.5 * jnp.log1p(ratio), jnp.nan)
    return Estimate(value, at_crossing(info.standard_error), at_crossing(info.discretisation))


def _require_increasing(name: str, points: Array) -> None:
    steps = points if isinstance(points, jax.core.Tracer) else points[1:] - points[:-1]
    fix = "sort the curve and merge equal points"
    checks.require(f"every step of {name}", steps, lambda v: v > 0, "positive", fix)


def _inverse_hermite(info: Array, y: Array, slopes: Array, target: Array) -> tuple[Array, Array]:
    """Cubic through both ends as a function of the information, at ``target``."""
    width = info[1] - info[0]
    s = (target - info[0]) / width
    start, end = (1 + 2 * s) * (1 - s) ** 2, s**2 * (3 - 2 * s)
    bend = s * (1 - s) * ((1 - s) * slopes[0] - s * slopes[1])
    return start * y[0] + end * y[1] + width * bend, s


def _integrate_function(mmse: Callable[[Array], Array], snr: Array, nodes: int) -> Array:
    first = 0.5 * integrate(mmse, jnp.zeros_like(snr[0]), snr[0], nodes)
    y = jnp.log(snr)
    pieces = 0.5 * integrate(lambda v: jnp.exp(v) * mmse(jnp.exp(v)), y[:-1], y[1:], nodes)
    return first + jnp.concatenate([jnp.zeros_like(y[:1]), jnp.cumsum(pieces)])


@jax.jit
def _integrate_curve(y: Array, loss: Array, error: Array) -> Estimate:
    matrix = jax.vmap(lambda column: _cumulate(y, column, True))(jnp.eye(y.shape[0], dtype=y.dtype))
    value = loss @ matrix
    correction = jnp.abs(value - _cumulate(y, loss, False))
    snr = jnp.exp(y[:2])
    bend = (loss[1] / snr[1] - loss[0] / snr[0]) / (snr[1] - snr[0])
    below = (
        jnp.abs(bend) * snr[0] ** 2 / 2
    )  # twice the piece of mmse linear instead of constant in (3)
    return Estimate(value, jnp.sqrt(error**2 @ matrix**2), correction + below)


def _cumulate(y: Array, loss: Array, corrected: bool) -> Array:
    """Cumulative integral of a curve by (2), with or without the slopes, and (3)."""
    h = y[1:] - y[:-1]
    pieces = 0.5 * h * (loss[1:] + loss[:-1])
    if corrected:
        slope = _slopes(h, loss)
        pieces = pieces + h**2 / 12 * (slope[:-1] - slope[1:])
    return 0.5 * (loss[0] + jnp.concatenate([jnp.zeros_like(h[:1]), jnp.cumsum(pieces)]))


def _slopes(h: Array, values: Array) -> Array:
    """Three-point derivatives on uneven points, one-sided and of the same order at the ends."""
    chords = (values[1:] - values[:-1]) / h
    if chords.shape[0] == 1:
        return jnp.concatenate([chords, chords])
    inner = (h[:-1] * chords[1:] + h[1:] * chords[:-1]) / (h[:-1] + h[1:])
    first = 2 * chords[:1] - inner[:1]
    last = 2 * chords[-1:] - inner[-1:]
    return jnp.concatenate([first, inner, last])
