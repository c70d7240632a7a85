"""Entropy production and Franz-Parisi potentials against quadrature and independent numbers."""

import jax
import numpy as np
import pytest

from theory import (
    channel,
    excess_entropy,
    franz_parisi,
    memorisation_rem,
    speed_limit,
    thermodynamics,
)

RATES = {
    0.0: (1.5103975051, 1.4450435933, 0.8450435933, 0.4, 1.2900871865),
    0.2: (1.5246683697, 0.8979360378, 0.1660640562, 0.2681280184, 0.0640000941),
    1.0: (1.4452744863, 0.9488316364, 0.0029657497, 0.0541341133, -0.0482026139),
}


def test_rates():
    found = thermodynamics.mixture_rates(np.array(list(RATES)), 1.0, 0.4)
    np.testing.assert_allclose(np.transpose(found), list(RATES.values()), rtol=0, atol=6e-11)


def test_rates_do_not_cancel_at_large_times():
    """For one Gaussian the production is the square of the excess variance, to leading order."""
    found = thermodynamics.mixture_rates(9.0, 0.0, 0.4)
    excess = -0.6 * np.exp(-18)
    np.testing.assert_allclose(found.production, excess**2 / (1 + excess), rtol=1e-12)


@pytest.mark.parametrize("t", [7.0, 9.0, 12.0])
def test_production_of_unit_variance_at_large_times(t):
    """For mean 0.6 and variance 0.64 the laws meet the normal one in three cumulants.

    With c the centre, the velocity is c^4 (x - x^3/3) to leading order: pi = 2 c^8 / 3.
    """
    centre = 0.6 * np.exp(-t)
    production = thermodynamics.mixture_rates(t, 0.6, 0.64).production
    assert float(production) == pytest.approx(
        2 * centre**8 / 3, rel=1e-3, abs=(1e-16 * centre) ** 2
    )
    assert np.isfinite(speed_limit.production_speed(t, 0.6, 0.64))


def test_narrow_classes():
    """Apart from each other, they have the entropy and the rates of one Gaussian each."""
    for kind, variance in ((np.float32, 1e-6), (np.float64, 1e-14)):
        found = thermodynamics.mixture_rates(*(kind(x) for x in (0.0, 1.0, variance)))
        entropy = 0.5 * np.log(2 * np.pi * np.e * variance) + np.log(2)
        np.testing.assert_allclose(found.entropy, entropy, rtol=1e-6)
        np.testing.assert_allclose(found.fisher, 1 / variance, rtol=1e-5)
        rounding = np.finfo(kind).eps / np.sqrt(variance)  # of a velocity of order one
        np.testing.assert_allclose(found.production, 1 / variance, rtol=1e-5 + rounding)
    found = thermodynamics.total_production(*(np.float32(x) for x in (0.5, 1.0, 1e-12)))
    exact = thermodynamics.total_production(0.5, 1.0, 1e-12)
    np.testing.assert_allclose(found, exact, rtol=1e-5)


def test_entropy_rate_is_production_less_flow():
    def entropy(t):
        return thermodynamics.mixture_rates(t, 1.3, 0.6).entropy

    rates = thermodynamics.mixture_rates(0.35, 1.3, 0.6)
    np.testing.assert_allclose(jax.grad(entropy)(0.35), rates.production - rates.flow, rtol=1e-10)
    assert rates.reverse_flow == pytest.approx(2 * rates.production - rates.flow)


def test_information_and_mmse():
    t, variance = 0.5, 0.4
    rates = thermodynamics.mixture_rates(t, 1.0, variance)
    noise = -np.expm1(-2 * t)
    information = rates.entropy - 0.5 * np.log(2 * np.pi * np.e * noise)
    mmse = (1 / noise - rates.fisher) * noise**2 * np.exp(2 * t)
    np.testing.assert_allclose(information, 0.2968139140, rtol=0, atol=6e-11)
    np.testing.assert_allclose(mmse, 0.7615237913, rtol=0, atol=6e-11)
    np.testing.assert_allclose(channel.binary_mmse(1.0), 0.4495995092, rtol=0, atol=6e-11)
    np.testing.assert_allclose(channel.binary_information(1.0), 0.3368308203, rtol=0, atol=6e-11)


def test_total_production():
    found = thermodynamics.total_production(3.0, 1.0, 0.4)
    np.testing.assert_allclose(found, 0.1085407825, rtol=0, atol=6e-11)
    generative = thermodynamics.generative_production(1.0, 1.0, 1.0)
    np.testing.assert_allclose(generative, 0.1589479106, rtol=0, atol=6e-11)
    t, weights = np.polynomial.legendre.leggauss(40)
    rate = thermodynamics.mixture_rates(0.45 * (1 + t), 1.3, 0.6).production
    np.testing.assert_allclose(
        thermodynamics.total_production(0.9, 1.3, 0.6), 0.45 * rate @ weights, rtol=1e-11
    )


