"""Guidance rules and guided samplers, against closed forms and against a plain loop in NumPy.

The loop is written in the noise predictions and step variances of DDPM, the library in scores and
the transitions of any process, so that the two share no formula.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffjax import (
    Diffusion,
    backward,
    gaussian_mixture,
    guidance,
    ornstein_uhlenbeck,
    point_cloud,
    rectified_flow,
    variance_exploding,
)
from diffjax.dynamics import methods

T = 0.7
KEY = jax.random.key(31)
WEIGHTS = np.array([0.2, 0.35, 0.45])
CENTRES = np.array([[-1.6, 0.3], [0.2, -0.9], [1.1, 0.8]])
VARIANCES = np.array([0.3, 0.15, 0.5])
MODEL = Diffusion(gaussian_mixture(WEIGHTS, CENTRES, VARIANCES), ornstein_uhlenbeck(T))
UNIT = Diffusion(MODEL.data, ornstein_uhlenbeck())
GRID = np.array([1.4, 1.1, 0.7, 0.3, 0.15])
STATES = np.random.default_rng(5).normal(size=(6, 2)) * 1.3
TIME = jnp.asarray(0.6)


@jax.jit
def guided(rule, x=STATES, t=TIME):
    """The guided score at the start."""
    return rule.guide(rule.init(KEY, x), x, t)


class OnlyDenoisers:
    """A network's capabilities: means of all data and of each class, no posterior."""

    dim, classes = 2, 3

    def denoise(self, x, scale, std):
        return MODEL.data.denoise(x, scale, std)

    def class_denoise(self, x, scale, std):
        return MODEL.data.class_denoise(x, scale, std)


jax.tree_util.register_pytree_node(OnlyDenoisers, lambda _: ((), None), lambda *_: OnlyDenoisers())


def gaussian_scores(x, t, temperature=T):
    """``F`` and ``F_k`` of the mixture by hand, ``(B, 2)`` and ``(B, 3, 2)``."""
    scale, noise = np.exp(-t), temperature * (1 - np.exp(-2 * t))
    spread = noise + VARIANCES * scale**2
    offset = x[:, None] - scale * CENTRES
    log_joint = np.log(WEIGHTS) - np.log(spread) - 0.5 * np.sum(offset**2, -1) / spread
    p = np.exp(log_joint - log_joint.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    per_class = -offset / spread[:, None]
    return np.sum(p[..., None] * per_class, 1), per_class, p


def test_constant_rules_are_combinations_of_scores():
    score, per_class, p = gaussian_scores(STATES, 0.6)
    gap = per_class[:, 1] - score
    length = np.linalg.norm(gap, axis=-1, keepdims=True)
    odds = (p / (1 - p))[:, 1, None]
    expected = [
        (guidance.classifier_free(MODEL, 1, 1.7), per_class[:, 1] + 1.7 * gap),
        (guidance.classifier_free(MODEL, 1), per_class[:, 1]),
        (guidance.power_law(MODEL, 1, 1.7, 0.6), per_class[:, 1] + 1.7 * length**0.6 * gap),
        (guidance.power_law(MODEL, 1, 1.7, -0.4), per_class[:, 1] + 1.7 * length**-0.4 * gap),
        (guidance.negative_prompt(MODEL, 1, 1.7), score - 1.7 * gap),
        (guidance.exact_negative(MODEL, 1, 1.7), score - 1.7 * odds * gap),
    ]
    for rule, value in expected:
        np.testing.assert_allclose(guided(rule), value, rtol=1e-9, atol=1e-9)


def test_two_gaussians_have_the_published_extra_force():
    m, variance, w, t = 1.3 * np.array([0.6, 0.8]), 0.4, 1.7, 0.5
    data = gaussian_mixture([0.5, 0.5], np.stack([m, -m]), variance)
    rule = guidance.classifier_free(Diffusion(data, ornstein_uhlenbeck()), 0, w)
    gamma = 1 - np.exp(-2 * t) + variance * np.exp(-2 * t)
    field = np.exp(-t) * STATES @ m / gamma
    force = w * np.exp(-t) * m / gamma * (1 - np.tanh(field))[:, None]
    value = -(STATES - np.exp(-t) * m) / gamma + force
    np.testing.assert_allclose(guided(rule, t=jnp.asarray(t)), value, rtol=1e-10)


def test_exact_negative_is_the_score_of_the_other_classes_everywhere():
    kept = Diffusion(gaussian_mixture(WEIGHTS[1:], CENTRES[1:], VARIANCES[1:]), MODEL.process)
    far = np.concatenate([STATES, [[-60.0, 20.0], [40.0, -3.0]]])
    rule = guidance.exact_negative(MODEL, 0)
    for t in (0.05, 0.6, 2.0):
        value = guided(rule, far, jnp.asarray(t))
        np.testing.assert_allclose(value, kept.score(far, t), rtol=1e-8, atol=1e-8)


def test_exact_negative_of_points_is_finite_where_the_kept_classes_underflow():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(30, 2)).astype(np.float32)
    labels = np.arange(30) % 3
    points += 25 * np.stack([np.cos(labels), np.sin(labels)], -1).astype(np.float32)
    model, kept = (
        Diffusion(data, MODEL.process)
        for data in (point_cloud(points, labels), point_cloud(points[labels != 1]))
    )
    x = points[:6] + 0.3
    value = guided(guidance.exact_negative(model, 1), x, jnp.asarray(0.02, jnp.float32))
    np.testing.assert_allclose(value, kept.score(x, jnp.float32(0.02)), rtol=1e-3, atol=1e-2)


