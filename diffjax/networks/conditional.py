r"""A class-conditional network as a data distribution, and a perceptron that takes a label.

A conditional network is a pure function ``apply(params, x, time, label, *, key)`` of a label 0 to
K - 1, or of the null label K for "no class given". One network learns both posterior means,

    D_k(x) = E[a | x, class k]    from examples with their label,                           (1)
    D(x) = E[a | x]               from examples whose label was replaced by K,              (2)

by replacing every label with probability ``label_dropout`` where the network is given a key, which
is during training only. The two are learned separately: ``D = sum_k p(k | x) D_k`` holds for the
exact posterior and is not imposed on a network.

Training is that of any network, with the labels beside the examples:

    network, params = functional(conditional_mlp(ConditionalMLPConfig(dim=2, classes=3)))
    state, _ = training.train(state, network.apply, objective, points, config, labels=labels)
    data = conditional_denoiser(network.apply, training.trained_parameters(state), classes=3,
                                shape=2, parametrisation=objective.parametrisation)

References:
    Ho, Salimans 2022 (2207.12598), label dropout; Dhariwal, Nichol 2021 (2105.05233), the label
    added to the embedding of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, records
from diffjax.networks.denoiser import NetworkDenoiser, network_denoiser
from diffjax.networks.layers import Uniform
from diffjax.networks.mlp import MLP, MLPConfig
from diffjax.processes import Process


@records.register
@dataclass(frozen=True)
class ConditionalDenoiser:
    """A conditional network as data; made by `conditional_denoiser`; a `ClassDenoiser`.

    Attributes:
        network: the network at the null label; its parameters are the pair (parameters, label).
        class_weights: prior weight of every class, ``(K,)``, traced.
        classes: number of classes K, static.
    """

    network: NetworkDenoiser
    class_weights: Array
    classes: int = field(metadata={"static": True})

    @property
    def dim(self) -> int:
        """Dimension d of the data."""
        return self.network.dim

    def denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Estimate of ``E[a | x]``: the network at the null label, eq. (2), shape of ``x``."""
        return self.network.denoise(x, scale, std)

    def score(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Estimate of the score at the null label, shape of ``x``; divides by no scale."""
        return self.network.score(x, scale, std)

    def class_denoise(self, x: Array, scale: ArrayLike, std: ArrayLike) -> Array:
        """Estimate of ``E[a | x, c]`` of every class, eq. (1), ``(..., K, d)``."""

        def one_class(label: Array) -> Array:
            return _at_label(self.network, label).denoise(x, scale, std)

        return jax.vmap(one_class, out_axes=-2)(jnp.arange(self.classes))

    def condition(self, c: int) -> NetworkDenoiser:
        """The network at label ``c`` alone, for every sampler."""
        if c not in range(self.classes):
            raise ValueError(f"class {c} does not exist; classes are 0..{self.classes - 1}")
        return _at_label(self.network, jnp.asarray(c))


def conditional_denoiser(
    apply: Callable[..., Array],
    params: Any,
    *,
    classes: int,
    shape: int | tuple[int, ...],
    class_weights: ArrayLike | None = None,
    process: Process | None = None,
    parametrisation: str = "eps",
    t_range: tuple[float, float] | None = None,
    whole_steps: bool | None = None,
) -> ConditionalDenoiser:
    """Make a class-conditional network a data distribution: it denoises with and without a class.

    Args:
        apply: pure function ``apply(params, x (..., *shape), time (...), label (...))``, hashable,
            of labels 0 to K - 1 and of the null label K.
        params: its parameters, a pytree.
        classes: number of classes K.
        shape: shape of an event, as for `network_denoiser`.
        class_weights: prior weight of every class, ``(K,)``, normalised here; equal if None.
        process: as for `network_denoiser`.
        parametrisation: as for `network_denoiser`.
        t_range: as for `network_denoiser`.
        whole_steps: as for `network_denoiser`.

    Raises:
        ValueError: on weights of another length, negative or all zero; else as `network_denoiser`.
        TypeError: if ``apply`` cannot be called.

    References:
        Ho, Salimans 2022 (2207.12598).
    """
    if not callable(apply):
        raise TypeError(f"apply must be a function of (params, x, time, label), got {apply!r}")
    classes = checks.count(classes, "classes")
    network = network_denoiser(
        _Labelled(apply), (params, jnp.asarray(classes)), shape=shape, process=process,
        parametrisation=parametrisation, t_range=t_range, whole_steps=whole_steps,
    )  # fmt: skip
    return ConditionalDenoiser(network, _weights(class_weights, classes), classes)


@dataclass(frozen=True)
class ConditionalMLPConfig:
    """Sizes of a `ConditionalMLP`.

    Attributes:
        dim: dimension of the data.
        classes: number of classes K.
        label_dropout: probability with which training replaces a label by the null label.
        width, depth, features, bandwidth, seed: as in `diffjax.networks.mlp.MLPConfig`.
    """

    dim: int
    classes: int
    label_dropout: float = 0.1
    width: int = 256
    depth: int = 3
    features: int = 32
    bandwidth: float = 1.0
    seed: int = 0


class ConditionalMLP(nnx.Module):
    """Perceptron on vectors ``(B, d)`` at OU times and labels ``(B,)``.

    A row of a table of K + 1 rows, one per label, is added to the embedding of the time. Made by
    `conditional_mlp`.
    """

    event_ndim = 1

    def __init__(self, config: ConditionalMLPConfig, *, rngs: nnx.Rngs):
        self.null = checks.count(config.classes, "classes")
        if not 0 <= config.label_dropout < 1:
            raise ValueError(f"label_dropout must lie in [0, 1), but is {config.label_dropout}")
        self.label_dropout = float(config.label_dropout)
        sizes = ("dim", "width", "depth", "features", "bandwidth", "seed")
        self.body = MLP(MLPConfig(**{name: getattr(config, name) for name in sizes}), rngs=rngs)
        self.table = nnx.Param(Uniform(1.0)(rngs.params(), (self.null + 1, config.width)))

    def __call__(self, x: Array, time: Array, label: Array, *, key: Array | None = None) -> Array:
        """Prediction ``(B, d)``; with a key labels are dropped, as in training.

        A label beyond K gives NaN rather than the prediction for another class.
        """
        if key is not None and self.label_dropout > 0:
            dropped = jax.random.bernoulli(key, self.label_dropout, label.shape)
            label = jnp.where(dropped, self.null, label)
        shift = jnp.take(jnp.asarray(self.table[...]), label, axis=0, mode="fill")
        return self.body(x, time, shift=shift.astype(x.dtype))


def conditional_mlp(config: ConditionalMLPConfig, *, key: Array | None = None) -> ConditionalMLP:
    """A `ConditionalMLP` with freshly drawn weights (float32).

    Args:
        config: the sizes.
        key: typed PRNG key of the weights; ``jax.random.key(0)`` if None.

    Raises:
        ValueError: if a size is no integer above zero, or the dropout is not in [0, 1).
    """
    return ConditionalMLP(config, rngs=nnx.Rngs(jax.random.key(0) if key is None else key))


@dataclass(frozen=True)
class _Labelled:
    """``apply(params, x, time, label)`` as a function of ``((params, label), x, time)``."""

    apply: Callable[..., Array]

    def __call__(self, params: tuple[Any, Array], x: Array, time: Array) -> Array:
        weights, label = params
        return self.apply(weights, x, time, jnp.broadcast_to(label, jnp.shape(time)))


def _at_label(network: NetworkDenoiser, label: Array) -> NetworkDenoiser:
    return replace(network, params=(network.params[0], label))


def _weights(class_weights: ArrayLike | None, classes: int) -> Array:
    """Normalised prior weights ``(K,)``."""
    if class_weights is None:
        return jnp.full(classes, 1 / classes)
    weights = checks.floating(class_weights, "class_weights")
    if weights.shape != (classes,):
        raise ValueError(f"class_weights has shape {weights.shape}, expected ({classes},)")
    if checks.is_concrete(weights) and not (np.all(weights >= 0) and np.sum(weights) > 0):
        raise ValueError(f"class_weights must be >= 0 and not all zero, but are {weights}")
    return weights / jnp.sum(weights)
