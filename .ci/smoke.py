"""What a user does first, with an installed rootflow: python smoke.py README.md.

Runs the README's first Python code, a root, a minimiser, samples and a fit on the command line,
each beside the value that it is known to have, and says what it ran on.
"""

import json
import os
import re
import runpy
import subprocess
import sys
import sysconfig
import tempfile
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import rootflow as rf
from rootflow import generative as gen

CODE = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# The published fit of the pelt counts: rates and initial values.
PUBLISHED = {
    "alpha": 0.540, "beta": 0.0272, "gamma": 0.796, "delta": 0.0237, "hare": 34.6, "lynx": 5.84,
}  # fmt: skip


def readme(page: Path) -> None:
    """A solve and its gradient: the numbers are those that the page prints in a comment."""
    first = CODE.findall(page.read_text("utf-8"))[0]
    Path("readme.py").write_text(first, encoding="utf-8")
    found = runpy.run_path("readme.py")["gradient"]
    numbers = re.search(r"^gradient = .*# (.*)$", first, re.MULTILINE)
    assert numbers is not None, "the README's first code ends on a gradient and says its value"
    promised = [float(number) for number in numbers.group(1).split(",")]
    np.testing.assert_allclose(found, promised, atol=0.06)


def roots() -> None:
    """A root and a minimiser within a set, with their derivatives, in closed form."""
    cubic = lambda x, a: x**3 - a
    value, slope = jax.value_and_grad(lambda a: rf.root(cubic, 1.0, a))(8.0)
    np.testing.assert_allclose((value, slope), (2.0, 1 / 12), rtol=1e-8)
    # The nearest point of the simplex to (a, 0, 0), for a within (-1/2, 1): in closed form.
    away = lambda x, a: jnp.sum((x - jnp.array([1.0, 0.0, 0.0]) * a) ** 2)
    nearest = lambda a: rf.argmin(away, jnp.full(3, 1 / 3), a, constraint=rf.sets.Simplex())
    np.testing.assert_allclose(nearest(0.4), [0.6, 0.2, 0.2], atol=1e-7)
    np.testing.assert_allclose(jax.jacrev(nearest)(0.4), [2 / 3, -1 / 3, -1 / 3], atol=1e-6)


def samples() -> None:
    """A diffusion model of points on a ring of radius two, each with a spread of 0.3."""
    schedule, data = gen.VPLinear(beta_min=0.1, beta_max=20.0), gen.exact.ring()
    model = lambda x, t: data.predict("noise", schedule, x, t)
    denoiser = gen.Denoiser(model, schedule, predicts="noise")
    found = gen.sample(denoiser, shape=(256, 2), key=jax.random.key(0), steps=20)
    np.testing.assert_allclose(jnp.linalg.norm(found, axis=1).mean(), 2.02, atol=0.1)


def fit() -> None:
    """The README's first command, whose data come with the package."""
    command = Path(sysconfig.get_path("scripts")) / "rootflow"
    subprocess.run([command, "fit", "--example", "hare-lynx", "--out", "fit"], check=True)
    estimates = json.loads(Path("fit/fit.json").read_text("utf-8"))["estimates"]
    found = {row["name"]: row["value"] for row in estimates if row["kind"] != "scale"}
    for name, value in PUBLISHED.items():
        np.testing.assert_allclose(found[name], value, rtol=5e-3)
    assert Path("fit/fit.png").stat().st_size > 10_000 and Path("fit/report.html").exists()


def main() -> None:
    """Runs all of it in a folder of its own."""
    page = Path(sys.argv[1]).resolve()
    home = Path(rf.__file__).resolve()
    assert Path(sysconfig.get_path("purelib")).resolve() in home.parents, f"{home} is a checkout"
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        readme(page)
        roots()
        samples()
        fit()
        os.chdir(page.parent)
    numbers = ", ".join(f"{name} {version(name)}" for name in ("rootflow", "jax", "numpy", "scipy"))
    print(f"Python {sys.version.split()[0]}: {numbers}: the README, roots, samples and a fit hold")


if __name__ == "__main__":
    main()
