"""What is measured of a trained network: errors by round, by step of fine-tuning, out of range."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ...pde import operators as op

_ROUNDS = 8


class Size(NamedTuple):
    """How much is trained: steps, and problems in a step; problems to test on, and to tune on."""

    steps: int
    batch: int
    tests: int
    tuned: int
    tuning: int


QUICK, FULL = Size(500, 8, 16, 4, 100), Size(6000, 16, 64, 16, 1500)


def trained(size: Size, residual_aware: bool, seed: int = 0) -> Any:
    """A small network in single precision, after training."""
    make, run = jax.random.split(jax.random.key(seed))
    net = op.HyPINO(make)
    net = jax.tree.map(lambda v: v.astype(jnp.float32) if eqx.is_inexact_array(v) else v, net)
    steps, batch = size.steps, size.batch
    if residual_aware and steps > 1000:
        steps, batch = steps * 5 // 6, batch * 3 // 4
    return op.train_hypino(
        net, key=run, steps=steps, batch=batch, residual_aware=residual_aware
    ).model


def tests(count: int) -> Any:
    """Problems that were not seen."""
    return op.manufactured(jax.random.key(1000), count=count)


def _grid():
    line = jnp.linspace(-1.0, 1.0, 41)
    return jnp.stack(jnp.meshgrid(line, line), -1).reshape(-1, 2)


@eqx.filter_jit
def _values(many, x):
    return many.many(x)


def relative(solution: Any, exact: Any) -> float:
    """The error in L² over 41 x 41 points."""
    wanted = np.asarray(exact(_grid()))
    found = np.asarray(_values(solution, _grid()))
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


@eqx.filter_jit
def _of_mixes(targets, mixes, exact):
    """Errors of several combinations of the same networks."""
    parts = jax.vmap(lambda target: target.many(_grid()))(targets)
    wanted = exact(_grid())
    return jnp.linalg.norm(mixes @ parts - wanted, axis=1) / jnp.linalg.norm(wanted)


def by_round(net: Any, batch: Any, weights: str) -> tuple[np.ndarray, np.ndarray]:
    """Errors and residuals, shape (problems, rounds + 1)."""
    errors, residuals = [], []
    for i in range(len(batch)):
        found = op.refine(net, batch, i, rounds=_ROUNDS, weights=weights)  # pyright: ignore[reportArgumentType]
        mixes = [np.pad(r.solution.weights, (0, _ROUNDS - k)) for k, r in enumerate(found)]
        last = found[-1].solution.targets
        errors.append(np.asarray(_of_mixes(last, jnp.asarray(np.stack(mixes)), batch.many(i))))
        residuals.append([float(r.residual) for r in found])
    return np.array(errors), np.array(residuals)


def tuned(net: Any, batch: Any, size: Size) -> dict[str, Any]:
    """Errors by step from the network's answer and from random weights."""
    count = size.tuned
    problems = [batch.problem(i) for i in range(count)]
    exact = np.stack([np.asarray(batch.many(i)(_grid())) for i in range(count)])
    answers = [net.solution(p.coefficients, net.images(p)) for p in problems]
    keys = jax.random.split(jax.random.key(7), count)
    starts = {
        "hypino": [jax.tree.map(lambda v: v.astype(float), a) for a in answers],
        "random": [op.Target.random(key) for key in keys],
    }
    many = eqx.filter_jit(lambda targets: jax.vmap(lambda t: t.many(_grid()))(targets))

    def errors(targets):
        wrong = np.linalg.norm(np.asarray(many(targets)) - exact, axis=1)
        return wrong / np.linalg.norm(exact, axis=1)

    out: dict[str, Any] = {}
    for name, start in starts.items():
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *start)
        rows = [errors(stacked)]

        def record(targets, rows=rows):
            rows.append(errors(targets))
            return float(np.median(rows[-1]))

        found = op.fine_tune(
            problems, start, key=jax.random.key(8), steps=size.tuning, every=100,
            validation=record,
        )  # fmt: skip
        out[name] = np.array(rows)
        out[name + " solutions"] = found.solutions
    return out


def then(batch: Any, found: dict[str, Any], count: int = 3) -> np.ndarray:
    """Errors after 300 more steps of SSBroyden, (problems, [hypino, random])."""
    rows = []
    for i in range(count):
        row = []
        for name in ("hypino", "random"):
            start = found[name + " solutions"][i]
            more = op.fine_tune(
                batch.problem(i), start, key=jax.random.key(9), steps=0, then="ssbroyden"
            )  # fmt: skip
            row.append(relative(more.solutions[0], batch.many(i)))
        rows.append(row)
    return np.array(rows)


def out_of_range(net: Any, count: int) -> dict[str, float]:
    """A problem just outside of the family, and one far outside."""
    calibration = op.calibrate(net, jax.random.key(11), count=count)
    wave = lambda x: jnp.sin(jnp.pi * x[:, 0]) * jnp.sin(jnp.pi * x[:, 1])
    sine = op.LinearProblem(
        [0.0, 0.0, 0.0, 1.0, 1.0], source=lambda x: -2 * jnp.pi**2 * wave(x[None])[0]
    )
    found = op.refine(net, sine, rounds=2, weights="least-squares")
    far = op.benchmark("HZ")
    answer = op.refine(net, far.problem, rounds=0)[0].solution
    return {
        "sine": relative(found[0].solution, wave),
        "sine refined": relative(found[-1].solution, wave),
        "HZ": far.errors(lambda x: _values(answer, x)).relative,
        "HZ flagged": float(calibration.assess(far.problem).out_of_range),
        "limit": float(calibration.limit),
    }


def references(quick: bool) -> dict[str, tuple[float, float]]:
    """Of the seven, or four: the residual of the reference and the largest value."""
    out = {}
    for name in ("HT", "HZ", "PS-L", "WV") if quick else op.BENCHMARKS:
        bench = op.benchmark(name)
        out[name] = bench.reference_residual(), float(bench.reference.max())
    return out


def pictures(net: Any, batch: Any) -> dict[str, np.ndarray]:
    """The first problem: exact, one pass, the difference."""
    answer = net.solution(batch.coefficients[0], net.images(batch, 0))
    exact = np.asarray(batch.many(0)(_grid())).reshape(41, 41)
    found = np.asarray(_values(answer, _grid())).reshape(41, 41)
    return {"exact": exact, "one pass": found, "difference": found - exact}
