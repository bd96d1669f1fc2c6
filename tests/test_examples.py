"""Every numbered example and every page's Python code runs; what examples compute is checked."""

import importlib.util
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("[0-9]*.py"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if PYTHON.search(page.read_text(encoding="utf-8"))]
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?")


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebooks = load(ROOT / "docs" / "make_notebooks.py")


def solve_and_differentiate(found):
    def final(p):
        def field(t, y):
            return [p[0] * y[0] - p[1] * y[0] * y[1], p[2] * y[0] * y[1] - p[3] * y[1]]

        options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-12}
        return solve_ivp(field, (0.0, 20.0), found["start"], **options).y[:, -1]

    rates = np.asarray(found["rates"])
    np.testing.assert_allclose(found["sol"].ys[-1], final(rates), rtol=1e-4)
    steps = 1e-6 * rates * np.eye(4)
    slopes = [(final(rates + h) - final(rates - h))[0] / (2 * h.sum()) for h in steps]
    np.testing.assert_allclose(found["gradient"], slopes, rtol=1e-3)


def root_and_implicit(found):
    anomaly = brentq(lambda x: x - 0.3 * np.sin(x) - 1.0, 0.0, 2.0, xtol=1e-14)
    slope = np.sin(anomaly) / (1 - 0.3 * np.cos(anomaly))
    np.testing.assert_allclose(found["anomaly"], anomaly, rtol=1e-9)
    np.testing.assert_allclose(found["slope"], slope, rtol=1e-9)
    np.testing.assert_allclose(found["slope_by_scipy"], slope, rtol=1e-9)


def fit_hare_lynx(found):
    expected = {
        "alpha": (0.5402, 0.059), "beta": (0.02717, 0.0038), "gamma": (0.7964, 0.084),
        "delta": (0.02369, 0.0033), "hare": (34.60, 2.93), "lynx": (5.845, 0.479),
    }  # fmt: skip
    for e in found["result"].estimates:
        if e.kind != "scale":
            np.testing.assert_allclose((e.value, e.se), expected[e.name], rtol=0.02)


def hyperparameters_svm(found):
    from sklearn.svm import LinearSVC

    def loss(log_penalty):
        """The validation loss of scikit-learn's machine of Crammer and Singer."""
        machine = LinearSVC(
            C=float(np.exp(-log_penalty)), multi_class="crammer_singer", fit_intercept=False,
            tol=1e-10, max_iter=100_000,
        )  # fmt: skip
        machine.fit(found["train"], np.argmax(found["train_labels"], axis=1))
        errors = found["validation"] @ machine.coef_.T - found["validation_labels"]
        return 0.5 * np.mean(np.square(errors))

    np.testing.assert_allclose(found["first_loss"], loss(0.0), rtol=1e-5)
    np.testing.assert_allclose(found["first_slope"], (loss(1e-3) - loss(-1e-3)) / 2e-3, rtol=1e-3)
    best = float(found["log_penalty"])
    np.testing.assert_allclose(found["loss"], loss(best), rtol=1e-5)
    assert loss(best) < min(loss(best - 0.2), loss(best + 0.2))


def dataset_distillation(found):
    from sklearn.linear_model import LogisticRegression

    # The sum over the ten images, and half of |W|^2: the objective over 2 * 0.03.
    peer = LogisticRegression(C=1 / (10 * 2 * 0.03), fit_intercept=False, tol=1e-8, max_iter=1000)
    peer.fit(found["distilled"], np.arange(10))
    np.testing.assert_allclose(found["classifier"].T, peer.coef_, atol=1e-3)
    assert peer.score(found["test"], found["test_digits"]) > 0.85


