"""Fixed points of generative drifts: published numbers, roots by scipy, sums over the posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from theory.potentials import reduced_potential
from theory.speciation import centre_times, dynamic_time, fixed_point_time, static_time
from theory.symmetry_breaking import (
    centre_rate,
    field_free_energy,
    field_magnetization,
    field_susceptibility,
    linear_schedule_index,
    linear_schedule_time,
    ordered_radius,
    sphere_order,
    sphere_rates,
)


def time(theta):
    return -np.log(theta)


# The centre ---------------------------------------------------------------------------------------


def test_published_times_of_the_centre():
    eigenvalue = np.array([0.25, 1.0, 5.0, 100.0])
    t = np.asarray(fixed_point_time(eigenvalue))
    np.testing.assert_allclose(np.exp(-t), [0.883616, 0.643594, 0.314674, 0.070710], atol=5.1e-7)
    np.testing.assert_allclose(t, [0.123733, 0.440687, 1.156219, 2.649171], atol=5.1e-7)
    s = np.asarray(linear_schedule_index(t))
    np.testing.assert_allclose(s, [0.152760, 0.292642, 0.477086, 0.724716], atol=5.1e-7)
    np.testing.assert_allclose(t[1], 0.4406867935, atol=5.1e-11)
    np.testing.assert_allclose(s[1], 0.2926416543, atol=5.1e-11)
    np.testing.assert_allclose(np.exp(-t[1]), np.sqrt(np.sqrt(2) - 1), rtol=1e-14)
    np.testing.assert_allclose(np.exp(-t[1]), 0.6435942529, atol=5.1e-11)


def test_published_times_by_criterion():
    found = centre_times(np.array([0.1, 0.25, 1.0, 5.0]))
    np.testing.assert_allclose(found.log_density[2:], [0.346574, 0.895880], atol=5.1e-7)
    np.testing.assert_allclose(found.ode[:2], [0.052680, 0.143841], atol=5.1e-7)
    assert np.all(np.isposinf(found.ode[2:]))
    q = np.exp(-2 * np.asarray(fixed_point_time(1.0, np.array([0.5, 3.0]))))
    np.testing.assert_allclose(q, [0.3660254, 0.4641016], atol=5.1e-8)


@given(
    st.floats(1e-6, 1e4), st.floats(1e-3, 50) | st.just(0.0), st.floats(0.2, 5)
)  # fmt: skip
def test_time_is_the_zero_of_the_rate(eigenvalue, noise, temperature):
    t = float(fixed_point_time(eigenvalue, noise, temperature))
    if noise == 0 and eigenvalue >= temperature:
        assert t == np.inf
        return
    q, ratio = np.exp(-2 * t), eigenvalue / temperature
    residual = q**2 + ((1 + noise) * (1 + ratio) - 2) * q - noise
    assert abs(residual) <= 1e-13 * (1 + noise) * (1 + ratio)
    if t > 1e-3:  # the rate has a double pole at t = 0
        slope = [float(centre_rate(t * f, eigenvalue, noise, temperature)) for f in (0.99, 1.01)]
        assert slope[0] > 0 > slope[1]


def test_known_members_of_the_family():
    eigenvalue = np.geomspace(1e-8, 1e8, 17)
    np.testing.assert_allclose(fixed_point_time(eigenvalue, 1.0), dynamic_time(eigenvalue), 1e-13)
    far = fixed_point_time(eigenvalue, 1e12)
    np.testing.assert_allclose(far, static_time(eigenvalue), rtol=1e-11)
    small = eigenvalue[eigenvalue < 1]
    np.testing.assert_allclose(fixed_point_time(small, 0.0), -0.5 * np.log1p(-small), rtol=1e-13)
    assert fixed_point_time(0.0, 0.7) == 0


def test_derivatives_exist_also_where_the_time_does_not():
    slopes = jax.vmap(jax.grad(fixed_point_time, (0, 1)))(
        jnp.array([0.5, 1.0, 3.0, 0.0]), jnp.array([0.0, 0.0, 0.0, 0.5])
    )
    # ODE: dt/dL = 1/(2(1-L)); beyond it, by convention, nothing changes
    np.testing.assert_allclose(slopes[0][:3], [1.0, 0.0, 0.0], atol=1e-14)
    assert np.all(np.isfinite(slopes))
    # NaN only where an argument is invalid and nobody could see it
    assert np.isnan(jax.jit(fixed_point_time)(-1.0))
    assert not np.isnan(jax.jit(fixed_point_time)(1.0, 0.0))


def test_curvature_of_the_potential_of_two_deltas():
    t = time(np.array([0.5, 0.9]))
    np.testing.assert_allclose(-centre_rate(t, 1.0), [0.77777778, -35.34903], rtol=2e-8)
    q, variance = np.exp(-2 * t), -np.expm1(-2 * t)
    np.testing.assert_allclose(-centre_rate(t, 1.0), -(1 + 2 * (2 * q - 1) / variance**2))
    for r, T, tt in ((1.3, 0.6, 0.3), (0.8, 1.4, 0.7)):
        bend = jax.grad(jax.grad(reduced_potential))(0.0, tt, r, 0.0, 0.5, T)
        np.testing.assert_allclose(-centre_rate(tt, r**2, 1.0, T), bend, rtol=1e-10)


# The ordered branch -------------------------------------------------------------------------------


def test_published_ordered_branches():
    two_deltas = ordered_radius(time(np.array([0.7, 0.9, 0.6])), 1.0, 1)
    np.testing.assert_allclose(two_deltas, [0.69917416, 0.99431385, 0.0], atol=5.1e-9)
    theta = np.array([0.7, 0.9, 0.8, 0.97])
    dim, radius = np.array([2, 2, 10, 64]), np.sqrt([2, 2, 10, 16.0])
    ratio = ordered_radius(time(theta), radius, dim) / radius
    np.testing.assert_allclose(ratio, [0.58187786, 0.93663957, 0.73782422, 0.87106787], atol=5.1e-9)


def cosines(dim):
    """Nodes in the cosine of the angle and weights of a sphere in ``dim`` dimensions."""
    if dim == 1:
        return np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    angle, weight = np.polynomial.legendre.leggauss(400)
    angle = 0.5 * np.pi * (angle + 1)
    weight = weight * np.sin(angle) ** (dim - 2)
    return np.cos(angle), weight / weight.sum()


@pytest.mark.parametrize(("dim", "noise"), [(1, 0.0), (1, 0.7), (3, 0.0), (3, 1.0), (7, 2.0)])
def test_branch_and_rates_against_sums_over_the_posterior(dim, noise):
    t, radius, T = 0.17, 1.6, 0.6
    q, variance = np.exp(-2 * t), -T * np.expm1(-2 * t)
    cosine, weight = cosines(dim)

    def moments(R):
        p = weight * np.exp(np.exp(-t) * R * radius * (cosine - 1) / variance)
        p /= p.sum()
        mean = (p * cosine).sum() * radius
        along = radius**2 * (p * cosine**2).sum() - mean**2
        across = radius**2 * (p * (1 - cosine**2)).sum() / max(dim - 1, 1)
        return mean, along, across

    def drift(R):
        return R + (1 + noise) * T * (np.exp(-t) * moments(R)[0] - R) / variance

    R = float(ordered_radius(t, radius, dim, noise, T))
    np.testing.assert_allclose(R, brentq(drift, 0.3, 3 * radius, xtol=1e-14), rtol=1e-11)
    for state in (R, 0.0, 0.4):
        rates = sphere_rates(t, state, radius, dim, noise, T)
        _, along, across = moments(state)
        for rate, covariance in zip(rates, (along, across) if dim > 1 else (along,)):
            expected = 1 + (1 + noise) * T * (q * covariance / variance - 1) / variance
            np.testing.assert_allclose(rate, expected, rtol=1e-9, atol=1e-10)
    if dim > 1:  # Goldstone directions
        assert abs(sphere_rates(t, R, radius, dim, noise, T).transverse) < 1e-12
    assert sphere_rates(t, R, radius, dim, noise, T).radial < 0
    slope = (drift(0.4 + 1e-5) - drift(0.4 - 1e-5)) / 2e-5
    rate = sphere_rates(t, 0.4, radius, dim, noise, T).radial
    np.testing.assert_allclose(rate, slope, rtol=1e-7)


def test_branch_starts_at_the_critical_time_with_exponent_one_half():
    t_c = float(fixed_point_time(1.6**2 / 3, 0.7, 0.6))
    assert ordered_radius(1.001 * t_c, 1.6, 3, 0.7, 0.6) == 0
    near = np.asarray(ordered_radius(t_c * (1 - np.array([4e-6, 1e-6])), 1.6, 3, 0.7, 0.6))
    np.testing.assert_allclose(near[0] / near[1], 2, rtol=1e-4)


# Thermodynamics ----------------------------------------------------------------------------------


def test_published_thermodynamics():
    b = np.array([1.1, 2.0])
    np.testing.assert_allclose(field_magnetization(b), [0.50294057, 0.95750402], atol=5.1e-9)
    free = field_free_energy(np.array([1.5, 4.0]))
    np.testing.assert_allclose(free, [-0.07679611, -0.32679728], atol=5.1e-9)
    chi = np.asarray(field_susceptibility(np.array([0.9, 1.1])))
    np.testing.assert_allclose(chi, [9.0, 4.6102825], atol=5.1e-8)
    chi = np.asarray(field_susceptibility(np.array([0.999, 1.001])))
    np.testing.assert_allclose(chi[0] / chi[1], 1.9995993, atol=5.1e-8)
    isotherm = field_magnetization(1.0, 1e-4) / 3e-4 ** (1 / 3)
    np.testing.assert_allclose(isotherm, 0.9991041, atol=5.1e-8)
    order = sphere_order(np.array([1.5, 2.0]), np.sqrt([2.0, 10.0]), np.array([2, 10]))
    np.testing.assert_allclose(order, [0.724159, 0.730982], atol=5.1e-7)
    near = field_magnetization(1 + 1e-5)
    np.testing.assert_allclose(near, np.sqrt(3e-5 / (1 + 1e-5) ** 3), rtol=1e-4)


def test_thermodynamics_by_minimisation_and_differences():
    b, field = 1.4, 0.07
    grid = np.linspace(0, 1, 200_001)
    energy = grid**2 / 2 - np.log(np.cosh(b * grid)) / b
    np.testing.assert_allclose(field_free_energy(b), energy.min(), atol=1e-9)
    m = brentq(lambda v: v - np.tanh(b * (v + field)), 0.1, 1)
    np.testing.assert_allclose(field_magnetization(b, field), m, rtol=1e-12)
    moved = field_magnetization(b, field + np.array([1e-5, -1e-5]))
    slope = (moved[0] - moved[1]) / 2e-5
    np.testing.assert_allclose(field_susceptibility(b, field), slope, rtol=1e-8)


def test_variance_exploding_branch_is_the_limit_of_much_noise():
    # g -> infinity: stationary points of the log density, x_VE = x / theta
    t, radius, dim = 0.2, 1.3, 4
    R = float(ordered_radius(t, radius, dim, 1e9)) * np.exp(t)
    order = float(sphere_order(1 / np.expm1(2 * t), radius, dim))
    np.testing.assert_allclose(R / radius, order, rtol=1e-8)


# The clock ---------------------------------------------------------------------------------------


def test_clock_of_the_linear_schedule():
    s = np.array([0.0, 0.2, 0.5, 1.0])
    np.testing.assert_allclose(linear_schedule_time(s), 4.975 * s**2 + 0.05 * s, rtol=1e-14)
    np.testing.assert_allclose(linear_schedule_index(linear_schedule_time(s)), s, atol=1e-15)
    total, _ = quad(lambda u: 0.5 * (0.3 + (7 - 0.3) * u), 0, 0.4)
    np.testing.assert_allclose(linear_schedule_time(0.4, 0.3, 7.0), total, rtol=1e-13)
