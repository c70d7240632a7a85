"""Clones and U-turns: statistics of independent continuations against the posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import (
    Diffusion,
    clones,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    u_turns,
)
from diffjax.diffusion import score_model

KEY = jax.random.key(5)
OU = ornstein_uhlenbeck(0.8)
N = 5000


def z_of_pairs(agree, expected):
    """z-score of a fraction of agreeing pairs against a mean over the same states.

    Given the states the agreements are independent with chance ``expected`` each.
    """
    return (agree.mean() - expected.mean()) / np.sqrt(
        (expected * (1 - expected)).mean() / len(agree)
    )


def test_clones_end_in_the_same_class_with_the_posterior_chance():
    # Unequal weights, variances and T, d = 3; classes read off the posterior at t = 0.
    rng = np.random.default_rng(2)
    means = np.array([[1.2, 0.0, -0.5], [-0.8, 0.9, 0.1], [0.1, -1.5, 0.8]])
    data = gaussian_mixture([0.2, 0.5, 0.3], means, 1e-4)  # the class of a sample is visible
    diffusion = Diffusion(data, OU)
    c = rng.choice(3, N, p=[0.2, 0.5, 0.3])
    x = np.exp(-0.9) * means[c] + float(OU.std(0.9)) * rng.normal(size=(N, 3))
    ends, info = clones(KEY, diffusion, x, [0.9, 0.4, 0.0])
    assert ends.shape == (N, 2, 3)
    assert info.method == "exact"
    label = np.argmin(np.linalg.norm(np.asarray(ends)[:, :, None] - means, axis=-1), -1)
    expected = np.exp(2 * np.asarray(diffusion.class_log_posterior(x, 0.9))).sum(-1)
    assert 0.4 < expected.mean() < 0.9
    assert abs(z_of_pairs(label[:, 0] == label[:, 1], expected)) < 4
    # Each clone is a posterior draw, too: class fractions.
    p = np.exp(np.asarray(diffusion.class_log_posterior(x, 0.9)))
    fractions = (label[:, 0, None] == np.arange(3)).mean(0)
    z = (fractions - p.mean(0)) / np.sqrt((p * (1 - p)).mean(0) / N)
    assert np.abs(z).max() < 4


def test_clones_end_on_the_same_training_point_with_chance_y2():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(12, 4)) * 1.3
    diffusion = Diffusion(point_cloud(points), OU)
    x = np.exp(-0.5) * points[rng.integers(0, 12, N)] + float(OU.std(0.5)) * rng.normal(size=(N, 4))
    ends, _ = clones(KEY, diffusion, x, [0.5, 0.2, 0.0], pairs=3)
    assert ends.shape == (N, 3, 4)
    index = np.argmin(np.linalg.norm(np.asarray(ends)[:, :, None] - points, axis=-1), -1)
    squared = ((np.exp(-0.5) * points - x[:, None]) ** 2).sum(-1) / (2 * float(OU.variance(0.5)))
    w = np.exp(-squared)
    w /= w.sum(1, keepdims=True)
    expected = (w**2).sum(1)
    assert 0.3 < expected.mean() < 0.95
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(z_of_pairs(index[:, i] == index[:, j], expected)) < 4


def test_full_dimensional_clones_at_published_parameters():
    # d = 256, mu = sigma = 1, t = 3: phi = .70685 (sheet 01); a trajectory of 4 exact steps.
    d, n, t = 256, 2000, 3.0
    rng = np.random.default_rng(4)
    m = np.ones(d, np.float32)
    data = gaussian_mixture([0.5, 0.5], np.stack([m, -m]), 1.0)
    diffusion = Diffusion(data, ornstein_uhlenbeck())
    sign = rng.choice([-1, 1], n)[:, None]
    x = np.float32(np.exp(-t) * sign * m + rng.normal(size=(n, d)))  # Gamma = 1
    ends, _ = clones(KEY, diffusion, x, [t, 2.0, 1.0, 0.4, 0.0])
    assert ends.dtype == jnp.float32
    # M / sigma = 16: the side is the class.
    side = np.asarray(ends) @ m > 0
    p = 1 / (1 + np.exp(-2 * np.exp(-t) * (x @ m).astype(float)))
    expected = p**2 + (1 - p) ** 2
    assert abs(z_of_pairs(side[:, 0] == side[:, 1], expected)) < 4
    agree = (side[:, 0] == side[:, 1]).mean()
    assert abs(agree - 0.70685) < 4 * np.sqrt(0.70685 * 0.29315 / n)


def test_one_dimensional_sde_clones_at_published_parameters():
    # The exact reduction to y = m.x/M, M = 4, sigma^2 = 2, T = 1, t = 1, by Euler-Maruyama with
    # steps of .01: phi = .87785(160) by simulation, .8774331 by theory.
    def score(y, t):
        gamma = -jnp.expm1(-2 * t) + 2 * jnp.exp(-2 * t)
        decay = jnp.exp(-t)
        return (-y + 4 * decay * jnp.tanh(4 * decay * y / gamma)) / gamma

    n, rng = 20_000, np.random.default_rng(6)
    gamma = -np.expm1(-2.0) + 2 * np.exp(-2.0)
    y = np.exp(-1.0) * 4 * rng.choice([-1, 1], n) + np.sqrt(gamma) * rng.normal(size=n)
    times, process = np.linspace(1.0, 0.0, 101), ornstein_uhlenbeck()
    ends, _ = clones(KEY, score, y[:, None], times, process=process, method="euler_maruyama")
    p = 1 / (1 + np.exp(-2 * 4 * np.asarray(ends)[:, :, 0] / 2))
    agree = (p * p[:, ::-1] + (1 - p) * (1 - p[:, ::-1]))[:, 0]
    error = agree.std() / np.sqrt(n)
    assert abs(agree.mean() - 0.8774331) < 4 * error
    assert abs(agree.mean() - 0.87785) < 4 * np.hypot(error, 0.0016)


def test_clones_differ_and_share_their_state():
    bare = score_model(lambda x, t: -x / 0.8, OU)
    x = jnp.linspace(-1, 1, 6).reshape(2, 3)

    def observe(x, t):
        return x

    times = [0.5, 0.5 - 1e-9, 0.2]
    ends, info = clones(KEY, bare, x, times, pairs=4, method="euler_maruyama", observe=observe)
    assert ends.shape == (2, 4, 3)
    assert info.observed.shape == (2, 2, 4, 3)
    # After a vanishing step all are still the state they branched from; then they part.
    np.testing.assert_allclose(info.observed[0], np.repeat(x[:, None], 4, 1), atol=3e-4)
    assert np.abs(np.diff(np.asarray(ends), axis=1)).min() > 1e-4
    same, _ = clones(KEY, bare, x, times, pairs=4, method="ddim")
    np.testing.assert_allclose(np.diff(np.asarray(same), axis=1), 0, atol=1e-15)
    with pytest.raises(ValueError, match="pairs must be at least 2, but is 1"):
        clones(KEY, bare, x, times, pairs=1)


def u_turn_pairs(diffusion, a, t):
    b, info = u_turns(KEY, diffusion, a, [t, 0.5 * t, 0.0])
    assert info.method == "exact"
    assert b.shape == a.shape
    return np.asarray(a), np.asarray(b)


def test_u_turn_is_exchangeable_with_its_start():
    # Nishimori: (a, b) and (b, a) have one law. Antisymmetric statistics vanish, and the two
    # marginals agree; a wrong temperature or bridge breaks either.
    rng = np.random.default_rng(8)
    weights, centres, variances = np.array([0.3, 0.7]), np.array([-1.5, 1.0]), np.array([0.2, 0.6])
    diffusion = Diffusion(
        gaussian_mixture(weights, centres[:, None], variances), rectified_flow(0.8)
    )
    c = rng.choice(2, 4 * N, p=weights)
    a = (centres[c] + np.sqrt(variances[c]) * rng.normal(size=4 * N))[:, None]
    a, b = u_turn_pairs(diffusion, a, 0.7)
    assert 0.2 < np.corrcoef(a[:, 0], b[:, 0])[0, 1] < 0.95
    for f in (
        lambda a, b: a - b,
        lambda a, b: a**2 - b**2,
        lambda a, b: a * b**2 - b * a**2,
        lambda a, b: np.tanh(3 * a) * b - np.tanh(3 * b) * a,
    ):
        value = f(a, b)
        assert abs(value.mean() / (value.std() / np.sqrt(len(a)))) < 4


def test_u_turn_of_a_training_point_returns_it_with_its_weight():
    # Transition matrix P(mu -> nu) = E w_nu: symmetric, and the chance to return is E w_own.
    rng = np.random.default_rng(9)
    points = rng.normal(size=(5, 2))
    diffusion = Diffusion(point_cloud(points), OU)
    start = rng.integers(0, 5, 4 * N)
    _, b = u_turn_pairs(diffusion, points[start], 0.6)
    end = np.argmin(np.linalg.norm(b[:, None] - points, axis=-1), -1)
    counts = np.zeros((5, 5))
    np.add.at(counts, (start, end), 1)
    gap = (counts - counts.T)[np.triu_indices(5, 1)]
    total = (counts + counts.T)[np.triu_indices(5, 1)]
    assert total.min() > 20
    assert np.abs(gap / np.sqrt(total)).max() < 4
    x = np.exp(-0.6) * points[start] + float(OU.std(0.6)) * rng.normal(size=(4 * N, 2))
    squared = ((np.exp(-0.6) * points - x[:, None]) ** 2).sum(-1) / (2 * float(OU.variance(0.6)))
    w = np.exp(-squared)
    own = (w / w.sum(1, keepdims=True))[np.arange(4 * N), start]
    returned = start == end
    error = np.sqrt((own.var() + returned.var()) / (4 * N))
    assert abs(returned.mean() - own.mean()) < 4 * error


def test_u_turns_of_a_bare_score_need_its_process():
    def score(x, t):
        return -x / 0.8

    x = jnp.zeros((7, 2))
    with pytest.raises(TypeError, match="a bare score function needs process="):
        u_turns(KEY, score, x, [0.5, 0.1])
    y, info = u_turns(KEY, score, x, [0.5, 0.1], process=OU)
    assert info.method == "ancestral"
    assert y.shape == (7, 2)
    # Noise went up: without it zero would stay zero under DDIM.
    down, _ = u_turns(KEY, score, x, [0.5, 0.1], process=OU, method="ddim")
    assert np.abs(np.asarray(down)).min() > 1e-4
