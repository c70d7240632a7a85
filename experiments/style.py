"""One look for all figures: colour-blind-safe colours, error bars, numbers with errors."""

from __future__ import annotations

from typing import Any

import numpy as np

# Okabe and Ito's palette
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, BLACK = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)


def points(
    axis: Any, x: Any, y: Any, error: Any, label: str, colour: str, marker: str = "o"
) -> None:
    """Measured values with one standard error."""
    axis.errorbar(
        x, y, yerr=error, fmt=marker, ms=4, lw=1, capsize=2, color=colour, label=label, zorder=3
    )


def line(axis: Any, x: Any, y: Any, label: str, colour: str, style: str = "-") -> None:
    """A theory curve."""
    axis.plot(x, y, style, color=colour, lw=1.5, label=label, zorder=2)


def number(value: float, error: float | None = None) -> str:
    """``0.512(7)`` style; "none" for a number that does not exist."""
    if not np.isfinite(value):
        return "none"
    if error is None or not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    digits = max(0, 1 - int(np.floor(np.log10(error))))
    scaled = round(error * 10**digits)
    return f"{value:.{digits}f}({scaled})"
