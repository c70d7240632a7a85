r"""What a time grid costs the ancestral sampler: the divergence of the exact path from its path.

On a grid of times with exact states, the exact transition of the reverse SDE is

    p(x_s | x_t) = N(x_t; f x_s, v) p_s(x_s) / p_t(x_t),   s < t,                          (1)

f and v of the forward transition, and that of the sampler q(x_s | x_t) = N(x_s; c_a D(x_t) +
c_x x_t, V), the bridge at the posterior mean. Both start from the exact law, so that the relative
entropy of their paths is, in nats,

    KL = E sum_k log p(x_{k+1} | x_k) / q(x_{k+1} | x_k) >= 0                               (2)

over exact paths, which are drawn forwards in time. It bounds the divergence of the samples, is
differentiable in the times, and vanishes like 1/N for N steps. It needs no integral over time.

References:
    Ho, Jain, Abbeel 2020 (2006.11239), whose variational bound it is for the exact denoiser.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from diffjax import checks, processes
from diffjax.data.base import Posterior, per_event, require
from diffjax.diffusion import Diffusion, denoise_at
from diffjax.dynamics.scan import run_steps
from diffjax.noise import normal
from diffjax.observables.estimates import Estimate, mean_and_error


def path_divergence(
    key: Array, model: Diffusion, times: ArrayLike, n: int, *, sampler: Any = None
) -> Estimate:
    """Relative entropy (2) of the exact reverse path to that of the ancestral sampler.

    Args:
        key: typed PRNG key.
        model: whose exact paths are drawn, with an exact posterior and density.
        times: strictly decreasing OU times ``(S + 1,)``, the last one positive; differentiable.
        n: number of paths (static).
        sampler: `Diffusion` or `ScoreModel` whose denoiser the sampler uses; ``model`` if None.

    Raises:
        ValueError: on a grid that does not decrease or ends at 0, where the last kernel has no
            noise.
        TypeError: if the model has no exact posterior.
    """
    require(model.data, Posterior, "path_divergence")
    checks.decreasing(times)
    checks.noise_time(times, zero_allowed=False, why=" (the last kernel has no noise there)")
    grid = jnp.asarray(times, jnp.result_type(float))
    return _divergence(
        key, model, model if sampler is None else sampler, grid, checks.count(n, "n")
    )


@partial(jax.jit, static_argnames="n")
def _divergence(key: Array, model: Any, sampler: Any, times: Array, n: int) -> Estimate:
    key_start, key_path = jax.random.split(key)
    process = model.process
    x = model.sample(key_start, times[-1], n)
    times = times.astype(x.dtype)

    def log_density(x: Array, t: Array) -> Array:
        return model.data.log_normaliser(x, process.scale(t), process.std(t))

    def step(key: Array, state: Any, s: Array, t: Array) -> tuple[Any, None]:
        x, total = state  # at the earlier time s
        factor, spread = processes.transition(process, s, t)
        noise = normal(key, x.shape, x.dtype)
        y = per_event(factor, x) * x + per_event(jnp.sqrt(spread), x) * noise
        c_a, c_x, variance = processes.bridge(process, s, t)
        mean = per_event(c_a, x) * denoise_at(sampler, y, t) + per_event(c_x, x) * y
        # the normalisations of both kernels, per coordinate
        logs = 0.5 * x.shape[-1] * (jnp.log(variance) - jnp.log(spread))
        ahead = -0.5 * jnp.sum(jnp.square(noise), axis=-1)
        back = 0.5 * jnp.sum(jnp.square(x - mean), axis=-1) / variance
        return (y, total + logs + ahead + back), None

    start = log_density(x, times[-1])
    (end, total), _ = run_steps(step, key_path, (x, start), times[::-1])
    return mean_and_error(total - log_density(end, times[0]))
