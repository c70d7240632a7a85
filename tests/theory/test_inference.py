"""Posteriors of transition times against quadrature; chains that mix and chains that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from theory import clone_agreement, collapse, excess_entropy, speciation
from theory.inference import (
    AgreementCounts,
    MeasuredExcess,
    MixturePrior,
    ergodicity,
    rank_of_truth,
    transition_posterior,
)

TIMES = np.array([0.3, 0.7, 1.2, 1.8, 2.5])
LOG_N, DIM, T = np.log(900.0), 40.0, 0.7
PRIOR = MixturePrior((np.log(3.0), 0.5), (np.log(0.6), 0.4))
PAIRS = 80.0


@pytest.fixture(scope="module")
def data():
    """Two data sets with parameters of their own."""
    rng = np.random.default_rng(4)
    norm, variance = np.array([[2.5], [4.0]]), np.array([[0.5], [0.9]])
    phi = clone_agreement.mixture_clone_agreement(TIMES, norm, variance, 0.5, T)
    f = excess_entropy.mixture_excess_entropy(TIMES, LOG_N, DIM, norm, variance, T)
    error = np.full(f.shape, 0.02)
    return (
        AgreementCounts(TIMES, rng.binomial(int(PAIRS), np.asarray(phi)), PAIRS),
        MeasuredExcess(TIMES, np.asarray(f) + error * rng.normal(size=f.shape), error),
    )


@pytest.fixture(scope="module")
def found(data):
    options = {"log_n": LOG_N, "dim": DIM, "prior": PRIOR, "temperature": T}
    return transition_posterior(
        jax.random.key(1), *data, **options, warmup=300, samples=600, chains=2
    )


def by_quadrature(data, row):
    """Mean and spread of both times, on a grid over the two parameters."""
    agreement, excess = data
    x = np.log(3.0) + 0.5 * np.linspace(-4, 4, 161)[:, None]
    y = np.log(0.6) + 0.4 * np.linspace(-4, 4, 161)[None, :]
    norm, variance = np.exp(x + 0 * y), np.exp(y + 0 * x)
    log_p = stats.norm.logpdf(x, np.log(3.0), 0.5) + stats.norm.logpdf(y, np.log(0.6), 0.4)
    for i, t in enumerate(TIMES):
        phi = np.asarray(clone_agreement.mixture_clone_agreement(t, norm, variance, 0.5, T))
        log_p = log_p + stats.binom.logpmf(agreement.agreeing[row, i], PAIRS, phi)
        f = np.asarray(excess_entropy.mixture_excess_entropy(t, LOG_N, DIM, norm, variance, T))
        log_p = log_p + stats.norm.logpdf(excess.mean[row, i], f, excess.error[row, i])
    p = np.exp(log_p - log_p.max())
    p /= p.sum()
    times = (
        np.asarray(speciation.spectral_time(norm**2 + variance, T)),
        np.asarray(collapse.mixture_collapse_time(LOG_N, DIM, norm, variance, T)),
    )
    # corners of the grid without a speciation time have no weight
    assert np.sum(p[np.isnan(times[0])]) < 1e-12
    times = [np.nan_to_num(v) for v in times]
    means = [np.sum(p * v) for v in times]
    return [(m, np.sqrt(np.sum(p * (v - m) ** 2))) for m, v in zip(means, times)]


@pytest.mark.parametrize("row", [0, 1])
def test_posterior_is_that_of_quadrature(found, data, row):
    for name, (mean, spread) in zip(("speciation_time", "collapse_time"), by_quadrature(data, row)):
        draws = np.asarray(getattr(found, name))[row]
        assert draws.shape == (2, 600)
        # 1200 draws of which at least 200 count as independent: four standard errors
        assert abs(draws.mean() - mean) < 4 * spread / np.sqrt(200)
        assert draws.std() == pytest.approx(spread, rel=4 / np.sqrt(400))
    assert found.r_hat.shape == (2,)
    assert np.all(found.r_hat < 1.03)
    assert np.all(found.divergences == 0)


def test_times_are_functions_of_the_parameters(found):
    eigenvalue = found.mean_norm**2 + found.variance
    np.testing.assert_allclose(found.speciation_time, 0.5 * jnp.log(eigenvalue / T), rtol=1e-12)
    f = excess_entropy.mixture_excess_entropy(
        found.collapse_time, LOG_N, DIM, found.mean_norm, found.variance, T
    )
    np.testing.assert_allclose(f, 0, atol=1e-10)


def test_rank_of_truth():
    draws = np.array([[0.1, 0.9, 0.4, 0.7], [3.0, 1.0, 2.0, 4.0]])
    np.testing.assert_array_equal(rank_of_truth(draws, np.array([0.5, 9.0])), [2, 4])
    np.testing.assert_array_equal(rank_of_truth(draws, np.array([0.2, 2.5]), thin=2), [1, 1])
    with pytest.raises(ValueError, match="thin=0"):
        rank_of_truth(draws, 0.5, thin=0)


@pytest.mark.slow
def test_chains_mix_in_one_well_and_not_in_two():
    """A density whose wells are 2 sigma apart (one maximum), and 16 sigma apart."""
    unit = np.array([1.0, 0.0])
    kappa = np.array([1.0, 8.0])

    def log_density(x, t):
        centre = t * jnp.asarray(unit)
        wells = jnp.stack([-0.5 * jnp.sum((x - c) ** 2) for c in (centre, -centre)])
        return jax.nn.logsumexp(wells)

    side = np.array([1.0, -1.0, 1.0, -1.0])
    starts = kappa[:, None, None] * side[None, :, None] * unit
    r_hat, magnetisation = ergodicity(
        jax.random.key(2), log_density, kappa, starts, 3 * unit, warmup=150, samples=300
    )
    assert magnetisation.shape == (2, 4, 300)
    assert r_hat[0] < 1.05
    assert r_hat[1] > 5
    # each chain in a well of unit width around its centre
    np.testing.assert_allclose(np.mean(magnetisation[1], -1), 8 * side, atol=0.5)


def test_bad_input(data):
    options = {"log_n": LOG_N, "dim": DIM}
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="counts of agreeing clones"):
        transition_posterior(key, **options)
    with pytest.raises(ValueError, match="frequencies"):
        transition_posterior(key, AgreementCounts(TIMES, 81.0, PAIRS), **options)
    with pytest.raises(ValueError, match=r"excess\.error must be positive"):
        transition_posterior(key, None, MeasuredExcess(TIMES, 0.1, 0.0), **options)
    with pytest.raises(ValueError, match=r"excess\.mean must be finite"):
        transition_posterior(key, None, MeasuredExcess(TIMES, np.nan, 0.1), **options)
    with pytest.raises(ValueError, match="log_n"):
        transition_posterior(key, *data, log_n=0.0, dim=DIM)
    with pytest.raises(ValueError, match="C >= 2"):
        ergodicity(key, lambda x, t: 0.0, [1.0], np.zeros((1, 1, 3)), np.ones(3))
    with pytest.raises(ValueError, match=r"direction has shape \(2,\)"):
        ergodicity(key, lambda x, t: 0.0, [1.0], np.zeros((1, 2, 3)), np.ones(2))
