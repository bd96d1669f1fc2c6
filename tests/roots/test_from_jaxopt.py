"""The guide for users of JAXopt names everything that JAXopt has, and only what exists here."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import rootflow as rf

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "from_jaxopt.md"
MODULES = (
    "projection", "prox", "objective", "loss", "linear_solve", "implicit_diff", "tree_util",
    "perturbations", "isotonic",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_public_name_of_jaxopt_is_in_the_guide():
    jaxopt = pytest.importorskip("jaxopt")
    names = {n for n in dir(jaxopt) if n[0] != "_" and not inspect.ismodule(getattr(jaxopt, n))}
    for module in MODULES:
        members = vars(importlib.import_module(f"jaxopt.{module}"))
        names |= {
            n for n, v in members.items()
            if n[0] != "_" and callable(v) and getattr(v, "__module__", "").startswith("jaxopt")
        }  # fmt: skip
    told = set(re.findall(r"`(\w+)`", GUIDE.read_text(encoding="utf-8")))
    assert not names - told


def test_every_name_that_the_guide_promises_exists():
    for dotted in set(re.findall(r"rf\.([a-z_]+(?:\.\w+)?)", GUIDE.read_text(encoding="utf-8"))):
        found = rf
        for part in dotted.split("."):
            found = getattr(found, part)
