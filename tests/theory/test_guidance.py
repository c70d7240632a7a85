"""Guided Gaussians: published numbers, a transfer matrix in the original variable, and limits."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import guidance

ODE, SDE = guidance.guided_ode_moments, guidance.guided_sde_moments


def test_ode_reference_values():
    """Printed to seven digits, some of them cut off and some rounded."""
    weight = np.array([0.0, 0.5, 1.0, 1.0, 1.0])
    mean_norm = np.array([1.0, 1.0, 1.0, 2.0, 1.0])
    variance = np.array([1.0, 1.0, 1.0, 1.0, 0.25])
    found = ODE(weight, mean_norm, variance, 6.0)
    expected = [1 - np.exp(-6), 1.3386780, 1.6087790, 2.6419521]
    np.testing.assert_allclose(found.mean[:4], expected, rtol=0, atol=1e-7)
    np.testing.assert_allclose(
        found.variance[:4], [1.0, 0.7352511, 0.5796431, 0.5161688], rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(found.mean[4], 1.32274, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.variance[4], 0.12927, rtol=0, atol=1e-5)


def test_ode_plateau_reference_values():
    mean_norm = np.array([1.0, 4.0, 16.0, 256.0])
    found = ODE(2.0, mean_norm, 1.0, 6 + np.log(mean_norm))
    plateau = 1.0451308, 0.3967564
    np.testing.assert_allclose(
        found.mean - mean_norm, [1.0220695, *3 * [plateau[0]]], rtol=0, atol=1e-7
    )
    np.testing.assert_allclose(found.variance, [0.4262168, *3 * [plateau[1]]], rtol=0, atol=1e-7)
    late = ODE(2.0, mean_norm[:2], 1.0, 15.0)
    np.testing.assert_allclose(late.mean - mean_norm[:2], [1.02689, 1.04976], rtol=0, atol=1e-5)
    np.testing.assert_allclose(late.variance, [0.42731, 0.39801], rtol=0, atol=1e-5)


def test_sde_reference_values():
    """Simulated, with the standard errors that come with them; at most four of these off."""
    cases = [  # w, M, variance, shift, its error, variance, its error
        (0.5, 1.0, 1.0, 1.284 - 1, 0.007, 0.789, 0.007),
        (1.0, 1.0, 1.0, 1.484 - 1, 0.007, 0.676, 0.007),
        (1.0, 1.0, 0.25, 1.167 - 1, 0.007, 0.195, 0.007),
        (2.0, 1.0, 1.0, 0.752, 0.003, 0.578, 0.003),
        (2.0, 4.0, 1.0, 0.243, 0.003, 0.930, 0.003),
        (1.0, 2.0, 1.0, 0.335, 0.003, None, None),
        (3.0, 2.0, 1.0, 0.572, 0.003, None, None),
        (1.0, 8.0, 1.0, 0.085, 0.003, None, None),
        (3.0, 8.0, 1.0, 0.145, 0.003, None, None),
    ]
    weight, mean_norm, variance = (np.array([c[i] for c in cases]) for i in range(3))
    found, plain = (SDE(w, mean_norm, variance, 6.0) for w in (weight, 0 * weight))
    for i, (_, _, _, shift, error, spread, spread_error) in enumerate(cases):
        assert abs(float(found.mean[i] - plain.mean[i]) - shift) < 4 * error
        if spread is not None:
            assert abs(float(found.variance[i]) - spread) < 4 * spread_error


def transfer_matrix_moments(weight, mean_norm, variance, t_max, steps):
    """Mean and variance of Euler steps of the original equation, on a grid of y."""
    y = np.linspace(-9, 9, 361)
    density = np.exp(-(y**2) / 2)
    times = np.linspace(t_max, 0, steps + 1)
    for t, after in pairwise(times):
        h, signal = t - after, mean_norm * np.exp(-t)
        gamma = 1 - np.exp(-2 * t) + variance * np.exp(-2 * t)
        push = weight * signal / gamma * (1 - np.tanh(signal * y / gamma))
        centre = y + h * (y + 2 * (-(y - signal) / gamma + push))
        kernel = np.exp(-((y[:, None] - centre) ** 2) / (4 * h))
        density = kernel @ density
        density /= density.sum()
    mean = density @ y
    return np.array([mean, density @ (y - mean) ** 2])


def test_sde_against_a_transfer_matrix():
    arguments = 1.4, 1.3, 0.7, 2.5
    coarse, middle, fine = (transfer_matrix_moments(*arguments, n) for n in (80, 160, 320))
    # errors of first and second order in the step removed
    expected = coarse / 3 - 2 * middle + 8 * fine / 3
    np.testing.assert_allclose(SDE(*arguments), expected, rtol=0, atol=3e-5)


def test_intermediate_marginals_are_those_of_an_earlier_stop():
    """A chain that stops at t has noised data as its end: the same mixture in other units."""
    weight, mean_norm, variance, t = 1.4, 1.3, 0.7, 0.4
    spread = 1 + (variance - 1) * np.exp(-2 * t)
    for moments in (ODE, SDE):
        half = moments(weight, mean_norm, variance, 2.5, t)
        whole = moments(weight, mean_norm * np.exp(-t), spread, 2.5 - t)
        np.testing.assert_allclose(half, whole, rtol=1e-9)


def test_without_weight_the_class_is_sampled():
    mean_norm, variance, t_max, t = 1.7, 0.4, 3.0, 0.3
    for moments in (ODE, SDE):
        found = moments(0.0, mean_norm, variance, t_max, t)
        spread = 1 + (variance - 1) * np.exp(-2 * np.array([t, t_max]))
        gain = np.sqrt(spread[0] / spread[1])
        memory = gain if moments is ODE else gain * (np.exp(t - t_max) * gain)
        # linear dynamics: the start's distance from its marginal is multiplied by `memory`
        mean = mean_norm * np.exp(-t) - memory * mean_norm * np.exp(-t_max)
        np.testing.assert_allclose(found.mean, mean, rtol=1e-6)
        if moments is ODE:
            np.testing.assert_allclose(found.variance, spread[0] / spread[1], rtol=1e-9)


def test_without_centres_nothing_is_guided():
    for moments in (ODE, SDE):
        found = moments(2.0, 0.0, 0.4, 9.0)
        np.testing.assert_allclose(found, [0.0, 0.4], rtol=0, atol=1e-7)


def test_large_norms_reach_their_constants():
    weight = np.array([1.0, 2.0, 3.0])
    constants = guidance.guided_large_norm(weight)
    ode, sde = (moments(weight, 60.0, 0.7, 24.0) for moments in (ODE, SDE))
    sigma = np.sqrt(0.7)
    np.testing.assert_allclose(ode.mean - 60, sigma * constants.ode, rtol=1e-6)
    np.testing.assert_allclose((sde.mean - 60) * 60 / 0.7, constants.sde, rtol=1e-4)
    np.testing.assert_allclose(sde.variance, 0.7, rtol=2e-3)
    assert abs(float(constants.sde[1]) - 0.97) < 0.005  # the printed digits


def test_tilted_law_is_neither_sampler():
    found = guidance.tilted_moments(1.0, 1.0, 1.0)
    np.testing.assert_allclose(found, [1.2899892, 0.7442807], rtol=0, atol=1e-7)
    y = np.linspace(-12, 14, 200_001)
    for weight, mean_norm, variance in ((1.7, 1.3, 0.6), (-0.8, 1.3, 0.6), (0.0, 2.0, 0.3)):
        plus, minus = (-((y - s * mean_norm) ** 2) / (2 * variance) for s in (1, -1))
        log_p = (1 + weight) * plus - weight * np.logaddexp(plus, minus)
        p = np.exp(log_p - log_p.max())
        mean = p @ y / p.sum()
        square = p @ (y - mean) ** 2 / p.sum()
        found = guidance.tilted_moments(weight, mean_norm, variance)
        np.testing.assert_allclose(found, [mean, square], rtol=1e-8)


def test_gaussian_counter_example():
    found = guidance.gaussian_guidance_variances(2.0, 1.0, 2.0)
    np.testing.assert_allclose(found, [0.6666667, 0.5, 0.5833333], rtol=0, atol=1e-7)
    gamma = np.array([0.3, 1.0, 1.7, 4.0])
    tilted, ode, sde = guidance.gaussian_guidance_variances(gamma, 1.0, 2.0)
    np.testing.assert_allclose(tilted, 2 / (1 + gamma), rtol=1e-12)
    np.testing.assert_allclose(ode, 2 ** (1 - gamma), rtol=1e-12)
    np.testing.assert_allclose(sde, (2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1), rtol=1e-12)


def test_gaussians_of_any_variance_against_the_equation_of_motion():
    gamma, v_c, v = 1.6, 0.5, 1.8
    tilted, ode, sde = guidance.gaussian_guidance_variances(gamma, v_c, v)
    assert abs(float(tilted) - 1 / (gamma / v_c + (1 - gamma) / v)) < 1e-12

    def rate(t, square, noisy):
        spreads = [1 + (u - 1) * np.exp(-2 * t) for u in (v_c, v)]
        pull = gamma / spreads[0] + (1 - gamma) / spreads[1]
        return 2 * square * (1 - (1 + noisy) * pull) + 2 * noisy

    for noisy, expected in ((0, ode), (1, sde)):
        square, steps = 1.0, 4000
        times = np.linspace(12, 0, steps + 1)
        for t, after in pairwise(times):
            h = t - after
            trial = square + h / 2 * rate(t, square, noisy)
            square += h * rate(t - h / 2, trial, noisy)
        np.testing.assert_allclose(square, expected, rtol=1e-4)


def test_tilted_gaussian_that_cannot_be_normalised_is_nan():
    assert np.isnan(guidance.gaussian_guidance_variances(5.0, 2.0, 1.0)[0])


FUNCTIONS = [
    (ODE, (1.4, 1.3, 0.7, 2.5, 0.2)),
    (SDE, (1.4, 1.3, 0.7, 2.5, 0.2)),
    pytest.param(guidance.guided_large_norm, (1.4,), marks=pytest.mark.slow),
    (guidance.tilted_moments, (1.4, 1.3, 0.7)),
    (guidance.gaussian_guidance_variances, (1.4, 0.7, 1.8)),
]


@pytest.mark.parametrize(("function", "arguments"), FUNCTIONS)
def test_jit_vmap_and_gradients(function, arguments):
    def total(values):
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(function(*values)))

    values = jnp.asarray(arguments)
    np.testing.assert_allclose(jax.jit(total)(values), total(values), rtol=1e-12)
    gradient = jax.jacrev(total)(values)
    step = 1e-4 * np.eye(len(arguments))
    # all points of the central difference in one batch
    ends = jax.vmap(total)(jnp.concatenate([values + step, values - step]))
    slope = (ends[: len(step)] - ends[len(step) :]) / 2e-4
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-7)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="weight must be >= 0"):
        SDE(-0.5, 1.0, 1.0, 6.0)
    with pytest.raises(ValueError, match="t_max - t must be positive"):
        ODE(1.0, 1.0, 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="variance must be positive"):
        ODE(1.0, 1.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="mean_norm"):
        guidance.tilted_moments(1.0, -1.0, 1.0)


def test_shift_of_a_mixture():
    """ODE: printed digits of the deterministic table; SDE: printed simulations, s.e. .003."""
    found = guidance.mixture_shift([2.0, 2.0], [1.0, 4.0])
    np.testing.assert_allclose(found.ode_mean, [1.02689, 1.04976], atol=2e-5)
    np.testing.assert_allclose(found.ode_variance, [0.42731, 0.39801], atol=2e-5)
    np.testing.assert_allclose(found.sde_mean, [0.752, 0.243], atol=0.012)
    # the printed variances carry an Euler bias of about .003 besides their errors
    np.testing.assert_allclose(found.sde_variance, [0.578, 0.930], atol=0.015)
    none = guidance.mixture_shift(0.0, 2.0, 0.3)
    np.testing.assert_allclose([none.ode_mean, none.sde_mean], 0, atol=1e-9)
    np.testing.assert_allclose([none.ode_variance, none.sde_variance], 0.3, rtol=1e-4)
    late = guidance.mixture_shift(1.0, 1.0, t_max=6.0)
    # against the printed mean itself; unguided it is 1 - e^-6
    assert float(late.ode_mean) == pytest.approx(1.6087790 - (1 - np.exp(-6.0)), abs=1e-6)
