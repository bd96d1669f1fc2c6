"""Models from elsewhere, called as a `Denoiser` calls its model: `(x, t)` or `(x, t, condition)`.

Each adapter hands the model a time per sample, shape (batch,), as networks are usually trained
with. None of these packages is imported unless its adapter is called.
"""

import importlib
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, PyTree

from ..errors import DerivativeError, InputError
from ..flows.linear import linear


def _times(x: Array, t: Any) -> Array:
    return jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1])


class _Equinox(eqx.Module):
    module: Any

    def __call__(self, x: Array, t: Any, *condition: Any) -> Array:
        def one(x, t, *condition):
            return self.module(x, t, *condition)

        # A leaf without a batch axis is the same for all samples.
        axes = [
            jax.tree.map(lambda leaf: 0 if jnp.shape(leaf)[:1] == x.shape[:1] else None, part)
            for part in condition
        ]
        return jax.vmap(one, in_axes=(0, 0, *axes))(x, _times(x, t), *condition)


def from_equinox(module: Callable[..., Any]) -> Any:
    """An Equinox module (or function) of one sample, `module(x, t)` or `module(x, t, condition)`.

    It is mapped over the batch, with dropout and running averages as in inference. A leaf of the
    condition whose first axis is the batch is mapped as well; any other is the same for all
    samples. A module that takes a whole batch needs no adapter.

    Raises:
        InputError: something that cannot be called.
    """
    if not callable(module):
        raise InputError(f"from_equinox wraps a module that can be called; got {module!r}.")
    return _Equinox(eqx.nn.inference_mode(module))


class _Flax(eqx.Module):
    apply: Callable[..., Any] = eqx.field(static=True)
    variables: PyTree
    options: dict[str, Any] = eqx.field(static=True)
    split: bool = eqx.field(static=True)

    def __call__(self, x: Array, t: Any, *condition: Any) -> Array:
        inputs = (x, _times(x, t), *condition)
        if self.split:
            # NNX: the graph applied to the state is the module again, and what it returns comes
            # with its new state, which inference leaves alone.
            return self.apply(self.variables)(*inputs, **self.options)[0]
        return self.apply(self.variables, *inputs, **self.options)


def from_flax(module: Any, variables: PyTree, **options: Any) -> Any:
    """A Flax model: a Linen module with its variables, or the two halves of an NNX module.

    Args:
        module: a Linen module; its `apply`, or any function `apply(variables, x, t, ...)`; or the
            graph that `nnx.split` returned first.
        variables: the variables (Linen), or the state that `nnx.split` returned second. Their
            arrays can be differentiated.
        **options: handed to every call, as `train=False`.

    Raises:
        InputError: a module that has no `apply` and cannot be called.
    """
    family = [kind.__module__ for kind in type(module).__mro__]
    split = any(name.startswith("flax.nnx") for name in family)
    if split and not hasattr(module, "apply"):
        raise InputError(
            "from_flax takes an NNX module in two halves: graph, state = nnx.split(module), then "
            "from_flax(graph, state)."
        )
    apply = getattr(module, "apply", module)
    if not callable(apply):
        raise InputError(
            f"from_flax takes a module with `apply`, or an apply function; got {module!r}."
        )
    return _Flax(apply, variables, options, split)


