"""Experiments on regularising neural ODEs by the estimates of their solver."""
