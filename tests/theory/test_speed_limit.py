"""Speed limits against other quadratures, simulation of nothing, and gradient descent."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from theory import channel, speed_limit, thermodynamics

MEAN, VARIANCE = 1.3, 0.3


def test_transport_of_gaussians_and_against_quantiles():
    """Same centre: difference of deviations. Mixtures: quantiles by a fine inverted table."""
    assert float(speed_limit.transport_distance(0.0, 1.0, 0.0, 0.25)) == pytest.approx(0.5)
    x = np.linspace(-12, 12, 400_001)

    def cdf(mean, variance):
        s = np.sqrt(variance)
        return 0.5 * (norm.cdf(x, mean, s) + norm.cdf(x, -mean, s))

    p = (np.arange(200_000) + 0.5) / 200_000
    first, second = (np.interp(p, cdf(*law), x) for law in ((1.3, 0.3), (0.4, 0.8)))
    want = np.sqrt(np.mean((first - second) ** 2))
    found = float(speed_limit.transport_distance(1.3, 0.3, 0.4, 0.8))
    assert found == pytest.approx(want, rel=1e-4)
    swapped = float(speed_limit.transport_distance(0.4, 0.8, 1.3, 0.3))
    assert swapped == pytest.approx(found, rel=1e-8)


@given(st.floats(0.1, 2.5), st.floats(0.1, 2.5), st.floats(0.1, 3.0))
def test_production_is_above_length_above_transport(mean, variance, t):
    production = float(thermodynamics.total_production(t, mean, variance))
    speed = partial(speed_limit.production_speed, mean=mean, variance=variance)
    length = float(speed_limit.path_length(speed, 1e-9, t))
    transport = float(speed_limit.noised_transport_distance(t, mean, variance))
    assert production >= length**2 / t * (1 - 1e-6)
    assert length >= transport * (1 - 1e-6)


def test_one_gaussian_moves_along_the_geodesic():
    """Without centres the path is the geodesic: its length is the transport distance."""
    speed = partial(speed_limit.production_speed, mean=0.0, variance=VARIANCE)
    length = float(speed_limit.path_length(speed, 1e-12, 0.9))
    deviation = np.sqrt(1 + (VARIANCE - 1) * np.exp(-1.8))
    assert length == pytest.approx(deviation - np.sqrt(VARIANCE), rel=1e-8)
    assert float(speed_limit.noised_transport_distance(0.9, 0.0, VARIANCE)) == pytest.approx(
        length, rel=1e-8
    )


def test_mmse_is_that_of_the_fisher_information_and_the_reference():
    assert float(speed_limit.mixture_mmse(0.5, 1.0, 0.4)) == pytest.approx(0.7615237913, abs=6e-11)
    t = 0.35
    noise = -np.expm1(-2 * t)
    fisher = thermodynamics.mixture_rates(t, MEAN, VARIANCE).fisher
    want = (1 / noise - fisher) * noise**2 * np.exp(2 * t)
    assert float(speed_limit.mixture_mmse(t, MEAN, VARIANCE)) == pytest.approx(float(want))


def test_divergence_of_a_gaussian_path():
    """Without centres every kernel is Gaussian: (r - 1 - log r)/2 for a width ratio r."""
    times = np.array([0.1, 0.3, 0.8, 1.4])
    snr = 1 / np.expm1(2 * times)
    ratio = 1 + (snr[:-1] - snr[1:]) / (1 / VARIANCE + snr[1:])
    want = 0.5 * np.sum(ratio - 1 - np.log(ratio))
    found = speed_limit.path_divergence(times, 0.0, VARIANCE)
    assert float(found) == pytest.approx(want, rel=1e-12)


@pytest.mark.slow
def test_divergence_of_many_steps_is_its_metric():
    speed = partial(speed_limit.sampler_speed, mean=MEAN, variance=VARIANCE)
    length = float(speed_limit.path_length(speed, 0.01, 2.0))
    times = speed_limit.equal_length_times(speed, 0.01, 2.0, 256)
    found = float(speed_limit.path_divergence(times, MEAN, VARIANCE))
    assert found * 4 * 256 / length**2 == pytest.approx(1, abs=0.01)
    even = np.geomspace(0.01, 2.0, 257)
    assert float(speed_limit.path_divergence(even, MEAN, VARIANCE)) > found


def descended(low, high, pieces):
    """Times and action after Adam on the increments of a schedule, and the action at its start."""

    def times_of(logits):
        steps = jnp.cumsum(jax.nn.softmax(logits))
        return low + (high - low) * jnp.concatenate([jnp.zeros(1), steps])

    def action(logits):
        return speed_limit.schedule_action(times_of(logits), MEAN, VARIANCE)

    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, 400))

    def update(carry, _):
        logits, state = carry
        change, state = optimiser.update(jax.grad(action)(logits), state)
        return (optax.apply_updates(logits, change), state), None

    start = jnp.zeros(pieces)
    (logits, _), _ = jax.jit(lambda c: jax.lax.scan(update, c, length=400))(
        (start, optimiser.init(start))
    )
    return np.asarray(times_of(logits)), float(action(logits)), float(action(start))


def test_constant_speed_is_the_optimum_of_gradient_descent():
    """The free optimum of K linear pieces tends to the times of equal length like 1/K^2."""
    speed = partial(speed_limit.production_speed, mean=MEAN, variance=VARIANCE)
    low, high = 0.01, 1.5
    least = float(speed_limit.path_length(speed, low, high)) ** 2
    distance, excess = [], []
    for pieces in (8, 24):
        equal = np.asarray(speed_limit.equal_length_times(speed, low, high, pieces))
        times, best, first = descended(low, high, pieces)
        distance.append(np.abs(times - equal).max())
        excess.append(best / least - 1)
        assert least < best <= float(speed_limit.schedule_action(equal, MEAN, VARIANCE))
        assert first > 1.2 * best
    assert distance[1] < 1e-2 * high
    assert distance[0] / distance[1] > 3.5  # 9 in the limit
    assert excess[0] / excess[1] > 6
    assert excess[1] < 4e-3


FUNCTIONS = {
    "transport": (speed_limit.transport_distance, (1.3, 0.3, 0.4, 0.8)),
    "noised": (speed_limit.noised_transport_distance, (0.4, MEAN, VARIANCE)),
    "production_speed": (speed_limit.production_speed, (0.4, MEAN, VARIANCE)),
    "sampler_speed": (speed_limit.sampler_speed, (0.4, MEAN, VARIANCE)),
    "mmse": (speed_limit.mixture_mmse, (0.4, MEAN, VARIANCE)),
    "action": (
        lambda a, b, c, *law: speed_limit.schedule_action(jnp.stack([a, b, c]), *law),
        (0.1, 0.4, 0.9, MEAN, VARIANCE),
    ),
    "divergence": (
        lambda a, b, c, *law: speed_limit.path_divergence(jnp.stack([a, b, c]), *law),
        (0.1, 0.4, 0.9, MEAN, VARIANCE),
    ),
    "length": (
        lambda low, high, mean: speed_limit.path_length(
            lambda t: speed_limit.production_speed(t, mean, VARIANCE), low, high
        ),
        (0.1, 0.9, MEAN),
    ),
    "equal": (
        lambda low, high, mean: speed_limit.equal_length_times(
            lambda t: jnp.sqrt(mean + t), low, high, 2
        )[1],
        (0.1, 0.9, MEAN),
    ),
}
SLOW = set(FUNCTIONS) - {"mmse", "equal"}  # to compile


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FUNCTIONS]
)
def test_derivatives_batches_and_dtype(name, strict):
    function, arguments = FUNCTIONS[name]
    arguments = tuple(map(jnp.asarray, arguments))
    vector = np.asarray(arguments)
    step = 1e-5 * vector
    moves = np.concatenate([[0 * vector], np.diag(step), -np.diag(step)])
    together = jax.jit(
        lambda v, batch: (
            jax.vmap(lambda b: function(*b))(batch),
            jax.grad(lambda u: function(*u))(v),
        )
    )
    batch, slope = map(np.asarray, together(vector, vector + moves))
    k = vector.size
    numeric = (batch[1 : 1 + k] - batch[1 + k :]) / (2 * step)
    np.testing.assert_allclose(slope, numeric, atol=1e-6 * (1 + np.abs(numeric).max()))
    assert float(batch[0]) == pytest.approx(float(function(*arguments)), rel=1e-10)
    single = jax.eval_shape(function, *(a.astype(jnp.float32) for a in arguments))
    assert single.dtype == jnp.float32


def test_information_of_the_divergence_is_the_integral_of_mmse():
    """One step over a fine grid of steps: the error is the missing area under mmse."""
    ends = np.array([0.2, 0.9])
    ratio = np.linspace(*(np.asarray(channel.snr(t)) for t in ends[::-1]), 4001)
    mmse = np.asarray(speed_limit.mixture_mmse(channel.time_of_snr(ratio), MEAN, VARIANCE))
    area = np.sum(0.5 * (mmse[1:] + mmse[:-1]) * np.diff(ratio))
    want = 0.5 * (mmse[0] * (ratio[-1] - ratio[0]) - area)
    found = speed_limit.path_divergence(ends, MEAN, VARIANCE)
    assert float(found) == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: speed_limit.transport_distance(1.0, 0.0, 1.0, 1.0), "variance must be positive"),
        (lambda: speed_limit.schedule_action([0.1, 0.1], 1.0, 0.4), "step of times"),
        (lambda: speed_limit.path_divergence([[0.1, 0.2]], 1.0, 0.4), "times has shape"),
        (lambda: speed_limit.path_divergence([0.0, 0.1], 1.0, 0.4), "t must be positive"),
        (lambda: speed_limit.path_length(jnp.sqrt, 0.0, 1.0), "lower must be positive"),
        (lambda: speed_limit.path_length(jnp.sqrt, 1.0, 0.1), "upper - lower must be positive"),
        (lambda: speed_limit.equal_length_times(jnp.sqrt, 0.1, 1.0, 0), "pieces=0"),
        (lambda: speed_limit.equal_length_times(jnp.sqrt, 0.1, 1.0, 2.5), "pieces=2.5"),
    ],
)
def test_bad_numbers_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
