"""The uniform law on a sphere against quadrature, a dense set of points and its own moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import diffjax
from diffjax import bessel
from diffjax.data.base import Posterior

KEY = jax.random.key(11)
SCALE, STD, RADIUS = 0.7, 0.45, 1.3


def series(dim, y):
    """``A``, ``A'`` and ``L - y`` from the power series of E exp(y u_1), for moderate y."""
    k = np.arange(400)
    logs = k * np.log(y * y / 4) - special.gammaln(k + 1)

    def moment(shift):
        h = dim / 2 + shift
        return special.logsumexp(logs - special.gammaln(h + k) + special.gammaln(h))

    first, second, third = (moment(shift) for shift in (0, 1, 2))
    mean = y / dim * np.exp(second - first)
    square = 2 / dim * 0.5 * np.exp(second - first)
    square += y * y / (dim * (dim + 2)) * np.exp(third - first)
    return mean, square - mean**2, first - y


@pytest.mark.parametrize(
    ("dim", "dtype"),
    [(2, jnp.float32), (12288, jnp.float32), (3, jnp.float64), (12288, jnp.float64)],
)
def test_tilted_direction_against_its_power_series(dim, dtype):
    y = np.array([0.02, 0.7, 6.0, 60.0])
    want = np.array([series(dim, value) for value in y]).T
    given = jnp.asarray(y, dtype)
    found = (
        bessel.direction_mean(dim, given),
        bessel.direction_variance(dim, given),
        bessel.log_tilt(dim, given),
    )
    # the recurrence loses y/a in A'; the series itself loses digits of A' at y = 60
    tolerance = 4e-6 if dtype == jnp.float32 else 1e-9
    # terms of the size of the order cancel in L - y
    rounding = 8 * (dim / 2 + bessel.STEPS) * float(jnp.finfo(dtype).eps)
    for value, exact, floor in zip(found, want, (0, 0, rounding)):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, exact, rtol=tolerance, atol=floor)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_tilted_direction_at_strong_fields(dtype):
    # d = 3 at large y: A = 1 - 1/y, A' = 1/y^2, L - y = -log 2y
    y = jnp.asarray([0.0, 300.0, 1e5, 1e8], dtype)
    tolerance = 3e-6 if dtype == jnp.float32 else 1e-11
    big = np.asarray(y[1:], float)
    np.testing.assert_allclose(bessel.direction_mean(3, y)[1:], 1 - 1 / big, rtol=tolerance)
    np.testing.assert_allclose(bessel.direction_variance(3, y)[1:], big**-2, rtol=tolerance)
    rounding = 8 * bessel.STEPS * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(bessel.log_tilt(3, y)[1:], -np.log(2 * big), atol=rounding)
    for dim in (2, 3, 12288):
        assert bessel.direction_mean(dim, y)[0] == 0
        np.testing.assert_allclose(bessel.direction_variance(dim, y)[0], 1 / dim, rtol=tolerance)
        np.testing.assert_allclose(bessel.direction_gain(dim, y)[0], 1 / dim, rtol=tolerance)
        assert abs(float(bessel.log_tilt(dim, y)[0])) < (1e-3 if dtype == jnp.float32 else 1e-10)


def test_published_overlap_of_a_sphere():
    # ordered branch (1 + theta^2) R = 2 theta r A(theta r R/Delta) of the late-start theory
    for dim, radius, theta, overlap in (
        (2, 2**0.5, 0.7, 0.58187786),
        (2, 2**0.5, 0.9, 0.93663957),
        (10, 10**0.5, 0.8, 0.73782422),
        (64, 4.0, 0.97, 0.87106787),
    ):
        size, delta = overlap * radius, 1 - theta**2
        mean = bessel.direction_mean(dim, jnp.asarray(theta * radius * size / delta))
        assert 2 * theta * radius * float(mean) / (1 + theta**2) == pytest.approx(size, abs=1e-7)


def grid(dim):
    """Directions with weights: exact for smooth functions on the circle and the sphere."""
    angle = 2 * np.pi * (np.arange(400) + 0.5) / 400
    circle = np.stack([np.cos(angle), np.sin(angle)], -1)
    if dim == 2:
        return circle, np.full(400, 1 / 400)
    height, weight = np.polynomial.legendre.leggauss(120)
    flat = np.sqrt(1 - height**2)[:, None, None] * circle[::4]
    up = np.broadcast_to(height[:, None, None], (120, 100, 1))
    points = np.concatenate([flat, up], -1).reshape(-1, 3)
    return points, np.repeat(weight / 2, 100) / 100


