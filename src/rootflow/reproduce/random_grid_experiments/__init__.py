"""Experiments about random-grid neural processes."""
