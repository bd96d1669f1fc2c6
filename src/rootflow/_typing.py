"""Types for annotations that are the same when the program runs and when it is checked."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeAliasType, TypeVar

    _Leaf = TypeVar("_Leaf", default=Any)

    # jaxtyping's own is unresolvable to a checker on purpose, as no type means "any tree with such
    # leaves"; in strict mode everything that touches it is then of unknown type. This is `Any`
    # with or without the type of the leaves, which is for the reader.
    PyTree = TypeAliasType("PyTree", Any, type_params=(_Leaf,))
else:
    from jaxtyping import PyTree as PyTree
