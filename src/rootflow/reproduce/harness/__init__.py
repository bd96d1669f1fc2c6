"""Runs the entries of `rootflow.reproduce` and writes their records, pictures and pages."""
