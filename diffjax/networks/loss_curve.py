"""The loss of every step as a CSV file that grows while a run goes on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np


class LossCurve:
    """Rows ``step,loss`` (or ``step,loss_0,loss_1,...`` for several runs side by side).

    Numbers are written so that they are read back exactly. A resumed run cuts off the rows from
    its first step on, so that the file is that of a run without interruption.
    """

    def __init__(self, path: Path, step: int, runs: int = 1) -> None:
        self.path = path
        header = (
            "step,loss" if runs == 1 else ",".join(["step", *map("loss_{}".format, range(runs))])
        )
        rows = [row for row in _whole_rows(path) if int(row.partition(",")[0]) < step]
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".csv.tmp")
        temporary.write_text("".join(f"{row}\n" for row in [header, *rows]))
        os.replace(temporary, path)

    def append(self, step: int, losses: np.ndarray) -> None:
        """Losses of ``step`` and the steps after it, ``(count,)`` or ``(count, runs)``."""
        rows = losses.reshape(len(losses), -1)
        with open(self.path, "a") as file:
            for i, row in enumerate(rows):
                file.write(",".join([str(step + i), *(str(value) for value in row)]) + "\n")


def read_losses(path: str | Path) -> np.ndarray:
    """Losses by step of the file at ``path``, ``(steps,)`` or ``(steps, runs)``, float64."""
    table = np.array([row.split(",") for row in _whole_rows(Path(path))], np.float64)
    losses = table[:, 1:] if table.size else np.zeros((0, 1))
    return losses[:, 0] if losses.shape[1] == 1 else losses


def _whole_rows(path: Path) -> list[str]:
    """Rows of numbers; a last row that was cut short is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [line for line in lines[1:] if line]
