"""Curie-Weiss spins against enumeration, against counting at larger sizes, and by symmetry."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from diffjax import Diffusion, clones, curie_weiss, curie_weiss_of_pairs
from diffjax import ornstein_uhlenbeck as ou
from diffjax.data.base import Classified, Posterior
from diffjax.observables.speciation import clone_agreement

D, T = 10, 0.7
TIMES = np.array([0.15, 0.5, 0.9, 1.4, 0.05, 2.5])  # one time for each row
OU = ou(T)
rng = np.random.default_rng(7)
STATES = np.array(list(itertools.product([-1.0, 1.0], repeat=D)))
M = STATES.sum(1)
A = STATES[rng.integers(0, len(STATES), len(TIMES))]
SCALE, STD = np.exp(-TIMES), np.sqrt(-T * np.expm1(-2 * TIMES))
X = SCALE[:, None] * A + STD[:, None] * rng.normal(size=A.shape)
U = rng.normal(size=A.shape)
MODELS = [(0.7, 0.11), (1.5, -0.08), (2.5, 0.05), (1.5, 0.0)]


@jax.jit
def answers(data, x, u, scale, std):
    """Compiled for each number of grid points, which neighbouring couplings share."""
    return {
        "log_normaliser": data.log_normaliser(x, scale, std),
        "denoise": data.denoise(x, scale, std),
        "covariance": data.covariance_product(x, scale, std, u),
    }


@jax.jit
def class_log_posterior(data, x, scale, std):
    return data.class_log_posterior(x, scale, std)


def compare(got, density, mean, covariance):
    np.testing.assert_allclose(got["log_normaliser"], density, rtol=1e-12)
    np.testing.assert_allclose(got["denoise"], mean, atol=1e-12)
    np.testing.assert_allclose(got["covariance"], covariance, atol=2e-12)


def moments(log_p, x, u, scale, std):
    """Log-density, mean, covariance product of weighted configurations, by enumeration."""
    joint = log_p - ((x[:, None] - scale[:, None, None] * STATES) ** 2).sum(-1) / (
        2 * std[:, None] ** 2
    )
    log_sum = np.logaddexp.reduce(joint, 1)
    w = np.exp(joint - log_sum[:, None])
    mean, overlap = w @ STATES, u @ STATES.T
    covariance = (w * overlap) @ STATES - mean * (w * overlap).sum(1, keepdims=True)
    return log_sum - 0.5 * D * np.log(2 * np.pi * std**2), mean, covariance, w


def log_law(beta, field):
    log_p = beta * M**2 / (2 * D) + field * M
    return log_p - np.logaddexp.reduce(log_p)


@pytest.mark.parametrize(("beta", "field"), MODELS)
def test_against_enumeration(beta, field):
    data = curie_weiss(D, beta, field)
    log_p = log_law(beta, field)
    density, mean, covariance, w = moments(log_p, X, U, SCALE, STD)
    compare(answers(data, X, U, SCALE, STD), density, mean, covariance)
    compare(answers(data.condition_on_nothing(), X, U, SCALE, STD), density, mean, covariance)
    share = np.stack([0.5 - 0.5 * np.sign(M), 0.5 + 0.5 * np.sign(M)], 1)
    posterior = class_log_posterior(data, X, SCALE, STD)
    np.testing.assert_allclose(np.exp(posterior), w @ share, atol=1e-12)
    np.testing.assert_allclose(data.class_weights, np.exp(log_p) @ share, rtol=1e-12)


@pytest.mark.slow
def test_one_class_alone():
    c = 1
    data = curie_weiss(D, 1.5, -0.08)
    with np.errstate(divide="ignore"):
        log_p = log_law(1.5, -0.08) + np.log(0.5 + (c - 0.5) * np.sign(M))
    log_p -= np.logaddexp.reduce(log_p)
    density, mean, covariance, w = moments(log_p, X, U, SCALE, STD)
    alone = data.condition(c)
    assert isinstance(alone, Posterior)
    compare(answers(alone, X, U, SCALE, STD), density, mean, covariance)
    by_class = jax.jit(data.class_denoise)(X, SCALE, STD)
    np.testing.assert_allclose(by_class[:, c], mean, atol=1e-12)
    p = np.exp(class_log_posterior(data, X, SCALE, STD))
    whole = np.einsum("bc,bcd->bd", p, by_class)
    np.testing.assert_allclose(whole, answers(data, X, U, SCALE, STD)["denoise"], atol=1e-12)
    clean = np.asarray(jax.jit(lambda key: alone.sample(key, N))(jax.random.key(3)))
    assert_law(magnetisations(clean), np.exp(np.asarray(alone.log_law)))
    draws = posterior_draws(alone, jax.random.key(4), X[2], SCALE[2], STD[2])
    assert_law(configurations(draws), w[2])
    with pytest.raises(ValueError, match=r"class 2 does not exist; classes are 0\.\.1"):
        data.condition(2)


def test_pair_convention_doubles_the_coupling():
    got = curie_weiss_of_pairs(D, 0.5, 1.5, -0.8)
    want = curie_weiss(D, 1.5, -0.08)
    np.testing.assert_allclose(got.log_law, want.log_law, rtol=1e-14)
    pairs = 0.5 * 1.5 / D * (STATES[:, :, None] * STATES[:, None]).sum((1, 2)) - 0.8 / D * M
    pairs -= np.logaddexp.reduce(pairs)
    law = [np.logaddexp.reduce(pairs[2 * k - D == M]) for k in range(D + 1)]
    np.testing.assert_allclose(got.log_law, law, rtol=1e-12)


def test_implements_the_protocols():
    data = curie_weiss(5, 1.2)
    assert isinstance(data, Posterior)
    assert isinstance(data, Classified)
    assert (data.dim, data.classes) == (5, 2)


@pytest.mark.parametrize("dim", [1, 2, 17])
def test_small_and_odd_sizes(dim):
    # 17 signs: more than two groups of factors, the last one padded.
    data = curie_weiss(dim, 1.3, 0.2)
    x = np.random.default_rng(dim).normal(size=(2, dim))
    counted = data.condition_on_nothing()
    density, other = (jax.jit(v.log_normaliser)(x, 0.6, 0.5) for v in (data, counted))
    np.testing.assert_allclose(density, other, rtol=1e-12)


def test_field_and_counting_agree_at_larger_size():
    # d = 120: the two methods share nothing but the law of M.
    data = curie_weiss(120, 1.5, 0.01)
    x = Diffusion(data, OU).sample(jax.random.key(2), 1.0, 6)
    channel = float(OU.scale(1.0)), float(OU.std(1.0))
    gradient = jax.jit(jax.value_and_grad(lambda v, x: jnp.sum(v.log_normaliser(x, *channel)), 1))
    (value, slope), (other, its_slope) = (
        gradient(v, x) for v in (data, data.condition_on_nothing())
    )
    np.testing.assert_allclose(other, value, rtol=1e-11)
    np.testing.assert_allclose(its_slope, slope, rtol=1e-9, atol=1e-10)


# Reference values ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dim", "beta", "variance"),
    [(64, 1.5, 45.8175308531), (256, 2.0, 234.3603858209), (256, 1.0, 18.4679401610)],
)
def test_largest_eigenvalue(dim, beta, variance):
    # Lambda = <M^2> / d: of the exact law, of the grid of v, and of samples.
    data = curie_weiss(dim, beta)
    m = 2.0 * np.arange(dim + 1) - dim
    law = np.exp(np.asarray(data.log_law))
    assert law @ m**2 / dim == pytest.approx(variance, abs=1e-9)
    p = np.exp(np.asarray(data.spins.log_probabilities))
    mean = p[:, 1] - p[:, 0]
    within = np.exp(np.asarray(data.spins.log_weights)) @ (1 - mean**2 + dim * mean**2)
    assert within == pytest.approx(variance, abs=1e-9)
    samples = np.asarray(data.sample(jax.random.key(1), 4000)).sum(1) ** 2 / dim
    assert abs(samples.mean() - variance) < 4 * samples.std() / np.sqrt(len(samples))


def test_free_energy():
    # Z from P(all up) = e^{beta d / 2} / Z, beta = 1.5, d = 200.
    log_z = 1.5 * 200 / 2 - float(curie_weiss(200, 1.5).log_law[-1])
    assert log_z / 200 == pytest.approx(0.8130903969, abs=1e-10)


@pytest.mark.parametrize(
    ("shift", "phi", "error"), [(-1, 0.9957, 6e-4), (0, 0.7727, 31e-4), (1, 0.5594, 12e-4)]
)
def test_clone_agreement(shift, phi, error):
    t = 0.5 * np.log(256 * 0.8585596366**2) + shift
    diffusion = Diffusion(curie_weiss(256, 1.5, dtype=jnp.float32), ou())
    found = clone_agreement(jax.random.key(0), diffusion, [np.float32(t)], 1500)
    assert abs(found.mean[0] - phi) < 4 * np.hypot(error, found.error[0])


def test_weights_under_a_total_field():
    data = curie_weiss_of_pairs(256, 0.75, total_field=0.5)
    # w = 1 / (1 + e^{-2 h0 m*}) = .7015747 for large d; the exact one is off by O(1/d).
    assert float(data.class_weights[1]) == pytest.approx(0.7015747, abs=2e-3)


# Samples ------------------------------------------------------------------------------------------

N = 20_000


@jax.jit
def posterior_draws(data, key, x, scale, std):
    return data.sample_posterior(key, jnp.broadcast_to(x, (N, D)), scale, std)


def configurations(a):
    """Row of ``STATES`` of each draw."""
    return (((np.asarray(a) + 1) / 2) @ 2 ** np.arange(D - 1, -1, -1)).astype(int)


def magnetisations(a):
    return ((a.sum(1) + a.shape[1]) / 2).round().astype(int)


def assert_law(index, p, expected=20):
    """Chi-square of counts against probabilities; cells below ``expected`` are merged."""
    count = np.bincount(index, minlength=len(p)).astype(float)
    assert count[p == 0].sum() == 0
    big = len(index) * p >= expected
    count = np.append(count[big], count[~big].sum())
    mean = len(index) * np.append(p[big], p[~big].sum())
    kept = mean > 1
    statistic = (((count - mean) ** 2) / np.where(kept, mean, 1))[kept].sum()
    assert chi2.sf(statistic, kept.sum() - 1) > 1e-4
    assert np.all(np.abs(count - mean)[~kept] < 6)


@pytest.mark.parametrize("row", [0, 3])
def test_law_of_posterior_samples(row):
    data = curie_weiss(D, 1.5, -0.08)
    w = moments(log_law(1.5, -0.08), X, U, SCALE, STD)[3][row]
    key = jax.random.key(row)
    draws = np.asarray(posterior_draws(data, key, X[row], SCALE[row], STD[row]))
    assert set(np.unique(draws)) <= {-1.0, 1.0}
    assert_law(configurations(draws), w)


def test_law_of_clean_samples():
    data = curie_weiss(D, 1.5, -0.08)
    clean = np.asarray(data.sample(jax.random.key(8), N))
    assert_law(configurations(clean), np.exp(log_law(1.5, -0.08)))
    assert_law(magnetisations(clean), np.exp(np.asarray(data.log_law)))


def test_clones_of_a_backward_chain():
    dim, t, n = 41, 1.6, 6000
    diffusion = Diffusion(curie_weiss(dim, 1.4, 0.01), OU)
    x = diffusion.sample(jax.random.key(5), t, n)
    ends, info = clones(jax.random.key(6), diffusion, x, [t, 0.7, 0.3, 0.0])
    assert info.method == "exact"
    # Each end has the law of the data ...
    up = magnetisations(np.asarray(ends)[:, 0])
    assert_law(up, np.exp(np.asarray(diffusion.data.log_law)))
    with pytest.raises(AssertionError):  # beta of the other convention
        assert_law(up, np.exp(np.asarray(curie_weiss(dim, 0.7, 0.01).log_law)))
    # ... and two of them agree in sign with the posterior chance.
    sign = np.sign(np.asarray(ends).sum(-1))
    p = np.exp(np.asarray(diffusion.class_log_posterior(x, t))[:, 1])
    chance = p**2 + (1 - p) ** 2
    z = ((sign[:, 0] == sign[:, 1]) - chance).sum() / np.sqrt((chance * (1 - chance)).sum())
    assert 0.6 < chance.mean() < 0.95
    assert abs(z) < 4


def test_noise_does_not_depend_on_the_batch_size():
    data = curie_weiss(D, 1.5)
    draw = jax.jit(data.sample_posterior)
    some, all_ = (draw(jax.random.key(0), X[:n], 0.6, 0.5) for n in (2, 6))
    np.testing.assert_array_equal(some, all_[:2])


# Laws ---------------------------------------------------------------------------------------------


def test_score_is_the_gradient_and_covariance_its_jacobian():
    data = curie_weiss(D, 1.5, -0.08)
    diffusion = Diffusion(data, OU)
    scale, std = float(OU.scale(0.5)), float(OU.std(0.5))
    value = jax.jit(jax.grad(lambda x: jnp.sum(data.log_normaliser(x, scale, std))))
    np.testing.assert_allclose(diffusion.score(X, 0.5), value(X), rtol=1e-10, atol=1e-11)
    dense = jax.jit(jax.vmap(jax.jacfwd(lambda x: data.denoise(x, scale, std))))(jnp.asarray(X))
    jacobian = (scale * dense - np.eye(D)) / std**2
    np.testing.assert_allclose(diffusion.jacobian(X, 0.5), jacobian, rtol=1e-10, atol=1e-11)


def test_permutation_and_flip():
    order = np.random.default_rng(1).permutation(D)
    data, mirrored = curie_weiss(D, 1.5, -0.08), curie_weiss(D, 1.5, 0.08)
    got = answers(data, X, U, SCALE, STD)
    moved = answers(data, X[:, order], U[:, order], SCALE, STD)
    flipped = answers(mirrored, -X, U, SCALE, STD)
    np.testing.assert_allclose(moved["denoise"], got["denoise"][:, order], atol=1e-13)
    np.testing.assert_allclose(moved["log_normaliser"], got["log_normaliser"], rtol=1e-13)
    np.testing.assert_allclose(flipped["denoise"], -got["denoise"], atol=1e-12)
    np.testing.assert_allclose(flipped["log_normaliser"], got["log_normaliser"], rtol=1e-12)
    even = answers(curie_weiss(D, 1.5), 0 * X, U, SCALE, STD)
    np.testing.assert_allclose(even["denoise"], 0, atol=1e-13)


def test_the_number_of_factors_per_logarithm_does_not_matter():
    data = curie_weiss(D, 1.5, -0.08)
    want = answers(data, X, U, SCALE, STD)["log_normaliser"]
    for group in (1, 3):
        spins = replace(data.spins, group=group)
        np.testing.assert_allclose(spins.log_normaliser(X, SCALE, STD), want, rtol=1e-13)


def test_batch_axes_and_times():
    data = curie_weiss(D, 1.5)
    want = answers(data, X, U, SCALE, STD)["denoise"]
    denoise = jax.jit(data.denoise)
    shaped = denoise(X.reshape(2, 3, D), SCALE.reshape(2, 3), STD.reshape(2, 3))
    np.testing.assert_allclose(shaped.reshape(6, D), want, atol=1e-14)
    np.testing.assert_allclose(denoise(X[2], SCALE[2], STD[2]), want[2], atol=1e-14)
    shape = jax.eval_shape
    wide = shape(data.denoise, X[:, None], SCALE[:, None], np.full((1, 2), 0.5))
    assert wide.shape == (6, 2, D)
    x = X.reshape(2, 3, D)
    assert shape(data.log_normaliser, x, 0.5, 0.5).shape == (2, 3)
    assert shape(data.class_log_posterior, x, 0.5, 0.5).shape == (2, 3, 2)
    assert shape(data.class_denoise, X[0], 0.5, 0.5).shape == (2, D)
    assert shape(data.sample_posterior, jax.random.key(0), x, 0.5, 0.5).shape == (2, 3, D)


def test_no_signal_gives_the_prior():
    data = curie_weiss(D, 1.5, -0.08)
    got = answers(data, X, U, np.zeros(6), np.ones(6))
    np.testing.assert_allclose(got["denoise"], np.full_like(X, np.exp(log_law(1.5, -0.08)) @ M / D))


def test_the_saddle_point_is_wrong_below_speciation():
    # From v = 0.4 Newton finds one of two saddles; the quadrature knows both.
    dim, beta = 64, 1.5
    diffusion = Diffusion(curie_weiss(dim, beta), ou())
    t = 0.5 * np.log(dim * 0.8585596366**2) - 0.3
    x = np.asarray(diffusion.sample(jax.random.key(0), t, 50))
    b, v = np.exp(-t) / -np.expm1(-2 * t), np.full((50, 1), 0.4)
    for _ in range(500):
        v = np.tanh(beta * v + b * x).mean(1, keepdims=True)
    saddle = np.tanh(beta * v + b * x)
    exact = np.asarray(diffusion.denoise(x, t))
    gap = np.abs(saddle - exact).mean(1)
    wrong = np.sum(np.sign(saddle.sum(1)) != np.sign(exact.sum(1)))
    assert wrong > 3
    assert np.max(gap) > 0.5


# Numbers ------------------------------------------------------------------------------------------


def test_float32(strict):
    dim, n = 1024, 8
    wide = curie_weiss(dim, 1.5)
    narrow = curie_weiss(dim, 1.5, dtype=jnp.float32)
    t = 0.5 * np.log(dim) - 0.5
    x = np.asarray(Diffusion(wide, ou()).sample(jax.random.key(0), t, n))
    x = x.astype(np.float32).astype(np.float64)
    channel = np.exp(-t), np.sqrt(-np.expm1(-2 * t))
    single = [jnp.asarray(v, jnp.float32) for v in (x, *channel)]

    @jax.jit
    def found(data, x, scale, std):
        chances = data.class_log_posterior(x, scale, std)
        return data.denoise(x, scale, std), data.log_normaliser(x, scale, std), jnp.exp(chances)

    got, want = found(narrow, *single), found(wide, x, *channel)
    assert all(v.dtype == jnp.float32 for v in got)
    got = [np.asarray(v, np.float64) for v in got]
    # Log-weights are wrong by 1e-7 d; magnetisations by that times their posterior spread.
    assert np.abs(got[0] - want[0]).max() < 1e-7 * dim
    np.testing.assert_allclose(got[1], want[1], rtol=1e-6)
    assert np.abs(got[2] - want[2]).max() < 1e-6 * dim  # counted, without compensation
    key = jax.random.key(1)
    assert jax.eval_shape(narrow.sample_posterior, key, *single).dtype == jnp.float32
    assert jax.eval_shape(lambda: narrow.sample(key, 3)).dtype == jnp.float32


def test_strong_coupling_is_finite_in_float32():
    data = curie_weiss(12, 20.0, dtype=jnp.float32)
    x = np.random.default_rng(0).normal(size=(6, 12)) * 3
    x, scale, std = (jnp.asarray(v, jnp.float32) for v in (x, np.full(6, 0.5), np.full(6, 0.1)))
    for value in answers(data, x, x, scale, std).values():
        assert np.all(np.isfinite(value))
    a = np.asarray(data.sample(jax.random.key(0), 200))
    assert np.all(np.abs(a.sum(1)) == 12)  # all signs equal
    with pytest.raises(ValueError, match=r"overflow in float32: take a weaker coupling"):
        curie_weiss(12, 40.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: curie_weiss(0, 1.0), r"dim must be an integer >= 1, but is 0"),
        (lambda: curie_weiss(2.5, 1.0), r"dim must be an integer >= 1, but is 2.5"),
        (lambda: curie_weiss(4, -0.1), r"beta must be >= 0 \(ferromagnetic\), but is -0.1"),
        (lambda: curie_weiss(4, np.nan), r"beta must be one finite number, but is nan"),
        (lambda: curie_weiss(4, [1.0, 2.0]), r"beta must be one finite number"),
        (lambda: curie_weiss(4, 1.0, np.inf), r"field must be one finite number, but is inf"),
        (lambda: curie_weiss_of_pairs(4, 1.0, np.nan), r"pair_coupling must be one finite"),
        (lambda: curie_weiss_of_pairs(4, 1.0, total_field=np.nan), r"total_field must be one"),
        (lambda: jax.jit(lambda b: curie_weiss(4, b).denoise(X[:, :4], 0.5, 0.5))(1.0),
         r"beta must be a concrete number: it fixes the size of a table"),
        (lambda: Diffusion(curie_weiss(4, 1.0), OU).score(X[:, :4], 0.0), r"t = 0 is singular"),
        (lambda: Diffusion(curie_weiss(4, 1.0), OU).score(X, 0.5), r"x has shape \(6, 10\)"),
    ],
)  # fmt: skip
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
