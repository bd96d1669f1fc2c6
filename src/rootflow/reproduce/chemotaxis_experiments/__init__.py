"""Chemotaxis with indirect signalling: rates of its limits, and where cells collapse."""
