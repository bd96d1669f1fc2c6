"""Operators of losses over data: Hessian, Gauss-Newton, residual and Fisher, in any batching.

The loss is L(w) = sum_i a_i l(f(w, x_i), y_i) with weights a_i, by default 1 / N. With J_i the
derivative of f and A_i that of l twice, both at example i,

    H = G + R,   G = sum_i a_i J_i^T A_i J_i,   R = sum_i a_i sum_c (dl/df)_ic d2f_ic/dw2

(Schraudolph 2002; Sagun et al. 2017, sec. 2).
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from .._typing import PyTree
from ..errors import InputError
from ..ground.tracing import is_traced
from ..roots.trees import from_vector, size, to_vector
from . import parameters
from .operators import Operator, Product, Vector, compiled

Model = Callable[[Any, Any], Any]
Objective = Callable[[Any, Any], Any]
Kind = Literal["hessian", "gauss_newton", "residual", "empirical", "model", "sampled"]


class LossOperator(Operator):
    """A curvature matrix of a loss at given parameters; see `hessian` and its sisters.

    Two operators with the same functions and shapes share every compiled program, whatever their
    numbers.

    Attributes:
        selected: the parameters that are differentiated; None where others are.
        rest: everything else in the parameters.
        data: inputs and labels, with a common first axis of length N.
        weights: of the examples, shape (N,); None for 1 / N.
        noise: for labels that are drawn, a uniform number for each example; otherwise None.
        batch: examples that are worked on at a time; None for all of them.
    """

    model: Model
    objective: Objective
    selected: PyTree
    rest: PyTree
    data: tuple[PyTree, PyTree]
    weights: Float[Array, " N"] | None
    noise: Float[Array, " N"] | None
    kind: Kind = eqx.field(static=True)
    batch: int | None = eqx.field(static=True)

    @property
    def size(self) -> int:
        return size(self.selected)

    @property
    def dtype(self) -> Any:
        return parameters.real_dtype(self.selected)

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def params(self) -> PyTree:
        """All parameters, as they were given."""
        return eqx.combine(self.selected, self.rest)

    @property
    def vector(self) -> Vector:
        """The differentiated parameters as one vector."""
        return to_vector(self.selected).astype(self.dtype)

    def ravel(self, tree: PyTree) -> Vector | None:
        want = jax.tree.leaves(self.selected)
        same = jax.tree.structure(tree) == jax.tree.structure(self.selected)
        if not same or any(np.shape(a) != b.shape for a, b in zip(jax.tree.leaves(tree), want)):
            return None
        return to_vector(jax.tree.map(jnp.asarray, tree)).astype(self.dtype)

    def unravel(self, vector: Vector) -> PyTree:
        return from_vector(self.selected)(vector)

    def footprint(self) -> int:
        rows = self.examples if self.batch is None else min(self.batch, self.examples)
        return self.size + rows * _intermediates(self)

    def functions(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        return ((_first_loss, (self,)),)

    def linear(self) -> Product:
        if self.batch is None or self.batch >= self.examples:
            # The derivative at the parameters is taken once and used for every product.
            return self._on((self.data, self.example_weights(), self.noise))
        return lambda v: sum_over_examples(self, lambda chunk: self._on(chunk)(v), self.noise)

    def example_weights(self) -> Float[Array, " N"]:
        """The weights of the examples; they sum to one."""
        if self.weights is not None:
            return self.weights
        return jnp.full(self.examples, 1 / self.examples, self.dtype)

    def losses(self) -> Float[Array, " N"]:
        """The loss of each example."""
        return _losses(self)

    def gradient(self) -> Vector:
        """The gradient of the loss, as one vector."""
        return _gradient(self)

    def block(self, mask: "parameters.Mask") -> "LossOperator":
        """The diagonal block of the parameters that `mask` picks; see `hessian`."""
        selected, rest = parameters.partition(self.params, mask)
        ours = parameters.named(self.selected)
        lost = [name for name in parameters.named(selected) if name not in ours]
        if lost:
            raise InputError(
                f"the mask picks {lost[0]!r}, which this operator does not differentiate: build "
                "the operator with a mask that has it."
            )
        return eqx.tree_at(
            lambda o: (o.selected, o.rest), self, (selected, rest), is_leaf=lambda a: a is None
        )

    def blocks(self, group: Callable[[str], str] = lambda name: name) -> dict[str, "LossOperator"]:
        """The diagonal blocks of groups of leaves, by default of every leaf of the parameters.

        Args:
            group: the group of a leaf, from its name: `lambda name: name.split(".")[0]` makes one
                block of each entry of the outermost container.
        """
        groups: dict[str, set[str]] = {}
        for name in parameters.named(self.selected):
            groups.setdefault(group(name), set()).add(name)
        return {
            label: self.block(lambda name, names=frozenset(names): name in names)
            for label, names in groups.items()
        }

    def resampled(self, key: Key[Array, ""]) -> "LossOperator":
        """The same on as many examples drawn with replacement: a bootstrap of the data."""
        n = self.examples
        drawn = jax.random.choice(key, n, (n,), p=self.weights)
        weights = jnp.zeros(n, self.dtype).at[drawn].add(1 / n)
        return eqx.tree_at(lambda o: o.weights, self, weights, is_leaf=lambda a: a is None)

    def of_kind(self, kind: Kind) -> "LossOperator":
        """Another curvature matrix of the same loss."""
        return dataclasses.replace(self, kind=kind)

    def outputs(self, vector: Vector, inputs: PyTree) -> PyTree:
        """The outputs of the model for a batch of inputs."""
        params = eqx.combine(self.unravel(vector), self.rest)
        return jax.vmap(lambda x: self.model(params, x))(inputs)

    def loss_of(self, z: PyTree, y: PyTree) -> Float[Array, ""]:
        """The loss of one example from the model's output."""
        value = jnp.asarray(self.objective(z, y))
        if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
            raise InputError(
                "the objective is the loss of one example, objective(output, label), and must "
                f"return one real number; got shape {value.shape} and type {value.dtype}."
            )
        return value

    def _on(self, chunk) -> Product:
        (inputs, labels), weights, noise = chunk
        point = self.vector

        def outputs(vector):
            return self.outputs(vector, inputs)

        def values(z):
            return jax.vmap(self.loss_of)(z, labels)

        if self.kind == "hessian":
            slope = jax.grad(lambda vector: jnp.vdot(weights, values(outputs(vector))))
            return jax.linearize(slope, point)[1]
        if self.kind == "residual":
            pull = jax.grad(lambda z: jnp.vdot(weights, values(z)))(outputs(point))
            slope = jax.grad(lambda vector: _dot(pull, outputs(vector)))
            return jax.linearize(slope, point)[1]
        if self.kind == "empirical":
            _, push = jax.linearize(lambda vector: values(outputs(vector)), point)
            back = jax.linear_transpose(push, point)
            return lambda v: back(weights * push(v))[0]
        z, push = jax.linearize(outputs, point)
        back = jax.linear_transpose(push, point)
        middle = self._inner(z, labels, weights, noise)
        return lambda v: back(middle(push(v)))[0]

    def _inner(self, z, labels, weights, noise):
        """The symmetric map of output directions between J and J^T."""
        if self.kind == "gauss_newton":
            slope = jax.grad(lambda z: jnp.vdot(weights, jax.vmap(self.loss_of)(z, labels)))
            return jax.linearize(slope, z)[1]
        slopes, chances = self._label_slopes(z)
        if self.kind == "sampled":
            below = jnp.cumsum(chances, axis=1)
            drawn = jnp.sum(noise[:, None] * below[:, -1:] > below, axis=1)
            drawn = jnp.minimum(drawn, chances.shape[1] - 1)
            chances = jax.nn.one_hot(drawn, chances.shape[1], dtype=z.dtype)
        return lambda dz: jnp.einsum(
            "i,iy,iyc,iyd,id->ic", weights, chances, slopes, slopes, dz, optimize="optimal"
        )

    def _label_slopes(self, z):
        """d loss / d output for every label that there may be, and the model's chance of it."""
        if not (isinstance(z, jax.Array) and z.ndim == 2):
            raise InputError(
                "the Fisher matrix of the model's own labels needs one logit for each class as "
                'output, of shape (classes,); use kind="empirical" for other models.'
            )
        labels = jnp.arange(z.shape[1])
        per_label = jax.vmap(jax.value_and_grad(self.loss_of), (None, 0))
        losses, slopes = jax.vmap(lambda z: per_label(z, labels))(z)
        return slopes, jnp.exp(-losses)


