"""Mean-field Potts spins against enumeration, counts of colours, and the Ising case."""

import itertools
from math import lgamma

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from diffjax import Diffusion, backward, curie_weiss, ornstein_uhlenbeck, potts
from diffjax.data.base import Posterior
from diffjax.data.potts import colour_counts, order_parameter

T = 0.7
OU = ornstein_uhlenbeck(T)
TIMES = np.array([0.15, 0.5, 0.9, 2.0])
SCALE, STD = np.exp(-TIMES), np.sqrt(-T * np.expm1(-2 * TIMES))
N = 20_000


@jax.jit
def answers(data, x, u, scale, std):
    return {
        "log_normaliser": data.log_normaliser(x, scale, std),
        "denoise": data.denoise(x, scale, std),
        "covariance": data.covariance_product(x, scale, std, u),
    }


def enumeration(dim, q, beta, field):
    """All configurations, one-hot, and their log-probabilities."""
    colours = np.array(list(itertools.product(range(q), repeat=dim)))
    states = np.eye(q)[colours].reshape(len(colours), -1)
    counts = states.reshape(-1, dim, q).sum(1)
    log_p = beta * (counts**2).sum(1) / (2 * dim) + counts @ np.asarray(field)
    return states, log_p - np.logaddexp.reduce(log_p)


def noised(states, log_p, seed):
    rng = np.random.default_rng(seed)
    a = states[rng.choice(len(states), len(TIMES), p=np.exp(log_p))]
    x = SCALE[:, None] * a + STD[:, None] * rng.normal(size=a.shape)
    return x, rng.normal(size=a.shape)


def moments(states, log_p, x, u):
    joint = log_p - ((x[:, None] - SCALE[:, None, None] * states) ** 2).sum(-1) / (
        2 * STD[:, None] ** 2
    )
    log_sum = np.logaddexp.reduce(joint, 1)
    w = np.exp(joint - log_sum[:, None])
    mean, overlap = w @ states, u @ states.T
    covariance = (w * overlap) @ states - mean * (w * overlap).sum(1, keepdims=True)
    density = log_sum - 0.5 * x.shape[1] * np.log(2 * np.pi * STD**2)
    return {"log_normaliser": density, "denoise": mean, "covariance": covariance}, w


CASES = {
    "two": (8, 2, 2.5, [0.1, -0.05]), "three": (6, 3, 2.6, [0.1, -0.2, 0.3]),
    "weak": (6, 3, 0.8, [0.0, 0.0, 0.0]), "four": (4, 4, 3.1, [0.0, 0.1, -0.2, 0.05]),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_enumeration(name):
    dim, q, beta, field = CASES[name]
    data = potts(dim, q, beta, field)
    assert isinstance(data, Posterior)
    assert data.dim == dim * q
    states, log_p = enumeration(dim, q, beta, field)
    x, u = noised(states, log_p, 3)
    want, _ = moments(states, log_p, x, u)
    got = answers(data, x, u, SCALE, STD)
    np.testing.assert_allclose(got["log_normaliser"], want["log_normaliser"], rtol=1e-12)
    np.testing.assert_allclose(got["denoise"], want["denoise"], atol=1e-12)
    np.testing.assert_allclose(got["covariance"], want["covariance"], atol=2e-12)


def count_law(dim, q, beta, field=None):
    """Counts ``(K, q)`` of all colours and their probabilities."""
    counts = np.array(
        [c for c in itertools.product(range(dim + 1), repeat=q - 1) if sum(c) <= dim]
    )  # fmt: skip
    counts = np.concatenate([counts, dim - counts.sum(1, keepdims=True)], 1)
    log_p = beta * (counts**2).sum(1) / (2 * dim)
    log_p = log_p - np.vectorize(lgamma)(counts + 1.0).sum(1)
    if field is not None:
        log_p = log_p + counts @ np.asarray(field)
    return counts, np.exp(log_p - np.logaddexp.reduce(log_p))


def assert_law(index, p, expected=20):
    """Chi-square of counts against probabilities; cells below ``expected`` are merged."""
    count = np.bincount(index, minlength=len(p)).astype(float)
    big = len(index) * p >= expected
    count = np.append(count[big], count[~big].sum())
    mean = len(index) * np.append(p[big], p[~big].sum())
    kept = mean > 1
    statistic = (((count - mean) ** 2) / np.where(kept, mean, 1))[kept].sum()
    assert chi2.sf(statistic, kept.sum() - 1) > 1e-4


def cells(a, counts):
    """Row of ``counts`` of each sample."""
    dim, q = counts.max(), counts.shape[1]
    powers = (dim + 1) ** np.arange(q)
    order = np.argsort(counts @ powers)
    found = np.asarray(colour_counts(jnp.asarray(a), q)).round().astype(int) @ powers
    return order[np.searchsorted((counts @ powers)[order], found)]


def test_law_of_samples():
    dim, q, beta, field = 20, 3, 2.8, [0.0, 0.02, -0.02]
    data = potts(dim, q, beta, field)
    a = np.asarray(data.sample(jax.random.key(0), N))
    assert a.shape == (N, dim * q)
    np.testing.assert_array_equal(a.reshape(N, dim, q).sum(-1), 1)
    counts, p = count_law(dim, q, beta, field)
    assert_law(cells(a, counts), p)
    with pytest.raises(AssertionError):
        assert_law(cells(a, counts), count_law(dim, q, beta / 2, field)[1])


def test_law_of_posterior_samples():
    dim, q, beta, field = CASES["three"]
    data = potts(dim, q, beta, field)
    states, log_p = enumeration(dim, q, beta, field)
    x, u = noised(states, log_p, 3)
    _, w = moments(states, log_p, x, u)
    draw = jax.jit(lambda key, x: data.sample_posterior(key, x, SCALE[1], STD[1]))
    draws = np.asarray(draw(jax.random.key(1), jnp.broadcast_to(x[1], (N, dim * q))))
    colours = draws.reshape(N, dim, q).argmax(-1)
    assert_law(colours @ q ** np.arange(dim - 1, -1, -1), w[1])


def test_backward_chain_recovers_the_counts():
    dim, q, beta = 20, 3, 2.8
    diffusion = Diffusion(potts(dim, q, beta), OU)
    x = diffusion.sample(jax.random.key(2), 2.0, 3000)
    a, info = backward(jax.random.key(3), diffusion, x, [2.0, 0.9, 0.3, 0.0])
    assert info.method == "exact"
    counts, p = count_law(dim, q, beta)
    assert_law(cells(np.asarray(a), counts), p)


def test_two_colours_are_ising_spins_of_half_the_coupling():
    # The difference of the two channels of a site is the channel of its sign.
    dim, beta = 12, 2.6
    data, magnet = potts(dim, 2, beta), curie_weiss(dim, beta / 2)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, dim, 2))
    s, std = 0.6, 0.5
    mean = jax.jit(data.denoise)(x.reshape(3, -1), s, std).reshape(3, dim, 2)
    # a = (1 +- sign, 1 -+ sign) / 2, so the tilt of a sign is s (x_1 - x_2) / (2 std^2)
    y = (x[..., 0] - x[..., 1]) / 2
    signs = jax.jit(magnet.denoise)(y, s, std)
    np.testing.assert_allclose(mean[..., 0] - mean[..., 1], signs, atol=1e-12)
    np.testing.assert_allclose(mean.sum(-1), 1, atol=1e-12)