@pytest.mark.parametrize("dim", [2, 3])
def test_posterior_against_quadrature(dim):
    sphere = diffjax.hypersphere(dim, RADIUS)
    assert isinstance(sphere, Posterior)
    x = np.random.default_rng(dim).normal(size=(5, dim))
    x[0] = 0
    nodes, weight = grid(dim)
    points = RADIUS * nodes
    energy = ((x[:, None] - SCALE * points) ** 2).sum(-1) / (2 * STD**2)
    joint = weight * np.exp(-energy) / (2 * np.pi * STD**2) ** (dim / 2)
    np.testing.assert_allclose(
        sphere.log_normaliser(x, SCALE, STD), np.log(joint.sum(1)), rtol=1e-10
    )
    posterior = joint / joint.sum(1, keepdims=True)
    mean = posterior @ points
    np.testing.assert_allclose(sphere.denoise(jnp.asarray(x), SCALE, STD), mean, atol=1e-12)
    score = (SCALE * mean - x) / STD**2
    np.testing.assert_allclose(sphere.score(jnp.asarray(x), SCALE, STD), score, atol=1e-11)
    u = np.random.default_rng(5).normal(size=(5, dim))
    rows = points - mean[:, None]
    product = np.einsum("bn,bni,bnj,bj->bi", posterior, rows, rows, u)
    found = sphere.covariance_product(jnp.asarray(x), SCALE, STD, jnp.asarray(u))
    np.testing.assert_allclose(found, product, atol=1e-11)
    # derivatives, also at the centre
    gradient = jax.vmap(jax.grad(lambda y: sphere.log_normaliser(y, SCALE, STD)))(jnp.asarray(x))
    np.testing.assert_allclose(gradient, score, atol=1e-10)
    jacobian = jax.vmap(jax.jacfwd(lambda y: sphere.denoise(y, SCALE, STD)))(jnp.asarray(x))
    np.testing.assert_allclose(
        jacobian @ u[..., None], SCALE / STD**2 * product[..., None], atol=1e-10
    )


def test_posterior_against_a_dense_cloud():
    # scores of 40000 uniform points: error of a Monte Carlo mean with the weights' own variance
    dim, process = 4, diffjax.ornstein_uhlenbeck(0.8)
    sphere = diffjax.hypersphere(dim, RADIUS)
    points = np.asarray(sphere.sample(KEY, 40_000))
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), RADIUS, rtol=1e-12)
    z = points.mean(0) / (RADIUS / np.sqrt(dim * len(points)))
    assert np.abs(z).max() < 4
    exact = diffjax.Diffusion(sphere, process)
    x = np.asarray(exact.sample(KEY, 0.6, 3))
    energy = ((x[:, None] - np.exp(-0.6) * points) ** 2).sum(-1) / (
        2 * float(process.variance(0.6))
    )
    weight = np.exp(-energy)
    weight /= weight.sum(1, keepdims=True)
    mean = np.asarray(exact.denoise(x, 0.6))
    error = np.sqrt(np.einsum("bn,bni->bi", weight**2, (points - mean[:, None]) ** 2))
    assert np.abs((weight @ points - mean) / error).max() < 4


