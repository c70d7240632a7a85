"""Estimators with standard errors, one module for each kind of observable."""

from diffjax.observables import (
    collapse,
    denoising,
    memorisation,
    removal,
    sample_quality,
    speciation,
    spectrum,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "collapse",
    "crossing",
    "denoising",
    "mean_and_error",
    "memorisation",
    "removal",
    "sample_quality",
    "speciation",
    "spectrum",
]
