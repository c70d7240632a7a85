"""The empirical measure against a dense float64 softmax in numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import gaussian_mixture, point_cloud

N, D = 9, 3
SCALES, STDS = np.linspace(0.3, 0.98, 5), np.linspace(1.1, 0.25, 5)
rng = np.random.default_rng(4)
POINTS = rng.normal(size=(N, D)) + np.array([2.0, 0.0, -1.0])  # not centred
LABELS = np.array([7, 3, 3, 5, 7, 3, 5, 3, 3])  # classes 3, 5, 7 of sizes 5, 2, 2
X = SCALES[:, None] * POINTS[:5] + STDS[:, None] * rng.normal(size=(5, D))
U = rng.normal(size=(5, D))


@jax.jit
def _answers(cloud, x, u, scale, std):
    return {
        "log_normaliser": cloud.log_normaliser(x, scale, std),
        "score": cloud.score(x, scale, std),
        "denoise": cloud.denoise(x, scale, std),
        "covariance": cloud.covariance_product(x, scale, std, u),
        "weights": cloud.index_log_weights(x, scale, std),
        "posterior": cloud.class_log_posterior(x, scale, std),
        "class_denoise": cloud.class_denoise(x, scale, std),
    }


def answers(cloud, x=X, u=U, scale=SCALES, std=STDS):
    dtype = cloud.points.dtype
    return _answers(cloud, *(jnp.asarray(v, dtype) for v in (x, u, scale, std)))


DRAWS = 20_000


@jax.jit
def _draw(cloud, key, x, scale, std):
    return cloud.sample_posterior(key, x, scale, std)


def draw(cloud, seed, x, scale, std):
    """Posterior draws of one state, ``(DRAWS, d)``."""
    states = jnp.broadcast_to(jnp.asarray(x), (DRAWS, D))
    return np.asarray(_draw(cloud, jax.random.key(seed), states, *map(jnp.asarray, (scale, std))))


def oracle(points, prior=None, labels=None, x=X, u=U, scale=SCALES, std=STDS):
    """Dense softmax with the full distances; ``prior`` are the weights of the points."""
    prior = np.full(len(points), 1 / len(points)) if prior is None else prior
    distance = ((x[:, None] - scale[:, None, None] * points) ** 2).sum(-1)
    with np.errstate(divide="ignore"):
        joint = np.log(prior) - distance / (2 * std[:, None] ** 2)
    log_z = np.logaddexp.reduce(joint, -1)
    w = np.exp(joint - log_z[:, None])
    mean = w @ points
    offset = points - mean[:, None]
    result = {
        "log_normaliser": log_z - 0.5 * points.shape[1] * np.log(2 * np.pi * std**2),
        "score": (scale[:, None] * mean - x) / std[:, None] ** 2,
        "denoise": mean,
        "covariance": np.einsum("bn,bni,bnj,bj->bi", w, offset, offset, u),
        "weights": joint - log_z[:, None],
    }
    if labels is not None:
        member = labels == np.unique(labels)[:, None]
        p = w @ member.T
        result["posterior"] = np.log(p)
        result["class_denoise"] = np.einsum("bn,cn,nd->bcd", w, member, points) / p[..., None]
    return result


def compare(got, want, rtol=1e-9, atol=1e-11):
    for quantity, value in want.items():
        np.testing.assert_allclose(got[quantity], value, rtol=rtol, atol=atol, err_msg=quantity)


def test_against_a_dense_softmax():
    compare(answers(point_cloud(POINTS, LABELS)), oracle(POINTS, labels=LABELS))


def test_classes_are_sorted_values_of_the_labels():
    cloud = point_cloud(POINTS, np.array(["x", "b", "b", "m", "x", "b", "m", "b", "b"]))
    assert cloud.classes == 3
    np.testing.assert_allclose(cloud.class_weights, [5 / 9, 2 / 9, 2 / 9], rtol=1e-12)
    compare(answers(cloud), oracle(POINTS, labels=LABELS))


def test_condition_masks_and_keeps_indices():
    cloud = point_cloud(POINTS, LABELS)
    kept = LABELS == 3
    one = cloud.condition(0)
    assert one.points.shape == cloud.points.shape
    np.testing.assert_allclose(one.class_weights, [1, 0, 0], atol=1e-15)
    got, want = answers(one), oracle(POINTS[kept])
    compare(got, {q: want[q] for q in ("log_normaliser", "score", "denoise", "covariance")})
    weights = np.asarray(got["weights"])
    assert np.all(weights[:, ~kept] == -np.inf)
    np.testing.assert_allclose(weights[:, kept], want["weights"], rtol=1e-9)
    drawn = draw(one, 0, X[0], SCALES[0], STDS[0])
    assert {tuple(a) for a in drawn} <= {tuple(p) for p in POINTS[kept]}
    prior = np.asarray(one.sample(jax.random.key(1), 300))
    assert {tuple(p) for p in prior} == {tuple(p) for p in POINTS[kept]}
    with pytest.raises(ValueError, match=r"class 3 does not exist; classes are 0\.\.2"):
        cloud.condition(3)


def test_duplicates_share_their_weight():
    # Seven points, the third of them three times.
    order = np.array([0, 1, 2, 3, 4, 5, 6, 2, 2])
    got = answers(point_cloud(POINTS[order], LABELS[order]))
    prior = np.full(7, 1 / 9)
    prior[2] = 3 / 9
    want = oracle(POINTS[:7], prior=prior)
    compare(got, {q: want[q] for q in ("log_normaliser", "score", "denoise", "covariance")})
    shared = np.asarray(got["weights"])[:, [2, 7, 8]]
    np.testing.assert_allclose(shared, np.tile(want["weights"][:, 2:3] - np.log(3), 3), rtol=1e-9)


def test_one_point_is_a_gaussian():
    got = answers(point_cloud(POINTS[:1]))
    residual = X - SCALES[:, None] * POINTS[0]
    np.testing.assert_allclose(got["denoise"], np.tile(POINTS[:1], (5, 1)), rtol=1e-12)
    np.testing.assert_allclose(got["score"], -residual / STDS[:, None] ** 2, rtol=1e-10)
    np.testing.assert_allclose(got["covariance"], 0, atol=1e-12)
    np.testing.assert_allclose(got["weights"], 0, atol=1e-15)
    np.testing.assert_allclose(got["posterior"], 0, atol=1e-15)


def test_equals_a_mixture_of_point_masses():
    # Two implementations of one measure that share no code.
    x, scale, std = jnp.asarray(X), jnp.asarray(SCALES), jnp.asarray(STDS)
    masses = gaussian_mixture(np.ones(N), POINTS, 0.0)
    got = answers(point_cloud(POINTS, LABELS))

    @jax.jit
    def both():
        return masses.score(x, scale, std), masses.log_normaliser(x, scale, std)

    score, density = both()
    np.testing.assert_allclose(got["score"], score, rtol=1e-9)
    np.testing.assert_allclose(got["log_normaliser"], density, rtol=1e-9)


def test_posterior_draws_have_the_weights():
    w = np.exp(oracle(POINTS)["weights"][1])
    a = draw(point_cloud(POINTS, LABELS), 2, X[1], SCALES[1], STDS[1])
    counts = np.array([(a == p).all(-1).sum() for p in POINTS])  # equal to the last digit
    assert counts.sum() == DRAWS
    seen = w > 1e-3
    z = (counts / DRAWS - w)[seen] / np.sqrt(w * (1 - w) / DRAWS)[seen]
    assert seen.sum() > 3
    assert np.abs(z).max() < 4
    x = jax.ShapeDtypeStruct((4, 2, D), float)
    index = jax.eval_shape(point_cloud(POINTS).sample_index, jax.random.key(0), x, 0.3, 1.1)
    assert index.shape == (4, 2)


def test_prior_draws_are_uniform():
    n = 30_000
    samples = np.asarray(point_cloud(POINTS).sample(jax.random.key(3), n))
    counts = np.array([(samples == p).all(-1).sum() for p in POINTS])
    assert counts.sum() == n
    z = (counts / n - 1 / N) / np.sqrt((1 / N) * (1 - 1 / N) / n)
    assert np.abs(z).max() < 4


def test_prior_draws_need_no_table_of_samples_by_points():
    # 20,000 draws from 20,000 points: a categorical draw by Gumbel noise would hold 1.6 GB.
    cloud = point_cloud(np.arange(20_000.0)[:, None])
    compiled = (
        jax.jit(lambda c, key: c.sample(key, 20_000)).lower(cloud, jax.random.key(0)).compile()
    )
    assert compiled.memory_analysis().temp_size_in_bytes < 20e6


def test_float32_is_kept_at_small_noise(strict):
    # t = 5e-5 in 30 dimensions, far from the origin: the score is O(1/std), not cancelled away.
    points = np.float32(np.random.default_rng(8).normal(size=(40, 30)) + 5.0)
    scale, std = np.float32(0.99995), np.float32(0.01)
    z = np.random.default_rng(9).normal(size=(5, 30))
    x = np.float32(scale * points[:5] + std * z)
    cloud = point_cloud(points)
    scale, std = jnp.full(5, scale), jnp.full(5, std)
    everything = jax.eval_shape(_answers, cloud, x, x, scale, std)
    assert {v.dtype for v in everything.values()} == {jnp.dtype(jnp.float32)}
    score, density = jax.jit(lambda c: (c.score(x, scale, std), c.log_normaliser(x, scale, std)))(
        cloud
    )
    wide = {"x": np.float64(x), "u": np.float64(x)}
    want = oracle(np.float64(points), **wide, scale=np.float64(scale), std=np.float64(std))
    np.testing.assert_allclose(score, want["score"], rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(density, want["log_normaliser"], atol=2e-3)


def test_classes_far_below_the_smallest_float_keep_their_log_posterior():
    far = 40 * np.eye(3)[np.searchsorted(np.unique(LABELS), LABELS)] + POINTS
    x = np.concatenate([far[:4] + 0.3, [[20.0, 20.0, -5.0]]])
    scale, std = np.full(5, 0.95), np.array([0.3, 0.6, 1.0, 2.0, 0.2])
    joint = -((x[:, None] - 0.95 * far) ** 2).sum(-1) / (2 * std[:, None] ** 2)
    joint = joint[:, None] + np.where(np.unique(LABELS)[:, None] == LABELS, 0, -np.inf)
    exact = np.logaddexp.reduce(joint, -1)
    exact -= np.logaddexp.reduce(exact, -1, keepdims=True)
    assert exact.min() < -1000
    cloud = point_cloud(far.astype(np.float32), LABELS)
    values = (jnp.asarray(v, jnp.float32) for v in (x, scale, std))
    np.testing.assert_allclose(cloud.class_log_posterior(*values), exact, rtol=2e-5, atol=2e-4)
