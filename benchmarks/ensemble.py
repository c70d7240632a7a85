"""K3: a million one-dimensional trajectories in a two-class mixture, over their normal numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from benchmarks.timing import interleave, optional, ready, summarise

SIZE, STEPS = 1_000_000, 20
MEAN, VARIANCE = 1.5, 0.6


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """One result: Euler-Maruyama with the exact score."""
    size, steps = (1000, 5) if small else (SIZE, STEPS)
    mixture = diffjax.gaussian_mixture(
        [0.5, 0.5], np.array([[MEAN], [-MEAN]], np.float32), np.float32(VARIANCE)
    )
    diffusion = diffjax.Diffusion(mixture, diffjax.ornstein_uhlenbeck())
    times = np.linspace(2.0, 0.2, steps + 1, dtype=np.float32)
    x = np.random.default_rng(0).standard_normal((size, 1), dtype=np.float32)
    key = jax.random.key(0)

    @jax.jit
    def normals(key: jax.Array, x: jax.Array) -> jax.Array:
        def body(x: jax.Array, i: jax.Array) -> tuple[jax.Array, None]:
            return jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype) + 0.5 * x, None

        return jax.lax.scan(body, x, jnp.arange(steps))[0]

    candidates = {"floor: normal numbers": ready(normals, key, jnp.asarray(x))}
    for method in ("euler_maruyama", "exact"):
        candidates[f"diffjax {method}"] = lambda method=method: jax.block_until_ready(
            diffjax.backward(key, diffusion, x, times, method=method)[0]
        )
    skipped: list[str] = []
    if peers:
        candidates["numpy loop"] = lambda: _numpy(x, times)
        torch = optional("torch")
        if torch is None:
            skipped.append("torch (not installed)")
        else:
            state = torch.from_numpy(x)
            candidates["torch loop"] = lambda: _torch(torch, state, times)
    title = f"{size} trajectories, {steps} steps, float32"
    seconds = interleave(candidates, rounds)
    return [summarise(title, seconds, "floor: normal numbers", skipped=skipped)]


def _drift_terms(t: float) -> tuple[float, float]:
    """``Gamma_t`` and ``m e^{-t}``."""
    return 1 - np.exp(-2 * t) + VARIANCE * np.exp(-2 * t), MEAN * np.exp(-t)


def _numpy(x: np.ndarray, times: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        gamma, centre = np.float32(_drift_terms(t)[0]), np.float32(_drift_terms(t)[1])
        h = np.float32(t - s)
        score = (centre * np.tanh(centre / gamma * x) - x) / gamma
        x = x + h * (x + 2 * score)
        x += np.sqrt(2 * h) * rng.standard_normal(x.shape, dtype=np.float32)
    return x


def _torch(torch: Any, x: Any, times: np.ndarray) -> Any:
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        gamma, centre = _drift_terms(t)
        h = t - s
        score = (centre * torch.tanh(centre / gamma * x) - x) / gamma
        x = x + h * (x + 2 * score) + (2 * h) ** 0.5 * torch.randn_like(x)
    return x
