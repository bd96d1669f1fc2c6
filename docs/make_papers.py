"""Writes docs/papers.md from the entries of `rootflow.reproduce`: python docs/make_papers.py."""

import ast
import re
from pathlib import Path

import rootflow
from rootflow.reproduce.harness import catalogue

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "papers.md"
GUIDES = ROOT / "docs" / "guides"
PACKAGE = Path(rootflow.__file__).parent

HEADER = """# Papers

Each paper that rootflow implements: the parts of the package it lives in, the file that says what
it claims and measures it again (with its experiments beside it), the guide, and what came out.
Written from the entries by `docs/make_papers.py`.

| paper | lives in | measured by | guide | gallery |
|---|---|---|---|---|
"""


def page() -> str:
    """The page, one row an entry, in the order of their names."""
    guides = {path: path.read_text(encoding="utf-8") for path in sorted(GUIDES.glob("*.md"))}
    gallery = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    rows = []
    for name in sorted(catalogue.names()):
        entry = catalogue.load(name)
        paper = entry.paper
        title = f"[{paper.title}]({paper.link})" if paper.link else paper.title
        command = f"`rootflow reproduce {name}`"
        found = [f"[{_title(text)}](guides/{path.name})" for path, text in guides.items()
                 if re.search(rf"reproduce {re.escape(name)}(?![\w-])", text)]  # fmt: skip
        shown = f"[{entry.title}](gallery.md#{_anchor(entry.title)})" if command in gallery else "–"
        rows.append(
            f"| {paper.authors} ({paper.year}), {title} | {_rooms(name)} | {command}, "
            f"{', '.join(f'`{file}`' for file in _files(name))} | {', '.join(found) or '–'} | "
            f"{shown} |"
        )
    return HEADER + "\n".join(rows) + "\n"


def _title(text: str) -> str:
    return text.lstrip().splitlines()[0].lstrip("# ")


def _anchor(title: str) -> str:
    """The anchor that the site gives to a heading."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _imported(path: Path) -> set[str]:
    """Modules that a file imports, by their full names."""
    own = ["rootflow", *path.relative_to(PACKAGE).with_suffix("").parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            base = own[: len(own) - node.level] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def _files(name: str) -> list[str]:
    """The file of an entry, and the folders of its experiments."""
    own = PACKAGE / "reproduce" / f"{name.replace('-', '_')}.py"
    folders = {
        module.split(".")[2] for module in _imported(own)
        if module.startswith("rootflow.reproduce.") and not module.endswith("harness")
    }  # fmt: skip
    folders = {f for f in folders if f != "harness" and (PACKAGE / "reproduce" / f).is_dir()}
    return [f"reproduce/{own.name}", *(f"reproduce/{folder}/" for folder in sorted(folders))]


def _rooms(name: str) -> str:
    """The packages that an entry and its experiments use, those of its domain first."""
    files = [PACKAGE / part for part in _files(name)]
    sources = [f for file in files for f in ([file] if file.is_file() else file.glob("*.py"))]
    used = {module for source in sources for module in _imported(source)}
    rooms = {m.split(".")[1] for m in used if m.startswith("rootflow.") and m.count(".") > 0}
    rooms = {room for room in rooms if (PACKAGE / room / "__init__.py").exists()} - {"reproduce"}
    below = [room for room in ("roots", "flows", "training", "networks", "ground") if room in rooms]
    return ", ".join(f"`{room}`" for room in [*sorted(rooms - set(below)), *below]) or "`flows`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