def dictionary_learning(found):
    from sklearn.linear_model import ElasticNet

    atoms = np.asarray(found["atoms"])
    atoms = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    # Its objective is the mean over the 30 features: both penalties are divided by them.
    peer = ElasticNet(alpha=0.11 / 30, l1_ratio=0.1 / 0.11, fit_intercept=False, tol=1e-12)
    for code, row in zip(found["codes"][:10], found["test"][:10], strict=True):
        np.testing.assert_allclose(code, peer.fit(atoms.T, row).coef_, atol=1e-6)
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    # Always saying "benign" would be right for 63 per cent of the patients.
    assert found["accuracy"] > 0.9


def invert_edit_and_differentiate(found):
    # The probability flow of normal data is linear: x -> alpha m + (x - alpha' m) sqrt(v / v').
    schedule, centres = found["schedule"], np.asarray(found["centres"])
    alpha, sigma = (np.asarray(f(np.array([1.0, 1e-3]))) for f in (schedule.alpha, schedule.sigma))
    ratio = np.sqrt((alpha[1] ** 2 * 0.09 + sigma[1] ** 2) / (alpha[0] ** 2 * 0.09 + sigma[0] ** 2))
    np.testing.assert_allclose(found["back"], found["data"], atol=1e-12)
    shift = (alpha[1] - ratio * alpha[0]) * (centres[1] - centres[0])
    np.testing.assert_allclose(found["edited"] - found["data"], np.tile(shift, (100, 1)), atol=2e-2)
    ends = alpha[1] * centres[0] + ratio * (np.asarray(found["start"]) - alpha[0] * centres[0])
    np.testing.assert_allclose(found["gradient"], ratio * ends, atol=2e-2)


def fewer_evaluations(found):
    (plain, _, _), (penalised, error, p) = found["found"]["plain"], found["found"]["penalised"]
    assert penalised < 0.8 * plain
    p = {name: np.asarray(value) for name, value in p.items()}
    start, target = (np.asarray(found["data"][name]) for name in ("start", "target"))

    def field(t, y):
        y = y.reshape(start.shape)
        return (np.tanh(y @ p["in"] + t * p["rate"] + p["bias"]) @ p["out"]).ravel()

    end = solve_ivp(field, (0.0, 1.0), start.ravel(), "DOP853", rtol=1e-10, atol=1e-12).y[:, -1]
    misfit = np.sqrt(np.mean((end.reshape(start.shape)[:, 0] - target) ** 2))
    np.testing.assert_allclose(error, misfit, rtol=1e-3)
    assert misfit < 0.3 * target.std()


def between_two_data_sets(found):
    radius = {name: np.linalg.norm(found[name], axis=1) for name in ("by_flow", "by_diffusion")}
    for r in radius.values():  # a ring of radius 2, each mode with a standard deviation of 0.3
        assert abs(r.mean() - 2.02) < 0.08 and abs(r.std() - 0.3) < 0.1
    # The cross-entropy is the entropy and a divergence, which is positive.
    assert -0.1 < found["entropy"].value - found["least"] < 0.3


def hybrid_model(found):
    assert np.all(np.asarray(found["error"]) < 0.6 * np.asarray(found["spread"]))


def irregular_series(found):
    # Guessing would be right for a tenth.
    assert found["accuracy"] > 0.7


def train_and_guide_diffusion(found):
    centres = np.asarray(found["centres"])
    for kind, centre in enumerate(centres):
        samples = np.asarray(found["samples"])[np.asarray(found["kinds"]) == kind]
        nearest = np.linalg.norm(samples[:, None] - centres, axis=2).argmin(axis=1)
        assert np.mean(nearest == kind) > 0.95
        np.testing.assert_allclose(samples.mean(axis=0), centre, atol=0.3)
    # Given a first coordinate of -1 two of the centres are left, as likely as one another.
    first, second = np.asarray(found["posterior"]).T
    np.testing.assert_allclose(first.mean(), -1.0, atol=0.15)
    np.testing.assert_allclose(np.mean(second > 0), 0.5, atol=0.15)
    np.testing.assert_allclose(np.abs(second).mean(), 1.7, atol=0.25)


