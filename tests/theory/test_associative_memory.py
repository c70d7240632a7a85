"""Associative memories: reference values, capacities from free energies, the empirical score."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from scipy.optimize import brentq
from scipy.special import ive

from theory import associative_memory as memory
from theory import channel, collapse, cumulants, rem

DIGITS_10 = {"rtol": 0, "atol": 6e-11}
LAWS = {
    "gaussian": cumulants.gaussian(1.0),
    "spherical": cumulants.spherical(),
    "binary": cumulants.binary(),
}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("gaussian", [0.375, 0.5]),
        ("spherical", [0.3870064220, 0.9087540082]),
        ("binary", [0.3798854930, 0.6749972526]),
    ],
)
def test_reference_retrieval(patterns, expected):
    value = memory.retrieval_threshold(np.array([0.5, 2.0]), patterns)
    np.testing.assert_allclose(value, expected, **DIGITS_10)


@pytest.mark.parametrize("patterns", memory.PATTERNS)
def test_retrieval_is_where_the_free_energy_of_the_rest_reaches_the_signal(patterns):
    lam = np.array([0.3, 0.9, 1.6, 4.0])
    alpha = memory.retrieval_threshold(lam, patterns)
    law = LAWS[patterns]
    np.testing.assert_allclose(rem.free_energy(lam, alpha, law), lam, rtol=1e-11)
    assert (rem.free_energy(lam, 1.01 * alpha, law) > lam).all()
    # a planted pattern is seen below the threshold only
    planted = rem.planted_free_energy(lam, 0.99 * alpha, law, -1.0)
    np.testing.assert_allclose(planted, lam, rtol=1e-14)


def test_retrieval_limits():
    np.testing.assert_allclose(memory.retrieval_threshold(60.0, "binary"), np.log(2), rtol=1e-14)
    for patterns in memory.PATTERNS:  # lambda - lambda^2/2 for weak signals
        np.testing.assert_allclose(
            memory.retrieval_threshold(1e-4, patterns), 1e-4 - 5e-9, rtol=1e-8
        )
    # not log(lambda)/2, and it stops
    np.testing.assert_array_equal(
        memory.retrieval_threshold(np.array([1.0, 50.0]), "gaussian"), 0.5
    )


@pytest.mark.parametrize("lam", [0.2, 0.8, 1.0, 3.0])
def test_all_patterns_by_brute_force(lam):
    """Bisection in alpha of the condition for all norms, with the free energy itself."""

    def shortest(alpha):
        return np.exp(brentq(lambda x: (np.expm1(x) - x) / 2 - alpha, -2 - 2 * alpha, 0))

    def margin(alpha):
        largest = np.exp(brentq(lambda x: (np.expm1(x) - x) / 2 - alpha, 0, 3 + 2 * alpha))
        r = np.linspace(shortest(alpha), largest, 400)
        return float(np.min(lam * r - rem.gaussian_free_energy(lam, alpha, r)))

    alpha = brentq(margin, 1e-3, 0.49, xtol=1e-12)
    np.testing.assert_allclose(memory.all_patterns_threshold(lam), alpha, rtol=1e-9)
    assert alpha < memory.retrieval_threshold(lam, "gaussian")


def test_all_patterns_when_the_noise_is_frozen():
    np.testing.assert_allclose(
        memory.all_patterns_threshold(np.array([1.0, 7.0])), 0.5 / np.e, rtol=1e-13
    )
    slope = jax.jit(jax.grad(memory.all_patterns_threshold))(0.4)
    ends = memory.all_patterns_threshold(np.array([0.4001, 0.3999]))
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-4, rtol=1e-6)


@pytest.mark.parametrize("patterns", memory.PATTERNS)
def test_noise_in_the_cue_costs_capacity(patterns):
    lam = np.geomspace(1e-2, 8, 25)
    attraction = memory.attraction_capacity(lam, patterns)
    returns = memory.collapse_capacity(lam, patterns)
    assert (returns < attraction).all()
    assert (np.diff(attraction) > 0).all()
    assert (np.diff(returns) > 0).all()


def test_capacities_are_the_thresholds_of_diffusion():
    """At the times of the traps and of collapse, alpha is the capacity at that noise."""
    alpha, variance = 0.3, 1.0
    onset = channel.snr(collapse.trap_onset_time(alpha, variance))
    np.testing.assert_allclose(memory.attraction_capacity(onset, "gaussian"), alpha, rtol=1e-11)
    back = channel.snr(collapse.gaussian_collapse_time(alpha, 1, variance))
    np.testing.assert_allclose(memory.collapse_capacity(back, "gaussian"), alpha, rtol=1e-11)
    np.testing.assert_array_equal(
        memory.collapse_capacity(back, "spherical"), memory.collapse_capacity(back, "gaussian")
    )
    spins = channel.snr(collapse.spin_collapse_time(alpha))
    np.testing.assert_allclose(memory.collapse_capacity(spins, "binary"), alpha, rtol=1e-10)


def test_memory_without_norm_term_saturates_below_collapse():
    """Its capacity crosses that of collapse at lambda = e - 1."""
    lam = np.e - 1 + np.array([-1e-3, 1e-3])
    gap = memory.retrieval_threshold(lam, "gaussian") - memory.collapse_capacity(lam, "gaussian")
    assert gap[0] > 0 > gap[1]


def test_attraction_of_gaussian_points_from_random_energies():
    """On a stored point of unit norm, squared distances to the others against none to itself."""
    lam = 0.8
    alpha = memory.attraction_capacity(lam, "gaussian")
    law = cumulants.noncentral_chi_square(lam, lam)
    np.testing.assert_allclose(rem.free_energy(1.0, alpha, law), 0, atol=1e-12)


def signs(seed, count, dim):
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(count, dim))


def test_energy_and_the_empirical_score():
    points, t, temperature = signs(1, 40, 12), 0.3, 0.7
    noise = -temperature * np.expm1(-2 * t)
    lam = np.exp(-2 * t) / noise
    states = np.random.default_rng(2).normal(size=(5, 12))

    def log_density(x):
        distance = jnp.sum((x - np.exp(-t) * points) ** 2, axis=-1)
        return logsumexp(-distance / (2 * noise)) - np.log(len(points))

    score = jax.vmap(jax.grad(log_density))(states)
    y = np.exp(t) * states
    force = memory.energy_gradient(y, points, lam)
    np.testing.assert_allclose(score, -np.exp(t) * lam * force, rtol=1e-11, atol=1e-11)
    # the densities differ by a constant
    constant = jax.vmap(log_density)(states) + lam * memory.energy(y, points, lam)
    np.testing.assert_allclose(constant, constant[0], rtol=1e-12)
    # and the denoiser is one step down the energy
    denoised = np.exp(t) * (states + noise * np.asarray(score))
    np.testing.assert_allclose(denoised, y - force, rtol=1e-10, atol=1e-12)
    # points of unequal norms need their norms in the logits
    points[:20] *= 1.5
    unequal = jax.vmap(jax.grad(log_density))(states)
    wrong = -np.exp(t) * lam * memory.energy_gradient(y, points, lam)
    assert np.abs(unequal - wrong).max() > 0.1


def test_gradient_of_the_energy():
    points, y = signs(3, 9, 6), np.random.default_rng(4).normal(size=(2, 3, 6))
    gradient = memory.energy_gradient(y, points, 0.7)
    by_autodiff = jax.grad(lambda y: memory.energy(y, points, 0.7).sum())(jnp.asarray(y))
    np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-12, atol=1e-13)
    direct = 0.5 * (y**2).sum(-1) - np.log(np.exp(0.7 * y @ points.T).sum(-1)) / 0.7
    np.testing.assert_allclose(memory.energy(y, points, 0.7), direct, rtol=1e-13)
    # logits of order N do not overflow, and at large lambda the nearest pattern is all there is
    np.testing.assert_allclose(
        memory.energy_gradient(y, points, 1e5), y - points[np.argmax(y @ points.T, -1)], atol=1e-12
    )
    assert np.isfinite(memory.energy(1e3 * y, points, 1e5)).all()


def test_retrieval_of_stored_signs():
    """32 signs: far below the threshold all of 4 patterns come back, far above none."""
    dim, lam = 32, 0.35
    threshold = float(memory.retrieval_threshold(lam, "binary"))  # 0.29: exp(9.3) patterns

    @jax.jit
    def retrieved(points):
        def step(y, _):
            return y - memory.energy_gradient(y, points, lam), None

        y, _ = jax.lax.scan(step, points[:4], None, length=50)
        overlap = jnp.sum(y * points[:4], -1) / jnp.linalg.norm(y, axis=-1) / np.sqrt(dim)
        return jnp.mean(overlap > 0.9)

    assert 0.28 < threshold < 0.31
    assert retrieved(signs(5, 50, dim)) == 1
    assert retrieved(signs(6, 100_000, dim)) == 0


def test_energy_of_distances_and_its_factors():
    """The score is -B grad E = -grad E / 2v for any norms, and E = 2 E_lambda + r^2 for equal."""
    points, y, v = 0.8 * signs(7, 15, 6), np.random.default_rng(8).normal(size=(4, 6)), 0.6
    B = 1 / (2 * v)

    def log_density(y):
        squares = jnp.sum((y - points) ** 2, axis=-1)
        return logsumexp(-squares / (2 * v)) - np.log(len(points)) - 3 * np.log(2 * np.pi * v)

    score = jax.vmap(jax.grad(log_density))(y)
    gradient = memory.distance_energy_gradient(y, points, B)
    np.testing.assert_allclose(score, -gradient / (2 * v), rtol=1e-12, atol=1e-13)
    by_autodiff = jax.grad(lambda y: memory.distance_energy(y, points, B).sum())(jnp.asarray(y))
    np.testing.assert_allclose(gradient, by_autodiff, rtol=1e-12, atol=1e-13)
    direct = -np.log(np.exp(-B * ((y[:, None] - points) ** 2).sum(-1)).sum(-1)) / B
    np.testing.assert_allclose(memory.distance_energy(y, points, B), direct, rtol=1e-12)
    lam = 1 / v
    np.testing.assert_allclose(direct, 2 * memory.energy(y, points, lam) + 6 * 0.64, rtol=1e-12)
    np.testing.assert_allclose(gradient, 2 * memory.energy_gradient(y, points, lam), rtol=1e-12)
    # unequal norms: only the energy of distances gives the score
    points[:7] *= 1.4
    score = jax.vmap(jax.grad(log_density))(y)
    gradient = memory.distance_energy_gradient(y, points, B)
    np.testing.assert_allclose(score, -B * gradient, rtol=1e-12, atol=1e-13)
    assert np.abs(score + lam * memory.energy_gradient(y, points, lam)).max() > 0.05


def test_reference_circle():
    value = memory.circle_radius(np.array([1.5, 5.0]))
    np.testing.assert_allclose(value, [0.72415872, 0.94554219], rtol=0, atol=6e-9)
    value = memory.circle_least_energy(np.array([2.0, 5.0]))
    np.testing.assert_allclose(value, [0.76489228, 0.40860966], rtol=0, atol=6e-9)


def test_circle_radius_by_another_solver():
    B = np.array([1.0001, 1.01, 1.3, 4.0, 60.0, 1e4])

    def own(b):
        return brentq(lambda r: ive(1, 2 * b * r) / ive(0, 2 * b * r) - r, 1e-4, 1, xtol=1e-15)

    np.testing.assert_allclose(memory.circle_radius(B), [own(b) for b in B], rtol=1e-9)
    # no ring while the noise exceeds the variance 1/2 of the circle
    np.testing.assert_array_equal(memory.circle_radius(np.array([0.2, 1.0])), 0)
    np.testing.assert_allclose(memory.circle_least_energy(np.array([0.2, 1.0])), 1, rtol=1e-15)
    # mean field: R^2 = 2 (B - 1) at the transition; patterns' own circle without noise
    np.testing.assert_allclose(memory.circle_radius(1 + 1e-6) ** 2, 2e-6, rtol=1e-5)
    np.testing.assert_allclose(1 - memory.circle_radius(1e6), 2.5e-7, rtol=1e-5)


def test_circle_energy_is_the_limit_of_many_patterns():
    angles = 2 * np.pi * np.arange(400) / 400
    points = np.stack([np.cos(angles), np.sin(angles)], -1)
    radius, B = np.array([0.0, 0.4, 1.3]), 3.0
    y = radius[:, None] * np.array([np.cos(0.3), np.sin(0.3)])
    energy = memory.distance_energy(y, points, B) + np.log(400) / B
    np.testing.assert_allclose(memory.circle_energy(radius, B), energy, rtol=1e-13)
    best = np.linspace(0.7, 1, 3001)
    energies = memory.circle_energy(best, B)
    assert best[np.argmin(energies)] == pytest.approx(float(memory.circle_radius(B)), abs=1e-4)
    assert float(memory.circle_least_energy(B)) == pytest.approx(float(energies.min()), abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: memory.circle_radius(0.0), "inverse_temperature must be positive"),
        (lambda: memory.circle_least_energy(-1.0), "inverse_temperature must be positive"),
        (lambda: memory.circle_energy(-0.1, 1.0), "radius must be >= 0"),
        (lambda: memory.circle_energy(0.1, np.inf), "inverse_temperature must be positive"),
        (lambda: memory.distance_energy(np.ones(3), np.ones((2, 4)), 1.0), "one row per stored"),
        (lambda: memory.distance_energy(np.ones(3), np.ones((2, 3)), 0.0), "inverse_temperature"),
        (lambda: memory.retrieval_threshold(1.0, "ising"), "'ising'; choose one of gaussian, sph"),
        (lambda: memory.attraction_capacity(1.0, "spins"), "'spins'"),
        (lambda: memory.collapse_capacity(-1.0, "binary"), "lam must be positive"),
        (lambda: memory.all_patterns_threshold(0.0), "lam must be positive"),
        (lambda: memory.energy(np.ones(3), np.ones((2, 4)), 1.0), "one row per stored pattern"),
        (lambda: memory.energy(np.ones(3), np.ones((2, 3)), 0.0), "lam must be positive"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
