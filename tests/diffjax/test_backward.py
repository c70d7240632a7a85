"""Backward samplers: exact laws, orders of convergence, gradients, memory, and one interface.

Compilation takes most of the time, so runs of a model share their shapes where they can, and tests
of the driver use a bare score function, which compiles ten times as fast.
"""

from itertools import pairwise

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
)
from diffjax.diffusion import score_model
from diffjax.dynamics import methods

T = 0.7
OU, FLOW = ornstein_uhlenbeck(T), rectified_flow(T)
# Nothing symmetric, no variance 1.
WEIGHTS, CENTRES, VARIANCES = np.array([0.3, 0.7]), np.array([-1.6, 1.1]), np.array([0.3, 0.55])
MIXTURE = gaussian_mixture(WEIGHTS, CENTRES[:, None], VARIANCES)
ATOMS = np.array([-1.3, 0.2, 0.9, 0.9])  # one duplicate
CLOUD = point_cloud(ATOMS[:, None])
SPAN_POINTS = np.random.default_rng(8).normal(size=(4, 6)) + 1.5
SPAN = Diffusion(point_cloud(SPAN_POINTS, [0, 0, 1, 1]), OU)
MEAN, VARIANCE = 1.4, 0.35
GAUSSIAN = gaussian_mixture([1.0], [[MEAN]], VARIANCE)
KEY = jax.random.key(17)
N = 20_000
THREE = (1.4, 1.1, 0.3, 0.15)  # steps so large that an Euler step fails by far


def single(tree):
    """The same record in float32."""
    return jax.tree.map(
        lambda v: jnp.asarray(v, jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v, tree
    )


def gaussian_score(process):
    """Score of `GAUSSIAN` in the coordinates of a process, by hand."""

    def score(x, t):
        scale = process.scale(t)
        return -(x - scale * MEAN) / (process.variance(t) + VARIANCE * scale**2)

    return score


def mixture_score(x, t):
    """Score of `MIXTURE` in OU coordinates, as the gradient of its log density."""

    def log_density(v):
        width = OU.variance(t) + jnp.exp(-2 * t) * VARIANCES
        gaps = v[..., None] - jnp.exp(-t) * CENTRES
        terms = jnp.log(WEIGHTS) - 0.5 * gaps**2 / width - 0.5 * jnp.log(width)
        return jnp.sum(jax.nn.logsumexp(terms, -1))

    return jax.grad(log_density)(x)


def states(data, process, t, seed):
    """N states at time t, drawn with numpy."""
    rng = np.random.default_rng(seed)
    if data is CLOUD:
        a = rng.choice(ATOMS, N)
    else:
        c = rng.choice(2, N, p=WEIGHTS)
        a = CENTRES[c] + np.sqrt(VARIANCES[c]) * rng.normal(size=N)
    return (float(process.scale(t)) * a + float(process.std(t)) * rng.normal(size=N))[:, None]


def marginal_cdf(data, process, t):
    """Distribution function of x_t."""
    scale, std = float(process.scale(t)), float(process.std(t))
    if data is CLOUD:
        weights, centres, variances = np.full(4, 0.25), ATOMS, np.zeros(4)
    else:
        weights, centres, variances = WEIGHTS, CENTRES, VARIANCES
    width = np.sqrt(std**2 + scale**2 * variances)
    return lambda x: norm.cdf((np.asarray(x)[..., None] - scale * centres) / width) @ weights


# The law of the exact chain -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "process", "grid"),
    [
        (MIXTURE, OU, (1.4, 0.15)),
        (MIXTURE, OU, THREE),
        (MIXTURE, FLOW, THREE),
        (CLOUD, OU, (1.4, 0.15)),
        (CLOUD, OU, THREE),
    ],
    ids=["mixture-one-step", "mixture", "mixture-flow", "cloud-one-step", "cloud"],
)
def test_exact_chain_has_the_exact_law_on_any_grid(data, process, grid):
    # Kolmogorov-Smirnov at level 1e-4; the z-scores exceed 4 with probability 6e-5.
    x = states(data, process, grid[0], seed=1)
    y, info = backward(KEY, Diffusion(data, process), x, grid)
    assert info.method == "exact"
    assert bool(info.finite.all())
    y = np.asarray(y)
    assert kstest(y[:, 0], marginal_cdf(data, process, grid[-1])).pvalue > 1e-4
    # Not only the marginal: E[x_s x_t] = scale_t / scale_s E[x_s^2], as for the forward chain.
    ratio = float(process.scale(grid[0]) / process.scale(grid[-1]))
    gap = y * x - ratio * y * y
    assert abs(gap.mean() / (gap.std() / np.sqrt(N))) < 4
    if data is MIXTURE:  # class fractions: the posterior is a martingale
        scale, variance = float(process.scale(grid[-1])), float(process.variance(grid[-1]))
        width = np.sqrt(variance + scale**2 * VARIANCES)
        joint = WEIGHTS * norm.pdf(y, scale * CENTRES, width)
        p = joint[:, 0] / joint.sum(1)
        assert abs((p.mean() - 0.3) / (p.std() / np.sqrt(N))) < 4


