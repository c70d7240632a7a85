"""The Random Energy Model of memorisation: reference values, phases, Legendre pairs."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from theory import collapse, memorisation_rem

DIGITS_8 = {"rtol": 0, "atol": 6e-9}


def test_reference_free_energy():
    time = collapse.gaussian_collapse_time(0.25, 1, 1.0)
    value = memorisation_rem.others_free_energy(time * np.array([0.5, 0.7, 1, 2]), 0.25, 1.0)
    np.testing.assert_allclose(value, [-0.83919188, -0.63918661, -0.5, -0.33410172], **DIGITS_8)
    time = collapse.gaussian_collapse_time(0.25, 1, 0.4)
    state = memorisation_rem.memorisation_state(time / 2, 0.25, 0.4)
    np.testing.assert_allclose(state.free_energy, -0.76844130, **DIGITS_8)
    np.testing.assert_allclose(state.order, 0.56706, rtol=0, atol=6e-6)


def test_reference_rate_function():
    value = memorisation_rem.energy_rate(np.array([0.5, 0.35]), np.array([0.3, 0.7]), 1.0)
    np.testing.assert_allclose(value, [0.39793518, 0.35429217], **DIGITS_8)


def cumulant(tilt, t, variance, temperature, separation=0.0):
    """log E exp(-tilt E) per coordinate, written in Delta and s."""
    noise, s = -temperature * np.expm1(-2 * t), variance * np.exp(-2 * t)
    distance = s + noise + separation * np.exp(-2 * t)
    u = s / noise
    return -0.5 * np.log1p(tilt * u) - tilt * distance / (2 * noise) / (1 + tilt * u)


@pytest.mark.parametrize("separation", [0.0, 0.5])
def test_free_energy_is_the_minimum_over_the_index(separation):
    t, alpha, variance, temperature = 0.15, 0.3, 0.4, 0.6
    state = memorisation_rem.memorisation_state(t, alpha, variance, temperature, separation)

    def bound(m):
        return (alpha + cumulant(m, t, variance, temperature, separation)) / m

    best = minimize_scalar(bound, bounds=(0.01, 1), method="bounded", options={"xatol": 1e-10})
    np.testing.assert_allclose(state.free_energy, best.fun, rtol=1e-10)
    np.testing.assert_allclose(state.order, best.x, atol=1e-5)
    np.testing.assert_allclose(state.energy, -state.free_energy, rtol=1e-11)


def test_phases_join_at_the_collapse_time():
    alpha, variance, temperature = 0.3, 0.4, 0.6
    time = collapse.gaussian_collapse_time(alpha, 1, variance, temperature)
    around = memorisation_rem.memorisation_state(
        time * np.array([0.999, 1.001]), alpha, variance, temperature
    )
    np.testing.assert_allclose(around.free_energy, -0.5, atol=2e-3)
    assert around.order[0] < 1
    assert around.order[1] == 1
    # the other class is further away and condenses at a time of its own
    other = memorisation_rem.memorisation_state(time, alpha, variance, temperature, 0.5)
    assert other.order != 1 or other.free_energy < -0.5
    slopes = jax.vmap(jax.grad(memorisation_rem.others_free_energy), (0, None, None))(
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
    rate = memorisation_rem.energy_rate(state.energy, t, variance)
    np.testing.assert_allclose(rate, alpha, rtol=1e-11)


def test_own_point_planted_among_the_others():
    """With it the log weight is that of the larger part, and flat below the collapse time."""
    alpha, variance, temperature = 0.3, 0.4, 0.6
    time = collapse.gaussian_collapse_time(alpha, 1, variance, temperature)
    t = time * np.array([0.3, 0.9, 1.2, 3.0])
    value = memorisation_rem.all_points_free_energy(t, alpha, variance, temperature)
    others = memorisation_rem.others_free_energy(t, alpha, variance, temperature)
    np.testing.assert_array_equal(value[:2], -0.5)
    np.testing.assert_array_equal(value[2:], others[2:])
    assert (others[:2] < -0.5).all()
    # with 1/2 it is the excess entropy above collapse
    exact = collapse.gaussian_excess_entropy(t[2:], alpha, 1, variance, temperature)
    np.testing.assert_allclose(0.5 + value[2:], exact, rtol=1e-12)
