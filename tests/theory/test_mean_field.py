"""Potts and O(n) magnets: reference values, exact sums at finite size, other ways, limits."""

import jax
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import gammaln, ive, logsumexp

from theory import bessel, curie_weiss, mean_field, potentials

DIGITS_10 = {"rtol": 0, "atol": 6e-11}
SIZES = np.array([100, 200, 400])


def test_reference_values():
    transition = mean_field.potts_transition(3)
    np.testing.assert_allclose(transition[:3], [2.7725887222, 0.5, 2.7456435767], **DIGITS_10)
    assert transition.instability == 3
    m = mean_field.rotor_magnetization(np.array([2.0, 3.0]), np.array([3.0, 4.5]))
    np.testing.assert_allclose(m, [0.7241587176, 0.6757069001], **DIGITS_10)


def test_two_colours_are_ising_spins():
    """beta is halved; the transition is continuous, and its record smooth towards it."""
    np.testing.assert_array_equal(mean_field.potts_transition(2.0), [2, 0, 2, 2])
    near = np.array(mean_field.potts_transition(2 + 1e-5))
    np.testing.assert_allclose(near, [2 + 1e-5, 1e-5, 2 + 1e-5, 2 + 1e-5], rtol=0, atol=2e-10)
    branches = mean_field.potts_magnetization(2.0, np.array([1.5, 3.0]))
    ising = curie_weiss.magnetization(np.array([0.75, 1.5]))
    np.testing.assert_allclose(branches.stable, ising, atol=1e-12)
    np.testing.assert_array_equal(branches.unstable, [np.nan, 0])
    assert np.isnan(branches.metastable).all()
    one = mean_field.rotor_magnetization(1.0, np.array([0.75, 1.5]))
    np.testing.assert_allclose(one, ising, atol=1e-12)


@pytest.mark.parametrize("q", [2.5, 3.0, 7.0])
def test_potts_transition_by_brute_force(q):
    """Equal free energies at coexistence; the lowest beta of (1) at the spinodal."""
    transition = mean_field.potts_transition(q)

    def gap(beta):
        def free(m):
            return float(mean_field.potts_free_energy(m, q, beta))

        ordered = minimize_scalar(free, bounds=(0.6 * jump, 1), options={"xatol": 1e-12})
        return ordered.fun - free(0.0)

    jump = (q - 2) / (q - 1)
    critical = brentq(gap, transition.beta - 0.02, transition.beta + 0.02, xtol=1e-12)
    np.testing.assert_allclose(transition.beta, critical, rtol=1e-9)
    np.testing.assert_allclose(transition.magnetization, jump, rtol=1e-14)
    lowest = minimize_scalar(
        lambda m: np.log((1 + (q - 1) * m) / (1 - m)) / m, bounds=(1e-3, 0.999)
    )
    np.testing.assert_allclose(transition.spinodal, lowest.fun, rtol=1e-9)


def test_potts_branches():
    q = 3.0
    spinodal, critical = mean_field.potts_transition(q).spinodal, 4 * np.log(2)
    beta = np.array([spinodal - 1e-6, 0.5 * (spinodal + critical), critical + 1e-9, 2.9, 3.0, 4.0])
    branches = mean_field.potts_magnetization(q, beta)
    m = np.array(branches)
    expected = np.expm1(beta * m) / (np.exp(beta * m) + q - 1)
    np.testing.assert_allclose(m, expected, atol=1e-12)
    np.testing.assert_array_equal(np.isnan(m[1]), [True, False, False, False, True, True])
    np.testing.assert_array_equal(np.isnan(m[2]), [True, False, False, False, False, False])
    np.testing.assert_array_equal(m[0][:2], 0)
    np.testing.assert_allclose(m[0][2], 0.5, atol=1e-7)
    np.testing.assert_array_equal(m[2][4:], 0)
    energy = np.array(mean_field.potts_free_energy(m, q, beta))
    assert (energy[0][1:4] < energy[1][1:4]).all()
    assert (energy[1][1:4] < energy[2][1:4]).all()


def test_potts_spinodal_is_that_of_the_simplex():
    """beta = 2q A^2/(q - 1): classes of ordered Potts data are a simplex of Gaussians."""
    q = np.array([2.0, 3.0, 10.0])
    amplitude = potentials.simplex_spinodal(q)
    transition = mean_field.potts_transition(q)
    np.testing.assert_allclose(transition.spinodal, 2 * q * amplitude**2 / (q - 1), rtol=1e-12)
    unstable = 2 * q * potentials.simplex_instability(q) ** 2 / (q - 1)
    np.testing.assert_allclose(transition.instability, unstable, rtol=1e-14)


def potts_sum(dim, beta):
    """Between-class eigenvalue of three colours from all their numbers."""
    first, second = np.meshgrid(np.arange(dim + 1), np.arange(dim + 1))
    counts = np.stack([first, second, dim - first - second])
    counts = counts[:, counts[2] >= 0]
    squares = (counts**2).sum(0)
    logs = gammaln(dim + 1) - gammaln(counts + 1).sum(0) + beta * squares / (2 * dim)
    mean = np.exp(logs - logsumexp(logs)) @ squares / dim
    return (mean - dim / 3) / 2


def rotor_integral(dim, n, beta):
    """<|M|^2>/(n d) as the derivative of log Z, an integral over the length of the field."""

    def log_partition(b):
        v = np.linspace(1e-6, 2.5, 40001)
        order, y = n / 2 - 1, b * v
        spin = np.log(ive(order, y)) + y - order * np.log(y)
        logs = (n - 1) * np.log(v) + n / 2 * np.log(b) + dim * (spin - b * v**2 / 2)
        return logsumexp(logs)

    return 2 / n * (log_partition(beta + 1e-4) - log_partition(beta - 1e-4)) / 2e-4