def test_euler_integral_theorem():
    found = thermodynamics.euler_integral_theorem(np.array([5, 10]), 0.1, np.array([1.0, 4.0]), 1.0)
    np.testing.assert_allclose(found, [1.0063253900, 1.0513293815], rtol=0, atol=6e-11)
    assert thermodynamics.euler_integral_theorem(1, 0.3, 1.0, 0.4) != 1
    assert thermodynamics.euler_integral_theorem(0, 0.3, 1.0, 0.4) == pytest.approx(1)
    assert np.isnan(thermodynamics.euler_integral_theorem(20, 0.9, 1.0, 50.0)) == (
        _euler_diverges(20, 0.9, 50.0)
    )


def _euler_diverges(steps, dt, variance):
    spread = 1.0
    for _ in range(steps):
        spread = (1 - dt) ** 2 * spread + 2 * dt
    gamma = 1 + (variance - 1) * np.exp(-2 * steps * dt)
    return (1 - 1 / spread) * gamma >= 1


def test_detailed_theorem():
    found = thermodynamics.detailed_theorem(0.2, 0.5, 1.0, 1.0)
    np.testing.assert_allclose(found, 0.9793976288, rtol=0, atol=6e-11)
    ends = thermodynamics.detailed_theorem(np.array([0.0, 1.0]), 0.5, 1.2, np.array([0.4, 0.7]))
    np.testing.assert_allclose(ends, 1, rtol=1e-10)


def test_slope_of_the_generating_function_is_the_mean_production():
    slope = jax.grad(thermodynamics.detailed_theorem)(0.0, 0.5, 1.2, 0.7)
    mean = thermodynamics.total_production(0.5, 1.2, 0.7)
    np.testing.assert_allclose(-slope, mean, rtol=1e-9)


def test_reverse_flow():
    t, value = thermodynamics.reverse_flow_minimum(1.0, 0.4)
    # the time agrees with extended precision differences, 0.49311076956 after extrapolation
    np.testing.assert_allclose([t, value], [0.4931107696, -0.0911517771], rtol=0, atol=6e-11)
    zero = thermodynamics.reverse_flow_zero(1.0, 0.4)
    np.testing.assert_allclose(zero, 0.2444680966, rtol=0, atol=6e-11)


def test_random_energy_reference():
    found = franz_parisi.random_energy_minimum(0.5, 0.25, 0.4)
    np.testing.assert_allclose(found, [0.18883229, 0.35464022, 0.57129431], rtol=0, atol=6e-9)
    potential = franz_parisi.random_energy_potential(np.array([0.5, 0.7, 1]), 0.5, 0.25, 0.4)
    np.testing.assert_allclose(potential, [0.41432292, 0.57701449, 0.5], rtol=0, atol=6e-9)


@pytest.mark.parametrize("t", [0.12, 0.5])
def test_lowest_slice_is_the_free_energy(t):
    """Below (.12) and above (.5) the collapse time .24016; brute force over overlaps and m."""
    alpha, variance = 0.25, 0.4
    minimum = franz_parisi.random_energy_minimum(t, alpha, variance)
    at = franz_parisi.random_energy_potential(minimum.overlap, t, alpha, variance)
    np.testing.assert_allclose(at, minimum.potential, rtol=1e-9)
    others = memorisation_rem.others_free_energy(t, alpha, variance)
    np.testing.assert_allclose(minimum.potential, -others, rtol=1e-10)
    q = np.linspace(-0.7, 0.7, 141)
    u = variance * np.exp(-2 * t) / -np.expm1(-2 * t)
    m = np.linspace(1e-3, 1, 4000)[:, None]
    bracket = alpha - q**2 / 2 - m * u * (1 - q) ** 2 / 2
    bracket = (bracket - 0.5 * np.log1p(m * u) - m / (2 * (1 + m * u))) / m
    found = franz_parisi.random_energy_potential(q, t, alpha, variance)
    # the grid of m misses a quadratic minimum by its curvature times (2.5e-4)^2
    np.testing.assert_allclose(found, -bracket.min(0), atol=2e-4)
    assert np.all(found >= minimum.potential - 1e-12)


def test_gap_is_the_excess_entropy():
    found = franz_parisi.random_energy_minimum(0.5, 0.25, 0.4)
    excess = excess_entropy.gaussian_excess_entropy(0.5, 2.5, 10, 0.4)
    np.testing.assert_allclose(franz_parisi.OWN_POTENTIAL - found.potential, excess, rtol=1e-10)