class _Torch(eqx.Module):
    module: Any = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)

    def __call__(self, x: Array, t: Any, *condition: Any) -> Array:
        inputs = (jnp.asarray(x), _times(x, t), *jax.tree.map(jnp.asarray, condition))
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(inputs)):
            return self._forward(*inputs)
        return _called(self, inputs)

    def _forward(self, *inputs: Any) -> Any:
        torch = _torch()
        with torch.no_grad():
            return _to_jax(self.module(*jax.tree.map(self._given, inputs)))

    def _push(self, inputs: Any, which: list[int], tangents: Any) -> Any:
        """J v, by two reverse passes: not every PyTorch operation has a forward derivative."""
        torch = _torch()
        moving, seen = self._moving(inputs, which)
        with torch.enable_grad():
            out = self.module(*seen)
            probe = torch.zeros_like(out, requires_grad=True)
            pulled = torch.autograd.grad(out, moving, probe, create_graph=True, allow_unused=True)
            pairs = [(p, self._given(v)) for p, v in zip(pulled, tangents) if p is not None]
            if not pairs:
                return _to_jax(torch.zeros_like(out))
            along = torch.stack([(p * v).sum() for p, v in pairs]).sum()
            if not along.requires_grad:
                return _to_jax(torch.zeros_like(out))
            return _to_jax(torch.autograd.grad(along, probe)[0])

    def _pull(self, inputs: Any, which: list[int], cotangent: Any) -> Any:
        torch = _torch()
        moving, seen = self._moving(inputs, which)
        with torch.enable_grad():
            out = self.module(*seen)
            found = torch.autograd.grad(out, moving, self._given(cotangent), allow_unused=True)
        return [
            _to_jax(torch.zeros_like(leaf) if slope is None else slope)
            for leaf, slope in zip(moving, found)
        ]

    def _moving(self, inputs: Any, which: list[int]) -> tuple[list[Any], Any]:
        """Tensors of the inputs, and those of the floating-point ones that are to be followed."""
        leaves, structure = jax.tree.flatten(jax.tree.map(self._given, inputs))
        floating = [leaf for leaf in leaves if leaf.is_floating_point()]
        moving = [floating[i].requires_grad_() for i in which]
        return moving, jax.tree.unflatten(structure, leaves)

    def _given(self, leaf: Any) -> Any:
        """A tensor of its own, on the device and in the precision of the module."""
        torch = _torch()
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        tensor = torch.from_dlpack(array) if array.ndim else torch.tensor(array.item())
        place = next(self.module.parameters(), tensor).device
        tensor = tensor.to(place).clone()
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def from_torch(module: Any) -> Any:
    """A PyTorch module of a batch, `module(x, t)` or `module(x, t, condition)`.

    Arrays go there and back through DLPack. Inside `jit`, as in `sample`, the call leaves the
    compiled program (on a CPU without a copy to another device). It can be differentiated in x, t
    and a floating-point condition, once, forwards and backwards; the module's own parameters are
    fixed. Under `vmap` the module is called once for each member. The module is put into evaluation
    mode. Arrays are cast to the precision of its parameters.

    Raises:
        InputError: PyTorch is not installed, or `module` is not one of its modules.
        DerivativeError: later, for a second derivative.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch wraps a torch.nn.Module; got {type(module).__name__}.")
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if first is None else first.dtype
    return _Torch(module.eval(), dtype)


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise InputError(
            "from_torch needs PyTorch, which is not installed; install it with: pip install torch"
        ) from error


def _to_jax(tensor: Any) -> Any:
    # To NumPy and not to JAX: inside a callback JAX must not be called.
    return tensor.detach().cpu().numpy()


def _called(model: _Torch, inputs: tuple[Any, ...]) -> Array:
    """The module inside a traced program, with a derivative in both directions."""
    leaves, structure = jax.tree.flatten(inputs)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    fixed = [leaf for leaf, moves in zip(leaves, floating) if not moves]

    def whole(moving, fixed):
        left, right = iter(moving), iter(fixed)
        return jax.tree.unflatten(structure, [next(left if m else right) for m in floating])

    def like(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    x = inputs[0]

    def callback(function, result, *operands):
        def on_host(*operands):
            found = function(*operands)
            cast = jax.tree.map(lambda a, r: np.asarray(a, r.dtype), found, result)
            shapes = jax.tree.map(lambda a: a.shape, cast)
            if shapes != jax.tree.map(lambda r: r.shape, result):
                raise InputError(
                    f"The model must return what x looks like, shape {x.shape}; got {shapes}."
                )
            return cast

        return jax.pure_callback(on_host, result, *operands, vmap_method="sequential")

    def forward(moving, fixed):
        return callback(lambda m, f: model._forward(*whole(m, f)), like(x), moving, fixed)

    value = jax.custom_jvp(forward)

    def rule(primals, tangents):
        moving, fixed = primals
        # Only what moves: a zero that is known to be one cannot be transposed.
        which = [i for i, v in enumerate(tangents[0]) if type(v) is not SymbolicZero]
        count, shapes = len(moving), [like(leaf) for leaf in moving]

        def push(residuals, slopes):
            moving, fixed = _once(residuals[:count]), residuals[count:]
            return [
                callback(
                    lambda m, f, v: model._push(whole(m, f), which, v),
                    like(x), moving, fixed, slopes,
                )
            ]  # fmt: skip

        def pull(residuals, cotangents, batched):
            del batched
            (cotangent,) = cotangents
            result = [shapes[i] for i in which]
            if cotangent is None:
                return [jnp.zeros(r.shape, r.dtype) for r in result]
            moving, fixed = _once(residuals[:count]), residuals[count:]
            return callback(
                lambda m, f, c: model._pull(whole(m, f), which, c), result, moving, fixed, cotangent
            )

        slopes = [tangents[0][i] for i in which]
        (along,) = linear(push, pull, [*moving, *fixed], slopes, [like(x)])
        return value(moving, fixed), along

    value.defjvp(rule, symbolic_zeros=True)
    return value([leaf for leaf, m in zip(leaves, floating) if m], fixed)


@jax.custom_jvp
def _once(leaves: list[Array]) -> list[Array]:
    """The leaves, which a derivative has been taken in and no further one can be."""
    return leaves


@_once.defjvp
def _refuse(primals: Any, tangents: Any) -> Any:
    raise DerivativeError(
        "A model from from_torch has first derivatives only: take the second one in PyTorch, or "
        "rewrite the model in JAX. A likelihood needs the second where the solver may turn "
        "implicit: give it an explicit method, such as method=rf.Tsit5()."
    )