def test_the_law_test_can_fail():
    x = states(MIXTURE, OU, THREE[0], seed=1)
    y, _ = backward(KEY, mixture_score, x, THREE, method="euler_maruyama", process=OU)
    assert kstest(np.asarray(y)[:, 0], marginal_cdf(MIXTURE, OU, THREE[-1])).pvalue < 1e-12


def test_exact_chain_in_more_dimensions():
    # Low rank, diagonal and unequal: mean and second moments of x_s.
    rng = np.random.default_rng(5)
    means, factors = rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 1))
    variances = rng.uniform(0.1, 1, (2, 3))
    diffusion = Diffusion(gaussian_mixture([0.2, 0.8], means, variances, factors), OU)
    start, end = 1.6, 0.2
    c = rng.choice(2, N, p=[0.2, 0.8])
    a = means[c] + np.sqrt(variances[c]) * rng.normal(size=(N, 3))
    a += factors[c, :, 0] * rng.normal(size=(N, 1))
    x = np.exp(-start) * a + float(OU.std(start)) * rng.normal(size=(N, 3))
    y = np.asarray(backward(KEY, diffusion, x, [start, 0.7, end])[0])
    scale, std = np.exp(-end), float(OU.std(end))
    mean = scale * np.array([0.2, 0.8]) @ means
    second = std**2 * np.eye(3)
    for w, m, v, f in zip((0.2, 0.8), means, variances, factors):
        second += w * scale**2 * (np.diag(v) + f @ f.T + np.outer(m, m))
    products = np.einsum("bi,bj->bij", y, y)
    z = [(y.mean(0) - mean) / y.std(0), ((products.mean(0) - second) / products.std(0)).ravel()]
    assert np.abs(np.concatenate(z)).max() * np.sqrt(N) < 4


def test_one_jump_to_zero_returns_training_points():
    # In the coordinates of the data exactly; in the span of the points to rounding.
    x = states(CLOUD, OU, 1.4, seed=2)
    for grid in ((1.4, 0.0), (1.4, 1.1, 0.3, 0.0)):
        a = np.asarray(backward(KEY, Diffusion(CLOUD, OU), x, grid)[0])
        assert set(a[:, 0]) == set(ATOMS)
        fraction = (a > 0.5).mean()
        assert abs(fraction - 0.5) < 4 * 0.5 / np.sqrt(N)


