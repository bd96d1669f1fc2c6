"""Linear equations driven by fractional noise: everything about them is Gaussian, and exact."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Float, Shaped

from ...errors import InputError
from ...ground.tracing import is_traced
from .base import checked_time
from .law import MarkovLaw

#: A step is halved until its matrix is this small, and so often at most.
_SMALL, _HALVINGS, _TERMS = 0.25, 40, 12


class Backward(NamedTuple):
    """The log-likelihood of what is still to come, -z' precision z / 2 + pull' z + const.

    Attributes:
        ts: times of the observations.
        precision: at each of these times, with the observation there counted.
        pull: likewise.
    """

    ts: Float[Array, " n"]
    precision: Float[Array, "n z z"]
    pull: Float[Array, "n z"]


class Smoothed(NamedTuple):
    """Posterior means (n, d) and covariances (n, d, d) of X."""

    mean: Float[Array, "n d"]
    covariance: Float[Array, "n d d"]


class LinearFractional(eqx.Module):
    """dX = (drift X + offset) dt + diffusion dB, B fractional in the Markov approximation.

    With the processes of the approximation X is the linear Gaussian state-space model of
    Z = (X, Y), so that likelihood, smoothing, forecasts and the control that turns the prior into
    the posterior are exact, at O(n K**3) for n observations. The observations are
    observe X(t) + N(0, error**2); a NaN is a missing one.

    Args:
        law: the approximation, `MarkovLaw(hurst, horizon, ...)`; its start is at `t0`.
        drift: (d, d), or a number for every component.
        diffusion: (d, m), or a number for a motion of its own for every component.
        offset: (d,) or a number.
        start: X(t0), (d,).
        spread: standard deviation of X(t0), (d,) or a number.
        observe: (p, d); default: all of X.
        error: standard deviation of the observations, (p,) or a number.
        t0: the start.

    Raises:
        InputError: shapes that do not fit together.
    """

    law: MarkovLaw
    matrix: Float[Array, "z z"]  # of Z with a constant 1 as the last component
    noise: Float[Array, "z m"]
    mean: Float[Array, " z"]
    covariance: Float[Array, "z z"]
    seen: Float[Array, "p z"]
    error: Float[Array, " p"]
    t0: Shaped[Any, ""]
    size: int = eqx.field(static=True)

    def __init__(
        self,
        law: MarkovLaw,
        drift: ArrayLike = 0.0,
        diffusion: ArrayLike = 1.0,
        *,
        offset: ArrayLike = 0.0,
        start: ArrayLike = 0.0,
        spread: ArrayLike = 0.0,
        observe: ArrayLike | None = None,
        error: ArrayLike = 0.1,
        t0: ArrayLike = 0.0,
    ) -> None:
        dtype = law.rates.dtype
        x0 = jnp.atleast_1d(jnp.asarray(start, dtype))
        d, K = x0.size, law.rates.size
        eye = jnp.eye(d, dtype=dtype)
        A, S = jnp.asarray(drift, dtype), jnp.asarray(diffusion, dtype)
        A, S = (M * eye if M.ndim == 0 else M for M in (A, S))
        C = eye if observe is None else jnp.asarray(observe, dtype)
        if A.shape != (d, d) or S.ndim != 2 or S.shape[0] != d or C.ndim != 2 or C.shape[1] != d:
            raise InputError(
                f"For start of shape ({d},): drift ({d}, {d}), diffusion ({d}, m) and observe "
                f"(p, {d}), or numbers; got {A.shape}, {S.shape} and {C.shape}."
            )
        m, p = S.shape[1], C.shape[0]
        total, moved = jnp.sum(law.weights), law.weights * law.rates
        b = jnp.broadcast_to(jnp.asarray(offset, dtype), (d,))
        zero = jnp.zeros
        self.matrix = jnp.block(
            [
                [A, -jnp.kron(S, moved[None]), b[:, None]],
                [zero((m * K, d)), -jnp.diag(jnp.tile(law.rates, m)), zero((m * K, 1))],
                [zero((1, d + m * K + 1))],
            ]
        )
        each = jnp.kron(jnp.eye(m, dtype=dtype), jnp.ones((K, 1), dtype))
        self.noise = jnp.concatenate([total * S, each, zero((1, m))])
        self.mean = jnp.concatenate([x0, zero(m * K), jnp.ones(1, dtype)])
        root = law.start_root()
        self.covariance = jax.scipy.linalg.block_diag(
            jnp.diag(jnp.broadcast_to(jnp.asarray(spread, dtype), (d,)) ** 2),
            jnp.kron(jnp.eye(m, dtype=dtype), root @ root.T),
            zero((1, 1)),
        )
        self.seen = jnp.concatenate([C, zero((p, m * K + 1))], 1)
        self.error = jnp.broadcast_to(jnp.asarray(error, dtype), (p,))
        self.t0 = checked_time("t0", t0, dtype)
        self.law, self.size = law, d

    def transition(self, h: ArrayLike) -> tuple[Float[Array, "z z"], Float[Array, "z z"]]:
        """Z(t + h) = first Z(t) + a draw with covariance second; h >= 0 (else NaN)."""
        F, L = self.matrix, self.noise
        # Of a step back in time the series would make some matrix.
        h = jnp.where(jnp.asarray(h, F.dtype) >= 0, h, jnp.nan)
        # A series for a step so small that a few terms are exact, doubled as often as it takes.
        size = jnp.max(jnp.sum(jnp.abs(F), 1)) * h
        halvings = jnp.ceil(jnp.log2(jnp.maximum(lax.stop_gradient(size), 1e-30) / _SMALL))
        halvings = jnp.clip(halvings, 0, _HALVINGS)
        step = h * 2.0**-halvings
        phi = term = jnp.eye(F.shape[0], dtype=F.dtype)
        brought = step * L @ L.T
        covariance = brought
        for k in range(1, _TERMS):
            term = step / k * F @ term
            phi = phi + term
            brought = step / (k + 1) * (F @ brought + brought @ F.T)
            covariance = covariance + brought

        def double(i, carry):
            phi, covariance = carry
            go = i < halvings
            twice = covariance + phi @ covariance @ phi.T
            return jnp.where(go, phi @ phi, phi), jnp.where(go, twice, covariance)

        return lax.fori_loop(0, _HALVINGS, double, (phi, covariance))

    def _transitions(self, ts: Array) -> tuple[Array, Array]:
        """For the gaps before each of the times; the first is from t0."""
        if not is_traced(ts, self.t0) and ts.size:
            # A regular grid has one gap, up to rounding.
            gaps = np.diff(np.asarray(ts), prepend=np.asarray(self.t0))
            digits = 5 if gaps.dtype == np.float32 else 12
            rounded = np.round(gaps / max(float(gaps.max()), 1e-300), digits)
            _, first, where = np.unique(rounded, return_index=True, return_inverse=True)
            phi, Q = _steps(self, jnp.asarray(gaps[first]))
            return phi[where], Q[where]
        return _steps(self, jnp.diff(ts, prepend=self.t0))

    def _checked(self, ts: ArrayLike, ys: ArrayLike) -> tuple[Array, Array]:
        # What is known stays so inside `jit`: a regular grid is seen as one.
        dtype = self.matrix.dtype
        ts, ys = (jnp.asarray(x, dtype) if is_traced(x) else np.asarray(x, dtype) for x in (ts, ys))
        p = self.error.size
        if p == 1 and ys.ndim and ys.shape[-2:] != (*ts.shape, 1):
            ys = ys[..., None]
        if ts.ndim != 1 or ys.shape[-2:] != (ts.size, p):
            raise InputError(
                f"ts must have shape (n,) and the observations (n, {p}); got {ts.shape} and "
                f"{ys.shape}."
            )
        if not is_traced(ts, self.t0) and np.any(np.diff(ts, prepend=np.asarray(self.t0)) < 0):
            raise InputError(
                f"The times must not decrease, from t0={float(np.asarray(self.t0)):g} on; got {ts}."
            )
        return ts, ys  # pyright: ignore

    @eqx.filter_jit  # outside `jit` these loops would be compiled at every call
    def _filter(self, transitions, ys: Array, there: Array):
        """Log-likelihood, and mean and covariance of Z at each time given the past."""

        def step(carry, row):
            m, P, total = carry
            phi, Q, y, there = row
            m, P = phi @ m, phi @ P @ phi.T + Q
            # What is missing is observed as 0 = 0 + noise, which says nothing.
            C = jnp.where(there[:, None], self.seen, 0.0)
            R = jnp.where(there, self.error**2, 1.0)
            root = jnp.linalg.cholesky(C @ P @ C.T + jnp.diag(R))
            e = jnp.where(there, y - C @ m, 0.0)
            white = jax.scipy.linalg.solve_triangular(root, e, lower=True)
            half = jax.scipy.linalg.solve_triangular(root, C @ P, lower=True)
            m, P = m + half.T @ white, P - half.T @ half
            count = jnp.sum(there)
            scale = jnp.sum(jnp.log(jnp.diagonal(root)))
            total = total - 0.5 * white @ white - scale - 0.5 * count * np.log(2 * np.pi)
            return (m, 0.5 * (P + P.T), total), (m, P)

        start = (self.mean, self.covariance, jnp.zeros((), self.matrix.dtype))
        (_, _, total), rows = lax.scan(step, start, (*transitions, ys, there))
        return total, rows

    def log_likelihood(
        self,
        ts: ArrayLike,
        ys: ArrayLike,
        *,
        seen: ArrayLike | None = None,
    ) -> Float[Array, "..."]:
        """Log-density of observations.

        Args:
            ts: the times, (n,).
            ys: the observations, (n, p), or (n,) where p is 1; also a batch of them.
            seen: which of them are there, if it is the same in all of a batch: then the covariances
                are worked out once. Default: those that are not NaN.
        """
        ts, ys = self._checked(ts, ys)
        transitions = self._transitions(ts)
        batch, axis = ys.shape[:-2], 0
        there = ~jnp.isnan(ys) if is_traced(ys) else ~np.isnan(ys)
        there = there.reshape(-1, *ys.shape[-2:])
        ys = jnp.where(there, ys.reshape(there.shape), 0.0)
        if seen is not None:
            there, axis = jnp.broadcast_to(jnp.reshape(seen, (ts.size, -1)), ys.shape[1:]), None
        elif not is_traced(there) and np.all(there == there[:1]):
            there, axis = there[0], None
        of = lambda y, there: self._filter(transitions, y, there)[0]
        return jax.vmap(of, (0, axis))(ys, there).reshape(batch)

    def backward(self, ts: ArrayLike, ys: ArrayLike) -> Backward:
        """What observations (n, p) at times (n,) say of the state before; for `control`."""
        ts, ys = self._checked(ts, ys)
        there = jnp.asarray(~jnp.isnan(ys) if is_traced(ys) else ~np.isnan(ys))
        if not is_traced(self.error) and not np.all(np.asarray(self.error) > 0):
            raise InputError(
                f"Smoothing needs an observation error above zero; got {self.error}: use a small "
                "one."
            )

        return self._backward(jnp.asarray(ts), *self._transitions(ts), jnp.asarray(ys), there)

    @eqx.filter_jit
    def _backward(self, ts: Array, phi: Array, Q: Array, ys: Array, there: Array) -> Backward:
        def step(carry, row):
            precision, pull = carry
            phi, Q, y, there = row
            C = jnp.where(there[:, None], self.seen, 0.0) / self.error[:, None]
            precision = precision + C.T @ C
            pull = pull + C.T @ jnp.where(there, y / self.error, 0.0)
            return through(phi, Q, precision, pull), (precision, pull)

        n = self.mean.size
        start = (jnp.zeros((n, n), ts.dtype), jnp.zeros(n, ts.dtype))
        _, (precision, pull) = lax.scan(step, start, (phi, Q, ys, there), reverse=True)
        return Backward(ts, precision, pull)

    def control(
        self, later: Backward, t: ArrayLike, x: ArrayLike, memory: ArrayLike
    ) -> Float[Array, " m"]:
        """The control under which X is a draw from the posterior.

        Args:
            later: what `backward` returned.
            t: the time.
            x: X(t), (d,).
            memory: Y(t), (m, terms) or (terms,).
        """
        t = jnp.asarray(t, later.ts.dtype)
        x, memory = jnp.atleast_1d(x), jnp.asarray(memory)
        z = jnp.concatenate([x, memory.ravel(), jnp.ones(1, x.dtype)])
        # An observation at t itself has been made; t may be rounded.
        slack = 1024 * jnp.finfo(t.dtype).eps * jnp.maximum(jnp.abs(t), 1.0)
        i = jnp.searchsorted(later.ts, t + slack, side="right")
        j = jnp.minimum(i, later.ts.size - 1)
        gap = jnp.maximum(later.ts[j] - t, 0.0)
        precision, pull = through(*self.transition(gap), later.precision[j], later.pull[j])
        u = self.noise.T @ (pull - precision @ z)
        return jnp.where(i < later.ts.size, u, 0.0)

    def smooth(self, ts: ArrayLike, ys: ArrayLike, at: ArrayLike) -> Smoothed:
        """X at the times `at` (k,), from t0 on: within, between and after the observations.

        Mean and covariance given all observations `ys` (n, p) at the times `ts` (n,); with `ts`
        empty, those of the prior.
        """
        ts, ys = self._checked(ts, ys)
        if not is_traced(at, self.t0) and np.any(np.asarray(at) < np.asarray(self.t0)):
            raise InputError(
                f"X begins at t0={float(np.asarray(self.t0)):g}; got at={at!r}, with times before."
            )
        at = jnp.asarray(at, ts.dtype)
        times = jnp.concatenate([jnp.asarray(ts), at])
        order = jnp.argsort(times, stable=True)
        back = jnp.argsort(order)[ts.size :]
        ys = jnp.concatenate([ys, jnp.full((at.size, ys.shape[1]), jnp.nan, ys.dtype)])[order]
        times = times[order]
        there = ~jnp.isnan(ys)
        transitions = self._transitions(times)
        _, (m, P) = self._filter(transitions, jnp.where(there, ys, 0.0), there)
        # Each observation is in the filter already: without it, what comes later.
        later = self.backward(times, ys)
        follow = jax.vmap(through)(*transitions, later.precision, later.pull)
        precision = jnp.concatenate([follow[0][1:], jnp.zeros_like(follow[0][:1])])
        pull = jnp.concatenate([follow[1][1:], jnp.zeros_like(follow[1][:1])])

        def join(m, P, precision, pull):
            M = jnp.eye(m.size, dtype=m.dtype) + P @ precision
            return jnp.linalg.solve(M, m + P @ pull), jnp.linalg.solve(M, P)

        d = self.size
        mean, covariance = jax.vmap(join)(m, P, precision, pull)
        return Smoothed(mean[back, :d], covariance[back, :d, :d])


@eqx.filter_jit
def _steps(model: LinearFractional, gaps: Array) -> tuple[Array, Array]:
    return jax.vmap(model.transition)(gaps)


def through(phi: Array, Q: Array, precision: Array, pull: Array) -> tuple[Array, Array]:
    """A Gaussian log-likelihood of Z(t + h), as one of Z(t)."""
    M = jnp.eye(Q.shape[0], dtype=Q.dtype) + precision @ Q
    both = jnp.linalg.solve(M, jnp.concatenate([precision @ phi, pull[:, None]], 1))
    made = phi.T @ both
    return 0.5 * (made[:, :-1] + made[:, :-1].T), made[:, -1]