def test_exact_negative_with_limits_clips_the_posterior():
    score, per_class, p = gaussian_scores(STATES, 0.6)
    clipped = np.clip(p[:, 1, None], 0.2, 0.5)
    assert np.any(p[:, 1] < 0.2)
    assert np.any(p[:, 1] > 0.5)
    value = score - 1.3 * clipped / (1 - clipped) * (per_class[:, 1] - score)
    rule = guidance.exact_negative(MODEL, 1, 1.3, p_min=0.2, p_max=0.5)
    np.testing.assert_allclose(guided(rule), value, rtol=1e-9)


@given(st.floats(-3, 3))
def test_negative_weights_are_classifier_free_weights(weight):
    negative = guided(guidance.negative_prompt(MODEL, 2, weight))
    free = guided(guidance.classifier_free(MODEL, 2, -1 - weight))
    np.testing.assert_allclose(negative, free, rtol=1e-9, atol=1e-9)


def test_class_denoisers_suffice():
    network = Diffusion(OnlyDenoisers(), MODEL.process)
    for make in (guidance.classifier_free, guidance.negative_prompt, guidance.safe_latent):
        rules = [make(model, 2, 1.3) for model in (network, MODEL)]
        values = [guided(rule) for rule in rules]
        np.testing.assert_allclose(*values, rtol=1e-8, atol=1e-9)


def test_power_law_is_finite_where_class_and_data_agree():
    one = Diffusion(gaussian_mixture([1.0], [[0.3]], 0.4), ornstein_uhlenbeck())
    rule = guidance.power_law(one, 0, 1.5, -0.5)

    def total(x):
        return jnp.sum(rule.guide((), x, TIME))

    value, slope = jax.value_and_grad(total)(jnp.ones((2, 1)))
    assert np.isfinite(value)
    assert np.all(np.isfinite(slope))


def test_schedules_interpolate_in_their_clock():
    rule = guidance.schedule([3.0, 1.0, 2.0], times=[2.0, 0.5, 1.0])
    at = np.array([0.1, 0.5, 0.75, 1.5, 5.0])
    np.testing.assert_allclose([rule(t) for t in at], [1.0, 1.0, 1.5, 2.5, 3.0], rtol=1e-12)
    snr = 1 / (T * np.expm1(2 * at))
    rule = guidance.schedule([-1.0, 4.0], log_snr=[-2.0, 3.0], temperature=T)
    expected = np.interp(np.log(snr), [-2.0, 3.0], [-1.0, 4.0])
    np.testing.assert_allclose([rule(t) for t in at], expected, rtol=1e-12)


def test_weights_may_be_numbers_schedules_or_functions():
    number = guidance.classifier_free(MODEL, 1, 1.2)
    function = guidance.classifier_free(MODEL, 1, lambda t: 2 * t)
    knots = guidance.classifier_free(MODEL, 1, guidance.schedule([0.0, 2.0], times=[0.0, 1.0]))
    values = [guided(rule) for rule in (number, function, knots)]
    np.testing.assert_allclose(values[1], values[0], rtol=1e-12)
    np.testing.assert_allclose(values[2], values[0], rtol=1e-12)


