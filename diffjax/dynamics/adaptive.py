"""Adaptive probability-flow integration through diffrax (optional extra ``diffjax[ode]``)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax.diffusion import score_at
from diffjax.dynamics.methods import AdaptiveOde
from diffjax.dynamics.scan import Observe


def solve_flow(
    method: AdaptiveOde, model: Any, x: Array, times: Array, observe: Observe | None
) -> tuple[Array, Any]:
    """Integrate the probability flow from ``times[0]`` down to ``times[-1]``.

    The flow is integrated in Ornstein-Uhlenbeck coordinates ``y = x / c``, ``c = scale e^t``, where
    ``dy/dt = -y - T c score(c y)`` is smooth at small times for every process; in the
    coordinates of a rectified flow the drift diverges there.

    Returns:
        The final state, and ``observe`` at ``times[1:]``. A solve that fails leaves NaN, which
        the driver reports.

    Raises:
        ImportError: if diffrax is not installed.
    """
    try:
        import diffrax
    except ImportError as error:
        raise ImportError("adaptive_ode needs diffrax: pip install 'diffjax[ode]'") from error

    process = model.process

    def factor(t: Array) -> Array:
        return process.scale(t) * jnp.exp(t)

    def flow(t: Any, y: Any, _: Any) -> Array:
        c = factor(t)
        return -y - process.temperature * c * score_at(model, c * y, t)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=x / factor(times[0]),
        saveat=diffrax.SaveAt(ts=times[1:]) if observe is not None else diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.PIDController(rtol=method.rtol, atol=method.atol),
        max_steps=10_000,
        throw=False,
    )
    failed = solution.result != diffrax.RESULTS.successful
    ends = times[1:] if observe is not None else times[-1:]
    states = jax.vmap(lambda y, t: factor(t) * y)(solution.ys, ends)
    final = jnp.where(failed, jnp.nan, states[-1])
    return final, None if observe is None else jax.vmap(observe)(states, ends)
