"""Memorised, spurious, generalised: reference values, brute force, invariances, thresholds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax.observables import memorisation
from diffjax.observables.memorisation import (
    calibrate,
    classify,
    critical_sizes,
    fractions,
    gap_ratio,
    nearest_distances,
    null_curve,
)

KEY = jax.random.key(31)


def brute_force(samples, train, exclude_own=False):
    """All distances in float64 by differences, ``(M, n)``."""
    wide = np.asarray(samples, np.float64)[:, None] - np.asarray(train, np.float64)
    distances = np.sqrt((wide**2).sum(-1))
    if exclude_own:
        np.fill_diagonal(distances, np.inf)
    return distances


# Nearest neighbours -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_against_all_differences(dtype):
    # Far from the origin, with copies, near-copies and duplicates: what a matrix product loses.
    rng = np.random.default_rng(0)
    train = (rng.normal(size=(700, 20)) + 30).astype(dtype)
    train[100:130] = train[3]
    near = train[40:60] + (1e-5 * rng.normal(size=(20, 20))).astype(dtype)
    samples = np.concatenate([train[:40], near, (rng.normal(size=(90, 20)) + 30).astype(dtype)])
    found = nearest_distances(samples, train, count=3, chunk=128)
    want = np.sort(brute_force(samples, train), 1)[:, :3]
    # a rounded sum of squares of rounded differences, each exact to one unit in the last place
    np.testing.assert_allclose(found.distances, want, rtol=8 * np.finfo(dtype).eps, atol=0)
    np.testing.assert_array_equal(found.distances[:40, 0], 0)
    reached = np.take_along_axis(brute_force(samples, train), np.asarray(found.indices), 1)
    np.testing.assert_allclose(reached, want, rtol=8 * np.finfo(dtype).eps, atol=0)
    assert found.distances.dtype == dtype


def test_many_near_duplicates_are_told_apart():
    # 200 points within 1e-6 of each other at distance 1000: no matrix product ranks them.
    rng = np.random.default_rng(1)
    train = 1000 + 1e-4 * rng.normal(size=(200, 3))
    train = np.concatenate([train, rng.normal(size=(60, 3))]).astype(np.float32)
    samples = train[:8] + np.float32(1e-4)
    found = nearest_distances(samples, train)
    distances = brute_force(samples, train)
    np.testing.assert_allclose(found.distances, np.sort(distances, 1)[:, :2], rtol=1e-6)


def test_own_point_is_left_out_by_index():
    points = np.random.default_rng(2).normal(size=(50, 4))
    points[7] = points[30]  # a repeat of its own counts, itself does not
    found = nearest_distances(points, points, exclude_own=True)
    want = brute_force(points, points, exclude_own=True)
    np.testing.assert_allclose(found.distances, np.sort(want, 1)[:, :2], rtol=1e-14)
    assert found.distances[7, 0] == 0
    assert int(found.indices[7, 0]) == 30


def test_fewer_points_than_neighbours():
    found = nearest_distances([[0.0], [2.0]], [[0.5]])
    np.testing.assert_allclose(found.distances, [[0.5, np.inf], [1.5, np.inf]])
    np.testing.assert_array_equal(found.indices, [[0, -1], [0, -1]])
    alone = nearest_distances([[3.0]], [[3.0]], exclude_own=True)
    assert np.all(np.isinf(alone.distances))
    assert np.all(np.asarray(alone.indices) == -1)


def test_half_precision_is_computed_in_single():
    rng = np.random.default_rng(3)
    samples, train = rng.normal(size=(9, 5)).astype(np.float16), rng.normal(size=(12, 5))
    found = nearest_distances(jnp.asarray(samples), jnp.asarray(train, jnp.float16))
    want = np.sort(brute_force(samples, train.astype(np.float16)), 1)[:, :2]
    assert found.distances.dtype == jnp.float32
    np.testing.assert_allclose(found.distances, want, rtol=1e-6)


SAMPLES = np.random.default_rng(4).normal(size=(40, 3))
TRAIN = np.random.default_rng(5).normal(size=(300, 3))
TRAIN[10] = SAMPLES[5]
WHOLE = nearest_distances(SAMPLES, TRAIN)


@given(chunk=st.sampled_from([7, 150, 256]))
def test_chunks_do_not_change_distances(chunk):
    found = nearest_distances(SAMPLES, TRAIN, chunk=chunk)
    np.testing.assert_array_equal(found.distances, WHOLE.distances)
    np.testing.assert_array_equal(found.indices, WHOLE.indices)


@given(seed=st.integers(0, 2**31))
def test_order_does_not_change_fractions(seed):
    rng = np.random.default_rng(seed)
    rows, points = rng.permutation(40), rng.permutation(300)
    thresholds = {"memorised_below": 0.25, "spurious_below": 0.5}
    want = fractions(SAMPLES, TRAIN, **thresholds)
    found = fractions(SAMPLES[rows], TRAIN[points], **thresholds)
    np.testing.assert_array_equal(found.labels, np.asarray(want.labels)[rows])
    np.testing.assert_array_equal(found.train_distance, np.asarray(want.train_distance)[rows])
    np.testing.assert_array_equal(found[:3], want[:3])


# Fractions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_fractions_of_six_samples(dtype):
    train = np.array([[0.0], [1.0]], dtype)
    samples = np.array([[0.01], [0.02], [0.5], [0.505], [0.8], [1.3]], dtype)
    found = fractions(samples, train, memorised_below=0.05, spurious_below=0.05)
    np.testing.assert_allclose(found[:3], [1 / 3, 1 / 3, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(found.standard_error, np.sqrt(2 / 9 / 6), rtol=1e-6)
    # copies of a training point are memorised, not spurious, although they repeat
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(found.train_index, [0, 0, 0, 1, 1, 1])
    assert found.memorised.dtype == dtype


def test_repeats_are_found_in_another_set():
    samples, train = np.array([[0.5], [0.8]]), np.array([[0.0], [1.0]])
    thresholds = {"memorised_below": 0.05, "spurious_below": 0.05}
    none = fractions(samples, train, **thresholds)
    np.testing.assert_array_equal(none.labels, [2, 2])
    found = fractions(samples, train, np.array([[0.79], [3.0], [4.0]]), **thresholds)
    np.testing.assert_array_equal(found.labels, [2, 1])
    # the set itself means the set without the sample
    np.testing.assert_array_equal(fractions(samples, train, samples, **thresholds).labels, [2, 2])
    # an equal set elsewhere repeats every sample
    np.testing.assert_array_equal(
        fractions(samples, train, samples.copy(), **thresholds).labels, [1, 1]
    )


def clusters(seed, count):
    """Noisy copies of patterns and of midpoints of two of them, a fifth replaced by noise."""
    rng = np.random.default_rng(seed)
    patterns = rng.normal(size=(count, 2))
    pairs = rng.integers(0, count, (max(1, count // 2), 2))
    centres = np.concatenate([patterns, patterns[pairs].mean(1)])
    samples = centres[rng.integers(0, len(centres), 600)] + 0.01 * rng.normal(size=(600, 2))
    replaced = rng.random(600) < 0.2
    return patterns, np.where(replaced[:, None], rng.normal(size=(600, 2)), samples)


REFERENCE = {
    10: ([0.564, 0.255, 0.181], [0.044, 0.042, 0.016]),
    200: ([0.599, 0.219, 0.182], [0.021, 0.022, 0.019]),
}


@pytest.mark.parametrize("count", REFERENCE)
def test_fractions_of_clusters(count):
    # Means and spreads over 60 seeds; both sides have the error of 60 seeds. 6 z-scores.
    values = np.array([
        fractions(samples, train, memorised_below=0.05, spurious_below=0.05)[:3]
        for train, samples in (clusters(seed, count) for seed in range(60))
    ])  # fmt: skip
    mean, spread = (np.array(v) for v in REFERENCE[count])
    z = (values.mean(0) - mean) / (spread * np.sqrt(2 / 60))
    assert np.abs(z).max() < 4, z
    # the spread of 60 values is known to 9 per cent, on both sides
    np.testing.assert_allclose(values.std(0, ddof=1), spread, rtol=4 * np.sqrt(2 / 120))
    np.testing.assert_allclose(values.sum(1), 1, rtol=1e-12)


def test_distances_can_be_judged_again():
    found = fractions(SAMPLES, TRAIN, memorised_below=0.25, spurious_below=0.5)
    distances = found.train_distance, found.synthetic_distance
    again = classify(*distances, memorised_below=0.25, spurious_below=0.5)
    np.testing.assert_array_equal(again.labels, found.labels)
    for factor in (0.5, 2):
        swept = classify(*distances, memorised_below=0.25 * factor, spurious_below=0.5 * factor)
        whole = fractions(
            SAMPLES, TRAIN, memorised_below=0.25 * factor, spurious_below=0.5 * factor
        )
        np.testing.assert_array_equal(swept[:3], whole[:3])
        np.testing.assert_array_equal(swept.standard_error, whole.standard_error)


def test_standard_errors_are_the_spread():
    # Independent samples and a fixed other set: the quoted errors are those of repetitions.
    rng = np.random.default_rng(6)
    train, others = rng.normal(size=(30, 2)), rng.normal(size=(200, 2))
    rows = [
        fractions(rng.normal(size=(300, 2)), train, others, memorised_below=0.2, spurious_below=0.1)
        for _ in range(200)
    ]
    spread = np.array([row[:3] for row in rows]).std(0, ddof=1)
    quoted = np.mean([row.standard_error for row in rows], 0)
    np.testing.assert_allclose(spread, quoted, rtol=4 / np.sqrt(2 * 199))


# Calibration --------------------------------------------------------------------------------------


def test_calibrated_thresholds_and_null_curve():
    rng = np.random.default_rng(7)
    held_out, train = rng.normal(size=(400, 3)), rng.normal(size=(250, 3))
    found = calibrate(held_out, train, size=150, quantile=0.1)
    near = brute_force(held_out, train)
    own = brute_force(held_out[:150], held_out[:150], exclude_own=True).min(1)
    assert found.memorised_below == pytest.approx(np.quantile(near.min(1), 0.1), rel=1e-12)
    assert found.spurious_below == pytest.approx(np.quantile(own, 0.1), rel=1e-12)

    sizes = [250, 125]  # in any order
    curve = null_curve(held_out, train, sizes, found.memorised_below)
    want = [(near[:, :n].min(1) <= found.memorised_below).mean() for n in sizes]
    np.testing.assert_allclose(curve.mean, want, rtol=1e-12)
    assert float(curve.mean[0]) == pytest.approx(0.1)
    np.testing.assert_allclose(curve.error, np.sqrt(curve.mean * (1 - curve.mean) / 400))


def test_gap_ratio():
    train = np.array([[0.0], [1.0], [1.0], [5.0]])
    samples = np.array([[0.25], [0.2], [0.5], [1.0], [1.1], [2.9]])
    found = gap_ratio(samples, train)
    # between duplicates the ratio is blind, except on them
    np.testing.assert_allclose(found.ratio, [1 / 3, 0.25, 1, 0, 1, 1], rtol=1e-12)
    assert float(found.memorised.mean) == pytest.approx(2 / 6)
    assert float(gap_ratio(samples, train, below=0.34).memorised.mean) == pytest.approx(3 / 6)
    # Gaussian data in high dimension are no copies, noised training points are
    rng = np.random.default_rng(8)
    train = rng.normal(size=(300, 40))
    copies = gap_ratio(train[:100] + 0.1 * rng.normal(size=(100, 40)), train).memorised
    fresh = gap_ratio(rng.normal(size=(100, 40)), train).memorised
    assert (float(copies.mean), float(fresh.mean)) == (1, 0)


# Critical sizes -----------------------------------------------------------------------------------


def draw_labels(rng, sizes, seeds, count, memorised, generalised):
    """Labels whose fractions are logistic in log n around two sizes."""
    log_n = np.log(sizes)[:, None, None]
    f_m = 1 / (1 + (np.exp(log_n) / memorised) ** 2)
    f_g = 1 / (1 + (generalised / np.exp(log_n)) ** 2)
    u = rng.random((1, seeds, count))
    return np.where(u < f_m, 0, np.where(u > 1 - f_g, 2, 1))


def test_critical_sizes_by_hand():
    # Fractions 1, .75, .25, 0 memorised; 0, .25, .5, 0 spurious; 0, 0, .25, 1 generalised.
    labels = np.array([[0, 0, 0, 0], [0, 0, 0, 1], [0, 1, 1, 2], [2, 2, 2, 2]])
    sizes = np.array([2, 8, 32, 128])
    found = critical_sizes(KEY, sizes, labels, resamples=50)
    assert float(found.value[0]) == pytest.approx(16, rel=1e-12)  # halfway in log n
    # parabola through (-1, .25), (0, .5), (1, 0): vertex at -1/6 steps of log 4
    assert float(found.value[1]) == pytest.approx(32 * 4 ** (-1 / 6), rel=1e-12)
    assert float(found.value[2]) == pytest.approx(32 * 4 ** (1 / 3), rel=1e-12)
    # sizes that are not reached do not exist
    never = critical_sizes(KEY, sizes, np.zeros((4, 4), int), resamples=50)
    assert np.all(np.isnan(never.value))
    np.testing.assert_array_equal(never.found, 0)
    falling_back = critical_sizes(KEY, sizes, labels[[0, 3, 3, 0]], resamples=50)
    assert np.all(np.isnan(falling_back.value))


def test_critical_sizes_of_logistic_curves():
    # The bootstrap's error is the spread of repetitions, and the sizes are those put in.
    rng, sizes = np.random.default_rng(9), 2.0 ** np.arange(2, 13)
    rows = [
        critical_sizes(KEY, sizes, draw_labels(rng, sizes, 3, 100, 60.0, 400.0), resamples=100)
        for _ in range(60)
    ]
    value = np.log([row.value for row in rows])
    quoted = np.mean([row.log_error for row in rows], 0)
    spread = value.std(0, ddof=1)
    z = (value.mean(0) - np.log([60, np.sqrt(60 * 400), 400])) / (spread / np.sqrt(60))
    # linear interpolation of a logistic curve through its middle and the parabola are symmetric
    assert np.abs(z[[0, 2]]).max() < 4, z
    assert abs(value.mean(0)[1] - np.log(np.sqrt(60 * 400))) < 0.2
    # 60 repetitions know the spread to 9 per cent, and resampling three seeds loses some of it
    np.testing.assert_allclose(quoted[[0, 2]], spread[[0, 2]], rtol=0.5)
    np.testing.assert_array_equal(rows[0].found, 1)


# Bad input ----------------------------------------------------------------------------------------

GOOD = np.zeros((4, 2)) + np.arange(4)[:, None]
NAN = np.where(np.arange(8).reshape(4, 2) == 3, np.nan, GOOD)


def judge(samples=GOOD, train=GOOD, synthetic=None, memorised_below=0.1, spurious_below=0.1):
    return fractions(
        samples,
        train,
        synthetic,
        memorised_below=memorised_below,
        spurious_below=spurious_below,
    )


BAD = [
    (lambda: judge(np.zeros((0, 2))), r"samples has shape \(0, 2\): the set is empty"),
    (lambda: judge(train=np.zeros((0, 2))), r"train has shape \(0, 2\): the set is empty"),
    (lambda: judge(np.zeros((3, 8, 8))), r"samples has shape \(3, 8, 8\), .*flatten images"),
    (lambda: judge(np.zeros(3)), r"samples has shape \(3,\), expected \(n, d\)$"),
    (lambda: judge(np.zeros((3, 5))), r"samples has dimension 5 and train 2"),
    (lambda: judge(synthetic=np.zeros((3, 5))), r"samples has dimension 2 and synthetic 5"),
    (lambda: judge(NAN), r"samples holds 1 NaN"),
    (lambda: judge(train=NAN), r"train holds 1 NaN"),
    (lambda: judge(synthetic=NAN), r"synthetic holds 1 NaN"),
    (lambda: judge(memorised_below=0.0), r"memorised_below must be positive, but is 0.0"),
    (lambda: judge(spurious_below=-1.0), r"spurious_below must be positive, but is -1.0"),
    (lambda: judge(memorised_below=np.nan), r"memorised_below must be positive, but is nan"),
    (lambda: classify([1.0], [1.0, 2.0], memorised_below=1, spurious_below=1), "expected one"),
    (lambda: classify([np.nan], [1.0], memorised_below=1, spurious_below=1), "distances hold NaN"),
    (lambda: nearest_distances(GOOD, GOOD[:3], exclude_own=True), "4 samples and 3 points"),
    (lambda: nearest_distances(GOOD, GOOD, count=0), "count must be an integer >= 1"),
    (lambda: gap_ratio(GOOD, GOOD[:1]), "n >= 2 training points"),
    (lambda: gap_ratio(GOOD, GOOD, below=0.0), "below must be positive"),
    (lambda: calibrate(GOOD, GOOD + 0.5, size=5), "size is 5, expected 2 to 4"),
    (lambda: calibrate(GOOD, GOOD + 0.5, quantile=0.0), "quantile must be between 0 and 1"),
    (lambda: calibrate(GOOD, GOOD), "the data hold duplicates"),
    (lambda: null_curve(GOOD, GOOD, [0, 2], 0.1), "sizes must be integers >= 1"),
    (lambda: null_curve(GOOD, GOOD, [2, 5], 0.1), "go up to 5, but there are 4 points"),
    (lambda: critical_sizes(KEY, [2, 1, 3], np.zeros((3, 2), int)), "must be positive and incr"),
    (lambda: critical_sizes(KEY, [1, 2], np.zeros((2, 2), int)), "with N >= 3"),
    (lambda: critical_sizes(KEY, [1, 2, 3], np.full((3, 2), 5)), "labels must be 0"),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        call()


def test_public_names():
    for name in memorisation.__all__:
        assert hasattr(memorisation, name)
