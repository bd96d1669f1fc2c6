"""The same loop in C, compiled on the spot with `gcc -O3`: how fast the arithmetic can be."""

import ctypes
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

_DOUBLES = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")


@functools.cache
def version() -> str | None:
    """The version of gcc; `None` if there is none."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    command = [gcc, "-dumpfullversion", "-dumpversion"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@functools.cache
def _library() -> ctypes.CDLL:
    source = Path(__file__).with_name("lorenz.c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "lorenz.so"
        command = ["gcc", "-O3", "-shared", "-fPIC", str(source), "-o", str(library), "-lm"]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))
    real = ctypes.c_double
    loaded.solve_each.argtypes = [
        ctypes.c_int, _DOUBLES, _DOUBLES, real, real, real, ctypes.c_int, _DOUBLES
    ]  # fmt: skip
    loaded.solve_each.restype = ctypes.c_int
    return loaded


def lorenz(
    y0: np.ndarray, parameters: np.ndarray, end: float, tolerance: float, max_steps: int
) -> tuple[np.ndarray, int]:
    """States at the end, shape (members, 3), of members begun at `y0` and solved in turn.

    Also the largest number of steps that a member took.

    Raises:
        RuntimeError: a member needed more than `max_steps`.
    """
    y0 = np.ascontiguousarray(y0, float)
    y1 = np.empty_like(y0)
    steps = _library().solve_each(
        len(y0), y0, np.ascontiguousarray(parameters, float), end, tolerance, tolerance,
        max_steps, y1,
    )  # fmt: skip
    if steps < 0:
        raise RuntimeError(f"The C loop needed more than {max_steps} steps.")
    return y1, steps
