"""A plate that is hit at its left edge, and a zone of interest at its right end as a submodel."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray

from ..errors import InputError
from ..flows.methods import Method
from ..ground.checks import whole
from . import checks
from .dynamics import Structure, from_rest, march
from .plane_stress import PlaneStress, scikit_fem, von_mises, wave_speed
from .products import NodeProduct
from .trajectory import Trajectory

#: So many samples are stepped together: what they read and write stays in the cache.
_COLUMNS = 32
_VECTOR = 16


class Loads(NamedTuple):
    """Random tractions A exp(-((y - y0) / 0.15)^2) exp(-((t - ts) / tau)^2) along the left edge.

    Attributes:
        position: y0, shape (samples,).
        amplitude: A.
        duration: tau.
        start: ts.
    """

    position: Float[Array, " samples"]
    amplitude: Float[Array, " samples"]
    duration: Float[Array, " samples"]
    start: Float[Array, " samples"]


class Patch(NamedTuple):
    """Elements whose middle lies in a rectangle have E times a factor."""

    x: tuple[float, float]
    y: tuple[float, float]
    factor: float


class FullRun(NamedTuple):
    """Runs of the whole plate.

    Attributes:
        times: of the steps, with the start, shape (times,).
        trace: displacements of the interface, (samples, times, nodes, 2).
        peak_von_mises_in_zone: largest equivalent stress in the zone over time, (samples,).
        peak_time: when it is reached.
        tip_displacement: largest displacement along x of the tip over time, (samples,).
        energy: kinetic and elastic energy of the plate, (samples, times), if asked for.
        field: displacements of the zone, (samples, times, zone nodes, 2), if asked for.
    """

    times: Float[np.ndarray, " times"]
    trace: Float[Array, "samples times nodes 2"]
    peak_von_mises_in_zone: Float[Array, " samples"]
    peak_time: Float[Array, " samples"]
    tip_displacement: Float[Array, " samples"]
    energy: Float[Array, "samples times"] | None
    field: Float[Array, "samples times zone_nodes 2"] | None


class ZoneRun(NamedTuple):
    """Runs of the zone alone; as `FullRun`."""

    times: Float[np.ndarray, " times"]
    peak_von_mises: Float[Array, " samples"]
    peak_time: Float[Array, " samples"]
    tip_displacement: Float[Array, " samples"]
    energy: Float[Array, "samples times"] | None
    field: Float[Array, "samples times zone_nodes 2"] | None


class _Edge(eqx.Module):
    """Forces on the first nodes, along x."""

    forces: Float[Array, "k N"]
    start: Float[Array, " N"]
    duration: Float[Array, " N"]
    nodes: int = eqx.field(static=True)

    def __call__(self, t):
        size = jnp.exp(-(((t - self.start) / self.duration) ** 2))
        here = (self.forces * size)[:, None]
        return jnp.pad(here, ((0, self.nodes - self.forces.shape[0]), (0, 1), (0, 0)))


class _Watch(eqx.Module):
    """What is kept of a step, all of it in the zone, whose nodes are the last."""

    stress: NodeProduct
    first: int = eqx.field(static=True)
    interface: int = eqx.field(static=True)
    tip: int = eqx.field(static=True)
    field: bool = eqx.field(static=True)

    def __call__(self, u):
        zone = u[self.first :]
        seen = {
            "peak": jnp.max(von_mises(self.stress, zone), axis=(0, 1)),
            "tip": zone[self.tip, 0],
        }
        if self.first:
            seen["trace"] = zone[: self.interface]
        if self.field:
            seen["field"] = zone
        return seen


class PlateImpact:
    """A free plate [0, length] x [0, height] in plane stress, hit on its left edge.

    The zone of interest is x >= zone; it is cut off along mesh lines, and can be run alone with the
    displacements of the interface x = zone given (`run_zone`). Elements are bilinear, masses
    lumped, and time is stepped by central differences: with the trace of a full run the zone then
    moves to the last bit as it did there.

    Attributes:
        body: the plate, assembled.
        zone_body: the zone, assembled.
        times: of all steps, with the start.
        step: size of a step.
        interface: nodes on the interface; the first of the zone.
        tip: node of the zone nearest to the middle of the right edge.
    """

    height: float
    interface: int
    body: PlaneStress
    zone_body: PlaneStress
    tip: int
    step: float
    times: np.ndarray

    def __init__(
        self,
        *,
        length: float = 6.0,
        height: float = 1.0,
        element: float = 0.1,
        zone: float = 4.5,
        end: float = 10.0,
        young: float = 1.0,
        poisson: float = 0.3,
        density: float = 1.0,
        patch: Patch | None = None,
        step: float | None = None,
        lines: ArrayLike | None = None,
    ) -> None:
        """Assembles the plate and its zone.

        Args:
            length: along x.
            height: along y.
            element: the size of elements, at most; mesh lines are placed so that the interface is
                one of them.
            zone: x of the interface.
            end: the last time.
            young: E.
            poisson: nu.
            density: rho.
            patch: a rectangle of another stiffness, in the zone away from the interface.
            step: the size of a step, at most. By default half the time of a wave through an
                element.
            lines: the mesh lines x = const, in place of those made from `element`.

        Raises:
            InputError: scikit-fem is missing, a size is out of its range, or the interface is not
                a mesh line.
        """
        fem = scikit_fem()
        self._options = {
            "length": length, "height": height, "element": element, "zone": zone, "end": end,
            "young": young, "poisson": poisson, "density": density, "patch": patch, "step": step,
            "lines": lines,
        }  # fmt: skip
        xs = _lines(length, element, zone, lines)
        rows = _pieces(checks.positive("height", height), checks.positive("element", element))
        ys = np.linspace(0, height, rows + 1)
        mesh = fem.MeshQuad.init_tensor(xs, ys)
        cut = xs[np.argmin(abs(xs - zone))]
        self.height, self.interface = float(height), ys.size
        moduli = _patched(checks.positive("young", young), patch, cut)
        self.body = PlaneStress(mesh, young=moduli, poisson=poisson, density=density)
        inside = np.nonzero(mesh.p[0][mesh.t].min(axis=0) >= cut)[0]
        self.zone_body = self.body.restricted(inside)
        self._first = int(mesh.p.shape[1] - self.zone_body.mesh.p.shape[1])
        right = np.hypot(*(self.zone_body.mesh.p - np.array([[xs[-1]], [height / 2]])))
        self.tip = int(np.argmin(right))
        self._edge = jnp.asarray(self.body.edge_matrix(np.arange(ys.size)))
        smallest = min(np.diff(xs).min(), np.diff(ys).min())
        size = 0.5 * smallest / wave_speed(young, poisson, density) if step is None else step
        steps = math.ceil(checks.positive("end", end) / checks.positive("step", size) - 1e-9)
        self.step = end / max(steps, 3)
        self.times = self.step * np.arange(max(steps, 3) + 1)

    def changed(self, **options: Any) -> "PlateImpact":
        """The same plate with other options, as `patch` or `young`."""
        return PlateImpact(**(self._options | options))

    def draw(self, key: PRNGKeyArray, count: int) -> Loads:
        """Random loads: two places, two sizes, and durations and starts that are uniform.

        y0 is 0.2 or 0.8 of the height, within 0.08; A uniform in (0.4, 0.7) with probability 0.7,
        else in (1.3, 1.7); tau uniform in (0.15, 0.45), ts in (0.6, 1.2).

        Raises:
            InputError: a count that is not a positive whole number.
        """
        count = whole("count", count)
        keys = jax.random.split(key, 6)

        def uniform(key, low, high):
            return jax.random.uniform(key, (count,), minval=low, maxval=high)

        upper = jax.random.bernoulli(keys[0], 0.5, (count,))
        weak = jax.random.bernoulli(keys[2], 0.7, (count,))
        u = uniform(keys[3], 0.0, 1.0)
        return Loads(
            self.height * (jnp.where(upper, 0.8, 0.2) + uniform(keys[1], -0.08, 0.08)),
            jnp.where(weak, 0.4 + 0.3 * u, 1.3 + 0.4 * u),
            uniform(keys[4], 0.15, 0.45),
            uniform(keys[5], 0.6, 1.2),
        )

    def run(
        self,
        loads: Loads,
        *,
        energy: bool = True,
        field: bool = False,
        method: Method | None = None,
        progress: Callable[[float], Any] | None = None,
    ) -> FullRun:
        """The whole plate under loads.

        Args:
            loads: as of `draw`.
            energy: keep it; costs about half as much again.
            field: keep the displacements of the zone, which are many numbers.
            method: `rf.LeapFrog()` by default, or an implicit one.
            progress: told the part that is done.

        Raises:
            InputError: loads that are no four arrays of one shape (samples,), or explicit steps
                above the limit of stability.
        """
        loads = _checked(loads)

        def structure(part: Loads) -> Structure:
            y = self.body.nodes[: self.interface, 1]
            shape = jnp.exp(-(((y[:, None] - part.position) / 0.15) ** 2))
            edge = _Edge(
                self._edge @ (part.amplitude * shape), part.start, part.duration,
                self.body.nodes.shape[0],
            )  # fmt: skip
            return Structure(self.body.stiffness, self.body.mass, load=edge)

        options = _Options(energy, field, method, progress)
        seen, energies = self._all(loads, structure, self.body, self._first, options)
        return FullRun(
            self.times, seen["trace"], *self._quantities(seen), energies, seen.get("field")
        )

    def run_zone(
        self,
        trace: Float[ArrayLike, "samples times nodes 2"],
        *,
        energy: bool = False,
        field: bool = False,
        method: Method | None = None,
        rates: Float[ArrayLike, "samples times nodes 2"] | None = None,
        progress: Callable[[float], Any] | None = None,
    ) -> ZoneRun:
        """The zone alone, its interface on given trajectories.

        Args:
            trace: displacements of the interface at equal intervals from 0 to `end`: at the steps
                themselves, or fewer, between which they are interpolated (`Trajectory`). At least
                as many as resolve the shortest pulse.
            energy: keep it.
            field: keep all displacements.
            method: `rf.LeapFrog()` by default, or an implicit one.
            rates: velocities of the interface; by default those of the interpolant.
            progress: told the part that is done.

        Raises:
            InputError: traces of another shape, that are not finite or do not start at rest.
        """
        traces = checks.traces(trace)
        nodes = (self.interface, 2)
        if traces.shape[2:] != nodes or traces.shape[1] < 3:
            raise InputError(
                f"traces must have shape (samples, times, {self.interface}, 2) for the "
                f"{self.interface} nodes of the interface, with at least three times; got "
                f"{traces.shape}."
            )
        steps, intervals = self.times.size - 1, traces.shape[1] - 1
        if steps % intervals:
            raise InputError(
                f"traces hold {traces.shape[1]} times, which are not every k-th of the "
                f"{steps + 1} of the plate (`times`), first and last included: keep every k-th "
                f"with a k that divides {steps}."
            )
        checks.at_rest(traces)
        interval = self.times[-1] / intervals
        given = (
            (traces,)
            if rates is None
            else (traces, checks.traces(rates, "rates", traces.shape[1:]))
        )
        if len({x.shape[0] for x in given}) > 1:
            raise InputError(f"rates must have the shape {traces.shape} of traces.")

        def structure(part):
            columns = [jnp.moveaxis(jnp.asarray(x), 0, -1) for x in part]
            path = Trajectory(columns[0], interval, *columns[1:])
            body = self.zone_body
            return Structure(body.stiffness, body.mass, boundary=path, held=(0, self.interface))

        options = _Options(energy, field, method, progress)
        seen, energies = self._all(given, structure, self.zone_body, 0, options)
        return ZoneRun(self.times, *self._quantities(seen), energies, seen.get("field"))

    def _quantities(self, seen: dict[str, Array]) -> tuple[Array, Array, Array]:
        """Peak stress, its time, and the peak of the tip, of each sample."""
        stress, tip = seen["peak"], seen["tip"]
        when = jnp.asarray(self.times)[jnp.argmax(stress, axis=1)]
        return jnp.max(stress, axis=1), when, jnp.max(jnp.abs(tip), axis=1)

    def _all(self, inputs: Any, structure: Any, body: PlaneStress, first: int, options: Any):
        """Blocks of samples one after the other, the last filled up with the last sample."""
        count = jax.tree.leaves(inputs)[0].shape[0]
        # Whole vectors of the machine: what is left over would be rounded in another way.
        width = min(_COLUMNS, _VECTOR * math.ceil(count / _VECTOR))
        watch = _Watch(self.zone_body.stress, first, self.interface, self.tip, options.field)
        implicit = options.method is not None and options.method.jacobians
        if not implicit:
            _check_stable(self.step, body.frequency)
        found = []
        for begin in range(0, count, width):
            places = np.minimum(np.arange(begin, begin + width), count - 1)
            part = jax.tree.map(lambda x, i=places: x[i], inputs)
            if implicit:
                marched = self._members(part, structure, watch, body, options)
            else:
                marched = march(
                    structure(part), watch, columns=width, components=2, step=self.step,
                    steps=self.times.size - 1, energy=options.energy, method=options.method,
                )  # fmt: skip
            rows = from_rest((marched.watched, marched.energy))
            kept = min(width, count - begin)
            found.append(jax.tree.map(lambda x, k=kept: jnp.moveaxis(x, -1, 0)[:k], rows))
            if options.progress is not None:
                options.progress((begin + kept) / count)
        if len(found) == 1:
            return found[0]
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *found)

    def _members(self, part: Any, structure: Any, watch: _Watch, body: PlaneStress, options: Any):
        """Samples of one block by an implicit method, which share their factorised matrix."""

        def one(member):
            single = jax.tree.map(lambda x: x[None], member)
            return march(
                structure(single), watch, columns=1, components=2, step=self.step,
                steps=self.times.size - 1, energy=options.energy, method=options.method,
                jac_sparsity=body.pattern(),
            )  # fmt: skip

        found = jax.vmap(one)(jax.tree.map(jnp.asarray, part))
        return jax.tree.map(lambda x: jnp.moveaxis(x[..., 0], 0, -1), found)


@dataclasses.dataclass(frozen=True)
class _Options:
    energy: bool
    field: bool
    method: Method | None
    progress: Callable[[float], Any] | None


def _check_stable(step: float, frequency: float) -> None:
    """Raises for a step of central differences above 2 / frequency."""
    if step * frequency >= 2:
        raise InputError(
            f"step={step:.4g} is above the limit of stability of central differences, 2 / "
            f"omega_max = {2 / frequency:.4g}: take a smaller step or larger elements, or "
            "method=rf.GeneralizedAlpha(), which any step suits."
        )


def _checked(loads: Loads) -> Loads:
    parts = [checks.samples(name, value) for name, value in loads._asdict().items()]
    if len({part.size for part in parts}) > 1:
        sizes = {name: np.shape(value) for name, value in loads._asdict().items()}
        raise InputError(f"loads must have one number for each sample; got {sizes}.")
    if (parts[2] <= 0).any():
        raise InputError(f"duration must be positive; got {parts[2].min():g}.")
    return Loads(*map(jnp.asarray, parts))


def _pieces(size: float, element: float) -> int:
    return max(math.ceil(size / element - 1e-9), 1)


def _lines(length: Any, element: Any, zone: Any, lines: Any) -> np.ndarray:
    """The mesh lines x = const, of which the interface is one."""
    length, element = checks.positive("length", length), checks.positive("element", element)
    if not 0 < checks.positive("zone", zone) < length:
        raise InputError(f"zone={zone!r} must lie within the plate, between 0 and {length:g}.")
    if lines is None:
        left = np.linspace(0, zone, _pieces(zone, element) + 1)
        right = np.linspace(zone, length, _pieces(length - zone, element) + 1)
        return np.concatenate([left, right[1:]])
    xs = checks.samples("lines", lines, 3)
    if (np.diff(xs) <= 0).any() or xs[0] != 0 or abs(xs[-1] - length) > 1e-9 * length:
        raise InputError(f"lines must increase from 0 to the length {length:g}; got {xs}.")
    near = xs[np.argmin(abs(xs - zone))]
    if abs(near - zone) > 1e-9 * length:
        raise InputError(
            f"zone={zone!r} does not lie on a mesh line: a submodel is cut along the mesh. The "
            f"nearest line is x = {near:g}; take that, or put a line at {zone:g}."
        )
    return xs


def _patched(young: float, patch: Patch | None, cut: float) -> Any:
    if patch is None:
        return young
    if not (patch.x[0] < patch.x[1] and patch.y[0] < patch.y[1] and patch.x[0] > cut):
        raise InputError(
            f"a patch must be a rectangle in the zone, right of the interface x = {cut:g}; got "
            f"{patch}."
        )
    factor = checks.positive("factor", patch.factor)

    def moduli(x, y):
        inside = (x > patch.x[0]) & (x < patch.x[1]) & (y > patch.y[0]) & (y < patch.y[1])
        return np.where(inside, factor * young, young)

    return moduli
