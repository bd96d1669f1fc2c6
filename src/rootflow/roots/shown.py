"""What a root, a fixed point or a minimum says of itself."""

from typing import TYPE_CHECKING

import numpy as np

from ..reports.account import Account, is_array, kinds, known, named, numbers, span, values
from ..reports.formats import shown
from ..reports.panels import profiles

if TYPE_CHECKING:
    from .iterate import Solution


def account(found: "Solution") -> Account | None:
    """The account of a solution; None for one whose fields do not stand for arrays."""
    leaves, fields = named(found.value, "x"), (found.converged, found.steps, found.error)
    if not all(is_array(leaf) for leaf in (*leaves.values(), *fields)):
        return None
    title = "Solution of F(x) = 0, x = T(x) or min f(x)"
    more = ("more", ".value, .converged, .steps, .error, .dual, .message; rf.plot(solution)")
    if not known((found.value, fields)):
        return Account(
            f"{title}, known after the computation has run", (("x", kinds(leaves)), more)
        )
    converged = np.asarray(found.converged)
    ended = found.message
    if converged.ndim:
        ended = f"{converged.sum()} of {converged.size} converged, in {span(found.steps)} steps"
    arrays = {name: numbers(leaf) for name, leaf in leaves.items()}
    lines = [("ended", ended), ("x", kinds(leaves)), ("value", values(arrays) or "nothing")]
    error = np.asarray(found.error, float)
    if error.size and np.isfinite(error).all():
        lines.append(("error", f"{shown(float(error.max()))} times the tolerance (estimated)"))
    if found.dual is not None and known(found.dual) and named(found.dual):
        dual = {name: numbers(leaf) for name, leaf in named(found.dual, "dual").items()}
        lines.append(("dual", values(dual)))
    return Account(title, (*lines, more), lambda: profiles(arrays))
