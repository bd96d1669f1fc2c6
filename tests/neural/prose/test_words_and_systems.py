"""Words there and back, and the systems against closed forms and invariants of the literature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rootflow as rf
from rootflow.errors import InputError
from rootflow.neural import prose

WORDS = prose.Vocabulary(dims=3)
STATES = np.random.default_rng(0).uniform(-2.0, 2.0, (20, 5))


def test_numbers_are_rounded_to_three_digits():
    assert WORDS.encode_number(0.17) == ["+", "N170", "E-3"]
    assert WORDS.encode_number(0.0) == ["+", "N000", "E0"]
    rng = np.random.default_rng(1)
    for value in rng.choice([-1, 1], 500) * 10.0 ** rng.uniform(-8, 12.99, 500):
        assert WORDS.decode_number(WORDS.encode_number(value)) == float(f"{value:.2e}")
    assert len(WORDS) == len(set(WORDS.words)) == len(WORDS.index) > 1023


def test_numbers_without_words():
    for value in (1e-9, -3e13):
        with pytest.raises(InputError, match="reach from 1e-8 to 1e13"):
            WORDS.encode_number(value)
    with pytest.raises(InputError, match="must be finite"):
        WORDS.encode_number(float("nan"))
    with pytest.raises(InputError, match="not a sign, a mantissa and an exponent"):
        WORDS.decode_number(["+", "N17", "E-3"])
    with pytest.raises(InputError, match="'exp' is not in the vocabulary"):
        WORDS.encode(["exp", "u_0"])
    with pytest.raises(InputError, match="'wave' is not a function"):
        prose.Vocabulary(functions=("wave",))
    with pytest.raises(InputError, match="do not fit in a length of 1"):
        WORDS.encode(["sin", "u_0"], 1)
    assert "exp" in prose.Vocabulary(functions=("exp",)).index


CLOSED = {
    "thomas": lambda y: [np.sin(y[1]) - 0.17 * y[0], np.sin(y[2]) - 0.17 * y[1],
                         np.sin(y[0]) - 0.17 * y[2]],
    "lorenz": lambda y: [10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1],
                         y[0] * y[1] - 8 / 3 * y[2]],
    "aizawa-released": lambda y: [
        (y[2] - 0.7) * y[0] - 3.5 * y[1], 3.5 * y[0] + (y[2] - 0.7) * y[1],
        0.6 + 0.95 * y[2] - y[2] ** 3 / 3 - y[0] ** 2 + 0.1 * y[2] * y[0] ** 3],
    "rossler": lambda y: [-y[1] - y[2], y[0] + 0.1 * y[1], 0.1 + y[2] * (y[0] - 14)],
    "halvorsen": lambda y: [-0.35 * y[i] - y[(i + 1) % 3] - y[(i + 2) % 3]
                            - y[(i + 1) % 3] ** 2 / 4 for i in range(3)],
    "rabinovich-fabrikant": lambda y: [
        y[1] * (y[2] - 1 + y[0] ** 2) + 0.1 * y[0], y[0] * (3 * y[2] + 1 - y[0] ** 2) + 0.1 * y[1],
        -2 * y[2] * (0.98 + y[0] * y[1])],
    "duffing": lambda y: [1.0, y[2], -0.02 * y[2] - y[1] - 5 * y[1] ** 3 + 8 * np.cos(0.5 * y[0])],
    "four-wing": lambda y: [0.2 * y[0] + y[1] * y[2], 0.01 * y[0] - 0.4 * y[1] - y[0] * y[2],
                            -y[2] - y[0] * y[1]],
    "lorenz96-4": lambda y: [(y[(i + 1) % 4] - y[i - 2]) * y[i - 1] - y[i] + 8 for i in range(4)],
}  # fmt: skip


@pytest.mark.parametrize("name", prose.SYSTEMS)
def test_words_have_the_values_of_the_right_hand_side(name):
    system = prose.system(name)
    p = np.asarray(system.draw(jax.random.key(0), 1)[0])
    tokens = system.tokens(p)
    back = prose.parse(tokens, system.dims)
    assert back.tokens == tokens
    states = STATES[:, : system.dims]
    exact = jax.jit(jax.vmap(lambda y, p: system.f(0.0, y, p), (0, None)))
    found = jax.jit(jax.vmap(lambda y: back(0.0, y)))(states)
    np.testing.assert_allclose(found, exact(states, p), rtol=1e-12, atol=1e-12)
    blank = system.skeleton()
    assert blank == prose.skeleton_of(tokens)
    assert blank.count("<PLACEHOLDER>") == len(back.constants)
    assert prose.parse(blank, system.dims, placeholders=True).dims == system.dims
    if name in CLOSED:
        plain = exact(states, system.nominal)
        by_hand = [CLOSED[name](y) for y in states]
        np.testing.assert_allclose(plain, by_hand, rtol=1e-12, atol=1e-12)


def test_parameters_are_drawn_around_the_nominal_ones():
    pendulum = prose.system("double-pendulum")
    drawn = pendulum.draw(jax.random.key(1), 200)
    ratio = drawn / pendulum.nominal
    assert ratio.min() > 0.89 and ratio.max() < 1.11 and ratio.std() > 0.04
    np.testing.assert_allclose(ratio[:, 0], ratio[:, 2], rtol=0.011)  # multiples of one G
    np.testing.assert_array_equal(drawn[0], pendulum.rounded(drawn[0]))


@pytest.mark.parametrize(
    ("name", "divergence"), [("lorenz", -10 - 1 - 8 / 3), ("chen-lee", 5 - 10 - 0.38),
                             ("dadras", 0.75 - 1.25 - 4), ("lorenz96-5", -5.0)]
)  # fmt: skip
def test_divergences(name, divergence):
    system = prose.system(name)
    jacobian = jax.jit(jax.jacfwd(lambda y: system.f(0.0, y, system.nominal)))
    for y in STATES[:3, : system.dims]:
        assert float(jnp.trace(jacobian(jnp.asarray(y)))) == pytest.approx(divergence, rel=1e-12)


def test_symmetries_and_what_is_conserved():
    f = lambda name, y, p=None: np.asarray(
        prose.system(name).f(0.0, y, prose.system(name).nominal if p is None else p)
    )
    y = STATES[0, :3]
    for name in ("lorenz", "chen-lee"):
        turned = f(name, y * [-1, -1, 1])
        np.testing.assert_allclose(turned, f(name, y) * [-1, -1, 1], rtol=1e-12)
    for name in ("halvorsen", "thomas"):
        np.testing.assert_allclose(f(name, np.roll(y, 1)), np.roll(f(name, y), 1), rtol=1e-12)
    y = STATES[0, :4]
    free = f("lorenz96-4", y, [0.0]) + y  # neither forced nor damped
    assert abs(free @ y) < 1e-12

    def energy(y):
        a, b, u, v = y
        kinetic = u**2 + 0.5 * v**2 + u * v * jnp.cos(a - b)
        return kinetic - 2 * 9.81 * jnp.cos(a) - 9.81 * jnp.cos(b)

    loss = lambda name: float(jax.grad(energy)(jnp.asarray(y)) @ f(name, y))
    assert abs(loss("double-pendulum")) < 1e-12 < 0.1 < abs(loss("double-pendulum-released"))


def test_words_that_are_no_system():
    with pytest.raises(InputError, match="2 components were expected, and the words have 1"):
        prose.parse(["u_0"], 2)
    with pytest.raises(InputError, match="has 1 of its 2 arguments"):
        prose.parse(["add", "u_0"], 1)
    with pytest.raises(InputError, match="'u_1' has no place"):
        prose.parse(["u_1"], 1)
    with pytest.raises(InputError, match="placeholders=True"):
        prose.parse(["<PLACEHOLDER>"], 1)
    with pytest.raises(InputError, match="have placeholders"):
        prose.parse(["<PLACEHOLDER>"], 1, placeholders=True)(0.0, jnp.ones(1))
    with pytest.raises(InputError, match="no system 'lorentz'"):
        prose.system("lorentz")


def test_formulas_outside_the_vocabulary():
    with pytest.raises(InputError, match=r"'exp' in the formula 'exp\(u_0\)' of x is outside"):
        _ = prose.System("x", ["exp(u_0)"]).trees
    with pytest.raises(InputError, match=r"power u_0\*\*0.5 is outside"):
        _ = prose.System("x", ["u_0**0.5"]).trees
    with pytest.raises(InputError, match="low <= high"):
        prose.System("x", ["a*u_0"], {"a": 1.0}, low=[2.0], high=[1.0])
    wide = prose.System("x", ["exp(u_0)"], functions=("exp",))
    assert wide.skeleton() == ["exp", "u_0"]
    cube = prose.System("x", ["a*u_0**-3"], {"a": 2.0})
    assert cube.tokens([2.0])[4:] == ["inv", "mul", "u_0", "pow2", "u_0"]


def test_a_model_file_is_a_family(tmp_path):
    path = tmp_path / "prey.toml"
    path.write_text(
        """
[states]
hare = 30.0
lynx = 4.0
[parameters]
a = { guess = 0.5, lower = 0.2, upper = 0.8 }
b = { guess = 0.02 }
c = { guess = 0.9 }
[equations]
hare = "a*hare - b*hare*lynx"
lynx = "0.01*hare*lynx - c*lynx"
[observed]
hare = "hare"
"""
    )
    from rootflow.fitting.modelfile import load_model

    model = load_model(path)
    prey = prose.family(model)
    assert prey.dims == 2 and prey.low[0] == 0.2 and prey.high[1] == pytest.approx(0.022)
    np.testing.assert_allclose(prey.f(0.0, jnp.array([30.0, 4.0]), prey.nominal), [12.6, -2.4])
    made = prose.trajectories(prey, np.linspace(0, 1, 4), count=3, key=jax.random.key(0))
    assert made.us.shape == (3, 4, 2) and (made.us[:, 0] <= [45, 6]).all()
    with pytest.raises(InputError, match="no formulas for its states"):
        prose.family(rf.Model(lambda t, y, p, c: {"x": -y["x"]}, states={"x": 1.0},
                              parameters={"k": rf.Parameter(1.0)},
                              observed={"x": lambda t, y, p, c: y["x"]}))  # fmt: skip
