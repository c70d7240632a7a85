"""Write `torch_outputs.npz`: what torch and diffusers compute on generated weights, in float64.

Needs torch and diffusers; run by hand from the root of the project,

    python tests/networks/make_torch_fixture.py

The modules below state the published U-Net once more, in torch and from its description, with the
names of `diffjax.networks.unet`.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from generated import normal, weight  # noqa: E402

WIDTH, MULTIPLES, BLOCKS, ATTENTION, GROUPS, HEADS, STEPS = 8, (1, 2, 3), 1, (1,), 4, 2, 50
DDPM = {
    # as the published weights of 32x32 images, with fewer channels
    "one_sided": {
        "sample_size": 8,
        "in_channels": 3,
        "out_channels": 3,
        "center_input_sample": False,
        "time_embedding_type": "positional",
        "freq_shift": 1,
        "flip_sin_to_cos": False,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "block_out_channels": [8, 16, 24],
        "layers_per_block": 2,
        "mid_block_scale_factor": 1,
        "downsample_padding": 0,
        "act_fn": "silu",
        "attention_head_dim": None,
        "norm_num_groups": 4,
        "norm_eps": 1e-6,
    },
    # every other choice that is supported
    "two_sided": {
        "in_channels": 1,
        "out_channels": 2,
        "center_input_sample": True,
        "freq_shift": 0,
        "flip_sin_to_cos": True,
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "AttnUpBlock2D"],
        "block_out_channels": [8, 16],
        "layers_per_block": 1,
        "mid_block_scale_factor": 1.3,
        "downsample_padding": 1,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
        "attn_norm_num_groups": 2,
        "norm_eps": 1e-5,
        "dropout": 0.1,
    },
}


class Time(nn.Module):
    def __init__(self, width, steps):
        super().__init__()
        k = torch.arange(width // 2, dtype=torch.float64)
        tones = torch.exp(-k * np.log(1e4) / (width // 2 - 1))
        angle = torch.arange(steps, dtype=torch.float64)[:, None] * tones
        table = torch.cat([angle.sin(), angle.cos()], dim=1)
        self.table = table.float().double()  # the table is stored in float32
        self.hidden = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, 4 * width)

    def forward(self, index):
        return self.out(F.gelu(self.hidden(self.table[index])))


class Attention(nn.MultiheadAttention):
    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)
        out = super().forward(tokens, tokens, tokens, need_weights=False)[0]
        return out.transpose(1, 2).reshape(x.shape)


class Res(nn.Module):
    def __init__(self, width_in, width_out, attention, base=WIDTH):
        super().__init__()
        self.norm_in = nn.GroupNorm(GROUPS, width_in)
        self.conv_in = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.time = nn.Linear(4 * base, width_out)
        self.norm_out = nn.GroupNorm(GROUPS, width_out)
        self.dropout = nn.Dropout2d(0.1)
        self.conv_out = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else None
        self.norm_attention = nn.GroupNorm(GROUPS, width_out) if attention else None
        self.attention = Attention(width_out, HEADS, batch_first=True) if attention else None

    def forward(self, x, e):
        h = self.conv_in(F.silu(self.norm_in(x)))
        h = h + self.time(F.silu(e))[:, :, None, None]
        h = self.conv_out(self.dropout(F.silu(self.norm_out(h))))
        h = h + (x if self.shortcut is None else self.shortcut(x))
        return h if self.attention is None else h + self.attention(self.norm_attention(h))


class Level(nn.Module):
    def __init__(self, blocks, resample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resample = resample


class UNet(nn.Module):
    def __init__(self, channels=2):
        super().__init__()
        w1, w2, w3 = (WIDTH * multiple for multiple in MULTIPLES)
        self.time = Time(WIDTH, STEPS)
        self.conv_in = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.encoder = nn.ModuleList(
            [
                Level([Res(w1, w1, False)], nn.Conv2d(w1, w1, 3, stride=2, padding=1)),
                Level([Res(w1, w2, True)], nn.Conv2d(w2, w2, 3, stride=2, padding=1)),
                Level([Res(w2, w3, False)], None),
            ]
        )
        self.bottleneck = nn.ModuleList([Res(w3, w3, True), Res(w3, w3, False)])
        self.decoder = nn.ModuleList(
            [
                Level(
                    [Res(w3 + w3, w3, False), Res(w3 + w2, w3, False)],
                    nn.Conv2d(w3, w3, 3, padding=1),
                ),
                Level(
                    [Res(w3 + w2, w2, True), Res(w2 + w1, w2, True)],
                    nn.Conv2d(w2, w2, 3, padding=1),
                ),
                Level([Res(w2 + w1, w1, False), Res(w1 + w1, w1, False)], None),
            ]
        )
        self.norm_out = nn.GroupNorm(GROUPS, w1)
        self.conv_out = nn.Conv2d(w1, channels, 3, padding=1)

    def forward(self, x, index):
        e = self.time(index)
        h = self.conv_in(x)
        skips = [h]
        for level in self.encoder:
            for block in level.blocks:
                h = block(h, e)
                skips.append(h)
            if level.resample is not None:
                h = level.resample(h)
                skips.append(h)
        for block in self.bottleneck:
            h = block(h, e)
        for level in self.decoder:
            for block in level.blocks:
                h = block(torch.cat([h, skips.pop()], dim=1), e)
            if level.resample is not None:
                h = level.resample(F.interpolate(h, scale_factor=2, mode="nearest"))
        assert not skips
        return self.conv_out(F.silu(self.norm_out(h)))


def present(name):
    """The name of a parameter in `diffjax.networks.unet`."""
    return name.replace("in_proj_", "qkv.").replace("out_proj", "out")


def filled(module, prefix):
    """The module in float64 and evaluation mode, with generated weights."""
    module = module.double().eval()
    with torch.no_grad():
        for name, value in module.named_parameters():
            rule = weight(f"{prefix}.{present(name)}", tuple(value.shape))
            value.copy_(torch.from_numpy(rule))
    return module


def image(name, shape):
    """Generated ``(B, H, W, C)`` numbers as torch's ``(B, C, H, W)``."""
    return torch.from_numpy(normal(name, shape)).permute(0, 3, 1, 2)


