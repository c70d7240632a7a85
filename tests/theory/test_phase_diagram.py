"""Phases of the frozen potential against quadrature, roots of its slope and closed times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import phase_diagram, potentials, speciation

T, MEAN, VARIANCE = 0.3, 1.1, 0.4


def quadrature(t, mean, variance):
    y = np.linspace(-25, 25, 20_001)
    weight = np.exp(-np.asarray(potentials.reduced_potential(y, t, mean, variance)))
    return y, weight / weight.sum()


@pytest.mark.parametrize("point", [(0.3, 1.1, 0.4), (0.1, 2.0, 1.0), (0.9, 1.5, 3.0)])
def test_equilibrium_measure_is_three_gaussians(point):
    y, weight = quadrature(*point)
    step = y[1] - y[0]
    at = np.array([2000, 9000, 10_500, 12_000])
    below = np.cumsum(weight)[at] - 0.5 * weight[at]  # trapezoid up to the node
    found = phase_diagram.equilibrium_distribution(y[at], *point)
    np.testing.assert_allclose(found, below, atol=0.1 * step**2)
    second = float(phase_diagram.equilibrium_variance(*point))
    assert second == pytest.approx((weight * y**2).sum(), rel=1e-10)
    t, mean, variance = point
    gamma = 1 + (variance - 1) * np.exp(-2 * t)
    law = sum(np.exp(-((y - s * mean * np.exp(-t)) ** 2) / (2 * gamma)) for s in (1, -1))
    law /= law.sum()
    used = law > 1e-300
    divergence = (law[used] * np.log(law[used] / weight[used])).sum()
    assert float(phase_diagram.equilibrium_divergence(*point)) == pytest.approx(
        divergence, rel=1e-8
    )


def test_wells_and_modes_are_stationary():
    def energy(y, t, mean, variance):
        return potentials.reduced_potential(y, t, mean, variance, temperature=0.6)

    y = float(phase_diagram.well_position(T, 2.1, VARIANCE, 0.6))
    slope, bend = jax.grad(energy), jax.grad(jax.grad(energy))
    assert y > 0.5
    assert float(slope(y, T, 2.1, VARIANCE)) == pytest.approx(0, abs=1e-12)
    assert float(bend(y, T, 2.1, VARIANCE)) > 0

    x = np.linspace(0, 4, 400_001)
    noise = 0.6 * -np.expm1(-2 * T)
    gamma, centre = noise + VARIANCE * np.exp(-2 * T), 2.1 * np.exp(-T)
    law = np.exp(-((x - centre) ** 2) / (2 * gamma)) + np.exp(-((x + centre) ** 2) / (2 * gamma))
    found = float(phase_diagram.mode_position(T, 2.1, VARIANCE, 0.6))
    assert found == pytest.approx(x[np.argmax(law)], abs=1e-5)


@given(st.floats(0.3, 3.0), st.floats(0.1, 1.9))
def test_wells_and_modes_appear_at_the_known_times(mean, variance):
    for position, time in (
        (phase_diagram.well_position, speciation.mixture_dynamic_time(mean, variance)),
        (phase_diagram.mode_position, speciation.mixture_static_time(mean, variance)),
    ):
        if np.isfinite(time) and time > 1e-3:
            assert float(position(time * 1.001, mean, variance)) == 0
            assert float(position(time * 0.999, mean, variance)) > 0
        else:
            assert float(position(0.01, mean, variance)) == 0


def test_narrow_classes_in_single_precision():
    """At t = 0 the modes are the centres, and the wells of U those of -2 log p_0."""
    point = [jnp.float32(x) for x in (0.0, 1.3, 1e-8)]
    np.testing.assert_allclose(phase_diagram.mode_position(*point), 1.3, rtol=1e-6)
    np.testing.assert_allclose(phase_diagram.well_position(*point), 1.3, rtol=1e-6)
    np.testing.assert_allclose(phase_diagram.equilibrium_variance(*point), 1.69, rtol=1e-6)


def test_reference_times():
    """U double well and p_t bimodal are different events; both from the sheets' closed forms."""
    dynamic = float(speciation.mixture_dynamic_time(1.0, 0.4))
    static = float(speciation.mixture_static_time(1.0, 0.4))
    assert dynamic == pytest.approx(0.38648502, abs=5e-9)
    assert static < 0.3 < dynamic
    assert float(phase_diagram.well_position(0.3, 1.0, 0.4)) > 0
    assert float(phase_diagram.mode_position(0.3, 1.0, 0.4)) == 0


def test_unbounded_potential():
    time = float(phase_diagram.unbounded_time(2.5))
    assert time == pytest.approx(0.5 * np.log(1.5), rel=1e-14)
    assert np.isnan(phase_diagram.unbounded_time(2.0))
    far = potentials.reduced_potential(np.array([1e3, 1e4]), time - 0.01, 1.0, 2.5)
    assert far[1] < far[0] < 0
    far = potentials.reduced_potential(np.array([1e3, 1e4]), time + 0.01, 1.0, 2.5)
    assert far[1] > far[0] > 0
    for function in (phase_diagram.well_position, phase_diagram.equilibrium_variance):
        assert np.isnan(function(time - 0.01, 1.0, 2.5))
        assert np.isfinite(function(time + 0.01, 1.0, 2.5))
    assert float(phase_diagram.unbounded_time(1.5, 0.6)) == pytest.approx(time, rel=1e-14)


FUNCTIONS = {
    "unbounded": (phase_diagram.unbounded_time, (2.7, 0.9)),
    "well": (phase_diagram.well_position, (T, 1.4, VARIANCE, 0.8)),
    "mode": (phase_diagram.mode_position, (T, 1.4, VARIANCE, 0.8)),
    "distribution": (phase_diagram.equilibrium_distribution, (0.3, T, MEAN, VARIANCE)),
    "variance": (phase_diagram.equilibrium_variance, (T, MEAN, VARIANCE)),
    "divergence": (phase_diagram.equilibrium_divergence, (T, MEAN, VARIANCE)),
}


SLOW = ("divergence", "distribution", "variance")  # to compile


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in FUNCTIONS]
)
def test_derivatives_batches_and_dtype(name, strict):
    function, arguments = FUNCTIONS[name]
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
    assert float(batch[0]) == pytest.approx(float(function(*arguments)), rel=1e-11)
    single = jax.eval_shape(function, *(jnp.asarray(a, jnp.float32) for a in arguments))
    assert single.dtype == jnp.float32


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (phase_diagram.unbounded_time, (-1.0,), "variance=-1"),
        (phase_diagram.well_position, (-0.1, 1.0, 0.4), "t=-0.1"),
        (phase_diagram.equilibrium_divergence, (0.1, 1.0, 0.0), "variance must be positive"),
    ],
)
def test_bad_numbers_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
