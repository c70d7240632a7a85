"""Interleaved timing: every candidate once per round, in turn; ratios are taken round by round."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

Candidate = Callable[[], Any]


def interleave(candidates: dict[str, Candidate], rounds: int) -> dict[str, list[float]]:
    """Seconds of every candidate in every round, after one warm-up call each.

    A candidate must return only when its work is done (``block_until_ready``).
    """
    for candidate in candidates.values():
        candidate()
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            start = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def summarise(
    title: str,
    seconds: dict[str, list[float]],
    floor: str,
    accuracy: dict[str, float] | None = None,
    skipped: list[str] | None = None,
) -> dict[str, Any]:
    """Median ratio of every candidate to the floor, with the spread over rounds."""
    rows = {}
    for name, times in seconds.items():
        ratios = [t / f for t, f in zip(times, seconds[floor])]
        rows[name] = {
            "median_seconds": statistics.median(times),
            "ratio_to_floor": statistics.median(ratios),
            "lowest_ratio": min(ratios),
            "highest_ratio": max(ratios),
            "largest_error": (accuracy or {}).get(name),
        }
    return {"title": title, "floor": floor, "rows": rows, "skipped": skipped or []}


def table(result: dict[str, Any]) -> str:
    """A result as text."""
    lines = [result["title"]]
    for name, row in result["rows"].items():
        error = "" if row["largest_error"] is None else f"   error {row['largest_error']:.1e}"
        lines.append(
            f"  {name:36s} {1e3 * row['median_seconds']:10.2f} ms   x {row['ratio_to_floor']:7.2f}"
            f"   [{row['lowest_ratio']:.2f}, {row['highest_ratio']:.2f}]{error}"
        )
    lines += [f"  skipped: {name}" for name in result["skipped"]]
    return "\n".join(lines)


def hardware() -> dict[str, Any]:
    """Versions, device and load of the machine."""
    import jax
    import jaxlib
    import numpy

    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "processor": _processor(),
        "load_1min": os.getloadavg()[0],
    }


def _processor() -> str:
    """Model name of the processor where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.split(":", 1)[1].strip() for line in file if line.startswith("model name")
            ]
    except OSError:
        return platform.processor()
    return names[0] if names else platform.processor()


def ready(function: Callable[..., Any], *arguments: Any) -> Candidate:
    """A candidate that calls a JAX function and waits for its result."""
    import jax

    return lambda: jax.block_until_ready(function(*arguments))


def optional(name: str) -> Any:
    """A module, or None where it is not installed."""
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError:
        return None
