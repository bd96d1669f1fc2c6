"""What a function reads, told from its code: never equal where a call could differ."""

import dataclasses
import gc
import random
import sys
import types
import weakref
from collections import namedtuple
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow import generative
from rootflow.flows.solve import Problem
from rootflow.ground import programs
from rootflow.ground.reads import of_call

HERE = sys.modules[__name__]
NUMBER = 2.0
ARRAY = jnp.arange(3.0)
NUMPY = np.arange(3.0)
TABLE = {"rate": 2.0, "rows": [1.0, 2.0]}
RECORD = namedtuple("RECORD", "rate")(2.0)
OBJECT = types.SimpleNamespace(rate=2.0)
COUNT = 0


class Rates(NamedTuple):
    rate: float


class Method(NamedTuple):
    rate: float

    def doubled(self):
        return self.rate * NUMBER


class Field(eqx.Module):
    rate: float

    def __call__(self, y):
        return self.rate * NUMBER * y


def helper(y):
    return NUMBER * y


@jax.jit
def jitted(y):
    return NUMBER * y


def through_helper(y):
    return helper(y) + 1.0


def through_inner(y):
    def inner(z):
        return sum(NUMBER * x for x in (z, y))

    return inner(y)


def with_default(y, factor=NUMBER, *, more=NUMBER):
    return factor * more * y


READ = {
    "number": (lambda y: NUMBER * y, "NUMBER", 3.0),
    "sign of zero": (lambda y: y / NUMBER, "NUMBER", -0.0),
    "type of a number": (lambda y: y * NUMBER, "NUMBER", 2),
    "array": (lambda y: ARRAY * y, "ARRAY", jnp.arange(3.0)),
    "numpy": (lambda y: NUMPY * y, "NUMPY", np.arange(3.0) + 1),
    "dtype": (lambda y: NUMPY * y, "NUMPY", np.arange(3.0, dtype=np.float32)),
    "dictionary": (lambda y: TABLE["rate"] * y, "TABLE", {"rate": 3.0, "rows": [1.0, 2.0]}),
    "list": (lambda y: TABLE["rows"][1] * y, "TABLE", {"rate": 2.0, "rows": [1.0, 3.0]}),
    "named tuple": (lambda y: RECORD.rate * y, "RECORD", RECORD._replace(rate=3.0)),
    "function": (through_helper, "helper", lambda y: 3.0 * y),
    "number of a function": (through_helper, "NUMBER", 3.0),
    "number of an inner function": (through_inner, "NUMBER", 3.0),
    "partial": (partial(helper, 1.0), "NUMBER", 3.0),
    "module": (lambda y: HERE.NUMBER * y, "NUMBER", 3.0),
    "function of a module": (lambda y: HERE.helper(y), "NUMBER", 3.0),
    "derivative": (lambda y: jax.grad(helper)(y), "NUMBER", 3.0),
    "of a package": (lambda y: jnp.sin(NUMBER * y), "NUMBER", 3.0),
    "jitted": (lambda y: jitted(y), "NUMBER", 3.0),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_function_reads_is_told_apart(name, monkeypatch):
    function, variable, other = READ[name]
    old = globals()[variable]
    before = of_call(function, (1.0,))
    assert before is not None
    assert of_call(function, (1.0,)) == before
    monkeypatch.setitem(globals(), variable, other)
    assert of_call(function, (1.0,)) != before
    monkeypatch.setitem(globals(), variable, old)
    assert of_call(function, (1.0,)) == before


def closing_over(value):
    return lambda y: value * y


def test_functions_with_the_same_code_are_equal_if_they_close_over_the_same():
    same = [closing_over(2.0) for _ in range(2)]
    assert of_call(same[0], (1.0,)) == of_call(same[1], (1.0,))
    for one, other in (
        (2.0, 3.0), (0.0, -0.0), (2, 2.0), (True, 1), (ARRAY, ARRAY + 0.0), ([1.0], (1.0,)),
        (NUMPY, NUMPY[::-1]), (helper, through_helper), (Rates(2.0), Rates(3.0)),
        (jnp.sin, jnp.cos), (np.float32(2), np.float64(2)), ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ):  # fmt: skip
        keys = [of_call(closing_over(value), (1.0,)) for value in (one, other, one)]
        assert None not in keys
        assert keys[0] == keys[2] and keys[0] != keys[1], (one, other)


def test_arguments_are_told_apart_by_shape_and_type_and_what_is_no_array_by_value():
    x = jnp.ones(3)
    key = of_call(helper, (x, 2))
    assert of_call(helper, (x + 1.0, 2)) == key
    for other in (
        (jnp.ones(4), 2), (jnp.ones(3, np.float32), 2), (x, 3), (x, 2.0), [x, 2], (x, (2,)),
        (jnp.ones((3, 1)), 2), (x, helper),
    ):  # fmt: skip
        assert of_call(helper, other) not in (key, None)
    weak, strong = jnp.asarray(2.0), jnp.asarray(np.float64(2.0))
    assert of_call(helper, (weak,)) != of_call(helper, (strong,))
    net = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
    other = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(1))
    assert of_call(helper, (net,)) == of_call(helper, (other,)) is not None
    tanh = eqx.nn.MLP(2, 2, 4, 1, activation=jnp.tanh, key=jax.random.key(1))
    assert of_call(helper, (net,)) != of_call(helper, (tanh,))