def test_score_is_the_gradient_and_colours_permute():
    dim, q, beta, _ = CASES["three"]
    data = potts(dim, q, beta)
    diffusion = Diffusion(data, OU)
    states, log_p = enumeration(dim, q, beta, np.zeros(q))
    x, u = noised(states, log_p, 4)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(data.log_normaliser(x, SCALE, STD))))(x)
    np.testing.assert_allclose(diffusion.score(x, TIMES), gradient, rtol=1e-9, atol=1e-10)
    mean = answers(data, x, u, SCALE, STD)["denoise"].reshape(-1, dim, q)
    sites = np.random.default_rng(0).permutation(dim)
    moved = x.reshape(-1, dim, q)[:, sites][..., [2, 0, 1]].reshape(x.shape)
    other = answers(data, moved, u, SCALE, STD)["denoise"].reshape(-1, dim, q)
    np.testing.assert_allclose(other, mean[:, sites][..., [2, 0, 1]], atol=1e-12)


def test_observables():
    a = jnp.asarray(np.eye(3)[[0, 0, 1, 2, 0, 0]].reshape(-1))
    np.testing.assert_array_equal(colour_counts(a, 3), [4, 1, 1])
    assert float(order_parameter(a, 3)) == pytest.approx(0.5)
    np.testing.assert_allclose(order_parameter(jnp.tile(jnp.eye(3)[1], (2, 6)), 3), 1)


def test_float32(strict):
    dim, q, beta = 64, 3, 2.8
    wide, narrow = potts(dim, q, beta), potts(dim, q, beta, dtype=jnp.float32)
    x = np.asarray(Diffusion(wide, OU).sample(jax.random.key(0), 1.0, 4))
    x = x.astype(np.float32).astype(np.float64)
    denoise = jax.jit(lambda data, x, scale, std: data.denoise(x, scale, std))
    single = [jnp.asarray(v, jnp.float32) for v in (x, SCALE[2], STD[2])]
    got, want = denoise(narrow, *single), denoise(wide, x, SCALE[2], STD[2])
    assert got.dtype == jnp.float32
    assert np.abs(np.asarray(got, np.float64) - want).max() < 1e-7 * dim


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: potts(0, 3, 1.0), r"dim must be an integer >= 1, but is 0"),
        (lambda: potts(4, 5, 1.0), r"colours must be 2, 3 or 4, but is 5"),
        (lambda: potts(4, 1, 1.0), r"colours must be 2, 3 or 4, but is 1"),
        (lambda: potts(4, 3, -1.0), r"beta must be >= 0"),
        (lambda: potts(4, 3, np.nan), r"beta must be one finite number, but is nan"),
        (lambda: potts(4, 3, 1.0, [0.0, 1.0]), r"field has shape \(2,\), expected \(3,\)"),
        (lambda: potts(4, 3, 1.0, [0.0, 1.0, np.nan]), r"field holds 1 NaN"),
        (lambda: potts(10_000, 4, 3.0), r"more than 262144 points for 4 colours; take a small"),
        (lambda: potts(800, 4, 3.0), r"the grid of v has \d+ points for 4 colours, more than"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
