"""Fitting a model to data: parameters with uncertainties."""