def importing(y):
    from os import environ

    return len(environ) * y


def counting(y):
    global COUNT
    COUNT += 1
    return y


def method(y):
    return OBJECT.rate * y


def of_helper(y):
    return helper.rate * y


@dataclasses.dataclass
class Mutable:
    rate: float


@pytest.mark.parametrize(
    "function",
    [
        importing, counting, method, of_helper, Field(2.0), Method(2.0).doubled,
        lambda y: random.random() * y, lambda y: np.random.normal() * y,
        lambda y: eval("NUMBER") * y, lambda y: globals()["NUMBER"] * y,
        lambda y: sys.modules[__name__].NUMBER * y,
        lambda y, name="NUMBER": getattr(HERE, name) * y,
        lambda y: jnp.load("table.npy") * y, lambda y: np.load("table.npy") * y,
        lambda y: missing * y,
        lambda y: jax.config.jax_enable_x64 * y, closing_over(Mutable(2.0)),
        closing_over(Method(2.0)), closing_over({1.0}), closing_over(iter([1.0])),
        closing_over(HERE), lambda y: Rates(y).rate, lambda y, new=Mutable: new(y),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_not_guessed(function):
    assert of_call(function, (1.0,)) is None
    # Nor where it is called by another.
    assert of_call(lambda y: function(y), (1.0,)) is None


def test_large_tables_are_not_gone_through():
    assert of_call(closing_over([0.0] * 100), (1.0,)) is not None
    assert of_call(closing_over([0.0] * 20_000), (1.0,)) is None


JITTED = jax.jit(lambda y: y)
JITTED.rate = 2.0
PARTIAL = partial(helper)
PARTIAL.rate = 2.0
UFUNC = np.frompyfunc(lambda v: NUMBER * v, 1, 1)
VERSION = sys.version_info


class Attributes(dict):
    __getattr__ = dict.__getitem__


class Pair(tuple):
    pass


class Shown(NamedTuple):
    rate: float

    def __repr__(self):
        return str(NUMBER)


ITSELF: dict = {}
ITSELF["self"] = ITSELF
ATTRIBUTES = Attributes(rate=2.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: JITTED.rate * y, lambda y: PARTIAL.rate * y, lambda y: UFUNC(1.0) * y,
        lambda y: ITSELF["self"] and y, lambda y: ATTRIBUTES.rate * y, closing_over(Pair((1,))),
        closing_over(Shown(1.0)), lambda y: y if VERSION >= (3, 0) else -y,
        lambda y: helper.__globals__["NUMBER"] * y, closing_over(np.random),
        lambda y: np.random.default_rng() * y,
    ],
)  # fmt: skip
def test_what_has_more_to_it_than_shows_is_not_guessed(function):
    assert of_call(function, (1.0,)) is None


def test_shapes_of_arrays_and_rules_of_derivatives_are_read(monkeypatch):
    one, other = np.array(1.0), np.array([1.0])
    assert of_call(closing_over(one), (1.0,)) != of_call(closing_over(other), (1.0,))

    @jax.custom_jvp
    def square(x):
        return x * x

    @square.defjvp
    def _(primals, tangents):
        return square(*primals), NUMBER * primals[0] * tangents[0]

    slope = jax.grad(lambda a: rf.solve_ode(lambda t, y, a: square(a), 1.0, (0.0, 1.0), a).ys[-1])
    for number in (2.0, 5.0, 2.0):
        monkeypatch.setitem(globals(), "NUMBER", number)
        np.testing.assert_allclose(slope(3.0), number * 3.0, rtol=1e-5)


def test_functions_among_the_parameters_of_delay_equations_are_read():
    field = lambda t, y, past, args: args["activation"](y) * args["rate"]
    for activation, sign in ((jnp.negative, -1.0), (jnp.positive, 1.0), (jnp.negative, -1.0)):
        y = rf.solve_dde(
            field, lambda t: jnp.ones(1), [1.0], (0.0, 0.2), {"rate": 1.0, "activation": activation}
        ).ys[-1]  # fmt: skip
        np.testing.assert_allclose(y, np.exp([0.2 * sign]), rtol=1e-4)


def test_batches_with_names_and_functions_of_the_host_are_not_mixed_up():
    condition = lambda x, p: x - p * jax.lax.psum(1, "i")
    for n in (3, 5):
        of = lambda z: rf.root(condition, jnp.ones(2), 2.0)[0] * z
        np.testing.assert_allclose(jax.vmap(of, axis_name="i")(jnp.ones(n)), 2.0 * n, rtol=1e-6)

    def counted(seen):
        def field(t, y, args):
            jax.debug.callback(lambda: seen.append(1))
            return -y

        return field

    for solve in (
        lambda f: rf.solve_ode(f, 1.0, (0.0, 0.1), dt=0.1).ys,
        lambda f: rf.root(lambda x, p: f(0.0, x, None) + p, jnp.ones(1), 2.0),
    ):
        counts = []
        for _ in range(2):
            seen = []
            jax.block_until_ready(solve(counted(seen)))
            jax.effects_barrier()
            counts.append(len(seen))
        assert counts[0] > 0 and counts[1] > 0


def test_what_is_done_to_samples_after_a_step_is_read(monkeypatch):
    denoiser = generative.exact.GaussianMixture([[0.0]], 1.0).denoiser(generative.VPLinear())
    sample = lambda: generative.sample(
        denoiser, start=jnp.ones((1, 1)), steps=2, callback=lambda step, t, x, data: 0 * x + NUMBER
    )
    for number in (1.0, 5.0, 1.0):
        monkeypatch.setitem(globals(), "NUMBER", number)
        np.testing.assert_allclose(sample(), number)


def test_auxiliary_functions_and_arrays_of_numpy_are_what_they_were():
    _, twice = rf.root(lambda x, p: (x - p, lambda z: 2 * z), jnp.ones(2), 2.0, has_aux=True)
    assert twice(3.0) == 6.0
    table = lambda x, p: (x - p, np.array([2**40]))
    for _ in range(2):
        aux = rf.root(table, jnp.ones(2), 2.0, has_aux=True)[1]
        assert isinstance(aux, np.ndarray) and aux[0] == 2**40
        aux[0] = 0  # what the next call returns is another


def test_traced_values_are_not_told_apart():
    def look(x):
        assert of_call(lambda y: x * y, (1.0,)) is None
        return x

    jax.jit(look)(1.0)
    jax.grad(look)(1.0)


def test_arrays_that_functions_close_over_are_not_kept():
    array = jnp.ones(50_000)
    gone = weakref.ref(array)
    x = rf.root(lambda x, p: p * x - jnp.mean(array), jnp.ones(2), 2.0)
    np.testing.assert_allclose(x, 0.5)
    y = rf.solve_ode(lambda t, y, args: -jnp.mean(array) * y, 1.0, (0.0, 1.0)).ys[-1]
    np.testing.assert_allclose(y, np.exp(-1.0), rtol=1e-5)
    key = of_call(lambda y: array * y, (1.0,))
    assert key is not None
    del array
    gc.collect()
    for kept in (programs._TRACED, programs._BEHAVIOUR):
        assert not [v for v in jax.tree.leaves(list(kept.values.values())) if v is gone()]


def exec_in(source, **scope):
    exec(compile(source, "a module", "exec"), scope)
    return scope


def test_the_first_function_of_its_kind_is_not_used_once_its_own_module_has_changed():
    """Two functions with one code, in two modules of which one changes."""
    source = "def f(t, y, args):\n    return -k * y\n"
    one, other = exec_in(source, k=1.0), exec_in(source, k=1.0)
    solve = lambda scope: float(rf.solve_ode(scope["f"], 1.0, (0.0, 1.0)).ys[-1])
    for a, b in ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.0, 2.0), (1.0, 1.0)):
        one["k"], other["k"] = a, b
        np.testing.assert_allclose((solve(one), solve(other)), np.exp([-a, -b]), rtol=1e-5)


