"""The file of a run: what it is the run of, when it is written, and who may write it."""

import contextlib
import hashlib
import math
import os
import re
import signal
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from .._typing import PyTree
from ..errors import InputError
from . import store, tensor_file

Changed = Literal["refuse", "restart", "continue"]

#: Seconds between two writings of a checkpoint.
BETWEEN_SAVES = 10.0


def program(function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """What a traced function computes, as JSON: its program and the numbers it closes over.

    Args:
        function: of pytrees.
        *args: whose shapes and types count, and not their numbers; what is not an array is fixed.
    """
    moving, fixed = eqx.partition(args, _abstract)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), moving)
    traced = jax.make_jaxpr(lambda moving: _arrays(function(*eqx.combine(moving, fixed))))(shapes)
    # Addresses of functions differ from process to process.
    text = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))
    numbers = digest(list(_constants(traced)))
    return {"program": hashlib.sha256(text.encode()).hexdigest(), "numbers": numbers}


def _constants(part: Any) -> Iterator[Any]:
    """The arrays that a program closes over, those of the programs inside it included."""
    if isinstance(part, core.ClosedJaxpr):
        yield from part.consts
        part = part.jaxpr
    if isinstance(part, core.Jaxpr):
        for step in part.eqns:
            yield from (
                v.val for v in step.invars if isinstance(v, core.Literal) and np.ndim(v.val)
            )
            yield from _constants(tuple(step.params.values()))
    elif isinstance(part, list | tuple):
        for inner in part:
            yield from _constants(inner)


def digest(tree: PyTree) -> list[Any]:
    """What tells the arrays of one pytree from those of another, as JSON.

    Whole numbers by a sum of their bytes. Floating-point ones by two of their moments, so that the
    last digits, which differ from machine to machine, do not matter.
    """
    return [_digest(leaf) for leaf in jax.tree.leaves(tree) if eqx.is_array_like(leaf)]


def _digest(leaf: Any) -> list[Any]:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
    kind = [list(leaf.shape), np.dtype(leaf.dtype).name]
    array = np.asarray(leaf)
    if not floating:
        return [*kind, zlib.crc32(np.ascontiguousarray(array).tobytes())]
    wide = np.complex128 if np.iscomplexobj(array) else np.float64
    flat = array.astype(wide).ravel()
    places = np.arange(flat.size)
    with np.errstate(invalid="ignore", over="ignore"):
        size = float(np.linalg.norm(flat))
        along = complex(np.sum(flat * np.exp(1j * places)))
    return [*kind, size, along.real, along.imag]


