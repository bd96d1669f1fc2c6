"""Models from elsewhere, called as a `Denoiser` calls its model: `(x, t)` or `(x, t, condition)`.

Each adapter hands the model a time per sample, shape (batch,), as networks are usually trained
with. None of these packages is imported unless its adapter is called.
"""

import contextlib
import importlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array

from .._typing import PyTree
from ..errors import DerivativeError, InputError
from ..ground.linear import linear
from .numerics import doubled_axis


def _times(x: Array, t: Any) -> Array:
    # Labels up to 999 would be rounded in half precision.
    return jnp.broadcast_to(jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32)), x.shape[:1])


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


# The shapes and types with which a module has been called without a complaint, and of what shape
# its answer was.
_TRIED: "weakref.WeakKeyDictionary[Any, dict[Any, tuple[int, ...]]]" = weakref.WeakKeyDictionary()


class _Torch(eqx.Module):
    module: Any = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    output: Any = eqx.field(static=True, default=None)

    def __call__(self, x: Array, t: Any, *condition: Any) -> Array:
        inputs = (jnp.asarray(x), _times(x, t), *jax.tree.map(jnp.asarray, condition))
        if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(inputs)):
            return jnp.asarray(self._forward(*inputs), inputs[0].dtype)
        return _called(self, inputs, self._try(inputs))

    def _forward(self, *inputs: Any) -> Any:
        with _torch().no_grad():
            return _to_jax(self._value(self._tensors(inputs)))

    def _try(self, inputs: Any) -> tuple[int, ...]:
        """Calls the module on zeros, once for each set of shapes; returns the shape of its answer.

        What goes wrong inside a compiled program comes with pages of traceback; here it does not.
        """
        leaves, structure = jax.tree.flatten(inputs)
        kinds = (structure, *((leaf.shape, leaf.dtype) for leaf in leaves))
        seen = _TRIED.setdefault(self.module, {})
        if kinds not in seen:
            zeros = [np.zeros(leaf.shape, leaf.dtype) for leaf in leaves]
            found = np.shape(self._forward(*jax.tree.unflatten(structure, zeros)))
            x = inputs[0]
            # Twice the channels are those of a learned variance, which the denoiser knows of.
            if found != x.shape and not doubled_axis(found, x.shape):
                raise InputError(_another_shape(x.shape, found))
            seen[kinds] = found
        return seen[kinds]

    def _value(self, tensors: Any) -> Any:
        """What the module returns, as one tensor."""
        name = type(self.module).__name__
        try:
            out = self.module(*tensors)
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            given = ", ".join(f"{t.dtype}{list(t.shape)}" for t in jax.tree.leaves(tensors))
            half = ""
            if tensors[1].dtype != tensors[0].dtype:
                half = (
                    f" The time is not rounded to the module's {self.dtype}: where it needs that, "
                    "cast it in the module, t.to(x.dtype)."
                )
            raise InputError(
                f"The PyTorch module {name} failed on ({given}): {type(error).__name__}: "
                f"{said}.{half}"
            ) from error
        return _prediction(out, self.output, name)

    def _tensors(self, inputs: Any) -> Any:
        """The inputs in the precision of the module, and the times in single precision at least."""
        x, t, *condition = inputs
        torch = _torch()
        half = self.dtype in (torch.float16, torch.bfloat16)
        time = self._given(t, torch.float32 if half else self.dtype)
        return (self._given(x), time, *jax.tree.map(self._given, condition))

    def _push(self, inputs: Any, which: list[int], tangents: Any) -> Any:
        """J v, by two reverse passes: not every PyTorch operation has a forward derivative."""
        torch = _torch()
        moving, seen = self._moving(inputs, which)
        with torch.enable_grad(), _twice_differentiable():
            out = self._value(seen)
            probe = torch.zeros_like(out, requires_grad=True)
            pulled = torch.autograd.grad(out, moving, probe, create_graph=True, allow_unused=True)
            pairs = [
                (p, self._given(v, p.dtype)) for p, v in zip(pulled, tangents) if p is not None
            ]
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
            out = self._value(seen)
            given = self._given(cotangent, out.dtype)
            found = torch.autograd.grad(out, moving, given, allow_unused=True)
        return [
            _to_jax(torch.zeros_like(leaf) if slope is None else slope)
            for leaf, slope in zip(moving, found)
        ]

    def _moving(self, inputs: Any, which: list[int]) -> tuple[list[Any], Any]:
        """Tensors of the inputs, and those of the floating-point ones that are to be followed."""
        leaves, structure = jax.tree.flatten(self._tensors(inputs))
        floating = [leaf for leaf in leaves if leaf.is_floating_point()]
        moving = [floating[i].requires_grad_() for i in which]
        return moving, jax.tree.unflatten(structure, leaves)

    def _given(self, leaf: Any, dtype: Any = None) -> Any:
        """A tensor of its own, on the device and in the precision of the module (or in `dtype`)."""
        torch = _torch()
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
        if array.dtype == jnp.bfloat16:  # which NumPy has no way to hand over
            array = np.asarray(array).astype(np.float32)
        tensor = torch.from_dlpack(array) if array.ndim else torch.tensor(array.item())
        held = itertools.chain(self.module.parameters(), self.module.buffers())
        place = next(held, tensor).device
        tensor = tensor.to(place).clone()
        return tensor.to(dtype or self.dtype) if tensor.is_floating_point() else tensor