def parts():
    """Outputs of the parts of the published U-Net, and of a small whole."""
    index = torch.tensor([0, 7, 49])
    e = torch.from_numpy(normal("e", (3, 4 * WIDTH)))
    yield "time", filled(Time(WIDTH, STEPS), "time")(index)
    for name, wide, attention in (
        ("res", 8, False),
        ("res_wide", 16, False),
        ("res_attention", 8, True),
        ("res_wide_attention", 16, True),
    ):
        block = filled(Res(8, wide, attention), name)
        yield name, block(image("res.x", (3, 4, 6, 8)), e).permute(0, 2, 3, 1)
    attention = filled(Attention(8, HEADS, batch_first=True), "attention")
    yield "attention", attention(image("res.x", (3, 4, 6, 8))).permute(0, 2, 3, 1)
    down = filled(nn.Conv2d(8, 8, 3, stride=2, padding=1), "down")
    yield "down", down(image("res.x", (3, 4, 6, 8))).permute(0, 2, 3, 1)
    up = filled(nn.Conv2d(8, 8, 3, padding=1), "up")
    larger = F.interpolate(image("res.x", (3, 4, 6, 8)), scale_factor=2, mode="nearest")
    yield "up", up(larger).permute(0, 2, 3, 1)
    unet = filled(UNet(), "unet")
    yield "unet", unet(image("unet.x", (3, 8, 12, 2)), index).permute(0, 2, 3, 1)


def pretrained():
    """Outputs of diffusers' own network with the names and shapes of its tensors."""
    from diffusers import UNet2DModel

    for name, config in DDPM.items():
        net = filled(UNet2DModel(**config), name)
        shapes = {key: list(value.shape) for key, value in net.named_parameters()}
        x = image(f"{name}.x", (3, 8, 12, config["in_channels"]))
        out = net(x, torch.tensor([0, 37, 999])).sample.permute(0, 2, 3, 1)
        yield f"{name}.config", np.array(json.dumps(config))
        yield f"{name}.shapes", np.array(json.dumps(shapes))
        yield name, out


if __name__ == "__main__":
    with torch.no_grad():
        outputs = {name: np.asarray(value) for name, value in (*parts(), *pretrained())}
    np.savez_compressed(HERE / "torch_outputs.npz", **outputs)
    for name, value in outputs.items():
        print(name, value.shape, value.std() if value.dtype.kind == "f" else "")
