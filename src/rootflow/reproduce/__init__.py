"""Published claims, measured again: one file a paper.

Each module of this package declares `ENTRY`, an `Entry`; the package `harness` runs entries and
writes what came out. From a terminal: `rootflow reproduce --list`.
"""

from .harness.entry import Claim, Entry, Outcome, Paper

__all__ = ["Claim", "Entry", "Outcome", "Paper"]
