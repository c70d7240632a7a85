"""Backward samplers: exact laws, orders of convergence, gradients, memory, and one interface."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy.stats import kstest, norm

from diffjax import (
    Diffusion,
    backward,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    variance_exploding,
)
from diffjax.diffusion import score_model
from diffjax.dynamics import methods

T = 0.7
OU = ornstein_uhlenbeck(T)
# Nothing symmetric, no variance 1.
WEIGHTS, CENTRES, VARIANCES = np.array([0.3, 0.7]), np.array([-1.6, 1.1]), np.array([0.3, 0.55])
MIXTURE = gaussian_mixture(WEIGHTS, CENTRES[:, None], VARIANCES)
CLOUD = point_cloud(np.array([[-1.3], [0.2], [0.9], [0.9]]), [0, 1, 1, 1])  # one duplicate
GAUSSIAN = gaussian_mixture([1.0], [[1.4]], 0.35)
KEY = jax.random.key(17)


def single(tree):
    """The same record in float32."""
    return jax.tree.map(
        lambda v: jnp.asarray(v, jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, tree
    )


def marginal_cdf(centres, variances, weights, scale, std):
    """Distribution function of x_t of a 1-D mixture (variance 0: a point)."""
    width = np.sqrt(std**2 + scale**2 * np.asarray(variances))

    def cdf(x):
        return norm.cdf((np.asarray(x)[..., None] - scale * centres) / width) @ weights

    return cdf


# The law of the exact chain -----------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(1.4, 0.15), (1.4, 1.1, 0.3, 0.15)], ids=["one", "three"])
@pytest.mark.parametrize(
    "process", [OU, variance_exploding(T), rectified_flow(T)], ids=["ou", "ve", "flow"]
)
def test_exact_chain_of_a_mixture_has_the_exact_law(process, grid):
    # Kolmogorov-Smirnov at level 1e-4 on any grid; an Euler step of this size fails by far.
    diffusion, n = Diffusion(MIXTURE, process), 20_000
    x = diffusion.sample(jax.random.key(1), grid[0], n)
    y, info = backward(KEY, diffusion, x, grid)
    assert info.method == "exact"
    assert bool(info.finite.all())
    scale, std = float(process.scale(grid[-1])), float(process.std(grid[-1]))
    cdf = marginal_cdf(CENTRES, VARIANCES, WEIGHTS, scale, std)
    assert kstest(np.asarray(y)[:, 0], cdf).pvalue > 1e-4
    # Not only the marginal: E[x_s x_t] = scale_t / scale_s E[x_s^2], as for the forward chain.
    ratio = float(process.scale(grid[0])) / scale
    gap = np.asarray(y * x - ratio * y * y)[:, 0]
    assert abs(gap.mean() / (gap.std() / np.sqrt(n))) < 4
    # Class fractions: the posterior is a martingale.
    p = np.exp(diffusion.class_log_posterior(y, grid[-1]))[:, 0]
    assert abs((p.mean() - 0.3) / (p.std() / np.sqrt(n))) < 4


@pytest.mark.parametrize("grid", [(0.9, 0.05), (0.9, 0.5, 0.2, 0.05)], ids=["one", "three"])
def test_exact_chain_of_a_cloud_has_the_exact_law(grid):
    diffusion, n = Diffusion(CLOUD, OU), 20_000
    x = diffusion.sample(jax.random.key(2), grid[0], n)
    y, _ = backward(KEY, diffusion, x, grid)
    scale, std = float(OU.scale(grid[-1])), float(OU.std(grid[-1]))
    cdf = marginal_cdf(np.array([-1.3, 0.2, 0.9]), np.zeros(3), np.array([1, 1, 2]) / 4, scale, std)
    assert kstest(np.asarray(y)[:, 0], cdf).pvalue > 1e-4
    gap = np.asarray(y * x - np.exp(grid[-1] - grid[0]) * y * y)[:, 0]
    assert abs(gap.mean() / (gap.std() / np.sqrt(n))) < 4


def test_the_law_test_can_fail():
    # The same test on Euler-Maruyama with three steps.
    grid, n = (1.4, 1.1, 0.3, 0.15), 20_000
    x = Diffusion(MIXTURE, OU).sample(jax.random.key(1), grid[0], n)
    y, _ = backward(KEY, Diffusion(MIXTURE, OU), x, grid, method="euler_maruyama")
    cdf = marginal_cdf(CENTRES, VARIANCES, WEIGHTS, np.exp(-0.15), float(OU.std(0.15)))
    assert kstest(np.asarray(y)[:, 0], cdf).pvalue < 1e-12


def test_exact_chain_in_more_dimensions():
    # Low-rank, diagonal and unequal: mean and second moments of x_s, z < 4 (each fails at 6e-5).
    rng = np.random.default_rng(5)
    means, factors = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 1))
    variances = rng.uniform(0.1, 1, (2, 3))
    data = gaussian_mixture([0.2, 0.8], means, variances, factors)
    diffusion, n, end = Diffusion(data, OU), 20_000, 0.2
    x = diffusion.sample(jax.random.key(3), 1.6, n)
    y = np.asarray(backward(KEY, diffusion, x, [1.6, 0.7, end])[0])
    scale, std = np.exp(-end), float(OU.std(end))
    mean = scale * np.array([0.2, 0.8]) @ means
    second = std**2 * np.eye(3)
    for w, m, v, f in zip((0.2, 0.8), means, variances, factors):
        second += w * scale**2 * (np.diag(v) + f @ f.T + np.outer(m, m))
    products = np.einsum("bi,bj->bij", y, y)
    z = [(y.mean(0) - mean) / y.std(0), ((products.mean(0) - second) / products.std(0)).ravel()]
    assert np.abs(np.concatenate(z)).max() * np.sqrt(n) < 4


def test_one_jump_to_zero_returns_training_points():
    cloud = point_cloud(np.random.default_rng(0).normal(size=(6, 2)))
    x = Diffusion(cloud, OU).sample(jax.random.key(0), 1.2, 50)
    for grid in ([1.2, 0.0], [1.2, 0.3, 0.0]):
        a, _ = backward(KEY, Diffusion(cloud, OU), x, grid)
        assert {tuple(row) for row in np.asarray(a)} <= {
            tuple(row) for row in cloud.points.tolist()
        }
    wide = point_cloud(np.random.default_rng(0).normal(size=(3, 7)))
    x = Diffusion(wide, OU).sample(jax.random.key(0), 1.2, 20)
    a, _ = backward(KEY, Diffusion(wide, OU), x, [1.2, 0.0])  # in the span: to rounding
    gap = np.abs(np.asarray(a)[:, None] - np.asarray(wide.points)).max(-1)
    assert gap.min(1).max() < 1e-12
    assert len(set(gap.argmin(1))) == 3


@pytest.mark.parametrize("start", [np.inf, 5000.0, 60.0])
def test_start_at_infinite_time(start):
    # Pure noise, no start error: class fractions of the jump to 0 are the weights.
    n = 10_000
    x = np.sqrt(T) * np.random.default_rng(1).normal(size=(n, 1))
    for data, weight in ((MIXTURE, 0.3), (CLOUD, 0.25)):
        a = np.asarray(backward(KEY, Diffusion(data, OU), x, [start, 0.8, 0.0])[0])
        if data is CLOUD:
            assert abs((a < 0).mean() - weight) < 4 * np.sqrt(weight * (1 - weight) / n)
        else:
            cdf = marginal_cdf(CENTRES, VARIANCES, WEIGHTS, 1.0, 0.0)
            assert kstest(a[:, 0], cdf).pvalue > 1e-4


# Span reduction -----------------------------------------------------------------------------------


def span_setting():
    points = np.random.default_rng(8).normal(size=(3, 6)) + 1.5
    diffusion = Diffusion(point_cloud(points), OU)
    # A start that is not the law of the process: outside the span and off its centre.
    x = 0.9 * np.random.default_rng(9).normal(size=(6000, 6)) + np.linspace(-0.5, 1, 6)
    return diffusion, x, [1.1, 0.6, 0.25]


def test_span_reduction_has_the_same_law():
    # Two-sample z of 6 means and 21 second moments, independent keys; n = 3 < d = 6.
    diffusion, x, grid = span_setting()
    n = len(x)
    on = np.asarray(backward(jax.random.key(1), diffusion, x, grid)[0])
    off = np.asarray(backward(jax.random.key(2), diffusion, x, grid, span_reduction=False)[0])
    z = []
    for f in (lambda v: v, lambda v: np.einsum("bi,bj->bij", v, v)[:, *np.triu_indices(6)],
              lambda v: v * x):  # fmt: skip
        one, two = f(on), f(off)
        z.append((one.mean(0) - two.mean(0)) / np.sqrt((one.var(0) + two.var(0)) / n))
    assert np.abs(np.concatenate(z)).max() < 4


def test_span_reduction_is_switchable_and_off_with_observe():
    diffusion, x, grid = span_setting()
    x = x[:4]
    on, off = (backward(KEY, diffusion, x, grid, span_reduction=s)[0] for s in (True, False))
    observed, info = backward(KEY, diffusion, x, grid, observe=lambda x, t: x)
    assert np.abs(np.asarray(on - off)).max() > 0.01
    np.testing.assert_allclose(observed, off, rtol=1e-12)
    assert info.observed.shape == (2, 4, 6)


def test_span_reduction_of_a_condition():
    points = np.random.default_rng(8).normal(size=(4, 6))
    cloud = point_cloud(points, [0, 0, 1, 1]).condition(1)
    x = np.random.default_rng(9).normal(size=(40, 6))
    a = np.asarray(backward(KEY, Diffusion(cloud, OU), x, [1.1, 0.0])[0])
    gap = np.abs(a[:, None] - points).max(-1)
    assert gap.min(1).max() < 1e-12
    assert set(gap.argmin(1)) == {2, 3}


# Order of the approximate samplers ----------------------------------------------------------------


def with_noise(method, model):
    """The step of a method with its normal draw as an argument: ``f(x, t, s, z)``."""

    def step(x, t, s, z):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                jax.random, "normal", lambda key, shape, dtype: jnp.broadcast_to(z, shape)
            )
            return methods.make_step(method, model)(KEY, x, t, s)[0]

    return jax.jit(step)


def slope(steps, errors):
    """Slope of log error against log step."""
    return np.polyfit(-np.log(steps), np.log(np.abs(errors)), 1)[0]


ORDERS = [
    ("euler_maruyama", OU, 1),
    ("ancestral", OU, 1),
    ("ddim", OU, 1),
    ("heun", OU, 2),
    ("euler_maruyama", rectified_flow(T), 1),
    ("heun", rectified_flow(T), 2),
]


@pytest.mark.parametrize(("name", "process", "order"), ORDERS)
def test_weak_order_on_a_gaussian(name, process, order):
    # Every step is affine, x_s = A x_t + b + c z: mean and variance propagate without sampling.
    # From t = 1.5 to 0.2; S = 64 to 512 is asymptotic (steps below Delta_t / 10).
    step = with_noise(methods.METHODS[name](), Diffusion(GAUSSIAN, process))
    x, z = jnp.array([[0.0], [1.0], [0.0]]), jnp.array([[0.0], [0.0], [1.0]])
    affine = jax.jit(jax.vmap(lambda t, s: step(x, t, s, z)[:, 0]))
    counts, errors = np.array([64, 128, 256, 512]), []
    for steps in counts:
        times = np.linspace(1.5, 0.2, steps + 1)
        padded = np.full((2, 512), 1.0)
        padded[:, :steps] = times[:-1], times[1:]
        rows = np.asarray(affine(*padded))[:steps]
        exact = [
            (
                float(process.scale(t) * 1.4),
                float(process.variance(t) + 0.35 * process.scale(t) ** 2),
            )
            for t in (1.5, 0.2)
        ]
        mean, variance = exact[0]
        for offset, at_one, kicked in rows:
            gain, noise = at_one - offset, kicked - offset
            mean, variance = gain * mean + offset, gain**2 * variance + noise**2
        errors.append((mean - exact[1][0], variance - exact[1][1]))
    errors = np.array(errors)
    assert np.abs(errors[-1]).max() > 1e-9  # above rounding
    assert slope(counts, errors[:, 1]) == pytest.approx(order, abs=0.15)
    if np.abs(errors[:, 0]).max() > 1e-12:  # the ancestral mean of a Gaussian is exact
        assert slope(counts, errors[:, 0]) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["euler_maruyama", "ancestral"])
def test_weak_order_on_a_mixture(name):
    # The density is pushed through the Markov kernel N(mu(x), c^2) on a grid (trapezoid: exact to
    # rounding for kernels wider than two cells), so that no sampling noise hides the order.
    x = np.linspace(-6, 6, 601)
    dx, (start, end) = x[1] - x[0], (1.2, 0.3)
    step = with_noise(methods.METHODS[name](), Diffusion(MIXTURE, OU))

    def density(t):
        width = np.sqrt(float(OU.variance(t)) + np.exp(-2 * t) * VARIANCES)
        return norm.pdf(x[:, None], np.exp(-t) * CENTRES, width) @ WEIGHTS

    counts, errors = np.array([24, 48, 96]), []
    for steps in counts:
        p, times = density(start), np.linspace(start, end, steps + 1)
        for t, s in itertools.pairwise(times):
            centre = np.asarray(step(x[:, None], t, s, jnp.zeros(1)))[:, 0]
            width = float(step(x[:1, None], t, s, jnp.ones(1))[0, 0] - centre[0])
            p = norm.pdf((x[:, None] - centre) / width) / width @ p * dx
        difference = (p - density(end)) * dx
        errors.append([difference @ x, difference @ x**2, difference @ np.tanh(2 * x)])
    errors = np.array(errors)
    assert np.abs(errors[-1]).min() > 1e-6
    for column in errors.T:
        assert slope(counts, column) == pytest.approx(1, abs=0.15)


def test_order_of_the_flow_on_a_mixture():
    # Strong error of the deterministic samplers against the adaptive solver at tolerance 1e-10.
    diffusion, x = Diffusion(MIXTURE, OU), np.linspace(-2.5, 2.5, 9)[:, None]
    reference, info = backward(
        KEY, diffusion, x, [1.2, 0.3], method=methods.adaptive_ode(rtol=1e-10, atol=1e-11)
    )
    assert info.method == "adaptive_ode"
    # The flow is the monotone map between the marginals: quantile to quantile.
    start = marginal_cdf(CENTRES, VARIANCES, WEIGHTS, np.exp(-1.2), float(OU.std(1.2)))
    finish = marginal_cdf(CENTRES, VARIANCES, WEIGHTS, np.exp(-0.3), float(OU.std(0.3)))
    np.testing.assert_allclose(finish(np.asarray(reference)[:, 0]), start(x[:, 0]), atol=1e-8)
    flow = methods.euler_maruyama(noise=0.0)
    for method, order in ((methods.ddim(), 1), (methods.heun(), 2), (flow, 1)):
        counts = np.array([64, 256])
        errors = [
            np.abs(backward(KEY, diffusion, x, np.linspace(1.2, 0.3, s + 1), method=method)[0]
                   - reference).max()
            for s in counts
        ]  # fmt: skip
        assert slope(counts, errors) == pytest.approx(order, abs=0.15)


def test_noise_of_euler_maruyama_keeps_the_marginals():
    # noise = 0.5 has the law of P_t as well, to the order of the step.
    step = with_noise(methods.euler_maruyama(noise=0.5), Diffusion(GAUSSIAN, OU))
    mean, variance, times = 1.4 * np.exp(-1.5), None, np.linspace(1.5, 0.2, 513)
    variance = float(OU.variance(1.5)) + 0.35 * np.exp(-3.0)
    for t, s in itertools.pairwise(times):
        b, a, c = np.asarray(
            step(jnp.array([[0.0], [1.0], [0.0]]), t, s, jnp.array([[0.0], [0.0], [1.0]]))
        )[:, 0]
        mean, variance = (a - b) * mean + b, (a - b) ** 2 * variance + (c - b) ** 2
    assert c - b == pytest.approx(0.5 * np.sqrt(2 * T * 1.3 / 512), rel=1e-9)
    assert variance == pytest.approx(float(OU.variance(0.2)) + 0.35 * np.exp(-0.4), rel=5e-3)


# One interface ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ancestral", "ddim", "euler_maruyama", "heun", "adaptive_ode"])
def test_a_bare_score_function_runs_like_the_model(name):
    diffusion = Diffusion(GAUSSIAN, rectified_flow(T))
    x = diffusion.sample(jax.random.key(0), 1.5, 4)
    times = np.linspace(1.5, 0.1, 9)
    want, info = backward(KEY, diffusion, x, times, method=name)
    assert info.method == name

    def score(x, t):
        scale = diffusion.process.scale(t)
        return -(x - scale * 1.4) / (diffusion.process.variance(t) + 0.35 * scale**2)

    got, _ = backward(KEY, score, x, times, method=name, process=diffusion.process)
    np.testing.assert_allclose(got, want, rtol=1e-6 if name == "adaptive_ode" else 1e-9)


def test_the_default_method_depends_on_the_model():
    x, times = jnp.array([[0.4]]), [0.5, 0.1]
    assert backward(KEY, Diffusion(GAUSSIAN, OU), x, times)[1].method == "exact"
    bare = score_model(lambda x, t: -x / T, OU)
    assert backward(KEY, bare, x, times)[1].method == "ancestral"
    with pytest.raises(TypeError, match="method 'exact' needs an exact posterior"):
        backward(KEY, bare, x, times, method="exact")
    with pytest.raises(TypeError, match="a bare score function needs process="):
        backward(KEY, lambda x, t: -x, x, times)
    with pytest.raises(TypeError, match="model must be a Diffusion or a score function, got str"):
        backward(KEY, "network", x, times)


@pytest.mark.parametrize("name", ["ancestral", "ddim", "heun", "euler_maruyama"])
def test_every_sampler_ends_at_time_zero(name):
    # The last step to t = 0 is finite, and for a Gaussian with small steps has about its law.
    times = np.append(np.geomspace(1.5, 1e-3, 80), 0.0)
    x = Diffusion(GAUSSIAN, OU).sample(jax.random.key(6), 1.5, 2000)
    y, _ = backward(KEY, Diffusion(GAUSSIAN, OU), x, times, method=name)
    # 4 standard errors of 2000 draws, plus 3% for the step.
    assert abs(y.mean() - 1.4) < 4 * np.sqrt(0.35 / 2000) + 0.03
    assert abs(y.var() / 0.35 - 1) < 4 * np.sqrt(2 / 2000) + 0.03


def test_observe_sees_every_state_after_its_step():
    diffusion, times = Diffusion(GAUSSIAN, OU), np.array([1.0, 0.7, 0.2, 0.0])
    x = jnp.ones((2, 5, 1))

    def observe(x, t):
        return {"x": x, "t": t, "mean": x.mean()}

    y, info = backward(KEY, diffusion, x, times, observe=observe)
    assert info.observed["x"].shape == (3, 2, 5, 1)
    assert info.observed["mean"].shape == (3,)
    np.testing.assert_allclose(info.observed["t"], times[1:], rtol=1e-15)
    np.testing.assert_array_equal(info.observed["x"][-1], y)
    assert info.finite.shape == (2, 5)
    # The first state is that of the shorter run; the adaptive solver is observed as well.
    first, _ = backward(KEY, diffusion, x, times[:2])
    np.testing.assert_allclose(info.observed["x"][0], first, rtol=1e-12)
    z, info = backward(KEY, diffusion, x, times, observe=observe, method="adaptive_ode")
    assert info.observed["x"].shape == (3, 2, 5, 1)
    np.testing.assert_allclose(info.observed["x"][-1], z, rtol=1e-12)


def test_progress_in_chunks_gives_the_same_numbers():
    diffusion, times = Diffusion(MIXTURE, OU), np.linspace(1.0, 0.1, 48)
    x, seen = jnp.ones((3, 1)), []

    def observe(x, t):
        return x

    want, info = backward(KEY, diffusion, x, times, observe=observe)
    got, chunked = backward(
        KEY, diffusion, x, times, observe=observe, progress=lambda done, total: seen.append((done, total))
    )  # fmt: skip
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(chunked.observed, info.observed)
    assert seen[-1] == (47, 47)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 10


def test_progress_is_reported_in_the_span_too():
    diffusion, x, _ = span_setting()
    times, seen = np.linspace(1.0, 0.1, 23), []
    want, _ = backward(KEY, diffusion, x[:3], times)
    got, _ = backward(KEY, diffusion, x[:3], times, progress=lambda done, total: seen.append(done))
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert seen[-1] == 22


@pytest.mark.parametrize(
    ("diffusion", "name"),
    [
        (Diffusion(MIXTURE, OU), "exact"),
        (Diffusion(CLOUD, OU), "exact"),
        (span_setting()[0], "exact"),
        (Diffusion(MIXTURE, OU), "euler_maruyama"),
    ],
    ids=["mixture", "cloud", "span", "euler"],
)
def test_first_rows_of_a_larger_batch(diffusion, name):
    x = np.random.default_rng(3).normal(size=(10, diffusion.dim))
    times = [0.9, 0.5, 0.2]
    ten, five = (backward(KEY, diffusion, x[:b], times, method=name)[0] for b in (10, 5))
    np.testing.assert_allclose(ten[:5], five, rtol=1e-11)
    assert np.abs(np.asarray(ten[5:] - ten[:5])).max() > 1e-2


def test_every_step_has_noise_of_its_own():
    # With equal keys in every step the increments of a driftless stretch would be equal.
    flat = score_model(lambda x, t: -x / T, OU)
    _, info = backward(
        KEY, flat, jnp.zeros((1, 3)), np.linspace(1.0, 0.9, 6), method="euler_maruyama",
        observe=lambda x, t: x,
    )  # fmt: skip
    steps = np.diff(np.asarray(info.observed)[:, 0], axis=0)
    assert np.abs(steps[1:] - steps[:-1]).min() > 1e-3
    other, _ = backward(jax.random.key(18), flat, jnp.zeros((1, 3)), np.linspace(1.0, 0.9, 6),
                        method="euler_maruyama")  # fmt: skip
    assert np.abs(np.asarray(other - info.observed[-1])).min() > 1e-3


# Transformations ----------------------------------------------------------------------------------


def test_jit_and_vmap():
    times = jnp.linspace(1.0, 0.2, 5)
    x = np.random.default_rng(3).normal(size=(3, 4, 1))
    keys = jax.random.split(KEY, 3)

    def run(key, x, temperature):
        return backward(key, Diffusion(MIXTURE, ornstein_uhlenbeck(temperature)), x, times)[0]

    temperatures = jnp.array([0.5, 0.7, 1.3])
    want = np.stack([run(*row) for row in zip(keys, x, temperatures)])
    got = jax.jit(jax.vmap(run))(keys, x, temperatures)
    np.testing.assert_allclose(got, want, rtol=1e-9)


def test_float32_is_kept(strict):
    wide, x, grid = span_setting()
    for model, name in (
        (Diffusion(single(MIXTURE), OU), "exact"),
        (Diffusion(single(MIXTURE), OU), "heun"),
        (Diffusion(point_cloud(np.float32(wide.data.points)), OU), "exact"),
    ):
        start = jnp.asarray(x[:4, : model.dim], jnp.float32)
        y, info = backward(KEY, model, start, grid, method=name)
        assert y.dtype == jnp.float32
        assert bool(info.finite.all())


@pytest.mark.parametrize("setting", ["mixture", "span"])
def test_two_devices_give_the_numbers_of_one(setting):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs two devices; tests/conftest.py asks XLA for two host devices")
    diffusion, x, grid = span_setting()
    x = x[:8]
    if setting == "mixture":
        diffusion, x = Diffusion(MIXTURE, OU), x[:, :1]
    mesh = Mesh(np.array(devices[:2]), ("batch",))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    got, _ = backward(KEY, diffusion, split, grid)
    want, _ = backward(KEY, diffusion, x, grid)
    np.testing.assert_allclose(got, want, rtol=1e-10)


# Gradients and memory -----------------------------------------------------------------------------


def loss(parameters, steps, remat, name="ancestral"):
    """A functional of a whole trajectory, in the temperature and the mean of a class."""
    temperature, centre = parameters
    data = gaussian_mixture(WEIGHTS, jnp.stack([centre, CENTRES[1]])[:, None], VARIANCES)
    model = Diffusion(data, ornstein_uhlenbeck(temperature))
    x = jnp.linspace(-1.5, 1.5, 7)[:, None]
    y, _ = backward(KEY, model, x, jnp.linspace(1.2, 0.1, steps + 1), method=name, remat=remat)
    return jnp.mean(jnp.square(y - 0.4))


@pytest.mark.parametrize("name", ["ancestral", "heun"])
def test_gradients_through_a_trajectory(name):
    # 11 steps: three segments of 3 and a remainder of 2. Central differences with h^2 = 1e-10.
    at = (jnp.asarray(T), jnp.asarray(-1.6))
    plain, checkpointed = (
        jax.jit(jax.value_and_grad(lambda p, r=r: loss(p, 11, r, name)))(at) for r in (False, True)
    )
    np.testing.assert_allclose(plain[0], checkpointed[0], rtol=1e-12)
    np.testing.assert_allclose(plain[1], checkpointed[1], rtol=1e-9)
    value, h = jax.jit(lambda p: loss(p, 11, False, name)), 1e-5
    for i in range(2):
        up, down = (tuple(v + sign * h * (j == i) for j, v in enumerate(at)) for sign in (1, -1))
        difference = (value(up) - value(down)) / (2 * h)
        assert float(plain[1][i]) == pytest.approx(float(difference), rel=1e-6)
        assert abs(float(difference)) > 1e-3


def test_gradient_of_the_exact_chain_through_its_bridge():
    # One Gaussian: x_0 = m + K (x - e^-t m) + noise, so d E x_0 / d m = 1 - e^-t K, sample by sample.
    def first(mean):
        data = gaussian_mixture([1.0], mean[None, None], 0.35)
        return backward(KEY, Diffusion(data, OU), jnp.array([[0.2]]), [0.8, 0.0])[0][0, 0]

    decay = np.exp(-0.8)
    gain = decay * 0.35 / (T * (1 - decay**2) + decay**2 * 0.35)
    assert float(jax.grad(first)(jnp.asarray(1.4))) == pytest.approx(1 - decay * gain, rel=1e-10)


def gradient_memory(steps, remat):
    data = gaussian_mixture(
        WEIGHTS, jnp.stack([CENTRES[0], CENTRES[1]])[:, None] * jnp.ones(16), 0.3
    )
    times = jnp.linspace(1.2, 0.1, steps + 1)

    def total(x):
        return jnp.sum(
            backward(KEY, Diffusion(data, OU), x, times, method="ddim", remat=remat)[0] ** 2
        )

    compiled = jax.jit(jax.grad(total)).lower(jnp.ones((256, 16))).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_remat_memory_grows_like_the_root_of_the_steps():
    # 16 times the steps: 4 times the memory with remat, about 16 times without.
    short, long = gradient_memory(64, True), gradient_memory(1024, True)
    assert long / short < 5
    state = 256 * 16 * 8
    assert long < 4 * 2 * np.sqrt(1024) * state  # 2 sqrt(S) states, and what one step holds
    assert gradient_memory(1024, False) > 8 * long


# Failure is reported ------------------------------------------------------------------------------


def test_a_trajectory_that_leaves_the_numbers_is_an_error():
    def score(x, t):
        return jnp.where(x > 1.5, jnp.nan, -x)

    x = jnp.array([[0.0], [1.6], [2.0]])
    message = r"2 of 3 trajectories ended in NaN or infinity with method 'ddim'; take smaller steps"
    with pytest.raises(FloatingPointError, match=message):
        backward(KEY, score, x, [0.5, 0.4], process=OU, method="ddim")
    info = jax.jit(lambda v: backward(KEY, score, v, [0.5, 0.4], process=OU, method="ddim")[1])(x)
    assert info.finite.tolist() == [True, False, False]


def test_an_adaptive_solve_that_fails_is_an_error():
    def score(x, t):  # explodes in finite time
        return x**3 * 50

    with pytest.raises(FloatingPointError, match="with method 'adaptive_ode'"):
        backward(KEY, score, jnp.array([[4.0]]), [1.0, 0.1], process=OU, method="adaptive_ode")
