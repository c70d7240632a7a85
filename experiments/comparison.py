"""Theory against simulation, in standard errors, with a control that must fail.

A curve is *exact* if the theory holds at the simulated size: then the reduced chi-square over
independent points must lie inside its central 99.9% interval. A curve is *approximate* if the
theory holds in a limit (large d) or under an assumption (Gaussian spectrum): then only the
discrepancy is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

CONFIDENCE = 0.999


@dataclass(frozen=True)
class Comparison:
    """Distance between a measured and a predicted curve.

    Attributes:
        name: what is compared.
        exact: whether the theory is exact at this size.
        points: number of independent points.
        chi_square: mean squared distance in standard errors (reduced: no parameter is fitted).
        interval: central 99.9% interval of the reduced chi-square for a correct theory.
        largest: largest distance of one point, in standard errors.
        discrepancy: largest absolute difference.
        control: True if this is a deliberately wrong theory, which must fail.
    """

    name: str
    exact: bool
    points: int
    chi_square: float
    interval: tuple[float, float]
    largest: float
    discrepancy: float
    control: bool = False

    @property
    def passed(self) -> bool | None:
        """Whether the comparison came out as it must; None for an approximate theory."""
        inside = self.interval[0] <= self.chi_square <= self.interval[1]
        if self.control:
            return not inside
        return inside if self.exact else None

    def line(self) -> str:
        """One readable line."""
        low, high = self.interval
        kind = "control" if self.control else "exact" if self.exact else "approximate"
        verdict = {True: "as it must be", False: "FAILS", None: "reported only"}[self.passed]
        if self.control and self.passed:
            verdict = "rejected, as it must be"
        return (
            f"{self.name} [{kind}]: reduced chi-square {self.chi_square:.3g} over {self.points} "
            f"points (99.9% interval {low:.2f} to {high:.2f}), largest distance "
            f"{self.largest:.2g} s.e., {self.discrepancy:.2g} in value: {verdict}"
        )

    def record(self) -> dict[str, Any]:
        """The entries for ``summary.json``."""
        return {
            "name": self.name,
            "kind": "control" if self.control else "exact" if self.exact else "approximate",
            "points": self.points,
            "reduced_chi_square": self.chi_square,
            "interval_99.9%": list(self.interval),
            "largest_distance_in_standard_errors": self.largest,
            "largest_difference": self.discrepancy,
            "passed": self.passed,
        }


def compare(
    name: str,
    measured: Any,
    error: Any,
    theory: Any,
    *,
    exact: bool = True,
    control: bool = False,
    floor: float = 0.0,
) -> Comparison:
    """Compare curves point by point; points must be independent of each other.

    Args:
        name: what is compared.
        measured: measured values.
        error: their standard errors.
        theory: predicted values.
        exact: whether the theory is exact at the simulated size.
        control: whether the theory is deliberately wrong.
        floor: smallest standard error that is believed, e.g. ``1 / samples`` of a frequency whose
            samples were all equal; added in quadrature.
    """
    from scipy.stats import chi2

    values, errors, expected = (np.asarray(a, np.float64) for a in (measured, error, theory))
    errors = np.hypot(errors, floor)
    used = np.isfinite(values) & np.isfinite(expected) & np.isfinite(errors) & (errors > 0)
    distance = (values[used] - expected[used]) / errors[used]
    points = int(used.sum())
    if points == 0:
        return Comparison(
            name, exact, 0, float("nan"), (0.0, 0.0), float("nan"), float("nan"), control
        )
    tail = (1 - CONFIDENCE) / 2
    low, high = chi2.ppf([tail, 1 - tail], points) / points
    return Comparison(
        name,
        exact,
        points,
        float(np.mean(distance**2)),
        (float(low), float(high)),
        float(np.max(np.abs(distance))),
        float(np.max(np.abs(values[used] - expected[used]))),
        control,
    )


def histogram_hazards(
    samples: Any, edges: Any, below: Any, least: float = 20.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chance of a bin given that the sample is not below it: measured, error, expected.

    The counts of a histogram share their sum; these frequencies are uncorrelated with each other,
    as `compare` wants them. NaN where too few samples are expected.

    Args:
        samples: independent samples, of any shape.
        edges: increasing ends of the bins, ``(K + 1,)``.
        below: expected distribution function at the edges, ``(K + 1,)``.
        least: smallest number of samples in a bin, and beyond it, that is used.
    """
    values, edges, law = (np.asarray(a, np.float64) for a in (samples, edges, below))
    values = np.sort(values.ravel())
    above = values.size - np.searchsorted(values, edges)
    counts, beyond, inside = -np.diff(above), 1 - law[:-1], np.diff(law)
    hazard = np.where(beyond > 0, inside / np.where(beyond > 0, beyond, 1), 0.5)
    usable = (inside * values.size > least) & ((1 - law[1:]) * values.size > least)
    usable &= above[:-1] > 0
    error = np.sqrt(np.clip(hazard * (1 - hazard), 0, None) / np.maximum(above[:-1], 1))
    measured = counts / np.maximum(above[:-1], 1)
    kept = [np.where(usable, v, np.nan) for v in (measured, error, hazard)]
    return kept[0], kept[1], kept[2]
