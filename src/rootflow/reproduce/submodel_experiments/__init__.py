"""Experiments of the entry `wgan-submodel`."""
