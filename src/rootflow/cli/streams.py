"""What the command prints: to terminals, pipes and files of any encoding, and what if they fail.

A reader that goes away (`| head`) and a disk that fills up (`> /dev/full`) are no reason to stop a
computation, or to say of its results what is not true. So the two standard streams are given a
bottom that keeps the first failure and takes everything after it in silence; the command line looks
at it when all is done.
"""

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import typer

#: What stands for the characters that rootflow prints where an encoding lacks them.
_INSTEAD = {"∞": "inf", "–": "-", "±": "+-", "…": "..."}


class _Outlet(io.RawIOBase):
    """Writes to `raw` until that fails; then it takes everything and forgets it."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.failure: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int | None:
        if self.failure is None:
            try:
                return self.raw.write(data)
            except OSError as error:
                self.failure = error
        return len(data)

    def fileno(self) -> int:
        return self.raw.fileno()

    def isatty(self) -> bool:
        return self.raw.isatty()


def prepare() -> None:
    """Gives standard output and standard error their new bottoms and a way to spell anything."""
    codecs.register_error("rootflow", _spelled)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer if isinstance(buffer, io.RawIOBase) else None)
        if raw is None or isinstance(raw, _Outlet):
            continue
        stream.flush()
        writer = io.BufferedWriter(_Outlet(raw))
        text = io.TextIOWrapper(
            writer, stream.encoding, errors="rootflow", line_buffering=raw.isatty()
        )
        setattr(sys, name, text)


def finish(code: Any) -> Any:
    """Flushes the streams and says what could not be printed.

    Returns:
        The exit code: `code`, or 1 if standard output failed otherwise than by a reader who had
        seen enough.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    outlet = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    failure = getattr(outlet, "failure", None)
    if failure is None or isinstance(failure, BrokenPipeError) or failure.errno == errno.EINVAL:
        return code
    reason = failure.strerror or failure
    typer.echo(f"Standard output could not be written ({reason}).", err=True)
    return code or 1


def _spelled(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_INSTEAD.get(character, "?") for character in lacking), error.end


def plain(text: str) -> str:
    """Text as it may go to a terminal: no control characters but the ends of lines."""
    return "".join(c if c.isprintable() or c == "\n" else " " if c.isspace() else "?" for c in text)


def folder(out: Path) -> None:
    """Makes the folder for the results, before there are any.

    Raises:
        InputError: it cannot be made, or may not be written to.
    """
    from ..errors import InputError

    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"{out}: the results cannot be written there ({error.strerror or error}). Name another "
            "folder with --out."
        ) from None


def refuse(message: str, code: int = 2) -> NoReturn:
    """Ends the command with a message: exit code 2 where arguments or files cannot be used."""
    typer.echo(f"Error: {plain(message)}", err=True)
    raise typer.Exit(code)


@contextlib.contextmanager
def all_or_nothing(out: Callable[[], Any]) -> Iterator[None]:
    """Ends a command that writes its folder at once, where it cannot: with a message, not a trace.

    Args:
        out: says which folder, which may be known only on the way.
    """
    from ..errors import RootflowError

    try:
        yield
    except RootflowError as error:
        refuse(str(error))
    except OSError as error:
        refuse(f"{out()}: the results cannot be written ({error.strerror or error}). Name another "
               "folder with --out.")  # fmt: skip
    except KeyboardInterrupt:
        typer.echo("Interrupted; nothing is written.", err=True)
        raise typer.Exit(130) from None
