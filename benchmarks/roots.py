"""K5: 4096 critical times at once, over SciPy's vectorised root finder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import interleave, optional, ready, summarise
from theory.roots import find_root

COUNT = 4096
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """Self-consistent magnetisations ``m = E tanh(beta m + z/2)``, float64, 64 nodes."""
    if optional("scipy.optimize.elementwise") is None:
        return [summarise("4096 roots", {}, "", skipped=["scipy (not installed)"])]
    from scipy.optimize import elementwise

    count = 64 if small else COUNT
    beta = np.linspace(1.6, 3.0, count)
    with jax.enable_x64(True):
        nodes, weights = jnp.asarray(NODES), jnp.asarray(WEIGHTS)

        def solve(beta: jax.Array) -> jax.Array:
            def equation(m: jax.Array) -> jax.Array:
                return jnp.sum(weights * jnp.tanh(beta * m + 0.5 * nodes)) - m

            return find_root(equation, 1e-2, 1.0).value

        batched, gradient = jax.jit(jax.vmap(solve)), jax.jit(jax.vmap(jax.value_and_grad(solve)))
        inputs = jnp.asarray(beta)

        def peer() -> np.ndarray:
            def flat(m: np.ndarray, b: np.ndarray) -> np.ndarray:
                field = np.multiply.outer(NODES, np.ones_like(m)) * 0.5 + b * m
                return np.tensordot(WEIGHTS, np.tanh(field), axes=1) - m

            bracket = (np.full(count, 1e-2), np.ones(count))
            return elementwise.find_root(flat, bracket, args=(beta,)).x

        candidates = {
            "floor: scipy elementwise": peer,
            "theory.roots, vmapped": ready(batched, inputs),
            "theory.roots with gradients": ready(gradient, inputs),
        }
        exact = peer()
        accuracy = {
            "theory.roots, vmapped": float(np.abs(np.asarray(batched(inputs)) - exact).max())
        }
        seconds = interleave(candidates, rounds)
    return [summarise(f"{count} roots, float64", seconds, "floor: scipy elementwise", accuracy)]
