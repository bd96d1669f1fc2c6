"""rootflow beside its peers: one file a comparison, one command for all.

    python -m benchmarks [NAME ...] [--out DIR]

A comparison is a module of this package that declares `COMPARISON`; see `harness.comparison`.
"""
