"""Iterative methods, one kind a file, each a module with `init` and `step` (`roots.iterate`)."""
