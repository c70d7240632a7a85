r"""The U-Net of the published image experiments, and any other size of it.

With SiLU activations, GroupNorm (GN) before every convolution and 3x3 convolutions, a block with
time embedding e is

    h = conv(SiLU(GN(x))) + W SiLU(e),                                                     (1)
    h = conv(dropout(SiLU(GN(h)))) + (x or a 1x1 convolution of it),                       (2)
    h + attention(GN(h))         in the levels with attention,                             (3)

and the embedding of index i is ``W' GELU(W'' row_i)`` with the frozen rows

    row_i = concat[sin(i f_k)], [cos(i f_k)],   f_k = exp(-k log(10^4) / (K - 1)).         (4)

The encoder has ``blocks`` blocks per level and a convolution of stride 2 between levels; the
decoder has one block more per level, each fed with the last stored output of the encoder, and a
nearest-neighbour enlargement with a convolution between levels. Dropout removes whole channels.

References:
    Ho, Jain, Abbeel 2020 (2006.11239), appendix B; Biroli, Bonnaire, de Bortoli, Mezard 2024
    (2402.18491), supplementary information: the sizes of `dynamical_regimes_unet`.
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
from diffjax.networks import layers
from diffjax.networks.layers import Frozen, conv, linear, stream


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of a `UNet`; the defaults are the published ones.

    Attributes:
        channels: channels of the images.
        width: width of the first level, and of the table of time embeddings.
        multiples: width of every level in units of ``width``.
        blocks: blocks per level of the encoder.
        attention: levels with attention, counted from 0; the first bottleneck block always has it.
        groups: groups of every GroupNorm.
        heads: heads of every attention.
        dropout: probability that a channel is removed in training.
        steps: number of time indices.
    """

    channels: int = 3
    width: int = 64
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (1, 2)
    groups: int = 8
    heads: int = 4
    dropout: float = 0.1
    steps: int = 1000


class TimeEmbedding(nnx.Module):
    """Embedding of the time index, eq. (4); made by `UNet`."""

    def __init__(self, width: int, steps: int, *, rngs: nnx.Rngs):
        self.width = width
        self.table = Frozen(_rows(steps, width).astype(np.float32))
        self.hidden = linear(width, 4 * width, rngs=rngs)
        self.out = linear(4 * width, 4 * width, rngs=rngs)

    def __call__(self, time: Array) -> Array:
        """``(B, 4 width)`` for integer or fractional indices, eq. (4)."""
        table, nearest = jnp.asarray(self.table[...]), time
        if jnp.issubdtype(time.dtype, jnp.floating):
            nearest = jnp.clip(jnp.round(time), 0, len(table) - 1).astype(jnp.int32)
        row = table[nearest]
        if jnp.issubdtype(time.dtype, jnp.floating):
            row = _turned(row, (time - nearest).astype(table.dtype))
        row = row.astype(self.hidden.kernel.dtype)
        return self.out(jax.nn.gelu(self.hidden(row), approximate=False))


