"""K5: 4096 critical times at once, over SciPy's vectorised root finder."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import interleave, optional, ready, summarise
from theory.curie_weiss import collapse_time
from theory.quadrature import gaussian_nodes
from theory.roots import find_root

COUNT = 4096
FLOOR = "floor: scipy elementwise"
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """Two problems, in float64 with the same nodes on both sides."""
    count = 64 if small else COUNT
    titles = (f"{count} magnetisations, float64", f"{count} collapse times, float64")
    if optional("scipy.optimize.elementwise") is None:
        return [summarise(title, {}, "", skipped=["scipy (not installed)"]) for title in titles]
    with jax.enable_x64(True):
        results = [
            _compare(titles[0], *_magnetisations(count), rounds),
            _compare(titles[1], *_collapse_times(count), rounds),
        ]
    return results


def _compare(title: str, solve: Any, inputs: tuple, peer: Any, rounds: int) -> dict[str, Any]:
    """Roots, and roots with gradients by all inputs, over the peer's roots without."""
    batched = jax.jit(jax.vmap(solve))
    arguments = tuple(range(len(inputs)))
    gradient = jax.jit(jax.vmap(jax.value_and_grad(solve, arguments)))
    candidates = {
        FLOOR: peer,
        "theory, vmapped": ready(batched, *inputs),
        "theory with gradients": ready(gradient, *inputs),
    }
    exact = peer()
    errors = {
        "theory, vmapped": batched(*inputs),
        "theory with gradients": gradient(*inputs)[0],
    }
    accuracy = {k: float(np.abs(np.asarray(v) - exact).max()) for k, v in errors.items()}
    return summarise(title, interleave(candidates, rounds), FLOOR, accuracy)


def _magnetisations(count: int) -> tuple[Any, tuple, Any]:
    """``m = E tanh(beta m + z/2)`` with 64 nodes."""
    from scipy.optimize import elementwise

    beta = np.linspace(1.6, 3.0, count)
    nodes, weights = jnp.asarray(NODES), jnp.asarray(WEIGHTS)

    def solve(beta: jax.Array) -> jax.Array:
        def equation(m: jax.Array) -> jax.Array:
            return jnp.sum(weights * jnp.tanh(beta * m + 0.5 * nodes)) - m

        return find_root(equation, 1e-2, 1.0).value

    def flat(m: np.ndarray, b: np.ndarray) -> np.ndarray:
        field = np.multiply.outer(NODES, np.ones_like(m)) * 0.5 + b * m
        return np.tensordot(WEIGHTS, np.tanh(field), axes=1) - m

    def peer() -> np.ndarray:
        bracket = (np.full(count, 1e-2), np.ones(count))
        return elementwise.find_root(flat, bracket, args=(beta,)).x

    return solve, (jnp.asarray(beta),), peer


def _collapse_times(count: int) -> tuple[Any, tuple, Any]:
    """Collapse times of Curie-Weiss data, by the same integrand, nodes and bracket."""
    from scipy.optimize import elementwise

    beta = np.linspace(1.05, 2.0, count)
    nodes, weights = (np.asarray(values)[:, None] for values in gaussian_nodes())

    def order(x: np.ndarray, b: np.ndarray) -> np.ndarray:
        return x / np.tanh(x) - b

    def excess(u: np.ndarray, level: np.ndarray, x: np.ndarray) -> np.ndarray:
        ratio = np.exp(u)
        gain = np.expm1(-2 * (ratio + np.sqrt(ratio) * nodes))
        plus, minus = 1 / (1 + np.exp(-2 * x)), 1 / (1 + np.exp(2 * x))
        known = plus * np.log1p(minus * gain) + minus * np.log1p(plus * gain)
        return -np.sum(weights * known, axis=0) - level

    def field() -> np.ndarray:
        return elementwise.find_root(order, (np.full(count, 1e-2), beta + 0.0), args=(beta,)).x

    def entropy(x: np.ndarray) -> np.ndarray:
        plus, minus = 1 / (1 + np.exp(-2 * x)), 1 / (1 + np.exp(2 * x))
        return -plus * np.log(plus) - minus * np.log(minus)

    fractions = np.random.default_rng(0).uniform(0.05, 0.95, count)
    alpha = fractions * entropy(field())

    def peer() -> np.ndarray:
        x = field()
        lower = np.log(np.expm1(2 * alpha) * np.cosh(x) ** 2) - 1e-6
        missing = np.log(2) / np.cosh(x) / (entropy(x) - alpha)
        upper = np.log(2 * np.log(missing)) + 1e-6
        u = elementwise.find_root(excess, (lower, upper), args=(alpha, x)).x
        return 0.5 * np.log1p(np.exp(-u))

    return collapse_time, (jnp.asarray(alpha), jnp.asarray(beta)), peer
