"""Estimators: spectrum, stability, speciation, collapse, memorisation, denoising, quality."""

from diffjax.observables import (
    collapse,
    denoising,
    memorisation,
    sample_quality,
    speciation,
    spectrum,
    stability,
)
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "collapse",
    "crossing",
    "denoising",
    "mean_and_error",
    "memorisation",
    "sample_quality",
    "speciation",
    "spectrum",
    "stability",
]
