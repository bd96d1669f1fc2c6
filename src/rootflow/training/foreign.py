"""Weights that only other packages write: files of Flax, folders of Orbax, models in parts."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from . import tensor_file

#: Files that run code when they are read.
_PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
#: What marks the folder of one tree in an Orbax checkpoint.
_ORBAX = "_METADATA"


def read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays in what only others write, by dotted name; None for other files.

    Raises:
        InputError: as `rootflow.training.read_weights` has it.
    """
    if path.suffix in _PICKLES:
        raise InputError(
            f"{path} is a pickle by its name, and reading one may run any program. Where it was "
            "made, write the weights as safetensors: "
            "safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
        )
    if not path.exists():
        raise InputError(f"there is no file {path}.")
    if path.is_dir():
        return flattened(_orbax(path))
    if path.name.endswith(tensor_file.INDEX):
        return tensor_file.decode_parts(path)
    return flattened(_msgpack(path)) if path.suffix == ".msgpack" else None


def flattened(tree: Any) -> dict[str, np.ndarray]:
    """The arrays and numbers in nested dictionaries and lists, by dotted name."""
    found: dict[str, np.ndarray] = {}
    for name, leaf in _leaves(tree, ()):
        if name in found:
            raise InputError(f"two of the weights are called {name!r}: rename one of them.")
        found[name] = np.asarray(leaf)
    return found


def nested(arrays: Mapping[str, np.ndarray], path: Any) -> dict[str, Any]:
    """Dictionaries of dictionaries, from dotted names."""
    tree: dict[str, Any] = {}
    for name, array in arrays.items():
        *way, last = name.split(".")
        branch = tree
        for step in way:
            branch = branch.setdefault(step, {})
            if not isinstance(branch, dict):
                raise InputError(f"{path}: {name!r} lies within an array, that called {step!r}.")
        if isinstance(branch.get(last), dict):
            raise InputError(f"{path}: {name!r} is an array, and the beginning of other names too.")
        branch[last] = array
    return tree


def _leaves(tree: Any, way: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for key, branch in tree.items():
            yield from _leaves(branch, (*way, str(key)))
    elif isinstance(tree, list | tuple):
        for place, branch in enumerate(tree):
            yield from _leaves(branch, (*way, str(place)))
    elif isinstance(tree, bool | int | float | complex) or hasattr(tree, "dtype"):
        yield ".".join(way) or "value", tree


def _msgpack(path: Path) -> Any:
    try:
        from flax.serialization import msgpack_restore  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(f"{path} is a file of Flax, which reads it: pip install flax") from None
    try:
        tree = msgpack_restore(path.read_bytes())
        if not isinstance(tree, dict):
            raise ValueError(f"it holds {type(tree).__name__} in place of a dictionary")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{path} is not a whole file of weights as flax.serialization writes them: {error}"
        ) from None
    return tree


def _orbax(path: Path) -> Any:
    try:
        import jax
        import orbax.checkpoint as ocp  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError(
            f"{path} is a folder, which is read as a checkpoint of Orbax: "
            "pip install orbax-checkpoint"
        ) from None
    folder = _tree_folder(path)
    quiet = logging.getLogger("absl")  # a tree in the folder of a step has no marks of a step
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with ocp.PyTreeCheckpointer() as reader:
            kept = reader.metadata(folder.absolute()).item_metadata.tree
            # As NumPy has them: as JAX arrays they would go to the devices they were saved from.
            each = ocp.RestoreArgs(restore_type=np.ndarray)
            asked = jax.tree.map(lambda _: each, kept)
            return reader.restore(
                folder.absolute(), args=ocp.args.PyTreeRestore(restore_args=asked)
            )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path} is not a whole checkpoint of Orbax: {type(error).__name__}: {error}"
        ) from None
    finally:
        quiet.setLevel(level)


def _tree_folder(path: Path) -> Path:
    """The folder with the tree: `path` itself, or the only one in it."""
    if (path / _ORBAX).is_file():
        return path
    inside = sorted(place.parent for place in path.glob(f"*/{_ORBAX}"))
    if len(inside) == 1:
        return inside[0]
    if inside:
        named = ", ".join(place.name for place in inside)
        raise InputError(f"{path} holds several trees: {named}. Name one of these folders.")
    steps = sorted({place.parent.parent.name for place in path.glob(f"*/*/{_ORBAX}")})
    found = f": it holds the steps {', '.join(steps)}; name the folder of one" if steps else ""
    raise InputError(f"{path} is not the folder of one checkpoint of Orbax{found}.")
