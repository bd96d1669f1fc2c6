"""What a solution says of itself, its tables and its pictures."""

import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.flows.solution import Heuristics, Stats

TS = jnp.linspace(0.0, 2.0, 5)


def decay(t, y, rates):
    """x' = -a x and v' = -b v, from x = 1 and v = (1, 2, 3)."""
    return {"v": -rates[1] * y["v"], "x": -rates[0] * y["x"]}


Y0 = {"v": jnp.array([1.0, 2.0, 3.0]), "x": 1.0}


def solve(rates, **options):
    return rf.solve_ode(decay, Y0, (0.0, 2.0), rates, **{"saveat": TS} | options)


@pytest.fixture(scope="module")
def one():
    return solve((1.0, 0.5))


@pytest.fixture(scope="module")
def batch():
    return jax.vmap(lambda a: solve((a, 0.5)))(jnp.array([1.0, 2.0]))


def png(html):
    return "data:image/png;base64," in html


def test_a_solution_in_about_ten_lines(one):
    said = repr(one)
    lines = said.splitlines()
    assert lines[0] == "Solution of a differential equation" and len(lines) <= 11
    assert max(map(len, lines)) <= 100
    assert "The solve reached t1." in said and "0 to 2, 5 saved times" in said
    assert "v float64[5, 3], x float64[5]" in said
    # exp(-2) = 0.13534, exp(-1) = 0.36788
    assert "y(2)" in said and "x = 0.1353" in said
    assert "v[0] = 0.3679, v[1] = 0.7358, v[2] = 1.104" in said
    stats = one.stats
    assert f"{stats.steps} steps ({stats.accepted} accepted, {stats.rejected} rejected)" in said
    assert png(one._repr_html_()) and "&lt;" not in one._repr_html_()


def test_a_batch_says_how_many_ended_how(batch):
    said = repr(batch)
    assert "2 of 2: The solve reached t1" in said and "5 saved times in each of 2 members" in said
    blows_up = jax.vmap(
        lambda y: rf.solve_ode(lambda t, y, args: y**2, y, (0.0, 1.5), throw=False)
    )(jnp.array([0.5, 1.0, 0.25]))
    said = repr(blows_up)
    assert "2 of 3: The solve reached t1; 1 of 3: The" in said


def test_a_failure_is_told_with_the_last_finite_state():
    said = repr(
        rf.solve_ode(
            lambda t, y, args: y**2, 1.0, (0.0, 1.5), saveat=jnp.array([0.0, 0.5, 1.5]), throw=False
        )
    )
    assert "y(0.5)  y = 2" in said and "The solve reached" not in said


def test_a_traced_solution_shows_shapes():
    seen = []

    def final(a):
        sol = solve((a, 0.5))
        seen.append((repr(sol), sol._repr_html_()))
        for refused in (sol.to_pandas, sol.to_xarray):
            with pytest.raises(rf.InputError, match="Inside jit"):
                refused()
        with pytest.raises(rf.InputError, match="plot it outside"):
            rf.plot(sol)
        return sol.ys["x"][-1]

    jax.eval_shape(jax.vmap(jax.grad(final)), jnp.ones(2))
    jax.eval_shape(final, 1.0)
    for said, html in seen:
        assert "known after the computation has run" in said and "x float64[5]" in said
        assert "float64[5, 3]" in html and not png(html)


def test_what_stands_for_a_solution_is_shown_too(one):
    shapes = eqx.filter_eval_shape(solve, (1.0, 0.5))
    assert "v float64[5, 3]" in repr(shapes)
    for put in (None, 0, "axis"):
        other = jax.tree.map(lambda _, put=put: put, one)
        assert repr(other).startswith("Solution(") and other._repr_html_() is None
    assert jax.tree.structure(one) == jax.tree.structure(jax.tree.map(lambda x: x, one))


def test_a_solution_as_a_data_frame(one, batch):
    pytest.importorskip("pandas")
    frame = one.to_pandas()
    assert list(frame.columns) == ["v[0]", "v[1]", "v[2]", "x"] and frame.index.name == "t"
    np.testing.assert_allclose(frame["v[1]"], 2 * np.exp(-0.5 * TS), rtol=1e-5)
    np.testing.assert_array_equal(frame.index, TS)
    many = batch.to_pandas()
    assert many.index.names == ["member", "t"] and len(many) == 10
    np.testing.assert_allclose(many.loc[1]["x"], np.exp(-2 * TS), rtol=1e-5)
    for shape in ((0,), (0, 4)):
        assert made(np.ones(shape), jnp.ones((*shape, 3))).to_pandas().shape == (0, 3)
    steps = solve((1.0, 0.5), saveat="steps", max_steps=64)
    kept = steps.to_pandas()
    assert len(kept) == np.isfinite(steps.ts).sum() < 64 and kept["x"].notna().all()


def test_a_solution_as_a_data_set(one, batch):
    pytest.importorskip("xarray")
    data = one.to_xarray()
    assert data["v"].dims == ("t", "v_0") and data["x"].dims == ("t",)
    np.testing.assert_allclose(data["x"].sel(t=1.0), np.exp(-1.0), rtol=1e-5)
    assert data.attrs["ended"] == "The solve reached t1."
    assert data.attrs["steps"] == int(one.stats.steps)
    assert batch.to_xarray()["v"].dims == ("member", "t", "v_0")
    own = made(np.stack([LINE, 2 * LINE]), jnp.ones((2, 4))).to_xarray()
    assert own["t"].dims == ("member", "save")
    np.testing.assert_allclose(own["t"][1], 2 * LINE)
    np.testing.assert_array_equal(made(LINE, {"t": LINE**2}).to_xarray()["y.t"], LINE**2)


