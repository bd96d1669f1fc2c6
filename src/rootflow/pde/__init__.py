"""Partial differential equations: structure-preserving volumes and variational solvers."""

__all__: list[str] = []