def hessian_spectrum(found):
    import jax
    from jax.flatten_util import ravel_pytree

    flat, unravel = ravel_pytree(found["trained"])
    data = (found["inputs"], found["labels"])
    dense = jax.hessian(lambda w: found["loss"](unravel(w), data, None))(flat)
    values = np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(found["ends"].largest, values[:-6:-1], rtol=1e-5)
    np.testing.assert_allclose(found["ends"].smallest, values[:5], atol=1e-5)
    assert abs(found["trace"].value - values.sum()) < 4 * found["trace"].standard_error
    assert found["report"].by_gap == 3


def dense_memory(found):
    # One example agrees with its archetype by the quality; the plan asked for 0.97.
    np.testing.assert_allclose(np.mean(found["before"]), 0.5, atol=0.05)
    assert np.mean(found["after"]) > 0.93


def random_loads(found):
    rows = found["report"].rows
    assert rows["bootstrap"].distance["peak von Mises"].value < 0.2
    assert rows["linear"].distance["peak von Mises"].low > 0.2
    assert rows["flow"].distance["peak von Mises"].value < 0.3
    truth = np.mean(np.asarray(found["reference"].peak_von_mises_in_zone) > 1.0)
    assert abs(found["chance"].value - truth) < 0.05
    assert Path("random_loads.png").stat().st_size > 10_000


def which_momentum(found):
    cycle = np.asarray(found["found"].cycle)
    last = np.asarray(found["cycling"].x[-3:])
    assert found["found"].period == 3
    assert np.abs(last[:, None] - cycle[None]).max(-1).min(1).max() < 1e-9
    assert np.linalg.norm(found["converging"].final) < 1e-6
    np.testing.assert_allclose(list(found["worst"].values()), [11.69, 2.684], rtol=1e-2)


def private_training(found):
    # Calling every tumour benign would be right for 63 per cent.
    assert min(found["accuracies"].values()) > 0.88
    assert found["run"].privacy.epsilon <= 4.0 * (1 + 1e-6)
    assert found["audit"].holds


def diffusion_couple(found):
    truth = np.asarray([found["law"](N) for N in found["at"]])
    np.testing.assert_allclose(found["coefficient"], truth, rtol=0.04)
    assert np.all((found["lower"] < truth) & (truth < found["upper"]))
    # 1 % of length is at least 2 % of D.
    assert np.all(np.log(found["upper"] / found["lower"]) > 2 * 1.96 * 0.02)
    assert 0.05 < found["disagreement"] < 0.1
    # Darken: the two coefficients make the one that was put in.
    markers = found["markers"]
    np.testing.assert_allclose(
        markers.interdiffusion, found["law"](float(markers.composition)), rtol=2e-3
    )
    assert Path("diffusion_couple.png").stat().st_size > 10_000


def certified_energy(found):
    assert np.all(found["run"].error_bounds >= found["errors"])
    assert found["errors"][-1] < 1e-6 * found["run"].sizes[-1]
    assert (Path.cwd() / "certified_energy.png").exists()


def density_movie(found):
    np.testing.assert_allclose(np.exp(found["best"]), found["truth"], rtol=0.05)
    # Errors of the size of their standard errors, which are small.
    assert np.all(found["z"] < 3.5) and np.all(np.asarray(found["errors"]) < 0.05)
    assert Path("density_movie.png").stat().st_size > 10_000


def which_frame(found):
    assert found["errors"]["moving"] < 0.02 and found["errors"]["still"] > 0.3
    assert found["advice"].travelled > 4.7  # 30 / 2π
    assert Path("which_frame.png").stat().st_size > 10_000


def trajectory_to_equation(found):
    errors = np.abs(found["fit"].constants - found["truth"]) / found["fit"].standard_errors
    assert np.all(errors < 5) and np.all(found["fit"].standard_errors < 1)
    assert found["best"].tokens != found["lacking"]


