"""A pytree in a file of numbers: names, shapes and types are checked, nothing is executed."""

import difflib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import _atomic
from .._typing import PyTree
from ..errors import InputError
from . import foreign, tensor_file

_FORMAT = 1
_HEADER = "rootflow"
_PYTHON = (bool, int, float, complex)
_NUMBERS = (jax.ShapeDtypeStruct, jax.Array, np.ndarray, np.generic, *_PYTHON)

Names = Mapping[str, str | None] | Callable[[str], str | None]
Axes = Mapping[str, Sequence[int]] | Callable[[str], Sequence[int] | None]


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
        arrays: by dotted name; keys as the numbers they are made of.
        kinds: what the leaf was: a type, or a key.
        metadata: what was saved beside them.
        ours: whether `save` wrote it, so that it has every number of the tree.
    """

    arrays: dict[str, np.ndarray]
    kinds: dict[str, str]
    metadata: dict[str, Any]
    ours: bool


def save(path: str | os.PathLike[str], tree: PyTree, **metadata: Any) -> None:
    """Writes the numbers of a pytree to a file, whole or not at all.

    Arrays, PRNG keys and Python numbers are kept, each under its dotted path in the tree
    (`layers.0.weight`); functions, strings and the structure itself are not: they come from the
    tree that is given to `load`.

    Args:
        path: the file; it is replaced if it exists. Its folder must exist. A name that ends in
            `.safetensors` asks for that format, which PyTorch and others read (needs
            `pip install 'rootflow[safetensors]'`; complex numbers are pairs of real ones in it);
            any other name for `.npz`, which NumPy opens without pickle.
        tree: any pytree, for example an Equinox module.
        **metadata: what else to keep, as JSON: read it with `rootflow.training.metadata`.

    Raises:
        InputError: two leaves have one name, `metadata` is not JSON, or the package is missing.
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
    written = tensor_file.encode if tensor_file.is_one(path) else _npz
    _atomic.write_bytes(path, written(entries, {_HEADER: header}))


def load(
    path: str | os.PathLike[str] | Mapping[str, Any],
    like: PyTree,
    *,
    names: Names | None = None,
    transpose: Axes | None = None,
    cast: bool = False,
) -> PyTree:
    """Reads what `save` wrote, or weights that others wrote, into a pytree.

    Weights of others are the arrays of `like` alone: its Python numbers and keys stay as they are,
    and axes of length one are added or dropped where a shape asks for it (the bias of a
    convolution). Square matrices fit either way round: say by `transpose` which are to be turned.

    Args:
        path: the file, or a folder, as `rootflow.training.read_weights` has it; or what that has
            returned.
        like: a tree of the structure, shapes and types that were saved; its numbers do not matter,
            its functions and strings are kept. `jax.ShapeDtypeStruct` leaves will do (as
            `eqx.filter_eval_shape` makes them).
        names: from the names in the file to the dotted paths in `like`, as `save` writes them: a
            dictionary (names that are not in it stay) or a function. None as the new name leaves
            an array out.
        transpose: the axes, in their new order, of the arrays that are to be transposed, by their
            names in `like`: a dictionary, or a function that returns None for the others. The
            kernel of a Flax `Dense` is the weight of an `eqx.nn.Linear` by `(1, 0)`.
        cast: convert to the types of `like`, between floating-point types, complex types or
            integers, where every number still has a place.

    Returns:
        `like` with the numbers of the file.

    Raises:
        InputError: no such file, a file of another kind, or one that does not fit `like`: the
            message names the first leaf that differs; a name or axes that nothing has; a number
            too large for the type it is cast to; a package that is not installed.
    """
    if isinstance(path, Mapping):
        kept, path = _of_others(foreign.flattened(path)), "the weights"
    else:
        kept = read(Path(path))
    kept = _renamed(path, kept, names)
    wanted = {name: leaf for name, leaf in _numbers(like) if kept.ours or _is_array(leaf)}
    _check_names(path, kept, wanted)
    turned = _transposed(path, kept, wanted, transpose)
    values = {
        name: _restored(path, name, turned[name], kept.kinds[name], leaf, cast, kept.ours)
        for name, leaf in wanted.items()
    }
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    return jax.tree_util.tree_unflatten(
        structure, [values.get(_name(place), leaf) for place, leaf in leaves]
    )


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the weights in a file or folder, whoever wrote them.

    Args:
        path: by its name and content a `.safetensors` file (PyTorch, diffusers, transformers; needs
            `pip install 'rootflow[safetensors]'`) or the `.safetensors.index.json` of a model in
            several of them, a `.msgpack` file of Flax (needs `flax`), a folder of Orbax, of one
            step (needs `orbax-checkpoint`), or an `.npz` file of `rf.save`. Files that hold pickles
            are refused.

    Returns:
        Nested dictionaries of NumPy arrays; names with dots are divided at them, lists are
        dictionaries by place (`"0"`, `"1"`). To be looked at, changed, and given to `rf.load`.

    Raises:
        InputError: no such file, a file of another kind or one that is cut off, or the package that
            reads it is not installed.
    """
    return foreign.nested(read(Path(path)).arrays, path)


def metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What was saved beside the numbers, as keyword arguments of `save`.

    Of a `.safetensors` file of others the text that it holds, by name.

    Raises:
        InputError: no such file, or a file of another kind.
    """
    return read(Path(path)).metadata