SAMPLERS = {
    "ancestral": methods.ancestral(),
    "transition": methods.ancestral("transition"),
    "ddim": methods.ddim(),
    "sde": methods.euler_maruyama(),
    "heun": methods.heun(),
    "adaptive": methods.adaptive_ode(1e-9, 1e-9),
}


@pytest.mark.parametrize(
    ("method", "process"),
    [
        *((method, MODEL.process) for method in SAMPLERS.values()),
        (SAMPLERS["sde"], rectified_flow(T)),
        (SAMPLERS["heun"], rectified_flow(T)),
    ],
    ids=[*SAMPLERS, "sde-flow", "heun-flow"],
)
def test_weight_zero_is_conditional_sampling_with_the_same_noise(method, process):
    if isinstance(method, methods.AdaptiveOde):
        pytest.importorskip("diffrax")
    model = Diffusion(MODEL.data, process)
    rule = guidance.classifier_free(model, 1, 0.0)
    bent, info = backward(KEY, model, STATES, GRID, method=method, guidance=rule)
    alone = Diffusion(MODEL.data.condition(1), process)
    plain, _ = backward(KEY, alone, STATES, GRID, method=method)
    np.testing.assert_allclose(bent, plain, rtol=1e-7, atol=1e-9)
    assert info.guidance == ()


def alpha_bars(grid):
    """DDPM's tables for a grid of OU times: ``beta``, ``alpha_bar`` before and after each step."""
    after, before = np.exp(-2 * grid[1:]), np.exp(-2 * grid[:-1])
    return 1 - before / after, before, after


def plain_loop(x, grid, noise, guide, track, released):
    """The published loop in NumPy: ``guide(eps, eps_c, state)``, ``track(state, ratio, V)``."""
    state = None
    for i, (beta, bar, bar_next) in enumerate(zip(*alpha_bars(grid))):
        score, per_class, _ = gaussian_scores(x, grid[i], 1.0)
        eps, eps_c = -np.sqrt(1 - bar) * score, -np.sqrt(1 - bar) * per_class[:, 0]

        def mean(e, x=x, beta=beta, bar=bar):
            return (x - beta * e / np.sqrt(1 - bar)) / np.sqrt(1 - beta)

        bent, state = guide(eps, eps_c, state)
        new = mean(bent) + np.sqrt(beta) * noise[i]
        width = (1 - bar_next) / (1 - bar) * beta if released else beta
        squares = [np.sum((new - mean(e)) ** 2, -1) for e in (eps_c, eps, bent)]
        state = track(state, squares, width)
        x = new
    return x, state


def noise_of_steps(shape):
    steps = range(len(GRID) - 1)
    return [np.asarray(jax.random.normal(jax.random.fold_in(KEY, i), shape)) for i in steps]


@pytest.mark.parametrize("released", [False, True])
def test_dynamic_rule_is_the_published_loop(released):
    tau, delta, prior, lambda_0, p_min, p_max = 0.6, 0.03, 0.15, 1.4, 1e-4, 0.6

    def guide(eps, eps_c, log_p):
        log_p = np.full(len(eps), np.log(prior)) if log_p is None else log_p
        p = np.exp(log_p)
        return eps - (lambda_0 * p / (1 - p))[:, None] * (eps_c - eps), log_p

    def track(log_p, squares, width):
        moved = log_p + (-tau * (squares[0] - squares[1]) + delta) / (2 * width)
        return np.clip(moved, np.log(p_min), np.log(p_max))

    expected, log_p = plain_loop(STATES, GRID, noise_of_steps((6, 2)), guide, track, released)
    assert np.unique(log_p).size >= 3  # not all at a limit
    rule = guidance.dynamic_negative(
        UNIT, 0, prior=prior, weight=lambda_0, temper=tau, offset=delta, p_min=p_min, p_max=p_max,
        bridge_variance=released,
    )  # fmt: skip
    method = methods.ancestral("transition")
    x, info = backward(KEY, UNIT, STATES, GRID, method=method, guidance=rule)
    np.testing.assert_allclose(x, expected, rtol=1e-8)
    np.testing.assert_allclose(info.guidance, log_p, rtol=1e-8)
    np.testing.assert_allclose(guidance.tracked_posterior(rule, info.guidance), np.exp(log_p))


