"""Estimators with standard errors, one subject a module."""

from diffjax.observables import (
    class_information,
    class_tracker,
    collapse,
    denoising,
    geometry,
    likelihood,
    memorisation,
    sample_quality,
    speciation,
    spectrum,
    stability,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "class_information",
    "class_tracker",
    "collapse",
    "crossing",
    "denoising",
    "geometry",
    "likelihood",
    "mean_and_error",
    "memorisation",
    "sample_quality",
    "speciation",
    "spectrum",
    "stability",
]