@pytest.mark.parametrize("start", [np.inf, 5000.0, 60.0])
def test_start_at_infinite_time(start):
    # Pure noise, no start error: the data come out with their law.
    x = np.sqrt(T) * np.random.default_rng(1).normal(size=(N, 1))
    grid = (start, 2.0, 0.8, 0.0)
    a = np.asarray(backward(KEY, Diffusion(MIXTURE, OU), x, grid)[0])
    assert kstest(a[:, 0], marginal_cdf(MIXTURE, OU, 0.0)).pvalue > 1e-4
    a = np.asarray(backward(KEY, Diffusion(CLOUD, OU), x, grid)[0])
    assert abs((a < 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / N)


# Span reduction -----------------------------------------------------------------------------------

# A start that is not the law of the process: outside the span and off its centre.
SPAN_X = 0.9 * np.random.default_rng(9).normal(size=(6000, 6)) + np.linspace(-0.5, 1, 6)
SPAN_GRID = (1.1, 0.6, 0.25)


@pytest.mark.slow
def test_span_reduction_has_the_same_law():
    # Two-sample z of 6 means, 21 second moments and 6 products with the start; n = 4 < d = 6.
    on = np.asarray(backward(jax.random.key(1), SPAN, SPAN_X, SPAN_GRID)[0])
    off, _ = backward(jax.random.key(2), SPAN, SPAN_X, SPAN_GRID, span_reduction=False)
    off = np.asarray(off)
    z = []
    for f in (
        lambda v: v,
        lambda v: np.einsum("bi,bj->bij", v, v)[:, *np.triu_indices(6)],
        lambda v: v * SPAN_X,
    ):
        one, two = f(on), f(off)
        spread = np.sqrt((one.var(0) + two.var(0)) / len(SPAN_X))
        z.append((one.mean(0) - two.mean(0)) / spread)
    assert np.abs(np.concatenate(z)).max() < 4


def test_span_reduction_is_switchable_and_off_with_observe():
    on, off = (
        backward(KEY, SPAN, SPAN_X, SPAN_GRID, span_reduction=switch)[0] for switch in (True, False)
    )
    observed, info = backward(KEY, SPAN, SPAN_X, SPAN_GRID, observe=lambda x, t: x[:4])
    assert np.abs(np.asarray(on - off)).max() > 0.01
    np.testing.assert_allclose(observed, off, rtol=1e-12)
    assert info.observed.shape == (2, 4, 6)


def test_span_reduction_ends_on_points_of_the_condition():
    for cloud, kept in ((SPAN.data, {0, 1, 2, 3}), (SPAN.data.condition(1), {2, 3})):
        a = np.asarray(backward(KEY, Diffusion(cloud, OU), SPAN_X, (1.1, 0.6, 0.0))[0])
        gap = np.abs(a[:, None] - SPAN_POINTS).max(-1)
        assert gap.min(1).max() < 1e-12
        assert set(gap.argmin(1)) == kept


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


def gaussian_moments(process, t):
    """Mean and variance of x_t of `GAUSSIAN`."""
    scale = float(process.scale(t))
    return scale * MEAN, float(process.variance(t)) + VARIANCE * scale**2


ORDERS = [
    ("euler_maruyama", OU, 1),
    ("ancestral", OU, 1),
    ("ddim", OU, 1),
    ("heun", OU, 2),
    ("euler_maruyama", FLOW, 1),
    ("heun", FLOW, 2),
]


@pytest.mark.parametrize(("name", "process", "order"), ORDERS)
def test_weak_order_on_a_gaussian(name, process, order):
    # Every step is affine, x_s = A x_t + b + c z: mean and variance propagate without sampling.
    # From t = 1.5 to 0.2; S = 64 to 512 is asymptotic (steps below Delta_t / 10).
    step = with_noise(methods.METHODS[name](), score_model(gaussian_score(process), process))
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
    step = with_noise(methods.METHODS[name](), score_model(mixture_score, OU))

    def density(t):
        width = np.sqrt(float(OU.variance(t)) + np.exp(-2 * t) * VARIANCES)
        return norm.pdf(x[:, None], np.exp(-t) * CENTRES, width) @ WEIGHTS

    counts, errors = np.array([24, 48, 96]), []
    for steps in counts:
        p, times = density(start), np.linspace(start, end, steps + 1)
        for t, s in pairwise(times):
            centre = np.asarray(step(x[:, None], t, s, jnp.zeros(1)))[:, 0]
            width = float(step(x[:1, None], t, s, jnp.ones(1))[0, 0] - centre[0])
            p = norm.pdf((x[:, None] - centre) / width) / width @ p * dx
        difference = (p - density(end)) * dx
        errors.append([difference @ x, difference @ x**2, difference @ np.tanh(2 * x)])
    errors = np.array(errors)
    assert np.abs(errors[-1]).min() > 1e-6
    for column in errors.T:
        assert slope(counts, column) == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_order_of_the_flow_on_a_mixture():
    # Strong error of the deterministic samplers against the adaptive solver at tolerance 1e-10.
    model, x = score_model(mixture_score, OU), np.linspace(-2.5, 2.5, 9)[:, None]
    adaptive = methods.adaptive_ode(rtol=1e-10, atol=1e-11)
    reference, info = backward(KEY, model, x, [1.2, 0.3], method=adaptive)
    assert info.method == "adaptive_ode"
    # The flow is the monotone map between the marginals: quantile to quantile.
    start, finish = marginal_cdf(MIXTURE, OU, 1.2), marginal_cdf(MIXTURE, OU, 0.3)
    np.testing.assert_allclose(finish(np.asarray(reference)[:, 0]), start(x[:, 0]), atol=1e-8)
    counts = np.array([64, 256])
    flow = methods.euler_maruyama(noise=0.0)
    for method, order in ((methods.ddim(), 1), (methods.heun(), 2), (flow, 1)):
        errors = []
        for steps in counts:
            y, _ = backward(KEY, model, x, np.linspace(1.2, 0.3, steps + 1), method=method)
            errors.append(np.abs(y - reference).max())
        assert slope(counts, errors) == pytest.approx(order, abs=0.15)


def test_noise_of_euler_maruyama_keeps_the_marginals():
    # noise = 0.5 has the law of P_t as well, to the order of the step (512 steps).
    step = with_noise(methods.euler_maruyama(0.5), score_model(gaussian_score(OU), OU))
    x, z = jnp.array([[0.0], [1.0], [0.0]]), jnp.array([[0.0], [0.0], [1.0]])
    mean, variance = gaussian_moments(OU, 1.5)
    for t, s in pairwise(np.linspace(1.5, 0.2, 513)):
        offset, at_one, kicked = np.asarray(step(x, t, s, z))[:, 0]
        gain, noise = at_one - offset, kicked - offset
        mean, variance = gain * mean + offset, gain**2 * variance + noise**2
    assert noise == pytest.approx(0.5 * np.sqrt(2 * T * 1.3 / 512), rel=1e-9)
    np.testing.assert_allclose((mean, variance), gaussian_moments(OU, 0.2), rtol=5e-3)


# One interface ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ancestral", "ddim", "euler_maruyama", "heun", "adaptive_ode"])
def test_every_method_runs_a_model_and_a_bare_score_down_to_time_zero(name):
    times = np.append(np.geomspace(1.5, 1e-3, 80), 0.0)
    mean, variance = gaussian_moments(FLOW, 1.5)
    x = mean + np.sqrt(variance) * np.random.default_rng(6).normal(size=(2000, 1))
    y, info = backward(KEY, Diffusion(GAUSSIAN, FLOW), x, times, method=name)
    assert info.method == name
    bare, info = backward(KEY, gaussian_score(FLOW), x, times, method=name, process=FLOW)
    assert info.method == name
    np.testing.assert_allclose(bare, y, rtol=1e-5 if name == "adaptive_ode" else 1e-8)
    # 4 standard errors of 2000 draws, plus 4% for the step.
    assert abs(y.mean() - MEAN) < 4 * np.sqrt(VARIANCE / 2000) + 0.04
    assert abs(y.var() / VARIANCE - 1) < 4 * np.sqrt(2 / 2000) + 0.04


def test_the_default_method_depends_on_the_model():
    x, times = np.full((N, 1), 0.4), (0.5, 0.1)
    assert backward(KEY, Diffusion(MIXTURE, OU), x, times)[1].method == "exact"
    bare = score_model(lambda x, t: -x / T, OU)
    assert backward(KEY, bare, x, times)[1].method == "ancestral"
    with pytest.raises(TypeError, match="method 'exact' needs an exact posterior"):
        backward(KEY, bare, x, times, method="exact")
    with pytest.raises(TypeError, match="a bare score function needs process="):
        backward(KEY, lambda x, t: -x, x, times)
    with pytest.raises(TypeError, match="model must be a Diffusion or a score function, got str"):
        backward(KEY, "network", x, times)


@pytest.mark.parametrize(
    "method", ["euler_maruyama", pytest.param("adaptive_ode", marks=pytest.mark.slow)]
)
def test_observe_sees_every_state_after_its_step(method):
    model, times = score_model(gaussian_score(OU), OU), np.array([1.0, 0.7, 0.2, 0.0])
    x = jnp.ones((2, 5, 1))

    def observe(x, t):
        return {"x": x, "t": t, "mean": x.mean()}

    y, info = backward(KEY, model, x, times, observe=observe, method=method)
    assert info.observed["x"].shape == (3, 2, 5, 1)
    assert info.observed["mean"].shape == (3,)
    np.testing.assert_allclose(info.observed["t"], times[1:], rtol=1e-15)
    np.testing.assert_allclose(info.observed["x"][-1], y, rtol=1e-12)
    assert info.finite.shape == (2, 5)
    first, _ = backward(KEY, model, x, times[:2], method=method)
    np.testing.assert_allclose(info.observed["x"][0], first, rtol=1e-4)


def test_progress_in_chunks_gives_the_same_numbers():
    model, times = score_model(gaussian_score(OU), OU), np.linspace(1.0, 0.1, 48)
    x, seen = jnp.ones((3, 1)), []

    def observe(x, t):
        return x

    want, info = backward(KEY, model, x, times, observe=observe)
    got, chunked = backward(
        KEY, model, x, times, observe=observe, progress=lambda *done: seen.append(done)
    )
    np.testing.assert_allclose(got, want, rtol=1e-14)
    np.testing.assert_allclose(chunked.observed, info.observed, rtol=1e-14)
    assert seen[-1] == (47, 47)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert len(seen) > 10


def test_progress_is_reported_in_the_span_too():
    seen = []
    want, _ = backward(KEY, SPAN, SPAN_X, SPAN_GRID)
    got, _ = backward(KEY, SPAN, SPAN_X, SPAN_GRID, progress=lambda *done: seen.append(done))
    np.testing.assert_allclose(got, want, rtol=1e-11)
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("model", "x", "grid"),
    [
        (Diffusion(MIXTURE, OU), states(MIXTURE, OU, 1.4, 1), THREE),
        (Diffusion(CLOUD, OU), states(CLOUD, OU, 1.4, 1), THREE),
        pytest.param(SPAN, SPAN_X, SPAN_GRID, marks=pytest.mark.slow),
        (score_model(mixture_score, OU), states(MIXTURE, OU, 1.4, 1), THREE),
    ],
    ids=["mixture", "cloud", "span", "score"],
)
def test_first_rows_of_a_larger_batch(model, x, grid):
    all_rows, five = (np.asarray(backward(KEY, model, x[:b], grid)[0]) for b in (None, 5))
    np.testing.assert_allclose(all_rows[:5], five, rtol=1e-11)
    assert np.abs(all_rows[5:10] - five).min() > 1e-6


