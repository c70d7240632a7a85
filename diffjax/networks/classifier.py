r"""A small residual classifier of images, for the class of generated samples.

Stages of halving resolution and doubling width, each with residual blocks

    h = conv(dropout(SiLU(GN(conv(SiLU(GN(x))))))) + (x or a 1x1 convolution of it),

then GN, SiLU, the mean over pixels, and a linear layer. GroupNorm has no batch statistics, so that
an evaluated label depends on its image alone; labels that are read in training mode (dropout,
batch statistics) are noisy and keep the agreement of clones below 1 at small times.

References:
    He et al. 2016 (1603.05027), pre-activation; Wu, He 2018 (1803.08494); Biroli, Bonnaire, de
    Bortoli, Mezard 2024 (2402.18491), whose labels come from a residual network.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn import silu

from diffjax import checks
from diffjax.networks import layers
from diffjax.networks.layers import conv, group_norm, linear, stream

_EPSILON = 1e-5


@dataclass(frozen=True)
class ClassifierConfig:
    """Sizes of a `Classifier`.

    Attributes:
        channels: channels of the images.
        classes: number of classes.
        width: width of the first stage, doubled by every later one.
        stages: number of resolutions; sides must be divisible by ``2^(stages - 1)``.
        blocks: residual blocks per stage.
        groups: groups of every GroupNorm.
        dropout: probability that a channel is removed in training.
    """

    channels: int = 1
    classes: int = 2
    width: int = 32
    stages: int = 3
    blocks: int = 1
    groups: int = 8
    dropout: float = 0.1


class Classifier(nnx.Module):
    """Residual classifier of images ``(B, H, W, C)``; made by `classifier`."""

    event_ndim = 3

    def __init__(self, config: ClassifierConfig, *, rngs: nnx.Rngs):
        _check(config)
        self.config = config
        width = config.width
        self.conv_in = conv(config.channels, width, rngs=rngs)
        blocks: list[_Block] = []
        for stage in range(config.stages):
            for block in range(config.blocks):
                stride = 2 if stage and not block else 1
                before, width = width, config.width * 2**stage
                blocks.append(_Block(before, width, stride, config, len(blocks), rngs))
        self.blocks = nnx.List(blocks)
        self.norm_out = group_norm(width, config.groups, _EPSILON, rngs=rngs)
        self.head = linear(width, config.classes, rngs=rngs)

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        """Logits ``(B, classes)``; ``key`` switches dropout on."""
        return self.head(self.features(x, key=key))

    def features(self, x: Array, *, key: Array | None = None) -> Array:
        """What the last layer sees, ``(B, width 2^(stages - 1))``."""
        layers.check_image(x, self.config.channels, 2 ** (self.config.stages - 1))
        h = self.conv_in(x)
        for block in self.blocks:
            h = block(h, key=key)
        return jnp.mean(silu(self.norm_out(h)), axis=(1, 2))


class _Block(nnx.Module):
    """One residual block; stride 2 halves the resolution."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        stride: int,
        config: ClassifierConfig,
        index: int,
        rngs: nnx.Rngs,
    ):
        self.index, self.rate = index, config.dropout
        self.norm_in = group_norm(width_in, config.groups, _EPSILON, rngs=rngs)
        self.conv_in = conv(width_in, width_out, stride=stride, rngs=rngs)
        self.norm_out = group_norm(width_out, config.groups, _EPSILON, rngs=rngs)
        self.conv_out = conv(width_out, width_out, rngs=rngs)
        changes = stride != 1 or width_in != width_out
        self.shortcut = (
            conv(width_in, width_out, size=1, stride=stride, rngs=rngs) if changes else None
        )

    def __call__(self, x: Array, *, key: Array | None = None) -> Array:
        h = self.conv_in(silu(self.norm_in(x)))
        h = layers.dropout(silu(self.norm_out(h)), self.rate, stream(key, self.index))
        return self.conv_out(h) + (x if self.shortcut is None else self.shortcut(x))


def classifier(config: ClassifierConfig, *, key: Array | None = None) -> Classifier:
    """A `Classifier` with freshly drawn weights (float32).

    ``network, params = functional(net)`` and ``network.apply(params, images)`` give logits.

    Args:
        config: the sizes.
        key: typed PRNG key of the weights; ``jax.random.key(0)`` if None.

    Raises:
        ValueError: if the sizes do not fit together.
    """
    return Classifier(config, rngs=nnx.Rngs(jax.random.key(0) if key is None else key))


def cross_entropy(logits: Array, labels: Array) -> Array:
    """``-log p(label)`` per image in nats, ``(...)``, from logits ``(..., classes)``."""
    logits = logits.astype(layers.at_least_single(logits.dtype))
    chosen = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - chosen


def _check(config: ClassifierConfig) -> None:
    """Raise ``ValueError`` unless the sizes fit together."""
    for name in ("channels", "classes", "width", "stages", "blocks", "groups"):
        checks.count(getattr(config, name), name)
    if config.width % config.groups:
        raise ValueError(f"width = {config.width} must be a multiple of groups = {config.groups}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), but is {config.dropout!r}")
