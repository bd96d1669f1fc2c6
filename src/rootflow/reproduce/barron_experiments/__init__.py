"""Experiments about Barron norms and elliptic variational problems."""
