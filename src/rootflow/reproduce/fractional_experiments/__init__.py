"""Experiments of `fractional_noise_inference` that are longer than a function."""
