"""Linear manifolds: published numbers, closed forms, contract of every public function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import manifold

LOG = np.log


def spectrum(first, second, third=1e-4, dim=30):
    return np.r_[np.ones(first), np.full(second, 0.09), np.full(dim - first - second, third)]


def two(first, second):
    return np.r_[np.ones(first), np.full(second, 0.09)]


def test_collapse_of_a_linear_manifold_at_published_parameters():
    found = manifold.collapse_variance(LOG([500.0, 20000.0]), spectrum(2, 5))
    np.testing.assert_allclose(found, [0.040278133, 0.011916017], atol=5e-10)
    found = manifold.collapse_variance(LOG(1000.0), spectrum(5, 10))
    assert float(found) == pytest.approx(0.171923518, abs=5e-10)
    # zeros do not count: both sizes in one batch
    padded = np.stack(
        [np.pad(two(*dims), (0, 15 - sum(dims))) for dims in ((2, 5), (10, 5), (5, 5))]
    )
    found = manifold.collapse_variance(LOG([1e3, 1e4, 1e2]), padded)
    np.testing.assert_allclose(found, [0.031012, 0.229938, 0.268435], atol=6e-7)
    isotropic = manifold.collapse_variance(LOG(1000.0), np.ones(100))
    assert float(isotropic) == pytest.approx(1 / np.expm1(2 * LOG(1000.0) / 100), rel=1e-12)
    assert float(isotropic) == pytest.approx(6.750, abs=5e-4)


def test_subspaces_alone():
    dims = np.array([2, 5])
    found = manifold.subspace_collapse_variances(LOG(500.0), np.array([1, 0.09]), dims)
    np.testing.assert_allclose(found, [0.002004008, 0.008173463], atol=5e-10)
    found = manifold.subspace_collapse_variances(LOG(1000.0), np.array([1, 0.09]), [10, 5])
    np.testing.assert_allclose(found, [0.335, 0.0061], rtol=0.01)
    full = manifold.collapse_variance(LOG(500.0), np.full(5, 0.09))
    alone = manifold.subspace_collapse_variances(LOG(500.0), 0.09, 5)
    assert float(full) == pytest.approx(float(alone), rel=1e-12)


def test_gaussian_energies_at_published_parameters():
    log_n = LOG(1000.0)
    found = manifold.direction_collapse_variances(log_n, np.array([1, 0.09]), 0.0)
    np.testing.assert_allclose(found, [0.072382414, 0.006514417], atol=5e-10)
    found = np.asarray(manifold.direction_collapse_variances(log_n, spectrum(2, 5)))
    np.testing.assert_allclose(
        found[[0, 3, 10]], [0.310340745, 0.275026919, 0.271753809], atol=5e-10
    )
    # the state of squared norm v along the direction
    quadratic, fourth = found * spectrum(2, 5), np.sum(spectrum(2, 5) ** 2)
    again = manifold.energy_collapse_variance(log_n, quadratic, fourth)
    np.testing.assert_allclose(again, found, rtol=1e-12)
    # isotropic, |x|^2 = d (1 + v): v^2 2 log N = d/2 + d (1 + v)
    v = np.roots([2 * log_n, -100, -150]).max()
    assert v == pytest.approx(8.514, abs=5e-4)
    closed = manifold.energy_collapse_variance(log_n, 100 * (1 + v), 100)
    assert float(closed) == pytest.approx(v, rel=1e-12)


def test_condensed_participation_and_its_finite_size():
    assert float(manifold.energy_participation(0.3, 0.4)) == pytest.approx(0.25)
    assert float(manifold.energy_participation(0.5, 0.4)) == 0
    found = manifold.finite_size_participation(np.array([0.25, 0.5]), LOG(1000.0))
    np.testing.assert_allclose(found, [0.780, 0.583], atol=4 * 0.004)
    assert float(manifold.finite_size_participation(0.5, LOG(1e5))) == pytest.approx(
        0.55, abs=0.005
    )
    rng = np.random.default_rng(0)
    logs = 2 * np.sqrt(2 * LOG(1000.0)) * rng.normal(size=(20_000, 1000))
    weights = np.exp(logs - logs.max(1, keepdims=True))
    y2 = (weights**2).sum(1) / weights.sum(1) ** 2
    assert abs(y2.mean() - float(found[1])) < 4 * y2.std() / np.sqrt(y2.size)


def test_population_spectrum_gap_and_its_best_noise():
    v, s1, s2 = 0.2, 1.7, 0.4
    low, high = np.asarray(manifold.population_spectrum(v, np.array([s1, s2])))
    assert low == pytest.approx(-v * -np.linalg.inv(np.diag([v + s1, v + s2]))[0, 0])
    assert float(manifold.population_gap(v, s1, s2)) == pytest.approx(high - low)
    assert float(manifold.population_gap(v, s1)) == pytest.approx(1 - low)
    best = float(manifold.best_gap_variance(s1, s2))
    grid = np.geomspace(0.01, 10, 20_001)
    assert best == pytest.approx(grid[np.argmax(manifold.population_gap(grid, s1, s2))], rel=1e-3)
    assert abs(float(jax.grad(manifold.population_gap)(best, s1, s2))) < 1e-12


def test_edges_of_a_random_frame():
    edges = np.array(manifold.marchenko_pastur_edges(100 / 2000))
    np.testing.assert_allclose(edges, [0.6028, 1.4972], atol=6e-5)
    frame = np.random.default_rng(1).normal(size=(2000, 100)) / np.sqrt(2000)
    values = np.linalg.eigvalsh(frame.T @ frame)
    # fluctuations of an edge are n^(-2/3): 1 per cent here
    np.testing.assert_allclose(values[[0, -1]], edges, rtol=0.02)
    np.testing.assert_allclose(values[[0, -1]], [0.6012, 1.5145], rtol=0.02)
    scaled = np.array(manifold.marchenko_pastur_edges(100 / 2000, 0.3))
    np.testing.assert_allclose(scaled, 0.3 * edges)


def test_plotted_curve_is_the_population_before_condensation():
    variances, log_n = spectrum(2, 5), LOG(1000.0)
    above = manifold.plotted_singular_values(0.5, log_n, variances)
    np.testing.assert_allclose(above, 1 / (0.5 + variances), rtol=1e-12)
    # below it, by hand: v = .05 is under every v_i, and v_0 = sqrt(tr S^2 / (4 log N))
    v, fourth = 0.05, np.sum(variances**2)
    phi = 2 / v - 1 / np.sqrt(fourth / (4 * log_n))
    phi = phi - 1 / np.asarray(manifold.direction_collapse_variances(log_n, variances))
    strength = np.sum(variances / (v**2 * (v + variances)))
    want = np.sqrt((v + variances) ** -2 + strength**2 * phi**2)
    np.testing.assert_allclose(
        manifold.plotted_singular_values(v, log_n, variances), want, rtol=1e-12
    )
    unit = manifold.plotted_singular_values(0.03, log_n, two(2, 5), 0.0)
    assert float(unit[-1]) == pytest.approx(1 / 0.12)  # only the strong ones have condensed
    assert float(unit[0]) > 1 / 1.03


def test_data_of_unit_norm():
    found = np.asarray(manifold.unit_norm_variances(spectrum(2, 5)))
    assert found[0] == pytest.approx(0.3515, abs=2e-4)
    assert found[2] == pytest.approx(0.0590, abs=6e-5)
    assert 0.5 * (found[0] + found[2]) == pytest.approx(0.2053, abs=6e-5)
    assert found.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(manifold.unit_norm_variances(np.full(4, 0.3)), 0.25, rtol=1e-12)
    # two dimensions: E y_1^2/|y|^2 = s_1/(s_1 + s_2)
    pair = manifold.unit_norm_variances(np.array([1.7, 0.2, 0.0]))
    ratio = np.sqrt([1.7, 0.2, 0.0])
    np.testing.assert_allclose(pair, ratio / ratio.sum(), rtol=1e-12, atol=1e-15)


VARIANCES = np.array([1.3, 0.6, 0.2])
CONTRACT = {
    "population_spectrum": (0.3, VARIANCES),
    "population_gap": (0.3, 1.3, 0.2),
    "best_gap_variance": (1.3, 0.2),
    "marchenko_pastur_edges": (0.3, 1.7),
    "collapse_variance": (3.0, VARIANCES),
    "subspace_collapse_variances": (3.0, VARIANCES, np.array([2.0, 3.0, 5.0])),
    "energy_collapse_variance": (3.0, 0.7, 1.9, 0.8),
    "direction_collapse_variances": (3.0, VARIANCES, 0.8),
    "energy_participation": (0.2, 0.7),
    "finite_size_participation": (0.6, 3.0),
    "plotted_singular_values": (0.1, 3.0, VARIANCES, 0.8),
    "unit_norm_variances": (VARIANCES,),
}


def test_the_contract_covers_every_public_function():
    assert set(CONTRACT) == set(manifold.__all__)


@pytest.mark.parametrize("name", CONTRACT)
def test_jit_vmap_and_derivatives(name):
    function, arguments = getattr(manifold, name), CONTRACT[name]
    sizes = [np.size(a) for a in arguments]
    flat = np.concatenate([np.ravel(a) for a in arguments]).astype(float)

    def call(vector):
        parts = jnp.split(vector, np.cumsum(sizes)[:-1])
        shaped = [p.reshape(np.shape(a)) for p, a in zip(parts, arguments)]
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(function(*shaped))])

    step = 1e-5 * np.maximum(np.abs(flat), 0.1)
    moves = np.concatenate([flat[None], flat + np.diag(step), flat - np.diag(step)])
    batch, jacobian = jax.jit(lambda b, v: (jax.vmap(call)(b), jax.jacrev(call)(v)))(moves, flat)
    eager = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(function(*arguments))])
    np.testing.assert_allclose(batch[0], eager, rtol=1e-11, atol=1e-13)
    slopes = (batch[1 : 1 + flat.size] - batch[1 + flat.size :]) / (2 * step[:, None])
    scale = 1 + np.abs(slopes).max()
    np.testing.assert_allclose(jacobian.T, slopes, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("name", CONTRACT)
def test_single_precision_stays_single(name, strict):
    single = tuple(jnp.asarray(a, jnp.float32) for a in CONTRACT[name])
    for leaf in jax.tree.leaves(jax.eval_shape(getattr(manifold, name), *single)):
        assert leaf.dtype == jnp.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: manifold.population_spectrum(0.0, 1.0), "noise_variance must be positive"),
        (lambda: manifold.population_gap(0.1, -1.0), "larger=-1.0"),
        (lambda: manifold.best_gap_variance(1.0, 0.0), "smaller=0.0"),
        (lambda: manifold.marchenko_pastur_edges(1.5), "ratio=1.5"),
        (lambda: manifold.collapse_variance(0.0, np.ones(3)), "log_n must be positive"),
        (lambda: manifold.collapse_variance(3.0, -np.ones(3)), "variances=-1.0"),
        (lambda: manifold.subspace_collapse_variances(3.0, 1.0, 0), "dims=0"),
        (lambda: manifold.energy_collapse_variance(3.0, -1.0, 1.0), "quadratic=-1.0"),
        (lambda: manifold.direction_collapse_variances(3.0, np.ones(2), -1.0), "gamma=-1.0"),
        (lambda: manifold.energy_participation(0.1, 0.0), "collapse=0.0"),
        (lambda: manifold.finite_size_participation(0.0, 3.0), "ratio=0.0"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
