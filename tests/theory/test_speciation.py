"""Speciation criteria: reference values, limits, and roots of what defines them."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq

from theory import speciation

# printed digits, half a unit in the last place
DIGITS_5 = {"rtol": 0, "atol": 6e-6}
DIGITS_8 = {"rtol": 0, "atol": 6e-9}


def test_reference_criteria_of_constant_norm_data():
    np.testing.assert_allclose(speciation.spectral_time(16.72), 1.40830, **DIGITS_5)
    np.testing.assert_allclose(speciation.static_time(16.72), 1.43735, **DIGITS_5)
    np.testing.assert_allclose(speciation.dynamic_time(16.72), 1.75532, **DIGITS_5)


def test_reference_dynamic_time_of_mixtures():
    times = speciation.mixture_dynamic_time(np.array([1.0, 8.0]), np.array([0.4, 0.25]))
    np.testing.assert_allclose(times, [0.38648502, 2.42603230], **DIGITS_8)


def negative_log_curvature(t, mean_norm, variance, temperature):
    """-(log P_t)'' at the centre of a mixture, by differences of the density itself."""

    def log_density(y):
        spread = temperature * -np.expm1(-2 * t) + variance * np.exp(-2 * t)
        center = mean_norm * np.exp(-t)
        return (
            np.logaddexp(-((y - center) ** 2), -((y + center) ** 2) + 0)
            if spread == 0
            else (
                np.logaddexp(
                    -((y - center) ** 2) / (2 * spread), -((y + center) ** 2) / (2 * spread)
                )
            )
        )

    h = 1e-3
    return -(log_density(h) - 2 * log_density(0.0) + log_density(-h)) / h**2


@pytest.mark.parametrize(("mean_norm", "variance", "temperature"), [(3.0, 0.4, 0.6), (1.5, 2.0, 1)])
def test_mixture_times_are_roots_of_the_curvature(mean_norm, variance, temperature):
    def curvature(t):
        return negative_log_curvature(t, mean_norm, variance, temperature)

    static = brentq(curvature, 1e-3, 6)
    dynamic = brentq(lambda t: 2 * temperature * curvature(t) - 1, 1e-3, 6)
    # second differences of step 1e-3
    arguments = (mean_norm, variance, temperature)
    np.testing.assert_allclose(speciation.mixture_static_time(*arguments), static, atol=2e-5)
    np.testing.assert_allclose(speciation.mixture_dynamic_time(*arguments), dynamic, atol=2e-5)


def test_static_time_is_kappa_one():
    t = speciation.mixture_static_time(3.0, 0.4, 0.6)
    np.testing.assert_allclose(speciation.mixture_kappa(t, 3.0, 0.4, 0.6), 1.0, rtol=1e-13)


def test_distant_classes():
    """t_S = t_b = log M, t_U later by log(2)/2, and agreement 0.675 there."""
    far = 1e6
    np.testing.assert_allclose(speciation.mixture_static_time(far, 0.3), np.log(far), atol=1e-11)
    dynamic = speciation.mixture_dynamic_time(far, 0.3)
    np.testing.assert_allclose(dynamic, np.log(far) + 0.5 * np.log(2), atol=1e-11)
    agreement = speciation.mixture_clone_agreement(dynamic, far, 0.3)
    np.testing.assert_allclose(agreement, 0.675, atol=6e-4)


def test_times_that_do_not_exist():
    assert np.isnan(speciation.spectral_time(np.array([0.3, 1.0]))).all()
    assert np.isnan(speciation.mixture_static_time(1.0, 1.0))
    assert np.isnan(speciation.mixture_dynamic_time(0.5, 0.5))  # .25 < .5 - .125
    assert np.isnan(speciation.mixture_dynamic_time(0.0, 1.0))
    np.testing.assert_array_equal(
        np.isnan(speciation.hierarchy_times(np.array([3.0, 0.5]))), [False, True]
    )
    assert speciation.static_time(0.0) == 0


@pytest.mark.parametrize(
    ("mean_norm", "variance", "exists"),
    [(0.62, 0.5, True), (0.60, 0.5, False), (0.001, 2.5, True), (1.01, 1.0, True)],
)
def test_dynamic_time_exists_where_it_should(mean_norm, variance, exists):
    assert exists == (mean_norm**2 > variance - variance**2 / 2)
    assert np.isfinite(speciation.mixture_dynamic_time(mean_norm, variance)) == exists


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (speciation.spectral_time, (0.5,)),
        (speciation.mixture_static_time, (1.0, 2.0)),
        (speciation.mixture_dynamic_time, (0.0, 1.0)),
        (speciation.mixture_crossing_time, (0.3, 1.0)),
        (speciation.clone_agreement, (0.0,)),
        (speciation.weighted_clone_agreement, (0.0, 0.3)),
        (speciation.mixture_clone_agreement, (0.0, 2.0, 1.0)),
        (speciation.mixture_clone_agreement, (500.0, 2.0, 1.0)),
    ],
)
def test_no_derivative_is_nan(function, arguments):
    """Also where the time does not exist, and at the ends of the range."""
    arguments = tuple(float(a) for a in arguments)
    gradients = jax.grad(function, tuple(range(len(arguments))))(*arguments)
    assert np.isfinite(gradients).all()


def test_levels_of_a_hierarchy():
    times = speciation.hierarchy_times(np.array([16.0, 4.0]), 0.6)
    np.testing.assert_allclose(times, 0.5 * np.log(np.array([256, 16]) / 0.6), rtol=1e-14)
