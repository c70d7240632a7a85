"""Potentials: derivatives of each other, reference values, and brute-force minima."""

import jax
import numpy as np
import pytest

from theory import potentials, speciation


@pytest.mark.parametrize("weight", [0.5, 0.3])
def test_drift_is_minus_the_slope(weight):
    y = np.linspace(-3, 3, 9)
    arguments = (0.7, 2.0, 0.4, weight, 0.6)
    slope = jax.vmap(jax.grad(lambda y: potentials.reduced_potential(y, *arguments)))(y)
    np.testing.assert_allclose(potentials.reduced_drift(y, *arguments), -slope, atol=1e-12)


def test_drift_is_the_score_of_the_mixture():
    """y + 2T d/dy log P_t, with the density written out as a sum of two Gaussians."""
    t, mean_norm, variance, weight, temperature = 0.7, 2.0, 0.4, 0.3, 0.6
    spread = -temperature * np.expm1(-2 * t) + variance * np.exp(-2 * t)
    center = mean_norm * np.exp(-t)

    def log_density(y):
        plus = weight * np.exp(-((y - center) ** 2) / (2 * spread))
        return np.log(plus + (1 - weight) * np.exp(-((y + center) ** 2) / (2 * spread)))

    y, h = np.linspace(-2, 2, 7), 1e-5
    score = (log_density(y + h) - log_density(y - h)) / (2 * h)
    drift = potentials.reduced_drift(y, t, mean_norm, variance, weight, temperature)
    np.testing.assert_allclose(drift, y + 2 * temperature * score, atol=1e-8)


def test_overlap_potential_in_its_own_letters():
    """At T = 1 in the variable q, with a centre whose entries are not one."""
    q, t, dim, entry, variance = np.linspace(-2, 2, 5), 0.9, 64, 0.5, 2.0
    spread = -np.expm1(-2 * t) + variance * np.exp(-2 * t)
    field = np.sqrt(dim) * np.exp(-t) * q / spread
    expected = -(q**2) / 2 + q**2 / spread - 2 * entry**2 * np.log(np.cosh(field))
    value = potentials.overlap_potential(q, t, dim, entry * np.sqrt(dim), variance)
    np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_curvature_vanishes_at_the_dynamic_time():
    t = speciation.mixture_dynamic_time(2.0, 0.4, 0.6)

    def potential(y):
        return potentials.reduced_potential(y, t, 2.0, 0.4, temperature=0.6)

    np.testing.assert_allclose(jax.grad(jax.grad(potential))(0.0), 0.0, atol=1e-13)


def test_potential_far_out_does_not_overflow():
    far = potentials.reduced_potential(np.array([1e4]), 0.1, 50.0, 0.1)
    assert np.isfinite(far).all()
    assert np.isfinite(jax.grad(lambda y: potentials.reduced_potential(y, 0.1, 50.0, 0.1))(0.0))


def test_reference_simplex():
    # golden-section minimum of A^2(s) in 40-digit arithmetic
    value = potentials.simplex_spinodal(3)
    np.testing.assert_allclose(value, 0.956668451229356, rtol=1e-13)
    assert potentials.simplex_instability(3) == 1
    two = potentials.simplex_spinodal(np.array([2, 2.0]))
    np.testing.assert_allclose(two, np.sqrt(0.5), rtol=1e-15)


@pytest.mark.parametrize("classes", [3, 4, 10, 1000])
def test_spinodal_is_the_smallest_amplitude_with_two_minima(classes):
    r = np.linspace(0.5, 40, 400_000)

    def other_stationary_points(amplitude):
        s = r * amplitude * classes / (classes - 1)
        slope = r - 2 * amplitude * -np.expm1(-s) / (1 + (classes - 1) * np.exp(-s))
        return np.sum(np.diff(np.sign(slope)) != 0)

    spinodal = float(potentials.simplex_spinodal(classes))
    assert spinodal < potentials.simplex_instability(classes)
    assert other_stationary_points(spinodal * (1 + 1e-5)) == 2
    assert other_stationary_points(spinodal * (1 - 1e-5)) == 0


def test_simplex_potential_of_two_classes_is_the_mixture():
    """Variance equal to the temperature makes the width of the state constant."""
    r, t, mean_norm = np.linspace(-2, 2, 5), 0.8, 3.0
    amplitude = mean_norm * np.exp(-t)
    simplex = potentials.simplex_potential(r, amplitude, 2)
    mixture = potentials.reduced_potential(r, t, mean_norm, 1.0)
    # the two differ by a constant
    np.testing.assert_allclose(simplex - mixture, (simplex - mixture)[0], atol=1e-12)


def test_simplex_times():
    early = potentials.simplex_spinodal_time(5.0, 4, 0.6)
    late = potentials.simplex_dynamic_time(5.0, 4, 0.6)
    assert early > late  # on the way back the minima come first
    np.testing.assert_allclose(late, np.log(5 / np.sqrt(0.6 * 1.5)), rtol=1e-14)
    assert np.isnan(potentials.simplex_dynamic_time(0.5, 4))
