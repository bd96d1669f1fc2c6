"""Finds comparisons, times them in pairs and writes the table."""