@pytest.mark.parametrize("missing", ["pandas", "xarray"])
def test_without_the_package_it_says_what_to_install(one, missing, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(rf.InputError, match=f"pip install {missing}"):
        getattr(one, f"to_{missing}")()


def made(ts, ys):
    """A solution of any shape, by hand."""
    ts, count = jnp.asarray(ts), jnp.zeros(np.shape(ts)[:-1], int)
    result = jnp.full(count.shape, int(rf.Result.success))
    heuristics = Heuristics(jnp.zeros(count.shape), jnp.zeros(count.shape))
    return rf.Solution(ts, ys, Stats(*[count] * 6), heuristics, result)


LINE = np.linspace(0.0, 1.0, 4)
ODD = {
    "steps": lambda: solve((1.0, 0.5), saveat="steps", max_steps=64),
    "the end": lambda: made([1.0], {"v": jnp.ones((1, 3))}),
    "backwards, many": lambda: made(LINE[::-1], jnp.ones((4, 9))),
    "1000 components": lambda: made(LINE, jnp.ones((4, 1000, 1))),
    "1000 times": lambda: made(np.linspace(0, 1, 1000), jnp.ones((1000, 500))),
    "1000 at the end": lambda: made([1.0], jnp.ones((1, 1000))),
    "a plane at the end": lambda: made([1.0], jnp.ones((1, 8, 9)) * 1j),
    "a space at the end": lambda: made([1.0], jnp.ones((1, 8, 9, 10))),
    "complex": lambda: made(LINE, jnp.exp(1j * LINE)),
    "many complex": lambda: made(LINE, jnp.ones((4, 8)) * 1j),
    "half": lambda: made(LINE.astype(np.float32), jnp.ones((4, 2), jnp.bfloat16)),
    "batch": lambda: made(np.tile(LINE, (60, 1)), jnp.ones((60, 4, 2))),
    "batch at the end": lambda: made(np.ones((5, 1)), jnp.ones((5, 1, 2))),
    "batch of a batch": lambda: made(np.ones((2, 3, 1)), jnp.ones((2, 3, 1))),
    "huge": lambda: made(LINE, jnp.array([1e300, 1.0, jnp.inf, jnp.nan])),
    "nothing finite": lambda: made(np.full(4, np.nan), jnp.full(4, jnp.nan)),
    "many leaves": lambda: made(LINE, [jnp.ones(4)] * 9),
    "whole numbers": lambda: made(LINE, jnp.arange(4)),
}


@pytest.mark.parametrize("name", ODD)
def test_solutions_of_odd_sizes_are_shown_and_drawn(name):
    sol = ODD[name]()
    assert len(repr(sol).splitlines()) <= 14
    assert png(sol._repr_html_())
    figure = rf.plot(sol)
    assert figure._repr_png_()[:4] == b"\x89PNG" and figure.axes


@pytest.mark.parametrize(
    "sol",
    [
        made([1.0], jnp.ones(1)),
        made(np.ones(0), jnp.ones((0, 3))),
        made(np.ones((0, 4)), jnp.ones((0, 4))),
    ],
    ids=["one number", "no times", "no members"],
)  # fmt: skip
def test_what_has_no_picture(sol):
    assert not png(sol._repr_html_()) and repr(sol).startswith("Solution of")
    with pytest.raises(rf.InputError, match=r"nothing to draw.*saveat"):
        rf.plot(sol)


def test_a_picture_says_what_is_not_in_it():
    last = rf.plot(made(LINE, [jnp.ones(4)] * 9)).axes[-1]
    assert last.get_title(loc="left") == "(5 more are not drawn)"


def test_the_curves_are_the_solution(one):
    """The lines of the figure hold the saved states."""
    first, second = rf.plot(one).axes
    np.testing.assert_allclose(first.lines[2].get_ydata(), 3 * np.exp(-0.5 * TS), rtol=1e-5)
    np.testing.assert_allclose(second.lines[0].get_xydata(), np.stack([TS, np.exp(-TS)], 1), 1e-5)
    dense = rf.plot(solve((1.0, 0.5), saveat="dense", max_steps=64)).axes[1].lines[0]
    t, x = dense.get_data()
    assert len(t) == 200 and (t[0], t[-1]) == (0.0, 2.0)
    np.testing.assert_allclose(x, np.exp(-t), rtol=1e-4)
    assert [t.get_text() for t in first.get_legend().get_texts()] == ["v[0]", "v[1]", "v[2]"]


def test_showing_a_solution_leaves_pyplot_alone():
    program = """
import sys, numpy as np, rootflow as rf
from rootflow.flows.solution import Heuristics, Stats
ts, zero = np.linspace(0.0, 1.0, 3), np.zeros((), int)
sol = rf.Solution(ts, ts**2, Stats(*[zero] * 6), Heuristics(zero, zero), zero)
assert repr(sol) and "matplotlib" not in sys.modules and "pandas" not in sys.modules
assert "png" in sol._repr_html_() and rf.plot(sol)
assert "matplotlib.pyplot" not in sys.modules
import matplotlib
assert matplotlib.rcParams["font.size"] == matplotlib.rcParamsDefault["font.size"]
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
