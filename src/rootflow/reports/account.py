"""What a result says of itself: a few lines for a terminal, the same with a picture for a notebook.

Results of every layer give an `Account`, words and panels to draw; nothing here draws. The picture
of a notebook is made by `reports.plots`, which is asked for by name when one is shown: what solves
equations does not depend on a plotting library.
"""

import base64
import textwrap
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..errors import RootflowError
from .formats import shown
from .panels import Panel

_WIDTH = 96
#: So many components are named, and written as numbers.
MANY = 6


class Account(NamedTuple):
    """What a result says of itself.

    Attributes:
        title: what it is, and how it ended.
        lines: pairs of a word and what there is to say to it.
        panels: what to draw, made when it is drawn; None where the numbers are not known.
        table: rows of the main table, the titles first; it stands before the lines.
    """

    title: str
    lines: tuple[tuple[str, str], ...]
    panels: Callable[[], Sequence[Panel]] | None = None
    table: Sequence[Sequence[str]] = ()


def as_text(account: Account) -> str:
    """The account in lines for a terminal."""
    rows = [account.title]
    for row in _aligned(account.table):
        rows.append(f"  {row}".rstrip())
    width = max((len(word) for word, _ in account.lines), default=0)
    for word, said in account.lines:
        first = f"  {word:<{width}}  "
        rows += textwrap.wrap(
            said, _WIDTH, initial_indent=first, subsequent_indent=" " * len(first)
        ) or [first.rstrip()]
    return "\n".join(rows)


def as_html(account: Account) -> str:
    """The account for a notebook, with its picture."""
    head, *rows = account.table or [()]
    parts = [f"<strong>{escape(account.title)}</strong>"]
    if rows:
        parts.append(html_table(head, [[escape(cell) for cell in row] for row in rows]))
    cell = '<td style="text-align:left;vertical-align:top">'
    lines = "".join(
        f"<tr>{cell}{escape(word)}</td>{cell}{escape(said)}</td></tr>"
        for word, said in account.lines
    )
    parts.append(f"<table><tbody>{lines}</tbody></table>{picture(account)}")
    return f"<div>{''.join(parts)}</div>"


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells whose text is escaped already."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table>"


def picture(account: Account) -> str:
    """The picture as an image in the page; empty where there is nothing to draw.

    Where what is to be drawn cannot be computed, the reason: a notebook shows the words all the
    same.
    """
    try:
        panels = account.panels() if account.panels is not None else ()
    except RootflowError as error:
        return f"<p>No picture: {escape(str(error))}</p>"
    if not panels:
        return ""
    content = import_module("rootflow.reports.plots").small(panels)
    encoded = base64.b64encode(content).decode("ascii")
    return f'<img alt="{escape(account.title, quote=True)}" src="data:image/png;base64,{encoded}">'


def known(tree: Any) -> bool:
    """Whether all leaves are numbers that can be looked at here and now.

    Those of a traced computation, of another process and of a buffer that was given away cannot.
    """
    return all(_known(leaf) for leaf in jax.tree.leaves(tree))


def _known(leaf: Any) -> bool:
    if isinstance(leaf, jax.Array):
        if isinstance(leaf, Tracer) or leaf.is_deleted() or not leaf.is_fully_addressable:
            return False
        return not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    return isinstance(leaf, np.ndarray | np.generic | bool | int | float | complex)


def is_array(leaf: Any) -> bool:
    """Whether it has a shape and a type: an array, a tracer, or what stands for one."""
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def numbers(leaf: Any) -> np.ndarray:
    """A known array as NumPy can compute with it; half precision as single."""
    array = np.asarray(leaf)
    narrow = array.dtype.kind == "V" or array.dtype == np.float16
    return array.astype(np.float32) if narrow else array


def named(tree: Any, alone: str = "y") -> dict[str, Any]:
    """The leaves of a tree by their dotted paths; a tree that is a leaf is called `alone`."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(place, simple=True, separator=".") or alone: leaf
        for place, leaf in leaves
    }


def kind(leaf: Any) -> str:
    """`float64[101, 3]`."""
    if not is_array(leaf):
        return type(leaf).__name__
    sizes = ", ".join(map(str, leaf.shape))
    return f"{leaf.dtype}[{sizes}]" if leaf.shape else str(leaf.dtype)


def kinds(leaves: Mapping[str, Any]) -> str:
    """What the leaves are: `x float64[101], v float64[101]`, at most six of them."""
    words = [f"{name} {kind(leaf)}" for name, leaf in list(leaves.items())[:MANY]]
    return ", ".join(words + _more(len(leaves) - len(words))) or "nothing"


def components(name: str, shape: tuple[int, ...]) -> list[str]:
    """Names of the numbers of an array: `v`, or `v[0]`, `v[1]`, ..."""
    return [
        f"{name}[{','.join(map(str, place))}]" if place else name for place in np.ndindex(shape)
    ]


def values(leaves: Mapping[str, Any]) -> str:
    """The numbers themselves where they are few, else where they lie."""
    words = []
    for name, leaf in list(leaves.items())[:MANY]:
        array = numbers(leaf)
        if array.size <= MANY:
            flat = zip(components(name, array.shape), array.ravel(), strict=True)
            words += [f"{place} = {number(x)}" for place, x in flat]
        else:
            words.append(f"{name} {reach(array)}")
    return ", ".join(words[: 2 * MANY] + _more(len(leaves) - MANY))


def number(x: Any) -> str:
    """One number with four digits."""
    if isinstance(x, bool | np.bool_):
        return str(bool(x))
    x = complex(x)
    if x.imag == 0:
        return shown(x.real)
    imaginary = shown(abs(x.imag))
    return f"{shown(x.real)} {'-' if x.imag < 0 else '+'} {imaginary}j"


def reach(array: np.ndarray) -> str:
    """From where to where the numbers go, and how many of them are not finite."""
    if np.iscomplexobj(array):
        return f"of size {reach(np.abs(array))}"
    finite = array[np.isfinite(array)]
    lost = array.size - finite.size
    said = (
        f"{number(finite.min())} to {number(finite.max())}" if finite.size else "no finite number"
    )
    return f"{said} ({lost} of {array.size} not finite)" if lost else said


def span(array: Any) -> str:
    """Whole numbers of one solve or of a batch: `84`, or `40 to 84`."""
    array = np.asarray(array)
    if not array.size:
        return "0"
    low, high = array.min(), array.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _more(count: int) -> list[str]:
    return [f"and {count} more"] if count > 0 else []


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    if not table:
        return []
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in table]
