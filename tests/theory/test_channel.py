"""Channel and I-MMSE: closed forms, derivatives, and honest errors of measured curves."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from theory import channel, collapse


def test_reference_information_of_the_class():
    np.testing.assert_allclose(channel.mixture_information(0.5), 0.1114214822, atol=6e-11)


@pytest.mark.parametrize("kappa", [1e-3, 0.3, 1.0, 2.0, 4.5, 9.0])
def test_information_by_adaptive_integration(kappa):
    def missing(z):
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        return density * np.logaddexp(0, -2 * (kappa**2 + kappa * z))

    ends = np.unique(np.clip([-12, -kappa - 1, -kappa, 1 - kappa, 12], -12, 12))
    value = sum(quad(missing, a, b, epsabs=1e-14)[0] for a, b in itertools.pairwise(ends))
    information = channel.mixture_information(kappa)
    np.testing.assert_allclose(information, np.log(2) - value, rtol=0, atol=1e-12)


def test_information_limits():
    kappa = np.array([0.0, 1e-4, 30.0, np.inf])
    value = channel.mixture_information(kappa)
    np.testing.assert_allclose(value, [0, 0.5e-8, np.log(2), np.log(2)], atol=1e-14)
    assert jax.grad(channel.binary_information)(0.0) == 0.5
    np.testing.assert_allclose(jax.grad(channel.binary_mmse)(0.0), -1.0, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(channel.mixture_information)(0.0), 0, atol=1e-15)


def test_derivative_of_information_is_half_the_error():
    """The rule that is built in, against differences of the quadrature itself."""
    s = np.array([0.05, 0.7, 4.0])
    h = 1e-5
    slope = (channel.binary_information(s + h) - channel.binary_information(s - h)) / (2 * h)
    np.testing.assert_allclose(slope, 0.5 * channel.binary_mmse(s), rtol=1e-8)
    slope = (channel.binary_mmse(s + h) - channel.binary_mmse(s - h)) / (2 * h)
    np.testing.assert_allclose(jax.vmap(jax.grad(channel.binary_mmse))(s), slope, rtol=1e-8)


def mixture_total(s, dim=16.0, mean_norm=4.0, variance=1.0):
    """Information of a balanced mixture as a function of the signal-to-noise ratio."""
    kappa = mean_norm * jnp.sqrt(s / (1 + variance * s))
    return 0.5 * dim * jnp.log1p(variance * s) + channel.mixture_information(kappa)


def test_reference_error_of_a_mixture():
    """Twice the slope of the information at snr 0.1, and the simulated error 18.902(19)."""
    np.testing.assert_allclose(2 * jax.grad(mixture_total)(0.1), 18.902, rtol=0, atol=6e-4)


def test_error_of_a_mixture_by_monte_carlo():
    rng = np.random.default_rng(12)
    dim, variance, s, count = 6, 0.4, 0.8, 200_000
    center = np.full(dim, 0.6)
    signs = rng.choice([-1.0, 1.0], size=(count, 1))
    data = signs * center + np.sqrt(variance) * rng.normal(size=(count, dim))
    y = data + rng.normal(size=(count, dim)) / np.sqrt(s)
    spread = variance + 1 / s
    sign = np.tanh(y @ center / spread)[:, None]
    denoised = sign * center + variance / spread * (y - sign * center)
    errors = ((data - denoised) ** 2).sum(1)
    norm = np.sqrt(dim) * 0.6
    exact = 2 * jax.grad(lambda s: mixture_total(s, dim, norm, variance))(s)
    assert abs(errors.mean() - exact) < 4 * errors.std() / np.sqrt(count)


def test_times_and_ratios():
    t = np.array([1e-9, 0.3, 4.0, 400.0])
    ratio = channel.snr(t, 0.6)
    np.testing.assert_allclose(ratio[:3], 1 / (0.6 * np.expm1(2 * t[:3])), rtol=1e-13)
    np.testing.assert_allclose(channel.time_of_snr(ratio[:3], 0.6), t[:3], rtol=1e-12)
    assert channel.snr(0.0) == np.inf
    assert np.isfinite(jax.grad(channel.snr)(400.0))
    np.testing.assert_array_equal(channel.signal_ratio(0.0, np.array([0.0, 1.0])), [0, np.inf])


GRID = np.geomspace(1e-4, 30, 60)


def gaussian_curve(snr, dim=12, variance=0.7):
    return dim * variance / (1 + variance * snr), 0.5 * dim * np.log1p(variance * snr)


def test_three_routes_agree_and_their_error_bars_are_honest():
    mmse, exact = gaussian_curve(GRID)
    by_snr = channel.information_from_mmse(GRID, mmse)
    t = np.asarray(channel.time_of_snr(GRID, 0.6))[::-1]
    by_time = channel.information_from_mmse_in_time(t, mmse[::-1], temperature=0.6)
    by_loss = channel.information_from_noise_loss(np.log(GRID), GRID * mmse)
    np.testing.assert_allclose(by_time.value[::-1], by_snr.value, rtol=1e-9)
    np.testing.assert_allclose(by_loss.value, by_snr.value, rtol=1e-12)
    miss = np.abs(by_snr.value - exact)
    assert (miss <= by_snr.discretisation).all()
    # fourth order: 60 points over five decades and a half give five digits
    assert miss.max() < 2e-4 * exact.max()
    assert (by_snr.standard_error == 0).all()


def test_callable_curve():
    dim, variance = 12, 0.7
    curve = channel.information_from_mmse(GRID[::6], lambda s: dim * variance / (1 + variance * s))
    np.testing.assert_allclose(curve.value, gaussian_curve(GRID[::6])[1], rtol=1e-12)
    binary = channel.information_from_mmse(np.array([0.3, 2.0, 8.0]), channel.binary_mmse)
    exact = channel.binary_information(np.array([0.3, 2.0, 8.0]))
    np.testing.assert_allclose(binary.value, exact, atol=1e-11)


def test_standard_errors_cover():
    """Noise of known size on the loss curve: z-scores of 400 repetitions have unit variance."""
    rng = np.random.default_rng(13)
    mmse, _ = gaussian_curve(GRID)
    clean = channel.information_from_mmse(GRID, mmse, 0.02 * mmse)
    noisy = mmse * (1 + 0.02 * rng.normal(size=(400, GRID.size)))
    values = jax.vmap(lambda m: channel.information_from_mmse(GRID, m).value)(noisy)
    z = (values - clean.value) / clean.standard_error
    # the relative error of a standard deviation from 400 draws is 3.5%
    np.testing.assert_allclose(z.std(0), 1, rtol=0.16)


def test_excess_entropy_and_collapse_time_from_a_curve():
    log_n, dim, variance, temperature = np.log(500.0), 12, 0.7, 0.6
    t = np.geomspace(0.02, 5, 80)
    mmse, exact = gaussian_curve(np.asarray(channel.snr(t, temperature)))
    entropy = channel.excess_entropy_from_mmse(log_n, dim, t, mmse, temperature=temperature)
    np.testing.assert_allclose(entropy.value, (log_n - exact) / dim, atol=2e-4)
    time = channel.collapse_time_from_mmse(log_n, t, mmse, 0.02 * mmse, temperature)
    closed = collapse.gaussian_collapse_time(log_n, dim, variance, temperature)
    assert abs(time.value - closed) <= time.discretisation < 0.01
    # a noisy curve moves the time by its standard error
    rng = np.random.default_rng(14)
    noisy = mmse * (1 + 0.02 * rng.normal(size=(400, t.size)))
    times = jax.vmap(
        lambda m: channel.collapse_time_from_mmse(log_n, t, m, temperature=temperature).value
    )(noisy)
    np.testing.assert_allclose(times.std(), time.standard_error, rtol=0.16)
    # an imperfect denoiser makes it too large
    worse = channel.collapse_time_from_mmse(log_n, t, 1.1 * mmse, temperature=temperature)
    assert worse.value > time.value
    assert np.isnan(channel.collapse_time_from_mmse(1e3, t, mmse).value)


def test_curves_differentiate():
    mmse, _ = gaussian_curve(GRID)
    slope = jax.grad(lambda m: channel.information_from_mmse(GRID, m).value[-1])(jnp.asarray(mmse))
    np.testing.assert_allclose(
        slope @ mmse, channel.information_from_mmse(GRID, mmse).value[-1], rtol=1e-10
    )
    two = channel.information_from_mmse(GRID[:2], mmse[:2])
    assert np.isfinite(two.value).all()
