"""What a result was computed on: noted beside every measured number."""

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from ._version import __version__


def describe(packages: Sequence[str] = ("jax", "jaxlib", "numpy")) -> dict[str, str | int]:
    """The processor, its cores, the system and the versions of Python and `packages`.

    Packages that are not installed are left out.
    """
    found: dict[str, str | int] = {
        "processor": _processor(),
        "cores": _cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "rootflow": __version__,
    }
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cores() -> int:
    # The cores this process may use, which in a container is less than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def processor_features() -> str:
    """What the processor can do: programs compiled for one need not run on another."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return f"{platform.machine()} {line.split(':', 1)[1].strip()}"
    except OSError:  # not Linux
        return f"{platform.machine()} {_processor()}"
    return f"{platform.machine()} {_processor()}"
