"""Where the keys of a TOML text stand, and what is wrong with one that cannot be read."""

import re

#: More of a line is not looked at, nor shown.
LONGEST_LINE = 2000

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#\s][^\[\]#]*?)\s*\]")
_KEY = re.compile(r"""\s*("[^"]*"|'[^']*'|[\w-]+)(?:\s*\.\s*[\w-]+)*\s*=""")


def key_lines(text: str) -> dict[str, int]:
    """The line of each "table" and "table.key", as far as a look at line beginnings tells."""
    lines: dict[str, int] = {}
    table, doses = "", 0
    for number, line in enumerate(text.splitlines(), start=1):
        line = line[:LONGEST_LINE]  # the patterns take the square of the length of blanks
        if header := _HEADER.match(line):
            table = header.group(2).replace('"', "").replace("'", "")
            if header.group(1) == "[[" and table == "dose":
                doses += 1
                table = "dose" if doses == 1 else f"dose#{doses}"
            lines.setdefault(table, number)
        elif key := _KEY.match(line):
            name = key.group(1).strip("\"'")
            full = f"{table}.{name}" if table else name
            lines.setdefault(full, number)
            # Inside { guess = ..., lower = ... } every entry is on the line of its table.
            for inner in re.findall(r"[{,]\s*(\w+)\s*=", line):
                lines.setdefault(f"{full}.{inner}", number)
    return lines


def toml_reason(text: str, message: str) -> str:
    """Why `text` is not TOML, with the line shown, from the message of its reader."""
    place = re.search(r"\(at line (\d+), column (\d+)\)", message)
    if place is None:
        return f"this is not valid TOML: {message}."
    row, column = int(place.group(1)), int(place.group(2))
    what = message[: place.start()].strip()
    line = text.splitlines()[row - 1] if row <= len(text.splitlines()) else ""
    shown = "".join(c if c.isprintable() else " " for c in line)
    shown = f"\n  {shown}\n  {' ' * (column - 1)}^" if len(shown) <= 100 else ""
    hint = ""
    if re.match(r"\s*[\w-]+\s*=\s*[^\"'\s\d\[{]", line):
        hint = " Formulas and other texts need quotes."
    elif what == "Illegal character '\\n'":
        what = "the closing quote is missing"
    return f"line {row}, column {column} is not valid TOML: {what}.{hint}{shown}"
