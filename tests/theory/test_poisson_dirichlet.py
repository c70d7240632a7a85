"""Poisson-Dirichlet weights: moments of samples, truncation, other constructions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from theory import poisson_dirichlet
from theory.poisson_dirichlet import participation_moment, sample_weights, squared_participation

DRAWS = 4000


@pytest.mark.parametrize("order", [0.15, 0.4, 0.7])
def test_moments_of_samples(key, order):
    weights = np.asarray(sample_weights(key, order, 500, (DRAWS,)))
    assert weights.shape == (DRAWS, 500)
    for power in (1.5, 2.0, 3.5):
        sample = (weights**power).sum(1)
        error = sample.std() / np.sqrt(DRAWS)
        # what 500 terms leave out of the sum of powers, relative to it: < 500^(1 - power/order)
        assert abs(sample.mean() - participation_moment(power, order)) < 4 * error + 1e-3
    squares = (weights**2).sum(1) ** 2
    error = squares.std() / np.sqrt(DRAWS)
    assert abs(squares.mean() - squared_participation(order)) < 4 * error


def test_weights_fall_and_sum_up_to_less_than_one(key):
    weights = sample_weights(key, np.array([0.2, 0.6]), 50, (7, 2))
    assert weights.shape == (7, 2, 50)
    assert (np.diff(weights, axis=-1) <= 0).all()
    assert (weights > 0).all()
    total = weights.sum(-1)
    assert (total <= 1 + 1e-12).all()
    # index 0.6: the terms after the 50th hold some 50^(1 - 1/0.6) = 0.07 of the sum of the others
    assert (total[:, 1] < 1 - 1e-8).all()
    assert sample_weights(key, 0.3, 4).shape == (4,)
    assert sample_weights(key, np.array([0.3, 0.5]), 4).shape == (2, 4)


def test_truncation_is_a_fluctuation():
    """Against the first weights of many terms: the average of the rest is not missing."""
    order, short, long, draws = 0.7, 30, 20_000, 300
    # the stream of waits of a key depends on its shape: take both from one array
    waits = np.random.default_rng(1).exponential(size=(draws, long))
    points = np.cumsum(waits, axis=1) ** (-1 / order)
    tail = order / (1 - order) * points[:, -1:] ** (1 - order)
    exact = points / (points.sum(1, keepdims=True) + tail)
    rest = order / (1 - order) * points[:, short - 1 : short] ** (1 - order)
    cut = points[:, :short] / (points[:, :short].sum(1, keepdims=True) + rest)
    relative = (cut / exact[:, :short])[:, 0] - 1
    # the fluctuation of the sum of the rest over the whole sum
    last = points[:, short - 1] ** -order
    spread = rest[:, 0] * (1 - order) / np.sqrt(order * (2 - order) * last)
    predicted = np.sqrt(np.mean((spread / (points.sum(1) + tail[:, 0])) ** 2))
    np.testing.assert_allclose(relative.std(), predicted, rtol=0.2)
    # cut off without the average of the rest, the weights are too large by far more than that
    plain = points[:, 0] / points[:, :short].sum(1) / exact[:, 0] - 1
    assert plain.mean() > 5 * relative.std()


def test_stick_breaking_gives_the_same_law(key):
    """Sizes in biased order are sticks: the kth break is Beta(1 - m, k m)."""
    order, rng = 0.4, np.random.default_rng(2)
    breaks = rng.beta(1 - order, order * np.arange(1, 200), size=(DRAWS, 199))
    left = np.cumprod(1 - breaks, axis=1)
    sticks = breaks * np.concatenate([np.ones((DRAWS, 1)), left[:, :-1]], axis=1)
    ours = np.asarray(sample_weights(key, order, 200, (DRAWS,)))
    for statistic in (lambda w: w.max(1), lambda w: (w**2).sum(1), lambda w: (w**2).sum(1) ** 2):
        a, b = statistic(sticks), statistic(ours)
        assert abs(a.mean() - b.mean()) < 4 * np.hypot(a.std(), b.std()) / np.sqrt(DRAWS)


def test_closed_forms():
    np.testing.assert_allclose(participation_moment(2, 0.3), 0.7, rtol=1e-13)
    np.testing.assert_allclose(participation_moment(3, 0.3), 0.7 * 1.7 / 2, rtol=1e-13)
    assert participation_moment(3, 1.0) == 0
    assert squared_participation(1.0) == 0
    # nothing but the largest weight is left
    np.testing.assert_allclose(participation_moment(2.5, 1e-9), 1, atol=1e-8)
    np.testing.assert_allclose(squared_participation(1e-9), 1, atol=1e-8)


def test_transformations(key):
    def largest(order):
        return sample_weights(key, order, 40)[0]

    orders = jnp.array([0.4, 0.4001, 0.3999])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(largest)))(orders)
    np.testing.assert_allclose(slopes[0], (values[1] - values[2]) / 2e-4, rtol=1e-5)
    assert slopes[0] < 0
    keys = jnp.stack([key, jax.random.fold_in(key, 1)])
    many = jax.jit(jax.vmap(lambda k: sample_weights(k, 0.4, 40)))(keys)
    np.testing.assert_allclose(many[0, 0], values[0], rtol=1e-12)
    single = jax.jit(lambda m: sample_weights(key, m, 40, (5000,)))(jnp.float32(0.4))
    assert single.dtype == jnp.float32
    assert np.isfinite(single).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((1.0, 10), "order=1.0"), ((0.0, 10), "order=0.0"), ((0.5, 0), "terms=0")],
)
def test_bad_numbers_are_refused(key, arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_weights(key, *arguments)
    with pytest.raises(ValueError, match="power must be above 1"):
        poisson_dirichlet.participation_moment(1.0, 0.5)
