"""Estimators: spectrum, speciation, collapse, memorisation, denoising, geometry."""

from diffjax.observables import (
    collapse,
    denoising,
    geometry,
    memorisation,
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
    "geometry",
    "mean_and_error",
    "memorisation",
    "sample_quality",
    "speciation",
    "spectrum",
]
