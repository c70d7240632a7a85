"""Processes: one clock, four coordinate systems, the bridge and the forward transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffjax import (
    ornstein_uhlenbeck,
    processes,
    rectified_flow,
    schedules,
    variance_exploding,
    variance_preserving,
)

PROCESSES = {
    "ou": ornstein_uhlenbeck(0.7),
    "vp": variance_preserving(schedules.ddpm_linear()),
    "ve": variance_exploding(0.7),
    "flow": rectified_flow(0.7),
}
# VE has an infinite variance at t = inf; the others are defined there.
BOUNDED = ["ou", "vp", "flow"]
positive_times = hnp.arrays(float, 16, elements=st.floats(1e-3, 6.0))  # one shape, one compile
few = settings(max_examples=5)
each_process = pytest.mark.parametrize("name", PROCESSES)


def test_bridge_reference_value():
    # Sheet 00: T = .7, s = .4, t = 1.1, a = .3, x_t = -.5.
    c_a, c_x, variance = processes.bridge(ornstein_uhlenbeck(0.7), 0.4, 1.1)
    assert abs(c_a * 0.3 + c_x * -0.5 - 0.0166203644) < 5e-11
    assert abs(variance - 0.3266026684) < 5e-11


def test_bridge_is_the_printed_form():
    # c_a = e^-s Delta_{t-s} / Delta_t, c_x = e^-(t-s) Delta_s / Delta_t, V = Delta_s Delta_{t-s} /
    # Delta_t, in numpy and without the snr form of the implementation.
    temperature, s, t = 1.9, np.array([0.03, 0.5, 2.0]), np.array([0.04, 3.0, 2.5])

    def delta(u):
        return temperature * (1 - np.exp(-2 * u))

    c_a, c_x, variance = processes.bridge(ornstein_uhlenbeck(temperature), s, t)
    np.testing.assert_allclose(c_a, np.exp(-s) * delta(t - s) / delta(t), rtol=1e-12)
    np.testing.assert_allclose(c_x, np.exp(s - t) * delta(s) / delta(t), rtol=1e-12)
    np.testing.assert_allclose(variance, delta(s) * delta(t - s) / delta(t), rtol=1e-12)


@each_process
def test_snr_is_the_same_for_every_process(name):
    process = PROCESSES[name]
    t = np.array([1e-4, 0.02, 0.4, 1.7, 6.0])
    expected = 1 / (process.temperature * np.expm1(2 * t))
    ratio = process.scale(t) ** 2 / process.std(t) ** 2
    np.testing.assert_allclose(ratio, expected, rtol=1e-12)
    np.testing.assert_allclose(processes.snr(process, t), expected, rtol=1e-12)
    np.testing.assert_allclose(process.variance(t), process.std(t) ** 2, rtol=1e-13)


def test_coordinates_of_the_sheet():
    t, temperature = np.array([0.1, 0.8, 2.2]), 0.7
    delta = temperature * (1 - np.exp(-2 * t))
    np.testing.assert_allclose(PROCESSES["ou"].scale(t), np.exp(-t), rtol=1e-14)
    np.testing.assert_allclose(PROCESSES["ou"].variance(t), delta, rtol=1e-13)
    # VE: x = e^t x_t; flow: x_u = (1 - u) a + u z with x_t = e^-t / (1 - u) x_u.
    np.testing.assert_allclose(PROCESSES["ve"].std(t), np.exp(t) * np.sqrt(delta), rtol=1e-13)
    np.testing.assert_allclose(PROCESSES["ve"].scale(t), 1.0, rtol=0)
    u = np.asarray(PROCESSES["flow"].native(t))
    np.testing.assert_allclose(PROCESSES["flow"].scale(t), 1 - u, rtol=1e-13)
    np.testing.assert_allclose(np.exp(-t) / (1 - u) * u, np.sqrt(delta), rtol=1e-12)


@each_process
@few
@given(data=st.data())
def test_native_clock_round_trip(name, data):
    process = PROCESSES[name]
    low, high = (5.1e-5, 5.05) if name == "vp" else (1e-5, 8.0)
    t = data.draw(hnp.arrays(float, 16, elements=st.floats(low, high)))
    np.testing.assert_allclose(process.time(process.native(t)), t, rtol=1e-9, atol=1e-12)


def test_native_clocks_mean_what_they_say():
    assert float(PROCESSES["vp"].native(schedules.ddpm_linear()[400])) == pytest.approx(400)
    between = 0.5 * (schedules.ddpm_linear()[400] + schedules.ddpm_linear()[401])
    assert float(PROCESSES["vp"].native(between)) == pytest.approx(400.5)
    # sigma = 2 at T = .7: snr 1/4 = 1 / (T expm1 2t).
    t = PROCESSES["ve"].time(2.0)
    assert float(processes.snr(PROCESSES["ve"], t)) == pytest.approx(0.25, rel=1e-12)
    t = PROCESSES["flow"].time(0.25)
    assert float(processes.snr(PROCESSES["flow"], t)) == pytest.approx(9.0, rel=1e-12)
    assert float(PROCESSES["flow"].time(1.0)) == np.inf


@each_process
def test_drift_and_noise_are_those_of_the_kernel(name):
    # d log scale / dt and d std^2 / dt - 2 (d log scale / dt) std^2 = g^2 by central differences.
    process, t, h = PROCESSES[name], 0.6, 1e-5

    def slope(f):
        return (f(t + h) - f(t - h)) / (2 * h)

    rate = float(process.log_scale_rate(t))
    assert slope(lambda u: np.log(process.scale(u))) == pytest.approx(rate, rel=1e-8, abs=1e-10)
    g2 = slope(process.variance) - 2 * rate * process.variance(t)
    assert float(g2) == pytest.approx(
        float(processes.diffusion_coefficient(process, t)) ** 2, rel=1e-8
    )
    x = jnp.array([[0.3, -2.0], [1.0, 0.5]])
    np.testing.assert_allclose(processes.drift(process, x, t), rate * np.asarray(x), rtol=1e-13)


@each_process
@few
@given(r=positive_times, ds=positive_times, dt=positive_times)
def test_two_bridges_are_one(name, r, ds, dt):
    # x_r | a, x_t directly, and through x_s: mean coefficients and variance must agree.
    process, s, t = PROCESSES[name], r + ds, r + ds + dt
    a1, x1, v1 = processes.bridge(process, s, t)
    a2, x2, v2 = processes.bridge(process, r, s)
    a, x, v = processes.bridge(process, r, t)
    np.testing.assert_allclose([a2 + x2 * a1, x2 * x1, v2 + x2**2 * v1], [a, x, v], 1e-9)


@each_process
@few
@given(s=positive_times, dt=positive_times)
def test_bridge_and_transition_are_one_joint_law(name, s, dt):
    # Bayes: p(x_s | a) p(x_t | x_s) = p(x_t | a) p(x_s | a, x_t), compared as joint Gaussians of
    # (x_s, x_t) given a = 1.
    process, t = PROCESSES[name], s + dt
    factor, noise = processes.transition(process, s, t)
    c_a, c_x, variance = processes.bridge(process, s, t)
    up = [process.scale(s), factor * process.scale(s), process.variance(s),
          factor * process.variance(s), factor**2 * process.variance(s) + noise]  # fmt: skip
    down = [c_a + c_x * process.scale(t), process.scale(t), variance + c_x**2 * process.variance(t),
            c_x * process.variance(t), process.variance(t)]  # fmt: skip
    np.testing.assert_allclose(up, down, rtol=1e-9)


@each_process
def test_ends_of_the_bridge(name):
    process = PROCESSES[name]
    np.testing.assert_allclose(processes.bridge(process, 0.0, 1.3), [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(processes.bridge(process, 1.3, 1.3), [0, 1, 0], atol=1e-15)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("t", [np.inf, 2000.0])
def test_infinite_time_forgets_the_datum(name, t):
    process = PROCESSES[name]
    assert float(process.scale(t)) == 0
    limit = 1.0 if name == "flow" else process.temperature
    assert float(process.variance(t)) == pytest.approx(limit, rel=1e-14)
    assert float(processes.snr(process, t)) == 0
    c_a, c_x, variance = processes.bridge(process, 0.8, t)
    assert float(c_a) == pytest.approx(float(process.scale(0.8)), rel=1e-14)
    assert float(c_x) == 0
    assert float(variance) == pytest.approx(float(process.variance(0.8)), rel=1e-14)


@pytest.mark.parametrize("name", BOUNDED)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bridge_between_two_huge_times_stays_finite(name, dtype):
    # Both scales underflow; c_x is still e^{-(t-s)} in OU coordinates (the module promises (3)).
    s, t = jnp.asarray(1000.0, dtype), jnp.asarray(1001.0, dtype)
    values = np.array(processes.bridge(PROCESSES[name], s, t), dtype=float)
    assert np.all(np.isfinite(values))
    factor, noise = (float(v) for v in processes.transition(PROCESSES[name], s, t))
    assert np.isfinite(factor)
    assert np.isfinite(noise)
    assert values[1] == pytest.approx(np.exp(-1.0), rel=1e-5)
    assert factor == pytest.approx(np.exp(-1.0), rel=1e-5)


@each_process
def test_tiny_times_keep_their_digits(name):
    # 1 - e^{-2t} at t = 1e-12 loses everything in float32 unless expm1 is used.
    process, t = PROCESSES[name], np.float32(1e-12)
    std = float(process.std(t))
    exact = np.sqrt(2 * process.temperature * 1e-12)
    assert std == pytest.approx(exact, rel=3e-6)


def test_perturb_has_the_kernel_of_the_process():
    # 4 sigma of 40000 draws; t per row.
    process, n = PROCESSES["flow"], 40_000
    a = jnp.broadcast_to(jnp.array([2.0, -1.0]), (n, 2))
    t = jnp.where(jnp.arange(n) < n // 2, 0.3, 1.2)
    x = np.asarray(processes.perturb(jax.random.key(3), process, a, t))
    for rows, time in ((x[: n // 2], 0.3), (x[n // 2 :], 1.2)):
        scale, std = float(process.scale(time)), float(process.std(time))
        z = (rows.mean(0) - scale * np.array([2.0, -1.0])) / (std / np.sqrt(n // 2))
        assert np.abs(z).max() < 4
        z = (rows.var(0) / std**2 - 1) / np.sqrt(2 / (n // 2))
        assert np.abs(z).max() < 4
        correlation = np.corrcoef(rows.T)[0, 1] * np.sqrt(n // 2)
        assert abs(correlation) < 4


@each_process
def test_dtype_is_that_of_the_time(name, strict):
    process = PROCESSES[name] if name != "vp" else variance_preserving(
        schedules.ddpm_linear().astype(jnp.float32)
    )  # fmt: skip
    t = jnp.float32(0.4)
    for value in (process.scale(t), process.std(t), process.variance(t), process.native(t),
                  process.time(process.native(t)), process.log_scale_rate(t),
                  processes.snr(process, t), processes.diffusion_coefficient(process, t),
                  *processes.bridge(process, jnp.float32(0.1), t)):  # fmt: skip
        assert value.dtype == jnp.float32


def test_temperature_is_traced_and_differentiable():
    def std(temperature, t):
        return ornstein_uhlenbeck(temperature).std(t)

    value = jax.jit(jax.grad(std))(1.3, 0.5)
    # d sqrt(T c) / dT = sqrt(c / T) / 2.
    assert float(value) == pytest.approx(0.5 * np.sqrt(-np.expm1(-1.0) / 1.3), rel=1e-12)


def test_a_schedule_may_be_closed_over():
    schedule = schedules.ddpm_linear(10)
    found = jax.jit(lambda index: variance_preserving(schedule).time(index))(3.0)
    assert float(found) == pytest.approx(float(schedule[3]), rel=1e-12)


@pytest.mark.parametrize("factory", [ornstein_uhlenbeck, variance_exploding, rectified_flow])
@pytest.mark.parametrize("temperature", [0.0, -0.5, np.nan])
def test_bad_temperature_is_named(factory, temperature):
    with pytest.raises(ValueError, match=r"temperature must be positive, but is (0\.0|-0\.5|nan)"):
        factory(temperature)


def test_bad_schedules_are_named():
    with pytest.raises(ValueError, match=r"schedule must increase strictly"):
        variance_preserving([0.1, 0.3, 0.3])
    with pytest.raises(ValueError, match=r"schedule has shape \(\)"):
        variance_preserving(1.0)
    with pytest.raises(ValueError, match=r"schedule holds 1 NaN"):
        variance_preserving([0.1, np.nan])
