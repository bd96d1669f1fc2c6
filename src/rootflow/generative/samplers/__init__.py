"""Samplers: ways from noise to data, a family a file."""
