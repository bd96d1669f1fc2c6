"""What a method has from the one that it wraps."""

from .base import Method


class Wrapper(Method):
    """A method that takes the steps of another, with more in its lifted state.

    Attributes:
        method: the other.
    """

    method: Method

    order = property(lambda self: self.method.order)  # pyright: ignore
    error_order = property(lambda self: self.method.error_order)  # pyright: ignore
    evaluations = property(lambda self: self.method.evaluations)  # pyright: ignore
    start = property(lambda self: self.method.start)  # pyright: ignore
    jacobians = property(lambda self: self.method.jacobians)  # pyright: ignore
    factorisations = property(lambda self: self.method.factorisations)  # pyright: ignore
    adaptive = property(lambda self: self.method.adaptive)  # pyright: ignore
    iterative = property(lambda self: self.method.iterative)  # pyright: ignore
    stability = property(lambda self: self.method.stability)  # pyright: ignore

    def check(self, f):
        self.method.check(f)

    def coefficients(self, h, z, step):
        return self.method.coefficients(h, self.project(z), step)
