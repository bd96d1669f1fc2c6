"""The guides of populations run as they stand, and name only what exists."""

import re
from pathlib import Path
from typing import get_args

import pytest

import rootflow as rf
from rootflow.fitting.population.effects import Approximation

GUIDES = Path(__file__).resolve().parents[3] / "docs" / "guides"


@pytest.mark.parametrize("name", ["populations", "from_nonmem"])
def test_the_code_of_the_guide_runs(name):
    (code,) = re.findall(r"```python\n(.*?)```", (GUIDES / f"{name}.md").read_text("utf-8"), re.S)
    exec(compile(code, name, "exec"), {})  # its assertions are the test


def test_what_the_table_names_exists():
    text = (GUIDES / "from_nonmem.md").read_text("utf-8")
    for name in re.findall(r"`result\.(\w+)", text):
        known = (
            hasattr(rf.PopulationResult, name) or name in rf.PopulationResult.__dataclass_fields__
        )
        assert known, name
    for name in re.findall(r'`approximation = "(\w+)"`', text):
        assert name in get_args(Approximation)
