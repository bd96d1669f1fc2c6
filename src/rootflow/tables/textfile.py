"""Reading the text files that users hand in, with errors that say what to do."""

import os
from pathlib import Path

from ..errors import InputError


def read_text(path: str | os.PathLike[str], *, what: str, limit: int) -> str:
    """The text of a UTF-8 file; a byte-order mark is dropped, line ends are left as they are.

    Args:
        path: the file.
        what: what the file should be, for the messages, such as `"model file"`.
        limit: largest size in bytes; a larger file is refused before it is read.

    Raises:
        InputError: the file does not exist, is no regular file, is too large, cannot be opened or
            is not UTF-8.
    """
    path = Path(path)
    try:
        if not path.exists():
            raise InputError(f"{path}: there is no such file; check the name of the {what}.")
        if path.is_dir():
            raise InputError(f"{path} is a folder; give the {what} itself.")
        if not path.is_file():
            raise InputError(f"{path} is not a regular file; save the {what} on disk first.")
        size = path.stat().st_size
        if size > limit:
            raise InputError(
                f"{path} has {_megabytes(size)}; the limit for a {what} is {_megabytes(limit)}. "
                "Is it the right file?"
            )
        raw = path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: the {what} cannot be read ({reason}).") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = raw[error.start]
        raise InputError(
            f"{path}, line {line}: byte 0x{byte:02x} is not UTF-8 text; "
            f"save the {what} again with the encoding UTF-8."
        ) from error


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
