"""`Fields`: a trained model, its path, and everything that follows from what it knows."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from ..._typing import PyTree
from ...errors import InputError
from ..denoiser import Denoiser
from ..numerics import expand
from .paths import Coefficients, Path

KINDS = ("b", "v", "s", "eta", "eta0", "eta1")

Model = Callable[..., Any] | Mapping[str, Callable[..., Any]]


class _Rule(NamedTuple):
    """How a field follows from others: `formula(c, x, *needs)`."""

    target: str
    needs: tuple[str, ...]
    formula: Callable[..., Array]


# In order of preference: what divides by nothing that vanishes comes first.
_ALWAYS = (
    _Rule("b", ("v", "s"), lambda c, x, v, s: v - c.product * s),
    _Rule("b", ("v", "eta"), lambda c, x, v, eta: v + c.gamma_rate * eta),
    _Rule("v", ("b", "s"), lambda c, x, b, s: b + c.product * s),
    _Rule("v", ("b", "eta"), lambda c, x, b, eta: b - c.gamma_rate * eta),
    _Rule("eta", ("s",), lambda c, x, s: -c.gamma * s),
    _Rule("s", ("eta",), lambda c, x, eta: -eta / c.gamma),
)
_LINEAR = (
    _Rule("v", ("eta0", "eta1"), lambda c, x, a, b: c.alpha_rate * a + c.beta_rate * b),
    _Rule("eta", ("eta0", "eta1"), lambda c, x, a, b: (x - c.alpha * a - c.beta * b) / c.gamma),
)
# Without x0 one field says all: x = beta eta1 + gamma eta.
_ONE_SIDED = (
    _Rule(
        "eta",
        ("b",),
        lambda c, x, b: (c.beta_rate * x - c.beta * b) / _turn(c),
    ),
    _Rule(
        "eta1",
        ("b",),
        lambda c, x, b: (c.gamma * b - c.gamma_rate * x) / _turn(c),
    ),
    _Rule("b", ("eta", "eta1"), lambda c, x, eta, data: c.gamma_rate * eta + c.beta_rate * data),
    _Rule("v", ("eta1",), lambda c, x, data: c.beta_rate * data),
    _Rule("eta1", ("v",), lambda c, x, v: v / c.beta_rate),
    _Rule("eta1", ("eta",), lambda c, x, eta: (x - c.gamma * eta) / c.beta),
    _Rule("eta", ("eta1",), lambda c, x, data: (x - c.beta * data) / c.gamma),
)
_QUIET = (
    _Rule("b", ("v",), lambda c, x, v: v),
    _Rule("v", ("b",), lambda c, x, b: b),
)


def _turn(c: Coefficients) -> Any:
    return c.gamma * c.beta_rate - c.gamma_rate * c.beta


def _rules(path: Path) -> tuple[_Rule, ...]:
    if path.sides == "one":
        return _ONE_SIDED + _ALWAYS
    if path.sides == "mirror":
        still = _Rule("v", (), lambda c, x: jnp.zeros_like(x))
        data = _Rule("eta1", ("eta",), lambda c, x, eta: x - c.gamma * eta)
        return (still, data, *_ALWAYS)
    rules = _ALWAYS if path.noisy else _QUIET
    if path.linear:
        split = (
            _Rule("eta0", ("v", "eta"), lambda c, x, v, e: path.split(c, x - c.gamma * e, v)[0]),
            _Rule("eta1", ("v", "eta"), lambda c, x, v, e: path.split(c, x - c.gamma * e, v)[1]),
        )
        if not path.noisy:
            split = (
                _Rule("eta0", ("v",), lambda c, x, v: path.split(c, x, v)[0]),
                _Rule("eta1", ("v",), lambda c, x, v: path.split(c, x, v)[1]),
            )
        rules = (*rules, *_LINEAR, *split)
    return rules


def plan(path: Path, known: tuple[str, ...], target: str) -> list[_Rule] | None:
    """The rules that lead from the known fields to the target, in order; None if there are none."""
    if target in known:
        return []
    if target in ("s", "eta") and not path.noisy:
        return None
    rules = _rules(path)
    have, steps = set(known), []
    # The fewest steps: all that follows in one, then all that follows in two, and so on.
    while True:
        ready = [r for r in rules if r.target not in have and have.issuperset(r.needs)]
        direct = [r for r in ready if r.target == target]
        if direct:
            return [*steps, direct[0]]
        fresh = {}
        for rule in ready:
            fresh.setdefault(rule.target, rule)
        if not fresh:
            return None
        steps.extend(fresh.values())
        have.update(fresh)


def predictions(
    model: Model, kinds: tuple[str, ...], x: Array, t: Any, condition: PyTree
) -> dict[str, Array]:
    """What the model says at (x, t), by the names of the fields it was trained for.

    Raises:
        InputError: a value of another structure or shape.
    """
    given = (x, t) if condition is None else (x, t, condition)
    if isinstance(model, Mapping):
        missing = [kind for kind in kinds if kind not in model]
        if missing:
            raise InputError(
                f"The model is a mapping without {missing[0]!r}; it needs one function for each of "
                f"{', '.join(kinds)}."
            )
        values = {kind: model[kind](*given) for kind in kinds}
    else:
        value = model(*given)
        if isinstance(value, Mapping):
            values = dict(value)
        elif len(kinds) == 1:
            values = {kinds[0]: value}
        else:
            raise InputError(
                f"The model must return a dictionary with the fields {', '.join(kinds)}; got "
                f"{jax.tree.map(jnp.shape, value)}."
            )
    for kind in kinds:
        if kind not in values:
            raise InputError(f"The model returned no {kind!r}; it returned {', '.join(values)}.")
        if not eqx.is_array_like(values[kind]) or jnp.shape(values[kind]) != x.shape:
            shape = jax.tree.map(jnp.shape, values[kind])
            raise InputError(
                f"The field {kind!r} must look like x, one array of shape {x.shape}; the model "
                f"returned {shape}."
            )
    return {kind: jnp.asarray(values[kind]).astype(x.dtype) for kind in kinds}


def as_kinds(predicts: str | tuple[str, ...]) -> tuple[str, ...]:
    """Names of fields as a tuple, checked."""
    kinds = (predicts,) if isinstance(predicts, str) else tuple(predicts)
    for kind in kinds:
        if kind not in KINDS:
            raise InputError(f"{kind!r} is not a field; the fields are {', '.join(KINDS)}.")
    if not kinds or len(set(kinds)) != len(kinds):
        raise InputError(f"predicts must name one field or several different ones; got {kinds}.")
    return kinds


class Fields(eqx.Module):
    """A model of some of a path's fields, asked for any of them.

    - `b`: the drift of the flow, E[dI/dt + gamma' z | x];
    - `v`: E[dI/dt | x];
    - `s`: the score, the gradient of the log-density;
    - `eta`: E[z | x], the latent noise (s = -eta / gamma);
    - `eta0`, `eta1`: E[x0 | x] and E[x1 | x].

    With latent noise between two sides two of them give all: (b, eta), (v, eta), (v, s), (b, s).
    Without it, or with one side, `b` alone does; on a mirror path `s` or `eta`.

    Args:
        model: a function or module `(x, t) -> field`, or `(x, t, condition) -> field`, called with
            the whole batch, shape (batch, ...), and one time, shape (), or one per sample, shape
            (batch,). For several fields it returns a dictionary of them; or `model` is a dictionary
            of models.
        path: the path it was trained on.
        predicts: the fields it was trained for, one name or several.

    Raises:
        InputError: unknown fields, or fields from which the drift does not follow; later, a model
            whose value is not shaped like x, or a field that does not follow.
    """

    model: Model
    path: Path
    predicts: tuple[str, ...] = eqx.field(static=True, converter=as_kinds, default=("b",))

    def __check_init__(self) -> None:
        if not isinstance(self.path, Path):
            raise InputError(f"path must be a path such as Linear(); got {self.path!r}.")
        if not callable(self.model) and not isinstance(self.model, Mapping):
            raise InputError(
                f"model must be a function (x, t) -> field, or a dictionary of them; got "
                f"{self.model!r}."
            )
        if plan(self.path, self.predicts, "b") is None:
            raise InputError(
                f"The drift b of {type(self.path).__name__} does not follow from "
                f"{', '.join(self.predicts)}: learn b itself, or a pair such as (b, eta) or (v, s)."
            )

    def knows(self, kind: str) -> bool:
        """Whether this field is predicted, or follows from what is."""
        return plan(self.path, self.predicts, as_kinds(kind)[0]) is not None

    def at(self, kind: str, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Any:
        """The field of this kind at (x, t); t is one time or one per sample."""
        x = jnp.asarray(x)
        t = jnp.asarray(t, x.dtype)
        known = predictions(self.model, self.predicts, x, t, condition)
        return self.derive(kind, known, x, t)

    def derive(self, kind: str, known: dict[str, Array], x: Array, t: Array) -> Array:
        """The field of this kind from those that the model predicted at (x, t)."""
        steps = plan(self.path, self.predicts, kind)
        if steps is None:
            why = "there is no latent noise" if not self.path.noisy else "they do not determine it"
            raise InputError(
                f"{kind!r} does not follow from {', '.join(self.predicts)} on "
                f"{type(self.path).__name__}: {why}. Train the model for it as well."
            )
        c = self.path.coefficients(expand(t, x))
        have = dict(known)
        for rule in steps:
            have[rule.target] = rule.formula(c, x, *(have[name] for name in rule.needs))
        return have[kind]

    def b(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The drift of the flow."""
        return self.at("b", x, t, condition)

    def v(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The mean velocity of I."""
        return self.at("v", x, t, condition)

    def s(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The score."""
        return self.at("s", x, t, condition)

    def eta(self, x: Float[Array, "..."], t: ArrayLike, condition: PyTree = None) -> Array:
        """The mean of the latent noise."""
        return self.at("eta", x, t, condition)

    def denoiser(self, normal_base: bool = False) -> Denoiser:
        """The same model as a `Denoiser`, for every sampler and `generative.log_likelihood`.

        It lives in the time 1 - t, with the noise at 1.

        Args:
            normal_base: says that x0 of a two-sided path is standard normal and independent of x1,
                so that alpha x0 + gamma z is the noise of a diffusion.

        Raises:
            InputError: a path that does not begin in standard normal noise.
        """
        schedule = self.path.schedule()
        if self.path.sides == "two" and not normal_base:
            raise InputError(
                "A two-sided path is a diffusion only where its base is standard normal and "
                "independent of the data: say so with normal_base=True, or use transport."
            )
        names = {"b": "flow", "eta": "noise", "s": "score", "eta1": "data"}
        if self.path.sides == "two":
            del names["eta"]  # there z is only a part of the noise
        known = [kind for kind in names if kind in self.predicts]
        kind = known[0] if known else "b"
        return Denoiser(_Reversed(self, kind), schedule, names[kind])


class _Reversed(eqx.Module):
    """A field as a model in the time of the schedule, 1 - t."""

    fields: Fields
    kind: str = eqx.field(static=True)

    def __call__(self, x: Array, time: Any, condition: PyTree = None) -> Array:
        value = self.fields.at(self.kind, x, 1 - jnp.asarray(time, x.dtype), condition)
        return -value if self.kind == "b" else value
