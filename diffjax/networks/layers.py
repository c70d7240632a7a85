r"""Layers that the image networks share, with the default initialisation of torch.

Images are ``(B, H, W, C)`` inside. Weights and biases of convolutions and linear layers start
uniform on ``+-1/sqrt(fan in)``. Every layer computes in the common dtype of its input and its
parameters; GroupNorm statistics and attention weights never run below float32.

References:
    Wu, He 2018 (1803.08494), GroupNorm; Vaswani et al. 2017 (1706.03762), attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

_ZEROS = nnx.initializers.zeros_init()


class Frozen(nnx.Variable):
    """A numpy array that belongs to the network and is never trained.

    Compiled functions contain it, hence numpy: nothing that a trace could turn into a tracer.
    """


@dataclass(frozen=True)
class Uniform:
    """Initial numbers that are uniform on ``+-bound``.

    A generator is compiled for every shape that is drawn (most of the time that it takes to make
    a network), so that the numbers are drawn flat in a few sizes and cut.
    """

    bound: float

    def __call__(
        self, key: Array, shape: Sequence[int], dtype: Any = jnp.float32, _: Any = None
    ) -> Array:
        """Draw an array of ``shape``; flax also passes a sharding, which is not used."""
        drawn = 1 << 2 * ((math.prod(shape).bit_length() + 1) // 2)  # a power of 4
        unit = jax.random.uniform(key, (drawn,), dtype)
        return _cut(unit, self.bound, tuple(shape))


@partial(jax.jit, static_argnums=2)
def _cut(unit: Array, bound: float, shape: tuple[int, ...]) -> Array:
    """The first of the flat numbers on [0, 1), on ``+-bound`` and in shape."""
    return (bound * (2 * unit[: math.prod(shape)] - 1)).reshape(shape).astype(unit.dtype)


def linear(width_in: int, width_out: int, *, rngs: nnx.Rngs) -> nnx.Linear:
    """Linear layer with bias, weights ``(in, out)``."""
    start = Uniform(width_in**-0.5)
    return nnx.Linear(width_in, width_out, kernel_init=start, bias_init=start, rngs=rngs)


def conv(
    width_in: int,
    width_out: int,
    *,
    size: int = 3,
    stride: int = 1,
    padding: tuple[int, int] | None = None,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Convolution with bias, kernel ``(size, size, in, out)``.

    Args:
        width_in: channels of the input.
        width_out: channels of the output.
        size: side of the kernel.
        stride: step of the kernel.
        padding: zeros before and after each image axis; ``size // 2`` on both sides if None,
            also for stride 2, where ``"SAME"`` would pad one side only.
        rngs: source of the initial weights.
    """
    start = Uniform((width_in * size * size) ** -0.5)
    return nnx.Conv(
        width_in,
        width_out,
        kernel_size=(size, size),
        strides=(stride, stride),
        padding=(padding or (size // 2, size // 2),) * 2,
        kernel_init=start,
        bias_init=start,
        rngs=rngs,
    )


class GroupNorm(nnx.GroupNorm):
    """GroupNorm as one factor and one shift per image and channel, a quarter faster on a CPU."""

    def __call__(self, x: Array) -> Array:  # type: ignore[override]
        """Normalised image ``(B, H, W, C)``, by statistics in float32 at least."""
        batch, _, _, width = x.shape
        h = x.astype(at_least_single(x.dtype))
        moments = jnp.stack([jnp.mean(h, axis=(1, 2)), jnp.mean(jnp.square(h), axis=(1, 2))])
        mean, square = jnp.mean(moments.reshape(2, batch, self.num_groups, -1), axis=-1)
        inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0) + self.epsilon)
        mean, inverse = (jnp.repeat(v, width // self.num_groups, axis=-1) for v in (mean, inverse))
        factor = inverse * cast(nnx.Param, self.scale)[...]
        shift = cast(nnx.Param, self.bias)[...] - mean * factor
        return (h * factor[:, None, None] + shift[:, None, None]).astype(x.dtype)


def group_norm(width: int, groups: int, epsilon: float, *, rngs: nnx.Rngs) -> GroupNorm:
    """GroupNorm over contiguous channel groups and all pixels, with scale and shift."""
    return GroupNorm(width, num_groups=groups, epsilon=epsilon, rngs=rngs)


class Attention(nnx.Module):
    """Multi-head self-attention over the ``H W`` pixels with fused projections.

    The fused matrix of queries, keys and values (in this order) starts by Xavier's rule on its
    whole shape ``(c, 3c)``, and all biases at zero.
    """

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        xavier, default = Uniform((1.5 / width) ** 0.5), Uniform(width**-0.5)
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=xavier, bias_init=_ZEROS, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=default, bias_init=_ZEROS, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Attended image, ``(B, H, W, C)``, without the residual."""
        batch, height, width, channels = x.shape
        qkv = self.qkv(x).reshape(batch, height * width, 3, self.heads, channels // self.heads)
        return self.out(attend(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(x.shape))


def attend(query: Array, key: Array, value: Array) -> Array:
    """``softmax(query key / sqrt(h)) value`` for tokens ``(B, tokens, heads, h)``.

    `jax.nn.dot_product_attention` takes its softmax in float32 even for float64.
    """
    # heads before tokens: the products are then plain ones, twice as fast on a CPU
    query, key, value = (v.swapaxes(-2, -3) for v in (query, key, value))
    dtype = at_least_single(query.dtype)
    query = query * query.shape[-1] ** -0.5
    logits = jnp.matmul(query, key.swapaxes(-1, -2), preferred_element_type=dtype)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.matmul(weights, value).swapaxes(-2, -3)


def dropout(x: Array, rate: float, key: Array | None, *, whole_channels: bool = True) -> Array:
    """Remove with probability ``rate`` whole channels (or single numbers) of ``(B, H, W, C)``.

    What is kept grows by ``1 / (1 - rate)``; without key nothing is removed.
    """
    if key is None or rate == 0:
        return x
    shape = (x.shape[0], 1, 1, x.shape[-1]) if whole_channels else x.shape
    kept = jax.random.bernoulli(key, 1 - rate, shape)
    return jnp.where(kept, x / (1 - rate), 0).astype(x.dtype)


def stream(key: Array | None, index: int) -> Array | None:
    """The key of layer ``index``, None in evaluation."""
    return None if key is None else jax.random.fold_in(key, index)


def upsample(x: Array) -> Array:
    """Nearest-neighbour enlargement ``(B, H, W, C) -> (B, 2H, 2W, C)``."""
    batch, height, width, channels = x.shape
    wide = jnp.broadcast_to(x[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return wide.reshape(batch, 2 * height, 2 * width, channels)


def at_least_single(dtype: Any) -> Any:
    """A floating dtype, or float32 where it is a shorter one."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def frequencies(count: int, last: int) -> np.ndarray:
    """``exp(-k log(10^4) / last)`` for ``k < count``, in float64."""
    return np.exp(-np.log(1e4) * np.arange(count) / last)


def check_image(x: Array, channels: int, factor: int) -> None:
    """Raise ``ValueError`` unless ``x`` is a batch of images whose sides ``factor`` divides."""
    fits = x.ndim == 4 and x.shape[-1] == channels
    if not fits or x.shape[1] % factor or x.shape[2] % factor:
        raise ValueError(
            f"x has shape {x.shape}, expected (B, H, W, {channels}) with H and W multiples "
            f"of {factor}; pad the images"
        )
