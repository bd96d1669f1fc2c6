"""The experiments of the entry `implicit-differentiation`, one a file."""