@pytest.mark.parametrize("variable", ["RATE", "TABLE", "OBJECT"])
def test_a_changed_global_is_seen_by_roots_and_delays(variable):
    """Whether or not it can be told from the code."""
    value = {"RATE": "RATE", "TABLE": "TABLE[0]", "OBJECT": "OBJECT.rate"}[variable]
    source = f"""
def rate(): return {value}
def condition(x, p): return rate() * x - p
def mapping(x, p): return p / rate() + 0.0 * x
def objective(x, p): return (x - p / rate()) @ (x - p / rate())
def field(t, x, p): return p - rate() * x
def delayed(t, y, past, args): return -rate() * past[0]
"""
    scope = exec_in(source, RATE=1.0, TABLE=[1.0], OBJECT=types.SimpleNamespace(rate=1.0))
    start = jnp.ones(2)
    calls = {
        "root": lambda: rf.root(scope["condition"], start, 2.0),
        "fixed_point": lambda: rf.fixed_point(scope["mapping"], start, 2.0),
        "argmin": lambda: rf.argmin(scope["objective"], start, 2.0),
        "box": lambda: rf.argmin(
            scope["objective"], start, 2.0, constraint=rf.sets.Box(0.0, 9.0)
        ),
        "inequality": lambda: rf.argmin(
            scope["objective"], start, 2.0, inequality=lambda x, p: -x
        ),
        "steady_state": lambda: rf.steady_state(scope["field"], start, 2.0),
    }  # fmt: skip
    for rate in (1.0, 2.0, 1.0):
        scope["RATE"], scope["TABLE"][0], scope["OBJECT"].rate = rate, rate, rate
        for name, call in calls.items():
            np.testing.assert_allclose(call(), 2.0 / rate, rtol=1e-6, err_msg=name)
        # Constant history: up to the delay the solution is a straight line.
        y = rf.solve_dde(scope["delayed"], lambda t: jnp.ones(1), [1.0], (0.0, 0.5)).ys[-1]
        np.testing.assert_allclose(y, 1.0 - 0.5 * rate, atol=1e-9)


