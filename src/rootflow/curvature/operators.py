"""Symmetric linear maps that are known by their products with vectors."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._typing import PyTree
from ..errors import InputError
from ..ground.programs import Behaviour, compiled_for

Vector = Float[Array, " n"]
Product = Callable[[Vector], Vector]

# Numbers in memory for products that are worked on together.
_ROOM = 2**23


class Operator(eqx.Module):
    """A symmetric matrix of which only products with vectors are computed.

    `H @ v` takes a vector of shape (n,), a matrix of shape (n, k), or, for the operator of a loss,
    a tree like the parameters. Sums, differences and multiples of operators are operators.

    Attributes:
        size: n, the number of rows.
        dtype: the floating-point type of vectors.
    """

    @property
    @abstractmethod
    def size(self) -> int: ...

    @property
    @abstractmethod
    def dtype(self) -> Any: ...

    @abstractmethod
    def linear(self) -> Product:
        """The product with a vector; what all products have in common is computed once, here."""

    def footprint(self) -> int:
        """About how many numbers one product works on, by which products are put together."""
        return self.size

    def at_once(self, most: int, beside: int = 0) -> int:
        """How many products to work on at a time; `beside` is what else each of them keeps."""
        return max(1, min(most, _ROOM // (self.footprint() + beside)))

    def functions(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        """The user's functions behind the products, with arguments, as `Behaviour` takes them."""
        return ()

    def ravel(self, tree: PyTree) -> Vector | None:
        """The vector of a tree like the parameters; None for anything else."""
        del tree

    def unravel(self, vector: Vector) -> PyTree:
        """A vector in the structure of the parameters, where the operator has one."""
        return vector

    def __matmul__(self, other: Any) -> Any:
        vector = self.ravel(other)
        if vector is not None:
            return self.unravel(_apply(self, vector))
        shape = np.shape(other)
        if len(shape) not in (1, 2) or shape[0] != self.size:
            raise InputError(
                f"an operator of size {self.size} was multiplied with something of shape {shape}: "
                f"give a vector of shape ({self.size},), a matrix of shape ({self.size}, k), or a "
                "tree like the parameters."
            )
        return _apply(self, jnp.asarray(other, self.dtype))

    def __add__(self, other: Any) -> "Operator":
        return NotImplemented if not isinstance(other, Operator) else Sum((self, other), (1.0, 1.0))

    def __sub__(self, other: Any) -> "Operator":
        return (
            NotImplemented if not isinstance(other, Operator) else Sum((self, other), (1.0, -1.0))
        )

    def __mul__(self, scale: Any) -> "Operator":
        if isinstance(scale, Operator) or np.shape(scale) != ():
            return NotImplemented
        return Sum((self,), (scale,))

    __rmul__ = __mul__

    def __neg__(self) -> "Operator":
        return Sum((self,), (-1.0,))

    def shifted(self, shift: ArrayLike) -> "Operator":
        """H + shift I: what a weight decay of `shift` adds to a Hessian."""
        return self + Scaling(jnp.full(self.size, shift, self.dtype))


def _behaviour(*args: Any, **kwargs: Any) -> Behaviour:
    operators = [part for part in (*args, *kwargs.values()) if isinstance(part, Operator)]
    return Behaviour(*(call for operator in operators for call in operator.functions()))


#: Compiled outside `jit`, for operators by what their functions do.
compiled = compiled_for(_behaviour)


@compiled
def _apply(operator: Operator, vector: Array) -> Array:
    product = operator.linear()
    return product(vector) if vector.ndim == 1 else jax.vmap(product, 1, 1)(vector)


class Given(Operator):
    """A product that the user wrote."""

    product: Product
    rows: int = eqx.field(static=True)
    kind: Any = eqx.field(static=True)

    def functions(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        return ((self.product, (jnp.zeros(self.size, self.dtype),)),)

    @property
    def size(self) -> int:
        return self.rows

    @property
    def dtype(self) -> Any:
        return self.kind

    def linear(self) -> Product:
        def product(v):
            out = jnp.asarray(self.product(v))
            if out.shape != (self.size,):
                raise InputError(
                    f"the product of an operator of size {self.size} must return shape "
                    f"({self.size},), got {out.shape}."
                )
            return out.astype(self.dtype)

        return product


class Scaling(Operator):
    """A diagonal matrix."""

    diagonal: Vector

    @property
    def size(self) -> int:
        return self.diagonal.shape[0]

    @property
    def dtype(self) -> Any:
        return self.diagonal.dtype

    def linear(self) -> Product:
        return lambda v: self.diagonal * v


class Sum(Operator):
    """A sum of multiples of operators."""

    terms: tuple[Operator, ...]
    scales: tuple[Any, ...]

    def __check_init__(self) -> None:
        sizes = [term.size for term in self.terms]
        if len(set(sizes)) > 1:
            raise InputError(f"operators of sizes {sizes} cannot be added: they must be equal.")

    @property
    def size(self) -> int:
        return self.terms[0].size

    @property
    def dtype(self) -> Any:
        return self.terms[0].dtype

    def linear(self) -> Product:
        products = [term.linear() for term in self.terms]

        def product(v):
            parts = [jnp.asarray(s, self.dtype) * p(v) for s, p in zip(self.scales, products)]
            return sum(parts[1:], parts[0])

        return product

    def footprint(self) -> int:
        return max(term.footprint() for term in self.terms)

    def functions(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        return tuple(call for term in self.terms for call in term.functions())

    def ravel(self, tree: PyTree) -> Vector | None:
        return self.terms[0].ravel(tree)

    def unravel(self, vector: Vector) -> PyTree:
        return self.terms[0].unravel(vector)


class Congruence(Operator):
    """D H D with a diagonal D."""

    inner: Operator
    diagonal: Vector

    @property
    def size(self) -> int:
        return self.inner.size

    @property
    def dtype(self) -> Any:
        return self.inner.dtype

    def linear(self) -> Product:
        product = self.inner.linear()
        return lambda v: self.diagonal * product(self.diagonal * v)

    def footprint(self) -> int:
        return self.inner.footprint()

    def functions(self) -> tuple[tuple[Any, tuple[Any, ...]], ...]:
        return self.inner.functions()

    def ravel(self, tree: PyTree) -> Vector | None:
        return self.inner.ravel(tree)

    def unravel(self, vector: Vector) -> PyTree:
        return self.inner.unravel(vector)


def operator(product: Product, *, size: int, dtype: Any = None) -> Operator:
    """An operator from a function `v -> H v`, for example of a matrix that is never formed.

    Args:
        product: linear and symmetric, traceable by JAX; vectors have shape (size,).
        size: the number of rows.
        dtype: the floating-point type of vectors; by default JAX's default.

    Raises:
        InputError: `product` cannot be called, or a size or type that cannot be.
    """
    if not callable(product):
        raise InputError(f"operator takes a function v -> H v, got {product!r:.60}.")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
        raise InputError(f"size must be a positive whole number, got {size!r}.")
    dtype = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise InputError(f"dtype must be a real floating-point type, got {dtype}.")
    return Given(product, int(size), dtype)
