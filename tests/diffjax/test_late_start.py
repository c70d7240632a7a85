"""Late start: moments of every start, marginals of the samplers behind it, published fractions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import (
    Diffusion,
    backward,
    gaussian_mixture,
    late_start,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    schedules,
    variance_exploding,
)
from diffjax.diffusion import score_model
from diffjax.dynamics import methods
from diffjax.dynamics.late_start import (
    gaussian_start,
    gaussian_start_of_moments,
    isotropic_start,
    streamed_start,
)
from diffjax.observables.sample_quality import frechet_distance

KEY = jax.random.key(11)
OU = ornstein_uhlenbeck(0.7)
N = 20_000
RNG = np.random.default_rng(5)
# more points than dimensions, and fewer; neither centred nor isotropic
MANY = RNG.normal(size=(1500, 4)) @ np.diag([2.0, 1.0, 0.6, 0.1]) @ RNG.normal(size=(4, 4)) + 1.3
FEW = RNG.normal(size=(5, 9)) * np.linspace(0.5, 2, 9) - 0.4
T0 = 0.45


def batches(points):
    """Unequal batches, sorted, so that their means differ from that of all."""
    ordered = points[np.argsort(points[:, 0])]
    cuts = np.cumsum([len(points) // 5, 1, len(points) // 3])
    return lambda: iter(np.split(ordered, cuts))


def starts(points):
    """All starts with exactly the sample covariance."""
    return {
        "dense": gaussian_start(points),
        "weighted": gaussian_start(points, method="weighted"),
        "streamed": streamed_start(jax.random.key(2), batches(points), N),
        "rank": gaussian_start(
            points, method="low_rank", rank=min(len(points) - 1, points.shape[1])
        ),
    }


def z_scores(x, mean, covariance):
    """Deviations of sample mean and covariance of normal states in standard errors."""
    x, size = np.asarray(x), len(x)
    variance = np.diag(covariance)
    first = (x.mean(0) - mean) / np.sqrt(variance / size)
    spread = np.sqrt((np.outer(variance, variance) + covariance**2) / size)
    return np.abs(first).max(), np.abs((np.cov(x.T) - covariance) / spread).max()


@pytest.mark.parametrize(
    ("points", "process"),
    [
        pytest.param(MANY, OU, id="many-ou", marks=pytest.mark.slow),
        pytest.param(FEW, rectified_flow(0.7), id="few-flow"),
        pytest.param(MANY, variance_exploding(0.7), id="many-ve", marks=pytest.mark.slow),
        pytest.param(FEW, OU, id="few-ou", marks=pytest.mark.slow),
    ],
)
def test_moments_are_those_of_the_noised_data(points, process):
    scale, std = float(process.scale(T0)), float(process.std(T0))
    covariance = scale**2 * np.cov(points.T) + std**2 * np.eye(points.shape[1])
    for name, start in starts(points).items():
        x = late_start(KEY, start, T0, N, process=process)
        # Bonferroni over 3 * 2 * 4 * 100 numbers: exceeds 5 with probability 1e-3
        assert max(z_scores(x, scale * points.mean(0), covariance)) < 5, name
    # normal, not only the right moments: fourth moment of one direction
    y = (np.asarray(x) - scale * points.mean(0)) @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    assert np.abs((y**4).mean(0) - 3).max() < 5 * np.sqrt(96 / N)


def test_low_rank_keeps_leading_directions_and_the_trace():
    start = gaussian_start(MANY, method="low_rank", rank=2)
    values, vectors = np.linalg.eigh(np.cov(MANY.T))
    np.testing.assert_allclose(start.eigenvalues, values[::-1][:2], rtol=1e-12)
    np.testing.assert_allclose(start.rest, values[:2].mean(), rtol=1e-12)
    x = late_start(KEY, start, T0, N, process=OU)
    kept = (vectors[:, 2:] * (values[2:] - start.rest)) @ vectors[:, 2:].T + start.rest * np.eye(4)
    covariance = float(OU.scale(T0)) ** 2 * kept + float(OU.std(T0)) ** 2 * np.eye(4)
    assert max(z_scores(x, float(OU.scale(T0)) * MANY.mean(0), covariance)) < 5


def test_weights_do_not_depend_on_batch_or_number_of_states():
    for start in (gaussian_start(MANY, method="weighted"), gaussian_start(FEW)):
        five, ten = (late_start(KEY, start, T0, n) for n in (5, 10))
        np.testing.assert_allclose(five, ten[:5], rtol=1e-12)
    # the second block of 1024 points counts: with it switched off the variance is too small
    start = gaussian_start(MANY, method="weighted")
    assert start.blocks.shape == (2, 1024, 4)
    total = np.einsum("bni,bnj->ij", *[np.asarray(start.blocks)] * 2)
    np.testing.assert_allclose(total, np.cov(MANY.T), rtol=1e-12)
    assert not np.any(np.asarray(start.blocks)[1, len(MANY) - 1024 :])


def test_streamed_batches_are_not_centred_by_their_own_mean():
    start = streamed_start(KEY, batches(MANY), 4000)
    np.testing.assert_allclose(start.mean, MANY.mean(0), rtol=1e-12)
    within = sum(len(b) / len(MANY) * np.cov(b.T) for b in batches(MANY)() if len(b) > 1)
    found = np.cov(np.asarray(start.signal).T)[0, 0]
    error = np.sqrt(2 / 4000) * np.cov(MANY.T)[0, 0]
    assert abs(found - np.cov(MANY.T)[0, 0]) < 4 * error
    assert abs(found - within[0, 0]) > 10 * error
    # images are flattened; one pass more gives other weights under another key
    images = streamed_start(KEY, lambda: [MANY.reshape(-1, 2, 2)], 3)
    assert images.signal.shape == (3, 4)


@pytest.mark.parametrize(
    "process", [OU, pytest.param(variance_exploding(0.7), marks=pytest.mark.slow)]
)
def test_exact_moments_of_a_distribution(process):
    means = np.array([[1.2, 0.1, -0.5], [-0.8, 0.9, 0.1]])
    weights, variances = np.array([0.3, 0.7]), np.array([0.2, 0.5])
    factors = RNG.normal(size=(2, 3, 1)) * 0.7
    data = gaussian_mixture(weights, means, variances, factors)
    mean = weights @ means
    covariance = sum(
        w * (v * np.eye(3) + f @ f.T + np.outer(m - mean, m - mean))
        for w, v, f, m in zip(weights, variances, factors, means)
    )
    scale, std = float(process.scale(T0)), float(process.std(T0))
    x = late_start(KEY, Diffusion(data, process), T0, N)
    expected = scale**2 * covariance + std**2 * np.eye(3)
    assert max(z_scores(x, scale * mean, expected)) < 5
    again = late_start(KEY, gaussian_start_of_moments(mean, covariance), T0, N, process=process)
    assert max(z_scores(again, scale * mean, expected)) < 5
    np.testing.assert_array_equal(x, late_start(KEY, data, T0, N, process=process))


def test_points_of_a_diffusion_have_their_sample_covariance():
    cloud = point_cloud(FEW, [0, 1, 0, 1, 1])
    x = late_start(KEY, Diffusion(cloud, OU), T0, 3)
    np.testing.assert_array_equal(x, late_start(KEY, FEW, T0, 3, process=OU))
    np.testing.assert_array_equal(x, late_start(KEY, gaussian_start(FEW), T0, 3, process=OU))
    one = late_start(KEY, Diffusion(cloud.condition(1), OU), T0, 3)
    np.testing.assert_array_equal(one, late_start(KEY, FEW[[1, 3, 4]], T0, 3, process=OU))


def test_vanilla_start_is_pure_noise():
    for process in (OU, variance_exploding(0.7)):
        x = np.asarray(late_start(KEY, isotropic_start(3, 0.7), T0, N, process=process))
        variance = 0.7 * (float(process.scale(T0)) * np.exp(T0)) ** 2
        assert max(z_scores(x, 0, variance * np.eye(3))) < 5


def test_single_precision_stays_single():
    points = jnp.asarray(MANY, jnp.float32)
    for method in ("dense", "weighted"):
        assert late_start(KEY, gaussian_start(points, method=method), T0, 3).dtype == jnp.float32
    assert streamed_start(KEY, lambda: [points], 2).signal.dtype == jnp.float32
    half = gaussian_start(points.astype(jnp.bfloat16))
    assert half.mean.dtype == jnp.float32


def test_derivative_with_respect_to_the_start_time():
    start = gaussian_start(FEW)
    call = jax.jit(lambda t: jnp.sum(jnp.sin(late_start(KEY, start, t, 4, process=OU))))
    slope = jax.jit(jax.grad(call))(0.3)
    np.testing.assert_allclose(slope, (call(0.3 + 1e-6) - call(0.3 - 1e-6)) / 2e-6, rtol=1e-7)


# The dynamics behind the start --------------------------------------------------------------------


PAIR = Diffusion(point_cloud(np.array([[1.0], [-1.0]])), ornstein_uhlenbeck())


def weighted_score(field, x, t):
    """Score of +-1 with log-odds ``2 field``; compiles much faster than a distribution."""
    scale, variance = jnp.exp(-t), -jnp.expm1(-2 * t)
    return (scale * jnp.tanh(scale * x / variance + field) - x) / variance


def deltas(field=0.0):
    score = jax.tree_util.Partial(weighted_score, jnp.asarray(field))
    return score_model(score, ornstein_uhlenbeck())


def index_time(s):
    return 4.975 * s**2 + 0.05 * s


def test_marginals_on_the_way_from_noise():
    # E x^4 = q^2 + 6 q D + 3 D^2 of two deltas; the drift -x/2 instead of +x/2 has variance .335
    t = np.array([index_time(0.5), index_time(0.2)])
    q = np.exp(-2 * t)
    fourth = q**2 + 6 * q * (1 - q) + 3 * (1 - q) ** 2
    np.testing.assert_allclose(fourth, [2.987498, 2.133118], atol=5.1e-7)
    x = late_start(KEY, isotropic_start(1), index_time(1.0), N)
    for k, (high, low) in enumerate(((1.0, 0.5), (0.5, 0.2))):
        grid = index_time(np.linspace(high, low, 401))
        x, _ = backward(jax.random.fold_in(KEY, k), deltas(), x, grid, method="euler_maruyama")
        for power, expected in ((2, 1.0), (4, fourth[k])):
            sample = np.asarray(x)[:, 0] ** power
            gap = abs(sample.mean() - expected)
            # bias of Euler steps of at most .01 in t: of that order in relative variance
            assert gap < 4 * sample.std() / np.sqrt(N) + 0.01 * expected


def test_published_fractions_of_asymmetric_data():
    # +1 with probability .7, Euler with 1000 steps per unit of the index
    model, size = deltas(0.5 * np.log(0.7 / 0.3)), 40_000
    matched = gaussian_start_of_moments([0.4], [[0.84]])
    published = {0.5: (0.689, 0.702), 0.2: (0.566, 0.692)}
    for s0, values in published.items():
        grid = index_time(np.linspace(s0, 0.0, round(1000 * s0) + 1)[:-1])
        for start, value in zip((isotropic_start(1), matched), values):
            x = late_start(KEY, start, index_time(s0), size)
            y, _ = backward(KEY, model, x, grid, method="euler_maruyama")
            fraction = float(np.mean(np.asarray(y) > 0))
            # the sheet's standard error is .0023, ours too
            assert abs(fraction - value) < 4 * np.hypot(0.0023, np.sqrt(0.21 / size))


def test_noise_of_ddim_interpolates_between_flow_and_ancestral():
    process = rectified_flow(0.7)

    def score(x, t):  # of N(m, diag(.2, .5)), cheap to compile
        scale, variance = process.scale(t), jnp.array([0.2, 0.5])
        return -(x - scale * jnp.array([1.2, -0.4])) / (process.variance(t) + scale**2 * variance)

    model = score_model(score, process)
    s, t, eta = 0.4, 1.1, 0.6
    x = jnp.asarray(RNG.normal(size=(50, 2)))
    found, _ = backward(KEY, model, x, [t, s], method=methods.ddim(eta))
    # x_s = scale D + sqrt(std^2 - k^2) eps + k z with the noise of the first step's key
    eps = -process.std(t) * score(x, t)
    a = (x - process.std(t) * eps) / process.scale(t)
    lost = 1 - np.expm1(2 * s) / np.expm1(2 * t)  # 1 - snr(t) / snr(s)
    k = eta * float(process.std(s)) * np.sqrt(lost)
    z = jax.random.normal(jax.random.fold_in(KEY, 0), x.shape, x.dtype)
    kept = np.sqrt(float(process.variance(s)) - k**2)
    np.testing.assert_allclose(found, process.scale(s) * a + kept * eps + k * z, rtol=1e-10)
    ends = [
        backward(KEY, model, x, [t, s, 0.0], method=m)[0]
        for m in (methods.ddim(1.0), "ancestral", methods.ddim(0.0), "ddim")
    ]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9, atol=1e-10)
    np.testing.assert_array_equal(ends[2], ends[3])


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_marginals_of_ddim_with_noise(eta):
    # small steps: every eta has the same marginals; E x^2 and E x^4 on the way
    t = index_time(0.25)
    q = np.exp(-2 * t)
    fourth = q**2 + 6 * q * (1 - q) + 3 * (1 - q) ** 2
    x = late_start(KEY, isotropic_start(1), index_time(1.0), N)
    grid = index_time(np.linspace(1.0, 0.25, 301))
    y, _ = backward(KEY, deltas(), x, grid, method=methods.ddim(eta))
    for power, expected in ((2, 1.0), (4, fourth)):
        sample = np.asarray(y)[:, 0] ** power
        assert abs(sample.mean() - expected) < 4 * sample.std() / np.sqrt(N) + 0.01 * expected


# Benchmark ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_matched_start_is_closer_than_the_vanilla_one():
    # one cell of the published table: DDIM, 3 steps from 500 and 300; .860(34) and .185(8)
    centres = np.random.default_rng(0).standard_normal((10, 16))
    centres -= centres.mean(0)
    size = np.sqrt(np.trace(centres.T @ centres / 10 + 0.15**2 * np.eye(16)) / 16)
    data = gaussian_mixture(np.ones(10), centres / size + 0.3, (0.15 / size) ** 2)
    model, clock = Diffusion(data, ornstein_uhlenbeck()), schedules.ddpm_linear()
    clean = model.sample(jax.random.key(99), 0.0, 8000)
    published = ((isotropic_start(16), 500, 0.860, 0.034), (data, 300, 0.185, 0.008))
    for start, index, value, spread in published:
        grid = clock[np.linspace(0, index, 3).astype(int)[::-1]]
        times = jnp.concatenate([grid, jnp.zeros(1)])
        x = late_start(KEY, start, times[0], 8000)
        y, _ = backward(KEY, model, x, times, method="ddim")
        distance = float(frechet_distance(y, clean))
        # one seed against a mean over five: sd of the difference is spread sqrt(6/5)
        assert abs(distance - value) < 4 * spread * np.sqrt(1.2)


# Input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gaussian_start(MANY[:1]), r"shape \(1, 4\), expected \(n, d\) with n >= 2"),
        (lambda: gaussian_start(MANY, method="svd"), "unknown method 'svd'"),
        (lambda: gaussian_start(MANY, method="low_rank"), "rank belongs to low_rank"),
        (lambda: gaussian_start(MANY, rank=2), "rank belongs to low_rank"),
        (lambda: gaussian_start(FEW, method="low_rank", rank=5), "have rank 4 at most"),
        (lambda: gaussian_start_of_moments([0.0, 1.0], [[1.0]]), r"expected \(d,\), \(d, d\)"),
        (lambda: gaussian_start_of_moments([0.0], [[-1.0]]), "negative eigenvalue -1"),
        (lambda: late_start(KEY, MANY, -0.1, 3), "times must be >= 0"),
        (lambda: late_start(KEY, PAIR, 0.1, 3, process=OU), "has its own"),
        (lambda: late_start(KEY, streamed_start(KEY, lambda: [FEW], 2), 0.1, 3), "draws"),
        (lambda: streamed_start(KEY, lambda: [FEW[:1]], 2), "two at least"),
        (lambda: streamed_start(KEY, lambda: [FEW, FEW[:, :2]], 2), "events of size 9 and 2"),
        (lambda: streamed_start(KEY, iter([iter([FEW]), iter([])]).__next__, 2), "5 points in the"),
        (lambda: methods.ddim(1.5), r"eta must lie in \[0, 1\]"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_needs_a_start_of_its_own():
    class Network:
        dim = 3

        def denoise(self, x, scale, std):
            return x

    with pytest.raises(TypeError, match="late_start needs an exact posterior"):
        late_start(KEY, Network(), 0.1, 3)