def _dot(a: PyTree, b: PyTree) -> Array:
    parts = [jnp.vdot(x, y).real for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))]
    return sum(parts[1:], parts[0])


def _chunk(tree: PyTree, i: Array, batch: int) -> PyTree:
    """The i-th `batch` rows; the last ones begin earlier, where they would reach over the end."""
    n = jax.tree.leaves(tree)[0].shape[0]
    start = jnp.minimum(i * batch, n - batch)
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, batch), tree)


def _sum_in_batches(function, tree, batch: int):
    """The sum of `function((data, weights, ...))` over chunks of `batch` rows."""
    n = jax.tree.leaves(tree)[0].shape[0]

    def on(i):
        data, weights, *more = _chunk(tree, i, batch)
        # Rows that an earlier chunk had count nothing, so that every chunk has one shape.
        fresh = jnp.minimum(i * batch, n - batch) + jnp.arange(batch) >= i * batch
        return function((data, jnp.where(fresh, weights, 0), *more))

    shapes = jax.eval_shape(on, jnp.asarray(0))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(total, i):
        return jax.tree.map(jnp.add, total, on(i)), None

    return jax.lax.scan(add, zero, jnp.arange(-(-n // batch)))[0]


def sum_over_examples(
    operator: LossOperator, function: Callable[[Any], PyTree], *more: PyTree
) -> PyTree:
    """The sum of `function((data, weights, *more))` over the examples, in batches."""
    tree = (operator.data, operator.example_weights(), *more)
    if operator.batch is None or operator.batch >= operator.examples:
        return function(tree)
    return _sum_in_batches(function, tree, operator.batch)


def map_examples(operator: LossOperator, function: Callable[[PyTree], PyTree]) -> PyTree:
    """`function(data)` of all the data, in batches, put together along the examples."""
    n, batch = operator.examples, operator.batch
    if batch is None or batch >= n:
        return function(operator.data)
    count = -(-n // batch)
    out = jax.lax.map(lambda i: function(_chunk(operator.data, i, batch)), jnp.arange(count))
    row = np.arange(n)
    chunk = row // batch
    place = row - np.minimum(chunk * batch, n - batch)
    return jax.tree.map(lambda a: a[chunk, place], out)


def _first_loss(operator: LossOperator) -> Array:
    """The loss of the first example."""
    x, y = jax.tree.map(lambda a: a[0], operator.data)
    return operator.loss_of(operator.model(operator.params, x), y)


@compiled
def _losses(operator: LossOperator) -> Array:
    def on(chunk):
        inputs, labels = chunk
        return jax.vmap(operator.loss_of)(operator.outputs(operator.vector, inputs), labels)

    return map_examples(operator, on)


@compiled
def _gradient(operator: LossOperator) -> Array:
    def on(chunk):
        (inputs, labels), weights = chunk

        def total(vector):
            z = operator.outputs(vector, inputs)
            return jnp.vdot(weights, jax.vmap(operator.loss_of)(z, labels))

        return jax.grad(total)(operator.vector)

    return sum_over_examples(operator, on)


def hessian(
    model: Any,
    objective: Objective,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    *,
    batch: int | None = None,
    mask: "parameters.Mask" = None,
    weights: Float[Array, " N"] | None = None,
) -> LossOperator:
    """The Hessian of the mean loss over data, for products, spectra and traces.

    A product is a derivative of the gradient (Pearlmutter 1994), exact to round-off, over all of
    the data: nothing is drawn, so that the operator is the same at every product.

    Args:
        model: `model(params, x)` for one example, as the `apply` of a Flax module; or, with
            `params=None`, an Equinox module `module(x)`, which is put in inference mode.
        objective: `objective(output, y)`, the loss of one example.
        params: any pytree. Its floating-point arrays are differentiated, unless `mask` says
            otherwise; of Flax's variables only the collection "params" is.
        data: inputs and labels, two pytrees of arrays with a common first axis of length N.
        batch: examples to work on at a time, which limits the memory; N need not be a multiple.
            By default all: then the derivative at the parameters is taken once for all products.
        mask: which parameters are differentiated, for the spectrum of a layer: a tree of booleans
            (or the beginning of one), or a function of a leaf's name, such as
            `lambda name: name.startswith("layers.0")`.
        weights: of the examples, shape (N,), summing to one; by default 1 / N each.

    Raises:
        InputError: parameters, data, mask or options that cannot be used.
    """
    return _operator("hessian", model, objective, params, data, batch, mask, weights)


def gauss_newton(
    model: Any,
    objective: Objective,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    *,
    batch: int | None = None,
    mask: "parameters.Mask" = None,
    weights: Float[Array, " N"] | None = None,
) -> LossOperator:
    """The (generalised) Gauss-Newton matrix G = sum_i a_i J_i^T A_i J_i of the mean loss over data.

    Positive semidefinite where the objective is convex in the output, of rank at most N k for k
    outputs, and N (k - 1) for the cross-entropy of a softmax. Arguments as for `hessian`.
    """
    return _operator("gauss_newton", model, objective, params, data, batch, mask, weights)


def residual(
    model: Any,
    objective: Objective,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    *,
    batch: int | None = None,
    mask: "parameters.Mask" = None,
    weights: Float[Array, " N"] | None = None,
) -> LossOperator:
    """What the Gauss-Newton matrix leaves out of the Hessian: R = H - G.

    It is computed by itself, not as a difference, so that it is exactly zero at zero residuals.
    All negative curvature of a loss that is convex in the output is in R. Arguments as for
    `hessian`.
    """
    return _operator("residual", model, objective, params, data, batch, mask, weights)


def fisher(
    model: Any,
    objective: Objective,
    params: PyTree,
    data: tuple[PyTree, PyTree],
    *,
    kind: Literal["empirical", "model", "sampled"] = "empirical",
    key: Key[Array, ""] | None = None,
    batch: int | None = None,
    mask: "parameters.Mask" = None,
    weights: Float[Array, " N"] | None = None,
) -> LossOperator:
    """A Fisher matrix: the mean outer product of the gradients of single examples.

    Args:
        model: as for `hessian`.
        objective: as for `hessian`; for `"model"` and `"sampled"` the negative log-probability of
            class y = 0, 1, ... under logits of shape (classes,).
        params: as for `hessian`.
        data: as for `hessian`.
        kind: `"empirical"` takes the labels of the data (which is not the Fisher matrix away from
            a perfect fit: Kunstner et al. 2019), `"model"` the expectation over the model's own
            labels, `"sampled"` one of these for each example.
        key: for `"sampled"`; the labels are drawn once, here.
        batch: as for `hessian`.
        mask: as for `hessian`.
        weights: as for `hessian`.

    Raises:
        InputError: as for `hessian`; or probabilities exp(-objective) that do not sum to one.
    """
    if kind not in ("empirical", "model", "sampled"):
        raise InputError(f"kind={kind!r} is not known; use 'empirical', 'model' or 'sampled'.")
    made = _operator(kind, model, objective, params, data, batch, mask, weights)
    if kind == "empirical":
        return made
    _check_probabilities(made)
    if kind == "sampled":
        if key is None:
            raise InputError('kind="sampled" draws labels and needs a key: give key=.')
        noise = jax.random.uniform(key, (made.examples,), made.dtype)
        made = eqx.tree_at(lambda o: o.noise, made, noise, is_leaf=lambda a: a is None)
    return made


def _operator(kind, model, objective, params, data, batch, mask, weights) -> LossOperator:
    model, params = parameters.model_and_params(model, params)
    selected, rest = parameters.partition(params, mask)
    data, n = _checked_data(data)
    if batch is not None and (
        isinstance(batch, bool) or not isinstance(batch, int | np.integer) or batch < 1
    ):
        raise InputError(f"batch must be a positive whole number, got {batch!r}.")
    dtype = parameters.real_dtype(selected)
    if weights is not None:
        weights = jnp.asarray(weights, dtype)
        if weights.shape != (n,):
            raise InputError(
                f"weights must have one number for each of the {n} examples, got shape "
                f"{weights.shape}."
            )
        _check_weights(weights)
    batch = None if batch is None else int(batch)
    made = LossOperator(model, objective, selected, rest, data, weights, None, kind, batch)
    _intermediates(made)
    return made


def _check_weights(weights: Array) -> None:
    """Raises unless weights that are known are shares of one."""
    if is_traced(weights):
        return
    known = np.asarray(weights, float)
    if not (np.isfinite(known) & (known >= 0)).all():
        bad = known[~(np.isfinite(known) & (known >= 0))][0]
        raise InputError(f"weights must be finite and not negative; got {bad:g}.")
    if abs(known.sum() - 1) > 1e-3:
        raise InputError(
            f"weights must sum to one, but sum to {known.sum():g}: give weights / weights.sum()."
        )


def _intermediates(operator: LossOperator) -> int:
    """The numbers that the loss of one example goes through; refuses one that does not fit."""

    def one(selected, data):
        params = eqx.combine(selected, operator.rest)
        x, y = jax.tree.map(lambda a: a[0], data)
        return operator.loss_of(operator.model(params, x), y)

    jaxpr = jax.make_jaxpr(one)(operator.selected, operator.data)
    return sum(int(np.prod(v.aval.shape)) for eqn in jaxpr.eqns for v in eqn.outvars)


def _checked_data(data) -> tuple[tuple[PyTree, PyTree], int]:
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise InputError(f"data must be (inputs, labels), two pytrees of arrays, got {data!r:.60}.")
    data = jax.tree.map(jnp.asarray, tuple(data))
    sizes = {}
    for place, leaf in jax.tree_util.tree_leaves_with_path(data):
        name = "data" + jax.tree_util.keystr(place)
        if leaf.ndim == 0:
            raise InputError(f"{name} is one number: the first axis of data counts the examples.")
        sizes[name] = leaf.shape[0]
    if len(set(sizes.values())) != 1:
        listed = ", ".join(f"{name}: {n}" for name, n in sizes.items()) or "nothing in it"
        raise InputError(f"the data must have one common first axis, the examples ({listed}).")
    n = next(iter(sizes.values()))
    if n == 0:
        raise InputError("the data hold no examples: their first axis has length 0.")
    return (data[0], data[1]), n


def _check_probabilities(operator: LossOperator) -> None:
    inputs = jax.tree.map(lambda a: a[:1], operator.data[0])
    total = jnp.sum(operator._label_slopes(operator.outputs(operator.vector, inputs))[1])
    if not isinstance(total, Tracer) and abs(float(total) - 1) > 1e-3:
        raise InputError(
            f"exp(-objective) over the classes sums to {float(total):.4g} for the first example "
            "and must sum to 1: the objective has to be a negative log-probability, as "
            "-log_softmax(output)[y]."
        )
