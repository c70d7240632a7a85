"""Estimators with standard errors, one subject a module."""

from diffjax.observables import (
    attractors,
    class_information,
    class_tracker,
    collapse,
    denoising,
    drift,
    energies,
    geometry,
    likelihood,
    memorisation,
    recovery,
    removal,
    sample_quality,
    speciation,
    spectrum,
    stability,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "attractors",
    "class_information",
    "class_tracker",
    "collapse",
    "crossing",
    "denoising",
    "drift",
    "energies",
    "geometry",
    "likelihood",
    "mean_and_error",
    "memorisation",
    "recovery",
    "removal",
    "sample_quality",
    "speciation",
    "spectrum",
    "stability",
]
