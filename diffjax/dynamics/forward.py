"""Forward noising chains with exact transitions."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import per_event
from diffjax.dynamics.scan import Observe, run_steps
from diffjax.noise import normal
from diffjax.processes import Process


def forward(
    key: Array, process: Process, x: ArrayLike, times: ArrayLike, *, observe: Observe | None = None
) -> tuple[Array, Any]:
    """Run the forward process along a grid; every transition is exact at any step size.

    Args:
        key: typed PRNG key.
        process: the noising process.
        x: state at ``times[0]``, ``(..., d)`` (clean data if ``times[0] = 0``).
        times: strictly increasing OU times ``(S + 1,)``.
        observe: ``observe(x, t)`` evaluated after every step (static: pass the same function
            object again to reuse the compilation).

    Returns:
        The state at ``times[-1]`` and the stacked observations, or None.

    Raises:
        ValueError: if the grid does not increase or holds a negative time.
    """
    checks.decreasing(jnp.asarray(times)[::-1], "times (reversed)")
    x = checks.floating(x, "x")
    return _run(key, process, x, jnp.asarray(times, x.dtype), observe)


@partial(jax.jit, static_argnames="observe")
def _run(
    key: Array, process: Process, x: Array, times: Array, observe: Observe | None
) -> tuple[Array, Any]:
    def step(key: Array, x: Array, s: Array, t: Array) -> tuple[Array, None]:
        factor, variance = processes.transition(process, s, t)
        noise = normal(key, x.shape, x.dtype)
        return per_event(factor, x) * x + per_event(jnp.sqrt(variance), x) * noise, None

    return run_steps(step, key, x, times, observe=observe)
