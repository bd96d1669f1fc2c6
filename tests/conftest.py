"""Double precision, no window system, and repeatable property tests."""

import os
import sys

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest

jax.config.update("jax_enable_x64", True)

# No deadline: the first example of a property compiles. Derandomised: a failure repeats.
hypothesis.settings.register_profile(
    "rootflow", deadline=None, max_examples=25, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("rootflow")


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """An empty folder that is the only place where `rootflow.reproduce` looks for entries."""
    from rootflow import reproduce

    folder = tmp_path / "entries"
    folder.mkdir()
    monkeypatch.setattr(reproduce, "__path__", [str(folder)])
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        package, _, module = name.rpartition(".")
        if package == reproduce.__name__:
            del sys.modules[name]
            reproduce.__dict__.pop(module, None)
