"""Conditions that no function satisfies together, found before anything is trained."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...errors import InputError
from .problem import Informed, Soft

_TRIALS = 3
_MOST = 256


def check_conditions(problem: Informed, at: list[tuple[Any, Any]]) -> None:
    """Raises where conditions contradict each other, the hard ones, or the data.

    Three random functions are tried. A residual that all of them have and that is not zero
    contradicts the hard conditions. Where two residuals at one point differ, or add up, to such a
    number, they contradict each other.

    Args:
        problem: the problem.
        at: points and normals of each condition.

    Raises:
        InputError: they do.
    """
    named = [
        (condition.name or f"condition {i + 1}", condition)
        for i, condition in enumerate(problem.conditions)
    ]
    for (name, condition), (x, normals) in zip(named, at):
        values = _values(problem, condition, x[:_MOST], normals[:_MOST])
        _refuse(values, x, f"{name} contradicts the hard conditions")
    if problem.data is not None:
        x, y, _ = problem.data
        values = _stacked(problem, lambda u, x, p: u(x), np.asarray(x)[:_MOST])
        values = values - np.asarray(y)[:_MOST].reshape(1, *values.shape[1:])
        _refuse(values, np.asarray(x), "the data contradict the hard conditions")
    for i, (name, one) in enumerate(named):
        for (other_name, other), (x_other, _) in list(zip(named, at))[i + 1 :]:
            x, normals = _common(problem, one, at[i], other, x_other)
            if not len(x):
                continue
            first, second = (_values(problem, c, x, normals) for c in (one, other))
            if first.shape == second.shape:
                for sign in (1.0, -1.0):
                    _refuse(first + sign * second, x, f"{name} and {other_name} contradict", first)


def _common(problem, one, at_one, other, x_other):
    """Points where both conditions hold, with normals of the first."""
    x, normals = at_one
    if isinstance(other.on, str) and other.on == one.on:
        keep = np.ones(len(x), bool)
    elif callable(other.on) and not (isinstance(one.on, str) and one.on in ("initial", "final")):
        keep = other.holds(x)
    elif isinstance(other.on, str) and other.on == "boundary" and (
        callable(one.on) or one.on == "boundary"
    ):  # fmt: skip
        keep = np.ones(len(x), bool)
    else:
        a, b = x.reshape(len(x), 1, -1), x_other.reshape(1, len(x_other), -1)
        keep = np.any(np.max(np.abs(a - b), -1) < 1e-9, 1)
    return x[keep][:_MOST], normals[keep][:_MOST]


def _functions(problem):
    """Random smooth functions (dim,) -> (outputs,)."""
    low, high = np.array(problem.domain.bounds).T
    for seed in range(_TRIALS):
        rng = np.random.default_rng(seed)
        w = jnp.asarray(rng.normal(size=(8, problem.domain.dim)) / (high - low))
        b, a = jnp.asarray(rng.normal(size=8)), jnp.asarray(rng.normal(size=(problem.outputs, 8)))
        yield lambda x, w=w, b=b, a=a: a @ jnp.tanh(w @ (x - low) + b)


def _stacked(problem, value, *arrays):
    """The value for each of the functions, shape (trials, points, numbers)."""
    found = []
    for trial, network in enumerate(_functions(problem)):
        u = problem.field(network)
        # What a parameter can mend is no contradiction.
        p = jax.tree.map(lambda v, k=trial: v * (1 + 0.1 * k) + 0.1 * k, problem.parameters)
        of_points = jax.jit(jax.vmap(lambda *a, u=u, p=p: value(u, *a, p)))
        out = of_points(*map(jnp.asarray, arrays))
        parts = out if isinstance(out, tuple) else (out,)
        found.append(np.stack([np.asarray(p).reshape(len(arrays[0]), -1) for p in parts], 1))
    return np.array(found).reshape(_TRIALS, len(arrays[0]), -1)


def _values(problem: Informed, condition: Soft, x, normals):
    return _stacked(problem, lambda u, x, n, p: condition.at(u, x, n, p), x, normals)


def _refuse(values, x, what, beside=None):
    """Raises where a number is the same for all functions and not zero."""
    scale = 1 + np.abs(values).max(initial=0.0)
    same = np.ptp(values, axis=0) < 1e-9 * scale
    wrong = same & (np.abs(values[0]) > 1e-6 * scale)
    if beside is not None:  # two that do not depend on the function were refused before
        wrong &= np.ptp(beside, axis=0) > 1e-9 * scale
    if np.any(wrong):
        i = int(np.argwhere(wrong)[0][0])
        raise InputError(
            f"{what}: at {np.asarray(x)[i]} no function satisfies both, whatever the network; they "
            f"are off by {abs(values[0][wrong][0]):.3g}. Change one of them, or where it holds."
        )
