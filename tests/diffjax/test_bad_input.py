"""Bad input: the error names the value and the fix, or the result is the documented one, no NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import (
    Diffusion,
    backward,
    clones,
    forward,
    gaussian_mixture,
    ornstein_uhlenbeck,
    point_cloud,
    schedules,
    u_turns,
)
from diffjax.observables.collapse import collapse_curves
from diffjax.observables.speciation import clone_agreement, normalised_agreement
from diffjax.observables.spectrum import covariance_spectrum

KEY = jax.random.key(0)
OU = ornstein_uhlenbeck(0.7)
POINTS = np.random.default_rng(0).normal(size=(6, 2))
CLOUD = Diffusion(point_cloud(POINTS, [0, 0, 1, 1, 1, 1]), OU)
MIXTURE = Diffusion(gaussian_mixture([0.4, 0.6], POINTS[:2], 0.5), OU)
X = jnp.asarray(POINTS[:3])
WITH_NAN = np.where(np.arange(12).reshape(6, 2) == 5, np.nan, POINTS)

POINT_SETS = [
    (lambda: point_cloud(np.arange(3.0)), r"points has shape \(3,\), expected \(n, d\); for one-"
     r"dimensional data pass points\[:, None\]"),
    (lambda: point_cloud(np.zeros((2, 3, 4))), r"points has shape \(2, 3, 4\), expected \(n, d\)$"),
    (lambda: point_cloud(5.0), r"points has shape \(\), expected \(n, d\)$"),
    (lambda: point_cloud(np.zeros((0, 3))), r"points has shape \(0, 3\): the set is empty"),
    (lambda: point_cloud(np.zeros((3, 0))), r"points has shape \(3, 0\): the set is empty"),
    (lambda: point_cloud(WITH_NAN), r"points holds 1 NaN or infinite value\(s\); remove or impute"),
    (lambda: point_cloud(np.full((2, 2), np.inf)), r"points holds 4 NaN or infinite"),
    (lambda: point_cloud([["a", "b"]]), r"points has dtype <U1, expected real numbers"),
    (lambda: point_cloud(1j * POINTS), r"points has dtype complex128, expected real numbers"),
    (lambda: point_cloud(POINTS, [0, 1]), r"labels has shape \(2,\), expected \(6,\), one label p"),
    (lambda: point_cloud(POINTS, np.zeros((6, 2))), r"labels has shape \(6, 2\), expected \(6,\)"),
    (lambda: point_cloud(POINTS, [0, 1, np.nan, 1, 0, 1]), r"labels hold NaN or infinite values"),
    (lambda: covariance_spectrum(POINTS[:, 0]), r"points has shape \(6,\), expected \(n, d\) with"),
    (lambda: covariance_spectrum(POINTS[:1]), r"points has shape \(1, 2\), expected .* n >= 2"),
    (lambda: covariance_spectrum(WITH_NAN), r"points holds 1 NaN or infinite"),
]  # fmt: skip
MIXTURES = [
    (lambda: gaussian_mixture([1.0], [1.0, 2.0], 0.5), r"means has shape \(2,\), expected \(K"),
    (lambda: gaussian_mixture([], np.zeros((0, 2)), 0.5), r"means has shape \(0, 2\), expected"),
    (lambda: gaussian_mixture([1.0], POINTS[:2], 0.5), r"weights has shape \(1,\), expected \(2"),
    (lambda: gaussian_mixture([1.0, -0.1], POINTS[:2], 0.5), r"weights must be non-nega.*-0.1"),
    (lambda: gaussian_mixture([0.0, 0.0], POINTS[:2], 0.5), r"weights must be .* not all zero"),
    (lambda: gaussian_mixture([1.0, np.nan], POINTS[:2], 0.5), r"weights holds 1 NaN"),
    (lambda: gaussian_mixture([1.0, 1.0], WITH_NAN[2:4], 0.5), r"means holds 1 NaN"),
    (lambda: gaussian_mixture([1.0, 1.0], POINTS[:2], -0.5), r"variances must be >= 0, but .*-0"),
    (lambda: gaussian_mixture([1.0, 1.0], POINTS[:2], np.ones(3)),
     r"variances has shape \(3,\), expected \(\), \(2,\) or \(2, 2\)"),
    (lambda: gaussian_mixture([1.0, 1.0], POINTS[:2], 0.5, factors=np.ones((2, 2))),
     r"factors has shape \(2, 2\), expected \(2, 2, r\)"),
    (lambda: gaussian_mixture([1.0, 1.0], POINTS[:2], 0.5, labels=[0]),
     r"labels has shape \(1,\), expected \(2,\), one per component"),
]  # fmt: skip
TIMES = [
    (lambda: backward(KEY, MIXTURE, X, [0.5, 0.7]), r"times must decrease strictly .* \[0.5 0.7\]"),
    (lambda: backward(KEY, MIXTURE, X, [0.7, 0.5, 0.5]), r"times must decrease .*remove repeats"),
    (lambda: backward(KEY, MIXTURE, X, [0.7, 0.9, 0.5]), r"times must decrease strictly"),
    (lambda: backward(KEY, MIXTURE, X, [0.7, -0.1]), r"times must be >= 0 .* but t = .*-0.1"),
    (lambda: backward(KEY, MIXTURE, X, [np.nan, 0.1]), r"times must be >= 0 .*\[nan, 0"),
    (lambda: backward(KEY, MIXTURE, X, [0.7]), r"times has shape \(1,\), expected a grid"),
    (
        lambda: backward(KEY, MIXTURE, X, 0.7),
        r"times has shape \(\), expected a grid \(steps \+ 1,\)",
    ),
    (lambda: clones(KEY, MIXTURE, X, [0.1, 0.7]), r"times must decrease strictly"),
    (lambda: u_turns(KEY, MIXTURE, X, [0.1, 0.7]), r"times must decrease strictly"),
    (lambda: forward(KEY, OU, X, [0.7, 0.1]), r"times .*must decrease strictly"),
    (lambda: forward(KEY, OU, X, [-0.7, 0.1]), r"times must be >= 0"),
    (lambda: MIXTURE.score(X, -0.2), r"times must be >= 0 .* but t = -0.2"),
    (lambda: MIXTURE.score(X, [0.2, np.nan, 0.1]), r"times must be >= 0"),
    (lambda: MIXTURE.sample(KEY, -1.0, 3), r"times must be >= 0 .* but t = -1.0"),
    (
        lambda: CLOUD.score(X, 0.0),
        r"t = 0 is singular here .* use a small positive time such as 1e",
    ),
    (lambda: CLOUD.log_density(X, 0.0), r"t = 0 is singular here"),
    (lambda: CLOUD.sample_posterior(KEY, X, 0.0), r"t = 0 is singular here"),
    (lambda: clone_agreement(KEY, CLOUD, [0.0, 0.5], 9), r"t = 0 is singular here"),
    (lambda: clone_agreement(KEY, MIXTURE, [-0.5], 9), r"times must be >= 0"),
    (lambda: collapse_curves(KEY, CLOUD, [0.0, 0.5], 9), r"t = 0 is singular here"),
    (lambda: collapse_curves(KEY, CLOUD, [np.nan], 9), r"times must be >= 0"),
]
CALLS = [
    (lambda: schedules.by_name("linear-ddpm"), r"unknown schedule 'linear-ddpm'; choose one of d"),
    (lambda: backward(KEY, MIXTURE, X, [0.7, 0.1], method="ddpm"), r"unknown method 'ddpm'; choose "
     r"one of exact, ancestral, ddim, euler_maruyama, heun, adaptive_ode"),
    (lambda: backward(KEY, MIXTURE, X[:, :1], [0.7, 0.1]), r"x has shape \(3, 1\), expected "),
    (lambda: backward(KEY, MIXTURE, 0.3, [0.7, 0.1]), r"x has shape \(\), expected \(\.\.\., 2\)"),
    (lambda: backward(KEY, MIXTURE, X.at[1, 0].set(jnp.nan), [0.7, 0.1]), r"x holds 1 NaN"),
    (lambda: MIXTURE.score(X.T, 0.3), r"x has shape \(2, 3\), expected \(\.\.\., 2\)"),
    (lambda: clones(KEY, MIXTURE, X, [0.7, 0.1], pairs=1), r"pairs must be at least 2, but is 1"),
    (lambda: collapse_curves(KEY, Diffusion(point_cloud(POINTS[:1]), OU), [0.5], 9),
     r"collapse needs n >= 2 points"),
    (lambda: ornstein_uhlenbeck(-1.0), r"temperature must be positive, but is -1.0"),
    (lambda: CLOUD.data.condition(2), r"class 2 does not exist; classes are 0\.\.1"),
    (lambda: CLOUD.data.condition(-1), r"class -1 does not exist"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), POINT_SETS + MIXTURES + TIMES + CALLS)
def test_the_error_names_value_and_fix(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collapse_curves(KEY, MIXTURE, [0.5], 9), "needs a point_cloud, got GaussianMix"),
        (
            lambda: backward(KEY, None, X, [0.7, 0.1]),
            "a Diffusion or a score function, got NoneType",
        ),
        (
            lambda: u_turns(KEY, None, X, [0.7, 0.1]),
            "a Diffusion or a score function, got NoneType",
        ),
        (lambda: MIXTURE.index_log_weights(X, 0.5), "an index over points .* GaussianMixture"),
    ],
)
def test_the_wrong_kind_is_named(call, message):
    with pytest.raises(TypeError, match=message):
        call()


# Defined results ----------------------------------------------------------------------------------


def test_one_point_is_collapsed_at_every_time():
    diffusion = Diffusion(point_cloud(POINTS[:1]), OU)
    a, _ = backward(KEY, diffusion, X, [5.0, 0.0], span_reduction=False)
    np.testing.assert_array_equal(a, np.repeat(POINTS[:1], 3, 0))
    in_span, _ = backward(KEY, diffusion, X, [5.0, 0.0])  # n = 1 < d = 2: the span is a point
    np.testing.assert_allclose(in_span, np.repeat(POINTS[:1], 3, 0), atol=1e-14)


def test_one_class_is_decided_at_every_time():
    diffusion = Diffusion(point_cloud(POINTS, np.zeros(6)), OU)
    found = clone_agreement(KEY, diffusion, [0.1, 9.0], 50)
    np.testing.assert_allclose(found.mean, 1, rtol=1e-12)
    np.testing.assert_allclose(found.error, 0, atol=1e-12)
    assert np.all(np.isnan(normalised_agreement(found.mean, diffusion.data.class_weights)))


def test_identical_points_are_one_point():
    # Zero variance: all points coincide.
    diffusion = Diffusion(point_cloud(np.full((5, 2), 1.25)), OU)
    np.testing.assert_allclose(diffusion.denoise(X, 0.4), 1.25, rtol=1e-12)
    np.testing.assert_allclose(np.exp(diffusion.index_log_weights(X, 0.4)), 0.2, rtol=1e-9)
    wide = Diffusion(point_cloud(np.full((2, 3), 1.25)), OU)  # the span has no direction
    a, _ = backward(KEY, wide, np.zeros((4, 3)), [0.7, 0.3, 0.0])
    np.testing.assert_allclose(a, 1.25, atol=1e-12)


def test_a_mixture_without_variance_is_a_set_of_points():
    diffusion = Diffusion(gaussian_mixture([0.5, 0.5], POINTS[:2], 0.0), OU)
    a, _ = backward(KEY, diffusion, X, [0.5, 0.2, 0.0])
    gap = np.abs(np.asarray(a)[:, None] - POINTS[:2]).max(-1).min(-1)
    np.testing.assert_allclose(gap, 0, atol=1e-14)
    with pytest.raises(ValueError, match="t = 0 is singular here"):
        diffusion.score(X, 0.0)


@pytest.mark.parametrize("t", [400.0, 1e6, np.inf])
def test_huge_times_are_the_stationary_law(t):
    # In float32, where e^-t and its square underflow.
    for model in (CLOUD, MIXTURE):
        x = jnp.asarray(X, jnp.float32)
        data = jax.tree.map(
            lambda v: v.astype(jnp.float32) if jnp.issubdtype(v.dtype, jnp.floating) else v,
            model.data,
        )
        diffusion = Diffusion(data, OU)
        np.testing.assert_allclose(diffusion.score(x, t), -x / 0.7, rtol=1e-6)
    found = collapse_curves(KEY, CLOUD, [t], 50)
    assert found.participation.mean[0] == pytest.approx(1 / 6, rel=1e-9)
    assert found.leave_one_out.mean[0] == pytest.approx(np.log(5) / 2, rel=1e-9)
    assert all(np.all(np.isfinite(e.mean)) for e in found[:5])


def test_integers_become_the_default_float():
    cloud = point_cloud(np.arange(6).reshape(3, 2), labels=[2, 1, 2])
    assert cloud.points.dtype == jnp.result_type(float)
    y, _ = forward(KEY, OU, np.array([[1, 2], [3, 4]]), [0.1, 0.4])
    assert jnp.issubdtype(y.dtype, jnp.floating)
    assert np.abs(np.asarray(y) - np.exp(-0.3) * np.array([[1, 2], [3, 4]])).min() > 1e-6
    score = MIXTURE.score(np.array([[1, 2]]), 0.3)
    np.testing.assert_allclose(score, MIXTURE.score(np.array([[1.0, 2.0]]), 0.3), rtol=1e-14)


def test_forward_chain_has_the_kernel_on_any_grid():
    # From one point through three transitions; mean and variance of N(e^-t a, Delta_t), z < 4.
    n = 20_000
    a = np.broadcast_to([2.0, -1.0], (n, 2))
    seen = forward(KEY, OU, a, [0.0, 0.2, 0.9, 1.0], observe=lambda x, t: x[:3])
    x = np.asarray(seen[0])
    assert seen[1].shape == (3, 3, 2)
    np.testing.assert_array_equal(seen[1][-1], x[:3])
    std = float(OU.std(1.0))
    z = (x.mean(0) - np.exp(-1.0) * a[0]) / (std / np.sqrt(n))
    assert np.abs(z).max() < 4
    assert np.abs((x.var(0) / std**2 - 1) / np.sqrt(2 / n)).max() < 4
