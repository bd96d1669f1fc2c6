"""From data to formulas: the front of expressions, the choice among them, and their refinement."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ... import formulas
from ...errors import InputError
from .. import checks
from .evolution import Evolution, Member, checked_operators


class Formula(eqx.Module):
    """An expression of d variables, whose constants can be trained.

    Attributes:
        constants: from the left to the right, in the order of `str(formula)`.
        loss: the mean squared error where it was found.
        complexity: nodes of the expression.
    """

    constants: Float[Array, " k"]
    tree: formulas.Node = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    loss: float = eqx.field(static=True)
    complexity: int = eqx.field(static=True)

    @classmethod
    def of(cls, tree: formulas.Node, names: Sequence[str], loss: float = float("nan")) -> "Formula":
        """The formula of a tree (see `rootflow.formulas`) whose names are among `names`."""
        values = jnp.asarray(formulas.constants(tree), jnp.result_type(float))
        # Not whole, so that none is taken for a whole exponent.
        bare = formulas.with_constants(tree, [i + 0.5 for i in range(values.size)])
        return cls(values, bare, tuple(names), float(loss), formulas.size(tree))

    def __call__(self, x: Float[Array, "... d"]) -> Float[Array, "..."]:
        """The value at points x, variables along the last axis.

        Raises:
            InputError: another number of variables.
        """
        x = jnp.asarray(x)
        if x.ndim == 0 or x.shape[-1] != len(self.names):
            raise InputError(
                f"The formula is of {len(self.names)} variables ({', '.join(self.names)}); got "
                f"points of shape {x.shape}."
            )
        columns = {name: x[..., i] for i, name in enumerate(self.names)}
        value = formulas.evaluate(self.tree, columns, constants=self.constants)
        return jnp.broadcast_to(value, x.shape[:-1])

    def rounded(self, to: float = 0.01) -> "Formula":
        """The formula with its constants rounded to multiples of `to`."""
        return eqx.tree_at(lambda f: f.constants, self, jnp.round(self.constants / to) * to)

    def __str__(self) -> str:
        tree = formulas.with_constants(self.tree, np.asarray(self.constants).tolist())
        return formulas.infix(tree, digits=4, powers=True)


@dataclass(frozen=True)
class Front:
    """The best formula of each complexity that is better than all simpler ones.

    Attributes:
        formulas: by complexity.
        scores: how much each gained on the one before: -d log(loss) / d complexity.
    """

    formulas: tuple[Formula, ...]
    scores: tuple[float, ...]

    def choose(self, by: Literal["best", "score", "accuracy"] = "best") -> Formula:
        """One of them.

        Args:
            by: `"score"`: the largest score. `"best"`: the largest score among those whose loss is
                at most 1.5 times the smallest. `"accuracy"`: the smallest loss.

        Raises:
            InputError: another word.
        """
        checks.one_of("by", by, ("best", "score", "accuracy"))
        if by == "accuracy":
            return self.formulas[-1]
        least = 1.5 * self.formulas[-1].loss if by == "best" else float("inf")
        fine = [i for i, f in enumerate(self.formulas) if f.loss <= least]
        return self.formulas[max(fine, key=lambda i: self.scores[i])]

    def __str__(self) -> str:
        rows = [
            f"{f.complexity:3d}  {f.loss:9.3g}  {score:6.3f}  {f}"
            for f, score in zip(self.formulas, self.scores, strict=True)
        ]
        return "\n".join(["size      loss   score  formula", *rows])


def regress(
    x: ArrayLike,
    y: ArrayLike,
    *,
    key: PRNGKeyArray,
    names: Sequence[str] | None = None,
    operators: Sequence[str] = ("+", "-", "*", "/"),
    largest: int = 20,
    populations: int = 6,
    rounds: int = 8,
    cycles: int = 60,
    restarts: int = 3,
    parsimony: float = 0.003,
    progress: Callable[[float], Any] | None = None,
) -> Front:
    """Finds expressions y = f(x), by regularised evolution.

    Pure NumPy: about three seconds a restart for a few hundred points, growing with their number.

    Args:
        x: points, shape (n, d).
        y: values, shape (n,).
        key: for the search.
        names: of the variables. Default: x0, x1, ...
        operators: of + - * / neg square exp log sin cos tanh sqrt.
        largest: the most nodes of an expression.
        populations: of 27 expressions each, evolved side by side.
        rounds: after each, constants are optimised and populations exchange members.
        cycles: of two events in each population a round.
        restarts: searches from other starts, whose fronts are merged.
        parsimony: the price of a node, in units of the variance of y.
        progress: told the share that is done.

    Returns:
        The front of formulas.

    Raises:
        InputError: shapes that do not fit, values that are not finite, an unknown operator.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.shape != x.shape[:1] or x.shape[0] < 2 or x.shape[1] < 1:
        raise InputError(
            f"regress takes points of shape (n, d) and values of shape (n,); got {x.shape} and "
            f"{y.shape}."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("the points or values for regress hold NaN or infinity: drop those rows.")
    names = tuple(names) if names is not None else tuple(f"x{i}" for i in range(x.shape[1]))
    if len(names) != x.shape[1]:
        raise InputError(f"{len(names)} names for {x.shape[1]} variables: {', '.join(names)}.")
    operators = checked_operators(operators)
    checks.whole("largest", largest, 3)
    for name, value in (("populations", populations), ("rounds", rounds), ("cycles", cycles)):
        checks.whole(name, value)
    columns = [np.ascontiguousarray(column) for column in x.T]
    fame: dict[int, Member] = {}
    search = None
    for restart in range(checks.whole("restarts", restarts)):
        seed = int(np.asarray(jax.random.bits(jax.random.fold_in(key, restart))))
        search = Evolution(columns, names, y, operators, largest, parsimony, populations, seed)
        done = restart / restarts
        search.run(
            rounds,
            cycles,
            progress and (lambda share, done=done: progress(done + share / restarts)),
        )
        for size, member in search.fame.items():
            if size not in fame or member.loss < fame[size].loss:
                fame[size] = member
    assert search is not None
    search.fame = fame
    front = search.front()
    # Below the rounding errors of the values no expression is better than another.
    floor = 1e-12 * search.baseline
    losses = np.log([max(m.loss, floor) for m in front])
    sizes = np.array([m.size for m in front])
    scores = np.append(0.0, -np.diff(losses) / np.diff(sizes))
    return Front(
        tuple(Formula.of(m.tree, names, m.loss) for m in front), tuple(float(s) for s in scores)
    )


class FormulaField(eqx.Module):
    """dy/dt given by a formula for each component: a field for any solver, whose constants train.

    Args:
        formulas: one for each component of the state, in its components as variables.
    """

    formulas: list[Formula]

    def __call__(self, t: Any, y: Float[Array, " d"], args: Any = None) -> Float[Array, " d"]:
        return jnp.stack([formula(y) for formula in self.formulas])

    def rounded(self, to: float = 0.01) -> "FormulaField":
        """With constants rounded to multiples of `to`."""
        return FormulaField([formula.rounded(to) for formula in self.formulas])

    def __str__(self) -> str:
        return "\n".join(
            f"d{name}/dt = {formula}"
            for name, formula in zip(self.formulas[0].names, self.formulas, strict=True)
        )


def discover(
    field: Callable[[Any, Any, Any], Any],
    states: ArrayLike,
    *,
    key: PRNGKeyArray,
    by: Literal["best", "score", "accuracy"] = "best",
    points: int = 2000,
    progress: Callable[[float], Any] | None = None,
    **options: Any,
) -> tuple[FormulaField, list[Front]]:
    """Formulas for a field that was learnt, such as `model.field` of a `NeuralODE`.

    Put the result into a `NeuralODE` and train it once more, so that its constants are right for
    the solution and not only for the slopes; then `rounded()`.

    Args:
        field: `field(t, y, args)`, which does not depend on the time.
        states: where to look: states the data visit, shape (..., d).
        key: for the choice of states and the searches.
        by: how to choose from a front.
        points: the most states to use.
        progress: told the share that is done.
        **options: of `regress`.

    Returns:
        The field of the formulas chosen, and the front of each component.

    Raises:
        InputError: states that are not finite, a field that returns another shape.
    """
    states = jnp.asarray(states)
    if states.ndim < 2:
        raise InputError(f"states have shape (n, d); got {states.shape}.")
    states = states.reshape(-1, states.shape[-1])
    for_points, for_search = jax.random.split(key)
    if states.shape[0] > points:
        states = jax.random.choice(for_points, states, (points,), replace=False)
    slopes = jax.vmap(lambda y: field(jnp.zeros((), y.dtype), y, None))(states)
    slopes = checks.shaped(slopes, states.shape, "The field")
    fronts = []
    d = states.shape[1]
    for i in range(d):
        tell = progress and (lambda share, i=i: progress((i + share) / d))
        keyed = jax.random.fold_in(for_search, i)
        fronts.append(regress(states, slopes[:, i], key=keyed, progress=tell, **options))
    return FormulaField([front.choose(by) for front in fronts]), fronts
