"""Random energies on a tree: brute-force maxima, merged levels, finite trees."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from theory import cumulants, finite_random_energy, grem, rem

SEPARATE = np.array([0.2, 0.5]), np.array([0.9, 0.4])
MERGED = np.array([0.5, 0.2]), np.array([0.4, 0.9])


def brute_force(beta, alphas, variances):
    """Most leaves of most weight: entropies of all partial sums of levels stay positive."""

    def left(x):
        return np.cumsum(alphas - x**2 / (2 * variances))

    def value(x):
        return -(left(x)[-1] + beta * np.sum(x))

    best = minimize(
        value,
        0.1 * np.ones(len(alphas)),
        constraints={"type": "ineq", "fun": left},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 500},
    )
    assert left(best.x).min() > -1e-9  # whatever it found is allowed
    return -best.fun


@pytest.mark.parametrize("levels", [SEPARATE, MERGED], ids=["separate", "merged"])
@pytest.mark.parametrize("beta", [0.4, 0.9, 1.3, 3.0])
def test_two_levels_against_brute_force(levels, beta):
    value = grem.free_energy(beta, *levels)
    np.testing.assert_allclose(value, brute_force(beta, *levels), rtol=1e-7)


def test_many_levels_against_brute_force():
    rng = np.random.default_rng(7)
    blocks = set()
    for _ in range(12):
        alphas, variances = rng.uniform(0.1, 1, 4), rng.uniform(0.1, 1, 4)
        value = grem.free_energy(1.6, alphas, variances)
        np.testing.assert_allclose(value, brute_force(1.6, alphas, variances), rtol=1e-6)
        blocks.add(int(grem.merged_levels(alphas, variances).block[-1]))
    assert len(blocks) > 2  # from all merged to almost none


def test_freezing_of_two_levels():
    alphas, variances = SEPARATE
    merged = grem.merged_levels(*SEPARATE)
    np.testing.assert_allclose(merged.freezing, np.sqrt(2 * alphas / variances), rtol=1e-14)
    np.testing.assert_allclose(merged.variances, variances, rtol=1e-14)
    np.testing.assert_array_equal(merged.block, [0, 1])
    # in the other order the two freeze as one level
    merged = grem.merged_levels(*MERGED)
    np.testing.assert_allclose(merged.freezing, np.sqrt(2 * 0.7 / 1.3), rtol=1e-14)
    np.testing.assert_allclose(merged.variances.sum(), 1.3, rtol=1e-14)
    np.testing.assert_array_equal(merged.block, [0, 0])
    np.testing.assert_array_equal(grem.freezing(*MERGED), merged.freezing)
    beta = np.array([0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        grem.free_energy(beta, *MERGED), rem.gaussian_free_energy(beta, 0.7, 1.3), rtol=1e-13
    )
    # separate levels freeze lower than one level of the same sums: the majorant is larger
    apart = grem.free_energy(beta, *SEPARATE)
    assert (apart <= rem.gaussian_free_energy(beta, 0.7, 1.3) + 1e-14).all()
    assert apart[2] < 0.99 * rem.gaussian_free_energy(2.0, 0.7, 1.3)


def test_majorant_by_its_corners():
    """Slopes of the concave majorant by walking from corner to corner."""
    rng = np.random.default_rng(8)
    for _ in range(20):
        alphas, variances = rng.uniform(0.1, 1, 6), rng.uniform(0.1, 1, 6)
        a, v = np.r_[0, np.cumsum(alphas)], np.r_[0, np.cumsum(variances)]
        slopes, corner = np.zeros(6), 0
        while corner < 6:
            rises = (v[corner + 1 :] - v[corner]) / (a[corner + 1 :] - a[corner])
            step = int(np.argmax(rises))
            slopes[corner : corner + step + 1] = rises[step]
            corner += step + 1
        found = grem.merged_levels(alphas, variances)
        np.testing.assert_allclose(found.freezing, np.sqrt(2 / slopes), rtol=1e-12)
        np.testing.assert_array_equal(
            np.diff(found.block), (np.abs(np.diff(slopes)) > 1e-12).astype(int)
        )


def test_one_level_is_the_random_energy_model():
    beta = np.linspace(0.2, 4, 6)
    value = grem.free_energy(beta, np.array([0.3]), np.array([0.7]))
    np.testing.assert_allclose(
        value, rem.free_energy(beta, 0.3, cumulants.gaussian(0.7)), rtol=1e-13
    )
    # and a level cut into equal parts is the same level
    split = grem.free_energy(beta, np.full(3, 0.1), np.full(3, 0.7 / 3))
    np.testing.assert_allclose(value, split, rtol=1e-13)
    assert grem.merged_levels(np.full(3, 0.1), np.full(3, 0.7 / 3)).block[-1] == 0


@pytest.mark.parametrize("levels", [SEPARATE, MERGED], ids=["separate", "merged"])
def test_finite_trees_approach_the_limit(levels):
    """Exact averages at N = 10, 20, 30: what is left falls like log N / N, and is not small."""
    alphas, variances = levels
    sizes, beta = np.array([10.0, 20.0, 30.0])[:, None], 2.0
    value = finite_random_energy.tree_log_partition(
        beta * np.sqrt(sizes * variances), sizes * alphas
    )
    missing = grem.free_energy(beta, alphas, variances) - value / sizes[:, 0]
    assert (missing > 0).all()
    scaled = missing * sizes[:, 0] / np.log(sizes[:, 0])
    assert np.ptp(scaled) < 0.25 * scaled.mean()


def test_derivatives_and_batches():
    @jax.jit
    @jax.grad
    def gradient(point):
        return grem.free_energy(point[0], point[1:3], point[3:])

    step = 1e-6
    moves = step * np.concatenate([np.eye(5), -np.eye(5)])
    for levels in (SEPARATE, MERGED):
        for beta in (0.4, 1.3):
            point = np.concatenate([[beta], *levels])
            around = point + moves
            values = grem.free_energy(around[:, 0], around[:, 1:3], around[:, 3:])
            slopes = (values[:5] - values[5:]) / (2 * step)
            np.testing.assert_allclose(gradient(point), slopes, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, [0.1], [0.2]), "beta must be positive"),
        ((1.0, [0.1, 0.0], [0.2, 0.3]), "alphas=0.0"),
        ((1.0, [0.1], [-0.2]), "variances=-0.2"),
        ((1.0, [0.1, 0.2], [0.2]), "expected \\(..., L\\)"),
        ((1.0, 0.1, 0.2), "expected \\(..., L\\)"),
    ],
)
def test_bad_numbers_are_refused(arguments, message):
    beta, alphas, variances = arguments
    with pytest.raises(ValueError, match=message):
        grem.free_energy(beta, np.asarray(alphas), np.asarray(variances))
