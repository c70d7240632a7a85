"""Gaussian mixtures against dense numpy covariances, and the laws that they must obey."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from diffjax import gaussian_mixture

D, K, R = 4, 3, 2
SCALE, STD = 0.62, 0.81
SCALES, STDS = np.linspace(0.05, 0.95, 6), np.linspace(1.2, 0.1, 6)  # one channel for each row
rng = np.random.default_rng(11)
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = rng.normal(size=(K, D)) * 1.3
FACTORS = rng.normal(size=(K, D, R)) * 0.9
X = rng.normal(size=(6, D)) * 1.5
U = rng.normal(size=(6, D))
MIXTURES = {
    "scalar": gaussian_mixture(WEIGHTS, MEANS, 0.37),
    "isotropic": gaussian_mixture(WEIGHTS, MEANS, [0.4, 1.7, 0.15]),
    "diagonal": gaussian_mixture(WEIGHTS, MEANS, rng.uniform(0.1, 2.0, (K, D))),
    "low-rank": gaussian_mixture(WEIGHTS, MEANS, rng.uniform(0.1, 1.0, (K, D)), FACTORS),
    "singular": gaussian_mixture(WEIGHTS, MEANS, np.zeros((K, D)), FACTORS),
}
each_mixture = pytest.mark.parametrize("name", MIXTURES)


@jax.jit
def _answers(mixture, x, u, scale, std):
    return {
        "log_normaliser": mixture.log_normaliser(x, scale, std),
        "score": mixture.score(x, scale, std),
        "denoise": mixture.denoise(x, scale, std),
        "covariance": mixture.covariance_product(x, scale, std, u),
        "posterior": mixture.class_log_posterior(x, scale, std),
        "class_denoise": mixture.class_denoise(x, scale, std),
    }


def answers(mixture, x, u, scale, std):
    """All that a mixture answers; compiled once for each kind of mixture (it takes seconds)."""
    dtype = mixture.means.dtype
    scale, std = (jnp.broadcast_to(jnp.asarray(v, dtype), x.shape[:-1]) for v in (scale, std))
    return _answers(mixture, jnp.asarray(x, dtype), jnp.asarray(u, dtype), scale, std)


def covariances(mixture):
    """Dense covariance of every component."""
    dense = [np.diag(np.broadcast_to(v, (mixture.dim,))) for v in np.asarray(mixture.variances)]
    if mixture.factors is not None:
        dense = [s + f @ f.T for s, f in zip(dense, np.asarray(mixture.factors))]
    return dense


def oracle(mixture, x, u, scale, std):
    """The same by dense linear algebra, without Woodbury, shifts or cancellation tricks."""
    scale, std = (np.broadcast_to(v, len(x)) for v in (scale, std))
    rows = [one_row(mixture, *row) for row in zip(x, u, scale, std)]
    return {quantity: np.stack([row[quantity] for row in rows]) for quantity in rows[0]}


def one_row(mixture, x, u, scale, std):
    means, weights = np.asarray(mixture.means), np.exp(np.asarray(mixture.log_weights))
    sigmas = covariances(mixture)
    noised = [std**2 * np.eye(len(x)) + scale**2 * s for s in sigmas]
    joint = np.array([
        np.log(w) + multivariate_normal.logpdf(x, scale * m, c)
        for w, m, c in zip(weights, means, noised)
    ])  # fmt: skip
    log_p = np.logaddexp.reduce(joint)
    p = np.exp(joint - log_p)
    solved = np.stack([np.linalg.solve(c, x - scale * m) for m, c in zip(means, noised)])
    centres = np.stack([m + scale * s @ g for m, g, s in zip(means, solved, sigmas)])
    within = [s - scale**2 * s @ np.linalg.solve(c, s) for s, c in zip(sigmas, noised)]
    offset = centres - p @ centres
    covariance = np.einsum("k,kij->ij", p, np.stack(within))
    covariance += np.einsum("k,ki,kj->ij", p, offset, offset)
    return {
        "log_normaliser": log_p,
        "score": -p @ solved,
        "denoise": p @ centres,
        "covariance": covariance @ u,
        "posterior": np.log(p),
        "class_denoise": centres,
        "full_covariance": covariance,
    }


def compare(got, want, quantities=None, rtol=1e-9, atol=1e-11):
    for quantity in quantities or got:
        np.testing.assert_allclose(
            got[quantity], want[quantity], rtol=rtol, atol=atol, err_msg=quantity
        )


@each_mixture
def test_against_dense_covariances(name):
    # Every row has a time of its own; the last has a thousand times the signal of the first.
    mixture = MIXTURES[name]
    got = answers(mixture, X, U, SCALES, STDS)
    compare(got, oracle(mixture, X, U, SCALES, STDS))
    p = np.exp(got["posterior"])
    assert p.shape == (6, K)
    np.testing.assert_allclose(p.sum(-1), 1, rtol=1e-12)
    mean = np.einsum("bk,bkd->bd", p, got["class_denoise"])
    np.testing.assert_allclose(mean, got["denoise"], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["diagonal", "low-rank"])
def test_score_is_the_gradient_and_tweedie_holds(name):
    mixture = MIXTURES[name]
    got = answers(mixture, X, U, SCALE, STD)

    @jax.jit
    @jax.vmap
    def derivatives(x):
        return (
            jax.grad(lambda v: mixture.log_normaliser(v, SCALE, STD))(x),
            jax.jacfwd(lambda v: mixture.denoise(v, SCALE, STD))(x),
        )

    gradient, jacobian = derivatives(jnp.asarray(X))
    np.testing.assert_allclose(got["score"], gradient, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(
        SCALE * got["denoise"], X + STD**2 * got["score"], rtol=1e-9, atol=1e-12
    )
    # dD/dx = scale Cov / std^2, symmetric (second-order Tweedie).
    np.testing.assert_allclose(jacobian, np.swapaxes(jacobian, 1, 2), atol=1e-12)
    product = np.einsum("bij,bj->bi", jacobian, U) * STD**2 / SCALE
    np.testing.assert_allclose(got["covariance"], product, rtol=1e-9, atol=1e-12)


def test_scalar_times_and_batch_axes_of_any_number():
    mixture = MIXTURES["isotropic"]
    want = oracle(mixture, X, U, SCALE, STD)
    score = jax.jit(lambda x, std: mixture.score(x, SCALE, std))
    posterior = jax.jit(lambda x, std: mixture.class_log_posterior(x, SCALE, std))
    for shape, std in (((2, 3), STD * np.ones((2, 3))), ((6,), STD), ((2, 1, 3), STD)):
        x = X.reshape(*shape, D)
        np.testing.assert_allclose(score(x, std).reshape(6, D), want["score"], rtol=1e-10)
        found = posterior(x, std)
        assert found.shape == (*shape, K)
        np.testing.assert_allclose(found.reshape(6, K), want["posterior"], rtol=1e-9, atol=1e-12)


def test_zero_scale_knows_only_the_prior():
    got = answers(MIXTURES["low-rank"], X, U, 0.0, 1.4)
    prior = np.tile(WEIGHTS @ MEANS, (6, 1))
    np.testing.assert_allclose(got["denoise"], prior, rtol=1e-12)
    np.testing.assert_allclose(np.exp(got["posterior"]), np.tile(WEIGHTS, (6, 1)), rtol=1e-12)
    np.testing.assert_allclose(got["score"], -X / 1.4**2, rtol=1e-12)


def test_no_noise_gives_the_clean_density():
    for name in ("diagonal", "low-rank"):
        got = answers(MIXTURES[name], X, U, 1.0, 0.0)
        want = oracle(MIXTURES[name], X, U, 1.0, 0.0)
        compare(got, want, ("log_normaliser", "score", "posterior"))
        np.testing.assert_allclose(got["denoise"], X, rtol=1e-12)
        np.testing.assert_allclose(got["covariance"], 0, atol=1e-12)


# Classes ------------------------------------------------------------------------------------------


def test_labels_group_components():
    mixture = gaussian_mixture(WEIGHTS, MEANS, [0.4, 1.7, 0.15], labels=["b", "a", "b"])
    assert mixture.classes == 2
    np.testing.assert_allclose(mixture.class_weights, [0.5, 0.5], rtol=1e-12)
    got = answers(mixture, X, U, SCALE, STD)
    parts = oracle(mixture, X, U, SCALE, STD)
    p = np.exp(parts["posterior"])
    grouped = np.stack([p[:, 1], p[:, 0] + p[:, 2]], -1)
    np.testing.assert_allclose(np.exp(got["posterior"]), grouped, rtol=1e-10)
    share = p[:, [0, 2]] / grouped[:, 1:]
    mean_b = np.einsum("bk,bkd->bd", share, parts["class_denoise"][:, [0, 2]])
    np.testing.assert_allclose(got["class_denoise"][:, 1], mean_b, rtol=1e-9)
    np.testing.assert_allclose(got["class_denoise"][:, 0], parts["class_denoise"][:, 1], rtol=1e-9)


def test_condition_is_the_mixture_of_that_class():
    mixture = gaussian_mixture(WEIGHTS, MEANS, [0.4, 1.7, 0.15], labels=[1, 0, 1])
    class_1 = mixture.condition(1)
    alone = gaussian_mixture([0.4, 0.6], MEANS[[0, 2]], [0.4, 0.15])
    got, want = answers(class_1, X, U, SCALE, STD), oracle(alone, X, U, SCALE, STD)
    compare(got, want, ("log_normaliser", "score", "denoise", "covariance"))
    np.testing.assert_allclose(class_1.class_weights, [0, 1], atol=1e-15)
    samples = np.asarray(class_1.sample(jax.random.key(0), 2000))
    z = (samples.mean(0) - [0.4, 0.6] @ MEANS[[0, 2]]) / (samples.std(0) / np.sqrt(2000))
    assert np.abs(z).max() < 4
    with pytest.raises(ValueError, match=r"class 2 does not exist; classes are 0\.\.1"):
        mixture.condition(2)


def test_a_component_without_weight_leaves_no_trace():
    mixture = gaussian_mixture([0.0, 2.0, 1.0], MEANS, [0.4, 1.7, 0.15])
    alone = gaussian_mixture([2.0, 1.0], MEANS[1:], [1.7, 0.15])
    got, want = answers(mixture, X, U, SCALE, STD), oracle(alone, X, U, SCALE, STD)
    compare(got, want, ("log_normaliser", "score", "denoise", "covariance"))
    np.testing.assert_allclose(got["posterior"][:, 1:], want["posterior"], rtol=1e-9, atol=1e-12)
    assert np.all(np.asarray(got["posterior"][:, 0]) == -np.inf)

    @jax.jit
    @jax.grad
    def gradient(means):
        changed = gaussian_mixture([0.0, 2.0, 1.0], means, [0.4, 1.7, 0.15])
        return jnp.sum(changed.score(X, SCALE, STD) ** 2)

    found = gradient(jnp.asarray(MEANS))
    assert np.all(np.isfinite(found))
    assert np.all(np.abs(found[1:]).max(-1) > 1e-3)
    np.testing.assert_allclose(found[0], 0, atol=1e-15)


# Symmetries ---------------------------------------------------------------------------------------


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_rotation(seed):
    # Isotropic part and factors turn with the means; x turns along.
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(D, D)))[0]
    variances = np.repeat([[0.3], [0.9], [1.6]], D, axis=1)
    mixture = gaussian_mixture(WEIGHTS, MEANS, variances, FACTORS)
    turned = gaussian_mixture(WEIGHTS, MEANS @ q.T, variances, q @ FACTORS)
    before = answers(mixture, X, U, SCALE, STD)
    after = answers(turned, X @ q.T, U @ q.T, SCALE, STD)
    for quantity in ("log_normaliser", "posterior"):
        np.testing.assert_allclose(after[quantity], before[quantity], rtol=1e-9, atol=1e-11)
    for quantity in ("score", "denoise", "covariance", "class_denoise"):
        np.testing.assert_allclose(after[quantity], before[quantity] @ q.T, rtol=1e-9, atol=1e-11)


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.floats(0.0, 30.0))
def test_translation(seed, length):
    b = length * np.random.default_rng(seed).normal(size=D)
    variances = np.repeat([[0.3], [0.9], [1.6]], D, axis=1)
    mixture = gaussian_mixture(WEIGHTS, MEANS, variances, FACTORS)
    moved = gaussian_mixture(WEIGHTS, MEANS + b, variances, FACTORS)
    before = answers(mixture, X, U, SCALE, STD)
    after = answers(moved, X + SCALE * b, U, SCALE, STD)
    for quantity in ("log_normaliser", "posterior", "score", "covariance"):
        np.testing.assert_allclose(after[quantity], before[quantity], rtol=1e-9, atol=1e-10)
    for quantity in ("denoise", "class_denoise"):
        np.testing.assert_allclose(after[quantity], before[quantity] + b, rtol=1e-9, atol=1e-10)


def test_temperature_is_a_rescaling_of_the_data():
    # x at (scale, std) of data a is c times x/c at (scale, std/c) of data a/c.
    c = 0.45
    mixture = gaussian_mixture(WEIGHTS, MEANS, [0.4, 1.7, 0.15])
    small = gaussian_mixture(WEIGHTS, MEANS / c, np.array([0.4, 1.7, 0.15]) / c**2)
    got = answers(small, X / c, U, SCALE, STD / c)
    want = answers(mixture, X, U, SCALE, STD)
    np.testing.assert_allclose(got["score"], c * want["score"], rtol=1e-10)
    np.testing.assert_allclose(got["posterior"], want["posterior"], rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(
        got["log_normaliser"], want["log_normaliser"] + D * np.log(c), rtol=1e-10
    )


# Samples ------------------------------------------------------------------------------------------

N = 40_000


@jax.jit
def _draw(mixture, key, x, scale, std):
    return mixture.sample_posterior(key, x, scale, std)


def draw(name, seed, x, scale, std):
    """N posterior draws of one state, compiled once for each kind of mixture."""
    states = jnp.broadcast_to(jnp.asarray(x), (N, D))
    return np.asarray(
        _draw(MIXTURES[name], jax.random.key(seed), states, *map(jnp.asarray, (scale, std)))
    )


def moment_scores(samples, mean, covariance):
    """Largest z-score of the mean and of the second moments around the true mean."""
    n = len(samples)
    centred = samples - mean
    products = np.einsum("bi,bj->bij", centred, centred)
    z_mean = centred.mean(0) / (np.sqrt(np.diagonal(covariance)) / np.sqrt(n))
    spread = products.std(0) / np.sqrt(n)
    return np.abs(z_mean).max(), np.abs((products.mean(0) - covariance) / spread).max()


@pytest.mark.parametrize("name", ["diagonal", "low-rank"])
def test_posterior_samples_have_the_posterior_moments(name):
    # Each of 14 independent scores exceeds 4 with probability 6e-5.
    want = one_row(MIXTURES[name], X[0], U[0], SCALE, STD)
    a = draw(name, 5, X[0], SCALE, STD)
    assert max(moment_scores(a, want["denoise"], want["full_covariance"])) < 4
    # Without noise the draw is the state.
    np.testing.assert_allclose(draw(name, 5, X[1], 1.0, 0.0)[:9], np.tile(X[1], (9, 1)), rtol=1e-10)


def test_posterior_samples_choose_components_with_their_weights():
    # Far centres with tiny variance: the component of a sample is visible.
    means = np.array([[-3.0, 1.0, 0, 0], [2.0, -2.0, 0, 0], [5.0, 4.0, 1.0, 0]])
    MIXTURES["narrow"] = gaussian_mixture(WEIGHTS, means, [1e-4, 2e-4, 3e-4])
    x, scale, std = np.array([0.5, 0.2, 0.0, 0.1]), 0.2, 0.9
    p = np.exp(one_row(MIXTURES["narrow"], x, x, scale, std)["posterior"])
    assert p.min() > 0.05
    a = draw("narrow", 1, x, scale, std)
    nearest = np.argmin(np.linalg.norm(a[:, None] - means, axis=-1), -1)
    z = (np.bincount(nearest, minlength=3) / N - p) / np.sqrt(p * (1 - p) / N)
    assert np.abs(z).max() < 4


@pytest.mark.parametrize(
    ("name", "scale", "std"), [("diagonal", 1.0, 0.0), ("low-rank", SCALE, STD)]
)
def test_prior_samples_have_the_moments_of_the_noised_mixture(name, scale, std):
    mixture = MIXTURES[name]
    sample = jax.jit(lambda key: mixture.sample_noised(key, N, scale, std))
    mean = scale * WEIGHTS @ MEANS
    covariance = std**2 * np.eye(D)
    for w, m, s in zip(WEIGHTS, MEANS, covariances(mixture)):
        covariance += w * (scale**2 * s + np.outer(scale * m - mean, scale * m - mean))
    assert max(moment_scores(np.asarray(sample(jax.random.key(6))), mean, covariance)) < 4


# Numbers ------------------------------------------------------------------------------------------


def test_float32_is_kept_and_close(strict):
    wide = MIXTURES["low-rank"]
    narrow = jax.tree.map(
        lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, wide
    )
    x, scale, std = (jnp.asarray(v, jnp.float32) for v in (X, SCALE, STD))
    everything = jax.eval_shape(_answers, narrow, x, x, scale, std)
    assert {v.dtype for v in everything.values()} == {jnp.dtype(jnp.float32)}
    score, posterior = jax.jit(
        lambda m: (m.score(x, scale, std), m.class_log_posterior(x, scale, std))
    )(narrow)
    want = oracle(wide, X, U, SCALE, STD)
    np.testing.assert_allclose(score, want["score"], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(posterior, want["posterior"], rtol=2e-4, atol=2e-5)
    key = jax.random.key(0)
    prior = jax.eval_shape(lambda: narrow.sample(key, 3))
    posterior = jax.eval_shape(lambda: narrow.sample_posterior(key, x, scale, std))
    assert prior.dtype == posterior.dtype == jnp.float32


def test_class_odds_survive_huge_states():
    # |x| = 6e4 in float32: |x|^2 / 2 has steps of 256 nats and would swamp the odds of order 1.
    means = np.array([[0.5, -0.3, 0.2, 0.1], [-0.5, 0.3, -0.2, -0.1], [0.1, 0.2, 0, 0]])
    single = gaussian_mixture([0.3, 0.7, 0.0], means.astype(np.float32), 0.8)
    x = np.array([[3.0e4 + 2.0, 5.0e4, 0.0, 0.0]] * 6)
    got = answers(single, x, x, SCALE, STD)
    gamma = STD**2 + SCALE**2 * 0.8
    odds = np.log(0.3 / 0.7) + SCALE * x[0] @ (means[0] - means[1]) / gamma
    # Rounding of x.m: 3e4 * 6e-8 / gamma, a few times.
    posterior = np.asarray(got["posterior"], float)[0]
    assert posterior[0] - posterior[1] == pytest.approx(odds, abs=0.03)
    mean = np.exp(posterior) @ means
    np.testing.assert_allclose(
        got["score"][0], -(x[0] - SCALE * mean) / gamma, rtol=1e-6, atol=5e-3
    )
    far = answers(single, x * 1e10, x, SCALE, STD)
    assert not any(np.any(np.isnan(far[q])) for q in ("posterior", "score", "denoise"))


def test_jit_equals_eager_over_many_rows():
    # One compilation against op-by-op evaluation, row by row (see test_jax_version).
    mixture = MIXTURES["isotropic"]
    x = np.random.default_rng(3).normal(size=(20_000, D))
    jitted = jax.jit(lambda m, v: m.class_log_posterior(v, SCALE, STD))(mixture, x)
    v, m = np.asarray(mixture.variances)[:, 0], np.asarray(mixture.means)
    gamma = STD**2 + SCALE**2 * v
    joint = np.log(WEIGHTS) - 0.5 * D * np.log(gamma)
    joint = joint - 0.5 * ((x[:, None] - SCALE * m) ** 2).sum(-1) / gamma
    want = joint - np.logaddexp.reduce(joint, -1)[:, None]
    np.testing.assert_allclose(jitted, want, rtol=1e-8, atol=1e-9)


def test_many_components():
    k = 19  # more than one unrolled loop body, and no multiple of it
    weights, means = rng.uniform(0.1, 1, k), rng.normal(size=(k, D))
    many = gaussian_mixture(weights, means, rng.uniform(0.2, 1, k))
    found = jax.jit(lambda m, x: m.score(x, SCALE, STD))(many, X)
    np.testing.assert_allclose(found, oracle(many, X, U, SCALE, STD)["score"], rtol=1e-9)


def test_one_gaussian_is_linear():
    one = gaussian_mixture([4.0], [[0.3, -1.0, 2.0]], 0.5)
    x = np.array([[1.0, 2.0, -0.5]])
    gamma = STD**2 + SCALE**2 * 0.5
    residual = x - SCALE * np.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(one.score(x, SCALE, STD), -residual / gamma, rtol=1e-12)
    np.testing.assert_allclose(one.class_log_posterior(x, SCALE, STD), [[0.0]], atol=1e-15)
