"""A pytree in a file of numbers: names, shapes and types are checked, nothing is executed."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .. import _atomic
from ..errors import InputError

_FORMAT = 1
_HEADER = "rootflow"
_PYTHON = (bool, int, float, complex)
_NUMBERS = (jax.ShapeDtypeStruct, jax.Array, np.ndarray, np.generic, *_PYTHON)


def save(path: str | os.PathLike, tree: PyTree, **metadata: Any) -> None:
    """Writes the numbers of a pytree to an `.npz` file, whole or not at all.

    Arrays, PRNG keys and Python numbers are kept; functions, strings and the structure itself are
    not: they come from the tree that is given to `load`. NumPy opens the file without pickle.

    Args:
        path: the file; it is replaced if it exists. Its folder must exist.
        tree: any pytree, for example an Equinox module.
        **metadata: what else to keep, as JSON: read it with `rootflow.training.metadata`.

    Raises:
        InputError: two leaves have one name, or `metadata` is not JSON.
        OSError: the file cannot be written; what stood there is still there.
    """
    entries: dict[str, np.ndarray] = {}
    kinds: dict[str, str] = {}
    for name, leaf in _numbers(tree):
        if name in entries:
            raise InputError(f"two leaves of the tree are called {name!r}: rename one of them.")
        entries[name], kinds[name] = _stored(leaf)
    try:
        header = json.dumps({"format": _FORMAT, "kinds": kinds, "metadata": metadata})
    except (TypeError, ValueError) as error:
        raise InputError(f"the metadata cannot be written as JSON: {error}.") from None
    buffer = io.BytesIO()
    # The arrays are kept under a prefix, so that no leaf can hide the header.
    arrays: Any = {_HEADER: np.array(header)} | {f"/{k}": v for k, v in entries.items()}
    np.savez(buffer, **arrays)
    _atomic.write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike, like: PyTree) -> PyTree:
    """Reads what `save` wrote into a pytree of the same structure.

    Args:
        path: the file.
        like: a tree of the structure, shapes and types that were saved; its numbers do not matter,
            its functions and strings are kept. `jax.ShapeDtypeStruct` leaves will do (as
            `eqx.filter_eval_shape` makes them).

    Returns:
        `like` with the numbers of the file.

    Raises:
        InputError: no such file, a file of another kind, or one that does not fit `like`: the
            message names the first leaf that differs.
    """
    header, entries = _read(path)
    kinds = header["kinds"]
    wanted = dict(_numbers(like))
    missing = [name for name in wanted if name not in kinds]
    extra = [name for name in kinds if name not in wanted]
    if missing or extra:
        found = f"lacks {missing[0]!r}" if missing else f"has {extra[0]!r}, which the tree lacks"
        raise InputError(
            f"{path} does not fit the tree it is read into: the file {found} "
            f"({len(kinds)} leaves in the file, {len(wanted)} in the tree). "
            "Build the tree with the options it was saved with."
        )
    values = {
        name: _restored(path, name, entries[f"/{name}"], kinds[name], leaf)
        for name, leaf in wanted.items()
    }
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(
        structure, [values.get(_name(place), leaf) for place, leaf in leaves]
    )


def metadata(path: str | os.PathLike) -> dict[str, Any]:
    """What was saved beside the numbers, as keyword arguments of `save`.

    Raises:
        InputError: no such file, or a file of another kind.
    """
    return _read(path)[0]["metadata"]


def _read(path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            entries = dict(file)
        header = json.loads(str(entries.pop(_HEADER)))
        kinds = header["kinds"]
        if header["format"] != _FORMAT or set(entries) != {f"/{name}" for name in kinds}:
            raise ValueError("format")
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a file written by rootflow.save (or it is damaged): {error}."
        ) from None
    return header, entries


def _numbers(tree):
    for place, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, _NUMBERS):
            yield _name(place), leaf


def _name(place) -> str:
    return jax.tree_util.keystr(place, simple=True, separator=".") or "value"


def _is_key(leaf) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _stored(leaf) -> tuple[np.ndarray, str]:
    if _is_key(leaf):
        return np.asarray(jax.random.key_data(leaf)), f"key {jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    kind = array.dtype.name
    if array.dtype.kind == "V":  # bfloat16 and its like, which NumPy's format does not know
        array = array.view(f"u{array.dtype.itemsize}")
    return array, kind


def _restored(path, name: str, array: np.ndarray, kind: str, leaf):
    def refuse(what, found, wanted):
        raise InputError(
            f"{path} does not fit the tree it is read into: {name!r} has {what} {found} in the "
            f"file and {wanted} in the tree. Build the tree with the options it was saved with."
        )

    if kind.startswith("key ") or _is_key(leaf):
        implementation = f"key {jax.random.key_impl(leaf)}" if _is_key(leaf) else "no key"
        if kind != implementation:
            refuse("the kind", kind, implementation)
        return jax.random.wrap_key_data(jnp.asarray(array), impl=kind.removeprefix("key "))
    if isinstance(leaf, _PYTHON):
        if array.shape != () or not isinstance(array.item(), type(leaf)):
            refuse("the type", f"{kind}{list(array.shape)}", type(leaf).__name__)
        return array.item()
    if array.shape != leaf.shape:
        refuse("shape", array.shape, leaf.shape)
    if kind != np.dtype(leaf.dtype).name:
        refuse("type", kind, np.dtype(leaf.dtype).name)
    array = array.view(leaf.dtype)
    return array if isinstance(leaf, np.ndarray | np.generic) else jnp.asarray(array)
