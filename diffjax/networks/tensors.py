"""Parameters of a flax module under the names and in the layout of torch.

The name of a tensor is its path joined by dots, with ``kernel`` and ``scale`` called ``weight``.
Linear weights are ``(out, in)`` and convolution kernels ``(out, in, height, width)`` there,
``(in, out)`` and ``(height, width, in, out)`` here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

_TO_TORCH = {2: (1, 0), 4: (3, 2, 0, 1)}
_FROM_TORCH = {2: (1, 0), 4: (2, 3, 1, 0)}


def tensor_name(path: tuple[Any, ...]) -> str:
    """Torch's name of the parameter at ``path``."""
    *parents, leaf = path
    return ".".join(map(str, (*parents, "weight" if leaf in ("kernel", "scale") else leaf)))


def export_tensors(module: nnx.Module) -> dict[str, np.ndarray]:
    """Trainable parameters of a module as torch would store them."""
    tensors = {}
    for path, variable in _parameters(module):
        value = np.asarray(variable[...])
        tensors[tensor_name(path)] = np.ascontiguousarray(
            value.transpose(_TO_TORCH.get(value.ndim, range(value.ndim)))
        )
    return tensors


def import_tensors(
    module: nnx.Module,
    tensors: Mapping[str, Any],
    *,
    rename: Callable[[str], str] = lambda name: name,
) -> None:
    """Replace the trainable parameters of a module, in place, by tensors stored as torch does.

    Args:
        module: the module; its parameters may be abstract (``flax.nnx.eval_shape``).
        tensors: arrays by name; each keeps its dtype.
        rename: turns a stored name into the present one.

    Raises:
        ValueError: naming the tensors that are missing or that the module does not know, or the
            first whose shape does not fit.
    """
    given = {rename(name): value for name, value in tensors.items()}
    wanted = {tensor_name(path): (path, variable) for path, variable in _parameters(module)}
    missing, unknown = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
    if missing or unknown:
        raise ValueError(
            f"the tensors do not fit the network: {len(missing)} missing {missing[:3]}, "
            f"{len(unknown)} unknown {unknown[:3]}"
        )
    loaded = [
        (path, variable.replace(_fitted(name, np.asarray(given[name]), variable.shape)))
        for name, (path, variable) in wanted.items()
    ]
    nnx.update(module, nnx.from_flat_state(loaded))


def _parameters(module: nnx.Module) -> list[tuple[tuple[Any, ...], Any]]:
    """Paths and variables of the trainable parameters."""
    return list(nnx.to_flat_state(nnx.state(module, nnx.Param)))


def _fitted(name: str, value: np.ndarray, shape: tuple[int, ...]) -> Any:
    """A tensor in the layout of flax.

    Raises:
        ValueError: if its shape is not the one that the network needs.
    """
    value = value.transpose(_FROM_TORCH.get(value.ndim, range(value.ndim)))
    if value.shape != shape:
        order = _TO_TORCH.get(len(shape), range(len(shape)))
        expected = tuple(shape[axis] for axis in order)
        stored = np.transpose(value, _TO_TORCH.get(value.ndim, range(value.ndim))).shape
        raise ValueError(f"tensor {name!r} has shape {stored}, expected {expected}")
    return jnp.asarray(value)
