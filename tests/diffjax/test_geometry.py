"""Spectra of score Jacobians against automatic derivatives, closed forms and invariances."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import (
    Diffusion,
    gaussian_mixture,
    hypersphere,
    ornstein_uhlenbeck,
    point_cloud,
    records,
    variance_exploding,
)
from diffjax.observables import geometry
from diffjax.posterior_spectrum import posterior_covariance_spectrum

KEY = jax.random.key(3)
OU, VE = ornstein_uhlenbeck(0.8), variance_exploding()


def time_of(v):
    """OU time of a variance-exploding noise variance."""
    return 0.5 * np.log1p(np.asarray(v))


def cloud_and_states(seed=0, n=50, dim=6, t=0.3, count=4):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, dim)) * np.linspace(1.4, 0.3, dim) + 0.7
    own = rng.integers(0, n, count)
    x = np.exp(-t) * points[own] + float(OU.std(t)) * rng.normal(size=(count, dim))
    return points, x


def automatic(diffusion, x, t):
    return np.asarray(jax.vmap(lambda y: jax.jacfwd(lambda z: diffusion.score(z, t))(y))(x))


@records.register
@dataclass(frozen=True)
class Linear:
    """A denoiser with a Jacobian that is not symmetric."""

    matrix: jax.Array

    @property
    def dim(self):
        return self.matrix.shape[0]

    def denoise(self, x, scale, std):
        return x @ self.matrix.T


@records.register
@dataclass(frozen=True)
class Only:
    """Another distribution, reduced to its denoiser."""

    data: object

    @property
    def dim(self):
        return self.data.dim

    def denoise(self, x, scale, std):
        return self.data.denoise(x, scale, std)


def posteriors():
    rng = np.random.default_rng(1)
    means, factors = rng.normal(size=(2, 6)), rng.normal(size=(2, 6, 2))
    return {
        "cloud": point_cloud(cloud_and_states()[0]),
        "mixture": gaussian_mixture([0.3, 0.7], means, [0.2, 0.5], factors),
        "sphere": hypersphere(6, 1.9),
    }


@pytest.mark.parametrize(
    "name", ["mixture", "sphere", pytest.param("cloud", marks=pytest.mark.slow)]
)  # the derivative of the streaming sums compiles for long
def test_spectrum_against_automatic_derivatives(name):
    diffusion, t = Diffusion(posteriors()[name], OU), 0.3
    x = jnp.asarray(cloud_and_states()[1])
    found = geometry.score_spectrum(diffusion, x, t)
    want = np.linalg.eigvalsh(automatic(diffusion, x, t))
    np.testing.assert_allclose(found.eigenvalues, want, atol=1e-8)
    np.testing.assert_allclose(found.normalised, -float(OU.variance(t)) * want, atol=1e-9)
    assert np.all(np.diff(found.normalised, axis=-1) <= 0)
    np.testing.assert_array_equal(geometry.jacobian_spectrum(diffusion, x, t), found.eigenvalues)
    np.testing.assert_array_equal(found.asymmetry, 0)
    if name == "mixture":  # the same from the denoiser alone
        network = geometry.score_spectrum(Diffusion(Only(diffusion.data), OU), x, t)
        np.testing.assert_allclose(network.eigenvalues, want, atol=1e-8)
        assert np.max(network.asymmetry) < 1e-9


def test_a_score_that_is_no_gradient_reports_it():
    matrix = jnp.asarray(np.random.default_rng(2).normal(size=(5, 5)) * 0.2)
    diffusion, t = Diffusion(Linear(matrix), OU), 0.4
    jacobian = (np.exp(-t) * np.asarray(matrix) - np.eye(5)) / float(OU.variance(t))
    found = geometry.score_spectrum(diffusion, np.ones(5), t)
    even, odd = jacobian + jacobian.T, jacobian - jacobian.T
    np.testing.assert_allclose(found.eigenvalues, np.linalg.eigvalsh(even / 2), atol=1e-12)
    want = np.linalg.norm(odd) / np.linalg.norm(even)
    assert float(found.asymmetry) == pytest.approx(want, rel=1e-12)
    assert want > 0.05


@pytest.mark.parametrize(("n", "dim"), [(20, 300), (900, 300)])
def test_every_way_to_the_spectrum_in_both_precisions(n, dim):
    """Few points, all points, and the covariance, at noises where each of them is taken."""
    rng = np.random.default_rng(n + dim)
    points = rng.normal(size=(n, dim)) * np.geomspace(2, 0.05, dim) + 3
    v = np.geomspace(1e-4, 1e3, 8)
    x = points[:8] + np.sqrt(v)[:, None] * rng.normal(size=(8, dim))
    logs = -((x[:, None] - points) ** 2).sum(-1) / (2 * v[:, None])
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    rows = points - (weights @ points)[:, None]
    want = np.linalg.eigvalsh(np.einsum("bn,bni,bnj->bij", weights, rows, rows, optimize=True))
    for dtype, tolerance in ((np.float64, 1e-9), (np.float32, 1e-3)):
        blocks = point_cloud(points.astype(dtype)).blocks
        found = posterior_covariance_spectrum(
            blocks, x.astype(dtype), 1.0, np.sqrt(v).astype(dtype)
        )
        assert found.dtype == dtype
        # in units of the noise, of which the state carries a rounded share
        difference = np.abs(found - want[:, ::-1]) / (v[:, None] + want[:, ::-1])
        assert difference.max() < tolerance
    assert (weights.max(1) > 0.999).any()
    assert ((weights > 1e-9).sum(1) > 0.9 * n).any()


def test_gaussian_spectrum_dimension_and_retained_variance():
    variances = np.r_[np.ones(2), np.full(5, 0.09), np.full(23, 1e-4)]
    population = Diffusion(gaussian_mixture([1.0], np.zeros((1, 30)), variances[None]), VE)
    v = np.array([0.3, 1e-3])
    x = np.random.default_rng(0).normal(size=(2, 30))
    found = geometry.score_spectrum(population, x, time_of(v))
    want = v[:, None] / (v[:, None] + variances)
    np.testing.assert_allclose(found.normalised, np.sort(want, -1)[:, ::-1], rtol=1e-9)
    gap = geometry.widest_gap(found.normalised)
    np.testing.assert_array_equal(gap.position, [28, 23])
    np.testing.assert_array_equal(gap.dimension, [2, 7])
    np.testing.assert_allclose(gap.width[0], 0.3 / 0.39 - 0.3 / 1.3)
    np.testing.assert_array_equal(geometry.visible_dimension(found.normalised), [2, 7])
    covariance = geometry.posterior_covariance(population, x, time_of(v))
    rho = geometry.retained_variance(covariance, np.eye(30)[:, 2:7], 0.09, v)
    np.testing.assert_allclose(rho, 1, rtol=1e-9)


def test_control_shares_the_states_and_participation_is_that_of_the_weights():
    points, x = cloud_and_states()
    cloud = Diffusion(point_cloud(points), OU)
    population = Diffusion(posteriors()["mixture"], OU)
    both = geometry.controlled_spectrum(cloud, population, x, 0.3)
    alone = geometry.score_spectrum(population, x, 0.3)
    np.testing.assert_array_equal(both.population.eigenvalues, alone.eigenvalues)
    weights = np.exp(np.asarray(cloud.index_log_weights(x, 0.3)))
    found = geometry.effective_points(cloud, x, 0.3)
    np.testing.assert_allclose(found.participation, (weights**2).sum(-1), rtol=1e-9)
    np.testing.assert_allclose(found.number, 1 / (weights**2).sum(-1), rtol=1e-9)
    assert not found.unresolved.any()
    with pytest.raises(ValueError, match="population has dimension 3"):
        geometry.controlled_spectrum(cloud, Diffusion(hypersphere(3, 1.0), OU), x, 0.3)


@pytest.mark.slow
def test_probes_are_exact_for_a_linear_score_and_lanczos_for_a_full_space():
    variances = np.array([1.3, 0.6, 0.6, 0.2, 0.05])
    mean = np.full((1, 5), 0.7)
    diffusion = Diffusion(gaussian_mixture([1.0], mean, variances[None]), OU)
    x, t = np.linspace(-1, 1, 5), 0.4
    want = np.asarray(geometry.score_spectrum(diffusion, x, t).normalised)
    np.testing.assert_allclose(geometry.probe_spectrum(KEY, diffusion, x, t), want, rtol=1e-9)
    plain = geometry.probe_spectrum(KEY, diffusion, x, t, symmetrised=False)
    assert np.abs(np.asarray(plain) - want).max() > 0.05  # the offset of the score at x
    mixture = Diffusion(posteriors()["mixture"], OU)
    x = cloud_and_states()[1][0]
    want = geometry.score_spectrum(mixture, x, 0.3).normalised
    for model in (mixture, Diffusion(Only(mixture.data), OU)):
        found = geometry.extreme_eigenvalues(KEY, model, x, 0.3, steps=6)
        np.testing.assert_allclose(found, want, atol=1e-8)
    few = geometry.extreme_eigenvalues(KEY, mixture, x, 0.3, steps=4)
    assert few[-1] >= want[-1] - 1e-9  # Ritz values lie inside the spectrum


@given(st.integers(0, 10_000))
def test_invariances(seed):
    """Rotations, permutations and duplicates of all points leave the spectrum as it is."""
    points, x = cloud_and_states(seed, count=2)
    rng = np.random.default_rng(seed + 1)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]

    def spectrum(points, x):
        return geometry.score_spectrum(Diffusion(point_cloud(points), OU), x, 0.3).normalised

    want = spectrum(points, x)
    np.testing.assert_allclose(spectrum(points @ rotation, x @ rotation), want, atol=1e-9)
    np.testing.assert_allclose(spectrum(rng.permutation(points), x), want, atol=1e-10)
    np.testing.assert_allclose(spectrum(np.repeat(points, 2, axis=0), x), want, atol=1e-10)


def test_one_point_has_collapsed_at_every_time():
    cloud = Diffusion(point_cloud(np.ones((1, 4))), OU)
    found = geometry.score_spectrum(cloud, np.zeros(4), 0.5)
    np.testing.assert_array_equal(found.normalised, 1)
    assert float(geometry.effective_points(cloud, np.zeros(4), 0.5).participation) == 1


def test_wrong_arguments_say_what_to_do():
    cloud = Diffusion(posteriors()["cloud"], OU)
    with pytest.raises(ValueError, match="expected one state"):
        geometry.probe_spectrum(KEY, cloud, np.zeros((2, 6)), 0.3)
    with pytest.raises(ValueError, match="steps must be between 1 and 6"):
        geometry.extreme_eigenvalues(KEY, cloud, np.zeros(6), 0.3, steps=9)
    with pytest.raises(ValueError, match="not orthonormal"):
        geometry.retained_variance(np.eye(3), np.ones((3, 2)), 1.0, 0.1)
    with pytest.raises(ValueError, match="t = 0 is singular"):
        geometry.score_spectrum(cloud, np.zeros(6), 0.0)
    with pytest.raises(TypeError, match="effective_points needs an index"):
        geometry.effective_points(Diffusion(hypersphere(3, 1.0), OU), np.zeros(3), 0.3)