def test_normalised_rule_compares_with_the_guided_kernel():
    prior = 0.15

    def guide(eps, eps_c, odds):
        odds = np.full(len(eps), prior / (1 - prior)) if odds is None else odds
        return eps - odds[:, None] * (eps_c - eps), odds

    def track(odds, squares, width):
        return odds * np.exp(-(squares[0] - squares[2]) / (2 * width))

    expected, odds = plain_loop(STATES, GRID, noise_of_steps((6, 2)), guide, track, False)
    rule = guidance.normalised_negative(UNIT, 0, prior=prior, p_max=1 - 1e-9)
    method = methods.ancestral("transition")
    x, info = backward(KEY, UNIT, STATES, GRID, method=method, guidance=rule)
    np.testing.assert_allclose(x, expected, rtol=1e-8)
    np.testing.assert_allclose(info.guidance, np.log(odds), rtol=1e-7)
    p = guidance.tracked_posterior(rule, info.guidance)
    np.testing.assert_allclose(p, odds / (1 + odds), rtol=1e-7)


def test_thresholded_rule_is_the_published_formula():
    s, b, s_m, threshold, weight = 3.0, 0.3, 0.2, 0.4, 1.6

    def guide(eps, eps_c, nu):
        nu = np.zeros_like(eps) if nu is None else nu
        u = eps - eps_c
        kappa = -np.where(u < threshold, np.minimum(s * np.abs(u), 1), 0) * u + s_m * nu
        return eps - weight * kappa, b * nu + (1 - b) * kappa

    noise = noise_of_steps((6, 2))
    expected, nu = plain_loop(STATES, GRID, noise, guide, lambda nu, *_: nu, False)
    rule = guidance.safe_latent(
        UNIT, 0, weight, slope=s, threshold=threshold, momentum_scale=s_m, momentum_decay=b
    )
    method = methods.ancestral("transition")
    x, info = backward(KEY, UNIT, STATES, GRID, method=method, guidance=rule)
    np.testing.assert_allclose(x, expected, rtol=1e-8)
    np.testing.assert_allclose(info.guidance, nu, rtol=1e-8)


def test_tracking_does_not_depend_on_the_coordinates():
    rules, ends = [], []
    for process in (MODEL.process, variance_exploding(T)):
        model = Diffusion(MODEL.data, process)
        rule = guidance.dynamic_negative(model, 0, prior=0.2)
        start = STATES * float(process.scale(GRID[0]) / MODEL.process.scale(GRID[0]))
        x, info = backward(KEY, model, start, GRID, method="ancestral", guidance=rule)
        ends.append(x / process.scale(GRID[-1]))
        rules.append(info.guidance)
    np.testing.assert_allclose(*ends, rtol=1e-8)
    np.testing.assert_allclose(*rules, rtol=1e-8)


def test_pieces_with_progress_and_observed_states_are_the_whole_run():
    rule = guidance.dynamic_negative(UNIT, 0, prior=0.2)
    whole, info = backward(KEY, UNIT, STATES, GRID, guidance=rule, observe=_watch)
    done = []
    pieces, parts = backward(
        KEY, UNIT, STATES, GRID, guidance=rule, observe=_watch,
        progress=lambda *count: done.append(count),
    )  # fmt: skip
    assert info.method == "ancestral"
    assert done[-1] == (4, 4)
    np.testing.assert_allclose(pieces, whole, rtol=1e-12)
    for one, two in zip(jax.tree.leaves(info), jax.tree.leaves(parts)):
        np.testing.assert_allclose(one, two, rtol=1e-12)
    seen, log_p = info.observed
    np.testing.assert_array_equal(seen[-1], whole)
    np.testing.assert_array_equal(log_p[-1], info.guidance)


def _watch(x, t, state):
    return x, state


def test_single_precision_stays_single(strict):
    data = gaussian_mixture(
        WEIGHTS.astype(np.float32), CENTRES.astype(np.float32), VARIANCES.astype(np.float32)
    )
    model = Diffusion(data, ornstein_uhlenbeck())
    weight = guidance.schedule(np.ones(2), times=np.array([0.1, 1.0]))
    x, t = jnp.asarray(STATES, jnp.float32), jnp.asarray(TIME, jnp.float32)
    for rule in (
        guidance.classifier_free(model, 1, weight),
        guidance.exact_negative(model, 1),
        guidance.safe_latent(model, 0, 1.2),
    ):
        assert guided(rule, x, t).dtype == jnp.float32
    rule = guidance.normalised_negative(model, 0, prior=0.2)
    method = methods.ancestral("transition")
    end, info = backward(KEY, model, x, GRID, method=method, guidance=rule)
    assert end.dtype == info.guidance.dtype == jnp.float32


