r"""A multilayer perceptron for data of low dimension, with random Fourier features of the time.

The time enters through ``y = log(expm1 2t) / 2``, minus half the logarithm of the signal-to-noise
ratio at temperature 1, which spreads the noise levels evenly:

    e = SiLU(W [y, sin(omega_k y), cos(omega_k y)]),    omega_k ~ N(0, bandwidth^2) frozen,  (1)
    h <- h + W2 SiLU(W1 SiLU(h) + W3 e)                 ``depth`` times.                     (2)

References:
    Tancik et al. 2020 (2006.10739), Fourier features; He et al. 2016 (1512.03385), residuals.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn import silu

from diffjax import checks
from diffjax.networks.layers import Frozen, at_least_single, linear

_SHORTEST = 1e-6  # OU time below which the features stay as they are: y -> -infinity at t = 0


@dataclass(frozen=True)
class MLPConfig:
    """Sizes of an `MLP`.

    Attributes:
        dim: dimension of the data.
        width: width of the hidden layers.
        depth: number of residual layers.
        features: number of frequencies of the time.
        bandwidth: standard deviation of the frequencies.
        seed: seed of the frequencies, which belong to the architecture: networks that differ in
            their weights only can be trained in one ``vmap``.
    """

    dim: int
    width: int = 256
    depth: int = 3
    features: int = 32
    bandwidth: float = 1.0
    seed: int = 0


class MLP(nnx.Module):
    """Residual perceptron on vectors ``(B, d)`` at OU times ``(B,)``; made by `mlp`."""

    event_ndim = 1

    def __init__(self, config: MLPConfig, *, rngs: nnx.Rngs):
        for name in ("dim", "width", "depth", "features"):
            checks.count(getattr(config, name), name)
        checks.positive(config.bandwidth, "bandwidth")
        draws = np.random.RandomState(config.seed).normal(size=config.features)
        self.tones = Frozen((config.bandwidth * draws).astype(np.float32))
        self.embed = linear(2 * config.features + 1, config.width, rngs=rngs)
        self.first = linear(config.dim, config.width, rngs=rngs)
        self.layers = nnx.List([_Layer(config.width, rngs) for _ in range(config.depth)])
        self.last = linear(config.width, config.dim, rngs=rngs)

    def __call__(
        self, x: Array, time: Array, *, shift: Array | None = None, key: Array | None = None
    ) -> Array:
        """Prediction ``(B, d)``; there is no dropout, so that ``key`` changes nothing.

        ``shift (B, width)``, where given, is added to ``W [...]`` inside eq. (1).
        """
        del key
        if x.shape[-1] != self.first.in_features:
            raise ValueError(f"x has shape {x.shape}, expected (B, {self.first.in_features})")
        e = self.embed(_features(time, jnp.asarray(self.tones[...])).astype(x.dtype))
        e = silu(e if shift is None else e + shift)
        h = self.first(x)
        for layer in self.layers:
            h = layer(h, e)
        return self.last(silu(h))


class _Layer(nnx.Module):
    """Eq. (2)."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.inner = linear(width, width, rngs=rngs)
        self.time = linear(width, width, rngs=rngs)
        self.outer = linear(width, width, rngs=rngs)

    def __call__(self, h: Array, e: Array) -> Array:
        return h + self.outer(silu(self.inner(silu(h)) + self.time(e)))


def mlp(config: MLPConfig, *, key: Array | None = None) -> MLP:
    """An `MLP` with freshly drawn weights (float32).

    Args:
        config: the sizes.
        key: typed PRNG key of the weights; ``jax.random.key(0)`` if None.

    Raises:
        ValueError: if a size is no integer above zero.
    """
    return MLP(config, rngs=nnx.Rngs(jax.random.key(0) if key is None else key))


def _features(time: Array, tones: Array) -> Array:
    """``[y, sin(omega y), cos(omega y)]`` of eq. (1), ``(B, 2 features + 1)``."""
    floating = jnp.issubdtype(time.dtype, jnp.floating)
    time = time.astype(at_least_single(time.dtype) if floating else jnp.float32)
    time = jnp.maximum(time, _SHORTEST)
    # log(expm1 2t) = 2t + log(1 - e^{-2t}) does not overflow
    y = (time + 0.5 * jnp.log(-jnp.expm1(-2 * time)))[:, None]
    angle = y * tones.astype(y.dtype)
    return jnp.concatenate([y, jnp.sin(angle), jnp.cos(angle)], axis=-1)
