"""How many generated images an independent classifier recognises, and with which confidence.

The classifier is trained on labelled real images and knows nothing of the generator. An image is
recognised if the largest class probability exceeds `CONFIDENT`. The number means something between
two others only: the fraction of held-out real images that are recognised, and that of Gaussian
draws with the mean and covariance of the real images, which is all that a linear score generates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffjax.networks import functional
from diffjax.networks.classifier import ClassifierConfig, classifier, cross_entropy
from diffjax.networks.order import batch_indices
from experiments.learned import Images

CONFIDENT = 0.9
"""Class probability above which an image counts as recognised."""

BATCH, RATE = 64, 2e-3


class Recognition(NamedTuple):
    """What a classifier says of real, generated and Gaussian images.

    Attributes:
        accuracy: on held-out images, and its binomial standard error.
        held_out: fraction of the held-out images that are recognised, and its error.
        generated: the same of generated images.
        gaussian: the same of Gaussian draws with the mean and covariance of the training images.
        classes: fraction of each class among the recognised generated images, ``(K,)``.
    """

    accuracy: tuple[float, float]
    held_out: tuple[float, float]
    generated: tuple[float, float]
    gaussian: tuple[float, float]
    classes: np.ndarray


def recognise(key: jax.Array, data: Images, generated: np.ndarray, steps: int) -> Recognition:
    """Train a classifier on the training images and apply it to the others.

    Args:
        key: typed key.
        data: labelled images.
        generated: flat images ``(M, d)``.
        steps: optimiser steps of the classifier.

    Raises:
        ValueError: if the images have no labels.
    """
    key_train, key_draw = jax.random.split(key)
    read = reader(key_train, data, steps)
    classes = int(max(data.train_labels.max(), data.held_out_labels.max())) + 1
    real, drawn, other = (
        np.asarray(read(v))
        for v in (data.held_out, generated, _gaussian(key_draw, data, generated))
    )
    sure = drawn.max(-1) > CONFIDENT
    return Recognition(
        _fraction(real.argmax(-1) == data.held_out_labels),
        *(_fraction(p.max(-1) > CONFIDENT) for p in (real, drawn, other)),
        classes=np.bincount(drawn.argmax(-1)[sure], minlength=classes) / max(1, sure.sum()),
    )


def reader(key: jax.Array, data: Images, steps: int) -> Callable[[Any], jax.Array]:
    """A classifier of the training images: class probabilities ``(M, K)`` of flat images.

    Args:
        key: typed key.
        data: labelled images.
        steps: optimiser steps.

    Raises:
        ValueError: if the images have no labels.
    """
    if data.train_labels is None or data.held_out_labels is None:
        raise ValueError(f"{data.name} has no labels to train a classifier with")
    classes = int(max(data.train_labels.max(), data.held_out_labels.max())) + 1
    config = ClassifierConfig(data.shape[2], classes, width=16, stages=2)
    network, params = functional(classifier(config, key=key))
    images, labels = _events(data.train, data), jnp.asarray(data.train_labels)
    params = _train(key, params, images, labels, network, steps)
    return jax.jit(lambda flat: jax.nn.softmax(network.apply(params, _events(flat, data)), axis=-1))


def _events(flat: Any, data: Images) -> jax.Array:
    return jnp.asarray(flat, jnp.float32).reshape(-1, *data.shape)


def _fraction(hits: np.ndarray) -> tuple[float, float]:
    """A frequency and its standard error."""
    mean = float(np.mean(hits))
    return mean, float(np.sqrt(mean * (1 - mean) / len(hits)))


def _gaussian(key: jax.Array, data: Images, like: np.ndarray) -> np.ndarray:
    """As many Gaussian draws as generated images, clipped to the range of the pixels."""
    mean, covariance = data.train.mean(0), np.cov(data.train.T.astype(np.float64))
    values, vectors = np.linalg.eigh(covariance)
    z = np.asarray(jax.random.normal(key, like.shape, jnp.float32))
    drawn = mean + (z * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    return np.clip(drawn, data.train.min(), data.train.max())


def _train(
    key: jax.Array, params: Any, images: jax.Array, labels: jax.Array, network: Any, steps: int
) -> Any:
    """Adam with a learning rate that falls to zero."""
    key_order, key_dropout = jax.random.split(key)
    optimiser = optax.adam(optax.cosine_decay_schedule(RATE, steps))
    rows = batch_indices(key_order, jnp.int32(0), steps, min(BATCH, len(images)), len(images))

    def loss(params: Any, a: jax.Array, label: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.mean(cross_entropy(network.apply(params, a, key=key), label))

    # a loop in Python: convolutions inside of a compiled one are slow on a CPU
    @jax.jit
    def step(params: Any, state: Any, index: jax.Array) -> tuple[Any, Any]:
        row = rows[index]
        key = jax.random.fold_in(key_dropout, index)
        gradient = jax.grad(loss)(params, images[row], labels[row], key)
        change, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    state = optimiser.init(params)
    for index in range(steps):
        params, state = step(params, state, np.int32(index))
    return params
