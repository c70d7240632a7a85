"""Schedules against the reference table, conversions against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from diffjax import schedules
from diffjax.schedules import ou_time


def test_ddpm_reference_times():
    index = [0, 49, 99, 199, 299, 399, 499, 599, 699, 799, 899, 999]
    table = [5.0e-5, 0.01471, 0.05434, 0.20849, 0.46264, 0.81700,
             1.27177, 1.82715, 2.48335, 3.24056, 4.09900, 5.05886]  # fmt: skip
    # Half a unit of the last printed digit.
    np.testing.assert_allclose(schedules.ddpm_linear()[np.array(index)], table, rtol=0, atol=5.1e-6)


def test_cosine_reference_times():
    t = schedules.cosine(1000)
    table = [0.08302, 0.35277, 0.96803]
    np.testing.assert_allclose(t[np.array([250, 500, 750])], table, rtol=0, atol=5.1e-6)
    assert t[0] == 0
    assert t.shape == (1000,)


def test_edm_and_flow_levels():
    # Karras et al. (2022), eq. (5): sigma_i = (80^(1/7) + i/(N-1) (.002^(1/7) - 80^(1/7)))^7.
    i = np.arange(18)
    sigma = (80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    t = np.asarray(schedules.edm())[::-1]
    np.testing.assert_allclose(np.sqrt(np.expm1(2 * t)), sigma, rtol=1e-9)
    u = np.arange(1, 10) / 10
    t = np.asarray(schedules.flow(9, temperature=0.6))
    np.testing.assert_allclose(1 / (0.6 * np.expm1(2 * t)), ((1 - u) / u) ** 2, rtol=1e-12)


def test_log_snr_is_even_in_log_snr():
    t = schedules.log_snr(1e-3, 5.0, 7)
    np.testing.assert_allclose(t[np.array([0, -1])], [1e-3, 5.0], rtol=1e-12)
    steps = np.diff(-np.log(np.expm1(2 * np.asarray(t))))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)
    np.testing.assert_allclose(schedules.linear(0.5, 2.0, 4), [0.5, 1.0, 1.5, 2.0], rtol=1e-15)


@settings(max_examples=5)
@given(hnp.arrays(float, 8, elements=st.floats(1e-3, 12.0)), st.floats(0.2, 5.0))
def test_every_convention_gives_the_same_time(t, temperature):
    snr = 1 / (temperature * np.expm1(2 * t))
    sigma = snr**-0.5
    for given_as in ({"snr": snr}, {"sigma": sigma}, {"flow": sigma / (1 + sigma)}):
        np.testing.assert_allclose(ou_time(**given_as, temperature=temperature), t, rtol=1e-7)
    np.testing.assert_allclose(ou_time(alpha_bar=np.exp(-2 * t)), t, rtol=1e-9)


def test_ends_of_the_conversions():
    assert float(ou_time(alpha_bar=1.0)) == 0
    assert float(ou_time(alpha_bar=0.0)) == np.inf
    assert float(ou_time(flow=1.0)) == np.inf
    assert float(ou_time(snr=0)) == np.inf
    assert float(ou_time(sigma=0)) == 0
    derivative = jax.grad(lambda s: ou_time(sigma=s, temperature=2.0))(1.5)
    assert float(derivative) == pytest.approx(1.5 / (2.0 + 1.5**2), rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha_bar": 1.2}, r"alpha_bar must lie in \[0, 1.0\], but is 1.2"),
        ({"alpha_bar": [0.4, -0.1]}, r"alpha_bar must lie in \[0, 1.0\]"),
        ({"sigma": -1.0}, r"sigma must lie in \[0, inf\], but is -1.0"),
        ({"snr": np.nan}, r"snr must lie in .* but is nan"),
        ({"flow": 1.5}, r"flow must lie in"),
        ({}, r"give exactly one of snr, alpha_bar, sigma, flow; got \[\]"),
        ({"snr": 1.0, "flow": 0.5}, r"give exactly one"),
    ],
)
def test_bad_noise_levels_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ou_time(**arguments)


@pytest.mark.parametrize("name", sorted(schedules.SCHEDULES))
def test_named_schedules_increase(name):
    t = np.asarray(schedules.by_name(name))
    assert np.all(np.diff(t) > 0)
    assert np.all(np.isfinite(t))
    assert schedules.by_name(name, 12).shape == (12,)


def test_unknown_schedule_lists_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown schedule 'sigmoid'.*ddpm-linear, cosine, edm, f"
    ):
        schedules.by_name("sigmoid")
    with pytest.raises(ValueError, match="steps must be at least 1, but is 0"):
        schedules.cosine(0)
    with pytest.raises(ValueError, match="t_min must be positive, but is 0"):
        schedules.log_snr(0.0, 1.0, 5)


def test_step_index_of_a_time():
    t = schedules.ddpm_linear()
    assert schedules.step_index(t, float(t[399])) == 399
    assert schedules.step_index(t, float(t[399]) + 1e-6) == 400
    assert schedules.step_index(t, 0.0) == 0
    assert schedules.step_index(t, 5.06) is None
    assert schedules.step_index(t, float("nan")) is None


def test_backward_grid_runs_down_to_the_end():
    grid = schedules.backward_grid(schedules.edm(6))
    assert grid.shape == (7,)
    assert grid[-1] == 0
    assert np.all(np.diff(np.asarray(grid)) < 0)
    # The cosine schedule begins at t = 0 already: nothing is appended.
    assert schedules.backward_grid(schedules.cosine(6)).shape == (6,)
    assert schedules.backward_grid(schedules.edm(6), end=None).shape == (6,)
    assert jax.jit(schedules.backward_grid)(jnp.array([0.1, 0.5])).tolist() == [0.5, 0.1, 0.0]
