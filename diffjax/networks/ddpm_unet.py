r"""The U-Net of DDPM as `diffusers` builds it (``UNet2DModel``), for its pretrained weights.

Modules and attributes carry the names of that library, so that the name of a stored tensor is the
path of a parameter here. Differences from `diffjax.networks.unet`: attention after every block of
an attention level has projections of its own, the middle always attends between its two blocks,
channel removal acts on single numbers, and a convolution of stride 2 may pad one side only.

References:
    Ho, Jain, Abbeel 2020 (2006.11239), appendix B; von Platen et al. 2022, Diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.nn import silu

from diffjax import checks
from diffjax.networks import layers
from diffjax.networks.layers import conv, group_norm, linear, stream

DOWN_BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True}
UP_BLOCKS = {"UpBlock2D": False, "AttnUpBlock2D": True}


@dataclass(frozen=True)
class DdpmConfig:
    """Sizes of a `DdpmUNet`, named and set by default as in `diffusers`.

    Attributes:
        in_channels: channels of the input.
        out_channels: channels of the output.
        center_input_sample: whether inputs on [0, 1] are moved to [-1, 1] first.
        freq_shift: the frequencies are ``10^(-4 k / (half - freq_shift))``, ``k < half``, with
            half the first width.
        flip_sin_to_cos: whether the cosines come first.
        down_block_types: ``DownBlock2D`` or ``AttnDownBlock2D`` per level.
        up_block_types: ``UpBlock2D`` or ``AttnUpBlock2D`` per level, coarsest first.
        block_out_channels: width of every level.
        layers_per_block: blocks per level of the encoder.
        mid_block_scale_factor: the middle divides its sums by this.
        downsample_padding: 1 (both sides) or 0 (one zero after each axis).
        dropout: probability that a number is removed in training.
        attention_head_dim: width of one head; None for a single head.
        norm_num_groups: groups of every GroupNorm.
        attn_norm_num_groups: groups in the middle's attention; None for ``norm_num_groups``.
        norm_eps: epsilon of every GroupNorm.
        add_attention: whether the middle attends.
    """

    in_channels: int = 3
    out_channels: int = 3
    center_input_sample: bool = False
    freq_shift: float = 0
    flip_sin_to_cos: bool = True
    down_block_types: tuple[str, ...] = ("DownBlock2D", *("AttnDownBlock2D",) * 3)
    up_block_types: tuple[str, ...] = (*("AttnUpBlock2D",) * 3, "UpBlock2D")
    block_out_channels: tuple[int, ...] = (224, 448, 672, 896)
    layers_per_block: int = 2
    mid_block_scale_factor: float = 1.0
    downsample_padding: int = 1
    dropout: float = 0.0
    attention_head_dim: int | None = 8
    norm_num_groups: int = 32
    attn_norm_num_groups: int | None = None
    norm_eps: float = 1e-5
    add_attention: bool = True


class ResnetBlock2D(nnx.Module):
    """``(shortcut(x) + conv(dropout(SiLU(GN(conv(SiLU(GN(x))) + W SiLU(e)))))) / divisor``."""

    def __init__(
        self,
        width_in: int,
        width_out: int,
        config: DdpmConfig,
        *,
        divisor: float = 1.0,
        index: int = 0,
        rngs: nnx.Rngs,
    ):
        self.index, self.rate, self.divisor = index, config.dropout, divisor
        groups, epsilon = config.norm_num_groups, config.norm_eps
        self.norm1 = group_norm(width_in, groups, epsilon, rngs=rngs)
        self.conv1 = conv(width_in, width_out, rngs=rngs)
        self.time_emb_proj = linear(4 * config.block_out_channels[0], width_out, rngs=rngs)
        self.norm2 = group_norm(width_out, groups, epsilon, rngs=rngs)
        self.conv2 = conv(width_out, width_out, rngs=rngs)
        changes = width_in != width_out
        self.conv_shortcut = conv(width_in, width_out, size=1, rngs=rngs) if changes else None

    def __call__(self, x: Array, e: Array, *, key: Array | None = None) -> Array:
        """``(B, H, W, out)`` from ``x (B, H, W, in)`` and the embedding ``e``."""
        h = self.conv1(silu(self.norm1(x))) + self.time_emb_proj(silu(e))[:, None, None, :]
        h = layers.dropout(
            silu(self.norm2(h)), self.rate, stream(key, self.index), whole_channels=False
        )
        h = self.conv2(h) + (x if self.conv_shortcut is None else self.conv_shortcut(x))
        return h if self.divisor == 1 else h / self.divisor


class Attention(nnx.Module):
    """Self-attention over the pixels with its residual, ``(x + W attended(GN(x))) / divisor``."""

    def __init__(
        self, width: int, heads: int, groups: int, epsilon: float, divisor: float, rngs: nnx.Rngs
    ):
        self.heads, self.divisor = heads, divisor
        self.group_norm = group_norm(width, groups, epsilon, rngs=rngs)
        self.to_q = linear(width, width, rngs=rngs)
        self.to_k = linear(width, width, rngs=rngs)
        self.to_v = linear(width, width, rngs=rngs)
        self.to_out = nnx.List([linear(width, width, rngs=rngs)])

    def __call__(self, x: Array) -> Array:
        """``(B, H, W, C)``."""
        batch, height, width, channels = x.shape
        tokens = (batch, height * width, self.heads, channels // self.heads)
        h = self.group_norm(x)
        query, key, value = (f(h).reshape(tokens) for f in (self.to_q, self.to_k, self.to_v))
        attended = layers.attend(query, key, value).reshape(x.shape)
        h = x + self.to_out[0](attended)
        return h if self.divisor == 1 else h / self.divisor


class Resample(nnx.Module):
    """The convolution between two levels, behind an enlargement or with stride 2."""

    def __init__(self, width: int, *, padding: int | None = None, rngs: nnx.Rngs):
        self.up = padding is None
        if self.up:
            self.conv = conv(width, width, rngs=rngs)
        else:
            sides = (1, 1) if padding else (0, 1)
            self.conv = conv(width, width, stride=2, padding=sides, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """``(B, 2H, 2W, C)`` upwards, ``(B, H/2, W/2, C)`` downwards."""
        return self.conv(layers.upsample(x) if self.up else x)


class TimestepEmbedding(nnx.Module):
    """Two linear layers on the sines and cosines of the index."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.linear_1 = linear(width, 4 * width, rngs=rngs)
        self.linear_2 = linear(4 * width, 4 * width, rngs=rngs)

    def __call__(self, waves: Array) -> Array:
        """``(B, 4 width)`` from ``waves (B, width)``."""
        return self.linear_2(silu(self.linear_1(waves)))


