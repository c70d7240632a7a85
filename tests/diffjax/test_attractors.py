"""Attractors of the empirical score: published table, symmetries, basins, recovery, energies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

import diffjax
from diffjax.observables import attractors, energies, recovery

KEY, OTHER = jax.random.split(jax.random.key(3))
PUBLISHED = np.array([
    0.06518273, -3.12981424, 3.11503547, 0.84087573, 0.89291028, 1.37324465, 2.62956445, 1.55886562,
    0.52816237,
])  # fmt: skip
ANGLES = np.random.RandomState(9).uniform(0, 2 * np.pi, 30)


def circle(angles):
    return np.stack([np.cos(angles), np.sin(angles)], -1)


def diffusion(points, process=None):
    return diffjax.Diffusion(diffjax.point_cloud(points), process or diffjax.variance_exploding())


def ou_time(v, temperature=1.0):
    return 0.5 * np.log1p(v / temperature)


NINE, THIRTY = diffusion(circle(ANGLES[:9])), diffusion(circle(ANGLES))
# nine or thirty points in the plane throughout: each number of points is a program of its own
UNEVEN = np.random.default_rng(1).normal(size=(9, 2)) * np.array([1.5, 0.7])
COLD = diffjax.ornstein_uhlenbeck(temperature=0.6)


def test_published_angles():
    turns = np.round((ANGLES[:9] - PUBLISHED) / (2 * np.pi))
    # printed with eight decimals, cut and not rounded
    np.testing.assert_allclose(ANGLES[:9] - 2 * np.pi * turns, PUBLISHED, rtol=0, atol=1e-8)


# Attractors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "v", "stable", "distance"),
    [
        (NINE, 0.25, 2, 0.16361),
        (NINE, 0.05, 3, 0.05976),
        (NINE, 0.01, 6, 0.09268),
        (NINE, 0.001, 7, None),
        (THIRTY, 0.1, 4, 0.07802),
        (THIRTY, 0.01, 11, 0.09139),
    ],
)
def test_published_attractors(model, v, stable, distance):
    found = attractors.attractors(model, ou_time(v))
    kept = attractors.distinct(found)
    assert bool(found.converged.all())
    assert len(kept.points) == stable
    if distance is not None:
        assert float(kept.distance.max()) == pytest.approx(distance, abs=6e-6)
    # they are fixed points of the softmax, lie inside the circle, and are told apart
    patterns = np.asarray(model.data.points)
    y = np.asarray(kept.points)
    logits = -((y[:, None] - patterns) ** 2).sum(-1) / (2 * v)
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(weights @ patterns, y, rtol=0, atol=1e-11)
    assert (np.linalg.norm(y, axis=-1) <= 1 + 1e-15).all()  # 1 where the others have no weight
    gaps = np.linalg.norm(y[:, None] - y, axis=-1) + np.eye(len(y))
    assert gaps.min() > 1e-3
    np.testing.assert_array_equal(kept.pattern, np.argmax(weights, axis=1))
    moments = np.einsum("bn,ni,nj->bij", weights, patterns, patterns)
    covariance = moments - y[:, :, None] * y[:, None, :]
    ratio = np.linalg.eigvalsh(covariance)[:, -1] / v
    # rounding of the moments here, of order one, over v
    np.testing.assert_allclose(kept.ratio, ratio, rtol=1e-8, atol=1e-15 / v)
    assert (ratio < 1).all()


def test_fixed_points_do_not_depend_on_the_process():
    v = 0.3
    by_time = attractors.attractors(diffusion(UNEVEN, COLD), ou_time(v, 0.6))
    plain = attractors.attractors(diffusion(UNEVEN), ou_time(v))
    np.testing.assert_allclose(by_time.points, plain.points, rtol=0, atol=1e-10)
    np.testing.assert_array_equal(by_time.label, plain.label)


def test_unstable_points_and_lost_starts_have_no_label():
    pair = diffusion(np.repeat([[-1.0, 0.0], [1.0, 0.0]], 15, axis=0))
    starts = np.resize([[0.0, 0.0], [0.3, 1.0], [-0.2, 0.0], [0.7, -2.0]], (30, 2))
    found = attractors.attractors(pair, ou_time(0.25), starts)
    # two deltas: m = tanh(m / v), and 0 is unstable for v < 1 with Cov = diag(1, 0)
    np.testing.assert_array_equal(found.label, np.resize([-1, 1, 2, 1], 30))
    np.testing.assert_array_equal(found.stable, np.resize([False, True, True, True], 30))
    assert float(found.ratio[0]) == pytest.approx(4, rel=1e-12)
    m = float(found.points[1, 0])
    assert m == pytest.approx(np.tanh(4 * m), rel=1e-11)
    np.testing.assert_allclose(found.ratio[1:4], 4 * (1 - m**2), rtol=1e-9)
    np.testing.assert_array_equal(attractors.distinct(found).points, found.points[1:3])
    one = attractors.attractors(pair, ou_time(1.5), starts)  # one attractor above v = 1
    np.testing.assert_array_equal(one.label, 0)
    np.testing.assert_allclose(one.points, 0, atol=1e-11)
    given_up = attractors.attractors(pair, ou_time(0.25), starts, max_iterations=3)
    np.testing.assert_array_equal(given_up.label, -1)
    np.testing.assert_array_equal(given_up.converged, np.resize([True, False, False, False], 30))
    assert int(given_up.iterations.max()) == 3


TURNED = attractors.distinct(attractors.attractors(diffusion(UNEVEN), ou_time(0.3)))


@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_rotated_and_permuted_patterns(seed):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    shift, order = rng.normal(size=2), rng.permutation(9)
    moved = diffusion(UNEVEN[order] @ rotation + shift)
    kept = attractors.distinct(attractors.attractors(moved, ou_time(0.3)))
    expected = np.asarray(TURNED.points) @ rotation + shift
    assert len(kept.points) == len(expected)
    gaps = np.linalg.norm(np.asarray(kept.points)[:, None] - expected, axis=-1)
    assert gaps.min(1).max() < 1e-9


def test_every_point_twice_changes_an_energy_by_a_constant():
    v, points = 0.05, circle(ANGLES[:15])
    twice = diffusion(np.repeat(points, 2, axis=0))
    found = attractors.attractors(twice, ou_time(v))
    y = np.asarray(found.points)
    logits = -((y[:, None] - points) ** 2).sum(-1) / (2 * v)
    energy = -2 * v * (logsumexp(logits, axis=1) + np.log(2))
    np.testing.assert_allclose(attractors.energy(twice, y, ou_time(v)), energy, rtol=1e-11)
    # the same fixed points, and copies end together
    weights = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    np.testing.assert_allclose(weights @ points, y, rtol=0, atol=1e-11)
    np.testing.assert_array_equal(found.label[::2], found.label[1::2])


@pytest.mark.slow
def test_energy_gradient_and_hessian():
    v, y = 0.4, jnp.asarray(UNEVEN + 0.2)
    model, t = diffusion(UNEVEN, COLD), ou_time(0.4, 0.6)

    def direct_energy(y):
        return -2 * v * jax.nn.logsumexp(-jnp.sum((y - UNEVEN) ** 2, -1) / (2 * v))

    direct = jax.vmap(direct_energy)(y)
    np.testing.assert_allclose(attractors.energy(model, y, t), direct, rtol=1e-11)
    gradient = attractors.energy_gradient(model, y, t)
    slope = jax.vmap(jax.grad(direct_energy))(y)
    np.testing.assert_allclose(gradient, slope, rtol=1e-9, atol=1e-10)
    # the score of x is e^t times that of y, which is -grad E / 2v
    x = np.exp(-t) * y
    np.testing.assert_allclose(
        model.score(x, t), -np.exp(t) * gradient / (2 * v), rtol=1e-9, atol=1e-10
    )

    # the Hessian of the energy is 2 (1 - Cov / v)
    smallest = np.linalg.eigvalsh(jax.vmap(jax.hessian(direct_energy))(y))[:, 0]
    ratio = attractors.hessian_ratio(model, y.reshape(3, 3, 2), t)
    np.testing.assert_allclose(ratio, 1 - smallest.reshape(3, 3) / 2, rtol=1e-9)


def test_updates_never_raise_the_energy():
    y = jax.random.normal(KEY, (9, 2)) * 2
    model, t = diffusion(UNEVEN, COLD), ou_time(0.4, 0.6)
    before = attractors.energy(model, y, t)
    after = attractors.energy(model, attractors.iterate(model, y, t, 1), t)
    assert bool((after <= before + 1e-12).all())
    assert float(jnp.mean(before - after)) > 0.1


def test_basins_of_two_points():
    # The plane between two points of equal weight is the boundary, at any noise.
    pair = diffusion(np.repeat([[0.5, 0.0], [1.5, 0.0]], 15, axis=0))
    found = attractors.distinct(attractors.attractors(pair, ou_time(0.1)))
    starts = jax.random.normal(KEY, (30, 2)) * np.array([1.3, 0.4]) + np.array([0.6, 0.0])
    side = np.asarray(starts[:, 0] > 1)
    assert side.sum() not in (0, 15, 30)  # an exchange of the two would show
    share = attractors.basins(pair, ou_time(0.1), found, starts)
    np.testing.assert_array_equal(share.label, side.astype(int))
    np.testing.assert_allclose(share.share, [1 - side.mean(), side.mean()], rtol=1e-14)
    np.testing.assert_allclose(share.error, side.std() / np.sqrt(30), rtol=1e-12)
    half = attractors.Attractors(*(values[:1] for values in found))
    lost = attractors.basins(pair, ou_time(0.1), half, starts)
    np.testing.assert_array_equal(lost.label, np.where(side, -1, 0))


@pytest.mark.slow  # a program of its own
def test_single_precision_and_conditioned_clouds():
    labels, v = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1]), 0.2
    cloud = diffjax.point_cloud(UNEVEN.astype(np.float32), labels)
    model = diffjax.Diffusion(cloud.condition(1), diffjax.variance_exploding())
    found = attractors.attractors(model, np.float32(ou_time(v)))
    assert found.points.dtype == jnp.float32
    assert bool(found.converged.all())
    np.testing.assert_array_equal(labels[np.asarray(found.pattern)], 1)
    kept, y = UNEVEN[labels == 1], UNEVEN
    for _ in range(2000):
        logits = -((y[:, None] - kept) ** 2).sum(-1) / (2 * v)
        y = np.exp(logits - logsumexp(logits, axis=1, keepdims=True)) @ kept
    # the last step of 1e-6 times the size, and slow errors of up to 1 / (1 - ratio) steps
    error = 4e-6 / (1 - np.asarray(found.ratio))
    assert (np.linalg.norm(found.points - y, axis=1) < error).all()


# Recovery -----------------------------------------------------------------------------------------


def test_recovery_of_two_points_by_either_way():
    # Noise along the line of two points decides. Exact: E of a logistic; DDIM: the nearer one.
    points, process = np.array([[0.0, 0.3], [0.8, 0.3]]), COLD
    model = diffusion(points, process)
    t = np.array([0.1, 0.3])
    gap = 0.4 / np.sqrt(0.6 * np.expm1(2 * t))  # half the distance in units of the noise
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    logistic = 1 / (1 + np.exp(-2 * gap[:, None] * (gap[:, None] + nodes)))
    exact = logistic @ weights / np.sqrt(2 * np.pi)
    weight = recovery.own_weight(KEY, model, t, 4000)
    z = (weight.mean - exact[:, None]) / weight.error
    assert float(jnp.abs(z).max()) < 4
    for method, expected in (("exact", exact), ("ddim", norm.cdf(gap))):
        found = recovery.recovery(
            KEY, model, points, t, within=0.1, trials=3000, method=method, steps=20
        )
        error = np.sqrt(expected * (1 - expected) / 3000)[:, None]
        assert np.abs((found.mean - expected[:, None]) / error).max() < 4, method
        np.testing.assert_allclose(found.error, np.broadcast_to(error, (2, 2)), rtol=0.15)
    assert (norm.cdf(gap) - exact > 0.02).all()


def test_copies_share_a_weight():
    times = np.array([0.1, 0.3])
    copies = diffusion(np.array([[0.2, 0.3], [0.2, 0.3]]), COLD)
    weight = recovery.own_weight(KEY, copies, times, 4000)
    np.testing.assert_allclose(weight.mean, 1, rtol=1e-12)
    apart = diffusion(np.array([[0.2, 0.3], [0.2, 0.31]]), COLD)
    weight = recovery.own_weight(KEY, apart, times, 4000, within=0.02)
    np.testing.assert_allclose(weight.mean, 1, rtol=1e-12)
    assert float(recovery.own_weight(KEY, apart, times, 4000).mean.max()) < 0.51


def test_recovery_times_and_radii():
    times = np.array([0.1, 0.2, 0.4])
    probability = np.array([[1.0, 0.95, 0.5], [0.9, 0.3, 0.2], [0.3, 0.92, 0.1]])
    found = recovery.recovery_time(times, probability)
    np.testing.assert_array_equal(found, [0.2, 0.4, np.nan])
    radius = recovery.basin_radius(diffusion(UNEVEN, COLD), found)
    expected = np.sqrt(2 * 0.6 * np.expm1(2 * np.array([0.2, 0.4])))
    np.testing.assert_allclose(radius, [*expected, np.nan], rtol=1e-12)


# Energies of a score ------------------------------------------------------------------------------


def test_energy_along_an_arc():
    model, t = diffusion(UNEVEN, COLD), ou_time(0.4, 0.6)
    angles = np.linspace(-0.2 * np.pi, 0.7 * np.pi, 120)
    states = energies.arc(UNEVEN[:2], UNEVEN[1:3], angles)
    first = np.cos(angles[0]) * UNEVEN[0] + np.sin(angles[0]) * UNEVEN[1]
    np.testing.assert_allclose(states[0, 0], first, rtol=1e-13)
    direct = attractors.energy(model, states, t)
    found = energies.arc_energy(model, UNEVEN[:2], UNEVEN[1:3], t, angles)
    assert found.shape == (120, 2)
    np.testing.assert_allclose(found, direct - direct[0], rtol=0, atol=1e-8)


@pytest.mark.slow  # a program of its own
def test_density_by_the_probability_flow():
    model, t = diffusion(UNEVEN, COLD), ou_time(0.4, 0.6)
    y = jax.random.normal(KEY, (300, 2))
    squares = ((y[:, None] - UNEVEN) ** 2).sum(-1)
    direct = logsumexp(-squares / 0.8, axis=1) - np.log(9) - np.log(0.8 * np.pi)
    moments = {"mean": UNEVEN.mean(0), "variance": UNEVEN.var(0), "steps": 60}
    found = energies.flow_log_density(model, y, t, **moments)
    # the Gaussian start neglects correlations, of relative size 1 / v_end = e^-10 / T
    np.testing.assert_allclose(found, direct, rtol=0, atol=2e-4)
    # two probes of each state instead of two axes: right on average
    probed = energies.flow_log_density(model, y, t, **moments, key=OTHER, probes=2) - found
    assert float(probed.std()) > 0.01
    assert abs(float(probed.mean())) < 4 * float(probed.std()) / np.sqrt(300)


# Bad input ----------------------------------------------------------------------------------------


class Mean:
    """A denoiser and nothing else."""

    dim = 3

    def denoise(self, x, scale, std):
        return x / 2


BAD = [
    (lambda: attractors.energy(NINE, np.ones(3), 0.1), r"y has shape \(3,\)"),
    (lambda: attractors.energy(NINE, np.ones(2), 0.0), "t = 0 is singular"),
    (lambda: attractors.attractors(NINE, [0.1, 0.2]), "expected .m, d. and one time"),
    (lambda: attractors.attractors(NINE, 0.1, np.ones(2)), "expected .m, d. and one time"),
    (lambda: attractors.attractors(NINE, 0.1, tolerance=0.0), "tolerance must be positive"),
    (lambda: attractors.attractors(NINE, 0.1, merge_below=-1.0), "merge_below must be positive"),
    (lambda: attractors.attractors(NINE, 0.1, max_iterations=0), "max_iterations must be"),
    (lambda: attractors.attractors(NINE, 0.1, [[np.nan, 1.0]]), "y holds 1 NaN"),
    (lambda: attractors.iterate(NINE, np.ones(2), 0.1, 0), "steps must be"),
    (lambda: recovery.recovery(KEY, NINE, np.ones(2), 0.1, within=1), "patterns and times have"),
    (lambda: recovery.recovery(KEY, NINE, np.ones((1, 3)), 0.1, within=1), "patterns has shape"),
    (lambda: recovery.recovery(KEY, NINE, np.ones((1, 2)), 1e-4, within=1), "above t_min"),
    (lambda: recovery.recovery(KEY, NINE, np.ones((1, 2)), 0.1, within=0), "within must be"),
    (lambda: recovery.recovery(KEY, NINE, np.ones((1, 2)), 0.1, within=1, trials=0), "trials"),
    (lambda: recovery.own_weight(KEY, NINE, 0.0, 5), "t = 0 is singular"),
    (lambda: recovery.own_weight(KEY, NINE, 0.1, 0), "samples must be"),
    (lambda: recovery.recovery_time([0.1, 0.2], [[0.3]]), "expected .T,. and"),
    (lambda: energies.arc_energy(NINE, np.ones(2), np.ones((1, 2)), 0.1, [0, 1]), "two equal"),
    (lambda: energies.arc_energy(NINE, np.ones(2), np.ones(2), 0.1, [0.0]), "A >= 2"),
    (
        lambda: energies.flow_log_density(NINE, np.ones(2), 6.0, mean=0.0, variance=1.0),
        "below t_max",
    ),
    (
        lambda: energies.flow_log_density(NINE, np.ones(2), 0.1, mean=0.0, variance=0.0),
        "variance must be positive",
    ),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_a_bare_denoiser_cannot_do():
    model = diffjax.Diffusion(Mean(), diffjax.variance_exploding())
    for call in (
        lambda: attractors.energy(model, np.ones(3), 0.1),
        lambda: attractors.hessian_ratio(model, np.ones(3), 0.1),
        lambda: recovery.own_weight(KEY, model, 0.1, 5),
    ):
        with pytest.raises(TypeError, match="which Mean does not have"):
            call()