def refused(words, error=ValueError):
    return pytest.raises(error, match=words)


def test_what_cannot_be_guided_is_refused():
    free = guidance.classifier_free(MODEL, 1, 1.0)
    dynamic = guidance.dynamic_negative(MODEL, 1, prior=0.35)
    momentum = guidance.safe_latent(MODEL, 1, 1.0)

    def run(rule, method, model=MODEL):
        backward(KEY, model, STATES, GRID, method=method, guidance=rule)

    with refused("exact.*guided score"):
        run(free, "exact")
    for quiet in ("ddim", "heun", methods.euler_maruyama(0.0), methods.euler_maruyama(0.5)):
        with refused("tracks the class"):
            run(dynamic, quiet)
    pytest.importorskip("diffrax")
    with refused("adaptive solver"):
        run(momentum, "adaptive_ode")
    with refused("RectifiedFlow"):
        run(free, "heun", Diffusion(MODEL.data, rectified_flow(T)))
    with refused("dimension 1"):
        one = Diffusion(gaussian_mixture([1.0], [[0.0]], 1.0), MODEL.process)
        backward(KEY, one, STATES[:, :1], GRID, method="heun", guidance=free)
    with refused("rule of diffjax.guidance", TypeError):
        run(1.5, "heun")


def test_bad_rules_are_refused():
    with refused("class 3 does not exist"):
        guidance.classifier_free(MODEL, 3)
    with refused("Diffusion", TypeError):
        guidance.classifier_free(MODEL.data, 0)
    with refused("denoiser for each class", TypeError):
        unlabelled = Diffusion(_Bare(), MODEL.process)
        guidance.negative_prompt(unlabelled, 0)
    with refused("class_log_posterior", TypeError):
        guidance.exact_negative(Diffusion(OnlyDenoisers(), MODEL.process), 0)
    with refused("guidance.schedule"):
        guidance.classifier_free(MODEL, 0, [1.0, 2.0])
    with refused("exponent"):
        guidance.power_law(MODEL, 0, 1.0, -1.0)
    with refused("0 < prior < 1"):
        guidance.dynamic_negative(MODEL, 0, prior=0.0)
    with refused("p_max"):
        guidance.normalised_negative(MODEL, 0, prior=0.2, p_max=1.0)
    with refused("p_min < p_max"):
        guidance.exact_negative(MODEL, 0, p_min=0.5, p_max=0.1)
    with refused("times or as log_snr"):
        guidance.schedule([1.0])
    with refused("expected"):
        guidance.schedule([1.0, 2.0], times=[0.5])
    with refused("distinct"):
        guidance.schedule([1.0, 2.0], times=[0.5, 0.5])
    with refused("bridge"):
        methods.ancestral("beta")


class _Bare:
    dim = 2

    def denoise(self, x, scale, std):
        return x


@pytest.mark.slow
def test_point_clouds_with_labels_can_be_guided():
    points = np.random.default_rng(3).normal(size=(12, 2))
    model = Diffusion(point_cloud(points, np.arange(12) % 3), ornstein_uhlenbeck())
    rule = guidance.exact_negative(model, 1)
    kept = Diffusion(point_cloud(points[np.arange(12) % 3 != 1]), model.process)
    value = guided(rule)
    np.testing.assert_allclose(value, kept.score(STATES, 0.6), rtol=1e-7, atol=1e-9)


def test_wide_ancestral_steps_are_exact_for_standard_normal_data():
    model = Diffusion(gaussian_mixture([1.0], [[0.0]], 1.0), ornstein_uhlenbeck())
    x = jnp.asarray(np.random.default_rng(2).normal(size=(40_000, 1)))
    x, _ = backward(KEY, model, x, [1.4, 0.9, 0.5, 0.2], method=methods.ancestral("transition"))
    # variance one at every time; its standard error is sqrt(2 / n); the bridge gives 0.65
    assert abs(float(jnp.var(x)) - 1) < 4 * np.sqrt(2 / 40_000)
    one = jnp.asarray([[0.7]])
    ended, _ = backward(KEY, model, one, [1.4, 0.0], method=methods.ancestral("transition"))
    np.testing.assert_allclose(ended, model.denoise(one, 1.4), rtol=1e-12)