class Block(nnx.Module):
    """One level of either side, or the middle."""

    def __init__(self, resnets: list, attentions: list, **resamplers: Resample | None):
        self.resnets = nnx.List(resnets)
        if attentions:
            self.attentions = nnx.List(attentions)
        for name, resampler in resamplers.items():
            if resampler is not None:
                setattr(self, name, nnx.List([resampler]))


class DdpmUNet(nnx.Module):
    """``UNet2DModel`` on images ``(B, H, W, C)``; see `diffjax.networks.pretrained.load_ddpm`.

    Indices may be fractional; ``key`` switches dropout on.
    """

    event_ndim = 3

    def __init__(self, config: DdpmConfig, *, rngs: nnx.Rngs):
        _check(config)
        self.config = config
        widths = config.block_out_channels
        build = _Builder(config, rngs)
        self.conv_in = conv(config.in_channels, widths[0], rngs=rngs)
        self.time_embedding = TimestepEmbedding(widths[0], rngs=rngs)
        skips = [widths[0]]
        self.down_blocks = nnx.List([build.down(level, skips) for level in range(len(widths))])
        self.mid_block = build.middle()
        self.up_blocks = nnx.List([build.up(level, skips) for level in range(len(widths))])
        self.conv_norm_out = group_norm(
            widths[0], config.norm_num_groups, config.norm_eps, rngs=rngs
        )
        self.conv_out = conv(widths[0], config.out_channels, rngs=rngs)

    def __call__(self, x: Array, time: Array, *, key: Array | None = None) -> Array:
        """Prediction ``(B, H, W, out)`` at indices ``time (B,)``."""
        config = self.config
        layers.check_image(x, config.in_channels, 2 ** (len(config.block_out_channels) - 1))
        e = self.time_embedding(_waves(time, config).astype(x.dtype))
        h = self.conv_in(2 * x - 1 if config.center_input_sample else x)
        skips = [h]
        for block in self.down_blocks:
            for i, resnet in enumerate(block.resnets):
                h = _attend(block, i, resnet(h, e, key=key))
                skips.append(h)
            if hasattr(block, "downsamplers"):
                h = block.downsamplers[0](h)
                skips.append(h)
        h = _attend(self.mid_block, 0, self.mid_block.resnets[0](h, e, key=key))
        h = self.mid_block.resnets[1](h, e, key=key)
        for block in self.up_blocks:
            for i, resnet in enumerate(block.resnets):
                h = jnp.concatenate([h, skips.pop()], axis=-1)
                h = _attend(block, i, resnet(h, e, key=key))
            if hasattr(block, "upsamplers"):
                h = block.upsamplers[0](h)
        return self.conv_out(silu(self.conv_norm_out(h)))


