"""Observables against numpy and brute force; simulated reference values of sheets 01 and 02."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import Diffusion, backward, gaussian_mixture, ornstein_uhlenbeck, point_cloud
from diffjax.observables import crossing, mean_and_error
from diffjax.observables.collapse import collapse_curves, last_change_time, nearest_point
from diffjax.observables.speciation import (
    agreement_of_pairs,
    clone_agreement,
    normalised_agreement,
)
from diffjax.observables.spectrum import covariance_spectrum

KEY = jax.random.key(12)
OU = ornstein_uhlenbeck()

# Estimates ----------------------------------------------------------------------------------------


def test_mean_and_error():
    samples = np.random.default_rng(0).gamma(2.0, 1.5, (50, 3))
    mean, error = mean_and_error(jnp.asarray(samples))
    np.testing.assert_allclose(mean, samples.mean(0), rtol=1e-13)
    np.testing.assert_allclose(error, samples.std(0, ddof=1) / np.sqrt(50), rtol=1e-12)
    other = mean_and_error(jnp.asarray(samples.T), axis=1)
    np.testing.assert_allclose(other.error, error, rtol=1e-12)
    assert float(mean_and_error(jnp.ones(1)).error) == np.inf
    half = mean_and_error(jnp.full(4096, 0.1, jnp.float16))  # a float16 sum would stall
    assert half.mean.dtype == jnp.float32
    assert float(half.mean) == pytest.approx(0.09998, abs=1e-4)


def test_crossing_by_hand():
    t = np.array([1.0, 2.0, 4.0, 5.0])
    y = np.array([0.9, 0.8, 0.4, 0.1])
    e = np.array([0.01, 0.02, 0.03, 0.04])
    time, error = crossing(t, y, e, 0.5)
    # Three quarters of the way from 2 to 4, where the slope is -.2.
    assert time == pytest.approx(3.5, rel=1e-12)
    assert error == pytest.approx(np.hypot(0.25 * 0.02, 0.75 * 0.03) / 0.2, rel=1e-12)
    assert crossing(t, -y, e, -0.5) == pytest.approx((time, error))
    assert np.all(np.isnan(crossing(t, y, e, 0.95)))
    # The last crossing counts.
    assert crossing(t, np.array([0.9, 0.1, 0.9, 0.3]), e, 0.5)[0] == pytest.approx(4 + 0.4 / 0.6)


def test_error_of_a_crossing_is_its_spread():
    # 2000 noisy copies of one curve: the quoted error is the standard deviation of the times.
    rng, t = np.random.default_rng(1), np.array([0.0, 1.0])
    found = []
    for _ in range(2000):
        y = np.array([0.9, 0.3]) + 0.02 * rng.normal(size=2)
        found.append(crossing(t, y, np.full(2, 0.02), 0.5))
    times, errors = np.array(found).T
    assert times.std() == pytest.approx(errors.mean(), rel=0.07)  # 4 / sqrt(2 x 2000)


# Spectrum -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(30, 4), (4, 30)])
def test_covariance_spectrum_against_numpy(shape):
    points = np.random.default_rng(2).normal(size=shape) * np.linspace(0.2, 3, shape[1]) + 5
    found = covariance_spectrum(points)
    want = np.linalg.eigvalsh(np.cov(points.T))[::-1][: min(shape)]
    np.testing.assert_allclose(found.eigenvalues, want, rtol=1e-9, atol=1e-12)
    rank = want.sum() ** 2 / (want**2).sum()
    assert float(found.effective_rank) == pytest.approx(rank, rel=1e-9)


def test_spectrum_of_equal_points_is_zero():
    found = covariance_spectrum(np.full((5, 3), 7.25))
    np.testing.assert_allclose(found.eigenvalues, 0, atol=1e-25)
    assert float(found.effective_rank) == 0


# Speciation ---------------------------------------------------------------------------------------

# Sheet 01: (M^2, sigma^2, weight, T, t, phi). The projection on the axis of the means is exact.
PHI = [
    (256, 1, 0.5, 1, 2.0, 0.97701),
    (256, 1, 0.5, 1, 2.5, 0.86211),
    (256, 1, 0.5, 1, 3.0, 0.70685),
    (256, 1, 0.5, 1, 3.5, 0.59637),
    (256, 1, 0.5, 1, 4.0, 0.53969),
    (4096, 1, 0.5, 1, 3.5, 0.95992),
    (4096, 1, 0.5, 1, 4.0, 0.82614),
    (4096, 1, 0.5, 1, 4.5, 0.67644),
    (16, 2, 0.5, 1, 1.0, 0.8774331),
    (16, 2, 0.5, 1, 2.0, 0.6145004),
    (16, 2, 0.5, 0.5, 1.0, 0.9407794),
    (1024 * 0.09, 0.1, 0.5, 1, 1.5, 0.9784761),
    (256, 1, 0.3, 1, 2.0, 0.9792114),
]


def test_simulated_phi_at_the_listed_parameters():
    # 20,000 states each; 13 z-scores below 4.
    for squared, variance, weight, temperature, t, phi in PHI:
        means = np.sqrt(squared) * np.array([[1.0], [-1.0]])
        data = gaussian_mixture([weight, 1 - weight], means, variance)
        diffusion = Diffusion(data, ornstein_uhlenbeck(float(temperature)))
        found = clone_agreement(KEY, diffusion, [t], 20_000)
        assert abs(found.mean[0] - phi) < 4 * found.error[0], (squared, t)
        assert found.error[0] < 0.004


def test_simulated_phi_in_full_dimension():
    m = np.ones(64) * 0.5
    data = gaussian_mixture([0.5, 0.5], np.stack([m, -m]), 2.0)
    found = clone_agreement(KEY, Diffusion(data, OU), [1.0, 2.0], 5000)
    z = (np.asarray(found.mean) - [0.8774331, 0.6145004]) / np.asarray(found.error)
    assert np.abs(z).max() < 4
    # Classes that differ in variance only: t = (log 64) / 4 + {-.5, 0, .5}.
    data = gaussian_mixture([0.5, 0.5], np.zeros((2, 64)), [0.5, 1.5])
    times = np.log(64) / 4 + np.array([-0.5, 0.0, 0.5])
    found = clone_agreement(KEY, Diffusion(data, OU), times, 5000)
    z = (np.asarray(found.mean) - [0.7644497, 0.5558808, 0.5083156]) / np.asarray(found.error)
    assert np.abs(z).max() < 4


def test_simulated_phi_of_classes_with_different_covariances():
    # Sheet 01: .8177(11) at d = 2000, t = 1.6.
    d = 2000
    spread = 0.5 + (np.arange(d) + 0.5) / d
    means = np.float32(0.12 * np.array([1.0, -1.0])[:, None] * np.ones(d))
    data = gaussian_mixture([0.5, 0.5], means, np.stack([spread, spread[::-1]]))
    found = clone_agreement(KEY, Diffusion(data, OU), [1.6], 3000)
    assert abs(found.mean[0] - 0.8177) < 4 * np.hypot(found.error[0], 0.0011)


@pytest.mark.slow
def test_phi_of_a_cloud_has_its_limits():
    points = np.random.default_rng(3).normal(size=(20, 3))
    diffusion = Diffusion(point_cloud(points, [0] * 5 + [1] * 15), OU)
    found = clone_agreement(KEY, diffusion, [1e-3, 20.0], 400)
    np.testing.assert_allclose(found.mean, [1, 0.25**2 + 0.75**2], rtol=1e-6)
    weights = diffusion.data.class_weights
    np.testing.assert_allclose(normalised_agreement(found.mean, weights), [1, 0], atol=1e-6)
    assert float(normalised_agreement(jnp.asarray(0.775), jnp.full(2, 0.5))) == pytest.approx(0.55)
    assert np.isnan(float(normalised_agreement(jnp.asarray(1.0), jnp.ones(1))))


def test_agreement_of_pairs():
    first, second = jnp.array([0, 1, 2, 2, 0]), jnp.array([0, 1, 1, 2, 1])
    found = agreement_of_pairs(first, second)
    assert float(found.mean) == pytest.approx(0.6)
    assert float(found.error) == pytest.approx(np.sqrt(0.6 * 0.4 / 4))


# Collapse -----------------------------------------------------------------------------------------


def isotropic_time(d, n, variance):
    """The isotropic collapse time of sheet 02, to place the table's times."""
    return 0.5 * np.log1p(variance / (n ** (2 / d) - 1))