class ResBlock(nnx.Module):
    """Residual block (1-3); made by `UNet`."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        config: UNetConfig,
        *,
        attention: bool = False,
        index: int = 0,
        rngs: nnx.Rngs,
    ):
        self.index, self.rate = index, config.dropout
        self.norm_in = _norm(width_in, config, rngs)
        self.conv_in = conv(width_in, width_out, rngs=rngs)
        self.time = linear(4 * config.width, width_out, rngs=rngs)
        self.norm_out = _norm(width_out, config, rngs)
        self.conv_out = conv(width_out, width_out, rngs=rngs)
        self.shortcut = (
            conv(width_in, width_out, size=1, rngs=rngs) if width_in != width_out else None
        )
        self.norm_attention = _norm(width_out, config, rngs) if attention else None
        self.attention = layers.Attention(width_out, config.heads, rngs=rngs) if attention else None

    def __call__(self, x: Array, e: Array, *, key: Array | None = None) -> Array:
        """``(B, H, W, out)`` from ``x (B, H, W, in)`` and the embedding ``e (B, 4 width)``."""
        h = self.conv_in(silu(self.norm_in(x))) + self.time(silu(e))[:, None, None, :]
        h = layers.dropout(silu(self.norm_out(h)), self.rate, stream(key, self.index))
        h = self.conv_out(h) + (x if self.shortcut is None else self.shortcut(x))
        if self.attention is None or self.norm_attention is None:
            return h
        return h + self.attention(self.norm_attention(h))


class Level(nnx.Module):
    """Blocks of one resolution and the convolution that leaves it; made by `UNet`."""

    def __init__(self, blocks: list[ResBlock], resample: nnx.Conv | None):
        self.blocks = nnx.List(blocks)
        self.resample = resample


class UNet(nnx.Module):
    """U-Net on images ``(B, H, W, C)``; ``H`` and ``W`` divisible by ``2^(levels - 1)``.

    Call it with integer indices ``(B,)`` (rows of the table), or with fractional ones, at which
    (4) is evaluated; ``key`` switches dropout on. Outside of flax use
    ``network, params = diffjax.networks.functional(net)``.
    """

    event_ndim = 3

    def __init__(self, config: UNetConfig, *, rngs: nnx.Rngs):
        _check(config)
        self.config = config
        widths = [config.width * multiple for multiple in config.multiples]
        build = _Builder(config, rngs)
        self.time = TimeEmbedding(config.width, config.steps, rngs=rngs)
        self.conv_in = conv(config.channels, config.width, rngs=rngs)
        skips = [config.width]
        self.encoder = nnx.List(
            [build.encoder_level(level, widths, skips) for level in range(len(widths))]
        )
        self.bottleneck = nnx.List(
            [build.block(widths[-1], widths[-1], attention) for attention in (True, False)]
        )
        self.decoder = nnx.List(
            [build.decoder_level(level, widths, skips) for level in reversed(range(len(widths)))]
        )
        self.norm_out = _norm(config.width * config.multiples[0], config, rngs)
        self.conv_out = conv(config.width * config.multiples[0], config.channels, rngs=rngs)

    def __call__(self, x: Array, time: Array, *, key: Array | None = None) -> Array:
        """Prediction ``(B, H, W, C)`` at indices ``time (B,)``."""
        layers.check_image(x, self.config.channels, 2 ** (len(self.config.multiples) - 1))
        e = self.time(time)
        h = self.conv_in(x)
        skips = [h]
        for level in self.encoder:
            for block in level.blocks:
                h = block(h, e, key=key)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        for block in self.bottleneck:
            h = block(h, e, key=key)
        for level in self.decoder:
            for block in level.blocks:
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), e, key=key)
            if level.resample is not None:
                h = level.resample(layers.upsample(h))
        return self.conv_out(silu(self.norm_out(h)))


class _Builder:
    """Counts the blocks while a `UNet` is made, so that each draws its own dropout."""

    def __init__(self, config: UNetConfig, rngs: nnx.Rngs):
        self.config, self.rngs, self.made = config, rngs, 0

    def block(self, width_in: int, width_out: int, attention: bool) -> ResBlock:
        self.made += 1
        return ResBlock(
            width_in, width_out, self.config, attention=attention, index=self.made, rngs=self.rngs
        )

    def encoder_level(self, level: int, widths: list[int], skips: list[int]) -> Level:
        """Blocks and stride-2 convolution; appends the widths of the stored outputs."""
        width, last = widths[level], level == len(widths) - 1
        blocks = []
        for _ in range(self.config.blocks):
            blocks.append(self.block(skips[-1], width, self._attends(level)))
            skips.append(width)
        if not last:
            skips.append(width)
        return Level(blocks, None if last else conv(width, width, stride=2, rngs=self.rngs))

    def decoder_level(self, level: int, widths: list[int], skips: list[int]) -> Level:
        """Blocks, one per stored output, and the convolution after the enlargement."""
        before, width = widths[min(level + 1, len(widths) - 1)], widths[level]
        blocks = []
        for _ in range(self.config.blocks + 1):
            blocks.append(self.block(before + skips.pop(), width, self._attends(level)))
            before = width
        return Level(blocks, conv(width, width, rngs=self.rngs) if level else None)

    def _attends(self, level: int) -> bool:
        return level in self.config.attention


def unet(config: UNetConfig, *, key: Array | None = None) -> UNet:
    """A `UNet` of any size with freshly drawn weights (float32).

    Args:
        config: the sizes.
        key: typed PRNG key of the weights; ``jax.random.key(0)`` if None.

    Raises:
        ValueError: if the sizes do not fit together.
    """
    return UNet(config, rngs=nnx.Rngs(jax.random.key(0) if key is None else key))


def dynamical_regimes_unet(channels: int = 3, *, key: Array | None = None) -> UNet:
    """The network of the published experiments, 25.6 million parameters.

    Args:
        channels: 3 (colour) or 1 (grey); images of a side divisible by 8, 16 to 64 published.
        key: typed PRNG key of the weights; ``jax.random.key(0)`` if None.

    Raises:
        ValueError: if ``channels`` is no integer above zero.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491), supplementary information.
    """
    return unet(UNetConfig(channels=checks.count(channels, "channels")), key=key)


def _tones(width: int) -> np.ndarray:
    """Frequencies of eq. (4), ``(width / 2,)``."""
    return layers.frequencies(width // 2, width // 2 - 1)


def _rows(steps: int, width: int) -> np.ndarray:
    """Rows of eq. (4), ``(steps, width)``."""
    angle = np.arange(steps)[:, None] * _tones(width)
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)


def _turned(row: Array, fraction: Array) -> Array:
    """Rows of eq. (4) at ``i + fraction`` from those at ``i``; exactly those where it is 0."""
    angle = fraction[:, None] * jnp.asarray(_tones(row.shape[-1]), row.dtype)
    sine, cosine = jnp.split(row, 2, axis=-1)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    return jnp.concatenate([sine * cos + cosine * sin, cosine * cos - sine * sin], axis=-1)


def _norm(width: int, config: UNetConfig, rngs: nnx.Rngs) -> nnx.GroupNorm:
    return layers.group_norm(width, config.groups, 1e-5, rngs=rngs)


def _check(config: UNetConfig) -> None:
    """Raise ``ValueError`` unless the sizes fit together."""
    for name in ("channels", "width", "blocks", "groups", "heads", "steps"):
        checks.count(getattr(config, name), name)
    if config.width < 4 or config.width % 2:
        raise ValueError(f"width must be even and at least 4, but is {config.width}")
    if not 0 <= config.dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1), but is {config.dropout!r}")
    if not config.multiples or not set(config.attention) <= set(range(len(config.multiples))):
        raise ValueError(
            f"attention = {config.attention} must name levels 0 to {len(config.multiples) - 1}"
        )
    for multiple in config.multiples:
        width = config.width * checks.count(multiple, "multiples")
        if width % config.groups or width % config.heads:
            raise ValueError(
                f"width {width} of a level must be a multiple of groups = {config.groups} and of "
                f"heads = {config.heads}"
            )
