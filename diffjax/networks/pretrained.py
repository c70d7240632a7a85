"""Unconditional DDPM weights of the `diffusers` format, without torch and without that library.

A directory holds ``config.json`` and ``diffusion_pytorch_model.safetensors`` (directly, or in its
folder ``unet`` as pipelines are stored). Pickled weights (``.bin``, ``.pt``) run code when they are
opened and are refused; convert them once, where torch and diffusers are at hand, with

    UNet2DModel.from_pretrained(directory).save_pretrained(directory, safe_serialization=True)
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from diffjax.networks.ddpm_unet import DdpmConfig, DdpmUNet
from diffjax.networks.tensors import export_tensors, import_tensors

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CLASS = "UNet2DModel"
# What this architecture fixes; a stored configuration may say it or leave it out.
_FIXED: dict[str, tuple[Any, ...]] = {
    "_class_name": (_CLASS,),
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "resnet_time_scale_shift": ("default",),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}
_IGNORED = {"sample_size", "num_train_timesteps"}
# Names of attention before diffusers 0.14.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(rf"(\.attentions\.\d+)\.({'|'.join(_OLD_NAMES)})\.")


def load_ddpm(directory: str | Path) -> DdpmUNet:
    """Load an unconditional DDPM U-Net.

    Args:
        directory: folder with ``config.json`` and the ``safetensors`` weights, or one whose
            folder ``unet`` holds them. Attention tensors may have their old names. Every tensor
            keeps its dtype (bfloat16 is read as it is).

    Returns:
        The network; ``functional`` splits it into a pure function and its parameters.

    Raises:
        FileNotFoundError: if a file is missing; where only pickled weights are found, with the
            way to convert them.
        ValueError: on a configuration that this architecture does not cover, a missing or
            unknown tensor, or one of a wrong shape, each by its name.
        ImportError: if safetensors is not installed.

    References:
        Ho, Jain, Abbeel 2020 (2006.11239); von Platen et al. 2022, Diffusers.
    """
    folder = _folder(Path(directory))
    config = read_config(folder / CONFIG)
    net = nnx.eval_shape(lambda: DdpmUNet(config, rngs=nnx.Rngs(0)))
    import_tensors(net, _read(folder / WEIGHTS), rename=_present_name)
    return net


def save_ddpm(directory: str | Path, net: DdpmUNet) -> Path:
    """Write a network as a directory that `load_ddpm` and `diffusers` read; bit for bit.

    Args:
        directory: folder, made if it is not there; the two files are replaced.
        net: the network.

    Returns:
        The folder.

    Raises:
        ImportError: if safetensors is not installed.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    stored = {"_class_name": _CLASS, **dataclasses.asdict(net.config)}
    (folder / CONFIG).write_text(json.dumps(stored, indent=2, sort_keys=True) + "\n")
    _safetensors().flax.save_file(export_tensors(net), folder / WEIGHTS, {"format": "pt"})
    return folder


def read_config(path: str | Path) -> DdpmConfig:
    """The sizes in a ``config.json``.

    Raises:
        ValueError: if it is no JSON object, or says something that this architecture does not
            cover (the entry and its value are named).
    """
    try:
        stored = json.loads(Path(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(stored, dict):
        raise ValueError(f"{path} holds no configuration (a JSON object)")
    known = {field.name for field in dataclasses.fields(DdpmConfig)}
    sizes: dict[str, Any] = {}
    for name, value in stored.items():
        if name in known:
            sizes[name] = tuple(value) if isinstance(value, list) else value
        elif name in _FIXED:
            if value not in _FIXED[name]:
                raise ValueError(
                    f"{path} has {name} = {value!r}; supported: {_FIXED[name][0]!r} "
                    "(unconditional DDPM)"
                )
        elif name not in _IGNORED and not name.startswith("_"):
            raise ValueError(f"{path} has an unknown entry {name} = {value!r}")
    return DdpmConfig(**sizes)


def _folder(directory: Path) -> Path:
    """The folder with the two files."""
    folder = directory if (directory / CONFIG).is_file() else directory / "unet"
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"no {CONFIG} in {directory} or in its folder 'unet'")
    if not (folder / WEIGHTS).is_file():
        pickled = [path.name for pattern in _PICKLED for path in sorted(folder.glob(pattern))]
        if pickled:
            raise FileNotFoundError(
                f"{folder} holds pickled weights ({pickled[0]}), which run code when opened and "
                f"are refused. Convert them where diffusers and torch are installed: "
                f"UNet2DModel.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r}, "
                "safe_serialization=True)"
            )
        raise FileNotFoundError(f"no {WEIGHTS} in {folder}")
    return folder


def _present_name(name: str) -> str:
    """A tensor's present name, from the present or the old one."""
    return _OLD.sub(lambda found: f"{found[1]}.{_OLD_NAMES[found[2]]}.", name)


def _read(path: Path) -> dict[str, jax.Array]:
    """Tensors of a file."""
    safetensors = _safetensors()
    try:
        return safetensors.flax.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def _safetensors() -> Any:
    """The package, with its reader for JAX (which knows bfloat16).

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import safetensors
        import safetensors.flax
    except ImportError as error:
        raise ImportError(
            "pretrained weights need safetensors: pip install 'diffjax[networks]'"
        ) from error
    return safetensors
