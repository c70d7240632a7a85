"""Blurred distributions against mixtures and closed forms, and the likelihood of their chains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import diffjax
from diffjax import Diffusion, ornstein_uhlenbeck, variance_exploding
from diffjax.data.smoothed import smoothed, smoothed_by_level
from diffjax.observables.likelihood import negative_log_likelihood, point_losses

RNG = np.random.default_rng(5)
POINTS = RNG.normal(size=(9, 3)) * [0.8, 1.3, 0.5] + 0.4
WIDTH = 0.17  # kernel variance
KERNEL = smoothed(diffjax.point_cloud(POINTS), WIDTH)
MIXTURE = diffjax.gaussian_mixture(np.full(9, 1 / 9), POINTS, WIDTH)
PROCESS = ornstein_uhlenbeck(0.7)
X = RNG.normal(size=(5, 3))
T = jnp.asarray([0.02, 0.1, 0.4, 0.9, 2.0])


@pytest.mark.parametrize("name", ["score", "denoise", "log_density", "jacobian"])
def test_smoothed_points_are_a_mixture(name):
    found, want = (getattr(Diffusion(data, PROCESS), name)(X, T) for data in (KERNEL, MIXTURE))
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-10)


def test_clean_density_and_score_are_those_of_the_mixture():
    for name in ("score", "log_density"):
        found, want = (getattr(Diffusion(d, PROCESS), name)(X, 0.0) for d in (KERNEL, MIXTURE))
        np.testing.assert_allclose(found, want, rtol=1e-9)
    with pytest.raises(ValueError, match="t = 0 is singular"):
        Diffusion(smoothed(diffjax.point_cloud(POINTS), 0.0), PROCESS).score(X, 0.0)


def test_posterior_samples_have_the_moments_of_the_posterior(key):
    diffusion = Diffusion(KERNEL, PROCESS)
    draws = 40_000
    for t in (0.05, 0.6):
        x = jnp.broadcast_to(jnp.asarray(X[0]), (draws, 3))
        a = np.asarray(diffusion.sample_posterior(key, x, t))
        mean = np.asarray(Diffusion(MIXTURE, PROCESS).denoise(X[0], t))
        scale, std = float(PROCESS.scale(t)), float(PROCESS.std(t))
        covariance = np.stack(
            [MIXTURE.covariance_product(jnp.asarray(X[0]), scale, std, u) for u in np.eye(3)]
        )
        error = np.sqrt(np.diag(covariance) / draws)
        assert np.all(np.abs(a.mean(0) - mean) < 4 * error)
        spread = np.cov(a.T)
        size = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
        assert np.all(np.abs(spread - covariance) < 6 * size * np.sqrt(2 / draws))


def test_clean_samples_have_the_variance_of_points_and_kernel(key):
    a = np.asarray(KERNEL.sample(key, 40_000))
    want = POINTS.var(axis=0) + WIDTH
    assert np.all(np.abs(a.var(axis=0) / want - 1) < 4 * np.sqrt(2 / 40_000))


def test_equal_variances_at_all_levels_are_one_variance():
    times = [0.01, 0.3, 3.0]
    data = smoothed_by_level(diffjax.point_cloud(POINTS), [WIDTH] * 3, times)
    for name in ("score", "denoise"):
        found, want = (getattr(Diffusion(d, PROCESS), name)(X, T) for d in (data, KERNEL))
        np.testing.assert_allclose(found, want, rtol=1e-9)


def test_variance_between_knots_and_beyond():
    process = ornstein_uhlenbeck()
    data = smoothed_by_level(diffjax.point_cloud(POINTS), [0.3, 0.02], [0.1, 1.0])
    log_snr = -np.log(np.expm1(2 * np.array([0.1, 1.0])))
    middle = 0.5 * np.log1p(np.exp(-log_snr.mean()))
    for t, want in ((0.1, 0.3), (1.0, 0.02), (middle, np.sqrt(0.3 * 0.02)), (5.0, 0.02)):
        found = data.variance(process.scale(t), process.std(t))
        assert float(found) == pytest.approx(want, rel=1e-9)
    # noise only: flow matching starts there
    assert float(data.variance(0.0, 1.0)) == pytest.approx(0.02)


def exact(points, at, variance):
    square = ((at[:, None] - points) ** 2).sum(-1) / (2 * variance)
    size = points.shape[1] * np.log(2 * np.pi * variance) / 2
    return size + np.log(len(points)) - logsumexp(-square, axis=1)


@pytest.mark.parametrize("process", [PROCESS, variance_exploding(1.3)], ids=["ou", "ve"])
def test_likelihood_of_every_point_is_its_density(process, key):
    at = np.repeat(X, 600, axis=0)
    losses = np.asarray(point_losses(key, Diffusion(KERNEL, process), at, 0.05, 2.5, levels=16))
    losses = losses.reshape(5, 600)
    distance = (losses.mean(1) - exact(POINTS, X, WIDTH)) / (losses.std(1, ddof=1) / np.sqrt(600))
    assert np.all(np.abs(distance) < 4)
    assert np.all(losses.std(1, ddof=1) / np.sqrt(600) < 0.1)


def test_any_other_denoiser_has_a_larger_bound(key):
    diffusion = Diffusion(KERNEL, PROCESS)
    cloud = diffjax.point_cloud(POINTS)
    other = Diffusion(smoothed_by_level(cloud, [0.01, 0.4], [0.1, 1.0]), PROCESS)
    at = np.asarray(KERNEL.sample(key, 4000))
    best, wrong = (
        np.asarray(point_losses(key, model, at, 0.05, 2.5, start=diffusion, end=diffusion))
        for model in (diffusion, other)
    )
    excess = wrong - best
    assert excess.mean() > 4 * excess.std(ddof=1) / np.sqrt(len(excess))


@pytest.mark.slow
def test_gradient_of_the_bound_in_the_variances(key):
    cloud, base = diffjax.point_cloud(POINTS), Diffusion(KERNEL, PROCESS)

    def loss(log_variances):
        data = smoothed_by_level(cloud, jnp.exp(log_variances), jnp.asarray([0.1, 0.6, 1.5]))
        model = Diffusion(data, PROCESS)
        return negative_log_likelihood(
            key, model, X, 0.05, 2.5, start=base, end=base, levels=8
        ).mean

    at, step = jnp.log(jnp.asarray([0.1, 0.2, 0.05])), 1e-5
    gradient = jax.grad(loss)(at)
    numeric = [(loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in jnp.eye(3)]
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-8)


BAD = [
    (lambda: smoothed(diffjax.point_cloud(POINTS), -0.1), ValueError, "variance must be >= 0"),
    (lambda: smoothed(diffjax.point_cloud(POINTS), [0.1]), ValueError, r"shape \(1,\)"),
    (lambda: smoothed(object(), 0.1), TypeError, "smoothed needs an exact posterior"),
    (lambda: smoothed_by_level(KERNEL, [0.1], [0.1, 1.0]), ValueError, "expected"),
    (lambda: smoothed_by_level(KERNEL, [0.1, 0.0], [0.1, 1]), ValueError, "must be positive"),
    (lambda: smoothed_by_level(KERNEL, [0.1, 0.2], [1, 0.1]), ValueError, "increase strictly"),
    (
        lambda: point_losses(
            jax.random.key(0), Diffusion(diffjax.point_cloud(POINTS), PROCESS), X, 0.1, 1.0
        ),
        TypeError,
        "needs a density",
    ),
    (
        lambda: point_losses(jax.random.key(0), Diffusion(KERNEL, PROCESS), X, 1.0, 0.1),
        ValueError,
        "t_min < t_max",
    ),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, error, message = BAD[place]
    with pytest.raises(error, match=message):
        call()