CHECKS = {
    "01_solve_and_differentiate": solve_and_differentiate,
    "02_root_and_implicit": root_and_implicit,
    "03_fit_hare_lynx": fit_hare_lynx,
    "04_hyperparameters_svm": hyperparameters_svm,
    "05_dataset_distillation": dataset_distillation,
    "06_dictionary_learning": dictionary_learning,
    "10_invert_edit_and_differentiate": invert_edit_and_differentiate,
    "11_fewer_evaluations": fewer_evaluations,
    "12_between_two_data_sets": between_two_data_sets,
    "13_hybrid_model": hybrid_model,
    "14_irregular_series": irregular_series,
    "15_train_and_guide_diffusion": train_and_guide_diffusion,
    "16_hessian_spectrum": hessian_spectrum,
    "17_dense_memory": dense_memory,
    "21_random_loads": random_loads,
    "18_which_momentum": which_momentum,
    "19_private_training": private_training,
    "20_diffusion_couple": diffusion_couple,
    "23_certified_energy": certified_energy,
    "22_density_movie": density_movie,
    "24_trajectory_to_equation": trajectory_to_equation,
    "25_which_frame": which_frame,
}


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.stem)
def test_example(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip(), "an example prints what it found"
    assert script.stem in CHECKS, "say in CHECKS what is right about it"
    CHECKS[script.stem](found)


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_in_a_page(page, tmp_path, monkeypatch):
    """The blocks of a page run one after the other, in one namespace."""
    short = {"random_grids": ("steps=5000", "steps=500")}  # minutes, without optimisations
    monkeypatch.chdir(tmp_path)
    if page.parent.name == "guides" and page.stem in notebooks.NAMES:
        same_notebook(page.stem)
        return
    script = tmp_path / "page.py"
    text = page.read_text(encoding="utf-8")
    if page.stem in short:
        assert short[page.stem][0] in text
        text = text.replace(*short[page.stem])
    script.write_text("\n".join(PYTHON.findall(text)), encoding="utf-8")
    runpy.run_path(str(script), run_name="__main__")


def same_notebook(name):
    """Runs a guide as its notebook: `python docs/make_notebooks.py` makes what is kept anew."""
    kept, found = notebooks.stored(name), notebooks.notebook(name)
    code = PYTHON.findall((ROOT / "docs" / "guides" / f"{name}.md").read_text(encoding="utf-8"))
    sources = [cell["source"] for cell in found["cells"]]
    assert all(block.strip() in sources for block in code)
    drawn = 0
    for old, new in zip(kept["cells"], found["cells"], strict=True):
        assert old["source"] == new["source"], f"{name}.ipynb is not of this guide any more"
        if old["cell_type"] == "markdown":
            continue
        assert [o["output_type"] for o in old["outputs"]] == [
            o["output_type"] for o in new["outputs"]
        ]
        drawn += sum("image/png" in o.get("data", {}) for o in old["outputs"])
        pairs = zip(notebooks.texts(old["outputs"]), notebooks.texts(new["outputs"]), strict=True)
        for before, now in pairs:
            assert NUMBER.sub("#", before) == NUMBER.sub("#", now)
            numbers = [np.asarray(NUMBER.findall(text), float) for text in (before, now)]
            np.testing.assert_allclose(*numbers, rtol=0.05, atol=2e-3)
    assert drawn, "a notebook has a picture"
    assert (notebooks.FOLDER / f"{name}.ipynb").stat().st_size < 150_000


def test_the_readme_shows_the_first_example():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    example = EXAMPLES[0].read_text(encoding="utf-8")
    shown = PYTHON.search(readme)
    assert shown is not None
    lines = [line.partition("  #")[0] for line in shown.group(1).splitlines()]
    missing = [line for line in lines if line not in example]
    assert not missing, "the README's first code is the first example, without its comments"
