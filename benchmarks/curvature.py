"""The curvature of a loss beside PyHessian and curvlinops: largest eigenvalue, trace and density.

One network, 64-96-48-10 with tanh and cross-entropy, on 500 examples in single precision, the
same numbers on both sides. The largest eigenvalue is to one in a thousand; traces and densities
take the same number of products. Errors are those against the same quantity in double precision:
the exact spectrum is too large to form, so for the trace it is the mean of many probes, and for the
density that of many probes at the same width.
"""

import importlib.util
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rootflow import curvature as cv

from .harness.comparison import Comparison, Row

SIZES = (64, 96, 48, 10)
N = 500
PROBES, STEPS = 30, 60


def problem(dtype: Any) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, size=N)
    inputs = rng.normal(size=(10, 64))[labels] + rng.normal(size=(N, 64))
    layers = [(rng.normal(size=(m, n)) / m**0.5, np.zeros(n)) for m, n in itertools.pairwise(SIZES)]
    return [(w.astype(dtype), b.astype(dtype)) for w, b in layers], inputs.astype(dtype), labels


def network(params, x):
    *hidden, (weight, bias) = params
    for w, b in hidden:
        x = jnp.tanh(x @ w + b)
    return x @ weight + bias


def cross_entropy(z, y):
    return -jax.nn.log_softmax(z)[y]


def operator(dtype: Any = np.float32) -> cv.LossOperator:
    params, inputs, labels = problem(dtype)
    return cv.hessian(network, cross_entropy, params, (inputs, labels))


def in_torch() -> tuple[Any, Any, Any, Any]:
    """The same network, data and loss."""
    import torch  # pyright: ignore[reportMissingImports]

    params, inputs, labels = problem(np.float32)
    layers: list[Any] = []
    for w, b in params:
        layer = torch.nn.Linear(*w.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(w.T))
            layer.bias.copy_(torch.tensor(b))
        layers += [layer, torch.nn.Tanh()]
    model = torch.nn.Sequential(*layers[:-1])
    return model, torch.nn.CrossEntropyLoss(), torch.tensor(inputs), torch.tensor(labels)


def pyhessian() -> Any:
    import torch  # pyright: ignore[reportMissingImports]
    from pyhessian import hessian  # pyright: ignore[reportMissingImports]

    model, loss, inputs, labels = in_torch()
    # PyHessian calls a function that torch has removed, and whose place an error holds.
    torch.eig = _eig
    return hessian(model, loss, data=(inputs, labels), cuda=False)


def _eig(matrix: Any, eigenvectors: bool = True) -> Any:
    import torch  # pyright: ignore[reportMissingImports]

    values, vectors = torch.linalg.eig(matrix)
    return torch.stack([values.real, values.imag], dim=1), vectors.real


def curvlinops() -> Any:
    from curvlinops import HessianLinearOperator  # pyright: ignore[reportMissingImports]

    model, loss, inputs, labels = in_torch()
    params = [p for p in model.parameters() if p.requires_grad]
    return HessianLinearOperator(model, loss, params, [(inputs, labels)])


def keyed(call: Callable[[Any], Any]) -> Callable[[], Callable[[], Any]]:
    """Ours: every call with a key of its own."""

    def build():
        h = operator()
        keys = iter(jax.random.split(jax.random.key(1), 10_000))
        return lambda: call(h, next(keys))  # pyright: ignore[reportCallIssue]

    return build


def largest(h: Any, key: Any) -> Any:
    return cv.extreme(h, key=key, tolerance=3e-3).largest[0]


def total(h: Any, key: Any) -> Any:
    return cv.trace(h, probes=PROBES, key=key).value


def spectrum(h: Any, key: Any) -> Any:
    q = cv.density(h, probes=2, steps=STEPS, key=key)
    return q.nodes, q.weights


def largest_by_pyhessian():
    h = pyhessian()
    return lambda: h.eigenvalues(maxIter=1000, tol=1e-4)[0][0]


def largest_by_curvlinops():
    from scipy.sparse.linalg import eigsh

    h = curvlinops().to_scipy()
    return lambda: eigsh(h, k=1, which="LA", tol=1e-3, return_eigenvectors=False)[0]  # pyright: ignore


def trace_by_pyhessian():
    h = pyhessian()
    return lambda: np.mean(h.trace(maxIter=PROBES, tol=0.0))


def trace_by_curvlinops():
    from curvlinops import hutchinson_trace  # pyright: ignore[reportMissingImports]

    h = curvlinops()
    return lambda: float(hutchinson_trace(h, num_matvecs=PROBES, distribution="rademacher"))


def density_by_pyhessian():
    h = pyhessian()

    def call():
        nodes, weights = h.density(iter=STEPS, n_v=2)
        return np.array(nodes), np.array(weights)

    return call


def density_by_curvlinops():
    import torch  # pyright: ignore[reportMissingImports]
    from curvlinops.papyan2020traces import spectrum  # pyright: ignore[reportMissingImports]

    h = curvlinops()

    def call():
        runs = [spectrum.fast_lanczos(h, STEPS) for _ in range(2)]
        with torch.no_grad():
            return (
                np.array([nodes.numpy() for nodes, _ in runs]),
                np.array([vectors[0].numpy() ** 2 for _, vectors in runs]),
            )

    return call


def rows(quick: bool) -> Sequence[Row]:
    h = operator(np.float64)
    key = jax.random.key(0)
    top = float(cv.extreme(h, key=key, tolerance=1e-6).largest[0])
    exact = cv.trace(h, probes=300 if quick else 1500, key=key)
    many = cv.density(h, probes=4 if quick else 20, steps=STEPS, key=key)
    truth = shape((many.nodes, many.weights))

    def relative(value: Any) -> float:
        return abs(float(value) / top - 1)

    def in_trace(value: Any) -> float:
        return abs(float(value) / float(exact.value) - 1)

    def in_shape(found: Any) -> float:
        return float(np.max(np.abs(shape(found) - truth)))

    def beside(peer: str, name: str, call: Any, build: Any, error: Any) -> Row:
        return Row(
            f"{name}, {h.size} parameters, beside {peer}", keyed(call), build, bar=0.5,
            error=error, peer_name=peer,
        )  # fmt: skip

    wave = f"density, 2 probes of {STEPS} steps"
    made = [
        beside("pyhessian", "largest eigenvalue", largest, largest_by_pyhessian, relative),
        beside("curvlinops", "largest eigenvalue", largest, largest_by_curvlinops, relative),
        beside("pyhessian", f"trace, {PROBES} probes", total, trace_by_pyhessian, in_trace),
        beside("curvlinops", f"trace, {PROBES} probes", total, trace_by_curvlinops, in_trace),
        beside("pyhessian", wave, spectrum, density_by_pyhessian, in_shape),
        beside("curvlinops", wave, spectrum, density_by_curvlinops, in_shape),
    ]
    if importlib.util.find_spec("torch") is None:
        print("curvature: PyTorch is not installed, so its side is left out")
    return made


def shape(found: Any) -> np.ndarray:
    """The distribution function at places of the size of the bulk."""
    nodes, weights = (np.asarray(part, float) for part in found)
    places = np.array([-0.05, -0.01, 0.01, 0.05, 0.2])
    return np.array([np.sum(weights * (nodes < place)) for place in places]) / len(nodes)


COMPARISON = Comparison(
    title="curvature of a small network, float32",
    peer="pyhessian",
    rows=rows,
)
