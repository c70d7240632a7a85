"""Curie-Weiss data: reference values, enumeration, corrections of finite size, limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import expit, gammaln, logsumexp

from theory import curie_weiss, potentials
from theory.collapse import spin_collapse_time

DIGITS_10 = {"rtol": 0, "atol": 6e-11}
DIGITS_7 = {"rtol": 0, "atol": 6e-8}
BETA = 1.5
ORDER = 0.8585596366
SIZES = np.array([256, 724, 2048])

COLLAPSE_SLOPES = jax.jit(jax.value_and_grad(curie_weiss.collapse_time, (0, 1, 2, 3)))


def speciation(dim, shift=0.0):
    """Time relative to half the logarithm of d m^2."""
    return 0.5 * np.log(dim * ORDER**2) + shift


def exponent(errors):
    """Power of the size with which errors fall."""
    return np.polyfit(np.log(SIZES), np.log(np.abs(errors)), 1)[0]


def test_reference_magnetisation():
    values = curie_weiss.magnetization(np.array([1.1, 1.5, 3.0]))
    np.testing.assert_allclose(values, [0.5029405749, 0.8585596366, 0.9949015285], **DIGITS_10)


def test_reference_partition_function():
    mean_field = -curie_weiss.free_energy_density(BETA)
    finite = curie_weiss.log_partition(200, BETA) / 200
    np.testing.assert_allclose([mean_field, finite], [0.8083413494, 0.8130903969], **DIGITS_10)


def test_reference_eigenvalues_and_times():
    values = [
        curie_weiss.top_eigenvalue(64, BETA),
        curie_weiss.spectral_speciation_time(64, BETA),
        curie_weiss.dynamic_speciation_time(64, BETA),
    ]
    np.testing.assert_allclose(values, [45.8175308531, 1.9123333938, 2.2589665186], **DIGITS_10)
    larger = curie_weiss.top_eigenvalue(256, np.array([1.0, 2.0]))
    np.testing.assert_allclose(larger, [18.4679401610, 234.3603858209], **DIGITS_10)
    time = curie_weiss.dynamic_speciation_time(256, 2.0)
    np.testing.assert_allclose(time, 3.0750058866, **DIGITS_10)


def test_reference_clone_agreement():
    times = speciation(256, np.array([-1.0, 0.0, 1.0]))
    value = curie_weiss.clone_agreement(times, 256, BETA)
    np.testing.assert_allclose(value, [0.9954, 0.7757, 0.5601], rtol=0, atol=6e-5)
    # exact, by simulation
    simulated, error = np.array([0.9957, 0.7727, 0.5594]), np.array([6e-4, 3.1e-3, 1.2e-3])
    assert (np.abs(value - simulated) < 4 * error).all()
    tilted = curie_weiss.clone_agreement(times[1], 256, BETA, 0.5)
    assert abs(tilted - 0.8008) < 4 * 0.0031
    weight = curie_weiss.exact_class_weight(256, BETA, 0.5)
    np.testing.assert_allclose(weight, 0.7015747, **DIGITS_7)


def test_reference_entropy_and_information():
    np.testing.assert_allclose(
        curie_weiss.binary_entropy_of_magnetization(BETA), 0.2554978622, **DIGITS_10
    )
    np.testing.assert_allclose(curie_weiss.entropy_density(0.5, BETA), 1.2584177551, **DIGITS_10)
    values = curie_weiss.information(np.array([0.1, 0.5, 1.0]), BETA)
    np.testing.assert_allclose(values, [0.2346404089, 0.0688167946, 0.0200995236], **DIGITS_10)


def test_reference_collapse_times():
    times = curie_weiss.collapse_time(np.array([0.05, 0.1, 0.3]), BETA)
    np.testing.assert_allclose(times, [0.6195065522, 0.3708078979, 0], **DIGITS_10)
    np.testing.assert_allclose(curie_weiss.collapse_time(0.1, 0.5), 0.8534351823, **DIGITS_10)


@pytest.mark.parametrize("dim", [1, 7, 10])
def test_sums_against_enumeration(dim):
    """All 2^d states, with a field."""
    beta, field = np.array([0.7, 1.5, 2.5]), 0.13
    states = np.array(list(itertools.product([-1, 1], repeat=dim)))
    total = states.sum(1)
    logs = beta[:, None] * total**2 / (2 * dim) + field * total
    log_partition = logsumexp(logs, axis=1)
    weights = np.exp(logs - log_partition[:, None])
    mean = weights @ states
    covariance = np.einsum("bs,si,sj->bij", weights, states, states)
    covariance -= mean[:, :, None] * mean[:, None, :]
    largest = np.linalg.eigvalsh(covariance)[:, -1]
    positive = weights @ (0.5 + 0.5 * np.sign(total))
    np.testing.assert_allclose(
        curie_weiss.log_partition(dim, beta, field), log_partition, rtol=1e-13
    )
    np.testing.assert_allclose(curie_weiss.top_eigenvalue(dim, beta, field), largest, rtol=1e-12)
    weight = curie_weiss.exact_class_weight(dim, beta, dim * field)
    np.testing.assert_allclose(weight, positive, rtol=1e-13)


def test_partition_function_against_the_decoupled_integral():
    """Trapezoid rule over the field v, at a size where no enumeration is possible."""
    dim, beta, field = 1024, 1.3, 0.02
    v = np.linspace(-1.6, 1.6, 2001)
    free = np.array(curie_weiss.landau_free_energy(v, beta, field))
    integral = logsumexp(-dim * free) + np.log((v[1] - v[0]) * np.sqrt(dim * beta / (2 * np.pi)))
    np.testing.assert_allclose(curie_weiss.log_partition(dim, beta, field), integral, rtol=1e-13)


def test_derivatives_of_the_partition_function():
    """d log Z/d beta = <M^2>/2d, and the curvature by the field is the eigenvalue."""
    slope = jax.grad(curie_weiss.log_partition, 1)(64, BETA)
    np.testing.assert_allclose(slope, curie_weiss.top_eigenvalue(64, BETA) / 2, rtol=1e-12)
    curvature = jax.jit(jax.hessian(lambda h: curie_weiss.log_partition(64, BETA, h)))(0.07)
    exact = 64 * curie_weiss.top_eigenvalue(64, BETA, 0.07)
    np.testing.assert_allclose(curvature, exact, rtol=1e-10)


@pytest.mark.parametrize("beta", [0.6, 1.5, 2.5])
def test_eigenvalue_expansion(beta):
    """The error of the expansion falls like 1/d; without its last term it stays of order one."""
    exact = np.array([curie_weiss.top_eigenvalue(int(d), beta) for d in SIZES])
    errors = exact - curie_weiss.asymptotic_top_eigenvalue(SIZES, beta)
    assert abs(exponent(errors) + 1) < 0.05
    if beta > 1:
        m, chi = curie_weiss.magnetization(beta), curie_weiss.susceptibility(beta)
        assert abs((exact - SIZES * m**2 - chi)[-1]) > 20 * abs(errors[-1])


def test_critical_eigenvalue():
    """Lambda grows like 1.17 sqrt(d), so the time like log(d)/4."""
    sizes = np.array([2**10, 2**12, 2**14])
    exact = np.array([curie_weiss.top_eigenvalue(int(d), 1.0) for d in sizes])
    limit = curie_weiss.asymptotic_top_eigenvalue(sizes, 1.0)
    np.testing.assert_allclose(limit / np.sqrt(sizes), 1.17083, atol=1e-5)
    relative = exact / limit - 1
    # corrections of relative order d^(-1/2)
    np.testing.assert_allclose(relative[1:] / relative[:-1], 0.5, atol=0.02)
    assert abs(relative[-1]) < 2e-3
    times = np.array([curie_weiss.spectral_speciation_time(int(d), 1.0) for d in sizes])
    np.testing.assert_allclose(np.diff(times) / np.diff(np.log(sizes)), 0.25, atol=2e-3)


def test_times_are_the_criteria_of_the_eigenvalue():
    eigenvalue = float(curie_weiss.top_eigenvalue(30, 0.7)) / 0.6
    static = curie_weiss.static_speciation_time(30, 0.7, 0.6)
    np.testing.assert_allclose(static, 0.5 * np.log1p(eigenvalue), rtol=1e-14)
    dynamic = curie_weiss.dynamic_speciation_time(30, 0.7, 0.6)
    np.testing.assert_allclose(dynamic, 0.5 * np.arcsinh(eigenvalue), rtol=1e-14)


def test_dynamic_time_is_where_the_exact_potential_splits():
    """U = -2T log P_t - |x|^2/2 along the uniform direction: |a|^2 = d, the rest is log Z(h)."""
    dim, temperature = 40, 0.6
    time = curie_weiss.dynamic_speciation_time(dim, BETA, temperature)
    noise = -temperature * np.expm1(-2 * time)
    tilt = np.exp(-time) / noise / np.sqrt(dim)

    def potential(mu):
        known = curie_weiss.log_partition(dim, BETA, tilt * mu)
        return temperature * (mu**2 / noise - 2 * known) - 0.5 * mu**2

    assert abs(jax.jit(jax.hessian(potential))(0.0)) < 1e-12


def test_projected_potential_splits_as_at_a_shifted_temperature():
    """Averaging over the other directions turns beta into beta - snr at the centre."""
    dim, temperature, t = 40, 0.6, 1.9

    def potential(mu):
        return curie_weiss.exact_overlap_potential(mu, t, dim, BETA, temperature=temperature)

    noise = -temperature * np.expm1(-2 * t)
    ratio = np.exp(-2 * t) / noise
    eigenvalue = curie_weiss.top_eigenvalue(dim, BETA - ratio)
    expected = -1 + 2 * temperature / noise * (1 - ratio * eigenvalue)
    np.testing.assert_allclose(jax.jit(jax.hessian(potential))(0.0), expected, rtol=1e-11)


def test_magnetisation_at_and_near_the_critical_point():
    np.testing.assert_array_equal(curie_weiss.magnetization(np.array([0.0, 0.6, 1.0])), 0)
    for above in (1e-12, 1e-6):
        beta = 1 + above
        exact = np.sqrt(3 * (beta - 1))
        np.testing.assert_allclose(curie_weiss.magnetization(beta), exact, rtol=2 * above + 1e-9)
    # m^3 = 3h at beta = 1
    np.testing.assert_allclose(curie_weiss.magnetization(1.0, 1e-12), 3e-12 ** (1 / 3), rtol=1e-7)
    np.testing.assert_allclose(curie_weiss.magnetization(0.0, 0.3), np.tanh(0.3), rtol=1e-14)
    np.testing.assert_allclose(1 - curie_weiss.magnetization(30.0), 0, atol=1e-15)
    slopes = jax.grad(curie_weiss.magnetization, (0, 1))(1.0, 0.0)
    np.testing.assert_array_equal(slopes, 0)


def test_response_to_the_field():
    """dm/dh is the susceptibility, in both phases and at zero field."""
    for beta, field in [(0.6, 0.0), (1.5, 0.0), (1.5, -0.1), (0.9, 0.3)]:
        slope = jax.grad(curie_weiss.magnetization, 1)(beta, field)
        np.testing.assert_allclose(slope, curie_weiss.susceptibility(beta, field), rtol=1e-11)
    assert curie_weiss.susceptibility(1.0) == np.inf


def test_branches_against_brute_force():
    beta = 1.4
    limit = float(curie_weiss.spinodal_field(beta))
    for field in (0.0, 0.6 * limit, -0.6 * limit, 0.999 * limit):
        grid = np.linspace(-1, 1, 4002)
        values = np.tanh(beta * grid + field) - grid
        places = np.nonzero(np.diff(np.sign(values)))[0]

        def equation(m, field=field):
            return np.tanh(beta * m + field) - m

        roots = [brentq(equation, grid[i], grid[i + 1], xtol=1e-15) for i in places]
        found = curie_weiss.magnetization_branches(beta, field)
        np.testing.assert_allclose(np.sort(found), roots, atol=1e-12)
        energy = [curie_weiss.landau_free_energy(m, beta, field) for m in found]
        assert energy[0] <= energy[1] + 1e-15
        assert energy[1] < energy[2]
    beyond = curie_weiss.magnetization_branches(beta, 1.001 * limit)
    assert np.isnan(beyond[1:]).all()
    np.testing.assert_array_equal(curie_weiss.magnetization_branches(0.8), [0, np.nan, np.nan])
    np.testing.assert_array_equal(
        curie_weiss.spinodal_field(np.array([0.9, 1.0])), np.array([np.nan, 0])
    )


def test_landau_coefficients_are_taylor_coefficients():
    beta, field = 1.3, 1e-6
    coefficients = curie_weiss.landau_coefficients(beta, field)

    def free_energy(v):
        return curie_weiss.landau_free_energy(v, beta, field)

    value, derivatives = free_energy, []
    for factorial in (1, 1, 2, 6, 24):
        derivatives.append(jax.jit(value)(0.0) / factorial)
        value = jax.grad(value)
    kept = [derivatives[i] for i in (0, 1, 2, 4)]
    np.testing.assert_allclose(coefficients, kept, atol=1e-11)


def test_entropy_against_integration():
    t, temperature, field = 0.4, 0.6, 0.05
    noise = -temperature * np.expm1(-2 * t)
    m = float(curie_weiss.magnetization(BETA, field))

    def density(x):
        parts = [
            (1 + s * m) / 2 * np.exp(-((x - s * np.exp(-t)) ** 2) / (2 * noise)) for s in (1, -1)
        ]
        return sum(parts) / np.sqrt(2 * np.pi * noise)

    entropy = quad(lambda x: -density(x) * np.log(density(x)), -7, 7, epsabs=1e-13, limit=200)[0]
    value = curie_weiss.entropy_density(t, BETA, field, temperature)
    np.testing.assert_allclose(value, entropy, rtol=1e-11)


def test_information_at_the_ends_of_time():
    entropy = curie_weiss.binary_entropy_of_magnetization(BETA)
    early = curie_weiss.information(np.array([0.0, 1e-200, 1e-3]), BETA)
    np.testing.assert_allclose(early, entropy, rtol=1e-13)
    assert curie_weiss.information(np.inf, BETA) == 0
    late, variance = curie_weiss.information(8.0, BETA), 1 - ORDER**2
    np.testing.assert_allclose(late, 0.5 * variance * np.exp(-16.0), rtol=1e-5)
    assert curie_weiss.entropy_density(0.0, BETA) == -np.inf
    slopes = jax.vmap(jax.grad(curie_weiss.information), (0, None))(
        jnp.array([0.0, 1e-200, jnp.inf]), BETA
    )
    np.testing.assert_array_equal(slopes, 0)


def test_collapse_time_is_the_root():
    alpha, beta = np.array([1e-6, 0.02, 0.2, 0.25]), np.array([1.5, 1.2, 1.5, 1.0])
    times = curie_weiss.collapse_time(alpha, beta, 0.0, 0.6)
    assert (times > 0).all()
    found = curie_weiss.information(times, beta, 0.0, 0.6)
    np.testing.assert_allclose(found, alpha, rtol=1e-10)


def test_collapse_time_limits():
    """Fair signs up to the critical point, and none above the entropy of the magnetisation."""
    fair = spin_collapse_time(0.3, 0.6)
    times = curie_weiss.collapse_time(0.3, np.array([0.0, 0.7, 1.0]), 0.0, 0.6)
    np.testing.assert_allclose(times, fair, rtol=1e-12)
    entropy = float(curie_weiss.binary_entropy_of_magnetization(BETA))
    near = curie_weiss.collapse_time(entropy * (1 + np.array([-1e-9, 0, 1e-9])), BETA)
    assert near[0] > 0
    np.testing.assert_array_equal(near[1:], 0)


def test_gradients_of_the_collapse_time():
    start = np.array([0.1, 1.5, 0.05, 0.6])
    slopes = COLLAPSE_SLOPES(*start.tolist())[1]
    moves = 1e-5 * np.eye(4)
    above, below = (curie_weiss.collapse_time(*(start + s * moves).T) for s in (1, -1))
    np.testing.assert_allclose(slopes, (above - below) / 2e-5, rtol=1e-6)


def test_gradient_of_the_collapse_time_at_the_critical_point():
    """From above it is finite, as m^2 = 3(beta - 1) is what counts; at it, that from below."""
    base, slopes = COLLAPSE_SLOPES(0.1, 1 + 1e-7, 0.0, 1.0)
    further = COLLAPSE_SLOPES(0.1, 1 + 1e-5, 0.0, 1.0)[0]
    np.testing.assert_allclose(slopes[1], (further - base) / 9.9e-6, rtol=1e-4)
    assert slopes[1] < -1
    assert COLLAPSE_SLOPES(0.1, 1.0, 0.0, 1.0)[1][1] == 0


@pytest.mark.parametrize("field", [0.0, 0.5])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_potential_approaches_the_exact_one(field, shift):
    """The error of the leading-order potential falls like 1/d."""
    mu = np.linspace(-3, 3, 13)
    errors = []
    for dim in SIZES:
        time = speciation(dim, shift)
        exact = curie_weiss.exact_overlap_potential(mu, time, int(dim), BETA, field)
        leading = curie_weiss.overlap_potential(mu, time, dim, BETA, field)
        gap = exact - leading
        errors.append(np.abs(gap - gap[6]).max())
    assert abs(exponent(errors) + 1) < 0.05
    assert errors[-1] < 0.01


@pytest.mark.parametrize("field", [0.0, 0.5])
def test_clone_agreement_approaches_that_of_the_overlap(field):
    """Both use one projection; the Gaussian approximation of the classes costs 1/d."""
    time = speciation(SIZES)
    finite = np.array(
        [curie_weiss.overlap_clone_agreement(t, int(d), BETA, field) for t, d in zip(time, SIZES)]
    )
    errors = finite - curie_weiss.clone_agreement(time, SIZES, BETA, field)
    assert (errors < 0).all()
    assert abs(exponent(errors) + 1) < 0.05
    np.testing.assert_allclose(errors * SIZES, -0.36, atol=0.03)


def exact_minus_overlap(dim, beta, time, count, rng):
    """Clone agreement of the whole state minus that of its overlap, and the standard error.

    Given x the spins are independent but for their interaction, so the law of M is the
    Poisson-binomial one tilted by exp(beta M^2/2d): no field v, no approximation.
    """
    up = np.arange(dim + 1)
    size = 2 * up - dim
    entropy = gammaln(dim + 1) - gammaln(up + 1) - gammaln(dim - up + 1)
    tilt = beta * size**2 / (2 * dim)
    prior = np.exp(entropy + tilt - logsumexp(entropy + tilt))
    noise, signal = -np.expm1(-2 * time), np.exp(-time)
    spins = np.where(np.arange(dim) < rng.choice(dim + 1, count, p=prior)[:, None], 1, -1)
    x = signal * spins + np.sqrt(noise) * rng.standard_normal(spins.shape)
    law = np.zeros((count, dim + 1))
    law[:, 0] = 1
    for single in expit(2 * signal / noise * x).T[:, :, None]:
        law[:, 1:] = law[:, 1:] * (1 - single) + law[:, :-1] * single
        law[:, :1] *= 1 - single
    law *= np.exp(tilt - tilt.max())
    positive = 0.5 + 0.5 * np.sign(size)
    whole = law @ positive / law.sum(1)
    mu = x.sum(1, keepdims=True) / np.sqrt(dim)
    overlap = prior * np.exp(-((mu - signal * size / np.sqrt(dim)) ** 2) / (2 * noise))
    part = overlap @ positive / overlap.sum(1)
    gain = 2 * whole * (whole - 1) - 2 * part * (part - 1)
    return gain.mean(), gain.std() / np.sqrt(count)


@pytest.mark.parametrize("beta", [0.9, 1.2, 1.5])
def test_overlap_holds_the_clone_agreement_of_the_state(beta):
    """The rest of the state adds less than 2/d^2 near speciation, at every temperature."""
    dim = 48
    gain, error = exact_minus_overlap(dim, beta, speciation(dim), 4000, np.random.default_rng(3))
    assert abs(gain - 1 / dim**2) < 1 / dim**2 + 4 * error
    assert error < 1 / dim**2  # the control is sharp enough to see a term of order 1/d


def test_overlap_agreement_by_brute_force():
    dim, beta, field, temperature = 7, 1.2, 0.4, 0.6
    t = np.array([0.05, 0.5, 2.0])
    size = np.arange(-dim, dim + 1, 2)
    entropy = gammaln(dim + 1) - gammaln((dim + size) / 2 + 1) - gammaln((dim - size) / 2 + 1)
    prior = np.exp(entropy + beta * size**2 / (2 * dim) + field * size / dim)
    noise = -temperature * np.expm1(-2 * t)[:, None, None]
    mu = np.linspace(-11, 11, 20001)[:, None]
    shift = mu - np.exp(-t)[:, None, None] * size / np.sqrt(dim)
    joint = prior / prior.sum() * np.exp(-(shift**2) / (2 * noise)) / np.sqrt(2 * np.pi * noise)
    plus, minus = joint[..., size > 0].sum(-1), joint[..., size < 0].sum(-1)
    total = np.where(plus + minus > 0, plus + minus, 1)
    expected = np.sum((plus**2 + minus**2) / total, axis=-1) * (mu[1, 0] - mu[0, 0])
    value = curie_weiss.overlap_clone_agreement(t, dim, beta, field, temperature)
    np.testing.assert_allclose(value, expected, rtol=1e-11)
    assert np.isnan(curie_weiss.overlap_clone_agreement(1e-7, 64, beta))


def test_classes_need_order():
    beta = np.array([0.5, 1.0])
    assert np.isnan(curie_weiss.clone_agreement(1.0, 64, beta)).all()
    assert np.isnan(curie_weiss.clone_kappa(1.0, 64, beta)).all()
    assert np.isnan(curie_weiss.class_weight(beta, 0.5)).all()
    # a class that is as good as certain
    np.testing.assert_allclose(curie_weiss.clone_agreement(1.0, 64, 3.0, 50.0), 1, atol=1e-12)


def test_clone_agreement_limits():
    weight = float(curie_weiss.class_weight(BETA, 0.5))
    late = curie_weiss.clone_agreement(np.array([20.0, np.inf]), 64, BETA, 0.5)
    np.testing.assert_allclose(late, weight**2 + (1 - weight) ** 2, rtol=1e-12)
    np.testing.assert_allclose(curie_weiss.exact_class_weight(4096, BETA, 0.5), weight, atol=1e-3)
    start = curie_weiss.clone_kappa(0.0, 64, BETA)
    chi = curie_weiss.susceptibility(BETA)
    np.testing.assert_allclose(start, 8 * ORDER / np.sqrt(chi), rtol=1e-9)


def test_bifurcation_is_the_diagram_of_the_potential():
    dim, field, temperature = 256, 0.3, 0.6

    @jax.jit
    def slope(mu, t):
        return jax.grad(curie_weiss.overlap_potential)(mu, t, dim, BETA, field, temperature)

    def bend(mu, t):
        return jax.grad(jax.grad(curie_weiss.overlap_potential))(
            mu, t, dim, BETA, field, temperature
        )

    points = curie_weiss.bifurcation(2.3, dim, BETA, field, temperature)
    shapes = jax.vmap(lambda mu: jnp.stack([slope(mu, 2.3), bend(mu, 2.3)]))(jnp.stack(points))
    np.testing.assert_allclose(shapes[:, 0], 0, atol=1e-12)
    np.testing.assert_array_equal(np.sign(shapes[:, 1]), [1, 1, -1])
    assert points.stable > 0 > points.unstable > points.metastable
    late = curie_weiss.bifurcation(4.0, dim, BETA, field, temperature)
    np.testing.assert_allclose(slope(late.stable, 4.0), 0, atol=1e-12)
    assert np.isnan(late.metastable)


def test_pitchfork():
    """Without a field it splits at 2 d m^2 = exp(2t), which is t_U for large d."""
    critical = 0.5 * np.log(2 * 4096 * float(curie_weiss.magnetization(BETA)) ** 2)
    found = curie_weiss.bifurcation(critical + np.array([-1e-6, 1e-6]), 4096, BETA)
    assert found.stable[0] > 0
    np.testing.assert_allclose(found.metastable[0], -found.stable[0], rtol=1e-12)
    assert found.unstable[0] == 0
    assert found.stable[1] == 0
    assert np.isnan(found.unstable[1])
    exact = curie_weiss.dynamic_speciation_time(4096, BETA)
    np.testing.assert_allclose(exact, critical, atol=2e-4)


def test_potential_agrees_with_the_mixture_of_the_same_classes():
    """A Gaussian mixture with centres sqrt(d) m and variance chi, near speciation."""
    dim, mu, field = 10**6, np.linspace(-3, 3, 7), 0.5
    time, weight = speciation(dim), float(curie_weiss.class_weight(BETA, field))
    chi = curie_weiss.susceptibility(BETA)
    mixture = potentials.reduced_potential(mu, time, np.sqrt(dim) * ORDER, chi, weight)
    own = curie_weiss.overlap_potential(mu, time, dim, BETA, field)
    np.testing.assert_allclose(own - own[3], mixture - mixture[3], atol=1e-5)


def test_coupling_of_pairs():
    """All ordered pairs, i = j included: beta is twice the product."""
    np.testing.assert_allclose(curie_weiss.beta_of_pair_coupling(0.4, 1.5), 1.2)


BAD = [
    (curie_weiss.magnetization, (-0.5,), "beta=-0.5"),
    (curie_weiss.magnetization, (1.5, np.inf), "field=inf"),
    (curie_weiss.log_partition, (0, 1.5), "dim=0"),
    (curie_weiss.log_partition, (2.5, 1.5), "dim=2.5"),
    (curie_weiss.top_eigenvalue, (8, -1.0), "beta=-1.0"),
    (curie_weiss.dynamic_speciation_time, (8, 1.5, 0.0), "temperature=0.0"),
    (curie_weiss.information, (-0.1, 1.5), "t=-0.1"),
    (curie_weiss.collapse_time, (0.0, 1.5), "alpha must be positive"),
    (curie_weiss.collapse_time, (0.1, np.nan), "beta=nan"),
    (curie_weiss.clone_agreement, (0.1, 0.5, 1.5), "dim must be >= 1"),
    (curie_weiss.exact_overlap_potential, (0.1, 0.0, 8, 1.5), "t must be positive"),
    (curie_weiss.beta_of_pair_coupling, (0.5, -1.0), "coupling=-1.0"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), BAD)
def test_bad_numbers_are_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_traced_size_is_refused():
    with pytest.raises(TypeError, match="concrete integer"):
        jax.jit(curie_weiss.log_partition)(8, 1.5)
