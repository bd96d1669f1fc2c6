"""Entries made for the tests: small files in a folder that the catalogue looks into."""

from pathlib import Path

GOOD = """
import numpy as np
from matplotlib.figure import Figure
from rootflow.reproduce import Claim, Entry, Outcome, Paper

def run(report, quick):
    report(0.5, "half way")
    figure = Figure(figsize=(3, 2))
    figure.subplots().plot([0, 1], [0, 1])
    measured = {"big": np.float64(3.0), "small": 0.5}
    if not quick:
        measured["slow"] = float("nan")
    return Outcome(measured, figure, {"x": np.arange(3.0), "y": [float("inf")]})

ENTRY = Entry(
    name="NAME",
    title="A <made> entry & its claims",
    paper=Paper("Nobody", 1999, "Nothing", arxiv="0000.00000"),
    claims=(
        Claim("big", "It is big.", 2.5, (">=", 2.0)),
        Claim("small", "It is <b>small</b>.", "tiny", ("<", 0.1)),
        Claim("slow", "It is slow.", 1.0, lambda x: x > 0, criterion="it is positive"),
    ),
    run=run,
    protocol="First.\\n\\nSecond.",
    caption="A line.",
)
"""

CRASHING = (
    GOOD.split("def run")[0]
    + """
def run(report, quick):
    raise ValueError("the tank is [empty]")

ENTRY = Entry("NAME", "Crashing", Paper("Nobody", 1999, "Nothing"),
              (Claim("one", "One.", 1, ("<", 2.0)),), run)
"""
)


def write(folder: Path, name: str, text: str) -> None:
    module = name.replace("-", "_")
    (folder / f"{module}.py").write_text(text.replace("NAME", name))
