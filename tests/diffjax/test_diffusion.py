"""`Diffusion`: the posterior of the data through the clock and coordinates of a process."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import (
    Diffusion,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    variance_exploding,
)
from diffjax.diffusion import denoise_at, score_at, score_model

rng = np.random.default_rng(21)
MIXTURE = gaussian_mixture([0.3, 0.7], rng.normal(size=(2, 3)), [[0.2, 0.5, 1.4], [1.0, 0.3, 0.6]])
CLOUD = point_cloud(rng.normal(size=(7, 3)), [0, 0, 1, 1, 1, 1, 1])
PROCESSES = [ornstein_uhlenbeck(0.6), variance_exploding(0.6), rectified_flow(0.6)]
X = jnp.asarray(rng.normal(size=(4, 3)))
TIMES = jnp.array([0.05, 0.4, 1.1, 2.5])


def test_the_channel_is_that_of_the_process():
    # One row through Diffusion against the record with scale and std written out.
    t, process = 0.8, rectified_flow(0.6)
    q = np.sqrt(0.6 * np.expm1(1.6))
    scale, std = 1 / (1 + q), q / (1 + q)
    diffusion = Diffusion(MIXTURE, process)
    np.testing.assert_allclose(diffusion.score(X, t), MIXTURE.score(X, scale, std), rtol=1e-10)


@jax.jit
def seen(diffusion, x):
    return {
        "density": diffusion.log_density(x, TIMES),
        "score": diffusion.score(x, TIMES),
        "classes": diffusion.class_log_posterior(x, TIMES),
    }


@pytest.mark.parametrize("data", [MIXTURE, CLOUD], ids=["mixture", "cloud"])
def test_processes_see_the_same_posterior(data):
    # x_VE = e^t x_OU, F_VE = e^-t F; x_flow = (1 - u) e^t x_OU. One datum, three coordinates.
    want = seen(Diffusion(data, PROCESSES[0]), X)
    for process in PROCESSES[1:]:
        factor = process.scale(TIMES) * np.exp(TIMES)
        got = seen(Diffusion(data, process), factor[:, None] * X)
        np.testing.assert_allclose(got["score"], want["score"] / factor[:, None], rtol=1e-8)
        np.testing.assert_allclose(got["density"], want["density"] - 3 * np.log(factor), rtol=1e-9)
        np.testing.assert_allclose(got["classes"], want["classes"], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(
    "data", [MIXTURE, pytest.param(CLOUD, marks=pytest.mark.slow)], ids=["mixture", "cloud"]
)
def test_score_jacobian_and_density_fit_together(data):
    diffusion = Diffusion(data, PROCESSES[0])
    jacobian = diffusion.jacobian(X, TIMES)
    assert jacobian.shape == (4, 3, 3)

    @jax.jit
    def derivatives(diffusion, x, t):
        return jax.vmap(
            lambda x, t: (jax.jacfwd(diffusion.score)(x, t), jax.grad(diffusion.log_density)(x, t))
        )(x, t)

    of_score, of_density = derivatives(diffusion, X, TIMES)
    np.testing.assert_allclose(jacobian, of_score, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(jacobian, np.swapaxes(jacobian, 1, 2), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(diffusion.score(X, TIMES), of_density, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("data", [MIXTURE, CLOUD], ids=["mixture", "cloud"])
def test_class_scores_average_to_the_score(data):
    diffusion = Diffusion(data, rectified_flow(0.6))
    p = np.exp(diffusion.class_log_posterior(X, TIMES))
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    scores = diffusion.class_score(X, TIMES)
    assert scores.shape == (4, 2, 3)
    np.testing.assert_allclose(
        np.einsum("bk,bkd->bd", p, scores), diffusion.score(X, TIMES), rtol=1e-8
    )
    # The score of a class is that of the conditioned data.
    alone = Diffusion(data.condition(1), rectified_flow(0.6))
    np.testing.assert_allclose(scores[:, 1], alone.score(X, TIMES), rtol=1e-8)


def test_log_density_integrates_to_one():
    data = gaussian_mixture([0.25, 0.75], [[-1.5], [1.0]], [0.1, 0.4])
    grid = jnp.linspace(-20, 20, 2001)[:, None]
    for process in (ornstein_uhlenbeck(1.7), variance_exploding(1.7)):
        p = np.exp(Diffusion(data, process).log_density(grid, 0.35))
        assert p.sum() * (grid[1, 0] - grid[0, 0]) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("data", [MIXTURE, CLOUD], ids=["mixture", "cloud"])
def test_samples_have_the_law_of_the_density(data):
    # E[score] = 0 and E[x . score] = -d under p_t: moments that see a wrong std or weight.
    diffusion, n = Diffusion(data, ornstein_uhlenbeck(1.8)), 20_000
    x = diffusion.sample(jax.random.key(4), 0.3, n)
    assert x.shape == (n, 3)
    score = np.asarray(diffusion.score(x, 0.3))
    z = score.mean(0) / (score.std(0) / np.sqrt(n))
    virial = np.sum(np.asarray(x) * score, -1)
    z = np.append(z, (virial.mean() + 3) / (virial.std() / np.sqrt(n)))
    assert np.abs(z).max() < 4


def test_sample_at_time_zero_is_clean():
    x = np.asarray(Diffusion(CLOUD, PROCESSES[0]).sample(jax.random.key(0), 0.0, 20))
    assert {tuple(row) for row in x} <= {tuple(row) for row in np.asarray(CLOUD.points)}


def test_time_zero_needs_a_density():
    clean = Diffusion(MIXTURE, PROCESSES[0])
    np.testing.assert_allclose(clean.denoise(X, 0.0), X, rtol=1e-12)
    gradient = jax.vmap(jax.grad(lambda v: clean.log_density(v, 0.0)))(X)
    np.testing.assert_allclose(clean.score(X, 0.0), gradient, rtol=1e-9)
    with pytest.raises(ValueError, match=r"t = 0 is singular here \(the clean data have no den"):
        Diffusion(CLOUD, PROCESSES[0]).score(X, 0.0)


@pytest.mark.parametrize("data", [MIXTURE, CLOUD], ids=["mixture", "cloud"])
@pytest.mark.parametrize("t", [60.0, 1e4, np.inf])
def test_infinite_time_is_the_stationary_law(data, t):
    # At t = 60 the signal is 1e-26: the posterior is the prior and the score that of N(0, T).
    diffusion = Diffusion(data, ornstein_uhlenbeck(0.6))
    np.testing.assert_allclose(diffusion.score(X, t), -X / 0.6, rtol=1e-12)
    np.testing.assert_allclose(
        np.exp(diffusion.class_log_posterior(X, t)), np.tile(data.class_weights, (4, 1)), rtol=1e-12
    )
    normal = -0.5 * np.sum(X**2, -1) / 0.6 - 1.5 * np.log(2 * np.pi * 0.6)
    np.testing.assert_allclose(diffusion.log_density(X, t), normal, rtol=1e-12)


def test_posterior_samples_average_to_the_denoiser():
    diffusion, n = Diffusion(MIXTURE, PROCESSES[2]), 20_000
    x = jnp.broadcast_to(X[0], (n, 3))
    a = np.asarray(diffusion.sample_posterior(jax.random.key(9), x, 0.7))
    z = (a.mean(0) - diffusion.denoise(X[:1], 0.7)[0]) / (a.std(0) / np.sqrt(n))
    assert np.abs(z).max() < 4


def test_index_weights_give_the_denoiser():
    diffusion = Diffusion(CLOUD, PROCESSES[1])
    w = np.exp(diffusion.index_log_weights(X, TIMES))
    assert w.shape == (4, 7)
    np.testing.assert_allclose(w @ CLOUD.points, diffusion.denoise(X, TIMES), rtol=1e-10)


def test_a_score_function_is_a_denoiser_through_its_process():
    process = PROCESSES[2]
    diffusion = Diffusion(MIXTURE, process)
    model = score_model(diffusion.score, process)
    t = jnp.asarray(0.9)
    np.testing.assert_allclose(denoise_at(model, X, t), diffusion.denoise(X, 0.9), rtol=1e-9)
    np.testing.assert_allclose(score_at(model, X, t), diffusion.score(X, 0.9), rtol=1e-12)


class OnlyDenoises:
    """The least that a trained network knows."""

    dim = 3

    def denoise(self, x, scale, std):
        return 0.5 * x


def test_missing_capabilities_are_named():
    network = Diffusion(OnlyDenoises(), PROCESSES[0])
    scale, variance = np.exp(-0.5), 0.6 * -np.expm1(-1.0)
    want = (scale * 0.5 - 1) * np.asarray(X) / variance
    np.testing.assert_allclose(score_at(network, X, jnp.asarray(0.5)), want, rtol=1e-12)
    for call, missing in (
        (lambda: network.log_density(X, 0.5), "log_density needs an exact posterior"),
        (lambda: network.sample_posterior(jax.random.key(0), X, 0.5), "an exact posterior"),
        (lambda: network.class_score(X, 0.5), "class_score needs a denoiser for each class"),
        (lambda: Diffusion(MIXTURE, PROCESSES[0]).index_log_weights(X, 0.5), "an index over poi"),
    ):
        with pytest.raises(TypeError, match=missing):
            call()


def test_transformations_and_dtype():
    diffusion = Diffusion(MIXTURE, PROCESSES[0])
    want = diffusion.score(X, TIMES)
    np.testing.assert_allclose(jax.vmap(diffusion.score)(X, TIMES), want, rtol=1e-12)
    np.testing.assert_allclose(
        jax.jit(lambda d, x: d.score(x, TIMES))(diffusion, X), want, rtol=1e-12
    )
    narrow = jax.tree.map(
        lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, MIXTURE
    )
    single = Diffusion(narrow, PROCESSES[0]).score(X.astype(jnp.float32), TIMES)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, want, rtol=1e-4, atol=1e-5)


def test_a_mixture_may_be_closed_over():
    # What everyone writes; the record is a constant of the trace, not an argument.
    diffusion = Diffusion(MIXTURE, PROCESSES[0])
    got = jax.jit(lambda x: diffusion.score(x, TIMES))(X)
    np.testing.assert_allclose(got, diffusion.score(X, TIMES), rtol=1e-12)


def test_temperature_gradient_of_a_score():
    # d/dT of the score of one Gaussian, -(x - e^-t m) / (T (1 - e^-2t) + e^-2t v), by hand.
    data = gaussian_mixture([1.0], [[0.4]], 0.3)

    def score(temperature):
        return Diffusion(data, ornstein_uhlenbeck(temperature)).score(jnp.array([1.3]), 0.7)[0]

    decay = np.exp(-0.7)
    gamma = 1.9 * (1 - decay**2) + decay**2 * 0.3
    by_hand = (1.3 - decay * 0.4) / gamma**2 * (1 - decay**2)
    assert float(jax.grad(score)(1.9)) == pytest.approx(by_hand, rel=1e-10)
