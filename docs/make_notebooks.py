"""Makes notebooks of guides, with their outputs: python docs/make_notebooks.py [NAME ...].

A guide is the one source. Its text becomes cells of text, its blocks of Python become cells of
code, and so does a comment of HTML that begins with `notebook`: code for pictures, which the page
itself does not show. The cells are run here, one after the other in one process, and the notebooks
are kept in docs/notebooks with what they printed and drew. The tests run them again and compare.

MkDocs loads this file as a hook and shows the notebooks as pages; building the site runs no code.
"""

import ast
import base64
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
FOLDER = DOCS / "notebooks"
NAMES = ("solve", "fit", "roots", "diffusion", "frames")

CODE = re.compile(r"^```python\n(.*?)^```$|^<!-- notebook\n(.*?)^-->$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?![a-z]+:|#|\.\./)")
POINTER = re.compile(r"^\(As a notebook:.*\)\n\n", re.MULTILINE)


def sources(guide: str) -> list[tuple[str, str]]:
    """The cells of a guide: kind ("markdown" or "code") and source."""
    text = POINTER.sub("", guide)
    cells, end = [], 0
    for match in CODE.finditer(text):
        cells += [("markdown", text[end : match.start()])]
        cells += [("code", match.group(1) or match.group(2))]
        end = match.end()
    cells += [("markdown", text[end:])]
    # From docs/notebooks the other guides are one folder away.
    told = [
        (kind, (LINK.sub("](../guides/", source) if kind == "markdown" else source).strip())
        for kind, source in cells
    ]
    return [(kind, source) for kind, source in told if source]


def run(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Runs a cell; returns what it printed, its last value and its figures."""
    import matplotlib.pyplot as plt

    body = ast.parse(source).body
    last = body.pop() if isinstance(body[-1], ast.Expr) else None
    name, printed, value = f"<cell {count}>", io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), name, "exec"), namespace)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": printed.getvalue()})
    if value is not None:
        data = {"text/plain": repr(value)}
        result = {"output_type": "execute_result", "execution_count": count, "metadata": {}}
        outputs.append({**result, "data": data})
    for number in plt.get_fignums():
        picture = io.BytesIO()
        plt.figure(number).savefig(
            picture, dpi=80, bbox_inches="tight", metadata={"Software": None}
        )
        data = {"image/png": base64.b64encode(picture.getvalue()).decode("ascii")}
        outputs.append({"output_type": "display_data", "metadata": {}, "data": data})
    plt.close("all")
    return outputs


def notebook(name: str) -> dict[str, Any]:
    """The notebook of a guide, run now, as the dictionary of its file (format 4.5)."""
    import matplotlib.pyplot as plt

    plt.close("all")  # what somebody else has open is no picture of this guide
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells: list[dict[str, Any]] = []
    count = 0
    for kind, source in sources((DOCS / "guides" / f"{name}.md").read_text(encoding="utf-8")):
        cell = {"cell_type": kind, "id": f"{name}-{len(cells)}", "metadata": {}, "source": source}
        if kind == "code":
            count += 1
            cell |= {"execution_count": count, "outputs": run(source, namespace, count)}
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def stored(name: str) -> dict[str, Any]:
    """The notebook that is kept."""
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))


def texts(outputs: list[dict[str, Any]]) -> list[str]:
    """What a cell printed or returned, as text."""
    plain = [output.get("text") or output["data"].get("text/plain") for output in outputs]
    return [text for text in plain if text]


def page(name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and the pictures in it by file name."""
    lines = ["---\nsearch:\n  exclude: true\n---"]
    pictures: dict[str, bytes] = {}
    for cell in stored(name)["cells"]:
        if cell["cell_type"] == "markdown":
            lines.append(cell["source"])
            continue
        lines.append(f"```python\n{cell['source']}\n```")
        lines += [f"```text\n{text.rstrip()}\n```" for text in texts(cell["outputs"])]
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                picture = f"{name}-{len(pictures) + 1}.png"
                pictures[picture] = base64.b64decode(output["data"]["image/png"])
                lines.append(f"![What the cell draws]({picture})")
    title, _, rest = lines[1].partition("\n\n")
    note = f"*This is the guide [{name}](../guides/{name}.md) as a [notebook]({name}.ipynb), with "
    lines[1] = f"{title}\n\n{note}what its cells printed and drew.*\n\n{rest}"
    return "\n\n".join(lines) + "\n", pictures


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: adds a page for each notebook, beside its file."""
    from mkdocs.structure.files import File

    for name in NAMES:
        text, pictures = page(name)
        files.append(File.generated(config, f"notebooks/{name}.md", content=text))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{picture}", content=content))
    return files


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or NAMES:
        text = json.dumps(notebook(name), ensure_ascii=False, indent=1) + "\n"
        (FOLDER / f"{name}.ipynb").write_text(text, encoding="utf-8")
        print(f"{name}: {len(text.encode()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
