"""The experiments of `rootflow.reproduce.acceleration`."""