class _Builder:
    """Counts the blocks while a `DdpmUNet` is made, so that each draws its own dropout."""

    def __init__(self, config: DdpmConfig, rngs: nnx.Rngs):
        self.config, self.rngs, self.made = config, rngs, 0

    def resnet(self, width_in: int, width_out: int, divisor: float = 1.0) -> ResnetBlock2D:
        self.made += 1
        return ResnetBlock2D(
            width_in, width_out, self.config, divisor=divisor, index=self.made, rngs=self.rngs
        )

    def attention(self, width: int, groups: int | None = None, divisor: float = 1.0) -> Attention:
        config = self.config
        heads = width // (config.attention_head_dim or width)
        groups = groups or config.norm_num_groups
        return Attention(width, heads, groups, config.norm_eps, divisor, self.rngs)

    def down(self, level: int, skips: list[int]) -> Block:
        """One encoder level; appends the widths of the stored outputs."""
        config, width = self.config, self.config.block_out_channels[level]
        attends = DOWN_BLOCKS[config.down_block_types[level]]
        resnets = []
        for _ in range(config.layers_per_block):
            resnets.append(self.resnet(skips[-1], width))
            skips.append(width)
        attentions = [self.attention(width) for _ in resnets] if attends else []
        sampler = None
        if level < len(config.block_out_channels) - 1:
            sampler = Resample(width, padding=config.downsample_padding, rngs=self.rngs)
            skips.append(width)
        return Block(resnets, attentions, downsamplers=sampler)

    def middle(self) -> Block:
        """Block, attention, block."""
        config, width = self.config, self.config.block_out_channels[-1]
        divisor = config.mid_block_scale_factor
        resnets = [self.resnet(width, width, divisor) for _ in range(2)]
        attention = self.attention(width, config.attn_norm_num_groups, divisor)
        return Block(resnets, [attention] if config.add_attention else [])

    def up(self, level: int, skips: list[int]) -> Block:
        """One decoder level, counted from the coarsest."""
        config, widths = self.config, self.config.block_out_channels[::-1]
        attends = UP_BLOCKS[config.up_block_types[level]]
        before, width = widths[max(level - 1, 0)], widths[level]
        resnets = []
        for _ in range(config.layers_per_block + 1):
            resnets.append(self.resnet(before + skips.pop(), width))
            before = width
        attentions = [self.attention(width) for _ in resnets] if attends else []
        last = level == len(widths) - 1
        return Block(
            resnets, attentions, upsamplers=None if last else Resample(width, rngs=self.rngs)
        )


def _attend(block: Block, index: int, h: Array) -> Array:
    """Attention after block ``index``, where there is one."""
    return block.attentions[index](h) if hasattr(block, "attentions") else h


def _waves(time: Array, config: DdpmConfig) -> Array:
    """Sines and cosines of the index, ``(B, width)``, in float32 as the weights were trained."""
    half = config.block_out_channels[0] // 2
    # The exponents are rounded where the original rounds them: at index 999 one rounding of a
    # frequency is 6e-5 of an angle.
    exponent = np.float32(-np.log(1e4)) * np.arange(half, dtype=np.float32)
    exponent = exponent / np.float32(half - config.freq_shift)
    tones = np.exp(exponent.astype(np.float64)).astype(np.float32)
    angle = time.astype(jnp.float32)[:, None] * jnp.asarray(tones)
    waves = [jnp.sin(angle), jnp.cos(angle)]
    return jnp.concatenate(waves[::-1] if config.flip_sin_to_cos else waves, axis=-1)


def _check(config: DdpmConfig) -> None:
    """Raise ``ValueError`` unless the sizes fit together and every block type is known."""
    levels = len(config.block_out_channels)
    for name, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
        types = getattr(config, name)
        strange = [block for block in types if block not in known]
        if strange:
            raise ValueError(f"unknown block type {strange[0]!r}; known are {', '.join(known)}")
        if len(types) != levels or not levels:
            raise ValueError(f"{name} has {len(types)} entries for {levels} block_out_channels")
    for width in config.block_out_channels:
        checks.count(width, "block_out_channels")
        if width % config.norm_num_groups or width % (config.attention_head_dim or 1):
            raise ValueError(
                f"width {width} must be a multiple of norm_num_groups = {config.norm_num_groups} "
                f"and of attention_head_dim = {config.attention_head_dim}"
            )
    if config.block_out_channels[0] % 2:
        raise ValueError(f"the first width must be even, but is {config.block_out_channels[0]}")
    if config.downsample_padding not in (0, 1):
        raise ValueError(f"downsample_padding must be 0 or 1, but is {config.downsample_padding}")