def test_every_step_has_noise_of_its_own():
    # With equal keys in every step the increments of a driftless stretch would be equal.
    flat, times = score_model(lambda x, t: -x / T, OU), np.linspace(1.0, 0.9, 6)
    x = jnp.zeros((1, 3))

    def observe(x, t):
        return x

    runs = []
    for key in (KEY, jax.random.key(18)):
        _, info = backward(key, flat, x, times, method="euler_maruyama", observe=observe)
        runs.append(np.asarray(info.observed))
    steps = np.diff(runs[0][:, 0], axis=0)
    assert np.abs(steps[1:] - steps[:-1]).min() > 1e-3
    assert np.abs(runs[1] - runs[0]).min() > 1e-3


# Transformations ----------------------------------------------------------------------------------


def test_jit_and_vmap():
    x = np.random.default_rng(3).normal(size=(3, 4, 1))
    keys, temperatures = jax.random.split(KEY, 3), jnp.array([0.5, 0.7, 1.3])

    def run(key, x, temperature):
        return backward(key, Diffusion(MIXTURE, ornstein_uhlenbeck(temperature)), x, THREE)[0]

    want = np.stack([run(*row) for row in zip(keys, x, temperatures)])
    got = jax.jit(jax.vmap(run))(keys, x, temperatures)
    np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("name", methods.METHODS)
