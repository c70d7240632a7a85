"""A conditional network: its equation, label dropout, learning with labels, the class denoisers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import Diffusion, gaussian_mixture, ornstein_uhlenbeck, variance_exploding
from diffjax.data.base import ClassDenoiser, Classified, Denoiser
from diffjax.networks import functional, objectives, training
from diffjax.networks.conditional import (
    ConditionalMLPConfig,
    conditional_denoiser,
    conditional_mlp,
)

KEY = jax.random.key(11)
CONFIG = ConditionalMLPConfig(dim=2, classes=3, label_dropout=0.3, width=32, depth=2, features=6)
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEANS = np.array([[1.5, 0.0], [-1.0, 1.0], [0.0, -1.4]])
MIXTURE = gaussian_mixture(WEIGHTS, MEANS.astype(np.float32), [0.1, 0.3, 0.2])
OBJECTIVE = objectives.modern(t_min=0.02, t_max=3.0)
RECIPE = training.modern(steps=1500, batch=128, learning_rate=3e-3, warm_up=50, ema=0.99, seed=4)


@pytest.fixture(scope="module")
def fresh():
    return functional(conditional_mlp(CONFIG, key=jax.random.key(1)))


@pytest.fixture(scope="module")
def examples():
    rng = np.random.default_rng(5)
    labels = rng.choice(3, size=4000, p=WEIGHTS)
    spread = np.sqrt([0.1, 0.3, 0.2])[labels][:, None]
    points = MEANS[labels] + spread * rng.normal(size=(4000, 2))
    return points.astype(np.float32), labels


@pytest.fixture(scope="module")
def trained(fresh, examples):
    network, params = fresh
    points, labels = examples
    state = training.initial_state(params, RECIPE)
    state, losses = training.train(state, network.apply, OBJECTIVE, points, RECIPE, labels=labels)
    return training.trained_parameters(state), losses


def as_data(network, params, **options):
    return conditional_denoiser(
        network.apply, params, classes=3, shape=2, parametrisation="v", t_range=(0.02, 3.0),
        class_weights=WEIGHTS, **options,
    )  # fmt: skip


def test_labels_shift_the_embedding_of_the_time(fresh):
    """With the rows of the table exchanged, the outputs of the classes are exchanged."""
    network, params = fresh
    x = jnp.ones((1, 2), jnp.float32)
    out = [np.asarray(network.apply(params, x, 0.3, k)) for k in range(4)]
    assert min(np.abs(out[i] - out[j]).max() for i in range(4) for j in range(i)) > 1e-3
    swapped = jax.tree.map(lambda v: v[::-1] if v.shape == (4, 32) else v, params)
    np.testing.assert_allclose(network.apply(swapped, x, 0.3, 0), out[3], rtol=1e-6)
    assert np.isnan(network.apply(params, x, 0.3, 4)).all()


def test_labels_are_dropped_with_a_key_only(fresh):
    network, params = fresh
    x = jnp.ones((4000, 2), jnp.float32)
    apply = jax.jit(network.apply)
    own, null = (np.asarray(apply(params, x, 0.3, k))[0] for k in (1, 3))
    assert np.abs(own - null).max() > 1e-3
    out = np.asarray(apply(params, x, 0.3, 1, key=KEY))
    dropped = np.abs(out - null).max(1) < 1e-5
    kept = np.abs(out - own).max(1) < 1e-5
    assert np.all(dropped ^ kept)
    assert abs(dropped.mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)


def test_protocols(fresh):
    data = as_data(*fresh)
    assert isinstance(data, Denoiser)
    assert isinstance(data, ClassDenoiser)
    assert not isinstance(data, Classified)
    np.testing.assert_allclose(data.class_weights, WEIGHTS, rtol=1e-6)
    x = jax.random.normal(KEY, (5, 2, 2), jnp.float32)
    every = data.class_denoise(x, 0.6, 0.8)
    assert every.shape == (5, 2, 3, 2)
    for c in range(3):
        np.testing.assert_allclose(
            every[..., c, :], data.condition(c).denoise(x, 0.6, 0.8), atol=2e-6
        )
    tweedie = (0.6 * data.denoise(x, 0.6, 0.8) - x) / 0.64
    np.testing.assert_allclose(data.score(x, 0.6, 0.8), tweedie, atol=1e-5)
    with pytest.raises(ValueError, match="class 3 does not exist"):
        data.condition(3)


def test_trained_denoisers_are_those_of_the_classes(fresh, trained):
    """Distances to the exact posterior means, in the spread of the data, which is about one."""
    model = Diffusion(as_data(fresh[0], trained[0]), ornstein_uhlenbeck())
    for t in (0.15, 0.5, 1.2):
        x = Diffusion(MIXTURE, ornstein_uhlenbeck()).sample(KEY, t, 1000)
        scale, std = jnp.exp(-t), jnp.sqrt(-jnp.expm1(-2 * t))
        exact, log_p = (
            f(x, scale, std) for f in (MIXTURE.class_denoise, MIXTURE.class_log_posterior)
        )
        found = model.data.class_denoise(x, scale, std)
        square = jnp.sum(jnp.exp(log_p) * jnp.sum((found - exact) ** 2, -1), -1)
        assert jnp.sqrt(jnp.mean(square)) < 0.12
        # the classes of a network without labels would all be the mixture's own mean
        shared = jnp.sum(jnp.exp(log_p) * jnp.sum((found - model.denoise(x, t)[:, None]) ** 2, -1))
        if t > 0.4:
            assert jnp.sqrt(shared / 1000) > 0.3
        plain = jnp.sum((model.denoise(x, t) - MIXTURE.denoise(x, scale, std)) ** 2, -1)
        assert jnp.sqrt(jnp.mean(plain)) < 0.12


def test_other_coordinates(fresh, trained):
    """The exploding process asks the same network at the same signal-to-noise ratio."""
    data = as_data(fresh[0], trained[0])
    x = jax.random.normal(KEY, (6, 2), jnp.float32)
    t = 0.4
    ou, ve = (Diffusion(data, p) for p in (ornstein_uhlenbeck(), variance_exploding()))
    np.testing.assert_allclose(
        ve.class_score(jnp.exp(t) * x, t), jnp.exp(-t) * ou.class_score(x, t), rtol=2e-4, atol=2e-5
    )


def test_training_in_pieces_and_without_labels(fresh, examples):
    """Accumulated batches give the same gradient up to dropout; labels are checked."""
    network, params = fresh
    points, labels = examples
    recipe = replace(RECIPE, steps=2, accumulate=2)
    state, losses = training.train(
        training.initial_state(params, recipe), network.apply, OBJECTIVE, points, recipe,
        labels=labels,
    )  # fmt: skip
    assert np.isfinite(losses).all()
    for wrong in (labels[:-1], labels.astype(float), labels - 1):
        with pytest.raises(ValueError, match="expected one class index"):
            training.train(state, network.apply, OBJECTIVE, points, recipe, labels=wrong)
    with pytest.raises(training.NonFiniteLossError):
        training.train(
            training.initial_state(params, recipe), network.apply, OBJECTIVE, points, recipe,
            labels=labels + 4,
        )  # fmt: skip


BAD = [
    (lambda f: as_data(*f, whole_steps=1) and conditional_denoiser(3, None, classes=2, shape=2),
     TypeError, "apply must be a function"),
    (lambda f: conditional_denoiser(f[0].apply, f[1], classes=0, shape=2), ValueError, "classes"),
    (lambda f: conditional_denoiser(f[0].apply, f[1], classes=3, shape=2, class_weights=[1, 2]),
     ValueError, r"shape \(2,\), expected \(3,\)"),
    (lambda f: conditional_denoiser(f[0].apply, f[1], classes=2, shape=2, class_weights=[-1, 2]),
     ValueError, "not all zero"),
    (lambda f: conditional_mlp(replace(CONFIG, label_dropout=1.0)), ValueError, "label_dropout"),
]  # fmt: skip


@pytest.mark.parametrize("place", range(len(BAD)))
def test_bad_input_is_refused(fresh, place):
    call, error, message = BAD[place]
    with pytest.raises(error, match=message):
        call(fresh)
