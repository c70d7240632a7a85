"""The perceptron and the classifier: features, seeds in one vmap, learning, shapes, errors."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from diffjax import networks
from diffjax.networks.classifier import ClassifierConfig, classifier, cross_entropy
from diffjax.networks.mlp import MLPConfig, mlp

CONFIG = MLPConfig(dim=3, width=24, depth=2, features=5, bandwidth=0.7)
IMAGES = ClassifierConfig(channels=2, classes=3, width=8, stages=2, groups=4, dropout=0.2)


@pytest.fixture(scope="module")
def perceptron():
    return networks.functional(mlp(CONFIG, key=jax.random.key(1)))


@pytest.fixture(scope="module")
def images():
    """Network, parameters, compiled function and images (5, 8, 4, 2)."""
    network, params = networks.functional(classifier(IMAGES))
    x = jax.random.normal(jax.random.key(2), (5, 8, 4, 2), jnp.float32)
    return network, params, jax.jit(network.apply), x


def test_perceptron_is_its_equation(perceptron):
    network, params = perceptron
    x = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
    t = np.array([1e-3, 0.2, 1.0, 30.0], np.float32)
    p = {
        ".".join(map(str, path)): np.asarray(v[...], float) for path, v in nnx.to_flat_state(params)
    }

    def layer(name, h):
        return h @ p[f"{name}.kernel"] + p[f"{name}.bias"]

    def silu(h):
        return h / (1 + np.exp(-h))

    omega = np.float32(0.7 * np.random.RandomState(0).normal(size=5)).astype(float)
    y = (t + 0.5 * np.log(-np.expm1(-2 * t.astype(float))))[:, None]
    e = silu(layer("embed", np.concatenate([y, np.sin(y * omega), np.cos(y * omega)], 1)))
    h = layer("first", x)
    for i in range(2):
        inner = layer(f"layers.{i}.inner", silu(h)) + layer(f"layers.{i}.time", e)
        h = h + layer(f"layers.{i}.outer", silu(inner))
    np.testing.assert_allclose(network.apply(params, x, t), layer("last", silu(h)), atol=2e-6)


def test_perceptron_is_finite_at_both_ends_of_time(perceptron):
    network, params = perceptron
    out = network.apply(params, jnp.ones((3, 3)), jnp.array([0.0, 1e-8, 40.0]))
    assert np.all(np.isfinite(out))
    np.testing.assert_array_equal(out[0], out[1])
    whole = network.apply(params, jnp.ones(3), 2)  # an integer is a time, too
    np.testing.assert_allclose(whole, network.apply(params, jnp.ones(3), 2.0), rtol=1e-5)


def test_seeds_are_trained_in_one_vmap(perceptron):
    network, single = perceptron

    def parameters(key):
        return networks.functional(mlp(CONFIG, key=key))[1]

    keys = jax.vmap(jax.random.key)(jnp.arange(3))
    params = jax.jit(jax.vmap(parameters))(keys)
    np.testing.assert_array_equal(
        jax.tree.leaves(params)[0][1], jax.tree.leaves(single)[0]  # seed 1
    )  # fmt: skip
    x = jnp.ones((5, 3), jnp.float32)
    out = jax.vmap(lambda p: network.apply(p, x, 0.5))(params)
    assert out.shape == (3, 5, 3)
    assert float(jnp.abs(out[0] - out[1]).min()) > 0
    count = networks.count_parameters(mlp(CONFIG))
    assert count.total - count.trainable == 5
    assert count.trainable == sum(leaf.size for leaf in jax.tree.leaves(single))


def test_classifier_learns_a_visible_class(images):
    network, params, apply, _ = images
    key_label, key_noise = jax.random.split(jax.random.key(5))
    labels = jax.random.randint(key_label, (60,), 0, 3)
    rows = jnp.arange(8) // 3
    x = (rows[None, :] == labels[:, None]).astype(jnp.float32)[:, :, None, None]
    x = x + 0.5 * jax.random.normal(key_noise, (60, 8, 4, 2), jnp.float32)
    optimiser = optax.adam(1e-2)

    def loss(params, key):
        return jnp.mean(cross_entropy(network.apply(params, x, key=key), labels))

    @jax.jit
    def train(params, keys):
        def step(carry, key):
            params, state = carry
            value, gradient = jax.value_and_grad(loss)(params, key)
            change, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, change), state), value

        carry, losses = jax.lax.scan(step, (params, optimiser.init(params)), keys)
        return carry[0], losses

    params, losses = train(params, jax.random.split(jax.random.key(6), 40))
    assert losses[0] > 0.9
    assert losses[-1] < 0.2
    assert np.mean(np.argmax(apply(params, x), -1) == labels) > 0.97


def test_evaluation_is_deterministic_and_of_each_image_alone(images):
    _, params, apply, x = images
    out = apply(params, x)
    assert out.shape == (5, 3)
    np.testing.assert_array_equal(out, apply(params, x))
    mixed = apply(params, x.at[1:].multiply(7.0))
    np.testing.assert_allclose(out[0], mixed[0], rtol=1e-5)
    noisy = apply(params, x, key=jax.random.key(0))
    assert float(jnp.abs(noisy - out).max()) > 1e-3


def test_cross_entropy_is_minus_the_log_probability():
    logits = jnp.array([[0.3, -1.2, 80.0], [2.0, 1.0, -0.5]])
    p = np.exp([2.0, 1.0, -0.5])
    wanted = [80.0 - 0.3, -np.log(p[1] / p.sum())]
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([0, 1])), wanted, rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [
        (mlp, {"width": 0}, "width must be an integer >= 1"),
        (mlp, {"bandwidth": -1.0}, "bandwidth must be positive"),
        (classifier, {"groups": 3}, "width = 8 must be a multiple of groups = 3"),
        (classifier, {"dropout": -0.1}, r"dropout must lie in \[0, 1\)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(make, change, message):
    config = CONFIG if make is mlp else IMAGES
    with pytest.raises(ValueError, match=message):
        make(replace(config, **change))


def test_inputs_that_do_not_fit_are_refused(perceptron, images):
    network, params = perceptron
    with pytest.raises(ValueError, match=r"expected \(B, 3\)"):
        network.apply(params, jnp.ones((2, 4)), 0.1)
    network, params, _, _ = images
    with pytest.raises(ValueError, match="multiples of 2; pad"):
        network.apply(params, jnp.ones((2, 5, 4, 2)))
