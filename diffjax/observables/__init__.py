"""Estimators with standard errors: spectrum, speciation and collapse of a data set."""

from diffjax.observables import collapse, speciation, spectrum
from diffjax.observables.estimates import Estimate, crossing, mean_and_error

__all__ = ["Estimate", "collapse", "crossing", "mean_and_error", "speciation", "spectrum"]
