"""A body in plane stress, assembled once by scikit-fem (the extra `[fem]`)."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.sparse import bmat, coo_matrix, csr_matrix, diags, eye
from scipy.sparse.linalg import eigsh

from ..errors import InputError
from . import checks
from .products import NodeProduct, node_product


def scikit_fem() -> Any:
    """The module `skfem`.

    Raises:
        InputError: it is not installed.
    """
    try:
        import skfem
    except ImportError:
        raise InputError(
            "finite elements are assembled by scikit-fem, which is not installed: "
            "pip install 'rootflow[fem]'."
        ) from None
    return skfem


class PlaneStress:
    """Linear elasticity in plane stress with a lumped mass: M u'' + K u = F.

    Attributes:
        nodes: positions, shape (n, 2).
        stiffness: K, from (n, 2, N) displacements to forces.
        stress: from displacements to the stresses (xx, yy, xy) in the middle of elements. Each
            element stands in a row of its first node, in slots of three.
        mass: of each node, shape (n,).
        matrix: K as a sparse matrix of SciPy, unknowns node by node.
        frequency: the highest angular frequency: explicit steps are stable below 2 / frequency.
        mesh: of scikit-fem.
        young: E of each element.
        poisson: nu.
        density: rho.
    """

    mesh: Any
    density: float
    poisson: float
    young: np.ndarray
    stiffness: NodeProduct
    nodes: Array
    mass: Array
    stress: NodeProduct
    frequency: float

    def __init__(
        self,
        mesh: Any,
        *,
        young: Any = 1.0,
        poisson: float = 0.3,
        density: float = 1.0,
    ) -> None:
        """Assembles.

        Args:
            mesh: a `MeshQuad` or `MeshTri` of scikit-fem.
            young: E, a number, or a function of x and y (of the middles of elements), or an array
                with a number for each element.
            poisson: nu, in (-1, 0.5).
            density: rho.

        Raises:
            InputError: scikit-fem is missing, or a constant is out of its range.
        """
        fem = scikit_fem()
        self.mesh, self.density = mesh, checks.positive("density", density)
        if not -1 < poisson < 0.5:
            raise InputError(f"poisson must lie between -1 and 0.5; got {poisson!r}.")
        self.poisson = float(poisson)
        basis, middle = _bases(fem, mesh)
        self.young = _moduli(mesh, young)
        if not np.array_equal(basis.nodal_dofs.ravel("F"), np.arange(basis.N)):
            raise InputError(
                "the unknowns of this mesh are not two for each node: use a linear mesh."
            )
        self.matrix: Any = csr_matrix(_stiffness(fem, basis, self.young, self.poisson))
        self.stiffness = node_product(self.matrix, 2, 2)
        self.nodes = jnp.asarray(mesh.p.T)
        mass = _lumped(fem, basis, self.density)
        self.mass = jnp.asarray(mass)
        stresses, slots = _stresses(middle, self.young, self.poisson)
        self.stress = node_product(stresses, 3 * slots, 2)
        self.frequency = _highest(self.matrix, np.repeat(mass, 2))

    def edge_matrix(self, nodes: np.ndarray) -> np.ndarray:
        """From tractions at nodes of the boundary to consistent forces there, both (k, .)."""
        facets = self.mesh.facets
        on = np.isin(facets, nodes).all(axis=0)
        length = np.linalg.norm(
            self.mesh.p[:, facets[1, on]] - self.mesh.p[:, facets[0, on]], axis=0
        )
        place = {int(node): i for i, node in enumerate(nodes)}
        matrix = np.zeros((len(nodes), len(nodes)))
        for (a, b), size in zip(facets[:, on].T, length):
            i, j = place[int(a)], place[int(b)]
            matrix[[i, j, i, j], [i, j, j, i]] += size * np.array([2, 2, 1, 1]) / 6
        return matrix

    def pattern(self) -> Any:
        """Where the Jacobian of the first-order system (u, u') may be different from zero."""
        n = self.mesh.p.size
        return bmat([[None, eye(n)], [self.matrix, self.matrix]]).tocsr()

    def restricted(self, elements: np.ndarray) -> "PlaneStress":
        """The body made of some of the elements, with the same positions and moduli."""
        elements = np.sort(elements)
        return PlaneStress(
            self.mesh.restrict(elements), young=self.young[elements], poisson=self.poisson,
            density=self.density,
        )  # fmt: skip


def von_mises(stress: NodeProduct, u: Float[Array, "n 2 N"]) -> Float[Array, "n slots N"]:
    """Equivalent stress in the middle of elements, zero in empty slots.

    Args:
        stress: of a `PlaneStress`.
        u: displacements.
    """
    s = stress(u)
    s = s.reshape(s.shape[0], -1, 3, s.shape[-1])
    xx, yy, xy = s[:, :, 0], s[:, :, 1], s[:, :, 2]
    square = xx**2 - xx * yy + yy**2 + 3 * xy**2
    rest = square <= 0  # a square root has no derivative there
    return jnp.where(rest, 0.0, jnp.sqrt(jnp.where(rest, 1.0, square)))


def wave_speed(young: float = 1.0, poisson: float = 0.3, density: float = 1.0) -> float:
    """Speed of a plane wave in plane stress, sqrt(E / (rho (1 - nu^2)))."""
    return float(np.sqrt(young / (density * (1 - poisson**2))))


def _moduli(mesh: Any, young: Any) -> np.ndarray:
    count = mesh.t.shape[1]
    middle = mesh.p[:, mesh.t].mean(axis=1)
    value = young(*middle) if callable(young) else young
    try:
        moduli = np.broadcast_to(np.asarray(value, float), (count,)).copy()
    except (TypeError, ValueError):
        raise InputError(
            f"young must be a number, or one for each of the {count} elements; got {value!r}."
        ) from None
    if not (np.isfinite(moduli) & (moduli > 0)).all():
        raise InputError(f"young must be positive; got {moduli[~(moduli > 0)][:1]}.")
    return moduli


def _bases(fem: Any, mesh: Any) -> tuple[Any, Any]:
    kinds = {4: fem.ElementQuad1, 3: fem.ElementTriP1}
    if not hasattr(mesh, "t") or mesh.t.shape[0] not in kinds or mesh.p.shape[0] != 2:
        raise InputError(
            f"mesh must be a plane MeshQuad or MeshTri of scikit-fem; got {type(mesh).__name__}."
        )
    element = fem.ElementVector(kinds[mesh.t.shape[0]]())
    return fem.Basis(mesh, element), fem.Basis(mesh, element, intorder=0)


def _stiffness(fem: Any, basis: Any, young: np.ndarray, poisson: float) -> Any:
    from skfem.helpers import ddot, sym_grad, trace
    from skfem.helpers import eye as times_identity

    @fem.BilinearForm
    def elastic(u, v, w):
        strain, size = sym_grad(u), w.young / (1 - poisson**2)
        stress = size * ((1 - poisson) * strain + poisson * times_identity(trace(strain), 2))
        return ddot(stress, sym_grad(v))

    return elastic.assemble(basis, young=np.repeat(young[:, None], basis.dx.shape[1], axis=1))


def _lumped(fem: Any, basis: Any, density: float) -> np.ndarray:
    """Row sums of the consistent mass matrix, for each node."""
    from skfem.helpers import dot

    @fem.BilinearForm
    def inertia(u, v, w):
        return density * dot(u, v)

    return np.asarray(inertia.assemble(basis).sum(axis=1)).ravel()[::2]


def _stresses(middle: Any, young: np.ndarray, poisson: float) -> tuple[Any, int]:
    """Stresses in the middle of each element, in the row of its first node, and slots of a node."""
    t = middle.mesh.t
    first = t.min(axis=0)
    order = np.argsort(first, kind="stable")
    counts = np.bincount(first)
    slot = np.empty(first.size, int)
    slot[order] = np.arange(first.size) - (np.cumsum(counts) - counts)[first[order]]
    slots = int(counts.max())
    plane = np.array([[1, poisson, 0], [poisson, 1, 0], [0, 0, (1 - poisson) / 2]])
    rows, columns, values = [], [], []
    for i, functions in enumerate(middle.basis):
        grad = np.asarray(functions[0].grad)[..., 0]  # (component, direction, elements)
        strain = np.stack([grad[0, 0], grad[1, 1], grad[0, 1] + grad[1, 0]])
        stress = young / (1 - poisson**2) * (plane @ strain)
        for component in range(3):
            rows.append(3 * (slots * first + slot) + component)
            columns.append(middle.element_dofs[i])
            values.append(stress[component])
    size = 3 * slots * middle.mesh.p.shape[1], middle.N
    places = np.concatenate(rows), np.concatenate(columns)
    return coo_matrix((np.concatenate(values), places), shape=size), slots


def _highest(matrix: csr_matrix, mass: np.ndarray) -> float:
    """The highest frequency of M^-1 K."""
    scale = diags(1 / np.sqrt(mass))
    start = np.random.default_rng(0).standard_normal(mass.size)
    symmetric = scale @ matrix @ scale
    if mass.size < 12:
        return float(np.sqrt(np.linalg.eigvalsh(symmetric.toarray())[-1]))
    values = eigsh(symmetric, k=1, which="LA", return_eigenvectors=False, v0=start, tol=1e-8)  # pyright: ignore
    return float(np.sqrt(values[0]))
