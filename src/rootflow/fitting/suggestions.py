"""What may have been meant by a name that is not known."""

import difflib
from collections.abc import Iterable

#: Names that are compared for what may have been meant: how long, and how many.
_LONGEST, _MOST = 100, 1000


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The sentence " Did you mean ...?" naming what is close to `name`, or an empty string."""
    if len(str(name)) > _LONGEST:  # comparing takes the square of the length
        return ""
    near = sorted({str(word) for word in known if len(str(word)) <= _LONGEST})[:_MOST]
    folded = {word.casefold(): word for word in near}
    close = difflib.get_close_matches(str(name).casefold(), list(folded), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(repr(folded[match]) for match in close)}?" if close else ""