@pytest.mark.parametrize("beta", [1.5, 4.5])
def test_potts_eigenvalue(beta):
    """The error falls like 1/d, in the paramagnet and in the ordered state."""
    exact = np.array([potts_sum(int(d), beta) for d in SIZES])
    errors = exact - mean_field.potts_top_eigenvalue(SIZES, 3.0, beta)
    np.testing.assert_allclose(errors[1:] * SIZES[1:] / (errors[:-1] * SIZES[:-1]), 1, atol=0.05)
    assert abs(errors[-1]) < 1 / SIZES[-1]


@pytest.mark.parametrize(("n", "beta"), [(2, 1.2), (4, 7.0)])
def test_rotor_eigenvalue(n, beta):
    exact = np.array([rotor_integral(int(d), n, beta) for d in SIZES])
    errors = exact - mean_field.rotor_top_eigenvalue(SIZES, n, beta)
    ratio = errors[1:] * SIZES[1:] / (errors[:-1] * SIZES[:-1])
    np.testing.assert_allclose(ratio, 1, atol=0.08)
    assert abs(errors[-1]) < 6 / SIZES[-1]


def test_leading_order_of_the_eigenvalues():
    dim = 10**8
    m = mean_field.potts_magnetization(3.0, 3.5).stable
    value = mean_field.potts_top_eigenvalue(dim, 3.0, 3.5)
    np.testing.assert_allclose(value, dim * m**2 / 3, rtol=1e-7)
    norm = mean_field.potts_class_norm(dim, 3.0, 3.5)
    np.testing.assert_allclose(value, norm**2 / 2, rtol=1e-7)
    time = mean_field.potts_speciation_time(dim, 3.0, 3.5, 0.6)
    np.testing.assert_allclose(time, 0.5 * np.log(value / 0.6), rtol=1e-14)
    m = mean_field.rotor_magnetization(3.0, 4.5)
    value = mean_field.rotor_top_eigenvalue(dim, 3.0, 4.5)
    np.testing.assert_allclose(value, dim * m**2 / 3, rtol=1e-7)
    time = mean_field.rotor_speciation_time(dim, 3.0, 4.5, 0.6)
    np.testing.assert_allclose(time, 0.5 * np.log(value / 0.6), rtol=1e-14)
    assert mean_field.rotor_top_eigenvalue(dim, 3.0, 3.0) == np.inf


def test_ising_is_one_component():
    one = mean_field.rotor_top_eigenvalue(64, 1.0, np.array([0.6, 1.5]))
    ising = curie_weiss.asymptotic_top_eigenvalue(64, np.array([0.6, 1.5]))
    np.testing.assert_allclose(one, ising, rtol=1e-11)
    colours = mean_field.potts_top_eigenvalue(64, 2.0, np.array([1.2, 3.0]))
    # one-hot pairs are signs divided by the square root of two
    np.testing.assert_allclose(colours, ising / 2, rtol=1e-11)


def test_rotor_near_and_below_the_transition():
    n = np.array([1.0, 2.0, 50.0])
    np.testing.assert_array_equal(mean_field.rotor_magnetization(n, n), 0)
    above = 1e-9
    # y R(y): m^2 = (n + 2)(beta - n)/n^2 to leading order
    value = mean_field.rotor_magnetization(n, n + above)
    exact = np.sqrt((n + 2) * ((n + above) - n)) / n
    np.testing.assert_allclose(value, exact, rtol=1e-8)
    slope = jax.grad(mean_field.rotor_magnetization, 1)(3.0, 4.5)
    moved = mean_field.rotor_magnetization(3.0, np.array([4.5 + 1e-5, 4.5 - 1e-5]))
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / 2e-5, rtol=1e-8)


def test_bessel_ratio():
    order = np.array([-0.5, 0.0, 0.5, 4.0, 49.5, 500.0])[:, None]
    y = np.array([1e-8, 0.5, 10.0, 300.0, 1e3, 5e3, 1e6])
    # the continued fraction, from far above in extended precision
    ratio, start = np.ones(np.broadcast_shapes(order.shape, y.shape)), 20200
    ratio = ratio.astype(np.longdouble)
    for k in range(start, -1, -1):
        ratio = y / (2 * (order + k + 1) + y * ratio)
    np.testing.assert_allclose(bessel.bessel_ratio(order, y), ratio.astype(float), rtol=1e-14)
    np.testing.assert_allclose(bessel.bessel_ratio(-0.5, y), np.tanh(y), rtol=1e-14)
    langevin = 1 / np.tanh(y[1:]) - 1 / y[1:]
    np.testing.assert_allclose(bessel.bessel_ratio(0.5, y[1:]), langevin, rtol=1e-13)
    assert bessel.bessel_ratio(1.0, 0.0) == 0


BAD = [
    (mean_field.potts_transition, (1.0,), "q=1.0"),
    (mean_field.potts_transition, (1.9,), "q must be >= 2"),
    (mean_field.potts_magnetization, (3.0, -1.0), "beta=-1.0"),
    (mean_field.potts_free_energy, (0.1, 1, 2.0), "q=1"),
    (mean_field.potts_top_eigenvalue, (0, 3.0, 2.0), "dim=0"),
    (mean_field.potts_speciation_time, (9, 3.0, 2.0, 0.0), "temperature=0.0"),
    (mean_field.rotor_magnetization, (0.5, 2.0), "n=0.5"),
    (mean_field.rotor_top_eigenvalue, (9, 2.0, np.inf), "beta=inf"),
    (bessel.bessel_ratio, (-1.0, 2.0), "order=-1.0"),
    (bessel.bessel_ratio, (1.0, -2.0), "y=-2.0"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_numbers_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