def from_torch(module: Any, *, output: Any = None) -> Any:
    """A PyTorch module of a batch, `module(x, t)` or `module(x, t, condition)`.

    Arrays go there and back through DLPack. Inside `jit`, as in `sample`, the call leaves the
    compiled program (on a CPU without a copy to another device). It can be differentiated in x, t
    and a floating-point condition, once, forwards and backwards; the module's own parameters are
    fixed. Under `vmap` the module is called once for each member. The module is put into evaluation
    mode. Arrays go to its device and are cast to the precision of its parameters, and what it
    returns back to that of x; the times stay in single precision at least, so that labels are not
    rounded. Compiled modules (`torch.compile`) run as they are, but for forward derivatives, which
    PyTorch's compiled programs and fused attention do not have: these are taken without both.
    Before it becomes part of a compiled program the module is called once on zeros of the same
    shapes.

    Args:
        module: a `torch.nn.Module`.
        output: which of the things that the module returns is the prediction: a place, a name, or a
            function of what it returns. Without it that is a tensor, or the only tensor of a tuple,
            a dictionary or an object, or the one called `sample`, as in U-Nets of diffusers.

    Raises:
        InputError: PyTorch is not installed, `module` is not one of its modules, or has parameters
            without values (on the device `meta`); later, what the module itself raises, or returns
            instead of one tensor.
        DerivativeError: later, for a second derivative.
    """
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise InputError(f"from_torch wraps a torch.nn.Module; got {type(module).__name__}.")
    held = list(module.parameters())
    if any(getattr(p.device, "type", "") == "meta" for p in held):
        raise InputError(
            "The PyTorch module has parameters on the device meta, without values: load its "
            "weights before it is handed over."
        )
    first = next((p for p in held if p.is_floating_point()), None)
    dtype = torch.get_default_dtype() if first is None else first.dtype
    return _Torch(module.eval(), dtype, output)


def _prediction(out: Any, output: Any, name: str) -> Any:
    """The one tensor that counts, of what a module called `name` has returned."""
    torch = _torch()
    if callable(output):
        found = output(out)
        if not torch.is_tensor(found):
            raise InputError(f"output= made {type(found).__name__} of what {name} returned.")
        return found
    if torch.is_tensor(out) and output is None:
        return out
    parts = {key: part for key, part in _parts(out).items() if torch.is_tensor(part)}
    if output is not None:
        if output in parts:
            return parts[output]
        raise InputError(
            f"The PyTorch module {name} returned {type(out).__name__}, which has no tensor "
            f"{output!r}; its tensors are {', '.join(map(repr, parts)) or 'none'}."
        )
    if "sample" in parts or len(parts) == 1:
        return parts["sample"] if "sample" in parts else next(iter(parts.values()))
    several = f" but {len(parts)}: say which by output=" if parts else ""
    raise InputError(
        f"The PyTorch module {name} returned {type(out).__name__}, which is neither a tensor nor "
        f"has one called `sample`, or one alone{several}"
        f"{' one of ' + ', '.join(map(repr, parts)) if parts else ''}."
    )


