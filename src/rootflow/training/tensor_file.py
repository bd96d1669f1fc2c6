"""Named arrays in a `.safetensors` file, which other frameworks read and write too."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import InputError

SUFFIX = ".safetensors"
#: How the list of the parts of a model in several files is called.
INDEX = SUFFIX + ".index.json"
#: The types of the format by their names in it, as NumPy has them. The newer ones (of four and six
#: bits, complex numbers) are not among them: not every reader knows them.
_TYPES: dict[str, Any] = {
    "BOOL": np.bool_, "U8": np.uint8, "I8": np.int8, "U16": np.uint16, "I16": np.int16,
    "U32": np.uint32, "I32": np.int32, "U64": np.uint64, "I64": np.int64,
    "F16": np.float16, "BF16": jnp.bfloat16, "F32": np.float32, "F64": np.float64,
    "F8_E4M3": jnp.float8_e4m3fn, "F8_E5M2": jnp.float8_e5m2,
}  # fmt: skip
_KNOWN = {np.dtype(kind) for kind in _TYPES.values()}


def is_one(path: Any) -> bool:
    """Whether the name of the file says that it is one."""
    return Path(path).suffix == SUFFIX


def package() -> Any:
    """The package `safetensors`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import safetensors.numpy  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            "A .safetensors file needs the package safetensors: pip install 'rootflow[safetensors]'"
            ". Without it, save to a name that ends in .npz."
        ) from None
    return safetensors


def encode(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """The content of a file. Arrays of a type that the format lacks are kept as what they hold.

    Complex numbers are pairs along a new last axis, the rest unsigned integers; `restored` gives
    them back.
    """
    # In rows: the package would write the memory of an array in columns as if it were in rows.
    plain = {name: np.asarray(_plain(array), order="C") for name, array in arrays.items()}
    return package().numpy.save(plain, metadata=dict(metadata))


def decode(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a file, by name, and its metadata.

    Raises:
        InputError: the file is of another kind, cut off, or has types that JAX lacks.
    """
    content = path.read_bytes()
    module = package()
    try:
        found = module.deserialize(content)
    except module.SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file (cut off, damaged or of another kind): {error}"
        ) from None
    # What the package has accepted: the length of the header, and the header.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    texts = header.get("__metadata__") or {}
    return {name: _array(path, name, entry) for name, entry in sorted(found)}, texts


def decode_parts(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a model in several files, from the list of which array is in which.

    Raises:
        InputError: the list is of another kind, names files elsewhere, or does not hold.
    """
    try:
        homes = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = sorted(set(homes.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not an index of safetensors files: {error!r}") from None
    arrays: dict[str, np.ndarray] = {}
    for file in files:
        part = path.parent / str(file)
        if part.name != file or not is_one(part) or not part.is_file():
            raise InputError(f"{path} names {file!r}, which is no {SUFFIX} file beside it.")
        arrays |= {name: a for name, a in decode(part)[0].items() if homes.get(name) == file}
    missing = [name for name in homes if name not in arrays]
    if missing:
        raise InputError(f"{path} has {missing[0]!r} in {homes[missing[0]]}, which lacks it.")
    return arrays


def restored(array: np.ndarray, kind: str) -> np.ndarray:
    """An array of the type called `kind`, from what `encode` kept of it."""
    dtype = jnp.dtype(kind)
    if array.dtype.newbyteorder("=") == dtype:
        return array.astype(dtype, copy=False)
    if dtype.kind == "c" and array.shape[-1:] == (2,):
        return np.ascontiguousarray(array).view(dtype)[..., 0]
    if dtype.itemsize == array.dtype.itemsize and array.dtype.kind == "u":
        return array.view(dtype)
    raise ValueError(f"an array of {array.dtype} that should be {kind}")


def _plain(array: np.ndarray) -> np.ndarray:
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype in _KNOWN:
        return array
    if array.dtype.kind == "c":
        return np.stack([np.real(array), np.imag(array)], axis=-1)
    return array.view(f"u{array.dtype.itemsize}")


def _array(path: Path, name: str, entry: Mapping[str, Any]) -> np.ndarray:
    kind = entry["dtype"]
    if kind == "C64":
        dtype = np.dtype(np.complex64)
    elif kind in _TYPES:
        dtype = np.dtype(_TYPES[kind])
    else:
        raise InputError(f"{path}: {name!r} is of type {kind}, which NumPy and JAX lack.")
    return np.frombuffer(entry["data"], dtype.newbyteorder("<")).reshape(entry["shape"])
