"""A flax network as a pure function of its parameters, and how many it has.

``network, params = functional(module)`` splits a module into a static description and a pytree
of arrays; ``network.apply(params, x, time, key=None)`` is then an ordinary function that can be
differentiated, compiled, mapped over seeds and handed to any optimiser.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike


class Network:
    """What is left of a module without its trainable parameters; made by `functional`.

    It is hashable, so that it (or its method ``apply``) can be a static argument of compiled
    functions; two modules of one architecture give equal networks.

    Attributes:
        event_ndim: number of axes of one event, 3 for images ``(H, W, C)`` and 1 for vectors.
    """

    __slots__ = ("_constants", "_graphdef", "_hash", "event_ndim")

    def __init__(self, graphdef: Any, constants: Any, event_ndim: int):
        self._graphdef, self._constants = graphdef, constants
        self.event_ndim = event_ndim
        # flax hashes a graph definition anew at every compiled call, 7 ms for a large network.
        self._hash = hash((graphdef, event_ndim))

    def __eq__(self, other: Any) -> bool:
        if self is other:
            return True
        same = isinstance(other, Network) and self._hash == other._hash
        return same and self._graphdef == other._graphdef and _equal(self, other)

    def __hash__(self) -> int:
        return self._hash

    def __call__(self, *inputs: Any, key: Array | None = None) -> Array:
        """The same as `apply`."""
        return self.apply(*inputs, key=key)

    def apply(
        self, params: Any, x: ArrayLike, *inputs: ArrayLike, key: Array | None = None
    ) -> Array:
        """Output of the network with parameters ``params``.

        Args:
            params: parameters as returned by `functional`; their dtype is the dtype of the
                computation, so parameters cast to bfloat16 run in bfloat16.
            x: states ``(..., *event)``.
            inputs: further inputs of the network (time or index), scalars or broadcast
                against the batch ``(...)``.
            key: typed PRNG key of the dropout; None evaluates without it.

        Returns:
            Outputs ``(..., *output event)`` in the dtype of ``x``.
        """
        x = jnp.asarray(x)
        if x.ndim < self.event_ndim:
            raise ValueError(
                f"x has shape {x.shape}, expected {self.event_ndim} event axes: "
                f"{'(..., H, W, C)' if self.event_ndim == 3 else '(..., d)'}"
            )
        batch = x.shape[: x.ndim - self.event_ndim]
        flat = x.reshape(-1, *x.shape[len(batch) :]).astype(_dtype_of(params))
        others = [jnp.broadcast_to(jnp.asarray(value), batch).reshape(-1) for value in inputs]
        out = nnx.merge(self._graphdef, params, self._constants)(flat, *others, key=key)
        dtype = x.dtype if jnp.issubdtype(x.dtype, jnp.floating) else out.dtype
        return out.reshape(*batch, *out.shape[1:]).astype(dtype)


class ParameterCount(NamedTuple):
    """Numbers of parameters.

    Attributes:
        total: all of them, with frozen tables.
        trainable: without them.
    """

    total: int
    trainable: int


def functional(module: nnx.Module) -> tuple[Network, nnx.State]:
    """Split a module into a `Network` and its trainable parameters, a pytree.

    Raises:
        TypeError: if ``module`` is no flax module.
    """
    _require_module(module)
    graphdef = nnx.graphdef(module)
    params, constants = nnx.split_state(nnx.state(module), nnx.Param, ...)
    return Network(graphdef, constants, getattr(module, "event_ndim", 1)), params


def count_parameters(net: Any) -> ParameterCount:
    """Count the parameters of a network, ``(total, trainable)``.

    Args:
        net: a module of `diffjax.networks` or any part of one, also an abstract one made by
            ``flax.nnx.eval_shape``, which allocates nothing.

    Raises:
        TypeError: if ``net`` is no flax module.
    """
    _require_module(net)
    return ParameterCount(_size(nnx.state(net)), _size(nnx.state(net, nnx.Param)))


def _require_module(module: Any) -> None:
    """Raise ``TypeError`` unless ``module`` is a flax module."""
    if not isinstance(module, nnx.Module):
        raise TypeError(f"expected a flax.nnx.Module, got {type(module).__name__}")


def _equal(one: Network, other: Network) -> bool:
    """Whether the frozen arrays of two networks of one structure agree."""
    pairs = zip(jax.tree.leaves(one._constants), jax.tree.leaves(other._constants), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def _size(tree: Any) -> int:
    """Number of entries of all arrays of a pytree, abstract ones included."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _dtype_of(params: Any) -> Any:
    """Common floating dtype of the parameters."""
    return jnp.result_type(*(leaf.dtype for leaf in jax.tree.leaves(params)))
