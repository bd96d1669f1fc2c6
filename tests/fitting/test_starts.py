"""Where the searches of a fit begin."""

import jax
import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import problem, solving, starts
from rootflow.fitting.examples import example_files
from rootflow.fitting.modelfile import load_model
from rootflow.fitting.table import assemble, load_table


@pytest.fixture(scope="module")
def late():
    """A model whose second column is measured late only."""
    model = rf.Model(
        states={"a": 1.0, "b": 0.0},
        parameters={
            "k": rf.Parameter(0.5, 0.01, 10.0, scale="log"),
            "s": rf.Parameter(1.0, -3.0, 5.0),
            "free": rf.Parameter(2.0),
        },
        vector_field=lambda t, y, p, c: {"a": -p["k"] * y["a"], "b": p["k"] * y["a"]},
        observed={
            "a": lambda t, y, p, c: p["s"] * y["a"],
            "b": lambda t, y, p, c: p["free"] * y["b"],
        },
        noise={"a": rf.Noise("normal"), "b": rf.Noise("proportional")},
    )
    times = np.arange(8.0)
    a = np.exp(-0.4 * times) + 0.01 * np.cos(7 * times)
    b = np.where(times > 5, 1 - np.exp(-0.4 * times), np.nan)
    return model, assemble(model, {"time": times, "a": a, "b": b})


def test_points_lie_one_in_each_cell_between_the_bounds(late):
    model, dataset = late
    lay = problem.layout(model, len(dataset.groups))
    points = starts.drawn(lay, 20, seed=3)
    assert points.shape == (20, 3) and starts.drawn(lay, 0, seed=3).shape == (0, 3)
    k, s, free = points.T
    for x, low, high in ((k, np.log(0.01), np.log(10.0)), (s, -3.0, 5.0), (free, 0.0, 4.0)):
        cells = np.floor((x - low) / (high - low) * 20).astype(int)
        assert sorted(cells) == list(range(20))  # a Latin hypercube
    np.testing.assert_array_equal(starts.drawn(lay, 20, seed=3), points)
    np.testing.assert_allclose(starts.reach(lay), [np.log(10.0), 2.0, np.inf])


def test_parts_of_the_data_grow_and_have_finite_likelihoods(late):
    model, dataset = late
    lay = problem.layout(model, len(dataset.groups))
    data = problem.group_data(model, dataset)
    found = starts.parts(data)
    assert [part.data.ts.max() for part in found] == [1.0, 3.0, 5.0]
    solver = solving.Solving(rtol=1e-6).solvers(0.0)[0]
    of = jax.jit(lambda u, data: problem.objective(model, lay, solver, data)(u))
    for part in found:
        assert jax.tree.map(np.shape, part.data) == jax.tree.map(np.shape, data)
        assert (part.data.weights[:, 1] == 0).all()  # of the second column nothing is left
        local = of(lay.start, part.data)
        ts = np.array(dataset.ts[0])
        used = ts <= part.data.ts.max()
        r = (dataset.values["a"][0] - np.exp(-0.5 * ts))[used]
        n = used.sum()
        closed = n / 2 * (np.log(np.mean(r**2)) + 1 + np.log(2 * np.pi))
        np.testing.assert_allclose(local.value, closed, rtol=1e-5)
        assert np.isfinite(local.gradient).all() and local.gradient[2] == 0
    few = data._replace(ts=data.ts[:, :3], weights=data.weights[..., :3])
    assert starts.parts(few) == []


def test_a_column_without_a_point_that_can_be_solved_takes_one_of_the_others():
    points = np.arange(12.0).reshape(3, 4, 1)
    values = np.array(
        [[3.0, np.inf, 9.0, np.nan], [1.0, np.nan, 2.0, np.inf], [5.0, np.inf, 7.0, np.inf]]
    )
    before = values.copy()
    # The best of columns 0 and 2 are points 4 and 6; of what is left 0 (3.0) and 8 (5.0) are best.
    chosen, dead = starts.best_of_columns(points, values)
    np.testing.assert_array_equal(chosen[:, 0], [4, 0, 6, 8])
    assert not len(dead)
    np.testing.assert_array_equal(values, before)
    # Nothing is left over: such a column begins where it cannot be solved.
    few, dead = starts.best_of_columns(points[:1, :2], np.array([[1.0, np.inf]]))
    assert dead.tolist() == [1]
    np.testing.assert_array_equal(few[:, 0], [0, 1])


def test_of_an_oscillating_model_most_searches_find_the_best_fit():
    model, table = example_files("hare-lynx")
    found = rf.fit(model, table)
    # (From the drawn points themselves 3 to 7 of 16 do.)
    assert sum(start.reached_best for start in found.starts) >= 12
    np.testing.assert_allclose(found.nll, 122.92595048, rtol=1e-9)
    names = found.free_names
    for start in found.starts:
        if start.reached_best:
            np.testing.assert_allclose(start.values, [found[n] for n in names], rtol=1e-3)


@pytest.mark.parametrize("screen", [-1, 1.5, True])
def test_a_screen_that_is_no_number_of_points_is_refused(screen):
    model, table = example_files("hare-lynx")
    with pytest.raises(rf.InputError, match="screen must be an integer, at least 0"):
        rf.fit(load_model(model), load_table(table), screen=screen)
