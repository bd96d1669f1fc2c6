"""Large states: the heat equation and the Brusselator on squares, beside SciPy and diffrax.

Both sides solve the same semi-discretised equation by second differences. SciPy's BDF is given the
pattern of the Jacobian, which it factorises by SuperLU. (LSODA knows bands only, and on a periodic
square there is none that is narrow.) diffrax's Tsit5 needs nothing; its Kvaerno5 forms the Jacobian
in full, which at 10,000 unknowns is 800 MB, and is shown at fewer. Ours is given the equation
alone: no pattern, no choice of a linear solver.

Memory: for compiled programs the temporary bytes that XLA reports; for SciPy by how much the solve
raised the resident size of a process of its own at its highest.
"""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate
import scipy.sparse

import rootflow as rf

from .harness.comparison import Build, Comparison, Row

RTOL, ATOL = 1e-6, 1e-8
MAX_STEPS = 100_000


class Case(NamedTuple):
    """An equation on a periodic grid of `side` times `side` points.

    Attributes:
        field: f(t, y, side), y of shape (fields, side, side).
        start: the initial state.
        end: t1.
        side: points along one side.
        exact: the solution at `end`, where it is known.
    """

    field: Callable[..., Any]
    start: np.ndarray
    end: float
    side: int
    exact: np.ndarray | None = None


def laplacian(u: Any, side: int) -> Any:
    """By second differences on the unit square, its sides joined."""
    near = sum(jnp.roll(u, shift, axis) for shift in (-1, 1) for axis in (-2, -1))
    return side**2 * (near - 4 * u)


def heat_field(t: Any, u: Any, side: int) -> Any:
    return 0.05 * laplacian(u, side)


def brusselator_field(t: Any, y: Any, side: int) -> Any:
    """Hairer & Wanner, Solving ODEs II, Section IV.10, without the source that jumps."""
    u, v = y
    reaction = jnp.stack([1 + u * u * v - 4.4 * u, 3.4 * u - u * u * v])
    return reaction + 0.02 * laplacian(y, side)


def heat(side: int) -> Case:
    """Two waves, of which each decays at its own rate."""
    k = np.arange(side) / side
    waves = [np.outer(np.cos(2 * np.pi * m * k), np.cos(2 * np.pi * m * k)) for m in (1, 3)]
    rates = [0.05 * 4 * side**2 * (1 - np.cos(2 * np.pi * m / side)) for m in (1, 3)]
    end = 0.1
    final = sum(w * np.exp(-rate * end) for w, rate in zip(waves, rates))
    return Case(heat_field, np.asarray(sum(waves))[None], end, side, np.asarray(final)[None])


def brusselator(side: int) -> Case:
    x, y = np.meshgrid(np.arange(side) / side, np.arange(side) / side, indexing="ij")
    start = np.stack([22 * y * (1 - y) ** 1.5, 27 * x * (1 - x) ** 1.5])
    return Case(brusselator_field, start, 0.5, side)


def pattern(case: Case) -> Any:
    """Where the Jacobian is not zero: the neighbours on the grid, and the other field there."""
    side, fields = case.side, case.start.shape[0]
    ring = scipy.sparse.eye(side) + sum(
        scipy.sparse.diags(np.ones(side - abs(k)), k) for k in (-1, 1, side - 1, 1 - side)
    )
    one = scipy.sparse.eye(side)
    here = scipy.sparse.kron(one, one)
    near = scipy.sparse.kron(ring, one) + scipy.sparse.kron(one, ring)
    blocks = [[near if i == j else here for j in range(fields)] for i in range(fields)]
    return scipy.sparse.csr_matrix(scipy.sparse.bmat(blocks))


def ours(case: Case, method: Any, rtol: float = RTOL, **options: Any) -> Build:
    def build():
        run, start = our_program(case, method, rtol, **options)
        return lambda: run(start)

    return build


def our_program(case: Case, method: Any, rtol: float = RTOL, **options: Any) -> tuple[Any, Any]:
    @jax.jit
    def run(y0):
        return rf.solve_ode(
            lambda t, y, a: case.field(t, y, case.side), y0, (0.0, case.end), method=method,
            rtol=rtol, atol=rtol * ATOL / RTOL, max_steps=MAX_STEPS, **options,
        ).ys[-1]  # fmt: skip

    return run, jnp.asarray(case.start)


def theirs(case: Case, method: str) -> Build:
    """Of diffrax."""

    def build():
        run, start = their_program(case, method)
        return lambda: run(start)

    return build


def their_program(case: Case, method: str) -> tuple[Any, Any]:
    import diffrax as dfx

    gains: dict[str, Any] = {} if method == "Tsit5" else {"pcoeff": 0.3, "icoeff": 0.4}

    @jax.jit
    def run(y0):
        sol = dfx.diffeqsolve(
            dfx.ODETerm(lambda t, y, a: case.field(t, y, case.side)),  # pyright: ignore
            getattr(dfx, method)(), 0.0, case.end, None, y0, max_steps=MAX_STEPS,
            stepsize_controller=dfx.PIDController(RTOL, ATOL, **gains),
        )  # fmt: skip
        assert sol.ys is not None
        return sol.ys[-1]

    return run, jnp.asarray(case.start)


