"""Files and folders that appear whole or not at all."""

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from .errors import InputError


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part.

    Args:
        path: the file; it is replaced if it exists. Its folder must exist.
        data: the whole content.

    Raises:
        OSError: the file cannot be written; whatever stood at `path` is still there.
    """
    path = Path(path).resolve()
    draft = _sibling(path)
    try:
        with open(draft, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text in UTF-8 as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def folder(path: str | os.PathLike[str]) -> "contextlib.AbstractContextManager[Path]":
    """A folder that is filled under another name and appears at `path` when it is complete.

    Use it as `with folder(path) as draft:` and write into `draft`. If the block raises, nothing is
    left behind. A folder that exists keeps its other files: the new ones are moved in one by one,
    each replacing its namesake whole.

    Args:
        path: the folder to make. Missing parents are made.

    Raises:
        InputError: `path`, or something on the way to it, is a file.
        OSError: the folder cannot be written.
    """
    path = Path(path).resolve()
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise InputError(
                    f"{place} is a file, so the folder {path} cannot be made: choose another name."
                )
            break
    return _filled(path)


@contextlib.contextmanager
def _filled(path: Path) -> Iterator[Path]:
    missing = [place for place in path.parents if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _sibling(path)
    try:
        draft.mkdir()
        yield draft
        for file in draft.rglob("*"):
            if file.is_file():
                with open(file, "rb+") as opened:
                    os.fsync(opened.fileno())
        if path.exists():
            _move_into(draft, path)
        else:
            os.replace(draft, path)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        for place in missing:
            with contextlib.suppress(OSError):  # somebody else has put a file there meanwhile
                place.rmdir()
        raise
    _sync(path.parent)


def _move_into(draft: Path, path: Path) -> None:
    for source in sorted(draft.rglob("*")):
        target = path / source.relative_to(draft)
        if source.is_dir():
            target.mkdir(exist_ok=True)
        else:
            os.replace(source, target)
    shutil.rmtree(draft)
    _sync(path)


def _sibling(path: Path) -> Path:
    # In the same folder, so that the rename stays within one file system.
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")


def _sync(directory: Path) -> None:
    # Makes the rename itself durable; other systems do not open folders.
    if os.name == "posix":
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