def brute_force(points, labels, own, x, t):
    """f^e, f_LOO, Y2, nearest-is-own and phi of given states, from all distances."""
    energy = ((x[:, None] - np.exp(-t) * points) ** 2).sum(-1) / (2 * -np.expm1(-2 * t))
    rows, d = np.arange(len(x)), points.shape[1]
    log_w = -energy - np.logaddexp.reduce(-energy, -1)[:, None]
    others = -energy.copy()
    others[rows, own] = -np.inf
    w = np.exp(log_w)
    return [
        -log_w[rows, own] / d,
        (np.logaddexp.reduce(others, -1) + energy[rows, own]) / d,
        (w**2).sum(1),
        energy.argmin(1) == own,
        sum(w[:, labels == c].sum(1) ** 2 for c in np.unique(labels)),
    ]


def test_collapse_curves_against_brute_force():
    # Independent draws of the same expectations on one small cloud, 5 curves at 3 times, z < 4;
    # then for one class alone, whose own points are drawn from that class.
    rng = np.random.default_rng(4)
    points, labels, n = rng.normal(size=(30, 5)) * 1.2, np.repeat([0, 1], [12, 18]), 4000
    times, seen = np.array([0.15, 0.5, 1.2]), []
    cloud = point_cloud(points, labels)
    for data, kept in ((cloud, np.arange(30)), (cloud.condition(1), np.arange(12, 30))):
        curves = collapse_curves(
            KEY, Diffusion(data, OU), times, n, progress=lambda *done: seen.append(done)
        )
        np.testing.assert_array_equal(curves.unresolved, 0)
        for i, t in enumerate(times):
            own = rng.integers(0, len(kept), n)
            x = np.exp(-t) * points[kept][own]
            x += np.sqrt(-np.expm1(-2 * t)) * rng.normal(size=(n, 5))
            values = brute_force(points[kept], labels[kept], own, x, t)
            for found, value in zip(curves[:5], values):
                error = np.hypot(found.error[i], value.std() / np.sqrt(n))
                assert abs(found.mean[i] - value.mean()) < 4 * error + 1e-9, (i, t)
    assert seen == [(1, 3), (2, 3), (3, 3)] * 2


