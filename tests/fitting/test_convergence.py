"""When a batch of searches has converged, and which of them is reported."""

import numpy as np
import pytest

import rootflow as rf
from rootflow.fitting import search
from rootflow.fitting.convergence import judged, outcome
from rootflow.fitting.problem import Layout
from rootflow.roots.solvers import damped_newton as dn


def states(values, status, gradient=None, curvature=None):
    n = len(values)
    flat = np.zeros((n, 2)) if gradient is None else np.asarray(gradient, float)
    curved = np.broadcast_to(np.eye(2), (n, 2, 2)) if curvature is None else np.asarray(curvature)
    local = dn.Local(np.asarray(values, float), flat, curved)
    ones = np.ones(n)
    return dn.State(np.zeros((n, 2)), local, ones, ones, ones.astype(int), np.asarray(status))


def layout(lower=-1.0, upper=1.0):
    names = ["a", "b"]
    return Layout(
        names, np.array([-1, -1]), ("a", "b"), np.array([[0, 1]]), np.zeros(2),
        np.full(2, lower), np.full(2, upper), np.zeros(2, bool),
    )  # fmt: skip


BEST = 343.587649765634


def test_a_stalled_hair_below_thirteen_that_converged():
    """The stalled search is 3e-10 lower: the fit has converged, and a converged one is reported."""
    values = [BEST] * 13 + [BEST - 3e-10]
    steep = np.zeros((14, 2))
    steep[-1] = 1.0  # promises 1: it has not converged itself
    found, done, reached = judged(
        states(values, [dn.CONVERGED] * 13 + [dn.STALLED], steep), layout()
    )
    assert found < 13 and done[:13].all() and not done[13] and reached.all()


def test_a_better_end_that_did_not_converge_is_not_explained_away():
    values = [BEST, BEST - 1e-3]
    steep = [[0.0, 0.0], [0.1, 0.0]]
    found, done, reached = judged(states(values, [dn.CONVERGED, dn.STALLED], steep), layout())
    assert found == 1 and not done[1] and reached.all()
    found, done, _ = judged(states([BEST, BEST - 1.0], [dn.CONVERGED] * 2), layout())
    assert found == 1 and done[1]


@pytest.mark.parametrize("status", [dn.STALLED, dn.MAX_ITERATIONS])
def test_a_search_that_stops_at_round_off_has_converged(status):
    """Promised reductions of a full Newton step: g^2 / 2 for unit curvature."""
    # No step improves a stalled search: 0.045 standard errors are as good as it gets.
    for pull, expected in ((1e-4, True), (1e-2, status == dn.STALLED), (5e-2, False)):
        _, done, _ = judged(states([BEST], [status], [[pull, 0.0]]), layout())
        assert done[0] == expected
    # A bound that the gradient pushes against counts for nothing, one that it leaves does.
    for pull, expected in ((1.0, True), (-1.0, False)):
        _, done, _ = judged(states([BEST], [status], [[pull, 0.0]]), layout(lower=0.0))
        assert done[0] == expected
    # A direction without curvature, along which the objective still falls.
    flat = [[[1.0, 1.0], [1.0, 1.0]]]
    for pull, expected in (([1e-5, 1e-5], True), ([1e-2, -1e-2], False)):
        _, done, _ = judged(states([BEST], [status], [pull], flat), layout())
        assert done[0] == expected


def test_ties_are_scaled_to_the_objective():
    """1e-9 of a value of 1e5 is within the error of a sum of so many terms."""
    values = [1e5, 1e5 - 5e-5]
    steep = [[0.0, 0.0], [1.0, 0.0]]
    found, done, _ = judged(states(values, [dn.CONVERGED, dn.STALLED], steep), layout())
    assert found == 0 and done[0]


def test_what_the_error_of_the_solves_hides_is_one_value():
    """A stalled search 5e-5 below one that converged: the solves are no better than 1e-4."""
    values = [BEST, BEST - 5e-5]
    ends = states(values, [dn.CONVERGED, dn.STALLED], [[0.0, 0.0], [1.0, 0.0]])
    for noise, expected in ((0.0, 1), (1e-4, 0)):
        found, done, _ = judged(ends, layout(), noise)
        assert found == expected and done[found] == (expected == 0)
    # What counts for it has a limit: 0.01.
    ends = states([BEST, BEST - 0.1], [dn.CONVERGED, dn.STALLED], [[0.0, 0.0], [1.0, 0.0]])
    assert judged(ends, layout(), 1e6)[0] == 1


