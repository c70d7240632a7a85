"""Gradients of guided samplers with respect to a schedule of weights, and their memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import Diffusion, backward, gaussian_mixture, guidance, ornstein_uhlenbeck, schedules
from diffjax.dynamics import methods

DATA = gaussian_mixture([0.4, 0.6], [[1.1], [-0.8]], [0.3, 0.2])
MODEL = Diffusion(DATA, ornstein_uhlenbeck())
GRID = schedules.log_snr(1e-3, 4.0, 1001)[::-1]
KNOTS = np.array([0.05, 0.3, 0.8, 2.0])
VALUES = np.array([1.3, 0.7, 2.1, 0.4])
KEY = jax.random.key(8)
START = jnp.asarray(np.random.default_rng(1).normal(size=(4, 1)))


def free(values):
    return guidance.classifier_free(MODEL, 0, guidance.schedule(values, times=KNOTS))


def dynamic(values):
    weight = guidance.schedule(values, times=KNOTS)
    return guidance.normalised_negative(MODEL, 0, prior=0.4, weight=weight)


def loss(values, make, method, grid=GRID):
    """A generic function of the end points."""
    x, _ = backward(KEY, MODEL, START, grid, method=method, guidance=make(values), remat=True)
    return jnp.mean(x**3 - 0.4 * x)


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (free, methods.euler_maruyama()),
        pytest.param(free, methods.heun(), marks=pytest.mark.slow),
        pytest.param(dynamic, methods.ancestral(), marks=pytest.mark.slow),
    ],
    ids=["sde", "ode", "tracked"],
)
def test_gradient_through_a_thousand_steps(make, method):
    gradient = jax.grad(loss)(jnp.asarray(VALUES), make, method)
    value = jax.jit(lambda v: loss(v, make, method))
    step = 1e-4
    for k, unit in enumerate(np.eye(len(VALUES))):
        ends = [float(value(VALUES + sign * step * unit)) for sign in (2, 1, -1, -2)]
        slope = (-ends[0] + 8 * ends[1] - 8 * ends[2] + ends[3]) / (12 * step)
        np.testing.assert_allclose(gradient[k], slope, rtol=1e-5, atol=1e-8)


def temporary_bytes(steps, remat):
    grid = schedules.log_snr(1e-3, 4.0, steps + 1)[::-1]
    start = jnp.zeros((512, 1))

    def end(values):
        x, _ = backward(KEY, MODEL, start, grid, method="ddim", guidance=free(values), remat=remat)
        return jnp.mean(x)

    compiled = jax.jit(jax.grad(end)).lower(jnp.asarray(VALUES)).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
def test_checkpointed_gradients_take_the_memory_of_the_square_root_of_the_steps():
    few, many = temporary_bytes(100, True), temporary_bytes(1600, True)
    assert many < 5 * few  # sixteen times the steps, four times the memory


@pytest.mark.slow
def test_plain_gradients_take_memory_in_proportion_to_the_steps():
    assert temporary_bytes(1600, False) > 10 * temporary_bytes(1600, True)
