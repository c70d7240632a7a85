"""Estimators with standard errors: spectrum, speciation, class information, collapse, ..."""

from diffjax.observables import (
    class_information,
    class_tracker,
    collapse,
    denoising,
    memorisation,
    sample_quality,
    speciation,
    spectrum,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "class_information",
    "class_tracker",
    "collapse",
    "crossing",
    "denoising",
    "mean_and_error",
    "memorisation",
    "sample_quality",
    "speciation",
    "spectrum",
]
