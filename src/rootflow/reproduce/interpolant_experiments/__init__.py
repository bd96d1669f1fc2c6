"""Experiments of `stochastic_interpolants`: known laws, divergences, trained models, bridges."""
