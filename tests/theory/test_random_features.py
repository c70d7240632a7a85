"""Training-time spectra: reference values, closed forms, sampled matrices, real features."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import dblquad

from theory import random_features as features

T, PSI_P, PSI_N = 0.01, 4.0, 2.0
Z = np.array([0.5 - 0.2j, 2 - 0.5j])


# Moments of the activation ------------------------------------------------------------------------


def test_reference_constants():
    found = features.activation_constants(T)
    # tanh; the mean of an odd function is 0
    np.testing.assert_allclose(
        found, [0, 0.60570551, 0.08523318, 0.02554178, 0.00187355], rtol=0, atol=6e-9
    )


def closed_relu(t, variance):
    """Arc-cosine kernel of Cho and Saul."""
    noise = -np.expm1(-2 * t)
    total = np.exp(-2 * t) * variance + noise
    rho = np.exp(-2 * t) * variance / total
    pair = total / (2 * np.pi) * (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho)))
    mean, b = np.sqrt(total / (2 * np.pi)), 0.5 * np.sqrt(noise)
    v_squared = pair - mean**2 - 0.25 * np.exp(-2 * t) * variance
    return [mean, 0.5, b, v_squared, total / 2 - pair - b**2]


@pytest.mark.parametrize(("t", "variance"), [(0.01, 1.0), (0.3, 2.5), (1e-3, 0.6)])
def test_constants_of_a_kink(t, variance):
    found = features.activation_constants(t, variance, activation=jax.nn.relu)
    np.testing.assert_allclose(found, closed_relu(t, variance), rtol=1e-9, atol=1e-13)


def test_constants_of_polynomials_and_a_line():
    # u^3 of variance G: E[S S'] = 9 rho G^3 + 6 rho^3 G^3; slope 3 G.
    t, variance = 0.2, 1.7
    noise, signal = -np.expm1(-2 * t), np.exp(-2 * t) * variance
    total = noise + signal
    v_squared, every = 6 * signal**3, 15 * total**3
    a, b = 3 * total, 3 * total * np.sqrt(noise)
    s_squared = every - v_squared - a**2 * signal - b**2
    found = features.activation_constants(t, variance, activation=lambda u: u**3)
    np.testing.assert_allclose(found, [0, a, b, v_squared, s_squared], rtol=1e-11, atol=1e-12)
    line = features.activation_constants(t, variance, activation=lambda u: 2 * u + 3)
    np.testing.assert_allclose(line, [3, 2, 2 * np.sqrt(noise), 0, 0], rtol=1e-12, atol=1e-13)


def test_constants_against_scipy():
    t, variance = 0.4, 0.7
    decay, spread = np.exp(-t) * np.sqrt(variance), np.sqrt(-np.expm1(-2 * t))

    def average(f):
        def integrand(y, x):
            weight = np.exp(-0.5 * (x * x + y * y)) / (2 * np.pi)
            return weight * f(x, y, 1 / (1 + np.exp(-(decay * x + spread * y))))

        return dblquad(integrand, -8, 8, -8, 8, epsabs=1e-10)[0]

    found = features.activation_constants(t, variance, activation=jax.nn.sigmoid)
    assert float(found.mean) == pytest.approx(average(lambda x, y, s: s), rel=1e-9)
    a = average(lambda x, y, s: s * x) / decay
    assert float(found.a) == pytest.approx(a, rel=1e-8)
    b = average(lambda x, y, s: s * y)
    assert float(found.b) == pytest.approx(b, rel=1e-8)
    total = found.mean**2 + (found.a * decay) ** 2 + found.v_squared + found.b**2 + found.s_squared
    assert float(total) == pytest.approx(average(lambda x, y, s: s * s), rel=1e-9)


# Sampled matrices ---------------------------------------------------------------------------------


def sampled_spectrum(rng, d, psi_p, psi_n, eigenvalues, constants):
    """Eigenvalues of the matrix of the large-d model, from its definition."""
    _, a, b, v_squared, s_squared = (float(c) for c in constants)
    p, n = round(psi_p * d), round(psi_n * d)
    spread = np.sqrt(np.resize(eigenvalues, d))
    weights, points = rng.normal(size=(p, d)), spread[:, None] * rng.normal(size=(d, n))
    g = np.exp(-T) * a * weights @ points / np.sqrt(d)
    g += np.sqrt(v_squared) * rng.normal(size=(p, n))
    matrix = g @ g.T / n + b**2 * weights @ weights.T / d + s_squared * np.eye(p)
    return np.linalg.eigvalsh(matrix)


def extrapolated(sample, z, sizes, repeats):
    """Resolvent traces without their 1/d term, and standard errors of both parts."""
    means, errors = [], []
    for d, count in zip(sizes, repeats):
        traces = [(1 / (sample(d)[:, None] - z)).mean(0) for _ in range(count)]
        means.append(np.mean(traces, 0))
        parts = np.stack([np.real(traces), np.imag(traces)])
        errors.append(parts.std(1, ddof=1) / np.sqrt(count))
    value = 2 * means[1] - means[0]
    return np.stack([value.real, value.imag]), np.hypot(2 * errors[1], errors[0])


def test_reference_transform():
    found = features.stieltjes(Z, T, PSI_P, PSI_N)
    np.testing.assert_allclose(
        found, [-1.250770 - 0.881674j, -0.428707 - 0.224220j], rtol=0, atol=6e-7
    )
    # the matrix is real
    np.testing.assert_allclose(features.stieltjes(Z.conj(), T, PSI_P, PSI_N), found.conj())
    # far from the spectrum it is the resolvent of a point
    far = 1e6 * np.exp(1j * np.array([0.3, 2.0, -1.0]))
    np.testing.assert_allclose(features.stieltjes(far, T, PSI_P, PSI_N), -1 / far, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("eigenvalues", [(1.0,), (0.25, 1.5)], ids=["isotropic", "two levels"])
def test_transform_of_sampled_matrices(eigenvalues):
    # Half-way into each bulk; 3 x 2 z-scores below 4 after the 1/d term is extrapolated away.
    z = np.array([0.5 - 0.2j, 0.04 + 0.03j, 2 - 0.5j])
    variance = np.mean(eigenvalues)
    constants = features.activation_constants(T, variance)
    rng = np.random.default_rng(3)

    def sample(d):
        return sampled_spectrum(rng, d, PSI_P, PSI_N, eigenvalues, constants)

    want, error = extrapolated(sample, z, (40, 80), (60, 30))
    found = np.asarray(features.stieltjes(z, T, PSI_P, PSI_N, eigenvalues))
    scores = (np.stack([found.real, found.imag]) - want) / error
    assert np.abs(scores).max() < 4, scores
    assert (error < 0.02 * np.abs(found)).all()


def cubic_spectrum(rng, d, psi_p, psi_n):
    """Eigenvalues of the features' second moments for u + u^3 / 6, noise averaged exactly.

    Averages of products over two correlated normals are sums over orders of contraction.
    """
    p, n = round(psi_p * d), round(psi_n * d)
    weights, points = rng.normal(size=(p, d)), rng.normal(size=(d, n))
    m = np.exp(-T) * weights @ points / np.sqrt(d)
    noise = -np.expm1(-2 * T) * weights @ weights.T / d
    own = np.diag(noise)[:, None]
    smooth = [m + (m**3 + 3 * m * own) / 6, 1 + (m**2 + own) / 2, m, np.ones_like(m)]
    matrix = sum(noise**k / math.factorial(k) * (s @ s.T / n) for k, s in enumerate(smooth))
    return np.linalg.eigvalsh(matrix)


def test_transform_of_real_features():
    """The matrix (2) has the spectrum of the non-linear features themselves, at large d."""
    psi_p, psi_n = 2.0, 1.5
    z = np.array([2 + 1j, 0.3 + 0.3j])
    rng = np.random.default_rng(4)
    want, error = extrapolated(
        lambda d: cubic_spectrum(rng, d, psi_p, psi_n), z, (40, 80), (40, 20)
    )
    found = np.asarray(features.stieltjes(z, T, psi_p, psi_n, activation=lambda u: u + u**3 / 6))
    found = np.stack([found.real, found.imag])
    # what is left is of order 1/d^2, and 1/d^2 of 80 is 2e-4
    assert np.abs(found - want).max() < 4 * error.max() + 1e-3, (found, want, error)
    # without the non-linear parts the transform is far away
    line = features.activation_constants(T, activation=lambda u: u + u**3 / 6)
    assert float(line.v_squared) > 0.1


# Density, bulks -----------------------------------------------------------------------------------


def test_bulks_hold_the_eigenvalues():
    """Edges and numbers of eigenvalues in every bulk of a sampled matrix."""
    found = features.bulks(T, PSI_P, PSI_N)
    d = 200
    constants = features.activation_constants(T)
    values = sampled_spectrum(np.random.default_rng(5), d, PSI_P, PSI_N, (1.0,), constants)
    least, lower, upper = float(constants.s_squared), found.lower[:3], found.upper[:3]
    counts = [((values > lo) & (values < up)).sum() for lo, up in zip(lower, upper)]
    # p - n - d at the least, then d, n - d and d; one or two eigenvalues stick out of an edge
    np.testing.assert_allclose(counts, [d, d, d], atol=3)
    np.testing.assert_allclose(found.mass[:3], 0.25, rtol=1e-6)
    assert np.isnan(found.lower[3])
    assert (np.abs(values - least) < 1e-9).sum() == d
    # between an edge and the last eigenvalue the density has room for order one of them
    ordered = values[d:].reshape(3, d)
    ends = np.concatenate([ordered[:, 0], ordered[:, -1]])
    edges = np.concatenate([lower, upper])
    angle = (np.arange(40) + 0.5) * np.pi / 80
    x = edges[:, None] + (ends - edges)[:, None] * np.sin(angle) ** 2
    density = np.asarray(features.spectral_density(x, T, PSI_P, PSI_N))
    room = 4 * d * (density * np.sin(2 * angle)).sum(1) * np.abs(ends - edges) * np.pi / 80
    assert (room < 4).all(), room
    assert np.abs(np.log(ends / edges)).max() < 0.1
    # the asymptotic edges are off at these sizes
    assert lower[0] == pytest.approx(0.0019, abs=5e-5)
    assert upper[1] == pytest.approx(0.096, abs=1e-3)


def test_density_of_sampled_matrices():
    """Numbers of eigenvalues below points inside the bulks fluctuate by order one."""
    d = 60
    found = features.bulks(T, PSI_P, PSI_N)
    constants = features.activation_constants(T)
    rng = np.random.default_rng(6)
    values = [sampled_spectrum(rng, d, PSI_P, PSI_N, (1.0,), constants) for _ in range(20)]
    for k, share in ((1, 0.5), (2, 0.2), (2, 0.7)):
        low, point = found.lower[k], found.lower[k] ** (1 - share) * found.upper[k] ** share
        angle = (np.arange(400) + 0.5) * np.pi / 800
        x = low + (point - low) * np.sin(angle) ** 2
        density = np.asarray(features.spectral_density(x, T, PSI_P, PSI_N))
        part = (density * (point - low) * np.sin(2 * angle)).sum() * np.pi / 800
        below = np.array([((v < point) & (v > found.upper[k - 1])).mean() for v in values])
        z = (part - below.mean()) / (below.std(ddof=1) / np.sqrt(20))
        assert abs(z) < 4, (k, share, part, below.mean())


def test_density_outside_is_zero_and_moments_are_right():
    law = (T, 2.0, 3.0)
    found = features.bulks(*law, activation=jnp.arctan)
    gap = 0.5 * (found.upper[:-1] + found.lower[1:])
    outside = np.array([*gap[~np.isnan(gap)], 1.01 * np.nanmax(found.upper)])
    density = features.spectral_density(outside, *law, activation=jnp.arctan)
    np.testing.assert_allclose(density, 0, atol=1e-12)
    # no eigenvalue of positive weight where p < n + d
    assert float(jnp.nansum(found.mass)) == pytest.approx(1, rel=1e-6)
    # Tr U / p from the coefficient of 1/z^2
    constants = features.activation_constants(T, activation=jnp.arctan)
    trace = constants.a**2 * math.exp(-2 * T) + constants.v_squared
    trace += constants.b**2 + constants.s_squared
    z = 1e4j
    q = features.stieltjes(z, *law, activation=jnp.arctan)
    assert float(np.real(-(q + 1 / z) * z**2)) == pytest.approx(float(trace), rel=1e-6)


# Training times -----------------------------------------------------------------------------------


def test_training_times():
    times = features.training_times(T, PSI_P, PSI_N)
    found = features.bulks(T, PSI_P, PSI_N)
    delta = 1 - math.exp(-2 * T)
    assert float(times.generalisation) == pytest.approx(PSI_P / (2 * delta * found.lower[2]))
    assert float(times.memorisation) == pytest.approx(PSI_P / (2 * delta * found.upper[1]))
    assert float(times.end) == pytest.approx(PSI_P / (2 * delta * found.lower[0]))
    time = features.relaxation_time(found.lower[2], T, PSI_P)
    assert float(time) == pytest.approx(float(times.generalisation), rel=1e-12)
    # no gap: fewer features than points and dimensions
    assert np.isnan(features.training_times(T, 0.5, 0.3).generalisation)


def test_gradient_flow_relaxes_as_said():
    """Explicit steps of gradient flow on the loss of a small linear problem."""
    rng = np.random.default_rng(7)
    d, p, n, t = 3, 5, 4, 0.3
    delta = 1 - np.exp(-2 * t)
    phi = rng.normal(size=(p, 4000))  # features of all points and noises, any
    noise = rng.normal(size=(d, 4000))

    def slope(a):
        error = np.sqrt(delta / p) * a @ phi + noise
        return 2 * np.sqrt(delta / p) / (n * d) * error @ phi.T * n / phi.shape[1]

    matrix = phi @ phi.T / phi.shape[1]
    value, vector = np.linalg.eigh(matrix)
    rate = d**2 * (slope(rng.normal(size=(d, p)) * 0 + vector[:, 2]) - slope(np.zeros((d, p))))
    # one row of A along a mode: its decay rate is the inverse relaxation time
    time = features.relaxation_time(value[2], t, p / d)
    np.testing.assert_allclose(rate, np.tile(vector[:, 2] / float(time), (d, 1)), rtol=1e-10)


def test_memorisation_slows_with_the_number_of_points():
    """Where features outnumber points and points dimensions, both times have simple forms."""
    psi_p = 1e6
    times, limits = [], []
    for psi_n in (1e2, 4e2):
        times.append(features.training_times(T, psi_p, psi_n))
        limits.append(features.asymptotic_training_times(T, psi_n))
        # edges of the n eigenvalues, (1 + sqrt(n/p))^2, and of a covariance of psi_n
        spread = (1 + math.sqrt(psi_n / psi_p)) ** 2
        assert float(times[-1].memorisation * spread / limits[-1].memorisation) == pytest.approx(
            1, abs=2.5 / math.sqrt(psi_n)
        )
        least = (1 - 1 / math.sqrt(psi_n)) ** 2
        assert float(times[-1].generalisation * least / limits[-1].generalisation) == pytest.approx(
            1, abs=0.01
        )
    assert float(times[1].memorisation / times[0].memorisation) == pytest.approx(4, rel=0.1)
    assert float(times[1].generalisation / times[0].generalisation) == pytest.approx(1, abs=0.12)


def test_single_precision():
    single = jnp.float32
    found = features.stieltjes(Z.astype(np.complex64), single(T), single(PSI_P), single(PSI_N))
    assert found.dtype == jnp.complex64
    double = features.stieltjes(Z, T, PSI_P, PSI_N)
    np.testing.assert_allclose(found, double, rtol=1e-4)


BAD = [
    (lambda: features.stieltjes(1j, 0.0, 4, 2), "t must be positive"),
    (lambda: features.stieltjes(1j, 0.1, -4, 2), "psi_p=-4"),
    (lambda: features.spectral_density(0.1, 0.1, 4, 0), "psi_n must be positive"),
    (lambda: features.bulks(0.1, 4, 2, [-1.0]), "eigenvalues=-1.0"),
    (lambda: features.bulks(0.1, 4, 2, 1.0), "eigenvalues has shape"),
    (lambda: features.bulks(0.1, [4.0, 5.0], 2), "use vmap"),
    (lambda: features.relaxation_time(0.0, 0.1, 4), "eigenvalue must be positive"),
    (lambda: features.activation_constants(0.1, 0.0), "variance must be positive"),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_numbers_are_refused(place):
    call, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        call()
