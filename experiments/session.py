"""What every run shares: the output folder, parts that can be resumed, progress, the report.

A run writes ``figure.png``, ``figure.pdf``, ``curves.npz`` (named arrays, described in
``summary.json``) and ``summary.json``. Expensive parts go through `Session.part`, which stores
each finished part in ``parts/`` under a fingerprint of the configuration; with ``--resume`` a
run takes them up again and ends with the same numbers, because every part draws from its own key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import Comparison

Curves = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Report:
    """What an experiment found.

    Attributes:
        finding: one sentence that a physicist would write.
        table: rows ``(quantity, value)`` for the terminal.
        summary: numbers with error bars for ``summary.json``.
        curves: named arrays for ``curves.npz``.
        axes: what each array of ``curves`` is, with its unit.
        comparisons: theory against simulation.
        figure: draws the figure.
    """

    finding: str
    table: list[tuple[str, str]]
    summary: dict[str, Any]
    curves: Curves
    axes: dict[str, str]
    comparisons: list[Comparison]
    figure: Callable[[], Any]


class Session:
    """Output folder, finished parts and progress of one run."""

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        resume: bool,
        *,
        quiet: bool = False,
        keep: bool = True,
    ) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.resume = resume
        self.quiet = quiet
        self.keep = keep

    def part(self, name: str, compute: Callable[[], Curves]) -> Curves:
        """The arrays of a part: of an interrupted run of this configuration, or computed."""
        path = self.folder / "parts" / f"{name}-{self.fingerprint}.npz"
        if self.resume and path.exists():
            with np.load(path, allow_pickle=False) as stored:
                return {key: stored[key] for key in stored.files}
        arrays = {key: np.asarray(value) for key, value in compute().items()}
        if not self.keep:
            return arrays
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, lambda file: np.savez(file, **arrays))
        return arrays

    def progress(self, label: str) -> Callable[[int, int], None] | None:
        """A ``progress(done, total)`` that draws a bar on the terminal (None when quiet)."""
        if self.quiet:
            return None
        from tqdm import tqdm

        # a log file gets a line now and then, not an animation
        interval = 0.1 if sys.stderr.isatty() else 20.0
        bar = tqdm(
            total=None, desc=label, file=sys.stderr, leave=False, delay=1.0, mininterval=interval
        )

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)
            if done >= total:
                bar.close()

        return update


def fingerprint(name: str, config: Any) -> str:
    """Hash of everything that the numbers of a run depend on."""
    import diffjax

    text = json.dumps([name, dataclasses.asdict(config), diffjax.__version__], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run(name: str, module: Any, config: Any, options: Any) -> Report:
    """Simulate, predict, report: print the table and the finding, write the folder."""
    start = time.perf_counter()
    folder = Path(options.out or Path("runs") / name)
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(folder, fingerprint(name, config), options.resume)
    measured = module.simulate(config, session)
    theory = module.predict(config, measured)
    report = module.report(config, measured, theory)
    seconds = time.perf_counter() - start
    _save(folder, name, config, report, seconds)
    print(as_text(name, report))
    print(f"\nwrote {folder}/figure.png, figure.pdf, curves.npz, summary.json ({seconds:.1f} s)")
    return report


def as_text(name: str, report: Report) -> str:
    """The table, the comparisons and the finding."""
    width = max((len(row[0]) for row in report.table), default=0)
    lines = [f"== {name} =="]
    lines += [f"  {label:{width}s}  {value}" for label, value in report.table]
    lines += [f"  {comparison.line()}" for comparison in report.comparisons]
    return "\n".join([*lines, "", report.finding])


def _save(folder: Path, name: str, config: Any, report: Report, seconds: float) -> None:
    """Write the four files, each atomically."""
    import matplotlib

    matplotlib.use("Agg")
    figure = report.figure()
    for suffix in ("png", "pdf"):
        figure.savefig(folder / f"figure.{suffix}", dpi=150)
    matplotlib.pyplot.close(figure)
    unnamed = sorted(set(report.curves) ^ set(report.axes))
    if unnamed:
        raise ValueError(f"curves and their descriptions differ in {unnamed}")
    for key, values in report.curves.items():
        if values.dtype.kind == "f" and np.any(np.isnan(values)):
            raise FloatingPointError(f"curve {key!r} holds NaN; nothing was written")
    _write(folder / "curves.npz", lambda file: np.savez(file, **report.curves))
    summary = {
        "experiment": name,
        "finding": report.finding,
        "results": report.summary,
        "comparisons": [comparison.record() for comparison in report.comparisons],
        "curves": report.axes,
        "config": dataclasses.asdict(config),
        "wall_seconds": round(seconds, 2),
        "environment": environment(),
    }
    text = json.dumps(plain(summary), indent=2, allow_nan=False)
    _write(folder / "summary.json", lambda file: file.write(text.encode()))


def _write(path: Path, fill: Callable[[Any], Any]) -> None:
    """Write a file so that an interruption leaves the old one or the new one, never a half."""
    temporary = path.with_suffix(path.suffix + ".tmp")
    with open(temporary, "wb") as file:
        fill(file)
    os.replace(temporary, path)


def plain(value: Any) -> Any:
    """Values for JSON: arrays as lists, NaN and infinity as null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value


def environment() -> dict[str, str]:
    """Versions and hardware of the run."""
    import jax
    import jaxlib

    import diffjax

    device = jax.devices()[0]
    return {
        "diffjax": diffjax.__version__,
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": str(jax.device_count()),
        "cores": str(os.cpu_count()),
        "machine": platform.machine(),
    }
