"""Divergence of the ancestral path: Gaussians in closed form, gradient, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffjax
from diffjax import Diffusion
from diffjax.observables.discretisation import path_divergence

T = 0.7
VARIANCES = np.array([0.3, 1.0, 2.5])
TIMES = np.array([1.4, 0.8, 0.3, 0.1])


def model(mean=0.4):
    data = diffjax.gaussian_mixture(np.ones(1), mean * np.ones((1, 3)), VARIANCES[None])
    return Diffusion(data, diffjax.ornstein_uhlenbeck(T))


def exact(times):
    """The exact kernel of a Gaussian is wider than the sampler's by the posterior variance."""
    snr = 1 / (T * np.expm1(2 * times))
    spread = 1 / (1 / VARIANCES[:, None] + snr[:-1])
    ratio = 1 + spread * np.diff(snr)
    return 0.5 * np.sum(ratio - 1 - np.log(ratio))


def test_gaussian_paths():
    found = path_divergence(jax.random.key(0), model(), TIMES, 40_000)
    assert abs(float(found.mean) - exact(TIMES)) < 4 * float(found.error)
    assert float(found.error) < 0.02 * exact(TIMES)


def test_a_wrong_denoiser_costs_more():
    """A shift e of the denoiser adds snr differences times e^2/2 (Girsanov)."""
    shift = 0.3
    posterior = 1 / (1 + VARIANCES[:, None] / (T * np.expm1(2 * TIMES[:-1])))
    snr = 1 / (T * np.expm1(2 * TIMES))
    extra = 0.5 * np.sum((shift * posterior) ** 2 * np.diff(snr))
    found = path_divergence(
        jax.random.key(1), model(), TIMES, 40_000, sampler=model(mean=0.4 + shift)
    )
    assert abs(float(found.mean) - exact(TIMES) - extra) < 4 * float(found.error)


def test_gradient_in_the_times():
    key = jax.random.key(2)

    both = jax.jit(jax.value_and_grad(lambda t: path_divergence(key, model(), t, 200).mean))
    times = jnp.asarray(TIMES)
    gradient = np.asarray(both(times)[1])
    for k, unit in enumerate(np.eye(4)):
        above, below = (both(times + sign * 1e-5 * unit)[0] for sign in (1, -1))
        numeric = float(above - below) / 2e-5
        assert float(gradient[k]) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("times", "message"), [([0.1, 0.5], "decreas"), ([1.0, 0.5, 0.0], "noise there")]
)
def test_bad_grids_are_refused(times, message):
    with pytest.raises(ValueError, match=message):
        path_divergence(jax.random.key(0), model(), np.array(times), 10)