def test_float32_is_kept(name, strict):
    # Traced only: a float64 that slips in would fail under strict promotion or in the loop.
    narrow = point_cloud(np.float32(SPAN_POINTS))
    for data, dim in ((single(MIXTURE), 1), (single(CLOUD), 1), (narrow, 6)):
        x = jax.ShapeDtypeStruct((4, dim), jnp.float32)
        run = jax.eval_shape(
            lambda x, data=data: backward(KEY, Diffusion(data, OU), x, SPAN_GRID, method=name)[0], x
        )
        assert run.dtype == jnp.float32
        assert run.shape == (4, dim)
    x = jnp.full((4, 1), 0.3, jnp.float32)
    y, _ = backward(KEY, score_model(lambda x, t: -x, OU), x, SPAN_GRID, method="ddim")
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("setting", ["mixture", pytest.param("span", marks=pytest.mark.slow)])
def test_two_devices_give_the_numbers_of_one(setting):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs two devices; tests/conftest.py asks XLA for two host devices")
    model, x, grid = SPAN, SPAN_X, SPAN_GRID
    if setting == "mixture":
        model, x, grid = Diffusion(MIXTURE, OU), states(MIXTURE, OU, 1.4, 1), THREE
    mesh = Mesh(np.array(devices[:2]), ("batch",))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec("batch")))
    got, _ = backward(KEY, model, split, grid)
    assert len(got.sharding.device_set) == 2
    want, _ = backward(KEY, model, x, grid)
    np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


