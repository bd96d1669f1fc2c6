"""What needs no network: nominal numbers as an answer, and numbers fitted by shooting."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ...errors import SolveError
from ...neural import prose

SYSTEMS = ("lorenz", "thomas", "sprott-b", "rossler", "dadras")
#: Expression errors of nominal numbers in a prototype of this project, per cent.
NOMINAL = {
    "thomas": 2.8, "lorenz": 4.9, "aizawa-released": 3.8, "chen-lee": 2.1, "dadras": 5.5,
    "rossler": 4.8, "halvorsen": 1.0, "rabinovich-fabrikant": 0.4, "sprott-b": 2.7,
    "sprott-linz-f": 0.6, "four-wing": 0.5, "duffing": 4.9, "lorenz96-4": 2.7,
}  # fmt: skip


def nominal(draws: int) -> dict[str, float]:
    """The mean expression error of nominal numbers, system by system."""
    found = {}
    for name in NOMINAL:
        system = prose.system(name)
        plain = system.equations(system.nominal)
        each = [
            prose.expression_error(plain, system.equations(p), system.dims, key=jax.random.key(i))
            for i, p in enumerate(system.draw(jax.random.key(10), draws))
        ]
        found[name] = float(np.mean(each))
    return found


def shoot(count: int, names: Sequence[str] = SYSTEMS) -> dict[str, dict[str, Any]]:
    """32 noisy points on [0, 2]: parameters and initial state from nominal ones, both errors."""
    ts, later = np.linspace(0.0, 2.0, 32), np.linspace(2.0, 6.0, 65)[1:]
    found = {}
    for at, name in enumerate(names):
        system = prose.system(name)
        made = prose.trajectories(
            system, np.concatenate([ts, later]), count=count, repeats=1,
            key=jax.random.fold_in(jax.random.key(11), at), rtol=1e-9, atol=1e-9,
        )  # fmt: skip
        noisy = np.asarray(prose.add_noise(made.us, jax.random.key(12)))[:, :32]
        rows, failed = [], 0
        for i in range(count):
            try:
                fit = prose.refine(system, ts, noisy[i], max_iterations=15, rtol=1e-7, atol=1e-7)
            except SolveError:
                failed += 1
                continue
            truth = system.equations(made.parameters[i])
            before = system.equations(system.nominal)
            key, dims = jax.random.key(i), system.dims
            target = made.us[i, 32:]
            futures = [
                prose.solved(equations, start, later, t0=t0)
                for equations, start, t0 in (
                    (before, noisy[i, 0], 0.0), (fit.equations, fit.initial, 0.0)
                )
            ]  # fmt: skip
            rows.append(
                [prose.expression_error(e, truth, dims, key=key) for e in (before, fit.equations)]
                + [float(prose.relative_error(future, target)) for future in futures]
            )
        middle = np.nanmedian(np.array(rows), axis=0).tolist()
        names = ("nominal", "refined", "nominal trajectory", "refined trajectory")
        found[name] = dict(zip(names, middle), failed=failed)
    return found
