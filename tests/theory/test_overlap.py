"""Laws of overlaps against scipy's Bessel functions, sampled channels and enumeration."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln, kve

from theory import channel, franz_parisi, overlap

T, DIM, VARIANCE, MEAN = 0.4, 9.0, 0.7, 2.1
Q = np.array([-0.3, -0.1, 0.05, 0.2, 0.4, 0.8])
STEP = 1e-3


def test_gaussian_density_is_that_of_bessel_functions():
    u = float(channel.signal_ratio(T, VARIANCE))
    rho, c, s = u / (1 + u), (1 + 2 * u) / (1 + u) ** 2, DIM * Q
    nu, y = (DIM - 1) / 2, np.abs(s) / c
    want = np.log(DIM) + nu * np.log(np.abs(s)) + rho * s / c + np.log(kve(nu, y)) - y
    want -= nu * np.log(2) + 0.5 * np.log(np.pi * c) + gammaln(DIM / 2)
    found = overlap.gaussian_overlap_log_density(Q, T, DIM, VARIANCE)
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("q", "t", "dim", "variance"),
    [(0.3, 1e-6, 5, 0.4), (1.0, 1e-3, 5, 1e4), (1.0, 1e-3, 1000, 1.0), (-0.01, 1e-2, 40, 1.0)],
)
def test_gaussian_density_is_that_of_bessel_functions_at_little_noise(q, t, dim, variance):
    u = variance / np.expm1(2 * t)
    c, s, nu = (1 + 2 * u) / (1 + u) ** 2, dim * q, (dim - 1) / 2
    tilt = -abs(s) * (1 + u) / (1 + 2 * u if s > 0 else 1)  # (rho s - |s|)/c
    want = np.log(dim) + nu * np.log(abs(s)) + tilt + np.log(kve(nu, abs(s) / c))
    want -= nu * np.log(2) + 0.5 * np.log(np.pi * c) + gammaln(dim / 2)
    found = overlap.gaussian_overlap_log_density(q, t, dim, variance)
    assert float(found) == pytest.approx(want, abs=1e-9)
    single = overlap.gaussian_overlap_log_density(*map(jnp.float32, (q, t, dim, variance)))
    assert float(single) == pytest.approx(want, abs=2e-3)  # order times eps in single precision


def test_gaussian_density_is_smooth_where_the_overlap_is_zero():
    u = float(channel.signal_ratio(T, VARIANCE))
    slope = jax.grad(overlap.gaussian_overlap_log_density)(0.0, T, DIM, VARIANCE)
    assert float(slope) == pytest.approx(DIM * u * (1 + u) / (1 + 2 * u), rel=1e-9)  # rho d/c


def test_inversion_of_the_characteristic_function_gives_the_density():
    edges = np.concatenate([Q - STEP, Q + STEP])
    below = overlap.mixture_overlap_distribution(edges, T, DIM, 0.0, VARIANCE)
    slope = (below[6:] - below[:6]) / (2 * STEP)
    density = np.exp(overlap.gaussian_overlap_log_density(Q, T, DIM, VARIANCE))
    np.testing.assert_allclose(slope, density, rtol=3e-5)  # h^2/6 of the third derivative


def test_annealed_and_quenched_potentials():
    """The rate is the limit of the law, lies below the potential, and both vanish at the peak."""
    d = 1e5
    rate = overlap.gaussian_overlap_rate(Q, T, VARIANCE)
    finite = -overlap.gaussian_overlap_log_density(Q, T, d, VARIANCE) / d
    np.testing.assert_allclose(rate, finite, atol=np.log(d) / d)
    quenched = overlap.gaussian_overlap_potential(Q, T, VARIANCE)
    assert np.all(rate < quenched)
    u = channel.signal_ratio(T, VARIANCE)
    peak = float(u / (1 + u))
    assert float(overlap.gaussian_overlap_rate(peak, T, VARIANCE)) == pytest.approx(0, abs=1e-15)
    curvature = jax.grad(jax.grad(overlap.gaussian_overlap_rate))(peak, T, VARIANCE)
    assert float(curvature) == pytest.approx(1 / (1 + peak**2), rel=1e-10)


def test_quenched_potential_is_that_of_annealed_slices():
    alpha, variance, t = 0.25, 0.4, 0.5
    q = np.array([0.1, 0.3, 0.5])
    lowest = franz_parisi.random_energy_minimum(t, alpha, variance).potential
    slices = franz_parisi.random_energy_potential(q, t, alpha, variance) - lowest
    np.testing.assert_allclose(
        overlap.gaussian_overlap_potential(q, t, variance), slices, rtol=0, atol=1e-12
    )


def sampled_pairs(n, d):
    """Datum and posterior sample of two Gaussians at plus and minus the first axis, in numpy."""
    rng = np.random.default_rng(0)
    decay = np.exp(-T)
    noise = 1 - decay**2
    gamma = noise + decay**2 * VARIANCE
    a = np.sqrt(VARIANCE) * rng.normal(size=(n, d))
    a[:, 0] += rng.choice([-1, 1], n) * MEAN
    x = decay * a + np.sqrt(noise) * rng.normal(size=(n, d))
    up = 1 / (1 + np.exp(-2 * decay * MEAN * x[:, 0] / gamma))
    mean = decay * VARIANCE / gamma * x
    mean[:, 0] += np.where(rng.random(n) < up, 1, -1) * MEAN * noise / gamma
    return a, mean + np.sqrt(VARIANCE * noise / gamma) * rng.normal(size=(n, d))


def test_mixture_law_is_that_of_sampled_pairs():
    n, d = 100_000, 9
    a, b = sampled_pairs(n, d)
    q = np.sum(a * b, axis=1) / (MEAN**2 + d * VARIANCE)
    edges = np.array([-1.0, -0.5, 0.0, 0.5, 0.9, 1.4])
    want = np.asarray(overlap.mixture_overlap_distribution(edges, T, DIM, MEAN, VARIANCE))
    z = (np.mean(q[:, None] < edges, axis=0) - want) / np.sqrt(want * (1 - want) / n)
    assert np.all(np.abs(z) < 4)
    mean = float(overlap.mixture_overlap_mean(T, DIM, MEAN, VARIANCE))
    assert abs(q.mean() - mean) < 4 * q.std() / np.sqrt(n)


def test_mean_of_one_gaussian_is_the_correlation():
    u = float(channel.signal_ratio(T, VARIANCE))
    found = overlap.mixture_overlap_mean(T, DIM, 0.0, VARIANCE)
    assert float(found) == pytest.approx(u / (1 + u), rel=1e-12)


def test_two_spins_by_enumeration():
    """d = 2 on a fine grid of states, without the gauge of the datum."""
    t, beta = 0.6, 1.5
    decay, noise = np.exp(-t), -np.expm1(-2 * t)
    spins = np.array(list(product([-1, 1], repeat=2)))
    prior = np.exp(beta * spins.sum(1) ** 2 / 4)
    prior /= prior.sum()
    axis = np.linspace(-7, 7, 281)
    x = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(-((x[:, None] - decay * spins) ** 2).sum(-1) / (2 * noise))
    joint = prior * density / (2 * np.pi * noise) * (axis[1] - axis[0]) ** 2
    pairs = np.einsum("xa,xb->ab", joint, joint / joint.sum(1, keepdims=True))
    want = [pairs[spins @ spins.T == s].sum() for s in (-2, 0, 2)]
    found = overlap.curie_weiss_overlap_law(t, beta, 2)
    np.testing.assert_allclose(found, want, atol=1e-9)


def test_magnet_below_the_critical_point_has_one_overlap():
    """Independent spins: the overlap is one minus their mmse."""
    same, other = overlap.curie_weiss_overlaps(0.6, 0.5)
    want = 1 - channel.binary_mmse(channel.snr(0.6))
    np.testing.assert_allclose([same, other], want, rtol=1e-10)
    law = overlap.curie_weiss_overlap_law(0.6, 0.0, 2, 81)
    assert float(law @ np.linspace(-1, 1, 3)) == pytest.approx(float(want), abs=1e-10)


def test_slice_is_the_mean_over_points():
    """One point: its Boltzmann factor inside a slice, averaged over many draws in numpy."""
    rng = np.random.default_rng(1)
    d, n = 4, 400_000
    own, x = np.array([0.5, -0.8, 0.3, 1.1]), np.array([0.9, -0.2, 0.1, 0.4])
    points = np.sqrt(VARIANCE) * rng.normal(size=(n, d))
    decay, noise = np.exp(-T), -np.expm1(-2 * T)
    factor = np.exp(-((x - decay * points) ** 2).sum(1) / (2 * noise))
    q = points @ own / (d * VARIANCE)
    for lower, upper in ((-0.3, 0.1), (0.4, 0.7)):
        values = factor * ((q > lower) & (q < upper))
        log_mean = franz_parisi.random_energy_slice(
            lower, upper, T, np.log(2), d, VARIANCE, own @ own, x @ x, own @ x
        )
        error = values.std() / np.sqrt(n)
        assert abs(values.mean() - np.exp(float(log_mean))) < 4 * error


def test_slices_add_up_also_in_the_tails():
    arguments = (T, np.log(50), 30.0, VARIANCE, 20.0, 25.0, 8.0)
    edges = np.array([-5.0, 0.2, 0.9, 1.6, 8.0])
    parts = franz_parisi.random_energy_slice(edges[:-1], edges[1:], *arguments)
    whole = franz_parisi.random_energy_slice(edges[0], edges[-1], *arguments)
    assert float(jax.nn.logsumexp(parts)) == pytest.approx(float(whole), abs=1e-12)
    assert np.all(np.isfinite(parts))


FUNCTIONS = {
    "density": (overlap.gaussian_overlap_log_density, (0.3, T, DIM, VARIANCE)),
    "rate": (overlap.gaussian_overlap_rate, (0.3, T, VARIANCE)),
    "potential": (overlap.gaussian_overlap_potential, (0.3, T, VARIANCE)),
    "distribution": (
        lambda q, *law: overlap.mixture_overlap_distribution(q[None], *law)[..., 0],
        (0.3, T, DIM, MEAN, VARIANCE),
    ),
    "mean": (overlap.mixture_overlap_mean, (T, DIM, MEAN, VARIANCE)),
    "magnet": (overlap.curie_weiss_overlaps, (0.6, 1.5)),
    "law": (partial(overlap.curie_weiss_overlap_law, dim=2, nodes=21), (0.6, 1.5)),
    "slice": (
        franz_parisi.random_energy_slice,
        (0.2, 0.5, T, 3.0, DIM, VARIANCE, 6.0, 5.0, 2.0),
    ),
}


SLOW = set(FUNCTIONS) - {"rate", "potential"}  # to compile


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FUNCTIONS]
)
def test_derivatives_batches_and_dtype(name, strict):
    function, arguments = FUNCTIONS[name]
    vector = np.asarray(arguments)

    def call(v):
        return jnp.concatenate([jnp.ravel(p) for p in jax.tree.leaves(function(*v))])

    step = 1e-5 * np.maximum(np.abs(vector), 0.1)
    moves = np.concatenate([[0 * vector], np.diag(step), -np.diag(step)])
    together = jax.jit(lambda v, batch: (jax.vmap(call)(batch), jax.jacrev(call)(v)))
    batch, slope = map(np.asarray, together(vector, vector + moves))
    k = vector.size
    numeric = (batch[1 : 1 + k] - batch[1 + k :]) / (2 * step[:, None])
    np.testing.assert_allclose(slope.T, numeric, atol=1e-6 * (1 + np.abs(numeric).max()))
    np.testing.assert_allclose(batch[0], call(vector), rtol=1e-11)
    single = jax.eval_shape(function, *(jnp.asarray(a, jnp.float32) for a in arguments))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(single))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (overlap.gaussian_overlap_rate, (0.3, 0.0, 0.4), "t must be positive"),
        (overlap.gaussian_overlap_log_density, (0.3, 0.5, 0, 0.4), "dim=0"),
        (overlap.mixture_overlap_mean, (0.5, 4, -1.0, 0.4), "mean_norm=-1"),
        (overlap.curie_weiss_overlap_law, (0.5, 1.5, 9), "dim=9"),
        (overlap.curie_weiss_overlap_law, (0.5, 1.5, 2, 1), "nodes must be >= 3"),
        (franz_parisi.random_energy_slice, (1, 0, 0.5, 2, 4, 0.4, 1, 1, 1), "upper - lower"),
        (franz_parisi.random_energy_slice, (0, 1, 0.5, 2, 4, 0.4, 0.0, 1, 1), "own_square=0"),
    ],
)
def test_bad_numbers_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