def same(one: Any, other: Any, texts: bool = True) -> bool:
    """Whether two entries of a fingerprint are of the same run.

    Args:
        one: as JSON.
        other: as JSON.
        texts: whether the texts of programs count: those of two versions of JAX may differ.
    """
    if isinstance(one, dict) and isinstance(other, dict):
        names = (set(one) | set(other)) - (set() if texts else {"program"})
        return all(same(one.get(name), other.get(name), texts) for name in names)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return False
        numbers = [x for x in (*one, *other) if isinstance(x, float) and math.isfinite(x)]
        slack = 1e-5 * max(map(abs, numbers), default=0.0)
        return all(
            abs(a - b) <= slack
            if isinstance(a, float) and isinstance(b, float) and math.isfinite(a - b)
            else same(a, b, texts)
            for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return one == other


class Keeper:
    """Writes the record of a run to a file now and then, and in any case at the end.

    While it is open no other process may write the same file, and a request to end (SIGTERM) ends
    the run as an error does: with the record written.

    Args:
        path: the file, or None to keep nothing.
        fingerprint: what decides the result of the run, by name, as JSON.
        changed: what to do with a file whose fingerprint differs.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, fingerprint: dict[str, Any], changed: Changed
    ) -> None:
        self.path: Path | None = None if path is None else Path(path)
        self._fingerprint = {"jax": jax.__version__, **fingerprint}
        self._changed = changed
        self._unsaved: tuple[Any, dict[str, Any]] | None = None
        self._last = time.perf_counter()
        self._open = contextlib.ExitStack()

    def found(self, like: PyTree, steps: int) -> tuple[Any, dict[str, Any]] | None:
        """The arrays of the file in a tree like this one, and its numbers; None to start anew.

        Raises:
            InputError: the file is of another run, and `changed` is "refuse"; or of no run at all.
        """
        if self.path is None or not self.path.exists():
            return None
        kept = store.metadata(self.path)
        numbers, had = kept.get("record"), kept.get("run")
        if numbers is None or had is None:
            raise InputError(f"{self.path} is not the checkpoint of a run: name another file.")
        texts = had.get("jax") == self._fingerprint["jax"]
        different = [
            name.replace("_", " ")
            for name, value in self._fingerprint.items()
            if name != "jax" and name in had and not same(had[name], value, texts)
        ]
        if numbers["step"] > steps:
            different.append(f"number of steps ({numbers['step']} made, steps={steps} asked for)")
        if different and self._changed == "restart":
            return None
        if different and self._changed == "refuse":
            *most, last = different
            named = f"{', '.join(most)} and {last}" if most else last
            raise InputError(
                f"{self.path} is the checkpoint of a run with another {named}: "
                "give what that run was given, name another file, delete this one, or say "
                'changed="restart" (start anew, over this file) or changed="continue" (go on from '
                "it with what is given now)."
            )
        return store.load(self.path, like), numbers

    def offer(self, tree: PyTree, numbers: dict[str, Any]) -> None:
        """What to write when the time has come."""
        self._unsaved = tree, numbers
        if time.perf_counter() - self._last > BETWEEN_SAVES:
            self._save()

    def __enter__(self) -> "Keeper":
        if self.path is not None:
            _check_place(self.path)
            with contextlib.ExitStack() as opened:
                opened.enter_context(_alone(self.path))
                opened.enter_context(_ended_by_terminate())
                self._open = opened.pop_all()
            _remove_drafts(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        with self._open:
            self._save()

    def _save(self) -> None:
        if self.path is not None and self._unsaved is not None:
            tree, numbers = self._unsaved
            try:
                store.save(self.path, tree, run=self._fingerprint, record=numbers)
            except OSError as error:
                # A full disk must not cost what was trained: the next writing may succeed.
                warnings.warn(
                    f"the checkpoint {self.path} was not written ({error}); training goes on "
                    "without it, and what was written before is still there.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                self._last = time.perf_counter()
                return
        self._unsaved = None
        self._last = time.perf_counter()


def _check_place(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"checkpoint={str(path)!r} is a folder: name a file in it, as run.npz.")
    if not path.parent.is_dir():
        raise InputError(f"checkpoint={str(path)!r}: there is no folder {path.parent}.")
    if tensor_file.is_one(path):
        tensor_file.package()  # missed now, and not when the first hours are to be written


def _remove_drafts(path: Path) -> None:
    """Removes what a run that was killed while it wrote has left beside the file."""
    path = path.resolve()
    draft = re.compile(re.escape(f".{path.name}.") + r"[0-9a-f]+\.part")
    for file in path.parent.iterdir():
        if draft.fullmatch(file.name):
            with contextlib.suppress(OSError):  # not ours to remove
                file.unlink()


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a lock on the file, which ends with the process at the latest.

    Where a system or a file system has no such locks nothing is held.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    path = path.resolve()
    place = path.with_name(f".{path.name}.lock")
    while True:
        try:
            file = open(place, "a")  # noqa: SIM115
        except OSError:  # a folder that cannot be written: saving will say so
            yield
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(
                f"another run is writing the checkpoint {path} at this moment: wait for it, or "
                "name another file."
            ) from None
        except OSError:
            break
        # Whoever held it before may have removed the file between our opening and our locking it.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), place.stat()):
                break
        file.close()
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        file.close()


@contextlib.contextmanager
def _ended_by_terminate() -> Iterator[None]:
    """Turns a request to end into `SystemExit`, unless the program has its own answer to it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _abstract(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _arrays(tree: PyTree) -> PyTree:
    return eqx.filter(tree, eqx.is_array)
