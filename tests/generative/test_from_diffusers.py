"""The guides name only what exists."""

import re
from pathlib import Path

import pytest

from rootflow import generative as gen

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"


@pytest.mark.parametrize("page", ["diffusion.md", "from_diffusers.md"])
def test_every_name_that_the_guide_promises_exists(page):
    names = set(re.findall(r"\bgen\.(\w+)", (GUIDES / page).read_text(encoding="utf-8")))
    assert len(names) > 5
    for name in names:
        assert hasattr(gen, name), name
        assert name == "exact" or name in gen.__all__


@pytest.mark.parametrize("name", [n for n in gen.__all__ if n != "exact"])
def test_every_public_name_has_a_docstring(name):
    assert (getattr(gen, name).__doc__ or "").strip()
