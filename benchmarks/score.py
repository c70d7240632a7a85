"""K1: the empirical score of B states, n points, d dimensions, over two matrix products."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import interleave, optional, ready, summarise
from diffjax.posterior_sums import point_blocks, posterior_sums

SHAPES = [(256, 20_000, 64), (256, 50_000, 784), (64, 10_000, 3072), (100, 1_000_000, 8)]
SMALL = [(32, 2000, 16)]
SCALE, STD = 0.8, 0.6
CHUNK = 512  # points of a step of the plain scan


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """One result per shape."""
    return [_one(shape, rounds, peers) for shape in (SMALL if small else SHAPES)]


def _one(shape: tuple[int, int, int], rounds: int, peers: bool) -> dict[str, Any]:
    b, n, d = shape
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n, d), dtype=np.float32)
    own = rng.integers(0, n, b)
    x = (SCALE * points[own] + STD * rng.standard_normal((b, d))).astype(np.float32)
    functions = _jax_candidates(points, x)
    candidates = {name: ready(*call) for name, call in functions.items()}
    skipped: list[str] = []
    if peers:
        candidates |= {"numpy, full B x n": lambda: _numpy(points, x)}
        torch = optional("torch")
        if torch is None:
            skipped.append("torch (not installed)")
        else:
            candidates |= _torch_candidates(torch, points, x)
    exact = _float64(points, x[:8])
    accuracy = {
        name: _error(candidates[name](), exact) for name in candidates if "floor" not in name
    }
    seconds = interleave(candidates, rounds)
    return summarise(
        f"(B, n, d) = {shape}, float32", seconds, "floor: two products", accuracy, skipped
    )


def _jax_candidates(points: np.ndarray, x: np.ndarray) -> dict[str, tuple]:
    """The floor, the library as it is called by the denoiser and by default, and two peers."""
    a, state = jnp.asarray(points), jnp.asarray(x)
    blocks = point_blocks(a)

    @jax.jit
    def products(a: jax.Array, x: jax.Array) -> jax.Array:
        logits = jnp.matmul(x, a.T, precision="highest")
        return jnp.matmul(logits, a, precision="highest")

    @jax.jit
    def full(a: jax.Array, x: jax.Array) -> jax.Array:
        logits = SCALE / STD**2 * jnp.matmul(x, a.T, precision="highest")
        logits = logits - SCALE**2 / (2 * STD**2) * jnp.sum(a**2, axis=-1)
        return jnp.matmul(jax.nn.softmax(logits, axis=-1), a, precision="highest")

    def library(top: int) -> Any:
        return jax.jit(lambda blocks, x: posterior_sums(blocks, x, SCALE, STD, top=top).mean)

    return {
        "floor: two products": (products, a, state),
        "diffjax (as denoise)": (library(0), blocks, state),
        "diffjax, with the best 8 points": (library(8), blocks, state),
        "jax, plain online scan": (_online_scan, *_cut(points), state),
        "jax, full B x n": (full, a, state),
    }


def _cut(points: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Points in chunks with half squared norms; padding has no weight."""
    count = -(-len(points) // CHUNK)
    padded = np.zeros((count * CHUNK, points.shape[1]), np.float32)
    padded[: len(points)] = points
    half = 0.5 * np.square(padded).sum(axis=1)
    half[len(points) :] = np.inf
    return jnp.asarray(padded.reshape(count, CHUNK, -1)), jnp.asarray(half.reshape(count, CHUNK))


@jax.jit
def _online_scan(chunks: jax.Array, half: jax.Array, x: jax.Array) -> jax.Array:
    """The leanest loop: nothing but the mean, no candidates, no bound on the rounding."""

    def body(carry: Any, chunk: Any) -> tuple[Any, None]:
        peak, total, moment = carry
        a, norm = chunk
        z = SCALE / STD**2 * jnp.matmul(x, a.T, precision="highest") - (SCALE / STD) ** 2 * norm
        best = jnp.maximum(peak, z.max(axis=-1))
        p, shrink = jnp.exp(z - best[:, None]), jnp.exp(peak - best)
        moment = moment * shrink[:, None] + jnp.matmul(p, a, precision="highest")
        return (best, total * shrink + p.sum(axis=-1), moment), None

    start = (jnp.full(len(x), -1e30), jnp.zeros(len(x)), jnp.zeros_like(x))
    (_, total, moment), _ = jax.lax.scan(body, start, (chunks, half))
    return moment / total[:, None]


def _numpy(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    logits = SCALE / STD**2 * (x @ points.T)
    logits -= SCALE**2 / (2 * STD**2) * np.einsum("nd,nd->n", points, points)
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(logits)
    return (weights / weights.sum(axis=1, keepdims=True)) @ points


def _torch_candidates(torch: Any, points: np.ndarray, x: np.ndarray) -> dict[str, Any]:
    """What a torch user would write."""
    a, state = torch.from_numpy(points), torch.from_numpy(x)
    bias = -(SCALE**2) / (2 * STD**2) * (a * a).sum(1)

    def attention() -> Any:
        query = (SCALE / STD**2 * state)[None]
        return torch.nn.functional.scaled_dot_product_attention(
            query, a[None], a[None], attn_mask=bias[None, None], scale=1.0
        )[0]

    def distances() -> Any:
        squared = torch.cdist(state, SCALE * a) ** 2
        return torch.softmax(-squared / (2 * STD**2), dim=1) @ a

    return {"torch attention with bias": attention, "torch cdist, softmax": distances}


def _float64(points: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Posterior means of a few rows in float64, by differences."""
    wide, rows = points.astype(np.float64), []
    for row in x.astype(np.float64):
        energy = ((row - SCALE * wide) ** 2).sum(axis=1) / (2 * STD**2)
        weight = np.exp(energy.min() - energy)
        rows.append(weight @ wide / weight.sum())
    return np.stack(rows)


def _error(value: Any, exact: np.ndarray) -> float:
    return float(np.abs(np.asarray(value)[: len(exact)] - exact).max())