def test_collapse_with_duplicates_is_finite():
    points = np.random.default_rng(6).normal(size=(15, 5))
    doubled = point_cloud(np.concatenate([points, points]), np.repeat([0, 1], 15))
    curves = collapse_curves(KEY, Diffusion(doubled, OU), [1e-3], 4000)
    # Every point shares its weight with its copy: w_own = 1/2 at small noise.
    assert curves.excess_entropy.mean[0] == pytest.approx(np.log(2) / 5, rel=1e-6)
    assert curves.participation.mean[0] == pytest.approx(0.5, rel=1e-6)
    assert curves.leave_one_out.mean[0] == pytest.approx(0, abs=1e-9)
    assert curves.own_nearest.mean[0] == 1
    assert curves.clone_agreement.mean[0] == pytest.approx(0.5, rel=1e-6)


def average_over_sets(draw, times, sets, samples, fields):
    """Mean and error over data sets of collapse curves, ``(fields, T)``."""
    rows = []
    for seed in range(sets):
        points = np.float32(draw(np.random.default_rng(100 + seed)))
        curves = collapse_curves(
            jax.random.fold_in(KEY, seed), Diffusion(point_cloud(points), OU), times, samples
        )
        rows.append([getattr(curves, field).mean for field in fields])
    rows = np.array(rows, dtype=float)
    return rows.mean(0), rows.std(0, ddof=1) / np.sqrt(sets)