# Gradients and memory -----------------------------------------------------------------------------


def test_gradients_through_a_trajectory():
    # In the temperature and the mean of a class. 11 steps: three segments of 3, a remainder of 2.
    x, times = jnp.linspace(-1.5, 1.5, 7)[:, None], jnp.linspace(1.2, 0.1, 12)

    def loss(parameters, remat):
        temperature, centre = parameters
        means = jnp.stack([centre, jnp.asarray(CENTRES[1])])[:, None]
        model = Diffusion(
            gaussian_mixture(WEIGHTS, means, VARIANCES), ornstein_uhlenbeck(temperature)
        )
        y, _ = backward(KEY, model, x, times, method="ancestral", remat=remat)
        return jnp.mean(jnp.square(y - 0.4))

    at = (jnp.asarray(T), jnp.asarray(CENTRES[0]))
    plain, remat = (
        jax.jit(jax.value_and_grad(lambda p, switch=switch: loss(p, switch)))
        for switch in (False, True)
    )
    value, gradient = plain(at)
    np.testing.assert_allclose(remat(at)[0], value, rtol=1e-12)
    np.testing.assert_allclose(remat(at)[1], gradient, rtol=1e-9)
    h = 1e-5  # central differences, error h^2
    for i in range(2):
        up, down = (tuple(v + sign * h * (j == i) for j, v in enumerate(at)) for sign in (1, -1))
        difference = float(plain(up)[0] - plain(down)[0]) / (2 * h)
        assert float(gradient[i]) == pytest.approx(difference, rel=1e-6)
        assert abs(difference) > 1e-3


def test_gradient_of_the_exact_chain_through_its_bridge():
    # One Gaussian: a = m + K (x - e^-t m) + noise, so da/dm = 1 - e^-t K, sample by sample.
    def first(mean):
        data = gaussian_mixture([1.0], mean[None, None], VARIANCE)
        return backward(KEY, Diffusion(data, OU), jnp.array([[0.2]]), [0.8, 0.0])[0][0, 0]

    decay = np.exp(-0.8)
    gain = decay * VARIANCE / (T * (1 - decay**2) + decay**2 * VARIANCE)
    derivative = float(jax.grad(first)(jnp.asarray(MEAN)))
    assert derivative == pytest.approx(1 - decay * gain, rel=1e-10)


def test_remat_memory_grows_like_the_root_of_the_steps():
    # 16 times the steps: 4 times the memory with remat, about 16 times without.
    def memory(steps, remat):
        times = jnp.linspace(1.2, 0.1, steps + 1)

        def total(x):
            y, _ = backward(KEY, mixture_score, x, times, process=OU, method="ddim", remat=remat)
            return jnp.sum(y**2)

        compiled = jax.jit(jax.grad(total)).lower(jnp.ones((256, 16))).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    short, long = memory(64, True), memory(1024, True)
    assert long / short < 5
    state = 256 * 16 * 8
    assert long < 4 * 2 * np.sqrt(1024) * state  # 2 sqrt(S) states, and what one step holds
    assert memory(1024, False) > 8 * long


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
