"""Checks at the public boundary: one wording, concrete values only.

Inside ``jit``, ``vmap`` or ``grad`` the values are unknown and nothing is checked; the
factories and drivers call these functions before they trace.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def is_concrete(*values: Any) -> bool:
    """Whether every leaf of every value can be read now (no tracer among them)."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def floating(value: Any, name: str) -> jax.Array:
    """``value`` as a JAX array of its own floating dtype; integers take the default float.

    Raises:
        ValueError: if the dtype is not numeric, or a concrete value is NaN or infinite.
    """
    array = value if isinstance(value, jax.Array) else np.asarray(value)
    if array.dtype.kind not in "fiub" and not jax.numpy.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has dtype {array.dtype}, expected real numbers")
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        array = jax.numpy.asarray(array, dtype=jax.numpy.result_type(float))
    if is_concrete(array) and not np.all(np.isfinite(np.asarray(array, dtype=np.float64))):
        bad = int(np.sum(~np.isfinite(np.asarray(array, dtype=np.float64))))
        raise ValueError(
            f"{name} holds {bad} NaN or infinite value(s); remove or impute them before the call"
        )
    return jax.numpy.asarray(array)


def number(value: Any, name: str) -> float:
    """``value`` as a finite Python float, for arguments that fix the size of a table.

    Raises:
        ValueError: if it is traced, not a number, NaN or infinite.
    """
    if not is_concrete(value):
        raise ValueError(f"{name} must be a concrete number: it fixes the size of a table")
    if np.ndim(value) or not np.isfinite(value):
        raise ValueError(f"{name} must be one finite number, but is {value!r}")
    return float(value)


def count(value: Any, name: str) -> int:
    """``value`` as a Python integer of one at least.

    Raises:
        ValueError: if it is traced, no integer, or below one.
    """
    if number(value, name) != int(value) or value < 1:
        raise ValueError(f"{name} must be an integer >= 1, but is {value!r}")
    return int(value)


def positive(value: Any, name: str) -> None:
    """Raise ``ValueError`` unless every concrete entry of ``value`` is above zero."""
    if is_concrete(value) and not np.all(np.asarray(value) > 0):
        raise ValueError(f"{name} must be positive, but is {value!r}")


def event_size(x: Any, dim: int, name: str = "x") -> None:
    """Raise ``ValueError`` unless the last axis of ``x`` has length ``dim``."""
    shape = np.shape(x)
    if len(shape) == 0 or shape[-1] != dim:
        raise ValueError(
            f"{name} has shape {shape}, expected (..., {dim}): the event axis comes last"
        )


def noise_time(t: Any, *, zero_allowed: bool, why: str = "") -> None:
    """Raise ``ValueError`` unless every concrete time is finite and >= 0 (> 0 if asked)."""
    if not is_concrete(t):
        return
    values = np.asarray(t)
    if np.any(np.isnan(values)) or np.any(values < 0):
        raise ValueError(f"times must be >= 0 in units of the OU relaxation time, but t = {t!r}")
    if not zero_allowed and np.any(values == 0):
        raise ValueError(f"t = 0 is singular here{why}; use a small positive time such as 1e-4")


def decreasing(times: Any, name: str = "times") -> None:
    """Raise ``ValueError`` unless ``times`` is a strictly decreasing 1-D grid with times >= 0."""
    shape = np.shape(times)
    if len(shape) != 1 or shape[0] < 2:
        raise ValueError(
            f"{name} has shape {shape}, expected a grid (steps + 1,) of at least two times"
        )
    if not is_concrete(times):
        return
    values = np.asarray(times)
    noise_time(values, zero_allowed=True)
    if not np.all(np.diff(values) < 0):
        raise ValueError(
            f"{name} must decrease strictly (from high to low noise), but runs "
            f"{values[:3]} ... {values[-3:]}; reverse it with times[::-1] or remove repeats"
        )
