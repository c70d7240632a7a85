"""Random energies: reference values, Legendre pairs, Poisson-Dirichlet weights, kernels."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

from theory import collapse, kernel_density, memorisation_rem, rem

DIGITS_8 = {"rtol": 0, "atol": 6e-9}
DIGITS_6 = {"rtol": 0, "atol": 6e-7}


def test_reference_free_entropy():
    time = collapse.gaussian_collapse_time(0.25, 1, 1.0)
    value = memorisation_rem.others_free_entropy(time * np.array([0.5, 0.7, 1, 2]), 0.25, 1.0)
    np.testing.assert_allclose(value, [-0.83919188, -0.63918661, -0.5, -0.33410172], **DIGITS_8)
    time = collapse.gaussian_collapse_time(0.25, 1, 0.4)
    state = memorisation_rem.memorisation_state(time / 2, 0.25, 0.4)
    np.testing.assert_allclose(state.free_entropy, -0.76844130, **DIGITS_8)
    np.testing.assert_allclose(state.order, 0.56706, rtol=0, atol=6e-6)


def test_reference_rate_function():
    value = memorisation_rem.energy_rate(np.array([0.5, 0.35]), np.array([0.3, 0.7]), 1.0)
    np.testing.assert_allclose(value, [0.39793518, 0.35429217], **DIGITS_8)


def test_reference_gaussian_energies():
    value = rem.gaussian_free_entropy(np.array([1.0, 2.0]), np.log(2), 1.0)
    np.testing.assert_allclose(value, [1.19314718, 2.35482005], **DIGITS_8)
    state = rem.random_energy_state(lambda x: x**2 / 2, np.log(2), 2.0)
    np.testing.assert_allclose(state.free_entropy, value[1], rtol=1e-12)
    np.testing.assert_allclose(state.order, np.sqrt(2 * np.log(2)) / 2, rtol=1e-12)
    np.testing.assert_allclose(state.lowest_energy, -np.sqrt(2 * np.log(2)), rtol=1e-12)


def test_reference_kernel_widths():
    widths = kernel_density.kernel_widths(np.array([0.1, 0.5]))
    np.testing.assert_allclose(widths.condensation**-2, [0.532184, 2.351317], **DIGITS_6)
    np.testing.assert_allclose(widths.condensation, [1.370785, 0.652145], **DIGITS_6)
    np.testing.assert_allclose(widths.gaussian, [1.938582, 0.922273], **DIGITS_6)
    np.testing.assert_allclose(widths.optimal, [1.038572, 0.622436], **DIGITS_6)
    participation = kernel_density.kernel_participation(
        widths.condensation * np.array([0.5, 2]), np.array([0.1, 0.5])
    )
    np.testing.assert_allclose(participation, [0.75, 0], rtol=1e-12)


def cumulant(tilt, t, variance, temperature, separation=0.0):
    """log E exp(-tilt E) per coordinate, written in Delta and s."""
    noise, s = -temperature * np.expm1(-2 * t), variance * np.exp(-2 * t)
    distance = s + noise + separation * np.exp(-2 * t)
    u = s / noise
    return -0.5 * np.log1p(tilt * u) - tilt * distance / (2 * noise) / (1 + tilt * u)


@pytest.mark.parametrize("separation", [0.0, 0.5])
def test_free_entropy_is_the_minimum_over_the_index(separation):
    t, alpha, variance, temperature = 0.15, 0.3, 0.4, 0.6
    state = memorisation_rem.memorisation_state(t, alpha, variance, temperature, separation)

    def bound(m):
        return (alpha + cumulant(m, t, variance, temperature, separation)) / m

    best = minimize_scalar(bound, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-10})
    np.testing.assert_allclose(state.free_entropy, best.fun, rtol=1e-10)
    np.testing.assert_allclose(state.order, best.x, atol=1e-5)
    np.testing.assert_allclose(state.lowest_energy, -state.free_entropy, rtol=1e-11)


def test_phases_join_at_the_collapse_time():
    alpha, variance, temperature = 0.3, 0.4, 0.6
    time = collapse.gaussian_collapse_time(alpha, 1, variance, temperature)
    around = memorisation_rem.memorisation_state(
        time * np.array([0.999, 1.001]), alpha, variance, temperature
    )
    np.testing.assert_allclose(around.free_entropy, -0.5, atol=2e-3)
    assert around.order[0] < 1
    assert around.order[1] == 1
    # the other class is further away and condenses at a time of its own
    other = memorisation_rem.memorisation_state(time, alpha, variance, temperature, 0.5)
    assert other.order != 1 or other.free_entropy < -0.5
    slopes = jax.vmap(jax.grad(memorisation_rem.others_free_entropy), (0, None, None))(
        np.array([0.05, 0.9]), alpha, variance
    )
    assert np.isfinite(slopes).all()


def test_leave_one_out_is_the_excess_entropy_above_collapse():
    alpha, variance = 0.3, 0.4
    t = collapse.gaussian_collapse_time(alpha, 1, variance) * np.array([0.5, 1.5])
    value = memorisation_rem.leave_one_out_excess_entropy(t, alpha, variance)
    exact = collapse.gaussian_excess_entropy(t, alpha, 1, variance)
    np.testing.assert_allclose(value[1], exact[1], rtol=1e-12)
    assert value[0] < exact[0] < 0


def test_energy_and_tilt_are_a_legendre_pair():
    t, variance, temperature = 0.4, 0.5, 0.7
    tilt = np.array([0.05, 0.6, 3.0])
    energy = memorisation_rem.typical_energy(tilt, t, variance, temperature)
    h = 1e-6
    ends = [cumulant(tilt + move, t, variance, temperature) for move in (h, -h)]
    slope = (ends[0] - ends[1]) / (2 * h)
    np.testing.assert_allclose(energy, -slope, rtol=1e-8)
    back = memorisation_rem.energy_tilt(energy, t, variance, temperature)
    np.testing.assert_allclose(back, tilt, rtol=1e-11)
    rate = memorisation_rem.energy_rate(energy, t, variance, temperature)
    for i in range(3):
        best = minimize_scalar(
            lambda x, i=i: cumulant(x, t, variance, temperature) + x * float(energy[i]),
            bounds=(-0.2, 9), method="bounded", options={"xatol": 1e-10},
        )  # fmt: skip
        np.testing.assert_allclose(rate[i], -best.fun, rtol=1e-9)
    mean = memorisation_rem.typical_energy(0.0, t, variance, temperature)
    np.testing.assert_allclose(
        memorisation_rem.energy_rate(mean, t, variance, temperature), 0, atol=1e-12
    )
    assert memorisation_rem.energy_tilt(mean * 1.1, t, variance, temperature) < 0


def test_lowest_energy_exhausts_the_points():
    t, alpha, variance = 0.12, 0.3, 0.4
    state = memorisation_rem.memorisation_state(t, alpha, variance)
    rate = memorisation_rem.energy_rate(state.lowest_energy, t, variance)
    np.testing.assert_allclose(rate, alpha, rtol=1e-11)


def test_participation_of_poisson_dirichlet_weights():
    """Points of a Poisson process of density m x^(-1-m) are Gamma sums to the power -1/m."""
    rng = np.random.default_rng(10)
    order = 0.4
    weights = np.cumsum(rng.exponential(size=(20_000, 400)), axis=1) ** (-1 / order)
    weights /= weights.sum(1, keepdims=True)
    for power in (2.0, 3.5):
        sample = (weights**power).sum(1)
        error = sample.std() / np.sqrt(sample.size)
        assert abs(sample.mean() - rem.participation_moment(power, order)) < 4 * error
    squares = (weights**2).sum(1) ** 2
    error = squares.std() / np.sqrt(squares.size)
    assert abs(squares.mean() - rem.squared_participation(order)) < 4 * error
    np.testing.assert_allclose(rem.participation_moment(2, order), 1 - order, rtol=1e-13)
    assert rem.participation_moment(3, 1.0) == 0


def test_annealed_and_condensed_energies_by_enumeration():
    """A million Gaussian energies, N = log(M)/alpha: logarithms of order log(N)/N remain."""
    rng = np.random.default_rng(11)
    count, alpha = 10**6, 0.5
    size = np.log(count) / alpha
    energies = rng.normal(size=(8, count)) * np.sqrt(size)
    for beta in (0.5, 2.0):
        scaled = -beta * energies
        top = scaled.max(1, keepdims=True)
        logs = (top[:, 0] + np.log(np.exp(scaled - top).sum(1))) / size
        theory = rem.gaussian_free_entropy(beta, alpha, 1.0)
        assert abs(logs.mean() - theory) < 0.15


def test_kernel_condensation_by_brute_force():
    alpha = 0.2
    w = brentq(lambda w: 0.5 * np.log1p(w) - 0.5 * w / (1 + w) ** 2 - alpha, 1e-6, 50, xtol=1e-14)
    np.testing.assert_allclose(
        kernel_density.kernel_widths(alpha).condensation, w**-0.5, rtol=1e-11
    )
