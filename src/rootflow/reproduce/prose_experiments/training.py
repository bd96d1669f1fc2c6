"""Small networks on a few systems: what a guess of the equations is worth, what is written."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...neural import prose

SCARCE = ("thomas", "sprott-b", "sprott-linz-f", "rossler", "four-wing")
THREE = ("thomas", "sprott-b", "sprott-linz-f")
FOUR = ("thomas", "sprott-b", "sprott-linz-f", "rossler")
_WORDS = prose.Vocabulary(dims=3)
_LIMIT = 64


class Setting(NamedTuple):
    """How many trajectories of each system, steps of training, trajectories to test on, systems."""

    count: int
    steps: int
    test: int
    systems: int = 5


def network(**options: Any) -> prose.Prose:
    """The small network, in single precision."""
    sizes: dict[str, Any] = dict(width=64, heads=4, data_layers=1, symbol_layers=1, fusion_layers=2,
                 decoder_layers=2, symbol_decoder_layers=1, horizon=4.0)  # fmt: skip
    net = prose.Prose(_WORDS, **(sizes | options), key=jax.random.key(0))
    single = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    return jax.tree.map(single, net)


def data(
    names: Sequence[str], ts: Any, observed: int, count: int, seed: int, **options: Any
) -> prose.Examples:
    """Examples of several systems, without wrong terms unless asked for."""
    systems = [prose.system(name) for name in names]
    rates: dict[str, Any] = {"add": 0.0, "delete": 0.0} | options
    made = prose.examples(
        systems, _WORDS, ts, observed=observed, count=count, key=jax.random.key(seed), **rates
    )
    return made


def labelled(examples: prose.Examples) -> prose.Examples:
    """With one word that says which system it is in place of the guess."""
    first = _WORDS.index["N000"]
    return examples._replace(guess=(first + examples.family)[:, None].astype(np.int32))


def trained(net: prose.Prose, examples: prose.Examples, steps: int) -> Any:
    """By AdamW, 2e-3 with a cosine and 100 steps of warm-up, 64 examples a step."""
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, min(100, steps // 4), steps)
    return prose.train(
        net, examples, key=jax.random.key(1), steps=steps, rate=rate, every=steps, progress=False
    ).model


def predicted(net: prose.Prose, examples: prose.Examples) -> np.ndarray:
    """The states at the queries."""
    single = lambda x: jnp.asarray(x, jnp.float32)

    @eqx.filter_jit
    def run(net, t, u, guess, queries):
        one = lambda t, u, guess, q: net.states(net.encode(t, u, guess), q)
        return jax.vmap(one)(t, u, guess, queries)

    return np.asarray(
        run(net, single(examples.t), single(examples.u), examples.guess, single(examples.queries))
    )


def errors(net: prose.Prose, examples: prose.Examples) -> list[float]:
    """The mean relative error against clean targets, system by system."""
    each = prose.relative_error(predicted(net, examples), examples.clean)
    return [float(each[examples.family == i].mean()) for i in np.unique(examples.family)]


def scarce(
    setting: Setting, tell: Callable[[str], None], inputs: Sequence[str] | None = None
) -> dict[str, list[float]]:
    """Three observed points of 32 on [0, 4]: errors by input (default all), system by system."""
    ts = np.linspace(0.0, 4.0, 32)
    names = SCARCE[: setting.systems]
    made = lambda guess: tuple(
        data(names, ts, 3, count, seed, guess=guess)
        for count, seed in ((setting.count, 2), (setting.test, 3))
    )
    skeleton = made("skeleton")
    same = lambda: skeleton
    only = {"outputs": "trajectory"}
    runs = {
        "no symbols": ({"inputs": "data"}, same),
        "no symbols, deep": ({"inputs": "data", "data_layers": 4}, same),
        "label": ({}, lambda: tuple(map(labelled, skeleton))),
        "skeleton": ({}, same),
        "known": ({}, lambda: made("known")),
    }
    found = {}
    for name in runs if inputs is None else inputs:
        tell(name)
        options, examples = runs[name]
        training, test = examples()
        found[name] = errors(trained(network(**only, **options), training, setting.steps), test)
    test = skeleton[1]
    last = np.repeat(test.u[:, -1:], 29, axis=1)
    stay = prose.relative_error(last, test.clean)
    found["last value"] = [float(stay[test.family == i].mean()) for i in range(len(names))]
    return found


def written(net: prose.Prose, examples: prose.Examples) -> list[list[str]]:
    """The equations in words, all at once."""
    t, u = (jnp.asarray(x, jnp.float32) for x in (examples.t, examples.u))
    dims = np.asarray(examples.real).sum(axis=1)
    out = prose.greedy(net, t, u, jnp.asarray(examples.guess), dims, limit=_LIMIT)
    return [_WORDS.decode(row) for row in np.asarray(out)]


def written_errors(
    texts: list[list[str]], examples: prose.Examples, names: Sequence[str]
) -> dict[str, Any]:
    """Of written equations: the valid fraction, forms repaired, and errors beside nominal ones."""
    valid, forms, misses, nominal = [], [], [], []
    for i, text in enumerate(texts):
        system = prose.system(names[int(examples.family[i])])
        truth = _WORDS.decode(examples.text[i])
        exact = prose.parse(truth, system.dims)
        key = jax.random.key(i)
        states = np.asarray(jax.random.uniform(key, (50, system.dims), float, -5.0, 5.0))
        valid.append(prose.is_valid(text, system.dims, states))
        forms.append(prose.same_form(text, truth))
        if valid[-1]:
            found = prose.parse(text, system.dims)
            misses.append(prose.expression_error(found, exact, system.dims, key=key))
            plain = system.equations(system.nominal)
            nominal.append(prose.expression_error(plain, exact, system.dims, key=key))
    return {
        "valid": float(np.mean(valid)), "form": float(np.mean(forms)),
        "expression": float(np.mean(misses)), "median": float(np.median(misses)),
        "nominal": float(np.mean(nominal)),
    }  # fmt: skip


def plenty(setting: Setting, guess: str, *, fitted: bool = False, **options: Any) -> dict[str, Any]:
    """Sixteen observed points of 32 on [0, 4]: both heads for one kind of guess.

    With `fitted`, the numbers that were written are fitted to the observed window too.
    """
    ts = np.linspace(0.0, 4.0, 32)
    kind = "skeleton" if guess == "none" else guess
    names = THREE[: setting.systems]
    training = data(names, ts, 16, setting.count, 4, guess=kind)
    test = data(names, ts, 16, setting.test, 5, guess=kind)
    if guess == "none":
        net = network(inputs="data", outputs="trajectory")
        return {"error": float(np.mean(errors(trained(net, training, setting.steps), test)))}
    net = trained(network(**options), training, setting.steps)
    texts = written(net, test)
    found = {"error": float(np.mean(errors(net, test))), **written_errors(texts, test, THREE)}
    return found | (chained(net, texts, test) if fitted else {})


def untrained() -> float:
    """The share of valid equations that a network writes which has learnt nothing."""
    test = data(THREE[:1], np.linspace(0.0, 2.0, 12), 8, 20, 5)
    net = network(width=16, fusion_layers=1, decoder_layers=1)
    return float(np.mean([prose.is_valid(text, 3) for text in written(net, test)]))


def chained(net: prose.Prose, texts: list[list[str]], test: prose.Examples) -> dict[str, Any]:
    """Refined numbers of what was written, and what the distance of the heads tells."""
    count = min(60, len(texts))
    some = np.linspace(0, len(texts) - 1, count).astype(int)
    heads = predicted(net, test)
    before, after, apart, wrong = [], [], [], []
    for i in some:
        exact = prose.parse(_WORDS.decode(test.text[i]), 3)
        key = jax.random.key(int(i))
        equations = prose.parse(texts[i], 3)
        solution = prose.solved(equations, test.u[i, 0], test.queries[i], t0=float(test.t[i, 0]))
        if np.all(np.isfinite(solution)):
            apart.append(float(prose.relative_error(heads[i], solution)))
            wrong.append(float(prose.relative_error(heads[i], test.clean[i])))
        before.append(prose.expression_error(equations, exact, 3, key=key))
        fit = prose.refine(equations, test.t[i], test.u[i])
        after.append(prose.expression_error(fit.equations, exact, 3, key=key))
    ranks = lambda x: np.argsort(np.argsort(x))
    told = float(np.corrcoef(ranks(apart), ranks(wrong))[0, 1])
    return {
        "written": float(np.median(before)), "refined": float(np.median(after)), "told": told,
    }  # fmt: skip


def corrupted(setting: Setting) -> dict[str, dict[str, float]]:
    """Guesses with terms more or less: errors, and how often the written form is the true one."""
    ts = np.linspace(0.0, 4.0, 32)
    training = data(THREE, ts, 16, setting.count, 6, add=0.15, delete=0.15)
    net = trained(network(), training, setting.steps)
    found = {}
    for name, rates in (("intact", (0.0, 0.0)), ("added", (1.0, 0.0)), ("deleted", (0.0, 1.0))):
        test = data(THREE, ts, 16, setting.test, 7, add=rates[0], delete=rates[1],
                    guess_length=training.guess.shape[1] + 4)  # fmt: skip
        told = written_errors(written(net, test), test, THREE)
        found[name] = {"error": float(np.mean(errors(net, test))), **told}
    return found


def raw(setting: Setting) -> dict[str, float]:
    """The time as it is and no scaling, beside Fourier pairs and scaling: (2, 6], four systems."""
    ts = np.linspace(0.0, 6.0, 48)
    training = data(FOUR, ts, 16, setting.count, 8)
    test = data(FOUR, ts, 16, setting.test, 9)
    options = {"raw": dict(fourier=0, scaled=False), "scaled": dict(horizon=6.0)}
    return {
        name: float(np.mean(errors(
            trained(network(outputs="trajectory", **given), training, setting.steps), test)))
        for name, given in options.items()
    }  # fmt: skip