def test_a_function_written_anew_at_each_call_is_not_compiled_anew(monkeypatch):
    def solve(rate):
        def field(t, y, args):
            return -args * jnp.tanh(y)

        return rf.solve_ode(field, 1.0, (0.0, 1.0), rate).ys[-1]

    solve(1.0)
    with monkeypatch.context() as context:
        context.setattr(Problem, "solve", None)  # what is compiled
        values = [float(solve(rate)) for rate in (1.0, 2.0, 3.0)]
    # d/dt sinh(y) = -r sinh(y)
    np.testing.assert_allclose(
        values, np.arcsinh(np.sinh(1.0) * np.exp(-np.arange(1.0, 4.0))), rtol=1e-4
    )


def test_calls_of_verbs_are_not_even_traced_again(monkeypatch):
    start = jnp.ones(2)
    calls = {
        "root": lambda p: rf.root(lambda x, p: p * x - 1.0, start, p),
        "named": lambda p: rf.root(lambda x, *, p: p * x - 1.0, start, kwargs={"p": p}),
        "argmin": lambda p: rf.argmin(lambda x, p: jnp.sum((p * x - 1.0) ** 2), start, p),
        "steady": lambda p: rf.steady_state(lambda t, x, p: 1.0 - p * x, start, p),
        "aux": lambda p: rf.root(lambda x, p: (p * x - 1.0, {"twice": 2 * x, "name": "x"}),
                                 start, p, has_aux=True),
    }  # fmt: skip
    first = {name: call(2.0) for name, call in calls.items()}
    with monkeypatch.context() as context:
        context.setattr(programs, "_traced", None)
        again = {name: call(4.0) for name, call in calls.items()}
    for name in calls:
        a, b = first[name], again[name]
        if name == "aux":
            (a, more), (b, aux) = a, b
            assert more["name"] == aux["name"] == "x"
            np.testing.assert_allclose(aux["twice"], 2 * b)
        np.testing.assert_allclose(a, 0.5, rtol=1e-7)
        np.testing.assert_allclose(b, 0.25, rtol=1e-7)


def test_settings_of_jax_are_seen_by_programs_that_are_not_traced_again():
    condition = lambda x, p: jnp.asarray(p) * x - 1.0
    with jax.enable_x64(True):
        assert rf.root(condition, np.ones(2), 3.0).dtype == np.float64
    with jax.enable_x64(False):
        single = rf.root(condition, np.ones(2), 3.0)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, 1 / 3, rtol=1e-6)
