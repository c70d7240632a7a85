"""Estimators with standard errors: spectrum, speciation, collapse, memorisation, denoising."""

from diffjax.observables import (
    attractors,
    collapse,
    denoising,
    energies,
    memorisation,
    recovery,
    sample_quality,
    speciation,
    spectrum,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "attractors",
    "collapse",
    "crossing",
    "denoising",
    "energies",
    "mean_and_error",
    "memorisation",
    "recovery",
    "sample_quality",
    "speciation",
    "spectrum",
]
