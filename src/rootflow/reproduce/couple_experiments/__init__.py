"""Experiments of the entry `diffusion-couple`."""