def balanced(d, n, mean, variance):
    """Data sets of a balanced mixture of two Gaussians."""

    def draw(rng):
        sign = np.repeat([1, -1], n // 2)[:, None]
        return sign * mean + np.sqrt(variance) * rng.normal(size=(n, d))

    return draw


FIELDS = ("excess_entropy", "leave_one_out", "participation")
COLLAPSE = [
    # Sheet 02, t / t_C = .6, 1, 1.5: values, then errors of the last digits.
    (
        (32, 1000, 1.0, 1.0),
        [[0.0022, 0.0295, 0.0872], [-0.3255, -0.0522, 0.0736], [0.9675, 0.6528, 0.2280]],
        [[0.0001, 0.0003, 0.0005], [0.0012, 0.0008, 0.0006], [0.0008, 0.0020, 0.0016]],
    ),
    (
        (64, 1000, 0.5, 0.25),
        [[0.00148, 0.0154, 0.0410], [-0.1510, -0.0251, 0.0326], [0.9590, 0.650, 0.264]],
        [[0.00005, 0.0001, 0.0002], [0.0005, 0.0003, 0.0003], [0.0008, 0.001, 0.002]],
    ),
]


@pytest.mark.parametrize(
    ("setting", "values", "errors"),
    [pytest.param(*COLLAPSE[0], marks=pytest.mark.slow), COLLAPSE[1]],
    ids=["d=32", "d=64"],
)
def test_simulated_collapse_of_mixtures(setting, values, errors):
    # 12 data sets of 400 states at 3 times; both errors are known, 9 z-scores below 4.
    d, n, mean, variance = setting
    times = isotropic_time(d, n, variance) * np.array([0.6, 1.0, 1.5])
    found, error = average_over_sets(balanced(d, n, mean, variance), times, 12, 400, FIELDS)
    z = (found - values) / np.hypot(error, errors)
    assert np.abs(z).max() < 4, z


OWN = [
    ((16, 200, 1.0), (0.875, 0.691, 0.513), 0.002),
    ((64, 1000, 0.25), (0.9072, 0.6769, 0.4496), 0.0004),
]


@pytest.mark.parametrize(
    ("setting", "values", "error"),
    [pytest.param(*OWN[0], marks=pytest.mark.slow), OWN[1]],
    ids=["d=16", "d=64"],
)
def test_simulated_chance_that_the_own_point_is_nearest(setting, values, error):
    d, n, variance = setting
    times = isotropic_time(d, n, variance) * np.array([0.7, 1.0, 1.3])
    draw = balanced(d, n, 0.0, variance)
    found, spread = average_over_sets(draw, times, 12, 400, ("own_nearest",))
    z = (found[0] - values) / np.hypot(spread[0], error)
    assert np.abs(z).max() < 4, z


def test_simulated_participation_at_the_collapse_time():
    # phi_C = .671(2) at d = 32, n = 200; .026 between data sets.
    t = isotropic_time(32, 200, 1.0)
    assert t == pytest.approx(0.6331, abs=5e-5)
    draw = balanced(32, 200, 1.0, 1.0)
    found, spread = average_over_sets(draw, [t], 40, 400, ("participation",))
    assert abs(found[0, 0] - 0.671) < 4 * np.hypot(spread[0, 0], 0.002)
    assert spread[0, 0] * np.sqrt(40) < 0.06


def test_simulated_mmse_is_twice_the_slope_of_the_information():
    # Sheet 02: d = 16, mu = sigma = 1, snr .1: 18.902.
    rng, n = np.random.default_rng(7), 20_000
    m = np.ones(16)
    data = gaussian_mixture([0.5, 0.5], np.stack([m, -m]), 1.0)
    a = rng.choice([-1, 1], n)[:, None] * m + rng.normal(size=(n, 16))
    t = 0.5 * np.log1p(1 / 0.1)
    x = np.exp(-t) * a + np.sqrt(-np.expm1(-2 * t)) * rng.normal(size=(n, 16))
    squared = ((a - np.asarray(Diffusion(data, OU).denoise(x, t))) ** 2).sum(1)
    assert abs(squared.mean() - 18.902) < 4 * squared.std() / np.sqrt(n)


# Nearest points along trajectories ----------------------------------------------------------------


def test_last_change_time_by_hand():
    times = jnp.array([1.0, 0.8, 0.4, 0.1])
    indices = jnp.array([[2, 3, 5, 1], [2, 4, 5, 0], [2, 4, 6, 0], [2, 4, 5, 0]])
    found = last_change_time(indices, times)
    np.testing.assert_allclose(found, [1.0, 0.9, 0.25, 0.9], rtol=1e-12)


def test_nearest_point_hook():
    points = np.random.default_rng(8).normal(size=(7, 3))
    cloud = point_cloud(points)
    x, hook = jnp.asarray(np.random.default_rng(9).normal(size=(5, 3))), nearest_point(cloud, OU)
    for t in (0.8, 0.0):
        want = np.argmin(((x[:, None] - np.exp(-t) * points) ** 2).sum(-1), -1)
        np.testing.assert_array_equal(hook(x, jnp.asarray(t)), want)
    end, info = backward(KEY, Diffusion(cloud, OU), x, [0.8, 0.4, 0.0], observe=hook)
    assert info.observed.shape == (2, 5)
    np.testing.assert_array_equal(points[np.asarray(info.observed[-1])], end)


NEAREST = [((16, 500, 1.0), 0.429, 0.010, 0.377), ((64, 1000, 0.25), 0.457, 0.008, 0.427)]


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "mean", "error", "median"), NEAREST, ids=["d=16", "d=64"])
def test_nearest_neighbour_time_of_trajectories(setting, mean, error, median):
    # Sheet 02: balanced mixture, mu = sigma; 6 data sets of 100 exact trajectories, steps of .01.
    d, n, variance = setting
    found, times = [], np.arange(300, -1, -1) / 100
    for seed in range(6):
        draw = balanced(d, n, np.sqrt(variance), variance)
        cloud = point_cloud(np.float32(draw(np.random.default_rng(seed))))
        diffusion, key = Diffusion(cloud, OU), jax.random.fold_in(KEY, seed)
        x = diffusion.sample(jax.random.fold_in(key, 1), times[0], 100)
        hook = nearest_point(cloud, OU)
        _, info = backward(key, diffusion, x, times, observe=hook)
        found.append(np.asarray(last_change_time(info.observed, jnp.asarray(times[1:]))))
    found = np.concatenate(found)
    own = found.std() / np.sqrt(len(found))
    assert abs(found.mean() - mean) < 4 * np.hypot(own, error)
    # The median has 1.25 times the error of a mean of normal deviates; skewed here, so 2.
    assert abs(np.median(found) - median) < 4 * 2 * own
