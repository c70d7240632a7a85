"""Checks of arguments at the public boundary, and their conversion to one floating dtype.

A number is checked only where it is concrete: under ``jit``, ``vmap`` or ``grad`` the arguments
are tracers, whose values do not exist yet, and the checks pass over them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

Array = jax.Array


def require(name: str, value: Any, holds: Callable[[Any], Any], needs: str, fix: str) -> None:
    """Raise ``ValueError`` unless ``holds`` is true for every entry of a concrete ``value``."""
    if isinstance(value, jax.core.Tracer):
        return
    numbers = np.asarray(value)
    valid = np.asarray(holds(numbers))
    if valid.all():
        return
    shown = numbers if numbers.ndim == 0 else numbers[~valid][0]
    raise ValueError(f"{name} must be {needs}, but is {name}={shown}; {fix}")


def require_positive(name: str, value: Any, fix: str) -> None:
    """Finite and above zero."""
    require(name, value, lambda v: (v > 0) & np.isfinite(v), "positive and finite", fix)


def require_nonnegative(name: str, value: Any, fix: str) -> None:
    """Finite and not below zero."""
    require(name, value, lambda v: (v >= 0) & np.isfinite(v), ">= 0 and finite", fix)


def require_time(t: Any) -> None:
    """Not below zero; infinity is the far end of the forward process."""
    fix = "pass the time of the Ornstein-Uhlenbeck process, which starts at 0"
    require("t", t, lambda v: v >= 0, ">= 0", fix)


def require_temperature(temperature: Any) -> None:
    """Finite and above zero."""
    require_positive("temperature", temperature, "the standard process has temperature 1")


def require_variance(variance: Any, name: str = "variance") -> None:
    """Finite and not below zero."""
    fix = "pass the variance per coordinate, never a logarithm or a difference"
    require_nonnegative(name, variance, fix)


def require_mean_norm(mean_norm: Any, name: str = "mean_norm") -> None:
    """Finite and not below zero."""
    require_nonnegative(name, mean_norm, "pass the Euclidean norm |m| of a class centre")


def require_weight(weight: Any) -> None:
    """Strictly between zero and one."""
    fix = "pass the fraction of the data in the first of the two classes"
    require("weight", weight, lambda v: (v > 0) & (v < 1), "between 0 and 1", fix)


def require_weights(weights: Any) -> None:
    """Positive, and of sum one along the last axis."""
    require_positive("weights", weights, "drop classes without data")
    if not isinstance(weights, jax.core.Tracer):
        total = np.asarray(weights).sum(-1)
        fix = "divide the weights by their sum"
        require("sum of weights", total, lambda v: abs(v - 1) < 1e-5, "1", fix)


def require_level(level: Any) -> None:
    """Strictly between zero and one."""
    fix = "the agreement is normalised to 0 at large time and 1 for certain classes"
    require("level", level, lambda v: (v > 0) & (v < 1), "between 0 and 1", fix)


def require_count(name: str, value: Any, least: int, fix: str) -> int:
    """``value`` as a Python integer that is not below ``least``."""
    if isinstance(value, jax.core.Tracer) or np.ndim(value) or value != value // 1:
        raise ValueError(f"{name} must be one concrete integer, but is {name}={value}; {fix}")
    if value < least:
        raise ValueError(f"{name} must be >= {least}, but is {name}={value}; {fix}")
    return int(value)


def require_increasing(low: str, lower: Any, high: str, upper: Any) -> None:
    """The first below the second, wherever both are concrete."""
    if not any(isinstance(v, jax.core.Tracer) for v in (lower, upper)):
        gap = np.asarray(upper) - np.asarray(lower)
        require(f"{high} - {low}", gap, lambda v: v > 0, "positive", "exchange the ends")


def require_size(log_n: Any, dim: Any) -> None:
    """Logarithm of a number of points above one, and a dimension of one at least."""
    fix = "pass the natural logarithm of the number of training points, of which two are needed"
    require_positive("log_n", log_n, fix)
    require_dimension(dim)


def require_dimension(dim: Any, name: str = "dim") -> None:
    """Finite and one at least."""
    fix = "pass the number of coordinates"
    require(name, dim, lambda v: (v >= 1) & np.isfinite(v), ">= 1 and finite", fix)


def floats(*values: ArrayLike) -> tuple[Array, ...]:
    """``values`` as arrays of one floating dtype.

    Arrays decide the dtype; Python numbers and integers follow, and where no array of floating
    dtype is present the default dtype of JAX is taken.
    """
    dtypes = {jnp.dtype(v.dtype) for v in values if hasattr(v, "dtype")}
    floating = [d for d in dtypes if jnp.issubdtype(d, jnp.floating)]
    dtype = jnp.result_type(*floating) if floating else jnp.result_type(float)
    return tuple(jnp.asarray(v, dtype) for v in values)


def elementwise(kernel: Callable[..., Any], signature: str | None = None) -> Callable[..., Any]:
    """Jitted ``kernel`` of scalars (or of the vectors in ``signature``), broadcast over arrays."""
    return jax.jit(jnp.vectorize(kernel, signature=signature))
