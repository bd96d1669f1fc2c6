"""What the messages about formulas say: the place with a caret, and what to write instead."""

_WINDOW = 72

INSTEAD = {
    "=": "a formula has no assignment; to compare, write ==",
    ":=": "a formula has no assignment; to compare, write ==",
    "[": "there is no indexing; give every quantity a name of its own, such as x1",
    "]": "there is no indexing; give every quantity a name of its own, such as x1",
    "{": "braces have no meaning here; group with ( )",
    "}": "braces have no meaning here; group with ( )",
    ".": "there is no attribute access; a name has letters, digits and _ only",
    '"': "there is no text in a formula; write names without quotes",
    "'": "there is no text in a formula; write names without quotes",
    "`": "there is no text in a formula; write names without quotes",
    "%": "there is no remainder; build a periodic input from sin and cos",
    "//": "there is no whole-number division; write /",
    "&": "write and",
    "&&": "write and",
    "|": "write or, and abs(x) for |x|",
    "||": "write or",
    "!": "write not",
    "~": "write not",
    "<>": "write !=",
    ";": "one formula holds one expression; remove the ;",
    ":": "to choose between two values write where(condition, a, b)",
    "?": "to choose between two values write where(condition, a, b)",
    "#": "a formula has no comments; put the comment on a line of its own in the file",
    "@": "there are no matrices; write the product out",
    "$": "write the name without $",
    "\\": "remove the backslash",
    "\N{MINUS SIGN}": "write the minus sign as -",
    "\N{EN DASH}": "write the minus sign as -",
    "\N{EM DASH}": "write the minus sign as -",
    "\N{MULTIPLICATION SIGN}": "write the product as *",
    "\N{MIDDLE DOT}": "write the product as *",
    "\N{DOT OPERATOR}": "write the product as *",
    "\N{DIVISION SIGN}": "write the quotient as /",
    "\N{LESS-THAN OR EQUAL TO}": "write <=",
    "\N{GREATER-THAN OR EQUAL TO}": "write >=",
    "\N{NOT EQUAL TO}": "write !=",
    "\N{SUPERSCRIPT TWO}": "a power is written **, as in x**2",
    "\N{SUPERSCRIPT THREE}": "a power is written **, as in x**3",
    "\N{SQUARE ROOT}": "write sqrt(x)",
}
OTHER_FUNCTIONS = {
    "power": "a power is written x**y",
    "fabs": "write abs(x)",
    "if": "write where(condition, a, b)",
    "ifelse": "write where(condition, a, b)",
    "heaviside": "write where(x > 0, 1, 0)",
}
PYTHON_WORDS = {
    "if": "to choose between two values write where(condition, a, b)",
    "else": "to choose between two values write where(condition, a, b)",
    "lambda": "a formula defines no functions; write the value itself",
    "import": "a formula imports nothing; it is arithmetic only",
    "for": "a formula has no loops; write the sum out",
    "is": "to compare, write ==",
    "in": "a formula has no sets; compare with <, <= and so on",
    "True": "write a comparison, or the number 1",
    "False": "write a comparison, or the number 0",
}


def pointed(text: str, at: int) -> str:
    """The line of `text` that holds position `at`, cut to a window, with a caret below."""
    start = text.rfind("\n", 0, at) + 1
    end = text.find("\n", at)
    line, column = text[start : len(text) if end < 0 else end], at - start
    first = max(0, min(column - _WINDOW // 2, len(line) - _WINDOW))
    before = "..." if first > 0 else ""
    after = "..." if first + _WINDOW < len(line) else ""
    shown = visible(line[first : first + _WINDOW])
    return f"  {before}{shown}{after}\n  {' ' * (len(before) + column - first)}^"


def visible(text: str) -> str:
    """One column per character: tabs become spaces, control characters question marks."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def shortened(text: str) -> str:
    """At most 40 characters of a name or number."""
    return text if len(text) <= 40 else f"{text[:37]}..."