def read(path: Path) -> Stored:
    """What is in a file of any kind that is known.

    Raises:
        InputError: no such file, or a file of another kind.
    """
    arrays = foreign.read(path)
    if arrays is not None:
        return _of_others(arrays)
    safe = tensor_file.is_one(path)
    try:
        arrays, texts = tensor_file.decode(path) if safe else _from_npz(path)
        if safe and _HEADER not in texts:
            return _of_others(arrays)._replace(metadata=texts)
        header = json.loads(texts[_HEADER])
        kinds = header["kinds"]
        if header["format"] != _FORMAT or set(arrays) != set(kinds):
            raise ValueError("format")
        arrays = {name: _unpacked(array, kinds[name]) for name, array in arrays.items()}
    except (ValueError, TypeError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not a file written by rootflow.save (or it is damaged): {error}."
        ) from None
    return Stored(arrays, kinds, header["metadata"], True)


def _of_others(arrays: dict[str, np.ndarray]) -> Stored:
    return Stored(arrays, {name: a.dtype.name for name, a in arrays.items()}, {}, False)


def _npz(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> bytes:
    buffer = io.BytesIO()
    # The arrays are kept under a prefix, so that no leaf can hide the header. Those of bfloat16
    # and its like, which NumPy's format does not know, as integers.
    packed = {
        f"/{k}": v.view(f"u{v.dtype.itemsize}") if v.dtype.kind == "V" else v
        for k, v in arrays.items()
    }
    everything: Any = {k: np.array(v) for k, v in texts.items()} | packed
    np.savez(buffer, **everything)
    return buffer.getvalue()


def _from_npz(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    with np.load(path, allow_pickle=False) as file:
        entries = dict(file)
    texts = {_HEADER: str(entries.pop(_HEADER))}
    if any(not name.startswith("/") for name in entries):
        raise ValueError("format")
    return {name[1:]: array for name, array in entries.items()}, texts


def _unpacked(array: np.ndarray, kind: str) -> np.ndarray:
    return array if kind.startswith("key ") else tensor_file.restored(array, kind)


def _renamed(path: Any, kept: Stored, names: Names | None) -> Stored:
    if names is None:
        return kept
    if isinstance(names, Mapping):
        _check_known(path, "names", names, kept.arrays, "the file")
        given = {name: names.get(name, name) for name in kept.arrays}
    else:
        given = {name: names(name) for name in kept.arrays}
    arrays, kinds, origin = {}, {}, {}
    for old, new in given.items():
        if new is None:
            continue
        if not isinstance(new, str):
            raise InputError(f"names: the new name of {old!r} is {new!r}; give text, or None.")
        if new in arrays:
            raise InputError(f"names: {origin[new]!r} and {old!r} would both be {new!r}.")
        arrays[new], kinds[new], origin[new] = kept.arrays[old], kept.kinds[old], old
    return kept._replace(arrays=arrays, kinds=kinds)


def _check_known(path, option: str, given, known, where: str) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), list(known), 3, 0.4) or sorted(known)[:3]
            raise InputError(
                f"{option}: {where} has no {name!r} ({path}); there are "
                f"{', '.join(map(repr, near))}{' ...' if len(known) > len(near) else ''}."
            )


