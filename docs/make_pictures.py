"""Draws the pictures of the README and the site: python docs/make_pictures.py.

`--only fit`, `couple` or `gallery` draws only these. They are made by the commands that users run,
and are kept in docs/images. All entries of the gallery take about an hour; `--records FOLDER` takes
those that `rootflow reproduce` has left there, and with `--keep` the page keeps its sections on
entries that have no record in the folder.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
MODELS = DOCS.parent / "benchmarks" / "models"

HEADER = (
    "# Gallery\n\n"
    "Published claims, measured again by `rootflow reproduce --all`. A claim that did not come "
    "out is reported as it came out. The [guide](guides/reproduce.md) says how to run them and "
    "how to write one.\n"
)


def rootflow(*arguments: str) -> None:
    program = "from rootflow.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def fit(scratch: Path) -> None:
    rootflow("fit", "--example", "hare-lynx", "--out", str(scratch / "fit"))
    shutil.copyfile(scratch / "fit" / "fit.png", IMAGES / "hare_lynx.png")
    rootflow("fit", "--example", "theophylline", "--out", str(scratch / "population"))
    shutil.copyfile(scratch / "population" / "fit.png", IMAGES / "theophylline.png")
    shutil.copyfile(scratch / "population" / "vpc.png", IMAGES / "theophylline_vpc.png")
    boehm = [str(MODELS / f"boehm.{kind}") for kind in ("toml", "csv")]
    rootflow("fit", *boehm, "--starts", "32", "--seed", "1", "--out", str(scratch / "boehm"))
    shutil.copyfile(scratch / "boehm" / "fit.png", IMAGES / "boehm.png")
    shutil.copyfile(scratch / "boehm" / "starts.png", IMAGES / "boehm_starts.png")


def couple(scratch: Path) -> None:
    rootflow("couple", "--example", "solid-solution", "--out", str(scratch / "couple"))
    shutil.copyfile(scratch / "couple" / "coefficients.png", IMAGES / "couple.png")


def gallery(out: Path, keep: bool) -> None:
    """The page of the records in `out`; makes them where there is no such folder."""
    if not out.exists():
        rootflow("reproduce", "--all", "--out", str(out))
    page = DOCS / "gallery.md"
    sections = kept(page) if keep else {}
    for path in sorted(out.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["quick"] or record["status"] != "finished":
            raise SystemExit(f"{path} is not the record of a full run that has ended.")
        picture = f"{path.stem.replace('-', '_')}.png"
        shutil.copyfile(path.with_suffix(".png"), IMAGES / picture)
        sections[record["name"]] = section(record, picture)
    text = "\n".join([HEADER, *(sections[name] for name in sorted(sections))])
    page.write_text(text, encoding="utf-8")


def kept(page: Path) -> dict[str, str]:
    """The sections of the page by the names of their entries."""
    sections = {}
    for text in page.read_text(encoding="utf-8").split("\n## ")[1:]:
        name = re.search(r"`rootflow reproduce ([\w-]+)`", text)
        if name is None:
            raise SystemExit(f"{page}: a section names no entry: {text[:60]!r}")
        sections[name[1]] = f"## {text}"
    return sections


def section(record: dict, picture: str) -> str:
    paper = record["paper"]
    title = f"[{paper['title']}]({paper['link']})" if paper["link"] else paper["title"]
    claims = [
        f"- {claim['text']} Published: {show(claim['published'])}; measured: "
        f"{show(claim['measured'])}: **{claim['verdict']}**."
        for claim in record["claims"]
    ]
    return "\n".join(
        [
            f"## {record['title']}",
            "",
            f"{paper['authors']} ({paper['year']}), {title}. `rootflow reproduce {record['name']}`",
            "",
            *claims,
            "",
            f"![{record['title']}](images/{picture}){{ width=560 }}",
            "",
            record["caption"],
            "",
        ]
    )


def show(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["fit", "couple", "gallery"], help="draw only these")
    parser.add_argument("--records", type=Path, help="a folder of full runs, for the gallery")
    parser.add_argument("--keep", action="store_true", help="keep sections without a record")
    options = parser.parse_args()
    only = options.only
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        if only in (None, "couple"):
            couple(Path(scratch))
        if only in (None, "fit"):
            fit(Path(scratch))
        if only in (None, "gallery"):
            gallery(options.records or Path(scratch) / "gallery", options.keep)


if __name__ == "__main__":
    main()
