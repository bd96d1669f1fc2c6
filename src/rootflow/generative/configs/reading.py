"""Reading a scheduler's file: every key is known, or refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ...errors import InputError
from .keys import CHECKS, DEFAULTS, ELSEWHERE, NOTES, WITHOUT_EFFECT

FILE = "scheduler_config.json"


class Config:
    """What a file says, with the defaults of its class where it says nothing.

    Attributes:
        where: how messages name the file.
        name: of the class.
        values: all that the class takes, checked one by one.
        unused: keys of the file that the class does not look at.
    """

    def __init__(self, where: str, name: str, given: Mapping[str, Any]) -> None:
        self.where, self.name = where, name
        defaults = DEFAULTS[name]
        for key in given:
            if key not in defaults and key not in NOTES and key not in ELSEWHERE:
                raise InputError(
                    f"{where}: {name} has no key {key!r} (its value is {given[key]!r:.60}), and no "
                    "other scheduler that is known here: correct it, or take it out if nothing "
                    "depends on it."
                )
        self.values = {key: given.get(key, default) for key, default in defaults.items()}
        for key, value in self.values.items():
            fits, what = CHECKS[key]
            # The defaults of a class pass, also where another value is all that is here.
            if not fits(value):
                self.refuse(key, f"must be {what}.")
        idle = WITHOUT_EFFECT.get(name, set())
        self.unused = {
            key: value
            for key, value in given.items()
            if key not in NOTES and (key not in defaults or key in idle)
        }

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def refuse(self, key: str, why: str) -> NoReturn:
        """Raises `InputError` naming the file, the key and its value."""
        raise InputError(f"{self.where}: {key}={self.values[key]!r:.60} of {self.name} {why}")

    def among(self, key: str, choices: Mapping[Any, Any]) -> Any:
        """What the value of a key stands for; raises `InputError` for any other value."""
        value = self.values[key]
        if value not in choices:
            names = ", ".join("null" if name is None else repr(name) for name in choices)
            self.refuse(key, f"is not here; what is: {names}.")
        return choices[value]


def read(
    source: Any, scheduler: str | None, changes: Mapping[str, Any], elsewhere: Mapping[str, str]
) -> Config:
    """A file, a folder that holds it, or what is in it, as a `Config`.

    Args:
        source: a path, or a mapping.
        scheduler: the class, in the place of that of the file.
        changes: keys in the place of those of the file.
        elsewhere: classes that are not read, and what to do instead.
    """
    where, found = _open(source)
    name = scheduler if scheduler is not None else found.get("_class_name")
    if name is None:
        raise InputError(
            f"{where} has no key '_class_name', which says what scheduler it is for: give "
            "scheduler='DDIMScheduler', or what it is."
        )
    # What was a default when the file was written is the default of whatever class reads it.
    defaults = found.get("_use_default_values") or []
    if not isinstance(defaults, list | tuple):
        raise InputError(
            f"{where}: _use_default_values={defaults!r:.60} must be a list of names of keys."
        )
    given = {key: value for key, value in found.items() if key not in defaults}
    if name in elsewhere:
        raise InputError(f"{where}: {name} is not read here: {elsewhere[name]}")
    if name not in DEFAULTS:
        raise InputError(
            f"{where}: the scheduler {name!r} is not known; what is: {', '.join(sorted(DEFAULTS))}."
        )
    for key in changes:
        if key not in DEFAULTS[name]:
            raise InputError(f"{name} has no key {key!r}: leave out {key}={changes[key]!r:.60}.")
    return Config(where, name, {**given, **changes})


def _open(source: Any) -> tuple[str, dict[str, Any]]:
    if isinstance(source, Mapping):
        return "The configuration", dict(source)
    if not isinstance(source, str | Path):
        raise InputError(
            f"source must be the path of a {FILE}, of a folder that holds one, or a dict; got "
            f"{source!r:.60}."
        )
    path = Path(source)
    for inside in (path / FILE, path / "scheduler" / FILE):
        if path.is_dir() and inside.is_file():
            path = inside
            break
    if path.is_dir():
        raise InputError(f"The folder {path} holds no {FILE}, nor a folder scheduler with one.")
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}.") from error
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON, line {error.lineno}, column {error.colno}: {error.msg}. "
            "Is the file complete?"
        ) from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must hold one object {{...}}; got {text.strip()!r:.60}.")
    return str(path), found
