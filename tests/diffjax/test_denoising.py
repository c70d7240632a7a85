"""Denoising losses: closed forms, independence of batches, train and held-out, bad input."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import (
    Diffusion,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    records,
    variance_exploding,
)
from diffjax.diffusion import score_model
from diffjax.observables.denoising import class_denoising_loss, denoising_gap, denoising_loss

KEY = jax.random.key(5)
OU = ornstein_uhlenbeck(0.6)
TIMES = np.array([0.1, 0.5, 1.5])


@records.register
@dataclass(frozen=True)
class Shrink:
    """A denoiser that only knows how to multiply."""

    factor: jax.Array
    dim: int = 3

    def denoise(self, x, scale, std):
        return self.factor * x


POINTS = np.random.default_rng(0).normal(size=(50, 3)) * 1.3


def test_loss_of_a_linear_denoiser():
    # E|a - f x|^2 = (1 - f s)^2 |a|^2 + d f^2 std^2, for any f and any points.
    found = denoising_loss(
        KEY, Diffusion(Shrink(jnp.asarray(0.4)), OU), POINTS, TIMES, samples=5000
    )
    scale, variance = np.exp(-TIMES), -0.6 * np.expm1(-2 * TIMES)
    want = (1 - 0.4 * scale) ** 2 * (POINTS**2).sum(1).mean() + 3 * 0.16 * variance
    assert np.abs((found.mmse.mean - want) / found.mmse.error).max() < 4
    assert (found.mmse.error < 0.03 * want).all()
    ratio = scale**2 / variance
    np.testing.assert_allclose(found.noise_loss.mean, ratio * found.mmse.mean, rtol=1e-12)
    np.testing.assert_allclose(found.noise_loss.error, ratio * found.mmse.error, rtol=1e-12)


@pytest.mark.slow
def test_loss_does_not_depend_on_the_coordinates_of_the_process():
    data = gaussian_mixture([0.3, 0.7], [[1.0, 2.0], [0.0, -1.0]], 0.4)
    points = np.asarray(data.sample(KEY, 300))
    rows = [
        denoising_loss(KEY, Diffusion(data, process), points, TIMES, samples=500)
        for process in (ornstein_uhlenbeck(0.6), variance_exploding(0.6))
    ]
    np.testing.assert_allclose(rows[0].mmse.mean, rows[1].mmse.mean, rtol=1e-10)
    # a score is a denoiser too
    score = score_model(lambda x, t: data.score(x, OU.scale(t), OU.std(t)), OU)
    by_score = denoising_loss(KEY, score, points, TIMES, samples=500)
    np.testing.assert_allclose(by_score.mmse.mean, rows[0].mmse.mean, rtol=1e-8)


def test_batches_hold_independent_samples():
    model = Diffusion(Shrink(jnp.asarray(0.4)), OU)
    rows = [
        denoising_loss(KEY, model, POINTS, TIMES, samples=1000, batch=b).mmse for b in (64, 5000)
    ]
    z = (rows[0].mean - rows[1].mean) / np.hypot(rows[0].error, rows[1].error)
    assert np.abs(z).max() < 4
    assert np.abs(z).max() > 0
    single = denoising_loss(
        KEY, Diffusion(Shrink(jnp.float32(0.4)), ornstein_uhlenbeck()),
        POINTS.astype(np.float32), TIMES, samples=100,
    )  # fmt: skip
    assert single.mmse.mean.dtype == jnp.float32


def test_empirical_denoiser_has_a_gap():
    rng = np.random.default_rng(1)
    train, held_out = rng.normal(size=(2, 60, 8))
    model = Diffusion(point_cloud(train), ornstein_uhlenbeck())
    found = denoising_gap(KEY, model, train, held_out, [1e-3, 3.0], samples=800)
    # at small noise it returns the nearest training point
    near = ((held_out[:, None] - train) ** 2).sum(-1).min(1).mean()
    assert float(found.train.mmse.mean[0]) < 1e-6
    z = (found.mmse.mean[0] - near) / found.mmse.error[0]
    assert abs(float(z)) < 4
    # at large noise it returns the mean of the training points, for everybody
    shift = ((held_out - train.mean(0)) ** 2).sum(1).mean() - train.var(0).sum()
    assert abs(float((found.mmse.mean[1] - shift) / found.mmse.error[1])) < 4
    np.testing.assert_allclose(
        found.mmse.error, np.hypot(found.train.mmse.error, found.held_out.mmse.error)
    )


@pytest.mark.slow
def test_class_loss_is_a_difference_of_losses():
    data = gaussian_mixture([0.3, 0.7], [[1.0, 2.0], [0.0, -1.0]], [0.4, 1.3])
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], [300, 700])
    spread = np.sqrt([0.4, 1.3])[labels, None]
    points = np.array([[1.0, 2.0], [0.0, -1.0]])[labels] + spread * rng.normal(size=(1000, 2))
    model = Diffusion(data, OU)
    found = class_denoising_loss(KEY, model, points, labels, TIMES, samples=4000)
    free = denoising_loss(KEY, model, points, TIMES, samples=4000)
    told = np.zeros((2, 3))
    for c, share in ((0, 0.3), (1, 0.7)):
        one = Diffusion(data.condition(c), OU)
        loss = denoising_loss(KEY, one, points[labels == c], TIMES, samples=4000).mmse
        told += share * loss.mean, share**2 * loss.error**2
    want, error = free.mmse.mean - told[0], np.sqrt(free.mmse.error**2 + told[1])
    assert np.abs((found.mmse.mean - want) / np.hypot(error, found.mmse.error)).max() < 4
    # 1000 points of the model in place of all: another few per cent
    z = (found.separation.mean - found.mmse.mean) / (2 * found.mmse.error)
    assert np.abs(z).max() < 4
    assert (found.separation.error < 0.5 * found.mmse.error).any()


GOOD = Diffusion(Shrink(jnp.asarray(0.4)), OU)
TWO = Diffusion(gaussian_mixture([0.5, 0.5], np.eye(3)[:2], 0.4), OU)
BAD = [
    (lambda: denoising_loss(KEY, Shrink(0.4), POINTS, TIMES, samples=2), TypeError, "a Shrink"),
    (lambda: denoising_loss(KEY, Diffusion(3.0, OU), POINTS, TIMES, samples=2), TypeError, "float"),
    (lambda: denoising_loss(KEY, GOOD, POINTS[:0], TIMES, samples=2), ValueError, "set is empty"),
    (lambda: denoising_loss(KEY, GOOD, POINTS[:, :2], TIMES, samples=2), ValueError, "points has"),
    (lambda: denoising_loss(KEY, GOOD, POINTS, [0.0], samples=2), ValueError, "t = 0 is singular"),
    (lambda: denoising_loss(KEY, GOOD, POINTS, TIMES, samples=0), ValueError, "samples must be"),
    (lambda: denoising_loss(KEY, GOOD, POINTS * np.nan, TIMES, samples=2), ValueError, "NaN"),
    (lambda: class_denoising_loss(KEY, GOOD, POINTS, np.zeros(50, int), TIMES, samples=2),
     TypeError, "needs classes"),
    (lambda: class_denoising_loss(KEY, TWO, POINTS, np.zeros(49, int), TIMES, samples=2),
     ValueError, "labels has shape"),
    (lambda: class_denoising_loss(KEY, TWO, POINTS, np.full(50, 2), TIMES, samples=2),
     ValueError, "the model has 2 classes"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, kind, message = BAD[place]
    with pytest.raises(kind, match=message):
        call()
