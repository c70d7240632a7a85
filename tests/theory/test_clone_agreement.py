"""Clone agreement: reference values, other ways to the same numbers, and Monte Carlo."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import speciation

DIGITS_10 = {"rtol": 0, "atol": 6e-11}
DIGITS_7 = {"rtol": 0, "atol": 6e-8}
DIGITS_5 = {"rtol": 0, "atol": 6e-6}


def test_reference_balanced_classes():
    value = speciation.clone_agreement(np.array([0.25, 0.5, 1.0, 2.0]))
    expected = [0.5294729878, 0.6020271328, 0.7752002454, 0.9657012956]
    np.testing.assert_allclose(value, expected, **DIGITS_10)


@pytest.mark.parametrize(
    ("t", "mean_norm", "variance", "weight", "temperature", "expected", "digits"),
    [
        ([2, 2.5, 3, 3.5, 4], 16.0, 1.0, 0.5, 1.0,
         [0.97701, 0.86211, 0.70685, 0.59637, 0.53969], DIGITS_5),
        ([3.5, 4, 4.5], 64.0, 1.0, 0.5, 1.0, [0.95992, 0.82614, 0.67644], DIGITS_5),
        ([1, 2], 4.0, 2.0, 0.5, 1.0, [0.8774331, 0.6145004], DIGITS_7),
        ([1], 4.0, 2.0, 0.5, 0.5, [0.9407794], DIGITS_7),
        ([1.5], 0.3 * 32, 0.1, 0.5, 1.0, [0.9784761], DIGITS_7),
        ([2], 16.0, 1.0, 0.3, 1.0, [0.9792114], DIGITS_7),
    ],
)  # fmt: skip
def test_reference_mixtures(t, mean_norm, variance, weight, temperature, expected, digits):
    value = speciation.mixture_clone_agreement(
        np.array(t, float), mean_norm, variance, weight, temperature
    )
    np.testing.assert_allclose(value, expected, **digits)


def test_published_clone_simulation():
    """10,000 pairs of trajectories at d = 256, of binomial standard error 0.002 to 0.005."""
    t = np.array([2, 2.5, 3, 3.5, 4])
    theory = speciation.mixture_clone_agreement(t, 16.0, 1.0)
    published = np.array([0.9775, 0.8620, 0.7012, 0.5925, 0.5343])
    z = (published - theory) / np.sqrt(theory * (1 - theory) / 1e4)
    # chi-square of five points stays below 20.5 in 99.9% of cases
    assert np.sum(z**2) < 20.5
    # a wrong theory would not: centres 10% further apart
    wrong = speciation.mixture_clone_agreement(t, 17.6, 1.0)
    z = (published - wrong) / np.sqrt(wrong * (1 - wrong) / 1e4)
    assert np.sum(z**2) > 20.5


def test_reference_reduced_trajectories():
    """40,000 pairs of the one-dimensional process: 0.87785 with standard error 0.0016."""
    theory = speciation.mixture_clone_agreement(1.0, 4.0, 2.0)
    assert abs(0.87785 - theory) < 4 * 0.0016


def test_reference_pure_variance():
    t = 0.25 * np.log(64) + np.array([-0.5, 0.0, 0.5])
    value = speciation.variance_clone_agreement(t, 64, 0.5, 1.5)
    np.testing.assert_allclose(value, [0.7644497, 0.5558808, 0.5083156], **DIGITS_7)


def test_reference_effective_kappa():
    dim = 2000
    diagonal = 0.5 + (np.arange(dim) + 0.5) / dim
    kappa = speciation.effective_kappa(1.6, np.full(dim, 0.24), diagonal, diagonal[::-1])
    agreement = speciation.clone_agreement(kappa)
    np.testing.assert_allclose(agreement, 0.8188, rtol=0, atol=6e-5)
    # asymptotic in the dimension: near the simulated 0.8177 with standard error 0.0011
    assert abs(agreement - 0.8177) < 4 * 0.0011


def test_small_and_large_kappa():
    kappa = np.array([0.0, 1e-3, 1e-2])
    expansion = 0.5 + kappa**2 / 2 * (1 - kappa**2)
    np.testing.assert_allclose(speciation.clone_agreement(kappa), expansion, atol=2e-12)
    np.testing.assert_allclose(speciation.clone_agreement(np.array([12.0, np.inf])), 1, atol=1e-13)
    slope = jax.grad(speciation.clone_agreement)
    np.testing.assert_allclose(slope(0.0), 0.0, atol=1e-14)
    np.testing.assert_allclose(slope(1e-4), 1e-4, rtol=1e-7)


def test_even_in_kappa_and_in_the_name_of_the_class():
    value = speciation.weighted_clone_agreement(np.array([-0.7, 0.7, 0.7]), [0.3, 0.3, 0.7])
    np.testing.assert_allclose(value, value[0], rtol=1e-13)


def test_mixture_limits_in_time():
    late = speciation.mixture_clone_agreement(np.inf, 2.0, 0.4, 0.3)
    np.testing.assert_allclose(late, 0.3**2 + 0.7**2, rtol=1e-13)
    early = speciation.mixture_clone_agreement(0.0, 2.0, 0.4)
    np.testing.assert_allclose(early, speciation.clone_agreement(2 / np.sqrt(0.4)), rtol=1e-13)
    assert speciation.mixture_clone_agreement(0.0, 2.0, 0.0, 0.3) == 1


def test_hundredfold_unequal_weights():
    """Both forms of the agreement, E sum p^2 and E p of the truth, by another rule."""
    weight, kappa = 0.01, 1.3
    z, nodes = np.polynomial.hermite_e.hermegauss(180)
    bias = np.log(weight / (1 - weight))
    first = 1 / (1 + np.exp(-(2 * kappa**2 + 2 * kappa * z + bias)))
    second = 1 / (1 + np.exp(-(2 * kappa**2 + 2 * kappa * z - bias)))
    truth = (weight * first + (1 - weight) * second) @ nodes / nodes.sum()
    value = speciation.weighted_clone_agreement(kappa, weight)
    np.testing.assert_allclose(value, truth, rtol=1e-9)


@pytest.mark.parametrize("weight", [0.5, 0.3, 0.02])
@pytest.mark.parametrize("level", [0.05, 0.5504, 0.99])
def test_crossing_time_is_where_the_curve_crosses(weight, level):
    t = speciation.mixture_crossing_time(6.0, 0.4, weight, 0.6, level)
    agreement = speciation.mixture_clone_agreement(t, 6.0, 0.4, weight, 0.6)
    never = weight**2 + (1 - weight) ** 2
    np.testing.assert_allclose((agreement - never) / (1 - never), level, rtol=1e-11)


def test_default_level_is_kappa_one():
    np.testing.assert_allclose(speciation.kappa_of_agreement(), 1.0, atol=1e-6)
    static = speciation.mixture_static_time(6.0, 0.4)
    np.testing.assert_allclose(speciation.mixture_crossing_time(6.0, 0.4), static, atol=1e-6)
    assert np.isnan(speciation.mixture_crossing_time(0.5, 1.0))


@pytest.mark.parametrize("weight", [0.5, 0.2])
@pytest.mark.parametrize("kappa", [0.3, 1.0, 4.0])
def test_many_classes_reduce_to_two(kappa, weight):
    two = speciation.weighted_clone_agreement(kappa, weight)
    weights = np.array([weight, 1 - weight])
    simplex = speciation.simplex_clone_agreement(kappa, weights)
    orthogonal = speciation.orthogonal_clone_agreement(np.full(2, kappa * np.sqrt(2)), weights)
    np.testing.assert_allclose([simplex, orthogonal], two, rtol=1e-10)


def posterior_agreement(means, weights, count, seed):
    """Monte Carlo of E sum p^2 from the mixture density itself."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(weights), size=count, p=weights)
    x = means[labels] + rng.normal(size=(count, means.shape[1]))
    logs = np.log(weights) - ((x[:, None] - means) ** 2).sum(-1) / 2
    p = np.exp(logs - logs.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    squares = (p**2).sum(1)
    return squares.mean(), squares.std() / np.sqrt(count)


def test_orthogonal_classes_of_different_norms():
    kappas, weights = np.array([1.0, 2.0, 1.5, 0.5]), np.array([0.1, 0.2, 0.3, 0.4])
    mean, error = posterior_agreement(np.diag(kappas), weights, 200_000, 3)
    value = speciation.orthogonal_clone_agreement(kappas, weights)
    assert abs(value - mean) < 4 * error < 3e-3


def test_simplex_classes():
    weights = np.array([0.5, 0.3, 0.2])
    angles = 2 * np.pi * np.arange(3) / 3
    means = 1.4 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mean, error = posterior_agreement(means, weights, 200_000, 4)
    value = speciation.simplex_clone_agreement(1.4, weights)
    assert abs(value - mean) < 4 * error < 4e-3
    np.testing.assert_allclose(
        speciation.simplex_clone_agreement(np.array([0.0, 9.0]), np.full(3, 1 / 3)), [1 / 3, 1],
        atol=1e-9,
    )  # fmt: skip


def test_hierarchy_factorises():
    """The class of a two-level hierarchy has the product of the levels' agreements."""
    t, variance = 0.9, 0.4
    norms = np.array([2.0, 1.2])
    levels = speciation.hierarchy_clone_agreement(t, norms, variance)
    spread = -np.expm1(-2 * t) + variance * np.exp(-2 * t)
    k = norms * np.exp(-t) / np.sqrt(spread)
    means = np.array([[a * k[0], b * k[1]] for a in (1, -1) for b in (1, -1)])
    mean, error = posterior_agreement(means, np.full(4, 0.25), 200_000, 5)
    assert abs(jnp.prod(levels) - mean) < 4 * error


def test_different_covariances_by_monte_carlo():
    """Exact likelihood ratios at d = 400 stay within the 1/sqrt(d) of the Gaussian theory."""
    rng = np.random.default_rng(6)
    dim, t, temperature, count = 400, 1.1, 0.6, 20_000
    a, b = 0.5 + rng.random(dim), 0.5 + rng.random(dim)
    shift = 0.15 * rng.normal(size=dim)
    signal, noise = np.exp(-2 * t), -temperature * np.expm1(-2 * t)
    va, vb = noise + signal * a, noise + signal * b
    x = rng.normal(size=(count, dim)) * np.sqrt(va)
    logit = 0.5 * ((x - np.exp(-t) * shift) ** 2 / vb - x**2 / va + np.log(vb / va)).sum(1)
    agreement = 1 / (1 + np.exp(-logit))  # of the truth, class a
    x = rng.normal(size=(count, dim)) * np.sqrt(vb) + np.exp(-t) * shift
    logit = 0.5 * ((x - np.exp(-t) * shift) ** 2 / vb - x**2 / va + np.log(vb / va)).sum(1)
    other = 1 / (1 + np.exp(logit))
    kappa = speciation.effective_kappa(t, shift, a, b, temperature)
    matrix = speciation.effective_kappa(t, shift, np.diag(a), np.diag(b), temperature)
    np.testing.assert_allclose(matrix, kappa, rtol=1e-12)
    simulated = 0.5 * (agreement.mean() + other.mean())
    assert abs(speciation.clone_agreement(kappa) - simulated) < 0.01


@pytest.mark.parametrize("dim", [1, 7])
def test_pure_variance_by_monte_carlo(dim):
    rng = np.random.default_rng(7)
    t, weight, count = 0.4, 0.3, 400_000
    spreads = -np.expm1(-2 * t) + np.array([0.2, 3.0]) * np.exp(-2 * t)
    labels = (rng.random(count) > weight).astype(int)
    squares = rng.chisquare(dim, count) * spreads[labels]
    logit = np.log(weight / (1 - weight)) - dim / 2 * np.log(spreads[0] / spreads[1])
    p = 1 / (1 + np.exp(-(logit - squares / 2 * (1 / spreads[0] - 1 / spreads[1]))))
    sample = p**2 + (1 - p) ** 2
    value = speciation.variance_clone_agreement(t, dim, 0.2, 3.0, weight)
    assert abs(value - sample.mean()) < 4 * sample.std() / np.sqrt(count)


def test_pure_variance_meets_its_large_time_law():
    """kappa = sqrt(d/2) |difference| exp(-2t) / 2, so the time grows like log(d)/4."""
    dim, t = 1e6, 0.25 * np.log(1e6) + 0.3
    kappa = 0.5 * np.sqrt(dim / 2) * 0.7 * np.exp(-2 * t)
    value = speciation.variance_clone_agreement(t, dim, 0.6, 1.3)
    np.testing.assert_allclose(value, speciation.clone_agreement(kappa), atol=1e-3)
