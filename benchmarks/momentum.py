"""Worst cases of momentum methods beside PEPit, which models them for a semidefinite solver.

Both sides solve the same programme; ours by a barrier method of its own. Where a closed form is
known the error is against it, else against ours at a tighter tolerance.
"""

from collections.abc import Callable, Sequence

from rootflow import optimize as opt

from .harness.comparison import Build, Comparison, Row

MU, L = 1.0, 25.0


def methods() -> dict[str, Callable[[], opt.Momentum]]:
    return {
        "gradient descent": lambda: opt.gradient_descent(mu=MU, L=L),
        "heavy ball": lambda: opt.heavy_ball(mu=MU, L=L),
        "Nesterov": lambda: opt.nesterov(mu=MU, L=L),
        "triple momentum": lambda: opt.triple_momentum(mu=MU, L=L),
    }


def ours(make: Callable[[], opt.Momentum], steps: int) -> Build:
    return lambda: lambda: opt.worst_case(make(), steps).value


def theirs(make: Callable[[], opt.Momentum], steps: int) -> Build:
    def build():
        from PEPit import PEP  # pyright: ignore[reportMissingImports]
        from PEPit.functions import (  # pyright: ignore[reportMissingImports]
            SmoothStronglyConvexFunction,
        )

        method = make()
        alpha, beta, gamma, delta = (float(v) for v in method.coefficients(0))

        def call() -> float:
            problem = PEP()
            function = problem.declare_function(SmoothStronglyConvexFunction, mu=MU, L=L)
            best = function.stationary_point()
            x = before = problem.set_initial_point()
            problem.set_initial_condition((x - best) ** 2 <= 1)
            for _ in range(steps):
                moved = x - before
                slope = function.gradient(x + gamma * moved)
                x, before = x + beta * moved - alpha * slope, x
            output = x + delta * (x - before)
            problem.set_performance_metric((output - best) ** 2)
            return float(problem.solve(verbose=0))

        return call

    return build


def rows(quick: bool) -> Sequence[Row]:
    made = []
    for name, make in methods().items():
        for steps in (1,) if quick else (5, 15):
            exact = (24 / 26) ** (2 * steps) if name == "gradient descent" else None
            exact = opt.worst_case(make(), steps, tolerance=1e-8).value if exact is None else exact

            def error(value: float, exact: float = exact) -> float:
                return abs(value / exact - 1)

            made.append(
                Row(
                    f"worst case of {name}, {steps} steps",
                    ours(make, steps),
                    theirs(make, steps),
                    bar=1.0,
                    error=error,
                )
            )
    return made


COMPARISON = Comparison(
    title="exact worst cases by performance estimation, condition number 25",
    peer="PEPit",
    rows=rows,
)
