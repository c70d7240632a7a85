"""Estimators with standard errors: speciation (class commitment) and collapse (memorisation)."""
