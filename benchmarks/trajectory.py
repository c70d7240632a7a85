"""K2: a backward trajectory of a point cloud, per step over the two matrix products of one step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import diffjax
from benchmarks.timing import interleave, optional, ready, summarise

SHAPE, STEPS = (512, 2000, 256), 50


def run(rounds: int, peers: bool, small: bool) -> list[dict[str, Any]]:
    """One result: every sampler of the library, and the same loop elsewhere."""
    (b, n, d), steps = ((32, 100, 16), 5) if small else (SHAPE, STEPS)
    rng = np.random.default_rng(0)
    points = rng.standard_normal((n, d), dtype=np.float32)
    x = rng.standard_normal((b, d), dtype=np.float32)
    times = np.asarray(diffjax.schedules.log_snr(0.02, 3.0, steps + 1))[::-1].astype(np.float32)
    diffusion = diffjax.Diffusion(diffjax.point_cloud(points), diffjax.ornstein_uhlenbeck())
    key = jax.random.key(0)

    @jax.jit
    def floor(a: jax.Array, x: jax.Array) -> jax.Array:
        def body(x: jax.Array, _: Any) -> tuple[jax.Array, None]:
            logits = jnp.matmul(x, a.T, precision="highest")
            return 1e-6 * jnp.matmul(logits, a, precision="highest"), None

        return jax.lax.scan(body, x, None, length=steps)[0]

    def sampler(method: str, grid: np.ndarray) -> Any:
        return lambda: jax.block_until_ready(
            diffjax.backward(key, diffusion, x, grid, method=method, span_reduction=False)[0]
        )

    candidates = {"floor: products of all steps": ready(floor, jnp.asarray(points), jnp.asarray(x))}
    for method in ("ancestral", "ddim", "euler_maruyama", "exact"):
        candidates[f"diffjax {method}"] = sampler(method, times)
    candidates["diffjax exact, one jump"] = sampler("exact", times[[0, -1]])
    skipped: list[str] = []
    if peers:
        candidates["numpy loop (ancestral)"] = lambda: _numpy_loop(points, x, times)
        torch = optional("torch")
        if torch is None:
            skipped.append("torch (not installed)")
        else:
            a, state = torch.from_numpy(points), torch.from_numpy(x)
            candidates["torch loop (ancestral)"] = lambda: _torch_loop(torch, a, state, times)
    title = f"(B, n, d) = {(b, n, d)}, {steps} steps, float32"
    seconds = interleave(candidates, rounds)
    return [summarise(title, seconds, "floor: products of all steps", skipped=skipped)]


def _coefficients(s: float, t: float) -> tuple[float, float, float, float, float]:
    """Softmax factors at ``t`` and the bridge to ``s`` of the OU process."""
    noise_t, noise_s, between = (-np.expm1(-2 * v) for v in (t, s, t - s))
    field, curvature = np.exp(-t) / noise_t, np.exp(-2 * t) / noise_t
    c_a, c_x = np.exp(-s) * between / noise_t, np.exp(s - t) * noise_s / noise_t
    return field, curvature, c_a, c_x, float(np.sqrt(noise_s * between / noise_t))


def _numpy_loop(points: np.ndarray, x: np.ndarray, times: np.ndarray) -> np.ndarray:
    """DDPM's ancestral sampler as a numpy user would write it."""
    rng = np.random.default_rng(1)
    half = 0.5 * (points**2).sum(axis=1)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        field, curvature, c_a, c_x, std = _coefficients(s, t)
        logits = np.float32(field) * (x @ points.T) - np.float32(curvature) * half
        weights = np.exp(logits - logits.max(axis=1, keepdims=True))
        mean = (weights / weights.sum(axis=1, keepdims=True)) @ points
        noise = rng.standard_normal(x.shape, dtype=np.float32)
        x = np.float32(c_a) * mean + np.float32(c_x) * x + np.float32(std) * noise
    return x


def _torch_loop(torch: Any, points: Any, x: Any, times: np.ndarray) -> Any:
    """The same in torch."""
    half = 0.5 * (points**2).sum(dim=1)
    for t, s in zip(times[:-1].tolist(), times[1:].tolist()):
        field, curvature, c_a, c_x, std = _coefficients(s, t)
        weights = torch.softmax(field * (x @ points.T) - curvature * half, dim=1)
        x = c_a * (weights @ points) + c_x * x + std * torch.randn_like(x)
    return x
