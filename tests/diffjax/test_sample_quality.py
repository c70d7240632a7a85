"""Frechet distance against scipy and closed forms; precision and recall against brute force."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffjax.observables.sample_quality import frechet_distance, precision_recall


def by_matrix_root(a, b):
    """The textbook form, with scipy's root of a product of covariances."""
    one, two = np.cov(a.T), np.cov(b.T)
    shift = ((a.mean(0) - b.mean(0)) ** 2).sum()
    return shift + np.trace(one + two - 2 * np.real(sqrtm(one @ two)))


def test_frechet_distance_against_scipy():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)) + rng.normal(size=5)
    b = rng.normal(size=(45, 5)) @ rng.normal(size=(5, 5))
    found = frechet_distance(a, b)
    assert float(found) == pytest.approx(by_matrix_root(a, b), rel=1e-11)
    assert float(frechet_distance(b, a)) == pytest.approx(float(found), rel=1e-12)
    single = frechet_distance(a.astype(np.float32), b.astype(np.float32))
    assert single.dtype == jnp.float32
    assert float(single) == pytest.approx(float(found), rel=1e-5)


def test_frechet_distance_in_closed_form():
    # Diagonal covariances commute: sum of (sd - sd')^2. Points at the corners have exact moments.
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T * np.sqrt(7 / 8)
    one, two = np.array([0.5, 2.0, 1.3]), np.array([1.5, 0.7, 0.0])
    shift = np.array([0.1, -2.0, 3.0])
    found = frechet_distance(corners * one, corners * two + shift)
    assert float(found) == pytest.approx(((one - two) ** 2).sum() + (shift**2).sum(), rel=1e-13)
    # equal sets, also of fewer rows than features, where a root of a rounding error would show
    x = np.random.default_rng(1).normal(size=(30, 200)).astype(np.float32)
    assert 0 <= float(frechet_distance(x, x)) < 30 * 200 * np.finfo(np.float32).eps
    # scaled by c, a set of any rank moves by (c - 1)^2 of its total variance
    x = x.astype(float)
    want = 0.25 * (((x - x.mean(0)) ** 2).sum() / 29 + (x.mean(0) ** 2).sum())
    assert float(frechet_distance(x, 1.5 * x)) == pytest.approx(want, rel=1e-12)


def test_frechet_distance_has_a_slope():
    rng = np.random.default_rng(2)
    a, b, direction = (jnp.asarray(rng.normal(size=(12, 3))) for _ in range(3))
    slope = jnp.vdot(jax.grad(frechet_distance)(a, b), direction)
    step = 1e-5
    ahead, back = (float(frechet_distance(a + s * direction, b)) for s in (step, -step))
    assert float(slope) == pytest.approx((ahead - back) / (2 * step), rel=1e-7)


def brute_coverage(points, by, k):
    """Fraction of points inside the balls of a set."""
    own = np.sqrt(((by[:, None] - by) ** 2).sum(-1))
    np.fill_diagonal(own, np.inf)
    reach = np.sort(own, 1)[:, k - 1]
    inside = np.sqrt(((points[:, None] - by) ** 2).sum(-1)) <= reach
    return inside.any(1).mean()


def test_precision_and_recall_against_brute_force():
    k = 2
    rng = np.random.default_rng(3)
    real, generated = rng.normal(size=(300, 4)), 0.6 * rng.normal(size=(200, 4)) + 0.3
    found = precision_recall(real, generated, neighbours=k, chunk=128)
    precision, recall = brute_coverage(generated, real, k), brute_coverage(real, generated, k)
    assert float(found.precision.mean) == pytest.approx(precision, rel=1e-12)
    assert float(found.recall.mean) == pytest.approx(recall, rel=1e-12)
    assert precision > recall + 0.1  # a narrow model is precise and misses the tails
    error = np.sqrt(precision * (1 - precision) / 199)
    assert float(found.precision.error) == pytest.approx(error, rel=1e-12)


def test_precision_and_recall_at_their_ends():
    x = np.random.default_rng(4).normal(size=(40, 3))
    same = precision_recall(x, x)
    assert (float(same.precision.mean), float(same.recall.mean)) == (1, 1)
    apart = precision_recall(x, x + 100)
    assert (float(apart.precision.mean), float(apart.recall.mean)) == (0, 0)
    # a collapsed model is precise and covers next to nothing
    one = precision_recall(x, x[:1] + 1e-9 * x)
    assert float(one.precision.mean) == 1
    assert float(one.recall.mean) <= 1 / 40


BAD = [
    (frechet_distance, (np.zeros((1, 2)), np.zeros((3, 2))), "a covariance needs two"),
    (frechet_distance, (np.zeros((4, 2)), np.zeros((3, 5))), "features_a has dimension 2"),
    (frechet_distance, (np.full((4, 2), np.nan), np.zeros((3, 2))), "features_a holds 8 NaN"),
    (frechet_distance, (np.zeros((4, 2, 2)), np.zeros((3, 2))), "features_a has shape"),
    (precision_recall, (np.zeros((3, 2)), np.zeros((9, 2))), "no neighbour 3"),
    (precision_recall, (np.zeros((9, 2)), np.zeros((0, 2))), "generated has shape"),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    function, arguments, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        function(*arguments)
