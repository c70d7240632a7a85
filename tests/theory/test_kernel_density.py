"""Kernel density estimates: reference values, the Random Energy Model behind them, divergence."""

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar

from theory import cumulants, kernel_density, rem

DIGITS_6 = {"rtol": 0, "atol": 6e-7}


def law(width):
    """Squared distances of the points from a fresh one, in units of the kernel."""
    return cumulants.noncentral_chi_square(width**-2, width**-2)


def test_reference_thresholds():
    widths = kernel_density.thresholds(np.array([0.1, 0.5]))
    np.testing.assert_allclose(widths.glass**-2, [0.532184, 2.351317], **DIGITS_6)
    np.testing.assert_allclose(widths.glass, [1.370785, 0.652145], **DIGITS_6)
    np.testing.assert_allclose(widths.gaussian, [1.938582, 0.922273], **DIGITS_6)
    np.testing.assert_allclose(widths.optimal, [1.038572, 0.622436], **DIGITS_6)
    participation = kernel_density.kernel_participation(
        widths.glass * np.array([0.5, 2]), np.array([0.1, 0.5])
    )
    np.testing.assert_allclose(participation, [0.75, 0], rtol=1e-12)


def test_condensation_by_brute_force():
    alpha = 0.2
    w = brentq(lambda w: 0.5 * np.log1p(w) - 0.5 * w / (1 + w) ** 2 - alpha, 1e-6, 50, xtol=1e-14)
    np.testing.assert_allclose(kernel_density.thresholds(alpha).glass, w**-0.5, rtol=1e-11)


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.3])
def test_thresholds_are_those_of_the_random_energies(alpha):
    widths = kernel_density.thresholds(alpha)
    # the weights condense at the first, their squares at the second
    np.testing.assert_allclose(rem.condensation(alpha, law(widths.glass)), 1, rtol=1e-10)
    np.testing.assert_allclose(rem.condensation(alpha, law(widths.gaussian)), 2, rtol=1e-10)
    for width in (0.7 * widths.glass, 1.2 * widths.glass):
        index = kernel_density.stability_index(width, alpha)
        np.testing.assert_allclose(index, rem.condensation(alpha, law(width)), rtol=1e-10)
        for power in (1.0, 2.0):
            order = rem.order_parameter(power, alpha, law(width))
            participation = kernel_density.kernel_participation(width, alpha, power)
            np.testing.assert_allclose(participation, 1 - order, atol=1e-10)
    # not the collapse of diffusion
    diffusion = np.expm1(2 * alpha) ** -0.5
    assert abs(diffusion / widths.glass - 1) > 0.02


@pytest.mark.parametrize("alpha", [0.1, 0.5])
def test_divergence_is_that_of_the_free_energy(alpha):
    """From (5) with the free energy of the random energies in both phases."""
    glass = kernel_density.thresholds(alpha).glass
    for width in glass * np.array([0.3, 0.8, 1.0, 1.1, 3.0]):
        phi = rem.free_energy(1.0, alpha, law(width))
        expected = np.log(width) - 0.5 + alpha - phi
        value = kernel_density.kullback_leibler(width, alpha)
        np.testing.assert_allclose(value, expected, atol=1e-12)


def test_optimal_width_minimises_the_divergence():
    for alpha in (0.1, 0.5, 2.0):
        widths = kernel_density.thresholds(alpha)

        def slope(x, alpha=alpha):
            return float(jax.grad(kernel_density.kullback_leibler)(np.exp(x), alpha))

        minimum = np.exp(
            brentq(slope, np.log(widths.optimal) - 1, np.log(widths.glass), xtol=1e-14)
        )
        np.testing.assert_allclose(widths.optimal, minimum, rtol=1e-8)
        grid = widths.glass * np.linspace(0.2, 4, 500)
        curve = kernel_density.kullback_leibler(grid, alpha)
        least = kernel_density.kullback_leibler(widths.optimal, alpha)
        assert (curve >= least - 1e-14).all()
        assert widths.optimal < widths.glass
        np.testing.assert_allclose(least, np.log(widths.optimal) + alpha, atol=1e-14)


def test_phases_join_with_their_slopes():
    alpha = 0.3
    glass = float(kernel_density.thresholds(alpha).glass)
    width = glass * np.array([1 - 1e-7, 1 + 1e-7])
    value, slope = jax.vmap(jax.value_and_grad(kernel_density.kullback_leibler), (0, None))(
        width, alpha
    )
    np.testing.assert_allclose(value[0], value[1], atol=1e-6)
    np.testing.assert_allclose(slope[0], slope[1], atol=1e-6)


