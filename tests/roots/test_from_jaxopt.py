"""The guide for users of JAXopt names everything that JAXopt has, and only what exists here."""

import importlib
import inspect
import re
from pathlib import Path

import jax
import numpy as np
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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_programs_of_the_guide_give_the_same_before_and_after():
    """Answers, auxiliary values, multipliers and derivatives of both sides."""
    pytest.importorskip("jaxopt")
    blocks = re.findall(r"^```(python|py)\n(.*?)^```$", GUIDE.read_text("utf-8"), re.M | re.S)
    names, compared = {}, 0
    for kind, code in blocks:
        if kind == "py":
            exec(code, names)
            theirs = names.pop("theirs")
        else:
            exec(code, names)
            if "ours" in names:
                pairs = zip(*map(jax.tree.leaves, (names.pop("ours"), theirs)), strict=True)
                for have, want in pairs:
                    np.testing.assert_allclose(have, want, atol=2e-5)
                compared += 1
    assert compared == 3