def test_lowest_temperature_of_a_slice():
    """Where the last point is, m = 0: the energy u (1 - q)^2 / 2 + 1/2 plus that of its state."""
    u = float(channel.signal_ratio(0.5, 0.4))
    found = franz_parisi.random_energy_potential(0.5, 0.5, 0.125, 0.4)
    assert float(found) == pytest.approx(0.5 * u * (0.5**2 + 1) + 0.5, rel=1e-12)
    near = franz_parisi.random_energy_potential(0.5, 0.5, 0.125 + 1e-10, 0.4)
    assert float(near) == pytest.approx(float(found), rel=1e-4)  # as the root of the entropy


def test_condensed_slices_at_little_noise_in_single_precision():
    q, rest = np.array([-0.5, 0.0, 0.3, 0.7]), (1e-8, 0.25, 0.4)
    found = franz_parisi.random_energy_potential(*map(np.float32, (q, *rest)))
    np.testing.assert_allclose(found, franz_parisi.random_energy_potential(q, *rest), rtol=2e-5)


def test_overlaps_without_points():
    assert np.isnan(franz_parisi.random_energy_potential(0.8, 0.5, 0.25, 0.4))


SCALAR = [
    ((0.5, 1.0, 1.0, 0.1), 2.394865), ((1.0, 1.0, 1.0, 0.1), 4.202176),
    ((4.0, 1.0, 1.0, 0.1), 3.154779), ((0.5, 0.1, 1.0, 0.1), 3.103359),
    ((1.0, 0.1, 1.0, 0.1), 5.611163), ((4.0, 0.1, 1.0, 0.1), 11.746492),
    ((1.0, 1.0, 1.0, 1.0), 2.330708), ((0.5, 0.1, 1.0, 1.0), 2.411270),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "value"), SCALAR)
def test_scalar_potential(arguments, value):
    assert franz_parisi.scalar_potential(*arguments) == pytest.approx(value, abs=6e-7)


CONTRACT = {
    "mixture_rates": (thermodynamics.mixture_rates, (0.3, 1.3, 0.6)),
    "total_production": (thermodynamics.total_production, (0.3, 1.3, 0.6)),
    "detailed_theorem": (thermodynamics.detailed_theorem, (0.3, 0.4, 1.3, 0.6)),
    "euler": (lambda dt, *law: thermodynamics.euler_integral_theorem(6, dt, *law), (0.1, 1.3, 0.6)),
    "reverse_flow": (
        lambda *law: (
            thermodynamics.reverse_flow_zero(*law),
            thermodynamics.reverse_flow_minimum(*law),
        ),
        (1.1, 0.5),
    ),
    "annealed": (franz_parisi.random_energy_potential, (0.5, 0.5, 0.25, 0.4)),
    "condensed": (franz_parisi.random_energy_potential, (0.65, 0.5, 0.25, 0.4)),
    "overlaps": (franz_parisi.random_energy_minimum, (0.5, 0.25, 0.4)),
    "scalar": (franz_parisi.scalar_potential, (0.5, 0.4, 1.1, 0.3)),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("reverse_flow", "overlaps") else name
        for name in CONTRACT
    ],
)
def test_batches_and_derivatives(name):
    function, arguments = CONTRACT[name]

    def call(vector):
        return jax.numpy.stack(jax.tree.leaves(function(*vector)))

    vector = np.array(arguments)
    step = 1e-5 * vector
    moves = np.concatenate([np.zeros((1, vector.size)), np.diag(step), -np.diag(step)])
    both = jax.jit(lambda v, batch: (jax.lax.map(call, batch), jax.jacrev(call)(v)))
    batch, jacobian = map(np.asarray, both(vector, vector + moves))
    np.testing.assert_allclose(jax.vmap(call)(vector[None])[0], call(vector), rtol=1e-10)
    slopes = (batch[1 : 1 + vector.size] - batch[1 + vector.size :]) / (2 * step[:, None])
    assert np.isfinite(slopes).all()
    np.testing.assert_allclose(jacobian.T, slopes, rtol=0, atol=1e-6 * (1 + np.abs(slopes).max()))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (thermodynamics.mixture_rates, (-0.1, 1.0, 0.4), "t=-0.1"),
        (thermodynamics.mixture_rates, (0.1, 1.0, 0.0), "variance must be positive"),
        (thermodynamics.detailed_theorem, (1.5, 0.1, 1.0, 0.4), "k=1.5"),
        (thermodynamics.euler_integral_theorem, (3, 2.5, 1.0, 0.4), "dt=2.5"),
        (franz_parisi.random_energy_potential, (1.2, 0.5, 0.25, 0.4), "q=1.2"),
        (franz_parisi.scalar_potential, (0.0, 0.5, 1.0, 0.4), "q must be positive"),
    ],
)
def test_bad_numbers_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
