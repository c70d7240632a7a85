"""Learned scores: networks that become data distributions which only know `denoise`.

Needs the optional extra ``diffjax[networks]`` (flax, optax, safetensors) and is therefore loaded
when it is asked for: ``import diffjax.networks`` or the first use of ``diffjax.networks``.
"""

import importlib.util

if importlib.util.find_spec("flax") is None:
    raise ImportError("diffjax.networks needs flax: pip install 'diffjax[networks]'")

from diffjax.networks import classifier, conditional, denoiser, mlp, pretrained, unet
from diffjax.networks.denoiser import NetworkDenoiser, network_denoiser
from diffjax.networks.functional import Network, ParameterCount, count_parameters, functional

__all__ = [
    "Network",
    "NetworkDenoiser",
    "ParameterCount",
    "classifier",
    "conditional",
    "count_parameters",
    "denoiser",
    "functional",
    "mlp",
    "network_denoiser",
    "pretrained",
    "unet",
]
