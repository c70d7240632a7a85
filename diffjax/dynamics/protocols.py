"""Clones (independent continuations of one state) and U-turns (noise to t, then back)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.dynamics.backward import Info, as_model, backward
from diffjax.dynamics.methods import Method
from diffjax.dynamics.scan import Observe
from diffjax.processes import Process


def clones(
    key: Array,
    model: Any,
    x: ArrayLike,
    times: ArrayLike,
    *,
    pairs: int = 2,
    method: str | Method | None = None,
    process: Process | None = None,
    observe: Observe | None = None,
) -> tuple[Array, Info]:
    """Branch every state into clones at ``times[0]`` and run them back with independent noise.

    With the exact method the fraction of pairs that end in the same class estimates
    ``phi(t) = E sum_c p(c | x_t)^2``, and ending on the same training point ``E sum_mu w_mu^2``.

    Args:
        key: typed PRNG key.
        model: as in `backward`.
        x: states at the branching time ``times[0]``, ``(..., d)``.
        times: strictly decreasing OU times from the branching time down, ``(S + 1,)``. With an
            exact posterior ``[t, 0]`` suffices.
        pairs: number of clones of every state (2: pairs).
        method: as in `backward`.
        process: as in `backward`.
        observe: as in `backward`; sees states ``(..., pairs, d)``.

    Returns:
        Final states ``(..., pairs, d)``, and the `Info` of the run.

    Raises:
        ValueError: if fewer than two clones are asked for; otherwise as `backward`.

    References:
        Biroli, Bonnaire, de Bortoli, Mezard 2024 (2402.18491).
    """
    if pairs < 2:
        raise ValueError(f"pairs must be at least 2, but is {pairs}")
    x = checks.floating(x, "x")
    branched = jnp.repeat(x[..., None, :], pairs, axis=-2)
    return backward(key, model, branched, times, process=process, method=method, observe=observe)


def u_turns(
    key: Array,
    model: Any,
    x: ArrayLike,
    times: ArrayLike,
    *,
    method: str | Method | None = None,
    process: Process | None = None,
    observe: Observe | None = None,
) -> tuple[Array, Info]:
    """Noise clean data to ``times[0]`` in one exact step, then run back along ``times``.

    By Nishimori's identity the exact method returns a posterior sample that is exchangeable
    with the datum it started from.

    Args:
        key: typed PRNG key.
        model: as in `backward`.
        x: clean data, ``(..., d)``.
        times: strictly decreasing OU times from the turning time down, ``(S + 1,)``.
        method: as in `backward`.
        process: as in `backward`.
        observe: as in `backward`.

    Returns:
        Final states ``(..., d)``, and the `Info` of the run.

    References:
        Sclocchi, Favero, Wyart 2024 (2402.16991); Behjoo, Chertkov 2023 (2308.07515).
    """
    checks.decreasing(times)
    x = checks.floating(x, "x")
    key_up, key_down = jax.random.split(key)
    model = as_model(model, process)
    noised = processes.perturb(key_up, model.process, x, jnp.asarray(times)[0])
    return backward(key_down, model, noised, times, method=method, observe=observe)
