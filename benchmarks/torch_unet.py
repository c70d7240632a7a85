"""The published U-Net in torch, from its description: the peer of `diffjax.networks.unet`.

Imported where torch is installed only. Convolutions, linear layers and attention start as torch
starts them; `diffjax.networks.unet.UNetConfig` gives the sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Time(nn.Module):
    """Frozen table of sines and cosines, two linear layers."""

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        tones = np.exp(-np.arange(width // 2) * np.log(1e4) / (width // 2 - 1))
        angle = np.arange(steps)[:, None] * tones
        table = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
        self.register_buffer("table", torch.from_numpy(table).float())
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, 4 * width)

    def forward(self, index: Tensor) -> Tensor:
        """``(B, 4 width)``."""
        return self.out(F.gelu(self.hidden(self.table[index])))


class Attention(nn.MultiheadAttention):
    """Self-attention over the pixels."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """Shape of ``x (B, C, H, W)``."""
        tokens = x.flatten(2).transpose(1, 2)
        out = super().forward(tokens, tokens, tokens, need_weights=False)[0]
        return out.transpose(1, 2).reshape(x.shape)


class Res(nn.Module):
    """Residual block, with attention at its end or without."""

    def __init__(self, width_in: int, width_out: int, attention: bool, config: Any) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(config.groups, width_in)
        self.conv_in = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.time = nn.Linear(4 * config.width, width_out)
        self.norm_out = nn.GroupNorm(config.groups, width_out)
        self.dropout = nn.Dropout2d(config.dropout)
        self.conv_out = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else None
        self.norm_attention = nn.GroupNorm(config.groups, width_out) if attention else None
        self.attention = Attention(width_out, config.heads, batch_first=True) if attention else None

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """``(B, width_out, H, W)``."""
        h = self.conv_in(F.silu(self.norm_in(x))) + self.time(F.silu(e))[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        h = h + (x if self.shortcut is None else self.shortcut(x))
        if self.attention is None or self.norm_attention is None:
            return h
        return h + self.attention(self.norm_attention(h))


class UNet(nn.Module):
    """The whole network; images ``(B, C, H, W)``."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        widths = [config.width * multiple for multiple in config.multiples]
        self.time = Time(config.width, config.steps)
        self.conv_in = nn.Conv2d(config.channels, config.width, 3, padding=1)
        skips, self.down, self.up = [config.width], nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(Res(skips[-1], width, level in config.attention, config))
                skips.append(width)
            if level < len(widths) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
                skips.append(width)
        before = widths[-1]
        self.middle = nn.ModuleList([Res(before, before, a, config) for a in (True, False)])
        for level in reversed(range(len(widths))):
            for _ in range(config.blocks + 1):
                attends = level in config.attention
                self.up.append(Res(before + skips.pop(), widths[level], attends, config))
                before = widths[level]
            if level:
                self.up.append(nn.Conv2d(before, before, 3, padding=1))
        self.norm_out = nn.GroupNorm(config.groups, before)
        self.conv_out = nn.Conv2d(before, config.channels, 3, padding=1)

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        """Prediction, shape of ``x``."""
        e, h = self.time(index), self.conv_in(x)
        skips = [h]
        for part in self.down:
            h = part(h, e) if isinstance(part, Res) else part(h)
            skips.append(h)
        for block in self.middle:
            h = block(h, e)
        for part in self.up:
            if isinstance(part, Res):
                h = part(torch.cat([h, skips.pop()], dim=1), e)
            else:
                h = part(F.interpolate(h, scale_factor=2, mode="nearest"))
        return self.conv_out(F.silu(self.norm_out(h)))
