"""How the commands compile: what they have compiled is kept in a folder of the user.

Most of the time of a small fit goes into compiling, and the next fit of the same model compiles the
same programs. JAX's own cache of compiled programs keeps them, in a folder for each version of
jaxlib and each kind of processor; beyond 512 MB the oldest go. Only the command line does so; the
package changes nothing of JAX where it is imported.
"""

import contextlib
import hashlib
import os
import sys
from importlib.metadata import version
from pathlib import Path

from .._machine import processor_features

#: The folder, in the place of the user's; empty: nothing is kept.
VARIABLE = "ROOTFLOW_CACHE"
_MOST = 512 * 2**20
_SHORTEST = 0.2
#: The first compiles small programs in two thirds of the time, at no loss for those of a fit; the
#: second leaves out fusions whose threads can wait for each other without end on two cores. An
#: option that XLA does not know ends the process, so they are given to the versions that have them.
_FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_experimental_ynn_fusion_type=")
_KNOWN = ("0.10.2",)


def prepare(*, keep: bool) -> None:
    """Sets what compiles fast, and where compiled programs are kept. Before JAX computes anything.

    Args:
        keep: whether to keep them.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "jax" not in sys.modules and version("jaxlib") in _KNOWN:
        new = [flag for flag in _FLAGS if flag.split("=")[0] not in flags]
        os.environ["XLA_FLAGS"] = " ".join([*flags.split(), *new])
    place = folder() if keep else None
    if place is None:
        return
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None):  # the user has one
        return
    prune(place.parent, _MOST)
    jax.config.update("jax_compilation_cache_dir", str(place))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SHORTEST)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def prune(place: Path, most: int) -> None:
    """Deletes the oldest files below a folder until they have at most so many bytes."""
    known = []
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):  # another process may have deleted it
            if path.is_file():
                known.append((path.stat().st_mtime, path.stat().st_size, path))
    total = sum(size for _, size, _ in known)
    for _, size, path in sorted(known):
        if total <= most:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            total -= size


def folder() -> Path | None:
    """Where compiled programs are kept: `ROOTFLOW_CACHE`, or in the user's cache folder.

    `None` if there is no place that can be written to.
    """
    asked = os.environ.get(VARIABLE)
    if asked == "":
        return None
    try:
        place = Path(asked) if asked else _of_user() / "rootflow"
        kind = hashlib.sha256(processor_features().encode()).hexdigest()[:12]
        place = place / f"jaxlib-{version('jaxlib')}-{kind}"
        place.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # read-only, or a user without a home
        return None
    return place if os.access(place, os.W_OK) else None


def _of_user() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