def in_scipy(case: Case, method: str) -> Build:
    def build():
        field = jax.jit(lambda t, y: case.field(t, y.reshape(case.start.shape), case.side).ravel())
        options = {"jac_sparsity": pattern(case)} if method in ("BDF", "Radau") else {}

        def run(end: float = case.end):
            if end == 0:  # there is nothing to solve; the field is compiled
                return np.asarray(field(0.0, case.start.ravel()))
            sol = scipy.integrate.solve_ivp(
                lambda t, y: np.asarray(field(t, y)), (0.0, end), case.start.ravel(), method,
                rtol=RTOL, atol=ATOL, t_eval=[end], **options,
            )  # fmt: skip
            assert sol.success, sol.message
            return sol.y[:, -1].reshape(case.start.shape)

        return run

    return build


def distance(case: Case) -> Callable[[Any], float]:
    """The largest error over the largest number, against what is known or a tighter solve."""
    cache: list[np.ndarray] = []

    def error(result: Any) -> float:
        if not cache:
            tight = case.exact
            cache.append(np.asarray(ours(case, rf.Tsit5(), 1e-10)()()) if tight is None else tight)
        return float(np.max(np.abs(np.asarray(result) - cache[0])) / np.max(np.abs(cache[0])))

    return error


def temporary(program: Callable[[], tuple[Any, Any]]) -> Build:
    """What the compiled program of the pair (function, argument) works in."""

    def build():
        def call():
            run, start = program()
            analysis = run.lower(start).compile().memory_analysis()
            if analysis is None:
                raise RuntimeError("this backend does not report the memory of a compiled program")
            return analysis.temp_size_in_bytes

        return call

    return build


def rise(run: Callable[..., Any]) -> int:
    """By how many bytes a solve raises the resident size of this process at its highest (Linux)."""

    def told(what: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith(what)).split()[1])

    run(0.0)  # compiles the field
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is forgotten
    before = told("VmRSS")
    run()
    return told("VmHWM") - before


def resident(name: str, side: int, method: str) -> Build:
    """`rise` of SciPy's solve, in a process of its own."""
    program = f"""
import jax
jax.config.update("jax_enable_x64", True)
from benchmarks import large
print(large.rise(large.in_scipy(large.{name}({side}), {method!r})()))
"""

    def call():
        # A core for the compiled field, as in this process.
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(["", *filter(None, sys.path)])},
        )  # fmt: skip
        return int(done.stdout.splitlines()[-1])

    return lambda: call


def rows_of(name: str, side: int, peers: Sequence[tuple[str, str]]) -> list[Row]:
    case = heat(side) if name == "heat" else brusselator(side)
    n = case.start.size
    what = f"{'heat' if name == 'heat' else 'Brusselator'}, {n:,} unknowns"
    made = []
    for package, method in peers:
        mine: Any = getattr(rf, method)()
        peer = in_scipy(case, method) if package == "scipy" else theirs(case, method)
        label = f"{what}, {type(mine).__name__} and {method}"
        made.append(
            Row(label, ours(case, mine), peer, bar=1.0, error=distance(case), peer_name=package)
        )
        if package == "diffrax":
            made.append(
                Row(
                    f"first call, {label}", ours(case, mine), peer, bar=1.0, kind="first call",
                    peer_name=package,
                )
            )  # fmt: skip
            peer_bytes = temporary(lambda method=method: their_program(case, method))
        else:
            peer_bytes = resident(name, side, method)
        mine_bytes = temporary(lambda mine=mine: our_program(case, mine))
        made.append(
            Row(
                f"memory, {label}", mine_bytes, peer_bytes, bar=1.0, kind="memory",
                peer_name=package,
            )
        )  # fmt: skip
    made.append(
        Row(
            f'{what}, "auto" and BDF', ours(case, "auto"), in_scipy(case, "BDF"), bar=1.0,
            error=distance(case), peer_name="scipy",
        )
    )  # fmt: skip
    return made


def rows(quick: bool) -> Sequence[Row]:
    explicit, stiff, full = ("diffrax", "Tsit5"), ("scipy", "BDF"), ("diffrax", "Kvaerno5")
    if quick:
        return [
            *rows_of("heat", 24, (explicit, stiff, full)),
            *rows_of("brusselator", 16, (stiff,)),
        ]
    return [
        *rows_of("heat", 32, (full,)),
        *rows_of("heat", 100, (explicit, stiff)), *rows_of("brusselator", 70, (explicit, stiff)),
        *rows_of("heat", 316, (explicit, stiff)), *rows_of("brusselator", 224, (explicit, stiff)),
    ]  # fmt: skip


COMPARISON = Comparison(
    title=f"large states, float64, rtol {RTOL:g}, atol {ATOL:g}, ours without a pattern of the "
    "Jacobian, SciPy's BDF with it; memory: temporary bytes of XLA, of SciPy the rise of the "
    "resident size",
    peer="scipy",
    rows=rows,
)
