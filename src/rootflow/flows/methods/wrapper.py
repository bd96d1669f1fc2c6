"""What a method has from the one that it wraps."""

from typing import ClassVar

from jaxtyping import Array, Float

from ..system import System
from .base import Method, Step


class Wrapper(Method):
    """A method that takes the steps of another, with more in its lifted state.

    Attributes:
        method: the other.
    """

    method: Method

    order: ClassVar[int] = property(lambda self: self.method.order)  # pyright: ignore
    error_order: ClassVar[int] = property(lambda self: self.method.error_order)  # pyright: ignore
    evaluations: ClassVar[int] = property(lambda self: self.method.evaluations)  # pyright: ignore
    start: ClassVar[int] = property(lambda self: self.method.start)  # pyright: ignore
    jacobians: ClassVar[int] = property(lambda self: self.method.jacobians)  # pyright: ignore
    factorisations: ClassVar[int] = property(lambda self: self.method.factorisations)  # pyright: ignore
    adaptive: ClassVar[bool] = property(lambda self: self.method.adaptive)  # pyright: ignore
    iterative: ClassVar[bool] = property(lambda self: self.method.iterative)  # pyright: ignore
    stability: ClassVar[float] = property(lambda self: self.method.stability)  # pyright: ignore

    def check(self, f: System) -> None:
        self.method.check(f)

    def coefficients(self, h: Array, z: Float[Array, " m"], step: Step) -> Float[Array, "degree n"]:
        return self.method.coefficients(h, self.project(z), step)
