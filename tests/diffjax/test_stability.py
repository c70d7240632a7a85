"""Fixed points of generative drifts: closed forms, finite differences, published counts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

from diffjax import (
    Diffusion,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    schedules,
    variance_exploding,
)
from diffjax.diffusion import score_model
from diffjax.observables import stability

KEY = jax.random.key(3)
OU = ornstein_uhlenbeck(0.7)
MEANS = np.array([[1.2, 0.1, -0.5], [-0.8, 0.9, 0.1], [0.2, -1.5, 0.8]])
WEIGHTS, VARIANCES = np.array([0.2, 0.5, 0.3]), np.array([0.2, 0.4, 0.1])
MIXTURE = Diffusion(gaussian_mixture(WEIGHTS, MEANS, VARIANCES), OU)
STATES = jnp.asarray(np.random.default_rng(1).normal(size=(4, 3)))


def benchmark():
    """Ten equal components in 16 dimensions with unit mean variance, and their covariance."""
    centres = np.random.default_rng(0).standard_normal((10, 16))
    centres -= centres.mean(0)
    covariance = centres.T @ centres / 10 + 0.15**2 * np.eye(16)
    size = np.sqrt(np.trace(covariance) / 16)
    centres, variance = centres / size + 0.3, (0.15 / size) ** 2
    np.testing.assert_allclose(np.sqrt(variance), 0.1607136, atol=5.1e-8)
    np.testing.assert_allclose(centres[0, :3], [0.2656887, 0.2930685, 1.0677724], atol=5.1e-8)
    data = gaussian_mixture(np.ones(10), centres, variance)
    return Diffusion(data, ornstein_uhlenbeck()), centres, covariance / size**2


# Drift and Jacobian -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "process",
    [
        rectified_flow(0.7),
        pytest.param(OU, marks=pytest.mark.slow),
        pytest.param(variance_exploding(0.7), marks=pytest.mark.slow),
    ],
)
def test_drift_and_jacobian_are_those_of_the_density(process):
    model, t, noise = Diffusion(MIXTURE.data, process), 0.6, 0.4
    scale, std = float(process.scale(t)), float(process.std(t))
    # d log scale / dt and g^2 = std^2 d log(std^2 / scale^2) / dt, by differences
    h = 1e-5
    rate = (np.log(process.scale(t + h)) - np.log(process.scale(t - h))) / (2 * h)
    noise_log = [2 * np.log(process.std(v) / process.scale(v)) for v in (t + h, t - h)]
    weight = 0.5 * (1 + noise) * std**2 * (noise_log[0] - noise_log[1]) / (2 * h)

    def expected(x):
        def log_density(y):
            width = std**2 + scale**2 * VARIANCES
            square = jnp.sum((y - scale * MEANS) ** 2, -1)
            return jax.nn.logsumexp(np.log(WEIGHTS) - square / (2 * width) - 1.5 * np.log(width))

        return -rate * x + weight * jax.grad(log_density)(x)

    found = stability.drift(model, STATES, t, noise)
    np.testing.assert_allclose(found, jax.vmap(expected)(STATES), rtol=1e-7, atol=1e-8)
    jacobian = stability.drift_jacobian(model, STATES, t, noise)
    np.testing.assert_allclose(
        jacobian, jax.vmap(jax.jacfwd(expected))(STATES), rtol=1e-7, atol=1e-8
    )


def test_spectra_of_exact_and_of_skew_scores():
    spectrum = stability.drift_spectrum(MIXTURE, STATES, 0.3)
    assert np.all(spectrum.asymmetry < 1e-14)
    lanczos = stability.leading_rate(KEY, MIXTURE, STATES, 0.3)
    np.testing.assert_allclose(lanczos.rate, spectrum.eigenvalues[:, 0], rtol=1e-10)
    assert np.all(lanczos.residual < 1e-8)
    assert np.all(lanczos.asymmetry < 1e-14)
    # a score that is no gradient: F = x W, J = W^T, drift x + (1 + g) T F
    matrix = np.random.default_rng(4).normal(size=(12, 12))
    model = score_model(jax.tree_util.Partial(lambda w, x, t: x @ w, jnp.asarray(matrix)), OU)
    x = jnp.ones((2, 12))
    jacobian = np.eye(12) + 1.4 * 0.7 * matrix.T
    found = stability.drift_spectrum(model, x, 0.3, 0.4)
    values = np.linalg.eigvalsh(0.5 * (jacobian + jacobian.T))[::-1]
    np.testing.assert_allclose(found.eigenvalues, np.stack([values] * 2), rtol=1e-10, atol=1e-11)
    skew = np.linalg.norm(0.5 * (jacobian - jacobian.T)) / np.linalg.norm(jacobian)
    np.testing.assert_allclose(found.asymmetry, [skew] * 2, rtol=1e-10)
    lanczos = stability.leading_rate(KEY, model, x, 0.3, 0.4)
    np.testing.assert_allclose(lanczos.rate, [values[0]] * 2, rtol=1e-9)
    np.testing.assert_allclose(lanczos.asymmetry, skew, rtol=0.5)  # of one random vector
    few = stability.leading_rate(KEY, model, x, 0.3, 0.4, iterations=6)
    gap = np.abs(np.asarray(few.rate)[:, None] - values).min(1)
    assert np.all(gap <= few.residual)
    assert np.all(few.rate <= values[0])


@pytest.mark.slow
def test_lanczos_stops_in_an_invariant_space():
    model = Diffusion(gaussian_mixture([1.0], np.ones((1, 3)), 0.4), OU)  # A is a multiple of I
    found = stability.leading_rate(KEY, model, STATES, 0.3)
    spectrum = stability.drift_spectrum(model, STATES, 0.3)
    np.testing.assert_allclose(found.rate, spectrum.eigenvalues[:, 0], rtol=1e-12)


# Branches -----------------------------------------------------------------------------------------


DELTAS = Diffusion(point_cloud(np.array([[1.0], [-1.0]])), ornstein_uhlenbeck())
THETA = np.array([0.7, 0.9])


def test_published_branch_of_two_deltas():
    start = jnp.array([[0.1], [-0.1], [0.0]])
    branch = stability.fixed_points(DELTAS, start, -np.log(THETA), sweeps=3000)
    assert bool(branch.converged.all())
    upper, lower, centre = np.moveaxis(np.asarray(branch.states)[..., 0], 1, 0)
    np.testing.assert_allclose(upper, [0.69917416, 0.99431385], atol=5.1e-9)
    np.testing.assert_allclose(lower, -upper, atol=1e-12)
    np.testing.assert_allclose(centre, 0, atol=1e-14)
    rates = stability.drift_spectrum(DELTAS, branch.states, -np.log(THETA)[:, None])
    assert np.all(rates.eigenvalues[:, :2] < 0)
    # the centre: U''(0) = -[1 + 2 (2 q - 1) / Delta^2]
    q = THETA**2
    rate = 1 + 2 * (2 * q - 1) / (1 - q) ** 2
    np.testing.assert_allclose(rates.eigenvalues[:, 2, 0], rate, rtol=1e-9)
    np.testing.assert_allclose(-rate[1], -35.34903, rtol=2e-8)


@pytest.mark.slow
def test_critical_time_of_the_centre_by_dynamics():
    # antipodal points of one norm in three dimensions, T = 0.7
    rng = np.random.default_rng(2)
    half = rng.normal(size=(4, 3)) * np.array([1.0, 0.6, 0.3])
    half *= 0.6 / np.linalg.norm(half, axis=1, keepdims=True)
    points = np.concatenate([half, -half])
    top = np.linalg.eigvalsh(points.T @ points / 8)[-1] / 0.7
    model = Diffusion(point_cloud(points), OU)
    for noise in (1.0, 0.0, 0.5):
        linear = (1 + noise) * (1 + top) - 2
        q = 0.5 * (np.sqrt(linear**2 + 4 * noise) - linear)
        t_c = -0.5 * np.log(q)
        times = t_c * np.linspace(1.2, 0.8, 41)
        branch = stability.fixed_points(model, jnp.full((3,), 1e-3), times, noise=noise)
        np.testing.assert_allclose(branch.states, 0, atol=1e-12)
        rates = stability.drift_spectrum(model, branch.states, times, noise).eigenvalues[:, 0]
        found = stability.critical_times(times, rates)
        np.testing.assert_allclose(found, t_c, rtol=1e-4)  # interpolation


def test_critical_times_that_do_not_exist():
    times = np.array([2.0, 1.5, 1.0, 0.5])
    rates = np.array([[-1, -1, 1], [-0.5, -1, 1], [0.5, -2, -1], [1, -1, 1.0]]).T[..., None]
    found = stability.critical_times(times, np.moveaxis(rates, 0, -1)[:, 0])
    np.testing.assert_allclose(found[0], 1.25)
    assert np.all(np.isnan(found[1:]))


def mixture_score(means, weights, x, t):
    """Score of the mixture with these parameters, by hand; cheap to compile."""
    width = OU.variance(t) + jnp.exp(-2 * t) * VARIANCES
    gaps = x - jnp.exp(-t) * means
    log_p = jnp.log(weights) - 0.5 * jnp.sum(gaps**2, -1) / width - 1.5 * jnp.log(width)
    return -(jax.nn.softmax(log_p) / width) @ gaps


def bare(means, weights):
    return score_model(jax.tree_util.Partial(mixture_score, means, weights), OU)


@pytest.mark.parametrize(
    "solver", ["exact", *(pytest.param(s, marks=pytest.mark.slow) for s in ("dense", "krylov"))]
)
def test_derivatives_of_a_fixed_point(solver):
    def state(means, weights, t, noise):
        if solver == "exact":
            model = Diffusion(gaussian_mixture(weights, means, VARIANCES), OU)
        else:
            model = bare(means, weights)
        branch = stability.fixed_points(
            model, jnp.exp(-t) * MEANS[0], t, noise=noise, tolerance=1e-11,
            solver="dense" if solver == "exact" else solver,
        )  # fmt: skip
        return jnp.sum(branch.states[0] * jnp.array([1.0, -2.0, 0.5]))

    point = (jnp.asarray(MEANS), jnp.asarray(WEIGHTS), jnp.asarray(0.12), jnp.asarray(0.6))
    slopes = jax.jit(jax.grad(state, (0, 1, 2, 3)))(*point)
    value = jax.jit(state)
    rng = np.random.default_rng(7)
    for index in range(4):
        along = rng.normal(size=np.shape(point[index]))
        ends = []
        for sign in (1, -1):
            moved = list(point)
            moved[index] = point[index] + sign * 1e-5 * along
            ends.append(float(value(*moved)))
        difference = (ends[0] - ends[1]) / 2e-5
        assert abs(difference) > 1e-4
        np.testing.assert_allclose(np.sum(slopes[index] * along), difference, rtol=2e-6, atol=1e-8)


@pytest.mark.slow
def test_forward_and_reverse_mode_agree_along_a_branch():
    times = jnp.array([0.9, 0.7, 0.5])
    model = bare(MEANS, WEIGHTS)
    call = partial(stability.fixed_points, model, jnp.zeros(3), solver="dense")
    reverse = jax.jacrev(lambda v: call(v).states)(times)
    forward = jax.jacfwd(lambda v: call(v).states)(times)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9, atol=1e-12)
    # a state depends on its own time only
    assert np.abs(reverse[1, :, 0]).max() == 0


# Landscape ----------------------------------------------------------------------------------------


def test_potential_along_a_path():
    first, second, t = jnp.asarray(MEANS[:2]), jnp.asarray(MEANS[1:]), 0.5
    angles = np.linspace(-0.2 * np.pi, 0.7 * np.pi, 40)
    found = stability.path_potential(MIXTURE, first, second, t, angles)
    x = np.cos(angles)[:, None, None] * first + np.sin(angles)[:, None, None] * second
    exact = -2 * 0.7 * MIXTURE.log_density(x, t) - 0.5 * jnp.sum(x**2, -1)
    np.testing.assert_allclose(found, (exact - exact[0]).T, atol=1e-6)


# The published benchmark --------------------------------------------------------------------------


def test_published_counts_and_critical_index():
    model, centres, covariance = benchmark()
    clock = schedules.ddpm_linear()
    counts = []
    for index in (500, 480, 430, 300):
        t = float(clock[index])
        starts = jnp.concatenate([model.sample(KEY, t, 390), np.exp(-t) * centres])
        found = stability.stable_points(model, starts, t)
        assert np.all(np.asarray(found.representative) >= 0)
        counts.append(int(found.number))
    assert counts == [1, 2, 6, 10]
    top = np.linalg.eigvalsh(covariance)[-1]
    np.testing.assert_allclose(top, 4.537, atol=5.1e-4)
    # not constant norm, not centred: the formula says 466, the drift at the mean 440
    assert round(float(np.interp(0.5 * np.arcsinh(top), clock, np.arange(1000)))) == 466
    index = np.arange(480, 400, -1)
    x = jnp.exp(-clock[index])[:, None] * 0.3 * jnp.ones(16)
    rates = stability.drift_spectrum(model, x, clock[index]).eigenvalues[:, 0]
    t_c = float(stability.critical_times(clock[index], rates))
    assert abs(float(np.interp(t_c, clock, np.arange(1000))) - 440) <= 1


@pytest.mark.slow
def test_branch_of_the_benchmark_ends_in_a_fold():
    # at 461, without ever becoming unstable
    model, _, _ = benchmark()
    clock, index = schedules.ddpm_linear(), np.arange(480, 400, -1)
    x = jnp.exp(-clock[index])[:, None] * 0.3 * jnp.ones(16)
    branch = stability.fixed_points(model, x[0], clock[index])
    lost = index[~np.asarray(branch.converged)]
    assert lost.max() == 461
    before = np.asarray(branch.states)[index > 461]
    assert np.linalg.norm(before, axis=-1).max() < 1.0


@pytest.mark.slow
def test_counts_of_a_variance_exploding_process_are_modes():
    # modes of a density of one dimension: sign changes of its derivative on a grid
    data = gaussian_mixture([0.3, 0.3, 0.4], [[-2.0], [0.1], [2.4]], [0.1, 0.3, 0.2])
    model, t = Diffusion(data, variance_exploding()), 0.15
    grid = np.linspace(-4, 4, 4001)[:, None]
    slope = np.asarray(model.score(grid, t))[:, 0]
    modes = int(np.sum((slope[:-1] > 0) & (slope[1:] <= 0)))
    # the density alone has no drift besides its gradient, for every amount of noise
    for noise in (0.0, 1.0):
        found = stability.stable_points(model, grid[::100], t, noise=noise)
        assert int(found.number) == modes == 3
    state = brentq(lambda v: float(model.score(np.array([v]), t)[0]), 1.5, 3.0, xtol=1e-13)
    assert np.abs(np.asarray(found.states)[:, 0] - state).min() < 1e-10


# Input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: stability.drift(MIXTURE, STATES, 0.0), ValueError, "t = 0 is singular"),
        (lambda: stability.drift(MIXTURE, STATES, 0.1, -1.0), ValueError, "noise must be >= 0"),
        (lambda: stability.drift(OU, STATES, 0.1), TypeError, "must be a Diffusion"),
        (lambda: stability.fixed_points(MIXTURE, STATES, [0.1, 0.2]), ValueError, "decrease"),
        (
            lambda: stability.fixed_points(MIXTURE, STATES, 0.1, solver="lu"),
            ValueError,
            "unknown solver 'lu'; choose one of dense, krylov",
        ),
        (lambda: stability.stable_points(MIXTURE, STATES[0], 0.1), ValueError, r"\(B, d\)"),
        (
            lambda: stability.stable_points(score_model(jnp.sin, OU), STATES, 0.1),
            TypeError,
            "exact posterior",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
