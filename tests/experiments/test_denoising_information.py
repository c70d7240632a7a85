"""Information and collapse times from measured losses of denoisers, against closed forms."""

import jax
import numpy as np
import pytest

from diffjax import Diffusion, gaussian_mixture, ornstein_uhlenbeck
from diffjax.observables.denoising import class_denoising_loss, denoising_loss
from theory import channel, collapse, mmse

KEY = jax.random.key(8)
DIM, VARIANCE, TEMPERATURE = 6, 0.7, 0.8
CENTRE = np.full(DIM, 0.9)
OU = ornstein_uhlenbeck(TEMPERATURE)
SNR = np.geomspace(1e-3, 30, 30)
TIMES = np.asarray(channel.time_of_snr(SNR, TEMPERATURE))[::-1]
SAMPLES = 4000


def mixture(centre, variance):
    return gaussian_mixture([0.5, 0.5], np.stack([centre, -centre]), variance)


def draw(seed, centre=CENTRE, count=20_000):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    noise = np.sqrt(VARIANCE) * rng.normal(size=(count, DIM))
    return (1 - 2 * labels)[:, None] * centre + noise, labels


def kappa(t):
    """Distance of a class centre from the middle, in standard deviations of the state."""
    return (
        np.linalg.norm(CENTRE)
        * np.exp(-t)
        / np.sqrt(channel.state_variance(t, VARIANCE, TEMPERATURE))
    )


def measured(model, points):
    loss = denoising_loss(KEY, Diffusion(model, OU), points, TIMES, samples=SAMPLES)
    return loss.mmse


def test_information_and_collapse_time_of_the_exact_denoiser():
    points, _ = draw(0)
    loss = measured(mixture(CENTRE, VARIANCE), points)
    found = mmse.information_from_mmse_in_time(TIMES, loss.mean, loss.error, TEMPERATURE)
    ratio = channel.snr(TIMES, TEMPERATURE)
    want = channel.gaussian_information(ratio, np.full(DIM, VARIANCE))
    want = want + channel.mixture_information(kappa(TIMES))
    z = (found.value - want) / (found.standard_error + 0.25 * found.discretisation)
    assert np.abs(z).max() < 4
    assert (found.standard_error < 0.01 + 0.01 * want).all()

    log_n = np.log(300.0)
    time = mmse.collapse_time_from_mmse(log_n, TIMES, loss.mean, loss.error, TEMPERATURE)
    exact = collapse.mixture_collapse_time(
        log_n, DIM, np.linalg.norm(CENTRE), VARIANCE, TEMPERATURE
    )
    assert abs(time.value - exact) < 4 * time.standard_error + time.discretisation
    assert float(time.standard_error) < 0.01 * float(exact)


def test_an_imperfect_denoiser_overestimates():
    """By the divergence between the two laws of the noised state, in closed form for Gaussians."""
    wrong, shift = 1.9, np.full(DIM, 0.4)
    points, _ = draw(1, centre=np.zeros(DIM))
    loss = measured(gaussian_mixture([1.0], shift[None], wrong), points)
    found = mmse.information_from_mmse_in_time(TIMES, loss.mean, loss.error, TEMPERATURE)
    ratio = np.asarray(channel.snr(TIMES, TEMPERATURE))
    exact = np.asarray(channel.gaussian_information(ratio, np.full(DIM, VARIANCE)))
    spread = (1 + VARIANCE * ratio) / (1 + wrong * ratio)
    divergence = 0.5 * DIM * (spread - 1 - np.log(spread))
    divergence += 0.5 * (shift**2).sum() * ratio / (1 + wrong * ratio)
    z = (found.value - exact - divergence) / (found.standard_error + 0.25 * found.discretisation)
    assert np.abs(z).max() < 4
    assert (found.value - exact)[0] > 20 * found.standard_error[0]

    log_n = np.log(300.0)
    time = mmse.collapse_time_from_mmse(log_n, TIMES, loss.mean, loss.error, TEMPERATURE)
    right = collapse.gaussian_collapse_time(log_n, DIM, VARIANCE, TEMPERATURE)
    assert time.value - right > 10 * time.standard_error


@pytest.mark.parametrize("side", ["mmse", "separation"])
def test_class_information_of_conditional_denoisers(side):
    points, labels = draw(2)
    model = Diffusion(mixture(CENTRE, VARIANCE), OU)
    loss = getattr(class_denoising_loss(KEY, model, points, labels, TIMES, samples=SAMPLES), side)
    found = mmse.information_from_mmse_in_time(TIMES, loss.mean, loss.error, TEMPERATURE)
    want = channel.mixture_information(kappa(TIMES))
    z = (found.value - want) / (found.standard_error + 0.25 * found.discretisation)
    assert np.abs(z).max() < 4
    # all of it at small noise: the class is known
    assert abs(float(found.value[0]) - np.log(2)) < 0.03
