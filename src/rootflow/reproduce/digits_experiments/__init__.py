"""Experiments on a small trained network, for the entries on diffusion models."""
