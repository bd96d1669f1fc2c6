"""Double precision, no window system, and repeatable property tests."""

import gc
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import pytest


def _compile_quickly() -> None:
    """Asks XLA and Python for little effort on programs that run once.

    Tracing and compiling is most of what the tests do: without optimisations, with the older
    emitters of fused loops on the CPU and in one piece, XLA compiles our long expressions in a
    third of the time. `XLA_FLAGS= python -m pytest` compiles as a user does. An option that XLA
    does not know ends the process, so another one tries it first; the workers of pytest-xdist
    inherit it. The garbage collector, which walks all traced programs, is called less often.
    """
    gc.set_threshold(200_000, 50, 1_000)
    if "XLA_FLAGS" in os.environ and "JAX_DISABLE_MOST_OPTIMIZATIONS" not in os.environ:
        return
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_traceback_in_locations_limit", 0)
    if "XLA_FLAGS" in os.environ:
        return
    # (The last one: programs with fusions for YNNPACK can wait for each other without end on two
    # cores, seen with jaxlib 0.10.2.)
    flags = (
        "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1 "
        "--xla_cpu_experimental_ynn_fusion_type="
    )
    known = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        check=False,
    )
    if known.returncode == 0:
        os.environ["XLA_FLAGS"] = flags


_compile_quickly()
# Commands under test keep no compiled programs in the user's cache folder.
os.environ["ROOTFLOW_CACHE"] = ""

jax.config.update("jax_enable_x64", True)

# No deadline: the first example of a property compiles. Derandomised: a failure repeats.
hypothesis.settings.register_profile(
    "rootflow", deadline=None, max_examples=25, derandomize=True, print_blob=True
)
hypothesis.settings.load_profile("rootflow")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Drops compiled programs before a long run has too many of them.

    Each is three mappings of memory (code, constants, data), of which Linux allows a process
    65,530, and an operation outside `jit` is a program too: after 21,000 of them the compiler
    crashes. With its caches empty JAX gives all of them back. Between modules, whose tests share
    programs, and not at the end.
    """
    yield
    if nextitem is None or nextitem.path == item.path:
        return
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 16_000:
        jax.clear_caches()
        gc.collect()


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