def test_a_step_that_changes_nothing_leads_nowhere():
    """Where the curvature is huge the promise may be large, and the step below round-off."""
    curved = np.broadcast_to(1e20 * np.eye(2), (1, 2, 2))
    for pull, expected in ((1e12, True), (1e18, False)):  # 1e-8 and 0.01 of a coordinate of 1
        ends = states([BEST], [dn.MAX_ITERATIONS], [[pull, 0.0]], curved)
        ends = ends._replace(x=np.full((1, 2), 0.5))
        assert judged(ends, layout())[1][0] == expected


@pytest.mark.parametrize(("size", "relative"), [(1.0, True), (3e13, True), (3e-15, False)])
def test_the_unit_of_a_parameter_does_not_hold_it_still(size, relative):
    """A decay through points of which a straight line tells the best: of logarithms, or of x."""
    t = np.linspace(0.0, 6.0, 13)
    off = 0.1 * np.cos(5 * t)
    x, k = rf.Parameter(size / 3, size / 1e3, size * 1e3), rf.Parameter(0.3, 0.0, 5.0)
    if relative:
        y, field = size * np.exp(-0.4 * t + off), lambda t, y, p: {"x": -p["k"] * y["x"]}
        slope, level = np.polyfit(t, np.log(y), 1)
        best = np.exp(level), -slope
    else:
        y, field = size * (1 + 0.4 * t + off), lambda t, y, p: {"x": p["k"] * size + 0 * y["x"]}
        slope, level = np.polyfit(t, y, 1)
        best = level, slope / size
    noise = "lognormal" if relative else "normal"
    result = rf.fit(
        field, {"time": t, "x": y}, states={"x": x}, parameters={"k": k}, noise=noise, starts=1,
        atol=1e-40,
    )  # fmt: skip
    assert result.outcome == "converged"
    np.testing.assert_allclose([result["x"], result["k"]], best, rtol=1e-5)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        ((True, dn.CONVERGED, False, False, False), "converged"),
        ((True, dn.STALLED, True, True, True), "flat"),
        ((True, dn.MAX_ITERATIONS, False, False, True), "at a bound"),
        ((False, dn.MAX_ITERATIONS, True, False, False), "out of iterations"),
        ((False, dn.STALLED, True, True, False), "blocked"),
        ((False, dn.STALLED, False, False, True), "stalled"),
    ],
)
def test_how_a_search_ended_has_a_name(said, word):
    assert outcome(*said) == word


def test_no_search_that_can_be_evaluated_but_one():
    found, done, reached = judged(states([np.inf, 2.0], [dn.STALLED, dn.CONVERGED]), layout())
    assert found == 1 and list(done) == [False, True] and list(reached) == [False, True]


def test_the_fit_reports_it(monkeypatch):
    """The same through `rf.fit`, with the ends of its searches made by hand."""
    steep = np.zeros((14, 2))
    steep[-1] = 1.0
    ends = states([BEST] * 13 + [BEST - 3e-10], [dn.CONVERGED] * 13 + [dn.STALLED], steep)
    aux = (np.ones((14, 1)), np.ones((14, 1)), np.zeros((14, 0, 2, 2)), np.zeros((14, 0, 2)))
    ends = ends._replace(x=np.ones((14, 2)), local=ends.local._replace(aux=aux))
    monkeypatch.setattr(search.Search, "run", lambda *arguments, **options: ends)
    times = np.arange(6.0)
    result = rf.fit(
        lambda t, y, p: {"x": p["slope"] + 0.0 * y["x"]}, {"time": times, "x": times},
        states={"x": rf.Parameter(1.0)}, parameters={"slope": rf.Parameter(0.1)}, starts=14,
    )  # fmt: skip
    assert result.converged and not result.warnings and result.message == "converged"
    assert [s.converged for s in result.starts] == [True] * 13 + [False]
    assert all(s.reached_best for s in result.starts)
    assert result.nll == BEST
