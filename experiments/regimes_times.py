"""The named times of a data set: when it speciates and collapses, by every definition."""

from __future__ import annotations

from typing import Any

import numpy as np

from diffjax import schedules
from diffjax.observables import crossing
from diffjax.observables.speciation import CROSSING_LEVEL
from experiments.inputs import DataSet
from experiments.style import number

ENTROPY_THRESHOLD = 0.1  # of f^e / alpha, for the threshold definition of the collapse time


def transition_times(
    measured: dict[str, Any], predicted: dict[str, Any]
) -> dict[str, tuple[float, float]]:
    """Every named time with its standard error (NaN error for theory, NaN for "none")."""
    times, nan = measured["times"], float("nan")
    d_factor = measured["fraction"]
    found = {
        "speciation, spectral (Lambda e^-2t = 1)": (predicted["spectral"], nan),
        "speciation, static (log P_t loses convexity)": (predicted["static"], nan),
        "speciation, dynamic (reverse drift unstable)": (predicted["dynamic"], nan),
    }
    if "clones" in measured:
        weights = np.bincount(measured["data"].labels) / len(measured["data"].labels)
        floor = float(np.sum(weights**2))
        level = floor + CROSSING_LEVEL * (1 - floor)
        phi, error = measured["clone_agreement"], measured["clone_agreement_error"]
        found["speciation, measured (phi crossing)"] = crossing(times, phi, error, level)
    if "mixture_collapse" in predicted:
        found["collapse, theory (mixture, f = 0)"] = (predicted["mixture_collapse"], nan)
    found["collapse, theory (Gaussian spectrum, approximate)"] = (predicted["collapse"], nan)
    n, d = measured["data"].points.shape
    alpha = np.log(n) / d
    definitions = {
        "collapse, measured (f_LOO = 0)": ("leave_one_out", 0.0),
        "collapse, measured (phi_C = 1/2)": ("participation", 0.5),
        f"collapse, measured (f^e = {ENTROPY_THRESHOLD} alpha)": (
            "excess_entropy",
            ENTROPY_THRESHOLD * alpha / d_factor,
        ),
        "collapse, measured (P_own = 1/2)": ("own_nearest", 0.5),
    }
    for name, (curve, level) in definitions.items():
        found[name] = crossing(times, measured[curve], measured[f"{curve}_error"], level)
    nearest = measured["nearest_times"]
    spread = float(np.std(nearest, ddof=1) / np.sqrt(len(nearest)))
    found["collapse, nearest neighbour (mean, overestimates)"] = (float(nearest.mean()), spread)
    found["collapse, nearest neighbour (median)"] = (
        float(np.median(nearest)),
        1.2533 * spread,
    )
    return found


def in_schedule(t: float, error: float, schedule: Any) -> dict[str, Any]:
    """A time as OU time, sigma of ``a + sigma z``, and step index of the schedule."""
    return {
        "t": t,
        "standard_error": error,
        "sigma": float(np.sqrt(np.expm1(2 * t))) if np.isfinite(t) else float("nan"),
        "step_index": schedules.step_index(schedule, t),
    }


def chosen_times(found: dict[str, tuple[float, float]]) -> tuple[float, float, float, float]:
    """The pair that bounds the regimes: measured where it exists, spectral without labels."""
    collapse = found["collapse, measured (f_LOO = 0)"]
    split = found.get("speciation, measured (phi crossing)")
    if split is None or not np.isfinite(split[0]):
        split = found["speciation, spectral (Lambda e^-2t = 1)"]
    return (*split, *collapse)


def collapse_is_later(found: dict[str, tuple[float, float]]) -> bool | None:
    """Whether collapse comes after speciation on the way down, ``t_C < t_S``; None if unknown."""
    t_s, _, t_c, _ = chosen_times(found)
    return bool(t_c < t_s) if np.isfinite(t_s) and np.isfinite(t_c) else None


def finding(data: DataSet, found: dict[str, tuple[float, float]]) -> str:
    """One sentence."""
    n, d = data.points.shape
    t_s, e_s, t_c, e_c = chosen_times(found)
    start = f"{data.name} (n = {n}, d = {d}): "
    if not np.isfinite(t_s):
        split = "no spectral speciation time exists (Lambda <= 1)"
    elif "speciation, measured (phi crossing)" in found:
        split = f"the classes split at t_S = {number(t_s, e_s)}"
    else:
        split = f"the leading direction speciates at t_S = {number(t_s)} (spectral)"
    fall = "no collapse was found on the grid of times"
    if np.isfinite(t_c):
        t_c_text = number(t_c, e_c)
        fall = f"the empirical score collapses onto training points at t_C = {t_c_text} (f_LOO = 0)"
    order = {
        True: "; t_C < t_S, so the three regimes follow each other: no class, class, memory",
        False: "; t_C > t_S, so trajectories are memorised before their class could generalise",
        None: "",
    }[collapse_is_later(found)]
    return f"{start}{split}, and {fall}{order}. Times are Ornstein-Uhlenbeck times."
