"""The runs of the late-start benchmark: cells with reference values, and curves over start times.

The reference values are means and standard deviations over five seeds of 8000 samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SAMPLES, SEEDS = 8000, 5  # of the reference values
# sampler, steps, start, index: mean and standard deviation over the seeds
PUBLISHED = {
    ("ddim", 3, "vanilla", 500): (0.860, 0.034),
    ("ddim", 3, "gaussian", 300): (0.185, 0.008),
    ("ddim", 10, "vanilla", 800): (0.094, 0.010),
    ("ddim", 10, "gaussian", 500): (0.045, 0.004),
    ("eta1", 5, "vanilla", 600): (0.424, 0.030),
    ("eta1", 5, "gaussian", 300): (0.131, 0.012),
}
FLOOR = (0.0048, 0.0023)
KINDS = ("vanilla", "gaussian")


def cells(config: Any) -> list[tuple[str, int, str, int]]:
    """All runs of the benchmark: the published cells, then the curves."""
    curves = [
        (sampler, steps, kind, index)
        for sampler in config.samplers
        for steps in (config.steps if sampler != "exact" else config.steps[:1])
        for kind in KINDS
        for index in config.indices
    ]
    return list(dict.fromkeys([*PUBLISHED, *curves]))


def curves_of(config: Any, measured: dict[str, Any], name: str = "distance") -> Any:
    """``(sampler, steps, values (2, I, seeds))`` of the whole curves."""
    place = {cell: i for i, cell in enumerate(cells(config))}
    for sampler in config.samplers:
        for steps in config.steps if sampler != "exact" else config.steps[:1]:
            rows = [[place[sampler, steps, k, i] for i in config.indices] for k in KINDS]
            yield sampler, steps, measured[name][np.asarray(rows)]
