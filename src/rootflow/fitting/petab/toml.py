"""Writing a model file."""

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def written(content: Mapping[str, Any], head: str) -> str:
    """The text of a model file.

    Args:
        content: its tables; a table of tables is written as inline tables, `conditions` as a table
            for each, a list of tables under names in double brackets. Empty ones are left out.
        head: comment at the top.
    """
    parts = ["\n".join(f"# {line}" for line in head.splitlines())]
    for name, table in content.items():
        if not table:
            continue
        if isinstance(table, list):
            parts += [_table(f"[[{name}]]", entry) for entry in table]
        elif name == "conditions":
            parts += [_table(f"[{name}.{_key(label)}]", values) for label, values in table.items()]
        else:
            parts.append(_table(f"[{name}]", table))
    return "\n\n".join(parts) + "\n"


def _table(head: str, entries: Mapping[str, Any]) -> str:
    lines = [f"{_key(name)} = {_value(value)}" for name, value in entries.items()]
    return "\n".join([head, *lines])


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else json.dumps(name)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(k)} = {_value(v)}' for k, v in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
