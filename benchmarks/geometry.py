"""K6: the spectrum of an empirical score's Jacobian at 100 times, over the weighted covariances."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from benchmarks.timing import interleave, ready, summarise
from diffjax.observables.geometry import score_spectrum

SHAPE = (100, 10_000, 1024)  # times, points, dimensions
SMALL = (6, 400, 40)
FLOOR = "floor: dense covariances"


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """All times in one call, from noise below every distance to noise above the data."""
    times, n, d = SMALL if small else SHAPE
    rng = np.random.default_rng(0)
    deviation = np.geomspace(1, 0.03, d)
    points = (rng.standard_normal((n, d)) * deviation).astype(np.float32)
    v = np.geomspace(1e-3, 1e3, times)
    noise = np.sqrt(v)[:, None] * rng.standard_normal((times, d))
    x = (points[rng.integers(0, n, times)] + noise).astype(np.float32)
    t = (0.5 * np.log1p(v)).astype(np.float32)
    diffusion = diffjax.Diffusion(diffjax.point_cloud(points), diffjax.variance_exploding())

    @jax.jit
    def covariances(points: jax.Array, x: jax.Array, v: jax.Array) -> jax.Array:
        def one(item: tuple[jax.Array, jax.Array]) -> jax.Array:
            state, v = item
            squared = jnp.sum(jnp.square(points - state), axis=-1)
            rows = jnp.sqrt(jax.nn.softmax(-squared / (2 * v)))[:, None] * points
            return jnp.trace(jnp.matmul(rows.T, rows, precision="highest"))

        return jax.lax.map(one, (x, v))

    candidates = {
        FLOOR: ready(covariances, jnp.asarray(points), jnp.asarray(x), jnp.asarray(v, jnp.float32)),
        "diffjax, score_spectrum": ready(score_spectrum, diffusion, x, t),
    }
    if peers:
        candidates["numpy, covariance and eigvalsh"] = lambda: _numpy(points, x, v)
    found = np.asarray(score_spectrum(diffusion, x, t).normalised, np.float64)
    rows = range(0, times, max(1, times // 6))
    exact = _numpy(points.astype(np.float64), x.astype(np.float64)[rows], v[rows])
    # relative to 1 + |lambda|: the value itself is unbounded between two points
    error = float((np.abs(found[rows] - exact) / (1 + np.abs(exact))).max())
    accuracy = {"diffjax, score_spectrum": error}
    title = f"(times, n, d) = ({times}, {n}, {d}), float32"
    return [summarise(title, interleave(candidates, rounds), FLOOR, accuracy)]


def _numpy(points: np.ndarray, x: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Normalised spectra, descending, one state after the other."""
    found = []
    for state, noise in zip(x, v):
        energy = np.square(points - state).sum(axis=1) / (2 * noise)
        weight = np.exp(energy.min() - energy)
        weight /= weight.sum()
        rows = np.sqrt(weight)[:, None] * (points - weight @ points)
        found.append(1 - np.linalg.eigvalsh(rows.T @ rows) / noise)
    return np.stack(found)