def test_wide_kernels_smooth_the_data():
    """Above condensation: the divergence of N(0, 1) from N(0, 1 + h^2), by integration."""
    alpha, width = 0.2, 2.3

    def excess(x):
        log_ratio = 0.5 * np.log1p(width**2) - 0.5 * x**2 * width**2 / (1 + width**2)
        return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi) * log_ratio

    expected = quad(excess, -12, 12, epsabs=1e-13)[0]
    np.testing.assert_allclose(kernel_density.kullback_leibler(width, alpha), expected, rtol=1e-10)


def test_narrow_kernels_see_the_nearest_point():
    """For h to 0 the divergence is the squared distance of the nearest point over 2 h^2."""
    alpha, width = 0.2, 1e-3
    nearest = minimize_scalar(
        lambda e: (float(rem.rate_function(e, law(1.0))) - alpha) ** 2,
        bounds=(0.05, 0.99), method="bounded", options={"xatol": 1e-10},
    ).x  # fmt: skip
    value = kernel_density.kullback_leibler(width, alpha)
    np.testing.assert_allclose(value * width**2, nearest, rtol=1e-4)


def test_limits():
    few, many = 1e-6, 8.0
    glass = kernel_density.thresholds(few).glass
    # alpha = 3 w^2 / 4 for few points
    np.testing.assert_allclose(glass, (4 * few / 3) ** -0.25, rtol=1e-2)
    widths = kernel_density.thresholds(many)
    np.testing.assert_allclose(widths.glass, np.exp(-many), rtol=1e-5)
    np.testing.assert_allclose(widths.optimal / widths.glass, 1, rtol=1e-5)
    # and it tends to zero with many points
    assert kernel_density.kullback_leibler(widths.optimal, many) < 1e-6


def test_finite_estimate_against_samples():
    """2000 data sets of 55 points in ten dimensions, one fresh point each."""
    rng = np.random.default_rng(9)
    dim, count, width, sets = 10, 55, 0.8, 2000
    points, fresh = rng.normal(size=(sets, count, dim)), rng.normal(size=(sets, 1, dim))
    logs = -np.sum((points - fresh) ** 2, axis=2) / (2 * width**2)
    kernels = np.exp(logs)
    # the normalisations differ by the width only
    estimate = np.log(kernels.mean(1)) - dim * np.log(width)
    divergence = (-np.sum(fresh[:, 0] ** 2, axis=1) / 2 - estimate) / dim
    found = [divergence] + [(kernels ** (2 * p)).sum(1) / (kernels**p).sum(1) ** 2 for p in (1, 2)]
    exact = kernel_density.finite_size_estimate(width, np.log(count), dim)
    for sample, value in zip(found, exact):
        assert abs(sample.mean() - value) < 4 * sample.std() / np.sqrt(sets)
    # with a single point it is the average log density of one kernel
    single = kernel_density.finite_size_estimate(1.3, 1e-9, dim)
    np.testing.assert_allclose(single.divergence, np.log(1.3) - 0.5 + 1 / 1.3**2, rtol=1e-6)
    np.testing.assert_allclose(single.participation, 1, rtol=1e-6)


@pytest.mark.slow
def test_finite_estimates_approach_the_limits():
    """At fixed alpha, d = 20, 40, 60 on both sides of condensation."""
    alpha, dims = 0.4, np.array([20.0, 40.0, 60.0])
    glass = kernel_density.thresholds(alpha).glass
    for width in (0.8 * glass, 2.2 * glass):
        exact = kernel_density.finite_size_estimate(width, alpha * dims, dims, nodes=1024)
        limits = (
            kernel_density.kullback_leibler(width, alpha),
            kernel_density.kernel_participation(width, alpha),
            kernel_density.kernel_participation(width, alpha, 2.0),
        )
        for values, limit in zip(exact, limits):
            gaps = np.asarray(values - limit)
            # that of the divergence of a wide kernel is exponentially small: quadrature is left
            assert (gaps > -1e-6).all()
            assert (np.diff(gaps) < 1e-6).all()
            assert gaps[0] > 1e-5
            assert gaps[2] < 0.16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kernel_density.thresholds(0.0), "alpha must be positive"),
        (lambda: kernel_density.stability_index(0.0, 0.3), "width must be positive"),
        (lambda: kernel_density.kernel_participation(0.5, -0.3), "alpha=-0.3"),
        (lambda: kernel_density.kernel_participation(0.5, 0.3, 0.0), "power must be positive"),
        (lambda: kernel_density.kullback_leibler(-1.0, 0.3), "width=-1.0"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert np.isnan(jax.jit(kernel_density.kullback_leibler)(0.5, -0.3))
