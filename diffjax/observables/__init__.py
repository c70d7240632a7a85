"""Estimators with standard errors: spectrum, speciation, collapse and memorisation."""

from diffjax.observables import collapse, memorisation, sample_quality, speciation, spectrum
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = [
    "Estimate",
    "collapse",
    "crossing",
    "mean_and_error",
    "memorisation",
    "sample_quality",
    "speciation",
    "spectrum",
]
