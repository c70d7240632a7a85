"""Class information of one-dimensional mixtures: the tables, other integrals, the contract."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from theory import class_information as info
from theory import clone_agreement

BIT = np.log(2)
MIXTURES = {  # weights, means, variances
    "A0": ([0.5, 0.5], [-1.0, 1.0], [1e-6, 1e-6]),
    "A": ([0.5, 0.5], [-1.0, 1.0], [0.0625, 0.0625]),
    "B": ([0.3, 0.7], [-1.0, 1.0], [0.04, 0.16]),
    "C": ([0.25, 0.35, 0.4], [-2.0, 0.0, 1.5], [0.09, 0.04, 0.16]),
    "D": ([0.25] * 4, [-1.8, 1.8, -2.2, 2.2], [0.01] * 4),
}
MIXTURES = {name: tuple(map(np.array, parts)) for name, parts in MIXTURES.items()}
C = MIXTURES["C"]
TABLE = [
    ("A", 0.1, 0.114469, 1.98747, 0.954546),
    ("A", 0.4, 0.592680, 1.02141, 0.736112),
    ("A", 0.8, 0.839808, 0.35302, 0.601700),
    ("B", 0.4, 0.539007, 0.85484, 0.762315),
    ("C", 0.2, 0.584154, 2.33948, 0.750469),
    ("C", 0.6, 1.147178, 0.83896, 0.514219),
    ("D", 0.4, 1.119930, 0.98614, 0.484043),
]


@pytest.mark.parametrize(("name", "t", "bits", "rate", "phi"), TABLE)
def test_reference_table(name, t, bits, rate, phi):
    at = (np.full(4, t), *MIXTURES[name])  # the shape of T below: one compilation
    functions = (info.entropy, info.entropy_rate, info.clone_agreement)
    found = [function(*at)[0] for function in functions]
    np.testing.assert_allclose(found, [bits * BIT, rate * BIT, phi], rtol=0, atol=7e-6)


def test_reference_profiles():
    tight, printed = {"rtol": 0, "atol": 1e-5}, {"rtol": 0, "atol": 6e-5}
    t = np.array([0.2, 0.8, 0.2, 0.8])
    for function, expected, digits in (
        (info.class_entropies, [0.36740, 0.83279, 0.50207], tight),
        (info.class_losses, [0.39697, 0.80800, 0.50528], tight),
        (info.class_loss_rates, [2.4405, 3.1827, 1.5385], printed),
    ):
        np.testing.assert_allclose(function(t, *C)[0] / BIT, expected, **digits)
    pairs = info.pair_entropy(t, *C, (0, 1)) / BIT, info.pair_entropy_rate(t, *C, (0, 1)) / BIT
    np.testing.assert_allclose(pairs[0][:2], [0.308666, 0.823737], **tight)
    np.testing.assert_allclose(pairs[1][:2], [1.797316, 0.344688], **tight)
    prior = info.high_noise_entropy(np.inf, C[0], C[1]) / BIT
    assert abs(prior - 1.558872) < 1e-6


@pytest.mark.parametrize(
    ("name", "per_t", "per_s", "per_sigma"),
    [
        ("A", (0.12747, 2.05583), (0.19574, 3.66202, 0.31408), (0.8244, 0.63020)),
        ("C", (0.07306, 3.24005), (0.17237, 4.75951, 0.47459), (0.8073, 0.78527)),
    ],
)
def test_reference_peaks_on_three_clocks(name, per_t, per_s, per_sigma):
    mixture = MIXTURES[name]
    found = info.peak(*mixture)
    np.testing.assert_allclose([found.t, found.rate / BIT], per_t, rtol=0, atol=1e-5)
    found = info.vp_index_peak(*mixture)
    values = [info.vp_index(found.t), found.rate / BIT, found.entropy / BIT]
    np.testing.assert_allclose(values, per_s, rtol=0, atol=1e-5)
    found = info.log_sigma_peak(*mixture)
    sigma = np.sqrt(np.expm1(2 * found.t))
    np.testing.assert_allclose(sigma, per_sigma[0], rtol=0, atol=6e-5)
    np.testing.assert_allclose(found.rate / BIT, per_sigma[1], rtol=0, atol=1e-5)


def test_peak_that_lies_outside_is_nan():
    """One class that can never be decided has no peak; nor has one beyond the range."""
    weights, variances = MIXTURES["A"][0], np.array([0.09, 0.09])
    assert np.isnan(info.peak(weights, np.array([-1e5, 1e5]), variances).t)
    assert np.isnan(info.peak(weights, np.array([0.3, 0.3]), variances).rate)


def test_integrals_by_another_rule():
    """Adaptive quadrature over x of the density itself."""
    weights, means, variances = MIXTURES["B"]
    t = 0.35
    centre = np.exp(-t) * means
    spread = -np.expm1(-2 * t) + np.exp(-2 * t) * variances

    def parts(x):
        joint = weights * np.exp(-((x - centre) ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)
        return joint.sum(), joint / joint.sum(), -(x - centre) / spread

    def entropy(x):
        density, p, _ = parts(x)
        return -density * np.sum(p * np.log(np.maximum(p, 1e-300)))

    def rate(x):
        density, p, scores = parts(x)
        return density * (p @ scores**2 - (p @ scores) ** 2)

    for integrand, function in ((entropy, info.entropy), (rate, info.entropy_rate)):
        value = quad(integrand, -12, 12, points=[-1, 0, 1], limit=400, epsabs=1e-12)[0]
        assert abs(function(np.full(4, t), *MIXTURES["B"])[0] - value) < 1e-10


T = np.array([0.03, 0.2, 0.9, 2.5])


SLOPE = jax.jit(jax.vmap(jax.grad(info.entropy), in_axes=(0, None, None, None)))


@pytest.mark.parametrize("name", ["A", "B", "C"])
def test_rates_are_derivatives(name):
    """By differences of the entropy, and by the derivative of its quadrature."""
    mixture = MIXTURES[name]
    h = 1e-4
    rate = info.entropy_rate(T, *mixture)
    slope = (info.entropy(T + h, *mixture) - info.entropy(T - h, *mixture)) / (2 * h)
    np.testing.assert_allclose(rate, slope, rtol=1e-5)
    np.testing.assert_allclose(rate, SLOPE(T, *mixture), rtol=1e-9)


def test_rates_of_profiles_are_derivatives():
    h, groups = 1e-4, np.array([1, 0, 1])

    def slope(function, *more):
        return (function(T + h, *C, *more) - function(T - h, *C, *more)) / (2 * h)

    rates = info.class_loss_rates(T, *C)
    np.testing.assert_allclose(rates, slope(info.class_losses), rtol=1e-5)
    # the entropies along paths of one class are another profile
    assert np.abs(rates - slope(info.class_entropies)).max() > 0.1
    for profile in (info.class_entropies, info.class_losses):
        np.testing.assert_allclose(profile(T, *C) @ C[0], info.entropy(T, *C), rtol=1e-11)
    for function, rate, more in (
        (info.partition_entropy, info.partition_entropy_rate, groups),
        (info.pair_entropy, info.pair_entropy_rate, (0, 2)),
    ):
        np.testing.assert_allclose(rate(T, *C, more), slope(function, more), rtol=1e-5)


def test_partitions():
    """Single classes are the whole entropy, one group none; the chain rule for two groups of D."""
    alone, together = np.arange(4), np.zeros(4, int)
    D = MIXTURES["D"]
    np.testing.assert_allclose(
        info.partition_entropy(T, *D, alone), info.entropy(T, *D), rtol=1e-12
    )
    np.testing.assert_allclose(
        info.partition_entropy_rate(T, *D, alone), info.entropy_rate(T, *D), rtol=1e-12
    )
    np.testing.assert_allclose(info.partition_entropy(T, *D, together), 0, atol=1e-13)
    np.testing.assert_allclose(info.partition_entropy_rate(T, *D, together), 0, atol=1e-13)
    # H(y) = H(side) + H(y | side); the two sides decide their own pair alike
    side = info.partition_entropy(T, *D, [0, 1, 0, 1])
    within = info.entropy(T, *D) - side
    # early on a side is decided and what is left is its pair
    pair = info.pair_entropy(T, *D, (0, 2))
    np.testing.assert_allclose(within[:2], pair[:2], rtol=1e-5)


def test_symmetric_pair_is_the_clone_agreement_of_two_classes():
    M, variance = 1.0, 0.0625
    exact = clone_agreement.mixture_clone_agreement(T, M, variance)
    np.testing.assert_allclose(info.clone_agreement(T, *MIXTURES["A"]), exact, rtol=1e-10)


@pytest.mark.parametrize("name", ["A", "B", "C", "D"])
def test_bounds_by_clone_agreement(name):
    mixture = MIXTURES[name]
    phi, bound = info.clone_agreement(T, *mixture), info.entropy(T, *mixture)
    classes = len(mixture[0])
    assert np.all(info.agreement_lower_bound(bound) <= phi)
    assert np.all(bound <= info.fano_bound(phi, classes))
    if classes == 2:
        low, high = info.binary_entropy_bounds(phi)
        assert np.all((low <= bound) & (bound <= high))
    uniform = info.fano_bound(1 / classes, classes)  # equality for a uniform posterior
    np.testing.assert_allclose(uniform, np.log(classes), rtol=1e-12)


def test_high_noise_law():
    ratio = [
        float((BIT - info.entropy(t, *MIXTURES["A0"]))
              / (BIT - info.high_noise_entropy(t, *MIXTURES["A0"][:2])))
        for t in (1.2, 2.5)
    ]  # fmt: skip
    np.testing.assert_allclose(ratio, [0.953, 0.997], rtol=0, atol=6e-4)
    late = info.entropy(6.0, *C) - info.high_noise_entropy(6.0, *C[:2])
    lost = info.high_noise_entropy(6.0, *C[:2]) - info.high_noise_entropy(np.inf, *C[:2])
    assert abs(late / lost) < 1e-3


def test_clocks_are_derivatives():
    t, low, high = 0.37, 0.2, 14.0
    s = info.vp_index(t, low, high)
    np.testing.assert_allclose(0.5 * (low * s + (high - low) * s**2 / 2), t, rtol=1e-12)
    slope = 1 / jax.grad(info.vp_index)(t, low, high)
    np.testing.assert_allclose(info.rate_per_vp_index(1.7, t, low, high), 1.7 * slope, rtol=1e-12)
    np.testing.assert_allclose(info.vp_index(t, 3.0, 3.0), 2 * t / 3.0, rtol=1e-12)
    log_sigma = jax.grad(lambda t: 0.5 * jnp.log(jnp.expm1(2 * t)))(t)
    np.testing.assert_allclose(info.rate_per_log_sigma(1.7, t), 1.7 / log_sigma, rtol=1e-12)
    beta = np.linspace(1e-4, 0.02, 1000)
    steps = np.diff(-0.5 * np.cumsum(np.log(1 - beta)))
    np.testing.assert_allclose(info.rate_per_ddpm_index(1.7, beta[1:]), 1.7 * steps, rtol=1e-10)


GROUPS = np.array([1, 0, 1])


def everything(t, weights, means, variances):
    """All functions of a mixture at times ``t (T,)``."""
    mixture = (weights / jnp.sum(weights), means, variances)
    at = (t, *mixture)
    rate, phi = info.entropy_rate(*at), info.clone_agreement(*at)
    return [
        info.entropy(*at), rate, phi, info.class_entropies(*at), info.class_losses(*at),
        info.class_loss_rates(*at), info.pair_entropy(*at, (0, 2)),
        info.pair_entropy_rate(*at, (0, 2)), info.partition_entropy(*at, GROUPS),
        info.partition_entropy_rate(*at, GROUPS), info.high_noise_entropy(t, *mixture[:2]),
        info.fano_bound(phi, 3), info.agreement_lower_bound(info.entropy(*at)),
        *info.binary_entropy_bounds(phi), info.vp_index(t), info.rate_per_vp_index(rate, t),
        info.rate_per_log_sigma(rate, t), info.rate_per_ddpm_index(rate, 0.01),
    ]  # fmt: skip


@pytest.mark.slow
def test_contract():
    """jit and vmap give the eager values; derivatives are those of finite differences."""
    eager = everything(T, *C)
    batched = jax.jit(jax.vmap(everything, in_axes=(0, None, None, None)))(T, *C)
    for one, other in zip(batched, eager):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    rng = np.random.default_rng(1)
    direction = [0.1 * rng.normal(size=3) for _ in range(3)]
    jvp = jax.jit(lambda *mixture: jax.jvp(partial(everything, T), mixture, tuple(direction))[1])
    h = 1e-4
    ends = [jax.jit(everything)(T, *(v + s * d for v, d in zip(C, direction))) for s in (h, -h)]
    for slope, after, before in zip(jvp(*C), *ends):
        np.testing.assert_allclose(slope, (after - before) / (2 * h), rtol=2e-5, atol=1e-6)


def test_peak_moves_with_the_mixture():
    """Implicit derivative of the peak against peaks of other mixtures."""
    weights, means, variances = MIXTURES["A"]
    shift = np.array([-0.3, 0.4])

    def peak(m):
        return info.log_sigma_peak(weights, m, variances)

    slope = jax.jit(lambda m: jax.jvp(lambda m: peak(m).t, (m,), (shift,))[1])(means)
    ends = [peak(means + sign * 1e-4 * shift).t for sign in (1, -1)]
    np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-4, rtol=1e-6)


def test_reverse_mode_and_dtype():
    slope = jax.grad(lambda m: jnp.sum(info.entropy_rate(T, C[0], m, C[2])))(C[1])
    h, unit = 1e-4, np.array([0.0, 1.0, 0.0])
    ends = [np.sum(info.entropy_rate(T, C[0], C[1] + s * unit, C[2])) for s in (h, -h)]
    np.testing.assert_allclose(slope[1], (ends[0] - ends[1]) / (2 * h), rtol=1e-5)
    single = tuple(v.astype(np.float32) for v in C)
    value = info.entropy(np.float32(0.2), *single)
    assert value.dtype == jnp.float32
    assert abs(value / BIT - 0.584154) < 1e-5


BAD = [
    (lambda: info.entropy(-0.1, *C), "t must be >= 0"),
    (lambda: info.entropy(0.0, *MIXTURES["A0"][:2], [0.0, 0.1]), "variances must be positive"),
    (lambda: info.entropy(0.1, [0.4, 0.4], *MIXTURES["A"][1:]), "sum of weights"),
    (lambda: info.entropy(0.1, *C[:2], C[2][:2]), "expected .* with one K"),
    (lambda: info.entropy(0.1, *C[:2], -C[2]), "variances must be >= 0"),
    (lambda: info.pair_entropy(0.1, *C, (1, 1)), "pair is"),
    (lambda: info.pair_entropy(0.1, *C, (0, 3)), "pair is"),
    (lambda: info.partition_entropy(0.1, *C, [0, 1]), "expected 3 integers"),
    (lambda: info.partition_entropy(0.1, *C, [0, 1, 5]), "numbers from 0 to 2"),
    (lambda: info.fano_bound(1.2, 3), "agreement must be in"),
    (lambda: info.fano_bound(0.2, 1), "classes must be >= 2"),
    (lambda: info.vp_index(0.1, 0.0), "beta_min must be positive"),
    (lambda: info.rate_per_ddpm_index(0.1, 1.0), "beta must be between"),
]


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(place):
    call, message = BAD[place]
    with pytest.raises(ValueError, match=message):
        call()