@pytest.mark.parametrize("dim", [2, 40])
def test_exact_posterior_draws(dim):
    """First two moments along the field and across it, at weak, moderate and no field."""
    sphere, n = diffjax.hypersphere(dim, RADIUS), 10_000
    direction = np.random.default_rng(dim).normal(size=dim)
    direction /= np.linalg.norm(direction)
    kappa = jnp.asarray([0.0, 1.5, 30.0])
    x = kappa[:, None] * STD**2 / (SCALE * RADIUS) * direction

    @jax.jit
    def draw(key, x):
        keys = jax.random.split(key, n)
        return jax.vmap(lambda k: sphere.sample_posterior(k, x, SCALE, STD))(keys)

    a = np.asarray(draw(KEY, x)) / RADIUS
    np.testing.assert_allclose(np.linalg.norm(a, axis=-1), 1, atol=1e-12)
    along = a @ direction
    mean, variance = bessel.direction_mean(dim, kappa), bessel.direction_variance(dim, kappa)
    z = (along.mean(0) - mean) / np.sqrt(variance / n)
    assert np.abs(z[1:]).max() < 4  # without a field the axis is another one
    square = along[:, 1:] ** 2
    z = (square.mean(0) - (variance + mean**2)[1:]) / (square.std(0) / np.sqrt(n))
    assert np.abs(z).max() < 4
    z = a.mean(0) - np.asarray(mean)[:, None] * direction
    assert np.abs(z / (a.std(0) / np.sqrt(n))).max() < 4.5  # 120 numbers at most


def test_draws_in_single_precision_at_small_noise_and_high_dimension():
    dim, n, kappa = 3072, 400, 1e6
    sphere = diffjax.hypersphere(dim, jnp.float32(2.0))
    x = jnp.zeros((n, dim), jnp.float32).at[:, 0].set(2)
    std = np.float32(np.sqrt(4 / kappa))
    a = jax.jit(lambda key: sphere.sample_posterior(key, x, 1.0, std))(KEY)
    assert a.dtype == jnp.float32
    across = 1 - (np.asarray(a[:, 0], float) / 2) ** 2  # 1 - W^2, .003 here
    mean = float(bessel.direction_mean(dim, jnp.float64(kappa)))
    variance = float(bessel.direction_variance(dim, jnp.float64(kappa)))
    want = 1 - mean**2 - variance
    # the resolution of float32 near 1 is 6e-8, below the error of the mean
    assert abs(across.mean() - want) < 4 * 2 * np.sqrt(variance / n) + 2e-7
    values = (
        sphere.log_normaliser(x, 1.0, std),
        sphere.score(x, 1.0, std),
        jax.grad(lambda s: sphere.log_normaliser(x[0], 1.0, s))(std),
        jax.grad(lambda y: sphere.log_normaliser(y, 1.0, std))(jnp.zeros(dim, jnp.float32)),
    )
    for value in values:
        assert value.dtype == jnp.float32
        assert np.isfinite(np.asarray(value)).all()
    # density of the shell: log p at the radius against the flat approximation, (d-1) log terms
    flat = (
        -0.5 * np.log(2 * np.pi * std**2)
        - special.gammaln(1)
        - (np.log(2) + dim / 2 * np.log(np.pi) - special.gammaln(dim / 2) + (dim - 1) * np.log(2.0))
    )
    curvature = (dim - 1) * (dim - 3) / (8 * kappa)  # first correction of log I
    assert float(values[0][0]) == pytest.approx(flat - curvature, rel=3e-6)


def test_jacobian_clones_and_backward_run_on_a_circle():
    circle = diffjax.Diffusion(diffjax.hypersphere(2, 1.5), diffjax.ornstein_uhlenbeck())
    x = circle.sample(KEY, 0.4, 50)
    exact = jax.vmap(jax.jacfwd(lambda y: circle.score(y, 0.4)))(x)
    np.testing.assert_allclose(circle.jacobian(x, 0.4), exact, atol=1e-9)
    ends, info = diffjax.backward(KEY, circle, x, [0.4, 0.2, 0.0])
    assert info.method == "exact"
    np.testing.assert_allclose(jnp.linalg.norm(ends, axis=-1), 1.5, rtol=1e-12)


def test_nan_states_give_nan_draws_and_bad_spheres_are_refused():
    sphere = diffjax.hypersphere(3, 1.0)
    x = jnp.asarray([[jnp.nan, 0, 0], [1.0, 0, 0]])
    a = np.asarray(sphere.sample_posterior(KEY, x, 1.0, 0.5))
    assert np.isnan(a[0]).all()
    assert np.isfinite(a[1]).all()
    with pytest.raises(ValueError, match="dim must be at least 2"):
        diffjax.hypersphere(1, 1.0)
    with pytest.raises(ValueError, match="radius must be positive"):
        diffjax.hypersphere(3, -1.0)
    with pytest.raises(ValueError, match="expected one number"):
        diffjax.hypersphere(3, [1.0, 2.0])