def _parts(out: Any) -> dict[Any, Any]:
    """What is in a dictionary, a tuple or an object, by its key, place or name."""
    if isinstance(out, Mapping):
        return dict(out)
    if isinstance(out, tuple | list):
        return dict(getattr(out, "_asdict", dict)()) or dict(enumerate(out))
    return dict(getattr(out, "__dict__", {}))


@contextlib.contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Turns off in PyTorch what has a first derivative only: compiled programs, fused attention."""
    torch = _torch()
    with contextlib.ExitStack() as opened:
        if hasattr(getattr(torch, "compiler", None), "set_stance"):
            opened.enter_context(torch.compiler.set_stance("force_eager"))
        attention = getattr(torch.nn, "attention", None)
        if attention is not None:
            opened.enter_context(attention.sdpa_kernel(attention.SDPBackend.MATH))
        yield


def _torch() -> Any:
    try:
        return importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise InputError(
            "from_torch needs PyTorch, which is not installed; install it with: pip install torch"
        ) from error


def _to_jax(tensor: Any) -> Any:
    # To NumPy and not to JAX: inside a callback JAX must not be called. NumPy has no bfloat16.
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == _torch().bfloat16 else tensor).numpy()


def _another_shape(wanted: Any, found: Any) -> str:
    return f"The model must return what x looks like, shape {wanted}; got {found}."


def _on_host(function: Any, shape: tuple[int, ...], result: Any, *operands: Any) -> Any:
    """What a function of the module returns outside of the program, cast to `result`.

    Raises, when the program runs, where the shapes are not those; `shape` is that of x.
    """

    def on_host(*operands):
        found = function(*operands)
        cast = jax.tree.map(lambda a, r: np.asarray(a, r.dtype), found, result)
        shapes = jax.tree.map(lambda a: a.shape, cast)
        if shapes != jax.tree.map(lambda r: r.shape, result):
            raise InputError(_another_shape(shape, shapes))
        return cast

    return jax.pure_callback(on_host, result, *operands, vmap_method="sequential")


def _called(model: _Torch, inputs: tuple[Any, ...], shape: tuple[int, ...]) -> Array:
    """The module inside a traced program, with a derivative in both directions."""
    leaves, structure = jax.tree.flatten(inputs)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]
    fixed = [leaf for leaf, moves in zip(leaves, floating) if not moves]

    def whole(moving, fixed):
        left, right = iter(moving), iter(fixed)
        return jax.tree.unflatten(structure, [next(left if m else right) for m in floating])

    def like(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype)

    out = jax.ShapeDtypeStruct(shape, inputs[0].dtype)

    def forward(moving, fixed):
        return _on_host(lambda m, f: model._forward(*whole(m, f)), shape, out, moving, fixed)

    value = jax.custom_jvp(forward)

    def rule(primals, tangents):
        moving, fixed = primals
        # Only what moves: a zero that is known to be one cannot be transposed.
        which = [i for i, v in enumerate(tangents[0]) if type(v) is not SymbolicZero]
        count, shapes = len(moving), [like(leaf) for leaf in moving]

        def push(residuals, slopes):
            moving, fixed = _once(residuals[:count]), residuals[count:]
            return [
                _on_host(
                    lambda m, f, v: model._push(whole(m, f), which, v),
                    shape, out, moving, fixed, slopes,
                )
            ]  # fmt: skip

        def pull(residuals, cotangents, batched):
            del batched
            (cotangent,) = cotangents
            result = [shapes[i] for i in which]
            if cotangent is None:
                return [jnp.zeros(r.shape, r.dtype) for r in result]
            moving, fixed = _once(residuals[:count]), residuals[count:]
            return _on_host(
                lambda m, f, c: model._pull(whole(m, f), which, c),
                shape, result, moving, fixed, cotangent,
            )  # fmt: skip

        slopes = [tangents[0][i] for i in which]
        (along,) = linear(push, pull, [*moving, *fixed], slopes, [out])
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
        "rewrite the model in JAX. A likelihood needs the second with an implicit method and with "
        'method="auto": leave the method out, or give it an explicit one, such as rf.Tsit5().'
    )
