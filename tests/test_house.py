"""What holds for the package as a whole."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import rootflow
from rootflow.reproduce.harness import catalogue

ROOT = Path(__file__).resolve().parent.parent


def run_python(program):
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)


def test_import_leaves_the_configuration_of_jax_alone_and_brings_no_front():
    result = run_python(
        """
import jax, sys
before = dict(jax.config.values)
import rootflow
changed = {key for key, value in jax.config.values.items() if before.get(key, value) != value}
assert not changed, changed
front = {"matplotlib", "typer", "rich", "jinja2"} & set(sys.modules)
assert not front, front
"""
    )
    assert result.returncode == 0, result.stderr


def test_import_works_in_float32_and_float64():
    result = run_python(
        """
import jax, numpy as np, rootflow as rf
decay = lambda t, y, args: -y
for double in (False, True):
    jax.config.update("jax_enable_x64", double)
    sol = rf.solve_ode(decay, 1.0, (0.0, 1.0))
    assert sol.ys.dtype == ("float64" if double else "float32"), sol.ys.dtype
    np.testing.assert_allclose(sol.ys, np.exp(-1.0), rtol=1e-5 if double else 1e-3)
"""
    )
    assert result.returncode == 0, result.stderr


def test_the_command_line_imports_nothing_that_computes_until_a_command_runs():
    # A bare package stands in for `rootflow`, whose own import brings JAX.
    result = run_python(
        f"""
import sys, types
package = types.ModuleType("rootflow")
package.__path__ = [{str(Path(rootflow.__file__).parent)!r}]
sys.modules["rootflow"] = package
import rootflow.cli.main
heavy = {{"jax", "equinox", "numpy", "scipy", "matplotlib", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    )
    assert result.returncode == 0, result.stderr


def test_every_public_name_is_documented():
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "api").glob("*.md")]
    shown = set(re.findall(r"^::: ([\w.]+)", "\n".join(pages), re.MULTILINE))
    missing = [
        name
        for name in rootflow.__all__
        if f"rootflow.{name}" not in shown
        and getattr(getattr(rootflow, name), "__module__", None) not in shown
    ]
    assert not missing, f"add ::: rootflow.NAME to a page of docs/api for {missing}"


@pytest.mark.parametrize("name", rootflow.__all__)
def test_every_public_name_has_a_docstring(name):
    assert (getattr(rootflow, name).__doc__ or "").strip()


def test_every_public_name_is_listed_once():
    assert len(rootflow.__all__) == len(set(rootflow.__all__))


def test_the_version_is_the_one_in_the_changelog():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, re.MULTILINE)
    assert newest is not None and newest.group(1) == rootflow.__version__


def test_every_dependency_is_pinned_for_continuous_integration():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    pinned = set(re.findall(r"^([\w.-]+)==", pins, re.MULTILINE))
    asked = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {re.split(r"[^\w.-]", line)[0].lower() for lines in asked for line in lines}
    assert names - {"rootflow"} <= pinned


def papers():
    spec = importlib.util.spec_from_file_location("make_papers", ROOT / "docs" / "make_papers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_papers_is_what_the_entries_say():
    """`python docs/make_papers.py` writes it anew."""
    assert (ROOT / "docs" / "papers.md").read_text(encoding="utf-8") == papers().page()


def test_every_paper_has_a_guide_and_a_test():
    guides = [path.read_text(encoding="utf-8") for path in (ROOT / "docs/guides").glob("*.md")]
    tests = [path.read_text(encoding="utf-8") for path in (ROOT / "tests/reproduce").glob("*.py")]
    for name in catalogue.names():
        assert any(f"reproduce {name}" in text for text in guides), f"no guide tells of {name}"
        assert any(f'"{name}"' in text for text in tests), f"no file in tests/reproduce has {name}"


def test_tests_mirror_the_package():
    here, package = ROOT / "tests", Path(rootflow.__file__).parent
    folders = [path for path in here.rglob("*") if path.is_dir() and any(path.glob("test_*.py"))]
    lost = [path for path in folders if not (package / path.relative_to(here)).is_dir()]
    assert not lost, f"no part of the package has the name of {lost}"
    untested = {
        path.parent.name for path in package.glob("*/__init__.py")
    } - {path.name for path in here.iterdir()}  # fmt: skip
    assert untested <= {"networks", "reports", "tables"}  # tested through the domains


LONGEST = 60


def lines_of_body(function):
    """From the first statement after the docstring to the end of the last."""
    described = ast.get_docstring(function, clean=False) is not None
    body = function.body[1:] if described else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_functions_are_short():
    package = Path(rootflow.__file__).parent
    long = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{path.relative_to(package).as_posix()} {node.name}"
                if lines_of_body(node) > LONGEST:
                    long.append(f"{name}: {lines_of_body(node)} lines")
    assert not long, f"split, or move down what has a name of its own: {', '.join(long)}"


def test_version_option():
    result = run_python(
        "import sys; sys.argv = ['rootflow', '--version']\n"
        "from rootflow.cli.main import main; main()"
    )
    assert result.stdout.strip() == f"rootflow {rootflow.__version__}"
