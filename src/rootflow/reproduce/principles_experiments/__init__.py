"""The experiments of the entry `diffusion-principles`, one a function."""