def _check_names(path, kept: Stored, wanted) -> None:
    missing = [name for name in wanted if name not in kept.kinds]
    extra = [name for name in kept.kinds if name not in wanted]
    if not missing and not extra:
        return
    found = [f"lacks {missing[0]!r}"] if missing else []
    if extra and (not missing or not kept.ours):
        found.append(f"has {extra[0]!r}, which the tree lacks")
    way_out = (
        "Build the tree with the options it was saved with."
        if kept.ours
        else "Say by names= which array goes where, with None for those to be left out."
    )
    raise InputError(
        f"{path} does not fit the tree it is read into: the file {' and '.join(found)} "
        f"({len(kept.kinds)} leaves in the file, {len(wanted)} in the tree). {way_out}"
    )


def _transposed(path, kept: Stored, wanted, transpose: Axes | None) -> dict[str, np.ndarray]:
    if transpose is None:
        return kept.arrays
    if isinstance(transpose, Mapping):
        _check_known(path, "transpose", transpose, wanted, "the tree")
        axes = {name: transpose.get(name) for name in wanted}
    else:
        axes = {name: transpose(name) for name in wanted}
    turned = dict(kept.arrays)
    for name, order in axes.items():
        if order is None:
            continue
        array = turned[name]
        if sorted(order) != list(range(array.ndim)):
            raise InputError(
                f"transpose: {name!r} has the shape {array.shape}, whose axes cannot be put in the "
                f"order {tuple(order)}."
            )
        turned[name] = array.transpose(order)
    return turned


def _numbers(tree):
    for place, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if isinstance(leaf, _NUMBERS):
            yield _name(place), leaf


def _name(place) -> str:
    return jax.tree_util.keystr(place, simple=True, separator=".") or "value"


def _is_key(leaf) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_array(leaf) -> bool:
    return not isinstance(leaf, _PYTHON) and not _is_key(leaf)


def _stored(leaf) -> tuple[np.ndarray, str]:
    if _is_key(leaf):
        return np.asarray(jax.random.key_data(leaf)), f"key {jax.random.key_impl(leaf)}"
    array = np.asarray(leaf)
    return array, array.dtype.name


def _restored(path, name: str, array: np.ndarray, kind: str, leaf, cast: bool, ours: bool):
    def refuse(what, found, wanted, way_out=""):
        way_out = way_out or (
            "Build the tree with the options it was saved with." if ours else "Look at names=."
        )
        raise InputError(
            f"{path} does not fit the tree it is read into: {name!r} has {what} {found} in the "
            f"file and {wanted} in the tree. {way_out}"
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
        if ours or _long(array.shape) != _long(leaf.shape):
            turned = array.shape == leaf.shape[::-1] and not ours
            refuse("shape", array.shape, leaf.shape, "Look at transpose=." if turned else "")
        array = array.reshape(leaf.shape)
    wanted = np.dtype(leaf.dtype).newbyteorder("=")
    if array.dtype != wanted:
        if not cast:
            way_out = "" if ours else "Convert it by cast=True."
            refuse("type", kind, wanted.name, way_out)
        array = _cast(path, name, array, wanted)
    if isinstance(leaf, np.ndarray | np.generic):
        return array.astype(leaf.dtype, copy=False)
    return jnp.asarray(array)


def _long(shape: Sequence[int]) -> list[int]:
    """The axes that are not of length one."""
    return [n for n in shape if n != 1]


def _cast(path, name: str, array: np.ndarray, wanted: np.dtype) -> np.ndarray:
    kinds = (jnp.floating, jnp.complexfloating, jnp.integer)
    if not any(jnp.issubdtype(array.dtype, k) and jnp.issubdtype(wanted, k) for k in kinds):
        raise InputError(f"{path}: {name!r} of {array.dtype.name} cannot be cast to {wanted.name}.")
    with np.errstate(over="ignore"):
        found = array.astype(wanted)
    lost = (
        found.astype(array.dtype) != array
        if jnp.issubdtype(wanted, jnp.integer)
        else np.isfinite(array) & ~np.isfinite(found)
    )
    if lost.any():
        raise InputError(
            f"{path}: {name!r} holds {array[lost][0]}, which is too large for {wanted.name}."
        )
    return found
