"""Adaptive probability-flow integration through diffrax (optional extra ``diffjax[ode]``)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from diffjax import processes
from diffjax.diffusion import score_at
from diffjax.dynamics.methods import AdaptiveOde
from diffjax.dynamics.scan import Observe


def solve_flow(
    method: AdaptiveOde, model: Any, x: Array, times: Array, observe: Observe | None
) -> tuple[Array, Any]:
    """Integrate ``dx/dt = f - g^2 score / 2`` from ``times[0]`` down to ``times[-1]``.

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

    def flow(t: Array, x: Array, _: Any) -> Array:
        g = processes.diffusion_coefficient(model.process, t)
        return processes.drift(model.process, x, t) - 0.5 * jnp.square(g) * score_at(model, x, t)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(flow),
        diffrax.Tsit5(),
        t0=times[0],
        t1=times[-1],
        dt0=None,
        y0=x,
        saveat=diffrax.SaveAt(ts=times[1:]) if observe is not None else diffrax.SaveAt(t1=True),
        stepsize_controller=diffrax.PIDController(rtol=method.rtol, atol=method.atol),
        max_steps=100_000,
        throw=False,
    )
    failed = solution.result != diffrax.RESULTS.successful
    final = jnp.where(failed, jnp.nan, solution.ys[-1])
    return final, None if observe is None else jax.vmap(observe)(solution.ys, times[1:])
